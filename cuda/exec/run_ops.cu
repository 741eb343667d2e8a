// run_ops: from ops to launches.
//
// An op is a kernel or two.  The tape is the same for all rows, the kernels are not: the single row of a
// decode step goes through products that follow each other as one kernel, and puts its keys and values where
// attention meets them; the rows of prompts go through the matrix units, put theirs first, and are attended
// in tiles.
#include <algorithm>

#include "exec.cuh"

namespace {

constexpr int GEMM_ROWS = 33;   // from here on the matrix units win over exact block sums
constexpr int PROMPT_ROWS = 16; // of one sequence: from here on attention is tiled

template <class T> T *device_vector(const Exec *x, const T *host) {
    return host ? (T *)x->vectors.at(host) : nullptr;
}

int rows_of(const Op *op, const Step &step) {
    return op->on_R ? step.R : step.T;
}

// The rows of a register that an op reads or writes: an op on the R rows finds them in a register of T rows by
// the batch's map.
RegRows rows_in(const Exec *x, const Op *op, int r) {
    if (r == NO_REG) return {};
    return {reg(x, r), stride_of(x, r), op->on_R && !x->plan->regs[r].on_R ? x->d.out_row : nullptr};
}

Product product_of(const Exec *x, const Op *op) {
    Product p = {};
    p.n_segments = op->n_w;
    for (int k = 0; k < op->n_w; k++) {
        int out = op->out[op->glu ? 0 : k];
        p.segment[k] = {x->weights.at(op->w[k]), device_vector(x, op->bias[k]), reg(x, out),
                        stride_of(x, out)};
    }
    p.in = rows_in(x, op, op->in);
    p.residual = rows_in(x, op, op->residual);
    p.norm = op->code == OP_EXPERT ? nullptr : device_vector(x, op->vector), p.norm_eps = op->eps;
    p.glu = op->glu;
    if (op->code == OP_MATMUL) p.link = x->links.at(op);
    if (op->code == OP_EXPERT) {
        p.ids = (const int32_t *)reg(x, op->ids), p.ids_stride = stride_of(x, op->ids),
        p.n_used = op->moe.n_used;
        p.per_slot = x->plan->regs[op->in].width != op->w[0]->n_in;
    }
    return p;
}

// Rows from t on that follow each other in one sequence.
int piece_rows(const Batch *b, int t) {
    int n = 1;
    while (t + n < b->T && b->seq[t + n] == b->seq[t] && b->position[t + n] == b->position[t] + n) n++;
    return n;
}

// n ops, for a single row a chain, or one op.  Of many rows those of prompts go through the matrix units in
// f16, but never a sequence's single row: it gives the same bytes alone and among others.
cudaError_t run_products(Exec *x, const Op *op, int n, const Step &step) {
    Product p[MAX_PRODUCTS];
    for (int i = 0; i < n; i++) p[i] = product_of(x, op + i);
    int rows = rows_of(op, step);
    if (rows == 0) return cudaSuccess;
    if (step.decode || rows < GEMM_ROWS || !x->gemm || op->code != OP_MATMUL || op->on_R)
        return launch_products(&x->launch, p, n, rows);
    cudaError_t error = cudaSuccess;
    for (int first = 0, end = 0; first < rows && error == cudaSuccess; first = end) {
        bool single = piece_rows(x->batch, first) == 1;
        do end += piece_rows(x->batch, end);
        while (end < rows && (piece_rows(x->batch, end) == 1) == single);
        Product some = product_rows(p[0], first);
        error = single || end - first < GEMM_ROWS ? launch_products(&x->launch, &some, 1, end - first)
                                                  : launch_gemm(x->gemm, &x->launch, &some, end - first);
    }
    return error;
}

DeviceKv layer_kv(const Exec *x, const Op *op) {
    size_t positions = kv_positions(x->config.n_ctx);
    size_t bytes = (size_t)x->config.n_seq * op->attn.n_kv_head * positions *
                   kv_row_bytes(x->config.kv_type, op->attn.head_dim);
    uint8_t *k = x->kv + x->kv_offset[op->attn.kv_layer];
    return {k, k + bytes, x->config.kv_type, (int)positions, op->attn.n_kv_head, op->attn.head_dim};
}

// Keys and values that an attention puts into the cache.
NewKv new_kv_of(const Exec *x, const Op *op) {
    return {reg(x, op->in2), reg(x, op->in3), op->rope.n_rot ? x->frequencies.at(op) : nullptr,
            op->rope.n_rot};
}

// Decoding, all in one: a row of each sequence.  Otherwise new keys and values are put first; then prompt
// pieces are tiled one by one, and the rows between them, few of each sequence, go together as if decoding.
cudaError_t run_attn(Exec *x, const Op *op, const Step &step) {
    DeviceKv kv = layer_kv(x, op);
    bool puts = op->in3 != NO_REG;
    NewKv fresh = puts ? new_kv_of(x, op) : NewKv{};
    float *q = reg(x, op->in), *out = reg(x, op->out[0]);
    auto launch = [&](int first, int n, bool decode) {
        return launch_attn(&x->launch, q + (size_t)first * stride_of(x, op->in), op->attn.n_head,
                           puts && step.decode ? &fresh : nullptr, &kv, op->attn.scale, x->d.seq + first,
                           x->d.position + first, n, decode, out + (size_t)first * stride_of(x, op->out[0]),
                           x->attn_scratch);
    };
    if (step.decode) return launch(0, step.T, true);
    cudaError_t error = cudaSuccess;
    if (puts)
        error =
            launch_rope_kvput(&x->launch, q, op->attn.n_head, &fresh, &kv, x->d.seq, x->d.position, step.T);
    if (error != cudaSuccess) return error;
    const Batch *b = x->batch;
    int few = 0; // where the rows that wait for a common launch begin
    for (int t = 0; t < b->T;) {
        int n = piece_rows(b, t);
        if (n >= PROMPT_ROWS) {
            if (few < t) error = launch(few, t - few, true);
            if (error == cudaSuccess) error = launch(t, n, false);
            if (error != cudaSuccess) return error;
            few = t + n;
        }
        t += n;
    }
    return few < b->T ? launch(few, b->T - few, true) : cudaSuccess;
}

cudaError_t run_sample(Exec *x, const Op *op, const Step &step) {
    SampleStep s = {};
    s.logits = reg(x, op->in), s.n_vocab = x->plan->regs[op->in].width, s.R = step.R;
    s.samplers = x->samplers, s.seq = x->d.out_seq;
    s.token = step.decode ? x->d.token : x->d.next_token; // decoding feeds itself
    s.position = step.decode ? x->d.position : x->d.next_position;
    s.ring = x->ring, s.ring_steps = RING_STEPS, s.step_counter = x->step_counter,
    s.scratch = x->sample_scratch;
    return launch_sample(&x->launch, &s);
}

cudaError_t run_op(Exec *x, const Op *op, const Step &step) {
    const Launch *l = &x->launch;
    int n = rows_of(op, step), out = op->out[0];
    if (n == 0) return cudaSuccess;
    RegRows in = rows_in(x, op, op->in), in2 = rows_in(x, op, op->in2), to = rows_in(x, op, out);
    switch (op->code) {
    case OP_EMBED:
        return launch_embed(l, &x->weights.at(op->w[0]), x->d.token, n, to);
    case OP_NORM:
        return launch_norm(l, in, device_vector(x, op->vector), x->plan->regs[op->in].width, op->eps, n, to);
    case OP_MATMUL:
    case OP_EXPERT:
    case OP_LOGITS:
        return run_products(x, op, 1, step);
    case OP_ATTN:
        return run_attn(x, op, step);
    case OP_GLU:
        return launch_glu(l, in, in2, x->plan->regs[out].width, n, to);
    case OP_ADD:
        return launch_add(l, in, in2, x->plan->regs[out].width, n, to);
    case OP_ROUTE: {
        Route r = {in, op->moe.n_expert, op->moe.n_used, op->moe.scale, to, rows_in(x, op, op->out[1])};
        return launch_route(l, &r, n);
    }
    case OP_MIX: {
        MoeSum m = {in,
                    rows_in(x, op, op->ids),
                    op->moe.n_used,
                    x->plan->regs[out].width,
                    rows_in(x, op, op->residual),
                    to};
        return launch_moe_sum(l, &m, n);
    }
    case OP_SAMPLE:
        return x->batch && !x->batch->sampling ? cudaSuccess : run_sample(x, op, step);
    default:
        return cudaErrorNotSupported; // not in plans of this executor
    }
}

// Runs the first of n ops together with those behind it that go with it; their number in *together.
cudaError_t run_ops(Exec *x, const Op *op, int n, const Step &step, int *together) {
    int chained = 0;
    while (chained < n && chained < MAX_PRODUCTS && rows_of(op + chained, step) == 1 &&
           (op[chained].code == OP_MATMUL || op[chained].code == OP_LOGITS))
        chained++;
    *together = std::max(chained, 1);
    return chained ? run_products(x, op, chained, step) : run_op(x, op, step);
}

} // namespace

cudaError_t walk(Exec *x, const Step &step, int first_op, int last_op) {
    for (int i = first_op, n; i < last_op; i += n) {
        cudaError_t error = run_ops(x, x->plan->ops + i, last_op - i, step, &n);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}
