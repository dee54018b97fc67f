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

/* ---- NVFP4 checkpoints */

typedef enum mq_checkpoint_layout {
    MQ_LAYOUT_COMPRESSED_TENSORS, /* stores divisors */
    MQ_LAYOUT_MODELOPT,           /* stores multipliers */
    MQ_LAYOUTS
} mq_checkpoint_layout;

MQ_API const char *mq_checkpoint_layout_name(mq_checkpoint_layout layout); /* "compressed-tensors", "modelopt" */
MQ_API mq_status mq_checkpoint_layout_parse(const char *name, mq_checkpoint_layout *layout, mq_error *error);

typedef struct mq_quantize_options {
    const char *in_dir;  /* a BF16, F16 or F32 checkpoint */
    const char *out_dir; /* must not exist, or be empty */
    mq_checkpoint_layout layout;
    mq_scale_rule scales;
    const char *ignore; /* NULL, or a regular expression (PCRE2) that is matched from the start of a module's name, as
                           "model.layers.0.self_attn.q_proj"; q, k and v (gate and up) can only be left out together */
    int threads;        /* 0: one per available processor */
    /* Called before each linear layer; return false to cancel. NULL: none. */
    bool (*progress)(void *context, uint32_t done, uint32_t total);
    void *context;
} mq_quantize_options;

/* Writes the linear layers of the transformer as NVFP4 and copies everything else: weights, tokenizer, templates. Layers
 * whose input width is no multiple of 16 stay as they are. The result is labelled weight-only (W4A16): a static
 * activation scale needs calibration data, and a made-up one would clip; this library scales activations itself, token
 * by token, and runs such a checkpoint as W4A4. On failure nothing stays of out_dir. */
MQ_API mq_status mq_quantize_checkpoint(const mq_quantize_options *options, mq_error *error);

/* ---- what is in a checkpoint */

/* Architecture, tensors, formats, what each phase would use, and what it takes in memory; as lines for people or as one
 * JSON object. Checks the checkpoint as opening it does. *text is owned by the caller: mq_free. */
MQ_API mq_status mq_inspect(const char *model_dir, bool json, char **text, mq_error *error);

#endif
