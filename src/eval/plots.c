#include "eval/plots.h"

#include "base/mem.h"
#include "eval/svg.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static double number_plots(const json_t *object, const char *key)
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
    return (mq_svg_axis){low, high > low ? high : low + 1, text, false};
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
        high = fmax(high, number_plots(cell, "high"));
        low = fmin(low, number_plots(cell, "low"));
    }
    snprintf(title, sizeof title, "%s: %s by plan, mean and 95%% interval", task, metric);
    mq__svg_begin(&svg, title, axis(0, 1, NULL), axis(low, high <= 1 && high > 0.5 ? 1 : high * 1.05, NULL));
    json_object_foreach((json_t *)(uintptr_t)cells, plan, cell)
    {
        mq__svg_bar(&svg, i++, n, plan, number_plots(cell, "mean"), number_plots(cell, "low"),
                    number_plots(cell, "high"));
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

typedef struct range {
    double x_low, x_high, y_low, y_high;
    size_t points;
} range;

static void widen_plots(range *r, const json_t *curve)
{
    const json_t *point;
    size_t k;
    r->points = json_array_size(json_object_get(curve, "x"));
    json_array_foreach(json_object_get(curve, "x"), k, point)
    {
        r->x_low = fmin(r->x_low, json_number_value(point));
        r->x_high = fmax(r->x_high, json_number_value(point));
    }
    json_array_foreach(json_object_get(curve, "y"), k, point)
    {
        r->y_low = fmin(r->y_low, json_number_value(point));
        r->y_high = fmax(r->y_high, json_number_value(point));
    }
}

static void plot_lines(json_t *plots, const char *task, const char *name, json_t *lines)
{
    const char *line;
    json_t *curve;
    mq_svg svg;
    char title[160];
    range r = {INFINITY, -INFINITY, 0, 0, 0};
    size_t i = 0;
    json_object_foreach(lines, line, curve)
    {
        widen_plots(&r, curve);
    }
    snprintf(title, sizeof title, "%s: %s", task, name);
    const double top = r.y_high <= 1 && r.y_high > 0.5 ? 1 : r.y_high > 0 ? r.y_high * 1.05 : 1e-6;
    mq_svg_axis x_axis = axis(r.x_low, r.x_high, "");
    x_axis.log = r.x_low > 0 && (double)r.points * 8 < r.x_high - r.x_low; /* few points over a wide range */
    mq__svg_begin(&svg, title, x_axis, axis(r.y_low, top, NULL));
    json_object_foreach(lines, line, curve)
    {
        const json_t *xs = json_object_get(curve, "x");
        double *x = numbers(xs), *y = numbers(json_object_get(curve, "y"));
        if (x && y) mq__svg_line(&svg, i++, line, x, y, json_array_size(xs));
        mq__free(x);
        mq__free(y);
    }
    file_chart(plots, &svg, task, name);
}

/* A curve's own chart has a line for each plan; curves named "chart|line" share one, and show their first plan. */
static void plot_curves(json_t *plots, const char *task, json_t *curves)
{
    const char *name, *chart;
    json_t *by_plan, *lines, *shared = json_object();
    json_object_foreach(curves, name, by_plan)
    {
        const char *bar = strchr(name, '|');
        char of[96];
        if (!bar) {
            plot_lines(plots, task, name, by_plan);
            continue;
        }
        snprintf(of, sizeof of, "%.*s", (int)(bar - name), name);
        if (!json_object_get(shared, of)) json_object_set_new(shared, of, json_object());
        json_object_set(json_object_get(shared, of), bar + 1, json_object_iter_value(json_object_iter(by_plan)));
    }
    json_object_foreach(shared, chart, lines)
    {
        plot_lines(plots, task, chart, lines);
    }
    json_decref(shared);
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
        high = fmax(high, fmax(number_plots(tokens, "input"), number_plots(tokens, "output")));
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
        mq__svg_bar(&svg, i++, n, bar, number_plots(tokens, "input"), 0, 0);
        snprintf(bar, sizeof bar, "%s out", name);
        mq__svg_bar(&svg, i++, n, bar, number_plots(tokens, "output"), 0, 0);
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
        plot_curves(plots, name, json_object_get(task, "curves"));
    }
    plot_tokens(plots, tasks);
    return plots;
}
