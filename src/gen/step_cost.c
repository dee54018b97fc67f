#include "gen/step_cost.h"

#include <math.h>
#include <string.h>

#define ROW_UNKNOWN   0.06 /* of a decode step of one row: what a row more is said to take until it is known */
#define DRAFT_UNKNOWN 0.4  /* the same of a draft step of one row */
#define LEVEL_RATE    0.15
#define SHAPE_RATE    0.06
#define SPLIT_RATE    0.25
#define OUTLIER       1.6 /* a step that took so many times as long was disturbed: it counts as one that took so long */
#define PLAIN_EVERY   32
#define GAIN_LEAST    1.02  /* less than that is noise */
#define AGE_SHAPE     0.002 /* of the way back to what is said while nothing is known, a step without drafts */

static const uint8_t points[MQ_COST_POINTS] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64};

static double unknown_shape(int kind, int point)
{
    return (kind == MQ_COST_DECODE ? 1 : DRAFT_UNKNOWN) + ROW_UNKNOWN * (points[point] - 1);
}

void mq__cost_init(mq_step_cost *cost)
{
    *cost = (mq_step_cost){.level = 0};
    for (int kind = 0; kind < MQ_COST_KINDS; kind++) {
        for (int p = 0; p < MQ_COST_POINTS; p++) {
            cost->shape[kind][p] = unknown_shape(kind, p);
        }
    }
}

/* Where drafts do not pay nothing is learnt of them: what was known ages, so that they are tried again. */
static void age_shapes(mq_step_cost *cost, int point)
{
    for (int kind = 0; kind < MQ_COST_KINDS; kind++) {
        for (int p = 0; p < MQ_COST_POINTS; p++) {
            if (kind == MQ_COST_DECODE && p <= point) continue;
            cost->shape[kind][p] += AGE_SHAPE * (unknown_shape(kind, p) - cost->shape[kind][p]);
        }
    }
}

/* The last point that has at most so many rows. */
static int point_of(uint32_t rows)
{
    int p = 0;
    while (p + 1 < MQ_COST_POINTS && points[p + 1] <= rows) {
        p++;
    }
    return p;
}

/* More rows never take less: what is measured is noisy. */
static double rising_shape(const mq_step_cost *cost, mq_cost_kind kind, int point)
{
    double most = 0;
    for (int p = 0; p <= point; p++) {
        most = fmax(most, cost->shape[kind][p]);
    }
    return most;
}

double mq__cost_of(const mq_step_cost *cost, mq_cost_kind kind, uint32_t rows)
{
    const int p = point_of(rows), next = p + 1 < MQ_COST_POINTS ? p + 1 : p;
    const double low = rising_shape(cost, kind, p), high = rising_shape(cost, kind, next);
    if (rows > MQ_COST_ROWS) return low * rows / MQ_COST_ROWS; /* several passes */
    return next == p ? low : low + (high - low) * (rows - points[p]) / (points[next] - points[p]);
}

static void scale_shape(mq_step_cost *cost, mq_cost_kind kind, int p, double factor)
{
    cost->shape[kind][p] *= factor;
    if (kind == MQ_COST_DECODE) cost->shape[kind][p] = fmax(cost->shape[kind][p], 1); /* no step is below one row's */
}

/* What one point has learnt of itself, its neighbours that know nothing yet are told, too. */
static void move_shape(mq_step_cost *cost, mq_cost_kind kind, int p, double factor)
{
    scale_shape(cost, kind, p, factor);
    if (cost->seen[kind][p] < 250) cost->seen[kind][p]++;
    const double rise = p ? (cost->shape[kind][p] - cost->shape[kind][0]) / (points[p] - 1) : 0;
    for (int up = p + 1; up < MQ_COST_POINTS && !cost->seen[kind][up]; up++) {
        cost->shape[kind][up] = cost->shape[kind][p] + fmax(rise, ROW_UNKNOWN) * (points[up] - points[p]);
    }
    if (kind == MQ_COST_DECODE && p == 0) cost->shape[kind][p] = 1; /* by definition */
}

/* Steps with drafts teach the products of level and shapes alone. A step of one row without them tells how they split: level and
 * shapes move, and the products stay. A step of several rows moves its own shape, and leaves level and other shapes alone. */
static void split_again(mq_step_cost *cost, int point, double off)
{
    const double most = log(OUTLIER), factor = exp(fmin(fmax(off, -most), most) * SPLIT_RATE);
    if (point > 0) {
        scale_shape(cost, MQ_COST_DECODE, point, factor);
        return;
    }
    cost->level *= factor;
    for (int kind = 0; kind < MQ_COST_KINDS; kind++) {
        for (int p = 0; p < MQ_COST_POINTS; p++) {
            if (cost->recent[kind][p]) scale_shape(cost, (mq_cost_kind)kind, p, 1 / factor);
        }
    }
}

void mq__cost_learn(mq_step_cost *cost, mq_cost_kind kind, uint32_t rows, bool drafted, double seconds)
{
    const int p = point_of(rows);
    if (rows == 0 || rows > MQ_COST_ROWS || !(seconds > 0)) return;
    const double shape = mq__cost_of(cost, kind, rows);
    if (cost->level == 0) cost->level = seconds / shape;
    const bool known = cost->seen[kind][p] > 8;
    const double most = known ? log(OUTLIER) : log(8);
    const double off = fmin(fmax(log(seconds / (cost->level * shape)), -most), most);
    const bool is_level = kind == MQ_COST_DECODE && rows == 1, plain = kind == MQ_COST_DECODE && !drafted;
    if (plain && cost->since_plain && (p == 0 || known)) split_again(cost, p, off);
    /* A point that nothing is known of says nothing about the machine. */
    if (is_level || known) cost->level *= exp(off * (is_level ? LEVEL_RATE : 0.3 * LEVEL_RATE));
    const double rate = known ? SHAPE_RATE : 1.0 / (cost->seen[kind][p] + 1);
    move_shape(cost, kind, p, is_level ? 1 : exp(off * rate));
    if (kind == MQ_COST_DECODE) cost->since_plain = drafted ? cost->since_plain + 1 : 0;
    cost->recent[kind][p] = true;
    if (!plain) return;
    memset(cost->recent, 0, sizeof cost->recent);
    age_shapes(cost, p);
}

bool mq__cost_wants_plain(const mq_step_cost *cost)
{
    return cost->level == 0 || cost->since_plain >= PLAIN_EVERY;
}

uint32_t mq__cost_worth(const mq_step_cost *cost, uint32_t rows, double *expected, const double *chance, uint32_t count)
{
    const double without = *expected / mq__cost_of(cost, MQ_COST_DECODE, rows);
    double best = without * GAIN_LEAST, sum = *expected, gained = *expected;
    uint32_t worth = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += chance[i];
        const double rate = sum / mq__cost_of(cost, MQ_COST_DECODE, rows + i + 1);
        if (rate <= best) continue;
        best = rate;
        worth = i + 1;
        gained = sum;
    }
    *expected = gained;
    return worth;
}
