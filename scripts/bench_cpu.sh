#!/usr/bin/env bash
# bench_cpu.sh FOLDER [THREADS [ZGEN-OPTION...]]: how fast zgen is on this machine's CPU, and how near to its limit.
#
# Makes Llama-3.2-1B with random weights in three mixes in FOLDER where they are not there yet (3 GB), and
# prints for each the median of five runs: a prompt of 256 tokens, 48 tokens decoded, and the decoding's share of
# the memory bandwidth, which zgen -v measures in every run because a machine with neighbours does not stand still.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { echo "usage: scripts/bench_cpu.sh FOLDER [THREADS [ZGEN-OPTION...]]" >&2 && exit 2; }
folder=$1 threads=${2:-$(nproc)}
shift $(($# < 2 ? $# : 2))

scripts/setup.sh run
make zgen
mkdir -p "$folder"

# The made-up vocabulary has no word of these letters: BOS, three bytes for the space before, and a token each.
prompt=$(printf 'a%.0s' {1..252})

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# From the notices: tokens per second of prompt and decoding, GB/s of decoding, of the machine, and the share.
rates() {
    awk '/prompt: .* tok\/s/ { for (i = 2; i <= NF; i++) if ($i ~ /^tok\/s/) prompt = $(i - 1) }
         /decode: .* tok\/s/ { for (i = 2; i <= NF; i++) {
             if ($i ~ /^tok\/s/) decode = $(i - 1)
             if ($i ~ /^GB\/s/ && !own) own = $(i - 1); else if ($i == "GB/s") machine = $(i - 1)
             if ($i == "%") share = $(i - 1) } }
         END { print prompt, decode, own, machine, share }'
}

printf '%-8s %12s %12s %10s %13s %7s\n' type 'prompt tok/s' 'decode tok/s' GB/s 'machine GB/s' share
for mix in q4_k_m q4_0 q8_0; do
    model=$folder/llama-3.2-1b-$mix.gguf
    [ -f "$model" ] || ./zgen synth llama-3.2-1b $mix "$model"
    rows=$(for _ in 1 2 3 4 5; do
        ./zgen -m "$model" -p "$prompt" -n 48 --device cpu --ignore-eos --temp 0 -t "$threads" -v "$@" 2>&1 >/dev/null | rates
    done)
    column() { awk -v c="$1" '{ print $c }' <<<"$rows" | median; }
    printf '%-8s %12s %12s %10s %13s %5s %%\n' $mix "$(column 1)" "$(column 2)" "$(column 3)" "$(column 4)" "$(column 5)"
done
