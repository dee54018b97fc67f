/* Mistral's calls, behind [TOOL_CALLS]: a list of objects, one object, or name[ARGS]{...}, which newer models write, with [CALL_ID]id
 * before [ARGS] or without [ARGS] at all. */
#include "text/answer.h"

#include <string.h>

enum {
    MISTRAL_START,
    MISTRAL_LIST, /* before an object of the list */
    MISTRAL_ITEM,
    MISTRAL_NEXT,  /* ',' or ']' */
    MISTRAL_ALONE, /* in an object without a list */
    MISTRAL_NAME,
    MISTRAL_NAMED, /* white space behind the name */
    MISTRAL_MARK,  /* [ARGS] or [CALL_ID] */
    MISTRAL_ID,
    MISTRAL_BEFORE_ARGUMENTS,
    MISTRAL_ARGUMENTS
};

#define ID_BYTES 64

/* An object begins: its reader's state is its own, ours is `outer`. */
static mq_answer_step begin_item(mq_answer *a, uint8_t outer)
{
    a->reader = (mq_tool_reader){.outer = outer};
    mq__buf_clear(&a->name);
    mq__buf_clear(&a->value);
    return mq__call_object_byte(a, '{');
}

static mq_answer_step item_byte(mq_answer *a, uint8_t byte)
{
    const mq_answer_step step = mq__call_object_byte(a, byte);
    if (step != MQ_STEP_DONE || a->reader.outer == MISTRAL_ALONE) return step;
    a->reader = (mq_tool_reader){.outer = MISTRAL_NEXT};
    return MQ_STEP_TAKEN;
}

static mq_answer_step begin_arguments(mq_answer *a)
{
    a->reader.outer = MISTRAL_ARGUMENTS;
    (void)mq__json_scan_byte(&a->reader.scan, '{');
    mq__answer_arguments(a, "{", 1);
    return MQ_STEP_TAKEN;
}

static mq_answer_step mistral_arguments_byte(mq_answer *a, uint8_t byte)
{
    const mq_scan got = mq__json_scan_byte(&a->reader.scan, byte);
    if (got == MQ_SCAN_BAD) return MQ_STEP_BROKEN;
    mq__answer_arguments(a, (const char *)&byte, 1);
    if (got == MQ_SCAN_MORE) return MQ_STEP_TAKEN;
    mq__answer_call_end(a);
    return MQ_STEP_DONE;
}

/* ---------------------------------------------------------------- name[CALL_ID]id[ARGS] */

static mq_answer_step begin_mark(mq_tool_reader *r)
{
    r->outer = MISTRAL_MARK;
    r->spelled_bytes = 0;
    r->spelled[r->spelled_bytes++] = '[';
    return MQ_STEP_TAKEN;
}

static mq_answer_step mark_byte(mq_answer *a, uint8_t byte)
{
    static const char *const marks[] = {"[ARGS]", "[CALL_ID]"};
    mq_tool_reader *const r = &a->reader;
    r->spelled[r->spelled_bytes++] = (char)byte;
    for (size_t i = 0; i < 2; i++) {
        if (strncmp(marks[i], r->spelled, r->spelled_bytes) != 0) continue;
        if (marks[i][r->spelled_bytes]) return MQ_STEP_TAKEN;
        if (!r->announced && !mq__answer_call(a)) return MQ_STEP_BROKEN;
        r->outer = i == 0 ? MISTRAL_BEFORE_ARGUMENTS : MISTRAL_ID;
        r->matched = 0;
        return MQ_STEP_TAKEN;
    }
    return MQ_STEP_BROKEN;
}

static mq_answer_step id_byte(mq_tool_reader *r, uint8_t byte)
{
    if (byte == '[') return begin_mark(r);
    return byte > ' ' && byte < 0x7F && r->matched++ < ID_BYTES ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
}

static mq_answer_step mistral_name_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (byte == '[') return begin_mark(r);
    if (byte == '{') return mq__answer_call(a) ? begin_arguments(a) : MQ_STEP_BROKEN;
    if (mq__json_blank(byte)) r->outer = MISTRAL_NAMED;
    if (mq__json_blank(byte)) return MQ_STEP_TAKEN;
    if (r->outer == MISTRAL_NAMED || a->name.len >= MQ_NAME_BYTES) return MQ_STEP_BROKEN;
    if (!mq__buf_putc(&a->name, (char)byte)) a->failed = true;
    return MQ_STEP_TAKEN;
}

/* ---------------------------------------------------------------- between */

static mq_answer_step mistral_structure_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (mq__json_blank(byte)) return MQ_STEP_TAKEN;
    switch (r->outer) {
    case MISTRAL_LIST:
        return byte == '{' ? begin_item(a, MISTRAL_ITEM) : MQ_STEP_BROKEN;
    case MISTRAL_NEXT:
        if (byte == ']') return MQ_STEP_DONE;
        r->outer = MISTRAL_LIST;
        return byte == ',' ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    case MISTRAL_BEFORE_ARGUMENTS:
        return byte == '{' ? begin_arguments(a) : MQ_STEP_BROKEN;
    default:
        break;
    }
    if (byte == '{') return begin_item(a, MISTRAL_ALONE);
    r->outer = byte == '[' ? MISTRAL_LIST : MISTRAL_NAME;
    return byte == '[' ? MQ_STEP_TAKEN : mistral_name_byte(a, byte);
}

static mq_answer_step mistral_byte(mq_answer *a, uint8_t byte)
{
    switch (a->reader.outer) {
    case MISTRAL_ITEM:
    case MISTRAL_ALONE:
        return item_byte(a, byte);
    case MISTRAL_NAME:
    case MISTRAL_NAMED:
        return mistral_name_byte(a, byte);
    case MISTRAL_MARK:
        return mark_byte(a, byte);
    case MISTRAL_ID:
        return id_byte(&a->reader, byte);
    case MISTRAL_ARGUMENTS:
        return mistral_arguments_byte(a, byte);
    default:
        return mistral_structure_byte(a, byte);
    }
}

const mq_tool_syntax *mq__tool_mistral(void)
{
    static const mq_tool_syntax syntax = {.open = {"[TOOL_CALLS]"}, .byte = mistral_byte};
    return &syntax;
}
