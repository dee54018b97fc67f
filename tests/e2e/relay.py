"""A bad network between two workers: a TCP relay that delays, slows down, stalls, cuts, and changes what it carries.

usage: relay.py --listen PORT --to HOST:PORT [--delay SECONDS] [--rate BYTES] | relay.py --self-test
Tests use the classes. A Relay carries bytes, or, with a hook, the messages of a hand-off (src/handoff/protocol.h) one by one: the hook sees
each and says what goes on in its place. A Front is a prefill worker's HTTP server as its decode workers see it: it carries its answers, but
names a relay's port where the worker names its link's. Loopback, Python's standard library only.
"""
import argparse
import ctypes
import json
import queue
import socket
import struct
import sys
import threading
import time

PIECE = 1 << 16           # bytes that are carried at once
LENGTH, HEAD, TAG, OWN = 8, 112, 40, 56
KINDS = ["", "HELLO", "REFUSE", "PREFILL", "ACCEPT", "BEGIN", "KV", "STATE", "COMMIT", "FAIL", "DONE", "CANCEL"]


def reset(s):
    """Ends a connection at once, without a farewell; who waits for it wakes up."""
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.shutdown(socket.SHUT_RD)
    except OSError:
        pass
    s.close()


def hang_up(s):
    """Says that no more comes."""
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def listen(host, port=0, room=0):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if room:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    s.bind((host, port))
    s.listen(64)
    return s


def start(work, *arguments):
    threading.Thread(target=work, args=arguments, daemon=True).start()


# ---------------------------------------------------------------- messages

class Message:
    """One message on its way. `way`: "D" from who connected (a decode worker), "P" from who was connected to."""

    def __init__(self, way, number, length, head, body):
        self.way, self.number, self.length, self.head, self.body = way, number, length, bytearray(head), bytearray(body)

    @property
    def kind(self):
        number = struct.unpack_from("<H", self.head, 4)[0]
        return KINDS[number] if number < len(KINDS) else str(number)

    def data(self):
        return struct.pack("<Q", self.length) + self.head + self.body

    def retag(self):
        """Makes the tag right again, as a peer without a shared key could. False: no libxxhash here."""
        xxh3 = xxh3_128()
        if not xxh3:
            return False
        if self.kind == "KV":  # a chunk's head has a hash of its own
            self.head[OWN + 32:OWN + 48] = xxh3(bytes(self.head[OWN:OWN + 32]) + xxh3(bytes(self.body)))
        covered = bytes(self.head[:TAG]) + bytes(self.head[TAG + 16:])
        self.head[TAG:TAG + 16] = xxh3(covered if self.kind == "KV" else covered + xxh3(bytes(self.body)))
        return True


class Digest(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128():
    try:
        library = ctypes.CDLL("libxxhash.so.0")
    except OSError:
        return None
    library.XXH3_128bits.restype, library.XXH3_128bits.argtypes = Digest, [ctypes.c_char_p, ctypes.c_size_t]

    def digest(data):
        found = library.XXH3_128bits(data, len(data))
        return struct.pack(">QQ", found.high, found.low)
    return digest


def take(s, count):
    """Exactly so many bytes; fewer at the end."""
    data = bytearray()
    while len(data) < count:
        some = s.recv(min(count - len(data), 1 << 20))
        if not some:
            break
        data += some
    return bytes(data)


# ---------------------------------------------------------------- carrying

class Pace:
    """What goes one way shares a rate, in bytes a second; None: any."""

    def __init__(self):
        self.rate, self.free, self.lock = None, 0.0, threading.Lock()

    def wait(self, count):
        with self.lock:
            if not self.rate:
                return
            self.free = max(self.free, time.monotonic()) + count / self.rate
            until = self.free
        time.sleep(max(0.0, until - time.monotonic()))


class Way:
    """One direction of one connection: a thread reads, another writes; between them is a bounded queue."""

    def __init__(self, relay, name, source, target):
        self.relay, self.name, self.source, self.target = relay, name, source, target
        self.queue = queue.Queue(relay.depth)
        start(self.read)
        start(self.write)

    def pieces(self):
        while piece := self.source.recv(PIECE):
            yield piece

    def messages(self):
        number = 0
        while len(before := take(self.source, LENGTH + HEAD)) == LENGTH + HEAD:
            length = struct.unpack_from("<Q", before)[0]
            message = Message(self.name, number, length, before[LENGTH:], take(self.source, length))
            self.relay.seen[message.kind] = self.relay.seen.get(message.kind, 0) + 1
            changed = self.relay.hook(message)
            yield message.data() if changed is None else changed
            number += 1
        yield before

    def read(self):
        try:
            for piece in self.messages() if self.relay.hook else self.pieces():
                self.queue.put((time.monotonic() + self.relay.delay, piece))
        except OSError:
            pass
        self.queue.put((time.monotonic() + self.relay.delay, None))

    def write(self):
        while True:
            at, piece = self.queue.get()
            time.sleep(max(0.0, at - time.monotonic()))
            self.relay.open.wait()
            if piece is None:
                hang_up(self.target)
                return
            try:
                self.send(piece)
            except OSError:
                self.drop()
                return

    def send(self, piece):
        for i in range(0, len(piece), PIECE):
            part = piece[i:i + PIECE]
            self.relay.pace[self.name].wait(len(part))
            self.relay.open.wait()
            self.target.sendall(part)
            self.relay.carried[self.name] += len(part)

    def drop(self):
        """Nobody takes it any more: nobody shall send it, and a reader that waits for room goes on."""
        reset(self.source)
        while self.queue.get()[1] is not None:
            pass


class Relay:
    """mode: "pass"; "silent": takes connections and says nothing; "close": takes and drops them; "refuse": does not listen. room: bytes
    that the kernel holds before it, depth: pieces, or messages, that it holds itself; both in each direction."""

    def __init__(self, target, host="127.0.0.1", port=0, hook=None, room=1 << 18, depth=8):
        self.target, self.host, self.hook, self.room, self.depth = target, host, hook, room, depth
        self.delay, self.mode = 0.0, "pass"
        self.open = threading.Event()
        self.open.set()
        self.connections, self.seen, self.lock, self.live = 0, {}, threading.Lock(), []
        self.pace, self.carried = {"D": Pace(), "P": Pace()}, {"D": 0, "P": 0}
        self.listener = listen(host, port, room)
        self.port = self.listener.getsockname()[1]
        start(self.accept, self.listener)

    def set_rate(self, bytes_a_second):
        for pace in self.pace.values():
            pace.rate = bytes_a_second

    def stall(self):
        """As a partition: nothing passes, no end of a connection either."""
        self.open.clear()

    def go(self):
        self.open.set()

    def set_mode(self, mode):
        before, self.mode = self.mode, mode
        if mode == "refuse" and before != mode:
            self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        if before == "refuse" and mode != before:
            self.listener = listen(self.host, self.port, self.room)
            start(self.accept, self.listener)

    def cut(self):
        """Ends all connections."""
        with self.lock:
            live, self.live = self.live, []
        for s in live:
            reset(s)

    def close(self):
        self.set_mode("refuse")
        self.cut()
        self.go()

    def accept(self, listener):
        while True:
            try:
                s, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            start(self.carry, s)

    def keep(self, *sockets):
        for s in sockets:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.live = [s for s in self.live if s.fileno() >= 0] + list(sockets)

    def carry(self, s):
        self.keep(s)
        if self.mode == "close":
            reset(s)
        if self.mode != "pass":
            return
        try:
            peer = socket.socket()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.room)
            peer.settimeout(10)
            peer.connect(self.target)
            peer.settimeout(None)
        except OSError:
            reset(s)
            return
        self.keep(peer)
        Way(self, "D", s, peer)
        Way(self, "P", peer, s)


# ---------------------------------------------------------------- HTTP in front of a prefill worker

class Front:
    """Answers GETs as the worker at `target` does, its link's port replaced by that of `relay` (made when the worker names it).
    mode: "pass", "silent", "close"."""

    def __init__(self, target, **options):
        self.target, self.mode, self.relay = target, "pass", Relay(("127.0.0.1", 9), **options)
        self.listener = listen("127.0.0.1")
        self.port, self.kept = self.listener.getsockname()[1], []
        start(self.accept)

    @property
    def name(self):
        return f"127.0.0.1:{self.port}"

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            start(self.answer, s)

    def fetch(self, path):
        with socket.create_connection(self.target, timeout=10) as s:
            s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while some := s.recv(PIECE):
                data += some
        return data

    def rewritten(self, data):
        head, _, body = data.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            return data
        facts = json.loads(body)
        self.relay.target = (self.target[0], facts["link"]["port"])
        facts["link"]["port"] = self.relay.port
        body = json.dumps(facts).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    def answer(self, s):
        if self.mode == "silent":
            self.kept.append(s)
            return
        try:
            if self.mode == "pass":
                s.settimeout(10)
                request = b""
                while b"\r\n\r\n" not in request:
                    some = s.recv(PIECE)
                    if not some:
                        raise OSError
                    request += some
                path = request.split(b" ")[1].decode("latin-1")
                s.sendall(self.rewritten(self.fetch(path)) if path == "/internal/link" else self.fetch(path))
                s.close()
                return
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            pass
        reset(s)

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.relay.close()
        for s in self.kept:
            s.close()


# ---------------------------------------------------------------- a test of it

class Echo:
    """Sends back what it gets."""

    def __init__(self):
        self.listener = listen("127.0.0.1")
        self.address = self.listener.getsockname()
        start(self.accept)

    def accept(self):
        while True:
            s, _ = self.listener.accept()
            start(self.echo, s)

    @staticmethod
    def echo(s):
        try:
            while some := s.recv(PIECE):
                s.sendall(some)
        except OSError:
            pass
        s.close()


def dial(relay, seconds=20):
    return socket.create_connection(("127.0.0.1", relay.port), timeout=seconds)


def through(relay, data):
    """What comes back, and how long it took."""
    with dial(relay) as s:
        begun = time.monotonic()
        start(lambda: (s.sendall(data), hang_up(s)))
        got = take(s, len(data) + 1)
        return got, time.monotonic() - begun


def is_gone(s):
    try:
        return s.recv(1) == b""
    except socket.timeout:
        return False
    except OSError:
        return True


def is_gone_at_once(relay):
    try:
        with dial(relay, 0.5) as s:
            return is_gone(s)
    except ConnectionResetError:  # before connect has returned
        return True


def check_bytes():
    relay, data = Relay(Echo().address), bytes(range(256)) * 4096
    assert through(relay, data)[0] == data and relay.carried == {"D": len(data), "P": len(data)}, relay.carried
    relay.delay = 0.2
    got, seconds = through(relay, b"x")
    assert got == b"x" and 0.4 <= seconds < 2, seconds
    relay.delay = 0
    relay.pace["P"].rate = 1 << 20
    got, seconds = through(relay, data)
    assert got == data and 0.9 <= seconds < 4, seconds
    relay.close()


def check_ends():
    relay = Relay(Echo().address)
    with dial(relay) as s:
        s.sendall(b"a")
        assert s.recv(1) == b"a"
        relay.stall()
        s.sendall(b"b")
        s.settimeout(0.3)
        assert not is_gone(s), "the stalled relay ends it"
        relay.go()
        s.settimeout(5)
        assert s.recv(1) == b"b", "what was held does not come"
        relay.cut()
        assert is_gone(s)
    for mode, expected in (("close", True), ("silent", False)):
        relay.set_mode(mode)
        assert is_gone_at_once(relay) == expected, mode
    relay.set_mode("refuse")
    try:
        dial(relay).close()
        raise AssertionError("it listens")
    except ConnectionRefusedError:
        relay.set_mode("pass")
    assert through(relay, b"again")[0] == b"again"
    relay.close()


def a_message(kind, body=b""):
    head = bytearray(HEAD)
    head[:4] = b"MQH1"
    struct.pack_into("<H", head, 4, KINDS.index(kind))
    message = Message("D", 0, len(body), head, body)
    message.retag()
    return message.data()


def check_messages():
    def hook(message):
        if message.way == "P":
            return None
        if message.kind == "STATE":
            return b""
        if message.kind == "KV":
            message.body[0] ^= 1
        return message.data() * (2 if message.kind == "DONE" else 1)

    relay = Relay(Echo().address, hook=hook)
    kv, done = a_message("KV", b"\0" * 100_000), a_message("DONE")
    got = through(relay, a_message("HELLO", b"hi") + a_message("STATE") + kv + done)[0]
    spoilt = kv[:LENGTH + HEAD] + b"\1" + kv[LENGTH + HEAD + 1:]
    assert got == a_message("HELLO", b"hi") + spoilt + done + done
    assert relay.seen == {"HELLO": 2, "STATE": 1, "KV": 2, "DONE": 3}, relay.seen
    relay.close()


def check_front():
    def serve(listener):
        while True:
            s, _ = listener.accept()
            s.recv(PIECE)
            body = b'{"role": "prefill", "link": {"transport": "tcp", "port": 7}}'
            s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            s.close()

    listener = listen("127.0.0.1")
    start(serve, listener)
    front = Front(listener.getsockname())
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as s:
        s.sendall(b"GET /internal/link HTTP/1.1\r\n\r\n")
        facts = json.loads(take(s, 1 << 20).partition(b"\r\n\r\n")[2])
    assert facts == {"role": "prefill", "link": {"transport": "tcp", "port": front.relay.port}} and front.relay.target[1] == 7, facts
    front.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--listen", type=int, default=0)
    parser.add_argument("--to")
    parser.add_argument("--delay", type=float, default=0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if arguments.self_test:
        for check in (check_bytes, check_ends, check_messages, check_front):
            check()
            print(f"ok     {check.__name__[6:]}", flush=True)
        return 0
    if not arguments.to:
        parser.error("--to: expected HOST:PORT, got nothing")
    host, port = arguments.to.rsplit(":", 1)
    relay = Relay((host, int(port)), port=arguments.listen)
    relay.delay = arguments.delay
    relay.set_rate(arguments.rate)
    print(f"127.0.0.1:{relay.port}", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main())
