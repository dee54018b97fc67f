"""What a stream of server-sent events must look like, one automaton an API: the order that clients rely on, and that the parts of
an answer add up. `python3 events.py` is the self-test: each fault in a good stream must be found."""
import json

JSON_OF = {"tool_use": "input_json_delta", "text": "text_delta", "thinking": "thinking_delta"}


class OutOfOrder(Exception):
    """A stream that a client may refuse."""


def must(condition, what):
    if not condition:
        raise OutOfOrder(what)


def frames(text):
    """Server-sent events of a whole stream: (event or None, data). Comments are left out."""
    for block in text.replace("\r\n", "\n").split("\n\n"):
        event, data = None, []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            value = value[1:] if value.startswith(" ") else value
            if field == "event":
                event = value
            elif field == "data":
                data.append(value)
        if data:
            yield event, "\n".join(data)


def json_object(text, what):
    try:
        value = json.loads(text)
    except ValueError as error:
        raise OutOfOrder(f"{what}: no JSON: {text!r}") from error
    must(isinstance(value, dict), f"{what}: no object: {text!r}")
    return value


class Messages:
    """Anthropic's Messages API."""

    def __init__(self):
        self.started = self.over = False
        self.blocks, self.open, self.stop = [], None, None

    def take(self, event, data):
        message = json_object(data, event)
        must(message.get("type") == event, f"event {event}: data has type {message.get('type')}")
        must(not self.over, f"{event} behind the last event")
        if event == "error":
            must(message["error"]["type"] and message["error"]["message"], "error without type or message")
            self.over = True
            raise OutOfOrder(f"the answer failed: {data}")
        must(self.started or event == "message_start", f"{event} before message_start")
        getattr(self, "on_" + event, self.unknown)(message)

    def unknown(self, message):
        raise OutOfOrder(f"unknown event {message['type']}")

    def on_ping(self, _):
        pass

    def on_message_start(self, event):
        message = event["message"]
        must(not self.started, "a second message_start")
        must(message["role"] == "assistant" and message["content"] == [] and message["id"].startswith("msg_"), f"message {message}")
        must(message["type"] == "message" and message["model"] and message["stop_reason"] is None, f"message {message}")
        must(message["usage"]["input_tokens"] >= 0 and message["usage"]["output_tokens"] >= 0, "usage")
        self.started = True

    def on_content_block_start(self, event):
        block = event["content_block"]
        must(self.open is None, "a block begins in another")
        must(self.stop is None, "a block behind stop_reason")
        must(event["index"] == len(self.blocks), f"block {event['index']}: expected {len(self.blocks)}")
        must(block["type"] in JSON_OF, f"block of type {block['type']}")
        if block["type"] == "tool_use":
            must(block["id"].startswith("toolu_") and block["name"] and block["input"] == {}, f"tool_use {block}")
        else:
            must(block[block["type"]] == "", f"block begins with text: {block}")
        self.open = {"type": block["type"], "name": block.get("name"), "id": block.get("id"), "text": ""}
        self.blocks.append(self.open)

    def on_content_block_delta(self, event):
        delta = event["delta"]
        must(self.open and event["index"] == len(self.blocks) - 1, f"delta of a block that is not open: {event}")
        if self.open["type"] == "thinking" and delta["type"] == "signature_delta":
            must(isinstance(delta["signature"], str), "signature")
            return
        must(delta["type"] == JSON_OF[self.open["type"]], f"{delta['type']} in a block {self.open['type']}")
        self.open["text"] += delta[{"input_json_delta": "partial_json"}.get(delta["type"], self.open["type"])]

    def on_content_block_stop(self, event):
        must(self.open and event["index"] == len(self.blocks) - 1, f"end of a block that is not open: {event}")
        if self.open["type"] == "tool_use":
            self.open["input"] = json_object(self.open["text"] or "{}", "input")
        self.open = None

    def on_message_delta(self, event):
        must("output_tokens" in event["usage"], "message_delta without usage.output_tokens")
        must({"stop_reason", "stop_sequence"} <= set(event["delta"]), "message_delta without stop_reason or stop_sequence")
        if event["delta"]["stop_reason"] is None:  # keeps the client waiting
            must(self.stop is None, "an interim message_delta behind the last one")
            return
        must(self.open is None and self.stop is None, "stop_reason in a block, or twice")
        self.stop = event["delta"]["stop_reason"]
        calls = any(block["type"] == "tool_use" for block in self.blocks)
        must((self.stop == "tool_use") == calls or self.stop in ("max_tokens", "model_context_window_exceeded"), f"stop_reason {self.stop} with calls {calls}")

    def on_message_stop(self, _):
        must(self.stop, "message_stop without stop_reason")
        self.over = True

    def end(self):
        must(self.over, "the stream ends without message_stop")
        return {
            "text": "".join(block["text"] for block in self.blocks if block["type"] == "text"),
            "calls": [(block["name"], block["input"]) for block in self.blocks if block["type"] == "tool_use"],
        }


class Chat:
    """OpenAI's chat/completions, one choice."""

    def __init__(self):
        self.first, self.finish, self.usage, self.over, self.calls, self.text = None, None, None, False, [], ""

    def take(self, event, data):
        must(event is None, f"event {event}: expected data alone")
        must(not self.over, f"{data!r} behind [DONE]")
        if data == "[DONE]":
            must(self.finish, "[DONE] without finish_reason")
            self.over = True
            return
        chunk = json_object(data, "chunk")
        must("error" not in chunk, f"the answer failed: {data}")
        must(chunk["object"] == "chat.completion.chunk" and chunk["created"] > 0 and chunk["model"], f"chunk {data}")
        must(self.usage is None, "a chunk behind usage")
        self.first = self.first or chunk
        must(chunk["id"] == self.first["id"], "the id changes")
        if not chunk["choices"]:
            must(self.finish and chunk["usage"]["total_tokens"] > 0, "a chunk without choices: expected usage at the end")
            self.usage = chunk["usage"]
            return
        self.choice(chunk["choices"][0], chunk is self.first)

    def choice(self, choice, first):
        delta = choice["delta"]
        must(self.finish is None, "a delta behind finish_reason")
        must(choice["index"] == 0, "index")
        must(first == (delta.get("role") == "assistant"), "the role belongs to the first chunk")
        self.text += delta.get("content") or ""
        for call in delta.get("tool_calls", []):
            self.call(call)
        self.finish = choice["finish_reason"]
        if self.finish:
            must((self.finish == "tool_calls") == bool(self.calls) or self.finish == "length", f"{self.finish}, {len(self.calls)} calls")

    def call(self, call):
        function = call["function"]
        if call["index"] == len(self.calls):
            must(call["id"] and call["type"] == "function" and function["name"], f"a call begins without id, type or name: {call}")
            self.calls.append({"name": function["name"], "arguments": ""})
        must(self.calls and call["index"] == len(self.calls) - 1, f"call {call['index']} of {len(self.calls)}")
        self.calls[-1]["arguments"] += function.get("arguments", "")

    def end(self):
        must(self.over, "the stream ends without [DONE]")
        if self.finish == "tool_calls":
            for call in self.calls:
                call["input"] = json_object(call["arguments"], "arguments")
        return {"text": self.text, "calls": [(call["name"], call.get("input")) for call in self.calls]}


class Responses:
    """OpenAI's Responses API."""

    def __init__(self):
        self.number, self.id, self.over, self.items, self.open = 0, None, False, [], None

    def take(self, event, data):
        if data == "[DONE]":
            must(self.over, "[DONE] before the end")
            return
        message = json_object(data, event)
        must(message["type"] == event, f"event {event}: data has type {message['type']}")
        must(not self.over, f"{event} behind the end")
        must(message["sequence_number"] == self.number, f"sequence_number {message['sequence_number']}: expected {self.number}")
        must((self.number == 0) == (event == "response.created"), f"{event} as event {self.number}")
        self.number += 1
        name = event.removeprefix("response.").replace(".", "_")
        getattr(self, "on_" + name, self.part)(message)

    def on_created(self, event):
        must(event["response"]["status"] == "in_progress" and event["response"]["output"] == [], "response.created")
        self.id = event["response"]["id"]

    def on_in_progress(self, event):
        must(event["response"]["id"] == self.id, "the id changes")

    def on_output_item_added(self, event):
        item = event["item"]
        must(self.open is None, "an item begins in another")
        must(event["output_index"] == len(self.items), f"item {event['output_index']}: expected {len(self.items)}")
        must(item["id"] and item["type"] in ("message", "reasoning", "function_call", "custom_tool_call"), f"item {item}")
        if "call" in item["type"]:
            must(item["call_id"] and item["name"], f"call without call_id or name: {item}")
        self.open = {"item": item, "deltas": "", "parts": 0}

    def part(self, event):
        kind = event["type"].removeprefix("response.")
        must(self.open, f"{kind} outside an item")
        must(event["item_id"] == self.open["item"]["id"] and event["output_index"] == len(self.items), f"{kind} of another item")
        wanted = {
            "message": ("output_text", "content_part"),
            "reasoning": ("reasoning_text", "reasoning_summary_text", "reasoning_summary_part", "content_part"),
            "function_call": ("function_call_arguments",),
            "custom_tool_call": ("custom_tool_call_input",),
        }[self.open["item"]["type"]]
        must(kind.rpartition(".")[0] in wanted, f"{kind} in an item {self.open['item']['type']}")
        if kind == "content_part.added":
            self.open["parts"] += 1
        must("output_text" not in kind or self.open["parts"], f"{kind} before content_part.added")
        if kind.endswith("delta"):
            self.open["deltas"] += event["delta"]
        elif kind.endswith(("arguments.done", "input.done", "text.done")):
            whole = event.get("arguments", event.get("input", event.get("text")))
            must(whole == self.open["deltas"], f"{kind}: {whole!r}, its deltas {self.open['deltas']!r}")

    def on_output_item_done(self, event):
        item = event["item"]
        must(self.open and item["id"] == self.open["item"]["id"] and item["type"] == self.open["item"]["type"], "an item ends that is not open")
        must(event["output_index"] == len(self.items), "output_index")
        if item["type"] == "message":
            must("".join(part["text"] for part in item["content"]) == self.open["deltas"], "the item has another text than its deltas")
        elif item["type"] == "function_call":
            must(item["arguments"] == self.open["deltas"], "the item has other arguments than its deltas")
            item["input"] = json_object(item["arguments"], "arguments")
        elif item["type"] == "custom_tool_call":
            must(item["input"] == self.open["deltas"], "the item has another input than its deltas")
        self.items.append(item)
        self.open = None

    def finish(self, event):
        response = event["response"]
        must(self.open is None, "the end comes in an item")
        must(response["id"] == self.id, "the id changes")
        must([item["id"] for item in response["output"]] == [item["id"] for item in self.items], "response.output has other items")
        usage = response["usage"]
        must(usage["input_tokens"] + usage["output_tokens"] == usage["total_tokens"], f"usage {usage}")
        must("cached_tokens" in usage["input_tokens_details"] and "reasoning_tokens" in usage["output_tokens_details"], f"usage {usage}")
        self.over = True

    on_completed = on_incomplete = finish

    def on_failed(self, event):
        raise OutOfOrder(f"the answer failed: {event['response'].get('error')}")

    def end(self):
        must(self.over, "the stream ends without response.completed")
        texts = [part["text"] for item in self.items if item["type"] == "message" for part in item["content"]]
        return {"text": "".join(texts), "calls": [(item["name"], item["input"]) for item in self.items if "call" in item["type"]]}


def automaton(path):
    """For the path of a request; None: not streamed."""
    path = path.partition("?")[0]
    for end, kind in (("/chat/completions", Chat), ("/responses", Responses), ("/messages", Messages)):
        if path.endswith(end):
            return kind()
    return None


def answer_of(path, text):
    """The answer in a whole stream; raises OutOfOrder."""
    machine = automaton(path)
    try:
        for event, data in frames(text):
            machine.take(event, data)
        return machine.end()
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise OutOfOrder(f"a field is missing or of another type: {error!r}") from error


# ---- the prefix cache

BLOCK = 64  # tokens that it has together


def usage_of(text):
    """(tokens of the prompt, cached ones), from the last event that has them."""
    found = None
    for _, data in frames(text):
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


def prefix_fault(first, second):
    """The prompt of the second request begins with that of the first, but for its last block."""
    if not first or not second:
        return "no usage"
    (before, _), (now, cached) = first, second
    if now > before and cached >= before - 2 * BLOCK:
        return None
    return f"{cached} of {now} tokens are cached, the earlier request had {before}"


# ---- self-test


def good_streams():
    usage = {"input_tokens": 3, "output_tokens": 0}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None, "usage": usage}

    def delta(reason):
        return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": {"output_tokens": 2}}

    messages = [
        {"type": "message_start", "message": message},
        {"type": "ping"},
        delta(None),
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hm."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
        {"type": "content_block_stop", "index": 1},
        delta("tool_use"),
        {"type": "message_stop"},
    ]

    def chunk(part, finish=None):
        choice = {"index": 0, "delta": part, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}

    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a"'}}
    chat = [
        chunk({"role": "assistant", "content": ""}),
        chunk({}),
        chunk({"content": "Hm."}),
        chunk({"tool_calls": [call]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}),
        chunk({}, "tool_calls"),
        {**chunk({}), "choices": [], "usage": {"total_tokens": 5}},
    ]
    begun = {"id": "resp_1", "status": "in_progress", "output": []}
    text = {"type": "output_text", "text": "Hm.", "annotations": []}
    said = {"type": "message", "id": "msg_1", "role": "assistant", "content": [text]}
    made = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
    told = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    at = [{"item_id": "msg_1", "output_index": 0, "content_index": 0}, {"item_id": "fc_1", "output_index": 1}]
    responses = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**said, "content": []}},
        {"type": "response.content_part.added", **at[0], "part": {**text, "text": ""}},
        {"type": "response.output_text.delta", **at[0], "delta": "Hm."},
        {"type": "response.output_text.done", **at[0], "text": "Hm."},
        {"type": "response.content_part.done", **at[0], "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": said},
        {"type": "response.output_item.added", "output_index": 1, "item": {**made, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **at[1], "delta": '{"a": 1}'},
        {"type": "response.function_call_arguments.done", **at[1], "arguments": '{"a": 1}'},
        {"type": "response.output_item.done", "output_index": 1, "item": made},
        {"type": "response.completed", "response": {"id": "resp_1", "output": [said, made], "usage": told}},
    ]
    return {"/v1/messages": messages, "/v1/chat/completions": chat, "/v1/responses": responses}


# Numbers of events in the good streams: a stream without one of them, or with one twice, must be refused.
LOST = {"/v1/messages": [0, 3, 5, 6, 7, 8, 9, 10, 11], "/v1/chat/completions": [0, 3, 4, 5], "/v1/responses": [0, 2, 3, 4, 7, 8, 9, 11, 12]}
TWICE = {"/v1/messages": [0, 3, 5, 6, 7, 8, 9, 10, 11], "/v1/chat/completions": [0, 3, 4, 5, 6], "/v1/responses": [0, 2, 4, 7, 8, 9, 11, 12]}


def written(path, events):
    named = not path.endswith("/chat/completions")
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)] if "responses" in path else events
    lines = [(f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in numbered]
    return ": a comment\n\n" + "".join(lines) + ("" if named else "data: [DONE]\n\n")


def refused(path, text):
    try:
        answer_of(path, text)
    except OutOfOrder:
        return True
    return False


def self_test():
    faults = 0
    for path, events in good_streams().items():
        must(answer_of(path, written(path, events)) == {"text": "Hm.", "calls": [("f", {"a": 1})]}, f"{path}: the good stream")
        broken = [(f"without event {i}", events[:i] + events[i + 1 :]) for i in LOST[path]]
        broken += [(f"event {i} twice", events[:i] + [events[i]] + events[i:]) for i in TWICE[path]]
        texts = [(what, written(path, bad)) for what, bad in broken]
        pieces = written(path, events).split("\n\n")
        texts += [(f"cut behind event {i}", "\n\n".join(pieces[: i + 1]) + "\n\n") for i in range(len(pieces) - 2)]
        for what, text in texts:
            must(refused(path, text), f"{path}: passes {what}")
        faults += len(texts)
    print(f"ok    events: 3 good streams pass, {faults} faults are found")


if __name__ == "__main__":
    self_test()
