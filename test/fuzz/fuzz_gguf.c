/* fuzz_gguf: any bytes as a model.  Of a file that opens, each key is read by each getter, each tensor found
 * by its name, and both ends of each tensor's data are read. */
#include "../../src/base/buf.h"
#include "../../src/gguf/gguf.h"

#include <stdlib.h>
#include <string.h>

static void ask_about_key(const Gguf *g, int64_t i, Buf *text) {
    GgufString name = gguf_key(g, i), string;
    char *key = strndup(name.data, name.n);
    const GgufString *strings;
    const int64_t *ints;
    const float *floats;
    int64_t integer;
    float number;
    bool truth;
    size_t n;
    Err e;
    if (!gguf_has(g, key)) abort();
    gguf_get_int(g, key, INT64_MIN, INT64_MAX, &integer, &e);
    gguf_get_float(g, key, -1e30f, 1e30f, &number, &e);
    gguf_get_bool(g, key, &truth, &e);
    if (gguf_get_string(g, key, &string, &e)) buf_add(text, string.data, string.n);
    if (gguf_get_ints(g, key, &ints, &n, &e) && n && ints[0] + 1 == ints[n - 1]) buf_add(text, "i", 1);
    if (gguf_get_floats(g, key, &floats, &n, &e) && n && floats[0] == floats[n - 1]) buf_add(text, "f", 1);
    if (gguf_get_strings(g, key, &strings, &n, &e))
        for (size_t j = 0; j < n; j++) buf_add(text, strings[j].data, strings[j].n);
    gguf_print_value(g, i, 100, text);
    buf_clear(text);
    free(key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Gguf *g;
    Err e = {0};
    if (!gguf_open_bytes(data, size, "fuzz", &g, &e)) {
        if (g || e.code != ERR_MODEL || !e.text[0]) abort();
        return 0;
    }
    Buf text = {0};
    for (int64_t i = 0; i < gguf_n_keys(g); i++) ask_about_key(g, i, &text);
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        if (gguf_find_tensor(g, t->name) != t) abort();
        buf_add(&text, t->data, 1);
        buf_add(&text, t->data + t->n_bytes - 1, 1);
    }
    buf_free(&text);
    gguf_close(g);
    return 0;
}
