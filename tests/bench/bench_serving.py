"""What HTTP adds, on random weights of a published shape; standard library only.

usage: bench_serving.py MIXQUANT SHAPE TOKENIZER_DIR    (a tokenizer of the shape's family: ids without a text make no events)

    first token   as the client sees it, over what the server says that queue and prompt took
    streams       tokens a second while 32 clients read theirs, over those of the decode steps' own time
"""
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

STREAMS = 32
TOKENS = 64
PROMPT = 2048
RUNS = 5


def start(mixquant, model):
    server = subprocess.Popen([mixquant, "serve", "-m", model, "--port", "0", "--draft", "off", "-c", "8192"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if address:
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(address[1])
    sys.exit("bench_serving: the server did not start")


def stream(port, prompt, tokens):
    """The request's begin, the time of each event with text, and the timings of the last one."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, "ignore_eos": True}
    begin = time.monotonic()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    times, timings = [], None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        for choice in event.get("choices") or []:
            if choice.get("text"):
                times.append(time.monotonic())
        timings = event.get("timings") or timings
    connection.close()
    return begin, times, timings


def ids(count):
    return [random.randrange(1000, 100000) for _ in range(count)]


def stats(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line and line[0] != "#" and "{" not in line}


def streams(port):
    """Tokens a second of the clock while 32 clients read theirs, over those of the decode steps' own time."""
    threads = [threading.Thread(target=stream, args=(port, ids(16), TOKENS)) for _ in range(STREAMS)]
    for thread in threads:
        thread.start()
    time.sleep(3)  # all talk
    before, begin = stats(port), time.monotonic()
    time.sleep(6)
    after, end = stats(port), time.monotonic()
    for thread in threads:
        thread.join()
    tokens, seconds = (after[name] - before[name] for name in ("llamacpp:tokens_predicted_total", "llamacpp:tokens_predicted_seconds_total"))
    return tokens / (end - begin) / (tokens / seconds)


def main():
    mixquant, shape, tokenizer = sys.argv[1:]
    with tempfile.TemporaryDirectory() as model:
        subprocess.run([mixquant, "synth", shape, "-o", model], check=True, stdout=subprocess.DEVNULL)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(os.path.join(tokenizer, name), model)
        server, port = start(mixquant, model)
        try:
            stream(port, ids(64), 2)
            ratios = []
            for _ in range(RUNS):
                begin, times, timings = stream(port, ids(PROMPT), 2)
                ratios.append(1000 * (times[0] - begin) / timings["prompt_ms"])
            print(f"first token of {PROMPT}: client over server's prompt_ms: median {sorted(ratios)[RUNS // 2]:.4f}, most {max(ratios):.4f}")
            shares = []
            for _ in range(RUNS):
                shares.append(streams(port))
            print(f"{STREAMS} streams: clock over decode steps: median {sorted(shares)[RUNS // 2]:.3f}, least {min(shares):.3f}")
        finally:
            server.terminate()
            server.wait()


main()
