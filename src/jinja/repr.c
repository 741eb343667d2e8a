/* repr: values as text, as Python's str() and repr() write them. */
#include "value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The fewest digits that read back as f; with an exponent from 1e16 on and below 1e-4. */
void jv_add_float(Jinja *j, Text *t, double f) {
    char text[40], digits[20] = {0};
    if (isnan(f) || isinf(f)) {
        js_add_ascii(j, t, isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    int n = 0;
    do snprintf(text, sizeof text, "%.*e", n++, fabs(f));
    while (n < 17 && strtod(text, NULL) != fabs(f));
    int exponent = atoi(strchr(text, 'e') + 1);
    digits[0] = text[0];
    if (n > 1) memcpy(digits + 1, text + 2, (size_t)n - 1);

    if (signbit(f)) js_add_char(j, t, '-');
    bool plain = exponent >= -4 && exponent < 16;
    int before = plain ? exponent + 1 : 1; // digits in front of the point
    if (before <= 0) js_add_ascii(j, t, "0.");
    for (int i = before; i < 0; i++) js_add_char(j, t, '0');
    for (int i = 0; i < n || i < before; i++) {
        if (i == before && i > 0) js_add_char(j, t, '.');
        js_add_char(j, t, i < n ? (unsigned char)digits[i] : '0');
    }
    if (plain && n <= before) js_add_ascii(j, t, ".0");
    if (!plain) {
        snprintf(text, sizeof text, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        js_add_ascii(j, t, text);
    }
}

static bool is_printable(uint32_t c) {
    if (c < 0x7F) return c >= 0x20;
    if (c <= 0xA0 || c == 0xAD || char_is_space(c)) return false;
    return !(c >= 0x200B && c <= 0x200F) && !(c >= 0x2028 && c <= 0x202E) && !(c >= 0x2060 && c <= 0x206F) &&
           !(c >= 0xD800 && c <= 0xF8FF) && c != 0xFEFF && c < 0xE0000;
}

static void add_escaped(Jinja *j, Text *t, Char c, Char quote) {
    static const char FROM[] = "\n\r\t\\", TO[] = "nrt\\";
    uint32_t code = char_code(c);
    Char mark = char_mark(c);
    const char *special = code && code < 0x80 ? strchr(FROM, (int)code) : NULL;
    if (special || code == quote) {
        js_add_char(j, t, '\\' | mark);
        js_add_char(j, t, (special ? (unsigned char)TO[special - FROM] : quote) | mark);
    } else if (is_printable(code)) {
        js_add_char(j, t, c);
    } else {
        char text[12];
        snprintf(text, sizeof text, code < 0x100 ? "\\x%02x" : code < 0x10000 ? "\\u%04x" : "\\U%08x", code);
        for (const char *p = text; *p; p++) js_add_char(j, t, (unsigned char)*p | mark);
    }
}

static void repr_str(Jinja *j, Text *t, Str s) {
    bool single = false, twice = false;
    for (size_t i = 0; i < s.n; i++) {
        single |= char_code(s.c[i]) == '\'';
        twice |= char_code(s.c[i]) == '"';
    }
    Char quote = single && !twice ? '"' : '\'';
    jinja_spend(j, s.n / 16);
    js_add_char(j, t, quote);
    for (size_t i = 0; i < s.n; i++) add_escaped(j, t, s.c[i], quote);
    js_add_char(j, t, quote);
}

static void repr_seq(Jinja *j, Text *t, const char *open, const Seq *seq, const char *close) {
    js_add_ascii(j, t, open);
    for (size_t i = 0; i < seq->n; i++) {
        if (i) js_add_ascii(j, t, ", ");
        jv_repr(j, t, seq->items[i]);
    }
    js_add_ascii(j, t, close);
}

static void repr_dict(Jinja *j, Text *t, const Dict *dict) {
    js_add_char(j, t, '{');
    for (size_t i = 0; i < dict->n; i++) {
        if (i) js_add_ascii(j, t, ", ");
        jv_repr(j, t, dict->pairs[i].key);
        js_add_ascii(j, t, ": ");
        jv_repr(j, t, dict->pairs[i].value);
    }
    js_add_char(j, t, '}');
}

static void repr_range(Jinja *j, Text *t, const Range *r) {
    char text[100];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)r->start, (long long)r->stop);
    if (r->step != 1) n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)r->step);
    snprintf(text + n, sizeof text - (size_t)n, ")");
    js_add_ascii(j, t, text);
}

static void repr_any(Jinja *j, Text *t, Value v) {
    static const char *const VIEWS[] = {"dict_items([", "dict_keys([", "dict_values(["};
    char text[60];
    switch (v.kind) {
    case V_ABSENT:
    case V_UNDEFINED:
        js_add_ascii(j, t, "Undefined");
        return;
    case V_NONE:
        js_add_ascii(j, t, "None");
        return;
    case V_BOOL:
        js_add_ascii(j, t, v.truth ? "True" : "False");
        return;
    case V_INT:
        snprintf(text, sizeof text, "%lld", (long long)v.i);
        js_add_ascii(j, t, text);
        return;
    case V_FLOAT:
        if (v.written)
            js_add(j, t, *v.written);
        else
            jv_add_float(j, t, v.f);
        return;
    case V_STRING:
        repr_str(j, t, v.s);
        return;
    case V_LIST:
        repr_seq(j, t, "[", v.seq, "]");
        return;
    case V_TUPLE:
        repr_seq(j, t, "(", v.seq, v.seq->n == 1 ? ",)" : ")");
        return;
    case V_VIEW:
        repr_seq(j, t, VIEWS[v.detail], v.seq, "])");
        return;
    case V_RANGE:
        repr_range(j, t, v.range);
        return;
    case V_DICT:
        repr_dict(j, t, v.dict);
        return;
    case V_NAMESPACE:
        js_add_ascii(j, t, "<Namespace ");
        repr_dict(j, t, v.dict);
        js_add_char(j, t, '>');
        return;
    case V_LOOP:
        snprintf(text, sizeof text, "<LoopContext %zu/%zu>", v.loop->index + 1, v.loop->items->n);
        js_add_ascii(j, t, text);
        return;
    default:
        snprintf(text, sizeof text, "<%s>", jv_kind_name(v));
        js_add_ascii(j, t, text);
    }
}

void jv_repr(Jinja *j, Text *t, Value v) {
    jinja_enter(j);
    jinja_spend(j, 1);
    repr_any(j, t, v);
    jinja_leave(j);
}

Str jv_string(Jinja *j, Value v) {
    Text t = {0};
    if (v.kind == V_STRING) return v.s;
    if (v.kind == V_ABSENT || v.kind == V_UNDEFINED) return (Str){0};
    jv_repr(j, &t, v);
    j->has_repr |= v.kind == V_LIST || v.kind == V_DICT || v.kind == V_NONE;
    return js_text(&t);
}
