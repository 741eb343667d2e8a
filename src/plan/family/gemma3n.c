/* gemma3n: Gemma 3n.
 *
 * The residual stream is four streams.  A layer predicts all of them from all, runs on the first one, and corrects the
 * predictions by what it changed there (AltUp); coefficients come from a norm of the stream that is read:
 *
 *     c = tanh(router(norm(x_0) / n_embd))
 *     p_j = x_j + sum over i of predict(c)[4 j + i] * x_i
 *     h = norm(p_0);  laurel = h + norm(r(l(h)));  y = (p_0 + norm(attention(h)) + laurel) / sqrt(2)
 *     y += norm(feed_forward(norm(y)))
 *     x_j = p_j + (1 + correct(c')[j]) * (y - p_0), c' of y
 *     x_j += norm(proj(gelu(gate(scale * x_0)) * input of the layer)) for j > 0
 *
 * Streams 1 to 3 begin as products with the embedding, and end in products that are added to stream 0; both get the
 * length of stream 0.  Attention is that of gemma4 with a window on four of five layers; layers from 20 on read the
 * keys and values of layers 18 (window) and 19.  The gates of the first 10 layers are cut.
 *
 * As in llama.cpp, these numbers of layers are fixed, and the deviation of the cut is that with n - 1, where the makers
 * have n. */
#include "decoder.h"
#include "family.h"
#include "read.h"

#include <math.h>

enum { N_STREAM = 4, FIRST_SHARED = 20, N_CUT = 10, PERIOD = 5 };

/* tanh(z) = sigmoid(2z) - sigmoid(-2z) of the router's z. */
static int coefficients(PlanBuilder *b, int x, NormParams norm) {
    int n_embd = b->plan->hparams.n_embd, in = block_norm(b, "altup_router_norm", x, norm);
    const Weight *w = builder_matrix(b, "blk.%d.altup_router.weight", n_embd, N_STREAM);
    const GluParams sigmoid = {.act = ACT_SIGMOID};
    int z = emit_matmul_scaled(b, "altup_router", in, w, NULL, 2.0f / (float)n_embd);
    int minus_z = emit_add_scaled(b, "altup_minus", z, z, (AddParams){.a_scale = -2, .scale = 1});
    int plus = emit_glu(b, "altup_sigmoid", NO_REG, z, sigmoid);
    int minus = emit_glu(b, "altup_sigmoid", NO_REG, minus_z, sigmoid);
    return emit_add_scaled(b, "altup_tanh", minus, plus, (AddParams){.a_scale = -1, .scale = 1});
}

/* x += coefficient number i of c * of */
static int add_weighed(PlanBuilder *b, int c, int i, int of, int x) {
    int factor = emit_view(b, "altup_coef", c, i, 1);
    return emit_add(b, "altup_sum", emit_glu(b, "altup_part", factor, of, (GluParams){.act = ACT_NONE}), x);
}

static void predict(PlanBuilder *b, const int *x, int *p, NormParams norm) {
    int c =
        block_product(b, "altup_predict_coef", coefficients(b, x[0], norm), N_STREAM, N_STREAM * N_STREAM);
    for (int j = 0; j < N_STREAM; j++) {
        p[j] = x[j];
        for (int i = 0; i < N_STREAM; i++) p[j] = add_weighed(b, c, N_STREAM * j + i, x[i], p[j]);
    }
}

static void correct(PlanBuilder *b, int y, const int *p, int *x, NormParams norm) {
    int c = block_product(b, "altup_correct_coef", coefficients(b, y, norm), N_STREAM, N_STREAM);
    int change = emit_add_scaled(b, "altup_change", p[0], y, (AddParams){.a_scale = -1, .scale = 1});
    for (int j = 0; j < N_STREAM; j++)
        x[j] = add_weighed(b, c, j, change, emit_add(b, "altup_sum", change, p[j]));
}

static int layer(PlanBuilder *b, int x, const Decoder *d) {
    enum { RANK = 64 };
    int n_embd = b->plan->hparams.n_embd, in = block_norm(b, "attn_norm", x, d->norm);
    int laurel = block_product(b, "laurel_r", block_product(b, "laurel_l", in, n_embd, RANK), RANK, n_embd);
    laurel = emit_add(b, "laurel", block_norm(b, "laurel_post_norm", laurel, d->norm), in);
    int attn = block_attention(b, in, &d->attention, d->norm);
    attn = emit_add(b, "attn_residual", block_norm(b, "post_attention_norm", attn, d->norm), x);
    AddParams scales = {.a_scale = 1, .scale = sqrtf(0.5f)};
    int y = emit_add_scaled(b, "attn_laurel", attn, laurel, scales);
    int ffn = block_ffn(b, block_norm(b, "ffn_norm", y, d->norm), &d->ffn);
    return emit_add(b, "ffn_residual", block_norm(b, "post_ffw_norm", ffn, d->norm), y);
}

/* The input of the layer is added to streams 1 to 3. */
static void add_input(PlanBuilder *b, int *x, int inputs, int n_input, NormParams norm) {
    norm.weight = builder_vector(b, "blk.%d.altup_correct_scale.weight", b->plan->hparams.n_embd);
    int scaled = emit_norm_like(b, "altup_correct_scale", x[0], x[0], norm); // weight * x_0
    norm.weight = NULL;
    int part = block_layer_input(b, scaled, inputs, n_input, norm);
    for (int j = 1; j < N_STREAM; j++) x[j] = emit_add(b, "inp_residual", part, x[j]);
}

/* Three products with the matrices of a tensor, of x or of a part of x each, as long as stream 0. */
static int like_first(PlanBuilder *b, const char *name, const char *tensor, int x, int first,
                      NormParams norm) {
    int n_embd = b->plan->hparams.n_embd;
    MoeParams each = {.n_expert = N_STREAM - 1, .n_used = N_STREAM - 1};
    const Weight *w = builder_experts(b, tensor, n_embd, n_embd, each.n_expert);
    norm.head_dim = n_embd;
    return emit_norm_like(b, name, emit_expert(b, name, x, NO_REG, w, NULL, each), first, norm);
}

static int merge(PlanBuilder *b, const int *x, NormParams norm) {
    int n_embd = b->plan->hparams.n_embd;
    b->on_R = true;
    int rest = emit_join(b, "altup_rest", emit_join(b, "altup_rest", x[1], x[2], 1), x[3], 1), sum = x[0];
    rest = like_first(b, "altup_unembd", "altup_unembd_proj.weight", rest, x[0], norm);
    for (int j = 1; j < N_STREAM; j++) {
        int part = emit_view(b, "altup_unembd", rest, (j - 1) * n_embd, n_embd);
        AddParams mean = {.a_scale = 1, .scale = j == N_STREAM - 1 ? 1.0f / N_STREAM : 1};
        sum = emit_add_scaled(b, "altup_mean", part, sum, mean);
    }
    return sum;
}

static Decoder read(PlanBuilder *b) {
    Keys *k = &b->keys;
    Decoder d = read_decoder(b, false, ROPE_HALVES);
    d.embed_scale = sqrtf((float)b->plan->hparams.n_embd);
    d.logit_softcap = read_factor(b, "final_logit_softcapping", 30);
    d.attention.qk_norm = QK_NORM_HEADS;
    d.attention.v_norm = true;
    d.attention.attn.scale = 1;
    d.ffn.glu.act = ACT_GELU;
    keys_int(k, "altup.num_inputs", N_STREAM, N_STREAM, N_STREAM);
    keys_int(k, "altup.active_idx", 0, 0, 0);
    return d;
}

static void emit(PlanBuilder *b) {
    Decoder d = read(b);
    AttnParams *attn = &d.attention.attn;
    RopeParams global = attn->rope, local = read_rope_local(b, &global, 10000);
    int window = read_window(b, -1), n_embd = b->plan->hparams.n_embd, x[N_STREAM], p[N_STREAM];
    int n_input = keys_int(&b->keys, "embedding_length_per_layer_input", 1, READ_MAX_FF / MAX_LAYERS, 256);
    x[0] = decoder_embed(b, &d);
    int inputs = block_layer_inputs(b, x[0], n_input, d.norm);
    int rest = like_first(b, "altup_proj", "altup_proj.weight", x[0], x[0], d.norm);
    for (int j = 1; j < N_STREAM; j++) x[j] = emit_view(b, "altup_proj", rest, (j - 1) * n_embd, n_embd);
    while (builder_next_layer(b)) {
        bool is_local = read_is_local(b, PERIOD);
        attn->window = is_local ? window : 0;
        attn->rope = is_local ? local : global;
        d.attention.kv_back = b->layer < FIRST_SHARED ? 0 : b->layer - FIRST_SHARED + (is_local ? 2 : 1);
        d.ffn.cut = b->layer < N_CUT ? 1.6448533535003662f : 0;
        predict(b, x, p, d.norm);
        correct(b, layer(b, p[0], &d), p, x, d.norm);
        add_input(b, x, inputs, n_input, d.norm);
    }
    decoder_output(b, merge(b, x, d.norm), &d);
}

/* In the order of the fields of Shape. */
static const Shape shapes[] = {
    {"gemma-3n-e4b", 35, 2048, 8, 2, 256, 16384, 262144, 1e6f, .optional = {NULL},
     .keys =
         "attention.sliding_window=512 embedding_length_per_layer_input=256 attention.shared_kv_layers=15"},
    {0},
};

static const ModelSize sizes[] = {{"E2B", 30, 0, 0, 0}, {"E4B", 35, 0, 0, 0}, {0}};

const Family family_gemma3n = {"gemma3n", emit, shapes, sizes};
