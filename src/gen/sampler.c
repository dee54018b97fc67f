/* From logits to a token. Order of operations: penalties, biases and mask on the logits; temperature; min-p, top-k, top-p,
 * each keeping at least the best token; draw. Ties are broken towards the lower id, and the draw walks the kept tokens in
 * the order of ids, so a token depends on nothing but logits, settings, seed and position. */
#include "gen/sampler.h"
#include "base/error.h"
#include "base/mem.h"
#include "gen/select.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define REWIND_MASK (MQ_SAMPLER_REWIND - 1u) /* a power of two */

/* Top bit of uses[]: the token occurs in the prompt; the other bits count its uses in the output. */
#define IN_PROMPT (1u << 31)

typedef struct penalties {
    uint32_t *uses;  /* [V] */
    int32_t *seen;   /* [V], the first seen_count: every token whose uses are or were above 0, each once */
    uint8_t *listed; /* [V] whether it is among them */
    size_t seen_count;
} penalties;

/* What the last draw drew from, for mq_sampler_probability. */
typedef struct last_draw {
    const float *logits; /* after penalties; NULL: nothing was drawn */
    float best;
    int32_t best_token;
    size_t kept; /* candidates[0, kept) in the order of ids; 0: the whole row */
    double sum;  /* of their weights */
} last_draw;

struct mq_sampler {
    mq_sampling s;
    mq_logit_bias *bias; /* [s.bias_count], a copy; s.bias points to it */
    uint32_t vocab;
    uint64_t position;                 /* tokens accepted so far */
    int32_t recent[MQ_SAMPLER_REWIND]; /* the token accepted at position p is at p & REWIND_MASK */
    uint32_t rewindable;
    bool penalised;
    penalties p;              /* only with penalties */
    float *adjusted;          /* [V] logits after penalties, biases and mask */
    float *maxima;            /* [blocks] */
    double *sums;             /* [blocks] */
    mq_candidate *candidates; /* [V]; memory that no draw has needed yet is never touched */
    last_draw last;
};

/* ---------------------------------------------------------------- life */

static mq_status check_sampling(const mq_sampling *s, uint32_t vocab, mq_error *error)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {
        {"temperature", (double)s->temperature, 0, 100},
        {"top_k", s->top_k, 0, 2147483647.0},
        {"top_p", (double)s->top_p, 0, 1},
        {"min_p", (double)s->min_p, 0, 1},
        {"repetition_penalty", (double)s->repetition_penalty, 1e-3, 1000},
        {"presence_penalty", (double)s->presence_penalty, -100, 100},
        {"frequency_penalty", (double)s->frequency_penalty, -100, 100},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        if (!(ranges[i].value >= ranges[i].low && ranges[i].value <= ranges[i].high)) { /* NaN fails as well */
            return mq__fail(error, MQ_USAGE, "sampling: %s: expected %g to %g, got %g", ranges[i].name, ranges[i].low,
                            ranges[i].high, ranges[i].value);
        }
    }
    for (size_t i = 0; i < s->bias_count; i++) {
        if (s->bias[i].token < 0 || (uint32_t)s->bias[i].token >= vocab || !isfinite(s->bias[i].bias)) {
            return mq__fail(error, MQ_USAGE,
                            "sampling: logit bias: expected a token below %u and a finite bias, got %d", vocab,
                            s->bias[i].token);
        }
    }
    return MQ_OK;
}

static mq_status check_token(const mq_sampler *sampler, int32_t token, mq_error *error)
{
    if (token >= 0 && (uint32_t)token < sampler->vocab) return MQ_OK;
    return mq__fail(error, MQ_USAGE, "sampling: token: expected an id below %u, got %d", sampler->vocab, token);
}

static bool allocate_sampler(mq_sampler *sampler)
{
    const uint32_t vocab = sampler->vocab, blocks = mq__logit_blocks(vocab);
    penalties *p = &sampler->p;
    sampler->bias = mq__alloc_zero(sampler->s.bias_count, sizeof *sampler->bias);
    sampler->adjusted = mq__alloc_zero(vocab, sizeof *sampler->adjusted);
    sampler->maxima = mq__alloc_zero(blocks, sizeof *sampler->maxima);
    sampler->sums = mq__alloc_zero(blocks, sizeof *sampler->sums);
    sampler->candidates = mq__alloc_zero(vocab, sizeof *sampler->candidates);
    if (sampler->penalised) {
        p->uses = mq__alloc_zero(vocab, sizeof *p->uses);
        p->seen = mq__alloc_zero(vocab, sizeof *p->seen);
        p->listed = mq__alloc_zero(vocab, sizeof *p->listed);
        if (!p->uses || !p->seen || !p->listed) return false;
    }
    return sampler->bias && sampler->adjusted && sampler->maxima && sampler->sums && sampler->candidates;
}

static void note_seen(penalties *p, int32_t token)
{
    if (!p->listed[token]) p->seen[p->seen_count++] = token;
    p->listed[token] = 1;
}

static mq_status read_prompt(mq_sampler *sampler, const int32_t *prompt, size_t count, mq_error *error)
{
    for (size_t i = 0; i < count; i++) {
        const mq_status status = check_token(sampler, prompt[i], error);
        if (status != MQ_OK) return status;
        if (!sampler->penalised) continue;
        note_seen(&sampler->p, prompt[i]);
        sampler->p.uses[prompt[i]] |= IN_PROMPT;
    }
    return MQ_OK;
}

mq_status mq_sampler_new(const mq_sampling *sampling, uint32_t vocab, const int32_t *prompt, size_t prompt_count,
                         mq_sampler **out, mq_error *error)
{
    *out = NULL;
    if (vocab == 0 || vocab > INT32_MAX) {
        return mq__fail(error, MQ_USAGE, "sampling: vocabulary: expected 1 to %d tokens, got %u", INT32_MAX, vocab);
    }
    mq_status status = check_sampling(sampling, vocab, error);
    if (status != MQ_OK) return status;
    mq_sampler *sampler = mq__alloc_zero(1, sizeof *sampler);
    if (sampler) {
        sampler->s = *sampling;
        sampler->vocab = vocab;
        sampler->penalised =
            sampling->repetition_penalty != 1 || sampling->presence_penalty != 0 || sampling->frequency_penalty != 0;
    }
    if (!sampler || !allocate_sampler(sampler)) {
        mq_sampler_free(sampler);
        return mq__fail(error, MQ_NO_MEMORY, "sampling: %u candidates: expected memory, got none", vocab);
    }
    if (sampling->bias_count) memcpy(sampler->bias, sampling->bias, sampling->bias_count * sizeof *sampler->bias);
    sampler->s.bias = sampler->bias;
    status = read_prompt(sampler, prompt, prompt_count, error);
    if (status == MQ_OK)
        *out = sampler;
    else
        mq_sampler_free(sampler);
    return status;
}

void mq_sampler_free(mq_sampler *sampler)
{
    if (!sampler) return;
    mq__free(sampler->bias);
    mq__free(sampler->adjusted);
    mq__free(sampler->maxima);
    mq__free(sampler->sums);
    mq__free(sampler->candidates);
    mq__free(sampler->p.uses);
    mq__free(sampler->p.seen);
    mq__free(sampler->p.listed);
    mq__free(sampler);
}

/* ---------------------------------------------------------------- accepted tokens */

mq_status mq_sampler_accept(mq_sampler *sampler, int32_t token, mq_error *error)
{
    const mq_status status = check_token(sampler, token, error);
    if (status != MQ_OK) return status;
    sampler->recent[sampler->position++ & REWIND_MASK] = token;
    if (sampler->rewindable < MQ_SAMPLER_REWIND) sampler->rewindable++;
    if (sampler->penalised) {
        note_seen(&sampler->p, token);
        sampler->p.uses[token]++;
    }
    return MQ_OK;
}

mq_status mq_sampler_rewind(mq_sampler *sampler, uint32_t count, mq_error *error)
{
    if (count > sampler->rewindable) {
        return mq__fail(error, MQ_USAGE, "sampling: rewind: expected at most %u tokens, got %u", sampler->rewindable,
                        count);
    }
    sampler->rewindable -= count;
    for (; count > 0; count--) {
        const int32_t token = sampler->recent[--sampler->position & REWIND_MASK];
        if (sampler->penalised) sampler->p.uses[token]--;
    }
    return MQ_OK;
}

uint64_t mq_sampler_position(const mq_sampler *sampler)
{
    return sampler->position;
}

/* ---------------------------------------------------------------- draw */

static uint64_t mix_bits(uint64_t z) /* SplitMix64's */
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* A number in [0, 1) that depends on nothing but seed and position. */
static double uniform_at(uint64_t seed, uint64_t position)
{
    const uint64_t key = mix_bits(seed + 0x9e3779b97f4a7c15u);
    return (double)(mix_bits(key + (position + 1) * 0xd1342543de82ef95u) >> 11) * 0x1p-53;
}

static void penalise(const mq_sampler *sampler, float *logits)
{
    const mq_sampling *s = &sampler->s;
    for (size_t i = 0; i < sampler->p.seen_count; i++) {
        const int32_t token = sampler->p.seen[i];
        const uint32_t uses = sampler->p.uses[token], output = uses & ~IN_PROMPT;
        if (uses == 0) continue; /* all of them were rewound */
        const float logit = logits[token];
        const float scaled = logit > 0 ? logit / s->repetition_penalty : logit * s->repetition_penalty;
        logits[token] = scaled - (s->frequency_penalty * (float)output + (output ? s->presence_penalty : 0));
    }
    for (size_t i = 0; i < s->bias_count; i++) {
        logits[s->bias[i].token] += s->bias[i].bias;
    }
    /* Factors and biases may pass the range of a float. */
    for (size_t i = 0; i < sampler->p.seen_count + s->bias_count; i++) {
        const size_t seen = sampler->p.seen_count;
        float *logit = &logits[i < seen ? sampler->p.seen[i] : s->bias[i - seen].token];
        if (*logit > FLT_MAX) *logit = FLT_MAX;
    }
}

/* Of most masks that forbid little most blocks are as they were. */
static void forbid(mq_sampler *sampler, const uint32_t *mask)
{
    for (uint32_t first = 0; first < sampler->vocab; first += MQ_LOGIT_BLOCK) {
        const uint32_t left = sampler->vocab - first, count = left < MQ_LOGIT_BLOCK ? left : MQ_LOGIT_BLOCK;
        float *logits = sampler->adjusted + first;
        uint32_t all = UINT32_MAX;
        for (uint32_t i = 0; i < count; i += 32) {
            all &= mask[(first + i) / 32];
        }
        if (all == UINT32_MAX) continue;
        for (uint32_t i = 0; i < count; i++) {
            if (!(mask[(first + i) / 32] >> (first + i) % 32 & 1)) logits[i] = -INFINITY;
        }
        (void)mq__block_maxima(logits, count, sampler->maxima + first / MQ_LOGIT_BLOCK);
    }
}

static mq_status name_bad_logit(const mq_sampler *sampler, const float *logits, mq_error *error)
{
    uint32_t i = 0;
    while (i + 1 < sampler->vocab && logits[i] <= FLT_MAX) {
        i++;
    }
    return mq__fail(error, MQ_USAGE, "sampling: logit of token %u: expected a number below infinity, got %g", i,
                    (double)logits[i]);
}

/* Logits after penalties, biases and mask; fills maxima and the best token. */
static mq_status prepare(mq_sampler *sampler, const float *logits, const uint32_t *mask, mq_error *error)
{
    last_draw *last = &sampler->last;
    *last = (last_draw){0};
    if (!mq__block_maxima(logits, sampler->vocab, sampler->maxima)) return name_bad_logit(sampler, logits, error);
    if (mask || sampler->penalised || sampler->s.bias_count) {
        memcpy(sampler->adjusted, logits, sampler->vocab * sizeof *logits);
        logits = sampler->adjusted;
        penalise(sampler, sampler->adjusted);
        if (sampler->penalised || sampler->s.bias_count) {
            (void)mq__block_maxima(logits, sampler->vocab, sampler->maxima);
        }
        if (mask) forbid(sampler, mask);
    }
    const uint32_t best = mq__best_token(logits, sampler->vocab, sampler->maxima);
    if (!(logits[best] >= -FLT_MAX)) {
        return mq__fail(error, MQ_USAGE, "sampling: tokens: expected one that may be drawn, got none of %u",
                        sampler->vocab);
    }
    last->best = logits[best];
    last->best_token = (int32_t)best;
    last->logits = logits;
    return MQ_OK;
}

/* A logit that at least top_k tokens reach: the top_k-th largest maximum of a block. */
static float floor_of_top_k(mq_sampler *sampler)
{
    const uint32_t blocks = mq__logit_blocks(sampler->vocab);
    const size_t k = (size_t)sampler->s.top_k;
    if (k > blocks) return -FLT_MAX;
    for (uint32_t b = 0; b < blocks; b++) {
        sampler->candidates[b] = (mq_candidate){sampler->maxima[b], (int32_t)b, 0};
    }
    (void)mq__keep_best(sampler->candidates, blocks, k, DBL_MAX);
    float lowest = FLT_MAX;
    for (size_t i = 0; i < k; i++) {
        lowest = fminf(lowest, sampler->candidates[i].logit);
    }
    return lowest;
}

/* A logit below which all tokens together have less than 1 - top_p of the weight: even V of that weight would. */
static float floor_of_top_p(const mq_sampler *sampler, double total)
{
    const double share = (1 - (double)sampler->s.top_p) * total / sampler->vocab;
    const double slack = 1e-3; /* far above the error of the sum */
    const double best = (double)sampler->last.best;
    return (float)(best + (log(share) - slack) * (double)sampler->s.temperature - 1e-6 * fabs(best));
}

/* Leaves the tokens that pass the filters in candidates[0, last.kept), in the order of ids. */
static void filter(mq_sampler *sampler)
{
    const mq_sampling *s = &sampler->s;
    last_draw *last = &sampler->last;
    mq_candidate *c = sampler->candidates, worst = {-FLT_MAX, INT32_MAX, 0};
    const bool top_k = s->top_k > 0 && (uint32_t)s->top_k < sampler->vocab, top_p = s->top_p < 1;
    double total = -1;
    if (s->min_p > 0) {
        worst.logit = fmaxf(worst.logit, last->best + (float)(log((double)s->min_p) * (double)s->temperature));
    }
    if (top_k) worst.logit = fmaxf(worst.logit, floor_of_top_k(sampler));
    if (top_p && !top_k && !(s->min_p > 0)) { /* else the sum is over the few that the other filters leave */
        total = mq__block_sums(last->logits, sampler->vocab, last->best, s->temperature, sampler->sums);
        worst.logit = fmaxf(worst.logit, floor_of_top_p(sampler, total));
    }
    size_t n = mq__collect(last->logits, sampler->vocab, sampler->maxima, worst, last->best, s->temperature, c);
    bool ranked = false;
    if (top_k && (size_t)s->top_k < n) {
        n = mq__keep_best(c, n, (size_t)s->top_k, DBL_MAX);
        ranked = true;
    }
    if (top_p) {
        if (total < 0) total = mq__total_weight(c, n);
        n = mq__keep_best(c, n, n, (double)s->top_p * total);
        ranked = true;
    }
    if (ranked) n = mq__collect(last->logits, sampler->vocab, sampler->maxima, c[n - 1], last->best, s->temperature, c);
    last->kept = n;
}

static int32_t draw_filtered(mq_sampler *sampler, double u)
{
    last_draw *last = &sampler->last;
    const mq_candidate *c = sampler->candidates;
    filter(sampler);
    last->sum = mq__total_weight(c, last->kept);
    double x = u * last->sum;
    int32_t token = last->best_token; /* rounding may let x stay at 0 */
    for (size_t i = 0; i < last->kept && x >= 0; i++) {
        if (!(c[i].weight > 0)) continue;
        x -= c[i].weight;
        token = c[i].token;
    }
    return token;
}

mq_status mq_sampler_draw(mq_sampler *sampler, const float *logits, const uint32_t *mask, int32_t *token,
                          mq_error *error)
{
    const mq_sampling *s = &sampler->s;
    last_draw *last = &sampler->last;
    const mq_status status = prepare(sampler, logits, mask, error);
    if (status != MQ_OK) return status;
    const double u = uniform_at(s->seed, sampler->position);
    if (!(s->temperature > 0)) {
        *token = last->best_token;
    } else if (s->min_p > 0 || s->top_p < 1 || (s->top_k > 0 && (uint32_t)s->top_k < sampler->vocab)) {
        *token = draw_filtered(sampler, u);
    } else {
        last->sum = mq__block_sums(last->logits, sampler->vocab, last->best, s->temperature, sampler->sums);
        *token = mq__pick_from_blocks(last->logits, sampler->vocab, last->best, s->temperature, sampler->sums,
                                      u * last->sum);
    }
    return MQ_OK;
}

double mq_sampler_probability(const mq_sampler *sampler, int32_t token)
{
    const last_draw *last = &sampler->last;
    if (!last->logits || token < 0 || (uint32_t)token >= sampler->vocab) return 0;
    if (!(sampler->s.temperature > 0)) return token == last->best_token ? 1 : 0;
    if (last->kept == 0) {
        const double z = ((double)last->logits[token] - (double)last->best) / (double)sampler->s.temperature;
        return exp(z) / last->sum;
    }
    size_t low = 0, high = last->kept;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (sampler->candidates[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    const bool found = low < last->kept && sampler->candidates[low].token == token;
    return found ? sampler->candidates[low].weight / last->sum : 0;
}

bool mq__sampler_is_greedy(const mq_sampler *sampler)
{
    return !(sampler->s.temperature > 0);
}

double mq__sampler_confidence(mq_sampler *sampler, int32_t token)
{
    const last_draw *last = &sampler->last;
    if (!mq__sampler_is_greedy(sampler)) return mq_sampler_probability(sampler, token);
    if (!last->logits || token != last->best_token) return 0;
    return 1 / mq__block_sums(last->logits, sampler->vocab, last->best, 1, sampler->sums);
}
