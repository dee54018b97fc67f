/* `ppl`: how well each plan's prefill predicts a text. The decode format plays no part: a text is read, not written. */
#include "base/distribution.h"
#include "base/error.h"
#include "base/mem.h"
#include "eval/corpus.h"
#include "eval/eval.h"

#include <math.h>

#define LENGTH   2048
#define SHORTEST 32
#define ITEMS    64
#define QUICK    8
#define WEIGHT   "predicted" /* tokens that a text's loss is the mean of */

typedef struct ppl {
    const mq_eval_context *context;
    mq_eval_corpus corpus;
    mq_sequence *sequence;
    uint32_t length;
} ppl;

static void close_ppl(void *task)
{
    ppl *p = task;
    if (!p) return;
    mq_sequence_free(p->sequence);
    mq__eval_corpus_close(&p->corpus);
    mq__free(p);
}

static mq_status open_ppl(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    ppl *p = mq__alloc_zero(1, sizeof *p);
    *task = p;
    if (!p) return mq__fail(error, MQ_NO_MEMORY, "eval: ppl: expected memory, got none");
    p->context = context;
    p->length = o->length_count ? o->lengths[0] : o->text ? LENGTH : context->info.context;
    if (p->length > context->info.context) p->length = context->info.context;
    const mq_eval_corpus_options options = {.length = p->length,
                                            .shortest = SHORTEST,
                                            .most = o->limit   ? o->limit
                                                    : o->quick ? QUICK
                                                               : ITEMS};
    mq_status status = mq__eval_corpus_open(context, &options, &p->corpus, error);
    if (status == MQ_OK) status = mq_sequence_new(context->engine, &p->sequence, error);
    *items = p->corpus.count;
    return status;
}

static const char *ppl_id(void *task, size_t item)
{
    return ((ppl *)task)->corpus.item[item].id;
}

static json_t *settings_ppl(void *task)
{
    const ppl *p = task;
    return json_pack("{sssiss}", "text", p->corpus.hash, "length", (int)p->length, "weight", WEIGHT);
}

typedef struct reading {
    const mq_eval_sequence *text;
    uint32_t vocab;
    double loss;
} reading;

static void take_logits_ppl(void *context, uint32_t first, uint32_t rows, const float *logits)
{
    reading *r = context;
    for (uint32_t i = 0; i < rows && first + i + 1 < r->text->count; i++) {
        const float *row = logits + (size_t)i * r->vocab;
        r->loss += mq__log_sum(row, r->vocab) - (double)row[r->text->tokens[first + i + 1]];
    }
}

static mq_status measure_ppl(void *task, size_t item, const mq_eval_plan *plans, size_t plan_count, json_t **records,
                             mq_error *error)
{
    ppl *p = task;
    const mq_eval_sequence *text = &p->corpus.item[item];
    mq_status status = MQ_OK;
    for (size_t k = 0; status == MQ_OK && k < plan_count; k++) {
        reading r = {.text = text, .vocab = p->context->info.vocab};
        const mq_sync_options sync = {.logits = take_logits_ppl, .context = &r};
        status = mq_engine_set_plan(p->context->engine, &plans[k].options, error);
        mq_sequence_truncate(p->sequence, 0);
        if (status == MQ_OK) status = mq_sequence_sync(p->sequence, text->tokens, text->count, &sync, NULL, error);
        if (status != MQ_OK) break;
        const double loss = r.loss / (text->count - 1);
        records[k] = json_pack("{sfsfsi}", "loss", loss, "perplexity", exp(loss), WEIGHT, (int)text->count - 1);
        if (!records[k]) status = mq__fail(error, MQ_NO_MEMORY, "eval: ppl: expected finite losses, got others");
    }
    return status;
}

const mq_eval_task mq__eval_ppl = {
    .name = "ppl",
    .summary = "loss (nats a token) and perplexity of texts read in the prefill format",
    .metrics = {"loss", "perplexity"},
    .weight = WEIGHT,
    .exponential = 1u << 1,
    .smaller_is_better = true,
    .open = open_ppl,
    .close = close_ppl,
    .id = ppl_id,
    .settings = settings_ppl,
    .measure = measure_ppl,
};
