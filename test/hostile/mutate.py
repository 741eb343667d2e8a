#!/usr/bin/env python3
"""mutate.py ZGEN [--seconds N] [--from SEED] [--seed SEED]: gives every command models that were changed at random.

A seed stands for a model of test/data/models or the demo model, one to three changes of it (bytes, counts, keys, values
of every kind, tensors, lengths), and a command.  Seeds are tried from SEED (0) on for N seconds (60), by as many
processes as there are CPUs.  Of each run is demanded:

  - it ends by itself, in time and within the address space below, without a signal and a report of a sanitizer
  - with an exit code that a model may cause: 0; or 1, 3 or 4 and one sentence on stderr, warnings aside; or 2, where
    that begins with an option of the command line
  - nothing that is no JSON on stdout, where JSON was asked for
  - the model is as it was, an output is whole or as it was before, and no other file is left

Prints TAP, a line per command; a failure names its seed, and --seed runs that alone, shows what it prints and keeps its
file.  The commands are compared with those of `zgen --help`, so that none is forgotten.
"""
import argparse
import collections
import concurrent.futures
import json
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from gguf_file import *

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
MODELS = os.path.join(TOP, "test", "data", "models")
DEMO = os.path.join(TOP, "models", "stories-q8_0.gguf")
ADDRESS_SPACE, SECONDS, LARGEST = 4 << 30, 20, 300_000
TEXT = "Once upon a time, \u00fcber 12 h\u00e4user \U0001f600.\n"
BEFORE = b"what was there before"

# Of a command: its name in --help, its arguments (MODEL is the changed file, OUT an output, PARTS the begin of the names
# of several or an output, TEXT a text file), its input.
COMMANDS = [
    ("generate", ["-m", "MODEL", "-p", TEXT, "-n", "3", "--ignore-eos"], ""),
    ("generate", ["-m", "MODEL", "-p", TEXT, "-n", "3", "--json", "--logprobs", "2", "--temp", "0"], ""),
    ("generate", ["-m", "MODEL", "-f", "TEXT", "-n", "2", "--kv", "q8_0", "--profile"], ""),
    ("generate", ["-m", "MODEL", "-cnv", "-st", "-p", "Hello", "-n", "3"], ""),
    ("generate", ["-m", "MODEL", "-p", "a", "-n", "2", "--verify", "2", "-c", "64"], ""),
    ("chat", ["chat", "-m", "MODEL", "-n", "3", "-sys", "Be brief."], "Hello\n/regen\nAnd?\n/exit\n"),
    ("info", ["info", "MODEL"], ""),
    ("info", ["info", "MODEL", "--json", "--keys"], ""),
    ("info", ["info", "MODEL", "--plan", "--device", "cuda"], ""),
    ("tokenize", ["tokenize", "-m", "MODEL", "-p", TEXT, "--parse-special"], ""),
    ("tokenize", ["tokenize", "-m", "MODEL", "--json", "-f", "TEXT"], ""),
    ("tokenize", ["tokenize", "-m", "MODEL", "--decode", "1,2,3,200,299"], ""),
    ("logits", ["logits", "-m", "MODEL", "--ids", "1,2,3,4", "-o", "OUT"], ""),
    ("perplexity", ["perplexity", "-m", "MODEL", "-f", "TEXT", "-c", "16", "--chunks", "1", "--save-logits", "OUT"], ""),
    ("bench", ["bench", "-m", "MODEL", "-p", "4", "-n", "2", "-r", "1", "-o", "json"], ""),
    ("quantize", ["quantize", "MODEL", "OUT", "Q4_K_M", "--requantize", "--json"], ""),
    ("quantize", ["quantize", "MODEL", "OUT", "Q8_0", "--requantize"], ""),
    ("imatrix", ["imatrix", "-m", "MODEL", "-f", "TEXT", "-c", "16", "--chunks", "1", "-o", "OUT"], ""),
    ("split", ["split", "MODEL", "PARTS", "--split-max-tensors", "9"], ""),
    ("merge", ["merge", "MODEL", "OUT"], ""),
]
WITHOUT_MODEL = {"synth", "help"}
COMPUTES = {"generate", "chat", "logits", "perplexity", "bench", "imatrix"}

INTEGERS = [0, 1, 2, 3, 7, 31, 32, 33, 255, 256, 4095, 4096, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53,
            2**62, 2**63 - 1, 2**63, 2**64 - 1]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-30, 1e-5, 0.5, 1e4, 1e38, 1e300, float("inf"), float("-inf"), float("nan")]
STRINGS = [b"", b"\0", b"\x1b[2J", b"gpt2", b"llama", b"t5", b"bert", b"yarn", b"longrope", b"e4m3", b"default",
           b"\xe2\x80\xae", b"x" * 5000, b"\xff\xfe", b"\xed\xa0\x80", b"{{ messages }}", b"{% if",
           b"{% for x in range(99999999) %}{{ x }}{% endfor %}"]
WIDTHS = {U8: 8, I8: 8, U16: 16, I16: 16, U32: 32, I32: 32, U64: 64, I64: 64}
SIGNED = {I8, I16, I32, I64}


def number(rng, kind):
    if kind in (F32, F64):
        v = rng.choice(FLOATS + [rng.uniform(-10, 10)])
        return v if kind == F64 or v != 1e300 else 1e38
    if kind == BOOL:
        return rng.choice([0, 1, 1, 2, 255])
    v = rng.choice(INTEGERS + [rng.randrange(1 << WIDTHS[kind])]) % (1 << WIDTHS[kind])
    return v - (1 << WIDTHS[kind]) if kind in SIGNED and v >> (WIDTHS[kind] - 1) else v


def some_value(rng, kind, depth=0):
    if kind == STRING:
        return rng.choice(STRINGS)
    if kind == ARRAY:
        element = rng.choice([U8, I32, U32, F32, STRING, BOOL, U64] + [ARRAY] * (depth == 0))
        return element, [some_value(rng, element, 1) for _ in range(rng.choice([0, 1, 2, 3, 40]))]
    return number(rng, kind)


# ---- Changes of a model, read ----

def change_value(rng, m):
    """A value of its own type, or a part of it."""
    name = rng.choice(list(m["keys"]))
    kind, v = m["keys"][name]
    if kind == ARRAY and v[1] and rng.random() < 0.8:
        element, items = v[0], list(v[1])
        at = rng.randrange(len(items))
        what = rng.randrange(5)
        if what == 0:
            del items[rng.randrange(len(items)):]
        elif what == 1:
            items += items[:rng.choice([1, 5, len(items)])]
        elif what == 2:
            items[at] = items[rng.randrange(len(items))]
        elif what == 3:
            items.reverse()
        else:
            items[at] = some_value(rng, element, 1)
        m["keys"][name] = kind, (element, items)
    elif kind == STRING and v and rng.random() < 0.5:
        at = rng.randrange(len(v))
        m["keys"][name] = kind, v[:at] + rng.choice([b"", b"%}", b"{{", b"\xff", b" and ", v[:at]]) + v[at + rng.randrange(9):]
    elif kind in WIDTHS and rng.random() < 0.6:
        m["keys"][name] = kind, rng.choice([v - 1, v + 1, 2 * v, v // 2, 1, 2, 3]) % (1 << (WIDTHS[kind] - 1))
    else:
        m["keys"][name] = kind, some_value(rng, kind)


def change_type(rng, m):
    name, kind = rng.choice(list(m["keys"])), rng.choice(list(FORMATS) + [STRING, ARRAY])
    m["keys"][name] = kind, some_value(rng, kind)


def drop_key(rng, m):
    del m["keys"][rng.choice(list(m["keys"]))]


def add_key(rng, m):
    """A key of another model, for this architecture."""
    other = read(rng.choice(SMALL))
    name = rng.choice(list(other["keys"]))
    arch, old = (x["keys"].get("general.architecture", (STRING, b"llama"))[1] for x in (m, other))
    arch, old = (a.decode(errors="replace") for a in (arch, old))
    m["keys"][name.replace(old + ".", arch + ".", 1)] = other["keys"][name]


def change_architecture(rng, m):
    old = m["keys"]["general.architecture"][1].decode()
    new = read(rng.choice(SMALL))["keys"]["general.architecture"][1].decode()
    m["keys"] = {new + k[len(old):] if k.startswith(old + ".") else k: v for k, v in m["keys"].items()}
    m["keys"]["general.architecture"] = STRING, new.encode()


def change_counts(rng, m):
    m[rng.choice(["n_keys", "n_tensors"])] = rng.choice(INTEGERS[:12] + [2**31, 2**60, 2**63, 2**64 - 1])


def some_tensor(rng, m):
    return m["tensors"][rng.choice(list(m["tensors"]))]


def change_dims(rng, m):
    t = some_tensor(rng, m)
    dims = list(t["dims"])
    at = rng.randrange(len(dims))
    what = rng.randrange(4)
    if what == 0:
        dims[at] = rng.choice(INTEGERS)
    elif what == 1:
        dims.insert(at, rng.choice([0, 1, 2, 2**32]))
    elif what == 2:
        dims[at] = max(0, dims[at] + rng.choice([-32, -1, 1, 32]))
    else:
        rng.shuffle(dims)
    t["dims"] = dims


def change_tensor(rng, m):
    t = some_tensor(rng, m)
    what = rng.randrange(5)
    if what == 0:
        t["type"] = rng.choice(list(BLOCKS) + [4, 5, 9, 25, 31, 36, 41, 1000, 2**31])
    elif what == 1:
        t["offset"] = rng.choice([0, 1, 31, 32, 2**31, 2**63, 2**64 - 32, 2**64 - 1, rng.randrange(100000)])
    elif what == 2:
        t["n_dims"] = rng.choice([0, 1, 2, 3, 4, 5, 2**31])
    elif what == 3:
        t["name"] = rng.choice(["", "x" * 64, "token_embd.weight", "blk.0.attn_q.weight", b"\xff", "a\0b", "blk.99.ffn_up.weight"])
    else:
        t["gap"] = rng.choice([1, 32, 4096])


def change_data(rng, m):
    t = some_tensor(rng, m)
    n = len(t["data"])
    t["data"] = rng.choice([bytes(n), b"\xff" * n, rng.randbytes(n), b"\x00\x7c" * (n // 2), b"\x00\x00\xc0\x7f" * (n // 4),
                            t["data"][:rng.randrange(n + 1)]])


def drop_tensor(rng, m):
    del m["tensors"][rng.choice(list(m["tensors"]))]


def add_tensor(rng, m):
    """One of another model, or one of its own under another layer's name."""
    other = read(rng.choice(SMALL)) if rng.random() < 0.6 else m
    name = rng.choice(list(other["tensors"]))
    m["tensors"][re.sub(r"\d+", lambda d: str(rng.choice([0, 1, 5, int(d[0])])), name)] = dict(other["tensors"][name])


def change_alignment(rng, m):
    m["alignment"] = rng.choice([1, 8, 64, 4096])
    m["keys"]["general.alignment"] = U32, rng.choice([m["alignment"], 0, 3, 32, 2**31])


# ---- Changes of bytes ----

def flip_bytes(rng, data):
    data = bytearray(data)
    end = rng.choice([24, 400, 20000, len(data)])
    for _ in range(rng.choice([1, 1, 4, 40])):
        data[rng.randrange(min(end, len(data)))] = rng.choice([0, 1, 0x7f, 0x80, 0xff, rng.randrange(256)])
    return bytes(data)


def cut(rng, data):
    return data[:rng.randrange(rng.choice([64, 20000, len(data)]))]


def move_bytes(rng, data):
    at, n = rng.randrange(min(30000, len(data))), rng.choice([1, 4, 8, 300])
    return rng.choice([data[:at] + data[at + n:], data[:at] + rng.randbytes(n) + data[at:], data[:at] + data[at:at + n] + data[at:]])


def fill_word(rng, data):
    at = rng.randrange(min(30000, len(data)))
    word = struct.pack("<Q", rng.choice(INTEGERS))[:rng.choice([1, 2, 4, 8])]
    return data[:at] + word + data[at + len(word):]


def zero_tail(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + bytes(len(data) - at)


OF_MODEL = [change_value] * 6 + [change_type] * 2 + [drop_key, add_key, add_key, change_architecture, change_counts, change_dims,
            change_dims, change_tensor, change_tensor, change_data, change_data, drop_tensor, add_tensor, change_alignment]
OF_BYTES = [flip_bytes, flip_bytes, cut, move_bytes, fill_word, fill_word, zero_tail]

SMALL = sorted(os.path.join(MODELS, f) for f in os.listdir(MODELS)
               if f.endswith(".gguf") and os.path.getsize(os.path.join(MODELS, f)) < LARGEST)
models = {}


def read(path):
    """A copy whose keys and tensors may be replaced."""
    if path not in models:
        models[path] = read_model(path)
    m = models[path]
    return {**m, "keys": dict(m["keys"]), "tensors": {n: dict(t) for n, t in m["tensors"].items()}}


def make(seed):
    """The bytes of the seed's model, what was done to it, and its command."""
    rng = random.Random(seed)
    path = DEMO if rng.random() < 0.03 else rng.choice(SMALL)
    m, done = read(path), [os.path.basename(path)]
    changes = [rng.choice(OF_MODEL) for _ in range(rng.choice([0, 1, 1, 1, 2, 3]))]
    for change in changes:
        try:
            change(rng, m)
            done.append(change.__name__)
        except (KeyError, IndexError, ValueError, AttributeError, UnicodeDecodeError):
            done.append(change.__name__ + " (nothing left to change)")
    data = write_model(m)
    for change in [rng.choice(OF_BYTES) for _ in range(rng.choice([0, 0, 0, 0, 0, 0, 1, 2]) if changes else 1)]:
        if data:
            data = change(rng, data)
            done.append(change.__name__)
    return data, ", ".join(done), rng.randrange(len(COMMANDS))


# ---- Runs ----

def sentence(text):
    """Why text is not one sentence beside warnings and the numbers of --verify; None: it is."""
    lines = [line for line in text.split("\n") if line and not line.startswith(("zgen: warning: ", "zgen: verify: "))]
    return None if len(lines) == 1 and lines[0].startswith("zgen: ") else "not one sentence on stderr"


def wrong(arguments, folder, data, code, out, err):
    """What is wrong with a run; None: nothing."""
    text = err.decode(errors="replace")
    if "Sanitizer" in text or "runtime error: " in text:
        return "a sanitizer reports"
    option = re.match(r"zgen: (--\S+) ", text)  # what the model does not allow
    if code not in (0, 1, 3, 4) and not (code == 2 and option and option[1] in arguments):
        return "exit code %d" % code
    if "out of memory (asked for" in text:
        return "a small allocation was too large"
    if code and sentence(text):
        return sentence(text)
    if code == 0 and "json" in " ".join(arguments):
        try:
            json.loads(out)
        except ValueError as e:
            return "stdout is no JSON: %s" % e
    with open(os.path.join(folder, "model.gguf"), "rb") as file:
        if file.read() != data:
            return "the model was changed"
    parts = {f for f in os.listdir(folder) if re.fullmatch(r"out-\d{5}-of-\d{5}\.gguf", f)}
    if set(os.listdir(folder)) - parts != {"model.gguf", "text", "out"} or parts and (code or "PARTS" not in arguments):
        return "files are left: %s" % " ".join(sorted(os.listdir(folder)))
    with open(os.path.join(folder, "out"), "rb") as file:
        now = file.read()
    if (not {"OUT", "PARTS"} & set(arguments) or code) and now != BEFORE:
        return "the output of a failed command was changed"
    if {"OUT", "PARTS"} & set(arguments) and code == 0 and now == BEFORE and not parts:
        return "no output was written"
    return None


def try_seed(zgen, seed, show=False):
    """Runs a seed; returns its command and what is wrong."""
    data, done, which = make(seed)
    name, arguments, text = COMMANDS[which]
    folder = tempfile.mkdtemp(prefix="zgen-mutate-")
    place = {"MODEL": "model.gguf", "OUT": "out", "PARTS": "out", "TEXT": "text"}
    for path, content in (("model.gguf", data), ("text", (TEXT * 30).encode()), ("out", BEFORE)):
        with open(os.path.join(folder, path), "wb") as file:
            file.write(content)
    command = [zgen] + [os.path.join(folder, place[a]) if a in place else a for a in arguments]
    command += ["--device", "cpu", "-t", "1"] if name in COMPUTES else []
    try:
        run = subprocess.run(command, input=text.encode(), capture_output=True, timeout=SECONDS)
        fault = wrong(arguments, folder, data, run.returncode, run.stdout, run.stderr)
        if show:
            print("%s\n%s\nexit code %d\n%s%s" % (done, " ".join(command), run.returncode,
                                                  run.stdout.decode(errors="replace"), run.stderr.decode(errors="replace")))
    except subprocess.TimeoutExpired:
        fault = "more than %d seconds" % SECONDS
    if not show:
        shutil.rmtree(folder)
    return name, fault and "%s (%s)" % (fault, done)


def missing_commands(zgen):
    text = subprocess.run([zgen, "--help"], capture_output=True, text=True).stdout
    listed = set(re.findall(r"^  zgen ([a-z]+)", text, re.M))
    return sorted(listed - {c[0] for c in COMMANDS} - WITHOUT_MODEL)


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("zgen")
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--from", dest="first", type=int, default=0)
    options.add_argument("--seed", type=int)
    o = options.parse_args()
    with open(o.zgen, "rb") as file:
        if b"__asan_init" not in file.read():  # sanitizers reserve address space by the terabyte
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if o.seed is not None:
        name, fault = try_seed(o.zgen, o.seed, show=True)
        print("not ok %s: %s" % (name, fault) if fault else "ok %s" % name)
        return 1 if fault else 0

    end, lock, seeds = time.monotonic() + o.seconds, threading.Lock(), iter(range(o.first, 2**62))
    runs, faults = collections.Counter(), collections.defaultdict(list)

    def work():
        while time.monotonic() < end:
            with lock:
                seed = next(seeds)
            name, fault = try_seed(o.zgen, seed)
            with lock:
                runs[name] += 1
                if fault:
                    faults[name].append("seed %d: %s" % (seed, fault))

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for worker in [pool.submit(work) for _ in range(os.cpu_count())]:
            worker.result()
    names = list(dict.fromkeys(c[0] for c in COMMANDS))
    print("1..%d" % (len(names) + 1))
    for i, name in enumerate(names, 1):
        for fault in faults[name][:10]:
            print("# " + fault)
        sound = runs[name] and not faults[name]
        print("%s %d %s: %d changed models, %d faults" % ("ok" if sound else "not ok", i, name, runs[name], len(faults[name])))
    missing = missing_commands(o.zgen)
    print("%s %d every command is tried%s" % ("not ok" if missing else "ok", len(names) + 1, ": " + " ".join(missing) if missing else ""))
    return 1 if missing or any(faults.values()) else 0


sys.exit(main())
