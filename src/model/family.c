#include "model/family.h"

#include <stdio.h>
#include <string.h>

const mq_family *mq__family_of(mq_architecture architecture)
{
    static const mq_family *const families[MQ_ARCH_COUNT] = {
        [MQ_ARCH_LLAMA] = &mq__family_llama,     [MQ_ARCH_QWEN2] = &mq__family_llama,
        [MQ_ARCH_QWEN3] = &mq__family_llama,     [MQ_ARCH_QWEN3_MOE] = &mq__family_qwen3_moe,
        [MQ_ARCH_QWEN3_5] = &mq__family_qwen3_5, [MQ_ARCH_QWEN3_5_MOE] = &mq__family_qwen3_5_moe,
        [MQ_ARCH_MISTRAL] = &mq__family_llama,   [MQ_ARCH_GEMMA3] = &mq__family_gemma3,
        [MQ_ARCH_GEMMA4] = &mq__family_gemma4,
    };
    return families[architecture];
}

mq_rule_scope mq__rule_scope(const mq_tensor_rule *rule)
{
    const char *layer = strstr(rule->name, "%u");
    if (!layer) return MQ_SCOPE_MODEL;
    return strstr(layer + 2, "%u") ? MQ_SCOPE_EXPERT : MQ_SCOPE_LAYER;
}

bool mq__rule_applies(const mq_tensor_rule *rule, const mq_model_config *c, uint32_t layer)
{
    switch (rule->when) {
    case MQ_WHEN_OWN_HEAD:
        return !c->tied_head;
    case MQ_WHEN_QKV_BIAS:
        return c->qkv_bias;
    case MQ_WHEN_O_BIAS:
        return c->o_bias;
    case MQ_WHEN_MLP_BIAS:
        return c->mlp_bias;
    case MQ_WHEN_QK_NORM:
        return c->qk_norm;
    case MQ_WHEN_OWN_V:
        return !mq__attention_of(c, layer).shares_kv;
    case MQ_WHEN_DENSE:
        return c->layer[layer].mlp == MQ_MLP_DENSE;
    case MQ_WHEN_EXPERTS:
        return c->layer[layer].mlp == MQ_MLP_EXPERTS;
    case MQ_WHEN_ATTENTION:
        return c->layer[layer].mixer == MQ_MIXER_ATTENTION;
    case MQ_WHEN_DELTA:
        return c->layer[layer].mixer == MQ_MIXER_GATED_DELTA;
    default:
        return true;
    }
}

void mq__rule_name(const mq_tensor_rule *rule, mq_place place, const char *suffix, char name[MQ_TENSOR_NAME_BYTES])
{
    const uint32_t number[2] = {place.layer, place.expert};
    int numbers = 0;
    size_t used = 0;
    for (const char *c = rule->name; *c && used + 1 < MQ_TENSOR_NAME_BYTES; c++) {
        if (*c == '%' && numbers < 2) {
            used += (size_t)snprintf(name + used, MQ_TENSOR_NAME_BYTES - used, "%u", number[numbers++]);
            c++; /* the u */
        } else {
            name[used++] = *c;
        }
    }
    if (used < MQ_TENSOR_NAME_BYTES) snprintf(name + used, MQ_TENSOR_NAME_BYTES - used, "%s", suffix);
    name[MQ_TENSOR_NAME_BYTES - 1] = '\0';
}

/* A plain number of at most 9 digits; NULL: none. */
static const char *read_number(const char *text, uint32_t *number)
{
    const char *c = text;
    *number = 0;
    for (; *c >= '0' && *c <= '9' && c - text < 9; c++) {
        *number = *number * 10 + (uint32_t)(*c - '0');
    }
    return c == text || (*text == '0' && c - text > 1) || (*c >= '0' && *c <= '9') ? NULL : c;
}

const char *mq__rule_match(const mq_tensor_rule *rule, const char *name, mq_place *place)
{
    uint32_t number[2] = {0, 0};
    int numbers = 0;
    for (const char *c = rule->name; *c; c++) {
        if (*c == '%' && numbers < 2) {
            name = read_number(name, &number[numbers++]);
            if (!name) return NULL;
            c++; /* the u */
        } else if (*name++ != *c) {
            return NULL;
        }
    }
    *place = (mq_place){number[0], number[1]};
    return name;
}

uint32_t mq__rule_size(const mq_model_config *c, uint32_t layer, char letter)
{
    const mq_attention_config a = mq__attention_of(c, layer);
    switch (letter) {
    case 'V':
        return c->vocab;
    case 'D':
        return c->width;
    case 'F':
        return c->ffn;
    case 'E':
        return c->experts;
    case 'M':
        return c->expert_ffn;
    case 'K':
        return a.head_dim;
    case 'Q':
        return c->heads * a.head_dim;
    case 'A':
        return 2 * c->heads * a.head_dim;
    case 'G':
        return a.kv_heads * a.head_dim;
    case 'C':
        return mq__delta_channels(&c->delta);
    case 'T':
        return c->delta.taps;
    case 'N':
        return c->delta.value_heads;
    case 'W':
        return c->delta.value_dim;
    case 'Z':
        return c->delta.value_heads * c->delta.value_dim;
    case '1':
        return 1;
    default:
        return 0;
    }
}

typedef struct walk {
    const mq_model_config *config;
    const mq_family *family;
    mq_rule_visit *visit;
    void *context;
} walk;

/* The rules [first, end) of a scope; rules of the next scope among them are walked for each of their numbers. */
static mq_status walk_rules(const walk *w, mq_rule_scope scope, size_t first, size_t end, mq_place place,
                            mq_error *error)
{
    mq_status status = MQ_OK;
    for (size_t i = first, next; status == MQ_OK && i < end; i = next) {
        const mq_tensor_rule *rule = &w->family->rules[i];
        next = i + 1;
        if (mq__rule_scope(rule) == scope) {
            if (mq__rule_applies(rule, w->config, place.layer)) status = w->visit(w->context, rule, place, error);
            continue;
        }
        while (next < end && mq__rule_scope(&w->family->rules[next]) > scope) {
            next++;
        }
        const bool layers = scope == MQ_SCOPE_MODEL;
        for (uint32_t n = 0; status == MQ_OK && n < (layers ? w->config->layers : w->config->experts); n++) {
            const mq_place inner = {layers ? n : place.layer, layers ? 0 : n};
            status = walk_rules(w, scope + 1, i, next, inner, error);
        }
    }
    return status;
}

mq_status mq__family_walk(const mq_model_config *config, mq_rule_visit *visit, void *context, mq_error *error)
{
    const walk w = {config, mq__family_of(config->architecture), visit, context};
    return walk_rules(&w, MQ_SCOPE_MODEL, 0, w.family->count, (mq_place){0}, error);
}
