#include "engine/draft_head.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/nvfp4.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NR           MQ_NVFP4_NR /* tokens of a panel */
#define FREQUENT     8           /* the first 1/8 of the vocabulary is there from the start */
#define LEAST_TOKENS 16384       /* or so many */

struct mq_draft_head {
    const mq_model *model;
    mq_pool *pool;
    mq_nvfp4_rule rule;
    mq_nvfp4_scale scale;
    mq_linear linear; /* its nvfp4 face */
    uint8_t *memory;  /* [panels of the vocabulary] reserved; those of the tokens so far are made */
    int32_t *token;   /* [V] the first linear.n of them: which token each row is */
    bool *listed;     /* [V] */
    uint32_t first;   /* tokens there from the start: those with the lowest ids, in order */
    uint32_t count;   /* tokens listed; linear.n of them are made */
    uint8_t *scratch; /* per thread: nibbles and scales of a panel's rows */
    size_t scratch_each;
    float amax[MQ_THREADS_MAX];
};

/* ---- making panels */

static size_t panel_bytes(const mq_draft_head *h)
{
    return mq__nvfp4_panel_bytes(NR, h->linear.k_width);
}

static const uint8_t *dense_row(const mq_draft_head *h, size_t row, mq_weight_type *type)
{
    const mq_dense *d = &h->model->head.dense;
    *type = d->type == MQ_DENSE_F32 ? MQ_WEIGHT_F32 : d->type == MQ_DENSE_F16 ? MQ_WEIGHT_F16 : MQ_WEIGHT_BF16;
    return (const uint8_t *)d->data + row * d->k_width * (d->type == MQ_DENSE_F32 ? 4 : 2);
}

/* The last one may have rows left: it is made again when they are taken. */
static void make_panel(const mq_draft_head *h, uint32_t at, uint8_t *scratch)
{
    const uint32_t left = h->count - at * NR, rows = left < NR ? left : NR;
    const uint32_t blocks = (uint32_t)mq__nvfp4_blocks(h->linear.k_width);
    uint8_t *nibbles = scratch, *scales = scratch + (size_t)NR * blocks * 8;
    mq_weight_type type;
    for (uint32_t r = 0; r < rows; r++) {
        const uint8_t *row = dense_row(h, (size_t)h->token[at * NR + r], &type);
        mq__nvfp4_quantize_row(h->rule, h->scale, row, type, h->linear.k_width, nibbles + (size_t)r * blocks * 8,
                               scales + (size_t)r * blocks);
    }
    mq__nvfp4_pack(nibbles, scales, rows, blocks, 0, 1, h->memory + at * panel_bytes(h));
}

static void make_listed(void *context, int thread, int threads)
{
    const mq_draft_head *h = context;
    const uint32_t whole = h->linear.n / NR, panels = (h->count + NR - 1) / NR;
    size_t begin, end;
    mq__partition(panels - whole, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        make_panel(h, (uint32_t)(whole + i), h->scratch + (size_t)thread * h->scratch_each);
    }
}

static void list_token(mq_draft_head *h, int32_t token)
{
    assert(token >= 0 && (uint32_t)token < h->model->vocab);
    if (h->listed[token]) return;
    h->listed[token] = true;
    h->token[h->count++] = token;
}

static void make_all(mq_draft_head *h)
{
    if (h->count == h->linear.n) return;
    mq__pool_run(h->pool, make_listed, h);
    h->linear.n = h->count;
    mq__face_set(&h->linear, MQ_FACE_NVFP4, h->memory, h->scale.multiplier);
}

void mq__draft_head_add(mq_draft_head *h, const int32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        list_token(h, tokens[i]);
    }
    make_all(h);
}

/* ---- life */

static void find_head_amax(void *context, int thread, int threads)
{
    mq_draft_head *h = context;
    mq_weight_type type;
    size_t begin, end;
    mq__partition(h->model->vocab, thread, threads, &begin, &end);
    const uint8_t *rows = dense_row(h, begin, &type);
    h->amax[thread] = mq__weights_amax(rows, type, (end - begin) * h->linear.k_width);
}

static mq_status find_scale(mq_draft_head *h, mq_error *error)
{
    float amax = 0;
    mq__pool_run(h->pool, find_head_amax, h);
    for (int t = 0; t < mq__pool_threads(h->pool); t++) {
        if (isnan(h->amax[t])) return mq__fail(error, MQ_FORMAT, "model: lm_head: expected finite weights, got others");
        amax = fmaxf(amax, h->amax[t]);
    }
    h->scale = mq__nvfp4_scale(h->rule, amax);
    return MQ_OK;
}

static bool allocate_head(mq_draft_head *h)
{
    const size_t blocks = mq__nvfp4_blocks(h->linear.k_width), vocab = h->model->vocab, panels = (vocab + NR - 1) / NR;
    h->scratch_each = mq__round_up(blocks * 9 * NR, 64);
    h->memory = mq__alloc_aligned(panels * panel_bytes(h)); /* what is never made is never touched */
    h->token = mq__alloc_zero(vocab, sizeof *h->token);
    h->listed = mq__alloc_zero(vocab, sizeof *h->listed);
    h->scratch = mq__alloc_aligned(h->scratch_each * (size_t)mq__pool_threads(h->pool));
    return h->memory && h->token && h->listed && h->scratch;
}

mq_status mq__draft_head_new(const mq_model *model, mq_scale_rule rule, mq_pool *pool, mq_draft_head **out,
                             mq_error *error)
{
    *out = NULL;
    mq_draft_head *h = mq__alloc_zero(1, sizeof *h);
    if (!h) return mq__fail(error, MQ_NO_MEMORY, "draft: lm_head: expected memory, got none");
    h->model = model;
    h->pool = pool;
    h->rule = mq__nvfp4_rule_of(rule);
    h->linear.k_width = model->width;
    mq_status status = allocate_head(h) ? find_scale(h, error)
                                        : mq__fail(error, MQ_NO_MEMORY, "draft: lm_head: expected memory, got none");
    if (status != MQ_OK) {
        mq__draft_head_free(h);
        return status;
    }
    const uint32_t some = model->vocab / FREQUENT > LEAST_TOKENS ? model->vocab / FREQUENT : LEAST_TOKENS;
    h->first = some < model->vocab ? some : model->vocab;
    for (uint32_t token = 0; token < h->first; token++) {
        list_token(h, (int32_t)token);
    }
    make_all(h);
    *out = h;
    return MQ_OK;
}

void mq__draft_head_free(mq_draft_head *h)
{
    if (!h) return;
    mq__free_aligned(h->memory);
    mq__free_aligned(h->scratch);
    mq__free(h->token);
    mq__free(h->listed);
    mq__free(h);
}

/* ---- using it */

const mq_linear *mq__draft_head_linear(const mq_draft_head *h)
{
    return &h->linear;
}

uint32_t mq__draft_head_tokens(const mq_draft_head *h)
{
    return h->linear.n;
}

void mq__draft_head_spread(const mq_draft_head *h, const float *from, float *to)
{
    memcpy(to, from, h->first * sizeof *to);
    for (uint32_t i = h->first; i < h->model->vocab; i++) {
        to[i] = -INFINITY;
    }
    for (uint32_t i = h->first; i < h->linear.n; i++) {
        to[h->token[i]] = from[i];
    }
}
