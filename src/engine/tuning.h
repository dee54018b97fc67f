/* Which kernels are the fastest on this machine: measured once, in a fraction of a second, and kept. */
#ifndef MQ_TUNING_H
#define MQ_TUNING_H

#include "kernels/kernels.h"
#include "mixquant_tools.h"

/* Seconds of equal pieces of work; 0: not measured. */
typedef struct mq_tuning {
    double variant[MQ_OPERATIONS][MQ_VARIANTS_MOST];
    bool has_formats; /* the two below are there */
    double linear[MQ_LINEAR_FORMATS];
    /* A tile of MQ_ATTENTION_TILE rows that sees its own positions only, and one that sees MQ_TRIAL_EARLIER more. */
    double attention[MQ_ATTENTION_FORMATS][2];
} mq_tuning;

/* The level's, from the cache folder (NULL: the usual one) or measured: of variants, and of formats if they are wanted. A file that
 * is damaged, or of another processor, level or version, is as none. Once a process. */
mq_status mq__tuning_get(mq_isa isa, const char *cache_dir, bool formats, mq_tuning *tuning, mq_error *error);
/* The process remembers nothing: for tests. */
void mq__tuning_forget(void);
/* As mq__tuning_get, without what the process remembers. */
mq_status mq__tuning_read(mq_isa isa, const char *cache_dir, bool formats, mq_tuning *tuning, mq_error *error);

/* Which variant of each operation to use: the fastest, or what MQ_VARIANTS asks for ("dense_thin=plain,nvfp4_gemm=vnni").
 * pinned: these, which need no measuring. MQ_USAGE: MQ_VARIANTS has another form. */
typedef struct mq_winners {
    size_t variant[MQ_OPERATIONS];
    bool pinned[MQ_OPERATIONS];
} mq_winners;

mq_status mq__winners_of(const mq_kernels *level, const mq_tuning *tuning, mq_winners *winners, mq_error *error);

/* The table of a level with its winners in their slots. */
mq_status mq__tuned_kernels(mq_isa isa, const char *cache_dir, mq_kernels *table, mq_error *error);

/* Where the file of a level is; owned, NULL: nowhere. */
char *mq__tuning_path(mq_isa isa, const char *cache_dir);

#endif
