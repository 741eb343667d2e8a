/* show: see show.h. */
#include "show.h"
#include "out.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

json_t *show_number(double x) {
    return isfinite(x) ? json_real(x) : json_null();
}

void show_escape(const char *s, size_t n, Buf *out) {
    utf8_escape(s, n, "\\'", out);
}

bool show_write(json_t *value, Err *e) {
    char *text = json_dumps(value, JSON_REAL_PRECISION(9));
    json_decref(value);
    if (!text) return err_set(e, ERR_MEMORY, "not enough memory to write the JSON object");
    bool ok = out_write(text, strlen(text), e) && out_write("\n", 1, e);
    free(text);
    return ok;
}
