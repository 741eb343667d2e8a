/* show: see show.h. */
#include "show.h"
#include "out.h"

#include <inttypes.h>
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

/* Characters that print nothing, or turn the line around. */
static bool is_invisible(uint32_t c) {
    return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0xAD || c == 0x61C || (c >= 0x200B && c <= 0x200F) ||
           (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF ||
           (c >= 0xE0000 && c <= 0xE0FFF);
}

void show_escape(const char *s, size_t n, Buf *out) {
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t taken = utf8_next(s + i, n - i, &c);
        if (c == UTF8_BAD || c == UTF8_CUT)
            for (size_t k = 0; k < taken; k++) buf_printf(out, "\\x%02x", (uint8_t)s[i + k]);
        else if (c == '\n' || c == '\t')
            buf_printf(out, "\\%c", c == '\n' ? 'n' : 't');
        else if (c == '\\' || c == '\'')
            buf_printf(out, "\\%c", (int)c);
        else if (c < 0x80 && is_invisible(c))
            buf_printf(out, "\\x%02" PRIx32, c);
        else if (is_invisible(c))
            buf_printf(out, "\\u{%" PRIx32 "}", c);
        else
            buf_add(out, s + i, taken);
        i += taken;
    }
}

bool show_write(json_t *value, Err *e) {
    char *text = json_dumps(value, JSON_REAL_PRECISION(9));
    json_decref(value);
    if (!text) return err_set(e, ERR_MEMORY, "not enough memory to write the JSON object");
    bool ok = out_write(text, strlen(text), e) && out_write("\n", 1, e);
    free(text);
    return ok;
}
