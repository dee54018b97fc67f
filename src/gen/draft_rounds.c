/* Drafts of the model's NVFP4 copy: rounds of draft steps, a token for each answer a round. A draw depends on logits, seed and position,
 * so the draft's token is drawn as the answer's will be: where the two copies agree about the distribution they mostly draw the
 * same token. Nothing stays: the sampler is rewound, the sequence cut back, and the schema is looked at on a copy. */
#include "base/pool.h"
#include "gen/constraint_ahead.h"
#include "gen/drafter_impl.h"
#include "gen/generation.h"
#include "gen/sampler.h"

#include <math.h>

#define GAIN_LEAST 1.03   /* of the tokens a second without them */
#define AGE_ROUNDS 1.5e-3 /* of the way back to where the agreement began, each time that rounds do not pay */
#define AGREEMENT  0.75   /* that */

/* ---- what pays */

double mq__rounds_rate(const mq_drafter *d, uint32_t count, uint32_t rows, double expected)
{
    const double plain = expected / mq__cost_of(&d->cost, MQ_COST_DECODE, rows) * GAIN_LEAST;
    const double step = mq__cost_of(&d->cost, MQ_COST_DRAFT, count);
    double best = plain, chance = 1;
    for (uint32_t k = 1; k <= MQ_DRAFT_MOST && rows + k * count <= MQ_DECODE_ROWS; k++) {
        chance *= d->agreement;
        expected += chance * count;
        const double rate = expected / (k * step + mq__cost_of(&d->cost, MQ_COST_DECODE, rows + k * count));
        if (rate > best) best = rate;
    }
    return best > plain ? best : 0;
}

/* Whether one more round for the active answers brings more than `rate`. rows: of the decode step so far. */
static bool pays(const mq_drafter *d, uint32_t round, uint32_t rows, double rate)
{
    double tokens = 0;
    uint32_t active = 0;
    for (uint32_t i = 0; i < d->rounds; i++) {
        active += d->round[i].active;
        tokens += d->round[i].active ? d->round[i].chance * d->agreement : 0;
    }
    if (active == 0 || rows + active > MQ_DECODE_ROWS) return false;
    if (d->forced) return round < d->forced;
    const double seconds = mq__cost_of(&d->cost, MQ_COST_DRAFT, active) +
                           mq__cost_of(&d->cost, MQ_COST_DECODE, rows + active) -
                           mq__cost_of(&d->cost, MQ_COST_DECODE, rows);
    return rate > 0 && tokens > rate * seconds;
}

/* ---- one round */

static void gather_round(mq_drafter *d)
{
    d->row_count = 0;
    for (uint32_t i = 0; i < d->rounds; i++) {
        mq_round_answer *r = &d->round[i];
        const mq_draft_answer *a = r->answer;
        if (!r->active) continue;
        d->drawing[d->row_count] = r;
        d->rows[d->row_count++] = (mq_rows){.sequence = a->sequence,
                                            .tokens = a->tokens + a->count - 1 + a->drafted,
                                            .count = 1,
                                            .phase = MQ_PHASE_DECODE,
                                            .logits = 1};
    }
}

static void draw_one(mq_round_answer *r)
{
    mq_sampler *sampler = mq_generation_sampler(r->answer->generation);
    const uint32_t *mask = r->ahead ? mq_constraint_mask(r->ahead) : NULL;
    const float *logits = mq_sequence_logits(r->answer->sequence);
    r->status = logits ? mq_sampler_draw(sampler, logits, mask, &r->drawn, NULL) : MQ_CANCELLED;
    if (r->status == MQ_OK) r->confidence = mq__sampler_confidence(sampler, r->drawn);
}

static void draw_round(void *context, int thread, int threads)
{
    const mq_drafter *d = context;
    size_t begin, end;
    mq__partition(d->row_count, thread, threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        draw_one(d->drawing[i]);
    }
}

/* A number in [0, 1) that depends on the script and the place of the token in the answer. */
static double coin(const mq_draft_script *script, uint64_t at)
{
    uint64_t z = script->seed * 0x9e3779b97f4a7c15u + (at + 1) * 0xd1342543de82ef95u;
    z = (z ^ (z >> 32)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 29)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 32)) >> 11) * 0x1p-53;
}

static void obey_script(const mq_drafter *d, mq_round_answer *r)
{
    const mq_draft_answer *a = r->answer;
    const uint32_t at = mq_generation_count(a->generation) + a->drafted;
    const int32_t token = mq__draft_scripted(a->script, at);
    const bool right = coin(a->script, at) < a->script->agreement;
    r->drawn = right ? token : (int32_t)(((uint32_t)token + 1) % d->engine->weights->model.vocab);
    r->confidence = a->script->agreement; /* the model does not know it better */
}

/* The drawn token joins the draft, unless the answer would end there: its row would bring nothing. */
static void take_drawn(mq_drafter *d, mq_round_answer *r)
{
    mq_draft_answer *a = r->answer;
    mq_sampler *sampler = mq_generation_sampler(a->generation);
    r->active = false;
    if (r->status == MQ_OK && a->script) obey_script(d, r);
    if (r->status != MQ_OK || mq__generation_is_end(a->generation, r->drawn)) return;
    if (r->ahead && mq_constraint_accept(r->ahead, r->drawn, NULL) != MQ_OK) return;
    if (mq_sampler_accept(sampler, r->drawn, NULL) != MQ_OK) return;
    const uint32_t class = mq__odds_of_model(r->confidence, mq__sampler_is_greedy(sampler));
    r->chance *= (double)d->odds.right[class];
    a->tokens[a->count + a->drafted] = r->drawn;
    a->draft[a->drafted++] = (mq_drafted){r->drawn, class, r->chance};
    r->active = a->drafted < a->most && a->drafted < MQ_DRAFT_MOST;
}

/* False: the engine refused (no KV blocks). */
static bool run_round(mq_drafter *d)
{
    gather_round(d);
    const double start = mq__seconds();
    if (mq__engine_draft(d->engine, d->rows, d->row_count, NULL) != MQ_OK) return false;
    mq__pool_run(d->engine->pool, draw_round, d);
    for (uint32_t i = 0; i < d->row_count; i++) {
        if (d->rows[i].status != MQ_OK) d->drawing[i]->status = d->rows[i].status;
        take_drawn(d, d->drawing[i]);
    }
    mq__cost_learn(&d->cost, MQ_COST_DRAFT, d->row_count, true, mq__seconds() - start);
    return true;
}

/* ---- all of them */

bool mq__rounds_add(mq_drafter *d, mq_draft_answer *a)
{
    if (!d->models || d->rounds == MQ_DECODE_ROWS || !mq__sequence_can_draft(a->sequence)) return false;
    mq_constraint *ahead = a->constraint ? mq__constraint_ahead(a->constraint) : NULL;
    if (a->constraint && !ahead) return false;
    if (a->known > a->count) a->known = 0;
    mq__engine_draft_know(d->engine, a->tokens + a->known, a->count - a->known);
    a->known = a->count;
    a->drafted = 0;
    d->round[d->rounds++] = (mq_round_answer){.answer = a, .ahead = ahead, .active = true, .chance = 1};
    return true;
}

static void forget_round(const mq_round_answer *r)
{
    const mq_draft_answer *a = r->answer;
    (void)mq_sampler_rewind(mq_generation_sampler(a->generation), a->drafted, NULL);
    (void)mq_sequence_truncate(a->sequence, a->count - 1);
}

void mq__rounds_run(mq_drafter *d, uint32_t rows, double expected)
{
    const double rate = d->rounds ? mq__rounds_rate(d, d->rounds, rows, expected) : 0;
    if (rate == 0) d->agreement += AGE_ROUNDS * (AGREEMENT - d->agreement);
    uint32_t round = 0;
    while (pays(d, round, rows, rate) && run_round(d)) {
        rows += d->row_count;
        round++;
    }
    for (uint32_t i = 0; i < d->rounds; i++) {
        forget_round(&d->round[i]);
    }
    d->rounds = 0;
}
