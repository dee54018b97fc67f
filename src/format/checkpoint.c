#include "format/checkpoint.h"

#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

#define SHARDS_MAX 4096

struct mq_checkpoint {
    char *dir;
    mq_safetensors *shards;
    char **names; /* [count] file names */
    size_t count;
    const char *prefix; /* of the text model's tensors in place of "model." */
};

/* ---- names: a checkpoint of several models keeps the text model's tensors under a name of its own */

static const char plain[] = "model.";
static const char *const nested[] = {"model.language_model.", "language_model.model."};

static bool has_prefix(const mq_checkpoint *c, const char *prefix)
{
    for (size_t s = 0; s < c->count; s++) {
        for (size_t i = 0; i < c->shards[s].count; i++) {
            if (strncmp(c->shards[s].tensors[i].name, prefix, strlen(prefix)) == 0) return true;
        }
    }
    return false;
}

static void find_prefix(mq_checkpoint *c)
{
    c->prefix = plain;
    for (size_t i = 0; i < sizeof nested / sizeof nested[0] && c->prefix == plain; i++) {
        if (has_prefix(c, nested[i])) c->prefix = nested[i];
    }
}

bool mq__checkpoint_is_nested(const mq_checkpoint *c)
{
    return c->prefix != plain;
}

const char *mq__checkpoint_text_name(const mq_checkpoint *c, const char *stored, char name[MQ_STORED_NAME_BYTES])
{
    static const char head[] = "language_model.lm_head.";
    const size_t length = strlen(c->prefix);
    const char *rest = NULL;
    if (c->prefix == plain) return stored;
    if (strncmp(stored, c->prefix, length) == 0) rest = stored + length;
    if (!rest && strncmp(stored, head, sizeof head - 1) == 0) return stored + strlen("language_model.");
    if (!rest || (size_t)snprintf(name, MQ_STORED_NAME_BYTES, "%s%s", plain, rest) >= MQ_STORED_NAME_BYTES)
        return stored;
    return name;
}

const char *mq__checkpoint_stored_name(const mq_checkpoint *c, const char *name, char stored[MQ_STORED_NAME_BYTES])
{
    const size_t length = sizeof plain - 1;
    if (c->prefix == plain || strncmp(name, plain, length) != 0) return name;
    if ((size_t)snprintf(stored, MQ_STORED_NAME_BYTES, "%s%s", c->prefix, name + length) >= MQ_STORED_NAME_BYTES)
        return name;
    return stored;
}

static bool is_plain_name(const char *name)
{
    const size_t length = strlen(name);
    return length > 0 && length < 256 && name[0] != '.' && !strchr(name, '/') && !strchr(name, '\\');
}

static mq_status open_shard_checkpoint(mq_checkpoint *c, const char *name, mq_error *error)
{
    char *path = mq__path_join(c->dir, name);
    c->names[c->count] = mq__strdup(name);
    if (!path || !c->names[c->count]) {
        mq__free(path);
        mq__free(c->names[c->count]);
        return mq__fail(error, MQ_NO_MEMORY, "checkpoint: %s: expected memory, got none", name);
    }
    const mq_status status = mq__safetensors_open(path, &c->shards[c->count], error);
    mq__free(path);
    if (status == MQ_OK)
        c->count++;
    else
        mq__free(c->names[c->count]);
    return status;
}

static size_t find_shard(const mq_checkpoint *c, const char *name)
{
    size_t i = 0;
    while (i < c->count && strcmp(c->names[i], name) != 0) {
        i++;
    }
    return i;
}

static mq_status allocate_checkpoint(mq_checkpoint *c, size_t shards, mq_error *error)
{
    c->shards = mq__alloc_zero(shards, sizeof *c->shards);
    c->names = mq__alloc_zero(shards, sizeof *c->names);
    if (c->shards && c->names) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "checkpoint: %s: expected memory, got none", c->dir);
}

static mq_status open_indexed(mq_checkpoint *c, const json_t *map, mq_error *error)
{
    const char *tensor;
    json_t *value;
    size_t tensors = 0;
    mq_status status = allocate_checkpoint(c, SHARDS_MAX, error);
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (status != MQ_OK) return status;
        if (!name || !is_plain_name(name)) {
            return mq__fail(error, MQ_FORMAT, "checkpoint: index: tensor %s: expected a plain file name, got %s",
                            tensor, name ? name : "something else");
        }
        size_t shard = find_shard(c, name);
        if (shard == c->count) {
            if (shard == SHARDS_MAX) {
                return mq__fail(error, MQ_LIMIT, "checkpoint: index: expected at most %d shards, got more", SHARDS_MAX);
            }
            status = open_shard_checkpoint(c, name, error);
        }
        if (status == MQ_OK && !mq__safetensors_find(&c->shards[shard], tensor)) {
            status = mq__fail(error, MQ_FORMAT,
                              "checkpoint: index: tensor %s: expected it in %s, got a file without it", tensor, name);
        }
    }
    /* Each indexed tensor is in its shard; equal counts leave no room for a tensor that is in two. */
    for (size_t i = 0; i < c->count; i++) {
        tensors += c->shards[i].count;
    }
    if (status == MQ_OK && tensors != json_object_size(map)) {
        status = mq__fail(error, MQ_FORMAT, "checkpoint: index: expected the %zu tensors of the shards, got %zu",
                          tensors, json_object_size(map));
    }
    return status;
}

mq_status mq__checkpoint_open(const char *dir, mq_checkpoint **out, mq_error *error)
{
    *out = NULL;
    json_t *index = NULL;
    mq_checkpoint *c = mq__alloc_zero(1, sizeof *c);
    char *index_path = mq__path_join(dir, "model.safetensors.index.json");
    if (c) c->dir = mq__strdup(dir);
    mq_status status = MQ_OK;
    if (!c || !index_path || !c->dir) {
        status = mq__fail(error, MQ_NO_MEMORY, "checkpoint: %s: expected memory, got none", dir);
        goto out;
    }
    if (mq__file_exists(index_path)) {
        status = mq__json_file(index_path, (size_t)64 << 20, &index, error);
        const json_t *map = json_object_get(index, "weight_map");
        if (status == MQ_OK && !json_is_object(map)) {
            status = mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected an object weight_map, got none", index_path);
        }
        if (status == MQ_OK) status = open_indexed(c, map, error);
    } else {
        status = allocate_checkpoint(c, 1, error);
        if (status == MQ_OK) status = open_shard_checkpoint(c, "model.safetensors", error);
    }
    if (status == MQ_OK) {
        find_prefix(c);
        *out = c;
        c = NULL;
    }
out:
    json_decref(index);
    mq__free(index_path);
    mq__checkpoint_close(c);
    return status;
}

void mq__checkpoint_close(mq_checkpoint *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->count; i++) {
        mq__safetensors_close(&c->shards[i]);
        mq__free(c->names[i]);
    }
    mq__free(c->shards);
    mq__free(c->names);
    mq__free(c->dir);
    mq__free(c);
}

const char *mq__checkpoint_dir(const mq_checkpoint *c)
{
    return c->dir;
}

size_t mq__checkpoint_shards(const mq_checkpoint *c)
{
    return c->count;
}

const mq_safetensors *mq__checkpoint_shard(const mq_checkpoint *c, size_t shard)
{
    return &c->shards[shard];
}

uint64_t mq__checkpoint_bytes(const mq_checkpoint *c)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < c->count; i++) {
        bytes += c->shards[i].map.bytes;
    }
    return bytes;
}

static const mq_tensor *find_stored(const mq_checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++) {
        const mq_tensor *tensor = mq__safetensors_find(&c->shards[i], name);
        if (tensor) return tensor;
    }
    return NULL;
}

const mq_tensor *mq__checkpoint_find(const mq_checkpoint *c, const char *name)
{
    char stored[MQ_STORED_NAME_BYTES];
    const mq_tensor *tensor = find_stored(c, mq__checkpoint_stored_name(c, name, stored));
    if (tensor || c->prefix == plain || strncmp(name, "lm_head.", 8) != 0) return tensor;
    snprintf(stored, sizeof stored, "language_model.%.200s", name);
    return find_stored(c, stored);
}
