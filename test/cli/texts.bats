#!/usr/bin/env bats
# Texts as other programs write them: byte order marks, CR LF, numbers that no type holds, escapes.
load helper

# asks ARGUMENT...: prints the prompt of one message, without the line break at its end.
asks() {
    "$ZGEN" --chat-template chatml --print-prompt "$@" </dev/null
}

@test "a byte order mark is not part of a text" {
    printf '\xef\xbb\xbfHi' >"$T/text"
    printf '\xef\xbb\xbfx{{ messages[0].content }}' >"$T/t.jinja"
    printf '\xef\xbb\xbf{"messages": [{"role": "user", "content": "Hi"}]}' >"$T/m.json"
    asserts "$(asks -f "$T/text")" = "$(asks -p Hi)"
    asserts "$(asks -p Hi -sysf "$T/text")" = "$(asks -p Hi -sys Hi)"
    asserts "$(asks --messages "$T/m.json")" = "$(asks -p Hi)"
    asserts "$(asks --chat-template "$T/t.jinja" -p Hi)" = "xHi"
    asserts "$("$ZGEN" tokenize --ids -f "$T/text")" = "$("$ZGEN" tokenize --ids -p Hi)"
    asserts "$("$ZGEN" tokenize --ids <"$T/text")" = "$("$ZGEN" tokenize --ids -p Hi)"
    printf '\xef\xbb\xbf1,505' >"$T/ids"
    "$ZGEN" logits --ids-file "$T/ids" -o "$T/a"
    "$ZGEN" logits --ids 1,505 -o "$T/b"
    cmp "$T/a" "$T/b"
    printf '\xef\xbb\xbf/exit\nHi\n' | "$ZGEN" chat >"$T/out" 2>&1
    asserts "$(cat "$T/out")" = ""
    printf '\xef\xbb\xbf' | "$ZGEN" chat >"$T/out" 2>&1
    asserts "$(cat "$T/out")" = ""
}

@test "other encodings are named" {
    printf '\xff\xfeH\0' >"$T/16"
    printf '\xfe\xff\0H' >"$T/16be"
    printf '\xff\xfe\0\0H\0\0\0' >"$T/32"
    for f in 16 16be; do
        fails 1 "cannot read the prompt from $T/$f: it is UTF-16, not UTF-8; iconv -f UTF-16 -t UTF-8 converts it" -f "$T/$f"
        fails 1 "cannot read the messages from $T/$f: it is UTF-16" --messages "$T/$f" --print-prompt
        fails 1 "UTF-16" -p Hi -sysf "$T/$f" --print-prompt
        fails 1 "UTF-16" -p Hi --chat-template "$T/$f" --print-prompt
        fails 1 "UTF-16" perplexity -f "$T/$f"
    done
    fails 1 "it is UTF-32, not UTF-8; iconv -f UTF-32 -t UTF-8" -f "$T/32"
}

@test "lines may end with CR LF" {
    printf 'one\r\ntwo\r\n' >"$T/crlf"
    printf 'one\ntwo\n' >"$T/lf"
    asserts "$(asks -f "$T/crlf")" = "$(asks -f "$T/lf")"
    asserts "$(asks -p Hi -sysf "$T/crlf")" = "$(asks -p Hi -sysf "$T/lf")"
    asserts "$("$ZGEN" -n 4 --temp 0 --echo <"$T/crlf")" = "$("$ZGEN" -n 4 --temp 0 --echo <"$T/lf")"
    printf 'one\rtwo\r\n' >"$T/cr"
    asserts "$(asks -f "$T/cr" | tr '\r' '#')" = "$(asks -p 'one#two')"
}

@test "a chat through a pipe may end its lines with CR LF" {
    cat >"$T/lf" <<END
Who are \\
you?
/save $T/c.json
/exit
Hi
END
    "$ZGEN" chat -n 8 --temp 0 <"$T/lf" >"$T/a"
    mv "$T/c.json" "$T/d.json"
    sed 's/$/\r/' "$T/lf" | "$ZGEN" chat -n 8 --temp 0 >"$T/b"
    cmp "$T/a" "$T/b"
    cmp "$T/c.json" "$T/d.json"
}

@test "a tool's schema may hold numbers that no type holds" {
    cat >"$T/m.json" <<'END'
{"messages": [{"role": "user", "content": "hi \ud800"}], "x": 1e400,
 "tools": [{"name": "seek", "maximum": 18446744073709551615, "minimum": -99999999999999999999}]}
END
    printf '{{ tools|tojson }} {{ x }} {{ x > 1 }} {{ messages[0].content }}' >"$T/t.jinja"
    zgen --messages "$T/m.json" --chat-template "$T/t.jinja" --print-prompt
    want='[{"name": "seek", "maximum": 18446744073709551615, "minimum": -99999999999999999999}] 1e400 True hi �'
    asserts "$status/$output" = "0/$want"
    "$ZGEN" chat --messages "$T/m.json" --chat-template "$T/t.jinja" <<<"/save $T/n.json"
    zgen --messages "$T/n.json" --chat-template "$T/t.jinja" --print-prompt
    asserts "$status/$output" = "0/$want"
}

@test "arguments and contents may be such numbers, too" {
    cat >"$T/m.json" <<'END'
{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": null, "tool_calls": [{"id": "a",
 "type": "function", "function": {"name": "f", "arguments": "{\"n\": 18446744073709551615}"}}]},
 {"role": "tool", "tool_call_id": "a", "content": 18446744073709551616}]}
END
    zgen --messages "$T/m.json" --chat-template chatml --print-prompt
    [[ "$output" == *'{"name": "f", "arguments": {"n": 18446744073709551615}}'* ]]
    [[ "$output" == *$'\n18446744073709551616'* ]]
}

@test "a text that looks like the mark of a number stays a text" {
    zgen -p $'\ufdd012' -n 0 --json
    asserts "$(field 'd["prompt"] == "\ufdd012"')" = True
}

@test "escapes in the texts of the command line" {
    asserts "$(asks -p 'a\n\t\r\"\'\''\\\x41\u00e9\ud83d\ude00\q')" = "$(asks --no-escape -p $'a\n\t\r"\'\\Aé😀\\q')"
    asserts "$(asks -p Hi -sys 'a\u00e9')" = "$(asks -p Hi -sys 'aé')"
    zgen -p "Once upon a time" -n 200 --temp 0
    local whole=$output
    [[ "$whole" == *$'\n'* ]]
    zgen -p "Once upon a time" -n 200 --temp 0 --stop '\n'
    asserts "$output" = "${whole%%$'\n'*}"
    zgen -p "Once upon a time" -n 200 --temp 0 -r '\x0A'
    asserts "$output" = "${whole%%$'\n'*}"
    zgen -p "Once upon a time" -n 200 --temp 0 -r '\u000a' --no-escape
    asserts "$output" = "$whole"
    fails 2 "has a NUL" -p x --stop 'a\x00'
}
