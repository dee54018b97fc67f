/* Decode attention on AVX-512: one query token, the heads of one kv head together, so that keys and values are read once.
 *
 * Idea. A span's keys are streamed first, then its values; its scores wait in L1 in between.
 *   Keys: 16 at a time, 32 elements of each; the 16x16 dwords are transposed in registers, so that a lane is a key and each
 *     head's score vector is a plain FMA chain with a broadcast query element: no horizontal sums. A dword holds two bf16,
 *     so one transposition serves two FMA steps.
 *   Values: a page at a time, one or two chunks of 32 columns of each row; even and odd columns are the low and high halves
 *     of the dwords, summed apart and interleaved when the span is done.
 * While a page side (64 keys or values, 16 KiB at width 128) is worked on, the next one is prefetched, evenly over the work
 * and in four streams, a quarter of the side each: one stream reaches 85% of the bandwidth, and prefetches in bursts leave
 * the memory idle in between.
 *
 * Registers: keys 16 (transposed) + heads (sums) + 2; values 2*heads*chunks (sums) + 2*chunks + 1, two chunks up to 6 heads.
 * Up to 8 heads per pass, more in groups.
 *
 * Throughput at width 128, cycles per key and value on two vector ports: keys 12 + 4*heads (16 of the shuffles on one of
 * them), values 4 + 4*heads, softmax 0.6*heads; the memory takes about 95 at 12.5 GB/s and 2.35 GHz.
 * Measured, 2-core Cascade Lake class, 2.5 GHz, one thread, share of its read bandwidth at depth 4096: 0.90 at 1:1, 0.87 at
 * 2:1, 0.82 at 4:1, 0.68 at 8:1 (checkasm --bench attention_decode). At 8:1 the arithmetic alone takes 110 cycles. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/ref/math_ref.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    HEADS = 8,                        /* query heads per pass */
    KEYS = 16,                        /* keys per transposition */
    COLUMNS = 32,                     /* bf16 per load */
    SCORE_STEP = MQ_SPAN_TOKENS + 16, /* floats between two heads' scores: not a multiple of 4 KiB */
};

/* One group of heads at work on one span; the parts of the scratch, 64-byte aligned. */
typedef struct span {
    const mq_kv_view *kv;
    size_t first_page, count, width; /* `count` keys from the start of that page */
    size_t chunks;                   /* ceil(width / COLUMNS) */
    float *q;                        /* [chunks*COLUMNS][heads], scaled */
    float *scores;                   /* [heads][SCORE_STEP] */
    float *sums;                     /* [heads][chunks][2][16]: even and odd columns */
    uint16_t *tail;                  /* [KEYS][width] */
    const uint16_t *after;           /* the keys of the next span: prefetched at the end */
} span;

static inline __mmask16 first_lanes(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

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

/* Address of row r < 16, `step` bytes apart. step3 is 3*step. */
INLINE const char *row_at(const char *const quad[4], size_t r, size_t step, size_t step3)
{
    return r % 4 == 3 ? quad[r / 4] + step3 : quad[r / 4] + r % 4 * step;
}

/* Prefetches the i-th line of a page side in four streams, a quarter (step) of the side each. Always inlined: gcc takes a
 * function that only prefetches for one without effects and drops the call. */
INLINE void prefetch_line(const char *side, size_t i, size_t step, size_t step3)
{
    _mm_prefetch(i % 4 == 3 ? side + step3 + i / 4 * 64 : side + i % 4 * step + i / 4 * 64, _MM_HINT_T1);
}

/* Scores of 16 keys, while 16 lines per chunk are prefetched from `next` on. */
INLINE void score_keys(const span *s, const uint16_t *rows, float *scores, size_t heads, const char *next)
{
    const size_t width = s->width, pairs = width / 2;
    size_t step = 2 * width, step3 = 6 * width, quarter = width * 32, quarter3 = width * 96;
    const char *quad[4] = {(const char *)rows, (const char *)(rows + 4 * width), (const char *)(rows + 8 * width),
                           (const char *)(rows + 12 * width)};
    __m512 even[HEADS], odd[HEADS];
    const size_t chains = heads > 4 ? 1 : 2; /* enough chains for two ports of four cycles */
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        even[h] = odd[h] = _mm512_setzero_ps();
    }
    const float *q = s->q;
    for (size_t pair = 0; pair < pairs; pair += 16) {
        const __mmask16 mask = first_lanes(pairs - pair);
        __m512i v[KEYS];
        OPAQUE(step);
        OPAQUE(step3);
        OPAQUE(quarter);
        OPAQUE(quarter3);
#pragma GCC unroll 16
        for (size_t r = 0; r < KEYS; r++) {
            v[r] = _mm512_maskz_loadu_epi32(mask, row_at(quad, r, step, step3));
        }
        transpose_16x16(v);
#pragma GCC unroll 16
        for (size_t i = 0; i < 16; i++, q += 2 * heads) {
            const __m512 low = low_bf16(v[i]), high = high_bf16(v[i]);
            prefetch_line(next, i, quarter, quarter3);
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
        next += 4 * 64;
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++) {
            quad[i] += 64;
            OPAQUE(quad[i]);
        }
    }
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        _mm512_store_ps(scores + h * SCORE_STEP, chains == 2 ? _mm512_add_ps(even[h], odd[h]) : even[h]);
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
        score_keys(s, block, scores + key, heads, next + key / KEYS * s->chunks * 256);
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

/* One value row of `wide` chunks into the sums of all heads. */
INLINE void weigh_row(const char *row, const float *weights, const __mmask16 mask[2], __m512 even[HEADS][2],
                      __m512 odd[HEADS][2], size_t heads, size_t wide)
{
    __m512 low[2], high[2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        const __m512i v = _mm512_maskz_loadu_epi32(mask[w], row + w * 64);
        low[w] = low_bf16(v);
        high[w] = high_bf16(v);
    }
#pragma GCC unroll 8
    for (size_t h = 0; h < heads; h++) {
        const __m512 p = _mm512_set1_ps(weights[h * SCORE_STEP]);
#pragma GCC unroll 2
        for (size_t w = 0; w < wide; w++) {
            even[h][w] = _mm512_fmadd_ps(p, low[w], even[h][w]);
            odd[h][w] = _mm512_fmadd_ps(p, high[w], odd[h][w]);
        }
    }
}

/* sums [2*wide][16] of columns [column, ...) += weights x values of one page. */
INLINE void weigh_columns(const span *s, const uint16_t *rows, const float *weights, size_t chunk, size_t keys,
                          size_t heads, size_t wide, const char *next)
{
    const size_t chunks = s->chunks;
    __mmask16 mask[2];
    __m512 even[HEADS][2], odd[HEADS][2];
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
        mask[w] = first_lanes(s->width / 2 - (chunk + w) * 16);
#pragma GCC unroll 8
        for (size_t h = 0; h < heads; h++) {
            even[h][w] = _mm512_load_ps(s->sums + (h * chunks + chunk + w) * 32);
            odd[h][w] = _mm512_load_ps(s->sums + (h * chunks + chunk + w) * 32 + 16);
        }
    }
    const char *at = (const char *)(rows + chunk * COLUMNS);
    size_t step = 2 * s->width, quarter = s->width * 32, quarter3 = s->width * 96;
    next += chunk * MQ_PAGE_TOKENS / 4 * 64;
    size_t i = 0;
    for (; i + 4 <= keys; i += 4, weights += 4, next += 64 * wide) {
#pragma GCC unroll 4
        for (size_t j = 0; j < 4; j++, at += step) {
#pragma GCC unroll 2
            for (size_t w = 0; w < wide; w++) {
                prefetch_line(next, j * wide + w, quarter, quarter3);
            }
            weigh_row(at, weights + j, mask, even, odd, heads, wide);
        }
    }
    for (; i < keys; i++, at += step, weights++) {
        weigh_row(at, weights, mask, even, odd, heads, wide);
    }
#pragma GCC unroll 2
    for (size_t w = 0; w < wide; w++) {
#pragma GCC unroll 8
        for (size_t h = 0; h < heads; h++) {
            _mm512_store_ps(s->sums + (h * chunks + chunk + w) * 32, even[h][w]);
            _mm512_store_ps(s->sums + (h * chunks + chunk + w) * 32 + 16, odd[h][w]);
        }
    }
}

/* Two chunks of columns at once while the sums fit into the registers. */
INLINE void weigh_page(const span *s, size_t page, size_t keys, size_t heads, const char *next)
{
    const uint16_t *rows = value_page(s, page);
    const float *weights = s->scores + page * MQ_PAGE_TOKENS;
    size_t chunk = 0;
    for (; heads <= 6 && chunk + 2 <= s->chunks; chunk += 2) {
        weigh_columns(s, rows, weights, chunk, keys, heads, 2, next);
    }
    for (; chunk < s->chunks; chunk++) {
        weigh_columns(s, rows, weights, chunk, keys, heads, 1, next);
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
    return HEADS * (2 * columns + SCORE_STEP) * sizeof(float) + KEYS * columns * sizeof(uint16_t);
}

void mq__attention_decode_span_avx512(const mq_attention *a, uint32_t key0, uint32_t key1, float *partial)
{
    const size_t width = a->kv.head_width;
    span s = {.kv = &a->kv, .first_page = key0 / MQ_PAGE_TOKENS, .count = key1 - key0, .width = width};
    s.chunks = (width + COLUMNS - 1) / COLUMNS;
    s.q = a->scratch;
    s.scores = s.q + HEADS * s.chunks * COLUMNS;
    s.sums = s.scores + HEADS * SCORE_STEP;
    s.tail = (uint16_t *)(void *)(s.sums + HEADS * s.chunks * 32);
    s.after = key1 <= a->first ? a->kv.pages[key1 / MQ_PAGE_TOKENS] + a->kv.k_offset
                               : value_page(&s, (s.count - 1) / MQ_PAGE_TOKENS); /* no more: what the cache holds */
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
