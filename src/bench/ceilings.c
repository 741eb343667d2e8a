/* ceilings: zgen bench --ceilings: the limits of the machine, without a model.
 *
 * The limits are the fields of Ceilings in exec.h, for the CPU and for the GPU that a model would use.  A
 * limit that a device does not have is left out. */
#include "bench.h"
#include "machine.h"
#include "table.h"
#include "../cli/setup.h"
#include "../cli/show.h"
#include "../cpu/cpu.h"
#include "../../cuda/cuda.h"

#include <string.h>

static const BenchColumn columns[] = {{"device", -40}, {"limit", -36}, {"value", 10}, {"unit", -7}};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static bool print_one(BenchTable *t, const char *device, const char *limit, double value, const char *unit,
                      Err *e) {
    if (value <= 0) return true;
    Buf cells[N_COLUMNS] = {0};
    buf_printf(&cells[0], "%s", device);
    buf_printf(&cells[1], "%s", limit);
    buf_printf(&cells[2], "%.2f", value);
    buf_printf(&cells[3], "%s", unit);
    json_t *object = json_pack("{s:o,s:s,s:f,s:s}", "device", show_json(device, strlen(device)), "limit",
                               limit, "value", value, "unit", unit);
    bool ok = bench_table_row(t, cells, object, e);
    for (int i = 0; i < N_COLUMNS; i++) buf_free(&cells[i]);
    return ok;
}

static bool print_all(BenchTable *t, const char *device, const Ceilings *c, Err *e) {
    return print_one(t, device, "memory read", c->read / 1e9, "GB/s", e) &&
           print_one(t, device, "memory copied, counted both ways", c->copy / 1e9, "GB/s", e) &&
           print_one(t, device, "from one op to the next", c->boundary * 1e6, "us", e) &&
           print_one(t, device, "the same where it may start early", c->boundary_overlap * 1e6, "us", e) &&
           print_one(t, device, "matrix product, f16 with f32 sums", c->product / 1e12, "TFLOP/s", e) &&
           print_one(t, device, "host to device, pinned", c->upload / 1e9, "GB/s", e);
}

static bool print_cpu(BenchTable *t, int n_threads, Err *e) {
    Ceilings c;
    Buf name = {0};
    bench_cpu_name(&name);
    buf_printf(&name, ", %d threads", n_threads);
    bool ok = cpu_ceilings(n_threads, &c, e) && print_all(t, name.data, &c, e);
    buf_free(&name);
    return ok;
}

static bool print_gpu(BenchTable *t, int index, Err *e) {
    Ceilings c;
    CudaDevice device;
    return cuda_device(index, &device, e) && cuda_ceilings(index, &c, e) && print_all(t, device.name, &c, e);
}

bool bench_ceilings(const Options *o, Err *e) {
    Options one = *o;
    EngineConfig config = {0};
    one.gpu_layers = o->bench.gpu_layers.values[0];
    one.n_threads = o->bench.n_threads.values[0];
    if (!setup_config(&one, &config, e)) return false;
    BenchTable t = {.format = o->bench.format,
                    .err_format = o->bench.err_format,
                    .columns = columns,
                    .n_columns = N_COLUMNS};
    bool ok = print_cpu(&t, config.n_threads, e) &&
              (config.device != DEVICE_CUDA || print_gpu(&t, config.device_index, e));
    return bench_table_end(&t, e) && ok;
}
