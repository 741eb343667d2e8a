/* gguf: the container of a model: metadata and tensors, checked as a whole when the file is opened.
 *
 * A GGUF file is a header, key-value metadata, a table of tensors and their data, little endian.  This reader
 * takes versions 2 and 3, one file or a split one (the path of any shard will do), from a path or from bytes
 * in memory.  Files are mapped; a tensor's data points into the mapping.
 *
 * Refused are offsets out of bounds, overlaps, overflows, duplicates and wrong types.  The one trick: a
 * single bounded cursor reads every byte of the header and compares every length with the bytes left, so that
 * reads and allocations are bounded by the size of the file, whatever its numbers. */
#ifndef ZGEN_GGUF_GGUF_H
#define ZGEN_GGUF_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/err.h"
#include "gguf_string.h"
#include "quant.h"

typedef struct Gguf Gguf;

typedef struct GgufTensor {
    char *name;          // NUL-terminated, valid UTF-8, at most 63 bytes
    QuantType type;      // with traits in quant.h, but perhaps without a decoder
    int n_dims;          // 1..4
    int64_t ne[4];       // elements per dimension, innermost first, each 1..INT32_MAX; 1 beyond n_dims
    const uint8_t *data; // n_bytes of blocks inside the mapping
    uint64_t n_bytes;
} GgufTensor;

/* Opens the model at path (or any shard of a split one).  false: *e has ERR_MODEL, nothing is left open. */
bool gguf_open(const char *path, Gguf **out, Err *e);

/* The same for n bytes in memory, which must outlive the Gguf.  label takes the place of the path in
 * messages. */
bool gguf_open_bytes(const void *bytes, size_t n, const char *label, Gguf **out, Err *e);

void gguf_close(Gguf *g); // NULL is fine

const char *gguf_label(const Gguf *g); // the path or label it was opened with
int gguf_version(const Gguf *g);
int gguf_n_shards(const Gguf *g);
const char *gguf_shard(const Gguf *g, int i); // the path of file i of n_shards
uint64_t gguf_n_bytes(const Gguf *g);         // size of all its files

int64_t gguf_n_tensors(const Gguf *g);
const GgufTensor *gguf_tensor(const Gguf *g, int64_t i);             // one array, in file order
const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name); // NULL if there is none
int gguf_tensor_shard(const Gguf *g, const GgufTensor *t);           // the file of n_shards that it is in

/* Metadata, for listing (`zgen info`). */
int64_t gguf_n_keys(const Gguf *g);
GgufString gguf_key(const Gguf *g, int64_t i);
GgufString gguf_value_bytes(const Gguf *g, int64_t i); // value i in the bytes of the file, its type first

struct Buf;
/* Appends a short printable form of value i: a number, a quoted string (cut at max bytes), or an array as
 * "[n x type] a, b, ...". */
void gguf_print_value(const Gguf *g, int64_t i, size_t max, struct Buf *out);

/* Typed getters.  Key present with a fitting type: *out is set, true.  Absent: *out keeps its value (the
 * caller's default), true.  Of a wrong type or outside the range: false, and *e states key, value and
 * expectation.  An integer of any width and sign fits if its value does; floats are f32 or f64 and must be
 * finite; min and max are inclusive. */
bool gguf_has(const Gguf *g, const char *key);
bool gguf_get_int(const Gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, Err *e);
bool gguf_get_float(const Gguf *g, const char *key, float min, float max, float *out, Err *e);
bool gguf_get_bool(const Gguf *g, const char *key, bool *out, Err *e);
bool gguf_get_string(const Gguf *g, const char *key, GgufString *out, Err *e);

/* Replaces the scalar of a key, or adds the key, before the first getter reads it; the file stays as it is.
 * false: ERR_USAGE, the key holds an array or a value of another kind, which is not the same for integers and
 * floats. */
typedef struct GgufScalar {
    enum { GGUF_INT, GGUF_FLOAT, GGUF_BOOL, GGUF_STRING } kind;
    union {
        int64_t integer;
        double number;
        bool flag;
        const char *text; // copied
    };
} GgufScalar;

bool gguf_set(Gguf *g, const char *key, GgufScalar value, Err *e);

/* Arrays.  Absent: *n = 0, true.  A scalar counts as an array of one.  The elements are converted and copied
 * once into memory that the Gguf owns; booleans are integers, too, and integers of an array are floats: some
 * writers store floats as integers where all are whole numbers. */
bool gguf_get_ints(const Gguf *g, const char *key, const int64_t **out, size_t *n, Err *e);
bool gguf_get_floats(const Gguf *g, const char *key, const float **out, size_t *n, Err *e);
bool gguf_get_strings(const Gguf *g, const char *key, const GgufString **out, size_t *n, Err *e);

#endif
