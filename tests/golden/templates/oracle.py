"""Jinja2 set up as transformers' apply_chat_template does, and a pipe to the program under test."""
import datetime
import json
import subprocess

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

DAY = datetime.datetime(2026, 3, 7, 14, 5, 9)


class Generation(Extension):
    """`generation` blocks mark what an assistant has said; here they print what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_through"), [], [], body).set_lineno(line)

    def _through(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = DAY.strftime
    return env


ENV = environment()
COMPILED = {}


def compiled(template):
    if template not in COMPILED:
        try:
            COMPILED[template] = ENV.from_string(template)
        except Exception as error:  # a syntax error is an answer
            COMPILED[template] = error
    return COMPILED[template]


def render(template, variables):
    """The text, or the exception."""
    program = compiled(template)
    if isinstance(program, Exception):
        return program
    try:
        text = program.render(**variables)
        text.encode()  # a lone surrogate is no text
        return text
    except Exception as error:
        return error


PROBE = "mqprobe"


def probe_messages(role, content):
    user = {"role": "user", "content": "x"}
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {}}}
    return {
        "user": [{"role": "user", "content": content}],
        "system": [{"role": "system", "content": content}, user],
        "assistant": [user, {"role": "assistant", "content": content}, user],
        "tool": [
            user,
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "name": "f", "tool_call_id": "call00001", "content": content},
        ],
    }[role]


def takes(template, tokens, role):
    """How the template takes content of a role, by the rule of chat_template.h."""
    fixed = dict(tools=None, documents=None, add_generation_prompt=True, **tokens)
    text = render(template, dict(fixed, messages=probe_messages(role, PROBE)))
    parts = render(template, dict(fixed, messages=probe_messages(role, [{"type": "text", "text": PROBE}])))
    text_works = isinstance(text, str) and PROBE in text
    parts_work = isinstance(parts, str) and PROBE in parts
    if text_works and parts_work and text == parts:
        return "either"
    return "parts" if parts_work and not text_works else "text"


def convert(message, template, tokens):
    message = dict(message)
    role = {"developer": "system"}.get(message["role"], message["role"])
    how = takes(template, tokens, role if role in ("user", "system", "assistant", "tool") else "user")
    content = message.get("content")
    if isinstance(content, list) and how == "text":
        message["content"] = "\n".join(part["text"] for part in content)
    if isinstance(content, str) and how == "parts":
        message["content"] = [{"type": "text", "text": content}]
    if message.get("tool_calls"):
        calls = []
        for call in message["tool_calls"]:
            call = json.loads(json.dumps(call))
            holder = call.get("function", call)
            try:
                arguments = json.loads(holder.get("arguments"))
                if isinstance(arguments, dict):
                    holder["arguments"] = arguments
            except (TypeError, ValueError):
                pass
            calls.append(call)
        message["tool_calls"] = calls
    return message


def render_chat(template, tokens, request):
    variables = dict(tokens)
    variables["messages"] = [convert(m, template, tokens) for m in request["messages"]]
    variables["tools"] = request.get("tools")
    variables["documents"] = request.get("documents")
    variables["add_generation_prompt"] = request.get("add_generation_prompt", True)
    variables.update(request.get("chat_template_kwargs", {}))
    return render(template, variables)


class Subject:
    """The program under test, kept running."""

    def __init__(self, program):
        self.pipe = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, job):
        self.pipe.stdin.write(json.dumps(job).encode() + b"\n")
        self.pipe.stdin.flush()
        line = self.pipe.stdout.readline()
        if not line:
            raise SystemExit(f"FAIL: the program ended (exit {self.pipe.wait()}) on {json.dumps(job)[:2000]}")
        return json.loads(line)


class Report:
    def __init__(self):
        self.same = self.errors = self.skipped = 0
        self.differences = []

    def compare(self, name, expected, got):
        """Equal text, or an error on both sides. Licensed: an integer beyond 64 bits, and what is refused by name, which
        Jinja2 may do only when it gets there."""
        if "text" in got:
            if isinstance(expected, str) and expected == got["text"]:
                self.same += 1
                return
        elif isinstance(expected, Exception):
            self.errors += 1
            return
        elif "64 bits" in got["error"] or got["status"] == "not supported":
            self.skipped += 1
            return
        self.differences.append((name, expected, got))

    def finish(self, what, least):
        for name, expected, got in self.differences[:15]:
            print(f"DIFFERENT {name}\n  jinja2: {expected!r}\n  here:   {got.get('text', got)!r}")
        total = self.same + self.errors + self.skipped + len(self.differences)
        print(f"{what}: {total} cases, {self.same} equal texts, {self.errors} errors on both sides, "
              f"{self.skipped} refused by design, {len(self.differences)} different")
        return 1 if self.differences or self.same < least else 0
