/* The loops around the micro-kernels, outermost first:
 *
 *   blocks of row groups    their partial sums stay in L2 from k slice to k slice
 *   a few weight panels     expanded together, so that one activation slice in L1 serves them all
 *   k slices                expand, then all rows of the block: an expansion costs 1/rows of the products
 *   row groups, panels      one tile each; meanwhile the stored weights of the next slice are prefetched row by row
 *
 * The sums of a tile are kept in scratch between slices, not in y, which may hold the residual stream: each output is one
 * FMA chain over ascending k whatever the blocking, and is written once. */
#include "kernels/dense_driver.h"

#define MR MQ_DENSE_MR

typedef struct block {
    size_t g0, g1;        /* row groups */
    size_t panel, panels; /* weight panels */
    size_t k0, kc;
    size_t next_panel, next_k0; /* the slice after this one */
} block;

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of the stored rows that the next slice needs, tile t of `tiles` prefetches its share: the first while it computes
 * (returned), further ones, which few rows of activations make necessary, at once. */
static const char *prefetch_share(const dense_source *source, const block *at, size_t t, size_t tiles)
{
    if (!source->rows) return NULL;
    const size_t n0 = at->next_panel * DENSE_NR, count = min_size(at->panels * DENSE_NR, source->n - n0);
    const size_t r0 = t * count / tiles, r1 = (t + 1) * count / tiles, line = 64;
    const char *from = source->rows + (n0 * source->k_width + at->next_k0) * source->element_bytes;
    const size_t stride = source->k_width * source->element_bytes;
    for (size_t r = r0 + 1; r < r1; r++) {
        for (size_t i = 0; i < at->kc * source->element_bytes; i += line) {
            __builtin_prefetch(from + r * stride + i, 0, 2);
        }
    }
    return r0 < r1 ? from + r0 * stride : NULL;
}

static void run_slice_dense_driver(const float *rows_panels, size_t rows, const dense_source *source, const block *at,
                                   const mq_epilogue *out, float *scratch)
{
    const dense_core *core = source->core;
    const size_t panel_floats = core->kc * DENSE_NR, tiles = (at->g1 - at->g0) * at->panels;
    for (size_t p = 0; p < at->panels; p++) {
        source->expand(source->weights, at->panel + p, at->k0, at->kc, scratch + p * panel_floats);
    }
    const bool last = at->k0 + at->kc == source->k_width;
    dense_step step = {
        .kc = at->kc, .c = scratch + DENSE_PANEL_FLOATS, .first = at->k0 == 0, .multiplier = source->multiplier};
    for (size_t t = 0; t < tiles; t++, step.c += DENSE_TILE) {
        const size_t row = (at->g0 + t / at->panels) * MR, p = t % at->panels, n = (at->panel + p) * DENSE_NR;
        const mq_epilogue tile_out = {.y = out->y + row * out->ldy + n,
                                      .ldy = out->ldy,
                                      .bias = out->bias ? out->bias + n : NULL,
                                      .accumulate = out->accumulate};
        step.a = rows_panels + row * source->row_floats + at->k0 * MR;
        step.b = scratch + p * panel_floats;
        step.finish = last ? &tile_out : NULL;
        step.features = min_size(source->n - n, DENSE_NR);
        const bool last_group = t + at->panels >= tiles;
        const size_t next_row = last_group ? at->g0 * MR : row + MR, next_k0 = last_group ? at->next_k0 : at->k0;
        step.next_a = (const char *)(rows_panels + next_row * source->row_floats + next_k0 * MR) +
                      p * (at->kc / 16 * DENSE_AHEAD * 64);
        step.ahead = prefetch_share(source, at, t, tiles);
        if (!step.ahead) step.ahead = (const char *)step.a;
        core->tiles[min_size(rows - row, MR) - 1](&step);
    }
}

void mq__dense_run(const float *rows_panels, size_t rows, const dense_source *source, size_t p0, size_t p1,
                   const mq_epilogue *out, float *scratch)
{
    const dense_core *core = source->core;
    const size_t groups = (rows + MR - 1) / MR, most = DENSE_SUM_TILES / core->panels;
    const size_t blocks = (groups + most - 1) / most;
    for (size_t m = 0; m < blocks; m++) {
        block at = {.g0 = groups * m / blocks, .g1 = groups * (m + 1) / blocks};
        for (at.panel = p0; at.panel < p1; at.panel += at.panels) {
            at.panels = min_size(p1 - at.panel, core->panels);
            for (at.k0 = 0; at.k0 < source->k_width; at.k0 += at.kc) {
                at.kc = min_size(source->k_width - at.k0, core->kc);
                const bool more = at.k0 + at.kc < source->k_width;
                at.next_k0 = more ? at.k0 + at.kc : 0;
                at.next_panel = more ? at.panel : at.panel + at.panels < p1 ? at.panel + at.panels : p0;
                run_slice_dense_driver(rows_panels, rows, source, &at, out, scratch);
            }
        }
    }
}
