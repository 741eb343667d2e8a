/* The parser of the command line: every option at its limits and beyond; token ids, escapes, the digest. */
#include "check.h"
#include "../../src/base/buf.h"
#include "../../src/cli/ids.h"
#include "../../src/cli/options.h"
#include "../../src/cli/prompt.h"
#include "../../src/cli/sha256.h"
#include "../../src/cli/unescape.h"
#include "../../src/exec/sample.h"

#include <stdio.h>
#include <string.h>

static Options options;
static Err err;

/* Parses the arguments, which end with a NULL; a result stays in `options` until the next call. */
static bool parse(unsigned command, const char **arguments) {
    char *argv[16] = {"zgen"};
    int argc = 1;
    for (; arguments[argc - 1]; argc++) argv[argc] = (char *)arguments[argc - 1];
    options_free(&options);
    err = (Err){0};
    return options_parse(command, (OptionList){0}, argc, argv, &options, &err);
}

static bool parse2(unsigned command, const char *a, const char *b) {
    return parse(command, (const char *[]){a, b, NULL});
}

static bool refused(unsigned command, const char *a, const char *b) {
    return !parse2(command, a, b) && err.code == ERR_USAGE && err.text[0];
}

/* Whether a word, without its dashes, names an option of any command. */
static bool is_name(const char *word) {
    int n;
    const Option *table = options_table(&n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4 && table[i].names[k]; k++) {
            const char *name = table[i].names[k] + strspn(table[i].names[k], "-");
            if (strcmp(name, word) == 0) return true;
        }
    return false;
}

TEST(cli_defaults_are_those_of_the_sampler) {
    REQUIRE(parse2(FOR_GENERATE, NULL, NULL));
    const SampleParams *p = &sample_defaults;
    CHECK(options.temp == p->temp && options.top_p == p->top_p && options.min_p == p->min_p);
    CHECK(options.top_k == p->top_k && options.repeat_last_n == p->repeat_last_n);
    CHECK(options.repeat_penalty == p->repeat_penalty && options.presence_penalty == p->presence_penalty);
    CHECK(options.frequency_penalty == p->frequency_penalty);
    CHECK(options.n_predict == -1 && options.n_ctx == -1 && options.n_threads == 0);
    CHECK(options.gpu_layers == GPU_LAYERS_AUTO && !options.seed.given && options.escape && options.bos &&
          options.perf);
    CHECK(!options_json(&options) && !options.model && !options.prompt && options.n_stop == 0 &&
          options.n_rest == 0);
}

TEST(cli_every_spelling_of_a_value) {
    const char *spellings[][3] = {{"-n", "7"},  {"--predict", "7"}, {"--n-predict", "7"}, {"-n-predict", "7"},
                                  {"--n", "7"}, {"-n=7"},           {"--predict=7"},      {"-predict=7"}};
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        CHECK(parse(FOR_GENERATE, spellings[i]), "%s: %s", spellings[i][0], err.text);
        CHECK(options.n_predict == 7, "%s", spellings[i][0]);
    }
}

TEST(cli_every_abbreviation_is_refused) {
    int n, n_tried = 0, n_commands;
    const Option *table = options_table(&n);
    const Command *commands = command_table(&n_commands);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 4 && table[i].names[k]; k++) {
            const char *name = table[i].names[k] + strspn(table[i].names[k], "-");
            for (size_t length = 1; length < strlen(name); length++) {
                char word[64], dashed[2][70];
                snprintf(word, sizeof word, "%.*s", (int)length, name);
                if (is_name(word)) continue;
                snprintf(dashed[0], sizeof dashed[0], "-%s", word);
                snprintf(dashed[1], sizeof dashed[1], "--%s", word);
                for (int d = 0; d < 2; d++, n_tried++)
                    for (int c = 0; c < n_commands; c++)
                        CHECK(refused(commands[c].bit, dashed[d], "1"), "zgen %s took %s for %s",
                              commands[c].name, dashed[d], name);
            }
        }
    CHECK(n_tried > 300);
}

TEST(cli_options_of_other_commands_are_refused) {
    int n, n_commands;
    const Option *table = options_table(&n);
    const Command *commands = command_table(&n_commands);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < n_commands; c++) {
            const char *name = table[i].names[0];
            bool is_known = false; // another option of the command may have this name
            for (int j = 0; j < n; j++)
                for (int k = 0; k < 4 && table[j].names[k] && (table[j].commands & commands[c].bit); k++)
                    is_known |= strcmp(table[j].names[k], name) == 0;
            if (is_known) continue;
            CHECK(refused(commands[c].bit, name, "1") && strstr(err.text, "belongs to"), "zgen %s %s",
                  commands[c].name, name);
        }
}

TEST(cli_numbers_are_whole_strings_in_range) {
    static const char *const junk[] = {"",
                                       " 1",
                                       "1 ",
                                       "4x",
                                       "x",
                                       "1,5",
                                       "0x10",
                                       "--1",
                                       "nan",
                                       "inf",
                                       "-inf",
                                       "1e999",
                                       "-1e999",
                                       "99999999999999999999",
                                       "-99999999999999999999",
                                       "1.2.3",
                                       "1e",
                                       "+"};
    int n, n_numbers = 0;
    const Option *table = options_table(&n);
    for (int i = 0; i < n; i++) {
        const Option *o = &table[i];
        if (o->kind != OPTION_INT && o->kind != OPTION_FLOAT) continue;
        unsigned command = o->commands & -o->commands; // the first that has it
        n_numbers++;
        char text[40];
        const char *format = o->kind == OPTION_INT ? "%.0f" : "%g";
        double step = o->kind == OPTION_INT ? 1 : 0.001 * (o->max - o->min);
        const struct {
            double value;
            bool ok;
        } cases[] = {{o->min, true}, {o->max, true}, {o->min - step, false}, {o->max + step, false}};
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
            snprintf(text, sizeof text, format, cases[k].value);
            CHECK(parse2(command, o->names[0], text) == cases[k].ok, "%s %s: %s", o->names[0], text,
                  err.text);
        }
        for (size_t k = 0; k < sizeof junk / sizeof *junk; k++)
            CHECK(refused(command, o->names[0], junk[k]), "%s '%s' was accepted", o->names[0], junk[k]);
        if (o->kind == OPTION_INT) CHECK(refused(command, o->names[0], "1.5"), "%s 1.5", o->names[0]);
    }
    CHECK(n_numbers >= 13);
    CHECK(refused(FOR_GENERATE, "--top-p", "5") && strstr(err.text, "--top-p") && strstr(err.text, "'5'") &&
          strstr(err.text, "from 0 to 1"));
    CHECK(parse2(FOR_GENERATE, "--temp", "1e-3") && options.temp == 1e-3f);
}

static bool lists(const char *text, const char *expected) {
    char got[400] = "";
    if (!parse2(FOR_BENCH, "-p", text)) return false;
    const IntList *list = &options.bench.n_prompt;
    for (int i = 0; i < list->n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", list->values[i]);
    if (strcmp(got, expected) != 0) fprintf(stderr, "'%s' became %s\n", text, got);
    return strcmp(got, expected) == 0;
}

TEST(cli_lists_and_ranges) {
    CHECK(parse2(FOR_BENCH, NULL, NULL) && options.bench.n_prompt.n == 1);
    CHECK(options.bench.n_prompt.values[0] == 512 && options.bench.n_prompt.is_standard);
    CHECK(lists("7", "7") && !options.bench.n_prompt.is_standard);
    CHECK(lists("0", "0") && lists("512,1024,512", "512 1024 512"));
    CHECK(lists("1-4", "1 2 3 4") && lists("3-3", "3"));
    CHECK(lists("10-25+5", "10 15 20 25") && lists("10-24+5", "10 15 20") && lists("0-6+3", "0 3 6"));
    CHECK(lists("1-16*2", "1 2 4 8 16") && lists("3-100*4", "3 12 48") && lists("5-5*2", "5"));
    CHECK(lists("1,4-6,100-300+100", "1 4 5 6 100 200 300"));
    static const char *const wrong[] = {"",
                                        ",",
                                        "1,",
                                        ",1",
                                        "1,,2",
                                        "1-",
                                        "-1",
                                        "1-2+",
                                        "1-2+0",
                                        "1-2*1",
                                        "0-8*2",
                                        "4-2",
                                        "1--2",
                                        "1-2-3",
                                        "1+2",
                                        "1*2",
                                        " 1",
                                        "1 ",
                                        "1x",
                                        "0x10",
                                        "1.5",
                                        "auto",
                                        "99999999999",
                                        "1-99999999999",
                                        "1-1001",
                                        "1-2+99999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(refused(FOR_BENCH, "-p", wrong[i]), "'%s' was accepted", wrong[i]);
    CHECK(parse(FOR_BENCH, (const char *[]){"-p", "1,2", "-p", "4-8*2", NULL}));
    CHECK(options.bench.n_prompt.n == 4 && options.bench.n_prompt.values[3] == 8);
    CHECK(parse2(FOR_BENCH, "-ngl", "0,99,all") && options.bench.gpu_layers.n == 3);
    CHECK(options.bench.gpu_layers.values[0] == 0 && options.bench.gpu_layers.values[2] == GPU_LAYERS_ALL);
}

TEST(cli_pairs_and_lists_of_words) {
    CHECK(parse(FOR_BENCH, (const char *[]){"-pg", "512,128", "-pg", "1,2", NULL}));
    REQUIRE(options.bench.pairs.n == 4);
    CHECK(options.bench.pairs.values[0] == 512 && options.bench.pairs.values[3] == 2);
    static const char *const wrong[] = {"", "1", "1,", ",1", "1,2,3", "1-2,3", "a,b", "1, 2"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(refused(FOR_BENCH, "-pg", wrong[i]), "'%s' was accepted", wrong[i]);
    CHECK(parse2(FOR_BENCH, NULL, NULL) && options.bench.kv.n == 1 && options.bench.cache_k.n == 0);
    CHECK(parse2(FOR_BENCH, "--kv", "f32,f16") && options.bench.kv.n == 2);
    CHECK(strcmp(options.bench.kv.values[0], "f32") == 0 && strcmp(options.bench.kv.values[1], "f16") == 0);
    CHECK(refused(FOR_BENCH, "--kv", "f16,") && refused(FOR_BENCH, "--kv", "f16 f32"));
    CHECK(refused(FOR_BENCH, "-fa", "2") && refused(FOR_BENCH, "-o", "xml"));
    CHECK(parse(FOR_BENCH, (const char *[]){"-m", "a", "-m", "b", NULL}) && options.n_models == 2);
}

TEST(cli_seeds_are_64_bits) {
    CHECK(parse2(FOR_GENERATE, "-s", "18446744073709551615") && options.seed.given &&
          options.seed.value == UINT64_MAX);
    CHECK(parse2(FOR_GENERATE, "--seed", "0") && options.seed.given && options.seed.value == 0);
    CHECK(parse2(FOR_GENERATE, "-s", "-1") && !options.seed.given);
    static const char *const wrong[] = {"18446744073709551616", "-2", "1x", "", " 1", "+1", "1.0"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(refused(FOR_GENERATE, "-s", wrong[i]), "'%s'", wrong[i]);
}

TEST(cli_words_are_chosen_from_their_list) {
    CHECK(parse2(FOR_GENERATE, "--kv", "f32") && strcmp(options.kv, "f32") == 0);
    CHECK(refused(FOR_GENERATE, "--kv", "f3") && refused(FOR_GENERATE, "--kv", "f16 f32") &&
          refused(FOR_GENERATE, "--kv", ""));
    CHECK(refused(FOR_GENERATE, "--isa", "AVX2") && strstr(err.text, "avx512"));
    CHECK(parse2(FOR_GENERATE, "-ngl", "all") && options.gpu_layers == GPU_LAYERS_ALL);
    CHECK(parse2(FOR_GENERATE, "-ngl", "auto") && options.gpu_layers == GPU_LAYERS_AUTO);
    CHECK(parse2(FOR_GENERATE, "-ngl", "99") && options.gpu_layers == GPU_LAYERS_MANY);
    CHECK(refused(FOR_GENERATE, "-ngl", "most"));
}

TEST(cli_the_last_one_counts_but_stops_add_up) {
    CHECK(parse(FOR_GENERATE, (const char *[]){"-n", "1", "--stop", "a", "--predict", "2", "-r", "b",
                                               "--reverse-prompt", "c", NULL}));
    CHECK(options.n_predict == 2);
    REQUIRE(options.n_stop == 3);
    CHECK(strcmp(options.stop[0], "a") == 0 && strcmp(options.stop[1], "b") == 0 &&
          strcmp(options.stop[2], "c") == 0);
    CHECK(parse(FOR_GENERATE, (const char *[]){"--json", "--output-format", "text", NULL}) &&
          !options_json(&options));
    CHECK(parse(FOR_GENERATE, (const char *[]){"--output-format", "text", "--json", NULL}) &&
          options_json(&options));
    CHECK(parse(FOR_GENERATE, (const char *[]){"--no-escape", "-e", NULL}) && options.escape);
    CHECK(refused(FOR_GENERATE, "--stop", ""));
}

static void check_unescape(const char *text, const char *expected, size_t n) {
    Buf got = {0};
    unescape(text, &got);
    CHECK(got.n == n && (n == 0 || memcmp(got.data, expected, n) == 0), "%s: '%s'", text, n ? got.data : "");
    buf_free(&got);
}

TEST(cli_replaces_escapes) {
    check_unescape("\\n\\r\\t\\\\\\\"\\'", "\n\r\t\\\"'", 6);
    check_unescape("a\\n\\\\n", "a\n\\n", 4);
    check_unescape("\\x41\\xC3\\xa9\\x00", "A\u00E9\0", 4);
    check_unescape("\\u0041\\u00e9\\u20AC\\uD83D\\uDE00", "A\u00E9\u20AC\U0001F600", 10);
    check_unescape("\\x4\\xg0\\u00e\\q\\", "\\x4\\xg0\\u00e\\q\\", 15);
    check_unescape("\\ud83d\\ude0\\ud83d\\u0041", "\\ud83d\\ude0\\ud83dA", 18);
    check_unescape("\\ude00", "\\ude00", 6);
    check_unescape("", "", 0);
}

TEST(cli_values_and_missing_values) {
    CHECK(parse2(FOR_GENERATE, "-p", "-n") && strcmp(options.prompt, "-n") == 0,
          "a value may look like an option");
    CHECK(parse2(FOR_GENERATE, "-p", "") && options.prompt && !*options.prompt);
    CHECK(parse2(FOR_GENERATE, "-p=", NULL) && options.prompt && !*options.prompt);
    CHECK(refused(FOR_GENERATE, "-n", NULL) && strstr(err.text, "needs a value"));
    CHECK(refused(FOR_GENERATE, "--json=1", NULL) && strstr(err.text, "takes no value"));
    CHECK(refused(FOR_GENERATE, "--temprature", "1") && strstr(err.text, "--temp"), "%s", err.text);
    CHECK(refused(FOR_INFO, "-cnv", NULL) && refused(FOR_GENERATE, "-sy", NULL) &&
          refused(FOR_GENERATE, "-:", NULL));
    CHECK(refused(FOR_GENERATE, "---n", "1") && refused(FOR_GENERATE, "-n5", NULL) &&
          refused(FOR_GENERATE, "--=", NULL));
}

TEST(cli_what_is_no_option_is_left_over) {
    CHECK(parse(FOR_INFO, (const char *[]){"a.gguf", "--plan", "-", "--", "--json", NULL}));
    REQUIRE(options.n_rest == 3);
    CHECK(strcmp(options.rest[0], "a.gguf") == 0 && strcmp(options.rest[1], "-") == 0 &&
          strcmp(options.rest[2], "--json") == 0);
    CHECK(options.plan && !options_json(&options));
}

TEST(cli_a_name_can_differ_between_commands) {
    CHECK(parse2(FOR_TOKENIZE, "--ids", NULL) && options.list);
    CHECK(parse2(FOR_LOGITS, "--ids", "1,2") && strcmp(options.ids, "1,2") == 0);
}

TEST(cli_ids) {
    static const struct {
        const char *text;
        int n;
        const char *says;
    } cases[] = {
        {"1,5,9", 3, ""},
        {"[1, 5, 9]\n", 3, ""},
        {" 7 ", 1, ""},
        {"0\t9\r\n3", 3, ""},
        {"", 0, "no token ids"},
        {" , ", 0, "no token ids"},
        {"10", 0, "no token 10"},
        {"1,-1", 0, "'-1' is not"},
        {"1,x", 0, "'x'"},
        {"1.5", 0, "'1.5'"},
        {"99999999999999999999999", 0, "no token 9999"},
        {"5x", 0, "'5x'"},
        {"99x", 0, "'99x'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        TokIds ids = {0};
        Err e = {0};
        bool ok = ids_parse(cases[i].text, strlen(cases[i].text), 10, "ids", &ids, &e);
        CHECK(ok == (cases[i].n > 0), "'%s'", cases[i].text);
        CHECK(!ok || (int)ids.n == cases[i].n, "'%s'", cases[i].text);
        CHECK(ok || (e.code == ERR_USAGE && strstr(e.text, cases[i].says)), "'%s': %s", cases[i].text,
              e.text);
        tok_ids_free(&ids);
    }
    TokIds ids = {0};
    Err e;
    CHECK(!ids_parse("1\0002", 3, 10, "ids", &ids, &e), "a NUL separates nothing");
    tok_ids_free(&ids);
}

TEST(cli_escapes_in_a_prompt) {
    Buf text = {0};
    REQUIRE(parse2(FOR_GENERATE, "-p", "a\\nb\\tc\\\\d\\\"e\\x\\") &&
            prompt_read(&options, true, &text, &err));
    CHECK(strcmp(text.data, "a\nb\tc\\d\"e\\x\\") == 0, "%s", text.data);
    buf_clear(&text);
    REQUIRE(parse(FOR_GENERATE, (const char *[]){"--no-escape", "-p", "a\\n", NULL}) &&
            prompt_read(&options, true, &text, &err));
    CHECK(strcmp(text.data, "a\\n") == 0);
    CHECK(parse(FOR_GENERATE, (const char *[]){"-p", "a", "-f", "b", NULL}) &&
          !prompt_read(&options, true, &text, &err) && err.code == ERR_USAGE);
    buf_free(&text);
    options_free(&options);
}

TEST(cli_sha256) { // FIPS 180-4 examples, and lengths around the padding
    static const struct {
        const char *text;
        const char *digest;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmno"
         "pqrstnopqrstu",
         "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char digest[65];
        sha256_hex(cases[i].text, strlen(cases[i].text), digest);
        CHECK(strcmp(digest, cases[i].digest) == 0, "%s", digest);
    }
}
