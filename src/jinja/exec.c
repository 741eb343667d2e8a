/* exec: statements: their output, and the variables that they set.
 *
 * Scopes are Jinja's: for, with, macro and blocks that capture text open one, if does not; a variable set
 * inside ends with the scope, and only a namespace carries a value out.  A macro reads the scope of its
 * definition, with the values of the time of the call. */
#include "interp.h"

typedef enum Flow { GO_ON, BREAK, CONTINUE } Flow;

static Flow exec_body(Jinja *j, const Node *first);
static void assign(Jinja *j, const Node *target, Value value);

// Names that the language sets.
static const Str LOOP = {(const Char[]){'l', 'o', 'o', 'p'}, 4};
static const Str CALLER = {(const Char[]){'c', 'a', 'l', 'l', 'e', 'r'}, 6};
static const Str KWARGS = {(const Char[]){'k', 'w', 'a', 'r', 'g', 's'}, 6};
static const Str VARARGS = {(const Char[]){'v', 'a', 'r', 'a', 'r', 'g', 's'}, 7};

/* ---- Variables ---- */

Scope *jinja_push_scope(Jinja *j) {
    Scope *outer = j->interp->scope;
    j->interp->scope = jinja_alloc(j, 1, sizeof *j->interp->scope);
    j->interp->scope->parent = outer;
    return outer;
}

void jinja_set(Jinja *j, Str name, Value value) {
    Variable *v = j->interp->scope->variables;
    for (size_t seen = 1; v && !js_equal(v->name, name); v = v->next, seen++)
        if (seen % 16 == 0) jinja_spend(j, 1);
    if (!v) {
        v = jinja_alloc(j, 1, sizeof *v);
        v->name = name;
        v->next = j->interp->scope->variables;
        j->interp->scope->variables = v;
    }
    v->value = value;
}

static void assign_attribute(Jinja *j, const Node *target, Value value) {
    Value owner = jinja_eval(j, target->a);
    j->at = target->at;
    if (owner.kind != V_NAMESPACE)
        jinja_fail(j, ERR_RUN, "only the attributes of a namespace can be set, not of %s",
                   jv_kind_name(owner));
    jv_put(j, owner.dict, jv_str(target->name), value);
}

static void assign_all(Jinja *j, const Node *target, Value value) {
    size_t n = 0, i = 0;
    for (const Node *t = target->first; t; t = t->next) n++;
    j->at = target->at;
    jv_need(j, value);
    const Seq *items = jv_items(j, value);
    if (items->n != n) jinja_fail(j, ERR_RUN, "%zu names cannot take %zu values", n, items->n);
    for (const Node *t = target->first; t; t = t->next) assign(j, t, items->items[i++]);
}

static void assign(Jinja *j, const Node *target, Value value) {
    if (target->kind == N_NAME)
        jinja_set(j, target->name, value);
    else if (target->kind == N_ATTRIBUTE)
        assign_attribute(j, target, value);
    else
        assign_all(j, target, value);
}

/* ---- Text ---- */

static Flow capture(Jinja *j, const Node *body, Value *text) {
    Text t = {0}, *outer = j->interp->out;
    j->interp->out = &t;
    Flow flow = exec_body(j, body);
    j->interp->out = outer;
    *text = jv_str(js_text(&t));
    return flow;
}

static void print(Jinja *j, Value v) {
    if (v.kind == V_UNDEFINED && v.detail == FORBIDDEN) jv_need(j, v);
    js_add(j, j->interp->out, jv_string(j, v));
}

/* The output of the body in a scope of its own, through the filters, if not NULL. */
static Flow filtered(Jinja *j, const Node *body, const Node *filters, Value *text) {
    Scope *outer = jinja_push_scope(j);
    Flow flow = capture(j, body, text);
    j->interp->scope = outer;
    if (flow == GO_ON && filters) {
        Value hole = j->interp->hole;
        j->interp->hole = *text;
        *text = jinja_eval(j, filters);
        j->interp->hole = hole;
    }
    return flow;
}

static Flow exec_filter_block(Jinja *j, const Node *n) {
    Value text;
    Flow flow = filtered(j, n->first, n->b, &text);
    if (flow == GO_ON) print(j, text);
    return flow;
}

static Flow exec_set_block(Jinja *j, const Node *n) {
    Value text;
    Flow flow = filtered(j, n->first, n->b, &text);
    if (flow == GO_ON) assign(j, n->a, text);
    return flow;
}

/* ---- Branches and loops ---- */

static Flow exec_if(Jinja *j, const Node *n) {
    for (const Node *branch = n->first; branch; branch = branch->next)
        if (!branch->a || jv_truth(j, jinja_eval(j, branch->a))) return exec_body(j, branch->first);
    return GO_ON;
}

/* The items for which the loop's condition holds. */
static Seq *chosen(Jinja *j, const Node *n, Seq *items) {
    if (!n->c) return items;
    Seq *out = jv_new_seq(j, 0);
    for (size_t i = 0; i < items->n; i++) {
        Scope *outer = jinja_push_scope(j);
        assign(j, n->a, items->items[i]);
        if (jv_truth(j, jinja_eval(j, n->c))) jv_add(j, out, items->items[i]);
        j->interp->scope = outer;
    }
    return out;
}

static Value call_loop(Jinja *j, const Loop *loop, Value iterable);

/* Runs the body for each item, or the else branch if there is none.  The scope is the one around the loop. */
static Flow run_loop(Jinja *j, const Node *n, Value iterable, int64_t depth) {
    Scope *outer = j->interp->scope;
    Flow flow = GO_ON;
    j->at = n->b->at;
    Value self = {.kind = V_LOOP, .loop = jinja_alloc(j, 1, sizeof(Loop))};
    *self.loop = (Loop){.items = chosen(j, n, jv_items(j, iterable)),
                        .depth = depth,
                        .call = call_loop,
                        .node = n,
                        .scope = outer};
    for (Loop *l = self.loop; l->index < l->items->n && flow != BREAK; l->index++) {
        jinja_spend(j, 1);
        jinja_push_scope(j);
        assign(j, n->a, l->items->items[l->index]);
        jinja_set(j, LOOP, self);
        flow = exec_body(j, n->first);
        j->interp->scope = outer;
    }
    if (self.loop->items->n) return GO_ON;
    jinja_push_scope(j);
    flow = exec_body(j, n->second);
    j->interp->scope = outer;
    return flow;
}

static Value call_loop(Jinja *j, const Loop *loop, Value iterable) {
    if (!loop->node->recursive) jinja_fail(j, ERR_RUN, "only a loop marked \"recursive\" can be called");
    Scope *scope = j->interp->scope;
    Text t = {0}, *out = j->interp->out;
    j->interp->scope = loop->scope;
    j->interp->out = &t;
    jinja_enter(j);
    run_loop(j, loop->node, iterable, loop->depth + 1);
    jinja_leave(j);
    j->interp->out = out;
    j->interp->scope = scope;
    return jv_str(js_text(&t));
}

static Flow exec_for(Jinja *j, const Node *n) {
    return run_loop(j, n, jinja_eval(j, n->b), 1);
}

static Flow exec_with(Jinja *j, const Node *n) {
    Seq values = {0};
    for (const Node *pair = n->first; pair; pair = pair->next) jv_add(j, &values, jinja_eval(j, pair->b));
    Scope *outer = jinja_push_scope(j);
    size_t i = 0;
    for (const Node *pair = n->first; pair; pair = pair->next) assign(j, pair->a, values.items[i++]);
    Flow flow = exec_body(j, n->second);
    j->interp->scope = outer;
    return flow;
}

/* ---- Macros ---- */

/* Removes the argument of this name and returns it; V_ABSENT: not given. */
static Value take_named(Jinja *j, Dict *named, Str name) {
    jinja_spend(j, named->n / 16);
    for (size_t i = 0; i < named->n; i++) {
        if (named->pairs[i].key.kind != V_STRING || !js_equal(named->pairs[i].key.s, name)) continue;
        Value v = named->pairs[i].value;
        for (named->n--; i < named->n; i++) named->pairs[i] = named->pairs[i + 1];
        return v;
    }
    return (Value){0};
}

static Dict *copy_dict(Jinja *j, const Dict *dict) {
    Dict *copy = jv_new_dict(j);
    for (size_t i = 0; i < dict->n; i++) jv_put(j, copy, dict->pairs[i].key, dict->pairs[i].value);
    return copy;
}

static bool has_parameter(const Node *macro, Str name) {
    for (const Node *p = macro->first; p; p = p->next)
        if (js_equal(p->name, name)) return true;
    return false;
}

/* Sets caller, kwargs and varargs from the arguments behind the parameters. */
static void bind_rest(Jinja *j, const Node *macro, const Args *args, size_t used, Dict *named) {
    const char *name = jinja_quote(j, macro->name);
    if (macro->uses_caller && !has_parameter(macro, CALLER)) {
        Value caller = take_named(j, named, CALLER);
        if (caller.kind == V_ABSENT) caller = jv_undefined(MISSING_VARIABLE, (Value){0}, CALLER);
        jinja_set(j, CALLER, caller);
    }
    if (macro->uses_kwargs)
        jinja_set(j, KWARGS, jv_dict(named));
    else if (named->n)
        jinja_fail(j, ERR_RUN, "macro '%s' takes no argument '%s'", name,
                   jinja_quote(j, jv_string(j, named->pairs[0].key)));
    if (macro->uses_varargs) {
        Seq *rest = jv_new_seq(j, 0);
        for (size_t i = used; i < args->positional.n; i++) jv_add(j, rest, args->positional.items[i]);
        jinja_set(j, VARARGS, jv_seq(V_TUPLE, rest));
    } else if (args->positional.n > used) {
        jinja_fail(j, ERR_RUN, "macro '%s' takes %zu arguments, not %zu", name, used, args->positional.n);
    }
}

static void bind_parameters(Jinja *j, const Node *macro, const Args *args) {
    Dict *named = copy_dict(j, &args->named);
    size_t n = 0;
    for (const Node *p = macro->first; p; p = p->next, n++) {
        Value v = n < args->positional.n ? args->positional.items[n] : take_named(j, named, p->name);
        if (v.kind == V_ABSENT)
            v = p->a ? jinja_eval(j, p->a) : jv_undefined(MISSING_VARIABLE, (Value){0}, p->name);
        jinja_set(j, p->name, v);
    }
    bind_rest(j, macro, args, n, named);
}

static Value call_macro(Jinja *j, const Macro *macro, const Args *args) {
    Scope *scope = j->interp->scope;
    j->interp->scope = macro->scope;
    jinja_push_scope(j);
    jinja_enter(j);
    bind_parameters(j, macro->node, args);
    Value text;
    capture(j, macro->node->second, &text);
    jinja_leave(j);
    j->interp->scope = scope;
    return text;
}

static Value new_macro(Jinja *j, const Node *n) {
    Value v = {.kind = V_MACRO, .macro = jinja_alloc(j, 1, sizeof(Macro))};
    *v.macro = (Macro){.name = n->name, .call = call_macro, .node = n, .scope = j->interp->scope};
    return v;
}

/* Evaluates the call with the block as one more argument, named "caller". */
static void exec_call_block(Jinja *j, const Node *n) {
    Node argument = {.kind = N_ARGUMENT, .at = n->at, .name = n->b->name};
    Node constant = {.kind = N_CONST, .at = n->at, .value = new_macro(j, n->b)};
    Node call = *n->a, *copies = NULL, **last = &copies;
    argument.a = &constant;
    for (const Node *a = n->a->first; a; a = a->next, last = &(*last)->next) {
        *last = jinja_alloc(j, 1, sizeof **last);
        **last = *a;
    }
    *last = &argument;
    call.first = copies;
    print(j, jinja_eval(j, &call));
}

/* ---- Statements ---- */

/* A block sees the variables outside of all statements, or, if it is scoped, those around it. */
static void exec_block(Jinja *j, const Node *n) {
    Scope *scope = j->interp->scope;
    if (n->op != T_NAME) j->interp->scope = j->interp->top;
    jinja_push_scope(j);
    exec_body(j, n->first);
    j->interp->scope = scope;
}

static Flow exec_statement(Jinja *j, const Node *n) {
    switch (n->kind) {
    case N_TEXT:
        js_add(j, j->interp->out, n->value.s);
        return GO_ON;
    case N_PRINT:
        print(j, jinja_eval(j, n->a));
        return GO_ON;
    case N_SET:
        assign(j, n->a, jinja_eval(j, n->b));
        return GO_ON;
    case N_SET_BLOCK:
        return exec_set_block(j, n);
    case N_IF:
        return exec_if(j, n);
    case N_FOR:
        return exec_for(j, n);
    case N_MACRO:
        jinja_set(j, n->name, new_macro(j, n));
        return GO_ON;
    case N_CALL_BLOCK:
        exec_call_block(j, n);
        return GO_ON;
    case N_FILTER_BLOCK:
        return exec_filter_block(j, n);
    case N_WITH:
        return exec_with(j, n);
    case N_GENERATION:
        return exec_body(j, n->first);
    case N_BLOCK:
        exec_block(j, n);
        return GO_ON;
    case N_BREAK:
        return BREAK;
    default:
        return CONTINUE;
    }
}

static Flow exec_body(Jinja *j, const Node *first) {
    Flow flow = GO_ON;
    jinja_enter(j);
    for (const Node *n = first; n && flow == GO_ON; n = n->next) {
        jinja_spend(j, 1);
        j->at = n->at;
        flow = exec_statement(j, n);
    }
    jinja_leave(j);
    return flow;
}

void jinja_exec(Jinja *j, const Node *body) {
    exec_body(j, body);
}
