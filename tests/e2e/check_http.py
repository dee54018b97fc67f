"""A server as attackers, broken clients and bad networks meet it: raw sockets, on loopback only.

usage: check_http.py --serve MIXQUANT MODEL [options]     servers of its own, with short limits; also under sanitizers
       check_http.py HOST:PORT [--key KEY] [options]      one that runs already
Every function named case_* runs and prints a line; a failed one says why, and the exit code is 1. Those named own_* need a server of
our own, those named bound_* one with small bounds. Everything is bounded in time. --malformed, --heads, --disconnects and --seconds
say how much of what is random is tried.
"""
import argparse
import contextlib
import gzip
import ipaddress
import json
import random
import signal
import socket
import sys
import tempfile
import threading
import time

from http_bodies import FIELDS, NUMBERS, mutate, mutate_head, plain_body, rich_body
from http_wire import (Reader, Served, ask, at, begin_stream, chat, check_answers, check_healthy, connect, events, head, in_threads, metrics, post,
                       receive_all, reset, run_cases, send, status_of, wait_idle, words)

A = None     # the arguments
MINE = None  # a server of our own


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
    ("no blank in a request line", b"GET/healthHTTP/1.1\r\n" + H + b"\r\n", {0, 400, 405, 505}),
    ("a method in small letters", b"get /health HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n", {400, 405}),
    ("a header without a colon", b"GET /health HTTP/1.1\r\n" + H + b"X-A\r\n\r\n", {400}),
    ("a header without a name", b"GET /health HTTP/1.1\r\n" + H + b": 1\r\n\r\n", {400}),
    ("a length and nothing", b"POST /tokenize HTTP/1.1\r\n" + H + b"Content-Length: \r\n\r\n", {400}),
    ("a proxy's request", b"CONNECT rebound.example:80 HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n", {400, 404, 405}),
    ("a chunk that is no number", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", {400}),
    ("a chunk longer than it says", b"POST /tokenize HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", {400}),
    ("a Host with a user", b"GET /health HTTP/1.1\r\nHost: localhost@rebound.example\r\n\r\n", {400, 421}),
    ("a Host with an odd port", b"GET /health HTTP/1.1\r\nHost: localhost:80x\r\n\r\n", {400, 421}),
    ("an empty Host", b"GET /health HTTP/1.1\r\nHost: \r\n\r\n", {400, 421}),
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
    if not at.key:
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
        s.sendall(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-api-key: {at.key}\r\n\r\n".encode())
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


def cancelled_by(function, least=1):
    """What clients left, the scheduler gave up: it did not just come to its end."""
    before = wait_idle()["mixquant:requests_cancelled_total"]
    function()
    count = wait_idle(60)["mixquant:requests_cancelled_total"] - before
    assert count >= least, f"{count:.0f} requests were cancelled, expected {least}"
    return int(count)


def close_half(body):
    with connect() as s:
        s.sendall(post("/v1/chat/completions", body))
        s.shutdown(socket.SHUT_WR)
        _, ended = receive_all(s, 30)
        assert ended, "a client that closed its side is kept"


CROWD = 12  # leave together: a fast machine is done with a few before it sees that nobody waits for them


def case_half_closed_sockets():
    for stream in (True, False):
        cancelled_by(lambda: in_threads(CROWD, lambda i: close_half(long_chat(1 + i + CROWD * stream, stream=stream))), CROWD // 4)
    started = (b"", b"GET", b"GET /health HTTP/1.1\r\n" + H, head("POST", "/tokenize", (), 100) + b"{", head("GET", "/health") + b"\r",
               head("POST", "/tokenize", ["Transfer-Encoding: chunked"]) + b"5\r\n{")
    slowest = [0]

    def work(i):  # often, because it is by chance that the end comes with the last bytes
        with connect() as s:
            begun = time.time()
            send(s, started[i % len(started)])
            s.shutdown(socket.SHUT_WR)
            _, ended = receive_all(s, 20)
            slowest[0] = max(slowest[0], time.time() - begun)
            assert ended, f"half closed after {started[i % len(started)]!r}: kept"

    in_threads(120, work)
    assert slowest[0] < min(A.header_seconds, A.idle_seconds) - 0.5, f"half closed, and kept for {slowest[0]:.1f} s"
    return f"{slowest[0]:.1f} s at most"


def leave(s, how):
    if how == "reset":
        reset(s)
    elif how == "half":
        s.shutdown(socket.SHUT_WR)
        receive_all(s, 30)
    s.close()


def case_who_leaves_a_silent_stream_is_seen():
    """While a prompt is read nothing is sent: the client's end alone tells."""
    slowest = 0
    for seed, how in ((100, "close"), (200, "reset"), (300, "half")):
        def come_and_leave(i):
            s = connect()
            begin_stream(s, long_chat(seed + i))
            leave(s, how)

        begun = time.time()
        cancelled_by(lambda: in_threads(CROWD, come_and_leave), CROWD // 4)
        slowest = max(slowest, time.time() - begun)
    assert slowest < 5, slowest
    return f"{slowest:.2f} s at most"


def leave_while_read(rng, seed):
    """A stream that has said how much of its prompt is read, and ends there."""
    path = rng.choice(("/v1/chat/completions", "/v1/chat/completions", "/v1/messages"))
    with connect(60) as s:
        body = long_chat(seed, return_progress=True)
        reader = begin_stream(s, body, path)
        if path == "/v1/messages":
            reader.until(b"message_start")
        else:
            progress = next(event["prompt_progress"] for event in events(reader) if "prompt_progress" in event)
            assert progress["processed"] < progress["total"], progress
        time.sleep(rng.choice((0, 0, 0.002, 0.01)))
        leave(s, rng.choice(("close", "reset", "half")))


def leave_early(rng, seed):
    """In the middle of a body, or of an answer that comes as a whole."""
    with connect(60) as s:
        data = post(rng.choice(("/v1/responses", "/v1/completions", "/v1/messages")), long_chat(seed))
        send(s, data[:rng.randrange(len(data))] if rng.random() < 0.5 else data)
        s.settimeout(rng.choice((0.001, 0.01)))
        with contextlib.suppress(OSError):
            s.recv(4096)
        leave(s, rng.choice(("close", "reset")))


def case_disconnects_while_a_prompt_is_read():
    end, counts, lock = time.time() + A.seconds, [0], threading.Lock()

    def work(i):
        rng = random.Random(A.seed * 7 + i)
        for k in range(A.disconnects // 8):
            assert time.time() < end, f"{counts[0]} of {A.disconnects} in {A.seconds} s"
            leave_while_read(rng, A.round * 1_000_000 + 10_000 * i + k)
            if k % 4 == 0:
                leave_early(rng, A.round * 1_000_000 + 10_000 * i + 5000 + k)
            with lock:
                counts[0] += 1

    # Where a client is slower than the model, a prompt may be read by the time that it leaves.
    gone = cancelled_by(lambda: in_threads(8, work), A.disconnects * 8 // 10)
    check_healthy()
    check_answers()
    return f"{counts[0]} times and a quarter as often earlier; {gone} requests were given up"


def case_malformed_heads():
    end, counts, lock = time.time() + A.seconds, {}, threading.Lock()

    def work(i):
        rng = random.Random(A.seed * 3000 + i)
        for _ in range(A.heads // 32):
            assert time.time() < end, f"{sum(counts.values())} of {A.heads} in {A.seconds} s"
            data = mutate_head(rng)
            with connect() as s:
                send(s, data)
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_WR)
                answer, ended = receive_all(s, A.body_seconds + 5)
            status = status_of(answer)
            assert ended, f"still open after {data[:300]!r}"
            assert status < 500 or status == 505, f"{status} for {data[:300]!r}"
            with lock:
                counts[status] = counts.get(status, 0) + 1

    in_threads(32, work)
    check_answers()
    return ", ".join(f"{n} x {status or 'closed'}" for status, n in sorted(counts.items()))


def case_idle_connections_are_closed():
    with connect() as s:
        s.sendall(head("GET", "/health"))
        assert Reader(s).answer()[0] == 200
        begun = time.time()
        _, ended = receive_all(s, A.idle_seconds + 5)
        lasted = time.time() - begun
    assert ended and A.idle_seconds - 0.5 <= lasted <= A.idle_seconds + 2, lasted
    return f"{lasted:.1f} s"


def case_who_does_not_read_stops_nobody():
    """Who reads nothing of a long answer is cut; the others do not notice."""
    body = chat(words(20, 50), stream=True, n=16, logprobs=True, top_logprobs=20, ignore_eos=True)
    with contextlib.ExitStack() as stack:
        slow = []
        for i in range(4):
            s = stack.enter_context(socket.socket())
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(10)
            s.connect((at.host, at.port))
            s.sendall(post("/v1/chat/completions", {**body, "seed": i}))
            slow.append(s)
        for _ in range(3):
            check_answers()
            check_healthy()
        wait_idle(60)
        if MINE:
            time.sleep(A.write_seconds + 1)
            for s in slow:
                answer, ended = receive_all(s, 10)
                assert ended and b"[DONE]" not in answer, "a client that did not read had its whole answer kept"


# ---------------------------------------------------------------- a server of one's own

def own_memory_is_flat():
    """All that is random again and again, with other numbers: once the cache is full, memory grows by nothing that counts."""
    def once():
        A.seed, A.round = A.seed + 1, A.round + 1
        case_table_of_attacks()
        case_malformed_heads()
        case_malformed_bodies()
        case_connections_beyond_the_bound()
        case_disconnects_while_a_prompt_is_read()
        wait_idle()
        end, handles = time.time() + A.idle_seconds + 3, MINE.handles()
        while handles > idle + 2:  # nobody asks meanwhile: libmicrohttpd's threads sleep, unless an end wakes them
            assert time.time() < end, f"{handles} descriptors, {idle} before: {MINE.handle_kinds()}"
            time.sleep(0.1)
            handles = MINE.handles()
        return MINE.memory(), handles

    time.sleep(A.idle_seconds + 1)
    idle = MINE.handles()
    full = A.malformed, A.heads, A.disconnects
    A.malformed, A.heads, A.disconnects = (n // 5 for n in full)
    figures, grown = [once(), once()], 13
    while grown > 12 and len(figures) < 6:
        figures.append(once())
        grown = (figures[-1][0] - figures[-3][0]) >> 20
    A.malformed, A.heads, A.disconnects = full
    assert grown <= 12, f"grew by {grown} MiB: {figures}"
    return ", ".join(f"{memory >> 20} MiB, {handles} descriptors" for memory, handles in figures)


def at_one_moment(act):
    """What the server finds when it wakes."""
    MINE.signal(signal.SIGSTOP)
    act()
    MINE.signal(signal.SIGCONT)


def own_all_connections_at_once():
    """Every connection that is allowed asks at one moment, and all leave at another."""
    idle = MINE.handles()
    with contextlib.ExitStack() as stack:
        readers = [Reader(stack.enter_context(connect(20)), 20) for _ in range(500)]
        for r in readers[::-1]:
            r.s.sendall(head("GET", "/health"))
        assert [r.answer()[0] for r in readers] == [200] * 500
        at_one_moment(lambda: [r.s.sendall(head("GET", "/health")) for r in readers])
        assert [r.answer()[0] for r in readers] == [200] * 500
        at_one_moment(stack.close)
    end = time.time() + 10
    while (handles := MINE.handles()) > idle + 2:
        assert time.time() < end, f"{handles} descriptors are open, {idle} were before"
        time.sleep(0.05)


# ---------------------------------------------------------------- small bounds: the last that is allowed, and the next

USER = {"role": "user", "content": "a"}
SMALL = {"max-depth": 8, "max-messages": 5, "max-tools": 3, "max-n": 2, "max-stops": 2, "max-tokens": 40, "max-body": 20_000, "max-bodies": 50_000,
         "max-headers": 2048, "connections": 40, "connections-per-address": 12, "idle-seconds": 1, "streams": 1, "queue": 3}


def both_sides(path, make, bound):
    within, headers, _ = ask(post(path, make(bound)))
    assert within == 200, f"{path}: {within} at {bound}"
    beyond, headers, answer = ask(post(path, make(bound + 1)))
    assert 400 <= beyond < 500 and headers["x-should-retry"] == "false", f"{path}: {beyond} at {bound + 1}: {answer[:200]!r}"
    return beyond


def bound_of_json():
    def nested(depth):  # the body itself is a level
        return ("{\"content\": \"a\", \"x\": " + "[" * (depth - 1) + "]" * (depth - 1) + "}").encode()

    tool = {"type": "function", "function": {"parameters": {"type": "object", "properties": {}}}}
    both_sides("/tokenize", nested, SMALL["max-depth"])
    for path in ("/v1/chat/completions", "/v1/messages"):
        both_sides(path, lambda n: {"messages": [USER] * n, "max_tokens": 1}, SMALL["max-messages"])
    both_sides("/v1/chat/completions", lambda n: {"messages": [USER], "max_tokens": 1, "tools": [
        {**tool, "function": {**tool["function"], "name": f"f{i}"}} for i in range(n)]}, SMALL["max-tools"])
    both_sides("/v1/chat/completions", lambda n: {"messages": [USER], "max_tokens": 1, "n": n}, SMALL["max-n"])
    both_sides("/v1/chat/completions", lambda n: {"messages": [USER], "max_tokens": 1, "stop": ["x%d" % i for i in range(n)]}, SMALL["max-stops"])
    both_sides("/v1/messages", lambda n: {"messages": [USER], "max_tokens": 1, "stop_sequences": ["x%d" % i for i in range(n)]}, SMALL["max-stops"])


def bound_of_tokens():
    status, _, answer = ask(post("/v1/completions", {"prompt": "a b c", "max_tokens": 1000, "ignore_eos": True}))
    assert status == 200 and json.loads(answer)["usage"]["completion_tokens"] == SMALL["max-tokens"], answer


def bound_of_bytes():
    def padded(count):
        return b"{\"content\": \"a\"}".ljust(count)

    assert both_sides("/tokenize", padded, SMALL["max-body"]) == 413
    zipped = [ask(post("/tokenize", gzip.compress(padded(SMALL["max-body"] + more)), ["Content-Encoding: gzip"]))[0] for more in (0, 1)]
    assert zipped in ([200, 413], [415, 415]), zipped
    for count, expected in ((SMALL["max-headers"] - 500, 200), (SMALL["max-headers"] + 1, 431)):
        with connect() as s:
            send(s, head("GET", "/health", ["X-A: " + "a" * count]))
            assert Reader(s).answer()[0] == expected, count


def await_status(data, expected):
    """What others do is seen a little later."""
    end, status = time.time() + 5, None
    while status != expected:
        assert time.time() < end, f"expected {expected}, got {status}"
        time.sleep(0.05)
        with contextlib.suppress(EOFError, ConnectionError):  # too many connections, whose ends it has not seen yet
            status = ask(data)[0]


def bound_of_all_bodies():
    """Three that are not complete yet hold more than all may. The first two are cut when they have been idle: then they come again."""
    part = b" " * (SMALL["max-body"] - 1000)

    def is_refused():
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                s = stack.enter_context(connect())
                send(s, head("POST", "/tokenize", (), SMALL["max-body"]) + part)
            for _ in range(10):
                if ask(head("POST", "/tokenize", (), len(part)) + part)[0] == 503:
                    return True
                time.sleep(0.05)
        return False

    assert any(is_refused() for _ in range(10)), "a third body is read"
    await_status(post("/tokenize", {"content": "a"}), 200)


def bound_of_connections():
    time.sleep(SMALL["idle-seconds"] + 0.5)  # connections of the cases before have been seen to end
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect()) for _ in range(SMALL["connections-per-address"])]
        for s in held:  # which makes them older than the next one
            s.sendall(head("GET", "/health"))
            assert Reader(s).answer()[0] == 200
        more = stack.enter_context(connect())
        answer, ended = receive_all(more, 0.8)
        assert ended and not answer, "one connection too many from an address is kept"
    await_status(head("GET", "/health"), 200)


def bound_of_the_queue():
    """One runs, others wait, and who comes then is told to come again."""
    with contextlib.ExitStack() as stack:
        for seed in range(1 + SMALL["queue"]):
            begin_stream(stack.enter_context(connect()), long_chat(70 + seed))
            while seed == 0 and metrics()["llamacpp:requests_processing"] == 0:
                time.sleep(0.01)
        status, headers, answer = ask(post("/v1/chat/completions", long_chat(80)))
        assert status in (429, 503) and headers["retry-after"], (status, answer)
    wait_idle()
    check_answers()


# ---------------------------------------------------------------- running

def run_own(binary, model):
    global MINE
    A.header_seconds, A.body_seconds, A.idle_seconds, A.write_seconds, A.max_body = 3, 4, 4, 2, 4 << 20
    with Served(binary, model, "--header-seconds", A.header_seconds, "--body-seconds", A.body_seconds, "--idle-seconds", A.idle_seconds,
                "--write-seconds", A.write_seconds, "--max-body", A.max_body, "--max-unread", "64K", "--max-tokens", 160,
                "--kv-bytes", "128M", "--api-key-file", A.keys, key=KEY) as MINE:
        A.context = context()
        failed = run_cases(globals(), "case_", A.only) + run_cases(globals(), "own_", A.only)
    small = [word for name, value in SMALL.items() for word in ("--" + name, value)]
    with Served(binary, model, *small) as MINE:
        failed += run_cases(globals(), "bound_", A.only)
    return failed


def context():
    return json.loads(ask(head("GET", "/v1/models"))[2])["data"][0]["max_model_len"]


KEY = "key-of-check-http"


def main():
    global A
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?")
    parser.add_argument("--serve", nargs=2, metavar=("MIXQUANT", "MODEL"))
    parser.add_argument("--key", default="")
    parser.add_argument("--header-seconds", type=float, default=10)
    parser.add_argument("--body-seconds", type=float, default=60)
    parser.add_argument("--idle-seconds", type=float, default=75)
    parser.add_argument("--max-body", type=int, default=32 << 20)
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--heads", type=int, default=4000)
    parser.add_argument("--disconnects", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=300, help="for each of the random cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    A = parser.parse_args()
    A.round = 0
    if bool(A.address) == bool(A.serve):
        parser.error("expected HOST:PORT or --serve")
    if A.serve:
        with tempfile.NamedTemporaryFile("w") as keys:
            A.keys = keys.name
            keys.write(f"# one\n{KEY}\n")
            keys.flush()
            return 1 if run_own(*A.serve) else 0
    host, _, port = A.address.rpartition(":")
    at.host, at.port, at.key = host.strip("[]"), int(port), A.key
    if at.host != "localhost" and not ipaddress.ip_address(at.host).is_loopback:
        parser.error("expected a loopback address")
    A.context = context()
    return 1 if run_cases(globals(), "case_", A.only) else 0


if __name__ == "__main__":
    sys.exit(main())
