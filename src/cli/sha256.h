/* sha256: the name of a text that nobody can give to another one (FIPS 180-4).
 *
 * `zgen info` shows it for the chat template, which can hide instructions: it compares with what sha256sum
 * says of a template one trusts. */
#ifndef ZGEN_CLI_SHA256_H
#define ZGEN_CLI_SHA256_H

#include <stddef.h>

/* The digest of n bytes as 64 hexadecimal digits and a NUL. */
void sha256_hex(const void *bytes, size_t n, char out[65]);

#endif
