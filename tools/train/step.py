"""One forward and backward pass of the Qwen3 decoder, written out: products by oneDNN in BF16, the rest by ops.c.

Torch's own backward spends more time on copies and on small element-wise passes than on products. test_step.py checks
this one against it.
"""
import ctypes
import os
import subprocess
import tempfile

import torch

CHUNK = 128  # queries per attention block: the causal half that no query sees is mostly not computed


def library():
    """ops.c, compiled for this machine; the file name tells one build from the next."""
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ops.c")
    path = os.path.join(tempfile.gettempdir(), f"mixquant-train-{os.getuid()}-{int(os.stat(source).st_mtime)}.so")
    if not os.path.exists(path):
        part = f"{path}.{os.getpid()}"
        subprocess.run(["gcc", "-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-shared", "-fPIC",
                        source, "-o", part, "-lm"], check=True)
        os.replace(part, path)
    return ctypes.CDLL(path)


OPS = library()


def call(name, *arguments):
    """Calls one function of ops.c: integers go as long, tensors as their (contiguous) data."""
    given = []
    for a in arguments:
        if isinstance(a, torch.Tensor):
            assert a.is_contiguous(), name
            given.append(ctypes.c_void_p(a.data_ptr()))
        else:
            given.append(ctypes.c_long(a) if a is not None else None)
    getattr(OPS, name)(*given)


def half(*shape):
    return torch.empty(shape, dtype=torch.bfloat16)


class Layer:
    """A decoder layer's weights in BF16, what its forward keeps, and its gradients."""

    def __init__(self, config, params, index):
        self.h, self.g = config["num_attention_heads"], config["num_key_value_heads"]
        self.k = config["head_dim"]
        p = {n.split(".", 3)[3]: v for n, v in params.items() if n.startswith(f"model.layers.{index}.")}
        self.params = p
        self.prefix = f"model.layers.{index}."
        self.qkv = torch.cat([p[f"self_attn.{n}_proj.weight"] for n in "qkv"]).bfloat16()
        self.o = p["self_attn.o_proj.weight"].bfloat16()
        self.gu = torch.cat([p["mlp.gate_proj.weight"], p["mlp.up_proj.weight"]]).bfloat16()
        self.down = p["mlp.down_proj.weight"].bfloat16()

    def forward(self, x, add, turns, batch):
        """x [N, D] FP32 and what is still to be added to it (BF16 or None); the same pair comes back."""
        p, (n, d), h, g, k = self.params, x.shape, self.h, self.g, self.k
        t = n // batch
        self.x = x if add is None else torch.empty_like(x)
        self.h1, self.r1 = half(n, d), torch.empty(n)
        call("add_norm", n, d, x, add, p["input_layernorm.weight"], self.x, self.h1, self.r1)
        self.z = self.h1 @ self.qkv.T
        self.q, self.key, self.v = half(batch * g, h // g, t, k), half(batch * g, t, k), half(batch * g, t, k)
        self.rz = torch.empty(n, h + g)
        call("heads", batch, t, h, g, k, self.z, *turns, p["self_attn.q_norm.weight"], p["self_attn.k_norm.weight"], self.q,
             self.key, self.v, self.rz)
        out, self.p = half(batch * g, h // g, t, k), []
        turned = self.key.transpose(1, 2)
        for at in range(0, t, CHUNK):
            end = min(at + CHUNK, t)
            s = torch.bmm(self.q[:, :, at:end].reshape(batch * g, -1, k), turned[:, :, :end])
            call("softmax", s.numel() // end, end - at, at, end, s)
            self.p.append(s)
            out[:, :, at:end] = torch.bmm(s, self.v[:, :end]).view(batch * g, h // g, end - at, k)
        self.out = half(n, h * k)
        call("join", batch, t, h, k, out, self.out)
        self.x1, self.h2, self.r2 = torch.empty_like(x), half(n, d), torch.empty(n)
        call("add_norm", n, d, self.x, self.out @ self.o.T, p["post_attention_layernorm.weight"], self.x1, self.h2, self.r2)
        self.u = self.h2 @ self.gu.T
        self.a = half(n, self.u.shape[1] // 2)
        call("gate", n, self.a.shape[1], self.u, self.a)
        return self.x1, self.a @ self.down.T

    def backward(self, dx, dx16, turns, batch, grads):
        """dx [N, D], its BF16 copy; both become the gradient of what came in. grads[name] are written."""
        p, (n, d), h, g, k, at = self.params, dx.shape, self.h, self.g, self.k, self.prefix
        t, f = n // batch, self.a.shape[1]
        grads[at + "mlp.down_proj.weight"].copy_(dx16.T @ self.a)
        du = torch.empty_like(self.u)
        call("gate_back", n, f, self.u, dx16 @ self.down, du)
        dgu = du.T @ self.h2
        grads[at + "mlp.gate_proj.weight"].copy_(dgu[:f])
        grads[at + "mlp.up_proj.weight"].copy_(dgu[f:])
        dw = grads[at + "post_attention_layernorm.weight"].zero_()
        call("norm_back", n, d, du @ self.gu, self.x1, self.r2, p["post_attention_layernorm.weight"], dx, dx16, dw)
        grads[at + "self_attn.o_proj.weight"].copy_(dx16.T @ self.out)
        go, dots = torch.empty_like(self.q), torch.empty(batch * h, t)
        call("split", batch, t, h, k, dx16 @ self.o, self.out, go, dots)
        dq, dk, dv = torch.empty_like(self.q), torch.zeros(batch * g, t, k), torch.zeros(batch * g, t, k)
        turned = self.v.transpose(1, 2)
        for first, s in zip(range(0, t, CHUNK), self.p):
            end = min(first + CHUNK, t)
            part = go[:, :, first:end].reshape(batch * g, -1, k)
            dv[:, :end] += torch.bmm(s.transpose(1, 2), part)
            gs = torch.bmm(part, turned[:, :, :end])
            call("softmax_back", s.numel() // end, end - first, first, t, end, dots, s, gs)
            dq[:, :, first:end] = torch.bmm(gs, self.key[:, :end]).view(batch * g, h // g, end - first, k)
            dk[:, :end] += torch.bmm(gs.transpose(1, 2), self.q[:, :, first:end].reshape(batch * g, -1, k))
        dz = torch.empty_like(self.z)
        dwq, dwk = (grads[at + f"self_attn.{n}_norm.weight"].zero_() for n in "qk")
        call("heads_back", batch, t, h, g, k, self.z, *turns, p["self_attn.q_norm.weight"], p["self_attn.k_norm.weight"], dq,
             dk, dv, self.rz, dz, dwq, dwk)
        dqkv = dz.T @ self.h1
        for name, part in zip("qkv", dqkv.split((h * k, g * k, g * k))):
            grads[at + f"self_attn.{name}_proj.weight"].copy_(part)
        dw = grads[at + "input_layernorm.weight"].zero_()
        call("norm_back", n, d, dz @ self.qkv, self.x, self.r1, p["input_layernorm.weight"], dx, dx16, dw)


@torch.no_grad()
def step(config, params, inverse, ids, weights, positions, scale, grads):
    """ids, weights [B, T + 1], positions [B, T]. Writes into grads the gradient of sum(weight x cross entropy) x scale;
    returns the cross entropy of each weighted token and the weights."""
    batch, t = positions.shape
    angle = (positions[..., None].float() * inverse).view(batch * t, -1)
    turns = angle.cos(), angle.sin()
    embed = params["model.embed_tokens.weight"]
    tokens, wanted, weight = ids[:, :-1].reshape(-1), ids[:, 1:].reshape(-1), weights[:, 1:].reshape(-1)
    x, add = embed[tokens], None
    layers = [Layer(config, params, i) for i in range(config["num_hidden_layers"])]
    for layer in layers:
        x, add = layer.forward(x, add, turns, batch)
    n, d = x.shape
    last, y, r = torch.empty_like(x), half(n, d), torch.empty(n)
    call("add_norm", n, d, x, add, params["model.norm.weight"], last, y, r)
    said = weight.nonzero()[:, 0]
    weight, chosen, table = weight[said], y[said], embed.bfloat16()
    logits, loss = chosen @ table.T, torch.empty(len(said))
    call("entropy", len(said), len(table), wanted[said], weight * scale, logits, loss)
    dy = torch.zeros_like(y)
    dy[said] = logits @ table
    dx, dx16 = torch.zeros_like(x), half(n, d)
    call("norm_back", n, d, dy, last, r, params["model.norm.weight"], dx, dx16, grads["model.norm.weight"].zero_())
    for layer in reversed(layers):
        layer.backward(dx, dx16, turns, batch, grads)
    grads["model.embed_tokens.weight"].copy_(logits.T @ chosen).index_add_(0, tokens, dx)
    return loss, weight
