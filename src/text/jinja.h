/* jinja: the inside of the template interpreter.  chat.h is its door; only the jinja files and chat.c
 * include this one.
 *
 * A small Jinja2 as chat templates use it, with Python's semantics where a template can see them (repr, floor
 * division, Undefined, one-pass iterators, scopes).  Whatever a template can reach is a Value made here from
 * JSON or by the template itself: there is no object of the host, no file, no import, and nothing that can be
 * changed except namespaces, loops, cyclers and joiners.  Values are therefore shared freely.
 *
 * The flow: jinja_lex -> jinja_parse -> jinja_exec { jinja_eval }, each one file.  What filters, tests,
 * methods and functions there are is data: tables of Builtin.
 *
 * Three tricks carry it.
 *   - A character is 32 bits, and the topmost says that the user wrote it.  Every string operation moves
 *     characters, so origin follows them through slices, joins, replacements and JSON without a line of code.
 *   - Everything lives in one bounded arena that dies at the end, so no path has anything to free.
 *   - A template that goes wrong leaves through jinja_fail, which jumps to jinja_render.  Errors need no
 *     plumbing, and recursion, work, memory and text are counted where they grow.
 *
 * Characters are code points (a combining accent is its own), as in Python. */
#ifndef ZGEN_TEXT_JINJA_H
#define ZGEN_TEXT_JINJA_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>
#include <jansson.h>
#include "../base/err.h"

enum {
    JINJA_NESTING_MAX = 100,      // brackets, blocks and prefixes inside each other, in the source
    JINJA_DEPTH_MAX = 1000,       // evaluations inside each other, while running
    JINJA_STEPS_MAX = 10000000,   // nodes evaluated, items visited, and characters moved / 64
    JINJA_TEXT_MAX = 16 << 20,    // characters of one string; bytes of the whole output
    JINJA_MEMORY_MAX = 384 << 20, // bytes of the arena
    JINJA_SOURCE_MAX = 1 << 20,   // characters of a template
    JINJA_RANGE_MAX = 100000,     // items of range(), as in Jinja's sandbox
    JINJA_PARAMETERS_MAX = 6,     // named parameters of a builtin, its subject included
};

typedef struct Jinja Jinja; // the interpreter, see below

/* ---- Strings ---- */

typedef uint32_t Char; // a code point, and CHAR_USER
static const Char CHAR_USER = 0x80000000u;

static inline uint32_t char_code(Char c) {
    return c & 0x7FFFFFFFu;
}

typedef struct Str { // never changed once made; parts share their whole's memory
    const Char *c;
    size_t n; // characters
} Str;

/* ---- Values ---- */

typedef enum Kind {
    V_ABSENT, // a parameter that was not given; templates never see it
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_VIEW,     // what dict.items(), .keys(), .values() give
    V_ITERATOR, // what map, select, ... give: can be walked once
    V_RANGE,
    V_DICT,
    V_NAMESPACE,
    V_FUNCTION, // a builtin, bound to its subject if it is a method
    V_MACRO,
    V_LOOP,
    V_CYCLER,
    V_JOINER,
    V_ARGS, // all arguments of a builtin; templates never see it
} Kind;

enum { // Value.detail of V_UNDEFINED: which sentence explains it
    MISSING_VARIABLE,
    MISSING_ATTRIBUTE, // and the kind of the owner in Value.owner
    MISSING_ITEM,
    MISSING_OTHER, // the name is the sentence
    FORBIDDEN,     // a method that would change its subject
};
enum { VIEW_ITEMS, VIEW_KEYS, VIEW_VALUES }; // Value.detail of V_VIEW
enum { TUPLE_PLAIN, TUPLE_GROUP };           // Value.detail of V_TUPLE: groupby's have .grouper and .list

typedef struct Value {
    uint8_t kind, detail, owner;
    union {
        bool truth;
        int64_t i;
        double f;
        Str s; // V_STRING; of V_UNDEFINED the name
        struct Seq *seq;
        struct Iterator *iterator;
        struct Range *range;
        struct Dict *dict; // V_DICT, V_NAMESPACE
        struct Function *function;
        struct Macro *macro;
        struct Loop *loop;
        struct Cycler *cycler;
        struct Joiner *joiner;
        const struct Args *args; // V_ARGS
    };
} Value;

typedef struct Seq {
    Value *items;
    size_t n, capacity;
} Seq;

typedef struct Iterator {
    Seq *seq;
    size_t next;
} Iterator;

typedef struct Range {
    int64_t start, stop, step; // stop only to be shown
    size_t n;
} Range;

typedef struct Pair {
    Value key, value;
} Pair;

typedef struct Dict { // in order of insertion
    Pair *pairs;
    size_t n, capacity;
} Dict;

typedef struct Function {
    const struct Builtin *builtin;
    Value self;
} Function;

typedef struct Macro {
    const struct Node *node;
    struct Scope *scope; // where it was defined
} Macro;

typedef struct Loop {
    Seq *items;
    size_t index;
    int64_t depth;
    Value changed; // last argument tuple of loop.changed(), or V_ABSENT
    const struct Node *node;
    struct Scope *scope; // around the loop, for recursive ones
} Loop;

typedef struct Cycler {
    Seq *items;
    size_t next;
} Cycler;

typedef struct Joiner {
    Str separator;
    bool used;
} Joiner;

typedef struct Args {
    Seq positional;
    Dict named;
} Args;

/* A filter, test, method or function.  parameters are names parted by spaces, those that may be left out with
 * a '?' behind; "*" alone hands the arguments over as they are, in a[1].args.  a[0] is the subject (what was
 * piped, tested, or the method's owner; V_ABSENT for functions), a[1..] the parameters in order, V_ABSENT if
 * not given. */
typedef struct Builtin {
    const char *name; // NULL ends a table
    const char *parameters;
    Value (*call)(Jinja *j, const Value *a);
} Builtin;

/* ---- The tree ---- */

typedef enum TokenKind {
    T_DATA,
    T_VARIABLE_BEGIN,
    T_VARIABLE_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_NUMBER,
    T_ADD,
    T_SUB,
    T_MUL,
    T_DIV,
    T_FLOORDIV,
    T_MOD,
    T_POW,
    T_TILDE,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE,
    T_IN,     // of operators only, never from the lexer
    T_NOT_IN, // the same
    T_ASSIGN,
    T_DOT,
    T_COLON,
    T_PIPE,
    T_COMMA,
    T_SEMICOLON,
    T_LPAREN,
    T_RPAREN,
    T_LBRACKET,
    T_RBRACKET,
    T_LBRACE,
    T_RBRACE,
    T_END,
} TokenKind;

typedef struct Token {
    TokenKind kind;
    uint32_t at; // character of the source
    Str text;    // as written; of T_DATA and T_STRING what is meant
    Value value; // of T_NUMBER
} Token;

typedef enum NodeKind { // what a, b, c, first and second hold
    N_CONST,            // value
    N_NAME,             // name
    N_HOLE,             // the text that a filter block or a set block pipes
    N_LIST,             // first...: items
    N_TUPLE,            // first...: items
    N_DICT,             // first...: N_PAIR
    N_PAIR,             // a: key or target, b: value
    N_ATTRIBUTE,        // a, name
    N_ITEM,             // a, b: subscript
    N_SLICE,            // a, b, c: start, stop, step; each may be NULL
    N_CALL,             // a: what; first...: N_ARGUMENT
    N_FILTER,           // a: subject, name; first...: N_ARGUMENT
    N_TEST,             // a: subject, name; first...: N_ARGUMENT
    N_ARGUMENT,         // a; name, or op T_MUL for *a, T_POW for **a
    N_NEGATIVE,         // a
    N_POSITIVE,         // a
    N_NOT,              // a
    N_AND,              // a, b
    N_OR,               // a, b
    N_BINARY,           // op, a, b
    N_CONCAT,           // first...: operands
    N_COMPARE,          // a; first...: N_OPERAND
    N_OPERAND,          // op, a
    N_TERNARY,          // a if b else c; c may be NULL
    N_TEXT,             // value: template text
    N_PRINT,            // a
    N_SET,              // a: target, b
    N_SET_BLOCK,        // a: target, b: filters around N_HOLE or NULL, first...: body
    N_IF,               // first...: N_BRANCH
    N_BRANCH,           // a: condition, NULL of else; first...: body
    N_FOR,              // a: target, b: what, c: condition or NULL, first...: body, second...: else
    N_MACRO,            // name; first...: N_PARAMETER, second...: body
    N_PARAMETER,        // name; a: default or NULL
    N_CALL_BLOCK,       // a: N_CALL, b: N_MACRO, the caller
    N_FILTER_BLOCK,     // b: filters around N_HOLE; first...: body
    N_WITH,             // first...: N_PAIR; second...: body
    N_BREAK,
    N_CONTINUE,
    N_GENERATION, // first...: body
} NodeKind;

typedef struct Node {
    NodeKind kind;
    TokenKind op;
    uint32_t at;
    bool recursive;                              // of N_FOR
    bool uses_caller, uses_kwargs, uses_varargs; // of N_MACRO
    Str name;
    Value value;
    struct Node *a, *b, *c, *first, *second, *next; // next: the sibling in the parent's list
} Node;

/* ---- The interpreter ---- */

typedef struct Text { // a string being built
    Char *c;
    size_t n, capacity;
} Text;

typedef struct Variable {
    struct Variable *next;
    Str name;
    Value value;
} Variable;

typedef struct Scope {
    struct Scope *parent;
    Variable *variables;
} Scope;

struct Jinja {
    Str source;  // newlines normalised
    uint32_t at; // what is being parsed or evaluated
    struct tm now;
    struct Block *blocks; // of the arena
    size_t memory;        // bytes the arena holds
    int64_t steps;
    int depth;
    Scope *scope;
    Text *out;
    Value hole; // see N_HOLE
    Err *e;
    jmp_buf failed;
};

/* jinja.c: the frame */

/* Renders source (UTF-8, n bytes) with these variables into *text: characters in the arena, that live until
 * jinja_end.  make fills a dict of the variables; it may fail like everything else.  false: ERR_MODEL if the
 * template is malformed or exceeds a budget, ERR_RUN if it refuses these variables or stumbles over them; the
 * sentence names line and column.  jinja_end follows either way. */
bool jinja_render(Jinja *j, const char *source, size_t n, const struct tm *now,
                  Dict *(*make)(Jinja *j, const void *from), const void *from, Str *text, Err *e);
void jinja_end(Jinja *j);

void *jinja_alloc(Jinja *j, size_t n, size_t size); // n zeroed elements; n may be 0
void jinja_spend(Jinja *j, size_t steps);
void jinja_enter(Jinja *j); // one deeper; --j->depth leaves
_Noreturn void jinja_fail(Jinja *j, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* For %s: the first characters of s as UTF-8, in the arena. */
const char *jinja_quote(Jinja *j, Str s);

/* jinja_lex.c, jinja_parse.c, jinja_exec.c, jinja_eval.c: the flow */

Token *jinja_lex(Jinja *j);                       // of j->source; the last is T_END
Node *jinja_parse(Jinja *j, const Token *tokens); // the first statement; NULL of an empty template
void jinja_exec(Jinja *j, const Node *body);      // writes to j->out
Value jinja_eval(Jinja *j, const Node *expression);
Value jinja_call(Jinja *j, Value callee, const Args *args);
Value jinja_call_builtin(Jinja *j, const Builtin *b, Value self, const Args *args);
Value jinja_call_macro(Jinja *j, const Macro *macro, const Args *args);
Value jinja_call_loop(Jinja *j, const Loop *loop, Value iterable); // a recursive loop's body once more
Value jinja_capture(Jinja *j, const Node *body);                   // what the body writes, as a string
void jinja_assign(Jinja *j, const Node *target, Value value);
Scope *jinja_push_scope(Jinja *j); // returns the one before, to be put back
void jinja_set(Jinja *j, Str name, Value value);
Value jinja_binary(Jinja *j, TokenKind op, Value a, Value b);
bool jinja_compare(Jinja *j, TokenKind op, Value a, Value b); // T_EQ .. T_NOT_IN

/* The tables; NULL where there is none of this name. */
const Builtin *jinja_filter(Str name);
const Builtin *jinja_test(Str name);
const Builtin *jinja_function(Str name);
const Builtin *jinja_method(Value subject, Str name);
const Builtin *jinja_find(const Builtin *table, Str name);

/* jinja_str.c: strings */

Str js_utf8(Jinja *j, const char *bytes, size_t n, Char mark); // ill-formed bytes become U+FFFD
Str js_ascii(Jinja *j, const char *s);
size_t js_put_utf8(Char c, char bytes[4]); // returns how many, 1..4
bool js_equal(Str a, Str b);
bool js_is(Str s, const char *ascii);
int js_compare(Str a, Str b); // by code point: < 0, 0, > 0
Str js_part(Str s, size_t from, size_t to);
static const size_t JS_NOWHERE = SIZE_MAX;
Str js_joined(Jinja *j, Str a, Str b);
Str js_repeated(Jinja *j, Str s, size_t times);
size_t js_find(Jinja *j, Str s, Str what, size_t from); // first place at or behind from, or JS_NOWHERE
size_t js_find_last(Jinja *j, Str s, Str what);
bool js_starts(Str s, Str with);
bool js_ends(Str s, Str with);
Str js_trim(Jinja *j, Str s, const Str *chars, bool left, bool right); // chars NULL: white space
size_t js_line(Str s, size_t from,
               size_t *next); // where the line at from ends, and where the next one begins
typedef enum Side { LEFT, MIDDLE, RIGHT } Side;
Str js_padded(Jinja *j, Str s, int64_t width, Char fill, Side where); // where s stands in the width
Str js_replace(Jinja *j, Str s, Str old, Str with, int64_t most);     // most < 0: all
Str js_upper(Jinja *j, Str s);
Str js_lower(Jinja *j, Str s);
Str js_capitalized(Jinja *j, Str s);
bool char_is_space(Char c);
bool char_ends_line(Char c);
bool char_is_digit(Char c);
bool char_is_letter(Char c);
bool char_is_upper(Char c);
bool char_is_lower(Char c);

void js_add(Jinja *j, Text *t, Str s);
void js_add_char(Jinja *j, Text *t, Char c);
void js_add_times(Jinja *j, Text *t, Char c, size_t n);
void js_add_ascii(Jinja *j, Text *t, const char *s);
Str js_text(const Text *t);

/* jinja_value.c: what all values can do */

Value jv_none(void);
Value jv_bool(bool truth);
Value jv_int(int64_t i);
Value jv_float(double f);
Value jv_str(Str s);
Value jv_seq(Kind kind, Seq *seq); // V_LIST, V_TUPLE, V_VIEW
Value jv_iterator(Jinja *j, Seq *seq);
Value jv_dict(Dict *dict);
Value jv_undefined(int detail, Value owner, Str name);
Seq *jv_new_seq(Jinja *j, size_t capacity);
void jv_add(Jinja *j, Seq *seq, Value item);
Dict *jv_new_dict(Jinja *j);
void jv_put(Jinja *j, Dict *dict, Value key, Value value);  // replaces the value of an equal key
const Value *jv_get(Jinja *j, const Dict *dict, Value key); // NULL: not there

const char *jv_kind_name(Value v); // as Python calls the type
bool jv_is_number(Value v);        // bool, int or float
double jv_number(Value v);
bool jv_truth(Jinja *j, Value v);
bool jv_equal(Jinja *j, Value a, Value b);
int jv_compare(Jinja *j, Value a, Value b); // fails where Python's < would
bool jv_contains(Jinja *j, Value container, Value item);
bool jv_has_length(Value v);
size_t jv_length(Jinja *j, Value v);
bool jv_is_iterable(Value v);
Seq *jv_items(Jinja *j, Value v);                  // the items that iterating gives; uses up an iterator
Value jv_attribute(Jinja *j, Value v, Str name);   // v.name
Value jv_item(Jinja *j, Value v, Value subscript); // v[subscript]
Value jv_slice(Jinja *j, Value v, Value start, Value stop, Value step); // V_NONE: left out
/* Fails with the reason if v is undefined: for operations that cannot bear it. */
Value jv_need(Jinja *j, Value v);
bool jv_is_whole(Value v); // bool or int
int64_t jv_whole(Value v); // of a whole one
bool jv_is_given(Value v); // an argument that is neither left out nor None
int64_t jv_int_or(Jinja *j, Value v, int64_t fallback, const char *what); // the fallback if it is not given
int64_t jv_need_int(Jinja *j, Value v, const char *what);
Str jv_need_str(Jinja *j, Value v, const char *what);

/* jinja_text.c: values as text */

Str jv_string(Jinja *j, Value v);         // str(v)
void jv_repr(Jinja *j, Text *t, Value v); // repr(v)
void jv_add_float(Jinja *j, Text *t, double f);
Str jv_percent(Jinja *j, Str format, Value values);    // format % values
Str jv_braces(Jinja *j, Str format, const Args *args); // format.format(...)

/* jinja_json.c: values from and to JSON */

Value jv_from_json(Jinja *j, const json_t *json, Char mark); // mark: CHAR_USER or 0, of all strings and keys
typedef struct JsonStyle {
    bool ascii, sort_keys;
    bool pretty;
    Str indent; // of each level, if pretty
    Str comma, colon;
} JsonStyle;
Str jv_to_json(Jinja *j, Value v, const JsonStyle *style);

#endif
