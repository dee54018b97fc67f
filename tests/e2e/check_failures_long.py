"""Hand-offs for a long time; not part of `make check`.

usage: check_failures_long.py MIXQUANT MODEL [kills] [many] [idle] [--kills 200] [--many 100000] [--idle 3660] [--link tcp|shm|ucx]
    kills   kill -9 of the prefill worker, sometimes of the decode worker, at random moments: right answers or none, in time
    many    hand-offs on one connection: each answer is right; memory, handles and threads do not grow
    idle    seconds without a request, then the next: with a connection that was closed meanwhile, and with one that was not
Python's standard library only.
"""
import argparse
import contextlib
import http.client
import random
import signal
import sys
import threading
import time

import bed
from bed import COMMON, DECODE, TIMEOUT, Bed, end_kept, fresh, right
from workers import SLOW, Moved, Worker, end_workers, prompt, wait_until

A = None


def pair(*prefill):
    p = Worker(bed.BUILT, bed.MODEL, *COMMON, "--role", "prefill", "--link", A.link, *prefill)
    d = Worker(bed.BUILT, bed.MODEL, *COMMON, *DECODE, "--link", A.link, "--prefill-peer", f"127.0.0.1:{p.port}")
    return p, d


def is_remote(d):
    ids = fresh(300)
    return d.ask(ids).is_as(right(ids)).prefill == "remote" or time.sleep(0.05)


def kill_one(p, d, rng, outcomes):
    ids = fresh(rng.choice((300, 700, 1500, 3000)))
    expected = right(ids)
    victim = d if rng.random() < 0.2 else p
    timer = threading.Timer(rng.random() * 1.3 * expected.seconds, victim.kill)
    timer.start()
    begun, outcome = time.monotonic(), "no answer"
    with contextlib.suppress(OSError, http.client.HTTPException):
        outcome = d.ask(ids).is_as(expected).prefill
    seconds = time.monotonic() - begun
    assert outcome != "no answer" or victim is d, "the decode worker lives and says nothing"
    assert seconds < 2 * TIMEOUT + 3 * SLOW + 3 * expected.seconds, f"it took {seconds:.1f} s"
    timer.join()
    victim.process.wait()
    other = p if victim is d else d
    other.wait_idle(2 * TIMEOUT + 5)
    victim.start()
    wait_until(lambda: is_remote(d), 40, "a hand-off after a restart")
    p.wait_idle()
    d.wait_idle()
    name = f"{'decode' if victim is d else 'prefill'} killed: {outcome}"
    outcomes[name] = outcomes.get(name, 0) + 1


def long_kills():
    rng, outcomes = random.Random(1), {}
    p, d = pair()
    wait_until(lambda: is_remote(d), 30, "a hand-off")
    for i in range(A.kills):
        kill_one(p, d, rng, outcomes)
        if (i + 1) % 20 == 0:
            print(f"   {i + 1}: {outcomes}", flush=True)
    return outcomes


def facts(*workers):
    return [value for w in workers for value in (w.memory() >> 20, w.handles(), w.threads())]


def long_many():
    """Prompts of one to three blocks. They repeat, but not before both caches have forgotten them: each is computed, sent and compared."""
    with Bed(prefill=["--kv-bytes", "8M"], decode=["--kv-bytes", "8M"]) as b:
        kinds = [prompt(70 + 37 * i % 97, 10_000_000 + i) for i in range(300)]
        expected = [right(ids, 2) for ids in kinds]
        begun, early = time.monotonic(), None
        with Moved(b.d) as d, Moved(b.p) as p:
            for i in range(A.many):
                answer = b.d.ask(kinds[i % 300], 2).is_as(expected[i % 300])
                assert answer.prefill == "remote", (i, answer.facts)
                if i == A.many // 10:
                    early = facts(b.p, b.d)
                if (i + 1) % 10000 == 0:
                    print(f"   {i + 1}: {(i + 1) / (time.monotonic() - begun):.0f} a second, {b.relay.connections} connections, "
                          f"MiB, handles, threads of both: {facts(b.p, b.d)}", flush=True)
            late = facts(b.p, b.d)
            assert d["handoffs_received_total"] == A.many and d["handoff_receive_failures_total"] == 0
            p.wait("handoffs_sent_total", A.many)
        assert all(after <= before * 1.1 + 8 for before, after in zip(early, late)), (early, late)
        return f"{b.relay.connections} connections"


def long_idle():
    """All at once: one connection that is closed while it idles, one that stays."""
    with Bed() as b:
        p, d = pair("--handoff-idle", A.idle + 600)
        stays = Worker(bed.BUILT, bed.MODEL, *COMMON, *DECODE, "--handoff-idle", A.idle + 600, "--prefill-peer", f"127.0.0.1:{p.port}")
        for worker in (d, stays):
            wait_until(lambda: is_remote(worker), 30, "a hand-off")
        b.works()
        before = facts(b.p, b.d, p, d, stays)
        time.sleep(A.idle)
        b.works()
        for worker in (d, stays):
            ids = fresh()
            answer = worker.ask(ids).is_as(right(ids))
            assert answer.prefill == "remote" and answer.facts["transfer_failures"] == 0, answer.facts
            assert answer.seconds < 3 * SLOW + 3 * right(ids).seconds, answer.seconds
        after = facts(b.p, b.d, p, d, stays)
        most = [x * 1.1 + (32, 4, 4)[i % 3] for i, x in enumerate(before)]  # MiB: blocks that were not touched before
        assert all(y <= limit for y, limit in zip(after, most)), (before, after)
        return f"{b.relay.connections} connections of the first"


def main():
    global A
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("which", nargs="*", default=[])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--idle", type=float, default=3660)
    parser.add_argument("--link", default="tcp")
    A = parser.parse_args()
    bed.setup(A.mixquant, A.model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # workers end, too
    well = False
    try:
        for name in A.which or ["kills", "many", "idle"]:
            begun = time.monotonic()
            note = globals()["long_" + name]()
            end_workers()
            print(f"ok     {name} ({time.monotonic() - begun:.0f} s): {note}", flush=True)
        well = True
    finally:
        end_workers(well)
        end_kept()
    return 0


if __name__ == "__main__":
    sys.exit(main())
