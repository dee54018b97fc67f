#include "model/finite.h"

#include "base/error.h"
#include "base/halffloat.h"

#include <math.h>
#include <string.h>

/* Largest bit pattern without sign: beyond that of infinity are NaNs. No branch, so that compilers use vectors. */
static uint32_t largest_bits(const float *x, size_t count)
{
    uint32_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

static uint16_t largest_half(const uint8_t *x, size_t count)
{
    uint16_t largest = 0;
    for (size_t i = 0; i < count; i++) {
        uint16_t bits;
        memcpy(&bits, x + 2 * i, sizeof bits);
        bits &= 0x7fff;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

mq_status mq__logits_check(const float *logits, uint32_t vocab, mq_error *error)
{
    if (largest_bits(logits, vocab) < 0x7f800000) return MQ_OK;
    uint32_t i = 0;
    while (isfinite(logits[i])) {
        i++;
    }
    return mq__fail(error, MQ_FORMAT,
                    "model: logit of token %u: expected a finite number, got %g (a weight of the checkpoint is NaN or "
                    "infinite, or an activation overflowed)",
                    i, (double)logits[i]);
}

static bool row_is_finite(const mq_dense *d, uint32_t row)
{
    const size_t count = d->k_width;
    const uint8_t *at = (const uint8_t *)d->data + row * count * (d->type == MQ_DENSE_F32 ? 4 : 2);
    if (d->type == MQ_DENSE_F32) return largest_bits((const float *)(const void *)at, count) < 0x7f800000;
    return largest_half(at, count) < (d->type == MQ_DENSE_BF16 ? 0x7f80 : 0x7c00);
}

mq_status mq__embedding_check(const mq_model *model, const int32_t *tokens, uint32_t count, mq_error *error)
{
    for (uint32_t i = 0; i < count; i++) {
        if (row_is_finite(&model->embedding, (uint32_t)tokens[i])) continue;
        return mq__fail(
            error, MQ_FORMAT,
            "model: model.embed_tokens.weight: row of token %d: expected finite numbers, got NaN or infinity",
            tokens[i]);
    }
    return MQ_OK;
}
