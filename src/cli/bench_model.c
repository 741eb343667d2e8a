/* bench_model: see bench_model.h.  Names and numbers are llama.cpp's: LLAMA_FTYPE_* of llama.h, the sizes
 * that each family's load_arch_hparams finds. */
#include "bench_model.h"

#include <stdio.h>
#include <string.h>

static const struct Mix {
    int file_type; // general.file_type
    int of;        // the type of most tensors that this mix is guessed from, or -1
    const char *name;
} mixes[] = {
    {0, QUANT_F32, "all F32"},
    {1, QUANT_F16, "F16"},
    {2, QUANT_Q4_0, "Q4_0"},
    {3, QUANT_Q4_1, "Q4_1"},
    {7, QUANT_Q8_0, "Q8_0"},
    {8, QUANT_Q5_0, "Q5_0"},
    {9, QUANT_Q5_1, "Q5_1"},
    {10, QUANT_Q2_K, "Q2_K - Medium"},
    {11, -1, "Q3_K - Small"},
    {12, QUANT_Q3_K, "Q3_K - Medium"},
    {13, -1, "Q3_K - Large"},
    {14, -1, "Q4_K - Small"},
    {15, QUANT_Q4_K, "Q4_K - Medium"},
    {16, -1, "Q5_K - Small"},
    {17, QUANT_Q5_K, "Q5_K - Medium"},
    {18, QUANT_Q6_K, "Q6_K"},
    {21, -1, "Q2_K - Small"},
    {25, QUANT_IQ4_NL, "IQ4_NL - 4.5 bpw"},
    {30, QUANT_IQ4_XS, "IQ4_XS - 4.25 bpw"},
    {32, QUANT_BF16, "BF16"},
    {38, QUANT_MXFP4, "MXFP4 MoE"},
    {39, QUANT_NVFP4, "NVFP4"},
};
enum { N_MIXES = sizeof mixes / sizeof *mixes };

/* The first row that fits counts; 0 fits everything. */
static const struct Size {
    const char *arch;
    int n_layer, n_expert, n_embd, vocab_below;
    const char *name;
} sizes[] = {
    {"llama", 32, 8, 0, 0, "8x7B"},       {"llama", 56, 8, 0, 0, "8x22B"},
    {"llama", 16, 0, 0, 0, "1B"},         {"llama", 22, 0, 0, 0, "1B"},
    {"llama", 26, 0, 0, 0, "3B"},         {"llama", 28, 0, 0, 0, "3B"},
    {"llama", 30, 0, 0, 0, "256M"},       {"llama", 32, 0, 0, 40000, "7B"},
    {"llama", 32, 0, 0, 0, "8B"},         {"llama", 36, 0, 0, 0, "8B"},
    {"llama", 40, 0, 0, 0, "13B"},        {"llama", 48, 0, 0, 0, "34B"},
    {"llama", 60, 0, 0, 0, "30B"},        {"llama", 80, 0, 0, 0, "70B"},
    {"qwen3", 28, 0, 1024, 0, "0.6B"},    {"qwen3", 28, 0, 0, 0, "1.7B"},
    {"qwen3", 36, 0, 2560, 0, "4B"},      {"qwen3", 36, 0, 0, 0, "8B"},
    {"qwen3", 40, 0, 0, 0, "14B"},        {"qwen3", 64, 0, 0, 0, "32B"},
    {"qwen3moe", 48, 0, 0, 0, "30B.A3B"}, {"qwen3moe", 94, 0, 0, 0, "235B.A22B"},
    {"gemma3", 18, 0, 0, 0, "270M"},      {"gemma3", 26, 0, 0, 0, "1B"},
    {"gemma3", 34, 0, 0, 0, "4B"},        {"gemma3", 48, 0, 0, 0, "12B"},
    {"gemma3", 62, 0, 0, 0, "27B"},
};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static const char *find_size(const Hparams *h) {
    for (int i = 0; i < N_SIZES; i++) {
        const struct Size *s = &sizes[i];
        if (strcmp(s->arch, h->arch) == 0 && s->n_layer == h->n_layer &&
            (!s->n_expert || s->n_expert == h->n_expert) && (!s->n_embd || s->n_embd == h->n_embd) &&
            (!s->vocab_below || h->n_vocab < s->vocab_below))
            return s->name;
    }
    return "?B";
}

/* The mix whose type most tensors have. */
static const struct Mix *guess(const Gguf *g) {
    int count[N_MIXES] = {0}, best = 0;
    for (int64_t t = 0; t < gguf_n_tensors(g); t++)
        for (int i = 0; i < N_MIXES; i++)
            if (mixes[i].of == (int)gguf_tensor(g, t)->type && ++count[i] > count[best]) best = i;
    return &mixes[best];
}

static void add_mix(const Gguf *g, Buf *out) {
    int64_t file_type = -1;
    Err ignored;
    gguf_get_int(g, "general.file_type", 0, 1000, &file_type, &ignored);
    for (int i = 0; i < N_MIXES; i++)
        if (mixes[i].file_type == file_type) {
            buf_printf(out, "%s", mixes[i].name);
            return;
        }
    buf_printf(out, "(guessed) %s", guess(g)->name);
}

void bench_model_type(const Gguf *g, const Hparams *h, Buf *out) {
    buf_printf(out, "%s %s ", h->arch, find_size(h));
    add_mix(g, out);
}

double bench_model_bytes(const Gguf *g) {
    double sum = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) sum += (double)gguf_tensor(g, i)->n_bytes;
    return sum;
}

double bench_model_params(const Gguf *g) {
    double sum = 0;
    for (int64_t i = 0; i < gguf_n_tensors(g); i++) {
        const int64_t *ne = gguf_tensor(g, i)->ne;
        sum += (double)ne[0] * (double)ne[1] * (double)ne[2] * (double)ne[3];
    }
    return sum;
}

/* What stands behind a label in a file, without the white space and the colon between: the first such line.
 */
static void read_line(const char *path, const char *label, Buf *out) {
    FILE *f = fopen(path, "re");
    char line[300];
    while (f && out->n == 0 && fgets(line, sizeof line, f)) {
        if (strncmp(line, label, strlen(label)) != 0) continue;
        const char *value = line + strlen(label);
        value += strspn(value, " \t:");
        buf_add(out, value, strcspn(value, "\n"));
    }
    if (f) fclose(f);
}

void bench_cpu_name(Buf *out) {
    read_line("/proc/cpuinfo", "model name", out);
    buf_add(out, "", 0);
}

double bench_peak_memory(void) {
    Buf line = {0};
    double kib = 0;
    read_line("/proc/self/status", "VmHWM", &line);
    if (line.n) sscanf(line.data, "%lf", &kib);
    buf_free(&line);
    return kib * 1024;
}

void bench_forget_peak_memory(void) {
    FILE *f = fopen("/proc/self/clear_refs", "we");
    if (f) fputs("5", f), fclose(f);
}
