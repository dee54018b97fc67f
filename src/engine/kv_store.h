/* KV blocks on disk: a folder of KV images that outlives the process, one for each span: a full block, or with recurrent state the
 * blocks from a snapshot to the next. A file's name is a digest of what its span depends on: the engine's fingerprint, the
 * owner, all tokens up to its end, and its length. So there is no index that could disagree with the files, and processes may
 * share a folder. A file appears complete or not at all; a damaged one is removed. Files are written by a thread of the
 * store's own; all else is the engine thread's. */
#ifndef MQ_KV_STORE_H
#define MQ_KV_STORE_H

#include "engine/engine.h"

typedef struct mq_kv_store mq_kv_store;

/* Makes the folder. Keeps at most about `bytes` in it: the files that were not used for longest go. */
mq_status mq__kv_store_open(mq_engine *engine, const char *dir, uint64_t bytes, mq_kv_store **store, mq_error *error);
void mq__kv_store_close(mq_kv_store *store); /* writes what waits */

/* Names along a prompt: start at the root, then a step for each block's tokens. */
typedef struct mq_kv_name {
    mq_digest digest;
} mq_kv_name;
mq_status mq__kv_name_root(mq_engine *engine, const mq_plan *plan, uint64_t owner, mq_kv_name *name, mq_error *error);
void mq__kv_name_next(mq_kv_name *name, const int32_t *tokens);

/* The last `blocks` blocks before the name's end. */
mq_kv_name mq__kv_span_name(const mq_kv_name *end, uint32_t blocks);

/* TAKEN: it is there, or will be. LATER: too much waits. NEVER: memory for it is missing, or it cannot be exported. */
typedef enum mq_kv_put { MQ_KV_TAKEN, MQ_KV_LATER, MQ_KV_NEVER } mq_kv_put;
/* Has blocks [first, end) of the sequence written, whose span's name is given. */
mq_kv_put mq__kv_store_put(mq_kv_store *store, mq_sequence *sequence, uint32_t first, uint32_t end,
                           const mq_kv_name *name);
/* Appends a span of so many blocks to a sequence that holds exactly the tokens before it. False: not there, damaged, or too few blocks are
 * free. */
bool mq__kv_store_get(mq_kv_store *store, mq_sequence *sequence, uint32_t blocks, const mq_kv_name *name);
bool mq__kv_store_has(mq_kv_store *store, const mq_kv_name *name);

#endif
