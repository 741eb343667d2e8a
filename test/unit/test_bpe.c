/* Tests of byte pairs and of the pre-tokenizers: ids equal to llama.cpp's and to those of an independent
 * encoder (scripts/make_bpe.py), the rules of the file one by one, properties of all vocabularies, hostile
 * lists of merges, and texts that take quadratic time by a careless pattern. */
#include "check.h"
#include "tok_rig.h"
#include "../../src/base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define OWN "test/data/tokenizer/bpe-1000"

/* ---- against other encoders ---- */

TEST(bpe_agrees_over_the_gpt_2_vocabulary) {
    check_shared("gpt-2", 290, 80);
}
TEST(bpe_agrees_on_the_lines_of_gpt_2) {
    check_lines("ggml-vocab-gpt-2.gguf");
}
TEST(pretok_agrees_as_llama_bpe) {
    check_shared("gpt-2.pre-llama-bpe", 290, 0);
}
TEST(pretok_agrees_as_qwen2) {
    check_shared("gpt-2.pre-qwen2", 290, 0);
}
TEST(pretok_agrees_as_qwen35) {
    check_shared("gpt-2.pre-qwen35", 290, 0);
}
TEST(pretok_agrees_as_tekken) {
    check_shared("gpt-2.pre-tekken", 290, 0);
}
TEST(pretok_agrees_as_gpt_4o) {
    check_shared("gpt-2.pre-gpt-4o", 290, 0);
}
TEST(pretok_agrees_as_deepseek_v3) {
    check_shared("gpt-2.pre-deepseek-v3", 290, 0);
}
TEST(pretok_agrees_as_deepseek_llm) {
    check_shared("gpt-2.pre-deepseek-llm", 290, 0);
}
TEST(pretok_agrees_as_deepseek_coder) {
    check_shared("gpt-2.pre-deepseek-coder", 290, 0);
}
TEST(pretok_agrees_as_smollm) {
    check_shared("gpt-2.pre-smollm", 290, 0);
}
TEST(pretok_agrees_as_falcon) {
    check_shared("gpt-2.pre-falcon", 290, 0);
}
TEST(pretok_agrees_as_starcoder) {
    check_shared("gpt-2.pre-starcoder", 290, 0);
}
TEST(pretok_agrees_as_command_r) {
    check_shared("gpt-2.pre-command-r", 290, 0);
}
/* The ids are those of Hugging Face's tokenizers. */
TEST(bpe_composes_texts_where_the_makers_do) {
    if (access(SHARED "ggml-vocab-gpt-2.gguf", R_OK) != 0) SKIP("no " SHARED);
    static const char *const names[] = {"qwen2", "qwen35", "gpt-neox", "command-r"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Vocab v;
        REQUIRE(vocab_open(SHARED "ggml-vocab-gpt-2.gguf", names[i], &v));
        CHECK_ENCODES(v.tok, "cafe\u0301 re\u0301sume\u0301", 0, "66 1878 2634 40560 16345 2634");
        vocab_close(&v);
    }
}
TEST(tok_encodes_the_texts_of_all_golden_models) {
    check_models("../shared/golden/models/*.json", 96);
}

TEST(bpe_agrees_with_the_encoder_of_make_bpe) {
    json_t *root = load(OWN ".json"), *c;
    Vocab v;
    REQUIRE(root && vocab_open(OWN ".gguf", NULL, &v));
    size_t i;
    json_array_foreach(json_object_get(root, "tokenize"), i, c) check_tokenize(v.tok, c);
    CHECK(i > 100, "%zu cases", i);
    check_round_trip(v.tok);
    CHECK(strcmp(tok_model(v.tok), "gpt2") == 0 && strcmp(tok_describe(v.tok), "byte-level BPE") == 0);
    vocab_close(&v);
    json_decref(root);
}

/* The alphabet by its definition: printable bytes are the characters of Latin-1, the others follow from
 * U+0100 on. */
TEST(bpe_pieces_are_the_bytes_of_their_characters) {
    uint32_t characters[256], next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool prints = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        characters[b] = prints ? (uint32_t)b : next++;
    }
    Vocab v;
    REQUIRE(vocab_open(OWN ".gguf", NULL, &v));
    Buf piece = {0};
    for (int id = 0; id < tok_n_vocab(v.tok); id++) {
        if (tok_type(v.tok, id) != TOK_NORMAL) continue;
        GgufString text = tok_text(v.tok, id);
        buf_clear(&piece);
        tok_piece(v.tok, id, false, &piece);
        size_t n = 0;
        for (size_t i = 0; i < text.n; n++) {
            uint32_t c;
            i += utf8_next(text.data + i, text.n - i, &c);
            CHECK(n < piece.n && characters[(unsigned char)piece.data[n]] == c, "token %d", id);
        }
        CHECK(n == piece.n, "token %d", id);
    }
    buf_free(&piece);
    vocab_close(&v);
}

/* ---- vocabularies made in memory ---- */

typedef struct Rules {
    const char *model, *pre; // pre may be NULL
    const Piece *pieces;
    size_t n_pieces;
    const char *const *merges;
    size_t n_merges;
} Rules;

static Buf file_of(Rules r) {
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, r.model, r.pieces, r.n_pieces);
    if (r.pre) file_string(&file, "tokenizer.ggml.pre", r.pre);
    file_strings(&file, "tokenizer.ggml.merges", r.merges, r.n_merges);
    return file;
}

static const Piece SMALL[] = {
    {"a", 0, NORMAL},       {"b", 0, NORMAL},
    {"c", 0, NORMAL},       {"\u0120", 0, NORMAL},
    {"\u010A", 0, NORMAL},  {"ab", 0, NORMAL},
    {"bc", 0, NORMAL},      {"abc", 0, NORMAL},
    {"\u0120a", 0, NORMAL}, {"<s>", 0, CONTROL},
    {"</s>", 0, CONTROL},   {"<sep>", 0, CONTROL},
    {"  ", 0, USER},        {"\u010A\u010A", 0, NORMAL},
    {"?", 0, NORMAL},       {"\u0120?", 0, NORMAL},
    {"<unk>", 0, UNKNOWN},  {"aa", 0, NORMAL},
    {"'", 0, NORMAL},       {"s", 0, NORMAL},
};
static const char *const MERGES[] = {"b c", "a b", "\u0120 a", "a bc", "\u010A \u010A", "\u0120 ?"};
enum { N_SMALL = sizeof SMALL / sizeof *SMALL, N_MERGES = sizeof MERGES / sizeof *MERGES };
static const Rules PLAIN = {"gpt2", "gpt-2", SMALL, N_SMALL, MERGES, N_MERGES};

static Made made_as(const char *pre) {
    Rules r = PLAIN;
    r.pre = pre;
    Buf file = file_of(r);
    file_u32(&file, "tokenizer.ggml.bos_token_id", 9);
    file_u32(&file, "tokenizer.ggml.eos_token_id", 10);
    file_u32(&file, "tokenizer.ggml.seperator_token_id", 11);
    return made_open(file);
}

TEST(bpe_merges_by_rank_then_leftmost) {
    Made m = made_as("gpt-2");
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "abc", 0, "7"); // b c first, then a bc
    CHECK_ENCODES(m.tok, "aabc", 0, "0 7");
    CHECK_ENCODES(m.tok, "abab", 0, "5 5");
    CHECK_ENCODES(m.tok, " abc a", 0, "8 6 8"); // the space comes before a bc
    CHECK_ENCODES(m.tok, "a  b", 0, "0 12 1");  // user-defined: before everything
    CHECK_ENCODES(m.tok, "", TOK_ADD_SPECIAL, "");
    CHECK(tok_unknown(m.tok) == -1 && !tok_adds_bos(m.tok));
    made_close(&m);
}

TEST(bpe_follows_what_the_pre_tokenizer_implies) {
    Made m = made_as("llama-bpe"); // adds BOS, takes whole words
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "aa", TOK_ADD_SPECIAL, "9 17");
    CHECK_ENCODES(m.tok, "<s>aa", TOK_ADD_SPECIAL | TOK_PARSE_SPECIAL, "9 17");
    made_close(&m);
    m = made_as("gpt-2");
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "aa", TOK_ADD_SPECIAL, "0 0");
    made_close(&m);
}

TEST(bpe_obeys_the_keys_of_the_file) {
    Rules r = PLAIN;
    r.pre = "llama-bpe";
    Buf file = file_of(r);
    file_u32(&file, "tokenizer.ggml.bos_token_id", 9);
    file_u32(&file, "tokenizer.ggml.eos_token_id", 10);
    file_u32(&file, "tokenizer.ggml.seperator_token_id", 11);
    file_bool(&file, "tokenizer.ggml.add_bos_token", false);
    file_bool(&file, "tokenizer.ggml.add_eos_token", true);
    file_bool(&file, "tokenizer.ggml.add_sep_token", true);
    Made m = made_open(file);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "a", TOK_ADD_SPECIAL, "0 11 10");
    CHECK_ENCODES(m.tok, "a", 0, "0");
    made_close(&m);
}

static void check_decodes(const char *pre, int flags, const char *expected) {
    const int32_t ids[] = {0, 15, 3, 18, 3, 0, 3, 18, 19}; // a ?| |'| |a| |'|s
    Made m = made_as(pre);
    REQUIRE(m.tok);
    Buf text = {0};
    tok_decode(m.tok, ids, 9, flags, &text);
    CHECK(strcmp(text.data, expected) == 0, "(%s): '%s'", pre, text.data);
    buf_free(&text);
    made_close(&m);
}

TEST(bpe_cleans_spaces_where_it_is_asked_and_the_family_does) {
    check_decodes("gpt-2", 0, "a ? ' a 's");
    check_decodes("gpt-2", TOK_CLEAN_SPACES, "a?'a's");
    check_decodes("qwen2", TOK_CLEAN_SPACES, "a ? ' a 's");
}

TEST(bpe_composes_before_it_cuts) {
    static const Piece pieces[] =
        {{"e", 0, NORMAL},           {"\u00CC", 0, NORMAL}, {"\u0123", 0, NORMAL},
         {"\u00C3", 0, NORMAL},      {"\u00A9", 0, NORMAL}, {"\u00C3\u00A9", 0, NORMAL},
         {"\u00CC\u0123", 0, NORMAL}}; // e, the bytes of U+0301 and U+00E9, and both whole
    static const char *const merges[] = {"\u00C3 \u00A9", "\u00CC \u0123"};
    static const char *const names[] = {
        "qwen2", "deepseek-r1-qwen", "stablelm2", "qwen35", "gpt-neox", "olmo", "mpt", "command-r"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        Made m = made_open(file_of((Rules){"gpt2", names[i], pieces, 7, merges, 2}));
        REQUIRE(m.tok);
        CHECK_ENCODES(m.tok, "e\u0301", 0, "5");
        CHECK_ENCODES(m.tok, "\u00E9", 0, "5");
        made_close(&m);
    }
    Made m = made_open(file_of((Rules){"gpt2", "llama-bpe", pieces, 7, merges, 2}));
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "e\u0301", 0, "0 6");
    made_close(&m);
}

TEST(bpe_says_which_pre_tokenizer_it_uses) {
    int saved = stderr_hide(); // the warning, which the command-line tests check
    Made m = made_as("no-such-thing");
    stderr_show(saved);
    REQUIRE(m.tok);
    CHECK(tok_pre(m.tok).n == 7 && memcmp(tok_pre(m.tok).data, "default", 7) == 0);
    Tok *other = NULL;
    Err e = {0};
    CHECK(tok_open_as(m.gguf, "llama-v3", &other, &e) &&
          memcmp(tok_pre(other).data, "llama-bpe", tok_pre(other).n) == 0);
    tok_close(other);
    CHECK(!tok_open_as(m.gguf, "llama-v", &other, &e) && e.code == ERR_USAGE && strstr(e.text, "qwen2"), "%s",
          e.text);
    made_close(&m);
}

TEST(bpe_leaves_out_bytes_without_token) {
    Made m = made_as("gpt-2");
    REQUIRE(m.tok);
    int saved = stderr_hide();
    CHECK_ENCODES(m.tok, "axb\u00E9c", 0, "0 1 2");
    stderr_show(saved);
    made_close(&m);
    Buf file = file_of(PLAIN);
    file_u32(&file, "tokenizer.ggml.unknown_token_id", 16);
    m = made_open(file);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "axb", 0, "0 16 1");
    CHECK(tok_bos(m.tok) == -1 && tok_eos(m.tok) == -1);
    made_close(&m);
}

TEST(bpe_merges_characters_where_the_vocabulary_does) {
    static const Piece pieces[] = {
        {"<bos>", 0, CONTROL}, {"\u2581", 0, NORMAL},       {"h", 0, NORMAL},
        {"i", 0, NORMAL},      {"hi", 0, NORMAL},           {"\u2581hi", 0, NORMAL},
        {"\n", 0, NORMAL},     {"\n\n\n", 0, NORMAL},       {"<0xC3>", 0, BYTE},
        {"<0xA9>", 0, BYTE},   {"\u2581\u2581", 0, NORMAL},
    };
    static const char *const merges[] = {"h i", "\u2581 hi", "\u2581 \u2581"};
    Buf file = file_of((Rules){"gemma4", NULL, pieces, 11, merges, 3});
    file_u32(&file, "tokenizer.ggml.bos_token_id", 0);
    file_bool(&file, "tokenizer.ggml.add_bos_token", false); // BOS is added all the same
    Made m = made_open(file);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "hi hi", TOK_ADD_SPECIAL, "0 4 5");
    CHECK_ENCODES(m.tok, "hi  hi", 0, "4 1 5");
    CHECK_ENCODES(m.tok, "\n\n\nhi\n\n", 0, "7 4 6 6"); // a run of newlines only whole
    CHECK_ENCODES(m.tok, "\u00E9", 0, "8 9");
    Buf text = {0};
    tok_decode(m.tok, (int32_t[]){4, 5, 8, 9, 10}, 5, 0, &text);
    CHECK(strcmp(text.data, "hi hi\u00E9  ") == 0, "'%s'", text.data);
    buf_free(&text);
    made_close(&m);
}

/* ---- properties of all vocabularies ---- */

/* The definition, in quadratic time, on texts and lines of the list, without ids, hashes and queues.  Part i
 * of the word is [ends[i - 1], ends[i]). */
static void naive_encode(Rules r, const char *word, TokIds *out) {
    size_t ends[200], n = 0;
    for (; word[n]; n++) ends[n] = n + 1;
    for (;;) {
        size_t best_rank = r.n_merges, best = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            size_t start = i ? ends[i - 1] : 0;
            Buf line = {0};
            buf_printf(&line, "%.*s %.*s", (int)(ends[i] - start), word + start, (int)(ends[i + 1] - ends[i]),
                       word + ends[i]);
            for (size_t k = 0; k < best_rank; k++)
                if (strcmp(r.merges[k], line.data) == 0) {
                    best_rank = k;
                    best = i;
                }
            buf_free(&line);
        }
        if (best_rank == r.n_merges) break;
        memmove(ends + best, ends + best + 1, sizeof *ends * (--n - best));
    }
    for (size_t i = 0, start = 0; i < n; start = ends[i++])
        for (size_t id = 0; id < r.n_pieces; id++)
            if (strlen(r.pieces[id].text) == ends[i] - start &&
                memcmp(r.pieces[id].text, word + start, ends[i] - start) == 0) {
                tok_ids_add(out, (int32_t)id);
                break;
            }
}

/* Random lists of merges, in any order, so that pairs also come out of the order of a trained list. */
TEST(bpe_equals_the_naive_encoder) {
    static const char *const letters[] = {"a", "b", "c"};
    uint32_t seed = 1;
    for (int round = 0; round < 300; round++) {
        char *texts[40], *lines[40];
        const char *merges[40];
        Piece pieces[40];
        size_t n = 3, n_merges = 0;
        for (size_t i = 0; i < 3; i++) texts[i] = mem_string(letters[i]);
        while (n < 40) {
            const char *left = texts[random_next(&seed) % n], *right = texts[random_next(&seed) % n];
            if (strlen(left) + strlen(right) > 30) continue;
            bool made = asprintf(&texts[n++], "%s%s", left, right) > 0 &&
                        asprintf(&lines[n_merges++], "%s %s", left, right) > 0;
            REQUIRE(made);
        }
        for (size_t i = 0; i < n; i++) pieces[i] = (Piece){texts[i], 0, NORMAL};
        for (size_t i = 0; i < n_merges; i++) merges[i] = lines[i];
        for (size_t i = n_merges; round % 2 && i > 1; i--) { // half of them shuffled
            size_t k = random_next(&seed) % i;
            const char *line = merges[i - 1];
            merges[i - 1] = merges[k];
            merges[k] = line;
        }
        Rules r = {"gpt2", "gpt-2", pieces, n, merges, n_merges};
        Made m = made_open(file_of(r));
        REQUIRE(m.tok);
        for (int k = 0; k < 20; k++) {
            char word[100] = "";
            for (uint32_t left = random_next(&seed) % 90; left; left--)
                strcat(word, letters[random_next(&seed) % 3]);
            TokIds ids = {0}, expected = {0};
            tok_encode(m.tok, word, strlen(word), 0, &ids);
            naive_encode(r, word, &expected);
            CHECK(ids.n == expected.n &&
                      (ids.n == 0 || memcmp(ids.data, expected.data, ids.n * sizeof *ids.data) == 0),
                  "round %d: '%s'", round, word);
            tok_ids_free(&ids);
            tok_ids_free(&expected);
        }
        made_close(&m);
        for (size_t i = 0; i < n; i++) free(texts[i]);
        for (size_t i = 0; i < n_merges; i++) free(lines[i]);
    }
}

static size_t bpe_work(const Tok *t, const char *text, size_t n) {
    TokIds ids = {0};
    TokJob job = {.tok = t, .out = &ids};
    bpe_encode(&job, text, n);
    tok_job_free(&job);
    tok_ids_free(&ids);
    return job.work;
}

/* A text of n bytes costs O(n log n) steps, also where it is a single word. */
TEST(bpe_work_grows_with_the_length_of_the_text) {
    Vocab v;
    REQUIRE(vocab_open(OWN ".gguf", NULL, &v));
    static const Piece pieces[] = {
        {"a", 0, NORMAL}, {"aa", 0, NORMAL}, {"aaa", 0, NORMAL}, {"aaaa", 0, NORMAL}, {"aaaaa", 0, NORMAL}};
    static const char *const merges[] = {"aa aaa", "aaa a", "aa aa", "aaa aa",
                                         "aa a",   "a aa",  "a a"}; // in reverse order
    Made m = made_open(file_of((Rules){"gpt2", "gpt-2", pieces, 5, merges, 7}));
    REQUIRE(m.tok);
    static const char *const units[] = {"a", " ", "\n", "Once upon a time ", "aaaaaaa ", "theheth"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        const Tok *toks[] = {v.tok, m.tok};
        for (int k = 0; k < 2; k++) check_work(toks[k], bpe_work, units[i], 100);
    }
    made_close(&m);
    vocab_close(&v);
}

/* The cache of words has few entries: here many words share each. */
TEST(bpe_remembers_the_right_words) {
    Vocab v;
    REQUIRE(vocab_open(OWN ".gguf", NULL, &v));
    Buf text = {0};
    TokIds whole = {0}, parts = {0};
    for (uint32_t seed = 9, left = 30000; left; left--) {
        char word[32] = " ";
        for (uint32_t n = 1 + random_next(&seed) % 4; n; n--)
            strncat(word, &"etaoinsh"[random_next(&seed) % 8], 1);
        buf_add(&text, word, strlen(word));
        tok_encode(v.tok, word, strlen(word), 0, &parts);
    }
    tok_encode(v.tok, text.data, text.n, 0, &whole);
    CHECK(whole.n == parts.n && memcmp(whole.data, parts.data, whole.n * sizeof *whole.data) == 0);
    tok_ids_free(&whole);
    tok_ids_free(&parts);
    buf_free(&text);
    vocab_close(&v);
}

TEST(bpe_streams_whole_characters_only) {
    Vocab v;
    REQUIRE(vocab_open(OWN ".gguf", NULL, &v));
    const char *text = "h\u00E9llo \u65E5\u672C\u8A9E \U0001F600!";
    TokIds ids = {0};
    tok_encode(v.tok, text, strlen(text), 0, &ids);
    TokStream stream = {.tok = v.tok};
    Buf streamed = {0};
    for (size_t i = 0; i < ids.n; i++) {
        tok_stream_push(&stream, ids.data[i], &streamed);
        CHECK(utf8_is_valid(streamed.data ? streamed.data : "", streamed.n), "after %zu tokens", i);
    }
    tok_stream_end(&stream, &streamed);
    CHECK(strcmp(streamed.data, text) == 0, "'%s'", streamed.data);
    buf_free(&streamed);
    tok_ids_free(&ids);
    vocab_close(&v);
}

/* ---- the pre-tokenizers ---- */

static void add_cut(void *context, const char *word, size_t n) {
    Buf *out = context;
    if (out->n) buf_add(out, "|", 1);
    buf_add(out, word, n);
}

static void check_cuts(const char *name, const char *text, const char *expected) {
    const PretokRule *rule = pretok_find(name, strlen(name));
    REQUIRE(rule, "%s", name);
    Pretok *p = pretok_open(rule);
    Buf cuts = {0};
    pretok_split(p, text, strlen(text), add_cut, &cuts);
    CHECK(strcmp(cuts.data, expected) == 0, "(%s): '%s', not '%s'", name, cuts.data, expected);
    buf_free(&cuts);
    pretok_close(p);
}

TEST(pretok_cuts_words) {
    check_cuts("gpt-2", "I'm  here, 2024!\n\n x", "I|'m| | here|,| 2024|!|\n\n| x");
    check_cuts("llama-bpe", "I'M  here, 12345!\n\n x", "I|'M| | here|,| |123|45|!\n\n| x");
    check_cuts("qwen2", "a123 \n\n b", "a|1|2|3| \n\n| b");
    check_cuts("tekken", "HelloWORLDfoo a/b", "Hello|WORLDfoo| a|/b");
    check_cuts("gpt-4o", "don't HelloWorld //\n", "don't| Hello|World| //\n");
    check_cuts("falcon", "a12345$ b", "a|123|45|$| b");
    check_cuts("default", "a12345$ b", "a|123|45|$| b");
    check_cuts("starcoder", "a12 b", "a|1|2| b");
    check_cuts("deepseek-llm", "ab 12\n \u4F60\u597D  ", "ab| |12|\n| |\u4F60\u597D|  ");
    check_cuts("deepseek-coder", "ab, 12\n", "ab|,| |1|2|\n");
    check_cuts("deepseek-v3", "ab.Cd 1234 ~~ \u4F60e\u0301", "ab|.Cd| |123|4| ~~| |\u4F60|e\u0301");
    check_cuts("kimi-k2", "ab\u4F60\u597Dcd's 1234", "ab|\u4F60\u597D|cd's| |123|4");
    check_cuts("afmoe", "ab 1234567 x", "ab| |1|234|567| x");
    check_cuts("tiny_aya", "1234567 12a 1234b", "1|234|567| |12|a| |123|4|b");
    check_cuts("superbpe", "the big 1234567", "the big |1|234|567");
    check_cuts("exaone-moe", "ab cd 12", "ab cd| |1|2");
    check_cuts("gemma4", "a b\n\nc", "a b|\n\n|c");
    check_cuts("bloom", "a b, c", "a| b|,| c");
    check_cuts("qwen35", "\u0301e\u0301 \u0301\u0302", "\u0301e\u0301| \u0301\u0302");
}

/* Words with marks, letters with case outside ASCII, digits, lines and spaces of all kinds, cut by the
 * tokenizers library of Hugging Face with the makers' patterns.  The text is `words` without its bars. */
TEST(pretok_cuts_words_as_their_makers_do) {
    static const struct {
        const char *names, *words;
    } cases[] = {
        {"gpt-4o tekken kimi-k2 tiny_aya youtu qwen35 deepseek-v3",
         "\u0928\u092E\u0938\u094D\u0924\u0947| \u0926\u0941\u0928\u093F\u092F\u093E"},
        {"gpt-4o tekken kimi-k2", "\u0E2A\u0E27\u0E31\u0E2A\u0E14\u0E35\u0E0A\u0E32\u0E27\u0E42\u0E25\u0E01"},
        {"gpt-4o tekken kimi-k2", "\u0627\u0644\u0639\u064E\u0631\u064E\u0628\u0650\u064A\u064E\u0651\u0629"},
        {"gpt-4o tekken kimi-k2 qwen35", "cafe\u0301| Re\u0301sume\u0301"},
        {"qwen2 llama-bpe", "cafe|\u0301| Re|\u0301sume|\u0301"},
        {"gpt-4o tekken kimi-k2 tiny_aya youtu",
         "\u0414\u043E\u043A\u0443\u043C\u0435\u043D\u0442|\u041F\u0440\u043E\u0434\u0430\u0436\u0438| "
         "\u043E|\u0422\u0412\u0415\u0422\u0434|\u041E\u041A\u0423\u041C\u0415\u041D\u0422"},
        {"gpt-4o tekken kimi-k2",
         "\u0391\u03BB\u03C6\u03B1|\u0392\u0397\u03A4\u0391\u03B3\u03AC\u03BC\u03BC\u03B1"},
        {"gpt-4o kimi-k2 tiny_aya youtu", "foo|Bar|BAZ| DON'T| can't"},
        {"tekken", "foo|Bar|BAZ| DON|'T| can|'t"},
        {"llama-bpe", "fooBarBAZ| DON|'T| can|'t"},
        {"gpt-4o tekken kimi-k2", "\u00C9cole|\u00C9L\u00C8VE"},
        {"kimi-k2", "\u4E2D\u6587\u3007\u3005|ABc\u30DE|\u6F22\u5B57|abc| |123|4"},
        {"gpt-4o", "\u4E2D\u6587|\u3007|\u3005ABc\u30DE\u6F22\u5B57abc| |123|4"},
        {"gpt-4o tekken kimi-k2", "\u0301a| \u0301\u0301| x"},
        {"gpt-4o", "I'\u017F| it'S"},
        {"tekken qwen2 llama-bpe bailingmoe minicpm5", "I|'\u017F| it|'S"},
        {"tiny_aya", "12|345| |123|4|\u00E9| |\u0967|\u0968\u0969\u096A"},
        {"superbpe", "12|345| |1|234|\u00E9 |\u0967|\u0968\u0969\u096A"},
        {"deepseek-llm", "\u3000\u3000|\u4E2D\u6587|,|\u3000|\u597D"},
        {"deepseek-coder", "\u3000|\u3000\u4E2D\u6587|,|\u3000\u597D"},
        {"gpt-4o",
         "I'M| | e\u0301t\u00E9| |123|45|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n/| y|       | z|  "},
        {"tekken",
         "I|'M| | e\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n/| y|       | "
         "z|  "},
        {"kimi-k2",
         "I'M| | e\u0301t\u00E9| |123|45|\n\n| | x|!?\r\n| a|/b| |\u4E2D\u6587|\u3002...\n|/| y|       | z| "
         " "},
        {"tiny_aya",
         "I'M| | e\u0301t\u00E9| |12|345|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n/| y|       | z|  "},
        {"youtu",
         "I'M| | e\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?\r\n| a|/b| |\u4E2D\u6587|\u3002|...\n/| y|       | "
         "z|  "},
        {"qwen2 bailingmoe",
         "I|'M| | e|\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n|/| y|       | "
         "z|  "},
        {"qwen35",
         "I|'M| | e\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n|/| y|       | "
         "z|  "},
        {"llama-bpe minicpm5",
         "I|'M| | e|\u0301t\u00E9| |123|45|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n|/| y|       | z| "
         " "},
        {"gpt-2",
         "I|'|M| | e|\u0301|t\u00E9| 12345|\n\n | x|!?|\r\n| a|/|b| \u4E2D\u6587|\u3002...|\n|/| y|       | "
         "z|  "},
        {"starcoder",
         "I|'|M| | e|\u0301|t\u00E9| |1|2|3|4|5|\n\n | x|!?|\r\n| a|/|b| \u4E2D\u6587|\u3002...|\n|/| y|     "
         "  | z|  "},
        {"deepseek-v3",
         "I|'M| | e\u0301t\u00E9| |123|45|\n\n| | x|!?\r\n| a|/b| |\u4E2D\u6587|\u3002...\n|/| y|       | z| "
         " "},
        {"seed-coder",
         "I|'M| | e|\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?|\r\n| a|/b| \u4E2D\u6587|\u3002...|\n|/| y|       "
         "| z|  "},
        {"jais-2",
         "I|'M| | e|\u0301t\u00E9| |123|45|\n\n| | x|!?\r\n| a|/b| \u4E2D\u6587|\u3002...\n|/| y|    |  | | "
         "z|  "},
        {"exaone-moe",
         "I|'M| | e\u0301t\u00E9| |1|2|3|4|5|\n\n| | x|!?\r|\n| a|/b \u4E2D\u6587|\u3002...\n|/| y|       | "
         "z|  "},
        {"bloom",
         "I'M| | e\u0301t\u00E9| 12345|\n\n | x|!?\r\n| a/b| \u4E2D\u6587|\u3002...\n|/| y|       | z|  "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        size_t n = 0;
        for (const char *c = cases[i].words; *c; c++)
            if (*c != '|') text[n++] = *c;
        text[n] = 0;
        const char *name = cases[i].names;
        for (size_t length; *name; name += length + (name[length] == ' ')) {
            char one[20];
            length = strcspn(name, " ");
            snprintf(one, sizeof one, "%.*s", (int)length, name);
            check_cuts(one, text, cases[i].words);
        }
    }
}

static void add_word(void *context, const char *word, size_t n) {
    CHECK(n > 0);
    buf_add(context, word, n);
}

/* The words of every rule are the text again, whatever the text. */
TEST(pretok_loses_nothing) {
    static const char *const parts[] = {
        "a",          "B",      "'s",     "'RE",    " ",      "  ",     "\n",        "\r\n",
        "\t",         "1",      "23",     "\u00E9", "\u4E00", "\u0301", "\u3000",    "\u00A0",
        "\U0001F600", "\u0130", "\u2163", ".",      "~",      "$",      "/",         "<",
        "\x01",       "\u0660", "\u180E", "_",      "\u30A2", "\uFF21", "\U0001D400"};
    uint32_t seed = 3;
    for (const PretokRule *rule = PRETOK_TABLE; rule->names; rule++) {
        Pretok *p = pretok_open(rule);
        for (int round = 0; round < 200; round++) {
            Buf text = {0}, again = {0};
            for (uint32_t left = 1 + random_next(&seed) % 30; left; left--) {
                const char *part = parts[random_next(&seed) % (sizeof parts / sizeof *parts)];
                buf_add(&text, part, strlen(part));
            }
            pretok_split(p, text.data, text.n, add_word, &again);
            CHECK(again.n == text.n && memcmp(again.data, text.data, text.n) == 0, "%s: '%s'", rule->names,
                  text.data);
            buf_free(&text);
            buf_free(&again);
        }
        pretok_close(p);
    }
}

static void ignore_word(void *context, const char *word, size_t n) {
    (void)word;
    *(size_t *)context += n;
}

/* No pattern takes quadratic time over a run.  Linear time is a millisecond or two, quadratic time seven
 * seconds: the limit of half a second of processor time is far from both. */
TEST(pretok_is_not_held_up_by_runs) {
    enum { N = 100000 };
    static const char *const units[] = {"a",      "A", " ",      "\n",           " \n",    "1",
                                        "'",      "$", "\u0301", "\u4E00",       "\u3000", "a ",
                                        "\u00E9", "_", "\u0414", "\u0414\u0301", "\u0E31"};
    static const char ends[] =
        "z\x01"; // a character that patterns look for behind a run, and one that none does
    char *text = mem_new(N + 2, 1);
    for (const PretokRule *rule = PRETOK_TABLE; rule->names; rule++) {
        Pretok *p = pretok_open(rule);
        for (size_t u = 0; u < 2 * sizeof units / sizeof *units; u++) {
            const char *unit = units[u / 2];
            size_t n = 0, total = 0, length = strlen(unit);
            while (n + length <= N) {
                memcpy(text + n, unit, length);
                n += length;
            }
            text[n++] = ends[u % 2];
            clock_t start = clock();
            pretok_split(p, text, n, ignore_word, &total);
            double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            CHECK(total == n && seconds < 0.5, "%s: %.1f s for '%s'", rule->names, seconds, unit);
        }
        pretok_close(p);
    }
    free(text);
}

/* ---- hostile files ---- */

TEST(bpe_refuses_files_without_merges) {
    Buf b = {0};
    file_begin(&b);
    file_pieces(&b, "gpt2", SMALL, N_SMALL);
    file_string(&b, "tokenizer.ggml.pre", "gpt-2");
    CHECK_REFUSED(&b, "no list of merges");
    file_begin(&b);
    file_pieces(&b, "gpt2", SMALL, N_SMALL);
    file_string(&b, "tokenizer.ggml.pre", "gpt-2");
    file_array(&b, "tokenizer.ggml.merges", U32, 1);
    put(&b, 7, 4);
    CHECK_REFUSED(&b, "tokenizer.ggml.merges");
    file_begin(&b);
    file_pieces(&b, "gpt2", SMALL, N_SMALL);
    file_u32(&b, "tokenizer.ggml.pre", 1);
    CHECK_REFUSED(&b, "tokenizer.ggml.pre");
}

TEST(bpe_ignores_merges_that_are_none) {
    static const char *const merges[] = {"",       " ",   "  ",  "nospace", " a",    "a ",
                                         "a  b",   "x y", "a x", "b a",     "a b c", "<s >",
                                         "\xFF a", "a b", "b c", "a b",     "c"};
    Rules r = PLAIN;
    r.merges = merges;
    r.n_merges = sizeof merges / sizeof *merges;
    int saved = stderr_hide();
    Made m = made_open(file_of(r));
    stderr_show(saved);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "abc", 0, "5 2"); // a b comes before b c here
    CHECK_ENCODES(m.tok, "ba", 0, "1 0");
    made_close(&m);
}

TEST(bpe_bears_a_long_list_of_useless_merges) {
    enum { N = 200000 };
    Buf file = {0};
    file_begin(&file);
    file_pieces(&file, "gpt2", SMALL, N_SMALL);
    file_string(&file, "tokenizer.ggml.pre", "gpt-2");
    file_array(&file, "tokenizer.ggml.merges", STRING, N);
    for (int i = 0; i < N; i++) put_string(&file, i % 2 ? "a b" : "q q");
    int saved = stderr_hide();
    Made m = made_open(file);
    stderr_show(saved);
    REQUIRE(m.tok);
    CHECK_ENCODES(m.tok, "ab", 0, "5");
    made_close(&m);
}

TEST(bpe_survives_mutated_metadata) {
    Buf file = file_of(PLAIN);
    file_u32(&file, "tokenizer.ggml.bos_token_id", 9);
    file_bool(&file, "tokenizer.ggml.add_eos_token", true);
    check_mutations(&file, 800);
    buf_free(&file);
}
