/* The prefix cache of a scheduler: the tree in memory over the folder on disk. The engine thread's. */
#ifndef MQ_PREFIX_CACHE_H
#define MQ_PREFIX_CACHE_H

#include "engine/engine.h"
#include "engine/kv_store.h"
#include "kv/prefix_tree.h"

typedef struct mq_prefix_cache {
    mq_engine *engine;
    mq_prefix_tree *tree; /* NULL: no cache in memory, as it was asked for */
    mq_kv_store *store;   /* NULL: none on disk */
    mq_kv_block **path;   /* [blocks of a context] scratch */
    uint64_t hit_tokens, miss_tokens, evicted_tokens, read_tokens, written_tokens;
} mq_prefix_cache;

/* bytes: of blocks in the tree; 0: as many as the pool has. dir: NULL, or the folder of at most disk_bytes. */
mq_status mq__prefix_cache_new(mq_engine *engine, uint64_t bytes, const char *dir, uint64_t disk_bytes,
                               mq_prefix_cache **cache, mq_error *error);
void mq__prefix_cache_free(mq_prefix_cache *cache);

/* Tokens of a prompt that the tree has: full blocks, and at least the last token is not among them. */
uint32_t mq__prefix_cache_find(mq_prefix_cache *cache, uint64_t owner, const mq_plan *plan, const int32_t *tokens,
                               uint32_t count, mq_prefix_miss *miss);
/* An empty sequence begins with them. Returns how many. */
uint32_t mq__prefix_cache_attach(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                                 uint32_t count);
/* The tree holds the full blocks of a sequence. */
void mq__prefix_cache_keep(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, bool background);
/* Blocks given back to the pool: at most `blocks`, or fewer. */
uint32_t mq__prefix_cache_evict(mq_prefix_cache *cache, uint32_t blocks);

/* Appends the next blocks of a prompt from disk, if they are there: the sequence holds whole blocks, and the prompt goes on at least a
 * token after them. */
bool mq__prefix_cache_load(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                           uint32_t count);
/* Offers block `at` of a sequence to the disk, with those before it that it takes to get there from a snapshot; name: of the block before
 * it, becomes its own. What cannot be written is left out. False: later. */
bool mq__prefix_cache_store(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, uint32_t at,
                            mq_kv_name *name);

#endif
