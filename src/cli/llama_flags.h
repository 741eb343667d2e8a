/* llama_flags: the flags of llama.cpp's tools that zgen's help does not list, and zgen's answer to each.
 *
 * A script that calls llama-completion, llama-cli, llama-bench or llama-perplexity also calls zgen.  A row is
 * an option like those of options.c, for the commands that take the tool's place:
 *
 *     another name of an option     sets that option's field
 *     what zgen does anyway         a checked value without effect: the field is Options.unused
 *     OPTION_REFUSED                a sentence that names what to use instead
 *
 * Where help is not NULL, a refused value is followed by it.  A test compares the rows with a list of the tools'
 * flags, scripts/llama_flags.tsv. */
#ifndef ZGEN_CLI_LLAMA_FLAGS_H
#define ZGEN_CLI_LLAMA_FLAGS_H

#include "options.h"

OptionList llama_flags(void);

#endif
