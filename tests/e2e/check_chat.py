"""Conversations: on pipes, and on a terminal (a pty) with keys, pastes and Ctrl-C.

usage: check_chat.py MIXQUANT [--editing]   (--editing: it was built with libedit)
Needs Python's standard library only. Every function named test_* runs; a failed one prints why, and the exit code is 1.
"""
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

BINARY = os.path.abspath(sys.argv[1])
EDITING = "--editing" in sys.argv
SCRATCH = None
BEGIN, END = b"\x1b[200~", b"\x1b[201~"


def environment(**more):
    return {**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache", "XDG_STATE_HOME": SCRATCH + "/state", "TERM": "xterm",
            "LC_ALL": "C.UTF-8", **more}


def model(seed=1, positions=200000):
    path = os.path.join(SCRATCH, f"model-{seed}")
    if not os.path.exists(path):
        subprocess.run([BINARY, "synth", "tiny-qwen3", "--seed", str(seed), "-o", path], check=True)
        shutil.copy(os.path.join(os.path.dirname(__file__), "template.jinja"), path + "/chat_template.jinja")
        config = json.load(open(path + "/config.json"))
        config["max_position_embeddings"] = positions
        json.dump(config, open(path + "/config.json", "w"))
    return path


def prompt_tokens(messages, seed=1):
    """How many tokens the prompt of a conversation has."""
    request = json.dumps({"messages": messages, "add_generation_prompt": True}).encode()
    prompt = subprocess.run([BINARY, "render", "-m", model(seed)], input=request, capture_output=True, check=True).stdout
    ids = subprocess.run([BINARY, "tokenize", "--no-special", "-m", model(seed)], input=prompt, capture_output=True, check=True)
    return len(json.loads(ids.stdout))


def user(*texts):
    return [{"role": "user", "content": text} for text in texts]


def stats_of(text):
    return [int(n) for n in re.findall(rb"\[(\d+) prompt tokens", text)]


def piped(text, *options, seed=1, code=0):
    done = subprocess.run([BINARY, "chat", model(seed), "--stats", *map(str, options)], input=text, capture_output=True,
                          timeout=60, env=environment())
    assert done.returncode == code, (done.returncode, done.stderr)
    return done


class Terminal:
    """chat on a terminal of its own."""

    def __init__(self, *options, term="xterm"):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BINARY, [BINARY, "chat", model(), "--stats", *map(str, options)], environment(TERM=term))
        self.wait_for(b"> ")

    def send(self, data):
        os.write(self.fd, data)

    def read(self, seconds):
        """What comes within a time; None at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return b""
        try:
            return os.read(self.fd, 65536) or None
        except OSError:
            return None

    def wait_for(self, pattern, seconds=20):
        """Everything up to the pattern (a regular expression), which is then behind us."""
        until = time.monotonic() + seconds
        while True:
            found = re.search(pattern, self.seen, re.S)
            if found:
                text, self.seen = self.seen[:found.end()], self.seen[found.end():]
                return text
            more = self.read(0.1)
            assert more is not None, f"ended before {pattern}: {self.seen[-500:]}"
            assert time.monotonic() < until, f"expected {pattern} within {seconds} s, got {self.seen[-500:]}"
            self.seen += more

    def say(self, data):
        """A turn and its statistics: the number of prompt tokens."""
        self.send(data + b"\r")
        count = stats_of(self.wait_for(rb"\[\d+ prompt tokens[^\n]*\n"))[0]
        self.wait_for(b"> ")
        return count

    def leaves(self, code=0):
        until = time.monotonic() + 20
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == code, status
                return
            assert time.monotonic() < until, "expected it to leave"
            self.read(0.05)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


# ---------------------------------------------------------------- on pipes

def test_clear_keeps_the_system_message():
    counts = stats_of(piped(b"hi\n/clear\nhi\n", "--system", "be brief", "-n", 2).stderr)
    whole = prompt_tokens([{"role": "system", "content": "be brief"}, *user("hi")])
    assert counts == [whole, whole], (counts, whole)


def test_cut_answers_are_kept():
    for seed in range(1, 5):
        first, second = stats_of(piped(b"A\nA\n", "-n", 3, seed=seed).stderr)
        assert first == prompt_tokens(user("A"), seed) and second > 2 * first - len("<assistant>"), (seed, first, second)


def test_full_context_goes_on():
    short = prompt_tokens(user("hi"))
    done = piped(b"hi\n" + b"x" * 200 + b"\nhi\n/clear\nhi\n", "-c", 2 * short + 40, "-n", 2)
    refused = [line for line in done.stderr.split(b"\n") if line.startswith(b"mixquant: ")]
    assert len(refused) == 1 and b"/clear" in refused[0] and b"expected" in refused[0], done.stderr
    counts = stats_of(done.stderr)
    assert len(counts) == 3 and counts[0] == counts[2] == short < counts[1], counts
    done = piped(b"hi\n", "-c", short + 3)  # the answer fills it
    assert b"context" in done.stderr and b"/clear" in done.stderr, done.stderr


def test_hostile_pipes():
    for text in (b"", b"\n\n\r\n", b"\xff\xfe\n", b"a\0b\n", b"no newline", b"x" * 300000 + b"\n"):
        piped(text, "-n", 2, "-c", 2000)
    done = piped(b"\xff\nhi\n", "-n", 2)
    assert done.stderr.count(b"expected UTF-8") == 1 and len(stats_of(done.stderr)) == 1, done.stderr


# ---------------------------------------------------------------- on a terminal

def test_paste_is_one_turn():
    for newline in (b"\r", b"\n", b"\r\n"):
        t = Terminal("-n", 2)
        text = newline.join([b"one", "zwei ä".encode(), b"  three"])
        got = t.say(BEGIN + text + END)
        t.kill()
        if newline == b"\r\n" and not EDITING:
            continue  # the terminal's line discipline makes two newlines of it
        assert got == prompt_tokens(user("one\nzwei ä\n  three")), (newline, got)


def test_paste_within_a_line():
    t = Terminal("-n", 2)
    got = t.say(b"a " + BEGIN + b"b\rc" + END + b" d")
    t.kill()
    assert got == prompt_tokens(user("a b\nc d")), got


def test_stopped_answer_is_kept():
    t = Terminal("-n", 150000)
    t.send(b"hi\r")
    time.sleep(0.3)
    t.send(b"\x03")
    first = stats_of(t.wait_for(rb"\[\d+ prompt tokens[^\n]*\n"))[0]
    t.wait_for(b"> ")
    assert first == prompt_tokens(user("hi")), first
    t.send(b"hi\r")
    time.sleep(0.3)
    t.send(b"\x03")
    second = stats_of(t.wait_for(rb"\[\d+ prompt tokens[^\n]*\n"))[0]
    t.wait_for(b"> ")
    assert 2 * first < second < 150000, (first, second)
    t.send(b"\x03")
    t.leaves()


def test_interrupts_at_the_prompt():
    t = Terminal("-n", 2)
    t.send(b"half a line")
    t.wait_for(b"half a line")
    t.send(b"\x03")
    t.wait_for(b"> ")
    assert t.say(b"hi") == prompt_tokens(user("hi"))  # the line is gone, the conversation is not
    t.send(b"\x03")
    t.wait_for(b"Ctrl-C again")
    t.wait_for(b"> ")
    os.kill(t.pid, signal.SIGWINCH)  # of no consequence
    t.send(b"\x03")
    t.leaves()


def test_end_of_input_leaves():
    t = Terminal("-n", 2)
    t.send(b"\x04")
    t.leaves()
    t = Terminal("-n", 2)
    t.send(b"/exit\r")
    t.leaves()


def test_dumb_terminal():
    t = Terminal("-n", 2, term="dumb")
    t.send(b"hi\r")
    text = t.wait_for(rb"\[\d+ prompt tokens")
    t.send(b"\x04")
    t.leaves()
    assert b"\x1b[?2004h" not in text, text


def test_editing_and_history():
    if not EDITING:
        return "built without libedit"
    shutil.rmtree(SCRATCH + "/state", ignore_errors=True)
    t = Terminal("-n", 2)
    assert t.say(b"ac" + b"\x1b[D" + b"b") == prompt_tokens(user("abc"))
    t.say(BEGIN + b"back\\slash\rnext" + END)
    t.kill()
    path = SCRATCH + "/state/mixquant/history"
    with open(path, "rb") as f:
        assert f.read() == b"abc\nback\\\\slash\\nnext\n"
    assert os.stat(path).st_mode & 0o777 == 0o600
    t = Terminal("-n", 2)
    assert t.say(b"\x1b[A") == prompt_tokens(user("back\\slash\nnext"))
    t.send(b"/clear\r")
    t.wait_for(b"> ")
    assert t.say(b"\x1b[A\x1b[A\x1b[A") == prompt_tokens(user("abc"))
    t.kill()
    with open(path, "wb") as f:
        f.write(b"".join(b"turn %d\n" % i for i in range(5000)))
    t = Terminal("-n", 2)
    assert t.say(b"\x1b[A") == prompt_tokens(user("turn 4999"))
    t.kill()
    with open(path, "rb") as f:
        lines = f.read().split(b"\n")
    assert lines[0] == b"turn 4000" and len(lines) == 1002, (lines[0], len(lines))
    return None


def main():
    global SCRATCH
    failed = 0
    with tempfile.TemporaryDirectory() as SCRATCH:
        for name, test in list(globals().items()):
            if not name.startswith("test_"):
                continue
            try:
                skipped = test()
                print(f"{'skipped' if skipped else 'ok     '}  {name}{': ' + skipped if skipped else ''}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
    print(f"{failed} failed")
    sys.exit(1 if failed else 0)


main()
