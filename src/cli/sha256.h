/* sha256: the SHA-256 digest (FIPS 180-4).
 *
 * `zgen info` prints that of the chat template, which can hide instructions, so that it can be compared with
 * sha256sum of a trusted template.  `zgen bench` prints that of generated ids. */
#ifndef ZGEN_CLI_SHA256_H
#define ZGEN_CLI_SHA256_H

#include <stddef.h>

/* The digest of n bytes as 64 hexadecimal digits and a NUL. */
void sha256_hex(const void *bytes, size_t n, char out[65]);

#endif
