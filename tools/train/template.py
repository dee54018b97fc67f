"""The bundled model's chat template and the one way this folder renders dialogues with it.

Training text is whatever the shipped chat_template.jinja prints under the settings that Hugging Face uses
(trim_blocks, lstrip_blocks, tojson = json.dumps without ASCII escapes), so that a server which renders the
template sees exactly the strings the model was trained on.
"""
import json
import os

import jinja2

TEMPLATE = '''\
{%- if tools or (messages and messages[0].role == "system") %}
{{- "<|im_start|>system\\n" }}
{%- if messages and messages[0].role == "system" %}
{{- messages[0].content }}
{%- endif %}
{%- if tools %}
{%- if messages and messages[0].role == "system" %}
{{- "\\n" }}
{%- endif %}
{{- "<tools>" }}
{%- for tool in tools %}
{{- "\\n" }}
{{- tool | tojson }}
{%- endfor %}
{{- "\\n</tools>" }}
{%- endif %}
{{- "<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == "user" %}
{{- "<|im_start|>user\\n" + message.content + "<|im_end|>\\n" }}
{%- elif message.role == "assistant" %}
{{- "<|im_start|>assistant\\n" }}
{%- if message.content %}
{{- message.content }}
{%- endif %}
{%- if message.tool_calls %}
{%- for tool_call in message.tool_calls %}
{%- if not loop.first or message.content %}
{{- "\\n" }}
{%- endif %}
{%- if tool_call.function %}
{%- set tool_call = tool_call.function %}
{%- endif %}
{{- "<tool_call>\\n{\\"name\\": \\"" + tool_call.name + "\\", \\"arguments\\": " }}
{%- if tool_call.arguments is string %}
{{- tool_call.arguments }}
{%- else %}
{{- tool_call.arguments | tojson }}
{%- endif %}
{{- "}\\n</tool_call>" }}
{%- endfor %}
{%- endif %}
{{- "<|im_end|>\\n" }}
{%- elif message.role == "tool" %}
{%- if loop.first or messages[loop.index0 - 1].role != "tool" %}
{{- "<|im_start|>user" }}
{%- endif %}
{{- "\\n<tool_response>\\n" + message.content + "\\n</tool_response>" }}
{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
{{- "<|im_end|>\\n" }}
{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- "<|im_start|>assistant\\n" }}
{%- endif %}
'''


def environment():
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env


_COMPILED = environment().from_string(TEMPLATE)


def render(messages, tools=None, add_generation_prompt=False):
    return _COMPILED.render(messages=messages, tools=tools, add_generation_prompt=add_generation_prompt)


def write(folder):
    with open(os.path.join(folder, "chat_template.jinja"), "w", encoding="utf-8") as file:
        file.write(TEMPLATE)
