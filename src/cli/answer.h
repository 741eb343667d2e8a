/* answer: prints an answer to stdout while it is generated.
 *
 * Thinking blocks are dimmed on a terminal, or left out; white space around the answer is removed.  Colour is
 * used on terminals only, and not if NO_COLOR is set. */
#ifndef ZGEN_CLI_ANSWER_H
#define ZGEN_CLI_ANSWER_H

#include "../base/err.h"
#include "../run/session.h"
#include "../text/think.h"

typedef struct AnswerPrinter {
    Think think;
    bool hides_thoughts, colour;
    char last; // the last byte printed, 0: none
    Buf thought, answer;
} AnswerPrinter;

/* Begins the answer to the prompt of the session. */
void answer_begin(AnswerPrinter *p, bool hides_thoughts, const Session *s);

/* Prints what n more bytes of text make certain.  false: see out_write, and so below. */
bool answer_push(AnswerPrinter *p, const char *text, size_t n, Err *e);

/* Prints the bytes held back, and frees what *p holds. */
bool answer_end(AnswerPrinter *p, Err *e);

/* Whether stdout may be coloured. */
bool answer_has_colour(void);

#endif
