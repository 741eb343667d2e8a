/* pretok: where a text may be cut before byte pairs are merged.
 *
 * Each family of models cut its training text by a pattern of its own, and a vocabulary works well only
 * behind the same cuts.  The file names the pattern (tokenizer.ggml.pre); this room owns the table of names
 * and what finds the cuts.  The table (pretok_table.c) is data; PCRE2 runs it, compiled to machine code where
 * the system lets it (the same words otherwise, slower).
 *
 * A rule has several patterns: each cuts every word that the ones before it have left into its matches and
 * the gaps between them.
 *
 * It refuses nothing: any text has words.  The classes of characters are those of Unicode 14 (PCRE2 10.42);
 * a character that is younger counts as unassigned. */
#ifndef ZGEN_TEXT_PRETOK_H
#define ZGEN_TEXT_PRETOK_H

#include <stdbool.h>
#include <stddef.h>
#include "../base/buf.h"
#include "../base/err.h"

enum { PRETOK_PATTERNS = 6 };

typedef enum PretokFlags {     // what else a name implies, where the file has no key for it
    PRETOK_UNVERIFIED = 1,     // no case from another implementation has confirmed these patterns
    PRETOK_ADD_BOS = 2,        // a text begins with BOS
    PRETOK_ALWAYS_BOS = 4,     // and that even where the file denies it
    PRETOK_WHOLE_WORDS = 8,    // a word that is a token is not merged from its parts
    PRETOK_KEEP_SPACES = 16,   // decoding keeps spaces before punctuation
    PRETOK_CHARACTERS = 32,    // merges characters, with U+2581 for a space, instead of bytes
    PRETOK_WHOLE_NEWLINES = 64 // a run of newlines that is a token is not merged from its parts
} PretokFlags;

typedef struct PretokRule {
    const char *names; // separated by spaces
    int flags;         // PretokFlags
    const char
        *patterns[PRETOK_PATTERNS + 1]; // PCRE2's syntax, with Unicode's white space for \s; up to a NULL
} PretokRule;

extern const PretokRule
    PRETOK_TABLE[]; // ends with names = NULL; the first one serves where a name is unknown

const PretokRule *pretok_find(const char *name, size_t n); // NULL: not in the table
void pretok_names(Buf *out);                               // appends the names, for a message

typedef struct Pretok Pretok; // a rule, ready to run; may be shared by threads

Pretok *pretok_open(const PretokRule *rule);
void pretok_close(Pretok *p); // NULL is fine

/* Calls word for each word of n bytes of well-formed UTF-8, in order: together they are the text.  Takes time
 * in proportion to n whatever the text. */
typedef void PretokWord(void *context, const char *word, size_t n);
void pretok_split(const Pretok *p, const char *text, size_t n, PretokWord *word, void *context);

#endif
