/* Gated DeltaNet: exact on every level, for any split of the rows; the published vector, and the chunked form of the papers in
 * double arithmetic as an independent check of what the recurrence is. */
#include "checkasm.h"

#include <math.h>
#include <string.h>

#define COLUMNS MQ_DELTA_COLUMNS

static void check_gates(void)
{
    for (size_t n = 1; n < 300; n = n < 40 ? n + 1 : n + 37) {
        checkasm_case("n=%zu", n);
        float *expected = checkasm_floats(n), *gate = checkasm_floats(n);
        checkasm_fill_normal(expected, n, 3);
        checkasm_fill_normal(gate, n, 20);
        float *got = checkasm_copy(expected, n * sizeof *got, 4);
        const float before = expected[0];
        checkasm.ref->sigmoid_gate(expected, gate, n);
        checkasm.tested->sigmoid_gate(got, gate, n);
        checkasm_same_f32(expected, got, 1, n, n);
        const double truth = (double)before / (1 + exp(-(double)gate[0]));
        checkasm_within(&truth, got, 1, 1e-6);
    }
}

static void check_conv(void)
{
    for (size_t taps = 1; taps < 6; taps++) {
        for (size_t n = 1; n < 200; n = n < 40 ? n + 1 : n + 37) {
            checkasm_case("taps=%zu n=%zu", taps, n);
            float *rows = checkasm_floats(taps * n), *w = checkasm_floats(taps * n);
            float *expected = checkasm_floats(n), *got = checkasm_floats(n);
            const float *u[6];
            checkasm_fill_normal(rows, taps * n, 3);
            checkasm_fill_normal(w, taps * n, 1);
            double sum = 0;
            for (size_t t = 0; t < taps; t++) {
                u[t] = rows + t * n;
                sum += (double)w[t * n] * (double)u[t][0];
            }
            checkasm.ref->conv_silu(expected, u, w, taps, n);
            checkasm.tested->conv_silu(got, u, w, taps, n);
            checkasm_same_f32(expected, got, 1, n, n);
            sum /= 1 + exp(-sum);
            if (fabs(sum) > 1e-3) checkasm_within(&sum, got, 1, 1e-4);
        }
    }
}

/* Random rows as a layer has them: unit keys and queries, decays and betas in (0, 1). */
static mq_delta random_rows(uint32_t key_dim, uint32_t rows, size_t gap)
{
    mq_delta d = {.key_dim = key_dim,
                  .rows = rows,
                  .qk_stride = key_dim + gap,
                  .v_stride = COLUMNS + gap,
                  .out_stride = COLUMNS + gap,
                  .scalar_stride = 1 + gap};
    float *q = checkasm_floats(rows * d.qk_stride), *k = checkasm_floats(rows * d.qk_stride);
    float *v = checkasm_floats(rows * d.v_stride), *decay = checkasm_floats(rows * d.scalar_stride);
    float *beta = checkasm_floats(rows * d.scalar_stride), *state = checkasm_floats((size_t)key_dim * COLUMNS);
    checkasm_fill_normal(q, rows * d.qk_stride, 1.0f / sqrtf((float)key_dim));
    checkasm_fill_normal(k, rows * d.qk_stride, 1.0f / sqrtf((float)key_dim));
    checkasm_fill_normal(v, rows * d.v_stride, 1);
    checkasm_fill_normal(state, (size_t)key_dim * COLUMNS, 0.3f);
    for (size_t i = 0; i < rows * d.scalar_stride; i++) {
        decay[i] = checkasm_uniform(0.2f, 1);
        beta[i] = checkasm_uniform(0, 1);
    }
    d.from = state;
    d.q = q;
    d.k = k;
    d.v = v;
    d.decay = decay;
    d.beta = beta;
    return d;
}

/* Rows [row0, row1) of d, from a state into one. */
static mq_delta part_of(mq_delta d, uint32_t row0, uint32_t row1, const float *from, float *to)
{
    d.q += row0 * d.qk_stride;
    d.k += row0 * d.qk_stride;
    d.v += row0 * d.v_stride;
    d.out += row0 * d.out_stride;
    d.decay += row0 * d.scalar_stride;
    d.beta += row0 * d.scalar_stride;
    d.rows = row1 - row0;
    d.from = from;
    d.to = to;
    return d;
}

static void check_recurrence(uint32_t key_dim, uint32_t rows, size_t gap)
{
    const size_t state_floats = (size_t)key_dim * COLUMNS;
    checkasm_case("key_dim=%u rows=%u gap=%zu", key_dim, rows, gap);
    mq_delta d = random_rows(key_dim, rows, gap);
    const size_t out_floats = rows * d.out_stride;
    float *expected = checkasm_floats(out_floats), *state = checkasm_floats(state_floats);
    float *got = checkasm_copy(expected, out_floats * sizeof *got, 4), *got_state = checkasm_floats(state_floats);
    d.out = expected;
    d.to = state;
    checkasm.ref->delta_rule(&d);
    d.out = got;
    d.to = got_state;
    checkasm.tested->delta_rule(&d);
    checkasm_same_f32(expected, got, rows, COLUMNS, d.out_stride);
    checkasm_same_f32(state, got_state, key_dim, COLUMNS, COLUMNS);
    /* in place, in two parts */
    float *split = checkasm_copy(d.from, state_floats * sizeof *split, 4);
    const uint32_t cut = (uint32_t)checkasm_below(rows + 1);
    d.out = checkasm_floats(out_floats);
    mq_delta parts[2] = {part_of(d, 0, cut, split, split), part_of(d, cut, rows, split, split)};
    for (int i = 0; i < 2; i++) {
        if (parts[i].rows) checkasm.tested->delta_rule(&parts[i]);
    }
    checkasm_same_f32(state, split, key_dim, COLUMNS, COLUMNS);
    for (uint32_t t = 0; t < rows; t++) {
        checkasm_same_f32(expected + t * d.out_stride, d.out + t * d.out_stride, 1, COLUMNS, COLUMNS);
    }
}

enum { CHUNK = 64, KEYS = 32 };

/* One chunk as the papers have it (Gated DeltaNet, section 3.3): A U = diag(beta) V, A W = diag(beta e^G) K, then
 * V' = U - W S, out = e^G S^T q + sum_j (q k_j) D_ij V'_j, S = e^G_C S + sum_i e^(G_C - G_i) k_i V'_i^T; column `column` of V. */
static void chunk_form(const mq_delta *d, uint32_t first, uint32_t rows, int column, double *state, double *out)
{
    double g[CHUNK], u[CHUNK], w[CHUNK][KEYS], sum = 0;
    for (uint32_t i = 0; i < rows; i++) {
        const float *ki = d->k + (first + i) * d->qk_stride, *qi = d->q + (first + i) * d->qk_stride;
        const double beta = d->beta[(first + i) * d->scalar_stride];
        sum += log((double)d->decay[(first + i) * d->scalar_stride]);
        g[i] = sum;
        u[i] = beta * (double)d->v[(first + i) * d->v_stride + (size_t)column];
        for (int a = 0; a < KEYS; a++) {
            w[i][a] = beta * exp(g[i]) * (double)ki[a];
        }
        for (uint32_t j = 0; j < i; j++) {
            const float *kj = d->k + (first + j) * d->qk_stride;
            double dot = 0;
            for (int a = 0; a < KEYS; a++) {
                dot += (double)ki[a] * (double)kj[a];
            }
            const double aij = beta * dot * exp(g[i] - g[j]);
            u[i] -= aij * u[j];
            for (int a = 0; a < KEYS; a++) {
                w[i][a] -= aij * w[j][a];
            }
        }
        out[i] = 0;
        for (int a = 0; a < KEYS; a++) {
            out[i] += exp(g[i]) * (double)qi[a] * state[a];
        }
    }
    for (uint32_t i = 0; i < rows; i++) { /* u becomes V' */
        for (int a = 0; a < KEYS; a++) {
            u[i] -= w[i][a] * state[a];
        }
    }
    for (uint32_t i = 0; i < rows; i++) {
        const float *qi = d->q + (first + i) * d->qk_stride;
        for (uint32_t j = 0; j <= i; j++) {
            const float *kj = d->k + (first + j) * d->qk_stride;
            double dot = 0;
            for (int a = 0; a < KEYS; a++) {
                dot += (double)qi[a] * (double)kj[a];
            }
            out[i] += dot * exp(g[i] - g[j]) * u[j];
        }
    }
    for (int a = 0; a < KEYS; a++) {
        state[a] *= exp(g[rows - 1]);
        for (uint32_t i = 0; i < rows; i++) {
            state[a] += exp(g[rows - 1] - g[i]) * (double)d->k[(first + i) * d->qk_stride + (size_t)a] * u[i];
        }
    }
}

static void check_chunks(void)
{
    enum { ROWS = 200 };
    checkasm_case("chunks of %d", CHUNK);
    mq_delta d = random_rows(KEYS, ROWS, 3);
    float *out = checkasm_floats(ROWS * d.out_stride), *state = checkasm_floats(KEYS * COLUMNS);
    d.out = out;
    d.to = state;
    checkasm.tested->delta_rule(&d);
    for (int column = 0; column < COLUMNS; column++) {
        double s[KEYS], expected[ROWS];
        float got[ROWS], got_state[KEYS];
        for (int a = 0; a < KEYS; a++) {
            s[a] = d.from[a * COLUMNS + column];
            got_state[a] = state[a * COLUMNS + column];
        }
        for (uint32_t first = 0; first < ROWS; first += CHUNK) {
            chunk_form(&d, first, ROWS - first < CHUNK ? ROWS - first : CHUNK, column, s, expected + first);
        }
        for (uint32_t t = 0; t < ROWS; t++) {
            got[t] = out[t * d.out_stride + (size_t)column];
        }
        checkasm_within(expected, got, ROWS, 1e-5);
        checkasm_within(s, got_state, KEYS, 1e-5);
    }
}

/* Four tokens of one head with two keys and two values, computed elsewhere; padded to the kernel's sizes with zeros. */
static void check_vector(void)
{
    static const float q[4][2] = {{1, 2}, {0.5f, -1}, {2, 0.3f}, {-1, 1}};
    static const float k[4][2] = {{0.6f, 0.8f}, {1, 1}, {-0.5f, 0.5f}, {0.2f, -0.9f}};
    static const float v[4][2] = {{1, -1}, {0.5f, 2}, {3, 0}, {-2, 1}};
    static const float g[4] = {-0.1f, -0.5f, -0.02f, -1}, beta[4] = {0.9f, 0.3f, 0.7f, 0.5f};
    static const double outs[4][2] = {
        {0.6261306, -0.6261306}, {-0.169912, 0.002207}, {-0.5977175, 0.1331266}, {0.9217206, -0.3148864}};
    static const double states[2][2] = {{-0.5518583, 0.1747976}, {1.2915833, -0.4549754}};
    float qn[4][16] = {{0}}, kn[4][16] = {{0}}, vn[4][16] = {{0}}, decay[4], out[4][16], state[16 * COLUMNS] = {0};
    checkasm_case("the published vector");
    for (int t = 0; t < 4; t++) {
        for (int i = 0; i < 2; i++) {
            qn[t][i] = q[t][i] / sqrtf(q[t][0] * q[t][0] + q[t][1] * q[t][1] + 1e-6f) / sqrtf(2);
            kn[t][i] = k[t][i] / sqrtf(k[t][0] * k[t][0] + k[t][1] * k[t][1] + 1e-6f);
            vn[t][i] = v[t][i];
        }
        decay[t] = expf(g[t]);
    }
    const mq_delta d = {.from = state,
                        .to = state,
                        .q = qn[0],
                        .k = kn[0],
                        .v = vn[0],
                        .out = out[0],
                        .decay = decay,
                        .beta = beta,
                        .qk_stride = 16,
                        .v_stride = 16,
                        .out_stride = 16,
                        .scalar_stride = 1,
                        .key_dim = 16,
                        .rows = 4};
    checkasm.tested->delta_rule(&d);
    for (int t = 0; t < 4; t++) {
        checkasm_within(outs[t], out[t], 2, 1e-5);
    }
    for (int i = 0; i < 2; i++) {
        checkasm_within(states[i], state + i * COLUMNS, 2, 1e-6);
    }
}

static void check(void)
{
    if (checkasm_slot("sigmoid_gate")) check_gates();
    if (checkasm_slot("conv_silu")) check_conv();
    if (checkasm_slot("delta_rule")) {
        for (uint32_t key_dim = 16; key_dim <= 160; key_dim += 16) {
            for (uint32_t rows = 1; rows < 80; rows = rows < 5 ? rows + 1 : rows + 29) {
                check_recurrence(key_dim, rows, checkasm_below(7));
            }
        }
        check_chunks();
        check_vector();
    }
}

enum { BENCH_KEYS = 128, BENCH_ROWS = 128 };
static float bench_rows_of[BENCH_ROWS][BENCH_KEYS], bench_values[BENCH_ROWS][COLUMNS], bench_out[BENCH_ROWS][COLUMNS];
static float bench_state[BENCH_KEYS * COLUMNS], bench_half[BENCH_ROWS];

static void bench_delta(void *context)
{
    checkasm.tested->delta_rule(context);
}

static void bench(void)
{
    mq_delta d = {.from = bench_state,
                  .to = bench_state,
                  .q = bench_rows_of[0],
                  .k = bench_rows_of[0],
                  .v = bench_values[0],
                  .out = bench_out[0],
                  .decay = bench_half,
                  .beta = bench_half,
                  .qk_stride = BENCH_KEYS,
                  .v_stride = COLUMNS,
                  .out_stride = COLUMNS,
                  .scalar_stride = 1,
                  .key_dim = BENCH_KEYS,
                  .rows = BENCH_ROWS};
    for (int t = 0; t < BENCH_ROWS; t++) {
        bench_half[t] = 0.5f;
        for (int i = 0; i < BENCH_KEYS; i++) {
            bench_rows_of[t][i] = 0.088f;
        }
        for (int j = 0; j < COLUMNS; j++) {
            bench_values[t][j] = 1;
        }
    }
    checkasm_bench("delta_rule", "128 rows, 128 x 16", bench_delta, &d, 3.0 * BENCH_ROWS * BENCH_KEYS * COLUMNS,
                   CHECKASM_MACS);
}

CHECKASM_SUITE(delta, check, bench)
