/* Helpers of tasks: seeded numbers, files of JSON lines. */
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "eval/eval.h"

#include <string.h>

#define LINES_MAX ((size_t)1 << 30)

uint64_t mq__eval_hash(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *p = bytes;
    if (hash == 0) hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ p[i]) * 0x100000001b3u;
    }
    return hash;
}

/* FNV-1a, then splitmix64: neighbouring seeds and names give unrelated streams. */
mq_eval_random mq__eval_random(uint64_t seed, const char *text)
{
    const uint64_t hash = mq__eval_hash(0, text, strlen(text));
    mq_eval_random random = {hash};
    random.state = mq__eval_random_u64(&random) ^ seed;
    return random;
}

uint64_t mq__eval_random_u64(mq_eval_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t mq__eval_random_below(mq_eval_random *random, uint32_t bound)
{
    return (uint32_t)(((mq__eval_random_u64(random) >> 32) * bound) >> 32);
}

/* Bytes of the UTF-8 sequence at p, or 0: cut, overlong, a surrogate, or past U+10FFFF. */
static size_t sequence(const unsigned char *p, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const size_t length = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    if (length <= 1) return length;
    if (length > left) return 0;
    uint32_t code = p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code >= least[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? length : 0;
}

void mq__eval_make_text(char *bytes, size_t count)
{
    for (size_t i = 0, length; i < count; i += length ? length : 1) {
        length = bytes[i] ? sequence((const unsigned char *)bytes + i, count - i) : 0;
        if (!length) bytes[i] = '?';
    }
}

static mq_status read_line(const char *path, const char *line, size_t bytes, size_t number, json_t *lines,
                           mq_error *error)
{
    json_t *value = NULL;
    size_t blank = 0;
    while (blank < bytes && strchr(" \t\r", line[blank])) {
        blank++;
    }
    if (blank == bytes) return MQ_OK;
    mq_error why = {0};
    const mq_status status = mq__json_read(line, bytes, JSON_DECODE_ANY, MQ_JSON_ROUND_NUMBERS, "line", &value, &why);
    if (status != MQ_OK) return mq__fail(error, status, "eval: %s:%zu: %s", path, number, why.text);
    if (json_array_append_new(lines, value) == 0) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", path);
}

mq_status mq__eval_read_lines(const char *path, bool drop_cut, json_t **lines, mq_error *error)
{
    char *data = NULL;
    size_t bytes, number = 0;
    *lines = NULL;
    mq_status status = mq__file_read(path, LINES_MAX, &data, &bytes, error);
    if (status != MQ_OK) return status;
    json_t *list = json_array();
    if (!list) status = mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", path);
    for (size_t at = 0; status == MQ_OK && at < bytes;) {
        const char *end = memchr(data + at, '\n', bytes - at);
        if (!end && drop_cut) break;
        const size_t length = end ? (size_t)(end - data) - at : bytes - at;
        status = read_line(path, data + at, length, ++number, list, error);
        at += length + 1;
    }
    mq__free(data);
    if (status == MQ_OK)
        *lines = list;
    else
        json_decref(list);
    return status;
}

mq_status mq__eval_read_values(const char *path, json_t **values, mq_error *error)
{
    char *data = NULL;
    size_t bytes;
    *values = NULL;
    mq_status status = mq__file_read(path, LINES_MAX, &data, &bytes, error);
    if (status != MQ_OK) return status;
    json_t *list = json_array();
    for (size_t at = 0; status == MQ_OK && at < bytes;) {
        json_error_t where;
        json_t *value;
        at += strspn(data + at, " \t\r\n"); /* the text ends with NUL */
        if (at >= bytes) break;
        const unsigned long failures = mq__json_failures();
        value = json_loadb(data + at, bytes - at, JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK, &where);
        if (mq__json_failures() != failures) {
            status = mq__fail(error, MQ_NO_MEMORY, "eval: %s: expected memory, got none", path);
            json_decref(value);
            break;
        }
        if (!value || json_array_append_new(list, value) != 0 || where.position <= 0) {
            status = mq__fail(error, MQ_FORMAT, "eval: %s: byte %zu: expected a JSON value, got: %s", path, at,
                              value ? "one that does not fit" : where.text);
        }
        at += (size_t)where.position;
    }
    mq__free(data);
    if (status == MQ_OK && json_array_size(list) == 1 && json_is_array(json_array_get(list, 0))) {
        json_t *only = json_incref(json_array_get(list, 0));
        json_decref(list);
        list = only;
    }
    if (status == MQ_OK)
        *values = list;
    else
        json_decref(list);
    return status;
}

bool mq__eval_are_dialogues(const json_t *dialogues)
{
    const json_t *dialogue, *message;
    size_t i, k;
    json_array_foreach(dialogues, i, dialogue)
    {
        json_array_foreach(dialogue, k, message)
        {
            if (!json_is_string(json_object_get(message, "role")) ||
                !json_is_string(json_object_get(message, "content"))) {
                return false;
            }
        }
        if (!json_is_array(dialogue)) return false;
    }
    return json_is_array(dialogues);
}

/* A short chat as the template renders it for an answer; NULL without a template. mq_free it. */
static char *render_eval_probe(const mq_text *text, size_t *bytes)
{
    static const char probe[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"add_generation_prompt\":true}";
    char *prompt = NULL;
    if (text && mq_render(text, probe, sizeof probe - 1, &prompt, bytes, NULL) != MQ_OK) prompt = NULL;
    return prompt;
}

bool mq__eval_has_template(const mq_text *text)
{
    size_t bytes;
    char *prompt = render_eval_probe(text, &bytes);
    const bool has = prompt != NULL;
    mq_free(prompt);
    return has;
}

bool mq__eval_opens_thought(const mq_text *text)
{
    static const char open[] = "<think>";
    size_t bytes = 0;
    char *prompt = render_eval_probe(text, &bytes);
    while (prompt && bytes && strchr(" \t\r\n", prompt[bytes - 1])) {
        bytes--;
    }
    const bool opens =
        bytes >= sizeof open - 1 && memcmp(prompt + bytes - (sizeof open - 1), open, sizeof open - 1) == 0;
    mq_free(prompt);
    return opens;
}

/* Behind the last </think>; *opened: whether a thought is open there. */
static const char *behind_thoughts(const char *answer, bool *opened)
{
    const char *end = "</think>", *rest = answer;
    for (const char *at = strstr(answer, end); at; at = strstr(rest, end)) {
        rest = at + strlen(end);
        *opened = false;
    }
    *opened = *opened || strstr(rest, "<think>") != NULL;
    return rest;
}

const char *mq__eval_after_thought(const char *answer, bool opened)
{
    const char *rest = behind_thoughts(answer, &opened);
    return opened ? "" : rest;
}

bool mq__eval_is_cut_thought(const char *answer, bool opened)
{
    (void)behind_thoughts(answer, &opened);
    return opened;
}
