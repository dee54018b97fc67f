#include "kernels/nvfp4_driver.h"

enum { FEW_ROWS = 28 }; /* up to so many, unpacking is what takes time: one panel after the other, as in memory */

typedef struct workspace {
    _Alignas(64) uint8_t cells[NVFP4_CELLS];
    float tile[MQ_NVFP4_BATCH][NVFP4_PASS_ROWS][MQ_NVFP4_NR];
    float scale[NVFP4_PASS_ROWS];
} workspace;

size_t mq__nvfp4_scratch_bytes(void)
{
    return sizeof(workspace);
}

void mq__nvfp4_set_output(nvfp4_slice *s, const mq_nvfp4 *w, size_t p, const mq_epilogue *out, size_t m0)
{
    const size_t n0 = p * MQ_NVFP4_NR;
    s->features = w->n - n0 < MQ_NVFP4_NR ? w->n - n0 : MQ_NVFP4_NR;
    s->y = out->y + m0 * out->ldy + n0;
    s->ldy = out->ldy;
    s->bias = out->bias ? out->bias + n0 : NULL;
    s->accumulate = out->accumulate;
}

void mq__nvfp4_run(const nvfp4_core *core, const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                   const mq_epilogue *out, void *scratch)
{
    workspace *ws = scratch;
    const size_t blocks = w->blocks, slices = (blocks + core->slice - 1) / core->slice;
    const size_t step = (blocks + slices - 1) / slices, batch = rows <= FEW_ROWS ? 1 : MQ_NVFP4_BATCH;
    nvfp4_slice s = {.cells = ws->cells, .group_bytes = blocks * MQ_NVFP4_ROW_CELL, .scale = ws->scale};
    const size_t row_groups = (rows + MQ_NVFP4_MR - 1) / MQ_NVFP4_MR;
    const size_t passes = (rows + NVFP4_PASS_ROWS - 1) / NVFP4_PASS_ROWS; /* of equal size: unpacking pays alike */
    for (size_t i = 0; i < passes; i++) {
        const size_t m0 = row_groups * i / passes * MQ_NVFP4_MR, m1 = row_groups * (i + 1) / passes * MQ_NVFP4_MR;
        const size_t pass = (m1 < rows ? m1 : rows) - m0;
        const uint8_t *groups = a->panels + m0 / MQ_NVFP4_MR * s.group_bytes;
        for (size_t r = 0; r < pass; r++)
            ws->scale[r] = 0.25f * a->multiplier[m0 + r] * w->multiplier;
        for (size_t p = p0; p < p1; p += batch) {
            const size_t count = p1 - p < batch ? p1 - p : batch;
            for (size_t b = 0; b < blocks; b += step) {
                s.blocks = blocks - b < step ? blocks - b : step;
                s.first = b == 0;
                s.last = b + s.blocks == blocks;
                const uint8_t *after = s.last ? mq__nvfp4_panel(w, p + count) /* may be past the end: only prefetched */
                                              : mq__nvfp4_panel(w, p) + (b + step) * MQ_NVFP4_CELL;
                for (size_t q = 0; q < count; q++) {
                    const uint8_t *packed = mq__nvfp4_panel(w, p + q) + b * MQ_NVFP4_CELL;
                    const uint8_t *next = q + 1 < count ? packed + blocks * MQ_NVFP4_CELL : after;
                    core->widen(packed, s.blocks, ws->cells, batch == 1 ? next : packed);
                    mq__nvfp4_set_output(&s, w, p + q, out, m0);
                    core->rows(&s, pass, groups + b * MQ_NVFP4_ROW_CELL, ws->tile[q], next);
                }
            }
        }
    }
}
