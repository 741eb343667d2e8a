#!/usr/bin/env python3
"""Train the demo model from random weights and write it as a GGUF file (F16, llama architecture).

  train_demo.py OUT_DIR [--steps N] [--samples N] [--layers N] [--dim D] [--ff F] [--name NAME]

Needs a CUDA GPU, torch and sentencepiece.  The text comes from make_corpus.py; nothing is downloaded.
The rotary embedding rotates neighbouring pairs (2i, 2i+1), as the llama architecture of GGUF expects,
so the weights are written as they were trained.  llama.cpp's llama-quantize makes the quantised files from
this one; models/README.md describes the one in the executable.
"""
import argparse, io, json, math, multiprocessing as mp, os, struct, time
import numpy as np, sentencepiece as spm, torch, torch.nn as nn, torch.nn.functional as F
import make_corpus

ap = argparse.ArgumentParser()
ap.add_argument("out")
ap.add_argument("--steps", type=int, default=4000)
ap.add_argument("--samples", type=int, default=400_000)
ap.add_argument("--layers", type=int, default=6)
ap.add_argument("--dim", type=int, default=256)
ap.add_argument("--ff", type=int, default=768)
ap.add_argument("--vocab", type=int, default=2048)
ap.add_argument("--batch", type=int, default=256)
ap.add_argument("--name", default="stories")
a = ap.parse_args()
HEAD, KV_SHARE, CTX, EPS, BASE = 32, 2, 512, 1e-5, 10000.0
N_HEAD, N_KV = a.dim // HEAD, a.dim // HEAD // KV_SHARE
ROLES = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = ("{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
            "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")
t0 = time.time()


def log(*x):
    print(f"[{time.time() - t0:6.1f}s]", *x, flush=True)


def train_tokenizer():
    text = [t for s in make_corpus.samples(7, 40_000) for _, t in s]
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, model_type="bpe", vocab_size=a.vocab, byte_fallback=True,
        character_coverage=1.0, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=True, control_symbols=ROLES, bos_id=1, eos_id=2, unk_id=0, pad_id=-1, minloglevel=2)
    return model.getvalue()


def encode(job):
    proto, seed, n = job
    sp = spm.SentencePieceProcessor(model_proto=proto)
    ids, role_id = [], {r: sp.piece_to_id(r) for r in ROLES}
    for sample in make_corpus.samples(seed, n):
        ids.append(1)
        for role, text in sample:
            if role:
                ids.append(role_id[f"<|{role}|>"])
            ids += sp.encode(text)
            if role:
                ids.append(role_id["<|end|>"])
        ids.append(2)
    return np.array(ids, np.uint16)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        lin = lambda i, o: nn.Linear(i, o, bias=False)
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(a.dim)), nn.Parameter(torch.ones(a.dim))
        self.q, self.k, self.v = lin(a.dim, a.dim), lin(a.dim, N_KV * HEAD), lin(a.dim, N_KV * HEAD)
        self.o, self.gate, self.up, self.down = lin(a.dim, a.dim), lin(a.dim, a.ff), lin(a.dim, a.ff), lin(a.ff, a.dim)

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        h = F.rms_norm(x, (a.dim,), self.attn_norm, EPS)
        rope = lambda t: torch.stack((t[..., 0::2] * cos - t[..., 1::2] * sin, t[..., 0::2] * sin + t[..., 1::2] * cos), -1).flatten(-2)
        q = rope(self.q(h).view(B, T, N_HEAD, HEAD).transpose(1, 2))
        k = rope(self.k(h).view(B, T, N_KV, HEAD).transpose(1, 2))
        v = self.v(h).view(B, T, N_KV, HEAD).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(y.transpose(1, 2).reshape(B, T, a.dim))
        h = F.rms_norm(x, (a.dim,), self.ffn_norm, EPS)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embd, self.norm = nn.Embedding(a.vocab, a.dim), nn.Parameter(torch.ones(a.dim))
        self.blocks = nn.ModuleList(Block() for _ in range(a.layers))
        for n, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * a.layers) if n.endswith(("o.weight", "down.weight")) else 1))
        freq = BASE ** (-torch.arange(0, HEAD, 2).float() / HEAD)
        ang = torch.arange(CTX).float()[:, None] * freq
        self.register_buffer("cos", ang.cos(), persistent=False)
        self.register_buffer("sin", ang.sin(), persistent=False)

    def forward(self, ids):
        x = self.embd(ids)
        T = ids.shape[1]
        for b in self.blocks:
            x = b(x, self.cos[:T].to(x.dtype), self.sin[:T].to(x.dtype))
        return F.linear(F.rms_norm(x, (a.dim,), self.norm, EPS), self.embd.weight)


def main():
    os.makedirs(a.out, exist_ok=True)
    proto = train_tokenizer()
    sp = spm.SentencePieceProcessor(model_proto=proto)
    log("tokenizer", sp.vocab_size())
    parts = 64
    with mp.get_context("fork").Pool(16) as pool:
        chunks = pool.map(encode, [(proto, 1000 + i, a.samples // parts) for i in range(parts)])
    held = torch.from_numpy(encode((proto, 999_999, 2000)).astype(np.int64))
    data = torch.from_numpy(np.concatenate(chunks).astype(np.int32)).cuda()
    log("tokens", data.numel())

    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    model = Model().cuda()
    run = torch.compile(model)
    n_par = sum(p.numel() for p in model.parameters())
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    peak = 2e-3
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=0.1), dict(params=rest, weight_decay=0.0)], lr=peak, betas=(0.9, 0.95), fused=True)
    log("parameters", n_par)
    offs = torch.arange(CTX + 1, device="cuda")
    for step in range(a.steps):
        warm, frac = min(1.0, (step + 1) / 100), step / a.steps
        for g in opt.param_groups:
            g["lr"] = peak * warm * (1.0 if frac < 0.6 else max(0.01, (1 - frac) / 0.4))
        start = torch.randint(0, data.numel() - CTX - 1, (a.batch,), device="cuda")
        x = data[start[:, None] + offs].long()
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(run(x[:, :-1]).float().view(-1, a.vocab), x[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        if step % 250 == 0 or step == a.steps - 1:
            log("step", step, "loss", round(loss.item(), 4))
    model.eval()
    with torch.no_grad():
        n = held.numel() // CTX * CTX
        ev = held[: n].view(-1, CTX).cuda()
        held_loss = float(np.mean([F.cross_entropy(model(e[:, :-1]).view(-1, a.vocab), e[:, 1:].reshape(-1)).item() for e in ev.split(64)]))
    log("held-out loss (f32)", round(held_loss, 4))
    path = os.path.join(a.out, f"{a.name}-f16.gguf")
    write_gguf(path, model.state_dict(), sp)
    json.dump(dict(parameters=n_par, tokens=int(data.numel()), steps=a.steps, held_out_loss=held_loss, seconds=time.time() - t0),
              open(os.path.join(a.out, "train.json"), "w"))
    open(os.path.join(a.out, "spm.model"), "wb").write(proto)
    log("wrote", path, os.path.getsize(path))


def write_gguf(path, sd, sp):
    sd = {k: v.float().cpu().numpy() for k, v in sd.items()}
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    tens = [("token_embd.weight", sd["embd.weight"], 1), ("output_norm.weight", sd["norm"], 0)]
    for i in range(a.layers):
        tens += [(f"blk.{i}.{n}.weight", sd[f"blocks.{i}.{n}"], 0) for n in ("attn_norm", "ffn_norm")]
        tens += [(f"blk.{i}.{g}.weight", sd[f"blocks.{i}.{n}.weight"], 1) for n, g in names.items()]
    out, n_kv = bytearray(), 0

    def s(x):
        x = x if isinstance(x, bytes) else x.encode()
        return struct.pack("<Q", len(x)) + x

    def kv(key, kind, value):
        nonlocal out, n_kv
        n_kv += 1
        out += s(key) + struct.pack("<I", kind) + value

    u32 = lambda k, v: kv(k, 4, struct.pack("<I", v))
    f32 = lambda k, v: kv(k, 6, struct.pack("<f", v))
    st = lambda k, v: kv(k, 8, s(v))
    boo = lambda k, v: kv(k, 7, struct.pack("<B", v))
    st("general.architecture", "llama"), st("general.name", f"zgen {a.name}")
    st("general.description", "A small story and chat model trained from nothing on text made by make_corpus.py")
    st("general.license", "mit"), u32("general.file_type", 1), u32("general.alignment", 32)
    for k, v in [("block_count", a.layers), ("context_length", CTX), ("embedding_length", a.dim), ("feed_forward_length", a.ff),
                 ("attention.head_count", N_HEAD), ("attention.head_count_kv", N_KV), ("rope.dimension_count", HEAD), ("vocab_size", a.vocab)]:
        u32("llama." + k, v)
    f32("llama.attention.layer_norm_rms_epsilon", EPS), f32("llama.rope.freq_base", BASE)
    st("tokenizer.ggml.model", "llama"), st("tokenizer.ggml.pre", "default")
    n = sp.vocab_size()
    kind = lambda i: 2 if sp.is_unknown(i) else 6 if sp.is_byte(i) else 3 if sp.is_control(i) else 1
    kv("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, n) + b"".join(s(sp.id_to_piece(i)) for i in range(n)))
    kv("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, n) + np.array([sp.get_score(i) for i in range(n)], np.float32).tobytes())
    kv("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, n) + np.array([kind(i) for i in range(n)], np.int32).tobytes())
    for k, v in [("bos", 1), ("eos", 2), ("unknown", 0), ("eot", sp.piece_to_id("<|end|>"))]:
        u32(f"tokenizer.ggml.{k}_token_id", v)
    boo("tokenizer.ggml.add_bos_token", 1), boo("tokenizer.ggml.add_eos_token", 0), boo("tokenizer.ggml.add_space_prefix", 1)
    st("tokenizer.chat_template", TEMPLATE)
    infos, blobs, off = b"", [], 0
    for name, w, t in tens:
        blob = w.astype(np.float16 if t else np.float32).tobytes()
        infos += s(name) + struct.pack("<I", w.ndim) + b"".join(struct.pack("<Q", d) for d in reversed(w.shape)) + struct.pack("<IQ", t, off)
        blob += b"\0" * (-len(blob) % 32)
        blobs.append(blob)
        off += len(blob)
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, len(tens), n_kv) + out + infos)
        f.write(b"\0" * (-f.tell() % 32))
        f.writelines(blobs)


if __name__ == "__main__":
    main()
