/* fuzz_questions: any bytes as a file of questions, in each of the three forms, all of them or some.  What is read must
 * have tokens to score; what is refused must have a reason. */
#include "../../src/text/question.h"

#include <stdlib.h>

static void try(const uint8_t *data, size_t size, QuestionForm form, int n_wanted, const Tok *tok) {
    Err e = {0};
    Questions q;
    bool ok = questions_read(form, (const char *)data, size, "f", n_wanted, tok, &q, &e);
    if (!ok && (e.code != ERR_RUN || !e.text[0])) abort();
    if (ok && (q.n < 1 || q.n > q.n_file || questions_longest(&q) < 2)) abort();
    for (int i = 0; ok && i < q.n; i++)
        for (int k = 0; k < q.items[i].n; k++) {
            const Choice *c = &q.items[i].choices[k];
            if (c->begin < 1 || c->begin >= c->end || (size_t)c->end > c->ids.n) abort();
        }
    questions_free(&q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static Gguf *g;
    static Tok *tok;
    Err e;
    if (!tok && (!gguf_open("test/data/models/llama-s-F32.gguf", &g, &e) || !tok_open(g, &tok, &e))) abort();
    for (int form = QUESTIONS_HELLASWAG; form <= QUESTIONS_MULTIPLE_CHOICE; form++)
        for (int n = 0; n < 3; n += 2) try(data, size, (QuestionForm)form, n, tok);
    return 0;
}
