#include "sched/prefix_cache.h"

#include "base/error.h"
#include "base/mem.h"

#define BACKGROUND_WEIGHT (1.0 / 16)

mq_status mq__prefix_cache_new(mq_engine *engine, uint64_t bytes, const char *dir, uint64_t disk_bytes,
                               mq_prefix_cache **out, mq_error *error)
{
    const uint64_t most = bytes ? bytes / mq__engine_block_bytes(engine) : UINT32_MAX;
    *out = NULL;
    mq_prefix_cache *cache = mq__alloc_zero(1, sizeof *cache);
    if (!cache) return mq__fail(error, MQ_NO_MEMORY, "prefix cache: expected memory, got none");
    cache->engine = engine;
    cache->path = mq__alloc_zero(engine->blocks_per_sequence, sizeof(mq_kv_block *));
    mq_status status = cache->path ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "prefix cache: expected memory, got none");
    if (status == MQ_OK) {
        status =
            mq__prefix_tree_new(engine->kv, (uint32_t)(most < UINT32_MAX ? most : UINT32_MAX), &cache->tree, error);
    }
    if (status == MQ_OK && dir) status = mq__kv_store_open(engine, dir, disk_bytes, &cache->store, error);
    /* The weights are read for their fingerprint now, not at the first request. */
    mq_kv_name name;
    if (status == MQ_OK && dir) status = mq__kv_name_root(engine, engine->plan, 0, &name, error);
    if (status == MQ_OK)
        *out = cache;
    else
        mq__prefix_cache_free(cache);
    return status;
}

void mq__prefix_cache_free(mq_prefix_cache *cache)
{
    if (!cache) return;
    mq__kv_store_close(cache->store);
    mq__prefix_tree_free(cache->tree);
    mq__free(cache->path);
    mq__free(cache);
}

/* The last token of a prompt is always run: its logits are wanted. */
static uint32_t usable(uint32_t count)
{
    return count - 1;
}

uint32_t mq__prefix_cache_find(mq_prefix_cache *cache, uint64_t owner, const mq_plan *plan, const int32_t *tokens,
                               uint32_t count, mq_prefix_miss *miss)
{
    const mq_prefix_node *node = mq__prefix_find(cache->tree, owner, plan->id, tokens, usable(count), miss);
    mq__prefix_path(node, cache->path);
    return node ? mq__sequence_adoptable(cache->engine, cache->path, node->depth) * MQ_PAGE_TOKENS : 0;
}

uint32_t mq__prefix_cache_attach(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                                 uint32_t count)
{
    mq_prefix_node *node = mq__prefix_find(cache->tree, owner, sequence->plan->id, tokens, usable(count), NULL);
    uint32_t blocks = node ? node->depth : 0;
    if (node) {
        mq__prefix_use(cache->tree, node);
        mq__prefix_path(node, cache->path);
        blocks = mq__sequence_adoptable(cache->engine, cache->path, blocks);
        mq__sequence_adopt(sequence, tokens, cache->path, blocks);
        sequence->landmark = node->depth * MQ_PAGE_TOKENS;
    }
    cache->hit_tokens += (uint64_t)blocks * MQ_PAGE_TOKENS;
    cache->miss_tokens += count - blocks * MQ_PAGE_TOKENS;
    return blocks * MQ_PAGE_TOKENS;
}

void mq__prefix_cache_keep(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, bool background)
{
    mq_prefix_node *last;
    const uint32_t blocks = sequence->count / MQ_PAGE_TOKENS;
    (void)mq__prefix_add(cache->tree, owner, sequence->plan->id, sequence->tokens, sequence->blocks, blocks,
                         background ? BACKGROUND_WEIGHT : 1, &last);
}

uint32_t mq__prefix_cache_evict(mq_prefix_cache *cache, uint32_t blocks)
{
    const uint32_t given = mq__prefix_evict(cache->tree, blocks);
    cache->evicted_tokens += (uint64_t)given * MQ_PAGE_TOKENS;
    return given;
}

bool mq__prefix_cache_load(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                           uint32_t count)
{
    const uint32_t at = sequence->count / MQ_PAGE_TOKENS;
    mq_kv_name name;
    if (!cache->store || sequence->count % MQ_PAGE_TOKENS || usable(count) < (at + 1) * MQ_PAGE_TOKENS) return false;
    if (mq__kv_name_root(cache->engine, sequence->plan, owner, &name, NULL) != MQ_OK) return false;
    for (uint32_t b = 0; b <= at; b++) {
        mq__kv_name_next(&name, tokens + (size_t)b * MQ_PAGE_TOKENS);
    }
    if (!mq__kv_store_has(cache->store, &name)) return false;
    if (!mq__kv_available(cache->engine->kv)) (void)mq__prefix_cache_evict(cache, 1);
    if (!mq__kv_store_get(cache->store, sequence, &name)) return false;
    cache->read_tokens += MQ_PAGE_TOKENS;
    cache->hit_tokens += MQ_PAGE_TOKENS;
    cache->miss_tokens -= MQ_PAGE_TOKENS;
    return true;
}

bool mq__prefix_cache_store(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, uint32_t at,
                            mq_kv_name *name)
{
    if (at == 0 && mq__kv_name_root(cache->engine, sequence->plan, owner, name, NULL) != MQ_OK) return true;
    mq_kv_name own = *name;
    mq__kv_name_next(&own, sequence->tokens + (size_t)at * MQ_PAGE_TOKENS);
    const bool there = mq__kv_store_has(cache->store, &own);
    if (!there && !mq__kv_store_put(cache->store, sequence, at, &own)) return false;
    if (!there) cache->written_tokens += MQ_PAGE_TOKENS;
    *name = own;
    return true;
}
