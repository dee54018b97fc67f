#include "kernels/int8_driver.h"

typedef float tile[INT8_PASS_ROWS][MQ_INT8_NR];

typedef struct int8_workspace {
    _Alignas(64) tile tiles[MQ_INT8_BATCH];
    uint8_t cells[INT8_SLICE * INT8_ARRANGED];
    uint8_t rows[]; /* arranged */
} int8_workspace;

size_t mq__int8_scratch_bytes(void)
{
    return sizeof(int8_workspace);
}

/* All rows of a pass through one slice. cold: the slice of the activations is not in L2 yet; each row group's part of it is
 * short, over before the processor would fetch ahead. next: the `bytes` of weights that come after, brought to L2 on the way. */
static void run_pass_int8_driver(const int8_core *core, int8_slice *s, size_t rows, const uint8_t *a, bool cold,
                                 float (*sums)[MQ_INT8_NR], const uint8_t *next, size_t bytes)
{
    const size_t calls = (rows + core->rows - 1) / core->rows, lines = (bytes / 64 + calls - 1) / calls;
    for (size_t row = 0; row < rows; row += core->rows) {
        const size_t n = rows - row < core->rows ? rows - row : core->rows;
        for (size_t r = 0; s->last && r < n; r++) {
            __builtin_prefetch(s->y + r * s->ldy, 1, 2);
            __builtin_prefetch(s->y + r * s->ldy + 16, 1, 2);
        }
        for (size_t i = 0; i < lines; i++, next += 64) {
            __builtin_prefetch(next, 0, 2);
        }
        const uint8_t *after =
            a + (core->arrange_rows ? s->groups * core->step_bytes : core->rows / MQ_INT8_MR * s->group_bytes);
        for (const uint8_t *group = after; cold && group < after + (after - a); group += s->group_bytes) {
            for (size_t i = 0; i < s->groups * MQ_INT8_ROW_CELL; i += 64) {
                __builtin_prefetch(group + i, 0, 2); /* may be past the end: only prefetched */
            }
        }
        core->run(s, n, a, sums + row);
        a = after;
        s->y += core->rows * s->ldy;
    }
}

void mq__int8_run(const int8_core *core, const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                  const mq_epilogue *out, void *scratch)
{
    int8_workspace *ws = scratch;
    const size_t groups = w->groups, slice = core->slice ? core->slice : INT8_SLICE;
    const size_t slices = (groups + slice - 1) / slice, step = (groups + slices - 1) / slices;
    const size_t group_bytes = groups * MQ_INT8_ROW_CELL, row_groups = (rows + MQ_INT8_MR - 1) / MQ_INT8_MR;
    const size_t passes = (rows + INT8_PASS_ROWS - 1) / INT8_PASS_ROWS; /* of equal size */
    const size_t batch = rows <= INT8_FEW_ROWS && !core->arrange_rows ? 1 : MQ_INT8_BATCH;
    for (size_t i = 0; i < passes; i++) {
        const size_t m0 = row_groups * i / passes * MQ_INT8_MR, m1 = row_groups * (i + 1) / passes * MQ_INT8_MR;
        const size_t pass = (m1 < rows ? m1 : rows) - m0;
        const uint8_t *cells = a->panels + m0 / MQ_INT8_MR * group_bytes;
        for (size_t p = p0; p < p1; p += batch) {
            const size_t count = p1 - p < batch ? p1 - p : batch;
            for (size_t g = 0; g < groups; g += step) {
                int8_slice s = {.groups = groups - g < step ? groups - g : step,
                                .first = g == 0,
                                .last = g + step >= groups,
                                .ldy = out->ldy,
                                .accumulate = out->accumulate,
                                .group_bytes = group_bytes};
                const uint8_t *from = cells + g * MQ_INT8_ROW_CELL;
                if (core->arrange_rows) {
                    core->arrange_rows(from, group_bytes, pass, s.groups, ws->rows);
                    from = ws->rows;
                }
                for (size_t q = 0; q < count; q++) {
                    const size_t n0 = (p + q) * MQ_INT8_NR;
                    const uint8_t *packed = mq__int8_panel(w, p + q) + g * MQ_INT8_CELL;
                    if (core->arrange) core->arrange(packed, s.groups, ws->cells);
                    s.cells = core->arrange ? ws->cells : packed;
                    s.features = w->n - n0 < MQ_INT8_NR ? w->n - n0 : MQ_INT8_NR;
                    s.y = out->y + m0 * out->ldy + n0;
                    s.bias = out->bias ? out->bias + n0 : NULL;
                    const uint8_t *next = q + 1 < count ? packed + groups * MQ_INT8_CELL
                                          : s.last      ? mq__int8_panel(w, p + count) /* only prefetched */
                                                        : mq__int8_panel(w, p) + (g + step) * MQ_INT8_CELL;
                    run_pass_int8_driver(core, &s, pass, from, q == 0 && !core->arrange_rows, ws->tiles[q], next,
                                         s.groups * MQ_INT8_CELL);
                }
            }
        }
    }
}

void mq__int8_run_few(int8_rows_fn *run, const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                      const mq_epilogue *out, void *scratch)
{
    tile *sums = scratch;
    for (size_t p = p0; p < p1; p++) {
        const size_t n0 = p * MQ_INT8_NR;
        const int8_slice s = {.cells = mq__int8_panel(w, p),
                              .groups = w->groups,
                              .first = true,
                              .last = true,
                              .y = out->y + n0,
                              .ldy = out->ldy,
                              .bias = out->bias ? out->bias + n0 : NULL,
                              .accumulate = out->accumulate,
                              .features = w->n - n0 < MQ_INT8_NR ? w->n - n0 : MQ_INT8_NR};
        run(&s, rows, a->panels, *sums);
    }
}
