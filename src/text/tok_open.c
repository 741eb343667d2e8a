/* tok_open: a Tok from the metadata of a file.
 *
 * Reads the kind of vocabulary, its tokens, and the rules that the file states beside them, with llama.cpp's
 * defaults for rules that it omits.  Texts stay in the Gguf, without copies. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 64 << 10 }; // bytes of a token

/* Texts of tokens that end generation.  Files often omit these in eot_token_id and eom_token_id, or give them
 * the type of ordinary words. */
static const char *const END_TEXTS[] = {
    "<|eot_id|>", // Llama 3, and the next
    "<|eom_id|>",
    "<|im_end|>",  // ChatML: Qwen and many others
    "<|fim_pad|>", // Qwen: the end of a middle, of a file, of a repository, and the next two
    "<|repo_name|>",
    "<|file_sep|>",
    "<|end|>",         // Phi 3, zgen's own stories
    "<|endoftext|>",   // GPT-2 and its heirs
    "<|end_of_text|>", // Granite
    "<end_of_turn>",   // Gemma
    "<turn|>",         // Gemma 4, and the next
    "<|tool_response>",
    "<eos>",
    "<|return|>", // gpt-oss, and the next
    "<|call|>",
    "<|calls|>", // Solar, and the next
    "<|flush|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]", // Kimi K2, and the next
    "[EOS]",
    "[e~[",                                    // MiniMax M2
    "<end_of_utterance>",                      // SmolDocling
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>", // DeepSeek
};

static bool text_is(const TokEntry *entry, const char *s) {
    return entry->n == strlen(s) && memcmp(entry->text, s, entry->n) == 0;
}

static bool string_is(GgufString a, const char *s) {
    return a.n == strlen(s) && memcmp(a.data, s, a.n) == 0;
}

/* ---- entries ---- */

static bool check_length(const Gguf *g, const char *key, size_t n, size_t n_tokens, Err *e) {
    if (n > n_tokens)
        err_warn("%s has %zu entries for %zu tokens; the last ones are ignored", key, n, n_tokens);
    if (n >= n_tokens || !gguf_has(g, key)) return true;
    return err_set(e, ERR_MODEL, "%.300s: %s has %zu entries for %zu tokens; the file is damaged",
                   gguf_label(g), key, n, n_tokens);
}

static bool read_entry(const Gguf *g, size_t id, GgufString text, int64_t type, TokEntry *out, Err *e) {
    if (text.n > TEXT_MAX)
        return err_set(e, ERR_MODEL, "%.300s: token %zu has a text of %zu bytes; at most %d are read",
                       gguf_label(g), id, text.n, TEXT_MAX);
    if (type < TOK_UNDEFINED || type > TOK_BYTE)
        return err_set(e, ERR_MODEL, "%.300s: token %zu has the type %lld; GGUF defines 0 to %d",
                       gguf_label(g), id, (long long)type, TOK_BYTE);
    if (type == TOK_BYTE && tok_byte_value(text.data, text.n) < 0)
        return err_set(
            e, ERR_MODEL,
            "%.300s: token %zu has the type of a byte but the text '%.*s' instead of <0x00> to <0xFF>",
            gguf_label(g), id, (int)(text.n < 60 ? text.n : 60), text.data);
    *out = (TokEntry){.text = text.data, .n = (uint32_t)text.n, .type = (uint8_t)type};
    return true;
}

static bool read_entries(const Gguf *g, Tok *t, Err *e) {
    const GgufString *texts;
    const float *scores;
    const int64_t *types;
    size_t n, n_scores, n_types;
    if (!gguf_get_strings(g, "tokenizer.ggml.tokens", &texts, &n, e)) return false;
    if (n == 0 || n > INT32_MAX)
        return err_set(e, ERR_MODEL,
                       "%.300s: tokenizer.ggml.tokens holds %zu tokens; expected 1 to 2147483647",
                       gguf_label(g), n);
    if (!gguf_get_floats(g, "tokenizer.ggml.scores", &scores, &n_scores, e) ||
        !gguf_get_ints(g, "tokenizer.ggml.token_type", &types, &n_types, e) ||
        !check_length(g, "tokenizer.ggml.scores", n_scores, n, e) ||
        !check_length(g, "tokenizer.ggml.token_type", n_types, n, e))
        return false;

    bool has_byte_tokens = t->kind != TOK_BPE || t->rule->flags & PRETOK_CHARACTERS;
    t->n_vocab = (int)n;
    t->entries = mem_new(n, sizeof *t->entries);
    for (size_t id = 0; id < n; id++) {
        bool is_byte = has_byte_tokens && tok_byte_value(texts[id].data, texts[id].n) >= 0;
        int64_t guess = is_byte ? TOK_BYTE : TOK_NORMAL;
        if (!read_entry(g, id, texts[id], n_types ? types[id] : guess, &t->entries[id], e)) return false;
        if (n_scores) t->entries[id].score = scores[id];
    }
    return true;
}

/* ---- the rules of the file ---- */

/* *id holds the default.  An id that the vocabulary does not have counts as none. */
static bool read_id(const Gguf *g, const Tok *t, const char *key, int *id, Err *e) {
    int64_t value = *id;
    if (!gguf_get_int(g, key, INT64_MIN, INT64_MAX, &value, e)) return false;
    bool known = value >= 0 && value < t->n_vocab;
    if (!known && gguf_has(g, key))
        err_warn("%s is %lld, but the vocabulary has %d tokens; the id is ignored", key, (long long)value,
                 t->n_vocab);
    *id = known ? (int)value : -1;
    return true;
}

static void mark_ends(Tok *t, const int *end_ids, int n_end_ids) {
    bool has_return = false, has_call = false, has_flush = false;
    int end = -1;
    for (int id = 0; id < t->n_vocab; id++) {
        TokEntry *entry = &t->entries[id];
        if (entry->type != TOK_CONTROL && entry->type != TOK_USER_DEFINED) continue;
        for (size_t i = 0; i < sizeof END_TEXTS / sizeof *END_TEXTS; i++)
            entry->eog |= text_is(entry, END_TEXTS[i]);
        /* "</s>" ends a text only by an id of the file: in some vocabularies it is a tag of HTML.  Plain text
         * becomes none of these tokens, or a user's text could end the conversation. */
        if (entry->eog || text_is(entry, "</s>")) entry->type = TOK_CONTROL;
        has_return |= text_is(entry, "<|return|>");
        has_call |= text_is(entry, "<|call|>") || text_is(entry, "<|calls|>");
        has_flush |= text_is(entry, "<|flush|>");
        if (text_is(entry, "<|end|>")) end = id;
    }
    /* Beside these tokens, <|end|> ends one of several messages of an answer (gpt-oss, Solar). */
    if (has_call && (has_return || has_flush) && end >= 0) t->entries[end].eog = false;
    for (int i = 0; i < n_end_ids; i++)
        if (end_ids[i] >= 0) t->entries[end_ids[i]].eog = true;
}

/* In Phi-3 a special token takes the white space behind it; the file shows that by the name of the model
 * only. */
static bool is_phi3(const Gguf *g, bool *out, Err *e) {
    GgufString name = {0};
    if (!gguf_get_string(g, "general.name", &name, e)) return false;
    for (size_t i = 0; i + 4 <= name.n; i++)
        *out |= strncasecmp(name.data + i, "phi3", 4) == 0 ||
                (i + 5 <= name.n && strncasecmp(name.data + i, "phi-3", 5) == 0);
    return true;
}

static void set_defaults(Tok *t) {
    t->bos = t->eos = t->sep = t->unknown = -1;
    switch (t->kind) {
    case TOK_SPM:
        t->unknown = 0;
        t->bos = 1;
        t->eos = 2;
        t->add_bos = t->add_space_prefix = true;
        return;
    case TOK_UNIGRAM:
        t->eos = 1;
        t->unknown = 2;
        t->add_eos = true;
        return;
    case TOK_BPE:
        t->add_bos = t->rule->flags & (PRETOK_ADD_BOS | PRETOK_ALWAYS_BOS);
        t->clean_spaces = !(t->rule->flags & PRETOK_KEEP_SPACES);
        return;
    }
}

static bool read_rules(const Gguf *g, Tok *t, Err *e) {
    int eot = -1, eom = -1;
    set_defaults(t);
    if (!read_id(g, t, "tokenizer.ggml.bos_token_id", &t->bos, e) ||
        !read_id(g, t, "tokenizer.ggml.eos_token_id", &t->eos, e) ||
        !read_id(g, t, "tokenizer.ggml.unknown_token_id", &t->unknown, e) ||
        !read_id(g, t, "tokenizer.ggml.seperator_token_id", &t->sep, e) || // the key is spelled so
        !read_id(g, t, "tokenizer.ggml.eot_token_id", &eot, e) ||
        !read_id(g, t, "tokenizer.ggml.eom_token_id", &eom, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_sep_token", &t->add_sep, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &t->add_space_prefix, e) ||
        !gguf_get_bool(g, "tokenizer.ggml.remove_extra_whitespaces", &t->remove_extra_whitespaces, e) ||
        !is_phi3(g, &t->strip_after_special, e))
        return false;
    if (t->rule && t->rule->flags & PRETOK_ALWAYS_BOS) t->add_bos = true;
    mark_ends(t, (int[]){t->eos, eot, eom}, 3);
    return true;
}

/* ---- opening ---- */

static bool read_kind(const Gguf *g, Tok *t, const char **fixed_pre, Err *e) {
    static const struct {
        const char *model;
        TokKind kind;
        const char *pre; // of kinds with one pre-tokenizer
    } models[] = {{"llama", TOK_SPM, NULL},
                  {"gpt2", TOK_BPE, NULL},
                  {"gemma4", TOK_BPE, "gemma4"},
                  {"t5", TOK_UNIGRAM, NULL}};
    GgufString model = {0};
    if (!gguf_get_string(g, "tokenizer.ggml.model", &model, e)) return false;
    if (!gguf_has(g, "tokenizer.ggml.model"))
        return err_set(e, ERR_MODEL, "%.300s has no tokenizer (no tokenizer.ggml.model)", gguf_label(g));
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        if (!string_is(model, models[i].model)) continue;
        t->kind = models[i].kind;
        *fixed_pre = models[i].pre;
        return true;
    }
    return err_set(e, ERR_MODEL, "tokenizer '%.*s' is not supported (llama, gpt2, gemma4 and t5 are)",
                   (int)(model.n < 60 ? model.n : 60), model.data);
}

static bool read_pre(const Gguf *g, Tok *t, const char *pre, Err *e) {
    GgufString name = {0};
    if (!gguf_get_string(g, "tokenizer.ggml.pre", &name, e)) return false;
    if (pre) name = (GgufString){pre, strlen(pre)};
    t->rule = pretok_find(name.data, name.n);
    if (t->rule) return true;
    t->rule = PRETOK_TABLE;
    if (name.n)
        err_warn(
            "the pre-tokenizer '%.*s' is unknown, '%s' is used instead: words may be cut differently than in "
            "training; --pre NAME chooses another",
            (int)(name.n < 60 ? name.n : 60), name.data, t->rule->names);
    else
        err_warn(
            "the file names no pre-tokenizer (tokenizer.ggml.pre), '%s' is used: words may be cut "
            "differently "
            "than in training; --pre NAME chooses another",
            t->rule->names);
    return true;
}

static bool open_encoder(const Gguf *g, Tok *t, Err *e) {
    switch (t->kind) {
    case TOK_SPM:
        t->spm = spm_open(t);
        return true;
    case TOK_BPE:
        return bpe_open(g, t, &t->bpe, e);
    case TOK_UNIGRAM:
        return unigram_open(g, t, &t->unigram, e);
    }
    return false;
}

bool tok_open_as(const Gguf *g, const char *pre, Tok **out, Err *e) {
    if (pre && !pretok_find(pre, strlen(pre))) {
        Buf names = {0};
        pretok_names(&names);
        err_set(e, ERR_USAGE, "--pre %.60s is not a pre-tokenizer; there are %.800s", pre, names.data);
        buf_free(&names);
        return false;
    }
    Tok *t = mem_new(1, sizeof *t);
    const char *fixed_pre = NULL;
    bool ok = read_kind(g, t, &fixed_pre, e) &&
              (t->kind != TOK_BPE || read_pre(g, t, pre ? pre : fixed_pre, e)) && read_entries(g, t, e) &&
              read_rules(g, t, e);
    if (ok) {
        tok_index(t);
        ok = open_encoder(g, t, e);
    }
    if (!ok) {
        tok_close(t);
        return false;
    }
    *out = t;
    return true;
}

bool tok_open(const Gguf *g, Tok **out, Err *e) {
    return tok_open_as(g, NULL, out, e);
}

void tok_close(Tok *t) {
    if (!t) return;
    spm_close(t->spm);
    bpe_close(t->bpe);
    unigram_close(t->unigram);
    tok_table_free(&t->plain);
    free(t->specials.texts);
    free(t->bytes);
    free(t->entries);
    free(t);
}
