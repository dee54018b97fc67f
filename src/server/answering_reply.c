/* What every handler needs: faults, the JSON of a body, replies. */
#include "base/ascii.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "server/answering.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define VALUES_MAX ((size_t)1 << 20) /* of a body: the parser takes up to some 150 bytes for each */

/* ---- faults */

bool mq__fault(mq_fault *fault, const char *param, const char *format, ...)
{
    *fault = (mq_fault){.status = 400, .type = "invalid_request_error"};
    snprintf(fault->param, sizeof fault->param, "%s", param ? param : "");
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fault->message, sizeof fault->message, format, arguments);
    va_end(arguments);
    return false;
}

bool mq__fault_memory(mq_fault *fault)
{
    *fault = (mq_fault){.status = 503, .type = "server_error", .code = "out_of_memory", .retry_after = 5};
    snprintf(fault->message, sizeof fault->message, "the server is short of memory");
    return false;
}

bool mq__fault_error(mq_fault *fault, mq_status status, const mq_error *error)
{
    if (status == MQ_NO_MEMORY) return mq__fault_memory(fault);
    *fault = (mq_fault){.status = 500, .type = "server_error", .code = "internal_error"};
    if (status == MQ_CANCELLED) {
        *fault = (mq_fault){.status = 503, .type = "server_error", .code = "server_shutting_down", .retry_after = 10};
    } else if (status != MQ_IO && status != MQ_WRITE) {
        *fault = (mq_fault){.status = 400, .type = "invalid_request_error"};
    }
    snprintf(fault->message, sizeof fault->message, "%s", error->text[0] ? error->text : mq_status_text(status));
    return false;
}

/* ---- values of JSON */

json_t *mq__json_text(const char *bytes, size_t count)
{
    if (count == 0) return json_string("");
    if (mq__utf8_valid(bytes, count)) return json_stringn_nocheck(bytes, count);
    mq_buf text = {0};
    for (size_t at = 0; at < count;) {
        const uint32_t code = mq__utf8_next(bytes, count, &at);
        (void)mq__utf8_put(&text, code == MQ_UTF8_INVALID ? 0xFFFD : code);
    }
    json_t *value = text.failed ? NULL : json_stringn_nocheck(text.data, text.len);
    mq__buf_free(&text);
    return value;
}

void mq__random_id(char *id, size_t letters)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    unsigned char random[64];
    size_t have = 0;
    for (size_t i = 0; i < letters; i++) {
        unsigned char byte;
        do { /* bytes that would make some letters likelier are drawn again */
            if (have == 0) {
                const ssize_t got = getrandom(random, sizeof random, 0);
                have = got > 0 ? (size_t)got : 0;
            }
            byte = have ? random[--have] : 0xFF;
        } while (byte >= 248);
        id[i] = alphabet[byte % 62];
    }
    id[letters] = '\0';
}

/* ---- the body */

/* One pass over the text before the parser sees it: brackets that are open at once, and values at most. */
static void measure_json(const char *text, size_t bytes, size_t *depth, size_t *values)
{
    size_t open = 0;
    bool quoted = false;
    *depth = 0;
    *values = 1;
    for (size_t i = 0; i < bytes; i++) {
        const char c = text[i];
        if (c == '"') {
            quoted = !quoted;
        } else if (quoted) {
            if (c == '\\') i++;
        } else if (c == '[' || c == '{') {
            *values += 1;
            if (++open > *depth) *depth = open;
        } else if (c == ']' || c == '}') {
            if (open) open--;
        } else if (c == ',') {
            *values += 1;
        }
    }
}

/* The code unit of \\uXXXX at `at`; -1: there is none. */
static long escaped_unit(const char *text, size_t bytes, size_t at)
{
    long unit = 0;
    if (at + 6 > bytes || text[at] != '\\' || text[at + 1] != 'u') return -1;
    for (size_t i = at + 2; i < at + 6; i++) {
        const int digit = mq__hex_value(text[i]);
        if (digit < 0) return -1;
        unit = unit * 16 + digit;
    }
    return unit;
}

/* Where a client cut a text in the middle of a character, half of it is left, an escape that is no Unicode: U+FFFD stands for it, or
 * the session could not go on. Fills `repaired` if there is one. */
static void repair_surrogates(const char *text, size_t bytes, mq_buf *repaired)
{
    size_t from = 0;
    for (size_t at = 0; at < bytes;) {
        const char *escape = memchr(text + at, '\\', bytes - at);
        if (!escape) break;
        at = (size_t)(escape - text);
        const long unit = escaped_unit(text, bytes, at), next = escaped_unit(text, bytes, at + 6);
        if (unit >> 10 == 0xD800 >> 10 && next >> 10 == 0xDC00 >> 10) {
            at += 12;
        } else if (unit >> 11 == 0xD800 >> 11) {
            (void)mq__buf_append(repaired, text + from, at - from);
            (void)mq__buf_puts(repaired, "\\ufffd");
            from = at += 6;
        } else {
            at += 2;
        }
    }
    if (from) (void)mq__buf_append(repaired, text + from, bytes - from);
}

json_t *mq__body_parse(const char *text, size_t bytes, uint32_t most_depth, mq_fault *fault)
{
    static const char mark[] = "\xEF\xBB\xBF"; /* some clients put it before their JSON */
    size_t depth, values;
    if (bytes >= 3 && memcmp(text, mark, 3) == 0) {
        text += 3;
        bytes -= 3;
    }
    measure_json(text, bytes, &depth, &values);
    if (depth > most_depth || values > VALUES_MAX) {
        const size_t most = depth > most_depth ? most_depth : VALUES_MAX;
        (void)mq__fault(fault, NULL, "body: expected at most %zu %s, got more", most,
                        depth > most_depth ? "levels of nested JSON" : "JSON values");
        return NULL;
    }
    json_t *body;
    mq_error error = {0};
    mq_buf repaired = {0};
    repair_surrogates(text, bytes, &repaired);
    if (repaired.failed) {
        mq__buf_free(&repaired);
        (void)mq__fault_memory(fault);
        return NULL;
    }
    const mq_status status = mq__json_read(repaired.len ? repaired.data : text, repaired.len ? repaired.len : bytes,
                                           JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "body", &body, &error);
    mq__buf_free(&repaired);
    if (status != MQ_OK) {
        (void)mq__fault_error(fault, status, &error);
        return NULL;
    }
    if (json_is_object(body)) return body;
    json_decref(body);
    (void)mq__fault(fault, NULL, "body: expected a JSON object, got another value");
    return NULL;
}

json_t *mq__body_read(mq_server *server, const mq_exchange *x, mq_fault *fault)
{
    size_t bytes;
    const char *text = mq__exchange_body(x, &bytes);
    if (!text || bytes == 0) {
        (void)mq__fault(fault, NULL, "body: expected a JSON object, got nothing");
        return NULL;
    }
    return mq__body_parse(text, bytes, mq__server_limits(server)->json_depth, fault);
}

/* ---- replies */

json_t *mq__error_json(const mq_fault *fault)
{
    json_t *message = mq__json_text(fault->message, strlen(fault->message));
    json_t *param = fault->param[0] ? mq__json_text(fault->param, strlen(fault->param)) : json_null();
    return json_pack("{s{so ss so ss?}}", "error", "message", message, "type", fault->type, "param", param, "code",
                     fault->code);
}

void mq__reply_json(mq_exchange *x, unsigned status, json_t *body)
{
    static const char short_of_memory[] =
        "{\"error\":{\"message\":\"the server is short of memory\",\"type\":\"server_error\",\"param\":null,"
        "\"code\":\"out_of_memory\"}}";
    mq_buf text = {0};
    if (body && mq__json_print(body, JSON_COMPACT, &text)) {
        mq__exchange_reply(x, status, "application/json", text.data, text.len);
    } else {
        mq__exchange_reply(x, 503, "application/json", short_of_memory, sizeof short_of_memory - 1);
    }
    mq__buf_free(&text);
    json_decref(body);
}

void mq__reply_fault(mq_exchange *x, const mq_api *api, const mq_fault *fault)
{
    char seconds[16];
    if (fault->retry_after) {
        snprintf(seconds, sizeof seconds, "%u", fault->retry_after);
        mq__exchange_set_header(x, "retry-after", seconds);
    } else if (fault->status >= 400 && fault->status < 500) {
        mq__exchange_set_header(x, "x-should-retry", "false");
    }
    mq__reply_json(x, fault->status, api && api->error ? api->error(fault) : mq__error_json(fault));
}
