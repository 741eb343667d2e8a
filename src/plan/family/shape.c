/* shape: see shape.h. */
#include "shape.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Copies the n bytes of a word or of a part of one. */
static void copy(const char *from, size_t n, char to[SHAPE_WORD]) {
    assert(n < SHAPE_WORD);
    memcpy(to, from, n);
    to[n] = 0;
}

bool shape_next_key(const char **text, char key[SHAPE_WORD], char value[SHAPE_WORD]) {
    if (!*text) return false;
    const char *word = *text + strspn(*text, " ");
    size_t n = strcspn(word, " "), n_key = strcspn(word, "=");
    *text = word + n;
    if (n == 0) return false;
    assert(n_key < n);
    copy(word, n_key, key);
    copy(word + n_key + 1, n - n_key - 1, value);
    return true;
}

int shape_key(const Shape *s, const char *key, int missing) {
    char name[SHAPE_WORD], value[SHAPE_WORD];
    for (const char *text = s->keys; shape_next_key(&text, name, value);)
        if (strcmp(name, key) == 0) return atoi(value);
    return missing;
}
