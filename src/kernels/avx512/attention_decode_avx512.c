/* Decode attention on AVX-512: the query heads of one kv head together, of all rows, so that keys and values are read once.
 *
 * Idea. decode_driver.h has the order in which memory is read; here is the arithmetic of one page.
 *   Keys: a row times the even and odd columns of each head's query, 16 lanes; so many keys at once that these sums, one
 *     vector for each key and head, are 16, which are then folded into one vector with a lane for each: 45 operations, where
 *     transposing the keys first took 256.
 *   Values: one or two chunks of 32 columns of each row; even and odd columns are the low and high halves of the dwords, summed
 *     apart and interleaved when the span is done.
 * Each line is sent for twice, two page sides (32 KiB) before it is read into L2 and 4 KiB before into L1, on Zen 4 8 KiB before
 * and into L2 again: a prefetch into L1 takes one of its few miss buffers. Either alone leaves the memory waiting (on one thread
 * of Zen 4 0.65 and 0.72 of its read bandwidth at 2:1; none 0.70, both 0.80, its own way 0.86).
 *
 * Registers: keys 16 (sums) + 8 (columns of four rows) + 2; values 2*heads*chunks (sums) + 2*chunks + 1, two chunks up to 6
 * heads. Up to 8 heads per pass, more in groups.
 *
 * Throughput at width 128, operations per key and value on two FMA ports: FMA 16*heads, widening 16, folding 3*heads, softmax
 * 0.7*heads; 2:1 takes 44 cycles on Zen 4, where FMA alone take 32.
 * Measured (Zen 4 class, checkasm --bench, share of the read bandwidth at depth 4096, one thread of 32 GB/s / two of 34): 0.69 /
 * 0.88 at 1:1, 0.78 / 0.90 at 2:1, 0.65 / 0.87 at 4:1; 0.32 / 0.60 at 8:1, where the arithmetic takes longer. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/decode_driver.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 8,    /* query heads per pass */
    KEYS = 16,    /* keys per block, at most */
    COLUMNS = 32, /* bf16 per load */
    REST = 48,    /* floats of a head's maximum, sum and factor */
};

static inline __mmask16 first_lanes_decode_avx512(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

/* A line that is soon read, and one that is read later. */
INLINE void send_for(const char *near, const char *far, const bool to_l1)
{
    if (to_l1) {
        _mm_prefetch(near, _MM_HINT_T0);
    } else {
        _mm_prefetch(near, _MM_HINT_T1);
    }
    _mm_prefetch(far, _MM_HINT_T1);
}

/* Keys of a block: as many as make, with the heads (3 count as 4, 5 to 7 as 8), a sum for every lane. */
INLINE size_t keys_at_once_decode_avx512(size_t heads)
{
    return heads == 1 ? 16 : heads == 2 ? 8 : heads <= 4 ? 4 : 2;
}

/* Lane i is the sum of v[i]'s lanes: pairs of vectors folded into one, 15 times. */
INLINE __m512 sums_of_16(__m512 v[16])
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) { /* halves: i, i+4 and i+8, i+12 */
#pragma GCC unroll 2
        for (size_t j = i; j < 16; j += 8) {
            v[j] =
                _mm512_add_ps(_mm512_mask_blend_ps(0xff00, v[j], v[j + 4]), _mm512_shuffle_f32x4(v[j], v[j + 4], 0x4e));
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) { /* quarters: i, i+4, i+8, i+12 */
        v[i] = _mm512_add_ps(_mm512_shuffle_f32x4(v[i], v[i + 8], 0x88), _mm512_shuffle_f32x4(v[i], v[i + 8], 0xdd));
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 4; i += 2) { /* in each quarter, two lanes of i and two of i+1 */
        const __m512d x = _mm512_castps_pd(v[i]), y = _mm512_castps_pd(v[i + 1]);
        v[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    }
    return _mm512_add_ps(_mm512_shuffle_ps(v[0], v[2], 0x88), _mm512_shuffle_ps(v[0], v[2], 0xdd));
}

/* Scores of a block of keys with all heads; near, far: the rows to prefetch meanwhile. Four rows at a time are read to their
 * end, so that memory is read in the order of its addresses: all rows of the block column by column is 6% slower. */
INLINE void score_keys_decode_avx512(const decode_side *s, const float *q, const uint16_t *rows, float *scores,
                                     size_t heads, const char *near, const char *far, const bool to_l1)
{
    const size_t keys = keys_at_once_decode_avx512(heads), together = keys < 4 ? keys : 4, step = 2 * s->width;
    __m512 sums[KEYS];
    float all[KEYS] __attribute__((aligned(64)));
#pragma GCC unroll 16
    for (size_t i = 0; i < KEYS; i++) {
        sums[i] = _mm512_setzero_ps();
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < keys; r += together) {
        const float *queries = q;
        for (size_t pair = 0; pair < s->width / 2; pair += 16, queries += HEADS * COLUMNS) {
            const __mmask16 mask = first_lanes_decode_avx512(s->width / 2 - pair);
            __m512 low[4], high[4];
#pragma GCC unroll 4
            for (size_t i = 0; i < together; i++) {
                const size_t at = (r + i) * step + pair * 4;
                const __m512i v = _mm512_maskz_loadu_epi32(mask, (const char *)rows + at);
                send_for(near + at, far + at, to_l1);
                low[i] = low_bf16_attention_avx512(v);
                high[i] = high_bf16_attention_avx512(v);
            }
#pragma GCC unroll 8
            for (size_t h = 0; h < heads; h++) {
                const __m512 even = _mm512_load_ps(queries + h * COLUMNS),
                             odd = _mm512_load_ps(queries + h * COLUMNS + 16);
                __m512 *sum = sums + h * keys + r;
#pragma GCC unroll 4
                for (size_t i = 0; i < together; i++) {
                    sum[i] = _mm512_fmadd_ps(even, low[i], sum[i]);
                }
#pragma GCC unroll 4
                for (size_t i = 0; i < together; i++) {
                    sum[i] = _mm512_fmadd_ps(odd, high[i], sum[i]);
                }
            }
        }
    }
    _mm512_store_ps(all, sums_of_16(sums));
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        memcpy(scores + h * DECODE_SCORE_STEP, all + h * keys, keys * sizeof *all);
    }
}

INLINE void score_page_decode_avx512(const decode_side *s, const float *q, size_t heads, const bool to_l1)
{
    const size_t keys = keys_at_once_decode_avx512(heads);
    for (size_t key = 0; key < s->keys; key += keys) {
        score_keys_decode_avx512(s, q, decode_block(s, key, keys), s->scores + key, heads, decode_near(s, key),
                                 s->far + key * s->width * sizeof *s->rows, to_l1);
    }
}

/* e^x for x <= 0; 0 below -40, where nothing is lost beside the maximum of 1 (and for -infinity). */
static inline __m512 exp_16(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(MQ_EXP_MAGIC);
    const __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(MQ_EXP_LOG2E), magic), n = _mm512_sub_ps(t, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-MQ_EXP_LN2_HI), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(-MQ_EXP_LN2_LO), r);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(MQ_EXP_C6), r, _mm512_set1_ps(MQ_EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(MQ_EXP_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-40.0f), _CMP_GE_OQ);
    return _mm512_castsi512_ps(
        _mm512_maskz_add_epi32(large, _mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

/* One head's scores of a page become weights; rest: its maximum, sum, and the factor for what was summed before. */
INLINE void soften_decode_avx512(float *scores, size_t count, float *rest)
{
    __m512 v[MQ_PAGE_TOKENS / 16], max = _mm512_load_ps(rest);
    const __m512 before = max;
#pragma GCC unroll 4
    for (size_t i = 0; i < MQ_PAGE_TOKENS / 16; i++) {
        const __mmask16 mask = count > 16 * i ? first_lanes_decode_avx512(count - 16 * i) : 0;
        v[i] = _mm512_mask_load_ps(_mm512_set1_ps(-INFINITY), mask, scores + 16 * i);
        max = _mm512_max_ps(max, v[i]);
    }
    max = _mm512_set1_ps(_mm512_reduce_max_ps(max));
    const __m512 factor = exp_16(_mm512_sub_ps(before, max));
    __m512 sum = _mm512_mul_ps(_mm512_load_ps(rest + 16), factor);
#pragma GCC unroll 4
    for (size_t i = 0; i < MQ_PAGE_TOKENS / 16; i++) {
        const __m512 p = exp_16(_mm512_sub_ps(v[i], max));
        _mm512_store_ps(scores + 16 * i, p);
        sum = _mm512_add_ps(sum, p);
    }
    _mm512_store_ps(rest, max);
    _mm512_store_ps(rest + 16, sum);
    _mm512_store_ps(rest + 32, factor);
}

/* One value row of `wide` chunks into the sums of all heads. */
INLINE void weigh_row_decode_avx512(const char *row, const float *weights, const __mmask16 mask[2],
                                    __m512 even[HEADS][2], __m512 odd[HEADS][2], size_t heads, size_t wide)
{
    __m512 low[2], high[2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        const __m512i v = _mm512_maskz_loadu_epi32(mask[w], row + w * 64);
        low[w] = low_bf16_attention_avx512(v);
        high[w] = high_bf16_attention_avx512(v);
    }
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        const __m512 p = _mm512_set1_ps(weights[h * DECODE_SCORE_STEP]);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            even[h][w] = _mm512_fmadd_ps(p, low[w], even[h][w]);
            odd[h][w] = _mm512_fmadd_ps(p, high[w], odd[h][w]);
        }
    }
}

/* sums [heads][2*wide][16] of columns [column, ...) = sums * factor + weights x values of one page. */
INLINE void weigh_columns_decode_avx512(const decode_side *s, const decode_group *t, size_t chunk, size_t heads,
                                        size_t wide, const bool to_l1)
{
    const size_t chunks = s->chunks, keys = s->keys;
    __mmask16 mask[2];
    __m512 even[HEADS][2], odd[HEADS][2];
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        const __m512 factor = _mm512_load_ps(t->rest + REST * h + 32);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            const float *sums = t->sums + (h * chunks + chunk + w) * 32;
            even[h][w] = _mm512_mul_ps(_mm512_load_ps(sums), factor);
            odd[h][w] = _mm512_mul_ps(_mm512_load_ps(sums + 16), factor);
        }
    }
    mask[0] = first_lanes_decode_avx512(s->width / 2 - chunk * 16);
    mask[1] = wide == 2 ? first_lanes_decode_avx512(s->width / 2 - chunk * 16 - 16) : 0;
    const size_t step = 2 * s->width, offset = chunk * COLUMNS * sizeof *s->rows;
    const char *at = (const char *)s->rows + offset;
    const float *weights = s->scores;
    size_t i = 0;
    for (; i + 4 <= keys; i += 4, weights += 4) {
        const char *near = decode_near(s, i) + offset, *far = s->far + i * step + offset;
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++, at += step) {
#pragma GCC unroll 2
            for (size_t w = 0; w < wide; w++) {
                send_for(near + j * step + w * 64, far + j * step + w * 64, to_l1);
            }
            weigh_row_decode_avx512(at, weights + j, mask, even, odd, heads, wide);
        }
    }
    for (; i < keys; i++, at += step, weights++) {
        weigh_row_decode_avx512(at, weights, mask, even, odd, heads, wide);
    }
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            _mm512_store_ps(t->sums + (h * chunks + chunk + w) * 32, even[h][w]);
            _mm512_store_ps(t->sums + (h * chunks + chunk + w) * 32 + 16, odd[h][w]);
        }
    }
}

/* A page's keys, then its values: `s` is at the keys. after: what is read next. */
INLINE void run_page_decode_avx512(const decode_group *t, decode_side s, const uint16_t *values, const char *after,
                                   size_t heads, const bool to_l1)
{
    const ptrdiff_t side = (const char *)values - (const char *)s.rows;
    s.next = (const char *)values;
    s.far = after;
    score_page_decode_avx512(&s, t->q, heads, to_l1);
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        soften_decode_avx512(s.scores + h * DECODE_SCORE_STEP, s.keys, t->rest + REST * h);
    }
    s.rows = values;
    s.next = after;
    s.far = after + side;
    size_t chunk = 0;
    for (; heads <= 6 && chunk + 2 <= s.chunks; chunk += 2) { /* two chunks at once while the sums fit the registers */
        weigh_columns_decode_avx512(&s, t, chunk, heads, 2, to_l1);
    }
    for (; chunk < s.chunks; chunk++) {
        weigh_columns_decode_avx512(&s, t, chunk, heads, 1, to_l1);
    }
}

/* One copy of the loops per number of heads: the sums stay in registers. */
#define CASE(n, to_l1)                                                                                                 \
    case n:                                                                                                            \
        run_page_decode_avx512(t, *keys, values, after, n, to_l1);                                                     \
        break;
#define RUN(name, to_l1)                                                                                               \
    static void name(const decode_group *t, size_t heads, const decode_side *keys, const uint16_t *values,             \
                     const char *after)                                                                                \
    {                                                                                                                  \
        switch (heads) {                                                                                               \
            CASE(1, to_l1)                                                                                             \
            CASE(2, to_l1)                                                                                             \
            CASE(3, to_l1)                                                                                             \
            CASE(4, to_l1)                                                                                             \
            CASE(5, to_l1)                                                                                             \
            CASE(6, to_l1)                                                                                             \
            CASE(7, to_l1)                                                                                             \
            CASE(8, to_l1)                                                                                             \
        }                                                                                                              \
    }
RUN(run_to_l1, true)
RUN(run_to_l2, false)

static void split_decode_avx512(const float *pairs, size_t count, float scale, float *even, float *odd)
{
    const __m512i evens = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __mmask16 low = first_lanes_decode_avx512(2 * count),
                    high = count > 8 ? first_lanes_decode_avx512(2 * count - 16) : 0;
    const __m512 a = _mm512_maskz_loadu_ps(low, pairs), b = _mm512_maskz_loadu_ps(high, pairs + 16);
    const __m512 by = _mm512_set1_ps(scale);
    _mm512_store_ps(even, _mm512_mul_ps(_mm512_permutex2var_ps(a, evens, b), by));
    _mm512_store_ps(odd,
                    _mm512_mul_ps(_mm512_permutex2var_ps(a, _mm512_add_epi32(evens, _mm512_set1_epi32(1)), b), by));
}

static void join_decode_avx512(const float *even, const float *odd, size_t count, float *pairs)
{
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __mmask16 low = first_lanes_decode_avx512(2 * count),
                    high = count > 8 ? first_lanes_decode_avx512(2 * count - 16) : 0;
    const __m512 a = _mm512_load_ps(even), b = _mm512_load_ps(odd);
    _mm512_mask_storeu_ps(pairs, low, _mm512_permutex2var_ps(a, first, b));
    _mm512_mask_storeu_ps(pairs + 16, high,
                          _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b));
}

static const decode_core to_l1_core = {.heads = HEADS,
                                       .columns = COLUMNS,
                                       .ahead = 4096,
                                       .split = split_decode_avx512,
                                       .join = join_decode_avx512,
                                       .run = run_to_l1};
static const decode_core to_l2_core = {.heads = HEADS,
                                       .columns = COLUMNS,
                                       .ahead = 8192,
                                       .split = split_decode_avx512,
                                       .join = join_decode_avx512,
                                       .run = run_to_l2};
_Static_assert((int)KEYS <= (int)DECODE_KEYS && REST == 3 * COLUMNS / 2, "as the driver lays them out");

size_t mq__attention_decode_scratch_avx512(uint32_t heads, uint32_t head_dim)
{
    return mq__decode_scratch_bytes(&to_l1_core, heads, head_dim);
}

void mq__attention_decode_span_l1_avx512(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                         size_t head_step, size_t row_step)
{
    mq__decode_span(&to_l1_core, a, kv_heads, span, partial, head_step, row_step);
}

void mq__attention_decode_span_l2_avx512(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                         size_t head_step, size_t row_step)
{
    mq__decode_span(&to_l2_core, a, kv_heads, span, partial, head_step, row_step);
}

/* The reference, 16 columns at a time. */
void mq__attention_decode_merge_avx512(const mq_attention *a, uint32_t spans, const float *partials)
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
        for (size_t c = 0; c < width; c += 16) {
            const __mmask16 mask = first_lanes_decode_avx512(width - c);
            __m512 sum = _mm512_setzero_ps();
            for (size_t s = 0; s < spans; s++) {
                const __m512 factor = _mm512_set1_ps(mq__exp_f32(first[s * step + width] - max));
                sum = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(mask, first + s * step + c), sum);
            }
            _mm512_mask_storeu_ps(a->out + h * width + c, mask, _mm512_div_ps(sum, _mm512_set1_ps(weights)));
        }
    }
}
