"""What sparse attention over the prompt does to needles: `python3 tools/experiments/sparse_prefill.py models/mixquant-agent`.

Prefill attends by a pattern, the answer to everything, with teacher forcing: an answer is right when every token of it is the
most likely one. Blocks are 64 x 64. "share" is the share of the causal blocks that a pattern computes: what it could save.
    window W    the first 64 keys and the last W
    blocks S    the first block, the diagonal and its neighbour, and the S best of the others for each row of blocks, by the
                product of mean query and mean key (as MInference's and XAttention's estimates, in their plainest form)
Runs on the NumPy reference of the tests. docs/perf/2026-11-zen5.md has the numbers.
"""
import argparse
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path += [os.path.join(HERE, "..", "..", "tests", "golden", "logits"), os.path.join(HERE, "..", "train")]
import numpy as np  # noqa: E402

import needles  # noqa: E402
import needles  # noqa: E402
import reference  # noqa: E402
import template  # noqa: E402
import tokenizer as bpe  # noqa: E402
import world  # noqa: E402

BLOCK = 64


class Sparse(reference.Model):
    """pattern: ('full',), ('window', W) or ('blocks', share). prompt: tokens that attend by it."""

    def __init__(self, directory):
        super().__init__(directory, kv="none")
        self.t = {name: value.astype(np.float32) for name, value in self.t.items()}
        self.pattern, self.prompt, self.done, self.all = ("full",), 0, 0, 0

    def mask(self, q, k):
        causal = super().mask(q, k)
        n = self.prompt
        if self.pattern[0] == "full":
            return causal
        keep = self.window(n) if self.pattern[0] == "window" else self.blocks(q[:n], k[:n])
        lower = np.tril(np.ones_like(keep))
        self.done += int((keep & lower).sum())
        self.all += int(lower.sum())
        out = causal.copy()
        fine = np.repeat(np.repeat(keep, BLOCK, 0), BLOCK, 1)[:n, :n]
        out[:n, :n][~fine] = -np.inf
        return out

    def window(self, n):
        count, width = -(-n // BLOCK), self.pattern[1] // BLOCK
        row, column = np.arange(count)[:, None], np.arange(count)[None, :]
        return (column == 0) | ((column <= row) & (column >= row - width))

    def blocks(self, q, k):
        count = -(-len(q) // BLOCK)
        mean = [np.stack([x[i * BLOCK:(i + 1) * BLOCK].mean(0) for i in range(count)]) for x in (q, k)]
        score = mean[0] @ mean[1].T
        keep = np.zeros((count, count), bool)
        for row in range(count):
            keep[row, [0, row, max(row - 1, 0)]] = True
            best = np.argsort(-score[row, :row + 1])[:int(np.ceil(self.pattern[1] * (row + 1)))]
            keep[row, best] = True
        return keep


def items(tok, kind, length, count):
    for seed in range(count):
        w = world.World(random.Random(f"sparse-{kind}-{length}-{seed}"), "held")
        messages = needles.needle(w, length // 10 - 4, kind)
        prompt = tok.encode(template.render(messages[:1], None, True))
        yield prompt, tok.encode(messages[1]["content"] + "<|im_end|>")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--length", type=int, default=3900)
    parser.add_argument("--kinds", default="single,multikey")
    args = parser.parse_args()
    net, tok = Sparse(args.folder), bpe.Tokenizer(args.folder)
    patterns = [("full",), ("window", 512), ("window", 1024), ("window", 2048), ("blocks", 0.125), ("blocks", 0.25),
                ("blocks", 0.5)]
    for kind in args.kinds.split(","):
        cases = list(items(tok, kind, args.length, args.count))
        for pattern in patterns:
            net.pattern, net.done, net.all = pattern, 0, 0
            right = 0
            for prompt, answer in cases:
                net.prompt = len(prompt)
                best = net.logits(np.array(prompt + answer[:-1]))[len(prompt) - 1:].argmax(-1)
                right += list(best) == list(answer)
            share = net.done / net.all if net.all else 1
            print(f"{kind:10} {' '.join(map(str, pattern)):14} {right} of {len(cases)} right, share {share:.2f}", flush=True)


if __name__ == "__main__":
    main()
