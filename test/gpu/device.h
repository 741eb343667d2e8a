/* device: device memory for the tests of single kernels, between guard bands.
 *
 * A kernel that writes before or behind what it was given changes a band, and device_end says so.  Memory
 * that nobody filled is NaN, so that a kernel that reads it shows in its result. */
#ifndef ZGEN_TEST_DEVICE_H
#define ZGEN_TEST_DEVICE_H

#include "../../cuda/launch.h"

/* A stream of the first GPU, dependent launches as the executor has them. */
const Launch *device_launch(void);

/* Scratch for launch_products, of input rows of at most 32768 elements. */
void *device_scratch(void);

/* `bytes` of device memory at a multiple of 256, with the host's bytes or, for NULL, NaN; until device_end.
 */
void *device_new(const void *host, size_t bytes);
void *device_zeros(size_t bytes);

/* Waits, and copies what lies there to the host. */
void device_read(void *host, const void *device, size_t bytes);

/* Waits, checks the bands around everything, and frees it.  What went wrong is a failure of the running test,
 * of which `name` is told. */
void device_end(const char *name);

/* Fails the running test if error is one. */
void device_check(cudaError_t error, const char *name);

#endif
