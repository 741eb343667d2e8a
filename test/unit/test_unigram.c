/* Tests of the unigram encoder: against the definition on random vocabularies, the spaces and the character
 * map of the file, work against length, hostile files. */
#include "check.h"
#include "tok_rig.h"
#include "../../src/base/mem.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

static const Piece SMALL[] = {
    {"<pad>", 0, CONTROL}, {"</s>", 0, CONTROL},
    {"<unk>", 0, UNKNOWN}, {"\u2581", -3, NORMAL},
    {"a", -4, NORMAL},     {"b", -4, NORMAL},
    {"ab", -7, NORMAL},    {"\u2581a", -5, NORMAL},
    {"bb", -7.5f, NORMAL}, {"\u2581ab", -11.5f, NORMAL},
    {"<x>", -9, USER},     {"abb", -20, TOK_UNUSED},
    {"A", -5, NORMAL},     {"\u00E9", -6, NORMAL},
    {"fi", -6, NORMAL},
};
enum { N_SMALL = sizeof SMALL / sizeof *SMALL };

static Buf file_of(const Piece *pieces, size_t n, bool space_first, bool merge_spaces) {
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "t5", pieces, n);
    file_bool(&file, "tokenizer.ggml.add_space_prefix", space_first);
    file_bool(&file, "tokenizer.ggml.remove_extra_whitespaces", merge_spaces);
    return file;
}

TEST(unigram_takes_the_most_probable_spelling) {
    Made m = made_open(file_of(SMALL, N_SMALL, false, false));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "ab", 0, "6");       // -7 against -8
    CHECK_ENCODES(m.tok, "abb", 0, "6 5");    // -11 against -11.5 (a bb) and -20
    CHECK_ENCODES(m.tok, "bbbb", 0, "8 8");   // -15 against -16
    CHECK_ENCODES(m.tok, "b ab", 0, "5 7 5"); // _a b: -9 against -10 (_ ab) and -11.5 (_ab)
    made_close(&m);
}

TEST(unigram_joins_unknown_characters) {
    Made m = made_open(file_of(SMALL, N_SMALL, false, false));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "azzza", 0, "4 2 4");
    CHECK_ENCODES(m.tok, "z", 0, "2");
    CHECK_ENCODES(m.tok, "az\u4E00<x>z", 0, "4 2 10 2");
    CHECK_ENCODES(m.tok, "", TOK_ADD_SPECIAL, "1");
    CHECK_ENCODES(m.tok, "a</s>", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, "4 1 1");
    CHECK(tok_bos(m.tok) == -1 && tok_eos(m.tok) == 1 && tok_unknown(m.tok) == 2 &&
          strcmp(tok_model(m.tok), "t5") == 0);
    made_close(&m);
}

/* As sentencepiece does: the bytes, each time, and no unknown token. */
TEST(unigram_spells_unknown_characters_where_there_are_byte_tokens) {
    Piece pieces[3 + 256 + 3] = {{"<unk>", 0, UNKNOWN}, {"<s>", 0, CONTROL}, {"</s>", 0, CONTROL}};
    char texts[256][8];
    for (int b = 0; b < 256; b++) {
        snprintf(texts[b], sizeof texts[b], "<0x%02X>", (unsigned)b);
        pieces[3 + b] = (Piece){texts[b], 0, BYTE};
    }
    pieces[259] = (Piece){"\u2581", -2, NORMAL};
    pieces[260] = (Piece){"a", -3, NORMAL};
    pieces[261] = (Piece){"\u2581a", -4, NORMAL};
    for (int left_out = 0; left_out < 2; left_out++) { // one of the bytes of U+200D, the second time
        Buf file = file_of(pieces, 262, true, true);
        file_u32(&file, "tokenizer.ggml.unknown_token_id", 0);
        Made m = made_open(file);
        REQUIRE(m.tok);
        CHECK_ENCODES(m.tok, "\u200D", 0, left_out ? "259 0" : "259 229 131 144");
        CHECK_ENCODES(m.tok, "a\u00E9\u00E9a", 0, "261 198 172 198 172 260");
        CHECK_ENCODES(m.tok, "\u200D\u200Da", 0, left_out ? "259 0 260" : "259 229 131 144 229 131 144 260");
        made_close(&m);
        pieces[3 + 0x8D] = (Piece){"zz", -9, NORMAL};
    }
}

TEST(unigram_treats_spaces_as_the_file_says) {
    Made m = made_open(file_of(SMALL, N_SMALL, true, true));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "  b   b  ", 0, "3 5 3 5"); // one in front of each word, none at the end
    CHECK_ENCODES(m.tok, "   ", 0, "");
    Buf text = {0};
    tok_decode(m.tok, (int32_t[]){3, 5, 7, 1}, 4, TOK_REMOVE_SPECIAL, &text);
    CHECK(strcmp(text.data, "b a") == 0, "'%s'", text.data);
    buf_free(&text);
    made_close(&m);
    m = made_open(file_of(SMALL, N_SMALL, true, false));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "b  b ", 0, "3 5 3 3 5 3");
    CHECK_ENCODES(m.tok, " b", 0, "3 3 5");
    CHECK_ENCODES(m.tok, " ", 0, "3 3");
    made_close(&m);
    m = made_open(file_of(SMALL, N_SMALL, false, true));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "b", 0, "5"); // none in front of the text
    CHECK_ENCODES(m.tok, "  b   b  ", 0, "5 3 5");
    made_close(&m);
    m = made_open(file_of(SMALL, N_SMALL, false, false));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, " b  b ", 0, "3 5 3 3 5 3");
    made_close(&m);
}

/* As sentencepiece does: user-defined tokens belong to the text, control tokens are between texts. */
TEST(unigram_goes_on_behind_user_defined_tokens) {
    Made m = made_open(file_of(SMALL, N_SMALL, true, true));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "<x>b", 0, "3 10 5");
    CHECK_ENCODES(m.tok, " b <x>  b <x> ", 0, "3 5 3 10 3 5 3 10");
    CHECK_ENCODES(m.tok, "b </s> b", TOK_PARSE_SPECIAL, "3 5 1 3 5");
    made_close(&m);
    m = made_open(file_of(SMALL, N_SMALL, true, false));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "<x>b", 0, "3 10 5");
    CHECK_ENCODES(m.tok, " <x> <x>b ", 0, "3 3 10 3 10 5 3");
    made_close(&m);
    m = made_open(file_of(SMALL, N_SMALL, false, true));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, " <x>b  <x>", 0, "10 5 3 10");
    made_close(&m);
}

/* ---- the character map ---- */

/* A trie with 256 slots per node: a valid, if sparse, packed trie. */
static Buf map_of(const char *const (*pairs)[2], size_t n_pairs) {
    enum { N_NODES = 40 };
    uint32_t *nodes = mem_new(N_NODES * 256, sizeof *nodes), n_used = 1;
    uint32_t block_of[N_NODES * 256] = {0}; // of the children of the node in a slot; the root's is 1
    Buf strings = {0}, out = {0};
    for (uint32_t i = 0; i < N_NODES * 256; i++) nodes[i] = 0x80000000; // no child
    nodes[0] = 256 << 10;
    block_of[0] = n_used++;
    for (size_t p = 0; p < n_pairs; p++) {
        uint32_t at = 0;
        for (const char *c = pairs[p][0]; *c; c++) {
            uint32_t child = block_of[at] * 256 ^ (unsigned char)*c;
            if (!block_of[child]) {
                block_of[child] = n_used++;
                nodes[child] = (child ^ block_of[child] * 256) << 10 | (unsigned char)*c;
            }
            at = child;
        }
        nodes[at] |= 1 << 8;
        nodes[block_of[at] * 256] = 0x80000000 | (uint32_t)strings.n;
        buf_add(&strings, pairs[p][1], strlen(pairs[p][1]) + 1);
    }
    put(&out, N_NODES * 1024, 4);
    buf_add(&out, nodes, N_NODES * 1024);
    buf_add(&out, strings.data, strings.n);
    free(nodes);
    buf_free(&strings);
    return out;
}

static void add_map(Buf *file, const char *bytes, size_t n) {
    file_array(file, "tokenizer.ggml.precompiled_charsmap", U8, n);
    buf_add(file, bytes, n);
}

TEST(unigram_maps_characters_first) {
    static const char *const pairs[][2] = {{"\uFF21", "A"},  {"e\u0301", "\u00E9"},
                                           {"\uFB01", "fi"}, {"\u3000", " "},
                                           {"e", "a"},       {"\u00AD", ""}};
    Buf map = map_of(pairs, 6), file = file_of(SMALL, N_SMALL, true, true);
    add_map(&file, map.data, map.n);
    Made m = made_open(file);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "a\uFF21", 0, "7 12");
    CHECK_ENCODES(m.tok, "ae\u0301e", 0, "7 13 4"); // the longest
    CHECK_ENCODES(m.tok, "a\uFB01\u3000\u3000a", 0, "7 14 7");
    CHECK_ENCODES(m.tok, "a\u00ADb", 0, "7 5");
    made_close(&m);
    buf_free(&map);
}

TEST(unigram_refuses_maps_that_are_none) {
    static const char *const pairs[][2] = {{"e", "a"}};
    Buf map = map_of(pairs, 1);
    const size_t lengths[] = {1, 4, 5, map.n - 2, map.n - 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        Buf file = file_of(SMALL, N_SMALL, false, true);
        add_map(&file, map.data, lengths[i]);
        CHECK_REFUSED(&file, "not a character map");
    }
    Buf file = file_of(SMALL, N_SMALL, false, true);
    char *endless = mem_new(2000, 1);
    memset(endless + 8, 'x', 1900); // a replacement that is too long
    memcpy(endless, "\4", 1);
    add_map(&file, endless, 2000);
    CHECK_REFUSED(&file, "not a character map");
    free(endless);
    for (uint32_t seed = 1, round = 0; round < 2000; round++) { // damaged nodes lead to any node or none
        file = file_of(SMALL, N_SMALL, false, true);
        Buf damaged = {0};
        buf_add(&damaged, map.data, map.n);
        for (int k = 0; k < 40; k++) damaged.data[4 + random_next(&seed) % 2100] ^= (char)random_next(&seed);
        add_map(&file, damaged.data, damaged.n);
        Made m = made_open(file);
        if (m.tok) encoded(m.tok, "eeaeb e e\u00E9", 12, 0);
        made_close(&m);
        buf_free(&damaged);
    }
    buf_free(&map);
}

/* ---- properties of all vocabularies ---- */

/* The definition: the best score up to each position, over all tokens that end at it. */
static void naive_encode(const Piece *pieces, size_t n_pieces, const char *text, TokIds *out) {
    size_t n = strlen(text), *from = mem_new(n + 1, sizeof *from);
    double *best = mem_new(n + 1, sizeof *best), lowest = 0;
    int *ids = mem_new(n + 1, sizeof *ids);
    for (size_t id = 0; id < n_pieces; id++)
        if (pieces[id].type == NORMAL && pieces[id].score < lowest) lowest = pieces[id].score;
    for (size_t to = 1; to <= n; to++) {
        best[to] = -INFINITY;
        for (size_t length = to; length; length--) { // of two equally probable ones, the longer last token
            double score = length == 1 ? lowest - 10 : -INFINITY;
            int found = 2;
            for (size_t id = 3; id < n_pieces; id++) {
                const char *piece = pieces[id].text;
                if (strlen(piece) != length || memcmp(piece, text + to - length, length) != 0) continue;
                score = pieces[id].score;
                found = (int)id;
            }
            score += best[to - length];
            if (score <= best[to]) continue;
            best[to] = score;
            from[to] = to - length;
            ids[to] = found;
        }
    }
    for (size_t at = n; at; at = from[at]) tok_ids_add(out, ids[at]);
    for (size_t i = 0; i < out->n / 2; i++) {
        int32_t id = out->data[i];
        out->data[i] = out->data[out->n - 1 - i];
        out->data[out->n - 1 - i] = id;
    }
    size_t kept = 0;
    for (size_t i = 0; i < out->n; i++)
        if (i == 0 || out->data[i] != 2 || out->data[i - 1] != 2) out->data[kept++] = out->data[i];
    out->n = kept;
    free(from);
    free(best);
    free(ids);
}

TEST(unigram_equals_the_naive_encoder) {
    uint32_t seed = 5;
    for (int round = 0; round < 300; round++) {
        Piece pieces[40] = {{"<pad>", 0, CONTROL}, {"</s>", 0, CONTROL}, {"<unk>", 0, UNKNOWN}};
        char texts[40][8];
        size_t n = 10 + random_next(&seed) % 30;
        for (size_t i = 3; i < n; i++) {
            size_t length = 1 + random_next(&seed) % 5;
            for (size_t k = 0; k < length; k++) texts[i][k] = (char)('a' + random_next(&seed) % 3);
            texts[i][length] = 0;
            /* Irrational scores: no two spellings are equally probable by chance. */
            pieces[i] =
                (Piece){texts[i], -sqrtf((float)(1 + random_next(&seed) % 1000)) * (float)length, NORMAL};
            for (size_t k = 3; k < i; k++)
                if (strcmp(texts[k], texts[i]) == 0) pieces[i].text = "zzzz"; // one score per text
        }
        Made m = made_open(file_of(pieces, n, false, false));
        REQUIRE(m.tok);
        for (int k = 0; k < 20; k++) {
            char text[80] = "";
            for (uint32_t left = random_next(&seed) % 70; left; left--)
                strcat(text, (const char *const[]){"a", "b", "c", "d"}[random_next(&seed) % 4]);
            TokIds ids = {0}, expected = {0};
            tok_encode(m.tok, text, strlen(text), 0, &ids);
            naive_encode(pieces, n, text, &expected);
            CHECK(ids.n == expected.n &&
                      (ids.n == 0 || memcmp(ids.data, expected.data, ids.n * sizeof *ids.data) == 0),
                  "round %d: '%s' %s", round, text, encoded(m.tok, text, strlen(text), 0));
            tok_ids_free(&ids);
            tok_ids_free(&expected);
        }
        made_close(&m);
    }
}

TEST(unigram_work_grows_with_the_length_of_the_text) {
    Made m = made_open(file_of(SMALL, N_SMALL, true, false));
    REQUIRE(m.tok);
    static const char *const units[] = {"a", "b", "ab", " ", "z"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t work[2];
        for (int k = 0; k < 2; k++) {
            Buf text = {0};
            while (text.n < (k ? 3000000u : 30000u)) buf_add(&text, units[i], strlen(units[i]));
            TokIds ids = {0};
            TokJob job = {.tok = m.tok, .out = &ids};
            unigram_encode(&job, text.data, text.n, false);
            work[k] = job.work;
            tok_job_free(&job);
            tok_ids_free(&ids);
            buf_free(&text);
        }
        CHECK(work[1] < 110 * work[0], "'%s': %zu and %zu", units[i], work[0], work[1]);
    }
    made_close(&m);
}

/* 300,000 tokens with the text of each character of the text: stepping over them took seconds. */
TEST(unigram_bears_tokens_with_equal_texts) {
    enum { N = 300000, LENGTH = 5000 };
    Piece *pieces = mem_new(N, sizeof *pieces);
    for (int i = 0; i < N; i++) pieces[i] = (Piece){"a", -1, NORMAL};
    pieces[0] = (Piece){"<unk>", 0, UNKNOWN};
    Made m = made_open(file_of(pieces, N, false, false));
    free(pieces);
    REQUIRE(m.tok);
    char text[LENGTH];
    memset(text, 'a', LENGTH);
    TokIds ids = {0};
    clock_t begin = clock();
    tok_encode(m.tok, text, LENGTH, 0, &ids);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    CHECK(ids.n == LENGTH && ids.data[0] == 1 && seconds < 0.5, "%zu ids in %.1f s", ids.n, seconds);
    tok_ids_free(&ids);
    made_close(&m);
}

TEST(unigram_survives_mutated_metadata) {
    static const char *const pairs[][2] = {{"a", "b"}, {"h", "ab"}};
    Buf map = map_of(pairs, 2), file = file_of(SMALL, N_SMALL, true, true);
    check_mutations(&file, 500);
    buf_free(&file);
    buf_free(&map);
}
