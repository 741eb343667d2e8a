#!/usr/bin/env bash
# bench_gpu.sh [LLAMA-BENCH]: the speed of ./zgen on this machine's first GPU, with llama.cpp's, the limit and the goals.
#
# Needs the executable, bash, awk and a driver.  Models of random weights in real shapes are made one after the other
# in a folder of TMPDIR (9 GB at most), which is removed at the end.  Each figure is the mean of five runs of zgen bench
# after one for warming up; for the first prompt of a process, the median of five processes.
#
#     limit       tokens per second at this GPU's read bandwidth, by the bytes that a token needs; for prompts at the rate
#                 of its fastest matrix product: both measured here (zgen bench --ceilings)
#     llama.cpp   figures of the llama-bench of the first argument, and of the llama-batched-bench in its folder, in the
#                 same run; without them, of llama.cpp b10472 (it reports itself as b9749) on an H200 (20 Nov 2026)
set -euo pipefail
llama=${1:-}
[ -x ./zgen ] || { echo "bench_gpu.sh: ./zgen is missing" >&2 && exit 2; }
[ -z "$llama" ] || [ -x "$llama" ] || { echo "usage: scripts/bench_gpu.sh [LLAMA-BENCH]" >&2 && exit 2; }
batched=${llama:+$(dirname "$llama")/llama-batched-bench}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
model=$folder/model.gguf

# value NAME: the first number of this name in JSON lines.
value() { grep -o "\"$1\": *[-+.0-9e]*" | head -n 1 | cut -d: -f2 | tr -d ' '; }
median() { sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
calc() { awk "BEGIN { print $1 }"; }
bench() { ./zgen bench -m "$model" --device cuda -o jsonl "$@"; }

# peer RECORDED LLAMA-BENCH-OPTION...: llama.cpp's tokens per second.
peer() {
    local recorded=$1
    shift
    if [ -z "$llama" ]; then echo "$recorded"; else "$llama" -m "$model" -ngl 99 -fa 1 -o jsonl "$@" 2>/dev/null | value avg_ts; fi
}

# batch_peer RECORDED SEQUENCES: the same for many sequences of 128 tokens of prompt and 128 generated.
batch_peer() {
    if [ ! -x "$batched" ]; then echo "$1"; else
        "$batched" -m "$model" -ngl 99 -fa on -c $(($2 * 256)) -b 2048 -ub 512 -npp 128 -ntg 128 -npl "$2" --output-format jsonl 2>&1 | value speed_tg
    fi
}

# row NAME TOKENS-PER-SECOND LIMIT PEER GOAL
row() {
    awk -v name="$1" -v got="$2" -v limit="$3" -v peer="$4" -v goal="$5" 'BEGIN {
        verdict = got + 0 >= goal + 0 ? "reached" : "missed"
        printf "%-28s %10.1f %10.0f %7.1f %% %11.1f %7.2f x %8d  %s\n", name, got, limit, 100 * got / limit, peer, got / peer,
               goal, verdict }'
}

# decode NAME RECORDED GOAL OPTION...: the options are those of zgen bench and llama-bench.  zgen samples tokens and makes
# text of them, which llama-bench does not.
decode() {
    local name=$1 recorded=$2 goal=$3 result
    shift 3
    result=$(bench --real --temp 0 "$@")
    row "$name" "$(value avg_ts <<<"$result")" "$(value limit_ts <<<"$result")" "$(peer "$recorded" "$@")" "$goal"
}

batch() { # SEQUENCES RECORDED GOAL
    local result
    result=$(bench -npl "$1" -p 128 -n 128)
    row "8B Q4_K_M, $1 sequences" "$(value speed_tg <<<"$result")" "$(value limit_ts <<<"$result")" "$(batch_peer "$2" "$1")" "$3"
}

# prompt NAME PEER TOKENS-PER-SECOND TFLOP-PER-SECOND: of the 8B's 2048 tokens.
prompt() { row "$1" "$3" "$(calc "$3 * $product / $4")" "$2" 20000; }

make_model() { ./zgen synth "$1" "$2" "$model" -q; }

ceilings=$(./zgen bench --ceilings --device cuda -o jsonl | grep -v ' threads"') # the GPU's, not the CPU's
product=$(grep '"matrix product' <<<"$ceilings" | value value)
sed 's/.*"limit": "\([^"]*\)", "value": \([^,]*\), "unit": "\([^"]*\)".*/\1: \2 \3/' <<<"$ceilings"
printf '\n%-28s %10s %10s %9s %11s %9s %8s\n' 'tokens per second' zgen limit share llama.cpp ratio goal

make_model llama-3.1-8b q4_k_m
decode '8B Q4_K_M, 128 tokens' 264.6 560 -p 0 -n 128
decode '8B Q4_K_M at depth 32768' 179.6 300 -p 0 -n 128 -d 32768
result=$(bench -p 2048 -n 0)
pp2048=$(peer 9803 -p 2048 -n 0)
prompt '8B Q4_K_M, prompt of 2048' "$pp2048" "$(value avg_ts <<<"$result")" "$(value tflop_s <<<"$result")"
for i in 1 2 3 4 5; do bench -p 2048 -n 0 -r 1 --no-warmup; done >"$folder/first"
of_five() { while read -r line; do value "$1" <<<"$line"; done <"$folder/first" | median; }
prompt '  the first of a process' "$pp2048" "$(of_five avg_ts)" "$(of_five tflop_s)"
batch 16 2050 8000
batch 64 4570 20000

make_model llama-3.1-8b q4_0
decode '8B Q4_0, 128 tokens' 332.0 620 -p 0 -n 128

make_model llama-3.1-8b q8_0
decode '8B Q8_0, 128 tokens' 255.4 400 -p 0 -n 128

make_model llama-3.2-1b q4_k_m
decode '1B Q4_K_M, 128 tokens' 885.9 2000 -p 0 -n 128

printf 'load: the 8B Q4_K_M from a warm page cache is ready in %.2f s (goal 0.60), without the start of the GPU\n' \
    "$(calc "$(of_five load_ns) / 1e9")"
