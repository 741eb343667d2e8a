/* command: the names of zgen's commands and what help prints about them, in one table.
 *
 * A command is one bit, so that an option of options.c can name the set of commands it belongs to.  The
 * functions that run them are listed in main.c, the only file that includes every room with commands. */
#ifndef ZGEN_CLI_COMMAND_H
#define ZGEN_CLI_COMMAND_H

enum {
    FOR_GENERATE = 1 << 0,
    FOR_CHAT = 1 << 1,
    FOR_INFO = 1 << 2,
    FOR_TOKENIZE = 1 << 3,
    FOR_LOGITS = 1 << 4,
    FOR_PERPLEXITY = 1 << 5,
    FOR_BENCH = 1 << 6,
    FOR_QUANTIZE = 1 << 7,
    FOR_SYNTH = 1 << 8,
    FOR_SPLIT = 1 << 9,
    FOR_MERGE = 1 << 10,
    FOR_IMATRIX = 1 << 11,
};

typedef struct Command {
    unsigned bit; // FOR_...
    const char *name;
    const char *arguments, *text; // the two lines of help
} Command;

/* All commands, in the order of help; the first one runs when no command is named. */
const Command *command_table(int *n);

/* NULL: there is no command of this name. */
const Command *command_find(const char *name);

/* The name of the first command in a set of bits, which is not empty. */
const char *command_name(unsigned bits);

#endif
