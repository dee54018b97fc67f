/* A table through which an answer walks, adding up as it goes: each of its lines uses the one before, for the row to read next and
 * for the total. What a decode error costs is therefore everything after it, unlike in tasks that copy. */
#ifndef MQ_EVAL_LEDGER_H
#define MQ_EVAL_LEDGER_H

#include "base/buf.h"
#include "eval/eval.h"

enum { MQ_LEDGER_ROWS_MAX = 4096 };

/* The rows are one ring: from any of them, as many steps as there are rows come by each once. */
typedef struct mq_ledger {
    char (*name)[32]; /* [rows] in the ring's order; owned */
    uint8_t *number;  /* [rows] 1 to 9; owned */
    uint32_t *place;  /* [rows] the row that stands at each place of the text; owned */
    uint32_t rows, steps;
    uint32_t total; /* before the first step; the walk begins at row 0 */
} mq_ledger;

/* Equal arguments give equal ledgers. 2 <= rows <= MQ_LEDGER_ROWS_MAX; steps <= rows. */
mq_status mq__ledger_make(mq_ledger *ledger, uint32_t rows, uint32_t steps, uint64_t seed, const char *name,
                          mq_error *error);
void mq__ledger_free(mq_ledger *ledger);

/* The user's text (tools/train/ledger.py writes the same), and one line of the right answer, without its newline. */
void mq__ledger_text(const mq_ledger *ledger, mq_buf *text);
void mq__ledger_line(const mq_ledger *ledger, uint32_t step, char line[128]);

/* What an answer's first wrong line got wrong first. */
typedef enum mq_ledger_part {
    MQ_LEDGER_NONE,   /* nothing: all lines are right */
    MQ_LEDGER_COUNT,  /* the line's own number */
    MQ_LEDGER_NAME,   /* the row: not the one that the line before named */
    MQ_LEDGER_NUMBER, /* the row's number, copied from the table */
    MQ_LEDGER_NEXT,   /* the row's next name, copied from the table */
    MQ_LEDGER_TOTAL,  /* the total, computed */
    MQ_LEDGER_END     /* it ended too early or went on */
} mq_ledger_part;

const char *mq__ledger_part_name(mq_ledger_part part);

typedef struct mq_ledger_score {
    bool last;      /* the last number of the answer is the final total */
    uint32_t right; /* lines before the first wrong one */
    mq_ledger_part part;
} mq_ledger_score;

mq_ledger_score mq__ledger_score(const mq_ledger *ledger, const char *answer);

#endif
