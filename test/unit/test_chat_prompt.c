/* Messages as clients send them, in templates of every habit: small ones that need one form each, and all
 * published and built-in ones.  Nothing is lost in silence: each text is in the prompt, or a note names it. */
#include "../../src/text/chat_prompt.h"
#include "../../src/jinja/value.h"
#include "../../src/text/normalise.h"
#include "check.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN "../shared/golden/chat/"

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

typedef struct Result {
    bool ok;
    char *text; // of the prompt, or of the error
    Buf notes;
} Result;

/* The prompt of a conversation: its messages as JSON, with more variables from an object (may be NULL). */
static Result prompt_with(bool no_thought, const char *source, size_t n, const char *messages,
                          const json_t *more) {
    json_t *variables = more ? json_deep_copy(more) : json_object();
    json_object_set_new(variables, "messages", json_loads(messages, 0, NULL));
    CHECK(json_object_get(variables, "messages"), "(%s)", messages);
    if (!json_object_get(variables, "add_generation_prompt"))
        json_object_set_new(variables, "add_generation_prompt", json_true());
    ChatInput input = {.variables = variables, .bos_token = "", .eos_token = "", .no_thought = no_thought};
    ChatText text;
    Result r = {0};
    Err e = {0};
    r.ok = chat_prompt(source, n, &input, &text, &r.notes, &e);
    CHECK(!r.ok || !text.has_repr || strstr(source, "REPR"), "(%s)", text.data);
    r.text = strdup(r.ok ? text.data : e.text);
    chat_text_free(&text);
    json_decref(variables);
    return r;
}

static Result prompt_of(const char *source, size_t n, const char *messages, const json_t *more) {
    return prompt_with(false, source, n, messages, more);
}

static void free_result(Result *r) {
    free(r->text);
    buf_free(&r->notes);
}

/* ---- one form each ---- */

#define ROLES(others) "{% for m in messages %}{{ m.role }}:{{ m.content }};" others "{% endfor %}"
#define CALLS                                                                                                \
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }} {{ c.id "   \
    "}}]"                                                                                                    \
    "{% endfor %}"
#define PLAIN ROLES(CALLS)
#define REFUSES(what, when)                                                                                  \
    "{% for m in messages %}{% if " when " %}{{ raise_exception('" what "') }}{% endif %}{% endfor %}"

#define PARTS "[{\"type\":\"text\",\"text\":\"Hello\"},{\"type\":\"text\",\"text\":\" there\"}]"
#define TWO_CALLS                                                                                            \
    "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["       \
    "{\"id\":\"call_0123456789\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"          \
    "\"{\\\"x\\\": 1}\"}},{\"function\":{\"name\":\"g\",\"arguments\":{}}}]},"                               \
    "{\"role\":\"tool\",\"tool_call_id\":\"call_0123456789\",\"content\":\"r\"},{\"role\":\"tool\","         \
    "\"content\":\"s\"}]"
#define ONE_CALL                                                                                             \
    "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"c\",\"tool_calls\":["      \
    "{\"id\":\"123456789\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}}]},"                \
    "{\"role\":\"tool\",\"tool_call_id\":\"123456789\",\"content\":\"r\"}]"
#define SYSTEMS                                                                                              \
    "[{\"role\":\"developer\",\"content\":\"S\"},{\"role\":\"system\",\"content\":\"T\"},"                   \
    "{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"a\"},"                      \
    "{\"role\":\"system\",\"content\":\"V\"},{\"role\":\"user\",\"content\":\"w\"}]"

TEST(chat_prompt_finds_the_form) {
    static const struct {
        const char *source, *messages, *want, *note;
    } CASES[] = {
        // what is made of all messages
        {PLAIN, "[{\"role\":\"user\",\"content\":" PARTS "}]", "user:Hello there;", NULL},
        {PLAIN, "[{\"role\":\"user\",\"content\":[\"a\",{\"type\":\"input_text\",\"text\":\"b\"}]}]",
         "user:ab;", NULL},
        {PLAIN, "[{\"role\":\"assistant\",\"content\":[{\"type\":\"refusal\",\"refusal\":\"No.\"}]}]",
         "assistant:No.;", NULL},
        {PLAIN, "[{\"role\":\"user\"},{\"role\":\"assistant\",\"content\":null}]", "user:;assistant:;", NULL},
        {PLAIN, "[{\"role\":\"tool\",\"content\":{\"t\":21}}]", "tool:{\"t\": 21};", NULL},
        {PLAIN, SYSTEMS, "system:S;system:T;user:u;assistant:a;system:V;user:w;", NULL},
        {PLAIN, TWO_CALLS, "user:u;assistant:;[f {\"x\": 1} call_0123456789][g {} call00002]tool:r;tool:s;",
         NULL},
        {PLAIN,
         "[{\"role\":\"assistant\",\"function_call\":{\"name\":\"f\",\"arguments\":\"{}\"}},"
         "{\"role\":\"function\",\"name\":\"f\",\"content\":\"r\"}]",
         "assistant:;[f {} call00001]tool:r;", NULL},
        {PLAIN,
         "[{\"role\":\"assistant\",\"tool_calls\":[{\"name\":\"f\",\"arguments\":\"not JSON\"}]},"
         "{\"role\":\"assistant\",\"tool_calls\":[]}]",
         "assistant:;[f \"not JSON\" call00001]assistant:;", NULL},
        {"{% for m in messages %}{{ m.reasoning_content }}{{ m.content }}{% endfor %}",
         "[{\"role\":\"assistant\",\"reasoning\":\"t\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
         "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\","
         "\"text\":\"v\"}]},{\"type\":\"text\",\"text\":\"b\"}]}]",
         "tavb", NULL},
        // templates that need a form
        {"{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text }}{% endfor %};{% endfor %}",
         "[{\"role\":\"user\",\"content\":\"u\"}]", "user:u;", NULL},
        {REFUSES("no system", "m.role == 'system'") PLAIN, SYSTEMS,
         "user:S\n\nT\n\nu;assistant:a;user:V\n\nw;", NULL},
        {"{% for m in messages if m.role != 'system' %}{{ m.content }};{% endfor %}", SYSTEMS,
         "S\n\nT\n\nu;a;V\n\nw;", NULL},
        {REFUSES("late system", "m.role == 'system' and not loop.first") PLAIN, SYSTEMS,
         "system:S\n\nT;user:u;assistant:a;user:V\n\nw;", NULL},
        {REFUSES("roles must alternate", "loop.previtem is defined and loop.previtem.role == m.role") PLAIN,
         "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"user\",\"content\":\"v\"}]", "user:u\n\nv;",
         NULL},
        {REFUSES("roles must alternate", "loop.previtem is defined and loop.previtem.role == m.role")
             REFUSES("empty", "not m.content") PLAIN,
         "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\"},"
         "{\"role\":\"user\",\"content\":\"v\"}]",
         "user:u\n\nv;", NULL},
        {"{% for m in messages %}{% if m.content is none %}" CALLS "{% else %}{{ m.content }}{% endif %}"
         "{% endfor %}",
         TWO_CALLS, "u[f {\"x\": 1} call_0123456789][g {} call00002]rs", NULL},
        {ROLES("{% for c in m.tool_calls or [] %}{{ '[' + c.function.arguments + ']' }}{% endfor %}"),
         ONE_CALL, "user:u;assistant:c;[{\"x\":1}]tool:r;", NULL}, // as it was written
        {ROLES("{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}"), TWO_CALLS,
         "user:u;assistant:;ftool:r;assistant:;gtool:s;", NULL},
        {REFUSES("one call", "m.tool_calls and m.tool_calls | length > 1") PLAIN, TWO_CALLS,
         "user:u;assistant:;[f {\"x\": 1} call_0123456789]tool:r;assistant:;[g {} call00002]tool:s;", NULL},
        {REFUSES("nine letters", "m.tool_calls and m.tool_calls[0].id | length != 9") PLAIN, TWO_CALLS,
         "user:u;assistant:;[f {\"x\": 1} call00001][g {} call00002]tool:r;tool:s;", NULL},
        {"{% for m in messages %}{% if m.tool_calls %}" CALLS
         "{% else %}{{ m.content }}{% endif %}{% endfor %}",
         ONE_CALL, "uc[f {\"x\": 1} 123456789]r", NULL},
        {ROLES(""), ONE_CALL, "user:u;assistant:c\n\n{\"name\": \"f\", \"arguments\": {\"x\": 1}};tool:r;",
         "no tool calls"},
        {REFUSES("what?", "m.role not in ['user', 'assistant']") ROLES(""), ONE_CALL,
         "user:u;assistant:c\n\n{\"name\": \"f\", \"arguments\": {\"x\": 1}};user:r;", "no results of tools"},
        {ROLES("{{ m.thinking }}"),
         "[{\"role\":\"assistant\",\"reasoning_content\":\"t\",\"content\":\"a\"}]", "assistant:a;t", NULL},
        {"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content "
         "%}"
         "({{ p[p.type] }}){% endfor %}{% endif %}{% endfor %}",
         "[{\"role\":\"assistant\",\"reasoning_content\":\"t\",\"content\":\"a\"}]", "(t)(a)", NULL},
        // what has no place
        {"{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}",
         "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\\n The "
         "end.\\nBye.\"}]",
         "u", "leaves out the assistant message \"The end....\"\n"},
        {PLAIN, "[{\"role\":\"user\",\"name\":\"Ann\",\"content\":\"u\"}]", "user:u;",
         "leaves out the name \"Ann\""},
        {PLAIN, "[{\"role\":\"assistant\",\"thinking\":\"Hm.\",\"content\":\"a\"}]", "assistant:a;",
         "leaves out the reasoning \"Hm.\""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Result r = prompt_of(CASES[i].source, strlen(CASES[i].source), CASES[i].messages, NULL);
        const char *note = CASES[i].note;
        CHECK(r.ok && strcmp(r.text, CASES[i].want) == 0, "(%s\n%s:\n got %s\nwant %s)", CASES[i].source,
              CASES[i].messages, r.text, CASES[i].want);
        CHECK(note ? r.notes.n && strstr(r.notes.data, note) : !r.notes.n, "(%s: %s)", CASES[i].source,
              r.notes.n ? r.notes.data : "");
        free_result(&r);
    }
}

TEST(chat_prompt_names_what_it_cannot_read) {
    static const char *const CASES[][3] = {
        {PLAIN, "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]",
         "message 1 has a part of type 'image_url'"},
        {PLAIN, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
         "message 1 has a part without \"text\""},
        {PLAIN, "[{\"role\":\"user\",\"content\":\"u\"},5]", "message 2 is not an object"},
        {PLAIN, "[{\"content\":\"u\"}]", "message 1 has no \"role\""},
        {PLAIN, "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{}}]}]",
         "without the name of a function"},
        {PLAIN, "{}", "\"messages\", an array of messages, is missing"},
        {"{{ raise_exception('never') }}", "[]", "never"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Result r = prompt_of(CASES[i][0], strlen(CASES[i][0]), CASES[i][1], NULL);
        CHECK(!r.ok && strstr(r.text, CASES[i][2]), "(%s: %s)", CASES[i][1], r.text);
        free_result(&r);
    }
}

static int64_t n_asked;

static bool count_steps(void) {
    n_asked++;
    return false;
}

/* A template that fails late is tried in vain; the trials end with the steps of one rendering. */
TEST(chat_prompt_trials_have_one_budget) {
    static const char SOURCE[] =
        "{% for i in range(2000) %}{% for k in range(999) %}{% endfor %}{% endfor %}"
        "{{ raise_exception('no') }}";
    json_t *variables = json_pack("{s:[{s:s,s:s}]}", "messages", "role", "user", "content", "u");
    ChatInput input = {.variables = variables, .stop = count_steps};
    ChatText text;
    Buf notes = {0};
    Err e = {0};
    n_asked = 0;
    CHECK(!chat_prompt(SOURCE, strlen(SOURCE), &input, &text, &notes, &e) && strstr(e.text, "no"), "(%s)",
          e.text);
    CHECK(n_asked > JINJA_STEPS_MAX / 10 && n_asked < 3 * JINJA_STEPS_MAX, "%lld steps", (long long)n_asked);
    buf_free(&notes);
    json_decref(variables);
}

TEST(chat_prompt_names_tools_without_a_place) {
    static const char SOURCE[] = ROLES("{% if wants %}{{ tools | tojson }}{% endif %}");
    json_t *more = json_pack("{s:[{s:s}],s:b}", "tools", "name", "f", "wants", 0);
    const char *messages = "[{\"role\":\"user\",\"content\":\"u\"}]";
    Result r = prompt_of(SOURCE, strlen(SOURCE), messages, more);
    CHECK(r.ok && r.notes.n && strstr(r.notes.data, "no tools"));
    free_result(&r);
    json_object_set_new(more, "wants", json_true());
    r = prompt_of(SOURCE, strlen(SOURCE), messages, more);
    CHECK(r.ok && !r.notes.n, "(%s)", r.text);
    free_result(&r);
    json_decref(more);
}

TEST(chat_prompt_continues_the_last_message) {
    static const struct {
        const char *source, *messages, *want;
    } CASES[] = {
        {"{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</s>\n{% endfor %}"
         "{% if add_generation_prompt %}<assistant>{% endif %}",
         "[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\" Once \"}]",
         "<user>u</s>\n<assistant>Once"},
        {PLAIN,
         "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":[\"a\",\" b \"]}]",
         "user:a;assistant:a b "},
    };
    json_t *more = json_pack("{s:b}", "continue_final_message", 1);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Result r = prompt_of(CASES[i].source, strlen(CASES[i].source), CASES[i].messages, more);
        CHECK(r.ok && strcmp(r.text, CASES[i].want) == 0, "(%s)", r.text);
        free_result(&r);
    }
    static const char *const REFUSED[][2] = {
        {"[]", "not from the assistant"},
        {"[{\"role\":\"user\",\"content\":\"u\"}]", "not from the assistant"},
        {"[{\"role\":\"user\",\"content\":\"u\"},{\"role\":\"assistant\",\"content\":\"\"}]", "has no text"},
    };
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++) {
        Result r = prompt_of(PLAIN, strlen(PLAIN), REFUSED[i][0], more);
        CHECK(!r.ok && strstr(r.text, REFUSED[i][1]), "(%s)", r.text);
        free_result(&r);
    }
    json_decref(more);
}

TEST(chat_prompt_ends_thoughts_that_are_not_wanted) {
    static const struct {
        const char *source, *want, *note;
    } CASES[] = {
        {PLAIN "<think>\n\n", "user:u;<think>\n\n</think>\n\n", NULL},
        {PLAIN "<think>", "user:u;<think></think>", NULL},
        {PLAIN "{% if enable_thinking %}<think>\n{% endif %}", "user:u;", NULL},
        {PLAIN "{{ 'on' if thinking else 'off' }}", "user:u;off", NULL},
        {PLAIN, "user:u;", "no switch for thinking"},
    };
    json_t *more = json_pack("{s:b,s:b}", "enable_thinking", 0, "thinking", 0);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Result r = prompt_with(true, CASES[i].source, strlen(CASES[i].source),
                               "[{\"role\":\"user\",\"content\":\"u\"}]", more);
        const char *note = CASES[i].note;
        CHECK(r.ok && strcmp(r.text, CASES[i].want) == 0, "(%s)", r.text);
        CHECK(note ? r.notes.n && strstr(r.notes.data, note) : !r.notes.n, "(%s)", CASES[i].source);
        free_result(&r);
    }
    json_decref(more);
}

/* ---- all templates ---- */

/* Conversations, and the words that must be in each prompt or in a note.  u0 to u3, s, a, r are said in many;
 * words that only some templates can write are told apart by the notes. */
static const struct {
    const char *name, *messages, *words[8];
} TALKS[] = {
    {"parts",
     "[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"sys-1\"}]},{\"role\":\"user\","
     "\"content\":" PARTS "},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"function\":{"
     "\"name\":\"fun-1\",\"arguments\":"
     "{}}}]},{\"role\":\"tool\",\"content\":[{\"type\":\"text\",\"text\":\"res-1\"}]}]",
     {"sys-1", "Hello there", "fun-1", "res-1"}},
    {"calls",
     "[{\"role\":\"user\",\"content\":\"use-1\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
     "\"id\":"
     "\"call_abcdefghijkl\",\"type\":\"function\",\"function\":{\"name\":\"fun-1\",\"arguments\":\"{\\\"key-"
     "1\\\":"
     "\\\"val-1\\\"}\"}},{\"id\":\"call_bcdefghijklm\",\"type\":\"function\",\"function\":{\"name\":\"fun-"
     "2\","
     "\"arguments\":\"{\\\"key-2\\\":\\\"val-2\\\"}\"}}]},{\"role\":\"tool\",\"tool_call_id\":"
     "\"call_abcdefghijkl\",\"content\":\"res-1\"},{\"role\":\"tool\",\"tool_call_id\":\"call_bcdefghijklm\","
     "\"content\":\"res-2\"},{\"role\":\"assistant\",\"content\":\"ans-1\"},{\"role\":\"user\",\"content\":"
     "\"use-2\"}]",
     {"use-1", "fun-1", "val-1", "val-2", "res-1", "res-2", "ans-1", "use-2"}},
    {"text beside a call",
     "[{\"role\":\"user\",\"content\":\"use-1\"},{\"role\":\"assistant\",\"content\":\"ans-1\",\"tool_"
     "calls\":[{\"id\":"
     "\"abcdefgh1\",\"type\":\"function\",\"function\":{\"name\":\"fun-1\",\"arguments\":\"{}\"}}]},"
     "{\"role\":\"tool\",\"tool_call_id\":\"abcdefgh1\",\"content\":\"res-1\"}]",
     {"use-1", "ans-1", "fun-1", "res-1"}},
    {"developer",
     "[{\"role\":\"developer\",\"content\":\"dev-1\"},{\"role\":\"user\",\"content\":\"use-1\"}]",
     {"dev-1", "use-1"}},
    {"systems",
     "[{\"role\":\"system\",\"content\":\"sys-1\"},{\"role\":\"system\",\"content\":\"sys-2\"},{\"role\":"
     "\"user\","
     "\"content\":\"use-1\"},{\"role\":\"assistant\",\"content\":\"ans-1\"},{\"role\":\"system\",\"content\":"
     "\"sys-3\"},"
     "{\"role\":\"user\",\"content\":\"use-2\"}]",
     {"sys-1", "sys-2", "use-1", "ans-1", "sys-3", "use-2"}},
    {"empty assistant",
     "[{\"role\":\"user\",\"content\":\"use-1\"},{\"role\":\"assistant\",\"content\":\"\"},{\"role\":"
     "\"user\",\"content\":"
     "\"use-2\"}]",
     {"use-1", "use-2"}},
    {"two users",
     "[{\"role\":\"user\",\"content\":\"use-1\"},{\"role\":\"user\",\"content\":\"use-2\"}]",
     {"use-1", "use-2"}},
    {"name", "[{\"role\":\"user\",\"name\":\"nam-1\",\"content\":\"use-1\"}]", {"nam-1", "use-1"}},
    {"reasoning",
     "[{\"role\":\"user\",\"content\":\"use-1\"},{\"role\":\"assistant\",\"reasoning_content\":\"rea-1\","
     "\"content\":"
     "\"ans-1\"},{\"role\":\"user\",\"content\":\"use-2\"}]",
     {"use-1", "rea-1", "ans-1", "use-2"}},
};

static void check_talks(const char *name, const char *source, size_t n) {
    for (size_t i = 0; i < sizeof TALKS / sizeof *TALKS; i++) {
        Result r = prompt_of(source, n, TALKS[i].messages, NULL);
        CHECK(r.ok, "(%s, %s: %s)", name, TALKS[i].name, r.text);
        for (size_t k = 0; r.ok && k < 8 && TALKS[i].words[k]; k++) {
            const char *word = TALKS[i].words[k];
            bool said = strstr(r.text, word), told = r.notes.n && strstr(r.notes.data, word);
            CHECK(said != told, "(%s, %s: '%s' is %s\n%s)", name, TALKS[i].name, word,
                  said ? "in the prompt and in a note" : "lost", r.text);
        }
        CHECK(!strstr(r.text, "None") && !strstr(r.text, "{'"), "(%s, %s: %s)", name, TALKS[i].name, r.text);
        free_result(&r);
    }
}

TEST(chat_prompt_loses_nothing_in_builtin_templates) {
    const char *name;
    for (size_t i = 0; (name = chat_builtin_name(i)); i++)
        check_talks(name, chat_builtin_template(name), strlen(chat_builtin_template(name)));
}

static void for_each_golden(const char *end, void (*check)(const char *name, const char *source, size_t n)) {
    DIR *d = opendir(GOLDEN);
    if (!d) SKIP("no " GOLDEN);
    int n_files = 0;
    for (struct dirent *entry; (entry = readdir(d));) {
        char path[600];
        size_t n, length = strlen(entry->d_name);
        if (length < strlen(end) || strcmp(entry->d_name + length - strlen(end), end) != 0) continue;
        snprintf(path, sizeof path, GOLDEN "%s", entry->d_name);
        char *source = read_file(path, &n);
        check(entry->d_name, source, n);
        free(source);
        n_files++;
    }
    closedir(d);
    CHECK(n_files > 0);
}

TEST(chat_prompt_loses_nothing_in_published_templates) {
    for_each_golden(".jinja", check_talks);
}

/* Whether a template itself writes these messages, all of them. */
static bool writes_all(const char *source, size_t n, const json_t *variables) {
    ChatInput input = {.variables = variables};
    ChatText text;
    Err e = {0};
    bool ok = chat_render(source, n, &input, &text, &e);
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(variables, "messages"), i, message) {
        ok = ok && (!*message_string(message, "content") || text.ends[chat_origin(i, CHAT_CONTENT, 0)]);
        ok = ok &&
             (!*message_string(message, "reasoning_content") || text.ends[chat_origin(i, CHAT_REASONING, 0)]);
        for (size_t k = 0; k < json_array_size(json_object_get(message, "tool_calls")); k++)
            ok = ok && text.ends[chat_origin(i, CHAT_CALLS, k)];
    }
    chat_text_free(&text);
    return ok;
}

/* Where a template writes the messages as they are, chat_prompt writes the same. */
static void check_same(const char *name, const char *cases, size_t n_cases) {
    char path[600];
    size_t i, n = 0;
    json_t *golden = json_loadb(cases, n_cases, 0, NULL), *c;
    snprintf(path, sizeof path, GOLDEN "%.*s.jinja", (int)(strlen(name) - strlen(".cases.json")), name);
    char *source = read_file(path, &n);
    REQUIRE(golden && source, "(%s)", name);
    int n_same = 0;
    json_array_foreach(json_object_get(golden, "cases"), i, c) {
        const char *expected = json_string_value(json_object_get(c, "expected"));
        json_t *more = json_deep_copy(json_object_get(c, "extra"));
        static const char *const COPIED[] = {"bos_token", "eos_token", "now"};
        for (int k = 0; k < 3; k++) json_object_set(more, COPIED[k], json_object_get(golden, COPIED[k]));
        json_object_set(more, "add_generation_prompt", json_object_get(c, "add_generation_prompt"));
        json_object_set(more, "messages", json_object_get(c, "messages"));
        if (expected && writes_all(source, n, more)) {
            char *messages = json_dumps(json_object_get(c, "messages"), 0);
            Result r = prompt_of(source, n, messages, more);
            CHECK(r.ok && strcmp(r.text, expected) == 0, "(%s, %s:\n got %s\nwant %s)", name,
                  json_string_value(json_object_get(c, "name")), r.text, expected);
            free_result(&r);
            free(messages);
            n_same++;
        }
        json_decref(more);
    }
    CHECK(n_same > 10, "(%s: %d)", name, n_same);
    json_decref(golden);
    free(source);
}

TEST(chat_prompt_writes_what_published_templates_write) {
    for_each_golden(".cases.json", check_same);
}
