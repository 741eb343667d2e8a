# zgen imatrix, and zgen quantize --imatrix.
load helper

text() { head -c 6000 README.md >"$T/text"; }

@test "a matrix is made, read, and weighs errors" {
    text
    zgen imatrix -m "$tiny" -f "$T/text" -o "$T/m.gguf" -c 64 --chunks 3 -v
    [[ "$status" = 0 && -z "$output" && "$stderr" == *"m.gguf: 21 tensors, 3 windows of 64 tokens, in "* ]] || { echo "$stderr"; false; }
    zgen quantize "$tiny" "$T/q.gguf" q4_0 --imatrix "$T/m.gguf" -v
    [[ "$status" = 0 && "$stderr" == *"m.gguf: importance of 21 of 23 tensors"* && "$stderr" == *"blk.2.ffn_up.weight [64, 128] F32 to Q4_0, weighed, RMSE"* ]] || { echo "$stderr"; false; }
    zgen info "$T/q.gguf" --keys
    [[ "$output" == *"quantize.imatrix.file"*"m.gguf"* && "$output" == *"quantize.imatrix.chunks_count"*3* ]] || { echo "$output"; false; }
    zgen quantize "$tiny" "$T/plain.gguf" q4_0
    ! cmp -s "$T/q.gguf" "$T/plain.gguf"
    zgen quantize "$tiny" "$T/one.gguf" q4_0 --imatrix "$T/m.gguf" -t 1
    zgen quantize "$tiny" "$T/three.gguf" q4_0 --imatrix "$T/m.gguf" -t 3
    cmp "$T/one.gguf" "$T/three.gguf"
    zgen quantize "$tiny" "$T/q.gguf" q2_k_s --imatrix "$T/m.gguf"
    asserts "$status" = 0
}

@test "the same matrix from the same text, with the output when that is wanted" {
    text
    zgen imatrix -m "$tiny" -f "$T/text" -o "$T/a.gguf" -c 64 --chunks 2 -t 1
    run --separate-stderr "$ZGEN" imatrix -m "$tiny" -f - -o "$T/b.gguf" -c 64 --chunks 2 -t 3 <"$T/text"
    asserts "$status" = 0
    cmp <(tail -c 4096 "$T/a.gguf") <(tail -c 4096 "$T/b.gguf")
    zgen imatrix -m "$tiny" -f "$T/text" -o "$T/c.gguf" -c 64 --chunks 2 --process-output -v
    [[ "$status" = 0 && "$stderr" == *": 22 tensors, "* ]] || { echo "$stderr"; false; }
}

@test "what is no matrix, or one of another model" {
    text
    zgen imatrix -m "$tiny" -f "$T/text" -o "$T/m.gguf" -c 64 --chunks 1
    fails 2 "of another model" quantize test/data/models/llama-Q4_0.gguf "$T/q.gguf" q8_0 --requantize --imatrix "$T/m.gguf"
    fails 3 "this is no importance matrix" quantize "$tiny" "$T/q.gguf" q4_0 --imatrix "$tiny"
    fails 3 "this is no importance matrix" quantize "$tiny" "$T/q.gguf" q4_0 --imatrix "$T/text"
    fails 3 "/nonexistent" quantize "$tiny" "$T/q.gguf" q4_0 --imatrix /nonexistent
    fails 2 "of no use without an importance matrix" quantize "$tiny" "$T/q.gguf" q2_k_s
    fails 2 "is an input of this run" quantize "$tiny" "$T/m.gguf" q4_0 --imatrix "$T/m.gguf"
    fails 3 "importance matrix" -m "$T/m.gguf" -p x
    head -c 3000 "$T/m.gguf" >"$T/cut.gguf"
    fails 3 "cut.gguf" quantize "$tiny" "$T/q.gguf" q4_0 --imatrix "$T/cut.gguf"
    [ ! -e "$T/q.gguf" ]
}

@test "a wrong command line of imatrix" {
    text
    fails 2 "no text: give -f FILE" imatrix -m "$tiny"
    fails 2 "the text is given with -f" imatrix -m "$tiny" "$T/text"
    fails 2 "a window of 1 token is too short" imatrix -m "$tiny" -f "$T/text" -c 1
    fails 1 "less than a window of 100000" imatrix -m "$tiny" -f "$T/text" -c 100000
    fails 2 "is an input of this run" imatrix -m "$tiny" -f "$T/text" -o "$tiny" -c 64 --chunks 1
    fails 5 "/nonexistent/m.gguf" imatrix -m "$tiny" -f "$T/text" -o /nonexistent/m.gguf -c 64 --chunks 1
}

@test "experts without a token are said" {
    echo "one two" >"$T/text"
    zgen imatrix -m test/data/models/llama-moe-Q4_0.gguf -f "$T/text" -o "$T/m.gguf" -c 2 --chunks 1
    [[ "$status" = 0 && "$stderr" == "zgen: warning: "*" matrices saw no token of the text; use a longer one" ]] || { echo "$stderr"; false; }
    zgen quantize test/data/models/llama-moe-Q4_0.gguf "$T/q.gguf" q5_0 --requantize --imatrix "$T/m.gguf"
    asserts "$status" = 0
}
