/* The cache of packed weights: one file for each face of a model.
 *
 * A file has one section per linear layer (its panels) and a last one with the tensor scales. Its name follows from where
 * the model is and how it is packed, its fingerprint from what the checkpoint files are: a changed model overwrites its
 * old file, and a damaged file is made anew. */
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/weights.h"

#include <stdlib.h>
#include <string.h>

/* Of the panels: changes with the packing functions or the quantisers. */
static const char *const layouts[MQ_FACES] = {"", "cell288.2", "int8.cell2304.1", "fp8.f32.1"};

static const char *recipe_of(mq_face face, mq_scale_rule rule)
{
    return face == MQ_FACE_INT8 ? "int8" : face == MQ_FACE_FP8 ? "fp8" : mq_scale_rule_name(rule);
}

static void add_files(mq_buf *text, const mq_checkpoint *c)
{
    for (size_t i = 0; c && i < mq__checkpoint_shards(c); i++) {
        const mq_safetensors *shard = mq__checkpoint_shard(c, i);
        const mq_digest header = mq__digest(shard->map.data, 8 + shard->header_bytes);
        mq__buf_append(text, header.bytes, sizeof header.bytes);
        mq__buf_printf(text, "%zu %lld %llu\n", shard->map.bytes, (long long)shard->map.mtime_ns,
                       (unsigned long long)shard->map.inode);
    }
}

/* What the packed weights were made from: the recipe and the identity of every file. */
static mq_digest fingerprint_of(const mq_weights *w, mq_face face, mq_scale_rule rule)
{
    mq_buf text = {0};
    mq__buf_printf(&text, "%s %s\n", layouts[face], recipe_of(face, rule));
    add_files(&text, w->dense);
    mq__buf_puts(&text, "second\n");
    add_files(&text, w->second);
    /* Without memory for the text the fingerprint is that of nothing: no file has it. */
    const mq_digest digest = mq__digest(text.data, text.failed ? 0 : text.len);
    mq__buf_free(&text);
    return digest;
}

static char *cache_path(const mq_weights *w, mq_face face, const mq_packing *how)
{
    mq_buf text = {0};
    char *first = realpath(mq__checkpoint_dir(w->dense), NULL);
    char *second = w->second ? realpath(mq__checkpoint_dir(w->second), NULL) : NULL;
    mq__buf_printf(&text, "%s\n%s\n%s", first ? first : "", second ? second : "", recipe_of(face, how->rule));
    const mq_digest digest = mq__digest(text.data, text.failed ? 0 : text.len);
    free(first);
    free(second);
    mq__buf_clear(&text);
    mq__buf_printf(&text, "%s/packed/", how->cache_dir);
    for (size_t i = 0; i < sizeof digest.bytes; i++) {
        mq__buf_printf(&text, "%02x", digest.bytes[i]);
    }
    mq__buf_puts(&text, ".mqpack");
    return mq__buf_take(&text);
}

typedef struct verification {
    const mq_packfile *file;
    bool damaged[MQ_THREADS_MAX]; /* per thread */
} verification;

static void verify(void *context, int thread, int threads)
{
    verification *v = context;
    for (size_t s = (size_t)thread; s < v->file->sections; s += (size_t)threads) {
        if (!mq__packfile_section_is_intact(v->file, s)) v->damaged[thread] = true;
    }
}

mq_pack_cache mq__pack_cache(const mq_weights *w, mq_face face, const mq_packing *how)
{
    return (mq_pack_cache){.path = how->cache_dir ? cache_path(w, face, how) : NULL,
                           .fingerprint = fingerprint_of(w, face, how->rule)};
}

/* Points the model at the sections; false when they are not those of this model. */
static bool use_sections(mq_weights *w, mq_face face, const mq_packfile *file)
{
    const size_t count = w->module_count;
    size_t bytes;
    if (file->sections != count + 1) return false;
    const uint8_t *multipliers = mq__packfile_section(file, count, &bytes);
    if (bytes != count * sizeof(float)) return false;
    for (size_t i = 0; i < count; i++) {
        const mq_linear *linear = w->module[i].linear;
        const size_t expected = mq__weights_can_have(w, i, face) ? mq__face_bytes(face, linear) : 0;
        (void)mq__packfile_section(file, i, &bytes);
        if (bytes != expected) return false;
    }
    for (size_t i = 0; i < count; i++) {
        mq_linear *linear = w->module[i].linear;
        float multiplier;
        if (!mq__weights_can_have(w, i, face)) continue;
        memcpy(&multiplier, multipliers + i * sizeof multiplier, sizeof multiplier);
        mq__face_set(linear, face, mq__packfile_section(file, i, &bytes), multiplier);
    }
    return true;
}

bool mq__pack_load(mq_weights *w, mq_face face, const mq_packing *how, const mq_pack_cache *cache)
{
    mq_error error = {0};
    mq_packfile *file = &w->face[face].file;
    if (!cache->path) return false;
    char *folder = mq__path_join(how->cache_dir, "packed");
    if (folder) mq__temporary_sweep(folder);
    mq__free(folder);
    if (!mq__file_exists(cache->path)) return false;
    mq_status status = mq__packfile_open(cache->path, cache->fingerprint, file, &error);
    if (status == MQ_OK) {
        verification v = {.file = file};
        mq__pool_run(how->pool, verify, &v);
        bool intact = true;
        for (size_t t = 0; t < sizeof v.damaged; t++) {
            intact = intact && !v.damaged[t];
        }
        if (intact && use_sections(w, face, file)) return true;
        mq__packfile_close(file);
        (void)mq__fail(&error, MQ_FORMAT, "cache: %s: expected intact sections, got damaged ones", cache->path);
    }
    if (how->log) how->log(how->log_context, error.text);
    return false;
}

mq_status mq__pack_save(mq_weights *w, mq_face face, const mq_packing *how, const mq_pack_cache *cache, mq_error *error)
{
    const size_t count = w->module_count;
    char *dir = mq__path_join(how->cache_dir, "packed");
    mq_pack_section *sections = mq__alloc_zero(count + 1, sizeof *sections);
    float *multipliers = mq__alloc_zero(count, sizeof *multipliers);
    mq_status status = MQ_NO_MEMORY;
    if (dir && sections && multipliers) {
        for (size_t i = 0; i < count; i++) {
            const mq_linear *linear = w->module[i].linear;
            const uint8_t *panels = w->face[face].panels[i];
            if (!panels) continue;
            sections[i] = (mq_pack_section){panels, mq__face_bytes(face, linear)};
            if (face == MQ_FACE_NVFP4) multipliers[i] = linear->nvfp4.multiplier;
        }
        sections[count] = (mq_pack_section){(const uint8_t *)multipliers, count * sizeof *multipliers};
        status = mq__make_dirs(dir, error);
        if (status == MQ_OK) status = mq__packfile_write(cache->path, cache->fingerprint, sections, count + 1, error);
    } else {
        (void)mq__fail(error, MQ_NO_MEMORY, "cache: %s: expected memory, got none", cache->path);
    }
    mq__free(multipliers);
    mq__free(sections);
    mq__free(dir);
    return status;
}
