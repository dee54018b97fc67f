/* Blocks of BF16 keys and values. The pool owns the memory; holders (sequences) count on a block until they release it, and a
 * block that nobody holds is available again. Address space for all blocks is reserved at the start, memory is used as
 * blocks are touched, and a request beyond the pool is refused before anything is computed.
 *
 * What layers with a window keep of a block is a part of its own, in memory of its own: few of a long sequence's blocks have one, for
 * nobody reads what no window sees any more. */
#ifndef MQ_KV_BLOCKS_H
#define MQ_KV_BLOCKS_H

#include "mixquant.h"

/* A block holds MQ_PAGE_TOKENS tokens of all layers. What a layer has begins at `offset` of the block, or with a window of the block's
 * window part, and is [kv_heads][K|V][MQ_PAGE_TOKENS][head_dim] bf16: the keys of one head are contiguous and its values follow them.
 * Recurrent state is no block's but a sequence's: all layers' one after the other. */
typedef struct mq_kv_layer {
    uint32_t kv_heads, head_dim;
    uint32_t window;               /* positions that a token sees; 0: all before it */
    size_t offset;                 /* in elements */
    size_t state_floats, state_at; /* of its recurrent state, and where it begins */
} mq_kv_layer;

typedef struct mq_kv_layout {
    uint32_t layers;
    mq_kv_layer *layer;     /* [layers], owned */
    size_t block_elements;  /* of layers that see everything */
    size_t window_elements; /* of those with a window; 0: there are none */
    uint32_t window;        /* the widest one; 0: there are none */
    size_t state_floats;    /* of all layers; 0: the model has no recurrent state */
} mq_kv_layout;

/* What a layer keeps of a token; no kv heads: nothing. And what it keeps of all of them. */
typedef struct mq_kv_shape {
    uint32_t kv_heads, head_dim, window;
    size_t state_floats;
} mq_kv_shape;

mq_status mq__kv_layout_new(const mq_kv_shape *shape, uint32_t layers, mq_kv_layout *layout, mq_error *error);
void mq__kv_layout_free(mq_kv_layout *layout);

size_t mq__kv_token_bytes(const mq_kv_layout *layout); /* of all layers */
/* The first block whose window part a row at `position` needs. */
uint32_t mq__kv_window_from(const mq_kv_layout *layout, uint32_t position);
/* Which of two lists of pages a layer's are in: its offsets count from there. */
static inline uint16_t *const *mq__kv_pages(const mq_kv_layout *layout, uint32_t layer, uint16_t *const *pages,
                                            uint16_t *const *window_pages)
{
    return layout->layer[layer].window ? window_pages : pages;
}
/* Offsets in elements inside a block, or its window part. */
size_t mq__kv_key_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);
size_t mq__kv_value_offset(const mq_kv_layout *layout, uint32_t layer, uint32_t kv_head);

/* A block and its provenance. Written only while it has one holder. */
typedef struct mq_kv_block {
    uint16_t *data;                     /* [layout->block_elements] */
    uint16_t *window;                   /* NULL, or its window part: [layout->window_elements] */
    uint32_t holders;                   /* 0: available */
    uint32_t watchers;                  /* of its holders those that need the window part, too */
    bool again;                         /* nobody does: somebody may well begin there again */
    struct mq_kv_block *sooner, *later; /* of those: who was left before, and after it */
    uint64_t plan;                      /* id of the plan whose passes filled it */
    uint64_t precise;                   /* bit t: token t of the block ran in the decode plan; 0 for tokens not there */
    float *state;                       /* NULL, or a snapshot: the recurrent state behind the block's last token */
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

/* Copies the first `tokens` tokens of a block, of the window part where both have one, and where they come from. */
void mq__kv_copy(const mq_kv_pool *pool, mq_kv_block *to, const mq_kv_block *from, uint32_t tokens);

/* Notes of tokens [first, first + count) of the block whether they ran in the decode plan. */
void mq__kv_mark(mq_kv_block *block, uint32_t first, uint32_t count, bool precise);

/* ---- window parts: `count` of them for the blocks of a pool. A part that nobody needs any more stays with its block, for whoever begins or
 * goes back there, until the block is released or another one takes it. */

/* Memory is used as parts are touched. For a layout with windows; without, nothing below may be called but for mq__kv_windows_available. */
mq_status mq__kv_windows_new(mq_kv_pool *pool, uint32_t count, mq_error *error);
/* Parts that can be taken. */
uint32_t mq__kv_windows_available(mq_kv_pool *pool);
/* A part for a block that has none, of undefined content and with one watcher: a free one, or that of the block which loses its own
 * first. False: all are needed. */
bool mq__kv_window_take(mq_kv_pool *pool, mq_kv_block *block);
void mq__kv_window_watch(mq_kv_pool *pool, mq_kv_block *block); /* one watcher more of the part that it has */
/* One fewer. `again`: somebody may well begin there again: such parts are taken last. Of equals goes what was left longest ago. */
void mq__kv_window_leave(mq_kv_pool *pool, mq_kv_block *block, bool again);

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
