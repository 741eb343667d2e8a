#!/usr/bin/env python3
"""Make src/text/nfc_table.c: the canonical decompositions, compositions and combining classes of Unicode 14, the
version of PCRE2 10.42, as Python 3.11's unicodedata has them.  Hangul is left out: it is arithmetic.

  make_nfc.py OUT.c
"""
import sys, textwrap, unicodedata

HEAD = """/* nfc_table: see nfc_table.h.  Written by scripts/make_nfc.py from Unicode %s. */
#include "nfc_table.h"

// clang-format off
"""


def characters():
    return (c for c in range(0x110000) if not 0xAC00 <= c <= 0xD7A3 and not 0xD800 <= c <= 0xDFFF)


def pairs():
    """(whole, first, second) of every canonical decomposition; second is 0 where one character replaces another."""
    for c in characters():
        parts = unicodedata.decomposition(chr(c))
        if parts and not parts.startswith("<"):
            yield (c, *(int(p, 16) for p in parts.split()), 0)[:3]


def classes():
    """(first, last, class) of every run of characters with one combining class other than 0."""
    runs = []
    for c in characters():
        k = unicodedata.combining(chr(c))
        if k and runs and runs[-1][1:] == [c - 1, k]:
            runs[-1][1] = c
        elif k:
            runs.append([c, c, k])
    return runs


def rows(name, kind, items):
    print(f"\nconst {kind} {name}[] = {{")
    print(textwrap.fill(" ".join(item + "," for item in items), 110, initial_indent="    ", subsequent_indent="    "))
    print("};")
    print(f"const int {name}_N = {len(items)};")


def main():
    assert unicodedata.unidata_version == "14.0.0"
    sys.stdout = open(sys.argv[1], "w")
    print(HEAD % unicodedata.unidata_version[:4], end="")
    table = list(pairs())
    joined = [(a, b, i) for i, (c, a, b) in enumerate(table) if b and unicodedata.normalize("NFC", chr(c)) == chr(c)]
    runs = classes()
    blocks = {c >> 8 for c, _, _ in table} | {b >> 8 for _, b, _ in joined} | {c >> 8 for a, z, _ in runs for c in (a, z)}
    blocks |= {0x11}  # the vowels and consonants of Hangul
    words = [sum((w * 32 + b in blocks) << b for b in range(32)) for w in range(max(blocks) // 32 + 1)]
    rows("NFC_PAIRS", "NfcPair", ["{0x%x,0x%x,0x%x}" % p for p in table])
    rows("NFC_JOINED", "uint16_t", [str(i) for _, _, i in sorted(joined)])
    rows("NFC_RUNS", "NfcRun", ["{0x%x,0x%x,%d}" % tuple(r) for r in runs])
    rows("NFC_BLOCKS", "uint32_t", ["0x%x" % w for w in words])


main()
