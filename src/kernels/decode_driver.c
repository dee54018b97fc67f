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

/* The i-th group of the call: heads [first, first + heads) of kv head `kv_head`. */
typedef struct place {
    size_t kv_head, first, heads;
    bool last; /* of its kv head */
    decode_group group;
} place;

static place place_of(const decode_core *core, const mq_attention *a, size_t i)
{
    const size_t width = a->kv.head_dim, groups = (a->heads + core->heads - 1) / core->heads;
    const size_t columns = core->heads * columns_of(core, width);
    float *memory = (float *)a->scratch + i * group_floats(core, width);
    place p = {.kv_head = i / groups, .first = i % groups * core->heads, .last = i % groups + 1 == groups};
    p.heads = p.last ? a->heads - p.first : core->heads;
    p.group = (decode_group){memory, memory + columns, memory + 2 * columns};
    return p;
}

static void start_decode_driver(const decode_core *core, const mq_attention *a, const place *p)
{
    const size_t width = a->kv.head_dim, columns = columns_of(core, width), lanes = core->columns / 2;
    const float *q = a->q + (p->kv_head * a->heads + p->first) * width;
    if (columns != width) memset(p->group.q, 0, p->heads * columns * sizeof(float));
    for (size_t h = 0; h < p->heads; h++, q += width) {
        for (size_t c = 0; c < width; c += core->columns) {
            const size_t pairs = width - c < core->columns ? (width - c) / 2 : lanes; /* the width is even */
            float *even = p->group.q + c * p->heads + h * core->columns;
            core->split(q + c, pairs, a->scale, even, even + lanes);
        }
    }
    memset(p->group.sums, 0, p->heads * columns * sizeof(float));
    for (size_t h = 0; h < p->heads; h++) {
        float *rest = p->group.rest + h * rest_floats(core);
        for (size_t l = 0; l < lanes; l++) {
            rest[l] = -INFINITY;
            rest[lanes + l] = 0;
        }
    }
}

/* partial [heads][width + 2] */
static void finish_decode_driver(const decode_core *core, const place *p, size_t width, float *partial)
{
    const size_t columns = core->columns, lanes = columns / 2;
    for (size_t h = 0; h < p->heads; h++, partial += width + 2) {
        const float *sums = p->group.sums + h * columns_of(core, width), *rest = p->group.rest + h * rest_floats(core);
        for (size_t c = 0; c < width; c += columns, sums += columns) {
            const size_t pairs = width - c < columns ? (width - c) / 2 : lanes;
            core->join(sums, sums + lanes, pairs, partial + c);
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

void mq__decode_span(const decode_core *core, const mq_attention *a, uint32_t kv_heads, uint32_t key0, uint32_t key1,
                     float *partial, size_t stride)
{
    const size_t width = a->kv.head_dim;
    const size_t count = kv_heads * ((a->heads + core->heads - 1) / core->heads); /* groups of heads */
    const size_t head_step = 2 * MQ_PAGE_TOKENS * width; /* elements between two kv heads of a page */
    for (size_t i = 0; i < count; i++) {
        const place p = place_of(core, a, i);
        start_decode_driver(core, a, &p);
    }
    const size_t ahead = core->ahead / (2 * width) / DECODE_KEYS * DECODE_KEYS;
    decode_side s = {.width = width,
                     .ahead = ahead > 0 ? ahead : DECODE_KEYS,
                     .chunks = columns_of(core, width) / core->columns,
                     .scores = (float *)a->scratch + count * group_floats(core, width)};
    s.tail = (uint16_t *)(void *)(s.scores + core->heads * DECODE_SCORE_STEP);
    for (uint32_t key = key0, next; key < key1; key = next) {
        const uint32_t in_page = key % MQ_PAGE_TOKENS; /* not 0: where a window begins */
        const uint16_t *page = a->kv.pages[key / MQ_PAGE_TOKENS];
        const bool last = a->first / MQ_PAGE_TOKENS ==
                          key / MQ_PAGE_TOKENS; /* else the next span, which most often this thread has, too */
        const uint16_t *next_page = last ? page : a->kv.pages[key / MQ_PAGE_TOKENS + 1];
        next = key - in_page + MQ_PAGE_TOKENS;
        s.keys = (key1 < next ? key1 : next) - key;
        for (size_t i = 0; i < count; i++) {
            const place p = place_of(core, a, i);
            const uint16_t *after = next_page + a->kv.k_offset;
            s.rows = page + a->kv.k_offset + p.kv_head * head_step + in_page * width;
            if (!p.last) {
                after = s.rows;
            } else if (p.kv_head + 1 < kv_heads) {
                after = s.rows + head_step;
            }
            const uint16_t *values = page + a->kv.v_offset + p.kv_head * head_step + in_page * width;
            core->run(&p.group, p.heads, &s, values, (const char *)after);
        }
    }
    for (size_t i = 0; i < count; i++) {
        const place p = place_of(core, a, i);
        finish_decode_driver(core, &p, width, partial + p.kv_head * stride + p.first * (width + 2));
    }
}
