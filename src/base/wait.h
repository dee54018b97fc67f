/* Waiting for a condition, by a clock that nobody sets. */
#ifndef MQ_BASE_WAIT_H
#define MQ_BASE_WAIT_H

#include <pthread.h>
#include <stdbool.h>

/* A condition whose waits end by mq__seconds. False: no memory. */
bool mq__cond_init(pthread_cond_t *cond);
/* With the lock. False: it is `until`. */
bool mq__cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, double until);

#endif
