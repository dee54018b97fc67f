/* What a checkpoint holds beside what config.json asks for. Reading takes the tensors that it knows; a tensor that nobody
 * reads may mean another model than the one that config.json describes, and its answers would be wrong without a sign. */
#include "base/error.h"
#include "base/halffloat.h"
#include "engine/weights.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The parts of a linear layer in all forms; static activation scales are not used. */
static bool is_linear_part(const char *rest)
{
    static const char *const parts[] = {
        ".weight",      ".weight_packed",     ".weight_scale", ".weight_scale_2", ".weight_global_scale",
        ".input_scale", ".input_global_scale"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strcmp(rest, parts[i]) == 0) return true;
    }
    return false;
}

static bool rule_expects(const mq_tensor_rule *rule, const mq_model_config *c, const char *name)
{
    mq_place place;
    const char *rest = mq__rule_match(rule, name, &place);
    if (!rest || !(rule->use == MQ_USE_LINEAR ? is_linear_part(rest) : *rest == '\0')) return false;
    const mq_rule_scope scope = mq__rule_scope(rule);
    if (scope != MQ_SCOPE_MODEL && place.layer >= c->layers) return false;
    if (scope == MQ_SCOPE_EXPERT && place.expert >= c->experts) return false;
    return rule->when == MQ_WHEN_OWN_HEAD || mq__rule_applies(rule, c, place.layer); /* a tied head may be stored */
}

const char *mq__first_expert_name(const char *name, char one[MQ_STORED_NAME_BYTES])
{
    static const char *const parts[][2] = {{".experts.gate_up_proj", "gate_proj"}, {".experts.down_proj", "down_proj"}};
    const size_t length = strlen(name), experts = strlen(".experts.");
    for (size_t i = 0; i < 2; i++) {
        const size_t end = strlen(parts[i][0]);
        if (length < end || strcmp(name + length - end, parts[i][0]) != 0) continue;
        snprintf(one, MQ_STORED_NAME_BYTES, "%.*s0.%s.weight", (int)(length - end + experts), name, parts[i][1]);
        return one;
    }
    return name;
}

/* What belongs to no text model: images, sound, and the head that guesses further tokens. In a checkpoint that names no text
 * model of its own, "model." is that model. */
static bool is_skipped(const mq_checkpoint *checkpoint, const char *name, mq_skipped *skipped)
{
    static const struct {
        const char *prefix;
        size_t count; /* of mq_skipped */
    } parts[] = {
        {"model.visual.", offsetof(mq_skipped, vision)},
        {"model.vision_tower.", offsetof(mq_skipped, vision)},
        {"model.embed_vision.", offsetof(mq_skipped, vision)},
        {"model.multi_modal_projector.", offsetof(mq_skipped, vision)},
        {"visual.", offsetof(mq_skipped, vision)},
        {"vision_tower.", offsetof(mq_skipped, vision)},
        {"multi_modal_projector.", offsetof(mq_skipped, vision)},
        {"model.audio_tower.", offsetof(mq_skipped, audio)},
        {"model.embed_audio.", offsetof(mq_skipped, audio)},
        {"mtp.", offsetof(mq_skipped, mtp)},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (strncmp(name, parts[i].prefix, strlen(parts[i].prefix)) != 0) continue;
        if (!mq__checkpoint_is_nested(checkpoint) && parts[i].count != offsetof(mq_skipped, mtp)) continue;
        ++*(size_t *)(void *)((char *)skipped + parts[i].count);
        return true;
    }
    return false;
}

/* Whether this model has such a tensor. Outside "model." and "lm_head." other programs keep what is theirs. */
static bool is_expected(const mq_model_config *c, const char *name)
{
    const mq_family *family = mq__family_of(c->architecture);
    char one[MQ_STORED_NAME_BYTES];
    name = mq__first_expert_name(name, one);
    if (strncmp(name, "model.", 6) != 0 && strncmp(name, "lm_head.", 8) != 0) return true;
    for (size_t i = 0; i < family->count; i++) {
        if (rule_expects(&family->rules[i], c, name)) return true;
    }
    return false;
}

/* A tied head may be stored as well; then it has to be the embedding. 4096 places of 8 bytes tell, without reading all. */
static bool head_is_embedding(const mq_checkpoint *checkpoint)
{
    const mq_tensor *head = mq__checkpoint_find(checkpoint, "lm_head.weight");
    const mq_tensor *embedding = mq__checkpoint_find(checkpoint, "model.embed_tokens.weight");
    if (!head || !embedding) return true;
    if (head->dtype != embedding->dtype || head->bytes != embedding->bytes) return false;
    const size_t step = head->bytes / 4096 > 8 ? head->bytes / 4096 : 8;
    for (size_t at = 0; at + 8 <= head->bytes; at += step) {
        if (memcmp(head->data + at, embedding->data + at, 8) != 0) return false;
    }
    return true;
}

mq_status mq__weights_check_names(const mq_checkpoint *checkpoint, const mq_model_config *c, mq_copy copy,
                                  mq_unused *unused, mq_skipped *skipped, mq_error *error)
{
    char plain_name[MQ_STORED_NAME_BYTES];
    for (size_t s = 0; s < mq__checkpoint_shards(checkpoint); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(checkpoint, s);
        for (size_t i = 0; i < shard->count; i++) {
            if (is_skipped(checkpoint, shard->tensors[i].name, skipped)) continue;
            const char *name = mq__checkpoint_text_name(checkpoint, shard->tensors[i].name, plain_name);
            if (mq__weights_note_unused(c, copy, name, unused) || is_expected(c, name)) continue;
            return mq__fail(error, MQ_FORMAT, "checkpoint: %s: expected no tensor %.128s in a %s of %u layers, got one",
                            mq__checkpoint_dir(checkpoint), name, mq__architecture_name(c->architecture), c->layers);
        }
    }
    if (copy == MQ_COPY_NVFP4 || !c->tied_head || head_is_embedding(checkpoint)) return MQ_OK;
    return mq__fail(
        error, MQ_FORMAT,
        "checkpoint: tensor lm_head.weight: expected the embedding (tie_word_embeddings), got another matrix");
}

static float value_at(const mq_tensor *t, size_t i)
{
    uint16_t half = 0;
    float value = 0;
    if (t->dtype == MQ_DTYPE_F32)
        memcpy(&value, t->data + 4 * i, 4);
    else
        memcpy(&half, t->data + 2 * i, 2);
    if (t->dtype == MQ_DTYPE_BF16) value = mq__bf16_to_f32(half);
    if (t->dtype == MQ_DTYPE_F16) value = mq__f16_to_f32(half);
    return value;
}

static bool has_float_values(const mq_tensor *t)
{
    return t->dtype == MQ_DTYPE_BF16 || t->dtype == MQ_DTYPE_F16 || t->dtype == MQ_DTYPE_F32;
}

mq_status mq__weights_check_origin(const mq_checkpoint *dense, const mq_checkpoint *second, mq_error *error)
{
    static const char name[] = "model.embed_tokens.weight";
    const mq_tensor *a = mq__checkpoint_find(dense, name), *b = mq__checkpoint_find(second, name);
    if (!a || !b || !has_float_values(a) || !has_float_values(b) || a->rank != 2 || b->rank != 2) return MQ_OK;
    if (a->shape[0] != b->shape[0] || a->shape[1] != b->shape[1]) return MQ_OK;
    const size_t rows = a->shape[0], width = a->shape[1], step = rows / 64 > 1 ? rows / 64 : 1;
    double difference = 0, size = 0;
    for (size_t row = 0; row < rows; row += step) {
        for (size_t i = row * width; i < (row + 1) * width; i++) {
            const double x = (double)value_at(a, i), d = x - (double)value_at(b, i);
            size += x * x;
            difference += d * d;
        }
    }
    if (!(difference > size / 4)) return MQ_OK;
    return mq__fail(error, MQ_FORMAT,
                    "prefill model: %s: expected weights made from those of the model, got another %s (of another "
                    "model, or rotated)",
                    mq__checkpoint_dir(second), name);
}
