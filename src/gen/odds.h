/* How often drafted tokens are right, by what they rest on: learnt from those that were verified. */
#ifndef MQ_ODDS_H
#define MQ_ODDS_H

#include <stdbool.h>
#include <stdint.h>

/* Classes of drafted tokens. Of a text: by the length of the match, by the share of its occurrences that go on so, and whether there are
 * several. Of a schema: the only token that may come, and the longest one where the text alone is certain. Of a model: by the
 * probability that it gave, greedy answers apart from drawn ones. */
enum {
    MQ_ODDS_LENGTHS = 6,
    MQ_ODDS_SHARES = 6,
    MQ_ODDS_TEXT = 0,
    MQ_ODDS_ONLY = MQ_ODDS_TEXT + 2 * MQ_ODDS_LENGTHS * MQ_ODDS_SHARES,
    MQ_ODDS_CERTAIN_TEXT,
    MQ_ODDS_MODEL,
    MQ_ODDS_BINS = 12,
    MQ_ODDS_CLASSES = MQ_ODDS_MODEL + 2 * MQ_ODDS_BINS
};

typedef struct mq_odds {
    float right[MQ_ODDS_CLASSES];
    uint8_t seen[MQ_ODDS_CLASSES]; /* how much is known of each, up to a bound */
} mq_odds;

void mq__odds_init(mq_odds *odds);
uint32_t mq__odds_of_text(uint32_t length, double share, bool several);
uint32_t mq__odds_of_model(double probability, bool greedy);
void mq__odds_learn(mq_odds *odds, uint32_t class, bool right);
/* It could have been drafted and did not pay: what is known of it ages, so that it is tried again after some hundred chances. */
void mq__odds_age(mq_odds *odds, uint32_t class);

#endif
