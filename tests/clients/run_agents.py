#!/usr/bin/env python3
"""Real agents against the scripted server: each writes a file, looks at it with a second call, and says what it says.

usage: run_agents.py MODULES SCRIPTED_SERVER MODEL [--only NAME] [--kind KIND] [--record DIR] [--keep DIR]

MODULES has node_modules of agents/package.json. Kinds of run:
  plain    the task
  slow     the first answer takes PREFILL seconds and the client's limits of silence are shorter than that: 12 minutes and the
           usual 5 minutes, 15 times faster. The server's events must keep the client waiting.
  control  the same, and what keeps the client waiting is swallowed on the way: the client must give up, or slow shows nothing.
  limit    of Qwen Code, which allows an answer 15 minutes whatever comes: it asks again and finishes, as by then the prompt is read.
The plain runs go first, the others, which mostly wait, at once behind them. All is in a network namespace with nothing but loopback,
homes are temporary folders. Exits with 77 where that cannot be. --record writes what was sent to DIR as bodies/recorded-*.json."""
import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import events
import served
import wire

PREFILL = 48  # seconds: 12 minutes / 15
SILENCE = 20_000  # milliseconds: 5 minutes / 15
DEADLINE = 150  # seconds an agent may take
PROMPT = 'Write a file note.txt with the words "seven green boats", show it in capitals, then say what it says.'
LOOK = "tr a-z A-Z < note.txt"
SHOUT = "SEVEN GREEN BOATS"
FINAL = "The note says: seven green boats."


# ---------------------------------------------------------------- the agents


class Agent:
    """name; binary: its program below node_modules; write: the first call (name, arguments); wrote: what its result says, and
    nothing else in the prompt; look: the second call; asides: (text of other requests, what they are told)."""

    asides = ()

    def __init__(self, modules, home, work, kind):
        self.modules, self.home, self.work, self.kind = modules, home, work, kind

    def program(self):
        found = sorted(self.modules.glob(self.binary))
        if not found:
            raise FileNotFoundError(f"{self.name}: nothing is at {self.binary}")
        return str(found[0])

    def environment(self):
        return {}

    def prepare(self):
        pass


class Claude(Agent):
    name, binary = "claude", "@anthropic-ai/claude-code-linux-*/claude"
    wrote, path_part = "File created successfully", "/messages"

    def write(self):
        return "Write", {"file_path": f"{self.work}/note.txt", "content": "seven green boats\n"}

    def look(self):
        return "Bash", {"command": LOOK, "description": "Show the note in capitals"}

    def environment(self):
        variables = {
            "ANTHROPIC_BASE_URL": self.base, "ANTHROPIC_API_KEY": "none", "ANTHROPIC_MODEL": "mixquant",
            "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "200000", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "4096",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_MAX_RETRIES": "1",
        }
        if self.kind != "plain":
            variables["CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS"] = str(SILENCE)
        return variables

    def command(self):
        return [self.program(), "-p", PROMPT, "--permission-mode", "acceptEdits", "--allowedTools", "Bash Write Read"]


class Codex(Agent):
    name, binary = "codex", "@openai/codex-linux-*/vendor/*/bin/codex"
    wrote, path_part = "Success. Updated the following files", "/responses"

    def write(self):
        return "apply_patch", {"input": "*** Begin Patch\n*** Add File: note.txt\n+seven green boats\n*** End Patch\n"}

    def look(self):
        return "exec_command", {"cmd": LOOK}

    def prepare(self):
        folder = self.home / ".codex"
        folder.mkdir()
        with urllib.request.urlopen(f"{self.base}/v1/models") as reply:
            catalog = json.load(reply)
        catalog["models"][0]["apply_patch_tool_type"] = "freeform"  # a tool with a text instead of JSON
        (folder / "models.json").write_text(json.dumps(catalog))
        (folder / "config.toml").write_text(f"""model = "{catalog['models'][0]['slug']}"
model_provider = "mixquant"
model_catalog_json = "{folder}/models.json"
check_for_update_on_startup = false
[model_providers.mixquant]
name = "mixquant"
base_url = "{self.base}/v1"
wire_api = "responses"
stream_idle_timeout_ms = {SILENCE if self.kind != "plain" else 1_800_000}
stream_max_retries = 1
[analytics]
enabled = false
""")

    def command(self):
        return [self.program(), "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT]


class Opencode(Agent):
    name, binary = "opencode", "opencode-linux-*/bin/opencode"
    wrote, path_part = "Wrote file successfully", "/chat/completions"
    asides = (("You are a title generator", "A note"),)

    def write(self):
        return "write", {"content": "seven green boats\n", "filePath": f"{self.work}/note.txt"}  # the schema's order

    def look(self):
        return "bash", {"command": LOOK}

    def prepare(self):
        limit = SILENCE if self.kind != "plain" else 1_800_000
        options = {"baseURL": f"{self.base}/v1", "apiKey": "none", "timeout": False, "headerTimeout": limit, "chunkTimeout": limit}
        models = {"mixquant": {"name": "mixquant", "limit": {"context": 200000, "output": 4096}}}
        provider = {"npm": "@ai-sdk/openai-compatible", "name": "mixquant", "options": options, "models": models}
        folder = self.home / ".config/opencode"
        folder.mkdir(parents=True)
        config = {"model": "mixquant/mixquant", "autoupdate": False, "share": "disabled", "provider": {"mixquant": provider}}
        (folder / "opencode.json").write_text(json.dumps(config))

    def environment(self):
        return {"OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}

    def command(self):
        return [self.program(), "run", PROMPT]


class Qwen(Agent):
    name, binary = "qwen", "@qwen-code/qwen-code/cli-entry.js"
    wrote, path_part = "Successfully created and wrote", "/chat/completions"
    asides = (("You are now acting as the managed", "Nothing is worth it."),)  # sub-agents for memory and skills

    def write(self):
        return "write_file", {"file_path": f"{self.work}/note.txt", "content": "seven green boats\n"}

    def look(self):
        return "run_shell_command", {"command": LOOK, "is_background": False, "description": "Show the note in capitals"}

    def prepare(self):
        folder = self.home / ".qwen"
        folder.mkdir()
        settings = {
            "privacy": {"usageStatisticsEnabled": False}, "general": {"enableAutoUpdate": False}, "telemetry": {"enabled": False},
            "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False},
        }
        (folder / "settings.json").write_text(json.dumps(settings))

    def environment(self):
        variables = {"OPENAI_BASE_URL": f"{self.base}/v1", "OPENAI_API_KEY": "none", "OPENAI_MODEL": "mixquant"}
        if self.kind != "plain":
            lifetime = SILENCE if self.kind == "limit" else 60_000
            variables.update(QWEN_STREAM_IDLE_TIMEOUT_MS=str(SILENCE), QWEN_STREAM_MAX_LIFETIME_MS=str(lifetime))
        return variables

    def command(self):
        return ["node", self.program(), "-y", "-p", PROMPT]


AGENTS = (Claude, Codex, Opencode, Qwen)


# ---------------------------------------------------------------- one agent in one pass


def call_text(name, arguments):
    """A call as the bundled model writes it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {json.dumps(arguments)}}}\n</tool_call>'


def script_of(agent, kind):
    """The first answer whose `when` the prompt has is taken, so what comes last in a conversation stands first."""
    first = {"when": "seven green boats", "answer": "I write the note.\n" + call_text(*agent.write())}
    answers = [{"when": when, "answer": text} for when, text in agent.asides]
    answers.append({"when": SHOUT, "answer": FINAL})
    answers.append({"when": agent.wrote, "answer": call_text(*agent.look())})
    if kind != "plain":
        answers.append({**first, "prefill_s": PREFILL, "times": 1 if kind == "limit" else 0})
    answers.append(first)
    return answers


def run_client(agent, attempts_wanted, wired):
    """(exit code or None, output). With attempts_wanted it is stopped as soon as it has asked so often for the first answer."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(agent.home), "TERM": "dumb", "LANG": "C.UTF-8", **agent.environment()}
    output = open(agent.home / "output.txt", "w+")
    process = subprocess.Popen(
        agent.command(), cwd=agent.work, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    end = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < end:
        if attempts_wanted and len(first_requests(agent, wired)) >= attempts_wanted:
            break
        time.sleep(0.1)
    code = process.poll()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # and what it has started
    except ProcessLookupError:
        pass
    process.wait()
    output.seek(0)
    return code, output.read()


def first_requests(agent, wired):
    """Requests for the first answer: those of the session itself, before there is any result."""
    asides = [text.encode() for text, _ in agent.asides]
    asked = [x for x in wired.asked("seven green boats") if agent.path_part in x["path"].partition("?")[0]]
    return [x for x in asked if agent.wrote.encode() not in x["body"] and not any(text in x["body"] for text in asides)]


def check(agent, kind, code, output, wired):
    """What went wrong, a line each."""
    if kind == "control":
        gave_up = len(first_requests(agent, wired)) > 1 or code not in (0, None)
        return [] if gave_up else ["it waited, though nothing kept it waiting"]
    note = agent.work / "note.txt"
    wrong = [fault for fault in map(wire.faults, wired.exchanges) if fault]
    if code != 0:
        wrong.append(f"exit code {code}")
    if not note.exists() or note.read_text().strip() != "seven green boats":
        wrong.append("note.txt is not there, or says something else")
    if FINAL not in output:
        wrong.append(f"the final text is missing in {output[-600:]!r}")
    attempts, expected = len(first_requests(agent, wired)), 2 if kind == "limit" else 1
    if attempts != expected:
        wrong.append(f"it asked {attempts} times for the first answer: expected {expected}")
    asides = [text.encode() for text, _ in agent.asides]
    turns = [x for x in wired.asked("seven green boats") if x.get("complete") and not any(text in x["body"] for text in asides)]
    if not 3 <= len(turns) <= 5:  # Qwen Code on a busy machine may miss what a command prints; then it is told to look again
        wrong.append(f"{len(turns)} answers: expected 3")
    usages = [events.usage_of(turn["answer"].decode()) for turn in turns]
    missed = [events.prefix_fault(first, second) for first, second in zip(usages, usages[1:])]
    return wrong + [f"prefix cache: {fault}" for fault in missed if fault]


def one(kind, program, options, results):
    folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{program.name}-{kind}-", dir=options.scratch))
    home, work = folder / "home", folder / "project"
    home.mkdir(), work.mkdir()
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    agent = program(options.modules / "node_modules", home, work, kind)
    begun, wrong = time.monotonic(), []
    try:
        script = folder / "script.json"
        script.write_text(json.dumps(script_of(agent, kind)))
        server = served.Server([options.server, "-m", options.model, "-c", "200000", str(script)])
        wired = wire.Wire(server.port, mute=kind == "control")
        agent.base = wired.base
        agent.prepare()
        code, output = run_client(agent, 2 if kind == "control" else 0, wired)
        wrong = check(agent, kind, code, output, wired)
        wired.close()
        if (left := server.stop()) != 0:
            wrong.append(f"the server ended with {left}")
        for number, exchange in enumerate(wired.exchanges if options.keep else ()):
            (folder / f"request-{number}.json").write_bytes(exchange["body"])
        if options.record and kind == "plain":
            record(agent, wired, options.record)
    except Exception as error:  # one agent's trouble is a line, as any other
        wrong.append(f"{type(error).__name__}: {error}")
    results.append((program.name, kind, wrong, time.monotonic() - begun))


def record(agent, wired, folder):
    names = [(str(agent.work), "/home/user/project"), (str(agent.home), "/home/user"), (str(agent.work).replace("/", "-"), "-home-user-project")]
    asked = wired.asked()
    bodies = {"first": first_requests(agent, wired)[0], "results": [x for x in asked if SHOUT.encode() in x["body"]][0]}
    for number, (text, _) in enumerate(agent.asides):
        others = [x for x in asked if text.encode() in x["body"]]
        if others:
            bodies[f"aside{number or ''}"] = others[0]
    for what, exchange in bodies.items():
        path = folder / f"recorded-{agent.name}-{what}.json"
        path.write_text(json.dumps(wire.recorded(exchange, agent.name, names), indent=1, ensure_ascii=False) + "\n")


# ---------------------------------------------------------------- everything


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("modules", type=pathlib.Path)
    parser.add_argument("server")
    parser.add_argument("model")
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", default="", choices=("plain", "slow", "control", "limit"))
    parser.add_argument("--record", type=pathlib.Path)
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args()
    served.must_have(options.modules)
    served.alone()
    options.modules = options.modules.resolve()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    options.scratch = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="mixquant-agents-"))
    failed = passed = 0
    for kinds in (("plain",), ("slow", "control", "limit")):
        results = []
        runs = [(kind, program) for kind in kinds for program in AGENTS if kind != "limit" or program is Qwen]
        runs = [(kind, program) for kind, program in runs if options.only in program.name and options.kind in ("", kind)]
        threads = [threading.Thread(target=one, args=(kind, program, options, results)) for kind, program in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name, kind, wrong, seconds in sorted(results):
            print(f"{'FAIL' if wrong else 'ok':5} {kind:8} {name:10} {seconds:5.1f} s" + "".join(f"\n        {line}" for line in wrong), flush=True)
            failed += bool(wrong)
            passed += not wrong
    if not options.keep:
        shutil.rmtree(options.scratch, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
