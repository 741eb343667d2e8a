#!/usr/bin/env bash
# bench_cpu.sh FOLDER [THREADS [ZGEN-OPTION...]]: how fast zgen is on this machine's CPU, and how near to its limit.
#
# Makes Llama-3.2-1B with random weights in three mixes in FOLDER where they are not there yet (3 GB), and
# prints for each the median of five runs: a prompt of 256 tokens, 48 tokens decoded, and the decoding's share of
# the memory bandwidth, which is measured beside every run because a machine with neighbours does not stand still.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: scripts/bench_cpu.sh FOLDER [THREADS [ZGEN-OPTION...]]" >&2 && exit 2; }
folder=$1 threads=${2:-$(nproc)}
shift $(($# < 2 ? $# : 2))

PATH=/usr/bin:$PATH # the system's Python is the one that set-up gives numpy to
scripts/setup.sh bench
make zgen
cc -O3 -march=native -pthread -o build/read_bandwidth scripts/workshop/read_bandwidth.c
mkdir -p "$folder"

# The made-up vocabulary has no word of these letters: BOS, three bytes for the space before, and a token each.
prompt=$(printf 'a%.0s' {1..252})

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

printf '%-8s %12s %12s %10s %12s %8s\n' type 'prompt tok/s' 'decode tok/s' GB/s 'machine GB/s' share
for mix in q4_k_m q4_0 q8_0; do
    model=$folder/llama-3.2-1b-$mix.gguf
    [ -f "$model" ] || python3 scripts/synth_gguf.py llama-3.2-1b $mix "$model"
    rows=$(for _ in 1 2 3 4 5; do
        machine=$(build/read_bandwidth "$threads" 1)
        ./zgen -m "$model" -p "$prompt" -n 48 --ignore-eos --temp 0 -t "$threads" --json "$@" 2>/dev/null |
            python3 -c 'import json, sys; t = json.load(sys.stdin)["timings"]
print(t["prompt"]["tok_s"], t["decode"]["tok_s"], t["decode"]["gb_s"], sys.argv[1],
      100 * t["decode"]["gb_s"] / float(sys.argv[1]))' "$machine"
    done)
    column() { awk -v c="$1" '{ print $c }' <<<"$rows" | median; }
    printf '%-8s %12.1f %12.1f %10.1f %12.1f %6.0f %%\n' $mix "$(column 1)" "$(column 2)" "$(column 3)" \
        "$(column 4)" "$(column 5)"
done
