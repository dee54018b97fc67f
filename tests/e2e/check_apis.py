"""The APIs of a real server, as clients find them: what `serve` prints works, stop strings, drafts.

usage: check_apis.py MIXQUANT MODEL [--only NAME]
Needs Python's standard library only. Every function named test_* runs; a failed one prints why, and the exit code is 1.
"""
import argparse
import http.client
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.parse

from http_wire import run_cases

SCRATCH = None
ARGUMENTS = None


class Server:
    """A `mixquant serve` on a free port of loopback. printed: what it says before it serves."""

    def __init__(self, *options, model=None):
        self.log = tempfile.TemporaryFile(dir=SCRATCH)
        command = [ARGUMENTS.mixquant, "serve", "-m", model or ARGUMENTS.model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log,
                                        env={**os.environ, "XDG_CACHE_HOME": SCRATCH + "/cache"})
        end = time.time() + 120
        while "OpenAI API" not in self.text() or not self.text().endswith("\n"):
            if self.process.poll() is not None or time.time() > end:
                raise AssertionError("the server did not come up:\n" + self.text())
            time.sleep(0.02)
        self.printed = self.text()
        self.base = re.search(r" on (http\S+) ", self.printed)[1]

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def line(self, client):
        """The words that a shell makes of what stands behind a client's name."""
        found = re.search(r"^ *" + client + r"  +(.*)$", self.printed, re.M)
        assert found, f"no line for {client} in\n{self.printed}"
        return shlex.split(re.sub(r" \(.*\)$", "", found[1]))

    def post(self, path, body, headers=None, status=200):
        got, data = request(self.base + path, body, headers)
        assert got == status, f"{path}: {got}, expected {status}: {data[:500]!r}"
        return json.loads(data)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.process.terminate()
        self.process.wait(60)
        if kind:
            sys.stderr.write(self.text()[-3000:])


def request(url, body=None, headers=None, method=None):
    """Status and body."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    target = parts.path + ("?" + parts.query if parts.query else "")
    connection.request(method or ("POST" if data is not None else "GET"), target, data,
                       {"Content-Type": "application/json", **(headers or {})})
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, read


def events(data):
    """The JSON of a stream's events."""
    lines = [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


HI = [{"role": "user", "content": "Say hello."}]


# ---------------------------------------------------------------- what serve prints


def check_claude(server, key):
    words = server.line("Claude Code")
    assert words[-1] == "claude", words
    told = dict(word.split("=", 1) for word in words[:-1])
    base, model = told["ANTHROPIC_BASE_URL"], told["ANTHROPIC_MODEL"]
    headers = {"Authorization": "Bearer " + (key or told["ANTHROPIC_AUTH_TOKEN"]), "anthropic-version": "2023-06-01"}
    assert (told["ANTHROPIC_AUTH_TOKEN"] == "KEY") == (key is not None)
    assert request(base + "/api/hello", method="HEAD", headers=headers)[0] == 200
    output = int(told["CLAUDE_CODE_MAX_OUTPUT_TOKENS"])
    body = {"model": model, "max_tokens": min(output, 8), "messages": HI}
    status, data = request(base + "/v1/messages?beta=true", body, headers)
    assert status == 200, data
    assert json.loads(data)["model"] == model and json.loads(data)["content"], data
    status, data = request(base + "/v1/messages?beta=true", {**body, "stream": True}, headers)
    assert status == 200 and events(data)[-1]["type"] == "message_stop", data
    status, data = request(base + "/v1/models?limit=1000", headers=headers)
    listed = {entry["id"]: entry for entry in json.loads(data)["data"]}
    assert model in listed, data
    context = int(told["CLAUDE_CODE_MAX_CONTEXT_TOKENS"])
    assert listed[model]["max_model_len"] == context and 0 < output < context, (listed, told)


def check_codex(server, key):
    words = server.line("Codex")
    assert words[0] == "codex" and set(words[1::2]) == {"-c"}, words
    told = dict(word.split("=", 1) for word in words[2::2])
    provider = "model_providers." + told["model_provider"]
    assert told[provider + ".wire_api"] == "responses"
    base, model, headers = told[provider + ".base_url"], told["model"], {}
    if key:
        headers["Authorization"] = "Bearer " + key
    status, data = request(base + "/models?client_version=0.171.0", headers=headers)
    listed = {entry["slug"]: entry for entry in json.loads(data)["models"]}
    assert status == 200 and listed[model]["context_window"] == int(told["model_context_window"]), data
    body = {"model": model, "input": HI, "max_output_tokens": 8, "stream": True, "store": False}
    status, data = request(base + "/responses", body, headers)
    assert status == 200, data
    assert events(data)[-1]["type"] in ("response.completed", "response.incomplete"), data


def check_openai(server, key):
    told = dict(word.split("=", 1) for word in server.line("OpenAI API"))
    assert (told["OPENAI_API_KEY"] == "KEY") == (key is not None)
    headers = {"Authorization": "Bearer " + (key or told["OPENAI_API_KEY"])}
    status, data = request(told["OPENAI_BASE_URL"] + "/models", headers=headers)
    model = json.loads(data)["data"][0]["id"]
    body = {"model": model, "max_tokens": 8, "messages": HI}
    status, data = request(told["OPENAI_BASE_URL"] + "/chat/completions", body, headers)
    assert status == 200 and json.loads(data)["choices"][0]["message"]["content"] is not None, data


def check_printed(server, key=None):
    check_claude(server, key)
    check_codex(server, key)
    check_openai(server, key)


def test_printed_lines_work():
    with Server("--strict-model") as server:
        check_printed(server)


def test_printed_lines_work_with_keys_and_odd_names():
    with open(SCRATCH + "/keys", "w") as f:
        f.write("a-key-of-16-bytes-or-more\n")
    os.chmod(SCRATCH + "/keys", 0o600)
    with Server("--strict-model", "--api-key-file", SCRATCH + "/keys", "--alias", "It's my (own) $model; v2") as server:
        check_printed(server, "a-key-of-16-bytes-or-more")
        headers = {"Authorization": "Bearer another"}
        assert request(server.base + "/v1/messages", {"messages": HI}, headers)[0] == 401


def test_help_says_where_kv_is_kept():
    text = subprocess.run([ARGUMENTS.mixquant, "serve", "-h"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"--cache-dir\b(.*)", text)
    assert found and "DIR/kv" in found[1], text


# ---------------------------------------------------------------- stops and drafts


def test_which_stop_string():
    with Server() as server:
        plain = {"max_tokens": 24, "temperature": 0, "messages": [{"role": "user", "content": "List all files"}]}
        said = server.post("/v1/messages", plain)["content"][0]["text"]
        stop = said[4:8]
        assert len(stop) == 4, said
        stops = ["\u2603 never", stop[1:], stop, "\u2603"]
        answer = server.post("/v1/messages", {**plain, "stop_sequences": stops})
        assert answer["stop_reason"] == "stop_sequence" and answer["stop_sequence"] == stop, answer
        assert answer["content"][0]["text"] == said[:said.index(stop)]
        streamed = events(request(server.base + "/v1/messages", {**plain, "stop_sequences": stops, "stream": True})[1])
        delta = [event["delta"] for event in streamed if event["type"] == "message_delta"][-1]
        assert delta["stop_reason"] == "stop_sequence" and delta["stop_sequence"] == stop, delta
        answer = server.post("/v1/messages", {**plain, "stop_sequences": ["\u2603 never"]})
        assert answer["stop_sequence"] is None and answer["stop_reason"] != "stop_sequence", answer
        chat = server.post("/v1/chat/completions", {**plain, "stop": stops})
        assert chat["choices"][0]["finish_reason"] == "stop", chat


def test_drafts_are_counted():
    prompt = "one two three four five six seven eight nine ten " * 12
    body = {"prompt": prompt, "max_tokens": 100, "temperature": 0, "ignore_eos": True}
    with Server() as server:
        answer = server.post("/v1/completions", body)
        timings, details = answer["timings"], answer["usage"]["completion_tokens_details"]
        assert timings["draft_n"] >= timings["draft_n_accepted"] >= 0, timings
        assert timings["draft_n"] > 0, timings
        assert details["accepted_prediction_tokens"] == timings["draft_n_accepted"], answer
        assert details["rejected_prediction_tokens"] == timings["draft_n"] - timings["draft_n_accepted"], answer
        answer = server.post("/v1/completions", {**body, "max_tokens": 1})
        assert answer["timings"]["draft_n"] == 0, answer
        assert "accepted_prediction_tokens" not in answer["usage"]["completion_tokens_details"], answer
    with Server("--draft", "off") as server:
        assert "draft_n" not in server.post("/v1/completions", body)["timings"]


# ---------------------------------------------------------------- a schema beside tools

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
              "additionalProperties": False}
FORM = {"type": "object", "properties": {"sure": {"type": "boolean"}, "count": {"type": "integer"}},
        "required": ["sure", "count"], "additionalProperties": False}
QUESTIONS = ["What is the weather in Paris?", "Say hello.", "List all files", "Name a colour."]


def check_form(text, called):
    """An answer's text and {name: arguments} of its calls."""
    if called:
        assert not text.strip(), (text, called)
        for name, arguments in called:
            assert name == "weather" and set(arguments) == {"city"} and isinstance(arguments["city"], str), called
    else:
        value = json.loads(text)
        assert set(value) == {"sure", "count"} and value["sure"] in (True, False), text
        assert isinstance(value["count"], int), text


def ask_chat(server, question, choice):
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 200,
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}],
            "tool_choice": choice, "response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": FORM}}}
    message = server.post("/v1/chat/completions", body)["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return message["content"] or "", [(call["name"], json.loads(call["arguments"])) for call in calls]


def ask_responses(server, question, choice):
    body = {"input": question, "temperature": 0, "max_output_tokens": 200, "tool_choice": choice,
            "tools": [{"type": "function", "name": "weather", "parameters": PARAMETERS}],
            "text": {"format": {"type": "json_schema", "name": "f", "schema": FORM}}}
    output = server.post("/v1/responses", body)["output"]
    text = "".join(part["text"] for item in output if item["type"] == "message" for part in item["content"])
    calls = [item for item in output if item["type"] == "function_call"]
    return text, [(call["name"], json.loads(call["arguments"])) for call in calls]


def ask_messages(server, question, choice):
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 200,
            "tools": [{"name": "weather", "input_schema": PARAMETERS}],
            "tool_choice": {"type": {"required": "any"}.get(choice, choice)},
            "output_config": {"format": {"type": "json_schema", "schema": FORM}}}
    content = server.post("/v1/messages", body)["content"]
    text = "".join(block["text"] for block in content if block["type"] == "text")
    return text, [(block["name"], block["input"]) for block in content if block["type"] == "tool_use"]


def test_a_schema_beside_tools():
    calls = texts = 0
    with Server() as server:
        for ask in (ask_chat, ask_responses, ask_messages):
            for question in QUESTIONS:
                text, called = ask(server, question, "auto")
                check_form(text, called)
                calls += bool(called)
                texts += not called
            text, called = ask(server, QUESTIONS[0], "required")
            check_form(text, called)
            assert called, text
            text, called = ask(server, QUESTIONS[0], "none")
            check_form(text, called)
            assert not called, called
    assert texts, calls


def main():
    global ARGUMENTS, SCRATCH
    parser = argparse.ArgumentParser()
    parser.add_argument("mixquant")
    parser.add_argument("model")
    parser.add_argument("--only", default="test_")
    ARGUMENTS = parser.parse_args()
    with tempfile.TemporaryDirectory() as SCRATCH:
        failed = run_cases(globals(), "test_", ARGUMENTS.only)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
