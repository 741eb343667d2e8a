/* normalise: see normalise.h. */
#include "normalise.h"
#include "../base/buf.h"
#include "../base/json.h"

#include <stdio.h>
#include <string.h>

static bool is(const char *word, const char *other) {
    return strcmp(word, other) == 0;
}

const char *message_string(const json_t *message, const char *key) {
    const char *text = json_string_value(json_object_get(message, key));
    return text ? text : "";
}

const char *message_text(const json_t *message) {
    const json_t *parts = json_object_get(message, "content");
    size_t n = json_array_size(parts);
    return n ? message_string(json_array_get(parts, n - 1), "text") : message_string(message, "content");
}

static bool has_role(const json_t *message, const char *role) {
    return is(message_string(message, "role"), role);
}

static json_t *buf_string(Buf *b) { // frees b
    json_t *string = json_stringn(b->n ? b->data : "", b->n);
    buf_free(b);
    return string;
}

static void add_string(Buf *b, const json_t *string) {
    buf_add(b, json_string_value(string), json_string_length(string));
}

/* ---- content ---- */

typedef struct Texts { // of one message
    Buf content, reasoning;
    size_t number; // of the message, from 1 on
} Texts;

static bool add_content(const json_t *content, Buf *to, Texts *t, Err *e);

/* The key with the text of a part of this type; NULL: such a part has no text. */
static const char *text_key(const json_t *part, const char *type) {
    if (is(type, "thinking") || is(type, "reasoning")) return json_object_get(part, type) ? type : "text";
    if (is(type, "refusal")) return type;
    bool is_text = is(type, "") || is(type, "text") || is(type, "input_text") || is(type, "output_text");
    return is_text ? "text" : NULL;
}

static bool add_part(const json_t *part, Buf *to, Texts *t, Err *e) {
    const char *type = message_string(part, "type"), *key = text_key(part, type);
    if (!key)
        return err_set(e, ERR_RUN,
                       "message %zu has a part of type '%.60s', and zgen reads text only; leave it out",
                       t->number, type);
    const json_t *text = json_object_get(part, key);
    if (!text)
        return err_set(e, ERR_RUN,
                       "message %zu has a part without \"%s\"; a part is {\"type\": \"text\", "
                       "\"text\": \"...\"}",
                       t->number, key);
    return add_content(text, is(key, "thinking") || is(type, "reasoning") ? &t->reasoning : to, t, e);
}

/* Adds the text of a content: of a string itself, of parts that of each, of other values their JSON. */
static bool add_content(const json_t *content, Buf *to, Texts *t, Err *e) {
    if (json_is_array(content)) {
        bool ok = true;
        for (size_t i = 0; ok && i < json_array_size(content); i++) {
            const json_t *part = json_array_get(content, i);
            ok = json_is_object(part) ? add_part(part, to, t, e) : add_content(part, to, t, e);
        }
        return ok;
    }
    if (json_is_string(content) && !json_number_text(content)) {
        add_string(to, content);
        return true;
    }
    if (!content || json_is_null(content) || json_write(content, JSON_ENCODE_ANY, to)) return true;
    return err_set(e, ERR_MEMORY, "not enough memory for the JSON of message %zu", t->number);
}

static bool set_content(json_t *message, size_t number, Err *e) {
    static const char *const REASONING[] = {"reasoning_content", "reasoning", "thinking"};
    Texts t = {.number = number};
    bool ok = true;
    for (int i = 0; ok && i < 3; i++) {
        json_t *text = json_incref(json_object_get(message, REASONING[i]));
        json_object_del(message, REASONING[i]);
        ok = t.reasoning.n || add_content(text, &t.reasoning, &t, e);
        json_decref(text);
    }
    ok = ok && add_content(json_object_get(message, "content"), &t.content, &t, e);
    json_object_set_new(message, "content", buf_string(&t.content));
    json_t *reasoning = buf_string(&t.reasoning);
    if (json_string_length(reasoning)) json_object_set(message, "reasoning_content", reasoning);
    json_decref(reasoning);
    return ok;
}

/* ---- calls ---- */

/* {id, type, function: {name, arguments}} from a call in this form, or from its function alone. */
static json_t *read_call(const json_t *call, size_t number, Err *e) {
    const json_t *given = json_object_get(call, "function");
    json_t *function = json_deep_copy(json_is_object(given) ? given : call), *read = json_object();
    if (!json_is_string(json_object_get(function, "name"))) {
        json_decref(function);
        json_decref(read);
        err_set(e, ERR_RUN,
                "message %zu has a call without the name of a function; a call is {\"function\": "
                "{\"name\": \"...\", \"arguments\": {}}}",
                number);
        return NULL;
    }
    json_t *arguments = json_object_get(function, "arguments");
    bool is_empty = json_is_string(arguments) && !json_string_length(arguments);
    if (!arguments || json_is_null(arguments) || is_empty)
        json_object_set_new(function, "arguments", json_object());
    if (given) json_object_update(read, (json_t *)call);
    if (json_object_get(call, "id")) json_object_set(read, "id", json_object_get(call, "id"));
    if (!json_object_get(read, "type")) json_object_set_new(read, "type", json_string("function"));
    json_object_set_new(read, "function", function);
    return read;
}

/* The calls of "tool_calls", or the one of "function_call", which came before it; no key if there are
 * none. */
static bool set_calls(json_t *message, size_t number, Err *e) {
    const json_t *old = json_object_get(message, "function_call"),
                 *given = json_object_get(message, "tool_calls");
    json_t *calls = json_array();
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(given); i++) {
        json_t *call = read_call(json_array_get(given, i), number, e);
        ok = call != NULL;
        if (ok) json_array_append_new(calls, call);
    }
    if (ok && json_is_object(old)) {
        json_t *call = read_call(old, number, e);
        ok = call != NULL;
        if (ok) json_array_append_new(calls, call);
    }
    json_object_del(message, "function_call");
    json_object_del(message, "tool_calls");
    if (json_array_size(calls)) json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    return ok;
}

static json_t *new_id(size_t i) { // of nine characters, as some templates demand
    char id[16];
    snprintf(id, sizeof id, "call%05zu", i % 100000);
    return json_string(id);
}

/* Calls without an id get one, and a result without one that of the first call without a result. */
static void set_ids(json_t *messages) {
    json_t *open = json_array(); // ids of calls without a result
    size_t i, k, n_calls = 0;
    json_t *message, *call;
    json_array_foreach(messages, i, message) {
        json_array_foreach(json_object_get(message, "tool_calls"), k, call) {
            n_calls++;
            if (!json_is_string(json_object_get(call, "id")))
                json_object_set_new(call, "id", new_id(n_calls));
            json_array_append(open, json_object_get(call, "id"));
        }
        if (!has_role(message, "tool")) continue;
        if (!json_is_string(json_object_get(message, "tool_call_id")) && json_array_size(open))
            json_object_set(message, "tool_call_id", json_array_get(open, 0));
        for (k = 0; k < json_array_size(open); k++)
            if (json_equal(json_array_get(open, k), json_object_get(message, "tool_call_id"))) break;
        json_array_remove(open, k);
    }
    json_decref(open);
}

/* ---- messages ---- */

static bool set_role(json_t *message, size_t number, Err *e) {
    if (!json_is_string(json_object_get(message, "role")))
        return err_set(e, ERR_RUN, "message %zu has no \"role\": user, assistant, system or tool", number);
    if (has_role(message, "developer")) json_object_set_new(message, "role", json_string("system"));
    if (has_role(message, "function")) json_object_set_new(message, "role", json_string("tool"));
    if (json_is_null(json_object_get(message, "name"))) json_object_del(message, "name");
    return true;
}

json_t *normalise_messages(const json_t *messages, Err *e) {
    json_t *out = json_array();
    bool ok =
        json_is_array(messages) || err_set(e, ERR_RUN, "\"messages\", an array of messages, is missing");
    for (size_t i = 0; ok && i < json_array_size(messages); i++) {
        json_t *message = json_deep_copy(json_array_get(messages, i));
        json_array_append_new(out, message);
        ok = json_is_object(message) ||
             err_set(e, ERR_RUN, "message %zu is not an object with \"role\" and \"content\"", i + 1);
        ok = ok && set_role(message, i + 1, e) && set_content(message, i + 1, e) &&
             set_calls(message, i + 1, e);
    }
    if (ok) {
        set_ids(out);
        return out;
    }
    json_decref(out);
    return NULL;
}

/* ---- forms of the list ---- */

/* a, an empty line, b; one of them alone where the other is empty. */
static json_t *joined(const json_t *a, const json_t *b) {
    Buf text = {0};
    add_string(&text, a);
    if (json_string_length(a) && json_string_length(b)) buf_printf(&text, "\n\n");
    add_string(&text, b);
    return buf_string(&text);
}

static void prepend(json_t *message, const json_t *text) {
    json_object_set_new(message, "content", joined(text, json_object_get(message, "content")));
}

/* Moves the text of system messages into messages of the user, except, if keeps_first, into the first message
 * that of those which begin the conversation. */
static json_t *move_system(const json_t *messages, bool keeps_first) {
    json_t *out = json_array(), *waiting = json_string(""), *message;
    size_t i;
    json_array_foreach(messages, i, message) {
        json_t *first = json_array_get(out, 0);
        bool begins = keeps_first && json_array_size(out) == (first && has_role(first, "system"));
        if (!has_role(message, "system")) {
            json_t *copy = json_copy(message);
            if (has_role(copy, "user")) {
                prepend(copy, waiting);
                json_string_set(waiting, "");
            }
            json_array_append_new(out, copy);
        } else if (begins && first) {
            json_object_set_new(
                first, "content",
                joined(json_object_get(first, "content"), json_object_get(message, "content")));
        } else if (begins) {
            json_array_append_new(out, json_copy(message));
        } else {
            json_t *text = joined(waiting, json_object_get(message, "content"));
            json_decref(waiting);
            waiting = text;
        }
    }
    if (json_string_length(waiting))
        json_array_append_new(out, json_pack("{s:s,s:O}", "role", "user", "content", waiting));
    json_decref(waiting);
    return out;
}

static bool is_text_of(const json_t *message, const char *role) {
    return has_role(message, role) && !json_object_get(message, "tool_calls");
}

static json_t *join_turns(const json_t *messages) {
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(messages, i, message) {
        json_t *last = json_array_get(out, json_array_size(out) - 1);
        const char *role = message_string(message, "role");
        if (last && !is(role, "tool") && is_text_of(message, role) && is_text_of(last, role)) {
            json_t *copy = json_copy(message);
            json_object_update(copy, last);
            json_object_set_new(
                copy, "content",
                joined(json_object_get(last, "content"), json_object_get(message, "content")));
            json_array_set_new(out, json_array_size(out) - 1, copy);
        } else {
            json_array_append(out, message);
        }
    }
    return out;
}

static json_t *drop_empty(const json_t *messages) {
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(messages, i, message) {
        bool is_empty = is_text_of(message, "assistant") && !*message_string(message, "content") &&
                        !json_object_get(message, "reasoning_content");
        if (!is_empty) json_array_append(out, message);
    }
    return out;
}

/* Appends the results behind message i that answer the call of this id. */
static void add_results(json_t *out, const json_t *messages, size_t i, const json_t *id) {
    for (json_t *m; (m = json_array_get(messages, ++i)) && has_role(m, "tool");)
        if (json_equal(json_object_get(m, "tool_call_id"), id)) json_array_append(out, m);
}

static bool has_call(const json_t *message, const json_t *id) {
    size_t k;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), k, call) {
        if (json_equal(json_object_get(call, "id"), id)) return true;
    }
    return false;
}

static json_t *split_calls(const json_t *messages) {
    json_t *out = json_array(), *message, *call, *caller = NULL;
    size_t i, k;
    json_array_foreach(messages, i, message) {
        json_t *calls = json_object_get(message, "tool_calls");
        bool is_placed =
            has_role(message, "tool") && has_call(caller, json_object_get(message, "tool_call_id"));
        if (!has_role(message, "tool")) caller = message;
        if (!calls && !is_placed) json_array_append(out, message);
        json_array_foreach(calls, k, call) {
            json_t *copy = json_copy(message);
            json_object_set_new(copy, "tool_calls", json_pack("[O]", call));
            if (k) json_object_set_new(copy, "content", json_string(""));
            if (k) json_object_del(copy, "reasoning_content");
            json_array_append_new(out, copy);
            add_results(out, messages, i, json_object_get(call, "id"));
        }
    }
    return out;
}

static json_t *part_calls(const json_t *messages) {
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(messages, i, message) {
        json_t *second = json_copy(message);
        bool both = json_object_get(message, "tool_calls") && *message_string(message, "content");
        if (both) {
            json_t *first = json_copy(message);
            json_object_del(first, "tool_calls");
            json_array_append_new(out, first);
            json_object_set_new(second, "content", json_string(""));
            json_object_del(second, "reasoning_content");
        }
        json_array_append_new(out, second);
    }
    return out;
}

/* ---- forms of one message ---- */

static json_t *json_text(const json_t *json) {
    Buf text = {0};
    json_write(json, JSON_ENCODE_ANY, &text);
    return buf_string(&text);
}

static void write_calls(json_t *message) {
    size_t k;
    json_t *call, *content = json_incref(json_object_get(message, "content"));
    json_array_foreach(json_object_get(message, "tool_calls"), k, call) {
        const json_t *function = json_object_get(call, "function");
        json_t *both = json_pack("{s:O,s:O}", "name", json_object_get(function, "name"), "arguments",
                                 json_object_get(function, "arguments")),
               *text = json_text(both), *sum = joined(content, text);
        json_decref(content);
        json_decref(both);
        json_decref(text);
        content = sum;
    }
    json_object_set_new(message, "content", content);
    json_object_del(message, "tool_calls");
}

static void write_result(json_t *message) {
    json_object_set_new(message, "role", json_string("user"));
    json_object_del(message, "tool_call_id");
    json_object_del(message, "name");
}

/* Arguments as an object, where they are one or the text of one. */
static json_t *read_arguments(json_t *arguments) {
    if (!json_is_string(arguments)) return json_incref(arguments);
    json_t *object = json_read(json_string_value(arguments), json_string_length(arguments), NULL);
    if (json_is_object(object)) return object;
    json_decref(object);
    return json_incref(arguments);
}

/* A text stays as it is, where text is wanted. */
static void set_arguments(json_t *message, bool as_text) {
    json_t *calls = json_deep_copy(json_object_get(message, "tool_calls")), *call;
    size_t k;
    json_array_foreach(calls, k, call) {
        json_t *function = json_object_get(call, "function"),
               *arguments = json_object_get(function, "arguments");
        if (!as_text)
            json_object_set_new(function, "arguments", read_arguments(arguments));
        else if (!json_is_string(arguments))
            json_object_set_new(function, "arguments", json_text(arguments));
    }
    if (calls) json_object_set_new(message, "tool_calls", calls);
}

static void set_message_form(json_t *message, unsigned form) {
    bool calls = json_object_get(message, "tool_calls");
    json_t *content = json_object_get(message, "content"),
           *reasoning = json_object_get(message, "reasoning_content");
    if (form & FORM_CONTENT_NULL && calls && !json_string_length(content))
        json_object_set_new(message, "content", json_null());
    else if (form & FORM_REASONING_PART && reasoning)
        json_object_set_new(message, "content",
                            json_pack("[{s:s,s:O},{s:s,s:O}]", "type", "thinking", "thinking", reasoning,
                                      "type", "text", "text", content));
    else if (form & FORM_PARTS)
        json_object_set_new(message, "content", json_pack("[{s:s,s:O}]", "type", "text", "text", content));
    if (form & FORM_REASONING_ALL && reasoning) {
        json_object_set(message, "reasoning", reasoning);
        json_object_set(message, "thinking", reasoning);
    }
}

/* Numbers the calls anew, and the results with them. */
static void shorten_ids(json_t *messages) {
    size_t i, k, n_calls = 0;
    json_t *message, *call, *ids = json_object();
    json_array_foreach(messages, i, message) {
        json_t *calls = json_deep_copy(json_object_get(message, "tool_calls"));
        json_array_foreach(calls, k, call) {
            json_t *id = new_id(++n_calls);
            json_object_set(ids, message_string(call, "id"), id);
            json_object_set_new(call, "id", id);
        }
        if (calls) json_object_set_new(message, "tool_calls", calls);
        json_t *id = json_object_get(ids, message_string(message, "tool_call_id"));
        if (id) json_object_set(message, "tool_call_id", id);
    }
    json_decref(ids);
}

/* Replaces *messages by what a step has made of them. */
static void step(json_t **messages, json_t *made) {
    json_decref(*messages);
    *messages = made;
}

json_t *normalise_form(const json_t *normalised, unsigned form) {
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach(normalised, i, message) {
        json_t *copy = json_copy(message);
        set_arguments(copy, form & FORM_ARGUMENTS_TEXT && !(form & FORM_CALLS_TEXT));
        json_array_append_new(out, copy);
    }
    if (form & FORM_IDS_SHORT) shorten_ids(out);
    if (form & FORM_CALLS_APART) step(&out, part_calls(out));
    if (form & FORM_CALLS_SINGLE) step(&out, split_calls(out));
    json_array_foreach(out, i, message) {
        if (form & FORM_CALLS_TEXT && json_object_get(message, "tool_calls")) write_calls(message);
        if (form & FORM_RESULTS_TEXT && has_role(message, "tool")) write_result(message);
    }
    if (form & (FORM_SYSTEM_FIRST | FORM_SYSTEM_NONE))
        step(&out, move_system(out, !(form & FORM_SYSTEM_NONE)));
    if (form & FORM_EMPTY_DROPPED) step(&out, drop_empty(out));
    if (form & FORM_TURNS_JOINED) step(&out, join_turns(out));
    json_array_foreach(out, i, message) set_message_form(message, form);
    return out;
}
