/* think: the reasoning at the begin of an answer, separated from the answer.
 *
 * Models that reason begin their answer with a block between <think> and </think>, or their template opens
 * the block. Owns the spellings of these tags, the text that ends a block, and the separation of a text that
 * arrives in parts.  Only a block at the begin counts: a later tag is a word of the answer.
 *
 * The one trick: bytes that may still become a tag, or white space at the end, are held back. */
#ifndef ZGEN_TEXT_THINK_H
#define ZGEN_TEXT_THINK_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/buf.h"

typedef enum ThinkState {
    THINK_OPENING, // before the answer, or its opening tag
    THINK_INSIDE,  // the block
    THINK_PAUSE,   // white space behind the block
    THINK_ANSWER
} ThinkState;

typedef struct Think {
    ThinkState state;
    int tag;  // index of the spelling, while inside
    Buf held; // bytes that are held back
} Think;

/* The opening tag at the end of a prompt of n bytes, white space aside: the answer begins inside a block.
 * NULL: the prompt ends with none. */
const char *think_opened(const char *prompt, size_t n);

/* The text that ends the block which such a prompt opens, with white space where the prompt has some;
 * NULL: it opens none. */
const char *think_closing(const char *prompt, size_t n);

/* Whether a text of n bytes is a tag. */
bool think_is_tag(const char *text, size_t n);

/* Starts an answer to a prompt of n bytes, of which the last n_prefill are the begin of the answer. */
void think_begin(Think *t, const char *prompt, size_t n, size_t n_prefill);

/* Takes n more bytes; appends those that are decided to thought (with tags and the white space behind the
 * block) and to answer (without white space at its ends).  All of thought comes before any of answer. */
void think_push(Think *t, const char *text, size_t n, Buf *thought, Buf *answer);
void think_end(Think *t, Buf *thought, Buf *answer); // the bytes held back; frees the memory

/* The text that ends the block, while inside; NULL: not inside. */
const char *think_end_text(const Think *t);

/* Removes the tags and the white space at both ends of a thought. */
void think_strip(Buf *thought);

#endif
