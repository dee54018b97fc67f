"""The server's life: TLS, a Unix socket, keys that change, drains, what is refused at the start.

usage: check_life.py MIXQUANT MODEL [--only NAME]
Needs Python's standard library only; TLS also openssl, the program, which makes a certificate. Every function named case_* runs.
"""
import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import warnings

from http_wire import Reader, Served, ask, at, begin_stream, chat, check_answers, connect, events, head, metrics, post, run_cases

A = None        # the arguments
SCRATCH = None  # a folder
OLD, NEW = "the-key-of-old", "the-key-of-new"
LONG = 3000     # tokens at most: an answer that outlasts what is looked at meanwhile


def serve(*options, **more):
    return Served(A.mixquant, A.model, "--kv-bytes", "64M", "--draft", "off", *options, **more)


def scratch(name, text=None):
    path = os.path.join(SCRATCH, name)
    if text is not None:
        with open(path, "w") as f:
            f.write(text)
    return path


class Stream:
    """An answer that is being written, looked at token by token."""

    def __init__(self, tokens=None, **more):
        self.socket, self.tokens = connect(120), tokens or LONG
        body = chat("Go on.", max_tokens=self.tokens, ignore_eos=True, stream_options={"include_usage": True}, **more)
        self.events = events(begin_stream(self.socket, body))

    def take(self, tokens):
        """Until so many pieces of text have come."""
        while tokens > 0:
            choices = next(self.events).get("choices")
            tokens -= bool(choices and choices[0]["delta"].get("content"))

    def rest(self):
        """Its usage, which comes last: it was finished."""
        usage = None
        for event in self.events:
            usage = event.get("usage") or usage
        self.socket.close()
        return usage

    def is_whole(self):
        usage = self.rest()
        assert usage and usage["completion_tokens"] == self.tokens, usage


def refused_start(*options):
    """What a server says that does not start; it exits with 2, and soon."""
    done = subprocess.run([A.mixquant, "serve", "-m", A.model, "--port", "0", *map(str, options)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, (options, done.returncode, done.stderr)
    assert done.stderr.count("\n") <= 2, done.stderr
    return done.stderr


# ---------------------------------------------------------------- where it listens

def make_certificate():
    """Paths of a certificate and its key; None where openssl is missing."""
    if not shutil.which("openssl"):
        return None
    key, certificate = scratch("key.pem"), scratch("certificate.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
    return certificate, key


def case_tls():
    paths = make_certificate()
    if not paths:
        return "skipped: no openssl here"
    context = ssl.create_default_context(cafile=paths[0])  # verifies the name, too
    with serve("--tls-cert", paths[0], "--tls-key", paths[1], tls=context) as server:
        with connect() as s:
            version, cipher = s.version(), s.cipher()[0]
        assert version in ("TLSv1.2", "TLSv1.3"), version
        check_answers()
        assert ask(post("/v1/chat/completions", b"{"))[0] == 400
        body = json.dumps({"content": "word " * 100_000}).encode()  # many records
        assert json.loads(ask(post("/tokenize", body))[2])["count"] > 100_000
        Stream(50).is_whole()
        leaver = Stream()
        leaver.take(2)
        leaver.socket.close()  # without a farewell of TLS
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nobody should speak it
            old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1
        with socket.create_connection((at.host, at.port), timeout=10) as s:
            try:
                old.wrap_socket(s).close()
                raise AssertionError("TLS 1.0 is spoken")
            except OSError:
                pass
        with socket.create_connection((at.host, at.port), timeout=10) as s:  # HTTP without TLS
            s.sendall(head("GET", "/health"))
            s.settimeout(15)
            with contextlib.suppress(OSError):
                assert not s.recv(4096).startswith(b"HTTP/"), "it answers without TLS"
        check_answers()
        assert f"https://127.0.0.1:{at.port}" in server.text()
    return f"{version}, {cipher}"


def case_tls_files_that_are_none():
    paths = make_certificate()
    if not paths:
        return "skipped: no openssl here"
    assert "one of them" in refused_start("--tls-cert", paths[0])
    for certificate, key in ((scratch("none.pem", "no certificate"), paths[1]), (paths[0], scratch("none.pem"))):
        done = subprocess.run([A.mixquant, "serve", "-m", A.model, "--port", "0", "--tls-cert", certificate, "--tls-key", key],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode not in (0, 70) and "TLS" in done.stderr, (done.returncode, done.stderr)


def case_unix_socket():
    path = scratch("socket")
    with serve(path=path) as server:
        facts = os.stat(path)
        assert stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == 0o600, oct(facts.st_mode)
        check_answers()
        assert ask(head("GET", "/health", host="whatever.example"))[0] == 200  # no name leads here
        Stream(50).is_whole()
        assert f"listening on {path}" in server.text()
        second = subprocess.run([A.mixquant, "serve", "-m", A.model, "--unix-socket", path], capture_output=True, text=True, timeout=60)
        assert second.returncode == 2 and "listens on" in second.stderr, second
        check_answers()
    assert not os.path.exists(path), "the socket is left behind"
    with serve(path=path, ends_with=(-signal.SIGKILL,)) as server:
        server.signal(signal.SIGKILL)
        server.process.wait()
    assert os.path.exists(path)
    with serve(path=path):  # what a dead one left is taken over
        check_answers()


def case_what_is_not_started():
    assert "api-key-file" in refused_start("--host", "0.0.0.0")
    assert "api-key-file" in refused_start("--host", "::")
    assert "16 tokens" in refused_start("--kv-bytes", "1")
    assert "16 tokens" in refused_start("-c", "2")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = subprocess.run([A.mixquant, "serve", "-m", A.model, "--port", str(taken.getsockname()[1])], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "free address" in done.stderr, done


def case_hosts():
    with serve("--host", "0.0.0.0", "--allowed-host", "box.example", "--api-key-file", scratch("keys", OLD + "\n"), key=OLD):
        for host, expected in (("localhost", 200), ("127.0.0.1", 200), ("box.example", 200), ("BOX.example:80", 200), ("10.1.2.3:8080", 200),
                               ("[fe80::1]", 200), ("other.example", 421), ("box.example.evil.example", 421), ("10.1.2.3.evil.example", 421)):
            assert ask(head("GET", "/health", host=host))[0] == expected, host
        assert ask(head("GET", "/metrics", key="not-this-one"))[0] == 401
    with serve():
        for host, expected in (("127.0.0.2", 200), ("[::1]:9", 200), ("10.1.2.3", 421), ("rebound.example", 421)):
            assert ask(head("GET", "/health", host=host))[0] == expected, host


# ---------------------------------------------------------------- signals

def case_keys_read_anew():
    keys = scratch("keys", f"# ours\n{OLD}\n")
    with serve("--api-key-file", keys, key=OLD) as server:
        stream, probe = Stream(), post("/v1/chat/completions", chat("Hello.", max_tokens=1), key=NEW)
        stream.take(3)
        kept = connect()  # one that has proved its key before
        kept.sendall(head("GET", "/metrics"))
        reader = Reader(kept)
        assert reader.answer()[0] == 200 and ask(probe)[0] == 401
        scratch("keys", f"{NEW}\n")
        server.signal(signal.SIGHUP)
        server.wait_log("keys: read anew")
        assert ask(probe)[0] == 200, "the new key is refused"
        assert ask(head("GET", "/metrics", key=OLD))[0] == 401, "the old key is accepted"
        kept.sendall(head("GET", "/metrics", key=OLD))
        assert reader.answer()[0] == 401, "the old key is accepted on an old connection"
        kept.close()
        at.key = NEW
        assert metrics()["llamacpp:requests_processing"] == 1, "the answer should still be running"
        stream.is_whole()
        scratch("keys", "short\n")
        server.signal(signal.SIGHUP)
        server.wait_log("expected a key of 8 or more bytes")
        os.remove(keys)
        server.signal(signal.SIGHUP)
        server.wait_log("No such file")
        assert ask(probe)[0] == 200, "a broken file changed something"
        for _ in range(50):  # while others come in
            server.signal(signal.SIGHUP)
            assert ask(probe)[0] == 200


def is_refused(data):
    """503, or no connection at all."""
    try:
        status, headers, _ = ask(data, 10)
    except (OSError, EOFError):
        return True
    return status == 503 and "retry-after" in headers


def case_a_drain_finishes():
    with serve("--drain-seconds", 120) as server:
        stream = Stream()
        stream.take(3)
        kept = connect()
        reader = Reader(kept)
        kept.sendall(head("GET", "/health"))
        assert reader.answer()[0] == 200
        server.signal()
        server.wait_log("draining")
        assert is_refused(post("/v1/chat/completions", chat("Hello.", max_tokens=1)))
        assert is_refused(head("GET", "/health"))
        with contextlib.suppress(OSError, EOFError):
            kept.sendall(post("/tokenize", {"content": "a"}))
            status, headers, _ = reader.answer()
            assert status == 503 and headers["connection"].lower() == "close", (status, headers)
        kept.close()
        assert server.process.poll() is None
        stream.is_whole()
        assert server.process.wait(20) == 0


def case_a_second_signal_ends_it():
    for second in (signal.SIGTERM, signal.SIGINT):
        with serve("--drain-seconds", 600) as server:
            stream = Stream(3500)
            stream.take(3)
            server.signal()
            server.wait_log("draining")
            stream.take(2)
            begun = time.time()
            server.signal(second)
            with contextlib.suppress(OSError, EOFError):
                assert stream.rest() is None, "the answer was finished"
            assert server.process.wait(20) == 0
            assert time.time() - begun < 10, "it took its time"


def case_a_drain_is_bounded():
    with serve("--drain-seconds", 1) as server:
        stream = Stream(3500)
        stream.take(3)
        begun = time.time()
        server.signal()
        assert server.process.wait(30) == 0
        assert time.time() - begun < 10
        with contextlib.suppress(OSError, EOFError):
            assert stream.rest() is None, "the answer was finished"


def case_a_signal_without_requests():
    for number in (signal.SIGTERM, signal.SIGINT):
        with serve() as server:
            with connect() as idle, connect() as started:  # nobody waits for these
                idle.sendall(head("GET", "/health"))
                assert Reader(idle).answer()[0] == 200
                started.sendall(b"POST /tok")
                begun = time.time()
                server.signal(number)
                assert server.process.wait(20) == 0
                assert time.time() - begun < 5, "it waits for nobody"


def case_who_leaves_during_a_drain():
    with serve() as server:
        stream = Stream(3500)
        stream.take(3)
        server.signal()
        server.wait_log("draining")
        stream.socket.close()
        begun = time.time()
        assert server.process.wait(20) == 0
        assert time.time() - begun < 5


def choose_long():
    """Some seconds of writing, as fast as this build is."""
    global LONG
    with serve():
        check_answers()
        begun = time.time()
        Stream(100).is_whole()
        LONG = max(500, min(LONG, int(400 / (time.time() - begun))))


def main():
    global A, SCRATCH
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("--only", default="")
    A = parser.parse_args()
    with tempfile.TemporaryDirectory() as SCRATCH:
        choose_long()
        return 1 if run_cases(globals(), "case_", A.only) else 0


if __name__ == "__main__":
    sys.exit(main())
