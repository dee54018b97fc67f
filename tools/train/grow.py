"""Starts a model from the weights of an earlier one: of the same shape, of half the depth, or narrower."""
import os

import torch

import export
import tokenizer as bpe


def load(folder):
    return export.read_safetensors(os.path.join(folder, "model.safetensors"))


@torch.no_grad()
def same(folder, params):
    for name, value in load(folder).items():
        params[name].copy_(value)


@torch.no_grad()
def retoken(folder, params, target):
    """Another tokenizer (target): a token with an old one's text is that one, others are near the mean of their pieces."""
    old, new, values = bpe.Tokenizer(folder), bpe.Tokenizer(target), load(folder)
    table = values.pop("model.embed_tokens.weight")
    for name, value in values.items():
        params[name].copy_(value)
    embed = params["model.embed_tokens.weight"]
    spread = table.std(0)
    spread[table.mean(0).abs() > 2 * spread] = 0  # the constants that look_back's heads read stay
    for text, i in (new.vocab | new.special).items():
        known = old.vocab.get(text, old.special.get(text))
        if known is None:
            pieces = table[old.encode(new.decode([i]))].mean(0)
            embed[i] = pieces + 0.8 * spread * torch.randn(len(spread))
        else:
            embed[i] = table[known]
    embed[len(new.vocab) + len(new.special):] = table.mean(0)


@torch.no_grad()
def deepen(folder, params):
    """The old layers become every other one, those between add nothing yet."""
    for name, value in load(folder).items():
        parts = name.split(".")
        if parts[1] == "layers":
            parts[2] = str(2 * int(parts[2]))
        params[".".join(parts)].copy_(value.float())
    for n, p in params.items():
        if n.split(".")[1] == "layers" and int(n.split(".")[2]) % 2 == 1 and ("o_proj" in n or "down_proj" in n):
            p.zero_()


@torch.no_grad()
def widen(folder, params):
    """More dimensions and heads: old heads do not read the new dimensions and new heads write nothing, except that the
    first layer's look back (Model.look_back, whose constant moves to the first new dimension) and write to new dimensions."""
    old = load(folder)
    narrow, wide = (t["model.norm.weight"].numel() for t in (old, params))
    for name, value in old.items():
        p = params[name]
        if p.dim() == 1:
            if p.numel() == wide:  # the same sum of squares over more dimensions
                p.fill_((narrow / wide) ** 0.5)
                p[:narrow] = value * (narrow / wide) ** 0.5
            else:
                p.copy_(value)
            continue
        rows, columns = value.shape
        first = ".layers.0." in name
        if "embed" in name:
            constant = p[:, 0].clone()
            p.mul_(0.5 * value.pow(2).mean().sqrt() / p.pow(2).mean().sqrt())
            p[:, narrow] = constant
        elif "o_proj" in name:
            new = p[narrow:, columns:].clone()
            p.zero_()
            if first:
                p[narrow:, columns:] = new
        elif "down_proj" in name:
            p.zero_()
        else:
            if first and ("q_proj" in name or "k_proj" in name):
                p[:, narrow] = p[:, 0]
                p[rows:, 0] = 0
            p[:rows, columns:] = 0
            if "gate" in name or "up_proj" in name:
                p[:, columns:] = 0
        p[:rows, :columns] = value
    params["model.norm.weight"][narrow:] *= 0.1
