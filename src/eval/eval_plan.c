/* Names of phase plans on the command line. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/eval.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *prefill, *decode;
} known[] = {
    {"bf16", "bf16", "bf16"},       {"nvfp4", "nvfp4", "nvfp4"},  {"w4a16", "w4a16", "w4a16"},
    {"mix", "nvfp4", "bf16"},       {"inverse", "bf16", "nvfp4"}, {"int8-mix", "int8", "bf16"},
    {"w16a16", "w16a16", "w16a16"}, {"fp8-mix", "fp8", "bf16"},
};

static mq_status parse_pair(const char *name, const char *prefill, const char *decode, mq_plan_options *options,
                            mq_error *error)
{
    mq_status status = mq_linear_format_parse(prefill, &options->prefill, error);
    if (status == MQ_OK) status = mq_linear_format_parse(decode, &options->decode, error);
    if (status == MQ_OK || !error) return status;
    return mq__fail(error, status,
                    "eval: plan: expected mix, inverse, a format, PREFILL/DECODE (with +int8-attention, "
                    "+w16a16-attention, +lastN or +reprefill) or a .json file, got %s",
                    name);
}

/* The formats that a name without suffix stands for. */
static mq_status parse_formats_eval_plan(const char *name, mq_plan_options *options, mq_error *error)
{
    char prefill[64];
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, name) != 0) continue;
        return parse_pair(name, known[i].prefill, known[i].decode, options, error);
    }
    const char *slash = strchr(name, '/');
    const size_t length = slash ? (size_t)(slash - name) : strlen(name);
    memcpy(prefill, name, length);
    prefill[length] = '\0';
    return parse_pair(name, prefill, slash ? slash + 1 : prefill, options, error);
}

/* "int8-attention", "w4a16-head": `suffix` may be changed. */
static mq_status parse_format_suffix(char *suffix, mq_plan_options *options, mq_error *error)
{
    char *dash = strrchr(suffix, '-');
    if (dash && strcmp(dash, "-attention") == 0) {
        *dash = '\0';
        return mq_attention_format_parse(suffix, &options->attention, error);
    }
    if (dash && strcmp(dash, "-head") == 0) {
        *dash = '\0';
        return mq_linear_format_parse(suffix, &options->head, error);
    }
    return mq__fail(error, MQ_USAGE,
                    "eval: plan: expected +int8-attention, +w16a16-attention, +w4a16-head, +nvfp4-head, +lastN or "
                    "+reprefill, got +%s",
                    suffix);
}

static mq_status parse_suffix_eval_plan(char *suffix, mq_eval_plan *plan, mq_error *error)
{
    char *end;
    if (strcmp(suffix, "reprefill") == 0) {
        plan->reprefill = true;
        return MQ_OK;
    }
    if (strncmp(suffix, "last", 4) == 0 && suffix[4] >= '1' && suffix[4] <= '9') {
        const unsigned long precise = strtoul(suffix + 4, &end, 10);
        plan->precise = (uint32_t)precise;
        if (*end == '\0' && precise <= 1u << 24) return MQ_OK;
    }
    return parse_format_suffix(suffix, &plan->options, error);
}

mq_status mq__eval_plan_parse(const char *name, mq_eval_plan *plan, mq_error *error)
{
    char formats[sizeof plan->name], *more = NULL;
    const size_t length = strlen(name);
    mq_status status = MQ_OK;
    *plan = (mq_eval_plan){.options = {.prefill = MQ_LINEAR_BF16, .decode = MQ_LINEAR_BF16}};
    if (length >= sizeof plan->name) {
        return mq__fail(error, MQ_USAGE, "eval: plan: expected a name below %zu bytes, got %zu", sizeof plan->name,
                        length);
    }
    memcpy(plan->name, name, length + 1);
    if (strstr(name, ".json")) {
        plan->options.file = name;
        plan->options.prefill = MQ_LINEAR_NVFP4; /* what the file does not name is Mix-Quant, as in other commands */
        return MQ_OK;
    }
    if (strstr(name, "++") || (length > 0 && name[length - 1] == '+'))
        return parse_pair(name, name, name, &plan->options, error);
    memcpy(formats, name, length + 1);
    strtok_r(formats, "+", &more);
    for (char *part = strtok_r(NULL, "+", &more); status == MQ_OK && part; part = strtok_r(NULL, "+", &more)) {
        status = parse_suffix_eval_plan(part, plan, error);
    }
    return status == MQ_OK ? parse_formats_eval_plan(formats, &plan->options, error) : status;
}
