/* engine_text: tokens become text, up to a stop string.
 *
 * The one trick is the held-back tail: text that may yet turn out to be the beginning of a stop string is not
 * final, so that printed text is never taken back. */
#include "engine_impl.h"
#include "../base/mem.h"

#include <string.h>

/* The first offset in text[from..n) at which a stop string begins, or n. */
static size_t find_stop(const Request *r, const Buf *text, size_t from) {
    size_t first = text->n;
    for (int i = 0; i < r->n_stop; i++) {
        size_t length = strlen(r->stop[i]);
        const char *at =
            text->n > from ? memmem(text->data + from, text->n - from, r->stop[i], length) : NULL;
        if (at && (size_t)(at - text->data) < first) first = (size_t)(at - text->data);
    }
    return first;
}

/* Bytes at the end of text that are the beginning of a stop string, the longest such. */
static size_t held_back(const Request *r, const Buf *text) {
    size_t held = 0;
    for (int i = 0; i < r->n_stop; i++) {
        size_t n = strlen(r->stop[i]) - 1;
        if (n > text->n) n = text->n;
        while (n > held && memcmp(text->data + text->n - n, r->stop[i], n) != 0) n--;
        if (n > held) held = n;
    }
    return held;
}

/* The task ends with the text that there is, an unfinished character included. */
static void end_text(Engine *g, Task *t, Finish why) {
    tok_stream_end(&t->stream, &t->seq.text);
    engine_finish(g, t, why);
}

/* Cuts the text at a stop string; an unfinished character behind it is cut, too. */
static void stop_text(Engine *g, Task *t, size_t at) {
    Buf rest = {0};
    tok_stream_end(&t->stream, &rest);
    buf_free(&rest);
    t->seq.text.n = at;
    t->seq.text.data[at] = 0;
    engine_finish(g, t, FINISH_STOP);
}

/* Text before n_final is final: no stop string begins there. */
static void add_text(Engine *g, Task *t, int token) {
    Buf *text = &t->seq.text;
    tok_stream_push(&t->stream, token, text);
    size_t stop = find_stop(&t->request, text, t->seq.n_final);
    if (stop < text->n)
        stop_text(g, t, stop);
    else
        t->seq.n_final = text->n - held_back(&t->request, text);
}

static bool add_logprobs(Engine *g, Task *t, int r, int token, Err *e) {
    int n_vocab = g->plan->hparams.n_vocab;
    int n = t->request.n_logprobs < n_vocab ? t->request.n_logprobs : n_vocab;
    size_t stride;
    const float *logits = g->exec_ops->read(g->exec, g->logits, r, 1, &stride, e);
    if (!logits) return false;
    TokenLogprobs *p = &t->seq.logprobs[t->seq.n_generated];
    p->ids = mem_new((size_t)t->request.n_logprobs, sizeof *p->ids);
    p->logprobs = mem_new((size_t)t->request.n_logprobs, sizeof *p->logprobs);
    p->logprob = sample_logprobs(logits, n_vocab, n, p->ids, p->logprobs, token);
    return true;
}

static bool is_eog(const Engine *g, int token) {
    for (int i = 0; i < g->n_eog; i++)
        if (g->eog[i] == token) return true;
    return false;
}

bool engine_add_token(Engine *g, Task *t, int r, int token, Err *e) {
    if (t->n_chosen < t->seq.n_generated) { // the same token as before the task was preempted
        t->n_chosen++;
        return true;
    }
    if (is_eog(g, token)) {
        t->seq.end = token;
        end_text(g, t, FINISH_STOP);
        return true;
    }
    if (t->seq.logprobs && !add_logprobs(g, t, r, token, e)) return false;
    t->seq.ids[n_tokens(t)] = token;
    t->seq.n_generated++;
    t->n_chosen++;
    add_text(g, t, token);
    if (t->seq.finish == FINISH_NONE && n_tokens(t) >= t->n_limit) end_text(g, t, FINISH_LENGTH);
    return true;
}
