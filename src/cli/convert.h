/* convert: from a model file to other files, for the commands that write models of models.
 *
 * Owns what quantize, split and merge share: the plan of the new files, their names, and the writing with a
 * bar.  All files appear under their names only when all are written.  Several are named as llama.cpp names
 * them, NAME-00001-of-00003.gguf, where OUT is NAME or NAME.gguf. */
#ifndef ZGEN_CLI_CONVERT_H
#define ZGEN_CLI_CONVERT_H

#include "options.h"
#include "progress.h"
#include "../run/model.h"
#include "../run/quantize.h"

typedef struct Convert { // starts as {0} with the first four fields
    const Options *options;
    const char *in, *out, *what; // what: for the bar
    QuantizeTask task;
    int n_threads; // 0: those of the options
    Model model;
    Quantize *quantize;
    char **names; // of the new files [n_files]
    Progress progress;
    double seconds; // of the work
} Convert;

/* Reads --split-max-size, "300M" or "2G".  false: ERR_USAGE. */
bool convert_read_size(const char *text, uint64_t *out, Err *e);

/* Opens the input, with the changes of the options, and plans the new files by the task.  convert_close is to be called in both cases. */
bool convert_open(Convert *c, Err *e);

/* false: ERR_OUTPUT, ERR_MODEL, or a signal; then no file is new. */
bool convert_write(Convert *c, Err *e);
void convert_close(Convert *c);

#endif
