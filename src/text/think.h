/* think: the part of an answer that is not meant for the listener.
 *
 * Models that reason begin their answer with a block between <think> and </think>, or their template opens it
 * for them.  Owns the spellings of these tags and the separation of an answer that arrives in pieces.  It
 * refuses to see a block anywhere but at the beginning: later on, a tag is a word that the model talks about.
 *
 * The one trick: whatever may still become a tag, or turn out to be white space at the end, waits. */
#ifndef ZGEN_TEXT_THINK_H
#define ZGEN_TEXT_THINK_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/buf.h"

typedef enum ThinkState { THINK_OPENING, THINK_INSIDE, THINK_PAUSE, THINK_ANSWER } ThinkState;

typedef struct Think {
    ThinkState state;
    int tag;  // which spelling, while inside
    Buf held; // may become a tag, or be the end
} Think;

/* The tag that a prompt of n bytes ends with, white space aside: the answer begins inside of a block.  NULL:
 * it does not. */
const char *think_opened(const char *prompt, size_t n);

/* A new answer to this prompt. */
void think_begin(Think *t, const char *prompt, size_t n);

/* Takes n bytes of the answer; appends what is certain to thought (tags and the white space behind the block
 * included) and to answer (without white space at its ends).  All of thought comes before any of answer. */
void think_push(Think *t, const char *text, size_t n, Buf *thought, Buf *answer);
void think_end(Think *t, Buf *thought, Buf *answer); // and frees what it holds

#endif
