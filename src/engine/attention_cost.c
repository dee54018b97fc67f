/* What attention costs: each layer has its own heads, and some see a window only. */
#include "engine/engine.h"
#include "mixquant_tools.h"

/* Keys that a token at a position sees. */
static uint64_t keys_seen(const mq_layer *layer, uint64_t position)
{
    return layer->window && position >= layer->window ? layer->window : position + 1;
}

/* The same of count tokens from `first` on. */
static uint64_t all_keys_seen(const mq_layer *layer, uint64_t first, uint64_t count)
{
    const uint64_t end = first + count, window = layer->window;
    const uint64_t growing = !window || end <= window ? count : first < window ? window - first : 0;
    return growing * first + growing * (growing + 1) / 2 + (count - growing) * window;
}

static bool attends(const mq_layer *layer)
{
    return layer->kind.mixer == MQ_MIXER_ATTENTION;
}

uint64_t mq_engine_attention_macs(const mq_engine *e, uint32_t first, uint32_t count)
{
    const mq_model *m = &e->weights->model;
    uint64_t macs = 0;
    for (uint32_t l = 0; l < m->layers; l++) { /* of queries and keys, and of weights and values */
        if (attends(&m->layer[l]))
            macs += all_keys_seen(&m->layer[l], first, count) * 2 * m->heads * m->layer[l].head_dim;
    }
    return macs;
}

uint64_t mq_engine_attention_bytes(const mq_engine *e, uint32_t position)
{
    const mq_model *m = &e->weights->model;
    uint64_t bytes = 0;
    for (uint32_t l = 0; l < m->layers; l++) {
        const mq_layer *w = &m->layer[l];
        if (attends(w)) bytes += keys_seen(w, position) * 2 * w->kv_heads * w->head_dim * sizeof(uint16_t);
    }
    return bytes;
}

bool mq_engine_attends_alike(const mq_engine *e)
{
    const mq_model *m = &e->weights->model;
    for (uint32_t l = 0; l < m->layers; l++) {
        const mq_layer *w = &m->layer[l];
        if (!attends(w) || w->window || w->head_dim != m->layer[0].head_dim || w->kv_heads != m->layer[0].kv_heads)
            return false;
    }
    return true;
}
