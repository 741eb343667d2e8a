/* tok_impl: the vocabulary as the encoders see it, and what they share.  Private to the room.
 *
 * tok_open.c reads a file into a Tok, tok_vocab.c finds tokens by their texts.  tok_encode.c takes special
 * tokens out of a text and hands the plain stretches between them to the encoder of the vocabulary's kind:
 * tok_spm.c, tok_bpe.c or tok_unigram.c.  The two that merge neighbours share the loop of tok_merge.c.
 * tok_decode.c is the way back. */
#ifndef ZGEN_TEXT_TOK_IMPL_H
#define ZGEN_TEXT_TOK_IMPL_H

#include "pretok.h"
#include "tok.h"

typedef enum TokKind {
    TOK_SPM,     // "llama": characters merged by the score of the union
    TOK_BPE,     // "gpt2", "gemma4": bytes or characters merged by the rank of the pair
    TOK_UNIGRAM, // "t5": the most probable pieces
} TokKind;

typedef struct TokEntry {
    const char *text;  // in the Gguf
    const char *plain; // what plain text it stands for: decoded in a byte-level vocabulary, text elsewhere
    uint32_t n;        // bytes of text
    uint32_t n_plain;  // 0: no plain text becomes this token
    float score;
    uint8_t type; // TokType
    bool eog;
} TokEntry;

typedef struct TokSlot {
    uint32_t hash;
    int32_t id; // -1: empty
} TokSlot;

typedef struct TokText {
    const char *text;
    uint32_t n;
    int32_t id;
} TokText;

typedef struct TokList { // texts, sorted: see tok_list_narrow
    TokText *texts;
    size_t n;
    uint32_t first[257]; // those that begin with byte b are [first[b], first[b + 1])
} TokList;

struct Tok {
    TokKind kind;
    TokEntry *entries; // [n_vocab]
    int n_vocab;
    char *bytes; // the decoded texts of a byte-level vocabulary

    int bos, eos, sep, unknown; // -1: none
    bool add_bos, add_eos, add_sep, add_space_prefix;
    bool remove_extra_whitespaces; // unigram: runs of spaces are one, and none at the end
    bool clean_spaces;             // decoding drops spaces before punctuation
    bool strip_after_special;      // white space behind a special token belongs to it
    int32_t byte_ids[256];         // of the byte tokens "<0x00>"; -1: none

    TokList specials; // control, user-defined and unknown tokens
    TokSlot *slots;   // hash of the texts that plain text may become; open addressing
    uint32_t slot_mask;
    uint32_t longest; // bytes of the longest of these texts

    const PretokRule *rule; // BPE; NULL elsewhere
    struct Spm *spm;        // the one of the vocabulary's kind, the others NULL
    struct Bpe *bpe;
    struct Unigram *unigram;
};

#define TOK_SPACE "\xE2\x96\x81" // U+2581, which stands for a space in vocabularies that are not byte-level

/* Token id, or one without text of type TOK_UNDEFINED if the vocabulary has no such id. */
const TokEntry *tok_entry(const Tok *t, int id);

/* Fills plain of the entries, specials and slots, from the entries' texts and types. */
void tok_index(Tok *t);

/* The plain token with exactly this text, or -1. */
int tok_find(const Tok *t, const char *text, size_t n);

/* The byte that "<0x00>" to "<0xFF>" stand for, -1 for any other text. */
int tok_byte_value(const char *text, size_t n);

/* Appends the byte that each character of text stands for in the byte-level alphabet; false, and out is as it
 * was, if one is not in that alphabet. */
bool tok_decode_bytes(const char *text, size_t n, Buf *out);

/* Sorts; among equal texts the lowest id comes first. */
void tok_list_sort(TokList *list);

/* Of the texts [*low, *high), all of which agree on depth bytes and have more, those whose next one is byte.
 * So a walk over a text finds every text of the list that it begins with, the shorter first: after each step
 * the texts that are now complete stand at *low, and the walker takes them and steps over them. */
void tok_list_narrow(const TokList *list, size_t *low, size_t *high, size_t depth, unsigned char byte);

/* ---- the merging loop (tok_merge.c) ---- */

enum { TOK_RUN_MAX = 1 << 20 }; // symbols of a run; a longer stretch without border is cut

typedef struct Symbol {  // a stretch of the run that is a character or a token
    uint32_t start, n;   // bytes; n = 0: merged into its left neighbour
    uint32_t prev, next; // symbols, or NO_SYMBOL
    int32_t id;          // -1: no token
} Symbol;

static const uint32_t NO_SYMBOL = UINT32_MAX;

typedef struct TokJob TokJob;

/* The token that two neighbours become, and how early: lower ranks first.  -1 if they do not merge. */
typedef int TokJoin(TokJob *job, const Symbol *left, const Symbol *right, uint32_t *rank);

typedef struct Merger {
    TokJoin *join;
    uint32_t n_ranks;  // join's ranks are below
    const char *bytes; // what the symbols are stretches of
    Symbol *symbols;
    uint32_t n_symbols, symbol_capacity;
    struct Pair *pairs; // [0] stands for none
    uint32_t n_pairs, pair_capacity;
    uint32_t *last;       // [n_ranks] pairs
    struct Waiting *heap; // first in the order of merging first
    size_t n_heap, heap_capacity;
} Merger;

/* One call of tok_encode: what its encoder needs on the way, kept from one stretch of text to the next. */
struct TokJob {
    const Tok *tok;
    TokIds *out;
    size_t work;   // bytes hashed, pairs queued, heap entries moved: what the running time is made of
    size_t n_lost; // characters without piece, byte tokens and unknown token
    Merger merger;
    Buf text;              // the stretch as the encoder wants it
    struct TokWord *words; // BPE: the ids of words seen before
};

void merger_add(Merger *m, uint32_t start, uint32_t n, int32_t id); // a symbol, behind the others
void merger_run(TokJob *job); // merges; the symbols left over stand in a list from 0

/* Bytes that no token spells, as byte tokens; as one unknown token if one of the bytes has none. */
void tok_spell(TokJob *job, const char *bytes, size_t n);

/* ---- the encoders.  Each appends the ids of n >= 1 bytes of plain UTF-8 to job->out. ---- */

struct Spm *spm_open(const Tok *t); // keeps t, and so below
void spm_close(struct Spm *s);      // NULL is fine, and so below
void spm_encode(TokJob *job, const char *text, size_t n,
                bool space_first); // with a space in front if space_first

bool bpe_open(const Gguf *g, const Tok *t, struct Bpe **out, Err *e); // false: no merges, or not strings
void bpe_close(struct Bpe *b);
void bpe_encode(TokJob *job, const char *text, size_t n);

bool unigram_open(const Gguf *g, const Tok *t, struct Unigram **out,
                  Err *e); // false: the character map is malformed
void unigram_close(struct Unigram *u);
void unigram_encode(TokJob *job, const char *text, size_t n);

void tok_job_free(TokJob *job);

#endif
