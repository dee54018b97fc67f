"""A proxy on a loopback port between a client and the server: it notes every exchange, and can swallow what only keeps the client
waiting (the control of the tests: then clients must give up)."""
import gzip
import http.client
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import events

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "accept-encoding", "expect"}


def only_keeps_waiting(frame):
    """Whether a frame of a stream (bytes without its blank line) tells nothing."""
    text = frame.decode("utf-8", "replace")
    parsed = list(events.frames(text + "\n\n"))
    if not parsed:
        return True  # comments
    event, data = parsed[0]
    if event in ("ping", "response.in_progress"):
        return True
    message = json.loads(data) if data.startswith("{") else {}
    if event == "message_delta":
        return message["delta"]["stop_reason"] is None
    choices = message.get("choices") or [{}]
    return message.get("object") == "chat.completion.chunk" and choices[0].get("delta") == {} and not choices[0].get("finish_reason")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def forward(self):
        count = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(count)
        exchange = self.server.wire.note(self, body)
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.wire.port, timeout=900)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        try:
            upstream.request(self.command, self.path, body or None, headers)
            answer = upstream.getresponse()
            exchange["status"] = answer.status
            self.relay(answer, exchange)
        except (ConnectionError, http.client.HTTPException):
            exchange["left"] = True
            self.close_connection = True
        finally:
            exchange["ended"] = time.monotonic()
            upstream.close()

    do_GET = do_POST = do_HEAD = do_DELETE = forward

    def relay(self, answer, exchange):
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP | {"server", "date"}:
                self.send_header(name, value)
        if not (answer.getheader("content-type") or "").startswith("text/event-stream"):
            exchange["answer"] = answer.read()
            self.send_header("Content-Length", str(len(exchange["answer"])))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(exchange["answer"])
            return
        exchange["stream"] = True
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        kept = b""
        while piece := answer.read1(65536):
            exchange["answer"] += piece
            *whole, kept = (kept + piece).split(b"\n\n")
            for frame in whole:
                if not (self.server.wire.mute and only_keeps_waiting(frame)):
                    self.wfile.write(frame + b"\n\n")
                    exchange["told"].append(time.monotonic())
        exchange["complete"] = True


class Wire:
    def __init__(self, port, mute=False):
        self.port, self.mute, self.exchanges, self.lock = port, mute, [], threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.wire = self
        self.base = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def note(self, handler, body):
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        exchange = {
            "method": handler.command, "path": handler.path, "headers": dict(handler.headers.items()), "body": body,
            "begun": time.monotonic(), "answer": b"", "status": 0, "told": [],
        }
        with self.lock:
            self.exchanges.append(exchange)
        return exchange

    def asked(self, part=""):
        """Exchanges that ask for an answer of the model, and have `part` in their body."""
        return [x for x in self.exchanges if x["method"] == "POST" and part.encode() in x["body"] and "count_tokens" not in x["path"]]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def faults(exchange):
    """What is wrong with an exchange, in words; None: nothing."""
    where = f"{exchange['method']} {exchange['path']}"
    if exchange["status"] >= 400 and exchange["path"] != "/":
        return f"{where}: status {exchange['status']}: {exchange['answer'][:300]!r}"
    if not exchange.get("complete"):
        return None  # not a stream, or the client left
    try:
        events.answer_of(exchange["path"], exchange["answer"].decode())
    except events.OutOfOrder as fault:
        return f"{where}: {fault}"
    return None


# ---- what is recorded

PROSE = 240  # characters of a text that are kept
KEPT_HEADERS = re.compile(r"(content-type|accept|anthropic-.*|x-.*|session.*|thread.*|originator|user-agent)$", re.I)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def tidy_text(text, names):
    for name, other in names:
        text = text.replace(name, other)
    text = UUID.sub(lambda found: "00000000-0000-4000-8000-" + f"{sum(map(ord, found[0])):012d}", text)
    text = re.sub(r"\b[0-9a-f]{64}\b", "0" * 64, text)
    return re.sub(r"(Linux|Debian) \d[\w.+-]*", r"\1 0.0", text)


def tidy(value, names, key=""):
    """A JSON value without this machine's names; long texts are cut."""
    if isinstance(value, dict):
        return {name: tidy(member, names, name) for name, member in value.items()}
    if isinstance(value, list):
        return [tidy(member, names, key) for member in value]
    if not isinstance(value, str):
        return value
    text = tidy_text(value, names)
    if len(text) <= PROSE or key == "definition" or text.startswith("{"):
        return text
    return f"{text[:PROSE // 2]} [{len(text) - PROSE // 2} more characters]"


def recorded(exchange, client, names):
    headers = {name.lower(): tidy_text(value, names) for name, value in exchange["headers"].items() if KEPT_HEADERS.match(name)}
    headers.pop("x-api-key", None)
    body = json.loads(exchange["body"])
    return {"client": client, "method": exchange["method"], "path": exchange["path"], "headers": headers, "body": tidy(body, names)}
