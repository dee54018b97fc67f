"""What the checks of the HTTP server share: raw sockets, answers, the server's own figures, and a `mixquant serve` of one's own.
Python's standard library only, loopback only."""
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import traceback


class Target:
    """Where the server is; what stands in every request."""

    def __init__(self):
        self.host, self.port, self.path, self.tls, self.key = "127.0.0.1", 0, None, None, ""


at = Target()

# ---------------------------------------------------------------- sockets


def connect(timeout=10):
    if at.path:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(timeout)
        s.connect(at.path)
        return s
    s = socket.create_connection((at.host, at.port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return at.tls.wrap_socket(s, server_hostname="localhost") if at.tls else s


def reset(s):
    """Ends a connection at once, without a farewell."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()


def head(method, path, headers=(), length=None, host="localhost", key=None):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    key = at.key if key is None else key
    if key:
        lines.append(f"Authorization: Bearer {key}")
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
        while (found := self.rest.find(mark)) < 0:
            self.more()
        before, self.rest = self.rest[:found], self.rest[found + len(mark):]
        return before

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

    def head(self):
        lines = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(lines[0].split()[1])
        return status, {k.lower(): v for k, v in (line.split(": ", 1) for line in lines[1:])}

    def answer(self, has_body=True):
        status, headers = self.head()
        while status == 100:
            status, headers = self.head()
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


def begin_stream(s, body, path="/v1/chat/completions"):
    """Up to the end of the headers."""
    s.sendall(post(path, {**body, "stream": True}))
    reader = Reader(s)
    status, _ = reader.head()
    assert status == 200, status
    return reader


def events(reader):
    """The data of a stream's events, as JSON, until [DONE]."""
    rest = b""
    for chunk in reader.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                yield json.loads(line[6:])


# ---------------------------------------------------------------- what the server says of itself

def metrics():
    """Every number without labels, or with those of the model only."""
    status, _, body = ask(head("GET", "/metrics"))
    assert status == 200, status
    found = re.findall(r"^([A-Za-z_:]+)(?:\{model_name=\"[^\"]*\"\})? ([0-9.e+-]+)$", body.decode(), re.M)
    return {name: float(value) for name, value in found}


def wait_idle(seconds=30):
    """No slot is stuck, and nothing but the prefix cache holds blocks."""
    end = time.time() + seconds
    while True:
        m = metrics()
        busy = m["llamacpp:requests_processing"] + m["llamacpp:requests_deferred"]
        held = m["mixquant:kv_blocks"] - m["mixquant:kv_blocks_free"] - m["mixquant:kv_blocks_cached"]
        if busy == 0 and held <= 0:
            return m
        assert time.time() < end, f"{busy:.0f} requests still run, {held:.0f} blocks are held"
        time.sleep(0.05)


def check_healthy(within=2):
    begun = time.time()
    status, _, body = ask(head("GET", "/health"), 10)
    assert status == 200, (status, body)
    assert time.time() - begun < within, f"/health took {time.time() - begun:.1f} s"


def chat(text, **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def words(count, seed):
    """Text of about so many words that no other seed begins like."""
    return " ".join(f"w{(seed * 7919 + i * 104729) % 9973}" for i in range(count))


def check_answers():
    status, _, body = ask(post("/v1/chat/completions", chat("Hello.", max_tokens=2)))
    assert status == 200, (status, body)
    assert json.loads(body)["choices"], body


# ---------------------------------------------------------------- running

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


def free_port(host="127.0.0.1"):
    with socket.socket() as s:
        s.bind((host, 0))
        return s.getsockname()[1]


class Served:
    """A `mixquant serve` of one's own. As `with`, it must end well, and without a sanitizer's word; `at` points to it."""

    def __init__(self, binary, model, *options, port=None, path=None, tls=None, key="", ends_with=(0,)):
        self.scratch = tempfile.TemporaryDirectory()
        self.log = tempfile.TemporaryFile()
        self.ends_with = ends_with
        at.port, at.path, at.tls, at.key = port or free_port(), path, tls, key
        where = ["--unix-socket", path] if path else ["--port", at.port]
        command = [binary, "serve", "-m", model, *where, *options]
        # A sanitizer's quarantine would look like a leak.
        asan = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8:allocator_release_to_os_interval_ms=500"
        self.process = subprocess.Popen([str(c) for c in command], stdout=self.log, stderr=self.log,
                                        env={**os.environ, "XDG_CACHE_HOME": self.scratch.name, "ASAN_OPTIONS": asan})

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_ready(self):
        end = time.time() + 120
        while True:
            assert self.process.poll() is None and time.time() < end, "the server did not come up:\n" + self.text()
            with contextlib.suppress(OSError, EOFError, ssl.SSLError):
                if ask(head("GET", "/health"), 5)[0] == 200:
                    return
            time.sleep(0.05)

    def wait_log(self, text, seconds=20):
        end = time.time() + seconds
        while text not in self.text():
            assert time.time() < end, f"expected {text!r} in the log, got:\n{self.text()[-2000:]}"
            time.sleep(0.02)

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def memory(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) << 10

    def handles(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def handle_kinds(self):
        """What they are, counted. `socket 08 rx 0` is one whose client has hung up, all of it read (numbers: Linux's tcp_states.h)."""
        folder, states, kinds = f"/proc/{self.process.pid}", {}, {}
        with open(f"{folder}/net/tcp") as f:
            for line in f.readlines()[1:]:
                words = line.split()
                states[f"socket:[{words[9]}]"] = f"socket {words[3]} rx {int(words[4].split(':')[1], 16)}"
        for name in os.listdir(f"{folder}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"{folder}/fd/{name}")
                kind = states.get(target, target)
                kinds[kind] = kinds.get(kind, 0) + 1
        return kinds

    def end(self):
        if self.process.poll() is None:
            self.signal()
        code = self.process.wait(60)
        complaints = re.findall(r".*(?:Sanitizer|runtime error|Assertion).*", self.text())
        assert code in self.ends_with and not complaints, f"exit {code}: {complaints[:5]}"
        assert not at.key or at.key not in self.text(), "the key stands in the log"

    def __enter__(self):
        try:
            self.wait_ready()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, error, trace):
        try:
            if not kind:
                self.end()
        finally:
            if kind or self.process.returncode not in self.ends_with:
                sys.stderr.write(self.text()[-4000:])
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.log.close()
            self.scratch.cleanup()


def run_cases(functions, prefix, only=""):
    """Runs those whose names begin so, in their order; prints a line each; returns how many failed."""
    failed = 0
    for name, function in list(functions.items()):
        if not name.startswith(prefix) or only not in name:
            continue
        begun = time.time()
        try:
            note = function() or ""
            print(f"ok     {name[len(prefix):].replace('_', ' ')} ({time.time() - begun:.1f} s){': ' if note else ''}{note}", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name[len(prefix):].replace('_', ' ')}", flush=True)
            traceback.print_exc()
    return failed
