"""Half an hour of mixed load: memory stays flat, nothing answers 5xx, nothing gets stuck.

usage: soak.py MIXQUANT MODEL [--minutes 30] [--clients 12]
Each client does one of these at random, again and again: an answer of each API with every field, whole or streamed; a conversation that
grows; a request that is dropped somewhere; a malformed body; questions that need no engine. Memory is looked at each minute: from a third
of the time on it may grow by a twentieth at most. Standard library only.
"""
import argparse
import collections
import json
import random
import tempfile
import time

from http_bodies import FIELDS, mutate, rich_body
from http_wire import Reader, Served, ask, chat, check_answers, connect, head, in_threads, metrics, post, reset, send, wait_idle, words

statuses = collections.Counter()


def note(what, status, body=b""):
    statuses[f"{what} {status}"] += 1
    assert status < 500, (what, status, body[:500])


def any_answer(rng):
    path = rng.choice(list(FIELDS))
    status, _, body = ask(post(path, rich_body(path, rng)), 300)
    note("answer", status, body)


def conversation(rng):
    messages = [{"role": "user", "content": words(rng.randrange(20, 400), rng.randrange(50))}]
    for _ in range(rng.randrange(2, 5)):
        status, _, body = ask(post("/v1/chat/completions", {"messages": messages, "max_tokens": rng.randrange(1, 30)}), 300)
        note("conversation", status, body)
        if status != 200:
            return
        text = json.loads(body)["choices"][0]["message"]["content"] or ""
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": words(20, rng.randrange(10000))}]


def dropped(rng):
    with connect() as s:
        send(s, post("/v1/chat/completions", chat(words(rng.randrange(50, 2000), rng.randrange(10000)), max_tokens=50, stream=rng.random() < 0.7)))
        time.sleep(rng.random())
        if rng.random() < 0.5:
            reset(s)
    statuses["dropped"] += 1


def malformed(rng):
    path = rng.choice(list(FIELDS))
    with connect() as s:
        send(s, post(path, mutate(rng, json.dumps(rich_body(path, rng)).encode())))
        status, _, body = Reader(s, 300).answer()
    note("malformed", status, body)


def small_question(rng):
    status, _, _ = ask(head("GET", rng.choice(["/health", "/metrics", "/v1/models", "/", "/nowhere"])), 60)
    note("question", status)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=12)
    arguments = parser.parse_args()
    kinds = [any_answer] * 4 + [conversation] * 2 + [dropped, malformed, small_question]
    memory = []
    with tempfile.TemporaryDirectory() as cache, Served(arguments.mixquant, arguments.model, "-c", "4096", "--kv-bytes", "256M", "--streams", "8",
                                                        "--cache-dir", cache, "--disk-cache", "64M") as server:
        end = time.time() + 60 * arguments.minutes

        def client(i):
            rng = random.Random(i)
            while time.time() < end:
                rng.choice(kinds)(rng)

        def watch():
            while time.time() < end:
                memory.append((server.memory() >> 10, server.handles()))
                print(f"{len(memory):3d}: {memory[-1][0]} KiB, {memory[-1][1]} descriptors, {sum(statuses.values())} requests", flush=True)
                time.sleep(min(60, max(0, end - time.time())))

        in_threads(arguments.clients + 1, lambda i: watch() if i == arguments.clients else client(i))
        wait_idle(300)  # a slow disk takes its time
        check_answers()
        found = metrics()
        time.sleep(30)  # what waited for the disk is written
        memory.append((server.memory() >> 10, server.handles()))
    third = memory[len(memory) // 3:]
    growth = max(m for m, _ in third[1:]) / third[0][0] - 1
    print(", ".join(f"{count} {what}" for what, count in sorted(statuses.items())))
    print(f"growth after a third of the time {100 * growth:.1f}%; {found['mixquant:requests_total']:.0f} requests reached the engine")
    assert growth < 0.05, memory


main()
