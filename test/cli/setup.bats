# scripts/setup.sh on machines that lack everything: PATH holds only the commands that a test plants.

setup() {
    bin=$BATS_TEST_TMPDIR/bin
    mkdir "$bin"
    ln -s "$(command -v env)" "$bin/env"
}

# Plants a command of this name that records its arguments and prints OUTPUT.
plant() { # NAME OUTPUT
    printf '#!/bin/sh\necho "%s $*" >>"%s"\necho "%s"\n' "$1" "$BATS_TEST_TMPDIR/calls" "$2" >"$bin/$1"
    chmod +x "$bin/$1"
}

set_up() { PATH=$bin CC=cc run /bin/sh scripts/setup.sh "$1"; }

@test "set-up is silent where nothing is missing" {
    run scripts/setup.sh run
    [ "$status" = 0 ]
    [ -z "$output" ]
}

@test "set-up without root and sudo prints the command and fails" {
    plant apt-get
    plant id 1000
    set_up run
    [ "$status" = 1 ]
    [[ $output == *"apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev libjansson-dev"* ]]
    [ "$(cat "$BATS_TEST_TMPDIR/calls")" = "id -u" ]
}

@test "set-up with sudo says why, installs without questions, and looks again" {
    plant apt-get
    plant apt-cache
    plant id 1000
    plant sudo
    set_up test
    [ "$status" = 1 ]
    [[ $output == *"bats: runs the command-line tests"* ]]
    [[ $output == *"still missing"* ]]
    grep -q "^sudo env DEBIAN_FRONTEND=noninteractive apt-get install --yes .* bats python3$" "$BATS_TEST_TMPDIR/calls"
}

@test "set-up as root updates the package lists only when they do not know a package" {
    plant apt-get
    plant apt-cache
    plant id 0
    set_up run
    [ "$(grep -c "apt-get .*update" "$BATS_TEST_TMPDIR/calls")" = 0 ]
    printf '#!/bin/sh\nexit 100\n' >"$bin/apt-cache"
    set_up run
    grep -q "apt-get .*update" "$BATS_TEST_TMPDIR/calls"
}

@test "set-up without apt-get names what to install" {
    plant id 0
    set_up run
    [ "$status" = 1 ]
    [[ $output == *"libjansson-dev"*"apt-get is missing"* ]]
}

@test "set-up never asks for CUDA to run" {
    plant id 1000
    plant apt-get
    set_up run
    [[ ${output,,} != *cuda* ]]
}
