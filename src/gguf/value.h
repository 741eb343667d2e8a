/* value: one metadata value of a GGUF file, a scalar or an array of scalars.
 *
 * Owns the thirteen value types: their sizes, names and conversions.  A Value points into the file and copies
 * nothing. Refused are unknown types, arrays of arrays, booleans other than 0 and 1, and counts larger than
 * the bytes left.
 *
 * Strings are read by a bounded cursor each time: a file that another process rewrites under the mapping can
 * change a value, but not its end. */
#ifndef ZGEN_GGUF_VALUE_H
#define ZGEN_GGUF_VALUE_H

#include "cursor.h"

struct Buf;

typedef enum ValueType { // GGUF's numbers
    VALUE_U8,
    VALUE_I8,
    VALUE_U16,
    VALUE_I16,
    VALUE_U32,
    VALUE_I32,
    VALUE_F32,
    VALUE_BOOL,
    VALUE_STRING,
    VALUE_ARRAY,
    VALUE_U64,
    VALUE_I64,
    VALUE_F64,
    VALUE_N_TYPES
} ValueType;

typedef struct Value {
    ValueType type; // of the elements, never VALUE_ARRAY
    bool is_array;
    uint64_t n; // elements; 1 for a scalar
    const uint8_t *data;
    size_t n_bytes;
} Value;

/* Reads a type and a value of it.  false: the cursor's Err is set. */
bool value_read(Cursor *c, Value *out);

/* A short description for messages: "a string", "an array of 3 u32".  Writes at most size bytes to text and
 * returns it. */
const char *value_describe(const Value *v, char *text, size_t size);

/* Element i (< n) converted; an integer is a float, too.  false: the type does not fit, or the value does
 * not (a u64 above INT64_MAX, a float that is not finite as f32). */
bool value_is_int(const Value *v);
bool value_is_float(const Value *v);
bool value_int(const Value *v, uint64_t i, int64_t *out);
bool value_float(const Value *v, uint64_t i, float *out);
bool value_bool(const Value *v, uint64_t i); // of a VALUE_BOOL

/* All n strings of a VALUE_STRING.  false: the file changed since it was read. */
bool value_strings(const Value *v, GgufString *out);

/* Appends a printable form of about max bytes; strings are quoted and escaped by utf8_escape. */
void value_print(const Value *v, size_t max, struct Buf *out);

#endif
