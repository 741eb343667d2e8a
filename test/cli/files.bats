#!/usr/bin/env bats
# Files that are not what they seem, and models that do not fit: what every command says about them.
load helper

# makes OUT PROGRAM ARGUMENT...: writes the model m, made by lines of Python, with sys.argv[2:] the arguments.
makes() {
    local out=$1 program=$2
    shift 2
    PYTHONPATH=test/hostile python3 -B -c "import sys
from gguf_file import *
$program
open(sys.argv[1], 'wb').write(write_model(m))" "$out" "$@"
}

@test "what is no language model is told by every command that needs one" {
    makes "$T/adapter.gguf" 'm = {"magic": b"GGUF", "version": 3,
     "keys": {"general.type": (STRING, "adapter"), "general.architecture": (STRING, "llama")},
     "tensors": {"blk.0.attn_q.weight.lora_a": {"dims": [32], "type": Q8_0, "data": bytes(34)}}}'
    local command
    for command in "-p x" "chat" "logits --ids 1 -o /dev/null" "tokenize -p x" "perplexity -f README.md" "bench"; do
        # shellcheck disable=SC2086
        fails 3 "this file is an adapter" $command -m "$T/adapter.gguf"
    done
    zgen info "$T/adapter.gguf"
    [[ "$status" = 0 && "$output" == *"runs           no: "*"this file is an adapter"* ]]
}

# with_tokenizer MODEL ARCHITECTURE: the tiny model with these words in place of its own, in $T/other.gguf
with_tokenizer() {
    makes "$T/other.gguf" 'm = read_model(sys.argv[2])
m["keys"]["tokenizer.ggml.model"] = (STRING, sys.argv[3])
m["keys"]["general.architecture"] = (STRING, sys.argv[4])' "$tiny" "$1" "$2"
}

@test "an unknown tokenizer: what works without one, if anything does" {
    with_tokenizer rwkv rwkv7
    fails 3 "the architecture 'rwkv7' is not supported" -m "$T/other.gguf" -p x
    fails 3 "tokenizer 'rwkv' is not supported" tokenize -m "$T/other.gguf" -p x
    [[ "$stderr" != *"logits"* ]]
    with_tokenizer bert llama
    fails 3 "tokenizer 'bert' is not supported (llama, gpt2, gemma4 and t5 are); info and logits --ids work" -m "$T/other.gguf" -p x
    zgen logits -m "$T/other.gguf" --ids 1,2 -o /dev/null
    asserts "$status" = 0
}

@test "ranges of activations beside NVFP4 change no logits" {
    local model=test/data/models/llama-s-NVFP4.gguf
    makes "$T/ranges.gguf" 'm = read_model(sys.argv[2])
names = [n[:-7] for n, t in m["tensors"].items() if t["type"] == NVFP4]
assert len(names) > 10
for n in names: m["tensors"][n + ".input_scale"] = {"dims": [1], "type": 0, "data": struct.pack("<f", 0.37)}' $model
    "$ZGEN" logits -m $model --ids 1,5,9 -o "$T/without" </dev/null
    "$ZGEN" logits -m "$T/ranges.gguf" --ids 1,5,9 -o "$T/with" </dev/null
    cmp "$T/without" "$T/with"
}

@test "a file whose tail never arrived" {
    local size
    size=$(stat -c %s models/stories-q8_0.gguf)
    cp models/stories-q8_0.gguf "$T/cut.gguf"
    chmod +w "$T/cut.gguf"
    truncate -s $((size / 2)) "$T/cut.gguf"
    truncate -s "$size" "$T/cut.gguf"
    local zero="warning: $T/cut.gguf: 22 of 43 matrices are all zero, the first is 'blk.2.ffn_up.weight'; the file is incomplete"
    local command
    for command in "-m $T/cut.gguf -p x -n 1" "info $T/cut.gguf" "quantize $T/cut.gguf $T/out.gguf Q4_0 --requantize"; do
        # shellcheck disable=SC2086
        zgen $command
        [[ "$status" = 0 && "$stderr" == *"$zero"* ]] || { echo "$command: $stderr"; false; }
    done
    zgen -m models/stories-q8_0.gguf -p x -n 1
    asserts "$stderr" = ""
}

@test "weights that are larger than the memory do not fit" {
    makes "$T/large.gguf" 'import re
kib = int(re.search(r"MemTotal: *(\d+)", open("/proc/meminfo").read())[1])
E, F, V = 8192, 65536, 1024
n_layer = kib * 1024 * 3 // (3 * E * F * 4) + 1
k = "llama."
m = {"magic": b"GGUF", "version": 3, "keys": {"general.architecture": (STRING, "llama"), **{k + name: (U32, v) for name, v in (
    ("block_count", n_layer), ("embedding_length", E), ("context_length", 4096), ("feed_forward_length", F),
    ("attention.head_count", 64), ("attention.head_count_kv", 8), ("rope.dimension_count", 128))},
    k + "attention.layer_norm_rms_epsilon": (F32, 1e-5)}, "tensors": {}}
at = 0
def tensor(name, *dims):
    global at
    m["tensors"][name + ".weight"] = t = {"dims": dims, "type": 0, "data": b"", "offset": at}
    at += n_bytes(t)
tensor("token_embd", E, V)
tensor("output_norm", E)
for i in range(n_layer):
    for name, *dims in (("attn_norm", E), ("attn_q", E, E), ("attn_k", E, 1024), ("attn_v", E, 1024), ("attn_output", E, E),
                        ("ffn_norm", E), ("ffn_gate", E, F), ("ffn_up", E, F), ("ffn_down", F, E)):
        tensor("blk.%d.%s" % (i, name), *dims)
m["tail"] = b""
sys.stdout.write(str(at))' >"$T/bytes"
    truncate -s "+$(cat "$T/bytes")" "$T/large.gguf" || skip "the file system has no sparse files of this size"
    zgen info "$T/large.gguf" --device cpu
    [[ "$status" = 0 && "$output" == *$'\nfits           no: parts of the weights would be read from the disk for every token; -c '*" take a smaller type of weights"* ]] || { echo "$output $stderr"; false; }
    zgen info "$T/large.gguf" --device cpu --json
    asserts "$(field 'd["memory"]["fits"], d["memory"]["n_ctx_that_fits"], d["memory"]["weights"] > 2 * d["memory"]["free"]')" = "(False, 0, True)"
}

@test "a context longer than the trained length: one warning of every command with -c" {
    local command
    for command in "-p x -n 1" "chat" "info" "info --json" "logits --ids 1 -o /dev/null" "perplexity -f README.md --chunks 1"; do
        # shellcheck disable=SC2086
        zgen $command -c 513 -q
        asserts "$status/$(grep -c "^zgen: warning: a .* of 513 tokens exceeds the 512 that the model was trained with" <<<"$stderr")" = 0/1
        # shellcheck disable=SC2086
        zgen $command -c 512 -q
        asserts "$status/$stderr" = 0/
    done
    zgen logits --ids "$(seq -s, 513)" -o /dev/null
    [[ "$stderr" == *"a context of 513 tokens exceeds the 512"* ]]
}
