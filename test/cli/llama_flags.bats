# scripts/llama_flags.tsv: what zgen answers to each flag of llama.cpp's tools.
load helper

# TOOL: the command that takes the tool's place, with arguments that make it short.
call() {
    case $1 in
    completion) set -- -p x -n 1 ;; # the demo model: it has a chat template
    cli) set -- chat -n 1 --chat-template chatml ;;
    perplexity) set -- perplexity -m "$tiny" -f "$T/TEXT" -c 8 --chunks 1 ;;
    bench) set -- bench -m "$tiny" -p 1 -n 0 -r 1 --no-warmup ;;
    quantize) set -- quantize "$tiny" "$T/out.gguf" q8_0 ;;
    esac
    echo "$@"
}

# TOOL FLAG VALUE ANSWER WORDS: whether zgen answers so.  -p, -f and -m replace the arguments of call.
answers() {
    local tool=$1 flag=$2 value=$3 answer=$4 words=$5 arguments code=0
    value=${value/MODEL/$tiny}
    value=${value/#TEXT/$T/TEXT}
    value=${value/OUT/$T/out}
    arguments=$(call "$tool")
    [[ "$tool" = quantize || "$flag" = *-gpu-layers || "$flag" = -ngl || "$flag" = *-dev* ]] || arguments+=" --device cpu"
    [[ "$flag" != -f && "$flag" != --file && "$flag" != -bf && "$flag" != --binary-file ]] || arguments=${arguments/-p x/}
    case $value in # files in their place
    BASE)
        "$ZGEN" perplexity -m "$tiny" -f "$T/TEXT" -c 8 --chunks 1 --device cpu --save-logits "$T/base" >"$T/stdout"
        value="--kl-divergence-base $T/base"
        ;;
    HELLASWAG) printf '%s\n' a 0 b c d e >"$T/TEXT.h" && value="-f $T/TEXT.h" ;;
    WINOGRANDE) echo '0,the _ is,cat,dog,1' >"$T/TEXT.w" && value="-f $T/TEXT.w" ;;
    CHOICES) printf '\1\0\0\0\10\0\0\0\1\0\0\0q\1\0\0\0\1\0\0\0a\1\0\0\0\0\0\0\0' >"$T/TEXT.c" && value="-f $T/TEXT.c" ;;
    esac
    [[ "$value" != *" "* && "$flag" != -bf && "$flag" != --binary-file ]] || arguments=${arguments/-f "$T/TEXT"/}
    [[ "$tool" != cli || "$flag" != -st && "$flag" != --single-turn ]] || arguments=${arguments/chat/}
    case "$value" in
    -) set -- "$flag" ;;
    *" "*) set -- "$flag" $value ;;
    *) set -- "$flag" "$value" ;;
    esac
    # shellcheck disable=SC2086
    timeout 20 "$ZGEN" $arguments "$@" </dev/null >"$T/stdout" 2>"$T/stderr" || code=$?
    case $answer in
    same | accepted | differs) [ $code = 0 ] && return ;;
    refused) [[ $code = 2 && $(grep -cv '^zgen: warning: ' "$T/stderr") = 1 && $(<"$T/stderr") == *"$words"* ]] && return ;;
    esac
    echo "$tool $*: code $code, not '$answer $words': $(<"$T/stderr")"
    return 1
}

@test "every flag of llama.cpp's tools gets the answer of scripts/llama_flags.tsv" {
    head -c 400 README.md >"$T/TEXT"
    local n=0 bad=0 tools flags value answer note tool flag
    while IFS=$'\t' read -r tools flags value answer note; do
        for tool in ${tools//,/ }; do
            for flag in $flags; do
                answers "$tool" "$flag" "$value" "$answer" "$note" || bad=$((bad + 1))
                n=$((n + 1))
            done
        done
        [ -n "$note" ] || [ "$answer" = same ] || { echo "no note: $flags"; bad=$((bad + 1)); }
    done < <(grep -v '^#' scripts/llama_flags.tsv)
    echo "$bad of $n"
    [[ "$n" -ge 900 && "$bad" = 0 ]]
}

@test "scripts/llama_flags.tsv has every flag of src/cli/llama_flags.c" {
    names=$(sed -n '/TABLE\[\]/,/^};/p' src/cli/llama_flags.c | grep -oE '\{\{[^}]*\}' | grep -oE '"-[^"]+"' | tr -d '"' | sort -u)
    listed=$(grep -v '^#' scripts/llama_flags.tsv | cut -f2 | tr ' ' '\n' | sort -u)
    asserts "$(wc -l <<<"$names")" -gt 200
    asserts -z "$(comm -23 <(echo "$names") <(echo "$listed"))"
}
