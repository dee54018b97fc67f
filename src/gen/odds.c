#include "gen/odds.h"

#include <string.h>

#define SEEN_MOST 60    /* the latest token weighs 1 / (seen + 2) */
#define AGE       0.004 /* of the way back to where it began */

/* Where it begins: what 200 recorded agent trajectories showed (docs/DRAFTING.md). */
static const float alone[MQ_ODDS_LENGTHS] = {0.50f, 0.65f, 0.75f, 0.80f, 0.80f, 0.90f};
static const float agreed[MQ_ODDS_LENGTHS] = {0.85f, 0.85f, 0.88f, 0.94f, 0.95f, 0.98f};

static float first_odds(uint32_t class)
{
    if (class == MQ_ODDS_ONLY) return 1;
    if (class == MQ_ODDS_CERTAIN_TEXT) return 0.8f;
    if (class >= MQ_ODDS_MODEL) return ((float)((class - MQ_ODDS_MODEL) % MQ_ODDS_BINS) + 0.5f) / MQ_ODDS_BINS;
    const uint32_t share = class % MQ_ODDS_SHARES, length = class / MQ_ODDS_SHARES % MQ_ODDS_LENGTHS;
    if (class < MQ_ODDS_LENGTHS * MQ_ODDS_SHARES) return alone[length];
    return agreed[length] * (float)(share + 1) / MQ_ODDS_SHARES;
}

void mq__odds_init(mq_odds *odds)
{
    memset(odds->seen, 0, sizeof odds->seen);
    for (uint32_t class = 0; class < MQ_ODDS_CLASSES; class ++) {
        odds->right[class] = first_odds(class);
    }
}

uint32_t mq__odds_of_text(uint32_t length, double share, bool several)
{
    static const uint8_t longer[MQ_ODDS_LENGTHS - 1] = {2, 3, 5, 9, 20};
    static const double more[MQ_ODDS_SHARES - 1] = {0.3, 0.5, 0.7, 0.9, 0.999};
    uint32_t l = 0, s = 0;
    while (l < MQ_ODDS_LENGTHS - 1 && length >= longer[l]) {
        l++;
    }
    while (s < MQ_ODDS_SHARES - 1 && share >= more[s]) {
        s++;
    }
    return MQ_ODDS_TEXT + ((several ? MQ_ODDS_LENGTHS : 0) + l) * MQ_ODDS_SHARES + s;
}

uint32_t mq__odds_of_model(double probability, bool greedy)
{
    static const double more[MQ_ODDS_BINS - 1] = {0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.93, 0.97, 0.99};
    uint32_t bin = 0;
    while (bin < MQ_ODDS_BINS - 1 && probability >= more[bin]) {
        bin++;
    }
    return MQ_ODDS_MODEL + (greedy ? 0u : MQ_ODDS_BINS) + bin;
}

void mq__odds_learn(mq_odds *odds, uint32_t class, bool right)
{
    if (class == MQ_ODDS_ONLY) return; /* that one is no guess */
    uint8_t *seen = &odds->seen[class];
    odds->right[class] += ((right ? 1.0f : 0.0f) - odds->right[class]) / (float)(*seen + 2);
    if (*seen < SEEN_MOST) ++*seen;
}

void mq__odds_age(mq_odds *odds, uint32_t class)
{
    odds->right[class] += (float)AGE * (first_odds(class) - odds->right[class]);
}
