/* The input of a custom tool: the one string in the arguments that the model writes, {"input": "..."}, decoded while it grows. */
#include "server/api_responses.h"

#include "base/ascii.h"
#include "base/json_read.h"
#include "base/unicode.h"
#include "server/api_parts.h"

#include <string.h>

json_t *mq__responses_custom_arguments(const json_t *input)
{
    json_t *object = json_pack("{sO}", "input", input);
    mq_buf text = {0};
    if (!object || !mq__json_print(object, JSON_COMPACT, &text)) text.failed = true;
    json_t *arguments = mq__joined_text(&text);
    mq__buf_free(&text);
    json_decref(object);
    return arguments;
}

static bool is_json_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Steps over what stands before the input. Blanks may stand between the marks. */
static void find_input(mq_custom_input *input, const char *arguments, size_t count)
{
    static const char *const marks[] = {"{", "\"input\"", ":", "\""};
    size_t at = 0;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        const size_t length = strlen(marks[i]);
        while (at < count && is_json_blank(arguments[at])) {
            at++;
        }
        const size_t have = count - at < length ? count - at : length;
        if (memcmp(arguments + at, marks[i], have) != 0) input->place = MQ_INPUT_OTHER;
        if (have < length || input->place == MQ_INPUT_OTHER) return;
        at += length;
    }
    input->at = at;
    input->place = MQ_INPUT_INSIDE;
}

/* Four hexadecimal digits; UINT32_MAX: they are none. */
static uint32_t hex_digits(const char *text)
{
    uint32_t value = 0;
    for (size_t i = 0; i < 4; i++) {
        const int digit = mq__hex_value(text[i]);
        if (digit < 0) return UINT32_MAX;
        value = value << 4 | (uint32_t)digit;
    }
    return value;
}

static bool is_surrogate(uint32_t code, uint32_t first)
{
    return code >= first && code < first + 0x400;
}

/* \uXXXX, or a pair of them. Returns the bytes it has; 0: it is not all there. */
static size_t take_unicode_escape(mq_custom_input *input, const char *text, size_t count)
{
    if (count < 6) return 0;
    uint32_t code = hex_digits(text + 2);
    size_t bytes = 6;
    if (is_surrogate(code, 0xD800)) {
        if (count < 12 && (count < 7 || text[6] == '\\') && (count < 8 || text[7] == 'u')) return 0;
        const bool escape = count >= 12 && text[6] == '\\' && text[7] == 'u';
        const uint32_t low = escape ? hex_digits(text + 8) : 0;
        if (is_surrogate(low, 0xDC00)) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            bytes = 12;
        }
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) code = 0xFFFD;
    (void)mq__utf8_put(&input->text, code);
    return bytes;
}

static size_t take_escape(mq_custom_input *input, const char *text, size_t count)
{
    static const char escaped[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    if (count < 2) return 0;
    if (text[1] == 'u') return take_unicode_escape(input, text, count);
    const char *found = text[1] ? strchr(escaped, text[1]) : NULL;
    (void)mq__buf_putc(&input->text, found ? meant[found - escaped] : text[1]);
    return 2;
}

void mq__custom_input_read(mq_custom_input *input, const char *arguments, size_t count)
{
    if (input->place == MQ_INPUT_BEFORE) find_input(input, arguments, count);
    while (input->place == MQ_INPUT_INSIDE && input->at < count) {
        const char *text = arguments + input->at;
        const size_t left = count - input->at;
        size_t taken = 0;
        if (*text == '"') {
            input->place = MQ_INPUT_BEHIND;
        } else if (*text == '\\') {
            taken = take_escape(input, text, left);
            if (taken == 0) return;
        } else {
            while (taken < left && text[taken] != '"' && text[taken] != '\\') {
                taken++;
            }
            (void)mq__buf_append(&input->text, text, taken);
        }
        input->at += taken;
    }
}

/* The only string of an object. */
static const json_t *only_string(const json_t *object)
{
    const char *name;
    json_t *value;
    if (json_object_size(object) != 1) return NULL;
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        if (json_is_string(value)) return value;
    }
    return NULL;
}

void mq__custom_input_end(mq_custom_input *input, const char *arguments, size_t count)
{
    mq__custom_input_read(input, arguments, count);
    if (input->place == MQ_INPUT_INSIDE || input->place == MQ_INPUT_BEHIND) return;
    json_t *parsed = NULL;
    const mq_status status =
        mq__json_read(arguments, count, JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "arguments", &parsed, NULL);
    const json_t *given = json_object_get(parsed, "input");
    const json_t *text = json_is_string(given) ? given : only_string(parsed);
    mq__buf_clear(&input->text);
    if (status == MQ_NO_MEMORY) {
        input->text.failed = true;
    } else if (text) {
        mq__join_text(&input->text, "", text);
    } else {
        (void)mq__buf_append(&input->text, arguments, count);
    }
    json_decref(parsed);
}

void mq__custom_input_clear(mq_custom_input *input)
{
    mq__buf_free(&input->text);
    *input = (mq_custom_input){0};
}
