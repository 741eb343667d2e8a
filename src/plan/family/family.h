/* family: one row per model family.  A family is a leaf: it emits ops and does not depend on executors.
 *
 * A family is a file of its own, or two of them with one tape share a file; its row is in the list of
 * family.c.  blocks.h has what layers are made of, read.h the keys that most families have. */
#ifndef ZGEN_PLAN_FAMILY_H
#define ZGEN_PLAN_FAMILY_H

#include "../builder.h"
#include "shape.h"
#include "../../base/buf.h"

typedef struct Family {
    const char *arch;             // general.architecture
    void (*emit)(PlanBuilder *b); // writes the whole tape
    const Shape *shapes;          // models to measure with
    const ModelSize *sizes;       // labels of its models
} Family;

extern const Family *const families[]; // ends with NULL

const Family *family_find(const char *arch); // NULL if there is none
void family_list(Buf *out);                  // "llama, ..." for messages

/* The shape of that name and its family, or NULL. */
const Shape *family_shape(const char *name, const Family **family);

/* The label of the model's size, or NULL where its family lists none. */
const char *family_size(const Hparams *h, int n_expert);

extern const Family family_llama, family_mistral3, family_qwen2, family_qwen3;
extern const Family family_gemma, family_gemma2, family_gemma3, family_gemma3n, family_gemma4, family_phi3,
    family_granite, family_olmo2;
extern const Family family_smollm3, family_glm4, family_seed_oss, family_ernie4_5, family_exaone4;
extern const Family family_hunyuan_dense, family_command_r, family_cohere2, family_starcoder2;
extern const Family family_gptneox, family_gpt2, family_apertus;
extern const Family family_qwen35, family_qwen35moe, family_qwen3next, family_lfm2, family_lfm2moe,
    family_granitehybrid;
extern const Family family_nemotron_h, family_nemotron_h_moe, family_mamba2, family_falcon_h1,
    family_kimi_linear;

extern const Family family_qwen3moe, family_gpt_oss, family_glm4moe, family_qwen2moe, family_ernie4_5_moe;
extern const Family family_olmoe, family_phimoe, family_minimax_m2, family_bailingmoe2, family_deepseek2;
extern const Family family_llama4, family_mimo2, family_step35;

#endif
