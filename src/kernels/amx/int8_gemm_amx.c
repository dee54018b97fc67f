/* INT8 W8A8 GEMM of the AMX level: TDPBSSD, the exact integer product of 16 rows by 16 features and one group of 64 k, in 16 cycles.
 *
 * Weights are read as they are packed: half a cell is a tile. Rows are arranged for each slice: 16 of them, less their offset, are a
 * tile. The sums of a tile are stored, and added to those of the groups before by the vector units as the contract says:
 * acc += round(dot * sw) * sa, 16 sums of 16 rows in registers.
 *
 * Per group of 16 rows and 32 features: 2 products in 32 cycles, 3 tiles read and 2 written; 96 vector instructions in 48 cycles,
 * which therefore are the limit: 680 multiply-adds a cycle, where vpdpbusd has 128 without any scaling. The first half is scaled while
 * tiles are multiplied, the second one afterwards: 32 sums do not fit into registers.
 *
 * Measured (Emerald Rapids, one thread, a busy host): 4.8 to 5.2 times the FP32 FMA peak for 512 and 2048 rows, at best 6.5; 3.7 for 64. */
#include "kernels/amx/tile_amx.h"
#include "kernels/avx512/gemm_avx512.h"
#include "kernels/int8_driver.h"
#include "kernels/table.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16") /* early: or else acc lives on the stack */

enum {
    ROWS = TILE_ROWS_AMX,
    HALF = MQ_INT8_NR / 2,
    MOST_STEPS = (INT8_PASS_ROWS + ROWS - 1) / ROWS,
    FEW_ROWS = 2 * MQ_INT8_MR, /* up to so many, vpdpbusd's row groups take less time than arranging rows and a tile */
};
_Static_assert(MQ_INT8_GROUP == TILE_ROW_BYTES && HALF * 4 == TILE_ROW_BYTES, "a group is a tile");

/* One group of 16 rows. */
typedef struct row_tile {
    _Alignas(64) int8_t q[ROWS][MQ_INT8_GROUP];
    float scale[ROWS];
} row_tile;

/* Rows past the end are zeros. */
static void arrange_rows_amx(const uint8_t *cells, size_t group_bytes, size_t rows, size_t groups, uint8_t *arranged)
{
    row_tile *to = (row_tile *)(void *)arranged;
    const __m512i offset = _mm512_set1_epi8((char)MQ_INT8_OFFSET);
    for (size_t row = 0; row < (rows + ROWS - 1) / ROWS * ROWS; row++) {
        row_tile *step = to + row / ROWS * groups;
        const uint8_t *cell = cells + row / MQ_INT8_MR * group_bytes;
        const size_t r = row % MQ_INT8_MR;
        for (size_t g = 0; g < groups; g++, step++, cell += MQ_INT8_ROW_CELL) {
            const __m512i q = row < rows ? _mm512_loadu_si512(cell + r * MQ_INT8_GROUP) : offset;
            _mm512_store_si512(step->q[row % ROWS], _mm512_xor_si512(q, offset));
            float scale = 0;
            if (row < rows) memcpy(&scale, cell + MQ_INT8_ROW_SCALES + r * sizeof scale, sizeof scale);
            step->scale[row % ROWS] = scale;
        }
    }
}

/* acc [16 rows] += round(dot * sw) * sa of a group's half. */
INLINE void add_products(const int32_t *dot, const float *sw, const float *sa, __m512 acc[ROWS])
{
    const __m512 scale = _mm512_load_ps(sw);
    UNROLL
    for (int r = 0; r < ROWS; r++) {
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dot + HALF * r)), scale);
        __asm__("vfmadd231ps %2%{1to16%}, %1, %0"
                : "+v"(acc[r])
                : "v"(scaled), "m"(sa[r])); /* never a register for sa */
    }
}

INLINE void load_sums(bool first, float (*tile)[MQ_INT8_NR], size_t rows, size_t at, __m512 acc[ROWS])
{
    UNROLL
    for (size_t r = 0; r < ROWS; r++)
        acc[r] = first || r >= rows ? _mm512_setzero_ps() : _mm512_load_ps(tile[r] + at);
}

/* Back to the tile, or on to y. */
INLINE void store_sums(const int8_slice *s, float (*tile)[MQ_INT8_NR], size_t rows, size_t at, __m512 acc[ROWS])
{
    const size_t left = s->features > at ? s->features - at : 0;
    const __mmask16 mask = (__mmask16)((1u << (left < HALF ? left : HALF)) - 1);
    const __m512 bias = s->bias && s->last ? _mm512_maskz_loadu_ps(mask, s->bias + at) : _mm512_setzero_ps();
    UNROLL
    for (size_t r = 0; r < ROWS; r++) {
        __asm__ volatile("" : "+v"(acc[r])); /* or gcc 12 copies all of acc in each round */
        if (r >= rows) continue;
        float *y = s->y + r * s->ldy + at;
        __m512 sum = acc[r];
        if (!s->last) {
            _mm512_store_ps(tile[r] + at, sum);
            continue;
        }
        if (s->bias) sum = _mm512_add_ps(sum, bias);
        if (s->accumulate) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, y));
        _mm512_mask_storeu_ps(y, mask, sum);
    }
}

static void run_int8_amx(const int8_slice *s, size_t rows, const uint8_t *a, float (*tile)[MQ_INT8_NR])
{
    _Alignas(64) int32_t dot[2][ROWS * HALF], later[INT8_SLICE][ROWS * HALF];
    const row_tile *row = (const row_tile *)(const void *)a;
    const float *scales = (const float *)(const void *)(s->cells + MQ_INT8_CELL_SCALES);
    enum { CELL_FLOATS = MQ_INT8_CELL / sizeof(float) };
    __m512 acc[ROWS];
    load_sums(s->first, tile, rows, 0, acc);
    for (size_t g = 0; g < s->groups; g++) {
        const uint8_t *w = s->cells + g * MQ_INT8_CELL;
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_LOAD(4, row[g].q, TILE_ROW_BYTES);
        TILE_LOAD(6, w, 2 * TILE_ROW_BYTES);
        TILE_MULTIPLY_INT8(0, 4, 6);
        TILE_LOAD(7, w + TILE_ROW_BYTES, 2 * TILE_ROW_BYTES);
        TILE_MULTIPLY_INT8(1, 4, 7);
        TILE_STORE(0, dot[g % 2], TILE_ROW_BYTES);
        TILE_STORE(1, later[g], TILE_ROW_BYTES);
        add_products(dot[g % 2], scales + g * CELL_FLOATS, row[g].scale, acc);
    }
    store_sums(s, tile, rows, 0, acc);
    load_sums(s->first, tile, rows, HALF, acc);
    for (size_t g = 0; g < s->groups; g++)
        add_products(later[g], scales + g * CELL_FLOATS + HALF, row[g].scale, acc);
    store_sums(s, tile, rows, HALF, acc);
}

static void gemm_int8_amx(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                          const mq_epilogue *out, void *scratch)
{
    static const int8_core core = {
        .rows = ROWS, .run = run_int8_amx, .arrange_rows = arrange_rows_amx, .step_bytes = sizeof(row_tile)};
    if (rows <= FEW_ROWS) {
        mq__int8_gemm_avx512(a, rows, w, p0, p1, out, scratch);
        return;
    }
    tiles_configure();
    mq__int8_run(&core, a, rows, w, p0, p1, out, scratch);
    tiles_release();
}

void mq__fill_amx_int8(mq_kernels *table)
{
    static const mq_variant gemm[] = {MQ_VARIANT("tiles", gemm_int8_amx), MQ_VARIANT("vnni", mq__int8_gemm_avx512)};
    const size_t need = mq__int8_scratch_bytes() + MOST_STEPS * INT8_SLICE * sizeof(row_tile);
    mq__variants_set(table, MQ_INT8_GEMM, gemm, 2);
    if (table->gemm_scratch_bytes < need) table->gemm_scratch_bytes = need;
}
