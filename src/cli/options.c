/* options: see options.h.
 *
 * getopt_long_only walks the arguments; it accepts unique beginnings of names, so the name as spelled is
 * compared with the table afterwards.  It is given no short options: -m is a long name of one letter. */
#include "options.h"
#include "../base/mem.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(Options, field)

enum {
    SPEAKS = FOR_GENERATE | FOR_CHAT, // commands that say something
    SAMPLES = SPEAKS | FOR_BENCH,
    RUNS = SPEAKS | FOR_LOGITS | FOR_PERPLEXITY, // commands that compute
    READS = FOR_GENERATE | FOR_TOKENIZE,
    PLANS = RUNS | FOR_INFO,      // commands that know what one run takes
    COMPUTES = PLANS | FOR_BENCH, // commands that choose where to
    ALL = RUNS | READS | FOR_INFO,
    ANY = ALL | FOR_SYNTH | FOR_BENCH | FOR_QUANTIZE,
};

enum { MOST_VALUES = 1000 }; // of a list

static const char KV_TYPES[] = "f16 f32 q8_0 fp8";

/* A row is read along, not down. */
// clang-format off
static const Option TABLE[] = {
    {{"-m", "--model"}, ALL, OPTION_STRING, "FILE", AT(model),
     .help = "the model (the demo model in the executable)"},
    {{"-p", "--prompt"}, READS | FOR_CHAT, OPTION_STRING, "TEXT", AT(prompt), .help = "the prompt; - reads stdin"},
    {{"-f", "--file"}, READS | FOR_CHAT | FOR_BENCH, OPTION_STRING, "FILE", AT(file),
     .help = "the prompt from a file; - reads stdin"},
    {{"-e", "--escape"}, READS | FOR_CHAT, OPTION_FLAG, NULL, AT(escape), .set = "yes", .standard = "yes",
     .help = "process \\n \\t \\\\ \\\" in -p (the default)"},
    {{"--no-escape"}, READS | FOR_CHAT, OPTION_FLAG, NULL, AT(escape), .set = "no", .help = "take -p as it is"},
    {{"--echo"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(echo), .set = "yes",
     .help = "print the prompt before the text"},
    {{"--pre"}, SPEAKS | FOR_TOKENIZE | FOR_PERPLEXITY, OPTION_STRING, "NAME", AT(pre),
     .help = "the pre-tokenizer of this name instead of the model's"},

    {{"-cnv", "--conversation"}, SPEAKS, OPTION_FLAG, NULL, AT(chat), .set = "yes",
     .help = "the same as zgen chat"},
    {{"-no-cnv", "--no-conversation"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(chat), .set = "no",
     .help = "no chat: the default"},
    {{"-st", "--single-turn"}, SPEAKS, OPTION_FLAG, NULL, AT(single_turn), .set = "yes",
     .help = "the prompt is a message, answered through the chat template"},
    {{"-sys", "--system-prompt"}, SPEAKS, OPTION_STRING, "TEXT", AT(system), .help = "the system prompt"},
    {{"-sysf", "--system-prompt-file"}, SPEAKS, OPTION_STRING, "FILE", AT(system_file),
     .help = "the system prompt from a file"},
    {{"--messages"}, SPEAKS, OPTION_STRING, "FILE", AT(messages),
     .help = "the conversation so far: JSON with \"messages\""},
    {{"--chat-template", "--chat-template-file"}, SPEAKS, OPTION_STRING, "NAME|FILE", AT(chat_template),
     .help = "instead of the model's: a known format (chatml, llama3, ...) or a Jinja file"},
    {{"--think"}, SPEAKS, OPTION_CHOICE, NULL, AT(think), .choices = "show hide off",
     .help = "the thoughts before an answer; off: the model is told not to think"},
    {{"--on-full"}, SPEAKS, OPTION_CHOICE, NULL, AT(on_full), .choices = "stop drop",
     .help = "when the context is full: stop (the default), or drop the oldest turns"},
    {{"--print-prompt"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(print_prompt), .set = "yes",
     .help = "print the prompt as the model would get it, and nothing else"},

    {{"-n", "--predict", "--n-predict"}, SPEAKS, OPTION_INT, "N", AT(n_predict), -2, INT_MAX,
     .standard = "-1", .help = "new tokens at most; -1, -2: until the context is full"},
    {{"-c", "--ctx-size"}, PLANS & ~FOR_PERPLEXITY, OPTION_INT, "N", AT(n_ctx), 0, INT_MAX,
     .help = "tokens of context; 0: as trained (4096 at most, or as prompt and -n need)"},
    {{"-t", "--threads"}, PLANS | FOR_SYNTH | FOR_QUANTIZE, OPTION_INT, "N", AT(n_threads), 1, 1024,
     .help = "threads (the CPUs this process may use)"},
    {{"-ngl", "--gpu-layers", "--n-gpu-layers"}, PLANS, OPTION_INT, "N", AT(gpu_layers), 0, INT_MAX,
     .choices = "auto all", .standard = "auto", .help = "layers on the GPU: 0 or all of them"},
    {{"--device"}, COMPUTES, OPTION_STRING, "auto|cpu|cuda[:N]", AT(device), .standard = "auto",
     .help = "where to compute; N: which GPU"},
    {{"--mem"}, COMPUTES, OPTION_CHOICE, NULL, AT(mem), .choices = "auto device managed", .standard = "auto",
     .help = "memory of the weights on a GPU; auto: managed where it is the host's"},
    {{"--isa"}, COMPUTES, OPTION_CHOICE, NULL, AT(isa), .choices = "auto scalar avx2 avx512",
     .standard = "auto", .help = "the CPU kernels"},
    {{"--act"}, COMPUTES, OPTION_CHOICE, NULL, AT(act), .choices = "auto f32 q8", .standard = "auto",
     .help = "activations in products; auto: f32 with --isa scalar, else q8"},
    {{"--weights"}, COMPUTES, OPTION_CHOICE, NULL, AT(weights), .choices = "file fp8", .standard = "file",
     .help = "fp8: converted at load, where that is smaller"},
    {{"--kv"}, PLANS, OPTION_CHOICE, NULL, AT(kv), .choices = KV_TYPES,
     .help = "the key and value cache (f16)"},
    {{"-ctk", "--cache-type-k"}, PLANS, OPTION_CHOICE, NULL, AT(cache_k), .choices = KV_TYPES,
     .help = "the same, when -ctv says the same"},
    {{"-ctv", "--cache-type-v"}, PLANS, OPTION_CHOICE, NULL, AT(cache_v), .choices = KV_TYPES,
     .help = "the same, when -ctk says the same"},

    {{"-s", "--seed"}, SPEAKS, OPTION_SEED, "N", AT(seed), .standard = "-1",
     .help = "same seed, same text; -1: drawn, and told"},
    {{"--temp", "--temperature"}, SAMPLES, OPTION_FLOAT, "X", AT(temp), 0, 100, .standard = "0.8",
     .help = "temperature; 0 always takes the likeliest"},
    {{"--top-k"}, SAMPLES, OPTION_INT, "N", AT(top_k), 0, INT_MAX, .standard = "40",
     .help = "only the N likeliest; 0: off"},
    {{"--top-p"}, SAMPLES, OPTION_FLOAT, "X", AT(top_p), 0, 1, .standard = "0.95",
     .help = "only the likeliest that together reach X; 1: off"},
    {{"--min-p"}, SAMPLES, OPTION_FLOAT, "X", AT(min_p), 0, 1, .standard = "0.05",
     .help = "only those at least X times as likely as the likeliest"},
    {{"--repeat-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(repeat_penalty), 0.01, 100, .standard = "1",
     .help = "against tokens that occurred; 1: off"},
    {{"--repeat-last-n"}, SAMPLES, OPTION_INT, "N", AT(repeat_last_n), -1, INT_MAX, .standard = "64",
     .help = "how far back penalties look; -1: the whole context"},
    {{"--presence-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(presence_penalty), -100, 100,
     .standard = "0", .help = "off the logits of tokens that occurred"},
    {{"--frequency-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(frequency_penalty), -100, 100,
     .standard = "0", .help = "the same, for each time they occurred"},
    {{"--ignore-eos"}, SPEAKS, OPTION_FLAG, NULL, AT(ignore_eos), .set = "yes",
     .help = "never choose an end token"},
    {{"--stop", "-r", "--reverse-prompt"}, SPEAKS, OPTION_STRINGS, "TEXT", AT(stop),
     .help = "end before this text; may be repeated"},
    {{"--special"}, SPEAKS, OPTION_FLAG, NULL, AT(special), .set = "yes",
     .help = "control tokens appear in the text"},

    {{"--plan"}, FOR_INFO, OPTION_FLAG, NULL, AT(plan), .set = "yes",
     .help = "print the tape of operations instead"},
    {{"--keys"}, FOR_INFO, OPTION_FLAG, NULL, AT(keys), .set = "yes", .help = "list all metadata too"},
    {{"--no-bos"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(bos), .set = "no", .standard = "yes",
     .help = "no tokens around the text"},
    {{"--parse-special"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(parse_special), .set = "yes",
     .help = "the text of a control token stands for it"},
    {{"--ids"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(list), .set = "yes", .help = "print [1, 2, 3] only"},
    {{"--decode"}, FOR_TOKENIZE, OPTION_STRING, "IDS", AT(decode), .help = "print the text of these ids"},
    {{"--ids"}, FOR_LOGITS, OPTION_STRING, "IDS", AT(ids), .help = "the tokens: 1,5,9"},
    {{"--ids-file"}, FOR_LOGITS, OPTION_STRING, "FILE", AT(ids_file),
     .help = "the tokens from a file; - reads stdin"},
    {{"-o", "--output"}, FOR_LOGITS, OPTION_STRING, "OUT", AT(out),
     .help = "where the float32 logits [n_ids, n_vocab] go; - is stdout"},

    {{"-f", "--file"}, FOR_PERPLEXITY, OPTION_STRING, "FILE", AT(file), .help = "the text; - reads stdin"},
    {{"-c", "--ctx-size"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(n_ctx), 0, 1 << 30,
     .help = "tokens of a window, of whose second half each is judged (512); 0: as trained"},
    {{"--chunks"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(n_windows), 1, INT_MAX,
     .help = "windows at most (all that the text has)"},
    {{"-b", "--batch-size"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(n_batch), 1, 1 << 16,
     .help = "tokens of a window computed at once (as the executor likes)"},
    {{"--save-logits", "--save-all-logits"}, FOR_PERPLEXITY, OPTION_STRING, "F", AT(save),
     .help = "write what the model predicts, for --kl and llama-perplexity"},
    {{"--kl"}, FOR_PERPLEXITY, OPTION_STRING, "F", AT(base),
     .help = "the KL divergence from the model that wrote F; without -f: on F's own text"},

    {{"-m", "--model"}, FOR_BENCH, OPTION_STRINGS, "FILE", AT(models),
     .help = "the model; may be repeated (the demo model in the executable)"},
    {{"--shape"}, FOR_BENCH, OPTION_STRING, "SHAPE", AT(bench.shape),
     .help = "no file: random weights in this shape, made in memory"},
    {{"--mix"}, FOR_BENCH, OPTION_STRING, "MIX", AT(bench.mix), .standard = "q4_k_m",
     .help = "the types of these weights"},
    {{"--list-shapes"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.list_shapes), .set = "yes",
     .help = "print the shapes and mixes that there are"},
    {{"-p", "--n-prompt", "-npp"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_prompt), 0, 1 << 24,
     .standard = "512", .help = "tokens of prompt: 512,1024 or 256-4096*2 or 100-300+50; 0: none"},
    {{"-n", "--n-gen", "-ntg"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_gen), 0, 1 << 24,
     .standard = "128", .help = "tokens generated; 0: none"},
    {{"-pg"}, FOR_BENCH, OPTION_PAIRS, "PP,TG", AT(bench.pairs), 0, 1 << 24,
     .help = "a prompt and what is generated behind it, as one; may be repeated"},
    {{"-d", "--n-depth"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.depth), 0, 1 << 24, .standard = "0",
     .help = "tokens in the context before, not timed"},
    {{"-npl"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_seq), 1, 4096,
     .help = "so many sequences at once: the table of llama-batched-bench"},
    {{"--repetitions", "-r"}, FOR_BENCH, OPTION_INT, "N", AT(bench.n_repetitions), 1, 10000,
     .standard = "5", .help = "how often each test is run"},
    {{"--no-warmup"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.warm_up), .set = "no", .standard = "yes",
     .help = "no run before the timed ones"},
    {{"-b", "--batch-size"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.batch), 0, 1 << 16, .standard = "0",
     .help = "rows of a prompt in one run, if -ub is not less; 0: as the executor likes"},
    {{"-ub", "--ubatch-size"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.ubatch), 0, 1 << 16,
     .standard = "0", .help = "the same, if -b is not less"},
    {{"-t", "--threads"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_threads), 0, 1024, .standard = "0",
     .help = "threads; 0: the CPUs this process may use"},
    {{"-ngl", "--gpu-layers", "--n-gpu-layers"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.gpu_layers), 0,
     INT_MAX, .choices = "auto all", .standard = "auto", .help = "layers on the GPU: 0 or all of them"},
    {{"--kv"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.kv), .choices = KV_TYPES, .standard = "f16",
     .help = "the key and value cache; with commas between: all of them"},
    {{"-ctk", "--cache-type-k"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.cache_k),
     .choices = KV_TYPES, .help = "the same, when -ctv says the same"},
    {{"-ctv", "--cache-type-v"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.cache_v),
     .choices = KV_TYPES, .help = "the same, when -ctk says the same"},
    {{"-fa", "--flash-attn"}, FOR_BENCH, OPTION_CHOICE, NULL, AT(bench.flash_attn),
     .choices = "1 on auto", .help = "always on: scores of attention are never kept whole"},
    {{"--real"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.real), .set = "yes",
     .help = "a real text (-f) and its continuation, sampled, instead of random tokens"},
    {{"--ceilings"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.ceilings), .set = "yes",
     .help = "measure the machine instead of a model"},
    {{"--compare"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.compare), .set = "yes",
     .help = "zgen bench --compare A.jsonl B.jsonl: how many times as fast B is"},
    {{"-o", "--output"}, FOR_BENCH, OPTION_CHOICE, NULL, AT(bench.format), .choices = "md csv json jsonl",
     .standard = "md", .help = "what to print"},

    {{"--layers"}, FOR_SYNTH | FOR_BENCH, OPTION_INT, "N", AT(n_layers), 1, 4096,
     .help = "so many layers only (all that the shape has)"},
    {{"-s", "--seed"}, FOR_SYNTH | FOR_BENCH, OPTION_INT, "N", AT(fixed_seed), 0, INT_MAX, .standard = "1",
     .help = "same seed, same random weights and tokens"},

    {{"--requantize", "--allow-requantize"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(requantize), .set = "yes",
     .help = "take weights that are quantised already, too"},

    {{"--output-format"}, READS | FOR_INFO | FOR_PERPLEXITY | FOR_QUANTIZE, OPTION_CHOICE, NULL, AT(format), .choices = "text json",
     .standard = "text", .help = "what to print"},
    {{"--json"}, READS | FOR_INFO | FOR_PERPLEXITY | FOR_QUANTIZE, OPTION_WORD, NULL, AT(format), .set = "json",
     .help = "short for --output-format json"},
    {{"--logprobs"}, FOR_GENERATE, OPTION_INT, "N", AT(n_logprobs), 0, 100, .standard = "0",
     .help = "with --json: log-probabilities of the N likeliest"},
    {{"--no-perf"}, SPEAKS, OPTION_FLAG, NULL, AT(perf), .set = "no", .standard = "yes",
     .help = "no timings among the notices"},
    {{"--profile"}, RUNS | FOR_BENCH, OPTION_CHOICE, NULL, AT(profile), .choices = "kinds ops", .set = "kinds",
     .help = "at the end, what each kind of operation takes, or each one"},
    {{"--verify"}, RUNS | FOR_BENCH, OPTION_INT, "N", AT(n_verify), 1, INT_MAX,
     .help = "the first N steps beside the scalar executor; exit 1 if they stray"},
    {{"-q", "--quiet"}, ANY, OPTION_FLAG, NULL, AT(quiet), .set = "yes", .help = "no notices"},
    {{"-v", "--verbose"}, ANY, OPTION_FLAG, NULL, AT(verbose), .set = "yes",
     .help = "notices even when stderr is no terminal"},
    {{"-h", "--help"}, ANY, OPTION_FLAG, NULL, AT(help), .set = "yes", .help = "this text"},
    {{"--version"}, ANY, OPTION_FLAG, NULL, AT(version), .set = "yes", .help = "the version"},
};
// clang-format on

enum {
    N_OPTIONS = sizeof TABLE / sizeof *TABLE,
    N_NAMES = N_OPTIONS * 4,
    FIRST = 256, // getopt's value for the first option: beyond the characters that it returns
};

const Option *options_table(int *n) {
    *n = N_OPTIONS;
    return TABLE;
}

/* ---- values ---- */

/* The place of a word in a list with spaces between, or -1. */
static int find_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    for (int place = 0; choices && *choices; place++) {
        size_t length = strcspn(choices, " ");
        if (length == n && memcmp(choices, word, n) == 0) return place;
        choices += length + strspn(choices + length, " ");
    }
    return -1;
}

static bool wants(const char *name, const char *text, const char *what, Err *e) {
    return err_set(e, ERR_USAGE, "option %s: '%.100s' is not %s", name, text, what);
}

static bool parse_int(const Option *o, const char *name, const char *text, int *out, Err *e) {
    char what[120];
    snprintf(what, sizeof what, "a whole number from %.0f to %.0f%s%s", o->min, o->max,
             o->choices ? " or one of: " : "", o->choices ? o->choices : "");
    int place = find_choice(o->choices, text);
    if (place >= 0) {
        *out = -1 - place;
        return true;
    }
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    bool whole = strspn(text, "+-0123456789") == strlen(text) && end != text && *end == 0;
    if (!whole || errno || value < o->min || value > o->max) return wants(name, text, what, e);
    *out = (int)value;
    return true;
}

static bool parse_float(const Option *o, const char *name, const char *text, float *out, Err *e) {
    char what[80], *end;
    snprintf(what, sizeof what, "a number from %g to %g", o->min, o->max);
    double value = strtod(text, &end);
    bool whole = strspn(text, "+-.0123456789eE") == strlen(text) && end != text && *end == 0;
    if (!whole || !(value >= o->min && value <= o->max)) return wants(name, text, what, e);
    *out = (float)value;
    return true;
}

static bool parse_seed(const char *name, const char *text, Seed *out, Err *e) {
    char *end;
    errno = 0;
    out->given = strcmp(text, "-1") != 0;
    out->value = out->given ? strtoull(text, &end, 10) : 0;
    if (out->given && (strspn(text, "0123456789") != strlen(text) || !*text || errno))
        return wants(name, text, "a whole number from 0 to 18446744073709551615, or -1", e);
    return true;
}

static bool parse_choice(const Option *o, const char *name, const char *text, const char **out, Err *e) {
    if (find_choice(o->choices, text) < 0)
        return err_set(e, ERR_USAGE, "option %s: '%.100s' is not one of: %s", name, text, o->choices);
    *out = text;
    return true;
}

static bool add_string(const char *name, const char *text, const char **list, int *n, Err *e) {
    if (!*text)
        return err_set(e, ERR_USAGE, "option %s: the text is empty; give at least one character", name);
    list[(*n)++] = text;
    return true;
}

/* ---- lists ---- */

static void add_int(IntList *list, int value) {
    list->values = mem_resize(list->values, (size_t)(list->n + 1) * sizeof *list->values);
    list->values[list->n++] = value;
}

/* A number of digits at *p within the option's range, which is then passed over. */
static bool read_number(const Option *o, const char **p, int *out) {
    double value = 0;
    const char *end = *p + strspn(*p, "0123456789");
    for (const char *c = *p; c < end; c++) value = value * 10 + (*c - '0');
    if (end == *p || value < o->min || value > o->max) return false;
    *out = (int)value, *p = end;
    return true;
}

/* FIRST, FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR at *p, which is passed over.  LAST is part of the
 * range where a step hits it. */
static bool read_range(const Option *o, const char **p, IntList *list) {
    int first, last, step = 1;
    if (!read_number(o, p, &first)) return false;
    bool is_range = **p == '-';
    last = first;
    if (is_range && (++*p, !read_number(o, p, &last))) return false;
    char by = is_range && (**p == '*' || **p == '+') ? *(*p)++ : 0;
    Option any = {.max = INT_MAX};
    if (by && !read_number(&any, p, &step)) return false;
    if (last < first || step < 1 || (by == '*' && (step < 2 || first < 1))) return false;
    for (double i = first; i <= last && list->n <= MOST_VALUES; i = by == '*' ? i * step : i + step)
        add_int(list, (int)i);
    return true;
}

/* The next of words with commas between: its length, the comma is not counted. */
static bool read_choice(const Option *o, const char *p, size_t length, int *place) {
    char word[40];
    snprintf(word, sizeof word, "%.*s", (int)length, p);
    *place = length < sizeof word ? find_choice(o->choices, word) : -1;
    return *place >= 0;
}

static bool parse_ints(const Option *o, const char *name, const char *text, IntList *list, Err *e) {
    char what[160];
    snprintf(what, sizeof what, "a list like 1,2,4-16*2,20-40+10 of whole numbers from %.0f to %.0f%s%s",
             o->min, o->max, o->choices ? " or of: " : "", o->choices ? o->choices : "");
    if (list->is_standard) list->n = 0;
    for (const char *p = text;; p++) {
        size_t length = strcspn(p, ",");
        int place;
        if (read_choice(o, p, length, &place))
            add_int(list, -1 - place), p += length;
        else if (!read_range(o, &p, list))
            return wants(name, text, what, e);
        if (list->n > MOST_VALUES)
            return err_set(e, ERR_USAGE, "option %s: '%.100s' are more than %d values", name, text,
                           MOST_VALUES);
        if (*p == 0) break;
        if (*p != ',') return wants(name, text, what, e);
    }
    list->is_standard = false;
    return true;
}

static bool parse_pair(const Option *o, const char *name, const char *text, IntList *list, Err *e) {
    int first, second;
    const char *p = text;
    bool ok = read_number(o, &p, &first) && *p++ == ',' && read_number(o, &p, &second) && *p == 0;
    if (!ok) return wants(name, text, "two whole numbers like 512,128", e);
    add_int(list, first), add_int(list, second);
    return true;
}

static void clear_words(WordList *list) {
    while (list->n) free(list->values[--list->n]);
}

static bool parse_choices(const Option *o, const char *name, const char *text, WordList *list, Err *e) {
    if (list->is_standard) clear_words(list);
    for (const char *p = text;; p++) {
        size_t length = strcspn(p, ",");
        int place;
        if (!read_choice(o, p, length, &place))
            return err_set(e, ERR_USAGE, "option %s: '%.100s' is not a list of: %s", name, text, o->choices);
        list->values = mem_resize(list->values, (size_t)(list->n + 1) * sizeof *list->values);
        list->values[list->n] = mem_string(p), list->values[list->n++][length] = 0;
        p += length;
        if (*p == 0) break;
    }
    list->is_standard = false;
    return true;
}

static bool set_value(const Option *o, const char *name, const char *text, Options *out, Err *e) {
    void *field = (char *)out + o->at;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)field = strcmp(text, "yes") == 0;
        return true;
    case OPTION_WORD:
    case OPTION_STRING:
        *(const char **)field = text;
        return true;
    case OPTION_INT:
        return parse_int(o, name, text, field, e);
    case OPTION_FLOAT:
        return parse_float(o, name, text, field, e);
    case OPTION_SEED:
        return parse_seed(name, text, field, e);
    case OPTION_CHOICE:
        return parse_choice(o, name, text, field, e);
    case OPTION_STRINGS:
        return add_string(name, text, *(const char ***)field, (int *)((const char ***)field + 1), e);
    case OPTION_INTS:
        return parse_ints(o, name, text, field, e);
    case OPTION_PAIRS:
        return parse_pair(o, name, text, field, e);
    case OPTION_CHOICES:
        return parse_choices(o, name, text, field, e);
    }
    return true;
}

static void set_defaults(int argc, Options *out) {
    *out = (Options){.n_ctx = -1};
    out->stop = mem_new((size_t)argc + 1, sizeof *out->stop);
    out->models = mem_new((size_t)argc + 1, sizeof *out->models);
    out->rest = mem_new((size_t)argc + 1, sizeof *out->rest);
    for (int i = 0; i < N_OPTIONS; i++) {
        Err e;
        bool ok = !TABLE[i].standard || set_value(&TABLE[i], TABLE[i].names[0], TABLE[i].standard, out, &e);
        assert(ok), (void)ok;
        void *field = (char *)out + TABLE[i].at;
        if (TABLE[i].kind == OPTION_INTS) ((IntList *)field)->is_standard = true;
        if (TABLE[i].kind == OPTION_CHOICES) ((WordList *)field)->is_standard = true;
    }
}

void options_free(Options *o) {
    for (int i = 0; i < N_OPTIONS; i++) {
        void *field = (char *)o + TABLE[i].at;
        if (TABLE[i].kind == OPTION_CHOICES) clear_words(field), free(((WordList *)field)->values);
        if (TABLE[i].kind == OPTION_INTS || TABLE[i].kind == OPTION_PAIRS) free(((IntList *)field)->values);
    }
    free(o->stop);
    free(o->models);
    free(o->rest);
    *o = (Options){0};
}

bool options_json(const Options *o) {
    return strcmp(o->format, "json") == 0;
}

/* ---- names ---- */

static const char *bare(const char *name) {
    return name + strspn(name, "-");
}

static int takes_value(const Option *o) {
    bool never = o->kind == OPTION_FLAG || o->kind == OPTION_WORD;
    return never ? no_argument : o->set ? optional_argument : required_argument;
}

/* All names for getopt, those of the command first: some names mean different things to different commands.
 * val is FIRST + the place in the table. */
static void list_names(unsigned command, struct option *out) {
    int n = 0;
    for (int own = 1; own >= 0; own--)
        for (int i = 0; i < N_OPTIONS; i++) {
            if (((TABLE[i].commands & command) != 0) != own) continue;
            for (int k = 0; k < 4 && TABLE[i].names[k]; k++) {
                const char *name = bare(TABLE[i].names[k]);
                int seen = 0;
                while (seen < n && strcmp(out[seen].name, name) != 0) seen++;
                if (seen == n) out[n++] = (struct option){name, takes_value(&TABLE[i]), NULL, FIRST + i};
            }
        }
    out[n] = (struct option){0};
}

/* How many letters must change to make a of b (Levenshtein), for short words. */
static int distance(const char *a, const char *b) {
    enum { LONGEST = 40 };
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return LONGEST;
    int row[LONGEST + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]),
                gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < gap ? change : gap;
        }
    }
    return row[m];
}

/* The name of an option of the command that the word may have been meant for, or NULL. */
static const char *guess(unsigned command, const char *word) {
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 1;
    for (int i = 0; i < N_OPTIONS; i++)
        for (int k = 0; k < 4 && TABLE[i].names[k] && (TABLE[i].commands & command); k++) {
            const char *name = bare(TABLE[i].names[k]);
            int d = strlen(word) > 2 && strncmp(name, word, strlen(word)) == 0 ? 0 : distance(word, name);
            if (d < least) least = d, best = TABLE[i].names[k];
        }
    return best;
}

static bool unknown(unsigned command, const char *argument, Err *e) {
    char word[60];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(argument, "="), argument);
    const char *meant = guess(command, bare(word));
    return err_set(e, ERR_USAGE, "unknown option '%s'%s%s%s; zgen --help lists all, none can be shortened",
                   word, meant ? "; did you mean " : "", meant ? meant : "", meant ? "" : "");
}

/* Whether the argument spells a name of the option whole. */
static bool is_spelled(const Option *o, const char *argument) {
    const char *word = argument[1] == '-' ? argument + 2 : argument + 1;
    size_t n = strcspn(word, "=");
    for (int k = 0; k < 4 && o->names[k]; k++)
        if (strlen(bare(o->names[k])) == n && memcmp(bare(o->names[k]), word, n) == 0) return true;
    return false;
}

/* Option o was found for an argument; code is what getopt made of its value. */
static bool take(unsigned command, const Option *o, const char *argument, int code, Options *out, Err *e) {
    char word[60];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(argument, "="), argument);
    if (!is_spelled(o, argument)) return unknown(command, argument, e);
    if (!(o->commands & command))
        return err_set(e, ERR_USAGE, "option %s belongs to zgen %s, not to zgen %s", word,
                       command_name(o->commands), command_name(command));
    if (code == ':') return err_set(e, ERR_USAGE, "option %s needs a value", word);
    if (code == '?') return err_set(e, ERR_USAGE, "option %s takes no value", word);
    return set_value(o, word, optarg ? optarg : o->set, out, e);
}

bool options_parse(unsigned command, int argc, char **argv, Options *out, Err *e) {
    struct option names[N_NAMES + 1];
    list_names(command, names);
    set_defaults(argc, out);
    optind = 0, optopt = 0; // 0: glibc begins anew
    for (;;) {
        const char *argument = argv[optind ? optind : 1];
        int code = getopt_long_only(argc, argv, "-:", names, NULL);
        int place = (code == ':' || code == '?' ? optopt : code) - FIRST;
        if (code == -1) break;
        if (code == 1)
            out->rest[out->n_rest++] = optarg;
        else if (place < 0)
            return unknown(command, argument, e);
        else if (!take(command, &TABLE[place], argument, code, out, e))
            return false;
    }
    while (optind < argc) out->rest[out->n_rest++] = argv[optind++];
    return true;
}
