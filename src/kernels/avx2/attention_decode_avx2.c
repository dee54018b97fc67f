/* Decode attention on AVX2: one query token, the heads of one kv head together, so that keys and values are read once.
 *
 * Idea. A span's keys are streamed first, then its values; its scores wait in L1 in between.
 *   Keys: 8 at a time, 16 elements of each; the 8x8 dwords are transposed in registers, so that a lane is a key and each
 *     head's score vector is a plain FMA chain with a broadcast query element: no horizontal sums. A dword holds two bf16,
 *     so one transposition serves two FMA steps.
 *   Values: 32 keys at a time, 16 columns of each; even and odd columns are the low and high halves of the dwords, summed
 *     apart and interleaved when the span is done.
 * Each load is paired with a prefetch of the same place 32 keys later, which crosses pages where the hardware
 * prefetcher does not.
 *
 * Registers: keys 8 (tile) + heads (sums) + 2; values 2*heads (sums) + 2 + 1. Up to 4 heads per pass, more in groups. */
#include "kernels/avx2/attention_avx2.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 4,                        /* query heads per pass */
    KEYS = 8,                         /* keys per transposition */
    VALUES = 32,                      /* keys per round over the values */
    COLUMNS = 16,                     /* bf16 per load */
    SCORE_STEP = MQ_SPAN_TOKENS + 16, /* floats between two heads' scores: not a multiple of 4 KiB */
};

/* One group of heads at work on one span; the parts of the scratch, 64-byte aligned. */
typedef struct span {
    const mq_kv_view *kv;
    size_t key0, count, width; /* keys [key0, key0 + count) */
    size_t chunks;             /* ceil(width / COLUMNS) */
    float *q;                  /* [chunks*COLUMNS][heads], scaled */
    float *scores;             /* [heads][SCORE_STEP] */
    float *sums;               /* [heads][chunks][2][8]: even and odd columns */
} span;

static inline const uint16_t *row_of(const span *s, size_t offset, size_t key)
{
    const size_t token = s->key0 + key;
    return s->kv->pages[token / MQ_PAGE_TOKENS] + offset + token % MQ_PAGE_TOKENS * s->width;
}

/* Key rows first, value rows behind them: what is worth prefetching when `key` is up to count + VALUES. */
static inline const uint16_t *row_ahead(const span *s, size_t key)
{
    const size_t in_values = key >= s->count ? key - s->count : 0;
    return key < s->count ? row_of(s, s->kv->k_offset, key)
                          : row_of(s, s->kv->v_offset, in_values < s->count ? in_values : s->count - 1);
}

/* Scores of keys [key, key + 8); a row past the end repeats the last one, its score is replaced later. */
INLINE void score_keys(const span *s, size_t key, size_t heads)
{
    const size_t left = s->count - key < KEYS ? s->count - key : KEYS, pairs = s->width / 2;
    const uint16_t *rows[KEYS], *ahead[KEYS];
    for (size_t r = 0; r < KEYS; r++) {
        rows[r] = row_of(s, s->kv->k_offset, key + (r < left ? r : left - 1));
        ahead[r] = row_ahead(s, key + VALUES + r);
    }
    __m256 even[HEADS], odd[HEADS];
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        even[h] = odd[h] = _mm256_setzero_ps();
    }
    const float *q = s->q;
    for (size_t pair = 0; pair < pairs; pair += 8) {
        const __m256i mask = first_dwords(pairs - pair);
        __m256i v[KEYS];
#pragma GCC unroll 8
        for (size_t r = 0; r < KEYS; r++) {
            v[r] = _mm256_maskload_epi32((const int *)(const void *)(rows[r] + 2 * pair), mask);
            _mm_prefetch((const char *)(ahead[r] + 2 * pair), _MM_HINT_T0);
        }
        transpose_8x8(v);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++, q += 2 * heads) {
            const __m256 low = low_bf16(v[i]), high = high_bf16(v[i]);
#pragma GCC unroll 4
            for (size_t h = 0; h < heads; h++) {
                even[h] = _mm256_fmadd_ps(_mm256_set1_ps(q[h]), low, even[h]);
                odd[h] = _mm256_fmadd_ps(_mm256_set1_ps(q[heads + h]), high, odd[h]);
            }
        }
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        _mm256_store_ps(s->scores + h * SCORE_STEP + key, _mm256_add_ps(even[h], odd[h]));
    }
}

/* e^x for x <= 0; 0 below -40, where nothing is lost beside the span's maximum of 1 (and for -infinity). */
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

/* Scores become weights; returns their sum and the maximum. */
static float soften(float *scores, size_t count, float *maximum)
{
    const size_t whole = count / 8 * 8;
    __m256 max = _mm256_set1_ps(-INFINITY), sum = _mm256_setzero_ps();
    for (size_t i = 0; i < whole; i += 8) {
        max = _mm256_max_ps(max, _mm256_load_ps(scores + i));
    }
    if (whole < count) {
        const __m256 mask = _mm256_castsi256_ps(first_dwords(count - whole));
        const __m256 last = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), _mm256_load_ps(scores + whole), mask);
        _mm256_store_ps(scores + whole, last);
        max = _mm256_max_ps(max, last);
    }
    *maximum = largest_of(max);
    max = _mm256_set1_ps(*maximum);
    for (size_t i = 0; i < count; i += 8) {
        const __m256 p = exp_8(_mm256_sub_ps(_mm256_load_ps(scores + i), max));
        _mm256_store_ps(scores + i, p);
        sum = _mm256_add_ps(sum, p);
    }
    return sum_of(sum);
}

/* Adds keys [key, key + VALUES) of the values, cut at the end of the span, to the sums. */
INLINE void weigh_values(const span *s, size_t key, size_t heads)
{
    const size_t left = s->count - key < VALUES ? s->count - key : VALUES;
    const uint16_t *rows = row_of(s, s->kv->v_offset, key);
    const size_t next = key + VALUES < s->count ? key + VALUES : key;
    const uint16_t *ahead = row_of(s, s->kv->v_offset, next);
    for (size_t chunk = 0; chunk < s->chunks; chunk++) {
        const __m256i mask = first_dwords(s->width / 2 - chunk * 8);
        __m256 even[HEADS], odd[HEADS];
#pragma GCC unroll 4
        for (size_t h = 0; h < heads; h++) {
            even[h] = _mm256_load_ps(s->sums + (h * s->chunks + chunk) * 16);
            odd[h] = _mm256_load_ps(s->sums + (h * s->chunks + chunk) * 16 + 8);
        }
        for (size_t i = 0; i < left; i++) {
            const size_t at = i * s->width + chunk * COLUMNS;
            const __m256i v = _mm256_maskload_epi32((const int *)(const void *)(rows + at), mask);
            const __m256 low = low_bf16(v), high = high_bf16(v);
            _mm_prefetch((const char *)(ahead + at), _MM_HINT_T0);
#pragma GCC unroll 4
            for (size_t h = 0; h < heads; h++) {
                const __m256 p = _mm256_set1_ps(s->scores[h * SCORE_STEP + key + i]);
                even[h] = _mm256_fmadd_ps(p, low, even[h]);
                odd[h] = _mm256_fmadd_ps(p, high, odd[h]);
            }
        }
#pragma GCC unroll 4
        for (size_t h = 0; h < heads; h++) {
            _mm256_store_ps(s->sums + (h * s->chunks + chunk) * 16, even[h]);
            _mm256_store_ps(s->sums + (h * s->chunks + chunk) * 16 + 8, odd[h]);
        }
    }
}

static void store_sums(const span *s, size_t head, float *out)
{
    for (size_t c = 0; c < s->width; c += 2) {
        const float *sums = s->sums + (head * s->chunks + c / COLUMNS) * 16 + c % COLUMNS / 2;
        out[c] = sums[0];
        out[c + 1] = sums[8];
    }
}

/* q [heads][width] and partial [heads][width + 2] of this group. */
INLINE void run_span(const span *s, size_t heads, const float *q, float scale, float *partial)
{
    for (size_t h = 0; h < heads; h++) {
        for (size_t k = 0; k < s->width; k++) {
            s->q[k * heads + h] = q[h * s->width + k] * scale;
        }
    }
    memset(s->q + s->width * heads, 0, (s->chunks * COLUMNS - s->width) * heads * sizeof(float));
    memset(s->sums, 0, heads * s->chunks * 16 * sizeof(float));
    for (size_t key = 0; key < s->count; key += KEYS) {
        score_keys(s, key, heads);
    }
    for (size_t h = 0; h < heads; h++) {
        float *end = partial + h * (s->width + 2) + s->width;
        end[1] = soften(s->scores + h * SCORE_STEP, s->count, end);
    }
    for (size_t key = 0; key < s->count; key += VALUES) {
        weigh_values(s, key, heads);
    }
    for (size_t h = 0; h < heads; h++) {
        store_sums(s, h, partial + h * (s->width + 2));
    }
}

/* One copy of the loops per number of heads: the sums stay in registers. */
static void run_heads(const span *s, size_t heads, const float *q, float scale, float *partial)
{
    switch (heads) {
    case 1:
        run_span(s, 1, q, scale, partial);
        break;
    case 2:
        run_span(s, 2, q, scale, partial);
        break;
    case 3:
        run_span(s, 3, q, scale, partial);
        break;
    default:
        run_span(s, 4, q, scale, partial);
        break;
    }
}

size_t mq__attention_decode_scratch_avx2(uint32_t heads, uint32_t head_width)
{
    (void)heads;
    const size_t columns = ((size_t)head_width + COLUMNS - 1) / COLUMNS * COLUMNS;
    return HEADS * (2 * columns + SCORE_STEP) * sizeof(float);
}

void mq__attention_decode_span_avx2(const mq_attention *a, uint32_t key0, uint32_t key1, float *partial)
{
    const size_t width = a->kv.head_width;
    span s = {.kv = &a->kv, .key0 = key0, .count = key1 - key0, .width = width};
    s.chunks = (width + COLUMNS - 1) / COLUMNS;
    s.q = a->scratch;
    s.scores = s.q + HEADS * s.chunks * COLUMNS;
    s.sums = s.scores + HEADS * SCORE_STEP;
    for (size_t h = 0; h < a->heads; h += HEADS) {
        const size_t heads = a->heads - h < HEADS ? a->heads - h : HEADS;
        run_heads(&s, heads, a->q + h * width, a->scale, partial + h * (width + 2));
    }
}

/* The reference, 8 columns at a time. */
void mq__attention_decode_merge_avx2(const mq_attention *a, uint32_t spans, const float *partials)
{
    const size_t width = a->kv.head_width, step = a->heads * (width + 2);
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
