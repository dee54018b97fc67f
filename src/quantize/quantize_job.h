/* A quantisation in progress: what its parts (the tensors, the choice of modules, their codes) share. Internal to src/engine. */
#ifndef MQ_QUANTIZE_JOB_H
#define MQ_QUANTIZE_JOB_H

#include "format/checkpoint_write.h"
#include "format/nvfp4.h"
#include "mixquant_tools.h"
#include "quantize/smoothquant.h"

typedef struct mq_group_scale {
    bool known;
    mq_nvfp4_scale scale;
} mq_group_scale;

typedef struct mq_quantize_job {
    const mq_quantize_options *options;
    mq_weights *weights;
    mq_pool *pool;
    mq_nvfp4_rule rule;
    bool *quantised;         /* [modules] of the weights */
    mq_group_scale *scale;   /* [modules] of the first of each fused group */
    mq_calib *calib;         /* NULL: nothing needs it */
    mq_smoothing *smoothing; /* NULL: none */
    mq_tensor_spec *specs;
    char (*names)[MQ_STORED_NAME_BYTES]; /* of the specs that the input does not name */
    size_t spec_count, name_count;
    uint8_t *nibbles, *scales; /* of the largest matrix */
    float **rows;              /* [threads] weights as FP32: MQ_GPTQ_ROWS of the widest matrix */
    void **scratch;            /* [threads] of GPTQ */
    float *factor;             /* of the second moments of the fused group that begins at factor_group */
    size_t factor_group;
    json_t *ignored;
    mq_checkpoint_writer writer;
    uint32_t done, total; /* quantised modules */
} mq_quantize_job;

/* ---- quantize_modules.c: modules are numbered as in the weights */

/* Sets quantised, total and ignored. */
mq_status mq__quantize_choose(mq_quantize_job *job, mq_error *error);

/* ---- quantize_weights.c */

/* The codes and block scales of a module, into nibbles and scales, and the tensor scale that it shares with its group. */
mq_status mq__quantize_weights(mq_quantize_job *job, size_t module, mq_nvfp4_scale *scale, mq_error *error);
void mq__quantize_weights_free(mq_quantize_job *job); /* what the call above keeps in the job */

#endif
