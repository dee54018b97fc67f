/* What keys and values, and answers, depend on, as digests: two engines may exchange KV when all of the former agree. */
#include "engine/fingerprint.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>
#include <string.h>

/* ---- weights: every byte of the checkpoint's files, in pieces that the threads share */

#define PIECE ((size_t)4 << 20)

typedef struct hashing {
    const mq_map *map;
    mq_digest *piece; /* [pieces] */
    size_t pieces;
} hashing;

static void hash_pieces(void *context, int thread, int threads)
{
    const hashing *h = context;
    for (size_t i = (size_t)thread; i < h->pieces; i += (size_t)threads) {
        const size_t at = i * PIECE, left = h->map->bytes - at;
        h->piece[i] = mq__digest(h->map->data + at, left < PIECE ? left : PIECE);
    }
}

static bool add_file(mq_pool *pool, const mq_map *map, mq_buf *text)
{
    hashing h = {.map = map, .pieces = (map->bytes + PIECE - 1) / PIECE};
    h.piece = mq__alloc_zero(h.pieces, sizeof *h.piece);
    if (!h.piece) return false;
    mq__pool_run(pool, hash_pieces, &h);
    const bool ok = mq__buf_append(text, h.piece, h.pieces * sizeof *h.piece);
    mq__free(h.piece);
    return ok;
}

static bool add_checkpoint(mq_pool *pool, const mq_checkpoint *checkpoint, mq_buf *text)
{
    for (size_t i = 0; checkpoint && i < mq__checkpoint_shards(checkpoint); i++) {
        if (!add_file(pool, &mq__checkpoint_shard(checkpoint, i)->map, text)) return false;
    }
    return mq__buf_puts(text, "end");
}

/* ---- the others */

static mq_digest plan_digest(const mq_engine *e, const mq_plan *plan, mq_buf *text)
{
    const size_t layers = e->weights->model.layers;
    mq__buf_clear(text);
    mq__buf_printf(text, "%s\n", mq_scale_rule_name(e->options.scales));
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        mq__buf_printf(text, "%s\n", mq_attention_format_name(plan->phase[phase].attention));
        for (size_t l = 0; l < layers; l++) {
            for (int g = 0; g < MQ_GROUPS; g++) {
                mq__buf_printf(text, "%s\n", mq_linear_format_name((mq_linear_format)plan->phase[phase].format[l][g]));
            }
        }
    }
    return mq__digest(text->data, text->len);
}

static mq_digest rope_digest(const mq_engine *e, mq_buf *text)
{
    const mq_model *m = &e->weights->model;
    mq__buf_clear(text);
    for (uint32_t r = 0; r < m->ropes; r++) {
        mq__buf_append(text, m->rope[r].inv_freq, m->rope[r].width / 2 * sizeof *m->rope[r].inv_freq);
        mq__buf_append(text, &m->rope[r].factor, sizeof m->rope[r].factor);
    }
    return mq__digest(text->data, text->len);
}

/* Of keys and values, and of recurrent state. */
static mq_digest layout_digest(const mq_engine *e, mq_buf *text)
{
    const mq_delta_sizes *d = &e->weights->model.delta;
    mq__buf_clear(text);
    for (uint32_t l = 0; l < e->kv_layout.layers; l++) {
        mq__buf_printf(text, "%u %u\n", e->kv_layout.layer[l].kv_heads, e->kv_layout.layer[l].head_dim);
        if (e->kv_layout.layer[l].state_floats == 0) continue;
        mq__buf_printf(text, "state %u %u %u %u %u %u\n", d->key_heads, d->value_heads, d->key_dim, d->value_dim,
                       d->taps, MQ_DELTA_COLUMNS);
    }
    return mq__digest(text->data, text->len);
}

/* Of a file of the model's folder; what is not there has no bytes. */
static mq_status file_digest(const char *dir, const char *name, mq_digest *digest, mq_error *error)
{
    mq_map map = {0};
    char *path = mq__path_join(dir, name);
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "KV image: %s: expected memory, got none", name);
    const mq_status status = mq__file_exists(path) ? mq__map_open(path, &map, error) : MQ_OK;
    if (status == MQ_OK) *digest = mq__digest(map.data, map.bytes);
    mq__map_close(&map);
    mq__free(path);
    return status;
}

/* The weights with config.json, which says how they are used (epsilons, experts of a token); of both checkpoints, and of each. */
static mq_status weights_digest(mq_engine *e, mq_buf *text, mq_digest *digest, mq_error *error)
{
    mq_digest config = {{0}};
    const mq_status status = file_digest(e->model_dir, "config.json", &config, error);
    if (status != MQ_OK) return status;
    bool ok = mq__buf_append(text, &config, sizeof config) && add_checkpoint(e->pool, e->weights->dense, text);
    const size_t first = text->len;
    ok = ok && add_checkpoint(e->pool, e->weights->second, text);
    if (!ok) return mq__fail(error, MQ_NO_MEMORY, "KV image: weights: expected memory, got none");
    e->checkpoint[0] = mq__digest(text->data, first);
    e->checkpoint[1] = mq__digest(text->data + first, text->len - first);
    *digest = mq__digest(text->data, text->len);
    return MQ_OK;
}

mq_status mq__fingerprint(mq_engine *e, const mq_plan *plan, mq_fingerprint *out, mq_error *error)
{
    mq_buf text = {0};
    mq_status status = MQ_OK;
    if (!e->fingerprint_ready) {
        status = weights_digest(e, &text, &e->fingerprint.weights, error);
        if (status == MQ_OK) status = file_digest(e->model_dir, "tokenizer.json", &e->fingerprint.tokenizer, error);
        e->fingerprint.rope = rope_digest(e, &text);
        e->fingerprint.layout = layout_digest(e, &text);
        e->fingerprint_ready = status == MQ_OK && !text.failed;
    }
    *out = e->fingerprint;
    out->plan = plan_digest(e, plan, &text);
    if (text.failed && status == MQ_OK) {
        status = mq__fail(error, MQ_NO_MEMORY, "KV image: fingerprint: expected memory, got none");
    }
    mq__buf_free(&text);
    return status;
}

/* The variant in the slot, and the range of the codes. */
static bool add_int8_way(const mq_kernels *k, mq_buf *text)
{
    const mq_variants *v = &k->variants[MQ_INT8_ATTENTION];
    const char *name = "only";
    for (size_t i = 0; i < v->count; i++) {
        if (memcmp(&v->one[i].function, &k->attention_prefill_int8, sizeof v->one[i].function) == 0)
            name = v->one[i].name;
    }
    return mq__buf_printf(text, "int8 attention %s %d\n", name, k->attention_int8_most);
}

mq_status mq__fingerprint_kept(mq_engine *e, const mq_plan *plan, mq_fingerprint *out, mq_error *error)
{
    mq_buf text = {0};
    mq_status status = mq__fingerprint(e, plan, out, error);
    for (int phase = 0; status == MQ_OK && phase < MQ_PHASES; phase++) {
        if (plan->phase[phase].attention != MQ_ATTENTION_INT8) continue;
        if (!mq__buf_append(&text, &out->plan, sizeof out->plan) || !add_int8_way(e->kernels, &text))
            status = mq__fail(error, MQ_NO_MEMORY, "KV image: fingerprint: expected memory, got none");
        else
            out->plan = mq__digest(text.data, text.len);
        break;
    }
    mq__buf_free(&text);
    return status;
}

/* A digest of a checkpoint's weights with its small files, as text; what is not there has no bytes. */
static mq_status source_digest(const char *dir, mq_digest weights, char out[MQ_SOURCE_SIZE], mq_error *error)
{
    static const char *const files[] = {"config.json",        "generation_config.json",
                                        "tokenizer.json",     "tokenizer_config.json",
                                        "added_tokens.json",  "chat_template.jinja",
                                        "chat_template.json", "additional_chat_templates/tool_use.jinja"};
    mq_digest parts[1 + sizeof files / sizeof files[0]] = {weights};
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < sizeof files / sizeof files[0]; i++) {
        status = file_digest(dir, files[i], &parts[1 + i], error);
    }
    const mq_digest all = mq__digest(parts, sizeof parts);
    for (size_t i = 0; i < sizeof all.bytes; i++) {
        snprintf(out + 2 * i, 3, "%02x", all.bytes[i]);
    }
    return status;
}

mq_status mq_engine_sources(mq_engine *e, mq_sources *sources, mq_error *error)
{
    mq_fingerprint print;
    *sources = (mq_sources){.model = ""};
    mq_status status = mq__fingerprint(e, e->plan, &print, error);
    if (status == MQ_OK) status = source_digest(e->model_dir, e->checkpoint[0], sources->model, error);
    if (status == MQ_OK && e->weights->second) {
        status = source_digest(mq__checkpoint_dir(e->weights->second), e->checkpoint[1], sources->prefill_model, error);
    }
    return status;
}
