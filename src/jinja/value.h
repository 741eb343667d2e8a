/* value: the values that a chat template computes with, and the budgets of one rendering.
 *
 * The room jinja is a small Jinja2 as chat templates use it, with Python's semantics where a template can see
 * them (repr, floor division, Undefined, one-pass iterators, scopes).  It has three headers in a line:
 * value.h (strings, values, budgets), syntax.h (tokens and the tree), interp.h (evaluation, filters,
 * rendering).  The room depends on neither chats nor models.
 *
 * Everything that a template can reach is a Value, made from JSON or by the template: no object of the host,
 * no file, no import.  Only lists (append), namespaces, loops, cyclers and joiners can change, so all other
 * values are shared without copies.
 *
 * Three tricks:
 *   - A character is 32 bits, of which the upper 11 have the number of its origin: 0 for the template, others
 *     for the texts of the user.  Every string operation moves characters, so origin follows them through
 *     slices, joins, replacements and JSON without a line of code.
 *   - All memory is one bounded arena that is freed at the end, so no path frees anything.
 *   - A template that goes wrong leaves through jinja_fail, which jumps to jinja_render.  Errors need no
 *     plumbing; depth, work, memory and text are counted where they grow, and where work is counted the
 *     rendering asks whether it shall stop.
 *
 * Characters are code points (a combining accent is one of its own), as in Python. */
#ifndef ZGEN_JINJA_VALUE_H
#define ZGEN_JINJA_VALUE_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "../base/err.h"

enum {                            // budgets of one rendering
    JINJA_DEPTH_MAX = 1000,       // evaluations inside each other
    JINJA_STEPS_MAX = 10000000,   // nodes evaluated, items visited, values and characters / 64 compared
    JINJA_TEXT_MAX = 16 << 20,    // characters of one string; bytes of the whole output
    JINJA_MEMORY_MAX = 384 << 20, // bytes of the arena
};

/* ---- Strings ---- */

typedef uint32_t Char; // a code point, and its mark: its origin in the upper bits
enum { CHAR_CODE_BITS = 21, CHAR_ORIGINS = 1 << (32 - CHAR_CODE_BITS) };

static inline uint32_t char_code(Char c) {
    return c & ((1u << CHAR_CODE_BITS) - 1);
}
static inline unsigned char_origin(Char c) {
    return c >> CHAR_CODE_BITS;
}
static inline Char char_mark(Char c) {
    return c - char_code(c);
}
static inline Char char_mark_of(unsigned origin) { // < CHAR_ORIGINS
    return origin << CHAR_CODE_BITS;
}

typedef struct Str { // never changed once made; a part shares the memory of its whole
    const Char *c;
    size_t n; // characters
} Str;

typedef struct Text { // a string being built; starts as {0}
    Char *c;
    size_t n, capacity;
} Text;

/* ---- Values ---- */

typedef enum Kind {
    V_ABSENT, // a parameter that was not given; not visible to templates
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STRING,
    V_LIST,
    V_TUPLE,
    V_VIEW,     // result of dict.items(), .keys(), .values()
    V_ITERATOR, // result of map, select, ...: can be walked once
    V_RANGE,
    V_DICT,
    V_NAMESPACE,
    V_FUNCTION, // a builtin, bound to its subject if it is a method
    V_MACRO,
    V_LOOP,
    V_CYCLER,
    V_JOINER,
    V_ARGS, // all arguments of a builtin; not visible to templates
} Kind;

enum { // Value.detail of V_UNDEFINED: the sentence of its error
    MISSING_VARIABLE,
    MISSING_ATTRIBUTE, // and the kind of the owner in Value.owner
    MISSING_ITEM,
    MISSING_OTHER, // the sentence is the name
    FORBIDDEN,     // a method that would change its subject
};
enum { VIEW_ITEMS, VIEW_KEYS, VIEW_VALUES }; // Value.detail of V_VIEW
enum { TUPLE_PLAIN, TUPLE_GROUP };           // Value.detail of V_TUPLE: groupby's have .grouper and .list

typedef struct Value {
    uint8_t kind, detail, owner;
    union {
        bool truth;
        int64_t i;
        struct { // V_FLOAT
            double f;
            const Str
                *written; // a number of JSON that is larger than f or an int can be, as it is written there
        };
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
    int64_t start, stop, step; // stop is read by repr only
    size_t n;
} Range;

typedef struct Pair {
    Value key, value;
} Pair;

typedef struct Dict { // in order of insertion
    Pair *pairs;
    size_t n, capacity;
} Dict;

typedef struct Args {
    Seq positional;
    Dict named;
} Args;

typedef struct Jinja Jinja; // one rendering, see below

typedef struct Function {
    const struct Builtin *builtin;
    Value self;
} Function;

typedef struct Macro { // callable; the interpreter sets call, and node and scope for it
    Str name;
    Value (*call)(Jinja *j, const struct Macro *macro, const Args *args);
    const struct Node *node;
    struct Scope *scope; // of the definition
} Macro;

typedef struct Loop { // callable if it is recursive: its body once more, for the items of another iterable
    Seq *items;
    size_t index;
    int64_t depth;
    Value changed; // last argument tuple of loop.changed(), or V_ABSENT
    Value (*call)(Jinja *j, const struct Loop *loop, Value iterable);
    const struct Node *node;
    struct Scope *scope; // around the loop
} Loop;

typedef struct Cycler {
    Seq *items;
    size_t next;
} Cycler;

typedef struct Joiner {
    Str separator;
    bool used;
} Joiner;

/* ---- One rendering (budget.c) ---- */

struct Jinja {
    Str source;           // the template, newlines normalised
    uint32_t at;          // character of the source that is being read or evaluated: jinja_fail reports it
    struct Block *blocks; // of the arena
    size_t memory;        // bytes of the arena
    int64_t steps;
    int depth;
    bool has_repr;         // None, a list or a dict was written as Python does, which no model was trained on
    bool (*stop)(void);    // whether the rendering shall end; NULL: it never shall
    struct Interp *interp; // the interpreter's state, see interp.h
    json_t *json;          // that is being read
    Err *e;
    jmp_buf failed;
};

void *jinja_alloc(Jinja *j, size_t n, size_t size); // n zeroed elements of the arena; n may be 0
void jinja_free(Jinja *j);                          // the arena
void jinja_spend(Jinja *j, size_t steps);           // fails if there are none left, or j->stop says so
void jinja_enter(Jinja *j);                         // one level deeper, until jinja_leave
void jinja_leave(Jinja *j);
/* Ends the rendering with the error code and a sentence that names line and column of j->at. */
_Noreturn void jinja_fail(Jinja *j, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* For %s: the first characters of s as UTF-8, in the arena. */
const char *jinja_quote(Jinja *j, Str s);

/* ---- Operations on strings (str.c, unicode.c) ---- */

Str js_utf8(Jinja *j, const char *bytes, size_t n, Char mark); // ill-formed bytes become U+FFFD
Str js_ascii(Jinja *j, const char *s);
size_t js_put_utf8(Char c, char bytes[4]); // returns the number of bytes, 1..4
bool js_equal(Str a, Str b);
bool js_is(Str s, const char *ascii);
int js_compare(Str a, Str b); // by code point: < 0, 0, > 0
Str js_part(Str s, size_t from, size_t to);
static const size_t JS_NOWHERE = SIZE_MAX;
Str js_joined(Jinja *j, Str a, Str b);
Str js_repeated(Jinja *j, Str s, size_t times);
size_t js_find(Jinja *j, Str s, Str what, size_t from); // first index at or behind from, or JS_NOWHERE
size_t js_find_last(Jinja *j, Str s, Str what);
bool js_starts(Str s, Str with);
bool js_ends(Str s, Str with);
Str js_trim(Jinja *j, Str s, const Str *chars, bool left, bool right); // chars NULL: white space
size_t js_line(Str s, size_t from,
               size_t *next); // the end of the line at from; *next: the begin of the next one
typedef enum Side { LEFT, MIDDLE, RIGHT } Side;
Str js_padded(Jinja *j, Str s, int64_t width, Char fill, Side side); // s at this side of the width
Str js_replace(Jinja *j, Str s, Str old, Str with, int64_t most);    // most < 0: all
Str js_upper(Jinja *j, Str s);
Str js_lower(Jinja *j, Str s);
Str js_capitalized(Jinja *j, Str s);
bool js_is_upper(Str s); // some letter has this case, and none the other
bool js_is_lower(Str s);
bool char_is_space(Char c);
bool char_ends_line(Char c);
bool char_is_digit(Char c);
bool char_is_letter(Char c);
bool char_is_upper(Char c);

void js_add(Jinja *j, Text *t, Str s);
void js_add_char(Jinja *j, Text *t, Char c);
void js_add_times(Jinja *j, Text *t, Char c, size_t n);
void js_add_ascii(Jinja *j, Text *t, const char *s);
Str js_text(const Text *t);

/* ---- Operations on all values (value.c) ---- */

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
Seq *jv_copy(Jinja *j, const Seq *seq);
Dict *jv_new_dict(Jinja *j);
void jv_put(Jinja *j, Dict *dict, Value key, Value value);  // replaces the value of an equal key
const Value *jv_get(Jinja *j, const Dict *dict, Value key); // NULL: the dict has no equal key

const char *jv_kind_name(Value v); // as Python calls the type
bool jv_is_number(Value v);        // bool, int or float
double jv_number(Value v);
bool jv_is_whole(Value v); // bool or int
int64_t jv_whole(Value v); // of a bool or int
bool jv_truth(Jinja *j, Value v);
bool jv_equal(Jinja *j, Value a, Value b);
int jv_compare(Jinja *j, Value a, Value b); // fails where Python's < would
bool jv_contains(Jinja *j, Value container, Value item);
bool jv_has_length(Value v);
size_t jv_length(Jinja *j, Value v);
bool jv_is_iterable(Value v);
Seq *jv_items(Jinja *j, Value v); // the items that iteration yields; uses up an iterator
Value jv_slice(Jinja *j, Value v, Value start, Value stop, Value step); // V_NONE: left out

/* Fails with the reason if v is undefined: for operations that undefined values have not. */
Value jv_need(Jinja *j, Value v);
int64_t jv_need_int(Jinja *j, Value v, const char *what);
Str jv_need_str(Jinja *j, Value v, const char *what);
bool jv_is_given(Value v); // an argument that is neither left out nor None
int64_t jv_int_or(Jinja *j, Value v, int64_t fallback, const char *what); // the fallback if it is not given

/* ---- Values as text (repr.c) ---- */

Str jv_string(Jinja *j, Value v);         // str(v)
void jv_repr(Jinja *j, Text *t, Value v); // repr(v)
void jv_add_float(Jinja *j, Text *t, double f);

/* ---- Values from and to JSON (json.c) ---- */

Value jv_from_json(Jinja *j, const json_t *json, Char mark); // mark: of all strings and keys
/* The same from JSON text; fails if it is none. */
Value jinja_read_json(Jinja *j, const char *text, size_t n, Char mark);
typedef struct JsonStyle {
    bool ascii, sort_keys;
    bool pretty;
    Str indent; // of each level, if pretty
    Str comma, colon;
} JsonStyle;
Str jv_to_json(Jinja *j, Value v, const JsonStyle *style);

#endif
