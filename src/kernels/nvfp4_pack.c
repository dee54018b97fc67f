#include "kernels/nvfp4_pack.h"

size_t mq__nvfp4_panel_bytes(size_t n, size_t k_width)
{
    const size_t panels = (n + MQ_NVFP4_NR - 1) / MQ_NVFP4_NR;
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    return panels * blocks * MQ_NVFP4_CELL;
}

size_t mq__nvfp4_row_bytes(size_t rows, size_t k_width)
{
    const size_t groups = (rows + MQ_NVFP4_MR - 1) / MQ_NVFP4_MR;
    const size_t blocks = (k_width + MQ_NVFP4_BLOCK - 1) / MQ_NVFP4_BLOCK;
    return groups * blocks * MQ_NVFP4_ROW_CELL;
}

/* One feature's 8 bytes of one block, low nibble first, into its two dwords of the cell. */
static void pack_feature(const uint8_t *nibbles, uint8_t scale, unsigned feature, uint8_t *cell)
{
    for (unsigned half = 0; half < 2; half++) {
        const uint8_t *in = nibbles + 4 * half; /* k = 8*half + {0 1} {2 3} {4 5} {6 7} */
        uint8_t *out = cell + 128 * half + 64 * (feature / 16) + 4 * (feature % 16);
        out[0] = (uint8_t)((in[0] & 15) | (in[2] & 15) << 4);
        out[1] = (uint8_t)(in[0] >> 4 | (in[2] & 0xf0));
        out[2] = (uint8_t)((in[1] & 15) | (in[3] & 15) << 4);
        out[3] = (uint8_t)(in[1] >> 4 | (in[3] & 0xf0));
    }
    cell[MQ_NVFP4_CELL_SCALES + feature] = scale;
}

void mq__nvfp4_pack(const uint8_t *nibbles, const uint8_t *scales, uint32_t n, uint32_t blocks, size_t p0, size_t p1,
                    uint8_t *panels)
{
    for (size_t p = p0; p < p1; p++) {
        for (size_t b = 0; b < blocks; b++) {
            uint8_t *cell = panels + (p * blocks + b) * MQ_NVFP4_CELL;
            memset(cell, 0, MQ_NVFP4_CELL);
            for (unsigned f = 0; f < MQ_NVFP4_NR && p * MQ_NVFP4_NR + f < n; f++) {
                const size_t at = (p * MQ_NVFP4_NR + f) * blocks + b;
                pack_feature(nibbles + 8 * at, scales[at], f, cell);
            }
        }
    }
}

void mq__nvfp4_pad_rows(uint8_t *panels, size_t row1, size_t blocks)
{
    const size_t used = row1 % MQ_NVFP4_MR;
    if (!used) return;
    uint8_t *cell = panels + row1 / MQ_NVFP4_MR * blocks * MQ_NVFP4_ROW_CELL;
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_ROW_CELL) {
        memset(cell + used * MQ_NVFP4_BLOCK, MQ_NVFP4_OFFSET, (MQ_NVFP4_MR - used) * MQ_NVFP4_BLOCK);
        memset(cell + MQ_NVFP4_ROW_SCALES + used * sizeof(float), 0, (MQ_NVFP4_MR - used) * sizeof(float));
    }
}
