/* options: the command line as one table and one struct.
 *
 * The table in options.c is the only place where an option is named: its spellings, the commands it belongs
 * to, the kind and range of its value, its default, its line of help.  Parser, help and the man page follow
 * it.  Long names are understood with one dash or two (-ngl), values in the next argument or behind '=',
 * which is where a value stands that may be absent.
 *
 * It refuses what others let pass: abbreviations, numbers with something behind them, values out of range,
 * ranges that never end, options of another command.  The one trick: a default is the text that a user would
 * have typed, read by the same parser. */
#ifndef ZGEN_CLI_OPTIONS_H
#define ZGEN_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "command.h"
#include "../base/err.h"

typedef struct Seed {
    bool given; // else one is to be drawn
    uint64_t value;
} Seed;

/* What is in a list before the user's first value is the default, which that value replaces. */
typedef struct IntList {
    int *values; // [n]
    int n;
    bool is_standard;
} IntList;

typedef struct WordList {
    char **values; // [n]
    int n;
    bool is_standard;
} WordList;

typedef struct BenchOptions {              // every list is one side of a cross product
    IntList n_prompt, n_gen, pairs, depth; // pairs: prompt, generated, prompt, generated, ...
    IntList batch, ubatch;                 // 0: as the executor likes
    IntList n_threads, gpu_layers;
    IntList n_seq; // empty: no batches of sequences
    WordList kv, cache_k, cache_v;
    const char *flash_attn;
    int n_repetitions;
    bool warm_up, real, ceilings, compare, list_shapes;
    const char *shape, *mix;
    const char *format; // "md", "csv", "json", "jsonl"
} BenchOptions;

/* A whole number that may also be a word holds -1 - (place of the word in the option's choices). */
enum { GPU_LAYERS_AUTO = -1, GPU_LAYERS_ALL = -2, GPU_LAYERS_MANY = 99 };

typedef struct Options {
    const char *model;         // NULL: the demo model
    const char *prompt, *file; // NULL: not given
    bool escape;               // \n and the like in prompt are processed
    bool echo, special;
    const char *pre; // the pre-tokenizer instead of the file's, or NULL
    bool chat, single_turn, print_prompt;
    const char *system, *system_file, *messages, *chat_template; // NULL: not given, and so below
    const char *think, *on_full;                                 // one of their choices
    int n_predict;                                               // -1, -2: until the context is full
    int n_ctx;                                                   // -1: not given, 0: as trained
    int n_threads;                                               // 0: as many as there are CPUs
    int gpu_layers;
    const char *device;          // "auto", "cpu", "cuda", "cuda:N": setup reads it
    const char *mem, *isa, *act; // one of their choices, and so below
    const char *weights, *kv, *cache_k, *cache_v;
    Seed seed;
    float temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int top_k, repeat_last_n;
    bool ignore_eos;
    const char **stop; // [n_stop]
    int n_stop;
    const char *format; // "text", "json"
    int n_logprobs;
    bool quiet, verbose, perf;
    const char *profile;           // "kinds", "ops"; NULL: not wanted
    int n_verify;                  // steps, 0: none
    bool plan, keys;               // info
    bool bos, parse_special, list; // tokenize
    const char *decode;
    const char *ids, *ids_file, *out; // logits
    const char *base, *save;          // perplexity: files of logits to compare with and to write
    int n_windows, n_batch;           // 0: all of the text, as the executor likes
    int n_layers, fixed_seed;         // synth, bench; 0 layers: as many as the shape has
    const char **models;              // bench [n_models]; none: the demo model
    int n_models;
    BenchOptions bench;
    bool requantize; // quantize
    bool help, version;
    const char **rest; // arguments that are no options [n_rest]
    int n_rest;
} Options;

typedef enum OptionKind {
    OPTION_FLAG,    // no value: sets a bool
    OPTION_WORD,    // no value: sets a const char *
    OPTION_INT,     // int, or one of the choices
    OPTION_FLOAT,   // float
    OPTION_SEED,    // Seed
    OPTION_STRING,  // const char *
    OPTION_STRINGS, // adds to the list const char **, whose int count is behind it
    OPTION_CHOICE,  // const char *, one of the choices
    OPTION_INTS,    // IntList: 512,1024-8192*2,100-400+50 or choices, adding up
    OPTION_PAIRS,   // IntList: two numbers with a comma between, adding up
    OPTION_CHOICES, // WordList: choices with commas between, adding up
} OptionKind;

typedef struct Option {
    const char *names[4]; // as users write them, dashes included
    unsigned commands;    // FOR_...
    OptionKind kind;
    const char *value;    // what help calls it; its choices too
    size_t at;            // of the field in Options
    double min, max;      // INT, FLOAT, INTS, PAIRS; inclusive
    const char *choices;  // INT, CHOICE, INTS, CHOICES: words with spaces between
    const char *set;      // FLAG: "yes" or "no", WORD: the word; CHOICE: the word where no value is given
    const char *standard; // the default as a user would type it, or NULL: 0, false, NULL
    const char *help;
} Option;

const Option *options_table(int *n);

/* Reads argv[1..argc-1] for one command (a FOR_ bit; argv[0] is skipped).  argv must outlive *out.  false:
 * ERR_USAGE; in both cases options_free releases *out. */
bool options_parse(unsigned command, int argc, char **argv, Options *out, Err *e);
void options_free(Options *o);

bool options_json(const Options *o); // --json

#endif
