#!/usr/bin/env python3
"""make_hostile.py FOLDER: writes the hostile corpus, malformed models that zgen must refuse with one sentence.

Every file is the tiny model below with one error; its name begins with the kind of error.
FOLDER/manifest.tsv has a line per case: file, exit code of `zgen -m FILE -p x -n 1`, a part of the message.
Code 0 marks files that are unusual and legal, which must be read.
"""
import copy
import os
import random
import struct
import sys

sys.dont_write_bytecode = True
from gguf_file import *

MODELS = os.path.join(os.path.dirname(__file__), "..", "data", "models")
BASE, WIDE = os.path.join(MODELS, "llama-s-Q8_0.gguf"), os.path.join(MODELS, "llama-Q8_0.gguf")  # 64 and 256 wide
HUGE = 2**64 - 1


# ---- The corpus ----

base = read_model(BASE)
folder = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
os.makedirs(folder, exist_ok=True)
manifest = []


def place(name):
    return os.path.join(folder, name)


def case(name, code, message, data, end=".gguf"):
    with open(place(name + end), "wb") as file:
        file.write(data)
    manifest.append((name + end, code, message))


def edited(*edits, of=None):
    m = copy.deepcopy(of or base)
    for edit in edits:
        edit(m)
    return m


def refuse(name, message, *edits):
    case(name, 3, message, write_model(edited(*edits)))


def accept(name, *edits):
    case(name, 0, "", write_model(edited(*edits)))


def with_key(name, kind, v):
    return lambda m: m["keys"].__setitem__(name, (kind, v))


def without_key(name):
    return lambda m: m["keys"].pop(name)


def with_tensor(name, /, **fields):
    return lambda m: m["tensors"][name].update(fields)


def without_tensor(name):
    return lambda m: m["tensors"].pop(name)


def with_field(name, v):
    return lambda m: m.__setitem__(name, v)


def extra_tensor(name, dims, kind, data=b"", /, **fields):
    return lambda m: m["tensors"].__setitem__(name, {"dims": dims, "type": kind, "data": data, **fields})


def array_with(name, i, v):
    """Key `name`, an array, with element i replaced."""
    def edit(m):
        m["keys"][name][1][1][i] = v
    return edit


def array_cut(name, n):
    return lambda m: m["keys"].__setitem__(name, (ARRAY, (m["keys"][name][1][0], m["keys"][name][1][1][:n])))


def array_longer(name, v):
    return lambda m: m["keys"][name][1][1].append(v)


def paths():
    manifest.append(("missing.gguf", 3, "no such file"))
    os.mkdir(place("directory.gguf"))
    manifest.append(("directory.gguf", 3, "a directory"))
    os.mkfifo(place("fifo.gguf"))
    manifest.append(("fifo.gguf", 3, "a pipe"))
    for device in "zero", "null":
        os.symlink("/dev/" + device, place(device + ".gguf"))
        manifest.append((device + ".gguf", 3, "a device"))
    manifest.append(("no-such-folder/model.gguf", 3, "no such file"))
    manifest.append(("a" * 300 + ".gguf", 3, "File name too long"))
    accept("name with spaces, \u00e4\u00f6\u00fc and \u6c34")


def other_files():
    case("empty", 3, "empty", b"")
    for n in 1, 3, 4, 8, 23:
        case("short-%d" % n, 3, "has 24 bytes, it has %d" % n, write_model(base)[:n])
    case("html", 3, "HTML", b"<!DOCTYPE html>\n<html><head><title>404</title></head></html>\n")
    case("zip", 3, "zip", b"PK\3\4" + bytes(40))
    case("pytorch", 3, "PyTorch", b"PK\3\4" + bytes(26) + b"archive/data.pkl" + bytes(40))
    case("pytorch-pickle", 3, "PyTorch", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + bytes(40))
    case("safetensors", 3, "safetensors", string('{"__metadata__":{"format":"pt"}}') + bytes(64))
    case("git-lfs", 3, "git-lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    case("json", 3, "JSON", b'{"error": "Repository not found"}')
    case("ggml", 3, "before GGUF", b"tjgg" + bytes(60))
    case("imatrix", 3, "importance matrix", struct.pack("<ii", 2, 19) + b"blk.0.attn_q.weight" + bytes(99))
    case("zeros", 3, "not a GGUF", bytes(4096))
    case("magic", 3, "not a GGUF", b"FUGG" + write_model(base)[4:])
    whole = write_model(base)
    case("half", 3, "need %d bytes, it has %d" % (len(whole), len(whole) // 2), whole[:len(whole) // 2])
    case("one-byte-short", 3, "it has %d" % (len(whole) - 1), whole[:-1])
    for end in ".part1of2", "-split-a":
        case("first", 3, "join all parts", whole[:len(whole) // 2], ".gguf" + end)
    case("second", 3, "join all parts", whole[len(whole) // 2:], ".gguf.part2of2")
    case("cut-in-keys", 3, "in a file of 500 bytes", whole[:500])
    case("cut-in-tokens", 3, "tokenizer.ggml.tokens", whole[:3000])
    case("cut-in-tensors", 3, "needs", whole[:whole.index(b"blk.1.attn_q.weight") + 30])


def shard(no, count, total, names, whole=base):
    m = copy.deepcopy(whole)
    m["tensors"] = {k: t for k, t in m["tensors"].items() if k in names}
    if no > 0:
        m["keys"] = {}
    m["keys"].update({"split.no": (U16, no), "split.count": (U16, count), "split.tensors.count": (I32, total)})
    return write_model(m)


def splits():
    names = list(base["tensors"])
    third = len(names) // 3
    parts = [names[:third], names[third:2 * third], names[2 * third:]]
    sound = [shard(i, 3, len(names), parts[i]) for i in range(3)]

    def split(name, code, message, shards, opened):
        for i, data in shards.items():
            with open(place("%s-%05d-of-00003.gguf" % (name, i)), "wb") as file:
                file.write(data)
        manifest.append(("%s-%05d-of-00003.gguf" % (name, opened), code, message))

    one, two, three = sound
    split("split-first", 0, "", {1: one, 2: two, 3: three}, 1)
    split("split-second", 0, "", {1: one, 2: two, 3: three}, 2)
    split("split-missing", 3, "shard 2 of 3", {1: one, 3: three}, 1)
    split("split-missing-first", 3, "shard 1 of 3", {2: two, 3: three}, 3)
    split("split-empty", 3, "shard 3 of 3", {1: one, 2: two, 3: b""}, 1)
    split("split-duplicate", 3, "not shard 3 of 3", {1: one, 2: two, 3: two}, 1)
    split("split-order", 3, "not shard 2 of 3", {1: one, 2: three, 3: two}, 1)
    split("split-order-opened", 3, "does not end in", {1: one, 2: three, 3: two}, 2)
    split("split-foreign", 3, "not shard 2 of 3", {1: one, 2: shard(1, 3, 99, parts[1]), 3: three}, 1)
    split("split-whole", 3, "not shard 2 of 3", {1: one, 2: write_model(base), 3: three}, 1)
    split("split-joined", 3, "were joined to this file", {1: one + two + three, 2: two, 3: three}, 1)
    case("split-joined", 3, "were joined to this file", one + two + three)
    again = shard(1, 3, len(names), parts[0])
    split("split-tensor-twice", 3, "occurs twice", {1: one, 2: again, 3: three}, 1)
    fewer = shard(1, 3, len(names), parts[1][:-1])
    split("split-tensor-lost", 3, "should hold %d" % len(names), {1: one, 2: fewer, 3: three}, 1)
    case("split-name", 3, "does not end in -00001-of-00003.gguf", one)
    refuse("split-count", "split.count", with_key("split.count", U16, 65535))
    refuse("split-count-type", "split.count", with_key("split.count", STRING, "3"))


def kinds():
    def kind(name, message, *keys):
        case("kind-" + name, 3, message,
             write_model({"magic": b"GGUF", "version": 3, "keys": {k: (STRING, v) for k, v in keys},
                          "tensors": {"blk.0.w": {"dims": [32], "type": Q8_0, "data": bytes(34)}}}))

    arch = "general.architecture"
    kind("adapter", "this file is an adapter", ("general.type", "adapter"), (arch, "llama"))
    kind("projector", "this file is a projector", ("general.type", "mmproj"), (arch, "clip"))
    kind("projector-old", "this file is a projector", (arch, "clip"))
    kind("imatrix", "this file is an importance matrix", ("general.type", "imatrix"))
    kind("encoder", "this file is an encoder", (arch, "bert"), ("tokenizer.ggml.model", "bert"))
    kind("diffusion", "this file is a diffusion model", (arch, "dream"))
    kind("rwkv", "architecture 'rwkv7' is not supported", (arch, "rwkv7"), ("tokenizer.ggml.model", "rwkv"))
    refuse("kind-not-causal", "tokens attend to those behind them", with_key("llama.attention.causal", BOOL, 0))
    refuse("kind-embedding", "this file is an encoder", with_key("llama.pooling_type", U32, 3))
    accept("kind-no-pooling", with_key("llama.pooling_type", U32, 0), with_key("llama.attention.causal", BOOL, 1))


def headers():
    for version in 0, 1, 4, 2**31:
        refuse("version-%d" % version, "version %d" % version, with_field("version", version))
    refuse("big-endian", "big-endian", with_field("version", 3 << 24))
    for n in 2**64 - 1, 2**63, 2**60, 2**31:
        refuse("n-tensors-%d" % n, "claims %d tensors" % n, with_field("n_tensors", n))
        refuse("n-keys-%d" % n, "claims %d metadata keys" % n, with_field("n_keys", n))
    refuse("n-keys-one-more", "", with_field("n_keys", len(base["keys"]) + 1))
    refuse("n-tensors-one-less", "", with_field("n_tensors", len(base["tensors"]) - 1))


def raw_key(data):
    """A last key that is these bytes, length and all."""
    return lambda m: m.update({"more keys": data, "n_keys": len(m["keys"]) + 1})


def keys():
    number = struct.pack("<II", U32, 1)
    refuse("key-empty", "empty name", raw_key(string("") + number))
    refuse("key-long", "more than the 65535 allowed", raw_key(string("k" * 70000) + number))
    for n in 2**31, 2**63, HUGE:
        refuse("key-length-%d" % n, "%d" % n, raw_key(struct.pack("<Q", n) + b"key" + number))
    refuse("key-nul", "NUL", raw_key(string("a\0b") + number))
    refuse("key-twice", "'general.name' occurs twice", raw_key(string("general.name") + number))
    for kind in 13, 255, 2**32 - 1:
        refuse("value-type-%d" % kind, "value type %d" % kind, raw_key(string("k") + struct.pack("<IQ", kind, 0)))
    refuse("string-length", "'k'", raw_key(string("k") + struct.pack("<IQ", STRING, HUGE)))
    refuse("string-1-gib", "1073741824", raw_key(string("k") + struct.pack("<IQ", STRING, 2**30)))
    refuse("array-nested", "array of arrays", raw_key(string("k") + struct.pack("<IIQIQ", ARRAY, ARRAY, 1, U8, 0)))
    refuse("array-type", "value type 13", raw_key(string("k") + struct.pack("<IIQ", ARRAY, 13, 0)))
    for n in HUGE, 2**63, 2**61:
        data = string("k") + struct.pack("<IIQ", ARRAY, U64, n)
        refuse("array-count-%d" % n, "claims %d elements" % n, raw_key(data))
    refuse("array-of-2^30-strings", "claims 1073741824 elements",
           raw_key(string("k") + struct.pack("<IIQ", ARRAY, STRING, 2**30)))
    refuse("bool-7", "boolean 7", with_key("k", BOOL, 7))
    refuse("bool-array-2", "boolean 2", with_key("k", ARRAY, (BOOL, [1, 2])))
    for n in 0, 3, 13, 2**31:
        refuse("alignment-%d" % n, "general.alignment", with_key("general.alignment", U32, n))
    refuse("alignment-string", "general.alignment", with_key("general.alignment", STRING, "32"))
    refuse("alignment-float", "general.alignment", with_key("general.alignment", F32, 32.0))
    refuse("alignment-other", "alignment 64", with_key("general.alignment", U32, 64),
           with_tensor("blk.0.attn_k.weight", offset=32))


def tensors():
    t = "blk.0.attn_q.weight"
    refuse("n-dims-0", "0 dimensions", with_tensor(t, dims=[]))
    refuse("n-dims-5", "5 dimensions", with_tensor(t, dims=[64, 128, 1, 1, 1]))
    refuse("n-dims-huge", "4294967295 dimensions", with_tensor(t, n_dims=2**32 - 1))
    for name, d in ("0", 0), ("minus-1", -1), ("2^63", 2**63), ("2^31", 2**31), ("2^32+64", 2**32 + 64):
        refuse("dim-" + name, "dimension of", with_tensor(t, dims=[64, d]))
    refuse("dims-4-0", "dimension of 0", extra_tensor("t", [4, 0], 0))
    big = 2**31 - 1
    refuse("product-overflow", "overflows", with_tensor(t, type=0, dims=[big, big, big, big]))
    refuse("bytes-overflow", "overflows", with_tensor(t, type=0, dims=[big, big, 2]))
    refuse("bytes-huge", "cut off", with_tensor(t, type=0, dims=[big, big]))
    refuse("sum-near-2^64", "", extra_tensor("a", [0x7FFFFFFFFFFFFFC0], 24, offset=0),
           extra_tensor("b", [0x7FFFFFFFFFFFFFC0], 24, offset=0x7FFFFFFFFFFFFFC0))
    for kind in 4, 5, 31, 32, 33, 36, 37, 38:
        refuse("type-%d" % kind, "withdrawn from the format", with_tensor(t, type=kind))
    for kind in 43, 200, 1000, 2**32 - 1:
        refuse("type-%d" % kind, "the type %d, which is not supported" % kind, with_tensor(t, type=kind))
    refuse("type-unsupported", "Q8_1", with_tensor(t, type=9, data=bytes(2 * 128 * 36)))
    refuse("type-integer", "I32", with_tensor(t, type=26, data=bytes(4 * 64 * 128)))
    refuse("row-33", "multiple of the 32", with_tensor(t, type=Q4_0, dims=[33, 4]))
    refuse("name-twice", "occurs twice", with_tensor(t, name="blk.0.attn_k.weight"))
    refuse("name-64", "name of 64 bytes", with_tensor(t, name="n" * 64))
    refuse("name-empty", "empty name", with_tensor(t, name=""))
    refuse("name-nul", "NUL", with_tensor(t, name="a\0b"))
    refuse("name-not-utf8", "UTF-8", with_tensor(t, name=b"a\xff"))
    refuse("name-controls-the-terminal", "\\x1b[31mred\\n", extra_tensor("\x1b[31mred\n", [4], 0, bytes(16)))
    refuse("offset-unaligned", "not a multiple of the alignment", with_tensor(t, offset=1))
    refuse("offset-overlap", "overlap", with_tensor(t, offset=32))
    refuse("offset-beyond", "cut off", with_tensor(t, offset=2**30))
    refuse("offset-2^63", "cut off", with_tensor(t, offset=2**63))
    refuse("offset-wraps", "overflows", with_tensor(t, offset=2**64 - 32))


def architecture():
    a = "general.architecture"
    refuse("arch-missing", a, without_key(a))
    refuse("arch-empty", a, with_key(a, STRING, ""))
    refuse("arch-unknown", "supported: llama", with_key(a, STRING, "llama9"))
    refuse("arch-nul", "", with_key(a, STRING, "llama\0"))
    refuse("arch-long", "", with_key(a, STRING, "l" * 100000))
    refuse("arch-number", a, with_key(a, U32, 1))
    for n in 0, 2, 4, 100000, 2**32 - 1:
        refuse("block-count-%d" % n, "", with_key("llama.block_count", U32, n))
    refuse("block-count-missing", "block_count", without_key("llama.block_count"))
    refuse("block-count-string", "block_count", with_key("llama.block_count", STRING, "3"))
    refuse("block-count-negative", "block_count", with_key("llama.block_count", I32, -3))
    for key in "attention.head_count", "attention.head_count_kv":
        refuse(key + "-0", "head_count", with_key("llama." + key, U32, 0))
        refuse(key + "-3", "", with_key("llama." + key, U32, 3))
        refuse(key + "-huge", "head_count", with_key("llama." + key, U64, 2**63))
        refuse(key + "-array-short", "head_count", with_key("llama." + key, ARRAY, (U32, [4, 4])))
        refuse(key + "-array-zero", "head_count", with_key("llama." + key, ARRAY, (U32, [4, 0, 4])))
    for key, n in ("embedding_length", 32), ("feed_forward_length", 64):
        refuse(key, "", with_key("llama." + key, U32, n))
        refuse(key + "-0", key, with_key("llama." + key, U32, 0))
    refuse("vocab_size-0", "vocab_size", with_key("llama.vocab_size", U32, 0))
    refuse("embedding-rows", "", with_tensor("token_embd.weight", dims=[64, 64]))
    refuse("shape-transposed", "blk.0.ffn_up.weight", with_tensor("blk.0.ffn_up.weight", dims=[128, 64]))
    for name in "token_embd.weight", "output_norm.weight", "blk.2.ffn_down.weight":
        refuse("missing-" + name, name, without_tensor(name))
    refuse("unexpected-tensor", "blk.0.attn_sinks.weight", extra_tensor("blk.0.attn_sinks.weight", [4], 0, bytes(16)))
    refuse("unexpected-layer", "blk.3.attn_norm.weight", extra_tensor("blk.3.attn_norm.weight", [64], 0, bytes(256)))
    nan = float("nan")
    for key, v in ("rope.dimension_count", 0), ("rope.dimension_count", 33), ("rope.dimension_count", 64):
        refuse("%s-%d" % (key, v), "rope.dimension_count", with_key("llama." + key, U32, v))
    for key, v in [("rope.freq_base", v) for v in (0.0, -1.0, nan, float("inf"))] + \
                  [("attention.layer_norm_rms_epsilon", v) for v in (0.0, -1e-5, nan)]:
        refuse("%s-%g" % (key, v), key, with_key("llama." + key, F32, v))
    refuse("context-0", "context_length", with_key("llama.context_length", U32, 0))
    refuse("head-dim-0", "key_length", with_key("llama.attention.key_length", U32, 0))
    refuse("head-dim-values", "", with_key("llama.attention.value_length", U32, 16))
    refuse("rope-scaling", "rope.scaling.type", with_key("llama.rope.scaling.type", STRING, "spiral"))
    refuse("experts-used", "expert_used_count", with_key("llama.expert_count", U32, 4),
           with_key("llama.expert_used_count", U32, 5))
    refuse("experts-used-0", "expert_used_count", with_key("llama.expert_count", U32, 4),
           with_key("llama.expert_used_count", U32, 0))
    refuse("experts-huge", "expert_count", with_key("llama.expert_count", U32, 2**31))


def weights():
    norm = base["tensors"]["output_norm.weight"]["data"]
    for name in "nan", "inf":
        data = struct.pack("<f", float(name)) + norm[4:]
        refuse("norm-" + name, "output_norm.weight", with_tensor("output_norm.weight", data=data))
    rows = base["tensors"]["output.weight"]["data"]
    for name, scale in ("nan", 0x7E00), ("inf", 0x7C00):
        data = struct.pack("<H", scale) + rows[2:]
        case("scale-" + name, 1, "output.weight", write_model(edited(with_tensor("output.weight", data=data))))


# name: number, weights and bytes of a block, where its f16 is.  That of IQ1_M is in the high bits of four numbers.
LOW_BIT = {"IQ1_S": (19, 256, 50, 0), "IQ1_M": (29, 256, 56, None), "IQ2_XXS": (16, 256, 66, 0),
           "IQ2_XS": (17, 256, 74, 0), "IQ2_S": (22, 256, 82, 0), "IQ3_XXS": (18, 256, 98, 0),
           "IQ3_S": (21, 256, 110, 0), "TQ1_0": (34, 256, 54, 52), "TQ2_0": (35, 256, 66, 64),
           "Q1_0": (41, 128, 18, 0), "Q2_0": (42, 64, 18, 0)}


def low_bit_types():
    """Random bytes as blocks of each type, with scales of 2^-10 or, in the last block, Inf."""
    wide, name, rng = read_model(WIDE), "blk.1.ffn_down.weight", random.Random(7)
    dims = wide["tensors"][name]["dims"]
    for kind, (number, n_weights, block_bytes, at) in LOW_BIT.items():
        n = dims[0] * dims[1] // n_weights
        for code, last in (0, 0x1400), (1, 0x7C00):
            blocks = bytearray(rng.randbytes(n * block_bytes))
            for i in range(n):
                half, b = 0x1400 if i < n - 1 else last, i * block_bytes
                if at is None:
                    for k in range(4):
                        blocks[b + 49 + 2 * k] = blocks[b + 49 + 2 * k] & 15 | (half >> 4 * k & 15) << 4
                else:
                    struct.pack_into("<H", blocks, b + at, half)
            edit = with_tensor(name, type=number, data=bytes(blocks))
            case("blocks-%s-%d" % (kind, code), code, name if code else "", write_model(edited(edit, of=wide)))


def tokenizer():
    k = "tokenizer.ggml."
    n = len(base["keys"][k + "tokens"][1][1])
    refuse("tokenizer-missing", "tokenizer", without_key(k + "model"))
    refuse("tokenizer-unknown", "runes", with_key(k + "model", STRING, "runes"))
    refuse("tokenizer-number", k + "model", with_key(k + "model", U32, 7))
    refuse("tokens-missing", k + "tokens", without_key(k + "tokens"))
    refuse("tokens-empty", k + "tokens", with_key(k + "tokens", ARRAY, (STRING, [])))
    refuse("tokens-numbers", k + "tokens", with_key(k + "tokens", ARRAY, (U32, list(range(n)))))
    accept("tokens-one", with_key(k + "tokens", ARRAY, (STRING, ["a"])))
    refuse("tokens-more-than-rows", "", array_longer(k + "tokens", b"zz"), array_longer(k + "scores", 0.0),
           array_longer(k + "token_type", 1))
    refuse("scores-short", k + "scores", array_cut(k + "scores", 1))
    refuse("scores-nan", k + "scores", array_with(k + "scores", 300, float("nan")))
    refuse("scores-strings", k + "scores", with_key(k + "scores", ARRAY, (STRING, ["1"] * n)))
    refuse("types-short", k + "token_type", array_cut(k + "token_type", n - 1))
    refuse("types-99", "type", array_with(k + "token_type", 300, 99))
    refuse("byte-ZZ", "<0xZZ>", array_with(k + "tokens", 10, b"<0xZZ>"))
    refuse("byte-minus-1", "<0x-1>", array_with(k + "tokens", 10, b"<0x-1>"))
    refuse("token-70000-bytes", "70000", array_with(k + "tokens", 300, b"t" * 70000))
    refuse("bos-string", k + "bos_token_id", with_key(k + "bos_token_id", STRING, "1"))
    refuse("add-bos-number", k + "add_bos_token", with_key(k + "add_bos_token", U32, 1))
    accept("bos-beyond", with_key(k + "bos_token_id", U32, 2**31))
    accept("eos-minus-1", with_key(k + "eos_token_id", I32, -1))
    accept("ids-missing", *[without_key(k + i) for i in ("bos_token_id", "eos_token_id", "unknown_token_id")])
    accept("token-empty", array_with(k + "tokens", 300, b""))
    accept("token-twice", array_with(k + "tokens", 300, base["keys"][k + "tokens"][1][1][301]))
    accept("bytes-as-words", *[array_with(k + "token_type", i, 1) for i in range(3, 259)])
    accept("merges-malformed", with_key(k + "merges", ARRAY, (STRING, ["nospace", "", " "])))
    accept("pre-unknown", with_key(k + "pre", STRING, "from-the-future"))


SCORES = "tokenizer.ggml.scores"


def oddities():
    accept("alignment-1", with_key("general.alignment", U8, 1), with_field("alignment", 1))
    accept("alignment-64", with_key("general.alignment", I64, 64), with_field("alignment", 64))
    accept("alignment-65536", with_key("general.alignment", U32, 2**16), with_field("alignment", 2**16))
    accept("trailing-garbage", with_field("tail", b"\xde\xad\xbe\xef" * 100))
    accept("version-2", with_field("version", 2))
    accept("name-of-model-empty", with_key("general.name", STRING, ""))
    accept("name-of-model-not-utf8", with_key("general.name", STRING, b"\xff\xfe\0"))
    accept("unknown-keys", with_key("x", ARRAY, (U32, [])), with_key("\u00e4", F64, float("nan")),
           with_key("y", BOOL, 1))
    accept("tensors-reversed", lambda m: m.update(tensors=dict(reversed(m["tensors"].items()))))
    accept("gap", with_tensor("blk.1.ffn_up.weight", gap=64))
    accept("vocab-size-stale", with_key("llama.vocab_size", U32, 327))
    accept("scores-integers", with_key(SCORES, ARRAY, (I32, [int(x) for x in base["keys"][SCORES][1][1]])))
    accept("scores-long", array_longer(SCORES, 0.0))
    accept("types-long", array_longer("tokenizer.ggml.token_type", 1))
    accept("wide-integers", *[with_key("llama." + key, kind, base["keys"]["llama." + key][1]) for key, kind in
                              (("block_count", U64), ("embedding_length", I64), ("attention.head_count", U8),
                               ("attention.head_count_kv", I16), ("context_length", I32))])
    accept("heads-per-layer", with_key("llama.attention.head_count", ARRAY, (U32, [4, 4, 4])))
    accept("double-epsilon", with_key("llama.attention.layer_norm_rms_epsilon", F64, 1e-5))
    accept("whole-split-of-one", with_key("split.count", U16, 1), with_key("split.no", U16, 0))


for part in (paths, other_files, splits, kinds, headers, keys, tensors, architecture, weights, low_bit_types, tokenizer,
             oddities):
    part()
with open(place("manifest.tsv"), "w", encoding="utf-8") as out:
    for line in manifest:
        out.write("%s\t%d\t%s\n" % line)
print("%d cases in %s" % (len(manifest), folder))
