/* Decode attention on AVX-512: one query token, the heads of one kv head together, so that keys and values are read once.
 *
 * Idea. A span's keys are streamed first, then its values; its scores wait in L1 in between.
 *   Keys: 16 at a time, 32 elements of each; the 16x16 dwords are transposed in registers, so that a lane is a key and each
 *     head's score vector is a plain FMA chain with a broadcast query element: no horizontal sums. A dword holds two bf16,
 *     so one transposition serves two FMA steps.
 *   Values: 32 keys at a time, 32 columns of each; even and odd columns are the low and high halves of the dwords, summed
 *     apart and interleaved when the span is done.
 * Each load of 64 bytes is paired with a prefetch of the same place 32 keys later, which crosses pages where the hardware
 * prefetcher does not.
 *
 * Registers: keys 16 (tile) + heads (sums) + 2; values 2*heads (sums) + 2 + 1. Up to 8 heads per pass, more in groups. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 8,                        /* query heads per pass */
    KEYS = 16,                        /* keys per transposition */
    VALUES = 32,                      /* keys per round over the values */
    COLUMNS = 32,                     /* bf16 per load */
    SCORE_STEP = MQ_SPAN_TOKENS + 16, /* floats between two heads' scores: not a multiple of 4 KiB */
};

/* One group of heads at work on one span; the parts of the scratch, 64-byte aligned. */
typedef struct span {
    const mq_kv_view *kv;
    size_t key0, count, width; /* keys [key0, key0 + count) */
    size_t chunks;             /* ceil(width / COLUMNS) */
    float *q;                  /* [chunks*COLUMNS][heads], scaled */
    float *scores;             /* [heads][SCORE_STEP] */
    float *sums;               /* [heads][chunks][2][16]: even and odd columns */
} span;

static inline __mmask16 first_lanes(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

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

/* Scores of keys [key, key + 16); a row past the end repeats the last one, its score is replaced later. */
INLINE void score_keys(const span *s, size_t key, size_t heads)
{
    const size_t left = s->count - key < KEYS ? s->count - key : KEYS, pairs = s->width / 2;
    const uint16_t *rows[KEYS], *ahead[KEYS];
    for (size_t r = 0; r < KEYS; r++) {
        rows[r] = row_of(s, s->kv->k_offset, key + (r < left ? r : left - 1));
        ahead[r] = row_ahead(s, key + VALUES + r);
    }
    __m512 even[HEADS], odd[HEADS];
    const size_t chains = heads > 4 ? 1 : 2; /* enough chains for two ports of four cycles */
    for (size_t h = 0; h < heads; h++) {
        even[h] = odd[h] = _mm512_setzero_ps();
    }
    const float *q = s->q;
    for (size_t pair = 0; pair < pairs; pair += 16) {
        const __mmask16 mask = first_lanes(pairs - pair);
        __m512i v[KEYS];
#pragma GCC unroll 16
        for (size_t r = 0; r < KEYS; r++) {
            v[r] = _mm512_maskz_loadu_epi32(mask, rows[r] + 2 * pair);
            _mm_prefetch((const char *)(ahead[r] + 2 * pair), _MM_HINT_T0);
        }
        transpose_16x16(v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++, q += 2 * heads) {
            const __m512 low = low_bf16(v[i]), high = high_bf16(v[i]);
#pragma GCC unroll 8
            for (size_t h = 0; h < heads; h++) {
                even[h] = _mm512_fmadd_ps(_mm512_set1_ps(q[h]), low, even[h]);
                if (chains == 2) {
                    odd[h] = _mm512_fmadd_ps(_mm512_set1_ps(q[heads + h]), high, odd[h]);
                } else {
                    even[h] = _mm512_fmadd_ps(_mm512_set1_ps(q[heads + h]), high, even[h]);
                }
            }
        }
    }
    for (size_t h = 0; h < heads; h++) {
        _mm512_store_ps(s->scores + h * SCORE_STEP + key, chains == 2 ? _mm512_add_ps(even[h], odd[h]) : even[h]);
    }
}

/* e^x for x <= 0; 0 below -40, where nothing is lost beside the span's maximum of 1 (and for -infinity). */
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

/* Scores become weights; returns their sum and the maximum. */
static float soften(float *scores, size_t count, float *maximum)
{
    const size_t whole = count / 16 * 16;
    __m512 max = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (size_t i = 0; i < whole; i += 16) {
        max = _mm512_max_ps(max, _mm512_load_ps(scores + i));
    }
    if (whole < count) {
        const __m512 last = _mm512_mask_load_ps(_mm512_set1_ps(-INFINITY), first_lanes(count - whole), scores + whole);
        _mm512_store_ps(scores + whole, last);
        max = _mm512_max_ps(max, last);
    }
    *maximum = _mm512_reduce_max_ps(max);
    max = _mm512_set1_ps(*maximum);
    for (size_t i = 0; i < count; i += 16) {
        const __m512 p = exp_16(_mm512_sub_ps(_mm512_load_ps(scores + i), max));
        _mm512_store_ps(scores + i, p);
        sum = _mm512_add_ps(sum, p);
    }
    return _mm512_reduce_add_ps(sum);
}

/* Adds keys [key, key + VALUES) of the values, cut at the end of the span, to the sums. */
INLINE void weigh_values(const span *s, size_t key, size_t heads)
{
    const size_t left = s->count - key < VALUES ? s->count - key : VALUES;
    const uint16_t *rows = row_of(s, s->kv->v_offset, key);
    const size_t next = key + VALUES < s->count ? key + VALUES : key;
    const uint16_t *ahead = row_of(s, s->kv->v_offset, next);
    for (size_t chunk = 0; chunk < s->chunks; chunk++) {
        const __mmask16 mask = first_lanes(s->width / 2 - chunk * 16);
        __m512 even[HEADS], odd[HEADS];
#pragma GCC unroll 8
        for (size_t h = 0; h < heads; h++) {
            even[h] = _mm512_load_ps(s->sums + (h * s->chunks + chunk) * 32);
            odd[h] = _mm512_load_ps(s->sums + (h * s->chunks + chunk) * 32 + 16);
        }
        for (size_t i = 0; i < left; i++) {
            const size_t at = i * s->width + chunk * COLUMNS;
            const __m512i v = _mm512_maskz_loadu_epi32(mask, rows + at);
            const __m512 low = low_bf16(v), high = high_bf16(v);
            _mm_prefetch((const char *)(ahead + at), _MM_HINT_T0);
#pragma GCC unroll 8
            for (size_t h = 0; h < heads; h++) {
                const __m512 p = _mm512_set1_ps(s->scores[h * SCORE_STEP + key + i]);
                even[h] = _mm512_fmadd_ps(p, low, even[h]);
                odd[h] = _mm512_fmadd_ps(p, high, odd[h]);
            }
        }
#pragma GCC unroll 8
        for (size_t h = 0; h < heads; h++) {
            _mm512_store_ps(s->sums + (h * s->chunks + chunk) * 32, even[h]);
            _mm512_store_ps(s->sums + (h * s->chunks + chunk) * 32 + 16, odd[h]);
        }
    }
}

static void store_sums(const span *s, size_t head, float *out)
{
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    for (size_t chunk = 0; chunk < s->chunks; chunk++) {
        const float *sums = s->sums + (head * s->chunks + chunk) * 32;
        const __m512 even = _mm512_load_ps(sums), odd = _mm512_load_ps(sums + 16);
        const size_t column = chunk * COLUMNS, left = s->width - column;
        _mm512_mask_storeu_ps(out + column, first_lanes(left), _mm512_permutex2var_ps(even, low, odd));
        if (left > 16) {
            _mm512_mask_storeu_ps(out + column + 16, first_lanes(left - 16), _mm512_permutex2var_ps(even, high, odd));
        }
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
    memset(s->sums, 0, heads * s->chunks * 32 * sizeof(float));
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
    case 4:
        run_span(s, 4, q, scale, partial);
        break;
    case 5:
        run_span(s, 5, q, scale, partial);
        break;
    case 6:
        run_span(s, 6, q, scale, partial);
        break;
    case 7:
        run_span(s, 7, q, scale, partial);
        break;
    default:
        run_span(s, 8, q, scale, partial);
        break;
    }
}

size_t mq__attention_decode_scratch_avx512(uint32_t heads, uint32_t head_width)
{
    (void)heads;
    const size_t columns = ((size_t)head_width + COLUMNS - 1) / COLUMNS * COLUMNS;
    return HEADS * (2 * columns + SCORE_STEP) * sizeof(float);
}

void mq__attention_decode_span_avx512(const mq_attention *a, uint32_t key0, uint32_t key1, float *partial)
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

/* The reference, 16 columns at a time. */
void mq__attention_decode_merge_avx512(const mq_attention *a, uint32_t spans, const float *partials)
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
        for (size_t c = 0; c < width; c += 16) {
            const __mmask16 mask = first_lanes(width - c);
            __m512 sum = _mm512_setzero_ps();
            for (size_t s = 0; s < spans; s++) {
                const __m512 factor = _mm512_set1_ps(mq__exp_f32(first[s * step + width] - max));
                sum = _mm512_fmadd_ps(factor, _mm512_maskz_loadu_ps(mask, first + s * step + c), sum);
            }
            _mm512_mask_storeu_ps(a->out + h * width + c, mask, _mm512_div_ps(sum, _mm512_set1_ps(weights)));
        }
    }
}
