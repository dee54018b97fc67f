"""Training on one device by torch's autograd: `train.py --device cuda`. Same data, optimiser, schedule and checkpoints as on the
CPU; a batch is `--parts` of a CPU worker's, made ahead by processes of their own.
"""
import os
import time

import torch
import torch.multiprocessing as processes
import torch.nn.functional as F

import model as qwen3
import tokenizer as bpe
import train

MAKERS = 8  # processes that make batches
_data = None


def start_maker(args):
    global _data
    torch.set_num_threads(1)
    _data = train.Data(bpe.Tokenizer(args.model), args)


def make_batch(what):
    """One step's batch: the parts' rows together."""
    count, parts = what
    return tuple(torch.cat(tensors) for tensors in zip(*(_data.batch(count, part) for part in range(parts))))


def gradients(net, ids, weights, places, half):
    """Adds the gradient of a batch's mean weighted cross entropy; returns it and that of the assistant's tokens."""
    wanted, weight = ids[:, 1:].flatten(), weights[:, 1:].flatten()
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=half):
        hidden = net(ids[:, :-1], places)
        chosen = weight > 0  # most of a text's tokens are nobody's: their logits are not computed
        logits = net.logits(hidden.flatten(0, 1)[chosen])
    each = F.cross_entropy(logits.float(), wanted[chosen], reduction="none")
    loss = (each * weight[chosen]).sum() / weight.sum()
    loss.backward()
    said = weight[chosen] >= 1.0
    return float(loss.detach()), float(each.detach()[said].mean())


def train_step(net, optimizer, average, batch, args, count, half):
    net.zero_grad(set_to_none=True)
    loss = gradients(net, *batch, half)
    grads = {n: p.grad for n, p in net.named_parameters()}
    optimizer.step(grads, train.rate_at(count, args), count + 1)
    with torch.no_grad():
        for n, p in net.named_parameters():
            average[n].lerp_(p, 1 - min(0.99, (count + 1) / (count + 11.0)))
    return loss


def train_all(args, shared, batches, device):
    net = qwen3.Model().to(device)
    net.load_state_dict(shared["model"], strict=False)
    params = dict(net.named_parameters())
    average = {n: v.to(device).clone() for n, v in shared["average"].items()}
    optimizer = train.Optimizer({n: p.data for n, p in params.items()}, 0, 1)
    optimizer.state = {n: v.to(device).clone() for n, v in shared["m"].items()}
    optimizer.square = {n: shared["v"][n].to(device).clone() for n in optimizer.others if n in shared["v"]}
    first, began, saved, seen = shared["step"], time.time(), time.time(), 0
    for count, batch in enumerate(batches, first):
        batch = [t.to(device, non_blocking=True) for t in batch]
        loss, said = train_step(net, optimizer, average, batch, args, count, device.type == "cuda")
        seen += batch[2].numel()
        done = count + 1
        if done % 25 == 0 or done == args.stop:
            print(f"step {done} loss {loss:.4f} said {said:.4f} rate {train.rate_at(done, args):.3f} "
                  f"{seen / (time.time() - began):.0f} tok/s {time.time() - began:.0f} s", flush=True)
        if time.time() - saved > 60 or done in (args.steps, args.stop):
            state = dict(model=params, m=optimizer.state, v=optimizer.square, average=average)
            train.save(os.path.join(args.work, "last.pt"),
                       dict({k: {n: t.detach().cpu() for n, t in v.items()} for k, v in state.items()}, step=done))
            saved = time.time()
        if done == args.stop:
            break


def run(args, shared):
    device = torch.device(args.device)
    print(f"{sum(p.numel() for p in shared['model'].values())} parameters, step {shared['step']}", flush=True)
    with processes.get_context("spawn").Pool(MAKERS if device.type == "cuda" else 1, start_maker, (args,)) as pool:
        work = ((count, args.parts) for count in range(shared["step"], args.stop or args.steps))
        train_all(args, shared, pool.imap(make_batch, work), device)
