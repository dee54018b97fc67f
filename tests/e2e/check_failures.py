"""Hand-offs of KV that fail: whatever breaks, the answer is that of one process, or a clear error, in time, and all blocks come back.

usage: check_failures.py MIXQUANT MODEL [--only NAME] [--many HAND-OFFS]
Real processes on loopback, with relay.py between them; the partition needs root, for network namespaces. Python's standard library only;
haproxy, the program, where a decode worker dies. Every function named case_* runs.
"""
import argparse
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import bed
from bad_frames import ANSWERED, FROM_D, FROM_P, is_forged
from bed import Asked, COMMON, DECODE, LONG, PASS, TIMEOUT, Bed, end_kept, fresh, right
from hosts import Hosts, Unavailable
from http_wire import in_threads
from relay import xxh3_128
from workers import BLOCK, Moved, SLOW, Worker, ask_body, end_workers, free_port, wait_until

A = None        # the arguments
SCRATCH = None  # a folder
CHUNKS = 192    # of a LONG prompt: 24 blocks in 8 layers
MIDDLE = 60     # of them: some passes are whole by then


@contextlib.contextmanager
def ended(group):
    """Workers that end with what is done with them."""
    well = False
    try:
        yield
        well = True
    finally:
        end_workers(well, group)


def scratch(name, data):
    path = os.path.join(SCRATCH, name)
    with open(path, "wb") as f:
        f.write(data)
    return path


# ---------------------------------------------------------------- the prefill worker dies

def case_all_is_well():
    with Bed() as b:
        b.works()
        known = fresh()
        b.ask(known, "remote")
        with Moved(b.d) as d:  # what is cached is not sent for
            longer = known + fresh(400)
            answer = b.ask(longer, "remote")
            assert answer.facts["arrived_n"] == len(longer) - 1 - LONG // BLOCK * BLOCK, answer.facts
            assert d["handoff_received_tokens_total"] == answer.facts["arrived_n"]
            b.ask(known + [301], None)
        with Moved(b.d) as d:  # too short to be worth it
            b.ask(fresh(40), "local", failures=0)
            assert d["handoffs_received_total"] == 0
        assert b.relay.connections == 1, b.relay.connections


def dies_at(way, kind, number, forwards=True):
    with Bed() as b, Moved(b.d) as d:
        fired = b.traps.set(way, kind, number, lambda m: b.p.kill() or (None if forwards else b""))
        answer = b.ask(within=TIMEOUT + 2)
        assert fired.is_set()
        computed = d.worker.metrics()["llamacpp:prompt_tokens_total"] - d.before["llamacpp:prompt_tokens_total"]
        moved = {name: d[name] for name in ("handoff_receive_failures_total", "handoffs_received_total", "transfers_failed_total")}
        b.ask(where="local", within=2)  # its address is refused
        b.d.wait_idle()
        b.p.process.wait()
        b.p.start()
        b.recovers()
        b.works()
        return answer, moved, computed


def is_made_up_for(answer, moved, where="local"):
    assert answer.prefill == where and answer.facts["transfer_failures"] == 1, answer.facts
    assert moved == {"handoff_receive_failures_total": 1, "handoffs_received_total": 0, "transfers_failed_total": 1}, moved


def case_prefill_killed_before():
    answer, moved, computed = dies_at("D", "PREFILL", 1)
    is_made_up_for(answer, moved)
    assert answer.facts["arrived_n"] == 0 and computed == LONG - 1, (answer.facts, computed)


def case_prefill_killed_during():
    answer, moved, computed = dies_at("P", "KV", MIDDLE)
    is_made_up_for(answer, moved)
    kept = answer.facts["arrived_n"]
    assert PASS <= kept < LONG - 1 and kept % BLOCK == 0, answer.facts
    assert computed == LONG - 1 - kept, (computed, kept)  # on from the last whole chunk
    return f"{kept} of {LONG} tokens are kept"


def case_prefill_killed_before_it_commits():
    answer, moved, computed = dies_at("P", "COMMIT", 1, forwards=False)
    is_made_up_for(answer, moved, "remote")  # each chunk came, and each was right
    assert answer.facts["arrived_n"] == LONG - 1 and computed == 0, (answer.facts, computed)


def case_prefill_killed_after_it_commits():
    answer, moved, computed = dies_at("D", "DONE", 1, forwards=False)
    assert answer.prefill == "remote" and moved["handoffs_received_total"] == 1 and computed == 0, (answer.facts, moved, computed)


def case_another_prefills_instead():
    port = free_port()
    with Bed(more_peers=[f"127.0.0.1:{port}"], healthy=False) as b:
        other = b.more("--role", "prefill", port=port)
        wait_until(lambda: b.d.metric("prefill_peers_healthy") == 2, 20, "healthy peers")
        failed = remote = 0
        for _ in range(4):  # whoever is asked first
            fired = b.traps.set("P", "KV", MIDDLE, lambda m: b.p.kill())
            answer = b.ask(where="remote", within=TIMEOUT + 2)
            if fired.is_set():
                failed += 1
                assert answer.facts["transfer_failures"] == 1 and answer.facts["arrived_n"] == LONG - 1, answer.facts
                b.p.process.wait()
                break
            remote += 1
        assert failed == 1, f"{remote} answers, none by the first worker"
        b.ask(where="remote", failures=0, within=2)
        other.wait_idle()


def case_a_failure_fails_where_that_is_wanted():
    with Bed(decode=["--on-transfer-failure", "fail"]) as b:
        b.works()
        fired = b.traps.set("P", "KV", MIDDLE, lambda m: b.p.kill())
        answer = b.d.ask(fresh())
        assert fired.is_set() and answer.status == 503 and answer.body["error"]["code"] == "kv_transfer_failed", (answer.status, answer.body)
        assert int(answer.headers["retry-after"]) > 0 and answer.message, answer.headers
        assert answer.seconds < TIMEOUT + 2 * SLOW
        b.p.process.wait()
        begun = time.monotonic()
        answer = b.d.ask(fresh())  # nobody is there
        assert answer.status in (200, 503) and time.monotonic() - begun < TIMEOUT + 3 * SLOW, (answer.status, answer.body)
        b.p.start()
        wait_until(lambda: b.d.ask(fresh(300)).status == 200, 30)
        b.works()
        return f"{answer.status} where nobody is there"


# ---------------------------------------------------------------- it hangs, or the network does

def hangs(stop, go):
    """`stop` in the midst of a transfer; after the answer is there, and others have used the blocks, `go`."""
    with Bed() as b:
        b.works()
        ids = fresh()
        fired = b.traps.set("P", "KV", MIDDLE, lambda m: stop(b))
        with Moved(b.d) as d:
            answer = b.ask(ids, "local", within=2 * TIMEOUT + 2, failures=1)
            assert fired.is_set() and answer.seconds >= 0.8 * TIMEOUT, answer.seconds
            assert d["handoff_receive_failures_total"] == 1
        others = [fresh() for _ in range(4)]
        before = [b.ask(o, "local") for o in others]
        b.d.wait_idle()
        go(b)
        time.sleep(1)  # what was held comes now
        for other, answer in zip(others, before):
            b.d.ask(other).is_as(answer)
        b.ask(ids)
        b.recovers()
        b.works()


def case_prefill_stopped():
    hangs(lambda b: b.p.signal(signal.SIGSTOP), lambda b: b.p.signal(signal.SIGCONT))


def case_network_stalls():
    hangs(lambda b: b.relay.stall(), lambda b: b.relay.go())


def case_a_short_stall_is_waited_for():
    with Bed() as b:
        fired = b.traps.set("P", "KV", MIDDLE, lambda m: b.relay.stall() or threading.Timer(TIMEOUT / 2, b.relay.go).start())
        answer = b.ask(where="remote", failures=0)
        assert fired.is_set() and answer.seconds > TIMEOUT / 2
        assert b.relay.connections == 1


def case_late_chunks_are_not_applied():
    """A client leaves; the next prompt has the same blocks, and the chunks of the one before come on the same connection."""
    with Bed(decode=["--kv-bytes", "24M"], depth=256) as b:  # 48 blocks: two such prompts
        b.works()
        for _ in range(3):
            b.relay.delay = 0.4
            fired = b.traps.set("P", "KV", MIDDLE)
            leave = b.d.leave(fresh())
            assert fired.wait(10)
            left = b.relay.seen["KV"]
            leave()
            b.ask(where="remote", failures=0, within=8)
            b.relay.delay = 0
            b.ask(where="remote", failures=0)
            late = b.relay.seen["KV"] - left - 2 * CHUNKS
            assert late > 0, "no chunk came late"
        assert b.relay.connections == 1, b.relay.connections
        return f"{late} of {CHUNKS} chunks came late"


def case_partition():
    """The cable is pulled between two hosts."""
    try:
        with Hosts() as hosts:
            partition(hosts)
    except Unavailable as e:
        return f"skipped: {e}"


def partition(hosts):
    key, group, a = scratch("key", b"a secret of both sides"), [], hosts.address["a"]
    prefill = Worker(bed.BUILT, bed.MODEL, *COMMON, "--role", "prefill", "--host", a, "--insecure", "--link-host", a, "--peer-key-file", key, host=a,
                     enter=lambda c: hosts.enter("a", c), dial=lambda to, timeout: hosts.dial("a", to, timeout), group=group)
    decode = Worker(bed.BUILT, bed.MODEL, *COMMON, *DECODE, "--prefill-peer", f"{a}:{prefill.port}", "--peer-key-file", key,
                    enter=lambda c: hosts.enter("b", c), dial=lambda to, timeout: hosts.dial("b", to, timeout), group=group)

    def ask(where, ids=None):
        ids = ids or fresh()
        answer = decode.ask(ids).is_as(right(ids))
        assert where is None or answer.prefill == where, (answer.prefill, answer.facts)
        return answer

    with ended(group):
        wait_until(lambda: decode.metric("prefill_peers_healthy") == 1, 20, "a healthy peer")
        ask("remote")
        hosts.rate("40mbit")  # a transfer of 2.4 s
        threading.Timer(0.8, hosts.pull).start()
        answer = ask("local")
        assert answer.facts["transfer_failures"] == 1 and answer.seconds < 0.8 + 2 * TIMEOUT + 2 * SLOW, (answer.facts, answer.seconds)
        assert ask("local").seconds < 2 * TIMEOUT + 2 * SLOW
        decode.wait_idle()
        hosts.rate(None)
        hosts.plug()
        wait_until(lambda: ask(None, fresh(300)).prefill == "remote" or time.sleep(0.1), 40, "a hand-off that works again")
        prefill.wait_idle(40)


# ---------------------------------------------------------------- the decode worker dies, or its client leaves

def case_decode_killed():
    with Bed() as b:
        b.works()
        with Moved(b.p) as p:
            fired = b.traps.set("P", "KV", MIDDLE, lambda m: b.d.kill())
            with contextlib.suppress(OSError, http.client.HTTPException):
                b.d.ask(fresh())
            assert fired.is_set()
            b.p.wait_idle(5)
            assert p["handoff_send_failures_total"] == 1
        b.d.process.wait()
        b.d.start()
        wait_until(lambda: b.d.metric("prefill_peers_healthy") == 1, 20, "a healthy peer")
        b.works()


HAPROXY = """
global
    tune.bufsize 65536
defaults
    mode http
    retries 2
    retry-on conn-failure empty-response response-timeout 0rtt-rejected
    option redispatch 1
    option http-buffer-request
    timeout connect 2s
    timeout client 60s
    timeout server 60s
frontend edge
    bind 127.0.0.1:{port}
    default_backend decode
backend decode
    balance first
    default-server check inter 200ms fall 2 rise 1
    server one 127.0.0.1:{one}
    server two 127.0.0.1:{two}
"""


@contextlib.contextmanager
def edge(one, two):
    port = free_port()
    path = scratch("haproxy.cfg", HAPROXY.format(port=port, one=one, two=two).encode())
    with open(os.path.join(SCRATCH, "haproxy.log"), "wb") as log:
        proxy = subprocess.Popen([shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", path], stdout=log, stderr=log)
    try:
        time.sleep(0.5)
        assert proxy.poll() is None, open(log.name).read()
        yield port
    finally:
        proxy.terminate()
        proxy.wait()


def case_decode_killed_behind_a_proxy():
    if not (shutil.which("haproxy") or os.path.exists("/usr/sbin/haproxy")):
        return "skipped: no haproxy here"
    with Bed() as b:
        other = b.more(*DECODE, "--prefill-peer", b.front.name)
        wait_until(lambda: other.metric("prefill_peers_healthy") == 1, 20, "a healthy peer")
        with edge(b.d.port, other.port) as port:
            client = Worker.__new__(Worker)
            client.host, client.port, client.dial = "127.0.0.1", port, None
            for streams in (False, True):  # nothing was streamed: it is asked again
                ids = fresh()
                fired = b.traps.set("P", "KV", MIDDLE, lambda m: b.d.kill())
                if streams:
                    connection, answer = client.stream(ids)
                    text = answer.read().decode()
                    connection.close()
                    assert answer.status == 200 and "[DONE]" in text, (answer.status, text)
                    got = "".join(json.loads(line[6:])["choices"][0]["text"] for line in text.split("\n")
                                  if line.startswith("data: {") and json.loads(line[6:]).get("choices"))
                    assert got == right(ids).text, got
                else:
                    client.ask(ids).is_as(right(ids))
                assert fired.is_set()
                b.d.restart()
                wait_until(lambda: b.d.metric("prefill_peers_healthy") == 1, 20, "a healthy peer")
                time.sleep(1)  # the proxy sees it
            connection, answer = client.stream(fresh(300), tokens=3000)  # else the stream ends, and not as if it were whole
            for line in answer:
                if line.startswith(b"data: {"):
                    break
            b.d.kill()
            rest = b""
            with contextlib.suppress(OSError, http.client.HTTPException):
                rest = answer.read()
            assert b"[DONE]" not in rest
            connection.close()
            b.d.process.wait()
        b.p.wait_idle()


def case_client_leaves_while_prefill_streams():
    with Bed(prefill=["--chunk", 64]) as b:
        b.works()
        with Moved(b.p) as p:
            ids = fresh(3900)
            fired = b.traps.set("P", "KV", MIDDLE)
            leave = b.d.leave(ids)
            assert fired.wait(20)
            leave()
            b.d.wait_idle(3)
            b.p.wait_idle(3)
            computed = p.worker.metrics()["llamacpp:prompt_tokens_total"] - p.before["llamacpp:prompt_tokens_total"]
            assert computed < 3000, f"{computed:.0f} of {len(ids)} tokens were computed"
        b.works()
        assert b.relay.connections == 1
        return f"{computed:.0f} of {len(ids)} tokens were computed"


# ---------------------------------------------------------------- restarts, leases

def case_peer_restarts_on_the_same_address():
    for options in ([], ["--link-port", free_port()]):
        with Bed(prefill=options) as b:
            b.works()
            b.p.restart()
            b.ask(fresh(), within=TIMEOUT + 2)
            b.recovers()
            b.works()


def lend(b, ids):
    """The first leg: the prefill worker reads the prompt, and keeps its KV."""
    answer = b.p.ask(ids, 1, kv_transfer_params={"do_remote_decode": True, "do_remote_prefill": False})
    params = answer.body.get("kv_transfer_params")
    assert answer.status == 200 and params and params["do_remote_prefill"], answer.body
    b.relay.target = ("127.0.0.1", params["remote_port"])
    return {**params, "remote_port": b.relay.port}


def fetch(b, ids, params, **expected):
    return b.ask(ids, kv_transfer_params=params, **expected)


def lease_bed(*prefill, **more):
    return Bed(prefill=["--handoff-lease", 2, *prefill], decode=["--prefill-allow", "127.0.0.0/8"], **more)


def case_leases():
    with lease_bed() as b:
        with Moved(b.p) as p:
            ids = fresh()
            params = lend(b, ids)
            assert p["handoff_leases_total"] == 1
            wait_until(lambda: b.p.metric("requests_held") == 1, 1.5)
            answer = fetch(b, ids, params, where="remote", failures=0)
            assert answer.facts["arrived_n"] == LONG - 1
            b.p.wait_idle()
            fetch(b, fresh(), params, failures=None)  # it is gone, and was for another prompt
            assert p["handoff_leases_expired_total"] == 0
            ids = fresh()
            params = lend(b, ids)
            p.wait("handoff_leases_expired_total")  # before it is read
            b.p.wait_idle()
            fetch(b, ids, params, failures=None)
            ids = fresh()
            params = lend(b, ids)
            fetch(b, fresh(), params)  # another prompt with its name
            b.p.wait_idle()


def case_lease_runs_out_while_it_is_read():
    """Its reader is slow, and others want the blocks: they stay, until they are read."""
    with lease_bed("--kv-bytes", "24M") as b:
        ids = fresh()
        params = lend(b, ids)
        b.relay.set_rate(3e6)  # 4 s
        asked = Asked(b.d, ids, kv_transfer_params=params)
        time.sleep(0.5)
        for _ in range(6):
            b.p.ask(fresh())
            time.sleep(0.5)
        answer = asked.wait().is_as(right(ids))
        assert answer.prefill == "remote" and answer.seconds > 3, (answer.facts, answer.seconds)
        b.relay.set_rate(None)


def case_lease_of_a_run_before():
    with lease_bed("--link-port", free_port()) as b:
        ids = fresh()
        params = lend(b, ids)
        b.p.restart()
        fetch(b, ids, params, failures=None)
        b.recovers()


# ---------------------------------------------------------------- the prefill worker says no

def case_errors_of_prefill():
    with Bed(prefill=["-c", 1024]) as b:  # too long for it: it is not even asked
        b.ask(where="local", failures=0)
        b.works(500)
    with lease_bed("--kv-bytes", "16M") as b:  # no blocks for some time
        lend(b, fresh())
        answer = b.ask(within=8)
        assert answer.seconds > 1, "there is room"
        notes = f"no blocks for 2 s: {answer.prefill} after {answer.seconds:.1f} s"
        b.works()
    with Bed() as b:  # it drains
        connection, _ = b.p.stream(fresh(100), tokens=3000)
        b.p.signal(signal.SIGTERM)
        b.p.wait_log("draining")
        b.ask(where="local", within=TIMEOUT + 2)
        connection.close()
        b.p.process.wait(20)
        b.p.start()
        b.recovers()
    return notes


def case_all_prefill_workers_are_busy():
    notes = []
    for policy in ("recompute", "fail"):
        with Bed(prefill=["--handoff-waiting", 2000], decode=["--on-transfer-failure", policy]) as b:
            leavers = [b.p.leave(fresh(3900)) for _ in range(8)]
            wait_until(lambda: b.p.metric("unread_tokens") > 8000, 10, "a busy prefill worker")
            ids = fresh()
            answer = b.d.ask(ids)
            if answer.status == 200:
                answer.is_as(right(ids))
                assert answer.prefill == "local", answer.facts
            else:
                assert policy == "fail" and answer.status == 503 and "retry-after" in answer.headers, (answer.status, answer.body)
            notes.append(f"{policy}: {answer.status} {answer.prefill}, {answer.facts.get('reason') or answer.message}")
            for leave in leavers:
                leave()
            b.p.wait_idle()
            b.recovers()
    return "; ".join(notes)


def case_link_says_nothing():
    with Bed() as b:
        b.works()
        for mode in ("silent", "close", "refuse"):
            b.relay.set_mode(mode)
            b.relay.cut()
            answer = b.ask(fresh(300), "local", within=2 * TIMEOUT + 2)
            assert b.ask(fresh(300), "local").seconds < 1.5 * SLOW, "the peer is not suspect"
            b.relay.set_mode("pass")
            b.recovers()
            assert answer.facts["transfer_failures"] <= 2, answer.facts
        b.front.mode = "silent"  # HTTP says nothing, and the link is there
        for _ in range(3):
            b.ask(within=2 * TIMEOUT + 2)
            time.sleep(1)
        b.front.mode = "pass"
        b.recovers()
        b.works()


def other_model():
    """One number of its weights is another."""
    path = os.path.join(SCRATCH, "other")
    shutil.copytree(bed.MODEL, path)
    with open(os.path.join(path, "model.safetensors"), "r+b") as f:
        f.seek(-1000, os.SEEK_END)
        byte = f.read(1)[0]
        f.seek(-1000, os.SEEK_END)
        f.write(bytes([byte ^ 1]))
    return path


def case_mismatch_is_refused():
    keys = [scratch(name, name.encode() * 8) for name in ("one-key", "other-key")]
    kinds = [("weights", {"prefill_model": other_model()}, "weights"), ("plan", {"prefill": ["--prefill", "bf16"]}, "plan"),
             ("key", {"prefill": ["--peer-key-file", keys[0]], "decode": ["--peer-key-file", keys[1]]}, "key"),
             ("no key", {"prefill": ["--peer-key-file", keys[0]]}, "key"), ("key for nobody", {"decode": ["--peer-key-file", keys[0]]}, "key")]
    for name, options, word in kinds:
        with Bed(healthy=False, **options) as b:
            time.sleep(0.5)
            for _ in range(2):
                b.ask(where="local", within=2 * TIMEOUT + 2)
            log = [line for line in (b.d.log() + b.p.log()).split("\n") if "hand-off" in line and word in line]
            assert log, f"{name}: nothing in the logs says why:\n{b.d.log()[-1500:]}\n{b.p.log()[-1500:]}"
            print(f"   {name}: {log[0][25:]}", flush=True)
            assert b.d.metric("handoffs_received_total") == 0
    with Bed(prefill=["--peer-key-file", keys[0]], decode=["--peer-key-file", keys[0]]) as b:
        b.works()
    for way in "DP":
        with Bed() as b:
            b.traps.set(way, "HELLO", 1, lambda m: m.head.__setitem__(3, ord("2")) or m.data())
            b.ask(within=2 * TIMEOUT + 2)
            wait_until(lambda: "version" in b.d.log() + b.p.log(), 10, "a line about versions")
            b.ask(where="local" if way == "D" else None, within=2)


# ---------------------------------------------------------------- bad bytes, slow bytes, many of them

def bad_frame(b, has_key, name, way, kind, number, change):
    """The answer is right, and the connection is not used again."""
    before, said = b.relay.connections, (len(b.d.log()), len(b.p.log()))
    fired = b.traps.set(way, kind, number, change)
    with Moved(b.d) as d, Moved(b.p) as p:
        answer = b.ask(fresh(700), within=2 * TIMEOUT + 3)
        assert fired.is_set(), f"{name}: it did not come to it"
        refused = d["handoff_refused_frames_total"] + p["handoff_refused_frames_total"]
    b.traps.clear()
    b.recovers()
    assert b.p.process.poll() is None and b.d.process.poll() is None, "a worker is gone"
    is_of_tags = "frame: tag" in b.d.log()[said[0]:] + b.p.log()[said[1]:]
    assert not is_forged(name) or is_of_tags == has_key, "its tag is wrong, too" if is_of_tags else "it is believed without the key"
    assert b.relay.connections == before + (name not in ANSWERED or has_key), f"{b.relay.connections - before} new connections"
    return f"{name:45} {answer.prefill:6} {answer.seconds:5.2f} s, {refused:.0f} refused, {b.relay.connections - before} new connections"


def some_bad_frames(frames, **options):
    with Bed(**options) as b:
        b.works(700)
        for frame in frames:
            try:
                print("   " + bad_frame(b, "decode" in options, *frame), flush=True)
            except Exception as e:
                raise AssertionError(f"{frame[0]}: {e}") from e
        b.works()


def bad_frames(frames, **options):
    """Four beds at once: most of the time a suspect peer is waited for."""
    frames = [f for f in frames if xxh3_128() or not is_forged(f[0])]
    in_threads(4, lambda i: some_bad_frames(frames[i::4], **options))


def case_bad_frames_of_prefill():
    bad_frames(FROM_P)


def case_bad_frames_of_decode():
    bad_frames(FROM_D)


def case_forged_frames_with_a_key():
    """Right tags of no key: each is refused, and nothing else is looked at."""
    key = scratch("forged-key", b"known to both, and to nobody else")
    rng = random.Random(5)
    bad_frames(rng.sample([f for f in FROM_P + FROM_D if is_forged(f[0])], 12), prefill=["--peer-key-file", key], decode=["--peer-key-file", key])


def case_slow_link():
    """1 Mbit/s, where a prompt's KV has 12 MB: nothing piles up on either side, and the answer does not wait for it for minutes."""
    small = ["--kv-bytes", "16M"]
    with Bed(room=1 << 16, depth=1, prefill=small, decode=["--handoff-tokens", 0, *small]) as b:
        b.relay.set_rate(1e6 / 8)
        memory = {}

        def watch():
            for worker in (b.p, b.d):
                memory.setdefault(worker, []).append(worker.memory())

        b.ask(fresh(200), within=60)
        watch()
        waits = []
        while sum(seconds for _, seconds, _ in waits) < 15 and len(waits) < 6:
            asked = Asked(b.d, fresh())
            while not (answer := asked.wait(0.1)):
                watch()
            answer.is_as(right(asked.ids))
            assert answer.seconds < 60 * SLOW, f"it took {answer.seconds:.0f} s"
            waits.append((answer.prefill, round(answer.seconds, 1), answer.facts["arrived_n"]))
        growth = max(max(m) - m[0] for m in memory.values())
        assert growth < 28 << 20, f"memory grew by {growth >> 20} MiB"  # blocks that are used for the first time, and not much more
        b.relay.set_rate(None)
        return f"{waits}, memory grew by {growth >> 20} MiB"


def case_many_on_one_connection():
    small = ["--kv-bytes", "8M"]  # 16 blocks: each prompt is forgotten before it comes again
    with Bed(prefill=small, decode=["--handoff-idle", 4, *small]) as b:
        prompts, begun = [fresh(150) for _ in range(20)], time.monotonic()
        for i in range(A.many):
            assert b.ask(prompts[i % 20], "remote", failures=0).facts["arrived_n"] == 149
            if i == min(200, A.many - 1):
                early = [count for w in (b.p, b.d) for count in (w.handles(), w.threads())]
        seconds = time.monotonic() - begun
        assert b.relay.connections == 1, b.relay.connections
        late = [count for w in (b.p, b.d) for count in (w.handles(), w.threads())]
        assert all(y <= x + 6 for x, y in zip(early, late)), (early, late)
        time.sleep(6)  # idle beyond the limit
        b.works(300)
        assert b.relay.connections == 2, b.relay.connections
        return f"{A.many / seconds:.0f} a second"


# ---------------------------------------------------------------- other links

def link_kind(kind):
    """Killed, and stopped, without anything between the two."""
    group = []
    with ended(group):
        p = Worker(bed.BUILT, bed.MODEL, *COMMON, "--role", "prefill", "--link", kind, group=group)
        d = Worker(bed.BUILT, bed.MODEL, *COMMON, *DECODE, "--link", kind, "--prefill-peer", f"127.0.0.1:{p.port}", group=group)

        def is_remote():
            ids = fresh()
            return d.ask(ids).is_as(right(ids)).prefill == "remote" or time.sleep(0.1)

        wait_until(is_remote, 20, "a hand-off")
        rng, outcomes = random.Random(7), {}
        for i in range(4):
            ids = fresh()
            expected = right(ids)
            threading.Timer(rng.random() * expected.seconds, lambda: p.signal(signal.SIGSTOP if i % 2 else signal.SIGKILL)).start()
            answer = d.ask(ids).is_as(expected)
            assert answer.seconds < 2 * TIMEOUT + 3 * SLOW + 2 * expected.seconds, answer.seconds
            outcomes[answer.prefill] = outcomes.get(answer.prefill, 0) + 1
            time.sleep(expected.seconds)
            p.restart()
            wait_until(is_remote, 30, "a hand-off after a restart")
            d.wait_idle()
            p.wait_idle()
        return outcomes


def case_link_shm():
    return link_kind("shm")


def case_link_ucx():
    if not os.environ.get("MQ_TEST_UCX"):
        return "skipped: MQ_TEST_UCX=1 runs it"
    try:
        return link_kind("ucx")
    except AssertionError as e:
        if "transport: expected one of tcp, shm, got ucx" not in str(e):
            raise
        return "skipped: a build without it"


# ---------------------------------------------------------------- running

def run_case(name):
    """False: it failed."""
    begun = time.monotonic()
    try:
        note = globals()[name]() or ""
        print(f"ok     {name[5:].replace('_', ' ')} ({time.monotonic() - begun:.1f} s){': ' if note else ''}{note}", flush=True)
        return True
    except Exception:
        print(f"FAILED {name[5:].replace('_', ' ')}\n{traceback.format_exc()}", flush=True)
        return False


def run_all():
    """Several at once: most of the time a deadline is waited for."""
    names = [name for name in globals() if name.startswith("case_") and A.only in name]
    with concurrent.futures.ThreadPoolExecutor(A.jobs) as pool:
        return list(pool.map(run_case, names)).count(False)


def main():
    global A, SCRATCH
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("--only", default="")
    parser.add_argument("--many", type=int, default=1000, help="hand-offs on one connection")
    parser.add_argument("--jobs", type=int, default=3, help="cases at once")
    A = parser.parse_args()
    bed.setup(A.mixquant, A.model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # workers end, too
    with tempfile.TemporaryDirectory() as SCRATCH:
        try:
            return 1 if run_all() else 0
        finally:
            end_kept()


if __name__ == "__main__":
    sys.exit(main())
