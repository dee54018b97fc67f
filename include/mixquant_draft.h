/* mixquant_draft.h: lossless drafting. Decoding waits for weights, and a decode step of several rows reads them once: tokens that are
 * likely to come next are proposed, run together and kept as long as they are what would have been drawn. An answer has the tokens
 * that it has without drafts, sampled ones as well: a row has the bits that it has alone, and a draw depends on logits, seed and
 * position only. docs/DRAFTING.md says when it pays. */
#ifndef MIXQUANT_DRAFT_H
#define MIXQUANT_DRAFT_H

#include "mixquant.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Who proposes. All but OFF also propose what a schema leaves no choice about, and stop where drafts do not pay. */
typedef enum mq_draft {
    MQ_DRAFT_AUTO, /* LOOKUP, and where it has nothing NVFP4, if the plan's prefill uses NVFP4 weights and decoding does not */
    MQ_DRAFT_LOOKUP, /* what followed earlier occurrences of the text's end: in the request, in the owner's earlier answers */
    MQ_DRAFT_NVFP4, /* the NVFP4 copy of the model; MQ_USAGE for plans that AUTO does not use it for */
    MQ_DRAFT_OFF,
    MQ_DRAFTS
} mq_draft;

MQ_API const char *mq_draft_name(mq_draft draft); /* "auto", "lookup", "nvfp4", "off" */
MQ_API mq_status mq_draft_parse(const char *name, mq_draft *draft, mq_error *error);

/* Drafts answers of one engine's sequences (mq_generate_options.drafter), and learns from them what pays. One thread at a time. */
typedef struct mq_drafter mq_drafter;
/* The engine is borrowed; its plan is the one that drafts are for. */
MQ_API mq_status mq_drafter_new(mq_engine *engine, mq_draft draft, mq_drafter **drafter, mq_error *error);
MQ_API void mq_drafter_free(mq_drafter *drafter);

/* For benchmarks: an answer whose tokens are given, not drawn. Steps, draws and drafts cost what they cost otherwise; what they bring is
 * ruled: a draw gives the next token of `answer`, a lookup is right where it finds that, and a token that a model proposes is right by a
 * coin that falls so with probability `agreement`, whatever the weights say. */
typedef struct mq_draft_script {
    const int32_t *answer; /* [count] from its first token on, again and again; borrowed */
    uint32_t count;
    double agreement;
    uint64_t seed;
} mq_draft_script;

#ifdef __cplusplus
}
#endif
#endif
