"""Qwen3.5 in float64, from the published formulas: gated attention, Gated DeltaNet in its chunked form, experts with a shared one."""
import numpy as np

from reference import Model, rope_frequencies, to_bf16

CHUNK = 64


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def delta_chunks(q, k, v, g, beta):
    """One head of Gated DeltaNet, in chunks: q, k [n, dk] scaled, v [n, dv], g, beta [n]. Forward substitution as in the papers."""
    n, state = len(q), np.zeros((k.shape[1], v.shape[1]))
    out = np.empty_like(v)
    for first in range(0, n, CHUNK):
        r = slice(first, min(first + CHUNK, n))
        decay = np.cumsum(g[r])
        d = np.tril(np.exp(np.minimum(decay[:, None] - decay[None, :], 0)))
        a = np.tril(beta[r, None] * (k[r] @ k[r].T) * d, -1) + np.eye(len(decay))
        u = np.linalg.solve(a, beta[r, None] * v[r])
        w = np.linalg.solve(a, beta[r, None] * np.exp(decay)[:, None] * k[r])
        new = u - w @ state
        out[r] = np.exp(decay)[:, None] * (q[r] @ state) + np.tril((q[r] @ k[r].T) * d) @ new
        state = np.exp(decay[-1]) * state + (np.exp(decay[-1] - decay)[:, None] * k[r]).T @ new
    return out


class Qwen3_5(Model):
    """delta: the format of Gated DeltaNet's projections; the engine's default is bf16 in every plan."""

    def __init__(self, directory, plan="bf16", kv="bf16", delta="bf16", head="bf16"):
        super().__init__(directory, plan, kv, head)
        self.delta_plan = delta
        for name in [n for n in self.t if n.endswith("norm.weight") and not n.endswith("linear_attn.norm.weight")]:
            self.t[name] = 1 + self.t[name]
        for name in [n for n in self.t if n.endswith(("gate_up_proj", "experts.down_proj"))]:
            p, whole = name[:name.rindex(".") + 1], self.t.pop(name)
            for e, part in enumerate(whole):
                if name.endswith("gate_up_proj"):
                    half = len(part) // 2
                    self.t[p + f"{e}.gate_proj.weight"], self.t[p + f"{e}.up_proj.weight"] = part[:half], part[half:]
                else:
                    self.t[p + f"{e}.down_proj.weight"] = part

    def projected(self, x, name):
        plan, self.plan = self.plan, self.delta_plan
        y = self.linear(x, name)
        self.plan = plan
        return y

    def gated_delta(self, x, p):
        c, t, n = self.config, self.t, len(x)
        hk, hv, dk, dv, taps = (c["linear_" + key] for key in ("num_key_heads", "num_value_heads", "key_head_dim",
                                                               "value_head_dim", "conv_kernel_dim"))
        u = self.projected(x, p + "in_proj_qkv")
        padded, w = np.vstack([np.zeros((taps - 1, u.shape[1])), u]), t[p + "conv1d.weight"][:, 0, :]
        u = sum(padded[j:j + n] * w[:, j] for j in range(taps))
        u = u * sigmoid(u)
        q, k = u[:, :hk * dk].reshape(n, hk, dk), u[:, hk * dk:2 * hk * dk].reshape(n, hk, dk)
        v = u[:, 2 * hk * dk:].reshape(n, hv, dv)
        q = q / np.sqrt((q * q).sum(-1, keepdims=True) + 1e-6) / np.sqrt(dk)
        k = k / np.sqrt((k * k).sum(-1, keepdims=True) + 1e-6)
        beta = sigmoid(x @ t[p + "in_proj_b.weight"].T)
        g = -np.exp(t[p + "A_log"]) * np.log1p(np.exp(x @ t[p + "in_proj_a.weight"].T + t[p + "dt_bias"]))
        z = self.projected(x, p + "in_proj_z").reshape(n, hv, dv)
        o = np.stack([delta_chunks(q[:, i // (hv // hk)], k[:, i // (hv // hk)], v[:, i], g[:, i], beta[:, i])
                      for i in range(hv)], axis=1)
        y = self.norm(o, t[p + "norm.weight"]) * z * sigmoid(z)
        return self.projected(y.reshape(n, -1), p + "out_proj")

    def gated_attention(self, x, p):
        c, t, n = self.config, self.t, len(x)
        heads, groups, width = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
        part = int(width * (c["rope_parameters"].get("partial_rotary_factor") or 0.25))
        inv, factor = rope_frequencies(c, part)
        angle = (np.arange(n)[:, None] * inv[None, :])[:, None, :]
        cos, sin = np.cos(angle) * factor, np.sin(angle) * factor

        def rotate(y):
            a, b = y[..., :part // 2], y[..., part // 2:part]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin, y[..., part:]], -1)

        both = self.linear(x, p + "q_proj").reshape(n, heads, 2 * width)
        q, gate = both[..., :width], both[..., width:]
        k = self.linear(x, p + "k_proj").reshape(n, groups, width)
        v = self.linear(x, p + "v_proj").reshape(n, groups, width)
        q, k = rotate(self.norm(q, t[p + "q_norm.weight"])), rotate(self.norm(k, t[p + "k_norm.weight"]))
        if self.kv == "bf16":
            k, v = to_bf16(k), to_bf16(v)
        out = np.empty((n, heads, width))
        for i in range(heads):
            own = i // (heads // groups)
            s = q[:, i] @ k[:, own].T / np.sqrt(width) + self.mask(q[:, i], k[:, own])
            s = np.exp(s - s.max(-1, keepdims=True))
            out[:, i] = s / s.sum(-1, keepdims=True) @ v[:, own]
        return self.linear((out * sigmoid(gate)).reshape(n, -1), p + "o_proj")

    def experts(self, x, p):
        self.config["norm_topk_prob"] = True
        shared = self.mlp(x, p + "shared_expert.")
        return super().experts(x, p) + sigmoid(x @ self.t[p + "shared_expert_gate.weight"].T) * shared

    def logits(self, tokens):
        c, t = self.config, self.t
        h = t["model.embed_tokens.weight"][tokens]
        for l in range(c["num_hidden_layers"]):
            p = f"model.layers.{l}."
            x = self.norm(h, t[p + "input_layernorm.weight"])
            attends = p + "self_attn.q_norm.weight" in t
            h = h + (self.gated_attention(x, p + "self_attn.") if attends else self.gated_delta(x, p + "linear_attn."))
            x = self.norm(h, t[p + "post_attention_layernorm.weight"])
            h = h + (self.experts(x, p + "mlp.") if p + "mlp.gate.weight" in t else self.mlp(x, p + "mlp."))
        return self.lm_head(self.norm(h, t["model.norm.weight"]))
