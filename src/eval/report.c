#include "eval/report.h"

#include "base/mem.h"
#include "eval/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FAMILY_MAX = MQ_EVAL_PLANS_MAX };

typedef struct summarizing {
    const mq_eval_task *task;
    const mq_eval_plan *plans;
    size_t plan_count;
    const json_t *ids, *records;
    uint64_t seed;
    double *a, *b, *w; /* [ids] scratch */
} summarizing;

/* A metric of one item under one plan; false where it is missing. */
static bool value_of(const summarizing *s, const char *plan, size_t i, const char *metric, double *value)
{
    const char *id = json_string_value(json_array_get(s->ids, i));
    const json_t *number = json_object_get(json_object_get(json_object_get(s->records, plan), id), metric);
    *value = json_number_value(number);
    return json_is_number(number);
}

static const char *group_of(const summarizing *s, const char *plan, size_t i)
{
    const char *id = json_string_value(json_array_get(s->ids, i));
    return json_string_value(json_object_get(json_object_get(json_object_get(s->records, plan), id), "group"));
}

/* How a metric is averaged and tested. */
typedef struct measure {
    const char *metric;
    bool binary, exponential;
} measure;

static measure measure_of(const summarizing *s, size_t m)
{
    return (measure){s->task->metrics[m], s->task->binary >> m & 1, s->task->exponential >> m & 1};
}

/* What the statistics see of one item: the metric, or its logarithm, and the item's weight. */
static bool weighed(const summarizing *s, const char *plan, size_t i, const measure *m, double *value, double *weight)
{
    *weight = 1;
    if (!value_of(s, plan, i, m->metric, value)) return false;
    if (m->exponential) *value = log(*value);
    return isfinite(*value) && (!s->task->weight || (value_of(s, plan, i, s->task->weight, weight) && *weight > 0));
}

static mq_eval_interval interval_of(const summarizing *s, const measure *m, size_t n)
{
    uint64_t successes = 0;
    for (size_t i = 0; m->binary && i < n; i++) {
        successes += s->a[i] != 0;
    }
    mq_eval_interval v = m->binary ? mq__eval_wilson(successes, n) : mq__eval_bootstrap(s->a, s->w, n, s->seed);
    if (m->exponential) v = (mq_eval_interval){exp(v.mean), exp(v.low), exp(v.high)};
    return v;
}

/* group NULL: all items. */
static json_t *cell(const summarizing *s, const char *plan, const measure *m, const char *group)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(s->ids); i++) {
        const char *of = group ? group_of(s, plan, i) : NULL;
        if ((!group || (of && strcmp(of, group) == 0)) && weighed(s, plan, i, m, &s->a[n], &s->w[n])) n++;
    }
    if (n == 0) return NULL;
    const mq_eval_interval v = interval_of(s, m, n);
    return json_pack("{sIsfsfsfss}", "n", (json_int_t)n, "mean", v.mean, "low", v.low, "high", v.high, "interval",
                     m->binary ? "Wilson" : "bootstrap");
}

/* A row of cells by plan; NULL when no plan has the metric. */
static json_t *row(const summarizing *s, const measure *m, const char *group)
{
    json_t *cells = json_object();
    for (size_t p = 0; p < s->plan_count; p++) {
        json_t *of_plan = cell(s, s->plans[p].name, m, group);
        if (of_plan) json_object_set_new(cells, s->plans[p].name, of_plan);
    }
    if (json_object_size(cells)) return cells;
    json_decref(cells);
    return NULL;
}

static json_t *compare_plans(const summarizing *s, const char *plan, const char *against, const measure *m)
{
    size_t n = 0;
    uint64_t higher = 0, lower = 0;
    for (size_t i = 0; i < json_array_size(s->ids); i++) {
        double x, y, weight;
        if (!weighed(s, plan, i, m, &x, &weight) || !weighed(s, against, i, m, &y, &weight)) continue;
        higher += x > y;
        lower += x < y;
        s->w[n] = weight;
        s->a[n] = x;
        s->b[n++] = y;
    }
    if (n == 0) return NULL;
    const mq_eval_interval d = mq__eval_paired_bootstrap(s->a, s->b, s->w, n, m->exponential, s->seed);
    const mq_eval_test test = m->binary ? (mq_eval_test){mq__eval_mcnemar(higher, lower), true}
                                        : mq__eval_sign_flip(s->a, s->b, s->w, n, s->seed);
    return json_pack("{sssssssIsfsfsfsIsIsfss}", "plan", plan, "against", against, "metric", m->metric, "n",
                     (json_int_t)n, "difference", d.mean, "low", d.low, "high", d.high, "higher", (json_int_t)higher,
                     "lower", (json_int_t)lower, "p", test.p, "test",
                     m->binary    ? "exact McNemar"
                     : test.exact ? "exact sign flip"
                                  : "sign flip");
}

static bool has_plan(const summarizing *s, const char *name)
{
    for (size_t p = 0; p < s->plan_count; p++) {
        if (strcmp(s->plans[p].name, name) == 0) return true;
    }
    return false;
}

/* Adds "p_holm" to the items of `list` from `first` on: the comparisons of one metric are one family. */
static void correct(json_t *list, size_t first)
{
    double p[FAMILY_MAX], corrected[FAMILY_MAX];
    const size_t count = json_array_size(list) - first;
    for (size_t i = 0; i < count; i++) {
        p[i] = json_number_value(json_object_get(json_array_get(list, first + i), "p"));
    }
    mq__eval_holm(p, corrected, count);
    for (size_t i = 0; i < count; i++) {
        json_object_set_new(json_array_get(list, first + i), "p_holm", json_real(corrected[i]));
    }
}

/* The comparisons that were fixed before anything was run: what quantising costs, what decoding in BF16 gives back, and whether
 * it matters that it is decoding. And the control: two plans whose results must not differ. */
static const struct {
    const char *plan, *against, *family;
} stated[] = {{"nvfp4", "bf16", "stated"},
              {"mix", "nvfp4", "stated"},
              {"mix", "inverse", "stated"},
              {MQ_EVAL_CONTROL, "bf16", "control"}};
enum { STATED = sizeof stated / sizeof stated[0] };

static bool is_stated(const char *plan, const char *against)
{
    for (size_t k = 0; k < STATED; k++) {
        if (strcmp(stated[k].plan, plan) == 0 && strcmp(stated[k].against, against) == 0) return true;
    }
    return false;
}

static void add_comparison(const summarizing *s, const char *plan, const char *against, const char *family,
                           const measure *m, json_t *list)
{
    json_t *item = has_plan(s, plan) && has_plan(s, against) ? compare_plans(s, plan, against, m) : NULL;
    if (!item) return;
    json_object_set_new(item, "family", json_string(family));
    json_array_append_new(list, item);
}

/* The stated comparisons, the control, then every other plan against bf16: each family is corrected on its own. */
static void add_comparisons(const summarizing *s, const measure *m, json_t *list)
{
    static const char *const families[] = {"stated", "control", "other"};
    for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
        const size_t first = json_array_size(list);
        for (size_t k = 0; k < STATED; k++) {
            if (strcmp(stated[k].family, families[f]) == 0)
                add_comparison(s, stated[k].plan, stated[k].against, families[f], m, list);
        }
        for (size_t p = 0; strcmp(families[f], "other") == 0 && p < s->plan_count; p++) {
            const char *plan = s->plans[p].name;
            if (strcmp(plan, "bf16") != 0 && !is_stated(plan, "bf16"))
                add_comparison(s, plan, "bf16", families[f], m, list);
        }
        correct(list, first);
    }
}

/* Of the headline's loss under nvfp4, the share that mix does not have: (mix - nvfp4) / (bf16 - nvfp4). NULL: not all three ran. A
 * bound that is missing is none: the loss itself may be 0. */
static json_t *regained(const summarizing *s)
{
    const measure m = measure_of(s, 0);
    size_t n = 0;
    if (!has_plan(s, "bf16") || !has_plan(s, "nvfp4") || !has_plan(s, "mix")) return NULL;
    for (size_t i = 0; i < json_array_size(s->ids); i++) {
        double weight, mix, nvfp4, bf16;
        if (!weighed(s, "mix", i, &m, &mix, &weight) || !weighed(s, "nvfp4", i, &m, &nvfp4, &weight) ||
            !weighed(s, "bf16", i, &m, &bf16, &weight))
            continue;
        const double better = s->task->smaller_is_better ? -weight : weight;
        s->a[n] = better * (mix - nvfp4);
        s->b[n++] = better * (bf16 - nvfp4);
    }
    const mq_eval_interval v = mq__eval_ratio_bootstrap(s->a, s->b, n, s->seed);
    if (!isfinite(v.mean)) return NULL;
    json_t *share = json_pack("{sIsf}", "n", (json_int_t)n, "mean", v.mean);
    if (isfinite(v.low)) json_object_set_new(share, "low", json_real(v.low));
    if (isfinite(v.high)) json_object_set_new(share, "high", json_real(v.high));
    return share;
}

static json_t *comparisons(const summarizing *s)
{
    json_t *list = json_array();
    for (size_t m = 0; s->task->metrics[m]; m++) {
        const measure of = measure_of(s, m);
        add_comparisons(s, &of, list);
    }
    return list;
}

static json_t *groups(const summarizing *s)
{
    json_t *all = json_object();
    const measure headline = measure_of(s, 0);
    for (size_t p = 0; p < s->plan_count; p++) {
        for (size_t i = 0; i < json_array_size(s->ids); i++) {
            const char *group = group_of(s, s->plans[p].name, i);
            if (!group || json_object_get(all, group)) continue;
            json_t *cells = row(s, &headline, group);
            if (cells) json_object_set_new(all, group, cells);
        }
    }
    return all;
}

static json_t *tokens(const summarizing *s)
{
    static const char *const keys[] = {"input_tokens", "output_tokens"}, *const names[] = {"input", "output"};
    json_t *all = json_object();
    for (size_t p = 0; p < s->plan_count; p++) {
        json_t *of_plan = json_object();
        for (size_t k = 0; k < 2; k++) {
            double sum = 0, value;
            size_t n = 0;
            for (size_t i = 0; i < json_array_size(s->ids); i++) {
                if (!value_of(s, s->plans[p].name, i, keys[k], &value)) continue;
                sum += value;
                n++;
            }
            if (n) json_object_set_new(of_plan, names[k], json_real(sum / (double)n));
        }
        if (json_object_size(of_plan))
            json_object_set_new(all, s->plans[p].name, of_plan);
        else
            json_decref(of_plan);
    }
    return all;
}

/* ---- curves: the mean over items of each point; x comes from the first item that has the curve */

typedef struct curve_sum {
    const json_t *x;
    double *sum;
    size_t *n, length;
} curve_sum;

static bool add_curve(curve_sum *c, const json_t *curve)
{
    const json_t *x = json_object_get(curve, "x"), *y = json_object_get(curve, "y");
    const size_t length = json_array_size(x);
    if (length > c->length) { /* curves of one name may end at different lengths */
        double *sum = mq__realloc(c->sum, length * sizeof *sum);
        if (sum) c->sum = sum;
        size_t *n = mq__realloc(c->n, length * sizeof *n);
        if (n) c->n = n;
        if (!sum || !n) return false;
        for (size_t k = c->length; k < length; k++) {
            sum[k] = 0;
            n[k] = 0;
        }
        c->length = length;
        c->x = x;
    }
    for (size_t k = 0; k < length; k++) {
        const json_t *value = json_array_get(y, k);
        if (!json_is_number(value)) continue;
        c->sum[k] += json_number_value(value);
        c->n[k]++;
    }
    return true;
}

static json_t *mean_curve(const summarizing *s, const char *plan, const char *name)
{
    curve_sum c = {0};
    bool memory = true;
    for (size_t i = 0; memory && i < json_array_size(s->ids); i++) {
        const char *id = json_string_value(json_array_get(s->ids, i));
        const json_t *record = json_object_get(json_object_get(s->records, plan), id);
        const json_t *curve = json_object_get(json_object_get(record, "curves"), name);
        if (curve) memory = add_curve(&c, curve);
    }
    json_t *x = json_array(), *y = json_array();
    for (size_t k = 0; memory && k < c.length; k++) {
        if (c.n[k] == 0) continue;
        json_array_append(x, json_array_get(c.x, k));
        json_array_append_new(y, json_real(c.sum[k] / (double)c.n[k]));
    }
    mq__free(c.sum);
    mq__free(c.n);
    json_t *curve = json_pack("{soso}", "x", x, "y", y);
    if (json_array_size(json_object_get(curve, "x"))) return curve;
    json_decref(curve);
    return NULL;
}

static json_t *curves(const summarizing *s)
{
    json_t *all = json_object();
    for (size_t p = 0; p < s->plan_count; p++) {
        const json_t *of_plan = json_object_get(s->records, s->plans[p].name);
        for (size_t i = 0; i < json_array_size(s->ids); i++) {
            const char *id = json_string_value(json_array_get(s->ids, i)), *name;
            json_t *curve;
            json_object_foreach(json_object_get(json_object_get(of_plan, id), "curves"), name, curve)
            {
                json_t *by_plan = json_object_get(all, name);
                if (!by_plan && json_object_set_new(all, name, json_object()) == 0)
                    by_plan = json_object_get(all, name);
                if (json_object_get(by_plan, s->plans[p].name)) continue;
                json_t *mean = mean_curve(s, s->plans[p].name, name);
                if (mean) json_object_set_new(by_plan, s->plans[p].name, mean);
            }
        }
    }
    return all;
}

json_t *mq__eval_summary(const mq_eval_task *task, const mq_eval_plan *plans, size_t plan_count, const json_t *result,
                         uint64_t seed)
{
    summarizing s = {.task = task,
                     .plans = plans,
                     .plan_count = plan_count,
                     .ids = json_object_get(result, "ids"),
                     .records = json_object_get(result, "records"),
                     .seed = seed};
    const size_t n = json_array_size(s.ids);
    s.a = mq__alloc_zero(n, sizeof *s.a);
    s.b = mq__alloc_zero(n, sizeof *s.b);
    s.w = mq__alloc_zero(n, sizeof *s.w);
    json_t *summary = NULL;
    if (s.a && s.b && s.w) {
        json_t *metrics = json_object();
        for (size_t m = 0; task->metrics[m]; m++) {
            const measure of = measure_of(&s, m);
            json_t *cells = row(&s, &of, NULL);
            if (cells) json_object_set_new(metrics, task->metrics[m], cells);
        }
        summary = json_pack("{sIsssbsososososo}", "items", (json_int_t)n, "headline", task->metrics[0],
                            "smaller_is_better", (int)task->smaller_is_better, "metrics", metrics, "compare",
                            comparisons(&s), "groups", groups(&s), "tokens", tokens(&s), "curves", curves(&s));
        json_t *share = summary ? regained(&s) : NULL;
        if (share) json_object_set_new(summary, "regained", share);
    }
    mq__free(s.a);
    mq__free(s.b);
    mq__free(s.w);
    return summary;
}

/* ---- the table */

static void print_grid(mq_buf *text, const json_t *rows)
{
    const char *name, *plan;
    json_t *cells, *v, *plans = json_object();
    json_object_foreach((json_t *)(uintptr_t)rows, name, cells) json_object_update_missing(plans, cells);
    mq__buf_printf(text, "  %-24s", "");
    json_object_foreach(plans, plan, v) mq__buf_printf(text, " %22s", plan);
    mq__buf_putc(text, '\n');
    json_object_foreach((json_t *)(uintptr_t)rows, name, cells)
    {
        mq__buf_printf(text, "  %-24s", name);
        json_object_foreach(plans, plan, v)
        {
            const json_t *c = json_object_get(cells, plan);
            char field[64] = "-";
            if (c) {
                snprintf(field, sizeof field, "%.4g [%.3g, %.3g]", json_number_value(json_object_get(c, "mean")),
                         json_number_value(json_object_get(c, "low")), json_number_value(json_object_get(c, "high")));
            }
            mq__buf_printf(text, " %22s", field);
        }
        mq__buf_putc(text, '\n');
    }
    json_decref(plans);
}

static void print_comparisons(mq_buf *text, const json_t *list, const char *headline)
{
    const json_t *c;
    size_t i;
    json_array_foreach(list, i, c)
    {
        const char *metric = json_string_value(json_object_get(c, "metric"));
        if (strcmp(metric, headline) != 0) continue;
        mq__buf_printf(
            text,
            "  %s: %s - %s: %+.4g [%+.3g, %+.3g], higher in %lld, lower in %lld of %lld, p = %.3g, Holm %.3g (%s)\n",
            json_string_value(json_object_get(c, "family")), json_string_value(json_object_get(c, "plan")),
            json_string_value(json_object_get(c, "against")), json_number_value(json_object_get(c, "difference")),
            json_number_value(json_object_get(c, "low")), json_number_value(json_object_get(c, "high")),
            (long long)json_integer_value(json_object_get(c, "higher")),
            (long long)json_integer_value(json_object_get(c, "lower")),
            (long long)json_integer_value(json_object_get(c, "n")), json_number_value(json_object_get(c, "p")),
            json_number_value(json_object_get(c, "p_holm")), json_string_value(json_object_get(c, "test")));
    }
}

static void print_regained(mq_buf *text, const json_t *share)
{
    static const char *const bounds[] = {"low", "high"};
    if (!share) return;
    mq__buf_printf(text, "  share of nvfp4's loss that mix does not have: %.2f [",
                   json_number_value(json_object_get(share, "mean")));
    for (size_t i = 0; i < 2; i++) {
        const json_t *bound = json_object_get(share, bounds[i]);
        mq__buf_puts(text, i ? ", " : "");
        if (bound)
            mq__buf_printf(text, "%.2f", json_number_value(bound));
        else
            mq__buf_puts(text, "no bound");
    }
    mq__buf_puts(text, "]\n");
}

static void print_tokens(mq_buf *text, const json_t *tokens)
{
    const char *plan;
    json_t *v;
    if (json_object_size(tokens) == 0) return;
    mq__buf_puts(text, "  tokens of an item, in/out:");
    json_object_foreach((json_t *)(uintptr_t)tokens, plan, v)
    {
        mq__buf_printf(text, "  %s %.0f/%.0f", plan, json_number_value(json_object_get(v, "input")),
                       json_number_value(json_object_get(v, "output")));
    }
    mq__buf_putc(text, '\n');
}

void mq__eval_table(const json_t *report, mq_buf *text)
{
    const char *name;
    json_t *task;
    json_object_foreach(json_object_get(report, "tasks"), name, task)
    {
        mq__buf_printf(text, "%s: %lld items, mean [95%% interval]%s\n", name,
                       (long long)json_integer_value(json_object_get(task, "items")),
                       json_is_true(json_object_get(task, "smaller_is_better")) ? ", smaller is better" : "");
        print_grid(text, json_object_get(task, "metrics"));
        if (json_object_size(json_object_get(task, "groups"))) print_grid(text, json_object_get(task, "groups"));
        print_comparisons(text, json_object_get(task, "compare"), json_string_value(json_object_get(task, "headline")));
        print_regained(text, json_object_get(task, "regained"));
        print_tokens(text, json_object_get(task, "tokens"));
        mq__buf_putc(text, '\n');
    }
}
