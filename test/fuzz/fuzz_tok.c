/* fuzz_tok: any vocabulary, any list of merges, any text.
 *
 * The bytes are read as: one that picks the kind of vocabulary, one that picks the pre-tokenizer, one of
 * flags for the file, then tokens, merges and text, each list ended by a byte 0xFF and each string by a byte
 * 0xFE.  A vocabulary that opens must encode to ids of its own, and the text streamed from them must be
 * UTF-8. */
#include "../../src/text/pretok.h"
#include "../../src/text/tok.h"

#include <stdlib.h>
#include <string.h>

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 }; // GGUF's value types

typedef struct Input {
    const uint8_t *at, *end;
} Input;

static uint8_t take(Input *in) {
    return in->at < in->end ? *in->at++ : 0xFF;
}

static void put(Buf *b, uint64_t value, size_t n) {
    buf_add(b, &value, n);
}

static void put_text(Buf *b, const char *s, size_t n) {
    put(b, n, 8);
    buf_add(b, s, n);
}

static void put_key(Buf *b, const char *key, uint32_t type) {
    b->data[16]++; // the number of keys
    put_text(b, key, strlen(key));
    put(b, type, 4);
}

static void put_bool(Buf *b, const char *key, bool value) {
    put_key(b, key, BOOL);
    put(b, value, 1);
}

/* Appends a list of strings; returns how many. */
static uint32_t put_strings(Buf *b, Input *in, const char *key) {
    put_key(b, key, ARRAY);
    put(b, STRING, 4);
    size_t count_at = b->n;
    uint32_t count = 0;
    Buf s = {0};
    buf_add(&s, "", 0);
    put(b, 0, 8);
    for (uint8_t byte; in->at < in->end && (byte = take(in)) != 0xFF;) {
        if (byte != 0xFE) {
            buf_add(&s, &byte, 1);
            continue;
        }
        put_text(b, s.data, s.n);
        buf_clear(&s);
        count++;
    }
    memcpy(b->data + count_at, &count, sizeof count);
    buf_free(&s);
    return count;
}

static void put_vocabulary(Buf *b, Input *in, bool is_unigram) {
    uint32_t n = put_strings(b, in, "tokenizer.ggml.tokens");
    put_strings(b, in, "tokenizer.ggml.merges");
    put_key(b, "tokenizer.ggml.scores", ARRAY);
    put(b, F32, 4);
    put(b, n, 8);
    for (uint32_t i = 0; i < n; i++) buf_add(b, &(float){-(float)(i * 7 % 13) - is_unigram}, 4);
    put_key(b, "tokenizer.ggml.token_type", ARRAY);
    put(b, I32, 4);
    put(b, n, 8);
    for (uint32_t i = 0; i < n; i++)
        put(b, i % 7 == 6 ? 4 : i % 11 == 10 ? 3 : 1, 4); // user-defined, control, normal
}

static void encode(const Tok *t, const char *text, size_t n) {
    TokIds ids = {0};
    Buf out = {0};
    TokStream stream = {.tok = t, .special = true};
    for (int flags = 0; flags < 4; flags++) tok_encode(t, text, n, flags, &ids);
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.data[i] < 0 || ids.data[i] >= tok_n_vocab(t)) abort();
        tok_stream_push(&stream, ids.data[i], &out);
    }
    tok_stream_end(&stream, &out);
    if (out.n && !utf8_is_valid(out.data, out.n)) abort();
    tok_decode(t, ids.data, ids.n, (int)(n % 16), &out);
    tok_ids_free(&ids);
    buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const models[] = {"llama", "gpt2", "gemma4", "t5"};
    Input in = {data, data + size};
    int n_rules = 0, kind = take(&in) % 4;
    while (PRETOK_TABLE[n_rules].names) n_rules++;
    const char *names = PRETOK_TABLE[take(&in) % n_rules].names;
    uint8_t flags = take(&in);
    Buf file = {0};
    buf_add(&file, "GGUF", 4);
    put(&file, 3, 4);
    put(&file, 0, 8);
    put(&file, 0, 8);
    put_key(&file, "tokenizer.ggml.model", STRING);
    put_text(&file, models[kind], strlen(models[kind]));
    put_key(&file, "tokenizer.ggml.pre", STRING);
    put_text(&file, names, strcspn(names, " "));
    put_bool(&file, "tokenizer.ggml.add_bos_token", flags & 1);
    put_bool(&file, "tokenizer.ggml.add_eos_token", flags & 2);
    put_bool(&file, "tokenizer.ggml.add_space_prefix", flags & 4);
    put_bool(&file, "tokenizer.ggml.remove_extra_whitespaces", flags & 8);
    put_vocabulary(&file, &in, kind == 3);

    Gguf *g = NULL;
    Tok *t = NULL;
    Err e = {0};
    if (!gguf_open_bytes(file.data, file.n, "fuzz", &g, &e)) abort();
    if (tok_open(g, &t, &e))
        encode(t, (const char *)in.at, (size_t)(in.end - in.at));
    else if (t || e.code != ERR_MODEL || !e.text[0])
        abort();
    tok_close(t);
    gguf_close(g);
    buf_free(&file);
    return 0;
}
