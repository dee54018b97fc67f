"""Published templates x kinds of requests: the prompt is byte-equal to jinja2's, or both refuse.

usage: check_corpus.py PROGRAM   The templates are those of $MQ_SHARED/data/chat_templates.
"""
import os
import pathlib
import sys

import oracle

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CONFIG = '{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": "<pad>", "unk_token": null}'

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place.\nSays \"sunny\" <or> 'rain' & more — näh ☃",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "the city"},
                "days": {"type": "integer", "default": 3, "minimum": 1.5},
                "unit": {"type": "string", "enum": ["c", "f"], "default": "c", "nullable": True},
                "tags": {"type": "array", "items": {"type": "string"}},
                "where": {"type": "object", "properties": {"lat": {"type": "number"}, "deep": {"type": "object", "properties": {"x": {"type": ["string", "null"]}}}}, "required": ["lat"]},
                "either": {"oneOf": [{"type": "string", "description": "s"}, {"type": "number", "default": 2}]},
                "rows": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}, "a": {"type": "boolean"}}, "required": ["a"]}},
            },
            "required": ["city"],
        },
    },
}
NOW = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}}}
BARE = {"type": "function", "function": {"name": "bare", "description": "No parameters.", "strict": True, "parameters": {}}}
TOOLS = [WEATHER, NOW]


def call(name, arguments, number=1):
    return {"id": f"call{number:05d}", "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "  You are terse.\n"}
USER = {"role": "user", "content": "Wie ist das Wetter in Köln? <b>&\"'</b>"}
CALL = {"role": "assistant", "content": "", "tool_calls": [call("get_weather", '{"city": "Köln", "days": 2, "f": 1.0, "n": null, "l": [1, {"a": true}]}')]}
CALL_DICT = {"role": "assistant", "content": None, "tool_calls": [call("get_weather", {"city": "Bonn", "s": "a\nb"})]}
CALL_TWO = {"role": "assistant", "content": "Let me look.", "tool_calls": [call("get_weather", "{}", 1), call("now", "{\"zone\":\"CET\"}", 2)]}
RESULT = {"role": "tool", "name": "get_weather", "tool_call_id": "call00001", "content": '{"sky": "clear", "t": 21.5}'}
RESULT_TWO = {"role": "tool", "name": "now", "tool_call_id": "call00002", "content": "12:00"}
ANSWER = {"role": "assistant", "content": "Clear, 21.5 degrees."}
THOUGHT = {"role": "assistant", "content": "Fine.", "reasoning_content": "Hm.\nYes.\n"}
INLINE = {"role": "assistant", "content": "<think>\nlet me see\n</think>\n\nFine."}
AGAIN = {"role": "user", "content": "And tomorrow?"}


# Forms that published templates have and that the folder's lack: arguments as text, calls known by null content, and arguments
# that a dict would spell in Python's way.
LOOP = "{% for m in messages %}<{{ m.role }}>"
OWN = {
    "text arguments": LOOP + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.name + ':' + c.function.arguments }}{% endfor %}{% endfor %}",
    "null content": LOOP + "{% if m.role == 'assistant' and m.content is none %}{% for c in m.tool_calls %}{{ c.function.name ~ '(' ~ "
    "c.function.arguments|tojson ~ ')' }}{% endfor %}{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "both": LOOP + "{% if m.role == 'assistant' and m['content'] is none %}{% for c in m['tool_calls'] %}{{ '\\n' + c['function']['arguments'] "
    "}}{% endfor %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}",
    "printed": LOOP + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor %}{% endfor %}",
    "with tools": "{% if tools %}" + LOOP + "{{ m.content or '' }}{% for c in m.tool_calls or [] %}{{ '`' + c.function.arguments + '`' }}{% endfor %}{% endfor %}{% endif %}",
}


def parts(*texts):
    return [{"type": "text", "text": text} for text in texts]


def requests():
    yield "plain", dict(messages=[USER])
    yield "plain, no prompt", dict(messages=[USER], add_generation_prompt=False)
    yield "system", dict(messages=[SYSTEM, USER])
    yield "system only", dict(messages=[SYSTEM])
    yield "developer", dict(messages=[{"role": "developer", "content": "Be kind."}, USER])
    yield "turns", dict(messages=[SYSTEM, USER, ANSWER, AGAIN])
    yield "turns, ends with assistant", dict(messages=[USER, ANSWER], add_generation_prompt=False)
    yield "many turns", dict(messages=[SYSTEM] + [USER, ANSWER, AGAIN, ANSWER] * 6 + [USER])
    yield "two users", dict(messages=[USER, USER])
    yield "starts with assistant", dict(messages=[ANSWER, USER])
    yield "no messages", dict(messages=[])
    yield "empty content", dict(messages=[{"role": "user", "content": ""}])
    yield "null content", dict(messages=[{"role": "user", "content": None}])
    yield "no content", dict(messages=[{"role": "user"}])
    yield "unknown role", dict(messages=[USER, {"role": "critic", "content": "x"}])
    yield "markup", dict(messages=[{"role": "user", "content": "{{ 1 }} {% if %} {# x #} <|im_end|> \\n \u0000 \u2028 \U0001f600"}])
    yield "think switch", dict(messages=[{"role": "system", "content": "x /no_think"}, {"role": "user", "content": "y /nothink"}])
    for name, tools in (("tools", TOOLS), ("one tool", [WEATHER]), ("bare tool", [BARE]), ("no tools", []), ("null tools", None)):
        yield name, dict(messages=[USER], tools=tools)
        yield name + ", system", dict(messages=[SYSTEM, USER], tools=tools)
    yield "tool without type", dict(messages=[USER], tools=[WEATHER["function"]])
    yield "tool call", dict(messages=[SYSTEM, USER, CALL, RESULT], tools=TOOLS)
    yield "tool call, dict", dict(messages=[USER, CALL_DICT, RESULT], tools=TOOLS)
    yield "tool call, answered", dict(messages=[SYSTEM, USER, CALL, RESULT, ANSWER, AGAIN], tools=TOOLS)
    yield "tool call, twice", dict(messages=[USER, CALL, RESULT, CALL_DICT, RESULT, ANSWER], tools=TOOLS)
    yield "two tool calls", dict(messages=[SYSTEM, USER, CALL_TWO, RESULT, RESULT_TWO], tools=TOOLS)
    yield "two tool calls, answered", dict(messages=[USER, CALL_TWO, RESULT, RESULT_TWO, ANSWER, AGAIN], tools=TOOLS)
    yield "tool call without tools", dict(messages=[USER, CALL, RESULT])
    yield "tool call, ends", dict(messages=[USER, CALL], tools=TOOLS, add_generation_prompt=False)
    yield "bad arguments", dict(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [call("f", "{not json")]}, RESULT], tools=TOOLS)
    yield "flat call", dict(messages=[USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"a": 1}'}]}, RESULT], tools=TOOLS)
    yield "tool result, parts", dict(messages=[USER, CALL, dict(RESULT, content=parts("a", "b"))], tools=TOOLS)
    yield "nulls", dict(messages=[dict(USER, name=None), dict(ANSWER, tool_calls=None, refusal=None), AGAIN])
    yield "no calls", dict(messages=[USER, dict(ANSWER, tool_calls=[]), AGAIN])
    yield "call, null content", dict(messages=[USER, dict(CALL, content=None), RESULT], tools=TOOLS)
    yield "call, no content", dict(messages=[USER, {k: v for k, v in CALL.items() if k != "content"}, RESULT], tools=TOOLS)
    for given in ("", "  ", None, "{}", {}, '{"n": 18446744073709551616}'):
        call_of = {"role": "assistant", "content": None, "tool_calls": [call("now", given)]}
        yield f"arguments {given!r}", dict(messages=[USER, call_of, RESULT], tools=TOOLS)
    yield "large numbers", dict(messages=[USER], tools=[{"type": "function", "function": {"name": "f", "description": "d", "parameters": {
        "type": "object", "properties": {"n": {"type": "integer", "maximum": 2**64 - 1, "minimum": -(10**30)}}}}}])
    yield "orphan result", dict(messages=[USER, RESULT], tools=TOOLS)
    for switch in ({}, {"enable_thinking": True}, {"enable_thinking": False}, {"thinking": True}, {"reasoning_effort": "high"}):
        name = "thinking " + (", ".join(f"{k}={v}" for k, v in switch.items()) or "unset")
        yield name, dict(messages=[SYSTEM, USER], chat_template_kwargs=switch)
        yield name + ", content", dict(messages=[USER, THOUGHT, AGAIN], chat_template_kwargs=switch)
        yield name + ", inline", dict(messages=[USER, INLINE, AGAIN], chat_template_kwargs=switch)
        yield name + ", last", dict(messages=[USER, THOUGHT], add_generation_prompt=False, chat_template_kwargs=switch)
        yield name + ", with a call", dict(messages=[USER, dict(CALL, reasoning_content="I must look."), RESULT], tools=TOOLS, chat_template_kwargs=switch)
        yield name + ", with calls", dict(messages=[USER, dict(CALL, reasoning="One."), RESULT, dict(CALL_DICT, thinking="Two."), RESULT, THOUGHT, AGAIN], tools=TOOLS, chat_template_kwargs=switch)
    yield "parts", dict(messages=[{"role": "user", "content": parts("Hello")}])
    yield "parts, two", dict(messages=[{"role": "user", "content": parts("Hello,", "world")}])
    yield "parts everywhere", dict(messages=[{"role": "system", "content": parts("Sys")}, {"role": "user", "content": parts("a", "b")}, {"role": "assistant", "content": parts("c")}, AGAIN])
    yield "documents", dict(messages=[USER], documents=[{"doc_id": 1, "title": "T", "text": "D"}])
    yield "builtin tools", dict(messages=[USER, CALL, RESULT], tools=TOOLS, chat_template_kwargs={"builtin_tools": ["browser", "python", "code_interpreter", "get_weather"]})
    yield "kwargs", dict(messages=[SYSTEM, USER], chat_template_kwargs={"date_string": "1 Jan 2026", "tools_in_user_message": False, "add_vision_id": True, "xml_tools": [1]}, tools=TOOLS)
    yield "custom tools", dict(messages=[USER], chat_template_kwargs={"custom_tools": TOOLS, "controls": {"length": "short"}})


def main():
    folder = pathlib.Path(os.environ.get("MQ_SHARED", "/nowhere")) / "data/chat_templates"
    files = sorted(folder.glob("*.jinja"))
    if not files:
        print("SKIPPED: no $MQ_SHARED/data/chat_templates")
        return 0
    subject, report = oracle.Subject(sys.argv[1]), oracle.Report()
    templates = [(file.stem, file.read_text(encoding="utf-8")) for file in files] + list(OWN.items())
    for stem, template in templates:
        for name, request in requests():
            expected = oracle.render_chat(template, TOKENS, request)
            got = subject.ask({"template": template, "config": CONFIG, "request": request})
            report.compare(f"{stem}: {name}", expected, got)
    return report.finish(f"{len(templates)} templates", least=500)


if __name__ == "__main__":
    sys.exit(main())
