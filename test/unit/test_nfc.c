/* Tests of composing: the kinds of composition one by one, properties of all characters, and marks in any
 * number. */
#include "check.h"
#include "../../src/base/mem.h"
#include "../../src/base/utf8.h"
#include "../../src/text/nfc.h"
#include "../../src/text/nfc_table.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(const char *text, const char *expected) {
    Buf out = {0};
    const char *got = nfc_compose(text, strlen(text), &out) ? out.data : text;
    CHECK(strcmp(got, expected) == 0, "'%s': '%s', not '%s'", text, got, expected);
    Buf again = {0};
    if (nfc_compose(got, strlen(got), &again)) CHECK(strcmp(again.data, got) == 0, "twice: '%s'", text);
    buf_free(&out);
    buf_free(&again);
}

TEST(nfc_composes_letters_and_marks) {
    check("cafe\u0301 re\u0301sume\u0301", "caf\u00E9 r\u00E9sum\u00E9");
    check("e\u0301\u0302\u0303", "\u00E9\u0302\u0303"); // the first mark takes the place of the second
    check("a\u0323\u0302", "\u1EAD");                   // two marks on one letter
    check("a\u0302\u0323", "\u1EAD");                   // in another order
    check("\u00E2\u0323", "\u1EAD");                    // on a composed letter
    check("q\u0307\u0323", "q\u0323\u0307");            // nothing to join: sorted by class
    check("a\u0300\u0300", "\u00E0\u0300");             // a mark of the same class is between
    check("\u0301a", "\u0301a");                        // no letter before
    check("\u0E33\u0E31 \u0E19\u0E49", "\u0E33\u0E31 \u0E19\u0E49"); // Thai has no compositions
}

TEST(nfc_replaces_characters_that_have_another_form) {
    check("\u212B \u2126 \uF900", "\u00C5 \u03A9 \u8C48");
    check("\u0958", "\u0915\u093C");         // excluded from composition
    check("\u0344", "\u0308\u0301");         // a mark that is two
    check("\u1F71", "\u03AC");               // through two steps
    check("\uFB01 \u00BD", "\uFB01 \u00BD"); // compatibility forms stay
}

TEST(nfc_composes_characters_of_class_0) {
    check("\u1112\u1161\u11AB\u1100\u1173\u11AF", "\uD55C\uAE00"); // Hangul
    check("\uD558\u11AB", "\uD55C");
    check("\uD55C\u11AB", "\uD55C\u11AB"); // has its last consonant already
    check("\u09C7\u09BE", "\u09CB");       // a vowel sign of Bengali
    check("\u1112\u0301\u1161", "\u1112\u0301\u1161");
}

TEST(nfc_leaves_early_characters_alone) {
    Buf out = {0};
    CHECK(!nfc_compose("caf\u00E9 \u02FF\0", 9, &out) && out.n == 0);
    CHECK(!nfc_compose("", 0, &out));
    CHECK(nfc_compose("a\u0301\0b", 5, &out) && out.n == 4 && memcmp(out.data, "\u00E1\0b", 4) == 0);
    buf_free(&out);
}

/* Every pair of the table is undone and joined again, or has another form for good. */
TEST(nfc_tables_agree_with_each_other) {
    int n_back = 0;
    for (int i = 0; i < NFC_PAIRS_N; i++) {
        const NfcPair *p = &NFC_PAIRS[i];
        CHECK(i == 0 || NFC_PAIRS[i - 1].whole < p->whole, "pair %d", i);
        CHECK(NFC_BLOCKS[p->whole >> 13] >> (p->whole >> 8 & 31) & 1, "pair %d", i);
    }
    for (int i = 0; i < NFC_JOINED_N; i++) {
        const NfcPair *p = &NFC_PAIRS[NFC_JOINED[i]], *before = i ? &NFC_PAIRS[NFC_JOINED[i - 1]] : NULL;
        CHECK(!before || before->first < p->first ||
                  (before->first == p->first && before->second < p->second),
              "joined %d", i);
        CHECK(NFC_BLOCKS[p->second >> 13] >> (p->second >> 8 & 31) & 1, "joined %d", i);
        n_back += p->second != 0;
    }
    CHECK(n_back == NFC_JOINED_N);
}

/* A million marks on one letter: a second for quadratic time would be an hour. */
TEST(nfc_takes_marks_in_any_number) {
    enum { N = 1000000 };
    Buf text = {0}, out = {0};
    buf_add(&text, "e", 1);
    for (int i = 0; i < N; i++) buf_add(&text, i % 2 ? "\u0301" : "\u0323", 2);
    clock_t begin = clock();
    REQUIRE(nfc_compose(text.data, text.n, &out));
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    CHECK(seconds < 5, "%.1f s", seconds);
    CHECK(out.n == 3 + 2 * (N - 1) && memcmp(out.data, "\u1EB9\u0323", 5) == 0 &&
          memcmp(out.data + out.n - 4, "\u0301\u0301", 4) == 0);
    buf_free(&text);
    buf_free(&out);
}
