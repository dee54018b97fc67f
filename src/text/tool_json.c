/* Calls as JSON objects: {"name": ..., "arguments": {...}}. The members may come in any order, "parameters" may stand for
 * "arguments", which may be a string with the object's text, and other members are skipped. The bytes of the arguments are handed
 * out as they are. The call ends with its arguments: what spoils the rest of the outer object does not undo it. */
#include "text/answer.h"

#include <string.h>

enum {
    OBJECT_START,
    OBJECT_FIRST_MEMBER, /* or '}' */
    OBJECT_MEMBER,
    OBJECT_MEMBER_NAME,
    OBJECT_COLON,
    OBJECT_VALUE,
    OBJECT_NAME,      /* the string of "name" */
    OBJECT_ARGUMENTS, /* an object */
    OBJECT_TEXT,      /* a string with an object's text */
    OBJECT_NULL,      /* no arguments */
    OBJECT_SKIP,      /* another member's value */
    OBJECT_NEXT       /* ',' or '}' */
};

enum { MEMBER_OTHER, MEMBER_NAME, MEMBER_ARGUMENTS };

enum { TEXT_BEFORE, TEXT_INSIDE, TEXT_BEHIND }; /* in OBJECT_TEXT: the object */

/* Arguments wait for the name. */
static void give_arguments(mq_answer *a, const char *bytes, size_t count)
{
    if (a->reader.announced)
        mq__answer_arguments(a, bytes, count);
    else if (!mq__buf_append(&a->value, bytes, count))
        a->failed = true;
}

static void arguments_complete(mq_answer *a)
{
    a->reader.complete = true;
    if (a->reader.announced) mq__answer_call_end(a);
}

static mq_answer_step name_complete(mq_answer *a)
{
    if (!mq__answer_call(a)) return MQ_STEP_BROKEN;
    if (a->value.len) mq__answer_arguments(a, a->value.data, a->value.len);
    mq__buf_clear(&a->value);
    if (a->reader.complete) mq__answer_call_end(a);
    a->reader.state = OBJECT_NEXT;
    return MQ_STEP_TAKEN;
}

static mq_answer_step object_closes(mq_answer *a)
{
    if (!a->reader.announced) return MQ_STEP_BROKEN;
    if (!a->reader.given) {
        give_arguments(a, "{}", 2);
        arguments_complete(a);
    }
    return MQ_STEP_DONE;
}

/* ---------------------------------------------------------------- members */

static uint8_t member_of(const mq_answer *a)
{
    static const struct {
        const char *name;
        uint8_t member;
    } known[] = {{"name", MEMBER_NAME}, {"arguments", MEMBER_ARGUMENTS}, {"parameters", MEMBER_ARGUMENTS}};
    const mq_tool_reader *const r = &a->reader;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i].name) != r->spelled_bytes) continue;
        if (memcmp(known[i].name, r->spelled, r->spelled_bytes) != 0) continue;
        const bool again = known[i].member == MEMBER_NAME ? r->announced : r->given;
        return again ? MEMBER_OTHER : known[i].member; /* of several the first counts */
    }
    return MEMBER_OTHER;
}

static mq_answer_step begin_member(mq_tool_reader *r)
{
    r->state = OBJECT_MEMBER_NAME;
    r->string = (mq_json_string){0};
    r->spelled_bytes = 0;
    return MQ_STEP_TAKEN;
}

static mq_answer_step member_name_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    char out[4];
    size_t count;
    const mq_scan got = mq__json_string_byte(&r->string, byte, out, &count);
    for (size_t i = 0; i < count && r->spelled_bytes < sizeof r->spelled; i++) {
        r->spelled[r->spelled_bytes++] = out[i];
    }
    if (got != MQ_SCAN_END) return got == MQ_SCAN_MORE ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    r->member = member_of(a);
    r->state = OBJECT_COLON;
    return MQ_STEP_TAKEN;
}

static mq_answer_step skipped_byte(mq_answer *a, uint8_t byte)
{
    const mq_scan got = mq__json_scan_byte(&a->reader.scan, byte);
    if (got == MQ_SCAN_BAD) return MQ_STEP_BROKEN;
    if (got != MQ_SCAN_MORE) a->reader.state = OBJECT_NEXT;
    return got == MQ_SCAN_AFTER ? mq__call_object_byte(a, byte) : MQ_STEP_TAKEN;
}

/* ---------------------------------------------------------------- the values that count */

static mq_answer_step arguments_byte(mq_answer *a, uint8_t byte)
{
    const mq_scan got = mq__json_scan_byte(&a->reader.scan, byte);
    if (got == MQ_SCAN_BAD) return MQ_STEP_BROKEN;
    give_arguments(a, (const char *)&byte, 1);
    if (got == MQ_SCAN_MORE) return MQ_STEP_TAKEN;
    a->reader.state = OBJECT_NEXT;
    arguments_complete(a);
    return MQ_STEP_TAKEN;
}

/* A byte of the text that a string holds. */
static bool unwrapped_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (r->string_state != TEXT_INSIDE && mq__json_blank(byte)) return true;
    if (r->string_state == TEXT_BEHIND || (r->string_state == TEXT_BEFORE && byte != '{')) return false;
    const mq_scan got = mq__json_scan_byte(&r->scan, byte);
    r->string_state = got == MQ_SCAN_END ? TEXT_BEHIND : TEXT_INSIDE;
    if (got != MQ_SCAN_BAD) give_arguments(a, (const char *)&byte, 1);
    return got != MQ_SCAN_BAD;
}

static mq_answer_step wrapped_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    char out[4];
    size_t count;
    const mq_scan got = mq__json_string_byte(&r->string, byte, out, &count);
    for (size_t i = 0; i < count; i++) {
        if (!unwrapped_byte(a, (uint8_t)out[i])) return MQ_STEP_BROKEN;
    }
    if (got == MQ_SCAN_BAD || (got == MQ_SCAN_END && r->string_state == TEXT_INSIDE)) return MQ_STEP_BROKEN;
    if (got == MQ_SCAN_MORE) return MQ_STEP_TAKEN;
    if (r->string_state == TEXT_BEFORE) give_arguments(a, "{}", 2);
    r->state = OBJECT_NEXT;
    arguments_complete(a);
    return MQ_STEP_TAKEN;
}

static mq_answer_step null_byte(mq_answer *a, uint8_t byte)
{
    const mq_scan got = mq__json_scan_byte(&a->reader.scan, byte);
    if (got != MQ_SCAN_END) return got == MQ_SCAN_MORE ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    give_arguments(a, "{}", 2);
    a->reader.state = OBJECT_NEXT;
    arguments_complete(a);
    return MQ_STEP_TAKEN;
}

static mq_answer_step name_byte(mq_answer *a, uint8_t byte)
{
    char out[4];
    size_t count;
    const mq_scan got = mq__json_string_byte(&a->reader.string, byte, out, &count);
    if (got == MQ_SCAN_END) return name_complete(a);
    if (got == MQ_SCAN_BAD || a->name.len + count > MQ_NAME_BYTES) return MQ_STEP_BROKEN;
    if (!mq__buf_append(&a->name, out, count)) a->failed = true;
    return MQ_STEP_TAKEN;
}

/* The first byte of a member's value. */
static mq_answer_step begin_member_value(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    r->scan = (mq_json_scan){0};
    r->string = (mq_json_string){0};
    if (r->member == MEMBER_NAME) {
        r->state = OBJECT_NAME;
        return byte == '"' ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    }
    if (r->member == MEMBER_OTHER) {
        r->state = OBJECT_SKIP;
        return skipped_byte(a, byte);
    }
    r->given = true;
    r->string_state = TEXT_BEFORE;
    switch (byte) {
    case '"':
        r->state = OBJECT_TEXT;
        return MQ_STEP_TAKEN;
    case '{':
        r->state = OBJECT_ARGUMENTS;
        return arguments_byte(a, byte);
    case 'n':
        r->state = OBJECT_NULL;
        return null_byte(a, byte);
    default:
        return MQ_STEP_BROKEN;
    }
}

/* ---------------------------------------------------------------- the object */

/* A byte between tokens that is not white space. */
static mq_answer_step object_structure_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    const uint8_t state = r->state;
    switch (state) {
    case OBJECT_START:
        r->state = OBJECT_FIRST_MEMBER;
        return byte == '{' ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    case OBJECT_FIRST_MEMBER:
    case OBJECT_MEMBER:
        if (byte == '"') return begin_member(r);
        return byte == '}' && state == OBJECT_FIRST_MEMBER ? object_closes(a) : MQ_STEP_BROKEN;
    case OBJECT_COLON:
        r->state = OBJECT_VALUE;
        return byte == ':' ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    case OBJECT_VALUE:
        return begin_member_value(a, byte);
    default:
        if (byte == '}') return object_closes(a);
        r->state = OBJECT_MEMBER;
        return byte == ',' ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
    }
}

mq_answer_step mq__call_object_byte(mq_answer *a, uint8_t byte)
{
    switch (a->reader.state) {
    case OBJECT_MEMBER_NAME:
        return member_name_byte(a, byte);
    case OBJECT_NAME:
        return name_byte(a, byte);
    case OBJECT_ARGUMENTS:
        return arguments_byte(a, byte);
    case OBJECT_TEXT:
        return wrapped_byte(a, byte);
    case OBJECT_NULL:
        return null_byte(a, byte);
    case OBJECT_SKIP:
        return skipped_byte(a, byte);
    default:
        return mq__json_blank(byte) ? MQ_STEP_TAKEN : object_structure_byte(a, byte);
    }
}

/* ---------------------------------------------------------------- formats that are nothing else */

const mq_tool_syntax *mq__tool_hermes(void)
{
    static const mq_tool_syntax syntax = {
        .open = {"<tool_call>"}, .close = "</tool_call>", .byte = mq__call_object_byte};
    return &syntax;
}

const mq_tool_syntax *mq__tool_llama3(void)
{
    static const mq_tool_syntax syntax = {
        .open = {"<|python_tag|>"}, .close = ";", .bare = true, .byte = mq__call_object_byte};
    return &syntax;
}
