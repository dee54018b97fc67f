/* The gated delta rule on AVX2.
 *
 * A panel of the state is key_dim rows of two registers. One walk over it ends a token and begins the next: it decays, adds
 * k_i * d, takes the token's output with q and what the next token's key finds, so the state is read and written once a token. Per row of
 * the panel: 2 + 3 loads, 2 stores, 2 products and 6 FMAs, 4 cycles where two FMAs start in each. With a panel of 8 KiB all of
 * that stays in L1. Registers: 8 sums (2 tokens' products, 2 lanes, 2 halves), d, the decay. */
#include "kernels/table.h"

#include <immintrin.h>

#define COLUMNS MQ_DELTA_COLUMNS

typedef struct half_rows {
    __m256 low, high;
} half_rows;

/* sum_i x_i S_ij */
static half_rows product_avx2(const float *state, const float *x, uint32_t key_dim)
{
    __m256 a0 = _mm256_setzero_ps(), b0 = a0, a1 = a0, b1 = a0;
    for (uint32_t i = 0; i < key_dim; i += 2, state += 2 * COLUMNS) {
        const __m256 x0 = _mm256_broadcast_ss(x + i), x1 = _mm256_broadcast_ss(x + i + 1);
        a0 = _mm256_fmadd_ps(x0, _mm256_loadu_ps(state), a0);
        b0 = _mm256_fmadd_ps(x0, _mm256_loadu_ps(state + 8), b0);
        a1 = _mm256_fmadd_ps(x1, _mm256_loadu_ps(state + 16), a1);
        b1 = _mm256_fmadd_ps(x1, _mm256_loadu_ps(state + 24), b1);
    }
    return (half_rows){_mm256_add_ps(a0, a1), _mm256_add_ps(b0, b1)};
}

/* What is new in a token's values, times beta. */
static half_rows correction_avx2(const mq_delta *d, uint32_t row, half_rows known)
{
    const float *v = d->v + row * d->v_stride;
    const __m256 decay = _mm256_broadcast_ss(d->decay + row * d->scalar_stride);
    const __m256 beta = _mm256_broadcast_ss(d->beta + row * d->scalar_stride);
    return (half_rows){_mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, known.low, _mm256_loadu_ps(v))),
                       _mm256_mul_ps(beta, _mm256_fnmadd_ps(decay, known.high, _mm256_loadu_ps(v + 8)))};
}

/* One token into the state: its output, and what the key `next` finds there afterwards. */
static half_rows update_avx2(const mq_delta *d, uint32_t row, const float *from, half_rows delta, const float *next)
{
    const float *k = d->k + row * d->qk_stride, *q = d->q + row * d->qk_stride;
    float *to = d->to, *out = d->out + row * d->out_stride;
    const __m256 decay = _mm256_broadcast_ss(d->decay + row * d->scalar_stride);
    __m256 qa[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()}, qb[2] = {qa[0], qa[0]};
    __m256 na[2] = {qa[0], qa[0]}, nb[2] = {qa[0], qa[0]};
    for (uint32_t i = 0; i < d->key_dim; i += 2) {
        for (uint32_t lane = 0; lane < 2; lane++, from += COLUMNS, to += COLUMNS) {
            const __m256 ki = _mm256_broadcast_ss(k + i + lane), qi = _mm256_broadcast_ss(q + i + lane);
            const __m256 ni = _mm256_broadcast_ss(next + i + lane);
            const __m256 a = _mm256_fmadd_ps(ki, delta.low, _mm256_mul_ps(decay, _mm256_loadu_ps(from)));
            const __m256 b = _mm256_fmadd_ps(ki, delta.high, _mm256_mul_ps(decay, _mm256_loadu_ps(from + 8)));
            _mm256_storeu_ps(to, a);
            _mm256_storeu_ps(to + 8, b);
            qa[lane] = _mm256_fmadd_ps(qi, a, qa[lane]);
            qb[lane] = _mm256_fmadd_ps(qi, b, qb[lane]);
            na[lane] = _mm256_fmadd_ps(ni, a, na[lane]);
            nb[lane] = _mm256_fmadd_ps(ni, b, nb[lane]);
        }
    }
    _mm256_storeu_ps(out, _mm256_add_ps(qa[0], qa[1]));
    _mm256_storeu_ps(out + 8, _mm256_add_ps(qb[0], qb[1]));
    return (half_rows){_mm256_add_ps(na[0], na[1]), _mm256_add_ps(nb[0], nb[1])};
}

static void delta_rule_avx2(const mq_delta *d)
{
    const float *from = d->from;
    half_rows known = product_avx2(from, d->k, d->key_dim);
    for (uint32_t t = 0; t < d->rows; t++) {
        const uint32_t next = t + 1 < d->rows ? t + 1 : t; /* behind the last token nobody asks */
        known = update_avx2(d, t, from, correction_avx2(d, t, known), d->k + next * d->qk_stride);
        from = d->to;
    }
}

void mq__fill_avx2_delta(mq_kernels *table)
{
    table->delta_rule = delta_rule_avx2;
}
