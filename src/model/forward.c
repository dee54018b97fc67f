/* The forward pass, in the order of the papers: Llama (RMSNorm, rotary GQA attention, SwiGLU), Qwen2 (biases on q, k, v),
 * Qwen3 (norms on q and k).
 *
 * Where NVFP4 ends and BF16 begins: every linear group asks the pass's phase plan for its format. Under Mix-Quant the
 * prefill plan answers NVFP4 and the decode plan BF16 (Mix-Quant, section 3.2); embedding, norms, attention and lm_head
 * are the same in both phases. All activations between the linear layers are FP32; the KV cache is BF16. */
#include "model/forward.h"

#include "model/runtime.h"

#include <assert.h>
#include <math.h>

static mq_linear_format format_of_forward(const mq_pass *pass, uint32_t layer, mq_linear_group group)
{
    return (mq_linear_format)pass->plan.format[layer][group];
}

/* Norm weights of the copy that the following linear layers belong to. */
static const float *norm_of(const float *const norm[MQ_COPIES], mq_linear_format format)
{
    return norm[mq__face_of(format) == MQ_FACE_NVFP4 ? MQ_COPY_NVFP4 : MQ_COPY_PRECISE];
}

/* h = embedding rows; cos, sin of each row's position. */
static void embed(void *context, int thread, int threads)
{
    mq_runtime *rt = context;
    const mq_model *m = rt->model;
    const mq_pass *pass = rt->pass;
    const size_t half = m->head_dim / 2;
    const size_t element = m->embedding.type == MQ_DENSE_F32 ? 4 : 2;
    size_t begin, end;
    mq__partition(pass->rows, thread, threads, &begin, &end);
    for (size_t row = begin; row < end; row++) {
        const uint8_t *source = (const uint8_t *)m->embedding.data + (size_t)pass->tokens[row] * m->width * element;
        rt->kernels->dense_to_f32(rt->h + row * m->width, source, m->embedding.type, m->width);
        for (size_t j = 0; j < half; j++) {
            /* In double: at position 100,000 a float angle would be off by 0.004 rad. */
            const double angle = (double)rt->position[row] * (double)m->inv_freq[j];
            rt->cos[row * half + j] = (float)cos(angle) * m->rope_factor;
            rt->sin[row * half + j] = (float)sin(angle) * m->rope_factor;
        }
    }
}

/* One linear group of a layer in the plan's format. */
static void linear(mq_runtime *rt, uint32_t l, mq_linear_group group, mq_input input, const mq_output *outputs,
                   int count)
{
    const mq_observer *observer = rt->pass->observer;
    mq__linear_group(rt, format_of_forward(rt->pass, l, group), input, outputs, count);
    if (observer && observer->linear) {
        observer->linear(observer->context, l, group, input.rows, input.count, input.width);
    }
}

static void layer_forward(mq_runtime *rt, uint32_t l)
{
    const mq_model *m = rt->model;
    const mq_pass *pass = rt->pass;
    const mq_layer *w = &m->layer[l];
    const uint32_t rows = pass->rows;

    /* h += o(attention(q, k, v)), with q, k, v = linear(norm(h)) */
    linear(rt, l, MQ_GROUP_QKV,
           (mq_input){.kind = MQ_INPUT_NORM,
                      .norm_weight = norm_of(w->attention_norm, format_of_forward(pass, l, MQ_GROUP_QKV)),
                      .rows = rt->x,
                      .width = m->width,
                      .count = rows},
           (mq_output[]){{&w->q, rt->q, false}, {&w->k, rt->k, false}, {&w->v, rt->v, false}}, 3);
    mq__attention(rt, l);
    linear(rt, l, MQ_GROUP_O,
           (mq_input){.kind = MQ_INPUT_PLAIN, .rows = rt->x, .width = m->heads * m->head_dim, .count = rows},
           (mq_output[]){{&w->o, rt->h, true}}, 1);

    /* h += down(silu(gate) * up), with gate, up = linear(norm(h)) */
    linear(rt, l, MQ_GROUP_GATE_UP,
           (mq_input){.kind = MQ_INPUT_NORM,
                      .norm_weight = norm_of(w->mlp_norm, format_of_forward(pass, l, MQ_GROUP_GATE_UP)),
                      .rows = rt->x,
                      .width = m->width,
                      .count = rows},
           (mq_output[]){{&w->mlp.gate, rt->gate, false}, {&w->mlp.up, rt->up, false}}, 2);
    linear(rt, l, MQ_GROUP_DOWN, (mq_input){.kind = MQ_INPUT_SWIGLU, .rows = rt->gate, .width = m->ffn, .count = rows},
           (mq_output[]){{&w->mlp.down, rt->h, true}}, 1);
}

void mq__forward(mq_runtime *rt, mq_pass *pass)
{
    assert(pass->rows <= rt->max_rows && (pass->phase == MQ_PHASE_PREFILL || pass->rows <= MQ_DECODE_ROWS));
    rt->pass = pass;
    rt->clock.passes[pass->phase]++;
    rt->clock.last = mq__seconds();
    mq__pass_begin(rt, pass);
    mq__pool_run(rt->pool, embed, rt);
    mq__lap(rt, MQ_STAGE_EMBED);
    for (uint32_t l = 0; l < rt->model->layers; l++) {
        if (!mq__pass_continues(rt, pass)) return;
        layer_forward(rt, l);
    }
}

void mq__logits(mq_runtime *rt, const mq_pass *pass, uint32_t row, uint32_t rows, float *logits)
{
    assert(row + rows <= pass->rows);
    rt->pass = pass;
    rt->clock.last = mq__seconds();
    rt->clock.head = true;
    mq__linear_group(rt, MQ_LINEAR_BF16,
                     (mq_input){.kind = MQ_INPUT_NORM,
                                .norm_weight = rt->model->final_norm,
                                .rows = rt->x,
                                .width = rt->model->width,
                                .row0 = row,
                                .count = rows},
                     (mq_output[]){{&rt->model->head, logits, false}}, 1);
    rt->clock.head = false;
}
