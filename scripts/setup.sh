#!/bin/sh
# setup.sh run|test|fuzz|format|aarch64: installs the packages that this make target lacks, with apt-get.
#
# Prints nothing where no package is missing.  Otherwise it names each missing package and its use, then installs them
# (by sudo, unless root); without root and sudo it prints the command and fails.  A tool is found by using it, not by
# its package's name, so that one from another source is accepted.
set -eu

packages=
reasons=
lack() { # PACKAGES REASON
    packages="$packages $1"
    reasons="$reasons    $1: $2
"
}

# Does this C text compile and link?  Further arguments go to the compiler.
compiles() { # COMPILER TEXT [FLAG...]
    compiler=$1 text=$2
    shift 2
    printf '%s\n' "$text" | $compiler -x c -o /dev/null - "$@" >/dev/null 2>&1
}

look_run() {
    compiles "${CC:-cc}" '#include <stdio.h>
        int main(void) { return puts(""); }' || lack 'gcc libc6-dev' 'compiles C'
    compiles "${CC:-cc}" '#include <jansson.h>
        int main(void) { return json_true() == NULL; }' -l:libjansson.a || lack libjansson-dev 'reads and writes JSON'
    compiles "${CC:-cc}" '#define PCRE2_CODE_UNIT_WIDTH 8
        #include <pcre2.h>
        int main(void) { int one; return pcre2_config(PCRE2_CONFIG_UNICODE, &one); }' -l:libpcre2-8.a ||
        lack libpcre2-dev 'cuts text into words'
    compiles "${CC:-cc}" '#include <stdio.h>
        #include <histedit.h>
        int main(void) { return el_init("", stdin, stdout, stderr) == NULL; }' \
        -l:libedit.a -l:libtinfo.a -l:libbsd.a -l:libmd.a ||
        lack 'libedit-dev libbsd-dev' 'edits the lines of a chat'
}

look_test() {
    look_run
    command -v bats >/dev/null || lack bats 'runs the command-line tests'
    python3 -c '' 2>/dev/null || lack python3 'writes the malformed model files of the tests'
}

look_fuzz() {
    look_run
    compiles clang 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n == 0; }' \
        -fsanitize=fuzzer,address,undefined || lack 'clang libclang-rt-dev' 'brings the fuzzer'
}

look_format() {
    command -v clang-format >/dev/null || lack clang-format 'formats the sources'
}

look_aarch64() {
    compiles aarch64-linux-gnu-gcc '#include <stdio.h>
        int main(void) { return puts(""); }' ||
        lack 'gcc-aarch64-linux-gnu libc6-dev-arm64-cross' 'compiles for aarch64'
    command -v qemu-aarch64 >/dev/null || lack qemu-user 'runs programs for aarch64'
}

say() { printf '%s\n' "$*" >&2; }

what=${1:-}
case $what in
run | test | fuzz | format | aarch64) "look_$what" ;;
*) say "usage: scripts/setup.sh run|test|fuzz|format|aarch64" && exit 2 ;;
esac
[ -n "$packages" ] || exit 0

install="apt-get install --yes --no-install-recommends$packages"
say "Missing for make $what:"
printf '%s' "$reasons" >&2
if ! command -v apt-get >/dev/null; then
    say "apt-get is missing: please install these packages (Debian's names) and try again."
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    root='env DEBIAN_FRONTEND=noninteractive'
elif command -v sudo >/dev/null; then
    root='sudo env DEBIAN_FRONTEND=noninteractive'
else
    say "This needs root or sudo.  Please run as root, then try again:
    apt-get update && $install"
    exit 1
fi

say "Installing: $install"
apt-cache show $packages >/dev/null 2>&1 || $root apt-get -q update >&2
$root $install >&2 || { $root apt-get -q update >&2 && $root $install >&2; } || {
    say "The installation failed.  By hand: apt-get update && $install"
    exit 1
}
packages= reasons=
"look_$what"
[ -z "$packages" ] || { say "Installed, and still missing:" && printf '%s' "$reasons" >&2 && exit 1; }
