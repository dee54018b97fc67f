/* Rotary settings of config.json: which scaling applies, and how many positions it makes usable. */
#include "format/config_read.h"

#include "base/error.h"

#include <string.h>

#define POSITIONS_MAX (1 << 24)

static const char *const rope_names[MQ_ROPE_COUNT] = {"default", "linear", "llama3", "yarn", "proportional"};

const char *mq__rope_type_name(mq_rope_type type)
{
    return rope_names[type];
}

/* Settings per layer type would be objects; a misread one would pass as "default". */
static mq_status check_rope_object(const json_t *p, const char *where, mq_error *error)
{
    const char *name;
    json_t *value;
    if (!p) return MQ_OK;
    if (!json_is_object(p)) {
        return mq__fail(error, MQ_FORMAT, "config: %s: expected an object, got something else", where);
    }
    json_object_foreach((json_t *)(uintptr_t)p, name, value)
    {
        if (json_is_object(value)) {
            return mq__fail(error, MQ_UNSUPPORTED, "config: %s: expected one setting for all layers, got %.64s", where,
                            name);
        }
    }
    return MQ_OK;
}

/* In either object, or outside of both. */
static mq_status read_partial(const json_t *root, const json_t *parameters, const json_t *scaling, double *partial,
                              mq_error *error)
{
    mq_status s = mq__json_number(root, "partial_rotary_factor", 0, 1, *partial, partial, error);
    if (s == MQ_OK) s = mq__json_number(parameters, "partial_rotary_factor", 0, 1, *partial, partial, error);
    if (s == MQ_OK) s = mq__json_number(scaling, "partial_rotary_factor", 0, 1, *partial, partial, error);
    return s;
}

/* A factor says that something scales; which rule, only the type does. */
static mq_status refuse_factor_alone(const json_t *p, mq_error *error)
{
    const json_t *factor = json_object_get(p, "factor");
    if (!factor || json_is_null(factor) || (json_is_number(factor) && json_number_value(factor) == 1.0)) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "config: rope_type: expected one beside factor, got none");
}

/* Writers before rope_type called it type; some write both. */
static mq_status read_type(const json_t *p, mq_rope_type *type, mq_error *error)
{
    const char *name = NULL, *older = NULL;
    *type = MQ_ROPE_DEFAULT;
    mq_status s = mq__json_string(p, "rope_type", &name, error);
    if (s == MQ_OK) s = mq__json_string(p, "type", &older, error);
    if (s != MQ_OK) return s;
    if (name && older && strcmp(name, older) != 0) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: rope_type: expected the same as type, got %.64s and %.64s",
                        name, older);
    }
    if (!name) name = older;
    if (!name) return refuse_factor_alone(p, error);
    for (int i = 0; i < MQ_ROPE_COUNT; i++) {
        if (strcmp(name, rope_names[i]) != 0) continue;
        *type = (mq_rope_type)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_UNSUPPORTED,
                    "config: rope_type: expected default, linear, llama3, yarn or proportional, got %.64s", name);
}

/* Every setting but the frequency base. */
static mq_status read_scaling(const json_t *root, const json_t *p, uint32_t positions, mq_rope_config *r,
                              mq_error *error)
{
    int64_t original = 0;
    const json_t *beta = json_object_get(p, "llama_4_scaling_beta"); /* queries that grow with their position */
    if (beta && !json_is_null(beta) && !(json_is_number(beta) && json_number_value(beta) == 0)) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: llama_4_scaling_beta: expected none, got one");
    }
    mq_status s = read_type(p, &r->type, error);
    if (s != MQ_OK || r->type == MQ_ROPE_DEFAULT) return s;
    s = mq__json_number(p, "factor", 1e-6, 1e6, r->type == MQ_ROPE_PROPORTIONAL ? 1 : -1, &r->factor, error);
    if (s == MQ_OK) {
        s = mq__json_integer(root, "original_max_position_embeddings", 1, POSITIONS_MAX, positions, &original, error);
    }
    if (s == MQ_OK) {
        s = mq__json_integer(p, "original_max_position_embeddings", 1, POSITIONS_MAX, original, &original, error);
    }
    if (s != MQ_OK) return s;
    r->original_positions = (uint32_t)original;
    if (r->type == MQ_ROPE_LLAMA3) {
        s = mq__json_number(p, "low_freq_factor", 1e-6, 1e6, -1, &r->low_freq_factor, error);
        if (s == MQ_OK) s = mq__json_number(p, "high_freq_factor", 1e-6, 1e6, -1, &r->high_freq_factor, error);
        if (s == MQ_OK && r->high_freq_factor <= r->low_freq_factor) {
            s = mq__fail(error, MQ_FORMAT, "config: high_freq_factor: expected above low_freq_factor, got %g",
                         r->high_freq_factor);
        }
    }
    if (s != MQ_OK || r->type != MQ_ROPE_YARN) return s;
    s = mq__json_number(p, "beta_fast", 1e-6, 1e6, 32, &r->beta_fast, error);
    if (s == MQ_OK) s = mq__json_number(p, "beta_slow", 1e-6, 1e6, 1, &r->beta_slow, error);
    if (s == MQ_OK) s = mq__json_number(p, "attention_factor", 0, 1e6, 0, &r->attention_factor, error);
    if (s == MQ_OK) s = mq__json_number(p, "mscale", 0, 1e6, 0, &r->mscale, error);
    if (s == MQ_OK) s = mq__json_number(p, "mscale_all_dim", 0, 1e6, 0, &r->mscale_all_dim, error);
    if (s == MQ_OK) s = mq__json_bool(p, "truncate", true, &r->truncate, error);
    return s;
}

static bool same_scaling(const mq_rope_config *a, const mq_rope_config *b)
{
    return a->type == b->type && a->factor == b->factor && a->low_freq_factor == b->low_freq_factor &&
           a->high_freq_factor == b->high_freq_factor && a->beta_fast == b->beta_fast && a->beta_slow == b->beta_slow &&
           a->attention_factor == b->attention_factor && a->mscale == b->mscale &&
           a->mscale_all_dim == b->mscale_all_dim && a->truncate == b->truncate &&
           a->original_positions == b->original_positions;
}

static const json_t *member_rope(const json_t *root, const char *name)
{
    const json_t *value = json_object_get(root, name);
    return json_is_null(value) ? NULL : value;
}

/* The base stands in either object, and older configs have it outside of both. */
static mq_status read_theta(const json_t *root, const json_t *parameters, const json_t *scaling, double fallback,
                            double *theta, mq_error *error)
{
    double other;
    mq_status s = mq__json_number(root, "rope_theta", 1, 1e12, fallback, theta, error);
    if (s == MQ_OK) s = mq__json_number(parameters, "rope_theta", 1, 1e12, *theta, theta, error);
    if (s == MQ_OK) s = mq__json_number(scaling, "rope_theta", 1, 1e12, *theta, &other, error);
    if (s != MQ_OK) return s;
    if (member_rope(parameters, "rope_theta") && other != *theta) {
        return mq__fail(error, MQ_UNSUPPORTED, "config: rope_theta: expected one value, got %g and %g", *theta, other);
    }
    *theta = other;
    return MQ_OK;
}

/* YaRN and linear scaling stretch the original positions by their factor: the recipe of Qwen's model cards adds
 * rope_scaling and leaves max_position_embeddings as it was. Llama 3 writes the stretched number there itself. */
static mq_status stretch_positions(const mq_rope_config *r, uint32_t *positions, mq_error *error)
{
    if (r->type != MQ_ROPE_YARN && r->type != MQ_ROPE_LINEAR) return MQ_OK;
    const double stretched = r->original_positions * r->factor;
    if (!(stretched >= 1 && stretched <= POSITIONS_MAX)) {
        return mq__fail(error, MQ_FORMAT, "config: factor: expected 1 to %d positions, got %u times %g", POSITIONS_MAX,
                        r->original_positions, r->factor);
    }
    *positions = (uint32_t)stretched;
    return MQ_OK;
}

/* Qwen's models for a million tokens attend in pieces of this length, each with positions of its own. Within the first piece that is
 * plain attention; beyond, it is not implemented. */
static mq_status cap_positions(const json_t *root, uint32_t *positions, mq_error *error)
{
    const json_t *dual = member_rope(root, "dual_chunk_attention_config");
    int64_t chunk = 0, local = 0;
    if (!dual) return MQ_OK;
    mq_status s = mq__json_integer(dual, "chunk_size", 1, POSITIONS_MAX, -1, &chunk, error);
    if (s == MQ_OK) s = mq__json_integer(dual, "local_size", 0, chunk - 1, 0, &local, error);
    if (s == MQ_OK && chunk - local < *positions) *positions = (uint32_t)(chunk - local);
    return s;
}

/* rope_parameters is what recent writers call it. The older rope_scaling may stand beside it, added by hand for a longer
 * context: then the one that scales applies, and two that scale differently are refused. */
mq_status mq__rope_config_read(const json_t *root, double theta, mq_rope_config *r, uint32_t *positions,
                               mq_error *error)
{
    const json_t *parameters = member_rope(root, "rope_parameters"), *scaling = member_rope(root, "rope_scaling");
    mq_rope_config other = {.factor = 1, .partial = 0};
    double partial = 0;
    *r = other;
    mq_status s = check_rope_object(parameters, "rope_parameters", error);
    if (s == MQ_OK) s = check_rope_object(scaling, "rope_scaling", error);
    if (s == MQ_OK) s = read_scaling(root, parameters, *positions, r, error);
    if (s == MQ_OK) s = read_scaling(root, scaling, *positions, &other, error);
    if (s != MQ_OK) return s;
    if (r->type != MQ_ROPE_DEFAULT && other.type != MQ_ROPE_DEFAULT && !same_scaling(r, &other)) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "config: rope_scaling: expected the same scaling as rope_parameters, got %s beside %s with "
                        "other settings",
                        rope_names[other.type], rope_names[r->type]);
    }
    if (r->type == MQ_ROPE_DEFAULT) *r = other;
    s = read_partial(root, parameters, scaling, &partial, error);
    if (s != MQ_OK) return s;
    r->partial = partial;
    s = read_theta(root, parameters, scaling, theta, &r->theta, error);
    if (s == MQ_OK) s = stretch_positions(r, positions, error);
    return s == MQ_OK ? cap_positions(root, positions, error) : s;
}
