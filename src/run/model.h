/* model: an opened model file: its container and, where its kind is supported, its tokenizer. */
#ifndef ZGEN_RUN_MODEL_H
#define ZGEN_RUN_MODEL_H

#include "../gguf/gguf.h"
#include "../text/tok.h"

typedef struct Model {
    Gguf *gguf;
    Tok *tok; // NULL: tok_err is the reason
    Err tok_err;
} Model;

/* Opens the file at path; NULL: the demo model in the executable.  false: ERR_MODEL.  A missing or unknown
 * tokenizer is no failure here: commands that need one call model_need_tok or model_need_text. */
bool model_open(const char *path, Model *out, Err *e);

typedef struct ModelKey { // a value that replaces the file's
    char *name;           // .NAME is ARCHITECTURE.NAME
    GgufScalar value;
} ModelKey;

typedef struct ModelChanges {
    const char *pre; // the name of the pre-tokenizer; NULL: the file's
    ModelKey *keys;  // [n_keys], set in this order
    int n_keys;
} ModelChanges;

/* The same with changes.  An unknown pre-tokenizer makes tok_err an ERR_USAGE; a key whose value is of another
 * kind is one, too. */
bool model_open_as(const char *path, const ModelChanges *changes, Model *out, Err *e);

/* The same for a file of n bytes in memory, which must outlive the model; messages show label as its path. */
bool model_open_bytes(const void *bytes, size_t n, const char *label, Model *out, Err *e);
void model_close(Model *m);

/* Whether there is a tokenizer.  false: what the file is where that is no language model, or tok_err. */
bool model_need_tok(const Model *m, Err *e);

/* Whether the model can be given text.  false: why it does not run at all, or else tok_err and what works without. */
bool model_need_text(const Model *m, Err *e);

#endif
