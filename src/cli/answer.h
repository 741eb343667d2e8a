/* answer: an answer while it is generated: its thought, and the rest, to stdout or kept for a report.
 *
 * Thinking blocks are dimmed on a terminal, or left out, or ended when their budget of tokens is used up;
 * white space around the answer is removed.  Colour is used on terminals only, and not if NO_COLOR is set. */
#ifndef ZGEN_CLI_ANSWER_H
#define ZGEN_CLI_ANSWER_H

#include "options.h"
#include "../run/session.h"

typedef struct Answer {
    Think think;
    bool hides_thoughts, colour;
    bool keeps;          // prints nothing
    int budget;          // tokens of a thought, -1: any number
    const Tok *tok;      // for the text that ends a thought
    size_t n_taken;      // bytes of the sequence's text
    int n_seen;          // tokens of the sequence
    int n_thought;       // of them in the thought
    char last;           // the last byte printed, 0: none
    Buf thought, answer; // that are certain and not yet printed
    Buf text, reasoning; // keeps: what would have been printed; the thought
} Answer;

/* Begins the answer to the prompt of the session. */
void answer_begin(Answer *a, const Options *o, const Session *s);

/* Takes the new text of the engine's sequence q, its only one, prints what is certain, and ends a thought
 * that has used up its budget.  false: see out_write, engine_insert. */
bool answer_take(Answer *a, Engine *g, const Sequence *q, Err *e);

/* Prints the bytes held back.  false: see out_write. */
bool answer_end(Answer *a, Err *e);
void answer_free(Answer *a); // what is kept

/* Warns where an answer ended at a limit of tokens and all of it was a thought that was not printed. */
void answer_warn(const Answer *a, const Sequence *q, int n_ctx);

/* Whether stdout may be coloured. */
bool answer_has_colour(void);

#endif
