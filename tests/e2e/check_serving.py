"""What the server keeps: turns, retries, restarts, side requests, small pools, drains; by its own figures.

usage: check_serving.py MIXQUANT MODEL [--shared DIR] [--only NAME]
Needs Python's standard library only. Every function named test_* runs; a failed one prints why, and the exit code is 1.
The model is copied with a larger context: its answers make no sense beyond its own, its speed and its figures do.
"""
import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

BLOCK = 64
CONTEXT = 16384
SCRATCH = None
MODEL = None
ARGUMENTS = None


class Server:
    """A `mixquant serve` on a free port of loopback."""

    def __init__(self, *options, context=CONTEXT):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = tempfile.TemporaryFile(dir=SCRATCH)
        command = [ARGUMENTS.mixquant, "serve", "-m", MODEL, "--port", str(self.port), "-c", str(context)]
        self.process = subprocess.Popen([*command, *map(str, options)], stdout=self.log, stderr=self.log,
                                        env={**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache"})
        self.wait_ready()

    def wait_ready(self):
        end = time.time() + 120
        while time.time() < end:
            if self.process.poll() is not None:
                break
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError("the server did not come up:\n" + self.text())

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def request(self, method, path, body=None, headers=None, timeout=300):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        return connection, connection.getresponse()

    def get(self, path):
        connection, answer = self.request("GET", path)
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def post(self, path, body, headers=None, status=200):
        connection, answer = self.request("POST", path, body, headers)
        data = answer.read()
        connection.close()
        assert answer.status == status, f"{path}: {answer.status}, expected {status}: {data[:500]!r}"
        return json.loads(data)

    def chat(self, messages, headers=None, **more):
        body = {"messages": messages, "max_tokens": 4, "temperature": 0, **more}
        return self.post("/v1/chat/completions", body, headers)

    def metric(self, name):
        found = re.search(r"^" + re.escape(name) + r"(?:\{[^}]*\})? ([0-9.e+-]+)$", self.get("/metrics")[1], re.M)
        assert found, f"no metric {name}"
        return float(found[1])

    def computed(self):
        return int(self.metric("llamacpp:prompt_tokens_total"))

    def prompt(self, messages, tools=None):
        body = {"messages": messages, **({"tools": tools} if tools else {})}
        text = self.post("/apply-template", body)["prompt"]
        return self.post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"]

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait(60)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if kind:
            sys.stderr.write(self.text()[-3000:])


def words(count, seed):
    """Text of about so many words that no other seed begins like."""
    return " ".join(f"w{(seed * 7919 + i * 104729) % 9973}" for i in range(count))


def synthetic_trajectory(turns=11):
    messages = [{"role": "system", "content": "You answer with the tools at hand. " + words(200, 1)}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn}: " + words(12, 100 + turn)})
        call = {"id": f"c{turn}", "type": "function",
                "function": {"name": "lookup", "arguments": json.dumps({"key": f"k{turn}"})}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": words(40, 200 + turn)})
        messages.append({"role": "assistant", "content": "It is " + words(10, 300 + turn)})
    return messages


TOOLS = [{"type": "function", "function": {
    "name": "lookup", "description": "Looks a key up.",
    "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]}}}]


def recorded_trajectory():
    """The shortest real one with 20 turns or more."""
    found = []
    with open(ARGUMENTS.shared + "/data/eval/tau-bench/gpt-4o-airline.json") as f:
        for record in json.load(f):
            messages = []
            for message in record["traj"]:
                kept = {k: v for k, v in message.items() if k in ("role", "content", "tool_calls", "tool_call_id", "name")}
                messages.append({k: v for k, v in kept.items() if v is not None or k == "content"})
            if sum(m["role"] == "assistant" for m in messages) >= 20:
                found.append(messages)
    return min(found, key=lambda messages: len(json.dumps(messages)))


def same_beginning(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def replay(server, messages, tools=None):
    """Every turn of the assistant's is asked for; returns (turns, tokens computed, tokens of all prompts)."""
    before, turns, computed, total = [], 0, 0, 0
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = server.prompt(messages[:i], tools)
        usage = server.chat(messages[:i], **({"tools": tools} if tools else {}))["usage"]
        assert usage["prompt_tokens"] == len(prompt), (usage, len(prompt))
        ran = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        new = len(prompt) - same_beginning(before, prompt)
        assert turns == 0 or ran <= new + BLOCK, f"turn {turns}: computed {ran} of {len(prompt)} tokens, {new} new"
        before, turns, computed, total = prompt, turns + 1, computed + ran, total + len(prompt)
    return turns, computed, total


def timed_replay(name, messages, tools=None):
    seconds = []
    for options in ([], ["--prefix-cache", "1"]):
        with Server(*options) as server:
            start = time.time()
            if options:
                for i, message in enumerate(messages):
                    if message["role"] == "assistant":
                        server.chat(messages[:i], **({"tools": tools} if tools else {}))
            else:
                turns, computed, total = replay(server, messages, tools)
            seconds.append(time.time() - start)
    print(f"   {name}: {turns} turns, {computed} of {total} prompt tokens computed; "
          f"{seconds[0]:.1f} s, without a cache {seconds[1]:.1f} s")
    assert turns >= 20


def test_a_synthetic_trajectory_reads_what_is_new():
    timed_replay("synthetic", synthetic_trajectory(), TOOLS)


def test_a_recorded_trajectory_reads_what_is_new():
    if not ARGUMENTS.shared:
        print("   skipped: no recorded trajectory here")
        return
    timed_replay("recorded", recorded_trajectory())


def drop_at(server, body, share):
    """Streams until so much of the prompt is read, then hangs up."""
    connection, answer = server.request("POST", "/v1/chat/completions", {**body, "stream": True, "return_progress": True})
    for line in answer:
        progress = json.loads(line[6:]).get("prompt_progress") if line.startswith(b"data: {") else None
        if progress and progress["processed"] >= share * progress["total"]:
            break
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def test_a_client_that_drops_loses_a_chunk_at_most():
    chunk = 512
    body = {"messages": [{"role": "user", "content": words(3000, 5)}], "max_tokens": 4, "temperature": 0}
    with Server("--chunk", chunk) as server:
        total = len(server.prompt(body["messages"]))
        assert total >= 8000, total
        for share in (0.3, 0.6, 0.9):
            drop_at(server, body, share)
        answer = server.post("/v1/chat/completions", body)
        assert server.computed() <= total + 3 * chunk, (server.computed(), total)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0.8 * total
    with Server("--chunk", chunk) as cold:
        assert cold.post("/v1/chat/completions", body)["choices"] == answer["choices"]


def written(folder):
    """The blocks of a KV folder, less what is being written."""
    return [name for name in os.listdir(folder + "/kv") if ".tmp." not in name]


def test_a_restart_hits():
    messages = synthetic_trajectory(6)[:-1]
    folder = SCRATCH + "/kv"
    for how in (signal.SIGTERM, signal.SIGKILL):
        shutil.rmtree(folder, ignore_errors=True)
        with Server("--cache-dir", folder) as server:
            first = server.chat(messages, tools=TOOLS)
            end = time.time() + 60
            while how == signal.SIGKILL and len(written(folder)) < first["usage"]["prompt_tokens"] // BLOCK - 1:
                assert time.time() < end, "blocks are not written"
                time.sleep(0.05)
            code = server.stop(how)
            assert how == signal.SIGKILL or code == 0, code
        with Server("--cache-dir", folder) as server:
            again = server.chat(messages, tools=TOOLS)
        usage = again["usage"]
        assert usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"] <= 2 * BLOCK, usage
        assert again["choices"] == first["choices"]
        assert how == signal.SIGKILL or len(written(folder)) == len(os.listdir(folder + "/kv"))


def test_side_requests_leave_the_session():
    messages = synthetic_trajectory(11)[:-1]
    with Server("--kv-bytes", 6000 * 8 * 4 * 64 * 4) as server:
        total = server.chat(messages)["usage"]["prompt_tokens"]
        for turn in range(6):
            for side in range(4):
                server.post("/v1/messages", {"model": "m", "max_tokens": 4, "messages": [
                    {"role": "user", "content": f"Title {turn} {side}: " + words(250, 1000 + 4 * turn + side)}]},
                    {"x-app": "cli-bg"})
            cached = server.chat(messages)["usage"]["prompt_tokens_details"]["cached_tokens"]
            assert cached >= total - 2 * BLOCK, (turn, cached, total)


def test_a_pool_of_two_serves_three():
    with Server("--kv-bytes", 2 * 2048 * 8 * 4 * 64 * 4, context=2048) as server:
        answers = [None] * 3

        def ask(i):
            body = {"messages": [{"role": "user", "content": words(330, 40 + i)}], "max_tokens": 400,
                    "temperature": 0, "ignore_eos": True}
            answers[i] = server.post("/v1/chat/completions", body)

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(a and a["usage"]["completion_tokens"] == 400 for a in answers), answers


def test_counting_does_not_wait():
    body = {"messages": [{"role": "user", "content": words(3800, 6)}], "max_tokens": 1}
    with Server() as server:
        read = []
        thread = threading.Thread(target=lambda: read.append(server.post("/v1/chat/completions", body)))
        thread.start()
        slowest = 0
        while thread.is_alive():
            start = time.time()
            count = server.post("/v1/messages/count_tokens", {"model": "m", "messages": [
                {"role": "user", "content": "How many?"}]})
            assert count["input_tokens"] > 0
            assert server.get("/health")[0] == 200
            slowest = max(slowest, time.time() - start)
            time.sleep(0.05)
        thread.join()
        assert read and read[0]["usage"]["prompt_tokens"] > 12000
        assert slowest < 1, slowest


def test_equal_answers_alone_and_together():
    bodies = [{"messages": [{"role": "user", "content": words(30 * (i % 9 + 1), 60 + i)}], "max_tokens": 24,
               "temperature": 0.7 * (i % 2), "seed": i, "ignore_eos": True} for i in range(16)]
    with Server("--prefix-cache", 1) as server:
        alone = [server.post("/v1/chat/completions", body)["choices"] for body in bodies]
        together = [None] * len(bodies)

        def ask(i):
            together[i] = server.post("/v1/chat/completions", bodies[i])["choices"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == alone


def test_a_drain_finishes_answers():
    with Server() as server:
        result = {}

        def ask():
            body = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 1500, "ignore_eos": True}
            result["answer"] = server.post("/v1/chat/completions", body)

        thread = threading.Thread(target=ask)
        thread.start()
        while server.metric("llamacpp:requests_processing") < 1:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert result["answer"]["usage"]["completion_tokens"] == 1500
        assert server.process.wait(30) == 0


def copy_model(source):
    path = SCRATCH + "/model"
    shutil.copytree(source, path)
    with open(path + "/config.json") as f:
        config = json.load(f)
    config["max_position_embeddings"] = CONTEXT
    os.chmod(path + "/config.json", 0o644)
    with open(path + "/config.json", "w") as f:
        json.dump(config, f)
    return path


def main():
    global ARGUMENTS, SCRATCH, MODEL
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("--shared", default="")
    parser.add_argument("--only", default="test_")
    ARGUMENTS = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as SCRATCH:
        MODEL = copy_model(ARGUMENTS.model)
        for name, function in list(globals().items()):
            if not name.startswith("test_") or ARGUMENTS.only not in name:
                continue
            start = time.time()
            try:
                function()
                print(f"ok {name} ({time.time() - start:.1f} s)", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED {name}", flush=True)
                traceback.print_exc()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
