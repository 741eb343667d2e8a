/* gguf: the container.  Bytes in, metadata and tensors out, everything checked before anything is used.
 *
 * A GGUF file is a header, key-value metadata, a table of tensors and their data, little endian.  This reader
 * takes versions 2 and 3, one file or a split one (any shard finds its siblings), from a path or from bytes
 * that are already in memory.  It maps files; a tensor's data points into the mapping.
 *
 * What it refuses: anything out of bounds, overlapping, overflowing, duplicated or of the wrong type.  The
 * one trick: a single bounded cursor reads every byte of the header, and every length is compared with the
 * bytes left before it is used, so that no number in a file can make us read or allocate more than the file
 * holds. */
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
    QuantType type;      // known to quant.h; not necessarily one that can be computed with
    int n_dims;          // 1..4
    int64_t ne[4];       // elements per dimension, innermost first, each 1..INT32_MAX; 1 beyond n_dims
    const uint8_t *data; // n_bytes of blocks inside the mapping
    uint64_t n_bytes;
} GgufTensor;

/* Opens the model at path (or any shard of a split one).  false: *e has ERR_MODEL, nothing is left open. */
bool gguf_open(const char *path, Gguf **out, Err *e);

/* The same for n bytes in memory, which must outlive the Gguf.  label stands for the path in messages. */
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

/* Metadata, for listing (`zgen info`). */
int64_t gguf_n_keys(const Gguf *g);
GgufString gguf_key(const Gguf *g, int64_t i);
GgufString gguf_value_bytes(const Gguf *g, int64_t i); // value i as the file has it, its type in front
/* Appends a short printable form of value i: numbers, quoted strings (cut at max bytes), "[n x type] a, b,
 * ...". */
struct Buf;
void gguf_print_value(const Gguf *g, int64_t i, size_t max, struct Buf *out);

/* Typed getters.  Found and of a fitting type: *out is set, true.  Absent: *out keeps its value (the caller's
 * default), true.  Present with a wrong type or outside the range: false, *e says key, found and wanted.
 * Integers of every width and sign fit wherever their value does; floats take f32 and f64 and must be finite;
 * min and max are inclusive. */
bool gguf_has(const Gguf *g, const char *key);
bool gguf_get_int(const Gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, Err *e);
bool gguf_get_float(const Gguf *g, const char *key, float min, float max, float *out, Err *e);
bool gguf_get_bool(const Gguf *g, const char *key, bool *out, Err *e);
bool gguf_get_string(const Gguf *g, const char *key, GgufString *out, Err *e);

/* Arrays.  Absent: *n = 0, true.  A scalar counts as an array of one.  The elements are converted and copied
 * once into memory that the Gguf owns. */
bool gguf_get_ints(const Gguf *g, const char *key, const int64_t **out, size_t *n, Err *e);
bool gguf_get_floats(const Gguf *g, const char *key, const float **out, size_t *n, Err *e);
bool gguf_get_strings(const Gguf *g, const char *key, const GgufString **out, size_t *n, Err *e);

#endif
