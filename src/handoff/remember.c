#include "handoff/remember.h"

#include "base/little_endian.h"
#include "engine/engine.h"

#include <string.h>

void mq__marks(uint64_t owner, const int32_t *tokens, uint32_t count, uint64_t *marks)
{
    uint8_t text[sizeof(uint64_t) + MQ_PAGE_TOKENS * sizeof *tokens];
    uint64_t mark = owner;
    for (uint32_t i = 0; i < count / MQ_PAGE_TOKENS; i++) {
        memcpy(text, &mark, sizeof mark);
        memcpy(text + sizeof mark, tokens + (size_t)i * MQ_PAGE_TOKENS, MQ_PAGE_TOKENS * sizeof *tokens);
        const mq_digest digest = mq__digest(text, sizeof text);
        marks[i] = mark = mq__get_u64(digest.bytes) | 1; /* 0: an empty slot */
    }
}

void mq__remember(mq_remembered *memory, const uint64_t *marks, uint32_t blocks)
{
    for (uint32_t i = 0; i < blocks; i++) {
        memory->slot[marks[i] / 2 % MQ_REMEMBERED] = marks[i];
    }
}

uint32_t mq__remembers(const mq_remembered *memory, const uint64_t *marks, uint32_t blocks)
{
    uint32_t i = blocks;
    while (i > 0 && memory->slot[marks[i - 1] / 2 % MQ_REMEMBERED] != marks[i - 1]) {
        i--;
    }
    return i * MQ_PAGE_TOKENS;
}
