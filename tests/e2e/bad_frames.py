"""What a broken network, or a broken or hostile peer, may make of a hand-off's messages. Python's standard library only.

Each is (name, way, kind, number, change): the n-th message of the kind that goes that way is given to `change`, which returns the bytes that
go on in its place. Names that begin with "forged" have tags that are right again, as a peer without a shared key could make them.
"""
import os
import struct

from relay import OWN

REQUEST, EPOCH, SEQUENCE, BYTES = 8, 16, 24, 32


def spoil(where, at):
    """A bit of it is another."""
    def change(message):
        part = getattr(message, where)
        part[at % len(part)] ^= 0x10
        return message.data()
    return change


def forge(offset, format, value):
    """A number of the head is another, or f(number), and the tag is right."""
    def change(message):
        old = struct.unpack_from(format, message.head, offset)[0]
        struct.pack_into(format, message.head, offset, value(old) if callable(value) else value)
        return message.data() if message.retag() else b""
    return change


def forge_body(f):
    def change(message):
        message.body = bytearray(f(bytes(message.body)))
        message.length = len(message.body)
        struct.pack_into("<Q", message.head, BYTES, message.length)
        return message.data() if message.retag() else b""
    return change


def twice(message):
    return message.data() * 2


def nothing(message):
    return b""


def shorter(message):
    """The length fits the body; both are less than was sent."""
    message.body = message.body[:len(message.body) // 2]
    message.length = len(message.body)
    return message.data()


def longer(message):
    message.body += b"\0" * 64
    message.length = len(message.body)
    return message.data()


def announce(length):
    """More than ever comes; what follows is taken for the body."""
    def change(message):
        message.length = length
        return message.data()
    return change


def noise(message):
    return os.urandom(4096)


def before(extra):
    """Bytes that are no message."""
    return lambda message: extra + message.data()


def is_forged(name):
    return name.startswith("forged")


# What a peer in its right mind could say: it is told no, and the connection goes on.
ANSWERED = {"forged: PREFILL of no vocabulary", "forged: PREFILL of a negative token"}

FROM_P = [
    ("a bit of a payload", "P", "KV", 20, spoil("body", 12345)),
    ("a bit of a chunk's head", "P", "KV", 20, spoil("head", OWN + 8)),
    ("a bit of a tag", "P", "KV", 20, spoil("head", 41)),
    ("a bit of a sequence", "P", "KV", 20, spoil("head", SEQUENCE)),
    ("another version", "P", "KV", 20, spoil("head", 3)),
    ("a chunk twice", "P", "KV", 20, twice),
    ("a chunk is lost", "P", "KV", 20, nothing),
    ("a shorter body", "P", "KV", 20, shorter),
    ("a longer body", "P", "KV", 20, longer),
    ("no body", "P", "KV", 20, lambda m: struct.pack("<Q", 0) + m.head),
    ("64 MiB announced", "P", "KV", 20, announce(64 << 20)),
    ("2^40 bytes announced", "P", "KV", 20, announce(1 << 40)),
    ("2^64 - 1 bytes announced", "P", "KV", 20, announce((1 << 64) - 1)),
    ("noise", "P", "KV", 20, noise),
    ("seven bytes too many", "P", "KV", 20, before(b"\1" * 7)),
    ("a spoilt BEGIN", "P", "BEGIN", 1, spoil("body", 130)),
    ("a spoilt COMMIT", "P", "COMMIT", 1, spoil("head", OWN)),
    ("COMMIT is lost", "P", "COMMIT", 1, nothing),
    ("COMMIT twice", "P", "COMMIT", 1, twice),
    ("forged: another payload's length", "P", "KV", 20, forge(OWN + 16, "<Q", lambda n: n - 64)),
    ("forged: a shorter chunk", "P", "KV", 20, forge_body(lambda b: b[:len(b) // 2])),
    ("forged: a chunk of another layer", "P", "KV", 20, forge(OWN + 4, "<I", lambda n: n ^ 1)),
    ("forged: a chunk of layer 2^31", "P", "KV", 20, forge(OWN + 4, "<I", 1 << 31)),
    ("forged: a chunk of other positions", "P", "KV", 20, forge(OWN + 8, "<I", lambda n: n ^ 64)),
    ("forged: a chunk beyond the prompt", "P", "KV", 20, forge(OWN + 8, "<I", 1 << 20)),
    ("forged: a chunk of 65 tokens", "P", "KV", 20, forge(OWN + 12, "<I", 65)),
    ("forged: a chunk of no tokens", "P", "KV", 20, forge(OWN + 12, "<I", 0)),
    ("forged: an unknown kind", "P", "KV", 20, forge(4, "<H", 99)),
    ("forged: reserved bytes", "P", "KV", 20, forge(104, "<Q", 1)),
    ("forged: sequence + 1", "P", "KV", 20, forge(SEQUENCE, "<Q", lambda n: n + 1)),
    ("forged: HELLO amid it", "P", "KV", 20, forge(4, "<H", 1)),
    ("forged: PREFILL by the peer", "P", "KV", 20, forge(4, "<H", 3)),
    ("forged: another epoch", "P", "COMMIT", 1, forge(EPOCH, "<Q", lambda n: n + 1)),
    ("forged: another request", "P", "COMMIT", 1, forge(REQUEST, "<Q", lambda n: n + 1)),
    ("forged: another digest", "P", "COMMIT", 1, forge(OWN, "<Q", lambda n: n ^ 1)),
    ("forged: another number of chunks", "P", "COMMIT", 1, forge(OWN + 16, "<Q", lambda n: n - 1)),
    ("forged: another image", "P", "BEGIN", 1, forge_body(lambda b: b[:48] + b"\1" + b[49:])),
    ("forged: half an image", "P", "BEGIN", 1, forge_body(lambda b: b[:len(b) // 2])),
    ("forged: no image", "P", "BEGIN", 1, forge_body(lambda b: b"")),
    ("forged: all is ready at the beginning", "P", "BEGIN", 1, forge(OWN, "<I", 0xffffffff)),
    ("forged: 2^31 tokens are cached", "P", "ACCEPT", 1, forge(OWN, "<I", 1 << 31)),
    ("forged: a fault of no kind", "P", "COMMIT", 1, forge(4, "<H", 9)),
]

FROM_D = [
    ("a spoilt PREFILL", "D", "PREFILL", 1, spoil("body", 99)),
    ("PREFILL twice", "D", "PREFILL", 1, twice),
    ("a shorter PREFILL", "D", "PREFILL", 1, shorter),
    ("a PREFILL of 2^40 bytes", "D", "PREFILL", 1, announce(1 << 40)),
    ("noise of the decode worker", "D", "PREFILL", 1, noise),
    ("forged: PREFILL of other tokens", "D", "PREFILL", 1, forge_body(lambda b: b[:40] + struct.pack("<i", 777) + b[44:])),
    ("forged: PREFILL of no vocabulary", "D", "PREFILL", 1, forge_body(lambda b: b[:40] + struct.pack("<i", 1 << 30) + b[44:])),
    ("forged: PREFILL of a negative token", "D", "PREFILL", 1, forge_body(lambda b: b[:40] + struct.pack("<i", -1) + b[44:])),
    ("forged: PREFILL of 2^31 tokens", "D", "PREFILL", 1, forge(OWN + 4, "<I", 1 << 31)),
    ("forged: PREFILL from position 63 on", "D", "PREFILL", 1, forge(OWN, "<I", 63)),
    ("forged: PREFILL of nothing", "D", "PREFILL", 1, forge(OWN, "<I", lambda n: 1 << 16)),
    ("forged: epoch 0", "D", "PREFILL", 1, forge(EPOCH, "<Q", 0)),
    ("forged: a lease of 2^31 bytes", "D", "PREFILL", 1, forge(OWN + 20, "<I", 1 << 31)),
    ("forged: COMMIT by the decode worker", "D", "PREFILL", 1, forge(4, "<H", 8)),
]
