/* exec: what is the same for all executors.  See exec.h. */
#include "exec.h"

ExecMemory exec_memory(const Plan *p, const ExecConfig *c) {
    return (ExecMemory){
        .kv = plan_kv_bytes(p, kv_type_bytes(c->kv_type)) * (size_t)c->n_ctx * (size_t)c->n_seq,
        .registers = p->row_bytes_T * (size_t)c->T_max + p->row_bytes_R * (size_t)c->R_max,
    };
}
