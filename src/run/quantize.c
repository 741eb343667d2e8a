/* quantize: see quantize.h.
 *
 * A tensor is cut into slices of whole rows, which threads take one after the other.  Sums of squares are
 * kept per slice and added in order. */
#include "quantize.h"
#include "../base/mem.h"
#include "../base/pool.h"
#include "../gguf/encode.h"
#include "../gguf/file_type.h"
#include "../gguf/write.h"
#include "../plan/weight.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SLICE = 1 << 16 }; // weights that a thread takes at once, or a row if that is longer

typedef struct Entry { // a tensor of the new file
    Quantized about;
    const float *scale; // [n_rows] factors of the source, multiplied in; NULL: none, or copied as a tensor
    uint64_t offset, scale_offset;
    int64_t n_rows, rows; // of the tensor, of a slice
    int64_t first_slice;
} Entry;

typedef struct Squares { // over a slice
    double error, value;
} Squares;

struct Quantize {
    const Gguf *g;
    Weights *weights; // of g
    Buf header;
    uint64_t n_bytes;
    Entry *entries;
    int64_t n_entries, n_slices;
    size_t slice_max; // weights in the largest
    Squares *sums;    // [n_slices]
};

/* ---- the plan ----------------------------------------------------------------------------------------- */

static const char *key_of(GgufString arch, const char *name, char *out, size_t size) {
    snprintf(out, size, "%.*s.%s", arch.n < 60 ? (int)arch.n : 60, arch.data, name);
    return out;
}

static bool read_model(const Gguf *g, MixModel *out, Err *e) {
    GgufString arch = {"", 0};
    char layers[100], experts[100], heads[100], kv_heads[100];
    const int64_t *n_head, *n_kv_head;
    size_t n, n_kv;
    int64_t n_layer = 0, n_expert = 0;
    bool ok =
        gguf_get_string(g, "general.architecture", &arch, e) &&
        gguf_get_int(g, key_of(arch, "block_count", layers, sizeof layers), 0, INT32_MAX, &n_layer, e) &&
        gguf_get_int(g, key_of(arch, "expert_count", experts, sizeof experts), 0, INT32_MAX, &n_expert, e) &&
        gguf_get_ints(g, key_of(arch, "attention.head_count", heads, sizeof heads), &n_head, &n, e) &&
        gguf_get_ints(g, key_of(arch, "attention.head_count_kv", kv_heads, sizeof kv_heads), &n_kv_head,
                      &n_kv, e);
    if (!ok) return false;
    *out = (MixModel){.n_layer = (int)n_layer, .n_expert = (int)n_expert};
    out->is_70b = n_layer == 80 && n && n_kv && n_head[0] != n_kv_head[0];
    return true;
}

static bool is_quantized(QuantType type) {
    return quant_traits(type)->act == QUANT_ACT_Q8 || type == QUANT_FP8_E4M3;
}

/* Plans the entry of tensor t; to == t->type: it is copied. */
static bool plan_entry(const Quantize *q, const GgufTensor *t, QuantType to, bool requantize, Entry *out,
                       Err *e) {
    *out = (Entry){.about = {.source = t, .from = t->type, .to = to, .rmse = NAN, .rms = NAN}};
    out->n_rows = t->ne[1] * t->ne[2] * t->ne[3];
    out->rows = t->ne[0] < SLICE ? SLICE / t->ne[0] : 1;
    if (to == t->type) return true;
    MatrixShape whole = matrix_whole((int)t->ne[0], (int)t->ne[1], (int)t->ne[2]);
    const Weight *w = weights_matrix(q->weights, t->name, whole, e);
    if (!w) return false;
    out->about.from = w->type;
    if (w->type == to) return true;
    out->scale = w->scale;
    return !is_quantized(w->type) || requantize ||
           err_set(
               e, ERR_USAGE,
               "%s: tensor '%s' is quantised already (%s), and quantising again loses more; take the F16 or "
               "F32 model, or give --requantize",
               gguf_label(q->g), t->name, quant_traits(w->type)->name);
}

/* Plans all entries; scales that are multiplied in have none. */
static bool plan_entries(Quantize *q, const Mix *mix, bool requantize, Err *e) {
    int64_t n = gguf_n_tensors(q->g);
    const GgufTensor *tensors = n ? gguf_tensor(q->g, 0) : NULL;
    QuantType *types = mem_new((size_t)n, sizeof *types);
    bool *is_folded = mem_new((size_t)n, sizeof *is_folded);
    Entry *all = mem_new((size_t)n, sizeof *all);
    char name[WEIGHT_NAME];
    MixModel model;
    bool ok = read_model(q->g, &model, e);
    if (ok) mix_types(mix, &model, tensors, n, types);
    for (int64_t i = 0; ok && i < n; i++) {
        ok = plan_entry(q, &tensors[i], types[i], requantize, &all[i], e);
        if (all[i].scale)
            is_folded[gguf_find_tensor(q->g, weight_scale_name(tensors[i].name, name)) - tensors] = true;
    }
    for (int64_t i = 0; i < n; i++)
        if (!is_folded[i]) all[q->n_entries++] = all[i];
    q->entries = all;
    free(is_folded);
    free(types);
    return ok;
}

static bool is_replaced(GgufString key) { // is not copied: the new file has its own value, or none
    static const char *const keys[] = {
        "general.file_type", "general.quantization_version", "general.alignment", "split.no",
        "split.count",       "split.tensors.count",          "zgen.fp8.format"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (key.n == strlen(keys[i]) && memcmp(key.data, keys[i], key.n) == 0) return true;
    return false;
}

static void plan_keys(const Quantize *q, const Mix *mix, GgufWriter *w) {
    bool has_fp8 = false;
    for (int64_t i = 0; i < q->n_entries; i++) has_fp8 |= q->entries[i].about.to == QUANT_FP8_E4M3;
    for (int64_t i = 0; i < gguf_n_keys(q->g); i++)
        if (!is_replaced(gguf_key(q->g, i))) gguf_write_copy(w, q->g, i);
    if (has_fp8) gguf_write_string(w, "zgen.fp8.format", "e4m3");
    int file_type = file_type_number(mix->name);
    if (file_type >= 0) gguf_write_u32(w, "general.file_type", (uint32_t)file_type);
    gguf_write_u32(w, "general.quantization_version", 2);
}

/* Sets the offset of every entry in the new file, and its slices. */
static void plan_offsets(Quantize *q, GgufWriter *w) {
    for (int64_t i = 0; i < q->n_entries; i++) {
        Entry *entry = &q->entries[i];
        Quantized *t = &entry->about;
        uint64_t before = w->data_bytes;
        entry->offset = gguf_write_tensor(w, t->source->name, t->to, t->source->n_dims, t->source->ne);
        if (t->to == QUANT_FP8_E4M3 && t->from != t->to) {
            char name[WEIGHT_NAME];
            entry->scale_offset =
                gguf_write_tensor(w, weight_scale_name(t->source->name, name), QUANT_F32, 1, &entry->n_rows);
        }
        t->n_bytes = w->data_bytes - before;
        entry->first_slice = q->n_slices;
        q->n_slices += (entry->n_rows + entry->rows - 1) / entry->rows;
        size_t slice =
            (size_t)(entry->rows < entry->n_rows ? entry->rows : entry->n_rows) * (size_t)t->source->ne[0];
        if (slice > q->slice_max) q->slice_max = slice;
    }
}

bool quantize_open(const Gguf *g, const Mix *mix, bool requantize, Quantize **out, Err *e) {
    Quantize *q = mem_new(1, sizeof *q);
    GgufWriter w = {0};
    q->g = g;
    q->weights = weights_open(g);
    *out = NULL;
    if (!plan_entries(q, mix, requantize, e)) {
        quantize_close(q);
        return false;
    }
    plan_keys(q, mix, &w);
    plan_offsets(q, &w);
    q->n_bytes = w.data_bytes;
    gguf_write_header(&w, &q->header);
    q->n_bytes += q->header.n;
    q->sums = mem_new((size_t)q->n_slices, sizeof *q->sums);
    *out = q;
    return true;
}

void quantize_close(Quantize *q) {
    if (!q) return;
    weights_close(q->weights);
    buf_free(&q->header);
    free(q->entries);
    free(q->sums);
    free(q);
}

uint64_t quantize_bytes(const Quantize *q) {
    return q->n_bytes;
}
int64_t quantize_n_tensors(const Quantize *q) {
    return q->n_entries;
}
const Quantized *quantize_tensor(const Quantize *q, int64_t i) {
    return &q->entries[i].about;
}

/* ---- the work ----------------------------------------------------------------------------------------- */

typedef struct Work {
    Quantize *q;
    int fd;
    const char *name;
    bool (*go_on)(void *arg, double share);
    void *arg;
    atomic_llong next; // slice
    atomic_bool stop;
    pthread_mutex_t lock;
    int64_t failed_slice; // the first one that failed, and why; n_slices: none
    Err failure;
} Work;

typedef struct Slice { // rows of one entry, and a thread's buffers for them
    const Entry *entry;
    int64_t first_row, n_rows;
    size_t n; // weights
    float *values, *again, *scales;
    uint8_t *bytes;
} Slice;

static bool cannot(const char *name, Err *e) {
    return err_set(e, ERR_OUTPUT, "cannot write to %.500s: %s", name, strerror(errno));
}

static bool write_at(const Work *w, const void *bytes, size_t n, uint64_t at, Err *e) {
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(w->fd, (const char *)bytes + done, n - done, (off_t)(at + done));
        if (k > 0)
            done += (size_t)k;
        else if (k == 0 || errno != EINTR)
            return cannot(w->name, e);
    }
    return true;
}

static size_t bytes_of(QuantType type, size_t n) {
    const QuantTraits *traits = quant_traits(type);
    return n / (size_t)traits->n_weights * traits->n_bytes;
}

static bool read_slice(Slice *p, Err *e) {
    const Quantized *t = &p->entry->about;
    size_t width = (size_t)t->source->ne[0];
    const QuantTraits *traits = quant_traits(t->from);
    traits->decode(t->source->data + bytes_of(t->from, width) * (size_t)p->first_row,
                   p->n / (size_t)traits->n_weights, p->values);
    for (size_t i = 0; i < p->n; i++) {
        int64_t row = p->first_row + (int64_t)(i / width);
        if (p->entry->scale) p->values[i] *= p->entry->scale[row];
        if (!isfinite(p->values[i]))
            return err_set(e, ERR_MODEL,
                           "tensor '%s' (%s to %s) holds a value that is not finite in row %" PRId64
                           "; the model is damaged",
                           t->source->name, traits->name, quant_traits(t->to)->name, row);
    }
    return true;
}

static void encode_fp8(Slice *p) {
    size_t width = (size_t)p->entry->about.source->ne[0];
    for (int64_t r = 0; r < p->n_rows; r++) {
        float *x = p->values + (size_t)r * width, *y = p->again + (size_t)r * width;
        uint8_t *out = p->bytes + (size_t)r * width;
        p->scales[r] = quant_fp8_row(x, width, out);
        quant_traits(QUANT_FP8_E4M3)->decode(out, width, y);
        for (size_t i = 0; i < width; i++) y[i] *= p->scales[r];
    }
}

/* Encodes the slice, and decodes it again to measure the error. */
static bool encode_slice(Slice *p, Squares *sums, Err *e) {
    const Quantized *t = &p->entry->about;
    const QuantTraits *traits = quant_traits(t->to);
    size_t n_blocks = p->n / (size_t)traits->n_weights;
    if (t->to == QUANT_FP8_E4M3) {
        encode_fp8(p);
    } else {
        quant_encode(t->to, p->values, n_blocks, p->bytes);
        traits->decode(p->bytes, n_blocks, p->again);
    }
    for (size_t i = 0; i < p->n; i++) {
        double x = p->values[i], error = p->again[i] - x;
        if (!isfinite(error))
            return err_set(
                e, ERR_MODEL,
                "tensor '%s' (%s to %s) holds %g, which is beyond the range of %s; take BF16 or F32",
                t->source->name, quant_traits(t->from)->name, traits->name, x, traits->name);
        sums->error += error * error;
        sums->value += x * x;
    }
    return true;
}

static bool convert(const Work *w, Slice *p, Squares *sums, Err *e) {
    const Entry *entry = p->entry;
    const Quantized *t = &entry->about;
    size_t row_bytes = bytes_of(t->to, (size_t)t->source->ne[0]), n_bytes = row_bytes * (size_t)p->n_rows;
    uint64_t row = (uint64_t)p->first_row, data = w->q->header.n;
    const uint8_t *bytes = t->source->data + row * row_bytes;
    if (quant_traits(t->from)->decode && !read_slice(p, e)) return false;
    if (t->from != t->to) {
        if (!encode_slice(p, sums, e)) return false;
        bytes = p->bytes;
    }
    return (!entry->scale_offset ||
            write_at(w, p->scales, 4 * (size_t)p->n_rows, data + entry->scale_offset + 4 * row, e)) &&
           write_at(w, bytes, n_bytes, data + entry->offset + row * row_bytes, e);
}

/* The entry that a slice belongs to: the last that does not begin behind it. */
static const Entry *find_entry(const Quantize *q, int64_t slice) {
    int64_t low = 0, high = q->n_entries;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *(q->entries[middle].first_slice <= slice ? &low : &high) = middle;
    }
    return &q->entries[low];
}

static void locate_slice(Slice *p, const Entry *entry, int64_t slice) {
    int64_t width = entry->about.source->ne[0];
    p->entry = entry;
    p->first_row = (slice - entry->first_slice) * entry->rows;
    p->n_rows = entry->n_rows - p->first_row < entry->rows ? entry->n_rows - p->first_row : entry->rows;
    p->n = (size_t)(p->n_rows * width);
}

static void fail(Work *w, int64_t slice, const Err *e) {
    pthread_mutex_lock(&w->lock);
    if (slice < w->failed_slice) {
        w->failed_slice = slice;
        w->failure = *e;
    }
    pthread_mutex_unlock(&w->lock);
    w->stop = true;
}

static void work(void *arg, int thread) {
    Work *w = arg;
    size_t max = w->q->slice_max;
    Slice p = {.values = mem_new(max, 4),
               .again = mem_new(max, 4),
               .scales = mem_new(max, 4),
               .bytes = mem_new(max, 4)};
    Err e;
    for (int64_t i; !w->stop && (i = atomic_fetch_add(&w->next, 1)) < w->q->n_slices;) {
        locate_slice(&p, find_entry(w->q, i), i);
        if (!convert(w, &p, &w->q->sums[i], &e)) fail(w, i, &e);
        if (thread == 0 && !w->go_on(w->arg, (double)i / (double)w->q->n_slices)) w->stop = true;
    }
    free(p.values);
    free(p.again);
    free(p.scales);
    free(p.bytes);
}

/* Adds up the sums of the slices of each tensor. */
static void sum_up(Quantize *q) {
    for (int64_t i = 0; i < q->n_entries; i++) {
        Quantized *t = &q->entries[i].about;
        int64_t end = i + 1 < q->n_entries ? q->entries[i + 1].first_slice : q->n_slices;
        double n = (double)(q->entries[i].n_rows * t->source->ne[0]), error = 0, value = 0;
        for (int64_t k = q->entries[i].first_slice; k < end; k++) {
            error += q->sums[k].error;
            value += q->sums[k].value;
        }
        if (t->from == t->to) continue;
        t->rmse = sqrt(error / n);
        t->rms = sqrt(value / n);
    }
}

/* Reserves the whole file, where the file system can: a full disk fails before any work is done. */
static bool reserve(const Quantize *q, int fd, const char *name, Err *e) {
    if (fallocate(fd, 0, 0, (off_t)q->n_bytes) == 0) return true;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return err_set(e, ERR_OUTPUT, "cannot write the %.3f GB of %.500s: %s", (double)q->n_bytes / 1e9,
                       name, strerror(errno));
    return ftruncate(fd, (off_t)q->n_bytes) == 0 || errno == EINVAL || cannot(name, e);
}

bool quantize_run(Quantize *q, int fd, const char *name, int n_threads,
                  bool (*go_on)(void *arg, double share), void *arg, Err *e) {
    Work w = {.q = q, .fd = fd, .name = name, .go_on = go_on, .arg = arg, .failed_slice = q->n_slices};
    if (!reserve(q, fd, name, e) || !write_at(&w, q->header.data, q->header.n, 0, e)) return false;
    pthread_mutex_init(&w.lock, NULL);
    Pool *pool = pool_open(n_threads);
    pool_run(pool, work, &w);
    pool_close(pool);
    pthread_mutex_destroy(&w.lock);
    if (w.failed_slice < q->n_slices) *e = w.failure;
    if (!w.stop) sum_up(q);
    return !w.stop;
}
