/* perplexity: how well a model predicts a text, and how far its predictions are from another's.
 *
 * Text, windows and formulas are llama-perplexity's, so that the numbers can be compared.  Each window (see
 * logits_file.h) is a context of its own; BOS replaces its first token if the model has one, and the
 * predictions of its second half count, which have at least half a window before them:
 *
 *     nll         = -ln P(token)                     of the token that follows, in nats
 *     perplexity  = e^mean(nll)
 *     KL          = sum P_base (ln P_base - ln P)    over the tokens with ln P_base > -16
 *     same top    = the likeliest token is the base's likeliest one
 *
 * The numbers of every prediction are kept and summed in the order of the text, so that results do not depend
 * on the number of threads.  Errors are standard errors as if predictions were independent of each other.
 *
 * The one trick: logits are evaluated where the executor left them, those of one run at a time, so that the
 * memory for logits is that of one run, whatever the length of the text. */
#ifndef ZGEN_RUN_PERPLEXITY_H
#define ZGEN_RUN_PERPLEXITY_H

#include "engine.h"
#include "logits_file.h"

typedef struct Perplexity {
    int n_rows;      // predictions evaluated so far
    int n_windows;   // finished ones
    double *nll;     // [n_rows]
    double *running; // [n_windows] perplexity of the text up to the end of each window
    int n_cut;       // tokens of the text for which the base has only an upper limit of the probability
    double *base_nll, *kl, *same_top; // [n_rows], NULL without a base; same_top is 0 or 1
} Perplexity;

typedef struct PerplexityTask {
    const int32_t *ids;   // the text, each below n_vocab: windows of n_ctx, n_ctx or stride after each other
    int n_ctx, n_windows; // n_ctx >= WINDOW_MIN; n_windows * perplexity_rows is an int
    int stride;    // tokens from window to window, less than n_ctx: the last `stride` predictions of each
                   // count; 0: windows do not overlap.  Not with base or save, whose format has no stride
    int bos;       // replaces the first token of a window; -1: the text's own token stays
    int n_threads; // that evaluate
    const LogitsFile *base;                               // of the same ids and vocabulary; NULL: none
    bool (*save)(void *arg, const void *bytes, size_t n); // receives the rows of a LogitsFile, or NULL
    bool (*go_on)(void *arg, const Perplexity *so_far);   // called after each run; false ends it
    void *arg;                                            // of both
} PerplexityTask;

/* The predictions that count in a window of the task. */
int perplexity_rows(const PerplexityTask *t);

/* The engine has at least n_ctx positions; its R_max is the number of rows of logits in memory at once.
 * false: *e, or code 0 when save or go_on returned false.  perplexity_free releases *out in both cases. */
bool perplexity_run(Engine *g, const PerplexityTask *t, Perplexity *out, Err *e);
void perplexity_free(Perplexity *p);

typedef struct Estimate {
    double value, error; // one standard error
} Estimate;

/* e^mean with the error e^mean * error(mean); and the mean. */
Estimate perplexity_of(const double *nll, int n);
Estimate estimate_mean(const double *x, int n);

/* One prediction: the KL divergence of logits[n_vocab], whose log_sum_exp is log_sum, from a row of a
 * LogitsFile, in nats; whether both have the same likeliest token (the first of equals).  false: the row does
 * not hold log-probabilities. */
bool perplexity_compare(const uint8_t *row, const float *logits, int n_vocab, double log_sum, double *kl,
                        bool *same_top);

#endif
