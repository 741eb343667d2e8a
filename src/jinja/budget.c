/* budget: memory, work and depth of one rendering, counted where they grow, and its end by an error.
 *
 * A template is untrusted: each of the three has a limit (see value.h), and a template that exceeds it is
 * refused with line and column. */
#include "value.h"
#include "../base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Block { // of the arena
    struct Block *next;
    size_t n, capacity;
    max_align_t data[];
} Block;

enum { BLOCK_SIZE = 64 << 10 };

void *jinja_alloc(Jinja *j, size_t n, size_t size) {
    size_t left = JINJA_MEMORY_MAX - j->memory;
    if (n > left / size)
        jinja_fail(j, ERR_MODEL, "the template takes more than %d MiB of memory", JINJA_MEMORY_MAX >> 20);
    size_t bytes = (n * size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    Block *b = j->blocks;
    if (!b || b->capacity - b->n < bytes) {
        size_t capacity = bytes > BLOCK_SIZE ? bytes : BLOCK_SIZE;
        b = mem_new(1, sizeof *b + capacity);
        b->capacity = capacity;
        b->next = j->blocks;
        j->blocks = b;
        j->memory += capacity < left ? capacity : left;
    }
    void *p = (char *)b->data + b->n;
    b->n += bytes;
    return p;
}

void jinja_free(Jinja *j) {
    json_decref(j->json);
    while (j->blocks) {
        Block *next = j->blocks->next;
        free(j->blocks);
        j->blocks = next;
    }
}

void jinja_spend(Jinja *j, size_t steps) {
    if (steps > (size_t)(JINJA_STEPS_MAX - j->steps))
        jinja_fail(j, ERR_MODEL, "the template takes more than %d steps", JINJA_STEPS_MAX);
    j->steps += (int64_t)steps;
    if (j->stop && j->stop()) jinja_fail(j, ERR_RUN, "stopped");
}

void jinja_enter(Jinja *j) {
    if (++j->depth > JINJA_DEPTH_MAX)
        jinja_fail(j, ERR_MODEL, "evaluations are nested too deeply (more than %d levels)", JINJA_DEPTH_MAX);
}

void jinja_leave(Jinja *j) {
    j->depth--;
}

void jinja_fail(Jinja *j, int code, const char *format, ...) {
    char message[600];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    size_t line = 1, column = 1;
    for (size_t i = 0; i < j->at && i < j->source.n; i++) {
        column++;
        if (char_code(j->source.c[i]) != '\n') continue;
        line++;
        column = 1;
    }
    err_set(j->e, code, "chat template, line %zu, column %zu: %s", line, column, message);
    longjmp(j->failed, 1);
}

const char *jinja_quote(Jinja *j, Str s) {
    enum { MOST = 100 };
    char *text = jinja_alloc(j, 4 * MOST + 4, 1);
    size_t w = 0;
    for (size_t i = 0; i < s.n && i < MOST; i++) w += js_put_utf8(s.c[i], text + w);
    if (s.n > MOST) memcpy(text + w, "...", 3);
    return text;
}
