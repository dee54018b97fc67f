/* NVFP4 W4A4 GEMM, AVX2. */
#include "kernels/nvfp4_pack.h"
#include "kernels/table.h"

#include <immintrin.h>

/* Sixteen features of a weight cell as the micro-kernel reads them. */
typedef struct wide_cell {
    int8_t w[4][2][32];   /* [k/4][octet of features]: 2*e2m1 of 8 features x 4 k */
    uint32_t start[2][8]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[2][8];
    float c[2][8]; /* -1.5*2^23 * sw */
} wide_cell;

#ifndef KC_BLOCKS2
#define KC_BLOCKS2 32
#endif
#ifndef TILE_ROWS2
#define TILE_ROWS2 480
#endif
enum {
    SLICE_BLOCKS = KC_BLOCKS2, /* blocks of K unpacked at a time */
    PASS_ROWS = TILE_ROWS2,    /* rows that share them */
    STEP = 3,                  /* rows of the micro-kernel */
    HALF = MQ_NVFP4_NR / 2,
};

typedef struct workspace {
    _Alignas(64) wide_cell cells[2][SLICE_BLOCKS];
    float tile[2][PASS_ROWS][HALF];
} workspace;

static inline __m256 e4m3_to_f32(const uint8_t *bytes)
{
    const __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)bytes));
    const __m256i subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32(8), x);
    __m256i bits = _mm256_add_epi32(_mm256_slli_epi32(x, 20), _mm256_set1_epi32(120 << 23));
    bits = _mm256_add_epi32(bits, _mm256_and_si256(subnormal, _mm256_set1_epi32(1 << 23))); /* (1 + m/8) * 2^-6 */
    const __m256 excess = _mm256_and_ps(_mm256_castsi256_ps(subnormal), _mm256_set1_ps(0x1p-6f));
    return _mm256_sub_ps(_mm256_castsi256_ps(bits), excess);
}

static void widen(const uint8_t *cell, size_t blocks, wide_cell (*out)[SLICE_BLOCKS])
{
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i low = _mm256_set1_epi8(15), twelve = _mm256_set1_epi8(MQ_NVFP4_OFFSET);
    const __m256i ones = _mm256_set1_epi16(1);
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL) {
        for (int octet = 0; octet < 4; octet++) {
            wide_cell *to = &out[octet / 2][b];
            const int o = octet % 2;
            __m256i sum = _mm256_setzero_si256();
            for (int h = 0; h < 2; h++) {
                const __m256i packed = _mm256_loadu_si256((const __m256i *)(cell + 128 * h + 32 * octet));
                const __m256i w0 = _mm256_shuffle_epi8(table, _mm256_and_si256(packed, low));
                const __m256i w1 = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(packed, 4), low));
                _mm256_store_si256((__m256i *)to->w[2 * h][o], w0);
                _mm256_store_si256((__m256i *)to->w[2 * h + 1][o], w1);
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(twelve, w0));
                sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(twelve, w1));
            }
            const __m256i start = _mm256_sub_epi32(_mm256_set1_epi32(0x4b400000), _mm256_madd_epi16(sum, ones));
            const __m256 sw = e4m3_to_f32(cell + MQ_NVFP4_CELL_SCALES + 8 * octet);
            _mm256_store_si256((__m256i *)to->start[o], start);
            _mm256_store_ps(to->sw[o], sw);
            _mm256_store_ps(to->c[o], _mm256_mul_ps(sw, _mm256_set1_ps(-12582912.0f)));
        }
    }
}

#define INLINE static inline __attribute__((always_inline))

/* a[r]: the codes of row r in the first block; sa[r]: its scale there. */
INLINE void micro(int rows, size_t blocks, const uint8_t *const *a_in, const uint8_t *const *sa_in, const wide_cell *w,
                  float (*tile)[HALF], bool first)
{
    __m256 acc[STEP][2];
    const uint8_t *a[STEP], *sa[STEP];
    for (int r = 0; r < rows; r++) {
        a[r] = a_in[r], sa[r] = sa_in[r];
        for (int o = 0; o < 2; o++)
            acc[r][o] = first ? _mm256_setzero_ps() : _mm256_load_ps(tile[r] + 8 * o);
    }
    for (size_t b = 0; b < blocks; b++, w++) {
        __m256i t[STEP][2];
        for (int j = 0; j < 4; j++) {
            const __m256i w0 = _mm256_load_si256((const __m256i *)w->w[j][0]);
            const __m256i w1 = _mm256_load_si256((const __m256i *)w->w[j][1]);
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, a[r] + b * MQ_NVFP4_ROW_CELL + 4 * j, sizeof four);
                const __m256i x = _mm256_set1_epi32(four);
                const __m256i d0 = _mm256_maddubs_epi16(x, w0), d1 = _mm256_maddubs_epi16(x, w1);
                t[r][0] = j ? _mm256_add_epi16(t[r][0], d0) : d0;
                t[r][1] = j ? _mm256_add_epi16(t[r][1], d1) : d1;
            }
        }
        const __m256i ones = _mm256_set1_epi16(1);
        for (int r = 0; r < rows; r++) {
            float s;
            memcpy(&s, sa[r] + b * MQ_NVFP4_ROW_CELL, sizeof s);
            const __m256 scale = _mm256_set1_ps(s);
            for (int o = 0; o < 2; o++) {
                const __m256i d =
                    _mm256_add_epi32(_mm256_madd_epi16(t[r][o], ones), _mm256_load_si256((const __m256i *)w->start[o]));
                const __m256 f =
                    _mm256_fmadd_ps(_mm256_castsi256_ps(d), _mm256_load_ps(w->sw[o]), _mm256_load_ps(w->c[o]));
                acc[r][o] = _mm256_fmadd_ps(f, scale, acc[r][o]);
            }
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int o = 0; o < 2; o++)
            _mm256_store_ps(tile[r] + 8 * o, acc[r][o]);
    }
}

typedef void micro_kernel(size_t blocks, const uint8_t *const *a, const uint8_t *const *sa, const wide_cell *w,
                          float (*tile)[HALF], bool first);

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x16(size_t blocks, const uint8_t *const *a,                    \
                                                            const uint8_t *const *sa, const wide_cell *w,              \
                                                            float(*tile)[HALF], bool first)                            \
    {                                                                                                                  \
        micro(rows, blocks, a, sa, w, tile, first);                                                                    \
    }
MICRO(1)
MICRO(2)
MICRO(3)
static micro_kernel *const micro_kernels[STEP + 1] = {NULL, micro_1x16, micro_2x16, micro_3x16};

/* Rows [m0, m0 + rows) of the finished tile to y. */
static void epilogue(const mq_nvfp4_rows *a, const mq_nvfp4 *w, size_t m0, size_t rows, size_t n0, const workspace *ws,
                     const mq_epilogue *out)
{
    const size_t features = w->n - n0 < MQ_NVFP4_NR ? w->n - n0 : MQ_NVFP4_NR;
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int octet = 0; octet < 4 && (size_t)octet * 8 < features; octet++) {
        const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32((int)features - 8 * octet), lane);
        const __m256 bias = out->bias ? _mm256_maskload_ps(out->bias + n0 + 8 * octet, mask) : _mm256_setzero_ps();
        for (size_t r = 0; r < rows; r++) {
            const __m256 scale = _mm256_set1_ps(0.25f * a->multiplier[m0 + r] * w->multiplier);
            float *y = out->y + (m0 + r) * out->ldy + n0 + 8 * octet;
            __m256 sum = _mm256_mul_ps(_mm256_load_ps(ws->tile[octet / 2][r] + 8 * (octet % 2)), scale);
            if (out->bias) sum = _mm256_add_ps(sum, bias);
            if (out->accumulate) sum = _mm256_add_ps(sum, _mm256_maskload_ps(y, mask));
            if (features - 8 * (size_t)octet >= 8) {
                _mm256_storeu_ps(y, sum);
            } else {
                _mm256_maskstore_ps(y, mask, sum);
            }
        }
    }
}

/* One slice of K of one panel: rows [m0, m0 + rows), blocks [b, b + n). */
static void slice(const mq_nvfp4_rows *a, size_t m0, size_t rows, size_t blocks, size_t b, size_t n, workspace *ws)
{
    for (size_t r = 0; r < rows; r += STEP) {
        const size_t step = rows - r < STEP ? rows - r : STEP;
        const uint8_t *codes[STEP], *scales[STEP];
        for (size_t i = 0; i < step; i++) {
            const size_t m = m0 + r + i;
            const uint8_t *cell = a->panels + (m / MQ_NVFP4_MR * blocks + b) * MQ_NVFP4_ROW_CELL;
            codes[i] = cell + m % MQ_NVFP4_MR * MQ_NVFP4_BLOCK;
            scales[i] = cell + MQ_NVFP4_ROW_SCALES + m % MQ_NVFP4_MR * sizeof(float);
        }
        for (int v = 0; v < 2; v++)
            micro_kernels[step](n, codes, scales, ws->cells[v], ws->tile[v] + r, b == 0);
    }
}

static void nvfp4_gemm_avx2(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    workspace *ws = scratch;
    for (size_t m0 = 0; m0 < rows; m0 += PASS_ROWS) {
        const size_t pass = rows - m0 < PASS_ROWS ? rows - m0 : PASS_ROWS;
        for (size_t p = p0; p < p1; p++) {
            for (size_t b = 0; b < w->blocks; b += SLICE_BLOCKS) {
                const size_t n = w->blocks - b < SLICE_BLOCKS ? w->blocks - b : SLICE_BLOCKS;
                widen(mq__nvfp4_panel(w, p) + b * MQ_NVFP4_CELL, n, ws->cells);
                slice(a, m0, pass, w->blocks, b, n, ws);
            }
            epilogue(a, w, m0, pass, p * MQ_NVFP4_NR, ws, out);
        }
    }
}

void mq__fill_avx2_nvfp4(mq_kernels *table)
{
    table->nvfp4_quantize = mq__nvfp4_quantize_avx2;
    table->nvfp4_gemm = nvfp4_gemm_avx2;
    if (table->gemm_scratch_bytes < sizeof(workspace)) table->gemm_scratch_bytes = sizeof(workspace);
}
