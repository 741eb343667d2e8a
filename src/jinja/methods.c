/* methods: the tables of methods of strings, lists, dicts, loops and cyclers, {{ subject.method(arguments)
 * }}.
 *
 * A method of a string, list or dict does not change its subject, except append: Python's other methods
 * that do are refused by attribute.c. */
#include "interp.h"

/* ---- Trimming, searching, replacing ---- */

static Value strip(Jinja *j, const Value *a, bool left, bool right) {
    Str chars = jv_is_given(a[1]) ? jv_need_str(j, a[1], "the set of characters to strip") : (Str){0};
    return jv_str(js_trim(j, a[0].s, jv_is_given(a[1]) ? &chars : NULL, left, right));
}

static Value s_strip(Jinja *j, const Value *a) {
    return strip(j, a, true, true);
}
static Value s_lstrip(Jinja *j, const Value *a) {
    return strip(j, a, true, false);
}
static Value s_rstrip(Jinja *j, const Value *a) {
    return strip(j, a, false, true);
}

/* An index into n items, counted from the end if negative, clamped to [0, n]. */
static size_t clamped_index(Jinja *j, Value v, size_t n, size_t fallback) {
    int64_t i = jv_int_or(j, v, (int64_t)fallback, "an index");
    if (i < 0) i = i < -(int64_t)n ? 0 : i + (int64_t)n;
    return i > (int64_t)n ? n : (size_t)i;
}

/* The part of the subject from start to end, a[2] and a[3]. */
static Str window(Jinja *j, const Value *a, size_t *from) {
    *from = clamped_index(j, a[2], a[0].s.n, 0);
    return js_part(a[0].s, *from, clamped_index(j, a[3], a[0].s.n, a[0].s.n));
}

static Value find(Jinja *j, const Value *a, size_t (*search)(Jinja *j, Str s, Str what), bool must) {
    size_t from;
    Str s = window(j, a, &from);
    size_t at = search(j, s, jv_need_str(j, a[1], "the text to find"));
    if (at == JS_NOWHERE && must) jinja_fail(j, ERR_RUN, "index() did not find the text");
    return jv_int(at == JS_NOWHERE ? -1 : (int64_t)(from + at));
}

static size_t find_first(Jinja *j, Str s, Str what) {
    return js_find(j, s, what, 0);
}

static Value s_find(Jinja *j, const Value *a) {
    return find(j, a, find_first, false);
}
static Value s_rfind(Jinja *j, const Value *a) {
    return find(j, a, js_find_last, false);
}
static Value s_index(Jinja *j, const Value *a) {
    return find(j, a, find_first, true);
}
static Value s_rindex(Jinja *j, const Value *a) {
    return find(j, a, js_find_last, true);
}

static Value s_count(Jinja *j, const Value *a) {
    size_t from, n = 0;
    Str s = window(j, a, &from), what = jv_need_str(j, a[1], "the text to count");
    if (!what.n) return jv_int((int64_t)s.n + 1);
    for (size_t at = 0; (at = js_find(j, s, what, at)) != JS_NOWHERE; at += what.n) n++;
    return jv_int((int64_t)n);
}

/* Whether the subject has the affix a[1], or one of the affixes if a[1] is a tuple. */
static Value affixed(Jinja *j, const Value *a, bool (*has)(Str s, Str affix)) {
    size_t from, n = a[1].kind == V_TUPLE ? a[1].seq->n : 1;
    const Value *affixes = a[1].kind == V_TUPLE ? a[1].seq->items : &a[1];
    Str s = window(j, a, &from);
    for (size_t i = 0; i < n; i++) {
        Str affix = jv_need_str(j, affixes[i], "the beginning or end");
        jinja_spend(j, 1 + affix.n / 64);
        if (has(s, affix)) return jv_bool(true);
    }
    return jv_bool(false);
}

static Value s_startswith(Jinja *j, const Value *a) {
    return affixed(j, a, js_starts);
}
static Value s_endswith(Jinja *j, const Value *a) {
    return affixed(j, a, js_ends);
}

static Value s_removeprefix(Jinja *j, const Value *a) {
    Str prefix = jv_need_str(j, a[1], "the prefix");
    return jv_str(js_starts(a[0].s, prefix) ? js_part(a[0].s, prefix.n, a[0].s.n) : a[0].s);
}

static Value s_removesuffix(Jinja *j, const Value *a) {
    Str suffix = jv_need_str(j, a[1], "the suffix");
    return jv_str(js_ends(a[0].s, suffix) ? js_part(a[0].s, 0, a[0].s.n - suffix.n) : a[0].s);
}

static Value s_replace(Jinja *j, const Value *a) {
    Str old = jv_need_str(j, a[1], "the text to replace"), with = jv_need_str(j, a[2], "the replacement");
    return jv_str(js_replace(j, a[0].s, old, with, jv_int_or(j, a[3], -1, "count")));
}

/* ---- Splitting and joining ---- */

static void add_part(Jinja *j, Seq *out, Str s, size_t from, size_t to) {
    jinja_spend(j, 1);
    jv_add(j, out, jv_str(js_part(s, from, to)));
}

static void split_at(Jinja *j, Seq *out, Str s, Str separator, int64_t most) {
    size_t from = 0;
    for (; most != 0; most -= most > 0) {
        size_t at = js_find(j, s, separator, from);
        if (at == JS_NOWHERE) break;
        add_part(j, out, s, from, at);
        from = at + separator.n;
    }
    add_part(j, out, s, from, s.n);
}

static void split_words(Jinja *j, Seq *out, Str s, int64_t most) {
    for (s = js_trim(j, s, NULL, true, false); s.n && most != 0; most -= most > 0) {
        size_t end = 0;
        while (end < s.n && !char_is_space(s.c[end])) end++;
        add_part(j, out, s, 0, end);
        s = js_trim(j, js_part(s, end, s.n), NULL, true, false);
    }
    if (s.n) add_part(j, out, s, 0, s.n);
}

static void rsplit_at(Jinja *j, Seq *out, Str s, Str separator, int64_t most) {
    for (; most != 0; most -= most > 0) {
        size_t at = js_find_last(j, s, separator);
        if (at == JS_NOWHERE) break;
        add_part(j, out, s, at + separator.n, s.n);
        s = js_part(s, 0, at);
    }
    add_part(j, out, s, 0, s.n);
}

static void rsplit_words(Jinja *j, Seq *out, Str s, int64_t most) {
    for (s = js_trim(j, s, NULL, false, true); s.n && most != 0; most -= most > 0) {
        size_t begin = s.n;
        while (begin > 0 && !char_is_space(s.c[begin - 1])) begin--;
        add_part(j, out, s, begin, s.n);
        s = js_trim(j, js_part(s, 0, begin), NULL, false, true);
    }
    if (s.n) add_part(j, out, s, 0, s.n);
}

static Str need_separator(Jinja *j, Value v) {
    Str separator = jv_need_str(j, v, "the separator");
    if (!separator.n) jinja_fail(j, ERR_RUN, "the separator is empty");
    return separator;
}

static Value s_split(Jinja *j, const Value *a) {
    Seq *out = jv_new_seq(j, 0);
    int64_t most = jv_int_or(j, a[2], -1, "maxsplit");
    if (jv_is_given(a[1]))
        split_at(j, out, a[0].s, need_separator(j, a[1]), most);
    else
        split_words(j, out, a[0].s, most);
    return jv_seq(V_LIST, out);
}

static Value s_rsplit(Jinja *j, const Value *a) {
    Seq *out = jv_new_seq(j, 0);
    int64_t most = jv_int_or(j, a[2], -1, "maxsplit");
    if (jv_is_given(a[1]))
        rsplit_at(j, out, a[0].s, need_separator(j, a[1]), most);
    else
        rsplit_words(j, out, a[0].s, most);
    for (size_t i = 0; i < out->n / 2; i++) {
        Value v = out->items[i];
        out->items[i] = out->items[out->n - 1 - i];
        out->items[out->n - 1 - i] = v;
    }
    return jv_seq(V_LIST, out);
}

/* The text before, at and behind the separator; if not found, all of it is before (from the right:
 * behind). */
static Value partition(Jinja *j, const Value *a, bool right) {
    Str s = a[0].s, separator = need_separator(j, a[1]);
    size_t at = right ? js_find_last(j, s, separator) : js_find(j, s, separator, 0);
    Seq *out = jv_new_seq(j, 3);
    bool none = at == JS_NOWHERE;
    size_t head = none ? (right ? 0 : s.n) : at, tail = none ? head : at + separator.n;
    add_part(j, out, s, 0, head);
    add_part(j, out, s, head, tail);
    add_part(j, out, s, tail, s.n);
    return jv_seq(V_TUPLE, out);
}

static Value s_partition(Jinja *j, const Value *a) {
    return partition(j, a, false);
}
static Value s_rpartition(Jinja *j, const Value *a) {
    return partition(j, a, true);
}

static Value s_splitlines(Jinja *j, const Value *a) {
    Str s = a[0].s;
    bool keep = jv_truth(j, a[1]);
    Seq *out = jv_new_seq(j, 0);
    for (size_t from = 0, next; from < s.n; from = next) {
        size_t end = js_line(s, from, &next);
        add_part(j, out, s, from, keep ? next : end);
    }
    return jv_seq(V_LIST, out);
}

static Value s_join(Jinja *j, const Value *a) {
    const Seq *items = jv_items(j, jv_need(j, a[1]));
    Text t = {0};
    for (size_t i = 0; i < items->n; i++) {
        if (i) js_add(j, &t, a[0].s);
        jinja_spend(j, 1);
        js_add(j, &t, jv_need_str(j, items->items[i], "each item that is joined"));
    }
    return jv_str(js_text(&t));
}

/* ---- Case, width, kinds of characters ---- */

static Value s_upper(Jinja *j, const Value *a) {
    return jv_str(js_upper(j, a[0].s));
}
static Value s_lower(Jinja *j, const Value *a) {
    return jv_str(js_lower(j, a[0].s));
}

static Value s_capitalize(Jinja *j, const Value *a) {
    return jv_str(js_capitalized(j, a[0].s));
}

static Value s_title(Jinja *j, const Value *a) {
    Text t = {0};
    for (size_t i = 0; i < a[0].s.n; i++) {
        bool first = i == 0 || !char_is_letter(a[0].s.c[i - 1]);
        js_add(j, &t, (first ? js_upper : js_lower)(j, js_part(a[0].s, i, i + 1)));
    }
    return jv_str(js_text(&t));
}

static Value s_swapcase(Jinja *j, const Value *a) {
    Text t = {0};
    for (size_t i = 0; i < a[0].s.n; i++)
        js_add(j, &t, (char_is_upper(a[0].s.c[i]) ? js_lower : js_upper)(j, js_part(a[0].s, i, i + 1)));
    return jv_str(js_text(&t));
}

static Value padded(Jinja *j, const Value *a, Side where) {
    Str fill = jv_is_given(a[2]) ? jv_need_str(j, a[2], "the fill character") : js_ascii(j, " ");
    if (fill.n != 1) jinja_fail(j, ERR_RUN, "the fill character must be one character");
    return jv_str(js_padded(j, a[0].s, jv_need_int(j, a[1], "the width"), fill.c[0], where));
}

static Value s_ljust(Jinja *j, const Value *a) {
    return padded(j, a, LEFT);
}

static Value s_center(Jinja *j, const Value *a) {
    return padded(j, a, MIDDLE);
}

static Value s_rjust(Jinja *j, const Value *a) {
    return padded(j, a, RIGHT);
}

static Value s_zfill(Jinja *j, const Value *a) {
    Str s = a[0].s;
    int64_t width = jv_need_int(j, a[1], "the width");
    bool sign = s.n && (char_code(s.c[0]) == '-' || char_code(s.c[0]) == '+');
    Text t = {0};
    if (sign) js_add_char(j, &t, s.c[0]);
    if (width > (int64_t)s.n) js_add_times(j, &t, '0', (size_t)width - s.n);
    js_add(j, &t, js_part(s, sign, s.n));
    return jv_str(js_text(&t));
}

static bool is_alnum(Char c) {
    return char_is_letter(c) || char_is_digit(c);
}
static bool is_ascii(Char c) {
    return char_code(c) < 0x80;
}

static Value all_are(Jinja *j, const Value *a, bool (*is)(Char), bool empty) {
    jinja_spend(j, a[0].s.n / 8);
    for (size_t i = 0; i < a[0].s.n; i++)
        if (!is(a[0].s.c[i])) return jv_bool(false);
    return jv_bool(a[0].s.n || empty);
}

static Value s_isdigit(Jinja *j, const Value *a) {
    return all_are(j, a, char_is_digit, false);
}

static Value s_isalpha(Jinja *j, const Value *a) {
    return all_are(j, a, char_is_letter, false);
}

static Value s_isalnum(Jinja *j, const Value *a) {
    return all_are(j, a, is_alnum, false);
}

static Value s_isspace(Jinja *j, const Value *a) {
    return all_are(j, a, char_is_space, false);
}

static Value s_isascii(Jinja *j, const Value *a) {
    return all_are(j, a, is_ascii, true);
}

static Value s_isupper(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(js_is_upper(a[0].s));
}

static Value s_islower(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(js_is_lower(a[0].s));
}

static Value s_format(Jinja *j, const Value *a) {
    return jv_str(jinja_braces(j, a[0].s, a[1].args));
}

/* ---- Lists and tuples ---- */

static Value l_count(Jinja *j, const Value *a) {
    int64_t n = 0;
    for (size_t i = 0; i < a[0].seq->n; i++) n += jv_equal(j, a[0].seq->items[i], a[1]);
    return jv_int(n);
}

static Value l_index(Jinja *j, const Value *a) {
    size_t n = a[0].seq->n, end = clamped_index(j, a[3], n, n);
    for (size_t i = clamped_index(j, a[2], n, 0); i < end; i++)
        if (jv_equal(j, a[0].seq->items[i], a[1])) return jv_int((int64_t)i);
    jinja_fail(j, ERR_RUN, "index() did not find the item");
}

static Value l_copy(Jinja *j, const Value *a) {
    return jv_seq((Kind)a[0].kind, jv_copy(j, a[0].seq));
}

/* Not of the sandbox of transformers, but of other interpreters of chat templates. */
static Value l_append(Jinja *j, const Value *a) {
    jv_add(j, a[0].seq, a[1]);
    return jv_none();
}

static Value d_copy(Jinja *j, const Value *a) { // dicts never change, so a copy is the same value
    (void)j;
    return a[0];
}

/* ---- Dicts ---- */

static Value d_get(Jinja *j, const Value *a) {
    const Value *found = jv_get(j, a[0].dict, a[1]);
    return found ? *found : a[2].kind == V_ABSENT ? jv_none() : a[2];
}

static Value view(Jinja *j, const Dict *dict, int detail) {
    Seq *out = jv_new_seq(j, dict->n);
    jinja_spend(j, dict->n / 4);
    for (size_t i = 0; i < dict->n; i++) {
        const Pair *pair = &dict->pairs[i];
        if (detail != VIEW_ITEMS) {
            jv_add(j, out, detail == VIEW_KEYS ? pair->key : pair->value);
            continue;
        }
        Seq *tuple = jv_new_seq(j, 2);
        jv_add(j, tuple, pair->key);
        jv_add(j, tuple, pair->value);
        jv_add(j, out, jv_seq(V_TUPLE, tuple));
    }
    Value v = jv_seq(V_VIEW, out);
    v.detail = (uint8_t)detail;
    return v;
}

static Value d_items(Jinja *j, const Value *a) {
    return view(j, a[0].dict, VIEW_ITEMS);
}
static Value d_keys(Jinja *j, const Value *a) {
    return view(j, a[0].dict, VIEW_KEYS);
}
static Value d_values(Jinja *j, const Value *a) {
    return view(j, a[0].dict, VIEW_VALUES);
}

/* ---- Loops and cyclers ---- */

static Value loop_cycle(Jinja *j, const Value *a) {
    const Seq *items = &a[1].args->positional;
    if (!items->n) jinja_fail(j, ERR_RUN, "cycle needs at least one item");
    return items->items[a[0].loop->index % items->n];
}

static Value loop_changed(Jinja *j, const Value *a) {
    Seq *items = jv_new_seq(j, a[1].args->positional.n);
    for (size_t i = 0; i < a[1].args->positional.n; i++) jv_add(j, items, a[1].args->positional.items[i]);
    Value now = jv_seq(V_TUPLE, items);
    if (jv_equal(j, a[0].loop->changed, now)) return jv_bool(false);
    a[0].loop->changed = now;
    return jv_bool(true);
}

static Value cycler_next(Jinja *j, const Value *a) {
    (void)j;
    Cycler *c = a[0].cycler;
    Value v = c->items->items[c->next];
    c->next = (c->next + 1) % c->items->n;
    return v;
}

static Value cycler_reset(Jinja *j, const Value *a) {
    (void)j;
    a[0].cycler->next = 0;
    return jv_none();
}

const Builtin *jinja_method(Value subject, Str name) {
    static const Builtin OF_STR[] = {
        {"capitalize", "", s_capitalize},
        {"casefold", "", s_lower},
        {"center", "width fillchar?", s_center},
        {"count", "sub start? end?", s_count},
        {"endswith", "suffix start? end?", s_endswith},
        {"find", "sub start? end?", s_find},
        {"format", "*", s_format},
        {"index", "sub start? end?", s_index},
        {"isalnum", "", s_isalnum},
        {"isalpha", "", s_isalpha},
        {"isascii", "", s_isascii},
        {"isdecimal", "", s_isdigit},
        {"isdigit", "", s_isdigit},
        {"islower", "", s_islower},
        {"isnumeric", "", s_isdigit},
        {"isspace", "", s_isspace},
        {"isupper", "", s_isupper},
        {"join", "iterable", s_join},
        {"ljust", "width fillchar?", s_ljust},
        {"lower", "", s_lower},
        {"lstrip", "chars?", s_lstrip},
        {"partition", "sep", s_partition},
        {"removeprefix", "prefix", s_removeprefix},
        {"removesuffix", "suffix", s_removesuffix},
        {"replace", "old new count?", s_replace},
        {"rfind", "sub start? end?", s_rfind},
        {"rindex", "sub start? end?", s_rindex},
        {"rjust", "width fillchar?", s_rjust},
        {"rpartition", "sep", s_rpartition},
        {"rsplit", "sep? maxsplit?", s_rsplit},
        {"rstrip", "chars?", s_rstrip},
        {"split", "sep? maxsplit?", s_split},
        {"splitlines", "keepends?", s_splitlines},
        {"startswith", "prefix start? end?", s_startswith},
        {"strip", "chars?", s_strip},
        {"swapcase", "", s_swapcase},
        {"title", "", s_title},
        {"upper", "", s_upper},
        {"zfill", "width", s_zfill},
        {0},
    };
    static const Builtin OF_TUPLE[] = {
        {"count", "value", l_count}, {"index", "value start? stop?", l_index}, {0}};
    static const Builtin OF_LIST[] = {{"append", "object", l_append},
                                      {"copy", "", l_copy},
                                      {"count", "value", l_count},
                                      {"index", "value start? stop?", l_index},
                                      {0}};
    static const Builtin OF_DICT[] = {{"copy", "", d_copy},     {"get", "key default?", d_get},
                                      {"items", "", d_items},   {"keys", "", d_keys},
                                      {"values", "", d_values}, {0}};
    static const Builtin OF_LOOP[] = {{"changed", "*", loop_changed}, {"cycle", "*", loop_cycle}, {0}};
    static const Builtin OF_CYCLER[] = {{"next", "", cycler_next}, {"reset", "", cycler_reset}, {0}};
    switch (subject.kind) {
    case V_STRING:
        return jinja_find(OF_STR, name);
    case V_TUPLE:
        return jinja_find(OF_TUPLE, name);
    case V_LIST:
        return jinja_find(OF_LIST, name);
    case V_DICT:
        return jinja_find(OF_DICT, name);
    case V_LOOP:
        return jinja_find(OF_LOOP, name);
    case V_CYCLER:
        return jinja_find(OF_CYCLER, name);
    default:
        return NULL;
    }
}
