/* `attention`: how much of the attention's mass lies on its k heaviest tokens, by layer and head (the paper's Fig. 3), and
 * how far a plan's keys and values are from BF16's, plainly and weighted with BF16's mass: errors on tokens that nobody
 * looks at do no harm. Seen from the last queries of the prompt, averaged over them. */
#include "base/error.h"
#include "base/mem.h"
#include "eval/corpus.h"
#include "eval/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUERIES    16 /* the last of the prompt */
#define ITEMS      8  /* of each length */
#define QUICK      2
#define LENGTHS    16
#define TOP        16 /* tokens, of the metric top16_mass */
#define POINTS_MAX 32

typedef struct item {
    char id[80];
    size_t text;
    uint32_t length;
} item;

typedef struct attention {
    const mq_eval_context *context;
    mq_eval_corpus corpus;
    mq_sequence *exact, *sequence; /* BF16's; the present plan's */
    item *items;
    size_t count;
    uint32_t longest;
    float *queries;   /* [L, QUERIES, H*K] of the present pass */
    float *mass;      /* [L, H, longest] BF16's */
    float *sorted;    /* [longest] */
    float *keys[2];   /* [longest, K] BF16's, the plan's */
    float *values[2]; /* [longest, K] */
    uint32_t first;   /* position of the first of the watched queries */
} attention;

static void close_attention(void *task)
{
    attention *a = task;
    if (!a) return;
    mq_sequence_free(a->exact);
    mq_sequence_free(a->sequence);
    mq__eval_corpus_close(&a->corpus);
    mq__free(a->items);
    mq__free(a->queries);
    mq__free(a->mass);
    mq__free(a->sorted);
    for (int i = 0; i < 2; i++) {
        mq__free(a->keys[i]);
        mq__free(a->values[i]);
    }
    mq__free(a);
}

static mq_status no_memory_attention(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: attention: expected memory, got none");
}

static mq_status allocate_attention(attention *a, mq_error *error)
{
    const mq_engine_info *info = &a->context->info;
    const size_t head_bytes = (size_t)a->longest * info->head_dim * sizeof(float);
    a->queries = mq__alloc((size_t)info->layers * QUERIES * info->heads * info->head_dim * sizeof(float));
    a->mass = mq__alloc((size_t)info->layers * info->heads * a->longest * sizeof(float));
    a->sorted = mq__alloc(a->longest * sizeof(float));
    bool memory = a->queries && a->mass && a->sorted;
    for (int i = 0; i < 2; i++) {
        a->keys[i] = mq__alloc(head_bytes);
        a->values[i] = mq__alloc(head_bytes);
        memory = memory && a->keys[i] && a->values[i];
    }
    return memory ? MQ_OK : no_memory_attention(error);
}

/* For each length, the first texts that have so many tokens. */
static mq_status choose_items(attention *a, const uint32_t *lengths, size_t length_count, size_t each, mq_error *error)
{
    a->items = mq__alloc_zero(length_count * each, sizeof *a->items);
    if (!a->items) return no_memory_attention(error);
    for (size_t l = 0; l < length_count; l++) {
        size_t found = 0;
        for (size_t t = 0; t < a->corpus.count && found < each; t++) {
            if (a->corpus.item[t].count < lengths[l]) continue;
            item *chosen = &a->items[a->count++];
            snprintf(chosen->id, sizeof chosen->id, "%.60s@%u", a->corpus.item[t].id, lengths[l]);
            chosen->text = t;
            chosen->length = lengths[l];
            if (lengths[l] > a->longest) a->longest = lengths[l];
            found++;
        }
    }
    return MQ_OK;
}

static mq_status open_attention(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    static const uint32_t defaults[] = {512, 1024, 2048};
    const mq_eval_options *o = context->options;
    attention *a = mq__alloc_zero(1, sizeof *a);
    *task = a;
    if (!a) return no_memory_attention(error);
    a->context = context;
    if (!mq_engine_attends_alike(context->engine)) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "eval: attention: expected layers that all attend alike and to everything, got others");
    }
    const uint32_t *lengths = o->length_count ? o->lengths : defaults;
    const size_t length_count = o->length_count ? o->length_count : sizeof defaults / sizeof *defaults;
    for (size_t l = 0; l < o->length_count; l++) {
        if (lengths[l] < 2 * QUERIES || lengths[l] > context->info.context) {
            return mq__fail(error, MQ_USAGE, "eval: attention: lengths: expected %d to %u (the context), got %u",
                            2 * QUERIES, context->info.context, lengths[l]);
        }
    }
    const mq_eval_corpus_options options = {.length = context->info.context, .shortest = 2 * QUERIES, .most = 1000};
    mq_status status = mq__eval_corpus_open(context, &options, &a->corpus, error);
    const size_t each = o->limit ? o->limit : o->quick ? QUICK : ITEMS;
    if (status == MQ_OK) status = choose_items(a, lengths, length_count, each < 1000 ? each : 1000, error);
    if (status == MQ_OK) status = allocate_attention(a, error);
    if (status == MQ_OK) status = mq_sequence_new(context->engine, &a->exact, error);
    if (status == MQ_OK) status = mq_sequence_new(context->engine, &a->sequence, error);
    *items = a->count;
    return status;
}

static const char *attention_id(void *task, size_t i)
{
    return ((attention *)task)->items[i].id;
}

static json_t *settings_attention(void *task)
{
    return json_pack("{sssi}", "text", ((attention *)task)->corpus.hash, "queries", QUERIES);
}

/* ---- watching */

static void take_queries(void *context, uint32_t layer, uint32_t first, const float *queries, uint32_t rows)
{
    attention *a = context;
    const size_t width = (size_t)a->context->info.heads * a->context->info.head_dim;
    for (uint32_t i = 0; i < rows; i++) {
        if (first + i < a->first) continue;
        memcpy(a->queries + ((size_t)layer * QUERIES + first + i - a->first) * width, queries + i * width,
               width * sizeof *queries);
    }
}

static mq_status watch(attention *a, mq_sequence *sequence, const item *chosen, const mq_eval_plan *plan,
                       mq_error *error)
{
    const mq_observer observer = {.queries = take_queries, .context = a};
    a->first = chosen->length - QUERIES;
    mq_status status = mq_engine_set_plan(a->context->engine, &plan->options, error);
    if (status != MQ_OK) return status;
    mq_sequence_truncate(sequence, 0);
    mq_engine_observe(a->context->engine, &observer);
    status = mq_sequence_sync(sequence, a->corpus.item[chosen->text].tokens, chosen->length, NULL, NULL, error);
    mq_engine_observe(a->context->engine, NULL);
    return status;
}

/* ---- mass */

/* Adds softmax(q k / sqrt(K)) over positions 0 .. last to mass[last + 1]. */
static void add_softmax(const float *query, const float *keys, uint32_t width, uint32_t last, float *scratch,
                        float *mass)
{
    double best = -INFINITY, total = 0;
    for (uint32_t j = 0; j <= last; j++) {
        double dot = 0;
        for (uint32_t i = 0; i < width; i++) {
            dot += (double)query[i] * (double)keys[(size_t)j * width + i];
        }
        scratch[j] = (float)(dot / sqrt(width));
        best = fmax(best, (double)scratch[j]);
    }
    for (uint32_t j = 0; j <= last; j++) {
        total += exp((double)scratch[j] - best);
    }
    for (uint32_t j = 0; j <= last; j++) {
        mass[j] += (float)(exp((double)scratch[j] - best) / total / QUERIES);
    }
}

static int descending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The mean over the watched queries of one head's attention; keys are a->keys[which]. */
static void head_mass(attention *a, uint32_t layer, uint32_t head, uint32_t length, int which, float *mass)
{
    const mq_engine_info *info = &a->context->info;
    memset(mass, 0, length * sizeof *mass);
    for (uint32_t q = 0; q < QUERIES; q++) {
        const float *query = a->queries + (((size_t)layer * QUERIES + q) * info->heads + head) * info->head_dim;
        add_softmax(query, a->keys[which], info->head_dim, a->first + q, a->sorted, mass);
    }
}

/* Sums of one layer over its heads: the mass on the top 1, 2, 4, ... tokens. */
static size_t add_concentration(attention *a, const float *mass, uint32_t length, double points[POINTS_MAX],
                                double *top)
{
    size_t count = 0;
    double sum = 0;
    memcpy(a->sorted, mass, length * sizeof *mass);
    qsort(a->sorted, length, sizeof *a->sorted, descending);
    *top = 0;
    for (uint32_t k = 1, next = 1; k <= length; k++) {
        sum += (double)a->sorted[k - 1];
        if (k <= TOP) *top = sum;
        if (k != next && k != length) continue;
        points[count++] += sum;
        next *= 2;
    }
    return count;
}

/* ---- errors of keys and values */

typedef struct difference {
    double plain, plain_norm, weighted, weighted_norm;
} difference;

static void add_difference(difference *d, const float *exact, const float *got, const float *mass, uint32_t length,
                           uint32_t width)
{
    for (uint32_t j = 0; j < length; j++) {
        double error = 0, norm = 0;
        for (uint32_t i = 0; i < width; i++) {
            const double x = (double)exact[(size_t)j * width + i], e = (double)got[(size_t)j * width + i] - x;
            error += e * e;
            norm += x * x;
        }
        d->plain += error;
        d->plain_norm += norm;
        d->weighted += (double)mass[j] * error;
        d->weighted_norm += (double)mass[j] * norm;
    }
}

static double ratio(double error, double norm)
{
    return norm > 0 ? sqrt(error / norm) : 0;
}

/* ---- one pass */

static json_t *curve_of_attention(const double *points, size_t count, uint32_t length, double divisor)
{
    json_t *x = json_array(), *y = json_array();
    uint32_t k = 1;
    for (size_t i = 0; i < count; i++, k *= 2) {
        json_array_append_new(x, json_integer(i + 1 == count ? length : k));
        json_array_append_new(y, json_real(points[i] / divisor));
    }
    return json_pack("{soso}", "x", x, "y", y);
}

static mq_status read_head(attention *a, uint32_t layer, uint32_t kv_head, uint32_t length, mq_error *error)
{
    mq_sequence *const sequences[] = {a->exact, a->sequence};
    mq_status status = MQ_OK;
    for (int i = 0; status == MQ_OK && i < 2; i++) {
        status = mq_sequence_read_kv(sequences[i], layer, kv_head, 0, length, a->keys[i], a->values[i], error);
    }
    return status;
}

/* Adds one layer's curves, and its errors against BF16. top: the sum over heads of the mass on the TOP heaviest. */
static mq_status look_at_layer(attention *a, uint32_t layer, uint32_t length, bool reference, json_t *curves,
                               difference *keys, difference *values, double *top, mq_error *error)
{
    const mq_engine_info *info = &a->context->info;
    const uint32_t group = info->heads / info->kv_heads;
    double points[POINTS_MAX] = {0}, head_top;
    size_t count = 0;
    char name[96];
    float *own = mq__alloc(length * sizeof *own);
    json_t *heads_x = json_array(), *heads_y = json_array();
    mq_status status = own && heads_x && heads_y ? MQ_OK : no_memory_attention(error);
    for (uint32_t h = 0; status == MQ_OK && h < info->heads; h++) {
        float *exact = a->mass + ((size_t)layer * info->heads + h) * a->longest;
        if (h % group == 0) status = read_head(a, layer, h / group, length, error);
        if (status != MQ_OK) break;
        head_mass(a, layer, h, length, 1, reference ? exact : own);
        count = add_concentration(a, reference ? exact : own, length, points, &head_top);
        json_array_append_new(heads_x, json_integer(h));
        json_array_append_new(heads_y, json_real(head_top));
        *top += head_top;
        add_difference(keys, a->keys[0], a->keys[1], exact, length, info->head_dim);
        add_difference(values, a->values[0], a->values[1], exact, length, info->head_dim);
    }
    mq__free(own);
    snprintf(name, sizeof name, "mass on the top k of %u tokens|layer %u", length, layer);
    json_object_set_new(curves, name, curve_of_attention(points, count, length, info->heads));
    snprintf(name, sizeof name, "mass on the top %d of %u tokens by head|layer %u", TOP, length, layer);
    json_object_set_new(curves, name, json_pack("{soso}", "x", heads_x, "y", heads_y));
    return status;
}

static mq_status look(attention *a, uint32_t length, bool reference, json_t **record, mq_error *error)
{
    const mq_engine_info *info = &a->context->info;
    difference keys = {0}, values = {0};
    double top = 0;
    char group[32];
    json_t *curves = json_object();
    mq_status status = curves ? MQ_OK : no_memory_attention(error);
    for (uint32_t layer = 0; status == MQ_OK && layer < info->layers; layer++) {
        status = look_at_layer(a, layer, length, reference, curves, &keys, &values, &top, error);
    }
    snprintf(group, sizeof group, "%u tokens", length);
    if (status == MQ_OK) {
        *record =
            json_pack("{sfsfsfsfsfsssO}", "key_error", ratio(keys.weighted, keys.weighted_norm), "value_error",
                      ratio(values.weighted, values.weighted_norm), "key_error_plain",
                      ratio(keys.plain, keys.plain_norm), "value_error_plain", ratio(values.plain, values.plain_norm),
                      "top16_mass", top / info->layers / info->heads, "group", group, "curves", curves);
        if (!*record) status = mq__fail(error, MQ_NO_MEMORY, "eval: attention: expected finite numbers, got others");
    }
    json_decref(curves);
    return status;
}

static mq_status measure_attention(void *task, size_t index, const mq_eval_plan *plans, size_t plan_count,
                                   json_t **records, mq_error *error)
{
    attention *a = task;
    const item *chosen = &a->items[index];
    mq_status status = watch(a, a->exact, chosen, &plans[0], error);
    for (size_t p = 0; status == MQ_OK && p < plan_count; p++) {
        status = watch(a, a->sequence, chosen, &plans[p], error);
        if (status == MQ_OK) status = look(a, chosen->length, p == 0, &records[p], error);
    }
    return status;
}

const mq_eval_task mq__eval_attention = {
    .name = "attention",
    .summary = "share of the attention on its heaviest tokens, errors of keys and values weighted with it",
    .metrics = {"key_error", "value_error", "key_error_plain", "value_error_plain", "top16_mass"},
    .smaller_is_better = true,
    .open = open_attention,
    .close = close_attention,
    .id = attention_id,
    .settings = settings_attention,
    .own_limit = true, /* of each length */
    .compares_with_bf16 = true,
    .measure = measure_attention,
};
