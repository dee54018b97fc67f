"""Checks step.py's gradients against torch's own: `python3 tools/train/test_step.py`; exit 0 when they agree."""
import torch
import torch.nn.functional as F

import model as qwen3
import step


def main():
    torch.manual_seed(1)
    config = dict(qwen3.CONFIG, num_hidden_layers=3)
    net, (batch, t) = qwen3.Model(config), (2, 300)
    for n, p in net.named_parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 else 0.0, 0.1 if p.dim() == 1 else 0.05)
    ids = torch.randint(config["vocab_size"], (batch, t + 1))
    weights = torch.rand(batch, t + 1) * (torch.rand(batch, t + 1) < 0.5)
    positions = torch.arange(t)[None].repeat(batch, 1)
    positions[1, 100:] += 1000
    loss = F.cross_entropy(net.logits(net(ids[:, :-1], positions)).flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    wanted = (loss * weights[:, 1:].flatten()).sum()
    wanted.backward()
    params = {n: p.detach() for n, p in net.named_parameters()}
    grads = {n: torch.full_like(p, 9.0) for n, p in params.items()}
    each, weight = step.step(config, params, net.inverse, ids, weights, positions, 1.0, grads)
    worst = abs(float((each * weight).sum() / wanted) - 1)
    print(f"loss {float(wanted):.3f}, off by {worst:.1e}")
    for n, p in net.named_parameters():
        off = float((grads[n] - p.grad).norm() / p.grad.norm())
        worst = max(worst, off)
        if off > 0.02:
            print(f"{n} off by {off:.1e}")
    print(f"worst {worst:.1e}")
    raise SystemExit(0 if worst < 0.05 else 1)


if __name__ == "__main__":
    main()
