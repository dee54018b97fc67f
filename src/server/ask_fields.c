/* Fields that several APIs share, by their JSON names. Absent and null leave the default. */
#include "base/json_read.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "server/answering.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TITLE_WITHIN 300 /* bytes of a system text that say what it is about */

/* NULL: absent or null. */
static const json_t *field(const json_t *body, const char *name)
{
    const json_t *value = json_object_get(body, name);
    return json_is_null(value) ? NULL : value;
}

/* One beyond 64 bits or a double is an object here. */
static bool is_any_number(const json_t *value)
{
    return json_is_number(value) || mq__json_big_number(value);
}

static const char *kind_of(const json_t *value)
{
    if (is_any_number(value)) return "a number";
    static const char *const names[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    return names[json_typeof(value)];
}

bool mq__field_number(const json_t *body, const char *name, double least, double most, double *value, mq_fault *fault)
{
    const json_t *given = field(body, name);
    if (!given) return true;
    if (!is_any_number(given)) {
        return mq__fault(fault, name, "%s: expected a number from %g to %g, got %s", name, least, most, kind_of(given));
    }
    const char *const big = mq__json_big_number(given);
    const double number = big ? strtod(big, NULL) : json_number_value(given);
    if (!(number >= least && number <= most)) {
        return mq__fault(fault, name, "%s: expected a number from %g to %g, got %g", name, least, most, number);
    }
    *value = number;
    return true;
}

bool mq__field_integer(const json_t *body, const char *name, int64_t least, int64_t most, int64_t *value,
                       mq_fault *fault)
{
    const json_t *given = field(body, name);
    if (!given) return true;
    const double number = json_number_value(given);
    /* Some clients print whole numbers as 256.0. */
    const bool whole =
        json_is_integer(given) || (json_is_real(given) && number == floor(number) && fabs(number) < 1e15);
    const int64_t integer = json_is_integer(given) ? json_integer_value(given) : whole ? (int64_t)number : 0;
    if (!whole || integer < least || integer > most) {
        return mq__fault(fault, name, "%s: expected a whole number from %lld to %lld, got %s", name, (long long)least,
                         (long long)most, is_any_number(given) ? "another number" : kind_of(given));
    }
    *value = integer;
    return true;
}

bool mq__field_bool(const json_t *body, const char *name, bool *value, mq_fault *fault)
{
    const json_t *given = field(body, name);
    if (!given) return true;
    if (!json_is_boolean(given)) {
        return mq__fault(fault, name, "%s: expected true or false, got %s", name, kind_of(given));
    }
    *value = json_is_true(given);
    return true;
}

bool mq__field_text(const json_t *body, const char *name, size_t most, const char **value, mq_fault *fault)
{
    const json_t *given = field(body, name);
    *value = NULL;
    if (!given) return true;
    if (!json_is_string(given)) return mq__fault(fault, name, "%s: expected a string, got %s", name, kind_of(given));
    const size_t bytes = json_string_length(given);
    if (bytes > most || strlen(json_string_value(given)) != bytes) {
        return mq__fault(fault, name, "%s: expected at most %zu bytes without NUL, got %zu", name, most, bytes);
    }
    *value = json_string_value(given);
    return true;
}

/* ---- the ask */

void mq__ask_defaults(mq_server *server, mq_ask *ask)
{
    *ask = (mq_ask){.sampling = mq__server_model(server)->info.suggested,
                    .max_tokens = UINT32_MAX,
                    .n = 1,
                    .choice = MQ_CHOICE_AUTO,
                    .parallel = true,
                    .thinking = -1};
}

void mq__ask_clear(mq_ask *ask)
{
    json_decref(ask->messages);
    json_decref(ask->tools);
    json_decref(ask->callable);
    json_decref(ask->template_kwargs);
    json_decref(ask->schema);
    mq__free(ask->prompt);
    mq__free(ask->prompt_tokens);
    mq__free((void *)(uintptr_t)ask->sampling.bias);
    for (size_t i = 0; i < ask->stop_count; i++) {
        mq__free(ask->stops[i]);
    }
    mq__free(ask->stops);
    mq__free(ask->only_tool);
    mq__free(ask->warning);
    *ask = (mq_ask){0};
}

bool mq__ask_warn(mq_ask *ask, const char *format, ...)
{
    mq_buf text = {.max = 1000};
    char one[200];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(one, sizeof one, format, arguments);
    va_end(arguments);
    if (length < 0) return false;
    for (char *c = one; *c; c++) { /* it goes into a header and into the log */
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') *c = '?';
    }
    if (ask->warning && (strstr(ask->warning, one) || strlen(ask->warning) + strlen(one) + 2 > text.max)) return true;
    if (ask->warning) {
        (void)mq__buf_puts(&text, ask->warning);
        (void)mq__buf_puts(&text, "; ");
    }
    (void)mq__buf_puts(&text, one);
    char *joined = mq__buf_take(&text);
    if (!joined) return false;
    mq__free(ask->warning);
    ask->warning = joined;
    return true;
}

bool mq__ask_kwarg(mq_ask *ask, const char *name, json_t *value)
{
    if (!ask->template_kwargs) ask->template_kwargs = json_object();
    if (!value || json_object_get(ask->template_kwargs, name)) {
        json_decref(value);
        return value != NULL;
    }
    return json_object_set_new(ask->template_kwargs, name, value) == 0;
}

/* ---- sampling */

static bool read_float(const json_t *body, const char *name, double least, double most, float *value, mq_fault *fault)
{
    double number = (double)*value;
    if (!mq__field_number(body, name, least, most, &number, fault)) return false;
    *value = (float)number;
    return true;
}

/* A big number without a sign, as 64 bits. */
static bool fits_64(const char *big, uint64_t *value)
{
    errno = 0;
    *value = strtoull(big, NULL, 10);
    return errno == 0 && strspn(big, "0123456789") == strlen(big);
}

/* Any whole number of 64 bits, with a sign or without. */
static bool read_seed(const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *given = field(body, "seed");
    if (!given) return true;
    const double number = json_number_value(given);
    const char *const big = mq__json_big_number(given);
    if (json_is_integer(given)) {
        ask->sampling.seed = (uint64_t)json_integer_value(given);
    } else if (json_is_real(given) && number == floor(number) && number >= -0x1p63 && number < 0x1p64) {
        ask->sampling.seed = number < 0 ? (uint64_t)(int64_t)number : (uint64_t)number;
    } else if (!big || !fits_64(big, &ask->sampling.seed)) {
        return mq__fault(fault, "seed", "seed: expected a whole number of 64 bits, got %s",
                         is_any_number(given) ? "another number" : kind_of(given));
    }
    ask->has_seed = true;
    return true;
}

/* A token id as JSON keys spell it; -1: none. */
static int64_t token_of_key(const char *key, uint32_t vocab)
{
    char *end;
    const size_t digits = strspn(key, "0123456789");
    if (digits == 0 || key[digits] || digits > 9 || (digits > 1 && key[0] == '0')) return -1;
    const long token = strtol(key, &end, 10);
    return (uint64_t)token < vocab ? token : -1;
}

static bool read_bias(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const json_t *given = field(body, "logit_bias");
    if (!given) return true;
    if (!json_is_object(given)) {
        return mq__fault(fault, "logit_bias", "logit_bias: expected an object of token ids, got %s", kind_of(given));
    }
    const uint32_t vocab = mq__server_model(server)->info.vocab;
    mq_logit_bias *bias = mq__alloc_zero(json_object_size(given) + 1, sizeof *bias);
    if (!bias) return mq__fault_memory(fault);
    mq__free((void *)(uintptr_t)ask->sampling.bias);
    ask->sampling.bias = bias;
    ask->sampling.bias_count = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        const int64_t token = token_of_key(key, vocab);
        const double number = json_number_value(value);
        if (token < 0 || !json_is_number(value) || !(number >= -100 && number <= 100)) {
            return mq__fault(fault, "logit_bias",
                             "logit_bias: %.20s: expected a token id below %u and a number from -100 to 100, got %s",
                             key, vocab, token < 0 ? "another key" : "another value");
        }
        bias[ask->sampling.bias_count++] = (mq_logit_bias){(int32_t)token, (float)number};
    }
    return true;
}

bool mq__read_sampling(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    mq_sampling *s = &ask->sampling;
    int64_t top_k = s->top_k;
    if (!read_float(body, "temperature", 0, 100, &s->temperature, fault) ||
        !read_float(body, "top_p", 0, 1, &s->top_p, fault) || !read_float(body, "min_p", 0, 1, &s->min_p, fault) ||
        !read_float(body, "repetition_penalty", 1e-3, 1000, &s->repetition_penalty, fault) ||
        !read_float(body, "repeat_penalty", 1e-3, 1000, &s->repetition_penalty, fault) ||
        !read_float(body, "presence_penalty", -100, 100, &s->presence_penalty, fault) ||
        !read_float(body, "frequency_penalty", -100, 100, &s->frequency_penalty, fault) ||
        !mq__field_integer(body, "top_k", -1, INT32_MAX, &top_k, fault)) {
        return false;
    }
    s->top_k = top_k < 0 ? 0 : (int)top_k; /* -1: off, as with vLLM */
    return read_seed(body, ask, fault) && read_bias(server, body, ask, fault);
}

/* ---- stop strings */

static bool add_stop(mq_ask *ask, const json_t *stop, const char *name, mq_fault *fault)
{
    const size_t bytes = json_string_length(stop);
    if (!json_is_string(stop) || bytes > 1024 || strlen(json_string_value(stop)) != bytes) {
        return mq__fault(fault, name, "%s: expected strings of at most 1024 bytes without NUL, got %s", name,
                         json_is_string(stop) ? "another string" : kind_of(stop));
    }
    if (bytes == 0) return true; /* it would end every answer at once */
    char *copy = mq__strdup(json_string_value(stop));
    if (!copy) return mq__fault_memory(fault);
    ask->stops[ask->stop_count++] = copy;
    return true;
}

bool mq__read_stops(mq_server *server, const json_t *stops, const char *name, mq_ask *ask, mq_fault *fault)
{
    if (!stops || json_is_null(stops)) return true;
    const uint32_t most = mq__server_limits(server)->stops;
    const size_t count = json_is_array(stops) ? json_array_size(stops) : 1;
    if (count > most) return mq__fault(fault, name, "%s: expected at most %u strings, got %zu", name, most, count);
    ask->stops = mq__alloc_zero(count + 1, sizeof *ask->stops);
    if (!ask->stops) return mq__fault_memory(fault);
    if (!json_is_array(stops)) return add_stop(ask, stops, name, fault);
    for (size_t i = 0; i < count; i++) {
        if (!add_stop(ask, json_array_get(stops, i), name, fault)) return false;
    }
    return true;
}

/* ---- hints */

static void note_session(mq_ask *ask, const char *text)
{
    size_t n = 0;
    for (; text && text[n] && n + 1 < sizeof ask->session; n++) {
        const char c = text[n];
        ask->session[n] = c > ' ' && c < 0x7F && c != '"' && c != '\\' ? c : '?';
    }
    ask->session[n] = '\0';
}

void mq__ask_hints(const mq_exchange *x, const json_t *body, mq_ask *ask)
{
    static const char *const headers[] = {"x-claude-code-session-id", "x-session-id",     "session-id", "session_id",
                                          "x-session-affinity",       "x-conversation-id"};
    for (size_t i = 0; i < sizeof headers / sizeof headers[0] && !ask->session[0]; i++) {
        note_session(ask, mq__exchange_header(x, headers[i]));
    }
    if (!ask->session[0]) note_session(ask, json_string_value(json_object_get(body, "prompt_cache_key")));
    const char *app = mq__exchange_header(x, "x-app");
    ask->background = app && strcmp(app, "cli-bg") == 0;
}

/* Whether the first words of a text speak of a title. */
static bool begins_with_title(const json_t *text)
{
    char begin[TITLE_WITHIN];
    const char *value = json_string_value(text);
    snprintf(begin, sizeof begin, "%s", value ? value : "");
    return strcasestr(begin, "title") != NULL;
}

void mq__ask_note_title(mq_ask *ask)
{
    const json_t *first = json_array_get(ask->messages, 0), *members = json_object_get(ask->schema, "properties");
    const char *role = json_string_value(json_object_get(first, "role"));
    if (ask->tools || json_array_size(ask->messages) > 3) return;
    const bool form = json_object_get(members, "title") && json_object_size(members) <= 2;
    const bool asks = role && strcmp(role, "system") == 0 && begins_with_title(json_object_get(first, "content"));
    if (form || asks) ask->background = true;
}
