"""Logits of Gemma 3, Gemma 4 and Mistral over 200 tokens, several windows long, against the float64 model in gemma.py: every kernel
level, any chunks and threads.

usage: check_gemma.py MIXQUANT [--self-test] [--only PREFIX]
Prints one line per comparison and exits with 1 when one fails. --self-test spoils the reference in small ways; each must be noticed.
"""
import argparse
import os
import platform
import subprocess
import sys
import tempfile

import numpy as np

import gemma

# Relative L2 error: of all logits together, and of the worst row. FP32 arithmetic against float64 over the same BF16 cache; a K or V
# that rounds the other way costs up to about 1e-3, and with experts may send a row to another one.
LIMIT, ROW_LIMIT, EXPERTS_ROW_LIMIT = 3e-3, 5e-3, 0.15
LEVELS = ("ref", "neon", "neondot") if platform.machine() == "aarch64" else ("ref", "avx2", "avx512vnni")
SPOILS = {"gemma4": ("window", "v"), "gemma4-moe": ("window", "v", "scale"), "gemma3": ("window",), "mistral": ("window",)}
TOKENS = 200
failures = 0


def run(binary, directory, tokens, environment=(), extra=()):
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "logits")
        command = [binary, "logits", "-m", directory, "--tokens", ",".join(map(str, tokens)), "-o", out,
                   "--prefill", "bf16", "--decode", "bf16", "--no-cache", *extra]
        subprocess.run(command, check=True, env={**os.environ, **dict(environment)})
        return np.fromfile(out, "<f4").reshape(len(tokens), -1)


def report(ok, text):
    global failures
    failures += not ok
    print(("ok      " if ok else "FAILED  ") + text, flush=True)


def errors(got, want):
    rows = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
    return np.linalg.norm(got - want) / np.linalg.norm(want), rows


def agrees(got, want, experts):
    whole, rows = errors(got, want)
    if experts: # half of the rows, whatever a flip of the router does to others
        return np.median(rows) < LIMIT and rows.max() < EXPERTS_ROW_LIMIT and whole < 1e-2
    return whole < LIMIT and rows.max() < ROW_LIMIT


def check_case(binary, name, directory):
    tokens = np.random.default_rng(11).integers(0, gemma.VOCAB, TOKENS)
    experts = bool(gemma.CASES[name][0].get("enable_moe_block"))
    want = gemma.Model(directory).logits(tokens)
    got = run(binary, directory, tokens)
    for level in ("", *LEVELS):
        other = run(binary, directory, tokens, {"MQ_ISA": level}.items()) if level else got
        whole, rows = errors(other, want)
        report(agrees(other, want, experts), f"{name} {level or 'own level'}: {whole:.2e}, worst row {rows.max():.2e}")
    for extra in (["--chunk", "7"], ["--chunk", "65"], ["-t", "1"]):
        same = run(binary, directory, tokens, extra=extra)
        report(np.array_equal(same.view(np.uint32), got.view(np.uint32)), f"{name} {' '.join(extra)}: same bits")


def check_spoiled(binary, name, directory):
    """A reference that is wrong in one small way must not agree."""
    tokens = np.random.default_rng(11).integers(0, gemma.VOCAB, TOKENS)
    got = run(binary, directory, tokens)
    for spoil in SPOILS.get(name, ()):
        want = gemma.Model(directory, spoil).logits(tokens)
        report(not agrees(got, want, False), f"{name} with another {spoil}: {errors(got, want)[0]:.2e}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for name in gemma.CASES:
            if not name.startswith(arguments.only):
                continue
            directory = os.path.join(scratch, name)
            gemma.make(directory, name)
            (check_spoiled if arguments.self_test else check_case)(arguments.binary, name, directory)
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


main()
