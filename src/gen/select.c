#include "gen/select.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Vectors of the size that every processor has. Written out, because compilers keep the order of float operations and leave
 * loops like these scalar. */
typedef float floats __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(16)));
#define LANES 4

static inline floats load_floats(const float *x)
{
    floats v;
    memcpy(&v, x, sizeof v);
    return v;
}

static inline floats choose(ints mask, floats yes, floats no)
{
    return (floats)(((ints)yes & mask) | ((ints)no & ~mask));
}

static inline floats larger(floats a, floats b)
{
    return choose(a > b, a, b);
}

static uint32_t block_size(uint32_t vocab, uint32_t first)
{
    return vocab - first < MQ_LOGIT_BLOCK ? vocab - first : MQ_LOGIT_BLOCK;
}

/* The block at x, or a copy in `last` that is filled up with minus infinity where the row ends within it. */
static const float *whole_block(const float *x, uint32_t count, float last[MQ_LOGIT_BLOCK])
{
    if (count == MQ_LOGIT_BLOCK) return x;
    for (uint32_t j = 0; j < MQ_LOGIT_BLOCK; j++) {
        last[j] = j < count ? x[j] : -INFINITY;
    }
    return last;
}

static float block_maximum(const float *x, ints *wrong)
{
    const floats most = {FLT_MAX, FLT_MAX, FLT_MAX, FLT_MAX};
    floats even = load_floats(x), odd = load_floats(x + LANES);
    ints fine = (even <= most) & (odd <= most); /* NaN compares false */
    for (int i = 2 * LANES; i < MQ_LOGIT_BLOCK; i += 2 * LANES) {
        const floats a = load_floats(x + i), b = load_floats(x + i + LANES);
        even = larger(a, even);
        odd = larger(b, odd);
        fine &= (a <= most) & (b <= most);
    }
    *wrong |= ~fine;
    even = larger(even, odd);
    float maximum = even[0];
    for (int j = 1; j < LANES; j++) {
        if (even[j] > maximum) maximum = even[j];
    }
    return maximum;
}

bool mq__block_maxima(const float *logits, uint32_t vocab, float *maxima)
{
    ints wrong = {0};
    float last[MQ_LOGIT_BLOCK];
    for (uint32_t i = 0; i < vocab; i += MQ_LOGIT_BLOCK) {
        maxima[i / MQ_LOGIT_BLOCK] = block_maximum(whole_block(logits + i, block_size(vocab, i), last), &wrong);
    }
    return (wrong[0] | wrong[1] | wrong[2] | wrong[3]) == 0;
}

uint32_t mq__best_token(const float *logits, uint32_t vocab, const float *maxima)
{
    uint32_t block = 0;
    for (uint32_t b = 1; b < mq__logit_blocks(vocab); b++) {
        if (maxima[b] > maxima[block]) block = b;
    }
    uint32_t best = block * MQ_LOGIT_BLOCK;
    while (logits[best] != maxima[block]) {
        best++;
    }
    return best;
}

static inline floats broadcast(float x)
{
    return (floats){x, x, x, x};
}

/* exp of x <= 0 to about 1e-7 of itself (Cephes' expf); 0 below exp(-87). */
static inline floats exp_below(floats x)
{
    const floats clamped = larger(x, broadcast(-87.0f));
    const floats n = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f; /* x / log(2), rounded to an integer */
    const floats r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
    floats p = broadcast(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const ints power = (__builtin_convertvector(n, ints) + 127) << 23; /* the bits of 2^n */
    return choose(x < broadcast(-87.0f), broadcast(0), p * (floats)power);
}

/* Writes the weights of a block and returns their sum. */
static double block_weights(const float *x, float best, float scale, float weights[MQ_LOGIT_BLOCK])
{
    floats sum = broadcast(0);
    for (int i = 0; i < MQ_LOGIT_BLOCK; i += LANES) {
        const floats w = exp_below((load_floats(x + i) - best) * scale);
        memcpy(weights + i, &w, sizeof w);
        sum += w;
    }
    return (double)sum[0] + (double)sum[1] + (double)sum[2] + (double)sum[3];
}

/* Finite also for the smallest temperature, so that the best token's weight is exp(0). */
static float inverse(float temperature)
{
    return fminf(1 / temperature, FLT_MAX);
}

double mq__block_sums(const float *logits, uint32_t vocab, float best, float temperature, double *sums)
{
    float last[MQ_LOGIT_BLOCK], weights[MQ_LOGIT_BLOCK];
    double total = 0;
    for (uint32_t i = 0; i < vocab; i += MQ_LOGIT_BLOCK) {
        const float *x = whole_block(logits + i, block_size(vocab, i), last);
        total += sums[i / MQ_LOGIT_BLOCK] = block_weights(x, best, inverse(temperature), weights);
    }
    return total;
}

int32_t mq__pick_from_blocks(const float *logits, uint32_t vocab, float best, float temperature, const double *sums,
                             double x)
{
    float last[MQ_LOGIT_BLOCK], weights[MQ_LOGIT_BLOCK];
    uint32_t block = 0, chosen = 0;
    for (uint32_t b = 0; b < mq__logit_blocks(vocab); b++) {
        if (!(sums[b] > 0)) continue;
        block = b; /* rounding may let x reach the end: the last block with weight has it then */
        if (x < sums[b]) break;
        x -= sums[b];
    }
    const uint32_t first = block * MQ_LOGIT_BLOCK, size = block_size(vocab, first);
    (void)block_weights(whole_block(logits + first, size, last), best, inverse(temperature), weights);
    for (uint32_t j = 0; j < size; j++) {
        if (!(weights[j] > 0)) continue;
        chosen = first + j;
        x -= (double)weights[j];
        if (x < 0) break;
    }
    return (int32_t)chosen;
}

size_t mq__collect(const float *logits, uint32_t vocab, const float *maxima, mq_candidate worst, float best,
                   float temperature, mq_candidate *c)
{
    size_t count = 0;
    for (uint32_t first = 0; first < vocab; first += MQ_LOGIT_BLOCK) {
        if (maxima[first / MQ_LOGIT_BLOCK] < worst.logit) continue;
        const uint32_t end = first + block_size(vocab, first);
        for (uint32_t i = first; i < end; i++) {
            const int32_t token = (int32_t)i;
            if (logits[i] < worst.logit || (logits[i] == worst.logit && token > worst.token)) continue;
            const double weight = exp(((double)logits[i] - (double)best) / (double)temperature);
            c[count++] = (mq_candidate){logits[i], token, weight};
        }
    }
    return count;
}

double mq__total_weight(const mq_candidate *c, size_t count)
{
    double total = 0;
    for (size_t i = 0; i < count; i++) {
        total += c[i].weight;
    }
    return total;
}

static bool is_before(mq_candidate a, mq_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

static void swap_candidates(mq_candidate *a, mq_candidate *b)
{
    const mq_candidate t = *a;
    *a = *b;
    *b = t;
}

/* Puts those of c[low, high) that are better than c[pivot] first, the pivot behind them. Returns the pivot's place. */
static size_t partition_best(mq_candidate *c, size_t low, size_t high, size_t pivot)
{
    size_t place = low;
    swap_candidates(&c[pivot], &c[high - 1]);
    for (size_t i = low; i + 1 < high; i++) {
        if (is_before(c[i], c[high - 1])) swap_candidates(&c[i], &c[place++]);
    }
    swap_candidates(&c[place], &c[high - 1]);
    return place;
}

/* Quickselect by rank and mass; scattered pivots keep it linear whatever the order of logits. */
size_t mq__keep_best(mq_candidate *c, size_t count, size_t most, double mass)
{
    size_t low = 0, high = count;
    uint64_t scatter = 1;
    double before = 0; /* weights of c[0, low), which are all kept and not enough */
    while (high - low > 1) {
        scatter = scatter * 6364136223846793005u + 1442695040888963407u;
        const size_t place = partition_best(c, low, high, low + (scatter >> 33) % (high - low));
        const double better = before + mq__total_weight(c + low, place - low);
        if (place > low && (place >= most || better >= mass)) {
            high = place;
            continue;
        }
        before = better + c[place].weight;
        low = place + 1;
        if (low >= most || before >= mass) return low;
    }
    return high;
}
