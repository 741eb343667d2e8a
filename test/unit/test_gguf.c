/* gguf: the container reader against real files, files built in memory, and files broken on purpose.
 *
 * Broken bytes are laid against a page that may not be touched, so that reading one byte too far is a crash
 * here and not a guess; mutations run in a child with little memory and an alarm. */
#include "check.h"
#include "gguf_writer.h"

#include <glob.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Opening bytes against a fence ---- */

typedef struct Fenced {
    uint8_t *pages, *data;
    size_t n_pages_bytes;
} Fenced;

static Fenced fence(const void *bytes, size_t n) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n + page - 1) / page * page;
    Fenced f = {.n_pages_bytes = room + page};
    f.pages = mmap(NULL, f.n_pages_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(f.pages + room, page, PROT_NONE);
    f.data = f.pages + room - n;
    if (n) memcpy(f.data, bytes, n);
    return f;
}

static void unfence(Fenced f) {
    munmap(f.pages, f.n_pages_bytes);
}

static bool in_bounds(const GgufTensor *t, const uint8_t *data, size_t n) {
    return t->data >= data && t->n_bytes <= n && (size_t)(t->data - data) <= n - t->n_bytes;
}

/* Calls every getter on every key; true if all that came back makes sense. */
static bool touch(const Gguf *g, const uint8_t *data, size_t n) {
    bool ok = gguf_n_bytes(g) == n && gguf_n_shards(g) == 1;
    volatile uint8_t seen = 0; // the data must be there to be read
    Buf text = {0};
    for (int64_t i = 0; i < gguf_n_keys(g); i++) {
        GgufString name = gguf_key(g, i);
        char *key = strndup(name.data, name.n);
        int64_t integer = 0;
        float number = 0;
        bool truth = false;
        GgufString string = {0};
        const int64_t *ints;
        const float *floats;
        const GgufString *strings;
        size_t count = 0;
        Err e;
        ok = ok && gguf_has(g, key);
        gguf_get_int(g, key, INT64_MIN, INT64_MAX, &integer, &e);
        gguf_get_float(g, key, -INFINITY, INFINITY, &number, &e);
        gguf_get_bool(g, key, &truth, &e);
        ok = ok && gguf_get_string(g, key, &string, &e) == (string.data != NULL) && isfinite(number);
        gguf_get_ints(g, key, &ints, &count, &e);
        gguf_get_floats(g, key, &floats, &count, &e);
        if (gguf_get_strings(g, key, &strings, &count, &e))
            for (size_t j = 0; j < count; j++)
                ok = ok && (const uint8_t *)strings[j].data >= data &&
                     (const uint8_t *)strings[j].data + strings[j].n <= data + n;
        buf_clear(&text);
        gguf_print_value(g, i, 40, &text);
        ok = ok && text.n > 0 && text.n < 1000;
        free(key);
    }
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const GgufTensor *t = gguf_tensor(g, i);
        ok = ok && in_bounds(t, data, n) && gguf_find_tensor(g, t->name) == t && t->n_bytes > 0;
        if (ok) seen ^= t->data[0] ^ t->data[t->n_bytes - 1];
    }
    buf_free(&text);
    return ok;
}

/* Opens the bytes in b, which must be refused with a sentence that contains `wanted`. */
static void check_refused(const char *what, const Buf *b, const char *wanted) {
    Fenced f = fence(b->data, b->n);
    Gguf *g = (Gguf *)1;
    Err e = {0};
    bool opened = gguf_open_bytes(f.data, b->n, "x.gguf", &g, &e);
    if (opened) {
        test_fail(__FILE__, __LINE__, "%s: was opened", what);
        gguf_close(g);
    } else if (g || e.code != ERR_MODEL || strncmp(e.text, "x.gguf: ", 8) != 0 || !strstr(e.text, wanted))
        test_fail(__FILE__, __LINE__, "%s: says \"%s\" (%d), expected \"%s\"", what, e.text, e.code, wanted);
    unfence(f);
}

static Gguf *check_opened(const char *what, const Buf *b) {
    Gguf *g;
    Err e;
    if (gguf_open_bytes(b->data, b->n, "x.gguf", &g, &e)) return g;
    test_fail(__FILE__, __LINE__, "%s: %s", what, e.text);
    return NULL;
}

/* ---- Real files ---- */

TEST(gguf_opens_every_model) {
    glob_t files;
    REQUIRE(glob("test/data/models/*.gguf", 0, NULL, &files) == 0);
    CHECK(files.gl_pathc >= 30);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        Gguf *g;
        Err e = {0};
        if (!gguf_open(files.gl_pathv[i], &g, &e)) {
            test_fail(__FILE__, __LINE__, "%s", e.text);
            continue;
        }
        struct stat s;
        GgufString arch = {0};
        CHECK(stat(files.gl_pathv[i], &s) == 0 && gguf_n_bytes(g) == (uint64_t)s.st_size);
        CHECK(gguf_version(g) == 3 && gguf_n_shards(g) == 1);
        CHECK(strcmp(gguf_label(g), files.gl_pathv[i]) == 0);
        CHECK(gguf_n_tensors(g) > 10 && gguf_n_keys(g) > 20);
        CHECK(gguf_get_string(g, "general.architecture", &arch, &e) && arch.n > 0);
        CHECK(strncmp(strrchr(files.gl_pathv[i], '/') + 1, arch.data, arch.n) == 0); // NAME begins with it
        uint64_t sum = 0;
        for (int64_t j = 0; j < gguf_n_tensors(g); j++) sum += gguf_tensor(g, j)->n_bytes;
        CHECK(sum < gguf_n_bytes(g) && sum > gguf_n_bytes(g) / 2);
        gguf_close(g);
    }
    globfree(&files);
}

TEST(gguf_reads_what_a_known_file_says) {
    Gguf *g;
    Err e = {0};
    REQUIRE(gguf_open("test/data/models/llama-s-Q8_0.gguf", &g, &e));
    int64_t n = 0;
    float f = 0;
    const GgufString *tokens;
    const float *scores;
    const int64_t *types;
    size_t n_tokens, n_scores, n_types;
    CHECK(gguf_n_tensors(g) == 30 && gguf_n_keys(g) == 28);
    CHECK(text_is(gguf_key(g, 0), "general.architecture"));
    CHECK(gguf_get_int(g, "llama.block_count", 1, 1000, &n, &e) && n == 3);
    CHECK(gguf_get_float(g, "llama.attention.layer_norm_rms_epsilon", 0, 1, &f, &e) && f == 1e-5f);
    CHECK(gguf_get_strings(g, "tokenizer.ggml.tokens", &tokens, &n_tokens, &e) && n_tokens == 328);
    CHECK(text_is(tokens[0], "<unk>") && text_is(tokens[68], "<0x41>"));
    CHECK(gguf_get_floats(g, "tokenizer.ggml.scores", &scores, &n_scores, &e) && n_scores == 328);
    CHECK(gguf_get_ints(g, "tokenizer.ggml.token_type", &types, &n_types, &e) && n_types == 328);
    CHECK(types[0] == 2 && types[1] == 3 && types[3] == 6);
    const GgufTensor *t = gguf_find_tensor(g, "token_embd.weight");
    REQUIRE(t);
    CHECK(t->type == QUANT_Q8_0 && t->n_dims == 2 && t->ne[0] == 64 && t->ne[1] == 328 && t->ne[2] == 1);
    CHECK(t->n_bytes == 64 / 32 * 34 * 328);
    CHECK(!gguf_find_tensor(g, "token_embd") && !gguf_find_tensor(g, ""));
    gguf_close(g);
}

/* ---- Getters ---- */

static Gguf *open_values(Buf *b) {
    put_header(b, 3, 0, 15);
    put_key(b, "u8", U8, "\xC8", 1);
    put_key(b, "i8", I8, "\xC8", 1);
    put_key(b, "u16", U16, &(uint16_t){60000}, 2);
    put_key(b, "i16", I16, &(int16_t){-3000}, 2);
    put_key(b, "u32", U32, &(uint32_t){4000000000u}, 4);
    put_key(b, "i32", I32, &(int32_t){-7}, 4);
    put_key(b, "u64", U64, &(uint64_t){1ull << 63}, 8);
    put_key(b, "i64", I64, &(int64_t){INT64_MIN}, 8);
    put_key(b, "f32", F32, &(float){0.1f}, 4);
    put_key(b, "f64", F64, &(double){0.1}, 8);
    put_key(b, "huge", F64, &(double){1e300}, 8);
    put_key(b, "nan", F32, &(float){NAN}, 4);
    put_key(b, "yes", BOOL, "\1", 1);
    put_key_string(b, "text", "a\"b\n\x1b[31m\xff\xe2\x80\xae!");
    put_key_string(b, "z", "");
    return check_opened("values", b);
}

TEST(gguf_ints_of_every_width) {
    static const struct {
        const char *key;
        int64_t value;
    } INTS[] = {{"u8", 200},           {"i8", -56}, {"u16", 60000},    {"i16", -3000},
                {"u32", 4000000000ll}, {"i32", -7}, {"i64", INT64_MIN}};
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    Err e = {0};
    for (size_t i = 0; i < sizeof INTS / sizeof *INTS; i++) {
        int64_t n = 0, v = INTS[i].value;
        const int64_t *ints;
        size_t count;
        CHECK(gguf_get_int(g, INTS[i].key, v, v, &n, &e) && n == v);
        CHECK(gguf_get_ints(g, INTS[i].key, &ints, &count, &e) && count == 1 && ints[0] == v);
        n = 42;
        if (v < INT64_MAX) CHECK(!gguf_get_int(g, INTS[i].key, v + 1, INT64_MAX, &n, &e) && n == 42);
        CHECK(says(&e, INTS[i].key) && says(&e, "expected"));
    }
    int64_t n = 42;
    const int64_t *ints;
    size_t count;
    CHECK(!gguf_get_int(g, "u64", INT64_MIN, INT64_MAX, &n, &e) && n == 42 && says(&e, "above 2^63"));
    CHECK(!gguf_get_ints(g, "u64", &ints, &count, &e) && says(&e, "above 2^63"));
    gguf_close(g);
    buf_free(&b);
}

TEST(gguf_floats_bools_strings) {
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    Err e = {0};
    float f = 42;
    bool yes = false;
    GgufString s = {0};
    CHECK(gguf_get_float(g, "f32", 0, 1, &f, &e) && f == 0.1f);
    CHECK(gguf_get_float(g, "f64", 0, 1, &f, &e) && f == 0.1f);
    CHECK(!gguf_get_float(g, "f32", 0.2f, 1, &f, &e) && says(&e, "expected 0.2 to 1"));
    CHECK(!gguf_get_float(g, "huge", -INFINITY, INFINITY, &f, &e) && says(&e, "not a finite number"));
    CHECK(!gguf_get_float(g, "nan", -INFINITY, INFINITY, &f, &e) && says(&e, "not a finite number"));
    CHECK(f == 0.1f);
    CHECK(gguf_get_bool(g, "yes", &yes, &e) && yes);
    CHECK(gguf_get_string(g, "text", &s, &e) && s.n == 14);
    CHECK(gguf_get_string(g, "z", &s, &e) && s.n == 0 && s.data);
    gguf_close(g);
    buf_free(&b);
}

TEST(gguf_set_replaces_and_adds_scalars) {
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    Err e = {0};
    int64_t n_keys = gguf_n_keys(g);
    int64_t n = 0;
    float x = 0;
    bool yes = false;
    GgufString s = {0};
    CHECK(gguf_set(g, "u8", (GgufScalar){.kind = GGUF_INT, .integer = -7}, &e));
    CHECK(gguf_set(g, "u8", (GgufScalar){.kind = GGUF_INT, .integer = INT64_MIN}, &e)); // again
    CHECK(gguf_set(g, "f32", (GgufScalar){.kind = GGUF_FLOAT, .number = 2.5}, &e));
    CHECK(gguf_set(g, "text", (GgufScalar){.kind = GGUF_STRING, .text = ""}, &e));
    CHECK(gguf_set(g, "a new one", (GgufScalar){.kind = GGUF_BOOL, .flag = true}, &e));
    CHECK(gguf_set(g, "another", (GgufScalar){.kind = GGUF_STRING, .text = "words"}, &e));
    CHECK(gguf_n_keys(g) == n_keys + 2);
    CHECK(gguf_get_int(g, "u8", INT64_MIN, INT64_MAX, &n, &e) && n == INT64_MIN);
    CHECK(gguf_get_float(g, "f32", 0, 9, &x, &e) && x == 2.5f);
    CHECK(gguf_get_bool(g, "a new one", &yes, &e) && yes);
    CHECK(gguf_get_string(g, "text", &s, &e) && s.n == 0);
    CHECK(gguf_get_string(g, "another", &s, &e) && s.n == 5 && memcmp(s.data, "words", 5) == 0);
    GgufString bytes = gguf_value_bytes(g, n_keys + 1);
    CHECK(bytes.n == 4 + 8 + 5 && bytes.data[0] == STRING);
    CHECK(!gguf_set(g, "u8", (GgufScalar){.kind = GGUF_FLOAT}, &e) && e.code == ERR_USAGE);
    CHECK(strstr(e.text, "'u8' is an i64; a float cannot replace it"), "%s", e.text);
    CHECK(!gguf_set(g, "f32", (GgufScalar){.kind = GGUF_INT}, &e) && e.code == ERR_USAGE);
    CHECK(strstr(e.text, "'f32' is an f32; an integer cannot replace it"), "%s", e.text);
    CHECK(!gguf_set(g, "text", (GgufScalar){.kind = GGUF_BOOL}, &e) && e.code == ERR_USAGE);
    gguf_close(g);
    buf_free(&b);
}

TEST(gguf_absent_keys_keep_the_default) {
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    Err e = {0};
    int64_t n = 42;
    float f = 42;
    bool yes = true;
    GgufString s = {"d", 1};
    const int64_t *ints;
    const float *floats;
    const GgufString *strings;
    size_t count = 9;
    CHECK(!gguf_has(g, "no") && !gguf_has(g, "") && gguf_has(g, "u8"));
    CHECK(gguf_get_int(g, "no", 0, 1, &n, &e) && n == 42);
    CHECK(gguf_get_float(g, "no", 0, 1, &f, &e) && f == 42);
    CHECK(gguf_get_bool(g, "no", &yes, &e) && yes);
    CHECK(gguf_get_string(g, "no", &s, &e) && s.n == 1);
    CHECK(gguf_get_ints(g, "no", &ints, &count, &e) && count == 0);
    count = 9;
    CHECK(gguf_get_floats(g, "no", &floats, &count, &e) && count == 0);
    count = 9;
    CHECK(gguf_get_strings(g, "no", &strings, &count, &e) && count == 0);
    gguf_close(g);
    buf_free(&b);
}

TEST(gguf_wrong_types_are_a_sentence) {
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    Err e = {0};
    int64_t n;
    float f;
    bool yes;
    GgufString s;
    const int64_t *ints;
    const float *floats;
    const GgufString *strings;
    size_t count;
    CHECK(!gguf_get_int(g, "text", 0, 1, &n, &e) && says(&e, "'text' is a string, not an integer"));
    CHECK(!gguf_get_int(g, "f32", 0, 1, &n, &e) && says(&e, "is an f32, not an integer"));
    CHECK(!gguf_get_int(g, "yes", 0, 1, &n, &e) && says(&e, "is a bool, not an integer"));
    CHECK(!gguf_get_float(g, "u8", 0, 1, &f, &e) && says(&e, "is a u8, not a float"));
    CHECK(!gguf_get_bool(g, "u8", &yes, &e) && says(&e, "is a u8, not a bool"));
    CHECK(!gguf_get_string(g, "i64", &s, &e) && says(&e, "is an i64, not a string"));
    CHECK(!gguf_get_ints(g, "text", &ints, &count, &e) && says(&e, "not an array of integers"));
    CHECK(!gguf_get_floats(g, "u8", &floats, &count, &e) && says(&e, "not an array of floats"));
    CHECK(!gguf_get_floats(g, "nan", &floats, &count, &e) && says(&e, "not a finite number"));
    CHECK(!gguf_get_strings(g, "u8", &strings, &count, &e) && says(&e, "not an array of strings"));
    gguf_close(g);
    buf_free(&b);
}

TEST(gguf_arrays) {
    Buf b = {0};
    put_header(&b, 2, 0, 5);
    put_array(&b, "ints", I16, 3);
    put(&b, (int16_t[]){1, -2, 3}, 6);
    put_array(&b, "floats", F64, 2);
    put(&b, (double[]){0.5, -1e9}, 16);
    put_array(&b, "strings", STRING, 3);
    put_string(&b, "one");
    put_string(&b, "");
    put_string(&b, "three");
    put_array(&b, "none", U32, 0);
    put_array(&b, "bools", BOOL, 2);
    put(&b, "\0\1", 2);
    Gguf *g = check_opened("arrays", &b);
    REQUIRE(g);
    const int64_t *ints, *again;
    const float *floats;
    const GgufString *strings;
    size_t n;
    int64_t one = 0;
    Err e = {0};
    CHECK(gguf_version(g) == 2 && gguf_n_tensors(g) == 0);
    CHECK(gguf_get_ints(g, "ints", &ints, &n, &e) && n == 3 && ints[0] == 1 && ints[1] == -2 && ints[2] == 3);
    CHECK(gguf_get_ints(g, "ints", &again, &n, &e) && again == ints);
    CHECK(gguf_get_floats(g, "floats", &floats, &n, &e) && n == 2 && floats[0] == 0.5f && floats[1] == -1e9f);
    CHECK(gguf_get_strings(g, "strings", &strings, &n, &e) && n == 3 && strings[1].n == 0);
    CHECK(text_is(strings[0], "one") && text_is(strings[2], "three"));
    CHECK(gguf_get_ints(g, "none", &ints, &n, &e) && n == 0);
    CHECK(!gguf_get_int(g, "ints", 0, 9, &one, &e) && says(&e, "is an array of 3 i16, not an integer"));
    CHECK(gguf_get_ints(g, "bools", &ints, &n, &e) && n == 2 && ints[0] == 0 && ints[1] == 1);
    CHECK(!gguf_get_ints(g, "strings", &ints, &n, &e) && says(&e, "is an array of 3 string"));
    gguf_close(g);
    buf_free(&b);
}

static void check_printed(const Gguf *g, const char *key, size_t max, const char *wanted) {
    Buf out = {0};
    for (int64_t i = 0; i < gguf_n_keys(g); i++)
        if (text_is(gguf_key(g, i), key)) gguf_print_value(g, i, max, &out);
    if (!out.data || strcmp(out.data, wanted) != 0)
        test_fail(__FILE__, __LINE__, "%s prints as %s, expected %s", key, out.data, wanted);
    buf_free(&out);
}

TEST(gguf_prints_values) {
    Buf b = {0};
    Gguf *g = open_values(&b);
    REQUIRE(g);
    check_printed(g, "i8", 20, "-56");
    check_printed(g, "u64", 20, "9223372036854775808");
    check_printed(g, "f32", 20, "0.1");
    check_printed(g, "f64", 20, "0.1");
    check_printed(g, "nan", 20, "nan");
    check_printed(g, "yes", 20, "true");
    check_printed(g, "text", 99, "\"a\\\"b\\n\\x1b[31m\\xff\\u{202e}!\"");
    check_printed(g, "text", 3, "\"a\\\"b\"... (14 bytes)");
    check_printed(g, "z", 3, "\"\"");
    gguf_close(g);
    buf_free(&b);

    put_header(&b, 3, 0, 2);
    put_array(&b, "ints", U8, 3);
    put(&b, "\1\2\3", 3);
    put_array(&b, "strings", STRING, 2);
    put_string(&b, "\xc3\xa4\xc3\xb6");
    put_string(&b, "y");
    REQUIRE((g = check_opened("arrays", &b)));
    check_printed(g, "ints", 99, "[3 x u8] 1, 2, 3");
    check_printed(g, "ints", 2, "[3 x u8] 1, ...");
    check_printed(g, "strings", 99, "[2 x string] \"\xc3\xa4\xc3\xb6\", \"y\"");
    check_printed(g, "strings", 1, "[2 x string] \"\xc3\xa4\"... (4 bytes), ...");
    gguf_close(g);
    buf_free(&b);
}

/* ---- Refusals ---- */

static void refuse_text(const char *what, const char *bytes, size_t n, const char *wanted) {
    Buf b = {0};
    buf_add(&b, bytes, n);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

TEST(gguf_names_what_is_no_gguf) {
    refuse_text("empty", "", 0, "empty");
    refuse_text("one byte", "G", 1, "cut off");
    refuse_text("three bytes", "GGU", 3, "has 24 bytes, it has 3");
    refuse_text("23 bytes", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 23, "has 24 bytes, it has 23");
    refuse_text("bad magic", "FUGG\3\0\0\0", 8, "not a GGUF file");
    refuse_text("html", " \n<!DOCTYPE html><html>", 23, "HTML");
    refuse_text("html with a byte order mark", "\xef\xbb\xbf<html>", 9, "HTML");
    refuse_text("zip", "PK\3\4\x14\0\0\0", 8, "zip");
    refuse_text("torch", "PK\3\4\0\0archive/data.pkl", 22, "PyTorch");
    refuse_text("pickle", "\x80\x02\x8a\x0a", 4, "PyTorch");
    refuse_text("safetensors", "\x20\0\0\0\0\0\0\0{\"__metadata__\":", 24, "safetensors");
    refuse_text("lfs", "version https://git-lfs.github.com/spec/v1\n", 43, "git-lfs pointer");
    refuse_text("json", "{\"error\":\"Repository not found\"}", 32, "JSON");
    refuse_text("gzip", "\x1f\x8b\x08", 3, "gzip");
    refuse_text("ggml", "lmgg\1\0\0\0", 8, "before GGUF");
}

static void refuse_header(const char *what, uint32_t version, uint64_t n_tensors, uint64_t n_keys,
                          const char *wanted) {
    Buf b = {0};
    put_header(&b, version, n_tensors, n_keys);
    pad(&b, 1, 100);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

TEST(gguf_refuses_headers) {
    refuse_header("version 0", 0, 0, 0, "version 0;");
    refuse_header("version 1", 1, 0, 0, "version 1;");
    refuse_header("version 4", 4, 0, 0, "version 4;");
    refuse_header("version 2^31", 1u << 31, 0, 0, "version 2147483648;");
    refuse_header("big-endian", 3u << 24, 0, 0, "big-endian");
    refuse_header("n_tensors 4", 3, 4, 0, "claims 4 tensors");
    refuse_header("n_tensors 2^31", 3, 1ull << 31, 0, "claims 2147483648 tensors");
    refuse_header("n_tensors 2^60", 3, 1ull << 60, 0, "tensors");
    refuse_header("n_tensors -1", 3, UINT64_MAX, 0, "claims 18446744073709551615 tensors");
    refuse_header("n_keys 8", 3, 0, 8, "claims 8 metadata keys");
    refuse_header("n_keys 2^63", 3, 0, 1ull << 63, "metadata keys");
    refuse_header("n_keys -1", 3, 0, UINT64_MAX, "metadata keys");
}

/* A file with one key whose bytes after the name are given. */
static void refuse_value(const char *what, uint32_t type, const void *value, size_t n, const char *wanted) {
    Buf b = {0};
    put_header(&b, 3, 0, 1);
    put_key(&b, "the.key", type, value, n);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

static void refuse_array(const char *what, uint32_t type, uint64_t count, size_t n, const char *wanted) {
    Buf b = {0};
    put_header(&b, 3, 0, 1);
    put_array(&b, "the.key", type, count);
    pad(&b, 1, n);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

TEST(gguf_refuses_values) {
    uint32_t array = ARRAY;
    refuse_value("type 13", 13, "12345678", 8, "'the.key' has the value type 13");
    refuse_value("type -1", UINT32_MAX, "12345678", 8, "value type 4294967295");
    refuse_value("no value", U64, "1234567", 7, "needs 8 bytes");
    refuse_value("bool 7", BOOL, "\7", 1, "boolean 7");
    refuse_value("nested array", ARRAY, &array, 4, "array of arrays");
    refuse_value("string 2^64-1", STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "18446744073709551615");
    refuse_array("element type 13", 13, 1, 8, "value type 13");
    refuse_array("count 2^64-1", U8, UINT64_MAX, 8, "claims 18446744073709551615 elements");
    refuse_array("count 2^63 u64", U64, 1ull << 63, 8, "elements");
    refuse_array("count 2^61 u64, which wraps to 0 bytes", U64, 1ull << 61, 8, "elements");
    refuse_array("one element short", U32, 3, 11, "claims 3 elements");
    refuse_array("2^30 strings", STRING, 1u << 30, 80, "claims 1073741824 elements");
    refuse_array("a string beyond the end", STRING, 1, 8, "needs 6148914691236517205 bytes");
    refuse_array("bool array with 0x55", BOOL, 2, 2, "boolean 85");
}

TEST(gguf_refuses_keys) {
    Buf b = {0};
    put_header(&b, 3, 0, 1);
    put_key(&b, "", U8, "\1", 1);
    pad(&b, 1, 8);
    check_refused("empty key", &b, "metadata key 0 has an empty name");
    buf_clear(&b);
    put_header(&b, 3, 0, 1);
    put_key(&b, "a-b", U8, "\1", 1);
    b.data[24 + 8 + 1] = 0;
    check_refused("NUL", &b, "has a NUL");
    buf_clear(&b);
    put_header(&b, 3, 0, 3);
    put_key_u32(&b, "same", 1);
    put_key_u32(&b, "other", 1);
    put_key_u32(&b, "same", 1);
    check_refused("duplicate", &b, "'same' occurs twice");
    buf_clear(&b);
    put_header(&b, 3, 0, 1);
    put_u64(&b, 70000);
    pad(&b, 1, 80000);
    check_refused("long key", &b, "70000 bytes, more than the 65535 allowed");
    buf_free(&b);
}

static void refuse_alignment(const char *what, uint32_t type, const void *value, size_t n,
                             const char *wanted) {
    Buf b = {0};
    put_header(&b, 3, 0, 1);
    put_key(&b, "general.alignment", type, value, n);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

TEST(gguf_refuses_alignments) {
    refuse_alignment("0", U32, &(uint32_t){0}, 4, "'general.alignment' is 0");
    refuse_alignment("3", U32, &(uint32_t){3}, 4, "is 3, not a power of two");
    refuse_alignment("2^31", U32, &(uint32_t){1u << 31}, 4, "is 2147483648; expected 1 to 1048576");
    refuse_alignment("2^21", U64, &(uint64_t){1u << 21}, 8, "expected 1 to 1048576");
    refuse_alignment("-1", I32, &(int32_t){-1}, 4, "is -1");
    refuse_alignment("2^63", U64, &(uint64_t){1ull << 63}, 8, "above 2^63");
    refuse_alignment("float", F32, &(float){32}, 4, "is an f32, not an integer");
    refuse_alignment("string", STRING,
                     "\2\0\0\0\0\0\0\0"
                     "32",
                     10, "is a string, not an integer");
}

static void refuse_tensor(const char *what, const char *name, uint32_t n_dims, const uint64_t *dims,
                          uint32_t type, uint64_t offset, const char *wanted) {
    Buf b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, name, n_dims, dims, type, offset);
    pad(&b, 32, 4096);
    check_refused(what, &b, wanted);
    buf_free(&b);
}

TEST(gguf_refuses_tensors) {
    const uint64_t small[4] = {32, 2, 1, 1};
    const char *name64 = "0123456789012345678901234567890123456789012345678901234567890123";
    refuse_tensor("empty name", "", 2, small, 0, 0, "tensor 0 has an empty name");
    refuse_tensor("64 bytes", name64, 2, small, 0, 0, "name of 64 bytes");
    refuse_tensor("broken UTF-8", "a\xc3", 2, small, 0, 0, "not UTF-8");
    refuse_tensor("overlong UTF-8", "\xe0\x80\x80", 2, small, 0, 0, "not UTF-8");
    refuse_tensor("surrogate", "\xed\xa0\x80", 2, small, 0, 0, "not UTF-8");
    refuse_tensor("n_dims 0", "t", 0, small, 0, 0, "'t' has 0 dimensions");
    refuse_tensor("n_dims 5", "t", 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, "has 5 dimensions");
    refuse_tensor("dim 0", "t", 2, (uint64_t[]){4, 0}, 0, 0, "dimension of 0");
    refuse_tensor("dim -1", "t", 1, (uint64_t[]){UINT64_MAX}, 0, 0, "dimension of -1");
    refuse_tensor("dim 2^63", "t", 1, (uint64_t[]){1ull << 63}, 0, 0, "dimension of -9223372036854775808");
    refuse_tensor("dim 2^31", "t", 1, (uint64_t[]){1ull << 31}, 0, 0, "dimension of 2147483648");
    refuse_tensor("dim 2^32+64", "t", 1, (uint64_t[]){(1ull << 32) + 64}, 0, 0, "dimension of 4294967360");
    refuse_tensor("product", "t", 4, (uint64_t[]){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX}, 0, 0,
                  "overflows");
    refuse_tensor("bytes", "t", 3, (uint64_t[]){INT32_MAX, INT32_MAX, 4}, 0, 0, "overflows");
    refuse_tensor("huge", "t", 2, (uint64_t[]){INT32_MAX, INT32_MAX}, 24, 0,
                  "cut off: its tensors need 4611686014132");
    refuse_tensor("type 4, removed", "t", 2, small, 4, 0, "'t' has the type 4");
    refuse_tensor("type -1", "t", 2, small, UINT32_MAX, 0, "has the type 4294967295");
    refuse_tensor("type 1000, our own", "t", 2, small, 1000, 0, "has the type 1000");
    refuse_tensor("33 of Q4_0", "t", 1, (uint64_t[]){33}, 2, 0, "multiple of the 32 in a block of type Q4_0");
    refuse_tensor("unaligned offset", "t", 2, small, 0, 16, "offset 16, not a multiple of the alignment 32");
    refuse_tensor("offset beyond", "t", 2, small, 0, 1 << 20, "cut off: its tensors need 1048");
    refuse_tensor("offset wraps", "t", 2, small, 0, UINT64_MAX - 31, "overflows");
}

TEST(gguf_refuses_tensor_pairs) {
    Buf b = {0};
    put_header(&b, 3, 2, 0);
    put_vector(&b, "one", 8, 0);
    put_vector(&b, "one", 8, 32);
    pad(&b, 32, 64);
    check_refused("same name", &b, "'one' occurs twice");
    buf_clear(&b);
    put_header(&b, 3, 2, 0);
    put_vector(&b, "one", 16, 32);
    put_vector(&b, "two", 9, 0);
    pad(&b, 32, 96);
    check_refused("overlap", &b, "'two' and 'one' overlap");
    buf_clear(&b);
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "one", 1, (uint64_t[]){INT32_MAX}, 24, 0);
    put_tensor(&b, "two", 4, (uint64_t[]){INT32_MAX, INT32_MAX, 4, 1}, 24, 0);
    pad(&b, 32, 96);
    check_refused("sum near 2^64", &b, "cut off");
    buf_free(&b);
}

TEST(gguf_refuses_one_byte_short) {
    Buf b = {0};
    put_header(&b, 3, 1, 0);
    put_vector(&b, "t", 8, 0);
    pad(&b, 32, 32);
    Gguf *g = check_opened("whole", &b);
    gguf_close(g);
    b.n--;
    check_refused("short", &b, "cut off: its tensors need 96 bytes, it has 95");
    buf_free(&b);
}

TEST(gguf_accepts_oddities) {
    Buf b = {0};
    Err e = {0};
    put_header(&b, 3, 2, 2);
    put_key(&b, "general.alignment", U64, &(uint64_t){1}, 8);
    put_key_string(&b, "general.name", "");
    put_vector(&b, "\xc3\xa4", 3, 5);
    put_vector(&b, "b", 1, 1);
    put(&b, "gggghhhhiiiijjjjk", 17);
    Gguf *g = check_opened("alignment 1", &b);
    REQUIRE(g);
    const GgufTensor *t = gguf_find_tensor(g, "\xc3\xa4");
    CHECK(t && memcmp(t->data, "hhhiiiijjjjk", 12) == 0 && t->data == (uint8_t *)b.data + b.n - 12);
    gguf_close(g);
    pad(&b, 1, 1000);
    g = check_opened("trailing garbage", &b);
    CHECK(g && gguf_n_tensors(g) == 2);
    gguf_close(g);
    buf_clear(&b);
    put_header(&b, 2, 0, 1);
    put_key(&b, "general.alignment", U32, &(uint32_t){1u << 20}, 4);
    g = check_opened("alignment 1 MiB", &b);
    gguf_close(g);
    buf_clear(&b);
    put_header(&b, 2, 0, 0);
    g = check_opened("nothing in it", &b);
    CHECK(g && gguf_n_keys(g) == 0 && !gguf_find_tensor(g, "t") && !gguf_has(g, "k"));
    int64_t n = 5;
    CHECK(g && gguf_get_int(g, "k", 0, 9, &n, &e) && n == 5);
    gguf_close(g);
    buf_free(&b);
}

/* ---- Every byte, every length ---- */

enum { MUTATION_SECONDS = 100 };

/* Runs work in a child that has little memory and time; true if it returned true. */
static bool in_a_cage(bool (*work)(const Buf *), const Buf *b) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct rlimit memory;
        getrlimit(RLIMIT_AS, &memory);
        memory.rlim_cur = 256 << 20;
        if (!SANITIZED) setrlimit(RLIMIT_AS, &memory);
        setrlimit(RLIMIT_CPU, &(struct rlimit){MUTATION_SECONDS, MUTATION_SECONDS});
        _exit(work(b) ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) fprintf(stderr, "the child died by signal %d\n", WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Opens data; a refusal must be a sentence, what is opened must make sense. */
static bool survives(const uint8_t *data, size_t n) {
    Gguf *g;
    Err e = {0};
    if (!gguf_open_bytes(data, n, "x.gguf", &g, &e)) return e.code == ERR_MODEL && strlen(e.text) > 20;
    bool ok = touch(g, data, n);
    gguf_close(g);
    return ok;
}

static size_t header_length(const Buf *b) {
    Gguf *g;
    Err e;
    size_t n = b->n;
    if (!gguf_open_bytes(b->data, b->n, "x.gguf", &g, &e)) return 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        size_t begin = (size_t)(gguf_tensor(g, i)->data - (const uint8_t *)b->data);
        if (begin < n) n = begin;
    }
    gguf_close(g);
    return n;
}

static bool flip_every_byte(const Buf *b) {
    Fenced f = fence(b->data, b->n);
    size_t n = header_length(b), failures = n == 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t old = f.data[i], values[] = {0x00, 0xFF, old ^ 0x01, old ^ 0x80};
        for (size_t j = 0; j < sizeof values; j++) {
            f.data[i] = values[j];
            if (survives(f.data, b->n)) continue;
            fprintf(stderr, "byte %zu as 0x%02x is not survived\n", i, values[j]);
            failures++;
        }
        f.data[i] = old;
    }
    unfence(f);
    return failures == 0;
}

static bool cut_every_length(const Buf *b) {
    size_t n = header_length(b), failures = n == 0;
    Fenced f = fence(b->data, n);
    for (size_t i = 0; i < n; i++) {
        memmove(f.data + n - i, b->data, i);
        Gguf *g = NULL;
        Err e = {0};
        bool opened = gguf_open_bytes(f.data + n - i, i, "x.gguf", &g, &e);
        if (!opened && e.code == ERR_MODEL) continue;
        fprintf(stderr, "the first %zu bytes are not refused\n", i);
        gguf_close(g);
        failures++;
    }
    unfence(f);
    return failures == 0;
}

static void put_hand_built(Buf *b) {
    put_header(b, 3, 3, 6);
    put_key_u32(b, "general.alignment", 64);
    put_array(b, "words", STRING, 3);
    put_string(b, "a");
    put_string(b, "");
    put_string(b, "ccc");
    put_array(b, "numbers", I64, 2);
    put(b, (int64_t[]){-1, 1}, 16);
    put_key(b, "truth", BOOL, "\1", 1);
    put_key(b, "pi", F64, &(double){3.14159}, 8);
    put_key_u32(b, "split.count", 1);
    put_vector(b, "a", 16, 0);
    put_tensor(b, "b", 2, (uint64_t[]){32, 2}, QUANT_Q4_0, 128);
    put_tensor(b, "c", 4, (uint64_t[]){1, 2, 3, 4}, QUANT_F16, 64);
    pad(b, 64, 128 + 36);
}

TEST(gguf_survives_every_mutation) {
    Buf b = {0};
    put_hand_built(&b);
    CHECK(header_length(&b) > 300);
    CHECK(in_a_cage(flip_every_byte, &b), "hand-built");
    CHECK(in_a_cage(cut_every_length, &b), "hand-built");
    buf_clear(&b);
    REQUIRE(read_file("test/data/models/llama-s-Q8_0.gguf", &b));
    CHECK(header_length(&b) > 8000);
    CHECK(in_a_cage(flip_every_byte, &b), "llama-s-Q8_0");
    CHECK(in_a_cage(cut_every_length, &b), "llama-s-Q8_0");
    buf_free(&b);
}
