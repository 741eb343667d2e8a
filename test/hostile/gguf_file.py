"""gguf_file: models as dictionaries, read from files and written to bytes, for the programs and tests that change them.

The writer checks nothing, so that each part of a file can be overridden.
"""
import struct

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}
Q4_0, Q8_0, NVFP4 = 2, 8, 40
# Weights and bytes of a block, by type.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 24: (1, 1),
          30: (1, 2), 39: (32, 17), 40: (64, 36)}


# ---- Reading ----

class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def number(self, letter):
        (value,) = struct.unpack_from("<" + letter, self.data, self.at)
        self.at += struct.calcsize("<" + letter)
        return value

    def string(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n:self.at]

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(FORMATS[kind])
        element, n = self.number("I"), self.number("Q")
        return element, [self.value(element) for _ in range(n)]


def read_model(path):
    """{version, keys: {name: (type, value)}, tensors: {name: {dims, type, data}}}, in the order of the file."""
    with open(path, "rb") as file:
        r = Reader(file.read())
    r.at = 4
    m = {"magic": b"GGUF", "version": r.number("I"), "keys": {}, "tensors": {}}
    n_tensors, n_keys = r.number("Q"), r.number("Q")
    for _ in range(n_keys):
        name = r.string().decode()
        kind = r.number("I")
        m["keys"][name] = (kind, r.value(kind))
    places = []
    for _ in range(n_tensors):
        name = r.string().decode()
        dims = [r.number("Q") for _ in range(r.number("I"))]
        m["tensors"][name] = {"dims": dims, "type": r.number("I")}
        places.append(r.number("Q"))
    begin = -(-r.at // 32) * 32
    ends = sorted(places)[1:] + [len(r.data) - begin]
    for t, place in zip(m["tensors"].values(), places):
        t["data"] = r.data[begin + place:begin + min(e for e in ends if e > place)]
        t["data"] = t["data"][:n_bytes(t)]
    return m


def n_bytes(t):
    weights, size = BLOCKS[t["type"]]
    n = 1
    for d in t["dims"]:
        n *= d
    return n // weights * size


# ---- Writing ----

def string(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def value(kind, v):
    if isinstance(v, bytes) and kind != STRING:
        return v  # bytes as they are
    if kind == STRING:
        return string(v)
    if kind == ARRAY:
        return struct.pack("<IQ", v[0], len(v[1])) + b"".join(value(v[0], e) for e in v[1])
    return struct.pack("<" + FORMATS[kind], v)


def write_model(m):
    """The bytes of a model.  Overrides: n_keys, n_tensors, alignment, tail, end; of a tensor name, n_dims, offset."""
    alignment = m.get("alignment", 32)
    keys = b"".join(string(m.get("key names", {}).get(k, k)) + struct.pack("<I", kind) + value(kind, v)
                    for k, (kind, v) in m["keys"].items()) + m.get("more keys", b"")
    infos, data = b"", b""
    for name, t in m["tensors"].items():
        data += b"\0" * (-len(data) % alignment) + b"\xee" * t.get("gap", 0)
        infos += string(t.get("name", name)) + struct.pack("<I", t.get("n_dims", len(t["dims"])))
        infos += b"".join(struct.pack("<Q", d % 2**64) for d in t["dims"])
        infos += struct.pack("<IQ", t["type"], t.get("offset", len(data)))
        data += t["data"]
    header = m["magic"] + struct.pack("<IQQ", m["version"], m.get("n_tensors", len(m["tensors"])),
                                      m.get("n_keys", len(m["keys"])))
    header += keys + infos
    whole = header + b"\0" * (-len(header) % alignment) + data + m.get("tail", b"")
    return whole[:m.get("end", len(whole))]
