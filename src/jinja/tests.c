/* tests: the table of tests, {{ subject is test(argument) }}. */
#include "interp.h"

static Value t_defined(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind != V_UNDEFINED);
}

static Value t_undefined(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_UNDEFINED);
}

static Value t_none(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_NONE);
}

static Value t_boolean(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_BOOL);
}

static Value t_true(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_BOOL && a[0].truth);
}

static Value t_false(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_BOOL && !a[0].truth);
}

static Value t_integer(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_INT);
}

static Value t_float(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_FLOAT);
}

static Value t_number(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(jv_is_number(a[0]));
}

static Value t_string(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_STRING);
}

static Value t_mapping(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(a[0].kind == V_DICT);
}

static Value t_sequence(Jinja *j, const Value *a) { // has length and subscripts, as dicts have
    (void)j;
    return jv_bool(jv_has_length(a[0]) && a[0].kind != V_VIEW && a[0].kind != V_LOOP);
}

static Value t_iterable(Jinja *j, const Value *a) {
    (void)j;
    return jv_bool(jv_is_iterable(a[0]));
}

static Value t_callable(Jinja *j, const Value *a) {
    (void)j;
    Kind k = a[0].kind;
    return jv_bool(k == V_FUNCTION || k == V_MACRO || k == V_LOOP || k == V_JOINER || k == V_UNDEFINED);
}

static Value t_odd(Jinja *j, const Value *a) {
    return jv_bool(jv_equal(j, jinja_binary(j, T_MOD, a[0], jv_int(2)), jv_int(1)));
}

static Value t_even(Jinja *j, const Value *a) {
    return jv_bool(jv_equal(j, jinja_binary(j, T_MOD, a[0], jv_int(2)), jv_int(0)));
}

static Value t_divisibleby(Jinja *j, const Value *a) {
    return jv_bool(jv_equal(j, jinja_binary(j, T_MOD, a[0], a[1]), jv_int(0)));
}

static Value t_lower(Jinja *j, const Value *a) {
    return jv_bool(js_is_lower(jv_string(j, a[0])));
}

static Value t_upper(Jinja *j, const Value *a) {
    return jv_bool(js_is_upper(jv_string(j, a[0])));
}

static Value t_sameas(Jinja *j, const Value *a) { // values have no identity: equal and of one kind
    return jv_bool(a[0].kind == a[1].kind && jv_equal(j, a[0], a[1]));
}

static Value t_in(Jinja *j, const Value *a) {
    return jv_bool(jv_contains(j, a[1], a[0]));
}

static Value t_eq(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_EQ, a[0], a[1]));
}

static Value t_ne(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_NE, a[0], a[1]));
}

static Value t_gt(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_GT, a[0], a[1]));
}

static Value t_ge(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_GE, a[0], a[1]));
}

static Value t_lt(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_LT, a[0], a[1]));
}

static Value t_le(Jinja *j, const Value *a) {
    return jv_bool(jinja_compare(j, T_LE, a[0], a[1]));
}

static Value t_filter(Jinja *j, const Value *a) {
    return jv_bool(jinja_filter(jv_need_str(j, a[0], "the name of a filter")) != NULL);
}

static Value t_test(Jinja *j, const Value *a) {
    return jv_bool(jinja_test(jv_need_str(j, a[0], "the name of a test")) != NULL);
}

static Value t_escaped(Jinja *j, const Value *a) { // text is never marked as safe HTML
    (void)j;
    (void)a;
    return jv_bool(false);
}

/* Not Jinja's, but used by templates for other interpreters. */
static Value t_startingwith(Jinja *j, const Value *a) {
    return jv_bool(js_starts(jv_string(j, a[0]), jv_need_str(j, a[1], "the beginning")));
}

static Value t_endingwith(Jinja *j, const Value *a) {
    return jv_bool(js_ends(jv_string(j, a[0]), jv_need_str(j, a[1], "the end")));
}

static Value t_containing(Jinja *j, const Value *a) {
    return jv_bool(jv_contains(j, a[0], a[1]));
}

const Builtin *jinja_test(Str name) {
    static const Builtin TESTS[] = {
        {"!=", "other", t_ne},
        {"<", "other", t_lt},
        {"<=", "other", t_le},
        {"==", "other", t_eq},
        {">", "other", t_gt},
        {">=", "other", t_ge},
        {"boolean", "", t_boolean},
        {"callable", "", t_callable},
        {"containing", "item", t_containing},
        {"defined", "", t_defined},
        {"divisibleby", "num", t_divisibleby},
        {"endingwith", "end", t_endingwith},
        {"eq", "other", t_eq},
        {"equalto", "other", t_eq},
        {"escaped", "", t_escaped},
        {"even", "", t_even},
        {"false", "", t_false},
        {"filter", "", t_filter},
        {"float", "", t_float},
        {"ge", "other", t_ge},
        {"greaterthan", "other", t_gt},
        {"gt", "other", t_gt},
        {"in", "seq", t_in},
        {"integer", "", t_integer},
        {"iterable", "", t_iterable},
        {"le", "other", t_le},
        {"lessthan", "other", t_lt},
        {"lower", "", t_lower},
        {"lt", "other", t_lt},
        {"mapping", "", t_mapping},
        {"ne", "other", t_ne},
        {"none", "", t_none},
        {"number", "", t_number},
        {"odd", "", t_odd},
        {"sameas", "other", t_sameas},
        {"sequence", "", t_sequence},
        {"startingwith", "beginning", t_startingwith},
        {"string", "", t_string},
        {"test", "", t_test},
        {"true", "", t_true},
        {"undefined", "", t_undefined},
        {"upper", "", t_upper},
        {0},
    };
    return jinja_find(TESTS, name);
}
