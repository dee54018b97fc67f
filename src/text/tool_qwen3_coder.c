/* Qwen3-Coder's calls: <tool_call> <function=NAME> <parameter=KEY> value </parameter> ... </function> </tool_call>, with line breaks
 * between. The first mark may be missing. A value has no escapes and no type: one line break at each end is not part of it, it ends
 * at a </parameter> that a tag of the format follows, and the tool's schema says what it is. */
#include "text/answer.h"

#include <string.h>

enum { CODER_START, CODER_OPEN, CODER_NAME, CODER_TAG, CODER_KEY, CODER_VALUE };

/* Where the end of a value may be, as far as `held` goes: [\n]</parameter> white space, and a tag. */
enum { END_NONE, END_NEWLINE, END_CLOSING, END_SPACE, END_TAG };

#define PARAMETER "<parameter="
#define CLOSING   "</parameter>"

/* What may follow a name or a parameter. */
static const char *const tags[] = {PARAMETER, "</function>", "</tool_call>"};
enum { TAG_PARAMETER, TAGS = 3 };

/* The tag that `text` is; TAGS: it begins one; -1: neither. */
static int find_tag(const char *text, size_t bytes)
{
    for (int i = 0; i < TAGS; i++) {
        if (bytes > strlen(tags[i]) || memcmp(text, tags[i], bytes) != 0) continue;
        return tags[i][bytes] ? TAGS : i;
    }
    return -1;
}

static mq_answer_step coder_tag(mq_answer *a, int tag)
{
    mq__buf_clear(&a->held);
    mq__buf_clear(&a->name);
    if (tag == TAG_PARAMETER) {
        a->reader.state = CODER_KEY;
        return MQ_STEP_TAKEN;
    }
    mq__answer_arguments(a, "}", 1);
    mq__answer_call_end(a);
    return MQ_STEP_DONE;
}

/* ---------------------------------------------------------------- values */

static bool is_text(const mq_answer *a)
{
    return a->reader.types == MQ_TYPE_STRING;
}

/* A string is handed out as it comes, anything else when it is complete. */
static bool value_byte(mq_answer *a, uint8_t byte)
{
    const bool first = a->reader.fresh;
    a->reader.fresh = false;
    if (first && byte == '\n') return true;
    if (is_text(a)) return mq__answer_quote(a, byte);
    if (!mq__buf_putc(&a->value, (char)byte)) a->failed = true;
    return true;
}

static bool end_value(mq_answer *a)
{
    if (!is_text(a)) return mq__answer_value(a, a->value.data, a->value.len, a->reader.types);
    if (a->reader.utf8.left) return false;
    mq__answer_arguments(a, "\"", 1);
    return true;
}

/* Takes held.data[at] into the end that may be there; false: there is none. *tag: it is complete, and this follows it. */
static bool end_byte(mq_answer *a, size_t at, int *tag)
{
    mq_tool_reader *const r = &a->reader;
    const char byte = a->held.data[at];
    if (r->end == END_NONE || r->end == END_NEWLINE) {
        if (byte != '<' && (byte != '\n' || r->end == END_NEWLINE)) return false;
        r->end = byte == '<' ? END_CLOSING : END_NEWLINE;
        r->matched = 1;
        return true;
    }
    if (r->end == END_CLOSING) {
        if (byte != CLOSING[r->matched]) return false;
        if (!CLOSING[++r->matched]) r->end = END_SPACE;
        return true;
    }
    if (r->end == END_SPACE) {
        if (byte != '<') return mq__json_blank((uint8_t)byte);
        r->end = END_TAG;
        r->matched = 0;
    }
    r->matched++;
    *tag = find_tag(a->held.data + at + 1 - r->matched, r->matched);
    return *tag >= 0;
}

/* `held` does not begin the end of the value: its first byte is the value's. Finds where it does begin one. False: no UTF-8. */
static bool search_end(mq_answer *a, int *tag)
{
    size_t start = 0;
    bool ends = false, text = true;
    while (start < a->held.len && !ends) {
        text = value_byte(a, (uint8_t)a->held.data[start]);
        if (!text) break;
        start++;
        a->reader.end = END_NONE;
        ends = start < a->held.len;
        for (size_t i = start; i < a->held.len && ends; i++) {
            ends = end_byte(a, i, tag);
        }
    }
    a->held.len -= start;
    memmove(a->held.data, a->held.data + start, a->held.len);
    return text;
}

static mq_answer_step coder_value_byte(mq_answer *a, uint8_t byte)
{
    int tag = TAGS;
    if (!mq__buf_putc(&a->held, (char)byte)) a->failed = true;
    if (a->failed) return MQ_STEP_TAKEN;
    bool text = end_byte(a, a->held.len - 1, &tag) || search_end(a, &tag);
    if (text && (a->reader.end != END_TAG || tag == TAGS)) return MQ_STEP_TAKEN;
    text = text && end_value(a);
    if (text) return coder_tag(a, tag);
    a->held.len--; /* the byte itself comes again, as text */
    return MQ_STEP_BROKEN;
}

/* ---------------------------------------------------------------- names and tags */

static bool name_may_have(const mq_answer *a, uint8_t byte)
{
    return byte > ' ' && byte != 0x7F && byte != '<' && a->name.len < MQ_NAME_BYTES;
}

static mq_answer_step coder_name_byte(mq_answer *a, uint8_t byte)
{
    if (byte == '>') {
        if (!mq__answer_call(a)) return MQ_STEP_BROKEN;
        mq__answer_arguments(a, "{", 1);
        a->reader.state = CODER_TAG;
        return MQ_STEP_TAKEN;
    }
    if (!name_may_have(a, byte)) return MQ_STEP_BROKEN;
    if (!mq__buf_putc(&a->name, (char)byte)) a->failed = true;
    return MQ_STEP_TAKEN;
}

static mq_answer_step coder_key_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (byte != '>') {
        if (!name_may_have(a, byte)) return MQ_STEP_BROKEN;
        if (!mq__buf_putc(&a->name, (char)byte)) a->failed = true;
        return MQ_STEP_TAKEN;
    }
    if (r->several) mq__answer_arguments(a, ",", 1);
    if (a->name.len == 0 || !mq__answer_string(a, a->name.data, a->name.len)) return MQ_STEP_BROKEN;
    mq__answer_arguments(a, ":", 1);
    r->types = mq__answer_types(a, a->name.data, a->name.len);
    if (is_text(a)) mq__answer_arguments(a, "\"", 1);
    mq__buf_clear(&a->value);
    r->several = r->fresh = true;
    r->end = END_NONE;
    r->state = CODER_VALUE;
    return MQ_STEP_TAKEN;
}

/* Before the first parameter. */
static mq_answer_step coder_tag_byte(mq_answer *a, uint8_t byte)
{
    if (a->held.len == 0 && mq__json_blank(byte)) return MQ_STEP_TAKEN;
    if (!mq__buf_putc(&a->held, (char)byte)) a->failed = true;
    if (a->failed) return MQ_STEP_TAKEN;
    const int tag = find_tag(a->held.data, a->held.len);
    if (tag == TAGS) return MQ_STEP_TAKEN;
    if (tag >= 0) return coder_tag(a, tag);
    a->held.len--;
    return MQ_STEP_BROKEN;
}

/* Behind <tool_call>. */
static mq_answer_step coder_open_byte(mq_answer *a, uint8_t byte)
{
    static const char function[] = "<function=";
    mq_tool_reader *const r = &a->reader;
    if (r->matched == 0 && mq__json_blank(byte)) return MQ_STEP_TAKEN;
    if (byte != (uint8_t)function[r->matched]) return MQ_STEP_BROKEN;
    if (!function[++r->matched]) r->state = CODER_NAME;
    return MQ_STEP_TAKEN;
}

static mq_answer_step coder_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (r->state == CODER_START) r->state = r->opened ? CODER_NAME : CODER_OPEN;
    switch (r->state) {
    case CODER_OPEN:
        return coder_open_byte(a, byte);
    case CODER_NAME:
        return coder_name_byte(a, byte);
    case CODER_TAG:
        return coder_tag_byte(a, byte);
    case CODER_KEY:
        return coder_key_byte(a, byte);
    default:
        return coder_value_byte(a, byte);
    }
}

const mq_tool_syntax *mq__tool_qwen3_coder(void)
{
    static const mq_tool_syntax syntax = {
        .open = {"<tool_call>", "<function="}, .close = "</tool_call>", .byte = coder_byte};
    return &syntax;
}
