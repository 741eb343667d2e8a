/* device: see device.h. */
#include "device.h"
#include "../unit/check.h"

#include <stdlib.h>
#include <string.h>

enum {
    BAND = 4096,
    BAND_BYTE = 0xA7,
    MAX_BUFFERS = 64,
    INPUT_MAX = 32768 /* elements of a row */,
    SLOTS_MAX = 8
};

static struct Buffer {
    uint8_t *base; // BAND bytes before what the kernel is given
    size_t bytes;
} buffers[MAX_BUFFERS];
static int n_buffers;

void device_check(cudaError_t error, const char *name) {
    if (error != cudaSuccess) test_fail(__FILE__, __LINE__, "%s: %s", name, cudaGetErrorString(error));
}

const Launch *device_launch(void) {
    static Launch launch;
    if (launch.stream) return &launch;
    device_check(cudaStreamCreateWithFlags(&launch.stream, cudaStreamNonBlocking), "stream");
    device_check(launch_for_device(0, &launch), "attribute");
    return &launch;
}

void *device_scratch(void) {
    static void *scratch;
    Product widest = {.n_used = SLOTS_MAX, .per_slot = true};
    widest.segment[0].w = (DeviceWeight){.n_in = INPUT_MAX, .n_expert = MAX_EXPERTS};
    if (!scratch) device_check(cudaMalloc(&scratch, product_scratch_bytes(&widest)), "scratch");
    return scratch;
}

static void *buffer_new(size_t bytes, int fill) {
    if (n_buffers == MAX_BUFFERS) abort();
    struct Buffer *b = &buffers[n_buffers++];
    b->bytes = bytes;
    device_check(cudaMalloc((void **)&b->base, bytes + 2 * BAND), "cudaMalloc");
    device_check(cudaMemset(b->base, BAND_BYTE, bytes + 2 * BAND), "cudaMemset");
    device_check(cudaMemset(b->base + BAND, fill, bytes), "cudaMemset");
    device_check(cudaDeviceSynchronize(), "cudaMemset");
    return b->base + BAND;
}

void *device_zeros(size_t bytes) {
    return buffer_new(bytes, 0);
}

void *device_new(const void *host, size_t bytes) {
    void *to = buffer_new(bytes, 0xFF);
    if (host) device_check(cudaMemcpy(to, host, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
    device_check(cudaDeviceSynchronize(),
                 "cudaMemcpy"); // cudaMemcpy may return before the last bytes have arrived
    return to;
}

void device_read(void *host, const void *device, size_t bytes) {
    device_check(cudaStreamSynchronize(device_launch()->stream), "a kernel");
    device_check(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}

static bool band_is_whole(const uint8_t *device) {
    uint8_t band[BAND];
    device_read(band, device, BAND);
    for (int i = 0; i < BAND; i++)
        if (band[i] != BAND_BYTE) return false;
    return true;
}

void device_end(const char *name) {
    for (int i = 0; i < n_buffers; i++) {
        const struct Buffer *b = &buffers[i];
        bool whole = band_is_whole(b->base) && band_is_whole(b->base + BAND + b->bytes);
        if (!whole)
            test_fail(__FILE__, __LINE__, "%s: written outside of buffer %d of %zu bytes", name, i, b->bytes);
        device_check(cudaFree(b->base), "cudaFree");
    }
    n_buffers = 0;
}
