/* gguf: see gguf.h.
 *
 * A model is one file or several, each a Part with a header of its own.  Keys and strings stay in the
 * mapping; copied are a table of keys per part and one table of tensors for all.  Both tables grow as entries
 * are read, so that a count in the file allocates nothing by itself.
 *
 * Duplicates and names are found in sorted tables, not in hash tables: a hostile file cannot choose
 * collisions. */
#include "gguf.h"
#include "magic.h"
#include "value.h"
#include "../base/buf.h"
#include "../base/map.h"
#include "../base/mem.h"
#include "../base/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_BYTES = 8 + 1 + 4 + 1,            // at least: length, one letter, type, value
    TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, // at least: length, one letter, n_dims, one dim, type, offset
    KEY_MAX = 65535,                      // bytes of a key
    NAME_MAX_BYTES = 63,                  // bytes of a tensor's name
    COUNT_MAX = 1 << 20,                  // keys, tensors
    METADATA_MAX = 1 << 28,               // bytes before the tensor data; known models stay below 2^25
    ALIGNMENT_MAX = 1 << 20,
    SHARDS_MAX = 999,
};

typedef struct Key {
    GgufString name;
    Value value;
    int64_t *ints; // converted copies, made by the first call of a getter
    float *floats;
    GgufString *strings;
    Buf own; // the value of gguf_set and, for a key that the file lacks, the name behind it
} Key;

typedef struct Part { // one file: the model, or a shard of it
    char *label;
    Map map; // empty for bytes in memory
    const uint8_t *data;
    size_t size; // bytes
    size_t end;  // of the tensors
    int version;
    Key *keys;
    int64_t n_keys;
    const Key **by_name; // [n_keys], sorted
} Part;

struct Gguf {
    char *label;
    Part *parts;
    int n_parts;
    GgufTensor *tensors;
    int64_t n_tensors;
    const GgufTensor **by_name; // [n_tensors], sorted
};

/* items with capacity for one more than n: the capacity is the power of two at or above n. */
static void *grow(void *items, int64_t n, size_t size) {
    bool full = (n & (n - 1)) == 0;
    return full ? mem_resize(items, (n ? 2 * (size_t)n : 1) * size) : items;
}

/* ---- Metadata ---- */

static int compare_strings(GgufString a, GgufString b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.data, b.data, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_keys(const void *a, const void *b) {
    return compare_strings((*(const Key *const *)a)->name, (*(const Key *const *)b)->name);
}

static const Key *find_key(const Part *p, const char *name) {
    Key wanted = {.name = {name, strlen(name)}};
    const Key *key = &wanted;
    if (p->n_keys == 0) return NULL;
    const Key **found = bsearch(&key, p->by_name, (size_t)p->n_keys, sizeof *p->by_name, compare_keys);
    return found ? *found : NULL;
}

static bool read_key(Part *p, Cursor *c) {
    Key k = {0};
    cursor_in(c, "metadata key %" PRId64, p->n_keys);
    if (!cursor_string(c, KEY_MAX, &k.name)) return false;
    if (k.name.n == 0) return cursor_refuse(c, "has an empty name");
    if (memchr(k.name.data, 0, k.name.n)) return cursor_refuse(c, "has a NUL in its name");
    cursor_in(c, "metadata key '%.*s'", k.name.n < 70 ? (int)k.name.n : 70, k.name.data);
    if (!value_read(c, &k.value)) return false;
    p->keys = grow(p->keys, p->n_keys, sizeof *p->keys);
    p->keys[p->n_keys++] = k;
    return true;
}

static void sort_keys(Part *p) {
    size_t n = (size_t)p->n_keys;
    p->by_name = mem_resize(p->by_name, n * sizeof *p->by_name);
    for (size_t i = 0; i < n; i++) p->by_name[i] = &p->keys[i];
    qsort(p->by_name, n, sizeof *p->by_name, compare_keys);
}

static bool read_keys(Part *p, Cursor *c, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (!read_key(p, c)) return false;
    sort_keys(p);
    for (uint64_t i = 1; i < n; i++)
        if (compare_keys(&p->by_name[i - 1], &p->by_name[i]) == 0) {
            GgufString name = p->by_name[i]->name;
            cursor_in(c, "metadata key '%.*s'", name.n < 70 ? (int)name.n : 70, name.data);
            return cursor_refuse(c, "occurs twice");
        }
    return true;
}

/* The error of a getter whose key has the wrong type. */
static bool refuse_type(const Part *p, const char *key, const Value *v, const char *wanted, Err *e) {
    char found[64];
    return err_set(e, ERR_MODEL, "%.300s: metadata key '%s' is %s, not %s; convert the model again", p->label,
                   key, value_describe(v, found, sizeof found), wanted);
}

static bool get_int(const Part *p, const char *key, int64_t min, int64_t max, int64_t *out, Err *e) {
    const Key *k = find_key(p, key);
    if (!k) return true;
    if (k->value.is_array || !value_is_int(&k->value)) return refuse_type(p, key, &k->value, "an integer", e);
    int64_t n;
    if (!value_int(&k->value, 0, &n))
        return err_set(e, ERR_MODEL,
                       "%.300s: metadata key '%s' is above 2^63; expected %" PRId64 " to %" PRId64, p->label,
                       key, min, max);
    if (n < min || n > max)
        return err_set(e, ERR_MODEL,
                       "%.300s: metadata key '%s' is %" PRId64 "; expected %" PRId64 " to %" PRId64, p->label,
                       key, n, min, max);
    *out = n;
    return true;
}

static bool read_alignment(const Part *p, uint64_t *out, Err *e) {
    int64_t n = 32; // the default
    if (!get_int(p, "general.alignment", 1, ALIGNMENT_MAX, &n, e)) return false;
    if (n & (n - 1))
        return err_set(e, ERR_MODEL,
                       "%.300s: general.alignment is %" PRId64
                       ", not a power of two; convert the model again",
                       p->label, n);
    *out = (uint64_t)n;
    return true;
}

/* ---- Tensors ---- */

static bool read_name(Cursor *c, GgufString *out) {
    if (!cursor_string(c, UINT64_MAX, out)) return false;
    if (out->n == 0) return cursor_refuse(c, "has an empty name");
    if (out->n > NAME_MAX_BYTES)
        return cursor_refuse(c, "has a name of %zu bytes, more than the %d allowed", out->n, NAME_MAX_BYTES);
    if (memchr(out->data, 0, out->n)) return cursor_refuse(c, "has a NUL in its name");
    uint32_t code;
    for (size_t i = 0, n; i < out->n; i += n)
        if ((n = utf8_take(out->data + i, out->n - i, &code)) == 0)
            return cursor_refuse(c, "has a name that is not UTF-8");
    return true;
}

static bool read_dims(Cursor *c, GgufTensor *t) {
    uint32_t n_dims;
    if (!cursor_u32(c, &n_dims)) return false;
    if (n_dims < 1 || n_dims > 4)
        return cursor_refuse(c, "has %" PRIu32 " dimensions; expected 1 to 4", n_dims);
    t->n_dims = (int)n_dims;
    for (int i = 0; i < 4; i++) t->ne[i] = 1;
    for (int i = 0; i < t->n_dims; i++) {
        uint64_t n;
        if (!cursor_u64(c, &n)) return false;
        if (n < 1 || n > INT32_MAX)
            return cursor_refuse(c, "has a dimension of %" PRId64 "; expected 1 to 2147483647", (int64_t)n);
        t->ne[i] = (int64_t)n;
    }
    return true;
}

/* The type, and from it the number of bytes. */
static bool read_type(Cursor *c, GgufTensor *t) {
    uint32_t type;
    if (!cursor_u32(c, &type)) return false;
    const QuantTraits *traits = type == QUANT_FP8_E4M3 ? NULL : quant_traits(type); // not an id of GGUF
    if (!traits && quant_withdrawn(type))
        return err_set(c->err, ERR_MODEL,
                       "%.300s: %s has the type %" PRIu32
                       " (%s), which was withdrawn from the format; convert the model to another type",
                       c->label, c->where, type, quant_withdrawn(type));
    if (!traits)
        return err_set(c->err, ERR_MODEL,
                       "%.300s: %s has the type %" PRIu32
                       ", which is not supported; convert the model to another type",
                       c->label, c->where, type);
    if (t->ne[0] % traits->n_weights != 0)
        return cursor_refuse(
            c, "has rows of %" PRId64 " weights, not a multiple of the %d in a block of type %s", t->ne[0],
            traits->n_weights, traits->name);
    t->type = (QuantType)type;
    uint64_t n_blocks = (uint64_t)t->ne[0] / (uint64_t)traits->n_weights;
    bool over = false;
    for (int i = 1; i < 4; i++) over |= __builtin_mul_overflow(n_blocks, (uint64_t)t->ne[i], &n_blocks);
    over |= __builtin_mul_overflow(n_blocks, (uint64_t)traits->n_bytes, &t->n_bytes);
    return !over || cursor_refuse(c, "has dimensions whose product overflows");
}

static bool read_tensor(Gguf *g, Cursor *c, int64_t i, uint64_t *offset) {
    GgufTensor t = {0};
    GgufString name;
    cursor_in(c, "tensor %" PRId64, i);
    if (!read_name(c, &name)) return false;
    cursor_in(c, "tensor '%.*s'", (int)name.n, name.data);
    if (!read_dims(c, &t) || !read_type(c, &t) || !cursor_u64(c, offset)) return false;
    t.name = memcpy(mem_new(name.n + 1, 1), name.data, name.n);
    g->tensors = grow(g->tensors, g->n_tensors, sizeof *g->tensors);
    g->tensors[g->n_tensors++] = t;
    return true;
}

static int compare_data(const void *a, const void *b) {
    const uint8_t *x = (*(const GgufTensor *const *)a)->data, *y = (*(const GgufTensor *const *)b)->data;
    return (x > y) - (x < y);
}

static bool check_overlap(const Part *p, const GgufTensor *tensors, int64_t n, Err *e) {
    const GgufTensor **by_data = mem_new((size_t)n, sizeof *by_data);
    for (int64_t i = 0; i < n; i++) by_data[i] = &tensors[i];
    qsort(by_data, (size_t)n, sizeof *by_data, compare_data);
    bool ok = true;
    for (int64_t i = 1; ok && i < n; i++)
        if (by_data[i - 1]->data + by_data[i - 1]->n_bytes > by_data[i]->data)
            ok = err_set(e, ERR_MODEL,
                         "%.300s: the tensors '%s' and '%s' overlap; the file is damaged, download or "
                         "convert it again",
                         p->label, by_data[i - 1]->name, by_data[i]->name);
    free(by_data);
    return ok;
}

/* The end of a tensor in its file.  false: it overflows. */
static bool end_of(const Part *p, const GgufTensor *t, uint64_t base, uint64_t offset, uint64_t *end,
                   Err *e) {
    if (!__builtin_add_overflow(base, offset, end) && !__builtin_add_overflow(*end, t->n_bytes, end))
        return true;
    return err_set(e, ERR_MODEL,
                   "%.300s: tensor '%s' of %" PRIu64 " bytes has the offset %" PRIu64
                   ", which overflows; the file is damaged, download or convert it again",
                   p->label, t->name, t->n_bytes, offset);
}

/* Sets the data of n tensors of the part, whose header ends at header_end. */
static bool locate_tensors(Part *p, GgufTensor *tensors, const uint64_t *offsets, int64_t n,
                           size_t header_end, Err *e) {
    uint64_t alignment = 1, needed = header_end;
    if (!read_alignment(p, &alignment, e)) return false;
    uint64_t base = (header_end + alignment - 1) & ~(alignment - 1);
    for (int64_t i = 0; i < n; i++) {
        uint64_t end;
        if (offsets[i] % alignment != 0)
            return err_set(e, ERR_MODEL,
                           "%.300s: tensor '%s' has the offset %" PRIu64
                           ", not a multiple of the alignment %" PRIu64
                           "; the file is damaged, download or convert it again",
                           p->label, tensors[i].name, offsets[i], alignment);
        if (!end_of(p, &tensors[i], base, offsets[i], &end, e)) return false;
        if (end > needed) needed = end;
    }
    if (needed > p->size)
        return err_set(e, ERR_MODEL,
                       "%.300s: the file is cut off: its tensors need %" PRIu64 " bytes, it has %zu; %s",
                       p->label, needed, p->size, magic_remedy(p->label, "download it again"));
    p->end = needed;
    for (int64_t i = 0; i < n; i++) tensors[i].data = p->data + base + offsets[i];
    return check_overlap(p, tensors, n, e);
}

static bool read_tensors(Gguf *g, Part *p, Cursor *c, uint64_t n) {
    uint64_t *offsets = NULL;
    int64_t first = g->n_tensors;
    bool ok = true;
    for (int64_t i = 0; ok && i < (int64_t)n; i++) {
        offsets = grow(offsets, i, sizeof *offsets);
        ok = read_tensor(g, c, i, &offsets[i]);
    }
    ok = ok && locate_tensors(p, n ? &g->tensors[first] : NULL, offsets, (int64_t)n, c->at, c->err);
    free(offsets);
    return ok;
}

/* ---- One file ---- */

static bool read_counts(const Part *p, Cursor *c, uint64_t *n_tensors, uint64_t *n_keys) {
    if (!cursor_u64(c, n_tensors) || !cursor_u64(c, n_keys)) return false;
    if (*n_tensors > COUNT_MAX || *n_tensors > cursor_left(c) / TENSOR_BYTES)
        return cursor_refuse(c, "claims %" PRIu64 " tensors in a file of %zu bytes", *n_tensors, p->size);
    if (*n_keys > COUNT_MAX || *n_keys > cursor_left(c) / KEY_BYTES)
        return cursor_refuse(c, "claims %" PRIu64 " metadata keys in a file of %zu bytes", *n_keys, p->size);
    return true;
}

/* Reads the part's header, and appends its tensors to those of g. */
static bool read_part(Gguf *g, Part *p, Err *e) {
    uint64_t n_tensors, n_keys;
    if (!magic_check(p->data, p->size, p->label, &p->version, e)) return false;
    Cursor c = {.data = p->data, .size = p->size, .at = 8, .label = p->label, .err = e};
    if (c.size > METADATA_MAX) c.size = METADATA_MAX;
    cursor_in(&c, "the header");
    return read_counts(p, &c, &n_tensors, &n_keys) && read_keys(p, &c, n_keys) &&
           read_tensors(g, p, &c, n_tensors);
}

static bool open_part(Gguf *g, Part *p, const char *path, Err *e) {
    p->label = mem_string(path);
    if (!map_open(path, "a GGUF file", &p->map, e)) return false;
    p->data = p->map.data;
    p->size = p->map.size;
    return read_part(g, p, e);
}

static void close_part(Part *p) {
    for (int64_t i = 0; i < p->n_keys; i++) {
        free(p->keys[i].ints);
        free(p->keys[i].floats);
        free(p->keys[i].strings);
        buf_free(&p->keys[i].own);
    }
    free(p->keys);
    free(p->by_name);
    free(p->label);
    map_close(&p->map);
}

/* ---- A model of several files ---- */

typedef struct Split {
    int64_t no, count; // this shard, from 0, of how many; count 0 or 1: the file is whole
    int64_t n_tensors; // in all shards; -1: not stated
} Split;

static bool read_split(const Part *p, Split *out, Err *e) {
    *out = (Split){0, 0, -1};
    return get_int(p, "split.count", 0, SHARDS_MAX, &out->count, e) &&
           get_int(p, "split.no", 0, out->count > 1 ? out->count - 1 : INT64_MAX, &out->no, e) &&
           get_int(p, "split.tensors.count", 0, INT64_MAX, &out->n_tensors, e);
}

/* The path of shard `no`, from the path of the shard `own`: PREFIX-00001-of-00003.gguf, counted from 1.  NULL
 * if path does not end like that. */
static char *shard_path(const char *path, const Split *own, int64_t no) {
    char ending[64], wanted[64];
    int n = snprintf(ending, sizeof ending, "-%05d-of-%05d.gguf", (int)own->no + 1, (int)own->count);
    snprintf(wanted, sizeof wanted, "-%05d-of-%05d.gguf", (int)no + 1, (int)own->count);
    size_t length = strlen(path);
    if (length < (size_t)n || strcmp(path + length - (size_t)n, ending) != 0) return NULL;
    char *sibling = mem_string(path);
    memcpy(sibling + length - (size_t)n, wanted, (size_t)n);
    return sibling;
}

/* Whether another GGUF file follows the tensors of this one. */
static bool is_joined(const Part *p) {
    size_t rest = p->size - p->end;
    return memmem(p->data + p->end, rest < ALIGNMENT_MAX + 4 ? rest : ALIGNMENT_MAX + 4, "GGUF", 4) != NULL;
}

static bool open_shard(Gguf *g, int no, const char *path, const Split *own, Err *e) {
    char *name = shard_path(path, own, no);
    if (!name)
        return err_set(e, ERR_MODEL,
                       "%.300s: the file is shard %d of %d of a split model, but its name does not end in "
                       "-%05d-of-%05d.gguf; restore the names of all shards",
                       path, (int)own->no + 1, (int)own->count, (int)own->no + 1, (int)own->count);
    Part *p = &g->parts[no];
    Split s;
    bool ok = open_part(g, p, name, e);
    free(name);
    if (!ok) {
        Err cause = *e;
        return err_set(e, cause.code, "shard %d of %d: %s", no + 1, (int)own->count, cause.text);
    }
    if (!read_split(p, &s, e)) return false;
    if (s.count != own->count || s.no != no || s.n_tensors != own->n_tensors)
        return err_set(e, ERR_MODEL,
                       "%.300s: the file is not shard %d of %d of the model that %.300s belongs to; "
                       "download the shards again",
                       p->label, no + 1, (int)own->count, path);
    return true;
}

/* Opens all shards in order, and among them again the shard at path, whose header has been read to find the
 * split. */
static bool open_shards(Gguf *g, const char *path, const Split *own, Err *e) {
    if (is_joined(&g->parts[0]))
        return err_set(
            e, ERR_MODEL,
            "%.300s: shards of a split model were joined to this file, which makes no whole one of them; "
            "download the shards again and give the path of one, zgen reads them as they are",
            path);
    close_part(&g->parts[0]);
    for (int64_t i = 0; i < g->n_tensors; i++) free(g->tensors[i].name);
    free(g->tensors);
    free(g->parts);
    g->tensors = NULL;
    g->n_tensors = 0;
    g->n_parts = (int)own->count;
    g->parts = mem_new((size_t)own->count, sizeof *g->parts);
    for (int i = 0; i < g->n_parts; i++)
        if (!open_shard(g, i, path, own, e)) return false;
    if (own->n_tensors >= 0 && own->n_tensors != g->n_tensors)
        return err_set(e, ERR_MODEL,
                       "%.300s: the shards hold %" PRId64 " tensors, but should hold %" PRId64
                       "; download them again",
                       path, g->n_tensors, own->n_tensors);
    return true;
}

/* ---- The whole ---- */

static int compare_names(const void *a, const void *b) {
    return strcmp((*(const GgufTensor *const *)a)->name, (*(const GgufTensor *const *)b)->name);
}

int gguf_tensor_shard(const Gguf *g, const GgufTensor *t) {
    int i = 0;
    while (t->data < g->parts[i].data || t->data >= g->parts[i].data + g->parts[i].size) i++;
    return i;
}

static const char *label_of(const Gguf *g, const GgufTensor *t) {
    return g->parts[gguf_tensor_shard(g, t)].label;
}

static bool sort_tensors(Gguf *g, Err *e) {
    size_t n = (size_t)g->n_tensors;
    g->by_name = mem_new(n, sizeof *g->by_name);
    for (size_t i = 0; i < n; i++) g->by_name[i] = &g->tensors[i];
    qsort(g->by_name, n, sizeof *g->by_name, compare_names);
    for (size_t i = 1; i < n; i++)
        if (compare_names(&g->by_name[i - 1], &g->by_name[i]) == 0) {
            const char *first = label_of(g, g->by_name[i - 1]), *second = label_of(g, g->by_name[i]);
            bool same = first == second;
            return err_set(e, ERR_MODEL,
                           "%.300s: tensor '%s' occurs twice%s%.300s; download or convert the model again",
                           first, g->by_name[i]->name, same ? "" : ", again in ", same ? "" : second);
        }
    return true;
}

static Gguf *new_gguf(const char *label) {
    Gguf *g = mem_new(1, sizeof *g);
    g->label = mem_string(label);
    g->n_parts = 1;
    g->parts = mem_new(1, sizeof *g->parts);
    return g;
}

static bool finish(Gguf *g, bool ok, Gguf **out, Err *e) {
    ok = ok && sort_tensors(g, e);
    if (!ok) gguf_close(g);
    *out = ok ? g : NULL;
    return ok;
}

bool gguf_open(const char *path, Gguf **out, Err *e) {
    Gguf *g = new_gguf(path);
    Split s;
    bool ok = open_part(g, &g->parts[0], path, e) && read_split(&g->parts[0], &s, e);
    if (ok && s.count > 1) ok = open_shards(g, path, &s, e);
    return finish(g, ok, out, e);
}

bool gguf_open_bytes(const void *bytes, size_t n, const char *label, Gguf **out, Err *e) {
    Gguf *g = new_gguf(label);
    Part *p = &g->parts[0];
    Split s;
    p->label = mem_string(label);
    p->data = bytes;
    p->size = n;
    bool ok = read_part(g, p, e) && read_split(p, &s, e);
    if (ok && s.count > 1)
        ok = err_set(e, ERR_MODEL, "%.300s: this is one shard of a split model; open it by its path", label);
    return finish(g, ok, out, e);
}

void gguf_close(Gguf *g) {
    if (!g) return;
    for (int i = 0; i < g->n_parts; i++) close_part(&g->parts[i]);
    for (int64_t i = 0; i < g->n_tensors; i++) free(g->tensors[i].name);
    free(g->parts);
    free(g->tensors);
    free(g->by_name);
    free(g->label);
    free(g);
}

/* ---- Getters ---- */

const char *gguf_label(const Gguf *g) {
    return g->label;
}
int gguf_version(const Gguf *g) {
    return g->parts[0].version;
}
int gguf_n_shards(const Gguf *g) {
    return g->n_parts;
}
const char *gguf_shard(const Gguf *g, int i) {
    assert(i >= 0 && i < g->n_parts);
    return g->parts[i].label;
}
int64_t gguf_n_tensors(const Gguf *g) {
    return g->n_tensors;
}
int64_t gguf_n_keys(const Gguf *g) {
    return g->parts[0].n_keys;
}

uint64_t gguf_n_bytes(const Gguf *g) {
    uint64_t n = 0;
    for (int i = 0; i < g->n_parts; i++) n += g->parts[i].size;
    return n;
}

const GgufTensor *gguf_tensor(const Gguf *g, int64_t i) {
    assert(i >= 0 && i < g->n_tensors);
    return &g->tensors[i];
}

const GgufTensor *gguf_find_tensor(const Gguf *g, const char *name) {
    GgufTensor wanted = {.name = (char *)name};
    const GgufTensor *t = &wanted;
    const GgufTensor **found = NULL;
    if (g->n_tensors)
        found = bsearch(&t, g->by_name, (size_t)g->n_tensors, sizeof *g->by_name, compare_names);
    return found ? *found : NULL;
}

GgufString gguf_key(const Gguf *g, int64_t i) {
    assert(i >= 0 && i < gguf_n_keys(g));
    return g->parts[0].keys[i].name;
}

GgufString gguf_value_bytes(const Gguf *g, int64_t i) {
    assert(i >= 0 && i < gguf_n_keys(g));
    const Value *v = &g->parts[0].keys[i].value;
    size_t head = v->is_array ? 4 + 4 + 8 : 4; // type; type of the elements and their count
    return (GgufString){(const char *)v->data - head, head + v->n_bytes};
}

void gguf_print_value(const Gguf *g, int64_t i, size_t max, Buf *out) {
    assert(i >= 0 && i < gguf_n_keys(g));
    value_print(&g->parts[0].keys[i].value, max, out);
}

bool gguf_has(const Gguf *g, const char *key) {
    return find_key(&g->parts[0], key) != NULL;
}

bool gguf_get_int(const Gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, Err *e) {
    return get_int(&g->parts[0], key, min, max, out, e);
}

bool gguf_get_float(const Gguf *g, const char *key, float min, float max, float *out, Err *e) {
    const Part *p = &g->parts[0];
    const Key *k = find_key(p, key);
    if (!k) return true;
    if (k->value.is_array || !value_is_float(&k->value)) return refuse_type(p, key, &k->value, "a float", e);
    float f;
    if (!value_float(&k->value, 0, &f))
        return err_set(e, ERR_MODEL,
                       "%.300s: metadata key '%s' is not a finite number; convert the model again", p->label,
                       key);
    if (f < min || f > max)
        return err_set(e, ERR_MODEL, "%.300s: metadata key '%s' is %g; expected %g to %g", p->label, key,
                       (double)f, (double)min, (double)max);
    *out = f;
    return true;
}

bool gguf_get_bool(const Gguf *g, const char *key, bool *out, Err *e) {
    const Part *p = &g->parts[0];
    const Key *k = find_key(p, key);
    if (!k) return true;
    if (k->value.is_array || k->value.type != VALUE_BOOL) return refuse_type(p, key, &k->value, "a bool", e);
    *out = value_bool(&k->value, 0);
    return true;
}

/* A value as a file has it: its type, and of a string the length.  Numbers have the types that converters give
 * them: other programs read no wider ones. */
static void encode_scalar(GgufScalar v, Buf *out) {
    bool is_small = v.integer >= INT32_MIN && v.integer <= UINT32_MAX;
    uint32_t type = v.kind == GGUF_FLOAT    ? VALUE_F32
                    : v.kind == GGUF_BOOL   ? VALUE_BOOL
                    : v.kind == GGUF_STRING ? VALUE_STRING
                    : !is_small             ? VALUE_I64
                    : v.integer < 0         ? VALUE_I32
                                            : VALUE_U32;
    uint64_t length = v.kind == GGUF_STRING ? strlen(v.text) : 0;
    float number = v.kind == GGUF_FLOAT ? (float)v.number : 0;
    buf_add(out, &type, sizeof type);
    if (v.kind == GGUF_INT) buf_add(out, &v.integer, is_small ? 4 : 8); // little endian
    if (v.kind == GGUF_FLOAT) buf_add(out, &number, sizeof number);
    if (v.kind == GGUF_BOOL) buf_add(out, &v.flag, sizeof v.flag);
    if (v.kind == GGUF_STRING) buf_add(out, &length, sizeof length);
    if (v.kind == GGUF_STRING) buf_add(out, v.text, length);
}

static bool is_of_kind(const Value *v, GgufScalar s) {
    if (v->is_array) return false;
    if (s.kind == GGUF_INT) return value_is_int(v);
    if (s.kind == GGUF_FLOAT) return value_is_float(v);
    return v->type == (s.kind == GGUF_BOOL ? VALUE_BOOL : VALUE_STRING);
}

bool gguf_set(Gguf *g, const char *key, GgufScalar value, Err *e) {
    static const char *const kinds[] = {"an integer", "a float", "a bool", "a string"};
    Part *p = &g->parts[0];
    Key *k = (Key *)find_key(p, key);
    char found[64];
    assert(!k || (!k->ints && !k->floats && !k->strings));
    if (k && !is_of_kind(&k->value, value))
        return err_set(e, ERR_USAGE, "%.300s: metadata key '%.100s' is %s; %s cannot replace it", p->label,
                       key, value_describe(&k->value, found, sizeof found), kinds[value.kind]);
    Key added = {0};
    encode_scalar(value, &added.own);
    size_t n = added.own.n;
    buf_add(&added.own, key, strlen(key));
    Err ignored;
    Cursor c = {.data = (const uint8_t *)added.own.data, .size = n, .label = p->label, .err = &ignored};
    bool ok = value_read(&c, &added.value);
    assert(ok);
    (void)ok;
    added.name = (GgufString){added.own.data + n, strlen(key)};
    if (!k) {
        p->keys = grow(p->keys, p->n_keys, sizeof *p->keys);
        k = &p->keys[p->n_keys++];
    } else {
        buf_free(&k->own);
    }
    *k = added;
    sort_keys(p);
    return true;
}

/* The array getters write converted copies to the key, a cache that leaves the Gguf's contents as they
 * are. */
static Key *find_array(const Gguf *g, const char *key, size_t *n) {
    Key *k = (Key *)find_key(&g->parts[0], key);
    *n = k ? (size_t)k->value.n : 0;
    return k;
}

static bool refuse_change(const Gguf *g, const char *key, Err *e) {
    return err_set(e, ERR_MODEL, "%.300s: metadata key '%s' changed while the file was in use; start again",
                   g->label, key);
}

bool gguf_get_string(const Gguf *g, const char *key, GgufString *out, Err *e) {
    const Part *p = &g->parts[0];
    const Key *k = find_key(p, key);
    if (!k) return true;
    if (k->value.is_array || k->value.type != VALUE_STRING)
        return refuse_type(p, key, &k->value, "a string", e);
    return value_strings(&k->value, out) || refuse_change(g, key, e);
}

bool gguf_get_ints(const Gguf *g, const char *key, const int64_t **out, size_t *n, Err *e) {
    *out = NULL;
    Key *k = find_array(g, key, n);
    if (!k) return true;
    bool are_bools = k->value.type == VALUE_BOOL;
    if (!are_bools && !value_is_int(&k->value))
        return refuse_type(&g->parts[0], key, &k->value, "an array of integers", e);
    if (!k->ints) {
        int64_t *ints = mem_new(*n, sizeof *ints);
        for (size_t i = 0; i < *n; i++)
            if (are_bools)
                ints[i] = value_bool(&k->value, i);
            else if (!value_int(&k->value, i, &ints[i])) {
                free(ints);
                return err_set(
                    e, ERR_MODEL,
                    "%.300s: element %zu of metadata key '%s' is above 2^63; convert the model again",
                    g->label, i, key);
            }
        k->ints = ints;
    }
    *out = k->ints;
    return true;
}

bool gguf_get_floats(const Gguf *g, const char *key, const float **out, size_t *n, Err *e) {
    *out = NULL;
    Key *k = find_array(g, key, n);
    if (!k) return true;
    bool are_ints = k->value.is_array && value_is_int(&k->value);
    if (!are_ints && !value_is_float(&k->value))
        return refuse_type(&g->parts[0], key, &k->value, "an array of floats", e);
    if (!k->floats) {
        float *floats = mem_new(*n, sizeof *floats);
        for (size_t i = 0; i < *n; i++)
            if (!value_float(&k->value, i, &floats[i])) {
                free(floats);
                return err_set(e, ERR_MODEL,
                               "%.300s: element %zu of metadata key '%s' is not a finite number; convert the "
                               "model again",
                               g->label, i, key);
            }
        k->floats = floats;
    }
    *out = k->floats;
    return true;
}

bool gguf_get_strings(const Gguf *g, const char *key, const GgufString **out, size_t *n, Err *e) {
    *out = NULL;
    Key *k = find_array(g, key, n);
    if (!k) return true;
    if (k->value.type != VALUE_STRING)
        return refuse_type(&g->parts[0], key, &k->value, "an array of strings", e);
    if (!k->strings) {
        GgufString *strings = mem_new(*n, sizeof *strings);
        if (!value_strings(&k->value, strings)) {
            free(strings);
            return refuse_change(g, key, e);
        }
        k->strings = strings;
    }
    *out = k->strings;
    return true;
}
