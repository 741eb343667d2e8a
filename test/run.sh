#!/usr/bin/env bash
# test/run.sh BUILD PART...: runs parts of the suite against what lies in the build folder BUILD, and ends with one line
#
#     N passed, N failed, N skipped
#
# A part is a function below that prints one line per test, as TAP has it (`ok ...`, `not ok ...`, `ok ... # skip why`)
# or as the unit tests do (`skipped NAME: why`), and says how many there are: a plan `1..N`, or the unit tests' own
# count.  A part that dies, hangs or stops before its last test is one more failure, and so is a run without any test.
set -u
cd "$(dirname "$0")/.."
build=$1
shift

part_layers() { scripts/check_layers.sh; }
part_docs() { scripts/check_docs.sh; }
part_unit() { "$build/test_unit" -j "$(nproc)"; }
part_cli() { ZGEN=$PWD/$build/zgen bats --tap test/cli; }
part_hostile() { test/hostile/run.sh "$build/zgen"; }

part_aarch64() {
    if [ "$(uname -m)" = aarch64 ]; then
        echo "1..1"
        echo "ok 1 aarch64 # skip this machine is one: its unit tests have run"
    elif ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        echo "1..1"
        echo "ok 1 aarch64 # skip no cross compiler or no qemu-user (make aarch64 installs them)"
    else
        env -u MAKEFLAGS -u MAKELEVEL make cross && qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/test_unit -j "$(nproc)"
    fi
}

# Reads a part's output; prints "passed failed skipped complete", complete being 1 when all that was promised came.
count() {
    awk '/^1\.\.[0-9]+/ { promised += substr($1, 4); told = 1 }
         /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { promised += $1 + $3 + $5; told = 1 }
         /^not ok / { f++; next }
         /^ok .*# skip/ || /^skipped / { s++; next }
         /^ok / { p++ }
         END { print p + 0, f + 0, s + 0, (told && promised == p + f + s) ? 1 : 0 }' "$1"
}

out=$(mktemp)
all=$(mktemp)
trap 'rm -f "$out" "$all"' EXIT
export -f part_layers part_docs part_unit part_cli part_hostile part_aarch64
export build
passed=0 failed=0 skipped=0
for part in "$@"; do
    echo "== $part"
    timeout -k 10 900 bash -c "part_$part" </dev/null 2>&1 | tee "$out"
    status=${PIPESTATUS[0]}
    read -r p f s complete <<<"$(count "$out")"
    if [ "$complete" = 0 ] || [ "$status" != 0 ] && [ "$f" = 0 ] || [ "$status" -gt 1 ]; then
        echo "not ok $part: ended with status $status after $((p + f + s)) tests" | tee -a "$out"
        f=$((f + 1))
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    grep -E '^(not ok |skipped |ok .*# skip)' "$out" | sed "s/^/$part: /" >>"$all"
done

if [ -s "$all" ]; then
    echo "== what did not pass"
    cat "$all"
fi
[ $((passed + failed)) -gt 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
