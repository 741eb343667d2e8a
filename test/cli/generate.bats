#!/usr/bin/env bats
# Generated text: correct, reproducible, of the right length.
load helper

norway="<|user|>What is the capital of Norway?<|end|><|assistant|>"

@test "greedy texts of the demo model agree with the exact model" {
    # Texts may differ from the first step on whose margin is below 0.5, which 8-bit activations can decide.
    ZGEN=$ZGEN python3 - <<'END'
import json, os, subprocess
cases = json.load(open("test/data/models/stories.golden.json"))["cases"]
whole = 0
for c in cases:
    out = subprocess.run([os.environ["ZGEN"], "-p", c["prompt"], "--temp", "0", "--json"], stdin=subprocess.DEVNULL,
                         capture_output=True, check=True).stdout
    d = json.loads(out)
    assert d["prompt_ids"] == c["ids"], c["prompt"]
    ours, golden = d["ids"] + ["end"], c["greedy"] + ["end"]
    assert d["finish_reason"] == "stop", c["prompt"]
    step = next((i for i, (a, b) in enumerate(zip(ours, golden)) if a != b), None)
    if step is None:
        assert d["text"] == c["text"], (d["text"], c["text"])
        whole += 1
    else:
        assert c["margins"][step] < 0.5, (c["prompt"], step, c["margins"][step])
print(whole, "of", len(cases), "texts are whole")
assert whole >= 12 and len(cases) == 18  # those that answer questions have wide margins
END
}

@test "the exact kernels agree too, with f32 keys and values" {
    zgen -p "$norway" --temp 0 --isa scalar --kv f32
    asserts "$status/$output" = "0/ The capital of Norway is Oslo."
    zgen -p "$norway" --temp 0 --isa scalar --json
    asserts "$(field 'd["isa"], d["act"]')" = "('scalar', 'f32')"
    zgen -p "$norway" --temp 0 --isa scalar --act q8 --json
    asserts "$(field 'd["act"], d["text"]')" = "('q8', ' The capital of Norway is Oslo.')"
}

@test "keys and values in every type, and how much memory they take" {
    # The cache is pages of 64 positions: those of the context, and one more.
    for kv in f16=2 f32=4 q8_0=1.0625 fp8=1; do
        zgen -p "$norway" --temp 0 --kv ${kv%=*} -c 256 --device cpu --json
        asserts "$(field 'd["kv"], d["text"], d["memory"]["kv"]')" = \
            "('${kv%=*}', ' The capital of Norway is Oslo.', $(python3 -c "print(round(6 * 2 * 128 * (256 + 64) * ${kv#*=}))"))"
    done
}

@test "weights converted to fp8 at load" {
    zgen -p "$norway" --temp 0 --weights fp8 --device cpu --json
    asserts "$(field 'd["weights"], d["text"], d["memory"]["weights"]')" = \
        "('fp8', ' The capital of Norway is Oslo.', 5242880)"
    zgen quantize test/data/models/llama-tied-F16.gguf "$T/fp8.gguf" FP8
    zgen logits -m "$T/fp8.gguf" --ids 1,5,9,17 -o "$T/file"
    zgen logits -m test/data/models/llama-tied-F16.gguf --weights fp8 --ids 1,5,9,17 -o "$T/load"
    cmp "$T/file" "$T/load"
    zgen info --weights fp8 --plan
    [[ "$output" == *FP8_E4M3* && "$output" != *Q8_0* ]]
    fails 2 'none would become smaller' -m test/data/models/llama-Q4_0.gguf -p x --weights fp8
    fails 2 'one of: file fp8' -p x --weights f8
}

@test "same seed, same bytes, whatever the threads" {
    for t in 1 2 3; do "$ZGEN" -p "Once upon" -s 42 -n 60 -t $t >"$T/$t" </dev/null; done
    cmp "$T/1" "$T/2"
    cmp "$T/1" "$T/3"
    asserts "$(wc -c <"$T/1")" -gt 60
    "$ZGEN" -p "Once upon" -s 43 -n 60 >"$T/other" </dev/null
    run ! cmp -s "$T/1" "$T/other"
}

@test "twenty runs, one text" {
    for _ in $(seq 20); do "$ZGEN" -p "Once upon" -s 42 -n 20 </dev/null | sha256sum; done | sort -u >"$T/sums"
    asserts "$(wc -l <"$T/sums")" = 1
}

@test "a drawn seed is printed and gives the same text again; two draws differ" {
    zgen -p "Once upon" -n 20 --json
    local seed text first=$output
    seed=$(field 'd["seed"]') text=$(field 'd["text"]')
    zgen -p "Once upon" -n 20 --json -s "$seed"
    asserts "$(field 'd["text"]')" = "$text"
    zgen -p "Once upon" -n 1 --json
    asserts "$(field 'd["seed"]')" != "$seed"
}

@test "a seed of 64 bits is printed exactly" {
    zgen -p "Once" -n 1 --json -s 18446744073709551615
    asserts "$(field 'd["seed"]')" = 18446744073709551615
}

@test "-n 0 generates nothing, -n counts tokens" {
    zgen -p "Once" -n 0
    asserts "$status/$output" = "0/"
    zgen -p "Once" -n 0 --json
    asserts "$(field 'd["finish_reason"], d["ids"], d["text"]')" = "('length', [], '')"
    for n in 1 2 17; do
        zgen -p "Once" -n $n --json --ignore-eos
        asserts "$(field 'd["finish_reason"], len(d["ids"])')" = "('length', $n)"
    done
}

@test "a full context ends the text with reason length, -1 and -2 alike" {
    for n in -1 -2 1000; do
        zgen -p "Once upon a time" -n $n -c 16 --json --ignore-eos
        asserts "$status/$(field 'd["finish_reason"], d["n_ctx"], d["counts"]["prompt"] + d["counts"]["generated"]')" = "0/('length', 16, 16)"
    done
    zgen -p "Once upon a time" -c 16 --ignore-eos -v
    [[ "$stderr" == *"the context of 16 tokens is full"* ]]
}

@test "the context: trained length, -c, as much as prompt and -n need" {
    zgen -p "Once" -n 1 --json
    asserts "$(field 'd["n_ctx"]')" = 512
    zgen -p "Once" -n 1 --json -c 0
    asserts "$(field 'd["n_ctx"]')" = 512
    zgen -p "Once" -n 1 --json -c 700
    asserts "$(field 'd["n_ctx"]')" = 700
    zgen -p "Once" -n 600 --json --stop "." # no further than it was trained, unless -c says so
    asserts "$(field 'd["n_ctx"]')" = 512
}

@test "a prompt longer than the context is an error with both numbers" {
    fails 1 "5 tokens, but the context holds 5" -p "Once upon a time" -c 5
    zgen -p "Once upon a time" -c 6 --json --ignore-eos
    asserts "$(field 'd["counts"]["generated"], d["finish_reason"]')" = "(1, 'length')"
    python3 -c 'print("word " * 600)' >"$T/long"
    fails 1 "but the context holds 512" -f "$T/long"
    truncate -s 100M "$T/nuls"
    fails 1 "but the context holds 512" -f "$T/nuls"
    truncate -s 3G "$T/huge"
    fails 1 "larger than 2 GiB" -f "$T/huge"
}

@test "memory: an absurd context names the parts and one that fits" {
    fails 4 "keys and values 6144.00 GB" -p x --device cpu -c 2000000000
    for part in weights registers scratch "free are"; do [[ "$stderr" == *"$part "[0-9]* ]] || { echo "$part is missing"; false; }; done
    local fitting=${stderr##*-c }
    fitting=${fitting%% *}
    [[ "$fitting" =~ ^[0-9]+$ ]]
    zgen -p x -n 1 --device cpu -c $((fitting / 2))
    asserts "$status" = 0
    fails 4 "would fit" -p x -n 1 --device cpu -c $((fitting * 2))
}

@test "memory: the type of the cache that would fit" {
    fails 4 "would fit" -p x --device cpu -c 2000000000 --kv f32
    local fitting=${stderr##*-c }
    fitting=${fitting%% *}
    fails 4 " or --kv f16 would fit" -p x --device cpu -c $((fitting * 4 / 3)) --kv f32
    fails 4 "would fit" -p x --device cpu -c $((fitting * 4)) --kv f32
    [[ "$stderr" != *"--kv"* ]]
}

@test "memory: printed before loading, as a notice and in JSON" {
    zgen -p "Once" -n 1 --device cpu -c 4000 -v --json
    [[ "$stderr" == *"cpu, context of 4000 tokens: weights 5.6 MB in the file, keys and values 12.6 MB (f16, 3072 bytes per position), registers "*"; free are "* ]]
    asserts "$(field 'd["memory"]["kv"], sorted(d["memory"])')" = \
        "(12582912, ['executor', 'free', 'kv', 'registers', 'scratch', 'weights'])"
    local generated
    generated=$(field 'd["memory"]["kv"], d["memory"]["registers"], d["memory"]["scratch"], d["memory"]["weights"]')
    zgen info --device cpu -c 4000 --json
    asserts "$(field 'd["memory"]["kv"], d["memory"]["registers"], d["memory"]["scratch"], d["memory"]["weights"]')" = "$generated"
}

@test "stop strings cut exactly, also in the middle of tokens" {
    zgen -p "$norway" --temp 0 --stop "is Os"
    asserts "$status/$output" = "0/ The capital of Norway "
    zgen -p "$norway" --temp 0 --stop "nothing like it" -r "apit" --stop "Oslo"
    asserts "$output" = " The c"
    zgen -p "$norway" --temp 0 --stop "Oslo!" # begins, but is not it
    asserts "$output" = " The capital of Norway is Oslo."
    zgen -p "$norway" --temp 0 --stop "Norway" --json
    asserts "$(field 'd["text"], d["finish_reason"]')" = "(' The capital of ', 'stop')"
}

@test "--ignore-eos continues after the answer" {
    zgen -p "$norway" --temp 0 --ignore-eos -n 30 --json
    asserts "$(field 'len(d["ids"]), d["finish_reason"], d["sampling"]["ignore_eos"], set(d["ids"]) & {2, 6}')" = "(30, 'length', True, set())"
}

@test "a prompt from -p, a file and stdin is the same prompt" {
    printf 'Once upon\na time\n' >"$T/prompt"
    local want="[1, 505, 506, 2001, 1975, 451]"
    zgen -p 'Once upon\na time' -n 0 --json
    want=$(field 'd["prompt_ids"]')
    zgen -f "$T/prompt" -n 0 --json
    asserts "$(field 'd["prompt_ids"]')" = "$want"
    for arguments in "" "-f -" "-p -"; do
        output=$("$ZGEN" -n 0 --json $arguments <"$T/prompt")
        asserts "$(field 'd["prompt_ids"]')" = "$want"
    done
    zgen -p 'a\n' --no-escape -n 0 --json
    asserts "$(field 'd["prompt"]')" = 'a\n'
    printf 'a\\n\n\n' >"$T/prompt"
    zgen -f "$T/prompt" -n 0 --json
    asserts "$(field 'repr(d["prompt"])')" = "'a\\\\n\\n'" # no escapes in files; one newline is dropped
}

@test "stdin is not touched when there is a prompt" {
    output=$( (
        "$ZGEN" -p x -n 0
        cat
    ) <<<"left alone")
    asserts "$output" = "left alone"
}

@test "an empty prompt" {
    zgen -p "" -n 3 --temp 0 --json
    asserts "$status/$(field 'd["prompt_ids"], len(d["ids"])')" = "0/([1], 3)"
    : >"$T/empty"
    zgen -f "$T/empty" -n 1
    asserts "$status" = 0
    fails 2 "no prompt"
}

@test "special tokens in a prompt are parsed, a BOS is not doubled" {
    zgen -p "<s>Once upon a time" -n 0 --json
    asserts "$(field 'd["prompt_ids"]')" = "[1, 505, 506, 265, 451]"
    zgen -p "<|user|>" -n 0 --json
    asserts "$(field 'd["prompt_ids"]')" = "[1, 4]"
}

@test "bytes that are not UTF-8 are replaced, with a warning; NULs are text" {
    printf 'Once \xff upon' >"$T/prompt"
    zgen -f "$T/prompt" -n 1 --json
    [[ "$status" = 0 && "$stderr" == *warning* ]]
    asserts "$(field '"\ufffd" in d["prompt"]')" = True
    printf 'Once\0upon' >"$T/prompt"
    zgen -f "$T/prompt" -n 1 --json
    asserts "$status/$(field 'd["prompt"]' | od -An -c | tr -d ' \n')" = '0/Once\0upon\n'
}

@test "--echo puts the prompt before the text" {
    zgen -p "$norway" --temp 0 --echo
    asserts "$output" = "$norway The capital of Norway is Oslo."
}

@test "JSON agrees with itself" {
    zgen -p "Once upon a time" -n 25 -s 3 --json --logprobs 4 --device cpu
    [ -z "$stderr" ]
    asserts "$(field '(d["counts"] == {"prompt": len(d["prompt_ids"]), "generated": len(d["ids"])}
        and d["prompt"] == "Once upon a time" and d["seed"] == 3 and d["timings"]["prompt"]["n"] == 5
        and d["timings"]["decode"]["n"] == len(d["ids"]) - 1 and d["timings"]["load_s"] > 0
        and [p["id"] for p in d["logprobs"]] == d["ids"] and all(len(p["top"]) == 4 for p in d["logprobs"])
        and all(p["logprob"] <= p["top"][0]["logprob"] + 1e-6 for p in d["logprobs"])
        and all(a["logprob"] >= b["logprob"] for p in d["logprobs"] for a, b in zip(p["top"], p["top"][1:]))
        and "".join(p["piece"] for p in d["logprobs"]) == d["text"]
        and bytes(sum((p["bytes"] for p in d["logprobs"]), [])).decode() == d["text"]
        and all(t["piece"].encode() == bytes(t["bytes"]) or len(t["bytes"]) == 1 for p in d["logprobs"] for t in p["top"]))')" = True
    zgen -p "Once" -n 2 --output-format json
    asserts "$(field '"logprobs" in d')" = False
}

@test "greedy takes the token with the best log-probability" {
    zgen -p "Once upon a time" -n 20 --temp 0 --json --logprobs 1
    asserts "$(field 'all(p["id"] == p["top"][0]["id"] for p in d["logprobs"])')" = True
}

@test "penalties and filters change the choice" {
    zgen -p "Once upon a time" -n 30 -s 1 --top-k 1 --json
    local best
    best=$(field 'd["ids"]')
    zgen -p "Once upon a time" -n 30 --temp 0 --json
    asserts "$(field 'd["ids"]')" = "$best"
    zgen -p "a a a a a a" -n 30 --temp 0 --repeat-penalty 100 --repeat-last-n -1 --json --ignore-eos
    asserts "$(field 'len(set(d["ids"])) == len(d["ids"])')" = True
}

@test "each further sampler changes the text of a seed, and is recorded" {
    local plain
    zgen -p "Once upon a time" -n 60 -s 1 --temp 1.5 --json
    plain=$(field 'd["ids"]')
    asserts "$(field '"typical_p" in d["sampling"] or "samplers" in d["sampling"] or "logit_bias" in d["sampling"]')" = False
    while IFS='|' read -r key options; do
        eval "zgen -p 'Once upon a time' -n 60 -s 1 --temp 1.5 --json $options"
        asserts "$(field "d['ids'] != $plain")" = True
        asserts "$(field "'$key' in d['sampling']")" = True
        eval "zgen -p 'Once upon a time' -n 60 -s 1 --temp 1.5 --json -t 1 --verify 60 $options"
        asserts "$(field "d['ids'] != $plain")" = True
    done <<'END'
typical_p|--typical 0.3
top_n_sigma|--top-nsigma 0.5
xtc_probability|--xtc-probability 1
dynatemp_range|--dynatemp-range 1 --dynatemp-exp 0.5
dry_multiplier|--dry-multiplier 5 --dry-allowed-length 0 --dry-sequence-breaker none
mirostat|--mirostat 2 --mirostat-ent 1
logit_bias|--logit-bias cat+20
samplers|--samplers "temp;min-p"
samplers|--sampler-seq tm
END
}

@test "the usual samplers, named, are the usual ones" {
    zgen -p "Once upon a time" -n 40 -s 1 --temp 1.5 --json
    local plain
    plain=$(field 'd["ids"], d["sampling"]')
    zgen -p "Once upon a time" -n 40 -s 1 --temp 1.5 --json --sampler-seq edskypmxt --mirostat 0
    asserts "$(field 'd["ids"], d["sampling"]')" = "$plain"
    zgen -p "Once upon a time" -n 40 -s 1 --temp 1.5 --json --typical 1 --top-n-sigma -1 --xtc-threshold 0.3 --dry-base 2 \
        --samplers "penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature"
    asserts "$(field 'd["ids"], d["sampling"]')" = "$plain"
}

@test "a bias of a token or of a text is added to logits" {
    zgen -p "Once upon a time" -n 20 --temp 0 --json -l 300+1000 --ignore-eos
    asserts "$(field 'set(d["ids"])')" = "{300}"
    asserts "$(field 'd["sampling"]["logit_bias"]')" = "[{'id': 300, 'bias': 1000.0}]"
    zgen -p "Once upon a time" -n 20 --temp 0 --json -l 300+1000 -l 300-400 -l 301+700 --ignore-eos
    asserts "$(field 'set(d["ids"])')" = "{301}"
    zgen -p "Once upon a time" -n 20 --temp 0 --json --ignore-eos
    local first
    first=$(field 'd["ids"][0]')
    zgen -p "Once upon a time" -n 20 --temp 0 --json --ignore-eos -l "$first-inf"
    asserts "$(field "$first in d['ids']")" = False
    zgen -p "Once upon a time" -n 3 --temp 0 --json -l "cat+1000" --ignore-eos
    asserts "$(field 'd["text"]')" = " cat cat cat"
}

@test "mirostat goes on in the same way whatever ran ahead or was kept" {
    zgen -p "Once upon a time" -n 60 -s 3 --json --mirostat 2 --mirostat-ent 2 --mirostat-lr 0.5 --temp 1
    local ids text stop
    ids=$(field 'd["ids"]') text=$(field 'd["text"]')
    zgen -p "Once upon a time" -n 60 -s 3 --json --mirostat 2 --mirostat-ent 2 --mirostat-lr 0.5 --temp 1 --logprobs 1
    asserts "$(field 'd["ids"]')" = "$ids"
    stop=$(field 'd["text"][60:75]')
    zgen -p "Once upon a time" -n 60 -s 3 --mirostat 2 --mirostat-ent 2 --mirostat-lr 0.5 --temp 1 --stop "$stop"
    [[ "$text" == "$output"* ]]
}

@test "control tokens appear in the text with --special only" {
    local prompt="<|user|>Repeat after me: <|user|> <|user|> <|user|>"
    zgen -p "$prompt" --temp 0 --ignore-eos -n 40 --json
    local ids plain
    ids=$(field 'd["ids"]') plain=$(field 'd["text"]')
    zgen -p "$prompt" --temp 0 --ignore-eos -n 40 --json --special
    asserts "$(field 'd["ids"]')" = "$ids"
    [[ "$plain" != *"<|"* ]]
    [[ "$ids" != *" 4,"* && "$ids" != *" 5,"* ]] || [[ "$(field 'd["text"]')" == *"<|"* ]]
}

@test "a model whose tokenizer is not supported is exit 3 for text" {
    python3 - "$tiny" "$T/gpt2.gguf" <<'END'
import sys
data = open(sys.argv[1], "rb").read()
key = b"tokenizer.ggml.model"
at = data.index(key) + len(key) + 4 + 8
assert data[at:at + 5] == b"llama"
open(sys.argv[2], "wb").write(data[:at] + b"gpt-9" + data[at + 5:])
END
    fails 3 "tokenizer 'gpt-9' is not supported" -m "$T/gpt2.gguf" -p x
    zgen info "$T/gpt2.gguf"
    [[ "$status" = 0 && "$output" == *"gpt-9"* ]]
    zgen logits -m "$T/gpt2.gguf" --ids 1,2 -o "$T/out"
    asserts "$status/$(stat -c %s "$T/out")" = "0/$((2 * 328 * 4))"
}
