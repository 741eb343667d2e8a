/* saved: see saved.h. */
#include "saved.h"
#include "../base/json.h"

#include <assert.h>

static bool check(const json_t *object, const char *name, Err *e) {
    const json_t *messages = json_object_get(object, "messages");
    if (!json_is_array(messages))
        return err_set(e, ERR_RUN,
                       "%.500s: \"messages\" is missing; the format is "
                       "{\"messages\": [{\"role\": \"user\", \"content\": \"...\"}]}",
                       name);
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!json_is_object(json_array_get(messages, i)))
            return err_set(e, ERR_RUN, "%.500s: message %zu is not an object with \"role\" and \"content\"",
                           name, i + 1);
    return true;
}

json_t *saved_read(const char *text, size_t n, const char *name, Err *e) {
    json_error_t why;
    json_t *object = json_read(text, n, &why);
    if (!object)
        err_set(e, ERR_RUN, "%.500s, line %d, column %d: not JSON: %s", name, why.line, why.column, why.text);
    if (!object || check(object, name, e)) return object;
    json_decref(object);
    return NULL;
}

/* A double has 17 digits.  What was read or made by Jansson can be written. */
void saved_write(const json_t *conversation, Buf *out) {
    bool ok = json_write_shown(conversation, JSON_INDENT(1) | JSON_REAL_PRECISION(17), out);
    assert(ok);
    (void)ok;
    buf_add(out, "\n", 1);
}
