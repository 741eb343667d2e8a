/* value: see value.h. */
#include "value.h"
#include "../base/buf.h"
#include "../base/utf8.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STRING_MAX = 64 << 20 }; // bytes; strings of known models are far shorter

static const struct {
    const char *name;
    size_t size; // bytes of a scalar; 0: not fixed
} TYPES[VALUE_N_TYPES] = {
    [VALUE_U8] = {"u8", 1},       [VALUE_I8] = {"i8", 1},     [VALUE_U16] = {"u16", 2},
    [VALUE_I16] = {"i16", 2},     [VALUE_U32] = {"u32", 4},   [VALUE_I32] = {"i32", 4},
    [VALUE_F32] = {"f32", 4},     [VALUE_BOOL] = {"bool", 1}, [VALUE_STRING] = {"string", 0},
    [VALUE_ARRAY] = {"array", 0}, [VALUE_U64] = {"u64", 8},   [VALUE_I64] = {"i64", 8},
    [VALUE_F64] = {"f64", 8},
};

static bool read_type(Cursor *c, ValueType *out) {
    uint32_t type;
    if (!cursor_u32(c, &type)) return false;
    if (type >= VALUE_N_TYPES)
        return cursor_refuse(c, "has the value type %" PRIu32 ", which GGUF does not define", type);
    *out = (ValueType)type;
    return true;
}

static bool read_count(Cursor *c, ValueType type, uint64_t *n) {
    if (!cursor_u64(c, n)) return false;
    size_t least = type == VALUE_STRING ? sizeof(uint64_t) : TYPES[type].size;
    if (*n > cursor_left(c) / least)
        return cursor_refuse(c, "claims %" PRIu64 " elements where only %zu bytes are left", *n,
                             cursor_left(c));
    return true;
}

static bool step_over_elements(Cursor *c, const Value *v) {
    if (v->type == VALUE_STRING) {
        GgufString s;
        for (uint64_t i = 0; i < v->n; i++)
            if (!cursor_string(c, STRING_MAX, &s)) return false;
        return true;
    }
    const uint8_t *p = cursor_take(c, v->n * TYPES[v->type].size);
    if (!p) return false;
    for (uint64_t i = 0; v->type == VALUE_BOOL && i < v->n; i++)
        if (p[i] > 1) return cursor_refuse(c, "holds the boolean %u, neither 0 nor 1", p[i]);
    return true;
}

bool value_read(Cursor *c, Value *out) {
    Value v = {.n = 1};
    if (!read_type(c, &v.type)) return false;
    if (v.type == VALUE_ARRAY) {
        v.is_array = true;
        if (!read_type(c, &v.type)) return false;
        if (v.type == VALUE_ARRAY) return cursor_refuse(c, "is an array of arrays, which zgen does not read");
        if (!read_count(c, v.type, &v.n)) return false;
    }
    size_t begin = c->at;
    if (!step_over_elements(c, &v)) return false;
    v.data = c->data + begin;
    v.n_bytes = c->at - begin;
    *out = v;
    return true;
}

const char *value_describe(const Value *v, char *text, size_t size) {
    const char *name = TYPES[v->type].name;
    if (v->is_array)
        snprintf(text, size, "an array of %" PRIu64 " %s", v->n, name);
    else
        snprintf(text, size, "%s %s", strchr("fi", name[0]) ? "an" : "a", name);
    return text;
}

bool value_is_float(const Value *v) {
    return v->type == VALUE_F32 || v->type == VALUE_F64;
}

bool value_is_int(const Value *v) {
    return !value_is_float(v) && v->type != VALUE_BOOL && v->type != VALUE_STRING;
}

/* Element i, little endian, in the low bytes of 64 bits. */
static uint64_t element_bits(const Value *v, uint64_t i) {
    size_t size = TYPES[v->type].size;
    assert(i < v->n && size > 0);
    uint64_t bits = 0;
    memcpy(&bits, v->data + i * size, size);
    return bits;
}

bool value_int(const Value *v, uint64_t i, int64_t *out) {
    if (!value_is_int(v)) return false;
    uint64_t bits = element_bits(v, i);
    switch (v->type) {
    case VALUE_I8:
        *out = (int8_t)bits;
        return true;
    case VALUE_I16:
        *out = (int16_t)bits;
        return true;
    case VALUE_I32:
        *out = (int32_t)bits;
        return true;
    case VALUE_I64:
        *out = (int64_t)bits;
        return true;
    default:
        *out = (int64_t)bits;
        return bits <= INT64_MAX;
    }
}

static double element_double(const Value *v, uint64_t i) {
    uint64_t bits = element_bits(v, i);
    double d;
    float f;
    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &bits, sizeof f);
    return v->type == VALUE_F64 ? d : f;
}

bool value_float(const Value *v, uint64_t i, float *out) {
    int64_t whole;
    if (value_int(v, i, &whole)) {
        *out = (float)whole;
        return true;
    }
    if (!value_is_float(v)) return false;
    double d = element_double(v, i);
    if (!(fabs(d) <= 3.40282346638528859812e38)) return false; // FLT_MAX; also catches NaN
    *out = (float)d;
    return true;
}

bool value_bool(const Value *v, uint64_t i) {
    assert(v->type == VALUE_BOOL);
    return element_bits(v, i) != 0;
}

static Cursor cursor_over(const Value *v, Err *ignored) {
    return (Cursor){.data = v->data, .size = v->n_bytes, .label = "", .err = ignored};
}

bool value_strings(const Value *v, GgufString *out) {
    assert(v->type == VALUE_STRING);
    Err ignored;
    Cursor c = cursor_over(v, &ignored);
    for (uint64_t i = 0; i < v->n; i++)
        if (!cursor_string(&c, STRING_MAX, &out[i])) return false;
    return true;
}

static void print_string(GgufString s, size_t max, Buf *out) {
    size_t n = s.n < max ? s.n : 0;
    for (uint32_t c; n < s.n && n < max;) n += utf8_next(s.data + n, s.n - n, &c);
    buf_add(out, "\"", 1);
    utf8_escape(s.data, n, "\\\"", out);
    buf_printf(out, n < s.n ? "\"... (%zu bytes)" : "\"", s.n);
}

static void print_scalar(const Value *v, uint64_t i, Buf *out) {
    int64_t n;
    if (v->type == VALUE_BOOL)
        buf_printf(out, "%s", value_bool(v, i) ? "true" : "false");
    else if (value_is_float(v))
        buf_printf(out, v->type == VALUE_F32 ? "%.7g" : "%.15g", element_double(v, i));
    else if (value_int(v, i, &n))
        buf_printf(out, "%" PRId64, n);
    else
        buf_printf(out, "%" PRIu64, element_bits(v, i));
}

void value_print(const Value *v, size_t max, Buf *out) {
    Err ignored;
    Cursor c = cursor_over(v, &ignored);
    if (v->is_array) buf_printf(out, "[%" PRIu64 " x %s]", v->n, TYPES[v->type].name);
    size_t begin = out->n;
    for (uint64_t i = 0; i < v->n; i++) {
        if (v->is_array) buf_printf(out, i ? ", " : " ");
        if (out->n - begin >= max && i > 0) {
            buf_printf(out, "...");
            return;
        }
        GgufString s;
        if (v->type != VALUE_STRING)
            print_scalar(v, i, out);
        else if (cursor_string(&c, STRING_MAX, &s))
            print_string(s, max, out);
        else
            return;
    }
}
