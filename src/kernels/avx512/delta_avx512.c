/* The gated delta rule on AVX-512: as on AVX2 (there is the idea), a row of the panel in one register. Four FMA chains of two lanes each
 * are as many as a token's walk has to offer: one FMA port's latency is covered, and loads (4 a row) bind before the second one. */
#include "kernels/table.h"

#include <immintrin.h>

#define COLUMNS MQ_DELTA_COLUMNS

/* sum_i x_i S_ij */
static __m512 product_avx512(const float *state, const float *x, uint32_t key_dim)
{
    __m512 a = _mm512_setzero_ps(), b = a;
    for (uint32_t i = 0; i < key_dim; i += 2, state += 2 * COLUMNS) {
        a = _mm512_fmadd_ps(_mm512_set1_ps(x[i]), _mm512_loadu_ps(state), a);
        b = _mm512_fmadd_ps(_mm512_set1_ps(x[i + 1]), _mm512_loadu_ps(state + COLUMNS), b);
    }
    return _mm512_add_ps(a, b);
}

/* One token into the state: its output, and what the key `next` finds there afterwards. */
static __m512 update_avx512(const mq_delta *d, uint32_t row, const float *from, __m512 delta, const float *next)
{
    const float *k = d->k + row * d->qk_stride, *q = d->q + row * d->qk_stride;
    const __m512 decay = _mm512_set1_ps(d->decay[row * d->scalar_stride]);
    float *to = d->to;
    __m512 out[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, known[2] = {out[0], out[0]};
    for (uint32_t i = 0; i < d->key_dim; i += 2) {
        for (uint32_t lane = 0; lane < 2; lane++, from += COLUMNS, to += COLUMNS) {
            const __m512 decayed = _mm512_mul_ps(decay, _mm512_loadu_ps(from));
            const __m512 s = _mm512_fmadd_ps(_mm512_set1_ps(k[i + lane]), delta, decayed);
            _mm512_storeu_ps(to, s);
            out[lane] = _mm512_fmadd_ps(_mm512_set1_ps(q[i + lane]), s, out[lane]);
            known[lane] = _mm512_fmadd_ps(_mm512_set1_ps(next[i + lane]), s, known[lane]);
        }
    }
    _mm512_storeu_ps(d->out + row * d->out_stride, _mm512_add_ps(out[0], out[1]));
    return _mm512_add_ps(known[0], known[1]);
}

static void delta_rule_avx512(const mq_delta *d)
{
    const float *from = d->from;
    __m512 known = product_avx512(from, d->k, d->key_dim);
    for (uint32_t t = 0; t < d->rows; t++) {
        const uint32_t next = t + 1 < d->rows ? t + 1 : t; /* behind the last token nobody asks */
        const __m512 decay = _mm512_set1_ps(d->decay[t * d->scalar_stride]);
        const __m512 beta = _mm512_set1_ps(d->beta[t * d->scalar_stride]);
        const __m512 v = _mm512_loadu_ps(d->v + t * d->v_stride);
        const __m512 delta = _mm512_mul_ps(beta, _mm512_fnmadd_ps(decay, known, v));
        known = update_avx512(d, t, from, delta, d->k + next * d->qk_stride);
        from = d->to;
    }
}

void mq__fill_avx512_delta(mq_kernels *table)
{
    table->delta_rule = delta_rule_avx512;
}
