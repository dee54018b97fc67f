/* From template text to tokens: white space control, trim_blocks, lstrip_blocks, raw blocks and comments end here. */
#ifndef MQ_FORMAT_JINJA_LEX_H
#define MQ_FORMAT_JINJA_LEX_H

#include "jinja/jinja_value.h"

typedef enum mq_jtoken_kind {
    MQ_JT_DATA,        /* value: template text */
    MQ_JT_PRINT_BEGIN, /* {{ */
    MQ_JT_PRINT_END,
    MQ_JT_BLOCK_BEGIN, /* {% */
    MQ_JT_BLOCK_END,
    MQ_JT_NAME,     /* value: its text */
    MQ_JT_CONST,    /* value: a number or a string */
    MQ_JT_OPERATOR, /* op */
    MQ_JT_END
} mq_jtoken_kind;

/* An operator is its one or two characters. */
#define MQ_J_OP2(first, second) ((uint16_t)((unsigned)(first) << 8 | (unsigned)(second)))

typedef struct mq_jtoken {
    uint8_t kind;
    uint16_t op;
    uint32_t line;
    mq_jvalue value;
} mq_jtoken;

/* Lexes a whole template. Token text points into `source` or `texts`; the token array lives in `scratch` and ends with
 * MQ_JT_END. Errors are thrown. */
const mq_jtoken *mq__jinja_lex(mq_jtrap *trap, mq_arena *texts, mq_arena *scratch, const char *source, size_t bytes);

#endif
