/* Counters of answers by API and status, and how long they took. The server owns them; answering.c counts, metrics.c prints. */
#ifndef MQ_METRICS_H
#define MQ_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MQ_COUNTED_APIS = 8,      /* chat, completions, responses, messages, and those to come */
    MQ_COUNTED_STATUSES = 12, /* HTTP statuses that answers have had; 499: the client left */
    MQ_TIME_BUCKETS = 16
};

/* A histogram of seconds. */
typedef struct mq_times {
    atomic_uint_least64_t buckets[MQ_TIME_BUCKETS + 1]; /* the last: beyond all bounds */
    atomic_uint_least64_t count, micros;
} mq_times;

/* All zero at first. */
typedef struct mq_counts {
    atomic_uint_least64_t answers[MQ_COUNTED_APIS][MQ_COUNTED_STATUSES];
    atomic_uint_least64_t finished[3]; /* stop, length, tool_calls */
    mq_times first_token, whole;
} mq_counts;

/* Any thread. */
void mq__count_answer(mq_counts *counts, const char *api, unsigned status);
void mq__count_finish(mq_counts *counts, const char *finish);
void mq__count_time(mq_times *times, double seconds);

#endif
