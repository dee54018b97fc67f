/* Watching passes: who is told, and the keys and values of a sequence as attention reads them. */
#include "base/error.h"
#include "engine/engine.h"
#include "mixquant_tools.h"

void mq_engine_observe(mq_engine *engine, const mq_observer *observer)
{
    engine->observed = observer != NULL;
    engine->observer = observer ? *observer : (mq_observer){0};
}

mq_status mq_sequence_read_kv(const mq_sequence *sequence, uint32_t layer, uint32_t kv_head, uint32_t first,
                              uint32_t count, float *keys, float *values, mq_error *error)
{
    const mq_engine *e = sequence->engine;
    const mq_kv_layout *kv = &e->kv_layout;
    const uint32_t held = sequence->count + sequence->running;
    if (layer >= kv->layers || kv_head >= kv->layer[layer].kv_heads) {
        return mq__fail(error, MQ_USAGE,
                        "sequence: KV: expected a layer below %u and a kv head below %u, got %u and %u", kv->layers,
                        layer < kv->layers ? kv->layer[layer].kv_heads : 0, layer, kv_head);
    }
    if (first > held || count > held - first) {
        return mq__fail(error, MQ_USAGE, "sequence: KV: expected positions below %u, got %u tokens from %u", held,
                        count, first);
    }
    const size_t k_offset = mq__kv_key_offset(kv, layer, kv_head), v_offset = mq__kv_value_offset(kv, layer, kv_head);
    const size_t head_dim = kv->layer[layer].head_dim;
    uint16_t *const *pages = mq__kv_pages(kv, layer, sequence->pages, sequence->window_pages);
    for (size_t i = 0; i < count; i++) {
        const size_t position = first + i, slot = position % MQ_PAGE_TOKENS * head_dim;
        const uint16_t *page = pages[position / MQ_PAGE_TOKENS];
        if (!page) {
            return mq__fail(error, MQ_UNSUPPORTED, "sequence: KV: expected positions that layer %u still sees, got %zu",
                            layer, position);
        }
        const size_t at = i * head_dim;
        if (keys) e->kernels->dense_to_f32(keys + at, page + k_offset + slot, MQ_DENSE_BF16, head_dim);
        if (values) e->kernels->dense_to_f32(values + at, page + v_offset + slot, MQ_DENSE_BF16, head_dim);
    }
    return MQ_OK;
}

const char *mq_stage_name(mq_stage stage)
{
    static const char *const names[MQ_STAGES] = {
#define MQ_STAGE_TEXT(name, text) text,
        MQ_STAGE_LIST(MQ_STAGE_TEXT)
#undef MQ_STAGE_TEXT
    };
    return (unsigned)stage < MQ_STAGES ? names[stage] : "unknown";
}

void mq_engine_profile(const mq_engine *engine, mq_profile *profile)
{
    mq__runtime_profile(engine->runtime, profile);
}
