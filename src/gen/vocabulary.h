/* The vocabulary in the order of its tokens' bytes: tokens that begin alike stand together, and are decided together. */
#ifndef MQ_VOCABULARY_H
#define MQ_VOCABULARY_H

#include "mixquant_serve.h"

enum { MQ_TOKEN_BYTES = 255 }; /* longer tokens are never allowed where a mask rules */

typedef struct mq_token_bytes {
    uint32_t offset; /* in `bytes` */
    uint8_t count;
    uint8_t shared; /* bytes at the beginning that it has in common with the one before it in `order` */
} mq_token_bytes;

struct mq_vocabulary {
    uint32_t vocab;
    uint8_t *bytes;
    mq_token_bytes *token; /* [vocab]; count 0: never allowed */
    int32_t *order;        /* [ordered] tokens that have bytes, sorted by them */
    size_t ordered;
    int32_t *eos;
    size_t eos_count;
};

/* The longest token that bytes[0, count) begin with; -1: none does. *others: how many shorter ones there are, or longer ones that the bytes
 * may go on as. */
int32_t mq__vocabulary_longest(const mq_vocabulary *v, const uint8_t *bytes, size_t count, size_t *others);

#endif
