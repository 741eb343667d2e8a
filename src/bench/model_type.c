/* model_type: see model_type.h.  The names of sizes are those that llama.cpp's load_arch_hparams finds. */
#include "model_type.h"
#include "../gguf/file_type.h"

#include <stdio.h>
#include <string.h>

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

void bench_size_label(double n_params, Buf *out) {
    double in_unit = n_params < 1e6 ? n_params / 1e3 : n_params < 1e9 ? n_params / 1e6 : n_params / 1e9;
    const char *unit = n_params < 1e6 ? "K" : n_params < 1e9 ? "M" : "B";
    buf_printf(out, "%.*f%s", in_unit < 9.5 ? 1 : 0, in_unit, unit);
}

/* NULL: no row fits. */
static const char *find_size(const Hparams *h) {
    for (int i = 0; i < N_SIZES; i++) {
        const struct Size *s = &sizes[i];
        if (strcmp(s->arch, h->arch) == 0 && s->n_layer == h->n_layer &&
            (!s->n_expert || s->n_expert == h->n_expert) && (!s->n_embd || s->n_embd == h->n_embd) &&
            (!s->vocab_below || h->n_vocab < s->vocab_below))
            return s->name;
    }
    return NULL;
}

void bench_model_type(const Gguf *g, const Hparams *h, Buf *out) {
    bool is_guess;
    const char *file_type = file_type_label(g, &is_guess), *size = find_size(h);
    buf_printf(out, "%s ", h->arch);
    if (size)
        buf_printf(out, "%s", size);
    else
        bench_size_label(bench_model_params(g), out);
    buf_printf(out, " %s%s", is_guess ? "(guessed) " : "", file_type);
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
