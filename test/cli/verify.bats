#!/usr/bin/env bats
# --verify: the first steps of a run compared with the scalar executor; other output is unchanged.
load helper

story="Once upon a time"

@test "every kernel table, cache type and conversion passes, and generates the same text as without" {
    for isa in scalar avx2 avx512; do
        "$ZGEN" -p x -n 1 --isa $isa >/dev/null 2>&1 || continue
        for more in "--kv f16" "--kv f32 --temp 0" "--kv q8_0" "--kv fp8" "--weights fp8" "--act q8 --repeat-penalty 1.3"; do
            zgen -p "$story" -n 12 -s 4 --isa $isa $more
            local plain=$output
            zgen -p "$story" -n 12 -s 4 --isa $isa $more --verify 10
            asserts "$status/$output" = "0/$plain"
            [[ "$stderr" == "zgen: verify: 10 steps compared with the scalar executor: mean KL "*", max "*"; NMSE "*"the same token ranked first in "* ]]
            asserts "$(wc -l <<<"$stderr")" = 1
        done
    done
}

@test "the object in JSON" {
    zgen -p "<|user|>What is the capital of Norway?<|end|><|assistant|>" --temp 0 --device cpu --json --verify 99
    asserts "$(field 'd["text"], d["counts"]["generated"]')" = "(' The capital of Norway is Oslo.', 7)"
    asserts "$(field 'sorted(d["verify"])')" = \
        "['agree', 'asked', 'kl', 'kl_max', 'kl_max_step', 'limits', 'margin', 'margin_step', 'medians', 'nmse', 'passes', 'rounding', 'steps']"
    asserts "$(field '[d["verify"][k] for k in ("asked", "steps", "agree", "margin", "passes")]')" = "[99, 8, 8, None, True]"
    asserts "$(field 'd["verify"]["limits"], d["verify"]["medians"]')" = "({'kl': 0.002, 'nmse': 0.0004, 'margin': 0.5}, False)"
    asserts "$(field '0 < d["verify"]["rounding"]["nmse"] < 1e-4')" = True
    asserts "$(field '0 <= d["verify"]["kl"] <= d["verify"]["kl_max"] < 1e-3')" = True
    zgen -m test/data/models/llama-moe-F16.gguf -p "$story" -n 5 --ignore-eos --device cpu --json --verify 5
    asserts "$(field 'd["verify"]["limits"], d["verify"]["kl"] < 1e-6, d["verify"]["medians"]')" = "({'kl': None, 'nmse': 3e-05, 'margin': 0.05}, True, True)"
    zgen -p Once -n 2 --json
    asserts "$(field '"verify" in d')" = False
}

@test "--verify with -q, with -n 0, with --profile" {
    zgen -p "$story" -n 5 -q --verify 3 --device cpu
    asserts "$status/$stderr" = 0/
    zgen -p "$story" -n 0 --verify 3 --device cpu
    asserts "$status/$stderr" = "0/zgen: verify: 0 steps compared with the scalar executor"
    zgen -p "$story" -n 5 --device cpu --verify 3 --profile
    [[ "$status" = 0 && "$stderr" == "zgen: verify: 3 steps "*"whole step"* ]]
}

@test "chat verifies each answer, logits the first positions" {
    printf 'Who are you?\n/undo\nWhat is the capital of Norway?\n' | "$ZGEN" chat --temp 0 --verify 4 >"$T/out" 2>"$T/err"
    asserts "$(grep -c '^zgen: verify: 4 steps ' "$T/err")" = 2
    grep -q "Oslo" "$T/out"
    zgen logits --ids 1,5,9,17,300 -o "$T/plain"
    zgen logits --ids 1,5,9,17,300 -o "$T/logits" --verify 4 --device cpu
    asserts "$status" = 0
    [[ "$stderr" == "zgen: verify: 4 steps "* ]]
    cmp "$T/plain" "$T/logits"
}

@test "perplexity verifies the beginning of its first window" {
    local args="-f README.md -c 32 --chunks 2 -t 1 --device cpu"
    zgen perplexity $args
    local plain=$output
    zgen perplexity $args --verify 20
    asserts "$status/$output" = "0/$plain"
    [[ "$stderr" == "zgen: verify: 20 steps compared with the scalar executor: mean KL "* ]]
    zgen perplexity $args --verify 50 --json -q
    asserts "$status/$stderr/$(field 'd["verify"]["steps"], d["verify"]["passes"]')" = "0//(32, True)"
}

@test "bench verifies each test before its row, and measures the same test as without" {
    local tests="-r 2 -p 6 -n 4 -pg 3,2 -d 0,5 -t 1 --device cpu -o json" same='[x["ids_sha256"] for x in d]'
    zgen bench $tests
    asserts "$(field 'any("verify" in x for x in d)')" = False
    local plain; plain=$(field "$same")
    zgen bench $tests --verify 4
    asserts "$status/$(grep -c '^zgen: verify: [0-9]* steps* compared with the scalar executor: mean KL ' <<<"$stderr")" = 0/6
    asserts "$(field "$same")" = "$plain"
    asserts "$(field '[(x["verify"]["asked"], x["verify"]["steps"]) for x in d]')" = "[(4, 1), (4, 4), (4, 3), (4, 1), (4, 4), (4, 3)]"
    asserts "$(field 'all(x["verify"]["passes"] and list(x)[-1] == "verify" for x in d)')" = True
    zgen bench $tests --verify 4 --real --kv q8_0,f32 -t 2 -q
    asserts "$status/$stderr/$(field 'len(d), all(x["verify"]["passes"] for x in d)')" = "0//(24, True)"
    zgen bench $tests --verify 4 -o csv
    [[ "$status" = 0 && "${lines[0]}" == *",ids_repeat" ]]
}

@test "bench verifies the first of many sequences" {
    zgen bench -r 2 -npl 1,3 -p 6 -n 4,0 -t 1 --device cpu --verify 9 -o json
    asserts "$status/$(field '[(x["pl"], x["verify"]["steps"], x["verify"]["passes"]) for x in d]')" = \
        "0/[(1, 5, True), (3, 5, True), (1, 1, True), (3, 1, True)]"
}

@test "the memory of the scalar executor does not count in bench's peak" {
    ! nm "$ZGEN" 2>/dev/null | grep -q __asan_init || skip "the sanitizer keeps what was released"
    [ -w /proc/self/clear_refs ] || skip "no peak is forgotten here"
    local peak='max(x["peak_host_bytes"] for x in d)'
    zgen bench -r 1 -p 8 -n 8 -d 0,200 -t 1 --device cpu -o json
    local plain; plain=$(field "$peak")
    zgen bench -r 1 -p 8 -n 8 -d 0,200 -t 1 --device cpu -o json --verify 2
    asserts "$(field "$peak < 1.1 * $plain")" = True
}

@test "Ctrl-C while bench verifies a test: the test has no row" {
    "$ZGEN" bench -r 1 --no-warmup -p 3000 -n 0 -t 1 --device cpu --verify 1 -o json -v >"$T/out" 2>"$T/err" </dev/null 3>&- &
    local pid=$! code=0
    for _ in $(seq 1200); do grep -q "comparing the test" "$T/err" && break; sleep 0.05; done
    grep -q "comparing the test" "$T/err" || { kill $pid; echo "it never came to verify"; false; }
    kill -s INT $pid
    wait $pid || code=$?
    asserts "$code/$(cat "$T/out")" = "130/"
}

# Only the scalar kernels call expf of the C library: with a wrong expf they differ from the other kernels.
@test "beyond the limits: all output except the row of bench, then one sentence, exit 1" {
    grep -q avx2 /proc/cpuinfo || skip "no kernels here but the scalar ones"
    ! nm "$ZGEN" 2>/dev/null | grep -q __asan_init || skip "the sanitizer wants to be loaded first"
    echo 'double exp(double); float expf(float x); float expf(float x) { return (float)exp(0.8 * (double)x); }' >"$T/expf.c"
    cc -O1 -fno-builtin -shared -fPIC -o "$T/expf.so" "$T/expf.c"
    zgen -p "$story" -n 12 -s 4 --isa avx2
    local plain=$output
    export LD_PRELOAD=$T/expf.so
    zgen -p "$story" -n 12 -s 4 --isa avx2 --verify 10
    asserts "$status/$output" = "1/$plain"
    asserts "$(wc -l <<<"$stderr")" = 2
    [[ "$stderr" == *"zgen: --verify: over 10 steps the mean NMSE from the scalar executor is "*" and may be 0.0004, the worst is step "* ]]
    zgen -p "$story" -n 12 -s 4 --isa avx2 --verify 10 --json
    asserts "$status" = 1
    asserts "$(field 'd["verify"]["passes"], d["verify"]["nmse"] > 4e-4, d["text"] == '"'''$plain'''")" = "(False, True, True)"
    zgen logits --ids 1,5,9,17,300 -o "$T/logits" --isa avx2 --verify 4
    asserts "$status/$(stat -c %s "$T/logits")" = "1/$((5 * 2048 * 4))"
    run --separate-stderr "$ZGEN" chat --temp 0 --isa avx2 --verify 4 <<<"Who are you?"
    asserts "$status" = 1
    [[ -n "$output" && "$stderr" == *"zgen: --verify: "* ]]
    zgen perplexity -f README.md -c 32 --chunks 2 -t 1 --isa avx2 --verify 20
    [[ "$status" = 1 && "$output" == "PPL = "* && "$stderr" == *"zgen: --verify: over 20 steps "* ]]
    for format in md csv json jsonl; do
        fails 1 "--verify: over 1 steps the mean KL from the scalar executor is " bench -r 1 -p 6 -n 4 -t 1 --isa avx2 --verify 4 -q -o $format
    done
    fails 1 "--verify: over 4 steps the mean " bench -r 1 -p 0 -n 4 -t 1 --isa avx2 --verify 4 -q
    fails 1 "--verify: over 4 steps the mean " bench -r 1 -p 6 -n 4 -npl 2 -t 1 --isa avx2 --verify 4 -q
    unset LD_PRELOAD
}

@test "the number of steps, and the commands that have --verify" {
    fails 2 "from 1 to" -p x --verify 0
    fails 2 "is not a whole number" -p x --verify some
    fails 2 "belongs to zgen generate" info --verify 3
    zgen --help
    [[ "$output" == *"--verify N"*"scalar executor"* ]]
}
