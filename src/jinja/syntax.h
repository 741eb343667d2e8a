/* syntax: a template as tokens (lex.c), and as a tree (parse.c).
 *
 * Owns the kinds of tokens and nodes, with the contents of a node's fields.  Both stages refuse malformed
 * templates with line and column, and the tags that read other templates (include, import, extends) by
 * name. */
#ifndef ZGEN_JINJA_SYNTAX_H
#define ZGEN_JINJA_SYNTAX_H

#include "value.h"

enum { JINJA_NESTING_MAX = 100 }; // brackets, blocks and prefixes inside each other, in the source

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
    Str text;    // as written; of T_DATA and T_STRING its meaning
    Value value; // of T_NUMBER
} Token;

typedef enum NodeKind { // contents of a, b, c, first and second
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
    N_CALL,             // a: callee; first...: N_ARGUMENT
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
    N_FOR,              // a: target, b: iterable, c: condition or NULL, first...: body, second...: else
    N_MACRO,            // name; first...: N_PARAMETER, second...: body
    N_PARAMETER,        // name; a: default or NULL
    N_CALL_BLOCK,       // a: N_CALL, b: N_MACRO, the caller
    N_FILTER_BLOCK,     // b: filters around N_HOLE; first...: body
    N_WITH,             // first...: N_PAIR; second...: body
    N_BREAK,
    N_CONTINUE,
    N_GENERATION, // first...: body
    N_BLOCK,      // name; first...: body; op: T_NAME if it sees the variables around it
} NodeKind;

typedef struct Node {
    NodeKind kind;
    TokenKind op;
    uint32_t at;                                 // character of the source
    bool recursive;                              // of N_FOR
    bool uses_caller, uses_kwargs, uses_varargs; // of N_MACRO
    Str name;
    Value value;
    struct Node *a, *b, *c, *first, *second, *next; // next: the sibling in the parent's list
} Node;

Token *jinja_lex(Jinja *j);                       // of j->source; the last is T_END
Node *jinja_parse(Jinja *j, const Token *tokens); // the first statement; NULL of an empty template

#endif
