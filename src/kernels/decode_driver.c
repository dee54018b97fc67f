#include "kernels/decode_driver.h"

#include <math.h>
#include <string.h>

static size_t columns_of(const decode_core *core, size_t width)
{
    return (width + core->columns - 1) / core->columns * core->columns;
}

static size_t rest_floats(const decode_core *core)
{
    return 3 * core->columns / 2;
}

static size_t group_floats(const decode_core *core, size_t width)
{
    return core->heads * (2 * columns_of(core, width) + rest_floats(core));
}

/* A call, and how it is cut: `rows` whole rows are a group, or, where one row's heads are too many, a part of these. */
typedef struct decode_call {
    const decode_core *core;
    const mq_attention *a;
    size_t kv_heads, rows;
    size_t columns, floats; /* of a head's columns; of a group */
} decode_call;

/* A group of the call: heads [head, head + heads) of rows [row, row + rows). */
typedef struct place {
    size_t kv_head, row, rows, head, heads;
    float *memory;
} place;

static decode_call decode_call_of(const decode_core *core, const mq_attention *a, size_t kv_heads)
{
    const size_t rows = core->heads / a->heads;
    const size_t width = a->kv.head_dim;
    return (decode_call){core, a, kv_heads, rows > 0 ? rows : 1, columns_of(core, width), group_floats(core, width)};
}

/* Sets what follows from where it begins. */
static void measure_place(const decode_call *c, place *p)
{
    const size_t rows = c->a->rows - p->row, heads = c->a->heads - p->head;
    p->rows = rows < c->rows ? rows : c->rows;
    p->heads = heads < c->core->heads ? heads : c->core->heads;
}

static place first_place(const decode_call *c)
{
    place p = {.memory = c->a->scratch};
    measure_place(c, &p);
    return p;
}

/* Heads, then rows, then kv heads; the last one's kv_head is one too far. */
static void next_place(const decode_call *c, place *p)
{
    p->memory += c->floats;
    p->head += p->heads;
    if (p->head == c->a->heads) {
        p->head = 0;
        p->row += p->rows;
    }
    if (p->row == c->a->rows) {
        p->row = 0;
        p->kv_head++;
    }
    measure_place(c, p);
}

/* Whether rows up to `row` are the last that read the place's keys. */
static bool ends_kv_head(const decode_call *c, const place *p, size_t row)
{
    return p->head + p->heads == c->a->heads && row == c->a->rows;
}

/* Of a place from its row `row` on. */
static decode_group group_from(const decode_call *c, const place *p, size_t row)
{
    const size_t before = (row - p->row) * p->heads, columns = c->columns;
    return (decode_group){.q = p->memory + before * c->core->columns,
                          .sums = p->memory + (c->core->heads + before) * columns,
                          .rest = p->memory + 2 * c->core->heads * columns + before * rest_floats(c->core)};
}

/* A row's heads. */
static void start_row(const decode_call *c, const decode_group *group, const float *q, size_t heads)
{
    const decode_core *core = c->core;
    const size_t width = c->a->kv.head_dim, lanes = core->columns / 2;
    for (size_t h = 0; h < heads; h++, q += width) {
        for (size_t at = 0; at < width; at += core->columns) {
            const size_t pairs = width - at < core->columns ? (width - at) / 2 : lanes; /* the width is even */
            float *even = group->q + at * core->heads + h * core->columns;
            if (pairs < lanes) memset(even, 0, core->columns * sizeof(float));
            core->split(q + at, pairs, c->a->scale, even, even + lanes);
        }
    }
    memset(group->sums, 0, heads * c->columns * sizeof(float));
    for (size_t h = 0; h < heads; h++) {
        float *rest = group->rest + h * rest_floats(core);
        for (size_t l = 0; l < lanes; l++) {
            rest[l] = -INFINITY;
            rest[lanes + l] = 0;
        }
    }
}

/* partial [heads][width + 2] */
static void finish_row(const decode_call *c, const decode_group *group, float *partial, size_t heads)
{
    const decode_core *core = c->core;
    const size_t width = c->a->kv.head_dim, lanes = core->columns / 2;
    for (size_t h = 0; h < heads; h++, partial += width + 2) {
        const float *sums = group->sums + h * c->columns, *rest = group->rest + h * rest_floats(core);
        for (size_t at = 0; at < width; at += core->columns, sums += core->columns) {
            const size_t pairs = width - at < core->columns ? (width - at) / 2 : lanes;
            core->join(sums, sums + lanes, pairs, partial + at);
        }
        partial[width] = rest[0];
        partial[width + 1] = 0;
        for (size_t l = 0; l < lanes; l++) {
            partial[width + 1] += rest[lanes + l];
        }
    }
}

void mq__decode_split(const float *pairs, size_t count, float scale, float *even, float *odd)
{
    for (size_t i = 0; i < count; i++) {
        even[i] = pairs[2 * i] * scale;
        odd[i] = pairs[2 * i + 1] * scale;
    }
}

void mq__decode_join(const float *even, const float *odd, size_t count, float *pairs)
{
    for (size_t i = 0; i < count; i++) {
        pairs[2 * i] = even[i];
        pairs[2 * i + 1] = odd[i];
    }
}

size_t mq__decode_scratch_bytes(const decode_core *core, uint32_t heads, uint32_t head_dim)
{
    const size_t groups = MQ_DECODE_KV_HEADS * ((heads + core->heads - 1) / core->heads);
    return (groups * group_floats(core, head_dim) + core->heads * DECODE_SCORE_STEP) * sizeof(float) +
           DECODE_KEYS * columns_of(core, head_dim) * sizeof(uint16_t);
}

/* The keys of a page that rows [row, row + rows) of a place see, all of them the same. next_page: what is read after all kv
 * heads. */
static void run_part(const decode_call *c, const place *p, size_t row, size_t rows, mq_keys keys, decode_side *s,
                     const uint16_t *next_page)
{
    const mq_kv_view *kv = &c->a->kv;
    const size_t head_step = 2 * MQ_PAGE_TOKENS * s->width; /* elements between two kv heads of a page */
    const uint16_t *page = kv->pages[keys.begin / MQ_PAGE_TOKENS];
    const size_t at = p->kv_head * head_step + keys.begin % MQ_PAGE_TOKENS * s->width; /* not 0: a window begins here */
    const decode_group group = group_from(c, p, row);
    s->rows = page + kv->k_offset + at;
    s->keys = keys.end - keys.begin;
    const uint16_t *after = s->rows;
    if (ends_kv_head(c, p, row + rows)) {
        after = p->kv_head + 1 < c->kv_heads ? s->rows + head_step : next_page + kv->k_offset;
    }
    c->core->run(&group, rows * p->heads, s, page + kv->v_offset + at, (const char *)after);
}

static mq_keys keys_of(const mq_attention *a, size_t row, uint32_t begin, uint32_t end)
{
    return mq__keys_within(mq__keys_seen(a->first + (uint32_t)row, a->window), begin, end);
}

/* A group goes through a page. */
static void run_place(const decode_call *c, const place *p, uint32_t page, decode_side *s, const uint16_t *next_page)
{
    const uint32_t begin = page * MQ_PAGE_TOKENS, end = begin + MQ_PAGE_TOKENS;
    const mq_keys first = keys_of(c->a, p->row, begin, end);
    const mq_keys last = p->rows > 1 ? keys_of(c->a, p->row + p->rows - 1, begin, end) : first;
    const size_t rows = first.begin == last.begin && first.end == last.end ? p->rows : 1;
    for (size_t row = p->row; row < p->row + p->rows; row += rows) {
        const mq_keys keys = keys_of(c->a, row, begin, end);
        if (keys.begin < keys.end) run_part(c, p, row, rows, keys, s, next_page);
    }
}

void mq__decode_span(const decode_core *core, const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                     size_t head_step, size_t row_step)
{
    const decode_call c = decode_call_of(core, a, kv_heads);
    const size_t width = a->kv.head_dim, ahead = core->ahead / (2 * width) / DECODE_KEYS * DECODE_KEYS;
    place p = first_place(&c);
    for (; p.kv_head < kv_heads; next_place(&c, &p)) {
        for (size_t row = p.row; row < p.row + p.rows; row++) {
            const decode_group group = group_from(&c, &p, row);
            start_row(&c, &group, a->q + row * a->q_stride + (p.kv_head * a->heads + p.head) * width, p.heads);
        }
    }
    decode_side s = {.width = width,
                     .ahead = ahead > 0 ? ahead : DECODE_KEYS,
                     .chunks = c.columns / core->columns,
                     .scores = p.memory};
    s.tail = (uint16_t *)(void *)(s.scores + core->heads * DECODE_SCORE_STEP);
    const uint32_t newest = a->first + a->rows - 1, begin = span * MQ_SPAN_TOKENS, end = begin + MQ_SPAN_TOKENS;
    const mq_keys all = {keys_of(a, 0, begin, end).begin, keys_of(a, a->rows - 1, begin, end).end};
    for (uint32_t page = all.begin / MQ_PAGE_TOKENS; page * MQ_PAGE_TOKENS < all.end; page++) {
        /* the next span, too, which most often this thread has */
        const uint16_t *next_page = a->kv.pages[page < newest / MQ_PAGE_TOKENS ? page + 1 : page];
        for (p = first_place(&c); p.kv_head < kv_heads; next_place(&c, &p)) {
            run_place(&c, &p, page, &s, next_page);
        }
    }
    for (p = first_place(&c); p.kv_head < kv_heads; next_place(&c, &p)) {
        for (size_t row = p.row; row < p.row + p.rows; row++) {
            const decode_group group = group_from(&c, &p, row);
            const mq_keys keys = keys_of(a, row, begin, end);
            float *to = partial + p.kv_head * head_step + row * row_step + p.head * (width + 2);
            if (keys.begin < keys.end) finish_row(&c, &group, to, p.heads);
        }
    }
}
