/* jinja_eval: expressions to values, with Python's arithmetic.
 *
 * Integers have 64 bits; where Python would grow them, this refuses. */
#include "jinja.h"

#include <math.h>

/* ---- Operators ---- */

static _Noreturn void fail_types(Jinja *j, const char *op, Value a, Value b) {
    jv_need(j, a), jv_need(j, b);
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
    bool down = rest && (rest < 0) != (b < 0); // towards minus infinity, not zero
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
    if (op == T_MOD && a.kind == V_STRING) return jv_str(jv_percent(j, a.s, b));
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

static Value negated(Jinja *j, Value v) {
    if (v.kind == V_FLOAT) return jv_float(-v.f);
    if (!jv_is_whole(v)) jv_need(j, v), jinja_fail(j, ERR_RUN, "%s has no negative", jv_kind_name(v));
    return int_binary(j, T_SUB, 0, jv_whole(v));
}

/* ---- Calls ---- */

static Args eval_args(Jinja *j, const Node *first) {
    Args args = {0};
    for (const Node *n = first; n; n = n->next) {
        Value v = jinja_eval(j, n->a);
        j->at = n->at;
        if (n->op == T_MUL) {
            const Seq *items = jv_items(j, v);
            for (size_t i = 0; i < items->n; i++) jv_add(j, &args.positional, items->items[i]);
        } else if (n->op == T_POW) {
            if (v.kind != V_DICT)
                jinja_fail(j, ERR_RUN, "a dict is expected behind \"**\", not %s", jv_kind_name(v));
            for (size_t i = 0; i < v.dict->n; i++)
                jv_put(j, &args.named, v.dict->pairs[i].key, v.dict->pairs[i].value);
        } else if (n->name.n) {
            jv_put(j, &args.named, jv_str(n->name), v);
        } else {
            jv_add(j, &args.positional, v);
        }
    }
    return args;
}

/* One parameter of a builtin: its name, and whether it may be left out.  Returns what follows it. */
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

/* Puts args where b's parameters want them, a[1..]. */
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
    j->depth--;
    return v;
}

Value jinja_call(Jinja *j, Value callee, const Args *args) {
    static const Builtin JOINER = {"joiner", "", NULL};
    jv_need(j, callee);
    switch (callee.kind) {
    case V_FUNCTION:
        return jinja_call_builtin(j, callee.function->builtin, callee.function->self, args);
    case V_MACRO:
        return jinja_call_macro(j, callee.macro, args);
    case V_LOOP:
        if (args->positional.n != 1 || args->named.n) jinja_fail(j, ERR_RUN, "loop() takes one argument");
        return jinja_call_loop(j, callee.loop, args->positional.items[0]);
    case V_JOINER: {
        Value a[JINJA_PARAMETERS_MAX];
        bool used = callee.joiner->used;
        bind(j, &JOINER, args, a);
        callee.joiner->used = true;
        return jv_str(used ? callee.joiner->separator : (Str){0});
    }
    default:
        jinja_fail(j, ERR_RUN, "%s cannot be called", jv_kind_name(callee));
    }
}

static Value eval_call(Jinja *j, const Node *n) {
    Value callee = jinja_eval(j, n->a);
    Args args = eval_args(j, n->first);
    j->at = n->a->at;
    return jinja_call(j, callee, &args);
}

/* A filter or a test; b is NULL where there is none of that name. */
static Value eval_builtin(Jinja *j, const Node *n, const Builtin *b, const char *kind) {
    j->at = n->at;
    if (!b) jinja_fail(j, ERR_MODEL, "there is no %s '%s'", kind, jinja_quote(j, n->name));
    Value subject = jinja_eval(j, n->a);
    Args args = eval_args(j, n->first);
    j->at = n->at;
    return jinja_call_builtin(j, b, subject, &args);
}

/* ---- The rest ---- */

static Value eval_name(Jinja *j, const Node *n) {
    size_t seen = 0;
    for (const Scope *s = j->scope; s; s = s->parent)
        for (const Variable *v = s->variables; v; v = v->next, seen++)
            if (js_equal(v->name, n->name)) return jinja_spend(j, seen / 16), v->value;
    jinja_spend(j, seen / 16);
    const Builtin *function = jinja_function(n->name);
    if (!function) return jv_undefined(MISSING_VARIABLE, (Value){0}, n->name);
    Value v = {.kind = V_FUNCTION, .function = jinja_alloc(j, 1, sizeof(Function))};
    v.function->builtin = function;
    return v;
}

static Value eval_seq(Jinja *j, const Node *n) {
    Seq *seq = jv_new_seq(j, 0);
    for (const Node *item = n->first; item; item = item->next) jv_add(j, seq, jinja_eval(j, item));
    return jv_seq(n->kind == N_LIST ? V_LIST : V_TUPLE, seq);
}

static Value eval_dict(Jinja *j, const Node *n) {
    Dict *dict = jv_new_dict(j);
    for (const Node *pair = n->first; pair; pair = pair->next) {
        Value key = jinja_eval(j, pair->a), value = jinja_eval(j, pair->b);
        j->at = pair->at;
        if (key.kind == V_LIST || key.kind == V_DICT)
            jinja_fail(j, ERR_RUN, "%s cannot be a key", jv_kind_name(key));
        jv_put(j, dict, key, value);
    }
    return jv_dict(dict);
}

static Value eval_item(Jinja *j, const Node *n) {
    Value owner = jinja_eval(j, n->a);
    if (n->b->kind != N_SLICE) {
        Value subscript = jinja_eval(j, n->b);
        j->at = n->at;
        return jv_item(j, owner, subscript);
    }
    const Node *s = n->b;
    Value start = s->a ? jinja_eval(j, s->a) : jv_none(), stop = s->b ? jinja_eval(j, s->b) : jv_none();
    Value step = s->c ? jinja_eval(j, s->c) : jv_none();
    j->at = n->at;
    return jv_slice(j, owner, start, stop, step);
}

static Value eval_concat(Jinja *j, const Node *n) {
    Text t = {0};
    for (const Node *part = n->first; part; part = part->next)
        js_add(j, &t, jv_string(j, jinja_eval(j, part)));
    return jv_str(js_text(&t));
}

static Value eval_comparison(Jinja *j, const Node *n) {
    Value left = jinja_eval(j, n->a);
    for (const Node *operand = n->first; operand; operand = operand->next) {
        Value right = jinja_eval(j, operand->a);
        j->at = operand->at;
        if (!jinja_compare(j, operand->op, left, right)) return jv_bool(false);
        left = right;
    }
    return jv_bool(true);
}

static Value eval_ternary(Jinja *j, const Node *n) {
    if (jv_truth(j, jinja_eval(j, n->b))) return jinja_eval(j, n->a);
    if (n->c) return jinja_eval(j, n->c);
    return jv_undefined(MISSING_OTHER, (Value){0},
                        js_ascii(j, "this if has no else, and its condition is false"));
}

static Value eval_attribute(Jinja *j, const Node *n) {
    Value owner = jinja_eval(j, n->a);
    j->at = n->at;
    return jv_attribute(j, owner, n->name);
}

static Value eval_binary(Jinja *j, const Node *n) {
    Value a = jinja_eval(j, n->a), b = jinja_eval(j, n->b);
    j->at = n->at;
    return jinja_binary(j, n->op, a, b);
}

static Value eval_sign(Jinja *j, const Node *n) {
    Value v = jinja_eval(j, n->a);
    j->at = n->at;
    Value negative = negated(j, v);
    return n->kind == N_NEGATIVE ? negative : v.kind == V_BOOL ? jv_int(v.truth) : v;
}

static Value eval_any(Jinja *j, const Node *n) {
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(j, n);
    case N_HOLE:
        return j->hole;
    case N_LIST:
    case N_TUPLE:
        return eval_seq(j, n);
    case N_DICT:
        return eval_dict(j, n);
    case N_ATTRIBUTE:
        return eval_attribute(j, n);
    case N_ITEM:
        return eval_item(j, n);
    case N_CALL:
        return eval_call(j, n);
    case N_FILTER:
        return eval_builtin(j, n, jinja_filter(n->name), "filter");
    case N_TEST:
        return eval_builtin(j, n, jinja_test(n->name), "test");
    case N_POSITIVE:
    case N_NEGATIVE:
        return eval_sign(j, n);
    case N_NOT:
        return jv_bool(!jv_truth(j, jinja_eval(j, n->a)));
    case N_BINARY:
        return eval_binary(j, n);
    case N_CONCAT:
        return eval_concat(j, n);
    case N_COMPARE:
        return eval_comparison(j, n);
    default:
        return eval_ternary(j, n);
    }
}

Value jinja_eval(Jinja *j, const Node *n) {
    jinja_spend(j, 1);
    jinja_enter(j);
    Value v;
    if (n->kind == N_AND || n->kind == N_OR) {
        v = jinja_eval(j, n->a);
        if (jv_truth(j, v) == (n->kind == N_AND)) v = jinja_eval(j, n->b);
    } else {
        v = eval_any(j, n);
    }
    j->depth--;
    return v;
}
