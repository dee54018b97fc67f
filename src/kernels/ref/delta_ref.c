/* The gated delta rule, a row after the other: the definition. */
#include "kernels/table.h"

#include <math.h>

#define COLUMNS MQ_DELTA_COLUMNS

/* sum_i x_i S_ij of every column. */
static void product_ref(const float *state, const float *x, uint32_t key_dim, float sum[COLUMNS])
{
    for (size_t j = 0; j < COLUMNS; j++) {
        float lane[2] = {0};
        for (uint32_t i = 0; i < key_dim; i++) {
            lane[i % 2] = fmaf(x[i], state[(size_t)i * COLUMNS + j], lane[i % 2]);
        }
        sum[j] = lane[0] + lane[1];
    }
}

static void delta_rule_ref(const mq_delta *d)
{
    const float *from = d->from;
    for (uint32_t t = 0; t < d->rows; t++) {
        const float *k = d->k + t * d->qk_stride, *q = d->q + t * d->qk_stride, *v = d->v + t * d->v_stride;
        const float decay = d->decay[t * d->scalar_stride], beta = d->beta[t * d->scalar_stride];
        float known[COLUMNS], delta[COLUMNS];
        product_ref(from, k, d->key_dim, known);
        for (size_t j = 0; j < COLUMNS; j++) {
            delta[j] = beta * fmaf(-decay, known[j], v[j]);
        }
        for (uint32_t i = 0; i < d->key_dim; i++) {
            for (size_t j = 0; j < COLUMNS; j++) {
                const size_t at = (size_t)i * COLUMNS + j;
                d->to[at] = fmaf(k[i], delta[j], decay * from[at]);
            }
        }
        from = d->to;
        product_ref(from, q, d->key_dim, d->out + t * d->out_stride);
    }
}

void mq__fill_ref_delta(mq_kernels *table)
{
    table->delta_rule = delta_rule_ref;
}
