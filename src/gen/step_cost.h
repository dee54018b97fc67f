/* What decode steps and draft steps take, by their rows, learnt from the steps themselves; and how many drafted rows pay.
 *
 * A step's time is a level (how fast the machine is now, how long the texts are) times a shape (how many times as long as a decode step
 * of one row). The level follows each step, the shape follows slowly: machines change their speed from minute to minute, and what
 * a row more costs in comparison stays. */
#ifndef MQ_STEP_COST_H
#define MQ_STEP_COST_H

#include <stdbool.h>
#include <stdint.h>

enum { MQ_COST_POINTS = 20, MQ_COST_ROWS = 64 };

typedef enum mq_cost_kind { MQ_COST_DECODE, MQ_COST_DRAFT, MQ_COST_KINDS } mq_cost_kind;

typedef struct mq_step_cost {
    double level;                                /* seconds of a decode step of one row; 0: no step has been */
    double shape[MQ_COST_KINDS][MQ_COST_POINTS]; /* by rows, at some numbers of them */
    uint8_t seen[MQ_COST_KINDS][MQ_COST_POINTS]; /* steps, up to a bound */
    uint32_t since_plain;                        /* decode steps with drafts since the last one without */
    bool recent[MQ_COST_KINDS][MQ_COST_POINTS];  /* such a number of rows has been since then */
} mq_step_cost;

void mq__cost_init(mq_step_cost *cost);
/* A step of so many rows took so long. drafted: some of them were drafts. */
void mq__cost_learn(mq_step_cost *cost, mq_cost_kind kind, uint32_t rows, bool drafted, double seconds);
/* Of a decode step of one row. */
double mq__cost_of(const mq_step_cost *cost, mq_cost_kind kind, uint32_t rows);
/* Whether the next step should be without drafts, so that it is known what that takes. */
bool mq__cost_wants_plain(const mq_step_cost *cost);

/* How many of `count` drafted tokens to verify in a step that has `rows` rows and brings `expected` tokens without them: as many as
 * bring the most tokens a second. chance[i]: that the first i + 1 of them are right. Adds what they bring to *expected. */
uint32_t mq__cost_worth(const mq_step_cost *cost, uint32_t rows, double *expected, const double *chance,
                        uint32_t count);

#endif
