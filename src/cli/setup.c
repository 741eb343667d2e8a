/* setup: see setup.h. */
#include "setup.h"
#include "stop.h"
#include "../base/pool.h"
#include "../cpu/cpu.h"
#include "../../cuda/cuda.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>

enum { CONTEXT_DEFAULT = 4096 };
enum { THREAD_BYTES = 16 << 10 }; // 1 to 2 us of a thread: what it takes to come and go

static bool is(const char *word, const char *other) {
    return strcmp(word, other) == 0;
}

/* ---- the device ---- */

typedef struct DeviceChoice { // what --device names; neither: a GPU if there is one
    bool cpu, gpu;
    int index; // of the GPU
} DeviceChoice;

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

/* auto, cpu, cuda, or cuda:N; none and CUDAN are llama.cpp's names of cpu and cuda:N. */
static bool parse_device(const char *text, DeviceChoice *out, Err *e) {
    *out = (DeviceChoice){.cpu = is(text, "cpu") || is(text, "none"),
                          .gpu = begins(text, "cuda") || begins(text, "CUDA")};
    if (is(text, "auto") || out->cpu || is(text, "cuda")) return true;
    const char *number = begins(text, "cuda:") ? text + 5 : begins(text, "CUDA") ? text + 4 : "";
    size_t n = strlen(number);
    if (n == 0 || n > 4 || strspn(number, "0123456789") != n)
        return err_set(e, ERR_USAGE, "option --device: '%.100s' is not one of: auto cpu cuda cuda:N", text);
    out->index = atoi(number);
    return true;
}

/* --isa and float activations exist on the CPU only. */
static bool needs_cpu(const char *isa, bool act_f32) {
    return !is(isa, "auto") || act_f32;
}

static bool wants_layers(int gpu_layers) {
    return gpu_layers == GPU_LAYERS_ALL || gpu_layers > 0;
}

static bool check_device(const Options *o, const EngineConfig *config, const DeviceChoice *choice, Err *e) {
    if (choice->cpu && wants_layers(o->gpu_layers))
        return err_set(e, ERR_USAGE,
                       "-ngl puts layers on a GPU and --device cpu puts none there; drop one of them");
    if (choice->gpu && o->gpu_layers == 0)
        return err_set(e, ERR_USAGE,
                       "--device %s selects a GPU and -ngl 0 puts no layer there; drop one of them",
                       o->device);
    if ((choice->gpu || wants_layers(o->gpu_layers)) && needs_cpu(o->isa, config->act_f32))
        return err_set(e, ERR_USAGE,
                       "a GPU computes with 8-bit activations and has no --isa; use --device cpu for these");
    return true;
}

/* A warning where a GPU was asked for, else a notice with -v.  Once per process: bench calls setup_config for
 * each configuration. */
static void report_cpu(const Notices *n, bool is_asked, const char *why) {
    static bool is_reported;
    if (is_reported) return;
    is_reported = true;
    if (is_asked)
        err_warn("%s; using the CPU (--device cpu does so silently)", why);
    else if (n->verbose)
        notice(n, "%s; using the CPU", why);
}

static bool choose_device(const Options *o, EngineConfig *config, Err *e) {
    CudaDevice device = {0};
    DeviceChoice choice;
    Err why;
    if (!parse_device(o->device, &choice, e) || !check_device(o, config, &choice, e)) return false;
    config->device = DEVICE_CPU;
    config->device_index = choice.index;
    bool none = o->gpu_layers == 0 || needs_cpu(o->isa, config->act_f32);
    if (choice.cpu || none) return true;
    if (o->plan && choice.gpu) { // its tape is wanted, which needs no GPU
        config->device = DEVICE_CUDA;
        return true;
    }
    if (cuda_device(choice.index, &device, &why)) {
        config->device = DEVICE_CUDA;
        config->managed = is(o->mem, "managed") || (is(o->mem, "auto") && device.shares_host_tables);
        notice(&o->notices, "computing on %s, %.1f of %.1f GB free", device.name,
               (double)device.free_bytes / 1e9, (double)device.total_bytes / 1e9);
        return true;
    }
    if (choice.gpu) return err_set(e, ERR_RUN, "--device %s: %s", o->device, why.text);
    report_cpu(&o->notices, wants_layers(o->gpu_layers), why.text);
    return true;
}

/* ---- kernels, threads, cache ---- */

/* Far more threads than CPUs only take each other's place in every op. */
static int choose_threads(int n) {
    int n_cpus = pool_cpus(), most = 4 * n_cpus;
    if (n <= most) return n > 0 ? n : n_cpus;
    err_warn("-t %d: this process may use %d CPUs; using %d threads", n, n_cpus, most);
    return most;
}

/* The values of --prio are llama.cpp's; threads that begin later have the priority, too. */
static void set_priority(int prio) {
    static const int nice[] = {5, 0, -5, -10, -20};
    if (prio && setpriority(PRIO_PROCESS, 0, nice[prio + 1]) != 0)
        err_warn("--prio %d: the system does not allow it (%s); the priority is unchanged", prio,
                 strerror(errno));
}

/* The type of --kv, or of -ctk and -ctv; NULL where the given ones differ. */
static const char *cache_type(const Options *o) {
    const char *standard = o->kv ? o->kv : "f16", *k = o->cache_k ? o->cache_k : standard,
               *v = o->cache_v ? o->cache_v : standard;
    return is(k, v) && (!o->kv || is(o->kv, k)) ? k : NULL;
}

bool setup_config(const Options *o, EngineConfig *config, Err *e) {
    const char *kv = cache_type(o), *isa = cpu_isa(o->isa);
    if (!kv)
        return err_set(e, ERR_USAGE,
                       "keys and values are kept in one type: --kv, -ctk and -ctv must name the same");
    if (!isa)
        return err_set(e, ERR_USAGE, "--isa %s: this machine or build has no such kernels; use --isa auto",
                       o->isa);
    kv_type_find(kv, &config->kv_type);
    config->weights_fp8 = is(o->weights, "fp8");
    config->isa = isa;
    config->act_f32 = is(o->act, "f32") || (is(o->act, "auto") && is(o->isa, "scalar"));
    config->stop = stop_wanted;
    config->n_threads = choose_threads(o->n_threads);
    config->thread_bytes = o->n_threads > 0 ? 0 : THREAD_BYTES;
    set_priority(o->prio);
    return choose_device(o, config, e);
}

static int read_arch_int(const Gguf *g, const char *name, int fallback) {
    GgufString arch = {"", 0};
    char key[128];
    int64_t value = fallback;
    Err ignored; // the plan reports a wrong type of these keys
    gguf_get_string(g, "general.architecture", &arch, &ignored);
    snprintf(key, sizeof key, "%.*s.%s", (int)(arch.n < 64 ? arch.n : 64), arch.data, name);
    return gguf_get_int(g, key, 1, INT32_MAX / 4, &value, &ignored) ? (int)value : fallback;
}

bool setup_layers(int n, const Gguf *g, Err *e) {
    int n_layer = read_arch_int(g, "block_count", 1);
    bool all = n == GPU_LAYERS_ALL || n >= n_layer || n == GPU_LAYERS_MANY;
    if (n == 0 || n == GPU_LAYERS_AUTO) return true;
    return all || err_set(e, ERR_USAGE,
                          "-ngl %d: the model has %d layers; zgen computes none or all of them on a GPU", n,
                          n_layer);
}

/* ---- the context ---- */

int setup_trained(const Gguf *g) {
    return read_arch_int(g, "context_length", CONTEXT_DEFAULT);
}

int setup_context(int n_ctx, const Gguf *g, int64_t n_prompt, int64_t n_new) {
    int trained = setup_trained(g);
    int64_t need = n_prompt + (n_new > 0 ? n_new : 1);
    if (n_ctx > 0) return n_ctx;
    if (n_ctx == 0 || need > trained) return trained;
    return need > CONTEXT_DEFAULT ? (int)need : trained < CONTEXT_DEFAULT ? trained : CONTEXT_DEFAULT;
}

/* ---- the request ---- */

/* 53 random bits: JSON readers that store numbers as double keep such a seed exactly. */
static bool draw_seed(uint64_t *out, Err *e) {
    if (getrandom(out, sizeof *out, 0) != sizeof *out)
        return err_set(e, ERR_RUN, "the system gives no random seed (%s); choose one with -s",
                       strerror(errno));
    *out >>= 11;
    return true;
}

bool setup_request(const Options *o, const Sampling *sampling, Request *out, Err *e) {
    if (o->reasoning_budget >= 0 && (o->n_logprobs || o->n_verify))
        return err_set(e, ERR_USAGE,
                       "--reasoning-budget ends a thought with tokens that the model did not choose; drop %s",
                       o->n_verify ? "--verify" : "--logprobs");
    *out = (Request){
        .n_predict = o->n_predict < 0 ? -1 : o->n_predict,
        .params = sampling->params,
        .ignore_eos = o->ignore_eos,
        .stop = o->stop,
        .n_stop = o->n_stop,
        .n_logprobs = o->n_logprobs,
        .special = o->special,
    };
    out->params.seed = o->seed.value;
    return o->seed.given || draw_seed(&out->params.seed, e);
}
