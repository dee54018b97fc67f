#include "sched/draft.h"

#include <math.h>

#define DECAY         0.98  /* of what earlier steps say */
#define LEARN         0.05  /* weight of one drafted token */
#define RECOVER       0.002 /* a class that does not pay is tried again after some hundred chances */
#define SLOPE_UNKNOWN 0.06  /* of a step of one row: while all steps had equally many rows */

void mq__draft_init(mq_draft_model *model)
{
    *model = (mq_draft_model){.right = {0.4, 0.5, 0.6, 0.75, 0.85}};
}

static int class_of(uint32_t length)
{
    return length < 4 ? 0 : length < 6 ? 1 : length < 10 ? 2 : length < 20 ? 3 : 4;
}

/* Seconds that a row adds to a step, over those of the step without it. */
static double row_share(const mq_draft_model *m, double rows)
{
    if (m->weight < 1) return SLOPE_UNKNOWN;
    const double mean_rows = m->rows / m->weight, mean = m->seconds / m->weight;
    const double variance = m->rows_rows / m->weight - mean_rows * mean_rows;
    const double covariance = m->rows_seconds / m->weight - mean_rows * mean;
    double slope = variance > 0.05 ? covariance / variance : SLOPE_UNKNOWN * mean;
    slope = fmin(fmax(slope, 0), mean / mean_rows); /* what is measured is noisy */
    const double step = mean + slope * (rows - mean_rows);
    return step > 0 ? slope / step : SLOPE_UNKNOWN;
}

uint32_t mq__draft_tokens(mq_draft_model *model, uint32_t length, uint32_t rows, uint32_t most)
{
    double *right = &model->right[class_of(length)];
    double chance = 1;
    uint32_t count = 0;
    if (most > MQ_DRAFT_MOST) most = MQ_DRAFT_MOST;
    while (count < most) {
        chance *= *right;
        const double in_step = rows + count;
        if (chance <= row_share(model, in_step) * in_step) break;
        count++;
    }
    if (count == 0) *right += RECOVER * (0.5 - *right);
    return count;
}

void mq__draft_verified(mq_draft_model *model, uint32_t length, uint32_t drafted, uint32_t right)
{
    double *share = &model->right[class_of(length)];
    for (uint32_t i = 0; i < drafted && i <= right; i++) {
        *share += LEARN * ((i < right ? 1.0 : 0.0) - *share);
    }
}

void mq__draft_stepped(mq_draft_model *m, uint32_t rows, double seconds)
{
    const double r = rows;
    m->weight = DECAY * m->weight + 1;
    m->rows = DECAY * m->rows + r;
    m->seconds = DECAY * m->seconds + seconds;
    m->rows_rows = DECAY * m->rows_rows + r * r;
    m->rows_seconds = DECAY * m->rows_seconds + r * seconds;
}
