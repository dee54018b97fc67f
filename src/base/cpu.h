/* What this processor can do, and which kernel level to use. */
#ifndef MQ_BASE_CPU_H
#define MQ_BASE_CPU_H

#include "mixquant.h"

#include <sched.h>
#include <sys/types.h>

/* Levels of the kernel table on this architecture, each a superset of the one before. */
typedef enum mq_isa {
    MQ_ISA_REF, /* plain C, any machine */
#if defined(__aarch64__)
    MQ_ISA_NEON,     /* what every 64-bit ARM has */
    MQ_ISA_NEONDOT,  /* and the 8-bit dot products (FEAT_DotProd) */
    MQ_ISA_NEONI8MM, /* and the products of 8-bit and of BF16 matrices (FEAT_I8MM, FEAT_BF16) */
#else
    MQ_ISA_AVX2,       /* AVX2 + FMA + F16C + BMI2 */
    MQ_ISA_AVX512VNNI, /* AVX-512 F/BW/DQ/VL/VNNI */
    MQ_ISA_AVX512BF16, /* and AVX512_BF16 */
    MQ_ISA_AMX,        /* and AMX: tiles of BF16 and of bytes */
#endif
    MQ_ISA_COUNT
} mq_isa;

const char *
mq__isa_name(mq_isa isa); /* "ref", "avx2", "avx512vnni", "avx512bf16", "amx"; "neon", "neondot", "neoni8mm" */

/* The best level that this processor and its operating system support. The first call asks Linux for AMX on behalf of the process, which
 * cannot be undone: alternate signal stacks must have room for its registers from then on. */
mq_isa mq__cpu_best_isa(void);

/* AVX-VNNI, the VEX encoding of vpdpbusd. Not a level: processors with AVX-512 VNNI may lack it. The AVX2 level uses it. */
bool mq__cpu_avx_vnni(void);

/* The level to use: the best one, lowered by the environment variable MQ_ISA=<name>. A name above what the machine has
 * is clamped to what it has; "<name>!" demands the level and fails with MQ_UNSUPPORTED without it; an unknown name is
 * MQ_USAGE. */
mq_status mq__cpu_choose_isa(mq_isa *isa, mq_error *error);

typedef struct mq_cpu_info {
    char name[96];
    size_t l1d_bytes, l2_bytes, l3_bytes; /* of one cache; 0 when unknown */
    int online;                           /* logical processors this process may run on */
    int threads;                          /* that they can run at once: `online`, bounded by the container's quota */
    int nodes;                            /* memory nodes that they belong to; 1 when unknown */
} mq_cpu_info;

void mq__cpu_info(mq_cpu_info *info);

/* Threads for so many processors when the container (container.h) grants `quota` of them; 0: all. */
int mq__cpu_threads(int online, double quota);

/* The processors this process may run on, node by node; at most `room`. Returns how many. */
size_t mq__cpu_list(int *processors, size_t room);

/* A set of processors of whatever size the kernel uses: cpu_set_t ends at 1,024. */
typedef struct mq_cpu_set {
    cpu_set_t *set; /* owned, for CPU_..._S; NULL: unknown */
    size_t bytes;
} mq_cpu_set;

/* As sched_getaffinity: 0, or -1 with errno EINVAL when the set is too small. */
typedef int mq_affinity_fn(pid_t pid, size_t bytes, cpu_set_t *set);

/* The processors of this thread. get is sched_getaffinity, or what a test puts in its place. */
mq_cpu_set mq__cpu_set_get(mq_affinity_fn *get);
void mq__cpu_set_free(mq_cpu_set *set);

#endif
