/* Tests of src/text: ids equal to llama.cpp's for every vocabulary at hand, hostile vocabularies, and
 * properties of all vocabularies: the encoder against a naive one, work against length, streaming against
 * whole decoding. */
#include "check.h"
#include "tok_rig.h"
#include "../../src/base/mem.h"

#include <jansson.h>
#include <stdlib.h>
#include <time.h>

/* ---- against llama.cpp ---- */

TEST(tok_encodes_the_texts_of_the_golden_models) {
    check_models("test/data/models/*-*.json", 32);
}

TEST(tok_encodes_the_prompts_of_the_demo_model) {
    json_t *root = load("test/data/models/stories.golden.json"), *c;
    Vocab v;
    REQUIRE(root && vocab_open("models/stories-q8_0.gguf", NULL, &v));
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const json_t *prompt = json_object_get(c, "prompt");
        TokIds ids = {0};
        tok_encode(v.tok, json_string_value(prompt), json_string_length(prompt),
                   TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, &ids);
        check_ids(json_string_value(prompt), &ids, json_object_get(c, "ids"), 0);
        tok_ids_free(&ids);
    }
    CHECK(i == 18);
    for (int id = 0; id < tok_n_vocab(v.tok); id++) {
        bool expected = false;
        json_t *eog;
        json_array_foreach(json_object_get(root, "eog"), i, eog) expected |= json_integer_value(eog) == id;
        CHECK(tok_is_eog(v.tok, id) == expected, "token %d", id);
    }
    check_round_trip(v.tok);
    vocab_close(&v);
    json_decref(root);
}

TEST(tok_streams_the_answers_of_the_demo_model) {
    json_t *root = load("test/data/models/stories.golden.json"), *c, *id;
    Vocab v;
    REQUIRE(root && vocab_open("models/stories-q8_0.gguf", NULL, &v));
    size_t i, k;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        TokStream stream = {.tok = v.tok};
        Buf text = {0};
        json_array_foreach(json_object_get(c, "greedy"), k, id)
            tok_stream_push(&stream, (int)json_integer_value(id), &text);
        tok_stream_end(&stream, &text);
        const char *expected = json_string_value(json_object_get(c, "text"));
        CHECK(text.data && strcmp(text.data, expected) == 0, "'%s', not '%s'", text.data, expected);
        buf_free(&text);
    }
    vocab_close(&v);
    json_decref(root);
}

TEST(tok_agrees_over_the_llama_2_vocabulary) {
    check_shared("llama-spm", 290, 82);
}
TEST(tok_agrees_over_the_phi_3_vocabulary) {
    check_shared("phi-3", 290, 82);
}
TEST(tok_agrees_on_the_lines_of_llama_2) {
    check_lines("ggml-vocab-llama-spm.gguf");
}
TEST(tok_agrees_on_the_lines_of_phi_3) {
    check_lines("ggml-vocab-phi-3.gguf");
}

/* ---- the rules, one by one ---- */

static Made made_of(const Piece *pieces, size_t n) {
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "llama", pieces, n);
    return made_open(file);
}

static const Piece SMALL[] = {
    {"<unk>", 0, UNKNOWN},   {"<s>", 0, CONTROL}, {"</s>", 0, CONTROL},   {"<|x|>", 0, CONTROL},
    {"<|x|>>", 0, CONTROL},  {"\n\n", 0, USER},   {"\n", -9, NORMAL},     {"\u2581", -9, NORMAL},
    {"a", -9, NORMAL},       {"b", -9, NORMAL},   {"ab", -2, NORMAL},     {"\u2581a", -3, NORMAL},
    {"bb", -1, NORMAL},      {"<", -9, NORMAL},   {"s", -9, NORMAL},      {">", -9, NORMAL},
    {"<s", -1, NORMAL},      {"<0xC3>", 0, BYTE}, {"<0xA9>", 0, BYTE},    {"|", -9, NORMAL},
    {"<|im_end|>", 0, USER}, {"x", -9, NORMAL},   {"xx", -1, TOK_UNUSED}, {"aa", -5, NORMAL},
    {"<0xEF>", 0, BYTE},     {"<0xBF>", 0, BYTE}, {"<0xBD>", 0, BYTE},
};
enum { N_SMALL = sizeof SMALL / sizeof *SMALL };

TEST(tok_merges_by_score_then_leftmost) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "abb", 0, "11 12"); // bb before ab; then the space and a
    CHECK_ENCODES(m.tok, "ab", 0, "7 10");   // ab before the space and a
    CHECK_ENCODES(m.tok, "baaa", 0, "7 9 23 8");
    CHECK_ENCODES(m.tok, "", 0, "");
    made_close(&m);
}

TEST(tok_takes_special_tokens_out_first) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "<|x|>a<|x|>>b", TOK_PARSE_SPECIAL, "3 11 4 7 9");
    CHECK_ENCODES(m.tok, "a\n\n\nb", 0, "11 5 7 6 9"); // user-defined: always
    CHECK_ENCODES(m.tok, "a<s>", TOK_PARSE_SPECIAL, "11 1");
    CHECK_ENCODES(m.tok, "a<s>", 0, "11 16 15"); // <s and > must not become BOS
    CHECK_ENCODES(m.tok, "<|x|", TOK_PARSE_SPECIAL, "7 13 19 21 19");
    made_close(&m);
}

TEST(tok_adds_bos_once) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    CHECK(tok_adds_bos(m.tok) && tok_bos(m.tok) == 1 && tok_eos(m.tok) == 2 && tok_unknown(m.tok) == 0);
    CHECK_ENCODES(m.tok, "", TOK_ADD_SPECIAL, "1");
    CHECK_ENCODES(m.tok, "a", TOK_ADD_SPECIAL, "1 11");
    CHECK_ENCODES(m.tok, "<s>a", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, "1 11");
    CHECK_ENCODES(m.tok, "<s>", TOK_ADD_SPECIAL, "1 7 16 15"); // not parsed: plain text
    made_close(&m);
}

TEST(tok_obeys_the_flags_of_the_file) {
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "llama", SMALL, N_SMALL);
    file_bool(&file, "tokenizer.ggml.add_bos_token", false);
    file_bool(&file, "tokenizer.ggml.add_eos_token", true);
    file_bool(&file, "tokenizer.ggml.add_space_prefix", false);
    file_u32(&file, "tokenizer.ggml.eos_token_id", 3);
    file_u32(&file, "tokenizer.ggml.eot_token_id", 8);
    file_u32(&file, "tokenizer.ggml.eom_token_id", 9);
    Made m = made_open(file);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "ab", TOK_ADD_SPECIAL, "10 3");
    CHECK(!tok_adds_bos(m.tok) && tok_is_eog(m.tok, 3) && !tok_is_eog(m.tok, 2));
    CHECK(tok_is_eog(m.tok, 8) && tok_is_eog(m.tok, 9) && !tok_is_eog(m.tok, 10));
    Buf text = {0};
    tok_decode(m.tok, (int32_t[]){11, 3}, 2, TOK_REMOVE_SPECIAL | TOK_UNPARSE_SPECIAL, &text);
    CHECK(text.data && strcmp(text.data, " a") == 0, "'%s'", text.data); // no prefix, so no space is removed
    buf_free(&text);
    made_close(&m);
}

TEST(tok_knows_what_ends_a_turn) {
    const Piece pieces[] = {{"<unk>", 0, UNKNOWN},     {"<s>", 0, CONTROL},     {"<eos>", 0, CONTROL},
                            {"</s>", 0, USER},         {"<|im_end|>", 0, USER}, {"<|end|>", 0, NORMAL},
                            {"<|eot_id|>", 0, CONTROL}};
    Made m = made_of(pieces, 7);
    REQUIRE(m.tok);
    static const bool expected[] = {false, false, true, false, true, false, true};
    for (int id = 0; id < 7; id++) CHECK(tok_is_eog(m.tok, id) == expected[id], "token %d", id);
    CHECK(tok_type(m.tok, 4) == TOK_CONTROL &&
          tok_type(m.tok, 3) == TOK_CONTROL); // text may not contain them
    CHECK(!tok_is_eog(m.tok, -1) && !tok_is_eog(m.tok, 7) && tok_type(m.tok, 7) == TOK_UNDEFINED);
    made_close(&m);

    const Piece harmony[] = {{"<|end|>", 0, CONTROL}, {"<|return|>", 0, CONTROL}, {"<|call|>", 0, CONTROL}};
    m = made_of(harmony, 3);
    REQUIRE(m.tok);
    CHECK(!tok_is_eog(m.tok, 0) && tok_is_eog(m.tok, 1) && tok_is_eog(m.tok, 2));
    made_close(&m);
}

TEST(tok_hides_control_tokens_unless_asked) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    const int32_t ids[] = {1, 11, 3, 20, 22, 5, 99, -1, 2};
    Buf text = {0};
    tok_decode(m.tok, ids, 9, 0, &text); // the first token removes the leading space
    CHECK(strcmp(text.data, " a\n\n") == 0, "'%s'", text.data);
    buf_clear(&text);
    tok_decode(m.tok, ids, 9, TOK_UNPARSE_SPECIAL, &text);
    CHECK(strcmp(text.data, "<s> a<|x|><|im_end|>\n\n</s>") == 0, "'%s'", text.data);
    buf_clear(&text);
    tok_decode(m.tok, ids, 9, TOK_REMOVE_SPECIAL | TOK_UNPARSE_SPECIAL,
               &text); // as llama.cpp: the space stays
    CHECK(strcmp(text.data, " a<|x|><|im_end|>\n\n</s>") == 0, "'%s'", text.data);
    buf_clear(&text);
    tok_decode(m.tok, ids + 1, 8, 0, &text);
    CHECK(strcmp(text.data, "a\n\n") == 0, "'%s'", text.data);
    buf_free(&text);
    made_close(&m);
}

TEST(tok_spells_unknown_characters) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "a\u00E9a", 0, "11 17 18 8"); // both bytes have tokens
    CHECK_ENCODES(m.tok, "a\u00C9a", 0, "11 0 8");     // C3 has, 89 has not: one unknown token
    CHECK_ENCODES(m.tok, "a\0b", 0, "11 0 9");         // a NUL is a character
    made_close(&m);

    const Piece bare[] = {{"a", 0, NORMAL}, {"b", 0, NORMAL}};
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "llama", bare, 2);
    file_u32(&file, "tokenizer.ggml.unknown_token_id", 7); // warned about, then none
    m = made_open(file);
    REQUIRE(m.tok);
    CHECK(tok_unknown(m.tok) == -1 && tok_bos(m.tok) == 1 && tok_eos(m.tok) == -1);
    CHECK_ENCODES(m.tok, "a\u00E9b", 0,
                  "0 1"); // no token for the space and the e: left out, with a warning
    made_close(&m);
}

TEST(tok_repairs_text_that_is_not_utf8) {
    Made m = made_of(SMALL, N_SMALL);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "a\xFF", 0, "11 24 25 26"); // EF BF BD
    CHECK_ENCODES(m.tok, "\xC3", 0, "7 24 25 26");
    CHECK_ENCODES(m.tok, "\xED\xA0\x80", 0, "7 24 25 26 24 25 26 24 25 26");
    made_close(&m);
}

TEST(tok_survives_duplicate_and_empty_tokens) {
    const Piece pieces[] = {{"<unk>", 0, UNKNOWN}, {"<s>", 0, CONTROL}, {"a", -1, NORMAL},
                            {"a", -1, NORMAL},     {"", 0, NORMAL},     {"", 0, CONTROL},
                            {"", 0, USER},         {"<s>", 0, CONTROL}};
    Made m = made_of(pieces, 8);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "a<s>a", TOK_PARSE_SPECIAL, "0 2 1 0 2"); // the lower id; 0 for the space
    Buf text = {0};
    tok_decode(m.tok, (int32_t[]){3, 4, 5, 6, 7}, 5, TOK_UNPARSE_SPECIAL, &text);
    CHECK(strcmp(text.data, "a<s>") == 0);
    buf_free(&text);
    made_close(&m);
}

/* A text of several types is each of them: the control token where they are read, else the user-defined
 * one. */
TEST(tok_keeps_equal_texts_of_different_types) {
    const Piece pieces[] = {{"<unk>", 0, UNKNOWN}, {"\u2581", -1, NORMAL}, {"a", -1, NORMAL},
                            {"<x>", 0, CONTROL},   {"<x>", 0, CONTROL},    {"<x>", 0, USER},
                            {"<x>", 0, USER}};
    Made m = made_of(pieces, 7);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "<x>", TOK_PARSE_SPECIAL, "3");
    CHECK_ENCODES(m.tok, "<x>", 0, "5");
    made_close(&m);
}

/* ---- lists and tables ---- */

/* All prefixes of random texts of two letters, against a comparison with every text of the list. */
TEST(tok_walk_finds_all_prefixes) {
    uint32_t seed = 11;
    for (int round = 0; round < 300; round++) {
        char texts[30][12];
        Piece pieces[30];
        size_t n = 1 + random_next(&seed) % 30;
        for (size_t i = 0; i < n; i++) {
            size_t length = 1 + random_next(&seed) % 10;
            for (size_t k = 0; k < length; k++) texts[i][k] = (char)('a' + random_next(&seed) % 2);
            texts[i][length] = 0;
            pieces[i] = (Piece){texts[i], 0, i % 2 ? CONTROL : USER};
        }
        Made m = made_of(pieces, n);
        REQUIRE(m.tok);
        char text[14] = "";
        for (size_t i = random_next(&seed) % 13; i; i--) strcat(text, random_next(&seed) % 2 ? "a" : "b");
        TokWalk walk = tok_walk(&m.tok->specials);
        size_t n_found = 0, n_wanted = 0, before = 0;
        for (; tok_walk_next(&walk, text, strlen(text)); n_found++, before = walk.found->n)
            CHECK(walk.found->n >= before && strncmp(walk.found->text, text, walk.found->n) == 0, "'%s'",
                  text);
        for (size_t i = 0; i < n; i++) {
            bool repeats = false; // a text of the same type with a lower id
            for (size_t k = i % 2; k < i; k += 2) repeats |= strcmp(texts[k], texts[i]) == 0;
            n_wanted += !repeats && strncmp(texts[i], text, strlen(texts[i])) == 0;
        }
        CHECK(n_found == n_wanted, "'%s': %zu, not %zu", text, n_found, n_wanted);
        made_close(&m);
    }
}

/* Two tokens of 20,000 letters that a run of letters almost spells: stepping along them took seconds. */
TEST(tok_bears_long_tokens) {
    enum { TOKEN = 20000, TEXT = 60000 };
    char *tokens[2], *text = mem_new(TEXT + 1, 1);
    for (int i = 0; i < 2; i++) {
        tokens[i] = mem_new(TOKEN + 2, 1);
        memset(tokens[i], 'a', TOKEN);
        tokens[i][TOKEN] = (char)('b' + i);
    }
    memset(text, 'a', TEXT);
    const Piece pieces[] = {
        {"<unk>", 0, UNKNOWN}, {"a", 0, NORMAL}, {tokens[0], 0, CONTROL}, {tokens[1], 0, USER}};
    Made m = made_of(pieces, 4);
    REQUIRE(m.tok);
    TokIds ids = {0};
    clock_t begin = clock();
    tok_encode(m.tok, text, TEXT, TOK_PARSE_SPECIAL, &ids);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    CHECK(ids.n == TEXT + 1 && seconds < 2, "%zu ids in %.1f s", ids.n, seconds);
    tok_ids_free(&ids);
    made_close(&m);
    for (int i = 0; i < 2; i++) free(tokens[i]);
    free(text);
}

typedef struct Item {
    int key, order;
} Item;

static int compare_items(const void *a, const void *b) {
    const Item *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

/* All hashes equal: linear probing would take 2e11 steps. */
TEST(tok_table_finds_items_that_share_a_bucket) {
    enum { N = 500000 };
    Item *items = mem_new(N, sizeof *items);
    uint32_t *hashes = mem_new(N, sizeof *hashes);
    for (int i = 0; i < N; i++) items[i] = (Item){(int)((uint64_t)i * 7919 % N) / 2 * 2, i};
    TokTable t;
    clock_t begin = clock();
    tok_table_make(&t, items, N, sizeof *items, hashes, compare_items);
    for (int key = 0; key < N; key++) {
        const Item *found = tok_table_find(&t, 0, &(Item){key, -1});
        bool is_there = found && found->key == key, is_even = key % 2 == 0;
        CHECK(is_there == is_even, "%d", key);
        if (is_there && found + 1 < (const Item *)t.items + N && found[1].key == key)
            CHECK(found->order < found[1].order, "%d", key);
    }
    CHECK(!tok_table_find(&t, 1, &(Item){0, -1}));
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    CHECK(seconds < 10, "%.1f s", seconds);
    tok_table_free(&t);
    free(hashes);
}

/* ---- properties of all vocabularies ---- */

/* Without special tokens; returns the steps taken. */
static size_t plain_encode(const Tok *t, const char *text, size_t n, bool space_first, TokIds *ids) {
    TokJob job = {.tok = t, .out = ids};
    if (n) spm_encode(&job, text, n, space_first);
    tok_job_free(&job);
    return job.work;
}

/* The definition, in quadratic time over the whole text: merges the best union of two neighbours until there
 * is none. */
static void naive_encode(const Tok *t, const char *text, size_t n, TokIds *out) {
    size_t *ends = mem_new(n + 1, sizeof *ends), count = 0, at = 0;
    uint32_t c;
    while (at < n) {
        at += utf8_next(text + at, n - at, &c);
        ends[count++] = at;
    }
    for (;;) {
        size_t best = count;
        float best_score = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            size_t start = i ? ends[i - 1] : 0;
            int id = tok_find(t, text + start, ends[i + 1] - start);
            if (id < 0 || (best < count && t->entries[id].score <= best_score)) continue;
            best = i;
            best_score = t->entries[id].score;
        }
        if (best == count) break;
        memmove(&ends[best], &ends[best + 1], (--count - best) * sizeof *ends);
    }
    for (size_t i = 0; i < count; i++) {
        size_t start = i ? ends[i - 1] : 0;
        int id = tok_find(t, text + start, ends[i] - start);
        tok_ids_add(out, id < 0 ? t->unknown : id);
    }
    free(ends);
}

TEST(tok_equals_the_naive_encoder) {
    static const char *const letters[] = {"a", "b", "c", "\u00E9", "\u2581", "\U0001F600"};
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        char texts[40][32];
        Piece pieces[40];
        size_t n = 10 + random_next(&seed) % 30;
        for (size_t i = 0; i < n; i++) {
            texts[i][0] = 0;
            for (uint32_t k = 1 + (i ? random_next(&seed) % 4 : 0); k; k--)
                strcat(texts[i], letters[random_next(&seed) % 6]);
            pieces[i] = (Piece){texts[i], -(float)(random_next(&seed) % 6), NORMAL};
        }
        Made m = made_of(pieces, n);
        REQUIRE(m.tok);
        for (int k = 0; k < 20; k++) {
            Buf text = {0};
            for (uint32_t left = random_next(&seed) % 40; left; left--) {
                const char *letter = letters[random_next(&seed) % 6];
                buf_add(&text, letter, strlen(letter));
            }
            TokIds ids = {0}, expected = {0};
            plain_encode(m.tok, text.data, text.n, false, &ids);
            naive_encode(m.tok, text.data, text.n, &expected);
            CHECK(ids.n == expected.n &&
                      (ids.n == 0 || memcmp(ids.data, expected.data, ids.n * sizeof *ids.data) == 0),
                  "round %d: '%s'", round, text.data);
            tok_ids_free(&ids);
            tok_ids_free(&expected);
            buf_free(&text);
        }
        made_close(&m);
    }
}

static size_t plain_work(const Tok *t, const char *text, size_t n) {
    TokIds ids = {0};
    size_t work = plain_encode(t, text, n, true, &ids);
    tok_ids_free(&ids);
    return work;
}

/* A text of n bytes costs O(n log n) steps, also where no cut is possible. */
TEST(tok_work_grows_with_the_length_of_the_text) {
    Vocab v;
    REQUIRE(vocab_open("models/stories-q8_0.gguf", NULL, &v));
    Piece runs[22]; // a, aa, aaaa, ... and the same of spaces: all symbols merge
    char texts[22][3 * 1024 + 1];
    for (int i = 0; i < 22; i++) {
        texts[i][0] = 0;
        for (int k = 0; k < 1 << i / 2; k++) strcat(texts[i], i % 2 ? "\u2581" : "a");
        runs[i] = (Piece){texts[i], (float)-i, NORMAL};
    }
    Made m = made_of(runs, 22);
    REQUIRE(m.tok);
    static const char *const units[] = {"a", " ", "\n", "Once upon a time ", "aaaaaaa ", "\u00E9"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const Tok *toks[] = {v.tok, m.tok};
        for (int k = 0; k < 2; k++) check_work(toks[k], plain_work, units[i], 200);
    }
    made_close(&m);
    vocab_close(&v);
}

/* Words are encoded one by one, so that a hundred times the text is no more than a hundred times the work. */
TEST(tok_cuts_text_into_words) {
    Vocab v;
    REQUIRE(vocab_open("models/stories-q8_0.gguf", NULL, &v));
    const char *prose = "Once upon a time, a fox lived by the sea. ";
    size_t small = work_for(v.tok, plain_work, prose, 4000),
           large = work_for(v.tok, plain_work, prose, 400000);
    CHECK(large < 101 * small, "%zu steps for 4000 bytes, %zu for 400000", small, large);
    vocab_close(&v);
}

/* A text without a possible cut is cut after 2^20 characters: here "b" and an odd number of "a", then one
 * more "a", which would be merged without the cut. */
TEST(tok_cuts_a_run_that_does_not_end) {
    const Piece pieces[] = {{"a", -1, NORMAL}, {"aa", -1, NORMAL}, {"b", -1, NORMAL}, {"ba", -2, NORMAL}};
    Made m = made_of(pieces, 4);
    REQUIRE(m.tok);
    size_t n = (1 << 20) + 1;
    char *text = mem_new(n, 1);
    memset(text, 'a', n);
    text[0] = 'b';
    TokIds ids = {0};
    plain_encode(m.tok, text, n, false, &ids);
    CHECK(ids.n == (1 << 19) + 2, "%zu ids", ids.n);
    tok_ids_free(&ids);
    free(text);
    made_close(&m);
}

TEST(tok_streams_whole_characters_only) {
    Vocab v;
    REQUIRE(vocab_open("models/stories-q8_0.gguf", NULL, &v));
    const char *text = "h\u00E9llo \u65E5\u672C\u8A9E \U0001F600!";
    TokIds ids = {0};
    tok_encode(v.tok, text, strlen(text), 0, &ids);
    TokStream stream = {.tok = v.tok};
    Buf streamed = {0}, whole = {0};
    for (size_t i = 0; i < ids.n; i++) {
        tok_stream_push(&stream, ids.data[i], &streamed);
        CHECK(utf8_is_valid(streamed.data ? streamed.data : "", streamed.n), "after %zu tokens", i);
    }
    tok_stream_end(&stream, &streamed);
    tok_decode(v.tok, ids.data, ids.n, 0, &whole);
    CHECK(strcmp(whole.data, text) == 0, "'%s'", whole.data);
    CHECK(streamed.data[0] == ' ' && strcmp(streamed.data + 1, text) == 0, "'%s'", streamed.data);

    const int first_byte = v.tok->byte_ids[0]; // <0x00>; the others follow
    buf_clear(&streamed);
    tok_stream_push(&stream, first_byte + 0xF0, &streamed);
    tok_stream_push(&stream, first_byte + 0x9F, &streamed);
    CHECK(streamed.n == 0);
    tok_stream_push(&stream, first_byte + 'A', &streamed); // cannot complete the character
    CHECK(strcmp(streamed.data, "\uFFFDA") == 0, "'%s'", streamed.data);
    tok_stream_push(&stream, first_byte + 0xE2, &streamed);
    tok_stream_end(&stream, &streamed);
    CHECK(strcmp(streamed.data, "\uFFFDA\uFFFD") == 0, "'%s'", streamed.data);
    buf_free(&streamed);
    buf_free(&whole);
    tok_ids_free(&ids);
    vocab_close(&v);
}

TEST(utf8_takes_what_unicode_allows) {
    static const struct {
        const char *bytes;
        size_t length;
        uint32_t code_point;
    } cases[] = {
        {"A", 1, 'A'},
        {"\xC2\x80", 2, 0x80},
        {"\xDF\xBF", 2, 0x7FF},
        {"\xE0\xA0\x80", 3, 0x800},
        {"\xED\x9F\xBF", 3, 0xD7FF},
        {"\xEE\x80\x80", 3, 0xE000},
        {"\xF0\x90\x80\x80", 4, 0x10000},
        {"\xF4\x8F\xBF\xBF", 4, 0x10FFFF},
        {"\x80", 1, UTF8_BAD},
        {"\xC1\xBF", 1, UTF8_BAD},         // overlong
        {"\xE0\x9F\xBF", 1, UTF8_BAD},     // overlong
        {"\xED\xA0\x80", 1, UTF8_BAD},     // surrogate
        {"\xF0\x8F\xBF\xBF", 1, UTF8_BAD}, // overlong
        {"\xF4\x90\x80\x80", 1, UTF8_BAD}, // beyond U+10FFFF
        {"\xF5\x80\x80\x80", 1, UTF8_BAD},
        {"\xF0\x90\x80"
         "A",
         3, UTF8_BAD},
        {"\xE2\x96", 2, UTF8_CUT},
        {"\xF0", 1, UTF8_CUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t c;
        size_t length = utf8_next(cases[i].bytes, strlen(cases[i].bytes), &c);
        CHECK(length == cases[i].length && c == cases[i].code_point, "case %zu: %zu bytes, %x", i, length, c);
    }
}

/* ---- hostile files ---- */

TEST(tok_refuses_what_it_cannot_read) {
    Buf b = {0};
    file_begin(&b);
    file_string(&b, "general.architecture", "llama");
    CHECK_REFUSED(&b, "has no tokenizer");
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "bert");
    CHECK_REFUSED(&b, "tokenizer 'bert' is not supported (");
    file_begin(&b);
    file_u32(&b, "tokenizer.ggml.model", 5);
    CHECK_REFUSED(&b, "tokenizer.ggml.model");
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    CHECK_REFUSED(&b, "tokenizer.ggml.tokens holds 0");
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    file_array(&b, "tokenizer.ggml.tokens", STRING, 0);
    CHECK_REFUSED(&b, "tokenizer.ggml.tokens holds 0");
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    file_array(&b, "tokenizer.ggml.tokens", U32, 1);
    put(&b, 7, 4);
    CHECK_REFUSED(&b, "tokenizer.ggml.tokens");
}

/* A file of two tokens with n numbers in another table. */
static Buf file_with_table(const char *key, uint32_t type, size_t n) {
    Buf b = {0};
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    file_array(&b, "tokenizer.ggml.tokens", STRING, 2);
    put_string(&b, "a");
    put_string(&b, "b");
    file_array(&b, key, type, n);
    for (size_t i = 0; i < n; i++) put(&b, type == I32, 4);
    return b;
}

TEST(tok_refuses_tables_that_are_too_short) {
    for (size_t n = 0; n <= 1; n++) {
        Buf scores = file_with_table("tokenizer.ggml.scores", F32, n),
            types = file_with_table("tokenizer.ggml.token_type", I32, n);
        CHECK_REFUSED(&scores, "tokenizer.ggml.scores");
        CHECK_REFUSED(&types, "tokenizer.ggml.token_type");
    }
}

TEST(tok_takes_tables_that_are_too_long) {
    int saved = stderr_hide(); // the warnings
    Made scores = made_open(file_with_table("tokenizer.ggml.scores", F32, 3)),
         types = made_open(file_with_table("tokenizer.ggml.token_type", I32, 3));
    stderr_show(saved);
    REQUIRE(scores.tok && types.tok);
    CHECK(tok_n_vocab(scores.tok) == 2 && tok_n_vocab(types.tok) == 2 &&
          tok_type(types.tok, 1) == TOK_NORMAL);
    made_close(&scores);
    made_close(&types);
}

/* Some writers store floats as integers where all of them are whole numbers. */
TEST(tok_takes_scores_that_are_integers) {
    static const char *const texts[] = {"a", "b", "c", "ab", "bc"};
    const int32_t scores[] = {0, 0, 0, -2, -1};
    Buf b = {0};
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    file_array(&b, "tokenizer.ggml.tokens", STRING, 5);
    for (int i = 0; i < 5; i++) put_string(&b, texts[i]);
    file_array(&b, "tokenizer.ggml.scores", I32, 5);
    for (int i = 0; i < 5; i++) put(&b, (uint32_t)scores[i], 4);
    file_bool(&b, "tokenizer.ggml.add_space_prefix", false);
    Made m = made_open(b);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "abc", 0, "0 4"); // -1 against -2
    made_close(&m);
}

TEST(tok_refuses_impossible_tokens) {
    static const char *const texts[] = {"<0xZZ>", "<0x-1>", "<0x0a>", "<0x0A", "<0x0A>>", "", "a"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        Buf b = {0};
        file_begin(&b);
        file_pieces(&b, "llama", &(Piece){texts[i], 0, BYTE}, 1);
        CHECK_REFUSED(&b, "token 0 has the type of a byte");
    }
    for (int type = -1; type < 8; type += 8) {
        Buf b = {0};
        file_begin(&b);
        file_pieces(&b, "llama", &(Piece){"a", 0, type}, 1);
        CHECK_REFUSED(&b, "token 0 has the type");
    }
    char *text = mem_new((64 << 10) + 2, 1);
    memset(text, 'a', 64 << 10);
    Buf b = {0};
    file_begin(&b);
    file_pieces(&b, "llama", &(Piece){text, 0, NORMAL}, 1);
    Made m = made_open(b);
    CHECK(m.tok != NULL);
    made_close(&m);
    text[64 << 10] = 'a';
    b = (Buf){0};
    file_begin(&b);
    file_pieces(&b, "llama", &(Piece){text, 0, NORMAL}, 1);
    CHECK_REFUSED(&b, "has a text of 65537 bytes");
    free(text);
}

TEST(tok_reads_tables_without_scores_and_types) {
    Buf b = {0};
    file_begin(&b);
    file_string(&b, "tokenizer.ggml.model", "llama");
    file_array(&b, "tokenizer.ggml.tokens", STRING, 3);
    put_string(&b, "a");
    put_string(&b, "aa");
    put_string(&b, "<0x20>");
    file_bool(&b, "tokenizer.ggml.add_space_prefix", false);
    Made m = made_open(b);
    REQUIRE(m.tok);
    CHECK(tok_type(m.tok, 2) == TOK_BYTE);
    CHECK_ENCODES(m.tok, "aaa", 0, "1 0");
    made_close(&m);
}

TEST(tok_survives_mutated_metadata) {
    Buf b = {0};
    file_begin(&b);
    file_pieces(&b, "llama", SMALL, N_SMALL);
    file_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    file_u32(&b, "tokenizer.ggml.eot_token_id", 20);
    file_bool(&b, "tokenizer.ggml.add_eos_token", true);
    check_mutations(&b, 1000);
    buf_free(&b);
}

/* The tags of thinking are control tokens in some models; an answer shows them, other control tokens not. */
TEST(tok_streams_tags_of_thinking) {
    static const Piece PIECES[] = {{"<unk>", 0, UNKNOWN},    {"[THINK]", 0, CONTROL}, {"a", 0, NORMAL},
                                   {"[/THINK]", 0, CONTROL}, {"b", 0, NORMAL},        {"[INST]", 0, CONTROL}};
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "llama", PIECES, 6);
    Made m = made_open(file);
    REQUIRE(m.tok);
    for (int tags = 0; tags < 2; tags++) {
        TokStream stream = {.tok = m.tok, .tags = tags};
        Buf text = {0};
        for (int id = 1; id < 6; id++) tok_stream_push(&stream, id, &text);
        tok_stream_end(&stream, &text);
        CHECK(strcmp(text.data, tags ? "[THINK]a[/THINK]b" : "ab") == 0, "(%s)", text.data);
        buf_free(&text);
    }
    made_close(&m);
}
