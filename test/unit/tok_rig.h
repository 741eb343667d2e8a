/* tok_rig: shared by the tests of the tokenizers: vocabularies from files and from memory, and comparison
 * with recorded cases. */
#ifndef ZGEN_TEST_TOK_RIG_H
#define ZGEN_TEST_TOK_RIG_H

#include "../../src/text/tok_impl.h"

#include <jansson.h>
#include <string.h>

#define SHARED "../shared/golden/tokenizer/"

json_t *load(const char *path); // NULL: the test has failed

/* ---- against recorded cases: objects with text, ids, add_special, parse_special, or with ids and hex
 * ---- */

void check_ids(const char *what, const TokIds *ids, const json_t *expected, size_t skip);
void check_tokenize(const Tok *t, const json_t *c);
void check_detokenize(const Tok *t, const json_t *c);

/* Every token decodes, and encoding its bytes again decodes to the same bytes. */
void check_round_trip(const Tok *t);

/* Every text_cases of the models of a glob, opened with their own pre-tokenizer; fails below `least`
 * files. */
void check_models(const char *pattern, size_t least);

/* All cases of ../shared/golden/tokenizer/NAME.cases.json, with the pre-tokenizer that they name; skips if
 * the file is absent.  Then, unless the vocabulary is re-tagged, the round trip. */
void check_shared(const char *name, size_t n_tokenize, size_t n_detokenize);

/* llama.cpp's own test: texts of PATH.inp, ids of PATH.out. */
void check_lines(const char *name);

/* ---- vocabularies ---- */

typedef struct Vocab { // an opened file
    Gguf *gguf;
    Tok *tok;
} Vocab;

bool vocab_open(const char *path, const char *pre, Vocab *v); // false: the test has failed
void vocab_close(Vocab *v);

typedef struct Piece {
    const char *text;
    float score;
    int type;
} Piece;

enum {
    NORMAL = TOK_NORMAL,
    UNKNOWN = TOK_UNKNOWN,
    CONTROL = TOK_CONTROL,
    USER = TOK_USER_DEFINED,
    BYTE = TOK_BYTE,
};

enum { U8 = 0, U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; // GGUF's value types

/* A file under construction; each file_KEY appends a key and increments the number of keys. */
void put(Buf *b, uint64_t value, size_t n); // little endian, like the tests' machines
void put_string(Buf *b, const char *s);
void file_begin(Buf *b);
void file_key(Buf *b, const char *key, uint32_t type);
void file_string(Buf *b, const char *key, const char *value);
void file_u32(Buf *b, const char *key, uint32_t value);
void file_bool(Buf *b, const char *key, bool value);
void file_array(Buf *b, const char *key, uint32_t type, size_t n);
void file_strings(Buf *b, const char *key, const char *const *strings, size_t n);
void file_pieces(Buf *b, const char *model, const Piece *pieces, size_t n); // tokens, scores and types

/* NULL if the container or the tokenizer refuses it; *e has the reason. */
Tok *open_bytes(const Buf *file, Gguf **gguf, Err *e);

typedef struct Made {
    Buf file;
    Gguf *gguf;
    Tok *tok;
} Made;

Made made_open(Buf file); // tok = NULL: the test has failed
void made_close(Made *m);

/* The ids of text as "1 5 9", until the next call. */
const char *encoded(const Tok *t, const char *text, size_t n, int flags);

#define CHECK_ENCODES(t, text, flags, ids)                                                                   \
    do {                                                                                                     \
        const char *got = encoded(t, text, sizeof text - 1, flags);                                          \
        CHECK(strcmp(got, ids) == 0, "(%s): %s, not %s", text, got, ids);                                    \
    } while (0)

#define CHECK_REFUSED(file, words)                                                                           \
    do {                                                                                                     \
        Err e = {0};                                                                                         \
        Gguf *g;                                                                                             \
        Tok *t = open_bytes(file, &g, &e);                                                                   \
        CHECK(!t && e.code == ERR_MODEL && strstr(e.text, words), ": %s", t ? "accepted" : e.text);          \
        tok_close(t);                                                                                        \
        gguf_close(g);                                                                                       \
        buf_free(file);                                                                                      \
    } while (0)

/* Steps that an encoder takes for n bytes, and the same for n bytes of a repeated unit. */
typedef size_t Work(const Tok *t, const char *text, size_t n);
size_t work_for(const Tok *t, Work *work, const char *unit, size_t n);

/* A hundred times the text is at most two hundred times the work, and at most per_byte steps a byte. */
void check_work(const Tok *t, Work *work, const char *unit, size_t per_byte);

/* Warnings that a test provokes on purpose are not shown. */
int stderr_hide(void); // returns the argument of stderr_show
void stderr_show(int saved);

/* Changes every byte of the file in several ways: the file is refused or used, without a crash. */
void check_mutations(Buf *file, size_t least);

uint32_t random_next(uint32_t *state); // xorshift32

#endif
