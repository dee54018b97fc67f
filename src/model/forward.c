/* The forward pass, in the order of the papers: Llama (RMSNorm, rotary GQA attention, SwiGLU), Qwen2 (biases on q, k, v),
 * Qwen3 (norms on q and k), Qwen3-MoE (experts in place of the MLP), Qwen3.5 (Gated DeltaNet in most layers), Gemma (norms after
 * each part, GELU).
 *
 * Where NVFP4 ends and BF16 begins: every linear group asks the pass's phase plan for its format. Under Mix-Quant the
 * prefill plan answers NVFP4 and the decode plan BF16 (Mix-Quant, section 3.2). Norms are those of the copy whose linear layers
 * read them, embedding and lm_head are the same in both phases. All activations between the linear layers are FP32; the KV cache is BF16. */
#include "model/forward.h"

#include "model/residual.h"

#include <assert.h>
#include <math.h>

static mq_linear_format format_of_forward(const mq_pass *pass, uint32_t layer, mq_linear_group group)
{
    return (mq_linear_format)pass->plan.format[layer][group];
}

/* The copy that linear layers in this format belong to. */
static mq_copy copy_of(mq_linear_format format)
{
    return mq__face_of(format) == MQ_FACE_NVFP4 ? MQ_COPY_NVFP4 : MQ_COPY_PRECISE;
}

/* cos, sin of a row's position. */
static void turn_row(const mq_runtime *rt, const mq_rope *rope, size_t row, float *cosines, float *sines)
{
    for (size_t j = 0; j < rope->width / 2; j++) {
        /* In double: at position 100,000 a float angle would be off by 0.004 rad. */
        const double angle = (double)rt->rows->position[row] * (double)rope->inv_freq[j];
        cosines[j] = (float)cos(angle) * rope->factor;
        sines[j] = (float)sin(angle) * rope->factor;
    }
}

/* h = embedding rows; cos, sin of each row's position. */
static void embed(void *context, int thread, int threads)
{
    mq_runtime *rt = context;
    const mq_model *m = rt->model;
    const mq_pass *pass = rt->pass;
    const size_t element = m->embedding.type == MQ_DENSE_F32 ? 4 : 2;
    size_t begin, end;
    mq__partition(pass->rows, thread, threads, &begin, &end);
    for (size_t row = begin; row < end; row++) {
        const uint8_t *source = (const uint8_t *)m->embedding.data + (size_t)pass->tokens[row] * m->width * element;
        float *h = rt->rows->h + row * m->width;
        rt->kernels->dense_to_f32(h, source, m->embedding.type, m->width);
        for (size_t i = 0; m->embedding_scale != 1 && i < m->width; i++) {
            h[i] *= m->embedding_scale;
        }
        for (uint32_t r = 0; r < m->ropes; r++) {
            const size_t at = row * (m->rope[r].width / 2);
            turn_row(rt, &m->rope[r], row, rt->rows->cos[r] + at, rt->rows->sin[r] + at);
        }
    }
}

/* ---- what a layer's lines below are made of */

/* rmsnorm(h) with the weights of the copy whose linear layers read it. */
static mq_input rms_norm(const mq_runtime *rt, const float *const norm[MQ_COPIES], mq_linear_format format)
{
    return (mq_input){.kind = MQ_INPUT_NORM,
                      .norm_weight = norm[copy_of(format)],
                      .rows = rt->x,
                      .width = rt->model->width,
                      .count = rt->pass->rows};
}

static mq_input attended(const mq_runtime *rt, uint32_t l)
{
    const uint32_t width = rt->model->heads * rt->model->layer[l].head_dim;
    return (mq_input){.kind = MQ_INPUT_PLAIN, .rows = rt->x, .width = width, .count = rt->pass->rows};
}

static mq_input gated_heads(const mq_runtime *rt, uint32_t l)
{
    mq_input input = attended(rt, l);
    if (rt->model->output_gate) input.kind = MQ_INPUT_GATED_HEADS;
    return input;
}

static mq_input gated_norm(const mq_runtime *rt, const float *norm)
{
    const mq_delta_sizes *d = &rt->model->delta;
    return (mq_input){.kind = MQ_INPUT_GATED_NORM,
                      .norm_weight = norm,
                      .rows = rt->x,
                      .width = d->value_heads * d->value_dim,
                      .count = rt->pass->rows};
}

/* The normed rows that a dense layer has left in x. */
static mq_input kept(const mq_runtime *rt)
{
    return (mq_input){.kind = MQ_INPUT_PLAIN, .rows = rt->x, .width = rt->model->width, .count = rt->pass->rows};
}

static mq_input gated(const mq_runtime *rt)
{
    return (mq_input){.kind = MQ_INPUT_GATED, .rows = rt->gate, .width = rt->model->ffn, .count = rt->pass->rows};
}

/* outputs = linear(input), in the plan's format. */
static void linear(mq_runtime *rt, uint32_t l, mq_linear_group group, mq_input input, const mq_output *outputs,
                   int count)
{
    const mq_observer *observer = rt->pass->observer;
    mq__linear_group(rt, format_of_forward(rt->pass, l, group), input, outputs, count);
    if (observer && observer->linear) {
        observer->linear(observer->context, l, group, input.rows, input.count, input.width);
    }
}

/* ---- the layer: h = h + attention(norm(h)); h = h + mlp(norm(h)). In some families what each part gives is normed before it
 * is added. */

/* Where a part's last linear layer writes: into the residual stream, or, with a norm after it, beside it. */
static mq_output result(const mq_runtime *rt, const mq_linear *last, const float *post_norm)
{
    return (mq_output){last, post_norm ? rt->branch : rt->rows->h, !post_norm};
}

static void attention_forward(mq_runtime *rt, uint32_t l)
{
    const mq_layer *w = &rt->model->layer[l];
    const mq_input x = rms_norm(rt, w->attention_norm, format_of_forward(rt->pass, l, MQ_GROUP_QKV));
    const mq_output q = {&w->q, rt->model->output_gate ? rt->gated_q : rt->q, false}, k = {&w->k, rt->k, false},
                    v = {&w->v, rt->v, false};
    const mq_output h = result(rt, &w->o, w->attention_post_norm);

    linear(rt, l, MQ_GROUP_QKV, x, (mq_output[]){q, k, v}, w->v.n ? 3 : 2); /* q, k, v = qkv(x) */
    mq__attention(rt, l);                                 /* q, k = rope(norm(q)), rope(norm(k)); store k, v;
                                                             a = softmax(q k / sqrt(K)) v */
    linear(rt, l, MQ_GROUP_O, gated_heads(rt, l), &h, 1); /* h += o(a), Qwen3.5: o(a * sigmoid(gate)) */
    if (w->attention_post_norm) mq__add_branch(rt, w->attention_post_norm, NULL);
}

/* Gated DeltaNet, in the place of attention. */
static void gated_delta_forward(mq_runtime *rt, uint32_t l)
{
    const mq_delta_layer *w = &rt->model->layer[l].delta;
    const mq_linear_format format = format_of_forward(rt->pass, l, MQ_GROUP_QKV);
    const mq_copy copy = copy_of(format);
    mq_input x = rms_norm(rt, rt->model->layer[l].attention_norm, format);
    const mq_output a = {&w->a[copy], rt->delta->decay, false}, b = {&w->b[copy], rt->delta->beta, false};
    const mq_output qkv = {&w->qkv, rt->delta->u, false}, z = {&w->z, rt->delta->z, false};
    const mq_output h = {&w->out, rt->rows->h, true};

    x.keep = true;
    mq__linear_group(rt, MQ_LINEAR_BF16, x, (mq_output[]){a, b}, 2); /* a, b = in_a(x), in_b(x), in FP32 */
    linear(rt, l, MQ_GROUP_QKV, kept(rt), (mq_output[]){qkv, z}, 2); /* u, z = in_qkv(x), in_z(x) */
    mq__gated_delta(rt, l);                                          /* q, k, v = silu(conv(u)); o = delta rule */
    linear(rt, l, MQ_GROUP_O, gated_norm(rt, w->norm), &h, 1);       /* h += out(norm(o) * silu(z)) */
}

/* to: where down writes. */
static void dense_mlp(mq_runtime *rt, uint32_t l, mq_output to)
{
    const mq_layer *w = &rt->model->layer[l];
    const mq_input x = rms_norm(rt, w->mlp_norm, format_of_forward(rt->pass, l, MQ_GROUP_GATE_UP));
    const mq_output gate = {&w->mlp.gate, rt->gate, false}, up = {&w->mlp.up, rt->up, false};

    linear(rt, l, MQ_GROUP_GATE_UP, x, (mq_output[]){gate, up}, 2); /* gate, up = gate_up(x) */
    linear(rt, l, MQ_GROUP_DOWN, gated(rt), &to, 1);                /* h += down(f(gate) * up) */
}

static void mlp_forward(mq_runtime *rt, uint32_t l)
{
    const mq_layer *w = &rt->model->layer[l];
    dense_mlp(rt, l, result(rt, &w->mlp.down, w->mlp_post_norm));
    if (w->mlp_post_norm) mq__add_branch(rt, w->mlp_post_norm, w->scalar);
}

static void observe_experts(const mq_runtime *rt, uint32_t l)
{
    const mq_observer *observer = rt->pass->observer;
    const mq_model *m = rt->model;
    const uint32_t rows = rt->pass->rows;
    if (!observer || !observer->linear) return;
    observer->linear(observer->context, l, MQ_GROUP_GATE_UP, rt->x, rows, m->width);
    observer->linear(observer->context, l, MQ_GROUP_DOWN, mq__experts_activations(rt->experts),
                     rows * m->experts_per_token, m->expert_ffn);
}

/* h += sigmoid(gate) * down(silu(gate(x)) * up(x)); the gate and x are there. */
static void shared_expert_forward(mq_runtime *rt, uint32_t l)
{
    const mq_layer *w = &rt->model->layer[l];
    const mq_output gate = {&w->mlp.gate, rt->gate, false}, up = {&w->mlp.up, rt->up, false};
    const mq_output y = {&w->mlp.down, mq__experts_shared(rt->experts), false};

    mq__linear_group(rt, format_of_forward(rt->pass, l, MQ_GROUP_GATE_UP), kept(rt), (mq_output[]){gate, up}, 2);
    mq__linear_group(rt, format_of_forward(rt->pass, l, MQ_GROUP_DOWN), gated(rt), &y, 1);
    mq__experts_add_shared(rt);
}

static void experts_forward(mq_runtime *rt, uint32_t l)
{
    const mq_layer *w = &rt->model->layer[l];
    const mq_linear_format gate_up = format_of_forward(rt->pass, l, MQ_GROUP_GATE_UP);
    const mq_linear_format down = format_of_forward(rt->pass, l, MQ_GROUP_DOWN);
    const mq_copy copy = copy_of(gate_up);
    mq_input x = rms_norm(rt, w->mlp_norm, gate_up);
    const mq_output logits = {&w->router[copy], mq__experts_logits(rt->experts), false};
    const mq_output shared = {&w->shared_gate[copy], mq__experts_shared_gate(rt->experts), false};
    const bool has_shared = rt->model->shared_expert;
    x.keep = true; /* the experts read it, too */

    mq__linear_group(rt, MQ_LINEAR_BF16, x, (mq_output[]){logits, shared}, has_shared ? 2 : 1);
    mq__experts_route(rt, w); /* p = softmax(router(x)), in FP32; each row: its experts e, their weights p_e */
    mq__experts_gate_up(rt, w, gate_up); /* gate_e, up_e = gate_up_e(x) */
    mq__experts_down(rt, w, down);       /* y_e = down_e(silu(gate_e) * up_e) */
    mq__experts_combine(rt, w);          /* h += sum of p_e y_e */
    observe_experts(rt, l);
    if (has_shared) shared_expert_forward(rt, l); /* h += sigmoid(shared_gate(x)) shared(x) */
}

/* Gemma 4: a dense MLP and experts side by side, each with norms of its own; the router reads h. Observers see the dense one. */
static void parallel_forward(mq_runtime *rt, uint32_t l)
{
    const mq_layer *w = &rt->model->layer[l];
    const mq_linear_format gate_up = format_of_forward(rt->pass, l, MQ_GROUP_GATE_UP);
    const mq_linear_format down = format_of_forward(rt->pass, l, MQ_GROUP_DOWN);
    const mq_copy copy = copy_of(gate_up);
    const mq_input x = rms_norm(rt, w->router_norm, gate_up);
    const mq_output logits = {&w->router[copy], mq__experts_logits(rt->experts), false};

    dense_mlp(rt, l, (mq_output){&w->mlp.down, rt->branch, false}); /* b = mlp(norm(h)) */
    mq__norm_rows(rt, rt->branch, w->dense_post_norm, rt->branch);  /* b = norm1(b) */
    mq__linear_group(rt, MQ_LINEAR_BF16, x, &logits, 1);            /* p = softmax(router(norm(h))), in FP32 */
    mq__experts_route(rt, w);                                       /* each row: its experts e and their weights p_e */
    mq__norm_rows(rt, rt->rows->h, w->experts_norm[copy], rt->x);   /* x = norm2(h) */
    mq__experts_gate_up(rt, w, gate_up);                            /* gate_e, up_e = gate_up_e(x) */
    mq__experts_down(rt, w, down);                                  /* y_e = down_e(gelu(gate_e) * up_e) */
    mq__experts_combine(rt, w);                                     /* b += norm2(sum of p_e y_e) */
    mq__add_branch(rt, w->mlp_post_norm, w->scalar);                /* h = (h + norm(b)) * scalar */
}

static void layer_forward(mq_runtime *rt, uint32_t l)
{
    if (rt->model->layer[l].kind.mixer == MQ_MIXER_GATED_DELTA)
        gated_delta_forward(rt, l);
    else
        attention_forward(rt, l);
    if (rt->model->layer[l].experts_post_norm)
        parallel_forward(rt, l);
    else if (rt->model->layer[l].kind.mlp == MQ_MLP_EXPERTS)
        experts_forward(rt, l);
    else
        mlp_forward(rt, l);
}

/* Others run now; this pass goes on where it was. */
static void give_way(mq_runtime *rt, const mq_pass *pass, uint32_t layers)
{
    pass->interlude->call(pass->interlude->context, layers);
    mq__pass_enter(rt, pass);
}

void mq__forward(mq_runtime *rt, mq_pass *pass)
{
    assert(pass->rows <= rt->max_rows && (pass->phase == MQ_PHASE_PREFILL || pass->rows <= MQ_DECODE_ROWS));
    rt->clock.passes[pass->phase]++;
    mq__pass_enter(rt, pass);
    mq__pass_begin(rt, pass);
    mq__pool_run(rt->pool, embed, rt);
    mq__lap(rt, MQ_STAGE_EMBED);
    for (uint32_t l = 0; l < rt->model->layers; l++) {
        if (l > 0 && pass->interlude) give_way(rt, pass, l);
        if (!mq__pass_continues(rt, pass)) return;
        layer_forward(rt, l);
    }
}

void mq__logits(mq_runtime *rt, const mq_pass *pass, uint32_t row, uint32_t rows, float *logits)
{
    assert(row + rows <= pass->rows);
    mq__pass_enter(rt, pass);
    rt->clock.head = true;
    const mq_linear *head = pass->draft_head ? pass->draft_head : &rt->model->head;
    mq__linear_group(rt, pass->draft_head ? MQ_LINEAR_NVFP4 : pass->plan.head,
                     (mq_input){.kind = MQ_INPUT_NORM,
                                .norm_weight = rt->model->final_norm,
                                .rows = rt->x,
                                .width = rt->model->width,
                                .row0 = row,
                                .count = rows},
                     (mq_output[]){{head, logits, false}}, 1);
    if (rt->model->logit_cap > 0) mq__cap_logits(rt, logits, (size_t)rows * head->n);
    rt->clock.head = false;
}
