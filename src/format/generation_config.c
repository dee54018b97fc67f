/* Sampling as generation_config.json suggests it. */
#include "format/config_read.h"

static mq_status read_sampling_field(const json_t *root, const char *name, double low, double high, unsigned flag,
                                     float *value, unsigned *fields, mq_error *error)
{
    const json_t *item = json_object_get(root, name);
    double number;
    if (!item || json_is_null(item)) return MQ_OK;
    const mq_status s = mq__json_number(root, name, low, high, 0, &number, error);
    if (s != MQ_OK) return s;
    *value = (float)number;
    *fields |= flag;
    return MQ_OK;
}

mq_status mq__sampling_suggested(const json_t *root, mq_sampling *sampling, unsigned *fields, mq_error *error)
{
    const json_t *do_sample = json_object_get(root, "do_sample");
    bool samples = false;
    int64_t top_k = 0;
    if (json_is_null(do_sample)) do_sample = NULL;
    mq_status s = mq__json_bool(root, "do_sample", false, &samples, error);
    if (s == MQ_OK && samples) sampling->temperature = 1;
    if (s == MQ_OK) {
        s = read_sampling_field(root, "temperature", 0, 100, MQ_SUGGESTS_TEMPERATURE, &sampling->temperature, fields,
                                error);
    }
    if (s == MQ_OK) s = read_sampling_field(root, "top_p", 0, 1, MQ_SUGGESTS_TOP_P, &sampling->top_p, fields, error);
    if (s == MQ_OK) s = read_sampling_field(root, "min_p", 0, 1, MQ_SUGGESTS_MIN_P, &sampling->min_p, fields, error);
    if (s == MQ_OK) {
        s = read_sampling_field(root, "repetition_penalty", 1e-3, 1000, MQ_SUGGESTS_REPETITION_PENALTY,
                                &sampling->repetition_penalty, fields, error);
    }
    if (s == MQ_OK) s = mq__json_integer(root, "top_k", -1, INT32_MAX, 0, &top_k, error);
    if (s != MQ_OK) return s;
    sampling->top_k = top_k > 0 ? (int)top_k : 0; /* -1 is off in vLLM's files */
    if (json_is_integer(json_object_get(root, "top_k"))) *fields |= MQ_SUGGESTS_TOP_K;
    if (!do_sample) return MQ_OK;
    /* Greedy whatever temperature stands beside it; with it, the writers' default is 1. */
    if (!samples) sampling->temperature = 0;
    *fields |= MQ_SUGGESTS_TEMPERATURE;
    return MQ_OK;
}
