/* Reasoning as an opaque string, texts of lists, signs of life. */
#include "server/api_parts.h"

#include "base/mem.h"

#include <sodium.h>
#include <string.h>

#define SEAL "mq1:" /* then base64 */

const char *mq__text_member(const json_t *object, const char *name)
{
    return json_string_value(json_object_get(object, name));
}

/* ---- reasoning */

json_t *mq__reasoning_seal(const char *text, size_t count)
{
    const size_t prefix = sizeof SEAL - 1;
    const size_t room = sodium_base64_encoded_len(count, sodium_base64_VARIANT_ORIGINAL); /* with the NUL */
    char *sealed = mq__alloc(prefix + room);
    if (!sealed) return NULL;
    memcpy(sealed, SEAL, prefix);
    sodium_bin2base64(sealed + prefix, room, (const unsigned char *)text, count, sodium_base64_VARIANT_ORIGINAL);
    json_t *value = json_string_nocheck(sealed);
    mq__free(sealed);
    return value;
}

bool mq__reasoning_open(const json_t *sealed, mq_buf *text)
{
    const size_t prefix = sizeof SEAL - 1, count = json_string_length(sealed);
    const char *value = json_string_value(sealed);
    if (!value || count < prefix || memcmp(value, SEAL, prefix) != 0) return false;
    const size_t room = (count - prefix) / 4 * 3 + 3;
    unsigned char *opened = mq__alloc(room);
    size_t bytes = 0;
    if (!opened) {
        text->failed = true;
        return true;
    }
    const bool right = sodium_base642bin(opened, room, value + prefix, count - prefix, NULL, &bytes, NULL,
                                         sodium_base64_VARIANT_ORIGINAL) == 0;
    if (right) (void)mq__buf_append(text, opened, bytes);
    mq__free(opened);
    return right;
}

/* ---- texts */

void mq__join_text(mq_buf *text, const char *between, const json_t *more)
{
    if (text->len) (void)mq__buf_puts(text, between);
    (void)mq__buf_append(text, json_string_value(more), json_string_length(more));
}

json_t *mq__joined_text(mq_buf *text)
{
    json_t *joined = text->failed ? NULL : mq__json_text(text->len ? text->data : "", text->len);
    mq__buf_clear(text);
    return joined;
}

json_t *mq__with(json_t *object, const char *name, json_t *value)
{
    if (json_object_set_new(object, name, value) == 0) return object;
    json_decref(object);
    return NULL;
}

json_t *mq__with_item(json_t *list, json_t *value)
{
    if (json_array_append_new(list, value) == 0) return list;
    json_decref(list);
    return NULL;
}

bool mq__is_blank(const char *text, size_t count)
{
    size_t i = 0;
    while (i < count && (text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r'))) {
        i++;
    }
    return i == count;
}

/* ---- signs of life */

bool mq__alive_due(double *told, double idle, double every)
{
    if (idle < *told) *told = 0; /* there was an event */
    if (idle - *told < every) return false;
    *told = idle;
    return true;
}

/* ---- requests */

bool mq__ask_unique_tool(const mq_ask *ask, const char *name, const char *param, mq_fault *fault)
{
    for (size_t i = 0; name && i < json_array_size(ask->tools); i++) {
        const char *other = mq__text_member(json_object_get(json_array_get(ask->tools, i), "function"), "name");
        if (other && strcmp(other, name) == 0) {
            return mq__fault(fault, param, "%s: expected a name of its own, got %.200s again", param, name);
        }
    }
    return true;
}

json_t *mq__call_model(const mq_call *call)
{
    const char *asked = mq__call_ask(call)->model;
    const char *name = asked[0] ? asked : mq__server_model(mq__call_server(call))->name;
    return mq__json_text(name, strlen(name));
}
