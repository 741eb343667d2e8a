/* gguf_string: a string that lies in the bytes of a file. */
#ifndef ZGEN_GGUF_GGUF_STRING_H
#define ZGEN_GGUF_GGUF_STRING_H

#include <stddef.h>

typedef struct GgufString { // not NUL-terminated; may hold any bytes
    const char *data;
    size_t n; // bytes
} GgufString;

#endif
