/* fuzz_saved: any bytes as a saved conversation.  What is read must be written without invisible
 * characters, and be read again as the same conversation; what is refused must have a reason. */
#include "../../src/base/utf8.h"
#include "../../src/text/saved.h"

#include <stdint.h>
#include <stdlib.h>

static void check_visible(const Buf *text) {
    for (size_t i = 0; i < text->n;) {
        uint32_t c;
        i += utf8_next(text->data + i, text->n - i, &c);
        if (c >= UTF8_BAD || (c != '\n' && utf8_is_invisible(c))) abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err e = {0};
    Buf text = {0};
    json_t *object = saved_read((const char *)data, size, "f", &e);
    if (!object) {
        if (e.code != ERR_RUN || !e.text[0]) abort();
        return 0;
    }
    saved_write(object, &text);
    check_visible(&text);
    json_t *again = saved_read(text.data, text.n, "f", &e);
    if (!again || !json_equal(object, again)) abort();
    buf_free(&text);
    json_decref(object);
    json_decref(again);
    return 0;
}
