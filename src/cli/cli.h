/* cli: the commands, one file each, and what main needs to choose among them.
 *
 * A command reads its options, does its work, and returns true, or false with the sentence and the exit code
 * in an Err.  An empty sentence means that the code says it all (Ctrl-C, a closed pipe).  Everything that
 * goes to stdout goes through out.h. */
#ifndef ZGEN_CLI_CLI_H
#define ZGEN_CLI_CLI_H

#include "options.h"
#include "out.h"

#define ZGEN_VERSION "0.1.0"

typedef struct Command {
    const char *name;
    unsigned bit;          // FOR_..., its options in the table
    const char *arguments; // for help
    const char *text;
    bool (*run)(const Options *o, Err *e);
} Command;

bool cmd_generate(const Options *o, Err *e);
bool cmd_chat(const Options *o, Err *e);
bool cmd_info(const Options *o, Err *e);
bool cmd_tokenize(const Options *o, Err *e);
bool cmd_logits(const Options *o, Err *e);
bool cmd_perplexity(const Options *o, Err *e);
bool cmd_bench(const Options *o, Err *e);
bool cmd_quantize(const Options *o, Err *e);
bool cmd_synth(const Options *o, Err *e);

/* Prints what one command understands; with is_all, the list of commands before it.  commands ends with a
 * NULL name. */
bool help_print(const Command *commands, const Command *c, bool is_all, Err *e);
bool help_version(Err *e);

#endif
