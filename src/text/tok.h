/* tok: the tokenizer.  Text in, ids out, and back.
 *
 * A Tok is the vocabulary of one model file with the rules that its metadata states: which ids begin and end
 * a text, which tokens are control, which end generation.  This file's functions are what the rest of the
 * house sees; how a stretch of plain text becomes pieces is one file per kind of vocabulary: SentencePiece's
 * merging (tok_spm.c), byte pairs (tok_bpe.c, cut into words by pretok.c), unigram (tok_unigram.c).
 *
 * It follows llama.cpp to the id, with six exceptions, each safer or saner:
 *   - a BOS that the text already begins with is not added again;
 *   - special tokens are found left to right, the longest at each place (llama.cpp goes token by token, which
 *     differs only where the texts of two special tokens overlap);
 *   - plain text never merges into a control, unknown or byte token, whatever the scores say;
 *   - a character that has no piece and lacks byte tokens is one unknown token (llama.cpp aborts);
 *   - a merge of byte pairs counts only if the vocabulary has both halves and the whole;
 *   - a byte-level vocabulary that names no BOS or EOS has none (llama.cpp takes token 11).
 *
 * It refuses kinds of vocabulary that it does not know, with their name, and tables that contradict each
 * other. Out of two tokens with the same text the lower id is encoded; both decode. */
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

typedef struct TokIds { // a growing array; {0} is an empty one
    int32_t *data;
    size_t n, capacity;
} TokIds;

void tok_ids_add(TokIds *ids, int32_t id);
void tok_ids_free(TokIds *ids); // back to {0}

/* Reads the vocabulary of g, which must outlive the Tok.  false: ERR_MODEL; the tokenizer's tables are
 * missing, malformed or contradict each other, or the file has a tokenizer of a kind that is not supported
 * (then whatever needs no text still works with the file). */
bool tok_open(const Gguf *g, Tok **out, Err *e);

/* The same with another pre-tokenizer than the file's; pre = NULL is the file's own.  false: also ERR_USAGE,
 * for a name that is not in the table.  Kinds of vocabulary without pre-tokenizer ignore it. */
bool tok_open_as(const Gguf *g, const char *pre, Tok **out, Err *e);
void tok_close(Tok *t); // NULL is fine

const char *tok_model(const Tok *t);    // "llama", "gpt2" or "t5", as GGUF names the kind
const char *tok_describe(const Tok *t); // the same for people: "byte-level BPE"
GgufString tok_pre(const Tok *t);       // the pre-tokenizer in use; n = 0 for kinds that have none

int tok_n_vocab(const Tok *t);
int tok_bos(const Tok *t); // -1 if there is none, and so below
int tok_eos(const Tok *t); // the one that add_eos adds; ask tok_is_eog what ends a text
int tok_unknown(const Tok *t);
bool tok_adds_bos(const Tok *t); // TOK_ADD_SPECIAL puts a BOS in front

/* Of one token.  An id outside the vocabulary has no text, is TOK_UNDEFINED and ends nothing. */
bool tok_is_eog(const Tok *t, int id); // ends generation: end of text, of a turn, of a message
TokType tok_type(const Tok *t, int id);
GgufString tok_text(const Tok *t, int id); // as the file spells it: "\u2581the", "<0x0A>", "</s>"

typedef enum TokFlags {
    TOK_ADD_SPECIAL = 1,     // encode: BOS and EOS as the model wants them
    TOK_PARSE_SPECIAL = 2,   // encode: the text of a control token stands for the token
    TOK_REMOVE_SPECIAL = 4,  // decode: without the BOS and EOS that TOK_ADD_SPECIAL adds
    TOK_UNPARSE_SPECIAL = 8, // decode: control tokens as their text, not as nothing
} TokFlags;

/* Appends the ids of n bytes of text to out.  NULs are ordinary characters.  Ill-formed UTF-8 becomes U+FFFD,
 * with one warning.  Takes time in proportion to n log n, also where the text is a single letter n times. */
void tok_encode(const Tok *t, const char *text, size_t n, int flags, TokIds *out);

/* Who wrote what.  is_user tells whether any of n >= 1 bytes of the text at start is from the user. */
typedef struct TokOrigin {
    bool (*is_user)(const void *arg, size_t start, size_t n);
    const void *arg;
} TokOrigin;

/* The same with TOK_PARSE_SPECIAL for a text of many hands: special tokens stand only where no byte of them
 * is from the user, but for user-defined ones that do not look like <markup>: these are part of the language.
 * A text that is not UTF-8 counts as the user's throughout. */
void tok_encode_marked(const Tok *t, const char *text, size_t n, int flags, TokOrigin origin, TokIds *out);

/* Appends the bytes of one token to out: not necessarily whole characters.  special = false hides control and
 * unknown tokens. */
void tok_piece(const Tok *t, int id, bool special, Buf *out);

/* Appends the text of n ids to out: the pieces, less the space that encoding put in front.  The bytes are the
 * tokens' own and need not be UTF-8. */
void tok_decode(const Tok *t, const int32_t *ids, size_t n, int flags, Buf *out);

/* Text as it is generated: pieces in, whole UTF-8 characters out, U+FFFD for what is none.  Starts as
 * {.tok = t, .special = ...}. */
typedef struct TokStream {
    const Tok *tok;
    bool special; // as for tok_piece
    Utf8Gate gate;
    Buf piece; // of the latest token; kept, so that streaming does not allocate
} TokStream;

void tok_stream_push(TokStream *s, int id, Buf *out);
void tok_stream_end(TokStream *s, Buf *out); // frees what the stream holds

#endif
