/* The rows of a pass: where they stand, and what remains when sequences are cancelled. */
#include "model/runtime.h"

#include <string.h>

void mq__pass_enter(mq_runtime *rt, const mq_pass *pass)
{
    rt->pass = pass;
    rt->rows = &rt->stream[pass->phase];
    rt->clock.last = mq__seconds();
    rt->clock.waited = mq__pool_waited(rt->pool);
}

void mq__pass_begin(mq_runtime *rt, const mq_pass *pass)
{
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        const mq_segment *segment = &pass->segments[s];
        for (uint32_t i = 0; i < segment->rows; i++) {
            rt->rows->position[segment->row + i] = segment->first + i;
        }
    }
}

/* Between two layers a row is its residual stream, its position and the cosines and sines of that. */
static void move_rows(mq_runtime *rt, uint32_t to, uint32_t from, uint32_t rows)
{
    const size_t width = rt->model->width;
    const mq_stream *s = rt->rows;
    memmove(s->h + to * width, s->h + from * width, rows * width * sizeof *s->h);
    for (uint32_t r = 0; r < rt->model->ropes; r++) {
        const size_t half = rt->model->rope[r].width / 2;
        memmove(s->cos[r] + to * half, s->cos[r] + from * half, rows * half * sizeof(float));
        memmove(s->sin[r] + to * half, s->sin[r] + from * half, rows * half * sizeof(float));
    }
    memmove(s->position + to, s->position + from, rows * sizeof *s->position);
}

bool mq__pass_continues(mq_runtime *rt, mq_pass *pass)
{
    uint32_t kept = 0;
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        mq_segment *segment = &pass->segments[s];
        if (segment->cancel && atomic_load_explicit(segment->cancel, memory_order_relaxed)) segment->rows = 0;
        if (segment->rows > 0 && segment->row != kept) move_rows(rt, kept, segment->row, segment->rows);
        segment->row = kept;
        kept += segment->rows;
    }
    pass->rows = kept;
    return kept > 0;
}
