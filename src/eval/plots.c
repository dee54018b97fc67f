#include "eval/plots.h"

#include "base/mem.h"
#include "eval/svg.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

/* Ends a chart and files it; a name's odd characters become '-'. */
static void file_chart(json_t *plots, mq_svg *svg, const char *task, const char *what)
{
    char name[128];
    snprintf(name, sizeof name, "%s-%s.svg", task, what);
    for (char *p = name; *p; p++) {
        if (strchr(" /@:,()=", *p)) *p = '-';
    }
    char *text = mq__svg_end(svg);
    if (text) json_object_set_new(plots, name, json_string(text));
    mq__free(text);
}

static mq_svg_axis axis(double low, double high, const char *text)
{
    return (mq_svg_axis){low, high > low ? high : low + 1, text};
}

static void plot_bars(json_t *plots, const char *task, const char *metric, const json_t *cells)
{
    const char *plan;
    json_t *cell;
    mq_svg svg;
    char title[128];
    double low = 0, high = 0;
    size_t i = 0, n = json_object_size(cells);
    json_object_foreach((json_t *)(uintptr_t)cells, plan, cell)
    {
        high = fmax(high, number(cell, "high"));
        low = fmin(low, number(cell, "low"));
    }
    snprintf(title, sizeof title, "%s: %s by plan, mean and 95%% interval", task, metric);
    mq__svg_begin(&svg, title, axis(0, 1, NULL), axis(low, high <= 1 && high > 0.5 ? 1 : high * 1.05, NULL));
    json_object_foreach((json_t *)(uintptr_t)cells, plan, cell)
    {
        mq__svg_bar(&svg, i++, n, plan, number(cell, "mean"), number(cell, "low"), number(cell, "high"));
    }
    file_chart(plots, &svg, task, metric);
}

static double *numbers(const json_t *array)
{
    double *values = mq__alloc_zero(json_array_size(array), sizeof *values);
    for (size_t i = 0; values && i < json_array_size(array); i++) {
        values[i] = json_number_value(json_array_get(array, i));
    }
    return values;
}

static void plot_curve(json_t *plots, const char *task, const char *name, const json_t *by_plan)
{
    const char *plan;
    json_t *curve, *point;
    mq_svg svg;
    char title[160];
    double x_low = INFINITY, x_high = -INFINITY, y_low = 0, y_high = 0;
    size_t i = 0, k;
    json_object_foreach((json_t *)(uintptr_t)by_plan, plan, curve)
    {
        json_array_foreach(json_object_get(curve, "x"), k, point)
        {
            x_low = fmin(x_low, json_number_value(point));
            x_high = fmax(x_high, json_number_value(point));
        }
        json_array_foreach(json_object_get(curve, "y"), k, point)
        {
            y_low = fmin(y_low, json_number_value(point));
            y_high = fmax(y_high, json_number_value(point));
        }
    }
    snprintf(title, sizeof title, "%s: %s", task, name);
    const double top = y_high <= 1 && y_high > 0.5 ? 1 : y_high > 0 ? y_high * 1.05 : 1e-6;
    mq__svg_begin(&svg, title, axis(x_low, x_high, ""), axis(y_low, top, NULL));
    json_object_foreach((json_t *)(uintptr_t)by_plan, plan, curve)
    {
        const json_t *xs = json_object_get(curve, "x");
        double *x = numbers(xs), *y = numbers(json_object_get(curve, "y"));
        if (x && y) mq__svg_line(&svg, i++, plan, x, y, json_array_size(xs));
        mq__free(x);
        mq__free(y);
    }
    file_chart(plots, &svg, task, name);
}

/* As the paper's Fig. 1: what an item reads and writes, by task, under the first plan. */
static void plot_tokens(json_t *plots, const json_t *tasks)
{
    const char *name;
    json_t *task;
    mq_svg svg;
    double high = 0;
    size_t i = 0, n = 0;
    json_object_foreach((json_t *)(uintptr_t)tasks, name, task)
    {
        const json_t *tokens = json_object_iter_value(json_object_iter(json_object_get(task, "tokens")));
        if (!tokens) continue;
        high = fmax(high, fmax(number(tokens, "input"), number(tokens, "output")));
        n += 2;
    }
    if (n == 0) return;
    mq__svg_begin(&svg, "tokens of an item: prefilled and generated", axis(0, 1, NULL), axis(0, high * 1.05, NULL));
    json_object_foreach((json_t *)(uintptr_t)tasks, name, task)
    {
        char bar[64];
        const json_t *tokens = json_object_iter_value(json_object_iter(json_object_get(task, "tokens")));
        if (!tokens) continue;
        snprintf(bar, sizeof bar, "%s in", name);
        mq__svg_bar(&svg, i++, n, bar, number(tokens, "input"), 0, 0);
        snprintf(bar, sizeof bar, "%s out", name);
        mq__svg_bar(&svg, i++, n, bar, number(tokens, "output"), 0, 0);
    }
    file_chart(plots, &svg, "tokens", "by-task");
}

json_t *mq__eval_plots(const json_t *report)
{
    json_t *plots = json_object(), *task, *item;
    const json_t *tasks = json_object_get(report, "tasks");
    const char *name, *what;
    json_object_foreach((json_t *)(uintptr_t)tasks, name, task)
    {
        json_object_foreach(json_object_get(task, "metrics"), what, item)
        {
            plot_bars(plots, name, what, item);
        }
        json_object_foreach(json_object_get(task, "curves"), what, item)
        {
            plot_curve(plots, name, what, item);
        }
    }
    plot_tokens(plots, tasks);
    return plots;
}
