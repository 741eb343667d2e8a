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
    for word in "demo model" "seed 7" "context of 512" "load: " "prompt: " "decode: " "tok/s" "GB/s" "stopped after 4"; do
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
    asserts "$output/$(grep -v '^zgen: warning: a context of 100000 tokens' <<<"$stderr")" = "141/"
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

@test "an output never replaces an input of the run" {
    seq -s ' ' 1 300 >"$T/x"
    cp "$T/x" "$T/ids"
    cp "$tiny" "$T/m.gguf"
    ln -s m.gguf "$T/link"
    cp "$ZGEN" "$T/program"
    fails 2 "m.gguf is an input of this run" logits -m "$T/m.gguf" --ids 1 -o "$T/m.gguf"
    fails 2 "link is an input of this run" logits -m "$T/m.gguf" --ids 1 -o "$T/link"
    fails 2 "ids is an input of this run" logits -m "$T/m.gguf" --ids-file "$T/ids" -o "$T/ids"
    fails 2 "x is an input of this run" perplexity -f "$T/x" -c 16 --save-logits "$T/x"
    run --separate-stderr "$ZGEN" perplexity -f - -c 16 --save-logits "$T/x" <"$T/x"
    [[ "$status" = 2 && "$stderr" == *"x is an input of this run"* ]]
    zgen perplexity -f "$T/x" -c 16 --save-logits "$T/base"
    cp "$T/base" "$T/same"
    fails 2 "base is an input of this run" perplexity --kl "$T/base" --save-logits "$T/base"
    cmp "$T/base" "$T/same"
    cmp "$T/m.gguf" "$tiny"
    cmp "$T/x" "$T/ids"
    run --separate-stderr "$T/program" logits --ids 1 -o "$T/program" # the demo model is inside
    [[ "$status" = 2 && "$stderr" == *"program is an input of this run"* ]]
}

@test "behind a symbolic link that points to nothing the target is made" {
    mkdir "$T/d"
    ln -s ../target "$T/d/link"
    ln -s d/link "$T/first"
    ln -s loop "$T/loop"
    zgen logits --ids 1 -o "$T/first"
    asserts "$status/$(readlink "$T/first")/$(readlink "$T/d/link")/$(stat -c %s "$T/target")" = "0/d/link/../target/8192"
    fails 5 "loop: Too many levels of symbolic links" logits --ids 1 -o "$T/loop"
    fails 5 "cannot write to " logits --ids 1 -o ""
}

@test "SIGKILL leaves nothing, and an older file as it was" {
    zgen synth llama-3.2-1b q8_0 "$T/big.gguf" --layers 1
    mkdir "$T/d"
    echo old >"$T/d/out"
    "$ZGEN" quantize "$T/big.gguf" "$T/d/out" q4_k_m --requantize -t 1 >/dev/null 2>&1 </dev/null 3>&- &
    local pid=$!
    writes $pid
    kill -s KILL $pid
    wait $pid || true
    asserts "$(ls "$T/d")/$(cat "$T/d/out")" = "out/old"
}

@test "where files have no unnamed form, every exit but SIGKILL removes the temporary file" {
    ldd "$ZGEN" | grep -q asan && skip "a sanitized program takes no preloaded library"
    cat >"$T/shim.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int open(const char *path, int flags, ...) {
    va_list a;
    va_start(a, flags);
    mode_t mode = va_arg(a, mode_t);
    va_end(a);
    if ((flags & O_TMPFILE) == O_TMPFILE) return errno = EOPNOTSUPP, -1;
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}
END
    "${CC:-cc}" -shared -fPIC -o "$T/shim.so" "$T/shim.c" -ldl
    export LD_PRELOAD=$T/shim.so
    mkdir "$T/d"
    zgen synth llama-3.2-1b q8_0 "$T/big.gguf" --layers 1
    zgen logits --ids 1 -o "$T/d/out"
    asserts "$status/$(ls "$T/d")/$(stat -c %s "$T/d/out")" = "0/out/8192"
    rm "$T/d/out"
    leaves_nothing quantize "$T/big.gguf" "$T/d/out" q4_k_m --requantize -t 1
    leaves_nothing synth llama-3.2-1b q8_0 "$T/d/out" --layers 1
    "$ZGEN" quantize "$T/big.gguf" "$T/d/out" q4_k_m --requantize -t 1 >/dev/null 2>"$T/err" </dev/null 3>&- &
    local pid=$! code=0
    writes $pid
    [[ "$(ls "$T/d")" == out.?????? ]]
    truncate -s 1M "$T/big.gguf" # which is mapped
    wait $pid || code=$?
    asserts "$code/$(ls "$T/d")" = "3/"
    grep -q "was cut short" "$T/err"
}

@test "a terminal gets printable characters, newlines and tabs only; a pipe every byte" {
    python3 - "$T/says.gguf" "$T/f"$'\e]52;c;AAAA\a'.gguf <<'END'
import os, sys
model = open("models/stories-q8_0.gguf", "rb").read()
piece, said = "\u2581there".encode(), "\x1b]52;c\u009b".encode() # the model says it behind "Once upon a time"
assert len(piece) == len(said) and model.count(b"\x08" + bytes(7) + piece) == 1
open(sys.argv[1], "wb").write(model.replace(b"\x08" + bytes(7) + piece, b"\x08" + bytes(7) + said))
os.symlink(sys.argv[1], sys.argv[2])
END
    local named
    named=$T/f$'\e]52;c;AAAA\a'.gguf
    # shows COMMAND...: what the terminal gets, which must hold no control character but newline, return and tab
    shows() {
        on_terminal "$ZGEN" "$@" >"$T/shown"
        LC_ALL=C run ! grep -qP '(?![\t\r])[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]' "$T/shown"
    }
    shows -m "$T/says.gguf" -p "Once upon a time" -n 3 --temp 0 -q
    grep -qF '\x1b]52;c\u{9b}' "$T/shown"
    "$ZGEN" -m "$T/says.gguf" -p "Once upon a time" -n 3 --temp 0 </dev/null | grep -q $'\e]52;c\xc2\x9b'
    shows --echo -p $'\e[2J \u202etxt\u202c\x7f a\tb\nc \u200d\r' -n 0 -q
    grep -qF $'\\x1b[2J \\u{202e}txt\\u{202c}\\x7f a\tb' "$T/shown"
    grep -qF $'c \u200d\\x0d' "$T/shown"
    shows tokenize --decode "$("$ZGEN" tokenize -p $'\e\xc2\x9b' --ids </dev/null)"
    shows bench -m "$named" -p 4 -n 0 -r 1 -o csv
    shows bench -m "$named" -p 4 -n 0 -r 1
    shows info "$named" --keys
    shows -m "$named" -p x -n 1 --json
    on_terminal "$ZGEN" -p x -m $'/\e[2J' >"$T/shown" || [ $? = 3 ]
    grep -qF '/\x1b[2J: there is no such file' "$T/shown"
    on_terminal "$ZGEN" logits --ids 1 -o - >"$T/shown" || [ $? = 2 ]
    grep -q "no text for a terminal" "$T/shown"
}

@test "JSON has all its keys, or there is an error, when memory runs out" {
    ldd "$ZGEN" | grep -q asan && skip "a sanitized program takes no preloaded library"
    cat >"$T/shim.c" <<'END'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
static long calls, fails_at = -1; // counted from main on: constructors of libraries are not ours
static int started;
static void *(*real_malloc)(size_t), *(*real_realloc)(void *, size_t);
static void report(void) {
    if (getenv("MALLOC_COUNT")) dprintf(9, "%ld", calls);
}
static int fails(void) {
    if (!real_malloc) {
        real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
        real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
        char *at = getenv("MALLOC_FAILS_AT");
        fails_at = at ? atol(at) : -1;
        atexit(report);
    }
    return started && calls++ == fails_at;
}
static int (*real_main)(int, char **, char **);
static int begin(int argc, char **argv, char **env) {
    started = 1;
    return real_main(argc, argv, env);
}
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*rtld_fini)(void), void *stack_end) {
    real_main = main;
    return ((__typeof__(&__libc_start_main))dlsym(RTLD_NEXT, "__libc_start_main"))(begin, argc, argv, init, fini, rtld_fini, stack_end);
}
void *malloc(size_t n) { return fails() ? NULL : real_malloc(n); }
void *realloc(void *p, size_t n) { return fails() ? NULL : real_realloc(p, n); }
END
    "${CC:-cc}" -shared -fPIC -o "$T/shim.so" "$T/shim.c" -ldl
    printf '{"model_type": "m", "n_prompt": 5, "n_gen": 0, "avg_ts": 2.0, "stddev_ts": 0.1}\n' >"$T/rows"
    python3 - "$ZGEN" "$T/shim.so" "$T/rows" <<'END'
import os, subprocess, sys
zgen, shim, rows = sys.argv[1:]
for command in (["info", "--json", "--device", "cpu"], ["tokenize", "-p", "a b c", "--json"], ["bench", "--compare", rows, rows],
                ["-p", "a", "-n", "2", "-s", "1", "--json", "--device", "cpu", "--logprobs", "2"]):
    def run(**env):
        return subprocess.run([zgen] + command, stdin=subprocess.DEVNULL, capture_output=True, env=dict(os.environ, LD_PRELOAD=shim, **env))
    reader, writer = os.pipe()
    os.dup2(writer, 9)
    normal = subprocess.run([zgen] + command, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=[9],
                            env=dict(os.environ, LD_PRELOAD=shim, MALLOC_COUNT="1"))
    n = int(os.read(reader, 100))
    keys = lambda out: [c for c in out.decode() if c in '{}[]:"']
    assert normal.returncode == 0 and n > 20, (command, n, normal)
    first = max(0, n - 800)
    for at in range(first, n, max(1, (n - first) // 80)):
        r = run(MALLOC_FAILS_AT=str(at))
        if r.returncode == 0:
            assert len(keys(r.stdout)) == len(keys(normal.stdout)), (command, at, n, r)
        else:
            assert r.returncode in (1, 4), (command, at, n, r)
END
}
