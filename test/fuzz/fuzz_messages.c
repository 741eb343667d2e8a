/* fuzz_messages: any messages, made from the bytes.  What normalises must normalise in every form to
 * messages with a role and a content, be a prompt or an error in templates of several habits, and nothing of
 * the input may change. */
#include "../../src/text/chat_prompt.h"
#include "../../src/text/normalise.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char *const TEMPLATES[] = {
    "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.tool_calls }}{{ m.thinking }}{% endfor %}",
    "{% for m in messages %}{% if m.role == 'system' or m.tool_calls | length > 1 %}{{ raise_exception('') }}"
    "{% endif %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
    "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.arguments + '' }}{% endif "
    "%}"
    "{{ m.tool_call_id }}{% endfor %}",
};

static void check_forms(const json_t *normalised, unsigned form) {
    json_t *formed = normalise_form(normalised, form), *message;
    size_t i;
    json_array_foreach(formed, i, message) {
        const json_t *content = json_object_get(message, "content");
        if (!*message_string(message, "role") && json_string_length(json_object_get(message, "role")))
            abort();
        if (!json_is_string(content) && !json_is_array(content) && !json_is_null(content)) abort();
    }
    json_decref(formed);
}

static void check_prompt(const char *source, const json_t *messages, bool continues) {
    json_t *variables = json_pack("{s:O,s:b}", "messages", messages, "continue_final_message", continues);
    ChatInput input = {.variables = variables, .bos_token = "<s>", .eos_token = "</s>"};
    ChatText text;
    Buf notes = {0};
    Err e = {0};
    bool ok = chat_prompt(source, strlen(source), &input, &text, &notes, &e);
    if (ok ? text.data[text.n] != 0 : text.data || !e.text[0]) abort();
    size_t n = 0;
    for (size_t i = 0; ok && i < text.n_runs; i++) n += text.runs[i].n;
    if (ok && n != text.n) abort();
    chat_text_free(&text);
    buf_free(&notes);
    json_decref(variables);
}

typedef struct Input {
    const uint8_t *at, *end;
} Input;

static uint8_t take(Input *in) {
    return in->at < in->end ? *in->at++ : 0;
}

static json_t *any_text(Input *in) {
    static const char *const TEXTS[] = {
        "", " ", "a", "b\n", "{}", "{\"x\": [1, \"y\"]}", "<s>", "\xc3\xa9", "call_0123456789"};
    return json_string(TEXTS[take(in) % (sizeof TEXTS / sizeof *TEXTS)]);
}

static json_t *any_content(Input *in, int depth) {
    static const char *const TYPES[] = {"text",     "input_text", "refusal",
                                        "thinking", "reasoning",  "image_url"};
    uint8_t kind = take(in);
    json_t *parts;
    switch (kind % 8) {
    case 0:
        return json_null();
    case 1:
        return json_integer(kind);
    case 2:
        return json_pack("{s:o}", "text", any_text(in));
    case 3:
        return json_pack("{s:s,s:o}", "type", TYPES[take(in) % 6], kind & 8 ? "text" : TYPES[take(in) % 6],
                         depth ? any_content(in, depth - 1) : any_text(in));
    case 4:
    case 5:
        parts = json_array();
        for (int n = depth ? take(in) % 4 : 0; n > 0; n--)
            json_array_append_new(parts, any_content(in, depth - 1));
        return parts;
    default:
        return any_text(in);
    }
}

static json_t *any_call(Input *in) {
    uint8_t kind = take(in);
    json_t *function = json_pack("{s:o,s:o}", "name", kind & 1 ? json_integer(1) : any_text(in), "arguments",
                                 any_content(in, 2));
    if (kind & 2) return function;
    json_t *call = json_pack("{s:o}", "function", function);
    if (kind & 4) json_object_set_new(call, "id", any_content(in, 0));
    return call;
}

static json_t *any_message(Input *in) {
    static const char *const ROLES[] = {"user",   "assistant", "assistant", "tool",
                                        "system", "developer", "function",  "x"};
    static const char *const KEYS[] = {"name", "tool_call_id", "reasoning_content", "reasoning", "thinking"};
    uint8_t flags = take(in);
    json_t *message = json_pack("{s:s,s:o}", "role", ROLES[take(in) % 8], "content", any_content(in, 3));
    for (int i = 0; i < 5; i++)
        if (flags >> i & 1) json_object_set_new(message, KEYS[i], any_content(in, 2));
    json_t *calls = json_array();
    for (int n = flags >> 5; n > 4; n--) json_array_append_new(calls, any_call(in));
    if (flags >> 5) json_object_set(message, "tool_calls", calls);
    json_decref(calls);
    if (flags == 0xFF) json_object_set_new(message, "function_call", any_call(in));
    if (flags == 0xFE) json_object_clear(message);
    return message;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Input in = {data, data + size};
    Err e = {0};
    unsigned form = take(&in) | (unsigned)take(&in) << 8;
    json_t *messages = json_array();
    while (in.at < in.end && json_array_size(messages) < 20)
        json_array_append_new(messages, any_message(&in));
    json_t *before = json_deep_copy(messages), *normalised = normalise_messages(messages, &e);
    if (!normalised && !e.text[0]) abort();
    if (normalised) check_forms(normalised, form);
    check_prompt(TEMPLATES[form % 3], messages, form >> 14 & 1);
    if (!json_equal(before, messages)) abort();
    json_decref(before);
    json_decref(normalised);
    json_decref(messages);
    return 0;
}
