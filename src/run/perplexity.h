/* perplexity: how well a model predicts a text, and how far its predictions are from another's.
 *
 * Text, windows and formulas are llama-perplexity's, so that the numbers may stand beside each other.  Each
 * window (see logits_file.h) is read from nothing; its first token gives way to BOS where the model wants
 * one, and the predictions of its second half count, which have at least half a window to go by:
 *
 *     nll         = -ln P(token)                     of the token that follows, in nats
 *     perplexity  = e^mean(nll)
 *     KL          = sum P_base (ln P_base - ln P)    over the tokens with ln P_base > -16
 *     same top    = the likeliest token is the base's likeliest one
 *
 * Every prediction's numbers are kept, so that their order, and with it every sum, is that of the text
 * whatever the threads; errors are standard errors as if predictions were independent of each other.
 *
 * The one trick: logits are judged where the executor left them, a run's worth at a time; however large text
 * and vocabulary are, no more of them are ever in memory. */
#ifndef ZGEN_RUN_PERPLEXITY_H
#define ZGEN_RUN_PERPLEXITY_H

#include "engine.h"
#include "logits_file.h"

typedef struct Perplexity {
    int n_rows;      // predictions judged so far
    int n_windows;   // finished ones
    double *nll;     // [n_rows]
    double *running; // [n_windows] the perplexity of all up to the end of each window
    int n_cut;       // tokens of the text of which the base says only that they are very unlikely
    double *base_nll, *kl, *same_top; // [n_rows] beside a base, else NULL; same_top is 0 or 1
} Perplexity;

typedef struct PerplexityTask {
    const int32_t *ids;     // the text, each below n_vocab [n_windows][n_ctx]
    int n_ctx, n_windows;   // n_ctx >= WINDOW_MIN; n_windows * window_rows(n_ctx) is an int
    int bos;                // what a window begins with, or -1: the text's own token
    int n_threads;          // that judge
    const LogitsFile *base; // of the same ids and vocabulary; NULL: none
    bool (*save)(void *arg, const void *bytes, size_t n); // gets the rows of a LogitsFile; NULL: nobody
    bool (*go_on)(void *arg, const Perplexity *so_far);   // asked after each run
    void *arg;                                            // of both
} PerplexityTask;

/* The engine has n_ctx positions at least; R_max bounds the logits that are there at once.  false: *e, or
 * code 0 when save or go_on said so.  perplexity_free releases *out in both cases. */
bool perplexity_run(Engine *g, const PerplexityTask *t, Perplexity *out, Err *e);
void perplexity_free(Perplexity *p);

typedef struct Estimate {
    double value, error; // one standard error
} Estimate;

/* e^mean and its error, e^mean times that of the mean; and the mean itself. */
Estimate perplexity_of(const double *nll, int n);
Estimate estimate_mean(const double *x, int n);

/* One prediction: the KL divergence of logits[n_vocab], whose log_sum_exp is log_sum, from a row of a
 * LogitsFile, in nats; whether both have the same likeliest token (of equals the first).  false: the row's
 * numbers are no log-probabilities. */
bool perplexity_compare(const uint8_t *row, const float *logits, int n_vocab, double log_sum, double *kl,
                        bool *same_top);

#endif
