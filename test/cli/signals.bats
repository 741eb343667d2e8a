#!/usr/bin/env bats
# SIGINT, SIGTERM, SIGHUP: the text up to there is printed, and the exit code names the signal.
load helper

# interrupted SIGNAL ARGUMENT...: sends the signal when there is some text; sets $code, $T/out, $T/err.
interrupted() {
    local signal=$1
    shift
    "$ZGEN" -p "Once upon a time" --ignore-eos -c 100000 --temp 0 "$@" >"$T/out" 2>"$T/err" </dev/null 3>&- &
    local pid=$!
    for _ in $(seq 200); do [ "$(stat -c %s "$T/out")" -lt 40 ] || break; sleep 0.05; done
    kill -s "$signal" $pid
    code=0
    wait $pid || code=$?
}

@test "Ctrl-C keeps the text and exits with 130" {
    "$ZGEN" -p "Once upon a time" -n 6 --temp 0 --device cpu >"$T/begin" </dev/null
    interrupted INT --device cpu
    asserts "$code" = 130
    cmp -n "$(stat -c %s "$T/begin")" "$T/begin" "$T/out"
    iconv -f UTF-8 -t UTF-8 "$T/out" >/dev/null
    asserts "$(grep -v '^zgen: warning: a context of 100000 tokens' "$T/err")" = ""
}

@test "SIGTERM is 143, SIGHUP 129, both with the text" {
    interrupted TERM
    asserts "$code" = 143
    [ -s "$T/out" ]
    interrupted HUP
    asserts "$code" = 129
    [ -s "$T/out" ]
}

@test "an interrupted run has its timings, and JSON its object" {
    interrupted INT -v
    grep -q "decode: .* tok/s" "$T/err"
    "$ZGEN" -p "Once upon a time" --ignore-eos -c 100000 --json >"$T/out" 2>/dev/null </dev/null 3>&- &
    local pid=$!
    sleep 1
    kill -s INT $pid
    code=0
    wait $pid || code=$?
    output=$(cat "$T/out")
    asserts "$code/$(field 'd["finish_reason"], len(d["ids"]) == d["counts"]["generated"] > 0')" = "130/('interrupted', True)"
}

@test "Ctrl-C while the prompt is read" {
    mkfifo "$T/pipe"
    "$ZGEN" --device cpu <>"$T/pipe" >"$T/out" 2>"$T/err" 3>&- &
    local pid=$!
    sleep 0.5
    kill -s INT $pid
    code=0
    wait $pid || code=$?
    asserts "$code" = 130
    [[ ! -s "$T/out" && ! -s "$T/err" ]]
}

@test "SIGTERM ends a template that takes long" {
    printf '%s' "{% for i in range(99999) %}{% for k in range(99999) %}{{ 0.1 * k }}{% endfor %}{% endfor %}" >"$T/long.jinja"
    "$ZGEN" --print-prompt --chat-template "$T/long.jinja" -p hi >"$T/out" 2>"$T/err" </dev/null 3>&- &
    local pid=$!
    sleep 0.5
    kill -s TERM $pid
    code=0
    wait $pid || code=$?
    asserts "$code" = 143
    [[ ! -s "$T/out" && ! -s "$T/err" ]]
}

@test "an ignored SIGHUP stays ignored, as nohup wants" {
    (trap '' HUP && exec "$ZGEN" -p "Once" -n 300 --ignore-eos --temp 0 --isa scalar >"$T/out" </dev/null 3>&-) &
    local pid=$!
    sleep 0.3
    kill -s HUP $pid
    wait $pid
}

@test "a run that was suspended continues" {
    "$ZGEN" -p "Once upon a time" -n 100 --temp 0 >"$T/whole" </dev/null
    "$ZGEN" -p "Once upon a time" -n 100 --temp 0 >"$T/out" </dev/null 3>&- &
    local pid=$!
    kill -s TSTP $pid
    sleep 0.2
    kill -s CONT $pid
    wait $pid
    cmp "$T/whole" "$T/out"
}

@test "interrupted logits leave no file" {
    seq -s , 1 2000 >"$T/ids"
    "$ZGEN" logits --ids-file "$T/ids" -o "$T/logits" --isa scalar 2>"$T/err" 3>&- &
    local pid=$!
    sleep 0.3
    kill -s INT $pid
    code=0
    wait $pid || code=$?
    asserts "$code" = 130
    asserts "$(ls "$T" | tr '\n' ' ')" = "err ids "
}

@test "a long prompt is left within a second, whatever it costs" {
    "$ZGEN" synth llama-3.2-1b q4_0 "$T/m.gguf" --layers 2
    python3 -c 'print("word and " * 4000)' >"$T/words"
    for command in "generate -f $T/words" "perplexity -f $T/words" "bench -p 4096 -n 0 -r 1" "logits --ids-file $T/ids -o $T/out"; do
        [ -e "$T/ids" ] || seq -s , 1 4000 >"$T/ids"
        # shellcheck disable=SC2086
        "$ZGEN" $command -m "$T/m.gguf" -t 1 --isa scalar >/dev/null 2>&1 </dev/null 3>&- &
        local pid=$! before code=0
        sleep 1.5
        kill -s INT $pid
        before=$(date +%s%N)
        wait $pid || code=$?
        asserts "$code" = 130
        asserts "$(($(date +%s%N) - before))" -lt 1000000000
    done
}
