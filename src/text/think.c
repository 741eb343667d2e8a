/* think: see think.h. */
#include "think.h"

#include <string.h>

static const struct {
    const char *open, *close;
    const char *end; // close with the white space that models have around it
} TAGS[] = {{"<think>", "</think>", "\n</think>\n\n"},
            {"<seed:think>", "</seed:think>", "</seed:think>"},
            {"[THINK]", "[/THINK]", "[/THINK]"}};

enum { N_TAGS = sizeof TAGS / sizeof *TAGS };

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t leading_space(const char *s, size_t n) {
    size_t k = 0;
    while (k < n && is_space(s[k])) k++;
    return k;
}

static size_t without_space(const char *s, size_t n) {
    while (n && is_space(s[n - 1])) n--;
    return n;
}

/* The index of the opening tag at the end of a text, white space aside, or -1. */
static int tag_at_end(const char *s, size_t n) {
    n = without_space(s, n);
    for (int i = 0; i < N_TAGS; i++) {
        size_t k = strlen(TAGS[i].open);
        if (n >= k && memcmp(s + n - k, TAGS[i].open, k) == 0) return i;
    }
    return -1;
}

const char *think_opened(const char *prompt, size_t n) {
    int tag = tag_at_end(prompt, n);
    return tag < 0 ? NULL : TAGS[tag].open;
}

const char *think_closing(const char *prompt, size_t n) {
    int tag = tag_at_end(prompt, n);
    return tag < 0 ? NULL : is_space(prompt[n - 1]) ? TAGS[tag].end : TAGS[tag].close;
}

const char *think_end_text(const Think *t) {
    return t->state == THINK_INSIDE ? TAGS[t->tag].end : NULL;
}

static bool equals(const char *text, size_t n, const char *tag) {
    return n == strlen(tag) && memcmp(text, tag, n) == 0;
}

bool think_is_tag(const char *text, size_t n) {
    for (int i = 0; i < N_TAGS; i++)
        if (equals(text, n, TAGS[i].open) || equals(text, n, TAGS[i].close)) return true;
    return false;
}

void think_strip(Buf *thought) {
    const char *s = thought->data;
    size_t n = without_space(s, thought->n);
    for (int i = 0; i < N_TAGS; i++) {
        size_t k = strlen(TAGS[i].close);
        if (n >= k && equals(s + n - k, k, TAGS[i].close)) n = without_space(s, n - k);
    }
    size_t from = leading_space(s, n);
    for (int i = 0; i < N_TAGS; i++) {
        size_t k = strlen(TAGS[i].open);
        if (n - from >= k && equals(s + from, k, TAGS[i].open))
            from += k + leading_space(s + from + k, n - from - k);
    }
    Buf inner = {0};
    if (n > from) buf_add(&inner, s + from, n - from);
    buf_free(thought);
    *thought = inner;
}

/* Moves the first n held bytes to a Buf; NULL: drops them. */
static void move(Think *t, size_t n, Buf *to) {
    if (n == 0) return;
    if (to) buf_add(to, t->held.data, n);
    memmove(t->held.data, t->held.data + n, t->held.n - n);
    t->held.n -= n;
}

/* Each push_STATE takes held bytes and returns whether the state has changed, so that the rest is pushed
 * again. */

static bool push_opening(Think *t, Buf *thought) {
    move(t, leading_space(t->held.data, t->held.n), NULL);
    bool may_become = t->held.n == 0;
    for (int i = 0; i < N_TAGS; i++) {
        size_t k = strlen(TAGS[i].open), n = t->held.n < k ? t->held.n : k;
        if (n == 0 || memcmp(t->held.data, TAGS[i].open, n) != 0) continue;
        may_become = true;
        if (n < k) continue;
        move(t, k, thought);
        t->state = THINK_INSIDE;
        t->tag = i;
        return true;
    }
    if (!may_become) t->state = THINK_ANSWER;
    return !may_become;
}

static bool push_inside(Think *t, Buf *thought) {
    const char *close = TAGS[t->tag].close;
    size_t k = strlen(close), n = t->held.n < k - 1 ? t->held.n : k - 1;
    const char *at = t->held.n ? memmem(t->held.data, t->held.n, close, k) : NULL;
    if (at) {
        move(t, (size_t)(at - t->held.data) + k, thought);
        t->state = THINK_PAUSE;
        return true;
    }
    while (n && memcmp(t->held.data + t->held.n - n, close, n) != 0) n--;
    move(t, t->held.n - n, thought);
    return false;
}

static bool push_pause(Think *t, Buf *thought) {
    move(t, leading_space(t->held.data, t->held.n), thought);
    if (t->held.n) t->state = THINK_ANSWER;
    return t->held.n > 0;
}

static bool push(Think *t, Buf *thought, Buf *answer) {
    switch (t->state) {
    case THINK_OPENING:
        return push_opening(t, thought);
    case THINK_INSIDE:
        return push_inside(t, thought);
    case THINK_PAUSE:
        return push_pause(t, thought);
    case THINK_ANSWER:
        move(t, without_space(t->held.data, t->held.n), answer);
    }
    return false;
}

void think_push(Think *t, const char *text, size_t n, Buf *thought, Buf *answer) {
    buf_add(&t->held, text, n);
    while (push(t, thought, answer)) continue;
}

void think_begin(Think *t, const char *prompt, size_t n, size_t n_prefill) {
    int tag = tag_at_end(prompt, n - n_prefill);
    Buf known = {0};
    buf_free(&t->held);
    *t = tag < 0 ? (Think){.state = THINK_OPENING} : (Think){.state = THINK_INSIDE, .tag = tag};
    if (n_prefill == 0) return;
    think_push(t, prompt + n - n_prefill, n_prefill, &known, &known);
    if (t->state == THINK_OPENING) t->state = THINK_ANSWER;
    buf_free(&t->held);
    buf_free(&known);
}

void think_end(Think *t, Buf *thought, Buf *answer) {
    bool is_answer = t->state == THINK_OPENING || t->state == THINK_ANSWER;
    move(t, without_space(t->held.data, t->held.n), is_answer ? answer : thought);
    buf_free(&t->held);
}
