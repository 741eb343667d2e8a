/* write: see write.h. */
#include "write.h"

#include <assert.h>
#include <string.h>

static void put_u32(Buf *b, uint32_t v) {
    buf_add(b, &v, sizeof v);
}
static void put_u64(Buf *b, uint64_t v) {
    buf_add(b, &v, sizeof v);
}

void gguf_write_element(Buf *array, const char *text, size_t n) {
    put_u64(array, n);
    buf_add(array, text, n);
}

static void put_key(GgufWriter *w, const char *key, uint32_t type) {
    w->n_keys++;
    gguf_write_element(&w->keys, key, strlen(key));
    put_u32(&w->keys, type);
}

void gguf_write_u32(GgufWriter *w, const char *key, uint32_t value) {
    put_key(w, key, 4);
    put_u32(&w->keys, value);
}

void gguf_write_u16(GgufWriter *w, const char *key, uint16_t value) {
    put_key(w, key, 2);
    buf_add(&w->keys, &value, sizeof value);
}

void gguf_write_i32(GgufWriter *w, const char *key, int32_t value) {
    put_key(w, key, 5);
    buf_add(&w->keys, &value, sizeof value);
}

void gguf_write_f32(GgufWriter *w, const char *key, float value) {
    put_key(w, key, 6);
    buf_add(&w->keys, &value, sizeof value);
}

void gguf_write_bool(GgufWriter *w, const char *key, bool value) {
    put_key(w, key, 7);
    buf_add(&w->keys, &(uint8_t){value}, 1);
}

void gguf_write_string(GgufWriter *w, const char *key, const char *value) {
    put_key(w, key, 8);
    gguf_write_element(&w->keys, value, strlen(value));
}

void gguf_write_copy(GgufWriter *w, const Gguf *from, int64_t key) {
    GgufString name = gguf_key(from, key), value = gguf_value_bytes(from, key);
    w->n_keys++;
    gguf_write_element(&w->keys, name.data, name.n);
    buf_add(&w->keys, value.data, value.n);
}

Buf *gguf_write_array(GgufWriter *w, const char *key, GgufArray type, uint64_t n) {
    put_key(w, key, 9);
    put_u32(&w->keys, type);
    put_u64(&w->keys, n);
    return &w->keys;
}

static uint64_t align_up(uint64_t n) {
    return (n + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

uint64_t gguf_write_tensor(GgufWriter *w, const char *name, QuantType type, int n_dims, const int64_t *ne) {
    const QuantTraits *traits = quant_traits(type);
    assert(ne[0] % traits->n_weights == 0);
    uint64_t offset = w->data_bytes, n = 1;
    gguf_write_element(&w->tensors, name, strlen(name));
    put_u32(&w->tensors, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) {
        put_u64(&w->tensors, (uint64_t)ne[i]);
        n *= (uint64_t)ne[i];
    }
    put_u32(&w->tensors, type == QUANT_FP8_E4M3 ? QUANT_I8 : type);
    put_u64(&w->tensors, offset);
    w->n_tensors++;
    w->data_bytes = align_up(offset + n / (uint64_t)traits->n_weights * traits->n_bytes);
    return offset;
}

void gguf_write_header(GgufWriter *w, Buf *out) {
    buf_add(out, "GGUF", 4);
    put_u32(out, 3);
    put_u64(out, w->n_tensors);
    put_u64(out, w->n_keys);
    buf_add(out, w->keys.data, w->keys.n);
    buf_add(out, w->tensors.data, w->tensors.n);
    static const uint8_t zeros[GGUF_ALIGNMENT];
    buf_add(out, zeros, align_up(out->n) - out->n);
    buf_free(&w->keys);
    buf_free(&w->tensors);
}
