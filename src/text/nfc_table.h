/* nfc_table: canonical decompositions and combining classes of Unicode 14.  Private to nfc.c.
 *
 * Hangul is left out, because its syllables are computed from their letters. */
#ifndef ZGEN_TEXT_NFC_TABLE_H
#define ZGEN_TEXT_NFC_TABLE_H

#include <stdint.h>

typedef struct NfcPair {
    uint32_t whole, first, second; // second = 0: first replaces whole, and no composition leads back
} NfcPair;

typedef struct NfcRun { // characters of one combining class
    uint32_t from, to;
    uint32_t order; // 1 to 255
} NfcRun;

extern const NfcPair NFC_PAIRS[]; // sorted by whole
extern const int NFC_PAIRS_N;

extern const uint16_t NFC_JOINED[]; // the pairs that composition joins, sorted by first, then second
extern const int NFC_JOINED_N;

extern const NfcRun NFC_RUNS[]; // sorted; characters outside have class 0
extern const int NFC_RUNS_N;

/* Bit c / 256: among the 256 characters of a block are some that decompose, that have a class, or that are
 * joined to the character before. */
extern const uint32_t NFC_BLOCKS[];
extern const int NFC_BLOCKS_N; // words of 32 blocks

#endif
