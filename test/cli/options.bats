#!/usr/bin/env bats
# The command line: refusals with their exit code and message; help and version.
load helper

# code, a part of the message, the arguments as a shell would read them
wrong_lines() {
    cat <<'END'
2|unknown command 'talk'|talk
2|unknown command ''|''
2|unknown command 'model.gguf'|model.gguf -p x
2|unknown command 'nosuch'|help nosuch
2|unexpected argument 'b'|-p a b
2|unexpected argument|-p a -- -n
2|unknown option '--bogus'|--bogus
2|belongs to zgen generate|chat --print-prompt
2|belongs to zgen generate|tokenize -st -p x
2|needs a value|-st -p x -sys
2|'maybe' is not one of: show hide off|-st -p x --think maybe
2|'x' is not one of: stop drop|-cnv --on-full x
2|did you mean --temp|-p x --temprature 1
2|did you mean --prompt|--promp x
2|did you mean --threads|-p x --thread 1
2|unknown option '--temper'|-p x --temper=1
2|unknown option '-n5'|-p x -n5
2|needs a value|-p
2|needs a value|-p x -n
2|takes no value|-p x --json=yes
2|'4x' is not|-p x -n 4x
2|'' is not|-p x -n ''
2|from -2 to 2147483647|-p x -n -3
2|from -2 to 2147483647|-p x -n 2147483648
2|'99999999999999999999'|-p x -n 99999999999999999999
2|'1.5' is not|-p x -n 1.5
2|from 0 to 2147483647|-p x -c -5
2|'1e3' is not|-p x -c 1e3
2|from -1 to 1024|-p x -t -2
2|from -1 to 1024|-p x -t 100000
2|is not a number from 0 to 100|-p x --temp -1
2|is not a number from 0 to 100|-p x --temp nan
2|is not a number from 0 to 100|-p x --temp inf
2|is not a number from 0 to 100|-p x --temp 0.8x
2|from 0 to 1|-p x --top-p 5
2|from 0 to 1|-p x --top-p -0.1
2|from 0 to 1|-p x --min-p 1.01
2|from 0 to 2147483647|-p x --top-k -1
2|from 0.01 to 100|-p x --repeat-penalty 0
2|from -1 to 2147483647|-p x --repeat-last-n -2
2|from -100 to 100|-p x --presence-penalty 1e9
2|from -100 to 100|-p x --frequency-penalty ''
2|'top_a' is not one of: penalties dry|-p x --samplers 'top_k;top_a'
2|'' is not one of: penalties dry|-p x --samplers 'top_k;'
2|'' is not one of: penalties dry|-p x --samplers ''
2|'adaptive_p' is not one of|-p x --samplers adaptive_p
2|names top_k twice|-p x --samplers 'top_k;temp;top-k'
2|letters edskypmxt|-p x --sampler-seq kz
2|there is no letter|-p x --sampler-seq ''
2|drop one of them|-p x --sampler-seq k --samplers top_k
2|--mirostat 2 has the same aim|-p x --mirostat 1
2|from 0 to 2|-p x --mirostat 3
2|from 0 to 1|-p x --typical 1.5
2|from 1 to 100|-p x --dry-multiplier 1 --dry-base 0.5
2|has more than 40 bytes|-p x --dry-multiplier 1 --dry-sequence-breaker 12345678901234567890123456789012345678901
2|is not ID+X, ID-X or TEXT+X|-p x --logit-bias 5
2|is not ID+X, ID-X or TEXT+X|-p x --logit-bias +5
2|is not ID+X, ID-X or TEXT+X|-p x --logit-bias 5+inf
2|is not ID+X, ID-X or TEXT+X|-p x --logit-bias 5+nan
2|is not ID+X, ID-X or TEXT+X|-p x -l 5+1e9
2|is not ID+X, ID-X or TEXT+X|-p x -l 5+1x
2|there is no token 2048; the model has tokens 0 to 2047|-p x -l 2048+1
2|there is no token|-p x -l 99999999999999999999-1
2|18446744073709551615|-p x -s 18446744073709551616
2|18446744073709551615|-p x --seed -2
2|18446744073709551615|-p x --seed abc
2|the text is empty|-p x --stop ''
2|the text is empty|-p x -r ''
2|one of: f16 f32 q8_0 fp8|-p x --kv q4_0
2|one of: f16 f32 q8_0 fp8|-p x -ctk q4_0
2|name the same|-p x -ctk f32
2|name the same|-p x -ctk f16 -ctv f32
2|name the same|-p x --kv f16 -ctk f32 -ctv f32
2|one of: auto scalar avx2 avx512|-p x --isa sse2
2|one of: auto f32 q8|-p x --act f16
2|one of: auto cpu cuda|-p x --device vulkan
2|one of: auto cpu cuda|-p x --device cuda:x
2|one of: auto cpu cuda|-p x --device cuda:
2|one of: auto device managed|-p x --mem host
1|--device cuda:99: |-p x --device cuda:99
2|drop one of them|-p x -ngl 0 --device cuda
2|use --device cpu|-p x --isa avx2 --device cuda
2|use --device cpu|-p x --act f32 --device cuda
2|use --device cpu|-p x --act f32 -ngl 99
2|SHAPE MIX OUT; shapes: llama|synth
2|no shape 'x'|synth x q4_0 /dev/null
2|no mix 'q9'|synth llama-3.2-1b q9 /dev/null
2|from 1 to 4096|synth llama-3.2-1b q4_0 /dev/null --layers 0
5|/nonexistent|synth llama-3.2-1b q4_0 /nonexistent/m.gguf --layers 1
2|drop one of them|-p x -ngl 99 --device cpu
2|6 layers|-p x -ngl 3
2|or one of: auto all|-p x -ngl some
2|one of: text json|-p x --output-format xml
2|add --json|-p x --logprobs 3
2|from 0 to 100|-p x --json --logprobs 101
2|exclude each other|-p x --json --echo
2|use one of them|-p x -f README.md
2|no prompt|-n 5
2|belongs to zgen info|-p x --plan
2|belongs to zgen logits|-p x --ids-file x
2|the text goes to stdout: >FILE|-p x -o /tmp/x
2|not one of: none layer; zgen computes on one GPU|-p x -sm row
2|with -m FILE|-hf org/model
2|belongs to zgen generate|info --jinja
2|belongs to zgen generate|info --temp 1
2|belongs to zgen generate|tokenize -p x -n 5
2|belongs to zgen tokenize|info --decode 1
1|cannot read the prompt|-f /nonexistent/prompt
1|Is a directory|-f test
2|one model|info a.gguf b.gguf
2|one model|info a.gguf -m b.gguf
2|unexpected argument|tokenize text
2|use one of them|tokenize -p x --decode 1
2|use one of them|tokenize -p x --ids --json
2|drop --ids|tokenize --decode 1 --json
2|'x' is not a token id|tokenize --decode 1,x
2|no token 2048|tokenize --decode 2048
2|'-1' is not a token id|tokenize --decode -1
2|no token ids|tokenize --decode ''
2|no tokens: give one of|logits -o /dev/null
2|no tokens: give one of|logits --ids 1 --ids-file x -o /dev/null
2|-o OUT|logits --ids 1
2|no token 2048|logits --ids 1,2048 -o /dev/null
2|'1.5' is not a token id|logits --ids 1.5 -o /dev/null
2|no token ids|logits --ids , -o /dev/null
1|cannot read the tokens|logits --ids-file /nonexistent -o /dev/null
5|cannot write to /nonexistent/out|logits --ids 1 -o /nonexistent/out
5|cannot write to test|logits --ids 1 -o test
3|/nonexistent/m.gguf|-m /nonexistent/m.gguf -p x
3|a path is empty; give that of a GGUF file|-m '' -p x
3|directory|-m test -p x
3|README.md|-m README.md -p x
3|/dev/zero|-m /dev/zero -p x
3|/dev/null|info /dev/null
3|/nonexistent|info /nonexistent
4|would fit|-p x -c 2000000000
4|would fit|logits --ids 1 -o /dev/null -c 2147483647
END
}

@test "wrong command lines are refused with one sentence and the right code" {
    local n=0 bad=0 code text arguments
    while IFS='|' read -r code text arguments; do
        eval "set -- $arguments"
        fails "$code" "$text" "$@" || bad=$((bad + 1))
        n=$((n + 1))
    done < <(wrong_lines)
    echo "$bad of $n"
    [[ "$n" -ge 90 && "$bad" = 0 ]]
}

@test "a repeated option: the last one counts" {
    zgen -p "Once upon" -n 500 -n 1 --temp 5 --temp 0 --json
    asserts "$(field 'd["counts"]["generated"], d["sampling"]["temp"]')" = "(1, 0.0)"
}

@test "a value may look like an option" {
    zgen -p -n -n 0 --echo
    asserts "$status/$output" = "0/-n"
}

@test "help names every option of a command and nothing else" {
    zgen --help
    [[ "$status" = 0 && -z "$stderr" ]]
    for word in "zgen info" "zgen tokenize" "zgen logits" --predict --temp "-ngl" "Exit codes"; do [[ "$output" == *"$word"* ]]; done
    [[ "$output" != *--parse-special* ]]
    asserts "$(echo "$output" | awk 'length > 110' | wc -l)" = 0
    zgen help tokenize
    [[ "$output" == *--decode* && "$output" != *--temp* ]]
    zgen tokenize -h
    [[ "$output" == *--decode* ]]
    zgen -h
    [ "$status" = 0 ]
}

@test "version" {
    zgen --version
    [[ "$status" = 0 && "$output" == "zgen "[0-9]* ]]
}

@test "a CPU that replaces a GPU which was asked for causes one warning" {
    zgen -p x -n 1 --device cuda
    [ "$status" != 0 ] || skip "there is a GPU"
    warning='zgen: warning: *; using the CPU (--device cpu does so silently)'
    for n in all 99 6 2147483647; do
        zgen -p x -n 1 -ngl $n -q
        [[ "$status" = 0 && "$stderr" == $warning ]] || { echo "-ngl $n: $stderr"; false; }
    done
    for cpu in "-ngl 0" "--device cpu" "--isa scalar"; do
        zgen -p x -n 1 $cpu
        asserts "$status/$stderr" = 0/
    done
    zgen bench -p 1 -n 0,1 -t 1,2 -r 1 --no-warmup -ngl 99
    [[ "$status" = 0 && "$stderr" == $warning && $(wc -l <<<"$stderr") = 1 ]]
    for command in "-p x -n 1" "info" "bench -p 1 -n 0 -r 1 --no-warmup"; do # that ask for no GPU
        zgen $command
        asserts "$status/$stderr" = 0/
        [ "$command" != "-p x -n 1" ] || run on_terminal "$ZGEN" $command
        [[ "$output" != *"using the CPU"* ]]
    done
    zgen -p x -n 1 -v
    [[ "$stderr" == *"; using the CPU"* ]]
    fails 2 "unexpected argument" -p x y
}

@test "many more threads than CPUs are reduced, with a warning" {
    zgen -p "Once upon" -n 1 --temp 0 -t 1
    local one=$output
    run --separate-stderr timeout 60 "$ZGEN" -p "Once upon" -n 1 --temp 0 -t 1024
    [[ "$status" = 0 && "$output" = "$one" ]]
    [ "$(nproc)" -gt 255 ] || [[ "$stderr" == *"warning: -t 1024"* ]]
}

@test "options that name the defaults change nothing" {
    zgen -p "Once" -n 2 --temp 0 -no-cnv -e --isa auto --act auto --device auto --kv f16 -ctk f16 -ctv f16 -q --no-perf
    [ "$status" = 0 ]
    local with=$output
    zgen -p "Once" -n 2 --temp 0
    asserts "$with" = "$output"
}

@test "a command behind options is told where it belongs" {
    fails 2 "the command 'chat' comes before its options: zgen chat ..." --device cpu chat
    fails 2 "the command 'info' comes before its options: zgen info ..." -q info
    fails 2 "put quotes around a prompt" -q something
}

@test "names of llama.cpp's flags may have underscores, and a value after the flag is not a prompt" {
    zgen -p "Once upon" -n 3 --temp 0
    local text=$output
    for flags in "--n_predict 3" "-n 3 --color" "-n 3 --color on" "-fa -n 3" "-fa off -n 3" "-fa=0 -n 3" "--no_display_prompt -n 3" "--jinja --simple-io -tb 2 -b 512 -ub 512 -n 3"; do
        zgen -p "Once upon" --temp 0 $flags
        asserts "$status/$output/$stderr" = "0/$text/"
    done
    zgen -p "Once upon" --temp 0 -n 3 --display-prompt
    asserts "$output" = "Once upon$text"
    fails 2 "unexpected argument 'off'" -p x --jinja off
    fails 2 "unexpected argument 'maybe'" -p x --color maybe
    zgen -p "--a_b" -n 0 --echo
    asserts "$output" = "--a_b"
}

# with_key KEY TYPE VALUE: makes $T/changed.gguf, the tiny model with another value of a 4-byte KEY; TYPE is struct's letter.
with_key() {
    python3 - "$tiny" "$T/changed.gguf" "$@" <<'EOF'
import struct, sys
data, key = bytearray(open(sys.argv[1], "rb").read()), sys.argv[3].encode()
at = data.index(struct.pack("<Q", len(key)) + key) + 8 + len(key) + 4
data[at:at + 4] = struct.pack("<" + sys.argv[4], eval(sys.argv[5]))
open(sys.argv[2], "wb").write(data)
EOF
}

# same_logits ARGUMENT...: whether the tiny model with these arguments computes what $T/changed.gguf does, and not what it
# computes without them.
same_logits() {
    local ids
    ids=$(seq -s, 1 60)
    zgen logits -m "$T/changed.gguf" --ids "$ids" -o "$T/wanted"
    zgen logits -m "$tiny" --ids "$ids" -o "$T/before"
    zgen logits -m "$tiny" --ids "$ids" -o "$T/out" "$@"
    asserts "$status/$stderr" = 0/
    cmp "$T/out" "$T/wanted"
    ! cmp -s "$T/out" "$T/before" || { echo "$*: no effect"; false; }
}

@test "--override-kv and options of rotation: the numbers of a file with these values" {
    with_key llama.rope.freq_base f 500.0
    same_logits --override-kv llama.rope.freq_base=float:500
    same_logits --override-kv .rope.freq_base=float:500,llama.nothing=str:a,b
    same_logits --override-kv llama.nothing=int:1 --override-kv llama.rope.freq_base=float:5e2
    same_logits --rope-freq-base 500
    cp "$T/changed.gguf" "$T/base.gguf"
    tiny=$T/base.gguf with_key llama.rope.freq_base f 10000.0
    zgen logits -m "$T/base.gguf" --ids 1,2,3 -o "$T/a" --rope-freq-base 0
    zgen logits -m "$T/base.gguf" --ids 1,2,3 -o "$T/b"
    cmp "$T/a" "$T/b"
    plan() { zgen info --plan "$@" --device cpu && grep -m1 ROPE <<<"$output"; }
    [[ $(plan --rope-scale 4) == *"base 10000, scale 0.25" ]]
    [[ $(plan --rope-freq-scale 0.25) == *"base 10000, scale 0.25" ]]
    [[ $(plan --rope-scale 4 --rope-scaling none) == *"base 10000, scale 1" ]]
    [[ $(plan --rope-scale 4 --rope-scaling yarn --yarn-orig-ctx 128) == *"scale 0.25, magnitude 1.13863, yarn from 128, 32 to 1, mix 1" ]]
    [[ $(plan --rope-scale 4 --rope-scaling yarn --yarn-ext-factor 0) == *"scale 0.25, yarn from 512, 32 to 1, mix 0" ]]
    [[ $(plan --rope-scale 4 --rope-scaling yarn --yarn-attn-factor 2 --yarn-beta-fast 16 --yarn-beta-slow 2) == *"magnitude 2.27726, yarn from 512, 16 to 2, mix 1" ]]
    fails 2 "drop one of them" -p x --rope-scale 2 --rope-freq-scale 2
}

@test "--override-kv: BOS on or off, and what it refuses" {
    zgen -p "Once" -n 0 --json --override-kv tokenizer.ggml.add_bos_token=bool:false
    asserts "$(field 'd["prompt_ids"][0] == 1')" = False
    local without=$output
    zgen -p "Once" -n 0 --json --no-bos
    asserts "$(field 'd["prompt_ids"]')" = "$(output=$without field 'd["prompt_ids"]')"
    zgen tokenize -p Once --ids --override-kv tokenizer.ggml.add_eos_token=bool:true
    [[ "$output" == "[1, "*", 2]" ]]
    fails 2 "the template's choice" -st -p x --no-bos
    while IFS='|' read -r code text change; do fails "$code" "$text" -p x -n 1 --override-kv "$change"; done <<'EOF'
2|is not KEY=TYPE:VALUE|x
2|is not KEY=TYPE:VALUE|=int:1
2|is not KEY=TYPE:VALUE|a=u8:1
2|'1,' is not a value of type int|a=int:1,
2|'1x' is not a value of type int|a=int:1x
2|is not a value of type int|a=int:99999999999999999999
2|'' is not a value of type float|a=float:
2|'nan' is not a value of type float|a=float:nan
2|'1e99' is not a value of type float|a=float:1e99
2|'yes' is not a value of type bool|a=bool:yes
2|'llama.block_count' is a u32; a float cannot replace it|llama.block_count=float:6
2|'tokenizer.ggml.tokens' is an array of 2048 string; a string cannot replace it|tokenizer.ggml.tokens=str:x
3|blk.6.attn_norm.weight' is missing|llama.block_count=int:7
3|expected 0.001 to 1e+12|llama.rope.freq_base=float:-1
3|expected 1 to|llama.embedding_length=int:9223372036854775807
EOF
}

@test "-bf takes bytes as they are; --mlock and --prio change no text" {
    printf '\xef\xbb\xbfab\r\n' >"$T/bytes"
    "$ZGEN" -bf "$T/bytes" -n 0 --echo >"$T/out"
    cmp "$T/bytes" "$T/out"
    "$ZGEN" -f "$T/bytes" -n 0 --echo >"$T/out"
    asserts "$(<"$T/out")" = ab
    fails 2 "use one of them" -p x -bf "$T/bytes"
    fails 2 "use one of them" -f x -bf "$T/bytes"
    zgen -p "Once upon" -n 4 --temp 0
    local text=$output
    for flags in --mlock "--prio 0" "--prio -1" "--prio 3" "-dev none"; do
        zgen -p "Once upon" -n 4 --temp 0 $flags
        [[ "$status/$output" = "0/$text" && ( -z "$stderr" || "$stderr" == "zgen: warning: "*"the system does not allow it"* ) ]]
    done
    fails 2 "one of: auto cpu cuda" -p x -dev CUDA0,CUDA1
    fails 2 "from -1 to 3" -p x --prio 4
}
