"""Bodies and heads for the checks of the HTTP server: one of each API, with every field, and how they are broken."""
import random

NUMBERS = ["-1", "0", "1", "0.5", "-0.0", "1e999", "-1e999", "1e308", "2147483647", "2147483648", "-2147483649", "4294967296", "9007199254740993",
           "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "NaN", "Infinity", "\"1\"", "true",
           "null", "[]", "{}", "[1]", "0x10", "01", "1.", ".5", "1e", "--1"]
FIELDS = {
    "/v1/chat/completions": ["temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "n", "seed", "presence_penalty",
                             "frequency_penalty", "repetition_penalty", "top_logprobs", "logprobs", "stop", "logit_bias", "stream", "n_predict",
                             "messages", "tools", "tool_choice", "response_format", "stream_options", "chat_template_kwargs", "reasoning_effort",
                             "parallel_tool_calls", "user", "model", "prompt_cache_key"],
    "/v1/completions": ["prompt", "max_tokens", "temperature", "logprobs", "n", "best_of", "echo", "suffix", "stop", "seed", "logit_bias"],
    "/v1/responses": ["input", "max_output_tokens", "temperature", "top_p", "tools", "reasoning", "text", "instructions", "include", "previous_response_id"],
    "/v1/messages": ["max_tokens", "messages", "system", "temperature", "top_k", "top_p", "stop_sequences", "thinking", "tools", "tool_choice",
                     "metadata", "output_config"],
    "/v1/messages/count_tokens": ["messages", "system", "tools"],
    "/tokenize": ["content", "add_special", "with_pieces"],
    "/detokenize": ["tokens"],
    "/apply-template": ["messages", "tools"],
}


def plain_body(path):
    if path == "/v1/completions":
        return {"prompt": "Hello", "max_tokens": 1}
    if path == "/v1/responses":
        return {"input": "Hello", "max_output_tokens": 1}
    if path == "/tokenize":
        return {"content": "Hello"}
    if path == "/detokenize":
        return {"tokens": [1, 2, 3]}
    return {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at, what = rng.randrange(len(data)), rng.randrange(9)
        if what == 0:
            data[at] = rng.randrange(256)
        elif what == 1:
            del data[at:at + rng.choice((1, 2, 8, 64))]
        elif what == 2:
            data[at:at] = rng.choice((b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\u0000", b"\\ud800", b"\"", b"{", b"}", b"[", b"]", b",", b":", b"1e999",
                                      b"null", b"-", b"//", b"\xef\xbb\xbf"))
        elif what == 3:
            del data[at:]
        elif what == 4:
            data[at:at] = data[at:at + rng.choice((4, 16, 64))]
        elif what == 5:
            data[at:at + 1] = rng.choice(NUMBERS).encode()
        elif what == 6:
            data += bytes(data)
        elif what == 7:
            data[at:at] = rng.choice((b"[", b"{\"a\":", b"\\")) * rng.choice((10, 100, 1000))
        else:
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def rich_body(path, rng):
    """Something of everything, so that what is broken lies deep."""
    body = plain_body(path)
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["a", "b"]}, "n": {"type": "integer", "minimum": 0}}, "required": ["city"]}
    if path == "/v1/chat/completions":
        body["messages"] = [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u\u00e9"}]},
                            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"city\": \"a\"}"}}]},
                            {"role": "tool", "tool_call_id": "c1", "content": "r"}, {"role": "user", "content": "u"}]
        body.update(tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}], stop=["x"], seed=1, top_p=0.9,
                    stream=rng.random() < 0.3, logit_bias={"5": -1})
        if rng.random() < 0.3:
            body.pop("tools")
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    elif path.startswith("/v1/messages"):
        body["system"] = [{"type": "text", "text": "s", "cache_control": {"type": "ephemeral"}}]
        body["messages"] = [{"role": "user", "content": "u"}, {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"city": "a"}}]},
                            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}]}]}]
        body.update(tools=[{"name": "f", "input_schema": schema}], thinking={"type": "disabled"})
    elif path == "/v1/responses":
        body["input"] = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
                         {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c1", "output": "r"}]
        body.update(tools=[{"type": "function", "name": "f", "parameters": schema}], text={"format": {"type": "text"}}, reasoning=None)
    return body



HEADS = [b"GET /health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: check\r\nAccept: */*\r\n\r\n",
         b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"content\":\"a\"}",
         b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8;x=y\r\n{\"conten\r\n7\r\nt\":\"a\"}\r\n0\r\nX-T: 1\r\n\r\n",
         b"POST /v1/messages?beta=true HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Encoding: gzip\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n{}\n",
         b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"]
PIECES = [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"%", b"%00", b"%zz", b"?", b"&", b"=", b";", b"chunked", b"Content-Length: 1\r\n",
          b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n", b"\r\n\r\n", b"HTTP/1.1", b"ffffffffffffffff\r\n", b"-1", b"\xff\xfe", b"\x16\x03\x01", b"0\r\n\r\n"]


def mutate_head(rng):
    """A request of which something is wrong before the body, or in the framing of it."""
    data = bytearray(rng.choice(HEADS))
    for _ in range(rng.choice((1, 1, 2, 4))):
        place, what = rng.randrange(len(data) + 1), rng.randrange(6)
        if what == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif what == 1:
            del data[place:place + rng.choice((1, 2, 8))]
        elif what == 2:
            data[place:place] = rng.choice(PIECES)
        elif what == 3:
            data[place:place] = data[place:place + rng.choice((8, 32))]
        elif what == 4:
            data[place:place] = rng.choice(PIECES) * rng.choice((10, 1000, 20_000))
        else:
            del data[place:]
    return bytes(data)
