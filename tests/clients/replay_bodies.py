#!/usr/bin/env python3
"""Replays request bodies of real clients against a server: each must be answered, its events must be in order, and a later request of
a session must find the prompt of an earlier one in the prefix cache. For machines where the clients cannot be installed.

usage: replay_bodies.py BASE_URL [NAME_PART]
A body is a file of bodies/: {"path", "headers", "body"}, recorded-* are what a client sent (run_agents.py --record), with long texts
cut."""
import http.client
import json
import pathlib
import sys
import urllib.parse

import events

BODIES = pathlib.Path(__file__).with_name("bodies")
# Requests of one session, in order.
SESSIONS = [(f"recorded-{client}-first", f"recorded-{client}-results") for client in ("claude", "codex", "opencode", "qwen")]
BLOCK = 64  # tokens that the cache has together


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


def usage_of(text):
    """(tokens of the prompt, cached ones), from the last event that has them."""
    found = None
    for _, data in events.frames(text):
        message = json.loads(data) if data.startswith("{") else {}
        usage = message.get("usage") or (message.get("response") or {}).get("usage")
        if not usage:
            continue
        if "cache_read_input_tokens" in usage:
            cached = usage["cache_read_input_tokens"]
            found = (usage["input_tokens"] + cached + usage["cache_creation_input_tokens"], cached)
        elif "input_tokens_details" in usage:
            found = (usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"])
        elif "prompt_tokens_details" in usage:
            found = (usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"])
    return found


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


def prefix_fault(first, second):
    """The prompt of the second request begins with that of the first, but for its last block."""
    if not first or not second:
        return "no usage"
    (before, _), (now, cached) = first, second
    if now > before and cached >= before - 2 * BLOCK:
        return None
    return f"{cached} of {now} tokens are cached, the earlier request had {before}"


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
        usages[path.stem] = usage_of(text)
        expected = request.get("status", 200)
        tell(path.stem, fault_of(request, status, text) if expected == 200 else None if status == expected else f"status {status}")
    for first, second in SESSIONS:
        if part in first and part in second:
            tell(f"{second} goes on from {first}", prefix_fault(usages.get(first), usages.get(second)))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
