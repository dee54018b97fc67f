/* A dense checkpoint to an NVFP4 one: the tensors of the new checkpoint, and their writing.
 *
 * Tensors keep their order; each quantised weight turns into codes, block scales and one tensor scale. Linear layers that
 * read the same input share the tensor scale, because serving engines fuse them. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"
#include "format/checkpoint_locate.h"
#include "mixquant_tools.h"
#include "quantize/quantize_files.h"
#include "quantize/quantize_job.h"

#include <stdio.h>
#include <string.h>

static const char *const layout_names[MQ_LAYOUTS] = {"compressed-tensors", "modelopt"};
static const char *const method_names[MQ_METHODS] = {"rtn", "gptq"};

const char *mq_checkpoint_layout_name(mq_checkpoint_layout layout)
{
    return (unsigned)layout < MQ_LAYOUTS ? layout_names[layout] : "unknown";
}

mq_status mq_checkpoint_layout_parse(const char *name, mq_checkpoint_layout *layout, mq_error *error)
{
    for (int i = 0; name && i < MQ_LAYOUTS; i++) {
        if (strcmp(name, layout_names[i]) != 0) continue;
        *layout = (mq_checkpoint_layout)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_USAGE, "quantize: format: expected compressed-tensors or modelopt, got %.64s",
                    name ? name : "none");
}

mq_status mq_quantize_method_parse(const char *name, mq_quantize_method *method, mq_error *error)
{
    for (int i = 0; name && i < MQ_METHODS; i++) {
        if (strcmp(name, method_names[i]) != 0) continue;
        *method = (mq_quantize_method)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_USAGE, "quantize: method: expected rtn or gptq, got %.64s", name ? name : "none");
}

/* ---- modules of a tensor: the one whose weight it is, or those of all experts of a layer, where they lie in one tensor */

/* weight: the name that its weight has, or would have beside the others, in the input. */
typedef mq_status module_visit(mq_quantize_job *j, size_t module, const char *weight, mq_error *error);

/* first: the module of the first expert. */
static mq_status visit_experts(mq_quantize_job *j, const mq_tensor *t, const mq_module *first, module_visit *visit,
                               uint32_t *visited, mq_error *error)
{
    const mq_weights *w = j->weights;
    const size_t prefix = (size_t)(strrchr(t->name, '.') + 1 - t->name);
    mq_status status = MQ_OK;
    uint32_t left = 0;
    for (size_t i = 0; status == MQ_OK && i < w->module_count; i++) {
        const mq_module *m = &w->module[i];
        char own[MQ_TENSOR_NAME_BYTES], weight[MQ_STORED_NAME_BYTES];
        if (m->place.layer != first->place.layer || m->rule->group != first->rule->group ||
            mq__rule_scope(m->rule) != MQ_SCOPE_EXPERT)
            continue;
        left += !j->quantised[i];
        if (!j->quantised[i]) continue;
        mq__module_name(m, ".weight", own);
        snprintf(weight, sizeof weight, "%.*s%s", (int)prefix, t->name, strstr(own, ".experts.") + strlen(".experts."));
        status = visit(j, i, weight, error);
        ++*visited;
    }
    if (status != MQ_OK || left == 0 || *visited == 0) return status;
    return mq__fail(error, MQ_USAGE, "quantize: ignore: expected all or none of the experts in %s", t->name);
}

/* Visits the quantised modules of a tensor; *visited: how many. */
static mq_status visit_modules(mq_quantize_job *j, const mq_tensor *t, module_visit *visit, uint32_t *visited,
                               mq_error *error)
{
    char plain_name[MQ_STORED_NAME_BYTES], one[MQ_STORED_NAME_BYTES];
    const mq_weights *w = j->weights;
    const char *name = mq__checkpoint_text_name(w->dense, t->name, plain_name);
    const char *first = mq__first_expert_name(name, one);
    const size_t module = mq__module_find(w, first);
    *visited = 0;
    if (module == w->module_count) return MQ_OK;
    if (first != name) return visit_experts(j, t, &w->module[module], visit, visited, error);
    if (!j->quantised[module]) return MQ_OK;
    *visited = 1;
    return visit(j, module, t->name, error);
}

/* ---- what they become */

static void add_spec(mq_quantize_job *j, const char *weight, const char *suffix, mq_dtype dtype, int rank,
                     uint64_t rows, uint64_t columns)
{
    char *name = j->names[j->name_count++];
    const size_t stem = strlen(weight) - strlen(".weight");
    snprintf(name, MQ_STORED_NAME_BYTES, "%.*s%s", (int)stem, weight, suffix);
    j->specs[j->spec_count++] = (mq_tensor_spec){.name = name, .dtype = dtype, .rank = rank, .shape = {rows, columns}};
}

static mq_status add_module_specs(mq_quantize_job *j, size_t module, const char *weight, mq_error *error)
{
    (void)error;
    const mq_linear *linear = j->weights->module[module].linear;
    const uint64_t n = linear->n, k = linear->k_width;
    const bool modelopt = j->options->layout == MQ_LAYOUT_MODELOPT;
    add_spec(j, weight, modelopt ? ".weight" : ".weight_packed", MQ_DTYPE_U8, 2, n, k / 2);
    add_spec(j, weight, ".weight_scale", MQ_DTYPE_F8_E4M3, 2, n, k / MQ_NVFP4_VALUES);
    add_spec(j, weight, modelopt ? ".weight_scale_2" : ".weight_global_scale", MQ_DTYPE_F32, modelopt ? 0 : 1, 1, 0);
    return MQ_OK;
}

static mq_status plan_specs(mq_quantize_job *j, mq_error *error)
{
    const mq_checkpoint *in = j->weights->dense;
    size_t tensors = 0, largest = 0;
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        tensors += mq__checkpoint_shard(in, s)->count;
    }
    for (size_t i = 0; i < j->weights->module_count; i++) {
        const mq_linear *linear = j->weights->module[i].linear;
        const size_t weights = (size_t)linear->n * linear->k_width;
        if (j->quantised[i] && weights > largest) largest = weights;
    }
    j->specs = mq__alloc_zero(tensors + 3 * (size_t)j->total, sizeof *j->specs);
    j->names = mq__alloc_zero(3 * (size_t)j->total, sizeof *j->names);
    j->nibbles = mq__alloc_aligned(largest / 2);
    j->scales = mq__alloc_aligned(largest / MQ_NVFP4_VALUES);
    if (!j->specs || !j->names || !j->nibbles || !j->scales) {
        return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", j->options->in_dir);
    }
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(in, s);
        for (size_t i = 0; i < shard->count; i++) {
            const mq_tensor *t = &shard->tensors[i];
            uint32_t modules;
            const mq_status status = visit_modules(j, t, add_module_specs, &modules, error);
            if (status != MQ_OK) return status;
            if (modules) continue;
            mq_tensor_spec *spec = &j->specs[j->spec_count++];
            *spec = (mq_tensor_spec){.name = t->name, .dtype = t->dtype, .rank = t->rank};
            memcpy(spec->shape, t->shape, sizeof spec->shape);
        }
    }
    return MQ_OK;
}

static mq_status put_module(mq_quantize_job *j, size_t module, const char *weight, mq_error *error)
{
    (void)weight;
    const mq_dense *dense = &j->weights->module[module].linear->dense;
    const size_t weights = (size_t)dense->n * dense->k_width;
    const mq_quantize_options *o = j->options;
    mq_nvfp4_scale scale;
    if (o->progress && !o->progress(o->context, j->done, j->total)) {
        return mq__fail(error, MQ_CANCELLED, "quantize: %s: cancelled", o->in_dir);
    }
    mq_status s = mq__quantize_weights(j, module, &scale, error);
    if (s != MQ_OK) return s;
    j->done++;
    const float stored = o->layout == MQ_LAYOUT_MODELOPT ? scale.multiplier : scale.divisor;
    s = mq__checkpoint_put(&j->writer, j->nibbles, weights / 2, error);
    if (s == MQ_OK) s = mq__checkpoint_put(&j->writer, j->scales, weights / MQ_NVFP4_VALUES, error);
    if (s == MQ_OK) s = mq__checkpoint_put(&j->writer, &stored, sizeof stored, error);
    return s;
}

/* Whatever is no quantised weight: as it is, but for norms that smoothing has changed. */
static mq_status put_other(mq_quantize_job *j, const mq_tensor *t, mq_error *error)
{
    char plain_name[MQ_STORED_NAME_BYTES];
    const void *norm =
        mq__smoothing_norm(j->smoothing, mq__checkpoint_text_name(j->weights->dense, t->name, plain_name));
    return mq__checkpoint_put(&j->writer, norm ? norm : t->data, t->bytes, error);
}

static mq_status put_tensors(mq_quantize_job *j, mq_error *error)
{
    const mq_checkpoint *in = j->weights->dense;
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(in, s);
        for (size_t i = 0; i < shard->count; i++) {
            const mq_tensor *t = &shard->tensors[i];
            uint32_t modules;
            mq_status status = visit_modules(j, t, put_module, &modules, error);
            if (status == MQ_OK && !modules) status = put_other(j, t, error);
            if (status != MQ_OK) return status;
        }
    }
    return MQ_OK;
}

static mq_status open_job_quantize(mq_quantize_job *j, mq_error *error)
{
    const mq_quantize_options *o = j->options;
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    const bool calibrates = o->method == MQ_METHOD_GPTQ || o->smooth > 0;
    mq_status s = mq__weights_open(o->in_dir, NULL, &j->weights, error);
    if (s == MQ_OK && o->method == MQ_METHOD_GPTQ && j->weights->config.experts) {
        s = mq__fail(error, MQ_UNSUPPORTED, "quantize: method: expected rtn for a model with experts, got gptq");
    }
    if (s == MQ_OK && calibrates) {
        s = mq__calib_open(o->in_dir, o->texts, o->text_count, o->threads, &j->calib, error);
    }
    if (s == MQ_OK) s = mq__pool_new(o->threads ? o->threads : cpu.threads, &j->pool, error);
    if (s != MQ_OK) return s;
    j->quantised = mq__alloc_zero(j->weights->module_count, sizeof *j->quantised);
    j->scale = mq__alloc_zero(j->weights->module_count, sizeof *j->scale);
    j->ignored = json_array();
    if (j->quantised && j->scale && j->ignored) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", o->in_dir);
}

static void close_job_quantize(mq_quantize_job *j)
{
    mq__checkpoint_discard(&j->writer);
    mq__quantize_weights_free(j);
    mq__smoothing_free(j->smoothing);
    mq__calib_close(j->calib);
    json_decref(j->ignored);
    mq__free_aligned(j->nibbles);
    mq__free_aligned(j->scales);
    mq__free(j->specs);
    mq__free(j->names);
    mq__free(j->quantised);
    mq__free(j->scale);
    mq__pool_free(j->pool);
    mq__weights_close(j->weights);
}

static mq_nvfp4_rule rule_of_quantize(const mq_quantize_options *o)
{
    if (o->scales == MQ_SCALES_FOUR_SIX) return MQ_NVFP4_FOUR_SIX;
    if (o->scales == MQ_SCALES_SWEEP) return MQ_NVFP4_SWEEP;
    return o->layout == MQ_LAYOUT_MODELOPT ? MQ_NVFP4_MODELOPT : MQ_NVFP4_RTN;
}

static mq_status smooth_quantize(mq_quantize_job *j, mq_error *error)
{
    if (j->options->smooth == 0) return MQ_OK;
    return mq__smoothing_new(j->weights, j->calib, j->options->smooth, j->quantised, &j->smoothing, error);
}

static mq_status quantize_located(const mq_quantize_options *o, mq_error *error)
{
    mq_quantize_job j = {.options = o, .rule = rule_of_quantize(o)};
    mq_status s = open_job_quantize(&j, error);
    if (s == MQ_OK) s = mq__quantize_choose(&j, error);
    if (s == MQ_OK) s = smooth_quantize(&j, error);
    if (s == MQ_OK) s = plan_specs(&j, error);
    if (s == MQ_OK) s = mq__checkpoint_create(o->out_dir, &j.writer, error);
    if (s == MQ_OK) s = mq__quantize_configs(&j.writer, o->in_dir, o->layout, j.ignored, error);
    if (s == MQ_OK) s = mq__quantize_copy_files(&j.writer, o->in_dir, error);
    if (s == MQ_OK) s = mq__checkpoint_declare(&j.writer, j.specs, j.spec_count, 0, error);
    if (s == MQ_OK) s = put_tensors(&j, error);
    if (s == MQ_OK) s = mq__checkpoint_finish(&j.writer, error);
    close_job_quantize(&j);
    return s;
}

mq_status mq_quantize_checkpoint(const mq_quantize_options *o, mq_error *error)
{
    if (!o->in_dir || !o->out_dir || (unsigned)o->layout >= MQ_LAYOUTS || (unsigned)o->scales >= MQ_SCALE_RULES ||
        (unsigned)o->method >= MQ_METHODS || !(o->smooth >= 0 && o->smooth <= 1)) {
        return mq__fail(error, MQ_USAGE,
                        "quantize: options: expected directories, a layout, a rule, a method and an alpha, got others");
    }
    mq_quantize_options located = *o;
    char *dir;
    mq_status s = mq__checkpoint_locate(o->in_dir, true, &dir, error);
    located.in_dir = dir;
    if (s == MQ_OK) s = quantize_located(&located, error);
    mq__free(dir);
    return s;
}
