/* cli: the commands of this room, one file each, and what is printed about all of them.
 *
 * A command reads its options, does its work, and returns true, or false with the sentence and the exit code
 * in an Err.  An empty sentence means that the exit code is enough (Ctrl-C, a closed pipe).  All output to
 * stdout goes through out.h.  No command calls another one. */
#ifndef ZGEN_CLI_CLI_H
#define ZGEN_CLI_CLI_H

#include "options.h"
#include "out.h"

#define ZGEN_VERSION "0.1.0"

bool cmd_generate(const Options *o, Err *e);
bool cmd_chat(const Options *o, Err *e);
bool cmd_info(const Options *o, Err *e);
bool cmd_tokenize(const Options *o, Err *e);
bool cmd_logits(const Options *o, Err *e);
bool cmd_perplexity(const Options *o, Err *e);
bool cmd_quantize(const Options *o, Err *e);
bool cmd_imatrix(const Options *o, Err *e);
bool cmd_split(const Options *o, Err *e);
bool cmd_merge(const Options *o, Err *e);
bool cmd_synth(const Options *o, Err *e);

/* Prints the options of one command (a FOR_ bit); with is_all, the list of commands before them.  false:
 * ERR_OUTPUT or ERR_PIPE, and so below. */
bool help_print(unsigned command, bool is_all, Err *e);
bool help_version(Err *e);

#endif
