/* tokenize: the tokens of a text, and the text of tokens.
 *
 * Every byte of a file is part of the text, its last newline too.  --decode inverts tokenizing with the same
 * flags: BOS and EOS are removed unless --no-bos is given, and --parse-special prints control tokens.  Not
 * inverted is what a vocabulary does to a text before it cuts it: composing, and a unigram vocabulary's
 * normalisation. */
#include "changes.h"
#include "cli.h"
#include "ids.h"
#include "prompt.h"
#include "show.h"
#include "../run/model.h"

#include <string.h>

static bool check(const Options *o, Err *e) {
    if (o->n_rest)
        return err_set(e, ERR_USAGE, "unexpected argument '%.100s'; the text is given with -p or -f",
                       o->rest[0]);
    if (o->decode && prompt_given(o))
        return err_set(e, ERR_USAGE,
                       "--decode makes text of ids, -p and -f give text to make ids of; use one of them");
    if (o->clean_spaces && !o->decode)
        return err_set(e, ERR_USAGE,
                       "--clean-spaces changes the text of --decode; drop it, or add --decode IDS");
    if (o->list && options_json(o))
        return err_set(e, ERR_USAGE, "--ids and --json are two output formats; use one of them");
    if (o->decode && (o->list || options_json(o)))
        return err_set(e, ERR_USAGE, "--decode prints only text; drop --ids or --json");
    return true;
}

/* The BOS is skipped here, so that tok_decode sees the space that encoding puts before a text as the first
 * token and can remove it. */
static void add_decoded(const Options *o, const Tok *tok, const TokIds *ids, Buf *out) {
    size_t skip = o->bos && tok_adds_bos(tok) && ids->data[0] == tok_bos(tok);
    int flags = (o->bos ? TOK_REMOVE_SPECIAL : 0) | (o->parse_special ? TOK_UNPARSE_SPECIAL : 0) |
                (o->clean_spaces ? TOK_CLEAN_SPACES : 0);
    tok_decode(tok, ids->data + skip, ids->n - skip, flags, out);
}

static bool decode(const Options *o, const Tok *tok, Err *e) {
    TokIds ids = {0};
    Buf text = {0};
    bool ok = ids_parse(o->decode, strlen(o->decode), tok_n_vocab(tok), "--decode", &ids, e);
    if (ok) add_decoded(o, tok, &ids, &text);
    ok = ok && out_write(text.data, text.n, e);
    buf_free(&text);
    tok_ids_free(&ids);
    return ok;
}

static bool print_json(const Tok *tok, const TokIds *ids, Err *e) {
    json_t *list = json_array(), *pieces = json_array(), *bytes = json_array();
    for (size_t i = 0; i < ids->n; i++) {
        json_array_append_new(list, json_integer(ids->data[i]));
        json_array_append_new(pieces, show_piece(tok, ids->data[i]));
        json_array_append_new(bytes, show_bytes(tok, ids->data[i]));
    }
    return show_write(json_pack("{s:o,s:o,s:o}", "ids", list, "pieces", pieces, "bytes", bytes), e);
}

static void add_list(const TokIds *ids, Buf *out) {
    buf_printf(out, "[");
    for (size_t i = 0; i < ids->n; i++) buf_printf(out, "%s%d", i ? ", " : "", ids->data[i]);
    buf_printf(out, "]\n");
}

static void add_lines(const Tok *tok, const TokIds *ids, Buf *out) {
    Buf piece = {0};
    for (size_t i = 0; i < ids->n; i++) {
        buf_clear(&piece);
        tok_piece(tok, ids->data[i], true, &piece);
        buf_printf(out, "%6d -> '", ids->data[i]);
        show_escape(piece.data, piece.n, out);
        buf_printf(out, "'\n");
    }
    buf_free(&piece);
}

static bool print(const Options *o, const Tok *tok, const TokIds *ids, Err *e) {
    if (options_json(o)) return print_json(tok, ids, e);
    Buf text = {0};
    if (o->list)
        add_list(ids, &text);
    else
        add_lines(tok, ids, &text);
    bool ok = out_write(text.data, text.n, e);
    buf_free(&text);
    return ok;
}

static bool encode(const Options *o, const Tok *tok, const Buf *text, Err *e) {
    TokIds ids = {0};
    tok_encode(tok, text->data, text->n,
               (o->bos ? TOK_ADD_SPECIAL : 0) | (o->parse_special ? TOK_PARSE_SPECIAL : 0), &ids);
    bool ok = print(o, tok, &ids, e);
    tok_ids_free(&ids);
    return ok;
}

bool cmd_tokenize(const Options *o, Err *e) {
    Model model = {0};
    Buf text = {0};
    bool ok = check(o, e) && (o->decode || prompt_read(o, false, &text, e)) &&
              changes_open(o, o->model, &model, e) && model_need_tok(&model, e) &&
              (o->decode ? decode(o, model.tok, e) : encode(o, model.tok, &text, e));
    model_close(&model);
    buf_free(&text);
    return ok;
}
