/* voice: an answer on its way to stdout, as it arrives.
 *
 * Thinking blocks are dimmed on a terminal, or left out; white space around the answer is not said.  Colour
 * appears on terminals only, and not under NO_COLOR. */
#ifndef ZGEN_CLI_VOICE_H
#define ZGEN_CLI_VOICE_H

#include "options.h"
#include "../text/think.h"

typedef struct Voice {
    Think think;
    bool hides; // thoughts
    bool colour;
    char last; // byte written, 0: none
    Buf thought, answer;
} Voice;

/* An answer to a prompt of n bytes begins. */
void voice_begin(Voice *v, const Options *o, const char *prompt, size_t n);

/* false: see out_write. */
bool voice_push(Voice *v, const char *text, size_t n, Err *e);
bool voice_end(Voice *v, Err *e); // says what was held back, and frees what v holds

bool voice_has_colour(void); // stdout may be coloured

#endif
