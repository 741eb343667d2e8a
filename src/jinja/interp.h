/* interp: the tree evaluated: expressions, statements, builtins, and the rendering of a whole template.
 *
 * render.c runs lex.c, parse.c and exec.c; exec.c (statements) calls eval.c (expressions), never the other
 * way round: macros and loops are values that carry their function.  Filters, tests, methods and functions
 * are data: tables of Builtin, each in its file, found by name.  eval.c and the tables share operators.c,
 * attribute.c, format.c and builtin.c. */
#ifndef ZGEN_JINJA_INTERP_H
#define ZGEN_JINJA_INTERP_H

#include <time.h>
#include "syntax.h"

typedef struct Variable {
    struct Variable *next;
    Str name;
    Value value;
} Variable;

typedef struct Scope {
    struct Scope *parent;
    Variable *variables;
} Scope;

typedef struct Interp {
    struct tm now; // the time of strftime_now
    Scope *scope;  // the innermost
    Scope *top;    // of the statements outside of all others
    Text *out;     // of the statements: the whole output, or a text that is captured
    Value hole;    // see N_HOLE
} Interp;

/* ---- Rendering (render.c) ---- */

typedef struct JinjaLimits {
    bool (*stop)(void); // whether the rendering shall end, asked all the time; NULL: it never shall
    int64_t *spent;     // steps of earlier renderings, which share one budget; NULL: it has one of its own
} JinjaLimits;

/* Renders source (UTF-8, n bytes) with these variables into *text: characters in the arena, valid until
 * jinja_free.  make fills a dict of the variables from `from`; it may fail by jinja_fail.  false: ERR_MODEL
 * if the template is malformed or exceeds a budget, ERR_RUN if it refuses these variables or fails on
 * them; the sentence names line and column.  ERR_RUN too if it is stopped.  The caller frees the arena either
 * way. */
bool jinja_render(Jinja *j, const char *source, size_t n, const struct tm *now, const JinjaLimits *limits,
                  Dict *(*make)(Jinja *j, const void *from), const void *from, Str *text, Err *e);

/* ---- Statements and expressions (exec.c, eval.c) ---- */

void jinja_exec(Jinja *j, const Node *body); // writes to interp->out
Scope *jinja_push_scope(Jinja *j);           // returns the scope before, to be put back
void jinja_set(Jinja *j, Str name, Value value);
Value jinja_eval(Jinja *j, const Node *expression);

/* ---- Operators (operators.c) ---- */

Value jinja_binary(Jinja *j, TokenKind op, Value a, Value b); // T_ADD .. T_POW
Value jinja_negative(Jinja *j, Value v);
bool jinja_compare(Jinja *j, TokenKind op, Value a, Value b); // T_EQ .. T_NOT_IN

/* ---- Attributes and subscripts (attribute.c) ---- */

Value jinja_attribute(Jinja *j, Value v, Str name);   // v.name
Value jinja_item(Jinja *j, Value v, Value subscript); // v[subscript]

/* ---- Formats (format.c) ---- */

Str jinja_percent(Jinja *j, Str format, Value values);    // format % values
Str jinja_braces(Jinja *j, Str format, const Args *args); // format.format(...)

/* ---- Filters in files of their own (markup.c, wrap.c) ---- */

Value jinja_escape(Jinja *j, const Value *a);
Value jinja_striptags(Jinja *j, const Value *a);
Value jinja_urlize(Jinja *j, const Value *a);
Value jinja_xmlattr(Jinja *j, const Value *a);
Value jinja_wordwrap(Jinja *j, const Value *a);

/* ---- Builtins (builtin.c, and a file per table) ---- */

enum { JINJA_PARAMETERS_MAX = 6 }; // named parameters of a builtin, its subject included

/* A filter, test, method or function.  parameters are names separated by spaces, optional ones with a '?'
 * behind; "*" alone passes all arguments in a[1].args.  a[0] is the subject (the value piped or tested, or
 * the method's owner; V_ABSENT for functions), a[1..] the parameters in order, V_ABSENT if not given. */
typedef struct Builtin {
    const char *name; // NULL ends a table
    const char *parameters;
    Value (*call)(Jinja *j, const Value *a);
} Builtin;

Value jinja_call_builtin(Jinja *j, const Builtin *b, Value self, const Args *args);
const Builtin *jinja_find(const Builtin *table, Str name); // NULL: no row of this name, and so below
const Builtin *jinja_filter(Str name);
const Builtin *jinja_test(Str name);
const Builtin *jinja_function(Str name);
const Builtin *jinja_method(Value subject, Str name);

#endif
