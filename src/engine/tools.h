/* Tools around checkpoints: making random ones, quantising, inspecting. */
#ifndef MQ_TOOLS_H
#define MQ_TOOLS_H

#include "mixquant.h"

/* ---- random weights of a published shape, to benchmark without downloading */

typedef struct mq_synth_options {
    const char *shape;   /* one of mq_synth_shape_name: "qwen3-0.6b" */
    uint32_t layers;     /* 0: all of the shape's; else the first `layers` */
    uint64_t seed;       /* equal seeds give equal bytes; a cut model has the first layers of the whole one */
    const char *out_dir; /* must not exist, or be empty */
} mq_synth_options;

/* Writes a BF16 checkpoint in HF form: config, weights, and a tokenizer of the 256 bytes. On failure nothing stays. */
MQ_API mq_status mq_synth_checkpoint(const mq_synth_options *options, mq_error *error);

MQ_API const char *mq_synth_shape_name(size_t i); /* NULL past the last */

/* The same with seed 1, made once: <cache_dir>/synth/<shape>[-L<layers>]. cache_dir NULL: $XDG_CACHE_HOME/mixquant or
 * ~/.cache/mixquant. *dir is owned by the caller: mq_free. */
MQ_API mq_status mq_synth_cached(const char *shape, uint32_t layers, const char *cache_dir, char **dir,
                                 mq_error *error);

#endif
