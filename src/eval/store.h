/* The records of one task on disk: a header line with the settings, then one JSON object a line. What a killed run left
 * is kept, but for a half line at its end. File and folder are made with the first record: a run that fails before it
 * leaves nothing. */
#ifndef MQ_EVAL_STORE_H
#define MQ_EVAL_STORE_H

#include "eval/eval.h"

#include <stdio.h>

typedef struct mq_eval_store {
    FILE *file;      /* NULL: in memory only, or not made yet */
    char *path;      /* owned; NULL: in memory only */
    json_t *header;  /* owned; what a file begins with */
    bool begun;      /* the file is there, with a header */
    bool renew;      /* whose plans are fewer than those of `header` */
    json_t *records; /* {"<plan>": {"<id>": record}} */
} mq_eval_store;

/* Reads path back where it exists (NULL: nothing on disk). A file that another run has made (mq__eval_header_check) is refused as
 * it is, and so is a place where the file could not be made. Plans that only one of the headers has are joined. */
mq_status mq__eval_store_open(mq_eval_store *store, const char *path, json_t *header, mq_error *error);
void mq__eval_store_close(mq_eval_store *store);

const json_t *mq__eval_store_get(const mq_eval_store *store, const char *plan, const char *id); /* borrowed, or NULL */

/* Writes a record with "plan" and "id" and keeps it; takes it in any case. */
mq_status mq__eval_store_add(mq_eval_store *store, json_t *record, mq_error *error);

#endif
