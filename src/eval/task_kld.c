/* `kld`: how far each plan is from BF16, where it matters: (a) logits of the prompt, (b) logits of the answer that is
 * decoded after the prompt was prefilled. BF16 writes the reference answer greedily (end tokens are not obeyed, so that all
 * answers have one length). Teacher-forced, the plan is fed that answer; free-running, it is fed its own, and the first
 * step where it differs is the divergence step. Until then both runs are the same, so the second starts there. */
#include "base/distribution.h"
#include "base/error.h"
#include "base/mem.h"
#include "eval/corpus.h"
#include "eval/eval.h"

#include <string.h>

#define LENGTH       1024
#define SHORTEST     16
#define ITEMS        64
#define QUICK        8
#define ANSWER       128
#define ANSWER_QUICK 48
#define LOGITS_MAX                                                                                                     \
    ((size_t)512 << 20) /* bytes of kept reference logits; a longer prompt is compared in its last rows */

typedef struct kld {
    const mq_eval_context *context;
    mq_eval_corpus corpus;
    mq_sequence *sequence;
    uint32_t length, answer, vocab;
    float *prompt_logits, *answer_logits; /* of BF16 */
    int32_t *written;                     /* [answer] by BF16 */
    double *divergence;                   /* [answer] teacher-forced, of the present plan */
    uint8_t *agrees, *same;               /* [answer] teacher-forced top-1; free-running token */
} kld;

static void close_kld(void *task)
{
    kld *k = task;
    if (!k) return;
    mq_sequence_free(k->sequence);
    mq__eval_corpus_close(&k->corpus);
    mq__free(k->prompt_logits);
    mq__free(k->answer_logits);
    mq__free(k->written);
    mq__free(k->divergence);
    mq__free(k->agrees);
    mq__free(k->same);
    mq__free(k);
}

static uint32_t kept_rows(const kld *k, uint32_t count)
{
    const size_t rows = LOGITS_MAX / sizeof(float) / k->vocab;
    return count < rows ? count : (uint32_t)rows;
}

static mq_status allocate_kld(kld *k, mq_error *error)
{
    const size_t row = k->vocab * sizeof(float);
    k->prompt_logits = mq__alloc(kept_rows(k, k->length) * row);
    k->answer_logits = mq__alloc(k->answer * row);
    k->written = mq__alloc_zero(k->answer, sizeof *k->written);
    k->divergence = mq__alloc_zero(k->answer, sizeof *k->divergence);
    k->agrees = mq__alloc_zero(k->answer, 1);
    k->same = mq__alloc_zero(k->answer, 1);
    if (k->prompt_logits && k->answer_logits && k->written && k->divergence && k->agrees && k->same) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "eval: kld: expected memory, got none");
}

static mq_status open_kld(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    kld *k = mq__alloc_zero(1, sizeof *k);
    *task = k;
    if (!k) return mq__fail(error, MQ_NO_MEMORY, "eval: kld: expected memory, got none");
    k->context = context;
    k->vocab = context->info.vocab;
    k->answer = o->max_tokens ? o->max_tokens : o->quick ? ANSWER_QUICK : ANSWER;
    if (k->answer + SHORTEST > context->info.context) {
        return mq__fail(error, MQ_USAGE, "eval: kld: expected answers below the context of %u, got %u",
                        context->info.context, k->answer);
    }
    const uint32_t most = context->info.context - k->answer;
    k->length = o->length_count ? o->lengths[0] : o->text ? LENGTH : most;
    if (k->length > most) k->length = most;
    const mq_eval_corpus_options options = {.length = k->length,
                                            .shortest = SHORTEST,
                                            .most = o->limit   ? o->limit
                                                    : o->quick ? QUICK
                                                               : ITEMS,
                                            .prompts = true};
    mq_status status = mq__eval_corpus_open(context, &options, &k->corpus, error);
    if (status == MQ_OK) status = allocate_kld(k, error);
    if (status == MQ_OK) status = mq_sequence_new(context->engine, &k->sequence, error);
    *items = k->corpus.count;
    return status;
}

static const char *kld_id(void *task, size_t item)
{
    return ((kld *)task)->corpus.item[item].id;
}

static json_t *settings_kld(void *task)
{
    const kld *k = task;
    return json_pack("{sssisi}", "text", k->corpus.hash, "length", (int)k->length, "answer", (int)k->answer);
}

/* ---- one pass over a prompt */

typedef struct reading {
    kld *k;
    uint32_t first; /* rows before are not compared */
    uint32_t last;  /* the prompt's last row belongs to the answer: it runs in the decode plan */
    bool reference;
    double sum;
    uint32_t agree, rows;
} reading;

static void take_logits_kld(void *context, uint32_t first, uint32_t rows, const float *logits)
{
    reading *r = context;
    const uint32_t vocab = r->k->vocab;
    for (uint32_t i = 0; i < rows; i++) {
        const uint32_t at = first + i;
        if (at < r->first || at >= r->last) continue;
        const float *row = logits + (size_t)i * vocab;
        float *kept = r->k->prompt_logits + (size_t)(at - r->first) * vocab;
        if (r->reference) {
            memcpy(kept, row, vocab * sizeof *row);
            continue;
        }
        r->sum += mq__divergence(kept, row, vocab);
        r->agree += mq__largest(kept, vocab) == mq__largest(row, vocab);
        r->rows++;
    }
}

static mq_status prefill_kld(kld *k, const mq_eval_sequence *text, const mq_eval_plan *plan, reading *r,
                             mq_error *error)
{
    const mq_sync_options sync = {.logits = take_logits_kld, .context = r};
    r->k = k;
    r->last = text->count - 1;
    r->first = r->last - kept_rows(k, r->last);
    mq_status status = mq_engine_set_plan(k->context->engine, &plan->options, error);
    mq_sequence_truncate(k->sequence, 0);
    if (status == MQ_OK) status = mq_sequence_sync(k->sequence, text->tokens, text->count, &sync, NULL, error);
    return status;
}

/* BF16's own answer and its logits. */
static mq_status write_reference(kld *k, mq_error *error)
{
    mq_status status = MQ_OK;
    for (uint32_t t = 0; status == MQ_OK && t < k->answer; t++) {
        const float *logits = mq_sequence_logits(k->sequence);
        memcpy(k->answer_logits + (size_t)t * k->vocab, logits, k->vocab * sizeof *logits);
        k->written[t] = (int32_t)mq__largest(logits, k->vocab);
        if (t + 1 < k->answer) status = mq_sequence_step(k->sequence, k->written[t], error);
    }
    return status;
}

static mq_status follow_reference(kld *k, mq_error *error)
{
    mq_status status = MQ_OK;
    for (uint32_t t = 0; status == MQ_OK && t < k->answer; t++) {
        const float *logits = mq_sequence_logits(k->sequence);
        k->divergence[t] = mq__divergence(k->answer_logits + (size_t)t * k->vocab, logits, k->vocab);
        k->agrees[t] = (int32_t)mq__largest(logits, k->vocab) == k->written[t];
        if (t + 1 < k->answer) status = mq_sequence_step(k->sequence, k->written[t], error);
    }
    return status;
}

/* To the logits that the token `at` of the answer is drawn from. Recurrent state cannot be rewound: all is run again then. */
static mq_status go_back(kld *k, const mq_eval_sequence *text, uint32_t at, mq_error *error)
{
    const uint32_t place = text->count + at - 1;
    const int32_t before = at ? k->written[at - 1] : text->tokens[text->count - 1];
    if (mq_sequence_truncate(k->sequence, place) == place) return mq_sequence_step(k->sequence, before, error);
    mq_status status = mq_sequence_sync(k->sequence, text->tokens, text->count, NULL, NULL, error);
    for (uint32_t t = 0; status == MQ_OK && t < at; t++) {
        status = mq_sequence_step(k->sequence, k->written[t], error);
    }
    return status;
}

/* Runs freely from the first step that differs: same[t] tells whether the t-th token is BF16's. The sequence is taken back
 * to that step and its logits made again by the step before. */
static mq_status run_freely(kld *k, const mq_eval_sequence *text, uint32_t *divergence_step, mq_error *error)
{
    uint32_t at = 0;
    while (at < k->answer && k->agrees[at]) {
        k->same[at++] = 1;
    }
    *divergence_step = at;
    if (at == k->answer) return MQ_OK;
    mq_status status = go_back(k, text, at, error);
    for (uint32_t t = at; status == MQ_OK && t < k->answer; t++) {
        const int32_t token = (int32_t)mq__largest(mq_sequence_logits(k->sequence), k->vocab);
        k->same[t] = token == k->written[t];
        if (t + 1 < k->answer) status = mq_sequence_step(k->sequence, token, error);
    }
    return status;
}

/* ---- records */

static json_t *curve_of_kld(json_t *y)
{
    json_t *x = json_array();
    for (size_t t = 0; t < json_array_size(y); t++) {
        json_array_append_new(x, json_integer((json_int_t)t + 1));
    }
    return json_pack("{soso}", "x", x, "y", y);
}

static json_t *record_of(const kld *k, const reading *r, uint32_t divergence_step)
{
    double sum = 0, agree = 0, same = 0;
    json_t *divergence = json_array(), *agreement = json_array(), *alike = json_array(), *undiverged = json_array();
    for (uint32_t t = 0; t < k->answer; t++) {
        sum += k->divergence[t];
        agree += k->agrees[t];
        same += k->same[t];
        json_array_append_new(divergence, json_real(k->divergence[t]));
        json_array_append_new(agreement, json_integer(k->agrees[t]));
        json_array_append_new(alike, json_integer(k->same[t]));
        json_array_append_new(undiverged, json_integer(t < divergence_step));
    }
    const double n = k->answer, rows = r->rows ? r->rows : 1;
    return json_pack("{sfsfsfsfsisfs{sosososo}}", "decode_kld", sum / n, "decode_top1", agree / n, "prefill_kld",
                     r->sum / rows, "prefill_top1", r->agree / rows, "divergence_step", (int)divergence_step,
                     "free_same", same / n, "curves", "teacher-forced KL by step", curve_of_kld(divergence),
                     "teacher-forced top-1 by step", curve_of_kld(agreement), "free-running same token by step",
                     curve_of_kld(alike), "free-running not yet diverged by step", curve_of_kld(undiverged));
}

static mq_status measure_kld(void *task, size_t item, const mq_eval_plan *plans, size_t plan_count, json_t **records,
                             mq_error *error)
{
    kld *k = task;
    const mq_eval_sequence *text = &k->corpus.item[item];
    reading reference = {.reference = true};
    mq_status status = prefill_kld(k, text, &plans[0], &reference, error);
    if (status == MQ_OK) status = write_reference(k, error);
    for (size_t p = 0; status == MQ_OK && p < plan_count; p++) {
        reading r = {0};
        uint32_t divergence_step = 0;
        status = prefill_kld(k, text, &plans[p], &r, error);
        if (status == MQ_OK) status = follow_reference(k, error);
        if (status == MQ_OK) status = run_freely(k, text, &divergence_step, error);
        if (status != MQ_OK) break;
        records[p] = record_of(k, &r, divergence_step);
        if (!records[p]) status = mq__fail(error, MQ_NO_MEMORY, "eval: kld: expected finite numbers, got others");
    }
    return status;
}

const mq_eval_task mq__eval_kld = {
    .name = "kld",
    .summary = "divergence from BF16 of the prompt's logits and of decoding after the prefill, step by step",
    .metrics = {"decode_kld", "decode_top1", "prefill_kld", "prefill_top1", "divergence_step", "free_same"},
    .smaller_is_better = true,
    .open = open_kld,
    .close = close_kld,
    .id = kld_id,
    .settings = settings_kld,
    .compares_with_bf16 = true,
    .measure = measure_kld,
};
