/* Attention of one layer over the paged BF16 cache: rotate and store, then attend. Both phases read the same cache; the
 * prefill kernel works on tiles of rows, the decode kernel on spans of keys. */
#include "model/runtime.h"
#include "model/share.h"

#include <string.h>

typedef struct job {
    mq_runtime *rt;
    const mq_layer *weights;
    uint32_t layer;
    bool rotated; /* q is rotated and the new keys and values are in the cache before attention begins */
} job;

/* The queries of a row as its linear layer leaves them, into q [H, K] (which may be where they are). */
static void take_query(const job *j, size_t row, float *q)
{
    const mq_runtime *rt = j->rt;
    const size_t heads = rt->model->heads, width = j->weights->head_dim;
    if (!rt->model->output_gate) {
        const float *from = rt->q + row * heads * width;
        if (from != q) memcpy(q, from, heads * width * sizeof *q);
        return;
    }
    const float *from = rt->gated_q + row * 2 * heads * width; /* of each head the query, then the gate */
    for (size_t h = 0; h < heads; h++) {
        memcpy(q + h * width, from + 2 * h * width, width * sizeof *q);
    }
}

/* q = rope(norm(q)), all heads of one row. */
static void rotate_query(const job *j, size_t row, float *q)
{
    const mq_runtime *rt = j->rt;
    const mq_layer *w = j->weights;
    const size_t rotary = rt->model->rope[w->rope].width, at = row * (rotary / 2);
    rt->kernels->norm_rope(q, rt->model->heads, w->head_dim, rotary, w->q_norm, rt->model->norm_eps,
                           rt->rows->cos[w->rope] + at, rt->rows->sin[w->rope] + at);
}

/* v = norm(v), of what k_proj made where the layer has no v_proj. */
static void make_values(const job *j, const float *k, float *v, uint32_t heads)
{
    const mq_layer *w = j->weights;
    const size_t width = w->head_dim;
    const float *from = w->v.n ? v : k;
    for (size_t at = 0; at < heads * width; at += width) {
        j->rt->kernels->rmsnorm(v + at, from + at, w->v_norm, width, j->rt->model->norm_eps);
    }
}

static uint16_t *const *pages_of(const job *j, const mq_segment *segment)
{
    return mq__kv_pages(j->rt->kv, j->layer, segment->pages, segment->window_pages);
}

/* v = norm(v), k = rope(norm(k)); k and v of kv heads [g0, g1) go into the cache. i: a row of the segment. */
static void store_keys(const job *j, const mq_segment *segment, uint32_t i, uint32_t g0, uint32_t g1)
{
    const mq_runtime *rt = j->rt;
    const mq_layer *w = j->weights;
    const size_t width = w->head_dim, row = segment->row + i, position = segment->first + i;
    const size_t rotary = rt->model->rope[w->rope].width, at = row * (rotary / 2);
    float *k = rt->k + row * w->kv_heads * width, *v = rt->v + row * w->kv_heads * width;
    uint16_t *page = pages_of(j, segment)[position / MQ_PAGE_TOKENS];
    const size_t slot = position % MQ_PAGE_TOKENS * width;
    if (w->v_norm) make_values(j, k + g0 * width, v + g0 * width, g1 - g0);
    rt->kernels->norm_rope(k + g0 * width, g1 - g0, width, rotary, w->k_norm, rt->model->norm_eps,
                           rt->rows->cos[w->rope] + at, rt->rows->sin[w->rope] + at);
    for (uint32_t g = g0; g < g1; g++) {
        rt->kernels->f32_to_bf16(page + mq__kv_key_offset(rt->kv, j->layer, g) + slot, k + g * width, width);
        rt->kernels->f32_to_bf16(page + mq__kv_value_offset(rt->kv, j->layer, g) + slot, v + g * width, width);
    }
}

static void rotate_and_store(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const size_t q_width = (size_t)rt->model->heads * j->weights->head_dim;
    size_t begin, end;
    mq__partition(rt->pass->rows, thread, threads, &begin, &end);
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        size_t r0, r1;
        if (!mq__group_part(segment->row, segment->rows, begin, end, &r0, &r1)) continue;
        for (size_t i = r0; i < r1; i++) {
            float *q = rt->q + (segment->row + i) * q_width;
            take_query(j, segment->row + i, q);
            rotate_query(j, segment->row + i, q);
            store_keys(j, segment, (uint32_t)i, 0, j->weights->kv_heads);
        }
    }
}

/* Rows [row, row + rows) of a segment against one kv head. */
static mq_attention view(const job *j, const mq_segment *segment, uint32_t g, uint32_t row, uint32_t rows, int thread)
{
    const mq_runtime *rt = j->rt;
    const mq_layer *w = j->weights;
    const uint32_t heads = rt->model->heads / w->kv_heads;
    const size_t stride = (size_t)rt->model->heads * w->head_dim;
    const size_t offset = (segment->row + row) * stride + (size_t)g * heads * w->head_dim;
    return (mq_attention){
        .kv = {.pages = pages_of(j, segment),
               .k_offset = mq__kv_key_offset(rt->kv, j->layer, g),
               .v_offset = mq__kv_value_offset(rt->kv, j->layer, g),
               .head_dim = w->head_dim},
        .q = rt->q + offset,
        .out = rt->x + offset,
        .q_stride = stride,
        .out_stride = stride,
        .heads = heads,
        .first = segment->first + row,
        .rows = rows,
        .window = w->window,
        .scale = w->attention_scale,
        .scratch = rt->thread_scratch[thread],
    };
}

/* How the layer attends in a prefill pass: a window's few keys are not worth quantising. */
static mq_attention_format format_of_attention(const job *j)
{
    const mq_attention_format format = (mq_attention_format)j->rt->pass->plan.attention;
    return format == MQ_ATTENTION_INT8 && j->weights->window ? MQ_ATTENTION_W16A16 : format;
}

/* Rows of one call at most: as many as the kernel likes. */
static uint32_t tile_rows(const job *j)
{
    const uint32_t heads = j->rt->model->heads / j->weights->kv_heads;
    if (format_of_attention(j) == MQ_ATTENTION_INT8) return MQ_ATTENTION_TILE;
    return heads < MQ_ATTENTION_QUERIES ? MQ_ATTENTION_QUERIES / heads : 1;
}

/* Rows of the tile that begins at row `row` of the segment. INT8 tiles of rows lie where the tiles of keys do. */
static uint32_t tile_at(const job *j, const mq_segment *segment, uint32_t row, uint32_t most)
{
    const bool int8 = format_of_attention(j) == MQ_ATTENTION_INT8;
    const uint32_t room = int8 ? most - (segment->first + row) % most : most, left = segment->rows - row;
    return left < room ? left : room;
}

static double segment_cost(const job *j, const mq_segment *segment)
{
    return j->weights->kv_heads * mq__causal_cost(segment->first, segment->rows, j->weights->window);
}

/* Units are (row tile, kv head) in order of position. A later tile sees more keys, so the units are dealt out by cost; a
 * tile that two parts share is cut. Rows do not depend on it. */
static void attend_prefill(void *context, int part, int parts, int thread)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const mq_attention_format format = format_of_attention(j);
    void (*const attend)(const mq_attention *a) = format == MQ_ATTENTION_INT8     ? rt->kernels->attention_prefill_int8
                                                  : format == MQ_ATTENTION_W16A16 ? rt->kernels->attention_prefill_bf16
                                                                                  : rt->kernels->attention_prefill;
    const uint32_t heads = j->weights->kv_heads, window = j->weights->window, most = tile_rows(j);
    double total = 0, at = 0;
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        total += segment_cost(j, &rt->pass->segments[s]);
    }
    const mq_share share = mq__share(total, part, parts);
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        for (uint32_t row = 0, rows; row < segment->rows; row += rows) {
            rows = tile_at(j, segment, row, most);
            const uint32_t first = segment->first + row;
            for (uint32_t g = 0, r0, r1; g < heads; g++, at += mq__causal_cost(first, rows, window)) {
                if (!mq__share_causal(share, at, first, rows, window, &r0, &r1)) continue;
                const mq_attention a = view(j, segment, g, row + r0, r1 - r0, thread);
                attend(&a);
            }
        }
    }
}

#define PART_UNITS 2 /* that a part has at least: the keys of a unit that is cut are made ready once more */

static size_t prefill_units(const job *j)
{
    const uint32_t most = tile_rows(j);
    size_t tiles = 0;
    for (uint32_t s = 0; s < j->rt->pass->segment_count; s++) {
        tiles += (j->rt->pass->segments[s].rows + most - 1) / most;
    }
    return tiles * j->weights->kv_heads;
}

/* ---- decode: keys are cut into spans at fixed positions, whatever threads and rows there are */

/* Which spans have keys that a row sees. */
typedef struct sight {
    uint32_t first, spans;
} sight;

/* Of row i of a segment. */
static sight sight_of(const job *j, const mq_segment *segment, uint32_t i)
{
    const mq_keys keys = mq__keys_seen(segment->first + i, j->weights->window);
    const uint32_t first = keys.begin / MQ_SPAN_TOKENS;
    return (sight){first, (keys.end + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS - first};
}

/* What the rows of a segment see together. */
static mq_keys keys_of_segment(const job *j, const mq_segment *segment)
{
    const uint32_t window = j->weights->window;
    const mq_keys first = mq__keys_seen(segment->first, window);
    const mq_keys last = mq__keys_seen(segment->first + segment->rows - 1, window);
    return (mq_keys){first.begin, last.end};
}

/* What keys cost: they are read once, for which a row more could be computed, and multiplied with each row. */
static double keys_cost(const mq_segment *segment, mq_keys keys)
{
    return (double)(keys.end - keys.begin) * (1 + segment->rows);
}

/* What a kv head's query heads leave of a span. */
static size_t partial_floats(const job *j)
{
    return (size_t)(j->rt->model->heads / j->weights->kv_heads) * (j->weights->head_dim + 2);
}

static float *partials_of(const job *j, size_t row, uint32_t g, uint32_t span)
{
    return j->rt->partials + ((row * j->weights->kv_heads + g) * j->rt->max_spans + span) * partial_floats(j);
}

static void merge_attention(const job *j, const mq_segment *segment, uint32_t i, uint32_t g, int thread)
{
    const mq_attention a = view(j, segment, g, i, 1, thread);
    const sight sees = sight_of(j, segment, i);
    j->rt->kernels->attention_decode_merge(&a, sees.spans, partials_of(j, segment->row + i, g, sees.first));
}

/* kv heads [g0, g1) of one span for all rows of a segment: many rows of few heads at a time, or many heads of few rows. q: the
 * rows' queries, unless all are rotated. */
static void attend_span(const job *j, const mq_segment *segment, uint32_t span, uint32_t g0, uint32_t g1,
                        const float *q, int thread)
{
    const mq_runtime *rt = j->rt;
    const size_t head_step = rt->max_spans * partial_floats(j), row_step = j->weights->kv_heads * head_step;
    const uint32_t most = segment->rows < MQ_DECODE_KV_HEADS ? segment->rows : MQ_DECODE_KV_HEADS;
    const uint32_t heads = MQ_DECODE_KV_HEADS / most;
    for (uint32_t g = g0; g < g1; g += heads) {
        for (uint32_t i = 0; i < segment->rows; i += most) {
            const uint32_t left = segment->rows - i;
            mq_attention a = view(j, segment, g, i, left < most ? left : most, thread);
            if (!j->rotated) a.q = q + i * a.q_stride + (size_t)g * a.heads * a.kv.head_dim;
            rt->kernels->attention_decode_span(&a, g1 - g < heads ? g1 - g : heads, span,
                                               partials_of(j, segment->row + i, g, span), head_step, row_step);
        }
    }
    for (uint32_t i = 0; i < segment->rows; i++) {
        const sight sees = sight_of(j, segment, i);
        for (uint32_t g = g0; g < g1 && sees.spans == 1 && sees.first == span; g++) {
            merge_attention(j, segment, i, g, thread);
        }
    }
}

/* The rotated queries of a segment. */
static void make_queries(const job *j, const mq_segment *segment, float *q)
{
    for (uint32_t i = 0; i < segment->rows; i++, q += (size_t)j->rt->model->heads * j->weights->head_dim) {
        take_query(j, segment->row + i, q);
        rotate_query(j, segment->row + i, q);
    }
}

/* The new keys and values that lie in a span. */
static void store_span(const job *j, const mq_segment *segment, uint32_t span, uint32_t g0, uint32_t g1)
{
    for (uint32_t i = 0; i < segment->rows; i++) {
        if ((segment->first + i) / MQ_SPAN_TOKENS == span) store_keys(j, segment, i, g0, g1);
    }
}

/* Units are spans, cut by kv heads, so that a thread's heads of a span are neighbours in memory. With few rows a sequence nobody
 * waits for rotated queries and new keys: a thread rotates the queries of its segments for itself, and stores the new keys of
 * what it reads. */
static void attend_decode(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    float *q = rt->own_rows[thread];
    double total = 0, at = 0, cost;
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        if (segment->rows > 0) total += keys_cost(segment, keys_of_segment(j, segment));
    }
    const mq_share share = mq__share(total, thread, threads);
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        if (segment->rows == 0) continue;
        const mq_keys keys = keys_of_segment(j, segment);
        const uint32_t last = (keys.end - 1) / MQ_SPAN_TOKENS;
        bool rotated = j->rotated;
        for (uint32_t span = keys.begin / MQ_SPAN_TOKENS, g0, g1; span <= last; span++, at += cost) {
            cost = keys_cost(segment, mq__keys_of_span(keys, span));
            if (!mq__share_parts(share, at, cost, j->weights->kv_heads, &g0, &g1)) continue;
            if (!rotated) {
                make_queries(j, segment, q);
                rotated = true;
            }
            if (!j->rotated) store_span(j, segment, span, g0, g1);
            attend_span(j, segment, span, g0, g1, q, thread);
        }
    }
}

/* Of rows with several spans. */
static void merge_decode(void *context, int thread, int threads)
{
    const job *j = context;
    const uint32_t kv_heads = j->weights->kv_heads;
    size_t begin, end, r0, r1;
    mq__partition((size_t)j->rt->pass->rows * kv_heads, thread, threads, &begin, &end);
    for (uint32_t s = 0; s < j->rt->pass->segment_count; s++) {
        const mq_segment *segment = &j->rt->pass->segments[s];
        if (!mq__group_part((size_t)segment->row * kv_heads, (size_t)segment->rows * kv_heads, begin, end, &r0, &r1))
            continue;
        for (size_t unit = r0; unit < r1; unit++) {
            const uint32_t i = (uint32_t)(unit / kv_heads);
            if (sight_of(j, segment, i).spans > 1) {
                merge_attention(j, segment, i, (uint32_t)(unit % kv_heads), thread);
            }
        }
    }
}

static bool several_spans(const job *j)
{
    for (uint32_t s = 0; s < j->rt->pass->segment_count; s++) {
        for (uint32_t i = 0; i < j->rt->pass->segments[s].rows; i++) {
            if (sight_of(j, &j->rt->pass->segments[s], i).spans > 1) return true;
        }
    }
    return false;
}

static bool many_rows(const mq_pass *pass)
{
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        if (pass->segments[s].rows > MQ_OWN_ROWS) return true;
    }
    return false;
}

static void show_queries(const mq_runtime *rt, uint32_t layer)
{
    const mq_observer *observer = rt->pass->observer;
    const size_t width = (size_t)rt->model->heads * rt->model->layer[layer].head_dim;
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        if (segment->rows == 0) continue;
        observer->queries(observer->context, layer, segment->first, rt->q + segment->row * width, segment->rows);
    }
}

void mq__attention(mq_runtime *rt, uint32_t layer)
{
    job j = {.rt = rt, .weights = &rt->model->layer[layer], .layer = layer};
    const mq_observer *observer = rt->pass->observer;
    const bool shown = observer && observer->queries;
    j.rotated = rt->pass->phase == MQ_PHASE_PREFILL || shown || many_rows(rt->pass);
    if (j.rotated) mq__pool_run(rt->pool, rotate_and_store, &j);
    mq__lap(rt, MQ_STAGE_ROTATE);
    if (shown) show_queries(rt, layer);
    if (rt->pass->phase == MQ_PHASE_PREFILL) {
        mq__pool_deal(rt->pool, attend_prefill, &j, mq__parts_of(rt, rt->pass->rows, prefill_units(&j), PART_UNITS));
    } else {
        mq__pool_run(rt->pool, attend_decode, &j);
        if (several_spans(&j)) mq__pool_run(rt->pool, merge_decode, &j);
    }
    mq__lap(rt, MQ_STAGE_ATTEND);
}
