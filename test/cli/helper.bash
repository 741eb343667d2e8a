# helper: functions that all command-line tests share.  The program is $ZGEN (default ./zgen), so that a sanitized build
# runs the same tests.  Tests run at the top of the tree.
bats_require_minimum_version 1.5.0

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || exit 1
    ZGEN=${ZGEN:-./zgen}
    T=$BATS_TEST_TMPDIR
    tiny=test/data/models/llama-s-F32.gguf
}

# zgen ARGUMENT...: runs the program without input; sets $status, $output (stdout) and $stderr.
zgen() { run --separate-stderr "$ZGEN" "$@" </dev/null; }

# fails CODE TEXT ARGUMENT...: the program must exit with CODE, print one line with TEXT on stderr besides warnings, and
# nothing on stdout.
fails() {
    local code=$1 text=$2
    shift 2
    zgen "$@"
    local why
    why=$(grep -v '^zgen: warning: ' <<<"$stderr" || true)
    [ "$status" = "$code" ] && [ -z "$output" ] && [ "$(wc -l <<<"$why")" = 1 ] && [[ "$why" == "zgen: "*"$text"* ]] && return
    echo "zgen $*: code $status instead of $code, or not '$text' in: $stderr; stdout: $output"
    return 1
}

# writes PID: waits until the process has a file of the folder $T/d open, with or without a name.
writes() {
    for _ in $(seq 400); do
        if readlink /proc/"$1"/fd/* 2>/dev/null | grep -q "^$T/d/"; then return; fi
        sleep 0.02
    done
    echo "began no file in $T/d"
    return 1
}

# leaves_nothing ARGUMENT...: the program is interrupted while it writes a file of the folder $T/d; it must remove the file,
# print nothing, and exit with 130.
leaves_nothing() {
    "$ZGEN" "$@" >/dev/null 2>"$T/err" </dev/null 3>&- &
    local pid=$! code=0
    writes $pid
    kill -s INT $pid
    wait $pid || code=$?
    asserts "$code/$(ls "$T/d")/$(cat "$T/err")" = "130//"
}

# damage: makes $T/nan.gguf, the tiny model with a NaN among the weights of its last layer.
damage() {
    python3 - "$tiny" "$T/nan.gguf" <<'END'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-6:-4] = b"\xc0\x7f" # the last but one float
data[-8:-6] = b"\0\0"
open(sys.argv[2], "wb").write(data)
END
}

# field EXPRESSION: prints a Python expression of d, the JSON object in $output.
field() {
    printf '%s' "$output" | python3 -c 'import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

# on_terminal COMMAND...: runs the command on a terminal (stdin, stdout, stderr) and prints what appears there.
on_terminal() {
    python3 -c 'import os, pty, sys
status = pty.spawn(sys.argv[1:], lambda fd: os.read(fd, 1024), lambda fd: b"")
sys.exit(os.waitstatus_to_exitcode(status))' "$@" </dev/null
}

# asserts CONDITION...: [ ] that prints its arguments when it fails.
asserts() {
    [ "$@" ] || { echo "not true: $*"; return 1; }
}
