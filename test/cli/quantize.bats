# zgen quantize: models with weights of another type.
load helper

types="f32 f16 bf16 fp8 q4_0 q4_1 q5_0 q5_1 q8_0 q4_k_s q4_k_m q5_k_s q5_k_m q6_k q2_k q3_k_s q3_k_m q3_k_l iq4_nl iq4_xs tq1_0 tq2_0 mxfp4_moe copy"

@test "every type opens, has the named type, and generates text" {
    for type in $types; do
        zgen quantize "$tiny" "$T/m.gguf" $type
        asserts "$type/$status" = "$type/0"
        zgen -m "$T/m.gguf" -p aaaa --temp 0 -n 3 --ignore-eos --json
        asserts "$type/$status/$(field 'd["counts"]["generated"]')" = "$type/0/3"
        zgen info "$T/m.gguf" --json
        field '" ".join(d["types"])' >>"$T/types"
    done
    diff - "$T/types" <<'END'
F32
F16 F32
BF16 F32
I8 F32
Q8_0 F32 Q4_0
Q8_0 F32 Q4_1
Q8_0 F32 Q5_0
Q8_0 F32 Q5_1
Q8_0 F32
Q8_0 F32 Q5_0 Q5_1
Q8_0 F32 Q5_0
Q8_0 F32 Q5_1
Q8_0 F32 Q5_1
Q8_0 F32
Q8_0 F32 Q4_0
Q8_0 F32 Q4_0
Q8_0 F32 Q4_0 Q5_0 Q5_1
Q8_0 F32 Q4_0 Q5_1
Q8_0 F32 IQ4_NL
Q8_0 F32 IQ4_NL
Q8_0 F32 Q5_0 Q4_0
Q8_0 F32 Q5_0 Q4_0
Q8_0 F32
F32
END
}

@test "rows that are no multiple of a block are said to get another type" {
    zgen quantize "$tiny" "$T/m.gguf" q4_k_m
    [[ "$status" = 0 && "$stderr" == "zgen: warning: 22 of 23 matrices have rows that are no multiple of the blocks of their type (token_embd.weight: 64 weights, Q4_K needs 256) and get another one (Q5_0); the model has "*" bits per weight" ]] || { echo "$stderr"; false; }
    zgen quantize "$tiny" "$T/m.gguf" q4_0
    asserts "$status/$stderr" = "0/"
}

@test "types of single tensors, pure mixes, and what stays as it is" {
    types_of() { "$ZGEN" quantize "$tiny" "$T/m.gguf" "$@" --json 2>/dev/null | python3 -c '
import json, sys
for t in json.load(sys.stdin)["tensors"]:
    if t["name"] in ("token_embd.weight", "output.weight", "blk.0.attn_v.weight", "blk.1.attn_v.weight", "blk.1.ffn_down.weight"):
        print(t["name"].split(".")[-2], t["to"], end=" ")'; }
    asserts "$(types_of q4_0)" = "$(types_of q4_0 --output-tensor-type q8_0)"
    asserts "$(types_of q4_0 --pure)" = "output Q4_0 token_embd Q4_0 attn_v Q4_0 attn_v Q4_0 ffn_down Q4_0 "
    asserts "$(types_of q4_0 --pure --output-tensor-type Q5_1 --token-embedding-type bf16)" = "output Q5_1 token_embd BF16 attn_v Q4_0 attn_v Q4_0 ffn_down Q4_0 "
    asserts "$(types_of q4_0 --leave-output-tensor --tensor-type 'blk\.[1-9].*_v=q8_0' --tensor-type attn_v=iq4_nl)" = "output F32 token_embd Q4_0 attn_v IQ4_NL attn_v Q8_0 ffn_down Q4_0 "
    asserts "$(types_of copy --tensor-type ffn_down=f16)" = "output F32 token_embd F32 attn_v F32 attn_v F32 ffn_down F16 "
    fails 2 "--tensor-type 'attn_v': PATTERN=TYPE is wanted" quantize "$tiny" "$T/m.gguf" q4_0 --tensor-type attn_v
    fails 2 "--tensor-type: 'q9' is no type of a tensor that zgen writes; these are F32 F16 Q4_0" quantize "$tiny" "$T/m.gguf" q4_0 --tensor-type attn_v=q9
    fails 2 "the pattern is no regular expression" quantize "$tiny" "$T/m.gguf" q4_0 --tensor-type 'blk.[=q8_0'
    fails 2 "--output-tensor-type: 'iq2_xxs' is no type" quantize "$tiny" "$T/m.gguf" q4_0 --output-tensor-type iq2_xxs
    fails 2 "--token-embedding-type: 'fp8_e4m3' is no type" quantize "$tiny" "$T/m.gguf" q4_0 --token-embedding-type fp8_e4m3
}

@test "metadata is changed by --override-kv, in the types of converters" {
    zgen quantize "$tiny" "$T/m.gguf" copy --override-kv general.name=str:other,llama.context_length=int:77
    zgen info "$T/m.gguf" --keys
    [[ "$status" = 0 && "$output" == *"general.name"*"other"* && "$output" == *"context_length"*77* ]] || { echo "$output"; false; }
    zgen quantize "$tiny" "$T/n.gguf" copy --override-kv llama.rope.freq_base=float:12345 --override-kv new.key=int:-5
    zgen info "$T/n.gguf" --keys
    [[ "$output" == *"freq_base"*12345* && "$output" == *"new.key"*-5* ]] || { echo "$output"; false; }
    zgen quantize "$tiny" "$T/same.gguf" copy
    asserts "$(stat -c %s "$T/same.gguf")" -ge "$(stat -c %s "$T/m.gguf")" # no number became wider
    fails 2 "cannot replace it" quantize "$tiny" "$T/m.gguf" copy --override-kv general.name=int:3
}

@test "a dry run has the sizes of the run, and writes nothing" {
    zgen quantize "$tiny" "$T/m.gguf" q4_0 --json
    size=$(field 'd["bytes_out"], d["types"]["Q4_0"]["bytes"]')
    rm "$T/m.gguf"
    zgen quantize "$tiny" "$T/m.gguf" q4_0 --json --dry-run
    asserts "$status/$(field 'd["bytes_out"], d["types"]["Q4_0"]["bytes"]')" = "0/$size"
    zgen quantize "$tiny" q4_0 --json --dry-run
    asserts "$status/$(field 'd["out"], d["types"]["Q4_0"]["rmse"]')" = "0/(None, None)"
    [ ! -e "$T/m.gguf" ]
}

@test "a copy has the same tensors and keys" {
    for source in "$tiny" test/data/models/llama-s-Q8_0.gguf; do
        zgen quantize "$source" "$T/m.gguf" copy
        [ "$status" = 0 ]
        zgen -m "$source" -p aaaa -n 8 --temp 0 --ignore-eos
        wanted=$output
        zgen -m "$T/m.gguf" -p aaaa -n 8 --temp 0 --ignore-eos
        asserts "$status/$output" = "0/$wanted"
    done
    zgen quantize "$tiny" "$T/fp8.gguf" fp8
    zgen quantize "$T/fp8.gguf" "$T/m.gguf" copy
    zgen -m "$T/fp8.gguf" -p aaaa -n 8 --temp 0 --ignore-eos
    wanted=$output
    zgen -m "$T/m.gguf" -p aaaa -n 8 --temp 0 --ignore-eos
    asserts "$status/$output" = "0/$wanted"
}

@test "a model is split and merged, and keeps its text" {
    zgen -m "$tiny" -p aaaa -n 8 --temp 0 --ignore-eos
    wanted=$output
    zgen split "$tiny" "$T/s.gguf" --split-max-tensors 12 -v
    [[ "$status" = 0 && "$stderr" == *"s-00001-of-00003.gguf: 3 files, "* ]] || { echo "$stderr"; false; }
    asserts "$(ls "$T" | grep gguf | tr '\n' ' ')" = "s-00001-of-00003.gguf s-00002-of-00003.gguf s-00003-of-00003.gguf "
    zgen -m "$T/s-00002-of-00003.gguf" -p aaaa -n 8 --temp 0 --ignore-eos
    asserts "$status/$output" = "0/$wanted"
    zgen merge "$T/s-00001-of-00003.gguf" "$T/whole.gguf"
    zgen quantize "$tiny" "$T/copy.gguf" copy
    asserts "$status" = 0
    cmp "$T/whole.gguf" "$T/copy.gguf"
    zgen quantize "$T/s-00001-of-00003.gguf" "$T/q" q8_0 --keep-split
    asserts "$status/$(ls "$T" | grep -c '^q-0000[123]-of-00003.gguf$')" = "0/3"
    zgen quantize "$tiny" "$T/q.gguf" q8_0
    zgen merge "$T/q-00003-of-00003.gguf" "$T/q2.gguf"
    cmp "$T/q.gguf" "$T/q2.gguf"
    zgen split "$tiny" "$T/e" --no-tensor-first-split
    [ "$status" = 0 ] && [ "$(stat -c %s "$T/e-00001-of-00002.gguf")" -lt 20000 ] # the metadata alone
    zgen -m "$T/e-00001-of-00002.gguf" -p aaaa -n 8 --temp 0 --ignore-eos
    asserts "$status/$output" = "0/$wanted"
    zgen quantize "$tiny" "$T/m" copy --split-max-size 0.1M
    asserts "$status" = 0
    for f in "$T"/m-0*; do [ "$(stat -c %s "$f")" -lt 130000 ] || { ls -l "$T"; false; }; done
    zgen merge "$T/m-00001-of-"* "$T/m.gguf"
    cmp "$T/m.gguf" "$T/copy.gguf"
}

@test "a wrong split" {
    zgen split "$tiny" "$T/s" --split-max-tensors 12
    fails 2 "is an input of this run" split "$T/s-00001-of-00003.gguf" "$T/s" --split-max-tensors 11
    fails 2 "zgen split IN OUT" split "$tiny"
    fails 2 "zgen merge IN OUT" merge "$tiny" "$T/a" "$T/b"
    fails 2 "--split-max-size 10: a size in megabytes or gigabytes is wanted" split "$tiny" "$T/s" --split-max-size 10
    fails 2 "--split-max-size -1G" split "$tiny" "$T/s" --split-max-size -1G
    fails 2 "exclude each other" quantize "$tiny" "$T/s" q8_0 --split-max-size 1G --keep-split
    mkdir "$T/d"
    run --separate-stderr bash -c "ulimit -f 100; \"$ZGEN\" split $tiny \"$T/d/out\" --split-max-tensors 12"
    [[ "$status" = 5 && "$stderr" == "zgen: cannot write"*"too large"* ]] || { echo "$status $stderr"; false; }
    asserts "$(ls "$T/d")" = ""
}

@test "metadata is that of the source but for the types" {
    keys() { "$ZGEN" info "$1" --keys -q | sed -n '/general\.architecture/,$p' | grep -v 'file_type' | sort; }
    zgen quantize "$tiny" "$T/m.gguf" q8_0
    keys "$tiny" >"$T/before"
    keys "$T/m.gguf" >"$T/after"
    [ "$(wc -l <"$T/before")" -gt 10 ]
    diff <(grep -E '^ *(general|llama|tokenizer)\.' "$T/before") <(grep -E '^ *(general|llama|tokenizer)\.' "$T/after")
}

@test "a line per type on stdout, per tensor with -v, nothing with -q, one object with --json" {
    zgen quantize "$tiny" "$T/m.gguf" q4_0
    [[ "$status/${#lines[@]}/$stderr" = "0/5/" && "${lines[2]}" == "Q4_0 "*" 22 "*" %" ]] || { echo "$output"; false; }
    zgen quantize "$tiny" "$T/m.gguf" q4_0 -v
    [[ "$stderr" == *"blk.2.ffn_down.weight [128, 64] F32 to Q4_0, RMSE 0.0"* && "$stderr" == *"output_norm.weight [64] F32"* ]]
    zgen quantize "$tiny" "$T/m.gguf" q4_0 -q
    asserts "$status/$output$stderr" = "0/"
    zgen quantize "$tiny" "$T/m.gguf" q4_0 --json
    asserts "$(field 'd["type"], len(d["tensors"]), d["types"]["Q4_0"]["tensors"]')" = "('Q4_0', 30, 22)"
    asserts "$(field 'd["bytes_out"]')" = "$(stat -c %s "$T/m.gguf")"
    asserts "$(field 'all((t["rmse"] is None) == (t["from"] == t["to"]) for t in d["tensors"])')" = True
    asserts "$(field '0.05 < d["types"]["Q4_0"]["relative"] < 0.09')" = True
}

@test "a bar is drawn on a terminal only" {
    run on_terminal "$ZGEN" quantize "$tiny" "$T/m.gguf" q4_0
    [[ "$status" = 0 && "$output" == *"quantizing ["* ]]
    run on_terminal "$ZGEN" quantize "$tiny" "$T/m.gguf" q4_0 -q
    asserts "$status/$output" = "0/"
}

@test "the same bytes from 1 and 3 threads" {
    zgen quantize "$tiny" "$T/one" q4_k_m -t 1
    zgen quantize "$tiny" "$T/three" q4_k_m -t 3
    cmp "$T/one" "$T/three"
}

@test "quantised weights are refused without --requantize" {
    fails 2 "quantised already (Q8_0)" quantize test/data/models/llama-s-Q8_0.gguf "$T/m.gguf" q4_0
    [ ! -e "$T/m.gguf" ]
    zgen quantize test/data/models/llama-s-Q8_0.gguf "$T/m.gguf" q4_0 --requantize
    [ "$status" = 0 ]
    zgen quantize test/data/models/llama-s-Q8_0.gguf "$T/m.gguf" q8_0 # which changes nothing
    [ "$status" = 0 ]
    zgen quantize test/data/models/llama-s-MXFP4.gguf "$T/m.gguf" f32 --requantize
    [ "$status" = 0 ]
}

@test "a file is not written over itself" {
    cp "$tiny" "$T/m.gguf"
    ln -s m.gguf "$T/link"
    ln "$T/m.gguf" "$T/same"
    for name in m.gguf link same; do fails 2 "is an input of this run" quantize "$T/m.gguf" "$T/$name" q4_0; done
    cmp "$tiny" "$T/m.gguf"
}

@test "an existing file is replaced when the new one is complete, keeps its mode, and a link stays a link" {
    mkdir "$T/d"
    echo old >"$T/d/out"
    chmod 600 "$T/d/out"
    ln -s out "$T/d/link"
    zgen quantize "$tiny" "$T/d/link" q4_0
    asserts "$status/$(stat -c %a "$T/d/out")" = "0/600"
    [ -L "$T/d/link" ]
    asserts "$(ls "$T/d" | tr '\n' ' ')" = "link out "
    zgen info "$T/d/out"
    [ "$status" = 0 ]
}

@test "damaged values name their tensor, and no file is left" {
    damage
    mkdir "$T/d"
    echo old >"$T/d/out"
    fails 3 "tensor 'blk.2.ffn_up.weight' (F32 to Q4_0) holds a value that is not finite" quantize "$T/nan.gguf" "$T/d/out" q4_0
    asserts "$(ls "$T/d")/$(cat "$T/d/out")" = "out/old"
}

@test "a full disk is exit 5, and no file is left" {
    mkdir "$T/d"
    run --separate-stderr bash -c "ulimit -f 100; \"$ZGEN\" quantize $tiny \"$T/d/out\" f16"
    [[ "$status" = 5 && "$stderr" == "zgen: cannot write"*"too large"* ]] || { echo "$status $stderr"; false; }
    asserts "$(ls "$T/d")" = ""
    fails 5 "No space left" quantize "$tiny" /dev/full q4_0
    fails 5 "/nonexistent/m.gguf" quantize "$tiny" /nonexistent/m.gguf q4_0
    run --separate-stderr bash -c "\"$ZGEN\" quantize $tiny \"$T/d/out\" q4_0 >/dev/full"
    [ "$status" = 5 ]
}

@test "Ctrl-C leaves no file" {
    zgen synth llama-3.2-1b q8_0 "$T/big.gguf" --layers 1
    mkdir "$T/d"
    leaves_nothing quantize "$T/big.gguf" "$T/d/out" q4_k_m --requantize -t 1
}

@test "a wrong command line" {
    fails 2 "quantize IN OUT TYPE; types: F32 F16" quantize
    fails 2 "quantize IN OUT TYPE" quantize "$tiny" "$T/m.gguf"
    fails 2 "zgen cannot write the type 'q9'; types: F32 F16" quantize "$tiny" "$T/m.gguf" q9
    fails 2 "zgen reads, but does not write the type 'iq2_xxs'; types: F32 F16" quantize "$tiny" "$T/m.gguf" iq2_xxs
    fails 3 "/nonexistent" quantize /nonexistent "$T/m.gguf" q4_0
    fails 2 "belongs to zgen quantize" info "$tiny" --requantize
    [ ! -e "$T/m.gguf" ]
}

@test "quantize: a number of threads behind the type, as llama-quantize takes it" {
    zgen quantize "$tiny" "$T/a.gguf" q8_0
    zgen quantize "$tiny" "$T/b.gguf" q8_0 2
    asserts "$status" = 0
    cmp "$T/a.gguf" "$T/b.gguf"
    zgen quantize "$tiny" q8_0 2 --dry-run
    asserts "$status" = 0
    for wrong in x 0 -1 1025 99999 2x; do fails 2 "zgen quantize IN OUT TYPE" quantize "$tiny" "$T/c.gguf" q8_0 -- $wrong; done
    fails 2 "zgen quantize IN OUT TYPE" quantize "$tiny" "$T/c.gguf" 8
}
