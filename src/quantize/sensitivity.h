/* How much each linear group loses by each prefill format, and which groups are worth a slower one. Internal to src/engine. */
#ifndef MQ_SENSITIVITY_H
#define MQ_SENSITIVITY_H

#include "mixquant_tools.h"

/* The formats in question, from the fastest in memory to the most precise. */
enum { MQ_RUNG_NVFP4, MQ_RUNG_INT8, MQ_RUNG_BF16, MQ_RUNGS };

typedef struct mq_sensitivity {
    uint32_t layers;
    double (*divergence)[MQ_GROUPS][MQ_RUNGS]; /* [L] nats a token of the answer; BF16: 0 */
    double seconds[MQ_GROUPS][MQ_RUNGS];       /* of one layer's group */
    double prefill_seconds;                    /* of a whole pass in NVFP4, attention and all */
} mq_sensitivity;

/* The greedy choice: from all NVFP4, the change with the most divergence saved per second that still fits the budget, until
 * none does. Changes that cost no time come first. Divergences are taken to add up. choice: [L] of rungs. */
void mq__sensitivity_choose(const mq_sensitivity *measured, double budget, uint8_t (*choice)[MQ_GROUPS]);

#endif
