/* A checkpoint directory: model.safetensors, or shards listed in model.safetensors.index.json.
 *
 * Shard names must be plain file names (no directories); a shard may be a symbolic link to a regular file, as in the
 * cache folders of model hubs. Every tensor is in exactly one shard, the one that the index names. */
#ifndef MQ_CHECKPOINT_H
#define MQ_CHECKPOINT_H

#include "format/safetensors.h"

typedef struct mq_checkpoint mq_checkpoint;

mq_status mq__checkpoint_open(const char *dir, mq_checkpoint **checkpoint, mq_error *error);
void mq__checkpoint_close(mq_checkpoint *checkpoint);

const char *mq__checkpoint_dir(const mq_checkpoint *checkpoint);
size_t mq__checkpoint_shards(const mq_checkpoint *checkpoint);
const mq_safetensors *mq__checkpoint_shard(const mq_checkpoint *checkpoint, size_t shard);
uint64_t mq__checkpoint_bytes(const mq_checkpoint *checkpoint); /* mapped */

const mq_tensor *mq__checkpoint_find(const mq_checkpoint *checkpoint, const char *name); /* NULL: not there */

#endif
