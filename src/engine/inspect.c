/* What a checkpoint is and what this engine would do with it, gathered as JSON; the text for people is made from that. */
#include "base/buf.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "format/checkpoint_locate.h"
#include "kernels/nvfp4_pack.h"
#include "mixquant_tools.h"

#include <string.h>

static json_t *number_inspect(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static uint64_t dense_bytes_inspect(const mq_dense *dense)
{
    return dense->data ? (uint64_t)dense->n * dense->k_width * (dense->type == MQ_DENSE_F32 ? 4 : 2) : 0;
}

static json_t *model_of_inspect(const mq_model_config *c)
{
    json_t *eos = json_array();
    for (size_t i = 0; i < c->eos_count; i++) {
        json_array_append_new(eos, json_integer(c->eos[i]));
    }
    const mq_rope_config *r = &c->rope;
    json_t *rope = json_pack("{ss sf}", "type", mq__rope_type_name(r->type), "theta", r->theta);
    if (r->type != MQ_ROPE_DEFAULT) json_object_set_new(rope, "factor", json_real(r->factor));
    if (r->original_positions) json_object_set_new(rope, "original_positions", number_inspect(r->original_positions));
    int delta_layers = 0;
    for (uint32_t l = 0; l < c->layers; l++) {
        delta_layers += c->layer[l].mixer == MQ_MIXER_GATED_DELTA;
    }
    static const char *const methods[] = {"none", "compressed-tensors", "modelopt"};
    return json_pack("{ss si si si si si si si si sb sb sb so so ss si}", "type",
                     mq__architecture_name(c->architecture), "layers", c->layers, "width", c->width, "ffn", c->ffn,
                     "heads", c->heads, "kv_heads", c->kv_heads, "head_dim", c->head_dim, "vocab", c->vocab,
                     "max_positions", c->max_positions, "tied_head", c->tied_head, "qkv_bias", c->qkv_bias, "qk_norm",
                     c->qk_norm, "rope", rope, "eos", eos, "quantization", methods[c->quant_method], "delta_layers",
                     delta_layers);
}

static json_int_t at(const json_t *report, const char *object, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(report, object), name));
}

/* What layers with a window, and those of a second kind, have. */
static void add_kinds(const mq_weights *w, json_t *model)
{
    const mq_model_config *c = &w->config;
    uint32_t windows = 0, global = 0;
    for (uint32_t l = 0; l < c->layers; l++) {
        windows += w->model.layer[l].window > 0;
        global += c->layer[l].global;
    }
    if (windows) json_object_set_new(model, "windows", json_pack("{si si}", "layers", windows, "positions", c->window));
    if (!global) return;
    const mq_attention_config *g = &c->global;
    json_object_set_new(model, "global",
                        json_pack("{si si si sb ss sf}", "layers", global, "kv_heads", g->kv_heads, "head_dim",
                                  g->head_dim, "k_eq_v", g->shares_kv, "rope", mq__rope_type_name(g->rope.type),
                                  "theta", g->rope.theta));
}

static void print_kinds(const json_t *model, mq_buf *b)
{
    const json_t *windows = json_object_get(model, "windows"), *global = json_object_get(model, "global");
    if (windows) {
        mq__buf_printf(b, "windows     %lld layers see %lld positions\n", (long long)at(model, "windows", "layers"),
                       (long long)at(model, "windows", "positions"));
    }
    if (global) {
        mq__buf_printf(b, "global      %lld layers: G %lld, K %lld%s, rope %s, theta %g\n",
                       (long long)at(model, "global", "layers"), (long long)at(model, "global", "kv_heads"),
                       (long long)at(model, "global", "head_dim"),
                       json_is_true(json_object_get(global, "k_eq_v")) ? ", K = V" : "",
                       json_string_value(json_object_get(global, "rope")),
                       json_real_value(json_object_get(global, "theta")));
    }
}

static json_t *files_of(const mq_checkpoint *c)
{
    uint64_t count[MQ_DTYPE_COUNT] = {0}, bytes[MQ_DTYPE_COUNT] = {0}, tensors = 0;
    json_t *types = json_object();
    for (size_t s = 0; s < mq__checkpoint_shards(c); s++) {
        const mq_safetensors *shard = mq__checkpoint_shard(c, s);
        for (size_t i = 0; i < shard->count; i++) {
            count[shard->tensors[i].dtype]++;
            bytes[shard->tensors[i].dtype] += shard->tensors[i].bytes;
        }
        tensors += shard->count;
    }
    for (int t = 0; t < MQ_DTYPE_COUNT; t++) {
        if (!count[t]) continue;
        json_object_set_new(types, mq__dtype_name((mq_dtype)t),
                            json_pack("{sI sI}", "tensors", (json_int_t)count[t], "bytes", (json_int_t)bytes[t]));
    }
    return json_pack("{so so so so}", "shards", number_inspect(mq__checkpoint_shards(c)), "tensors",
                     number_inspect(tensors), "bytes", number_inspect(mq__checkpoint_bytes(c)), "types", types);
}

typedef struct counts {
    uint64_t dense, nvfp4;                /* linear maps in the files by form */
    uint64_t prefill_nvfp4, prefill_bf16; /* what the default plan makes of them */
    uint64_t decode_bf16, decode_impossible;
    uint64_t weights, dense_bytes, packed_bytes;
} counts;

static counts count_linears(mq_weights *w)
{
    counts c = {0};
    for (size_t i = 0; i < w->module_count; i++) {
        const mq_linear *linear = w->module[i].linear;
        const bool packs = mq__weights_can_have(w, i, MQ_FACE_NVFP4);
        *(linear->dense.data ? &c.dense : &c.nvfp4) += 1;
        const mq_module *m = &w->module[i];
        const bool delta = mq__is_delta_group(w->config.layer[m->place.layer], m->rule->group);
        const bool runs = packs && (!delta || m->source.nibbles); /* Gated DeltaNet as published */
        *(runs ? &c.prefill_nvfp4 : &c.prefill_bf16) += 1;
        *(linear->dense.data ? &c.decode_bf16 : &c.decode_impossible) += 1;
        c.weights += (uint64_t)linear->n * linear->k_width;
        c.dense_bytes += dense_bytes_inspect(&linear->dense);
        if (packs) c.packed_bytes += mq__nvfp4_panel_bytes(linear->n, linear->k_width);
    }
    return c;
}

static json_t *report_of(mq_weights *w, const char *dir)
{
    const mq_model *m = &w->model;
    const counts c = count_linears(w);
    uint64_t kv = 0, windows = 0; /* bytes of keys and values: a token, and of all windows */
    for (uint32_t l = 0; l < m->layers; l++) {
        const mq_layer *layer = &m->layer[l];
        if (layer->kind.mixer != MQ_MIXER_ATTENTION) continue;
        const uint64_t token = (uint64_t)layer->kv_heads * layer->head_dim * 2 * sizeof(uint16_t);
        *(layer->window ? &windows : &kv) += token * (layer->window ? layer->window : 1);
    }
    json_t *linears = json_pack("{so so so}", "dense", number_inspect(c.dense), "nvfp4", number_inspect(c.nvfp4),
                                "weights", number_inspect(c.weights));
    json_t *prefill =
        json_pack("{so so}", "nvfp4", number_inspect(c.prefill_nvfp4), "bf16", number_inspect(c.prefill_bf16));
    json_t *decode =
        json_pack("{so so}", "bf16", number_inspect(c.decode_bf16), "w4a16", number_inspect(c.decode_impossible));
    json_t *bytes =
        json_pack("{so so so so so so so}", "mapped", number_inspect(mq__checkpoint_bytes(w->dense)), "linear_dense",
                  number_inspect(c.dense_bytes), "linear_packed", number_inspect(c.packed_bytes), "embedding",
                  number_inspect(dense_bytes_inspect(&m->embedding)), "kv_per_token", number_inspect(kv), "kv_windows",
                  number_inspect(windows), "state", number_inspect(mq__state_floats(m) * sizeof(float)));
    return json_pack("{ss so so so so s{so so} so}", "path", dir, "model", model_of_inspect(&w->config), "parameters",
                     number_inspect(mq__weights_parameters(w)), "files", files_of(w->dense), "linears", linears,
                     "phases", "prefill", prefill, "decode", decode, "bytes", bytes);
}

/* ---- the text */

static double mib(json_int_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void print_phases(const json_t *report, mq_buf *b)
{
    const json_t *phases = json_object_get(report, "phases");
    const json_int_t total = at(report, "linears", "dense") + at(report, "linears", "nvfp4");
    mq__buf_printf(b, "prefill     %lld of %lld linear layers in nvfp4, %lld in bf16\n",
                   (long long)at(phases, "prefill", "nvfp4"), (long long)total,
                   (long long)at(phases, "prefill", "bf16"));
    if (at(phases, "decode", "w4a16") == 0) {
        mq__buf_printf(b, "decode      all in bf16 (the checkpoint's own type)\n");
    } else {
        mq__buf_printf(b,
                       "decode      %lld in bf16; %lld have NVFP4 weights only: --decode w4a16, or use this as "
                       "--prefill-model\n",
                       (long long)at(phases, "decode", "bf16"), (long long)at(phases, "decode", "w4a16"));
    }
}

static void print_text(const json_t *report, mq_buf *b)
{
    const json_t *model = json_object_get(report, "model"), *rope = json_object_get(model, "rope");
    const char *name;
    json_t *type;
    mq__buf_printf(b, "model       %s, %.3f G parameters\n", json_string_value(json_object_get(model, "type")),
                   (double)json_integer_value(json_object_get(report, "parameters")) * 1e-9);
    mq__buf_printf(b, "shape       L %lld, D %lld, F %lld, H %lld, G %lld, K %lld, V %lld, positions %lld\n",
                   (long long)at(report, "model", "layers"), (long long)at(report, "model", "width"),
                   (long long)at(report, "model", "ffn"), (long long)at(report, "model", "heads"),
                   (long long)at(report, "model", "kv_heads"), (long long)at(report, "model", "head_dim"),
                   (long long)at(report, "model", "vocab"), (long long)at(report, "model", "max_positions"));
    mq__buf_printf(b, "variant     %s head, %s, %s\n",
                   json_is_true(json_object_get(model, "tied_head")) ? "tied" : "own",
                   json_is_true(json_object_get(model, "qkv_bias")) ? "biases on q, k, v" : "no biases on q, k, v",
                   json_is_true(json_object_get(model, "qk_norm")) ? "norms on q, k" : "no norms on q, k");
    mq__buf_printf(b, "rope        %s, theta %g", json_string_value(json_object_get(rope, "type")),
                   json_real_value(json_object_get(rope, "theta")));
    if (json_object_get(rope, "factor")) {
        mq__buf_printf(b, ", factor %g", json_real_value(json_object_get(rope, "factor")));
    }
    mq__buf_printf(b, "\n");
    print_kinds(model, b);
    mq__buf_printf(b, "quantized   %s\n", json_string_value(json_object_get(model, "quantization")));
    mq__buf_printf(b, "files       %lld, with %lld tensors, %.1f MiB mapped\n",
                   (long long)at(report, "files", "shards"), (long long)at(report, "files", "tensors"),
                   mib(at(report, "files", "bytes")));
    json_object_foreach(json_object_get(json_object_get(report, "files"), "types"), name, type)
    {
        mq__buf_printf(b, "  %-9s %lld tensors, %.1f MiB\n", name,
                       (long long)json_integer_value(json_object_get(type, "tensors")),
                       mib(json_integer_value(json_object_get(type, "bytes"))));
    }
    if (json_object_get(report, "unused")) {
        mq__buf_printf(b, "unused      %lld tensors, as %s\n", (long long)at(report, "unused", "tensors"),
                       json_string_value(json_object_get(json_object_get(report, "unused"), "first")));
    }
    if (json_object_get(report, "skipped")) {
        mq__buf_printf(b, "skipped     %lld tensors of vision, %lld of audio, %lld of mtp\n",
                       (long long)at(report, "skipped", "vision"), (long long)at(report, "skipped", "audio"),
                       (long long)at(report, "skipped", "mtp"));
    }
    print_phases(report, b);
    mq__buf_printf(b, "linear      %.1f MiB dense (mapped), %.1f MiB packed NVFP4\n",
                   mib(at(report, "bytes", "linear_dense")), mib(at(report, "bytes", "linear_packed")));
    mq__buf_printf(b, "embedding   %.1f MiB\nkv          %lld bytes per token", mib(at(report, "bytes", "embedding")),
                   (long long)at(report, "bytes", "kv_per_token"));
    if (at(report, "bytes", "kv_windows"))
        mq__buf_printf(b, ", and %.1f MiB of windows per sequence", mib(at(report, "bytes", "kv_windows")));
    mq__buf_puts(b, "\n");
    if (at(report, "bytes", "state")) {
        mq__buf_printf(b, "state       %.1f MiB per sequence, in %lld layers of Gated DeltaNet\n",
                       mib(at(report, "bytes", "state")), (long long)at(report, "model", "delta_layers"));
    }
}

/* Tensors without a use here, if there are any. */
static void add_unused(const mq_weights *w, json_t *report)
{
    const mq_unused *unused = &w->unused[MQ_COPY_PRECISE];
    if (unused->count == 0) return;
    json_object_set_new(report, "unused",
                        json_pack("{so ss}", "tensors", number_inspect(unused->count), "first", unused->first));
}

/* Tensors of other models, if there are any. */
static void add_skipped(const mq_weights *w, json_t *report)
{
    const mq_skipped *skipped = &w->skipped[MQ_COPY_PRECISE];
    if (skipped->vision + skipped->audio + skipped->mtp == 0) return;
    json_object_set_new(report, "skipped",
                        json_pack("{so so so}", "vision", number_inspect(skipped->vision), "audio",
                                  number_inspect(skipped->audio), "mtp", number_inspect(skipped->mtp)));
}

mq_status mq_inspect(const char *model_dir, bool json, char **text, mq_error *error)
{
    mq_weights *w = NULL;
    mq_buf b = {0};
    *text = NULL;
    if (!model_dir) return mq__fail(error, MQ_USAGE, "inspect: model: expected a directory, got none");
    char *dir;
    mq_status s = mq__checkpoint_locate(model_dir, true, &dir, error);
    if (s == MQ_OK) s = mq__weights_open(dir, NULL, &w, error);
    mq__free(dir);
    if (s != MQ_OK) return s;
    const unsigned long before = mq__json_failures();
    json_t *report = report_of(w, model_dir);
    add_unused(w, report);
    add_skipped(w, report);
    add_kinds(w, json_object_get(report, "model"));
    if (report && json) {
        if (mq__json_print(report, JSON_INDENT(1) | JSON_REAL_PRECISION(15), &b)) mq__buf_putc(&b, '\n');
    } else if (report) {
        print_text(report, &b);
    }
    json_decref(report);
    mq__weights_close(w);
    if (mq__json_failures() == before && !b.failed) *text = mq__buf_take(&b);
    if (!*text) s = mq__fail(error, MQ_NO_MEMORY, "inspect: %s: expected memory, got none", model_dir);
    mq__buf_free(&b);
    return s;
}
