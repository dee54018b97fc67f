/* Tags of messages, and the key that two workers share. */
#ifndef MQ_AUTH_H
#define MQ_AUTH_H

#include "handoff/protocol.h"

#define MQ_AUTH_KEY 32

typedef struct mq_auth_key {
    bool there; /* false: tags find damage only */
    uint8_t bytes[MQ_AUTH_KEY];
} mq_auth_key;

/* path NULL: there is no key. */
mq_status mq__auth_key_read(const char *path, mq_auth_key *key, mq_error *error);
/* The key of a direction, 'D' or 'P', of one connection. */
void mq__auth_key_derive(const mq_auth_key *shared, char direction, const uint8_t *nonce_d, const uint8_t *nonce_p,
                         mq_auth_key *key);
void mq__auth_forget(mq_auth_key *key);
void mq__auth_random(uint8_t *bytes, size_t count);

/* Of a head (its own place for the tag is left out) and the body, as protocol.h has it. */
void mq__auth_tag(const mq_auth_key *key, const uint8_t *head, const void *body, size_t bytes, bool is_kv,
                  uint8_t *tag);
/* In constant time. */
bool mq__auth_tag_is(const uint8_t *tag, const uint8_t *expected);

#endif
