/* functions: the table of functions, {{ function(arguments) }}. */
#include "interp.h"

enum { RANGE_MAX = 100000 }; // items of range(), as in Jinja's sandbox

static Value g_range(Jinja *j, const Value *a) {
    bool one = a[2].kind == V_ABSENT;
    int64_t start = one ? 0 : jv_need_int(j, a[1], "the start of range"), n = 0;
    int64_t stop = jv_need_int(j, one ? a[1] : a[2], "the end of range");
    int64_t step = a[3].kind == V_ABSENT ? 1 : jv_need_int(j, a[3], "the step of range");
    if (step == 0) jinja_fail(j, ERR_RUN, "the step of range cannot be zero");
    __int128 span = (__int128)stop - start, by = step;
    if ((span > 0) == (by > 0) && span != 0) {
        __int128 count = (span + by - (by > 0 ? 1 : -1)) / by;
        if (count > RANGE_MAX) jinja_fail(j, ERR_MODEL, "range() is limited to %d items", RANGE_MAX);
        n = (int64_t)count;
    }
    Value v = {.kind = V_RANGE, .range = jinja_alloc(j, 1, sizeof(Range))};
    *v.range = (Range){start, stop, step, (size_t)n};
    return v;
}

/* A new dict of the pairs of a dict or of an iterable of pairs, if given, and the named arguments. */
static Dict *make_dict(Jinja *j, const Args *args) {
    Dict *dict = jv_new_dict(j);
    if (args->positional.n > 1) jinja_fail(j, ERR_RUN, "dict and namespace take one argument without a name");
    Value from = args->positional.n ? args->positional.items[0] : (Value){0};
    if (from.kind == V_DICT) {
        for (size_t i = 0; i < from.dict->n; i++)
            jv_put(j, dict, from.dict->pairs[i].key, from.dict->pairs[i].value);
    } else if (from.kind != V_ABSENT) {
        const Seq *items = jv_items(j, from);
        for (size_t i = 0; i < items->n; i++) {
            const Seq *pair = jv_items(j, items->items[i]);
            if (pair->n != 2) jinja_fail(j, ERR_RUN, "a dict is made of pairs");
            jv_put(j, dict, pair->items[0], pair->items[1]);
        }
    }
    for (size_t i = 0; i < args->named.n; i++)
        jv_put(j, dict, args->named.pairs[i].key, args->named.pairs[i].value);
    return dict;
}

static Value g_dict(Jinja *j, const Value *a) {
    return jv_dict(make_dict(j, a[1].args));
}

static Value g_namespace(Jinja *j, const Value *a) {
    return (Value){.kind = V_NAMESPACE, .dict = make_dict(j, a[1].args)};
}

static Value g_cycler(Jinja *j, const Value *a) {
    const Seq *items = &a[1].args->positional;
    if (!items->n) jinja_fail(j, ERR_RUN, "cycler needs at least one item");
    Value v = {.kind = V_CYCLER, .cycler = jinja_alloc(j, 1, sizeof(Cycler))};
    v.cycler->items = jv_new_seq(j, items->n);
    for (size_t i = 0; i < items->n; i++) jv_add(j, v.cycler->items, items->items[i]);
    return v;
}

static Value g_joiner(Jinja *j, const Value *a) {
    Value v = {.kind = V_JOINER, .joiner = jinja_alloc(j, 1, sizeof(Joiner))};
    v.joiner->separator = a[1].kind == V_ABSENT ? js_ascii(j, ", ") : jv_string(j, a[1]);
    return v;
}

static Value g_raise_exception(Jinja *j, const Value *a) {
    jinja_fail(j, ERR_RUN, "the template refuses these messages: %s", jinja_quote(j, jv_string(j, a[1])));
}

/* The format is passed to strftime one known letter at a time, without widths.  The time has neither parts
 * of a second nor a zone, as Python's has none. */
static Value g_strftime_now(Jinja *j, const Value *a) {
    Str format = jv_need_str(j, a[1], "the format of strftime_now");
    Text t = {0};
    for (size_t i = 0; i < format.n; i++) {
        char one[4] = "%", text[64];
        bool bare = i + 2 < format.n && char_code(format.c[i + 1]) == '-';
        uint32_t letter = i + 1 + bare < format.n ? char_code(format.c[i + 1 + bare]) : 0;
        bool is_own = letter == 'f' || letter == 'z' || letter == 'Z', known = is_own;
        for (const char *p = "aAbBcdehHIjklmMpPrsStuUwWxXyYDFTRGVCn%"; *p; p++)
            known |= letter == (unsigned char)*p;
        if (char_code(format.c[i]) != '%' || !known) {
            js_add_char(j, &t, format.c[i]);
            continue;
        }
        one[1] = bare ? '-' : (char)letter;
        one[2] = bare ? (char)letter : 0;
        if (letter == 'f') js_add_ascii(j, &t, "000000");
        if (!is_own && strftime(text, sizeof text, one, &j->interp->now)) js_add(j, &t, js_ascii(j, text));
        i += 1 + bare;
    }
    return jv_str(js_text(&t));
}

const Builtin *jinja_function(Str name) {
    static const Builtin FUNCTIONS[] = {
        {"cycler", "*", g_cycler},
        {"dict", "*", g_dict},
        {"joiner", "sep?", g_joiner},
        {"namespace", "*", g_namespace},
        {"raise_exception", "message", g_raise_exception},
        {"range", "start stop? step?", g_range},
        {"strftime_now", "format", g_strftime_now},
        {0},
    };
    return jinja_find(FUNCTIONS, name);
}
