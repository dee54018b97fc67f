/* NVFP4 W4A4 GEMM, AVX2. Up to four rows go to nvfp4_thin_avx2.c.
 *
 * The idea. vpmaddubsw multiplies activations as unsigned bytes (value + 12) by signed weights and adds two products. A
 * vector of weights is two consecutive k of 16 features, so that eight instructions and eight additions make the whole dot
 * product of a block in the 16 bits that it needs: from a start of 4096 - 12*sum(w) the sum ends as 4096 + dot, 1792 to
 * 6400. Put below the half word 0x4b00 by an unpack these are the bits of the float 2^23 + 4096 + dot: no widening, no
 * conversion. Two FMAs as in the reference follow ((2^23 + 4096) * sw is exact): the same bits.
 *
 * Blocking is that of nvfp4_driver.h. The running sums stay in the tile, in L1, and are loaded and stored once per block:
 * that leaves the registers for 4 rows x 32 features, which halves the loads of 2 x 32 with its sums in registers.
 *
 * Registers of micro_4x32: t 8, w 2, activation 1, products 2; at the end of a block t 8, sw 2, c 2, scale 1, high halves 1.
 * Throughput of one block of 4 rows x 32 features: 64 vpmaddubsw and 32 FMA on two ports = 48 cycles, where FP32 needs
 * 128 (2.67 times the FMA peak at best); with 64 vpaddw and 16 unpacks 176 operations on three or four ports (44 to 59
 * cycles), 86 loads (43), 275 issue slots (46 at six a cycle).
 *
 * Measured (2-core Zen 4 class, 32 KiB L1d, one thread, shared host, commit 9993733; checkasm --bench --isa avx2 nvfp4_gemm) in
 * multiples of the FMA peak, 59 GMAC/s: operands in L1 2.30 with 4 rows, 2.20 with 3; the seven shapes of Qwen3 0.6B, 4B
 * and 8B with M=512 1.96 to 2.05, M=2048 1.98 to 2.04 in quiet moments, 1.3 to 1.5 while a neighbour shares the core's
 * issue slots. The kernel before, four k of 8 features in 32-bit lanes and vpmaddwd: 2.08 in L1, 1.5 to 1.7 in the GEMM. */
#include "kernels/avx2/nvfp4_avx2.h"
#include "kernels/table.h"

/* A weight cell as the micro-kernel reads it. Words are features 0..3, 8..11 | 4..7, 12..15: in order after unpacking. */
typedef struct wide_cell {
    int8_t w[MQ_NVFP4_BLOCK / 2][2][32]; /* [k/2][half of the features]: 2*e2m1 */
    int16_t start[2][16];                /* 4096 - 12*sum(w), in the same order */
    float sw[4][8];                      /* block scales */
    float c[4][8];                       /* -(2^23 + 4096) * sw */
} wide_cell;

enum {
    SLICE = 16, /* blocks of K unpacked at a time */
    HALF = MQ_NVFP4_NR / 2,
};

/* 16 features of one cell (half v) as the micro-kernel reads them. */
static inline void widen_half(const uint8_t *cell, int v, wide_cell *out)
{
    const __m256i table =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i pairs = /* of four features: bytes 0 1 of each, bytes 2 3 of each */
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15));
    const __m256i low = _mm256_set1_epi8(15), twelve = _mm256_set1_epi8(MQ_NVFP4_OFFSET);
    __m256i start = _mm256_set1_epi16(4096);
    for (int h = 0; h < 2; h++) {
        const __m256i *packed = (const __m256i *)(const void *)(cell + 128 * h + 64 * v);
        const __m256i p = _mm256_shuffle_epi8(_mm256_loadu_si256(packed), pairs);
        const __m256i q = _mm256_shuffle_epi8(_mm256_loadu_si256(packed + 1), pairs);
        const __m256i both[2] = {_mm256_unpacklo_epi64(p, q), _mm256_unpackhi_epi64(p, q)};
        for (int i = 0; i < 2; i++) {
            const __m256i w0 = _mm256_shuffle_epi8(table, _mm256_and_si256(both[i], low));
            const __m256i w1 = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both[i], 4), low));
            _mm256_store_si256((__m256i *)out->w[4 * h + i][v], w0);
            _mm256_store_si256((__m256i *)out->w[4 * h + 2 + i][v], w1);
            start = _mm256_sub_epi16(start, _mm256_maddubs_epi16(twelve, w0));
            start = _mm256_sub_epi16(start, _mm256_maddubs_epi16(twelve, w1));
        }
    }
    _mm256_store_si256((__m256i *)out->start[v], start);
    for (int o = 2 * v; o < 2 * v + 2; o++) {
        const __m256 sw = e4m3_to_f32_nvfp4_avx2(cell + MQ_NVFP4_CELL_SCALES + 8 * o);
        _mm256_store_ps(out->sw[o], sw);
        _mm256_store_ps(out->c[o], _mm256_mul_ps(sw, _mm256_set1_ps(-0x1.002p23f)));
    }
}

static void widen_nvfp4_avx2(const uint8_t *cell, size_t blocks, void *cells, const uint8_t *ahead)
{
    wide_cell *out = cells;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL, ahead += MQ_NVFP4_CELL, out++) {
        for (int line = 0; line < MQ_NVFP4_CELL; line += 64)
            _mm_prefetch((const char *)ahead + line, _MM_HINT_T0);
        widen_half(cell, 0, out);
        widen_half(cell, 1, out);
    }
}

/* t0 and t1 += 16 sums of two products, u8 x times s8 w. As asm, because gcc regroups the sums and spills. */
INLINE void dot2_add(__m256i *t0, __m256i *t1, __m256i x, __m256i w0, __m256i w1)
{
    __m256i d0, d1;
    __asm__("vpmaddubsw %5, %4, %2\n\tvpmaddubsw %6, %4, %3\n\tvpaddw %2, %0, %0\n\tvpaddw %3, %1, %1"
            : "+x"(*t0), "+x"(*t1), "=&x"(d0), "=&x"(d1)
            : "x"(x), "x"(w0), "x"(w1));
}

INLINE __m256i broadcast_pair(const uint8_t *codes)
{
    __m256i x;
    __asm__("vpbroadcastw %1, %0" : "=x"(x) : "m"(*(const int16_t *)(const void *)codes));
    return x;
}

/* sum [rows][32] += one block. a: the codes of the rows; sa: their scales. */
INLINE void add_block_nvfp4_avx2(int rows, const uint8_t *a, const float *sa, const wide_cell *w,
                                 float (*sum)[MQ_NVFP4_NR])
{
    __m256i t[NVFP4_STEP][2];
    UNROLL
    for (int j = 0; j < MQ_NVFP4_BLOCK / 2; j++) {
        const __m256i w0 = load_nvfp4_avx2(w->w[j][0]), w1 = load_nvfp4_avx2(w->w[j][1]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const __m256i x = broadcast_pair(a + r * MQ_NVFP4_BLOCK + 2 * j);
            if (j == 0) t[r][0] = load_nvfp4_avx2(w->start[0]), t[r][1] = load_nvfp4_avx2(w->start[1]);
            dot2_add(&t[r][0], &t[r][1], x, w0, w1);
        }
    }
    const __m256i high = _mm256_set1_epi16(0x4b00);
    UNROLL
    for (int v = 0; v < 2; v++) {
        const __m256 sw0 = _mm256_load_ps(w->sw[2 * v]), c0 = _mm256_load_ps(w->c[2 * v]);
        const __m256 sw1 = _mm256_load_ps(w->sw[2 * v + 1]), c1 = _mm256_load_ps(w->c[2 * v + 1]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            float *to = sum[r] + HALF * v;
            const __m256 scale = _mm256_broadcast_ss(sa + r);
            const __m256 bits0 = _mm256_castsi256_ps(_mm256_unpacklo_epi16(t[r][v], high));
            const __m256 bits1 = _mm256_castsi256_ps(_mm256_unpackhi_epi16(t[r][v], high));
            const __m256 exact0 = _mm256_fmadd_ps(bits0, sw0, c0),
                         exact1 = _mm256_fmadd_ps(bits1, sw1, c1); /* dot * sw */
            _mm256_store_ps(to, _mm256_fmadd_ps(exact0, scale, _mm256_load_ps(to)));
            _mm256_store_ps(to + 8, _mm256_fmadd_ps(exact1, scale, _mm256_load_ps(to + 8)));
        }
    }
}

/* Rows [row, row + rows) of their group through the slice. a: the group at the slice's first block. */
INLINE void micro_nvfp4_avx2(int rows, const nvfp4_slice *s, const uint8_t *a, size_t row, float (*tile)[MQ_NVFP4_NR])
{
    const wide_cell *w = s->cells, *end = w + s->blocks;
    const uint8_t *codes = a + row * MQ_NVFP4_BLOCK, *next = codes + s->group_bytes;
    const float *scales = (const float *)(const void *)(a + MQ_NVFP4_ROW_SCALES) + row;
    do {
        _mm_prefetch((const char *)next, _MM_HINT_T0);
        _mm_prefetch((const char *)next + 64, _MM_HINT_T0);
        add_block_nvfp4_avx2(rows, codes, scales, w, tile);
        __asm__ volatile("" : "+m"(*(float(*)[NVFP4_STEP][MQ_NVFP4_NR])tile)); /* or gcc 12 keeps copies of the sums */
        codes += MQ_NVFP4_ROW_CELL, next += MQ_NVFP4_ROW_CELL, scales += MQ_NVFP4_ROW_CELL / sizeof *scales;
        w++;
    } while (w < end);
}

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x32(const nvfp4_slice *s, const uint8_t *a, size_t row,        \
                                                            float(*tile)[MQ_NVFP4_NR])                                 \
    {                                                                                                                  \
        micro_nvfp4_avx2(rows, s, a, row, tile);                                                                       \
    }
MICRO(1)
MICRO(2)
MICRO(3)
MICRO(4)
static micro_kernel *const micro_kernels[NVFP4_STEP + 1] = {NULL, micro_1x32, micro_2x32, micro_3x32, micro_4x32};

static void rows_through_nvfp4_avx2(const nvfp4_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_NVFP4_NR],
                                    const uint8_t *packed)
{
    run_slice_nvfp4_avx2(micro_kernels, s, rows, a, tile, packed);
}

static const nvfp4_core core = {.slice = SLICE, .widen = widen_nvfp4_avx2, .rows = rows_through_nvfp4_avx2};
_Static_assert(SLICE * sizeof(wide_cell) <= NVFP4_CELLS, "a slice fits the scratch memory");

static void nvfp4_gemm_avx2(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    if (rows <= MQ_NVFP4_THIN_AVX2) {
        mq__nvfp4_thin_avx2(a, rows, w, p0, p1, out);
    } else {
        mq__nvfp4_run(&core, a, rows, w, p0, p1, out, scratch);
    }
}

void mq__fill_avx2_nvfp4(mq_kernels *table)
{
    static const mq_variant gemm[] = {MQ_VARIANT("vnni", mq__nvfp4_gemm_avxvnni), MQ_VARIANT("madd", nvfp4_gemm_avx2)};
    const size_t need = mq__nvfp4_scratch_bytes();
    table->nvfp4_quantize = mq__nvfp4_quantize_avx2;
    table->nvfp4_gemm = nvfp4_gemm_avx2;
    if (mq__cpu_avx_vnni()) mq__variants_set(table, MQ_NVFP4_GEMM, gemm, 2);
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
}
