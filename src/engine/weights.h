/* From checkpoint directories to a model: what is mapped, what is packed, and who owns it. Internal to src/engine. */
#ifndef MQ_WEIGHTS_H
#define MQ_WEIGHTS_H

#include "base/pool.h"
#include "format/checkpoint.h"
#include "format/model_config.h"
#include "format/nvfp4.h"
#include "format/packfile.h"
#include "model/family.h"

/* A linear layer as a checkpoint holds it: dense, FP8 (already multiplied out, as dense F32), or NVFP4 in canonical form
 * (compressed-tensors or ModelOpt). */
typedef struct mq_linear_source {
    mq_dense dense;                  /* data NULL: none */
    const uint8_t *nibbles, *scales; /* [n, k/2], [n, k/16]; NULL: none */
    float multiplier;
    bool is_fp8;
} mq_linear_source;

/* A linear layer of the model: what plans give a format to. In the order of the family's list, so that those that are multiplied
 * together (q, k, v; gate and up of an MLP or of one expert) follow each other: a fused group. */
typedef struct mq_module {
    mq_linear *linear;
    const mq_tensor_rule *rule;
    mq_place place;
    size_t fused;            /* the first module of its fused group */
    mq_linear_source source; /* what its NVFP4 face is made from */
    bool is_fp8;             /* the precise weights are FP8's values */
} mq_module;

/* Weights on their way from a file map to memory of large pages. */
typedef struct mq_settling {
    uint8_t *block; /* owned, for all of them; NULL: they stay */
    bool experts;   /* experts, too */
    size_t next;    /* linear layers before it have been moved */
    size_t copied;  /* bytes of the next one */
    size_t used;    /* bytes of the block */
} mq_settling;

/* What is packed of one face. */
typedef struct mq_packed_face {
    mq_packfile file; /* mapped, when the panels come from the cache */
    uint8_t **panels; /* [modules] owned ones otherwise */
    uint8_t **placed; /* [modules, and the head's if dense] copies near the threads that read them, or NULL */
    mq_settling settling;
    bool is_ready;
    uint64_t bytes;
} mq_packed_face;

/* Tensors of a checkpoint that this engine has no use for, though its author meant them to matter. */
typedef struct mq_unused {
    size_t count;
    char first[128]; /* the name of one */
} mq_unused;

/* Tensors of other models that a checkpoint of several brings: not read. */
typedef struct mq_skipped {
    size_t vision, audio, mtp; /* mtp: of a head that predicts more tokens at once */
} mq_skipped;

typedef struct mq_weights {
    mq_model model;
    mq_model_config config;
    mq_checkpoint *dense;  /* the precise copy */
    mq_checkpoint *second; /* a separate NVFP4 checkpoint for the prefill, or NULL */
    mq_module *module;     /* [modules] */
    size_t module_count;
    mq_mlp *experts;                     /* of all layers; NULL: none */
    bool (*packed_available)[MQ_GROUPS]; /* [L] groups that have (or can get) an NVFP4 face */
    mq_packed_face face[MQ_FACES];       /* of MQ_FACE_DENSE only `placed` and `settling` are used */
    uint8_t *head_panels;                /* owned: lm_head's NVFP4 face; NULL until a plan asks for it */
    float **vectors;                     /* owned norms, biases, frequencies and re-aligned tensors */
    size_t vector_count, vector_cap;
    const int32_t *eos;
    size_t eos_count;
    mq_unused unused[MQ_COPIES]; /* of `dense` and `second` */
    mq_skipped skipped[MQ_COPIES];
} mq_weights;

/* Maps and checks everything; second_dir may be NULL. */
mq_status mq__weights_open(const char *dir, const char *second_dir, mq_weights **weights, mq_error *error);
void mq__weights_close(mq_weights *weights);

/* The end of the fused group that begins at `first`. */
size_t mq__fused_end(const mq_weights *weights, size_t first);

/* The name of a module's tensor: suffix "", ".weight", ... */
static inline void mq__module_name(const mq_module *module, const char *suffix, char name[MQ_TENSOR_NAME_BYTES])
{
    mq__rule_name(module->rule, module->place, suffix, name);
}

/* The module whose tensor "<module>.weight" has this name, or module_count. */
size_t mq__module_find(const mq_weights *weights, const char *tensor);

/* Whether a module counts in what one token multiplies and reads. All experts are of one size: the first ones stand for those
 * that a token takes. */
bool mq__module_is_used(const mq_weights *weights, const mq_module *module);

/* Values of all tensors: weights, biases, norms. */
uint64_t mq__weights_parameters(const mq_weights *weights);

/* A new block that weights own; NULL when memory is short. */
float *mq__weights_own(mq_weights *weights, size_t bytes);

/* An FP32 copy of a BF16, F16 or F32 vector of the checkpoint; owned by weights. */
mq_status mq__weights_vector(mq_weights *weights, const mq_checkpoint *checkpoint, const char *name, size_t count,
                             const float **vector, mq_error *error);
/* The weights of a depthwise convolution, [columns][rows]; owned by weights. */
mq_status mq__weights_conv(mq_weights *weights, const mq_checkpoint *checkpoint, const char *name, uint32_t rows,
                           uint32_t columns, const float **conv, mq_error *error);
/* Of a tensor with all experts of a layer the name that the first one's weight would have, in `one`; others as they are. */
const char *mq__first_expert_name(const char *name, char one[MQ_STORED_NAME_BYTES]);
/* An expert's linear layer where a layer's experts lie in one tensor: gate and up [E, 2M, D], down [E, D, M]. *found is false
 * where they do not. */
mq_status mq__expert_source_read(mq_weights *weights, const mq_checkpoint *checkpoint, const mq_module *module,
                                 bool *found, mq_linear_source *source, mq_error *error);
/* The linear layer `prefix` of a checkpoint in whichever form it has. */
mq_status mq__linear_source_read(mq_weights *weights, const mq_checkpoint *checkpoint, const char *prefix, uint32_t n,
                                 uint32_t k_width, mq_linear_source *source, mq_error *error);
/* The dense matrix `name`. */
mq_status mq__dense_read(mq_weights *weights, const mq_checkpoint *checkpoint, const char *name, uint32_t n,
                         uint32_t k_width, mq_dense *dense, mq_error *error);

/* Refuses tensors of the model that config.json does not account for: they would be left out without a sign. Counts the
 * ones that may be left out with a line that says so: scales of quantised attention (the KV cache is BF16), and the head of
 * a checkpoint that is used for the prefill's linear layers only. */
mq_status mq__weights_check_names(const mq_checkpoint *checkpoint, const mq_model_config *config, mq_copy copy,
                                  mq_unused *unused, mq_skipped *skipped, mq_error *error);
/* Whether this is one of the latter; counts it then. */
bool mq__weights_note_unused(const mq_model_config *config, mq_copy copy, const char *name, mq_unused *unused);
/* The line; false when there is nothing to say. */
bool mq__weights_unused_text(const mq_weights *weights, mq_copy copy, char *line, size_t size);
/* Whether the second checkpoint is of the same model: its linear layers then read the embedding of the first. Fine-tuning moves an
 * embedding by a few percent; rotations and other models, by more than its size. */
mq_status mq__weights_check_origin(const mq_checkpoint *dense, const mq_checkpoint *second, mq_error *error);

/* ---- packing.c */

typedef struct mq_packing {
    mq_scale_rule rule;
    mq_pool *pool;
    const char *cache_dir; /* NULL: no cache */
    void (*log)(void *context, const char *line);
    void *log_context;
} mq_packing;

/* Gives every group that can have it one packed face, from the cache or made anew. A cache that cannot be written is only
 * logged. Does nothing the second time. */
mq_status mq__weights_pack(mq_weights *weights, mq_face face, const mq_packing *how, mq_error *error);

/* The same for lm_head's NVFP4 face, which no cache keeps: of the dense weights, at once on all threads. */
mq_status mq__weights_pack_head(mq_weights *weights, const mq_packing *how, mq_error *error);

mq_nvfp4_rule mq__nvfp4_rule_of(mq_scale_rule rule);

/* Whether linear layer `index` has a face or can get it. */
bool mq__weights_can_have(const mq_weights *weights, size_t index, mq_face face);

/* Bytes of the packed face of a linear layer. */
size_t mq__face_bytes(mq_face face, const mq_linear *linear);

/* Points the face of a linear layer at its panels; multiplier: the tensor scale, where the face has one. */
void mq__face_set(mq_linear *linear, mq_face face, const uint8_t *panels, float multiplier);

/* ---- placement.c */

/* Copies what the model reads of a face into memory near the threads that read it. Does nothing the second time. */
mq_status mq__weights_place(mq_weights *weights, mq_face face, mq_pool *pool, mq_error *error);

/* Bytes that a face's move to large pages would take, with experts or without them; 0 when it has begun. */
uint64_t mq__weights_settle_bytes(mq_weights *weights, mq_face face, bool experts);
/* Reserves memory of large pages for what the model reads of a face from a file map. Does nothing the second time, for weights
 * that are in such pages already, and where memory is short. */
void mq__weights_settle_begin(mq_weights *weights, mq_face face, bool experts);
/* Copies the next `bytes` of them there; true while some are left. Between passes only. */
bool mq__weights_settle(mq_weights *weights, mq_face face, mq_pool *pool, size_t bytes);

/* ---- packing_cache.c */

/* The cache file of a face and what its contents depend on. *path is NULL without a cache. */
typedef struct mq_pack_cache {
    char *path; /* owned: mq__free */
    mq_digest fingerprint;
} mq_pack_cache;

mq_pack_cache mq__pack_cache(const mq_weights *weights, mq_face face, const mq_packing *how);
/* Points the model at the sections of an intact, matching file; false when there is none. */
bool mq__pack_load(mq_weights *weights, mq_face face, const mq_packing *how, const mq_pack_cache *cache);
mq_status mq__pack_save(mq_weights *weights, mq_face face, const mq_packing *how, const mq_pack_cache *cache,
                        mq_error *error);

#endif
