/* pretok: the cuts of a text into words, before byte pairs are merged.
 *
 * Each family of models cut its training text by a pattern of its own, and a vocabulary works well only with
 * the same cuts.  The file names the pattern (tokenizer.ggml.pre); pretok_table.c is the table of names and
 * patterns.  PCRE2 runs the patterns, compiled to machine code where the system allows that (the same words
 * otherwise, slower).
 *
 * A rule has several patterns: each cuts every word that the patterns before it have left into its matches
 * and the gaps between them.
 *
 * Every text has words; no text is refused.  The classes of characters are those of Unicode 14 (PCRE2 10.42);
 * a character of a later version counts as unassigned. */
#ifndef ZGEN_TEXT_PRETOK_H
#define ZGEN_TEXT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/buf.h"
#include "../base/err.h"

enum { PRETOK_PATTERNS = 6 };

typedef enum PretokFlags {      // what a name implies beside its patterns, where the file has no key for it
    PRETOK_UNVERIFIED = 1,      // the patterns are not confirmed by another implementation
    PRETOK_ADD_BOS = 2,         // a text begins with BOS
    PRETOK_ALWAYS_BOS = 4,      // the same, even if the file has false
    PRETOK_WHOLE_WORDS = 8,     // a word that is a token is not merged from its parts
    PRETOK_KEEP_SPACES = 16,    // TOK_CLEAN_SPACES has no effect
    PRETOK_CHARACTERS = 32,     // merges characters, with U+2581 for a space, instead of bytes
    PRETOK_WHOLE_NEWLINES = 64, // a run of newlines that is a token is not merged from its parts
    PRETOK_COMPOSE = 128 // a text is composed (nfc.h) before it is cut, so it decodes to its composed form
} PretokFlags;

typedef struct PretokRule {
    const char *names; // separated by spaces
    int flags;         // PretokFlags
    /* PCRE2's syntax, with Unicode's white space for \s; up to a NULL. */
    const char *patterns[PRETOK_PATTERNS + 1];
} PretokRule;

/* Ends with names = NULL; the first rule is used where a name is unknown. */
extern const PretokRule PRETOK_TABLE[];

const PretokRule *pretok_find(const char *name, size_t n); // NULL: not in the table
void pretok_names(Buf *out);                               // appends all names, separated by spaces

typedef struct Pretok Pretok; // a compiled rule; may be shared by threads

Pretok *pretok_open(const PretokRule *rule);
void pretok_close(Pretok *p); // NULL is fine

typedef void PretokWord(void *context, const char *word, size_t n);

/* Calls word for each word of n bytes of well-formed UTF-8, in order; the words together are the text.  Time
 * is proportional to n for every text. */
void pretok_split(const Pretok *p, const char *text, size_t n, PretokWord *word, void *context);

#endif
