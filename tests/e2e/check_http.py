"""A server as attackers, broken clients and bad networks meet it: raw sockets, on loopback only.

usage: check_http.py HOST:PORT [--key KEY] [--header-seconds 10] [--body-seconds 60] ...   a server that runs already
       check_http.py --serve MIXQUANT MODEL ...                                           one of its own, with short limits
Needs Python's standard library only. Every function named case_* runs and prints a line; a failed one says why, and the exit code is 1.
Everything is bounded in time. --malformed, --disconnects and --seconds say how much of what is random is tried.
"""
import argparse
import contextlib
import gzip
import ipaddress
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

A = None  # the arguments


# ---------------------------------------------------------------- sockets

def connect(timeout=10):
    s = socket.create_connection((A.host, A.port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def head(method, path, headers=(), length=None, host="localhost"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if A.key:
        lines.append(f"Authorization: Bearer {A.key}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def post(path, body, headers=(), **more):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head("POST", path, headers, len(data), **more) + data


def send(s, data):
    """False: the server hung up meanwhile."""
    try:
        s.sendall(data)
        return True
    except OSError:
        return False


def receive_all(s, seconds):
    """What comes until the connection ends; the second value says whether it did within so many seconds."""
    end, got = time.time() + seconds, b""
    while (left := end - time.time()) > 0:
        s.settimeout(left)
        try:
            some = s.recv(65536)
        except socket.timeout:
            return got, False
        except OSError:
            return got, True
        if not some:
            return got, True
        got += some
    return got, False


class Reader:
    """Answers of one connection, one after another."""

    def __init__(self, s, seconds=60):
        self.s, self.rest = s, b""
        s.settimeout(seconds)

    def more(self):
        some = self.s.recv(65536)
        if not some:
            raise EOFError
        self.rest += some

    def until(self, mark):
        while (at := self.rest.find(mark)) < 0:
            self.more()
        found, self.rest = self.rest[:at], self.rest[at + len(mark):]
        return found

    def take(self, count):
        while len(self.rest) < count:
            self.more()
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    def chunks(self):
        while (size := int(self.until(b"\r\n"), 16)):
            yield self.take(size)
            assert self.take(2) == b"\r\n"
        self.until(b"\r\n")

    def answer(self, has_body=True):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}
        if not has_body:
            return status, headers, b""
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, b"".join(self.chunks())
        return status, headers, self.take(int(headers["content-length"]))


def ask(data, seconds=60, has_body=True):
    with connect(seconds) as s:
        send(s, data)
        return Reader(s, seconds).answer(has_body)


def status_of(data):
    found = re.match(rb"HTTP/1\.1 (\d+) ", data)
    return int(found[1]) if found else 0


# ---------------------------------------------------------------- what the server says of itself

def metric(name):
    status, _, body = ask(head("GET", "/metrics"))
    assert status == 200, status
    found = re.search(rb"^" + re.escape(name.encode()) + rb"(?:\{[^}]*\})? ([0-9.e+-]+)$", body, re.M)
    assert found, f"no metric {name}"
    return float(found[1])


def wait_idle(seconds=30):
    """No slot is stuck."""
    end = time.time() + seconds
    while True:
        busy = metric("llamacpp:requests_processing") + metric("llamacpp:requests_deferred")
        if busy == 0:
            return
        assert time.time() < end, f"{busy} requests still run"
        time.sleep(0.05)


def check_healthy(within=2):
    begun = time.time()
    status, _, body = ask(head("GET", "/health"), 10)
    assert status == 200, (status, body)
    assert time.time() - begun < within, f"/health took {time.time() - begun:.1f} s"


def check_answers():
    status, _, body = ask(post("/v1/chat/completions", chat("Hello.", max_tokens=2)))
    assert status == 200, (status, body)
    assert json.loads(body)["choices"], body


def context():
    return json.loads(ask(head("GET", "/v1/models"))[2])["data"][0]["max_model_len"]


def words(count, seed):
    return " ".join(f"w{(seed * 7919 + i * 104729) % 9973}" for i in range(count))


def chat(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def long_chat(seed, **more):
    """A prompt of about half the context."""
    return chat(words(max(16, min(A.context // 8, 700)), seed), **more)


# ---------------------------------------------------------------- requests that are none

H = b"Host: localhost\r\n"
ATTACKS = [  # name, bytes, statuses (0: closed without an answer)
    ("length and encoding", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    ("encoding and length", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", {400}),
    ("two lengths", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", {400}),
    ("two equal lengths", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", {400}),
    ("a list of lengths", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 2, 2\r\n\r\n{}", {400}),
    ("xchunked", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", {400}),
    ("chunked, identity", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", {400}),
    ("two encodings", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", {400}),
    ("an encoding in HTTP/1.0", b"POST /tokenize HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    ("a blank before the colon", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length : 2\r\n\r\n{}", {400}),
    ("line feeds alone", b"GET /health HTTP/1.1\nHost: localhost\n\n", {400}),
    ("one line feed alone", b"GET /health HTTP/1.1\r\nHost: localhost\nX-A: 1\r\n\r\n", {400}),
    ("a line that continues", b"GET /health HTTP/1.1\r\n" + H + b"X-A: 1\r\n 2\r\n\r\n", {400}),
    ("length -5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: -5\r\n\r\n", {400}),
    ("length +5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\n{   }", {400}),
    ("length 2^64+5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 18446744073709551621\r\n\r\n{   }", {400, 413}),
    ("length 0x5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\n{   }", {400}),
    ("a chunk of 2^64+5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\n{   }\r\n0\r\n\r\n", {400, 413}),
    ("a chunk of -5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n{   }\r\n0\r\n\r\n", {400}),
    ("a chunk of 0x5", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n{   }\r\n0\r\n\r\n", {400}),
    ("NUL in a value", b"GET /health HTTP/1.1\r\n" + H + b"X-A: 1\x002\r\n\r\n", {400}),
    ("NUL in a name", b"GET /health HTTP/1.1\r\n" + H + b"X\x00A: 1\r\n\r\n", {400}),
    ("NUL in the path", b"GET /health\x00x HTTP/1.1\r\n" + H + b"\r\n", {400}),
    ("a control in a value", b"GET /health HTTP/1.1\r\n" + H + b"X-A: \x01\r\n\r\n", {400}),
    ("a return in a value", b"GET /health HTTP/1.1\r\n" + H + b"X-A: 1\rX-B: 2\r\n\r\n", {400}),
    ("no Host", b"GET /health HTTP/1.1\r\nX-A: 1\r\n\r\n", {400}),
    ("two Hosts", b"GET /health HTTP/1.1\r\n" + H + H + b"\r\n", {400}),
    ("another Host", b"GET /health HTTP/1.1\r\nHost: rebound.example\r\n\r\n", {421}),
    ("a Host that begins like loopback", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1.rebound.example\r\n\r\n", {421}),
    ("a header of 100 KB", b"GET /health HTTP/1.1\r\n" + H + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", {431}),
    ("2000 headers", b"GET /health HTTP/1.1\r\n" + H + b"".join(b"X-%d: 1\r\n" % i for i in range(2000)) + b"\r\n", {431}),
    ("a path of 200 KB", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n" + H + b"\r\n", {414, 431}),
    ("%00 in the path", b"GET /health%00x HTTP/1.1\r\n" + H + b"\r\n", {400}),
    ("%00 in the query", b"GET /health?a=%00 HTTP/1.1\r\n" + H + b"\r\n", {400}),
    ("TLS to a port without", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 32 + b"\r\n\r\n", {0, 400}),
    ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {0, 400, 505}),
    ("HTTP/0.9", b"GET /health\r\n\r\n", {0, 400, 505}),
]


def case_table_of_attacks():
    wrong = []
    for name, data, expected in ATTACKS:
        with connect() as s:
            send(s, data)
            answer, ended = receive_all(s, 3)
        status = status_of(answer)
        if status not in expected or not ended:
            wrong.append(f"{name}: expected {sorted(expected)} and the end, got {status}{'' if ended else ', still open'}")
        elif status and b"\r\nx-request-id: " not in answer and status not in (400, 413, 414, 431, 505):
            wrong.append(f"{name}: no x-request-id")
    check_healthy()
    assert not wrong, "\n".join(wrong)
    return f"{len(ATTACKS)} kinds"


def case_smuggled_requests_do_not_run():
    """What follows a request that is refused is never taken for one."""
    hidden = b"GET /health HTTP/1.1\r\n" + H + b"\r\n"
    for data in (b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(hidden)) + hidden,
                 b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(hidden) + hidden,
                 b"GET /health HTTP/1.1\r\nHost: rebound.example\r\n\r\n" + hidden):
        with connect() as s:
            send(s, data)
            answer, ended = receive_all(s, 3)
        assert ended and answer.count(b"HTTP/1.1 ") == 1, answer


# ---------------------------------------------------------------- what is in order

def case_methods_paths_headers():
    assert ask(head("GET", "/nowhere"))[0] == 404
    status, headers, body = ask(head("DELETE", "/v1/chat/completions"))
    assert status == 405 and headers["allow"] == "POST", (status, headers)
    assert json.loads(body)["error"]["type"] and headers["x-should-retry"] == "false"
    status, headers, _ = ask(head("OPTIONS", "/v1/chat/completions", ("Origin: http://page.example",
                                                                      "Access-Control-Request-Method: POST")))
    assert status == 405 and not any(name.startswith("access-control") for name in headers), headers
    status, headers, _ = ask(head("HEAD", "/api/hello"), has_body=False)
    assert status == 200 and len(headers["x-request-id"]) == 24
    status, headers, body = ask(head("GET", "/"))
    assert status == 200 and "unsafe" not in headers["content-security-policy"] and b"<!doctype html>" in body
    assert ask(head("GET", "/v1/models"))[0] == ask(head("GET", "/models"))[0] == 200
    status, _, body = ask(post("/v1/messages", b"{"))
    assert status == 400 and json.loads(body)["type"] == "error", body
    status, _, body = ask(post("/v1/chat/completions", b"{"))
    assert status == 400 and set(json.loads(body)["error"]) >= {"message", "type", "code", "param"}, body


def case_pipelined_and_kept_alive():
    with connect() as s:
        reader = Reader(s)
        s.sendall(head("GET", "/health") + post("/tokenize", {"content": "a"}) + head("GET", "/nowhere") + head("GET", "/v1/models"))
        assert [reader.answer()[0] for _ in range(4)] == [200, 200, 404, 200]
        for _ in range(20):
            s.sendall(post("/tokenize", b"{"))
            assert reader.answer()[0] == 400
        s.sendall(head("POST", "/tokenize", ["Transfer-Encoding: chunked"]) + b"5\r\n{\"con\r\n0b\r\ntent\": \"ab\"\r\n1\r\n}\r\n0\r\n\r\n")
        assert reader.answer()[0] == 200


def case_keys():
    if not A.key:
        return "skipped: no --key"
    for headers in ([], ["x-api-key: wrong-key-123"], ["Authorization: Bearer wrong"]):
        data = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Length: 100000", *headers]) + "\r\n\r\n"
        with connect() as s:
            send(s, data.encode() + b" " * 100_000)
            assert Reader(s).answer()[0] == 401
    with connect() as s:
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert Reader(s).answer()[0] == 401
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert Reader(s).answer()[0] == 200
        s.sendall(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: {A.key}\r\n\r\n".encode())
        assert Reader(s).answer()[0] == 200


def case_bodies_beyond_the_bound():
    bound = A.max_body
    with connect(60) as s:
        send(s, head("POST", "/tokenize", (), bound + 1) + b" " * (bound + 1))
        assert Reader(s).answer()[0] == 413
    with connect(60) as s:
        send(s, head("POST", "/tokenize", ["Transfer-Encoding: chunked"]))
        for _ in range(bound // 65536 + 1):
            if not send(s, b"10000\r\n" + b" " * 65536 + b"\r\n"):
                break
        send(s, b"0\r\n\r\n")
        assert Reader(s).answer()[0] == 413
    with connect(10) as s:
        send(s, head("POST", "/tokenize", ["Expect: 100-continue"], 1 << 40))
        assert Reader(s).answer()[0] == 413
    with connect(10) as s:
        send(s, head("POST", "/tokenize", [], 1 << 62))
        assert Reader(s).answer()[0] == 413
    check_healthy()


def case_compressed_bodies():
    good = json.dumps({"content": "hello"}).encode()
    assert ask(post("/tokenize", good, ["Content-Encoding: br"]))[0] == 415
    status, headers, _ = ask(post("/tokenize", gzip.compress(good), ["Content-Encoding: gzip"]))
    if status == 415:
        assert "gzip" not in headers["accept-encoding"]
        return "no zlib: 415"
    assert status == 200
    assert ask(post("/tokenize", gzip.compress(b" " * (A.max_body + 1)), ["Content-Encoding: gzip"]))[0] == 413
    assert ask(post("/tokenize", gzip.compress(good)[:-5], ["Content-Encoding: gzip"]))[0] == 400
    assert ask(post("/tokenize", gzip.compress(good) + b"x", ["Content-Encoding: gzip"]))[0] == 400
    assert ask(post("/tokenize", good, ["Content-Encoding: gzip"]))[0] == 400


# ---------------------------------------------------------------- bounds of fields

NUMBERS = ["-1", "0", "1", "0.5", "-0.0", "1e999", "-1e999", "1e308", "2147483647", "2147483648", "-2147483649", "4294967296", "9007199254740993",
           "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "NaN", "Infinity", "\"1\"", "true",
           "null", "[]", "{}", "[1]", "0x10", "01", "1.", ".5", "1e", "--1"]
FIELDS = {
    "/v1/chat/completions": ["temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "n", "seed", "presence_penalty",
                             "frequency_penalty", "repetition_penalty", "top_logprobs", "logprobs", "stop", "logit_bias", "stream", "n_predict",
                             "messages", "tools", "tool_choice", "response_format", "stream_options", "chat_template_kwargs", "reasoning_effort",
                             "parallel_tool_calls", "user", "model", "prompt_cache_key"],
    "/v1/completions": ["prompt", "max_tokens", "temperature", "logprobs", "n", "best_of", "echo", "suffix", "stop", "seed", "logit_bias"],
    "/v1/responses": ["input", "max_output_tokens", "temperature", "top_p", "tools", "reasoning", "text", "instructions", "include", "previous_response_id"],
    "/v1/messages": ["max_tokens", "messages", "system", "temperature", "top_k", "top_p", "stop_sequences", "thinking", "tools", "tool_choice",
                     "metadata", "output_config"],
    "/v1/messages/count_tokens": ["messages", "system", "tools"],
    "/tokenize": ["content", "add_special", "with_pieces"],
    "/detokenize": ["tokens"],
    "/apply-template": ["messages", "tools"],
}


def plain_body(path):
    if path == "/v1/completions":
        return {"prompt": "Hello", "max_tokens": 1}
    if path == "/v1/responses":
        return {"input": "Hello", "max_output_tokens": 1}
    if path == "/tokenize":
        return {"content": "Hello"}
    if path == "/detokenize":
        return {"tokens": [1, 2, 3]}
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


def case_every_numeric_bound():
    """Nothing but 200 and 4xx, at once, whatever stands in a field."""
    tried, wrong = 0, []
    with connect(60) as s:
        reader = Reader(s, 120)
        for path, fields in FIELDS.items():
            for field in fields:
                for value in NUMBERS:
                    body = plain_body(path)
                    body.pop(field, None)
                    if field in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict") and value.isdigit() and int(value) > 1:
                        body["stop"] = body["stop_sequences"] = ["e", "a", "i", " "]  # it may be allowed: let it be short
                    text = json.dumps(body)[:-1] + ("," if body else "") + json.dumps(field) + ":" + value + "}"
                    s.sendall(post(path, text.encode()))
                    status, _, answer = reader.answer()
                    tried += 1
                    if status != 200 and not 400 <= status < 500:
                        wrong.append(f"{path} {field}={value}: {status} {answer[:200]!r}")
    assert not wrong, "\n".join(wrong[:20])
    return f"{tried} bodies"


def case_bounds_of_counts():
    user = {"role": "user", "content": "a"}
    tool = {"type": "function", "function": {"name": "f%d", "parameters": {"type": "object", "properties": {}}}}
    tools = [{**tool, "function": {**tool["function"], "name": f"f{i}"}} for i in range(2000)]
    for path, body in (("/v1/chat/completions", {"messages": [user] * 100_001, "max_tokens": 1}),
                       ("/v1/messages", {"messages": [user] * 100_001, "max_tokens": 1}),
                       ("/v1/chat/completions", {"messages": [user], "tools": tools, "max_tokens": 1}),
                       ("/v1/chat/completions", {"messages": [user], "stop": ["x%d" % i for i in range(1000)], "max_tokens": 1}),
                       ("/v1/chat/completions", {"messages": [user], "n": 100_000, "max_tokens": 1}),
                       ("/v1/chat/completions", {"messages": [], "max_tokens": 1}),
                       ("/v1/chat/completions", {"messages": [{**user, "content": "a b " * A.context}], "max_tokens": 1})):
        status, headers, answer = ask(post(path, body))
        assert status == 400 and headers["x-should-retry"] == "false", (path, status, answer[:300])
    for deep in (b"[" * 100_000, b"{\"a\":" * 100_000, b"[" * 100_000 + b"]" * 100_000):
        for path in FIELDS:
            assert ask(post(path, deep))[0] == 400
            assert ask(post(path, b"{\"messages\": " + deep + b"}"))[0] == 400


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at, what = rng.randrange(len(data)), rng.randrange(9)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at:at + rng.choice((1, 2, 8, 64))]
        elif what == 2:
            data[at:at] = rng.choice((b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"\"", b"{", b"}", b"[", b"]", b",", b":", b"1e999",
                                      b"null", b"-", b"//", b"\xef\xbb\xbf"))
        elif what == 3:
            del data[at:]
        elif what == 4:
            data[at:at] = data[at:at + rng.choice((4, 16, 64))]
        elif what == 5:
            data[at:at + 1] = rng.choice(NUMBERS).encode()
        elif what == 6:
            data += bytes(data)
        elif what == 7:
            data[at:at] = rng.choice((b"[", b"{\"a\":", b"\\")) * rng.choice((10, 100, 1000))
        else:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def rich_body(path, rng):
    """Something of everything, so that what is broken lies deep."""
    body = plain_body(path)
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["a", "b"]}, "n": {"type": "integer", "minimum": 0}}, "required": ["city"]}
    if path == "/v1/chat/completions":
        body["messages"] = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u\u00e9"}]},
                            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"city\": \"a\"}"}}]},
                            {"role": "tool", "tool_call_id": "c1", "content": "r"}, {"role": "user", "content": "u"}]
        body.update(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}], stop=["x"], seed=1, top_p=0.9,
                    stream=rng.random() < 0.3, logit_bias={"5": -1})
        if rng.random() < 0.3:
            body.pop("tools")
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    elif path.startswith("/v1/messages"):
        body["system"] = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
        body["messages"] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "a"}}]},
                            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}]}]}]
        body.update(tools=[{"name": "f", "input_schema": schema}], thinking={"type": "disabled"})
    elif path == "/v1/responses":
        body["input"] = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
                         {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c1", "output": "r"}]
        body.update(tools=[{"type": "function", "name": "f", "parameters": schema}], text={"format": {"type": "text"}}, reasoning=None)
    return body


def in_threads(count, work):
    """Runs work(0 .. count-1); what fails in one fails here."""
    failures = []

    def guarded(i):
        try:
            work(i)
        except Exception:
            failures.append(traceback.format_exc())

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def case_malformed_bodies():
    end, counts, lock, wrong = time.time() + A.seconds, {}, threading.Lock(), []

    def work(i):
        rng, s = random.Random(A.seed * 1000 + i), connect(60)
        reader = Reader(s)
        for _ in range(A.malformed // 4):
            if time.time() > end:
                break
            path = rng.choice(list(FIELDS))
            data = mutate(rng, json.dumps(rich_body(path, rng), ensure_ascii=rng.random() < 0.5).encode())
            try:
                s.sendall(post(path, data))
                status, _, answer = reader.answer()
            except (OSError, EOFError) as error:
                wrong.append(f"{path}: {error!r} for {data!r}")
                s, status, answer = connect(60), 0, b""
                reader = Reader(s)
            with lock:
                counts[status] = counts.get(status, 0) + 1
            if status >= 500:
                wrong.append(f"{path}: {status} {answer[:200]!r} for {data!r}")
        s.close()

    in_threads(4, work)
    assert not wrong, "\n".join(wrong[:5])
    done = sum(counts.values())
    assert done >= A.malformed // 4 * 4, f"{done} of {A.malformed} in {A.seconds} s"
    wait_idle()
    check_answers()
    return f"{done} bodies: " + ", ".join(f"{n} x {status}" for status, n in sorted(counts.items()))


# ---------------------------------------------------------------- slow and absent clients

def lasts(first, drip, every, limit):
    """How long a client that sends `drip` now and then is suffered."""
    begun = time.time()
    with connect() as s:
        send(s, first)
        while time.time() - begun < limit + 5:
            s.settimeout(every)
            try:
                if not s.recv(65536):
                    break
            except socket.timeout:
                if drip and not send(s, drip):
                    break
            except OSError:
                break
    return time.time() - begun


def case_slow_clients_are_cut():
    kinds = {"no byte": (b"", b"", A.header_seconds), "half a line": (b"GET /hea", b"l", A.header_seconds),
             "a header a second": (b"GET /health HTTP/1.1\r\n" + H, b"X-A: 1\r\n", A.header_seconds),
             "a byte of a body a second": (head("POST", "/tokenize", (), 10_000), b" ", A.body_seconds),
             "a chunk a second": (head("POST", "/tokenize", ["Transfer-Encoding: chunked"]), b"1\r\n \r\n", A.body_seconds)}
    seconds = {}

    def work(i):
        name, (first, drip, limit) = list(kinds.items())[i]
        seconds[name] = (lasts(first, drip, 1 if limit > 5 else 0.3, limit), limit)

    in_threads(len(kinds), work)
    wrong = {name: f"{lasted:.1f} s, limit {limit}" for name, (lasted, limit) in seconds.items() if not limit - 0.5 <= lasted <= limit + 2}
    assert not wrong, wrong
    return ", ".join(f"{name} {lasted:.1f} s" for name, (lasted, _) in seconds.items())


def case_many_slow_clients_stop_nobody():
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect()) for _ in range(200)]
        for i, s in enumerate(slow):
            send(s, (b"GET /health HTTP/1.1\r\n" + H, head("POST", "/tokenize", (), 1000))[i % 2])
        for _ in range(5):
            check_healthy()
            assert ask(post("/tokenize", {"content": "a"}))[0] == 200
            time.sleep(0.1)


def case_connections_beyond_the_bound():
    with contextlib.ExitStack() as stack:
        open_ones = []
        for _ in range(700):
            with contextlib.suppress(OSError):
                open_ones.append(stack.enter_context(connect(1)))
    end = time.time() + 20
    while True:
        try:
            check_healthy(5)
            break
        except (OSError, EOFError, AssertionError):
            assert time.time() < end, "no answer after a flood of connections"
            time.sleep(0.2)
    return f"{len(open_ones)} were open"


def begin_stream(s, body, path="/v1/chat/completions"):
    """Up to the end of the headers."""
    s.sendall(post(path, {**body, "stream": True}))
    reader = Reader(s)
    reader.until(b"\r\n\r\n")
    return reader


def case_half_closed_sockets():
    for body in (long_chat(1, max_tokens=200, stream=True), long_chat(2, max_tokens=200)):
        with connect() as s:
            s.sendall(post("/v1/chat/completions", body))
            s.shutdown(socket.SHUT_WR)
            _, ended = receive_all(s, 30)
            assert ended, "a client that closed its side is kept"
    for data in (b"", b"GET", b"GET /health HTTP/1.1\r\n" + H, head("POST", "/tokenize", (), 100) + b"{"):
        with connect() as s:
            send(s, data)
            s.shutdown(socket.SHUT_WR)
            _, ended = receive_all(s, max(A.header_seconds, A.body_seconds) + 3)
            assert ended, f"half closed after {data!r}: kept"
    wait_idle()


def case_who_leaves_a_silent_stream_is_seen():
    """A prompt is read, nothing is sent: the client's end alone tells."""
    slowest = 0
    for seed, how in ((11, "close"), (12, "reset"), (13, "half")):
        s = connect()
        begin_stream(s, long_chat(seed, max_tokens=A.context))
        if how == "reset":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":
            s.shutdown(socket.SHUT_WR)
        else:
            s.close()
        begun = time.time()
        wait_idle(10)
        slowest = max(slowest, time.time() - begun)
        s.close()
    assert slowest < 5, slowest
    return f"{slowest:.2f} s at most"


def case_disconnects_while_a_prompt_is_read():
    end, done, lock = time.time() + A.seconds, [0], threading.Lock()
    paths = ("/v1/chat/completions", "/v1/messages")

    def work(i):
        rng = random.Random(A.seed * 7 + i)
        for k in range(A.disconnects // 8):
            if time.time() > end:
                return
            with connect(30) as s:
                body = long_chat(1000 * i + k, max_tokens=64, stream=rng.random() < 0.7, return_progress=True)
                data = post(rng.choice(paths), body)
                if rng.random() < 0.2:
                    data = data[:rng.randrange(len(data))]
                send(s, data)
                s.settimeout(rng.choice((0.001, 0.01, 0.05)))
                with contextlib.suppress(OSError):
                    for _ in range(rng.randrange(4)):
                        s.recv(4096)
                if rng.random() < 0.5:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with lock:
                done[0] += 1

    in_threads(8, work)
    wait_idle(60)
    check_healthy()
    check_answers()
    assert done[0] >= A.disconnects // 8 * 8, f"{done[0]} of {A.disconnects} in {A.seconds} s"
    return f"{done[0]} times"


def case_who_does_not_read_stops_nobody():
    with contextlib.ExitStack() as stack:
        for i in range(4):
            s = stack.enter_context(connect())
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.sendall(post("/v1/chat/completions", chat(words(20, 50 + i), max_tokens=300, stream=True, logprobs=True, top_logprobs=20)))
        for _ in range(3):
            check_answers()
            check_healthy()
    wait_idle()


# ---------------------------------------------------------------- running

def memory_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) << 10


@contextlib.contextmanager
def own_server(binary, model):
    """With limits that make the cases short. Ends well, and without a sanitizer's word."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as log:
        free.bind(("127.0.0.1", 0))
        A.host, A.port = free.getsockname()
        free.close()
        A.key, A.header_seconds, A.body_seconds, A.max_body = "key-of-check-http", 3, 4, 4 << 20
        with open(scratch + "/keys", "w") as f:
            f.write("# one\n" + A.key + "\n")
        command = [binary, "serve", "-m", model, "--port", A.port, "--api-key-file", scratch + "/keys", "--header-seconds", A.header_seconds,
                   "--body-seconds", A.body_seconds, "--idle-seconds", 5, "--max-body", A.max_body,
                   "--kv-bytes", "128M", "--drain-seconds", 20]
        server = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, env={**os.environ, "XDG_CACHE_HOME": scratch})

        def text():
            log.seek(0)
            return log.read().decode(errors="replace")

        try:
            end = time.time() + 300
            while True:
                assert server.poll() is None and time.time() < end, "the server did not come up:\n" + text()
                try:
                    if ask(head("GET", "/health"), 5)[0] == 200:
                        break
                except OSError:
                    pass
                time.sleep(0.1)
            yield server
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
            words_of_sanitizers = re.findall(r".*(?:Sanitizer|runtime error|Assertion).*", text())
            assert code == 0 and not words_of_sanitizers, f"exit {code}: {words_of_sanitizers[:5]}"
            assert A.key not in text(), "the key stands in the log"
        except BaseException:
            sys.stderr.write(text()[-4000:])
            raise
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()


def run_cases():
    failed, A.context = 0, context()
    for name, function in list(globals().items()):
        if not name.startswith("case_") or (A.only and A.only not in name):
            continue
        begun = time.time()
        try:
            note = function() or ""
            print(f"ok     {name[5:].replace('_', ' ')} ({time.time() - begun:.1f} s){': ' if note else ''}{note}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name[5:].replace('_', ' ')}", flush=True)
            traceback.print_exc()
    return failed


def main():
    global A
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?")
    parser.add_argument("--serve", nargs=2, metavar=("MIXQUANT", "MODEL"))
    parser.add_argument("--key", default="")
    parser.add_argument("--header-seconds", type=float, default=10)
    parser.add_argument("--body-seconds", type=float, default=60)
    parser.add_argument("--max-body", type=int, default=32 << 20)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=300, help="for each of the random cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    A = parser.parse_args()
    if bool(A.address) == bool(A.serve):
        parser.error("expected HOST:PORT or --serve")
    if A.serve:
        with own_server(*A.serve) as server:
            failed = run_cases()
            before = memory_of(server.pid)
            if not failed and not A.only:
                for function in (case_table_of_attacks, case_malformed_bodies, case_disconnects_while_a_prompt_is_read):
                    function()
                after = memory_of(server.pid)
                print(f"memory {before >> 20} MiB, after the random cases once more {after >> 20} MiB", flush=True)
                failed += after > before * 1.2 + (64 << 20)
        print("ok     the server ends", flush=True)
        return 1 if failed else 0
    A.host, _, port = A.address.rpartition(":")
    A.host, A.port = A.host.strip("[]"), int(port)
    if A.host != "localhost" and not ipaddress.ip_address(A.host).is_loopback:
        parser.error("expected a loopback address")
    return 1 if run_cases() else 0


if __name__ == "__main__":
    sys.exit(main())
