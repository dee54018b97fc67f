/* What a checkpoint holds beside what config.json asks for. Reading takes the tensors that it knows; a tensor that nobody
 * reads may mean another model than the one that config.json describes, and its answers would be wrong without a sign. */
#include "base/error.h"
#include "engine/weights.h"

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

/* Whether this model has such a tensor. Outside "model." and "lm_head." other programs keep what is theirs. */
static bool is_expected(const mq_model_config *c, const char *name)
{
    const mq_family *family = mq__family_of(c->architecture);
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
                                  mq_unused *unused, mq_error *error)
{
    for (size_t s = 0; s < mq__checkpoint_shards(checkpoint); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(checkpoint, s);
        for (size_t i = 0; i < shard->count; i++) {
            const char *name = shard->tensors[i].name;
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
