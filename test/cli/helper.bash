# helper: what all command-line tests share.  The program is $ZGEN (./zgen without it), so that a sanitized build runs the
# same tests; the tests start at the top of the tree.
bats_require_minimum_version 1.5.0

setup() {
    cd "$BATS_TEST_DIRNAME/../.." || exit 1
    ZGEN=${ZGEN:-./zgen}
    T=$BATS_TEST_TMPDIR
    tiny=test/data/models/llama-s-F32.gguf
}

# zgen ARGUMENT...: the program with no input; into $status, $output (stdout) and $stderr.
zgen() { run --separate-stderr "$ZGEN" "$@" </dev/null; }

# fails CODE TEXT ARGUMENT...: the program refuses with this code and, warnings aside, one line on stderr that holds TEXT;
# stdout is empty.
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

# leaves_nothing ARGUMENT...: the program, interrupted as soon as it has begun a file in the folder $T/d, leaves none there,
# says nothing, and ends with 130.
leaves_nothing() {
    "$ZGEN" "$@" >/dev/null 2>"$T/err" </dev/null 3>&- &
    local pid=$! code=0
    for _ in $(seq 200); do [ -z "$(ls "$T/d")" ] || break; sleep 0.05; done
    [ -n "$(ls "$T/d")" ] || { echo "$*: began no file in $T/d"; return 1; }
    kill -s INT $pid
    wait $pid || code=$?
    asserts "$code/$(ls "$T/d")/$(cat "$T/err")" = "130//"
}

# damage: $T/nan.gguf, the tiny model with a weight of its last layer that is no number.
damage() {
    python3 - "$tiny" "$T/nan.gguf" <<'END'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-6:-4] = b"\xc0\x7f" # the last but one float
data[-8:-6] = b"\0\0"
open(sys.argv[2], "wb").write(data)
END
}

# field EXPRESSION: of the JSON object d in $output, by Python.
field() {
    printf '%s' "$output" | python3 -c 'import json, sys
d = json.load(sys.stdin)
print(eval(sys.argv[1]))' "$1"
}

# on_terminal COMMAND...: with a terminal for stdin, stdout and stderr; prints what appears on it.
on_terminal() {
    python3 -c 'import os, pty, sys
status = pty.spawn(sys.argv[1:], lambda fd: os.read(fd, 1024), lambda fd: b"")
sys.exit(os.waitstatus_to_exitcode(status))' "$@" </dev/null
}

# asserts CONDITION...: [ ] that says what it compared.
asserts() {
    [ "$@" ] || { echo "not true: $*"; return 1; }
}
