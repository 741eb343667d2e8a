# zgen perplexity: perplexity, logits files and KL divergence.
load helper

tiny_q4=test/data/models/llama-s-Q4_0.gguf
text=README.md

ppl() { zgen perplexity --device cpu "$@"; }

# MODEL BASE N_CTX WINDOWS: computes the same numbers from `zgen logits`, window by window, in Python's doubles.  Prints
# perplexity and its error, those of the base, mean, error and maximum of KL, the share of the same top token and its error.
by_hand() {
    python3 - "$ZGEN" "$@" "$T/l" <<'END'
import array, math, struct, subprocess, sys
zgen, model, path, n_ctx, n_windows, out = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6]
data = open(path, "rb").read()
assert data[:8] == b"_logits_"
c, v, w = struct.unpack("<iii", data[8:20])
assert c == n_ctx and w >= n_windows
rows, n_row = c - 1 - c // 2, 8 + 2 * (v + v % 2)
assert len(data) == 20 + 4 * c * w + w * rows * n_row
nll, base_nll, kl, same = [], [], [], []
for i in range(n_windows):
    ids = list(struct.unpack_from("<%di" % c, data, 20 + 4 * c * i))
    given = ",".join(map(str, [1] + ids[1:]))
    subprocess.run([zgen, "logits", "-m", model, "--ids", given, "-o", out, "--device", "cpu"], check=True)
    logits = array.array("f", open(out, "rb").read())
    for k in range(rows):
        at, next = c // 2 + k, ids[c // 2 + k + 1]
        row = logits[at * v:(at + 1) * v]
        total = math.log(sum(math.exp(x - max(row)) for x in row)) + max(row)
        place = 20 + 4 * c * w + (i * rows + k) * n_row
        scale, low = struct.unpack_from("<ff", data, place)
        base = [scale * q + low for q in struct.unpack_from("<%dH" % v, data, place + 8)]
        nll.append(total - row[next])
        base_nll.append(-base[next])
        kl.append(sum(math.exp(b) * (b - x + total) for b, x in zip(base, row) if b > -16))
        same.append(base.index(max(base)) == list(row).index(max(row)))
def estimate(x):
    mean = sum(x) / len(x)
    return mean, math.sqrt((sum(a * a for a in x) / len(x) - mean * mean) / (len(x) - 1))
def perplexity(x):
    mean, error = estimate(x)
    return math.exp(mean), math.exp(mean) * error
print(*perplexity(nll), *perplexity(base_nll), *estimate(kl), max(kl), *estimate(same))
END
}

@test "perplexity and KL divergence agree with the logits" {
    ppl -m "$tiny" -f $text -c 33 --chunks 3 --save-logits "$T/base"
    [ "$status" = 0 ]
    ppl -m $tiny_q4 --kl "$T/base" --json
    printf '%s' "$output" >"$T/json"
    by_hand $tiny_q4 "$T/base" 33 3 >"$T/numbers"
    python3 - "$T/json" "$T/numbers" <<'END'
import json, sys
d, wanted = json.load(open(sys.argv[1])), [float(x) for x in open(sys.argv[2]).read().split()]
b = d["base"]
pair = lambda x: [x["value"], x["error"]]
ours = pair(d["ppl"]) + pair(b["ppl"]) + pair(b["kl"]["mean"]) + [b["kl"]["max"]] + pair(b["same_top"])
print(ours, wanted)
assert d["tokens"] == 3 * 16 and all(abs(x - y) <= 1e-5 * abs(y) for x, y in zip(ours, wanted))
assert abs(d["running"][-1] - d["ppl"]["value"]) < 1e-6 * d["ppl"]["value"] and len(d["running"]) == 3
assert b["kl"]["median"] <= b["kl"]["p90"] <= b["kl"]["p99"]["value"] <= b["kl"]["p999"] <= b["kl"]["max"]
END
}

@test "the demo model's own text: the perplexity of llama-perplexity" {
    models=../shared/models
    [ -e $models/stories-test.txt ] || skip "no $models/stories-test.txt: llama-perplexity's numbers are not compared"
    ! grep -q __asan_init "$ZGEN" || skip "a sanitized program takes three minutes for it"
    ppl -m $models/stories-f16.gguf -f $models/stories-test.txt --json
    printf '%s' "$output" | python3 -c 'import json, sys
d, wanted = json.load(sys.stdin)["ppl"], json.load(open("test/data/models/stories.golden.json"))["perplexity"]["f16"]
print(d, wanted)
assert abs(d["value"] - wanted[0]) < 1e-4 and abs(d["error"] - wanted[1]) < 1e-5'
}

@test "a line for each number" {
    ppl -f $text -c 64 --chunks 2
    [[ "$status/$stderr" = "0/" && "$output" =~ ^PPL\ =\ [0-9.]+\ \+/-\ [0-9.]+$ ]] || { echo "$output $stderr"; false; }
    local alone=$output
    ppl -f $text -c 64 --chunks 2 --save-logits "$T/base" -q
    asserts "$output" = "$alone"
    ppl -f $text --kl "$T/base"
    asserts "${lines[0]}" = "$alone"
    asserts "$(sed 's/ = .*//' <<<"$output" | tr '\n' '|')" = \
        "PPL|PPL of base|ln(PPL / PPL of base)|KL mean|KL median|KL 90 %|KL 99 %|KL 99.9 %|KL max|same top %|"
}

@test "a model compared with itself: no divergence" {
    ppl -f $text -c 64 --chunks 4 --save-logits "$T/base"
    ppl --kl "$T/base" --json
    asserts "$(field 'abs(d["base"]["kl"]["mean"]["value"]) < 1e-5 and d["base"]["kl"]["max"] < 1.3e-4')" = True
    asserts "$(field 'd["base"]["same_top"]["value"] > 0.99 and d["windows"] == 4 and d["n_ctx"] == 64')" = True
}

@test "the same bytes and numbers from 1 and 2 threads, a file and stdin, any -b" {
    ppl -f $text -c 64 --chunks 3 --save-logits "$T/one" -t 1
    local one=$output
    ppl -f $text -c 64 --chunks 3 --save-logits "$T/two" -t 2 -b 7
    asserts "$output" = "$one"
    cmp "$T/one" "$T/two"
    run "$ZGEN" perplexity --device cpu -f - -c 64 --chunks 3 <$text
    asserts "$output" = "$one"
    asserts "$(stat -c %s "$T/one")" = $((20 + 3 * 64 * 4 + 3 * 31 * (8 + 2 * 2048)))
}

@test "one newline at the end is dropped, any other is text" {
    printf 'A' >"$T/text"
    fails 1 "the text has 2 tokens, less than two windows of 8" perplexity -f "$T/text" -c 8
    printf 'A\n' >"$T/text"
    fails 1 "the text has 2 tokens, less than two windows of 8" perplexity -f "$T/text" -c 8
    printf 'A\n\n' >"$T/text"
    fails 1 "the text has 3 tokens, less than two windows of 8" perplexity -f "$T/text" -c 8
}

@test "malformed and inconsistent logits files are refused" {
    ppl -f $text -c 64 --chunks 2 --save-logits "$T/base"
    fails 1 "no such file" perplexity --kl /nonexistent
    fails 1 "a directory" perplexity --kl "$T"
    fails 1 "not a file of log-probabilities" perplexity --kl $text
    head -c 100000 "$T/base" >"$T/cut"
    fails 1 "its size is not what its header promises" perplexity --kl "$T/cut"
    python3 - "$T/base" "$T/bad" <<'END'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[-2048 * 2:] = b"\xff" * 4096
open(sys.argv[2], "wb").write(data)
END
    fails 1 "$T/bad: the probabilities of a token do not sum to 1" perplexity --kl "$T/bad"
    fails 1 "from a model with 2048 tokens in its vocabulary, this model has" perplexity -m "$tiny" --kl "$T/base"
    fails 2 "-c 32: the windows of $T/base have 64 tokens" perplexity --kl "$T/base" -c 32
    { echo "Something else"; cat $text; } >"$T/other"
    fails 1 "they differ from token 1 on" perplexity --kl "$T/base" -f "$T/other"
    ppl --kl "$T/base" -f $text -c 64 --chunks 1
    [ "$status" = 0 ]
}

@test "tokens below the range of a logits file are counted" {
    ppl -m "$tiny" -f LICENSE -c 64 --chunks 10 --save-logits "$T/base" # random weights: some tokens are very unlikely
    ppl -m "$tiny" --kl "$T/base" --json
    [ "$(field 'd["base"]["cut"]')" -gt 0 ]
    [[ "$stderr" == "zgen: warning: $(field 'd["base"]["cut"]') of the 310 tokens are less likely than"* ]]
}

@test "a bar with the perplexity so far on a terminal, a line per window with -v" {
    run on_terminal "$ZGEN" perplexity --device cpu -f $text -c 64 --chunks 40
    [[ "$status" = 0 && "$output" == *"PPL "*" ["*"%"* ]]
    run on_terminal "$ZGEN" perplexity --device cpu -f $text -c 64 --chunks 2 -q
    [[ "$status" = 0 && "$output" == "PPL = "* && "$output" != *"["* ]]
    ppl -f $text -c 64 --chunks 2 -v
    [[ "$stderr" == *"window 1 of 2: PPL "*"window 2 of 2: PPL $(cut -d' ' -f3 <<<"$output")"* ]]
}

@test "a full disk is exit 5; neither that nor Ctrl-C leaves a file" {
    mkdir "$T/d"
    run --separate-stderr bash -c "ulimit -f 100; \"$ZGEN\" perplexity --device cpu -f $text -c 64 --save-logits \"$T/d/out\""
    [[ "$status" = 5 && "$stderr" == "zgen: cannot write"* ]] || { echo "$status $stderr"; false; }
    fails 5 "No space left" perplexity --device cpu -f $text -c 64 --save-logits /dev/full
    fails 5 "/nonexistent/out" perplexity --device cpu -f $text -c 64 --save-logits /nonexistent/out
    for _ in $(seq 60); do cat $text; done >"$T/long"
    leaves_nothing perplexity --device cpu -f "$T/long" --save-logits "$T/d/out" -t 1
}

@test "windows longer than the trained length cause a warning" {
    ppl -f $text -c 513 --chunks 1 --save-logits "$T/base"
    asserts "$status/$(wc -l <<<"$stderr")" = 0/1
    [[ "$stderr" == "zgen: warning: a window of 513 tokens exceeds the 512 that the model was trained with"*"use -c 512 or less" ]]
    ppl --kl "$T/base"
    [[ "$status" = 0 && "$stderr" == "zgen: warning: a window of 513 tokens "*"make the base again with -c 512 or less"* ]]
    for trained in 512 0; do
        ppl -f $text -c $trained --chunks 1 --profile
        [[ "$status" = 0 && "$stderr" != *warning* ]]
    done
}

@test "a profile after a window" {
    ppl -f $text -c 64 --chunks 2 --json --profile
    [[ "$stderr" == *"whole step"*"after 63 tokens, executor cpu"* ]]
    asserts "$(field 'd["profile"]["n_past"]')" = 63
}

@test "a wrong command line" {
    fails 2 "no text: give -f FILE" perplexity
    fails 2 "unexpected argument" perplexity $text
    fails 2 "a window of 7 tokens is too short; use -c 8 or more" perplexity -f $text -c 7
    fails 2 "whole number from 1" perplexity -f $text --chunks 0
    fails 2 "belongs to zgen perplexity" -p x --kl F
    fails 1 "cannot read the text" perplexity -f /nonexistent
    fails 3 "/nonexistent" perplexity -m /nonexistent -f $text
    fails 1 "the text has 1 tokens, less than two windows of 512" perplexity -f /dev/null
}
