/* verify: the first steps of a run compared with the scalar executor.
 *
 * The oracle is an engine of its own: the same model, conversion of weights, cache type and activation
 * rules, on the scalar kernels, which are slow and easy to read.  Both engines get the tokens that the run
 * generated, so that one difference does not change all later steps.  Step 1 is the choice behind the
 * prompt.
 *
 * A GPU that decodes in a loop of its own returns tokens and no logits.  The run's executor therefore
 * computes the logits of these steps again, in the same chunks over the same cache, which gives the same
 * bits.  From these logits the reference sampler must choose exactly the tokens that were generated, at any
 * temperature: an error of the loop or of the device's sampler is a wrong token, an error of a kernel is a
 * distance between the logits.
 *
 * Limits.  NMSE is sum (a - b)^2 / sum b^2, KL the Kullback-Leibler divergence in nats:
 *
 *     nothing rounded to 8 bits         NMSE <= 3e-5
 *     activations or cache in 8 bits    NMSE and mean KL: four times the effect of that rounding on this
 *                                       model, which counts as 1e-4 and 5e-4 at least
 *     experts                           the same of the median step; one step of ten may exceed ten times the
 *                                       limit of NMSE, as another expert may have been chosen
 *     another token ranked first        only where the oracle prefers its own by less than 0.05, or by less
 *                                       than 0.5 with 8 bits
 *
 * The effect of rounding is measured over the same steps: the distance of the oracle from a third executor,
 * the exact one, which is scalar with float activations and an f32 cache. */
#ifndef ZGEN_RUN_VERIFY_H
#define ZGEN_RUN_VERIFY_H

#include "engine.h"

typedef struct LogitsDistance { // of the rows of one executor from those of another
    double kl, nmse;            // mean KL of the steps, NMSE over all of them; with experts the medians
    double max_kl;              // the largest KL of a step
    int max_step;               // its step, counted from 1
} LogitsDistance;

typedef struct Limits {
    double nmse, kl, margin; // kl: infinite where nothing is rounded to 8 bits
} Limits;

typedef struct Verdict {
    int n_steps;    // that were compared
    int n_agree;    // of them: both executors rank the same token first
    bool by_median; // a model with experts
    LogitsDistance run,
        rounding;    // the run from the oracle, the oracle from the exact executor (0 if it is exact)
    int n_outliers;  // steps beyond ten times the limit of NMSE
    double margin;   // the most by which the oracle prefers its first token to the run's; 0: none
    int margin_step; // its step
    int wrong_step;  // the first whose token the sampler does not choose from the run's logits; 0: none
    int32_t generated, chosen; // at wrong_step: the run's token, and the sampler's
    Limits limits;
} Verdict;

typedef struct Verify Verify;

/* Opens the engines that check the first n_wanted steps of runs with that configuration.  false: see
 * engine_open. */
bool verify_open(const Model *m, const EngineConfig *run, int n_wanted, Verify **out, Err *e);
void verify_close(Verify *v); // NULL is fine

/* A new verdict, on the latest tokens of sequence 0 of the engine.  `stopped` is called between chunks;
 * once it returns true, the verdict is of the steps so far.  false: *e of one of the executors. */
bool verify_sequence(Verify *v, Engine *g, bool (*stopped)(void), Err *e);

/* Adds to the verdict the logits of a run behind ids[0..position].  Positions come in order from 0; those
 * from n_wanted on are not compared. */
bool verify_row(Verify *v, const int32_t *ids, int position, const float *logits, Err *e);

Verdict verify_verdict(const Verify *v);

/* Whether the run is within the limits.  false: ERR_RUN, the limit and the step that exceeds it. */
bool verify_passes(const Verdict *v, Err *e);

#endif
