"""Prefill and decode workers as clients and routers meet them: roles, peers, vLLM's two steps, llm-d's side-car, HAProxy.

usage: check_handoff.py MIXQUANT MODEL SOURCE [--only NAME] [--haproxy]
Real processes on loopback. The routers are stand-ins that send what the originals send (named where they stand), but HAProxy is the
program itself (--haproxy: only that, and exit code 77 where it is not installed), with SOURCE/contrib/disaggregation/haproxy.cfg.
Every function named case_* runs. Python's standard library only.
"""
import argparse
import contextlib
import http.client
import http.server
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
import uuid

from http_wire import free_port, in_threads, run_cases, words

A = None        # the arguments
SCRATCH = None  # a folder
LONG = 500      # words of a prompt that is worth a hand-off: some 2,000 tokens
seeds = iter(range(1000, 1000000))


# ---------------------------------------------------------------- workers

class Reply:
    def __init__(self, answer):
        self.status, self.headers, self.data = answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        self.prefill = self.headers.get("x-prefill")

    @property
    def json(self):
        return json.loads(self.data)

    @property
    def events(self):
        """The JSON of a stream's events."""
        return [json.loads(line[6:]) for line in self.data.split(b"\n") if line.startswith(b"data: {")]

    @property
    def text(self):
        """What a stream or a whole answer of chat or completions says."""
        assert self.status == 200, (self.status, self.data[:400])
        chunks = self.events if self.headers["content-type"].startswith("text/event-stream") else [self.json]
        texts = []
        for choice in (c["choices"][0] for c in chunks if c.get("choices")):
            texts.append(choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") or "")
        return "".join(texts)

    @property
    def facts(self):
        """timings.prefill, wherever it is."""
        found = [c["timings"]["prefill"] for c in (self.events or [self.json]) if "prefill" in c.get("timings", {})]
        return found[-1]


def ask(port, path, body=None, headers=None, timeout=120):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        data = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json", **(headers or {})})
        return Reply(connection.getresponse())


class Worker:
    """A `mixquant serve`. As `with`, it must end well."""

    def __init__(self, *options, model=None, ready=True):
        self.port, self.log = free_port(), tempfile.TemporaryFile(dir=SCRATCH)
        command = [A.mixquant, "serve", "-m", model or A.model, "--port", self.port, "--attention", "int8", *options]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        env={**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache"})
        if ready:
            wait_for(self.is_ready, 120, "a worker that is up")

    @property
    def name(self):
        return f"127.0.0.1:{self.port}"

    def is_ready(self):
        assert self.process.poll() is None, "the worker did not come up:\n" + self.text()[-3000:]
        with contextlib.suppress(OSError):
            return ask(self.port, "/health", timeout=5).status == 200

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_text(self, text, seconds=20):
        wait_for(lambda: text in self.text(), seconds, f"{text!r} in the log", self.text)

    def metric(self, name):
        found = re.search(r"^" + re.escape(name) + r"(?:\{[^}]*\})? ([0-9.e+-]+)$", ask(self.port, "/metrics").data.decode(), re.M)
        assert found, f"no metric {name}"
        return float(found[1])

    def link(self):
        return ask(self.port, "/internal/link").json

    def wait_healthy(self, count=1):
        wait_for(lambda: self.metric("mixquant:prefill_peers_healthy") == count, 20, f"{count} healthy peers", self.text)

    def chat(self, text, headers=None, **more):
        return ask(self.port, "/v1/chat/completions", chat(text, **more), headers)

    def completions(self, text, headers=None, **more):
        return ask(self.port, "/v1/completions", completion(text, **more), headers)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        killed = self.process.poll() == -signal.SIGKILL
        try:
            code = self.end()
        finally:
            self.process.kill()
            self.process.wait()
        if kind:
            sys.stderr.write(f"---- {self.name}\n{self.text()[-3000:]}")
        assert kind or killed or code == 0, f"exit {code}: {self.text()[-2000:]}"


def wait_for(what, seconds, expected, told=lambda: ""):
    end = time.time() + seconds
    while not (found := what()):
        assert time.time() < end, f"expected {expected} within {seconds} s: {told()[-2000:]}"
        time.sleep(0.02)
    return found


def prefill_worker(*options, **more):
    return Worker("--role", "prefill", *options, **more)


def decode_worker(*peers, options=(), **more):
    named = [option for peer in peers for option in ("--prefill-peer", peer.name)]
    return Worker("--role", "decode", *named, *options, **more)


@contextlib.contextmanager
def pair(*options, of_prefill=()):
    with prefill_worker(*of_prefill) as p, decode_worker(p, options=options) as d:
        d.wait_healthy()
        yield p, d


def fresh(count=LONG):
    """A prompt that no earlier one begins like."""
    return words(count, next(seeds))


def chat(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8, "ignore_eos": True, **more}


def completion(text, **more):
    return {"model": "m", "prompt": text, "temperature": 0, "max_tokens": 8, "ignore_eos": True, **more}


def recurrent_model():
    """A random one: its tokens are bytes."""
    to = SCRATCH + "/recurrent"
    if not os.path.exists(to):
        subprocess.run([A.mixquant, "synth", "tiny-qwen3.5", "-o", to], check=True, capture_output=True)
    return to


alone = None  # one process that does both


def right(reply, path, body):
    """The answer of one process to the same body."""
    plain = {k: v for k, v in body.items() if k not in ("stream", "kv_transfer_params")}
    expected = ask(alone.port, path, plain).text
    assert expected and reply.text == expected, (reply.text, expected)
    return reply


# ---------------------------------------------------------------- roles

def case_one_prefills_and_one_decodes():
    with pair() as (p, d):
        text = fresh()
        body = chat(text)
        reply = right(ask(d.port, "/v1/chat/completions", body), "/v1/chat/completions", body)
        assert reply.prefill == "remote" and reply.facts["where"] == "remote", (reply.prefill, reply.facts)
        assert reply.facts["arrived_n"] == reply.json["usage"]["prompt_tokens"] - 1, reply.facts
        assert reply.json["plan"] == {"prefill": "nvfp4", "decode": "bf16"}
        assert d.metric("llamacpp:prompt_tokens_total") == 0 and p.metric("llamacpp:prompt_tokens_total") > 1000
        assert d.metric("mixquant:handoffs_received_total") == 1 == p.metric("mixquant:handoffs_sent_total")
        again = d.chat(text)  # what came is in the prefix cache
        assert again.text == reply.text and again.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 1000
        assert d.metric("mixquant:handoffs_received_total") == 1
        body = chat(fresh(), stream=True)
        reply = right(ask(d.port, "/v1/chat/completions", body), "/v1/chat/completions", body)
        assert reply.prefill == "remote" == reply.facts["where"]
        d.wait_text("prefilled remote")
        short = d.chat("Hello.")
        assert short.prefill == "local", short.prefill


def case_every_api_says_where():
    bodies = {"/v1/messages": lambda: {**chat(fresh()), "max_tokens": 4},
              "/v1/responses": lambda: {"model": "m", "input": fresh(), "max_output_tokens": 4},
              "/v1/completions": lambda: completion(fresh())}
    with pair() as (p, d):
        for path, body in bodies.items():
            for stream in (False, True):
                reply = ask(d.port, path, {**body(), "stream": stream})
                assert reply.status == 200 and reply.prefill == "remote", (path, stream, reply.prefill, reply.data[:300])


def case_three_workers():
    with prefill_worker() as p1, prefill_worker() as p2, decode_worker(p1, p2) as d:
        d.wait_healthy(2)
        bodies = [chat(fresh()) for _ in range(8)]
        replies = [None] * 8
        in_threads(8, lambda i: replies.__setitem__(i, ask(d.port, "/v1/chat/completions", bodies[i])))
        for reply, body in zip(replies, bodies):
            right(reply, "/v1/chat/completions", body)
        remote = sum(r.prefill == "remote" for r in replies)
        sent = [p.metric("mixquant:handoffs_sent_total") for p in (p1, p2)]
        assert remote >= 4 and sum(sent) >= remote, (remote, sent)
        return f"{remote} of 8 remote, {sent[0]:.0f} and {sent[1]:.0f}"


def case_workers_that_do_both():
    port = free_port()
    with Worker("--link-port", 0) as a, Worker("--link-port", port, "--prefill-peer", a.name) as b:
        b.wait_healthy()
        assert a.link()["link"]["port"] > 0 and b.link()["link"]["port"] == port
        body = chat(fresh())
        reply = right(ask(b.port, "/v1/chat/completions", body), "/v1/chat/completions", body)
        assert reply.prefill == "remote"
        assert a.chat(fresh()).prefill is None  # nobody prefills for it
    with Worker() as plain:
        assert ask(plain.port, "/internal/link").status == 404
        assert plain.chat("Hello.").prefill is None


def case_what_workers_say_of_themselves():
    with pair() as (p, d):
        for worker, role in ((p, "prefill"), (d, "decode")):
            link = worker.link()
            assert link["role"] == role and link["instance"] and link["fingerprint"], link
            assert (link["link"] is None) == (role == "decode")
            assert worker.metric("mixquant:plan_info") == 1 and f'role="{role}"' in ask(worker.port, "/metrics").data.decode()
            model = ask(worker.port, "/v1/models").json["data"][0]
            assert model["role"] == role and model["plan"] == {"prefill": "nvfp4", "decode": "bf16"}, model
            facts = re.search(r'^vllm:cache_config_info\{.*block_size="64",num_gpu_blocks="(\d+)"', ask(worker.port, "/metrics").data.decode(), re.M)
            assert int(facts[1]) > 0
            for gauge in ("num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"):
                assert worker.metric("vllm:" + gauge) == 0, gauge
        assert p.link()["fingerprint"] == d.link()["fingerprint"] and p.link()["instance"] != d.link()["instance"]


def refused(*options):
    result = subprocess.run([A.mixquant, "serve", "-m", A.model, "--port", "0", *map(str, options)], capture_output=True, text=True,
                            timeout=60, env={**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache"})
    assert result.returncode in (2, 3) and result.stderr.count("\n") == 1, (options, result)
    return result.stderr


def case_options_that_do_not_go_together():
    for options, said in (
            (["--role", "router"], "--role: expected both, prefill or decode, got router"),
            (["--role", "prefill", "--prefill-peer", "h:1"], "expected --role decode or both, got prefill"),
            (["--role", "decode", "--link-port", 1], "got decode, which does not listen"),
            (["--link-host", "127.0.0.1", "--prefill-peer", "h:1"], "--link-host: expected --role prefill or --link-port"),
            (["--peer-key-file", "/x"], "--peer-key-file: expected --role, --link-port"),
            (["--role", "decode", "--prefill-peer", "h:1", "--on-transfer-failure", "maybe"], "expected recompute or fail, got maybe"),
            (["--role", "decode", "--prefill-peer", "nowhere"], "expected HOST:PORT"),
            (["--role", "decode", "--prefill-allow", "10.0.0.1/8"], "network: expected one as 10.0.0.0/8"),
            (["--role", "prefill", "--link-host", "0.0.0.0"], "expected a key file or"),
            (["--role", "decode", "--prefill-peer", "h:1", "--link", "carrier-pigeon"], "transport: expected one of")):
        assert said in refused(*options), (options, refused(*options))


def case_a_decode_worker_without_peers():
    with decode_worker() as d:
        d.wait_text("nobody prefills for this server")
        reply = d.chat(fresh(100), {"x-prefiller-host-port": "127.0.0.1:1"})
        assert reply.status == 200 and reply.prefill is None
        assert d.metric("mixquant:handoff_refused_peers_total") == 1


def case_links_of_every_kind():
    kinds = subprocess.run([A.mixquant, "serve", "--role", "prefill", "--link", "x"], capture_output=True, text=True).stderr
    names = re.search(r"expected one of (.*), got", kinds)[1].split(", ")
    assert "tcp" in names and "shm" in names, kinds
    for kind in names:
        with pair(of_prefill=("--link", kind)) as (p, d):
            body = completion(fresh())
            reply = right(ask(d.port, "/v1/completions", body), "/v1/completions", body)
            assert reply.prefill == "remote", (kind, reply.prefill)
    return ", ".join(names)


def case_recurrent_state_travels():
    """A model with Gated DeltaNet, over every link: its state follows its KV."""
    m = recurrent_model()
    kinds = [kind for kind in ("tcp", "shm", "ucx") if kind in refused("--role", "prefill", "--link", "x").split("expected one of")[1]]
    with Worker(model=m) as one:
        for kind in kinds:
            with prefill_worker("--link", kind, model=m) as p, decode_worker(p, options=("--handoff-tokens", 64), model=m) as d:
                d.wait_healthy()
                text = fresh(100)
                for body in (completion(text), completion(text + fresh(40))):
                    reply = ask(d.port, "/v1/completions", body)
                    assert reply.prefill == "remote" and reply.text == ask(one.port, "/v1/completions", body).text, (kind, reply.data)
                assert d.metric("llamacpp:prompt_tokens_total") == 0 and d.metric("mixquant:handoffs_received_total") == 2
                text = fresh(100)  # vLLM's two steps: the lease has a token more than the state that is wanted
                lent = p.completions(text, max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json["kv_transfer_params"]
                reply = d.completions(text, kv_transfer_params=lent)
                assert reply.text == one.completions(text).text and d.metric("mixquant:handoffs_received_total") == 3, (kind, reply.data)
                assert p.metric("mixquant:handoff_send_failures_total") == 0
    return ", ".join(kinds)


def case_a_folder_keeps_recurrent_state():
    m, folder = recurrent_model(), SCRATCH + "/folder"
    body = completion(fresh(120))
    replies = []
    for _ in range(2):
        with Worker("--cache-dir", folder, model=m) as w:
            replies.append(ask(w.port, "/v1/completions", body))
    assert replies[0].text == replies[1].text
    cached = [r.json["usage"]["prompt_tokens_details"]["cached_tokens"] for r in replies]
    assert cached[0] == 0 < cached[1] and cached[1] % 64 == 0, cached


# ---------------------------------------------------------------- who may be named, and whom one believes

def case_a_request_names_its_prefill_worker():
    with prefill_worker() as p1, prefill_worker() as p2, decode_worker(p1, options=("--prefill-allow", "127.0.0.0/8")) as d:
        d.wait_healthy()
        body = chat(fresh())
        reply = right(ask(d.port, "/v1/chat/completions", body, {"x-prefiller-host-port": p2.name}), "/v1/chat/completions", body)
        assert reply.prefill == "remote" and p2.metric("mixquant:handoffs_sent_total") == 1
        assert p1.metric("mixquant:handoffs_sent_total") == 0


def case_a_request_names_somebody_else():
    with socket.socket() as trap, pair() as (p, d):
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.setblocking(False)
        named = f"127.0.0.1:{trap.getsockname()[1]}"
        params = {"do_remote_prefill": True, "do_remote_decode": False, "remote_host": "127.0.0.1",
                  "remote_port": trap.getsockname()[1], "remote_request_id": "x" * 32, "remote_engine_id": "e"}
        bootstrap = {"bootstrap_host": "127.0.0.1", "bootstrap_port": trap.getsockname()[1], "bootstrap_room": 7}
        for headers, more in (({"x-prefiller-host-port": named}, {}), ({}, {"kv_transfer_params": params}), ({}, bootstrap)):
            reply = d.chat(fresh(), headers, **more)
            assert reply.status == 200 and named in reply.facts["reason"], reply.facts
            assert reply.prefill == "remote"  # by the worker of its own list
        assert d.metric("mixquant:handoff_refused_peers_total") == 3
        try:
            trap.accept()
            raise AssertionError("a request made the worker connect to a stranger")
        except BlockingIOError:
            pass


def case_another_model_is_refused():
    other = shutil.copytree(A.model, SCRATCH + "/other-model")
    path = other + "/model.safetensors"
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(-1000, os.SEEK_END)
        byte = f.read(1)
        f.seek(-1000, os.SEEK_END)
        f.write(bytes([byte[0] ^ 1]))
    with prefill_worker(model=other) as p, decode_worker(p) as d:
        d.wait_text("weights: expected the same on both sides, got others")
        assert d.metric("mixquant:prefill_peers_healthy") == 0
        body = chat(fresh())
        reply = right(ask(d.port, "/v1/chat/completions", body), "/v1/chat/completions", body)
        assert reply.prefill == "local" and "weights" in reply.facts["reason"], reply.facts


def case_another_plan_is_refused():
    with prefill_worker("--prefill", "int8") as p, decode_worker(p) as d:
        d.wait_text("plan: expected the same on both sides, got others")
        assert d.chat(fresh()).prefill == "local"


def case_servers_that_do_not_prefill():
    with Worker() as plain, decode_worker(plain) as d:
        d.wait_text(f"hand-off: {plain.name}: expected an answer, got")
        assert d.metric("mixquant:prefill_peers_healthy") == 0
        assert d.chat(fresh()).prefill == "local"


def case_peers_share_a_secret():
    for name, secret in (("key", "a secret of 32 bytes and some more\n"), ("other", "another secret that has 32 bytes, too\n")):
        with open(f"{SCRATCH}/{name}", "w") as f:
            f.write(secret)
    key, other = f"{SCRATCH}/key", f"{SCRATCH}/other"
    with prefill_worker("--link-host", "0.0.0.0", "--peer-key-file", key) as p:
        with decode_worker(p, options=("--peer-key-file", key)) as d:
            d.wait_healthy()
            body = chat(fresh())
            assert right(ask(d.port, "/v1/chat/completions", body), "/v1/chat/completions", body).prefill == "remote"
        for options in (("--peer-key-file", other), ()):
            with decode_worker(p, options=options) as d:
                d.wait_healthy()
                reply = d.chat(fresh())
                assert reply.status == 200 and reply.prefill == "local", reply.prefill
                assert reply.facts["transfer_failures"] >= 1 and reply.facts["reason"], reply.facts
    with prefill_worker("--link-host", "0.0.0.0", "--insecure") as p, decode_worker(p) as d:
        d.wait_healthy()
        assert d.chat(fresh()).prefill == "remote"


# ---------------------------------------------------------------- failures, as clients see them

def case_a_prefill_worker_dies():
    with pair("--handoff-tokens", 64, "--handoff-timeout", 2) as (p, d):
        d.chat(fresh())
        p.process.send_signal(signal.SIGSTOP)  # it has taken the prompt, and says nothing
        bodies = [chat(fresh()), chat(fresh(), stream=True)]
        replies = [None] * 2
        thread = threading.Thread(target=in_threads, args=(2, lambda i: replies.__setitem__(
            i, ask(d.port, "/v1/chat/completions", bodies[i]))))
        thread.start()
        wait_for(lambda: d.metric("mixquant:requests_arriving") == 2, 20, "two arrivals")
        p.kill()
        thread.join()
        for reply, body in zip(replies, bodies):
            right(reply, "/v1/chat/completions", body)
            assert reply.facts["where"] == "local" and reply.facts["transfer_failures"] >= 1 and reply.facts["reason"], reply.facts
            assert reply.prefill == "local", reply.prefill
        assert d.metric("mixquant:transfers_failed_total") >= 2
        wait_for(lambda: d.metric("mixquant:prefill_peers_healthy") == 0, 20, "no healthy peer")


def case_a_failed_transfer_fails_the_request():
    with pair("--handoff-tokens", 64, "--handoff-timeout", 2, "--on-transfer-failure", "fail") as (p, d):
        assert d.chat(fresh()).prefill == "remote"
        p.process.send_signal(signal.SIGSTOP)
        for stream in (False, True):
            reply = d.chat(fresh(), stream=stream)
            assert reply.status == 503, (reply.status, reply.data[:300])
            assert reply.json["error"]["code"] == "kv_transfer_failed", reply.json
            assert int(reply.headers["retry-after"]) > 0
        message = ask(d.port, "/v1/messages", {**chat(fresh()), "max_tokens": 4})
        assert message.status in (503, 529) and message.json["type"] == "error", (message.status, message.data)
        p.kill()
        wait_for(lambda: d.metric("mixquant:prefill_peers_healthy") == 0, 20, "no healthy peer")
        assert d.chat(fresh()).json["error"]["code"] == "kv_transfer_failed"  # nobody is there to prefill it
        assert d.chat("Hello.").status == 200  # too short to be handed off


def case_a_stream_that_waits_begins_after_ten_seconds():
    with pair("--handoff-tokens", 64, "--handoff-timeout", 25) as (p, d):
        d.chat(fresh())
        p.process.send_signal(signal.SIGSTOP)
        begun = time.time()
        connection = http.client.HTTPConnection("127.0.0.1", d.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps(chat(fresh(), stream=True)))
        answer = connection.getresponse()
        took = time.time() - begun
        assert 9 < took < 14, took
        assert answer.headers["x-prefill"] == "remote"  # still under way there
        p.process.send_signal(signal.SIGCONT)
        assert b"[DONE]" in answer.read()
        connection.close()


def case_a_drain_says_so():
    with pair() as (p, d):
        p.process.send_signal(signal.SIGTERM)
        wait_for(lambda: d.metric("mixquant:prefill_peers_healthy") == 0, 20, "no healthy peer")
        assert p.process.wait(30) == 0
        assert d.chat(fresh()).prefill == "local"


# ---------------------------------------------------------------- routers

class Router(http.server.BaseHTTPRequestHandler):
    """What stands before two workers; `server.legs` asks them and returns the connection whose answer goes back."""
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("content-length", "host", "transfer-encoding", "connection")}
        try:
            connection, answer = self.server.legs(self.path, body, headers)
        except Refused as e:
            self.send_response(e.reply.status)
            self.send_header("Content-Length", len(e.reply.data))
            self.end_headers()
            self.wfile.write(e.reply.data)
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        while some := answer.read1(65536):
            self.wfile.write(some)
        connection.close()
        self.close_connection = True

    def log_message(self, *arguments):
        pass


class Refused(Exception):
    def __init__(self, reply):
        self.reply = reply


@contextlib.contextmanager
def router(legs):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Router)
    server.legs = legs
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def begin(port, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
    return connection, connection.getresponse()


def toy_proxy(p, d, seen):
    """vLLM's tests/v1/kv_connector/nixl_integration/toy_proxy_server.py, which Mix-Quant's scripts start: the prompt goes to the prefill
    worker with max_tokens 1, and its kv_transfer_params to the decode worker."""
    def legs(path, body, _):
        headers = {"Authorization": "Bearer None", "X-Request-Id": str(uuid.uuid4())}
        first = {**body, "stream": False, "max_tokens": 1, "kv_transfer_params": {
            "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
            "remote_host": None, "remote_port": None}}
        if "max_completion_tokens" in first:
            first["max_completion_tokens"] = 1
        for name in ("stream_options", "min_tokens", "min_completion_tokens"):
            first.pop(name, None)
        reply = ask(p.port, path, first, headers)
        if reply.status >= 400:
            raise Refused(reply)
        params = reply.json.get("kv_transfer_params", {})
        seen.append(params)
        if params:
            body = {**body, "kv_transfer_params": params}
        return begin(d.port, path, body, headers)
    return legs


def nixl_side_car(p, d, seen):
    """llm-d-router's pkg/sidecar/proxy/connector_nixlv2.go: as above, with the client's headers, and min_tokens beside max_tokens."""
    def legs(path, body, headers):
        assert headers.pop("x-prefiller-host-port") == p.name
        headers = {**headers, "x-request-id": str(uuid.uuid1())}
        limits = ("max_output_tokens",) if path.endswith("/responses") else ("max_tokens", "max_completion_tokens", "min_tokens")
        first = {**body, **{name: 1 for name in limits}, "stream": False, "kv_transfer_params": {
            "do_remote_decode": True, "do_remote_prefill": False, "remote_engine_id": None, "remote_block_ids": None,
            "remote_host": None, "remote_port": None}}
        first.pop("stream_options", None)
        reply = ask(p.port, path, first, headers)
        if reply.status >= 400:
            raise Refused(reply)
        params = reply.json.get("kv_transfer_params")
        seen.append(params)
        return begin(d.port, path, {**body, "kv_transfer_params": params}, headers)
    return legs


def sglang_side_car(p, d, seen, port):
    """llm-d-router's pkg/sidecar/proxy/connector_sglang.go: both workers have one body at once, the prefill worker's answer is dropped."""
    def legs(path, body, headers):
        host = headers.pop("x-prefiller-host-port").rsplit(":", 1)[0]
        both = {**body, "bootstrap_host": host, "bootstrap_port": port, "bootstrap_room": time.time_ns()}
        thread = threading.Thread(target=lambda: seen.append(ask(p.port, path, both, headers)))
        thread.start()
        made = begin(d.port, path, both, headers)
        thread.join()
        return made
    return legs


def check_lease(params, p):
    assert params["do_remote_prefill"] is True and params["do_remote_decode"] is False, params
    assert params["remote_engine_id"] == p.link()["instance"] and params["remote_port"] == p.link()["link"]["port"]
    assert len(params["remote_request_id"]) == 32 and params["remote_host"] == "127.0.0.1", params
    assert params["remote_num_tokens"] > 500 and params["remote_blocks_expiry_time"] > time.time() + 5, params
    assert params["tp_size"] == 1 and params["transfer_mode"] == "pull" and isinstance(params["remote_block_ids"], list), params


def two_endpoints(port, headers=None, more=None):
    """Whole answers and streams of both endpoints by way of a router; yields (reply, body)."""
    for path, make in (("/v1/completions", completion), ("/v1/chat/completions", chat)):
        for stream in (False, True):
            body = make(fresh(), stream=stream, **(more or {}))
            if stream:
                body["stream_options"] = {"include_usage": True}
            reply = ask(port, path, body, headers)
            body.pop("stream_options", None)
            yield right(reply, path, body)


def case_vllms_proxy():
    seen = []
    with prefill_worker("--link-host", "0.0.0.0", "--insecure") as p:
        with decode_worker(options=("--prefill-allow", "127.0.0.1")) as d, router(toy_proxy(p, d, seen)) as port:
            for i, reply in enumerate(two_endpoints(port, more={"max_tokens": 8, "min_tokens": 2})):
                assert reply.prefill == "remote" == reply.facts["where"], (i, reply.facts)
                check_lease(seen[i], p)
            assert p.metric("mixquant:handoff_leases_total") == 4 == p.metric("mixquant:handoffs_sent_total")
            wait_for(lambda: p.metric("mixquant:handoff_leased") == 0 == p.metric("mixquant:requests_held"), 10, "no lease")
            assert d.metric("llamacpp:prompt_tokens_total") == 0
            assert p.metric("mixquant:handoff_leases_expired_total") == 0


def case_mix_quants_evaluation():
    """evaluation/reasoning/evaluate_mix.py of the paper's repository: sampled answers with a seed, eight at once. By measured speeds a worker
    may keep one of eight for itself: here none."""
    with pair("--handoff-tokens", 64) as (p, d), router(toy_proxy(p, d, [])) as port:
        bodies = [{"model": "m", "prompt": fresh(), "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 12, "seed": 42,
                   "stream": False} for _ in range(8)]
        replies = [None] * 8
        in_threads(8, lambda i: replies.__setitem__(i, ask(port, "/v1/completions", bodies[i])))
        for reply, body in zip(replies, bodies):
            right(reply, "/v1/completions", body)
            assert reply.json["usage"]["completion_tokens"] > 0
        assert sum(r.prefill == "remote" for r in replies) == 8


def case_two_steps_with_strangers():
    """Whatever the first step brings, the answer is right: a lease that is not there, of another prompt, of a worker that is gone."""
    with pair("--prefill-allow", "127.0.0.1") as (p, d):
        lend = {"do_remote_decode": True}
        first = p.completions(fresh(), max_tokens=1, kv_transfer_params=lend).json["kv_transfer_params"]
        for params in ({**first, "remote_request_id": "0" * 32}, {**first, "remote_request_id": "not-ours-at-all"},
                       first, {**first, "remote_port": free_port()}):
            body = completion(fresh(), kv_transfer_params=params)
            right(ask(d.port, "/v1/completions", body), "/v1/completions", body)


def case_a_lease_runs_out():
    with pair("--prefill-allow", "127.0.0.1", of_prefill=("--handoff-lease", 2)) as (p, d):
        text = fresh()
        params = p.completions(text, max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json["kv_transfer_params"]
        assert p.metric("mixquant:handoff_leased") == 1
        wait_for(lambda: p.metric("mixquant:handoff_leases_expired_total") == 1, 20, "a lease that has run out")
        wait_for(lambda: p.metric("mixquant:requests_held") == 0, 5, "nothing that is held")
        body = completion(text, kv_transfer_params=params)
        right(ask(d.port, "/v1/completions", body), "/v1/completions", body)


def case_a_drain_waits_for_who_fetches():
    with prefill_worker() as p, decode_worker(options=("--prefill-allow", "127.0.0.1")) as d:
        text = fresh()
        params = p.completions(text, max_tokens=1, kv_transfer_params={"do_remote_decode": True}).json["kv_transfer_params"]
        p.process.send_signal(signal.SIGTERM)
        p.wait_text("draining")
        body = completion(text, kv_transfer_params=params)
        assert right(ask(d.port, "/v1/completions", body), "/v1/completions", body).prefill == "remote"
        assert p.process.wait(20) == 0  # sooner than the lease


def case_the_side_car_in_two_steps():
    seen = []
    with pair() as (p, d), router(nixl_side_car(p, d, seen)) as port:
        for i, reply in enumerate(two_endpoints(port, {"x-prefiller-host-port": p.name})):
            assert reply.prefill == "remote", reply.facts
            check_lease(seen[i], p)
        for path, body in (("/v1/messages", {**chat(fresh()), "max_tokens": 4}),
                           ("/v1/responses", {"model": "m", "input": fresh(), "max_output_tokens": 4})):
            reply = ask(port, path, body, {"x-prefiller-host-port": p.name})
            assert reply.status == 200 and reply.prefill == "remote", (path, reply.data[:300])
            check_lease(seen[-1], p)
        refusal = ask(port, "/v1/chat/completions", {"messages": []}, {"x-prefiller-host-port": p.name})
        assert refusal.status == 400, refusal.data
        wait_for(lambda: p.metric("mixquant:handoff_leased") == 0, 10, "no lease")


def case_the_side_car_with_two_legs_at_once():
    seen, link = [], free_port()
    with pair("--prefill-allow", "127.0.0.1", of_prefill=("--link-port", link)) as (p, d):
        with router(sglang_side_car(p, d, seen, link)) as port:
            for reply in two_endpoints(port, {"x-prefiller-host-port": p.name}):
                assert reply.prefill == "remote", reply.facts
            assert len(seen) == 4 and all(leg.status == 200 for leg in seen), [leg.status for leg in seen]
            asked = p.metric("llamacpp:prompt_tokens_total")
            sent = p.metric("mixquant:handoff_sent_tokens_total")
            assert asked <= sent + 4, (asked, sent)  # the first leg computes nothing twice


# ---------------------------------------------------------------- HAProxy

def haproxy_config(port, *workers):
    """The file that is shipped, on loopback: without TLS, with these workers."""
    with open(A.source + "/contrib/disaggregation/haproxy.cfg") as f:
        text = f.read()
    text, binds = re.subn(r"^( *)bind .*$", rf"\1bind 127.0.0.1:{port}", text, flags=re.M)
    text, lines = re.subn(r"^ *server .*\n", "", text, flags=re.M)
    assert binds == 1 and lines >= 2, (binds, lines)
    text = text.replace("llm.example", "127.0.0.1").replace("stdout format raw local0", "stderr format raw local0")
    return text + "".join(f"    server d{i} {worker.name}\n" for i, worker in enumerate(workers))


@contextlib.contextmanager
def haproxy(*workers):
    port, path = free_port(), SCRATCH + "/haproxy.cfg"
    with open(path, "w") as f:
        f.write(haproxy_config(port, *workers))
    with tempfile.TemporaryFile(dir=SCRATCH) as log:
        process = subprocess.Popen([A.program, "-db", "-f", path], stdout=log, stderr=log)

        def text():
            log.seek(0)
            return log.read().decode(errors="replace")
        try:
            wait_for(lambda: ask_or_none(port), 20, "a proxy that is up", text)
            yield port
        except BaseException:
            sys.stderr.write(text()[-3000:])
            raise
        finally:
            process.terminate()
            process.wait(20)


def ask_or_none(port):
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, "/health", timeout=5).status == 200


def by_session(worker):
    """Which sessions a worker has answered: {session: requests}."""
    found = {}
    for session in re.findall(r" status 200, session (\S+),", worker.text()):
        found[session] = found.get(session, 0) + 1
    return found


def proxy_sessions_stay():
    with prefill_worker() as p, decode_worker(p) as d1, decode_worker(p) as d2, haproxy(d1, d2) as port:
        d1.wait_healthy()
        d2.wait_healthy()
        names = ("x-claude-code-session-id", "x-session-id", "session-id")
        for i in range(12):
            body = chat(fresh(200))
            for _ in range(2):
                reply = right(ask(port, "/v1/chat/completions", body, {names[i % 3]: f"s{i}"}), "/v1/chat/completions", body)
                assert reply.prefill in ("remote", "local"), reply.headers
        first, second = by_session(d1), by_session(d2)
        assert not set(first) & set(second) and len(first) + len(second) == 12, (first, second)
        assert all(n == 2 for n in (*first.values(), *second.values())) and first and second, (first, second)
        assert p.metric("mixquant:handoffs_sent_total") >= 6
        return f"{len(first)} and {len(second)} of 12 sessions"


def proxy_keeps_what_is_inside():
    with prefill_worker() as p, decode_worker(p) as d, haproxy(d) as port:
        d.wait_healthy()
        for path in ("/metrics", "/internal/link"):
            assert ask(port, path).status == 404, path
        reply = ask(port, "/v1/chat/completions", chat(fresh()), {"x-prefiller-host-port": "169.254.169.254:80"})
        assert reply.status == 200 and reply.prefill == "remote"
        assert d.metric("mixquant:handoff_refused_peers_total") == 0


def proxy_asks_another_worker():
    """A decode worker dies while its answer has not begun: the client sees a longer wait."""
    options = ("--handoff-tokens", 64, "--handoff-timeout", 60)
    with prefill_worker() as p, decode_worker(p, options=options) as d1, decode_worker(p, options=options) as d2, haproxy(d1, d2) as port:
        d1.wait_healthy()
        d2.wait_healthy()
        for stream in (False, True):
            body, reply = chat(fresh(1000), stream=stream), []
            p.process.send_signal(signal.SIGSTOP)
            thread = threading.Thread(target=lambda: reply.append(ask(port, "/v1/chat/completions", body, {"session-id": f"dies-{stream}"})))
            thread.start()
            running = wait_for(lambda: [d for d in (d1, d2) if d.process.poll() is None and d.metric("mixquant:requests_arriving")], 20,
                               "a request that runs")
            if len([d for d in (d1, d2) if d.process.poll() is None]) == 2:
                running[0].kill()
            p.process.send_signal(signal.SIGCONT)
            thread.join(60)
            assert reply and right(reply[0], "/v1/chat/completions", body).prefill in ("remote", "local")
        assert sorted((d1.process.poll() is None, d2.process.poll() is None)) == [False, True]


def proxy_goes_round_a_worker_that_drains():
    with decode_worker() as d1, decode_worker() as d2, haproxy(d1, d2) as port:
        sessions = {f"s{i}" for i in range(8)}
        for session in sessions:
            assert ask(port, "/v1/chat/completions", chat("Hello."), {"session-id": session}).status == 200
        d1.end()
        for session in sessions:
            assert ask(port, "/v1/chat/completions", chat("Hello again."), {"session-id": session}).status == 200
        assert set(by_session(d2)) == sessions


def main():
    global A, SCRATCH, alone
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("source")
    parser.add_argument("--only", default="")
    parser.add_argument("--haproxy", action="store_true")
    A = parser.parse_args()
    A.program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
    if A.haproxy and not A.program:
        print("skipped: haproxy is not installed")
        return 77
    with tempfile.TemporaryDirectory() as SCRATCH:
        with Worker() as alone:
            return bool(run_cases(globals(), "proxy_" if A.haproxy else "case_", A.only))


if __name__ == "__main__":
    sys.exit(main())
