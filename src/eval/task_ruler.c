/* `ruler`: questions about texts of chosen lengths, filled to the budget by tokenizing. */
#include "base/error.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "eval/ruler.h"

#include <stdio.h>
#include <string.h>

#define EACH        10 /* items of one family and length */
#define EACH_QUICK  2
#define ANSWER      128
#define LENGTHS_MAX 16
#define NOISE_MAX   (1u << 20)

typedef struct ruler {
    const mq_eval_context *context;
    mq_ruler_wording wording;
    mq_ruler_kind kinds[MQ_RULER_KINDS]; /* each once */
    uint32_t kind_count, lengths[LENGTHS_MAX], length_count, each, answer;
    bool chat, thinks; /* rendered as a chat; whose end opens a thought */
    mq_ruler_hay hay;
    mq_ruler_qa qa;
    char (*ids)[48];
} ruler;

typedef struct episode {
    const ruler *task;
    size_t index;
    mq_ruler_item item;
    uint32_t prompt_tokens, length;
    char *answer;
} episode;

static void close_ruler(void *task)
{
    ruler *r = task;
    if (!r) return;
    mq__ruler_hay_free(&r->hay);
    mq__ruler_qa_free(&r->qa);
    mq__free(r->ids);
    mq__free(r);
}

static mq_status choose_kinds(ruler *r, const char *list, mq_error *error)
{
    /* The bundled model was not trained on the last ones; published questions are asked if named. */
    const int known = r->wording == MQ_RULER_BUNDLED ? MQ_RULER_FREQUENT : MQ_RULER_QA;
    for (int k = 0; !list && k < known; k++) {
        r->kinds[r->kind_count++] = (mq_ruler_kind)k;
    }
    for (const char *p = list; p && *p;) {
        const size_t length = strcspn(p, ",");
        int k = 0;
        while (k < MQ_RULER_KINDS &&
               (strlen(mq__ruler_kind_names[k]) != length || strncmp(mq__ruler_kind_names[k], p, length) != 0)) {
            k++;
        }
        for (uint32_t i = 0; i < r->kind_count; i++) {
            if (r->kinds[i] == (mq_ruler_kind)k) k = MQ_RULER_KINDS;
        }
        if (k == MQ_RULER_KINDS) {
            return mq__fail(
                error, MQ_USAGE,
                "eval: ruler: kinds: expected single, multikey, multivalue, multiquery, tracking, common, frequent, "
                "single-uuid, crowded, uuids or qa, each once, got %s",
                list);
        }
        r->kinds[r->kind_count++] = (mq_ruler_kind)k;
        p += length + (p[length] == ',');
    }
    return MQ_OK;
}

/* The asked lengths, or powers of two up to the context, all including the answer. */
static mq_status choose_lengths(ruler *r, mq_error *error)
{
    const mq_eval_options *o = r->context->options;
    const uint32_t context = r->context->info.context;
    for (size_t i = 0; i < o->length_count && i < LENGTHS_MAX; i++) {
        if (o->lengths[i] > context || o->lengths[i] < 2 * r->answer) {
            return mq__fail(error, MQ_USAGE, "eval: ruler: lengths: expected %u to %u (the context), got %u",
                            2 * r->answer, context, o->lengths[i]);
        }
        r->lengths[r->length_count++] = o->lengths[i];
    }
    for (uint32_t length = 512; !o->length_count && length <= context && length <= 4096; length *= 2) {
        r->lengths[r->length_count++] = length;
    }
    if (r->length_count == 0) r->lengths[r->length_count++] = context;
    return MQ_OK;
}

static mq_status choose_wording(ruler *r, mq_error *error)
{
    const char *asked = r->context->options->wording;
    /* The bundled model: the only one of this vocabulary that was trained on these words. */
    const bool bundled = asked ? strcmp(asked, "bundled") == 0 : r->context->info.vocab < 8192;
    if (asked && !bundled && strcmp(asked, "ruler") != 0) {
        return mq__fail(error, MQ_USAGE, "eval: ruler: wording: expected ruler or bundled, got %s", asked);
    }
    r->wording = bundled ? MQ_RULER_BUNDLED : MQ_RULER_ENGLISH;
    return MQ_OK;
}

/* The published questions and the text that is the noise, where they are asked for. */
static mq_status read_sources(ruler *r, mq_error *error)
{
    const mq_eval_options *o = r->context->options;
    bool questions = false;
    for (uint32_t i = 0; i < r->kind_count; i++) {
        questions = questions || r->kinds[i] == MQ_RULER_QA;
    }
    if (questions && !o->data) {
        return mq__fail(error, MQ_USAGE, "eval: ruler: qa: expected a file of SQuAD or HotpotQA (--data), got none");
    }
    mq_status status = questions ? mq__ruler_qa_read(o->data, &r->qa, error) : MQ_OK;
    if (status == MQ_OK && o->text && r->wording == MQ_RULER_ENGLISH)
        status = mq__ruler_hay_read(o->text, &r->hay, error);
    return status;
}

/* Samples go round first: any limit has all families and lengths. */
static void split_ruler(const ruler *r, size_t item, mq_ruler_kind *kind, uint32_t *length, size_t *sample)
{
    *kind = r->kinds[item % r->kind_count];
    *length = r->lengths[item / r->kind_count % r->length_count];
    *sample = item / r->kind_count / r->length_count;
}

static mq_status open_ruler(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    ruler *r = mq__alloc_zero(1, sizeof *r);
    *task = r;
    if (!r) return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    r->context = context;
    r->answer = o->max_tokens ? o->max_tokens : ANSWER;
    r->chat = mq__eval_has_template(context->text);
    r->thinks = mq__eval_opens_thought(context->text);
    mq_status status = choose_wording(r, error);
    if (status == MQ_OK) status = choose_kinds(r, o->kinds, error);
    if (status == MQ_OK) status = choose_lengths(r, error);
    if (status == MQ_OK) status = read_sources(r, error);
    if (status != MQ_OK) return status;
    const size_t cells = (size_t)r->kind_count * r->length_count;
    r->each = o->quick ? EACH_QUICK : EACH;
    if (o->limit && o->limit > cells * r->each) r->each = (uint32_t)((o->limit + cells - 1) / cells);
    *items = cells * r->each;
    r->ids = mq__alloc_zero(*items, sizeof *r->ids);
    if (!r->ids) return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    for (size_t i = 0; i < *items; i++) {
        mq_ruler_kind kind;
        uint32_t length;
        size_t sample;
        split_ruler(r, i, &kind, &length, &sample);
        snprintf(r->ids[i], sizeof r->ids[i], "%s-%u-%03zu", mq__ruler_kind_names[kind], length, sample);
    }
    return MQ_OK;
}

static const char *ruler_id(void *task, size_t item)
{
    return ((const ruler *)task)->ids[item];
}

static json_t *settings_ruler(void *task)
{
    const ruler *r = task;
    json_t *settings =
        json_pack("{sssi}", "wording", r->wording == MQ_RULER_BUNDLED ? "bundled" : "ruler", "answer", (int)r->answer);
    if (*r->qa.hash) json_object_set_new(settings, "questions", json_string(r->qa.hash));
    if (*r->hay.hash) json_object_set_new(settings, "noise", json_string(r->hay.hash));
    return settings;
}

static mq_status begin_ruler(void *task, size_t index, void **out, mq_error *error)
{
    const ruler *r = task;
    mq_ruler_kind kind;
    size_t sample;
    episode *e = mq__alloc_zero(1, sizeof *e);
    *out = e;
    if (!e) return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    e->task = r;
    e->index = index;
    split_ruler(r, index, &kind, &e->length, &sample);
    mq_ruler_source source = {.hay = r->hay.count ? &r->hay : NULL, .qa = &r->qa};
    if (kind == MQ_RULER_QA) source.index = mq__ruler_qa_draw(&r->qa, r->context->options->seed, sample);
    mq__ruler_make(&e->item, kind, r->wording, source, r->context->options->seed, r->ids[index]);
    return MQ_OK;
}

/* The prompt as the framework will make it; *count is its tokens. */
static mq_status make_prompt(const episode *e, uint32_t noise, mq_eval_prompt *prompt, size_t *count, mq_error *error)
{
    const mq_text *text = e->task->context->text;
    mq_buf words = {0};
    int32_t *tokens = NULL;
    char *rendered = NULL;
    size_t bytes;
    mq_status status = MQ_OK;
    mq__ruler_text(&e->item, noise, &words);
    if (words.failed) status = mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    if (status == MQ_OK && e->task->chat) {
        prompt->request = json_pack("{s[{ssss%}]sb}", "messages", "role", "user", "content", words.data, words.len,
                                    "add_generation_prompt", 1);
        char *request = prompt->request ? json_dumps(prompt->request, JSON_COMPACT) : NULL;
        status = request ? mq_render(text, request, strlen(request), &rendered, &bytes, error)
                         : mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
        free(request);
    }
    const char *whole = e->task->chat ? rendered : words.data;
    const unsigned flags = MQ_TOKENIZE_PARSE_SPECIAL | (e->task->chat ? 0 : (unsigned)MQ_TOKENIZE_ADD_SPECIAL);
    if (status == MQ_OK) status = mq_tokenize(text, whole, strlen(whole), flags, &tokens, count, error);
    if (!e->task->chat) prompt->prompt = mq__buf_take(&words);
    mq__buf_free(&words);
    mq_free(tokens);
    mq_free(rendered);
    return status;
}

static void drop_prompt(mq_eval_prompt *prompt)
{
    json_decref(prompt->request);
    mq__free(prompt->prompt);
    *prompt = (mq_eval_prompt){0};
}

/* A question's own documents are all there, and others about fill the text: else it is not the length that was asked for. */
static mq_status check_filled(const episode *e, size_t count, mq_error *error)
{
    const uint32_t budget = e->length - e->task->answer;
    if (e->item.kind != MQ_RULER_QA || (count <= budget && count > budget / 2)) return MQ_OK;
    return mq__fail(error, MQ_USAGE,
                    "eval: ruler: %s: expected documents for some %u tokens, got %zu; --lengths sets %s",
                    e->task->ids[e->index], budget, count, count > budget ? "more" : "less");
}

/* The most noise that fits: doubled until it does not, or until there is no more of it, then halved in. */
static mq_status fill_ruler(episode *e, mq_eval_prompt *prompt, mq_error *error)
{
    const uint32_t budget = e->length - e->task->answer;
    uint32_t low = 0, high = 1;
    size_t count = 0, before = 0;
    mq_status status = MQ_OK;
    for (bool more = true; status == MQ_OK && more && high < NOISE_MAX;) {
        status = make_prompt(e, high, prompt, &count, error);
        drop_prompt(prompt);
        if (count <= budget) low = high;
        more = low == high && (e->item.kind != MQ_RULER_QA || count > before);
        if (more) high *= 2;
        before = count;
    }
    while (status == MQ_OK && high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        status = make_prompt(e, middle, prompt, &count, error);
        drop_prompt(prompt);
        if (count <= budget)
            low = middle;
        else
            high = middle;
    }
    if (status == MQ_OK) status = make_prompt(e, low, prompt, &count, error);
    return status == MQ_OK ? check_filled(e, count, error) : status;
}

static mq_status next_ruler(void *context, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error)
{
    episode *e = context;
    if (answer) {
        e->prompt_tokens = answer->prompt_tokens;
        e->answer = mq__strndup(answer->text, answer->bytes);
        return e->answer ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    }
    const mq_status status = fill_ruler(e, prompt, error);
    const mq_sampling *sampling = e->task->context->options->sampling;
    prompt->sampling = sampling ? *sampling : MQ_SAMPLING_GREEDY;
    prompt->max_tokens = e->task->answer;
    return status;
}

static json_t *end_ruler(void *context, bool want_record)
{
    episode *e = context;
    json_t *record = NULL;
    if (want_record) {
        char group[64];
        json_t *wanted = e->item.kind == MQ_RULER_QA
                             ? json_deep_copy(mq__ruler_qa_answers(e->item.source.qa, e->item.source.index))
                             : json_array();
        for (uint32_t i = 0; i < e->item.wanted_count; i++) {
            json_array_append_new(wanted, json_string(e->item.wanted[i]));
        }
        snprintf(group, sizeof group, "%s %u", mq__ruler_kind_names[e->item.kind], e->length);
        const double score =
            mq__ruler_score(&e->item, mq__eval_after_thought(e->answer ? e->answer : "", e->task->thinks));
        record =
            json_pack("{sfsfsssisoss}", "recall", score, "all", score == 1 ? 1.0 : 0.0, "group", group, "prompt_tokens",
                      (int)e->prompt_tokens, "wanted", wanted, "answer", e->answer ? e->answer : "");
    }
    mq__free(e->answer);
    mq__free(e);
    return record;
}

const mq_eval_task mq__eval_ruler = {
    .name = "ruler",
    .summary = "needles, chains and common words in long texts: the share of what was asked that the answer contains",
    .metrics = {"recall", "all"},
    .binary = 1u << 1,
    .open = open_ruler,
    .close = close_ruler,
    .id = ruler_id,
    .settings = settings_ruler,
    .begin = begin_ruler,
    .next = next_ruler,
    .end = end_ruler,
};
