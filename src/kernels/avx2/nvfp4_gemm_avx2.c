/* NVFP4 W4A4 GEMM, AVX2.
 *
 * The idea is that of the AVX-512 file, with vpmaddubsw for the products: activations as unsigned bytes (value + 12) times
 * signed weights, two products per 16-bit sum. Four of them are added (at most 8*24*12 = 2304), vpmaddwd with ones makes
 * one 32-bit sum per feature, and adding the bits of 1.5*2^23 less 12*sum(w) turns it into the float 12582912 + dot. Two
 * FMAs as in the reference follow: the same bits.
 *
 * Registers of micro_3x16: acc 6, t 6, w 1 (the second operand comes from memory), activation 1, product 1, ones 1 = 16.
 * Throughput of one block of 3 rows x 16 features: 24 vpmaddubsw + 18 vpaddw + 6 vpmaddwd + 6 vpaddd + 12 FMA = 66
 * operations on three ports = 22 cycles, where FP32 needs 48 (2.18 times the FMA peak at best); 97 issue slots (24 cycles)
 * are the tighter limit. Rows of different groups may meet in one step, so rows need no multiple of 3.
 *
 * Measured (2-core Cascade Lake class, 2.5 GHz, one thread, shared host, commit 5f6b6a1) in multiples of the AVX2 FMA peak,
 * 43.1 GMAC/s: operands in L1 1.5; M=512 of 3072x1024, 2560x9728 and 12288x4096 1.33, 1.20 and 1.23 at best. Ports are
 * not what limits it: 66 operations take 30 cycles instead of 22, with 2x24 tiles as with 3x16. */
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

enum {
    SLICE = 24,      /* blocks of K unpacked at a time */
    PASS_ROWS = 252, /* rows that share them */
    STEP = 3,        /* rows of the micro-kernel */
    HALF = MQ_NVFP4_NR / 2,
};

typedef struct workspace {
    _Alignas(64) wide_cell cells[2][SLICE];
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

static void widen(const uint8_t *cell, size_t blocks, wide_cell (*out)[SLICE])
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
#define UNROLL _Pragma("GCC unroll 8")

/* 16 sums of two products, u8 x times s8 w; added to t. As asm, because gcc regroups the sums and spills. */
INLINE __m256i dot2(__m256i x, __m256i w)
{
    __m256i d;
    __asm__("vpmaddubsw %2, %1, %0" : "=x"(d) : "x"(x), "x"(w));
    return d;
}

INLINE __m256i dot2_add(__m256i t, __m256i x, __m256i w)
{
    __m256i d;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0" : "+x"(t), "=&x"(d) : "x"(x), "x"(w));
    return t;
}

INLINE __m256i dot2_add_from(__m256i t, __m256i x, const int8_t *w)
{
    __m256i d;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(t), "=&x"(d)
            : "x"(x), "m"(*(const __m256i *)(const void *)w));
    return t;
}

INLINE __m256i load(const void *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

/* acc [rows][2] += one block. a[r]: the codes of row r; its scale is `to_scale[r]` bytes on. */
INLINE void add_block(int rows, const uint8_t *const *a, const size_t *to_scale, const wide_cell *w, __m256 (*acc)[2])
{
    __m256i t[STEP][2];
    UNROLL
    for (int j = 0; j < 4; j++) {
        const __m256i w0 = load(w->w[j][0]);
        UNROLL
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, a[r] + 4 * j, sizeof four);
            const __m256i x = _mm256_set1_epi32(four);
            t[r][0] = j ? dot2_add(t[r][0], x, w0) : dot2(x, w0);
            t[r][1] = j ? dot2_add_from(t[r][1], x, w->w[j][1]) : dot2(x, load(w->w[0][1]));
        }
    }
    const __m256i ones = _mm256_set1_epi16(1);
    UNROLL
    for (int o = 0; o < 2; o++) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            float sa;
            memcpy(&sa, a[r] + to_scale[r], sizeof sa);
            const __m256i bits = _mm256_add_epi32(_mm256_madd_epi16(t[r][o], ones), load(w->start[o]));
            const __m256 exact = /* dot * sw */
                _mm256_fmadd_ps(_mm256_castsi256_ps(bits), _mm256_load_ps(w->sw[o]), _mm256_load_ps(w->c[o]));
            acc[r][o] = _mm256_fmadd_ps(exact, _mm256_set1_ps(sa), acc[r][o]);
        }
    }
}

/* Rows of one step: where their codes begin at the slice's first block, and how far their scales are from there. */
typedef struct step_rows {
    const uint8_t *codes[STEP];
    size_t to_scale[STEP];
} step_rows;

INLINE void micro(int rows, size_t blocks, const step_rows *in, const wide_cell *w, float (*tile)[HALF], bool first)
{
    __m256 acc[STEP][2];
    const uint8_t *a[STEP];
    size_t to_scale[STEP];
    UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = in->codes[r], to_scale[r] = in->to_scale[r];
        UNROLL
        for (int o = 0; o < 2; o++)
            acc[r][o] = first ? _mm256_setzero_ps() : _mm256_load_ps(tile[r] + 8 * o);
    }
    const wide_cell *end = w + blocks;
    do {
        add_block(rows, a, to_scale, w, acc);
        UNROLL
        for (int r = 0; r < rows; r++)
            a[r] += MQ_NVFP4_ROW_CELL;
        w++;
    } while (w < end);
    UNROLL
    for (int r = 0; r < rows; r++) {
        __asm__ volatile("" : "+x"(acc[r][0]), "+x"(acc[r][1])); /* or gcc 12 copies acc in each round */
        UNROLL
        for (int o = 0; o < 2; o++)
            _mm256_store_ps(tile[r] + 8 * o, acc[r][o]);
    }
}

typedef void micro_kernel(size_t blocks, const step_rows *in, const wide_cell *w, float (*tile)[HALF], bool first);

#define MICRO(rows)                                                                                                    \
    static __attribute__((noinline)) void micro_##rows##x16(size_t blocks, const step_rows *in, const wide_cell *w,    \
                                                            float(*tile)[HALF], bool first)                            \
    {                                                                                                                  \
        micro(rows, blocks, in, w, tile, first);                                                                       \
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

/* One slice of K of one panel: rows [m0, m0 + rows), blocks [b, b + n) of `blocks`. */
static void run_slice(const mq_nvfp4_rows *a, size_t m0, size_t rows, size_t blocks, size_t b, size_t n, workspace *ws)
{
    for (size_t r = 0; r < rows; r += STEP) {
        const size_t step = rows - r < STEP ? rows - r : STEP;
        step_rows in;
        for (size_t i = 0; i < step; i++) {
            const size_t m = m0 + r + i, row = m % MQ_NVFP4_MR;
            const uint8_t *cell = a->panels + (m / MQ_NVFP4_MR * blocks + b) * MQ_NVFP4_ROW_CELL;
            in.codes[i] = cell + row * MQ_NVFP4_BLOCK;
            in.to_scale[i] = MQ_NVFP4_ROW_SCALES + row * sizeof(float) - row * MQ_NVFP4_BLOCK;
        }
        for (int v = 0; v < 2; v++)
            micro_kernels[step](n, &in, ws->cells[v], ws->tile[v] + r, b == 0);
    }
}

static void nvfp4_gemm_avx2(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    workspace *ws = scratch;
    const size_t slices = (w->blocks + SLICE - 1) / SLICE, step = (w->blocks + slices - 1) / slices;
    for (size_t m0 = 0; m0 < rows; m0 += PASS_ROWS) {
        const size_t pass = rows - m0 < PASS_ROWS ? rows - m0 : PASS_ROWS;
        for (size_t p = p0; p < p1; p++) {
            for (size_t b = 0; b < w->blocks; b += step) {
                const size_t n = w->blocks - b < step ? w->blocks - b : step;
                widen(mq__nvfp4_panel(w, p) + b * MQ_NVFP4_CELL, n, ws->cells);
                run_slice(a, m0, pass, w->blocks, b, n, ws);
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
