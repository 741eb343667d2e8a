#!/usr/bin/env bash
# bench_cpu.sh [ZGEN-BENCH-OPTION...]: the speed of zgen on this machine's CPU, and its share of the limit.
#
# Three mixes of Llama-3.2-1B with random weights, made in memory: a prompt of 256 tokens, 48 tokens decoded, and the
# share of the memory bandwidth, which is measured in every run, as it varies where other programs run.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh run
make zgen
for mix in q4_k_m q4_0 q8_0; do
    ./zgen bench --shape llama-3.2-1b --mix $mix -p 256 -n 48 --device cpu "$@"
done
