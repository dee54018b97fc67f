/* What drafts ask of an answer in the making. */
#ifndef MQ_GENERATION_H
#define MQ_GENERATION_H

#include "mixquant.h"

/* Whether the answer ends with this token. */
bool mq__generation_is_end(const mq_generation *generation, int32_t token);

#endif
