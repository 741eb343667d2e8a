/* json: values from JSON and to JSON, written like Python's json.dumps.
 *
 * Here, and only here, characters get their marks: all strings and keys of one JSON value have one origin. */
#include "value.h"
#include "../base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- In ---- */

static Value from_object(Jinja *j, const json_t *json, Char mark) {
    Dict *dict = jv_new_dict(j);
    json_t *object = (json_t *)json; // Jansson's iterators take a pointer without const, and change nothing
    dict->capacity = json_object_size(object);
    dict->pairs = jinja_alloc(j, dict->capacity, sizeof *dict->pairs);
    for (void *i = json_object_iter(object); i; i = json_object_iter_next(object, i)) {
        const char *key = json_object_iter_key(i);
        Value name = jv_str(js_utf8(j, key, strlen(key), mark));
        dict->pairs[dict->n++] = (Pair){name, jv_from_json(j, json_object_iter_value(i), mark)};
    }
    return jv_dict(dict);
}

static Value from_array(Jinja *j, const json_t *json, Char mark) {
    size_t n = json_array_size(json);
    Seq *seq = jv_new_seq(j, n);
    for (size_t i = 0; i < n; i++) jv_add(j, seq, jv_from_json(j, json_array_get(json, i), mark));
    return jv_seq(V_LIST, seq);
}

static Value from_number(Jinja *j, const char *written, Char mark) {
    Value v = jv_float(strtod(written, NULL));
    Str *s = jinja_alloc(j, 1, sizeof *s);
    *s = js_utf8(j, written, strlen(written), mark);
    v.written = s;
    return v;
}

static Value from_any(Jinja *j, const json_t *json, Char mark) {
    const char *number = json_number_text(json);
    if (number) return from_number(j, number, mark);
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return from_object(j, json, mark);
    case JSON_ARRAY:
        return from_array(j, json, mark);
    case JSON_STRING:
        return jv_str(js_utf8(j, json_string_value(json), json_string_length(json), mark));
    case JSON_INTEGER:
        return jv_int(json_integer_value(json));
    case JSON_REAL:
        return jv_float(json_real_value(json));
    case JSON_TRUE:
        return jv_bool(true);
    case JSON_FALSE:
        return jv_bool(false);
    default:
        return jv_none();
    }
}

Value jv_from_json(Jinja *j, const json_t *json, Char mark) {
    jinja_enter(j);
    Value v = from_any(j, json, mark);
    jinja_leave(j);
    return v;
}

Value jinja_read_json(Jinja *j, const char *text, size_t n, Char mark) {
    json_error_t why = {.text = "more than one value"};
    char *list = jinja_alloc(j, n + 2, 1); // the reader wants a list or an object
    list[0] = '[';
    memcpy(list + 1, text, n);
    list[n + 1] = ']';
    j->json = json_read(list, n + 2, &why);
    if (json_array_size(j->json) != 1) jinja_fail(j, ERR_RUN, "this is not JSON: %s", why.text);
    Value v = jv_from_json(j, json_array_get(j->json, 0), mark);
    json_decref(j->json);
    j->json = NULL;
    return v;
}

/* ---- Out ---- */

typedef struct Writer {
    Jinja *j;
    Text text;
    const JsonStyle *style;
    size_t level;
} Writer;

static void write_value(Writer *w, Value v);

static void write_escape(Writer *w, uint32_t unit, Char mark) {
    char text[12];
    snprintf(text, sizeof text, "\\u%04x", unit);
    for (const char *p = text; *p; p++) js_add_char(w->j, &w->text, (unsigned char)*p | mark);
}

static void write_char(Writer *w, Char c) {
    static const char LETTERS[32] = {['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    uint32_t code = char_code(c);
    Char mark = char_mark(c);
    char letter = code < 32 ? LETTERS[code] : code == '"' || code == '\\' ? (char)code : 0;
    if (letter) {
        js_add_char(w->j, &w->text, '\\' | mark);
        js_add_char(w->j, &w->text, (unsigned char)letter | mark);
    } else if (code < 32 || (w->style->ascii && code >= 0x7F && code < 0x10000)) {
        write_escape(w, code, mark);
    } else if (w->style->ascii && code >= 0x10000) {
        write_escape(w, 0xD800 + ((code - 0x10000) >> 10), mark);
        write_escape(w, 0xDC00 + ((code - 0x10000) & 0x3FF), mark);
    } else {
        js_add_char(w->j, &w->text, c);
    }
}

static void write_str(Writer *w, Str s) {
    jinja_spend(w->j, s.n / 16);
    js_add_char(w->j, &w->text, '"');
    for (size_t i = 0; i < s.n; i++) write_char(w, s.c[i]);
    js_add_char(w->j, &w->text, '"');
}

static void new_line(Writer *w) {
    if (!w->style->pretty) return;
    js_add_char(w->j, &w->text, '\n');
    for (size_t i = 0; i < w->level; i++) js_add(w->j, &w->text, w->style->indent);
}

/* In front of item i: a separator, but for the first, and a new line if the style has one. */
static void begin_item(Writer *w, size_t i) {
    if (i) js_add(w->j, &w->text, w->style->comma);
    new_line(w);
}

static void write_items(Writer *w, const Seq *seq) {
    js_add_char(w->j, &w->text, '[');
    w->level++;
    for (size_t i = 0; i < seq->n; i++) {
        begin_item(w, i);
        write_value(w, seq->items[i]);
    }
    w->level--;
    if (seq->n) new_line(w);
    js_add_char(w->j, &w->text, ']');
}

static void write_key(Writer *w, Value key) {
    Jinja *j = w->j;
    if (key.kind == V_STRING)
        write_str(w, key.s);
    else if (key.kind == V_BOOL)
        write_str(w, js_ascii(j, key.truth ? "true" : "false"));
    else if (key.kind == V_NONE)
        write_str(w, js_ascii(j, "null"));
    else if (jv_is_number(key))
        write_str(w, jv_string(j, key));
    else
        jinja_fail(j, ERR_RUN, "%s cannot be a key in JSON", jv_kind_name(key));
}

static Dict *sorted(Jinja *j, const Dict *dict) { // insertion sort: keys are few
    Dict *out = jv_new_dict(j);
    out->pairs = jinja_alloc(j, dict->n, sizeof *out->pairs);
    out->capacity = dict->n;
    for (; out->n < dict->n; out->n++) {
        size_t i = out->n;
        jinja_spend(j, i / 8 + 1);
        for (; i > 0 && jv_compare(j, dict->pairs[out->n].key, out->pairs[i - 1].key) < 0; i--)
            out->pairs[i] = out->pairs[i - 1];
        out->pairs[i] = dict->pairs[out->n];
    }
    return out;
}

static void write_dict(Writer *w, const Dict *dict) {
    if (w->style->sort_keys) dict = sorted(w->j, dict);
    js_add_char(w->j, &w->text, '{');
    w->level++;
    for (size_t i = 0; i < dict->n; i++) {
        begin_item(w, i);
        write_key(w, dict->pairs[i].key);
        js_add(w->j, &w->text, w->style->colon);
        write_value(w, dict->pairs[i].value);
    }
    w->level--;
    if (dict->n) new_line(w);
    js_add_char(w->j, &w->text, '}');
}

static void write_float(Writer *w, Value v) {
    double f = v.f;
    if (v.written)
        js_add(w->j, &w->text, *v.written);
    else if (isnan(f))
        js_add_ascii(w->j, &w->text, "NaN");
    else if (isinf(f))
        js_add_ascii(w->j, &w->text, f < 0 ? "-Infinity" : "Infinity");
    else
        jv_add_float(w->j, &w->text, f);
}

static void write_value(Writer *w, Value v) {
    Jinja *j = w->j;
    jinja_enter(j);
    jinja_spend(j, 1);
    switch (v.kind) {
    case V_NONE:
        js_add_ascii(j, &w->text, "null");
        break;
    case V_BOOL:
        js_add_ascii(j, &w->text, v.truth ? "true" : "false");
        break;
    case V_INT:
        js_add(j, &w->text, jv_string(j, v));
        break;
    case V_FLOAT:
        write_float(w, v);
        break;
    case V_STRING:
        write_str(w, v.s);
        break;
    case V_LIST:
    case V_TUPLE:
        write_items(w, v.seq);
        break;
    case V_DICT:
        write_dict(w, v.dict);
        break;
    default:
        jv_need(j, v);
        jinja_fail(j, ERR_RUN, "%s cannot be written as JSON", jv_kind_name(v));
    }
    jinja_leave(j);
}

Str jv_to_json(Jinja *j, Value v, const JsonStyle *style) {
    Writer w = {.j = j, .style = style};
    write_value(&w, v);
    return js_text(&w.text);
}
