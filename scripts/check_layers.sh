#!/bin/sh
# check_layers.sh: nothing points back.  Each room includes headers of the rooms below it only; the table here is the
# one in README.md.  Prints TAP and fails on the first line that breaks it (all such lines are listed).
#
# Before it judges the tree it judges a small one with planted violations: a check that finds nothing must be shown
# to be able to find something.
set -eu
cd "$(dirname "$0")/.."

# Reads the sources named as arguments (paths from the top of a tree), prints one line per forbidden include.
violations() {
    awk '
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

    # The room of a path, and the path from that room on: src/plan/family/x.c is of plan, cuda/x.cu of cuda.
    function place(path) { sub(/^src\//, "", path); return path }
    function room(path) { path = place(path); sub(/[\/.].*/, "", path); return path }

    function resolve(from, name,    path) {
        path = from
        sub(/[^\/]*$/, "", path)
        path = path name
        while (sub(/[^\/]+\/\.\.\//, "", path)) continue
        return path
    }

    function allowed(from, to,    list, n, i) {
        if (room(from) == room(to)) return 1
        n = split(may[room(from)], list, " ")
        for (i = 1; i <= n; i++) if (list[i] == room(to) || list[i] == place(to)) return 1
        return 0
    }

    /^[ \t]*#[ \t]*include[ \t]*"/ {
        split($0, part, "\"")
        target = resolve(FILENAME, part[2])
        if (!(room(FILENAME) in may)) print FILENAME ": no room of the table"
        else if (!allowed(FILENAME, target)) print FILENAME ":" FNR ": " room(FILENAME) " may not include " target
    }
    /^[ \t]*#[ \t]*include[ \t]*<cuda/ && room(FILENAME) != "cuda" {
        print FILENAME ":" FNR ": CUDA headers stay in cuda/"
    }' "$@"
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
echo "1..2"
if [ "$(printf '%s\n' "$found" | wc -l)" = 7 ] && ! printf '%s\n' "$found" | grep -q '/a\.c'; then
    echo "ok 1 the layer check finds each of seven planted violations and nothing else"
else
    printf 'not ok 1 the layer check finds each of seven planted violations and nothing else\n%s\n' "$found"
    exit 1
fi

found=$(violations $(sources))
if [ -z "$found" ]; then
    echo "ok 2 every include of $(sources | wc -l) files goes down the table of rooms"
else
    printf '%s\nnot ok 2 every include goes down the table of rooms\n' "$found"
    exit 1
fi
