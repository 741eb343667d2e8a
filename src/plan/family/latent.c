/* latent: see latent.h. */
#include "latent.h"
#include "read.h"

#include <math.h>

enum { MAX_RANK = 65536, MAX_WIDTH = 1024 };

typedef struct Widths { // of a head's q, of its rotated end and of its value; of the latent row
    int head, rotated, value, latent;
} Widths;

static Widths read_widths(PlanBuilder *b) {
    Keys *k = &b->keys;
    static const char *const names[] = {"attention.kv_lora_rank", "attention.key_length_mla",
                                        "attention.value_length_mla", "rope.dimension_count"};
    for (int i = 0; i < 4; i++) keys_need(k, names[i]);
    Widths w = {.latent = keys_int(k, names[0], 1, MAX_WIDTH, 1),
                .head = keys_int(k, names[1], 2, MAX_WIDTH, 2),
                .value = keys_int(k, names[2], 1, MAX_WIDTH, 1),
                .rotated = keys_int(k, names[3], 1, MAX_WIDTH, 1)};
    if (w.rotated >= w.head)
        keys_fail(k, "'%s' is %d; expected less than the %d of a head", k->key, w.rotated, w.head);
    return k->ok ? w : (Widths){2, 1, 1, 1};
}

/* A part of the product of which c is the first rows and k_pe the others: parts join the product that makes
 * q. */
static int latent_part(PlanBuilder *b, const char *name, int in, int first, int n, const Widths *w) {
    MatrixShape part = {b->plan->hparams.n_embd, n, 1, first, w->latent + w->rotated};
    return emit_matmul(b, name, in, builder_part(b, "blk.%d.attn_kv_a_mqa.weight", part), NULL);
}

/* Each head's columns of `in` by a matrix of its own. */
static int of_heads(PlanBuilder *b, const char *name, const char *tensor, int in, int n_in, int n_out,
                    int n_head) {
    const Weight *w = builder_experts(b, tensor, n_in, n_out, n_head);
    return emit_expert(b, name, in, NO_REG, w, NULL, (MoeParams){.n_expert = n_head, .n_used = n_head});
}

int block_latent_attention(PlanBuilder *b, int in, const LatentBlock *o, NormParams norm) {
    Widths w = read_widths(b);
    int n_embd = b->plan->hparams.n_embd, n_plain = w.head - w.rotated;
    AttnParams a = o->attn;
    a.n_kv_head = 1;
    a.head_dim = w.latent + w.rotated;
    a.v_dim = w.latent;
    a.scale /= sqrtf((float)w.head);
    a.rope = o->rope;
    a.rope.first = w.latent;
    read_attention(b, &a);
    bool narrow = builder_has(b, "blk.%d.attn_q_a.weight");
    int rank = narrow ? keys_int(&b->keys, "attention.q_lora_rank", 1, MAX_RANK, 1) : a.n_head * w.head;
    int q = block_product(b, narrow ? "attn_q_a" : "attn_q", in, n_embd, rank);
    int c = latent_part(b, "attn_kv_a", in, 0, w.latent, &w);
    int k_pe = latent_part(b, "attn_k_pe", in, w.latent, w.rotated, &w);
    if (narrow) {
        q = block_norm(b, "attn_q_a_norm", q, norm);
        q = block_product(b, "attn_q_b", q, rank, a.n_head * w.head);
    }
    int plain = emit_slice(b, "attn_q_nope", q, (SliceParams){w.head, 0, n_plain});
    int q_pe = emit_slice(b, "attn_q_pe", q, (SliceParams){w.head, n_plain, w.rotated});
    plain = of_heads(b, "attn_k_b", "blk.%d.attn_k_b.weight", plain, n_plain, w.latent, a.n_head);
    q = emit_join(b, "attn_q_latent", plain, q_pe, a.n_head);
    int k = emit_join(b, "attn_k_latent", block_norm(b, "attn_kv_a_norm", c, norm), k_pe, 1);
    if (a.rope.n_rot > 0) emit_rope(b, "attn_rope", q, k, a.rope);
    a.rope = (RopeParams){0};
    int out = emit_attn(b, "attn", q, emit_kvput(b, "attn_kv", k, NO_REG, a), a);
    b->on_R |= builder_is_last_mixer(b);
    out = of_heads(b, "attn_v_b", "blk.%d.attn_v_b.weight", out, w.latent, w.value, a.n_head);
    return block_product(b, "attn_output", out, a.n_head * w.value, n_embd);
}
