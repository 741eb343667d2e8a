# The man page and README.md agree with the help and the exit codes.

@test "the man page has every option of zgen --help, and no other" {
    help=$(for command in generate chat info tokenize logits perplexity bench quantize imatrix split merge synth; do "$ZGEN" $command --help; done)
    manual=$(sed -e 's/^\.\\".*//' -e 's/\\-/-/g' -e 's/^\.RE*B* *//' -e 's/\\f.//g' -e 's/"//g' src/cli/zgen.1)
    names() { grep -oE '(^|[ ,(])--?[a-z][a-z-]*' <<<"$1" | tr -d ' ,(' | sort -u; }
    diff <(names "$help") <(names "$manual")
}

@test "README.md and the man page list the exit codes" {
    [ "$(grep -cE 'ERR_[A-Z]+ = [0-9]+' src/base/exit_code.h)" -gt 5 ]
    for code in $(grep -oE 'ERR_[A-Z]+ = [0-9]+' src/base/exit_code.h | grep -oE '[0-9]+$'); do
        grep -qE "^\|[0-9, ]*\b$code\b[0-9, ]*\|" README.md
        grep -qE "^[0-9, ]*\b$code\b[0-9, ]*	" src/cli/zgen.1
    done
}
