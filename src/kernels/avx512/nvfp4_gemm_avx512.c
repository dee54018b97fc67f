/* NVFP4 W4A4 GEMM, AVX-512 VNNI. */
#include "kernels/nvfp4_pack.h"
#include "kernels/table.h"

#include <immintrin.h>

/* A weight cell as the micro-kernel reads it: operands of vpdpbusd and the constants of the float part. */
typedef struct wide_cell {
    int8_t w[4][2][64];    /* [k/4][half of features]: 2*e2m1 of 16 features x 4 k */
    uint32_t start[2][16]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[2][16];
    float c[2][16]; /* -1.5*2^23 * sw */
} wide_cell;

#ifndef KC_BLOCKS
#define KC_BLOCKS 32
#endif
#ifndef TILE_ROWS
#define TILE_ROWS 480
#endif
enum {
    SLICE_BLOCKS = KC_BLOCKS, /* blocks of K unpacked at a time */
    PASS_ROWS = TILE_ROWS,    /* rows that share them: a multiple of MQ_NVFP4_MR */
    HALF = MQ_NVFP4_NR / 2,
};

typedef struct workspace {
    _Alignas(64) wide_cell cells[SLICE_BLOCKS];
    float tile[PASS_ROWS][MQ_NVFP4_NR];
} workspace;

static inline __m512i dot4(__m512i t, __m512i a, __m512i w)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(t) : "v"(a), "v"(w));
    return t;
}

static inline __m512 e4m3_to_f32(__m128i bytes)
{
    const __m512i x = _mm512_cvtepu8_epi32(bytes);
    const __mmask16 subnormal = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32(8));
    __m512i bits = _mm512_add_epi32(_mm512_slli_epi32(x, 20), _mm512_set1_epi32(120 << 23));
    bits = _mm512_mask_add_epi32(bits, subnormal, bits, _mm512_set1_epi32(1 << 23)); /* (1 + m/8) * 2^-6 */
    const __m512 f = _mm512_castsi512_ps(bits);
    return _mm512_mask_sub_ps(f, subnormal, f, _mm512_set1_ps(0x1p-6f));
}

static void widen(const uint8_t *cell, size_t blocks, wide_cell *out)
{
    const __m512i table =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i minus12 = _mm512_set1_epi8(12);
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, out++) {
        for (int v = 0; v < 2; v++) {
            __m512i sum = _mm512_setzero_si512();
            for (int h = 0; h < 2; h++) {
                const __m512i packed = _mm512_loadu_si512(cell + 128 * h + 64 * v);
                const __m512i w0 = _mm512_shuffle_epi8(table, _mm512_and_si512(packed, low));
                const __m512i w1 = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(packed, 4), low));
                _mm512_store_si512(out->w[2 * h][v], w0);
                _mm512_store_si512(out->w[2 * h + 1][v], w1);
                sum = dot4(dot4(sum, minus12, w0), minus12, w1);
            }
            _mm512_store_si512(out->start[v], _mm512_sub_epi32(_mm512_set1_epi32(0x4b400000), sum));
            const __m512 sw = e4m3_to_f32(_mm_loadu_si128((const __m128i *)(cell + MQ_NVFP4_CELL_SCALES + HALF * v)));
            _mm512_store_ps(out->sw[v], sw);
            _mm512_store_ps(out->c[v], _mm512_mul_ps(sw, _mm512_set1_ps(-12582912.0f)));
        }
    }
}

#define INLINE static inline __attribute__((always_inline))

/* Rows [r0, r0 + n) of one block, n <= 5. */
INLINE void block_rows(int r0, int n, const uint8_t *a, const wide_cell *w, __m512 (*acc)[2])
{
    __m512i t[5][2];
    for (int r = 0; r < n; r++) {
        for (int v = 0; v < 2; v++)
            t[r][v] = _mm512_load_si512(w->start[v]);
    }
    for (int j = 0; j < 4; j++) {
        const __m512i w0 = _mm512_load_si512(w->w[j][0]), w1 = _mm512_load_si512(w->w[j][1]);
        for (int r = 0; r < n; r++) {
            int32_t four;
            memcpy(&four, a + (r0 + r) * MQ_NVFP4_BLOCK + 4 * j, sizeof four);
            const __m512i x = _mm512_set1_epi32(four);
            t[r][0] = dot4(t[r][0], x, w0);
            t[r][1] = dot4(t[r][1], x, w1);
        }
    }
    const float *sa = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES);
    for (int v = 0; v < 2; v++) {
        const __m512 sw = _mm512_load_ps(w->sw[v]), c = _mm512_load_ps(w->c[v]);
        for (int r = 0; r < n; r++) {
            const __m512 f = _mm512_fmadd_ps(_mm512_castsi512_ps(t[r][v]), sw, c);
            acc[r0 + r][v] = _mm512_fmadd_ps(f, _mm512_set1_ps(sa[r0 + r]), acc[r0 + r][v]);
        }
    }
}

INLINE void micro(int rows, size_t blocks, const uint8_t *a, const wide_cell *w, float (*tile)[MQ_NVFP4_NR], bool first)
{
    __m512 acc[MQ_NVFP4_MR][2];
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < 2; v++)
            acc[r][v] = first ? _mm512_setzero_ps() : _mm512_load_ps(tile[r] + HALF * v);
    }
    const int n0 = rows > 5 ? (rows + 1) / 2 : rows;
    for (size_t b = 0; b < blocks; b++, a += MQ_NVFP4_ROW_CELL, w++) {
        block_rows(0, n0, a, w, acc);
        if (rows > n0) block_rows(n0, rows - n0, a, w, acc);
    }
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < 2; v++)
            _mm512_store_ps(tile[r] + HALF * v, acc[r][v]);
    }
}

typedef void micro_kernel(size_t blocks, const uint8_t *a, const wide_cell *w, float (*tile)[MQ_NVFP4_NR], bool first);

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(size_t blocks, const uint8_t *a, const wide_cell *w,       \
                                                            float(*tile)[MQ_NVFP4_NR], bool first)                     \
    {                                                                                                                  \
        micro(rows, blocks, a, w, tile, first);                                                                        \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
MICRO(5)
MICRO(6)
MICRO(7)
MICRO(8)
MICRO(9)
MICRO(10)
static micro_kernel *const micro_kernels[MQ_NVFP4_MR + 1] = {NULL,       micro_1x32, micro_2x32, micro_3x32,
                                                             micro_4x32, micro_5x32, micro_6x32, micro_7x32,
                                                             micro_8x32, micro_9x32, micro_10x32};

/* Rows [m0, m0 + rows) of the finished tile to y. */
static void epilogue(const mq_nvfp4_rows *a, const mq_nvfp4 *w, size_t m0, size_t rows, size_t n0,
                     float (*tile)[MQ_NVFP4_NR], const mq_epilogue *out)
{
    const size_t features = w->n - n0 < MQ_NVFP4_NR ? w->n - n0 : MQ_NVFP4_NR;
    const uint32_t mask = features == MQ_NVFP4_NR ? UINT32_MAX : (1u << features) - 1;
    for (int v = 0; v < 2; v++) {
        const __mmask16 m = (__mmask16)(mask >> HALF * v);
        if (!m) break;
        const __m512 bias = out->bias ? _mm512_maskz_loadu_ps(m, out->bias + n0 + HALF * v) : _mm512_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            const __m512 scale = _mm512_set1_ps(0.25f * a->multiplier[m0 + r] * w->multiplier);
            float *y = out->y + (m0 + r) * out->ldy + n0 + HALF * v;
            __m512 sum = _mm512_mul_ps(_mm512_load_ps(tile[r] + HALF * v), scale);
            if (out->bias) sum = _mm512_add_ps(sum, bias);
            if (out->accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(m, y));
            _mm512_mask_storeu_ps(y, m, sum);
        }
    }
}

static void nvfp4_gemm_avx512(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                              const mq_epilogue *out, void *scratch)
{
    workspace *ws = scratch;
    const size_t blocks = w->blocks;
    for (size_t m0 = 0; m0 < rows; m0 += PASS_ROWS) {
        const size_t pass = rows - m0 < PASS_ROWS ? rows - m0 : PASS_ROWS;
        const uint8_t *cells = a->panels + m0 / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL;
        for (size_t p = p0; p < p1; p++) {
            for (size_t b = 0; b < blocks; b += SLICE_BLOCKS) {
                const size_t n = blocks - b < SLICE_BLOCKS ? blocks - b : SLICE_BLOCKS;
                widen(mq__nvfp4_panel(w, p) + b * MQ_NVFP4_CELL, n, ws->cells);
                for (size_t r = 0; r < pass; r += MQ_NVFP4_MR) {
                    const size_t group = pass - r < MQ_NVFP4_MR ? pass - r : MQ_NVFP4_MR;
                    micro_kernels[group](n, cells + (r / MQ_NVFP4_MR * blocks + b) * MQ_NVFP4_ROW_CELL, ws->cells,
                                         ws->tile + r, b == 0);
                }
            }
            epilogue(a, w, m0, pass, p * MQ_NVFP4_NR, ws->tile, out);
        }
    }
}

void mq__fill_avx512_nvfp4(mq_kernels *table)
{
    table->nvfp4_quantize = mq__nvfp4_quantize_avx512;
    table->nvfp4_gemm = nvfp4_gemm_avx512;
    if (table->gemm_scratch_bytes < sizeof(workspace)) table->gemm_scratch_bytes = sizeof(workspace);
}
