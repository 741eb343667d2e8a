/* together: requests on the GPU: alone, beside others, preempted, behind beginnings of others. */
#include "../unit/together.h"
#include "gpu.h"

TEST(gpu_tokens_do_not_depend_on_others) {
    if (gpu_missing()) SKIP(gpu_missing());
    together_check("test/data/models/llama-s-Q4_0.gguf", DEVICE_CUDA, 64);
}
