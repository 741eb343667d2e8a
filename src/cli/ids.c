/* ids: see ids.h. */
#include "ids.h"

#include <string.h>

static bool separates(char c) {
    return c != 0 && strchr(", \t\r\n[]", c);
}

bool ids_parse(const char *text, size_t n, int n_vocab, const char *what, TokIds *out, Err *e) {
    for (size_t i = 0; i < n;) {
        if (separates(text[i])) {
            i++;
            continue;
        }
        size_t length = 0;
        int64_t id = 0;
        bool is_number = true;
        for (; i + length < n && !separates(text[i + length]); length++) {
            char c = text[i + length];
            is_number &= c >= '0' && c <= '9';
            if (is_number && id < n_vocab)
                id = id * 10 + (c - '0'); // no overflow: a larger id is refused anyway
        }
        int shown = (int)(length < 40 ? length : 40);
        if (!is_number)
            return err_set(e, ERR_USAGE,
                           "%s: '%.*s' is not a token id; give numbers separated by commas or spaces", what,
                           shown, text + i);
        if (id >= n_vocab)
            return err_set(e, ERR_USAGE, "%s: there is no token %.*s; the model has tokens 0 to %d", what,
                           shown, text + i, n_vocab - 1);
        tok_ids_add(out, (int32_t)id);
        i += length;
    }
    return out->n > 0 ||
           err_set(e, ERR_USAGE, "%s: no token ids; give numbers separated by commas or spaces", what);
}
