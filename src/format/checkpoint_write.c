#include "format/checkpoint_write.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>

uint64_t mq__tensor_spec_bytes(const mq_tensor_spec *spec)
{
    uint64_t bytes;
    return mq__dtype_shape_bytes(spec->dtype, spec->rank, spec->shape, &bytes) ? bytes : 0;
}

static mq_status no_memory_checkpoint_write(const mq_checkpoint_writer *w, mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "write: %s: expected memory, got none", w->dir ? w->dir : "checkpoint");
}

/* True when path is free to become a directory: it does not exist, or is an empty one. */
static bool is_vacant(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) return errno == ENOENT;
    bool empty = true;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        empty = empty && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0);
    }
    closedir(dir);
    return empty;
}

/* The directory that will hold dir, made when missing. */
static mq_status make_parent(const char *dir, mq_error *error)
{
    const char *slash = strrchr(dir, '/');
    if (!slash || slash == dir) return MQ_OK;
    char *parent = mq__strndup(dir, (size_t)(slash - dir));
    if (!parent) return mq__fail(error, MQ_NO_MEMORY, "write: %s: expected memory, got none", dir);
    const mq_status status = mq__make_dirs(parent, error);
    mq__free(parent);
    return status;
}

mq_status mq__checkpoint_create(const char *dir, mq_checkpoint_writer *w, mq_error *error)
{
    size_t length = strlen(dir);
    *w = (mq_checkpoint_writer){0};
    while (length > 1 && dir[length - 1] == '/') {
        length--;
    }
    if (length == 0 || (length == 1 && dir[0] == '/')) {
        return mq__fail(error, MQ_USAGE, "write: %s: expected the name of a new directory, got none", dir);
    }
    w->dir = mq__strndup(dir, length);
    mq_status status = MQ_OK;
    if (!w->dir) {
        status = no_memory_checkpoint_write(w, error);
    } else if (!is_vacant(w->dir)) {
        status = mq__fail(error, MQ_USAGE, "write: %s: expected a new or empty directory, got one in use", w->dir);
    }
    if (status == MQ_OK) status = make_parent(w->dir, error);
    if (status == MQ_OK) status = mq__temporary_new(w->dir, true, &w->temporary, error);
    if (status != MQ_OK) mq__checkpoint_discard(w);
    return status;
}

static void shard_name(const mq_checkpoint_writer *w, uint32_t shard, char name[64])
{
    if (w->shards == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05u-of-%05u.safetensors", shard + 1, w->shards);
}

static mq_status write_index(mq_checkpoint_writer *w, uint64_t total, mq_error *error)
{
    char name[64];
    json_t *map = json_object();
    for (size_t i = 0; i < w->count; i++) {
        shard_name(w, w->shard_of[i], name);
        if (json_object_set_new(map, w->specs[i].name, json_string(name)) != 0) {
            json_decref(map);
            return no_memory_checkpoint_write(w, error);
        }
    }
    json_t *index = json_pack("{s{sI}so}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    if (!index) return no_memory_checkpoint_write(w, error);
    const mq_status status = mq__checkpoint_put_json(w, "model.safetensors.index.json", index, error);
    json_decref(index);
    return status;
}

static mq_status open_shard_checkpoint_write(mq_checkpoint_writer *w, uint32_t shard, mq_error *error)
{
    char name[64];
    size_t end = w->next;
    while (end < w->count && w->shard_of[end] == shard) {
        end++;
    }
    shard_name(w, shard, name);
    char *path = mq__path_join(w->temporary.path, name);
    if (!path) return no_memory_checkpoint_write(w, error);
    const mq_status status = mq__safetensors_begin(path, w->specs + w->next, end - w->next, &w->shard, error);
    w->shard_is_open = status == MQ_OK;
    mq__free(path);
    return status;
}

static mq_status close_shard(mq_checkpoint_writer *w, mq_error *error)
{
    if (!w->shard_is_open) return MQ_OK;
    w->shard_is_open = false;
    return mq__safetensors_commit(&w->shard, error);
}

/* Goes to the first tensor from `next` on that has bytes to come, opening and closing shards on the way. */
static mq_status settle_checkpoint_write(mq_checkpoint_writer *w, mq_error *error)
{
    mq_status status = MQ_OK;
    while (status == MQ_OK && w->next < w->count) {
        const uint32_t shard = w->shard_of[w->next];
        if (w->next == 0 || shard != w->shard_of[w->next - 1]) {
            status = close_shard(w, error);
            if (status == MQ_OK) status = open_shard_checkpoint_write(w, shard, error);
        }
        w->left = mq__tensor_spec_bytes(&w->specs[w->next]);
        if (w->left) return status;
        w->next++;
    }
    return status;
}

mq_status mq__checkpoint_declare(mq_checkpoint_writer *w, const mq_tensor_spec *specs, size_t count,
                                 uint64_t shard_bytes, mq_error *error)
{
    uint64_t total = 0, in_shard = 0;
    if (shard_bytes == 0) shard_bytes = MQ_SHARD_BYTES;
    w->specs = specs;
    w->count = count;
    w->shard_of = mq__alloc_zero(count, sizeof *w->shard_of);
    if (!w->shard_of) return no_memory_checkpoint_write(w, error);
    w->shards = 1;
    for (size_t i = 0; i < count; i++) {
        const uint64_t bytes = mq__tensor_spec_bytes(&specs[i]);
        if (in_shard > 0 && bytes > 0 && (bytes > shard_bytes || in_shard > shard_bytes - bytes)) {
            w->shards++;
            in_shard = 0;
        }
        w->shard_of[i] = w->shards - 1;
        in_shard += bytes;
        total += bytes;
    }
    mq_status status = w->shards > 1 ? write_index(w, total, error) : MQ_OK;
    if (status == MQ_OK) status = settle_checkpoint_write(w, error);
    return status;
}

mq_status mq__checkpoint_put(mq_checkpoint_writer *w, const void *bytes, size_t count, mq_error *error)
{
    if (count == 0) return MQ_OK;
    if (w->next == w->count || count > w->left) {
        return mq__fail(error, MQ_USAGE, "write: %s: expected at most %llu bytes of tensor %zu, got %zu", w->dir,
                        (unsigned long long)w->left, w->next, count);
    }
    mq_status status = mq__safetensors_put(&w->shard, bytes, count, error);
    if (status != MQ_OK) return status;
    w->left -= count;
    if (w->left == 0) {
        w->next++;
        status = settle_checkpoint_write(w, error);
    }
    return status;
}

mq_status mq__checkpoint_put_file(mq_checkpoint_writer *w, const char *name, const void *bytes, size_t count,
                                  mq_error *error)
{
    mq_writer file;
    char *path = mq__path_join(w->temporary.path, name);
    if (!path) return no_memory_checkpoint_write(w, error);
    mq_status status = mq__writer_open(&file, path, error);
    if (status == MQ_OK) {
        status = mq__writer_put(&file, bytes, count, error);
        if (status == MQ_OK)
            status = mq__writer_commit(&file, error);
        else
            mq__writer_abort(&file);
    }
    mq__free(path);
    return status;
}

/* JSON text of a value; free with mq__buf_free. Fifteen digits print 1e-6 as people write it; where they do not give the
 * same numbers back, seventeen do. */
static bool print_json_checkpoint_write(const json_t *value, mq_buf *text)
{
    for (size_t digits = 15; digits <= 17; digits += 2) {
        json_t *again = NULL;
        mq__buf_clear(text);
        if (!mq__json_print(value, JSON_INDENT(2) | JSON_REAL_PRECISION(digits), text)) return false;
        const mq_status status = mq__json_read(text->data, text->len, 0, MQ_JSON_ROUND_NUMBERS, "write", &again, NULL);
        const bool same = json_equal(value, again) != 0;
        json_decref(again);
        if (status == MQ_NO_MEMORY) return false;
        if (same) break;
    }
    return mq__buf_putc(text, '\n');
}

mq_status mq__checkpoint_put_json(mq_checkpoint_writer *w, const char *name, const json_t *value, mq_error *error)
{
    mq_buf text = {0};
    const mq_status status = print_json_checkpoint_write(value, &text)
                                 ? mq__checkpoint_put_file(w, name, text.data, text.len, error)
                                 : no_memory_checkpoint_write(w, error);
    mq__buf_free(&text);
    return status;
}

mq_status mq__checkpoint_finish(mq_checkpoint_writer *w, mq_error *error)
{
    mq_status status = MQ_OK;
    if (w->next != w->count) {
        status = mq__fail(error, MQ_USAGE, "write: %s: expected %zu tensors, got %zu", w->dir, w->count, w->next);
    }
    if (status == MQ_OK) status = close_shard(w, error);
    if (status == MQ_OK) {
        /* An empty target is replaced; one that was filled meanwhile is not. */
        status = mq__temporary_rename(&w->temporary, w->dir, error);
    }
    mq__checkpoint_discard(w);
    return status;
}

void mq__checkpoint_discard(mq_checkpoint_writer *w)
{
    if (w->shard_is_open) mq__safetensors_abort(&w->shard);
    mq__temporary_remove(&w->temporary);
    mq__free(w->shard_of);
    mq__free(w->dir);
    *w = (mq_checkpoint_writer){0};
}
