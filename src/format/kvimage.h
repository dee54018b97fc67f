/* A KV image: keys and values of a range of a sequence's positions, and the recurrent state behind them, with all that says whether
 * they may be used. One layout for disk and wire, little-endian:
 *
 *     header   0   "MQKVIMG2"                 the version is part of the magic
 *              8   u32     bytes of the header
 *             12   u32     zero
 *             16   u8[16]  XXH3-128 of the header from offset 32 on
 *             32   u8[16] each: fingerprints of the weights, the plan, the tokenizer, the rotary frequencies, the KV layout
 *            112   u32     layers
 *            116   u32     first   the range is positions first .. first + count - 1
 *            120   u32     count   1 or more
 *            124   u32     bare    of the range's first so many positions there are no chunks of layers with a window. 0, or up to the end or
 *                                  the beginning of a block; then the range begins with a block, too
 *            128   i32[first + count]          token ids from position 0 on: KV depends on all of them
 *                  u8[ceil(count / 8)]         provenance: bit t of the range is set where the decode plan computed it
 *
 *     chunks   one for each layer that keeps KV and each block of 64 positions (the first and last block may be cut), but for those that
 *              `bare` says; and one for each layer that keeps a state; in any order
 *              0   "MQKC"
 *              4   u32     layer
 *              8   u32     first   position of its first token; the chunk ends with the block or the range. Of a state: the range's end
 *             12   u32     count   1 to 64; 0: the layer's recurrent state behind the range's last token
 *             16   u64     bytes of the payload
 *             24   u64     zero
 *             32   u8[16]  XXH3-128 of bytes 0 to 31 and the XXH3-128 of the payload, one after the other
 *             48   payload [kv_heads][K|V][count][head_dim] bf16; a state is fp32, as model/model.h lays it out
 *
 * Nothing follows the last chunk. Here are bytes only; src/engine/kv_image.c moves them from and to sequences. */
#ifndef MQ_KVIMAGE_H
#define MQ_KVIMAGE_H

#include "base/buf.h"
#include "format/packfile.h"

#define MQ_KVIMAGE_PREFIX 32 /* bytes of the header that say how long it is */
#define MQ_KVIMAGE_FIXED  128
#define MQ_KVCHUNK_HEAD   48

typedef struct mq_kvimage {
    mq_digest weights, plan, tokenizer, rope, layout;
    uint32_t layers, first, count, bare;
    const uint8_t *tokens;  /* i32[first + count], unaligned: mq__kvimage_token */
    const uint8_t *precise; /* bits of the range */
} mq_kvimage;

/* Appends the header to `out`. */
mq_status mq__kvimage_write(const mq_kvimage *image, const int32_t *tokens, const uint8_t *precise, mq_buf *out,
                            mq_error *error);

/* How long a header is, from its first MQ_KVIMAGE_PREFIX bytes; refused beyond max_tokens tokens. */
mq_status mq__kvimage_head_bytes(const uint8_t *prefix, uint32_t max_tokens, size_t *bytes, mq_error *error);
/* Checks a whole header; the image points into it. */
mq_status mq__kvimage_read(const uint8_t *header, size_t bytes, mq_kvimage *image, mq_error *error);
int32_t mq__kvimage_token(const mq_kvimage *image, uint32_t position);
bool mq__kvimage_is_precise(const mq_kvimage *image, uint32_t position);

typedef struct mq_kvchunk {
    uint32_t layer, first, count; /* count 0: of a state */
    uint64_t bytes;               /* of the payload */
} mq_kvchunk;

/* Fills the head of a chunk with that payload. */
void mq__kvchunk_write(const mq_kvchunk *chunk, const void *payload, uint8_t *head);
/* The head alone: the chunk must be one of the image, with a payload of at most max_bytes. */
mq_status mq__kvchunk_read(const uint8_t *head, const mq_kvimage *image, uint64_t max_bytes, mq_kvchunk *chunk,
                           mq_error *error);
/* Whether head and payload are the ones that were written. */
bool mq__kvchunk_is_intact(const uint8_t *head, const void *payload, const mq_kvchunk *chunk);

#endif
