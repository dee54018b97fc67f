/* The style of answers, from the marks in a chat template's text. */
#include "text/answer_style.h"

#include <stdio.h>
#include <string.h>

/* A format's marks that are tokens of their own, NULL-terminated. */
static const struct {
    const char *name, *marks[4];
} formats[MQ_TOOL_FORMATS] = {
    [MQ_TOOLS_NONE] = {"none", {NULL}},
    [MQ_TOOLS_HERMES] = {"hermes", {"<tool_call>", "</tool_call>"}},
    [MQ_TOOLS_QWEN3_CODER] = {"qwen3-coder", {"<tool_call>", "</tool_call>"}},
    [MQ_TOOLS_LLAMA3] = {"llama3", {"<|python_tag|>"}},
    [MQ_TOOLS_MISTRAL] = {"mistral", {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}},
    [MQ_TOOLS_GEMMA4] = {"gemma4", {"<|tool_call>", "<tool_call|>", "<|\"|>"}},
};

static const struct {
    const char *think, *unthink; /* as an answer has them */
    const char *marks[2];        /* their tokens */
} thoughts[] = {
    {"<think>", "</think>", {"<think>", "</think>"}},
    {"<|channel>thought", "<channel|>", {"<|channel>", "<channel|>"}},
    {"[THINK]", "[/THINK]", {"[THINK]", "[/THINK]"}},
};

const char *mq_tool_format_name(mq_tool_format format)
{
    return (unsigned)format < MQ_TOOL_FORMATS ? formats[format].name : "none";
}

static bool has(const char *source, const char *text)
{
    return strstr(source, text) != NULL;
}

/* A quoted name, as templates write it: in a string of Jinja the quotes may be escaped. */
static bool has_quoted(const char *source, const char *name)
{
    char plain[32], escaped[32];
    snprintf(plain, sizeof plain, "\"%s\"", name);
    snprintf(escaped, sizeof escaped, "\\\"%s\\\"", name);
    return has(source, plain) || has(source, escaped);
}

static mq_tool_format find_format(const char *source)
{
    if (has(source, "<|tool_call>")) return MQ_TOOLS_GEMMA4;
    if (has(source, "[TOOL_CALLS]")) return MQ_TOOLS_MISTRAL;
    if (has(source, "<tool_call>")) {
        if (has(source, "<function=") && has(source, "<parameter=")) return MQ_TOOLS_QWEN3_CODER;
        /* Others write another syntax between the same marks (GLM: <arg_key>). */
        const bool json = has_quoted(source, "name") && has_quoted(source, "arguments");
        return json && !has(source, "<arg_key>") ? MQ_TOOLS_HERMES : MQ_TOOLS_NONE;
    }
    const bool ipython = has(source, "<|python_tag|>") || has(source, "Environment: ipython");
    return ipython && has_quoted(source, "parameters") ? MQ_TOOLS_LLAMA3 : MQ_TOOLS_NONE;
}

static void add_marker(const mq_tokenizer *tokenizer, const char *mark, mq_marker_tokens *tokens)
{
    const int32_t id = tokenizer && mark ? mq__tokenizer_id(tokenizer, mark, strlen(mark)) : -1;
    if (id < 0 || !mq__tokenizer_is_special(tokenizer, id) || tokens->count == MQ_MARKER_TOKENS) return;
    tokens->ids[tokens->count++] = id;
}

void mq__answer_style(const char *source, const mq_tokenizer *tokenizer, mq_answer_style *style,
                      mq_marker_tokens *tokens)
{
    *style = (mq_answer_style){.tools = MQ_TOOLS_NONE};
    *tokens = (mq_marker_tokens){.count = 0};
    if (!source) return;
    style->tools = find_format(source);
    for (size_t i = 0; i < 4; i++) {
        add_marker(tokenizer, formats[style->tools].marks[i], tokens);
    }
    for (size_t i = 0; i < sizeof thoughts / sizeof thoughts[0]; i++) {
        if (!has(source, thoughts[i].think) || !has(source, thoughts[i].unthink)) continue;
        snprintf(style->think, sizeof style->think, "%s", thoughts[i].think);
        snprintf(style->unthink, sizeof style->unthink, "%s", thoughts[i].unthink);
        add_marker(tokenizer, thoughts[i].marks[0], tokens);
        add_marker(tokenizer, thoughts[i].marks[1], tokens);
        break;
    }
    style->keep_special = tokens->count > 0;
}
