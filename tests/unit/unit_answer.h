/* An answer taken apart, written down as one text: R(reasoning) T(text) C0(name) A(arguments) E. */
#ifndef MQ_UNIT_ANSWER_H
#define MQ_UNIT_ANSWER_H

#include "base/buf.h"
#include "mixquant_serve.h"
#include "unit_files.h"

#define UNIT_TOOLS                                                                                                     \
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{"        \
    "\"s\":{\"type\":\"string\"},\"i\":{\"type\":\"integer\"},\"n\":{\"type\":\"number\"},"                            \
    "\"b\":{\"type\":\"boolean\"},\"o\":{\"type\":\"object\"},\"l\":{\"type\":\"array\"},"                             \
    "\"z\":{\"type\":\"null\"},\"sn\":{\"type\":[\"string\",\"null\"]},"                                               \
    "\"any\":{\"anyOf\":[{\"type\":\"integer\"},{\"$ref\":\"#/$defs/text\"}]},\"untyped\":{}},"                        \
    "\"$defs\":{\"text\":{\"type\":\"string\"}}}}},"                                                                   \
    "{\"type\":\"function\",\"function\":{\"name\":\"g-2.x\",\"parameters\":{}}}]"

typedef struct unit_parts {
    mq_buf text;
    int last; /* kind; -1: none */
    uint32_t calls;
} unit_parts;

static inline void unit_take_part(void *context, const mq_part *part)
{
    unit_parts *const parts = context;
    const int kind = (int)part->kind;
    const bool goes_on = kind == parts->last && kind != MQ_PART_CALL;
    if (kind == MQ_PART_CALL) assert_int_equal(part->call, parts->calls++);
    if (kind == MQ_PART_ARGUMENTS || kind == MQ_PART_CALL_END) assert_int_equal(part->call, parts->calls - 1);
    if (kind != MQ_PART_CALL_END) assert_true(part->count > 0);
    if (goes_on) parts->text.len--; /* the parenthesis */
    if (!goes_on) mq__buf_printf(&parts->text, "%c", "RTCAE"[kind]);
    if (kind == MQ_PART_CALL) mq__buf_printf(&parts->text, "%u", part->call);
    if (!goes_on && kind != MQ_PART_CALL_END) mq__buf_putc(&parts->text, '(');
    mq__buf_append(&parts->text, part->bytes, part->count);
    if (kind != MQ_PART_CALL_END) mq__buf_putc(&parts->text, ')');
    parts->last = kind;
}

/* In pushes of `first` bytes, then of `step` bytes. *parts is to be freed. */
static inline mq_status unit_take_apart(const mq_answer_options *given, const char *text, size_t bytes, size_t first,
                                        size_t step, unit_parts *parts, uint32_t *complete, mq_error *error)
{
    mq_answer_options options = *given;
    mq_answer *answer = NULL;
    *parts = (unit_parts){.last = -1};
    options.part = unit_take_part;
    options.context = parts;
    mq_status status = mq_answer_new(&options, &answer, error);
    for (size_t at = 0; status == MQ_OK && at < bytes;) {
        size_t count = at == 0 && first ? first : step;
        if (count > bytes - at) count = bytes - at;
        status = mq_answer_push(answer, text + at, count, error);
        at += count;
    }
    if (status == MQ_OK) status = mq_answer_end(answer, error);
    if (complete) *complete = status == MQ_OK ? mq_answer_calls(answer) : 0;
    mq_answer_free(answer);
    return status;
}

static inline void unit_expect_cut(const mq_answer_options *options, const char *text, size_t first, size_t step,
                                   const char *expected)
{
    unit_parts parts;
    mq_error error = {0};
    uint32_t complete;
    if (unit_take_apart(options, text, strlen(text), first, step, &parts, &complete, &error) != MQ_OK) {
        fail_msg("%s", error.text);
    }
    const char *const got = parts.text.data ? parts.text.data : "";
    if (strcmp(got, expected) != 0) {
        fail_msg("pushes of %zu, then %zu bytes of:\n%s\nexpected %s\ngot      %s", first, step, text, expected, got);
    }
    mq__buf_free(&parts.text);
}

/* The parts of the text, however it is cut. */
static inline void unit_expect_parts(const mq_answer_options *options, const char *text, const char *expected)
{
    const size_t bytes = strlen(text);
    unit_expect_cut(options, text, bytes + 1, 1, expected);
    for (size_t step = 1; step < 8; step++) {
        unit_expect_cut(options, text, 0, step, expected);
    }
    for (size_t first = 1; first < bytes; first++) {
        unit_expect_cut(options, text, first, bytes, expected);
    }
}

static inline mq_answer_options unit_answer_options(mq_tool_format format)
{
    mq_answer_options options = {.style = {.tools = format}, .tools = UNIT_TOOLS, .tools_bytes = strlen(UNIT_TOOLS)};
    options.split_reasoning = true;
    strcpy(options.style.think, format == MQ_TOOLS_GEMMA4 ? "<|channel>thought" : "<think>");
    strcpy(options.style.unthink, format == MQ_TOOLS_GEMMA4 ? "<channel|>" : "</think>");
    return options;
}

#endif
