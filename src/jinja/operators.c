/* operators: Python's arithmetic and comparisons.
 *
 * Integers have 64 bits; where Python's would grow beyond them, the template is refused. */
#include "interp.h"

#include <math.h>

static _Noreturn void fail_types(Jinja *j, const char *op, Value a, Value b) {
    jv_need(j, a);
    jv_need(j, b);
    jinja_fail(j, ERR_RUN, "%s and %s cannot be combined with \"%s\"", jv_kind_name(a), jv_kind_name(b), op);
}

static Value overflow(Jinja *j) {
    jinja_fail(j, ERR_RUN, "the result does not fit into 64 bits");
}

static Value power(Jinja *j, int64_t base, int64_t exponent) {
    if (exponent < 0) {
        if (base == 0) jinja_fail(j, ERR_RUN, "zero to a negative power");
        return jv_float(pow((double)base, (double)exponent));
    }
    int64_t result = 1;
    for (; exponent; exponent >>= 1) {
        if (exponent & 1 && __builtin_mul_overflow(result, base, &result)) return overflow(j);
        if (exponent > 1 && __builtin_mul_overflow(base, base, &base)) return overflow(j);
    }
    return jv_int(result);
}

static Value int_binary(Jinja *j, TokenKind op, int64_t a, int64_t b) {
    int64_t r = 0;
    switch (op) {
    case T_ADD:
        return __builtin_add_overflow(a, b, &r) ? overflow(j) : jv_int(r);
    case T_SUB:
        return __builtin_sub_overflow(a, b, &r) ? overflow(j) : jv_int(r);
    case T_MUL:
        return __builtin_mul_overflow(a, b, &r) ? overflow(j) : jv_int(r);
    case T_POW:
        return power(j, a, b);
    default:
        break;
    }
    if (b == 0) jinja_fail(j, ERR_RUN, "division by zero");
    if (op == T_DIV) return jv_float((double)a / (double)b);
    if (b == -1) return op == T_MOD ? jv_int(0) : __builtin_sub_overflow(0, a, &r) ? overflow(j) : jv_int(r);
    int64_t quotient = a / b, rest = a % b;
    bool down = rest && (rest < 0) != (b < 0); // rounds towards minus infinity
    return jv_int(op == T_MOD ? rest + (down ? b : 0) : quotient - down);
}

static Value float_binary(Jinja *j, TokenKind op, double a, double b) {
    switch (op) {
    case T_ADD:
        return jv_float(a + b);
    case T_SUB:
        return jv_float(a - b);
    case T_MUL:
        return jv_float(a * b);
    case T_POW:
        return jv_float(pow(a, b));
    default:
        break;
    }
    if (b == 0) jinja_fail(j, ERR_RUN, "division by zero");
    if (op == T_DIV) return jv_float(a / b);
    double rest = fmod(a, b);
    if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
    return jv_float(op == T_MOD ? rest : floor((a - rest) / b + 0.5));
}

static Value joined(Jinja *j, Value a, Value b) {
    if (a.kind == V_STRING) return jv_str(js_joined(j, a.s, b.s));
    Seq *seq = jv_new_seq(j, a.seq->n + b.seq->n);
    jinja_spend(j, (a.seq->n + b.seq->n) / 16);
    for (size_t i = 0; i < a.seq->n; i++) jv_add(j, seq, a.seq->items[i]);
    for (size_t i = 0; i < b.seq->n; i++) jv_add(j, seq, b.seq->items[i]);
    return jv_seq(a.kind, seq);
}

static Value repeated(Jinja *j, Value v, int64_t times) {
    if (times < 0) times = 0;
    if (v.kind == V_STRING) return jv_str(js_repeated(j, v.s, (size_t)times));
    Seq *seq = jv_new_seq(j, 0);
    for (int64_t i = 0; v.seq->n && i < times; i++) {
        jinja_spend(j, v.seq->n);
        for (size_t k = 0; k < v.seq->n; k++) jv_add(j, seq, v.seq->items[k]);
    }
    return jv_seq(v.kind, seq);
}

static bool is_sequence(Value v) {
    return v.kind == V_STRING || v.kind == V_LIST || v.kind == V_TUPLE;
}

Value jinja_binary(Jinja *j, TokenKind op, Value a, Value b) {
    static const char *const NAMES[] = {[T_ADD] = "+",       [T_SUB] = "-", [T_MUL] = "*", [T_DIV] = "/",
                                        [T_FLOORDIV] = "//", [T_MOD] = "%", [T_POW] = "**"};
    if (jv_is_whole(a) && jv_is_whole(b)) return int_binary(j, op, jv_whole(a), jv_whole(b));
    if (jv_is_number(a) && jv_is_number(b)) return float_binary(j, op, jv_number(a), jv_number(b));
    if (op == T_ADD && a.kind == b.kind && is_sequence(a)) return joined(j, a, b);
    if (op == T_MUL && is_sequence(a) && jv_is_whole(b)) return repeated(j, a, jv_whole(b));
    if (op == T_MUL && is_sequence(b) && jv_is_whole(a)) return repeated(j, b, jv_whole(a));
    if (op == T_MOD && a.kind == V_STRING) return jv_str(jinja_percent(j, a.s, b));
    fail_types(j, NAMES[op], a, b);
}

bool jinja_compare(Jinja *j, TokenKind op, Value a, Value b) {
    switch (op) {
    case T_EQ:
        return jv_equal(j, a, b);
    case T_NE:
        return !jv_equal(j, a, b);
    case T_IN:
        return jv_contains(j, b, a);
    case T_NOT_IN:
        return !jv_contains(j, b, a);
    default:
        break;
    }
    bool nan = (a.kind == V_FLOAT && isnan(a.f)) || (b.kind == V_FLOAT && isnan(b.f));
    int order = jv_compare(j, a, b);
    if (nan) return false;
    return op == T_LT ? order < 0 : op == T_LE ? order <= 0 : op == T_GT ? order > 0 : order >= 0;
}

Value jinja_negative(Jinja *j, Value v) {
    if (v.kind == V_FLOAT) return jv_float(-v.f);
    if (!jv_is_whole(jv_need(j, v))) jinja_fail(j, ERR_RUN, "%s cannot be negated", jv_kind_name(v));
    return int_binary(j, T_SUB, 0, jv_whole(v));
}
