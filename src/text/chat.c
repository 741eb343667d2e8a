/* chat: see chat.h. */
#include "chat.h"
#include "../base/buf.h"
#include "../base/mem.h"
#include "../jinja/interp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Variables ---- */

static bool is_known_role(const json_t *role) {
    static const char *const ROLES[] = {"system",         "developer", "user",      "assistant",
                                        "model",          "tool",      "tool_call", "tool_response",
                                        "tool_responses", "function",  "ipython",   "environment",
                                        "observation",    "context",   "documents"};
    for (size_t i = 0; i < sizeof ROLES / sizeof *ROLES; i++)
        if (json_is_string(role) && strcmp(json_string_value(role), ROLES[i]) == 0) return true;
    return false;
}

enum { OF_VARIABLES = 2, OF_MESSAGES, OF_ONE = CHAT_CALLS + CHAT_CALLS_MAX }; // numbers of origins

unsigned chat_origin(size_t i, ChatPart part, size_t call) {
    size_t last = (CHAR_ORIGINS - OF_MESSAGES) / OF_ONE - 1;
    call = call < CHAT_CALLS_MAX ? call : CHAT_CALLS_MAX - 1;
    return (unsigned)(OF_MESSAGES + OF_ONE * (i < last ? i : last) + part + (part == CHAT_CALLS ? call : 0));
}

static Value calls_value(Jinja *j, const json_t *calls, size_t i) {
    size_t n = json_array_size(calls);
    Seq *seq = jv_new_seq(j, n);
    for (size_t k = 0; k < n; k++)
        jv_add(j, seq,
               jv_from_json(j, json_array_get(calls, k), char_mark_of(chat_origin(i, CHAT_CALLS, k))));
    return jv_seq(V_LIST, seq);
}

static bool is(const char *word, const char *other) {
    return strcmp(word, other) == 0;
}

/* A content of message i: text or parts, of which those of thinking are reasoning. */
static Value content_value(Jinja *j, const json_t *content, size_t i) {
    if (!json_is_array(content))
        return jv_from_json(j, content, char_mark_of(chat_origin(i, CHAT_CONTENT, 0)));
    size_t n = json_array_size(content);
    Seq *seq = jv_new_seq(j, n);
    for (size_t k = 0; k < n; k++) {
        const json_t *part = json_array_get(content, k);
        ChatPart kind = json_object_get(part, "thinking") ? CHAT_REASONING : CHAT_CONTENT;
        jv_add(j, seq, jv_from_json(j, part, char_mark_of(chat_origin(i, kind, 0))));
    }
    return jv_seq(V_LIST, seq);
}

/* The value of a key of message i. */
static Value part_value(Jinja *j, const char *key, const json_t *value, size_t i) {
    if (is(key, "tool_calls") && json_is_array(value)) return calls_value(j, value, i);
    if (is(key, "content")) return content_value(j, value, i);
    if (is(key, "role") && is_known_role(value)) return jv_from_json(j, value, 0);
    bool reasons = is(key, "reasoning_content") || is(key, "reasoning") || is(key, "thinking");
    unsigned origin = is(key, "name") ? chat_origin(i, CHAT_NAME, 0)
                      : reasons       ? chat_origin(i, CHAT_REASONING, 0)
                                      : OF_VARIABLES;
    return jv_from_json(j, value, char_mark_of(origin));
}

static Value key_value(Jinja *j, const char *key) {
    return jv_str(js_utf8(j, key, strlen(key), char_mark_of(OF_VARIABLES)));
}

static Value messages_value(Jinja *j, const json_t *messages) {
    size_t n = json_array_size(messages);
    Seq *seq = jv_new_seq(j, n);
    for (size_t i = 0; i < n; i++) {
        json_t *message = json_array_get(messages, i);
        Dict *dict = jv_new_dict(j);
        const char *key;
        json_t *value;
        json_object_foreach(message, key, value)
            jv_put(j, dict, key_value(j, key), part_value(j, key, value, i));
        jv_add(j, seq, jv_dict(dict));
    }
    return jv_seq(V_LIST, seq);
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

static void put(Jinja *j, Dict *dict, const char *key, Value value) {
    jv_put(j, dict, jv_str(js_ascii(j, key)), value);
}

static unsigned variable_origin(const char *key) {
    return ends_with(key, "_token") ? 0 : is(key, "tools") ? CHAT_TOOLS : OF_VARIABLES;
}

static Dict *make_variables(Jinja *j, const void *from) {
    const ChatInput *input = from;
    json_t *object = (json_t *)input->variables; // Jansson's iterators take no const, and change nothing
    Dict *dict = jv_new_dict(j);
    if (input->bos_token)
        put(j, dict, "bos_token", jv_str(js_utf8(j, input->bos_token, strlen(input->bos_token), 0)));
    if (input->eos_token)
        put(j, dict, "eos_token", jv_str(js_utf8(j, input->eos_token, strlen(input->eos_token), 0)));
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        const char *key = json_object_iter_key(i);
        const json_t *value = json_object_iter_value(i);
        if (strcmp(key, "now") == 0) continue;
        if (strcmp(key, "messages") == 0)
            put(j, dict, key, messages_value(j, value));
        else
            put(j, dict, key, jv_from_json(j, value, char_mark_of(variable_origin(key))));
    }
    return dict;
}

static bool check_messages(const json_t *variables, Err *e) {
    const json_t *messages = json_object_get(variables, "messages");
    if (!json_is_array(messages))
        return err_set(e, ERR_RUN, "\"messages\", an array of messages, is missing");
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!json_is_object(json_array_get(messages, i)))
            return err_set(e, ERR_RUN, "message %zu is not an object with \"role\" and \"content\"", i + 1);
    return true;
}

static bool find_now(const json_t *now, struct tm *out, Err *e) {
    time_t seconds = time(NULL);
    if (!now)
        return localtime_r(&seconds, out) || err_set(e, ERR_RUN, "the clock of this machine cannot be read");
    struct tm t = {0};
    const char *text = json_is_string(now) ? json_string_value(now) : "";
    int n = sscanf(text, "%4d-%2d-%2d%*1[T ]%2d:%2d:%2d", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour,
                   &t.tm_min, &t.tm_sec);
    if (n < 5 || t.tm_year < 1 || t.tm_mon < 1 || t.tm_mon > 12 || t.tm_mday < 1 || t.tm_mday > 31 ||
        t.tm_hour < 0 || t.tm_hour > 23 || t.tm_min < 0 || t.tm_min > 59 || t.tm_sec < 0 || t.tm_sec > 60)
        return err_set(e, ERR_RUN, "\"now\" is not a time; write it like \"2026-08-18T09:30:00\"");
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    seconds = timegm(&t); // finds the weekday
    return gmtime_r(&seconds, out) || err_set(e, ERR_RUN, "\"now\" is too far away");
}

/* ---- Text ---- */

/* Converts characters to bytes, and their marks to runs and ends. */
static bool write_text(Str s, bool has_repr, ChatText *out, Err *e) {
    Buf bytes = {0}, runs = {0};
    size_t *ends = mem_new(CHAR_ORIGINS, sizeof *ends);
    for (size_t i = 0; i < s.n;) {
        ChatRun run = {.start = bytes.n, .from_user = char_origin(s.c[i])};
        for (; i < s.n && (bool)char_origin(s.c[i]) == run.from_user; i++) {
            char utf8[4];
            buf_add(&bytes, utf8, js_put_utf8(s.c[i], utf8));
            ends[char_origin(s.c[i])] = bytes.n;
        }
        run.n = bytes.n - run.start;
        buf_add(&runs, &run, sizeof run);
    }
    buf_add(&bytes, "", 0);
    *out = (ChatText){bytes.data, bytes.n, (ChatRun *)(void *)runs.data, runs.n / sizeof(ChatRun),
                      ends,       has_repr};
    if (bytes.n <= JINJA_TEXT_MAX) return true;
    chat_text_free(out);
    return err_set(e, ERR_MODEL, "the chat template writes more than %d MiB", JINJA_TEXT_MAX >> 20);
}

bool chat_render(const char *source, size_t n, const ChatInput *input, ChatText *out, Err *e) {
    struct tm now;
    *out = (ChatText){0};
    if (!check_messages(input->variables, e)) return false;
    if (!find_now(json_object_get(input->variables, "now"), &now, e)) return false;
    JinjaLimits limits = {input->stop, input->spent};
    Jinja *j = mem_new(1, sizeof *j);
    Str text;
    bool ok = jinja_render(j, source, n, &now, &limits, make_variables, input, &text, e) &&
              write_text(text, j->has_repr, out, e);
    jinja_free(j);
    free(j);
    return ok;
}

void chat_text_free(ChatText *text) {
    free(text->data);
    free(text->runs);
    free(text->ends);
    *text = (ChatText){0};
}

void chat_text_add(ChatText *text, const char *more) {
    size_t n = strlen(more);
    text->data = mem_resize(text->data, text->n + n + 1);
    memcpy(text->data + text->n, more, n + 1);
    if (text->n_runs == 0 || text->runs[text->n_runs - 1].from_user) {
        text->runs = mem_resize(text->runs, (text->n_runs + 1) * sizeof *text->runs);
        text->runs[text->n_runs++] = (ChatRun){.start = text->n};
    }
    text->runs[text->n_runs - 1].n += n;
    text->n += n;
}

bool chat_text_is_user(const ChatText *text, size_t start, size_t n) {
    size_t low = 0, high = text->n_runs; // the first run that ends behind start is in [low, high]
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (text->runs[middle].start + text->runs[middle].n > start)
            high = middle;
        else
            low = middle + 1;
    }
    for (; low < text->n_runs && text->runs[low].start < start + n; low++)
        if (text->runs[low].from_user) return true;
    return false;
}

/* ---- Tokens ---- */

typedef struct Tail {
    const ChatText *text;
    size_t from;
} Tail;

static bool is_user(const void *arg, size_t start, size_t n) {
    const Tail *tail = arg;
    return chat_text_is_user(tail->text, tail->from + start, n);
}

void chat_encode(const ChatText *text, size_t from, const Tok *tok, TokIds *out) {
    Tail tail = {text, from};
    tok_encode_marked(tok, text->data + from, text->n - from, 0, (TokOrigin){is_user, &tail}, out);
}
