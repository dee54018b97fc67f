/* A checkpoint directory: model.safetensors, or shards listed in model.safetensors.index.json.
 *
 * Shard names must be plain file names (no directories); a shard may be a symbolic link to a regular file, as in the
 * cache folders of model hubs. Every tensor is in exactly one shard, the one that the index names.
 *
 * A checkpoint with more than a text model in it (vision, audio) has that one's tensors under "model.language_model." instead of
 * "model.". They are found by their plain names all the same. */
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

#define MQ_STORED_NAME_BYTES 256

/* Whether the text model is one of several. */
bool mq__checkpoint_is_nested(const mq_checkpoint *checkpoint);
/* The plain name of a tensor of the text model that is stored as `stored`, in `name` where it differs; others as they are. */
const char *mq__checkpoint_text_name(const mq_checkpoint *checkpoint, const char *stored,
                                     char name[MQ_STORED_NAME_BYTES]);
/* The other way: what a plain name is stored as. */
const char *mq__checkpoint_stored_name(const mq_checkpoint *checkpoint, const char *name,
                                       char stored[MQ_STORED_NAME_BYTES]);

#endif
