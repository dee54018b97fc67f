"""Prefill and decode workers of one's own, as processes: what the checks of hand-offs share. Python's standard library only.

A prompt is a list of token ids that no other seed begins like. An answer is compared by its text and by the log-probabilities of its
tokens, which show a single wrong number in its KV.
"""
import contextlib
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

BLOCK = 64
SLOW = float(os.environ.get("MQ_TEST_SLOW", 1))  # how much more time things may take: sanitizers

started = []  # workers that end_workers ends


def free_port():
    """One that nobody gets by chance while its worker restarts: below those that connections come from."""
    while True:
        port = random.randrange(15000, 32000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def prompt(tokens, seed):
    """[300, 1300): in every vocabulary here, and no special token of it."""
    rng = random.Random(seed)
    return [rng.randrange(300, 1300) for _ in range(tokens)]


def wait_until(what, seconds, expected="it"):
    """The first true value of what()."""
    end = time.monotonic() + seconds * SLOW
    while not (found := what()):
        assert time.monotonic() < end, f"expected {expected} within {seconds * SLOW:.0f} s"
        time.sleep(0.02)
    return found


class Answer:
    def __init__(self, status, headers, data, seconds):
        self.status, self.headers, self.seconds = status, {k.lower(): v for k, v in headers}, seconds
        self.body = json.loads(data) if data else {}
        self.prefill = self.headers.get("x-prefill")
        self.text = self.probabilities = None
        if status == 200:
            choice = self.body["choices"][0]
            self.text, self.probabilities = choice["text"], (choice.get("logprobs") or {}).get("token_logprobs")

    @property
    def facts(self):
        """timings.prefill"""
        return self.body.get("timings", {}).get("prefill", {})

    @property
    def message(self):
        return self.body.get("error", {}).get("message", "")

    def is_as(self, other):
        assert self.status == 200, (self.status, self.body)
        assert (self.text, self.probabilities) == (other.text, other.probabilities), f"{self.text!r}, expected {other.text!r}: wrong KV"
        return self


def ask_body(ids, tokens=6, **more):
    return {"prompt": ids, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "logprobs": 1, **more}


class Worker:
    """A `mixquant serve`. `enter` wraps its command line, `dial` connects to it, where it runs on another host."""

    def __init__(self, binary, model, *options, port=None, host="127.0.0.1", enter=None, dial=None, environment=None, group=started):
        self.host, self.port, self.dial = host, port or free_port(), dial
        command = [binary, "serve", "-m", model, "--port", self.port, *options]
        self.command = [str(c) for c in (enter(command) if enter else command)]
        self.environment, self.logs, self.process = environment or {}, [], None
        group.append(self)
        self.start()

    # ---- life

    def start(self, ready=True):
        self.logs.append(tempfile.TemporaryFile())
        asan = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8:allocator_release_to_os_interval_ms=500"
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.logs[-1], stderr=self.logs[-1],
                                        env={**os.environ, "ASAN_OPTIONS": asan, **self.environment})
        if ready:
            self.wait_ready()

    def wait_ready(self):
        def is_ready():
            assert self.process.poll() is None, "the worker did not come up:\n" + self.log()[-3000:]
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.get("/health", 5)[0] == 200
        wait_until(is_ready, 120, "a worker that is up")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """As a host that dies; may be called from any thread."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)

    def restart(self):
        """On the same address."""
        self.kill()
        self.process.wait()
        self.start()

    def end(self):
        """Ends it well, if it runs."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            code = self.process.wait(60 * SLOW)
            assert code == 0, f"exit {code}:\n{self.log()[-3000:]}"
        self.check_log()

    def check_log(self):
        complaints = re.findall(r".*(?:Sanitizer|runtime error|Assertion).*", self.log())
        assert not complaints, complaints[:5]

    def log(self):
        texts = []
        for log in self.logs:
            log.seek(0)
            texts.append(log.read().decode(errors="replace"))
        return "".join(texts)

    def wait_log(self, pattern, seconds=10):
        return wait_until(lambda: re.search(pattern, self.log()), seconds, f"{pattern!r} in the log")

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) << 10

    def handles(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self):
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    # ---- HTTP

    def connect(self, timeout):
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        connection.sock = self.dial((self.host, self.port), timeout) if self.dial else None
        return connection

    def request(self, method, path, body=None, headers=None, timeout=60):
        connection = self.connect(timeout * SLOW)
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        return connection, connection.getresponse()

    def get(self, path, timeout=20):
        connection, answer = self.request("GET", path, timeout=timeout)
        with contextlib.closing(connection):
            return answer.status, answer.read().decode()

    def ask(self, ids, tokens=6, headers=None, timeout=60, **more):
        begun = time.monotonic()
        connection, answer = self.request("POST", "/v1/completions", ask_body(ids, tokens, **more), headers, timeout)
        with contextlib.closing(connection):
            data = answer.read()
        return Answer(answer.status, answer.getheaders(), data, time.monotonic() - begun)

    def stream(self, ids, tokens=6, timeout=60, **more):
        """The connection, and the answer whose events are to be read."""
        return self.request("POST", "/v1/completions", ask_body(ids, tokens, stream=True, **more), timeout=timeout)

    def leave(self, ids):
        """A client that is gone as soon as its request is sent; returns what ends the connection."""
        s = self.connect(60)
        s.request("POST", "/v1/completions", json.dumps(ask_body(ids)), {"Content-Type": "application/json"})
        return s.close

    def metrics(self):
        status, text = self.get("/metrics")
        assert status == 200, status
        return {name: float(value) for name, value in re.findall(r"^([A-Za-z_:]+)(?:\{model_name=\"[^\"]*\"\})? ([0-9.e+-]+)$", text, re.M)}

    def metric(self, name):
        return self.metrics()["mixquant:" + name]

    def wait_idle(self, seconds=20):
        """Nothing runs, is sent, received or kept, and nothing but the prefix cache holds blocks."""
        m = {}

        def is_idle():
            m.update(self.metrics())
            busy = sum(m.get(name, 0) for name in ("llamacpp:requests_processing", "llamacpp:requests_deferred", "mixquant:requests_held",
                                            "mixquant:requests_arriving", "mixquant:handoffs_sending", "mixquant:handoffs_receiving"))
            return not busy and m["mixquant:kv_blocks_free"] + m["mixquant:kv_blocks_cached"] >= m["mixquant:kv_blocks"]
        try:
            wait_until(is_idle, seconds)
        except AssertionError:
            raise AssertionError(f"not idle: {m}") from None
        return m


class Moved:
    """How counters changed: `with Moved(worker) as moved: ...; moved["handoffs_received_total"]`."""

    def __init__(self, worker):
        self.worker = worker

    def __enter__(self):
        self.before = self.worker.metrics()
        return self

    def __exit__(self, *_):
        pass

    def __getitem__(self, name):
        return self.worker.metric(name) - self.before["mixquant:" + name]

    def wait(self, name, least=1, seconds=10):
        return wait_until(lambda: self[name] >= least and self[name], seconds, f"{name} to move by {least}")


def end_workers(well=True, group=started):
    """Ends all that were started, the latest first; what went on before is shown where it did not go well."""
    failure = None
    while group:
        worker = group.pop()
        try:
            if well:
                worker.end()
        except Exception as e:
            failure = failure or e
        finally:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
            if not well:
                sys.stderr.write(f"---- {worker.command[-6:]}\n{worker.log()[-2500:]}\n")
            for log in worker.logs:
                log.close()
    if failure:
        raise failure
