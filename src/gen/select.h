/* Passes over a row of V logits, in blocks so that they vectorise and later passes can skip most of the row: which tokens
 * can be drawn, and with what weight exp((logit - best) / temperature). Nothing here sorts the row. */
#ifndef MQ_SELECT_H
#define MQ_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MQ_LOGIT_BLOCK 64

typedef struct mq_candidate {
    float logit;
    int32_t token;
    double weight;
} mq_candidate;

static inline uint32_t mq__logit_blocks(uint32_t vocab)
{
    return (vocab + MQ_LOGIT_BLOCK - 1) / MQ_LOGIT_BLOCK;
}

/* Fills maxima[mq__logit_blocks(vocab)]. False when a value is NaN or plus infinity; minus infinity is fine. */
bool mq__block_maxima(const float *logits, uint32_t vocab, float *maxima);

/* The lowest of the tokens with the largest logit. */
uint32_t mq__best_token(const float *logits, uint32_t vocab, const float *maxima);

/* sums[b]: the weights of block b, each to about 1e-7 of itself. Returns their sum. */
double mq__block_sums(const float *logits, uint32_t vocab, float best, float temperature, double *sums);

/* The first token in the order of ids at which the running sum of weights exceeds x, given sums of mq__block_sums. */
int32_t mq__pick_from_blocks(const float *logits, uint32_t vocab, float best, float temperature, const double *sums,
                             double x);

/* Collects the tokens that are not worse than `worst` (a higher logit, or the same and not a higher id), in the order of ids.
 * Returns how many. c has room for all. */
size_t mq__collect(const float *logits, uint32_t vocab, const float *maxima, mq_candidate worst, float best,
                   float temperature, mq_candidate *c);

double mq__total_weight(const mq_candidate *c, size_t count);

/* Moves the best n of c[0, count) to its front, the worst of them last, where n is the smallest number >= 1 that is `most`
 * or whose weights reach `mass`. Returns n, or count when there is no such number. */
size_t mq__keep_best(mq_candidate *c, size_t count, size_t most, double mass);

#endif
