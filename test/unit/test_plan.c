/* plan: the tape against golden text, and what the passes claim against what can be counted without them.
 *
 * Lifetimes, forms and costs are worked out here a second time, from the ops alone and in another way.  The
 * texts are of the tape as each executor runs it, which needs no GPU; a change of one is a change of the
 * program and belongs in the same commit. */
#include "check.h"
#include "gguf_writer.h"
#include "../../src/base/mem.h"
#include "../../src/cpu/cpu.h"
#include "../../src/plan/family/family.h"
#include "../../cuda/cuda.h"

#include <glob.h>
#include <math.h>
#include <stdlib.h>

typedef struct Opened {
    Gguf *gguf;
    Plan *plan;
} Opened;

static PlanConfig config_for(const Capability *can) {
    return (PlanConfig){.can = *can};
}

static bool open_plan(const char *path, PlanConfig config, Opened *o) {
    Err e;
    *o = (Opened){0};
    if (gguf_open(path, &o->gguf, &e) && (o->plan = plan_build(o->gguf, &config, &e))) return true;
    gguf_close(o->gguf);
    test_fail(__FILE__, __LINE__, "%s: %s", path, e.text);
    return false;
}

static void close_plan(Opened *o) {
    plan_free(o->plan);
    gguf_close(o->gguf);
}

/* ---- The text ---- */

/* Says which line differs first. */
static void check_text(const char *name, const char *expected, const char *got) {
    for (int line = 1;; line++) {
        size_t n = strcspn(expected, "\n"), m = strcspn(got, "\n");
        if (n != m || memcmp(expected, got, n) != 0) {
            test_fail(__FILE__, __LINE__, "%s, line %d:\n  - %.*s\n  + %.*s", name, line, (int)n, expected,
                      (int)m, got);
            return;
        }
        if (!expected[n] || !got[m]) {
            CHECK(expected[n] == got[m], "one text goes on");
            return;
        }
        expected += n + 1;
        got += m + 1;
    }
}

/* test/data/plan/MODEL.EXECUTOR.txt */
static void check_tape(const char *path) {
    char name[128], model[256];
    snprintf(name, sizeof name, "%s", strrchr(path, '/') + 1);
    *strstr(name, ".txt") = 0;
    char *executor = strrchr(name, '.');
    *executor++ = 0;
    const Capability *can = strcmp(executor, "cpu") == 0 ? cpu_exec.can : cuda_exec.can;
    CHECK(strcmp(executor, can->name) == 0, "%s names no executor", path);
    bool is_demo = strncmp(name, "stories", strlen("stories")) == 0;
    snprintf(model, sizeof model, "%s/%s.gguf", is_demo ? "models" : "test/data/models", name);
    Buf expected = {0}, got = {0};
    Opened o;
    if (open_plan(model, config_for(can), &o)) {
        plan_print(o.plan, 2, &got);
        if (read_file(path, &expected) && expected.n > 0)
            check_text(path, expected.data, got.data);
        else
            test_fail(__FILE__, __LINE__, "no %s, which would be\n%s", path, got.data);
        close_plan(&o);
    }
    buf_free(&expected);
    buf_free(&got);
}

TEST(plan_prints_the_golden_tapes) {
    glob_t files;
    REQUIRE(glob("test/data/plan/*.txt", 0, NULL, &files) == 0, "test/data/plan");
    for (size_t i = 0; i < files.gl_pathc; i++) check_tape(files.gl_pathv[i]);
    globfree(&files);
}

TEST(plan_has_a_golden_tape_of_every_family_and_executor) {
    static const char *const executors[] = {"cpu", "cuda"};
    for (const Family *const *f = families; *f; f++)
        for (int i = 0; i < 2; i++) {
            char pattern[128];
            glob_t files = {0};
            snprintf(pattern, sizeof pattern, "test/data/plan/%s-*.%s.txt", (*f)->arch, executors[i]);
            CHECK(glob(pattern, 0, NULL, &files) == 0, "no file %s; make one by scripts/golden_tapes.sh",
                  pattern);
            globfree(&files);
        }
}

/* ---- Every tape of every file, in every configuration ---- */

/* The configurations: with and without each kind of fusion, exact and in 8 bits. */
enum { N_CONFIGS = 32 };

static PlanConfig config_of(int i) {
    PlanConfig c = config_for(cpu_exec.can);
    if (!(i & 1)) c.can.features &= ~FEATURE_BIT(SEGMENTS);
    if (!(i & 2)) c.can.features &= ~FEATURE_BIT(FUSED_RESIDUAL);
    c.act_f32 = i & 4;
    if (!(i & 8)) return c;
    c.can.features |= FEATURE_BIT(FUSED_NORM) | FEATURE_BIT(FUSED_ACT) | FEATURE_BIT(FUSED_KVPUT) |
                      FEATURE_BIT(FUSED_ROPE) | FEATURE_BIT(FUSED_HEAD_NORMS) | FEATURE_BIT(FUSED_GATE) |
                      FEATURE_BIT(CONV_PRODUCT);
    c.can.fused_norm_max = 1 << 20;
    if (!(i & 16)) c.can.q8_bytes = NULL; // products quantise their input themselves
    return c;
}

static void on_every_plan(void (*check)(const char *path, const Opened *o)) {
    glob_t files;
    REQUIRE(glob("test/data/models/*-*.gguf", 0, NULL, &files) == 0);
    CHECK(files.gl_pathc >= 34);
    for (size_t i = 0; i < files.gl_pathc; i++)
        for (int k = 0; k < N_CONFIGS; k++) {
            Opened o;
            if (!open_plan(files.gl_pathv[i], config_of(k), &o)) continue;
            check(files.gl_pathv[i], &o);
            close_plan(&o);
        }
    globfree(&files);
}

/* Whether the op has the register, or a view of it, in a wanted role. */
static bool has_operand(const Plan *p, const Op *op, int reg, bool (*wanted)(Role)) {
    for (int k = 0; k < op->n_operands; k++)
        if (wanted(op->operand[k].role) && plan_base(p, op->operand[k].reg) == reg) return true;
    return false;
}

static bool reads(const Plan *p, const Op *op, int reg) {
    return has_operand(p, op, reg, role_reads);
}

static bool writes(const Plan *p, const Op *op, int reg) {
    return has_operand(p, op, reg, role_writes);
}

/* The ops between which what a register holds is written and still needed; of a view, those of its base. */
typedef struct Span {
    int first_write, last_use; // n_ops and -1: there is none
} Span;

static Span *spans_of(const Plan *p) {
    Span *spans = mem_new((size_t)p->n_regs, sizeof *spans);
    for (int r = 0; r < p->n_regs; r++) spans[r] = (Span){p->n_ops, -1};
    for (int i = 0; i < p->n_ops; i++)
        for (int k = 0; k < p->ops[i].n_operands; k++) {
            const Operand *o = &p->ops[i].operand[k];
            if (o->role == ROLE_CACHE) continue;
            Span *span = &spans[plan_base(p, o->reg)];
            if (role_writes(o->role) && i < span->first_write) span->first_write = i;
            span->last_use = i;
        }
    return spans;
}

/* The forms in which readers of a register read it. */
static void find_forms(const Plan *p, int reg, bool needed[N_FORMS]) {
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        if (!reads(p, op, reg)) continue;
        bool product = op->code == OP_MATMUL || op->code == OP_EXPERT || op->code == OP_LOGITS;
        product = product && !op->product.norm.weight; // a norm reads floats
        product = product && plan_base(p, op_in(op, 0)) == reg;
        if (!product) needed[FORM_F32] = true;
        for (int k = 0; product && k < op->n_w; k++) {
            bool may = p->config.can.q8_bytes && !p->config.act_f32;
            needed[may && quant_traits(op->w[k]->type)->act == QUANT_ACT_Q8 ? FORM_Q8 : FORM_F32] = true;
        }
    }
}

static size_t bytes_of(const Plan *p, const Reg *r, int form) {
    if (!r->has[form]) return 0;
    return form == FORM_Q8 ? p->config.can.q8_bytes(r->width) : (size_t)r->width * 4;
}

static void check_apart(const char *path, const Plan *p, int op, int a, int b) {
    const Reg *x = &p->regs[a], *y = &p->regs[b];
    for (int f = 0; f < N_FORMS; f++)
        for (int g = 0; g < N_FORMS; g++) {
            size_t n = bytes_of(p, x, f), m = bytes_of(p, y, g);
            if (n == 0 || m == 0 || (a == b && f <= g)) continue;
            bool apart = x->offset[f] + n <= y->offset[g] || y->offset[g] + m <= x->offset[f];
            CHECK(apart, "%s: r%d and r%d share bytes at op %d", path, a, b, op);
        }
}

/* Adds up what is alive at op i, of one kind, and checks that all of it is apart. */
static size_t check_op(const char *path, const Plan *p, int i, bool on_R, const bool *is_alive) {
    size_t total = on_R ? p->row_bytes_R : p->row_bytes_T, sum = 0;
    for (int a = 0; a < p->n_regs; a++) {
        if (!is_alive[a] || p->regs[a].on_R != on_R) continue;
        for (int b = 0; b <= a; b++)
            if (is_alive[b] && p->regs[b].on_R == on_R) check_apart(path, p, i, a, b);
        for (int form = 0; form < N_FORMS; form++) {
            size_t n = bytes_of(p, &p->regs[a], form);
            sum += (n + 63) / 64 * 64;
            CHECK(n == 0 || p->regs[a].offset[form] + n <= total, "%s: r%d ends behind the block", path, a);
            CHECK((p->regs[a].offset[form] & 63) == 0, "%s: r%d", path, a);
        }
    }
    return sum;
}

static void check_allocation(const char *path, const Opened *o) {
    const Plan *p = o->plan;
    size_t peak[2] = {0};
    bool *is_alive = mem_new((size_t)p->n_regs, sizeof *is_alive);
    Span *spans = spans_of(p);
    for (int i = 0; i < p->n_ops; i++) {
        for (int r = 0; r < p->n_regs; r++) is_alive[r] = spans[r].first_write <= i && i <= spans[r].last_use;
        for (int kind = 0; kind < 2; kind++) {
            size_t sum = check_op(path, p, i, kind, is_alive);
            if (sum > peak[kind]) peak[kind] = sum;
        }
    }
    CHECK(p->row_bytes_T >= peak[0] && p->row_bytes_T <= peak[0] + peak[0] / 2, "%s: %zu bytes for %zu", path,
          p->row_bytes_T, peak[0]);
    CHECK(p->row_bytes_R >= peak[1] && p->row_bytes_R <= peak[1] + peak[1] / 2, "%s: %zu bytes for %zu", path,
          p->row_bytes_R, peak[1]);
    free(spans);
    free(is_alive);
}

TEST(plan_registers_alive_together_are_apart) {
    on_every_plan(check_allocation);
}

/* Each register that is read has the forms of its readers, and no unused 8-bit form. */
static void check_forms(const char *path, const Opened *o) {
    const Plan *p = o->plan;
    for (int r = 0; r < p->n_regs; r++) {
        bool needed[N_FORMS] = {false};
        find_forms(p, plan_base(p, r), needed);
        CHECK(p->regs[r].has[FORM_F32] || !needed[FORM_F32], "%s: r%d", path, r);
        CHECK(p->regs[r].has[FORM_Q8] == needed[FORM_Q8], "%s: r%d", path, r);
    }
}

TEST(plan_registers_have_the_forms_that_are_read) {
    on_every_plan(check_forms);
}

/* A tape reads nothing that was not written, needs no feature that its executor lacks, and computes the wanted
 * rows only behind the last op that needs all rows of its sequence, which are those with a layer of the cache:
 * properties of any family's tape. */
static void check_order(const char *path, const Opened *o) {
    const Plan *p = o->plan;
    int last = 0; // op that needs all rows
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        for (int k = 0; k < op->n_operands; k++) {
            if (!role_reads(op->operand[k].role)) continue;
            int reg = op->operand[k].reg;
            bool written = false;
            for (int j = 0; j < i && !written; j++) written = writes(p, &p->ops[j], plan_base(p, reg));
            CHECK(written, "%s: op %d reads r%d too early", path, i, reg);
            CHECK(op->on_R || !p->regs[reg].on_R, "%s: op %d reads rows that r%d lacks", path, i, reg);
        }
        int n_out = op_count(op, ROLE_WRITE);
        bool is_pair = op->product.act != ACT_NONE && n_out == 1 && op->n_w == 2;
        CHECK(!op_is_product(op) || op->n_w == n_out || is_pair, "%s: op %d", path, i);
        CHECK((plan_op_features(p, op) & ~p->config.can.features) == 0, "%s: op %d", path, i);
        CHECK(!op_count(op, ROLE_CACHE) || !op->on_R, "%s: op %d %s", path, i, op->name);
        if (op_count(op, ROLE_CACHE)) last = i;
    }
    for (int i = last + 1; i < p->n_ops; i++) CHECK(p->ops[i].on_R, "%s: op %d %s", path, i, p->ops[i].name);
    CHECK(p->ops[0].code == OP_EMBED && p->ops[p->n_ops - 1].code == OP_SAMPLE, "%s", path);
}

TEST(plan_tapes_are_in_order) {
    on_every_plan(check_order);
}

static int count_ops(const Plan *p, OpCode code) {
    int n = 0;
    for (int i = 0; i < p->n_ops; i++) n += p->ops[i].code == code;
    return n;
}

/* The ops that the rules leave of a dense llama: the ops that its layers cannot do without. */
TEST(plan_fuses_as_far_as_the_executor_can) {
    static const char *const files[] = {"test/data/models/llama-s-F16.gguf",
                                        "test/data/models/qwen3-F16.gguf"};
    static const OpCode gone[] = {OP_ADD, OP_NORM, OP_GLU, OP_ROPE, OP_KVPUT};
    Opened o;
    for (int k = 0; k < 2; k++) {
        if (!open_plan(files[k], config_of(8 + 16 + 3), &o)) return;
        for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
            CHECK(count_ops(o.plan, gone[i]) == 0, "%s: %s", files[k], op_name(gone[i]));
        CHECK(o.plan->n_ops == 1 + 5 * o.plan->hparams.n_layer + 2, "%s", files[k]);
        close_plan(&o);
    }
    if (!open_plan("test/data/models/llama-s-F16.gguf", config_of(0), &o)) return;
    CHECK(o.plan->n_ops == 1 + 15 * o.plan->hparams.n_layer + 3);
    close_plan(&o);
}

/* Changes the type of a tensor of three dimensions, in the bytes of a file, to one of as many bytes. */
static void set_type(Buf *file, const char *tensor, QuantType type) {
    char *name = memmem(file->data, file->n, tensor, strlen(tensor));
    REQUIRE(name, "no %s", tensor);
    uint32_t value = (uint32_t)type;
    memcpy(name + strlen(tensor) + sizeof(uint32_t) + 3 * sizeof(uint64_t), &value, sizeof value);
}

/* A GPU multiplies experts by one matrix, or by a pair that an activation joins: gate and up of different
 * types, which no activation joins, stay two ops. */
TEST(plan_keeps_experts_of_two_types_apart) {
    Buf file = {0};
    Gguf *gguf;
    Err e;
    PlanConfig config = config_for(cuda_exec.can);
    REQUIRE(read_file("test/data/models/llama-moe-Q4_0.gguf", &file));
    set_type(&file, "blk.0.ffn_up_exps.weight", QUANT_IQ4_NL);
    REQUIRE(gguf_open_bytes(file.data, file.n, "x.gguf", &gguf, &e), "%s", e.text);
    Plan *p = plan_build(gguf, &config, &e);
    int n_pairs = 0;
    for (int i = 0; p && i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        if (op->code != OP_EXPERT) continue;
        CHECK(op_count(op, ROLE_WRITE) == 1, "op %d has %d outputs", i, op_count(op, ROLE_WRITE));
        n_pairs += op->product.act == ACT_SILU;
    }
    CHECK(p && n_pairs == p->hparams.n_layer - 1, "%d pairs", n_pairs);
    plan_free(p);
    gguf_close(gguf);
    buf_free(&file);
}

/* ---- What an executor cannot run ---- */

static Op *find_op(const Plan *p, OpCode code) {
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == code) return &p->ops[i];
    return NULL;
}

static void plant_window(Plan *p) {
    find_op(p, OP_ATTN)->attn.window = 128;
}
static void plant_softcap(Plan *p) {
    find_op(p, OP_ATTN)->attn.softcap = 50;
}
static void plant_sinks(Plan *p) {
    static const float sinks[64] = {0};
    find_op(p, OP_ATTN)->attn.sinks = sinks;
}
static void plant_wanted(Plan *p) {
    find_op(p, OP_ATTN)->on_R = true;
}
static void plant_head_dim(Plan *p) {
    AttnParams *attn = &find_op(p, OP_ATTN)->attn;
    attn->head_dim = 4096;
    attn->v_dim = 4096;
}
static void plant_head_norm(Plan *p) {
    Op *op = find_op(p, OP_MATMUL);
    static const float weight[64] = {0};
    op->product.norm = (NormParams){.weight = weight, .eps = 1e-5f, .head_dim = 32};
}
static void plant_gelu(Plan *p) {
    Op *glu = find_op(p, OP_GLU);
    for (int i = 0; !glu && i < p->n_ops; i++)
        if (op_is_product(&p->ops[i]) && p->ops[i].product.act) p->ops[i].product.act = ACT_GELU;
    if (glu) glu->glu.act = ACT_GELU;
}
static void plant_halves(Plan *p) {
    Op *rope = find_op(p, OP_ROPE), *attn = find_op(p, OP_ATTN);
    (rope ? &rope->rope : &attn->attn.rope)->pairing = ROPE_HALVES;
}
static void plant_nothing(Plan *p) {
    (void)p;
}

/* A parameter that the executor does not have is refused by name: op, parameter, executor, and what runs
 * it. */
TEST(plan_refuses_parameters_that_an_executor_does_not_run) {
    static const struct {
        void (*plant)(Plan *p);
        const char *cpu, *cuda; // a part of the refusal; NULL: none
    } cases[] = {
        {plant_nothing, NULL, NULL},
        {plant_window, NULL, NULL},
        {plant_softcap, NULL, NULL},
        {plant_sinks, NULL, NULL},
        {plant_wanted,
         "attention of the wanted rows only (op ATTN 'attn' of layer 0 of family 'llama'); no executor",
         "attention of the wanted rows only"},
        {plant_head_dim,
         "heads of 4096 dimensions, only multiples of 2 from 2 to 1024 (op ATTN 'attn' of layer 0 of family "
         "'llama'); no executor of this zgen does",
         "heads of 4096 dimensions, only multiples of 8"},
        {plant_head_norm, "a norm within a product", "a norm within a product other than"},
        {plant_gelu, NULL, NULL},
        {plant_halves, NULL, NULL},
    };
    const Capability *const executors[] = {cpu_exec.can, cuda_exec.can};
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        const char *says = i % 2 ? cases[i / 2].cuda : cases[i / 2].cpu;
        const Capability *can = executors[i % 2];
        Opened o;
        Err e = {0};
        if (!open_plan("test/data/models/llama-s-F16.gguf", config_for(can), &o)) continue;
        cases[i / 2].plant(o.plan);
        bool ok = plan_supported(o.plan, executors, 2, &e);
        CHECK(ok == !says, "case %zu: %s", i / 2, e.text);
        CHECK(ok || (e.code == ERR_MODEL && strstr(e.text, says) && strstr(e.text, can->name)),
              "case %zu: %s", i / 2, e.text);
        close_plan(&o);
    }
}

static void check_refusal(const char *path, const Capability *can, const char *says) {
    const Capability *const executors[] = {cpu_exec.can, cuda_exec.can};
    Opened o;
    Err e = {0};
    if (!open_plan(path, config_for(can), &o)) return;
    CHECK(plan_supported(o.plan, executors, 2, &e) == !says, "%s: %s", path, e.text);
    CHECK(!says || (strstr(e.text, says) && strstr(e.text, "--device cpu runs it")), "%s: %s", path, e.text);
    close_plan(&o);
}

/* Whole files. */
TEST(plan_runs_families_on_both_executors) {
    static const char *const files[] = {"test/data/models/qwen3-F16.gguf",
                                        "test/data/models/qwen3moe-F16.gguf"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        check_refusal(files[i], cpu_exec.can, NULL);
        check_refusal(files[i], cuda_exec.can, NULL);
    }
}

/* Each feature of the list has a text of its own, and each op is a feature. */
TEST(plan_features_have_names) {
    for (int i = 0; i < FEATURE_COUNT; i++)
        for (int k = 0; k < i; k++)
            CHECK(strcmp(feature_text((Feature)i), feature_text((Feature)k)) != 0, "%d, %d", i, k);
    for (int i = 0; i < OP_COUNT; i++) CHECK(strcmp(feature_text((Feature)i), op_name((OpCode)i)) == 0);
}

/* ---- Cost ---- */

/* The share of a tensor that a token reads in products (of experts those it uses), and its rows in EMBED. */
static double share_read(const Plan *p, const GgufTensor *t, int *n_rows) {
    double rows = 0, all = 1;
    *n_rows = 0;
    for (int i = 0; i < p->n_ops; i++) {
        const Op *op = &p->ops[i];
        const MoeParams *moe = &op->product.moe;
        for (int k = 0; k < op->n_w; k++) {
            if (strcmp(op->w[k]->name, t->name) != 0) continue;
            *n_rows += op->code == OP_EMBED;
            if (!op_is_product(op)) continue;
            rows += (double)op->w[k]->n_out * (op->code == OP_EXPERT ? moe->n_used : 1);
            all = (double)t->ne[1] * op->w[k]->n_expert;
        }
    }
    return rows / all;
}

static bool sees(const AttnParams *a, int position, int other) {
    return other <= position && (!a->window || other > position - a->window) &&
           (!a->chunk || other / a->chunk == position / a->chunk);
}

/* The positions before its own that each of the rows at first..end-1 sees, added up. */
static double count_seen(const AttnParams *a, int first, int end) {
    double n = 0;
    for (int position = first; position < end; position++)
        for (int other = 0; other < position; other++) n += sees(a, position, other);
    return n;
}

/* Adds what an op moves and computes for rows n_past.. beside weights and embedding rows. */
static void add_cache_cost(const Plan *p, const Op *op, int n_past, int n_rows, Cost *c) {
    if (op_operand(op, ROLE_CACHE, 0) == NO_REG) return;
    const KvLayer *l = &p->kv[op_operand(op, ROLE_CACHE, 0)];
    double kv = 2.0 * l->n_head * (l->v_in_k ? l->k_width : l->k_width + l->v_width);
    if (l->kind == KV_STATE) c->bytes_rows += 2.0 * (double)l->state_bytes;
    if (op->code == OP_KVPUT || (op->code == OP_ATTN && op_count(op, ROLE_READ) > 1))
        c->bytes_rows += n_rows * kv;
    if (op->code == OP_ATTN) {
        for (int other = 0; other < n_past; other++) c->bytes_rows += sees(&op->attn, n_past, other) * kv;
        c->macs += op->attn.n_head * (op->attn.head_dim + op->attn.v_dim) *
                   count_seen(&op->attn, n_past, n_past + n_rows);
    }
    if (op->code == OP_CONV) c->macs += n_rows * op->conv.n_tap * p->regs[op_out(op, 0)].width;
    if (op->code == OP_SCAN) c->macs += 2.0 * n_rows * op->scan.n_head * op->scan.head_dim * op->scan.n_state;
    if (op->code == OP_DELTA) c->macs += 3.0 * n_rows * op->delta.n_head * op->delta.k_dim * op->delta.v_dim;
}

/* A token reads every matrix once, of experts those it uses, and of the embedding its own row. */
static void check_cost(const char *path, const Opened *o) {
    const Plan *p = o->plan;
    double bytes = 0, macs = 0, all = 0, row = 0;
    for (int64_t i = 0; i < gguf_n_tensors(o->gguf); i++) {
        const GgufTensor *t = gguf_tensor(o->gguf, i);
        int n_rows;
        double share = share_read(p, t, &n_rows);
        if (share > 0 || n_rows > 0) all += (double)t->n_bytes;
        row += n_rows * (double)t->n_bytes / (double)t->ne[1];
        bytes += share * (double)t->n_bytes;
        macs += share * (double)(t->ne[0] * t->ne[1] * t->ne[2]);
    }
    static const int runs[][2] = {{0, 1}, {10, 3}, {1000, 100}};
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        int n_past = runs[k][0], n = runs[k][1];
        Cost c = plan_cost_total(p, 2, n_past, n), expected = {bytes, n * row, n * macs};
        for (int i = 0; i < p->n_ops; i++) add_cache_cost(p, &p->ops[i], n_past, n, &expected);
        CHECK(c.bytes_fixed == bytes, "%s: %.0f bytes of %.0f", path, c.bytes_fixed, bytes);
        CHECK(c.bytes_rows == expected.bytes_rows, "%s: %.0f of rows, not %.0f", path, c.bytes_rows,
              expected.bytes_rows);
        CHECK(c.macs == expected.macs, "%s: %.0f multiply-adds, not %.0f", path, c.macs, expected.macs);
    }
    CHECK((double)weights_bytes(p->weights) == all, "%s", path);
    CHECK(weights_find_nonfinite(p->weights) == NULL, "%s", path);
}

/* Every run of up to 9 rows in windows, chunks and both, on a tape of one attention. */
TEST(plan_costs_of_windows_and_chunks) {
    for (int i = 0; i < 4 * 13 * 9; i++) {
        int n_past = i / 4 % 13, n = 1 + i / 52;
        Op op = {.code = OP_ATTN,
                 .attn = {.n_head = 6,
                          .n_kv_head = 1,
                          .head_dim = 10,
                          .v_dim = 8,
                          .window = i & 1 ? 3 : 0,
                          .chunk = i & 2 ? 4 : 0}};
        KvLayer layer = {.kind = KV_ROWS, .n_head = 1, .k_width = 10, .v_width = 8, .v_in_k = true};
        Plan p = {.ops = &op, .n_ops = 1, .kv = &layer, .n_kv = 1};
        op_add_operand(&op, ROLE_CACHE, 0);
        Cost c = plan_cost_total(&p, 2, n_past, n), expected = {0};
        add_cache_cost(&p, &op, n_past, n, &expected);
        CHECK(c.bytes_rows == expected.bytes_rows && c.macs == expected.macs,
              "case %d, %d rows behind %d: %g bytes, not %g, %g multiply-adds, not %g", i % 4, n, n_past,
              c.bytes_rows, expected.bytes_rows, c.macs, expected.macs);
    }
}

TEST(plan_costs_are_the_files_bytes) {
    on_every_plan(check_cost);
}

/* Four rows of two experts, and NAME.scale with one value for all, one for each expert, one for each row. */
TEST(plan_multiplies_the_scales_that_a_file_has) {
    static const uint64_t dims[] = {32, 4, 2};
    enum { N_ROWS = 8, BYTES = 32 * 4 * 2 * 4 };
    static const int counts[] = {1, 2, N_ROWS};
    for (int c = 0; c < 3; c++) {
        Buf file = {0};
        put_header(&file, 3, 2, 0);
        put_tensor(&file, "blk.0.ffn_up_exps.weight", 3, dims, QUANT_F32, 0);
        put_vector(&file, "blk.0.ffn_up_exps.scale", (uint64_t)counts[c], BYTES);
        pad(&file, 32, BYTES);
        for (int i = 0; i < N_ROWS; i++) put(&file, &(float){(float)(i + 1)}, sizeof(float));
        Gguf *g;
        Err e;
        REQUIRE(gguf_open_bytes(file.data, file.n, "x.gguf", &g, &e), "%s", e.text);
        Weights *weights = weights_open(g);
        const Weight *w = weights_matrix(weights, "blk.0.ffn_up_exps.weight", matrix_whole(32, 4, 2), &e);
        REQUIRE(w && w->scale, "%s", e.text);
        for (int r = 0; r < 8; r++)
            CHECK(w->scale[r] == (float)(r * counts[c] / 8 + 1), "%d scales, row %d: %g", counts[c], r,
                  w->scale[r]);
        CHECK(weights_all_used(weights, &e), "%s", e.text);
        weights_close(weights);
        gguf_close(g);
        buf_free(&file);
    }
}

TEST(plan_finds_a_scale_that_is_not_finite) {
    Opened o;
    if (!open_plan("test/data/models/llama-s-F32.gguf", config_for(cpu_exec.can), &o)) return;
    int i = 0;
    while (!op_is_product(&o.plan->ops[i])) i++;
    Weight *w = (Weight *)o.plan->ops[i].w[1];
    float *scale = mem_new((size_t)w->n_out, sizeof *scale);
    w->scale = scale;
    for (int r = 0; r < w->n_out; r++) scale[r] = 1;
    CHECK(weights_find_nonfinite(o.plan->weights) == NULL);
    static const float damages[] = {INFINITY, NAN};
    for (int d = 0; d < 2; d++) {
        scale[w->n_out - 1] = damages[d];
        const char *name = weights_find_nonfinite(o.plan->weights);
        CHECK(name && strcmp(name, w->name) == 0, "%g: %s", (double)damages[d], name ? name : "nothing");
    }
    w->scale = NULL;
    free(scale);
    close_plan(&o);
}

TEST(plan_every_op_has_a_name_and_a_text) {
    for (int i = 0; i < OP_COUNT; i++)
        CHECK(strlen(op_name((OpCode)i)) >= 2 && strlen(op_text((OpCode)i)) > 8);
}

/* ---- Conversion to FP8 ---- */

static void check_converted(const Gguf *g, const Weight *m) {
    const GgufTensor *t = gguf_find_tensor(g, m->name);
    const QuantTraits *traits = quant_traits(t->type);
    size_t n_in = (size_t)m->n_in, n_rows = (size_t)m->n_out * (size_t)m->n_expert,
           bytes = t->n_bytes / n_rows;
    float *x = mem_new(n_in, sizeof *x);
    for (size_t r = 0; r < n_rows; r++) {
        double peak = 0, worst = 0;
        traits->decode(t->data + r * bytes, n_in / (size_t)traits->n_weights, x);
        for (size_t i = 0; i < n_in; i++) peak = fmax(peak, fabs((double)x[i]));
        for (size_t i = 0; i < n_in; i++) {
            double got = (double)e4m3_to_f32(m->data[r * n_in + i]) * m->scale[r],
                   step = fmax(fabs((double)x[i]) / 16, peak / 448 / 1024);
            worst = fmax(worst, fabs(got - x[i]) / step);
        }
        CHECK(worst <= 1.0001 && m->scale[r] == (float)peak / 448, "%s: row %zu, %g steps", m->name, r,
              worst);
    }
    free(x);
}

/* The weights of products become FP8 where that is smaller, and nothing else does. */
static void check_conversion(const char *path, int n_converted) {
    Gguf *g;
    Err e = {0};
    PlanConfig config = config_for(cpu_exec.can);
    config.weights_fp8 = true;
    REQUIRE(gguf_open(path, &g, &e), "%s", e.text);
    Plan *p = plan_build(g, &config, &e);
    CHECK((p != NULL) == (n_converted > 0) && (p || e.code == ERR_USAGE), "%s: %s", path, e.text);
    if (p) {
        int n = 0;
        uint64_t bytes = weights_converted_bytes(p->weights);
        CHECK(weights_load(p->weights, 3, NULL, &e), "%s", e.text);
        for (int i = 0; i < p->n_ops; i++)
            for (int k = 0; k < p->ops[i].n_w; k++) {
                const Weight *m = p->ops[i].w[k];
                bool is_router = strstr(m->name, "ffn_gate_inp"), is_embedding = p->ops[i].code == OP_EMBED;
                if (m->type == QUANT_FP8_E4M3 && !is_embedding) {
                    n++;
                    bytes -= m->row_bytes * (size_t)m->n_out * (size_t)m->n_expert;
                    check_converted(g, m);
                }
                CHECK(m->data && (!is_router || m->type != QUANT_FP8_E4M3), "%s: %s", path, m->name);
            }
        CHECK(n == n_converted && bytes == 0, "%s: %d matrices", path, n);
    }
    plan_free(p);
    gguf_close(g);
}

static bool at_once(void) {
    return true;
}

TEST(weights_stop_being_converted) {
    Gguf *g;
    Err e = {.code = ERR_RUN};
    PlanConfig config = config_for(cpu_exec.can);
    config.weights_fp8 = true;
    REQUIRE(gguf_open("test/data/models/llama-s-F16.gguf", &g, &e), "%s", e.text);
    Plan *p = plan_build(g, &config, &e);
    REQUIRE(p, "%s", e.text);
    CHECK(!weights_load(p->weights, 2, at_once, &e) && e.code == 0, "code %d", e.code);
    plan_free(p);
    gguf_close(g);
}

TEST(plan_converts_products_to_fp8) {
    check_conversion("test/data/models/llama-s-F16.gguf", 3 * 7 + 1);
    check_conversion("test/data/models/llama-s-F32.gguf", 3 * 7 + 1);
    check_conversion("test/data/models/llama-s-Q8_0.gguf", 3 * 7 + 1);
    check_conversion("test/data/models/llama-tied-F16.gguf", 3 * 7 + 1);
    check_conversion("test/data/models/llama-moe-F16.gguf", 2 * 7 + 1);
    check_conversion("test/data/models/llama-s-MXFP4.gguf", 1); // its output is Q8_0
    check_conversion("test/data/models/llama-Q2_K.gguf", 0);
}
