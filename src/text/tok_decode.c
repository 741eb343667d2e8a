/* tok_decode: ids to text, of a whole list or one by one as they are generated. */
#include "think.h"
#include "tok_impl.h"

#include <string.h>

static void add_unescaped(const char *text, size_t n, Buf *out) {
    while (n) {
        const char *hit = memmem(text, n, TOK_SPACE, strlen(TOK_SPACE));
        size_t before = hit ? (size_t)(hit - text) : n;
        buf_add(out, text, before);
        if (!hit) return;
        buf_add(out, " ", 1);
        text += before + strlen(TOK_SPACE);
        n -= before + strlen(TOK_SPACE);
    }
}

static void add_normal(const Tok *t, const TokEntry *entry, Buf *out) {
    if (!t->bytes)
        add_unescaped(entry->text, entry->n, out);
    else if (entry->n_plain)
        buf_add(out, entry->plain, entry->n_plain);
    else // not in the byte-level alphabet: a token added after training, whose text is its piece
        buf_add(out, entry->text, entry->n);
}

void tok_piece(const Tok *t, int id, bool special, Buf *out) {
    const TokEntry *entry = tok_entry(t, id);
    switch ((TokType)entry->type) {
    case TOK_UNDEFINED:
    case TOK_UNUSED:
        return;
    case TOK_UNKNOWN:
    case TOK_CONTROL:
        if (special) buf_add(out, entry->text, entry->n);
        return;
    case TOK_USER_DEFINED:
        buf_add(out, entry->text, entry->n);
        return;
    case TOK_NORMAL:
        add_normal(t, entry, out);
        return;
    case TOK_BYTE:
        buf_add(out, &(char){(char)tok_byte_value(entry->text, entry->n)}, 1);
        return;
    }
}

/* The clean-up of the first tokenizers of this kind, in three passes: no space before "?", "!", "." and ",",
 * none around an apostrophe between spaces, none before "'s", "'m", "'re" and "'ve".  Each pass works in
 * place and returns the number of bytes left. */
static size_t join_marks(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && s[i - 1] == ' ' && memchr("?!.,", s[i], 4)) to--;
        s[to++] = s[i];
    }
    return to;
}

static size_t join_apostrophes(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        bool alone = i && i + 1 < n && s[i - 1] == ' ' && s[i] == '\'' && s[i + 1] == ' ';
        if (alone) {
            to--;
            s[i + 1] = 0; // so that the space does not count for the next apostrophe
        }
        s[to++] = s[i];
        i += alone;
    }
    return to;
}

static size_t join_contractions(char *s, size_t n) {
    size_t to = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && i + 1 < n && s[i - 1] == ' ' && s[i] == '\'') {
            const char *rest = s + i + 1;
            bool is_long = i + 2 < n && (memcmp(rest, "re", 2) == 0 || memcmp(rest, "ve", 2) == 0);
            if (*rest == 's' || *rest == 'm' || is_long) to--;
        }
        s[to++] = s[i];
    }
    return to;
}

static void clean_spaces(Buf *text, size_t from) {
    if (text->n == from) return;
    char *s = text->data + from;
    text->n = from + join_contractions(s, join_apostrophes(s, join_marks(s, text->n - from)));
    text->data[text->n] = 0;
}

void tok_decode(const Tok *t, const int32_t *ids, size_t n, int flags, Buf *out) {
    bool strip_space = t->add_space_prefix;
    if (flags & TOK_REMOVE_SPECIAL) {
        if (t->add_bos && n && ids[0] == t->bos) {
            ids++;
            n--;
            strip_space = false;
        }
        if (t->add_eos && n && ids[n - 1] == t->eos) n--;
    }
    Buf piece = {0};
    size_t from = out->n;
    for (size_t i = 0; i < n; i++, strip_space = false) {
        buf_clear(&piece);
        tok_piece(t, ids[i], flags & TOK_UNPARSE_SPECIAL, &piece);
        size_t skip = strip_space && piece.n && piece.data[0] == ' ';
        if (piece.n) buf_add(out, piece.data + skip, piece.n - skip);
    }
    if (t->clean_spaces && flags & TOK_CLEAN_SPACES) clean_spaces(out, from);
    buf_free(&piece);
}

void tok_stream_push(TokStream *s, int id, Buf *out) {
    buf_clear(&s->piece);
    const TokEntry *entry = tok_entry(s->tok, id);
    tok_piece(s->tok, id, s->special || (s->tags && think_is_tag(entry->text, entry->n)), &s->piece);
    utf8_gate_push(&s->gate, s->piece.data, s->piece.n, out);
}

void tok_stream_end(TokStream *s, Buf *out) {
    utf8_gate_end(&s->gate, out);
    buf_free(&s->piece);
}
