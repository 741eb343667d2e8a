/* kv: the keys and values that attention remembers.
 *
 * One block of memory, [layer][sequence][head][position][head_dim] for K and the same for V, so that one
 * head's history is contiguous.  A sequence owns n_ctx positions. Writing is the executor's; truncating a
 * sequence needs nothing, as positions beyond its length are never read. */
#ifndef ZGEN_EXEC_KV_H
#define ZGEN_EXEC_KV_H

#include <stddef.h>
#include <stdint.h>

typedef enum KvType { KV_F16, KV_F32 } KvType;

static inline size_t kv_type_bytes(KvType type) {
    return type == KV_F16 ? 2 : 4;
}

#endif
