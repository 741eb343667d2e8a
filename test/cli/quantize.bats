# zgen quantize: models with weights of another type.
load helper

types="f32 f16 bf16 fp8 q4_0 q4_1 q5_0 q5_1 q8_0 q4_k_s q4_k_m q5_k_s q5_k_m q6_k"

@test "every type opens, has the named type, and generates text" {
    for type in $types; do
        zgen quantize "$tiny" "$T/m.gguf" $type
        asserts "$type/$status/$stderr" = "$type/0/"
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
END
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
