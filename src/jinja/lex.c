/* lex: template text to tokens.
 *
 * Owns the white space rules (trim_blocks and lstrip_blocks are on, as chat templates expect: a newline right
 * behind a block or a comment is removed, and so are the blanks in front of one that begins its line; '-'
 * removes all white space on its side, '+' keeps it), raw blocks, comments, numbers and string escapes.  The
 * trick is Jinja's: inside brackets "}}" and "%}" are operators, so that a dict may end in front of the end
 * of its tag. */
#include "syntax.h"

#include <stdlib.h>

typedef struct Lexer {
    Jinja *j;
    Str s;
    size_t i;
    Token *tokens;
    size_t n, capacity;
    char open[JINJA_NESTING_MAX]; // the closing brackets of the open ones
    size_t n_open;
} Lexer;

static uint32_t peek(const Lexer *l, size_t ahead) {
    return l->i + ahead < l->s.n ? l->s.c[l->i + ahead] : 0;
}

static bool looking_at(const Lexer *l, size_t at, const char *what) {
    for (; *what; what++, at++)
        if (at >= l->s.n || l->s.c[at] != (unsigned char)*what) return false;
    return true;
}

static _Noreturn void fail_at(Lexer *l, size_t at, const char *message) {
    l->j->at = (uint32_t)at;
    jinja_fail(l->j, ERR_MODEL, "%s", message);
}

static Token *add(Lexer *l, TokenKind kind, size_t from, size_t to) {
    if (l->n == l->capacity) {
        l->capacity = l->capacity ? 2 * l->capacity : 256;
        Token *tokens = jinja_alloc(l->j, l->capacity, sizeof *tokens);
        for (size_t i = 0; i < l->n; i++) tokens[i] = l->tokens[i];
        l->tokens = tokens;
    }
    l->tokens[l->n] = (Token){.kind = kind, .at = (uint32_t)from, .text = js_part(l->s, from, to)};
    return &l->tokens[l->n++];
}

static void skip_space(Lexer *l) {
    while (l->i < l->s.n && char_is_space(l->s.c[l->i])) l->i++;
}

/* ---- Between the tags ---- */

/* The end of the text [from, to) without the white space that the tag at to, with this sign, removes. */
static size_t strip_before(const Lexer *l, size_t from, size_t to, uint32_t sign, bool block) {
    size_t end = to;
    if (sign == '-') {
        while (end > from && char_is_space(l->s.c[end - 1])) end--;
    } else if (sign != '+' && block) {
        while (end > from && l->s.c[end - 1] != '\n' && char_is_space(l->s.c[end - 1])) end--;
        if (end > 0 && l->s.c[end - 1] != '\n') end = to; // the line begins with something else
    }
    return end;
}

/* Steps over the end of a tag at l->i, two characters behind an optional sign, and the white space that it
 * removes. */
static void strip_after(Lexer *l, uint32_t sign, bool block) {
    l->i += sign ? 3 : 2;
    if (sign == '-')
        skip_space(l);
    else if (!sign && block && peek(l, 0) == '\n')
        l->i++;
}

static void skip_comment(Lexer *l, size_t begin) {
    if (l->i == l->s.n) return; // as in Jinja, "{#" at the end is one
    for (; l->i < l->s.n; l->i++) {
        uint32_t sign = peek(l, 0) == '-' || peek(l, 0) == '+' ? peek(l, 0) : 0;
        if (!looking_at(l, l->i + (sign != 0), "#}")) continue;
        strip_after(l, sign, true);
        return;
    }
    fail_at(l, begin, "this comment is not closed; it needs \"#}\"");
}

/* At "{%": true if the tag is {% name %}; then l->i is at the sign or "%}" of its end. */
static bool take_bare_tag(Lexer *l, const char *name, size_t length, uint32_t *sign) {
    size_t back = l->i;
    l->i += 2;
    if (peek(l, 0) == '-' || peek(l, 0) == '+') l->i++;
    skip_space(l);
    if (looking_at(l, l->i, name)) {
        l->i += length;
        skip_space(l);
        *sign = peek(l, 0) == '-' || peek(l, 0) == '+' ? peek(l, 0) : 0;
        if (looking_at(l, l->i + (*sign != 0), "%}")) return true;
    }
    l->i = back;
    return false;
}

static void lex_raw(Lexer *l, size_t begin) {
    size_t from = l->i;
    for (; l->i < l->s.n; l->i++) {
        size_t at = l->i;
        uint32_t sign;
        if (!looking_at(l, at, "{%") || !take_bare_tag(l, "endraw", 6, &sign)) continue;
        size_t to = strip_before(l, from, at, l->s.c[at + 2], true);
        if (to > from) add(l, T_DATA, from, to);
        strip_after(l, sign, true);
        return;
    }
    fail_at(l, begin, "this raw block is not closed; it needs {% endraw %}");
}

/* Adds the text up to the next tag, and the token that begins the tag, whose kind is returned; T_DATA: a
 * comment, a raw block or the end of the template follows, without tokens. */
static TokenKind lex_text(Lexer *l) {
    size_t from = l->i, at = from;
    while (at < l->s.n && !(l->s.c[at] == '{' &&
                            (looking_at(l, at, "{%") || looking_at(l, at, "{{") || looking_at(l, at, "{#"))))
        at++;
    l->i = at;
    uint32_t which = peek(l, 1), sign = peek(l, 2) == '-' || peek(l, 2) == '+' ? peek(l, 2) : 0;
    size_t to = at < l->s.n ? strip_before(l, from, at, sign, which != '{') : at;
    if (to > from) add(l, T_DATA, from, to);
    if (at == l->s.n) return T_DATA;

    uint32_t raw_sign;
    if (which == '%' && take_bare_tag(l, "raw", 3, &raw_sign) && raw_sign != '+') {
        l->i += raw_sign ? 3 : 2;
        if (raw_sign) skip_space(l);
        lex_raw(l, at);
        return T_DATA;
    }
    l->i = at + (sign ? 3 : 2);
    if (which == '#') {
        skip_comment(l, at);
        return T_DATA;
    }
    TokenKind kind = which == '%' ? T_BLOCK_BEGIN : T_VARIABLE_BEGIN;
    add(l, kind, at, l->i);
    return kind;
}

/* ---- Inside the tags ---- */

static bool is_digit(uint32_t c) {
    return c >= '0' && c <= '9';
}

static bool is_name(uint32_t c) {
    return c == '_' || is_digit(c) || (c | 32) - 'a' < 26 || (c >= 0x80 && char_is_letter(c));
}

static void take_digits(Lexer *l, char *text, size_t *n, bool hex) {
    for (;; l->i++) {
        uint32_t c = peek(l, 0);
        if (c == '_' && *n) continue;
        if (!is_digit(c) && !(hex && (c | 32) - 'a' < 6)) return;
        if (*n > 300) fail_at(l, l->i, "this number has too many digits");
        text[(*n)++] = (char)c;
    }
}

static void lex_number(Lexer *l) {
    char text[400] = {0};
    size_t begin = l->i, n = 0;
    uint32_t mark = peek(l, 1) | 32;
    int base = peek(l, 0) != '0' ? 10 : mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    bool is_float = false;
    if (base != 10) l->i += 2;
    take_digits(l, text, &n, base == 16);
    if (base == 10 && !(begin > 0 && l->s.c[begin - 1] == '.')) { // in a.1.2 these are two subscripts
        if (peek(l, 0) == '.' && is_digit(peek(l, 1))) {
            is_float = true;
            text[n++] = '.';
            l->i++;
            take_digits(l, text, &n, false);
        }
        size_t sign = peek(l, 1) == '+' || peek(l, 1) == '-';
        if ((peek(l, 0) | 32) == 'e' && is_digit(peek(l, 1 + sign))) {
            is_float = true;
            text[n++] = 'e';
            if (sign) text[n++] = (char)peek(l, 1);
            l->i += 1 + sign;
            take_digits(l, text, &n, false);
        }
    }
    Token *t = add(l, T_NUMBER, begin, l->i);
    char *end;
    if (is_float) {
        t->value = jv_float(strtod(text, &end));
        return;
    }
    unsigned long long i = strtoull(text, &end, base);
    if (n == 0 || *end || i > INT64_MAX) fail_at(l, begin, "this number does not fit into 64 bits");
    t->value = jv_int((int64_t)i);
}

/* The character of `digits` hexadecimal digits at l->i; U+FFFD for a code that is not one. */
static uint32_t hex_escape(Lexer *l, int digits) {
    uint32_t code = 0;
    for (; digits; digits--, l->i++) {
        uint32_t c = peek(l, 0), letter = (c | 32) - 'a';
        if (!is_digit(c) && letter >= 6) fail_at(l, l->i, "a hexadecimal digit is missing in this escape");
        code = code << 4 | (is_digit(c) ? c - '0' : letter + 10);
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0xFFFD;
    return code;
}

/* Adds the character of the escape at l->i, behind the backslash.  As in Python, an unknown escape is two
 * characters. */
static void lex_escape(Lexer *l, Text *t) {
    static const char FROM[] = "abfnrtv\\'\"", TO[] = "\a\b\f\n\r\t\v\\'\"";
    uint32_t c = peek(l, 0);
    l->i++;
    for (size_t i = 0; FROM[i]; i++)
        if (c == (unsigned char)FROM[i]) {
            js_add_char(l->j, t, (unsigned char)TO[i]);
            return;
        }
    if (c == '\n') return;
    if (c == 'x')
        js_add_char(l->j, t, hex_escape(l, 2));
    else if (c == 'u')
        js_add_char(l->j, t, hex_escape(l, 4));
    else if (c == 'U')
        js_add_char(l->j, t, hex_escape(l, 8));
    else if (c >= '0' && c < '8') {
        uint32_t code = c - '0';
        for (int i = 0; i < 2 && peek(l, 0) >= '0' && peek(l, 0) < '8'; i++, l->i++)
            code = code * 8 + peek(l, 0) - '0';
        js_add_char(l->j, t, code);
    } else {
        js_add_char(l->j, t, '\\');
        js_add_char(l->j, t, c);
    }
}

static void lex_string(Lexer *l) {
    size_t begin = l->i;
    uint32_t quote = peek(l, 0);
    Text t = {0};
    for (l->i++; peek(l, 0) != quote;) {
        if (l->i >= l->s.n) fail_at(l, begin, "this string is not closed");
        uint32_t c = peek(l, 0);
        l->i++;
        if (c == '\\' && l->i < l->s.n)
            lex_escape(l, &t);
        else
            js_add_char(l->j, &t, c);
    }
    l->i++;
    add(l, T_STRING, begin, l->i)->text = js_text(&t);
}

static void balance(Lexer *l, TokenKind kind) {
    static const char CLOSES[] = {[T_LPAREN] = ')', [T_LBRACKET] = ']', [T_LBRACE] = '}',
                                  [T_RPAREN] = 0,   [T_RBRACKET] = 0,   [T_RBRACE] = 0};
    if (kind < T_LPAREN || kind > T_RBRACE) return;
    if (CLOSES[kind]) {
        if (l->n_open == JINJA_NESTING_MAX) fail_at(l, l->i, "brackets are nested too deeply");
        l->open[l->n_open++] = CLOSES[kind];
    } else if (!l->n_open || (unsigned char)l->open[--l->n_open] != l->s.c[l->i]) {
        fail_at(l, l->i, "this bracket does not match an open one");
    }
}

static void lex_operator(Lexer *l) {
    static const struct {
        const char *text;
        TokenKind kind;
    } OPERATORS[] = {{"//", T_FLOORDIV}, {"**", T_POW},   {"==", T_EQ},      {"!=", T_NE},
                     {">=", T_GE},       {"<=", T_LE},    {"+", T_ADD},      {"-", T_SUB},
                     {"/", T_DIV},       {"*", T_MUL},    {"%", T_MOD},      {"~", T_TILDE},
                     {">", T_GT},        {"<", T_LT},     {"=", T_ASSIGN},   {".", T_DOT},
                     {":", T_COLON},     {"|", T_PIPE},   {",", T_COMMA},    {";", T_SEMICOLON},
                     {"(", T_LPAREN},    {")", T_RPAREN}, {"[", T_LBRACKET}, {"]", T_RBRACKET},
                     {"{", T_LBRACE},    {"}", T_RBRACE}};
    for (size_t i = 0; i < sizeof OPERATORS / sizeof *OPERATORS; i++) {
        if (!looking_at(l, l->i, OPERATORS[i].text)) continue;
        balance(l, OPERATORS[i].kind);
        size_t n = OPERATORS[i].text[1] ? 2 : 1;
        add(l, OPERATORS[i].kind, l->i, l->i + n);
        l->i += n;
        return;
    }
    fail_at(l, l->i, "this character is unexpected here");
}

/* Adds the token of the tag's end and steps over it; false: l->i is not at an end. */
static bool lex_tag_end(Lexer *l, TokenKind begin) {
    if (l->n_open) return false;
    bool block = begin == T_BLOCK_BEGIN;
    uint32_t sign = peek(l, 0) == '-' || (block && peek(l, 0) == '+') ? peek(l, 0) : 0;
    if (!looking_at(l, l->i + (sign != 0), block ? "%}" : "}}")) return false;
    add(l, block ? T_BLOCK_END : T_VARIABLE_END, l->i, l->i + (sign ? 3 : 2));
    strip_after(l, sign, block);
    return true;
}

static void lex_tag(Lexer *l, TokenKind begin) {
    size_t at = l->i;
    for (;;) {
        skip_space(l);
        if (l->i >= l->s.n) fail_at(l, at, "this tag is not closed");
        if (lex_tag_end(l, begin)) return;
        uint32_t c = peek(l, 0);
        if (is_digit(c)) {
            lex_number(l);
        } else if (is_name(c)) {
            size_t from = l->i;
            while (is_name(peek(l, 0))) l->i++;
            add(l, T_NAME, from, l->i);
        } else if (c == '"' || c == '\'') {
            lex_string(l);
        } else {
            lex_operator(l);
        }
    }
}

Token *jinja_lex(Jinja *j) {
    Lexer l = {.j = j, .s = j->source};
    while (l.i < l.s.n) {
        TokenKind kind = lex_text(&l);
        if (kind != T_DATA) lex_tag(&l, kind);
    }
    add(&l, T_END, l.s.n, l.s.n);
    return l.tokens;
}
