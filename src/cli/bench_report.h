/* What `mixquant bench` leaves behind besides its table: a CSV file, and plots. Both read the JSON document. */
#ifndef MQ_CLI_BENCH_REPORT_H
#define MQ_CLI_BENCH_REPORT_H

#include <jansson.h>

/* One line per result, for spreadsheets. Reports a failure and returns its code. */
int bench_write_csv(const json_t *document, const char *path);

/* Into `folder` (made when missing), where there is something to show: prefill-speedup.svg, the paired ratio to bf16 by prompt
 * length; decode.svg, tokens per second by depth; roofline.svg, both phases against the machine's limits. */
int bench_write_plots(const json_t *document, const char *folder);

#endif
