/* family: see family.h. */
#include "family.h"

#include <string.h>

static const Family families[] = {
    {"llama", family_llama},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

const Family *family_find(const char *arch) {
    for (int i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].arch, arch) == 0) return &families[i];
    return NULL;
}

void family_list(Buf *out) {
    for (int i = 0; i < N_FAMILIES; i++) buf_printf(out, "%s%s", i ? ", " : "", families[i].arch);
}
