#!/bin/sh
# check_layers.sh: includes go down.  A room (a folder of the table in README.md, which is repeated here) includes headers
# of the rooms below it only, and inside a room includes form no circle, a header and its source counted as one.  Prints
# TAP; each check lists every violation.
#
# The checks are run on small trees with planted violations first, which they must find.
set -eu
cd "$(dirname "$0")/.."

# For awk: the path of a file that is included as `name` by the file `from`; nothing if the line includes none.
included='
    function resolve(from, name,    path) {
        path = from
        sub(/[^\/]*$/, "", path)
        path = path name
        while (sub(/[^\/]+\/\.\.\//, "", path)) continue
        return path
    }
    function included(    part) {
        if ($0 !~ /^[ \t]*#[ \t]*include[ \t]*"/) return ""
        split($0, part, "\"")
        return resolve(FILENAME, part[2])
    }'

# Reads the sources named as arguments (paths from the top of a tree), prints one line per forbidden include.
violations() {
    awk "$included"'
    BEGIN {
        may["base"] = ""
        may["gguf"] = "base"
        may["jinja"] = "base"
        may["text"] = "base gguf jinja"
        may["plan"] = "base gguf"
        may["exec"] = "base gguf plan"
        may["cpu"]  = "base gguf plan exec"
        may["cuda"] = "base gguf plan exec"
        may["run"]  = "base gguf plan exec text cpu/cpu.h cuda/cuda.h"
        may["cli"]  = "base gguf plan exec text cpu cuda run"
        may["bench"] = "base gguf plan exec text cpu cuda run cli"
        may["main"] = "cli bench"
    }

    # The room of a path, and the path from that room on: src/plan/family/llama.c is of plan, cuda/layout.h of cuda.
    function place(path) { sub(/^src\//, "", path); return path }
    function room(path) { path = place(path); sub(/[\/.].*/, "", path); return path }

    function allowed(from, to,    list, n, i) {
        if (room(from) == room(to)) return 1
        n = split(may[room(from)], list, " ")
        for (i = 1; i <= n; i++) if (list[i] == room(to) || list[i] == place(to)) return 1
        return 0
    }

    (target = included()) {
        if (!(room(FILENAME) in may)) print FILENAME ": no room of the table"
        else if (!allowed(FILENAME, target)) print FILENAME ":" FNR ": " room(FILENAME) " may not include " target
    }
    /^[ \t]*#[ \t]*include[ \t]*<cuda/ && room(FILENAME) != "cuda" {
        print FILENAME ":" FNR ": CUDA headers stay in cuda/"
    }' "$@"
}

# Reads sources like violations, prints a line per include from one unit (a header and its source) of a circle to
# another.  A unit that includes no other, or that no other includes, is on no circle: such units are removed until none
# is left.
circles() {
    awk "$included"'
    function unit(path) { sub(/\.[^.\/]*$/, "", path); return path }

    (target = included()) && unit(target) != unit(FILENAME) { edge[unit(FILENAME) " includes " unit(target)] }

    END {
        do {
            split("", from)
            split("", to)
            for (e in edge) { split(e, part, " includes "); from[part[1]]; to[part[2]] }
            changed = 0
            for (e in edge) {
                split(e, part, " includes ")
                if (!(part[2] in from) || !(part[1] in to)) { delete edge[e]; changed = 1 }
            }
        } while (changed)
        for (e in edge) print e
    }' "$@" | sort
}

sources() { find . -path ./build -prune -o \( -path './src/*' -o -path './cuda/*' -o -path ./main.c \) \
    -name '*.[ch]*' -type f -print | sed 's|^\./||' | sort; }

plant() { # FILE INCLUDED
    mkdir -p "$(dirname "$1")"
    printf '#include %s\n' "$2" >>"$1"
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
found=$(
    cd "$planted"
    plant src/base/a.c '"a.h"'
    plant src/text/a.c '"../gguf/gguf.h"'
    plant src/plan/family/a.c '"../../base/err.h"'
    plant src/run/a.c '"../cpu/cpu.h"'
    plant main.c '"src/cli/cli.h"'
    plant src/gguf/bad.c '"../plan/plan.h"'
    plant src/cpu/bad.c '"../text/tok.h"'
    plant src/run/bad.c '"../cpu/kernels.h"'
    plant src/plan/family/bad.c '"../../exec/exec.h"'
    plant src/cli/bad.c '<cuda_runtime.h>'
    plant src/attic/bad.c '"../base/err.h"'
    plant main.c '"src/run/engine.h"'
    violations $(sources)
)
circle=$(
    mkdir "$planted/circle"
    cd "$planted/circle"
    plant src/plan/top.c '"plan.h"' # a line: top, plan, op
    plant src/plan/plan.h '"op.h"'
    plant src/plan/plan.c '"plan.h"'
    plant src/plan/op.c '"op.h"'
    plant src/text/bad_a.h '"bad_b.h"' # headers
    plant src/text/bad_b.h '"bad_a.h"'
    plant src/run/bad_a.c '"more/bad_b.h"' # a header, and a source through two others
    plant src/run/more/bad_b.c '"bad_c.h"'
    plant src/run/more/bad_c.h '"../bad_a.h"'
    circles $(sources)
)

# report NUMBER CHECK FOUND EXPECTED: a line of TAP, behind FOUND where that is not EXPECTED.
report() {
    if [ "$3" = "$4" ]; then
        echo "ok $1 $2"
    else
        printf '%s\nnot ok %s %s\n' "$3" "$1" "$2"
        exit 1
    fi
}

echo "1..4"
report 1 "the layer check finds each of seven planted violations and nothing else" "$found" \
    "main.c:2: main may not include src/run/engine.h
src/attic/bad.c: no room of the table
src/cli/bad.c:1: CUDA headers stay in cuda/
src/cpu/bad.c:1: cpu may not include src/text/tok.h
src/gguf/bad.c:1: gguf may not include src/plan/plan.h
src/plan/family/bad.c:1: plan may not include src/exec/exec.h
src/run/bad.c:1: run may not include src/cpu/kernels.h"
report 2 "the circle check finds two planted circles and nothing else" "$circle" "src/run/bad_a includes src/run/more/bad_b
src/run/more/bad_b includes src/run/more/bad_c
src/run/more/bad_c includes src/run/bad_a
src/text/bad_a includes src/text/bad_b
src/text/bad_b includes src/text/bad_a"
report 3 "every include of $(sources | wc -l) files goes down the table of rooms" "$(violations $(sources))" ""
report 4 "no includes inside a room form a circle" "$(circles $(sources))" ""
