/* builtin: the call of a filter, test, method or function: arguments become parameters, by position and by
 * name. */
#include "interp.h"

/* Reads the parameter at p: its name, and whether it is optional.  Returns the text behind it. */
static const char *next_parameter(const char *p, char name[32], bool *optional) {
    size_t n = 0;
    while (*p == ' ') p++;
    for (; *p && *p != ' ' && *p != '?'; p++) name[n++] = *p;
    name[n] = 0;
    *optional = *p == '?';
    return p + *optional;
}

static bool has_parameter(const char *parameters, Str name) {
    char parameter[32];
    bool optional;
    for (const char *p = parameters; *p;) {
        p = next_parameter(p, parameter, &optional);
        if (js_is(name, parameter)) return true;
    }
    return false;
}

/* Fills a[1..] with the arguments in the order of b's parameters. */
static void bind(Jinja *j, const Builtin *b, const Args *args, Value *a) {
    size_t n = 0;
    for (const char *p = b->parameters; *p; n++) {
        char name[32];
        bool optional;
        p = next_parameter(p, name, &optional);
        const Value *named = args->named.n ? jv_get(j, &args->named, jv_str(js_ascii(j, name))) : NULL;
        bool placed = n < args->positional.n;
        if (placed && named) jinja_fail(j, ERR_RUN, "%s has two values for '%s'", b->name, name);
        if (!placed && !named && !optional)
            jinja_fail(j, ERR_RUN, "%s needs a value for '%s'", b->name, name);
        a[n + 1] = placed ? args->positional.items[n] : named ? *named : (Value){0};
    }
    if (args->positional.n > n)
        jinja_fail(j, ERR_RUN, "%s takes %zu arguments, not %zu", b->name, n, args->positional.n);
    for (size_t i = 0; i < args->named.n; i++) {
        Value name = args->named.pairs[i].key;
        if (name.kind != V_STRING || !has_parameter(b->parameters, name.s))
            jinja_fail(j, ERR_RUN, "%s takes no argument '%s'", b->name, jinja_quote(j, jv_string(j, name)));
    }
}

Value jinja_call_builtin(Jinja *j, const Builtin *b, Value self, const Args *args) {
    Value a[JINJA_PARAMETERS_MAX] = {self};
    jinja_spend(j, 1 + (self.kind == V_STRING ? self.s.n / 64 : 0));
    if (b->parameters[0] == '*')
        a[1] = (Value){.kind = V_ARGS, .args = args};
    else
        bind(j, b, args, a);
    jinja_enter(j);
    Value v = b->call(j, a);
    jinja_leave(j);
    return v;
}

const Builtin *jinja_find(const Builtin *table, Str name) {
    for (; table->name; table++)
        if (js_is(name, table->name)) return table;
    return NULL;
}
