/* changes: the model as the command line changes it, without a change of the file.
 *
 * --pre names the pre-tokenizer; --override-kv KEY=TYPE:VALUE replaces metadata, and the options of rotation
 * are short forms of that, in llama.cpp's meaning: 0, or -1 for YaRN, leaves the model's value.  A number must
 * be finite and followed by nothing; ranges are checked by the reader of the key, as those of a file. */
#ifndef ZGEN_CLI_CHANGES_H
#define ZGEN_CLI_CHANGES_H

#include "options.h"
#include "../run/model.h"

/* Opens the model at path (NULL: the demo model) with the changes of the options.  false: ERR_MODEL,
 * ERR_USAGE. */
bool changes_open(const Options *o, const char *path, Model *out, Err *e);

/* Reads the options' changes; changes_free releases them in both cases.  false: ERR_USAGE. */
bool changes_read(const Options *o, ModelChanges *out, Err *e);
void changes_free(ModelChanges *c);

#endif
