/* The element-wise halves of the trainer (step.py), each one pass over memory; the products are oneDNN's.
 * Activations are BF16, sums and the residual stream FP32. Built by step.py with -ffast-math -march=native. */
#include <math.h>
#include <stdint.h>

typedef uint16_t bf16;

static inline float widen(bf16 x)
{
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)x << 16};
    return v.f;
}

static inline bf16 narrow(float x)
{
    union {
        float f;
        uint32_t u;
    } v = {x};
    return (bf16)((v.u + 0x7fff + (v.u >> 16 & 1)) >> 16);
}

/* sum = x + add (add may be null: then sum is x itself and is not written); y = RMSNorm(sum) w; r = 1 / RMS. */
void add_norm(long n, long d, const float *x, const bf16 *add, const float *w, float *sum, bf16 *y, float *r)
{
    for (long i = 0; i < n; i++, x += d, y += d) {
        const float *from = x;
        if (add) {
            for (long j = 0; j < d; j++) {
                sum[j] = x[j] + widen(add[j]);
            }
            from = sum;
            add += d;
            sum += d;
        }
        float s = 0;
        for (long j = 0; j < d; j++) {
            s += from[j] * from[j];
        }
        float k = r[i] = 1 / sqrtf(s / (float)d + 1e-6f);
        for (long j = 0; j < d; j++) {
            y[j] = narrow(from[j] * k * w[j]);
        }
    }
}

/* dx += the gradient through RMSNorm; dx16 is dx as BF16, dw collects the weight's gradient. */
void norm_back(long n, long d, const bf16 *dy, const float *x, const float *r, const float *w, float *dx, bf16 *dx16,
               float *dw)
{
    for (long i = 0; i < n; i++, dy += d, x += d, dx += d, dx16 += d) {
        float s = 0, k = r[i];
        for (long j = 0; j < d; j++) {
            float g = widen(dy[j]);
            s += g * w[j] * x[j];
            dw[j] += g * x[j] * k;
        }
        s *= k * k / (float)d;
        for (long j = 0; j < d; j++) {
            dx[j] += k * (widen(dy[j]) * w[j] - x[j] * s);
            dx16[j] = narrow(dx[j]);
        }
    }
}

/* One head's vector x [k]: normed, weighted, scaled, rotated. */
static float turn(long k, const bf16 *x, const float *w, const float *cs, const float *sn, float scale, bf16 *y)
{
    float s = 0;
    for (long j = 0; j < k; j++) {
        s += widen(x[j]) * widen(x[j]);
    }
    float r = 1 / sqrtf(s / (float)k + 1e-6f), f = r * scale;
    for (long j = 0, h = k / 2; j < h; j++) {
        float a = widen(x[j]) * w[j] * f, b = widen(x[j + h]) * w[j + h] * f;
        y[j] = narrow(a * cs[j] - b * sn[j]);
        y[j + h] = narrow(b * cs[j] + a * sn[j]);
    }
    return r;
}

static void turn_back(long k, const float *g, const bf16 *x, const float *w, const float *cs, const float *sn,
                      float scale, float r, bf16 *dx, float *dw)
{
    float u[256], s = 0;
    for (long j = 0, h = k / 2; j < h; j++) {
        u[j] = (g[j] * cs[j] + g[j + h] * sn[j]) * scale;
        u[j + h] = (g[j + h] * cs[j] - g[j] * sn[j]) * scale;
    }
    for (long j = 0; j < k; j++) {
        float v = widen(x[j]);
        s += u[j] * w[j] * v;
        dw[j] += u[j] * v * r;
    }
    s *= r * r / (float)k;
    for (long j = 0; j < k; j++) {
        dx[j] = narrow(r * (u[j] * w[j] - widen(x[j]) * s));
    }
}

/* qkv [B T (H + 2G) K] -> q [B G R T K], k and v [B G T K]; cs and sn are [B T K/2]; r [B T (H + G)]. */
void heads(long batch, long t, long h, long g, long k, const bf16 *qkv, const float *cs, const float *sn,
           const float *wq, const float *wk, bf16 *q, bf16 *key, bf16 *v, float *r)
{
    long rep = h / g;
    float scale = 1 / sqrtf((float)k);
    for (long b = 0; b < batch; b++) {
        for (long i = 0; i < t; i++, cs += k / 2, sn += k / 2) {
            for (long n = 0; n < h; n++, qkv += k) {
                *r++ = turn(k, qkv, wq, cs, sn, scale, q + (((b * g + n / rep) * rep + n % rep) * t + i) * k);
            }
            for (long n = 0; n < g; n++, qkv += k) {
                *r++ = turn(k, qkv, wk, cs, sn, 1, key + ((b * g + n) * t + i) * k);
            }
            for (long n = 0; n < g; n++, qkv += k) {
                bf16 *to = v + ((b * g + n) * t + i) * k;
                for (long j = 0; j < k; j++) {
                    to[j] = qkv[j];
                }
            }
        }
    }
}

void heads_back(long batch, long t, long h, long g, long k, const bf16 *qkv, const float *cs, const float *sn,
                const float *wq, const float *wk, const bf16 *dq, const float *dk, const float *dv, const float *r,
                bf16 *out, float *dwq, float *dwk)
{
    long rep = h / g;
    float scale = 1 / sqrtf((float)k), wide[256];
    for (long b = 0; b < batch; b++) {
        for (long i = 0; i < t; i++, cs += k / 2, sn += k / 2) {
            for (long n = 0; n < h; n++, qkv += k, out += k) {
                const bf16 *from = dq + (((b * g + n / rep) * rep + n % rep) * t + i) * k;
                for (long j = 0; j < k; j++) {
                    wide[j] = widen(from[j]);
                }
                turn_back(k, wide, qkv, wq, cs, sn, scale, *r++, out, dwq);
            }
            for (long n = 0; n < g; n++, qkv += k, out += k) {
                turn_back(k, dk + ((b * g + n) * t + i) * k, qkv, wk, cs, sn, 1, *r++, out, dwk);
            }
            for (long n = 0; n < g; n++, qkv += k, out += k) {
                for (long j = 0; j < k; j++) {
                    out[j] = narrow(dv[((b * g + n) * t + i) * k + j]);
                }
            }
        }
    }
}

/* o [B G R T K] <-> [B T H K]; with dots, also the sum over K of o times its gradient. */
void join(long batch, long t, long h, long k, const bf16 *o, bf16 *out)
{
    for (long b = 0; b < batch; b++) {
        for (long i = 0; i < t; i++) {
            for (long n = 0; n < h; n++, out += k) {
                const bf16 *from = o + ((b * h + n) * t + i) * k;
                for (long j = 0; j < k; j++) {
                    out[j] = from[j];
                }
            }
        }
    }
}

void split(long batch, long t, long h, long k, const bf16 *grad, const bf16 *out, bf16 *go, float *dots)
{
    for (long b = 0; b < batch; b++) {
        for (long i = 0; i < t; i++) {
            for (long n = 0; n < h; n++, grad += k, out += k) {
                bf16 *to = go + ((b * h + n) * t + i) * k;
                float s = 0;
                for (long j = 0; j < k; j++) {
                    s += widen(grad[j]) * widen(out[j]);
                    to[j] = grad[j];
                }
                dots[(b * h + n) * t + i] = s;
            }
        }
    }
}

/* Rows of scores, `count` queries from `first` on per head, `seen` keys: softmax over the past, in place. */
void softmax(long rows, long count, long first, long seen, bf16 *p)
{
    for (long i = 0; i < rows; i++, p += seen) {
        long past = first + i % count + 1;
        float e[past], top = -1e30f, s = 0;
        for (long j = 0; j < past; j++) {
            top = fmaxf(top, widen(p[j]));
        }
        for (long j = 0; j < past; j++) {
            e[j] = expf(widen(p[j]) - top);
            s += e[j];
        }
        s = 1 / s;
        for (long j = 0; j < past; j++) {
            p[j] = narrow(e[j] * s);
        }
        for (long j = past; j < seen; j++) {
            p[j] = 0;
        }
    }
}

/* gs = (gs - dot of the row) p; dots [heads, t], the rows are `count` queries from `first` on per head. */
void softmax_back(long rows, long count, long first, long t, long seen, const float *dots, const bf16 *p, bf16 *gs)
{
    for (long i = 0; i < rows; i++, p += seen, gs += seen) {
        float dot = dots[i / count * t + first + i % count];
        for (long j = 0; j < seen; j++) {
            gs[j] = narrow((widen(gs[j]) - dot) * widen(p[j]));
        }
    }
}

/* gu [N, 2F]: silu of the first half times the second. */
void gate(long n, long f, const bf16 *gu, bf16 *a)
{
    for (long i = 0; i < n; i++, gu += 2 * f, a += f) {
        for (long j = 0; j < f; j++) {
            float g = widen(gu[j]);
            a[j] = narrow(g / (1 + expf(-g)) * widen(gu[f + j]));
        }
    }
}

void gate_back(long n, long f, const bf16 *gu, const bf16 *da, bf16 *dgu)
{
    for (long i = 0; i < n; i++, gu += 2 * f, dgu += 2 * f, da += f) {
        for (long j = 0; j < f; j++) {
            float g = widen(gu[j]), u = widen(gu[f + j]), d = widen(da[j]), s = 1 / (1 + expf(-g));
            dgu[j] = narrow(d * u * s * (1 + g * (1 - s)));
            dgu[f + j] = narrow(d * g * s);
        }
    }
}

/* Cross entropy per row; the logits become their gradient, weighted. */
void entropy(long n, long v, const int64_t *target, const float *weight, bf16 *logits, float *loss)
{
    for (long i = 0; i < n; i++, logits += v) {
        float e[v], top = -1e30f, s = 0, right = widen(logits[target[i]]);
        for (long j = 0; j < v; j++) {
            top = fmaxf(top, widen(logits[j]));
        }
        for (long j = 0; j < v; j++) {
            e[j] = expf(widen(logits[j]) - top);
            s += e[j];
        }
        loss[i] = logf(s) + top - right;
        s = weight[i] / s;
        e[target[i]] -= weight[i] / s;
        for (long j = 0; j < v; j++) {
            logits[j] = narrow(e[j] * s);
        }
    }
}
