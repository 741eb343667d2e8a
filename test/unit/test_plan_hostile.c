/* plan, hostile: well-formed files whose models make no sense.
 *
 * A good model is taken apart and written again with one thing changed: a key, a tensor's name, shape, type
 * or bytes.  The plan must be refused with a sentence that names the culprit, before anything is computed.
 * Then every byte of the hyper-parameters and the tensor table is changed blindly, in a child with little
 * memory and an alarm: whatever still counts as a model must run. */
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
#define QWEN3 "test/data/models/qwen3-F16.gguf"
#define QWEN3MOE "test/data/models/qwen3moe-F16.gguf"
#define MAMBA2 "test/data/models/mamba2-Q4_0.gguf"
#define LFM2 "test/data/models/lfm2-Q4_0.gguf"
#define QWEN35 "test/data/models/qwen35-Q4_0.gguf"
#define KIMI_LINEAR "test/data/models/kimi-linear-Q4_0.gguf"
#define NEMOTRON_H "test/data/models/nemotron_h-Q4_0.gguf"

/* ---- A model with one thing changed ---- */

typedef enum Change { KEEP, DROP, RENAME, RESHAPE, RETYPE, POKE, ADD } Change;

enum {
    NO_VALUE = 100,
    EMPTY = -1
}; // instead of a value type: the key is left out; instead of a length: none

typedef struct Edit {
    const char *key; // gets the value, NULL for none
    uint32_t type;   // of the value, or of its elements
    double number;
    const char *text;
    int n;                    // not 0: an array of n times number
    const char *also_dropped; // another key to leave out
    const char *tensor;
    Change change;
    const char *name;     // RENAME
    uint64_t dims[4];     // RESHAPE
    uint32_t tensor_type; // RETYPE
    uint32_t word;        // POKE: the first four bytes of the data
    const char *says;     // expected in the refusal; NULL: the name of the key or the tensor
} Edit;

static Edit number(const char *key, uint32_t type, double value, const char *says) {
    return (Edit){.key = key, .type = type, .number = value, .says = says};
}

static Edit u32(const char *key, double value, const char *says) {
    return number(key, U32, value, says);
}

static Edit f32(const char *key, double value, const char *says) {
    return number(key, F32, value, says);
}

static Edit text(const char *key, const char *value, const char *says) {
    return (Edit){.key = key, .type = STRING, .text = value, .says = says};
}

static Edit array(const char *key, uint32_t type, double value, int n, const char *says) {
    return (Edit){.key = key, .type = type, .number = value, .n = n, .says = says};
}

static Edit without(const char *key, const char *says) {
    return number(key, NO_VALUE, 0, says);
}

static Edit heads_without_width(double n_head, const char *says) {
    Edit e = u32("llama.attention.head_count", n_head, says);
    e.also_dropped = "llama.attention.key_length";
    return e;
}

static Edit drop(const char *tensor, const char *says) {
    return (Edit){.tensor = tensor, .change = DROP, .says = says};
}

static Edit add(const char *tensor, const char *says) { // 32 f32
    return (Edit){.tensor = tensor, .change = ADD, .says = says};
}

static Edit rename_to(const char *tensor, const char *name, const char *says) {
    return (Edit){.tensor = tensor, .change = RENAME, .name = name, .says = says};
}

static Edit reshape(const char *tensor, int n0, int n1, int n2, int n3, const char *says) {
    uint64_t d0 = (uint64_t)n0, d1 = (uint64_t)n1, d2 = (uint64_t)n2, d3 = (uint64_t)n3;
    return (Edit){.tensor = tensor, .change = RESHAPE, .dims = {d0, d1, d2, d3}, .says = says};
}

static Edit retype(const char *tensor, QuantType type, const char *says) {
    return (Edit){.tensor = tensor, .change = RETYPE, .tensor_type = type, .says = says};
}

static Edit fp8_without_scale(const char *tensor, const char *says) {
    Edit e = retype(tensor, QUANT_I8, says);
    e.key = "zgen.fp8.format";
    e.type = STRING;
    e.text = "e4m3";
    return e;
}

static Edit poke(const char *tensor, uint32_t word, const char *says) {
    return (Edit){.tensor = tensor, .change = POKE, .word = word, .says = says};
}

static void put_number(Buf *b, uint32_t type, double x) {
    float f = (float)x;
    if (type == F32)
        put(b, &f, 4);
    else if (type == F64)
        put(b, &x, 8);
    else if (type == U64 || type == I64)
        put_u64(b, (uint64_t)(int64_t)x);
    else if (type == U8 || type == I8 || type == BOOL)
        put(b, &(uint8_t){(uint8_t)(int)x}, 1);
    else
        put_u32(b, (uint32_t)(int64_t)x);
}

static void put_edit_key(Buf *b, const Edit *e) {
    if (e->n) {
        put_array(b, e->key, e->type, e->n < 0 ? 0 : (uint64_t)e->n);
        for (int i = 0; i < e->n; i++) put_number(b, e->type, e->number);
    } else if (e->type == STRING)
        put_key_string(b, e->key, e->text);
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

typedef struct NewTensor { // one tensor of the new file
    const char *name;
    uint64_t dims[4];
    uint32_t type;
    size_t n_bytes, n_old; // in the new file, and how many of the old data there are
    const uint8_t *data;
} NewTensor;

static NewTensor new_tensor(const GgufTensor *t, const Edit *e) {
    NewTensor p = {.name = t->name, .type = t->type, .data = t->data, .n_old = (size_t)t->n_bytes};
    for (int k = 0; k < 4; k++) p.dims[k] = (uint64_t)t->ne[k];
    bool edited = e->tensor && strcmp(e->tensor, t->name) == 0;
    if (edited && e->change == RENAME) p.name = e->name;
    if (edited && e->change == RETYPE) p.type = e->tensor_type;
    for (int k = 0; edited && e->change == RESHAPE && k < 4; k++) p.dims[k] = e->dims[k];
    const QuantTraits *traits = quant_traits(p.type);
    size_t n = p.dims[0] * p.dims[1] * p.dims[2] * p.dims[3];
    p.n_bytes = n / (size_t)traits->n_weights * traits->n_bytes;
    if (p.n_old > p.n_bytes) p.n_old = p.n_bytes;
    return p;
}

static void put_table(Buf *out, const NewTensor *p, int n) {
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
    NewTensor tensors[64];
    int n = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g) && n < 63; i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        if (e->change != DROP || strcmp(t->name, e->tensor) != 0) tensors[n++] = new_tensor(t, e);
    }
    if (e->change == ADD) tensors[n++] = (NewTensor){e->tensor, {32, 1, 1, 1}, QUANT_F32, 128, 0, NULL};
    Buf out = {0};
    put_header(&out, 3, (uint64_t)n, n_keys_left(g, e));
    put_keys(&out, g, file, e);
    put_table(&out, tensors, n);
    for (int i = 0; i < n; i++) {
        bool poked = e->change == POKE && strcmp(tensors[i].name, e->tensor) == 0;
        if (poked) put_u32(&out, e->word);
        if (tensors[i].n_old) put(&out, tensors[i].data + 4 * poked, tensors[i].n_old - 4 * poked);
        for (size_t k = tensors[i].n_old; k < tensors[i].n_bytes; k++) put(&out, "", 1);
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
        Plan *p = plan_build(h, &(PlanConfig){.can = *cpu_exec.can}, e);
        ok = p != NULL;
        plan_free(p);
    }
    gguf_close(h);
    gguf_close(g);
    buf_free(&edited);
    buf_free(&file);
    return ok;
}

static void check_edits(const char *path, const Edit *edits, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const Edit *x = &edits[i];
        const char *wanted = x->says ? x->says : x->key ? x->key : x->tensor;
        Err e;
        bool ok = builds(path, x, &e);
        if (ok || !says(&e, wanted) || strncmp(e.text, "x.gguf: ", 8) != 0)
            test_fail(__FILE__, __LINE__, "edit %zu (%s %g '%s', %s): %d '%s', expected '%s'", i,
                      x->key ? x->key : "-", x->number, x->text ? x->text : "", x->tensor ? x->tensor : "-",
                      e.code, ok ? "built" : e.text, wanted);
    }
}

#define N_OF(array) (sizeof(array) / sizeof *(array))

/* ---- What is fine ---- */

TEST(plan_takes_what_is_only_unusual) {
    const Edit dense[] = {
        {0}, // written again unchanged
        number("llama.block_count", U64, 3, NULL),
        number("llama.block_count", I8, 3, NULL),
        number("llama.attention.layer_norm_rms_epsilon", F64, 1e-5, NULL),
        array("llama.attention.head_count", U32, 4, 3, NULL),
        array("llama.attention.head_count_kv", I32, 2, 3, NULL),
        array("llama.feed_forward_length", U32, 128, 1, NULL),
        without("llama.rope.dimension_count", NULL),
        u32("llama.rope.dimension_count", 16, NULL),
        without("llama.rope.freq_base", NULL),
        without("llama.vocab_size", NULL),
        u32("llama.vocab_size", 327, NULL),
        u32("llama.vocab_size", 1000, NULL),
        f32("llama.rope.scaling.factor", 0, NULL),
        text("llama.rope.scaling.type", "linear", NULL),
        text("llama.something.unheard_of", "yes", NULL),
        text("general.type", "model", NULL),
        drop("output.weight", NULL), // tied then
        add("blk.0.attn_rot_embd", NULL),
        add("blk.1.ffn_up.input_scale", NULL),
    };
    for (size_t i = 0; i < N_OF(dense); i++) {
        Err e;
        CHECK(builds(DENSE, &dense[i], &e), "%zu: %s", i, e.text);
    }
    const Edit dropped_bias = drop("blk.0.attn_q.bias", NULL);
    Err e;
    CHECK(builds(EXPERTS, &(Edit){0}, &e), "%s", e.text);
    CHECK(builds(BIASES, &dropped_bias, &e), "%s", e.text);
}

/* ---- What is not ---- */

TEST(plan_refuses_architectures) {
    const Edit edits[] = {
        without("general.architecture", NULL),
        u32("general.architecture", 7, NULL),
        text("general.architecture", "", NULL),
        text("general.architecture", "a-name-that-is-longer-than-sixty-three-bytes-is-no-architecture-at-all",
             NULL),
        // its keys do not exist under another name, and that is what would be said if it came first
        text("general.architecture", "gpt9", "'gpt9' is not supported; supported: llama"),
        text("general.architecture", "clip", "'clip': this file is a projector"),
        text("general.architecture", "controlvector", "this file is an adapter"),
        text("general.architecture", "nomic-bert", "this file is an encoder"),
        text("general.architecture", "t5encoder", "this file is an encoder"),
        text("general.architecture", "jina-bert-v2", "this file is an encoder"),
        text("general.architecture", "llada", "this file is a diffusion model"),
        text("general.architecture", "flux", "this file is a model that makes images"),
        text("general.type", "mmproj", "this file is a projector"),
        text("general.type", "adapter", "'general.type' is 'adapter': this file is an adapter"),
        text("general.type", "imatrix", "this file is an importance matrix"),
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_layers_and_sizes) {
    const Edit edits[] = {
        without("llama.block_count", NULL),
        u32("llama.block_count", 0, NULL),
        number("llama.block_count", I32, -1, NULL),
        u32("llama.block_count", 100000, NULL),
        number("llama.block_count", U64, 9e18, NULL),
        text("llama.block_count", "3", NULL),
        f32("llama.block_count", 3, NULL),
        u32("llama.block_count", 4, "'blk.3.attn_norm.weight' is missing"),
        u32("llama.block_count", 4096, "'blk.3.attn_norm.weight' is missing"),
        u32("llama.block_count", 2, "'blk.2."),
        without("llama.embedding_length", NULL),
        u32("llama.embedding_length", 0, NULL),
        u32("llama.embedding_length", 4e9, NULL),
        u32("llama.embedding_length", 128, "'token_embd.weight'"),
        without("llama.feed_forward_length", NULL),
        u32("llama.feed_forward_length", 0, NULL),
        u32("llama.feed_forward_length", 64, "'blk.0.ffn_gate.weight'"),
        array("llama.feed_forward_length", U32, 128, 2, "2 values for 3 layers"),
        array("llama.feed_forward_length", U32, 0, EMPTY, NULL),
        u32("llama.vocab_size", 0, NULL),
        without("llama.context_length", NULL),
        u32("llama.context_length", 0, NULL),
        number("llama.context_length", I64, -5, NULL),
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_heads) {
    const Edit edits[] = {
        without("llama.attention.head_count", NULL),
        u32("llama.attention.head_count", 0, NULL),
        u32("llama.attention.head_count", 1e6, NULL),
        u32("llama.attention.head_count", 3, "3 attention heads"),
        u32("llama.attention.head_count", 8, "'blk.0.attn_q.weight'"),
        heads_without_width(6, "head_count 6"),
        heads_without_width(128, "head_count 128"),
        array("llama.attention.head_count", U32, 4, 2, "2 values for 3 layers"),
        array("llama.attention.head_count", U32, 4, 4, "4 values for 3 layers"),
        array("llama.attention.head_count", U32, 0, EMPTY, NULL),
        u32("llama.attention.head_count_kv", 0, NULL),
        u32("llama.attention.head_count_kv", 3, "3 key/value heads"),
        u32("llama.attention.head_count_kv", 8, "8 key/value heads"),
        u32("llama.attention.head_count_kv", 4, "'blk.0.attn_k.weight'"),
        array("llama.attention.head_count_kv", U32, 0, 3, NULL),
        array("llama.attention.head_count_kv", U32, 2, 5, "5 values for 3 layers"),
        text("llama.attention.head_count_kv", "2", NULL),
        u32("llama.attention.key_length", 0, NULL),
        u32("llama.attention.key_length", 31, "31"),
        u32("llama.attention.key_length", 4096, NULL),
        u32("llama.attention.value_length", 16, "'blk.0.attn_v.weight'"),
        f32("llama.attention.scale", NAN, NULL),
        f32("llama.attention.scale", -1, NULL),
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_rotation_and_epsilon) {
    const Edit edits[] = {
        u32("llama.rope.dimension_count", 0, NULL),
        u32("llama.rope.dimension_count", 64, NULL),
        u32("llama.rope.dimension_count", 15, NULL),
        number("llama.rope.dimension_count", I32, -2, NULL),
        f32("llama.rope.freq_base", 0, NULL),
        f32("llama.rope.freq_base", -10000, NULL),
        f32("llama.rope.freq_base", NAN, NULL),
        f32("llama.rope.freq_base", INFINITY, NULL),
        number("llama.rope.freq_base", F64, 1e300, NULL),
        text("llama.rope.freq_base", "10000", NULL),
        f32("llama.rope.scaling.factor", -4, NULL),
        f32("llama.rope.scaling.factor", NAN, NULL),
        text("llama.rope.scaling.type", "dynamic", "'dynamic' is not supported"),
        u32("llama.rope.scaling.type", 1, NULL),
        without("llama.attention.layer_norm_rms_epsilon", "layer_norm_rms_epsilon"),
        f32("llama.attention.layer_norm_rms_epsilon", NAN, "layer_norm_rms_epsilon"),
        f32("llama.attention.layer_norm_rms_epsilon", INFINITY, "layer_norm_rms_epsilon"),
        f32("llama.attention.layer_norm_rms_epsilon", 0, "layer_norm_rms_epsilon"),
        f32("llama.attention.layer_norm_rms_epsilon", -1e-5, "layer_norm_rms_epsilon"),
    };
    check_edits(DENSE, edits, N_OF(edits));
}

TEST(plan_refuses_tensors) {
    enum { NAN_BITS = 0x7FC00000, INF_BITS = 0x7F800000 };
    const Edit edits[] = {
        drop("token_embd.weight", "'token_embd.weight' is missing"),
        drop("output_norm.weight", "'output_norm.weight' is missing"),
        drop("blk.1.ffn_up.weight", "'blk.1.ffn_up.weight' is missing"),
        rename_to("blk.2.attn_norm.weight", "blk.2.attn_nrom.weight", NULL),
        rename_to("output.weight", "lm_head.weight", "'lm_head.weight'"),
        add("blk.1.attn_sinks.weight", NULL),
        add("blk.3.attn_q.weight", NULL),
        add("rope_freqs.weight", NULL), // 32 where 16 pairs turn
        add("blk.1.attn_q.bias", NULL), // 32 where 128 are wanted
        add("blk.1.attn_q.scale", "'blk.1.attn_q.scale' is not part of any model"),
        add("blk.1.attn_norm.input_scales", NULL),
        reshape("blk.0.attn_norm.weight", 32, 1, 1, 1, "'blk.0.attn_norm.weight' is [32"),
        reshape("blk.0.ffn_down.weight", 64, 128, 1, 1, "'blk.0.ffn_down.weight' is [64"),
        reshape("blk.0.ffn_down.weight", 128, 32, 2, 1, NULL),
        reshape("blk.0.ffn_down.weight", 128, 64, 1, 2, NULL),
        reshape("output.weight", 64, 300, 1, 1, NULL),
        reshape("token_embd.weight", 64, 300, 1, 1, "'output.weight'"),
        retype("blk.0.ffn_down.weight", QUANT_I8, "'blk.0.ffn_down.weight' has type I8"),
        retype("blk.2.ffn_down.weight", QUANT_Q8_1, "'blk.2.ffn_down.weight' has type Q8_1"),
        retype("blk.1.attn_q.weight", QUANT_F64, "'blk.1.attn_q.weight' has type F64"),
        retype("token_embd.weight", QUANT_I16, "'token_embd.weight' has type I16"),
        retype("blk.1.ffn_norm.weight", QUANT_I32, "'blk.1.ffn_norm.weight' has type I32"),
        poke("blk.1.ffn_norm.weight", NAN_BITS, NULL),
        poke("output_norm.weight", INF_BITS, NULL),
        fp8_without_scale("blk.0.ffn_down.weight", "'blk.0.ffn_down.scale'"),
    };
    check_edits(DENSE, edits, N_OF(edits));
    const Edit biases[] = {
        poke("blk.1.ffn_up.bias", NAN_BITS, NULL),
        reshape("blk.1.attn_k.bias", 64, 1, 1, 1, NULL),
    };
    check_edits(BIASES, biases, N_OF(biases));
}

TEST(plan_refuses_experts) {
    const Edit edits[] = {
        without("llama.expert_used_count", NULL),
        u32("llama.expert_used_count", 0, NULL),
        u32("llama.expert_used_count", 5, NULL),
        number("llama.expert_used_count", I32, -1, NULL),
        without("llama.expert_count", "'blk.0.ffn_gate.weight' is missing"),
        u32("llama.expert_count", 0, "'blk.0.ffn_gate.weight' is missing"),
        u32("llama.expert_count", 8, "'blk.0.ffn_gate_inp.weight'"),
        u32("llama.expert_count", 100000, NULL),
        f32("llama.expert_weights_scale", NAN, NULL),
        u32("llama.expert_feed_forward_length", 32, "'blk.0.ffn_gate_exps.weight'"),
        drop("blk.1.ffn_up_exps.weight", "'blk.1.ffn_up_exps.weight' is missing"),
        reshape("blk.1.ffn_up_exps.weight", 64, 64, 3, 1, "'blk.1.ffn_up_exps.weight' is [64"),
        drop("blk.0.ffn_gate_inp.weight", "'blk.0.ffn_gate_inp.weight' is missing"),
        u32("llama.expert_gating_func", 4, NULL),
        number("llama.expert_group_count", I32, -1, NULL),
        u32("llama.expert_group_count", 3, "2 of 4 experts cannot be chosen from 3 of 3 groups"),
        u32("llama.expert_group_count", 4, "2 of 4 experts cannot be chosen from 4 of 4 groups"),
        u32("llama.leading_dense_block_count", 1, "'blk.0.ffn_gate.weight' is missing"),
        u32("llama.interleave_moe_layer_step", 2, "'blk.0.ffn_gate.weight' is missing"),
        u32("llama.interleave_moe_layer_step", 0, NULL),
        u32("llama.expert_shared_feed_forward_length", 64, "'blk.0.ffn_gate_shexp.weight' is missing"),
    };
    check_edits(EXPERTS, edits, N_OF(edits));
}

TEST(plan_refuses_latent_attention) {
    const Edit edits[] = {
        without("deepseek2.attention.kv_lora_rank", NULL),
        u32("deepseek2.attention.kv_lora_rank", 0, NULL),
        u32("deepseek2.attention.kv_lora_rank", 32, "'blk.0.attn_kv_a_mqa.weight' is [64, 96"),
        without("deepseek2.attention.key_length_mla", NULL), // attn_kv_b is not split
        without("deepseek2.attention.value_length_mla", NULL),
        u32("deepseek2.attention.key_length_mla", 32, "expected less than the 32 of a head"),
        u32("deepseek2.attention.key_length_mla", 100000, NULL),
        without("deepseek2.rope.dimension_count", NULL),
        without("deepseek2.attention.q_lora_rank", "'blk.0.attn_q_a.weight' is [64"),
        drop("blk.1.attn_k_b.weight", "'blk.1.attn_k_b.weight' is missing"),
        drop("blk.0.attn_q_a.weight", "'blk.0.attn_q.weight' is missing"),
        reshape("blk.0.attn_v_b.weight", 64, 32, 1, 1, "'blk.0.attn_v_b.weight' is [64"),
    };
    check_edits("test/data/models/deepseek2-Q4_0.gguf", edits, N_OF(edits));
}

TEST(plan_refuses_experts_of_further_families) {
    const Edit groups[] = {
        u32("bailingmoe2.expert_group_used_count", 5, NULL),
        u32("bailingmoe2.expert_group_count", 12, "3 of 12 experts cannot be chosen from 2 of 12 groups"),
        u32("bailingmoe2.expert_group_count", 5, "3 of 12 experts cannot be chosen from 2 of 5 groups"),
        u32("bailingmoe2.expert_used_count", 7, "7 of 12 experts cannot be chosen from 2 of 4 groups"),
        u32("bailingmoe2.expert_shared_count", 2, "'blk.1.ffn_gate_shexp.weight' is [64"),
        drop("blk.1.ffn_down_shexp.weight", "'blk.1.ffn_down_shexp.weight' is missing"),
    };
    check_edits("test/data/models/bailingmoe2-Q4_0.gguf", groups, N_OF(groups));
    const Edit weighed[] = {
        u32("llama4.expert_used_count", 2, "2 chosen experts with weights on their input"),
        u32("llama4.interleave_moe_layer_step", 1, "'blk.0.ffn_gate_inp.weight' is missing"),
        without("llama4.expert_count", NULL),
    };
    check_edits("test/data/models/llama4-Q4_0.gguf", weighed, N_OF(weighed));
    const Edit clamped[] = {
        without("step35.attention.sliding_window", NULL),
        number("step35.swiglu_clamp_shexp", F32, -1, NULL),
        reshape("blk.0.attn_gate.weight", 64, 8, 1, 1, "'blk.0.attn_gate.weight' is [64, 8"),
    };
    check_edits("test/data/models/step35-Q4_0.gguf", clamped, N_OF(clamped));
    const Edit biases[] = {
        reshape("blk.0.ffn_gate_exps.bias", 64, 3, 1, 1, "'blk.0.ffn_gate_exps.bias' is [64, 3"),
        reshape("blk.0.ffn_gate_inp.bias", 3, 1, 1, 1, "'blk.0.ffn_gate_inp.bias' is [3"),
        reshape("blk.0.attn_sinks.weight", 1, 1, 1, 1, "'blk.0.attn_sinks.weight' is [1"),
    };
    check_edits("test/data/models/gpt-oss-MXFP4_MOE.gguf", biases, N_OF(biases));
}

TEST(plan_refuses_states) {
    const Edit mamba2[] = {
        without("mamba2.ssm.conv_kernel", NULL),
        u32("mamba2.ssm.conv_kernel", 1, NULL),
        u32("mamba2.ssm.conv_kernel", 9, NULL),
        u32("mamba2.ssm.conv_kernel", 3, "'blk.0.ssm_conv1d.weight'"),
        without("mamba2.ssm.inner_size", NULL),
        u32("mamba2.ssm.inner_size", 0, NULL),
        u32("mamba2.ssm.inner_size", 1u << 25, NULL),
        u32("mamba2.ssm.inner_size", 1u << 24, "'blk.0.ssm_in.weight'"),
        u32("mamba2.ssm.inner_size", 130, "130, 4 heads and 2 groups do not divide each other"),
        u32("mamba2.ssm.state_size", 0, NULL),
        u32("mamba2.ssm.state_size", 1025, NULL),
        u32("mamba2.ssm.time_step_rank", 0, NULL),
        u32("mamba2.ssm.time_step_rank", 64, "'blk.0.ssm_in.weight'"),
        u32("mamba2.ssm.group_count", 0, NULL),
        u32("mamba2.ssm.group_count", 3, "4 heads and 3 groups do not divide each other"),
        u32("mamba2.ssm.group_count", 4, "'blk.0.ssm_in.weight'"),
        drop("blk.1.ssm_d", "'blk.1.ssm_d' is missing"),
        drop("blk.1.ssm_dt.bias", "'blk.1.ssm_dt.bias' is missing"),
        reshape("blk.1.ssm_conv1d.weight", 256, 4, 1, 1, "'blk.1.ssm_conv1d.weight' is [256"),
        reshape("blk.1.ssm_norm.weight", 2, 64, 1, 1, "'blk.1.ssm_norm.weight' is [2"),
        poke("blk.0.ssm_a", 0x7FC00000, NULL),
        add("blk.0.ffn_norm.weight", NULL),
    };
    check_edits(MAMBA2, mamba2, N_OF(mamba2));
    const Edit lfm2[] = {
        without("lfm2.shortconv.l_cache", NULL),
        u32("lfm2.shortconv.l_cache", 0, NULL),
        u32("lfm2.shortconv.l_cache", 4, "'blk.0.shortconv.conv.weight'"),
        u32("lfm2.attention.head_count_kv", 1, "'blk.0.attn_q.weight' is missing"),
        array("lfm2.attention.head_count_kv", I32, 0, 5, "'blk.2.shortconv.in_proj.weight' is missing"),
        array("lfm2.attention.head_count_kv", I32, -1, 5, NULL),
        drop("token_embd_norm.weight", "'token_embd_norm.weight' is missing"),
    };
    check_edits(LFM2, lfm2, N_OF(lfm2));
    const Edit qwen35[] = {
        u32("qwen35.full_attention_interval", 0, NULL),
        u32("qwen35.full_attention_interval", 2, "'blk.1.attn_qkv.weight' is [64, 256"),
        u32("qwen35.ssm.state_size", 16, "'blk.0.attn_qkv.weight'"),
        u32("qwen35.ssm.time_step_rank", 2, "'blk.0.ssm_beta.weight'"),
        drop("blk.0.ssm_alpha.weight", "'blk.0.ssm_alpha.weight' is missing"),
        reshape("blk.1.ssm_norm.weight", 16, 2, 1, 1, "'blk.1.ssm_norm.weight' is [16"),
        reshape("blk.2.attn_q.weight", 64, 128, 1, 1, "'blk.2.attn_q.weight' is [64, 128"),
    };
    check_edits(QWEN35, qwen35, N_OF(qwen35));
    const Edit nemotron_h[] = {
        array("nemotron_h.feed_forward_length", I32, 0, 5, "'blk.1.ssm_in.weight' is missing"),
        array("nemotron_h.feed_forward_length", I32, 96, 5, "'blk.0.ffn_up.weight' is missing"),
        array("nemotron_h.feed_forward_length", I32, 0, 4, "'nemotron_h.feed_forward_length'"),
    };
    check_edits(NEMOTRON_H, nemotron_h, N_OF(nemotron_h));
    const Edit kimi_linear[] = {
        without("kimi-linear.kda.head_dim", NULL),
        u32("kimi-linear.kda.head_dim", 64, "'blk.0.attn_q.weight'"),
        u32("kimi-linear.ssm.conv_kernel", 2, "'blk.0.ssm_conv1d_q.weight'"),
        reshape("blk.2.ssm_conv1d_v.weight", 64, 1, 4, 1, "'blk.2.ssm_conv1d_v.weight' is [64"),
        drop("blk.0.ssm_f_b.weight", "'blk.0.ssm_f_b.weight' is missing"),
    };
    check_edits(KIMI_LINEAR, kimi_linear, N_OF(kimi_linear));
}

TEST(plan_refuses_keys_of_dense_families) {
    const Edit gemma3[] = {
        number("gemma3.attention.sliding_window", I32, -1, NULL),
        text("gemma3.attention.sliding_window", "16", NULL),
        u32("gemma3.attention.sliding_window_pattern", 0, NULL),
        f32("gemma3.rope.freq_base_swa", 0, NULL),
        f32("gemma3.final_logit_softcapping", NAN, NULL),
        drop("blk.1.post_ffw_norm.weight", "'blk.1.post_ffw_norm.weight' is missing"),
    };
    check_edits("test/data/models/gemma3-Q4_0.gguf", gemma3, N_OF(gemma3));
    const Edit mistral3[] = {
        f32("mistral3.rope.scaling.yarn_beta_fast", 0, NULL),
        f32("mistral3.rope.scaling.yarn_beta_slow", NAN, NULL),
        f32("mistral3.rope.scaling.yarn_log_multiplier", INFINITY, NULL),
        f32("mistral3.rope.scaling.attn_factor", 0, NULL),
        u32("mistral3.rope.scaling.original_context_length", 0, NULL),
        f32("mistral3.attention.temperature_scale", NAN, NULL),
    };
    check_edits("test/data/models/mistral3-Q4_0.gguf", mistral3, N_OF(mistral3));
    const Edit phi3[] = {
        drop("rope_factors_short.weight", "'rope_factors_short.weight' is missing"),
        reshape("rope_factors_long.weight", 8, 2, 1, 1, NULL),
        reshape("blk.1.attn_qkv.weight", 64, 64, 2, 1, "'blk.1.attn_qkv.weight' is [64"),
        u32("phi3.feed_forward_length", 64, "'blk.0.ffn_up.weight' is [64, 192"),
    };
    check_edits("test/data/models/phi3-Q4_0.gguf", phi3, N_OF(phi3));
    const Edit gemma4[] = {
        without("gemma4.attention.sliding_window_pattern", "sliding_window_pattern"),
        array("gemma4.attention.sliding_window_pattern", U32, 1, 5, "5 values for 6 layers"),
        array("gemma4.attention.sliding_window_pattern", U32, 2, 6, NULL),
        u32("gemma4.attention.shared_kv_layers", 6, NULL),
        u32("gemma4.attention.shared_kv_layers", 4, "no layer has the keys and values that layer 2 shares"),
        u32("gemma4.attention.key_length_swa", 31, NULL),
        u32("gemma4.embedding_length_per_layer_input", 64, "'per_layer_token_embd.weight' is [192"),
        u32("gemma4.nextn_predict_layers", 6, NULL),
        u32("gemma4.nextn_predict_layers", 1, "'per_layer_token_embd.weight' is [192"),
    };
    check_edits("test/data/models/gemma4-Q4_0.gguf", gemma4, N_OF(gemma4));
    const Edit others[] = {
        without("cohere2.attention.sliding_window", "sliding_window"),
        without("cohere2.logit_scale", "logit_scale"),
        without("cohere2.attention.layer_norm_epsilon", "layer_norm_epsilon"),
    };
    check_edits("test/data/models/cohere2-Q4_0.gguf", others, N_OF(others));
    const Edit xielu[] = {
        without("xielu.beta", "xielu.beta"),
        array("xielu.alpha_n", BOOL, 1, 2, NULL),
        f32("xielu.eps", NAN, NULL),
    };
    check_edits("test/data/models/apertus-Q4_0.gguf", xielu, N_OF(xielu));
}

TEST(plan_refuses_norms_of_heads_and_scaling_of_qwen3) {
    const Edit edits[] = {
        text("qwen3.rope.scaling.type", "dynamic", "'dynamic' is not supported for qwen3"),
        u32("qwen3.attention.head_count", 2, "'blk.0.attn_q.weight'"),
        without("qwen3.attention.key_length", "'qwen3.rope.dimension_count' is 64; expected 2 to 16"),
        drop("blk.1.attn_q_norm.weight", "'blk.1.attn_q_norm.weight' is missing"),
        drop("blk.0.attn_k_norm.weight", "'blk.0.attn_k_norm.weight' is missing"),
        reshape("blk.1.attn_k_norm.weight", 32, 1, 1, 1, "'blk.1.attn_k_norm.weight' is [32"),
        add("blk.0.ffn_gate_inp.weight", NULL), // experts are another architecture's
        add("rope_freqs.weight", NULL),
    };
    check_edits(QWEN3, edits, N_OF(edits));
    const Edit experts[] = {
        without("qwen3moe.expert_count", NULL),
        u32("qwen3moe.expert_count", 0, NULL),
        without("qwen3moe.expert_used_count", NULL),
        u32("qwen3moe.expert_used_count", 7, NULL),
        without("qwen3moe.expert_feed_forward_length", "'blk.0.ffn_gate_exps.weight'"),
        drop("blk.1.ffn_gate_inp.weight", "'blk.1.ffn_gate_inp.weight' is missing"),
    };
    check_edits(QWEN3MOE, experts, N_OF(experts));
}

/* ---- Blind changes ---- */

typedef struct Progress { // shared with the child
    size_t at;
    unsigned change;
    int n_built, n_ran;
    char text[200];
} Progress;

/* The changes of four bytes at an offset; the first ones change a single byte. */
static uint32_t changed(uint32_t old, unsigned change) {
    static const uint32_t flips[] = {0x01, 0x02, 0x10, 0x80, 0xFF};
    static const uint32_t words[] = {0,          1,          2,          3,          7,         0xFF,
                                     0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FC00000, 0x7F800000};
    return change < N_OF(flips) ? old ^ flips[change] : words[change - N_OF(flips)];
}
enum { N_CHANGES = 5 + 11 };

/* Opens, builds and runs two tokens.  false: something was neither done nor refused with a sentence. */
static bool survives(const Buf *file, Progress *p) {
    Gguf *g;
    Rig rig;
    Err e = {0};
    if (!gguf_open_bytes(file->data, file->n, "x.gguf", &g, &e))
        return e.code == ERR_MODEL && strlen(e.text) > 20;
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
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: status %d at byte %zu, change %u: %s", path,
          status, p->at, p->change, p->text);
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

TEST(plan_survives_any_change_dense) {
    check_file(DENSE);
}
TEST(plan_survives_any_change_experts) {
    check_file(EXPERTS);
}
