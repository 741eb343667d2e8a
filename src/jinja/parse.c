/* parse: tokens to the tree, by recursive descent with Jinja's precedence.
 *
 * From loose to tight: if-else, or, and, not, comparisons and in, + -, ~, * / // %, ** (left-associative,
 * unlike Python's), prefix + -, then subscripts and calls, then filters and tests.  Tags that read other
 * templates (include, import, extends) are refused by name. */
#include "syntax.h"

typedef struct Parser {
    Jinja *j;
    const Token *t; // the current token
    Node *blocks;   // the latest named block; each has the one before it in a
    Node *macro;    // the macro being parsed, which records the names that its body uses
    int depth;      // of the recursion
    int n_loops;    // around the current statement, inside the current macro
} Parser;

static Node *parse_expression(Parser *p);
static Node *parse_or(Parser *p);
static Node *parse_unary(Parser *p, bool with_filter);
static Node *parse_postfix(Parser *p, Node *node);

static _Noreturn void fail(Parser *p, const Token *t, const char *message) {
    p->j->at = t->at;
    jinja_fail(p->j, ERR_MODEL, "%s, not \"%s\"", message,
               t->kind == T_END ? "the end of the template" : jinja_quote(p->j, t->text));
}

static void enter(Parser *p) {
    if (++p->depth > JINJA_NESTING_MAX) {
        p->j->at = p->t->at;
        jinja_fail(p->j, ERR_MODEL, "nested too deeply (more than %d levels)", JINJA_NESTING_MAX);
    }
}

static Node *new_node(Parser *p, NodeKind kind, uint32_t at) {
    Node *node = jinja_alloc(p->j, 1, sizeof *node);
    node->kind = kind;
    node->at = at;
    return node;
}

static Node *new_pair(Parser *p, NodeKind kind, uint32_t at, Node *a, Node *b) {
    Node *node = new_node(p, kind, at);
    node->a = a;
    node->b = b;
    return node;
}

static bool at_name(const Token *t, const char *name) {
    return t->kind == T_NAME && js_is(t->text, name);
}

static bool skip_if(Parser *p, TokenKind kind) {
    bool there = p->t->kind == kind;
    p->t += there;
    return there;
}

static bool skip_name(Parser *p, const char *name) {
    bool there = at_name(p->t, name);
    p->t += there;
    return there;
}

static const Token *expect(Parser *p, TokenKind kind, const char *what) {
    if (p->t->kind != kind) fail(p, p->t, what);
    return p->t++;
}

/* ---- Literals, subscripts, calls ---- */

static bool at_tuple_end(const Parser *p, const char *end_name) {
    TokenKind k = p->t->kind;
    return k == T_VARIABLE_END || k == T_BLOCK_END || k == T_RPAREN || k == T_ASSIGN ||
           (end_name && at_name(p->t, end_name));
}

/* One expression, or a tuple of several with commas. */
static Node *parse_tuple(Parser *p, Node *(*item)(Parser *p), const char *end_name, bool may_be_empty) {
    uint32_t at = p->t->at;
    Node *first = NULL, **last = &first;
    bool tuple = false;
    while (!at_tuple_end(p, end_name)) {
        *last = item(p);
        last = &(*last)->next;
        if (!skip_if(p, T_COMMA)) break;
        tuple = true;
    }
    if (!tuple && first) return first;
    if (!first && !may_be_empty) fail(p, p->t, "an expression is expected here");
    Node *node = new_node(p, N_TUPLE, at);
    node->first = first;
    return node;
}

static Node *parse_list(Parser *p) {
    Node *node = new_node(p, N_LIST, p->t++->at), **last = &node->first;
    while (p->t->kind != T_RBRACKET) {
        *last = parse_expression(p);
        last = &(*last)->next;
        if (!skip_if(p, T_COMMA)) break;
    }
    expect(p, T_RBRACKET, "this list needs a \",\" or \"]\" here");
    return node;
}

static Node *parse_dict(Parser *p) {
    Node *node = new_node(p, N_DICT, p->t++->at), **last = &node->first;
    while (p->t->kind != T_RBRACE) {
        Node *key = parse_expression(p);
        expect(p, T_COLON, "this dict needs a \":\" behind its key");
        *last = new_pair(p, N_PAIR, key->at, key, parse_expression(p));
        last = &(*last)->next;
        if (!skip_if(p, T_COMMA)) break;
    }
    expect(p, T_RBRACE, "this dict needs a \",\" or \"}\" here");
    return node;
}

static Node *parse_name(Parser *p) {
    const Token *t = p->t++;
    Node *node = new_node(p, N_CONST, t->at);
    if (js_is(t->text, "true") || js_is(t->text, "True"))
        node->value = jv_bool(true);
    else if (js_is(t->text, "false") || js_is(t->text, "False"))
        node->value = jv_bool(false);
    else if (js_is(t->text, "none") || js_is(t->text, "None"))
        node->value = jv_none();
    else {
        node->kind = N_NAME;
        node->name = t->text;
        if (p->macro) {
            p->macro->uses_caller |= js_is(t->text, "caller");
            p->macro->uses_kwargs |= js_is(t->text, "kwargs");
            p->macro->uses_varargs |= js_is(t->text, "varargs");
        }
    }
    return node;
}

static Node *parse_strings(Parser *p) { // adjacent strings are one
    Node *node = new_node(p, N_CONST, p->t->at);
    Text text = {0};
    while (p->t->kind == T_STRING) js_add(p->j, &text, p->t++->text);
    node->value = jv_str(js_text(&text));
    return node;
}

static Node *parse_primary(Parser *p) {
    const Token *t = p->t;
    Node *node;
    enter(p);
    switch (t->kind) {
    case T_NAME:
        node = parse_name(p);
        break;
    case T_STRING:
        node = parse_strings(p);
        break;
    case T_NUMBER:
        node = new_node(p, N_CONST, t->at);
        node->value = p->t++->value;
        break;
    case T_LPAREN:
        p->t++;
        node = parse_tuple(p, parse_expression, NULL, true);
        expect(p, T_RPAREN, "a \")\" is expected here");
        break;
    case T_LBRACKET:
        node = parse_list(p);
        break;
    case T_LBRACE:
        node = parse_dict(p);
        break;
    default:
        fail(p, t, "an expression is expected here");
    }
    p->depth--;
    return node;
}

/* A bound of a slice; NULL: left out. */
static Node *parse_bound(Parser *p) {
    TokenKind k = p->t->kind;
    return k == T_COLON || k == T_RBRACKET || k == T_COMMA ? NULL : parse_expression(p);
}

static Node *parse_subscript(Parser *p) {
    uint32_t at = p->t->at;
    Node *start = parse_bound(p);
    if (!skip_if(p, T_COLON)) {
        if (!start) fail(p, p->t, "a subscript is expected here");
        return start;
    }
    Node *slice = new_node(p, N_SLICE, at);
    slice->a = start;
    slice->b = parse_bound(p);
    if (skip_if(p, T_COLON)) slice->c = parse_bound(p);
    return slice;
}

static Node *parse_attribute(Parser *p, Node *owner) {
    const Token *t = p->t++;
    if (t->kind == T_LBRACKET) {
        Node *node = new_pair(p, N_ITEM, t->at, owner, parse_subscript(p));
        expect(p, T_RBRACKET, "a \"]\" is expected here");
        return node;
    }
    const Token *what = p->t++;
    if (what->kind == T_NUMBER && what->value.kind == V_INT) {
        Node *index = new_node(p, N_CONST, what->at);
        index->value = what->value;
        return new_pair(p, N_ITEM, what->at, owner, index);
    }
    if (what->kind != T_NAME) fail(p, what, "a name is expected behind the dot");
    Node *node = new_pair(p, N_ATTRIBUTE, what->at, owner, NULL);
    node->name = what->text;
    return node;
}

static Node *parse_argument(Parser *p) {
    const Token *t = p->t;
    Node *node = new_node(p, N_ARGUMENT, t->at);
    if (t->kind == T_MUL || t->kind == T_POW) {
        node->op = t->kind;
        p->t++;
    } else if (t->kind == T_NAME && t[1].kind == T_ASSIGN) {
        node->name = t->text;
        p->t += 2;
    }
    node->a = parse_expression(p);
    return node;
}

static Node *parse_arguments(Parser *p) {
    Node *first = NULL, **last = &first;
    bool named = false;
    expect(p, T_LPAREN, "a \"(\" is expected here");
    while (p->t->kind != T_RPAREN) {
        const Token *t = p->t;
        Node *argument = parse_argument(p);
        bool positional = !argument->name.n && argument->op != T_POW;
        if (positional && named) fail(p, t, "arguments without a name come first");
        named |= !positional;
        *last = argument;
        last = &argument->next;
        if (!skip_if(p, T_COMMA)) break;
    }
    expect(p, T_RPAREN, "a \",\" or \")\" is expected here");
    return first;
}

static Node *parse_call(Parser *p, Node *callee) {
    Node *node = new_pair(p, N_CALL, p->t->at, callee, NULL);
    node->first = parse_arguments(p);
    return node;
}

static Node *parse_postfix(Parser *p, Node *node) {
    for (;;) {
        if (p->t->kind == T_DOT || p->t->kind == T_LBRACKET)
            node = parse_attribute(p, node);
        else if (p->t->kind == T_LPAREN)
            node = parse_call(p, node);
        else
            return node;
    }
}

/* ---- Filters and tests ---- */

static Str parse_dotted_name(Parser *p, const char *what) {
    const Token *t = expect(p, T_NAME, what);
    Str name = t->text;
    while (skip_if(p, T_DOT)) {
        const Token *part = expect(p, T_NAME, what);
        name = js_part(p->j->source, t->at, part->at + part->text.n);
    }
    return name;
}

static Node *parse_filter(Parser *p, Node *subject) { // behind the "|"
    Node *node = new_pair(p, N_FILTER, p->t->at, subject, NULL);
    node->name = parse_dotted_name(p, "the name of a filter is expected here");
    if (p->t->kind == T_LPAREN) node->first = parse_arguments(p);
    return node;
}

static Node *parse_filters(Parser *p, Node *subject) {
    while (skip_if(p, T_PIPE)) subject = parse_filter(p, subject);
    return subject;
}

static bool begins_test_argument(const Token *t) {
    switch (t->kind) {
    case T_STRING:
    case T_NUMBER:
    case T_LPAREN:
    case T_LBRACKET:
    case T_LBRACE:
        return true;
    case T_NAME:
        return !at_name(t, "else") && !at_name(t, "or") && !at_name(t, "and");
    default:
        return false;
    }
}

static Node *parse_test(Parser *p, Node *subject) { // behind the "is"
    bool negated = skip_name(p, "not");
    Node *node = new_pair(p, N_TEST, p->t->at, subject, NULL);
    node->name = parse_dotted_name(p, "the name of a test is expected here");
    if (p->t->kind == T_LPAREN) {
        node->first = parse_arguments(p);
    } else if (begins_test_argument(p->t) && !at_name(p->t, "if") && !at_name(p->t, "in")) {
        if (at_name(p->t, "is")) fail(p, p->t, "tests cannot be chained with \"is\"");
        node->first = new_node(p, N_ARGUMENT, p->t->at);
        node->first->a = parse_postfix(p, parse_primary(p));
    }
    return negated ? new_pair(p, N_NOT, node->at, node, NULL) : node;
}

static Node *parse_pipes(Parser *p, Node *node) {
    for (;;) {
        if (skip_if(p, T_PIPE))
            node = parse_filter(p, node);
        else if (skip_name(p, "is"))
            node = parse_test(p, node);
        else if (p->t->kind == T_LPAREN)
            node = parse_call(p, node);
        else
            return node;
    }
}

/* ---- Operators ---- */

static Node *parse_unary(Parser *p, bool with_filter) {
    const Token *t = p->t;
    Node *node;
    enter(p);
    if (skip_if(p, T_SUB))
        node = new_pair(p, N_NEGATIVE, t->at, parse_unary(p, false), NULL);
    else if (skip_if(p, T_ADD))
        node = new_pair(p, N_POSITIVE, t->at, parse_unary(p, false), NULL);
    else
        node = parse_primary(p);
    node = parse_postfix(p, node);
    if (with_filter) node = parse_pipes(p, node);
    p->depth--;
    return node;
}

static Node *new_binary(Parser *p, const Token *op, Node *a, Node *b) {
    Node *node = new_pair(p, N_BINARY, op->at, a, b);
    node->op = op->kind;
    return node;
}

static Node *parse_power(Parser *p) {
    Node *left = parse_unary(p, true);
    while (p->t->kind == T_POW) {
        const Token *op = p->t++;
        left = new_binary(p, op, left, parse_unary(p, true));
    }
    return left;
}

static Node *parse_product(Parser *p) {
    Node *left = parse_power(p);
    while (p->t->kind >= T_MUL && p->t->kind <= T_MOD) {
        const Token *op = p->t++;
        left = new_binary(p, op, left, parse_power(p));
    }
    return left;
}

static Node *parse_concat(Parser *p) {
    Node *first = parse_product(p);
    if (p->t->kind != T_TILDE) return first;
    Node *node = new_node(p, N_CONCAT, p->t->at), **last = &first->next;
    node->first = first;
    while (skip_if(p, T_TILDE)) {
        *last = parse_product(p);
        last = &(*last)->next;
    }
    return node;
}

static Node *parse_sum(Parser *p) {
    Node *left = parse_concat(p);
    while (p->t->kind == T_ADD || p->t->kind == T_SUB) {
        const Token *op = p->t++;
        left = new_binary(p, op, left, parse_concat(p));
    }
    return left;
}

/* Takes the comparison at the current token; T_END: there is none. */
static TokenKind take_comparison(Parser *p) {
    if (p->t->kind >= T_EQ && p->t->kind <= T_LE) return p->t++->kind;
    if (skip_name(p, "in")) return T_IN;
    if (!at_name(p->t, "not") || !at_name(p->t + 1, "in")) return T_END;
    p->t += 2;
    return T_NOT_IN;
}

static Node *parse_comparison(Parser *p) {
    Node *left = parse_sum(p), *node = NULL, **last = NULL;
    for (;;) {
        uint32_t at = p->t->at;
        TokenKind op = take_comparison(p);
        if (op == T_END) return node ? node : left;
        if (!node) {
            node = new_pair(p, N_COMPARE, at, left, NULL);
            last = &node->first;
        }
        *last = new_pair(p, N_OPERAND, at, parse_sum(p), NULL);
        (*last)->op = op;
        last = &(*last)->next;
    }
}

static Node *parse_not(Parser *p) {
    const Token *t = p->t;
    if (!skip_name(p, "not")) return parse_comparison(p);
    enter(p);
    Node *node = new_pair(p, N_NOT, t->at, parse_not(p), NULL);
    p->depth--;
    return node;
}

static Node *parse_and(Parser *p) {
    Node *left = parse_not(p);
    for (const Token *t = p->t; skip_name(p, "and"); t = p->t)
        left = new_pair(p, N_AND, t->at, left, parse_not(p));
    return left;
}

static Node *parse_or(Parser *p) {
    Node *left = parse_and(p);
    for (const Token *t = p->t; skip_name(p, "or"); t = p->t)
        left = new_pair(p, N_OR, t->at, left, parse_and(p));
    return left;
}

static Node *parse_expression(Parser *p) {
    enter(p);
    Node *node = parse_or(p);
    for (const Token *t = p->t; skip_name(p, "if"); t = p->t) {
        node = new_pair(p, N_TERNARY, t->at, node, parse_or(p));
        if (skip_name(p, "else")) node->c = parse_expression(p);
    }
    p->depth--;
    return node;
}

/* ---- Statements ---- */

static Node *parse_body(Parser *p, const Token *opener, const char *const *ends);
static const char *const ENDIF[] = {"elif", "else", "endif", NULL}, *const ENDIF_ONLY[] = {"endif", NULL},
                         *const ENDFOR[] = {"endfor", "else", NULL}, *const ENDFOR_ONLY[] = {"endfor", NULL},
                         *const ENDSET[] = {"endset", NULL}, *const ENDMACRO[] = {"endmacro", NULL},
                         *const ENDCALL[] = {"endcall", NULL}, *const ENDFILTER[] = {"endfilter", NULL},
                         *const ENDWITH[] = {"endwith", NULL}, *const ENDBLOCK[] = {"endblock", NULL},
                         *const ENDGENERATION[] = {"endgeneration", NULL};

/* The body of opener's block up to one of these end tags, whose name is then the current token. */
static Node *parse_block(Parser *p, const Token *opener, const char *const *ends) {
    skip_if(p, T_COLON);
    expect(p, T_BLOCK_END, "the tag should end here");
    return parse_body(p, opener, ends);
}

/* The same for one end tag, whose name is taken. */
static Node *parse_whole_block(Parser *p, const Token *opener, const char *const *ends) {
    Node *body = parse_block(p, opener, ends);
    p->t++;
    return body;
}

static Node *parse_target_name(Parser *p) {
    const Token *t = expect(p, T_NAME, "a name is expected here");
    Node *node = new_node(p, N_NAME, t->at);
    node->name = t->text;
    return node;
}

static Node *parse_target_item(Parser *p) {
    if (p->t->kind == T_LPAREN) {
        enter(p);
        p->t++;
        Node *node = parse_tuple(p, parse_target_item, NULL, false);
        expect(p, T_RPAREN, "a \")\" is expected here");
        p->depth--;
        return node;
    }
    Node *node = parse_target_name(p);
    if (!skip_if(p, T_DOT)) return node;
    const Token *t = expect(p, T_NAME, "a name is expected behind the dot");
    Node *attribute = new_pair(p, N_ATTRIBUTE, t->at, node, NULL);
    attribute->name = t->text;
    return attribute;
}

static Node *parse_set(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_SET, tag->at);
    node->a = parse_tuple(p, parse_target_item, NULL, false);
    if (skip_if(p, T_ASSIGN)) {
        node->b = parse_tuple(p, parse_expression, NULL, false);
        return node;
    }
    node->kind = N_SET_BLOCK;
    if (p->t->kind == T_PIPE) node->b = parse_filters(p, new_node(p, N_HOLE, p->t->at));
    node->first = parse_whole_block(p, tag, ENDSET);
    return node;
}

static Node *parse_if(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_IF, tag->at), **last = &node->first;
    for (bool more = true; more;) {
        Node *branch = *last = new_node(p, N_BRANCH, p->t->at);
        last = &branch->next;
        branch->a = parse_tuple(p, parse_or, NULL, false);
        branch->first = parse_block(p, tag, ENDIF);
        more = skip_name(p, "elif");
    }
    if (skip_name(p, "else")) {
        *last = new_node(p, N_BRANCH, p->t->at);
        (*last)->first = parse_block(p, tag, ENDIF_ONLY);
    }
    p->t++;
    return node;
}

static Node *parse_for(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_FOR, tag->at);
    node->a = parse_tuple(p, parse_target_item, "in", false);
    if (!skip_name(p, "in")) fail(p, p->t, "\"in\" is expected here");
    node->b = parse_tuple(p, parse_or, "recursive", false);
    if (skip_name(p, "if")) node->c = parse_expression(p);
    node->recursive = skip_name(p, "recursive");
    p->n_loops++;
    node->first = parse_block(p, tag, ENDFOR);
    p->n_loops--;
    if (skip_name(p, "else")) node->second = parse_block(p, tag, ENDFOR_ONLY);
    p->t++;
    return node;
}

static Node *parse_parameters(Parser *p) {
    Node *first = NULL, **last = &first;
    bool defaults = false;
    expect(p, T_LPAREN, "a \"(\" is expected here");
    while (p->t->kind != T_RPAREN) {
        Node *parameter = *last = parse_target_name(p);
        parameter->kind = N_PARAMETER;
        last = &parameter->next;
        if (skip_if(p, T_ASSIGN)) {
            defaults = true;
            parameter->a = parse_expression(p);
        } else if (defaults) {
            fail(p, p->t, "a default is expected here, as the parameter before has one");
        }
        if (!skip_if(p, T_COMMA)) break;
    }
    expect(p, T_RPAREN, "a \",\" or \")\" is expected here");
    return first;
}

/* The body of a macro or call block, behind its parameters. */
static void parse_macro_body(Parser *p, Node *macro, const Token *tag, const char *const *ends) {
    Node *outer = p->macro;
    int n_loops = p->n_loops;
    p->macro = macro;
    p->n_loops = 0;
    macro->second = parse_whole_block(p, tag, ends);
    p->macro = outer;
    p->n_loops = n_loops;
    if (outer) { // the names that an inner macro uses, the outer one uses too
        outer->uses_caller |= macro->uses_caller;
        outer->uses_kwargs |= macro->uses_kwargs;
        outer->uses_varargs |= macro->uses_varargs;
    }
}

static Node *parse_macro(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_MACRO, tag->at);
    node->name = parse_target_name(p)->name;
    node->first = parse_parameters(p);
    parse_macro_body(p, node, tag, ENDMACRO);
    return node;
}

static Node *parse_call_block(Parser *p, const Token *tag) {
    Node *caller = new_node(p, N_MACRO, tag->at);
    caller->name = js_ascii(p->j, "caller");
    if (p->t->kind == T_LPAREN) caller->first = parse_parameters(p);
    const Token *t = p->t;
    Node *call = parse_expression(p);
    if (call->kind != N_CALL) fail(p, t, "the call of a macro is expected here");
    parse_macro_body(p, caller, tag, ENDCALL);
    return new_pair(p, N_CALL_BLOCK, tag->at, call, caller);
}

static Node *parse_filter_block(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_FILTER_BLOCK, tag->at);
    node->b = parse_filters(p, parse_filter(p, new_node(p, N_HOLE, p->t->at)));
    node->first = parse_whole_block(p, tag, ENDFILTER);
    return node;
}

static Node *parse_with(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_WITH, tag->at), **last = &node->first;
    while (p->t->kind == T_NAME || p->t->kind == T_LPAREN) {
        Node *target = parse_target_item(p);
        expect(p, T_ASSIGN, "a \"=\" is expected here");
        *last = new_pair(p, N_PAIR, target->at, target, parse_expression(p));
        last = &(*last)->next;
        if (!skip_if(p, T_COMMA)) break;
    }
    node->second = parse_whole_block(p, tag, ENDWITH);
    return node;
}

static Node *parse_print(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_CONCAT, tag->at), **last = &node->first;
    while (p->t->kind != T_BLOCK_END) {
        *last = parse_expression(p);
        last = &(*last)->next;
        if (!skip_if(p, T_COMMA)) break;
    }
    return new_pair(p, N_PRINT, tag->at, node, NULL);
}

static Node *parse_generation(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_GENERATION, tag->at);
    node->first = parse_whole_block(p, tag, ENDGENERATION);
    return node;
}

/* A block is a part that templates which extend this one replace; here it stands for itself. */
static Node *parse_named_block(Parser *p, const Token *tag) {
    Node *node = new_node(p, N_BLOCK, tag->at);
    int n_loops = p->n_loops;
    node->name = parse_target_name(p)->name;
    if (skip_name(p, "scoped")) node->op = T_NAME;
    if (at_name(p->t, "required")) fail(p, p->t, "a template that extends this one must have this block");
    p->n_loops = 0;
    node->first = parse_whole_block(p, tag, ENDBLOCK);
    p->n_loops = n_loops;
    if (p->t->kind == T_NAME && js_equal(p->t->text, node->name)) p->t++;
    for (const Node *other = p->blocks; other; other = other->a)
        if (js_equal(other->name, node->name)) fail(p, tag, "each block needs a name of its own");
    node->a = p->blocks;
    p->blocks = node;
    return node;
}

static Node *parse_jump(Parser *p, const Token *tag) {
    if (!p->n_loops) {
        p->j->at = tag->at;
        jinja_fail(p->j, ERR_MODEL, "\"%s\" outside of a loop", jinja_quote(p->j, tag->text));
    }
    return new_node(p, js_is(tag->text, "break") ? N_BREAK : N_CONTINUE, tag->at);
}

static _Noreturn void refuse_tag(Parser *p, const Token *tag) {
    static const char *const FOREIGN[] = {"include", "import", "from", "extends", "autoescape", "do"};
    const char *name = jinja_quote(p->j, tag->text);
    p->j->at = tag->at;
    for (size_t i = 0; i < sizeof FOREIGN / sizeof *FOREIGN; i++)
        if (at_name(tag, FOREIGN[i]))
            jinja_fail(p->j, ERR_MODEL, "{%% %s %%} is not supported in chat templates", name);
    if (at_name(tag, "else") || at_name(tag, "elif") || js_starts(tag->text, js_ascii(p->j, "end")))
        jinja_fail(p->j, ERR_MODEL, "{%% %s %%} does not match the open block", name);
    jinja_fail(p->j, ERR_MODEL, "the tag {%% %s %%} is unknown", name);
}

static Node *parse_statement(Parser *p) {
    static const struct {
        const char *name;
        Node *(*parse)(Parser *p, const Token *tag);
    } STATEMENTS[] = {
        {"set", parse_set},         {"if", parse_if},         {"for", parse_for},
        {"macro", parse_macro},     {"print", parse_print},   {"generation", parse_generation},
        {"call", parse_call_block}, {"with", parse_with},     {"filter", parse_filter_block},
        {"break", parse_jump},      {"continue", parse_jump}, {"block", parse_named_block},
    };
    const Token *tag = expect(p, T_NAME, "the name of a tag is expected here");
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++)
        if (js_is(tag->text, STATEMENTS[i].name)) return STATEMENTS[i].parse(p, tag);
    refuse_tag(p, tag);
}

static bool at_one_of(const Token *t, const char *const *names) {
    for (; *names; names++)
        if (at_name(t, *names)) return true;
    return false;
}

static _Noreturn void fail_unclosed(Parser *p, const Token *opener) {
    p->j->at = opener->at;
    const char *name = jinja_quote(p->j, opener->text);
    jinja_fail(p->j, ERR_MODEL, "this {%% %s %%} is not closed; it needs {%% end%s %%}", name, name);
}

static Node *parse_body(Parser *p, const Token *opener, const char *const *ends) {
    Node *first = NULL, **last = &first;
    enter(p);
    for (;; last = &(*last)->next) {
        const Token *t = p->t++;
        if (t->kind == T_DATA) {
            *last = new_node(p, N_TEXT, t->at);
            (*last)->value = jv_str(t->text);
        } else if (t->kind == T_VARIABLE_BEGIN) {
            *last = new_pair(p, N_PRINT, t->at, parse_tuple(p, parse_expression, NULL, false), NULL);
            expect(p, T_VARIABLE_END, "\"}}\" is expected here");
        } else if (t->kind == T_BLOCK_BEGIN) {
            if (ends && at_one_of(p->t, ends)) break;
            *last = parse_statement(p);
            expect(p, T_BLOCK_END, "the tag should end here");
        } else {
            if (ends) fail_unclosed(p, opener);
            break;
        }
    }
    p->depth--;
    return first;
}

Node *jinja_parse(Jinja *j, const Token *tokens) {
    Parser p = {.j = j, .t = tokens};
    return parse_body(&p, NULL, NULL);
}
