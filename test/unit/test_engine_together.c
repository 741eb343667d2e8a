/* engine_together: requests beside others on the CPU; chunks of prompts end within pages. */
#include "together.h"

#include <glob.h>

TEST(engine_tokens_do_not_depend_on_others) {
    together_check("test/data/models/llama-s-Q4_0.gguf", DEVICE_CPU, 48);
}

/* Windows, states, experts: the smallest golden model of a family. */
TEST(engine_tokens_of_families_do_not_depend_on_others) {
    static const char *const families[] = {"gemma3", "qwen35", "lfm2", "gpt-oss"};
    int n_found = 0;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        char pattern[128];
        glob_t files;
        snprintf(pattern, sizeof pattern, "../shared/golden/models/%s-Q4_0.gguf", families[i]);
        if (glob(pattern, 0, NULL, &files) != 0) continue;
        n_found++;
        together_check(files.gl_pathv[0], DEVICE_CPU, 48);
        globfree(&files);
    }
    if (n_found == 0) SKIP("no model of these families in ../shared/golden/models");
}
