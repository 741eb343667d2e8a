#!/bin/sh
# golden_tapes.sh [MODEL...]: writes the golden tapes of those models again, test/data/plan/MODEL.cpu.txt and .cuda.txt
# (all of them, without an argument), as build/test_unit prints them.  A model is a file of test/data/models without its
# ".gguf".  Look at the difference before it is committed.
set -eu
cd "$(dirname "$0")/.."
tapes=test/data/plan
[ $# -gt 0 ] || set -- $(ls $tapes | sed 's/\.[a-z]*\.txt$//' | sort -u)
for model; do
    for executor in cpu cuda; do : >"$tapes/$model.$executor.txt"; done # an empty one is printed whole
    build/test_unit plan_prints_the_golden_tapes 2>&1 | awk -v model="$tapes/$model." '
        !/^ *[0-9]+ / { file = "" }
        / no .*, which would be$/ && index($3, model) == 1 { file = $3; sub(/,$/, "", file); next }
        file { print >file }'
done
build/test_unit plan_prints_the_golden_tapes >/dev/null 2>&1 || {
    echo "$0: a tape differs still: build/test_unit plan_prints_the_golden_tapes" >&2
    exit 1
}
