/* Prefill attention in INT8, AVX-512 VNNI: QK^T and PV of all tiles of keys before the row's own as integer products.
 *
 * The frame is that of the FP32 kernel (kernels/attention_tiles.h): blocks of 14 query rows take turns at a tile of 256 keys
 * with a running softmax. Here a tile of earlier keys is quantised once for all rows of a pass, and a pass is as tall as one
 * tile of tokens, so that this costs little:
 *     keys    int8, one scale a key, less the tile's mean       [TILE/32][width/4][32][4 of width]
 *     values  int8, one scale a channel                         [width/32][TILE/4][32][4 of TILE]
 *     queries int8 + 128 (unsigned), one scale a row            [14][width]
 *     weights round(255 * 2^(s - max)), unsigned                [14][TILE]
 * Scores start at -128 times the key's sum, which takes the queries' offset out, so that they end as the integers dot, exact as
 * floats at all widths; s = dot * key_scale * query_scale + query . mean. Both products use a 14 x 32 tile of int32 sums: per 4 k 28 vpdpbusd
 * beside 16 loads. The sum of a row's weights is that of the rounded ones.
 *
 * Throughput at width 128: per 16 scores 64 vpdpbusd and about 17 instructions of scaling and softmax where FP32 has 256
 * FMA and 17.
 *
 * Measured (Zen 4 class, one thread, the commit that added it), width 128: 2.3 to 2.4 times the FP32 FMA peak for 512 rows at 2k
 * keys, 2.6 to 2.7 at 8k, 2.7 to 2.8 at 32k, 3.0 to 3.2 times the FP32 kernel; width 64 at 8k 2.34. */
#include "kernels/avx512/attention_tiles_avx512.h"

_Static_assert(TILE == MQ_ATTENTION_TILE, "one tile size for all of a level");

enum { MOST_ROWS = 2048 };
_Static_assert(1024 * 127 * 127 <= 1 << 24, "the dot product of the widest head is exact as a float");

/* 2^r on [0, 1], relative error 7.5e-5. */
#define EXP2_C0 0x1.fff626p-1f
#define EXP2_C1 0x1.64449p-1f
#define EXP2_C2 0x1.cefbc6p-3f
#define EXP2_C3 0x1.3f951ep-4f

#define INLINE static inline __attribute__((always_inline))

/* Where the INT8 parts lie in the scratch, in bytes from its start, behind those of the FP32 kernel. */
typedef struct int8_layout {
    layout f32;
    size_t words; /* groups of 4 of a head's width */
    size_t keys, key_scales, key_starts, means, values, value_scales, queries, query_step, weights, row_bytes, total;
} int8_layout;

static size_t take_attention_int8_avx512(int8_layout *l, size_t bytes)
{
    const size_t at = l->total;
    l->total += (bytes + 63) / 64 * 64;
    return at;
}

static int8_layout make_int8_layout(size_t heads, size_t width)
{
    const size_t wanted = heads * TILE, rows = wanted < MOST_ROWS ? wanted : MOST_ROWS;
    int8_layout l = {.f32 = make_layout(heads, width, rows), .words = (width + 3) / 4};
    l.total = l.f32.total_floats * sizeof(float);
    l.row_bytes = (4 * l.words + 63) / 64 * 64;
    l.keys = take_attention_int8_avx512(&l, (size_t)TILE * 4 * l.words);
    l.key_scales = take_attention_int8_avx512(&l, TILE * sizeof(float));
    l.key_starts = take_attention_int8_avx512(&l, TILE * sizeof(int32_t));
    l.means = take_attention_int8_avx512(&l, (width + 15) / 16 * 16 * sizeof(float));
    l.values = take_attention_int8_avx512(&l, (size_t)TILE * NR * l.f32.panels);
    l.value_scales = take_attention_int8_avx512(&l, NR * l.f32.panels * sizeof(float));
    l.weights = take_attention_int8_avx512(&l, (size_t)MR * TILE + 16 * l.row_bytes); /* quantising keys borrows it */
    l.query_step = (size_t)MR * l.row_bytes + 16 * sizeof(float);
    l.queries = take_attention_int8_avx512(&l, l.f32.blocks * l.query_step);
    return l;
}

typedef struct int8_pass {
    pass f32;
    const int8_layout *l;
    uint8_t *scratch;
} int8_pass;

static uint8_t *query_block(const int8_pass *p, size_t block)
{
    return p->scratch + p->l->queries + block * p->l->query_step;
}

static float *query_scales(const int8_pass *p, size_t block) /* [MR] */
{
    return (float *)(void *)(query_block(p, block) + MR * p->l->row_bytes);
}

INLINE __m512 load_bf16(const uint16_t *from, __mmask16 mask)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

/* 127/amax, and the scale amax/127. */
static float inverse_of(float amax, float *scale)
{
    const bool zero = amax < 0x1p-100f;
    *scale = zero ? 0 : amax * (1.0f / 127.0f);
    return zero ? 0 : 127.0f / amax;
}

/* The rows of a block as bytes q + 128, with scales that turn dot products into the exponent's base 2. */
static void quantize_queries(const int8_pass *p, size_t block)
{
    const mq_attention *a = p->f32.a;
    const size_t width = p->l->f32.width;
    const float base = a->scale * 0x1.715476p+0f;
    uint8_t *rows = query_block(p, block);
    float *scales = query_scales(p, block);
    size_t row = block * MR, token = p->f32.token0 + row / a->heads, head = row % a->heads;
    memset(rows, 128, MR * p->l->row_bytes);
    memset(scales, 0, 16 * sizeof *scales);
    for (size_t r = 0; r < MR && row < p->f32.rows; r++, row++) {
        const float *q = a->q + token * a->q_stride + head * width;
        __m512 most = _mm512_setzero_ps();
        for (size_t c = 0; c < width; c += 16)
            most = _mm512_max_ps(most,
                                 _mm512_abs_ps(_mm512_maskz_loadu_ps(first_lanes_products_avx512(width - c), q + c)));
        float scale;
        const __m512 inverse = _mm512_set1_ps(inverse_of(_mm512_reduce_max_ps(most), &scale));
        for (size_t c = 0; c < width; c += 16) {
            const __m512 x = _mm512_maskz_loadu_ps(first_lanes_products_avx512(width - c), q + c);
            const __m512i code = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
            _mm_storeu_si128((__m128i *)(void *)(rows + r * p->l->row_bytes + c),
                             _mm512_cvtepi32_epi8(_mm512_add_epi32(code, _mm512_set1_epi32(128))));
        }
        scales[r] = scale * base;
        if (++head == a->heads) {
            head = 0;
            token++;
        }
    }
}

/* Row `key` of a tile: keys (offset k_offset) or values. */
INLINE const uint16_t *tile_row(const mq_kv_view *kv, size_t offset, size_t key)
{
    return kv->pages[key / MQ_PAGE_TOKENS] + offset + key % MQ_PAGE_TOKENS * kv->head_dim;
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
    const __m512 inverse = _mm512_set1_ps(inverse_of(_mm512_reduce_max_ps(most), &scale));
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

static void load_keys(const int8_pass *p, size_t key0)
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

static void load_values(const int8_pass *p, size_t key0)
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

static void score_bytes(const int8_pass *p, size_t block, float *s)
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
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_scalef_ps(p, x)));
}

/* Weights of all rows as bytes [MR][TILE]; the running maximum, the correction and the sum move on. */
static void soften_bytes(const float *s, block_state *state, uint8_t *weights)
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
        const __m512 top = _mm512_set1_ps(state->max[r] - 7.9943534368588576f); /* log2(255): the largest becomes 255 */
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

static void weigh_bytes(const int8_pass *p, const block_state *state, const uint8_t *weights, float *o)
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

static void run_int8_block(const int8_pass *p, size_t block)
{
    const layout *l = &p->l->f32;
    float *s = block_part(&p->f32, l->scores, 0, 0);
    uint8_t *weights = p->scratch + p->l->weights;
    score_bytes(p, block, s);
    soften_bytes(s, block_softmax(&p->f32, block), weights);
    weigh_bytes(p, block_softmax(&p->f32, block), weights, block_part(&p->f32, l->outputs, l->output_step, block));
}

/* Tokens [token, token + tokens) of the call, all of one tile of positions that starts at key `own`. */
static void run_pass_attention_int8_avx512(int8_pass *p, size_t tokens, size_t own, mq_own_tile *finish)
{
    const mq_attention *a = p->f32.a;
    p->f32.rows = tokens * a->heads;
    p->f32.blocks = (p->f32.rows + MR - 1) / MR;
    for (size_t b = 0; b < p->f32.blocks; b++) {
        load_block_attention_tiles(&p->f32, b);
        quantize_queries(p, b);
    }
    for (size_t key = 0; key < own; key += TILE) {
        tile_means(p, key);
        load_keys(p, key);
        load_values(p, key);
        for (size_t b = 0; b < p->f32.blocks; b++)
            run_int8_block(p, b);
    }
    finish(&p->f32, own);
    for (size_t b = 0; b < p->f32.blocks; b++) {
        store_block(&p->f32, b);
    }
}

void mq__attention_int8_with(const mq_attention *a, mq_own_tile *finish)
{
    const int8_layout l = make_int8_layout(a->heads, a->kv.head_dim);
    const size_t most = l.f32.blocks * MR / a->heads;
    int8_pass p = {.f32 = {.a = a, .l = &l.f32}, .l = &l, .scratch = a->scratch};
    for (size_t token = 0, tokens; token < a->rows; token += tokens) {
        const size_t at = a->first + token, own = at / TILE * TILE, room = own + TILE - at, left = a->rows - token;
        tokens = left < room ? left : room;
        tokens = tokens < most ? tokens : most;
        p.f32.token0 = token;
        run_pass_attention_int8_avx512(&p, tokens, own, finish);
    }
}

void mq__attention_int8_avx512(const mq_attention *a)
{
    mq__attention_int8_with(a, own_tile);
}

size_t mq__attention_int8_scratch_avx512(uint32_t heads, uint32_t head_dim)
{
    return make_int8_layout(heads, head_dim).total;
}
