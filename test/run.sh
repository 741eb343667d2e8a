#!/usr/bin/env bash
# test/run.sh BUILD PART...: runs parts of the suite against what lies in the build folder BUILD, and ends with one line
#
#     N passed, N failed, N skipped
#
# A part is a function below that prints one line per test, in TAP (`ok ...`, `not ok ...`, `ok ... # skip why`) or in
# the form of the unit tests (`skipped NAME: why`), and the number of tests: a plan `1..N`, or the unit tests' count.  A
# part that crashes, hangs or ends before its last test counts as one more failure, and so does a run without tests.
set -u
cd "$(dirname "$0")/.."
build=$1
shift

part_layers() { scripts/check_layers.sh; }
part_docs() { scripts/check_docs.sh; }
part_unit() { "$build/test_unit" -j "$(nproc)"; }
part_cli() { ZGEN=$PWD/$build/zgen bats --tap test/cli; }
part_hostile() { test/hostile/run.sh "$build/zgen"; }
part_mutations() { test/hostile/mutate.py "$build/zgen" --seconds 60; }

part_aarch64() {
    if [ "$(uname -m)" = aarch64 ]; then
        echo "1..1"
        echo "ok 1 aarch64 # skip this machine is an aarch64: its unit tests have run"
    elif ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
        echo "1..1"
        echo "ok 1 aarch64 # skip no cross compiler or no qemu-user (make aarch64 installs them)"
    else
        env -u MAKEFLAGS -u MAKELEVEL make cross && qemu-aarch64 -L /usr/aarch64-linux-gnu build/aarch64/test_unit -j "$(nproc)"
    fi
}

# Reads a part's output; prints "passed failed skipped complete"; complete is 1 when as many tests ran as announced.
count() {
    awk '/^1\.\.[0-9]+/ { n += substr($1, 4); announced = 1 }
         /^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$/ { n += $1 + $3 + $5; announced = 1 }
         /^not ok / { f++; next }
         /^ok .*# skip/ || /^skipped / { s++; next }
         /^ok / { p++ }
         END { print p + 0, f + 0, s + 0, (announced && n == p + f + s) ? 1 : 0 }' "$1"
}

out=$(mktemp)
all=$(mktemp)
trap 'rm -f "$out" "$all"' EXIT
export -f part_layers part_docs part_unit part_cli part_hostile part_mutations part_aarch64
export build
passed=0 failed=0 skipped=0
for part in "$@"; do
    echo "== $part"
    timeout -k 10 1500 bash -c "part_$part" </dev/null 2>&1 | tee "$out"
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
