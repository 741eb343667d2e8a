/* format: "%s has %d" % (...) and "{} has {}".format(...).
 *
 * Both languages are read into one Spec, by which one function writes a value.  Widths from arguments ("%*d",
 * "{:{}}") are refused. */
#include "interp.h"

#include <stdio.h>
#include <string.h>

typedef struct Spec {
    Char fill;
    char align; // '<', '>', '^', '=' (between sign and digits), 0: the type's
    char sign;  // '+', ' ' or 0
    char group; // ',' or '_' between thousands, or 0
    bool alternate;
    size_t width;
    int precision; // -1: none
    char type;     // 0: by the kind of the value
} Spec;

typedef struct Reader { // of a format string
    Jinja *j;
    Str s;
    size_t i;
} Reader;

static uint32_t peek(const Reader *r) {
    return r->i < r->s.n ? char_code(r->s.c[r->i]) : 0;
}

static bool skip(Reader *r, char c) {
    bool there = peek(r) == (unsigned char)c;
    r->i += there;
    return there;
}

static bool is_one_of(uint32_t c, const char *set) {
    return c && c < 0x80 && strchr(set, (int)c);
}

static size_t read_number(Reader *r) {
    size_t n = 0;
    for (; char_is_digit(peek(r)); r->i++) {
        n = n * 10 + peek(r) - '0';
        if (n > JINJA_TEXT_MAX) jinja_fail(r->j, ERR_RUN, "a number in this format is too large");
    }
    return n;
}

static _Noreturn void fail(Reader *r, const char *what) {
    jinja_fail(r->j, ERR_RUN, "%s in the format \"%s\"", what, jinja_quote(r->j, r->s));
}

static void fill_with_zeros(Spec *spec) {
    spec->align = '=';
    spec->fill = '0';
}

/* ---- Writing one value ---- */

static void add_padded(Jinja *j, Text *t, const Spec *spec, Str head, Str body, char align) {
    size_t n = head.n + body.n, pad = spec->width > n ? spec->width - n : 0;
    Char fill = spec->fill ? spec->fill : ' ';
    if (spec->align) align = spec->align;
    size_t left = align == '>' ? pad : align == '^' ? pad / 2 : 0, inside = align == '=' ? pad : 0;
    js_add_times(j, t, fill, left);
    js_add(j, t, head);
    js_add_times(j, t, fill, inside);
    js_add(j, t, body);
    js_add_times(j, t, fill, pad - left - inside);
}

/* digits with `group` between thousands in front of the point. */
static Str grouped(Jinja *j, const char *digits, char group) {
    Text t = {0};
    size_t n = strspn(digits, "0123456789");
    for (size_t i = 0; digits[i]; i++) {
        if (group && i > 0 && i < n && (n - i) % 3 == 0) js_add_char(j, &t, (unsigned char)group);
        js_add_char(j, &t, (unsigned char)digits[i]);
    }
    return js_text(&t);
}

static void add_number(Jinja *j, Text *t, const Spec *spec, bool negative, const char *prefix, Str digits) {
    Text head = {0};
    if (negative || spec->sign) js_add_char(j, &head, negative ? '-' : (unsigned char)spec->sign);
    js_add_ascii(j, &head, prefix);
    add_padded(j, t, spec, js_text(&head), digits, '>');
}

static void add_int(Jinja *j, Text *t, const Spec *spec, int64_t i, char type) {
    char digits[80];
    unsigned long long u = i < 0 ? 0ull - (unsigned long long)i : (unsigned long long)i;
    const char *prefix = "";
    if (type == 'b') {
        int n = 0;
        for (int bit = 63; bit >= 0; bit--)
            if (n || u >> bit & 1 || bit == 0) digits[n++] = u >> bit & 1 ? '1' : '0';
        digits[n] = 0;
    } else {
        snprintf(digits, sizeof digits,
                 type == 'x'   ? "%llx"
                 : type == 'X' ? "%llX"
                 : type == 'o' ? "%llo"
                               : "%llu",
                 u);
    }
    if (spec->alternate)
        prefix = type == 'x' ? "0x" : type == 'X' ? "0X" : type == 'o' ? "0o" : type == 'b' ? "0b" : "";
    add_number(j, t, spec, i < 0, prefix, grouped(j, digits, spec->group));
}

static void add_float(Jinja *j, Text *t, const Spec *spec, double f, char type) {
    char digits[1000], format[] = "%.*f";
    bool percent = type == '%', negative = f < 0;
    int precision = spec->precision < 0 ? 6 : spec->precision;
    if (precision > 500) jinja_fail(j, ERR_RUN, "more than 500 digits behind the point");
    format[3] = percent ? 'f' : type;
    snprintf(digits, sizeof digits - 1, format, precision, (negative ? -f : f) * (percent ? 100 : 1));
    if (percent) strcat(digits, "%");
    add_number(j, t, spec, negative, "", grouped(j, digits, spec->group));
}

static void add_str(Jinja *j, Text *t, const Spec *spec, Str s, char align) {
    if (spec->precision >= 0) s = js_part(s, 0, (size_t)spec->precision);
    add_padded(j, t, spec, (Str){0}, s, align);
}

static int64_t to_int(Jinja *j, Value v) {
    if (v.kind != V_FLOAT) return jv_need_int(j, v, "a formatted number");
    if (!(v.f > -9e18 && v.f < 9e18)) jinja_fail(j, ERR_RUN, "this number is too large to be an int");
    return (int64_t)v.f;
}

static void add_value(Jinja *j, Text *t, const Spec *spec, Value v, char str_align) {
    char type = spec->type;
    if (!type && v.kind == V_INT) type = 'd';
    if (!type && v.kind == V_FLOAT && spec->precision >= 0) type = 'g';
    if (!type && v.kind == V_FLOAT) {
        Text digits = {0};
        jv_add_float(j, &digits, v.f < 0 ? -v.f : v.f);
        add_number(j, t, spec, v.f < 0, "", js_text(&digits));
    } else if (is_one_of((unsigned char)type, "dioxXub")) {
        add_int(j, t, spec, to_int(j, v), type);
    } else if (is_one_of((unsigned char)type, "eEfFgG%")) {
        if (!jv_is_number(jv_need(j, v)))
            jinja_fail(j, ERR_RUN, "%s cannot be formatted as a number", jv_kind_name(v));
        add_float(j, t, spec, jv_number(v), type);
    } else {
        add_str(j, t, spec, jv_string(j, v), str_align);
    }
}

static Value represented(Jinja *j, Value v) {
    Text t = {0};
    jv_repr(j, &t, v);
    return jv_str(js_text(&t));
}

/* ---- % ---- */

/* %(name): the value of this name; V_ABSENT: no name is given. */
static Value percent_named(Reader *r, Value values) {
    if (!skip(r, '(')) return (Value){0};
    size_t from = r->i;
    while (peek(r) && peek(r) != ')') r->i++;
    Str name = js_part(r->s, from, r->i);
    if (!skip(r, ')')) fail(r, "a \")\" is missing");
    if (values.kind != V_DICT) fail(r, "a name needs a dict");
    const Value *found = jv_get(r->j, values.dict, jv_str(name));
    if (!found) jinja_fail(r->j, ERR_RUN, "the format needs '%s'", jinja_quote(r->j, name));
    return *found;
}

static Spec percent_spec(Reader *r) {
    Spec spec = {.precision = -1};
    for (; is_one_of(peek(r), "#0- +"); r->i++) {
        char flag = (char)peek(r);
        if (flag == '#')
            spec.alternate = true;
        else if (flag == '-')
            spec.align = '<';
        else if (flag == '0' && !spec.align)
            fill_with_zeros(&spec);
        else if (flag == '+' || (flag == ' ' && !spec.sign))
            spec.sign = flag;
    }
    if (spec.align == '<') spec.fill = 0;
    spec.width = read_number(r);
    if (skip(r, '.')) spec.precision = (int)read_number(r);
    while (is_one_of(peek(r), "hlL")) r->i++;
    if (!is_one_of(peek(r), "sradiuoxXeEfFgGc%")) fail(r, "an unknown letter behind %");
    spec.type = (char)char_code(r->s.c[r->i++]);
    return spec;
}

static void percent_value(Reader *r, Text *t, Spec *spec, Value v) {
    if (is_one_of((unsigned char)spec->type, "src a")) {
        if (spec->type == 'r' || spec->type == 'a') v = represented(r->j, v);
        if (spec->type == 'c' && v.kind == V_INT) {
            if (v.i < 0 || v.i > 0x10FFFF) fail(r, "a number that is not a character");
            Text c = {0};
            js_add_char(r->j, &c, v.i >= 0xD800 && v.i < 0xE000 ? 0xFFFD : (Char)v.i);
            v = jv_str(js_text(&c));
        }
        if (spec->align == '=') {
            spec->align = '>';
            spec->fill = 0;
        }
        spec->type = 's';
    } else if (!jv_is_number(jv_need(r->j, v))) {
        jinja_fail(r->j, ERR_RUN, "%%%c needs a number, not %s", spec->type, jv_kind_name(v));
    }
    add_value(r->j, t, spec, v, '>');
}

Str jinja_percent(Jinja *j, Str format, Value values) {
    Reader r = {.j = j, .s = format};
    Text t = {0};
    size_t next = 0;
    bool is_tuple = values.kind == V_TUPLE;
    jv_need(j, values);
    while (r.i < format.n) {
        jinja_spend(j, 1);
        if (peek(&r) != '%') {
            js_add_char(j, &t, format.c[r.i++]);
            continue;
        }
        r.i++;
        Value v = percent_named(&r, values);
        bool named = v.kind != V_ABSENT;
        Spec spec = percent_spec(&r);
        if (spec.type == '%') {
            js_add_char(j, &t, '%');
            continue;
        }
        if (!named) {
            if (next >= (is_tuple ? values.seq->n : 1)) fail(&r, "too few values");
            v = is_tuple ? values.seq->items[next] : values;
            next++;
        }
        percent_value(&r, &t, &spec, v);
    }
    bool all = is_tuple ? next == values.seq->n : next == 1 || values.kind == V_DICT || values.kind == V_LIST;
    if (!all) fail(&r, "too many values");
    return js_text(&t);
}

/* ---- {} ---- */

/* The value of a field's name: "", "0" or "name", then any ".attribute" and "[item]". */
static Value field_value(Reader *r, const Args *args, size_t *next) {
    size_t from = r->i;
    while (peek(r) && !is_one_of(peek(r), ".[!:}{")) r->i++;
    Str name = js_part(r->s, from, r->i);
    Value v;
    if (name.n == 0 || char_is_digit(name.c[0])) {
        Reader number = {.j = r->j, .s = name};
        size_t index = name.n ? read_number(&number) : (*next)++;
        if (index >= args->positional.n) fail(r, "too few values");
        v = args->positional.items[index];
    } else {
        const Value *found = jv_get(r->j, &args->named, jv_str(name));
        if (!found) jinja_fail(r->j, ERR_RUN, "the format needs '%s'", jinja_quote(r->j, name));
        v = *found;
    }
    while (is_one_of(peek(r), ".[")) {
        bool item = peek(r) == '[';
        from = ++r->i;
        while (peek(r) && !is_one_of(peek(r), item ? "]" : ".[!:}")) r->i++;
        Str key = js_part(r->s, from, r->i);
        if (item && !skip(r, ']')) fail(r, "a \"]\" is missing");
        Reader number = {.j = r->j, .s = key};
        bool index = item && key.n && char_is_digit(key.c[0]);
        v = index  ? jinja_item(r->j, v, jv_int((int64_t)read_number(&number)))
            : item ? jinja_item(r->j, v, jv_str(key))
                   : jinja_attribute(r->j, v, key);
    }
    return v;
}

static Spec field_spec(Reader *r) {
    static const char ALIGNS[] = "<>^=";
    Spec spec = {.precision = -1};
    if (!skip(r, ':')) return spec;
    if (r->i + 1 < r->s.n && is_one_of(char_code(r->s.c[r->i + 1]), ALIGNS)) {
        spec.fill = r->s.c[r->i];
        spec.align = (char)char_code(r->s.c[r->i + 1]);
        r->i += 2;
    } else if (is_one_of(peek(r), ALIGNS)) {
        spec.align = (char)char_code(r->s.c[r->i++]);
    }
    if (is_one_of(peek(r), "+- ")) {
        spec.sign = (char)peek(r);
        if (spec.sign == '-') spec.sign = 0;
        r->i++;
    }
    spec.alternate = skip(r, '#');
    if (skip(r, '0') && !spec.align) fill_with_zeros(&spec);
    spec.width = read_number(r);
    if (is_one_of(peek(r), ",_")) spec.group = (char)char_code(r->s.c[r->i++]);
    if (skip(r, '.')) spec.precision = (int)read_number(r);
    if (is_one_of(peek(r), "sdobxXeEfFgG%")) spec.type = (char)char_code(r->s.c[r->i++]);
    return spec;
}

static void add_field(Reader *r, Text *t, const Args *args, size_t *next) {
    Value v = field_value(r, args, next);
    if (skip(r, '!')) {
        bool repr = peek(r) == 'r';
        if (!repr && peek(r) != 's') fail(r, "an unknown letter behind \"!\"");
        r->i++;
        v = repr ? represented(r->j, v) : jv_str(jv_string(r->j, v));
    }
    Spec spec = field_spec(r);
    if (!skip(r, '}')) fail(r, "a \"}\" is missing");
    if (spec.type == 's') spec.type = 0;
    add_value(r->j, t, &spec, v, '<');
}

Str jinja_braces(Jinja *j, Str format, const Args *args) {
    Reader r = {.j = j, .s = format};
    Text t = {0};
    size_t next = 0;
    while (r.i < format.n) {
        jinja_spend(j, 1);
        Char c = format.c[r.i++];
        bool brace = is_one_of(char_code(c), "{}"), doubled = brace && peek(&r) == char_code(c);
        r.i += doubled;
        if (!brace || doubled)
            js_add_char(j, &t, c);
        else if (char_code(c) == '}')
            fail(&r, "a single \"}\"");
        else
            add_field(&r, &t, args, &next);
    }
    return js_text(&t);
}
