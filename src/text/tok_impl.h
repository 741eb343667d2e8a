/* tok_impl: the vocabulary as the encoders see it.  Private to the room. */
#ifndef ZGEN_TEXT_TOK_IMPL_H
#define ZGEN_TEXT_TOK_IMPL_H

#include "tok.h"

typedef struct TokEntry {
    const char *text; // in the Gguf
    uint32_t n;       // bytes of text
    float score;
    uint8_t type; // TokType
    bool eog;
} TokEntry;

typedef struct TokSpecial {
    const char *text;
    uint32_t n;
    int32_t id;
} TokSpecial;

typedef struct TokSlot {
    uint32_t hash;
    int32_t id; // -1: empty
} TokSlot;

struct Tok {
    TokEntry *entries; // [n_vocab]
    int n_vocab;
    int bos, eos, unknown; // -1: none
    bool add_bos, add_eos, add_space_prefix;
    bool strip_after_special; // white space behind a special token belongs to it
    int32_t byte_ids[256];    // -1: none

    TokSpecial *specials; // control, user-defined and unknown tokens, sorted by text
    size_t n_specials;
    bool begins_special[256]; // by first byte

    TokSlot *slots; // hash of the texts that plain text may become; open addressing
    uint32_t slot_mask;
    uint32_t longest; // bytes of the longest of these texts

    struct Spm *spm;
};

/* Whether plain text may become this token. */
bool tok_is_plain(const TokEntry *entry);

/* The plain token with exactly this text, or -1. */
int tok_find(const Tok *t, const char *text, size_t n);

/* ---- SentencePiece (tok_spm.c) ---- */

typedef struct Spm Spm;

typedef struct SpmCount {
    size_t work;   // bytes hashed and heap entries moved: what the running time is made of
    size_t n_lost; // characters without piece, byte tokens and unknown token
} SpmCount;

Spm *spm_open(const Tok *t); // keeps t
void spm_close(Spm *s);

/* Appends the ids of n bytes of plain UTF-8 to out, with a space in front if space_first; adds to *count. */
void spm_encode(const Spm *s, const char *text, size_t n, bool space_first, TokIds *out, SpmCount *count);

#endif
