/* device: device memory for the tests of single kernels, between guard bands.
 *
 * A kernel that writes outside of a buffer changes a band, which device_end reports.  Memory without initial
 * bytes is NaN, so that reading it shows in a kernel's result. */
#ifndef ZGEN_TEST_DEVICE_H
#define ZGEN_TEST_DEVICE_H

#include "../../cuda/launch.h"

/* A stream of the first GPU, dependent launches as the executor has them. */
const Launch *device_launch(void);

/* Scratch for launch_products and launch_experts, of input rows of at most 32768 elements, 8 slots and 1024
 * experts. */
void *device_scratch(void);

/* `bytes` of device memory at a multiple of 256, valid until device_end: a copy of the host's bytes, or NaN
 * for NULL. */
void *device_new(const void *host, size_t bytes);
void *device_zeros(size_t bytes);

/* Waits, and copies `bytes` to the host. */
void device_read(void *host, const void *device, size_t bytes);

/* Waits, checks the bands around all buffers, and frees them.  A changed band fails the running test, with a
 * message that contains `name`. */
void device_end(const char *name);

/* Fails the running test, with `name` in the message, unless error is cudaSuccess. */
void device_check(cudaError_t error, const char *name);

#endif
