/* filters: the table of filters, {{ subject | filter(arguments) }}.
 *
 * A filter is one function, and one row of FILTERS at the end.  Filters that return a generator in Jinja
 * return an iterator: true, without length, to be walked once. */
#include "interp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Paths: "a.b.0", as in attribute arguments ---- */

static Value follow(Jinja *j, Value item, Value path, Value fallback) {
    if (path.kind != V_STRING) return jv_is_given(path) ? jinja_item(j, item, path) : item;
    for (size_t from = 0; from <= path.s.n;) {
        size_t to = from;
        bool number = true;
        jinja_spend(j, 1);
        while (to < path.s.n && char_code(path.s.c[to]) != '.') number &= char_is_digit(path.s.c[to++]);
        Str part = js_part(path.s, from, to);
        int64_t index = 0;
        for (size_t i = 0; number && i < part.n && i < 9; i++)
            index = index * 10 + char_code(part.c[i]) - '0';
        item = jinja_item(j, item, number && part.n ? jv_int(index) : jv_str(part));
        if (item.kind == V_UNDEFINED && jv_is_given(fallback)) item = fallback;
        from = to + 1;
    }
    return item;
}

static Value fold_case(Jinja *j, Value v, bool case_sensitive) {
    return v.kind == V_STRING && !case_sensitive ? jv_str(js_lower(j, v.s)) : v;
}

/* ---- Text ---- */

static Value f_string(Jinja *j, const Value *a) {
    return jv_str(jv_string(j, a[0]));
}

static Value f_upper(Jinja *j, const Value *a) {
    return jv_str(js_upper(j, jv_string(j, a[0])));
}

static Value f_lower(Jinja *j, const Value *a) {
    return jv_str(js_lower(j, jv_string(j, a[0])));
}

static Value f_capitalize(Jinja *j, const Value *a) {
    return jv_str(js_capitalized(j, jv_string(j, a[0])));
}

static bool begins_word(Char before) {
    uint32_t c = char_code(before);
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || char_is_space(before);
}

static Value f_title(Jinja *j, const Value *a) {
    Str s = jv_string(j, a[0]);
    Text t = {0};
    for (size_t i = 0; i < s.n; i++) {
        bool first = i == 0 || begins_word(s.c[i - 1]);
        js_add(j, &t, (first ? js_upper : js_lower)(j, js_part(s, i, i + 1)));
    }
    return jv_str(js_text(&t));
}

static Value f_trim(Jinja *j, const Value *a) {
    Str chars = jv_is_given(a[1]) ? jv_need_str(j, a[1], "the set of characters to trim") : (Str){0};
    return jv_str(js_trim(j, jv_string(j, a[0]), jv_is_given(a[1]) ? &chars : NULL, true, true));
}

static Value f_replace(Jinja *j, const Value *a) {
    int64_t most = jv_int_or(j, a[3], -1, "count");
    return jv_str(js_replace(j, jv_string(j, a[0]), jv_string(j, a[1]), jv_string(j, a[2]), most));
}

static void add_quoted(Jinja *j, Text *t, Str s, bool in_query) {
    for (size_t i = 0; i < s.n; i++) {
        uint32_t c = char_code(s.c[i]);
        Char mark = char_mark(s.c[i]);
        bool plain = char_is_digit(c) || (c < 0x80 && char_is_letter(c)) || c == '_' || c == '.' ||
                     c == '-' || c == '~' || (c == '/' && !in_query);
        if (plain || (c == ' ' && in_query)) {
            js_add_char(j, t, plain ? s.c[i] : '+' | mark);
            continue;
        }
        char bytes[4], text[4];
        for (size_t k = 0, n = js_put_utf8(c, bytes); k < n; k++) {
            snprintf(text, sizeof text, "%%%02X", (unsigned char)bytes[k]);
            for (const char *p = text; *p; p++) js_add_char(j, t, (unsigned char)*p | mark);
        }
    }
}

static Pair unpacked(Jinja *j, Value v) {
    const Seq *two = jv_items(j, v);
    if (two->n != 2) jinja_fail(j, ERR_RUN, "pairs are expected here, not %zu values", two->n);
    return (Pair){two->items[0], two->items[1]};
}

static Value f_urlencode(Jinja *j, const Value *a) {
    Text t = {0};
    if (a[0].kind == V_STRING || !jv_is_iterable(a[0])) {
        add_quoted(j, &t, jv_string(j, a[0]), false);
        return jv_str(js_text(&t));
    }
    const Seq *items = jv_items(j, a[0]);
    for (size_t i = 0; i < items->n; i++) {
        Pair pair = a[0].kind == V_DICT ? a[0].dict->pairs[i] : unpacked(j, items->items[i]);
        if (i) js_add_char(j, &t, '&');
        add_quoted(j, &t, jv_string(j, pair.key), true);
        js_add_char(j, &t, '=');
        add_quoted(j, &t, jv_string(j, pair.value), true);
    }
    return jv_str(js_text(&t));
}

static Str spaces(Jinja *j, int64_t n) {
    Text t = {0};
    js_add_times(j, &t, ' ', n < 0 ? 0 : (size_t)n);
    return js_text(&t);
}

static Value f_indent(Jinja *j, const Value *a) {
    Str s = jv_need_str(j, a[0], "the text to indent");
    Str margin = a[1].kind == V_STRING ? a[1].s : spaces(j, jv_int_or(j, a[1], 4, "width"));
    bool first = jv_truth(j, a[2]), blank = jv_truth(j, a[3]), more = true;
    Text t = {0};
    for (size_t from = 0, line = 0; more; line++) {
        size_t next, end = js_line(s, from, &next);
        if (line) js_add_char(j, &t, '\n');
        if (line ? blank || end > from : first) js_add(j, &t, margin);
        js_add(j, &t, js_part(s, from, end));
        more = next > end; // a newline at the end begins an empty line
        from = next;
    }
    return jv_str(js_text(&t));
}

static Value f_truncate(Jinja *j, const Value *a) {
    Str s = jv_need_str(j, a[0], "the text to truncate");
    Str end = jv_is_given(a[3]) ? jv_need_str(j, a[3], "end") : js_ascii(j, "...");
    int64_t length = jv_int_or(j, a[1], 255, "length"), leeway = jv_int_or(j, a[4], 5, "leeway");
    if (leeway < 0 || length < (int64_t)end.n || length > JINJA_TEXT_MAX || leeway > JINJA_TEXT_MAX)
        jinja_fail(j, ERR_RUN, "truncate cannot keep %lld characters", (long long)length);
    if ((int64_t)s.n <= length + leeway) return a[0];
    s = js_part(s, 0, (size_t)length - end.n);
    if (!jv_truth(j, a[2])) { // whole words only
        size_t space = s.n;
        while (space > 0 && char_code(s.c[space - 1]) != ' ') space--;
        if (space > 0) s.n = space - 1;
    }
    Text t = {0};
    js_add(j, &t, s);
    js_add(j, &t, end);
    return jv_str(js_text(&t));
}

static Value f_center(Jinja *j, const Value *a) {
    return jv_str(js_padded(j, jv_string(j, a[0]), jv_int_or(j, a[1], 80, "width"), ' ', MIDDLE));
}

static Value f_wordcount(Jinja *j, const Value *a) {
    Str s = jv_string(j, a[0]);
    int64_t n = 0;
    bool inside = false;
    for (size_t i = 0; i < s.n; i++) {
        bool letter = char_is_letter(s.c[i]) || char_is_digit(s.c[i]) || char_code(s.c[i]) == '_';
        n += letter && !inside;
        inside = letter;
    }
    return jv_int(n);
}

static Value f_format(Jinja *j, const Value *a) {
    const Args *args = a[1].args;
    Value values = jv_seq(V_TUPLE, (Seq *)&args->positional);
    if (args->named.n && args->positional.n)
        jinja_fail(j, ERR_RUN, "format takes arguments with names or without, not both");
    if (args->named.n) values = jv_dict((Dict *)&args->named);
    return jv_str(jinja_percent(j, jv_string(j, a[0]), values));
}

static Value f_pprint(Jinja *j, const Value *a) {
    Text t = {0};
    jv_repr(j, &t, a[0]);
    return jv_str(js_text(&t));
}

/* The parameters are those of transformers' tojson, not of Jinja's. */
static Value f_tojson(Jinja *j, const Value *a) {
    Value indent = a[2], separators = a[3];
    JsonStyle style = {
        .ascii = jv_truth(j, a[1]), .sort_keys = jv_truth(j, a[4]), .pretty = jv_is_given(indent)};
    style.comma = js_ascii(j, style.pretty ? "," : ", ");
    style.colon = js_ascii(j, ": ");
    if (indent.kind == V_STRING)
        style.indent = indent.s;
    else if (style.pretty)
        style.indent = spaces(j, jv_need_int(j, indent, "indent"));
    if (jv_is_given(separators)) {
        style.comma = jv_need_str(j, jinja_item(j, separators, jv_int(0)), "a separator");
        style.colon = jv_need_str(j, jinja_item(j, separators, jv_int(1)), "a separator");
    }
    return jv_str(jv_to_json(j, a[0], &style));
}

/* The value of a JSON text; all of it has the origin of the text's first character of the user. */
static Value f_from_json(Jinja *j, const Value *a) {
    Str s = jv_need_str(j, a[0], "the JSON text");
    char *text = jinja_alloc(j, 4 * s.n + 1, 1);
    size_t n = 0;
    Char mark = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += js_put_utf8(s.c[i], text + n);
        if (!mark) mark = char_mark(s.c[i]);
    }
    jinja_spend(j, n / 16);
    return jinja_read_json(j, text, n, mark);
}

/* ---- Numbers ---- */

static Value f_abs(Jinja *j, const Value *a) {
    if (a[0].kind == V_FLOAT) return jv_float(fabs(a[0].f));
    int64_t i = jv_need_int(j, a[0], "the operand of abs");
    return i < 0 ? jinja_binary(j, T_SUB, jv_int(0), jv_int(i)) : jv_int(i);
}

/* s as a C string without outer white space and '_' between digits; false: not ASCII, empty or too long. */
static bool number_text(Jinja *j, Str s, char *text, size_t size) {
    s = js_trim(j, s, NULL, true, true);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        uint32_t c = char_code(s.c[i]);
        if (c >= 0x80 || n + 1 == size) return false;
        bool between = i > 0 && i + 1 < s.n && char_is_digit(s.c[i - 1]) && char_is_digit(s.c[i + 1]);
        if (c == '_' && between) continue;
        text[n++] = (char)c;
    }
    text[n] = 0;
    return n > 0;
}

static bool parse_float(Jinja *j, Value v, double *out) {
    char text[400], *end;
    jv_need(j, v);
    if (jv_is_number(v)) {
        *out = jv_number(v);
        return true;
    }
    if (v.kind != V_STRING || !number_text(j, v.s, text, sizeof text)) return false;
    for (const char *p = text; *p; p++) // strtod also reads hexadecimal, Python does not
        if (*p == 'x' || *p == 'X' || *p == '(') return false;
    *out = strtod(text, &end);
    return *end == 0;
}

static bool parse_int(Jinja *j, Value v, int base, int64_t *out) {
    char text[400], *end;
    if (jv_is_whole(v)) {
        *out = jv_whole(v);
        return true;
    }
    if (v.kind != V_STRING || !number_text(j, v.s, text, sizeof text)) return false;
    char *digits = text + (text[0] == '-' || text[0] == '+');
    char mark = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : 0;
    if (mark && digits[0] == '0' && (digits[1] | 32) == mark) digits += 2;
    unsigned long long u = strtoull(digits, &end, base);
    if (*end || end == digits || digits[0] == '-' || digits[0] == '+' || u > INT64_MAX) return false;
    *out = text[0] == '-' ? -(int64_t)u : (int64_t)u;
    return true;
}

static Value f_int(Jinja *j, const Value *a) {
    int64_t i, base = jv_int_or(j, a[2], 10, "base");
    double f;
    if (base != 2 && base != 8 && base != 10 && base != 16)
        jinja_fail(j, ERR_RUN, "base must be 2, 8, 10 or 16");
    if (parse_int(j, a[0], (int)base, &i)) return jv_int(i);
    if (parse_float(j, a[0], &f) && f > -9.2e18 && f < 9.2e18) return jv_int((int64_t)f);
    return a[1].kind == V_ABSENT ? jv_int(0) : a[1];
}

static Value f_float(Jinja *j, const Value *a) {
    double f;
    if (parse_float(j, a[0], &f)) return jv_float(f);
    return a[1].kind == V_ABSENT ? jv_float(0) : a[1];
}

/* Half to even, of the exact value, as printf rounds. */
static double rounded(double f, int64_t digits) {
    char text[800];
    if (digits > 300 || !isfinite(f)) return f;
    if (digits < -308) return f * 0;
    if (digits < 0) {
        double unit = pow(10, (double)-digits);
        return rint(f / unit) * unit;
    }
    snprintf(text, sizeof text, "%.*f", (int)digits, f);
    return strtod(text, NULL);
}

static Value f_round(Jinja *j, const Value *a) {
    int64_t digits = jv_int_or(j, a[1], 0, "precision");
    Str method = jv_is_given(a[2]) ? jv_need_str(j, a[2], "method") : (Str){0};
    bool ceiling = js_is(method, "ceil"), floored = js_is(method, "floor");
    if (method.n && !ceiling && !floored && !js_is(method, "common"))
        jinja_fail(j, ERR_RUN, "the method of round is common, ceil or floor");
    if (!jv_is_number(jv_need(j, a[0]))) jinja_fail(j, ERR_RUN, "%s cannot be rounded", jv_kind_name(a[0]));
    if (!ceiling && !floored) {
        if (a[0].kind == V_FLOAT) return jv_float(rounded(a[0].f, digits));
        double whole = jv_number(a[0]);
        return jv_int(digits < 0 ? (int64_t)rounded(whole, digits) : jv_whole(a[0]));
    }
    double unit = pow(10, (double)digits), scaled = jv_number(a[0]) * unit;
    return jv_float((ceiling ? ceil(scaled) : floor(scaled)) / unit);
}

static Value f_filesizeformat(Jinja *j, const Value *a) {
    bool binary = jv_truth(j, a[1]);
    double bytes, base = binary ? 1024 : 1000, unit = base;
    char text[400];
    if (!parse_float(j, a[0], &bytes)) jinja_fail(j, ERR_RUN, "filesizeformat needs a number");
    const char *letter = binary ? "KMGTPEZY" : "kMGTPEZY";
    for (; bytes >= unit * base && letter[1]; letter++) unit *= base;
    if (bytes == 1) return jv_str(js_ascii(j, "1 Byte"));
    if (bytes < base)
        snprintf(text, sizeof text, "%.0f Bytes", trunc(bytes));
    else
        snprintf(text, sizeof text, "%.1f %c%s", bytes / unit, *letter, binary ? "iB" : "B");
    return jv_str(js_ascii(j, text));
}

/* ---- Items ---- */

static Value f_length(Jinja *j, const Value *a) {
    return jv_int((int64_t)jv_length(j, a[0]));
}

static Value f_default(Jinja *j, const Value *a) {
    if (a[0].kind != V_UNDEFINED && !(jv_truth(j, a[2]) && !jv_truth(j, a[0]))) return a[0];
    return a[1].kind == V_ABSENT ? jv_str((Str){0}) : a[1];
}

static Value f_first(Jinja *j, const Value *a) {
    if (a[0].kind == V_ITERATOR && a[0].iterator->next < a[0].iterator->seq->n)
        return a[0].iterator->seq->items[a[0].iterator->next++];
    if (a[0].kind == V_STRING && a[0].s.n) return jv_str(js_part(a[0].s, 0, 1));
    const Seq *items = jv_items(j, a[0]);
    return items->n ? items->items[0]
                    : jv_undefined(MISSING_OTHER, a[0], js_ascii(j, "there is no first item"));
}

static Value f_last(Jinja *j, const Value *a) {
    if (a[0].kind == V_ITERATOR) jinja_fail(j, ERR_RUN, "an iterator has no last item; make it a list first");
    if (a[0].kind == V_STRING && a[0].s.n) return jv_str(js_part(a[0].s, a[0].s.n - 1, a[0].s.n));
    const Seq *items = jv_items(j, a[0]);
    if (items->n) return items->items[items->n - 1];
    return jv_undefined(MISSING_OTHER, a[0], js_ascii(j, "there is no last item"));
}

/* A new list: one that is appended to is not the other. */
static Value f_list(Jinja *j, const Value *a) {
    return jv_seq(V_LIST, jv_copy(j, jv_items(j, a[0])));
}

/* By the time that the template sees, and by what it did before. */
static Value f_random(Jinja *j, const Value *a) {
    const Seq *items = jv_items(j, a[0]);
    struct tm now = j->interp->now;
    uint64_t x = (uint64_t)timegm(&now) * 0x9E3779B97F4A7C15u + (uint64_t)j->steps;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u; // SplitMix64
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    if (!items->n) return jv_undefined(MISSING_OTHER, a[0], js_ascii(j, "there is no item to choose"));
    return items->items[x % items->n];
}

static Value f_items(Jinja *j, const Value *a) {
    Seq *seq = jv_new_seq(j, 0);
    if (a[0].kind == V_UNDEFINED) return jv_iterator(j, seq);
    if (a[0].kind != V_DICT) jinja_fail(j, ERR_RUN, "only a dict has items, not %s", jv_kind_name(a[0]));
    for (size_t i = 0; i < a[0].dict->n; i++) {
        Seq *pair = jv_new_seq(j, 2);
        jv_add(j, pair, a[0].dict->pairs[i].key);
        jv_add(j, pair, a[0].dict->pairs[i].value);
        jv_add(j, seq, jv_seq(V_TUPLE, pair));
    }
    return jv_iterator(j, seq);
}

static Value f_join(Jinja *j, const Value *a) {
    Str between = jv_string(j, a[1]);
    const Seq *items = jv_items(j, a[0]);
    Text t = {0};
    for (size_t i = 0; i < items->n; i++) {
        if (i) js_add(j, &t, between);
        jinja_spend(j, 1);
        js_add(j, &t, jv_string(j, follow(j, items->items[i], a[2], (Value){0})));
    }
    return jv_str(js_text(&t));
}

static Value f_reverse(Jinja *j, const Value *a) {
    if (a[0].kind == V_STRING) {
        Text t = {0};
        for (size_t i = a[0].s.n; i-- > 0;) js_add_char(j, &t, a[0].s.c[i]);
        return jv_str(js_text(&t));
    }
    jv_need(j, a[0]);
    const Seq *items = jv_items(j, a[0]);
    Seq *out = jv_new_seq(j, items->n);
    jinja_spend(j, items->n / 16);
    for (size_t i = items->n; i-- > 0;) jv_add(j, out, items->items[i]);
    return a[0].kind == V_ITERATOR ? jv_seq(V_LIST, out) : jv_iterator(j, out);
}

static Value f_sum(Jinja *j, const Value *a) {
    Value total = a[2].kind == V_ABSENT ? jv_int(0) : a[2];
    if (total.kind == V_STRING) jinja_fail(j, ERR_RUN, "sum does not join text; use join");
    const Seq *items = jv_items(j, a[0]);
    for (size_t i = 0; i < items->n; i++) {
        jinja_spend(j, 1);
        total = jinja_binary(j, T_ADD, total, follow(j, items->items[i], a[1], (Value){0}));
    }
    return total;
}

static Value extreme(Jinja *j, const Value *a, int sign) {
    const Seq *items = jv_items(j, a[0]);
    bool case_sensitive = jv_truth(j, a[1]);
    if (!items->n)
        return jv_undefined(MISSING_OTHER, a[0], js_ascii(j, "there is no greatest or least of nothing"));
    size_t best = 0;
    Value best_key = fold_case(j, follow(j, items->items[0], a[2], (Value){0}), case_sensitive);
    for (size_t i = 1; i < items->n; i++) {
        Value key = fold_case(j, follow(j, items->items[i], a[2], (Value){0}), case_sensitive);
        jinja_spend(j, 1);
        if (jv_compare(j, key, best_key) * sign <= 0) continue;
        best = i;
        best_key = key;
    }
    return items->items[best];
}

static Value f_min(Jinja *j, const Value *a) {
    return extreme(j, a, -1);
}

static Value f_max(Jinja *j, const Value *a) {
    return extreme(j, a, 1);
}

/* ---- Order ---- */

/* Sorts pairs of key and item by key, stable also in reverse: bottom-up merge sort. */
static void sort_pairs(Jinja *j, Pair *pairs, size_t n, bool reverse) {
    Pair *other = jinja_alloc(j, n, sizeof *other);
    for (size_t run = 1; run < n; run *= 2) {
        jinja_spend(j, n);
        for (size_t from = 0; from < n; from += 2 * run) {
            size_t middle = from + run < n ? from + run : n, end = from + 2 * run < n ? from + 2 * run : n;
            for (size_t a = from, b = middle, w = from; w < end; w++) {
                bool second = b < end;
                if (second && a < middle) {
                    int order = jv_compare(j, pairs[b].key, pairs[a].key);
                    second = reverse ? order > 0 : order < 0;
                }
                other[w] = pairs[second ? b++ : a++];
            }
        }
        for (size_t i = 0; i < n; i++) pairs[i] = other[i];
    }
}

/* The values of the paths "a,b.c" in an item, as one tuple. */
static Value many_keys(Jinja *j, Value item, Value path, bool case_sensitive) {
    if (path.kind != V_STRING) return fold_case(j, follow(j, item, path, (Value){0}), case_sensitive);
    Seq *keys = jv_new_seq(j, 0);
    for (size_t from = 0; from <= path.s.n;) {
        size_t to = from;
        while (to < path.s.n && char_code(path.s.c[to]) != ',') to++;
        Value key = follow(j, item, jv_str(js_part(path.s, from, to)), (Value){0});
        jv_add(j, keys, fold_case(j, key, case_sensitive));
        from = to + 1;
    }
    return jv_seq(V_TUPLE, keys);
}

static Seq *sorted_by(Jinja *j, const Seq *items, Value path, bool case_sensitive, bool reverse,
                      Pair **keys) {
    Pair *pairs = jinja_alloc(j, items->n, sizeof *pairs);
    for (size_t i = 0; i < items->n; i++)
        pairs[i] = (Pair){many_keys(j, items->items[i], path, case_sensitive), items->items[i]};
    sort_pairs(j, pairs, items->n, reverse);
    Seq *out = jv_new_seq(j, items->n);
    for (size_t i = 0; i < items->n; i++) jv_add(j, out, pairs[i].value);
    if (keys) *keys = pairs;
    return out;
}

static Value f_sort(Jinja *j, const Value *a) {
    return jv_seq(V_LIST, sorted_by(j, jv_items(j, a[0]), a[3], jv_truth(j, a[2]), jv_truth(j, a[1]), NULL));
}

static Value f_dictsort(Jinja *j, const Value *a) {
    Str by = jv_is_given(a[2]) ? jv_need_str(j, a[2], "by") : js_ascii(j, "key");
    if (!js_is(by, "key") && !js_is(by, "value")) jinja_fail(j, ERR_RUN, "dictsort sorts by key or value");
    jv_need(j, a[0]);
    const Seq *items = f_items(j, a).iterator->seq;
    Value path = jv_int(js_is(by, "value"));
    return jv_seq(V_LIST, sorted_by(j, items, path, jv_truth(j, a[1]), jv_truth(j, a[3]), NULL));
}

static Value f_groupby(Jinja *j, const Value *a) {
    bool case_sensitive = jv_truth(j, a[3]);
    const Seq *items = jv_items(j, a[0]);
    Pair *pairs = jinja_alloc(j, items->n, sizeof *pairs);
    for (size_t i = 0; i < items->n; i++)
        pairs[i] =
            (Pair){fold_case(j, follow(j, items->items[i], a[1], a[2]), case_sensitive), items->items[i]};
    sort_pairs(j, pairs, items->n, false);
    Seq *groups = jv_new_seq(j, 0), *group = NULL;
    for (size_t i = 0; i < items->n; i++) {
        if (i == 0 || !jv_equal(j, pairs[i].key, pairs[i - 1].key)) {
            Seq *tuple = jv_new_seq(j, 2);
            group = jv_new_seq(j, 0);
            jv_add(j, tuple, follow(j, pairs[i].value, a[1], a[2]));
            jv_add(j, tuple, jv_seq(V_LIST, group));
            Value v = jv_seq(V_TUPLE, tuple);
            v.detail = TUPLE_GROUP;
            jv_add(j, groups, v);
        }
        jv_add(j, group, pairs[i].value);
    }
    return jv_seq(V_LIST, groups);
}

static Value f_unique(Jinja *j, const Value *a) {
    const Seq *items = jv_items(j, a[0]);
    Dict *seen = jv_new_dict(j);
    Seq *out = jv_new_seq(j, 0);
    for (size_t i = 0; i < items->n; i++) {
        Value key = fold_case(j, follow(j, items->items[i], a[2], (Value){0}), jv_truth(j, a[1]));
        size_t n = seen->n;
        jv_put(j, seen, key, jv_none());
        if (seen->n > n) jv_add(j, out, items->items[i]);
    }
    return jv_iterator(j, out);
}

/* ---- Groups ---- */

static Value f_batch(Jinja *j, const Value *a) {
    const Seq *items = jv_items(j, a[0]);
    int64_t size = jv_need_int(j, a[1], "linecount");
    if (size < 1) jinja_fail(j, ERR_RUN, "batch needs a size of at least 1");
    Seq *out = jv_new_seq(j, 0), *group = NULL;
    for (size_t i = 0; i < items->n; i++) {
        if ((int64_t)i % size == 0) {
            group = jv_new_seq(j, 0);
            jv_add(j, out, jv_seq(V_LIST, group));
        }
        jv_add(j, group, items->items[i]);
    }
    while (group && jv_is_given(a[2]) && (int64_t)group->n < size) {
        jinja_spend(j, 1);
        jv_add(j, group, a[2]);
    }
    return jv_iterator(j, out);
}

static Value f_slice(Jinja *j, const Value *a) {
    const Seq *items = jv_items(j, a[0]);
    int64_t n = jv_need_int(j, a[1], "slices");
    if (n < 1) jinja_fail(j, ERR_RUN, "slice needs at least 1 slice");
    size_t each = items->n / (size_t)n, longer = items->n % (size_t)n, at = 0;
    Seq *out = jv_new_seq(j, 0);
    for (size_t i = 0; i < (size_t)n; i++) {
        Seq *group = jv_new_seq(j, 0);
        jinja_spend(j, 1);
        for (size_t end = at + each + (i < longer); at < end; at++) jv_add(j, group, items->items[at]);
        if (jv_is_given(a[2]) && i >= longer) jv_add(j, group, a[2]);
        jv_add(j, out, jv_seq(V_LIST, group));
    }
    return jv_iterator(j, out);
}

/* ---- Filters that apply others ---- */

static Value f_attr(Jinja *j, const Value *a) {
    Str name = jv_need_str(j, a[1], "the name of an attribute");
    if (a[0].kind == V_DICT && !jinja_method(a[0], name)) return jv_undefined(MISSING_ATTRIBUTE, a[0], name);
    return jinja_attribute(j, a[0], name);
}

/* The arguments without the first n. */
static Args behind(const Args *args, size_t n) {
    Seq left = {.n = args->positional.n - n};
    if (left.n) left.items = args->positional.items + n;
    return (Args){left, args->named};
}

static const Builtin *find_by_name(Jinja *j, const Args *args, size_t n, const Builtin *(*find)(Str),
                                   const char *what) {
    Str name = jv_need_str(j, args->positional.items[n], what);
    const Builtin *b = find(name);
    if (!b) jinja_fail(j, ERR_MODEL, "the %s '%s' is unknown", what, jinja_quote(j, name));
    return b;
}

/* The items for map and select: none of a false value, even of one that is not iterable. */
static const Seq *items_if_true(Jinja *j, Value v) {
    return jv_truth(j, v) ? jv_items(j, v) : jv_new_seq(j, 0);
}

static Value f_map(Jinja *j, const Value *a) {
    const Args *args = a[1].args;
    const Seq *items = items_if_true(j, a[0]);
    Seq *out = jv_new_seq(j, items->n);
    if (!items->n) return jv_iterator(j, out);
    if (!args->positional.n) {
        const Value *path = jv_get(j, &args->named, jv_str(js_ascii(j, "attribute")));
        const Value *fallback = jv_get(j, &args->named, jv_str(js_ascii(j, "default")));
        if (!path || args->named.n > (fallback ? 2 : 1))
            jinja_fail(j, ERR_RUN, "map needs a filter, or attribute= and perhaps default=");
        for (size_t i = 0; i < items->n; i++)
            jv_add(j, out, follow(j, items->items[i], *path, fallback ? *fallback : (Value){0}));
        return jv_iterator(j, out);
    }
    const Builtin *b = find_by_name(j, args, 0, jinja_filter, "filter");
    Args rest = behind(args, 1);
    for (size_t i = 0; i < items->n; i++) jv_add(j, out, jinja_call_builtin(j, b, items->items[i], &rest));
    return jv_iterator(j, out);
}

/* The items of which the test (truth if none is named) of the item, or of an attribute of it, gives
 * `wanted`. */
static Value selected(Jinja *j, Value from, const Args *args, bool by_attribute, bool wanted) {
    const Seq *items = items_if_true(j, from);
    Seq *out = jv_new_seq(j, 0);
    if (!items->n) return jv_iterator(j, out);
    if (by_attribute && !args->positional.n) jinja_fail(j, ERR_RUN, "the name of an attribute is missing");
    bool tested = args->positional.n > by_attribute;
    const Builtin *b = tested ? find_by_name(j, args, by_attribute, jinja_test, "test") : NULL;
    Args rest = behind(args, (size_t)by_attribute + tested);
    for (size_t i = 0; i < items->n; i++) {
        Value v = items->items[i];
        if (by_attribute) v = follow(j, v, args->positional.items[0], (Value){0});
        if (b) v = jinja_call_builtin(j, b, v, &rest);
        jinja_spend(j, 1);
        if (jv_truth(j, v) == wanted) jv_add(j, out, items->items[i]);
    }
    return jv_iterator(j, out);
}

static Value f_select(Jinja *j, const Value *a) {
    return selected(j, a[0], a[1].args, false, true);
}
static Value f_reject(Jinja *j, const Value *a) {
    return selected(j, a[0], a[1].args, false, false);
}
static Value f_selectattr(Jinja *j, const Value *a) {
    return selected(j, a[0], a[1].args, true, true);
}
static Value f_rejectattr(Jinja *j, const Value *a) {
    return selected(j, a[0], a[1].args, true, false);
}

const Builtin *jinja_filter(Str name) {
    static const Builtin FILTERS[] = {
        {"abs", "", f_abs},
        {"attr", "name", f_attr},
        {"batch", "linecount fill_with?", f_batch},
        {"capitalize", "", f_capitalize},
        {"center", "width?", f_center},
        {"count", "", f_length},
        {"d", "default_value? boolean?", f_default},
        {"default", "default_value? boolean?", f_default},
        {"dictsort", "case_sensitive? by? reverse?", f_dictsort},
        {"e", "", jinja_escape},
        {"escape", "", jinja_escape},
        {"filesizeformat", "binary?", f_filesizeformat},
        {"first", "", f_first},
        {"float", "default?", f_float},
        {"forceescape", "", jinja_escape},
        {"format", "*", f_format},
        {"from_json", "", f_from_json},
        {"groupby", "attribute default? case_sensitive?", f_groupby},
        {"indent", "width? first? blank?", f_indent},
        {"int", "default? base?", f_int},
        {"items", "", f_items},
        {"join", "d? attribute?", f_join},
        {"last", "", f_last},
        {"length", "", f_length},
        {"list", "", f_list},
        {"lower", "", f_lower},
        {"map", "*", f_map},
        {"max", "case_sensitive? attribute?", f_max},
        {"min", "case_sensitive? attribute?", f_min},
        {"pprint", "", f_pprint},
        {"random", "", f_random},
        {"reject", "*", f_reject},
        {"rejectattr", "*", f_rejectattr},
        {"replace", "old new count?", f_replace},
        {"reverse", "", f_reverse},
        {"round", "precision? method?", f_round},
        {"safe", "", f_string},
        {"select", "*", f_select},
        {"selectattr", "*", f_selectattr},
        {"slice", "slices fill_with?", f_slice},
        {"sort", "reverse? case_sensitive? attribute?", f_sort},
        {"string", "", f_string},
        {"striptags", "", jinja_striptags},
        {"sum", "attribute? start?", f_sum},
        {"title", "", f_title},
        {"tojson", "ensure_ascii? indent? separators? sort_keys?", f_tojson},
        {"trim", "chars?", f_trim},
        {"truncate", "length? killwords? end? leeway?", f_truncate},
        {"unique", "case_sensitive? attribute?", f_unique},
        {"upper", "", f_upper},
        {"urlencode", "", f_urlencode},
        {"urlize", "trim_url_limit? nofollow? target? rel? extra_schemes?", jinja_urlize},
        {"wordcount", "", f_wordcount},
        {"wordwrap", "width? break_long_words? wrapstring? break_on_hyphens?", jinja_wordwrap},
        {"xmlattr", "autospace?", jinja_xmlattr},
        {0},
    };
    return jinja_find(FILTERS, name);
}
