/* render: a whole template: read, lexed, parsed, executed. */
#include "interp.h"

enum { SOURCE_MAX = 1 << 20 }; // characters of a template

/* All newlines become \n, and one at the end is removed, as Jinja reads template files. */
static Str read_source(Jinja *j, const char *bytes, size_t n) {
    if (n > 4 * (size_t)SOURCE_MAX)
        jinja_fail(j, ERR_MODEL, "the template is larger than %d characters", SOURCE_MAX);
    Str raw = js_utf8(j, bytes, n, 0);
    if (raw.n > SOURCE_MAX) jinja_fail(j, ERR_MODEL, "the template is larger than %d characters", SOURCE_MAX);
    Char *c = jinja_alloc(j, raw.n, sizeof *c);
    size_t w = 0;
    for (size_t i = 0; i < raw.n; i++) {
        if (raw.c[i] == '\r' && i + 1 < raw.n && raw.c[i + 1] == '\n') continue;
        c[w++] = raw.c[i] == '\r' ? '\n' : raw.c[i];
    }
    if (w && c[w - 1] == '\n') w--;
    return (Str){c, w};
}

static void set_globals(Jinja *j, const Dict *variables) {
    j->interp->scope = jinja_alloc(j, 1, sizeof *j->interp->scope);
    for (size_t i = 0; i < variables->n; i++)
        jinja_set(j, variables->pairs[i].key.s, variables->pairs[i].value);
    jinja_push_scope(j);
    j->interp->top = j->interp->scope;
}

static void render(Jinja *j, const char *source, size_t n, const struct tm *now,
                   Dict *(*make)(Jinja *j, const void *from), const void *from, Str *text) {
    j->interp = jinja_alloc(j, 1, sizeof *j->interp);
    j->interp->now = *now;
    j->source = read_source(j, source, n);
    const Node *body = jinja_parse(j, jinja_lex(j));
    j->at = 0;
    set_globals(j, make(j, from));
    j->interp->out = jinja_alloc(j, 1, sizeof *j->interp->out);
    jinja_exec(j, body);
    *text = js_text(j->interp->out);
}

bool jinja_render(Jinja *j, const char *source, size_t n, const struct tm *now, const JinjaLimits *limits,
                  Dict *(*make)(Jinja *j, const void *from), const void *from, Str *text, Err *e) {
    *j = (Jinja){.stop = limits->stop, .steps = limits->spent ? *limits->spent : 0, .e = e};
    bool ok = false;
    if (!setjmp(j->failed)) {
        render(j, source, n, now, make, from, text);
        ok = true;
    }
    if (limits->spent) *limits->spent = j->steps;
    return ok;
}
