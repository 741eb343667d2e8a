#!/usr/bin/env bash
# bench_gpu.sh [LLAMA-BENCH]: how fast ./zgen is on this machine's first GPU, beside llama.cpp and beside the limit.
#
# Carry it with the executable: it needs no more than bash, awk and a driver.  Models of random weights in real
# shapes are made on the spot, one after the other, in a folder of TMPDIR (9 GB at most), which is removed at the end.
# Each figure is the median of five runs of the whole program, greedy, with sampling and all.
#
#     limit       tokens per second if every byte that a token needs came at 4645 GB/s, which an H200 reads; for the prompt
#                 790 TFLOP/s, its fastest matrix product
#     llama.cpp   what the llama-bench of the first argument says in the same call; without one, what
#                 llama.cpp b9749 said on an H200 (20 Nov 2026)
set -euo pipefail
llama=${1:-}
[ -x ./zgen ] || { echo "bench_gpu.sh: there is no ./zgen here" >&2 && exit 2; }
[ -z "$llama" ] || [ -x "$llama" ] || { echo "usage: scripts/bench_gpu.sh [LLAMA-BENCH]" >&2 && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
model=$folder/model.gguf

median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# value PART NAME: a number out of the JSON of one run; PART is prompt, decode or, for the times of loading, nothing.
value() {
    tr -d ' \n' | if [ -n "$1" ]; then grep -o "\"$1\":{\"n\"[^}]*}"; else cat; fi |
        grep -o "\"$2\":[-+.0-9e]*" | head -n 1 | cut -d: -f2
}

# The made-up vocabulary has no word of these letters: BOS, three bytes for the space before, and a token each.
prompt() { head -c $(($1 - 4)) /dev/zero | tr '\0' a >"$folder/prompt"; }

# five PROMPT-TOKENS NEW-TOKENS: runs into $folder/1.json to 5.json.
five() {
    prompt "$1"
    for i in 1 2 3 4 5; do
        ./zgen generate -m "$model" -f "$folder/prompt" -n "$2" --temp 0 --ignore-eos --device cuda --json -q >"$folder/$i.json"
    done
}
of_five() { for i in 1 2 3 4 5; do value "$1" "$2" <"$folder/$i.json"; done | median; }

# peer RECORDED LLAMA-BENCH-OPTION...: llama.cpp's tokens per second.
peer() {
    local recorded=$1
    shift
    if [ -z "$llama" ]; then echo "$recorded"; else
        "$llama" -m "$model" -ngl 99 -fa 1 -r 5 -o jsonl "$@" 2>/dev/null | grep -o '"avg_ts": *[.0-9]*' | head -n 1 | tr -d ' ' | cut -d: -f2
    fi
}

# row NAME TOKENS-PER-SECOND LIMIT PEER GOAL
row() {
    awk -v name="$1" -v got="$2" -v limit="$3" -v peer="$4" -v goal="$5" 'BEGIN {
        verdict = got + 0 >= goal + 0 ? "reached" : "missed"
        printf "%-26s %10.1f %10.0f %7.1f %% %11.1f %7.2f x %8d  %s\n", name, got, limit, 100 * got / limit, peer, got / peer,
               goal, verdict }'
}

decode_row() { # NAME PEER GOAL: of the five runs that were just made
    local rate bytes
    rate=$(of_five decode tok_s) bytes=$(of_five decode gb_s)
    row "$1" "$rate" "$(awk "BEGIN { print 4645 * $rate / $bytes }")" "$2" "$3"
}

make_model() { ./zgen synth "$1" "$2" "$model" -q; }

printf '%-26s %10s %10s %9s %11s %9s %8s\n' 'tokens per second' zgen limit share llama.cpp ratio goal

make_model llama-3.1-8b q4_k_m
five 12 128
decode_row '8B Q4_K_M, 128 tokens' "$(peer 264.6 -p 0 -n 128)" 560
load=$(of_five '' load_s) device=$(of_five '' device_s)
five 2048 1
row '8B Q4_K_M, prompt of 2048' "$(of_five prompt tok_s)" 49000 "$(peer 9803 -p 2048 -n 0)" 20000
five 32768 128
decode_row '8B Q4_K_M at depth 32768' "$(peer 179.6 -p 0 -n 128 -d 32768)" 300

make_model llama-3.1-8b q4_0
five 12 128
decode_row '8B Q4_0, 128 tokens' "$(peer 332.0 -p 0 -n 128)" 620

make_model llama-3.1-8b q8_0
five 12 128
decode_row '8B Q8_0, 128 tokens' "$(peer 255.4 -p 0 -n 128)" 400

make_model llama-3.2-1b q4_k_m
five 12 128
decode_row '1B Q4_K_M, 128 tokens' "$(peer 885.9 -p 0 -n 128)" 2000

printf 'load: the 8B Q4_K_M from a warm page cache is ready in %.2f s (goal 0.60), after %.2f s of waking the GPU\n' "$load" "$device"
