/* keys: checked getters for the metadata keys of one architecture, "<arch>.<name>".
 *
 * A reader stops at the first failure, so that a list of keys reads as a list; after it every getter returns
 * its fallback.  The error names file, key, value and what was expected. */
#ifndef ZGEN_PLAN_KEYS_H
#define ZGEN_PLAN_KEYS_H

#include "../gguf/gguf.h"

typedef struct Keys {
    const Gguf *g;
    const char *arch;
    Err *e;
    bool ok;
    int n_layer, n_block; // layers that are run, and those of the file; for numbers of a layer only
    char key[128];        // the latest one, whole
} Keys;

bool keys_has(Keys *k, const char *name);
void keys_need(Keys *k, const char *name); // fails where the file has no such key

/* The value where the file has one, else fallback; outside min..max: an error. */
int keys_int(Keys *k, const char *name, int min, int max, int fallback);
bool keys_bool(Keys *k, const char *name, bool fallback);
float keys_float(Keys *k, const char *name, float min, float max, float fallback);

/* The value of one layer, min..max: fallback where the key is absent or an empty array (outside of min..max:
 * that is an error); the number, if the key is a single one; or element `layer` of an array of n_layer or
 * n_block.  Booleans are 0 and 1. */
int keys_of_layer(Keys *k, const char *name, int layer, int min, int max, int fallback);

/* The same of floats; the key must be there. */
float keys_float_of_layer(Keys *k, const char *name, int layer, float min, float max);

/* The index of the key's string in names[n], or fallback where it is absent; another string: an error that
 * lists the names. */
int keys_choice(Keys *k, const char *name, const char *const *names, int n, int fallback);

/* Fails with ERR_MODEL and a sentence that begins with the file's label.  Returns false. */
bool keys_fail(Keys *k, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
