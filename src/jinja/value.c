/* value: operations that every value has: truth, equality, order, length, iteration, slices; all as in
 * Python. */
#include "value.h"

#include <string.h>

/* ---- Constructors ---- */

Value jv_none(void) {
    return (Value){.kind = V_NONE};
}
Value jv_bool(bool truth) {
    return (Value){.kind = V_BOOL, .truth = truth};
}
Value jv_int(int64_t i) {
    return (Value){.kind = V_INT, .i = i};
}
Value jv_float(double f) {
    return (Value){.kind = V_FLOAT, .f = f};
}
Value jv_str(Str s) {
    return (Value){.kind = V_STRING, .s = s};
}
Value jv_seq(Kind kind, Seq *seq) {
    return (Value){.kind = (uint8_t)kind, .seq = seq};
}
Value jv_dict(Dict *dict) {
    return (Value){.kind = V_DICT, .dict = dict};
}

Value jv_iterator(Jinja *j, Seq *seq) {
    Value v = {.kind = V_ITERATOR, .iterator = jinja_alloc(j, 1, sizeof(Iterator))};
    v.iterator->seq = seq;
    return v;
}

Value jv_undefined(int detail, Value owner, Str name) {
    return (Value){.kind = V_UNDEFINED, .detail = (uint8_t)detail, .owner = owner.kind, .s = name};
}

Seq *jv_new_seq(Jinja *j, size_t capacity) {
    Seq *seq = jinja_alloc(j, 1, sizeof *seq);
    seq->items = jinja_alloc(j, capacity, sizeof *seq->items);
    seq->capacity = capacity;
    return seq;
}

void jv_add(Jinja *j, Seq *seq, Value item) {
    if (seq->n == seq->capacity) {
        seq->capacity = seq->capacity ? 2 * seq->capacity : 8;
        Value *items = jinja_alloc(j, seq->capacity, sizeof *items);
        if (seq->n) memcpy(items, seq->items, seq->n * sizeof *items);
        seq->items = items;
    }
    seq->items[seq->n++] = item;
}

Seq *jv_copy(Jinja *j, const Seq *seq) {
    Seq *copy = jv_new_seq(j, seq->n);
    jinja_spend(j, seq->n / 16);
    if (seq->n) memcpy(copy->items, seq->items, seq->n * sizeof *seq->items);
    copy->n = seq->n;
    return copy;
}

Dict *jv_new_dict(Jinja *j) {
    return jinja_alloc(j, 1, sizeof(Dict));
}

const Value *jv_get(Jinja *j, const Dict *dict, Value key) {
    for (size_t i = 0; i < dict->n; i++)
        if (jv_equal(j, dict->pairs[i].key, key)) return &dict->pairs[i].value;
    return NULL;
}

void jv_put(Jinja *j, Dict *dict, Value key, Value value) {
    Value *old = (Value *)jv_get(j, dict, key);
    if (old) {
        *old = value;
        return;
    }
    if (dict->n == dict->capacity) {
        dict->capacity = dict->capacity ? 2 * dict->capacity : 8;
        Pair *pairs = jinja_alloc(j, dict->capacity, sizeof *pairs);
        if (dict->n) memcpy(pairs, dict->pairs, dict->n * sizeof *pairs);
        dict->pairs = pairs;
    }
    dict->pairs[dict->n++] = (Pair){key, value};
}

/* ---- Properties ---- */

static const char *kind_name(int kind) {
    static const char *const NAMES[] = {
        [V_ABSENT] = "nothing", [V_UNDEFINED] = "undefined", [V_NONE] = "None",         [V_BOOL] = "bool",
        [V_INT] = "int",        [V_FLOAT] = "float",         [V_STRING] = "str",        [V_LIST] = "list",
        [V_TUPLE] = "tuple",    [V_VIEW] = "dict view",      [V_ITERATOR] = "iterator", [V_RANGE] = "range",
        [V_DICT] = "dict",      [V_NAMESPACE] = "namespace", [V_FUNCTION] = "function", [V_MACRO] = "macro",
        [V_LOOP] = "loop",      [V_CYCLER] = "cycler",       [V_JOINER] = "joiner",
    };
    return NAMES[kind];
}

const char *jv_kind_name(Value v) {
    return kind_name(v.kind);
}

Value jv_need(Jinja *j, Value v) {
    if (v.kind != V_UNDEFINED) return v;
    const char *name = jinja_quote(j, v.s), *owner = kind_name(v.owner);
    switch (v.detail) {
    case MISSING_VARIABLE:
        jinja_fail(j, ERR_RUN, "'%s' is not defined", name);
    case MISSING_ATTRIBUTE:
        jinja_fail(j, ERR_RUN, "this %s has no '%s'", owner, name);
    case MISSING_ITEM:
        jinja_fail(j, ERR_RUN, "this %s has no item %s", owner, name);
    case FORBIDDEN:
        jinja_fail(j, ERR_RUN, "'%s' would change a %s in place, which templates cannot; make a new one",
                   name, owner);
    default:
        jinja_fail(j, ERR_RUN, "%s", name);
    }
}

int64_t jv_need_int(Jinja *j, Value v, const char *what) {
    jv_need(j, v);
    if (v.kind == V_BOOL) return v.truth;
    if (v.kind != V_INT) jinja_fail(j, ERR_RUN, "%s must be an int, not %s", what, jv_kind_name(v));
    return v.i;
}

Str jv_need_str(Jinja *j, Value v, const char *what) {
    jv_need(j, v);
    if (v.kind != V_STRING) jinja_fail(j, ERR_RUN, "%s must be a str, not %s", what, jv_kind_name(v));
    return v.s;
}

bool jv_is_number(Value v) {
    return v.kind == V_BOOL || v.kind == V_INT || v.kind == V_FLOAT;
}

double jv_number(Value v) {
    return v.kind == V_FLOAT ? v.f : v.kind == V_INT ? (double)v.i : v.truth;
}

bool jv_is_whole(Value v) {
    return v.kind == V_BOOL || v.kind == V_INT;
}

int64_t jv_whole(Value v) {
    return v.kind == V_BOOL ? v.truth : v.i;
}

bool jv_is_given(Value v) {
    return v.kind != V_ABSENT && v.kind != V_NONE;
}

int64_t jv_int_or(Jinja *j, Value v, int64_t fallback, const char *what) {
    return jv_is_given(v) ? jv_need_int(j, v, what) : fallback;
}

bool jv_truth(Jinja *j, Value v) {
    switch (v.kind) {
    case V_ABSENT:
    case V_UNDEFINED:
    case V_NONE:
        return false;
    case V_BOOL:
        return v.truth;
    case V_INT:
        return v.i != 0;
    case V_FLOAT:
        return v.f != 0;
    default:
        return !jv_has_length(v) || jv_length(j, v) > 0;
    }
}

static bool seq_equal(Jinja *j, const Seq *a, const Seq *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!jv_equal(j, a->items[i], b->items[i])) return false;
    return true;
}

static bool dict_equal(Jinja *j, const Dict *a, const Dict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        const Value *other = jv_get(j, b, a->pairs[i].key);
        if (!other || !jv_equal(j, a->pairs[i].value, *other)) return false;
    }
    return true;
}

static bool range_equal(const Range *a, const Range *b) {
    return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

static bool same_kind_equal(Jinja *j, Value a, Value b) {
    switch (a.kind) {
    case V_ABSENT:
    case V_UNDEFINED:
    case V_NONE:
        return true;
    case V_STRING:
        jinja_spend(j, a.s.n == b.s.n ? a.s.n / 64 : 0);
        return js_equal(a.s, b.s);
    case V_LIST:
    case V_TUPLE:
        return seq_equal(j, a.seq, b.seq);
    case V_DICT:
        return dict_equal(j, a.dict, b.dict);
    case V_RANGE:
        return range_equal(a.range, b.range);
    default:
        return a.seq == b.seq; // the same object
    }
}

bool jv_equal(Jinja *j, Value a, Value b) {
    jinja_spend(j, 1);
    if (jv_is_number(a) && jv_is_number(b))
        return a.kind == V_FLOAT || b.kind == V_FLOAT ? jv_number(a) == jv_number(b)
                                                      : jv_whole(a) == jv_whole(b);
    if (a.kind != b.kind) return false;
    jinja_enter(j);
    bool equal = same_kind_equal(j, a, b);
    jinja_leave(j);
    return equal;
}

static int seq_compare(Jinja *j, const Seq *a, const Seq *b) {
    for (size_t i = 0; i < a->n && i < b->n; i++)
        if (!jv_equal(j, a->items[i], b->items[i])) return jv_compare(j, a->items[i], b->items[i]);
    return a->n < b->n ? -1 : a->n > b->n;
}

int jv_compare(Jinja *j, Value a, Value b) {
    jinja_spend(j, 1);
    jv_need(j, a);
    jv_need(j, b);
    if (jv_is_number(a) && jv_is_number(b)) {
        if (a.kind == V_FLOAT || b.kind == V_FLOAT)
            return jv_number(a) < jv_number(b) ? -1 : jv_number(a) > jv_number(b);
        return jv_whole(a) < jv_whole(b) ? -1 : jv_whole(a) > jv_whole(b);
    }
    if (a.kind == V_STRING && b.kind == V_STRING) {
        jinja_spend(j, (a.s.n < b.s.n ? a.s.n : b.s.n) / 64);
        return js_compare(a.s, b.s);
    }
    if (a.kind != b.kind || (a.kind != V_LIST && a.kind != V_TUPLE))
        jinja_fail(j, ERR_RUN, "%s and %s cannot be ordered", jv_kind_name(a), jv_kind_name(b));
    jinja_enter(j);
    int order = seq_compare(j, a.seq, b.seq);
    jinja_leave(j);
    return order;
}

bool jv_has_length(Value v) {
    return v.kind == V_UNDEFINED || v.kind == V_STRING || v.kind == V_LIST || v.kind == V_TUPLE ||
           v.kind == V_VIEW || v.kind == V_RANGE || v.kind == V_DICT || v.kind == V_LOOP;
}

size_t jv_length(Jinja *j, Value v) {
    switch (v.kind) {
    case V_UNDEFINED:
        return 0;
    case V_STRING:
        return v.s.n;
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        return v.seq->n;
    case V_RANGE:
        return v.range->n;
    case V_DICT:
        return v.dict->n;
    case V_LOOP:
        return v.loop->items->n;
    default:
        jinja_fail(j, ERR_RUN, "%s has no length", jv_kind_name(v));
    }
}

bool jv_contains(Jinja *j, Value container, Value item) {
    if (container.kind == V_STRING)
        return js_find(j, container.s, jv_need_str(j, item, "an item of a str"), 0) != JS_NOWHERE;
    if (container.kind == V_DICT) {
        if (item.kind == V_LIST || item.kind == V_DICT)
            jinja_fail(j, ERR_RUN, "%s cannot be a key", jv_kind_name(item));
        return jv_get(j, container.dict, item) != NULL;
    }
    const Seq *items = jv_items(j, container);
    for (size_t i = 0; i < items->n; i++)
        if (jv_equal(j, items->items[i], item)) return true;
    return false;
}

/* ---- Iteration ---- */

bool jv_is_iterable(Value v) {
    return (jv_has_length(v) && v.kind != V_LOOP) || v.kind == V_ITERATOR;
}

static Seq *characters(Jinja *j, Str s) {
    Seq *seq = jv_new_seq(j, s.n);
    for (size_t i = 0; i < s.n; i++) jv_add(j, seq, jv_str(js_part(s, i, i + 1)));
    return seq;
}

static Seq *range_items(Jinja *j, const Range *range) {
    Seq *seq = jv_new_seq(j, range->n);
    for (size_t i = 0; i < range->n; i++) jv_add(j, seq, jv_int(range->start + (int64_t)i * range->step));
    return seq;
}

static Seq *keys(Jinja *j, const Dict *dict) {
    Seq *seq = jv_new_seq(j, dict->n);
    for (size_t i = 0; i < dict->n; i++) jv_add(j, seq, dict->pairs[i].key);
    return seq;
}

static Seq *rest(Jinja *j, Iterator *iterator) {
    Seq *seq = jinja_alloc(j, 1, sizeof *seq);
    seq->items = iterator->seq->items + iterator->next;
    seq->n = seq->capacity = iterator->seq->n - iterator->next;
    iterator->next = iterator->seq->n;
    return seq;
}

Seq *jv_items(Jinja *j, Value v) {
    switch (v.kind) {
    case V_UNDEFINED:
        if (v.detail == FORBIDDEN) jv_need(j, v);
        return jv_new_seq(j, 0);
    case V_LIST:
    case V_TUPLE:
    case V_VIEW:
        return v.seq;
    case V_STRING:
        jinja_spend(j, v.s.n);
        return characters(j, v.s);
    case V_RANGE:
        jinja_spend(j, v.range->n);
        return range_items(j, v.range);
    case V_DICT:
        jinja_spend(j, v.dict->n);
        return keys(j, v.dict);
    case V_ITERATOR:
        return rest(j, v.iterator);
    default:
        jinja_fail(j, ERR_RUN, "%s is not iterable", jv_kind_name(v));
    }
}

/* ---- Slices ---- */

/* A bound of a slice, counted from the end if negative, clamped to [low, high]. */
static int64_t slice_bound(Jinja *j, Value v, int64_t n, int64_t fallback, int64_t low, int64_t high) {
    if (v.kind == V_NONE) return fallback;
    int64_t i = jv_need_int(j, v, "the bound of a slice");
    if (i < 0) i = i < -n ? -1 : i + n;
    return i < low ? low : i > high ? high : i;
}

/* n items of v from index `from` on, every by-th. */
static Value picked(Jinja *j, Value v, int64_t from, int64_t by, size_t n) {
    if (v.kind == V_STRING && by == 1) return jv_str(js_part(v.s, (size_t)from, (size_t)from + n));
    jinja_spend(j, n / 16);
    if (v.kind == V_RANGE) {
        Range *range = jinja_alloc(j, 1, sizeof *range);
        uint64_t start = (uint64_t)v.range->start, step = (uint64_t)v.range->step;
        start += (uint64_t)from * step; // wraps only if n is 0
        step *= (uint64_t)by;
        *range = (Range){(int64_t)start, (int64_t)(start + n * step), (int64_t)step, n};
        return (Value){.kind = V_RANGE, .range = range};
    }
    Text text = {0};
    Seq *seq = jv_new_seq(j, v.kind == V_STRING ? 0 : n);
    for (size_t i = 0; i < n; i++, from += by) {
        if (v.kind == V_STRING)
            js_add_char(j, &text, v.s.c[from]);
        else
            jv_add(j, seq, v.seq->items[from]);
    }
    return v.kind == V_STRING ? jv_str(js_text(&text)) : jv_seq(v.kind, seq);
}

Value jv_slice(Jinja *j, Value v, Value start, Value stop, Value step) {
    jv_need(j, v);
    if (v.kind != V_STRING && v.kind != V_LIST && v.kind != V_TUPLE && v.kind != V_RANGE)
        jinja_fail(j, ERR_RUN, "%s cannot be sliced", jv_kind_name(v));
    int64_t n = (int64_t)jv_length(j, v),
            by = step.kind == V_NONE ? 1 : jv_need_int(j, step, "the step of a slice");
    if (by == 0) jinja_fail(j, ERR_RUN, "the step of a slice cannot be zero");
    if (by > n) by = n + 1; // one item either way, and no sum overflows
    if (by < -n) by = -n - 1;
    bool back = by < 0;
    int64_t from = slice_bound(j, start, n, back ? n - 1 : 0, back ? -1 : 0, back ? n - 1 : n);
    int64_t to = slice_bound(j, stop, n, back ? -1 : n, back ? -1 : 0, back ? n - 1 : n);
    int64_t span = back ? from - to : to - from, width = back ? -by : by;
    size_t count = span > 0 ? (size_t)((span + width - 1) / width) : 0;
    return picked(j, v, from, by, count);
}
