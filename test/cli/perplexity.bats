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
    fails 2 "whole number from -1" perplexity -f $text --chunks -2
    fails 2 "belongs to zgen perplexity" -p x --kl F
    fails 1 "cannot read the text" perplexity -f /nonexistent
    fails 3 "/nonexistent" perplexity -m /nonexistent -f $text
    fails 1 "the text has 1 tokens, less than two windows of 512" perplexity -f /dev/null
}

@test "--ppl-stride: windows that overlap, of which the last predictions count" {
    head -c 3000 $text >"$T/text"
    zgen tokenize -m "$tiny" -f "$T/text" --ids
    printf '%s' "$output" >"$T/ids"
    local n
    n=$(field 'len(d)')
    ppl -m "$tiny" -f "$T/text" -c 40 --ppl-stride 10 --chunks 5 --json
    asserts "$(field 'd["n_ctx"], d["windows"], d["tokens"]')" = "(45, 5, 50)"
    field 'd["ppl"]["value"]' >"$T/ours"
    python3 - "$ZGEN" "$tiny" "$T/ids" "$T/ours" "$T/l" <<'END'
import array, json, math, subprocess, sys
zgen, model, ids, ours, out = sys.argv[1:]
text, ours, total = json.load(open(ids)), float(open(ours).read()), []
for i in range(5):
    window = text[10 * i:10 * i + 45]
    subprocess.run([zgen, "logits", "-m", model, "--ids", ",".join(map(str, window)), "-o", out, "--device", "cpu"], check=True)
    logits = array.array("f", open(out, "rb").read())
    v = len(logits) // 45
    for at in range(34, 44):
        row = logits[at * v:(at + 1) * v]
        total.append(math.log(sum(math.exp(x - max(row)) for x in row)) + max(row) - row[window[at + 1]])
wanted = math.exp(sum(total) / len(total))
assert abs(ours - wanted) < 1e-5 * wanted, (ours, wanted)
END
    ppl -m "$tiny" -f "$T/text" -c 40 --ppl-stride 10 --json
    asserts "$(field 'd["windows"]')" = "$(((n - 45 + 9) / 10))"
    fails 2 "which must be more than the stride" perplexity -f "$T/text" -c 40 --ppl-stride 100
    fails 2 "drop one of both" perplexity -f "$T/text" -c 40 --ppl-stride 10 --save-logits "$T/x"
}

@test "--kl-divergence-base is the file to write, and with --kl-divergence the file to compare with" {
    ppl -m "$tiny" -f $text -c 33 --chunks 3 --kl-divergence-base "$T/base"
    asserts "$status" = 0
    ppl -m $tiny_q4 --kl "$T/base"
    local wanted=$output
    ppl -m $tiny_q4 --kl-divergence-base "$T/base" --kl-divergence
    asserts "$status/$output" = "0/$wanted"
    head -c 3000 $text >"$T/text"
    ppl -m $tiny_q4 --kl-divergence --kl-divergence-base "$T/base" -f "$T/text" --chunks -1
    asserts "$status/$output" = "0/$wanted"
    fails 2 "--kl-divergence-base F; name it" perplexity --kl-divergence -f $text
}

# FORM FILE JSON: whether the scores of JSON are those of the logits, by the definitions of llama-perplexity.  All
# questions of the file are asked, in any order.
answers_by_hand() {
    python3 - "$ZGEN" "$tiny" "$@" "$T/l" <<'END'
import array, csv, json, math, struct, subprocess, sys
zgen, model, form, path, result, out = sys.argv[1:]
def ids(text):
    return json.loads(subprocess.run([zgen, "tokenize", "-m", model, "--ids", "--no-escape", "-p", text], capture_output=True, check=True).stdout)
def log_probabilities(tokens): # of each token after the first
    subprocess.run([zgen, "logits", "-m", model, "--ids", ",".join(map(str, tokens)), "-o", out, "--device", "cpu"], check=True)
    logits = array.array("f", open(out, "rb").read())
    v, found = len(logits) // len(tokens), [None]
    for at, next in enumerate(tokens[1:]):
        row = logits[at * v:(at + 1) * v]
        found.append(row[next] - max(row) - math.log(sum(math.exp(x - max(row)) for x in row)))
    return found
def common(lists):
    return next(i for i in range(10**6) if any(i == len(x) or x[i] != lists[0][i] for x in lists))
def score(tokens, begin, end):
    return sum(log_probabilities(tokens)[begin:end]) / (end - begin)
def plain(texts):
    lists = [ids(x) for x in texts]
    return [score(x, common(lists), len(x)) for x in lists]
def hellaswag():
    lines = open(path).read().splitlines()
    for i in range(0, len(lines), 6):
        yield plain([lines[i] + " " + x for x in lines[i + 2:i + 6]]), {int(lines[i + 1])}
def winogrande():
    for _, sentence, *words, right in csv.reader(open(path)):
        before, behind = sentence.split("_")
        lists = [ids(before + w + behind) for w in words]
        begins = [len(ids(before + w)) for w in words]
        if min(len(x) for x in lists) - common(lists) <= 3:
            begins = [common(lists)] * 2
        yield [score(x, b, len(x) - (len(x) - b > 1)) for x, b in zip(lists, begins)], {int(right) - 1}
def multiple_choice():
    data = open(path, "rb").read()
    def u32(at):
        return struct.unpack_from("<I", data, at)[0], at + 4
    def string(at):
        n, at = u32(at)
        return data[at:at + n].decode(), at + n
    n, _ = u32(0)
    for i in range(n):
        question, at = string(u32(4 + 4 * i)[0])
        m, at = u32(at)
        texts = []
        for _ in range(m):
            text, at = string(at)
            texts.append(text)
        yield plain([question + " " + x for x in texts]), {k for k, y in enumerate(struct.unpack_from("<%di" % m, data, at)) if y == 1}
d = json.load(open(result))
wanted = list({"hellaswag": hellaswag, "winogrande": winogrande, "multiple-choice": multiple_choice}[form]())
assert d["questions"] == d["file"] == len(wanted) == len(d["answers"])
n_right = 0
for a in d["answers"]:
    near = [w for w in wanted if len(w[0]) == len(a["scores"]) and max(abs(x - y) for x, y in zip(w[0], a["scores"])) < 1e-5]
    assert len(near) == 1, (a, wanted)
    assert a["chosen"] == a["scores"].index(max(a["scores"])) and a["right"] == (a["chosen"] in near[0][1])
    n_right += a["right"]
p, n = n_right / len(wanted), len(wanted)
close = lambda x, y: abs(x - y) < 1e-7
assert close(d["accuracy"]["value"], p) and close(d["accuracy"]["error"], math.sqrt(p * (1 - p) / (n - 1)))
z = 1.95996398454
low = (p + z * z / 2 / n - z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n)) / (1 + z * z / n)
assert close(d["interval"][0], low), (d["interval"], low)
assert close(d["chance"], n / sum(len(a["scores"]) for a in d["answers"]))
END
}

# makes $T/hellaswag, $T/winogrande and $T/multiple-choice
make_questions() {
    python3 - "$T" <<'END'
import struct, sys
folder = sys.argv[1]
words = "the a cat dog house tree runs sleeps sees red old big with under and then".split()
def text(seed, n):
    return " ".join(words[(seed * 7 + i * i * 3 + i * seed) % len(words)] for i in range(n))
with open(folder + "/hellaswag", "w") as f:
    for i in range(9):
        f.write("\n".join(["A: " + text(i, 6), str(i % 4)] + [text(i + 5 * k + 1, 3 + (i + k) % 4) for k in range(4)]) + "\n")
with open(folder + "/winogrande", "w") as f:
    for i in range(9):
        sentence = text(i, 4) + " _" + (" " + text(i + 3, 1 + i % 5 * 2) if i != 5 else ".")
        pair = (words[i], words[i + 5] + "s") if i != 5 else ("x", "y")
        f.write('%d,%s,%s,%s,%d\n' % (i, sentence if i % 2 else '"%s, yes"' % sentence, *pair, 1 + i % 2))
def string(s):
    return struct.pack("<I", len(s)) + s.encode()
def answers(texts, right):
    return struct.pack("<I", len(texts)) + b"".join(map(string, texts)) + struct.pack("<%di" % len(texts), *(int(k == right) for k in range(len(texts))))
tasks = [string(text(i, 5)) + answers([text(i + k + 2, 2 + k % 3) + "." * (k + 1) for k in range(2 + i % 4)], i % 2) + answers([], 0) for i in range(7)]
at, places = 4 + 4 * len(tasks), []
for t in tasks:
    places.append(at)
    at += len(t)
open(folder + "/multiple-choice", "wb").write(struct.pack("<%dI" % (1 + len(tasks)), len(tasks), *places) + b"".join(tasks))
END
}

@test "questions with answers to choose from: the scores of the logits" {
    make_questions
    for form in hellaswag winogrande multiple-choice; do
        ppl -m "$tiny" --$form -f "$T/$form" --json
        asserts "$status/$stderr" = 0/
        printf '%s' "$output" >"$T/$form.json"
        answers_by_hand $form "$T/$form" "$T/$form.json"
        ppl -m "$tiny" --$form -bf "$T/$form" --json -b 3 -t 2 # in pieces
        asserts "$(field '[[round(s, 4) for s in a["scores"]] for a in d["answers"]]')" = "$(output=$(<"$T/$form.json") field '[[round(s, 4) for s in a["scores"]] for a in d["answers"]]')"
    done
    ppl -m "$tiny" --hellaswag -f "$T/hellaswag"
    [[ "$output" == "accuracy % = "*" +/- "*"95 % interval = "*" to "*"by chance % = 25.0000"*"questions = 9" ]]
    sed 's/$/\r/' "$T/hellaswag" >"$T/crlf"
    ppl -m "$tiny" --hellaswag -f "$T/crlf" --json
    asserts "$(field 'd["answers"]')" = "$(output=$(<"$T/hellaswag.json") field 'd["answers"]')"
}

@test "questions: a part of them is the part that llama-perplexity chooses" {
    make_questions
    for i in {0..22}; do printf 'Q %s\n%s\na %s\nb %s\nc %s\nd %s\n' $((i * i)) $((i % 4)) $i $i $i $i; done >"$T/h"
    ppl -m "$tiny" --hellaswag -f "$T/h" --json
    asserts "$(field 'd["questions"], d["file"]')" = "(23, 23)"
    local all=$output i
    ppl -m "$tiny" --hellaswag --hellaswag-tasks 8 -f "$T/h" --json
    asserts "$(field 'd["questions"], d["file"]')" = "(8, 23)"
    asserts "$(field 'd["answers"]')" = "$(output=$all field 'd["answers"][:8]')"
    ppl -m "$tiny" --hellaswag --hellaswag-tasks 100 -f "$T/h" --json
    asserts "$(field 'd["answers"]')" = "$(output=$all field 'd["answers"]')"
    # std::mt19937 rng(1) and the expressions of llama-perplexity, with GCC 12: of 23 questions
    for i in 9 22 16 20 0 3 7 21; do sed -n "$((6 * i + 1)),$((6 * i + 6))p" "$T/h"; done >"$T/chosen"
    ppl -m "$tiny" --hellaswag -f "$T/chosen" --json
    field 'sorted(a["scores"] for a in d["answers"])' >"$T/chosen.scores"
    output=$all field 'sorted(a["scores"] for a in d["answers"][:8])' | diff - "$T/chosen.scores"
    for i in {0..22}; do echo "$i,the _ is number $((i * i)) of all,cat $i,dog,1"; done >"$T/w"
    ppl -m "$tiny" --winogrande --winogrande-tasks 8 -f "$T/w" --json
    local part
    part=$(field 'd["answers"]')
    for i in 9 21 15 18 0 2 5 20; do sed -n "$((i + 1))p" "$T/w"; done >"$T/chosen"
    ppl -m "$tiny" --winogrande -f "$T/chosen" --json
    asserts "$(field 'd["answers"]')" = "$part"
}

@test "questions that cannot be asked are refused with one sentence" {
    make_questions
    ask() {
        local code=$1 words=$2
        shift 2
        fails "$code" "$words" perplexity -m "$tiny" "$@"
    }
    head -n 11 "$T/hellaswag" >"$T/x"
    ask 1 "11 lines are no multiple" --hellaswag -f "$T/x"
    sed '2s/.*/4/' "$T/hellaswag" >"$T/x"
    ask 1 "question 1 names no right end" --hellaswag -f "$T/x"
    : >"$T/x"
    ask 1 "6 lines" --hellaswag -f "$T/x"
    ask 1 "no questions" --winogrande -f "$T/x"
    ask 1 "no file of multiple-choice" --multiple-choice -f "$T/x"
    echo "1,a _ b,c" >"$T/x"
    ask 1 "question 1 is not five fields" --winogrande -f "$T/x"
    echo "1,a b,c,d,1" >"$T/x"
    ask 1 "question 1 has no gap _" --winogrande -f "$T/x"
    echo "1,a _ b,c,d,3" >"$T/x"
    ask 1 "question 1 names no right word" --winogrande -f "$T/x"
    ask 2 "give the file of questions with -f" --winogrande
    ask 2 "drop the options of perplexity" --winogrande -f "$T/winogrande" --kl x
    ask 2 "use -c" --winogrande -f "$T/winogrande" -c 4
    local n cut at value tasks
    n=$(stat -c %s "$T/multiple-choice")
    for cut in 3 4 20 31; do
        head -c "$cut" "$T/multiple-choice" >"$T/x"
        ask 1 "no file of multiple-choice" --multiple-choice -f "$T/x"
    done
    for cut in 32 40 $((n / 2)) $((n - 1)); do
        head -c "$cut" "$T/multiple-choice" >"$T/x"
        ask 1 "cut off or damaged" --multiple-choice -f "$T/x"
    done
    for value in ffffffff ffff0000 65000000; do # counts, positions and lengths that are not there
        for at in 0 4 32 36 60 80; do
            python3 - "$T/multiple-choice" "$T/x" $value $at <<'END'
import sys
data, value, at = bytearray(open(sys.argv[1], "rb").read()), bytes.fromhex(sys.argv[3]), int(sys.argv[4])
data[at:at + 4] = value
open(sys.argv[2], "wb").write(data)
END
            for tasks in 0 3; do
                zgen perplexity -m "$tiny" --multiple-choice -f "$T/x" --multiple-choice-tasks $tasks --device cpu
                [[ "$status" = 0 || "$status" = 1 && $(wc -l <<<"$stderr") = 1 ]] || { echo "$value at $at: $status $stderr"; false; }
            done
        done
    done
}
