/* magic: see magic.h. */
#include "magic.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

enum { HEADER_BYTES = 24 };

static const struct {
    const char *bytes;
    size_t n;
    const char *what;
} KINDS[] = {
    {"version https://git-lfs", 23, "a git-lfs pointer, not the file; fetch that with `git lfs pull`"},
    {"PK\3\4", 4, "a zip archive; unpack it, or convert the model to GGUF"},
    {"\x80\x02", 2, "a PyTorch file (pickle); convert the model to GGUF"},
    {"\x1f\x8b", 2, "a gzip archive; unpack it first"},
    {"\x28\xb5\x2f\xfd", 4, "a zstd archive; unpack it first"},
    {"\xfd\x37zXZ", 5, "an xz archive; unpack it first"},
    {"7z\xbc\xaf", 4, "a 7z archive; unpack it first"},
    {"\x89HDF", 4, "an HDF5 (Keras) file; convert the model to GGUF"},
    {"\x7f\x45LF", 4, "a program; give the path of a GGUF file"},
    {"lmgg", 4, "a GGML file from before GGUF; convert the original model again"},
    {"fmgg", 4, "a GGML file from before GGUF; convert the original model again"},
    {"tjgg", 4, "a GGML file from before GGUF; convert the original model again"},
    {"algg", 4, "a GGML file (LoRA) from before GGUF; convert the original again"},
};

static bool is_pytorch_zip(const uint8_t *data, size_t n) {
    return n > 4 && memcmp(data, "PK\3\4", 4) == 0 && memmem(data, n < 4096 ? n : 4096, "data.pkl", 8);
}

/* Safetensors: the length of a JSON object, then the object. */
static bool is_safetensors(const uint8_t *data, size_t n) {
    uint64_t length;
    if (n < 9 || data[8] != '{') return false;
    memcpy(&length, data, 8);
    return length <= n - 8 || length < 100 << 20;
}

/* The number of its entries, then the length of a name and the name. */
bool magic_is_imatrix(const uint8_t *data, size_t n) {
    int32_t length;
    if (n < 16) return false;
    memcpy(&length, data + 4, 4);
    return length > 7 && length < 100 && (size_t)length <= n - 8 &&
           memcmp(data + 1 + length, ".weight", 7) == 0;
}

/* The format and the remedy, for an error; NULL: unknown. */
static const char *recognise(const uint8_t *data, size_t n) {
    if (is_pytorch_zip(data, n)) return "a PyTorch file; convert the model to GGUF";
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (n >= KINDS[i].n && memcmp(data, KINDS[i].bytes, KINDS[i].n) == 0) return KINDS[i].what;
    if (magic_is_imatrix(data, n))
        return "an importance matrix in its old form, for quantising a model; give the model";
    if (is_safetensors(data, n)) return "a safetensors file; convert the model to GGUF";
    size_t i = n >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    while (i < n && isspace(data[i])) i++;
    if (i + 1 < n && data[i] == '<' && (data[i + 1] == '!' || data[i + 1] == '?' || isalpha(data[i + 1])))
        return "an HTML page; download the file itself, not the page about it";
    if (i < n && data[i] == '{') return "a JSON text; download the file itself";
    return NULL;
}

const char *magic_remedy(const char *label, const char *otherwise) {
    const char *name = strrchr(label, '/');
    name = name ? name + 1 : label;
    static const char *const parts[] = {".gguf.part", ".gguf-split-", ".gguf.split-", ".part-"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i]))
            return "by its name it is a part of a file; join all parts in order (cat PART... >FILE) and give "
                   "that";
    return otherwise;
}

bool magic_check(const uint8_t *data, size_t n, const char *label, int *version, Err *e) {
    if (n == 0) return err_set(e, ERR_MODEL, "%.300s: the file is empty; download it again", label);
    if (memcmp(data, "GGUF", n < 4 ? n : 4) != 0) {
        const char *what = recognise(data, n);
        if (what) return err_set(e, ERR_MODEL, "%.300s: this is %s", label, what);
        return err_set(e, ERR_MODEL, "%.300s: this is not a GGUF file: it does not begin with \"GGUF\"; %s",
                       label, magic_remedy(label, "give the path of one"));
    }
    if (n < HEADER_BYTES)
        return err_set(
            e, ERR_MODEL,
            "%.300s: the file is cut off: a GGUF header has %d bytes, it has %zu; download it again", label,
            HEADER_BYTES, n);
    uint32_t v;
    memcpy(&v, data + 4, sizeof v);
    if (__builtin_bswap32(v) - 1 < 16)
        return err_set(e, ERR_MODEL,
                       "%.300s: this is a big-endian GGUF file; zgen reads little-endian ones, convert it",
                       label);
    if (v != 2 && v != 3)
        return err_set(e, ERR_MODEL,
                       "%.300s: this is GGUF version %" PRIu32
                       "; zgen reads versions 2 and 3, convert it again",
                       label, v);
    *version = (int)v;
    return true;
}
