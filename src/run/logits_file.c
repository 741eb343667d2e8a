/* logits_file: see logits_file.h. */
#include "logits_file.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "_logits_"

enum {
    MAGIC_BYTES = sizeof MAGIC - 1,
    HEAD_BYTES = MAGIC_BYTES + 12,
    DEPTH = 16, // how far below the likeliest token a row reaches, in nats
    STEPS = 65535,
    COUNT_MAX = 1 << 30, // in the header
};

size_t logits_file_row_bytes(int n_vocab) {
    return 8 + 2 * ((size_t)n_vocab + (size_t)n_vocab % 2);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

static void put_u32(Buf *out, uint32_t x) {
    uint8_t bytes[4];
    store_u32(bytes, x);
    buf_add(out, bytes, sizeof bytes);
}

void logits_file_head(int n_ctx, int n_vocab, int n_windows, const int32_t *ids, Buf *out) {
    buf_add(out, MAGIC, MAGIC_BYTES);
    put_u32(out, (uint32_t)n_ctx);
    put_u32(out, (uint32_t)n_vocab);
    put_u32(out, (uint32_t)n_windows);
    for (size_t i = 0; i < (size_t)n_windows * (size_t)n_ctx; i++) put_u32(out, (uint32_t)ids[i]);
}

/* In float, as in llama-perplexity: the same logits become the same bytes. */
void logits_file_encode(const float *logits, int n_vocab, double log_sum, uint8_t *row) {
    float max = logits[0], min = logits[0];
    for (int i = 1; i < n_vocab; i++) {
        max = fmaxf(max, logits[i]);
        min = fminf(min, logits[i]);
    }
    min = fmaxf(min, max - DEPTH);
    float scale = (max - min) / STEPS, inverse = scale > 0 ? 1 / scale : 0;
    store_u32(row, f32_to_bits(scale));
    store_u32(row + 4, f32_to_bits((float)(min - log_sum)));
    memset(row + 8, 0, logits_file_row_bytes(n_vocab) - 8);
    for (int i = 0; i < n_vocab; i++)
        if (logits[i] > min)
            store_u16(row + 8 + 2 * (size_t)i, (uint16_t)lrintf(inverse * (logits[i] - min)));
}

/* ---- reading ------------------------------------------------------------------------------------------ */

const uint8_t *logits_file_row(const LogitsFile *f, int row) {
    return f->rows + (size_t)row * logits_file_row_bytes(f->n_vocab);
}

bool logits_file_damaged(const LogitsFile *f, const char *what, Err *e) {
    return err_set(e, ERR_RUN, "%.300s: %s; the file is damaged, make it again with --save-logits", f->path,
                   what);
}

bool logits_row_is_cut(const uint8_t *row, int id) {
    return logits_row_step(row, id) == 0 && logits_row_scale(row) * STEPS > DEPTH - 0.01;
}

/* Reads a count of the header: 1 to COUNT_MAX - 1. */
static bool read_count(const LogitsFile *f, int index, int *out, Err *e) {
    uint32_t x = load_u32(f->map.data + MAGIC_BYTES + 4 * index);
    *out = (int)x;
    return (x > 0 && x < COUNT_MAX) || logits_file_damaged(f, "a count in its header is impossible", e);
}

static bool read_head(LogitsFile *f, Err *e) {
    if (f->map.size < HEAD_BYTES || memcmp(f->map.data, MAGIC, MAGIC_BYTES) != 0)
        return err_set(e, ERR_RUN,
                       "%.300s: not a file of log-probabilities; make one with --save-logits, or with "
                       "llama-perplexity --save-all-logits",
                       f->path);
    if (!read_count(f, 0, &f->n_ctx, e) || !read_count(f, 1, &f->n_vocab, e) ||
        !read_count(f, 2, &f->n_windows, e))
        return false;
    return f->n_ctx >= WINDOW_MIN ||
           err_set(e, ERR_RUN, "%.300s: its windows have %d tokens; zgen compares windows of %d or more",
                   f->path, f->n_ctx, WINDOW_MIN);
}

/* Whether the file has the size that its header states.  No product overflows: each factor is below a
 * quotient of the size first. */
static bool has_size(const LogitsFile *f) {
    size_t left = f->map.size - HEAD_BYTES, row = logits_file_row_bytes(f->n_vocab);
    if ((size_t)f->n_windows > left / 4 / (size_t)f->n_ctx) return false;
    size_t n_ids = (size_t)f->n_windows * (size_t)f->n_ctx,
           n_rows = (size_t)f->n_windows * (size_t)window_rows(f->n_ctx);
    left -= 4 * n_ids;
    return n_rows <= INT32_MAX && left % row == 0 && left / row == n_rows;
}

static bool read_ids(LogitsFile *f, Err *e) {
    size_t n = (size_t)f->n_windows * (size_t)f->n_ctx;
    f->ids = mem_new(n, sizeof *f->ids);
    f->rows = f->map.data + HEAD_BYTES + 4 * n;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = load_u32(f->map.data + HEAD_BYTES + 4 * i);
        if (id >= (uint32_t)f->n_vocab) return logits_file_damaged(f, "a token is not of its vocabulary", e);
        f->ids[i] = (int32_t)id;
    }
    return true;
}

bool logits_file_open(const char *path, LogitsFile *out, Err *e) {
    *out = (LogitsFile){.path = path};
    bool ok = map_open(path, "a file that --save-logits wrote", &out->map, e);
    if (!ok && e->code == ERR_MODEL) e->code = ERR_RUN; // the file is not a model
    ok = ok && read_head(out, e) &&
         (has_size(out) || logits_file_damaged(out, "its size is not what its header promises", e)) &&
         read_ids(out, e);
    if (!ok) logits_file_close(out);
    return ok;
}

void logits_file_close(LogitsFile *f) {
    map_close(&f->map);
    free(f->ids);
    *f = (LogitsFile){0};
}
