/* tok_impl: the vocabulary in memory, and the functions that the tok files share.  Private to the room.
 *
 * tok_open.c reads a file into a Tok, tok_vocab.c finds tokens by their texts.  tok_encode.c takes special
 * tokens out of a text and passes the plain stretches between them to the encoder of the vocabulary's kind:
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
    const char *text; // in the Gguf
    const char
        *plain; // the plain text that becomes this token: decoded in a byte-level vocabulary, text elsewhere
    uint32_t n; // bytes of text
    uint32_t n_plain; // bytes of plain; 0: none becomes this token
    float score;
    uint8_t type; // TokType
    bool eog;
} TokEntry;

typedef int TokCompare(const void *a, const void *b); // as for qsort

typedef struct TokTable { // items in buckets by a hash, sorted in each bucket (tok_table.c)
    char *items;
    size_t size; // bytes of an item
    TokCompare *compare;
    uint32_t *first; // bucket b is [first[b], first[b + 1])
    uint32_t mask;
} TokTable;

typedef struct TokText {
    const char *text;
    uint32_t n;
    int32_t id;
} TokText;

typedef struct TokList { // texts, none empty, sorted: see tok_walk_next
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
    bool clean_spaces;             // TOK_CLEAN_SPACES drops spaces before punctuation
    bool strip_after_special;      // a special token takes the white space behind it
    int32_t byte_ids[256];         // of the byte tokens "<0x00>"; -1: none

    TokList specials; // control, user-defined and unknown tokens
    TokTable plain;   // TokTexts that plain text may become
    uint32_t longest; // bytes of the longest of these texts

    const PretokRule *rule; // BPE; NULL elsewhere
    struct Spm *spm;        // one of these by the vocabulary's kind, the others NULL
    struct Bpe *bpe;
    struct Unigram *unigram;
};

#define TOK_SPACE "\xE2\x96\x81" // U+2581, the space of vocabularies that are not byte-level

/* Token id, or one without text of type TOK_UNDEFINED if the vocabulary has no such id. */
const TokEntry *tok_entry(const Tok *t, int id);

/* Fills plain of the entries, specials and the table of plain texts, from the entries' texts and types. */
void tok_index(Tok *t);

/* The plain token with exactly this text, or -1. */
int tok_find(const Tok *t, const char *text, size_t n);

/* The byte of "<0x00>" to "<0xFF>", -1 for any other text. */
int tok_byte_value(const char *text, size_t n);

/* Appends the byte of each character of text in the byte-level alphabet.  false, and out is unchanged: a
 * character is not in the alphabet. */
bool tok_decode_bytes(const char *text, size_t n, Buf *out);

/* Sorts by text; among equal texts the lowest id comes first.  Of tokens with one text and one type only the
 * first is kept, so that equal texts are few. */
void tok_list_sort(const Tok *t, TokList *list);

/* Finds the texts of the list that are a prefix of n bytes of text, the shorter first: true: w->found is the
 * next one.  Starts as tok_walk(list); text and n must stay the same.  Bytes that all texts left have in
 * common are compared at once, so that the cost is of the texts that branch off, not of their lengths. */
typedef struct TokWalk {
    const TokList *list;
    size_t low, high; // the texts that are left: they agree with the text in their first depth bytes
    size_t depth;
    const TokText *found;
} TokWalk;

static inline TokWalk tok_walk(const TokList *list) {
    return (TokWalk){.list = list, .high = list->n};
}

bool tok_walk_next(TokWalk *w, const char *text, size_t n);

/* ---- tables (tok_table.c) ---- */

/* Takes n items, whose memory the table then owns, and their hashes.  Equal items keep their order. */
void tok_table_make(TokTable *t, void *items, size_t n, size_t size, const uint32_t *hashes,
                    TokCompare *compare);
void tok_table_free(TokTable *t);

/* The first item of the hash's bucket that does not come before key; NULL: there is none.  At most
 * log2 n comparisons, whatever the hashes are. */
const void *tok_table_find(const TokTable *t, uint32_t hash, const void *key);

/* ---- the merging loop (tok_merge.c) ---- */

enum { TOK_RUN_MAX = 1 << 20 }; // symbols of a run; a longer stretch is cut, so that memory is bounded

typedef struct Symbol {  // a character or token of the run
    uint32_t start, n;   // bytes; n = 0: merged into its left neighbour
    uint32_t prev, next; // symbols, or NO_SYMBOL
    int32_t id;          // -1: no token
} Symbol;

static const uint32_t NO_SYMBOL = UINT32_MAX;

typedef struct TokJob TokJob;

/* The token that two neighbours become and its rank, lower ranks first; -1: they do not merge. */
typedef int TokJoin(TokJob *job, const Symbol *left, const Symbol *right, uint32_t *rank);

typedef struct Merger {
    TokJoin *join;
    uint32_t n_ranks;  // join's ranks are less
    const char *bytes; // of the run
    Symbol *symbols;
    uint32_t n_symbols, symbol_capacity;
    struct Pair *pairs; // [0] is not used: index 0 means none
    uint32_t n_pairs, pair_capacity;
    uint32_t *last;       // [n_ranks] pairs
    struct Waiting *heap; // in the order of merging
    size_t n_heap, heap_capacity;
} Merger;

/* One call of tok_encode: the encoder's memory, used again from one stretch of text to the next. */
struct TokJob {
    const Tok *tok;
    TokIds *out;
    size_t work;         // bytes hashed, pairs queued, heap entries moved: proportional to the running time
    size_t n_lost;       // characters without token, byte tokens and unknown token
    size_t n_to_unknown; // ids up to the last unknown token; 0: there was none
    bool goes_on;        // a user-defined token is in front of the stretch: it belongs to the text
    Merger merger;
    Buf text;              // the stretch, normalised for the encoder
    struct TokWord *words; // BPE: a cache of the ids of words
};

void merger_add(Merger *m, uint32_t start, uint32_t n, int32_t id); // appends a symbol
void merger_run(TokJob *job); // merges; the symbols that remain are a list by next, from 0 on

/* Appends n bytes as byte tokens, or as the unknown token if one of the bytes has no byte token; in a unigram
 * vocabulary once for calls that follow each other. */
void tok_spell(TokJob *job, const char *bytes, size_t n);

/* ---- the encoders.  Each appends the ids of n >= 1 bytes of plain UTF-8 to job->out. ---- */

struct Spm *spm_open(const Tok *t); // t must outlive it, and so below
void spm_close(struct Spm *s);      // NULL is fine, and so below
void spm_encode(TokJob *job, const char *text, size_t n,
                bool space_first); // with a space in front if space_first

bool bpe_open(const Gguf *g, const Tok *t, struct Bpe **out, Err *e); // false: no merges, or not strings
void bpe_close(struct Bpe *b);
void bpe_encode(TokJob *job, const char *text, size_t n);

bool unigram_open(const Gguf *g, const Tok *t, struct Unigram **out,
                  Err *e); // false: the character map is malformed
void unigram_close(struct Unigram *u);
void unigram_encode(TokJob *job, const char *text, size_t n,
                    bool goes_on); // n may be 0; goes_on: a user-defined token follows

void tok_job_free(TokJob *job);

#endif
