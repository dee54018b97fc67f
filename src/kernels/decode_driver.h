/* The order of decode attention's memory, common to the vector levels; the arithmetic of a page is the level's.
 *
 * Rows of one sequence (a draft that is verified) see the same keys but for the last few, and with a window but for the first few,
 * too. For the arithmetic a row's query heads are further heads: so many rows as fit are a group, and go through a page together if
 * they see the same of it, otherwise one by one. A row's operations and their order are those that it has alone.
 *
 * Memory is read in the order of its addresses, which takes it all the way to its bandwidth: page by page, kv head by kv head,
 * 64 keys and then their 64 values, with a running softmax that waits in L1 or L2 until the head's next page. */
#ifndef MQ_KERNELS_DECODE_DRIVER_H
#define MQ_KERNELS_DECODE_DRIVER_H

#include "kernels/kernels.h"

#include <string.h>

enum {
    DECODE_KEYS = 16,                        /* keys that a level reads at once, at most */
    DECODE_SCORE_STEP = MQ_PAGE_TOKENS + 16, /* floats between two heads' scores: in different sets of L1 */
};

/* Some query heads of one kv head, of one row or several: what they have seen of the span so far. `lanes` is half of the level's
 * columns, chunks are ceil(width / columns). All parts are 64-byte aligned. */
typedef struct decode_group {
    float *q;    /* [chunks][core.heads][2][lanes]: even and odd columns, scaled */
    float *sums; /* [heads][chunks][2][lanes]: even and odd columns of sum(p * v) */
    float *rest; /* [heads][3][lanes]: the running maximum in all lanes; sum(p) in lanes; the factor of the last page */
} decode_group;

/* A page side at work. Every line is sent for twice: into L2 two sides before it is read, and again, into L1 or L2, `ahead` rows
 * before. */
typedef struct decode_side {
    size_t width, chunks;
    const uint16_t *rows;
    size_t keys;
    size_t ahead;     /* a multiple of DECODE_KEYS */
    const char *next; /* the side that is read after this one */
    const char *far;  /* the one after that */
    float *scores;    /* [heads][DECODE_SCORE_STEP] */
    uint16_t *tail;   /* [DECODE_KEYS][width] */
} decode_side;

/* The row that is `ahead` of `row`. */
static inline const char *decode_near(const decode_side *s, size_t row)
{
    const size_t at = row + s->ahead;
    return at < MQ_PAGE_TOKENS ? (const char *)(s->rows + at * s->width)
                               : s->next + (at - MQ_PAGE_TOKENS) * s->width * sizeof *s->rows;
}

/* `count` rows from `row` on. A block that the end cuts is a copy with zeros, so that nothing past the end is read. */
static inline const uint16_t *decode_block(const decode_side *s, size_t row, size_t count)
{
    const uint16_t *rows = s->rows + row * s->width;
    const size_t left = s->keys - row;
    if (left >= count) return rows;
    memset(s->tail, 0, count * s->width * sizeof *s->tail);
    return memcpy(s->tail, rows, left * s->width * sizeof *s->tail);
}

typedef struct decode_core {
    size_t heads, columns; /* query heads per pass, of all rows, at most; bf16 per load */
    size_t ahead;          /* bytes between what is worked on and what is sent for the second time */
    /* even[i], odd[i] = pairs[2i] * scale, pairs[2i + 1] * scale for i < count <= lanes, and back */
    void (*split)(const float *pairs, size_t count, float scale, float *even, float *odd);
    void (*join)(const float *even, const float *odd, size_t count, float *pairs);
    /* A page's keys (`keys` is at them), then its values. after: what is read next. */
    void (*run)(const decode_group *group, size_t heads, const decode_side *keys, const uint16_t *values,
                const char *after);
} decode_core;

size_t mq__decode_scratch_bytes(const decode_core *core, uint32_t heads, uint32_t head_dim);

/* split and join, value by value. */
void mq__decode_split(const float *pairs, size_t count, float scale, float *even, float *odd);
void mq__decode_join(const float *even, const float *odd, size_t count, float *pairs);

/* The slot attention_decode_span. */
void mq__decode_span(const decode_core *core, const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                     size_t head_step, size_t row_step);

#endif
