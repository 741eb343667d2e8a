/* fuzz_json: any bytes as JSON.  What is read must be written and read again as the same text, and what
 * Jansson reads must be read. */
#include "../../src/base/json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static Buf written(const json_t *value) {
    Buf text = {0};
    if (!json_write(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17), &text)) abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    json_t *value = json_read(text, size, NULL), *strict = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    if (strict && !value) abort();
    json_decref(strict);
    if (!value) return 0;
    Buf once = written(value);
    json_t *again = json_read(once.data, once.n, NULL);
    if (!again) abort();
    Buf twice = written(again);
    if (once.n != twice.n || memcmp(once.data, twice.data, once.n) != 0) abort();
    buf_free(&once);
    buf_free(&twice);
    json_decref(value);
    json_decref(again);
    return 0;
}
