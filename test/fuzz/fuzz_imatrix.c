/* fuzz_imatrix: any bytes as an importance matrix.  What is read must be finite, sorted and found by name; what
 * is refused must have a reason. */
#include "../../src/gguf/imatrix.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Err e = {0};
    Imatrix m;
    if (!imatrix_open_bytes(data, size, "f", &m, &e)) {
        if (e.code != ERR_MODEL || !e.text[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < m.n; i++) {
        const ImatrixEntry *entry = &m.entries[i];
        if (imatrix_find(&m, entry->name) != entry) abort();
        for (size_t k = 0; k < entry->n; k++)
            if (!isfinite(entry->mean[k]) || entry->mean[k] < 0) abort();
    }
    imatrix_close(&m);
    return 0;
}
