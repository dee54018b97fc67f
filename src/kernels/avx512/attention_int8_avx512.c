/* Prefill attention in INT8, AVX-512 VNNI: QK^T and PV of all tiles of keys before the row's own as integer products, by
 * kernels/attention_int8_tiles.h: blocks of 14 query rows, panels of 32 columns.
 *
 * Queries are unsigned, keys and values signed. Scores start at -128 times the key's sum, which takes the queries' offset out, so
 * that they end as the integers dot, exact as floats at all widths. Both products use a 14 x 32 tile of int32 sums: per 4 k 28
 * vpdpbusd beside 16 loads.
 *
 * Throughput at width 128: per 16 scores 64 vpdpbusd and about 17 instructions of scaling and softmax where FP32 has 256
 * FMA and 17.
 *
 * Measured (Zen 4 class, one thread, the commit that added it), width 128: 2.3 to 2.4 times the FP32 FMA peak for 512 rows at 2k
 * keys, 2.6 to 2.7 at 8k, 2.7 to 2.8 at 32k, 3.0 to 3.2 times the FP32 kernel; width 64 at 8k 2.34. */
#include "kernels/avx512/attention_tiles_avx512.h"

enum { QUERY_ZERO = 128 };

#include "kernels/attention_int8_tiles.h"

#define INLINE static inline __attribute__((always_inline))

INLINE __m512 load_bf16(const uint16_t *from, __mmask16 mask)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static float tile_quantize_query(const float *q, size_t width, uint8_t *codes)
{
    __m512 most = _mm512_setzero_ps();
    for (size_t c = 0; c < width; c += 16)
        most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes_products_avx512(width - c), q + c)));
    float scale;
    const __m512 inverse = _mm512_set1_ps(inverse_of(_mm512_reduce_max_ps(most), 127, &scale));
    for (size_t c = 0; c < width; c += 16) {
        const __m512 x = _mm512_maskz_loadu_ps(first_lanes_products_avx512(width - c), q + c);
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
        _mm_storeu_si128((__m128i *)(void *)(codes + c),
                         _mm512_cvtepi32_epi8(_mm512_add_epi32(code, _mm512_set1_epi32(QUERY_ZERO))));
    }
    return scale;
}

static void tile_means(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    float *means = (float *)(void *)(p->scratch + p->l->means);
    for (size_t c = 0; c < p->l->f32.width; c += 16) {
        const __mmask16 mask = first_lanes_products_avx512(p->l->f32.width - c);
        __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
        for (size_t page = 0; page < TILE; page += MQ_PAGE_TOKENS) {
            const uint16_t *from = tile_row(kv, kv->k_offset, key0 + page) + c;
            for (size_t t = 0; t < MQ_PAGE_TOKENS; t += 4, from += 4 * kv->head_dim) {
                for (size_t i = 0; i < 4; i++)
                    sum[i] = _mm512_add_ps(sum[i], load_bf16(from + i * kv->head_dim, mask));
            }
        }
        const __m512 all = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
        _mm512_store_ps(means + c, _mm512_mul_ps(all, _mm512_set1_ps(1.0f / TILE)));
    }
}

/* One key: its bytes to `codes`, padded with zeros to row_bytes; its scale and start. */
static void quantize_key(const int8_pass *p, size_t key0, size_t key, int8_t *codes)
{
    const size_t width = p->l->f32.width;
    const uint16_t *from = tile_row(&p->f32.a->kv, p->f32.a->kv.k_offset, key0 + key);
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    __m512 most = _mm512_setzero_ps();
    for (size_t c = 0; c < width; c += 16) {
        const __m512 x =
            _mm512_sub_ps(load_bf16(from + c, first_lanes_products_avx512(width - c)), _mm512_load_ps(means + c));
        most = _mm512_max_ps(most, _mm512_abs_ps(x));
    }
    float scale;
    const __m512 inverse = _mm512_set1_ps(inverse_of(_mm512_reduce_max_ps(most), 127, &scale));
    __m512i sum = _mm512_setzero_si512();
    for (size_t c = 0; c < width; c += 16) {
        const __m512 x =
            _mm512_sub_ps(load_bf16(from + c, first_lanes_products_avx512(width - c)), _mm512_load_ps(means + c));
        const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
        sum = _mm512_add_epi32(sum, code);
        _mm_store_si128((__m128i *)(void *)(codes + c), _mm512_cvtepi32_epi8(code));
    }
    ((float *)(void *)(p->scratch + p->l->key_scales))[key] = scale;
    ((int32_t *)(void *)(p->scratch + p->l->key_starts))[key] = -128 * _mm512_reduce_add_epi32(sum);
}

static void tile_load_keys(const int8_pass *p, size_t key0)
{
    const size_t words = p->l->words;
    int8_t *codes = (int8_t *)(p->scratch + p->l->weights); /* [16][row_bytes] */
    int32_t *keys = (int32_t *)(void *)(p->scratch + p->l->keys);
    memset(codes, 0, 16 * p->l->row_bytes);
    for (size_t key = 0; key < TILE; key += 16) {
        for (size_t i = 0; i < 16; i++)
            quantize_key(p, key0, key + i, codes + i * p->l->row_bytes);
        for (size_t word = 0; word < words; word += 16) {
            __m512i v[16];
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++)
                v[i] = _mm512_load_si512(codes + i * p->l->row_bytes + 4 * word);
            transpose_16x16(v);
#pragma GCC unroll 16
            for (size_t i = 0; i < 16; i++) {
                if (word + i < words) {
                    _mm512_store_si512(keys + (key / NR * words + word + i) * NR + key % NR, v[i]);
                }
            }
        }
    }
}

/* 16 channels of four keys: the bytes of one channel side by side. */
INLINE __m512i interleave(const __m512i code[4])
{
    const __m512i byte = _mm512_set1_epi32(255);
    const __m512i low =
        _mm512_or_si512(_mm512_and_si512(code[0], byte), _mm512_slli_epi32(_mm512_and_si512(code[1], byte), 8));
    const __m512i high =
        _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(code[2], byte), 16), _mm512_slli_epi32(code[3], 24));
    return _mm512_or_si512(low, high);
}

static void tile_load_values(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    const size_t width = p->l->f32.width;
    float *scales = (float *)(void *)(p->scratch + p->l->value_scales);
    int32_t *values = (int32_t *)(void *)(p->scratch + p->l->values);
    for (size_t c = 0; c < NR * p->l->f32.panels; c += 16) {
        const __mmask16 mask = width > c ? first_lanes_products_avx512(width - c) : 0;
        __m512 most = _mm512_setzero_ps();
        for (size_t key = 0; key < TILE; key++)
            most = _mm512_max_ps(most, _mm512_abs_ps(load_bf16(tile_row(kv, kv->v_offset, key0 + key) + c, mask)));
        const __mmask16 live = _mm512_cmp_ps_mask(most, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ);
        const __m512 inverse = _mm512_maskz_div_ps(live, _mm512_set1_ps(127.0f), most);
        /* 1/255: the weights' unit */
        _mm512_store_ps(scales + c, _mm512_maskz_mul_ps(live, most, _mm512_set1_ps(1.0f / (127.0f * 255.0f))));
        int32_t *to = values + c / NR * NR * (TILE / 4) + c % NR;
        for (size_t key = 0; key < TILE; key += 4, to += NR) {
            __m512i code[4];
            for (size_t i = 0; i < 4; i++) {
                const __m512 x = load_bf16(tile_row(kv, kv->v_offset, key0 + key + i) + c, mask);
                code[i] = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
            }
            _mm512_store_si512(to, interleave(code));
        }
    }
}

INLINE __m512i dot4_attention_int8_avx512(__m512i sum, __m512i a, __m512i b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b)); /* the intrinsic makes gcc 12 copy and spill sums */
    return sum;
}

/* sums [14][32] += a [14][4*words] * b [words][32][4]; row r of a at r*stride bytes. */
INLINE void multiply_bytes(const uint8_t *a, size_t stride, const int32_t *b, size_t words, __m512i sums[MR][2])
{
    const int32_t *end = b + words * NR;
    do {
        const __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + 16);
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            int32_t four;
            memcpy(&four, a + r * stride, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            sums[r][0] = dot4_attention_int8_avx512(sums[r][0], x, b0);
            sums[r][1] = dot4_attention_int8_avx512(sums[r][1], x, b1);
        }
        a += 4, b += NR;
    } while (b < end);
#pragma GCC unroll 14
    for (size_t r = 0; r < MR; r++) {
        __asm__ volatile("" : "+v"(sums[r][0]), "+v"(sums[r][1])); /* or gcc 12 copies all sums in each round */
    }
}

/* query . mean of the block's rows, in the exponent's base. */
static void mean_scores(const int8_pass *p, size_t block, float out[16])
{
    const float *q = block_part(&p->f32, p->l->f32.queries, p->l->f32.query_step, block); /* [width][MR], scaled */
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (size_t c = 0; c < p->l->f32.width; c++) {
        const __m512 row = _mm512_maskz_loadu_ps(0x3fff, q + c * MR);
        sum[c % 4] = _mm512_fmadd_ps(row, _mm512_set1_ps(means[c]), sum[c % 4]);
    }
    _mm512_store_ps(out, _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3])));
}

static void tile_score_bytes(const int8_pass *p, size_t block, float *s)
{
    _Alignas(64) float mean[16];
    mean_scores(p, block, mean);
    const uint8_t *q = query_block(p, block);
    const float *query_scale = query_scales(p, block);
    const float *key_scales = (const float *)(const void *)(p->scratch + p->l->key_scales);
    const int32_t *starts = (const int32_t *)(const void *)(p->scratch + p->l->key_starts);
    const int32_t *keys = (const int32_t *)(const void *)(p->scratch + p->l->keys);
    for (size_t key = 0; key < TILE; key += NR) {
        __m512i sums[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++) {
            sums[r][0] = _mm512_load_si512(starts + key);
            sums[r][1] = _mm512_load_si512(starts + key + 16);
        }
        multiply_bytes(q, p->l->row_bytes, keys + key * p->l->words, p->l->words, sums);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const __m512 scale = _mm512_load_ps(key_scales + key + 16 * half);
#pragma GCC unroll 14
            for (size_t r = 0; r < MR; r++) {
                const __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[r][half]), scale);
                _mm512_store_ps(s + r * TILE + key + 16 * half,
                                _mm512_fmadd_ps(dot, _mm512_set1_ps(query_scale[r]), _mm512_set1_ps(mean[r])));
            }
        }
    }
}

/* round(2^x) as 16 bytes, x <= log2(255): a cubic is good to 1e-4. */
INLINE __m128i exp2_bytes(__m512 x)
{
    const __m512 r = _mm512_reduce_ps(x, 0x09); /* x - floor(x) */
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(EXP2_C3), r, _mm512_set1_ps(EXP2_C2));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP2_C1));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EXP2_C0));
    return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(_mm512_scalef_ps(p, x))); /* 256 is 255 */
}

/* Weights of all rows as bytes [MR][TILE]; the running maximum, the correction and the sum move on. */
static void tile_soften_bytes(const float *s, block_state *state, uint8_t *weights)
{
    for (size_t r = 0; r < MR; r++) {
        const float *row = s + r * TILE;
        __m512 max[4];
        for (size_t i = 0; i < 4; i++)
            max[i] = _mm512_load_ps(row + 16 * i);
        for (size_t i = 64; i < TILE; i += 64) {
            for (size_t j = 0; j < 4; j++)
                max[j] = _mm512_max_ps(max[j], _mm512_load_ps(row + i + 16 * j));
        }
        const float here =
            _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(max[0], max[1]), _mm512_max_ps(max[2], max[3])));
        const float old = state->max[r];
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    _mm512_store_ps(state->correction, exp2_16(_mm512_load_ps(state->correction)));
    const __m512i ones = _mm512_set1_epi8(1);
    for (size_t r = 0; r < MR; r++, weights += TILE) {
        const __m512 top = _mm512_set1_ps(state->max[r] - WEIGHT_LOG2);
        __m512i sum = _mm512_setzero_si512();
        for (size_t i = 0; i < TILE; i += 64) {
            for (size_t j = 0; j < 64; j += 16) {
                const __m512 x = _mm512_sub_ps(_mm512_load_ps(s + r * TILE + i + j), top);
                _mm_store_si128((__m128i *)(void *)(weights + i + j), exp2_bytes(x));
            }
            sum = dot4_attention_int8_avx512(sum, _mm512_load_si512(weights + i), ones);
        }
        const __m512 before =
            _mm512_mul_ps(_mm512_load_ps(state->sum + r * LANES), _mm512_set1_ps(state->correction[r]));
        const __m512 here = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(1.0f / 255.0f));
        _mm512_store_ps(state->sum + r * LANES, _mm512_add_ps(before, here));
    }
}

static void tile_weigh_bytes(const int8_pass *p, const block_state *state, const uint8_t *weights, float *o)
{
    const int32_t *values = (const int32_t *)(const void *)(p->scratch + p->l->values);
    const float *scales = (const float *)(const void *)(p->scratch + p->l->value_scales);
    for (size_t panel = 0; panel < p->l->f32.panels; panel++, o += MR * NR, values += NR * (TILE / 4), scales += NR) {
        __m512i sums[MR][2];
#pragma GCC unroll 14
        for (size_t r = 0; r < MR; r++)
            sums[r][0] = sums[r][1] = _mm512_setzero_si512();
        multiply_bytes(weights, TILE, values, TILE / 4, sums);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const __m512 scale = _mm512_load_ps(scales + 16 * half);
#pragma GCC unroll 14
            for (size_t r = 0; r < MR; r++) {
                float *to = o + r * NR + 16 * half;
                const __m512 before = _mm512_mul_ps(_mm512_load_ps(to), _mm512_set1_ps(state->correction[r]));
                _mm512_store_ps(to, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][half]), scale, before));
            }
        }
    }
}

void mq__attention_int8_with(const mq_attention *a, mq_own_tile *finish)
{
    attention_int8_passes(a, finish);
}

void mq__attention_int8_avx512(const mq_attention *a)
{
    mq__attention_int8_with(a, own_tile);
}

size_t mq__attention_int8_scratch_avx512(uint32_t heads, uint32_t head_dim)
{
    return attention_int8_bytes(heads, head_dim);
}
