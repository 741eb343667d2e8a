/* answer: see answer.h. */
#include "answer.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

bool answer_has_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return out_is_terminal() && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

void answer_begin(AnswerPrinter *p, bool hides_thoughts, const Session *s) {
    session_think(s, &p->think);
    p->hides_thoughts = hides_thoughts;
    p->colour = answer_has_colour();
    p->last = 0;
}

static bool print_thought(AnswerPrinter *p, Err *e) {
    const Buf *t = &p->thought;
    p->last = t->data[t->n - 1];
    return p->colour ? out_write_dim(t->data, t->n, e) : out_write(t->data, t->n, e);
}

static bool print(AnswerPrinter *p, Err *e) {
    bool ok = p->thought.n == 0 || p->hides_thoughts || print_thought(p, e);
    if (p->answer.n) p->last = p->answer.data[p->answer.n - 1];
    ok = ok && out_write(p->answer.data, p->answer.n, e);
    buf_clear(&p->thought);
    buf_clear(&p->answer);
    return ok;
}

bool answer_push(AnswerPrinter *p, const char *text, size_t n, Err *e) {
    think_push(&p->think, text, n, &p->thought, &p->answer);
    return print(p, e);
}

bool answer_end(AnswerPrinter *p, Err *e) {
    think_end(&p->think, &p->thought, &p->answer);
    bool ok = print(p, e);
    buf_free(&p->thought);
    buf_free(&p->answer);
    return ok;
}
