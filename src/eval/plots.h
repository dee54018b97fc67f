/* Plots of a report, as SVG made here: no library, no fonts but the viewer's own. */
#ifndef MQ_EVAL_PLOTS_H
#define MQ_EVAL_PLOTS_H

#include <jansson.h>

/* {"<task>-<what>.svg": text}: the headline by plan with intervals, each curve by plan, and input and output tokens by
 * task. Returns owned; NULL: out of memory. */
json_t *mq__eval_plots(const json_t *report);

#endif
