/* gemma4: Gemma 4, dense and with experts.
 *
 * The differences from gemma3: heads of another width, and another number of them, on layers with a window,
 * which the file lists; rotation with factors on the others, where v may be the product k; v is normalised;
 * scores without a factor; the last layers read the keys and values of the last layer of their kind that
 * has its own; a factor on x behind each layer; a softcap of logits.
 *
 *     inputs of layers (small models): x += norm(proj(gelu(gate(x)) * input)), behind the feed-forward block
 *     experts:                         x += norm(norm(ffn(norm(x))) + norm(experts(norm(x)))), the router reads a norm
 *                                      of x of its own */
#include "decoder.h"
#include "family.h"
#include "read.h"

#include <math.h>

#define PATTERN "attention.sliding_window_pattern"

static bool is_local(PlanBuilder *b, int layer) {
    return keys_of_layer(&b->keys, PATTERN, layer, 0, 1, -1) != 0;
}

/* How many layers before the builder's its keys and values are; 0: its own. */
static int kv_back(PlanBuilder *b, int n_shared) {
    int own = b->plan->hparams.n_layer - n_shared, from = b->layer < own ? b->layer : own - 1;
    while (from >= 0 && is_local(b, from) != is_local(b, b->layer)) from--;
    if (from < 0) keys_fail(&b->keys, "no layer has the keys and values that layer %d shares", b->layer);
    return b->keys.ok ? b->layer - from : 0;
}

/* The dense block and the experts. */
static int mixture(PlanBuilder *b, int x, const Decoder *d) {
    int dense = block_ffn(b, block_norm(b, "ffn_norm", x, d->norm), &d->ffn);
    dense = block_norm(b, "post_ffw_norm_1", dense, d->norm);
    int in = block_norm(b, "pre_ffw_norm_2", x, d->norm);
    NormParams router = d->norm;
    router.weight = builder_vector(b, "blk.%d.ffn_gate_inp.scale", b->plan->hparams.n_embd);
    int routed = emit_norm(b, "ffn_router_norm", x, router),
        chosen = block_experts(b, routed, in, &d->experts, &x, 1);
    return emit_add(b, "ffn_sum", block_norm(b, "post_ffw_norm_2", chosen, d->norm), dense);
}

static Decoder read(PlanBuilder *b) {
    const Hparams *h = &b->plan->hparams;
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.embed_scale = sqrtf((float)h->n_embd);
    d.attn_post_norm = "post_attention_norm";
    d.ffn_post_norm = "post_ffw_norm";
    d.logit_softcap = read_factor(b, "final_logit_softcapping", 0);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.attention.v_norm = true;
    d.attention.attn.scale = 1;
    d.ffn.glu.act = ACT_GELU;
    if (keys_int(&b->keys, "expert_count", 0, INT32_MAX, 0) == 0) return d;
    d.experts = read_experts(b, ROUTE_SOFTMAX, true);
    d.experts.glu.act = ACT_GELU;
    d.experts.router_scale = 1 / sqrtf((float)h->n_embd);
    return d;
}

static void emit(PlanBuilder *b) {
    Keys *k = &b->keys;
    Decoder d = read(b);
    AttnParams *attn = &d.attention.attn;
    RopeParams global = attn->rope, local = read_rope_local(b, &global, 10000);
    read_rope_factors(b, &global);
    int local_dim = read_local_head_dim(b), window = read_window(b, -1);
    local.n_rot = keys_int(k, "rope.dimension_count_swa", 2, local_dim, local_dim);
    int n_shared = keys_int(k, "attention.shared_kv_layers", 0, b->plan->hparams.n_layer - 1, 0);
    int n_input = keys_int(k, "embedding_length_per_layer_input", 0, READ_MAX_FF / MAX_LAYERS, 0);
    int x = decoder_embed(b, &d), inputs = n_input ? block_layer_inputs(b, x, n_input, d.norm) : NO_REG;
    while (builder_next_layer(b)) {
        bool has_window = is_local(b, b->layer), has_router = builder_has(b, "blk.%d.ffn_gate_inp.weight");
        const float *scale = builder_optional_vector(b, "blk.%d.layer_output_scale.weight", 1);
        attn->window = has_window ? window : 0;
        attn->rope = has_window ? local : global;
        attn->head_dim = has_window ? local_dim : 0;
        d.attention.kv_back = kv_back(b, n_shared);
        d.attention.v_is_k = !has_window && !builder_has(b, "blk.%d.attn_v.weight");
        d.ffn_norm = has_router ? NULL : "ffn_norm";
        d.feed_forward = has_router ? mixture : NULL;
        d.layer_scale = scale && !n_input ? *scale : 1;
        x = decoder_layer(b, x, &d);
        if (!n_input) continue;
        AddParams scales = {.a_scale = 1, .scale = scale ? *scale : 1};
        x = emit_add_scaled(b, "inp_residual", block_layer_input(b, x, inputs, n_input, d.norm), x, scales);
    }
    decoder_output(b, x, &d);
}

#define KEYS                                                                                                 \
    "attention.key_length_swa=256 attention.value_length_swa=256 rope.dimension_count_swa=256 "              \
    "rope.freq_base_swa=10000.0 final_logit_softcapping=30.0 "                                               \
    "attention.sliding_window_pattern=true,true,true,true,true,false "

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gemma-4-e4b", 42, 2560, 8, 2, 512, 10240, 262144, 1e6f,
     .optional = {"rope_freqs.weight", "layer_output_scale.weight", "attn_v.weight"},
     .keys = KEYS
     "attention.sliding_window=512 attention.shared_kv_layers=18 embedding_length_per_layer_input=256"},
    {"gemma-4-26b-a4b", 30, 2816, 16, 8, 512, 2112, 262144, 1e6f,
     .optional = {"rope_freqs.weight", "layer_output_scale.weight", "ffn_gate_inp.weight",
                  "ffn_gate_up_exps.weight"},
     .keys = KEYS "attention.sliding_window=1024 attention.head_count_kv=8,8,8,8,8,2 expert_count=128 "
                  "expert_used_count=8 expert_feed_forward_length=704"},
    {0},
};

static const ModelSize sizes[] = {
    {"26B.A4B", 30, 0, 0, 0}, {"E2B", 35, 0, 0, 0}, {"E4B", 42, 0, 0, 0}, {"31B", 60, 0, 0, 0}, {0},
};

const Family family_gemma4 = {"gemma4", emit, shapes, sizes};
