/* options: see options.h.
 *
 * getopt_long_only reads the arguments.  getopt accepts unique prefixes of names, so the spelling is compared
 * with the table afterwards.  No short options are given to getopt: -m is a long name of one letter. */
#include "options.h"
#include "unescape.h"
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
    GENERATES = FOR_GENERATE | FOR_CHAT, // commands that generate text
    SAMPLES = GENERATES | FOR_BENCH,
    RUNS = GENERATES | FOR_LOGITS | FOR_PERPLEXITY, // commands that run a model once
    TEXTS = FOR_PERPLEXITY | FOR_IMATRIX,           // commands that run it over a text
    READS = FOR_GENERATE | FOR_TOKENIZE,            // commands that read a prompt
    PLANS = RUNS | FOR_INFO | FOR_IMATRIX,          // commands with one engine
    COMPUTES = PLANS | FOR_BENCH,                   // commands that choose a device
    ALL = RUNS | READS | FOR_INFO | FOR_IMATRIX,    // commands with one model
    WRITES = FOR_QUANTIZE | FOR_SPLIT | FOR_MERGE,  // commands that write a model of a model
    ANY = ALL | FOR_SYNTH | FOR_BENCH | WRITES,
};

enum { MOST_VALUES = 1000 }; // in one list

static const char KV_TYPES[] = "f16 f32 q8_0 fp8";

// clang-format off
static const Option TABLE[] = {
    {{"-m", "--model"}, ALL, OPTION_STRING, "FILE", AT(model),
     .help = "the model file; default: the demo model inside the executable"},
    {{"-p", "--prompt"}, READS | FOR_CHAT, OPTION_STRING, "TEXT", AT(prompt),
     .help = "the prompt; - reads standard input"},
    {{"-f", "--file"}, READS | FOR_CHAT | FOR_BENCH, OPTION_STRING, "FILE", AT(file),
     .help = "a file with the prompt; - reads standard input"},
    {{"-bf", "--binary-file"}, READS | FOR_CHAT | FOR_PERPLEXITY, OPTION_STRING, "FILE", AT(binary_file),
     .help = "the same for any bytes: no end of a line is changed"},
    {{"-e", "--escape"}, READS | FOR_CHAT, OPTION_FLAG, NULL, AT(escape), .set = "yes", .standard = "yes",
     .help = "replace escapes (\\n \\t \\xHH ...) in -p, -sys, --stop; the default"},
    {{"--no-escape"}, READS | FOR_CHAT, OPTION_FLAG, NULL, AT(escape), .set = "no",
     .help = "leave -p unchanged"},
    {{"--echo"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(echo), .set = "yes",
     .help = "print the prompt before the text"},
    {{"--pre"}, GENERATES | FOR_TOKENIZE | FOR_PERPLEXITY, OPTION_STRING, "NAME", AT(pre),
     .help = "use this pre-tokenizer instead of the model's"},
    {{"--override-kv"}, ALL | FOR_QUANTIZE, OPTION_STRINGS, "KEY=TYPE:VALUE", AT(override),
     .help = "replace metadata; types: int float bool str; may be repeated"},
    {{"--rope-freq-base"}, PLANS, OPTION_FLOAT, "X", AT(rope.freq_base), 0, 1e12, .standard = "0",
     .help = "base of the rotation; 0: the model's, as for all of these"},
    {{"--rope-freq-scale"}, PLANS, OPTION_FLOAT, "X", AT(rope.freq_scale), 0, 1e6, .standard = "0",
     .help = "factor of positions: 1 / --rope-scale"},
    {{"--rope-scale"}, PLANS, OPTION_FLOAT, "X", AT(rope.scale), 0, 1e6, .standard = "0",
     .help = "the context is X times the trained one"},
    {{"--rope-scaling"}, PLANS, OPTION_CHOICE, NULL, AT(rope.scaling), .choices = "none linear yarn",
     .help = "method of it"},
    {{"--yarn-orig-ctx"}, PLANS, OPTION_INT, "N", AT(rope.yarn_orig_ctx), 0, 1 << 28, .standard = "0",
     .help = "YaRN: the trained context in tokens"},
    {{"--yarn-ext-factor"}, PLANS, OPTION_FLOAT, "X", AT(rope.yarn_ext_factor), -1, 1, .standard = "-1",
     .help = "YaRN: mix of extrapolation; 0: as linear; -1: the model's"},
    {{"--yarn-attn-factor"}, PLANS, OPTION_FLOAT, "X", AT(rope.yarn_attn_factor), -1, 1000,
     .standard = "-1", .help = "YaRN: factor on the rotated values"},
    {{"--yarn-beta-slow"}, PLANS, OPTION_FLOAT, "X", AT(rope.yarn_beta_slow), -1, 1e6, .standard = "-1",
     .help = "YaRN: turns below which positions are scaled"},
    {{"--yarn-beta-fast"}, PLANS, OPTION_FLOAT, "X", AT(rope.yarn_beta_fast), -1, 1e6, .standard = "-1",
     .help = "YaRN: turns above which they are not"},

    {{"-cnv", "--conversation"}, GENERATES, OPTION_FLAG, NULL, AT(chat), .set = "yes",
     .help = "the same as zgen chat"},
    {{"-no-cnv", "--no-conversation"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(chat), .set = "no",
     .help = "no conversation; the default"},
    {{"-st", "--single-turn"}, GENERATES, OPTION_FLAG, NULL, AT(single_turn), .set = "yes",
     .help = "answer the prompt once, as a message in the chat template"},
    {{"-sys", "--system-prompt"}, GENERATES, OPTION_STRING, "TEXT", AT(system), .help = "the system prompt"},
    {{"-sysf", "--system-prompt-file"}, GENERATES, OPTION_STRING, "FILE", AT(system_file),
     .help = "a file with the system prompt"},
    {{"--messages"}, GENERATES, OPTION_STRING, "FILE", AT(messages),
     .help = "a JSON file with the conversation so far: {\"messages\": [...]}"},
    {{"--continue"}, GENERATES, OPTION_FLAG, NULL, AT(continues), .set = "yes",
     .help = "go on with the last of --messages, which is the assistant's"},
    {{"--chat-template", "--chat-template-file"}, GENERATES, OPTION_STRING, "NAME|FILE|TEXT", AT(chat_template),
     .help = "replaces the model's: a known format (chatml, llama3, ...), or Jinja"},
    {{"--chat-template-kwargs"}, GENERATES, OPTION_STRING, "JSON", AT(chat_kwargs),
     .help = "variables of the chat template: an object"},
    {{"--think"}, GENERATES, OPTION_CHOICE, NULL, AT(think), .choices = "show hide off",
     .help = "print the model's thinking or hide it; off: ask the model not to think"},
    {{"--reasoning-budget"}, GENERATES, OPTION_INT, "N", AT(reasoning_budget), -1, INT_MAX, .standard = "-1",
     .help = "tokens of a thought at most; 0: as --think off; -1: any number"},
    {{"--on-full"}, GENERATES, OPTION_CHOICE, NULL, AT(on_full), .choices = "stop drop",
     .help = "in a full context: refuse the turn (the default), or drop the oldest"},
    {{"--print-prompt"}, FOR_GENERATE, OPTION_FLAG, NULL, AT(print_prompt), .set = "yes",
     .help = "print the prompt after the chat template, and exit"},

    {{"-n", "--predict", "--n-predict"}, GENERATES, OPTION_INT, "N", AT(n_predict), -2, INT_MAX,
     .standard = "-1", .help = "limit of new tokens; -1, -2: until the context is full"},
    {{"-c", "--ctx-size"}, PLANS & ~TEXTS, OPTION_INT, "N", AT(n_ctx), 0, INT_MAX,
     .help = "context in tokens; 0: as trained; default: 4096, more for a long prompt"},
    {{"-t", "--threads"}, PLANS | FOR_SYNTH | WRITES, OPTION_INT, "N", AT(n_threads), -1, 1024,
     .help = "threads; 0, -1, default: CPUs of the process, fewer for a small model"},
    {{"-ngl", "--gpu-layers", "--n-gpu-layers"}, PLANS, OPTION_INT, "N", AT(gpu_layers), GPU_LAYERS_ALL,
     INT_MAX, .choices = "auto all", .standard = "auto", .help = "layers on the GPU: 0 or all"},
    {{"--device", "-dev"}, COMPUTES, OPTION_STRING, "auto|cpu|cuda[:N]", AT(device), .standard = "auto",
     .help = "the device that computes; N: number of the GPU"},
    {{"--mlock"}, COMPUTES, OPTION_FLAG, NULL, AT(mlock), .set = "yes",
     .help = "keep the weights that the CPU reads in memory"},
    {{"--prio"}, COMPUTES, OPTION_INT, "N", AT(prio), -1, 3, .standard = "0",
     .help = "priority of the process: -1 low, 1 medium, 2 high, 3 highest"},
    {{"--mem"}, COMPUTES, OPTION_CHOICE, NULL, AT(mem), .choices = "auto device managed", .standard = "auto",
     .help = "GPU memory of weights; auto: managed if the host shares it"},
    {{"--isa"}, COMPUTES, OPTION_CHOICE, NULL, AT(isa), .choices = "auto scalar avx2 avx512",
     .standard = "auto", .help = "instruction set of the CPU kernels"},
    {{"--act"}, COMPUTES, OPTION_CHOICE, NULL, AT(act), .choices = "auto f32 q8", .standard = "auto",
     .help = "activations in products; auto: q8, f32 with --isa scalar"},
    {{"--weights"}, COMPUTES, OPTION_CHOICE, NULL, AT(weights), .choices = "file fp8", .standard = "file",
     .help = "types of the file, or FP8 where that is smaller"},
    {{"--kv"}, PLANS, OPTION_CHOICE, NULL, AT(kv), .choices = KV_TYPES,
     .help = "type of the key and value cache; default: f16"},
    {{"-ctk", "--cache-type-k"}, PLANS, OPTION_CHOICE, NULL, AT(cache_k), .choices = KV_TYPES,
     .help = "the same; -ctv must name the same type"},
    {{"-ctv", "--cache-type-v"}, PLANS, OPTION_CHOICE, NULL, AT(cache_v), .choices = KV_TYPES,
     .help = "the same; -ctk must name the same type"},

    {{"-s", "--seed"}, GENERATES, OPTION_SEED, "N", AT(seed), .standard = "-1",
     .help = "seed: the same seed gives the same text; -1: a random one"},
    {{"--temp", "--temperature"}, SAMPLES, OPTION_FLOAT, "X", AT(temp), 0, 100, .standard = "0.8",
     .help = "temperature; 0: always the most likely token"},
    {{"--top-k"}, SAMPLES, OPTION_INT, "N", AT(top_k), 0, INT_MAX, .standard = "40",
     .help = "only the N most likely tokens; 0: off"},
    {{"--top-p"}, SAMPLES, OPTION_FLOAT, "X", AT(top_p), 0, 1, .standard = "0.95",
     .help = "only the top tokens, up to a total probability of X; 1: off"},
    {{"--min-p"}, SAMPLES, OPTION_FLOAT, "X", AT(min_p), 0, 1, .standard = "0.05",
     .help = "only tokens of at least X times the top probability; 0: off"},
    {{"--repeat-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(repeat_penalty), 0.01, 100, .standard = "1",
     .help = "divides the logits of recent tokens; 1: off"},
    {{"--repeat-last-n"}, SAMPLES, OPTION_INT, "N", AT(repeat_last_n), -1, INT_MAX, .standard = "64",
     .help = "the last N tokens are recent for the penalties; -1: all"},
    {{"--presence-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(presence_penalty), -100, 100,
     .standard = "0", .help = "subtracted from the logits of recent tokens"},
    {{"--frequency-penalty"}, SAMPLES, OPTION_FLOAT, "X", AT(frequency_penalty), -100, 100,
     .standard = "0", .help = "the same, times the number of occurrences"},
    {{"--samplers"}, GENERATES, OPTION_STRING, "A;B;...", AT(samplers),
     .help = "the filters in their order: top_k;temperature (see the man page)"},
    {{"--sampler-seq", "--sampling-seq"}, GENERATES, OPTION_STRING, "LETTERS", AT(sampler_seq),
     .help = "the same by letters; the usual order is edskypmxt"},
    {{"--typical", "--typical-p"}, GENERATES, OPTION_FLOAT, "X", AT(typical_p), 0, 1, .standard = "1",
     .help = "only tokens of typical surprise, of a probability of X; 1: off"},
    {{"--top-n-sigma", "--top-nsigma"}, GENERATES, OPTION_FLOAT, "X", AT(top_n_sigma), -1, 100, .standard = "-1",
     .help = "only logits within X deviations of the best; -1: off"},
    {{"--xtc-probability"}, GENERATES, OPTION_FLOAT, "X", AT(xtc_probability), 0, 1, .standard = "0",
     .help = "chance to drop the top tokens but the last of them; 0: off"},
    {{"--xtc-threshold"}, GENERATES, OPTION_FLOAT, "X", AT(xtc_threshold), 0, 1, .standard = "0.1",
     .help = "probability from which a token is a top one; above 0.5: off"},
    {{"--dynatemp-range"}, GENERATES, OPTION_FLOAT, "X", AT(temp_range), 0, 100, .standard = "0",
     .help = "temperature from temp - X to temp + X, by the entropy; 0: off"},
    {{"--dynatemp-exp"}, GENERATES, OPTION_FLOAT, "X", AT(temp_exponent), 0, 100, .standard = "1",
     .help = "exponent of the entropy there"},
    {{"--dry-multiplier"}, GENERATES, OPTION_FLOAT, "X", AT(dry_multiplier), 0, 100, .standard = "0",
     .help = "penalty of tokens that make a repetition longer; 0: off"},
    {{"--dry-base"}, GENERATES, OPTION_FLOAT, "X", AT(dry_base), 1, 100, .standard = "1.75",
     .help = "factor of that penalty for each further token"},
    {{"--dry-allowed-length"}, GENERATES, OPTION_INT, "N", AT(dry_allowed_length), 0, 1 << 24, .standard = "2",
     .help = "repetitions up to N tokens have no penalty"},
    {{"--dry-penalty-last-n"}, GENERATES, OPTION_INT, "N", AT(dry_last_n), -1, INT_MAX, .standard = "-1",
     .help = "repetitions of the last N tokens; -1: of all"},
    {{"--dry-sequence-breaker"}, GENERATES, OPTION_STRINGS, "TEXT", AT(breakers),
     .help = "where repetitions end, repeatable; default: newline : \" *; none"},
    {{"--mirostat"}, GENERATES, OPTION_INT, "N", AT(mirostat), 0, 2, .standard = "0",
     .help = "2: keep the surprise constant, instead of all filters; 0: off"},
    {{"--mirostat-ent"}, GENERATES, OPTION_FLOAT, "X", AT(mirostat_tau), 0, 100, .standard = "5",
     .help = "that surprise, in bits"},
    {{"--mirostat-lr"}, GENERATES, OPTION_FLOAT, "X", AT(mirostat_eta), 0, 100, .standard = "0.1",
     .help = "how fast it is corrected"},
    {{"-l", "--logit-bias"}, GENERATES, OPTION_STRINGS, "ID+X|TEXT+X", AT(bias),
     .help = "added to the logits of these tokens; repeatable"},
    {{"--ignore-eos"}, GENERATES, OPTION_FLAG, NULL, AT(ignore_eos), .set = "yes",
     .help = "never sample an end token"},
    {{"--stop", "-r", "--reverse-prompt"}, GENERATES, OPTION_STRINGS, "TEXT", AT(stop),
     .help = "end before this text; may be repeated"},
    {{"--special"}, GENERATES, OPTION_FLAG, NULL, AT(special), .set = "yes",
     .help = "print control tokens"},

    {{"--plan"}, FOR_INFO, OPTION_FLAG, NULL, AT(plan), .set = "yes",
     .help = "print the tape of operations instead"},
    {{"--keys"}, FOR_INFO, OPTION_FLAG, NULL, AT(keys), .set = "yes", .help = "list all metadata as well"},
    {{"--no-bos"}, READS, OPTION_FLAG, NULL, AT(bos), .set = "no", .standard = "yes",
     .help = "do not add BOS and EOS to the prompt"},
    {{"--parse-special"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(parse_special), .set = "yes",
     .help = "read the text of a control token as that token"},
    {{"--ids"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(list), .set = "yes",
     .help = "print only the ids, as [1, 2, 3]"},
    {{"--decode"}, FOR_TOKENIZE, OPTION_STRING, "IDS", AT(decode), .help = "print the text of these ids"},
    {{"--clean-spaces"}, FOR_TOKENIZE, OPTION_FLAG, NULL, AT(clean_spaces), .set = "yes",
     .help = "decode without spaces before punctuation, if the model's family does"},
    {{"--ids"}, FOR_LOGITS, OPTION_STRING, "IDS", AT(ids), .help = "token ids: 1,5,9"},
    {{"--ids-file"}, FOR_LOGITS, OPTION_STRING, "FILE", AT(ids_file),
     .help = "a file with token ids; - reads standard input"},
    {{"-o", "--output"}, FOR_LOGITS, OPTION_STRING, "OUT", AT(out),
     .help = "file for the logits, float32 [n_ids, n_vocab]; - is standard output"},

    {{"-f", "--file"}, TEXTS, OPTION_STRING, "FILE", AT(file),
     .help = "the text; - reads standard input"},
    {{"-c", "--ctx-size"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(n_ctx), 0, 1 << 30,
     .help = "tokens per window, half of them evaluated; 0: as trained; default: 512"},
    {{"-c", "--ctx-size"}, FOR_IMATRIX, OPTION_INT, "N", AT(n_ctx), 0, 1 << 30,
     .help = "tokens per window; 0: as trained; default: 512"},
    {{"-o", "--output"}, FOR_IMATRIX, OPTION_STRING, "OUT", AT(out),
     .help = "file for the matrix; default: imatrix.gguf"},
    {{"--process-output"}, FOR_IMATRIX, OPTION_FLAG, NULL, AT(process_output), .set = "yes",
     .help = "the output matrix, too"},
    {{"--chunks"}, TEXTS, OPTION_INT, "N", AT(n_windows), -1, INT_MAX,
     .help = "limit of windows; 0, -1 and the default: all of the text"},
    {{"--ppl-stride"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(stride), 0, 1 << 28,
     .help = "windows overlap: each begins N tokens after the one before; 0: they do not"},
    {{"-b", "--batch-size"}, FOR_PERPLEXITY, OPTION_INT, "N", AT(n_batch), 1, 1 << 16,
     .help = "tokens of a window in one run; default: the executor's choice"},
    {{"--save-logits", "--save-all-logits", "--kl-divergence-base"}, FOR_PERPLEXITY, OPTION_STRING, "F", AT(save),
     .help = "write the log-probabilities to F, for --kl and llama-perplexity"},
    {{"--hellaswag"}, FOR_PERPLEXITY, OPTION_WORD, NULL, AT(questions), .set = "hellaswag",
     .help = "answer the questions of -f: six lines each"},
    {{"--winogrande"}, FOR_PERPLEXITY, OPTION_WORD, NULL, AT(questions), .set = "winogrande",
     .help = "the same for lines of CSV with a gap"},
    {{"--multiple-choice"}, FOR_PERPLEXITY, OPTION_WORD, NULL, AT(questions), .set = "multiple-choice",
     .help = "the same for llama-perplexity's binary files"},
    {{"--hellaswag-tasks", "--winogrande-tasks", "--multiple-choice-tasks"}, FOR_PERPLEXITY, OPTION_INT, "N",
     AT(n_questions), 0, INT_MAX, .standard = "0", .help = "limit of questions; 0: all, of --hellaswag 400"},
    {{"--kl-divergence"}, FOR_PERPLEXITY, OPTION_FLAG, NULL, AT(kl_divergence), .set = "yes",
     .help = "compare with the file of --kl-divergence-base, as --kl"},
    {{"--kl"}, FOR_PERPLEXITY, OPTION_STRING, "F", AT(base),
     .help = "KL divergence from the model that wrote F; without -f, on the text of F"},

    {{"-m", "--model"}, FOR_BENCH, OPTION_STRINGS, "FILE", AT(models),
     .help = "the model file, repeatable; default: the demo model inside the executable"},
    {{"--shape"}, FOR_BENCH, OPTION_STRING, "SHAPE", AT(bench.shape),
     .help = "a model of random weights in this shape, made in memory, instead of a file"},
    {{"--mix"}, FOR_BENCH, OPTION_STRING, "MIX", AT(bench.mix), .standard = "q4_k_m",
     .help = "the types of its weights"},
    {{"--list-shapes"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.list_shapes), .set = "yes",
     .help = "list the shapes and mixes, and exit"},
    {{"-p", "--n-prompt", "-npp"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_prompt), 0, 1 << 24,
     .standard = "512", .help = "prompt tokens: 512,1024 or 256-4096*2 or 100-300+50; 0: none"},
    {{"-n", "--n-gen", "-ntg"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_gen), 0, 1 << 24,
     .standard = "128", .help = "generated tokens; 0: none"},
    {{"-pg"}, FOR_BENCH, OPTION_PAIRS, "PP,TG", AT(bench.pairs), 0, 1 << 24,
     .help = "one test of PP prompt tokens, then TG generated tokens; may be repeated"},
    {{"-d", "--n-depth"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.depth), 0, 1 << 24, .standard = "0",
     .help = "tokens already in the context, not timed"},
    {{"-npl"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_seq), 1, 4096,
     .help = "number of sequences at once: prints the table of llama-batched-bench"},
    {{"--repetitions", "-r"}, FOR_BENCH, OPTION_INT, "N", AT(bench.n_repetitions), 1, 10000,
     .standard = "5", .help = "timed runs of each test"},
    {{"--delay"}, FOR_BENCH, OPTION_INT, "N", AT(bench.delay), 0, 86400, .standard = "0",
     .help = "seconds of rest before each test"},
    {{"--no-warmup"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.warm_up), .set = "no", .standard = "yes",
     .help = "skip the untimed run before them"},
    {{"-b", "--batch-size"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.batch), 0, 1 << 16, .standard = "0",
     .help = "prompt tokens in one run: the lesser of -b and -ub; 0: automatic"},
    {{"-ub", "--ubatch-size"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.ubatch), 0, 1 << 16,
     .standard = "0", .help = "the same"},
    {{"-t", "--threads"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.n_threads), 0, 1024, .standard = "0",
     .help = "threads; 0: CPUs of the process, fewer for a small model"},
    {{"-ngl", "--gpu-layers", "--n-gpu-layers"}, FOR_BENCH, OPTION_INTS, "LIST", AT(bench.gpu_layers),
     GPU_LAYERS_ALL, INT_MAX, .choices = "auto all", .standard = "auto",
     .help = "layers on the GPU: 0 or all"},
    {{"--kv"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.kv), .choices = KV_TYPES, .standard = "f16",
     .help = "types of the key and value cache, separated by commas"},
    {{"-ctk", "--cache-type-k"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.cache_k),
     .choices = KV_TYPES, .help = "the same; -ctv must name the same type"},
    {{"-ctv", "--cache-type-v"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.cache_v),
     .choices = KV_TYPES, .help = "the same; -ctk must name the same type"},
    {{"-fa", "--flash-attn"}, FOR_BENCH, OPTION_CHOICES, NULL, AT(bench.flash_attn),
     .choices = "1 on auto 0 off", .help = "always on: attention scores are never stored whole"},
    {{"--real"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.real), .set = "yes",
     .help = "continue a real text (-f) with sampling, instead of random tokens"},
    {{"--ceilings"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.ceilings), .set = "yes",
     .help = "measure the limits of the machine instead of a model"},
    {{"--compare"}, FOR_BENCH, OPTION_FLAG, NULL, AT(bench.compare), .set = "yes",
     .help = "bench --compare A.jsonl B.jsonl: the speeds of B as multiples of A's"},
    {{"-o", "--output"}, FOR_BENCH, OPTION_CHOICE, NULL, AT(bench.format),
     .choices = "md csv json jsonl sql none", .standard = "md", .help = "output format"},
    {{"-oe", "--output-err"}, FOR_BENCH, OPTION_CHOICE, NULL, AT(bench.err_format),
     .choices = "none md csv json jsonl sql", .help = "the same for stderr"},

    {{"--layers"}, FOR_SYNTH | FOR_BENCH, OPTION_INT, "N", AT(n_layers), 1, 4096,
     .help = "number of layers; default: as many as the shape has"},
    {{"-s", "--seed"}, FOR_SYNTH | FOR_BENCH, OPTION_INT, "N", AT(fixed_seed), 0, INT_MAX, .standard = "1",
     .help = "seed of the random weights and tokens"},

    {{"--requantize", "--allow-requantize"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(quantize.requantize),
     .set = "yes", .help = "accept weights that are quantised already"},
    {{"--imatrix"}, FOR_QUANTIZE, OPTION_STRING, "FILE", AT(quantize.imatrix),
     .help = "weigh errors by this importance matrix, which zgen imatrix makes"},
    {{"--pure"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(quantize.pure), .set = "yes",
     .help = "one type for all matrices, without the exceptions of the mix"},
    {{"--leave-output-tensor"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(quantize.keep_output), .set = "yes",
     .help = "leave output.weight as it is"},
    {{"--output-tensor-type"}, FOR_QUANTIZE, OPTION_STRING, "TYPE", AT(quantize.output_type),
     .help = "the type of output.weight"},
    {{"--token-embedding-type"}, FOR_QUANTIZE, OPTION_STRING, "TYPE", AT(quantize.embd_type),
     .help = "the type of token_embd.weight"},
    {{"--tensor-type"}, FOR_QUANTIZE, OPTION_STRINGS, "PATTERN=TYPE", AT(quantize.rules),
     .help = "a type for tensors whose name has a match of this expression; repeatable"},
    {{"--dry-run"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(quantize.dry_run), .set = "yes",
     .help = "print types and sizes, and write nothing; OUT may be left out"},
    {{"--keep-split"}, FOR_QUANTIZE, OPTION_FLAG, NULL, AT(quantize.keep_split), .set = "yes",
     .help = "as many files as IN has: OUT-00001-of-00003.gguf ..."},
    {{"--split-max-size"}, WRITES & ~FOR_MERGE, OPTION_STRING, "N(M|G)", AT(quantize.split_max_size),
     .help = "begin another file before one has more than N mega- or gigabytes"},
    {{"--split-max-tensors"}, FOR_SPLIT, OPTION_INT, "N", AT(quantize.split_max_tensors), 1, INT_MAX,
     .help = "begin another file after N tensors; default without a size: 128"},
    {{"--no-tensor-first-split"}, FOR_SPLIT, OPTION_FLAG, NULL, AT(quantize.first_is_empty), .set = "yes",
     .help = "the first file has the metadata and no tensor"},

    {{"--output-format"}, READS | FOR_INFO | FOR_PERPLEXITY | FOR_QUANTIZE,
     OPTION_CHOICE, NULL, AT(format), .choices = "text json",
     .standard = "text", .help = "output format"},
    {{"--json"}, READS | FOR_INFO | FOR_PERPLEXITY | FOR_QUANTIZE,
     OPTION_WORD, NULL, AT(format), .set = "json",
     .help = "the same as --output-format json"},
    {{"--logprobs"}, FOR_GENERATE, OPTION_INT, "N", AT(n_logprobs), 0, 100, .standard = "0",
     .help = "with --json: log-probabilities of the N most likely tokens"},
    {{"--no-perf"}, GENERATES, OPTION_FLAG, NULL, AT(perf), .set = "no", .standard = "yes",
     .help = "notices without timings"},
    {{"--profile"}, RUNS | FOR_BENCH,
     OPTION_CHOICE, NULL, AT(profile), .choices = "kinds ops", .set = "kinds",
     .help = "print the time of each kind of operation, or of each operation, at the end"},
    {{"--verify"}, RUNS | FOR_BENCH, OPTION_INT, "N", AT(n_verify), 1, INT_MAX,
     .help = "compare the first N steps with the scalar executor; exit 1 beyond the limits"},
    {{"-q", "--quiet"}, ANY, OPTION_FLAG, NULL, AT(notices.quiet), .set = "yes", .help = "no notices"},
    {{"-v", "--verbose"}, ANY, OPTION_FLAG, NULL, AT(notices.verbose), .set = "yes",
     .help = "notices even when stderr is not a terminal"},
    {{"-h", "--help"}, ANY, OPTION_FLAG, NULL, AT(help), .set = "yes", .help = "this text"},
    {{"--version"}, ANY, OPTION_FLAG, NULL, AT(version), .set = "yes", .help = "the version"},
};
// clang-format on

enum {
    N_OPTIONS = sizeof TABLE / sizeof *TABLE,
    FIRST = 256, // getopt's value for the first option, above every character that getopt returns
};

const Option *options_table(int *n) {
    *n = N_OPTIONS;
    return TABLE;
}

typedef struct Parser {
    unsigned command; // FOR_...
    OptionList more;  // behind those of TABLE
} Parser;

/* Option i of TABLE and those behind it. */
static const Option *option_at(const Parser *p, int i) {
    assert(i >= 0 && i < N_OPTIONS + p->more.n);
    return i < N_OPTIONS ? &TABLE[i] : &p->more.rows[i - N_OPTIONS];
}

/* ---- values ---- */

/* The index of a word in a list separated by spaces, or -1. */
static int find_choice(const char *choices, const char *word) {
    size_t n = strlen(word);
    for (int i = 0; choices && *choices; i++) {
        size_t length = strcspn(choices, " ");
        if (length == n && memcmp(choices, word, n) == 0) return i;
        choices += length + strspn(choices + length, " ");
    }
    return -1;
}

/* what: the values that the option accepts. */
static bool refuse_value(const char *name, const char *text, const char *what, Err *e) {
    return err_set(e, ERR_USAGE, "option %s: '%.100s' is not %s", name, text, what);
}

static bool parse_int(const Option *o, const char *name, const char *text, int *out, Err *e) {
    char what[120];
    snprintf(what, sizeof what, "a whole number from %.0f to %.0f%s%s", o->min, o->max,
             o->choices ? " or one of: " : "", o->choices ? o->choices : "");
    int choice = find_choice(o->choices, text);
    if (choice >= 0) {
        *out = -1 - choice;
        return true;
    }
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    bool whole = strspn(text, "+-0123456789") == strlen(text) && end != text && *end == 0;
    if (!whole || errno || value < o->min || value > o->max) return refuse_value(name, text, what, e);
    *out = (int)value;
    return true;
}

static bool parse_float(const Option *o, const char *name, const char *text, float *out, Err *e) {
    char what[80], *end;
    snprintf(what, sizeof what, "a number from %g to %g", o->min, o->max);
    double value = strtod(text, &end);
    bool whole = strspn(text, "+-.0123456789eE") == strlen(text) && end != text && *end == 0;
    if (!whole || !(value >= o->min && value <= o->max)) return refuse_value(name, text, what, e);
    *out = (float)value;
    return true;
}

static bool parse_seed(const char *name, const char *text, Seed *out, Err *e) {
    char *end;
    errno = 0;
    out->given = strcmp(text, "-1") != 0;
    out->value = out->given ? strtoull(text, &end, 10) : 0;
    if (out->given && (strspn(text, "0123456789") != strlen(text) || !*text || errno))
        return refuse_value(name, text, "a whole number from 0 to 18446744073709551615, or -1", e);
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
    list[(*n)++] = mem_string(text);
    return true;
}

/* The escapes of --stop are replaced when all options are known: --no-escape may be the last. */
static bool unescape_stops(Options *out, Err *e) {
    for (int i = 0; out->escape && i < out->n_stop; i++) {
        Buf text = {0};
        unescape(out->stop[i], &text);
        if (strlen(text.data) < text.n) {
            buf_free(&text);
            return err_set(e, ERR_USAGE,
                           "option --stop: '%.100s' has a NUL, which no answer contains; drop it",
                           out->stop[i]);
        }
        free((char *)out->stop[i]);
        out->stop[i] = text.data; // the string of a Buf is a block of memory like any other
    }
    return true;
}

/* ---- lists ---- */

static void add_int(IntList *list, int value) {
    list->values = mem_resize(list->values, (size_t)(list->n + 1) * sizeof *list->values);
    list->values[list->n++] = value;
}

/* Reads the digits at *p, behind a minus if the range has negative numbers, as a number in the option's range, and
 * moves *p to their end. */
static bool read_number(const Option *o, const char **p, int *out) {
    double value = 0;
    bool is_negative = o->min < 0 && **p == '-';
    const char *digits = *p + is_negative, *end = digits + strspn(digits, "0123456789");
    for (const char *c = digits; c < end; c++) value = value * 10 + (*c - '0');
    if (is_negative) value = -value;
    if (end == digits || value < o->min || value > o->max) return false;
    *out = (int)value;
    *p = end;
    return true;
}

/* Reads FIRST, FIRST-LAST, FIRST-LAST+STEP or FIRST-LAST*FACTOR at *p, and moves *p to its end.  LAST is in
 * the range if a step reaches it exactly. */
static bool read_range(const Option *o, const char **p, IntList *list) {
    int first, last, step = 1;
    if (!read_number(o, p, &first)) return false;
    bool is_range = **p == '-';
    last = first;
    *p += is_range;
    if (is_range && !read_number(o, p, &last)) return false;
    char by = is_range && (**p == '*' || **p == '+') ? *(*p)++ : 0;
    Option any = {.max = INT_MAX};
    if (by && !read_number(&any, p, &step)) return false;
    if (last < first || step < 1 || (by == '*' && (step < 2 || first < 1))) return false;
    for (double i = first; i <= last && list->n <= MOST_VALUES; i = by == '*' ? i * step : i + step)
        add_int(list, (int)i);
    return true;
}

/* The index of the choice that the `length` bytes at p name, or -1. */
static int read_choice(const Option *o, const char *p, size_t length) {
    char word[40];
    snprintf(word, sizeof word, "%.*s", (int)length, p);
    return length < sizeof word ? find_choice(o->choices, word) : -1;
}

static bool parse_ints(const Option *o, const char *name, const char *text, IntList *list, Err *e) {
    char what[160];
    snprintf(what, sizeof what, "a list like 1,2,4-16*2,20-40+10 of whole numbers from %.0f to %.0f%s%s",
             o->min, o->max, o->choices ? " or of: " : "", o->choices ? o->choices : "");
    if (list->is_standard) list->n = 0;
    for (const char *p = text;; p++) {
        size_t length = strcspn(p, ",");
        int choice = read_choice(o, p, length);
        if (choice >= 0) {
            add_int(list, -1 - choice);
            p += length;
        } else if (!read_range(o, &p, list)) {
            return refuse_value(name, text, what, e);
        }
        if (list->n > MOST_VALUES)
            return err_set(e, ERR_USAGE, "option %s: '%.100s' has more than %d values", name, text,
                           MOST_VALUES);
        if (*p == 0) break;
        if (*p != ',') return refuse_value(name, text, what, e);
    }
    list->is_standard = false;
    return true;
}

static bool parse_pair(const Option *o, const char *name, const char *text, IntList *list, Err *e) {
    int first, second;
    const char *p = text;
    bool ok = read_number(o, &p, &first) && *p++ == ',' && read_number(o, &p, &second) && *p == 0;
    if (!ok) return refuse_value(name, text, "two whole numbers like 512,128", e);
    add_int(list, first);
    add_int(list, second);
    return true;
}

static void clear_words(WordList *list) {
    while (list->n) free(list->values[--list->n]);
}

static bool parse_choices(const Option *o, const char *name, const char *text, WordList *list, Err *e) {
    if (list->is_standard) clear_words(list);
    for (const char *p = text;; p++) {
        size_t length = strcspn(p, ",");
        if (read_choice(o, p, length) < 0)
            return err_set(e, ERR_USAGE, "option %s: '%.100s' is not a list of: %s", name, text, o->choices);
        char *word = mem_string(p);
        word[length] = 0;
        list->values = mem_resize(list->values, (size_t)(list->n + 1) * sizeof *list->values);
        list->values[list->n++] = word;
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
        *(bool *)field = text && strcmp(text, "yes") == 0;
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
    case OPTION_REFUSED:
        return err_set(e, ERR_USAGE, "option %s: %s", name, o->help);
    }
    return true;
}

static void set_defaults(int argc, Options *out) {
    *out = (Options){.n_ctx = -1};
    out->stop = mem_new((size_t)argc + 1, sizeof *out->stop);
    out->breakers = mem_new((size_t)argc + 1, sizeof *out->breakers);
    out->bias = mem_new((size_t)argc + 1, sizeof *out->bias);
    out->override = mem_new((size_t)argc + 1, sizeof *out->override);
    out->quantize.rules = mem_new((size_t)argc + 1, sizeof *out->quantize.rules);
    out->models = mem_new((size_t)argc + 1, sizeof *out->models);
    out->rest = mem_new((size_t)argc + 1, sizeof *out->rest);
    for (int i = 0; i < N_OPTIONS; i++) {
        Err e;
        bool ok = !TABLE[i].standard || set_value(&TABLE[i], TABLE[i].names[0], TABLE[i].standard, out, &e);
        assert(ok);
        (void)ok;
        void *field = (char *)out + TABLE[i].at;
        if (TABLE[i].kind == OPTION_INTS) ((IntList *)field)->is_standard = true;
        if (TABLE[i].kind == OPTION_CHOICES) ((WordList *)field)->is_standard = true;
    }
}

static void free_strings(const char **list, int n) {
    for (int i = 0; i < n; i++) free((char *)list[i]);
    free(list);
}

void options_free(Options *o) {
    for (int i = 0; i < N_OPTIONS; i++) {
        void *field = (char *)o + TABLE[i].at;
        if (TABLE[i].kind == OPTION_CHOICES) clear_words(field);
        if (TABLE[i].kind == OPTION_CHOICES) free(((WordList *)field)->values);
        if (TABLE[i].kind == OPTION_INTS || TABLE[i].kind == OPTION_PAIRS) free(((IntList *)field)->values);
    }
    free_strings(o->stop, o->n_stop);
    free_strings(o->breakers, o->n_breakers);
    free_strings(o->bias, o->n_bias);
    free_strings(o->override, o->n_override);
    free_strings(o->models, o->n_models);
    free_strings(o->quantize.rules, o->quantize.n_rules);
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
    bool never = o->kind == OPTION_FLAG || o->kind == OPTION_WORD || o->kind == OPTION_REFUSED;
    return never ? no_argument : o->set ? optional_argument : required_argument;
}

/* All names for getopt.  Two commands may give one name to different options, so the names of this command
 * are first, and the others follow where they are new.  val is FIRST + the index of option_at.  The caller
 * frees the list. */
static struct option *list_names(const Parser *p) {
    int n = 0, n_all = N_OPTIONS + p->more.n;
    struct option *out = mem_new((size_t)n_all * 4 + 1, sizeof *out);
    for (int own = 1; own >= 0; own--)
        for (int i = 0; i < n_all; i++) {
            const Option *o = option_at(p, i);
            if (((o->commands & p->command) != 0) != own) continue;
            for (int k = 0; k < 4 && o->names[k]; k++) {
                const char *name = bare(o->names[k]);
                int seen = 0;
                while (seen < n && strcmp(out[seen].name, name) != 0) seen++;
                if (seen == n) out[n++] = (struct option){name, takes_value(o), NULL, FIRST + i};
            }
        }
    return out;
}

/* The Levenshtein distance of two words of at most LONGEST letters; LONGEST for longer ones. */
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

/* The option name of the command that is closest to a misspelt word, or NULL. */
static const char *guess(unsigned command, const char *word) {
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 1;
    for (int i = 0; i < N_OPTIONS; i++)
        for (int k = 0; k < 4 && TABLE[i].names[k] && (TABLE[i].commands & command); k++) {
            const char *name = bare(TABLE[i].names[k]);
            int d = strlen(word) > 2 && strncmp(name, word, strlen(word)) == 0 ? 0 : distance(word, name);
            if (d >= least) continue;
            least = d;
            best = TABLE[i].names[k];
        }
    return best;
}

static bool unknown(unsigned command, const char *argument, Err *e) {
    char word[60];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(argument, "="), argument);
    const char *meant = guess(command, bare(word));
    return err_set(e, ERR_USAGE,
                   "unknown option '%s'%s%s; zgen help %s lists the options, which cannot be abbreviated",
                   word, meant ? "; did you mean " : "", meant ? meant : "", command_name(command));
}

/* Whether the argument spells a name of the option in full. */
static bool is_spelled(const Option *o, const char *argument) {
    const char *word = argument[1] == '-' ? argument + 2 : argument + 1;
    size_t n = strcspn(word, "=");
    for (int k = 0; k < 4 && o->names[k]; k++)
        if (strlen(bare(o->names[k])) == n && memcmp(bare(o->names[k]), word, n) == 0) return true;
    return false;
}

/* Behind the refusal of a value: what to use instead. */
static bool add_help(const Option *o, Err *e) {
    Err refusal = *e;
    if (o->kind != OPTION_REFUSED && o->help) err_set(e, refusal.code, "%s; %s", refusal.text, o->help);
    return false;
}

/* Sets the value of option i, to which getopt assigned the argument; code is ':' or '?' for an error. */
static bool set_option(const Parser *p, int i, const char *argument, int code, Options *out, Err *e) {
    const Option *o = option_at(p, i);
    char word[60];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(argument, "="), argument);
    if (!is_spelled(o, argument)) return unknown(p->command, argument, e);
    if (!(o->commands & p->command))
        return err_set(e, ERR_USAGE, "option %s belongs to zgen %s, not to zgen %s", word,
                       command_name(o->commands), command_name(p->command));
    if (code == ':') return err_set(e, ERR_USAGE, "option %s needs a value", word);
    if (code == '?') return err_set(e, ERR_USAGE, "option %s takes no value", word);
    return set_value(o, word, optarg ? optarg : o->set, out, e) || (i >= N_OPTIONS && add_help(o, e));
}

/* llama.cpp's tools take --ctx_size for --ctx-size. */
static void unify_name(char *argument) {
    if (strncmp(argument, "--", 2) != 0) return;
    for (char *c = argument; *c && *c != '='; c++)
        if (*c == '_') *c = '-';
}

/* Whether option i of those behind TABLE, whose value may be left out, is followed by one. */
static bool next_is_value(const Parser *p, int i, const char *next) {
    const Option *o = option_at(p, i);
    bool may_lack = i >= N_OPTIONS && o->kind == OPTION_CHOICE && o->set;
    return may_lack && !optarg && next && find_choice(o->choices, next) >= 0;
}

static bool read_options(const Parser *p, int argc, char **argv, const struct option *names, Options *out,
                         Err *e) {
    optind = 0; // glibc starts from the beginning
    optopt = 0;
    for (;;) {
        char *argument = argv[optind ? optind : 1];
        if (argument) unify_name(argument);
        int code = getopt_long_only(argc, argv, "-:", names, NULL);
        int index = (code == ':' || code == '?' ? optopt : code) - FIRST;
        if (code == -1) break;
        if (code == 1)
            out->rest[out->n_rest++] = optarg;
        else if (index < 0)
            return unknown(p->command, argument, e);
        else {
            if (next_is_value(p, index, argv[optind])) optarg = argv[optind++];
            if (!set_option(p, index, argument, code, out, e)) return false;
        }
    }
    while (optind < argc) out->rest[out->n_rest++] = argv[optind++];
    return true;
}

bool options_parse(unsigned command, OptionList more, int argc, char **argv, Options *out, Err *e) {
    Parser p = {command, more};
    struct option *names = list_names(&p);
    set_defaults(argc, out);
    bool ok = read_options(&p, argc, argv, names, out, e) && unescape_stops(out, e);
    free(names);
    return ok;
}
