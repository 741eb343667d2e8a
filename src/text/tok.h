/* tok: the tokenizer.  Text in, ids out, and back.
 *
 * A Tok is the vocabulary of one model file with the rules of its metadata: which ids begin and end a text,
 * which tokens are control, which end generation.  The encoding of a stretch of plain text is one file per
 * kind of vocabulary: SentencePiece's merging (tok_spm.c), byte pairs (tok_bpe.c, cut into words by
 * pretok.c), unigram (tok_unigram.c).
 *
 * The ids are llama.cpp's, with these exceptions:
 *   - words are cut by the pattern that the model's maker published, where llama.cpp's differs (pretok.h);
 *   - texts are composed before that, where the maker does it (nfc.h);
 *   - BOS is not added to a text that begins with it;
 *   - special tokens are found left to right, the longest at each position (llama.cpp searches token by
 *     token, which differs only where the texts of two special tokens overlap);
 *   - plain text never merges into a control, unknown or byte token, whatever the scores;
 *   - a character without token and without byte tokens is one unknown token (llama.cpp aborts);
 *   - a merge of byte pairs counts only if the vocabulary has both halves and the whole;
 *   - a byte-level vocabulary whose file names no BOS or EOS has none (llama.cpp takes token 11).
 *
 * Refused are unknown kinds of vocabulary, by name, and tables that contradict each other.  Of two tokens
 * with the same text the lower id is encoded; both decode. */
#ifndef ZGEN_TEXT_TOK_H
#define ZGEN_TEXT_TOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "../base/buf.h"
#include "../base/err.h"
#include "../gguf/gguf.h"
#include "../base/utf8.h"

typedef struct Tok Tok;

typedef enum TokType { // GGUF's numbers (tokenizer.ggml.token_type)
    TOK_UNDEFINED,
    TOK_NORMAL,
    TOK_UNKNOWN,
    TOK_CONTROL,
    TOK_USER_DEFINED,
    TOK_UNUSED,
    TOK_BYTE,
} TokType;

typedef struct TokIds { // a growing array; starts as {0}
    int32_t *data;
    size_t n, capacity;
} TokIds;

void tok_ids_add(TokIds *ids, int32_t id);
void tok_ids_free(TokIds *ids); // back to {0}

/* Reads the vocabulary of g, which must outlive the Tok.  false: ERR_MODEL; the tokenizer's tables are
 * missing, malformed or contradict each other, or its kind is not supported (commands that need no text still
 * work with the file). */
bool tok_open(const Gguf *g, Tok **out, Err *e);

/* The same with the pre-tokenizer named pre instead of the file's; NULL: the file's.  false: also ERR_USAGE,
 * for a name that is not in the table.  Kinds of vocabulary without pre-tokenizer ignore pre. */
bool tok_open_as(const Gguf *g, const char *pre, Tok **out, Err *e);
void tok_close(Tok *t); // NULL is fine

const char *tok_model(const Tok *t);    // "llama", "gpt2" or "t5", as GGUF names the kind
const char *tok_describe(const Tok *t); // the kind in words: "byte-level BPE"
GgufString tok_pre(const Tok *t);       // the pre-tokenizer in use; n = 0 for kinds that have none

int tok_n_vocab(const Tok *t);
int tok_bos(const Tok *t); // -1 if there is none, and so below
int tok_eos(const Tok *t); // the id that TOK_ADD_SPECIAL adds; tok_is_eog is true for all that end a text
int tok_unknown(const Tok *t);
bool tok_adds_bos(const Tok *t); // TOK_ADD_SPECIAL adds a BOS in front

/* Properties of a token.  An id outside the vocabulary has an empty text, is TOK_UNDEFINED and not an end. */
bool tok_is_eog(const Tok *t, int id); // ends generation: end of text, of a turn, of a message
TokType tok_type(const Tok *t, int id);
GgufString tok_text(const Tok *t, int id); // as the file spells it: "\u2581the", "<0x0A>", "</s>"

typedef enum TokFlags {
    TOK_ADD_SPECIAL = 1,     // encode: with BOS and EOS by the rules of the file
    TOK_PARSE_SPECIAL = 2,   // encode: the text of a control token becomes the token
    TOK_REMOVE_SPECIAL = 4,  // decode: without the BOS and EOS that TOK_ADD_SPECIAL adds
    TOK_UNPARSE_SPECIAL = 8, // decode: control tokens as their text instead of the empty text
    TOK_CLEAN_SPACES = 16, // decode: without spaces before punctuation, if the family of the model does that
} TokFlags;

/* Appends the ids of n bytes of text to out.  NULs are ordinary characters.  Ill-formed UTF-8 becomes U+FFFD,
 * with one warning.  Time is proportional to n log n for every text, also for one letter n times. */
void tok_encode(const Tok *t, const char *text, size_t n, int flags, TokIds *out);

typedef struct TokOrigin {                                    // the parts of a text that the user wrote
    bool (*is_user)(const void *arg, size_t start, size_t n); // any of the n >= 1 bytes at start
    const void *arg;
} TokOrigin;

/* The same with TOK_PARSE_SPECIAL for a text of several authors: a text becomes a special token only if no
 * byte of it is the user's.  User-defined tokens that do not look like <markup> are exempt: they belong to
 * the language.  A text that is not UTF-8 counts as the user's throughout. */
void tok_encode_marked(const Tok *t, const char *text, size_t n, int flags, TokOrigin origin, TokIds *out);

/* Appends the bytes of one token, its piece, to out; the bytes may end inside a character.  Without special,
 * control and unknown tokens append nothing. */
void tok_piece(const Tok *t, int id, bool special, Buf *out);

/* Appends the text of n ids to out: their pieces, without the space that encoding added in front.  The bytes
 * need not be UTF-8.  Without TOK_CLEAN_SPACES this is the text that was encoded, in its composed form
 * (PRETOK_COMPOSE) or with the characters and spaces of a unigram vocabulary's normalisation. */
void tok_decode(const Tok *t, const int32_t *ids, size_t n, int flags, Buf *out);

/* Text as it is generated: takes ids, appends whole UTF-8 characters, U+FFFD for ill-formed bytes.  Starts as
 * {.tok = t, .special = ...}. */
typedef struct TokStream {
    const Tok *tok;
    bool special; // as for tok_piece
    bool tags;    // so are control tokens that are tags of thinking
    Utf8Gate gate;
    Buf piece; // of the latest token; its memory is used again for the next
} TokStream;

void tok_stream_push(TokStream *s, int id, Buf *out);
void tok_stream_end(TokStream *s, Buf *out); // frees the stream's memory

#endif
