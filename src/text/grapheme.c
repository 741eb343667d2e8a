/* grapheme: see grapheme.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "grapheme.h"
#include "../base/mem.h"

#include <pcre2.h>
#include <stdlib.h>

struct Graphemes {
    pcre2_code *code;
    pcre2_match_data *match;
};

Graphemes *graphemes_open(void) {
    int error;
    size_t at;
    Graphemes *g = mem_new(1, sizeof *g);
    g->code = pcre2_compile((PCRE2_SPTR) "\\X", 2, PCRE2_UTF | PCRE2_ANCHORED, &error, &at, NULL);
    g->match = g->code ? pcre2_match_data_create_from_pattern(g->code, NULL) : NULL;
    if (g->match) return g;
    graphemes_close(g);
    return NULL;
}

void graphemes_close(Graphemes *g) {
    if (!g) return;
    pcre2_match_data_free(g->match);
    pcre2_code_free(g->code);
    free(g);
}

size_t graphemes_next(const Graphemes *g, const char *s, size_t n) {
    int found = pcre2_match(g->code, (PCRE2_SPTR)s, n, 0, PCRE2_NO_UTF_CHECK, g->match, NULL);
    return found > 0 ? pcre2_get_ovector_pointer(g->match)[1] : 1;
}
