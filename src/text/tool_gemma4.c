/* Gemma 4's calls: <|tool_call>call:name{key:<|"|>text<|"|>,n:1,list:[true],inner:{key:2.5}}<tool_call|>. Text has no escapes; keys
 * have quotes or none. What stands without quotes is JSON or, where it is none, text. */
#include "text/answer.h"

#include <string.h>

enum {
    GEMMA_CALL, /* "call:" */
    GEMMA_NAME,
    GEMMA_FIRST_KEY, /* or '}' */
    GEMMA_KEY,
    GEMMA_BARE_KEY,
    GEMMA_QUOTED_KEY,
    GEMMA_COLON,
    GEMMA_FIRST_ITEM, /* or ']' */
    GEMMA_VALUE,
    GEMMA_BARE,
    GEMMA_TEXT,
    GEMMA_JSON_TEXT, /* in quotes of JSON */
    GEMMA_NEXT       /* ',' or the end of the level */
};

#define QUOTE "<|\"|>"

static bool is_one_of(const char *set, uint8_t byte)
{
    return byte && strchr(set, byte);
}

static bool gemma_in_object(const mq_tool_reader *r)
{
    const unsigned level = r->depth - 1u;
    return r->objects[level / 64] >> (level % 64) & 1;
}

static mq_answer_step gemma_open(mq_answer *a, bool object)
{
    mq_tool_reader *const r = &a->reader;
    if (r->depth == MQ_SCAN_DEPTH) return MQ_STEP_BROKEN;
    const uint64_t bit = (uint64_t)1 << (r->depth % 64);
    uint64_t *const word = &r->objects[r->depth / 64];
    *word = object ? *word | bit : *word & ~bit;
    r->depth++;
    r->types = MQ_TYPE_ANY; /* of what is inside; a parameter's own come with its name */
    r->state = object ? GEMMA_FIRST_KEY : GEMMA_FIRST_ITEM;
    mq__answer_arguments(a, object ? "{" : "[", 1);
    return MQ_STEP_TAKEN;
}

static mq_answer_step gemma_close(mq_answer *a, bool object)
{
    mq_tool_reader *const r = &a->reader;
    if (gemma_in_object(r) != object) return MQ_STEP_BROKEN;
    mq__answer_arguments(a, object ? "}" : "]", 1);
    r->state = GEMMA_NEXT;
    if (--r->depth) return MQ_STEP_TAKEN;
    mq__answer_call_end(a);
    return MQ_STEP_DONE;
}

static mq_answer_step gemma_next(mq_answer *a, uint8_t byte)
{
    if (byte == '}' || byte == ']') return gemma_close(a, byte == '}');
    if (byte != ',') return MQ_STEP_BROKEN;
    mq__answer_arguments(a, ",", 1);
    a->reader.state = gemma_in_object(&a->reader) ? GEMMA_KEY : GEMMA_VALUE;
    return MQ_STEP_TAKEN;
}

/* ---------------------------------------------------------------- text in quotes */

/* A byte behind an opening quote: 1 is the closing one's last, -1 is no UTF-8. A key is collected, other text handed out. */
static int quoted_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    const bool key = r->state == GEMMA_QUOTED_KEY;
    if (byte == (uint8_t)QUOTE[r->matched]) {
        r->matched++;
        return r->matched == sizeof QUOTE - 1;
    }
    /* No byte of the mark but the first begins it anew. */
    for (size_t i = 0; i < r->matched; i++) {
        if (key && !mq__buf_putc(&a->value, QUOTE[i])) a->failed = true;
        if (!key && !mq__answer_quote(a, (uint8_t)QUOTE[i])) return -1;
    }
    r->matched = byte == '<';
    if (r->matched) return 0;
    if (key && !mq__buf_putc(&a->value, (char)byte)) a->failed = true;
    return key || mq__answer_quote(a, byte) ? 0 : -1;
}

static mq_answer_step gemma_text_byte(mq_answer *a, uint8_t byte)
{
    const int got = quoted_byte(a, byte);
    if (got == 0) return MQ_STEP_TAKEN;
    if (got < 0 || a->reader.utf8.left) return MQ_STEP_BROKEN;
    mq__answer_arguments(a, "\"", 1);
    a->reader.state = GEMMA_NEXT;
    return MQ_STEP_TAKEN;
}

/* The bytes that were collected are no part of the call: they come out as text. */
static mq_answer_step broken_after(mq_answer *a, const char *bytes, size_t count)
{
    if (!mq__buf_append(&a->held, bytes, count)) a->failed = true;
    return MQ_STEP_BROKEN;
}

/* The opening quote, from its second byte on. */
static mq_answer_step open_quote(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (byte != (uint8_t)QUOTE[r->end]) return broken_after(a, QUOTE, r->end);
    if (QUOTE[++r->end]) return MQ_STEP_TAKEN;
    r->end = 0;
    if (r->state == GEMMA_TEXT) mq__answer_arguments(a, "\"", 1);
    return MQ_STEP_TAKEN;
}

/* Text in quotes, of whose opening one the first byte came, or bare text. */
static void begin_text(mq_answer *a, uint8_t state, bool quoted)
{
    mq_tool_reader *const r = &a->reader;
    r->state = state;
    r->end = quoted; /* bytes of the opening quote */
    r->matched = 0;
    r->utf8 = (mq_utf8_check){0};
    mq__buf_clear(&a->value);
}

/* ---------------------------------------------------------------- keys */

static void trim_value(mq_buf *value)
{
    while (value->len && mq__json_blank((uint8_t)value->data[value->len - 1])) {
        value->len--;
    }
}

static bool key_complete(mq_answer *a)
{
    mq_tool_reader *const r = &a->reader;
    if (!mq__answer_string(a, a->value.data, a->value.len)) return false;
    r->types = r->depth > 1 ? MQ_TYPE_ANY : mq__answer_types(a, a->value.data, a->value.len);
    return true;
}

static mq_answer_step gemma_colon(mq_answer *a)
{
    mq__answer_arguments(a, ":", 1);
    a->reader.state = GEMMA_VALUE;
    return MQ_STEP_TAKEN;
}

static mq_answer_step bare_key_byte(mq_answer *a, uint8_t byte)
{
    if (byte == ':') {
        trim_value(&a->value);
        return key_complete(a) ? gemma_colon(a) : MQ_STEP_BROKEN;
    }
    if (byte < ' ' || is_one_of("{}[],<\"", byte)) return broken_after(a, a->value.data, a->value.len);
    if (!mq__buf_putc(&a->value, (char)byte)) a->failed = true;
    return MQ_STEP_TAKEN;
}

static mq_answer_step quoted_key_byte(mq_answer *a, uint8_t byte)
{
    if (quoted_byte(a, byte) != 1) return MQ_STEP_TAKEN;
    a->reader.state = GEMMA_COLON;
    return key_complete(a) ? MQ_STEP_TAKEN : MQ_STEP_BROKEN;
}

static mq_answer_step begin_key(mq_answer *a, uint8_t byte)
{
    const bool quoted = byte == '<';
    begin_text(a, quoted ? GEMMA_QUOTED_KEY : GEMMA_BARE_KEY, quoted);
    if (quoted) return MQ_STEP_TAKEN;
    return byte == ':' ? MQ_STEP_BROKEN : bare_key_byte(a, byte);
}

/* ---------------------------------------------------------------- values */

static mq_answer_step bare_byte(mq_answer *a, uint8_t byte)
{
    if (is_one_of("{[<", byte)) return broken_after(a, a->value.data, a->value.len);
    if (!is_one_of(",}]", byte)) {
        if (!mq__buf_putc(&a->value, (char)byte)) a->failed = true;
        return MQ_STEP_TAKEN;
    }
    trim_value(&a->value);
    if (!mq__answer_value(a, a->value.data, a->value.len, a->reader.types)) return MQ_STEP_BROKEN;
    return gemma_next(a, byte);
}

static mq_answer_step json_text_byte(mq_answer *a, uint8_t byte)
{
    char out[4];
    size_t count;
    const mq_scan got = mq__json_string_byte(&a->reader.string, byte, out, &count);
    if (got == MQ_SCAN_BAD) return MQ_STEP_BROKEN;
    mq__answer_arguments(a, (const char *)&byte, 1);
    if (got == MQ_SCAN_END) a->reader.state = GEMMA_NEXT;
    return MQ_STEP_TAKEN;
}

static mq_answer_step gemma_value(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (byte == '{' || byte == '[') return gemma_open(a, byte == '{');
    if (byte == ']' && r->state == GEMMA_FIRST_ITEM) return gemma_close(a, false);
    if (is_one_of(",}]:", byte)) return MQ_STEP_BROKEN;
    if (byte == '"') {
        r->state = GEMMA_JSON_TEXT;
        r->string = (mq_json_string){0};
        mq__answer_arguments(a, "\"", 1);
        return MQ_STEP_TAKEN;
    }
    begin_text(a, byte == '<' ? GEMMA_TEXT : GEMMA_BARE, byte == '<');
    return byte == '<' ? MQ_STEP_TAKEN : bare_byte(a, byte);
}

/* ---------------------------------------------------------------- the call */

static mq_answer_step gemma_name_byte(mq_answer *a, uint8_t byte)
{
    if (byte == '{') return mq__answer_call(a) ? gemma_open(a, true) : MQ_STEP_BROKEN;
    if (byte <= ' ' || byte == 0x7F || is_one_of("}<>\"", byte) || a->name.len >= MQ_NAME_BYTES) return MQ_STEP_BROKEN;
    if (!mq__buf_putc(&a->name, (char)byte)) a->failed = true;
    return MQ_STEP_TAKEN;
}

static mq_answer_step gemma_call_byte(mq_tool_reader *r, uint8_t byte)
{
    static const char call[] = "call:";
    if (r->matched == 0 && mq__json_blank(byte)) return MQ_STEP_TAKEN;
    if (byte != (uint8_t)call[r->matched]) return MQ_STEP_BROKEN;
    if (!call[++r->matched]) r->state = GEMMA_NAME;
    return MQ_STEP_TAKEN;
}

/* A byte between tokens that is not white space. */
static mq_answer_step gemma_structure_byte(mq_answer *a, uint8_t byte)
{
    switch (a->reader.state) {
    case GEMMA_FIRST_KEY:
        return byte == '}' ? gemma_close(a, true) : begin_key(a, byte);
    case GEMMA_KEY:
        return begin_key(a, byte);
    case GEMMA_COLON:
        return byte == ':' ? gemma_colon(a) : MQ_STEP_BROKEN;
    case GEMMA_NEXT:
        return gemma_next(a, byte);
    default:
        return gemma_value(a, byte);
    }
}

static mq_answer_step gemma_byte(mq_answer *a, uint8_t byte)
{
    mq_tool_reader *const r = &a->reader;
    if (r->end) return open_quote(a, byte);
    switch (r->state) {
    case GEMMA_CALL:
        return gemma_call_byte(r, byte);
    case GEMMA_NAME:
        return gemma_name_byte(a, byte);
    case GEMMA_BARE_KEY:
        return bare_key_byte(a, byte);
    case GEMMA_QUOTED_KEY:
        return quoted_key_byte(a, byte);
    case GEMMA_BARE:
        return bare_byte(a, byte);
    case GEMMA_TEXT:
        return gemma_text_byte(a, byte);
    case GEMMA_JSON_TEXT:
        return json_text_byte(a, byte);
    default:
        return mq__json_blank(byte) ? MQ_STEP_TAKEN : gemma_structure_byte(a, byte);
    }
}

const mq_tool_syntax *mq__tool_gemma4(void)
{
    static const mq_tool_syntax syntax = {.open = {"<|tool_call>"}, .close = "<tool_call|>", .byte = gemma_byte};
    return &syntax;
}
