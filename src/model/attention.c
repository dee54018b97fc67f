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

/* Units are (row tile, kv head) in order of position. A later tile sees more keys, so the units are dealt out by cost; a
 * tile that two threads share is cut. Rows do not depend on it. */
static void attend_prefill(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    const mq_attention_format format = format_of_attention(j);
    void (*const attend)(const mq_attention *a) = format == MQ_ATTENTION_INT8     ? rt->kernels->attention_prefill_int8
                                                  : format == MQ_ATTENTION_W16A16 ? rt->kernels->attention_prefill_bf16
                                                                                  : rt->kernels->attention_prefill;
    const uint32_t heads = j->weights->kv_heads, window = j->weights->window, most = tile_rows(j);
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        if (segment->rows == 0) continue;
        const mq_share share =
            mq__share(heads * mq__causal_cost(segment->first, segment->rows, window), thread, threads);
        double at = 0;
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

/* ---- decode: keys are cut into spans at fixed positions, whatever threads and rows there are */

/* The keys that a row sees: those of the spans from `first` on, [begin, end). */
typedef struct sight {
    uint32_t begin, end, first, spans;
} sight;

/* Of row i of a segment. */
static sight sight_of(const job *j, const mq_segment *segment, uint32_t i)
{
    const uint32_t end = segment->first + i + 1, window = j->weights->window;
    sight s = {.begin = window && end > window ? end - window : 0, .end = end};
    s.first = s.begin / MQ_SPAN_TOKENS;
    s.spans = (end + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS - s.first;
    return s;
}

/* Which keys [*key0, *key1) of a span it sees; how many. */
static uint32_t keys_in(sight s, uint32_t span, uint32_t *key0, uint32_t *key1)
{
    const uint32_t begin = span * MQ_SPAN_TOKENS, end = begin + MQ_SPAN_TOKENS;
    *key0 = s.begin > begin ? s.begin : begin;
    *key1 = s.end < end ? s.end : end;
    return *key0 < *key1 ? *key1 - *key0 : 0;
}

/* Keys that all rows of a segment see of a span together: what it costs. */
static double span_cost(const job *j, const mq_segment *segment, uint32_t span)
{
    double keys = 0;
    for (uint32_t i = 0, key0, key1; i < segment->rows; i++) {
        keys += keys_in(sight_of(j, segment, i), span, &key0, &key1);
    }
    return keys;
}

/* What a kv head's query heads leave of a span. */
static size_t partial_floats(const job *j)
{
    return (size_t)(j->rt->model->heads / j->weights->kv_heads) * (j->weights->head_dim + 2);
}

static float *partials_of(const job *j, size_t row, uint32_t g)
{
    return j->rt->partials + (row * j->weights->kv_heads + g) * j->rt->max_spans * partial_floats(j);
}

/* kv heads [g0, g1) of one span for row i, some at a time. q: rotated, all heads. */
static void decode_span(const job *j, const mq_segment *segment, uint32_t i, uint32_t span, uint32_t g0, uint32_t g1,
                        const float *q, int thread)
{
    const mq_runtime *rt = j->rt;
    const size_t one = partial_floats(j), stride = rt->max_spans * one;
    const sight sees = sight_of(j, segment, i);
    uint32_t key0, key1;
    if (keys_in(sees, span, &key0, &key1) == 0) return;
    for (uint32_t g = g0, count; g < g1; g += count) {
        count = g1 - g < MQ_DECODE_KV_HEADS ? g1 - g : MQ_DECODE_KV_HEADS;
        mq_attention a = view(j, segment, g, i, 1, thread);
        a.q = q + (size_t)g * a.heads * j->weights->head_dim;
        rt->kernels->attention_decode_span(&a, count, key0, key1,
                                           partials_of(j, segment->row + i, g) + (span - sees.first) * one, stride);
    }
}

static void merge_attention(const job *j, const mq_segment *segment, uint32_t i, uint32_t g, int thread)
{
    const mq_attention a = view(j, segment, g, i, 1, thread);
    j->rt->kernels->attention_decode_merge(&a, sight_of(j, segment, i).spans, partials_of(j, segment->row + i, g));
}

/* kv heads [g0, g1) of one span for all rows of a segment. Several rows read the same keys: few heads at a time, so that they
 * are still in L2 for the next row. */
static void attend_span(const job *j, const mq_segment *segment, uint32_t span, uint32_t g0, uint32_t g1, float *q,
                        int thread)
{
    enum { HEADS_IN_L2 = 2 };
    const mq_runtime *rt = j->rt;
    const size_t q_width = (size_t)rt->model->heads * j->weights->head_dim;
    const uint32_t step = segment->rows > 1 ? HEADS_IN_L2 : g1 - g0;
    for (uint32_t g = g0, end; g < g1; g = end) {
        end = g1 - g < step ? g1 : g + step;
        for (uint32_t i = 0; i < segment->rows; i++) {
            decode_span(j, segment, i, span, g, end, j->rotated ? rt->q + (segment->row + i) * q_width : q, thread);
        }
    }
    for (uint32_t i = 0; i < segment->rows; i++) {
        const sight sees = sight_of(j, segment, i);
        for (uint32_t g = g0; g < g1 && sees.spans == 1 && sees.first == span; g++) {
            merge_attention(j, segment, i, g, thread);
        }
    }
}

/* Units are spans, cut by kv heads, so that a thread's heads of a span are neighbours in memory. With one row a sequence nobody
 * waits for rotated queries and new keys: a thread rotates the queries of its segments for itself, and who has the last span,
 * which the new keys are in, stores them. */
static void attend_decode(void *context, int thread, int threads)
{
    const job *j = context;
    const mq_runtime *rt = j->rt;
    float *q = rt->own_rows[thread];
    double total = 0, at = 0, cost;
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        total += mq__causal_cost(segment->first, segment->rows, j->weights->window);
    }
    const mq_share share = mq__share(total, thread, threads);
    for (uint32_t s = 0; s < rt->pass->segment_count; s++) {
        const mq_segment *segment = &rt->pass->segments[s];
        if (segment->rows == 0) continue;
        const uint32_t last = (segment->first + segment->rows - 1) / MQ_SPAN_TOKENS;
        bool rotated = j->rotated;
        for (uint32_t span = sight_of(j, segment, 0).first, g0, g1; span <= last; span++, at += cost) {
            cost = span_cost(j, segment, span);
            if (!mq__share_parts(share, at, cost, j->weights->kv_heads, &g0, &g1)) continue;
            if (!rotated) {
                take_query(j, segment->row, q);
                rotate_query(j, segment->row, q);
                rotated = true;
            }
            if (span == last && !j->rotated) store_keys(j, segment, 0, g0, g1);
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

static bool several_rows(const mq_pass *pass)
{
    for (uint32_t s = 0; s < pass->segment_count; s++) {
        if (pass->segments[s].rows > 1) return true;
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
    j.rotated = rt->pass->phase == MQ_PHASE_PREFILL || shown || several_rows(rt->pass);
    if (j.rotated) mq__pool_run(rt->pool, rotate_and_store, &j);
    mq__lap(rt, MQ_STAGE_ROTATE);
    if (shown) show_queries(rt, layer);
    if (rt->pass->phase == MQ_PHASE_PREFILL) {
        mq__pool_run(rt->pool, attend_prefill, &j);
    } else {
        mq__pool_run(rt->pool, attend_decode, &j);
        if (several_spans(&j)) mq__pool_run(rt->pool, merge_decode, &j);
    }
    mq__lap(rt, MQ_STAGE_ATTEND);
}
