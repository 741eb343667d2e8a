/* gguf_writer: GGUF files for the tests, byte by byte and without any check, so that wrong ones are as easy
 * to write as right ones. */
#ifndef ZGEN_TEST_GGUF_WRITER_H
#define ZGEN_TEST_GGUF_WRITER_H

#include "../../src/base/buf.h"
#include "../../src/gguf/gguf.h"

#include <stdio.h>
#include <string.h>

/* The value types, by GGUF's numbers. */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

static inline void put(Buf *b, const void *bytes, size_t n) {
    buf_add(b, bytes, n);
}
static inline void put_u32(Buf *b, uint32_t v) {
    put(b, &v, 4);
}
static inline void put_u64(Buf *b, uint64_t v) {
    put(b, &v, 8);
}

static inline void put_string(Buf *b, const char *s) {
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static inline void put_header(Buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys) {
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_keys);
}

static inline void put_key(Buf *b, const char *name, uint32_t type, const void *value, size_t n) {
    put_string(b, name);
    put_u32(b, type);
    put(b, value, n);
}

static inline void put_key_u32(Buf *b, const char *name, uint32_t v) {
    put_key(b, name, U32, &v, 4);
}

static inline void put_key_string(Buf *b, const char *name, const char *s) {
    put_key(b, name, STRING, NULL, 0);
    put_string(b, s);
}

static inline void put_array(Buf *b, const char *name, uint32_t type, uint64_t n) {
    put_key(b, name, ARRAY, &type, 4);
    put_u64(b, n);
}

static inline void put_tensor(Buf *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                              uint64_t offset) {
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(b, dims[i]);
    put_u32(b, type);
    put_u64(b, offset);
}

/* A vector of n f32. */
static inline void put_vector(Buf *b, const char *name, uint64_t n, uint64_t offset) {
    put_tensor(b, name, 1, &n, QUANT_F32, offset);
}

static inline void pad(Buf *b, size_t alignment, size_t more) {
    while (b->n % alignment) put(b, "", 1);
    for (size_t i = 0; i < more; i++) put(b, "\x55", 1);
}

/* ---- Conditions of both test files ---- */

static inline bool read_file(const char *path, Buf *b) {
    FILE *file = fopen(path, "rb");
    if (!file) return false;
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;) buf_add(b, piece, n);
    fclose(file);
    return true;
}

static inline bool text_is(GgufString s, const char *text) {
    return s.n == strlen(text) && memcmp(s.data, text, s.n) == 0;
}

static inline bool says(const Err *e, const char *part) {
    return e->code == ERR_MODEL && strstr(e->text, part);
}

#endif
