// loop: the decode loop: steps that the GPU runs ahead of the host.
//
// A step is captured as a graph, once per bucket of rows, and once more where a row has a chain of filters of
// its own, for which SAMPLE has one more kernel.  Its last kernel writes the next token of each row
// where its first kernel reads, so that steps are enqueued ahead of the host, which only polls a ring in
// pinned memory.
//
// Slots are joined and left between two graph launches, by kernels of one thread on the same stream: enqueued
// steps are unchanged, and the change takes effect with the next step that is enqueued.  The host records the
// slot of each row of an enqueued step; a slot that is left is removed from these records, so that its tokens
// are dropped.
#include <algorithm>
#include <cassert>
#include <ctime>

#include "exec.cuh"
#include "../../src/exec/sample_math.h"

namespace {

bool capture(Exec *x, Rank *rank, int bucket, bool chain, Err *e) {
    cudaGraph_t graph;
    cudaError_t error = cudaStreamBeginCapture(rank->launch.stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) return fail(e, error, "beginning to capture a step");
    cudaError_t launched = run_ops(rank, step_of_loop(rank, bucket, chain), 0, rank->plan->n_ops);
    error = cudaStreamEndCapture(rank->launch.stream, &graph);
    if (launched != cudaSuccess || error != cudaSuccess)
        return fail(e, launched != cudaSuccess ? launched : error, "capturing a step");
    cudaGraphExec_t ready;
    error = cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphDestroy(graph);
    if (error != cudaSuccess) return fail(e, error, "instantiating a step");
    rank->graph[bucket + chain * CHAIN_GRAPH] = ready;
    error = cudaGraphUpload(ready, rank->launch.stream);
    x->counters.captures++;
    return error == cudaSuccess || fail(e, error, "uploading a step");
}

// ---- rows -----------------------------------------------------------------------------------------------

int row_of(const Loop *loop, int slot) {
    int r = 0;
    while (r < loop->n && loop->slot[r] != slot) r++;
    return r < loop->n ? r : -1;
}

// Frees row r and moves the last row there.
cudaError_t drop_row(Exec *x, int r) {
    Loop *loop = &x->loop;
    int last = --loop->n;
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++)
        error = launch_row_move(&x->rank[i].launch, &x->rank[i].loop.rows, last, r);
    loop->slot[r] = loop->slot[last];
    loop->position[r] = loop->position[last];
    loop->n_left[r] = loop->n_left[last];
    loop->chain[r] = loop->chain[last];
    return error;
}

// ---- steps ----------------------------------------------------------------------------------------------

bool enqueue_step(Exec *x, Err *e) {
    Loop *loop = &x->loop;
    int bucket = bucket_of(loop->n);
    bool chain = loop_has_chain(loop);
    cudaError_t extended = extend_loop(x);
    if (extended != cudaSuccess) return fail(e, extended, "extending the cache");
    for (int i = 0; i < x->n_ranks; i++) {
        Rank *rank = &x->rank[i];
        int graph = bucket + chain * CHAIN_GRAPH;
        if (!rank->graph.count(graph) && !capture(x, rank, bucket, chain, e)) return false;
        cudaError_t error = cudaGraphLaunch(rank->graph.at(graph), rank->launch.stream);
        if (error != cudaSuccess) return fail(e, error, "launching a step");
    }
    std::vector<StepRow> *step = &loop->steps[++loop->enqueued % RING_STEPS];
    step->clear();
    x->counters.steps++;
    x->counters.row_steps += loop->n;
    for (int r = 0; r < loop->n; r++) step->push_back({loop->slot[r], loop->position[r]++});
    cudaError_t error = cudaSuccess;
    for (int r = loop->n - 1; r >= 0 && error == cudaSuccess; r--)
        if (--loop->n_left[r] == 0) error = drop_row(x, r);
    return error == cudaSuccess || fail(e, error, "ending a row");
}

// The number of a step, read before the token that the GPU wrote with it.
uint32_t step_in(const RingEntry *entry) {
    return __atomic_load_n(&entry->step, __ATOMIC_ACQUIRE);
}

// Waits until an entry of the ring is that of a step.  A GPU that failed is an error of its stream, never a
// hang.
cudaError_t wait_for_entry(const Rank *rank, const RingEntry *entry, uint32_t step) {
    for (int spins = 0; step_in(entry) != step; spins++) {
        if (spins % 1024 != 1023) continue;
        cudaError_t error = cudaStreamQuery(rank->launch.stream);
        if (error != cudaSuccess && error != cudaErrorNotReady) return error;
        if (error == cudaSuccess && step_in(entry) != step)
            return cudaErrorLaunchFailure; // idle, and the entry is not written
        if (spins > 1 << 16) {
            struct timespec nap = {0, 20000};
            nanosleep(&nap, nullptr);
        }
    }
    return cudaSuccess;
}

// The tokens of a step for the slots that were not left; *n_tokens of them.
bool take_step(Exec *x, uint32_t step, int32_t *tokens, int *n_tokens, Err *e) {
    const Rank *rank = &x->rank[0]; // SAMPLE runs there
    const RingEntry *entries = rank->loop.ring + (size_t)((step - 1) % RING_STEPS) * rank->config.R_max;
    const std::vector<StepRow> &rows = x->loop.steps[step % RING_STEPS];
    *n_tokens = 0;
    for (size_t r = 0; r < rows.size(); r++) {
        if (rows[r].slot < 0) continue;
        cudaError_t error = wait_for_entry(rank, entries + r, step);
        if (error != cudaSuccess) return fail(e, error, "a decode step");
        if (entries[r].token < 0) return exec_not_finite(rank->plan, rows[r].position, e);
        tokens[rows[r].slot] = entries[r].token;
        ++*n_tokens;
    }
    return true;
}

// Behind a batch a single step is enqueued: while prompts are read in between, steps further ahead would be
// computed early and fetched late.
bool next_step(Exec *x, int32_t *tokens, Err *e) {
    Loop *loop = &x->loop;
    uint32_t ahead = loop->ran ? 1 : AHEAD;
    loop->ran = false;
    for (int n_tokens = 0; n_tokens == 0;) {
        while (loop->n > 0 && loop->enqueued < loop->taken + ahead)
            if (!enqueue_step(x, e)) return false;
        assert(loop->taken < loop->enqueued && "a slot has a step left");
        if (!take_step(x, ++loop->taken, tokens, &n_tokens, e)) return false;
    }
    return true;
}

// Drops the tokens of a slot that were not fetched, and takes their rows back.
void drop_tokens(Exec *x, int slot) {
    Loop *loop = &x->loop;
    for (uint32_t step = loop->enqueued; step > loop->taken; step--)
        for (StepRow &row : loop->steps[step % RING_STEPS]) {
            if (row.slot != slot) continue;
            bool ok = cache_truncate(x->cache, slot, row.position);
            assert(ok && "no more than AHEAD steps are ahead");
            (void)ok;
            row.slot = -1;
        }
}

// An error of the launch shows at the next call.
void leave(Exec *x, int slot) {
    int r = row_of(&x->loop, slot);
    if (r >= 0) drop_row(x, r);
    drop_tokens(x, slot);
}

} // namespace

bool loop_has_chain(const Loop *loop) {
    return std::find(loop->chain.begin(), loop->chain.begin() + loop->n, true) !=
           loop->chain.begin() + loop->n;
}

bool cuda_decode_join(Exec *x, int slot, const DecodeStart *start, Err *e) {
    Loop *loop = &x->loop;
    int row = loop->n;
    cudaError_t error = cudaSuccess;
    assert(row_of(loop, slot) < 0 && start->n_steps > 0);
    for (int i = 0; i < x->n_ranks && error == cudaSuccess; i++) {
        Rank *rank = &x->rank[i];
        DeviceSampler sampler;
        error = make_sampler(x, rank, &start->params, rank->loop.banned + slot * ban_words(rank),
                             &rank->loop.tables[slot], &sampler);
        if (error == cudaSuccess)
            error = launch_row_begin(&rank->launch, &rank->loop.rows, row, start->token, slot,
                                     start->position, &sampler, rank->history);
        x->counters.bytes_sent += sizeof sampler + 3 * sizeof(int32_t);
    }
    if (error != cudaSuccess) return fail(e, error, "joining the decode loop");
    loop->slot[row] = slot;
    loop->position[row] = start->position;
    loop->n_left[row] = start->n_steps;
    loop->chain[row] = has_own_chain(&start->params);
    loop->n++;
    x->counters.joins++;
    return true;
}

void cuda_decode_leave(Exec *x, int slot) {
    leave(x, slot);
    x->counters.leaves++;
}

bool cuda_decode_next(Exec *x, int32_t *tokens, Err *e) {
    int n_seq = x->rank[0].config.n_seq;
    std::fill(tokens, tokens + n_seq, -1);
    if (next_step(x, tokens, e)) return true;
    for (int slot = 0; slot < n_seq; slot++) leave(x, slot);
    return false;
}
