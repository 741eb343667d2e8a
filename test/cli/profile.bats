#!/usr/bin/env bats
# --profile: the time of each op, as a table on stderr and in JSON.
load helper

@test "a row per kind of op, their sum and a whole step, on stderr" {
    zgen -p "Once upon a time" -n 8 --temp 0 --profile --device cpu
    local with=$output table=$stderr
    [ "$status" = 0 ]
    asserts "$(awk '$1 ~ /^[A-Z][A-Z]+$/ { print $1, $2 }' <<<"$table" | tr '\n' ' ')" = \
        "EMBED 1 NORM 13 MATMUL 24 ROPE 6 KVPUT 6 ATTN 6 GLU 6 LOGITS 1 SAMPLE 1 "
    [[ "$table" == *"sum             64 "*"whole step  "*"after 13 tokens, executor cpu"*"Timing adds "* ]]
    zgen -p "Once upon a time" -n 8 --temp 0 --device cpu
    asserts "$with/$stderr" = "$output/"
}

@test "in JSON the rows add up to the sum and to the bytes of the model" {
    zgen -p "Once upon a time" -n 8 --temp 0 --json --profile --device cpu
    asserts "$(field 'abs(sum(r["us"] for r in d["profile"]["rows"]) / d["profile"]["sum_us"] - 1) < 1e-6')" = True
    asserts "$(field 'all(r["us"] > 0 for r in d["profile"]["rows"])')" = True
    asserts "$(field 'd["profile"]["n_past"], d["profile"]["repeats"] >= 3, d["profile"]["step_us"] > 0')" = "(13, True, True)"
    asserts "$(field 'abs((d["profile"]["sum_us"] - d["profile"]["step_us"]) / 64 - d["profile"]["overhead_us"]) < 1e-3')" = True
    asserts "$(field '[r["bytes"] for r in d["profile"]["rows"] if r["op"] in ("MATMUL", "ATTN", "GLU")]')" = "[5013504, $((13 * 3072)), 0]"
    asserts "$(field 'all(abs(r["gb_s"] / d["profile"]["limit_gb_s"] - r["share"]) < 1e-6 for r in d["profile"]["rows"])')" = True
    zgen -p Once -n 2 --json
    asserts "$(field '"profile" in d')" = False
}

@test "--profile=ops: a row per op of the tape, in its order" {
    zgen -p "Once" -n 2 --json --profile=ops --device cpu
    field '"\n".join("%d %s %s" % (r["layer"], r["op"], r["name"]) for r in d["profile"]["rows"])' >"$T/rows"
    [ "$(wc -l <"$T/rows")" = 64 ]
    zgen info --plan --device cpu
    awk '{ print ($2 == "-" ? -1 : $2), $3, $4 }' <<<"$output" | cmp - "$T/rows"
}

@test "every command that runs a model has a profile, whatever the model and the context" {
    "$ZGEN" chat --temp 0 -n 4 --profile --device cpu >"$T/out" 2>"$T/err" <<<"Who are you?"
    grep -q "^MATMUL  " "$T/err"
    zgen logits --ids 1,5,9 -o "$T/logits" --profile --device cpu
    [[ "$status" = 0 && "$stderr" == *"whole step"*"after 3 tokens"* && "$(stat -c %s "$T/logits")" = $((3 * 2048 * 4)) ]]
    fails 1 "use -c 5 or more" logits --ids 1,5,9 -c 4 -o "$T/logits" --profile --device cpu
    zgen bench -p 0 -n 8 -r 1 --profile --device cpu
    [[ "$status" = 0 && "$output" == *" tg8 "* && "$stderr" == *"whole step"*"after "* ]]
    zgen -m test/data/models/llama-moe-Q4_0.gguf -p a -n 2 --profile --device cpu -c 6
    [[ "$status" = 0 && "$stderr" == *"EXPERT "*"after 1 tokens"* ]]
}

@test "the values of --profile" {
    fails 2 "'all' is not one of: kinds ops" -p x --profile=all
    fails 2 "unexpected argument 'ops'" -p x --profile ops
    fails 2 "belongs to zgen generate" info --profile
    zgen --help
    [[ "$output" == *"--profile[=kinds|ops]"* ]]
}
