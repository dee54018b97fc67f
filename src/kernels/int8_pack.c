#include "kernels/int8_pack.h"

#include "kernels/dense_common.h"

#include <math.h>

static size_t ceil_div(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

size_t mq__int8_panel_bytes(size_t n, size_t k_width)
{
    return ceil_div(n, MQ_INT8_NR) * ceil_div(k_width, MQ_INT8_GROUP) * MQ_INT8_CELL;
}

size_t mq__int8_row_bytes(size_t rows, size_t k_width)
{
    return ceil_div(rows, MQ_INT8_MR) * ceil_div(k_width, MQ_INT8_GROUP) * MQ_INT8_ROW_CELL;
}

/* One feature of one group: count <= 64 weights. */
static void pack_group(const float *w, size_t count, uint8_t *cell, size_t feature)
{
    float amax = 0;
    for (size_t k = 0; k < count; k++) {
        const float magnitude = fabsf(w[k]);
        amax = magnitude > amax ? magnitude : amax;
    }
    uint32_t bits;
    float scale = amax < MQ_INT8_TINY ? 0 : amax * (1.0f / 127.0f);
    memcpy(&bits, &scale, sizeof bits);
    bits &= ~3u; /* 22 significant bits: 12582912 * scale is exact */
    memcpy(&scale, &bits, sizeof scale);
    const float inverse = scale > 0 ? 1.0f / scale : 0;
    int32_t sum = 0;
    for (size_t k = 0; k < count; k++) {
        const float q = rintf(w[k] * inverse);
        const int value = q > 127 ? 127 : q < -127 ? -127 : (int)q;
        cell[128 * (k / 4) + 64 * (feature / 16) + 4 * (feature % 16) + k % 4] = (uint8_t)value;
        sum += value;
    }
    const int32_t start = MQ_INT8_MAGIC - MQ_INT8_OFFSET * sum;
    memcpy(cell + MQ_INT8_CELL_SCALES + 4 * feature, &scale, sizeof scale);
    memcpy(cell + MQ_INT8_CELL_STARTS + 4 * feature, &start, sizeof start);
}

void mq__int8_pack(const mq_dense *w, size_t p0, size_t p1, uint8_t *panels)
{
    const size_t groups = ceil_div(w->k_width, MQ_INT8_GROUP);
    for (size_t p = p0; p < p1; p++) {
        uint8_t *panel = panels + p * groups * MQ_INT8_CELL;
        memset(panel, 0, groups * MQ_INT8_CELL);
        for (size_t f = 0; f < MQ_INT8_NR; f++) {
            const size_t n = p * MQ_INT8_NR + f;
            for (size_t g = 0; g < groups; g++) {
                float row[MQ_INT8_GROUP];
                const size_t k0 = g * MQ_INT8_GROUP;
                const size_t left = w->k_width - k0, count = n >= w->n              ? 0
                                                             : left < MQ_INT8_GROUP ? left
                                                                                    : MQ_INT8_GROUP;
                for (size_t k = 0; k < count; k++) {
                    row[k] = dense_element(w->data, w->type, n * w->k_width + k0 + k);
                }
                pack_group(row, count, panel + g * MQ_INT8_CELL, f);
            }
        }
    }
}

void mq__int8_pad_rows(uint8_t *panels, size_t row1, size_t groups)
{
    if (row1 % MQ_INT8_MR == 0) return;
    uint8_t *cell = panels + row1 / MQ_INT8_MR * groups * MQ_INT8_ROW_CELL;
    for (size_t g = 0; g < groups; g++, cell += MQ_INT8_ROW_CELL) {
        for (size_t r = row1 % MQ_INT8_MR; r < MQ_INT8_MR; r++) {
            memset(cell + r * MQ_INT8_GROUP, MQ_INT8_OFFSET, MQ_INT8_GROUP);
            memset(cell + MQ_INT8_ROW_SCALES + 4 * r, 0, 4);
        }
    }
}
