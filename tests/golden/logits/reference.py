"""An independent float64 forward pass for llama, qwen2, qwen3 and qwen3_moe checkpoints (qwen3_5: reference_qwen3_5.py), written from the published formulas.

It shares no code with the C library. NVFP4 is emulated from the definition of the format: quantise, dequantise, multiply.
"""
import json
import math
import os
import struct

import numpy as np

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header, base = json.loads(data[8:8 + n]), 8 + n
    tensors = {}
    for name, t in header.items():
        if name == "__metadata__":
            continue
        b, e = t["data_offsets"]
        raw = data[base + b:base + e]
        if t["dtype"] == "BF16":
            value = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif t["dtype"] in ("F32", "F16"):
            value = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[t["dtype"]])
        elif t["dtype"] in ("U8", "F8_E4M3"):
            value = np.frombuffer(raw, np.uint8)
        else:
            raise ValueError(t["dtype"])
        tensors[name] = value.reshape(t["shape"])
        if t["dtype"] not in ("U8", "F8_E4M3"):
            tensors[name] = tensors[name].astype(np.float64)
    return tensors


def read_model(directory):
    with open(os.path.join(directory, "config.json")) as f:
        config = json.load(f)
    tensors = {}
    for name in sorted(os.listdir(directory)):
        if name.endswith(".safetensors"):
            tensors.update(read_safetensors(os.path.join(directory, name)))
    if "text_config" in config:
        config = dict(config["text_config"], model_type=config["model_type"])
        tensors = {name.replace("model.language_model.", "model."): value for name, value in tensors.items()}
    return config, tensors


def rope_frequencies(config, width):
    """inv_freq [width/2] and the factor on cos and sin."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    base = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    inv = base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return inv, 1.0
    factor = rope["factor"]
    if kind == "linear":
        return inv / factor, 1.0
    original = rope.get("original_max_position_embeddings", config["max_position_embeddings"])
    if kind == "llama3":
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        out = []
        for theta in inv:
            wavelength = 2 * math.pi / theta
            if wavelength < original / high:
                out.append(theta)
            elif wavelength > original / low:
                out.append(theta / factor)
            else:
                s = (original / wavelength - low) / (high - low)
                out.append((1 - s) * theta / factor + s * theta)
        return np.array(out), 1.0
    if kind == "yarn":
        def correction(rotations):
            return width * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))
        low = max(math.floor(correction(rope.get("beta_fast", 32))), 0)
        high = min(math.ceil(correction(rope.get("beta_slow", 1))), width - 1)
        ramp = np.clip((np.arange(width // 2) - low) / (high - low if high > low else 0.001), 0, 1)
        attention = rope.get("attention_factor") or 0.1 * math.log(factor) + 1
        return inv / factor * ramp + inv * (1 - ramp), attention
    raise ValueError(kind)


def e4m3(x):
    """Nearest E4M3 value (ties to even), x >= 0, saturating at 448."""
    x = np.minimum(np.asarray(x, np.float64), 448.0)
    exponent = np.floor(np.log2(np.maximum(x, 2.0 ** -6)))
    step = 2.0 ** (exponent - 3)
    return np.minimum(np.round(x / step) * step, 448.0)  # np.round: ties to even


def e2m1(x):
    """Nearest E2M1 value, ties to the even code, saturating at 6."""
    magnitude = np.minimum(np.abs(x), 6.0)
    step = np.where(magnitude < 2, 0.5, np.where(magnitude < 4, 1.0, 2.0))
    return np.sign(x) * np.round(magnitude / step) * step


def blocks(x):
    pad = -x.shape[-1] % 16
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)])
    return x.reshape(*x.shape[:-1], -1, 16)


def nvfp4_rows(x):
    """Activations: a dynamic tensor scale per row, E4M3 scales per block of 16 (float32 steps as the format defines)."""
    f = np.float32
    b = blocks(x).astype(f)
    amax = np.abs(b).max(axis=(-1, -2), keepdims=True)
    gs = np.where(amax > 0, f(2688) / np.where(amax > 0, amax, 1), f(1)).astype(f)
    sf = (gs * (np.abs(b).max(axis=-1, keepdims=True) * f(1 / 6)).astype(f)).astype(f)
    s8 = e4m3(sf).astype(f)
    inverse = (s8 * (f(1) / gs)).astype(f)
    scale = np.where(s8 > 0, f(1) / np.where(inverse > 0, inverse, 1), f(0)).astype(f)
    q = e2m1((b * scale).astype(f))
    return (q * s8.astype(np.float64) / gs.astype(np.float64)).reshape(*x.shape[:-1], -1)[..., :x.shape[-1]]


def nvfp4_weight(w, amax):
    """RTN as compressed-tensors does it; amax over the fused group."""
    f = np.float32
    b = blocks(w).astype(f)
    gs = f(2688) / f(amax)
    s8 = e4m3((gs * (np.abs(b).max(axis=-1, keepdims=True) / f(6)).astype(f)).astype(f))
    s8 = np.where(s8 == 0, 0.125, s8).astype(f)
    q = e2m1(np.clip((b / (s8 / gs).astype(f)).astype(f), -6, 6))
    return (q * (s8.astype(np.float64) / np.float64(gs))).reshape(w.shape[0], -1)[:, :w.shape[1]]


def packed_weight(t, name):
    """An NVFP4 tensor of a checkpoint in either layout, or None."""
    p = name[:-len(".weight")]
    if p + ".weight_packed" in t:
        packed, multiplier = t[p + ".weight_packed"], 1 / t[p + ".weight_global_scale"].reshape(-1)[0]
    elif p + ".weight_scale_2" in t:
        packed, multiplier = t[name], t[p + ".weight_scale_2"].reshape(-1)[0]
    elif t[name].dtype == np.uint8:  # FP8
        exponent, mantissa = (t[name] >> 3 & 15).astype(int), (t[name] & 7).astype(int)
        value = np.where(exponent == 0, mantissa * 2.0 ** -9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
        return np.where(t[name] & 128, -value, value) * t[p + ".weight_scale"]
    else:
        return None
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
    value = np.where(codes & 8, -1.0, 1.0) * E2M1[codes & 7]
    raw = t[p + ".weight_scale"].astype(np.int64)
    exponent, mantissa = raw >> 3 & 15, raw & 7
    scale = np.where(exponent == 0, mantissa * 2.0 ** -9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    return value * np.repeat(scale, 16, axis=1) * multiplier


FUSED = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj"),
         "in_proj_qkv": ("in_proj_qkv", "in_proj_z")}
for _first, _all in list(FUSED.items()):
    for _name in _all:
        FUSED[_name] = _all


def int8_groups(x, keep_bits):
    """[rows, K] -> the same after symmetric INT8 in groups of 64, scales amax/127 in FP32 (weights: 22 bits kept)."""
    rows, k = x.shape
    padded = np.zeros((rows, -(-k // 64) * 64))
    padded[:, :k] = x
    g = padded.reshape(rows, -1, 64)
    amax = np.abs(g).max(-1, keepdims=True).astype(np.float32)
    scale = amax * np.float32(1 / 127)
    if keep_bits < 24:
        scale = (scale.view(np.uint32) & np.uint32(0xFFFFFFFF << (24 - keep_bits) & 0xFFFFFFFF)).view(np.float32)
    safe = np.where(scale > 0, scale, 1)
    factor = np.float32(1) / safe if keep_bits < 24 else np.float32(127) / np.where(amax > 0, amax, 1)
    q = np.clip(np.rint((g.astype(np.float32) * factor)), -127, 127) * scale.astype(np.float64)
    return q.reshape(rows, -1)[:, :k]


def fp8_rows(x):
    """[rows, K] -> the same in E4M3 with the row's scale amax/448 (FP32 steps)."""
    f = np.float32
    amax = np.abs(x).max(-1, keepdims=True).astype(f)
    scale = (amax / f(448)).astype(f)
    scaled = (x.astype(f) / np.where(scale > 0, scale, f(1))).astype(f)
    return np.sign(scaled) * e4m3(np.abs(scaled)) * scale.astype(np.float64)


class Model:
    """plan: 'bf16', 'w16a16', 'int8' (W8A8), 'fp8' (W8A8 in E4M3), 'nvfp4' (W4A4) or
    'w4a16' for all linear layers. head: 'bf16', 'w4a16' or 'nvfp4' for lm_head. kv: round K and V to BF16 as the engine's cache does."""

    def __init__(self, directory, plan="bf16", kv="bf16", head="bf16"):
        self.config, self.t = read_model(directory)
        self.plan, self.kv, self.head, self.cache, self.causal = plan, kv, head, {}, None
        self.quantised = any(name.endswith((".weight_packed", ".weight_scale_2")) for name in self.t)

    def weight(self, name):
        if name in self.cache:
            return self.cache[name]
        w = packed_weight(self.t, name)
        if w is None:
            w = self.t[name]
            if self.quantised:
                pass  # what such a checkpoint has dense runs dense
            elif self.plan in ("nvfp4", "w4a16"):
                part = name.split(".")[-2]
                group = [name.replace(part, other) for other in FUSED.get(part, (part,))]
                w = nvfp4_weight(w, max(np.abs(self.t[g]).max() for g in group))
            elif self.plan == "int8":
                w = int8_groups(w, 22)
            elif self.plan == "fp8":
                w = fp8_rows(w)
        self.cache[name] = w
        return w

    def linear(self, x, name):
        if self.plan == "nvfp4":
            x = nvfp4_rows(x)
        elif self.plan == "int8":
            x = int8_groups(x, 24)
        elif self.plan == "fp8":
            x = fp8_rows(x)
        elif self.plan == "w16a16":
            x = to_bf16(x)
        y = x @ self.weight(name + ".weight").T
        return y + self.t[name + ".bias"] if name + ".bias" in self.t else y

    def norm(self, x, weight):
        eps = self.config.get("rms_norm_eps", 1e-6)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def mlp(self, x, p):
        gate, up = self.linear(x, p + "gate_proj"), self.linear(x, p + "up_proj")
        return self.linear(gate / (1 + np.exp(-gate)) * up, p + "down_proj")

    def experts(self, x, p):
        """Softmax over all experts, the largest k, renormalised where the config says so; each row through its own."""
        c, y = self.config, np.zeros_like(x)
        s = x @ self.t[p + "gate.weight"].T
        s = np.exp(s - s.max(-1, keepdims=True))
        s /= s.sum(-1, keepdims=True)
        chosen = np.argsort(-s, axis=-1, kind="stable")[:, :c["num_experts_per_tok"]]
        for row, experts in enumerate(chosen):
            weights = s[row, experts]
            if c.get("norm_topk_prob", False):
                weights = weights / weights.sum()
            for e, weight in zip(experts, weights):
                y[row] += weight * self.mlp(x[row:row + 1], p + f"experts.{e}.")[0]
        return y

    def mask(self, q, k):
        """What is added to one head's scores [n, n]: causal. tools/experiments overrides it."""
        if self.causal is None or len(self.causal) != len(q):
            self.causal = np.triu(np.full((len(q), len(q)), -np.inf, q.dtype), 1)
        return self.causal

    def logits(self, tokens):
        c, t = self.config, self.t
        heads, groups = c["num_attention_heads"], c.get("num_key_value_heads", c["num_attention_heads"])
        width = c.get("head_dim") or c["hidden_size"] // heads
        inv, factor = rope_frequencies(c, width)
        n = len(tokens)
        angle = np.arange(n)[:, None] * inv[None, :]
        cos, sin = np.cos(angle)[:, None, :] * factor, np.sin(angle)[:, None, :] * factor

        def rotate(x):
            a, b = x[..., :width // 2], x[..., width // 2:]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        h = t["model.embed_tokens.weight"][tokens]
        for l in range(c["num_hidden_layers"]):
            p = f"model.layers.{l}."
            x = self.norm(h, t[p + "input_layernorm.weight"])
            q = self.linear(x, p + "self_attn.q_proj").reshape(n, heads, width)
            k = self.linear(x, p + "self_attn.k_proj").reshape(n, groups, width)
            v = self.linear(x, p + "self_attn.v_proj").reshape(n, groups, width)
            if p + "self_attn.q_norm.weight" in t:
                q = self.norm(q, t[p + "self_attn.q_norm.weight"])
                k = self.norm(k, t[p + "self_attn.k_norm.weight"])
            q, k = rotate(q), rotate(k)
            if self.kv == "bf16":
                k, v = to_bf16(k), to_bf16(v)
            out = np.empty((n, heads, width))
            for i in range(heads):
                g = i // (heads // groups)
                s = q[:, i] @ k[:, g].T / math.sqrt(width) + self.mask(q[:, i], k[:, g])
                s = np.exp(s - s.max(-1, keepdims=True))
                out[:, i] = s / s.sum(-1, keepdims=True) @ v[:, g]
            h = h + self.linear(out.reshape(n, -1), p + "self_attn.o_proj")
            x = self.norm(h, t[p + "post_attention_layernorm.weight"])
            h = h + (self.experts(x, p + "mlp.") if p + "mlp.gate.weight" in t else self.mlp(x, p + "mlp."))
        return self.lm_head(self.norm(h, t["model.norm.weight"]))

    def lm_head(self, h):
        w = self.t["lm_head.weight" if "lm_head.weight" in self.t else "model.embed_tokens.weight"]
        if self.head in ("w4a16", "nvfp4"):
            w = nvfp4_weight(w, np.abs(w).max())
        return (nvfp4_rows(h) if self.head == "nvfp4" else h) @ w.T


def to_bf16(x):
    bits = np.asarray(x, np.float32).view(np.uint32)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32)).view(np.float32).astype(np.float64)
