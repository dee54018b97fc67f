/* Phase plans: which format each linear group of each layer uses in each phase (docs/PLANS.md has the file format). */
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

static const char *const format_names[MQ_LINEAR_FORMATS] = {"bf16", "nvfp4", "w4a16", "w16a16", "int8", "fp8"};
static const char *const group_names[MQ_GROUPS] = {"qkv", "o", "gate_up", "down"};
static const char *const delta_names[2] = {"delta_in", "delta_out"}; /* qkv and o of Gated DeltaNet layers */
static const char *const phase_names[MQ_PHASES] = {"prefill", "decode"};
static const char *const attention_names[MQ_ATTENTION_FORMATS] = {"bf16", "int8", "w16a16"};
static const char *const rule_names[MQ_SCALE_RULES] = {"rtn", "four-six", "sweep"};

const char *mq_linear_format_name(mq_linear_format format)
{
    return (unsigned)format < MQ_LINEAR_FORMATS ? format_names[format] : "unknown";
}

mq_status mq_linear_format_parse(const char *name, mq_linear_format *format, mq_error *error)
{
    for (int i = 0; i < MQ_LINEAR_FORMATS; i++) {
        if (strcmp(name, format_names[i]) == 0) {
            *format = (mq_linear_format)i;
            return MQ_OK;
        }
    }
    return mq__fail(error, MQ_USAGE, "plan: format: expected bf16, nvfp4, w4a16, w16a16, int8 or fp8, got %s", name);
}

const char *mq_linear_group_name(mq_linear_group group)
{
    return (unsigned)group < MQ_GROUPS ? group_names[group] : "unknown";
}

const char *mq_attention_format_name(mq_attention_format format)
{
    return (unsigned)format < MQ_ATTENTION_FORMATS ? attention_names[format] : "unknown";
}

mq_status mq_attention_format_parse(const char *name, mq_attention_format *format, mq_error *error)
{
    for (int i = 0; i < MQ_ATTENTION_FORMATS; i++) {
        if (strcmp(name, attention_names[i]) == 0) {
            *format = (mq_attention_format)i;
            return MQ_OK;
        }
    }
    return mq__fail(error, MQ_USAGE, "plan: attention: expected bf16, int8 or w16a16, got %s", name);
}

const char *mq_scale_rule_name(mq_scale_rule rule)
{
    return (unsigned)rule < MQ_SCALE_RULES ? rule_names[rule] : "unknown";
}

mq_status mq_scale_rule_parse(const char *name, mq_scale_rule *rule, mq_error *error)
{
    for (int i = 0; i < MQ_SCALE_RULES; i++) {
        if (strcmp(name, rule_names[i]) == 0) {
            *rule = (mq_scale_rule)i;
            return MQ_OK;
        }
    }
    return mq__fail(error, MQ_USAGE, "plan: scales: expected rtn, four-six or sweep, got %s", name);
}

/* Parses "0-3,7" into first/last pairs; calls back for each. */
typedef struct layer_range {
    long first, last;
} layer_range;

static bool next_range(const char **text, layer_range *range)
{
    char *end;
    range->first = strtol(*text, &end, 10);
    if (end == *text || range->first < 0) return false;
    range->last = range->first;
    if (*end == '-') {
        const char *start = end + 1;
        range->last = strtol(start, &end, 10);
        if (end == start) return false;
    }
    if (*end == ',')
        end++;
    else if (*end != '\0')
        return false;
    *text = end;
    return range->last >= range->first;
}

const char *mq__plan_group_name(mq_layer_kind kind, int group)
{
    return mq__is_delta_group(kind, (mq_linear_group)group) ? delta_names[group] : group_names[group];
}

static bool group_selected(const json_t *linears, mq_layer_kind kind, int group)
{
    if (!linears) return true;
    for (size_t i = 0; i < json_array_size(linears); i++) {
        const char *name = json_string_value(json_array_get(linears, i));
        if (name && strcmp(name, mq__plan_group_name(kind, group)) == 0) return true;
    }
    return false;
}

static bool groups_known(const json_t *linears)
{
    for (size_t i = 0; i < json_array_size(linears); i++) {
        const char *name = json_string_value(json_array_get(linears, i));
        bool known = false;
        for (int g = 0; g < MQ_GROUPS && name; g++) {
            known = known || strcmp(name, group_names[g]) == 0;
            known = known || (g < 2 && strcmp(name, delta_names[g]) == 0);
        }
        if (!known) return false;
    }
    return !linears || json_is_array(linears);
}

static void set_formats(mq_phase_plan plan, const mq_layer_kind *kind, const json_t *linears, uint32_t first,
                        uint32_t last, mq_linear_format format)
{
    for (uint32_t l = first; l <= last; l++) {
        const mq_layer_kind own = kind ? kind[l] : (mq_layer_kind){0};
        for (int g = 0; g < MQ_GROUPS; g++) {
            if (group_selected(linears, own, g)) plan.format[l][g] = (uint8_t)format;
        }
    }
}

/* One element of "layers": {"layers": "0-3,7", "linears": ["down"], "prefill": "bf16"}. */
static mq_status apply_rule(const json_t *rule, size_t index, const char *file, const mq_layer_kind *kind,
                            uint32_t layers, mq_phase_plan *plan, mq_error *error)
{
    const char *text = json_string_value(json_object_get(rule, "layers"));
    const json_t *linears = json_object_get(rule, "linears");
    if (!text || !*text || !groups_known(linears)) {
        return mq__fail(
            error, MQ_FORMAT,
            "plan: %s: layers[%zu]: expected \"layers\": \"0-3,7\" and \"linears\" of qkv, o, gate_up, down, "
            "delta_in, delta_out, got something else",
            file, index);
    }
    layer_range range;
    while (*text) {
        if (!next_range(&text, &range) || range.last >= (long)layers) {
            return mq__fail(error, MQ_FORMAT, "plan: %s: layers[%zu]: expected ranges below %u, got %s", file, index,
                            layers, json_string_value(json_object_get(rule, "layers")));
        }
        for (int phase = 0; phase < MQ_PHASES; phase++) {
            const char *name = json_string_value(json_object_get(rule, phase_names[phase]));
            mq_linear_format format;
            if (!name) continue;
            const mq_status status = mq_linear_format_parse(name, &format, error);
            if (status != MQ_OK) return status;
            set_formats(plan[phase], kind, linears, (uint32_t)range.first, (uint32_t)range.last, format);
        }
    }
    return MQ_OK;
}

static mq_status apply_file(const char *file, const mq_layer_kind *kind, uint32_t layers, mq_phase_plan *plan,
                            mq_error *error)
{
    char *data;
    size_t bytes;
    mq_status status = mq__file_read(file, (size_t)1 << 20, &data, &bytes, error);
    if (status != MQ_OK) return status;
    json_t *root;
    status = mq__json_read(data, bytes, 0, MQ_JSON_ROUND_NUMBERS, file, &root, error);
    mq__free(data);
    if (status != MQ_OK) return mq__fail_within(error, status, "plan");
    const json_t *rules = json_object_get(root, "layers"), *attention = json_object_get(root, "attention"),
                 *head = json_object_get(root, "head");
    mq_attention_format format;
    mq_linear_format head_format;
    if (attention && !json_is_string(attention)) {
        status =
            mq__fail(error, MQ_FORMAT, "plan: %s: attention: expected \"bf16\" or \"int8\", got something else", file);
    } else if (attention) {
        status = mq_attention_format_parse(json_string_value(attention), &format, error);
        if (status == MQ_OK) plan[MQ_PHASE_PREFILL].attention = format;
    }
    if (status == MQ_OK && head && !json_is_string(head)) {
        status = mq__fail(error, MQ_FORMAT,
                          "plan: %s: head: expected \"bf16\", \"w4a16\" or \"nvfp4\", got something else", file);
    } else if (status == MQ_OK && head) {
        status = mq_linear_format_parse(json_string_value(head), &head_format, error);
        if (status == MQ_OK) plan[MQ_PHASE_PREFILL].head = plan[MQ_PHASE_DECODE].head = head_format;
    }
    if (status == MQ_OK && !json_is_array(rules)) {
        status = mq__fail(error, MQ_FORMAT,
                          "plan: %s: expected a JSON object with an array \"layers\", got something else", file);
    }
    for (size_t i = 0; status == MQ_OK && i < json_array_size(rules); i++) {
        status = apply_rule(json_array_get(rules, i), i, file, kind, layers, plan, error);
    }
    json_decref(root);
    return status;
}

mq_status mq__plan_read(const mq_plan_options *options, const mq_layer_kind *kind, uint32_t layers,
                        mq_phase_plan plan[MQ_PHASES], mq_error *error)
{
    const mq_linear_format defaults[MQ_PHASES] = {options->prefill, options->decode};
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        plan[phase] = (mq_phase_plan){.attention = phase == MQ_PHASE_PREFILL ? options->attention : MQ_ATTENTION_BF16,
                                      .head = options->head};
    }
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        plan[phase].format = mq__alloc_zero(layers, sizeof *plan[phase].format);
        if (!plan[phase].format) {
            mq__plan_free(plan);
            return mq__fail(error, MQ_NO_MEMORY, "plan: %u layers: expected memory, got none", layers);
        }
        set_formats(plan[phase], kind, NULL, 0, layers - 1, defaults[phase]);
        for (uint32_t l = 0; l < layers; l++) {
            for (int g = 0; kind && g < MQ_GROUPS; g++) {
                if (mq__is_delta_group(kind[l], (mq_linear_group)g)) plan[phase].format[l][g] = MQ_LINEAR_AS_PUBLISHED;
            }
        }
    }
    mq_status status = options->file ? apply_file(options->file, kind, layers, plan, error) : MQ_OK;
    const mq_linear_format head = plan[MQ_PHASE_DECODE].head;
    if (status == MQ_OK && head != MQ_LINEAR_BF16 && mq__face_of(head) != MQ_FACE_NVFP4) {
        status =
            mq__fail(error, MQ_USAGE, "plan: head: expected bf16, w4a16 or nvfp4, got %s", mq_linear_format_name(head));
    }
    if (status != MQ_OK) mq__plan_free(plan);
    return status;
}

void mq__plan_free(mq_phase_plan plan[MQ_PHASES])
{
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        mq__free(plan[phase].format);
        plan[phase].format = NULL;
    }
}
