/* The NVFP4 face of the weights: quantised and packed on all threads at the first start, mapped from the cache later.
 *
 * A cache file has one section per linear layer (its panels) and a last one with the tensor scales. Its name follows from
 * where the model is and how it is packed, its fingerprint from what the checkpoint files are: a changed model
 * overwrites its old file, and a damaged file is made anew. */
#include "base/buf.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/nvfp4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYOUT_VERSION "cell288.2" /* of the panels: changes with mq__nvfp4_pack or the quantiser */

static mq_nvfp4_rule rule_of(mq_scale_rule rule)
{
    return rule == MQ_SCALES_FOUR_SIX ? MQ_NVFP4_FOUR_SIX : rule == MQ_SCALES_SWEEP ? MQ_NVFP4_SWEEP : MQ_NVFP4_RTN;
}

static size_t linear_count(const mq_weights *w)
{
    return (size_t)w->model.layers * MQ_LINEARS_PER_LAYER;
}

static bool is_available(const mq_weights *w, size_t index)
{
    return w->packed_available[index / MQ_LINEARS_PER_LAYER][mq__weights_group(index)];
}

/* ---- making panels */

typedef struct build {
    const mq_linear_source *source;
    uint32_t n, k_width;
    mq_nvfp4_rule rule;
    mq_nvfp4_scale scale;
    uint8_t *panels;
    uint8_t *scratch; /* per thread: nibbles and scales of 32 rows */
    size_t scratch_each;
    float amax[256]; /* per thread */
} build;

static size_t element_bytes(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? 4 : 2;
}

static mq_weight_type weight_type(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? MQ_WEIGHT_F32 : type == MQ_DENSE_F16 ? MQ_WEIGHT_F16 : MQ_WEIGHT_BF16;
}

static const uint8_t *row_of(const build *b, size_t row)
{
    return (const uint8_t *)b->source->dense.data + row * b->k_width * element_bytes(b->source->dense.type);
}

static void find_amax(void *context, int thread, int threads)
{
    build *b = context;
    size_t begin, end;
    mq__partition(b->n, thread, threads, &begin, &end);
    b->amax[thread] =
        mq__weights_amax(row_of(b, begin), weight_type(b->source->dense.type), (end - begin) * b->k_width);
}

static void make_panels(void *context, int thread, int threads)
{
    const build *b = context;
    const uint32_t blocks = (uint32_t)mq__nvfp4_blocks(b->k_width);
    const size_t panel_bytes = (size_t)blocks * MQ_NVFP4_CELL, nibble_bytes = (size_t)blocks * 8;
    size_t begin, end;
    mq__partition((b->n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR, thread, threads, &begin, &end);
    if (b->source->nibbles) {
        mq__nvfp4_pack(b->source->nibbles, b->source->scales, b->n, blocks, begin, end, b->panels);
        return;
    }
    uint8_t *nibbles = b->scratch + (size_t)thread * b->scratch_each, *scales = nibbles + nibble_bytes * MQ_NVFP4_NR;
    for (size_t p = begin; p < end; p++) {
        const size_t row0 = p * MQ_NVFP4_NR;
        const uint32_t rows = b->n - row0 < MQ_NVFP4_NR ? (uint32_t)(b->n - row0) : MQ_NVFP4_NR;
        for (uint32_t r = 0; r < rows; r++) {
            mq__nvfp4_quantize_row(b->rule, b->scale, row_of(b, row0 + r), weight_type(b->source->dense.type),
                                   b->k_width, nibbles + r * nibble_bytes, scales + (size_t)r * blocks);
        }
        mq__nvfp4_pack(nibbles, scales, rows, blocks, 0, 1, b->panels + p * panel_bytes);
    }
}

/* The joint largest magnitude of the linear layers [first, last): a fused group shares its tensor scale. */
static mq_status group_amax(mq_weights *w, const mq_packing *how, build *b, size_t first, size_t last, float *amax,
                            mq_error *error)
{
    *amax = 0;
    for (size_t i = first; i < last; i++) {
        const mq_linear *linear = mq__weights_linear(w, i);
        b->source = &w->packed_source[i];
        b->n = linear->n;
        b->k_width = linear->k_width;
        mq__pool_run(how->pool, find_amax, b);
        for (int t = 0; t < mq__pool_threads(how->pool); t++) {
            if (isnan(b->amax[t])) {
                return mq__fail(error, MQ_FORMAT, "model: layer %zu, linear %zu: expected finite weights, got others",
                                i / MQ_LINEARS_PER_LAYER, i % MQ_LINEARS_PER_LAYER);
            }
            *amax = fmaxf(*amax, b->amax[t]);
        }
    }
    return MQ_OK;
}

static mq_status build_group(mq_weights *w, const mq_packing *how, build *b, size_t first, size_t last, mq_error *error)
{
    if (!w->packed_source[first].nibbles) {
        float amax;
        const mq_status status = group_amax(w, how, b, first, last, &amax, error);
        if (status != MQ_OK) return status;
        b->scale = mq__nvfp4_scale(b->rule, amax);
    }
    for (size_t i = first; i < last; i++) {
        mq_linear *linear = mq__weights_linear(w, i);
        const size_t bytes = mq__nvfp4_panel_bytes(linear->n, linear->k_width);
        b->source = &w->packed_source[i];
        b->n = linear->n;
        b->k_width = linear->k_width;
        mq__free_aligned(w->packed[i]); /* of an earlier attempt that failed */
        b->panels = w->packed[i] = mq__alloc_aligned(bytes);
        if (!b->panels) {
            return mq__fail(error, MQ_NO_MEMORY, "model: packed weights: expected %zu bytes of memory, got none",
                            bytes);
        }
        mq__pool_run(how->pool, make_panels, b);
        linear->nvfp4 = (mq_nvfp4){
            .panels = b->panels,
            .n = linear->n,
            .k_width = linear->k_width,
            .blocks = (uint32_t)mq__nvfp4_blocks(linear->k_width),
            .multiplier = b->source->nibbles ? b->source->multiplier : b->scale.multiplier,
        };
    }
    return MQ_OK;
}

static mq_status build_all(mq_weights *w, const mq_packing *how, mq_error *error)
{
    const uint32_t widest = w->model.ffn > w->model.width ? w->model.ffn : w->model.width;
    const uint32_t q_width = w->model.heads * w->model.head_width;
    const size_t blocks = mq__nvfp4_blocks(widest > q_width ? widest : q_width);
    build b = {.rule = rule_of(how->rule), .scratch_each = mq__round_up(blocks * 9 * MQ_NVFP4_NR, 64)};
    b.scratch = mq__alloc_aligned(b.scratch_each * (size_t)mq__pool_threads(how->pool));
    if (!b.scratch) return mq__fail(error, MQ_NO_MEMORY, "model: packing: expected memory, got none");
    mq_status status = MQ_OK;
    for (size_t first = 0, last; status == MQ_OK && first < linear_count(w); first = last) {
        last = first + 1;
        while (last % MQ_LINEARS_PER_LAYER != 0 && mq__weights_group(last) == mq__weights_group(first)) {
            last++;
        }
        if (is_available(w, first)) status = build_group(w, how, &b, first, last, error);
    }
    mq__free_aligned(b.scratch);
    return status;
}

/* ---- the cache */

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
static mq_digest fingerprint_of(const mq_weights *w, mq_scale_rule rule)
{
    mq_buf text = {0};
    mq__buf_printf(&text, "%s %s\n", LAYOUT_VERSION, mq_scale_rule_name(rule));
    add_files(&text, w->dense);
    mq__buf_puts(&text, "second\n");
    add_files(&text, w->second);
    /* Without memory for the text the fingerprint is that of nothing: no file has it. */
    const mq_digest digest = mq__digest(text.data, text.failed ? 0 : text.len);
    mq__buf_free(&text);
    return digest;
}

static char *cache_path(const mq_weights *w, const mq_packing *how)
{
    mq_buf text = {0};
    char *first = realpath(mq__checkpoint_dir(w->dense), NULL);
    char *second = w->second ? realpath(mq__checkpoint_dir(w->second), NULL) : NULL;
    mq__buf_printf(&text, "%s\n%s\n%s", first ? first : "", second ? second : "", mq_scale_rule_name(how->rule));
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
    bool damaged[256]; /* per thread */
} verification;

static void verify(void *context, int thread, int threads)
{
    verification *v = context;
    for (size_t s = (size_t)thread; s < v->file->sections; s += (size_t)threads) {
        if (!mq__packfile_section_is_intact(v->file, s)) v->damaged[thread] = true;
    }
}

/* Points the model at the sections; false when they are not those of this model. */
static bool use_sections(mq_weights *w, const mq_packfile *file)
{
    const size_t count = linear_count(w);
    size_t bytes;
    if (file->sections != count + 1) return false;
    const uint8_t *multipliers = mq__packfile_section(file, count, &bytes);
    if (bytes != count * sizeof(float)) return false;
    for (size_t i = 0; i < count; i++) {
        const mq_linear *linear = mq__weights_linear(w, i);
        const size_t expected = is_available(w, i) ? mq__nvfp4_panel_bytes(linear->n, linear->k_width) : 0;
        (void)mq__packfile_section(file, i, &bytes);
        if (bytes != expected) return false;
    }
    for (size_t i = 0; i < count; i++) {
        mq_linear *linear = mq__weights_linear(w, i);
        if (!is_available(w, i)) continue;
        linear->nvfp4 = (mq_nvfp4){.panels = mq__packfile_section(file, i, &bytes),
                                   .n = linear->n,
                                   .k_width = linear->k_width,
                                   .blocks = (uint32_t)mq__nvfp4_blocks(linear->k_width)};
        memcpy(&linear->nvfp4.multiplier, multipliers + i * sizeof(float), sizeof(float));
    }
    return true;
}

static bool load(mq_weights *w, const mq_packing *how, const char *path, mq_digest fingerprint)
{
    mq_error error = {0};
    if (!mq__file_exists(path)) return false;
    mq_status status = mq__packfile_open(path, fingerprint, &w->packfile, &error);
    if (status == MQ_OK) {
        verification v = {.file = &w->packfile};
        mq__pool_run(how->pool, verify, &v);
        bool intact = true;
        for (size_t t = 0; t < sizeof v.damaged; t++) {
            intact = intact && !v.damaged[t];
        }
        if (intact && use_sections(w, &w->packfile)) return true;
        mq__packfile_close(&w->packfile);
        (void)mq__fail(&error, MQ_FORMAT, "cache: %s: expected intact sections, got damaged ones", path);
    }
    if (how->log) how->log(how->log_context, error.text);
    return false;
}

static mq_status save(mq_weights *w, const mq_packing *how, const char *path, mq_digest fingerprint, mq_error *error)
{
    const size_t count = linear_count(w);
    char *dir = mq__path_join(how->cache_dir, "packed");
    mq_pack_section *sections = mq__alloc_zero(count + 1, sizeof *sections);
    float *multipliers = mq__alloc_zero(count, sizeof *multipliers);
    mq_status status = MQ_NO_MEMORY;
    if (dir && sections && multipliers) {
        for (size_t i = 0; i < count; i++) {
            const mq_linear *linear = mq__weights_linear(w, i);
            if (!w->packed[i]) continue;
            sections[i] = (mq_pack_section){w->packed[i], mq__nvfp4_panel_bytes(linear->n, linear->k_width)};
            multipliers[i] = linear->nvfp4.multiplier;
        }
        sections[count] = (mq_pack_section){(const uint8_t *)multipliers, count * sizeof *multipliers};
        status = mq__make_dirs(dir, error);
        if (status == MQ_OK) status = mq__packfile_write(path, fingerprint, sections, count + 1, error);
    } else {
        (void)mq__fail(error, MQ_NO_MEMORY, "cache: %s: expected memory, got none", path);
    }
    mq__free(multipliers);
    mq__free(sections);
    mq__free(dir);
    return status;
}

static void count_packed_bytes(mq_weights *w)
{
    w->packed_bytes = 0;
    for (size_t i = 0; i < linear_count(w); i++) {
        const mq_linear *linear = mq__weights_linear(w, i);
        if (linear->nvfp4.panels) w->packed_bytes += mq__nvfp4_panel_bytes(linear->n, linear->k_width);
    }
}

mq_status mq__weights_pack(mq_weights *w, const mq_packing *how, mq_error *error)
{
    if (w->is_packed) return MQ_OK;
    char *path = how->cache_dir ? cache_path(w, how) : NULL;
    const mq_digest fingerprint = fingerprint_of(w, how->rule);
    mq_status status = MQ_OK;
    if (!path || !load(w, how, path, fingerprint)) {
        status = build_all(w, how, error);
        mq_error trouble = {0};
        if (status == MQ_OK && path && save(w, how, path, fingerprint, &trouble) != MQ_OK && how->log) {
            how->log(how->log_context, trouble.text); /* the engine works without the file */
        }
    }
    if (status == MQ_OK) {
        w->is_packed = true;
        count_packed_bytes(w);
    }
    mq__free(path);
    return status;
}
