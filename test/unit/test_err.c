/* err: how untrusted text is shown in the one line of an error. */
#include "check.h"
#include "../../src/base/err.h"
#include "../../src/base/utf8.h"

#include <stdio.h>
#include <string.h>

TEST(err_escapes_foreign_text) {
    Err e = {0};
    bool ok = err_set(&e, ERR_MODEL, "%s: '%d'", "a\x1b[2J\n\xff\xe2\x80\xae\xc3\xa9\\", 7);
    CHECK(!ok && e.code == ERR_MODEL);
    CHECK(strcmp(e.text, "a\\x1b[2J\\n\\xff\\u{202e}\xc3\xa9\\: '7'") == 0, "%s", e.text);
    err_set(&e, ERR_RUN, "%s", "");
    CHECK(e.text[0] == 0 && e.code == ERR_RUN);
}

/* Text that is cut to the size of Err ends with a whole character. */
TEST(err_cuts_between_characters) {
    for (size_t n = 190; n < 194; n++) {
        Err e;
        char text[900] = {0};
        memset(text, 1, n); // each is shown as four bytes
        for (size_t i = 0; i < 150; i++) strcat(text, "\xe6\x97\xa5");
        err_set(&e, ERR_RUN, "%s", text);
        size_t length = strlen(e.text);
        CHECK(utf8_is_valid(e.text, length) && length > sizeof e.text - 4, "%zu bytes", length);
    }
}
