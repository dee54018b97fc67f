/* Which prompts a peer has read lately, as far as this process had them read: a guess at what its prefix cache has. */
#ifndef MQ_REMEMBER_H
#define MQ_REMEMBER_H

#include "mixquant.h"

#define MQ_REMEMBERED 4096 /* beginnings of prompts, of a block's length or a multiple */

typedef struct mq_remembered {
    uint64_t slot[MQ_REMEMBERED]; /* a mark lies where its value says; the latest one stays */
} mq_remembered;

/* A mark for each whole block of the first `count` tokens: of all tokens up to its end. marks: [count / 64]. */
void mq__marks(uint64_t owner, const int32_t *tokens, uint32_t count, uint64_t *marks);
void mq__remember(mq_remembered *memory, const uint64_t *marks, uint32_t blocks);
/* The longest beginning that was read, in tokens. */
uint32_t mq__remembers(const mq_remembered *memory, const uint64_t *marks, uint32_t blocks);

#endif
