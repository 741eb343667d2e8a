# zgen bench: the tables and keys of llama-bench, and those of zgen.

load helper

# The keys of llama-bench's JSON, in its order.
keys='build_commit build_number cpu_info gpu_info backends model_filename model_type model_size model_n_params n_batch n_ubatch
n_threads cpu_mask cpu_strict poll type_k type_v n_gpu_layers n_cpu_moe split_mode main_gpu no_kv_offload flash_attn devices
tensor_split tensor_buft_overrides load_mode embeddings no_op_offload no_host fit_target fit_min_ctx n_prompt n_gen n_depth
test_time avg_ns stddev_ns avg_ts stddev_ts'
keys=$(tr '\n' ' ' <<<"$keys" | xargs)
batch_keys='n_kv_max n_batch n_ubatch flash_attn is_pp_shared n_gpu_layers n_threads n_threads_batch pp tg pl n_kv t_pp speed_pp
t_tg speed_tg t speed'
batch_keys=$(tr '\n' ' ' <<<"$batch_keys" | xargs)

bench() { zgen bench -t 1 -r 2 --device cpu "$@"; }

# rows EXPRESSION: prints a Python expression of d, the list of objects in the lines of $output.
rows() {
    printf '%s\n' "$output" | python3 -c 'import json, statistics, sys
d = [json.loads(line) for line in sys.stdin]
print(eval(sys.argv[1]))' "$1"
}

@test "bench: the table of llama-bench, followed by zgen's columns" {
    bench -p 16 -n 4 -pg 8,2 -d 0,5
    asserts "$status/$stderr" = "0/"
    asserts "${lines[0]}" = "| model                          |       size |     params | backend    | threads |            test |                  t/s |     GB/s | % read |  TFLOP/s |    ttft ms |        itl ms 50/90/99 % |"
    [[ "${lines[1]}" == "| ------------------------------ | ---------: | ---------: | ---------- | ------: | --------------: | -------------------: | "* ]]
    [[ "${lines[2]}" == "| llama 5.2M Q8_0                |   5.33 MiB |     5.25 M | CPU        |       1 |            pp16 | "* ]]
    tests=$(printf '%s\n' "${lines[@]:2:6}" | cut -d'|' -f7 | xargs)
    asserts "$tests" = "pp16 tg4 pp8+tg2 pp16 @ d5 tg4 @ d5 pp8+tg2 @ d5"
    [[ "$output" == *"build: zgen-"*"mode: random"*"peak memory: "* ]]
    for line in "${lines[@]:0:8}"; do asserts "$(wc -m <<<"$line")" = "$(wc -m <<<"${lines[0]}")"; done
}

@test "bench: JSON and JSONL have llama-bench's keys in its order, CSV all of them in quotes" {
    bench -p 8 -n 2 -o jsonl
    asserts "$status/$(rows 'len(d)')" = "0/2"
    asserts "$(rows '" ".join(list(d[0])[:42])')" = "$keys samples_ns samples_ts"
    one=$(rows '[list(x) for x in d]')
    bench -p 8 -n 2 -o json
    asserts "$(field '[list(x) for x in d]')" = "$one"
    bench -p 8 -n 2 -o csv
    printf '%s\n' "$output" >"$T/bench.csv"
    asserts "$(python3 -c 'import csv, sys
d = list(csv.DictReader(open(sys.argv[1])))
print(" ".join(list(d[0])[:40]), len(d), d[1]["n_gen"], d[1]["cpu_strict"], d[1]["mode"], d[0]["gb_s"] == "")' "$T/bench.csv")" = "$keys 2 2 0 random True"
    asserts "$(tail -n 1 "$T/bench.csv" | tr -dc ',"' | sed 's/","/+/g' | tr -d +)" = '""'
}

@test "bench: the statistics are those of the samples" {
    zgen bench -t 1 -r 4 --device cpu -p 9 -n 3 -pg 5,4 -o jsonl --real
    asserts "$(rows 'all(len(x["samples_ns"]) == 4 == len(x["samples_ts"]) for x in d)')" = True
    asserts "$(rows 'all(abs(x["avg_ts"] - statistics.mean(x["samples_ts"])) < 1e-6 * x["avg_ts"] for x in d)')" = True
    asserts "$(rows 'all(abs(x["stddev_ts"] - statistics.stdev(x["samples_ts"])) < 1e-5 * x["avg_ts"] for x in d)')" = True
    asserts "$(rows 'all(abs(t * n / 1e9 / (x["n_prompt"] + x["n_gen"]) - 1) < 1e-4
        for x in d for t, n in zip(x["samples_ts"], x["samples_ns"]))')" = True
    asserts "$(rows 'all(0 < x["itl_p50_ns"] <= x["itl_p90_ns"] <= x["itl_p99_ns"] for x in d[1:])')" = True
    asserts "$(rows 'd[0]["itl_p50_ns"], d[0]["gb_s"], d[1]["ttft_ns"], d[1]["tflop_s"]')" = "(None, None, None, None)"
    asserts "$(rows 'd[1]["read_percent"] is None or d[1]["read_percent"] <= 100 and abs(d[1]["limit_ts"] * d[1]["read_percent"] / 100 * d[1]["avg_ns"] / 3e9 - 1) < 1e-4')" = True
    asserts "$(rows 'all(x["ids_repeat"] and len(x["ids_sha256"]) == 64 and x["peak_host_bytes"] > 5e6 for x in d)')" = True
}

@test "bench: all lists make one cross product, in llama-bench's order" {
    zgen bench --device cpu -r 1 --no-warmup -p 2,4 -n 1 -p 0 -d 0,3 -t 1,2 -ub 2,4 -b 8,3 -o jsonl
    asserts "$status/$(rows 'len(d)')" = "0/$((2 * 2 * 2 * 2 * 3))"
    asserts "$(rows '[(x["n_batch"], x["n_ubatch"], x["n_threads"], x["n_depth"], x["n_prompt"], x["n_gen"]) for x in d] == [(b, min(b, u), t, p, *pg) for b in (8, 3) for u in (2, 4) for t in (1, 2) for p in (0, 3) for pg in ((2, 0), (4, 0), (0, 1))]')" = True
    zgen bench --device cpu -r 1 --no-warmup -p 2 -n 0 -t 2,1 --kv f16,f32 -o jsonl
    asserts "$(rows '[(x["type_k"], x["type_v"], x["n_threads"]) for x in d] == [(k, k, t) for k in ("f16", "f32") for t in (2, 1)]')" = True
}

@test "bench: repetitions generate the same tokens, at every depth and chunk size" {
    hashes='[x["ids_sha256"] for x in d]'
    for mode in "" "--real" "--real --temp 0"; do
        bench $mode -p 40 -n 6 -pg 40,6 -d 0,33 -o jsonl
        asserts "$(rows 'set(x["ids_repeat"] for x in d)')" = "{$([ -n "$mode" ] && echo True || echo None)}"
        first=$(rows "$hashes")
        bench $mode -p 40 -n 6 -pg 40,6 -d 0,33 -ub 7 -o jsonl
        asserts "$(rows "$hashes")" = "$first"
        bench $mode -p 40 -n 6 -pg 40,6 -d 0,33 -s 2 -o jsonl
        if [ "$mode" = "--real --temp 0" ]; then asserts "$(rows "$hashes")" = "$first"; else [ "$(rows "$hashes")" != "$first" ]; fi
    done
}

@test "bench: many sequences, in llama-batched-bench's table and keys" {
    bench -npl 1,3 -npp 6 -ntg 4
    asserts "$status" = 0
    [[ "${lines[0]}" == "|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |"* ]]
    [[ "${lines[1]}" == "|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|"* ]]
    [[ "${lines[3]}" == "|     6 |      4 |    3 |     30 | "* ]]
    bench -npl 1,3 -p 6 -n 4,0 -o jsonl --real --temp 0
    asserts "$(rows '" ".join(list(d[0])[:18])')" = "$batch_keys"
    asserts "$(rows '[(x["pp"], x["tg"], x["pl"], x["n_kv"]) for x in d]')" = "[(6, 4, 1, 10), (6, 4, 3, 30), (6, 0, 1, 6), (6, 0, 3, 18)]"
    asserts "$(rows 'abs(d[1]["speed_tg"] * d[1]["t_tg"] - 12) < 1e-3 and d[2]["speed_tg"] == 0 and all(x["ids_repeat"] for x in d)')" = True
}

@test "bench: a real text is sampled, and its mode is real" {
    bench --real -p 12 -n 0 -pg 12,4 -o jsonl
    asserts "$(rows '[x["mode"] for x in d]')" = "['real', 'real']"
    first=$(rows 'd[1]["ids_sha256"]')
    printf 'The cat and the dog went to the park.' >"$T/text"
    bench --real -f "$T/text" -p 0 -n 0 -pg 12,4 -o jsonl
    [ "$(rows 'd[0]["ids_sha256"]')" != "$first" ]
    bench -p 0 -n 0 -pg 12,4 -o jsonl
    asserts "$(rows 'd[0]["mode"]')" = random
    [ "$(rows 'd[0]["ids_sha256"]')" != "$first" ]
    bench --real --temp 0 -p 0 -n 0 -pg 12,4 -o jsonl
    local likeliest=$(rows 'd[0]["ids_sha256"]')
    [ "$likeliest" != "$first" ]
    bench --real --top-k 1 -s 9 -p 0 -n 0 -pg 12,4 -o jsonl
    asserts "$(rows 'd[0]["ids_sha256"]')" = "$likeliest"
}

@test "bench: random tokens depend on the seed alone, not on the logits" {
    local ids='d[0]["ids_sha256"]' first
    bench -m $tiny -p 0 -n 6 -o jsonl
    first=$(rows "$ids")
    bench -m test/data/models/llama-s-Q4_0.gguf -p 0 -n 6 -o jsonl
    asserts "$(rows "$ids")" = "$first"
    damage
    fails 1 "blk.2.ffn_up.weight" bench -m "$T/nan.gguf" -p 0 -n 6 -t 1
    fails 1 "blk.2.ffn_up.weight" bench -m "$T/nan.gguf" -p 0 -n 6 -d 4 -t 1 --no-warmup
    fails 1 "blk.2.ffn_up.weight" bench -m "$T/nan.gguf" -p 4 -n 6 -npl 2 -t 1
}

@test "bench: a shape has the name and size of the real model, and runs" {
    zgen bench --shape llama-3.2-1b --mix q8_0 --layers 1 -p 2 -n 1 -r 1 --no-warmup -t 2 --device cpu -o jsonl
    asserts "$status/$(rows 'd[0]["model_type"], d[0]["model_filename"], len(d)')" = "0/('llama 323M Q8_0', 'synthetic llama-3.2-1b q8_0', 2)"
    zgen bench --list-shapes
    [[ "$output" == *"llama-3.1-8b     llama        32   4096"*"mixes: "*" Q4_K_M "* ]]
    [[ "$output" == *"qwen3-30b-a3b    qwen3moe     48   2048     128  151936"* ]]
}

@test "bench: ceilings are measured and printed" {
    zgen bench --ceilings --device cpu -t 1 -o jsonl
    asserts "$status/$(rows '[x["limit"] for x in d]')" = "0/['memory read', 'memory copied, counted both ways', 'from one op to the next']"
    asserts "$(rows 'all(x["value"] > 0 for x in d)')" = True
}

# result MODEL N_PROMPT N_GEN SAMPLES: a line of llama-bench, with the keys that --compare reads.
result() {
    printf '{"build_commit": "x", "model_type": "%s", "type_k": "f16", "type_v": "f16", "n_prompt": %s, "n_gen": %s, "n_depth": 0, "avg_ts": 1.0, "stddev_ts": 0.0, "samples_ns": [ 1 ],"samples_ts": [ %s ]}\n' "$@"
}

@test "bench --compare: partners by model and test, ratios with their spread" {
    { result 'llama 8B Q4_0' 512 0 '90, 110'; result 'llama 8B Q4_0' 0 128 '10, 10'; result 'llama 1B Q4_0' 0 128 '5'; } >"$T/a.jsonl"
    { result 'llama 8B (guessed) Q4_0' 0 128 '19, 21'; result 'llama 8B Q4_0' 512 0 '200, 200'; } >"$T/b.jsonl"
    zgen bench --compare "$T/a.jsonl" "$T/b.jsonl" -o jsonl
    asserts "$status/$(rows '[(x["test"], round(x["ratio"], 6), round(x["spread"], 6)) for x in d]')" = "0/[('pp512', 2.0, 0.282843), ('tg128', 2.0, 0.141421)]"
    [[ "$stderr" == *"a.jsonl: llama 1B Q4_0 tg128 has no partner in "*"b.jsonl" ]]
    zgen bench --compare "$T/a.jsonl" "$T/b.jsonl"
    [[ "${lines[2]}" == "| llama 8B Q4_0                  |              pp512 |       100.00 ± 14.14 |        200.00 ± 0.00 |   2.000 ± 0.283 |" ]]
}

@test "bench: FP8 weights are named, whatever type most tensors have" {
    zgen quantize models/stories-q8_0.gguf "$T/fp8.gguf" FP8 --requantize -q
    zgen bench -m "$T/fp8.gguf" -p 0 -n 1 -r 1
    [[ "$output" == *"| llama 5.3M (guessed) FP8 E4M3 "* ]] || { echo "$output"; false; }
}

@test "bench --compare: a size without a name in llama-bench is the parameter count" {
    result 'llama ?B (guessed) Q4_0' 512 0 '100' | sed 's/"type_k"/"model_n_params": 5246208, &/' >"$T/a.jsonl"
    result 'llama 5.2M Q4_0' 512 0 '200' >"$T/b.jsonl"
    zgen bench --compare "$T/a.jsonl" "$T/b.jsonl" -o jsonl
    asserts "$status/$stderr/$(rows '[(x["model_type"], x["ratio"]) for x in d]')" = "0//[('llama 5.2M Q4_0', 2.0)]"
    sed -i 's/?B/8x7B/' "$T/a.jsonl" # the label of another model with as many layers
    zgen bench --compare "$T/a.jsonl" "$T/b.jsonl" -o jsonl
    asserts "$status/$stderr/$(rows '[(x["model_type"], x["ratio"]) for x in d]')" = "0//[('llama 5.2M Q4_0', 2.0)]"
}

@test "bench --compare reads what bench prints, of both kinds" {
    bench -p 8 -n 2 -o json
    printf '%s\n' "$output" >"$T/a.json"
    bench -n 2 -p 8 -o jsonl
    printf '%s\n' "$output" >"$T/b.jsonl"
    zgen bench --compare "$T/a.json" "$T/b.jsonl" -o jsonl
    asserts "$status/$stderr/$(rows '[x["test"] for x in d]')" = "0//['pp8', 'tg2']"
    bench -npl 1,2 -p 4 -n 2 -o jsonl
    printf '%s\n' "$output" >"$T/c.jsonl"
    zgen bench --compare "$T/c.jsonl" "$T/c.jsonl" -o jsonl
    asserts "$status/$(rows '[(x["test"], round(x["ratio"], 9)) for x in d]')" = "0/[('pp4 x 1', 1.0), ('tg2 x 1', 1.0), ('pp4 x 2', 1.0), ('tg2 x 2', 1.0)]"
}

@test "bench: Ctrl-C leaves complete JSON of the finished tests" {
    "$ZGEN" bench -t 1 --device cpu -r 1 --no-warmup -p 1-900 -n 0 -o json >"$T/out" 2>"$T/err" </dev/null 3>&- &
    local pid=$! code=0
    for _ in $(seq 400); do [ "$(wc -l <"$T/out")" -lt 3 ] || break; sleep 0.05; done
    kill -s INT $pid
    wait $pid || code=$?
    output=$(cat "$T/out")
    asserts "$code/$(cat "$T/err")" = "130/"
    asserts "$(field '2 < len(d) < 900 and d[-1]["n_prompt"] == len(d)')" = True
}

@test "plot_bench hands gnuplot a series per model and test, with its limits" {
    mkdir "$T/bin"
    cat >"$T/bin/gnuplot" <<END
#!/bin/bash
script=\$(cat)
series=\${script#*for*\"}
cp "\${series%%\"*}" "$T/series"
printf '%s\n' "\$script" >"$T/script"
END
    chmod +x "$T/bin/gnuplot"
    bench -p 4 -n 2 -d 0,6 -o jsonl
    # A limit, which a model that fits into the caches does not have.
    output=$(sed '/"n_gen": 2/s/"limit_ts": [^,}]*/"limit_ts": 9876.5/' <<<"$output")
    printf '%s\n' "$output" >"$T/r.jsonl"
    PATH="$T/bin:$PATH" scripts/plot_bench "$T/picture.svg" "$T/r.jsonl"
    expected=$(rows '"".join("\"r.jsonl: llama 5.2M Q8_0 " + t + "\"\n" + "".join("%d %s %s %s\n" % (x["n_depth"], x["avg_ts"], x["stddev_ts"], x["limit_ts"] or "?") for x in d if (x["n_gen"] > 0) == (t == "tg2")) + "\n\n" for t in ("pp4", "tg2"))')
    asserts "$(cat "$T/series")" = "$expected"
    grep -q 'set xlabel "depth in tokens"' "$T/script"
    grep -q 'for \[i in "1"\]' "$T/script"
    command -v gnuplot >/dev/null || skip "no gnuplot here: what it draws was not looked at"
    scripts/plot_bench "$T/picture.svg" "$T/r.jsonl"
    grep -q '<svg' "$T/picture.svg"
}

@test "bench: wrong options are refused with one sentence" {
    fails 2 "1x' is not a list" bench -p 1x
    fails 2 "0-8*2' is not a list" bench -d '0-8*2'
    fails 2 "'512' is not two whole numbers" bench -pg 512
    fails 2 "nothing to measure" bench -p 0 -n 0
    fails 2 "keys of type f32 and values of type f16: both are kept in one type" bench -ctk f32 -p 1
    fails 2 "keys of type f16 and values of type f32" bench -ctk q8_0,f16 -ctv f32 -p 1
    fails 2 "'q4_0' is not a list of: f16 f32 q8_0 fp8" bench -ctk q8_0 -ctv q4_0 -p 1
    fails 2 "one attention, which never stores scores whole; use -fa 1" bench -fa 0 -p 1
    fails 2 "use -fa 1" bench -fa off,0 -p 1
    fails 2 "one of: none md csv json jsonl sql" bench -oe xml -p 1
    fails 2 "from 0 to 86400" bench --delay -1 -p 1
    fails 2 "drop -pg and -d" bench -npl 2 -d 4
    fails 2 "drop -p 0" bench -npl 2 -p 0
    fails 2 "drop one of them" bench --shape llama-3.1-8b -m x.gguf
    fails 2 "there is no shape 'llama-9'" bench --shape llama-9
    fails 2 "name one with --shape" bench --layers 1
    fails 2 "add --real, or drop -f" bench -f x
    fails 2 "add --real, or drop the sampling options" bench --temp 0
    fails 2 "add --real, or drop the sampling options" bench --top-k 3
    fails 2 "drop one of them" bench --ceilings --verify 3
    fails 2 "drop one of them" bench --compare a b --profile
    fails 2 "unexpected argument 'x'" bench x
    fails 2 "-ngl 3" bench -ngl 3 --device auto
    fails 3 "nosuch.gguf" bench -m nosuch.gguf
    fails 2 "the arguments are two files" bench --compare x
    fails 1 "nosuch.jsonl" bench --compare nosuch.jsonl x
    echo '{' >"$T/bad"
    fails 1 "line 1 is not JSON" bench --compare "$T/bad" "$T/bad"
    result 'llama 8B Q4_0' 512 0 1 >"$T/a"
    result 'llama 8B Q4_0' 256 0 1 >"$T/b"
    fails 1 "no model and test in common" bench --compare "$T/a" "$T/b"
    : >"$T/empty"
    fails 1 "there are no results" bench --compare "$T/a" "$T/empty"
}

@test "bench: the pairs of -ctk and -ctv of one type have rows, and so have the values of -fa that exist" {
    bench -p 4 -n 0 -r 1 --no-warmup -ctk f16,q8_0 -ctv q8_0,f32,f16 -o jsonl
    asserts "$status/$(rows '[(x["type_k"], x["type_v"]) for x in d]')" = "0/[('f16', 'f16'), ('q8_0', 'q8_0')]"
    asserts "$stderr" = "zgen: warning: keys and values are kept in one type: 2 of the 6 pairs of -ctk and -ctv have rows"
    bench -p 4 -n 0 -r 1 --no-warmup -ctk f16,q8_0 -ctv f16,q8_0 -fa 0,1 -o jsonl
    asserts "$status/$(rows '[(x["type_k"], x["flash_attn"]) for x in d]')" = "0/[('f16', 1), ('q8_0', 1)]"
    asserts "$(wc -l <<<"$stderr")/${stderr##*$'\n'}" = "2/zgen: warning: keys and values are kept in one type: 2 of the 4 pairs of -ctk and -ctv have rows"
    [[ "$stderr" == *"-fa 0: there is one attention"* ]]
    bench -p 4 -n 0 -r 1 --no-warmup -fa on,auto,1 -o jsonl
    asserts "$status/$stderr/$(rows 'len(d)')" = "0//1"
}

@test "bench: SQL makes a database of llama-bench's keys, and stderr takes a format of its own" {
    bench -p 4,8 -n 2 -o sql -oe jsonl
    asserts "$status" = 0
    printf '%s\n' "$output" >"$T/sql"
    output=$stderr
    asserts "$(rows 'len(d)')" = 3
    printf '%s\n' "$stderr" >"$T/jsonl"
    python3 - "$T/sql" "$T/jsonl" "$keys" <<'END'
import json, sqlite3, sys
base = sqlite3.connect(":memory:")
base.executescript(open(sys.argv[1]).read())
base.executescript(open(sys.argv[1]).read()) # a second run of the same script
rows = base.execute("select * from llama_bench")
names = [x[0] for x in rows.description]
rows = rows.fetchall()
assert names == sys.argv[3].split(), names
assert len(rows) == 6
for row, line in zip(rows, open(sys.argv[2])):
    for name, value in zip(names, row):
        wanted = json.loads(line)[name]
        assert value == wanted or abs(value - wanted) < 1e-5 * wanted + 1e-6, (name, value, wanted)
END
    bench -p 4 -n 0 -o none -oe json
    asserts "$status/$output" = "0/"
    python3 -c 'import json, sys; assert len(json.loads(sys.argv[1])) == 1' "$stderr"
    bench -p 4 -n 0 -oe none
    [[ "$status" = 0 && -z "$stderr" && "$output" == "| model"* ]]
}

@test "bench: --delay rests before each test, and ends at a signal" {
    local begun=$EPOCHREALTIME
    bench -p 4,8 -n 0 -r 1 --no-warmup --delay 1
    asserts "$status" = 0
    python3 -c 'import sys; assert 2 < float(sys.argv[2]) - float(sys.argv[1])' "$begun" "$EPOCHREALTIME"
    run timeout --preserve-status -s INT 0.5 "$ZGEN" bench -p 4 -n 0 -t 1 --device cpu --delay 1000
    asserts "$status" = 130
}
