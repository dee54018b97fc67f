/* NVFP4 weights with FP32 activations on the NEON level.
 *
 * Decoding: 16 bytes are 4 consecutive k of 4 features, twice (nvfp4_pack.h). One byte lookup makes codes into twice their
 * values; another one spreads the bytes of one k over the top bytes of 4 lanes, and the conversion from fixed point takes the
 * factor of 2^25 away, so that a vector of 4 weights costs 2 to 2.5 instructions.
 * Thin: features are lanes, one FMA per row with an element of the activations; 3.5 instructions per 4 weights of one row. */
#include "kernels/dense_driver.h"
#include "kernels/neon/nvfp4_neon.h"
#include "kernels/neon/vector_neon.h"

enum { FEW_WIDE = 8, ROWS_GROUP = 5 };

/* Of four features `part`, twice the values of k in [4j, 4j + 4) of a cell: [feature][k]. */
INLINE int8x16_t load_doubled(const uint8_t *cell, unsigned j, size_t part)
{
    int8x16_t both[2];
    doubled_neon(vld1q_u8(cell + 128 * (j / 2) + 16 * part), both);
    return both[j % 2];
}

/* The values of one k of 4 features. */
INLINE float32x4_t value_neon(int8x16_t doubled, unsigned k)
{
    const uint8_t i = (uint8_t)(k % 4), none = 255;
    const uint8x16_t top = {none, none, none, i,                /* one byte of each dword: value * 2^25 */
                            none, none, none, (uint8_t)(4 + i), /**/
                            none, none, none, (uint8_t)(8 + i),
                            none, none, none, (uint8_t)(12 + i)};
    return vcvtq_n_f32_s32(vreinterpretq_s32_s8(vqtbl1q_s8(doubled, top)), 25);
}

static void expand_w4a16_neon(const void *weights, size_t panel, size_t k0, size_t kc, float *b)
{
    const mq_nvfp4 *w = weights;
    const uint8_t *cell = mq__nvfp4_panel(w, panel) + k0 / MQ_NVFP4_BLOCK * MQ_NVFP4_CELL;
    for (size_t k = 0; k < kc; k += MQ_NVFP4_BLOCK, cell += MQ_NVFP4_CELL) {
        const unsigned width = kc - k < MQ_NVFP4_BLOCK ? (unsigned)(kc - k) : MQ_NVFP4_BLOCK;
        for (size_t part = 0; part < 8; part++) {
            const float32x4_t scale = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * part);
            float *to = b + part / 4 * 16 * kc + part % 4 * 4 + k * 16;
            UNROLL
            for (unsigned i = 0; i < MQ_NVFP4_BLOCK; i++) {
                if (i >= width) break;
                vst1q_f32(to + i * 16, vmulq_f32(value_neon(load_doubled(cell, i / 4, part), i), scale));
            }
        }
    }
}

static void gemm_w4a16_neon(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                            const mq_epilogue *out, void *scratch)
{
    const size_t n1 = p1 * MQ_NVFP4_NR < w->n ? p1 * MQ_NVFP4_NR : w->n;
    const dense_source source = {.core = &mq__dense_core_neon,
                                 .expand = expand_w4a16_neon,
                                 .weights = w,
                                 .n = n1,
                                 .k_width = w->k_width,
                                 .row_floats = w->k_width,
                                 .multiplier = w->multiplier};
    mq__dense_run(panels, rows, &source, p0, p1, out, scratch);
}

/* ------------------------------------------------------------------ few rows */

/* Adds one block (or the first `width` k of it) of two parts (8 features) for R rows to `sum`. */
INLINE void thin_block_w4a16_neon(const uint8_t *cell, size_t part, const float *x, size_t ldx, unsigned width,
                                  float32x4_t sum[4][2], const int R)
{
    float32x4_t dot[4][2];
    UNROLL
    for (int r = 0; r < R; r++)
        dot[r][0] = dot[r][1] = vdupq_n_f32(0);
    UNROLL
    for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++) {
        if (k >= width) break;
        const float32x4_t v0 = value_neon(load_doubled(cell, k / 4, part), k);
        const float32x4_t v1 = value_neon(load_doubled(cell, k / 4, part + 1), k);
        UNROLL
        for (int r = 0; r < R; r++) {
            const float xv = x[(size_t)r * ldx + k];
            dot[r][0] = vfmaq_n_f32(dot[r][0], v0, xv);
            dot[r][1] = vfmaq_n_f32(dot[r][1], v1, xv);
        }
    }
    const float32x4_t s0 = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * part),
                      s1 = e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * part + 4);
    UNROLL
    for (int r = 0; r < R; r++) {
        sum[r][0] = vfmaq_f32(sum[r][0], dot[r][0], s0);
        sum[r][1] = vfmaq_f32(sum[r][1], dot[r][1], s1);
    }
}

INLINE void tile_part(const float *x, size_t ldx, size_t row, const mq_nvfp4 *w, size_t panel, size_t first,
                      const mq_epilogue *out, const int R)
{
    const uint8_t *cell = mq__nvfp4_panel(w, panel);
    const size_t whole = w->k_width / MQ_NVFP4_BLOCK, rest = w->k_width % MQ_NVFP4_BLOCK, part = first / 4;
    float32x4_t sum[4][2];
    UNROLL
    for (int r = 0; r < R; r++)
        sum[r][0] = sum[r][1] = vdupq_n_f32(0);
    x += row * ldx;
    for (size_t b = 0; b < whole; b++, cell += MQ_NVFP4_CELL, x += MQ_NVFP4_BLOCK)
        thin_block_w4a16_neon(cell, part, x, ldx, MQ_NVFP4_BLOCK, sum, R);
    if (rest) thin_block_w4a16_neon(cell, part, x, ldx, (unsigned)rest, sum, R);
    const size_t n = panel * MQ_NVFP4_NR + first;
    for (int r = 0; r < R; r++) {
        float values[FEW_WIDE];
        vst1q_f32(values, vmulq_n_f32(sum[r][0], w->multiplier));
        vst1q_f32(values + 4, vmulq_n_f32(sum[r][1], w->multiplier));
        for (size_t i = 0; i < FEW_WIDE && n + i < w->n; i++)
            finish_output(out, row + (size_t)r, n + i, values[i]);
    }
}

/* ------------------------------------------------------------------ many rows */

#include "kernels/w4a16_rows.h"

static void tile_decode(const uint8_t *cell, size_t blocks, float *codes, float *scales)
{
    for (size_t b = 0; b < blocks; b++, cell += MQ_NVFP4_CELL) {
        for (size_t part = 0; part < 8; part++) {
            float *to = codes + part / 4 * CODES_HALF + b * MQ_NVFP4_BLOCK * 16 + part % 4 * 4;
            UNROLL
            for (unsigned k = 0; k < MQ_NVFP4_BLOCK; k++)
                vst1q_f32(to + k * 16, value_neon(load_doubled(cell, k / 4, part), k));
            vst1q_f32(scales + part / 4 * SCALES_HALF + b * 16 + part % 4 * 4,
                      e4m3_neon(cell + MQ_NVFP4_CELL_SCALES + 4 * part));
        }
    }
}

/* Adds k in [0, kc) of a decoded slice to the totals of 16 features for R rows: 20 sums, 4 vectors of weights. */
INLINE void add_decoded_w4a16_neon(const float *x, size_t ldx, size_t kc, const float *codes, const float *scales,
                                   float *totals, const int R)
{
    for (size_t k0 = 0; k0 < kc; k0 += MQ_NVFP4_BLOCK, x += MQ_NVFP4_BLOCK, scales += 16) {
        const size_t width = kc - k0 < MQ_NVFP4_BLOCK ? kc - k0 : MQ_NVFP4_BLOCK;
        float32x4_t dot[ROWS_GROUP][4];
        UNROLL
        for (int r = 0; r < R; r++)
            dot[r][0] = dot[r][1] = dot[r][2] = dot[r][3] = vdupq_n_f32(0);
        for (size_t k = 0; k < width; k++) {
            float32x4_t wv[4];
            UNROLL
            for (size_t v = 0; v < 4; v++)
                wv[v] = vld1q_f32(codes + k * 16 + 4 * v);
            UNROLL
            for (int r = 0; r < R; r++) {
                const float xv = x[(size_t)r * ldx + k];
                UNROLL
                for (size_t v = 0; v < 4; v++)
                    dot[r][v] = vfmaq_n_f32(dot[r][v], wv[v], xv);
            }
        }
        codes += MQ_NVFP4_BLOCK * 16;
        UNROLL
        for (int r = 0; r < R; r++) {
            UNROLL
            for (size_t v = 0; v < 4; v++) {
                float *total = totals + r * 16 + 4 * v;
                vst1q_f32(total, vfmaq_f32(vld1q_f32(total), dot[r][v], vld1q_f32(scales + 4 * v)));
            }
        }
    }
}

static void tile_add(const float *x, size_t ldx, size_t rows, size_t kc, const float *codes, const float *scales,
                     float *totals)
{
    switch (rows) {
    case 3:
        add_decoded_w4a16_neon(x, ldx, kc, codes, scales, totals, 3);
        break;
    case 4:
        add_decoded_w4a16_neon(x, ldx, kc, codes, scales, totals, 4);
        break;
    case 5:
        add_decoded_w4a16_neon(x, ldx, kc, codes, scales, totals, 5);
        break;
    }
}

void mq__fill_neon_w4a16(mq_kernels *table)
{
    table->w4a16_gemm = gemm_w4a16_neon;
    table->w4a16_thin = thin_rows_w4a16;
}
