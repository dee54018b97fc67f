/* Sequences to KV images and back (mq_sequence_export, mq_sequence_import), and the chunks that they are made of: one layer of one block,
 * or the recurrent state of one layer, whose chunk has a count of 0. */
#ifndef MQ_KV_IMAGE_H
#define MQ_KV_IMAGE_H

#include "format/kvimage.h"
#include "kv/kv_blocks.h"

size_t mq__kv_chunk_bytes(const mq_kv_layout *layout, uint32_t layer, uint32_t count); /* of a payload */
size_t mq__kv_chunk_most(const mq_kv_layout *layout);                                  /* of the largest one */

/* The chunk of a layer that begins at `first`, in a range that ends at `end`; and the one of its state there. */
mq_kvchunk mq__kv_chunk_at(const mq_kv_layout *layout, uint32_t layer, uint32_t first, uint32_t end);
mq_kvchunk mq__kv_chunk_of_state(const mq_kv_layout *layout, uint32_t layer, uint32_t end);

/* Whether the image has a chunk of the layer there; at the end of its range that is one of a state. */
bool mq__kv_chunk_exists(const mq_kv_layout *layout, const mq_kvimage *image, uint32_t layer, uint32_t position);
/* How many it has of the block at a position, and in all. */
uint32_t mq__kv_block_chunks(const mq_kv_layout *layout, const mq_kvimage *image, uint32_t position);
uint64_t mq__kv_chunks(const mq_kv_layout *layout, const mq_kvimage *image);

/* Of the range [first, end) those positions at its beginning of which an image has no chunks of layers with a window, where all parts are
 * there that a row behind the range sees, or behind its last whole block: nobody else needs them. */
uint32_t mq__kv_bare(const mq_kv_layout *layout, uint32_t first, uint32_t end);
/* Bytes of the payloads of such an image. */
uint64_t mq__kv_range_bytes(const mq_kv_layout *layout, uint32_t first, uint32_t end);

/* Between a block's data, or of layers with a window its window part, and a payload, which has no gaps. The payload of a whole block's
 * chunk lies there as it is, at layer->offset; that of a state in the state, at layer->state_at. */
void mq__kv_chunk_gather(const mq_kv_layout *layout, const mq_kvchunk *chunk, const uint16_t *block, uint8_t *payload);
void mq__kv_chunk_scatter(const mq_kv_layout *layout, const mq_kvchunk *chunk, const uint8_t *payload, uint16_t *block);

#endif
