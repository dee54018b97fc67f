"""Trains the bundled model: `python3 tools/train/train.py`, resumable at any moment, seeded throughout.

Every batch depends only on (seed, step), so a resumed run sees what an uninterrupted one would have seen.
"""
import argparse
import ctypes
import os
import random
import time

import torch
import torch.multiprocessing as processes

import grow
import ledger
import model as qwen3
import needles
import template
import tokenizer as bpe
import world

# (first step, lengths that take turns, tokens a step): the length curriculum
SCRATCH = [(0, (128,), 4096), (200, (256,), 4096), (500, (512,), 4096), (1500, (512, 512, 1024), 4096),
           (4000, (512, 1024, 512, 1024, 2048), 4096)]
GROWN = [(0, (512, 512, 512, 1024), 4096), (1500, (512, 512, 1024, 512, 1024, 2048), 4096)]  # copying is there already
# With --ledger, in shares of all steps: answers of hundreds of tokens about tables of thousands; twice the tokens, or rows of
# 4,096 would not fit. What is new, adding up, is learned in short rows, which cost least.
LEDGER = [(0, (512, 512, 1024), 8192), (1 / 2, (512, 1024, 2048), 8192), (3 / 4, (1024, 2048, 4096), 8192)]
GROW = ("same", "deepen", "widen", "retoken")
WORKERS = 2  # single-threaded processes, each with half of a batch: torch's own threads wait for one another
# Loss weight of the text that is not the assistant's: it teaches the frame early on, later its names and numbers,
# which nobody can predict, would only be noise.
QUIET = [(0, 0.1), (1000, 0.0)]
# Loss weights of the assistant's tokens that choose what the next ones copy: the first of a text and of its second line
# (to call or to answer; the row or that there is none), the first of a call's argument and of the stated value.
CHOICE, VALUE = 5.0, 6.0


class Data:
    def __init__(self, tok, args):
        self.tok, self.seed = tok, args.seed
        grown = any(getattr(args, name) for name in GROW)
        self.ledger = args.ledger
        self.stages = GROWN if grown else SCRATCH
        if args.ledger and grown:
            self.stages = [(round(share * args.steps), *rest) for share, *rest in LEDGER]
        self.quiets = QUIET[-1:] if grown else QUIET
        self.start = tok.encode("<|im_start|>assistant\n")
        self.end = tok.special["<|im_end|>"]
        self.stop = tok.special["<|endoftext|>"]
        self.marks, (self.line,) = [tok.encode('": "'), tok.encode(" is "), tok.encode(" Total ")], tok.encode(":\n")

    quiet = QUIET[0][1]

    def dialogue(self, messages, tools=None):
        """Token ids, and one weight a token: at least 1 where the assistant speaks, up to its end mark."""
        ids = self.tok.encode(template.render(messages, tools)) + [self.stop]
        weights, i = [self.quiet] * len(ids), 0
        while i < len(ids):
            if ids[i:i + len(self.start)] == self.start:
                i += len(self.start)
                first = i
                while ids[i - 1] != self.end or i == first:
                    weights[i] = 1.0
                    if any(ids[i - len(mark):i] == mark for mark in self.marks):
                        weights[i] = VALUE
                    i += 1
                weights[first] = CHOICE
                if self.line in ids[first:i]:
                    weights[ids.index(self.line, first) + 1] = CHOICE
                continue
            i += 1
        weights[-1] = 0.0
        return ids, weights

    def repeat(self, rng, room):
        """Random tokens, then the same again: the plainest copying there is."""
        n = min(room // 2, rng.randint(4, 40))
        times = max(2, min(room // n, rng.randint(2, 4)))
        ids = [rng.randrange(self.stop) for _ in range(n)]
        return ids * times, [0.0] * (n + 1) + [0.5] * (n * (times - 1) - 1)

    def sums(self, rng, room):
        """The totals count: nothing foretells the numbers, nor the line's first total, before which there is no space."""
        ids, mark = self.tok.encode(ledger.sums(rng, room)) + [self.stop], self.marks[-1]
        return ids, [VALUE * (ids[max(0, i - len(mark)):i] == mark) for i in range(len(ids))]

    def document(self, rng, room):
        w = world.World(rng)
        if self.ledger and room > 250 and rng.random() < self.ledger:
            if rng.random() < 0.4:
                return self.sums(rng, rng.randint(100, min(room, 1000)))
            return self.dialogue(ledger.ledger(w, room))
        kind = rng.random() if room > 150 else 1.0
        if kind < 0.2:
            e = world.Episode(w, rng.choice((room, rng.randint(200, max(201, room)))), 1 + 3 * (room > 250))
            return self.dialogue(e.messages(), e.tools)
        if kind < 0.65:
            e = world.dense(w, rng.randint(min(room, 400), room))
            return self.dialogue(e.messages(), e.tools)
        if kind < 0.8:
            most = max(3, room // 15)
            skill = rng.choices(needles.SKILLS, (2, 2, 4, 2, 5, 4))[0]
            return self.dialogue(needles.needle(w, rng.randint(max(2, most // 8), most), skill, 4))
        if kind < 0.97:
            first, second = world.recall(w, rng.randint(2, max(3, min(60, room // 60))))
            ids = self.tok.encode(first)
            weights = [self.quiet] * len(ids)
            for line in second.splitlines(keepends=True):  # the key cannot be foreseen, what follows it can
                row = self.tok.encode(line)
                key = len(self.tok.encode(line[:line.index('","' if line[0] == "{" else " ")])) + 1
                ids += row
                weights += [0.0] * key + [1.0] * (len(row) - key)
            return ids, weights
        return self.repeat(rng, room)

    def row(self, rng, length):
        """One packed row of length + 1 tokens: documents that fit, the rest filled with repeats."""
        ids, weights, tries = [], [], 0
        while len(ids) < length - 40:
            room = length + 1 - len(ids)
            doc = self.document(rng, room) if tries < 6 and room > 90 else self.repeat(rng, room)
            tries += 1
            if len(doc[0]) <= room:
                ids += doc[0]
                weights += doc[1]
        pad = length + 1 - len(ids)
        return ids + [self.stop] * pad, weights + [0.0] * pad

    def positions(self, rng, length, limit):
        """Positions with random jumps, so that far distances are met in short sequences too."""
        out = list(range(length))
        if rng.random() < 0.5:
            spare = rng.randint(0, limit - length)
            cuts = sorted(rng.randrange(length) for _ in range(rng.randint(1, 3)))
            jumps = [0] + sorted(rng.randint(0, spare) for _ in cuts)
            for n, cut in enumerate(cuts):
                jump = jumps[n + 1] - jumps[n]
                for i in range(cut, length):
                    out[i] += jump
        return out

    def batch(self, step, rank):
        """One worker's half of a step's batch."""
        rng = random.Random(f"{self.seed}-{step}-{rank}")
        self.quiet = [q for s, q in self.quiets if step >= s or len(self.quiets) == 1][-1]
        lengths, tokens = [s[1:] for s in self.stages if step >= s[0]][-1]
        length = lengths[step % len(lengths)]
        pairs = [self.row(rng, length) for _ in range(tokens // length // WORKERS)]
        ids = torch.tensor([p[0] for p in pairs])
        weights = torch.tensor([p[1] for p in pairs])
        places = torch.tensor([self.positions(rng, length, qwen3.CONFIG["max_position_embeddings"]) for _ in pairs])
        return ids, weights, places


def orthogonal(g):
    """Muon's Newton-Schulz iteration on a stack of matrices: singular values pushed towards 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[-2] > g.shape[-1]
    x = g.transpose(-1, -2) if tall else g
    x = (x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(5):
        s = x @ x.transpose(-1, -2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.transpose(-1, -2) if tall else x).float()


class Optimizer:
    """Muon for the layers' matrices, Adam for the embedding and the norms; this rank's share of them."""

    def __init__(self, params, rank, workers=WORKERS):
        matrices = [n for n, p in params.items() if p.dim() == 2 and "embed" not in n]
        others = [n for n in params if n not in matrices]
        self.matrices, self.others = matrices[rank::workers], others[rank::workers]
        self.params = params
        self.state = {n: torch.zeros_like(p) for n, p in params.items()}
        self.square = {n: torch.zeros_like(params[n]) for n in others}

    @torch.no_grad()
    def step(self, grads, rate, count):
        shapes = {}
        for n in self.matrices:
            g, m = grads[n], self.state[n]
            m.mul_(0.95).add_(g, alpha=0.05)
            shapes.setdefault(tuple(g.shape), []).append((n, g.mul(0.05).add(m, alpha=0.95)))
        for shape, updates in shapes.items():
            scale = 0.02 * rate * max(1.0, shape[0] / shape[1]) ** 0.5
            for (n, _), u in zip(updates, orthogonal(torch.stack([u for _, u in updates]))):
                self.params[n].mul_(1 - 0.02 * rate * 0.05).add_(u, alpha=-scale)
        for n in self.others:
            g, m, s = grads[n], self.state[n], self.square[n]
            m.mul_(0.9).add_(g, alpha=0.1)
            s.mul_(0.98).addcmul_(g, g, value=0.02)
            self.params[n].addcdiv_(m / (1 - 0.9**count), (s / (1 - 0.98**count)).sqrt() + 1e-10, value=-0.004 * rate)


def rate_at(count, args):
    """Warm-up, a flat stretch at `rate`, then down to 2% of it over the last `tail` steps."""
    return args.rate * min(1.0, (count + 1) / 100) * min(1.0, max(0.02, (args.steps - count) / args.tail))


def save(path, data):
    torch.save(data, path + ".part")
    os.replace(path + ".part", path)


def work(rank, args, shared):
    """One worker. Parameters, optimiser state and gradients live in shared memory; each rank computes the
    gradient of its rows, then updates its share of the tensors from the sum."""
    import step  # compiles ops.c, which a device does not need
    torch.set_num_threads(1)
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 0)  # M_MMAP_MAX: keep freed pages, do not fault them in again every step
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    data, params, inverse = Data(bpe.Tokenizer(args.model), args), shared["model"], qwen3.Model().inverse
    optimizer = Optimizer(params, rank)
    optimizer.state, optimizer.square = shared["m"], shared["v"]
    average, grads, meet = shared["average"], shared["grads"], shared["meet"]
    path, count, seen, sums = os.path.join(args.work, "last.pt"), shared["step"], 0, torch.zeros(4)
    began = saved = time.time()
    while count < args.steps:
        ids, weights, places = data.batch(count, rank)
        total = float(weights[:, 1:].sum())
        loss, weight = step.step(qwen3.CONFIG, params, inverse, ids, weights, places, 1 / total / WORKERS, grads[rank])
        meet.wait()
        mine = {n: sum(grads[r][n] for r in range(WORKERS)) for n in optimizer.matrices + optimizer.others}
        optimizer.step(mine, rate_at(count, args), count + 1)
        count += 1
        with torch.no_grad():
            for n in mine:
                average[n].lerp_(params[n], 1 - min(0.99, count / (count + 10.0)))
            said = weight >= 1.0
            sums += torch.tensor([(loss * weight).sum() / total, loss[said].sum(), said.sum(), 1])
        seen += places.numel() * WORKERS
        meet.wait()
        if rank == 0 and count % 25 == 0:
            print(f"step {count} loss {sums[0] / sums[3]:.4f} said {sums[1] / sums[2]:.4f} "
                  f"rate {rate_at(count, args):.3f} {seen / (time.time() - began):.0f} tok/s "
                  f"{time.time() - began:.0f} s", flush=True)
            sums.zero_()
        if rank == 0 and (time.time() - saved > 60 or count in (args.steps, args.stop)):
            save(path, dict({k: shared[k] for k in ("model", "m", "v", "average")}, step=count))
            saved = time.time()
        if count == args.stop:
            break


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/mixquant-agent", help="folder with tokenizer.json")
    parser.add_argument("--work", default="/tmp/train", help="folder for checkpoints")
    parser.add_argument("--same", help="folder of a model of this shape to go on from")
    parser.add_argument("--deepen", help="folder of a model of half the depth to start from")
    parser.add_argument("--widen", help="folder of a narrower model to start from")
    parser.add_argument("--retoken", help="folder of a model of this shape with another tokenizer to go on from")
    parser.add_argument("--ledger", type=float, default=0, help="share of the texts that are walks through tables (ledger.py)")
    parser.add_argument("--device", help="cuda: train there, with torch's autograd (device.py); cpu: the same here, slowly")
    parser.add_argument("--parts", type=int, default=16, help="with --device: parts of a batch, each what a CPU worker has")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--tail", type=int, default=3000, help="the last steps, in which the rate goes down")
    parser.add_argument("--rate", type=float, default=1.0, help="the highest rate; below 1 to go on from a trained model")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stop", type=int, help="leave after this step, as if interrupted")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    os.makedirs(args.work, exist_ok=True)
    params = {n: p.detach().clone() for n, p in qwen3.Model().named_parameters()}
    for name in GROW:
        if getattr(args, name):
            getattr(grow, name)(getattr(args, name), params, *([args.model] if name == "retoken" else []))
    optimizer = Optimizer(params, 0)
    shared = dict(model=params, m=optimizer.state, v=optimizer.square, step=0,
                  average={n: p.clone() for n, p in params.items()})
    path = os.path.join(args.work, "last.pt")
    if os.path.exists(path):
        shared.update(torch.load(path, map_location="cpu"))
    if args.device:
        import device
        return device.run(args, shared)
    shared["grads"] = [{n: torch.zeros_like(p) for n, p in params.items()} for _ in range(WORKERS)]
    for tensors in [shared[k] for k in ("model", "m", "v", "average")] + shared["grads"]:
        for tensor in tensors.values():
            tensor.share_memory_()
    print(f"{sum(p.numel() for p in params.values())} parameters, step {shared['step']}", flush=True)
    context = processes.get_context("fork")
    shared["meet"] = context.Barrier(WORKERS)
    others = [context.Process(target=work, args=(r, args, shared), daemon=True) for r in range(1, WORKERS)]
    for other in others:
        other.start()
    work(0, args, shared)


if __name__ == "__main__":
    main()
