/* Prefill attention in INT8 on AVX2: QK^T and PV of all tiles of keys before the row's own as integer products, by
 * kernels/attention_int8_tiles.h: blocks of 6 query rows, panels of 16 columns.
 *
 * Queries are unsigned, keys and values signed. vpmaddubsw adds two products in 16 bits, so that a code of 8 bits leaves 7 to the
 * other: keys and values go to 64 (2 * 255 * 64 < 2^15), queries and weights have all of their byte. Scores start at -128 times the
 * key's sum, which takes the queries' offset out.
 *
 * Registers of multiply_bytes_avx2: sums 12, columns 1 (the others come from memory), ones 1, queries or weights 1 (the second product
 * overwrites it), product 1.
 * Throughput per 4 k of 6 x 16: 24 products of integers on two ports = 12 cycles, where FP32 needs 24 for its FMAs; 43 issue slots,
 * where FP32 needs 80. Codes of 16 bits and vpmaddwd, exact for 8 bits, need 64, and the kernel had 0.85 of this speed. Processors
 * that multiply integers on one port gain nothing: `--attention auto` measures.
 * Measured (2-core Zen 3 class, one thread): 1.34 times the FMA peak for 512 rows at 2k keys, 1.48 at 8k in quiet moments, 1.6 to
 * 1.7 times the FP32 kernel (checkasm --bench attention_prefill). */
enum { TILE = 256 };

#include "kernels/avx2/attention_tiles_avx2.h"

enum { QUERY_ZERO = 128 };
_Static_assert(2 * 255 * MQ_INT8_MOST_AVX2 < 1 << 15, "two products in 16 bits");

#include "kernels/attention_int8_tiles.h"

#define INLINE static inline __attribute__((always_inline))

/* The first `count` of 8 bf16, widened; zero past them. */
INLINE __m256 widen_first(const uint16_t *from, size_t count)
{
    uint16_t part[8] = {0};
    if (count < 8) from = memcpy(part, from, count * sizeof *part);
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

INLINE __m256i load_vector(const void *at)
{
    return _mm256_load_si256((const __m256i *)at);
}

INLINE __m256 magnitude_attention_avx2(__m256 x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

INLINE int32_t sum_of_integers(__m256i v)
{
    const __m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    const __m128i b = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}

/* 8 integers as bytes, `zero` for 0. */
INLINE void store_bytes(uint8_t *to, __m256i codes, int zero)
{
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    const __m128i bytes = _mm_xor_si128(_mm_packs_epi16(words, words), _mm_set1_epi8((char)zero));
    _mm_storel_epi64((__m128i *)(void *)to, bytes);
}

static float tile_quantize_query(const float *q, size_t width, uint8_t *codes)
{
    __m256 most = _mm256_setzero_ps();
    for (size_t c = 0; c < width; c += 8)
        most = _mm256_max_ps(most, magnitude_attention_avx2(_mm256_maskload_ps(q + c, first_dwords(width - c))));
    float scale;
    const __m256 inverse = _mm256_set1_ps(inverse_of(largest_of(most), 127, &scale));
    for (size_t c = 0; c < width; c += 8) {
        const __m256 x = _mm256_maskload_ps(q + c, first_dwords(width - c));
        store_bytes(codes + c, _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)), QUERY_ZERO);
    }
    return scale;
}

static void tile_means(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    const size_t width = p->l->f32.width;
    float *means = (float *)(void *)(p->scratch + p->l->means);
    for (size_t c = 0; c < width; c += 8) {
        __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
        for (size_t page = 0; page < TILE; page += MQ_PAGE_TOKENS) {
            const uint16_t *from = tile_row(kv, kv->k_offset, key0 + page) + c;
            for (size_t t = 0; t < MQ_PAGE_TOKENS; t += 4, from += 4 * kv->head_dim) {
                for (size_t i = 0; i < 4; i++)
                    sum[i] = _mm256_add_ps(sum[i], widen_first(from + i * kv->head_dim, width - c));
            }
        }
        const __m256 all = _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3]));
        _mm256_store_ps(means + c, _mm256_mul_ps(all, _mm256_set1_ps(1.0f / TILE)));
    }
}

/* One key: its bytes to `codes`; its scale and start. */
static void quantize_key_avx2(const int8_pass *p, size_t key0, size_t key, uint8_t *codes)
{
    const size_t width = p->l->f32.width;
    const uint16_t *from = tile_row(&p->f32.a->kv, p->f32.a->kv.k_offset, key0 + key);
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    __m256 most = _mm256_setzero_ps();
    for (size_t c = 0; c < width; c += 8) {
        const __m256 x = _mm256_sub_ps(widen_first(from + c, width - c), _mm256_load_ps(means + c));
        most = _mm256_max_ps(most, magnitude_attention_avx2(x));
    }
    float *scale = (float *)(void *)(p->scratch + p->l->key_scales) + key;
    const __m256 inverse = _mm256_set1_ps(inverse_of(largest_of(most), MQ_INT8_MOST_AVX2, scale));
    __m256i sum = _mm256_setzero_si256();
    for (size_t c = 0; c < width; c += 8) {
        const __m256 x = _mm256_sub_ps(widen_first(from + c, width - c), _mm256_load_ps(means + c));
        const __m256i code = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
        sum = _mm256_add_epi32(sum, code);
        store_bytes(codes + c, code, 0);
    }
    const __m256i start =
        _mm256_slli_epi32(_mm256_sub_epi32(_mm256_setzero_si256(), sum), 7); /* -128 * sum, whatever it is */
    ((int32_t *)(void *)(p->scratch + p->l->key_starts))[key] = sum_of_integers(start);
}

static void tile_load_keys(const int8_pass *p, size_t key0)
{
    const size_t words = p->l->words, step = p->l->row_bytes;
    uint8_t *codes = p->scratch + p->l->weights; /* [8][row_bytes] */
    int32_t *keys = (int32_t *)(void *)(p->scratch + p->l->keys);
    memset(codes, 0, 8 * step);
    for (size_t key = 0; key < TILE; key += 8) {
        for (size_t i = 0; i < 8; i++)
            quantize_key_avx2(p, key0, key + i, codes + i * step);
        for (size_t word = 0; word < words; word += 8) {
            __m256i v[8];
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
                v[i] = load_vector(codes + i * step + 4 * word);
            transpose_8x8(v);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++) {
                int32_t *to = keys + (key / NR * words + word + i) * NR + key % NR;
                if (word + i < words) _mm256_store_si256((__m256i *)(void *)to, v[i]);
            }
        }
    }
}

/* 8 channels of four keys: the bytes of one channel side by side. */
INLINE __m256i interleave_avx2(const __m256i code[4])
{
    const __m256i byte = _mm256_set1_epi32(255);
    const __m256i low =
        _mm256_or_si256(_mm256_and_si256(code[0], byte), _mm256_slli_epi32(_mm256_and_si256(code[1], byte), 8));
    const __m256i high =
        _mm256_or_si256(_mm256_slli_epi32(_mm256_and_si256(code[2], byte), 16), _mm256_slli_epi32(code[3], 24));
    return _mm256_or_si256(low, high);
}

static void tile_load_values(const int8_pass *p, size_t key0)
{
    const mq_kv_view *kv = &p->f32.a->kv;
    const size_t width = p->l->f32.width;
    float *scales = (float *)(void *)(p->scratch + p->l->value_scales);
    int32_t *values = (int32_t *)(void *)(p->scratch + p->l->values);
    for (size_t c = 0; c < NR * p->l->f32.panels; c += 8) {
        const size_t live = width > c ? width - c : 0, at = kv->v_offset + (live ? c : 0);
        __m256 most = _mm256_setzero_ps();
        for (size_t key = 0; key < TILE; key++)
            most = _mm256_max_ps(most, magnitude_attention_avx2(widen_first(tile_row(kv, at, key0 + key), live)));
        const __m256 some = _mm256_cmp_ps(most, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ);
        const __m256 inverse = _mm256_and_ps(some, _mm256_div_ps(_mm256_set1_ps(MQ_INT8_MOST_AVX2), most));
        const __m256 scale =
            _mm256_mul_ps(most, _mm256_set1_ps(1.0f / (MQ_INT8_MOST_AVX2 * 255.0f))); /* 1/255: the weights' unit */
        _mm256_store_ps(scales + c, _mm256_and_ps(some, scale));
        int32_t *to = values + c / NR * NR * (TILE / 4) + c % NR;
        for (size_t key = 0; key < TILE; key += 4, to += NR) {
            __m256i code[4];
            for (size_t i = 0; i < 4; i++) {
                const __m256 x = widen_first(tile_row(kv, at, key0 + key + i), live);
                code[i] = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
            }
            _mm256_store_si256((__m256i *)(void *)to, interleave_avx2(code));
        }
    }
}

/* sums [2][8] += products of four codes of one row and 2 x 8 columns. As asm, because gcc 12 regroups the sums, and has a pointer
 * for each row, more than there are registers. */
#define ADD_ROW(sums, base, at)                                                                                        \
    do {                                                                                                               \
        __m256i row, product;                                                                                          \
        __asm__ volatile("vpbroadcastd " at ", %2\n\tvpmaddubsw %6, %2, %3\n\tvpmaddubsw %7, %2, %2\n\t"               \
                         "vpmaddwd %8, %3, %3\n\tvpmaddwd %8, %2, %2\n\tvpaddd %3, %0, %0\n\tvpaddd %2, %1, %1"        \
                         : "+x"((sums)[0]), "+x"((sums)[1]), "=&x"(row), "=&x"(product)                                \
                         : "r"(base), "r"(stride), "x"(b0), "m"(b[8]), "x"(ones));                                     \
    } while (0)

/* sums [6][16] += a [6][4*words] * b [words][16][4]; row r of a at r*stride bytes. */
INLINE void multiply_bytes_avx2(const uint8_t *a, size_t stride, const int32_t *b, size_t words, __m256i sums[MR][2])
{
    const int32_t *end = b + words * NR;
    const uint8_t *a1 = a + stride;
    const __m256i ones = _mm256_set1_epi16(1);
    __asm__ volatile("" ::: "memory"); /* the rows are in memory before ADD_ROW reads them, */
    do {
        const __m256i b0 = load_vector(b);
        ADD_ROW(sums[0], a, "(%4)");
        ADD_ROW(sums[1], a, "(%4,%5,1)");
        ADD_ROW(sums[2], a, "(%4,%5,2)");
        ADD_ROW(sums[3], a1, "(%4,%5,2)");
        ADD_ROW(sums[4], a, "(%4,%5,4)");
        ADD_ROW(sums[5], a1, "(%4,%5,4)");
        a += 4, a1 += 4, b += NR;
    } while (b < end);
    __asm__ volatile("" ::: "memory"); /* and stay until it has */
}

/* query . mean of the block's rows, in the exponent's base. */
static void mean_scores_avx2(const int8_pass *p, size_t block, float out[8])
{
    const float *q = block_part(&p->f32, p->l->f32.queries, p->l->f32.query_step, block); /* [width][MR], scaled */
    const float *means = (const float *)(const void *)(p->scratch + p->l->means);
    const __m256i rows = first_dwords(MR);
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t c = 0; c < p->l->f32.width; c++) {
        const __m256 row = _mm256_maskload_ps(q + c * MR, rows);
        sum[c % 4] = _mm256_fmadd_ps(row, _mm256_broadcast_ss(means + c), sum[c % 4]);
    }
    _mm256_store_ps(out, _mm256_add_ps(_mm256_add_ps(sum[0], sum[1]), _mm256_add_ps(sum[2], sum[3])));
}

static void tile_score_bytes(const int8_pass *p, size_t block, float *s)
{
    _Alignas(32) float mean[8];
    mean_scores_avx2(p, block, mean);
    const uint8_t *q = query_block(p, block);
    const float *query_scale = query_scales(p, block);
    const float *key_scales = (const float *)(const void *)(p->scratch + p->l->key_scales);
    const int32_t *keys = (const int32_t *)(const void *)(p->scratch + p->l->keys);
    const int32_t *starts = (const int32_t *)(const void *)(p->scratch + p->l->key_starts);
    for (size_t key = 0; key < TILE; key += NR) {
        __m256i sums[MR][2];
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++)
            sums[r][0] = load_vector(starts + key), sums[r][1] = load_vector(starts + key + 8);
        multiply_bytes_avx2(q, p->l->row_bytes, keys + key * p->l->words, p->l->words, sums);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const __m256 scale = _mm256_load_ps(key_scales + key + 8 * half);
#pragma GCC unroll 6
            for (size_t r = 0; r < MR; r++) {
                const __m256 dot = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[r][half]), scale);
                _mm256_store_ps(
                    s + r * TILE + key + 8 * half,
                    _mm256_fmadd_ps(dot, _mm256_broadcast_ss(query_scale + r), _mm256_broadcast_ss(mean + r)));
            }
        }
    }
}

/* round(2^x) of x <= log2(255): a cubic is good to 1e-4. Zero far below. */
INLINE __m256i exp2_integers(__m256 x)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-30.0f));
    const __m256 floor = _mm256_floor_ps(x), r = _mm256_sub_ps(x, floor);
    __m256 p = _mm256_fmadd_ps(_mm256_set1_ps(EXP2_C3), r, _mm256_set1_ps(EXP2_C2));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP2_C1));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EXP2_C0));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(floor), 23);
    return _mm256_cvtps_epi32(_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent)));
}

/* Weights of all rows as bytes [MR][TILE]; the running maximum, the correction and the sum move on. */
static void tile_soften_bytes(const float *s, block_state *state, uint8_t *weights)
{
    for (size_t r = 0; r < MR; r++) {
        const float *row = s + r * TILE;
        __m256 max[4];
        for (size_t i = 0; i < 4; i++)
            max[i] = _mm256_load_ps(row + 8 * i);
        for (size_t i = 32; i < TILE; i += 32) {
            for (size_t j = 0; j < 4; j++)
                max[j] = _mm256_max_ps(max[j], _mm256_load_ps(row + i + 8 * j));
        }
        const float here = largest_of(_mm256_max_ps(_mm256_max_ps(max[0], max[1]), _mm256_max_ps(max[2], max[3])));
        const float old = state->max[r];
        state->max[r] = here > old ? here : old;
        state->correction[r] = old - state->max[r];
    }
    _mm256_store_ps(state->correction, exp2_8(_mm256_load_ps(state->correction)));
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7), zero = _mm256_setzero_si256();
    for (size_t r = 0; r < MR; r++, weights += TILE) {
        const __m256 top = _mm256_set1_ps(state->max[r] - WEIGHT_LOG2);
        __m256i sum = zero;
        for (size_t i = 0; i < TILE; i += 32) {
            __m256i v[4];
            for (size_t j = 0; j < 4; j++)
                v[j] = exp2_integers(_mm256_sub_ps(_mm256_load_ps(s + r * TILE + i + 8 * j), top));
            const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
            _mm256_store_si256((__m256i *)(void *)(weights + i), _mm256_permutevar8x32_epi32(bytes, in_order));
            sum = _mm256_add_epi32(sum, _mm256_sad_epu8(bytes, zero)); /* the even lanes; the odd ones stay zero */
        }
        const __m256 before =
            _mm256_mul_ps(_mm256_load_ps(state->sum + r * LANES), _mm256_broadcast_ss(state->correction + r));
        const __m256 here = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(1.0f / 255.0f));
        _mm256_store_ps(state->sum + r * LANES, _mm256_add_ps(before, here));
    }
}

static void tile_weigh_bytes(const int8_pass *p, const block_state *state, const uint8_t *weights, float *o)
{
    const int32_t *values = (const int32_t *)(const void *)(p->scratch + p->l->values);
    const float *scales = (const float *)(const void *)(p->scratch + p->l->value_scales);
    for (size_t panel = 0; panel < p->l->f32.panels; panel++, o += MR * NR, values += NR * (TILE / 4), scales += NR) {
        __m256i sums[MR][2];
#pragma GCC unroll 6
        for (size_t r = 0; r < MR; r++)
            sums[r][0] = sums[r][1] = _mm256_setzero_si256();
        multiply_bytes_avx2(weights, TILE, values, TILE / 4, sums);
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            const __m256 scale = _mm256_load_ps(scales + 8 * half);
#pragma GCC unroll 6
            for (size_t r = 0; r < MR; r++) {
                float *to = o + r * NR + 8 * half;
                const __m256 before = _mm256_mul_ps(_mm256_load_ps(to), _mm256_broadcast_ss(state->correction + r));
                _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[r][half]), scale, before));
            }
        }
    }
}

void mq__attention_int8_avx2(const mq_attention *a)
{
    attention_int8_passes(a, own_tile);
}

size_t mq__attention_int8_scratch_avx2(uint32_t heads, uint32_t head_dim)
{
    return attention_int8_bytes(heads, head_dim);
}
