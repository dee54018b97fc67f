/* Which modules of a checkpoint are quantised: their names, and the pattern that leaves some out. */
#include "base/error.h"
#include "quantize/quantize_job.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

/* A compiled pattern with the limits that keep a hostile one from running away. */
typedef struct pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
} pattern;

static void free_pattern(pattern *p)
{
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
}

static mq_status compile_pattern(const char *text, pattern *p, mq_error *error)
{
    int code = 0;
    PCRE2_SIZE at = 0;
    *p = (pattern){0};
    if (!text) return MQ_OK;
    if (strncmp(text, "re:", 3) == 0) text += 3; /* as checkpoints write it */
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &code,
                            &at, NULL);
    if (!p->code) {
        PCRE2_UCHAR why[160] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return mq__fail(error, MQ_USAGE, "quantize: ignore: expected a regular expression, got %s at byte %zu",
                        (const char *)why, (size_t)at);
    }
    p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->limits = pcre2_match_context_create(NULL);
    if (!p->match || !p->limits) {
        free_pattern(p);
        return mq__fail(error, MQ_NO_MEMORY, "quantize: ignore: expected memory, got none");
    }
    pcre2_set_match_limit(p->limits, 100000);
    pcre2_set_depth_limit(p->limits, 1000);
    pcre2_set_heap_limit(p->limits, 1024); /* KiB */
    return MQ_OK;
}

static mq_status matches(const pattern *p, const char *name, bool *yes, mq_error *error)
{
    *yes = false;
    if (!p->code) return MQ_OK;
    const int found = pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, 0, p->match, p->limits);
    *yes = found >= 0;
    if (found >= 0 || found == PCRE2_ERROR_NOMATCH) return MQ_OK;
    return mq__fail(error, MQ_LIMIT, "quantize: ignore: expected a pattern that ends soon, got PCRE2 error %d on %s",
                    found, name);
}

/* The projections of Gated DeltaNet stay as they are, as in published checkpoints, unless a pattern says what does. */
static bool left_out(const mq_quantize_job *j, const mq_module *m)
{
    return !j->options->ignore && mq__is_delta_group(j->weights->config.layer[m->place.layer], m->rule->group);
}

/* Routers stay dense, too; serving engines want them named. */
static mq_status ignore_router(void *context, const mq_tensor_rule *rule, mq_place place, mq_error *error)
{
    mq_quantize_job *j = context;
    char name[MQ_TENSOR_NAME_BYTES];
    if (rule->use != MQ_USE_ROUTER) return MQ_OK;
    mq__rule_name(rule, place, "", name);
    name[strlen(name) - strlen(".weight")] = '\0';
    char stored[MQ_STORED_NAME_BYTES];
    const char *as_stored = mq__checkpoint_stored_name(j->weights->dense, name, stored);
    if (json_array_append_new(j->ignored, json_string(as_stored)) == 0) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", name);
}

mq_status mq__quantize_choose(mq_quantize_job *j, mq_error *error)
{
    pattern p;
    mq_status s = compile_pattern(j->options->ignore, &p, error);
    if (s != MQ_OK) return s;
    for (size_t i = 0; s == MQ_OK && i < j->weights->module_count; i++) {
        const mq_module *module = &j->weights->module[i];
        const mq_linear *linear = module->linear;
        char plain_name[MQ_TENSOR_NAME_BYTES], stored[MQ_STORED_NAME_BYTES];
        bool ignored;
        mq__module_name(module, "", plain_name);
        const char *name = mq__checkpoint_stored_name(j->weights->dense, plain_name, stored);
        s = matches(&p, name, &ignored, error);
        if (s == MQ_OK && !linear->dense.data) {
            s = mq__fail(error, MQ_UNSUPPORTED, "quantize: %s: expected dense weights, got NVFP4", name);
        }
        j->quantised[i] = !ignored && !left_out(j, module) && linear->k_width % MQ_NVFP4_VALUES == 0;
        if (s == MQ_OK && j->quantised[i] != j->quantised[module->fused]) {
            s = mq__fail(error, MQ_USAGE, "quantize: ignore: expected all or none of the modules fused with %s", name);
        }
        if (s == MQ_OK && j->quantised[i]) j->total++;
        if (s == MQ_OK && !j->quantised[i] && json_array_append_new(j->ignored, json_string(name)) != 0) {
            s = mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", name);
        }
    }
    if (s == MQ_OK) s = mq__family_walk(&j->weights->config, ignore_router, j, error);
    if (s == MQ_OK && json_array_append_new(j->ignored, json_string("lm_head")) != 0) {
        s = mq__fail(error, MQ_NO_MEMORY, "quantize: lm_head: expected memory, got none");
    }
    if (s == MQ_OK && j->total == 0) {
        s = mq__fail(error, MQ_USAGE,
                     "quantize: modules: expected one that is not ignored and has inputs in multiples of 16, got none");
    }
    free_pattern(&p);
    return s;
}
