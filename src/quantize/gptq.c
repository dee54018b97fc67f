#include "quantize/gptq.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/halffloat.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

#define BLOCK MQ_NVFP4_VALUES
#define LANES 8
#define PANEL 64  /* columns that are factored together: the rows below are read once for all of them */
#define LAZY  128 /* columns whose errors reach the later ones together, for the same reason */

/* In lanes, so that it vectorises without leave to reorder. */
static double dot(const double *a, const double *b, size_t n)
{
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t l = 0; l < LANES; l++) {
            lane[l] += a[i + l] * b[i + l];
        }
    }
    for (; i < n; i++) {
        sum += a[i] * b[i];
    }
    for (size_t l = 0; l < LANES; l++) {
        sum += lane[l];
    }
    return sum;
}

/* ---- H = R R^T, R upper triangular, in place, from the last column to the first */

typedef struct factoring {
    double *h; /* [k, k]; above and on the diagonal */
    size_t k, first, end;
} factoring;

/* Rows are dealt out in turn: those further up have more to do in later panels, those near the diagonal less. */
static void subtract_done(void *context, int thread, int threads)
{
    const factoring *f = context;
    const size_t k = f->k;
    for (size_t i = (size_t)thread; i < f->end; i += (size_t)threads) {
        double *row = f->h + i * k;
        for (size_t j = i > f->first ? i : f->first; j < f->end; j++) {
            row[j] -= dot(row + f->end, f->h + j * k + f->end, k - f->end);
        }
    }
}

static void solve_row(const factoring *f, size_t i, size_t from)
{
    double *row = f->h + i * f->k;
    for (size_t j = f->end; j-- > from;) {
        const double *other = f->h + j * f->k;
        row[j] = (row[j] - dot(row + j + 1, other + j + 1, f->end - j - 1)) / other[j];
    }
}

static void solve_above(void *context, int thread, int threads)
{
    const factoring *f = context;
    for (size_t i = (size_t)thread; i < f->first; i += (size_t)threads) {
        solve_row(f, i, f->first);
    }
}

/* The panel's own triangle; false when a pivot is not positive. */
static bool factor_triangle(const factoring *f)
{
    for (size_t i = f->end; i-- > f->first;) {
        double *row = f->h + i * f->k;
        solve_row(f, i, i + 1);
        const double pivot = row[i] - dot(row + i + 1, row + i + 1, f->end - i - 1);
        if (!(pivot > 0) || !isfinite(pivot)) return false;
        row[i] = sqrt(pivot);
    }
    return true;
}

static bool factor_in_place(double *h, size_t k, mq_pool *pool)
{
    for (size_t end = k; end > 0;) {
        factoring f = {.h = h, .k = k, .first = (end - 1) / PANEL * PANEL, .end = end};
        mq__pool_run(pool, subtract_done, &f);
        if (!factor_triangle(&f)) return false;
        mq__pool_run(pool, solve_above, &f);
        end = f.first;
    }
    return true;
}

/* Channels that never vary have no say: any pivot serves. */
static void fill_gptq(double *h, const float *moments, const float *factor, size_t k, double damping)
{
    double mean = 0;
    for (size_t i = 0; i < k; i++) {
        for (size_t j = i; j < k; j++) {
            const double by = factor ? (double)factor[i] * (double)factor[j] : 1;
            h[i * k + j] = (double)moments[i * k + j] / by;
        }
        mean += h[i * k + i] / (double)k;
    }
    const double extra = mean > 0 ? damping * mean : 1;
    for (size_t i = 0; i < k; i++) {
        h[i * k + i] += extra;
    }
}

mq_status mq__gptq_factor(const float *moments, const float *factor, uint32_t k, double damping, mq_pool *pool,
                          float **out, mq_error *error)
{
    size_t count, bytes;
    *out = NULL;
    if (!mq__mul_size(k, k, &count) || !mq__mul_size(count, sizeof(double), &bytes)) {
        return mq__fail(error, MQ_NO_MEMORY, "gptq: %u channels: expected memory, got none", k);
    }
    double *h = mq__alloc_aligned(bytes);
    float *u = mq__alloc_aligned(bytes / 2);
    if (!h || !u) {
        mq__free_aligned(h);
        mq__free_aligned(u);
        return mq__fail(error, MQ_NO_MEMORY, "gptq: %u channels: expected memory, got none", k);
    }
    fill_gptq(h, moments, factor, k, damping);
    const bool is_definite = factor_in_place(h, k, pool);
    for (size_t i = 0; is_definite && i < k; i++) {
        for (size_t j = i + 1; j < k; j++) {
            u[i * k + j] = (float)(h[i * k + j] / h[j * k + j]);
        }
    }
    mq__free_aligned(h);
    if (is_definite) {
        *out = u;
        return MQ_OK;
    }
    mq__free_aligned(u);
    return mq__fail(error, MQ_FORMAT, "gptq: %u channels: expected positive definite second moments, got others", k);
}

/* ---- rounding */

size_t mq__gptq_scratch_bytes(uint32_t k)
{
    return (size_t)MQ_GPTQ_ROWS * (k + LAZY) * sizeof(float);
}

static void add_scaled(float *y, const float *x, float factor, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        y[i] += factor * x[i];
    }
}

/* Columns [at, at + 16) of one row; their errors go to `errors` and on to the columns up to `end`. */
static void round_block(const float *u, mq_nvfp4_rule rule, mq_nvfp4_scale scale, const float *weights, float *moved,
                        size_t k, size_t at, size_t end, uint8_t *nibbles, uint8_t *scales, float *errors)
{
    float whole[BLOCK]; /* the block if it were not rounded at all: what its scale has to cover */
    for (size_t i = 0; i < BLOCK; i++) {
        whole[i] = moved[at + i];
        for (size_t j = 0; j < i; j++) {
            whole[i] += (weights[at + j] - whole[j]) * u[(at + j) * k + at + i];
        }
    }
    mq__nvfp4_quantize_row(rule, scale, whole, MQ_WEIGHT_F32, BLOCK, nibbles + at / 2, scales + at / BLOCK);
    const float step = mq__e4m3_decode(scales[at / BLOCK]) * scale.multiplier;
    for (size_t i = 0; i < BLOCK; i++) {
        const size_t column = at + i;
        const unsigned code = step > 0 ? mq__e2m1_encode(moved[column] / step) : 0;
        uint8_t *byte = &nibbles[column / 2];
        *byte = (uint8_t)(i % 2 ? (*byte & 0x0f) | code << 4 : (*byte & 0xf0) | code);
        errors[i] = weights[column] - mq__e2m1_decode(code) * step;
        add_scaled(moved + column + 1, u + column * k + column + 1, errors[i], end - column - 1);
    }
}

void mq__gptq_quantize_rows(const float *u, mq_nvfp4_rule rule, mq_nvfp4_scale scale, const float *weights,
                            uint32_t rows, uint32_t width, uint8_t *nibbles, uint8_t *scales, void *scratch)
{
    const size_t k = width;
    float *moved = scratch, *errors = moved + MQ_GPTQ_ROWS * k; /* [rows, k], [rows, LAZY] */
    memcpy(moved, weights, rows * k * sizeof *moved);
    for (size_t first = 0; first < k; first += LAZY) {
        const size_t end = first + LAZY < k ? first + LAZY : k;
        for (size_t r = 0; r < rows; r++) {
            for (size_t at = first; at < end; at += BLOCK) {
                round_block(u, rule, scale, weights + r * k, moved + r * k, k, at, end, nibbles + r * k / 2,
                            scales + r * k / BLOCK, errors + r * LAZY + (at - first));
            }
        }
        for (size_t j = first; j < end; j++) {
            for (size_t r = 0; r < rows; r++) {
                add_scaled(moved + r * k + end, u + j * k + end, errors[r * LAZY + (j - first)], k - end);
            }
        }
    }
}
