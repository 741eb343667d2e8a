#!/usr/bin/env bats
# Raw logits for other programs.
load helper

ids=1,112,57,195,143,140,88,198,289,67

@test "exact logits of a golden model" {
    python3 -c 'import json
print(json.load(open("test/data/models/llama-s-F32.json"))["cases"][0]["prompt"])' >"$T/ids"
    zgen logits -m "$tiny" --ids-file "$T/ids" -o "$T/out" --isa scalar --kv f32
    asserts "$status/$output$stderr" = "0/"
    python3 - "$T/out" test/data/models/llama-s-F32.exact.f32 <<'END'
import array, sys
ours, exact = (array.array("f", open(path, "rb").read()) for path in sys.argv[1:])
assert len(ours) == len(exact), (len(ours), len(exact))
nmse = sum((a - b) ** 2 for a, b in zip(ours, exact)) / sum(b * b for b in exact)
print(nmse)
assert nmse <= 1e-9
END
}

@test "the same bytes from 1 and 2 threads, a file and stdout, 100 rows and more" {
    zgen logits --ids $ids -o "$T/one" -t 1
    zgen logits --ids $ids -o "$T/two" -t 2
    cmp "$T/one" "$T/two"
    "$ZGEN" logits --ids $ids -o - >"$T/stdout" </dev/null
    cmp "$T/one" "$T/stdout"
    asserts "$(stat -c %s "$T/one")" = $((10 * 2048 * 4))
    seq 1 150 | "$ZGEN" logits --ids-file - -o "$T/many"
    asserts "$(stat -c %s "$T/many")" = $((150 * 2048 * 4))
}

@test "a row does not depend on later tokens" {
    zgen logits --ids 1,112,57 -o "$T/three"
    zgen logits --ids $ids -o "$T/ten"
    python3 - "$T/three" "$T/ten" <<'END'
import array, sys
three, ten = (array.array("f", open(path, "rb").read()) for path in sys.argv[1:])
nmse = sum((a - b) ** 2 for a, b in zip(three, ten)) / sum(b * b for b in three)
print(nmse)
assert nmse <= 1e-6
END
}

@test "an existing file is replaced when the new one is complete, keeps its mode, and a link stays a link" {
    mkdir "$T/d"
    head -c 20000 /dev/zero >"$T/d/out"
    chmod 600 "$T/d/out"
    ln -s out "$T/d/link"
    zgen logits --ids 1 -o "$T/d/link"
    asserts "$status/$(stat -c %s-%a "$T/d/out")" = "0/8192-600"
    [ -L "$T/d/link" ]
    asserts "$(ls "$T/d" | tr '\n' ' ')" = "link out "
    zgen logits --ids 1 -o /dev/null
    [[ "$status" = 0 && -c /dev/null ]]
}

@test "a context that is too short" {
    fails 1 "10 tokens do not fit into a context of 4" logits --ids $ids -o "$T/out" -c 4
    [ ! -e "$T/out" ]
}

@test "notices with -v only" {
    zgen logits --ids 1,2 -o "$T/out" -v
    [[ "$stderr" == *"demo model"* && "$stderr" == *"2 rows of 2048 logits"* ]]
}
