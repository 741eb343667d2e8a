/* voice: see voice.h. */
#include "voice.h"
#include "out.h"

#include <stdlib.h>
#include <string.h>

bool voice_has_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return out_is_terminal() && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

void voice_begin(Voice *v, const Options *o, const char *prompt, size_t n) {
    think_begin(&v->think, prompt, n);
    v->hides = o->think && strcmp(o->think, "show") != 0;
    v->colour = voice_has_colour();
    v->last = 0;
}

/* Dimmed piece by piece, so that the terminal is in order whenever we are stopped. */
static bool say(Voice *v, Err *e) {
    bool ok = true;
    if (v->thought.n && !v->hides) {
        Buf dim = {0};
        buf_printf(&dim, "%s", v->colour ? "\033[2m" : "");
        buf_add(&dim, v->thought.data, v->thought.n);
        buf_printf(&dim, "%s", v->colour ? "\033[0m" : "");
        v->last = v->thought.data[v->thought.n - 1];
        ok = out_write(dim.data, dim.n, e);
        buf_free(&dim);
    }
    if (v->answer.n) v->last = v->answer.data[v->answer.n - 1];
    ok = ok && out_write(v->answer.data, v->answer.n, e);
    buf_clear(&v->thought);
    buf_clear(&v->answer);
    return ok;
}

bool voice_push(Voice *v, const char *text, size_t n, Err *e) {
    think_push(&v->think, text, n, &v->thought, &v->answer);
    return say(v, e);
}

bool voice_end(Voice *v, Err *e) {
    think_end(&v->think, &v->thought, &v->answer);
    bool ok = say(v, e);
    buf_free(&v->thought);
    buf_free(&v->answer);
    return ok;
}
