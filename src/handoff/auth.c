#include "handoff/auth.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <sodium.h>
#include <string.h>

#define KEY_LEAST 16 /* bytes of a key file */
#define KEY_MOST  ((size_t)64 << 10)
#define TAG_AT    40
#define BEHIND    (TAG_AT + MQ_PROTOCOL_TAG)

_Static_assert(MQ_PROTOCOL_TAG == crypto_onetimeauth_BYTES, "a tag is what Poly1305 gives");

static const char auth_domain[] = "mixquant hand-off";

mq_status mq__auth_key_read(const char *path, mq_auth_key *key, mq_error *error)
{
    *key = (mq_auth_key){0};
    if (sodium_init() < 0)
        return mq__fail(error, MQ_UNSUPPORTED, "hand-off: expected libsodium to start, got a failure");
    if (!path) return MQ_OK;
    char *data;
    size_t bytes;
    mq_status status = mq__file_read(path, KEY_MOST, &data, &bytes, error);
    if (status != MQ_OK) return status;
    if (bytes < KEY_LEAST) {
        status = mq__fail(error, MQ_USAGE, "hand-off: %s: expected a key of at least %d bytes, got %zu", path,
                          KEY_LEAST, bytes);
    } else {
        key->there = true;
        crypto_generichash(key->bytes, sizeof key->bytes, (const unsigned char *)data, bytes, NULL, 0);
    }
    sodium_memzero(data, bytes);
    mq__free(data);
    return status;
}

void mq__auth_key_derive(const mq_auth_key *shared, char direction, const uint8_t *nonce_d, const uint8_t *nonce_p,
                         mq_auth_key *key)
{
    uint8_t text[sizeof auth_domain - 1 + 1 + 2 * MQ_PROTOCOL_NONCE], *at = text;
    *key = (mq_auth_key){.there = shared->there};
    if (!shared->there) return;
    memcpy(at, auth_domain, sizeof auth_domain - 1);
    at += sizeof auth_domain - 1;
    *at++ = (uint8_t)direction;
    memcpy(at, nonce_d, MQ_PROTOCOL_NONCE);
    memcpy(at + MQ_PROTOCOL_NONCE, nonce_p, MQ_PROTOCOL_NONCE);
    crypto_generichash(key->bytes, sizeof key->bytes, text, sizeof text, shared->bytes, sizeof shared->bytes);
}

void mq__auth_forget(mq_auth_key *key)
{
    sodium_memzero(key, sizeof *key);
}

void mq__auth_random(uint8_t *bytes, size_t count)
{
    randombytes_buf(bytes, count);
}

static void keyed_hash(const mq_auth_key *key, const uint8_t *head, const void *body, size_t bytes, uint8_t *hash,
                       size_t hash_bytes)
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, key->bytes, sizeof key->bytes, hash_bytes);
    crypto_generichash_update(&state, head, TAG_AT);
    crypto_generichash_update(&state, head + BEHIND, MQ_LINK_HEAD - BEHIND);
    if (bytes) crypto_generichash_update(&state, body, bytes);
    crypto_generichash_final(&state, hash, hash_bytes);
}

/* KV is long and Poly1305 fast, but a key serves it once: this one comes of the head, whose sequence number no other message under the
 * direction's key has. */
static void keyed_tag_of_kv(const mq_auth_key *key, const uint8_t *head, const void *body, size_t bytes, uint8_t *tag)
{
    uint8_t once[crypto_onetimeauth_KEYBYTES];
    keyed_hash(key, head, NULL, 0, once, sizeof once);
    crypto_onetimeauth(tag, bytes ? body : (const void *)"", bytes, once);
    sodium_memzero(once, sizeof once);
}

static void open_tag(const uint8_t *head, const void *body, size_t bytes, bool is_kv, uint8_t *tag)
{
    uint8_t text[MQ_LINK_HEAD - MQ_PROTOCOL_TAG + sizeof(mq_digest)];
    const size_t parts = MQ_LINK_HEAD - MQ_PROTOCOL_TAG;
    memcpy(text, head, TAG_AT);
    memcpy(text + TAG_AT, head + BEHIND, MQ_LINK_HEAD - BEHIND);
    if (!is_kv) {
        const mq_digest digest = mq__digest(bytes ? body : "", bytes);
        memcpy(text + parts, digest.bytes, sizeof digest.bytes);
    }
    const mq_digest all = mq__digest(text, is_kv ? parts : sizeof text);
    memcpy(tag, all.bytes, MQ_PROTOCOL_TAG);
}

void mq__auth_tag(const mq_auth_key *key, const uint8_t *head, const void *body, size_t bytes, bool is_kv, uint8_t *tag)
{
    if (!key->there)
        open_tag(head, body, bytes, is_kv, tag);
    else if (is_kv)
        keyed_tag_of_kv(key, head, body, bytes, tag);
    else
        keyed_hash(key, head, body, bytes, tag, MQ_PROTOCOL_TAG);
}

bool mq__auth_tag_is(const uint8_t *tag, const uint8_t *expected)
{
    return sodium_memcmp(tag, expected, MQ_PROTOCOL_TAG) == 0;
}
