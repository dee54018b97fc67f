/* An answer: a line "FORMAT [open] [keep] [inside] [plain]" (open: any name is a tool's; keep: reasoning stays; inside: it begins in
 * reasoning; plain: the model does not reason), and the answer's bytes. The parts are the same however it is cut; complete calls have
 * an object as arguments; without calls and reasoning nothing is lost. */
#include "base/buf.h"
#include "fuzz.h"
#include "mixquant_serve.h"

#include <jansson.h>
#include <string.h>

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":{\"type\":\"string\"},"
    "\"i\":{\"type\":\"integer\"},\"o\":{\"type\":\"object\"},\"u\":{\"type\":[\"string\",\"null\"]}}}}},{\"name\":"
    "\"g\"}]";

typedef struct taken {
    mq_buf parts; /* kind, bytes, 0xFF; pieces of one part joined */
    mq_buf text, arguments;
    int last;
    uint32_t calls, complete;
    bool open, reasoned;
} taken;

/* jansson refuses some numbers and keys that are well-formed. */
static void check_object(const mq_buf *text)
{
    json_error_t at;
    json_t *const value = json_loadb(text->data, text->len, JSON_ALLOW_NUL, &at);
    if (!value) {
        FUZZ_CHECK(json_error_code(&at) == json_error_numeric_overflow ||
                   json_error_code(&at) == json_error_null_byte_in_key);
    } else {
        FUZZ_CHECK(json_is_object(value));
    }
    json_decref(value);
}

static void take(void *context, const mq_part *part)
{
    taken *const t = context;
    const bool of_call = part->kind == MQ_PART_ARGUMENTS || part->kind == MQ_PART_CALL_END;
    FUZZ_CHECK(of_call || part->count > 0);
    if (of_call) FUZZ_CHECK(t->open && part->call == t->calls - 1);
    if (part->kind == MQ_PART_CALL) {
        FUZZ_CHECK(part->call == t->calls++);
        FUZZ_CHECK(!memchr(part->bytes, '\n', part->count));
        mq__buf_clear(&t->arguments);
    }
    if (part->kind == MQ_PART_ARGUMENTS) mq__buf_append(&t->arguments, part->bytes, part->count);
    if (part->kind == MQ_PART_CALL_END) check_object(&t->arguments);
    if (part->kind == MQ_PART_TEXT) mq__buf_append(&t->text, part->bytes, part->count);
    t->complete += part->kind == MQ_PART_CALL_END;
    t->reasoned = t->reasoned || part->kind == MQ_PART_REASONING;
    t->open = part->kind == MQ_PART_CALL || part->kind == MQ_PART_ARGUMENTS;
    if (t->last != (int)part->kind || part->kind == MQ_PART_CALL) {
        mq__buf_putc(&t->parts, (char)0xFF);
        mq__buf_putc(&t->parts, (char)part->kind);
    }
    mq__buf_append(&t->parts, part->bytes, part->count);
    t->last = (int)part->kind;
}

static void take_apart(const mq_answer_options *given, const fuzz_part *bytes, size_t step, taken *t)
{
    mq_answer_options options = *given;
    mq_answer *answer;
    mq_error error = {0};
    *t = (taken){.last = -1};
    options.part = take;
    options.context = t;
    FUZZ_CHECK(fuzz_passed(mq_answer_new(&options, &answer, &error), &error));
    for (size_t at = 0; at < bytes->bytes; at += step) {
        const size_t left = bytes->bytes - at;
        FUZZ_CHECK(fuzz_passed(mq_answer_push(answer, bytes->data + at, left < step ? left : step, &error), &error));
    }
    FUZZ_CHECK(fuzz_passed(mq_answer_end(answer, &error), &error));
    FUZZ_CHECK(mq_answer_calls(answer) == t->complete);
    mq_answer_free(answer);
}

static void clear(taken *t)
{
    mq__buf_free(&t->parts);
    mq__buf_free(&t->text);
    mq__buf_free(&t->arguments);
}

static bool same(const mq_buf *a, const char *bytes, size_t count)
{
    return a->len == count && (count == 0 || memcmp(a->data, bytes, count) == 0);
}

static void check(const mq_answer_options *options, const fuzz_part *bytes)
{
    taken whole, cut;
    take_apart(options, bytes, bytes->bytes + 1, &whole);
    for (size_t step = 1; step <= 16; step = 2 * step + 1) {
        take_apart(options, bytes, step, &cut);
        FUZZ_CHECK(same(&cut.parts, whole.parts.data, whole.parts.len));
        clear(&cut);
    }
    const bool all_text = whole.calls == 0 && !whole.reasoned;
    const bool reasons = options->split_reasoning && options->style.unthink[0];
    if (all_text && !reasons) FUZZ_CHECK(same(&whole.text, bytes->data, bytes->bytes));
    fuzz_accepted = whole.complete > 0;
    clear(&whole);
}

static mq_answer_options read_options(const char *line)
{
    mq_answer_options options = {.style = {.think = "<think>", .unthink = "</think>"}, .tools = tools};
    for (int i = 0; i < MQ_TOOL_FORMATS; i++) {
        if (strstr(line, mq_tool_format_name((mq_tool_format)i))) options.style.tools = (mq_tool_format)i;
    }
    options.tools_bytes = sizeof tools - 1;
    if (strstr(line, "open")) options.tools = NULL;
    options.split_reasoning = !strstr(line, "keep");
    options.in_reasoning = strstr(line, "inside") != NULL;
    if (strstr(line, "plain")) options.style.think[0] = options.style.unthink[0] = '\0';
    return options;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[2];
    fuzz_cut(data, bytes, parts, 2);
    char *const line = strndup(parts[0].data ? parts[0].data : "", parts[0].bytes);
    FUZZ_CHECK(line);
    mq_answer_options options = read_options(line);
    fuzz_accepted = false;
    check(&options, &parts[1]);
    options.style = (mq_answer_style){.tools = MQ_TOOLS_NONE};
    const bool accepted = fuzz_accepted;
    check(&options, &parts[1]); /* as text, it comes out as it went in */
    fuzz_accepted = accepted;
    free(line);
    fuzz_free(parts, 2);
    return 0;
}
