/* A drafter's insides, for drafter.c and draft_rounds.c. */
#ifndef MQ_DRAFTER_IMPL_H
#define MQ_DRAFTER_IMPL_H

#include "engine/draft.h"
#include "gen/drafter.h"
#include "gen/history.h"
#include "gen/step_cost.h"

/* An answer in the rounds of draft steps. */
typedef struct mq_round_answer {
    mq_draft_answer *answer;
    mq_constraint *ahead; /* NULL: none */
    bool active;
    double chance; /* that all of its draft so far is right */
    int32_t drawn;
    double confidence;
    mq_status status;
} mq_round_answer;

struct mq_drafter {
    mq_engine *engine;
    mq_draft kind;
    bool models;     /* the NVFP4 copy proposes */
    uint32_t forced; /* of tests: so many tokens are drafted, whether that pays or not; 0: as it pays */
    mq_odds odds;
    mq_step_cost cost;
    mq_history *history; /* NULL: no texts are looked at */
    double agreement;    /* share of the model's tokens that were right, of late */
    mq_round_answer round[MQ_DECODE_ROWS];
    uint32_t rounds; /* of `round`: answers that wait for draft steps */
    mq_rows rows[MQ_DECODE_ROWS];
    mq_round_answer *drawing[MQ_DECODE_ROWS]; /* whose each of these rows is */
    uint32_t row_count;
};

/* The rate, in tokens a second, that draft steps for `count` answers of a decode step with `rows` rows and `expected` tokens promise; 0:
 * they do not pay. */
double mq__rounds_rate(const mq_drafter *drafter, uint32_t count, uint32_t rows, double expected);
/* Whether the model may draft an answer, and takes it in. */
bool mq__rounds_add(mq_drafter *drafter, mq_draft_answer *answer);
/* Draft steps for all that were added, as long as they pay; a->draft is filled. */
void mq__rounds_run(mq_drafter *drafter, uint32_t rows, double expected);

#endif
