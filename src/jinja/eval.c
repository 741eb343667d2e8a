/* eval: the values of expressions.
 *
 * j->at is set to the node whose operation may fail, after its operands are evaluated. */
#include "interp.h"

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

static Value join(Jinja *j, const Value *a) {
    Joiner *joiner = a[0].joiner;
    bool used = joiner->used;
    (void)j;
    joiner->used = true;
    return jv_str(used ? joiner->separator : (Str){0});
}

static Value call(Jinja *j, Value callee, const Args *args) {
    static const Builtin JOINER = {"joiner", "", join};
    jv_need(j, callee);
    switch (callee.kind) {
    case V_FUNCTION:
        return jinja_call_builtin(j, callee.function->builtin, callee.function->self, args);
    case V_MACRO:
        return callee.macro->call(j, callee.macro, args);
    case V_LOOP:
        if (args->positional.n != 1 || args->named.n) jinja_fail(j, ERR_RUN, "loop() takes one argument");
        return callee.loop->call(j, callee.loop, args->positional.items[0]);
    case V_JOINER:
        return jinja_call_builtin(j, &JOINER, callee, args);
    default:
        jinja_fail(j, ERR_RUN, "%s cannot be called", jv_kind_name(callee));
    }
}

static Value eval_call(Jinja *j, const Node *n) {
    Value callee = jinja_eval(j, n->a);
    Args args = eval_args(j, n->first);
    j->at = n->a->at;
    return call(j, callee, &args);
}

/* A filter or a test; b is NULL if the table has no such name. */
static Value eval_builtin(Jinja *j, const Node *n, const Builtin *b, const char *kind) {
    j->at = n->at;
    if (!b) jinja_fail(j, ERR_MODEL, "the %s '%s' is unknown", kind, jinja_quote(j, n->name));
    Value subject = jinja_eval(j, n->a);
    Args args = eval_args(j, n->first);
    j->at = n->at;
    return jinja_call_builtin(j, b, subject, &args);
}

/* ---- Expressions ---- */

static Value eval_name(Jinja *j, const Node *n) {
    size_t seen = 0;
    for (const Scope *s = j->interp->scope; s; s = s->parent)
        for (const Variable *v = s->variables; v; v = v->next, seen++)
            if (js_equal(v->name, n->name)) {
                jinja_spend(j, seen / 16);
                return v->value;
            }
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
        return jinja_item(j, owner, subscript);
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
    return jinja_attribute(j, owner, n->name);
}

static Value eval_binary(Jinja *j, const Node *n) {
    Value a = jinja_eval(j, n->a), b = jinja_eval(j, n->b);
    j->at = n->at;
    return jinja_binary(j, n->op, a, b);
}

static Value eval_sign(Jinja *j, const Node *n) {
    Value v = jinja_eval(j, n->a);
    j->at = n->at;
    Value negative = jinja_negative(j, v);
    return n->kind == N_NEGATIVE ? negative : v.kind == V_BOOL ? jv_int(v.truth) : v;
}

static Value eval_any(Jinja *j, const Node *n) {
    switch (n->kind) {
    case N_CONST:
        return n->value;
    case N_NAME:
        return eval_name(j, n);
    case N_HOLE:
        return j->interp->hole;
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
    jinja_leave(j);
    return v;
}
