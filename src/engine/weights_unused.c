/* Tensors that are left out with a line that says so: their author meant them to matter, and this engine computes the same
 * without them. */
#include "engine/weights.h"

#include <stdio.h>
#include <string.h>

/* Scales and zero points of quantised queries, keys, values, attention weights and outputs of linear layers, as
 * "self_attn.q_scale", "self_attn.prob_output_scale", "self_attn.k_proj.output_scale". What belongs to the weights or the
 * inputs of a linear layer is none of them. */
static bool is_activation_scale(const char *name)
{
    static const char *const whats[] = {"q",           "k",           "v",         "kv",        "attn",
                                        "prob",        "output",      "q_output",  "k_output",  "v_output",
                                        "prob_output", "attn_output", "qk_output", "pv_output", "kv_cache"};
    static const char *const kinds[] = {"_scale", "_zero_point", "_global_scale"};
    const char *part = strrchr(name, '.');
    if (!part || (strncmp(name, "self_attn.", 10) != 0 && strncmp(name, "mlp.", 4) != 0)) return false;
    part++;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (size_t i = 0; i < sizeof whats / sizeof whats[0]; i++) {
            const size_t length = strlen(whats[i]);
            if (strncmp(part, whats[i], length) == 0 && strcmp(part + length, kinds[k]) == 0) return true;
        }
    }
    return false;
}

/* May be left out of a layer that exists. */
static bool is_unused(const mq_model_config *c, mq_copy copy, const char *name)
{
    unsigned layer = 0;
    int used = 0;
    if (sscanf(name, "model.layers.%9u.%n", &layer, &used) == 1 && used > 0) {
        return layer < c->layers && is_activation_scale(name + used);
    }
    return copy == MQ_COPY_NVFP4 && strncmp(name, "lm_head.", 8) == 0 && strcmp(name, "lm_head.weight") != 0;
}

bool mq__weights_note_unused(const mq_model_config *c, mq_copy copy, const char *name, mq_unused *unused)
{
    if (!is_unused(c, copy, name)) return false;
    if (unused->count++ == 0) snprintf(unused->first, sizeof unused->first, "%s", name);
    return true;
}

bool mq__weights_unused_text(const mq_weights *w, mq_copy copy, char *line, size_t size)
{
    const mq_unused *unused = &w->unused[copy];
    if (unused->count == 0) return false;
    const bool head = strncmp(unused->first, "lm_head.", 8) == 0;
    snprintf(line, size, "checkpoint: %s: left unused: %zu tensor%s, as %s (%s)",
             mq__checkpoint_dir(copy == MQ_COPY_PRECISE ? w->dense : w->second), unused->count,
             unused->count == 1 ? "" : "s", unused->first,
             head ? "lm_head is the precise model's" : "activations of attention and the KV cache stay BF16 and FP32");
    return true;
}
