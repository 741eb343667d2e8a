/* kernels: the list of tables, and the choice among them.  The only file that depends on the processor for
 * which zgen is built. */
#include "kernels.h"

#include <string.h>

const Kernels *const kernels_all[] = {
    &kernels_scalar,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
#endif
};
const int kernels_n = sizeof kernels_all / sizeof *kernels_all;

const Kernels *kernels_find(const char *name) {
    for (int i = kernels_n - 1; i >= 0; i--) {
        const Kernels *table = kernels_all[i];
        if ((!strcmp(name, "auto") || !strcmp(name, table->name)) && table->supported()) return table;
    }
    return NULL;
}
