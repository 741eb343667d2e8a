#!/usr/bin/env bats
# Text to ids and back.
load helper

@test "lines, a list, and JSON" {
    zgen tokenize -p "Once upon a time"
    asserts "$output" = "     1 -> '<s>'
   505 -> ' Once'
   506 -> ' upon'
   265 -> ' a'
   451 -> ' time'"
    zgen tokenize -p "Once upon a time" --ids
    asserts "$output" = "[1, 505, 506, 265, 451]"
    zgen tokenize -p "Once upon a time" --json
    asserts "$(field 'd["ids"], d["pieces"], d["bytes"][3:], sorted(d)')" = \
        "([1, 505, 506, 265, 451], ['<s>', ' Once', ' upon', ' a', ' time'], [[32, 97], [32, 116, 105, 109, 101]], ['bytes', 'ids', 'pieces'])"
}

@test "--no-bos and --parse-special" {
    zgen tokenize -p "Once" --no-bos --ids
    asserts "$output" = "[505]"
    zgen tokenize -p "<|user|>" --no-bos --parse-special --ids
    asserts "$output" = "[4]"
    zgen tokenize -p "<|user|>" --no-bos --json
    asserts "$(field 'len(d["ids"]) > 1')" = True
}

@test "every byte of a file and of stdin counts" {
    printf 'a\n' >"$T/text"
    zgen tokenize -f "$T/text" --json
    asserts "$(field 'd["pieces"]')" = "['<s>', ' a', '\\n']"
    output=$("$ZGEN" tokenize -f - --json <"$T/text")
    asserts "$(field 'd["pieces"]')" = "['<s>', ' a', '\\n']"
    output=$("$ZGEN" tokenize --json <"$T/text")
    asserts "$(field 'd["pieces"]')" = "['<s>', ' a', '\\n']"
}

@test "escapes in -p, and none with --no-escape" {
    zgen tokenize -p 'a\nb' --ids
    local with=$output
    zgen tokenize -p 'a\nb' --no-escape --ids
    asserts "$with" != "$output"
    printf 'a\nb' >"$T/text"
    zgen tokenize -f "$T/text" --ids
    asserts "$with" = "$output"
}

@test "tokens that are parts of characters appear in the spelling of the file" {
    zgen tokenize -p "é" --no-bos --json
    asserts "$(field 'd["pieces"][-2:], d["bytes"][-2:]')" = "(['<0xC3>', '<0xA9>'], [[195], [169]])"
    zgen tokenize -p "é" --no-bos
    [[ "$output" == *"'\\xc3'"* ]]
}

@test "bytes tell parts of a character from letters" {
    zgen tokenize -m test/data/tokenizer/bpe-1000.gguf -p "🙂ð" --json
    asserts "$(field 'bytes(sum(d["bytes"], [])).decode()')" = "🙂ð"
    asserts "$(field 'd["pieces"][0], d["bytes"][0]')" = "('ð', [240])"
}

@test "decoding inverts encoding" {
    python3 - "$T/text" <<'END'
import sys
open(sys.argv[1], "wb").write(" Once\n\n  upon\ta time, é 語 🙂 \u202e\0 <s> <|end|>\r\n".encode())
END
    for flags in "" "--no-bos"; do
        "$ZGEN" tokenize -f "$T/text" --ids $flags >"$T/ids" </dev/null
        "$ZGEN" tokenize --decode "$(cat "$T/ids")" $flags >"$T/back" </dev/null
        cmp "$T/text" "$T/back" || { echo "flags: $flags"; cat "$T/ids"; false; }
    done
}

@test "decoding keeps spaces before punctuation unless it shall not" {
    local m=test/data/tokenizer/bpe-1000.gguf text="hello ! how ' are you ?"
    zgen tokenize -m "$m" -p "$text" --ids
    local ids=$output
    zgen tokenize -m "$m" --decode "$ids"
    asserts "$output" = "$text"
    zgen tokenize -m "$m" --decode "$ids" --clean-spaces
    asserts "$output" = "hello! how'are you?"
    zgen tokenize -m "$m" -p "$text" --clean-spaces
    asserts "$status" = 2
}

@test "control tokens are decoded with --parse-special only" {
    zgen tokenize --decode "1 4 505 6" --parse-special
    asserts "$output" = "<|user|> Once<|end|>"
    zgen tokenize --decode "1 4 505 6"
    asserts "$output" = " Once"
    zgen tokenize --decode "1 4 505 6" --parse-special --no-bos
    asserts "$output" = "<s><|user|> Once<|end|>"
}

@test "decoding takes commas, spaces and brackets" {
    for ids in "505,506" "505 506" "[505, 506]" "1 505 506"; do
        zgen tokenize --decode "$ids"
        asserts "$status/$output" = "0/Once upon"
    done
    zgen tokenize --decode "202" # half a character stays half of one
    asserts "$("$ZGEN" tokenize --decode 202 </dev/null | od -An -tx1 | tr -d ' ')" = c3
}

@test "a model given by -m" {
    zgen tokenize -m "$tiny" -p "a" --json
    asserts "$status/$(field 'd["ids"][0]')" = "0/1"
    fails 3 "nosuch.gguf" tokenize -m nosuch.gguf -p a
}

@test "a long text takes little time" {
    python3 -c 'import sys; sys.stdout.write(" " * 2000000)' >"$T/spaces"
    run timeout 20 "$ZGEN" tokenize -f "$T/spaces" --ids
    [ "$status" = 0 ]
}
