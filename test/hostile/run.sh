#!/usr/bin/env bash
# test/hostile/run.sh ZGEN: gives the program every file of the hostile corpus and prints TAP.
#
# make_hostile.py writes the files and manifest.tsv: file, exit code, a part of the message.  A refusal is one
# line on stderr (warnings aside) and nothing on stdout, within the time and the address space below; a file that
# is only odd (code 0) must generate.
set -u
cd "$(dirname "$0")/../.."
zgen=$1
corpus=$(mktemp -d)
trap 'rm -rf "$corpus"' EXIT
python3 test/hostile/make_hostile.py "$corpus" >/dev/null || exit 2

# The sanitizers reserve address space by the terabyte.
grep -qa __asan_init "$zgen" || ulimit -v 4000000
seconds=20

echo "1..$(wc -l <"$corpus/manifest.tsv")"
n=0
while IFS=$'\t' read -r file code message; do
    n=$((n + 1))
    timeout -k 1 $seconds "$zgen" -m "$corpus/$file" -p x -n 1 --ignore-eos >"$corpus/out" 2>"$corpus/err" </dev/null
    got=$?
    wrong=
    [ "$got" = "$code" ] || wrong="exit code $got instead of $code"
    if [ "$code" != 0 ] && [ -z "$wrong" ]; then
        [ ! -s "$corpus/out" ] || wrong="text on stdout"
        [ "$(grep -vc '^zgen: warning: ' "$corpus/err")" = 1 ] || wrong="not one sentence on stderr"
        grep -qF -- "$message" "$corpus/err" || wrong="the message lacks '$message'"
    fi
    if [ -z "$wrong" ]; then
        echo "ok $n $file"
    else
        echo "not ok $n $file: $wrong; stderr: $(head -c 300 "$corpus/err" | tr '\n' '|')"
    fi
done <"$corpus/manifest.tsv"
[ "$n" -gt 0 ]
