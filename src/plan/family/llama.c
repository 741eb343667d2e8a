/* llama: Llama 1 to 3, Mistral, Mixtral, SmolLM and the many others that declare this architecture.
 *
 *     x = embed
 *     per layer:  h = norm(x);  q, k, v = h;  rotate q, k;  remember k, v;  x += output(attention(q))
 *                 h = norm(x);  x += down(silu(gate h) * up h), dense or by experts
 *     logits = output(norm(x)), where output is the embedding again when the file has none
 *
 * Optional: biases on every product, rotary frequency factors, heads wider than n_embd / n_head, experts. */
#include "family.h"

static int attention(Pen *p, int x, const float *rope_factors) {
    const Hparams *h = &p->plan->hparams;
    int n_embd = h->n_embd;
    int n_q = h->layer[p->layer].n_head * h->head_dim, n_kv = h->layer[p->layer].n_kv_head * h->head_dim;
    int in = emit_norm(p, "attn_norm", x, pen_vector(p, "blk.%d.attn_norm.weight", n_embd));
    int q = emit_matmul(p, "attn_q", in, pen_matrix(p, "blk.%d.attn_q.weight", n_embd, n_q),
                        pen_optional_vector(p, "blk.%d.attn_q.bias", n_q));
    int k = emit_matmul(p, "attn_k", in, pen_matrix(p, "blk.%d.attn_k.weight", n_embd, n_kv),
                        pen_optional_vector(p, "blk.%d.attn_k.bias", n_kv));
    int v = emit_matmul(p, "attn_v", in, pen_matrix(p, "blk.%d.attn_v.weight", n_embd, n_kv),
                        pen_optional_vector(p, "blk.%d.attn_v.bias", n_kv));
    emit_rope(p, "attn_rope", q, k, rope_factors);
    emit_kvput(p, "attn_kv", k, v);
    int a = emit_attn(p, "attn", q);
    int out = emit_matmul(p, "attn_output", a, pen_matrix(p, "blk.%d.attn_output.weight", n_q, n_embd),
                          pen_optional_vector(p, "blk.%d.attn_output.bias", n_embd));
    return emit_add(p, "attn_residual", out, x);
}

static int dense_ffn(Pen *p, int in) {
    int n_embd = p->plan->hparams.n_embd, n_ff = p->plan->hparams.layer[p->layer].n_ff;
    int gate = emit_matmul(p, "ffn_gate", in, pen_matrix(p, "blk.%d.ffn_gate.weight", n_embd, n_ff),
                           pen_optional_vector(p, "blk.%d.ffn_gate.bias", n_ff));
    int up = emit_matmul(p, "ffn_up", in, pen_matrix(p, "blk.%d.ffn_up.weight", n_embd, n_ff),
                         pen_optional_vector(p, "blk.%d.ffn_up.bias", n_ff));
    int act = emit_glu(p, "ffn_act", gate, up);
    return emit_matmul(p, "ffn_down", act, pen_matrix(p, "blk.%d.ffn_down.weight", n_ff, n_embd),
                       pen_optional_vector(p, "blk.%d.ffn_down.bias", n_embd));
}

static int expert_ffn(Pen *p, int in) {
    const Hparams *h = &p->plan->hparams;
    int n_embd = h->n_embd, n_ff = h->layer[p->layer].n_ff, weights;
    int router = emit_matmul(p, "ffn_router", in,
                             pen_matrix(p, "blk.%d.ffn_gate_inp.weight", n_embd, h->n_expert), NULL);
    int ids = emit_route(p, "ffn_route", router, &weights);
    int gate =
        emit_expert(p, "ffn_gate", in, ids, pen_experts(p, "blk.%d.ffn_gate_exps.weight", n_embd, n_ff));
    int up = emit_expert(p, "ffn_up", in, ids, pen_experts(p, "blk.%d.ffn_up_exps.weight", n_embd, n_ff));
    int act = emit_glu(p, "ffn_act", gate, up);
    int down =
        emit_expert(p, "ffn_down", act, ids, pen_experts(p, "blk.%d.ffn_down_exps.weight", n_ff, n_embd));
    return emit_mix(p, "ffn_mix", down, weights);
}

static void emit(Pen *p) {
    const Hparams *h = &p->plan->hparams;
    const Weight *embd = pen_matrix(p, "token_embd.weight", h->n_embd, h->n_vocab);
    const float *rope_factors = pen_optional_vector(p, "rope_freqs.weight", h->n_rot / 2);
    int x = emit_embed(p, embd);
    for (p->layer = 0; p->layer < h->n_layer && p->ok; p->layer++) {
        x = attention(p, x, rope_factors);
        int in = emit_norm(p, "ffn_norm", x, pen_vector(p, "blk.%d.ffn_norm.weight", h->n_embd));
        int out = pen_has(p, "blk.%d.ffn_gate_inp.weight") ? expert_ffn(p, in) : dense_ffn(p, in);
        x = emit_add(p, "ffn_residual", out, x);
    }
    p->layer = -1;
    p->on_R = true;
    int last = emit_norm(p, "output_norm", x, pen_vector(p, "output_norm.weight", h->n_embd));
    bool tied = !pen_has(p, "output.weight");
    int logits =
        emit_logits(p, "output", last, tied ? embd : pen_matrix(p, "output.weight", h->n_embd, h->n_vocab));
    emit_sample(p, "sample", logits);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.2-3b", 28, 3072, 24, 8, 128, 8192, 128256, 5e5f, .optional = {NULL}},
    {"llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, 5e5f, .optional = {"output.weight"}},
    {"llama-3.1-70b", 80, 8192, 64, 8, 128, 28672, 128256, 5e5f, .optional = {"output.weight"}},
    {"mistral-7b", 32, 4096, 32, 8, 128, 14336, 32768, 1e6f, .optional = {"output.weight"}},
    {"mixtral-8x7b", 32, 4096, 32, 8, 128, 14336, 32000, 1e6f,
     .optional = {"output.weight", "ffn_gate_inp.weight"},
     .keys = {{"expert_count", 8}, {"expert_used_count", 2}, {"expert_feed_forward_length", 14336}}},
    {0},
};

static const ModelSize sizes[] = {
    {"8x7B", 32, 8, 0, 0}, {"8x22B", 56, 8, 0, 0},  {"1B", 16, 0, 0, 0},
    {"1B", 22, 0, 0, 0},   {"3B", 26, 0, 0, 0},     {"3B", 28, 0, 0, 0},
    {"256M", 30, 0, 0, 0}, {"7B", 32, 0, 0, 40000}, {"8B", 32, 0, 0, 0},
    {"8B", 36, 0, 0, 0},   {"13B", 40, 0, 0, 0},    {"34B", 48, 0, 0, 0},
    {"30B", 60, 0, 0, 0},  {"70B", 80, 0, 0, 0},    {0},
};

const Family family_llama = {"llama", emit, shapes, sizes};
