// The official SDKs against a server. usage: node check_sdk.mjs MODULES BASE_URL scripted|model [NAME_PART]
// MODULES: the folder with node_modules. scripted: the answers of sdk_script.json are expected word by word. model: any answer
// will do, but its shape, order and numbers must be right. Prints a line a check, and exits with 1 when one failed.
import { createRequire } from "node:module";
import { isDeepStrictEqual } from "node:util";
import { resolve } from "node:path";

const [modules, base, mode, only = ""] = process.argv.slice(2);
const scripted = mode === "scripted";
const require = createRequire(resolve(modules, "package.json"));
const OpenAI = require("openai");
const { zodResponseFormat, zodTextFormat } = require("openai/helpers/zod");
const Anthropic = require("@anthropic-ai/sdk");
const { zodOutputFormat } = require("@anthropic-ai/sdk/helpers/zod");
const { z } = require("zod");

const settings = { maxRetries: 0, timeout: 120_000 };
const openai = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none", ...settings });
const anthropic = new Anthropic({ baseURL: base, apiKey: "none", ...settings });
const model = "any-name";
const most = { max_tokens: 160, temperature: 0 };

// ---------------------------------------------------------------- the harness

let failed = 0;
let passed = 0;

async function check(name, run) {
  if (!name.includes(only)) return;
  try {
    await run();
    passed++;
    console.log(`ok    ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${name}: ${error?.stack?.split("\n").slice(0, 2).join(" |") ?? error}`);
  }
}

function must(condition, what) {
  if (!condition) throw new Error(what);
}

function is(got, expected, what) {
  must(isDeepStrictEqual(got, expected), `${what}: expected ${JSON.stringify(expected)}, got ${JSON.stringify(got)}`);
}

// The text of an answer: the script's, or any.
function says(got, expected, what = "text") {
  must(typeof got === "string", `${what}: expected a string, got ${JSON.stringify(got)}`);
  if (scripted) is(got, expected, what);
}

function count(value, what, least = 0) {
  must(Number.isInteger(value) && value >= least, `${what}: expected an integer from ${least}, got ${JSON.stringify(value)}`);
}

async function refused(promise, Kind, status, what) {
  try {
    await promise;
  } catch (error) {
    must(error instanceof Kind, `${what}: expected ${Kind.name}, got ${error?.constructor?.name}: ${error?.message}`);
    is(error.status, status, `${what}: status`);
    return error;
  }
  throw new Error(`${what}: expected a refusal, got an answer`);
}

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

// ---------------------------------------------------------------- what requests ask for

const ask = (text) => [{ role: "user", content: text }];
const parameters = (properties) => ({ type: "object", properties, required: Object.keys(properties), additionalProperties: false });
const adding = parameters({ a: { type: "integer", minimum: 0 }, b: { type: "integer" } });
const looking = parameters({ word: { type: "string", description: "what to look up" } });
const chatTools = [
  { type: "function", function: { name: "add", description: "Adds two numbers.", parameters: adding } },
  { type: "function", function: { name: "lookup", description: "Looks a word up.", parameters: looking } },
  { type: "function", function: { name: "no_parameters" } },
];
const messageTools = [
  { name: "add", description: "Adds two numbers.", input_schema: adding },
  { name: "lookup", description: "Looks a word up.", input_schema: looking },
];
const responseTools = chatTools.map(({ function: f }) => ({ type: "function", strict: false, parameters: null, ...f }));
const Harbour = z.object({ city: z.enum(["Lisbon", "Porto"]), boats: z.number().int(), open: z.boolean() });
// Anthropic's helper makes a description of the bounds of an integer, so nothing keeps a model within them.
const FewBoats = Harbour.extend({ boats: z.literal([3, 7]) });
const harbour = { city: "Lisbon", boats: 7, open: true };
const twoCalls = [
  ["add", { a: 1, b: 2 }],
  ["lookup", { word: 'quay "north"\n' }],
];

function callsAre(calls, expected) {
  if (scripted) is(calls, expected, "calls");
  for (const [name, argumentsObject] of calls) {
    must(["add", "lookup", "no_parameters"].includes(name), `call of an unknown tool ${name}`);
    must(argumentsObject && typeof argumentsObject === "object", "arguments are no object");
  }
}

const chatCalls = (message) => (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
const blockCalls = (message) => message.content.filter((b) => b.type === "tool_use").map((b) => [b.name, b.input]);
const itemCalls = (response) =>
  response.output.filter((item) => item.type === "function_call").map((item) => [item.name, JSON.parse(item.arguments)]);
const blockText = (message) => message.content.filter((b) => b.type === "text").map((b) => b.text).join("");

function usageAdds(usage, input, output) {
  count(usage?.[input], input, 1);
  count(usage[output], output, 1);
  if (usage.total_tokens !== undefined) is(usage.total_tokens, usage[input] + usage[output], "total_tokens");
}

function isHarbour(value) {
  Harbour.parse(value);
  if (scripted) is(value, harbour, "parsed answer");
}

// ---------------------------------------------------------------- openai: chat/completions

async function chatChecks() {
  await check("openai chat", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), ...most });
    is(answer.object, "chat.completion", "object");
    must(typeof answer.id === "string" && answer.id.length > 8, "id");
    count(answer.created, "created", 1_500_000_000);
    is(answer.choices.length, 1, "choices");
    is(answer.choices[0].message.role, "assistant", "role");
    says(answer.choices[0].message.content, "The tide is high at noon.");
    must(["stop", "length"].includes(answer.choices[0].finish_reason), "finish_reason");
    if (scripted) is(answer.choices[0].finish_reason, "stop", "finish_reason");
    usageAdds(answer.usage, "prompt_tokens", "completion_tokens");
    count(answer.usage.prompt_tokens_details?.cached_tokens, "cached_tokens");
    must(typeof answer._request_id === "string" && answer._request_id.length > 0, "header x-request-id");
  });

  await check("openai chat: parts, developer, system later on, empty text, null content", async () => {
    const messages = [
      { role: "developer", content: "You are a sailor." },
      { role: "user", content: [{ type: "text", text: "[system]" }, { type: "text", text: "Hello" }] },
      { role: "assistant", content: null, tool_calls: [{ id: "c1", type: "function", function: { name: "add", arguments: "{broken" } }] },
      { role: "tool", tool_call_id: "c1", content: [{ type: "text", text: "no" }] },
      { role: "assistant", content: "" },
      { role: "system", content: "Be brief." },
      { role: "user", content: "Are you?", name: "kim" },
    ];
    const answer = await openai.chat.completions.create({ model, messages, tools: chatTools, max_completion_tokens: 48, store: false, metadata: { a: "b" } });
    says(answer.choices[0].message.content, "Aye.");
  });

  await check("openai chat stream", async () => {
    const stream = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), stream: true, stream_options: { include_usage: true }, ...most });
    const chunks = await all(stream);
    must(chunks.every((c) => c.object === "chat.completion.chunk" && c.id === chunks[0].id), "object and id of all chunks");
    is(chunks[0].choices[0].delta.role, "assistant", "role in the first chunk");
    says(chunks.map((c) => c.choices[0]?.delta.content ?? "").join(""), "The tide is high at noon.");
    const finishes = chunks.filter((c) => c.choices[0]?.finish_reason);
    is(finishes.length, 1, "chunks with finish_reason");
    is(chunks.at(-1).choices, [], "choices of the last chunk");
    usageAdds(chunks.at(-1).usage, "prompt_tokens", "completion_tokens");
    must(chunks.slice(0, -1).every((c) => !c.usage), "usage only in the last chunk");
  });

  await check("openai chat stream without usage", async () => {
    const chunks = await all(await openai.chat.completions.create({ model, messages: ask("[unicode] Hello"), stream: true, ...most }));
    says(chunks.map((c) => c.choices[0].delta.content ?? "").join(""), "Grüße aus 東京 🚢: ça va?");
    must(chunks.every((c) => !c.usage && c.choices.length === 1), "no usage, one choice");
  });

  await check("openai chat stop", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[stop] Count"), stop: ["END"], ...most });
    says(answer.choices[0].message.content, "one two three ");
  });

  await check("openai chat one call", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[one-call] 19 + 23?"), tools: chatTools, ...most });
    const { message, finish_reason } = answer.choices[0];
    callsAre(chatCalls(message), [["add", { a: 19, b: 23 }]]);
    if (!scripted) return;
    is(finish_reason, "tool_calls", "finish_reason");
    is(message.content, "I add them.", "text before the call");
    must(/^call_\w+$/.test(message.tool_calls[0].id), "id of the call");
    is(message.tool_calls[0].type, "function", "type of the call");
  });

  await check("openai chat stream two calls", async () => {
    const stream = openai.chat.completions.stream({ model, messages: ask("[two-calls] Do both."), tools: chatTools, parallel_tool_calls: true, ...most });
    const deltas = [];
    for await (const chunk of stream) deltas.push(...(chunk.choices[0]?.delta.tool_calls ?? []));
    const answer = await stream.finalChatCompletion();
    callsAre(chatCalls(answer.choices[0].message), twoCalls);
    for (const index of new Set(deltas.map((d) => d.index))) {
      const [first, ...rest] = deltas.filter((d) => d.index === index);
      must(first.id && first.function.name && first.type === "function", "the first delta of a call has id, type and name");
      must(rest.every((d) => !d.id && !d.function.name), "later deltas have arguments only");
    }
    if (!scripted) return;
    is(answer.choices[0].finish_reason, "tool_calls", "finish_reason");
    is([...new Set(deltas.map((d) => d.index))], [0, 1], "indexes");
    const [a, b] = answer.choices[0].message.tool_calls;
    must(a.id !== b.id, "ids differ");
  });

  await check("openai chat tool_choice required", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[required] Go on."), tools: chatTools, tool_choice: "required", ...most });
    const calls = chatCalls(answer.choices[0].message);
    must(calls.length >= 1, "a call is required");
    callsAre(calls, [["add", { a: 4, b: 5 }]]);
  });

  await check("openai chat tool_choice one function", async () => {
    const choice = { type: "function", function: { name: "add" } };
    const answer = await openai.chat.completions.create({ model, messages: ask("[required] Go on."), tools: chatTools, tool_choice: choice, ...most });
    const calls = chatCalls(answer.choices[0].message);
    must(calls.length >= 1 && calls.every(([name]) => name === "add"), "only add is called");
    must(calls.every(([, a]) => Number.isInteger(a.a) && Number.isInteger(a.b)), "arguments as the schema says");
  });

  await check("openai chat tool_choice none", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), tools: chatTools, tool_choice: "none", ...most });
    is(answer.choices[0].message.tool_calls, undefined, "tool_calls");
    says(answer.choices[0].message.content, "The tide is high at noon.");
  });

  await check("openai chat runTools", async () => {
    const sums = [];
    const add = ({ a, b }) => (sums.push(a + b), `the sum is ${a + b}`);
    const tool = { type: "function", function: { name: "add", description: "Adds two numbers.", parameters: adding, parse: JSON.parse, function: add } };
    for (const stream of [false, true]) {
      const runner = openai.chat.completions.runTools({ model, messages: ask("[one-call] 19 + 23?"), tools: [tool], stream, ...most }, { maxChatCompletions: 3 });
      says(await runner.finalContent(), "The sum is 42.", `stream ${stream}`);
    }
    if (scripted) is(sums, [42, 42], "sums");
  });

  await check("openai chat json_schema, parsed", async () => {
    const format = zodResponseFormat(Harbour, "harbour");
    const answer = await openai.chat.completions.parse({ model, messages: ask("[schema] Which harbour?"), response_format: format, max_tokens: 200, temperature: 0 });
    isHarbour(answer.choices[0].message.parsed);
    const stream = openai.chat.completions.stream({ model, messages: ask("[schema] Which harbour?"), response_format: format, max_tokens: 200, temperature: 0 });
    isHarbour((await stream.finalChatCompletion()).choices[0].message.parsed);
  });

  await check("openai chat json_object", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[schema] Which harbour?"), response_format: { type: "json_object" }, max_tokens: 200, temperature: 0 });
    if (answer.choices[0].finish_reason === "stop") JSON.parse(answer.choices[0].message.content);
    says(answer.choices[0].message.content, JSON.stringify(harbour).replaceAll(":", ": ").replaceAll(",", ", "));
  });

  await check("openai chat n and logprobs", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), n: 2, logprobs: true, top_logprobs: 2, ...most });
    is(answer.choices.map((c) => c.index), [0, 1], "indexes");
    for (const choice of answer.choices) {
      says(choice.message.content, "The tide is high at noon.");
      must(choice.logprobs.content.length >= 1, "logprobs");
      const [first] = choice.logprobs.content;
      must(typeof first.token === "string" && Array.isArray(first.bytes) && first.top_logprobs.length <= 2, "fields of a token");
    }
  });
}

// ---------------------------------------------------------------- openai: the others

async function otherChecks() {
  await check("openai completions", async () => {
    const answer = await openai.completions.create({ model, prompt: "Once upon a quay", ...most });
    is(answer.object, "text_completion", "object");
    says(answer.choices[0].text, " there was a boat.");
    usageAdds(answer.usage, "prompt_tokens", "completion_tokens");
    const chunks = await all(await openai.completions.create({ model, prompt: "Once upon a quay", stream: true, ...most }));
    says(chunks.map((c) => c.choices[0]?.text ?? "").join(""), " there was a boat.");
  });

  await check("openai models", async () => {
    const models = await all(await openai.models.list());
    must(models.length >= 1 && models.every((m) => m.object === "model" && typeof m.id === "string"), "models");
    const one = await openai.models.retrieve(models[0].id);
    is(one.id, models[0].id, "id");
  });

  await check("openai request aborted, server goes on", async () => {
    const stream = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), stream: true, ...most });
    for await (const _ of stream) break;
    stream.controller.abort();
    must((await all(await openai.models.list())).length >= 1, "models");
  });
}

function itemsInOrder(events) {
  is(events[0].type, "response.created", "first event");
  is(events.at(-1).type, "response.completed", "last event");
  is(events.map((e) => e.sequence_number), events.map((_, i) => i), "sequence numbers");
  const added = events.filter((e) => e.type === "response.output_item.added");
  const done = events.filter((e) => e.type === "response.output_item.done");
  is(added.map((e) => e.output_index), added.map((_, i) => i), "items added");
  is(done.map((e) => e.item.id), added.map((e) => e.item.id), "items done as they were added");
  is(done.map((e) => e.item), events.at(-1).response.output, "the response has the items");
}

async function responseChecks() {
  await check("openai responses", async () => {
    const answer = await openai.responses.create({ model, instructions: "You are a sailor.", input: "[chat] How is the tide?", max_output_tokens: 48, temperature: 0, store: false });
    is(answer.object, "response", "object");
    must(["completed", "incomplete"].includes(answer.status), "status");
    says(answer.output_text, "The tide is high at noon.");
    usageAdds(answer.usage, "input_tokens", "output_tokens");
    count(answer.usage.input_tokens_details.cached_tokens, "cached_tokens");
    count(answer.usage.output_tokens_details.reasoning_tokens, "reasoning_tokens");
  });

  await check("openai responses stream", async () => {
    const events = await all(await openai.responses.create({ model, input: ask("[unicode] Hello"), max_output_tokens: 48, temperature: 0, stream: true }));
    says(events.filter((e) => e.type === "response.output_text.delta").map((e) => e.delta).join(""), "Grüße aus 東京 🚢: ça va?");
    if (scripted) itemsInOrder(events);
    usageAdds(events.at(-1).response.usage, "input_tokens", "output_tokens");
  });

  await check("openai responses two calls, streamed by the helper", async () => {
    const stream = openai.responses.stream({ model, input: ask("[two-calls] Do both."), tools: responseTools, max_output_tokens: 64, temperature: 0 });
    const events = [];
    for await (const event of stream) events.push(event);
    callsAre(itemCalls(await stream.finalResponse()), twoCalls);
    if (!scripted) return;
    itemsInOrder(events);
    const deltas = events.filter((e) => e.type === "response.function_call_arguments.delta" && e.output_index === 1);
    is(JSON.parse(deltas.map((e) => e.delta).join("")), twoCalls[1][1], "arguments from their deltas");
  });

  await check("openai responses: a call, its output, an answer", async () => {
    const first = await openai.responses.create({ model, input: ask("[one-call] 19 + 23?"), tools: responseTools, max_output_tokens: 64, temperature: 0 });
    if (!scripted) return;
    const call = first.output.find((item) => item.type === "function_call");
    for (const output of ["the sum is 42", [{ type: "input_text", text: "the sum is 42" }]]) {
      const input = [...ask("[one-call] 19 + 23?"), ...first.output, { type: "function_call_output", call_id: call.call_id, output }];
      const second = await openai.responses.create({ model, input, tools: responseTools, max_output_tokens: 64, temperature: 0 });
      is(second.output_text, "The sum is 42.", "text");
    }
  });

  await check("openai responses text format, parsed", async () => {
    const text = { format: zodTextFormat(Harbour, "harbour") };
    const answer = await openai.responses.parse({ model, input: "[schema] Which harbour?", text, max_output_tokens: 200, temperature: 0 });
    isHarbour(answer.output_parsed);
  });
}

// ---------------------------------------------------------------- anthropic

async function messageChecks() {
  await check("anthropic messages", async () => {
    const answer = await anthropic.messages.create({ model, system: "You are a sailor.", messages: ask("[chat] How is the tide?"), ...most });
    is([answer.type, answer.role], ["message", "assistant"], "type and role");
    must(answer.id.startsWith("msg_"), "id");
    says(blockText(answer), "The tide is high at noon.");
    must(["end_turn", "max_tokens"].includes(answer.stop_reason), "stop_reason");
    usageAdds(answer.usage, "input_tokens", "output_tokens");
    count(answer.usage.cache_read_input_tokens, "cache_read_input_tokens");
    count(answer.usage.cache_creation_input_tokens, "cache_creation_input_tokens");
  });

  await check("anthropic messages stream", async () => {
    const stream = anthropic.messages.stream({ model, messages: ask("[unicode] Hello"), ...most });
    const events = [];
    let streamed = "";
    stream.on("streamEvent", (event) => events.push(event)).on("text", (text) => (streamed += text));
    const answer = await stream.finalMessage();
    says(streamed, "Grüße aus 東京 🚢: ça va?");
    is(blockText(answer), streamed, "the message has what was streamed");
    is([events[0].type, events.at(-1).type], ["message_start", "message_stop"], "first and last event");
    must(typeof answer.stop_reason === "string", "stop_reason");
    usageAdds(answer.usage, "input_tokens", "output_tokens");
  });

  await check("anthropic stop_sequences", async () => {
    const answer = await anthropic.messages.create({ model, messages: ask("[stop] Count"), stop_sequences: ["END"], ...most });
    if (scripted) is([answer.stop_reason, answer.stop_sequence], ["stop_sequence", "END"], "stop_reason");
    says(blockText(answer), "one two three ");
  });

  await check("anthropic tools, streamed: two calls", async () => {
    const stream = anthropic.messages.stream({ model, messages: ask("[two-calls] Do both."), tools: messageTools, ...most });
    const answer = await stream.finalMessage();
    callsAre(blockCalls(answer), twoCalls);
    if (!scripted) return;
    is(answer.stop_reason, "tool_use", "stop_reason");
    const ids = answer.content.map((b) => b.id);
    must(ids.every((id) => /^toolu_\w+$/.test(id)) && ids[0] !== ids[1], "ids of calls");
  });

  await check("anthropic tools: a call, its result, an answer", async () => {
    const question = ask("[one-call] 19 + 23?");
    const first = await anthropic.messages.create({ model, messages: question, tools: messageTools, tool_choice: { type: "auto", disable_parallel_tool_use: true }, ...most });
    callsAre(blockCalls(first), [["add", { a: 19, b: 23 }]]);
    if (!scripted) return;
    is(first.content[0], { type: "text", text: "I add them." }, "text before the call");
    for (const content of ["the sum is 42", [{ type: "text", text: "the sum is 42" }]]) {
      const result = { type: "tool_result", tool_use_id: first.content[1].id, content, is_error: false };
      const messages = [...question, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
      is(blockText(await anthropic.messages.create({ model, messages, tools: messageTools, ...most })), "The sum is 42.", "text");
    }
  });

  await check("anthropic tool_choice any and tool", async () => {
    for (const tool_choice of [{ type: "any" }, { type: "tool", name: "add" }]) {
      const answer = await anthropic.messages.create({ model, messages: ask("[required] Go on."), tools: messageTools, tool_choice, ...most });
      const calls = blockCalls(answer);
      must(calls.length >= 1, "a call is required");
      callsAre(calls, [["add", { a: 4, b: 5 }]]);
    }
  });

  await check("anthropic tool runner", async () => {
    const add = {
      type: "custom", name: "add", description: "Adds two numbers.", input_schema: adding,
      parse: (input) => input, run: ({ a, b }) => `the sum is ${a + b}`,
    };
    const runner = anthropic.beta.messages.toolRunner({ model, messages: ask("[one-call] 19 + 23?"), tools: [add], max_iterations: 3, ...most });
    says(blockText(await runner), "The sum is 42.");
  });

  await check("anthropic output format, parsed", async () => {
    const output_config = { format: zodOutputFormat(FewBoats) };
    const answer = await anthropic.messages.parse({ model, messages: ask("[schema] Which harbour?"), output_config, max_tokens: 200, temperature: 0 });
    isHarbour(answer.parsed_output);
  });

  await check("anthropic: what agents put into histories", async () => {
    const messages = [
      { role: "user", content: [{ type: "text", text: "[system] Hello", cache_control: { type: "ephemeral" } }, { type: "text", text: "" }] },
      { role: "system", content: [{ type: "text", text: "Mind the time." }] },
      {
        role: "assistant",
        content: [
          { type: "thinking", thinking: "Hm.", signature: "x" },
          { type: "redacted_thinking", data: "x" },
          { type: "tool_use", id: "toolu_1", name: "lookup", input: {} },
        ],
      },
      { role: "user", content: [{ type: "tool_result", tool_use_id: "toolu_1", is_error: true }, { type: "text", text: "Go on." }] },
    ];
    const extra = { thinking: { type: "adaptive" }, context_management: { edits: [] }, output_config: { effort: "high" }, metadata: { user_id: "{}" } };
    const answer = await anthropic.messages.create({ model, messages, tools: messageTools, ...extra, ...most });
    says(blockText(answer), "Aye.");
  });

  await check("anthropic count_tokens", async () => {
    const body = { model, system: "You are a sailor.", messages: ask("[chat] How is the tide?"), tools: messageTools };
    const counted = await anthropic.messages.countTokens(body);
    count(counted.input_tokens, "input_tokens", 1);
    const answer = await anthropic.messages.create({ ...body, ...most });
    const { input_tokens, cache_read_input_tokens, cache_creation_input_tokens } = answer.usage;
    is(counted.input_tokens, input_tokens + cache_read_input_tokens + cache_creation_input_tokens, "count_tokens against usage");
    const longer = await anthropic.messages.countTokens({ ...body, messages: ask("word ".repeat(500)) });
    must(longer.input_tokens > counted.input_tokens + 300, "a longer prompt has more tokens");
  });

  await check("anthropic models", async () => {
    const models = await anthropic.models.list();
    must(models.data.length >= 1 && models.data.every((m) => typeof m.id === "string"), "data");
  });
}

// ---------------------------------------------------------------- what is refused

// Longer than any context that a test's server has.
const flood = "wave after wave ".repeat(100_000);
const overflowWords = /prompt is too long: \d+ tokens > \d+ maximum/;

async function errorChecks() {
  await check("openai overflow", async () => {
    const bodies = [
      () => openai.chat.completions.create({ model, messages: ask(flood) }),
      () => openai.chat.completions.create({ model, messages: ask(flood), stream: true }),
      () => openai.completions.create({ model, prompt: flood }),
      () => openai.responses.create({ model, input: flood }),
    ];
    for (const [number, send] of bodies.entries()) {
      const error = await refused(send(), OpenAI.BadRequestError, 400, `overflow ${number}`);
      is(error.code, "context_length_exceeded", "code");
      is(error.type, "invalid_request_error", "type");
      must(overflowWords.test(error.message) && error.message.includes("maximum context length"), `message: ${error.message}`);
      is(error.headers.get("x-should-retry"), "false", "x-should-retry");
    }
  });

  await check("openai more max_tokens than fit is no error", async () => {
    const answer = await openai.chat.completions.create({ model, messages: ask("[chat] How is the tide?"), max_tokens: scripted ? 10_000_000 : 64 });
    says(answer.choices[0].message.content, "The tide is high at noon.");
  });

  await check("openai errors", async () => {
    const bad = [
      { model },
      { model, messages: "no" },
      { model, messages: [] },
      { model, messages: [{ role: "captain", content: "x" }] },
      { model, messages: ask("x"), temperature: -1 },
      { model, messages: ask("x"), temperature: "hot" },
      { model, messages: ask("x"), tools: [{ type: "function" }] },
      { model, messages: ask("x"), n: 1000 },
    ];
    for (const body of bad) {
      const error = await refused(openai.chat.completions.create(body), OpenAI.BadRequestError, 400, JSON.stringify(body));
      is(error.type, "invalid_request_error", "type");
      must(typeof error.message === "string" && error.message.length > 8, "message");
    }
    const lost = await refused(openai.get("/nowhere"), OpenAI.NotFoundError, 404, "unknown path");
    must(lost.message.length > 4, "message");
  });

  await check("openai broken JSON", async () => {
    const reply = await fetch(`${base}/v1/chat/completions`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"model": "a", "messages": [' });
    is(reply.status, 400, "status");
    const { error } = await reply.json();
    must(typeof error.message === "string" && error.type === "invalid_request_error", "shape of the error");
    must("code" in error && "param" in error, "code and param are there");
  });

  await check("anthropic overflow", async () => {
    const body = { model, messages: ask(flood), max_tokens: 8 };
    const error = await refused(anthropic.messages.create(body), Anthropic.BadRequestError, 400, "overflow");
    is(error.error.type, "error", "type of the body");
    is(error.error.error.type, "invalid_request_error", "type");
    must(overflowWords.test(error.error.error.message), `message: ${error.error.error.message}`);
    await refused(anthropic.messages.stream(body).finalMessage(), Anthropic.BadRequestError, 400, "overflow of a stream");
  });

  await check("anthropic errors", async () => {
    for (const body of [{ model, max_tokens: 8 }, { model, messages: ask("x"), max_tokens: "many" }, { model, max_tokens: 8, messages: [{ role: "user", content: 7 }] }]) {
      const error = await refused(anthropic.messages.create(body), Anthropic.BadRequestError, 400, JSON.stringify(body));
      is(error.error.error.type, "invalid_request_error", "type");
      must(typeof error.requestID === "string", "header request-id");
    }
  });
}

// The server is told to send blanks while an answer takes long (--keepalive). They do not lengthen the SDKs' own time limit, which
// counts to the end of the answer.
async function slowChecks() {
  await check("openai and anthropic: blanks before an answer of 9 s that is not streamed", async () => {
    const [chat, message] = await Promise.all([
      openai.chat.completions.create({ model, messages: ask("[slow] How is the tide?"), ...most }),
      anthropic.messages.create({ model, messages: ask("[slow] How is the tide?"), ...most }),
    ]);
    says(chat.choices[0].message.content, "Slow.");
    says(blockText(message), "Slow.");
  });
}

await chatChecks();
await otherChecks();
await responseChecks();
await messageChecks();
await errorChecks();
if (scripted) await slowChecks();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);
