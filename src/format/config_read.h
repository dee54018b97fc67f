/* Parts of reading a checkpoint's configuration, one file each. Internal to src/format. */
#ifndef MQ_CONFIG_READ_H
#define MQ_CONFIG_READ_H

#include "base/json_read.h"
#include "format/model_config.h"

/* An integer in [low, high]; fallback < 0: it must be there. */
mq_status mq__config_u32(const json_t *root, const char *name, int64_t low, int64_t high, int64_t fallback,
                         uint32_t *value, mq_error *error);

/* The kinds of layers from layer_types, if it is there; `allowed` has a bit for each mq_mixer_kind that the family has. */
mq_status mq__config_layer_types(const json_t *root, unsigned allowed, mq_model_config *config, mq_error *error);

/* The number of experts of a layer; fallback < 0: it must be there. */
mq_status mq__config_experts(const json_t *root, int64_t fallback, uint32_t *experts, mq_error *error);

/* A factor that is only supported where it does nothing. */
mq_status mq__config_expect_one(const json_t *object, const char *name, mq_error *error);

/* ---- gemma_config.c: what these families have of their own, the rotary settings with it */

mq_status mq__config_gemma3(const json_t *root, mq_model_config *config, mq_error *error);
mq_status mq__config_gemma4(const json_t *root, mq_model_config *config, mq_error *error);

/* ---- qwen3_5_config.c */

mq_status mq__qwen3_5_config_read(const json_t *root, mq_model_config *config, mq_error *error);
mq_status mq__qwen3_5_moe_config_read(const json_t *root, mq_model_config *config, mq_error *error);

/* ---- rope_config.c */

/* Reads the rotary settings; theta: where they name none; *positions is max_position_embeddings, and then what the scaling makes of
 * it. */
mq_status mq__rope_config_read(const json_t *root, double theta, mq_rope_config *rope, uint32_t *positions,
                               mq_error *error);

/* ---- generation_config.c */

/* What generation_config.json suggests for sampling; fields that it does not name are left alone. */
mq_status mq__sampling_suggested(const json_t *root, mq_sampling *sampling, unsigned *fields, mq_error *error);

/* ---- tokenizer_eos.c */

/* The id of eos_token in tokenizer_config.json; -1 when the file or the token is not there. */
mq_status mq__tokenizer_eos(const char *dir, int64_t *id, mq_error *error);

#endif
