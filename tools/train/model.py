"""The Qwen3 decoder in plain torch, with Hugging Face's tensor names, its norms and its rotary embedding."""
import torch
from torch import nn
import torch.nn.functional as F

CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "eos_token_id": None,  # filled from the tokenizer
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 4096,
    "max_window_layers": 8,
    "model_type": "qwen3",
    "num_attention_heads": 8,
    "num_hidden_layers": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 3072,
}
CHUNK = 256  # queries per attention block: the causal half that no query sees is mostly not computed


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def attend(q, k, v):
    """softmax(q k^T) v over the past, by blocks of queries; q [N, R, T, K] holds the R heads that share
    one of the N key/value heads k, v [N, S, K]."""
    n, r, t, w = q.shape
    if q.is_cuda and k.shape[1] == t:
        q, k = (q * w**0.5).to(v.dtype), k.to(v.dtype)  # the call divides by it once more
        return F.scaled_dot_product_attention(q, *(x[:, None].expand(n, r, t, w) for x in (k, v)), is_causal=True)
    past, out = k.shape[1] - t, []
    for at in range(0, t, CHUNK):
        end = min(at + CHUNK, t)
        seen = past + end
        p = torch.bmm(q[:, :, at:end].reshape(n, -1, w), k[:, :seen].transpose(1, 2)).view(n, r, end - at, seen)
        if end - at > 1:
            p[..., past + at:] += torch.full((end - at, end - at), -1e9).triu(1)
        out.append(torch.bmm(p.softmax(-1).view(n, -1, seen), v[:, :seen]).view(n, r, end - at, w))
    return torch.cat(out, 2)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, k = c["hidden_size"], c["head_dim"]
        self.heads, self.groups, self.width = c["num_attention_heads"], c["num_key_value_heads"], k
        self.q_proj = nn.Linear(d, self.heads * k, bias=False)
        self.k_proj = nn.Linear(d, self.groups * k, bias=False)
        self.v_proj = nn.Linear(d, self.groups * k, bias=False)
        self.o_proj = nn.Linear(self.heads * k, d, bias=False)
        self.q_norm = RMSNorm(k, c["rms_norm_eps"])
        self.k_norm = RMSNorm(k, c["rms_norm_eps"])

    def forward(self, x, cos, sin, cache):
        b, t, _ = x.shape
        h, g, w = self.heads, self.groups, self.width
        q = self.q_norm(self.q_proj(x).view(b, t, h, w)).transpose(1, 2)  # [B, H, T, K]
        k = self.k_norm(self.k_proj(x).view(b, t, g, w)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, g, w).transpose(1, 2)
        q, k = rotate(q, cos, sin) * w**-0.5, rotate(k, cos, sin)
        if cache is not None:
            k, v = cache.append(self, k, v)
        out = attend(q.reshape(b * g, h // g, t, w), k.reshape(b * g, -1, w), v.reshape(b * g, -1, w))
        return self.o_proj(out.view(b, h, t, w).transpose(1, 2).reshape(b, t, h * w))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["hidden_size"], c["intermediate_size"]
        self.gate_proj = nn.Linear(d, f, bias=False)
        self.up_proj = nn.Linear(d, f, bias=False)
        self.down_proj = nn.Linear(f, d, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Mlp(c)

    def forward(self, x, cos, sin, cache):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = RMSNorm(c["hidden_size"], c["rms_norm_eps"])


class Cache:
    """Keys and values of one growing sequence, per attention module."""

    def __init__(self):
        self.kv = {}

    def append(self, layer, k, v):
        if layer in self.kv:
            old_k, old_v = self.kv[layer]
            k, v = torch.cat((old_k, k), 2), torch.cat((old_v, v), 2)
        self.kv[layer] = (k, v)
        return k, v

    def length(self):
        return next(iter(self.kv.values()))[0].shape[2] if self.kv else 0


class Model(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        self.config = c
        self.model = Body(c)
        k = c["head_dim"]
        inverse = c["rope_theta"] ** -(torch.arange(0, k, 2).float() / k)
        self.register_buffer("inverse", inverse, persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.04 if "embed" in name else p.shape[1] ** -0.5)
            if "o_proj" in name or "down_proj" in name:
                nn.init.zeros_(p)
        self.look_back()

    @torch.no_grad()
    def look_back(self):
        """Starts the first layer's heads 0..3 as heads that look 1..4 tokens back. Copying needs such heads, and
        finding them is what a small budget of tokens would otherwise be spent on. One embedding dimension is made
        constant; the queries and keys read it and carry a fixed vector over the fast rotary frequencies, turned so
        that a key matches the query that is `back` positions later."""
        attention, k = self.model.layers[0].self_attn, self.config["head_dim"]
        constant = 0.2
        self.model.embed_tokens.weight[:, 0] = constant
        normed = constant / self.model.embed_tokens.weight.pow(2).mean().sqrt()
        fast = (self.inverse > 0.1).float()
        key = torch.cat((fast, torch.zeros(k // 2))) * 2.0 / normed
        for g in range(attention.groups):
            rows = attention.k_proj.weight[g * k:(g + 1) * k]
            rows.mul_(0.2)[:, 0] = key
        for h in range(attention.heads):
            back = self.inverse * (h + 1)
            turned = rotate(key, torch.cat((back.cos(),) * 2), -torch.cat((back.sin(),) * 2))
            rows = attention.q_proj.weight[h * k:(h + 1) * k]
            rows.mul_(0.2)[:, 0] = turned
        attention.q_norm.weight.fill_(2.0)
        attention.k_norm.weight.fill_(2.0)
        nn.init.normal_(attention.o_proj.weight, std=0.3 * attention.o_proj.weight.shape[1] ** -0.5)

    def forward(self, ids, positions=None, cache=None):
        """ids [B, T] -> final hidden states [B, T, D]; positions [B, T] default to 0..T-1 after the cache."""
        if positions is None:
            start = cache.length() if cache else 0
            positions = torch.arange(start, start + ids.shape[1])[None]
        angle = positions[:, None, :, None].float() * self.inverse
        angle = torch.cat((angle, angle), -1)
        cos, sin = angle.cos(), angle.sin()
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            x = layer(x, cos, sin, cache)
        return self.model.norm(x)

    def logits(self, hidden):
        return hidden @ self.model.embed_tokens.weight.T
