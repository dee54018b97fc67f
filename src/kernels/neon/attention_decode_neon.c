/* Decode attention on NEON: the idea of attention_decode_avx512.c.
 *
 * Keys: so many at once that they make 8 or 16 sums with the heads, 8 elements of a row at a time. Values: so many chunks of 8
 * columns that they make 8 or 16 sums. Registers: keys 16 (sums) + 2 (a row's columns) + 2 (a query's); values 16 (sums) + 4 +
 * heads (weights of four rows). Up to 4 heads per pass, more in groups.
 * Per 8 elements 1 load, 2 instructions of widening and 2 FMA a head. Speeds not measured. */
#include "kernels/decode_driver.h"
#include "kernels/neon/attention_neon.h"

enum {
    HEADS = 4,   /* query heads per pass */
    KEYS = 8,    /* keys per block, at most */
    COLUMNS = 8, /* bf16 per load */
    LINE = 32,   /* bf16 of a line of memory */
    REST = 12,   /* floats of a head's maximum, sum and factor */
};

/* Keys of a block: as many as make 8 or 16 sums with the heads (3 count as 4). */
INLINE size_t keys_at_once_neon(size_t heads)
{
    return heads <= 2 ? 8 : 4;
}

/* Chunks of columns at once: 8 or 16 sums, even and odd ones. */
INLINE size_t chunks_at_once(size_t heads)
{
    return heads <= 2 ? 4 : 2;
}

/* Scores of a block of keys with all heads; near, far: the rows to prefetch meanwhile. */
INLINE void score_keys_neon(const decode_side *s, const float *q, const uint16_t *rows, float *scores, size_t heads,
                            const char *near, const char *far)
{
    const size_t keys = keys_at_once_neon(heads), width = s->width;
    float32x4_t sums[HEADS][KEYS];
    UNROLL
    for (size_t i = 0; i < heads * keys; i++)
        sums[i / keys][i % keys] = vdupq_n_f32(0);
    for (size_t c = 0; c < width; c += COLUMNS, q += HEADS * COLUMNS) {
        float32x4_t even[HEADS], odd[HEADS];
        UNROLL
        for (size_t h = 0; h < heads; h++) {
            even[h] = vld1q_f32(q + h * COLUMNS);
            odd[h] = vld1q_f32(q + h * COLUMNS + 4);
        }
        UNROLL
        for (size_t k = 0; k < keys; k++) {
            if (c % LINE == 0) {
                __builtin_prefetch(near + 2 * (k * width + c));
                __builtin_prefetch(far + 2 * (k * width + c), 0, 2);
            }
            const uint16x8_t row = load_first_bf16(rows + k * width + c, width - c);
            const float32x4_t low = even_bf16(row), high = odd_bf16(row);
            UNROLL
            for (size_t h = 0; h < heads; h++)
                sums[h][k] = vfmaq_f32(vfmaq_f32(sums[h][k], even[h], low), odd[h], high);
        }
    }
    UNROLL
    for (size_t h = 0; h < heads; h++) {
        UNROLL
        for (size_t k = 0; k < keys; k += 4) {
            const float32x4_t a = vpaddq_f32(sums[h][k], sums[h][k + 1]),
                              b = vpaddq_f32(sums[h][k + 2], sums[h][k + 3]);
            vst1q_f32(scores + h * DECODE_SCORE_STEP + k, vpaddq_f32(a, b));
        }
    }
}

INLINE void score_page_neon(const decode_side *s, const float *q, size_t heads)
{
    const size_t keys = keys_at_once_neon(heads);
    for (size_t key = 0; key < s->keys; key += keys) {
        score_keys_neon(s, q, decode_block(s, key, keys), s->scores + key, heads, decode_near(s, key),
                        s->far + key * s->width * sizeof *s->rows);
    }
}

/* e^x for x <= 0; 0 below -40, where nothing is lost beside the maximum of 1 (and for -infinity). */
static inline float32x4_t exp_decode_neon(float32x4_t x)
{
    const float32x4_t magic = vdupq_n_f32(MQ_EXP_MAGIC), one = vdupq_n_f32(1);
    const float32x4_t t = vfmaq_n_f32(magic, x, MQ_EXP_LOG2E), n = vsubq_f32(t, magic);
    const float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(x, n, -MQ_EXP_LN2_HI), n, -MQ_EXP_LN2_LO);
    float32x4_t p = vfmaq_n_f32(vdupq_n_f32(MQ_EXP_C5), r, MQ_EXP_C6);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(MQ_EXP_C2), p, r);
    p = vfmaq_f32(one, p, r);
    p = vfmaq_f32(one, p, r);
    const uint32x4_t scaled = vaddq_u32(vreinterpretq_u32_f32(p), vshlq_n_u32(vreinterpretq_u32_f32(t), 23));
    return vreinterpretq_f32_u32(vandq_u32(scaled, vcgeq_f32(x, vdupq_n_f32(-40))));
}

/* One head's scores of a page become weights. */
static inline void soften_neon(float *scores, size_t count, float *rest)
{
    float32x4_t max = vld1q_f32(rest);
    const float32x4_t before = max;
    for (size_t i = 0; i < MQ_PAGE_TOKENS; i += 4) {
        const uint32x4_t mask = first_lanes_neon(count > i ? count - i : 0);
        const float32x4_t v = vbslq_f32(mask, vld1q_f32(scores + i), vdupq_n_f32(-INFINITY));
        vst1q_f32(scores + i, v);
        max = vmaxq_f32(max, v);
    }
    max = vdupq_n_f32(vmaxvq_f32(max));
    const float32x4_t factor = exp_decode_neon(vsubq_f32(before, max));
    float32x4_t sum = vmulq_f32(vld1q_f32(rest + 4), factor);
    for (size_t i = 0; i < MQ_PAGE_TOKENS; i += 4) {
        const float32x4_t p = exp_decode_neon(vsubq_f32(vld1q_f32(scores + i), max));
        vst1q_f32(scores + i, p);
        sum = vaddq_f32(sum, p);
    }
    vst1q_f32(rest, max);
    vst1q_f32(rest + 4, sum);
    vst1q_f32(rest + 8, factor);
}

/* Sums of some columns for all heads: [heads][chunk], even and odd ones. */
typedef struct column_sums {
    float32x4_t even[HEADS][4], odd[HEADS][4];
} column_sums;

/* One value row of `wide` chunks into the sums of all heads; p[h], lane: its weight. left: columns from here to the row's end. */
INLINE void weigh_row_neon(const uint16_t *row, size_t left, const float32x4_t p[HEADS], int lane, column_sums *sums,
                           size_t heads, size_t wide)
{
    UNROLL
    for (size_t w = 0; w < wide; w++) {
        const uint16x8_t v = wide > 1 ? vld1q_u16(row + w * COLUMNS) : load_first_bf16(row, left);
        const float32x4_t low = even_bf16(v), high = odd_bf16(v);
        UNROLL
        for (size_t h = 0; h < heads; h++) {
            sums->even[h][w] = fma_lane(sums->even[h][w], low, p[h], lane);
            sums->odd[h][w] = fma_lane(sums->odd[h][w], high, p[h], lane);
        }
    }
}

/* sums of columns [8 chunk, ...) = sums * factor + weights x values of one page. Several chunks are whole. */
INLINE void weigh_columns_neon(const decode_side *s, const decode_group *t, size_t chunk, size_t heads, size_t wide)
{
    const size_t keys = s->keys, width = s->width, column = chunk * COLUMNS, left = width - column;
    float *const to = t->sums + chunk * COLUMNS;
    column_sums sums;
    UNROLL
    for (size_t i = 0; i < heads * wide; i++) {
        const float *from = to + i / wide * s->chunks * COLUMNS + i % wide * COLUMNS;
        const float32x4_t factor = vld1q_f32(t->rest + i / wide * REST + 8);
        sums.even[i / wide][i % wide] = vmulq_f32(vld1q_f32(from), factor);
        sums.odd[i / wide][i % wide] = vmulq_f32(vld1q_f32(from + 4), factor);
    }
    const uint16_t *row = s->rows + column;
    const bool line = wide == 4 || column % LINE == 0; /* each line once */
    float32x4_t p[HEADS];
    size_t i = 0;
    for (; i + 4 <= keys; i += 4) {
        const char *near = decode_near(s, i) + 2 * column, *far = s->far + 2 * (i * width + column);
        UNROLL
        for (size_t h = 0; h < heads; h++)
            p[h] = vld1q_f32(s->scores + h * DECODE_SCORE_STEP + i);
        UNROLL
        for (size_t j = 0; j < 4; j++, row += width) {
            if (line) {
                __builtin_prefetch(near + 2 * j * width);
                __builtin_prefetch(far + 2 * j * width, 0, 2);
            }
            weigh_row_neon(row, left, p, (int)j, &sums, heads, wide);
        }
    }
    for (; i < keys; i++, row += width) {
        UNROLL
        for (size_t h = 0; h < heads; h++)
            p[h] = vdupq_n_f32(s->scores[h * DECODE_SCORE_STEP + i]);
        weigh_row_neon(row, left, p, 0, &sums, heads, wide);
    }
    UNROLL
    for (size_t n = 0; n < heads * wide; n++) {
        float *at = to + n / wide * s->chunks * COLUMNS + n % wide * COLUMNS;
        vst1q_f32(at, sums.even[n / wide][n % wide]);
        vst1q_f32(at + 4, sums.odd[n / wide][n % wide]);
    }
}

/* A page's keys, then its values: `s` is at the keys. after: what is read next. */
INLINE void run_page_neon(const decode_group *t, decode_side s, const uint16_t *values, const char *after, size_t heads)
{
    const ptrdiff_t side = (const char *)values - (const char *)s.rows;
    const size_t whole = s.width / COLUMNS, wide = chunks_at_once(heads);
    s.next = (const char *)values;
    s.far = after;
    score_page_neon(&s, t->q, heads);
    for (size_t h = 0; h < heads; h++) {
        soften_neon(s.scores + h * DECODE_SCORE_STEP, s.keys, t->rest + REST * h);
    }
    s.rows = values;
    s.next = after;
    s.far = after + side;
    size_t chunk = 0;
    for (; chunk + wide <= whole; chunk += wide) {
        weigh_columns_neon(&s, t, chunk, heads, wide);
    }
    for (; chunk < s.chunks; chunk++) {
        weigh_columns_neon(&s, t, chunk, heads, 1);
    }
}

/* One copy of the loops per number of heads: the sums stay in registers. */
static void run_heads_neon(const decode_group *t, size_t heads, const decode_side *keys, const uint16_t *values,
                           const char *after)
{
    switch (heads) {
#define CASE(n)                                                                                                        \
    case n:                                                                                                            \
        run_page_neon(t, *keys, values, after, n);                                                                     \
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
                                 .run = run_heads_neon};
_Static_assert((int)KEYS <= (int)DECODE_KEYS && REST == 3 * COLUMNS / 2, "as the driver lays them out");

size_t mq__attention_decode_scratch_neon(uint32_t heads, uint32_t head_dim)
{
    return mq__decode_scratch_bytes(&core, heads, head_dim);
}

void mq__attention_decode_span_neon(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                                    size_t head_step, size_t row_step)
{
    mq__decode_span(&core, a, kv_heads, span, partial, head_step, row_step);
}

/* The reference, 4 columns at a time. */
void mq__attention_decode_merge_neon(const mq_attention *a, uint32_t spans, const float *partials)
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
        for (size_t c = 0; c < width; c += 4) {
            float32x4_t sum = vdupq_n_f32(0);
            for (size_t s = 0; s < spans; s++) {
                const float factor = mq__exp_f32(first[s * step + width] - max);
                sum = vfmaq_n_f32(sum, load_first(first + s * step + c, width - c), factor);
            }
            store_first(a->out + h * width + c, vdivq_f32(sum, vdupq_n_f32(weights)), width - c);
        }
    }
}
