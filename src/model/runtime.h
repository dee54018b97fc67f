/* The scratch of a pass. Internal to src/model. */
#ifndef MQ_RUNTIME_H
#define MQ_RUNTIME_H

#include "model/forward.h"
#include "model/product.h"

/* Seconds of each stage by phase, as the caller's thread sees them. */
typedef struct mq_clock {
    double seconds[MQ_PHASES][MQ_STAGES];
    uint64_t passes[MQ_PHASES];
    double last, waited; /* when the stage began, and the pool's waiting until then */
    bool head;           /* all stages count as the head's */
} mq_clock;

/* What a row is between two layers. Each phase has its own, so that a decode pass can run between the layers of a prefill pass. */
typedef struct mq_stream {
    float *h;                             /* [T, D] the residual stream */
    uint32_t *position;                   /* [T] of each row in its sequence */
    float *cos[MQ_ROPES], *sin[MQ_ROPES]; /* [T, K/2] of the rows' positions */
} mq_stream;

#define MQ_OWN_ROWS 2 /* thin inputs of so few rows are made by each thread for itself */

struct mq_runtime {
    const mq_model *model;
    const mq_kv_layout *kv;
    const mq_kernels *kernels;
    mq_pool *pool;
    uint32_t max_rows, max_spans;
    const mq_pass *pass; /* the pass in progress */
    mq_stream *rows;     /* of its phase */
    mq_stream stream[MQ_PHASES];
    mq_clock clock;

    float *x;                    /* [T, max(D, H*K)] normed rows, then the attention's output */
    float *q, *k, *v;            /* [T, H*K], [T, G*K], [T, G*K] of the layer in progress */
    float *gated_q;              /* [T, H*2K] query and gate of each head; NULL: attention has no gate */
    struct mq_delta_rows *delta; /* NULL: no layer is Gated DeltaNet */
    float *gate, *up;            /* [T, F]; gate holds f(gate)*up afterwards */
    float *branch;       /* [T, D] what a part of a layer gives, before the norm after it; NULL: no layer has one */
    float *dense_panels; /* the input of tall dense layers, packed */
    mq_nvfp4_rows nvfp4; /* the input of NVFP4 layers, quantised and packed */
    mq_int8_rows int8;   /* the same of INT8 layers */
    float *partials;     /* decode attention: [T][G][spans][H/G][K + 2] */
    uint8_t **thread_scratch;   /* [threads], gemm or attention scratch */
    struct mq_experts *experts; /* NULL: no layer has experts */
    float **own_rows;           /* [threads][MQ_OWN_ROWS, widest input]: what a thread makes for itself in decode */
    mq_packed_rows *own_packed; /* [threads] the same as its products read it */
};

/* f(gate) * up with the model's activation. */
static inline void mq__gated(const mq_runtime *rt, float *y, const float *gate, const float *up, size_t n)
{
    (rt->model->gelu ? rt->kernels->geglu : rt->kernels->swiglu)(y, gate, up, n);
}

/* ---- runtime.c */

/* A stage ends: what passed since the last one is its time, less what the caller waited. */
void mq__lap(mq_runtime *rt, mq_stage stage);

/* Parts that each thread has of a stage of the pass, which has so many units; a part is to have `least` of them (share.h). Few
 * rows are not worth cutting, and in decode, where weights are read as fast as memory gives them, one long piece a thread is the
 * fastest (docs/PERF.md, thread pool). */
int mq__parts_of(const mq_runtime *rt, size_t rows, size_t units, size_t least);

/* ---- pass.c */

/* Makes it the pass in progress, at its begin or after another one. */
void mq__pass_enter(mq_runtime *rt, const mq_pass *pass);
/* Notes where the rows stand. */
void mq__pass_begin(mq_runtime *rt, const mq_pass *pass);
/* Drops the rows of cancelled segments; false when none are left. */
bool mq__pass_continues(mq_runtime *rt, mq_pass *pass);

/* ---- linear.c */

/* What makes a row of a linear group's input. */
typedef enum mq_input_kind {
    MQ_INPUT_NORM,
    MQ_INPUT_PLAIN,
    MQ_INPUT_GATED,
    MQ_INPUT_GATED_HEADS, /* the attention's output, each head times the sigmoid of its gate */
    MQ_INPUT_GATED_NORM   /* Gated DeltaNet's output, normed by head, times silu(z) */
} mq_input_kind;

typedef struct mq_input {
    mq_input_kind kind;
    const float *norm_weight; /* NORM: h is normed into x; GATED_NORM: of a head */
    float *rows;              /* PLAIN: read as it is; NORM: x; GATED: gate (with up); others: x */
    uint32_t width;
    uint32_t row0, count; /* which rows of the pass */
    bool keep;            /* NORM: the normed rows are read again from x */
} mq_input;

typedef struct mq_output {
    const mq_linear *linear;
    float *y; /* [count, linear->n] */
    bool accumulate;
} mq_output;

/* outputs[i] = linear_i(input), all in one format, in two parallel stages: make and pack the input, then multiply.
 * Before an observer, input.rows holds the FP32 rows that went in afterwards. */
void mq__linear_group(mq_runtime *rt, mq_linear_format format, mq_input input, const mq_output *outputs, int count);

/* ---- experts.c: mixture of experts */

typedef struct mq_experts mq_experts;

/* Scratch for `rows` rows; NULL when memory is short. */
mq_experts *mq__experts_new(const mq_model *model, size_t rows, int threads);
void mq__experts_free(mq_experts *experts);

/* Where the router's logits [T, E] go. */
float *mq__experts_logits(mq_experts *experts);

/* From the logits: which experts each row takes, and with what weights. Softmax over all experts, then the largest; equal
 * ones by number. */
void mq__experts_route(mq_runtime *rt, const mq_layer *layer);

/* gate and up of each row's experts from the normed rows in x; then their down from silu(gate) * up. */
void mq__experts_gate_up(mq_runtime *rt, const mq_layer *layer, mq_linear_format format);
void mq__experts_down(mq_runtime *rt, const mq_layer *layer, mq_linear_format format);

/* h += the weighted sum of each row's experts, in the order of their weights; with a norm after the experts the branch takes the
 * normed sum. */
void mq__experts_combine(mq_runtime *rt, const mq_layer *layer);

/* h += sigmoid(gate) * y for each row: the shared expert. */
void mq__experts_add_shared(mq_runtime *rt);
float *mq__experts_shared(mq_experts *experts);      /* [T, D] where y goes */
float *mq__experts_shared_gate(mq_experts *experts); /* [T] */

/* silu(gate) * up after mq__experts_down, [rows * experts per token, M], for observers. */
const float *mq__experts_activations(const mq_experts *experts);

/* ---- gated_delta.c: linear attention with a gated delta rule */

typedef struct mq_delta_rows {
    float *u;                 /* [T, C] queries, keys and values before the convolution */
    float *c;                 /* [T, C] and behind it; queries and keys scaled */
    float *z;                 /* [T, Hv*dv] */
    float *decay, *beta;      /* [T, Hv]; first what their linear layers say */
    float *key_unit, *q_unit; /* [dk] norm weights that leave a row of length 1, of length 1/sqrt(dk) */
} mq_delta_rows;

mq_delta_rows *mq__delta_rows_new(const mq_model *model, size_t rows); /* NULL when memory is short */
void mq__delta_rows_free(mq_delta_rows *rows);

/* From u, decay and beta (as the linear layers leave them): the output of each value head in x [T, Hv*dv]. Reads the state of each
 * segment and writes the one behind its rows. */
void mq__gated_delta(mq_runtime *rt, uint32_t layer);

/* Rows of the input of a layer's last linear map, from those of x; y may be the row of x. */
void mq__gate_heads(const mq_runtime *rt, size_t row, const float *x, float *y);
void mq__gate_norm(const mq_runtime *rt, size_t row, const float *norm, const float *x, float *y);

/* ---- attention.c */

/* Normalises and rotates q and k, writes k and v of all rows into their pages, and leaves the attention output in x. */
void mq__attention(mq_runtime *rt, uint32_t layer);

#endif
