/* Whether handing a prompt off pays. Pure arithmetic. */
#ifndef MQ_PAYS_H
#define MQ_PAYS_H

#include "mixquant_serve.h"

typedef struct mq_pays_facts {
    uint32_t least;               /* 0, or tokens from which it always pays */
    uint32_t wanted;              /* tokens whose KV is wanted */
    uint32_t computes;            /* tokens that the peer must compute for that: it may have more cached, or less */
    uint64_t unread, peer_unread; /* tokens that wait here, and there */
    double rate, peer_rate;       /* prompt tokens a second; 0: not measured */
    uint64_t bytes;               /* of the wanted KV */
    double link_rate, round_trip; /* bytes a second (0: not measured), seconds */
    uint32_t answers;             /* that run here and would be slowed */
} mq_pays_facts;

typedef struct mq_pays_times {
    double local, remote; /* seconds until the prompt is read; guesses where nothing was measured */
} mq_pays_times;

mq_pays_times mq__pays_times(const mq_pays_facts *facts);
bool mq__pays(const mq_pays_facts *facts);
/* Under way, of what is still missing: whether it goes on. */
bool mq__pays_still(const mq_pays_facts *facts);

/* Prompt tokens a second, as a scheduler measured them; 0: too few so far. */
double mq__prompt_rate(const mq_scheduler_stats *stats);

#endif
