/* Chat templates: the language case by case, whole templates, the origin of the rendered text, and hostile
 * templates.
 *
 * The expected texts in test/data/templates were made with Jinja2 3.1.6 in the environment of transformers'
 * chat templates (sandboxed, trim_blocks, lstrip_blocks, loop controls); the lines and columns of errors are
 * zgen's. */
#include "../../src/text/chat.h"
#include "../../src/base/buf.h"
#include "../../src/base/clock.h"
#include "check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>

#define DATA "test/data/templates/"
#define GOLDEN "../shared/golden/chat/"

/* ---- Help ---- */

static json_t *load(const char *path) {
    json_error_t error;
    json_t *json = json_load_file(path, 0, &error);
    CHECK(json, "(%s: %s)", path, error.text);
    return json;
}

static char *read_file(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    Buf b = {0};
    char piece[4096];
    for (size_t got; (got = fread(piece, 1, sizeof piece, f)) > 0;) buf_add(&b, piece, got);
    fclose(f);
    *n = b.n;
    return b.data;
}

/* The runs must tile the text, adjacent ones must differ. */
static void check_runs(const ChatText *text, const char *name) {
    size_t at = 0;
    for (size_t i = 0; i < text->n_runs; i++) {
        const ChatRun *r = &text->runs[i];
        CHECK(r->start == at && r->n > 0, "(%s: run %zu)", name, i);
        CHECK(i == 0 || r->from_user != text->runs[i - 1].from_user, "(%s: run %zu)", name, i);
        at += r->n;
    }
    CHECK(at == text->n, "(%s)", name);
}

/* Renders, and compares with "expected" of the case, or expects an error, at the line and column of "error"
 * if it names them. */
static void check_case(const json_t *c, const char *name, const char *source, size_t n,
                       const json_t *variables) {
    ChatInput input = {.variables = variables};
    ChatText text;
    Err e = {0};
    const char *expected = json_string_value(json_object_get(c, "expected"));
    const char *error = json_string_value(json_object_get(c, "error"));
    if (!chat_render(source, n, &input, &text, &e)) {
        CHECK(!expected, "(%s: %s)", name, e.text);
        CHECK(e.code == ERR_RUN || e.code == ERR_MODEL, "(%s: code %d)", name, e.code);
        CHECK(!text.data && !text.runs && !text.ends);
        if (error && strncmp(error, "line ", 5) == 0)
            CHECK(strstr(e.text, error), "(%s: %s, not %s)", name, e.text, error);
        return;
    }
    CHECK(expected, "(%s: rendered, though it is wrong: %s)", name, text.data);
    if (expected)
        CHECK(strcmp(text.data, expected) == 0, "(%s:\n got %s\nwant %s)", name, text.data, expected);
    check_runs(&text, name);
    chat_text_free(&text);
}

static void check_language(const char *path) {
    json_t *cases = load(path), *variables = load(DATA "variables.json"), *c;
    size_t i;
    CHECK(json_array_size(cases) > 100);
    json_array_foreach(cases, i, c) {
        const char *source = json_string_value(json_object_get(c, "template"));
        check_case(c, source, source, strlen(source), variables);
    }
    json_decref(cases);
    json_decref(variables);
}

TEST(jinja_expressions) {
    check_language(DATA "expressions.json");
}
TEST(jinja_statements) {
    check_language(DATA "statements.json");
}

TEST(jinja_conversations) {
    json_t *cases = load(DATA "conversations.json"), *c;
    size_t i, n;
    CHECK(json_array_size(cases) > 5);
    json_array_foreach(cases, i, c) {
        char path[200];
        snprintf(path, sizeof path, DATA "%s", json_string_value(json_object_get(c, "template")));
        char *source = read_file(path, &n);
        CHECK(source, "(%s)", path);
        if (source) check_case(c, path, source, n, json_object_get(c, "variables"));
        free(source);
    }
    json_decref(cases);
}

/* ---- Published templates ---- */

static void check_golden(const char *file, int *n_cases) {
    char path[600], name[900];
    size_t i, n;
    snprintf(path, sizeof path, GOLDEN "%s", file);
    json_t *golden = load(path), *c;
    snprintf(path, sizeof path, GOLDEN "%.*s.jinja", (int)(strlen(file) - strlen(".cases.json")), file);
    char *source = read_file(path, &n);
    CHECK(source, "(%s)", path);
    json_array_foreach(json_object_get(golden, "cases"), i, c) {
        json_t *variables = json_deep_copy(json_object_get(c, "extra"));
        json_object_set(variables, "messages", json_object_get(c, "messages"));
        json_object_set(variables, "add_generation_prompt", json_object_get(c, "add_generation_prompt"));
        json_object_set(variables, "bos_token", json_object_get(golden, "bos_token"));
        json_object_set(variables, "eos_token", json_object_get(golden, "eos_token"));
        json_object_set(variables, "now", json_object_get(golden, "now"));
        snprintf(name, sizeof name, "%s: %s", file, json_string_value(json_object_get(c, "name")));
        if (source) check_case(c, name, source, n, variables);
        json_decref(variables);
        ++*n_cases;
    }
    free(source);
    json_decref(golden);
}

TEST(jinja_golden_templates) {
    DIR *d = opendir(GOLDEN);
    if (!d) SKIP("no " GOLDEN);
    int n_cases = 0;
    for (struct dirent *entry; (entry = readdir(d));)
        if (strstr(entry->d_name, ".cases.json")) check_golden(entry->d_name, &n_cases);
    closedir(d);
    CHECK(n_cases > 0);
}

TEST(chat_builtin_templates) {
    json_t *expected = load(DATA "builtin.json");
    json_t *variables =
        json_pack("{s:b, s:[{s:s,s:s},{s:s,s:s},{s:s,s:s},{s:s,s:s}]}", "add_generation_prompt", 1,
                  "messages", "role", "system", "content", "Be brief.", "role", "user", "content", "Hi",
                  "role", "assistant", "content", "Hello.", "role", "user", "content", "2+2?");
    size_t i = 0;
    for (const char *name; (name = chat_builtin_name(i)); i++) {
        const char *source = chat_builtin_template(name);
        ChatInput input = {.variables = variables, .bos_token = "<BOS>", .eos_token = "<EOS>"};
        ChatText text;
        Err e = {0};
        bool ok = chat_render(source, strlen(source), &input, &text, &e);
        CHECK(ok, "(%s: %s)", name, e.text);
        const char *want = json_string_value(json_object_get(expected, name));
        CHECK(want && ok && strcmp(text.data, want) == 0, "(%s: %s)", name, ok ? text.data : "");
        chat_text_free(&text);
    }
    CHECK(i == json_object_size(expected));
    CHECK(!chat_builtin_template("no such template"));
    json_decref(expected);
    json_decref(variables);
}

/* ---- Origin ---- */

/* The text rendered for one message of the user, with [...] around the user's characters; the caller
 * frees. */
static char *marked(const char *source, const char *content) {
    json_t *variables = json_pack("{s:[{s:s, s:s}], s:{s:s}, s:s}", "messages", "role", "user", "content",
                                  content, "extra", "key", "<|eot|>", "eos_token", "<|end|>");
    ChatInput input = {.variables = variables, .bos_token = "<s>"};
    ChatText text;
    Err e = {0};
    Buf b = {0};
    if (chat_render(source, strlen(source), &input, &text, &e)) {
        check_runs(&text, source);
        for (size_t i = 0; i < text.n_runs; i++)
            buf_printf(&b, text.runs[i].from_user ? "[%.*s]" : "%.*s", (int)text.runs[i].n,
                       text.data + text.runs[i].start);
        buf_add(&b, "", 0);
        chat_text_free(&text);
    } else {
        buf_printf(&b, "%s", e.text);
    }
    json_decref(variables);
    return b.data;
}

TEST(chat_marks_user_text) {
    static const struct {
        const char *source, *content, *want;
    } CASES[] = {
        {"<|im_start|>{{ messages[0].role }}\n{{ messages[0].content }}<|im_end|>", "a<|im_end|>b",
         "<|im_start|>user\n[a<|im_end|>b]<|im_end|>"},
        {"{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}",
         "<|end|>", "<|user|>[<|end|>]<|end|>"},
        {"{{ bos_token }}{{ messages[0].content | trim }}.", "  <s> \n", "<s>[<s>]."},
        {"{{ messages[0].content.replace('x', '<|im_end|>') }}", "axb", "[a]<|im_end|>[b]"},
        {"{{ 'a-b' | replace('-', messages[0].content) }}", "<s>", "a[<s>]b"},
        {"{{ messages[0].content | upper }}{{ messages[0].content.title() }}", "<s>", "[<S><S>]"},
        {"{{ messages[0].content[1:-1] }}|{{ messages[0].content[::-1] }}", "x<s>y", "[<s>]|[y>s<x]"},
        {"{{ messages[0].content.split(',') | join('<s>') }}", "a,b", "[a]<s>[b]"},
        {"{% for c in messages[0].content %}{{ c }}-{% endfor %}", "ab", "[a]-[b]-"},
        {"{{ messages[0].content | tojson }}", "<s>\"\n", "\"[<s>\\\"\\n]\""},
        {"{{ messages[0] | tojson }}", "<s>", "{\"[role]\": \"user\", \"[content]\": \"[<s>]\"}"},
        {"{{ messages[0].content ~ 1 ~ messages[0].content }}", "<s>", "[<s>]1[<s>]"},
        {"{{ '%s|%5s' % (messages[0].content, 'x') }}{{ '{:>3}'.format(messages[0].content) }}", "<",
         "[<]|    x  [<]"},
        {"{{ messages[0].content * 2 }}{{ 'x' * 2 }}", "<s>", "[<s><s>]xx"},
        {"{% set x %}<s>{{ messages[0].content }}{% endset %}{{ x }}{{ x | length }}", "é", "<s>[é]4"},
        {"{% macro m(t) %}({{ t }}){% endmacro %}{{ m(messages[0].content).replace(')', '>') }}", "a)",
         "([a]>>"},
        {"{{ messages[0].content | e }}", "<", "[&lt;]"},
        {"{{ messages[0].content | wordwrap(3) }}", "<a> <b>", "[<a>]\n[<b>]"},
        {"{{ messages[0].content | striptags }}", "a <b> &lt;s>", "[a] [<s>]"},
        {"{{ messages[0].content | urlize }}", "xy.com",
         "<a href=\"https://[xy.com]\" rel=\"noopener\">[xy.com]</a>"},
        {"<i{{ {'k': messages[0].content} | xmlattr }}>", "<s>", "<i k=\"[&lt;s&gt;]\">"},
        {"{{ (messages[0].content | from_json).a }}", "{\"a\": \"<s>\"}", "[<s>]"},
        {"{{ messages[0].content | indent(2, true) }}", "a\nb", "  [a]\n  [b]"},
        {"{{ [messages[0].content] }}", "it's", "[\"[it's]\"]"},
        {"{{ extra.key }}{% for k in extra %}{{ k }}{% endfor %}", "", "[<|eot|>key]"},
        {"{% if messages[0].content == '<s>' and '<s>' in messages[0].content %}{{ '<s>' }}{% endif %}",
         "<s>", "<s>"},
        {"{{ {'<s>': 'of the template'}[messages[0].content] }}", "<s>", "of the template"},
        {"{{ messages[0].content | length }}{{ messages[0].content | int + 1 }}", "41", "242"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char *got = marked(CASES[i].source, CASES[i].content);
        CHECK(strcmp(got, CASES[i].want) == 0, "(%s:\n got %s\nwant %s)", CASES[i].source, got,
              CASES[i].want);
        free(got);
    }
}

TEST(chat_marks_unknown_roles) {
    const char *source = "<|{{ messages[0].role }}|>";
    json_t *variables = json_pack("{s:[{s:s}]}", "messages", "role", "im_end");
    ChatInput input = {.variables = variables};
    ChatText text;
    Err e = {0};
    REQUIRE(chat_render(source, strlen(source), &input, &text, &e), "(%s)", e.text);
    CHECK(text.n_runs == 3 && text.runs[1].from_user && text.runs[1].start == 2 && text.runs[1].n == 6);
    CHECK(chat_text_is_user(&text, 0, text.n) && chat_text_is_user(&text, 7, 1) &&
          chat_text_is_user(&text, 7, 5));
    CHECK(!chat_text_is_user(&text, 0, 2) && !chat_text_is_user(&text, 8, 2) &&
          !chat_text_is_user(&text, 10, 3));
    chat_text_free(&text);
    json_decref(variables);
}

/* ---- Hostile templates, malformed messages ---- */

/* The text or the error of a template without messages; the caller frees. */
static char *outcome(const char *source, size_t n, int *code) {
    json_t *variables = json_pack("{s:[]}", "messages");
    ChatInput input = {.variables = variables};
    ChatText text;
    Err e = {0};
    char *result;
    if (chat_render(source, n, &input, &text, &e))
        result = strdup(text.data);
    else
        result = strdup(e.text);
    *code = e.code;
    chat_text_free(&text);
    json_decref(variables);
    return result;
}

static void check_refused(const char *name, const char *source, size_t n, const char *why) {
    int code;
    double start = clock_now();
    char *result = outcome(source, n, &code);
    CHECK(code == ERR_MODEL, "(%s: %.100s)", name, result);
    CHECK(strstr(result, why), "(%s: %.200s)", name, result);
    CHECK(clock_now() - start < 60, "(%s: %f s)", name,
          clock_now() - start); // also under a sanitizer
    free(result);
}

static void check_repeated(const char *before, const char *piece, int times, const char *after,
                           const char *why) {
    Buf b = {0};
    buf_add(&b, before, strlen(before));
    for (int i = 0; i < times; i++) buf_add(&b, piece, strlen(piece));
    buf_add(&b, after, strlen(after));
    check_refused(piece, b.data, b.n, why);
    buf_free(&b);
}

TEST(jinja_refuses_nesting) {
    check_repeated("{{ ", "(", 200000, " }}", "nested too deeply");
    check_repeated("{{ ", "[", 200000, " }}", "nested too deeply");
    check_repeated("{{ ", "not ", 100000, "1 }}", "nested too deeply");
    check_repeated("{{ ", "-", 100000, "1 }}", "nested too deeply");
    check_repeated("{{ 1", " + 1", 100000, " }}", "nested too deeply");
    check_repeated("{{ 1", ".a", 100000, " }}", "nested too deeply");
    check_repeated("{{ 1", "|string", 100000, " }}", "nested too deeply");
    check_repeated("{{ ", "1 if 0 else ", 50000, "1 }}", "nested too deeply");
    check_repeated("", "{% if 1 %}", 90000, "", "nested too deeply");
    check_repeated("", "{% for i in [1] %}", 50000, "", "nested too deeply");
    check_repeated("", "{% macro m() %}", 50000, "", "nested too deeply");
    check_repeated("", "x", 3000000, "", "larger than");
}

TEST(jinja_refuses_what_does_not_end) {
    check_repeated("{% for i in range(99999) %}{{ 0", " or 0", 500, " }}{% endfor %}", "10000000 steps");
    static const struct {
        const char *source, *why;
    } CASES[] = {
        {"{% for i in range(1000000000) %}x{% endfor %}", "limited to"},
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "more than"},
        {"{% for i in range(99999) %}{% for j in 'abcdef' %}{% set x = 1 + 1 %}{% endfor %}{% endfor %}"
         "{% for i in range(99999) %}{% for j in 'abcdef' %}{% set x = 1 + 1 %}{% endfor %}{% endfor %}"
         "{% for i in range(99999) %}{% for j in 'abcdef' %}{% set x = 1 + 1 %}{% endfor %}{% endfor %}",
         "more than"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "nested too deeply"},
        {"{% macro m(n) %}{{ m(n + 1) ~ m(n + 1) }}{% endmacro %}{{ m(0) }}", "nested too deeply"},
        {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "nested too deeply"},
        {"{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}", "nested too deeply"},
        {"{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = [ns.l] %}{% endfor %}{{ "
         "ns.l }}",
         "nested too deeply"},
        {"{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
         "beyond"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
         "MiB of memory"},
        {"{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "beyond"},
        {"{{ 'é' * 10000000 }}", "writes more than"},
        {"{{ 'x' * 100000000000 }}", "beyond"},
        {"{{ [1] * 100000000000 }}", "more than"},
        {"{{ 'x' | center(100000000000) }}", "beyond"},
        {"{{ 'x'.ljust(100000000000) }}", "beyond"},
        {"{{ [[1]] | tojson(indent=100000000000) }}", "beyond"},
        {"{{ ('a' * 1000000).find('a' * 500000 ~ 'b') }}", "10000000 steps"},
        {"{{ ('a' * 1000000) | trim('b' * 1000000 ~ 'a') }}", "10000000 steps"},
        {"{{ range(100000) | unique | list }}", "10000000 steps"},
        {"{{ [1] | slice(9223372036854775807) | list }}", "more than"},
        {"{% set s = 'a' * 1000000 %}{% set t = ('b' ~ s,) * 1000 %}{% for i in range(99999) %}"
         "{{ s.startswith(t) }}{{ s.endswith(t) }}{% endfor %}",
         "10000000 steps"},
        {"{% set p = 'a.' * 500000 %}{% for i in range(99999) %}{{ [1] | map(attribute=p, default={}) | list "
         "}}"
         "{% endfor %}",
         "10000000 steps"},
        {"{% set s = 'ab' * 2000 %}{% for i in range(99999) %}{% for k in range(99) %}{{ 'aa' in s }}"
         "{% endfor %}{% endfor %}",
         "10000000 steps"},
        {"{% set a = [1] %}{% for i in a %}{% set _ = a.append(1) %}{% endfor %}", "more than"},
        {"{% set a = [] %}{% for i in range(99) %}{% set _ = a.append(a) %}{% endfor %}{{ a }}",
         "nested too deeply"},
        {"{% set s = 'a b' * 999 %}{% for i in range(99999) %}{{ s | wordwrap(1) | length }}{% endfor %}",
         "more than"},
        {"{% set s = 'x.com ' * 999 %}{% for i in range(99999) %}{{ s | urlize | length }}{% endfor %}",
         "more than"},
        {"{% set s = '<' * 99999 %}{% for i in range(99999) %}{{ s | striptags | length }}{% endfor %}",
         "more than"},
        {"{% include '/etc/passwd' %}", "not supported"},
        {"{% import 'os' as os %}", "not supported"},
        {"{% extends 'x' %}", "not supported"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        check_refused(CASES[i].source, CASES[i].source, strlen(CASES[i].source), CASES[i].why);
}

/* A list of 60 levels that shares its parts has 2^60 items to compare. */
TEST(jinja_counts_comparisons) {
    static const char *const OPERATIONS[] = {
        "{{ ns.l == ns.l }}",
        "{{ ns.l != ns.l }}",
        "{{ ns.l < ns.l }}",
        "{{ ns.l in [ns.l] }}",
        "{{ ns.l is in [ns.l] }}",
        "{{ ns.l is eq ns.l }}",
        "{{ ns.l is sameas ns.l }}",
        "{{ ns.l is ge ns.l }}",
        "{{ [ns.l] is containing ns.l }}",
        "{{ [ns.l].count(ns.l) }}",
        "{{ [ns.l].index(ns.l) }}",
        "{{ [ns.l, ns.l] | unique | list }}",
        "{{ [ns.l, ns.l] | sort }}",
        "{{ [ns.l, ns.l] | max }}",
        "{{ [ns.l, ns.l] | min }}",
        "{{ [[ns.l], [ns.l]] | groupby(0) }}",
        "{{ [[ns.l], [ns.l]] | sort(attribute=0) }}",
        "{{ [ns.l] | select('eq', ns.l) | list }}",
        "{{ {'a': ns.l} == {'a': ns.l} }}",
        "{{ {'a': (ns.l,)}.get((ns.l,)) }}{{ {(ns.l,): 1}[(ns.l,)] }}",
        "{{ dict([[(ns.l,), 1], [(ns.l,), 2]]) }}",
        "{% for i in [1, 2] %}{{ loop.changed(ns.l) }}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++) {
        Buf b = {0};
        buf_printf(&b,
                   "{%% set ns = namespace(l=[1]) %%}{%% for i in range(60) %%}"
                   "{%% set ns.l = [ns.l, ns.l] %%}{%% endfor %%}%s",
                   OPERATIONS[i]);
        check_refused(OPERATIONS[i], b.data, b.n, "10000000 steps");
        buf_free(&b);
    }
}

static int n_asked;

static bool third_time(void) {
    return ++n_asked == 3;
}

TEST(jinja_stops_when_asked) {
    static const char SOURCE[] =
        "{% for i in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}";
    json_t *variables = json_pack("{s:[]}", "messages");
    ChatInput input = {.variables = variables, .stop = third_time};
    ChatText text;
    Err e = {0};
    n_asked = 0;
    CHECK(!chat_render(SOURCE, strlen(SOURCE), &input, &text, &e) && e.code == ERR_RUN && n_asked == 3,
          "(%d %s)", n_asked, e.text);
    json_decref(variables);
}

TEST(jinja_errors_are_sentences) {
    static const struct {
        const char *source;
        int code;
        const char *want;
    } CASES[] = {
        {"a\nb {{ x.y }}", ERR_RUN, "chat template, line 2, column 8: 'x' is not defined"},
        {"{{ raise_exception('No system role\x1b[31m') }}", ERR_RUN,
         "chat template, line 1, column 4: the template refuses these messages: No system role\\x1b[31m"},
        {"é\r\n\r\n{{ 'é' + }}", ERR_MODEL,
         "chat template, line 3, column 10: an expression is expected here, not \"}}\""},
        {"{% if true %}", ERR_MODEL,
         "chat template, line 1, column 4: this {% if %} is not closed; it needs {% endif %}"},
        {"{% endfor %}", ERR_MODEL,
         "chat template, line 1, column 4: {% endfor %} does not match the open block"},
        {"{{ ''.__class__.__mro__[1].__subclasses__() }}", ERR_RUN,
         "chat template, line 1, column 17: this str has no '__class__'"},
        {"{{ 1 | system }}", ERR_MODEL, "chat template, line 1, column 8: the filter 'system' is unknown"},
        {"{{ messages.insert(1) }}", ERR_RUN,
         "chat template, line 1, column 13: 'insert' would change a list in place, which templates cannot; "
         "make a new one"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        int code;
        char *got = outcome(CASES[i].source, strlen(CASES[i].source), &code);
        CHECK(strcmp(got, CASES[i].want) == 0 && code == CASES[i].code, "(%d %s)", code, got);
        free(got);
    }
}

TEST(jinja_bears_any_bytes) {
    static const char SOURCE[] = "\xff{{ 'a\xc3' }}\0{# \xed\xa0\x80 #}\xf0\x9f\x98\x80\xe2\x82";
    int code;
    char *got = outcome(SOURCE, sizeof SOURCE - 1, &code); // strdup ends at the NUL
    CHECK(code == 0 && strcmp(got,
                              "\xEF\xBF\xBD"
                              "a\xEF\xBF\xBD") == 0,
          "(%s)", got);
    free(got);
}

TEST(chat_refuses_wrong_input) {
    static const struct {
        const char *json, *want;
    } CASES[] = {
        {"{}", "\"messages\", an array of messages, is missing"},
        {"{\"messages\": 5}", "\"messages\", an array of messages, is missing"},
        {"{\"messages\": [{}, 5]}", "message 2 is not an object"},
        {"{\"messages\": [], \"now\": \"yesterday\"}", "\"now\" is not a time"},
        {"{\"messages\": [], \"now\": 5}", "\"now\" is not a time"},
        {"{\"messages\": [], \"now\": \"2026-13-01T00:00:00\"}", "\"now\" is not a time"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *variables = json_loads(CASES[i].json, 0, NULL);
        ChatInput input = {.variables = variables};
        ChatText text;
        Err e = {0};
        CHECK(!chat_render("x", 1, &input, &text, &e), "(%s)", CASES[i].json);
        CHECK(e.code == ERR_RUN && strstr(e.text, CASES[i].want), "(%s: %s)", CASES[i].json, e.text);
        json_decref(variables);
    }
}

/* Without "now", the wall clock. */
TEST(chat_tells_the_time) {
    int code;
    char year[8], *got = outcome("{{ strftime_now('%Y') }}", 24, &code);
    time_t now = time(NULL);
    strftime(year, sizeof year, "%Y", localtime(&now));
    CHECK(strcmp(got, year) == 0, "(%s)", got);
    free(got);
}
