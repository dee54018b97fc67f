#include "base/error.h"
#include "base/mem.h"
#include "gen/constraint_ahead.h"
#include "gen/drafter_impl.h"
#include "gen/generation.h"

#include <string.h>

#define HISTORY_BYTES   ((uint64_t)64 << 20)
#define AGREEMENT_FIRST 0.75 /* what is said of the model until it is known */
#define AGREEMENT_RATE  0.03 /* weight of one token */

static const char *const draft_names[MQ_DRAFTS] = {"auto", "lookup", "nvfp4", "off"};

const char *mq_draft_name(mq_draft draft)
{
    return (unsigned)draft < MQ_DRAFTS ? draft_names[draft] : "unknown";
}

mq_status mq_draft_parse(const char *name, mq_draft *draft, mq_error *error)
{
    for (int i = 0; i < MQ_DRAFTS; i++) {
        if (strcmp(name, draft_names[i]) != 0) continue;
        *draft = (mq_draft)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_USAGE, "draft: expected lookup, nvfp4, auto or off, got %s", name);
}

/* ---- life */

static bool looks_up(const mq_drafter *d)
{
    return d->kind == MQ_DRAFT_AUTO || d->kind == MQ_DRAFT_LOOKUP;
}

mq_status mq_drafter_new(mq_engine *engine, mq_draft draft, mq_drafter **out, mq_error *error)
{
    *out = NULL;
    mq_drafter *d = mq__alloc_zero(1, sizeof *d);
    if (!d) return mq__fail(error, MQ_NO_MEMORY, "draft: expected memory, got none");
    *d = (mq_drafter){.engine = engine, .kind = draft};
    mq__odds_init(&d->odds);
    mq__cost_init(&d->cost);
    d->agreement = AGREEMENT_FIRST;
    d->models = draft == MQ_DRAFT_NVFP4 || (draft == MQ_DRAFT_AUTO && mq__engine_can_draft(engine));
    mq_status status = looks_up(d) ? mq__history_new(HISTORY_BYTES, &d->history, error) : MQ_OK;
    if (status == MQ_OK && d->models) status = mq__engine_draft_open(engine, error);
    if (status == MQ_OK)
        *out = d;
    else
        mq_drafter_free(d);
    return status;
}

void mq_drafter_free(mq_drafter *d)
{
    if (!d) return;
    mq__history_free(d->history);
    mq__free(d);
}

void mq__drafter_force(mq_drafter *d, uint32_t tokens)
{
    d->forced = tokens;
}

mq_status mq__draft_begin(mq_drafter *d, uint32_t room, mq_draft_answer *answer, mq_error *error)
{
    answer->on = d->kind != MQ_DRAFT_OFF;
    return looks_up(d) ? mq__lookup_new(room, &answer->own, error) : MQ_OK;
}

void mq__draft_end(mq_draft_answer *answer)
{
    mq__lookup_free(answer->own);
    answer->own = NULL;
}

void mq__draft_keep(mq_drafter *d, uint64_t owner, const int32_t *tokens, uint32_t count)
{
    if (d->history) mq__history_add(d->history, owner, tokens, count);
}

/* ---- what is proposed */

/* What the schema leaves no choice about. */
static uint32_t propose_forced(const mq_drafter *d, mq_constraint *ahead, mq_drafted *draft)
{
    int32_t token[MQ_DRAFT_MOST];
    bool only[MQ_DRAFT_MOST];
    const uint32_t count = ahead ? mq__constraint_forced(ahead, token, only, MQ_DRAFT_MOST) : 0;
    double chance = 1;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t class = only[i] ? MQ_ODDS_ONLY : MQ_ODDS_CERTAIN_TEXT;
        chance *= (double)d->odds.right[class];
        draft[i] = (mq_drafted){token[i], class, chance};
    }
    return count;
}

/* What earlier texts go on with behind the first `count` drafted tokens; until one that the schema does not take. */
static uint32_t propose_copied(mq_drafter *d, mq_draft_answer *a, mq_constraint *ahead, mq_drafted *draft,
                               uint32_t count)
{
    mq_drafted more[MQ_DRAFT_MOST];
    const double before = count ? draft[count - 1].chance : 1;
    for (uint32_t i = 0; i < count; i++) {
        a->tokens[a->count + i] = draft[i].token;
    }
    mq__lookup_grow(a->own, a->tokens, a->count);
    const uint32_t copied =
        mq__lookup_draft(a->own, mq__history_of(d->history, a->owner), a->tokens, a->count + count, &d->odds, more);
    for (uint32_t i = 0; i < copied && count < MQ_DRAFT_MOST; i++) {
        if (mq__generation_is_end(a->generation, more[i].token)) break; /* its row would bring nothing */
        if (ahead && mq_constraint_accept(ahead, more[i].token, NULL) != MQ_OK) break;
        draft[count] = more[i];
        draft[count++].chance *= before;
    }
    return count;
}

static uint32_t propose_text(mq_drafter *d, mq_draft_answer *a, mq_drafted *draft)
{
    mq_constraint *ahead = a->constraint ? mq__constraint_ahead(a->constraint) : NULL;
    if (a->constraint && !ahead) return 0; /* no memory */
    uint32_t count = propose_forced(d, ahead, draft);
    if (count > a->most) count = a->most;
    return a->own && count < a->most ? propose_copied(d, a, ahead, draft, count) : count;
}

/* ---- how much of it is verified */

static uint32_t worth(const mq_drafter *d, const mq_drafted *draft, uint32_t count, uint32_t rows, double *expected)
{
    double chance[MQ_DRAFT_MOST];
    if (count + rows > MQ_DECODE_ROWS) count = rows < MQ_DECODE_ROWS ? MQ_DECODE_ROWS - rows : 0;
    if (d->forced) return count < d->forced ? count : d->forced;
    for (uint32_t i = 0; i < count; i++) {
        chance[i] = draft[i].chance;
    }
    return mq__cost_worth(&d->cost, rows, expected, chance, count);
}

static void take_draft(mq_draft_answer *a, const mq_drafted *draft, uint32_t count)
{
    a->drafted = count;
    memmove(a->draft, draft, count * sizeof *draft);
    for (uint32_t i = 0; i < count; i++) {
        a->tokens[a->count + i] = draft[i].token;
    }
}

/* Whether the model's draft would bring more tokens a second than what the text promises, seen for this answer alone. */
static bool model_is_better(const mq_drafter *d, const mq_draft_answer *a, const mq_drafted *draft, uint32_t count)
{
    if (d->forced) return count == 0 || a->count % 2;
    const double rate = mq__rounds_rate(d, 1, 1, 1);
    double tokens = 1;
    for (uint32_t i = 0; i < count; i++) {
        tokens += draft[i].chance;
    }
    return rate > tokens / mq__cost_of(&d->cost, MQ_COST_DECODE, 1 + count);
}

/* From texts, if that pays; else the model's turn comes when all texts have been looked at. */
static void draft_text(mq_drafter *d, mq_draft_answer *a, uint32_t *rows, double *expected)
{
    mq_drafted draft[MQ_DRAFT_MOST];
    double with = *expected;
    uint32_t proposed = propose_text(d, a, draft);
    if (proposed > a->most) proposed = a->most;
    const uint32_t some = worth(d, draft, proposed, *rows, &with);
    if (proposed && some == 0) mq__odds_age(&d->odds, draft[0].class);
    if (d->models && model_is_better(d, a, draft, some) && mq__rounds_add(d, a)) return;
    take_draft(a, draft, some);
    *rows += some;
    *expected = with;
}

static void learn_agreement(mq_drafter *d, double right)
{
    d->agreement += AGREEMENT_RATE * (right - d->agreement);
}

/* What the model drafted, as much as is worth its rows. Of what is not verified nobody learns whether it is right: the draft step was
 * taken in vain, and that counts against the next one. */
static void draft_modelled(mq_drafter *d, uint32_t rows, double expected)
{
    const uint32_t count = d->rounds;
    mq__rounds_run(d, rows, expected);
    for (uint32_t i = 0; i < count; i++) {
        mq_draft_answer *a = d->round[i].answer;
        const uint32_t some = worth(d, a->draft, a->drafted, rows, &expected);
        if (a->drafted && some == 0) {
            learn_agreement(d, a->draft[0].chance);
            mq__odds_age(&d->odds, a->draft[0].class);
        }
        take_draft(a, a->draft, some);
        rows += some;
    }
}

void mq__draft_propose(mq_drafter *d, mq_draft_answer *const *answers, uint32_t count, uint32_t rows)
{
    double expected = rows;
    const bool plain = !d->forced && mq__cost_wants_plain(&d->cost);
    for (uint32_t i = 0; i < count; i++) {
        answers[i]->drafted = 0;
        if (!plain && answers[i]->on && answers[i]->most > 0) draft_text(d, answers[i], &rows, &expected);
    }
    if (d->models && !plain) draft_modelled(d, rows, expected);
}

/* ---- what came of it */

bool mq__draft_judge(mq_drafter *d, const mq_draft_answer *a, uint32_t at, int32_t drawn)
{
    if (at >= a->drafted) return false;
    const bool right = a->draft[at].token == drawn;
    mq__odds_learn(&d->odds, a->draft[at].class, right);
    if (a->draft[at].class >= MQ_ODDS_MODEL) learn_agreement(d, right ? 1 : 0);
    return right;
}

void mq__draft_stepped(mq_drafter *d, uint32_t rows, bool drafted, double seconds)
{
    mq__cost_learn(&d->cost, MQ_COST_DECODE, rows, drafted, seconds);
}
