/* chat_prompt: see chat_prompt.h. */
#include "chat_prompt.h"
#include "normalise.h"
#include "think.h"

#include <assert.h>
#include <string.h>

typedef struct Template {
    const char *source;
    size_t n;
    const ChatInput *input;
    bool has_repr; // writes lists as Python does, whatever the messages are
} Template;

bool chat_continues(const json_t *variables) {
    return json_is_true(json_object_get(variables, "continue_final_message"));
}

/* ---- rendering ---- */

/* Renders messages in a form, which are left in *formed for the caller. */
static bool render(const Template *t, const json_t *messages, unsigned form, json_t **formed, ChatText *out,
                   Err *e) {
    json_t *variables = json_copy((json_t *)t->input->variables); // a shallow copy changes nothing
    ChatInput input = *t->input;
    *formed = normalise_form(messages, form);
    json_object_set(variables, "messages", *formed);
    if (chat_continues(variables)) json_object_set_new(variables, "add_generation_prompt", json_false());
    input.variables = variables;
    bool ok = chat_render(t->source, t->n, &input, out, e);
    json_decref(variables);
    return ok;
}

/* ---- what is left out ---- */

/* The bytes of the begin of a text that notes show: whole characters of its first line, at most 40 bytes. */
static size_t excerpt(const char *text) {
    enum { MOST = 40 };
    size_t n = strcspn(text, "\r\n");
    if (n <= MOST) return n;
    for (n = MOST; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80;) n--;
    return n;
}

/* 1 if a text of this origin is not in the prompt, which a note says; 0 otherwise, and for white space. */
static int lost(const ChatText *prompt, unsigned origin, const char *what, const char *text, Buf *notes) {
    text += strspn(text, " \t\r\n");
    if (!*text || prompt->ends[origin]) return 0;
    size_t n = excerpt(text);
    if (notes)
        buf_printf(notes, "the chat template leaves out %s \"%.*s%s\"\n", what, (int)n, text,
                   text[n] ? "..." : "");
    return 1;
}

/* The number of parts of the messages that are not in the prompt; each has a note (notes may be NULL). */
static int find_lost(const json_t *messages, const ChatText *prompt, Buf *notes) {
    int n = 0;
    size_t i, k;
    json_t *message, *call;
    json_array_foreach(messages, i, message) {
        char what[80];
        snprintf(what, sizeof what, "the %.40s message", message_string(message, "role"));
        n += lost(prompt, chat_origin(i, CHAT_CONTENT, 0), what, message_text(message), notes);
        n += lost(prompt, chat_origin(i, CHAT_REASONING, 0), "the reasoning",
                  message_string(message, "reasoning_content"), notes);
        bool is_tool = strcmp(message_string(message, "role"), "tool") == 0; // its call names it
        if (!is_tool)
            n += lost(prompt, chat_origin(i, CHAT_NAME, 0), "the name", message_string(message, "name"),
                      notes);
        json_array_foreach(json_object_get(message, "tool_calls"), k, call) {
            const char *name = message_string(json_object_get(call, "function"), "name");
            n += lost(prompt, chat_origin(i, CHAT_CALLS, k), "the call of", name, notes);
        }
    }
    return n;
}

/* ---- trials ---- */

#define CALL(id, x) "{\"id\":\"" id "\",\"function\":{\"name\":\"f\",\"arguments\":{\"" x "\":\"y\"}}}"
#define CALLS(calls) "{\"role\":\"assistant\",\"tool_calls\":[" calls "]}"
#define MESSAGE(role) "{\"role\":\"" role "\",\"content\":\"a\"}"
#define RESULT(id) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"r\"}"
#define REASONING "\"reasoning_content\":\"b\""
#define ID_1 "abcdefgh1"
#define ID_2 "abcdefgh2"
#define LONG_ID "call_abcdefghijkl"

enum { OPTIONS_MAX = 8 };

/* A small conversation, and the forms in which it is tried, the best first; the list ends with 0.  The forms
 * that earlier trials chose are kept. */
static const struct {
    const char *messages;
    unsigned forms[OPTIONS_MAX];
} TRIALS[] = {
    {"[" MESSAGE("user") "]", {FORM_PARTS}},
    {"[" MESSAGE("system") "," MESSAGE("user") "]", {FORM_SYSTEM_NONE}},
    {"[" MESSAGE("system") "," MESSAGE("system") "," MESSAGE("user") "," MESSAGE("assistant") "," MESSAGE(
         "system") "," MESSAGE("user") "]",
     {FORM_SYSTEM_FIRST, FORM_SYSTEM_NONE}},
    {"[" MESSAGE("user") "," MESSAGE("user") "," MESSAGE("assistant") "," MESSAGE("assistant") "," MESSAGE(
         "user") "]",
     {FORM_TURNS_JOINED}},
    {"[" MESSAGE("user") ",{\"role\":\"assistant\",\"content\":\"\"}," MESSAGE("user") "]",
     {FORM_EMPTY_DROPPED, FORM_EMPTY_DROPPED | FORM_TURNS_JOINED}},
    {"[" MESSAGE("user") "," CALLS(CALL(ID_1, "x")) "," RESULT(ID_1) "]",
     {FORM_CONTENT_NULL, FORM_ARGUMENTS_TEXT, FORM_CONTENT_NULL | FORM_ARGUMENTS_TEXT, FORM_CALLS_TEXT,
      FORM_RESULTS_TEXT, FORM_CALLS_TEXT | FORM_RESULTS_TEXT}},
    {"[" MESSAGE("user") "," CALLS(CALL(ID_1, "x") "," CALL(ID_2, "z")) "," RESULT(ID_1) "," RESULT(ID_2) "]",
     {FORM_CALLS_SINGLE, FORM_CALLS_TEXT | FORM_RESULTS_TEXT | FORM_TURNS_JOINED}},
    {"[" MESSAGE("user") ",{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[" CALL(
         ID_1, "x") "]}," RESULT(ID_1) "," MESSAGE("assistant") "," MESSAGE("user") "]",
     {FORM_CALLS_APART}},
    {"[" MESSAGE("system") "," MESSAGE("user") "," CALLS(CALL(ID_1, "x")) "," RESULT(ID_1) "]",
     {FORM_SYSTEM_NONE}},
    {"[" MESSAGE("user") "," CALLS(CALL(LONG_ID, "x")) "," RESULT(LONG_ID) "]", {FORM_IDS_SHORT}},
    {"[" MESSAGE("user") ",{\"role\":\"assistant\",\"content\":\"a\"," REASONING "}]",
     {FORM_REASONING_ALL, FORM_REASONING_PART}},
    {"[" MESSAGE("user") ",{\"role\":\"assistant\"," REASONING
                         ",\"tool_calls\":[" CALL(ID_1, "x") "]}," RESULT(ID_1) "]",
     {FORM_REASONING_ALL, FORM_REASONING_PART}},
};

/* Whether parts of a content were written as JSON instead of their text. */
static bool has_parts(const ChatText *text) {
    return strstr(text->data, "\"type\": \"text\"") != NULL;
}

/* Whether the template writes all of these messages in this form. */
static bool writes(const Template *t, const json_t *messages, unsigned form) {
    json_t *formed;
    ChatText text;
    Err why;
    bool ok = render(t, messages, form, &formed, &text, &why) && find_lost(formed, &text, NULL) == 0 &&
              (t->has_repr || !text.has_repr) && !has_parts(&text);
    json_decref(formed);
    chat_text_free(&text);
    return ok;
}

static bool is_stopped(const Template *t) {
    return t->input->stop && t->input->stop();
}

/* Whether the template writes lists as Python does in its text for the first trial, one message. */
static bool has_own_repr(const Template *t) {
    Err why;
    json_t *plain = json_loads(TRIALS[0].messages, 0, NULL), *formed;
    ChatText text;
    bool has = render(t, plain, 0, &formed, &text, &why) && text.has_repr;
    json_decref(plain);
    json_decref(formed);
    chat_text_free(&text);
    return has;
}

/* The forms that the template needs.  All trials together have the steps of one rendering. */
static unsigned find_form(const Template *of) {
    unsigned form = 0;
    int64_t spent = 0;
    ChatInput input = *of->input;
    Template tried = {of->source, of->n, &input, false}, *t = &tried;
    input.spent = &spent;
    t->has_repr = has_own_repr(t);
    for (size_t i = 0; i < sizeof TRIALS / sizeof *TRIALS && !is_stopped(t); i++) {
        Err why;
        json_t *plain = json_loads(TRIALS[i].messages, 0, NULL), *messages = normalise_messages(plain, &why);
        assert(messages);
        if (!writes(t, messages, form)) {
            const unsigned *option = TRIALS[i].forms;
            while (*option && !writes(t, messages, form | *option)) option++;
            form |= *option;
        }
        json_decref(messages);
        json_decref(plain);
    }
    return form;
}

/* ---- thinking that is not wanted ---- */

/* Whether the prompt is the same with thinking. */
static bool ignores_thinking(const Template *t, const json_t *messages, unsigned form,
                             const ChatText *without) {
    json_t *variables = json_copy((json_t *)t->input->variables), *formed;
    ChatInput input = *t->input;
    Template with = {t->source, t->n, &input, t->has_repr};
    ChatText text;
    Err why;
    json_object_set_new(variables, "enable_thinking", json_true());
    json_object_set_new(variables, "thinking", json_true());
    input.variables = variables;
    bool ok = render(&with, messages, form, &formed, &text, &why);
    bool same = ok && strcmp(text.data, without->data) == 0;
    json_decref(variables);
    json_decref(formed);
    chat_text_free(&text);
    return same;
}

static void end_thought(const Template *t, const json_t *messages, unsigned form, ChatText *text,
                        Buf *notes) {
    if (!t->input->no_thought || chat_continues(t->input->variables)) return;
    const char *closing = think_closing(text->data, text->n);
    if (closing)
        chat_text_add(text, closing);
    else if (ignores_thinking(t, messages, form, text))
        buf_printf(notes, "the chat template has no switch for thinking: the model may still think\n");
}

/* ---- the prompt ---- */

/* Cuts the prompt behind the last character of the last message. */
static bool cut(const json_t *formed, ChatText *text, Err *e) {
    size_t last = json_array_size(formed) - 1;
    bool is_answer = strcmp(message_string(json_array_get(formed, last), "role"), "assistant") == 0;
    size_t n = is_answer ? text->ends[chat_origin(last, CHAT_CONTENT, 0)] : 0;
    if (n == 0) {
        chat_text_free(text);
        return err_set(e, ERR_RUN, "there is nothing to continue: the last message %s",
                       is_answer ? "has no text in the prompt" : "is not from the assistant");
    }
    while (text->runs[text->n_runs - 1].start >= n) text->n_runs--;
    text->runs[text->n_runs - 1].n = n - text->runs[text->n_runs - 1].start;
    text->data[text->n = n] = 0;
    return true;
}

static void add_notes(const Template *t, unsigned form, const json_t *messages, const json_t *formed,
                      const ChatText *text, Buf *notes) {
    bool has_calls = false, has_results = false;
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message) {
        has_calls |= json_object_get(message, "tool_calls") != NULL;
        has_results |= strcmp(message_string(message, "role"), "tool") == 0;
    }
    if (form & FORM_CALLS_TEXT && has_calls)
        buf_printf(notes, "the chat template has no tool calls: they are written as JSON in the text\n");
    if (form & FORM_RESULTS_TEXT && has_results)
        buf_printf(notes,
                   "the chat template has no results of tools: they are written as messages of the user\n");
    if (json_array_size(json_object_get(t->input->variables, "tools")) && !text->ends[CHAT_TOOLS])
        buf_printf(notes, "the chat template has no tools: the model does not see those of \"tools\"\n");
    find_lost(formed, text, notes);
}

/* Faults of a prompt: the parts that it lacks, and what no model was trained on. */
static int n_faults(const json_t *formed, const ChatText *text) {
    return find_lost(formed, text, NULL) + text->has_repr;
}

/* Renders the messages in the forms that the template needs, and replaces *formed and *out by the result,
 * if it is a prompt with fewer faults, or *out is none (!ok).  Returns whether *out is one; false: *e has
 * the reason. */
static bool render_again(const Template *t, const json_t *messages, bool ok, unsigned *form, json_t **formed,
                         ChatText *out, Err *e) {
    json_t *other;
    ChatText text;
    Err why = {0};
    *form = find_form(t);
    if (*form == 0) return ok;
    bool again = render(t, messages, *form, &other, &text, &why);
    if (ok && (!again || n_faults(other, &text) >= n_faults(*formed, out))) {
        json_decref(other);
        chat_text_free(&text);
        *form = 0;
        return true;
    }
    json_decref(*formed);
    chat_text_free(out);
    *formed = other;
    *out = text;
    *e = why;
    return again;
}

bool chat_prompt(const char *source, size_t n, const ChatInput *input, ChatText *out, Buf *notes, Err *e) {
    Template t = {.source = source, .n = n, .input = input};
    json_t *messages = normalise_messages(json_object_get(input->variables, "messages"), e), *formed;
    *out = (ChatText){0};
    if (!messages) return false;
    unsigned form = 0;
    bool ok = render(&t, messages, 0, &formed, out, e);
    bool is_good = ok && n_faults(formed, out) == 0;
    if (!is_good && (ok || e->code == ERR_RUN)) ok = render_again(&t, messages, ok, &form, &formed, out, e);
    if (ok) add_notes(&t, form, messages, formed, out, notes);
    if (ok) end_thought(&t, messages, form, out, notes);
    ok = ok && (!chat_continues(input->variables) || cut(formed, out, e));
    json_decref(messages);
    json_decref(formed);
    return ok;
}
