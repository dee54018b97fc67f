/* Fingerprints of what keys and values depend on. Internal to src/engine. */
#ifndef MQ_FINGERPRINT_H
#define MQ_FINGERPRINT_H

#include "format/packfile.h"

typedef struct mq_fingerprint {
    mq_digest weights; /* all bytes of the checkpoint's files and config.json, and of the prefill checkpoint's files */
    mq_digest plan;    /* formats of both phases, and how NVFP4 weights are made */
    mq_digest tokenizer, rope, layout;
} mq_fingerprint;

/* The weights are read once an engine, at the first call: about a second for 8 GB that are in memory. */
mq_status mq__fingerprint(mq_engine *engine, const mq_plan *plan, mq_fingerprint *fingerprint, mq_error *error);
/* The same for KV that is kept, as images and on disk: its `plan` also says in which way of several this engine attends in INT8, which
 * changes bits. Workers that exchange KV go without: their processors may differ (docs/DISAGGREGATION.md, Limits). */
mq_status mq__fingerprint_kept(mq_engine *engine, const mq_plan *plan, mq_fingerprint *fingerprint, mq_error *error);

#endif
