"""mixquant's logits against the float64 reference: every architecture, plan, chunking, thread count and kernel level.

usage: check_logits.py MIXQUANT [--shared DIR] [--self-test]
Prints one line per comparison and exits with 1 when one fails. --self-test spoils the reference and must fail.
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile

import numpy as np

import checkpoints
import reference
import reference_qwen3_5

# Relative L2 error of the worst row. BF16 and W4A16: FP32 arithmetic against float64 over the same BF16 cache; a K or V
# that rounds the other way at the last bit costs up to ~1e-3.
LIMIT = 3e-3
# W16A16 and INT8: activations near a tie round the other way too, everywhere; as far from the reference as from BF16, but
# no further. Single layers agree to 1e-6 (checkasm).
ROUNDED_LIMIT = {"w16a16": 1e-2, "int8": 3e-2}
# With experts such a flip near a tie of the router sends a row to another expert, and rows after it see that row: in plans that
# round activations half of the rows must be within the limit, the others within this one.
OTHER_EXPERT_LIMIT = 0.15
# NVFP4 and FP8: most prompts agree to 1e-6, but an activation that lies within FP32 rounding of a tie changes by a whole
# step of E2M1 or E4M3, and every row after it with it. So: several short prompts, of which most must agree throughout.
SHORT = ("nvfp4", "fp8")
NVFP4_LIMIT, NVFP4_PROMPTS, NVFP4_AGREE = 2e-3, 8, 5
LEVELS = ("ref", "neon", "neondot") if platform.machine() == "aarch64" else ("ref", "avx2", "avx512vnni")
failures = 0


def run(binary, directory, tokens, plan, environment=(), extra=()):
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "logits")
        command = [binary, "logits", "-m", directory, "--tokens", ",".join(map(str, tokens)), "-o", out,
                   "--prefill", plan, "--decode", plan, "--attention", "bf16", "--no-cache", *extra]
        subprocess.run(command, check=True, env={**os.environ, **dict(environment)})
        return np.fromfile(out, "<f4").reshape(len(tokens), -1)


def model_of(directory, plan="bf16", **more):
    with open(os.path.join(directory, "config.json")) as f:
        hybrid = json.load(f)["model_type"].startswith("qwen3_5")
    return (reference_qwen3_5.Qwen3_5 if hybrid else reference.Model)(directory, plan, **more)


def report(ok, text):
    global failures
    failures += not ok
    print(("ok      " if ok else "FAILED  ") + text, flush=True)


def compare(name, got, want, limit, flips=False):
    error = np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)
    ok = np.median(error) < limit and error.max() < OTHER_EXPERT_LIMIT if flips else error.max() < limit
    report(ok, f"{name}: worst row {error.max():.2e}, median {np.median(error):.2e}, limit {limit:g}")


def same(name, got, want):
    report(np.array_equal(got.view(np.uint32), want.view(np.uint32)), f"{name}: same bits")


def check_short(binary, name, directory, rng, level, plan):
    model, agree = model_of(directory, plan), 0
    for _ in range(NVFP4_PROMPTS):
        tokens = rng.integers(0, model.config["vocab_size"], 12 if plan == "nvfp4" else 3)
        want = model.logits(tokens)
        got = run(binary, directory, tokens, plan, {"MQ_ISA": level}.items())
        agree += (np.linalg.norm(got - want, axis=1) / np.linalg.norm(want, axis=1)).max() < NVFP4_LIMIT
    report(agree >= NVFP4_AGREE, f"{name} {plan} {level}: {agree} of {NVFP4_PROMPTS} prompts agree to {NVFP4_LIMIT:g}")


def check_head(binary, name, directory):
    """lm_head in NVFP4, the layers in BF16. Some rows may be further off: of the head's own activations one near a tie may go the
    other way, with experts a row near a tie of the router."""
    rng = np.random.default_rng(11)  # the same tokens whatever is checked before
    for head, limit in (("w4a16", LIMIT), ("nvfp4", LIMIT)):
        model = model_of(directory, "bf16", head=head)
        tokens = rng.integers(0, model.config["vocab_size"], 40)
        got, want = run(binary, directory, tokens, "bf16", extra=["--head", head]), model.logits(tokens)
        flips = head == "nvfp4" or "num_experts" in model.config
        compare(f"{name} bf16, {head} head", got, want, limit, flips)
        error = np.linalg.norm(got - run(binary, directory, tokens, "bf16"), axis=1) / np.linalg.norm(want, axis=1)
        report(error.min() > 2 * limit, f"{name} {head} head is not bf16's: {error.min():.2e}")
        for level in LEVELS:
            compare(f"{name} bf16, {head} head {level}", run(binary, directory, tokens, "bf16", {"MQ_ISA": level}.items(), ["--head", head]), want, limit, flips)


def check_case(binary, name, directory, spoil):
    rng = np.random.default_rng(7)
    for plan in ("bf16", "w16a16", "int8", "fp8", "w4a16", "nvfp4"):
        model = model_of(directory, plan)
        tokens = rng.integers(0, model.config["vocab_size"], 200 if "layer_types" in model.config else 100)
        got = run(binary, directory, tokens, plan)
        if plan == "w16a16" and name.endswith(("f16", "f32")):
            same(f"{name} {plan} is bf16", got, run(binary, directory, tokens, "bf16"))
            continue
        if plan not in SHORT:
            want = model.logits(tokens)
            if spoil:
                want[-1] = want[0]
            limit = ROUNDED_LIMIT.get(plan, LIMIT)
            flips = plan in ROUNDED_LIMIT and "num_experts" in model.config
            compare(f"{name} {plan}", got, want, limit, flips)
            for level in LEVELS:
                lower = run(binary, directory, tokens, plan, {"MQ_ISA": level}.items())
                compare(f"{name} {plan} {level}", lower, want, limit, flips)
        if spoil:
            return
        same(f"{name} {plan} chunks of 7", run(binary, directory, tokens, plan, extra=["--chunk", "7"]), got)
        same(f"{name} {plan} 1 thread", run(binary, directory, tokens, plan, extra=["-t", "1"]), got)
    check_head(binary, name, directory)
    for level in reversed(LEVELS):
        for plan in SHORT:
            check_short(binary, name, directory, rng, level, plan)
    if name.startswith("qwen3_5"):
        check_delta_plans(binary, name, directory)
        check_checkpoint(binary, name, directory)


def check_fp8_checkpoint(binary, source, directory, spoil):
    """An FP8 checkpoint: what it holds is what `fp8` multiplies, and BF16 has its values."""
    checkpoints.make_fp8(source, directory)
    rng, model = np.random.default_rng(5), reference.Model(directory)
    tokens = rng.integers(0, model.config["vocab_size"], 60)
    want = model.logits(tokens)
    if spoil:
        want[-1] = want[0]
    compare("fp8 checkpoint bf16", run(binary, directory, tokens, "bf16"), want, LIMIT)
    check_short(binary, "fp8 checkpoint", directory, rng, LEVELS[0], "fp8")


def check_delta_plans(binary, name, directory):
    """Gated DeltaNet's projections in other formats, as a plan file asks for them."""
    with tempfile.TemporaryDirectory() as scratch:
        file = os.path.join(scratch, "plan.json")
        for plan in ("w4a16", "int8"):
            rule = {"layers": "0-2", "linears": ["delta_in", "delta_out"], "prefill": plan, "decode": plan}
            with open(file, "w") as f:
                json.dump({"layers": [rule]}, f)
            model = model_of(directory, "bf16", delta=plan)
            tokens = np.random.default_rng(5).integers(0, model.config["vocab_size"], 100)
            got, want = run(binary, directory, tokens, "bf16", extra=["--plan", file]), model.logits(tokens)
            compare(f"{name} delta {plan}", got, want, ROUNDED_LIMIT.get(plan, LIMIT), "num_experts" in model.config)
            unlike = np.linalg.norm(got - model_of(directory).logits(tokens)) / np.linalg.norm(want)
            report(unlike > 1e-4, f"{name} delta {plan} is another format ({unlike:.1e})")


def check_checkpoint(binary, name, directory):
    """What inspect says of tensors that are not the text model's, and what quantize makes of one with experts in two tensors."""
    text = subprocess.run([binary, "inspect", "-m", directory, "--json"], check=True, capture_output=True).stdout
    report(json.loads(text).get("skipped") == {"vision": 1, "audio": 0, "mtp": 1}, f"{name}: tensors skipped")
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "nvfp4")
        subprocess.run([binary, "quantize", "-m", directory, "-o", out], check=True, capture_output=True)
        model = model_of(out, "w4a16")
        tokens = np.random.default_rng(6).integers(0, model.config["vocab_size"], 100)
        got = run(binary, out, tokens, "w4a16")
        compare(f"{name} quantised", got, model.logits(tokens), LIMIT, "num_experts" in model.config)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--shared", default="")
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for i, name in enumerate(checkpoints.CASES):
            if not name.startswith(arguments.only):
                continue
            directory = os.path.join(scratch, name)
            checkpoints.make(directory, name, shards=1 + i % 3)
            check_case(arguments.binary, name, directory, arguments.self_test)
            if name == "qwen3":
                check_fp8_checkpoint(arguments.binary, directory, directory + "-fp8", arguments.self_test)
    models = os.path.join(arguments.shared, "data", "models")
    if arguments.shared and os.path.isdir(models) and not arguments.self_test:
        for name in sorted(os.listdir(models)):
            directory = os.path.join(models, name)
            model = model_of(directory)
            tokens = np.random.default_rng(3).integers(0, model.config["vocab_size"], 200)
            compare(f"{name} bf16", run(arguments.binary, directory, tokens, "bf16"), model.logits(tokens), 1e-2)
    print(f"{failures} failed")
    sys.exit(1 if failures else 0)


main()
