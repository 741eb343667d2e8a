/* plan, hostile: well-formed files whose models make no sense.
 *
 * A good model is taken apart and written again with one thing changed: a key, a tensor's name, shape, type or bytes.  The
 * plan must be refused with a sentence that names the culprit, before anything is computed.  Then every byte of the
 * hyper-parameters and the tensor table is changed blindly, in a child with little memory and an alarm: whatever still
 * counts as a model must run. */
#include "rig.h"
#include "gguf_writer.h"

#include <math.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define DENSE "test/data/models/llama-s-Q8_0.gguf"
#define EXPERTS "test/data/models/llama-moe-Q4_0.gguf"
#define BIASES "test/data/models/llama-bias-F16.gguf"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

/* ---- A model with one thing changed ---- */

typedef enum Change { KEEP, DROP, RENAME, RESHAPE, RETYPE, POKE, ADD } Change;

enum { NO_VALUE = 100 }; // instead of a value type: the key is left out

typedef struct Edit {
    const char *key; // gets the value, NULL for none
    uint32_t type;   // of the value, or of its elements
    double number;
    const char *text;
    int n; // not 0: an array of n times number; -1: an empty one
    const char *also_dropped; // another key to leave out
    const char *tensor;
    Change change;
    const char *name;        // RENAME
    uint64_t dims[4];        // RESHAPE
    uint32_t tensor_type;    // RETYPE
    uint32_t word;           // POKE: the first four bytes of the data
    const char *says;        // expected in the refusal
} Edit;

static void put_number(Buf *b, uint32_t type, double x) {
    float f = (float)x;
    if (type == F32) put(b, &f, 4);
    else if (type == F64) put(b, &x, 8);
    else if (type == U64 || type == I64) put_u64(b, (uint64_t)(int64_t)x);
    else if (type == U8 || type == I8 || type == BOOL) put(b, &(uint8_t){(uint8_t)(int)x}, 1);
    else put_u32(b, (uint32_t)(int64_t)x);
}

static void put_edit_key(Buf *b, const Edit *e) {
    if (e->n) {
        put_array(b, e->key, e->type, e->n < 0 ? 0 : (uint64_t)e->n);
        for (int i = 0; i < e->n; i++) put_number(b, e->type, e->number);
    } else if (e->type == STRING) put_key_string(b, e->key, e->text);
    else {
        put_key(b, e->key, e->type, NULL, 0);
        put_number(b, e->type, e->number);
    }
}

/* Where key i begins in the file, and the table of tensors for i = n_keys. */
static size_t key_offset(const Gguf *g, const Buf *file, int64_t i) {
    if (i < gguf_n_keys(g)) return (size_t)(gguf_key(g, i).data - file->data) - 8;
    size_t from = key_offset(g, file, i - 1);
    const char *name = gguf_tensor(g, 0)->name;
    const char *at = memmem(file->data + from, file->n - from, name, strlen(name));
    return (size_t)(at - file->data) - 8;
}

static void put_keys(Buf *out, const Gguf *g, const Buf *file, const Edit *e) {
    for (int64_t i = 0; i < gguf_n_keys(g); i++) {
        GgufString key = gguf_key(g, i);
        if ((e->key && text_is(key, e->key)) || (e->also_dropped && text_is(key, e->also_dropped))) continue;
        size_t from = key_offset(g, file, i);
        put(out, file->data + from, key_offset(g, file, i + 1) - from);
    }
    if (e->key && e->type != NO_VALUE) put_edit_key(out, e);
}

static uint64_t n_keys_left(const Gguf *g, const Edit *e) {
    uint64_t n = (uint64_t)gguf_n_keys(g);
    if (e->key) n += (e->type != NO_VALUE) - (uint64_t)gguf_has(g, e->key);
    if (e->also_dropped) n -= gguf_has(g, e->also_dropped);
    return n;
}

typedef struct Piece { // one tensor of the new file
    const char *name;
    uint64_t dims[4];
    uint32_t type;
    size_t n_bytes, n_old; // in the new file, and how many of the old data there are
    const uint8_t *data;
} Piece;

static Piece piece_of(const GgufTensor *t, const Edit *e) {
    Piece p = {.name = t->name, .type = t->type, .data = t->data, .n_old = (size_t)t->n_bytes};
    for (int k = 0; k < 4; k++) p.dims[k] = (uint64_t)t->ne[k];
    bool edited = e->tensor && strcmp(e->tensor, t->name) == 0;
    if (edited && e->change == RENAME) p.name = e->name;
    if (edited && e->change == RETYPE) p.type = e->tensor_type;
    for (int k = 0; edited && e->change == RESHAPE && k < 4; k++) p.dims[k] = e->dims[k] ? e->dims[k] : 1;
    const QuantTraits *traits = quant_traits(p.type);
    size_t n = p.dims[0] * p.dims[1] * p.dims[2] * p.dims[3];
    p.n_bytes = n / (size_t)traits->n_weights * traits->n_bytes;
    if (p.n_old > p.n_bytes) p.n_old = p.n_bytes;
    return p;
}

static void put_table(Buf *out, const Piece *p, int n) {
    uint64_t offset = 0;
    for (int i = 0; i < n; i++) {
        uint32_t n_dims = p[i].dims[3] > 1 ? 4 : p[i].dims[2] > 1 ? 3 : p[i].dims[1] > 1 ? 2 : 1;
        put_tensor(out, p[i].name, n_dims, p[i].dims, p[i].type, offset);
        offset += (p[i].n_bytes + 31) / 32 * 32;
    }
    pad(out, 32, 0);
}

/* Writes the model in `file`, opened as g, with the edit. */
static Buf rewrite(const Gguf *g, const Buf *file, const Edit *e) {
    Piece pieces[64];
    int n = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g) && n < 63; i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        if (e->change != DROP || strcmp(t->name, e->tensor) != 0) pieces[n++] = piece_of(t, e);
    }
    if (e->change == ADD) pieces[n++] = (Piece){e->tensor, {32, 1, 1, 1}, QUANT_F32, 128, 0, NULL};
    Buf out = {0};
    put_header(&out, 3, (uint64_t)n, n_keys_left(g, e));
    put_keys(&out, g, file, e);
    put_table(&out, pieces, n);
    for (int i = 0; i < n; i++) {
        bool poked = e->change == POKE && strcmp(pieces[i].name, e->tensor) == 0;
        if (poked) put_u32(&out, e->word);
        if (pieces[i].n_old) put(&out, pieces[i].data + 4 * poked, pieces[i].n_old - 4 * poked);
        for (size_t k = pieces[i].n_old; k < pieces[i].n_bytes; k++) put(&out, "", 1);
        pad(&out, 32, 0);
    }
    return out;
}

/* Builds the plan of the edited file.  false: *e; what could not even be opened counts as our own failure. */
static bool builds(const char *path, const Edit *edit, Err *e) {
    Buf file = {0}, edited = {0};
    Gguf *g, *h = NULL;
    bool ok = false;
    e->code = 0;
    if (!read_file(path, &file) || !gguf_open_bytes(file.data, file.n, path, &g, e)) {
        test_fail(__FILE__, __LINE__, "%s: %s", path, e->text);
        return false;
    }
    edited = rewrite(g, &file, edit);
    if (!gguf_open_bytes(edited.data, edited.n, "x.gguf", &h, e))
        test_fail(__FILE__, __LINE__, "%s %s: not even opened: %s", edit->key ? edit->key : "",
                  edit->tensor ? edit->tensor : "", e->text);
    else {
        Plan *p = plan_build(h, &cpu_exec.plan, e);
        ok = p != NULL;
        plan_free(p);
    }
    gguf_close(h);
    gguf_close(g);
    buf_free(&edited), buf_free(&file);
    return ok;
}

static void check_edits(const char *path, const Edit *edits, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const Edit *x = &edits[i];
        Err e;
        bool ok = builds(path, x, &e);
        if (ok || !says(&e, x->says) || strncmp(e.text, "x.gguf: ", 8) != 0)
            test_fail(__FILE__, __LINE__, "edit %zu (%s %g '%s', %s): %d '%s', expected '%s'", i, x->key ? x->key : "-",
                      x->number, x->text ? x->text : "", x->tensor ? x->tensor : "-", e.code, ok ? "built" : e.text, x->says);
    }
}

#define N_OF(array) (sizeof(array) / sizeof *(array))

/* ---- What is fine ---- */

TEST(plan_takes_what_is_only_unusual) {
    static const Edit dense[] = {
        {0}, // written again unchanged
        {.key = "llama.block_count", .type = U64, .number = 3},
        {.key = "llama.block_count", .type = I8, .number = 3},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = F64, .number = 1e-5},
        {.key = "llama.attention.head_count", .type = U32, .number = 4, .n = 3},
        {.key = "llama.attention.head_count_kv", .type = I32, .number = 2, .n = 3},
        {.key = "llama.feed_forward_length", .type = U32, .number = 128, .n = 1},
        {.key = "llama.rope.dimension_count", .type = NO_VALUE},
        {.key = "llama.rope.dimension_count", .type = U32, .number = 16},
        {.key = "llama.rope.freq_base", .type = NO_VALUE},
        {.key = "llama.vocab_size", .type = NO_VALUE},
        {.key = "llama.rope.scaling.factor", .type = F32, .number = 0},
        {.key = "llama.rope.scaling.type", .type = STRING, .text = "linear"},
        {.key = "llama.something.unheard_of", .type = STRING, .text = "yes"},
        {.tensor = "output.weight", .change = DROP}, // tied then
        {.tensor = "blk.0.attn_rot_embd", .change = ADD},
    };
    for (size_t i = 0; i < N_OF(dense); i++) {
        Err e;
        CHECK(builds(DENSE, &dense[i], &e), "%zu: %s", i, e.text);
    }
    Err e;
    CHECK(builds(EXPERTS, &(Edit){0}, &e), "%s", e.text);
    CHECK(builds(BIASES, &(Edit){.tensor = "blk.0.attn_q.bias", .change = DROP}, &e), "%s", e.text);
}

/* ---- What is not ---- */

TEST(plan_refuses_architectures) {
    static const Edit edits[] = {
        {.key = "general.architecture", .type = NO_VALUE, .says = "general.architecture"},
        {.key = "general.architecture", .type = U32, .number = 7, .says = "general.architecture"},
        {.key = "general.architecture", .type = STRING, .text = "", .says = "general.architecture"},
        {.key = "general.architecture", .type = STRING, .says = "general.architecture",
         .text = "an-architecture-with-a-name-that-is-longer-than-sixty-three-bytes-is-no-architecture"},
        // its keys do not exist under another name, and that is what would be said if it came first
        {.key = "general.architecture", .type = STRING, .text = "gpt9", .says = "'gpt9' is not supported; supported: llama"},
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_layers_and_sizes) {
    static const Edit edits[] = {
        {.key = "llama.block_count", .type = NO_VALUE, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = U32, .number = 0, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = I32, .number = -1, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = U32, .number = 100000, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = U64, .number = 9e18, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = STRING, .text = "3", .says = "llama.block_count"},
        {.key = "llama.block_count", .type = F32, .number = 3, .says = "llama.block_count"},
        {.key = "llama.block_count", .type = U32, .number = 4, .says = "'blk.3.attn_norm.weight' is missing"},
        {.key = "llama.block_count", .type = U32, .number = 4096, .says = "'blk.3.attn_norm.weight' is missing"},
        {.key = "llama.block_count", .type = U32, .number = 2, .says = "'blk.2."},
        {.key = "llama.embedding_length", .type = NO_VALUE, .says = "llama.embedding_length"},
        {.key = "llama.embedding_length", .type = U32, .number = 0, .says = "llama.embedding_length"},
        {.key = "llama.embedding_length", .type = U32, .number = 4e9, .says = "llama.embedding_length"},
        {.key = "llama.embedding_length", .type = U32, .number = 128, .says = "'token_embd.weight'"},
        {.key = "llama.feed_forward_length", .type = NO_VALUE, .says = "llama.feed_forward_length"},
        {.key = "llama.feed_forward_length", .type = U32, .number = 0, .says = "llama.feed_forward_length"},
        {.key = "llama.feed_forward_length", .type = U32, .number = 64, .says = "'blk.0.ffn_gate.weight'"},
        {.key = "llama.feed_forward_length", .type = U32, .number = 128, .n = 2, .says = "2 values for 3 layers"},
        {.key = "llama.feed_forward_length", .type = U32, .n = -1, .says = "llama.feed_forward_length"},
        {.key = "llama.vocab_size", .type = U32, .number = 327, .says = "llama.vocab_size"},
        {.key = "llama.vocab_size", .type = U32, .number = 0, .says = "llama.vocab_size"},
        {.key = "llama.context_length", .type = NO_VALUE, .says = "llama.context_length"},
        {.key = "llama.context_length", .type = U32, .number = 0, .says = "llama.context_length"},
        {.key = "llama.context_length", .type = I64, .number = -5, .says = "llama.context_length"},
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_heads) {
    static const Edit edits[] = {
        {.key = "llama.attention.head_count", .type = NO_VALUE, .says = "llama.attention.head_count"},
        {.key = "llama.attention.head_count", .type = U32, .number = 0, .says = "llama.attention.head_count"},
        {.key = "llama.attention.head_count", .type = U32, .number = 1e6, .says = "llama.attention.head_count"},
        {.key = "llama.attention.head_count", .type = U32, .number = 3, .says = "3 attention heads"},
        {.key = "llama.attention.head_count", .type = U32, .number = 8, .says = "'blk.0.attn_q.weight'"},
        {.key = "llama.attention.head_count", .type = U32, .number = 6, .also_dropped = "llama.attention.key_length",
         .says = "head_count 6"},
        {.key = "llama.attention.head_count", .type = U32, .number = 128, .also_dropped = "llama.attention.key_length",
         .says = "head_count 128"},
        {.key = "llama.attention.head_count", .type = U32, .number = 4, .n = 2, .says = "2 values for 3 layers"},
        {.key = "llama.attention.head_count", .type = U32, .number = 4, .n = 4, .says = "4 values for 3 layers"},
        {.key = "llama.attention.head_count", .type = U32, .n = -1, .says = "llama.attention.head_count"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 0, .says = "llama.attention.head_count_kv"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 3, .says = "3 key/value heads"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 8, .says = "8 key/value heads"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 4, .says = "'blk.0.attn_k.weight'"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 0, .n = 3, .says = "llama.attention.head_count_kv"},
        {.key = "llama.attention.head_count_kv", .type = U32, .number = 2, .n = 5, .says = "5 values for 3 layers"},
        {.key = "llama.attention.head_count_kv", .type = STRING, .text = "2", .says = "llama.attention.head_count_kv"},
        {.key = "llama.attention.key_length", .type = U32, .number = 0, .says = "llama.attention.key_length"},
        {.key = "llama.attention.key_length", .type = U32, .number = 31, .says = "31"},
        {.key = "llama.attention.key_length", .type = U32, .number = 4096, .says = "llama.attention.key_length"},
        {.key = "llama.attention.value_length", .type = U32, .number = 16, .says = "16 (values)"},
        {.key = "llama.attention.scale", .type = F32, .number = NAN, .says = "llama.attention.scale"},
        {.key = "llama.attention.scale", .type = F32, .number = -1, .says = "llama.attention.scale"},
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_rotation_and_epsilon) {
    static const Edit edits[] = {
        {.key = "llama.rope.dimension_count", .type = U32, .number = 0, .says = "llama.rope.dimension_count"},
        {.key = "llama.rope.dimension_count", .type = U32, .number = 64, .says = "llama.rope.dimension_count"},
        {.key = "llama.rope.dimension_count", .type = U32, .number = 15, .says = "llama.rope.dimension_count"},
        {.key = "llama.rope.dimension_count", .type = I32, .number = -2, .says = "llama.rope.dimension_count"},
        {.key = "llama.rope.freq_base", .type = F32, .number = 0, .says = "llama.rope.freq_base"},
        {.key = "llama.rope.freq_base", .type = F32, .number = -10000, .says = "llama.rope.freq_base"},
        {.key = "llama.rope.freq_base", .type = F32, .number = NAN, .says = "llama.rope.freq_base"},
        {.key = "llama.rope.freq_base", .type = F32, .number = INFINITY, .says = "llama.rope.freq_base"},
        {.key = "llama.rope.freq_base", .type = F64, .number = 1e300, .says = "llama.rope.freq_base"},
        {.key = "llama.rope.freq_base", .type = STRING, .text = "10000", .says = "llama.rope.freq_base"},
        {.key = "llama.rope.scaling.factor", .type = F32, .number = -4, .says = "llama.rope.scaling.factor"},
        {.key = "llama.rope.scaling.factor", .type = F32, .number = NAN, .says = "llama.rope.scaling.factor"},
        {.key = "llama.rope.scaling.type", .type = STRING, .text = "yarn", .says = "'yarn' is not supported"},
        {.key = "llama.rope.scaling.type", .type = U32, .number = 1, .says = "llama.rope.scaling.type"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = NO_VALUE, .says = "layer_norm_rms_epsilon"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = F32, .number = NAN, .says = "layer_norm_rms_epsilon"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = F32, .number = INFINITY, .says = "layer_norm_rms_epsilon"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = F32, .number = 0, .says = "layer_norm_rms_epsilon"},
        {.key = "llama.attention.layer_norm_rms_epsilon", .type = F32, .number = -1e-5, .says = "layer_norm_rms_epsilon"},
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_tensors) {
    enum { NAN_BITS = 0x7FC00000, INF_BITS = 0x7F800000 };
    static const Edit edits[] = {
        {.tensor = "token_embd.weight", .change = DROP, .says = "'token_embd.weight' is missing"},
        {.tensor = "output_norm.weight", .change = DROP, .says = "'output_norm.weight' is missing"},
        {.tensor = "blk.1.ffn_up.weight", .change = DROP, .says = "'blk.1.ffn_up.weight' is missing"},
        {.tensor = "blk.2.attn_norm.weight", .change = RENAME, .name = "blk.2.attn_nrom.weight", .says = "'blk.2.attn_norm.weight'"},
        {.tensor = "output.weight", .change = RENAME, .name = "lm_head.weight", .says = "'lm_head.weight'"},
        {.tensor = "blk.1.attn_sinks.weight", .change = ADD, .says = "'blk.1.attn_sinks.weight'"},
        {.tensor = "blk.3.attn_q.weight", .change = ADD, .says = "'blk.3.attn_q.weight'"},
        {.tensor = "rope_freqs.weight", .change = ADD, .says = "'rope_freqs.weight'"}, // 32 where 16 pairs turn
        {.tensor = "blk.1.attn_q.bias", .change = ADD, .says = "'blk.1.attn_q.bias'"}, // 32 where 128 are wanted
        {.tensor = "blk.0.attn_norm.weight", .change = RESHAPE, .dims = {32}, .says = "'blk.0.attn_norm.weight' is [32"},
        {.tensor = "blk.0.ffn_down.weight", .change = RESHAPE, .dims = {64, 128}, .says = "'blk.0.ffn_down.weight' is [64"},
        {.tensor = "blk.0.ffn_down.weight", .change = RESHAPE, .dims = {128, 32, 2}, .says = "'blk.0.ffn_down.weight'"},
        {.tensor = "blk.0.ffn_down.weight", .change = RESHAPE, .dims = {128, 64, 1, 2}, .says = "'blk.0.ffn_down.weight'"},
        {.tensor = "output.weight", .change = RESHAPE, .dims = {64, 300}, .says = "'output.weight'"},
        {.tensor = "token_embd.weight", .change = RESHAPE, .dims = {64, 300}, .says = "vocab_size"},
        {.tensor = "blk.0.ffn_down.weight", .change = RETYPE, .tensor_type = QUANT_I8, .says = "'blk.0.ffn_down.weight' has type I8"},
        {.tensor = "blk.2.ffn_down.weight", .change = RETYPE, .tensor_type = QUANT_Q1_0, .says = "'blk.2.ffn_down.weight' has type Q1_0"},
        {.tensor = "blk.1.attn_q.weight", .change = RETYPE, .tensor_type = QUANT_F64, .says = "'blk.1.attn_q.weight' has type F64"},
        {.tensor = "token_embd.weight", .change = RETYPE, .tensor_type = QUANT_I16, .says = "'token_embd.weight' has type I16"},
        {.tensor = "blk.1.ffn_norm.weight", .change = RETYPE, .tensor_type = QUANT_I32, .says = "'blk.1.ffn_norm.weight' has type I32"},
        {.tensor = "blk.1.ffn_norm.weight", .change = POKE, .word = NAN_BITS, .says = "'blk.1.ffn_norm.weight'"},
        {.tensor = "output_norm.weight", .change = POKE, .word = INF_BITS, .says = "'output_norm.weight'"},
        {.key = "zgen.fp8.format", .type = STRING, .text = "e4m3", .tensor = "blk.0.ffn_down.weight", .change = RETYPE,
         .tensor_type = QUANT_I8, .says = "'blk.0.ffn_down.scale'"},
    };
    check_edits(DENSE, edits, N_OF(edits));
    static const Edit biases[] = {
        {.tensor = "blk.1.ffn_up.bias", .change = POKE, .word = NAN_BITS, .says = "'blk.1.ffn_up.bias'"},
        {.tensor = "blk.1.attn_k.bias", .change = RESHAPE, .dims = {64}, .says = "'blk.1.attn_k.bias'"},
    };
    check_edits(BIASES, biases, N_OF(biases));
}

TEST(plan_refuses_experts) {
    static const Edit edits[] = {
        {.key = "llama.expert_used_count", .type = NO_VALUE, .says = "llama.expert_used_count"},
        {.key = "llama.expert_used_count", .type = U32, .number = 0, .says = "llama.expert_used_count"},
        {.key = "llama.expert_used_count", .type = U32, .number = 5, .says = "llama.expert_used_count"},
        {.key = "llama.expert_used_count", .type = I32, .number = -1, .says = "llama.expert_used_count"},
        {.key = "llama.expert_count", .type = NO_VALUE, .says = "'blk.0.ffn_gate_inp.weight'"},
        {.key = "llama.expert_count", .type = U32, .number = 0, .says = "'blk.0.ffn_gate_inp.weight'"},
        {.key = "llama.expert_count", .type = U32, .number = 8, .says = "'blk.0.ffn_gate_inp.weight'"},
        {.key = "llama.expert_count", .type = U32, .number = 100000, .says = "llama.expert_count"},
        {.key = "llama.expert_weights_scale", .type = F32, .number = NAN, .says = "llama.expert_weights_scale"},
        {.key = "llama.expert_feed_forward_length", .type = U32, .number = 32, .says = "'blk.0.ffn_gate_exps.weight'"},
        {.tensor = "blk.1.ffn_up_exps.weight", .change = DROP, .says = "'blk.1.ffn_up_exps.weight' is missing"},
        {.tensor = "blk.1.ffn_up_exps.weight", .change = RESHAPE, .dims = {64, 64, 3}, .says = "'blk.1.ffn_up_exps.weight' is [64"},
        {.tensor = "blk.0.ffn_gate_inp.weight", .change = DROP, .says = "'blk.0.ffn_gate.weight' is missing"},
    };
    check_edits(EXPERTS, edits, N_OF(edits));
}

/* ---- Blind changes ---- */

typedef struct Progress { // shared with the child
    size_t at;
    unsigned change;
    int n_built, n_ran;
    char text[200];
} Progress;

/* What is done to the four bytes at a place; the first ones change a single byte. */
static uint32_t changed(uint32_t old, unsigned change) {
    static const uint32_t flips[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    static const uint32_t words[] = {0, 1, 2, 3, 7, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000};
    return change < N_OF(flips) ? old ^ flips[change] : words[change - N_OF(flips)];
}
enum { N_CHANGES = 5 + 11 };

/* Opens, builds and runs two tokens.  false: something was neither done nor refused with a sentence. */
static bool survives(const Buf *file, Progress *p) {
    Gguf *g;
    Rig rig;
    Err e = {0};
    if (!gguf_open_bytes(file->data, file->n, "x.gguf", &g, &e)) return e.code == ERR_MODEL && strlen(e.text) > 20;
    bool ok = rig_build(&rig, g, (RigConfig){.isa = "auto", .n_ctx = 16}, &e);
    if (!ok) snprintf(p->text, sizeof p->text, "%.190s", e.text);
    if (!ok) return e.code == ERR_MODEL && strlen(e.text) > 20;
    p->n_built++;
    int last = rig.n_vocab - 1;
    Row rows[] = {{1, 0, 0, false}, {last, 0, 1, true}};
    ok = rig_run_ops(&rig, rows, 2, 0, rig.plan->n_ops, NULL, NULL, &e);
    if (!ok) snprintf(p->text, sizeof p->text, "%.190s", e.text);
    p->n_ran += ok;
    rig_close(&rig);
    return ok || e.code == ERR_RUN;
}

static bool survive_changes(Buf *file, size_t from, size_t to, Progress *p) {
    for (p->at = from; p->at < to; p->at++)
        for (p->change = 0; p->change < N_CHANGES; p->change++) {
            uint32_t old, new;
            memcpy(&old, file->data + p->at, 4);
            new = changed(old, p->change);
            if (new == old) continue;
            memcpy(file->data + p->at, &new, 4);
            if (!survives(file, p)) return false;
            memcpy(file->data + p->at, &old, 4);
        }
    return true;
}

/* Changes bytes from..to of the file, in a child. */
static void check_changes(const char *path, const Buf *file, size_t from, size_t to, Progress *p) {
    enum { SECONDS = 100, MEGABYTES = 256 };
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit memory;
        getrlimit(RLIMIT_AS, &memory);
        memory.rlim_cur = (rlim_t)MEGABYTES << 20;
        if (!SANITIZED) setrlimit(RLIMIT_AS, &memory);
        alarm(SECONDS);
        Buf copy = {0};
        put(&copy, file->data, file->n);
        _exit(survive_changes(&copy, from, to, p) ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %d at byte %zu, change %u: %s", path, status, p->at,
          p->change, p->text);
}

/* All that a plan is made from: the model's own keys and the table of tensors. */
static void check_file(const char *path) {
    Buf file = {0};
    Gguf *g;
    Err e;
    REQUIRE(read_file(path, &file) && gguf_open_bytes(file.data, file.n, path, &g, &e), "%s", path);
    Progress *p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    size_t table = key_offset(g, &file, gguf_n_keys(g)), data = file.n;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        size_t at = (size_t)(gguf_tensor(g, i)->data - (const uint8_t *)file.data);
        if (at < data) data = at;
    }
    for (int64_t i = 0; i < gguf_n_keys(g); i++) {
        GgufString key = gguf_key(g, i);
        bool ours = (key.n > 6 && memcmp(key.data, "llama.", 6) == 0) || text_is(key, "general.architecture");
        if (ours) check_changes(path, &file, key_offset(g, &file, i), key_offset(g, &file, i + 1), p);
    }
    check_changes(path, &file, table, data - 4, p);
    CHECK(p->n_built > 100 && p->n_ran > 100, "only %d built and %d ran", p->n_built, p->n_ran);
    munmap(p, sizeof *p);
    gguf_close(g);
    buf_free(&file);
}

TEST(plan_survives_any_change_dense) { check_file(DENSE); }
TEST(plan_survives_any_change_experts) { check_file(EXPERTS); }
