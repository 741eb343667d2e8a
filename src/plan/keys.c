/* keys: see keys.h. */
#include "keys.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *whole_key(Keys *k, const char *name) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, name);
    return k->key;
}

bool keys_fail(Keys *k, const char *format, ...) {
    if (!k->ok) return false;
    char text[sizeof k->e->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return k->ok = err_set(k->e, ERR_MODEL, "%s: %s", gguf_label(k->g), text);
}

bool keys_has(Keys *k, const char *name) {
    return gguf_has(k->g, whole_key(k, name));
}

void keys_need(Keys *k, const char *name) {
    if (!keys_has(k, name))
        keys_fail(k, "metadata key '%s' is missing; the file is not a complete model", k->key);
}

int keys_int(Keys *k, const char *name, int min, int max, int fallback) {
    int64_t value = fallback;
    if (k->ok) k->ok = gguf_get_int(k->g, whole_key(k, name), min, max, &value, k->e);
    return k->ok ? (int)value : fallback;
}

bool keys_bool(Keys *k, const char *name, bool fallback) {
    bool value = fallback;
    if (k->ok) k->ok = gguf_get_bool(k->g, whole_key(k, name), &value, k->e);
    return value;
}

float keys_float(Keys *k, const char *name, float min, float max, float fallback) {
    float value = fallback;
    if (k->ok) k->ok = gguf_get_float(k->g, whole_key(k, name), min, max, &value, k->e);
    return k->ok ? value : fallback;
}

/* The index of the layer in the n values of the latest key. */
static size_t index_of_layer(Keys *k, int layer, size_t n) {
    if (n > 1 && n != (size_t)k->n_layer && n != (size_t)k->n_block)
        keys_fail(k, "'%s' has %zu values for %d layers", k->key, n, k->n_layer);
    return n > 1 && k->ok ? (size_t)layer : 0;
}

int keys_of_layer(Keys *k, const char *name, int layer, int min, int max, int fallback) {
    const int64_t *values;
    size_t n = 0;
    int harmless = fallback < 1 ? 1 : fallback; // after a failure
    if (k->ok) k->ok = gguf_get_ints(k->g, whole_key(k, name), &values, &n, k->e);
    size_t i = index_of_layer(k, layer, n);
    if (!k->ok) return harmless;
    int64_t value = n == 0 ? fallback : values[i];
    if (value >= min && value <= max) return (int)value;
    keys_fail(k, "'%s' is %lld in layer %d; expected %d to %d", k->key, (long long)value, layer, min, max);
    return harmless;
}

float keys_float_of_layer(Keys *k, const char *name, int layer, float min, float max) {
    const float *values;
    size_t n = 0;
    keys_need(k, name);
    if (k->ok) k->ok = gguf_get_floats(k->g, k->key, &values, &n, k->e);
    size_t i = index_of_layer(k, layer, n);
    if (!k->ok || (n > 0 && values[i] >= min && values[i] <= max)) return k->ok ? values[i] : max;
    keys_fail(k, "'%s' is not %g to %g in layer %d", k->key, (double)min, (double)max, layer);
    return max;
}

int keys_choice(Keys *k, const char *name, const char *const *names, int n, int fallback) {
    GgufString value = {0};
    if (k->ok) k->ok = gguf_get_string(k->g, whole_key(k, name), &value, k->e);
    if (!k->ok || !value.data) return fallback;
    char list[200] = "";
    for (int i = 0; i < n; i++) {
        if (value.n == strlen(names[i]) && memcmp(value.data, names[i], value.n) == 0) return i;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    keys_fail(k, "%s '%.*s' is not supported for %s; supported: %s", name, (int)(value.n < 40 ? value.n : 40),
              value.data, k->arch, list);
    return fallback;
}
