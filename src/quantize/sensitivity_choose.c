#include "quantize/sensitivity.h"

#include <math.h>
#include <string.h>

typedef struct change {
    uint32_t layer;
    int group, rung;
    double saved, seconds;
} change;

/* Free changes by what they save, others by what they save per second. */
static bool is_better(const change *a, const change *b)
{
    if (b->saved <= 0) return true;
    const bool a_free = a->seconds <= 0, b_free = b->seconds <= 0;
    if (a_free != b_free) return a_free;
    return a_free ? a->saved > b->saved : a->saved * b->seconds > b->saved * a->seconds;
}

void mq__sensitivity_choose(const mq_sensitivity *m, double budget, uint8_t (*choice)[MQ_GROUPS])
{
    double left = (budget - 1) * m->prefill_seconds;
    memset(choice, MQ_RUNG_NVFP4, m->layers * sizeof *choice);
    for (;;) {
        change best = {.saved = 0};
        for (uint32_t l = 0; l < m->layers; l++) {
            for (int g = 0; g < MQ_GROUPS; g++) {
                const int now = choice[l][g];
                for (int rung = 0; rung < MQ_RUNGS; rung++) {
                    const change c = {l, g, rung, m->divergence[l][g][now] - m->divergence[l][g][rung],
                                      m->seconds[g][rung] - m->seconds[g][now]};
                    if (c.saved > 0 && c.seconds <= left && is_better(&c, &best)) best = c;
                }
            }
        }
        if (best.saved <= 0) return;
        choice[best.layer][best.group] = (uint8_t)best.rung;
        left -= best.seconds;
    }
}
