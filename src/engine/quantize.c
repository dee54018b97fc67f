/* A dense checkpoint to an NVFP4 one: which modules change, what they become, and the writing of both.
 *
 * Tensors keep their order; each quantised weight turns into codes, block scales and one tensor scale. Linear layers that
 * read the same input share the tensor scale (models-and-formats 1.8), because serving engines fuse them. */
#include "base/cpu.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/quantize_files.h"
#include "engine/weights.h"
#include "format/nvfp4.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES 128

static const char *const layout_names[MQ_LAYOUTS] = {"compressed-tensors", "modelopt"};

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

/* In the order of mq__weights_linear. */
static const char *const linear_names[MQ_LINEARS_PER_LAYER] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};

typedef struct group_scale {
    bool known;
    mq_nvfp4_scale scale;
} group_scale;

typedef struct job {
    const mq_quantize_options *options;
    mq_weights *weights;
    mq_pool *pool;
    mq_nvfp4_rule rule;
    bool *quantised;    /* [L * 7] */
    group_scale *scale; /* [L * MQ_GROUPS] */
    mq_tensor_spec *specs;
    char (*names)[NAME_BYTES]; /* of the specs that the input does not name */
    size_t spec_count, name_count;
    uint8_t *nibbles, *scales; /* of the largest matrix */
    json_t *ignored;
    mq_checkpoint_writer writer;
    uint32_t done, total; /* quantised modules */
} job;

static size_t linear_count(const job *j)
{
    return (size_t)j->weights->model.layers * MQ_LINEARS_PER_LAYER;
}

static void module_name(size_t index, const char *suffix, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "model.layers.%zu.%s%s", index / MQ_LINEARS_PER_LAYER,
             linear_names[index % MQ_LINEARS_PER_LAYER], suffix);
}

/* ---- which modules change */

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

static mq_status choose_modules(job *j, mq_error *error)
{
    pattern p;
    mq_status s = compile_pattern(j->options->ignore, &p, error);
    if (s != MQ_OK) return s;
    for (size_t i = 0; s == MQ_OK && i < linear_count(j); i++) {
        const mq_linear *linear = mq__weights_linear(j->weights, i);
        char name[NAME_BYTES];
        bool ignored;
        module_name(i, "", name);
        s = matches(&p, name, &ignored, error);
        if (s == MQ_OK && !linear->dense.data) {
            s = mq__fail(error, MQ_UNSUPPORTED, "quantize: %s: expected dense weights, got NVFP4", name);
        }
        j->quantised[i] = !ignored && linear->k_width % MQ_NVFP4_VALUES == 0;
        const bool fused = i > 0 && i % MQ_LINEARS_PER_LAYER != 0 && mq__weights_group(i) == mq__weights_group(i - 1);
        if (s == MQ_OK && fused && j->quantised[i] != j->quantised[i - 1]) {
            s = mq__fail(error, MQ_USAGE, "quantize: ignore: expected all or none of the modules fused with %s", name);
        }
        if (s == MQ_OK && j->quantised[i]) j->total++;
        if (s == MQ_OK && !j->quantised[i] && json_array_append_new(j->ignored, json_string(name)) != 0) {
            s = mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", name);
        }
    }
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

/* The quantised module whose weight this tensor is, or linear_count. */
static size_t find_module(const job *j, const char *tensor)
{
    unsigned layer = 0;
    int used = 0;
    char name[NAME_BYTES];
    if (sscanf(tensor, "model.layers.%9u.%n", &layer, &used) != 1 || used == 0 || layer >= j->weights->model.layers) {
        return linear_count(j);
    }
    for (size_t i = 0; i < MQ_LINEARS_PER_LAYER; i++) {
        const size_t index = (size_t)layer * MQ_LINEARS_PER_LAYER + i;
        module_name(index, ".weight", name);
        if (j->quantised[index] && strcmp(name, tensor) == 0) return index;
    }
    return linear_count(j);
}

/* ---- what they become */

static void add_spec(job *j, size_t module, const char *suffix, mq_dtype dtype, int rank, uint64_t rows,
                     uint64_t columns)
{
    char *name = j->names[j->name_count++];
    module_name(module, suffix, name);
    j->specs[j->spec_count++] = (mq_tensor_spec){.name = name, .dtype = dtype, .rank = rank, .shape = {rows, columns}};
}

static void add_module_specs(job *j, size_t module)
{
    const mq_linear *linear = mq__weights_linear(j->weights, module);
    const uint64_t n = linear->n, k = linear->k_width;
    const bool modelopt = j->options->layout == MQ_LAYOUT_MODELOPT;
    add_spec(j, module, modelopt ? ".weight" : ".weight_packed", MQ_DTYPE_U8, 2, n, k / 2);
    add_spec(j, module, ".weight_scale", MQ_DTYPE_F8_E4M3, 2, n, k / MQ_NVFP4_VALUES);
    add_spec(j, module, modelopt ? ".weight_scale_2" : ".weight_global_scale", MQ_DTYPE_F32, modelopt ? 0 : 1, 1, 0);
}

static mq_status plan_specs(job *j, mq_error *error)
{
    const mq_checkpoint *in = j->weights->dense;
    size_t tensors = 0, largest = 0;
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        tensors += mq__checkpoint_shard(in, s)->count;
    }
    for (size_t i = 0; i < linear_count(j); i++) {
        const mq_linear *linear = mq__weights_linear(j->weights, i);
        const size_t weights = (size_t)linear->n * linear->k_width;
        if (j->quantised[i] && weights > largest) largest = weights;
    }
    j->specs = mq__alloc_zero(tensors + 2 * (size_t)j->total, sizeof *j->specs);
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
            const size_t module = find_module(j, t->name);
            if (module < linear_count(j)) {
                add_module_specs(j, module);
                continue;
            }
            mq_tensor_spec *spec = &j->specs[j->spec_count++];
            *spec = (mq_tensor_spec){.name = t->name, .dtype = t->dtype, .rank = t->rank};
            memcpy(spec->shape, t->shape, sizeof spec->shape);
        }
    }
    return MQ_OK;
}

static mq_weight_type weight_type(mq_dense_type type)
{
    return type == MQ_DENSE_F32 ? MQ_WEIGHT_F32 : type == MQ_DENSE_F16 ? MQ_WEIGHT_F16 : MQ_WEIGHT_BF16;
}

static const uint8_t *row_of(const mq_dense *dense, size_t row)
{
    return (const uint8_t *)dense->data + row * dense->k_width * (dense->type == MQ_DENSE_F32 ? 4 : 2);
}

typedef struct rows_task {
    const mq_dense *dense;
    mq_nvfp4_rule rule;
    mq_nvfp4_scale scale;
    uint8_t *nibbles, *scales;
    float amax[256]; /* per thread */
} rows_task;

static void find_amax(void *context, int thread, int threads)
{
    rows_task *t = context;
    size_t begin, end;
    mq__partition(t->dense->n, thread, threads, &begin, &end);
    t->amax[thread] =
        mq__weights_amax(row_of(t->dense, begin), weight_type(t->dense->type), (end - begin) * t->dense->k_width);
}

static void quantize_rows(void *context, int thread, int threads)
{
    const rows_task *t = context;
    const size_t k = t->dense->k_width;
    size_t begin, end;
    mq__partition(t->dense->n, thread, threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        mq__nvfp4_quantize_row(t->rule, t->scale, row_of(t->dense, r), weight_type(t->dense->type), k,
                               t->nibbles + r * k / 2, t->scales + r * k / MQ_NVFP4_VALUES);
    }
}

/* The scale that a module shares with those fused with it; found at the first of them. */
static mq_status group_scale_of(job *j, size_t module, mq_nvfp4_scale *scale, mq_error *error)
{
    const size_t layer = module / MQ_LINEARS_PER_LAYER;
    const mq_linear_group group = mq__weights_group(module);
    group_scale *g = &j->scale[layer * MQ_GROUPS + (size_t)group];
    float amax = 0;
    for (size_t i = layer * MQ_LINEARS_PER_LAYER; !g->known && i < (layer + 1) * MQ_LINEARS_PER_LAYER; i++) {
        if (mq__weights_group(i) != group) continue;
        rows_task task = {.dense = &mq__weights_linear(j->weights, i)->dense};
        mq__pool_run(j->pool, find_amax, &task);
        for (int t = 0; t < mq__pool_threads(j->pool); t++) {
            if (isnan(task.amax[t])) {
                char name[NAME_BYTES];
                module_name(i, ".weight", name);
                return mq__fail(error, MQ_FORMAT, "quantize: tensor %s: expected finite weights, got others", name);
            }
            amax = fmaxf(amax, task.amax[t]);
        }
    }
    if (!g->known) g->scale = mq__nvfp4_scale(j->rule, amax);
    g->known = true;
    *scale = g->scale;
    return MQ_OK;
}

static mq_status put_module(job *j, size_t module, mq_error *error)
{
    const mq_dense *dense = &mq__weights_linear(j->weights, module)->dense;
    const size_t weights = (size_t)dense->n * dense->k_width;
    const mq_quantize_options *o = j->options;
    rows_task task = {.dense = dense, .rule = j->rule, .nibbles = j->nibbles, .scales = j->scales};
    if (o->progress && !o->progress(o->context, j->done, j->total)) {
        return mq__fail(error, MQ_CANCELLED, "quantize: %s: cancelled", o->in_dir);
    }
    mq_status s = group_scale_of(j, module, &task.scale, error);
    if (s != MQ_OK) return s;
    mq__pool_run(j->pool, quantize_rows, &task);
    j->done++;
    const float stored = o->layout == MQ_LAYOUT_MODELOPT ? task.scale.multiplier : task.scale.divisor;
    s = mq__checkpoint_put(&j->writer, j->nibbles, weights / 2, error);
    if (s == MQ_OK) s = mq__checkpoint_put(&j->writer, j->scales, weights / MQ_NVFP4_VALUES, error);
    if (s == MQ_OK) s = mq__checkpoint_put(&j->writer, &stored, sizeof stored, error);
    return s;
}

static mq_status put_tensors(job *j, mq_error *error)
{
    const mq_checkpoint *in = j->weights->dense;
    for (size_t s = 0; s < mq__checkpoint_shards(in); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(in, s);
        for (size_t i = 0; i < shard->count; i++) {
            const mq_tensor *t = &shard->tensors[i];
            const size_t module = find_module(j, t->name);
            const mq_status status = module < linear_count(j)
                                         ? put_module(j, module, error)
                                         : mq__checkpoint_put(&j->writer, t->data, t->bytes, error);
            if (status != MQ_OK) return status;
        }
    }
    return MQ_OK;
}

static mq_status open_job(job *j, mq_error *error)
{
    const mq_quantize_options *o = j->options;
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    mq_status s = mq__weights_open(o->in_dir, NULL, &j->weights, error);
    if (s == MQ_OK) s = mq__pool_new(o->threads ? o->threads : cpu.online, &j->pool, error);
    if (s != MQ_OK) return s;
    j->quantised = mq__alloc_zero(linear_count(j), sizeof *j->quantised);
    j->scale = mq__alloc_zero((size_t)j->weights->model.layers * MQ_GROUPS, sizeof *j->scale);
    j->ignored = json_array();
    if (j->quantised && j->scale && j->ignored) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", o->in_dir);
}

static void close_job(job *j)
{
    mq__checkpoint_discard(&j->writer);
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

static mq_nvfp4_rule rule_of(const mq_quantize_options *o)
{
    if (o->scales == MQ_SCALES_FOUR_SIX) return MQ_NVFP4_FOUR_SIX;
    if (o->scales == MQ_SCALES_SWEEP) return MQ_NVFP4_SWEEP;
    return o->layout == MQ_LAYOUT_MODELOPT ? MQ_NVFP4_MODELOPT : MQ_NVFP4_RTN;
}

mq_status mq_quantize_checkpoint(const mq_quantize_options *o, mq_error *error)
{
    if (!o->in_dir || !o->out_dir || (unsigned)o->layout >= MQ_LAYOUTS || (unsigned)o->scales >= MQ_SCALE_RULES) {
        return mq__fail(error, MQ_USAGE, "quantize: options: expected directories, a layout and a rule, got others");
    }
    job j = {.options = o, .rule = rule_of(o)};
    mq_status s = open_job(&j, error);
    if (s == MQ_OK) s = choose_modules(&j, error);
    if (s == MQ_OK) s = plan_specs(&j, error);
    if (s == MQ_OK) s = mq__checkpoint_create(o->out_dir, &j.writer, error);
    if (s == MQ_OK) s = mq__quantize_configs(&j.writer, o->in_dir, o->layout, j.ignored, error);
    if (s == MQ_OK) s = mq__quantize_copy_files(&j.writer, o->in_dir, error);
    if (s == MQ_OK) s = mq__checkpoint_declare(&j.writer, j.specs, j.spec_count, 0, error);
    if (s == MQ_OK) s = put_tensors(&j, error);
    if (s == MQ_OK) s = mq__checkpoint_finish(&j.writer, error);
    close_job(&j);
    return s;
}
