"""Prefill on one host, decode on another: what a hand-off costs, and what it saves. Random weights of a published shape, one core and one
thread a worker. Two network namespaces stand for the hosts; their wire is limited. Needs root, iproute2, taskset and two processors that
nobody else uses. Python's standard library only.

usage: two_hosts.py MIXQUANT [--shape qwen3-0.6b] [--layers N] [--runs 5] [--rates 1gbit,10gbit] [--prompt 4096] [--long 8192] [--only first|pauses]
                    [--links shm,tcp] [--free] [--json FILE]
With --free a worker computes with one thread on any core, so that others are left for the network, as on a host with more cores than one.

    first token   of a prompt: by one process, by two on one host (shared memory, TCP), by two hosts at each rate, in turn
    last chunk    what the KV of the prompt's last pass takes on the wire, at the wire's rate as plain read and write measure it
    hidden        the share of the transfer that took no time: 1 - (first token here - first token of one process) / bytes over rate;
                  counted: the same of the decode worker's counter of transfers after the peer had computed
    pauses        between two tokens of 4 answers of the decode worker: alone, and while it has a long prompt prefilled elsewhere, by each
                  of these ways; and the same of one process that does both
Each answer's first token must be that of one process. Exit code 77: not possible here.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
from hosts import Hosts, Unavailable  # noqa: E402
from workers import Worker, end_workers, prompt, wait_until  # noqa: E402

ANSWERS = 4
CHUNK = 512          # tokens of a pass
WINDOW = 100.0       # seconds of answers without a prompt beside them: about as long as the prompt takes, or rare pauses are missed
HIDDEN_BAR, LAST_CHUNK_BAR, PAUSE_BAR = 0.9, 1.1, 1.3

A = None
seeds = iter(range(1, 1 << 30))


def log(text):
    print(text, file=sys.stderr, flush=True)


# ---------------------------------------------------------------- the model

def make_model(folder):
    """Random weights; a tokenizer in which each token is a word: tokens without a text would make no events."""
    log(f"making {A.shape}")
    command = [A.mixquant, "synth", "--shape", A.shape, "-o", folder] + (["--layers", str(A.layers)] if A.layers else [])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    path = os.path.join(folder, "tokenizer.json")
    with open(path) as f:
        tokenizer = json.load(f)
    special = {token["id"] for token in tokenizer["added_tokens"]}
    vocab = tokenizer["model"]["vocab"]
    for i in range(len(vocab), config["vocab_size"]):
        if i not in special:
            vocab[f"w{i}"] = i
    with open(path, "w") as f:
        json.dump(tokenizer, f)
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return config["num_hidden_layers"] * config["num_key_value_heads"] * head * 4  # bytes of KV a token


# ---------------------------------------------------------------- workers and wires

def pin(core, enter=None):
    return lambda command: [*([] if A.free else ["taskset", "-c", str(core)]), *(enter(command) if enter else command)]


class Stage:
    """All workers, each idle unless it is asked."""

    def __init__(self, model, cache, hosts, kv_token):
        self.model, self.hosts, self.kv_token = model, hosts, kv_token
        kv = (A.prompt + A.long + 4096) * kv_token
        self.common = ["-t", 1, "--chunk", CHUNK, "--draft", "off", "--kv-bytes", kv, "--cache-dir", cache, "--disk-cache", 1, "-c", A.long + 2048]
        self.decode = ["--role", "decode", "--handoff-tokens", CHUNK]
        self.one = self.worker(0, [])
        self.pairs = {}
        for kind in A.links:
            p = self.worker(0, ["--role", "prefill", "--link", kind])
            self.pairs[f"two processes, {kind}"] = (p, self.worker(1, [*self.decode, "--link", kind, "--prefill-peer", f"127.0.0.1:{p.port}"]))
        key = os.path.join(cache, "key")
        with open(key, "w") as f:
            f.write("known to both sides")
        a = hosts.address["a"]
        p = self.worker(0, ["--role", "prefill", "--host", a, "--insecure", "--peer-key-file", key], end="a", host=a)
        d = self.worker(1, [*self.decode, "--prefill-peer", f"{a}:{p.port}", "--peer-key-file", key], end="b")
        self.two = (p, d)
        for p, d in [*self.pairs.values(), self.two]:
            wait_until(lambda: d.metric("prefill_peers_healthy") == 1, 60, "a healthy peer")

    def worker(self, core, options, end=None, host="127.0.0.1"):
        enter = (lambda c: self.hosts.enter(end, c)) if end else None
        dial = (lambda to, timeout: self.hosts.dial(end, to, timeout)) if end else None
        return Worker(A.mixquant, self.model, *self.common, *options, host=host, enter=pin(core, enter), dial=dial)


def wire_rate(hosts):
    """Bytes a second of a plain connection from host a to host b."""
    listener = hosts.listen("b", (hosts.address["b"], 0))
    total, piece, box = A.wire_bytes, bytearray(1 << 20), {}

    def receive():
        s, _ = listener.accept()
        got = 0
        while got < total and (count := s.recv_into(piece)):
            got += count
            if got > total // 4 and "begun" not in box:  # the window is open by then
                box["begun"], box["had"] = time.monotonic(), got
        box["rate"] = (got - box["had"]) / (time.monotonic() - box["begun"])
        s.close()

    thread = threading.Thread(target=receive)
    thread.start()
    with hosts.dial("a", listener.getsockname(), 30) as s:
        data = bytes(1 << 20)
        for _ in range(total >> 20):
            s.sendall(data)
        thread.join()
    listener.close()
    return box["rate"]


# ---------------------------------------------------------------- the first token

def first_token(worker, ids):
    """Seconds, and what must be the same everywhere."""
    answer = worker.ask(ids, 1, timeout=900)
    assert answer.status == 200, answer.body
    return answer, (answer.text, answer.probabilities)


def counted(worker):
    m = worker.metrics()
    return {name: m[f"mixquant:handoff_{name}_total"] for name in ("hidden_seconds", "exposed_seconds", "received_bytes")}


def handed_off(worker, ids, expected):
    """Seconds, and the counters' changes."""
    before = counted(worker)
    answer, got = first_token(worker, ids)
    assert answer.prefill == "remote", (answer.prefill, answer.facts)
    assert got == expected, f"{got}, expected {expected}"
    return answer.seconds, {name: value - before[name] for name, value in counted(worker).items()}


def measure_first_tokens(stage):
    """Samples of each way, each beside one process with the same prompt, all ways in turn: the machine's speed drifts."""
    samples, rates = {"one process": []}, {}
    rows = [(name, pair[1], None) for name, pair in stage.pairs.items()] + [(f"two hosts, {rate}", stage.two[1], rate) for rate in A.rates]
    for run in range(A.runs + 1):  # the first warms up, with a short prompt
        for name, worker, rate in rows:
            if rate:
                stage.hosts.rate(rate)
                if name not in rates:
                    rates[name] = wire_rate(stage.hosts)
            ids = prompt(A.prompt if run else 2 * CHUNK, next(seeds))
            answer, expected = first_token(stage.one, ids)
            seconds, moved = handed_off(worker, ids, expected)
            if run:
                samples["one process"].append({"seconds": answer.seconds})
                samples.setdefault(name, []).append({"seconds": seconds, "beyond": seconds - answer.seconds, **moved})
                log(f"first tokens: {run} of {A.runs}: one process {answer.seconds:.2f} s, {name} {seconds:.2f} s")
    stage.hosts.rate(None)
    return samples, rates


def spread(values):
    values = sorted(values)
    return {"median": statistics.median(values), "least": values[0], "most": values[-1]}


def judge_first_tokens(stage, samples, rates):
    found = {}
    for name, runs in samples.items():
        one = found[name] = {"first_token_s": spread(r["seconds"] for r in runs)}
        if "beyond" in runs[0]:
            one["beyond_one_process_s"] = spread(r["beyond"] for r in runs)
            one["exposed_s"] = spread(r["exposed_seconds"] for r in runs)
            one["bytes"] = runs[0]["received_bytes"]
        if name in rates:
            rate = rates[name]
            last = ((A.prompt - 2) % CHUNK + 1) * stage.kv_token / rate
            one |= {"wire_bytes_per_s": rate, "transfer_s": one["bytes"] / rate, "last_chunk_s": last}
            one["hidden"] = spread(1 - max(0.0, r["beyond"]) / (r["received_bytes"] / rate) for r in runs)
            one["hidden_counted"] = spread(1 - r["exposed_seconds"] / (r["received_bytes"] / rate) for r in runs)
            one["bars"] = {"first token <= one process + 1.1 last chunks": one["beyond_one_process_s"]["median"] <= LAST_CHUNK_BAR * last,
                           "hidden >= 90%": one["hidden"]["median"] >= HIDDEN_BAR}
    return found


# ---------------------------------------------------------------- pauses of running answers

class Reader(threading.Thread):
    """Reads one answer; when each piece of it came."""

    def __init__(self, worker):
        super().__init__(daemon=True)
        self.worker, self.times, self.over, self.error = worker, [], False, None
        self.start()

    def run(self):
        connection = None
        try:
            ids = prompt(64, next(seeds))
            body = {"prompt": ids, "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "stream": True}
            connection, answer = self.worker.request("POST", "/v1/completions", body, timeout=900)
            for line in answer:
                if self.over:
                    break
                if line.startswith(b"data: {") and b'"text":"' in line.replace(b'": "', b'":"'):
                    self.times.append(time.monotonic())
        except Exception as e:
            self.error = e
        finally:
            if connection:
                connection.close()

    def pauses(self, begin, end):
        times = [t for t in self.times if begin <= t <= end]
        return [b - a for a, b in zip(times, times[1:])]


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def pauses_beside_a_prompt(worker, remote):
    """The percentiles of pauses: alone, and beside a long prompt."""
    readers = [Reader(worker) for _ in range(ANSWERS)]
    try:
        wait_until(lambda: all(len(r.times) > 5 for r in readers), 120, "answers")
        begun = time.monotonic()
        time.sleep(WINDOW)
        middle = time.monotonic()
        answer, _ = first_token(worker, prompt(A.long, next(seeds)))
        end = time.monotonic()
        assert answer.prefill == ("remote" if remote else None), (answer.prefill, answer.facts)
        windows = [[p for r in readers for p in r.pauses(*window)] for window in ((begun, middle), (middle, end))]
        assert not any(r.error for r in readers), [r.error for r in readers]
        assert all(r.is_alive() for r in readers), "an answer ended too soon"
    finally:
        for r in readers:
            r.over = True
        for r in readers:
            r.join(60)
    idle, beside = ({"p50": percentile(w, 0.5), "p99": percentile(w, 0.99), "most": max(w), "pauses": len(w)} for w in windows)
    return {"idle": idle, "beside": beside, "prompt_s": end - middle, "ratio": beside["p99"] / idle["p99"]}


def measure_pauses(stage):
    found = {}
    rows = [("one process", stage.one, None)] + [(name, pair[1], None) for name, pair in stage.pairs.items()]
    rows += [(f"two hosts, {rate}", stage.two[1], rate) for rate in A.rates]
    for run in range(A.runs):
        for name, worker, rate in rows:
            stage.hosts.rate(rate)
            one = pauses_beside_a_prompt(worker, worker is not stage.one)
            found.setdefault(name, []).append(one)
            worker.wait_idle(60)
            log(f"pauses: {run + 1} of {A.runs}: {name}: p99 {1000 * one['idle']['p99']:.0f} ms alone, {1000 * one['beside']['p99']:.0f} ms beside a prompt "
                f"of {one['prompt_s']:.0f} s")
    stage.hosts.rate(None)
    return found


def judge_pauses(runs):
    found = {}
    for name, samples in runs.items():
        one = found[name] = {"p99_alone_ms": spread(1000 * s["idle"]["p99"] for s in samples),
                             "p99_beside_ms": spread(1000 * s["beside"]["p99"] for s in samples),
                             "p50_beside_ms": spread(1000 * s["beside"]["p50"] for s in samples),
                             "ratio": spread(s["ratio"] for s in samples), "prompt_s": spread(s["prompt_s"] for s in samples)}
        if name != "one process":
            one["bars"] = {"p99 beside a prompt <= 1.3 times alone": one["ratio"]["median"] <= PAUSE_BAR}
    return found


# ---------------------------------------------------------------- the report

def show(value, unit=1.0, digits=2):
    return f"{unit * value['median']:.{digits}f} ({unit * value['least']:.{digits}f} to {unit * value['most']:.{digits}f})"


def report(found):
    print(f"{A.shape}, {A.layers or 'all'} layers, {found['kv_bytes_per_token']} bytes of KV a token, a thread a worker{'' if A.free else ' on its core'}; "
          f"medians of {A.runs} (least to most)")
    print(f"\nfirst token of {A.prompt} tokens, seconds")
    for name, one in found["first_token"].items():
        print(f"  {name:22} {show(one['first_token_s'])}" + (f"   beyond one process {show(one['beyond_one_process_s'])}, "
              f"after the peer had computed {show(one['exposed_s'], 1, 3)}" if "bytes" in one else ""))
    for name, one in found["first_token"].items():
        if "hidden" in one:
            print(f"  {name:22} wire {one['wire_bytes_per_s'] / 1e6:.0f} MB/s: {one['bytes'] / 1e6:.0f} MB take {one['transfer_s']:.2f} s, the last chunk "
                  f"{one['last_chunk_s']:.2f} s; hidden {show(one['hidden'], 100, 1)}%, counted {show(one['hidden_counted'], 100, 1)}%")
    print(f"\npauses between tokens of {ANSWERS} answers, p99 in ms, alone and beside a prompt of {A.long} tokens")
    for name, one in found["pauses"].items():
        print(f"  {name:22} {show(one['p99_alone_ms'], 1, 1)}   {show(one['p99_beside_ms'], 1, 1)}   ratio {show(one['ratio'])}")
    print()
    for table in ("first_token", "pauses"):
        for name, one in found[table].items():
            for bar, met in one.get("bars", {}).items():
                print(f"  {'met   ' if met else 'MISSED'} {name}: {bar}")


def run(hosts):
    with tempfile.TemporaryDirectory() as folder:
        model, cache = os.path.join(folder, "model"), os.path.join(folder, "cache")
        os.mkdir(cache)
        kv_token = make_model(model)
        well = False
        try:
            hosts.receive_on({"a": 0, "b": 1})
            stage = Stage(model, cache, hosts, kv_token)
            found = {"shape": A.shape, "layers": A.layers, "runs": A.runs, "prompt": A.prompt, "long": A.long, "kv_bytes_per_token": kv_token}
            samples, rates = measure_first_tokens(stage) if not A.only or A.only == "first" else ({}, {})
            found["first_token"] = judge_first_tokens(stage, samples, rates)
            found["pauses"] = judge_pauses(measure_pauses(stage) if not A.only or A.only == "pauses" else {})
            well = True
        finally:
            end_workers(well)
    return found


def main():
    global A
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("--shape", default="qwen3-0.6b")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rates", type=lambda text: text.split(","), default=["1gbit", "10gbit"])
    parser.add_argument("--prompt", type=int, default=4096)
    parser.add_argument("--long", type=int, default=8192)
    parser.add_argument("--links", type=lambda text: [kind for kind in text.split(",") if kind], default=["shm", "tcp"])
    parser.add_argument("--free", action="store_true")
    parser.add_argument("--only", choices=["first", "pauses"])
    parser.add_argument("--json", metavar="FILE")
    A = parser.parse_args()
    A.mixquant, A.wire_bytes = os.path.abspath(A.mixquant), 256 << 20
    if not shutil.which("taskset") or not shutil.which("tc") or (os.cpu_count() or 1) < 2:
        log("two_hosts: expected taskset, tc and two processors, got less")
        return 77
    try:
        with Hosts() as hosts:
            found = run(hosts)
    except Unavailable as e:
        log(f"two_hosts: {e}")
        return 77
    report(found)
    if A.json:
        with open(A.json, "w") as f:
            json.dump(found, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
