/* Prefill attention with products of BF16 tiles, TDPBF16PS: the tiles of kernels/attention_tiles.h with blocks of 32 query rows, as in
 * attention_bf16_avx512bf16.c: queries and softmax weights are rounded to BF16, sums and the softmax are FP32.
 *
 * The scratch holds pairs of BF16 in half of the room of floats: keys [TILE/NR][pairs of width][NR], values [panels][TILE/2][NR], queries
 * [MR][width], weights [MR][TILE] (rows TILE floats apart). Both products go by 2 x 2 tiles: 32 rows by 32 columns.
 *
 * Throughput at width 128: 16 scores take 8 cycles of products, 4096 multiply-adds, and then about 14 instructions of softmax, 7 cycles.
 * Measured (Emerald Rapids, one thread, a busy host): 3.5 to 3.9 times the FP32 FMA peak at 2k to 32k keys, 2.6 for the first 512 tokens;
 * width 64 2.7. */
#include "kernels/amx/tile_amx.h"

enum { PER_LANE = 2, MR = 32, NR = 32, LANES = 16, TILE = 256 };

#include "kernels/avx512/attention_softmax_avx512.h"

/* 2^x for x <= 0, within 1.5e-4, less than BF16 rounds: exactly 1 at 0; 0 below -64, for -infinity and NaN, as exp2_16. */
static inline __m512 tile_weight(__m512 x)
{
    const __m512 r = _mm512_reduce_ps(x, 0x09); /* x - floor(x) */
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0x1.38f1c8p-4f), r, _mm512_set1_ps(0x1.d56586p-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.638866p-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1));
    const __mmask16 large = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-64.0f), _CMP_GE_OQ);
    return _mm512_maskz_scalef_ps(large, p, x);
}

#include "kernels/avx512bf16/attention_pairs_avx512bf16.h"
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/table.h"

enum { STEP = 32 }; /* of the summed index, a tile's */

/* Pairs of keys past the last one are zero up to a whole tile: their weights are zero, and no NaN may come of them. */
static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values)
{
    const size_t first = (key + count + 1) / 2, end = (key / STEP + 1) * (STEP / 2);
    for (size_t c = 0; c < width && first < end; c += NR)
        memset(values + c * (TILE / 2) + first * NR, 0, (end - first) * NR * sizeof *values);
    widen_value_pairs(rows, width, count, key, values);
}

static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q)
{
    const __m512 factor = _mm512_set1_ps(scale);
    char *to = (char *)q;
    for (size_t r = 0; r < MR; r++) {
        for (size_t c = 0; c < width; c += STEP, to += TILE_ROW_BYTES) {
            const __m512 low = rows[r] ? _mm512_loadu_ps(rows[r] + c) : _mm512_setzero_ps();
            const __m512 high = rows[r] ? _mm512_loadu_ps(rows[r] + c + 16) : _mm512_setzero_ps();
            _mm512_storeu_si512(to,
                                (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(high, factor), _mm512_mul_ps(low, factor)));
        }
    }
}

/* sums += a [32][steps * 32] * b [steps * 16 pairs][NR]: tiles 0 and 1 are the upper rows, 2 and 3 the lower ones. */
static inline void multiply_tiles(const char *a, size_t a_stride, const char *b, size_t steps)
{
    enum { B_STRIDE = NR * 4, B_STEP = 16 * B_STRIDE };
    const char *lower = a + 16 * a_stride;
    for (size_t i = 0; i < steps; i++, a += TILE_ROW_BYTES, lower += TILE_ROW_BYTES, b += B_STEP) {
        TILE_LOAD(4, a, a_stride);
        TILE_LOAD(6, b, B_STRIDE);
        TILE_MULTIPLY_BF16(0, 4, 6);
        TILE_LOAD(7, b + TILE_ROW_BYTES, B_STRIDE);
        TILE_MULTIPLY_BF16(1, 4, 7);
        TILE_LOAD(5, lower, a_stride);
        TILE_MULTIPLY_BF16(2, 5, 6);
        TILE_MULTIPLY_BF16(3, 5, 7);
    }
}

static void store_tiles(float *to, size_t stride)
{
    TILE_STORE(0, to, stride);
    TILE_STORE(1, to + 16, stride);
    TILE_STORE(2, (char *)to + 16 * stride, stride);
    TILE_STORE(3, (char *)(to + 16) + 16 * stride, stride);
}

static void tile_score(const float *q, const float *keys, size_t width, size_t count, float *s)
{
    for (size_t column = 0; column < count; column += NR) {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        multiply_tiles((const char *)q, 2 * width, (const char *)(keys + column * (width / PER_LANE)), width / STEP);
        store_tiles(s + column, TILE * sizeof *s);
    }
}

static bool any_corrected(const block_state *state)
{
    const __m512 one = _mm512_set1_ps(1);
    __mmask16 other = 0;
    for (size_t r = 0; r < MR; r += 16)
        other |= _mm512_cmp_ps_mask(_mm512_load_ps(state->correction + r), one, _CMP_NEQ_UQ);
    return other != 0;
}

static void tile_weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count,
                       float *o)
{
    const bool corrected = any_corrected(state);
    for (size_t panel = 0; panel < panels; panel++, o += MR * NR, values += TILE / PER_LANE * NR) {
        for (size_t r = 0; corrected && r < MR; r++) {
            const __m512 correction = _mm512_set1_ps(state->correction[r]);
            _mm512_store_ps(o + r * NR, _mm512_mul_ps(_mm512_load_ps(o + r * NR), correction));
            _mm512_store_ps(o + r * NR + 16, _mm512_mul_ps(_mm512_load_ps(o + r * NR + 16), correction));
        }
        TILE_LOAD(0, o, NR * sizeof *o);
        TILE_LOAD(1, o + 16, NR * sizeof *o);
        TILE_LOAD(2, o + 16 * NR, NR * sizeof *o);
        TILE_LOAD(3, o + 16 * NR + 16, NR * sizeof *o);
        multiply_tiles((const char *)s, TILE * sizeof *s, (const char *)values, (count + STEP - 1) / STEP);
        store_tiles(o, NR * sizeof *o);
    }
}

/* Tiles hold 32 of a head's width. */
static bool fits_tiles(uint32_t head_dim)
{
    return head_dim % STEP == 0;
}

static void attention_bf16_amx(const mq_attention *a)
{
    if (!fits_tiles(a->kv.head_dim)) {
        mq__attention_bf16_avx512bf16(a);
        return;
    }
    tiles_configure();
    prefill_attention_tiles(a);
    tiles_release();
}

static size_t (*scratch_bytes_below)(uint32_t heads, uint32_t head_dim);

static size_t scratch_bytes_attention_amx(uint32_t heads, uint32_t head_dim)
{
    const size_t below = scratch_bytes_below(heads, head_dim), own = prefill_scratch_bytes(heads, head_dim);
    return below > own ? below : own;
}

void mq__fill_amx_attention(mq_kernels *table)
{
    scratch_bytes_below = table->attention_scratch_bytes;
    table->attention_prefill_bf16 = attention_bf16_amx;
    table->attention_scratch_bytes = scratch_bytes_attention_amx;
}
