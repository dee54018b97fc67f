#include "eval/svg.h"

#include <math.h>
#include <stdio.h>

/* Told apart by colour-blind readers as well (Okabe and Ito). */
static const char *const colors[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                     "#e69f00", "#56b4e9", "#000000", "#999999"};

static const char *color(size_t i)
{
    return colors[i % (sizeof colors / sizeof colors[0])];
}

static double at_x(const mq_svg *s, double x)
{
    if (s->x.log) return s->left + log2(x / s->x.low) / log2(s->x.high / s->x.low) * s->width;
    return s->left + (x - s->x.low) / (s->x.high - s->x.low) * s->width;
}

static double at_y(const mq_svg *s, double y)
{
    if (s->y.log) return s->top + s->height - log2(y / s->y.low) / log2(s->y.high / s->y.low) * s->height;
    return s->top + s->height - (y - s->y.low) / (s->y.high - s->y.low) * s->height;
}

static void escaped(mq_buf *text, const char *words)
{
    for (const char *p = words; *p; p++) {
        if (*p == '<')
            mq__buf_puts(text, "&lt;");
        else if (*p == '&')
            mq__buf_puts(text, "&amp;");
        else
            mq__buf_putc(text, *p);
    }
}

static void label(mq_svg *s, double x, double y, const char *anchor, const char *words)
{
    mq__buf_printf(&s->text, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    escaped(&s->text, words);
    mq__buf_puts(&s->text, "</text>\n");
}

static void segment(mq_svg *s, double x1, double y1, double x2, double y2, const char *stroke)
{
    mq__buf_printf(&s->text, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
                   stroke);
}

/* The largest of 1, 2, 5 times a power of ten that gives at least four steps. */
static double step_of(double range)
{
    const double unit = pow(10, floor(log10(range / 4)));
    const double steps[] = {5, 2, 1};
    for (int i = 0; i < 3; i++) {
        if (range / (steps[i] * unit) >= 4) return steps[i] * unit;
    }
    return unit;
}

static void log_marks_x(mq_svg *s)
{
    char number[32];
    for (double x = exp2(ceil(log2(s->x.low))); x <= s->x.high; x *= 4) {
        snprintf(number, sizeof number, "%.6g", x);
        label(s, at_x(s, x), s->top + s->height + 16, "middle", number);
    }
}

static void log_marks_y(mq_svg *s)
{
    char number[32];
    for (double y = exp2(ceil(log2(s->y.low))); y <= s->y.high; y *= 2) {
        snprintf(number, sizeof number, "%.6g", y);
        segment(s, s->left, at_y(s, y), s->left + s->width, at_y(s, y), "#dddddd");
        label(s, s->left - 6, at_y(s, y) + 4, "end", number);
    }
}

static void marks(mq_svg *s, const mq_svg_axis *axis, int is_y)
{
    const double step = step_of(axis->high - axis->low);
    for (double k = ceil(axis->low / step - 1e-9); k * step <= axis->high + 1e-9 * step; k++) {
        char number[32];
        snprintf(number, sizeof number, "%.6g", k * step + 0.0); /* no -0 */
        if (is_y) {
            const double y = at_y(s, k * step);
            segment(s, s->left, y, s->left + s->width, y, "#dddddd");
            label(s, s->left - 6, y + 4, "end", number);
        } else {
            label(s, at_x(s, k * step), s->top + s->height + 16, "middle", number);
        }
    }
}

void mq__svg_begin(mq_svg *s, const char *title, mq_svg_axis x, mq_svg_axis y)
{
    *s = (mq_svg){.left = 70, .top = 40, .width = 440, .height = 250, .x = x, .y = y};
    mq__buf_puts(&s->text, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"680\" height=\"350\" "
                           "font-family=\"sans-serif\" font-size=\"12\">\n"
                           "<rect width=\"680\" height=\"350\" fill=\"#ffffff\"/>\n");
    label(s, s->left, 20, "start", title);
    if (s->y.log)
        log_marks_y(s);
    else
        marks(s, &s->y, 1);
    if (x.label) {
        if (s->x.log)
            log_marks_x(s);
        else
            marks(s, &s->x, 0);
        label(s, s->left + s->width / 2, s->top + s->height + 36, "middle", x.label);
    }
    if (y.label) label(s, s->left, 34, "start", y.label);
    segment(s, s->left, s->top + s->height, s->left + s->width, s->top + s->height, "#000000");
}

void mq__svg_bar(mq_svg *s, size_t i, size_t n, const char *name, double value, double low, double high)
{
    const double each = s->width / (double)n, x = s->left + each * (double)i + each * 0.15, middle = x + each * 0.35;
    const double base = s->top + s->height, y = at_y(s, value);
    mq__buf_printf(&s->text, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x, y,
                   each * 0.7, base - y, color(i));
    label(s, middle, base + 16 + (n > 6 && i % 2 ? 14 : 0), "middle", name);
    if (!(low < high)) return;
    segment(s, middle, at_y(s, low), middle, at_y(s, high), "#000000");
    segment(s, middle - 4, at_y(s, low), middle + 4, at_y(s, low), "#000000");
    segment(s, middle - 4, at_y(s, high), middle + 4, at_y(s, high), "#000000");
}

/* Colours come again after eight series; the marks are squares then. */
static void mark(mq_svg *s, size_t i, double x, double y)
{
    if (i / (sizeof colors / sizeof colors[0]) % 2 == 0) {
        mq__buf_printf(&s->text, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", x, y, color(i));
    } else {
        mq__buf_printf(&s->text, "<rect x=\"%.1f\" y=\"%.1f\" width=\"6\" height=\"6\" fill=\"%s\"/>\n", x - 3, y - 3,
                       color(i));
    }
}

void mq__svg_points(mq_svg *s, size_t i, const char *name, const double *x, const double *y, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        mark(s, i, at_x(s, x[k]), at_y(s, y[k]));
    }
    const double right = s->left + s->width + 14, down = s->top + 10 + 18 * (double)i;
    mark(s, i, right + 8, down);
    label(s, right + 22, down + 4, "start", name);
}

void mq__svg_line(mq_svg *s, size_t i, const char *name, const double *x, const double *y, size_t count)
{
    mq__buf_printf(&s->text, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"", color(i));
    for (size_t k = 0; k < count; k++) {
        mq__buf_printf(&s->text, "%.1f,%.1f ", at_x(s, x[k]), at_y(s, y[k]));
    }
    mq__buf_puts(&s->text, "\"/>\n");
    const double right = s->left + s->width + 14, down = s->top + 10 + 18 * (double)i;
    segment(s, right, down, right + 16, down, color(i));
    mq__svg_points(s, i, name, x, y, count);
}

char *mq__svg_end(mq_svg *s)
{
    mq__buf_puts(&s->text, "</svg>\n");
    char *text = mq__buf_take(&s->text);
    mq__buf_free(&s->text);
    return text;
}
