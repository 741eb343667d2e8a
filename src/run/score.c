/* score: see score.h. */
#include "score.h"
#include "divergence.h"

#include <assert.h>

typedef struct Sum {
    const Choice *choice;
    int n_vocab;
    double log_p;
} Sum;

static bool add_rows(void *arg, const LogitRows *rows) {
    Sum *s = arg;
    for (int i = 0; i < rows->n; i++) {
        const float *logits = rows->data + (size_t)i * rows->stride;
        int32_t next = s->choice->ids.data[rows->position + i + 1];
        s->log_p += (double)logits[next] - log_sum_exp(logits, s->n_vocab);
    }
    return true;
}

bool question_scores(Engine *g, const Question *q, double *scores, Err *e) {
    for (int i = 0; i < q->n; i++) {
        const Choice *c = &q->choices[i];
        Sum sum = {.choice = c, .n_vocab = engine_plan(g)->hparams.n_vocab};
        assert(1 <= c->begin && c->begin < c->end && (size_t)c->end <= c->ids.n);
        if (!engine_logits(g, c->ids.data, c->begin - 1, c->end - 1, add_rows, &sum, e)) return false;
        scores[i] = sum.log_p / (c->end - c->begin);
    }
    return true;
}
