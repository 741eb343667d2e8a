/* tok_rig: see tok_rig.h. */
#include "check.h"
#include "tok_rig.h"
#include "../../src/base/mem.h"
#include "../../src/text/nfc.h"

#include <glob.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool vocab_open(const char *path, const char *pre, Vocab *v) {
    Err e = {0};
    *v = (Vocab){0};
    bool ok = gguf_open(path, &v->gguf, &e) && tok_open_as(v->gguf, pre, &v->tok, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s: %s", path, e.text);
    return ok;
}

void vocab_close(Vocab *v) {
    tok_close(v->tok);
    gguf_close(v->gguf);
}

void check_ids(const char *what, const TokIds *ids, const json_t *expected, size_t skip) {
    bool equal = ids->n + skip == json_array_size(expected);
    for (size_t i = 0; equal && i < ids->n; i++)
        equal = ids->data[i] == json_integer_value(json_array_get(expected, i + skip));
    if (equal) return;
    char *wanted = json_dumps(expected, JSON_COMPACT);
    Buf got = {0};
    for (size_t i = 0; i < ids->n; i++) buf_printf(&got, "%s%d", i ? "," : "", ids->data[i]);
    test_fail(__FILE__, __LINE__, "%s: wanted %s (less %zu), got %s", what, wanted, skip,
              got.n ? got.data : "none");
    buf_free(&got);
    free(wanted);
}

static bool flag(const json_t *o, const char *key) {
    return json_is_true(json_object_get(o, key));
}

void check_tokenize(const Tok *t, const json_t *c) {
    const json_t *text = json_object_get(c, "text"), *expected = json_object_get(c, "ids");
    int flags =
        (flag(c, "add_special") ? TOK_ADD_SPECIAL : 0) | (flag(c, "parse_special") ? TOK_PARSE_SPECIAL : 0);
    /* llama.cpp doubles the BOS of a text that begins with one; zgen does not. */
    int bos = tok_bos(t);
    size_t doubled = flags & TOK_ADD_SPECIAL && json_integer_value(json_array_get(expected, 0)) == bos &&
                     json_array_size(expected) > 1 && json_integer_value(json_array_get(expected, 1)) == bos;
    TokIds ids = {0};
    tok_encode(t, json_string_value(text), json_string_length(text), flags, &ids);
    check_ids(json_string_value(text), &ids, expected, doubled);
    tok_ids_free(&ids);
}

/* llama.cpp does not compose where the makers do: a text that is not composed has the ids of the one that
 * is. */
static bool check_composed(const Tok *t, const json_t *c) {
    const json_t *text = json_object_get(c, "text");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    Buf composed = {0};
    bool changes = t->rule && t->rule->flags & PRETOK_COMPOSE && nfc_compose(s, n, &composed) &&
                   (composed.n != n || memcmp(composed.data, s, n) != 0);
    if (changes) {
        TokIds ids = {0}, expected = {0};
        tok_encode(t, s, n, 0, &ids);
        tok_encode(t, composed.data, composed.n, 0, &expected);
        CHECK(ids.n == expected.n && memcmp(ids.data, expected.data, ids.n * sizeof *ids.data) == 0, "%s", s);
        tok_ids_free(&ids);
        tok_ids_free(&expected);
    }
    buf_free(&composed);
    return changes;
}

static void check_hex(const char *what, const Buf *got, const json_t *hex) {
    Buf text = {0};
    for (size_t i = 0; i < got->n; i++) buf_printf(&text, "%02x", (unsigned char)got->data[i]);
    CHECK(strcmp(text.n ? text.data : "", json_string_value(hex)) == 0, "(%s): %s, not %s", what,
          text.n ? text.data : "", json_string_value(hex));
    buf_free(&text);
}

void check_detokenize(const Tok *t, const json_t *c) {
    int flags = (flag(c, "remove_special") ? TOK_REMOVE_SPECIAL : 0) |
                (flag(c, "unparse_special") ? TOK_UNPARSE_SPECIAL : 0) | TOK_CLEAN_SPACES;
    TokIds ids = {0};
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(c, "ids"), i, id) tok_ids_add(&ids, (int32_t)json_integer_value(id));
    Buf text = {0};
    tok_decode(t, ids.data, ids.n, flags, &text);
    check_hex("whole", &text, json_object_get(c, "hex"));
    for (i = 0; i < ids.n; i++) {
        buf_clear(&text);
        tok_piece(t, ids.data[i], flags & TOK_UNPARSE_SPECIAL, &text);
        check_hex("piece", &text, json_array_get(json_object_get(c, "pieces_hex"), i));
    }
    buf_free(&text);
    tok_ids_free(&ids);
}

static void add_pieces(const Tok *t, const TokIds *ids, Buf *out) {
    for (size_t i = 0; i < ids->n; i++) tok_piece(t, ids->data[i], true, out);
}

void check_round_trip(const Tok *t) {
    Buf piece = {0}, again = {0};
    TokIds ids = {0};
    size_t n_prefix = t->add_space_prefix;
    for (int id = 0; id < tok_n_vocab(t); id++) {
        buf_clear(&piece);
        buf_clear(&again);
        ids.n = 0;
        tok_piece(t, id, true, &piece);
        CHECK(piece.n > 0, "token %d", id);
        if (!utf8_is_valid(piece.data, piece.n))
            continue; // a byte of a longer character: see the streaming tests
        tok_encode(t, piece.data, piece.n, TOK_PARSE_SPECIAL, &ids);
        bool special = tok_type(t, id) == TOK_CONTROL || tok_type(t, id) == TOK_UNKNOWN;
        CHECK(!special || (ids.n == 1 && ids.data[0] == id), "token %d", id);
        add_pieces(t, &ids, &again);
        size_t skip = again.n > piece.n ? n_prefix : 0;
        CHECK(again.n == piece.n + skip && memcmp(again.data + skip, piece.data, piece.n) == 0,
              "token %d: '%s' became '%s'", id, piece.data, again.data);
    }
    buf_free(&piece);
    buf_free(&again);
    tok_ids_free(&ids);
}

json_t *load(const char *path) {
    json_error_t error;
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!root) test_fail(__FILE__, __LINE__, "%s: %s", path, error.text);
    return root;
}

/* ---- vocabularies made in memory ---- */

void put(Buf *b, uint64_t value, size_t n) {
    buf_add(b, &value, n);
} // little endian, like the tests' machines

void put_string(Buf *b, const char *s) {
    put(b, strlen(s), 8);
    buf_add(b, s, strlen(s));
}

void file_begin(Buf *b) {
    buf_add(b, "GGUF", 4);
    put(b, 3, 4);
    put(b, 0, 8);
    put(b, 0, 8);
}

void file_key(Buf *b, const char *key, uint32_t type) {
    b->data[16]++;
    put_string(b, key);
    put(b, type, 4);
}

void file_string(Buf *b, const char *key, const char *value) {
    file_key(b, key, STRING);
    put_string(b, value);
}

void file_u32(Buf *b, const char *key, uint32_t value) {
    file_key(b, key, U32);
    put(b, value, 4);
}

void file_array(Buf *b, const char *key, uint32_t type, size_t n) {
    file_key(b, key, ARRAY);
    put(b, type, 4);
    put(b, n, 8);
}

void file_bool(Buf *b, const char *key, bool value) {
    file_key(b, key, BOOL);
    put(b, value, 1);
}

void file_strings(Buf *b, const char *key, const char *const *strings, size_t n) {
    file_array(b, key, STRING, n);
    for (size_t i = 0; i < n; i++) put_string(b, strings[i]);
}

void file_pieces(Buf *b, const char *model, const Piece *pieces, size_t n) {
    file_string(b, "general.architecture", "llama");
    file_string(b, "tokenizer.ggml.model", model);
    file_array(b, "tokenizer.ggml.tokens", STRING, n);
    for (size_t i = 0; i < n; i++) put_string(b, pieces[i].text);
    file_array(b, "tokenizer.ggml.scores", F32, n);
    for (size_t i = 0; i < n; i++) buf_add(b, &pieces[i].score, 4);
    file_array(b, "tokenizer.ggml.token_type", I32, n);
    for (size_t i = 0; i < n; i++) put(b, (uint64_t)pieces[i].type, 4);
}

/* NULL if the container or the tokenizer refuses it; *e has the reason. */
Tok *open_bytes(const Buf *file, Gguf **gguf, Err *e) {
    Tok *t = NULL;
    *gguf = NULL;
    if (gguf_open_bytes(file->data, file->n, "test", gguf, e)) tok_open(*gguf, &t, e);
    return t;
}

Made made_open(Buf file) {
    Err e = {0};
    Made m = {.file = file};
    m.tok = open_bytes(&m.file, &m.gguf, &e);
    if (!m.tok) test_fail(__FILE__, __LINE__, "refused: %s", e.text);
    return m;
}

void made_close(Made *m) {
    tok_close(m->tok);
    gguf_close(m->gguf);
    buf_free(&m->file);
}

/* The ids of text as "1 5 9". */
const char *encoded(const Tok *t, const char *text, size_t n, int flags) {
    static Buf line;
    TokIds ids = {0};
    tok_encode(t, text, n, flags, &ids);
    buf_clear(&line);
    buf_add(&line, "", 0);
    for (size_t i = 0; i < ids.n; i++) buf_printf(&line, "%s%d", i ? " " : "", ids.data[i]);
    tok_ids_free(&ids);
    return line.data;
}

uint32_t random_next(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/* ---- recorded cases ---- */

void check_models(const char *pattern, size_t least) {
    glob_t files;
    if (glob(pattern, 0, NULL, &files) != 0 && strncmp(pattern, "../", 3) == 0)
        SKIP("no ../shared/golden/models");
    for (size_t f = 0; f < files.gl_pathc; f++) {
        json_t *root = load(files.gl_pathv[f]), *cases = json_object_get(root, "text_cases"), *c;
        char path[300];
        const char *name = json_string_value(json_object_get(root, "file"));
        snprintf(path, sizeof path, "%.*s/%s", (int)(strrchr(pattern, '/') - pattern), pattern, name);
        Vocab v = {0};
        size_t i;
        if (vocab_open(path, NULL, &v)) {
            CHECK(json_array_size(cases) > 0, "%s", path);
            json_array_foreach(cases, i, c) check_tokenize(v.tok, c);
        }
        vocab_close(&v);
        json_decref(root);
    }
    CHECK(files.gl_pathc >= least, "%zu files", files.gl_pathc);
    globfree(&files);
}

void check_shared(const char *name, size_t n_tokenize, size_t n_detokenize) {
    char path[300];
    snprintf(path, sizeof path, SHARED "%s.cases.json", name);
    if (access(path, R_OK) != 0) SKIP("no " SHARED);
    json_t *root = load(path), *c;
    snprintf(path, sizeof path, SHARED "%s", json_string_value(json_object_get(root, "vocab")));
    Vocab v;
    REQUIRE(vocab_open(path, json_string_value(json_object_get(root, "pre")), &v));
    size_t i, n_composed = 0;
    json_array_foreach(json_object_get(root, "tokenize"), i, c) {
        if (check_composed(v.tok, c))
            n_composed++;
        else
            check_tokenize(v.tok, c);
    }
    CHECK(i == n_tokenize && n_composed <= 8, "%zu, %zu", i, n_composed);
    json_array_foreach(json_object_get(root, "detokenize"), i, c) check_detokenize(v.tok, c);
    CHECK(json_array_size(json_object_get(root, "detokenize")) == n_detokenize, "%zu", i);
    if (n_detokenize) check_round_trip(v.tok);
    vocab_close(&v);
    json_decref(root);
}

static char *read_text(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    char *text = mem_new(1 << 20, 1);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    fclose(f);
    text[n] = 0;
    return text;
}

void check_lines(const char *name) {
    static const char border[] = "\n__ggml_vocab_test__\n";
    char path[300];
    snprintf(path, sizeof path, SHARED "%s", name);
    if (access(path, R_OK) != 0) SKIP("no " SHARED);
    Vocab v;
    REQUIRE(vocab_open(path, NULL, &v));
    snprintf(path, sizeof path, SHARED "%s.inp", name);
    char *texts = read_text(path);
    snprintf(path, sizeof path, SHARED "%s.out", name);
    char *lines = read_text(path), *line = lines;
    REQUIRE(texts && lines);
    size_t n_cases = 0;
    for (char *text = texts, *end; (end = strstr(text, border)); text = end + strlen(border), n_cases++) {
        char *line_end = strchr(line, '\n');
        REQUIRE(line_end);
        *line_end = 0;
        const char *got = encoded(v.tok, text, (size_t)(end - text), 0);
        line += strspn(line, " ");
        size_t n = strlen(line);
        while (n && line[n - 1] == ' ') line[--n] = 0;
        CHECK(strcmp(got, line) == 0, "case %zu: %s, not %s", n_cases, got, line);
        line = line_end + 1;
    }
    CHECK(n_cases > 40, "%zu", n_cases);
    free(texts);
    free(lines);
    vocab_close(&v);
}

/* ---- hostile files ---- */

int stderr_hide(void) {
    fflush(stderr);
    int saved = dup(2);
    if (!freopen("/dev/null", "w", stderr)) abort();
    return saved;
}

void stderr_show(int saved) {
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
}

static void use(const Tok *t) {
    static const char text[] = "<s>ab <|x|>\n\n\xC3\xA9\xFF</s><|im_end|> bb\0<0x41> hello world 123";
    TokIds ids = {0};
    Buf out = {0};
    for (int flags = 0; flags < 4; flags++) tok_encode(t, text, sizeof text, flags, &ids);
    for (size_t i = 0; i < ids.n; i++) CHECK(ids.data[i] >= 0 && ids.data[i] < tok_n_vocab(t));
    tok_decode(t, ids.data, ids.n, TOK_REMOVE_SPECIAL, &out);
    tok_ids_free(&ids);
    buf_free(&out);
}

void check_mutations(Buf *file, size_t least) {
    int saved = stderr_hide();
    size_t n_used = 0, n_refused = 0;
    for (size_t i = 0; i < file->n; i++) {
        static const unsigned char changes[] = {0x01, 0x20, 0x80, 0xFF};
        for (size_t k = 0; k < sizeof changes; k++) {
            file->data[i] ^= (char)changes[k];
            Gguf *g;
            Err e = {0};
            Tok *t = open_bytes(file, &g, &e);
            if (t) {
                use(t);
                n_used++;
            } else
                n_refused += e.code == ERR_MODEL && e.text[0];
            CHECK(t || (e.code == ERR_MODEL && e.text[0]));
            tok_close(t);
            gguf_close(g);
            file->data[i] ^= (char)changes[k];
        }
    }
    stderr_show(saved);
    CHECK(n_used > least && n_refused > least, "%zu used, %zu refused", n_used, n_refused);
}

size_t work_for(const Tok *t, Work *work, const char *unit, size_t n) {
    Buf text = {0};
    while (text.n < n) buf_add(&text, unit, strlen(unit));
    size_t steps = work(t, text.data, n);
    buf_free(&text);
    return steps;
}

void check_work(const Tok *t, Work *work, const char *unit, size_t per_byte) {
    size_t small = work_for(t, work, unit, 4000), large = work_for(t, work, unit, 400000);
    CHECK(large < 200 * small + 1000, "'%s': %zu steps for 4000 bytes, %zu for 400000", unit, small, large);
    CHECK(large < per_byte * 400000, "'%s': %zu steps for 400000 bytes", unit, large);
}
