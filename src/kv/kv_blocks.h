/* Blocks of BF16 keys and values. The pool owns the memory; holders (sequences) count on a block until they release it, and a
 * block that nobody holds is available again. Address space for all blocks is reserved at the start, memory is used as
 * blocks are touched, and a request beyond the pool is refused before anything is computed. */
#ifndef MQ_KV_BLOCKS_H
#define MQ_KV_BLOCKS_H

#include "mixquant.h"

/* A block holds MQ_PAGE_TOKENS tokens of all layers. A layer's part begins at `offset` and is
 * [kv_heads][K|V][MQ_PAGE_TOKENS][head_dim] bf16: the keys of one head are contiguous and its values follow them. Recurrent state
 * is no block's but a sequence's: all layers' one after the other. */
typedef struct mq_kv_layer {
    uint32_t kv_heads, head_dim;
    size_t offset;                 /* in elements, from the beginning of the block */
    size_t state_floats, state_at; /* of its recurrent state, and where it begins */
} mq_kv_layer;

typedef struct mq_kv_layout {
    uint32_t layers;
    mq_kv_layer *layer;    /* [layers], owned */
    size_t block_elements; /* of all layers */
    size_t state_floats;   /* of all layers; 0: the model has no recurrent state */
} mq_kv_layout;

/* What a layer keeps of a token; no kv heads: nothing. And what it keeps of all of them. */
typedef struct mq_kv_shape {
    uint32_t kv_heads, head_dim;
    size_t state_floats;
} mq_kv_shape;

mq_status mq__kv_layout_new(const mq_kv_shape *shape, uint32_t layers, mq_kv_layout *layout, mq_error *error);
void mq__kv_layout_free(mq_kv_layout *layout);

size_t mq__kv_token_bytes(const mq_kv_layout *layout);
/* Offsets in elements inside a block. */
size_t mq__kv_key_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);
size_t mq__kv_value_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);

/* A block and its provenance. Written only while it has one holder. */
typedef struct mq_kv_block {
    uint16_t *data;   /* [layout->block_elements] */
    uint32_t holders; /* 0: available */
    uint64_t plan;    /* id of the plan whose passes filled it */
    uint64_t precise; /* bit t: token t of the block ran in the decode plan; 0 for tokens not there */
    float *state;     /* NULL, or a snapshot: the recurrent state behind the block's last token */
} mq_kv_block;

typedef struct mq_kv_pool mq_kv_pool;

/* The layout is borrowed until the pool is freed. */
mq_status mq__kv_pool_new(const mq_kv_layout *layout, uint32_t blocks, mq_kv_pool **pool, mq_error *error);
void mq__kv_pool_free(mq_kv_pool *pool);

uint32_t mq__kv_available(const mq_kv_pool *pool);
/* A block with one holder and undefined content, for tokens of plan `plan`; NULL when all are held. */
mq_kv_block *mq__kv_take(mq_kv_pool *pool, uint64_t plan);
void mq__kv_hold(mq_kv_block *block); /* one holder more */
void mq__kv_release(mq_kv_pool *pool, mq_kv_block *block);

/* Copies the first `tokens` tokens of a block, and where they come from. */
void mq__kv_copy(const mq_kv_pool *pool, mq_kv_block *to, const mq_kv_block *from, uint32_t tokens);

/* Notes of tokens [first, first + count) of the block whether they ran in the decode plan. */
void mq__kv_mark(mq_kv_block *block, uint32_t first, uint32_t count, bool precise);

/* ---- snapshots of recurrent state: `count` places of `floats` for the blocks of a pool. A block gives its snapshot back when nobody
 * holds it any more, and loses it to another one when no place is free: the one that was used longest ago goes. */

/* Memory is used as places are written to. */
mq_status mq__kv_states_new(mq_kv_pool *pool, size_t floats, uint32_t count, mq_error *error);
/* A place for the block, with undefined content, kept until mq__kv_states_settle; NULL: all are being written to. */
float *mq__kv_state_take(mq_kv_pool *pool, mq_kv_block *block);
/* The same for one between the regular ones: together they have a quarter of the places at most, so that however many there are the
 * regular ones stay. */
float *mq__kv_state_take_between(mq_kv_pool *pool, mq_kv_block *block);
void mq__kv_state_give(mq_kv_pool *pool, mq_kv_block *block);
void mq__kv_state_use(mq_kv_pool *pool, const mq_kv_block *block);
/* What was taken has been written. */
void mq__kv_states_settle(mq_kv_pool *pool);
uint32_t mq__kv_states_held(mq_kv_pool *pool); /* snapshots that are there */

#endif
