/* attribute: v.name and v[subscript], in Jinja's order of look-ups.
 *
 * v.name finds methods first and items then, v['name'] items first.  An attribute that a value does not have
 * is Undefined with its reason, not an error. */
#include "interp.h"

static Value loop_attribute(Jinja *j, Value v, Str name) {
    const Loop *l = v.loop;
    int64_t i = (int64_t)l->index, n = (int64_t)l->items->n;
    if (js_is(name, "index")) return jv_int(i + 1);
    if (js_is(name, "index0")) return jv_int(i);
    if (js_is(name, "revindex")) return jv_int(n - i);
    if (js_is(name, "revindex0")) return jv_int(n - i - 1);
    if (js_is(name, "first")) return jv_bool(i == 0);
    if (js_is(name, "last")) return jv_bool(i == n - 1);
    if (js_is(name, "length")) return jv_int(n);
    if (js_is(name, "depth")) return jv_int(l->depth);
    if (js_is(name, "depth0")) return jv_int(l->depth - 1);
    if (js_is(name, "previtem"))
        return i > 0 ? l->items->items[i - 1]
                     : jv_undefined(MISSING_OTHER, v, js_ascii(j, "there is no previous item"));
    if (js_is(name, "nextitem"))
        return i + 1 < n ? l->items->items[i + 1]
                         : jv_undefined(MISSING_OTHER, v, js_ascii(j, "there is no next item"));
    return jv_undefined(MISSING_ATTRIBUTE, v, name);
}

/* Python's methods that change a list or dict in place, which the sandbox of chat templates refuses. */
static bool is_forbidden(Value v, Str name) {
    static const char *const LIST[] = {"clear", "pop", "reverse", "insert", "sort", "extend", "remove", NULL};
    static const char *const DICT[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
    const char *const *names = v.kind == V_LIST ? LIST : v.kind == V_DICT ? DICT : NULL;
    for (; names && *names; names++)
        if (js_is(name, *names)) return true;
    return false;
}

/* The attribute v.name apart from items; V_ABSENT: v has none. */
static Value member(Jinja *j, Value v, Str name) {
    const Builtin *method = jinja_method(v, name);
    if (method) {
        Value bound = {.kind = V_FUNCTION, .function = jinja_alloc(j, 1, sizeof(Function))};
        *bound.function = (Function){method, v};
        return bound;
    }
    if (is_forbidden(v, name)) return jv_undefined(FORBIDDEN, v, name);
    if (v.kind == V_LOOP) return loop_attribute(j, v, name);
    if (v.kind == V_CYCLER && js_is(name, "current")) return v.cycler->items->items[v.cycler->next];
    if (v.kind == V_MACRO && js_is(name, "name")) return jv_str(v.macro->name);
    if (v.kind == V_TUPLE && v.detail == TUPLE_GROUP && js_is(name, "grouper")) return v.seq->items[0];
    if (v.kind == V_TUPLE && v.detail == TUPLE_GROUP && js_is(name, "list")) return v.seq->items[1];
    if (v.kind == V_NAMESPACE) {
        const Value *found = jv_get(j, v.dict, jv_str(name));
        if (found) return *found;
    }
    return (Value){0};
}

static Value indexed(Jinja *j, Value v, int64_t i) {
    int64_t n = (int64_t)jv_length(j, v), at = i < 0 ? i + n : i;
    if (at < 0 || at >= n) return jv_undefined(MISSING_ITEM, v, jv_string(j, jv_int(i)));
    if (v.kind == V_STRING) return jv_str(js_part(v.s, (size_t)at, (size_t)at + 1));
    if (v.kind == V_RANGE) return jv_int(v.range->start + at * v.range->step);
    return v.seq->items[at];
}

/* The item v[subscript]; V_ABSENT: v has none. */
static Value own_item(Jinja *j, Value v, Value subscript) {
    if (v.kind == V_DICT) {
        const Value *found = jv_get(j, v.dict, subscript);
        return found ? *found : (Value){0};
    }
    bool is_indexed = v.kind == V_STRING || v.kind == V_LIST || v.kind == V_TUPLE || v.kind == V_RANGE;
    if (is_indexed && jv_is_whole(subscript)) return indexed(j, v, jv_whole(subscript));
    return (Value){0};
}

Value jinja_attribute(Jinja *j, Value v, Str name) {
    jv_need(j, v);
    Value found = member(j, v, name);
    if (found.kind == V_ABSENT) found = own_item(j, v, jv_str(name));
    return found.kind == V_ABSENT ? jv_undefined(MISSING_ATTRIBUTE, v, name) : found;
}

Value jinja_item(Jinja *j, Value v, Value subscript) {
    jv_need(j, v);
    Value found = own_item(j, v, subscript);
    if (found.kind != V_ABSENT) return found;
    if (subscript.kind != V_STRING) {
        bool number = jv_is_number(subscript);
        return jv_undefined(MISSING_ITEM, v,
                            number ? jv_string(j, subscript) : js_ascii(j, jv_kind_name(subscript)));
    }
    found = member(j, v, subscript.s);
    return found.kind == V_ABSENT ? jv_undefined(MISSING_ATTRIBUTE, v, subscript.s) : found;
}
