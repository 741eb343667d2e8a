// run_ops: from ops to launches.
//
// An op is one kernel or two.  The tape is the same for all rows; the kernels depend on the rows.  For the
// single row of a decode step many ops are one kernel (fusion.cu), and attention itself writes the row's K
// and V to the cache.  Rows of prompts are multiplied on the tensor cores; their K and V are written to the
// cache before attention, which computes the rows in tiles.
#include <algorithm>
#include <cassert>

#include "exec.cuh"

namespace {

// The layer of the cache that an op reads or writes.
CacheView cache_of(const Rank *x, const Op *op) {
    return {*cache_layer(x->cache, op_operand(op, ROLE_CACHE, 0)), x->kv, x->tables};
}

bool is_prompt(const Batch *b, int t) {
    return !b->prompt || b->prompt[t];
}

// Whether row t of the batch is the next position of the sequence of row t - 1, and of a prompt as that is.
bool follows(const Batch *b, int t) {
    return t < b->T && b->seq[t] == b->seq[t - 1] && b->position[t] == b->position[t - 1] + 1 &&
           is_prompt(b, t) == is_prompt(b, t - 1);
}

// Rows from t on that follow each other in one sequence.
int run_rows(const Batch *b, int t) {
    int n = 1;
    while (follows(b, t + n)) n++;
    return n;
}

// Row i of the op.
bool is_prompt(const Batch *b, const Op *op, int i) {
    return is_prompt(b, op->on_R ? b->out_row[i] : i);
}

// Whether all rows are generated tokens of a run whose products are narrow.
bool is_narrow(const Rank *x, const Step &step) {
    bool narrow = !x->config.wide;
    for (int t = 0; step.batch && t < step.T; t++) narrow &= !is_prompt(step.batch, t);
    return narrow;
}

// n rows, all of prompts or none.
cudaError_t run_products(Rank *x, const Op *op, const Product *p, int n, bool prompt) {
    const Launch *l = &x->launch;
    bool experts =
        op->code == OP_EXPERT; // of generated tokens each has few rows, whose weights are not expanded
    if (!prompt && (experts || !x->config.wide)) return launch_products(l, p, n, x->product_scratch);
    if (experts) return launch_experts(l, p, n, x->product_scratch);
    return launch_wide(l, p, n, !prompt, x->product_scratch);
}

// Rows of prompts and the others go different ways, so that the bytes of a row do not depend on others.
cudaError_t run_product(Rank *x, const Op *op, const Step &step) {
    Product p = product_of(x, op, step);
    int rows = rows_of(op, step);
    if (!step.batch) return run_products(x, op, &p, rows, false);
    cudaError_t error = cudaSuccess;
    for (int first = 0, end = 0; first < rows && error == cudaSuccess; first = end) {
        bool prompt = is_prompt(step.batch, op, first);
        while (end < rows && is_prompt(step.batch, op, end) == prompt) end++;
        Product some = product_rows(p, first);
        error = run_products(x, op, &some, end - first, prompt);
    }
    return error;
}

Rotation rotation_of(const Rank *x, const Op *op) {
    const RopeParams *rope = op_rotation(op);
    if (!rope) return {};
    return {device_op(x, op)->frequency, rope->n_rot, rope->first, rope->pairing, rope->magnitude};
}

// ATTN, or KVPUT, which is a part of it.
Attn attn_of(const Rank *x, const Op *op, const Step &step) {
    const DeviceOp *device = device_op(x, op);
    bool is_attn = op->code == OP_ATTN;
    int first_new = is_attn ? 1 : 0; // of the operands
    return {.q = is_attn ? rows_in(x, op, op_in(op, 0), step) : RegRows{},
            .out = rows_in(x, op, op_out(op, 0), step),
            .k = rows_in(x, op, op_in(op, first_new), step),
            .v = rows_in(x, op, op_in(op, first_new + 1), step),
            .q_norm = {device->head_norm[0], op->attn.q_norm.eps},
            .k_norm = {device->head_norm[1], op->attn.k_norm.eps},
            .v_norm = {device->head_norm[2], op->attn.v_norm.eps},
            .rotation = rotation_of(x, op),
            .params = &op->attn,
            .sinks = device->sinks,
            .cache = cache_of(x, op),
            .seq = step.set->rows.seq,
            .position = step.set->rows.position,
            .T = step.T,
            .piece = step.set->piece,
            .n_pieces = (int)x->piece.size(),
            .scratch = x->attn_scratch};
}

// n rows of an attention from row `first` on, all of whose new rows are in the cache.
Attn attn_rows(Attn a, int first, int n) {
    a = attn_prepared(a);
    a.q = rows_from(a.q, first);
    a.out = rows_from(a.out, first);
    a.seq += first;
    a.position += first;
    a.T = n;
    return a;
}

// Decoding is one launch: a row of each sequence.  In a batch new K and V rows are put first; then the chunks
// of prompts are computed in tiles, and the rows between them in launches of the decode kernel.
cudaError_t run_attn(Rank *x, const Op *op, const Step &step) {
    const Launch *l = &x->launch;
    Attn a = attn_of(x, op, step);
    if (!step.batch) return launch_attn_decode(l, &a);
    cudaError_t error = launch_rope_kvput(l, &a);
    Attn prompts = attn_rows(a, 0, step.T);
    if (error == cudaSuccess && prompts.n_pieces > 0) error = launch_attn_prompt(l, &prompts);
    const Batch *b = step.batch;
    for (int first = 0, end = 0; first < b->T && error == cudaSuccess; first = end) {
        bool prompt = is_prompt(b, first);
        while (end < b->T && is_prompt(b, end) == prompt) end++;
        Attn some = attn_rows(a, first, end - first);
        if (!prompt) error = launch_attn_decode(l, &some);
    }
    return error;
}

Conv conv_of(const Rank *x, const Op *op, const Step &step, const Runs &runs) {
    const float *const *vectors = device_op(x, op)->state;
    return {.in = rows_in(x, op, op_in(op, 0), step),
            .out = rows_in(x, op, op_out(op, 0), step),
            .factor = rows_in(x, op, op_in(op, 1), step),
            .gate = rows_in(x, op, op_operand(op, ROLE_GATE, 0), step),
            .gate_act = op->gate,
            .width = x->plan->regs[op_in(op, 0)].width,
            .n_tap = op->conv.n_tap,
            .weight = vectors[0],
            .bias = vectors[1],
            .act = op->conv.act,
            .cache = cache_of(x, op),
            .runs = runs};
}

Recurrence recurrence_of(const Rank *x, const Op *op, const Step &step, const Runs &runs) {
    const float *const *vectors = device_op(x, op)->state;
    auto in = [&](int k) { return rows_in(x, op, op_in(op, k), step); };
    StateShape shape = op_state_shape(op);
    Recurrence r = {.out = rows_in(x, op, op_out(op, 0), step),
                    .gate = rows_in(x, op, op_operand(op, ROLE_GATE, 0), step),
                    .gate_act = op->gate,
                    .n_head = shape.n_head,
                    .v_dim = shape.width,
                    .k_dim = shape.n,
                    .delta = op->code == OP_DELTA,
                    .a = vectors[0],
                    .dt_bias = vectors[1],
                    .d = vectors[2],
                    .cache = cache_of(x, op),
                    .runs = runs};
    if (r.delta) {
        const DeltaParams *p = &op->delta;
        r.q = in(0);
        r.k = in(1);
        r.v = in(2);
        r.decay = in(3);
        r.beta = in(4);
        r.n_k_head = p->n_k_head;
        r.k_tiled = p->k_tiled;
        r.per_channel = p->per_channel;
        r.scale = p->scale;
        r.eps = p->eps;
    } else {
        r.v = in(0);
        r.k = in(1);
        r.q = in(2);
        r.decay = in(3);
        r.n_k_head = op->scan.n_group;
    }
    return r;
}

cudaError_t launch_state(const Rank *x, const Op *op, const Step &step, const Runs &runs) {
    if (op->code == OP_CONV) {
        Conv c = conv_of(x, op, step, runs);
        return launch_conv(&x->launch, &c);
    }
    Recurrence r = recurrence_of(x, op, step, runs);
    return launch_recurrence(&x->launch, &r);
}

// Runs of a batch from number `first` on, up to the next one of a sequence that has one among them.
Runs next_runs(const Rank *x, const Step &step, int first) {
    const DeviceRows *rows = &step.set->rows;
    Runs runs = {.seq = rows->seq,
                 .position = rows->position,
                 .first = step.set->run + first,
                 .behind_runs = first > 0};
    std::vector<bool> taken(x->config.n_seq);
    for (int i = first; i + 1 < (int)x->run.size(); i++) {
        int seq = step.batch->seq[x->run[i]];
        if (taken[seq]) break;
        taken[seq] = true;
        runs.n++;
        runs.longest = std::max(runs.longest, x->run[i + 1] - x->run[i]);
    }
    return runs;
}

// An op with a state: mostly one launch; runs of one sequence between which a batch has rows of others are
// launched one behind the other.
cudaError_t run_state(Rank *x, const Op *op, const Step &step) {
    assert(!op->on_R); // the state needs all rows
    const DeviceRows *rows = &step.set->rows;
    if (!step.batch) return launch_state(x, op, step, {rows->seq, rows->position, nullptr, step.T, 1, false});
    cudaError_t error = cudaSuccess;
    int n_runs = (int)x->run.size() - 1;
    for (int first = 0; first < n_runs && error == cudaSuccess;) {
        Runs runs = next_runs(x, step, first);
        error = launch_state(x, op, step, runs);
        first += runs.n;
    }
    return error;
}

cudaError_t run_kvput(Rank *x, const Op *op, const Step &step) {
    Attn a = attn_of(x, op, step);
    return launch_rope_kvput(&x->launch, &a);
}

cudaError_t run_rope(Rank *x, const Op *op, const Step &step) {
    Rotation rotation = rotation_of(x, op);
    cudaError_t error = cudaSuccess;
    for (int k = 0; k < op_count(op, ROLE_BOTH) && error == cudaSuccess; k++)
        error =
            launch_rope(&x->launch, rows_in(x, op, op_operand(op, ROLE_BOTH, k), step), op->rope.n_head[k],
                        op->rope.head_dim, &rotation, step.set->rows.position, step.T);
    return error;
}

cudaError_t run_norm(Rank *x, const Op *op, const Step &step, int n) {
    const NormParams *p = &op->norm;
    Norm norm = {.in = rows_in(x, op, op_in(op, 0), step),
                 .gate = rows_in(x, op, op_operand(op, ROLE_GATE, 0), step),
                 .residual = rows_in(x, op, op_operand(op, ROLE_RESIDUAL, 0), step),
                 .out = rows_in(x, op, op_out(op, 0), step),
                 .gate_act = op->gate,
                 .weight = device_op(x, op)->vector,
                 .bias = device_op(x, op)->bias[0],
                 .eps = p->eps,
                 .sum_scale = op->sum_scale,
                 .width = x->plan->regs[op_in(op, 0)].width,
                 .head_dim = p->head_dim,
                 .centred = p->centred,
                 .per_head = p->per_head};
    return launch_norm(&x->launch, &norm, n);
}

cudaError_t run_sample(Rank *x, const Op *op, const Step &step) {
    SampleStep s = {};
    s.logits = reg(x, op_in(op, 0));
    s.n_vocab = x->plan->regs[op_in(op, 0)].width;
    s.R = step.R;
    s.rows = step.set->rows;
    s.loop = !step.batch;
    s.chain = step.chain;
    s.history = x->history;
    s.step = step.set->step;
    s.ring = step.set->ring;
    s.ring_steps = step.set->ring_steps;
    s.ring_rows = x->config.R_max;
    s.scratch = x->sample_scratch;
    return launch_sample(&x->launch, &s);
}

cudaError_t run_op(Rank *x, const Op *op, const Step &step) {
    const Launch *l = &x->launch;
    int n = rows_of(op, step), out = op_out(op, 0), width = out == NO_REG ? 0 : x->plan->regs[out].width;
    if (n == 0) return cudaSuccess;
    RegRows in = rows_in(x, op, op_in(op, 0), step), in2 = rows_in(x, op, op_in(op, 1), step),
            to = rows_in(x, op, out, step);
    switch (op->code) {
    case OP_EMBED:
        return launch_embed(l, &device_op(x, op)->w[0],
                            op->embed.by_position ? step.set->rows.position : step.set->rows.token,
                            op->embed.scale, n, to);
    case OP_NORM:
        return run_norm(x, op, step, n);
    case OP_MATMUL:
    case OP_EXPERT:
    case OP_LOGITS:
        return run_product(x, op, step);
    case OP_ROPE:
        return run_rope(x, op, step);
    case OP_KVPUT:
        return run_kvput(x, op, step);
    case OP_ATTN:
        return run_attn(x, op, step);
    case OP_GLU: {
        Glu g = {op->glu, in, in2, to, width, width / x->plan->regs[op_in(op, 0)].width};
        return launch_glu(l, &g, n);
    }
    case OP_ADD:
        return launch_add(l, in, in2, &op->add, width, n, to);
    case OP_SLICE:
        return launch_slice(l, in, &op->slice, width, n, to);
    case OP_JOIN: {
        int heads = op->join.n_head, a_dim = x->plan->regs[op_in(op, 0)].width / heads;
        Join j = {in, in2, to, a_dim, width / heads - a_dim, heads};
        return launch_join(l, &j, n);
    }
    case OP_ROUTE: {
        RegRows weights = rows_in(x, op, op_out(op, 1), step);
        Route r = {in, op->moe, to, weights};
        r.moe.bias = device_op(x, op)->bias[0];
        return launch_route(l, &r, n);
    }
    case OP_MOE_SUM: {
        RegRows residual = rows_in(x, op, op_operand(op, ROLE_RESIDUAL, 0), step);
        MoeSum m = {in, in2, op->moe.n_used, width, op->moe.scale, residual, to};
        return launch_moe_sum(l, &m, n);
    }
    case OP_CONV:
    case OP_SCAN:
    case OP_DELTA:
        return run_state(x, op, step);
    case OP_SAMPLE:
        return run_sample(x, op, step);
    case OP_COUNT:
        break;
    }
    return cudaErrorNotSupported;
}

// Runs the first of n ops and, in the same kernel, those behind it that can be fused; *together: how many.
cudaError_t run_fused(Rank *x, const Op *op, int n, const Step &step, bool narrow, int *together) {
    Fusion fusion;
    int n_ops = narrow ? longest_fusion(x, op, n, step, &fusion) : 0;
    *together = std::max(n_ops, 1);
    return n_ops > 1 ? launch_fusion(&x->launch, &fusion) : run_op(x, op, step);
}

} // namespace

void find_runs(const Batch *b, std::vector<int32_t> *runs, std::vector<AttnPiece> *pieces) {
    runs->clear();
    pieces->clear();
    for (int t = 0, n; t < b->T; t += n) {
        n = run_rows(b, t);
        runs->push_back(t);
        if (is_prompt(b, t)) pieces->push_back({t, n});
    }
    runs->push_back(b->T);
}

RegRows rows_in(const Rank *x, const Op *op, int r, const Step &step) {
    if (r == NO_REG) return {};
    bool mapped = op->on_R && !x->plan->regs[r].on_R && step.batch;
    return {reg(x, r), stride_of(x, r), mapped ? step.set->rows.out_row : nullptr};
}

Product product_of(const Rank *x, const Op *op, const Step &step) {
    const DeviceOp *device = device_op(x, op);
    Product p = product_shape(x->plan, op);
    for (int k = 0; k < op->n_w; k++) {
        int out = op_out(op, op_count(op, ROLE_WRITE) > 1 ? k : 0);
        p.segment[k] = {device->w[k], device->bias[k], reg(x, out), stride_of(x, out)};
    }
    p.in = rows_in(x, op, op_in(op, 0), step);
    int gate = op_operand(op, ROLE_GATE, 0);
    if (gate != NO_REG)
        p.gate = {rows_in(x, op, gate, step), x->plan->regs[gate].width > 1, op->gate == ACT_SIGMOID};
    p.residual = rows_in(x, op, op_operand(op, ROLE_RESIDUAL, 0), step);
    p.norm = device->vector;
    p.flagged = device->flagged;
    int ids = op_operand(op, ROLE_IDS, 0);
    if (ids != NO_REG) {
        assert(x->plan->regs[ids].on_R == op->on_R && "ids are of the rows that have been routed");
        p.ids = (const int32_t *)reg(x, ids);
        p.ids_stride = stride_of(x, ids);
    }
    return p;
}

Product product_shape(const Plan *plan, const Op *op) {
    const ProductParams *params = &op->product;
    Product p = {};
    p.n_segments = op->n_w;
    bool pair = op->n_w == 2 && op_count(op, ROLE_WRITE) == 1;
    (pair ? p.act : p.act_alone) = params->act;
    p.scale = params->scale;
    p.softcap = params->softcap;
    p.norm_eps = params->norm.eps;
    for (int k = 0; k < op->n_w; k++) {
        const Weight *w = op->w[k];
        p.segment[k].w = {w->type, w->n_in, w->n_out, w->n_expert, layout_of(w->type, w->n_in, w->n_out)};
    }
    if (op->code == OP_EXPERT) {
        p.n_used = params->moe.n_used;
        p.per_slot = plan->regs[op_in(op, 0)].width != op->w[0]->n_in;
    }
    return p;
}

cudaError_t run_ops(Rank *x, const Step &step, int first_op, int last_op) {
    bool narrow = is_narrow(x, step);
    for (int i = first_op, n; i < last_op; i += n) {
        cudaError_t error = run_fused(x, x->plan->ops + i, last_op - i, step, narrow, &n);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
