#include "engine/engine.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/cache_dir.h"
#include "engine/kv_room.h"
#include "engine/tuning.h"
#include "format/checkpoint_locate.h"

#include <string.h>

/* ---- plans */

/* Groups that have no NVFP4 face run dense; groups that have no dense face can neither do that nor become INT8. */
static mq_status fit_plan(const mq_weights *w, const mq_plan_options *options, mq_phase_plan plan[MQ_PHASES],
                          mq_error *error)
{
    const mq_linear_format defaults[MQ_PHASES] = {options->prefill, options->decode};
    for (size_t i = 0; i < w->module_count; i++) {
        const uint32_t layer = w->module[i].place.layer;
        const mq_dense *dense = &w->module[i].linear->dense;
        for (int phase = 0; phase < MQ_PHASES; phase++) {
            uint8_t *format = &plan[phase].format[layer][w->module[i].rule->group];
            if (*format == MQ_LINEAR_AS_PUBLISHED)
                *format = (uint8_t)(w->module[i].source.nibbles ? defaults[phase] : MQ_LINEAR_BF16);
            if (*format == MQ_LINEAR_W16A16 && dense->type != MQ_DENSE_BF16) *format = MQ_LINEAR_BF16;
            if (mq__weights_can_have(w, i, mq__face_of(*format))) continue;
            if (mq__face_of(*format) == MQ_FACE_NVFP4) *format = MQ_LINEAR_BF16;
            if (dense->data) continue;
            if (w->module[i].source.nibbles && !w->packed_available[layer][w->module[i].rule->group]) {
                return mq__fail(error, MQ_UNSUPPORTED,
                                "plan: layer %u: expected all or none of its %s in NVFP4, got a part (give the "
                                "checkpoint as the prefill model of a dense one)",
                                layer, mq_linear_group_name(w->module[i].rule->group));
            }
            return mq__fail(error, MQ_UNSUPPORTED,
                            "plan: layer %u: expected dense weights for a %s %s, got an NVFP4 checkpoint (use "
                            "w4a16 or nvfp4, or give it as the prefill model)",
                            layer, mq_linear_format_name(*format), phase == MQ_PHASE_PREFILL ? "prefill" : "decode");
        }
    }
    return MQ_OK;
}

static bool phase_needs(const mq_weights *w, const mq_phase_plan *plan, mq_face face)
{
    for (uint32_t l = 0; l < w->model.layers; l++) {
        for (int g = 0; g < MQ_GROUPS; g++) {
            if (mq__face_of(plan->format[l][g]) == face) return true;
        }
    }
    return false;
}

static bool needs_face(const mq_weights *w, const mq_phase_plan plan[MQ_PHASES], mq_face face)
{
    return phase_needs(w, &plan[MQ_PHASE_PREFILL], face) || phase_needs(w, &plan[MQ_PHASE_DECODE], face);
}

/* Packs what the plan needs and does not have yet. */
static mq_status pack_for(mq_engine *e, const mq_phase_plan plan[MQ_PHASES], mq_error *error)
{
    const mq_packing how = {.rule = e->options.scales,
                            .pool = e->pool,
                            .cache_dir = e->options.no_cache ? NULL : e->cache_dir,
                            .log = e->options.log,
                            .log_context = e->options.log_context};
    mq_status status = MQ_OK;
    for (int face = MQ_FACE_DENSE + 1; status == MQ_OK && face < MQ_FACES; face++) {
        if (needs_face(e->weights, plan, (mq_face)face)) {
            status = mq__weights_pack(e->weights, (mq_face)face, &how, error);
        }
    }
    if (status == MQ_OK && plan[MQ_PHASE_DECODE].head != MQ_LINEAR_BF16) {
        status = mq__weights_pack_head(e->weights, &how, error);
    }
    for (int face = 0; status == MQ_OK && e->placed && face < MQ_FACES; face++) {
        if (face == MQ_FACE_DENSE || needs_face(e->weights, plan, (mq_face)face)) /* the head is dense */
            status = mq__weights_place(e->weights, (mq_face)face, e->pool, error);
    }
    return status;
}

/* ---- weights on their way to large pages */

#define SETTLE_FROM  ((uint64_t)64 << 20) /* bytes of a decode step: what caches hold gains nothing */
#define SETTLE_AFTER 512 /* decode steps that read all of it: the move takes as long as 40, and saves 2 to 10% */
#define SETTLE_SLICE ((size_t)16 << 20) /* bytes a step: some milliseconds */

/* Also what draft steps read. */
static bool decoding_reads(const mq_engine *e, mq_face face)
{
    return phase_needs(e->weights, &e->plan->phase[MQ_PHASE_DECODE], face) || (e->draft && face == MQ_FACE_NVFP4);
}

static uint64_t settle_bytes(const mq_engine *e, bool experts)
{
    uint64_t total = 0;
    for (int face = 0; face < MQ_FACES; face++) {
        total += decoding_reads(e, (mq_face)face) ? mq__weights_settle_bytes(e->weights, (mq_face)face, experts) : 0;
    }
    return total;
}

/* Of what decoding reads (the head only with dense layers), where large pages are to be had and memory is plentiful: with the
 * experts, of which each step reads others, or without. */
void mq__engine_settle_begin(mq_engine *e)
{
    mq_engine_info info;
    mq_engine_describe(e, &info);
    const uint64_t plenty = mq__memory_available() / 2;
    const bool experts = settle_bytes(e, true) <= plenty;
    const uint64_t bytes = settle_bytes(e, experts);
    e->settle_after = SETTLE_AFTER;
    if (bytes > info.decode_bytes && info.decode_bytes > 0) e->settle_after = SETTLE_AFTER * bytes / info.decode_bytes;
    e->settling = e->options.placement == MQ_PLACEMENT_AUTO && !e->placed && info.decode_bytes >= SETTLE_FROM &&
                  mq__large_pages();
    for (int face = 0; e->settling && bytes <= plenty && face < MQ_FACES; face++) {
        if (decoding_reads(e, (mq_face)face)) mq__weights_settle_begin(e->weights, (mq_face)face, experts);
    }
}

/* Moves about so many bytes; true while some are left. */
static bool settle_engine(mq_engine *e, size_t bytes)
{
    for (int face = 0; face < MQ_FACES; face++) {
        if (!decoding_reads(e, (mq_face)face)) continue;
        if (mq__weights_settle(e->weights, (mq_face)face, e->pool, bytes)) return true;
    }
    return false;
}

void mq__engine_stepped(mq_engine *e)
{
    if (e->settling && ++e->steps > e->settle_after) e->settling = settle_engine(e, SETTLE_SLICE);
}

void mq_engine_settle(mq_engine *e)
{
    while (e->settling) {
        e->settling = settle_engine(e, SIZE_MAX);
    }
}

/* ---- the engine's plans */

#define PLANS_MAX 256

static bool same_plan(const mq_plan *a, const mq_plan *b, uint32_t layers)
{
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        const mq_phase_plan *x = &a->phase[phase], *y = &b->phase[phase];
        if (x->attention != y->attention || x->head != y->head ||
            memcmp(x->format, y->format, layers * sizeof *x->format) != 0)
            return false;
    }
    return a->prefill == b->prefill && a->decode == b->decode;
}

/* The engine's plan that equals `plan`, whose arrays it takes over or frees. */
static mq_status keep_plan(mq_engine *e, mq_plan *plan, const mq_plan **kept, mq_error *error)
{
    for (*kept = e->plans; *kept; *kept = (*kept)->next) {
        if (!same_plan(*kept, plan, e->weights->model.layers)) continue;
        mq__plan_free(plan->phase);
        return MQ_OK;
    }
    mq_plan *own = e->plan_count < PLANS_MAX ? mq__alloc_zero(1, sizeof *own) : NULL;
    if (!own) {
        mq__plan_free(plan->phase);
        return e->plan_count < PLANS_MAX
                   ? mq__fail(error, MQ_NO_MEMORY, "plan: expected memory, got none")
                   : mq__fail(error, MQ_LIMIT, "plan: expected at most %d plans of one engine, got another", PLANS_MAX);
    }
    *own = *plan;
    own->id = ++e->plan_count;
    own->next = e->plans;
    *kept = e->plans = own;
    return MQ_OK;
}

mq_status mq_engine_plan(mq_engine *engine, const mq_plan_options *options, const mq_plan **plan, mq_error *error)
{
    mq_plan read = {.prefill = options->prefill, .decode = options->decode};
    mq_status status =
        mq__plan_read(options, engine->weights->config.layer, engine->weights->model.layers, read.phase, error);
    if (status != MQ_OK) return status;
    status = fit_plan(engine->weights, options, read.phase, error);
    if (status == MQ_OK) status = pack_for(engine, read.phase, error);
    if (status == MQ_OK) return keep_plan(engine, &read, plan, error);
    mq__plan_free(read.phase);
    return status;
}

mq_status mq_engine_set_plan(mq_engine *engine, const mq_plan_options *options, mq_error *error)
{
    const mq_plan *plan;
    const mq_status status = mq_engine_plan(engine, options, &plan, error);
    if (status != MQ_OK) return status;
    engine->plan = plan;
    mq__engine_settle_begin(engine);
    return MQ_OK;
}

static void free_plans(mq_engine *e)
{
    while (e->plans) {
        mq_plan *next = e->plans->next;
        mq__plan_free(e->plans->phase);
        mq__free(e->plans);
        e->plans = next;
    }
}

/* ---- opening */

static mq_status copy_options(mq_engine *e, const mq_engine_options *options, mq_error *error)
{
    const char *second = options->prefill_model_dir;
    e->options = *options;
    mq_status s = mq__checkpoint_locate(options->model_dir, true, &e->model_dir, error);
    if (s == MQ_OK && second) s = mq__checkpoint_locate(second, true, &e->prefill_model_dir, error);
    if (s != MQ_OK) return s;
    mq_error trouble = {0};
    s = mq__cache_dir(options->cache_dir, &e->cache_dir, &trouble);
    if (s == MQ_NO_MEMORY || (s != MQ_OK && options->cache_dir)) return mq__fail(error, s, "%s", trouble.text);
    /* Without a home there is no cache. */
    e->options.model_dir = e->model_dir;
    e->options.prefill_model_dir = e->prefill_model_dir;
    e->options.cache_dir = e->cache_dir;
    e->options.plan.file = NULL; /* read during open, not kept */
    return MQ_OK;
}

static mq_status allocate_engine(mq_engine *e, mq_error *error)
{
    const mq_model *m = &e->weights->model;
    const size_t rows = mq__engine_rows(e);
    e->batch_logits = mq__alloc_aligned(MQ_DECODE_ROWS * mq__round_up(m->vocab, MQ_NVFP4_NR) * sizeof *e->batch_logits);
    bool complete = e->batch_logits != NULL;
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        mq_pass_rows *pass = &e->pass[phase];
        pass->tokens = mq__alloc_zero(rows, sizeof *pass->tokens);
        pass->segments = mq__alloc_zero(rows, sizeof *pass->segments);
        pass->owner = mq__alloc_zero(rows, sizeof(mq_rows *));
        complete = complete && pass->tokens && pass->segments && pass->owner;
    }
    if (complete) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "engine: rows of a pass: expected memory, got none");
}

/* ---- recurrent state: a snapshot every so many tokens, and places for those of each context that the KV pool holds */

#define SNAPSHOTS    16  /* of a whole context, */
#define BETWEEN      6   /* and beside those */
#define INTERVAL_MIN 256 /* tokens */

static mq_status start_states(mq_engine *e, mq_error *error)
{
    const uint64_t tokens = (uint64_t)mq__engine_kv_room(e).blocks * MQ_PAGE_TOKENS,
                   contexts = (tokens + e->context - 1) / e->context;
    e->state_floats = e->kv_layout.state_floats;
    if (!e->state_floats) return MQ_OK;
    const uint32_t even = (e->context / SNAPSHOTS + MQ_PAGE_TOKENS - 1) / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
    e->state_interval = even > INTERVAL_MIN ? even : INTERVAL_MIN;
    /* and a third as many for those between (mq__kv_state_take_between): ends of turns, of the prompt, of the answer */
    const uint64_t bytes = e->state_floats * sizeof(float), asked = e->options.state_bytes / bytes;
    const uint64_t wanted = contexts * (SNAPSHOTS + BETWEEN), most = mq__memory_total() / 4 / bytes;
    const uint64_t count = e->options.state_bytes ? asked : wanted < most ? wanted : most;
    return mq__kv_states_new(e->kv, e->state_floats, (uint32_t)(count < 1 ? 1 : count < 65536 ? count : 65536), error);
}

static mq_status start_kv(mq_engine *e, mq_error *error)
{
    const mq_kv_room room = mq__engine_kv_room(e);
    const mq_status s = mq__kv_pool_new(&e->kv_layout, room.blocks, &e->kv, error);
    return s == MQ_OK && room.windows ? mq__kv_windows_new(e->kv, room.windows, error) : s;
}

static mq_status start_engine(mq_engine *e, mq_error *error)
{
    const mq_model *m = &e->weights->model;
    mq_status s = mq__engine_lay_out_kv(e, error);
    if (s == MQ_OK) s = mq__engine_choose_context(e, error);
    if (s == MQ_OK) s = start_kv(e, error);
    if (s == MQ_OK) {
        s = mq__runtime_new(m, &e->kv_layout, e->kernels, e->pool, e->chunk, e->context, &e->runtime, error);
    }
    if (s == MQ_OK) s = start_states(e, error);
    return s == MQ_OK ? allocate_engine(e, error) : s;
}

static void log_unused(const mq_engine *e)
{
    char line[480];
    for (int copy = 0; e->options.log && copy < MQ_COPIES; copy++) {
        if (mq__weights_unused_text(e->weights, (mq_copy)copy, line, sizeof line)) {
            e->options.log(e->options.log_context, line);
        }
    }
}

mq_status mq_engine_open(const mq_engine_options *options, mq_engine **out, mq_error *error)
{
    *out = NULL;
    if (!options->model_dir) return mq__fail(error, MQ_USAGE, "engine: model: expected a directory, got none");
    mq_engine *e = mq__alloc_zero(1, sizeof *e);
    if (!e) return mq__fail(error, MQ_NO_MEMORY, "engine: expected memory, got none");
    mq_isa isa;
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    mq_status s = copy_options(e, options, error);
    if (s == MQ_OK) s = mq__cpu_choose_isa(&isa, error);
    if (s == MQ_OK) s = mq__tuned_kernels(isa, e->cache_dir, &e->tuned, error);
    if (s == MQ_OK) {
        e->kernels = &e->tuned;
        s = mq__pool_new(options->threads ? options->threads : cpu.threads, &e->pool, error);
    }
    e->placed = options->placement == MQ_PLACEMENT_COPY || (options->placement == MQ_PLACEMENT_AUTO && cpu.nodes > 1);
    if (s == MQ_OK && e->placed) mq__pool_bind(e->pool);
    if (s == MQ_OK) s = mq__weights_open(e->model_dir, e->prefill_model_dir, &e->weights, error);
    if (s == MQ_OK) log_unused(e);
    if (s == MQ_OK) s = start_engine(e, error);
    if (s == MQ_OK) s = mq_engine_set_plan(e, &options->plan, error);
    if (s != MQ_OK) {
        mq_engine_close(e);
        return s;
    }
    *out = e;
    return MQ_OK;
}

void mq_engine_close(mq_engine *e)
{
    if (!e) return;
    mq__free_aligned(e->batch_logits);
    for (int phase = 0; phase < MQ_PHASES; phase++) {
        mq__free(e->pass[phase].tokens);
        mq__free(e->pass[phase].segments);
        mq__free(e->pass[phase].owner);
    }
    mq__draft_head_free(e->draft_head);
    mq__runtime_free(e->runtime);
    mq__kv_pool_free(e->kv);
    free_plans(e);
    mq__kv_layout_free(&e->kv_layout);
    mq__weights_close(e->weights);
    mq__pool_free(e->pool);
    mq__free(e->model_dir);
    mq__free(e->prefill_model_dir);
    mq__free(e->cache_dir);
    mq__free(e);
}

/* ---- describing */

static uint64_t dense_bytes_engine(const mq_dense *d)
{
    return (uint64_t)d->n * d->k_width * (d->type == MQ_DENSE_F32 ? 4 : 2);
}

void mq_engine_describe(const mq_engine *e, mq_engine_info *info)
{
    mq_weights *w = e->weights;
    const mq_model *m = &w->model;
    *info = (mq_engine_info){
        .vocab = m->vocab,
        .width = m->width,
        .ffn = m->ffn,
        .layers = m->layers,
        .heads = m->heads,
        .kv_heads = w->config.kv_heads,
        .head_dim = w->config.head_dim,
        .context = e->context,
        .chunk = e->chunk,
        .last = mq__engine_last(e),
        .max_positions = w->config.max_positions,
        .threads = mq__pool_threads(e->pool),
        .isa = mq__isa_name(e->kernels->isa),
        .model_type = mq__architecture_name(w->config.architecture),
        .mapped_bytes = mq__checkpoint_bytes(w->dense),
        .packed_bytes = w->face[MQ_FACE_NVFP4].bytes + w->face[MQ_FACE_INT8].bytes + w->face[MQ_FACE_FP8].bytes,
        .kv_bytes_per_token = e->kv_layout.block_elements * sizeof(uint16_t) / MQ_PAGE_TOKENS,
        .state_bytes = e->state_floats * sizeof(float),
        .state_interval = e->state_interval,
        .kv_tokens = (uint64_t)mq__engine_kv_room(e).blocks * MQ_PAGE_TOKENS,
        .bos = w->config.bos,
        .eos = w->eos,
        .eos_count = w->eos_count,
        .suggested = w->config.suggested,
        .has_suggested = w->config.suggested_fields != 0,
        .attention = e->plan->phase[MQ_PHASE_PREFILL].attention,
        .prefill = e->plan->prefill,
        .decode = e->plan->decode,
    };
    info->head_weights = (uint64_t)m->vocab * m->width;
    const mq_face head = mq__face_of(e->plan->phase[MQ_PHASE_DECODE].head);
    info->decode_bytes = head == MQ_FACE_DENSE ? dense_bytes_engine(&m->head.dense) : mq__face_bytes(head, &m->head);
    if (w->head_panels) info->packed_bytes += mq__face_bytes(MQ_FACE_NVFP4, &m->head);
    for (size_t i = 0; i < w->module_count; i++) {
        const mq_linear *linear = w->module[i].linear;
        const uint8_t format =
            e->plan->phase[MQ_PHASE_DECODE].format[w->module[i].place.layer][w->module[i].rule->group];
        const mq_face face = mq__face_of((mq_linear_format)format);
        const uint64_t bytes =
            face == MQ_FACE_DENSE ? dense_bytes_engine(&linear->dense) : mq__face_bytes(face, linear);
        if (!mq__module_is_used(w, &w->module[i])) continue;
        info->linear_weights += (uint64_t)linear->n * linear->k_width;
        info->decode_bytes += bytes;
    }
    info->parameters = mq__weights_parameters(w);
}
