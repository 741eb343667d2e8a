#!/bin/sh
# check_docs.sh: every file that is named exists.  Checked are the paths between backticks in README.md, ARCHITECTURE.md
# and CONTRIBUTING.md; the files that comments cite, in sources, scripts and tests; and the lines of printed plans in
# ARCHITECTURE.md, which must be lines of test/data/plan.  Prints TAP; each check lists all that breaks it.
#
# A path may be given from the top of the tree or by its end ("act.h", "unit/rig.h"); * matches anything but /.  Not
# checked: paths in build/ and ../shared/, and code, whose includes the compiler checks.
#
# Before it judges the tree it judges a small one with planted misses.
set -eu
cd "$(dirname "$0")/.."

files() { find . \( -path ./build -o -path ./.git \) -prune -o -type f -print | sed 's|^\./||'; }

# Reads lines FILE:LINE:PATH, prints those whose path no file or folder of the tree has, from the top or by its end.
missing() {
    files >"$list"
    awk -v list="$list" '
    BEGIN {
        while ((getline path < list) > 0) {
            n = split(path, part, "/")
            for (i = n; i >= 1; i--) {
                end = i == n ? part[i] : part[i] "/" end
                have[end]
            }
            for (i = 1; i < n; i++) {
                folder = i == 1 ? part[1] : folder "/" part[i]
                have[folder]
                have[folder "/"]
            }
        }
    }
    function exists(path,    pattern, end) {
        if (path in have) return 1
        if (path !~ /\*/) return 0
        pattern = path
        gsub(/\./, "\\.", pattern)
        gsub(/\*/, "[^/]*", pattern)
        for (end in have) if (end ~ "^" pattern "$") return 1
        return 0
    }
    {
        split($0, field, ":")
        path = substr($0, length(field[1] field[2]) + 3)
        if (path !~ /^(build|\.\.\/shared)\// && !exists(path)) print
    }'
}

# The paths between backticks in the documents named as arguments: what ends like a source or a document, or begins with
# a folder of the tree.  Lines of code, which begin with four spaces, are left out.
document_paths() {
    awk '
    FNR == 1 { code = 0 }
    /^    / { next }
    {
        n = split($0, part, "`")
        for (i = 2; i <= n; i += 2)
            if (part[i] ~ /^[A-Za-z0-9_.\/*-]+$/ &&
                part[i] ~ /(\.(c|h|cu|cuh|S|sh|md|bats|py|txt|1)$)|(^(src|cuda|test|scripts|models|\.ci)\/)/ &&
                part[i] !~ /^NAME\./)
                print FILENAME ":" FNR ":" part[i]
    }' "$@"
}

# The files that comments cite, by their ending: in C and CUDA the text behind // or between /* and */, elsewhere the
# lines that begin with #.
comment_paths() {
    awk '
    function comment(line,    text, n, a, b) {
        text = ""
        while (line != "") {
            if (inside) {
                n = index(line, "*/")
                text = text (n ? substr(line, 1, n - 1) " " : line)
                line = n ? substr(line, n + 2) : ""
                inside = n == 0
            } else {
                a = index(line, "/*")
                b = index(line, "//")
                if (b && (!a || b < a)) return text substr(line, b + 2)
                line = a ? substr(line, a + 2) : ""
                inside = a > 0
            }
        }
        return text
    }
    FNR == 1 { inside = 0 }
    {
        if (FILENAME ~ /\.(c|h|cu|cuh)$/) text = comment($0)
        else if ($0 ~ /^[ \t]*#/) text = $0
        else next
        n = split(text, word, /[^A-Za-z0-9_.\/*<-]+/)
        for (i = 1; i <= n; i++) {
            sub(/[.]+$/, "", word[i])
            if (word[i] ~ /^[A-Za-z0-9_.\/*-]*[A-Za-z0-9_*][A-Za-z0-9_*]\.(c|h|cu|cuh|sh|md|bats|py)$/)
                print FILENAME ":" FNR ":" word[i]
        }
    }' "$@"
}

# The lines of plans in the first file that are no line of the others, as FILE:LINE.  "..." matches anything, and
# spaces for any number of spaces.
foreign_plan_lines() {
    awk '
    function squeezed(line) {
        gsub(/[ \t]+/, " ", line)
        sub(/ $/, "", line)
        return line
    }
    function pattern(line) {
        gsub(/[][.*+?(){}|^$\\]/, "\\\\&", line)
        gsub(/\\\.\\\.\\\./, ".*", line)
        return "^" line "$"
    }
    NR == FNR && /^ +[0-9]+ +([0-9]+|-) +[A-Z]+ / { quoted[FILENAME ":" FNR] = pattern(squeezed($0)) }
    NR > FNR { plan[squeezed($0)] }
    END {
        for (at in quoted) {
            found = 0
            for (line in plan) found += line ~ quoted[at]
            if (!found) print at
        }
    }' "$@" | sort
}

documents="README.md ARCHITECTURE.md CONTRIBUTING.md"
sources() { files | grep -E '(\.(c|h|cu|cuh|sh|bats|bash|py)|Makefile|\.ci/run|plot_bench)$' | sort; }

planted=$(mktemp -d)
list=$(mktemp)
trap 'rm -rf "$planted" "$list"' EXIT
found=$(
    cd "$planted"
    mkdir -p src/base
    printf '/* err: see err.h and\n * base/lost.h. */\n#include "gone.h"\n' >src/base/err.c
    printf 'int a; // as GUIDE.md says, unlike README.md\n' >src/base/err.h
    printf '# run.sh: see lost.sh\necho other.sh\n' >run.sh
    printf '`src/base/err.c`, `err.h`, `src/base/*.h`, `src/`, `n_embd`, `model.gguf`\n    `code.c`\n' >README.md
    printf '`src/base/lost.c` and `src/attic/`, `src/*/lost_*.c`\n' >ARCHITECTURE.md
    printf '    1  0 NORM a  r1 <- r0\n    2  - ADD b  r2 ... r1\n    3  0 ADD c  r2 ...\n' >CONTRIBUTING.md
    printf '   1    0 NORM    a r1 <- r0\n   2    - ADD  b  r2 <- r0, r1\n   3    0 ADD  c  r3 <- r0\n' >plan.txt
    document_paths $documents | missing
    comment_paths $(sources) | missing
    foreign_plan_lines CONTRIBUTING.md plan.txt
)

# judge NUMBER WHAT FOUND WANTED: a line of TAP, and what was found where it is not what was wanted.
judge() {
    if [ "$3" = "$4" ]; then
        echo "ok $1 $2"
    else
        printf '%s\nnot ok %s %s\n' "$3" "$1" "$2"
        exit 1
    fi
}

echo "1..4"
judge 1 "the check of documents finds each of seven planted misses and nothing else" "$found" \
    "ARCHITECTURE.md:1:src/base/lost.c
ARCHITECTURE.md:1:src/attic/
ARCHITECTURE.md:1:src/*/lost_*.c
run.sh:1:lost.sh
src/base/err.c:2:base/lost.h
src/base/err.h:1:GUIDE.md
CONTRIBUTING.md:3"
judge 2 "every path in $documents exists" "$(document_paths $documents | missing)" ""
judge 3 "every file that comments of $(sources | wc -l) files cite exists" "$(comment_paths $(sources) | missing)" ""
judge 4 "the lines of plans in ARCHITECTURE.md are those of test/data/plan" \
    "$(foreign_plan_lines ARCHITECTURE.md test/data/plan/*.txt)" ""
