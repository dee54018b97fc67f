/* Proposes tokens for answers, decides how many are verified, and learns from what came of them. Who runs the answers (generate.c, the
 * scheduler) runs the rows: the last known token's and those of the draft behind it. */
#ifndef MQ_DRAFTER_H
#define MQ_DRAFTER_H

#include "gen/lookup.h"
#include "mixquant_draft.h"
#include "mixquant_serve.h"

/* One answer. */
typedef struct mq_draft_answer {
    mq_lookup *own; /* owned; NULL: no texts are looked at */
    bool on;
    uint64_t owner;
    const mq_draft_script *script; /* NULL, or what rules it */
    /* Set before each proposal: */
    mq_sequence *sequence;     /* has all known tokens but the last */
    mq_generation *generation; /* has taken all that are drawn */
    mq_constraint *constraint; /* NULL: none; the same */
    int32_t *tokens;           /* [count + most] known ones, and behind them where a draft goes */
    uint32_t count, most;
    uint32_t known; /* tokens that the model's draft head has been told of */
    /* The draft: */
    uint32_t drafted;
    mq_drafted draft[MQ_DRAFT_MOST];
} mq_draft_answer;

/* room: tokens of prompt and answer at most. Of a drafter that is off nothing is drafted. */
mq_status mq__draft_begin(mq_drafter *drafter, uint32_t room, mq_draft_answer *answer, mq_error *error);
void mq__draft_end(mq_draft_answer *answer);

/* Before a decode step of `rows` rows, of which each of these answers has one: drafts for them, at tokens + count. */
void mq__draft_propose(mq_drafter *drafter, mq_draft_answer *const *answers, uint32_t count, uint32_t rows);
/* Whether a drawn token is the one that the draft has at this place (beyond its end there is none); learns from it. In order, up to the first
 * that is not. */
bool mq__draft_judge(mq_drafter *drafter, const mq_draft_answer *answer, uint32_t at, int32_t drawn);
/* A decode step of so many rows, drafted ones included, took so long. */
void mq__draft_stepped(mq_drafter *drafter, uint32_t rows, bool drafted, double seconds);
/* An answer is complete: later ones of its owner may be like it. */
void mq__draft_keep(mq_drafter *drafter, uint64_t owner, const int32_t *tokens, uint32_t count);

/* For tests: drafts of so many tokens wherever something can be proposed, whatever they cost; from texts and the model in turn. */
void mq__drafter_force(mq_drafter *drafter, uint32_t tokens);

/* The token that the script has at a place of the answer. */
static inline int32_t mq__draft_scripted(const mq_draft_script *script, uint32_t at)
{
    return script->answer[at % script->count];
}

#endif
