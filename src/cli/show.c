/* show: see show.h. */
#include "show.h"
#include "out.h"
#include "../base/json.h"
#include "../base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *json_memory(size_t bytes) {
    return mem_resize(NULL, bytes);
}

void show_open(void) {
    json_set_alloc_funcs(json_memory, free);
}

json_t *show_json(const char *s, size_t n) {
    Utf8Gate gate = {0};
    Buf clean = {0};
    utf8_gate_push(&gate, s, n, &clean);
    utf8_gate_end(&gate, &clean);
    json_t *value = json_stringn(clean.n ? clean.data : "", clean.n);
    buf_free(&clean);
    return value;
}

json_t *show_piece(const Tok *t, int id) {
    Buf piece = {0};
    tok_piece(t, id, true, &piece);
    GgufString spelled = tok_text(t, id);
    bool is_whole = utf8_is_valid(piece.data, piece.n);
    json_t *value = is_whole ? show_json(piece.data, piece.n) : show_json(spelled.data, spelled.n);
    buf_free(&piece);
    return value;
}

json_t *show_bytes(const Tok *t, int id) {
    Buf piece = {0};
    tok_piece(t, id, true, &piece);
    json_t *bytes = json_array();
    for (size_t i = 0; i < piece.n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)piece.data[i]));
    buf_free(&piece);
    return bytes;
}

json_t *show_number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

void show_escape(const char *s, size_t n, Buf *out) {
    utf8_escape(s, n, "\\'", out);
}

bool show_dump(const json_t *value, Buf *out, Err *e) {
    return json_write_shown(value, JSON_REAL_PRECISION(9), out) ||
           err_set(e, ERR_MEMORY, "not enough memory to write the JSON object");
}

bool show_write(json_t *value, Err *e) {
    Buf text = {0};
    bool ok = show_dump(value, &text, e);
    json_decref(value);
    buf_printf(&text, "\n");
    ok = ok && out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}
