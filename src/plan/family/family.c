/* family: see family.h. */
#include "family.h"

#include <string.h>

const Family *const families[] = {
    &family_llama, &family_mistral3, &family_qwen2, &family_qwen3, &family_gemma, &family_gemma2,
    &family_gemma3, &family_gemma3n, &family_gemma4, &family_phi3, &family_granite, &family_olmo2,
    &family_smollm3, &family_glm4, &family_seed_oss, &family_ernie4_5, &family_exaone4, &family_hunyuan_dense,
    &family_command_r, &family_cohere2, &family_starcoder2, &family_gptneox, &family_gpt2, &family_apertus,
    // with experts
    &family_qwen3moe, &family_gpt_oss, &family_glm4moe, &family_qwen2moe, &family_ernie4_5_moe, &family_olmoe,
    &family_phimoe, &family_minimax_m2, &family_bailingmoe2, &family_deepseek2, &family_llama4, &family_mimo2,
    &family_step35,
    // recurrent
    &family_qwen35, &family_qwen35moe, &family_qwen3next, &family_lfm2, &family_lfm2moe,
    &family_granitehybrid, &family_nemotron_h, &family_nemotron_h_moe, &family_mamba2, &family_falcon_h1,
    &family_kimi_linear, NULL};

const Family *family_find(const char *arch) {
    for (const Family *const *f = families; *f; f++)
        if (strcmp((*f)->arch, arch) == 0) return *f;
    return NULL;
}

void family_list(Buf *out) {
    for (const Family *const *f = families; *f; f++)
        buf_printf(out, "%s%s", f == families ? "" : ", ", (*f)->arch);
}

const Shape *family_shape(const char *name, const Family **family) {
    for (const Family *const *f = families; *f; f++)
        for (const Shape *s = (*f)->shapes; s->name; s++)
            if (strcmp(s->name, name) == 0) {
                *family = *f;
                return s;
            }
    return NULL;
}

const char *family_size(const Hparams *h, int n_expert) {
    const ModelSize *s = family_find(h->arch)->sizes;
    while (s->name &&
           (s->n_layer != h->n_layer || (s->n_expert && s->n_expert != n_expert) ||
            (s->n_embd && s->n_embd != h->n_embd) || (s->vocab_below && h->n_vocab >= s->vocab_below)))
        s++;
    return s->name;
}
