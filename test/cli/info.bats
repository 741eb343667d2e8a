#!/usr/bin/env bats
# zgen info, also for files that zgen cannot run.
load helper

# edited FROM TO: the tiny model with bytes exchanged, in $T/edited.gguf
edited() {
    python3 - "$tiny" "$T/edited.gguf" "$1" "$2" <<'END'
import os, sys
data, old, new = open(sys.argv[1], "rb").read(), os.fsencode(sys.argv[3]), os.fsencode(sys.argv[4])
assert len(old) == len(new) and old in data
open(sys.argv[2], "wb").write(data.replace(old, new))
END
}

@test "the demo model" {
    zgen info
    [ "$status" = 0 ]
    for word in "architecture   llama" "5246208 parameters" "Q8_0 " "2048 tokens" "BOS 1 '<s>'" "memory " "runs           yes"; do
        [[ "$output" == *"$word"* ]] || { echo "$word is missing"; false; }
    done
}

@test "a model as an argument or by -m, as text and as JSON" {
    zgen info "$tiny"
    local text=$output
    zgen info -m "$tiny"
    asserts "${text%%memory*}" = "${output%%memory*}" # what is free changes
    zgen info "$tiny" --json
    asserts "$(field 'd["architecture"], d["hparams"]["block_count"], d["tokenizer"]["tokens"], d["types"], d["runs"], d["version"], d["shards"]')" = \
        "('llama', 3, 328, {'F32': {'tensors': 30, 'bytes': $(field 'd["types"]["F32"]["bytes"]')}}, True, 3, 1)"
    asserts "$(field 'd["bytes"]')" = "$(stat -c %s "$tiny")"
    # A page of 64 positions beside those of the context takes what is written to none.
    asserts "$(field 'd["memory"]["kv"] == d["memory"]["kv_per_position"] * (d["memory"]["n_ctx"] + 64) > 0')" = True
}

@test "layers of multi-token prediction are named and not run" {
    zgen info test/data/models/glm4moe-mtp-Q4_0.gguf
    [[ "$output" == *"layers         2; 1 more, for guesses of further tokens (nextn), is not run"* ]]
    [[ "$output" == *"runs           yes"* ]]
    zgen info "$tiny"
    [[ "$output" != *nextn* ]]
}

# unigram: a file with only a unigram tokenizer of byte tokens, in $T/unigram.gguf
unigram() {
    python3 - "$T/unigram.gguf" <<'END'
import struct, sys
def string(s): return struct.pack("<Q", len(s)) + s.encode()
def text(key, value): return string(key) + struct.pack("<I", 8) + string(value)
def array(key, type, items): return string(key) + struct.pack("<IIQ", 9, type, len(items)) + b"".join(items)
tokens = [string("<unk>")] + [string("<0x%02X>" % b) for b in range(256)]
types, scores = [struct.pack("<i", 6 if i else 2) for i in range(257)], [struct.pack("<f", 0)] * 257
keys = [text("general.architecture", "gamma"), text("tokenizer.ggml.model", "t5"), array("tokenizer.ggml.tokens", 8, tokens),
        array("tokenizer.ggml.token_type", 5, types), array("tokenizer.ggml.scores", 6, scores)]
open(sys.argv[1], "wb").write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys))
END
}

@test "a vocabulary without tensors is told for what it is" {
    unigram
    sed -i 's/gamma/llama/' "$T/unigram.gguf"
    fails 3 "this file has no tensors: it is a vocabulary" -m "$T/unigram.gguf" -p hi
}

# tokenizer_of FILE: the tokenizer in the text and the JSON of info
tokenizer_of() {
    zgen info "$1"
    printf '%s\n' "$output" | grep -o '^tokenizer .* tokens'
    zgen info "$1" --json
    field 'd["tokenizer"]["model"], d["tokenizer"]["pre"]'
}

@test "the kind of tokenizer, as text and as JSON" {
    unigram
    asserts "$(tokenizer_of "$tiny")" = $'tokenizer      SentencePiece style, 328 tokens\n(\'llama\', None)'
    asserts "$(tokenizer_of test/data/tokenizer/bpe-1000.gguf)" = \
        $'tokenizer      byte-level BPE, pre-tokenizer gpt-2, 1000 tokens\n(\'gpt2\', \'gpt-2\')'
    asserts "$(tokenizer_of "$T/unigram.gguf")" = $'tokenizer      SentencePiece unigram, 257 tokens\n(\'t5\', None)'
}

@test "memory: what a position costs, and what the windows of a sequence do" {
    zgen info test/data/models/gemma3-Q4_0.gguf --device cpu -c 4096
    [[ "$output" == *"(f16, 128 bytes per position; windows of a sequence 0.3 MB)"* ]]
    zgen info test/data/models/gemma3-Q4_0.gguf --device cpu -c 4096 --json
    asserts "$(field '[d["memory"][k] for k in ("kv_per_position", "kv_of_windows", "kv_of_states")]')" = "[128, 294912, 0]"
}

@test "memory: what generate needs, whether it fits, and the context that would" {
    zgen info --device cpu -t 2 --json
    asserts "$(field '[d["memory"][k] for k in ("executor", "n_ctx", "kv_per_position", "weights", "fits")]')" = "['cpu', 512, 3072, 5570560, True]"
    local scratch limit
    scratch=$(field 'd["memory"]["scratch"]')
    limit=$(field 'd["memory"]["n_ctx_that_fits"]')
    zgen info --device cpu --json --kv f32 -c $((limit * 2)) -t 1
    asserts "$(field '[d["memory"][k] for k in ("kv_per_position", "fits")]')" = "[6144, False]"
    asserts "$(field '2 * d["memory"]["n_ctx_that_fits"] < '"$limit + $limit / 10")" = True
    zgen info --device cpu -t 1 --json # each thread has the same scratch, beside that of all
    local one
    one=$(field 'd["memory"]["scratch"]')
    zgen info --device cpu -t 3 --json
    asserts "$(field "d['memory']['scratch'] - $scratch == $scratch - $one > 0")" = True
    zgen info --device cpu -c $((limit * 2))
    [[ "$status" = 0 && "$output" == *$'\nfits           no; -c '[0-9]*" would fit"* ]]
    zgen info --device cpu
    [[ "$output" == *"memory         cpu, context of 512 tokens: weights 5.6 MB in the file"*"; free are "*$'\nfits           yes, as does any context up to '[0-9]*" tokens"* ]]
}

@test "memory of a device that is missing" {
    zgen info --device cuda
    [ "$status" != 0 ] || skip "there is a GPU"
    fails 1 "--device cuda: " info --device cuda
    fails 1 "--device cuda:7: " info --device cuda:7 --json
    zgen info --device cpu
    asserts "$status" = 0
}

@test "the digest of the chat template is that of sha256sum" {
    zgen info --json --keys
    field 'd["metadata"]["tokenizer.chat_template"]' | head -c -1 >"$T/template"
    asserts "$(field 'd["chat_template"]["sha256"]')" = "$(sha256sum <"$T/template" | cut -d' ' -f1)"
    asserts "$(field 'd["chat_template"]["bytes"]')" = "$(stat -c %s "$T/template")"
}

@test "--keys lists all metadata" {
    zgen info --keys
    local keys
    keys=$(echo "$output" | sed -n 's/^metadata *\([0-9]*\) keys$/\1/p')
    asserts "$(echo "$output" | sed '1,/^metadata/d' | wc -l)" = "$keys"
    [[ "$output" == *"tokenizer.ggml.tokens"* ]]
}

@test "--plan prints the tape, a line per operation" {
    zgen info --plan
    [ "$status" = 0 ]
    [[ "$output" == *"EMBED"* && "$output" == *"ATTN"* && "$output" == *"LOGITS"* && "$output" == *"SAMPLE"* && "$output" == *" bytes"* ]]
    local text=$output
    zgen info --plan --device cpu
    asserts "$output" = "$(cat test/data/plan/stories-q8_0.cpu.txt)"
    zgen info --plan --device cuda # needs no GPU
    asserts "$output" = "$(cat test/data/plan/stories-q8_0.cuda.txt)"
    zgen info --plan --json
    asserts "$(field 'd["plan"].rstrip("\n")')" = "$text"
}

@test "an architecture that is not supported" {
    edited llama gamma
    zgen info "$T/edited.gguf"
    [[ "$status" = 0 && "$output" == *"architecture   gamma"* && "$output" == *"runs           no: "* ]]
    zgen info "$T/edited.gguf" --json
    asserts "$(field 'd["runs"], d["memory"], d["hparams"]["block_count"]')" = "(False, None, 3)"
    fails 3 "gamma" info "$T/edited.gguf" --plan
    fails 3 "gamma" -m "$T/edited.gguf" -p x
}

@test "names with control characters or bidirectional marks are escaped" {
    local name
    name=$(python3 - "$tiny" <<'END'
import os, sys
data = open(sys.argv[1], "rb").read()
at = data.index(b"general.name") + 12 + 4
n = int.from_bytes(data[at:at + 8], "little")
print(data[at + 8:at + 8 + n].decode())
END
)
    asserts "${#name}" -ge 7
    local evil=$'\e[2J\xe2\x80\xae'"${name:7}"
    edited "$name" "$evil"
    zgen info "$T/edited.gguf" --keys
    [ "$status" = 0 ]
    [[ "$output" != *$'\e'* && "$output" != *$'\xe2\x80\xae'* && "$output" == *'u{202e}'* ]]
    fails 3 'x1b' info $'/nonexistent/\e[2J'
    fails 3 'nonexistent/\u{202e}' info $'/nonexistent/\xe2\x80\xae'
    local place="$T/"$'\e[2J\xe2\x80\xae.gguf' # the user's own, and a token's
    cp "$tiny" "$place"
    zgen info "$place"
    [[ "$status" = 0 && "$output" != *$'\e'* && "$output" != *$'\xe2\x80\xae'* && "$output" == *'\x1b[2J\u{202e}.gguf'* ]]
    zgen tokenize -p $'\e'
    [[ "$output" != *$'\e'* && "$output" == *"-> '\\x1b'"* ]]
}

@test "a malformed file is exit 3" {
    head -c 1000 "$tiny" >"$T/cut.gguf"
    fails 3 "cut.gguf" info "$T/cut.gguf"
    echo "<html>" >"$T/page.gguf"
    fails 3 "page.gguf" info "$T/page.gguf"
    mkfifo "$T/fifo"
    fails 3 "fifo" info "$T/fifo"
}

@test "a stale number of tokens is a warning" {
    python3 - "$tiny" "$T/stale.gguf" <<'END'
import struct, sys
data, key = open(sys.argv[1], "rb").read(), b"llama.vocab_size" + struct.pack("<I", 4)
at = data.index(key) + len(key)
rows, = struct.unpack_from("<I", data, at)
open(sys.argv[2], "wb").write(data[:at] + struct.pack("<I", rows - 1) + data[at + 4:])
END
    zgen -m "$tiny" -p a -n 4 --temp 0 --ignore-eos
    local text=$output
    zgen -m "$T/stale.gguf" -p a -n 4 --temp 0 --ignore-eos
    asserts "$status/$output" = "0/$text"
    asserts "$(grep -c 'vocab_size is 327, but token_embd.weight has 328 rows' <<<"$stderr")" = 1
}
