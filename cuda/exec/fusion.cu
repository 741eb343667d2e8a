// fusion: which ops of a single row one kernel runs.
//
// A fusion grows op by op as long as each reads what the fusion has: products, norms, the choice of experts
// and the sum of what these give.  Blocks do not wait for each other but for outputs that they read, so a fast
// block may be ahead by some products.  Therefore an op is no part of the fusion if it might write what a
// slow block still has to read: a register whose memory was given away too early, which the plan avoids.
#include <algorithm>

#include "exec.cuh"

namespace {

struct FusionOps {
    Fusion fusion;
    const Op *product[MAX_PRODUCTS], *sum[MAX_PRODUCTS]; // sum: behind the product, or NULL
    const Op *norm[MAX_KEPT_NORMS];
    int kept_reg[MAX_KEPT]; // the registers of the kept rows
    int n_ops;              // that are part of it
};

// The kept row that is the register; -1: none.
int kept_with(const FusionOps *c, int reg) {
    for (int i = 0; i < c->fusion.kept.n_kept; i++)
        if (c->kept_reg[i] == reg) return i;
    return -1;
}

// The product of the fusion whose first output is the register; -1: none.
int product_with(const FusionOps *c, int reg) {
    for (int i = c->fusion.n - 1; i >= 0; i--)
        if (op_out(c->sum[i] ? c->sum[i] : c->product[i], 0) == reg) return i;
    return -1;
}

// Whether the op writes columns of the register.
bool writes(const Plan *plan, const Op *op, int reg) {
    for (int k = 0; reg != NO_REG && k < op_count(op, ROLE_WRITE); k++)
        if (plan_overlap(plan, op_out(op, k), reg)) return true;
    return false;
}

// Whether the fusion does.
bool writes(const Plan *plan, const FusionOps *c, int reg) {
    for (int i = 0; i < c->fusion.n; i++)
        if (writes(plan, c->product[i], reg) || (c->sum[i] && writes(plan, c->sum[i], reg))) return true;
    for (int i = 0; i < c->fusion.kept.n_norms; i++)
        if (writes(plan, c->norm[i], reg)) return true;
    return false;
}

bool overlap(const float *a, size_t n_a, const float *b, size_t n_b) {
    return a && b && a < b + n_b && b < a + n_a;
}

size_t n_out(const Product &p) {
    return (size_t)p.segment[0].w.n_out * (p.n_used && !p.summed ? p.n_used : 1);
}

// Whether every block computes some of the product's outputs.
bool is_for_all(const Product &p, int n_blocks) {
    int n = p.segment[0].w.layout.n_tile_rows * (p.n_used && !p.summed ? p.n_used : 1);
    for (int s = 1; s < p.n_segments && p.act == ACT_NONE; s++) n += p.segment[s].w.layout.n_tile_rows;
    return n >= n_blocks;
}

// The products whose whole output every block has read before it writes what the fusion has last.
struct Waited {
    int last = -1;        // of them; -1: none
    bool for_all = false; // whether one of them is by all blocks, so that no block is behind the beginning

    Waited(const Fusion *fusion, int n_blocks) {
        auto add = [&](int i) {
            last = std::max(last, i);
            for_all |= i >= 0 && is_for_all(fusion->p[i], n_blocks);
        };
        for (int i = 0; i < fusion->n; i++) {
            add(fusion->p[i].from);
            if (fusion->p[i].n_used) add(fusion->router);
        }
        for (int i = 0; i < fusion->kept.n_norms; i++) add(fusion->kept.norm[i].from);
    }
};

// Whether a block that writes n values to `to` may be ahead of others that have yet to read there.  Blocks
// with outputs of a product that was waited for are behind it; of the products behind that one, up to number
// `last`, a block may still read its own rows of a residual or a gate.
//  own_rows: every block writes the rows that it computes, so that it may write over its own.
bool overtakes(const Fusion *fusion, const Waited &waited, int last, const float *to, size_t n,
               bool own_rows) {
    const KeptRows *kept = &fusion->kept;
    if (!waited.for_all && overlap(kept->first_kept.data, kept->kept_width, to, n)) return true;
    for (int i = waited.last + 1; to && i <= last; i++) {
        const Product &other = fusion->p[i];
        bool same_rows = own_rows && to == other.residual.data && n == n_out(other);
        if (i == 0) return true; // reads registers
        if (overlap(other.gate.rows.data, other.gate.wide ? n_out(other) : 1, to, n)) return true;
        if (!same_rows && overlap(other.residual.data, n_out(other), to, n)) return true;
    }
    return false;
}

// The same of what the fusion's last product writes.
bool last_overtakes(const Fusion *fusion, int n_blocks) {
    int last = fusion->n - 1;
    const Product &p = fusion->p[last];
    Waited waited(fusion, n_blocks);
    for (int s = 0; s < p.n_segments; s++) {
        size_t n = s ? (size_t)p.segment[s].w.n_out : n_out(p);
        if (overtakes(fusion, waited, last - 1, p.segment[s].out, n, s == 0)) return true;
    }
    return false;
}

// Where n values are written to `to`, norms and outputs of the first n_products that lie there are read by no
// op any more: the plan has given their memory away.  What other blocks store there may arrive late, so they
// store it elsewhere.
void drop_written_over(const Rank *x, FusionOps *c, int n_products, const float *to, size_t n,
                       bool own_rows) {
    for (int i = 0; i < n_products; i++) {
        Product *p = &c->fusion.p[i];
        for (int s = 0; s < p->n_segments; s++) {
            float **out = &p->segment[s].out;
            size_t n_written = s ? (size_t)p->segment[s].w.n_out : n_out(*p);
            bool same_rows = own_rows && s == 0 && to == *out && n == n_written;
            if (!same_rows && overlap(*out, n_written, to, n)) *out = (float *)x->product_scratch;
        }
    }
    KeptRows *kept = &c->fusion.kept;
    for (int i = 0; i < kept->n_norms; i++)
        if (overlap(kept->norm[i].out, (size_t)kept->kept_width, to, n))
            kept->norm[i].out = (float *)x->product_scratch;
}

// Whether a residual of n values is in a register before the fusion, or is written by the block that reads it.
bool can_add(const Plan *plan, const FusionOps *c, const Op *op, size_t n) {
    int residual = op_operand(op, ROLE_RESIDUAL, 0), from = product_with(c, residual);
    if (from < 0) return !writes(plan, c, residual);
    const Product &p = c->fusion.p[from];
    return n_out(p) == n && (!p.n_used || p.summed);
}

// Finds where a gate is: false where the fusion writes it, but not as a single column of a product.
bool find_gate(const Plan *plan, const FusionOps *c, const Op *op, Product *p) {
    int gate = op_operand(op, ROLE_GATE, 0);
    p->gate_from = -1;
    for (int i = 0; gate != NO_REG && i < c->fusion.n; i++)
        for (int k = 0, at = 0; k < op_count(c->product[i], ROLE_WRITE); at += c->product[i]->w[k++]->n_out)
            if (op_out(c->product[i], k) == gate) {
                p->gate_from = i;
                p->gate_at = at;
            }
    return p->gate_from < 0 ? !writes(plan, c, gate) : !p->gate.wide;
}

// Whether the op has the input of the product before it, normalised alike.
bool has_same_input(const FusionOps *c, const Op *op) {
    if (c->fusion.n == 0) return false;
    const Op *before = c->product[c->fusion.n - 1];
    const NormParams *norm = &op->product.norm, *norm_before = &before->product.norm;
    return op_in(op, 0) == op_in(before, 0) && norm->weight == norm_before->weight &&
           norm->eps == norm_before->eps;
}

bool add_product(const Rank *x, FusionOps *c, const Op *op, const Step &step) {
    Fusion *fusion = &c->fusion;
    if (fusion->n == MAX_PRODUCTS) return false;
    Product p = product_of(x, op, step);
    p.kept = kept_with(c, op_in(op, 0));
    p.from = p.kept < 0 ? product_with(c, op_in(op, 0)) : -1;
    p.same_input = !p.per_slot && has_same_input(c, op);
    if (fusion->n > 0 && p.from < 0 && p.kept < 0 && !p.same_input) return false;
    if (op->code == OP_EXPERT) {
        RegRows ids = rows_in(x, op, op_operand(op, ROLE_IDS, 0), step);
        bool first = true; // product of experts
        for (int i = 0; i < fusion->n; i++) first &= !fusion->p[i].n_used;
        if (first && fusion->router < 0) fusion->route.ids = ids;
        if (fusion->route.ids.data != ids.data) return false;
        for (int i = 0; i < fusion->n; i++) // one choice is for all
            if (fusion->p[i].n_used && fusion->p[i].n_used != p.n_used) return false;
    }
    if (!can_add(x->plan, c, op, n_out(p)) || !find_gate(x->plan, c, op, &p)) return false;
    if (p.same_input && product_with(c, op_operand(op, ROLE_RESIDUAL, 0)) == fusion->n - 1)
        return false; // no barrier of the block would be between the two
    c->product[fusion->n] = op;
    fusion->p[fusion->n++] = p;
    for (int s = 0; s < p.n_segments; s++)
        drop_written_over(x, c, fusion->n - 1, p.segment[s].out, s ? (size_t)p.segment[s].w.n_out : n_out(p),
                          s == 0);
    return !last_overtakes(fusion, x->launch.n_sm);
}

bool add_route(const Rank *x, FusionOps *c, const Op *op, const Step &step) {
    int router = product_with(c, op_in(op, 0));
    if (router < 0 || c->fusion.router >= 0) return false;
    for (int i = 0; i < c->fusion.n; i++)
        if (c->fusion.p[i].n_used) return false;
    c->fusion.router = router;
    c->fusion.route = {rows_in(x, op, op_in(op, 0), step), op->moe, rows_in(x, op, op_out(op, 0), step),
                       rows_in(x, op, op_out(op, 1), step)};
    c->fusion.route.moe.bias = device_op(x, op)->bias[0];
    return true;
}

// The sum of what the experts before it give.
bool add_sum(const Rank *x, FusionOps *c, const Op *op, const Step &step) {
    Fusion *fusion = &c->fusion;
    if (fusion->n == 0 || c->product[fusion->n - 1] != op - 1) return false;
    Product *p = &fusion->p[fusion->n - 1];
    if (!p->per_slot || p->n_used > MAX_SUMMED || op_in(op, 0) != op_out(op - 1, 0)) return false;
    RegRows weights = rows_in(x, op, op_in(op, 1), step);
    if (fusion->router < 0) fusion->route.weights = weights;
    if (fusion->route.weights.data != weights.data || !can_add(x->plan, c, op, p->segment[0].w.n_out))
        return false;
    int out = op_out(op, 0);
    p->summed = true;
    c->sum[fusion->n - 1] = op;
    p->sum_scale = op->moe.scale;
    p->residual = rows_in(x, op, op_operand(op, ROLE_RESIDUAL, 0), step);
    p->segment[0].out = reg(x, out);
    p->segment[0].out_stride = stride_of(x, out);
    drop_written_over(x, c, fusion->n - 1, p->segment[0].out, n_out(*p), true);
    return !last_overtakes(fusion, x->launch.n_sm);
}

// A norm of a whole row, which the blocks keep.
bool add_norm(const Rank *x, FusionOps *c, const Op *op, const Step &step) {
    Fusion *fusion = &c->fusion;
    KeptRows *kept = &fusion->kept;
    const NormParams *p = &op->norm;
    int in = op_in(op, 0), residual = op_operand(op, ROLE_RESIDUAL, 0), out = op_out(op, 0),
        width = x->plan->regs[in].width;
    bool plain = p->weight && !p->centred && !p->bias && !p->head_dim && !p->cut &&
                 op_count(op, ROLE_READ) == 1 && !op_count(op, ROLE_GATE);
    if (fusion->n == 0 || !plain || kept->n_norms == MAX_KEPT_NORMS) return false;
    KeptNorm norm = {device_op(x, op)->vector, reg(x, out), p->eps, op->sum_scale};
    norm.before = (int8_t)fusion->n;
    norm.kept = (int8_t)kept_with(c, in);
    norm.from = (int8_t)(norm.kept < 0 ? product_with(c, in) : -1);
    if (norm.kept < 0 && norm.from < 0) return false;
    norm.add = (int8_t)kept_with(c, residual);
    if (norm.add < 0 && residual != NO_REG) { // a register before the fusion: the first kept row
        if (kept->n_kept || writes(x->plan, c, residual)) return false;
        kept->first_kept = rows_in(x, op, residual, step);
        norm.add = (int8_t)kept->n_kept++;
    }
    norm.to = norm.add < 0 ? (int8_t)kept->n_kept++ : norm.add;
    if (kept->n_kept > MAX_KEPT || (kept->kept_width && kept->kept_width != width)) return false;
    kept->kept_width = width;
    c->kept_reg[norm.to] = out;
    drop_written_over(x, c, fusion->n, norm.out, (size_t)width, false);
    c->norm[kept->n_norms] = op;
    kept->norm[kept->n_norms++] = norm;
    return !overtakes(fusion, Waited(fusion, x->launch.n_sm), fusion->n - 1, norm.out, (size_t)width, false);
}

// Adds an op of a single row; false, with the fusion as it was: it cannot be part of it.
bool add_op(const Rank *x, FusionOps *c, const Op *op, const Step &step) {
    FusionOps more = *c;
    more.n_ops++;
    bool added = false;
    if (rows_of(op, step) != 1) return false;
    if (op_is_product(op)) added = add_product(x, &more, op, step);
    if (op->code == OP_ROUTE) added = add_route(x, &more, op, step);
    if (op->code == OP_MOE_SUM) added = add_sum(x, &more, op, step);
    if (op->code == OP_NORM) added = add_norm(x, &more, op, step);
    if (added) *c = more;
    return added;
}

} // namespace

int longest_fusion(const Rank *x, const Op *op, int n, const Step &step, Fusion *out) {
    FusionOps c = {};
    c.fusion.router = -1;
    int n_ops = 0;
    for (int i = 0; i < n && add_op(x, &c, op + i, step); i++) {
        bool can_end = op_is_product(op + i) || op[i].code == OP_MOE_SUM;
        bool chooses = false; // experts: only products of experts do
        for (int k = 0; k < c.fusion.n; k++) chooses |= c.fusion.p[k].n_used > 0;
        if (c.fusion.router >= 0 && !chooses) continue;
        if (!can_end || !fusion_fits(&x->launch, &c.fusion)) continue;
        *out = c.fusion;
        n_ops = c.n_ops;
    }
    return n_ops;
}
