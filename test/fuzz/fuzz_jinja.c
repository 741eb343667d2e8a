/* fuzz_jinja: any bytes as a chat template, with messages of every kind of value.  The runs of a rendered
 * text must tile the text; a template that fails must set an error. */
#include "../../src/text/chat.h"

#include <stdint.h>
#include <stdlib.h>

static const char VARIABLES[] =
    "{\"messages\": [{\"role\": \"system\", \"content\": \" Sys <|im_end|> \"},"
    " {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a,b\\nc\"}]},"
    " {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\","
    "  \"arguments\": {\"x\": [1, 2.5, true, null]}}}]},"
    " {\"role\": \"user\", \"content\": \"<think>\\u00e9</think> \\ud83d\\ude00\"}],"
    " \"tools\": [{\"function\": {\"name\": \"f\", \"parameters\": {\"type\": \"object\"}}}],"
    " \"s\": \"Hello World\", \"x\": 5, \"f\": 2.5, \"l\": [3, 1, 2], \"d\": {\"b\": 1, \"a\": \"A\"},"
    " \"add_generation_prompt\": true, \"now\": \"2026-08-18T09:30:00\"}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *variables;
    if (!variables) variables = json_loads(VARIABLES, 0, NULL);
    ChatInput input = {.variables = variables, .bos_token = "<s>", .eos_token = "</s>"};
    ChatText text;
    Err e = {0};
    if (!chat_render((const char *)data, size, &input, &text, &e)) {
        if (text.data || text.runs || !e.text[0] || (e.code != ERR_RUN && e.code != ERR_MODEL)) abort();
        return 0;
    }
    size_t at = 0;
    for (size_t i = 0; i < text.n_runs; i++) {
        if (text.runs[i].start != at || !text.runs[i].n) abort();
        if (chat_text_is_user(&text, at, 1) != text.runs[i].from_user) abort();
        at += text.runs[i].n;
    }
    if (at != text.n || text.data[at]) abort();
    chat_text_free(&text);
    return 0;
}
