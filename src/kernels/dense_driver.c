/* The loops around the micro-kernels, outermost first:
 *
 *   blocks of DENSE_GROUPS row groups   their partial sums stay in L2 from k slice to k slice
 *   DENSE_PANELS weight panels          expanded together, so that one activation slice in L1 serves them all
 *   k slices                            expand, then all rows of the block: an expansion costs 1/rows of the products
 *   row groups, panels                  one tile each
 *
 * The sums of a tile are kept in scratch between slices, not in y, which may hold the residual stream: each output is one
 * FMA chain over ascending k whatever the blocking, and is written once. */
#include "kernels/dense_driver.h"

#define MR MQ_DENSE_MR

typedef struct block {
    size_t g0, g1;        /* row groups */
    size_t panel, panels; /* weight panels */
    size_t k0, kc;
} block;

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void run_slice(const float *rows_panels, size_t rows, const dense_source *source, const block *at,
                      const mq_epilogue *out, float *scratch)
{
    float *sums = scratch + DENSE_PANELS * DENSE_NR * DENSE_KC; /* [group][panel][14][32] */
    const bool first = at->k0 == 0, last = at->k0 + at->kc == source->k_width;
    for (size_t p = 0; p < at->panels; p++) {
        source->expand(source->weights, at->panel + p, at->k0, at->kc, scratch + p * DENSE_NR * DENSE_KC);
    }
    for (size_t g = at->g0; g < at->g1; g++) {
        const size_t live = min_size(rows - g * MR, MR);
        const float *a = rows_panels + (g * source->k_width + at->k0) * MR;
        for (size_t p = 0; p < at->panels; p++) {
            float *c = sums + ((g - at->g0) * DENSE_PANELS + p) * DENSE_TILE;
            source->core->tiles[live - 1](a, scratch + p * DENSE_NR * DENSE_KC, at->kc, c, first);
            if (last) {
                source->core->finish(c, g * MR, live, (at->panel + p) * DENSE_NR, source->n, source->multiplier, out);
            }
        }
    }
}

void mq__dense_run(const float *rows_panels, size_t rows, const dense_source *source, size_t p0, size_t p1,
                   const mq_epilogue *out, float *scratch)
{
    const size_t groups = (rows + MR - 1) / MR, blocks = (groups + DENSE_GROUPS - 1) / DENSE_GROUPS;
    for (size_t m = 0; m < blocks; m++) {
        for (size_t p = p0; p < p1; p += DENSE_PANELS) {
            block at = {.g0 = groups * m / blocks, .g1 = groups * (m + 1) / blocks, .panel = p};
            at.panels = min_size(p1 - p, DENSE_PANELS);
            for (; at.k0 < source->k_width; at.k0 += DENSE_KC) {
                at.kc = min_size(source->k_width - at.k0, DENSE_KC);
                run_slice(rows_panels, rows, source, &at, out, scratch);
            }
        }
    }
}
