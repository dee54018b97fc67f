/* A small writer of SVG charts: one panel of bars with intervals, or of lines. Numbers are printed with fixed precision, so
 * equal data gives equal bytes. */
#ifndef MQ_EVAL_SVG_H
#define MQ_EVAL_SVG_H

#include "base/buf.h"

#include <stdbool.h>

typedef struct mq_svg_axis {
    double low, high;
    const char *label;
    bool log; /* powers of two at equal distances; low > 0 */
} mq_svg_axis;

typedef struct mq_svg {
    mq_buf text;
    double left, top, width, height; /* of the panel */
    mq_svg_axis x, y;
} mq_svg;

/* Starts a chart; the axes must have high > low. x.label NULL: no marks on the x axis (bars). */
void mq__svg_begin(mq_svg *svg, const char *title, mq_svg_axis x, mq_svg_axis y);

/* The i-th of n bars, from the y axis' low end, named below it. low < high: with an interval. */
void mq__svg_bar(mq_svg *svg, size_t i, size_t n, const char *name, double value, double low, double high);

/* The i-th line through count points, each marked, named in the legend; or the points alone. */
void mq__svg_line(mq_svg *svg, size_t i, const char *name, const double *x, const double *y, size_t count);
void mq__svg_points(mq_svg *svg, size_t i, const char *name, const double *x, const double *y, size_t count);

/* Ends the chart and returns its text, owned (mq__free); NULL: out of memory. */
char *mq__svg_end(mq_svg *svg);

#endif
