#include "base/arena.h"

#include "base/checked.h"
#include "base/mem.h"

#include <string.h>

#define FIRST_BLOCK  ((size_t)8 << 10)
#define LARGEST_STEP ((size_t)4 << 20)

typedef struct mq_arena_block {
    struct mq_arena_block *older;
    size_t bytes;
} mq_arena_block;

static bool add_block_arena(mq_arena *arena, size_t bytes)
{
    /* Blocks double, so that their number stays small, up to a step that wastes little of the bound. */
    size_t want = arena->blocks ? arena->blocks->bytes * 2 : FIRST_BLOCK;
    if (want > LARGEST_STEP) want = LARGEST_STEP;
    size_t least, total;
    if (!mq__add_size(bytes, sizeof(mq_arena_block) + 16, &least)) return false;
    if (want < least && !mq__mul_size(least, 2, &want)) want = least;
    if (arena->max && (!mq__add_size(arena->used, want, &total) || total > arena->max)) want = least;
    if (!mq__add_size(arena->used, want, &total) || (arena->max && total > arena->max)) {
        arena->over = true;
        return false;
    }
    mq_arena_block *block = mq__alloc(want);
    if (!block) return false;
    block->older = arena->blocks;
    block->bytes = want;
    arena->blocks = block;
    arena->used = total;
    arena->next = (char *)block + mq__round_up(sizeof *block, 16);
    arena->end = (char *)block + want;
    return true;
}

static void *take_arena(mq_arena *arena, size_t bytes, size_t align)
{
    arena->over = false;
    for (int attempt = 0; attempt < 2; attempt++) {
        const size_t skip = arena->next ? (size_t)(-(uintptr_t)arena->next & (align - 1)) : 0;
        const size_t room = arena->next ? (size_t)(arena->end - arena->next) : 0;
        if (arena->next && skip <= room && bytes <= room - skip) {
            char *const start = arena->next + skip;
            arena->next = start + bytes;
            return start;
        }
        if (!add_block_arena(arena, bytes)) return NULL;
    }
    return NULL;
}

void *mq__arena_alloc(mq_arena *arena, size_t bytes)
{
    return take_arena(arena, bytes ? bytes : 1, 16);
}

void *mq__arena_alloc_zero(mq_arena *arena, size_t count, size_t bytes_each)
{
    size_t bytes;
    if (!mq__mul_size(count, bytes_each, &bytes)) return NULL;
    void *const start = mq__arena_alloc(arena, bytes);
    if (start) memset(start, 0, bytes);
    return start;
}

char *mq__arena_text(mq_arena *arena, size_t bytes)
{
    return take_arena(arena, bytes ? bytes : 1, 1);
}

bool mq__arena_extend(mq_arena *arena, const char *end, size_t bytes)
{
    if (!end || end != arena->next || bytes > (size_t)(arena->end - arena->next)) return false;
    arena->next += bytes;
    return true;
}

void mq__arena_free(mq_arena *arena)
{
    while (arena->blocks) {
        mq_arena_block *const older = arena->blocks->older;
        mq__free(arena->blocks);
        arena->blocks = older;
    }
    arena->next = arena->end = NULL;
    arena->used = 0;
}
