#include "engine/kv_room.h"

#include "base/error.h"
#include "base/mem.h"

#define CHUNK_DEFAULT 512
#define CHUNK_EXPERTS 2048 /* each expert gets its share of the rows only */

/* Layers that attend keep keys and values. */
mq_status mq__engine_lay_out_kv(mq_engine *e, mq_error *error)
{
    const mq_model *m = &e->weights->model;
    mq_kv_shape *shape = mq__alloc_zero(m->layers, sizeof *shape);
    if (!shape) return mq__fail(error, MQ_NO_MEMORY, "kv: layout: expected memory, got none");
    for (uint32_t l = 0; l < m->layers; l++) {
        const mq_layer *w = &m->layer[l];
        if (w->kind.mixer == MQ_MIXER_ATTENTION)
            shape[l] = (mq_kv_shape){.kv_heads = w->kv_heads, .head_dim = w->head_dim, .window = w->window};
        else
            shape[l].state_floats = mq__state_layer_floats(&m->delta);
    }
    const mq_status s = mq__kv_layout_new(shape, m->layers, &e->kv_layout, error);
    mq__free(shape);
    return s;
}

static uint64_t block_bytes_of(const mq_engine *e)
{
    return e->kv_layout.block_elements * sizeof(uint16_t);
}

static uint64_t window_bytes_of(const mq_engine *e)
{
    return e->kv_layout.window_elements * sizeof(uint16_t);
}

/* Window parts of a sequence in the middle of a pass: what its first row sees and a draft round before that, and all its rows. */
static uint32_t windows_of_pass(const mq_engine *e)
{
    const uint32_t positions = e->kv_layout.window + MQ_DECODE_ROWS + mq__engine_rows(e) + 2 * (MQ_PAGE_TOKENS - 1);
    return e->kv_layout.window ? positions / MQ_PAGE_TOKENS : 0;
}

/* A sequence's own, and as many for where others will begin. */
static uint64_t windows_to_keep(const mq_engine *e)
{
    return 2 * (uint64_t)windows_of_pass(e);
}

/* Tokens of a sequence whose KV is so many bytes. */
static uint64_t tokens_in(const mq_engine *e, uint64_t bytes)
{
    const uint64_t windows = windows_to_keep(e) * window_bytes_of(e), block = block_bytes_of(e);
    const uint64_t all = bytes / mq__kv_token_bytes(&e->kv_layout);
    if (!windows || bytes <= windows) return all;
    const uint64_t bounded = block ? (bytes - windows) / block * MQ_PAGE_TOKENS : UINT32_MAX;
    return all > bounded ? all : bounded;
}

/* The context: as asked, or as much of the model's own as KV in half of the memory (of the machine or its container) allows. */
mq_status mq__engine_choose_context(mq_engine *e, mq_error *error)
{
    const uint32_t own = e->weights->config.max_positions, asked = e->options.context;
    const uint64_t memory = mq__memory_total() / (e->options.sequences ? e->options.sequences : 1);
    e->chunk = e->options.chunk ? e->options.chunk : e->weights->experts ? CHUNK_EXPERTS : CHUNK_DEFAULT;
    const uint64_t most = tokens_in(e, memory);
    const uint64_t fits = tokens_in(e, e->options.kv_bytes ? e->options.kv_bytes : memory / 2);
    if (asked > own) {
        return mq__fail(error, MQ_USAGE,
                        "engine: context: expected at most %u tokens (max_position_embeddings), got %u", own, asked);
    }
    if (asked > most) {
        return mq__fail(error, MQ_LIMIT, "engine: context: expected KV that fits the memory (%llu tokens), got %u",
                        (unsigned long long)most, asked);
    }
    e->context = asked ? asked : own < fits ? own : (uint32_t)fits;
    if (e->context == 0) e->context = 1;
    if (e->chunk > e->context) e->chunk = e->context;
    e->blocks_per_sequence = mq__blocks_for(e->context);
    const uint32_t windows = windows_of_pass(e);
    e->windows_per_sequence = windows < e->blocks_per_sequence ? windows : e->blocks_per_sequence;
    return MQ_OK;
}

/* Of the bytes half go to window parts. Where all layers have a window blocks take no bytes, and still there is an end to them. */
static mq_kv_room divide_bytes(const mq_engine *e, uint64_t bytes)
{
    enum { BLOCKS_A_WINDOW = 64 };
    const uint64_t most = UINT32_MAX / MQ_PAGE_TOKENS; /* so that tokens count in 32 bits */
    const uint64_t block = block_bytes_of(e), window = window_bytes_of(e), least = e->blocks_per_sequence;
    const uint64_t needed = e->windows_per_sequence, half = window ? bytes / 2 / window : 0;
    uint64_t windows = half > needed ? half : needed, blocks = window ? windows * BLOCKS_A_WINDOW : most;
    const uint64_t left = bytes > windows * window ? bytes - windows * window : 0;
    if (block && left / block < blocks) blocks = left / block;
    if (blocks < least) {
        const uint64_t rest = window && bytes > least * block ? (bytes - least * block) / window : 0;
        blocks = least;
        windows = rest > needed ? rest : needed;
    }
    if (blocks > most) blocks = most;
    return (mq_kv_room){(uint32_t)blocks, (uint32_t)(windows < blocks ? windows : blocks)};
}

mq_kv_room mq__engine_kv_room(const mq_engine *e)
{
    const uint64_t sequences = e->options.sequences ? e->options.sequences : 1, most = UINT32_MAX / MQ_PAGE_TOKENS;
    if (e->options.kv_bytes) return divide_bytes(e, e->options.kv_bytes);
    const uint64_t asked = e->blocks_per_sequence * sequences, blocks = asked < most ? asked : most;
    const uint64_t windows = windows_to_keep(e) * sequences;
    return (mq_kv_room){(uint32_t)blocks, (uint32_t)(windows < blocks ? windows : blocks)};
}

uint64_t mq__engine_block_bytes(const mq_engine *e)
{
    const mq_kv_room room = mq__engine_kv_room(e);
    return block_bytes_of(e) + (window_bytes_of(e) * room.windows + room.blocks - 1) / room.blocks;
}
