/* RULER's families of questions about a long text, made for a budget of tokens (Hsieh et al. 2024, arXiv 2404.06654, in
 * our own code). A question is a list of facts that are put into noise, at fixed relative depths. */
#ifndef MQ_EVAL_RULER_H
#define MQ_EVAL_RULER_H

#include "base/buf.h"
#include "eval/eval.h"
#include "eval/ruler_qa.h"

typedef enum mq_ruler_kind {
    MQ_RULER_SINGLE,
    MQ_RULER_MULTIKEY,
    MQ_RULER_MULTIVALUE,
    MQ_RULER_MULTIQUERY,
    MQ_RULER_TRACKING,
    MQ_RULER_COMMON,
    MQ_RULER_FREQUENT,    /* as COMMON, but how often words come falls off gradually (RULER's "fwe") */
    MQ_RULER_SINGLE_UUID, /* as SINGLE, with a UUID for the number ("niah_single_3") */
    MQ_RULER_CROWDED,     /* one needle among others of its kind instead of noise ("niah_multikey_2") */
    MQ_RULER_UUIDS,       /* the same with UUIDs for keys and values ("niah_multikey_3") */
    MQ_RULER_QA,          /* published questions about documents among others ("qa_1", "qa_2"; ruler_qa.h) */
    MQ_RULER_KINDS
} mq_ruler_kind;

extern const char *const mq__ruler_kind_names[MQ_RULER_KINDS];

/* RULER's English; or the words that the bundled model was trained on (tools/train/world.py, held-out names). */
typedef enum mq_ruler_wording { MQ_RULER_ENGLISH, MQ_RULER_BUNDLED } mq_ruler_wording;

#define MQ_RULER_FACTS_MAX 32

/* A text whose sentences are the noise around needles (RULER's essays), as often as they are needed. */
typedef struct mq_ruler_hay {
    char *text;      /* its sentences, each with a NUL; owned */
    uint32_t *begin; /* [count] where they begin; owned */
    uint32_t count;
    char hash[32];
} mq_ruler_hay;

mq_status mq__ruler_hay_read(const char *path, mq_ruler_hay *hay, mq_error *error);
void mq__ruler_hay_free(mq_ruler_hay *hay);

/* What items are made of besides words of our own. */
typedef struct mq_ruler_source {
    const mq_ruler_hay *hay; /* around needles in English; NULL: five plain sentences */
    const mq_ruler_qa *qa;   /* for MQ_RULER_QA, else NULL */
    size_t index;            /* which of its questions: mq__ruler_qa_draw */
} mq_ruler_source;

typedef struct mq_ruler_item {
    mq_ruler_kind kind;
    mq_ruler_wording wording;
    mq_ruler_source source;
    uint64_t noise_seed;
    char fact[MQ_RULER_FACTS_MAX][160]; /* in the order of the text */
    double depth[MQ_RULER_FACTS_MAX];   /* ascending, 0 to 1 */
    uint32_t facts;
    char wanted[MQ_RULER_FACTS_MAX][48]; /* what a right answer contains; none: one of the source's answers */
    uint32_t wanted_count;
    char before[256], question[320];
} mq_ruler_item;

/* Equal seeds and names give equal items. */
void mq__ruler_make(mq_ruler_item *item, mq_ruler_kind kind, mq_ruler_wording wording, mq_ruler_source source,
                    uint64_t seed, const char *name);

/* The user's text with `noise` pieces of noise (sentences, needles, documents; for the common words, repetitions). */
void mq__ruler_text(const mq_ruler_item *item, uint32_t noise, mq_buf *text);

/* The share of the wanted texts that the answer contains as whole words; of a published question's answers one is enough. */
double mq__ruler_score(const mq_ruler_item *item, const char *answer);

#endif
