/* Decode attention on AVX2: the idea of attention_decode_avx512.c.
 *
 * Keys: so many at once that they make 8 sums with the heads, 16 elements of two rows at a time. Values: one or two chunks of 16
 * columns.
 * Registers: keys 8 (sums) + 4 (columns of two rows) + 2; values 2*heads*chunks (sums) + 2*chunks + 1, two chunks up to 2 heads.
 * Up to 4 heads per pass, more in groups.
 * Measured (Zen 4 class, share of the read bandwidth at depth 4096, one thread of 32 GB/s / two of 36): 0.69 / 0.88 at 1:1, 0.73 /
 * 0.87 at 2:1; at 4:1 (0.50 / 0.80) and 8:1 (0.26 / 0.45) the arithmetic of this vector width takes longer than the memory. */
#include "kernels/avx2/attention_avx2.h"
#include "kernels/decode_driver.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 4,    /* query heads per pass */
    KEYS = 8,     /* keys per block, at most */
    COLUMNS = 16, /* bf16 per load */
    REST = 24,    /* floats of a head's maximum, sum and factor */
};

/* Keys of a block: as many as make, with the heads (3 count as 4), a sum for every lane. */
INLINE size_t keys_at_once_decode_avx2(size_t heads)
{
    return heads == 1 ? 8 : heads == 2 ? 4 : 2;
}

/* Lane i is the sum of v[i]'s lanes: pairs of vectors folded into one, 7 times. */
INLINE __m256 sums_of_8(__m256 v[8])
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) { /* halves: i, i+4 */
        v[i] = _mm256_add_ps(_mm256_blend_ps(v[i], v[i + 4], 0xf0), _mm256_permute2f128_ps(v[i], v[i + 4], 0x21));
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 4; i += 2) { /* in each half, two lanes of i and two of i+1 */
        const __m256d x = _mm256_castps_pd(v[i]), y = _mm256_castps_pd(v[i + 1]);
        v[i] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
    }
    return _mm256_add_ps(_mm256_shuffle_ps(v[0], v[2], 0x88), _mm256_shuffle_ps(v[0], v[2], 0xdd));
}

/* Scores of a block of keys with all heads; near, far: the rows to prefetch meanwhile. A load is half a line, so the first
 * half prefetches near and the second far. */
INLINE void score_keys_decode_avx2(const decode_side *s, const float *q, const uint16_t *rows, float *scores,
                                   size_t heads, const char *near, const char *far)
{
    const size_t keys = keys_at_once_decode_avx2(heads), step = 2 * s->width;
    __m256 sums[KEYS];
    float all[KEYS] __attribute__((aligned(32)));
#pragma GCC unroll 8
    for (size_t i = 0; i < KEYS; i++) {
        sums[i] = _mm256_setzero_ps();
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < keys; r += 2) {
        const char *row = (const char *)rows + r * step, *ahead[2] = {near + r * step, far + r * step};
        const float *queries = q;
        for (size_t pair = 0; pair < s->width / 2; pair += 8, queries += HEADS * COLUMNS) {
            const __m256i mask = first_dwords(s->width / 2 - pair);
            const __m256i v0 = _mm256_maskload_epi32((const int *)(const void *)(row + pair * 4), mask),
                          v1 = _mm256_maskload_epi32((const int *)(const void *)(row + step + pair * 4), mask);
            const __m256 low0 = low_bf16_attention_avx2(v0), high0 = high_bf16_attention_avx2(v0),
                         low1 = low_bf16_attention_avx2(v1), high1 = high_bf16_attention_avx2(v1);
            if (pair % 16 == 0) {
                _mm_prefetch(ahead[0] + pair * 4, _MM_HINT_T0);
                _mm_prefetch(ahead[0] + step + pair * 4, _MM_HINT_T0);
            } else {
                _mm_prefetch(ahead[1] + pair * 4, _MM_HINT_T1);
                _mm_prefetch(ahead[1] + step + pair * 4, _MM_HINT_T1);
            }
#pragma GCC unroll 4
            for (size_t h = 0; h < heads; h++) {
                const __m256 even = _mm256_load_ps(queries + h * COLUMNS),
                             odd = _mm256_load_ps(queries + h * COLUMNS + 8);
                __m256 *sum = sums + h * keys + r;
                sum[0] = _mm256_fmadd_ps(even, low0, sum[0]);
                sum[1] = _mm256_fmadd_ps(even, low1, sum[1]);
                sum[0] = _mm256_fmadd_ps(odd, high0, sum[0]);
                sum[1] = _mm256_fmadd_ps(odd, high1, sum[1]);
            }
        }
    }
    _mm256_store_ps(all, sums_of_8(sums));
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        memcpy(scores + h * DECODE_SCORE_STEP, all + h * keys, keys * sizeof *all);
    }
}

INLINE void score_page_decode_avx2(const decode_side *s, const float *q, size_t heads)
{
    const size_t keys = keys_at_once_decode_avx2(heads);
    for (size_t key = 0; key < s->keys; key += keys) {
        score_keys_decode_avx2(s, q, decode_block(s, key, keys), s->scores + key, heads, decode_near(s, key),
                               s->far + key * s->width * sizeof *s->rows);
    }
}

/* e^x for x <= 0; 0 below -40, where nothing is lost beside the maximum of 1 (and for -infinity). */
static inline __m256 exp_8(__m256 x)
{
    const __m256 magic = _mm256_set1_ps(MQ_EXP_MAGIC);
    const __m256 t = _mm256_fmadd_ps(x, _mm256_set1_ps(MQ_EXP_LOG2E), magic), n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-MQ_EXP_LN2_HI), x);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(-MQ_EXP_LN2_LO), r);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(MQ_EXP_C6), r, _mm256_set1_ps(MQ_EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(MQ_EXP_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256 large = _mm256_cmp_ps(x, _mm256_set1_ps(-40.0f), _CMP_GE_OQ);
    const __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23));
    return _mm256_and_ps(_mm256_castsi256_ps(scaled), large);
}

/* One head's scores of a page become weights. */
INLINE void soften_decode_avx2(float *scores, size_t count, float *rest)
{
    enum { VECTORS = MQ_PAGE_TOKENS / 8 };
    __m256 max = _mm256_load_ps(rest);
    const __m256 before = max;
    for (size_t i = 0; i < VECTORS; i++) {
        const __m256 mask = _mm256_castsi256_ps(first_dwords(count > 8 * i ? count - 8 * i : 0));
        const __m256 v = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_load_ps(scores + 8 * i), mask);
        _mm256_store_ps(scores + 8 * i, v);
        max = _mm256_max_ps(max, v);
    }
    max = _mm256_set1_ps(largest_of(max));
    const __m256 factor = exp_8(_mm256_sub_ps(before, max));
    __m256 sum = _mm256_mul_ps(_mm256_load_ps(rest + 8), factor);
    for (size_t i = 0; i < VECTORS; i++) {
        const __m256 p = exp_8(_mm256_sub_ps(_mm256_load_ps(scores + 8 * i), max));
        _mm256_store_ps(scores + 8 * i, p);
        sum = _mm256_add_ps(sum, p);
    }
    _mm256_store_ps(rest, max);
    _mm256_store_ps(rest + 8, sum);
    _mm256_store_ps(rest + 16, factor);
}

/* One value row of `wide` chunks into the sums of all heads. */
INLINE void weigh_row_decode_avx2(const char *row, const float *weights, const __m256i mask[2], __m256 even[HEADS][2],
                                  __m256 odd[HEADS][2], size_t heads, size_t wide)
{
    __m256 low[2], high[2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        const __m256i v = _mm256_maskload_epi32((const int *)(const void *)(row + w * 32), mask[w]);
        low[w] = low_bf16_attention_avx2(v);
        high[w] = high_bf16_attention_avx2(v);
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        const __m256 p = _mm256_broadcast_ss(weights + h * DECODE_SCORE_STEP);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            even[h][w] = _mm256_fmadd_ps(p, low[w], even[h][w]);
            odd[h][w] = _mm256_fmadd_ps(p, high[w], odd[h][w]);
        }
    }
}

/* sums [heads][2*wide][8] of columns [column, ...) = sums * factor + weights x values of one page. */
INLINE void weigh_columns_decode_avx2(const decode_side *s, const decode_group *t, size_t chunk, size_t heads,
                                      size_t wide)
{
    const size_t chunks = s->chunks, keys = s->keys;
    __m256i mask[2];
    __m256 even[HEADS][2], odd[HEADS][2];
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        const __m256 factor = _mm256_load_ps(t->rest + REST * h + 16);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            const float *sums = t->sums + (h * chunks + chunk + w) * 16;
            even[h][w] = _mm256_mul_ps(_mm256_load_ps(sums), factor);
            odd[h][w] = _mm256_mul_ps(_mm256_load_ps(sums + 8), factor);
        }
    }
    mask[0] = first_dwords(s->width / 2 - chunk * 8);
    mask[1] = first_dwords(wide == 2 ? s->width / 2 - chunk * 8 - 8 : 0);
    const size_t step = 2 * s->width, offset = chunk * COLUMNS * sizeof *s->rows;
    const bool first_half = wide == 2 || chunk % 2 == 0, second_half = wide == 2 || chunk % 2 == 1;
    const char *at = (const char *)s->rows + offset;
    const float *weights = s->scores;
    size_t i = 0;
    for (; i + 4 <= keys; i += 4, weights += 4) {
        const char *near = decode_near(s, i) + offset, *far = s->far + i * step + offset;
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++, at += step) {
            if (first_half) {
                _mm_prefetch(near + j * step, _MM_HINT_T0);
            }
            if (second_half) {
                _mm_prefetch(far + j * step, _MM_HINT_T1);
            }
            weigh_row_decode_avx2(at, weights + j, mask, even, odd, heads, wide);
        }
    }
    for (; i < keys; i++, at += step, weights++) {
        weigh_row_decode_avx2(at, weights, mask, even, odd, heads, wide);
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            _mm256_store_ps(t->sums + (h * chunks + chunk + w) * 16, even[h][w]);
            _mm256_store_ps(t->sums + (h * chunks + chunk + w) * 16 + 8, odd[h][w]);
        }
    }
}

/* A page's keys, then its values: `s` is at the keys. after: what is read next. */
INLINE void run_page_decode_avx2(const decode_group *t, decode_side s, const uint16_t *values, const char *after,
                                 size_t heads)
{
    const ptrdiff_t side = (const char *)values - (const char *)s.rows;
    s.next = (const char *)values;
    s.far = after;
    score_page_decode_avx2(&s, t->q, heads);
    for (size_t h = 0; h < heads; h++) {
        soften_decode_avx2(s.scores + h * DECODE_SCORE_STEP, s.keys, t->rest + REST * h);
    }
    s.rows = values;
    s.next = after;
    s.far = after + side;
    size_t chunk = 0;
    for (; heads <= 2 && chunk + 2 <= s.chunks; chunk += 2) { /* two chunks at once while the sums fit the registers */
        weigh_columns_decode_avx2(&s, t, chunk, heads, 2);
    }
    for (; chunk < s.chunks; chunk++) {
        weigh_columns_decode_avx2(&s, t, chunk, heads, 1);
    }
}

/* One copy of the loops per number of heads: the sums stay in registers. */
static void run_heads(const decode_group *t, size_t heads, const decode_side *keys, const uint16_t *values,
                      const char *after)
{
    switch (heads) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        run_page_decode_avx2(t, *keys, values, after, n);                                                              \
        break
        CASE(1);
        CASE(2);
        CASE(3);
        CASE(4);
#undef CASE
    }
}

static const decode_core core = {.heads = HEADS,
                                 .columns = COLUMNS,
                                 .ahead = 4096,
                                 .split = mq__decode_split,
                                 .join = mq__decode_join,
                                 .run = run_heads};
_Static_assert((int)KEYS <= (int)DECODE_KEYS && REST == 3 * COLUMNS / 2, "as the driver lays them out");

size_t mq__attention_decode_scratch_avx2(uint32_t heads, uint32_t head_dim)
{
    return mq__decode_scratch_bytes(&core, heads, head_dim);
}

void mq__attention_decode_span_avx2(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                    size_t head_step, size_t row_step)
{
    mq__decode_span(&core, a, kv_heads, span, partial, head_step, row_step);
}

/* The reference, 8 columns at a time. */
void mq__attention_decode_merge_avx2(const mq_attention *a, uint32_t spans, const float *partials)
{
    const size_t width = a->kv.head_dim, step = a->heads * (width + 2);
    for (size_t h = 0; h < a->heads; h++) {
        const float *first = partials + h * (width + 2);
        float max = first[width], weights = 0;
        for (size_t s = 1; s < spans; s++) {
            max = first[s * step + width] > max ? first[s * step + width] : max;
        }
        for (size_t s = 0; s < spans; s++) {
            weights = fmaf(mq__exp_f32(first[s * step + width] - max), first[s * step + width + 1], weights);
        }
        for (size_t c = 0; c < width; c += 8) {
            const __m256i mask = first_dwords(width - c);
            __m256 sum = _mm256_setzero_ps();
            for (size_t s = 0; s < spans; s++) {
                const __m256 factor = _mm256_set1_ps(mq__exp_f32(first[s * step + width] - max));
                sum = _mm256_fmadd_ps(factor, _mm256_maskload_ps(first + s * step + c, mask), sum);
            }
            _mm256_maskstore_ps(a->out + h * width + c, mask, _mm256_div_ps(sum, _mm256_set1_ps(weights)));
        }
    }
}
