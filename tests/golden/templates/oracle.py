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
FORMS = {}


def fixed(tokens):
    return dict(tools=None, documents=None, add_generation_prompt=True, **tokens)


def with_call(arguments, content):
    call = {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": arguments}}
    return [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": content, "tool_calls": [call]},
    ]


def calls_as(template, tokens):
    """(arguments are text, content beside calls is null), by the rule of chat_template.h."""
    if template in FORMS:
        return FORMS[template]
    result = {"role": "tool", "name": "f", "tool_call_id": "call00001", "content": "x"}
    tool = {"type": "function", "function": {"name": "f", "description": "x", "parameters": {"type": "object", "properties": {}}}}

    def prompt(text, null, tools):
        arguments = '{"mqprobe": "x"}' if text else {PROBE: "x"}
        messages = with_call(arguments, None if null else "") + [result]
        got = render(template, dict(fixed(tokens), messages=messages, tools=tools))
        return got if isinstance(got, str) else ""

    form = False, False
    for tools in None, [tool]:
        for text in False, True:
            for null in False, True:
                got = prompt(text, null, tools)
                if PROBE in got:
                    again = prompt(True, null, tools)
                    repr_only = "'mqprobe'" in got and PROBE in again and "'mqprobe'" not in again
                    FORMS[template] = text or repr_only, null
                    return FORMS[template]
    FORMS[template] = form
    return form


def probe_messages(role, content, call_form):
    user = {"role": "user", "content": "x"}
    text, null = call_form
    return {
        "user": [{"role": "user", "content": content}],
        "system": [{"role": "system", "content": content}, user],
        "assistant": [user, {"role": "assistant", "content": content}, user],
        "tool": with_call("{}" if text else {}, None if null else "")
        + [{"role": "tool", "name": "f", "tool_call_id": "call00001", "content": content}],
    }[role]


def takes(template, tokens, role):
    """How the template takes content of a role, by the rule of chat_template.h."""
    if (template, role) in FORMS:
        return FORMS[template, role]
    form = calls_as(template, tokens)
    part = [{"type": "text", "text": PROBE}]
    text = render(template, dict(fixed(tokens), messages=probe_messages(role, PROBE, form)))
    parts = render(template, dict(fixed(tokens), messages=probe_messages(role, part, form)))
    text_works = isinstance(text, str) and PROBE in text
    parts_work = isinstance(parts, str) and PROBE in parts
    how = "parts" if parts_work and not text_works else "text"
    if text_works and parts_work and text == parts:
        how = "either"
    FORMS[template, role] = how
    return how


def convert_arguments(given, as_text):
    if as_text:
        if given is None:
            return "{}"
        return given if isinstance(given, str) else tojson(given)
    if given is None or (isinstance(given, str) and not given.strip()):
        return {}
    try:
        parsed = json.loads(given)
    except (TypeError, ValueError):
        return given
    return parsed if isinstance(parsed, dict) else given


def convert(message, template, tokens):
    as_text, null = calls_as(template, tokens)
    message = {name: value for name, value in message.items() if value is not None or name == "content"}
    if not message.get("tool_calls", True):
        del message["tool_calls"]
    if null and "tool_calls" in message:
        message.setdefault("content", None)
    elif message.get("content", "") is None:
        message["content"] = ""
    role = {"developer": "system"}.get(message["role"], message["role"])
    how = takes(template, tokens, role if role in ("user", "system", "assistant", "tool") else "user")
    content = message.get("content")
    if isinstance(content, list) and how == "text":
        message["content"] = "\n".join(part["text"] for part in content)
    if isinstance(content, str) and how == "parts":
        message["content"] = [{"type": "text", "text": content}]
    calls = []
    for call in message.get("tool_calls", []):
        call = json.loads(json.dumps(call))
        holder = call["function"] if isinstance(call.get("function"), dict) else call
        holder["arguments"] = convert_arguments(holder.get("arguments"), as_text)
        calls.append(call)
    if calls:
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
        """Equal text, or an error on both sides. Licensed: an integer beyond 64 bits; what is refused by name, which Jinja2
        may do only when it gets there; and an unknown filter or test that is never reached, which Jinja2 forgives in an
        `if` only."""
        if "text" in got:
            if isinstance(expected, str) and expected == got["text"]:
                self.same += 1
                return
            if isinstance(expected, jinja2.TemplateAssertionError) and str(expected).startswith(("No filter", "No test")):
                self.skipped += 1
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
