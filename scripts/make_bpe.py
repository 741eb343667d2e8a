#!/usr/bin/env python3
"""Make the byte-level BPE vocabulary of the tests, with cases that this file computes by another, slow encoder.

The training text is the demo model's (make_corpus.py) and some lines of code, numbers and other languages, cut into
words by GPT-2's rule; the merges are the most frequent pairs, one after the other.  The encoder of the cases differs
from zgen's: it cuts by character categories instead of a regular expression, and before each merge it searches the
whole word for the best pair.

  make_bpe.py OUT.gguf OUT.json [N_TOKENS]
"""
import json, struct, sys, unicodedata
from collections import Counter
from make_corpus import samples

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"]
SPACES = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {chr(c) for c in range(0x2000, 0x200B)}
EXTRA = """for (int i = 0; i < n; i++) {\n    sum += a[i] * b[i];\n}\n\tif (x == NULL) return -1; // done
def f(x):\n    return x + 1\n\nprint("hello, world")\n1 22 333 4444 1999 2024 3.14159 1,000,000 50% $5.99
caf\u00e9 na\u00efve r\u00e9sum\u00e9 Z\u00fcrich \u00e9t\u00e9 \u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u65e5\u672c\u8a9e \u4f60\u597d \U0001f600 \U0001f680
I'm you're he's we'll they've don't can't it's\n\n\n   three spaces      six\n"""
TEXTS = ["", " ", "  ", "\n", "\n\n\n", "\t x", "a", " a", "a ", "Hello world", "Hello, world!", " Once upon a time", "the fox and the bear",
         "I'm sure they've been here: 2024!", "we'll 'tis o'clock DON'T 'S", "x[i] += 10;\n\treturn 0;\n", "caf\u00e9 \u65e5\u672c\u8a9e \U0001f600",
         "  two  spaces\n\n", "   lead", "trail   ", "a  b   c\n d\n\n  e", "1234567 3.14 \u00b2\u00b3\u00bd \u2163", "tab\tand\u00a0nbsp\u3000wide\u2003em",
         "e\u0301 combining \u0301 mark", "----- ===== ~~~ ``` ???!!!", "\x00\x01\x7f\x85\xad", "\U00010348\U0001f468\u200d\U0001f469\u200d\U0001f467", "a" * 100, " " * 50 + "x",
         "A brave fox lived in a small village. One day, the fox found a red kite.", "\u00df \u1e9e \u0131 \u0130 \u01c5 \u02b0 \u00aa", "<|im_start|>user\nHi<|im_end|>",
         "<|endoftext|> <|im_end|><|im_end|>x", "<|im_start", "mixed<|im_start|>\n\n<|endoftext|>  end"]


def alphabet():
    """The character that stands for each byte."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


BYTES = alphabet()


def kind(c):
    if c in SPACES: return "space"
    return {"L": "letter", "N": "number"}.get(unicodedata.category(c)[0], "other")


def words(text):
    """GPT-2's cuts: a contraction, or letters, numbers or other signs with at most one space before them, or spaces, of which
    the last one is left to the word that follows."""
    i = 0
    while i < len(text):
        end = i
        found = [c for c in CONTRACTIONS if text.startswith(c, i)]
        first = i + (text[i] == " " and i + 1 < len(text) and kind(text[i + 1]) != "space")
        if found:
            end = i + len(found[0])
        elif kind(text[first]) != "space":
            end = first
            while end < len(text) and kind(text[end]) == kind(text[first]): end += 1
        else:
            while end < len(text) and kind(text[end]) == "space": end += 1
            if end < len(text) and end - i > 1: end -= 1
        yield "".join(BYTES[b] for b in text[i:end].encode())
        i = end


def train(text, n_tokens):
    counts = Counter(words(text))
    split = {w: list(w) for w in counts}
    tokens, merges = [BYTES[b] for b in range(256)], []
    while len(tokens) < n_tokens - len(SPECIAL):
        pairs = Counter()
        for w, parts in split.items():
            for pair in zip(parts, parts[1:]): pairs[pair] += counts[w]
        (left, right), _ = min(pairs.items(), key=lambda p: (-p[1], p[0]))
        merges.append((left, right))
        tokens.append(left + right)
        for w, parts in split.items():
            if left in parts: split[w] = merged(parts, left, right)
    return tokens + SPECIAL, merges


def merged(parts, left, right):
    out = []
    for p in parts:
        if out and out[-1] == left and p == right: out[-1] = left + right
        else: out.append(p)
    return out


def encode_plain(text, ids, ranks):
    for word in words(text):
        parts = list(word)
        while True:
            known = [(ranks[p], i) for i, p in enumerate(zip(parts, parts[1:])) if p in ranks]
            if not known: break
            _, i = min(known)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        yield from (ids[p] for p in parts)


def encode(text, ids, ranks, parse):
    plain = ""
    while text:
        special = [s for s in SPECIAL if parse and text.startswith(s)]
        if special:
            yield from encode_plain(plain, ids, ranks)
            yield ids[special[0]]
            plain, text = "", text[len(special[0]) :]
        else:
            plain, text = plain + text[0], text[1:]
    yield from encode_plain(plain, ids, ranks)


def gguf(keys):
    def string(s): return struct.pack("<Q", len(s.encode())) + s.encode()
    def value(v):
        if isinstance(v, bool): return 7, struct.pack("<?", v)
        if isinstance(v, int): return 4, struct.pack("<I", v)
        if isinstance(v, str): return 8, string(v)
        items = [value(x) for x in v]
        kind = 5 if items[0][0] == 4 else items[0][0]
        return 9, struct.pack("<IQ", kind, len(v)) + b"".join(b for _, b in items)
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    for k, v in keys.items():
        kind, data = value(v)
        out += string(k) + struct.pack("<I", kind) + data
    return out


def main():
    n_tokens = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    text = "\n".join(t for s in samples(7, 1500) for _, t in s) + EXTRA * 20
    tokens, merges = train(text, n_tokens)
    ids, ranks = {t: i for i, t in enumerate(tokens)}, {m: i for i, m in enumerate(merges)}
    with open(sys.argv[1], "wb") as f:
        f.write(gguf({
            "general.architecture": "llama", "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gpt-2", "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * (len(tokens) - len(SPECIAL)) + [3] * len(SPECIAL),
            "tokenizer.ggml.merges": [" ".join(m) for m in merges], "tokenizer.ggml.bos_token_id": ids["<|endoftext|>"],
            "tokenizer.ggml.eos_token_id": ids["<|im_end|>"], "tokenizer.ggml.add_bos_token": False}))
    cases = [{"text": t, "add_special": False, "parse_special": p, "ids": list(encode(t, ids, ranks, p))}
             for t in TEXTS + [t for s in samples(99, 20) for _, t in s] for p in (True, False)]
    with open(sys.argv[2], "w") as f:
        f.write(json.dumps({"tokenize": cases}).replace('{"text"', '\n{"text"') + "\n")


main()
