"""Random checkpoints of Gemma 3, Gemma 4 and Mistral, and a float64 forward pass of each, written from the published formulas.

Shares no code with the C library, and with reference.py only files and number formats.
"""
import json
import os

import numpy as np

import checkpoints
import reference

VOCAB, LAYERS = 317, 7
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA4 = {"model_type": "gemma4_text", "hidden_size": 96, "intermediate_size": 176, "num_attention_heads": 6,
          "num_key_value_heads": 3, "head_dim": 24, "global_head_dim": 40, "num_global_key_value_heads": 2,
          "attention_k_eq_v": True, "sliding_window": 48, "rms_norm_eps": 1e-6, "final_logit_softcapping": 30.0,
          "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "hidden_size_per_layer_input": 0,
          "num_kv_shared_layers": 0, "use_bidirectional_attention": "vision", "attention_bias": False,
          "layer_types": [SLIDING] * 2 + [FULL] + [SLIDING] * 3 + [FULL],
          "rope_parameters": {SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
                              FULL: {"rope_type": "proportional", "rope_theta": 1000000.0,
                                     "partial_rotary_factor": 0.25}}}
MOE = dict(GEMMA4, enable_moe_block=True, num_experts=10, top_k_experts=3, moe_intermediate_size=48)
GEMMA3 = {"model_type": "gemma3_text", "hidden_size": 96, "intermediate_size": 176, "num_attention_heads": 4,
          "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 40, "rms_norm_eps": 1e-6,
          "query_pre_attn_scalar": 20, "sliding_window_pattern": 3, "rope_theta": 1000000.0,
          "rope_local_base_freq": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0},
          "hidden_activation": "gelu_pytorch_tanh", "final_logit_softcapping": None, "attn_logit_softcapping": None}
MISTRAL = {"model_type": "mistral", "hidden_size": 96, "intermediate_size": 176, "num_attention_heads": 4,
           "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
           "tie_word_embeddings": False, "hidden_act": "silu"}
# name: (config, dtype, nested in a checkpoint with images, experts stored together)
CASES = {"gemma4": (GEMMA4, "BF16", False, False),
         "gemma4-moe": (MOE, "BF16", True, True),
         "gemma4-moe-alone-f32": (dict(MOE, num_experts=7, top_k_experts=7), "F32", False, False),
         "gemma4-own-v": (dict(GEMMA4, attention_k_eq_v=False, tie_word_embeddings=False), "BF16", True, False),
         "gemma3": (GEMMA3, "BF16", False, False),
         "mistral": (dict(MISTRAL, sliding_window=64), "BF16", False, False),
         "mistral-full": (dict(MISTRAL, sliding_window=None), "BF16", False, False)}
CLASSES = {"gemma4_text": "Gemma4ForCausalLM", "gemma3_text": "Gemma3ForCausalLM", "mistral": "MistralForCausalLM"}


def kinds(c):
    """Whether each layer is global; None where the model has one kind of layers."""
    if "layer_types" in c:
        return [t == FULL for t in c["layer_types"]]
    if "sliding_window_pattern" in c:
        return [(l + 1) % c["sliding_window_pattern"] == 0 for l in range(LAYERS)]
    return [None] * LAYERS


def geometry(c, is_global):
    """kv heads, head width, own v_proj."""
    if c["model_type"] != "gemma4_text" or not is_global:
        return c["num_key_value_heads"], c["head_dim"], True
    shares = c["attention_k_eq_v"]
    return c["num_global_key_value_heads"] if shares else c["num_key_value_heads"], c["global_head_dim"], not shares


def tensors(c, rng):
    d, f, heads, t = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], {}
    gemma, centre = c["model_type"] != "mistral", 0 if c["model_type"] == "gemma3_text" else 1

    def matrix(name, rows, columns):
        t[name + ".weight"] = rng.normal(size=(rows, columns)) * (1.2 / np.sqrt(columns))

    def norm(name, width, mean=1.0):
        t[name + ".weight"] = mean + centre - 1 + 0.3 * rng.normal(size=width)

    t["model.embed_tokens.weight"] = rng.normal(size=(VOCAB, d)) * (1 / np.sqrt(d) if gemma else 1)
    for l, is_global in enumerate(kinds(c)):
        p = f"model.layers.{l}."
        groups, width, own_v = geometry(c, is_global)
        matrix(p + "self_attn.q_proj", heads * width, d)
        for part in "kv" if own_v else "k":
            matrix(p + f"self_attn.{part}_proj", groups * width, d)
        matrix(p + "self_attn.o_proj", d, heads * width)
        for part, rows, columns in (("gate", f, d), ("up", f, d), ("down", d, f)):
            matrix(p + f"mlp.{part}_proj", rows, columns)
        norm(p + "input_layernorm", d)
        norm(p + "post_attention_layernorm", d)
        if not gemma:
            continue
        norm(p + "self_attn.q_norm", width, 0.9)
        norm(p + "self_attn.k_norm", width, 0.2)
        norm(p + "pre_feedforward_layernorm", d)
        norm(p + "post_feedforward_layernorm", d)
        if c["model_type"] == "gemma4_text":
            t[p + "layer_scalar"] = np.array([0.6 + 0.1 * l])
        if c.get("enable_moe_block"):
            for name in ("pre_feedforward_layernorm_2", "post_feedforward_layernorm_1", "post_feedforward_layernorm_2"):
                norm(p + name, d)
            experts, m = c["num_experts"], c["moe_intermediate_size"]
            t[p + "router.proj.weight"] = rng.normal(size=(experts, d)) * 6
            t[p + "router.scale"] = 1 + 0.3 * rng.normal(size=d)
            t[p + "router.per_expert_scale"] = 0.5 + rng.random(size=experts)
            for e in range(experts):
                for part, rows, columns in (("gate", m, d), ("up", m, d), ("down", d, m)):
                    matrix(p + f"experts.{e}.{part}_proj", rows, columns)
    norm("model.norm", d)
    if not c.get("tie_word_embeddings", True):
        t["lm_head.weight"] = rng.normal(size=(VOCAB, d)) / np.sqrt(d)
    return t


def fuse_experts(t, c):
    for l in range(LAYERS):
        p = f"model.layers.{l}.experts."
        parts = [[t.pop(p + f"{e}.{part}_proj.weight") for e in range(c["num_experts"])] for part in ("gate", "up", "down")]
        t[p + "gate_up_proj"] = np.stack([np.concatenate(pair) for pair in zip(parts[0], parts[1])])
        t[p + "down_proj"] = np.stack(parts[2])


def make(directory, name):
    c, dtype, nested, fused = CASES[name]
    c = dict(c, num_hidden_layers=LAYERS, vocab_size=VOCAB, max_position_embeddings=4096)
    rng = np.random.default_rng(sum(map(ord, name)))
    t = tensors(c, rng)
    if fused:
        fuse_experts(t, c)
    config = dict(c, architectures=[CLASSES[c["model_type"]]])
    if nested:
        t = {n.replace("model.", "model.language_model.", 1): v for n, v in t.items()}
        t["model.vision_tower.encoder.layers.0.weight"] = rng.normal(size=(8, 8))
        config = {"model_type": "gemma4", "architectures": ["Gemma4ForConditionalGeneration"], "text_config": c,
                  "vision_config": {"hidden_size": 8}, "tie_word_embeddings": c["tie_word_embeddings"]}
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file)
    checkpoints.write_safetensors(os.path.join(directory, "model.safetensors"), t, dtype)


def bf16(x):
    return float(reference.to_bf16(np.array([x]))[0])


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


class Model:
    def __init__(self, directory, spoil=""):
        with open(os.path.join(directory, "config.json")) as file:
            config = json.load(file)
        t = reference.read_safetensors(os.path.join(directory, "model.safetensors"))
        self.c, self.spoil = config.get("text_config", config), spoil
        self.t = {n.replace("model.language_model.", "model."): v for n, v in t.items()}
        self.gemma, self.gemma4 = self.c["model_type"] != "mistral", self.c["model_type"] == "gemma4_text"

    def norm(self, x, name=None):
        weight = 1.0
        if name:
            weight = self.t[name] + (1.0 if self.c["model_type"] == "gemma3_text" else 0.0)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.c["rms_norm_eps"]) * weight

    def linear(self, x, name):
        return x @ self.t[name + ".weight"].T

    def frequencies(self, is_global, width):
        c, i = self.c, np.arange(0, width, 2) / width
        if self.gemma4:
            rope = c["rope_parameters"][FULL if is_global else SLIDING]
            inv = rope["rope_theta"] ** -i
            if rope["rope_type"] == "proportional":
                inv[int(rope["partial_rotary_factor"] * width / 2):] = 0
            return inv
        if self.gemma:
            return c["rope_theta"] ** -i / 8 if is_global else c["rope_local_base_freq"] ** -i
        return c["rope_theta"] ** -i

    def attention(self, x, p, is_global):
        c, n = self.c, len(x)
        heads, (groups, width, own_v) = c["num_attention_heads"], geometry(c, is_global)
        q = self.linear(x, p + "q_proj").reshape(n, heads, width)
        k = self.linear(x, p + "k_proj").reshape(n, groups, width)
        v = self.linear(x, p + "v_proj").reshape(n, groups, width) if own_v else k
        if self.gemma4 and self.spoil != "v":
            v = self.norm(v)
        if self.gemma:
            q, k = self.norm(q, p + "q_norm.weight"), self.norm(k, p + "k_norm.weight")
        angle = np.arange(n)[:, None, None] * self.frequencies(is_global, width)
        cos, sin = np.cos(angle), np.sin(angle)

        def rotate(y):
            a, b = y[..., :width // 2], y[..., width // 2:]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        q, k, v = rotate(q), reference.to_bf16(rotate(k)), reference.to_bf16(v)
        scale = 1.0 if self.gemma4 else c.get("query_pre_attn_scalar", width) ** -0.5
        distance = np.arange(n)[:, None] - np.arange(n)[None, :]
        window = n if is_global or not c.get("sliding_window") else c["sliding_window"]
        hidden = (distance < 0) | (distance >= window + (self.spoil == "window"))
        out = np.empty((n, heads, width))
        for i in range(heads):
            g = i // (heads // groups)
            s = np.where(hidden, -np.inf, q[:, i] @ k[:, g].T * scale)
            s = np.exp(s - s.max(-1, keepdims=True))
            out[:, i] = s / s.sum(-1, keepdims=True) @ v[:, g]
        return self.linear(out.reshape(n, -1), p + "o_proj")

    def mlp(self, x, p):
        gate = self.linear(x, p + "gate_proj")
        f = gelu(gate) if self.gemma else gate / (1 + np.exp(-gate))
        return self.linear(f * self.linear(x, p + "up_proj"), p + "down_proj")

    def expert(self, x, p, e):
        if p + "experts.gate_up_proj" not in self.t:
            return self.mlp(x, p + f"experts.{e}.")
        both = self.t[p + "experts.gate_up_proj"][e] @ x.T
        half = len(both) // 2
        return (self.t[p + "experts.down_proj"][e] @ (gelu(both[:half]) * both[half:])).T

    def experts(self, h, p):
        c, y = self.c, np.zeros_like(h)
        s = self.linear(self.norm(h) * self.t[p + "router.scale"] / np.sqrt(c["hidden_size"]), p + "router.proj")
        s = np.exp(s - s.max(-1, keepdims=True))
        x, k = self.norm(h, p + "pre_feedforward_layernorm_2.weight"), c["top_k_experts"]
        for row, chosen in enumerate(np.argsort(-s, axis=-1, kind="stable")[:, :k]):
            weights = s[row, chosen] / s[row, chosen].sum()
            if self.spoil != "scale":
                weights = weights * self.t[p + "router.per_expert_scale"][chosen]
            for e, weight in zip(chosen, weights):
                y[row] += weight * self.expert(x[row:row + 1], p, e)[0]
        return y

    def layer(self, h, l, is_global):
        p = f"model.layers.{l}."
        a = self.attention(self.norm(h, p + "input_layernorm.weight"), p + "self_attn.", is_global)
        if not self.gemma:
            h = h + a
            return h + self.mlp(self.norm(h, p + "post_attention_layernorm.weight"), p + "mlp.")
        h = h + self.norm(a, p + "post_attention_layernorm.weight")
        m = self.mlp(self.norm(h, p + "pre_feedforward_layernorm.weight"), p + "mlp.")
        if self.c.get("enable_moe_block"):
            m = (self.norm(m, p + "post_feedforward_layernorm_1.weight") +
                 self.norm(self.experts(h, p), p + "post_feedforward_layernorm_2.weight"))
        h = h + self.norm(m, p + "post_feedforward_layernorm.weight")
        return h * self.t[p + "layer_scalar"] if self.gemma4 else h

    def logits(self, tokens):
        h = self.t["model.embed_tokens.weight"][tokens]
        if self.gemma:
            h = h * bf16(np.sqrt(self.c["hidden_size"]))
        for l, is_global in enumerate(kinds(self.c)):
            h = self.layer(h, l, is_global)
        head = self.t.get("lm_head.weight", self.t["model.embed_tokens.weight"])
        logits = self.norm(h, "model.norm.weight") @ head.T
        cap = self.c.get("final_logit_softcapping")
        return cap * np.tanh(logits / cap) if cap else logits
