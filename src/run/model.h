/* model: an opened model file: its container and, where zgen knows the kind, its tokenizer. */
#ifndef ZGEN_RUN_MODEL_H
#define ZGEN_RUN_MODEL_H

#include "../gguf/gguf.h"
#include "../text/tok.h"

typedef struct Model {
    Gguf *gguf;
    Tok *tok; // NULL when there is none to be had; tok_err says why
    Err tok_err;
} Model;

/* Opens the file at path, or the demo model that is part of the executable for NULL.  false: ERR_MODEL.  A
 * missing or unknown tokenizer is no failure here: commands that need text ask model_need_tok. */
bool model_open(const char *path, Model *out, Err *e);

/* The same with another pre-tokenizer than the file's; NULL is the file's own.  A name that is not known
 * makes tok_err an ERR_USAGE. */
bool model_open_as(const char *path, const char *pre, Model *out, Err *e);

/* The same for a file of n bytes in memory, which must outlive the model; label stands for its path. */
bool model_open_bytes(const void *bytes, size_t n, const char *label, Model *out, Err *e);
void model_close(Model *m);

bool model_need_tok(const Model *m, Err *e); // true, or *e = why there is no tokenizer

#endif
