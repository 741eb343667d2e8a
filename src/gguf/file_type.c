/* file_type: see file_type.h. */
#include "file_type.h"

#include <strings.h>

static const struct FileType {
    int number;
    const char *name, *label;
    int most; // QuantType of most tensors, for the row to be guessed from; -1: the row is never guessed
} table[] = {
    {0, "F32", "all F32", QUANT_F32},
    {1, "F16", "F16", QUANT_F16},
    {2, "Q4_0", "Q4_0", QUANT_Q4_0},
    {3, "Q4_1", "Q4_1", QUANT_Q4_1},
    {7, "Q8_0", "Q8_0", QUANT_Q8_0},
    {8, "Q5_0", "Q5_0", QUANT_Q5_0},
    {9, "Q5_1", "Q5_1", QUANT_Q5_1},
    {10, "Q2_K", "Q2_K - Medium", QUANT_Q2_K},
    {11, "Q3_K_S", "Q3_K - Small", -1},
    {12, "Q3_K_M", "Q3_K - Medium", QUANT_Q3_K},
    {13, "Q3_K_L", "Q3_K - Large", -1},
    {14, "Q4_K_S", "Q4_K - Small", -1},
    {15, "Q4_K_M", "Q4_K - Medium", QUANT_Q4_K},
    {16, "Q5_K_S", "Q5_K - Small", -1},
    {17, "Q5_K_M", "Q5_K - Medium", QUANT_Q5_K},
    {18, "Q6_K", "Q6_K", QUANT_Q6_K},
    {19, "IQ2_XXS", "IQ2_XXS - 2.0625 bpw", QUANT_IQ2_XXS},
    {20, "IQ2_XS", "IQ2_XS - 2.3125 bpw", QUANT_IQ2_XS},
    {21, "Q2_K_S", "Q2_K - Small", -1},
    {22, "IQ3_XS", "IQ3_XS - 3.3 bpw", -1},
    {23, "IQ3_XXS", "IQ3_XXS - 3.0625 bpw", QUANT_IQ3_XXS},
    {24, "IQ1_S", "IQ1_S - 1.5625 bpw", QUANT_IQ1_S},
    {25, "IQ4_NL", "IQ4_NL - 4.5 bpw", QUANT_IQ4_NL},
    {26, "IQ3_S", "IQ3_S - 3.4375 bpw", QUANT_IQ3_S},
    {27, "IQ3_M", "IQ3_S mix - 3.66 bpw", -1},
    {28, "IQ2_S", "IQ2_S - 2.5 bpw", QUANT_IQ2_S},
    {29, "IQ2_M", "IQ2_M - 2.7 bpw", -1},
    {30, "IQ4_XS", "IQ4_XS - 4.25 bpw", QUANT_IQ4_XS},
    {31, "IQ1_M", "IQ1_M - 1.75 bpw", QUANT_IQ1_M},
    {32, "BF16", "BF16", QUANT_BF16},
    {36, "TQ1_0", "TQ1_0 - 1.69 bpw ternary", QUANT_TQ1_0},
    {37, "TQ2_0", "TQ2_0 - 2.06 bpw ternary", QUANT_TQ2_0},
    {38, "MXFP4_MOE", "MXFP4 MoE", QUANT_MXFP4},
    {39, "NVFP4", "NVFP4", QUANT_NVFP4},
    {40, "Q1_0", "Q1_0", QUANT_Q1_0},
    {41, "Q2_0", "Q2_0", QUANT_Q2_0},
    {-1, "FP8_E4M3", "FP8 E4M3", QUANT_FP8_E4M3}, // without a number: never stated
};
enum { N_ROWS = sizeof table / sizeof *table };

int file_type_number(const char *name) {
    for (int i = 0; i < N_ROWS; i++)
        if (strcasecmp(table[i].name, name) == 0) return table[i].number;
    return -1;
}

/* The type that most weights have; of FP8 weights the type in the file is I8. */
static const char *guess(const Gguf *g) {
    double weights[N_ROWS] = {0};
    int best = 0;
    for (int64_t t = 0; t < gguf_n_tensors(g); t++) {
        const GgufTensor *tensor = gguf_tensor(g, t);
        QuantType type =
            tensor->type == QUANT_I8 && gguf_has(g, "zgen.fp8.format") ? QUANT_FP8_E4M3 : tensor->type;
        for (int i = 0; i < N_ROWS; i++) {
            if (table[i].most != (int)type) continue;
            weights[i] +=
                (double)tensor->ne[0] * (double)tensor->ne[1] * (double)tensor->ne[2] * (double)tensor->ne[3];
            if (weights[i] > weights[best]) best = i;
        }
    }
    return table[best].label;
}

const char *file_type_label(const Gguf *g, bool *is_guess) {
    int64_t number = -1;
    Err ignored; // a key of another type states nothing
    gguf_get_int(g, "general.file_type", 0, INT32_MAX, &number, &ignored);
    *is_guess = false;
    for (int i = 0; i < N_ROWS; i++)
        if (number >= 0 && table[i].number == number) return table[i].label;
    *is_guess = true;
    return guess(g);
}
