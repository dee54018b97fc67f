/* The shapes that synth knows: published ones, and tiny ones with awkward widths for tests. */
#ifndef MQ_SYNTH_SHAPES_H
#define MQ_SYNTH_SHAPES_H

#include "format/model_config.h"
#include "mixquant_tools.h"

#include <jansson.h>

typedef struct mq_synth_shape {
    const char *name;
    mq_architecture architecture;
    uint32_t layers, width, ffn, heads, kv_heads, head_dim, vocab, max_positions; /* L D F H G K V */
    bool tied;
    double theta, eps;
    double llama3_factor;                            /* 0: no llama3 rope scaling */
    double yarn_factor;                              /* 0: no YaRN */
    uint32_t experts, experts_per_token, expert_ffn; /* E, how many a token takes, M; 0: a dense MLP */
    uint32_t attention_interval; /* every so manieth layer attends, the others are Gated DeltaNet; 0: all do */
    mq_delta_sizes delta;
} mq_synth_shape;

const mq_synth_shape *mq__synth_shape_at(size_t i);           /* NULL past the last */
const mq_synth_shape *mq__synth_shape_find(const char *name); /* NULL: none of that name */

/* The byte tokenizer of every synthetic model: token b is byte b, and these follow. */
enum { MQ_SYNTH_END_OF_TEXT = 256, MQ_SYNTH_IM_START = 257, MQ_SYNTH_IM_END = 258, MQ_SYNTH_TOKENS = 259 };

/* New references, NULL when memory is short. */
json_t *mq__synth_config(const mq_synth_shape *shape, uint32_t layers);
json_t *mq__synth_generation_config(void);
json_t *mq__synth_tokenizer(void);
json_t *mq__synth_tokenizer_config(const mq_synth_shape *shape);

#endif
