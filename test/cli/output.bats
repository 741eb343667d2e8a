#!/usr/bin/env bats
# stdout and stderr: their content, and failures to write them.
load helper

@test "stdout holds the text and nothing else, stderr nothing in a pipe" {
    zgen -p "Once upon a time" -n 12 --temp 0 --json
    field 'd["text"]' >"$T/json"
    "$ZGEN" -p "Once upon a time" -n 12 --temp 0 --device cpu >"$T/out" 2>"$T/err" </dev/null
    printf '%s\n' "$(cat "$T/out")" | cmp - "$T/json"
    [ ! -s "$T/err" ]
    [ -n "$(tail -c 1 "$T/out")" ] # no newline was added
}

@test "-v prints seed, memory and timings also in a pipe; -q nothing; --no-perf no timings" {
    zgen -p "Once" -n 4 -s 7 -v
    for word in "demo model" "seed 7" "context of 512" "load: " "prompt: " "decode: " "tok/s" "GB/s" "% of the" "stopped after 4"; do
        [[ "$stderr" == *"$word"* ]] || { echo "$word is missing in: $stderr"; false; }
    done
    zgen -p "Once" -n 4 -s 7 -v --no-perf
    [[ "$stderr" == *"seed 7"* && "$stderr" != *"tok/s"* ]]
    zgen -p "Once" -n 4 -v -q --device cpu
    [ -z "$stderr" ]
}

@test "a failed run has no timings" {
    zgen -p "Once upon a time" -c 2 -v
    [[ "$status" = 1 && "$stderr" != *"tok/s"* ]]
}

@test "on a terminal there are notices, and the text ends with a newline" {
    run on_terminal "$ZGEN" -p "Once" -n 3 -s 7 --temp 0
    [[ "$status" = 0 && "$output" == *"seed 7"* && "$output" == *"tok/s"* ]]
    run on_terminal "$ZGEN" -p "Once" -n 3 --temp 0 -q
    printf '%s' "$output" | od -c | head
    "$ZGEN" -p "Once" -n 3 --temp 0 >"$T/plain" </dev/null
    on_terminal "$ZGEN" -p "Once" -n 3 --temp 0 -q --device cpu >"$T/terminal"
    printf '\r\n' >>"$T/plain"
    cmp "$T/plain" "$T/terminal"
}

@test "without a prompt a terminal as stdin is an error" {
    run on_terminal timeout 10 "$ZGEN"
    [[ "$status" = 2 && "$output" == *"no prompt"* ]]
}

@test "a full disk is exit 5" {
    for command in "-p Once -n 3" "-p Once -n 3 --json" "info" "info --plan" "tokenize -p x" "logits --ids 1 -o -" "--help" "--version"; do
        run --separate-stderr bash -c "\"$ZGEN\" $command >/dev/full </dev/null"
        [[ "$status" = 5 && "$stderr" == *"No space left"* ]] || { echo "$command: $status $stderr"; false; }
    done
    run --separate-stderr "$ZGEN" logits --ids 1 -o /dev/full
    [[ "$status" = 5 && "$stderr" == *"No space left"* ]]
}

@test "a closed stdout is exit 5" {
    for command in "-p Once -n 3" "info" "--help"; do
        run --separate-stderr bash -c "\"$ZGEN\" $command >&- </dev/null"
        [[ "$status" = 5 && "$stderr" == *"closed"* ]] || { echo "$command: $status $stderr"; false; }
    done
}

@test "a closed stderr or stdin changes nothing" {
    run "$ZGEN" -p "Once" -n 3 --temp 0 --device cpu 2>&-
    [ "$status" = 0 ]
    local open=$output
    run bash -c "\"$ZGEN\" -p Once -n 3 --temp 0 -v 2>&- <&-"
    asserts "$status/$output" = "0/$open"
}

@test "a closed pipe ends the program with 141 and no message" {
    run --separate-stderr bash -c "\"$ZGEN\" -p Once --ignore-eos -c 100000 --temp 0 --device cpu </dev/null | head -c 1 >/dev/null; echo \${PIPESTATUS[0]}"
    asserts "$output/$stderr" = "141/"
}

@test "141 is an exit code and not a signal, so that temporary files are removed" {
    python3 - "$ZGEN" "$T/logits" <<'END'
import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
status = subprocess.run([sys.argv[1], "-p", "Once", "-n", "3"], stdin=subprocess.DEVNULL, stdout=writer, restore_signals=True).returncode
assert status == 141, status
END
}

@test "a file size limit is exit 5" {
    run --separate-stderr bash -c "ulimit -f 1; \"$ZGEN\" info --json --keys >\"$T/a\"; \"$ZGEN\" logits --ids 1,2 -o \"$T/out\" </dev/null"
    [[ "$status" = 5 && "$stderr" == *"File too large"* && ! -e "$T/out" ]]
}

@test "the program works in any folder" {
    cp "$ZGEN" "$T/elsewhere"
    cd "$T"
    run --separate-stderr ./elsewhere -p "<|user|>What is the capital of Norway?<|end|><|assistant|>" --temp 0 </dev/null
    asserts "$status/$output" = "0/ The capital of Norway is Oslo."
}
