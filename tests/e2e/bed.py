"""What checks of failing hand-offs are made of: a prefill and a decode worker, a bad network between them, one process that is right.
Python's standard library only."""
import itertools
import threading
import time

from relay import Front
from workers import Moved, SLOW, Worker, end_workers, prompt, wait_until

TIMEOUT = 2       # seconds: --handoff-timeout
LONG = 1500       # tokens of a prompt whose transfer can be interrupted
PASS = 128        # tokens of a pass: --chunk
COMMON = ["-t", 1, "--attention", "int8", "--chunk", PASS, "--draft", "off", "--kv-bytes", "96M", "--drain-seconds", 5]
DECODE = ["--role", "decode", "--handoff-timeout", TIMEOUT, "--handoff-tokens", 64]

BUILT = None      # path of mixquant
MODEL = None
_local = {}       # (model, options): one process without hand-offs
kept = []         # those processes: they outlive a bed
_right, _lock = {}, threading.RLock()
_seed = itertools.count(1001)


def setup(binary, model):
    global BUILT, MODEL
    BUILT, MODEL = binary, model


def fresh(tokens=LONG):
    """A prompt that nobody has seen."""
    return prompt(tokens, next(_seed))


def right(ids, tokens=6, model=None, options=()):
    """What one process answers."""
    key = (tuple(ids), tokens, model or MODEL, options)
    with _lock:
        if key not in _right:
            worker = _local.get(key[2:])
            if not worker:
                worker = _local[key[2:]] = Worker(BUILT, model or MODEL, *COMMON, *options, group=kept)
            _right[key] = worker.ask(ids, tokens)
        return _right[key]


def end_kept():
    _local.clear()
    end_workers(group=kept)


class Traps:
    """The hook of a relay: what happens at the n-th message of a kind from now on, once. An action returns what goes on in its place (bytes),
    or None: the message itself."""

    def __init__(self):
        self.lock, self.set_traps = threading.Lock(), []

    def set(self, way, kind, number, action=lambda message: None):
        trap = {"way": way, "kind": kind, "left": number, "action": action, "fired": threading.Event()}
        with self.lock:
            self.set_traps.append(trap)
        return trap["fired"]

    def clear(self):
        with self.lock:
            self.set_traps.clear()

    def __call__(self, message):
        due = []
        with self.lock:
            for trap in self.set_traps:
                if trap["way"] == message.way and trap["kind"] == message.kind:
                    trap["left"] -= 1
                    if trap["left"] == 0:
                        due.append(trap)
            self.set_traps = [t for t in self.set_traps if t["left"] > 0]
        changed = None
        for trap in due:
            changed = trap["action"](message)
            trap["fired"].set()
        return changed


class Asked(threading.Thread):
    """An answer that somebody waits for."""

    def __init__(self, worker, ids, **more):
        super().__init__(daemon=True)
        self.worker, self.ids, self.more, self.answer, self.error = worker, ids, more, None, None
        self.start()

    def run(self):
        try:
            self.answer = self.worker.ask(self.ids, **self.more)
        except Exception as e:
            self.error = e

    def wait(self, seconds=120):
        """None: not yet."""
        self.join(seconds * SLOW)
        if self.error:
            raise self.error
        return self.answer


class Bed:
    def __init__(self, prefill=(), decode=(), more_peers=(), model=None, prefill_model=None, healthy=True, **relay):
        self.traps, self.group, self.front = Traps(), [], None
        self.model, self.fails = model or MODEL, "fail" in decode
        try:
            self.start(prefill, [*DECODE, *decode], more_peers, prefill_model or self.model, relay)
            if healthy:
                wait_until(lambda: self.d.metric("prefill_peers_healthy") == 1 + len(more_peers), 20, "healthy peers")
        except BaseException:
            self.end(False)
            raise

    def start(self, prefill, decode, more_peers, prefill_model, relay):
        self.p = Worker(BUILT, prefill_model, *COMMON, "--role", "prefill", *prefill, group=self.group)
        self.front = Front(("127.0.0.1", self.p.port), hook=self.traps, **relay)
        self.relay = self.front.relay
        peers = [option for peer in (self.front.name, *more_peers) for option in ("--prefill-peer", peer)]
        self.d = Worker(BUILT, self.model, *COMMON, *decode, *peers, group=self.group)

    def more(self, *options, port=None):
        """Another worker, which ends with this bed."""
        return Worker(BUILT, self.model, *COMMON, *options, port=port, group=self.group)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        well = False
        try:
            if not kind:
                self.relay.go()
                for worker in (self.d, self.p):
                    if worker.process.poll() is None:
                        worker.wait_idle()
                well = True
        finally:
            self.end(well)

    def end(self, well):
        try:
            end_workers(well, self.group)
        finally:
            if self.front:
                self.front.close()

    def ask(self, ids=None, where=None, within=None, failures=None, tokens=6, **more):
        """The answer: right, soon enough, and where it should have been prefilled."""
        ids = ids or fresh()
        expected = right(ids, tokens, self.model)
        answer = self.d.ask(ids, tokens, **more).is_as(expected)
        limit = (within or 2 * TIMEOUT + 3) * SLOW + 2 * expected.seconds
        assert answer.seconds < limit, f"it took {answer.seconds:.1f} s, expected {limit:.1f} at most"
        assert where is None or answer.prefill == where, f"prefilled {answer.prefill}, expected {where}: {answer.facts}"
        assert answer.prefill == answer.facts.get("where"), (answer.prefill, answer.facts)
        assert failures is None or answer.facts["transfer_failures"] == failures, answer.facts
        return answer

    def works(self, tokens=LONG):
        """A hand-off, from beginning to end."""
        with Moved(self.d) as d, Moved(self.p) as p:
            ids = fresh(tokens)
            answer = self.ask(ids, "remote", failures=0)
            assert answer.facts["arrived_n"] == tokens - 1, answer.facts
            assert d["handoffs_received_total"] == 1 and d["handoff_received_tokens_total"] == tokens - 1
            p.wait("handoffs_sent_total")
            assert p["handoff_sent_bytes_total"] == d["handoff_received_bytes_total"] > 0
        return answer

    def recovers(self, seconds=30):
        """Answers are right meanwhile (or say why there is none, where that is the policy); at last one is prefilled elsewhere again."""
        def is_remote():
            ids = fresh(300)
            answer = self.d.ask(ids)
            if answer.status == 503 and self.fails:
                return time.sleep(0.1)
            return answer.is_as(right(ids, model=self.model)).prefill == "remote" or time.sleep(0.1)
        wait_until(is_remote, seconds, "a hand-off that works again")
