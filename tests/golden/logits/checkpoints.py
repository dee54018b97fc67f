"""Random-weight checkpoints of every architecture and rotary variant, written without the C library."""
import json
import os
import struct

import numpy as np

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

# name: (config, tensor dtype). Widths that are no multiple of 16 or 32 on purpose.
CASES = {
    "llama": ({"model_type": "llama", "hidden_size": 96, "intermediate_size": 172, "num_attention_heads": 6,
               "num_key_value_heads": 3, "rms_norm_eps": 1e-5}, "BF16"),
    "llama-rope3": ({"model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4,
                     "num_key_value_heads": 1, "rope_theta": 500000.0, "rope_scaling": LLAMA3,
                     "tie_word_embeddings": True}, "BF16"),
    "llama-linear-f16": ({"model_type": "llama", "hidden_size": 64, "intermediate_size": 200, "num_attention_heads": 4,
                          "num_key_value_heads": 4, "rope_scaling": {"type": "linear", "factor": 2.0}}, "F16"),
    "llama-bias-f32": ({"model_type": "llama", "hidden_size": 64, "intermediate_size": 100, "num_attention_heads": 4,
                        "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}, "F32"),
    "qwen2": ({"model_type": "qwen2", "hidden_size": 112, "intermediate_size": 304, "num_attention_heads": 7,
               "num_key_value_heads": 1, "rope_theta": 1000000.0, "tie_word_embeddings": True}, "BF16"),
    "qwen3": ({"model_type": "qwen3", "hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 8,
               "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 1000000.0}, "BF16"),
    "qwen3-yarn": ({"model_type": "qwen3", "hidden_size": 160, "intermediate_size": 320, "num_attention_heads": 4,
                    "num_key_value_heads": 2, "head_dim": 64, "tie_word_embeddings": True,
                    "rope_parameters": dict(YARN, rope_theta=1000000.0)}, "BF16"),
}
QWEN3_MOE = {"model_type": "qwen3_moe", "hidden_size": 96, "intermediate_size": 176, "num_attention_heads": 6,
             "num_key_value_heads": 2, "head_dim": 32, "rope_theta": 1000000.0, "num_experts": 9,
             "num_experts_per_tok": 3, "moe_intermediate_size": 56, "norm_topk_prob": True, "decoder_sparse_step": 1,
             "mlp_only_layers": []}
CASES["moe"] = (QWEN3_MOE, "BF16")
CASES["moe-plain-weights-f32"] = (dict(QWEN3_MOE, norm_topk_prob=False, num_experts=17, num_experts_per_tok=4), "F32")
CASES["moe-mlp-only"] = (dict(QWEN3_MOE, mlp_only_layers=[1], norm_topk_prob=False), "BF16")
CASES["moe-sparse-step-f16"] = (dict(QWEN3_MOE, decoder_sparse_step=2, moe_intermediate_size=208,
                                     tie_word_embeddings=True), "F16")
# Gated DeltaNet layers: head ratios, widths and rotary parts of every kind; the second is the default of full_attention_interval.
QWEN3_5 = {"model_type": "qwen3_5", "hidden_size": 96, "intermediate_size": 176, "num_attention_heads": 4,
           "num_key_value_heads": 2, "head_dim": 48, "rope_parameters": {"rope_theta": 10000000.0, "rope_type": "default"},
           "linear_num_key_heads": 2, "linear_num_value_heads": 6, "linear_key_head_dim": 32,
           "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
           "layer_types": ["linear_attention", "full_attention", "linear_attention"]}
CASES["qwen3_5"] = (QWEN3_5, "BF16")
CASES["qwen3_5-interval-yarn-f32"] = (
    dict(QWEN3_5, layer_types=None, full_attention_interval=2, linear_num_key_heads=3, linear_num_value_heads=3,
         linear_key_head_dim=16, linear_value_head_dim=64, linear_conv_kernel_dim=3, tie_word_embeddings=True,
         rope_parameters=dict(YARN, rope_theta=100000.0, partial_rotary_factor=0.5)), "F32")
QWEN3_5_MOE = dict(QWEN3_5, model_type="qwen3_5_moe", num_experts=9, num_experts_per_tok=3, moe_intermediate_size=56,
                   shared_expert_intermediate_size=72)
CASES["qwen3_5-moe"] = (QWEN3_5_MOE, "BF16")
ARCHITECTURES = {"qwen3_5": "Qwen3_5ForConditionalGeneration", "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
                 "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM",
                 "qwen3_moe": "Qwen3MoeForCausalLM"}


def encode(x, dtype):
    if dtype == "F32":
        return x.astype("<f4").tobytes()
    if dtype == "F16":
        return x.astype("<f2").tobytes()
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()


def write_safetensors(path, tensors, dtype):
    header, blobs, offset = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in tensors.items():
        blob = encode(value, dtype)
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def sparse_layer(config, layer):
    """Whether a layer has experts, as transformers' Qwen3MoeDecoderLayer decides it."""
    return (config.get("num_experts", 0) > 0 and layer not in (config.get("mlp_only_layers") or []) and
            (layer + 1) % config.get("decoder_sparse_step", 1) == 0)


def qwen3_5_tensors(config, layers, vocab, rng):
    """Under the names of a checkpoint with a vision model in it; experts of a layer in two tensors."""
    d, f, h, g, k = (config[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads",
                                             "num_key_value_heads", "head_dim"))
    kinds = config["layer_types"] or ["full_attention" if (l + 1) % config["full_attention_interval"] == 0
                                      else "linear_attention" for l in range(layers)]
    keys = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    heads, width = config["linear_num_value_heads"], config["linear_value_head_dim"]
    t = {"model.language_model.embed_tokens.weight": rng.normal(size=(vocab, d)),
         "model.visual.blocks.0.weight": rng.normal(size=(3, 5)), "mtp.fc.weight": rng.normal(size=(2, 7))}

    def matrix(name, *shape):
        t[name] = rng.normal(size=shape) * (1.2 / np.sqrt(shape[-1]))

    for l in range(layers):
        p = f"model.language_model.layers.{l}."
        if kinds[l] == "full_attention":
            matrix(p + "self_attn.q_proj.weight", 2 * h * k, d)
            matrix(p + "self_attn.k_proj.weight", g * k, d)
            matrix(p + "self_attn.v_proj.weight", g * k, d)
            matrix(p + "self_attn.o_proj.weight", d, h * k)
            for norm in ("q_norm", "k_norm"):
                t[p + f"self_attn.{norm}.weight"] = 0.3 * rng.normal(size=k)
        else:
            p += "linear_attn."
            matrix(p + "in_proj_qkv.weight", 2 * keys + heads * width, d)
            matrix(p + "in_proj_z.weight", heads * width, d)
            matrix(p + "in_proj_a.weight", heads, d)
            matrix(p + "in_proj_b.weight", heads, d)
            matrix(p + "conv1d.weight", 2 * keys + heads * width, 1, config["linear_conv_kernel_dim"])
            matrix(p + "out_proj.weight", d, heads * width)
            t[p + "A_log"] = rng.uniform(-1, 1.5, size=heads)
            t[p + "dt_bias"] = rng.uniform(-4, 0, size=heads)
            t[p + "norm.weight"] = 1 + 0.3 * rng.normal(size=width)
            p = f"model.language_model.layers.{l}."
        if config["model_type"] == "qwen3_5_moe":
            e, m, f = (config[key] for key in ("num_experts", "moe_intermediate_size",
                                               "shared_expert_intermediate_size"))
            t[p + "mlp.gate.weight"] = rng.normal(size=(e, d)) * (2.5 / np.sqrt(d))
            matrix(p + "mlp.experts.gate_up_proj", e, 2 * m, d)
            matrix(p + "mlp.experts.down_proj", e, d, m)
            matrix(p + "mlp.shared_expert_gate.weight", 1, d)
        mlp = p + ("mlp.shared_expert." if config["model_type"] == "qwen3_5_moe" else "mlp.")
        matrix(mlp + "gate_proj.weight", f, d)
        matrix(mlp + "up_proj.weight", f, d)
        matrix(mlp + "down_proj.weight", d, f)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            t[p + norm + ".weight"] = 0.3 * rng.normal(size=d)
    t["model.language_model.norm.weight"] = 0.3 * rng.normal(size=d)
    if not config["tie_word_embeddings"]:
        t["lm_head.weight"] = rng.normal(size=(vocab, d)) / np.sqrt(d)
    return t


def write_checkpoint(directory, config, t, dtype, shards):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w") as f:
        json.dump(config, f)
    if shards == 1:
        write_safetensors(os.path.join(directory, "model.safetensors"), t, dtype)
        return
    names, index = list(t), {}
    for s in range(shards):
        file = f"model-{s + 1:05}-of-{shards:05}.safetensors"
        part = {n: t[n] for n in names[s::shards]}
        write_safetensors(os.path.join(directory, file), part, dtype)
        index.update({n: file for n in part})
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": 0}, "weight_map": index}, f)


def make(directory, name, layers=3, vocab=331, shards=1):
    config, dtype = dict(CASES[name][0]), CASES[name][1]
    config = dict({"architectures": [ARCHITECTURES[config["model_type"]]], "num_hidden_layers": layers,
                   "vocab_size": vocab, "max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
                   "hidden_act": "silu", "tie_word_embeddings": False,
                   "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]}, **config)
    rng = np.random.default_rng(sum(map(ord, name)))
    if config["model_type"].startswith("qwen3_5"):
        t = qwen3_5_tensors(config, layers, vocab, rng)
        text = {k: v for k, v in config.items() if k != "architectures" and v is not None}
        outer = {"architectures": config["architectures"], "model_type": config["model_type"],
                 "text_config": dict(text, model_type=config["model_type"] + "_text"), "vision_config": {"depth": 1}}
        write_checkpoint(directory, outer, t, dtype, shards)
        return
    d, f, h, g = (config[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads",
                                      "num_key_value_heads"))
    k = config.get("head_dim", d // h)
    t = {"model.embed_tokens.weight": rng.normal(size=(vocab, d))}

    def linear(p, o, i, bias):
        t[p + ".weight"] = rng.normal(size=(o, i)) * (1.2 / np.sqrt(i))
        if bias:
            t[p + ".bias"] = rng.normal(size=o) * 0.2

    qwen2, attention, mlp = config["model_type"] == "qwen2", config.get("attention_bias"), config.get("mlp_bias")
    for l in range(layers):
        p = f"model.layers.{l}."
        for part, o in (("q", h * k), ("k", g * k), ("v", g * k)):
            linear(p + f"self_attn.{part}_proj", o, d, qwen2 or attention)
        linear(p + "self_attn.o_proj", d, h * k, attention)
        if sparse_layer(config, l):
            t[p + "mlp.gate.weight"] = rng.normal(size=(config["num_experts"], d)) * (2.5 / np.sqrt(d))
            parts = [(p + f"mlp.experts.{e}.", config["moe_intermediate_size"]) for e in range(config["num_experts"])]
        else:
            parts = [(p + "mlp.", f)]
        for part, width in parts:
            linear(part + "gate_proj", width, d, mlp)
            linear(part + "up_proj", width, d, mlp)
            linear(part + "down_proj", d, width, mlp)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            t[p + norm + ".weight"] = 1 + 0.3 * rng.normal(size=d)
        if config["model_type"].startswith("qwen3"):
            for norm in ("q_norm", "k_norm"):
                t[p + f"self_attn.{norm}.weight"] = 1 + 0.3 * rng.normal(size=k)
    t["model.norm.weight"] = 1 + 0.3 * rng.normal(size=d)
    if not config["tie_word_embeddings"]:
        t["lm_head.weight"] = rng.normal(size=(vocab, d)) / np.sqrt(d)

    write_checkpoint(directory, config, t, dtype, shards)
