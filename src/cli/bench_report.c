#include "cli/bench_report.h"

#include "base/mem.h"
#include "cli/cli.h"
#include "eval/svg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { POINTS_MAX = 256, LINES_MAX = 32 };

static const char *text_of_bench_report(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static int close_file(FILE *file, const char *path)
{
    bool ok = file && fflush(file) == 0 && !ferror(file);
    if (file && fclose(file) != 0) ok = false;
    if (ok) return CLI_DONE;
    fprintf(stderr, "mixquant: bench: %s: expected to write it, got a failure\n", path);
    return CLI_FAILED;
}

int bench_write_csv(const json_t *document, const char *path)
{
    FILE *file = fopen(path, "we");
    const json_t *r;
    size_t i;
    if (file) {
        fputs("phase,format,batch,tokens,depth,min_tok_s,median_tok_s,max_tok_s,gmac_s,gb_s,share,mac_per_byte\n",
              file);
    }
    json_array_foreach(json_object_get(document, "results"), i, r)
    {
        if (!file) break;
        const json_t *rate = json_object_get(r, "tok_s");
        fprintf(file, "%s,%s,%.0f,%.0f,%.0f,%.4g,%.4g,%.4g,%.4g,%.4g,%.4g,%.4g\n", text_of_bench_report(r, "phase"),
                text_of_bench_report(r, "format"), number_of(r, "batch"), number_of(r, "tokens"), number_of(r, "depth"),
                number_of(rate, "min"), number_of(rate, "median"), number_of(rate, "max"), number_of(r, "gmac_s"),
                number_of(r, "gb_s"), number_of(r, "share"), number_of(r, "mac_per_byte"));
    }
    return close_file(file, path);
}

/* Points of one format (and batch). */
typedef struct line {
    char name[64];
    double x[POINTS_MAX], y[POINTS_MAX];
    size_t count;
} line;

typedef struct chart {
    line lines[LINES_MAX];
    size_t count;
    double x_low, x_high, y_low, y_high;
} chart;

static void add_point(chart *c, const char *name, double x, double y)
{
    size_t i = 0;
    while (i < c->count && strcmp(c->lines[i].name, name) != 0) {
        i++;
    }
    if (i == LINES_MAX || !isfinite(x) || !isfinite(y)) return;
    line *l = &c->lines[i];
    if (i == c->count) {
        c->count++;
        snprintf(l->name, sizeof l->name, "%s", name);
    }
    if (l->count == POINTS_MAX) return;
    l->x[l->count] = x;
    l->y[l->count++] = y;
    c->x_low = fmin(c->x_low, x);
    c->x_high = fmax(c->x_high, x);
    c->y_low = fmin(c->y_low, y);
    c->y_high = fmax(c->y_high, y);
}

static chart *new_chart(void)
{
    chart *c = mq__alloc_zero(1, sizeof *c);
    if (c) *c = (chart){.x_low = INFINITY, .y_low = INFINITY, .x_high = -INFINITY, .y_high = -INFINITY};
    return c;
}

/* "nvfp4", "nvfp4 x4": the format, and the batch where there are several sequences. */
static void name_line(const json_t *r, const char *prefix, char name[64])
{
    const double batch = number_of(r, "batch");
    if (batch > 1) {
        snprintf(name, 64, "%s%s x%.0f", prefix, text_of_bench_report(r, "format"), batch);
    } else {
        snprintf(name, 64, "%s%s", prefix, text_of_bench_report(r, "format"));
    }
}

/* The first `lines` of the series are lines, the others points. */
static int write_chart(const chart *c, size_t lines, const char *folder, const char *file_name, const char *title,
                       mq_svg_axis x, mq_svg_axis y)
{
    char path[4096];
    mq_svg svg;
    mq__svg_begin(&svg, title, x, y);
    for (size_t i = 0; i < c->count; i++) {
        (i < lines ? mq__svg_line : mq__svg_points)(&svg, i, c->lines[i].name, c->lines[i].x, c->lines[i].y,
                                                    c->lines[i].count);
    }
    char *text = mq__svg_end(&svg);
    snprintf(path, sizeof path, "%s/%s", folder, file_name);
    FILE *file = text ? fopen(path, "we") : NULL;
    if (file) fputs(text, file);
    mq__free(text);
    return close_file(file, path);
}

static int plot_speedup(const json_t *document, const char *folder, chart *c)
{
    const json_t *r;
    size_t i;
    char name[64];
    json_array_foreach(json_object_get(document, "ratios"), i, r)
    {
        if (strcmp(text_of_bench_report(r, "phase"), "prefill") != 0) continue;
        name_line(r, "", name);
        add_point(c, name, number_of(r, "tokens"), number_of(r, "median"));
    }
    if (c->count == 0 || !(c->x_high > c->x_low)) return CLI_DONE; /* one length makes no line */
    return write_chart(c, c->count, folder, "prefill-speedup.svg", "prefill: speed-up over bf16 by prompt length",
                       (mq_svg_axis){c->x_low, c->x_high, "tokens", true},
                       (mq_svg_axis){0, ceil(c->y_high), NULL, false});
}

static int plot_decode(const json_t *document, const char *folder, chart *c)
{
    const json_t *r;
    size_t i;
    char name[64];
    json_array_foreach(json_object_get(document, "results"), i, r)
    {
        if (strcmp(text_of_bench_report(r, "phase"), "decode") != 0) continue;
        name_line(r, "", name);
        add_point(c, name, number_of(r, "depth"), number_of(json_object_get(r, "tok_s"), "median"));
    }
    if (c->count == 0 || !(c->x_high > c->x_low)) return CLI_DONE;
    return write_chart(c, c->count, folder, "decode.svg", "decode: tokens per second by depth",
                       (mq_svg_axis){c->x_low, c->x_high, "tokens in the cache", false},
                       (mq_svg_axis){0, c->y_high * 1.05, NULL, false});
}

/* Multiply-adds per second by multiply-adds per byte. Integer formats rise above the FP32 roof: that is their point. */
static int plot_roofline(const json_t *document, const char *folder, chart *c)
{
    const json_t *cpu = json_object_get(document, "cpu"), *r;
    const double bandwidth = number_of(cpu, "read_gb_s"), peak = number_of(cpu, "fma_gflop_s") / 2;
    if (bandwidth <= 0 || peak <= 0) return CLI_DONE;
    const double ridge = peak / bandwidth;
    size_t i;
    char name[64], prefix[32];
    static const double around[] = {1.0 / 16, 1, 64}; /* the machine, around its ridge */
    for (i = 0; i < 3; i++) {
        add_point(c, "FP32 limit", ridge * around[i], fmin(peak, ridge * around[i] * bandwidth));
    }
    json_array_foreach(json_object_get(document, "results"), i, r)
    {
        const bool prefill = strcmp(text_of_bench_report(r, "phase"), "prefill") == 0;
        const double intensity = number_of(r, "mac_per_byte");
        snprintf(prefix, sizeof prefix, "%s ", text_of_bench_report(r, "phase"));
        name_line(r, prefix, name);
        add_point(c, name, intensity, prefill ? number_of(r, "gmac_s") : number_of(r, "gb_s") * intensity);
    }
    return write_chart(c, 1, folder, "roofline.svg", "GMAC/s by multiply-adds per byte read",
                       (mq_svg_axis){c->x_low, c->x_high, "multiply-adds per byte", true},
                       (mq_svg_axis){c->y_low / 1.5, c->y_high * 1.5, NULL, true});
}

int bench_write_plots(const json_t *document, const char *folder)
{
    int (*const plots[])(const json_t *, const char *, chart *) = {plot_speedup, plot_decode, plot_roofline};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return close_file(NULL, folder);
    int code = CLI_DONE;
    for (size_t i = 0; code == CLI_DONE && i < sizeof plots / sizeof plots[0]; i++) {
        chart *c = new_chart();
        code = c ? plots[i](document, folder, c) : CLI_FAILED;
        mq__free(c);
    }
    return code;
}
