/* AMX: eight tile registers of up to 16 rows of 64 bytes, and products of whole tiles.
 *
 * As assembly, because what gcc 12 calls intrinsics does not say that it reads or writes memory. A tile register is named by its number,
 * a literal. Who uses tiles configures them first and releases them at the end: the configuration belongs to the thread. */
#ifndef MQ_TILE_AMX_H
#define MQ_TILE_AMX_H

#include <stddef.h>
#include <stdint.h>

enum {
    TILE_ROWS_AMX = 16,
    TILE_ROW_BYTES = 64,
    TILE_BYTES = TILE_ROWS_AMX * TILE_ROW_BYTES,
};

/* What LDTILECFG reads. */
typedef struct tile_config {
    uint8_t palette, start_row, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;
_Static_assert(sizeof(tile_config) == 64, "as the instruction reads it");

/* All tiles whole. */
static inline void tiles_configure(void)
{
    tile_config config = {.palette = 1};
    for (size_t i = 0; i < 8; i++) {
        config.row_bytes[i] = TILE_ROW_BYTES;
        config.rows[i] = TILE_ROWS_AMX;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
}

static inline void tiles_release(void)
{
    __asm__ volatile("tilerelease");
}

/* stride: bytes between the rows in memory. */
#define TILE_LOAD(tile, from, stride)                                                                                  \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(from), "r"((size_t)(stride)) : "memory")
#define TILE_STORE(tile, to, stride)                                                                                   \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(to), "r"((size_t)(stride)) : "memory")
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)

/* sum [16][16] FP32 += a [16][32] * b [16 pairs of k][16][2], BF16. Subnormal inputs and sums count as zeros. */
#define TILE_MULTIPLY_BF16(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

/* sum [16][16] int32 += a [16][64] * b [16 fours of k][16][4], signed bytes. Exact. */
#define TILE_MULTIPLY_INT8(sum, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

#endif
