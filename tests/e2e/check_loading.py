"""Loading as users meet it: what is given as a model, weights that are no numbers, killed writers, processes that share a
cache.

usage: check_loading.py MIXQUANT
Needs Python's standard library only. Every function named test_* runs; a failed one prints why, and the exit code is 1.
"""
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback

BINARY = os.path.abspath(sys.argv[1])
SCRATCH = None


def environment(**more):
    return {**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache", "HF_HOME": SCRATCH + "/hf", **more}


def mixquant(*arguments, code=0, **more):
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, timeout=120, env=environment(**more))
    error = done.stderr.decode()
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, expected {code}: {error}"
    if code:
        assert error.startswith("mixquant: ") and error.count("\n") == 1, f"{arguments}: not one line: {error!r}"
    return done.stdout, error


def model(name, shape="tiny-qwen3", *more):
    path = os.path.join(SCRATCH, name)
    shutil.rmtree(path, ignore_errors=True)
    mixquant("synth", "--shape", shape, *more, "-o", path)
    return path


def run(directory, *more, code=0, **variables):
    return mixquant("run", "-m", directory, "-p", "AB", "-n", 3, "--ignore-eos", *more, code=code, **variables)


def change_json(path, **members):
    with open(path) as f:
        value = json.load(f)
    value.update(members)
    with open(path, "w") as f:
        json.dump(value, f)


def sampling_of(directory, *more):
    return json.loads(run(directory, "--stats", *more)[1].splitlines()[-1])["sampling"]


def test_sampling_is_the_models_where_the_user_gives_none():
    m = model("sampling")
    with open(m + "/generation_config.json", "w") as f:
        json.dump({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}, f)
    got = sampling_of(m)
    assert abs(got["temperature"] - 0.6) < 1e-6 and got["top_k"] == 20 and abs(got["top_p"] - 0.95) < 1e-6, got
    got = sampling_of(m, "--temp", "0.9", "--top-k", "0")
    assert abs(got["temperature"] - 0.9) < 1e-6 and got["top_k"] == 0 and abs(got["top_p"] - 0.95) < 1e-6, got
    assert sampling_of(m, "--temp", "0")["temperature"] == 0
    change_json(m + "/generation_config.json", do_sample=False)
    assert sampling_of(m)["temperature"] == 0


def test_what_is_given_as_a_model():
    m = model("m")
    gguf = SCRATCH + "/model.gguf"
    with open(gguf, "wb") as f:
        f.write(b"GGUF\3\0\0\0")
    for command in ["run", "-p", "x"], ["inspect"], ["quantize", "-o", SCRATCH + "/q"]:
        assert "a GGUF file" in mixquant(*command, "-m", gguf, code=3)[1]
        assert "hf download Some/Model" in mixquant(*command, "-m", "Some/Model", code=3)[1]
        assert f"give {m}" in mixquant(*command, "-m", m + "/model.safetensors", code=2)[1]
    snapshot = SCRATCH + "/hf/hub/models--Some--Model/snapshots/0123"
    shutil.copytree(m, snapshot)
    assert run("Some/Model")[0] == run(m)[0]
    shutil.move(m + "/model.safetensors", m + "/pytorch_model.bin")
    assert "pytorch_model.bin" in run(m, code=3)[1]
    with open(m + "/model.safetensors", "w") as f:
        f.write("version https://git-lfs.example/spec/v1\noid sha256:00\nsize 1\n")
    assert "git lfs pull" in run(m, code=3)[1]
    os.remove(m + "/config.json")
    os.remove(m + "/model.safetensors")
    assert "without config.json" in mixquant("inspect", "-m", m, code=3)[1]


def test_empty_cache_folder():
    m = model("m")
    assert "empty" in run(m, "--cache-dir=", code=2)[1]
    home = SCRATCH + "/home"
    for unset in "", "relative":
        shutil.rmtree(home, ignore_errors=True)
        run(m, XDG_CACHE_HOME=unset, HOME=home)
        assert os.listdir(home + "/.cache/mixquant/packed"), "the default folder"
    assert not os.path.exists("relative")


def test_scaled_context():
    m = model("m", "tiny-llama")
    with open(m + "/config.json") as f:
        own = json.load(f)["max_position_embeddings"]
    assert "expected at most" in run(m, "-c", own + 1, code=2)[1]
    change_json(m + "/config.json", rope_scaling={"rope_type": "yarn", "factor": 4.0,
                                                  "original_max_position_embeddings": own})
    run(m, "-c", 4 * own)
    assert f"at most {4 * own} tokens" in run(m, "-c", 4 * own + 1, code=2)[1]


def test_end_token_of_the_tokenizer():
    m = model("m")
    for prompt in (chr(a) + chr(b) for a in range(65, 91) for b in range(65, 91)):
        answer = mixquant("run", "-m", m, "-p", prompt, "-n", 1, "--ignore-eos")[0]
        if 0x20 < answer[0] < 0x7F:  # a letter of the vocabulary of bytes
            break
    assert 0x20 < answer[0] < 0x7F, answer
    change_json(m + "/tokenizer_config.json", eos_token=chr(answer[0]))
    out, _ = mixquant("run", "-m", m, "-p", prompt, "-n", 3)
    assert out.strip() == b"", out


def test_weights_that_are_no_numbers():
    m = model("m")
    with open(m + "/model.safetensors", "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    begin = 8 + size + header["model.embed_tokens.weight"]["data_offsets"][0]
    width = header["model.embed_tokens.weight"]["shape"][1]
    at = begin + 2 * width * ord("A")
    for value in 0x7fc0, 0xff80:
        with open(m + "/model.safetensors", "wb") as f:
            f.write(data[:at] + struct.pack("<H", value) + data[at + 2:])
        out, error = run(m, code=3)
        assert out == b"" and "finite" in error, (out, error)


def test_processes_that_share_a_cache():
    m = model("m", "qwen3-0.6b", "--layers", 1)
    cache = SCRATCH + "/shared-cache"
    started = [subprocess.Popen([BINARY, "run", "-m", m, "--cache-dir", cache, "-p", "x", "-n", "1", "-t", "1"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(MQ_LOG="1"))
               for _ in range(4)]
    for process in started:
        error = process.communicate(timeout=120)[1].decode()
        assert process.returncode == 0 and "rename" not in error, error
    assert len(os.listdir(cache + "/packed")) == 1, os.listdir(cache + "/packed")


def killed(command, is_unfinished):
    """Starts a command, kills it as soon as it has something unfinished; False when it was too fast."""
    process = subprocess.Popen([BINARY, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment())
    while process.poll() is None:
        if is_unfinished():
            process.send_signal(signal.SIGKILL)
            process.wait()
            return is_unfinished()
        time.sleep(0.0005)
    return False


def test_killed_writers():
    m = model("m", "qwen3-0.6b", "--layers", 2)
    out, cache = SCRATCH + "/out", SCRATCH + "/kill-cache"

    def unfinished(folder, name):
        return os.path.isdir(folder) and any(name in f and ".tmp." in f for f in os.listdir(folder))
    quantize = ["quantize", "-m", m, "-o", out]
    if killed(quantize, lambda: unfinished(SCRATCH, "out")):
        mixquant(*quantize)
        assert not unfinished(SCRATCH, "out"), os.listdir(SCRATCH)
    start = ["run", "-m", m, "--cache-dir", cache, "-p", "x", "-n", "1"]
    if killed(start, lambda: unfinished(cache + "/packed", "mqpack")):
        mixquant(*start)
        assert len(os.listdir(cache + "/packed")) == 1, os.listdir(cache + "/packed")


def main():
    global SCRATCH
    failed = 0
    with tempfile.TemporaryDirectory() as SCRATCH:
        for name, test in list(globals().items()):
            if not name.startswith("test_"):
                continue
            try:
                test()
                print(f"ok       {name}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


main()
