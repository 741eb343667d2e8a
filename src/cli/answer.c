/* answer: see answer.h. */
#include "answer.h"
#include "messages.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

bool answer_has_colour(void) {
    const char *no = getenv("NO_COLOR");
    return out_obeys_escapes() && !(no && *no);
}

void answer_begin(Answer *a, const Options *o, const Session *s) {
    *a = (Answer){.hides_thoughts = messages_hide_thoughts(o->think),
                  .colour = answer_has_colour(),
                  .keeps = options_json(o),
                  .budget = o->reasoning_budget,
                  .tok = s->tok};
    session_think(s, &a->think);
}

static bool print_thought(const Answer *a, Err *e) {
    const Buf *t = &a->thought;
    return a->colour ? out_write_dim(t->data, t->n, e) : out_write(t->data, t->n, e);
}

/* Prints or keeps what is certain. */
static bool print(Answer *a, Err *e) {
    bool ok = true, shows = a->thought.n && !a->hides_thoughts;
    if (a->keeps) {
        if (shows) buf_add(&a->text, a->thought.data, a->thought.n);
        buf_add(&a->text, a->answer.data, a->answer.n);
        buf_add(&a->reasoning, a->thought.data, a->thought.n);
    } else {
        ok = (!shows || print_thought(a, e)) && out_write(a->answer.data, a->answer.n, e);
        if (shows) a->last = a->thought.data[a->thought.n - 1];
        if (a->answer.n) a->last = a->answer.data[a->answer.n - 1];
    }
    buf_clear(&a->thought);
    buf_clear(&a->answer);
    return ok;
}

/* Counts the new tokens, if the thought had begun before them, and ends the thought behind the last of its
 * budget. */
static bool spend(Answer *a, bool had_begun, Engine *g, const Sequence *q, Err *e) {
    const char *end = think_end_text(&a->think);
    if (had_begun) a->n_thought += q->n_generated - a->n_seen;
    a->n_seen = q->n_generated;
    if (!end || a->budget < 0 || a->n_thought < a->budget || q->finish != FINISH_NONE || q->n_generated == 0)
        return true;
    TokIds ids = {0};
    tok_encode(a->tok, end, strlen(end), TOK_PARSE_SPECIAL, &ids);
    bool ok = engine_insert(g, 0, ids.data, (int)ids.n, e);
    tok_ids_free(&ids);
    return ok;
}

bool answer_take(Answer *a, Engine *g, const Sequence *q, Err *e) {
    size_t from = a->n_taken;
    bool is_inside = think_end_text(&a->think) != NULL;
    a->n_taken = q->n_final;
    if (q->n_final > from)
        think_push(&a->think, q->text.data + from, q->n_final - from, &a->thought, &a->answer);
    return print(a, e) && spend(a, is_inside, g, q, e);
}

bool answer_end(Answer *a, Err *e) {
    think_end(&a->think, &a->thought, &a->answer);
    bool ok = print(a, e);
    buf_free(&a->thought);
    buf_free(&a->answer);
    if (a->reasoning.n) think_strip(&a->reasoning);
    return ok;
}

void answer_free(Answer *a) {
    buf_free(&a->text);
    buf_free(&a->reasoning);
}

void answer_warn(const Answer *a, const Sequence *q, int n_ctx) {
    if (!a->hides_thoughts || a->last || a->text.n || q->finish != FINISH_LENGTH || q->n_generated == 0)
        return;
    bool is_full = q->n_prompt + q->n_generated >= n_ctx;
    err_warn(
        "the thought took all %d tokens of %s, and there is no answer; use a larger one, or --think show",
        q->n_generated, is_full ? "the context (-c)" : "-n");
}
