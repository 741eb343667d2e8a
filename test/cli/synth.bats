# zgen synth: models of random weights.
load helper

@test "synth: the same seed makes the same model, another seed another one" {
    for name in a b; do zgen synth llama-3.2-1b q4_0 "$T/$name" --layers 1; [ "$status" = 0 ]; done
    cmp "$T/a" "$T/b"
    zgen synth llama-3.2-1b q4_0 "$T/b" --layers 1 --seed 2 -t 1
    [ "$(stat -c %s "$T/a")" = "$(stat -c %s "$T/b")" ]
    run ! cmp -s "$T/a" "$T/b"
    zgen info "$T/a" --json
    asserts "$(field 'd["architecture"]')/$(cd "$T" && echo ? ?.*)" = "llama/a b ?.*"
}

@test "synth: the model generates tokens" {
    zgen synth llama-3.2-1b q4_0 "$T/m.gguf" --layers 1
    zgen -m "$T/m.gguf" -p aaaa --temp 0 -n 3 --ignore-eos --json
    asserts "$status/$(field 'd["counts"]["prompt"], d["counts"]["generated"]')" = "0/(8, 3)"
}

@test "synth leaves no file when it fails" {
    mkdir "$T/m.gguf" # which no file can take the place of
    zgen synth llama-3.2-1b q4_0 "$T/m.gguf" --layers 1
    asserts "$status/$(cd "$T" && echo m.gguf*)" = "5/m.gguf"
}
