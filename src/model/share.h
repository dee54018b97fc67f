/* How the work of a stage is cut into parts for the threads: by cost, in one order, so that each output has one writer and
 * neighbours in memory stay together. Results never depend on the cut; tests/unit/test_share.c counts the work for 1 to 64
 * threads. */
#ifndef MQ_MODEL_SHARE_H
#define MQ_MODEL_SHARE_H

#include "base/pool.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One part [begin, end) of a stage's total cost. */
typedef struct mq_share {
    double begin, end;
} mq_share;

static inline mq_share mq__share(double total, int part, int parts)
{
    /* the last one takes what rounding leaves */
    const mq_share share = {total * part / parts, part + 1 == parts ? 2 * total : total * (part + 1) / parts};
    return share;
}

/* How many parts a thread has of a stage of so many units: enough that threads of unequal speed (other programs, the core's
 * other hyperthread, small cores beside large ones) end together, and on average none of fewer than `least` units. */
static inline int mq__parts_each(size_t units, size_t least, int threads)
{
    enum { MOST = 8 }; /* docs/perf/2026-11-zen3.md */
    const size_t each = units / least / (size_t)threads;
    return threads == 1 || each < 1 ? 1 : each > MOST ? MOST : (int)each;
}

/* Units [*begin, *end) of a part, of which each thread has `each`: the thread's own units, which do not depend on `each`, cut at
 * multiples of `grain` from their begin. */
static inline void mq__part_units(size_t units, int part, int parts, int each, size_t grain, size_t *begin, size_t *end)
{
    size_t own, own_end, g0, g1;
    mq__partition(units, part / each, parts / each, &own, &own_end);
    mq__partition((own_end - own + grain - 1) / grain, part % each, each, &g0, &g1);
    g0 = own + g0 * grain;
    g1 = own + g1 * grain;
    *begin = g0 < own_end ? g0 : own_end;
    *end = g1 < own_end ? g1 : own_end;
}

/* The parts [*p0, *p1) of a unit of `count` equal parts, at [at, at + unit) of the total, that belong to a share; false when
 * there are none. All shares together have each part of each unit once. */
static inline uint32_t mq__share_cut(double cost, double unit, uint32_t count)
{
    if (cost <= 0) return 0;
    return cost >= unit ? count : (uint32_t)(cost / unit * count + 0.5);
}

static inline bool mq__share_parts(mq_share share, double at, double unit, uint32_t count, uint32_t *p0, uint32_t *p1)
{
    *p0 = mq__share_cut(share.begin - at, unit, count);
    *p1 = mq__share_cut(share.end - at, unit, count);
    return *p0 < *p1;
}

/* The same of a tile of causal attention: rows at positions `first` to first + count - 1, each of which costs the keys that
 * it sees, at most those of the window (0: none). Cuts are at multiples of MQ_SHARE_ROWS. */
#define MQ_SHARE_ROWS 8

/* Rows whose window is not full yet. */
static inline uint32_t mq__rows_before_window(uint32_t first, uint32_t count, uint32_t window)
{
    if (window == 0) return count;
    return first >= window ? 0 : window - first < count ? window - first : count;
}

static inline double mq__causal_cost(uint32_t first, uint32_t count, uint32_t window)
{
    const uint32_t growing = mq__rows_before_window(first, count, window);
    return ((double)first + (growing + 1.0) / 2) * growing + (double)(count - growing) * window;
}

static inline uint32_t mq__causal_cut(double cost, uint32_t first, uint32_t count, uint32_t window)
{
    if (cost <= 0) return 0;
    if (cost >= mq__causal_cost(first, count, window)) return count;
    const uint32_t growing = mq__rows_before_window(first, count, window);
    const double before = mq__causal_cost(first, growing, 0), p = first + 0.5;
    /* of which the cost is the sum */
    const double rows = cost < before ? sqrt(p * p + 2 * cost) - p : growing + (cost - before) / window;
    const uint32_t cut = (uint32_t)(rows / MQ_SHARE_ROWS + 0.5) * MQ_SHARE_ROWS;
    return cut < count ? cut : count;
}

static inline bool mq__share_causal(mq_share share, double at, uint32_t first, uint32_t count, uint32_t window,
                                    uint32_t *r0, uint32_t *r1)
{
    *r0 = mq__causal_cut(share.begin - at, first, count, window);
    *r1 = mq__causal_cut(share.end - at, first, count, window);
    return *r0 < *r1;
}

/* Outputs that are multiplied together have their units one after the other. Those of [begin, end) that belong to the output
 * whose `units` begin at `base`; false when there are none. */
static inline bool mq__group_part(size_t base, size_t units, size_t begin, size_t end, size_t *u0, size_t *u1)
{
    *u0 = begin > base ? begin - base : 0;
    *u1 = end > base ? (end - base < units ? end - base : units) : 0;
    return *u0 < *u1;
}

/* Tall products are cut by panels of features; narrow layers on many threads by rows, too: into so many pieces that no
 * thread has more than a ninth above its share, or until pieces are short (weights are read once a piece). */
static inline size_t mq__row_pieces(size_t panels, size_t rows, int threads)
{
    enum { SHORT = 128 };
    size_t pieces = 1;
    for (; rows / (pieces + 1) >= SHORT; pieces++) {
        const size_t units = panels * pieces, most = (units + (size_t)threads - 1) / (size_t)threads;
        if (9 * most * (size_t)threads <= 10 * units) break;
    }
    return pieces;
}

#endif
