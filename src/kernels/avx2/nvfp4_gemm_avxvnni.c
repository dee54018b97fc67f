/* NVFP4 W4A4 GEMM for processors with AVX2 and AVX-VNNI: client chips without AVX-512.
 *
 * The idea is that of the AVX-512 file with half the width: four vpdpbusd for a block of 8 features, sums that begin at the
 * bits of the float 1.5*2^23, less 12*sum(w). Blocking, and sums that stay in the tile, as in the AVX2 file.
 *
 * Registers of 4 rows x 16 features: t 8, w 2, activation 1; at the end of a block t 8, sw 2, c 2, scale 1.
 * Throughput of one block of 4 rows x 16 features: 32 vpdpbusd + 16 FMA on two ports = 24 cycles (2.67 times the FMA peak
 * at best), 42 loads (21), 110 issue slots.
 *
 * A single row goes to nvfp4_thin_avx2.c. Whether two to four would gain there, too, has not been measured on such a processor.
 *
 * The tests compile this file a second time with the EVEX encoding of the same instruction (MQ_VNNI_EVEX) and compare that on
 * processors with AVX-512 VNNI, most of which lack this one.
 *
 * Measured (checkasm --bench --isa avx2 nvfp4_gemm, N x K = 9728 x 2560, one thread) in multiples of the FMA peak: Zen 5 class,
 * 67 GMAC/s, VEX: M = 512 and 2048 2.36, M = 1 0.57, M = 4 1.55. Zen 4 class, 59 GMAC/s, EVEX: 2.24, 0.45, 1.09. */
#include "kernels/avx2/avxvnni.h"
#include "kernels/avx2/nvfp4_avx2.h"

/* Sixteen features of a weight cell as the micro-kernel reads them. */
typedef struct wide_cell {
    int8_t w[4][2][32];   /* [k/4][octet of features]: 2*e2m1 of 8 features x 4 k */
    uint32_t start[2][8]; /* bits of 1.5*2^23, minus 12*sum(w) */
    float sw[2][8];       /* block scales */
    float c[2][8];        /* -1.5*2^23 * sw */
} wide_cell;

enum { SLICE = 16 }; /* blocks of K unpacked at a time: [SLICE] cells of features 0..15, then [SLICE] of the others */

static inline void widen_octet(const uint8_t *cell, int octet, wide_cell *out)
{
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i low = _mm256_set1_epi8(15), twelve = _mm256_set1_epi8(MQ_NVFP4_OFFSET);
    const int o = octet % 2;
    __m256i sum = _mm256_setzero_si256(); /* 12*sum(w) */
    for (int h = 0; h < 2; h++) {
        const __m256i packed = _mm256_loadu_si256((const __m256i *)(const void *)(cell + 128 * h + 32 * octet));
        const __m256i w0 = _mm256_shuffle_epi8(table, _mm256_and_si256(packed, low));
        const __m256i w1 = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(packed, 4), low));
        _mm256_store_si256((__m256i *)(void *)out->w[2 * h][o], w0);
        _mm256_store_si256((__m256i *)(void *)out->w[2 * h + 1][o], w1);
        sum = dot4_avxvnni(dot4_avxvnni(sum, twelve, w0), twelve, w1);
    }
    _mm256_store_si256((__m256i *)(void *)out->start[o], _mm256_sub_epi32(_mm256_set1_epi32(0x4b400000), sum));
    const __m256 sw = e4m3_to_f32_nvfp4_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * octet);
    _mm256_store_ps(out->sw[o], sw);
    _mm256_store_ps(out->c[o], _mm256_mul_ps(sw, _mm256_set1_ps(-12582912.0f)));
}

static void widen_nvfp4_avxvnni(const uint8_t *cell, size_t blocks, void *cells, const uint8_t *ahead)
{
    wide_cell *out = cells;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, ahead += MQ_NVFP4_CELL, out++) {
        for (int line = 0; line < MQ_NVFP4_CELL; line += 64)
            _mm_prefetch((const char *)ahead + line, _MM_HINT_T0);
        for (int octet = 0; octet < 4; octet++)
            widen_octet(cell, octet, out + octet / 2 * SLICE);
    }
}

/* sum [rows][at 16 of 32] += one block. a: the codes of the rows; sa: their scales. */
INLINE void add_block_nvfp4_avxvnni(int rows, const uint8_t *a, const float *sa, const wide_cell *w,
                                    float (*sum)[MQ_NVFP4_NR])
{
    __m256i t[NVFP4_STEP][2];
    UNROLL
    for (int j = 0; j < 4; j++) {
        const __m256i w0 = load_nvfp4_avx2(w->w[j][0]), w1 = load_nvfp4_avx2(w->w[j][1]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a + r * MQ_NVFP4_BLOCK + 4 * j, sizeof four);
            const __m256i x = _mm256_set1_epi32(four);
            if (j == 0) t[r][0] = load_nvfp4_avx2(w->start[0]), t[r][1] = load_nvfp4_avx2(w->start[1]);
            t[r][0] = dot4_avxvnni(t[r][0], x, w0);
            t[r][1] = dot4_avxvnni(t[r][1], x, w1);
        }
    }
    const __m256 sw[2] = {_mm256_load_ps(w->sw[0]), _mm256_load_ps(w->sw[1])};
    const __m256 c[2] = {_mm256_load_ps(w->c[0]), _mm256_load_ps(w->c[1])};
    UNROLL
    for (int r = 0; r < rows; r++) {
        const __m256 scale = _mm256_broadcast_ss(sa + r);
        UNROLL
        for (int o = 0; o < 2; o++) {
            const __m256 exact = _mm256_fmadd_ps(_mm256_castsi256_ps(t[r][o]), sw[o], c[o]); /* dot * sw */
            _mm256_store_ps(sum[r] + 8 * o, _mm256_fmadd_ps(exact, scale, _mm256_load_ps(sum[r] + 8 * o)));
        }
    }
}

INLINE void micro_nvfp4_avxvnni(int rows, const nvfp4_slice *s, const uint8_t *a, size_t row,
                                float (*tile)[MQ_NVFP4_NR])
{
    const uint8_t *first = a + row * MQ_NVFP4_BLOCK;
    for (int v = 0; v < 2; v++) {
        const wide_cell *w = (const wide_cell *)s->cells + v * SLICE, *end = w + s->blocks;
        float(*sum)[MQ_NVFP4_NR] = (float(*)[MQ_NVFP4_NR])(void *)(tile[0] + 16 * v);
        const uint8_t *codes = first;
        const float *scales = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES) + row;
        do {
            _mm_prefetch((const char *)codes + s->group_bytes + 64 * v, _MM_HINT_T0);
            add_block_nvfp4_avxvnni(rows, codes, scales, w, sum);
            __asm__ volatile("" ::: "memory"); /* or gcc 12 keeps copies of the sums */
            codes += MQ_NVFP4_ROW_CELL, scales += MQ_NVFP4_ROW_CELL / sizeof *scales;
            w++;
        } while (w < end);
    }
}

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const nvfp4_slice *s, const uint8_t *a, size_t row,        \
                                                            float(*tile)[MQ_NVFP4_NR])                                 \
    {                                                                                                                  \
        micro_nvfp4_avxvnni(rows, s, a, row, tile);                                                                    \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
static micro_kernel *const micro_kernels[NVFP4_STEP + 1] = {NULL, micro_1x32, micro_2x32, micro_3x32, micro_4x32};

static void rows_through_nvfp4_avxvnni(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                                       const uint8_t *packed)
{
    run_slice_nvfp4_avx2(micro_kernels, s, rows, a, tile, packed);
}

static const nvfp4_core core = {.slice = SLICE, .widen = widen_nvfp4_avxvnni, .rows = rows_through_nvfp4_avxvnni};
_Static_assert(2 * SLICE * sizeof(wide_cell) <= NVFP4_CELLS, "a slice fits the scratch memory");

void mq__nvfp4_gemm_avxvnni(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    if (rows == 1) {
        mq__nvfp4_thin_avx2(a, rows, w, p0, p1, out);
    } else {
        mq__nvfp4_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}
