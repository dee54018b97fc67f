/* What the control groups of a container leave to this process. */
#ifndef MQ_BASE_CONTAINER_H
#define MQ_BASE_CONTAINER_H

#include <stdint.h>

typedef struct mq_container {
    double processors;    /* processor time per time, as 1.5 (cpu.max, cpu.cfs_quota_us); 0: no limit */
    uint64_t memory;      /* bytes (memory.max, memory.limit_in_bytes); 0: no limit */
    uint64_t memory_used; /* of the group with the tightest limit, without file pages that can be dropped */
} mq_container;

/* Reads the limits of this process's groups and of all groups above them, version 1 or 2. root is put before the paths
 * of /proc and /sys: "" for this machine's, a folder with copies of them in tests. */
void mq__container_limits(const char *root, mq_container *limits);

#endif
