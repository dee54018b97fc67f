/* Text, reasoning and calls of an answer, byte by byte. What may be a mark ("</think>", "<tool_call>") waits in `held`, white space
 * that may go waits in `space`; all else is handed out at the end of each push. */
#include "text/answer.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <string.h>

#define PART_BYTES ((size_t)64 << 10) /* a longer part is handed out in pieces, of whole characters */

enum { PLACE_TEXT, PLACE_REASONING, PLACE_CALL };

/* ---------------------------------------------------------------- handing out */

static void hand_part(mq_answer *a, mq_part_kind kind, const char *bytes, size_t count)
{
    const mq_part part = {.kind = kind, .call = a->begun ? a->begun - 1 : 0, .bytes = bytes, .count = count};
    if (a->options.part) a->options.part(a->options.context, &part);
}

static void hand_out_collected(mq_answer *a)
{
    if (a->out.failed) a->failed = true;
    if (a->out.len && !a->failed) hand_part(a, a->out_kind, a->out.data, a->out.len);
    mq__buf_clear(&a->out);
}

static void put_part(mq_answer *a, mq_part_kind kind, const char *bytes, size_t count)
{
    const bool long_enough = a->out.len >= PART_BYTES && count && ((uint8_t)bytes[0] & 0xC0) != 0x80;
    if (a->out_kind != kind || long_enough) hand_out_collected(a);
    a->out_kind = kind;
    if (!mq__buf_append(&a->out, bytes, count)) a->failed = true;
}

static void keep(mq_answer *a, mq_buf *buf, uint8_t byte)
{
    if (!mq__buf_putc(buf, (char)byte)) a->failed = true;
}

/* ---------------------------------------------------------------- what readers of calls hand out */

static bool is_name(const mq_buf *name)
{
    if (name->len == 0 || name->len > MQ_NAME_BYTES) return false;
    for (size_t i = 0; i < name->len; i++) {
        if ((uint8_t)name->data[i] < 0x20 || name->data[i] == 0x7F) return false;
    }
    return mq__utf8_valid(name->data, name->len);
}

bool mq__answer_call(mq_answer *a)
{
    if (!is_name(&a->name) || !mq__answer_find_tool(a)) return false;
    hand_out_collected(a);
    a->begun++;
    if (!a->failed) hand_part(a, MQ_PART_CALL, a->name.data, a->name.len);
    a->reader.announced = true;
    mq__buf_clear(&a->held);
    mq__buf_clear(&a->space);
    a->blank = a->close_due = true;
    a->after_reasoning = false;
    return true;
}

void mq__answer_arguments(mq_answer *a, const char *bytes, size_t count)
{
    put_part(a, MQ_PART_ARGUMENTS, bytes, count);
}

void mq__answer_call_end(mq_answer *a)
{
    hand_out_collected(a);
    a->complete++;
    if (!a->failed) hand_part(a, MQ_PART_CALL_END, NULL, 0);
}

/* ---------------------------------------------------------------- bytes that are no mark */

static void give_space(mq_answer *a, mq_part_kind kind)
{
    if (a->space.len) put_part(a, kind, a->space.data, a->space.len);
    mq__buf_clear(&a->space);
}

/* White space alone is no text where a call or reasoning follows, and a line break before a call belongs to the call: chat
 * templates write one there. */
static void text_byte(mq_answer *a, uint8_t byte)
{
    if (a->after_reasoning && (byte == '\n' || byte == '\r')) return;
    a->after_reasoning = false;
    if (a->blank ? mq__json_blank(byte) : byte == '\n' && a->syntax) {
        if (!a->blank) give_space(a, MQ_PART_TEXT);
        keep(a, &a->space, byte);
        return;
    }
    a->blank = a->close_due = false;
    give_space(a, MQ_PART_TEXT);
    put_part(a, MQ_PART_TEXT, (const char *)&byte, 1);
}

/* Without the line breaks at both ends. */
static void reasoning_byte(mq_answer *a, uint8_t byte)
{
    if (byte == '\n' || byte == '\r') {
        if (!a->fresh) keep(a, &a->space, byte);
        return;
    }
    a->fresh = false;
    give_space(a, MQ_PART_REASONING);
    put_part(a, MQ_PART_REASONING, (const char *)&byte, 1);
}

static void plain_byte(mq_answer *a, uint8_t byte)
{
    if (a->place == PLACE_TEXT) {
        text_byte(a, byte);
    } else if (a->options.split_reasoning) {
        reasoning_byte(a, byte);
    } else {
        put_part(a, MQ_PART_TEXT, (const char *)&byte, 1);
    }
}

static void give_held(mq_answer *a)
{
    for (size_t i = 0; i < a->held.len; i++) {
        plain_byte(a, (uint8_t)a->held.data[i]);
    }
    mq__buf_clear(&a->held);
}

/* ---------------------------------------------------------------- marks */

typedef enum mark { MARK_NONE, MARK_THINK, MARK_UNTHINK, MARK_OPEN, MARK_OPEN_2, MARK_BARE, MARK_CLOSE, MARKS } mark;

/* The text of a mark where it means something at present, else NULL. */
static const char *mark_here(const mq_answer *a, mark m)
{
    const bool text = a->place == PLACE_TEXT, split = a->options.split_reasoning;
    const mq_answer_style *const style = &a->options.style;
    switch (m) {
    case MARK_THINK: /* some prompts end with it, and the model writes it once more */
        return style->unthink[0] && (text ? a->blank : a->fresh && split) ? style->think : NULL;
    case MARK_UNTHINK:
        return text ? NULL : style->unthink;
    case MARK_OPEN:
    case MARK_OPEN_2:
        return text && a->syntax ? a->syntax->open[m - MARK_OPEN] : NULL;
    case MARK_BARE:
        return text && a->syntax && a->syntax->bare && a->blank ? "{" : NULL;
    case MARK_CLOSE:
        return text && a->close_due ? a->syntax->close : NULL;
    default:
        return NULL;
    }
}

/* The mark that `held` is; MARKS: it begins one. */
static mark find_mark(const mq_answer *a)
{
    mark found = MARK_NONE;
    for (mark m = MARK_THINK; m < MARKS; m++) {
        const char *const text = mark_here(a, m);
        const size_t bytes = text ? strlen(text) : 0;
        if (bytes < a->held.len || memcmp(text, a->held.data, a->held.len) != 0) continue;
        if (bytes == a->held.len) return m;
        found = MARKS;
    }
    return found;
}

static void begin_reasoning(mq_answer *a)
{
    const bool split = a->options.split_reasoning;
    if (!split) give_space(a, MQ_PART_TEXT);
    if (!split) put_part(a, MQ_PART_TEXT, a->held.data, a->held.len);
    mq__buf_clear(&a->space);
    a->place = PLACE_REASONING;
    a->fresh = true;
}

static void end_reasoning(mq_answer *a)
{
    if (!a->options.split_reasoning) put_part(a, MQ_PART_TEXT, a->held.data, a->held.len);
    mq__buf_clear(&a->space);
    a->place = PLACE_TEXT;
    a->blank = true;
    a->close_due = false;
    a->after_reasoning = a->options.split_reasoning;
}

static void call_byte(mq_answer *a, uint8_t byte);

static void take_mark(mq_answer *a, mark m)
{
    if (m == MARK_OPEN || m == MARK_OPEN_2 || m == MARK_BARE) { /* `held` stays: it is text if no call comes of it */
        a->place = PLACE_CALL;
        a->reader = (mq_tool_reader){.opened = m == MARK_OPEN_2};
        mq__buf_clear(&a->name);
        mq__buf_clear(&a->value);
        if (m != MARK_BARE) return;
        a->held.len = 0; /* the brace is the reader's first byte */
        call_byte(a, '{');
        return;
    }
    if (m == MARK_THINK) begin_reasoning(a);
    if (m == MARK_UNTHINK) end_reasoning(a);
    if (m == MARK_CLOSE) mq__buf_clear(&a->space);
    if (m == MARK_CLOSE) a->close_due = false;
    mq__buf_clear(&a->held);
}

static void scan_byte(mq_answer *a, uint8_t byte)
{
    if (a->held.len == 0 && !a->starts[byte]) {
        plain_byte(a, byte);
        return;
    }
    keep(a, &a->held, byte);
    while (a->held.len && !a->failed) {
        const mark m = find_mark(a);
        if (m == MARKS) return;
        if (m != MARK_NONE) {
            take_mark(a, m);
            return;
        }
        plain_byte(a, (uint8_t)a->held.data[0]); /* no mark begins here: perhaps one does at the next byte */
        a->held.len--;
        memmove(a->held.data, a->held.data + 1, a->held.len);
    }
}

/* ---------------------------------------------------------------- calls */

static void call_byte(mq_answer *a, uint8_t byte)
{
    const bool announced = a->reader.announced; /* the byte may end one call of a list */
    const mq_answer_step step = a->syntax->byte(a, byte);
    if (step == MQ_STEP_TAKEN) {
        if (!announced && !a->reader.announced) keep(a, &a->held, byte);
        return;
    }
    a->place = PLACE_TEXT;
    if (step == MQ_STEP_DONE) {
        mq__buf_clear(&a->held);
        return;
    }
    give_held(a); /* at once, and not searched for marks again: time stays linear */
    scan_byte(a, byte);
}

/* ---------------------------------------------------------------- interface */

static const mq_tool_syntax *syntax_of(mq_tool_format format)
{
    switch (format) {
    case MQ_TOOLS_HERMES:
        return mq__tool_hermes();
    case MQ_TOOLS_QWEN3_CODER:
        return mq__tool_qwen3_coder();
    case MQ_TOOLS_LLAMA3:
        return mq__tool_llama3();
    case MQ_TOOLS_MISTRAL:
        return mq__tool_mistral();
    case MQ_TOOLS_GEMMA4:
        return mq__tool_gemma4();
    default:
        return NULL;
    }
}

static void note_start(mq_answer *a, const char *text)
{
    if (text && text[0]) a->starts[(uint8_t)text[0]] = true;
}

static void start_answer(mq_answer *a)
{
    const mq_answer_style *const style = &a->options.style;
    a->syntax = syntax_of(style->tools);
    const bool reasons = style->unthink[0] != '\0';
    a->plain = !a->syntax && !(a->options.split_reasoning && reasons);
    a->place = a->options.in_reasoning && reasons ? PLACE_REASONING : PLACE_TEXT;
    a->blank = a->fresh = true;
    if (reasons) note_start(a, style->think);
    note_start(a, style->unthink);
    if (!a->syntax) return;
    note_start(a, a->syntax->open[0]);
    note_start(a, a->syntax->open[1]);
    note_start(a, a->syntax->close);
    if (a->syntax->bare) note_start(a, "{");
}

mq_status mq_answer_new(const mq_answer_options *options, mq_answer **out, mq_error *error)
{
    *out = NULL;
    mq_answer *const a = mq__alloc_zero(1, sizeof *a);
    if (!a) return mq__fail(error, MQ_NO_MEMORY, "answer: expected memory, got none");
    a->options = *options;
    a->options.tools = NULL;
    start_answer(a);
    mq_status status = mq__answer_read_tools(a, options->tools, options->tools_bytes, error);
    if (status == MQ_OK && !(mq__buf_reserve(&a->out, 1024) && mq__buf_reserve(&a->held, 256))) {
        status = mq__fail(error, MQ_NO_MEMORY, "answer: expected memory, got none");
    }
    if (status == MQ_OK)
        *out = a;
    else
        mq_answer_free(a);
    return status;
}

static mq_status answer_status(const mq_answer *a, mq_error *error)
{
    return a->failed ? mq__fail(error, MQ_NO_MEMORY, "answer: text: expected memory, got none") : MQ_OK;
}

mq_status mq_answer_push(mq_answer *a, const char *bytes, size_t count, mq_error *error)
{
    if (a->ended) return mq__fail(error, MQ_USAGE, "answer: text: expected none after the end, got %zu bytes", count);
    if (a->plain) {
        if (count) hand_part(a, MQ_PART_TEXT, bytes, count);
        return MQ_OK;
    }
    for (size_t i = 0; i < count && !a->failed; i++) {
        if (a->place == PLACE_CALL)
            call_byte(a, (uint8_t)bytes[i]);
        else
            scan_byte(a, (uint8_t)bytes[i]);
    }
    hand_out_collected(a);
    return answer_status(a, error);
}

mq_status mq_answer_end(mq_answer *a, mq_error *error)
{
    if (a->ended) return MQ_OK;
    a->ended = true;
    const bool in_call = a->place == PLACE_CALL;
    if (in_call) a->place = PLACE_TEXT;
    if (in_call && a->reader.announced) mq__buf_clear(&a->held);
    give_held(a);
    if (a->place == PLACE_REASONING) give_space(a, a->options.split_reasoning ? MQ_PART_REASONING : MQ_PART_TEXT);
    if (!(a->blank && a->begun)) give_space(a, MQ_PART_TEXT); /* after a call white space is no text */
    hand_out_collected(a);
    return answer_status(a, error);
}

uint32_t mq_answer_calls(const mq_answer *a)
{
    return a->complete;
}

bool mq_answer_in_reasoning(const mq_answer *a)
{
    return !a->plain && a->place == PLACE_REASONING;
}

void mq_answer_free(mq_answer *a)
{
    if (!a) return;
    json_decref(a->tools);
    mq__buf_free(&a->held);
    mq__buf_free(&a->name);
    mq__buf_free(&a->value);
    mq__buf_free(&a->space);
    mq__buf_free(&a->out);
    mq__free(a);
}
