/* options: the command line as one table and one struct.
 *
 * The table in options.c is the only place where an option of zgen is named: its spellings, the commands it belongs
 * to, the kind and range of its value, its default, its line of help.  The parser and help read that table; a
 * test compares it with the man page.  A long name may begin with one dash or two (-ngl); its value is the
 * next argument or follows '='.  A value that may be left out must follow '='.
 *
 * Refused are abbreviations, numbers followed by other characters, values out of range, ranges without an
 * end, and options of another command.  The one trick: a default is the text that a user would type, read by
 * the same parser. */
#ifndef ZGEN_CLI_OPTIONS_H
#define ZGEN_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "command.h"
#include "notice.h"
#include "../base/err.h"

typedef struct Seed {
    bool given; // false: a seed is drawn at random
    uint64_t value;
} Seed;

/* The values of an option that may be given several times.  The first one given replaces the default. */
typedef struct IntList {
    int *values; // [n]
    int n;
    bool is_standard; // the values are the default
} IntList;

typedef struct WordList {
    char **values; // [n]
    int n;
    bool is_standard;
} WordList;

typedef struct BenchOptions {              // each list is one factor of a cross product
    IntList n_prompt, n_gen, pairs, depth; // pairs: prompt, generated, prompt, generated, ...
    IntList batch, ubatch;                 // 0: the executor's choice
    IntList n_threads, gpu_layers;
    IntList n_seq; // empty: one sequence at a time
    WordList kv, cache_k, cache_v;
    WordList flash_attn;
    int n_repetitions, delay; // delay: seconds
    bool warm_up, real, ceilings, compare, list_shapes;
    const char *shape, *mix;
    const char *format, *err_format; // one of the option's choices; err_format of stderr, or NULL
} BenchOptions;

typedef struct RopeOptions { // 0, of YaRN -1: the model's
    float freq_base, freq_scale, scale;
    const char *scaling;
    int yarn_orig_ctx;
    float yarn_ext_factor, yarn_attn_factor, yarn_beta_slow, yarn_beta_fast;
} RopeOptions;

/* A whole number that may also be one of the option's choices: choice i is stored as -1 - i, llama.cpp's
 * numbers for these. */
enum { GPU_LAYERS_AUTO = -1, GPU_LAYERS_ALL = -2, GPU_LAYERS_MANY = 99 };

typedef struct QuantizeOptions { // NULL, 0: not given
    bool requantize, pure, keep_output, dry_run;
    bool keep_split, first_is_empty;
    const char *embd_type, *output_type;
    const char *imatrix, *split_max_size;
    int split_max_tensors;
    const char **rules; // PATTERN=TYPE [n_rules]
    int n_rules;
} QuantizeOptions;

typedef struct Options {
    const char *model;         // NULL: the demo model
    const char *prompt, *file; // NULL: not given
    const char *binary_file;   // a file whose bytes are the text
    bool escape;               // escapes in prompt, system and stop are replaced
    bool echo, special;
    const char *pre;       // the pre-tokenizer that replaces the file's, or NULL
    const char **override; // [n_override] of --override-kv
    int n_override;
    RopeOptions rope;
    bool chat, single_turn, print_prompt;
    bool continues;                                              // the last message
    const char *system, *system_file, *messages, *chat_template; // NULL: not given, and so below
    const char *chat_kwargs;                                     // variables of the template, as JSON
    int reasoning_budget;                                        // tokens of a thought, -1: any number
    const char *think, *on_full;                                 // one of the option's choices
    int n_predict;                                               // -1, -2: until the context is full
    int n_ctx;                                                   // -1: not given, 0: the trained length
    int n_threads;                                               // below 1: one for each CPU
    int gpu_layers;
    bool mlock;
    int prio;                    // -1 to 3
    const char *device;          // "auto", "cpu", "cuda", "cuda:N"
    const char *mem, *isa, *act; // one of the option's choices, and so below
    const char *weights, *kv, *cache_k, *cache_v;
    Seed seed;
    float temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int top_k, repeat_last_n;
    const char *samplers, *sampler_seq; // the order of filters; NULL: not given
    float typical_p, top_n_sigma, xtc_probability, xtc_threshold, temp_range, temp_exponent;
    float dry_multiplier, dry_base;
    int dry_allowed_length, dry_last_n;
    const char **breakers; // of DRY [n_breakers]; none: the usual ones
    int n_breakers;
    int mirostat; // 0, 1, 2
    float mirostat_tau, mirostat_eta;
    const char **bias; // of logits, as given [n_bias]
    int n_bias;
    bool ignore_eos;
    const char **stop; // [n_stop]
    int n_stop;
    const char *format; // "text", "json"
    int n_logprobs;
    Notices notices;
    bool perf;                     // timings among the notices
    const char *profile;           // "kinds", "ops"; NULL: no profile
    int n_verify;                  // steps to check, 0: none
    bool plan, keys;               // info
    bool bos, parse_special, list; // tokenize
    bool clean_spaces;             // of the decoded text
    const char *decode;
    const char *ids, *ids_file, *out; // logits
    const char *base, *save;          // perplexity: the logits files to compare with and to write
    bool kl_divergence;               // save is the file to compare with
    int n_windows, n_batch;           // perplexity; below 1: the whole text; the executor's choice
    const char *questions;            // perplexity: their form; NULL: a text
    int n_questions;                  // 0: as many as the form has by default
    int stride;                       // perplexity: tokens from window to window; 0: windows do not overlap
    int n_layers, fixed_seed;         // synth, bench; 0 layers: all of the shape
    const char **models;              // bench [n_models]; none: the demo model
    int n_models;
    BenchOptions bench;
    QuantizeOptions quantize;
    bool process_output; // imatrix
    bool help, version;
    union {
        bool flag;
        int number;
        float real;
        const char *text;
    } unused;          // the value of an option without effect, see llama_flags.h
    const char **rest; // arguments that are not options [n_rest]
    int n_rest;
} Options;

typedef enum OptionKind {
    OPTION_FLAG,    // no value: sets a bool
    OPTION_WORD,    // no value: sets a const char *
    OPTION_INT,     // int, or one of the choices
    OPTION_FLOAT,   // float
    OPTION_SEED,    // Seed
    OPTION_STRING,  // const char *
    OPTION_STRINGS, // adds to a const char **; the int count is the field after it
    OPTION_CHOICE,  // const char *, one of the choices
    OPTION_INTS,    // adds to an IntList: 512,1024-8192*2,100-400+50 or choices
    OPTION_PAIRS,   // adds to an IntList: two numbers separated by a comma
    OPTION_CHOICES, // adds to a WordList: choices separated by commas
    OPTION_REFUSED, // of llama.cpp's tools: help says what to use instead
} OptionKind;

typedef struct Option {
    const char *names[4]; // as users write them, with dashes
    unsigned commands;    // FOR_...
    OptionKind kind;
    const char *value;    // the value's name in help
    size_t at;            // offset of the field in Options
    double min, max;      // INT, FLOAT, INTS, PAIRS; inclusive
    const char *choices;  // INT, CHOICE, INTS, CHOICES: words separated by spaces
    const char *set;      // the value without an argument: FLAG: "yes" or "no"; WORD, CHOICE: a word
    const char *standard; // the default as a user would type it; NULL: the field is 0
    const char *help;
} Option;

const Option *options_table(int *n);

typedef struct OptionList {
    const Option *rows; // [n]
    int n;
} OptionList;

/* Reads argv[1..argc-1] as the arguments of one command (a FOR_ bit), with more options behind those of the
 * table, which set no list.  Of these a refused value is followed by the help, and a value that may be left
 * out may be the next argument.  argv must outlive *out; underscores in its names of options become dashes.
 * false: ERR_USAGE.  In both cases options_free releases *out. */
bool options_parse(unsigned command, OptionList more, int argc, char **argv, Options *out, Err *e);
void options_free(Options *o);

/* Whether the result is printed as JSON. */
bool options_json(const Options *o);

#endif
