/* verify: the first steps of a run once more, beside the scalar executor.
 *
 * The oracle is an engine of its own: the same model and conversion of weights, the same cache and activation
 * rules, on the scalar kernels, which are slow and can be read.  Both get the tokens that the run really
 * said, so that one difference does not make all that follow; step 1 is the choice behind the prompt.
 *
 * Steps that a GPU drives itself show no logits.  So the run's own executor computes them again, in the same
 * pieces behind the same cache, which gives the same bits; and from these the reference of the sampler must
 * choose the very tokens that were said, at any temperature.  What the loop and the device's sampler do wrong
 * shows there, what the kernels do wrong in the distance between the rows.
 *
 * The limits are those of golden/README.md:
 *
 *     1  nothing is rounded to 8 bits         NMSE <= 3e-5
 *     3  activations or cache in 8 bits       NMSE and mean KL: four times what that rounding does to this
 *                                             file, or to the least touched one of the README's table
 *     4  experts                              the same of the median step; a tenth may be ten times as far
 *     5  another token is ranked first        only where the oracle's margin is below 0.05, or 0.5 in 8 bits
 *
 * What the rounding does is measured over the same steps: how far the oracle is from a third executor, the
 * exact one, scalar with float activations and an f32 cache. */
#ifndef ZGEN_RUN_VERIFY_H
#define ZGEN_RUN_VERIFY_H

#include "engine.h"

typedef struct Far { // of rows of logits from others
    double kl, nmse; // KL in nats, mean over the steps; NMSE over all; of experts the medians
    double max_kl;   // of a step
    int max_step;    // which; steps count from 1
} Far;

typedef struct Limits {
    double nmse, kl, margin; // kl: infinite where the rules have none
} Limits;

typedef struct Verdict {
    int n_steps;       // that were compared
    int n_agree;       // of them: both rank the same token first
    bool by_median;    // experts
    Far run, rounding; // the run from the oracle, the oracle from the exact executor (0 where it is one)
    int n_far;         // steps beyond ten times the limit of NMSE
    double margin;     // by how much the oracle prefers its first token to the run's, at most; 0: they agree
    int margin_step;   // where that is
    int said_step;     // the first token that the sampler does not choose from the run's logits; 0: none
    int32_t said, chosen; // then
    Limits limits;
} Verdict;

typedef struct Verify Verify;

/* Opens what stands beside a run with that configuration, for its first n_wanted steps.  false: see
 * engine_open.
 */
bool verify_open(const Model *m, const EngineConfig *run, int n_wanted, Verify **out, Err *e);
void verify_close(Verify *v); // NULL is fine

/* A new verdict, on what sequence 0 of the engine said last.  `stopped` is asked between pieces: then it is
 * about the steps before.  false: *e of one of the executors. */
bool verify_sequence(Verify *v, Engine *g, bool (*stopped)(void), Err *e);

/* Adds to the verdict the logits of a run behind ids[0..position]; positions come in order from 0, and those
 * beyond n_wanted are passed over. */
bool verify_row(Verify *v, const int32_t *ids, int position, const float *logits, Err *e);

Verdict verify_verdict(const Verify *v);

/* Whether the run is within the limits.  false: ERR_RUN, which rule it broke at which step. */
bool verify_passes(const Verdict *v, Err *e);

#endif
