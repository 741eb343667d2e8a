/* Tests of the reader of JSON: numbers that no type holds, halves of surrogate pairs, texts that look
 * like the mark of a number. */
#include "check.h"
#include "../../src/base/json.h"

#include <stdlib.h>
#include <string.h>

/* What a text becomes when it is read and written again; NULL: it is refused. */
static void check(const char *text, const char *expected) {
    json_error_t why;
    json_t *value = json_read(text, strlen(text), &why);
    Buf again = {0};
    bool ok = value && json_write(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS, &again);
    bool equal = expected ? ok && strcmp(again.data, expected) == 0 : !value;
    CHECK(equal, "%s: %s, not %s", text, ok ? again.data : "refused", expected ? expected : "refused");
    buf_free(&again);
    json_decref(value);
}

TEST(json_keeps_numbers_as_they_are_written) {
    check("[9223372036854775807,-9223372036854775808]", "[9223372036854775807,-9223372036854775808]");
    check("[18446744073709551615]", "[18446744073709551615]");
    check("[9223372036854775808,-9223372036854775809]", "[9223372036854775808,-9223372036854775809]");
    check("[1e400,-1.5E+999,1e-999]", "[1e400,-1.5E+999,0.0]");
    check("{\"a\":123456789012345678901234567890,\"b\":[1,{\"c\":1e400}]}",
          "{\"a\":123456789012345678901234567890,\"b\":[1,{\"c\":1e400}]}");
    check("[\"18446744073709551615\",\"1e400\"]", "[\"18446744073709551615\",\"1e400\"]"); // strings stay
    check("[018446744073709551615]", NULL);
    check("[18446744073709551615.]", NULL);
    check("[1e400x]", NULL);
    check("[--1]", NULL);
}

TEST(json_replaces_half_a_surrogate_pair) {
    check("[\"\\ud83d\\ude00\"]", "[\"\U0001F600\"]");
    check("[\"a\\ud83d b\",\"\\udE00\",\"\\ud83d\\ud83d\\ude00\"]",
          "[\"a\uFFFD b\",\"\uFFFD\",\"\uFFFD\U0001F600\"]");
    check("{\"\\ud800\":1}", "{\"\uFFFD\":1}");
    check("[\"\\\\ud800\"]", "[\"\\\\ud800\"]"); // an escaped backslash
    check("[\"\\ud8", NULL);
    check("[\"\\", NULL);
    check("[\"", NULL);
}

TEST(json_is_not_deceived_by_marks) {
    check("[\"\uFDD018446744073709551615\"]", "[\"\uFDD018446744073709551615\"]");
    check("[\"\uFDD0000000000000000012\"]", "[\"\uFDD0000000000000000012\"]");
    json_t *value = json_pack("[s]", "\uFDD0000000000000000012");
    CHECK(!json_number_text(json_array_get(value, 0)));
    json_decref(value);
}

TEST(json_tells_numbers_from_strings) {
    static const char text[] = "[18446744073709551615,\"18446744073709551615\",1]";
    json_t *value = json_read(text, sizeof text - 1, NULL);
    REQUIRE(value);
    const char *number = json_number_text(json_array_get(value, 0));
    CHECK(number && strcmp(number, "18446744073709551615") == 0);
    CHECK(!json_number_text(json_array_get(value, 1)) && !json_number_text(json_array_get(value, 2)));
    CHECK(!json_number_text(NULL));
    json_decref(value);
}
