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
    float *importance;  // [ne[2]][ne[0]], means of 1; NULL: none
    int file;           // of the new ones
    uint64_t offset, scale_offset;
    int64_t n_rows, rows; // of the tensor, of a slice
    int64_t first_slice;
} Entry;

typedef struct Squares { // over a slice
    double error, value;
} Squares;

typedef struct File { // a new one
    Buf header;
    uint64_t n_bytes;
} File;

struct Quantize {
    const Gguf *g;
    const QuantizeTask *task;
    Weights *weights; // of g
    File *files;      // [n_files]
    int n_files;
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

static bool read_model(const Gguf *g, bool has_importance, MixModel *out, Err *e) {
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
    *out = (MixModel){.n_layer = (int)n_layer, .n_expert = (int)n_expert, .has_importance = has_importance};
    out->is_70b = n_layer == 80 && n && n_kv && n_head[0] != n_kv_head[0];
    if (n && n_kv && n_kv_head[0] > 0) out->n_shared = (int)(n_head[0] / n_kv_head[0]);
    return true;
}

static bool is_quantized(QuantType type) {
    return quant_traits(type)->act == QUANT_ACT_Q8 || type == QUANT_FP8_E4M3;
}

/* The values of one matrix divided by their mean, so that their products stay in the range of floats.  Columns
 * that saw almost nothing keep a little weight: another text may use them. */
static void normalise(const float *mean, int64_t n, float *out) {
    const double LEAST = 1e-4; // of the mean
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += mean[i];
    for (int64_t i = 0; i < n; i++) out[i] = sum > 0 ? (float)fmax(mean[i] * (double)n / sum, LEAST) : 1;
}

/* Finds the importance of a tensor that is encoded in blocks.  false: ERR_USAGE, the matrix is of another
 * model. */
static bool find_importance(const Quantize *q, Entry *entry, Err *e) {
    const Imatrix *m = q->task->importance;
    const GgufTensor *t = entry->about.source;
    const ImatrixEntry *found = m ? imatrix_find(m, t->name) : NULL;
    if (!found || !is_quantized(entry->about.to) || entry->about.to == QUANT_FP8_E4M3) return true;
    if (found->n != (size_t)(t->ne[0] * t->ne[2]))
        return err_set(e, ERR_USAGE,
                       "%s: tensor '%s' has %" PRId64
                       " inputs, the importance matrix has %zu; it is of another model",
                       gguf_label(q->g), t->name, t->ne[0] * t->ne[2], found->n);
    entry->importance = mem_new(found->n, sizeof *entry->importance);
    for (int64_t i = 0; i < t->ne[2]; i++)
        normalise(found->mean + i * t->ne[0], t->ne[0], entry->importance + i * t->ne[0]);
    entry->about.is_weighed = true;
    return true;
}

/* Plans the entry of tensor t; to == t->type: it is copied. */
static bool plan_entry(const Quantize *q, const GgufTensor *t, QuantType to, Entry *out, Err *e) {
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
    if (is_quantized(w->type) && !q->task->requantize)
        return err_set(
            e, ERR_USAGE,
            "%s: tensor '%s' is quantised already (%s), and quantising again loses more; take the F16 or "
            "F32 model, or give --requantize",
            gguf_label(q->g), t->name, quant_traits(w->type)->name);
    return find_importance(q, out, e);
}

/* The importance matrix is of this model if a tensor has values in it. */
static bool check_importance(const Quantize *q, Err *e) {
    const QuantizeTask *t = q->task;
    if (!t->importance)
        return !t->mix->needs_importance ||
               err_set(e, ERR_USAGE,
                       "a model in %s is of no use without an importance matrix: give --imatrix FILE; "
                       "zgen imatrix makes one",
                       t->mix->name);
    for (int64_t i = 0; i < gguf_n_tensors(q->g); i++)
        if (imatrix_find(t->importance, gguf_tensor(q->g, i)->name)) return true;
    return err_set(e, ERR_USAGE, "%s has no tensor of the importance matrix, which is of another model",
                   gguf_label(q->g));
}

/* Plans all entries; scales that are multiplied in have none. */
static bool plan_entries(Quantize *q, Err *e) {
    const QuantizeTask *task = q->task;
    int64_t n = gguf_n_tensors(q->g);
    const GgufTensor *tensors = n ? gguf_tensor(q->g, 0) : NULL;
    QuantType *types = mem_new(2 * (size_t)n, sizeof *types), *wanted = types + n;
    bool *is_folded = mem_new((size_t)n, sizeof *is_folded);
    char name[WEIGHT_NAME];
    MixModel model;
    q->entries = mem_new((size_t)n, sizeof *q->entries);
    bool ok = check_importance(q, e) && read_model(q->g, task->importance, &model, e);
    if (ok) mix_types(task->mix, &task->wishes, &model, tensors, n, types, wanted);
    for (int64_t i = 0; ok && i < n; i++) {
        Entry *entry = &q->entries[q->n_entries++];
        ok = plan_entry(q, &tensors[i], types[i], entry, e);
        entry->about.wanted = wanted[i];
        if (entry->scale)
            is_folded[gguf_find_tensor(q->g, weight_scale_name(tensors[i].name, name)) - tensors] = true;
    }
    int64_t n_left = 0;
    for (int64_t i = 0; i < q->n_entries; i++) // entry i is of tensor i so far
        if (!is_folded[i]) q->entries[n_left++] = q->entries[i];
    q->n_entries = n_left;
    free(is_folded);
    free(types);
    return ok;
}

/* ---- the files ------------------------------------------------------------------------------------------ */

static bool begins_with(GgufString key, const char *word) {
    return key.n >= strlen(word) && memcmp(key.data, word, strlen(word)) == 0;
}

/* Whether a key is not copied: the new file has its own value, or none. */
static bool is_replaced(const QuantizeTask *task, GgufString key) {
    static const char *const always[] = {"general.alignment", "split.", "zgen.fp8.format"},
                             *const by_type[] = {"general.file_type", "general.quantization_version"};
    for (int i = 0; i < 3; i++)
        if (begins_with(key, always[i])) return true;
    for (int i = 0; i < 2 && !task->mix->is_copy; i++)
        if (begins_with(key, by_type[i])) return true;
    return task->importance && begins_with(key, "quantize.imatrix.");
}

static bool has_fp8(const Quantize *q) {
    bool in_source = gguf_has(q->g, "zgen.fp8.format");
    for (int64_t i = 0; i < q->n_entries; i++) {
        QuantType to = q->entries[i].about.to;
        if (to == QUANT_FP8_E4M3 || (in_source && to == QUANT_I8)) return true;
    }
    return false;
}

static void plan_keys(const Quantize *q, GgufWriter *w) {
    const QuantizeTask *task = q->task;
    int file_type = file_type_number(task->mix->name);
    for (int64_t i = 0; i < gguf_n_keys(q->g); i++)
        if (!is_replaced(task, gguf_key(q->g, i))) gguf_write_copy(w, q->g, i);
    if (has_fp8(q)) gguf_write_string(w, "zgen.fp8.format", "e4m3");
    if (task->importance) {
        gguf_write_string(w, "quantize.imatrix.file", task->importance_path);
        gguf_write_string(w, "quantize.imatrix.dataset", task->importance->dataset);
        gguf_write_u32(w, "quantize.imatrix.entries_count", (uint32_t)task->importance->n);
        gguf_write_u32(w, "quantize.imatrix.chunks_count", (uint32_t)task->importance->n_chunks);
    }
    if (task->mix->is_copy) return;
    if (file_type >= 0) gguf_write_u32(w, "general.file_type", (uint32_t)file_type);
    gguf_write_u32(w, "general.quantization_version", 2);
}

static uint64_t bytes_of(QuantType type, uint64_t n) {
    const QuantTraits *traits = quant_traits(type);
    return n / (uint64_t)traits->n_weights * traits->n_bytes;
}

/* Whether entry i begins another file than the entries from `first` to it, which have n_bytes. */
static bool begins_file(const Quantize *q, int64_t first, uint64_t n_bytes, int64_t i) {
    const QuantizeSplit *s = &q->task->split;
    const GgufTensor *t = q->entries[i].about.source;
    uint64_t more = bytes_of(q->entries[i].about.to, (uint64_t)(t->ne[0] * q->entries[i].n_rows));
    if (i == first) return false;
    if (s->as_source)
        return gguf_tensor_shard(q->g, t) != gguf_tensor_shard(q->g, q->entries[i - 1].about.source);
    return (s->max_bytes && n_bytes + more > s->max_bytes) || (s->max_tensors && i - first >= s->max_tensors);
}

/* Gives each entry its file. */
static bool plan_files(Quantize *q, Err *e) {
    const QuantizeSplit *s = &q->task->split;
    uint64_t n_bytes = 0;
    int64_t first = 0;
    int file = s->first_is_empty && q->n_entries;
    for (int64_t i = 0; i < q->n_entries; i++) {
        if (begins_file(q, first, n_bytes, i)) {
            file++;
            first = i;
            n_bytes = 0;
        }
        const GgufTensor *t = q->entries[i].about.source;
        n_bytes += bytes_of(q->entries[i].about.to, (uint64_t)(t->ne[0] * q->entries[i].n_rows));
        q->entries[i].file = file;
        if (file >= QUANTIZE_MAX_FILES)
            return err_set(e, ERR_USAGE, "more than %d files; let each have more tensors",
                           QUANTIZE_MAX_FILES);
    }
    q->n_files = file + 1;
    q->files = mem_new((size_t)q->n_files, sizeof *q->files);
    return true;
}

/* Sets the offset of an entry in the new file, and its slices. */
static void plan_offset(Quantize *q, Entry *entry, GgufWriter *w) {
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

static int64_t n_tensors(const Quantize *q) { // of the new files, with the scales of FP8
    int64_t n = q->n_entries;
    for (int64_t i = 0; i < q->n_entries; i++) {
        const Quantized *t = &q->entries[i].about;
        n += t->to == QUANT_FP8_E4M3 && t->from != t->to;
    }
    return n;
}

static void plan_file(Quantize *q, int file, int64_t *next) {
    GgufWriter w = {0};
    if (file == 0) plan_keys(q, &w);
    if (q->n_files > 1) {
        gguf_write_u16(&w, "split.no", (uint16_t)file);
        gguf_write_u16(&w, "split.count", (uint16_t)q->n_files);
        gguf_write_i32(&w, "split.tensors.count", (int32_t)n_tensors(q));
    }
    for (; *next < q->n_entries && q->entries[*next].file == file; ++*next)
        plan_offset(q, &q->entries[*next], &w);
    q->files[file].n_bytes = w.data_bytes;
    gguf_write_header(&w, &q->files[file].header);
    q->files[file].n_bytes += q->files[file].header.n;
}

bool quantize_open(const Gguf *g, const QuantizeTask *task, Quantize **out, Err *e) {
    Quantize *q = mem_new(1, sizeof *q);
    int64_t next = 0;
    q->g = g;
    q->task = task;
    q->weights = weights_open(g);
    *out = NULL;
    if (!plan_entries(q, e) || !plan_files(q, e)) {
        quantize_close(q);
        return false;
    }
    for (int i = 0; i < q->n_files; i++) plan_file(q, i, &next);
    q->sums = mem_new((size_t)q->n_slices, sizeof *q->sums);
    *out = q;
    return true;
}

void quantize_close(Quantize *q) {
    if (!q) return;
    weights_close(q->weights);
    for (int i = 0; i < q->n_files; i++) buf_free(&q->files[i].header);
    for (int64_t i = 0; i < q->n_entries; i++) free(q->entries[i].importance);
    free(q->files);
    free(q->entries);
    free(q->sums);
    free(q);
}

uint64_t quantize_bytes(const Quantize *q) {
    uint64_t n = 0;
    for (int i = 0; i < q->n_files; i++) n += q->files[i].n_bytes;
    return n;
}
int quantize_n_files(const Quantize *q) {
    return q->n_files;
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
    const int *fds; // of the files
    char *const *names;
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

static bool write_at(const Work *w, int file, const void *bytes, size_t n, uint64_t at, Err *e) {
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(w->fds[file], (const char *)bytes + done, n - done, (off_t)(at + done));
        if (k > 0)
            done += (size_t)k;
        else if (k == 0 || errno != EINTR)
            return cannot(w->names[file], e);
    }
    return true;
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

/* Encodes the slice to blocks, each row with the importance of its matrix. */
static void encode_blocks(Slice *p) {
    const Entry *entry = p->entry;
    const GgufTensor *t = entry->about.source;
    QuantType to = entry->about.to;
    size_t width = (size_t)t->ne[0], n_blocks = width / (size_t)quant_traits(to)->n_weights;
    for (int64_t r = 0; r < p->n_rows; r++) {
        int64_t matrix = (p->first_row + r) / t->ne[1] % t->ne[2];
        quant_encode(to, p->values + (size_t)r * width,
                     entry->importance ? entry->importance + matrix * t->ne[0] : NULL, n_blocks,
                     p->bytes + (size_t)r * bytes_of(to, width));
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
        encode_blocks(p);
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
    uint64_t row = (uint64_t)p->first_row, data = w->q->files[entry->file].header.n;
    const uint8_t *bytes = t->source->data + row * row_bytes;
    if (quant_traits(t->from)->decode && !read_slice(p, e)) return false;
    if (t->from != t->to) {
        if (!encode_slice(p, sums, e)) return false;
        bytes = p->bytes;
    }
    return (!entry->scale_offset || write_at(w, entry->file, p->scales, 4 * (size_t)p->n_rows,
                                             data + entry->scale_offset + 4 * row, e)) &&
           write_at(w, entry->file, bytes, n_bytes, data + entry->offset + row * row_bytes, e);
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
static bool reserve(const File *f, int fd, const char *name, Err *e) {
    if (fallocate(fd, 0, 0, (off_t)f->n_bytes) == 0) return true;
    if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
        return err_set(e, ERR_OUTPUT, "cannot write the %.3f GB of %.500s: %s", (double)f->n_bytes / 1e9,
                       name, strerror(errno));
    return ftruncate(fd, (off_t)f->n_bytes) == 0 || errno == EINVAL || cannot(name, e);
}

static bool begin_files(const Work *w, Err *e) {
    for (int i = 0; i < w->q->n_files; i++) {
        const File *f = &w->q->files[i];
        if (!reserve(f, w->fds[i], w->names[i], e) || !write_at(w, i, f->header.data, f->header.n, 0, e))
            return false;
    }
    return true;
}

bool quantize_run(Quantize *q, const int *fds, char *const *names, int n_threads,
                  bool (*go_on)(void *arg, double share), void *arg, Err *e) {
    Work w = {.q = q, .fds = fds, .names = names, .go_on = go_on, .arg = arg, .failed_slice = q->n_slices};
    if (!begin_files(&w, e)) return false;
    pthread_mutex_init(&w.lock, NULL);
    Pool *pool = pool_open(n_threads);
    pool_run(pool, work, &w);
    pool_close(pool);
    pthread_mutex_destroy(&w.lock);
    if (w.failed_slice < q->n_slices) *e = w.failure;
    if (!w.stop) sum_up(q);
    return !w.stop;
}
