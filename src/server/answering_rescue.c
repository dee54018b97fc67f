/* Conversations that a chat template refuses, or of which it leaves something out, said in a form that it takes. Which form a template
 * needs is found out once, when it is there: it is rendered with short conversations, and a rescue is one where a conversation is
 * not shown as it is, but is with the rescue. So a template is given the same form in every turn, and prompts keep their prefixes. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"
#include "server/api_parts.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#define BETWEEN       "\n\n" /* texts of one message */
#define ID_LETTERS    9
#define PARALLEL_MOST 256 /* calls of a message whose results are looked for */

/* Each of them changes the messages; false: no memory. What jansson was short of is seen by mq__rescue. */
typedef bool rescue(json_t *messages);

static bool is_from(const json_t *message, const char *role)
{
    const char *own = mq__text_member(message, "role");
    return own && strcmp(own, role) == 0;
}

/* Takes the buffer's memory. */
static bool set_text(json_t *message, const char *name, mq_buf *text)
{
    json_t *value = mq__joined_text(text);
    mq__buf_free(text);
    return json_object_set_new(message, name, value) == 0;
}

/* The messages become those of the list, which is taken. */
static bool set_messages(json_t *messages, json_t *list)
{
    const bool set = json_array_clear(messages) == 0 && json_array_extend(messages, list) == 0;
    json_decref(list);
    return set;
}

/* ---- calls and their results */

/* Gemma 2 and 3, Phi 3.5: without a role for them, results are what a user says. */
static bool say_results(json_t *messages)
{
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message)
    {
        if (!is_from(message, "tool")) continue;
        mq_buf text = {0};
        (void)mq__buf_puts(&text, "<tool_response>\n");
        mq__join_text(&text, "", json_object_get(message, "content"));
        (void)mq__buf_puts(&text, "\n</tool_response>");
        (void)json_object_clear(message);
        (void)json_object_set_new(message, "role", json_string("user"));
        if (!set_text(message, "content", &text)) return false;
    }
    return true;
}

static void add_value(mq_buf *text, const json_t *value)
{
    if (!mq__json_print(value, JSON_COMPACT | JSON_ENCODE_ANY, text)) text->failed = true;
}

static void add_call(mq_buf *text, const json_t *function)
{
    const json_t *arguments = json_object_get(function, "arguments");
    (void)mq__buf_printf(text, "%s<tool_call>\n{\"name\": ", text->len ? "\n" : "");
    add_value(text, json_object_get(function, "name"));
    (void)mq__buf_puts(text, ", \"arguments\": ");
    if (json_is_string(arguments))
        (void)mq__buf_append(text, json_string_value(arguments), json_string_length(arguments));
    else
        add_value(text, arguments);
    (void)mq__buf_puts(text, "}\n</tool_call>");
}

/* Those, Granite 3.3 and SmolLM3: calls are what the assistant says. */
static bool say_calls(json_t *messages)
{
    size_t i, k;
    json_t *message, *call;
    json_array_foreach(messages, i, message)
    {
        const json_t *calls = json_object_get(message, "tool_calls");
        if (!calls) continue;
        mq_buf text = {0};
        mq__join_text(&text, "", json_object_get(message, "content"));
        json_array_foreach(calls, k, call) add_call(&text, json_object_get(call, "function"));
        (void)json_object_del(message, "tool_calls");
        if (!set_text(message, "content", &text)) return false;
    }
    return true;
}

static bool holds_object(const json_t *arguments)
{
    json_t *value = NULL;
    if (!json_is_string(arguments)) return json_is_object(arguments);
    (void)mq__json_read(json_string_value(arguments), json_string_length(arguments), JSON_ALLOW_NUL | JSON_DECODE_ANY,
                        MQ_JSON_ROUND_NUMBERS, "arguments", &value, NULL);
    const bool object = json_is_object(value);
    json_decref(value);
    return object;
}

/* Qwen3-Coder, Qwen3.5, GLM 4.6: a template that walks through a call's arguments cannot show a text that is no object. The text
 * becomes a member. */
static bool wrap_arguments(json_t *messages)
{
    size_t i, k;
    json_t *message, *call;
    json_array_foreach(messages, i, message)
    {
        json_array_foreach(json_object_get(message, "tool_calls"), k, call)
        {
            json_t *function = json_object_get(call, "function"), *arguments = json_object_get(function, "arguments");
            if (!arguments || holds_object(arguments)) continue;
            (void)json_object_set_new(function, "arguments", json_pack("{sO}", "arguments", arguments));
        }
    }
    return true;
}

/* ---- ids */

/* An id of nine letters and digits stays; another one gives nine that depend on it alone. Without an id, the number stands for it. */
static json_t *short_id(const json_t *id, size_t number)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char made[32];
    const char *text = json_string_value(id);
    size_t count = json_string_length(id);
    if (count == ID_LETTERS && strspn(text, letters) == ID_LETTERS) return json_string(text);
    if (count == 0) {
        count = (size_t)snprintf(made, sizeof made, "%zu", number);
        text = made;
    }
    uint64_t hash = XXH3_64bits(text, count);
    for (size_t i = 0; i < ID_LETTERS; i++) {
        made[i] = letters[hash % (sizeof letters - 1)];
        hash /= sizeof letters - 1;
    }
    return json_stringn(made, ID_LETTERS);
}

/* Mistral. A result without an id is that of the call at its place. */
static bool shorten_ids(json_t *messages)
{
    size_t i, k, number = 0, place = 0; /* of all calls; of the results since the latest of them */
    json_t *message, *call;
    const json_t *latest = NULL;
    json_array_foreach(messages, i, message)
    {
        const json_t *calls = json_object_get(message, "tool_calls"), *id = json_object_get(message, "tool_call_id");
        json_array_foreach(calls, k, call)
        {
            (void)json_object_set_new(call, "id", short_id(json_object_get(call, "id"), number++));
        }
        if (calls) {
            latest = calls;
            place = 0;
        }
        if (!is_from(message, "tool")) continue;
        if (json_string_length(id) == 0) id = json_object_get(json_array_get(latest, place), "id");
        (void)json_object_set_new(message, "tool_call_id", short_id(id, number + place));
        place++;
    }
    return true;
}

/* ---- parallel calls */

/* Takes a call's result out of the list: the one of its id, or, where there are no ids, the next. A new reference, or NULL. */
static json_t *take_result(json_t *results, const json_t *call)
{
    const char *id = mq__text_member(call, "id");
    size_t i;
    json_t *result;
    json_array_foreach(results, i, result)
    {
        const char *own = mq__text_member(result, "tool_call_id");
        if (id && own && strcmp(id, own) != 0) continue;
        json_incref(result);
        (void)json_array_remove(results, i);
        return result;
    }
    return NULL;
}

/* Appends a message of several calls as messages of one, each before its result. */
static void append_apart(json_t *list, const json_t *message, json_t *results)
{
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *one = json_copy((json_t *)(uintptr_t)message), *result = take_result(results, call);
        (void)json_object_set_new(one, "tool_calls", json_pack("[O]", call));
        if (i) {
            (void)json_object_set_new(one, "content", json_null());
            (void)json_object_del(one, "reasoning_content");
        }
        (void)json_array_append_new(list, one);
        if (result) (void)json_array_append_new(list, result);
    }
    (void)json_array_extend(list, results);
}

/* Llama 3 refuses more than one call at once, gpt-oss shows the first only. */
static bool part_calls(json_t *messages)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(messages);) {
        json_t *message = json_array_get(messages, i++);
        const size_t calls = json_array_size(json_object_get(message, "tool_calls"));
        if (calls < 2 || calls > PARALLEL_MOST) {
            (void)json_array_append(list, message);
            continue;
        }
        json_t *results = json_array();
        while (is_from(json_array_get(messages, i), "tool")) {
            (void)json_array_append(results, json_array_get(messages, i++));
        }
        append_apart(list, message, results);
        json_decref(results);
    }
    return set_messages(messages, list);
}

/* ---- turns */

/* The texts of messages [from, to) as one. */
static bool join_member(json_t *messages, size_t from, size_t to, const char *name)
{
    mq_buf text = {0};
    for (size_t i = from; i < to; i++) {
        const json_t *more = json_object_get(json_array_get(messages, i), name);
        if (json_string_length(more)) mq__join_text(&text, BETWEEN, more);
    }
    if (text.len || text.failed) return set_text(json_array_get(messages, from), name, &text);
    mq__buf_free(&text);
    return true;
}

/* Messages that follow one they join become part of it. */
static bool join_messages(json_t *messages, bool (*joins)(const json_t *first, const json_t *next))
{
    json_t *list = json_array();
    bool joined = true;
    for (size_t from = 0, to; joined && from < json_array_size(messages); from = to) {
        json_t *first = json_array_get(messages, from);
        for (to = from + 1; to < json_array_size(messages) && joins(first, json_array_get(messages, to));) {
            to++;
        }
        joined = to == from + 1 ||
                 (join_member(messages, from, to, "content") && join_member(messages, from, to, "reasoning_content"));
        (void)json_array_append(list, first);
    }
    return set_messages(messages, list) && joined;
}

static bool is_neighbour(const json_t *first, const json_t *next)
{
    const bool called = json_object_get(first, "tool_calls") || json_object_get(next, "tool_calls");
    return (is_from(first, "user") && is_from(next, "user")) ||
           (is_from(first, "assistant") && is_from(next, "assistant") && !called);
}

/* Gemma 2 and 3, Mistral: user and assistant take turns. */
static bool join_neighbours(json_t *messages)
{
    return join_messages(messages, is_neighbour);
}

static bool is_remark(const json_t *first, const json_t *next)
{
    return is_from(first, "tool") && is_from(next, "user");
}

/* Mistral: no user between a result and the answer. */
static bool join_remarks(json_t *messages)
{
    return join_messages(messages, is_remark);
}

/* ---- system texts */

/* The system's text goes before that of the user's message at `to`, or becomes one. */
static bool fold_into(json_t *messages, size_t to)
{
    json_t *system = json_array_get(messages, 0), *user = json_array_get(messages, to);
    if (!is_from(system, "system")) return true;
    if (!is_from(user, "user")) return json_object_set_new(system, "role", json_string("user")) == 0;
    mq_buf text = {0};
    mq__join_text(&text, "", json_object_get(system, "content"));
    mq__join_text(&text, BETWEEN, json_object_get(user, "content"));
    return set_text(user, "content", &text) && json_array_remove(messages, 0) == 0;
}

/* Gemma 2: no system role. */
static bool fold_system(json_t *messages)
{
    return fold_into(messages, 1);
}

/* Gemma 3, Mistral Nemo, Llama 3 with tools, Qwen3.5: not without a user. */
static bool fold_lone_system(json_t *messages)
{
    return json_array_size(messages) > 1 || fold_into(messages, 0);
}

/* Mistral Nemo shows it with the user's last message, and only where that is the last of all. There it stays. */
static bool fold_late_system(json_t *messages)
{
    size_t at = json_array_size(messages);
    if (is_from(json_array_get(messages, at - 1), "user")) return true;
    while (at && !is_from(json_array_get(messages, at - 1), "user")) {
        at--;
    }
    return at == 0 || fold_into(messages, at - 1);
}

/* ---- what a template needs */

#define MARK         "mqmark"
#define SAY(who, it) "{\"role\":\"" who "\",\"content\":\"" it "\"}"
#define CALL(id, arguments)                                                                                            \
    "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"" arguments "\"}}"
#define CALLS(calls)   "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" calls "]}"
#define RESULT(id, it) "{\"role\":\"tool\",\"name\":\"f\",\"tool_call_id\":\"" id "\",\"content\":\"" it "\"}"
#define SHOWN          "{\\\"a\\\":\\\"" MARK "\\\"}"
#define TOOL(name)                                                                                                     \
    "[{\"type\":\"function\",\"function\":{\"name\":\"" name                                                           \
    "\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}]"
#define ID      "call00001"
#define LONG_ID "call_0123456789abcdefghijkl"

/* Each with a conversation that needs it, whose marks must all be in the prompt. They are tried, and work, one after the other: calls and
 * results that become texts need nothing more; a result that has taken a remark is the last message, which the folding looks at. */
static const struct {
    rescue *apply;
    const char *needed_for;
} rescues[] = {
    {say_results, SAY("user", "x") "," CALLS(CALL(ID, "{}")) "," RESULT(ID, MARK)},
    {say_calls, SAY("user", "x") "," CALLS(CALL(ID, SHOWN)) "," RESULT(ID, "x")},
    {wrap_arguments, SAY("user", "x") "," CALLS(CALL(ID, MARK)) "," RESULT(ID, "x")},
    {shorten_ids, SAY("user", "x") "," CALLS(CALL(LONG_ID, "{}")) "," RESULT(LONG_ID, MARK)},
    {part_calls, SAY("user", "x") "," CALLS(CALL(ID, SHOWN) "," CALL("call00002", SHOWN)) "," RESULT(
                     ID, MARK) "," RESULT("call00002", MARK)},
    {join_neighbours, SAY("user", MARK) "," SAY("user", MARK) "," SAY("assistant", MARK) "," SAY(
                          "assistant", MARK) "," SAY("user", MARK)},
    {join_remarks, SAY("user", "x") "," CALLS(CALL(ID, "{}")) "," RESULT(ID, MARK) "," SAY("user", MARK)},
    {fold_system, SAY("system", MARK) "," SAY("user", MARK)},
    {fold_lone_system, SAY("system", MARK)},
    {fold_late_system, SAY("system", MARK) "," SAY("user", MARK) "," CALLS(CALL(ID, "{}")) "," RESULT(ID, MARK)},
};

json_t *mq__rescue(json_t *messages, unsigned which)
{
    if (!which) return json_incref(messages);
    const unsigned long before = mq__json_failures();
    json_t *said = json_deep_copy(messages);
    bool made = said != NULL;
    for (size_t i = 0; made && i < sizeof rescues / sizeof rescues[0]; i++) {
        if (which >> i & 1u) made = rescues[i].apply(said);
    }
    if (made && mq__json_failures() == before) return said;
    json_decref(said);
    return NULL;
}

static size_t marks_in(const char *text)
{
    size_t marks = 0;
    for (const char *at = text; at && (at = strstr(at, MARK)); at++) {
        marks++;
    }
    return marks;
}

/* Whether the prompt has all marks of the conversation and of the tools (NULL: none). */
static bool shows(const mq_text *text, const char *conversation, const char *tools, unsigned which)
{
    mq_buf list = {0}, body = {0};
    json_t *messages = NULL;
    (void)mq__buf_printf(&list, "[%s]", conversation);
    if (!list.failed) {
        (void)mq__json_read(list.data, list.len, 0, MQ_JSON_ROUND_NUMBERS, "messages", &messages, NULL);
    }
    json_t *said = messages ? mq__rescue(messages, which) : NULL;
    (void)mq__buf_puts(&body, "{\"messages\":");
    add_value(&body, said);
    (void)mq__buf_printf(&body, ",\"tools\":%s}", tools ? tools : "null");
    json_decref(said);
    json_decref(messages);
    char *prompt = NULL;
    size_t bytes;
    const bool rendered = said && !body.failed && mq_render(text, body.data, body.len, &prompt, &bytes, NULL) == MQ_OK;
    const bool shown = rendered && marks_in(prompt) >= marks_in(conversation) + marks_in(tools);
    mq_free(prompt);
    mq__buf_free(&list);
    mq__buf_free(&body);
    return shown;
}

/* Bits of rescues. */
static unsigned needs_with(const mq_text *text, const char *tools)
{
    unsigned needs = 0;
    if (!shows(text, SAY("user", MARK), tools, 0))
        return 0; /* another request would tell, with chat_template_kwargs say */
    for (size_t i = 0; i < sizeof rescues / sizeof rescues[0]; i++) {
        const char *conversation = rescues[i].needed_for;
        const unsigned more = needs | 1u << i;
        if (!shows(text, conversation, tools, needs) && shows(text, conversation, tools, more)) needs = more;
    }
    return needs;
}

mq_template_needs mq__template_needs(const mq_text *text)
{
    mq_template_needs needs = {.rescues = {0}};
    if (!text) return needs;
    needs.rescues[0] = needs_with(text, NULL);
    needs.rescues[1] = needs_with(text, TOOL("f"));
    needs.hides_tools = shows(text, SAY("user", "x"), TOOL("x"), 0) && !shows(text, SAY("user", "x"), TOOL(MARK), 0);
    return needs;
}
