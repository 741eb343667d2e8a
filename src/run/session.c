/* session: see session.h. */
#include "session.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

void session_close(Session *s) {
    json_decref(s->variables);
    buf_free(&s->source);
    buf_free(&s->notes);
    buf_free(&s->past_text);
    tok_ids_free(&s->ids);
    tok_ids_free(&s->past_ids);
    chat_text_free(&s->prompt);
    *s = (Session){0};
}

json_t *session_messages(const Session *s) {
    return json_object_get(s->variables, "messages");
}

void session_add(Session *s, const char *role, const char *text, size_t n) {
    Utf8Gate gate = {0};
    Buf clean = {0};
    utf8_gate_push(&gate, text, n, &clean);
    utf8_gate_end(&gate, &clean);
    json_t *content = json_stringn(clean.n ? clean.data : "", clean.n);
    json_array_append_new(session_messages(s), json_pack("{s:s,s:o}", "role", role, "content", content));
    buf_free(&clean);
}

/* ---- the prompt ---------------------------------------------------------------------------------------- */

/* The text of a token as a string of its own; "": the model has no such token. */
static char *token_string(const Tok *tok, int id) {
    GgufString text = tok && id >= 0 ? tok_text(tok, id) : (GgufString){0};
    char *copy = mem_new(text.n + 1, 1);
    if (text.n) memcpy(copy, text.data, text.n);
    return copy;
}

static bool render(Session *s, ChatText *out, Err *e) {
    char *bos = token_string(s->tok, s->tok ? tok_bos(s->tok) : -1),
         *eos = token_string(s->tok, s->tok ? tok_eos(s->tok) : -1);
    ChatInput input = {.variables = s->variables,
                       .bos_token = bos,
                       .eos_token = eos,
                       .no_thought = s->no_thought,
                       .stop = s->stop};
    buf_clear(&s->notes);
    bool ok = chat_prompt(s->source.data ? s->source.data : "", s->source.n, &input, out, &s->notes, e);
    free(bos);
    free(eos);
    return ok;
}

/* Encodes the text behind the past.  true: the ids of the past can be kept, because a control token follows
 * it. */
static bool continues_past(const Session *s, const ChatText *text, TokIds *rest) {
    size_t n = s->past_text.n;
    if (n == 0 || text->n <= n || memcmp(text->data, s->past_text.data, n) != 0) return false;
    chat_encode(text, n, s->tok, rest);
    return rest->n && tok_type(s->tok, rest->data[0]) == TOK_CONTROL;
}

static void add_ids(TokIds *to, const TokIds *ids) {
    for (size_t i = 0; i < ids->n; i++) tok_ids_add(to, ids->data[i]);
}

static void encode(Session *s) {
    TokIds rest = {0};
    s->ids.n = 0;
    if (continues_past(s, &s->prompt, &rest)) {
        add_ids(&s->ids, &s->past_ids);
    } else {
        rest.n = 0;
        chat_encode(&s->prompt, 0, s->tok, &rest);
        bool has_bos = rest.n && rest.data[0] == tok_bos(s->tok);
        if (tok_adds_bos(s->tok) && !has_bos) tok_ids_add(&s->ids, tok_bos(s->tok));
    }
    add_ids(&s->ids, &rest);
    tok_ids_free(&rest);
}

bool session_prompt(Session *s, Err *e) {
    ChatText text;
    if (!render(s, &text, e)) return false;
    chat_text_free(&s->prompt);
    s->prompt = text;
    if (s->tok) encode(s);
    return !s->tok || s->ids.n ||
           err_set(e, ERR_RUN, "the chat template makes an empty prompt of these messages");
}

/* ---- the answer ---------------------------------------------------------------------------------------- */

bool session_ask(Session *s, const Request *settings, Err *e) {
    Request r = *settings;
    r.ids = s->ids.data;
    r.n_ids = (int)s->ids.n;
    r.reuse = REUSE_ANY;
    r.tags = true;
    int seq = engine_add(s->engine, &r, e);
    if (seq < 0) return false;
    s->seq = engine_sequence(s->engine, seq);
    s->is_cut = r.n_stop > 0;
    return true;
}

/* The bytes at the end of the prompt that are the begin of the answer: they are a run of their own. */
static size_t n_prefill(const Session *s) {
    return chat_continues(s->variables) ? s->prompt.runs[s->prompt.n_runs - 1].n : 0;
}

void session_think(const Session *s, Think *t) {
    think_begin(t, s->prompt.data, s->prompt.n, n_prefill(s));
}

static void continue_message(Session *s, const char *text, size_t n) {
    json_t *messages = session_messages(s),
           *message = json_array_get(messages, json_array_size(messages) - 1),
           *content = json_object_get(message, "content");
    Buf whole = {0};
    if (json_is_array(content)) {
        json_array_append_new(content, json_pack("{s:s,s:s%}", "type", "text", "text", text, n));
        return;
    }
    buf_add(&whole, json_string_value(content), json_string_length(content));
    buf_add(&whole, text, n);
    json_object_set_new(message, "content", json_stringn(whole.data, whole.n));
    buf_free(&whole);
}

/* The answer as the messages have it: with the opening of a thinking block that the prompt wrote for it. */
static void add_answer(Session *s, const char *text, size_t n) {
    const char *opened = think_opened(s->prompt.data, s->prompt.n);
    Buf content = {0};
    if (opened) buf_printf(&content, "%s\n", opened);
    buf_add(&content, text, n);
    session_add(s, "assistant", content.data, content.n);
    buf_free(&content);
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool session_answered(Session *s) {
    const Sequence *q = s->seq;
    const char *text = q->text.data;
    size_t n = q->text.n;
    bool continues = chat_continues(s->variables);
    for (; n && is_space(*text) && !continues; n--) text++;
    while (n && is_space(text[n - 1])) n--;
    if (n == 0) return false;
    (continues ? continue_message : add_answer)(s, text, n);
    buf_clear(&s->past_text);
    s->past_ids.n = 0;
    if (s->is_cut) return true;
    buf_add(&s->past_text, s->prompt.data, s->prompt.n);
    buf_add(&s->past_text, text, n);
    for (int i = 0; i < q->n_prompt + q->n_generated; i++) tok_ids_add(&s->past_ids, q->ids[i]);
    return true;
}
