/* imatrix: see imatrix.h. */
#include "imatrix.h"
#include "../base/map.h"
#include "../base/mem.h"
#include "cursor.h"
#include "magic.h"
#include "write.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char SUMS[] = ".in_sum2", COUNTS[] = ".counts";

enum { NAME_MAX_BYTES = 200, DATASET_MAX = 1 << 16 };

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const ImatrixEntry *)a)->name, ((const ImatrixEntry *)b)->name);
}

const ImatrixEntry *imatrix_find(const Imatrix *m, const char *name) {
    ImatrixEntry wanted = {.name = (char *)name};
    return m->n ? bsearch(&wanted, m->entries, m->n, sizeof wanted, compare_entries) : NULL;
}

void imatrix_close(Imatrix *m) {
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].name);
        free(m->entries[i].mean);
    }
    free(m->entries);
    free(m->dataset);
    *m = (Imatrix){0};
}

/* ---- both forms ----------------------------------------------------------------------------------------- */

/* Adds an entry with n values, which the caller fills; name has n_name bytes. */
static ImatrixEntry *add_entry(Imatrix *m, const char *name, size_t n_name, size_t n) {
    if ((m->n & (m->n - 1)) == 0) // the capacity is the power of two at or above n
        m->entries = mem_resize(m->entries, (m->n ? 2 * m->n : 1) * sizeof *m->entries);
    ImatrixEntry *entry = &m->entries[m->n++];
    *entry = (ImatrixEntry){mem_new(n_name + 1, 1), mem_new(n, sizeof(float)), n};
    memcpy(entry->name, name, n_name);
    return entry;
}

static bool check_values(const ImatrixEntry *entry, const char *label, Err *e) {
    for (size_t i = 0; i < entry->n; i++)
        if (!isfinite(entry->mean[i]) || entry->mean[i] < 0)
            return err_set(
                e, ERR_MODEL,
                "%.300s: value %zu of '%s' is %g, which no mean of squares is; the file is damaged", label, i,
                entry->name, (double)entry->mean[i]);
    return true;
}

/* Sorts the entries and checks all. */
static bool finish(Imatrix *m, const char *label, Err *e) {
    if (m->n == 0)
        return err_set(e, ERR_MODEL, "%.300s: the importance matrix is empty; make it again", label);
    qsort(m->entries, m->n, sizeof *m->entries, compare_entries);
    for (size_t i = 0; i < m->n; i++) {
        if (i && strcmp(m->entries[i - 1].name, m->entries[i].name) == 0)
            return err_set(e, ERR_MODEL, "%.300s: '%s' is there twice; the file is damaged", label,
                           m->entries[i].name);
        if (!check_values(&m->entries[i], label, e)) return false;
    }
    if (!m->dataset) m->dataset = mem_string("");
    return true;
}

static char *copy_text(const void *text, size_t n) {
    return memcpy(mem_new(n + 1, 1), text, n);
}

/* ---- the GGUF form -------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), k = strlen(end);
    return n > k && strcmp(name + n - k, end) == 0;
}

/* Matrix `row` of sums becomes means. */
static void divide(const GgufTensor *sums, const GgufTensor *counts, int64_t row, float *out) {
    float count, sum;
    memcpy(&count, counts->data + 4 * row, sizeof count);
    for (int64_t i = 0; i < sums->ne[0]; i++) {
        memcpy(&sum, sums->data + 4 * (row * sums->ne[0] + i), sizeof sum);
        out[i] = count == 0 ? 1 : sum / count; // a negative or not finite one is found later
    }
}

static bool read_tensor(const Gguf *g, const GgufTensor *sums, Imatrix *m, Err *e) {
    char name[80];
    size_t n = strlen(sums->name) - strlen(SUMS);
    snprintf(name, sizeof name, "%.*s%s", (int)n, sums->name, COUNTS);
    const GgufTensor *counts = gguf_find_tensor(g, name);
    int64_t n_mat = sums->ne[1] * sums->ne[2] * sums->ne[3];
    if (!counts)
        return err_set(e, ERR_MODEL, "%.300s: '%s' is missing; make the matrix again", gguf_label(g), name);
    if (sums->type != QUANT_F32 || counts->type != QUANT_F32 || counts->n_bytes != 4 * (uint64_t)n_mat)
        return err_set(
            e, ERR_MODEL,
            "%.300s: '%s' and '%s' do not fit each other: a count of type F32 is expected for each row "
            "of sums; make the matrix again",
            gguf_label(g), sums->name, name);
    ImatrixEntry *entry = add_entry(m, sums->name, n, sums->n_bytes / 4);
    for (int64_t row = 0; row < n_mat; row++) divide(sums, counts, row, entry->mean + row * sums->ne[0]);
    return true;
}

static bool read_keys(const Gguf *g, Imatrix *m, Err *e) {
    const GgufString *names;
    size_t n = 0;
    int64_t n_chunks = 0;
    GgufString type = {"", 0};
    if (!gguf_get_string(g, "general.type", &type, e) ||
        !gguf_get_int(g, "imatrix.chunk_count", 0, INT32_MAX, &n_chunks, e) ||
        !gguf_get_strings(g, "imatrix.datasets", &names, &n, e))
        return false;
    if (type.n != 7 || memcmp(type.data, "imatrix", 7) != 0)
        return err_set(e, ERR_MODEL, "%.300s: this is no importance matrix; zgen imatrix makes one",
                       gguf_label(g));
    m->n_chunks = (int)n_chunks;
    m->dataset = n ? copy_text(names[0].data, names[0].n) : mem_string("");
    return true;
}

static bool read_gguf(const Gguf *g, Imatrix *m, Err *e) {
    if (!read_keys(g, m, e)) return false;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        if (ends_with(t->name, SUMS) && !read_tensor(g, t, m, e)) return false;
    }
    return true;
}

/* ---- the old form --------------------------------------------------------------------------------------- */

/* A length that is at least 1, of which each one takes `size` bytes of the file. */
static bool read_length(Cursor *c, const char *what, size_t size, uint32_t max, uint32_t *out) {
    if (!cursor_u32(c, out)) return false;
    if (*out == 0 || *out > max || *out > cursor_left(c) / size)
        return cursor_refuse(c, "has a %s of %" PRIu32 ", with %zu bytes left", what, *out, cursor_left(c));
    return true;
}

/* name, number of calls, values: sums of means over the calls. */
static bool read_old_entry(Cursor *c, Imatrix *m) {
    uint32_t n_name, n_calls, n;
    const uint8_t *name, *values;
    if (!read_length(c, "name's length", 1, NAME_MAX_BYTES, &n_name) || !(name = cursor_take(c, n_name)))
        return false;
    if (memchr(name, 0, n_name)) return cursor_refuse(c, "has a NUL in its name");
    if (!cursor_u32(c, &n_calls) || !read_length(c, "number of values", 4, INT32_MAX, &n) ||
        !(values = cursor_take(c, 4 * (uint64_t)n)))
        return false;
    ImatrixEntry *entry = add_entry(m, (const char *)name, n_name, n);
    memcpy(entry->mean, values, 4 * (size_t)n);
    for (uint32_t i = 0; n_calls && i < n; i++) entry->mean[i] /= (float)n_calls;
    return true;
}

/* Newer files have the number of chunks and the data set behind the entries. */
static bool read_old_end(Cursor *c, Imatrix *m) {
    uint32_t n_chunks, n;
    const uint8_t *dataset;
    if (cursor_left(c) == 0) return true;
    cursor_in(c, "the end");
    if (!cursor_u32(c, &n_chunks) || !cursor_u32(c, &n)) return false;
    if (n > DATASET_MAX) return cursor_refuse(c, "has a data set's name of %" PRIu32 " bytes", n);
    if (!(dataset = cursor_take(c, n))) return false;
    m->n_chunks = (int)(n_chunks & INT32_MAX);
    m->dataset = copy_text(dataset, n);
    return true;
}

static bool read_old(const uint8_t *bytes, size_t n, const char *label, Imatrix *m, Err *e) {
    Cursor c = {.data = bytes, .size = n, .label = label, .err = e};
    uint32_t n_entries;
    cursor_in(&c, "the importance matrix");
    if (!read_length(&c, "number of entries", 13, INT32_MAX, &n_entries)) return false;
    for (uint32_t i = 0; i < n_entries; i++) {
        cursor_in(&c, "entry %" PRIu32 " of the importance matrix", i);
        if (!read_old_entry(&c, m)) return false;
    }
    return read_old_end(&c, m);
}

/* ---- open ----------------------------------------------------------------------------------------------- */

bool imatrix_open_bytes(const void *bytes, size_t n, const char *label, Imatrix *out, Err *e) {
    Gguf *g = NULL;
    bool ok;
    *out = (Imatrix){0};
    if (n >= 4 && memcmp(bytes, "GGUF", 4) == 0)
        ok = gguf_open_bytes(bytes, n, label, &g, e) && read_gguf(g, out, e);
    else if (magic_is_imatrix(bytes, n))
        ok = read_old(bytes, n, label, out, e);
    else
        ok = err_set(e, ERR_MODEL, "%.300s: this is no importance matrix; zgen imatrix makes one", label);
    gguf_close(g);
    ok = ok && finish(out, label, e);
    if (!ok) imatrix_close(out);
    return ok;
}

bool imatrix_open(const char *path, Imatrix *out, Err *e) {
    Map map = {0};
    *out = (Imatrix){0};
    bool ok = map_open(path, "an importance matrix", &map, e) &&
              imatrix_open_bytes(map.data, map.size, path, out, e);
    map_close(&map);
    return ok;
}

/* ---- write ---------------------------------------------------------------------------------------------- */

static void add_floats(Buf *out, const ImatrixSums *s, bool counts) {
    size_t n = (size_t)s->n_mat * (counts ? 1 : (size_t)s->n_in);
    for (size_t i = 0; i < n; i++) {
        float x = counts ? (float)s->counts[i] : (float)s->squares[i];
        buf_add(out, &x, sizeof x);
    }
    static const uint8_t zeros[GGUF_ALIGNMENT];
    buf_add(out, zeros, (GGUF_ALIGNMENT - 4 * n % GGUF_ALIGNMENT) % GGUF_ALIGNMENT);
}

void imatrix_write(const ImatrixSums *sums, size_t n, const char *dataset, int n_chunks, int chunk,
                   Buf *out) {
    GgufWriter w = {0};
    gguf_write_string(&w, "general.type", "imatrix");
    gguf_write_element(gguf_write_array(&w, "imatrix.datasets", GGUF_ARRAY_STRING, 1), dataset,
                       strlen(dataset));
    gguf_write_u32(&w, "imatrix.chunk_count", (uint32_t)n_chunks);
    gguf_write_u32(&w, "imatrix.chunk_size", (uint32_t)chunk);
    for (size_t i = 0; i < n; i++) {
        char name[100];
        snprintf(name, sizeof name, "%s%s", sums[i].name, SUMS);
        gguf_write_tensor(&w, name, QUANT_F32, 2, (int64_t[]){sums[i].n_in, sums[i].n_mat});
        snprintf(name, sizeof name, "%s%s", sums[i].name, COUNTS);
        gguf_write_tensor(&w, name, QUANT_F32, 2, (int64_t[]){1, sums[i].n_mat});
    }
    gguf_write_header(&w, out);
    for (size_t i = 0; i < n; i++) {
        add_floats(out, &sums[i], false);
        add_floats(out, &sums[i], true);
    }
}
