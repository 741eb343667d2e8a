/* write: the header of a GGUF file, key by key and tensor by tensor.
 *
 * The writer composes the header and computes the offset of each tensor's data; the caller writes the data,
 * to a file or to memory.  Version 3, little endian, alignment GGUF_ALIGNMENT. */
#ifndef ZGEN_GGUF_WRITE_H
#define ZGEN_GGUF_WRITE_H

#include <stdbool.h>
#include <stdint.h>
#include "../base/buf.h"
#include "gguf.h"

enum { GGUF_ALIGNMENT = 32 };

typedef struct GgufWriter { // starts as {0}
    Buf keys, tensors;
    uint64_t n_keys, n_tensors;
    uint64_t data_bytes; // of the tensors so far, padding included
} GgufWriter;

void gguf_write_u16(GgufWriter *w, const char *key, uint16_t value);
void gguf_write_i32(GgufWriter *w, const char *key, int32_t value);
void gguf_write_u32(GgufWriter *w, const char *key, uint32_t value);
void gguf_write_f32(GgufWriter *w, const char *key, float value);
void gguf_write_bool(GgufWriter *w, const char *key, bool value);
void gguf_write_string(GgufWriter *w, const char *key, const char *value);

/* A key of another file with its value, of any type. */
void gguf_write_copy(GgufWriter *w, const Gguf *from, int64_t key);

typedef enum GgufArray { // GGUF's numbers of the elements' types
    GGUF_ARRAY_I32 = 5,
    GGUF_ARRAY_F32 = 6,
    GGUF_ARRAY_BOOL = 7, // a byte each
    GGUF_ARRAY_STRING = 8
} GgufArray;

/* An array of n elements, whose bytes the caller appends to the Buf returned: i32, f32 and bool as they are,
 * strings with gguf_write_element. */
Buf *gguf_write_array(GgufWriter *w, const char *key, GgufArray type, uint64_t n);
void gguf_write_element(Buf *array, const char *text, size_t n);

/* Adds a tensor with its dimensions, innermost first; returns the offset of its data behind the header.  FP8
 * is written as I8: the caller sets the key zgen.fp8.format and writes the scales. */
uint64_t gguf_write_tensor(GgufWriter *w, const char *name, QuantType type, int n_dims, const int64_t *ne);

/* Appends the header, padded to the alignment of the data.  Frees the writer. */
void gguf_write_header(GgufWriter *w, Buf *out);

#endif
