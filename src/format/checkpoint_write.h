/* Writing a checkpoint directory that either appears whole or not at all.
 *
 * Everything goes into a temporary directory beside the target; finish renames it into place. The target must not exist, or
 * be an empty directory. Tensors go to model.safetensors, or, above the shard size, to
 * model-00001-of-0000N.safetensors with model.safetensors.index.json. */
#ifndef MQ_CHECKPOINT_WRITE_H
#define MQ_CHECKPOINT_WRITE_H

#include "base/temporary.h"
#include "format/safetensors.h"

#include <jansson.h>

#define MQ_SHARD_BYTES ((uint64_t)5000000000) /* the hub's own default */

typedef struct mq_checkpoint_writer {
    char *dir;
    mq_temporary temporary;
    const mq_tensor_spec *specs; /* [count], borrowed from declare to finish */
    size_t count, next;          /* next: the tensor whose bytes are expected */
    uint64_t left;               /* bytes that tensor still lacks */
    uint32_t *shard_of;          /* [count] */
    uint32_t shards;
    mq_safetensors_writer shard; /* the open one */
    bool shard_is_open;
} mq_checkpoint_writer;

/* Makes the temporary directory (and the parents of dir). */
mq_status mq__checkpoint_create(const char *dir, mq_checkpoint_writer *writer, mq_error *error);

/* The tensors to come, in the order of their bytes; shard_bytes 0: MQ_SHARD_BYTES. Writes the index when there is one. */
mq_status mq__checkpoint_declare(mq_checkpoint_writer *writer, const mq_tensor_spec *specs, size_t count,
                                 uint64_t shard_bytes, mq_error *error);
/* The next bytes of the current tensor: a call may end inside a tensor, but not go past its end. */
mq_status mq__checkpoint_put(mq_checkpoint_writer *writer, const void *bytes, size_t count, mq_error *error);

/* Any other file of the directory; name is a plain file name. */
mq_status mq__checkpoint_put_file(mq_checkpoint_writer *writer, const char *name, const void *bytes, size_t count,
                                  mq_error *error);
mq_status mq__checkpoint_put_json(mq_checkpoint_writer *writer, const char *name, const json_t *value, mq_error *error);

/* Renames the directory into place, or fails and leaves nothing; the writer is done in both cases. */
mq_status mq__checkpoint_finish(mq_checkpoint_writer *writer, mq_error *error);
void mq__checkpoint_discard(mq_checkpoint_writer *writer); /* no-op after finish or on a zeroed writer */

/* Bytes of a declared tensor; 0 when they overflow. */
uint64_t mq__tensor_spec_bytes(const mq_tensor_spec *spec);

#endif
