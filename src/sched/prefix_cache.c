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

/* Where spans of a sequence end: at snapshots, without recurrent state with each block. The last such end of its first blocks. */
static uint32_t last_span_end(const mq_sequence *sequence, uint32_t blocks)
{
    while (sequence->state && blocks > 0 && !sequence->blocks[blocks - 1]->state) {
        blocks--;
    }
    return blocks;
}

/* The file that goes on with block `at` of a prompt: the longest span, where recurrent state makes spans of many blocks. Returns its
 * end; 0: there is none. */
static uint32_t find_span(mq_prefix_cache *cache, const mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                          uint32_t count, mq_kv_name *span)
{
    const uint32_t at = sequence->count / MQ_PAGE_TOKENS, whole = usable(count) / MQ_PAGE_TOKENS;
    const uint32_t last = whole > at && !cache->engine->state_floats ? at + 1 : whole;
    uint32_t found = 0;
    mq_kv_name name;
    if (last <= at || mq__kv_name_root(cache->engine, sequence->plan, owner, &name, NULL) != MQ_OK) return 0;
    for (uint32_t end = 1; end <= last; end++) {
        mq__kv_name_next(&name, tokens + (size_t)(end - 1) * MQ_PAGE_TOKENS);
        if (end <= at) continue;
        const mq_kv_name file = mq__kv_span_name(&name, end - at);
        if (!mq__kv_store_has(cache->store, &file)) continue;
        *span = file;
        found = end;
    }
    return found;
}

bool mq__prefix_cache_load(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, const int32_t *tokens,
                           uint32_t count)
{
    mq_kv_name span;
    if (!cache->store || sequence->count % MQ_PAGE_TOKENS) return false;
    const uint32_t end = find_span(cache, sequence, owner, tokens, count, &span);
    if (end == 0) return false;
    const uint32_t blocks = end - sequence->count / MQ_PAGE_TOKENS, free = mq__kv_available(cache->engine->kv);
    if (free < blocks) (void)mq__prefix_cache_evict(cache, blocks - free);
    if (!mq__kv_store_get(cache->store, sequence, blocks, &span)) return false;
    cache->read_tokens += blocks * MQ_PAGE_TOKENS;
    cache->hit_tokens += blocks * MQ_PAGE_TOKENS;
    cache->miss_tokens -= blocks * MQ_PAGE_TOKENS;
    return true;
}

bool mq__prefix_cache_store(mq_prefix_cache *cache, mq_sequence *sequence, uint64_t owner, uint32_t at,
                            mq_kv_name *name)
{
    if (at == 0 && mq__kv_name_root(cache->engine, sequence->plan, owner, name, NULL) != MQ_OK) return false;
    const uint32_t first = last_span_end(sequence, at), end = at + 1;
    const bool is_end = last_span_end(sequence, end) == end;
    mq_kv_name own = *name;
    mq__kv_name_next(&own, sequence->tokens + (size_t)at * MQ_PAGE_TOKENS);
    const mq_kv_name span = mq__kv_span_name(&own, end - first);
    const bool missing = is_end && !mq__kv_store_has(cache->store, &span);
    const mq_kv_put put = missing ? mq__kv_store_put(cache->store, sequence, first, end, &span) : MQ_KV_NEVER;
    if (put == MQ_KV_LATER) return false;
    if (put == MQ_KV_TAKEN) cache->written_tokens += (end - first) * MQ_PAGE_TOKENS;
    *name = own;
    return true;
}
