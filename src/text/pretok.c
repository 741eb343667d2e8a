/* pretok: see pretok.h.  This file compiles the patterns and iterates over their matches.
 *
 * \s in the table means Unicode's white space.  PCRE2's \s is either ASCII's or, with its Unicode option, one
 * character more; so each \s is replaced by the list of characters before compiling. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "pretok.h"
#include "../base/mem.h"

#include <assert.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define SPACES                                                                                               \
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

enum { STACK_LEAST = 64 << 10, STACK_MOST = 64 << 20 }; // bytes of the stack on which a match backtracks

struct Pretok {
    const PretokRule *rule;
    pcre2_code *codes[PRETOK_PATTERNS];
    int n_codes;
};

/* ---- the table ---- */

static bool has_name(const char *names, const char *name, size_t n) {
    for (const char *at = names; *at;) {
        size_t length = strcspn(at, " ");
        if (length == n && memcmp(at, name, n) == 0) return true;
        at += length + strspn(at + length, " ");
    }
    return false;
}

const PretokRule *pretok_find(const char *name, size_t n) {
    for (const PretokRule *rule = PRETOK_TABLE; rule->names; rule++)
        if (has_name(rule->names, name, n)) return rule;
    return NULL;
}

void pretok_names(Buf *out) {
    for (const PretokRule *rule = PRETOK_TABLE; rule->names; rule++)
        buf_printf(out, "%s%s", rule == PRETOK_TABLE ? "" : " ", rule->names);
}

/* ---- compiling ---- */

static void spell_out(const char *pattern, Buf *out) {
    bool inside = false; // a class
    for (const char *at = pattern; *at; at++) {
        if (*at != '\\') {
            inside = *at == '[' || (inside && *at != ']');
            buf_add(out, at, 1);
        } else if (*++at == 's') {
            buf_printf(out, inside ? "%s" : "[%s]", SPACES);
        } else if (*at == 'S') {
            assert(!inside);
            buf_printf(out, "[^%s]", SPACES);
        } else {
            buf_add(out, at - 1, 2);
        }
    }
}

static pcre2_code *compile(const char *pattern) {
    Buf text = {0};
    int error;
    PCRE2_SIZE at;
    spell_out(pattern, &text);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)text.data, text.n, PCRE2_UTF | PCRE2_NO_AUTO_CAPTURE, &error, &at, NULL);
    if (!code && error == PCRE2_ERROR_HEAP_FAILED) mem_new(SIZE_MAX, 1); // prints the error and exits
    assert(code && "a pattern of the table is wrong");
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // where this fails, pcre2_match interprets
    buf_free(&text);
    return code;
}

Pretok *pretok_open(const PretokRule *rule) {
    Pretok *p = mem_new(1, sizeof *p);
    p->rule = rule;
    for (; p->n_codes < PRETOK_PATTERNS && rule->patterns[p->n_codes]; p->n_codes++)
        p->codes[p->n_codes] = compile(rule->patterns[p->n_codes]);
    return p;
}

void pretok_close(Pretok *p) {
    if (!p) return;
    for (int i = 0; i < p->n_codes; i++) pcre2_code_free(p->codes[i]);
    free(p);
}

/* ---- splitting ---- */

typedef struct Split {
    const Pretok *pretok;
    pcre2_match_data *data;
    pcre2_match_context *context;
    PretokWord *word;
    void *word_context;
} Split;

/* Finds the first match of pattern i from byte `at` on: bytes [*begin, *end).  false: none. */
static bool find(Split *s, int i, const char *text, size_t n, size_t at, size_t *begin, size_t *end) {
    const uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int rc = pcre2_match(s->pretok->codes[i], subject, n, at, options, s->data, s->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter backtracks on the heap
        rc = pcre2_match(s->pretok->codes[i], subject, n, at, options | PCRE2_NO_JIT, s->data, s->context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        err_warn("the pre-tokenizer gave up after %zu of %zu bytes (PCRE2's error %d); the rest is one word",
                 at, n, rc);
    if (rc < 0) return false;
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(s->data);
    *begin = offsets[0];
    *end = offsets[1];
    return true;
}

/* Cuts a word of the patterns before i by pattern i and those behind it. */
static void split(Split *s, int i, const char *text, size_t n) {
    if (i == s->pretok->n_codes) {
        s->word(s->word_context, text, n);
        return;
    }
    size_t done = 0, begin, end;
    while (done < n && find(s, i, text, n, done, &begin, &end)) {
        if (begin > done) split(s, i + 1, text + done, begin - done);
        split(s, i + 1, text + begin, end - begin);
        done = end;
    }
    if (done < n) split(s, i + 1, text + done, n - done);
}

void pretok_split(const Pretok *p, const char *text, size_t n, PretokWord *word, void *context) {
    Split s = {.pretok = p, .word = word, .word_context = context};
    s.data = pcre2_match_data_create(1, NULL);
    s.context = pcre2_match_context_create(NULL);
    pcre2_jit_stack *stack = pcre2_jit_stack_create(STACK_LEAST, STACK_MOST, NULL);
    if (!s.data || !s.context) mem_new(SIZE_MAX, 1); // prints the error and exits
    pcre2_set_match_limit(s.context, UINT32_MAX);
    pcre2_set_depth_limit(s.context, UINT32_MAX);
    if (stack) pcre2_jit_stack_assign(s.context, NULL, stack);
    split(&s, 0, text, n);
    pcre2_match_data_free(s.data);
    pcre2_match_context_free(s.context);
    pcre2_jit_stack_free(stack);
}
