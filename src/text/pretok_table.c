/* pretok_table: the patterns by name.
 *
 * The patterns are those that the makers of the models published, with four kinds of change that do not
 * change the words.  Where only the longest match can be right, repetition is possessive (*+, ++), so that a
 * run of ten million letters needs no memory for backtracking.  Case-insensitive groups are spelled out.
 * PCRE2 has no intersection of classes: one is written as the complement of a union.  A pattern that would
 * scan the rest of a run from each position scans once, at the begin of the run, and continues where the last
 * match ended (\G): otherwise a long run takes quadratic time.
 *
 * Rows without PRETOK_UNVERIFIED are confirmed by cases that llama.cpp has computed, or by words that Hugging
 * Face's tokenizers cut with the maker's pattern. */
#include "pretok.h"

/* Parts of several patterns, each of one or more alternatives.  U+017F is a lower-case S. */
#define CONTRACTION "'(?:[sS\\x{17f}tTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define LETTERS "[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++"
#define OTHERS " ?+[^\\s\\p{L}\\p{N}]++[\\r\\n]*+"
#define OTHERS_OR_PATH " ?+[^\\s\\p{L}\\p{N}]++[\\r\\n/]*+"
#define LAST_SPACES "\\s+(?!\\S)|\\s++"
#define LINES "\\s*[\\r\\n]++"
#define SPACES LINES "|" LAST_SPACES

/* Words with a capital apart: ABCdef is ABCdef, abcDEF is abc and DEF.  Marks and letters without case go
 * with both cases. */
#define CASED(upper, lower, end)                                                                             \
    "[^\\r\\n\\p{L}\\p{N}]?" upper "*" lower "++" end "|[^\\r\\n\\p{L}\\p{N}]?" upper "++" lower "*+" end
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define MARKED "[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]++"

#define GPT2 "'(?:[stmd]|re|ve|ll)| ?+\\p{L}++| ?+\\p{N}++| ?+[^\\s\\p{L}\\p{N}]++|" LAST_SPACES
#define LLAMA3 CONTRACTION "|" LETTERS "|\\p{N}{1,3}+|" OTHERS "|" SPACES
#define QWEN2 CONTRACTION "|" LETTERS "|\\p{N}|" OTHERS "|" SPACES
#define GPT4O CASED(UPPER, LOWER, "(?:" CONTRACTION ")?+") "|\\p{N}{1,3}+|" OTHERS_OR_PATH "|" SPACES

#define DEEPSEEK3_WORDS                                                                                      \
    "[!-/:-@\\[-`{-~][A-Za-z]++|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]++| ?+[\\p{P}\\p{S}]++"
#define DEEPSEEK3 DEEPSEEK3_WORDS "[\\r\\n]*+|" SPACES
#define KANA_AND_HAN "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{30ff}]++"

/* The scripts from U+0800 on, with white space, and Hangul.  U+2028 and U+2029 are left out, as llama.cpp
 * does. */
#define EAST "[\\x{800}-\\x{2027}\\x{202a}-\\x{9fa5}\\x{ac00}-\\x{d7ff}]++"

/* The letters with case, in the version of Unicode that the tokenizer was made with. */
#define DEEPSEEK_LETTERS                                                                                     \
    "\\s?+[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"    \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"   \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"          \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"        \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"        \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"                   \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"                  \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}"        \
    "\\x{1ff6}-\\x{1ffc}"                                                                                    \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}"           \
    "\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}"         \
    "\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"          \
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}"        \
    "\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}"        \
    "\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}"                   \
    "\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}\\x{1e900}-\\x{1e943}]++"
#define DEEPSEEK_SIGNS                                                                                       \
    "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]++"

/* UPPER and LOWER without the characters of the script Han. */
#define NOT_HAN(others) "[^\\p{sc:Han}\\p{C}\\p{N}\\p{P}\\p{S}\\p{Z}" others "]"
#define UPPER_NOT_HAN NOT_HAN("\\p{Ll}")
#define LOWER_NOT_HAN NOT_HAN("\\p{Lu}\\p{Lt}")
#define NOT_SENTENCE_END " ?+[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]++"

/* Digits in threes, counted from the end of their run. */
#define THREES(digit, end)                                                                                   \
    "(?<!" digit ")" digit "{1,3}(?=(?:" digit "{3})*+" end ")|(?<=" digit ")\\G" digit "{3}"

/* \w, and with it \b, of the makers' library of patterns: no circled numbers, but those of Latin-1. */
#define WORD "[\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}]"

#define UNVERIFIED PRETOK_UNVERIFIED
#define ADD_BOS PRETOK_ADD_BOS
#define WHOLE_WORDS PRETOK_WHOLE_WORDS
#define KEEP_SPACES PRETOK_KEEP_SPACES
#define COMPOSE PRETOK_COMPOSE

const PretokRule PRETOK_TABLE[] = {
    {"default", 0, {"[\\p{P}$+<=>^~|]++", GPT2, "\\p{N}++", "[0-9][0-9][0-9]"}},
    {"gpt-2 jais phi-2 gigachat a.x-4.0 mellum exaone4 roberta-bpe jina-v1-en jina-v2-code jina-v2-es "
     "jina-v2-de jina-es jina-de",
     0,
     {GPT2}},
    {"gpt-neox mpt olmo modern-bert", COMPOSE, {GPT2}},
    {"trillion granite-docling", KEEP_SPACES, {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     ADD_BOS | WHOLE_WORDS,
     {LLAMA3}},
    {"dbrx smaug-bpe chatglm-bpe glm4", 0, {LLAMA3}},
    {"qwen2 deepseek-r1-qwen f2llmv2 hunyuan", KEEP_SPACES | COMPOSE, {QWEN2}},
    {"megrez kormo solar-open grok-2", KEEP_SPACES, {QWEN2}},
    {"stablelm2", COMPOSE, {QWEN2}},
    {"qwen35",
     KEEP_SPACES | COMPOSE,
     {CONTRACTION "|" MARKED "|\\p{N}| ?+[^\\s\\p{L}\\p{M}\\p{N}]++[\\r\\n]*+|" SPACES}},
    {"tekken",
     ADD_BOS | WHOLE_WORDS | KEEP_SPACES,
     {CASED(UPPER, LOWER, "") "|\\p{N}|" OTHERS_OR_PATH "|" SPACES}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m", KEEP_SPACES, {GPT4O}},
    {"deepseek-llm",
     KEEP_SPACES,
     {"[\\r\\n]", DEEPSEEK_LETTERS, DEEPSEEK_SIGNS, "(?<!\\s)\\s++\\z", EAST, "\\p{N}++"}},
    {"deepseek-coder", KEEP_SPACES, {"[\\r\\n]", "\\s?+\\p{L}++", "\\s?+\\p{P}++", EAST, "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", KEEP_SPACES, {"\\p{N}{1,3}+", KANA_AND_HAN, DEEPSEEK3}},
    {"falcon", 0, {"[\\p{P}$+<=>^~|`]++", GPT2, "[0-9][0-9][0-9]"}},
    {"starcoder refact codeshell exaone minerva-7b mellum2", 0, {"\\p{N}", GPT2}},
    {"smollm", KEEP_SPACES, {"\\p{N}", GPT2}},
    {"command-r", KEEP_SPACES | COMPOSE, {"\\p{N}", GPT2}},
    {"gemma4 gemma-4 granite-embed-multi-311m",
     UNVERIFIED | PRETOK_ALWAYS_BOS | PRETOK_CHARACTERS | PRETOK_WHOLE_NEWLINES,
     {"[^\\n]++|\\n++"}},
    {"sarvam-moe", UNVERIFIED | KEEP_SPACES | PRETOK_CHARACTERS, {"[^\\n]++|\\n++"}},
    {"kimi-k2",
     KEEP_SPACES,
     {"\\p{sc:Han}++|" CASED(UPPER_NOT_HAN, LOWER_NOT_HAN, "(?:" CONTRACTION ")?+") "|\\p{N}{1,3}+|" OTHERS
                                                                                    "|" SPACES}},
    {"minicpm5", WHOLE_WORDS, {"\\p{N}{1,3}+", CONTRACTION "|" LETTERS "|\\p{N}++|" OTHERS "|" SPACES}},
    {"bailingmoe bailingmoe2 llada-moe",
     KEEP_SPACES,
     {CONTRACTION "|" LETTERS "|\\p{N}|" OTHERS "|\\s*[\\r\\n]|" LAST_SPACES}},
    {"seed-coder", KEEP_SPACES, {CONTRACTION "|" LETTERS "|\\p{N}| ?+[^\\s\\p{L}\\p{N}]++|" SPACES}},
    {"ufakzeka", UNVERIFIED | KEEP_SPACES, {LETTERS "|\\p{N}|" OTHERS "|" SPACES}},
    {"laguna", UNVERIFIED | KEEP_SPACES, {"[^\\n]++|\\n++", QWEN2}},
    {"exaone-moe",
     0,
     {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}\\p{M}*+(?: ?\\p{L}\\p{M}*+)*+|\\p{N}"
                  "| ?+[^\\s\\p{L}\\p{N}]++[\\r\\n/]?+|\\s*[\\r\\n]|" LAST_SPACES}},
    {"jais-2",
     0,
     {CONTRACTION
      "|" LETTERS "|\\p{N}{1,3}+|" OTHERS "|" LINES
      "|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)"
      "|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s"}},
    {"afmoe",
     UNVERIFIED | KEEP_SPACES,
     {THREES("\\p{N}", "(?!\\p{N})"),
      "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{30ff}\\x{ff65}-\\x{ff9f}"
      "\\x{2f00}-\\x{2fdf}\\x{e00}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-\\x{17ff}\\x{1000}-\\x{109f}"
      "\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{1100}-\\x{11ff}]++",
      DEEPSEEK3}},
    {"spark2_5",
     UNVERIFIED | KEEP_SPACES,
     {"\\p{N}{1,3}+", KANA_AND_HAN, DEEPSEEK3_WORDS "|[\\r\\n]|" LAST_SPACES, "\\p{N}"}},
    {"youtu",
     WHOLE_WORDS | KEEP_SPACES,
     {"[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]++"
      "|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}"
      "\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]++|[\\x{3105}-\\x{312f}]++|" KANA_AND_HAN,
      CASED(UPPER, LOWER, "(?:" CONTRACTION ")?+") "|\\p{N}|" OTHERS_OR_PATH "|" SPACES}},
    {"tiny_aya cohere2moe", KEEP_SPACES, {THREES("\\p{Nd}", "(?!" WORD ")"), GPT4O}},
    {"poro-chat", KEEP_SPACES, {NOT_SENTENCE_END}},
    {"bloom gpt3-finnish", 0, {NOT_SENTENCE_END}},
    {"viking", UNVERIFIED | KEEP_SPACES, {NOT_SENTENCE_END, "\\p{N}"}},
    {"superbpe", UNVERIFIED | KEEP_SPACES, {"\\p{N}++", THREES("\\p{Nd}", "(?!\\p{Nd})")}},
    {"chameleon",
     UNVERIFIED | ADD_BOS | KEEP_SPACES,
     {"<sentinel:[0-9]++>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]",
      GPT2}},
    {0},
};
