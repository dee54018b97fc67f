/* A region of memory that is freed as a whole: many small objects of one lifetime, with a bound on their sum. */
#ifndef MQ_BASE_ARENA_H
#define MQ_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

/* Owns its blocks. Zero it, set `max`, use it, free it. */
typedef struct mq_arena {
    struct mq_arena_block *blocks; /* newest first */
    char *next, *end;              /* the free rest of the newest block */
    size_t used, max;              /* bytes taken from the heap; 0 as max means no bound */
    bool over;                     /* the last NULL was due to `max`, not to the heap */
} mq_arena;

/* 16-byte aligned, not initialised; NULL when the heap or the bound is spent. */
void *mq__arena_alloc(mq_arena *arena, size_t bytes);
void *mq__arena_alloc_zero(mq_arena *arena, size_t count, size_t bytes_each);

/* Unaligned bytes, for text. */
char *mq__arena_text(mq_arena *arena, size_t bytes);

/* Grows text in place: true when `end` is the end of the newest text and `bytes` more fit behind it, which are then
 * taken. What ended there stays valid, so a string that is appended to again and again is copied only now and then. */
bool mq__arena_extend(mq_arena *arena, const char *end, size_t bytes);

void mq__arena_free(mq_arena *arena); /* releases all blocks; the arena can be used again */

#endif
