/* tok_table: items that are found by a hash of their keys.
 *
 * A bucket holds the items of some hash values: mostly none or one.  A hostile file can choose items that fall
 * into one bucket, and no secret seed is needed against that: the items of a bucket are sorted, so that n
 * items in one bucket are made in n log n steps and found in log n. */
#include "tok_impl.h"
#include "../base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void tok_table_make(TokTable *t, void *items, size_t n, size_t size, const uint32_t *hashes,
                    TokCompare *compare) {
    assert(n <= INT32_MAX);
    size_t n_buckets = 64;
    while (n_buckets < 2 * n) n_buckets *= 2;
    *t = (TokTable){.items = mem_new(n ? n : 1, size), .size = size, .compare = compare};
    t->first = mem_new(n_buckets + 1, sizeof *t->first);
    t->mask = (uint32_t)(n_buckets - 1);
    for (size_t i = 0; i < n; i++) t->first[hashes[i] & t->mask]++;
    for (size_t b = 1; b <= n_buckets; b++)
        t->first[b] += t->first[b - 1]; // ends of the buckets, until filled
    for (size_t i = n; i-- > 0;) {
        uint32_t at = --t->first[hashes[i] & t->mask];
        memcpy(t->items + at * size, (const char *)items + i * size, size);
    }
    free(items);
    for (size_t b = 0; b < n_buckets; b++) {
        size_t in_bucket = t->first[b + 1] - t->first[b];
        if (in_bucket > 1) qsort(t->items + t->first[b] * size, in_bucket, size, compare);
    }
}

void tok_table_free(TokTable *t) {
    free(t->items);
    free(t->first);
    *t = (TokTable){0};
}

const void *tok_table_find(const TokTable *t, uint32_t hash, const void *key) {
    uint32_t low = t->first[hash & t->mask], end = t->first[(hash & t->mask) + 1];
    for (uint32_t high = end; low < high;) {
        uint32_t middle = low + (high - low) / 2;
        if (t->compare(t->items + middle * t->size, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end ? t->items + low * t->size : NULL;
}
