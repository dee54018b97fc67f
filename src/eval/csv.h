/* Comma-separated values (RFC 4180) as data sets are published: a line of names, then a row a record. */
#ifndef MQ_EVAL_CSV_H
#define MQ_EVAL_CSV_H

#include "eval/eval.h"

/* *rows becomes an array with an object of texts for each row, owned by the caller. Fields in quotes may hold commas, line breaks
 * and doubled quotes; a byte order mark and empty lines are passed over. A row with more or fewer fields than names, a quote that
 * does not end or stands inside a field, and text that is not UTF-8 are MQ_FORMAT with their line. */
mq_status mq__csv_read(const char *path, json_t **rows, mq_error *error);

#endif
