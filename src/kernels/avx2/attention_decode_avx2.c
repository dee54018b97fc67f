/* Decode attention on AVX2: one query token, the heads of one kv head together, so that keys and values are read once.
 *
 * Idea. A span's keys are streamed first, then its values; its scores wait in L1 in between.
 *   Keys: 8 at a time, 16 elements of each; the 8x8 dwords are transposed in registers, so that a lane is a key and each
 *     head's score vector is a plain FMA chain with a broadcast query element: no horizontal sums. A dword holds two bf16,
 *     so one transposition serves two FMA steps.
 *   Values: a page at a time, one or two chunks of 16 columns of each row; even and odd columns are the low and high halves
 *     of the dwords, summed apart and interleaved when the span is done.
 * While a page side (64 keys or values, 16 KiB at width 128) is worked on, the next one is prefetched, evenly over the work
 * and in four streams, a quarter of the side each.
 *
 * Registers: keys 8 (transposed) + heads (sums) + 2; values 2*heads*chunks (sums) + 2*chunks + 1, two chunks up to 2 heads.
 * Up to 4 heads per pass, more in groups.
 * Measured, 2-core Cascade Lake class, 2.5 GHz, one thread, share of its read bandwidth at depth 4096: 0.86 at 1:1, 0.82 at
 * 2:1; at 4:1 (0.6) and 8:1 (0.35) the arithmetic of this vector width takes longer than the memory. */
#include "kernels/avx2/attention_avx2.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 4,                        /* query heads per pass */
    KEYS = 8,                         /* keys per transposition */
    COLUMNS = 16,                     /* bf16 per load */
    SCORE_STEP = MQ_SPAN_TOKENS + 16, /* floats between two heads' scores: not a multiple of 4 KiB */
};

/* One group of heads at work on one span; the parts of the scratch, 64-byte aligned. */
typedef struct span {
    const mq_kv_view *kv;
    size_t first_page, count, width; /* `count` keys from the start of that page */
    size_t chunks;                   /* ceil(width / COLUMNS) */
    float *q;                        /* [chunks*COLUMNS][heads], scaled */
    float *scores;                   /* [heads][SCORE_STEP] */
    float *sums;                     /* [heads][chunks][2][8]: even and odd columns */
    uint16_t *tail;                  /* [KEYS][width] */
    const uint16_t *after;           /* the keys of the next span: prefetched at the end */
} span;

static inline const uint16_t *key_page(const span *s, size_t page)
{
    return s->kv->pages[s->first_page + page] + s->kv->k_offset;
}

static inline const uint16_t *value_page(const span *s, size_t page)
{
    return s->kv->pages[s->first_page + page] + s->kv->v_offset;
}

/* Keeps the compiler from precomputing addresses that the addressing modes give for nothing. */
#define OPAQUE(x) __asm__("" : "+r"(x))

/* Prefetches the i-th line of a page side in four streams, a quarter (step) of the side each. Always inlined: gcc takes a
 * function that only prefetches for one without effects and drops the call. */
INLINE void prefetch_line(const char *side, size_t i, size_t step, size_t step3)
{
    _mm_prefetch(i % 4 == 3 ? side + step3 + i / 4 * 64 : side + i % 4 * step + i / 4 * 64, _MM_HINT_T0);
}

/* Scores of 8 keys, while 4 lines per chunk are prefetched from `next` on. */
INLINE void score_keys(const span *s, const uint16_t *rows, float *scores, size_t heads, const char *next)
{
    const size_t width = s->width, pairs = width / 2;
    size_t step = 2 * width, step3 = 6 * width, quarter = width * 32, quarter3 = width * 96;
    const char *low_rows = (const char *)rows, *high_rows = (const char *)(rows + 4 * width);
    __m256 even[HEADS], odd[HEADS];
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        even[h] = odd[h] = _mm256_setzero_ps();
    }
    const float *q = s->q;
    for (size_t pair = 0; pair < pairs; pair += 8) {
        const __m256i mask = first_dwords(pairs - pair);
        __m256i v[KEYS];
        OPAQUE(step);
        OPAQUE(step3);
        OPAQUE(quarter);
        OPAQUE(quarter3);
#pragma GCC unroll 8
        for (size_t r = 0; r < KEYS; r++) {
            const char *quad = r < 4 ? low_rows : high_rows;
            v[r] = _mm256_maskload_epi32((const int *)(const void *)(quad + (r % 4 == 3 ? step3 : r % 4 * step)), mask);
        }
        transpose_8x8(v);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++, q += 2 * heads) {
            const __m256 low = low_bf16(v[i]), high = high_bf16(v[i]);
            if (i % 2 == 0) {
                prefetch_line(next, i / 2, quarter, quarter3);
            }
#pragma GCC unroll 4
            for (size_t h = 0; h < heads; h++) {
                even[h] = _mm256_fmadd_ps(_mm256_broadcast_ss(q + h), low, even[h]);
                odd[h] = _mm256_fmadd_ps(_mm256_broadcast_ss(q + heads + h), high, odd[h]);
            }
        }
        next += 64;
        low_rows += 32;
        high_rows += 32;
        OPAQUE(low_rows);
        OPAQUE(high_rows);
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        _mm256_store_ps(scores + h * SCORE_STEP, _mm256_add_ps(even[h], odd[h]));
    }
}

/* Scores of one page, `keys` of them. A block cut by the end goes through a copy, so that nothing past it is read. */
INLINE void score_page(const span *s, size_t page, size_t keys, size_t heads, const char *next)
{
    const uint16_t *rows = key_page(s, page);
    float *scores = s->scores + page * MQ_PAGE_TOKENS;
    for (size_t key = 0; key < keys; key += KEYS) {
        const uint16_t *block = rows + key * s->width;
        if (keys - key < KEYS) {
            memset(s->tail, 0, KEYS * s->width * sizeof *s->tail);
            block = memcpy(s->tail, block, (keys - key) * s->width * sizeof *s->tail);
        }
        score_keys(s, block, scores + key, heads, next + key / KEYS * s->chunks * 64);
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

/* One value row of `wide` chunks into the sums of all heads. */
INLINE void weigh_row(const char *row, const float *weights, const __m256i mask[2], __m256 even[HEADS][2],
                      __m256 odd[HEADS][2], size_t heads, size_t wide)
{
    __m256 low[2], high[2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        const __m256i v = _mm256_maskload_epi32((const int *)(const void *)(row + w * 32), mask[w]);
        low[w] = low_bf16(v);
        high[w] = high_bf16(v);
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < heads; h++) {
        const __m256 p = _mm256_broadcast_ss(weights + h * SCORE_STEP);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            even[h][w] = _mm256_fmadd_ps(p, low[w], even[h][w]);
            odd[h][w] = _mm256_fmadd_ps(p, high[w], odd[h][w]);
        }
    }
}

/* sums [2*wide][8] of columns [column, ...) += weights x values of one page. */
INLINE void weigh_columns(const span *s, const uint16_t *rows, const float *weights, size_t chunk, size_t keys,
                          size_t heads, size_t wide, const char *next)
{
    const size_t chunks = s->chunks;
    __m256i mask[2];
    __m256 even[HEADS][2], odd[HEADS][2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        mask[w] = first_dwords(s->width / 2 - (chunk + w) * 8);
#pragma GCC unroll 4
        for (size_t h = 0; h < heads; h++) {
            even[h][w] = _mm256_load_ps(s->sums + (h * chunks + chunk + w) * 16);
            odd[h][w] = _mm256_load_ps(s->sums + (h * chunks + chunk + w) * 16 + 8);
        }
    }
    const char *at = (const char *)(rows + chunk * COLUMNS);
    size_t step = 2 * s->width, quarter = s->width * 32, quarter3 = s->width * 96;
    next += chunk * MQ_PAGE_TOKENS / 8 * 64;
    size_t i = 0;
    for (; i + 8 <= keys; i += 8, weights += 8, next += 64 * wide) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++, at += step) {
            if (j % 2 == 0) {
                prefetch_line(next, j / 2 * wide, quarter, quarter3);
            }
            if (j % 2 == 0 && wide == 2) {
                prefetch_line(next, j + 1, quarter, quarter3);
            }
            weigh_row(at, weights + j, mask, even, odd, heads, wide);
        }
    }
    for (; i < keys; i++, at += step, weights++) {
        weigh_row(at, weights, mask, even, odd, heads, wide);
    }
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
#pragma GCC unroll 4
        for (size_t h = 0; h < heads; h++) {
            _mm256_store_ps(s->sums + (h * chunks + chunk + w) * 16, even[h][w]);
            _mm256_store_ps(s->sums + (h * chunks + chunk + w) * 16 + 8, odd[h][w]);
        }
    }
}

/* Two chunks of columns at once while the sums fit into the registers. */
INLINE void weigh_page(const span *s, size_t page, size_t keys, size_t heads, const char *next)
{
    const uint16_t *rows = value_page(s, page);
    const float *weights = s->scores + page * MQ_PAGE_TOKENS;
    size_t chunk = 0;
    for (; heads <= 2 && chunk + 2 <= s->chunks; chunk += 2) {
        weigh_columns(s, rows, weights, chunk, keys, heads, 2, next);
    }
    for (; chunk < s->chunks; chunk++) {
        weigh_columns(s, rows, weights, chunk, keys, heads, 1, next);
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
    const size_t pages = (s->count + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS;
    const size_t last = s->count - (pages - 1) * MQ_PAGE_TOKENS; /* keys of the last page */
    for (size_t page = 0; page < pages; page++) {
        const uint16_t *next = page + 1 < pages ? key_page(s, page + 1) : value_page(s, 0);
        score_page(s, page, page + 1 < pages ? MQ_PAGE_TOKENS : last, heads, (const char *)next);
    }
    for (size_t h = 0; h < heads; h++) {
        float *end = partial + h * (s->width + 2) + s->width;
        end[1] = soften(s->scores + h * SCORE_STEP, s->count, end);
    }
    for (size_t page = 0; page < pages; page++) {
        const uint16_t *next = page + 1 < pages ? value_page(s, page + 1) : s->after;
        weigh_page(s, page, page + 1 < pages ? MQ_PAGE_TOKENS : last, heads, (const char *)next);
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
    return HEADS * (2 * columns + SCORE_STEP) * sizeof(float) + KEYS * columns * sizeof(uint16_t);
}

void mq__attention_decode_span_avx2(const mq_attention *a, uint32_t key0, uint32_t key1, float *partial)
{
    const size_t width = a->kv.head_width;
    span s = {.kv = &a->kv, .first_page = key0 / MQ_PAGE_TOKENS, .count = key1 - key0, .width = width};
    s.chunks = (width + COLUMNS - 1) / COLUMNS;
    s.q = a->scratch;
    s.scores = s.q + HEADS * s.chunks * COLUMNS;
    s.sums = s.scores + HEADS * SCORE_STEP;
    s.tail = (uint16_t *)(void *)(s.sums + HEADS * s.chunks * 16);
    s.after = key1 <= a->first ? a->kv.pages[key1 / MQ_PAGE_TOKENS] + a->kv.k_offset
                               : value_page(&s, (s.count - 1) / MQ_PAGE_TOKENS); /* no more: what the cache holds */
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
