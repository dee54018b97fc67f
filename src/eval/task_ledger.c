/* `ledger`: walks through a table of thousands of tokens, 20 to 40 rows, adding up: an answer of hundreds of tokens of which each
 * line uses the one before. Graded on the last total; where the walk went wrong first is recorded. */
#include "base/error.h"
#include "base/mem.h"
#include "eval/eval.h"
#include "eval/ledger.h"

#include <stdio.h>
#include <string.h>

#define ITEMS       600
#define QUICK       12
#define THOUGHT     8192 /* tokens more for models that think */
#define LENGTHS_MAX 16
#define ROW_TOKENS  6 /* the least that a row can take: a first guess of how many fit */

static const uint32_t step_counts[] = {20, 30, 40};
enum { STEP_COUNTS = sizeof step_counts / sizeof step_counts[0] };

typedef struct ledgers {
    const mq_eval_context *context;
    uint32_t lengths[LENGTHS_MAX], length_count;
    bool chat, thinks;
    char (*ids)[48];
} ledgers;

typedef struct episode {
    const ledgers *task;
    size_t index;
    uint32_t length;
    mq_ledger ledger;
    uint32_t prompt_tokens;
    char *answer;
} episode;

static mq_status no_memory_ledger(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: ledger: expected memory, got none");
}

static void close_ledgers(void *task)
{
    ledgers *l = task;
    if (l) mq__free(l->ids);
    mq__free(l);
}

static mq_status choose_ledger_lengths(ledgers *l, mq_error *error)
{
    static const uint32_t defaults[] = {2048, 3072};
    const mq_eval_options *o = l->context->options;
    const uint32_t context = l->context->info.context, *lengths = o->length_count ? o->lengths : defaults;
    const size_t count = o->length_count ? o->length_count : 2;
    for (size_t i = 0; i < count && i < LENGTHS_MAX; i++) {
        if (lengths[i] < 1024 || lengths[i] >= context) {
            return mq__fail(
                error, MQ_USAGE,
                "eval: ledger: lengths: expected 1024 to %u (below the context), got %u; -c sets a longer one",
                context - 1, lengths[i]);
        }
        l->lengths[l->length_count++] = lengths[i];
    }
    return MQ_OK;
}

/* Lengths and numbers of steps take turns, so that any limit has all. */
static void split_ledgers(const ledgers *l, size_t item, uint32_t *length, uint32_t *steps)
{
    *steps = step_counts[item % STEP_COUNTS];
    *length = l->lengths[item / STEP_COUNTS % l->length_count];
}

static mq_status open_ledgers(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    const mq_eval_options *o = context->options;
    ledgers *l = mq__alloc_zero(1, sizeof *l);
    *task = l;
    if (!l) return no_memory_ledger(error);
    l->context = context;
    l->chat = mq__eval_has_template(context->text);
    l->thinks = mq__eval_opens_thought(context->text);
    const mq_status status = choose_ledger_lengths(l, error);
    if (status != MQ_OK) return status;
    *items = o->limit ? o->limit : o->quick ? QUICK : ITEMS;
    if (o->limit && o->quick && *items > QUICK) *items = QUICK;
    l->ids = mq__alloc_zero(*items, sizeof *l->ids);
    if (!l->ids) return no_memory_ledger(error);
    for (size_t i = 0; i < *items; i++) {
        uint32_t length, steps;
        split_ledgers(l, i, &length, &steps);
        snprintf(l->ids[i], sizeof l->ids[i], "steps-%u-%u-%04zu", steps, length, i / STEP_COUNTS / l->length_count);
    }
    return MQ_OK;
}

static const char *ledgers_id(void *task, size_t item)
{
    return ((const ledgers *)task)->ids[item];
}

static uint32_t max_tokens_of_ledgers(const ledgers *l)
{
    const mq_eval_options *o = l->context->options;
    return o->max_tokens ? o->max_tokens : 40 * step_counts[STEP_COUNTS - 1] + (l->thinks ? THOUGHT : 0);
}

static json_t *settings_ledgers(void *task)
{
    return json_pack("{sisi}", "version", 1, "max_tokens", (int)max_tokens_of_ledgers(task));
}

/* ---- prompts */

static mq_status count_text(const ledgers *l, const char *text, size_t bytes, size_t *count, mq_error *error)
{
    int32_t *tokens = NULL;
    const mq_status status = mq_tokenize(l->context->text, text, bytes, 0, &tokens, count, error);
    mq_free(tokens);
    return status;
}

/* Tokens that the right answer takes. */
static mq_status count_answer(const ledgers *l, const mq_ledger *ledger, size_t *count, mq_error *error)
{
    mq_buf text = {0};
    char line[128];
    for (uint32_t i = 0; i < ledger->steps; i++) {
        mq__ledger_line(ledger, i, line);
        mq__buf_puts(&text, line);
        mq__buf_putc(&text, '\n');
    }
    const mq_status status = text.failed ? no_memory_ledger(error) : count_text(l, text.data, text.len, count, error);
    mq__buf_free(&text);
    return status;
}

/* Makes the ledger of so many rows, its text and the tokens of text and right answer together. */
static mq_status try_rows(episode *e, uint32_t rows, uint32_t steps, mq_buf *text, size_t *prompt, size_t *answer,
                          mq_error *error)
{
    const ledgers *l = e->task;
    mq__ledger_free(&e->ledger);
    mq__buf_clear(text);
    mq_status status = mq__ledger_make(&e->ledger, rows, steps, l->context->options->seed, l->ids[e->index], error);
    if (status != MQ_OK) return status;
    mq__ledger_text(&e->ledger, text);
    if (text->failed) return no_memory_ledger(error);
    status = count_text(l, text->data, text->len, prompt, error);
    if (status == MQ_OK) status = count_answer(l, &e->ledger, answer, error);
    return status;
}

/* Fewer rows until text and answer fit: the text its length, both (with some room for the template) the context. */
static mq_status fill_ledger(episode *e, mq_buf *text, mq_error *error)
{
    enum { TEMPLATE = 64 };
    const uint32_t context = e->task->context->info.context;
    uint32_t steps, rows;
    split_ledgers(e->task, e->index, &e->length, &steps);
    rows = e->length / ROW_TOKENS < MQ_LEDGER_ROWS_MAX ? e->length / ROW_TOKENS : MQ_LEDGER_ROWS_MAX;
    for (;;) {
        size_t prompt, answer;
        const mq_status status = try_rows(e, rows, steps, text, &prompt, &answer, error);
        if (status != MQ_OK) return status;
        const size_t used = answer + TEMPLATE, room = used < context ? context - used : 0;
        const size_t budget = room < e->length - TEMPLATE ? room : e->length - TEMPLATE;
        if (prompt <= budget) return MQ_OK;
        const uint32_t fewer = (uint32_t)(rows * budget / prompt);
        rows = fewer < rows ? fewer : rows - 1;
        if (rows < steps || budget == 0) {
            return mq__fail(error, MQ_USAGE,
                            "eval: ledger: lengths: expected room for %u rows, got %u tokens; -c and "
                            "--lengths set more",
                            steps, e->length);
        }
    }
}

static mq_status begin_ledger(void *task, size_t index, void **out, mq_error *error)
{
    episode *e = mq__alloc_zero(1, sizeof *e);
    *out = e;
    if (!e) return no_memory_ledger(error);
    *e = (episode){.task = task, .index = index};
    return MQ_OK;
}

static mq_status next_ledger(void *context, const mq_eval_answer *answer, mq_eval_prompt *prompt, mq_error *error)
{
    episode *e = context;
    if (answer) {
        e->prompt_tokens = answer->prompt_tokens;
        e->answer = mq__strndup(answer->text, answer->bytes);
        return e->answer ? MQ_OK : no_memory_ledger(error);
    }
    mq_buf text = {0};
    mq_status status = fill_ledger(e, &text, error);
    const mq_sampling *sampling = e->task->context->options->sampling;
    prompt->sampling = sampling ? *sampling : MQ_SAMPLING_GREEDY;
    prompt->max_tokens = max_tokens_of_ledgers(e->task);
    if (status == MQ_OK && e->task->chat) {
        prompt->request = json_pack("{s[{ssss%}]sb}", "messages", "role", "user", "content", text.data, text.len,
                                    "add_generation_prompt", 1);
    } else if (status == MQ_OK) {
        prompt->prompt = mq__buf_take(&text);
    }
    mq__buf_free(&text);
    return status != MQ_OK || prompt->request || prompt->prompt ? status : no_memory_ledger(error);
}

/* ---- records */

/* 1 up to the first wrong line, 0 from there. */
static json_t *survival_of(const mq_ledger *ledger, uint32_t right)
{
    json_t *x = json_array(), *y = json_array();
    for (uint32_t i = 0; i < ledger->steps; i++) {
        json_array_append_new(x, json_integer((json_int_t)i + 1));
        json_array_append_new(y, json_integer(i < right));
    }
    return json_pack("{soso}", "x", x, "y", y);
}

static json_t *record_of_ledger(const episode *e)
{
    const mq_ledger *ledger = &e->ledger;
    const char *answer = e->answer ? e->answer : "";
    const mq_ledger_score score = mq__ledger_score(ledger, mq__eval_after_thought(answer, e->task->thinks));
    const bool copy = score.part >= MQ_LEDGER_NAME && score.part <= MQ_LEDGER_NEXT;
    char group[48];
    snprintf(group, sizeof group, "%u steps %u", ledger->steps, e->length);
    return json_pack("{sfsfsfsfsisssssisiss s{so}}", "last", score.last ? 1.0 : 0.0, "survived",
                     (double)score.right / ledger->steps, "copy_wrong", copy ? 1.0 : 0.0, "total_wrong",
                     score.part == MQ_LEDGER_TOTAL ? 1.0 : 0.0, "right_lines", (int)score.right, "first_wrong",
                     mq__ledger_part_name(score.part), "group", group, "rows", (int)ledger->rows, "prompt_tokens",
                     (int)e->prompt_tokens, "answer", answer, "curves", "survival by step",
                     survival_of(ledger, score.right));
}

static json_t *end_ledger(void *context, bool want_record)
{
    episode *e = context;
    json_t *record = want_record && e->ledger.rows ? record_of_ledger(e) : NULL;
    mq__ledger_free(&e->ledger);
    mq__free(e->answer);
    mq__free(e);
    return record;
}

const mq_eval_task mq__eval_ledger = {
    .name = "ledger",
    .summary = "walks through a long table that add up: each line of the answer uses the one before; the last total",
    .metrics = {"last", "survived", "copy_wrong", "total_wrong"},
    .binary = 1u << 0 | 1u << 2 | 1u << 3,
    .own_limit = true,
    .open = open_ledgers,
    .close = close_ledgers,
    .id = ledgers_id,
    .settings = settings_ledgers,
    .begin = begin_ledger,
    .next = next_ledger,
    .end = end_ledger,
};
