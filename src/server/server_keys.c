/* API keys: hashes in memory and, if wanted, in the file; compared in constant time with all of them. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "server/http.h"

#include <sodium.h>
#include <string.h>

#define KEYS_BYTES ((size_t)1 << 20)
#define HASH       32

struct api_keys {
    size_t count;
    unsigned char hash[][HASH];
};

static bool read_hash(const char *text, size_t count, unsigned char hash[HASH])
{
    size_t bytes;
    const char *end;
    return sodium_hex2bin(hash, HASH, text, count, NULL, &bytes, &end) == 0 && bytes == HASH && end == text + count;
}

static bool is_key_text(const char *text, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (text[i] <= ' ' || text[i] > '~') return false;
    }
    return true;
}

/* One line without its end; blank lines and comments are none. */
static mq_status add_line(api_keys *keys, const char *line, size_t count, unsigned number, mq_error *error)
{
    static const char prefix[] = "blake2b:";
    while (count && (*line == ' ' || *line == '\t')) {
        line++;
        count--;
    }
    while (count && (line[count - 1] == ' ' || line[count - 1] == '\t' || line[count - 1] == '\r')) {
        count--;
    }
    if (count == 0 || *line == '#') return MQ_OK;
    unsigned char *hash = keys->hash[keys->count];
    if (count > sizeof prefix - 1 && memcmp(line, prefix, sizeof prefix - 1) == 0) {
        if (!read_hash(line + sizeof prefix - 1, count - (sizeof prefix - 1), hash)) {
            return mq__fail(error, MQ_FORMAT, "keys: line %u: expected 64 hex digits after blake2b:, got others",
                            number);
        }
    } else if (count < 8 || !is_key_text(line, count)) {
        return mq__fail(error, MQ_FORMAT,
                        "keys: line %u: expected a key of 8 or more bytes of ASCII without blanks, got %zu bytes",
                        number, count);
    } else {
        crypto_generichash(hash, HASH, (const unsigned char *)line, count, NULL, 0);
    }
    keys->count++;
    return MQ_OK;
}

mq_status mq__keys_read(const char *path, api_keys **out, mq_error *error)
{
    char *text;
    size_t bytes, lines = 1;
    *out = NULL;
    if (sodium_init() < 0) return mq__fail(error, MQ_UNSUPPORTED, "keys: expected libsodium to start, got a failure");
    mq_status status = mq__file_read(path, KEYS_BYTES, &text, &bytes, error);
    if (status != MQ_OK) return status;
    for (size_t i = 0; i < bytes; i++) {
        lines += text[i] == '\n';
    }
    api_keys *keys = mq__alloc_zero(1, sizeof *keys + lines * HASH);
    if (!keys) status = mq__fail(error, MQ_NO_MEMORY, "keys: %s: expected memory, got none", path);
    unsigned number = 1;
    for (const char *line = text; status == MQ_OK && line < text + bytes; number++) {
        const char *end = memchr(line, '\n', (size_t)(text + bytes - line));
        if (!end) end = text + bytes;
        status = add_line(keys, line, (size_t)(end - line), number, error);
        line = end + 1;
    }
    if (status == MQ_OK && keys->count == 0) {
        status = mq__fail(error, MQ_FORMAT, "keys: %s: expected at least one key, got none", path);
    }
    sodium_memzero(text, bytes);
    mq__free(text);
    if (status == MQ_OK)
        *out = keys;
    else
        mq__free(keys);
    return status;
}

void mq__keys_free(api_keys *keys)
{
    mq__free(keys);
}

uint64_t mq__keys_owner(const api_keys *keys, const char *key, size_t count)
{
    static const unsigned char domain[] = "mixquant owner of cached prefixes"; /* an owner says nothing about its key */
    unsigned char hash[HASH], owner[16];
    size_t found = 0;
    uint64_t id = 0;
    crypto_generichash(hash, HASH, (const unsigned char *)key, count, NULL, 0);
    for (size_t i = 0; i < keys->count; i++) {
        found += sodium_memcmp(hash, keys->hash[i], HASH) == 0;
    }
    if (found == 0) return 0;
    crypto_generichash(owner, sizeof owner, hash, HASH, domain, sizeof domain - 1);
    memcpy(&id, owner, sizeof id);
    return id ? id : 1;
}
