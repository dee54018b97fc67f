#!/usr/bin/env python3
"""Replays request bodies of real clients against a server: each must be answered, its events must be in order, and a later request of
a session must find the prompt of an earlier one in the prefix cache. For machines where the clients cannot be installed.

usage: replay_bodies.py BASE_URL [NAME_PART]
A body is a file of bodies/: {"path", "headers", "body"}, recorded-* are what a client sent (run_agents.py --record), with long texts
cut; the others are made by hand and hold the kinds of requests, blocks and items that those lack."""
import http.client
import json
import pathlib
import sys
import urllib.parse

import events

BODIES = pathlib.Path(__file__).with_name("bodies")
# Requests of one session, in order.
SESSIONS = [(f"recorded-{client}-first", f"recorded-{client}-results") for client in ("claude", "codex", "opencode", "qwen")]


def send(base, request):
    """(status, text of the answer)"""
    address = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    headers = {"content-type": "application/json", **request.get("headers", {})}
    connection.request(request.get("method", "POST"), request["path"], json.dumps(request["body"]), headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def fault_of(request, status, text):
    if status != 200:
        return f"status {status}: {text[:300]}"
    if request["body"].get("stream"):
        try:
            events.answer_of(request["path"], text)
        except events.OutOfOrder as fault:
            return str(fault)
    elif not json.loads(text):
        return "an empty answer"
    return None


def main():
    base, part = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    failed = passed = 0

    def tell(name, fault):
        nonlocal failed, passed
        failed, passed = failed + bool(fault), passed + (not fault)
        print(f"FAIL  {name}: {fault}" if fault else f"ok    {name}")

    usages = {}
    for path in sorted(path for path in BODIES.glob("*.json") if part in path.stem):
        request = json.loads(path.read_text())
        status, text = send(base, request)
        usages[path.stem] = events.usage_of(text)
        expected = request.get("status", 200)
        tell(path.stem, fault_of(request, status, text) if expected == 200 else None if status == expected else f"status {status}")
    for first, second in SESSIONS:
        if part in first and part in second:
            tell(f"{second} goes on from {first}", events.prefix_fault(usages.get(first), usages.get(second)))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
