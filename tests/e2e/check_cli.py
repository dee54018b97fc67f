"""The command line as a user meets it: answers, exit codes, refused input, the cache of packed weights.

usage: check_cli.py MIXQUANT [--shared DIR] [--only NAME]
Needs Python's standard library only. Every function named test_* runs; a failed one prints why, and the exit code is 1.
"""
import argparse
import json
import os
import platform
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import traceback

BINARY = SHARED = SCRATCH = None


def mixquant(*arguments, text=None, limit=None, code=0, timeout=120, **environment):
    """Runs a command; checks its exit code and that a failure is one line on stderr."""
    def set_limit():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    done = subprocess.run([BINARY, *(a if isinstance(a, bytes) else str(a) for a in arguments)], input=text, capture_output=True, timeout=timeout,
                          preexec_fn=set_limit, env={**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache", **environment})
    error = done.stderr.decode(errors="replace")
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, expected {code}: {error}"
    if code:
        assert error.startswith("mixquant: ") and error.count("\n") == 1, f"{arguments}: not one line: {error!r}"
        assert "expected" in error or "template: " in error, error  # a template raises in its own words
    return done.stdout, error


def folder(name):
    path = os.path.join(SCRATCH, name)
    shutil.rmtree(path, ignore_errors=True)
    return path


def model(shape="tiny-qwen3", seed=1, name=None):
    path = folder(name or f"{shape}-{seed}")
    mixquant("synth", "--shape", shape, "--seed", seed, "-o", path)
    return path


def logits(directory, *extra, **environment):
    out = os.path.join(SCRATCH, "logits")
    mixquant("logits", "-m", directory, "--tokens", "1,2,3,4,5,6,7,8,9", "-o", out, *extra, **environment)
    with open(out, "rb") as f:
        return f.read()


def rewrite(path, change):
    with open(path, "rb") as f:
        data = f.read()
    data = change(data)
    with open(path, "wb") as f:
        f.write(data)


# ---------------------------------------------------------------- answers

def test_prefill_auto():
    """Says what it took and why; attends in the fastest format, but not against the user's word. The choice is kept."""
    def plan(*flags, **environment):
        _, error = mixquant("run", "-m", model(), "-p", "hello there", "-n", 1, "--stats", *flags, **environment)
        *why, stats = error.strip().split("\n")
        stats = json.loads(stats)
        return stats["plan"]["prefill"], stats["attention"], "\n".join(why)

    prefill, attention, why = plan("--prefill", "auto")
    assert f"prefill {prefill}: " in why, why
    assert f"attention {attention}: " in why, why
    assert plan("--prefill", "auto") == (prefill, attention, why), "measured again"
    again, attention, _ = plan("--prefill", "auto", "--attention", "bf16")
    assert (again, attention) == (prefill, "bf16")
    for quantised in ("nvfp4", "int8"):
        assert plan("--prefill", quantised)[1] == plan("--prefill", quantised, "--attention", "auto")[1], "auto is the default"
    assert plan("--prefill", "bf16")[1] == plan("--prefill", "w4a16")[1] == "bf16", "it is not, beside others"
    assert "MQ_VARIANTS" in mixquant("run", "-m", model(), "-p", "x", "-n", 1, MQ_VARIANTS="nonsense", code=2)[1]
    for worker in (("--prefill", "auto"), ("--attention", "auto")):
        _, error = mixquant("serve", "-m", model(), "--port", 0, "--role", "prefill", *worker, code=2)
        assert "by name" in error or "expected a build" in error, error


def test_head():
    """lm_head in NVFP4 is off unless asked for, and another one then."""
    m = model("tiny-qwen3")
    plain = logits(m, "--no-cache")
    assert plain == logits(m, "--no-cache", "--head", "bf16")
    others = {logits(m, "--no-cache", "--head", head) for head in ("w4a16", "nvfp4")}
    assert len(others | {plain}) == 3
    with open(SCRATCH + "/head.json", "w") as f:
        json.dump({"head": "nvfp4", "layers": []}, f)
    assert logits(m, "--no-cache", "--plan", SCRATCH + "/head.json") in others
    mixquant("logits", "-m", m, "--tokens", "1,2", "-o", SCRATCH + "/x", "--head", "int8", code=2)


def test_run_and_stats():
    m = model()
    out, error = mixquant("run", "-m", m, "-p", "hello there", "-n", 8, "--ignore-eos", "--stats", "--attention", "bf16")
    stats = json.loads(error)
    assert stats["prompt_tokens"] == stats["prefill_tokens"] + 1 == 11, stats
    assert stats["generated_tokens"] == 8 and stats["plan"] == {"prefill": "nvfp4", "decode": "bf16"}, stats
    assert stats["attention"] == "bf16", stats
    again, _ = mixquant("run", "-m", m, "-n", 8, "--ignore-eos", text=b"hello there")
    assert again == out, "a prompt on stdin is another prompt"
    with open(SCRATCH + "/prompt", "w") as f:
        f.write("hello there")
    again, _ = mixquant("run", "-m", m, "-f", SCRATCH + "/prompt", "-n", 8, "--ignore-eos")
    assert again == out, "a prompt in a file is another prompt"
    a, _ = mixquant("run", "-m", m, "-p", "x", "-n", 20, "--temp", 1, "--seed", 5, "--ignore-eos")
    b, _ = mixquant("run", "-m", m, "-p", "x", "-n", 20, "--temp", 1, "--seed", 5, "--ignore-eos")
    c, _ = mixquant("run", "-m", m, "-p", "x", "-n", 20, "--temp", 1, "--seed", 6, "--ignore-eos")
    assert a == b != c, "seeds"


def test_json_documents():
    m = model()
    out, _ = mixquant("bench", "-m", m, "-p", 32, "-n", 4, "-r", 2, "--prefill", "bf16,nvfp4,w4a16,auto,nvfp4/auto", "--json")
    bench = json.loads(out)
    assert {r["format"] for r in bench["results"] if r["phase"] == "prefill"} == {"bf16", "nvfp4", "w4a16", "auto", "nvfp4/auto"}
    assert {r["format"] for r in bench["ratios"]} == {"nvfp4", "w4a16", "auto", "nvfp4/auto"} and bench["cpu"]["read_gb_s"] > 0
    assert all(r["tok_s"]["min"] <= r["tok_s"]["median"] <= r["tok_s"]["max"] for r in bench["results"])
    for refused in (["--decode", "auto"], ["--attention", "int8"], ["-c", 64], ["--scales", "best"]):
        mixquant("bench", "-m", m, "-p", 32, "-n", 4, *refused, code=2)
    measured = json.loads(mixquant("cpu", "--json")[0])["measured"]
    for choice, candidates in measured.items():
        assert [c["winner"] for c in candidates.values()].count(True) == 1, (choice, candidates)
        assert all(c["microseconds"] > 0 for c in candidates.values()), (choice, candidates)
    assert set(measured["attention"]) == {"bf16", "w16a16", "int8"}, measured
    cpu = json.loads(mixquant("cpu", "--json", "--quick")[0])
    assert cpu["isa"] in ("ref", "avx2", "avx512vnni", "avx512bf16", "amx", "neon", "neondot", "neoni8mm") and "nvfp4_gemm" in cpu["kernels"]
    assert isinstance(json.loads(mixquant("inspect", "-m", m, "--json")[0]), dict)


def test_levels_agree():
    m = model()
    plans = ["--prefill", "nvfp4", "--decode", "nvfp4", "--attention", "bf16"]  # auto is another arithmetic on another level
    best = logits(m, *plans)
    for level in ("ref", "neon" if platform.machine() == "aarch64" else "avx2"):
        lower = logits(m, *plans, MQ_ISA=level)
        far = max(abs(a - b) for a, b in zip(struct.unpack(f"<{len(best) // 4}f", best),
                                             struct.unpack(f"<{len(best) // 4}f", lower)))
        assert far < 1e-2, (level, far)
    mixquant("logits", "-m", m, "--tokens", "1", "-o", SCRATCH + "/x", code=2, MQ_ISA="z80")


def test_golden_text():
    if not SHARED:
        return "no shared data"
    for name in ("stories260k", "babyllama"):
        directory = os.path.join(SHARED, "data/models", name)
        with open(os.path.join(directory, "golden.run_c.t0.txt"), "rb") as f:
            golden = f.read().rstrip(b"\n")
        out, _ = mixquant("run", "-m", directory, "-p", "", "-n", 256, "--prefill", "bf16", "--decode", "bf16")
        assert out.rstrip(b"\n").startswith(golden) or golden.startswith(out.rstrip(b"\n")), name
    return None


def test_tokenize_round_trip():
    text = bytes(range(256)) * 3 + "naïve 你好 <|im_end|> \r\n\t  end ".encode()
    for directory in [model()] + ([SHARED + "/data/tokenizers/qwen3"] if SHARED else []):
        ids, _ = mixquant("tokenize", "-m", directory, "--no-special", text=text)
        back, _ = mixquant("detokenize", "-m", directory, text=ids)
        assert back == text, directory


def test_chat_and_stop():
    m = model()
    shutil.copy(os.path.join(os.path.dirname(__file__), "template.jinja"), m + "/chat_template.jinja")
    out, _ = mixquant("chat", "-m", m, "-n", 4, "--stats", text=b"hi\nagain\n/clear\nhi\n/exit\n")
    assert out.count(b"\n") >= 3, out
    out, _ = mixquant("render", "-m", m, text=b'{"messages":[{"role":"user","content":"hi"}]}')
    assert out == b"<user>hi</user><assistant>", out


def test_answers_are_utf8():
    """Random weights write bytes that are rarely UTF-8: what is printed is, and the chat remembers it."""
    m = model()
    for n in range(1, 25):
        out, _ = mixquant("run", "-m", m, "-p", "x", "-n", n, "--temp", 1, "--seed", n, "--ignore-eos")
        out.decode()
    shutil.copy(os.path.join(os.path.dirname(__file__), "template.jinja"), m + "/chat_template.jinja")
    out, error = mixquant("chat", "-m", m, "-n", 6, "--temp", 1, "--stats", text=b"hi\nhi\nhi\n")
    prompts = [int(line[1:].split()[0]) for line in error.splitlines() if "prompt tokens" in line]
    grown = [after - before for before, after in zip(prompts, prompts[1:])]
    assert len(grown) == 2 and all(g >= prompts[0] for g in grown), prompts
    out.decode()


def test_stop_at_a_hidden_token():
    m = model()
    common = ["run", "-m", m, "-p", "x", "-n", 400, "--temp", 20, "--seed", 4, "--ignore-eos"]
    everything, _ = mixquant(*common, "--special")
    before = everything.split(b"<|im_start|>")
    assert len(before) > 1, "no such token in this answer: take another seed"
    expected = before[0].replace(b"<|im_end|>", b"").replace(b"<|endoftext|>", b"")
    for extra in ([], ["--special"]):
        out, _ = mixquant(*common, "--stop", "<|im_start|>", *extra)
        assert out.rstrip(b"\n") == (before[0] if extra else expected).rstrip(b"\n"), (extra, out)
    mixquant(*common, "--stop", b"\xe2\x82".decode(errors="surrogateescape"), code=2)


# ---------------------------------------------------------------- quantised checkpoints

def test_quantized_checkpoints():
    m = model("tiny-qwen3")
    whole = logits(m, "--prefill", "nvfp4", "--decode", "nvfp4", "--no-cache")
    for layout in ("compressed-tensors", "modelopt"):
        out = folder("quantized-" + layout)
        mixquant("quantize", "-m", m, "-o", out, "--format", layout)
        assert json.load(open(out + "/config.json"))["quantization_config"]["quant_method"] in (layout, "modelopt")
        mixquant("quantize", "-m", m, "-o", out, "--format", layout, code=2)  # not empty
        mix = logits(m, "--no-cache")
        second = logits(m, "--prefill-model", out, "--no-cache")
        assert len(mix) == len(second) == len(whole)
        mixquant("logits", "-m", out, "--tokens", "1,2", "-o", SCRATCH + "/x", code=3)  # has no BF16 for decode
        mixquant("logits", "-m", out, "--tokens", "1,2", "-o", SCRATCH + "/x", "--decode", "w4a16")


# ---------------------------------------------------------------- calibration

def write_text(name, text):
    path = os.path.join(SCRATCH, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def test_calibration():
    m = model("tiny-qwen3")
    text = write_text("calibration.txt", " ".join(f"Item {i} costs {i * 7 % 31} coins." for i in range(60)))
    own = ("--calibrate", text, "--calibrate-tokens", 300)
    plain = logits(m, "--no-cache")
    seen = {plain}
    for extra in (("--method", "gptq"), ("--smooth", 0.5), ("--method", "gptq", "--scales", "sweep", "--smooth", 0.5)):
        out = folder("calibrated")
        mixquant("quantize", "-m", m, "-o", out, *extra, *own)
        second = logits(m, "--prefill-model", out, "--no-cache")
        assert second not in seen and len(second) == len(plain)
        seen.add(second)
    plan = os.path.join(SCRATCH, "sensitivity.json")
    mixquant("quantize", "-m", m, "--sensitivity", plan, "--budget", 1.5, *own)
    measured = json.load(open(plan))["sensitivity"]
    assert measured["divergence"]["plan"] <= measured["divergence"]["nvfp4"], measured
    logits(m, "--plan", plan, "--no-cache")

    # Refusals: nothing to read, nothing to write, values out of range; nothing stays.
    out = folder("refused")
    for code, extra in ((2, ("--method", "gptq", "--calibrate", write_text("empty.txt", ""))),
                        (3, ("--method", "gptq", "--calibrate", SCRATCH + "/nowhere.txt")),
                        (3, ("--method", "gptq")),  # no episodes.jsonl there
                        (2, ("--method", "best", *own)),
                        (2, ("--smooth", 2, *own))):
        mixquant("quantize", "-m", m, "-o", out, *extra, code=code)
        assert not os.path.exists(out)
    mixquant("quantize", "-m", m, *own, code=2)


# ---------------------------------------------------------------- the cache

def packed_files():
    found = [os.path.join(d, f) for d, _, files in os.walk(SCRATCH + "/cache") for f in files if "synth" not in d]
    return sorted(f for f in found if "mqpack" in f)


def test_cache_is_checked():
    shutil.rmtree(SCRATCH + "/cache", ignore_errors=True)
    m = model(name="cached")
    expected = logits(m, "--no-cache")
    assert packed_files() == [] and logits(m) == expected
    (path,) = packed_files()
    with open(path, "rb") as f:
        intact = f.read()
    assert logits(m) == expected, "from the cache"
    for at in [0, 9, 25, 33, 41, 70, 90, 4096, len(intact) // 2, len(intact) - 1]:
        rewrite(path, lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
        assert logits(m) == expected, f"byte {at} damaged"
        with open(path, "rb") as f:
            assert f.read() == intact, f"byte {at} damaged: not made anew"
    for size in (0, 63, 100, 5000, len(intact) - 1):
        os.truncate(path, size)
        assert logits(m) == expected, f"cut to {size}"
    other = model(seed=2, name="cached")  # another model at the same place
    assert logits(other) == logits(other, "--no-cache") != expected, "a stale cache was used"
    assert len(packed_files()) == 1, "the stale file was replaced"


def test_cache_cannot_be_written():
    shutil.rmtree(SCRATCH + "/cache", ignore_errors=True)
    m = model(name="cached")
    done, _ = mixquant("run", "-m", m, "-p", "x", "-n", 1, "--ignore-eos", limit=4096)
    assert packed_files() == [], "half a cache file stays"
    assert (done, "") == (mixquant("run", "-m", m, "-p", "x", "-n", 1, "--ignore-eos", "--no-cache")[0], "")
    mixquant("run", "-m", m, "-p", "x", "-n", 1, "--cache-dir", "/proc/no/such/place")


def test_full_disk_leaves_nothing():
    m = model()
    out = folder("full")
    mixquant("synth", "--shape", "tiny-llama", "-o", out, limit=20000, code=1)
    assert not os.path.exists(out) or os.listdir(out) == [], os.listdir(out)
    mixquant("quantize", "-m", m, "-o", out, limit=20000, code=1)
    assert not os.path.exists(out) or os.listdir(out) == [], os.listdir(out)
    mixquant("logits", "-m", m, "--tokens", "1,2,3", "-o", SCRATCH + "/short", "--no-cache", limit=100, code=1)
    assert not os.path.exists(SCRATCH + "/short")


# ---------------------------------------------------------------- refused input

def header_of(data):
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]


def with_header(header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def damaged_weights():
    """name -> function of the bytes of a safetensors file."""
    def entry(change):
        def apply(data):
            header, body = header_of(data)
            name = next(n for n in header if n.endswith("q_proj.weight"))
            change(header, name)
            return with_header(header, body)
        return apply

    def overlap(header, name):
        b, e = header[name]["data_offsets"]
        header[name]["data_offsets"] = [b - 2, e - 2]

    def duplicate(data):
        header, body = header_of(data)
        text = json.dumps(header)
        name = next(n for n in header if n.endswith("q_proj.weight"))
        return with_header((text[:-1] + ", " + json.dumps(name) + ": " + json.dumps(header[name]) + "}").encode(), body)

    return {
        "empty": lambda d: b"",
        "short": lambda d: d[:5],
        "cut header": lambda d: d[:200],
        "cut data": lambda d: d[:-1],
        "trailing": lambda d: d + b"x",
        "huge header": lambda d: struct.pack("<Q", 1 << 62) + d[8:],
        "no json": lambda d: with_header(b"{" * 64, b""),
        "deep json": lambda d: with_header(b'{"a":' * 100000, b""),
        "duplicate key": duplicate,
        "overlap": entry(overlap),
        "unknown dtype": entry(lambda h, n: h[n].update(dtype="F3")),
        "huge shape": entry(lambda h, n: h[n].update(shape=[1 << 62, 4])),
        "negative shape": entry(lambda h, n: h[n].update(shape=[-1, 4])),
        "wrong shape": entry(lambda h, n: h[n].update(shape=h[n]["shape"][::-1])),
        "missing tensor": entry(lambda h, n: h.update({"other": h.pop(n)})),
        "nan norm": lambda d: nan_norm(d),
    }


def nan_norm(data):
    header, body = header_of(data)
    b, _ = header["model.norm.weight"]["data_offsets"]
    return with_header(header, body[:b] + b"\xff\x7f" + body[b + 2:])


def test_damaged_weights():
    for name, change in damaged_weights().items():
        m = model(name="damaged")
        rewrite(m + "/model.safetensors", change)
        for command in (["logits", "--tokens", "1,2", "-o", SCRATCH + "/x", "--no-cache"], ["run", "-p", "x", "-n", "1"]):
            try:
                mixquant(command[0], "-m", m, *command[1:], code=3)
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None


def test_damaged_scales():
    m = model("tiny-qwen3")
    for layout, name in (("compressed-tensors", "weight_global_scale"), ("modelopt", "weight_scale_2")):
        for suffix, value in ((name, struct.pack("<f", float("nan"))), (name, struct.pack("<f", 0)),
                              (name, struct.pack("<f", -1)), ("weight_scale", b"\x7f"), ("weight_scale", b"\x88")):
            out = folder("scales")
            mixquant("quantize", "-m", m, "-o", out, "--format", layout)

            def spoil(data):
                header, body = header_of(data)
                tensor = next(n for n in header if n.endswith("." + suffix))
                b = header[tensor]["data_offsets"][0]
                return with_header(header, body[:b] + value + body[b + len(value):])
            rewrite(out + "/model.safetensors", spoil)
            mixquant("logits", "-m", m, "--prefill-model", out, "--tokens", "1,2", "-o", SCRATCH + "/x", code=3)


def test_damaged_configs():
    changes = [("model_type", "mamba"), ("hidden_act", "gelu"), ("hidden_size", 48), ("num_attention_heads", 3),
               ("num_hidden_layers", 1000), ("vocab_size", 10**12), ("head_dim", 7), ("rope_scaling", {"type": "magic"}),
               ("use_sliding_window", True), ("layer_types", ["sliding_attention"]), ("num_experts", 8),
               ("hidden_size", "many"), ("rms_norm_eps", -1), ("attention_bias", True), ("eos_token_id", "end")]
    for key, value in changes:
        m = model(name="config")
        config = json.load(open(m + "/config.json"))
        config[key] = value
        json.dump(config, open(m + "/config.json", "w"))
        try:
            mixquant("run", "-m", m, "-p", "x", "-n", 1, code=3)
        except AssertionError as error:
            raise AssertionError(f"{key} = {value}: {error}") from None
    m = model(name="config")
    os.remove(m + "/config.json")
    mixquant("inspect", "-m", m, code=3)
    os.mkfifo(m + "/config.json")
    mixquant("inspect", "-m", m, code=3)


def test_indexes():
    for shard in ("../model.safetensors", "/etc/passwd", "none.safetensors", ".", ""):
        m = model(name="index")
        header, _ = header_of(open(m + "/model.safetensors", "rb").read())
        names = [n for n in header if n != "__metadata__"]
        json.dump({"weight_map": {n: shard for n in names}}, open(m + "/model.safetensors.index.json", "w"))
        mixquant("inspect", "-m", m, code=3)


def test_wrong_usage():
    m = model()
    for arguments in (["nonsense"], ["run", "--nonsense"], ["run", "-n", "x"], ["run", "-n", "-1"], ["run", "-t", "999"],
                      ["run", "-m", m, "-p", "x", "--prefill", "int3"], ["run", "-p"], ["run", "stray"],
                      ["run", "-m", m, "-p", "x", "--temp", "nan"], ["logits", "-m", m, "-o", SCRATCH + "/x"],
                      ["logits", "-m", m, "--tokens", "1,99999999", "-o", SCRATCH + "/x"],
                      ["logits", "-m", m, "--tokens", "1,,2", "-o", SCRATCH + "/x"],
                      ["bench", "-m", m, "-p", "1,x"], ["synth", "--shape", "gpt-9", "-o", SCRATCH + "/y"]):
        mixquant(*arguments, code=2)
    mixquant("run", "-m", m, "-p", "x" * 300, "-c", 64, code=3)  # longer than the context
    mixquant("run", "-m", SCRATCH + "/nowhere", "-p", "x", code=3)
    for name in ("", "run", "chat", "agent", "bench", "quantize", "logits", "tokenize", "detokenize", "render", "inspect",
                 "synth", "cpu"):
        out, _ = mixquant(*([name] if name else []), "-h")
        assert b"mixquant" in out


def test_help_lists_each_option_once():
    for name in ("run", "chat", "agent", "serve", "bench", "eval", "quantize", "logits", "synth", "cpu"):
        out, _ = mixquant(name, "-h")
        lines = [line for line in out.decode().splitlines() if line.startswith("  -")]
        options = [line.split()[0] for line in lines]
        assert len(set(options)) == len(options), (name, options)
        assert len({re.match(r"  \S+( [A-Z]+)?  +", line + "  ").end() for line in lines[:-1]}) == 1, out.decode()
        if name == "eval":
            assert not {"--prefill", "--decode", "--attention", "--head", "--plan", "--last"} & set(options), options


def test_help_and_version():
    for name in ("run", "chat", "eval", "cpu"):
        assert mixquant("help", name)[0] == mixquant(name, "-h")[0] != b"", name
    assert mixquant("version") == mixquant("--version") and b"mixquant" in mixquant("version")[0]
    for arguments in (["help", "nonsense"], ["help", "run", "chat"], ["version", "now"]):
        mixquant(*arguments, code=2)


def test_positional_arguments():
    m = model()
    assert mixquant("inspect", m) == mixquant("inspect", "-m", m)
    mixquant("synth", "tiny-qwen3", "-o", folder("positional"))
    mixquant("quantize", m, "-o", folder("positional"))
    for arguments in (["inspect", m, m], ["inspect", "-m", m, m], ["synth", "tiny-qwen3", "--shape", "tiny-qwen3", "-o", folder("y")],
                      ["inspect", ""]):
        mixquant(*arguments, code=2)
    for task in ("agent", "ppl"):
        assert task in mixquant("eval", code=2)[1], "eval names its tasks"


def test_empty_values():
    """An unset variable of a script is not a name."""
    m = model()
    for option in ("--cache-dir", "--plan", "--prefill-model", "-f", "--stop", "--prefill", "--numa"):
        mixquant("run", "-m", m, "-n", 1, *(["-p", "x"] if option != "-f" else []), option, "", code=2)
    mixquant("run", "-m", m, "-n", 1, "-p", "x", "--cache-dir=", code=2)
    mixquant("run", "-m", "", "-p", "x", code=2)
    mixquant("logits", "-m", m, "--tokens", "1", "-o", "", code=2)


def test_refused_files():
    m = model()
    shutil.copy(os.path.join(os.path.dirname(__file__), "template.jinja"), m + "/chat_template.jinja")
    bad = os.path.join(SCRATCH, "bytes")
    with open(bad, "wb") as f:
        f.write(b"a\xff\0")
    out = SCRATCH + "/x"
    for arguments in (["logits", "--tokens-file", SCRATCH + "/nowhere", "-o", out], ["logits", "--tokens-file", bad, "-o", out],
                      ["run", "-f", SCRATCH + "/nowhere"], ["run", "-f", SCRATCH], ["run", "--chat", "-f", bad]):
        mixquant(arguments[0], "-m", m, *arguments[1:], code=3)
    mixquant("run", "-m", m, "--chat", text=b"\xff", code=3)
    mixquant("detokenize", "-m", m, text=b"\xff", code=3)
    mixquant("run", "-m", m, "--chat", "--system", b"\xff", "-p", "x", code=2)
    mixquant("run", "-m", m, "--chat", "-p", b"\xff", code=2)


def test_closed_outputs():
    m = model()
    commands = (["inspect", m], ["run", "-m", m, "-p", "x", "-n", "9"], ["help"], ["cpu", "--quick"])
    for command in commands:
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([BINARY, *command], stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b""), (command, done)  # who reads has what he wants
        done = subprocess.run([BINARY, *command], preexec_fn=lambda: os.close(1), stderr=subprocess.PIPE)
        assert done.returncode == 1 and done.stderr.count(b"\n") == 1, (command, done)
        if os.path.exists("/dev/full"):
            with open("/dev/full", "wb") as full:
                done = subprocess.run([BINARY, *command], stdout=full, stderr=subprocess.PIPE)
            assert done.returncode == 1 and b"No space" in done.stderr, (command, done)
    done = subprocess.run([BINARY, "tokenize", "-m", m], preexec_fn=lambda: os.close(0), capture_output=True)
    assert done.returncode == 3, done


def test_a_device_is_not_removed():
    if not os.path.exists("/dev/full"):
        return "no /dev/full"
    link = SCRATCH + "/device"  # a link, so that a wrong program removes only that
    os.symlink("/dev/full", link)
    mixquant("logits", "-m", model(), "--tokens", "1", "-o", link, code=1)
    assert os.path.islink(link)
    return None


def test_hostile_templates():
    m = model()
    request = b'{"messages":[{"role":"user","content":"hi"}]}'
    for template in ("{% for i in range(1000000000) %}x{% endfor %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
                     "{{ 'x' * 10000000000 }}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{% if %}", "{{ a.b.c }}",
                     "{% set n = namespace(x=[1]) %}{% for i in range(999) %}{% set n.x = n.x + n.x %}{% endfor %}", "(" * 50000,
                     "{{ " + "(" * 50000 + " }}", "{% include 'x' %}"):
        if template == "(" * 50000:
            continue  # plain text
        with open(SCRATCH + "/template", "w") as f:
            f.write(template)
        try:
            mixquant("render", "-m", m, "--template", SCRATCH + "/template", text=request, code=3, timeout=10)
        except AssertionError as error:
            raise AssertionError(f"{template[:40]}: {error}") from None
    for request in (b"", b"[]", b'{"messages": 3}', b'{"messages":[3]}', b"\xff", b'{"messages":[{}]}'):
        with open(SCRATCH + "/template", "w") as f:
            f.write("{% for m in messages %}{{ m.content + m.role }}{% endfor %}")
        done = subprocess.run([BINARY, "render", "-m", m, "--template", SCRATCH + "/template"], input=request,
                              capture_output=True, timeout=10)
        assert done.returncode in (2, 3), (request, done.returncode, done.stderr)


def test_bundled_agent():
    bundled = os.path.join(os.environ.get("MQ_SOURCE_DIR", ""), "models/mixquant-agent")
    if not os.path.exists(bundled + "/model.safetensors"):
        return "no bundled model"
    out, _ = mixquant("agent", timeout=300)
    assert b"tool" in out and b"bf16" in out and b"nvfp4 / bf16" in out, out
    return None


def main():
    global BINARY, SHARED, SCRATCH
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--shared", default="")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    BINARY, SHARED = os.path.abspath(arguments.binary), arguments.shared
    failed = 0
    with tempfile.TemporaryDirectory() as SCRATCH:
        for name, test in list(globals().items()):
            if not name.startswith("test_") or arguments.only not in name:
                continue
            try:
                skipped = test()
                print(f"{'skipped' if skipped else 'ok     '}  {name}{': ' + skipped if skipped else ''}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


main()
