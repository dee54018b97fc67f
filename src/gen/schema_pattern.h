/* Regular expressions (ECMA-262, a part of it: docs/SCHEMA.md) as the code of JSON strings. */
#ifndef MQ_SCHEMA_PATTERN_H
#define MQ_SCHEMA_PATTERN_H

#include "gen/json_grammar.h"

/* What a class, a group, an alternative, ... is made of. Pieces refer to each other by number; 0 is none. */
typedef enum mq_piece_kind {
    MQ_PIECE_CLASS,  /* a character of class `first` */
    MQ_PIECE_LIST,   /* its parts in turn */
    MQ_PIECE_ANY,    /* one of its parts */
    MQ_PIECE_REPEAT, /* its part, `least` to `most` times */
    MQ_PIECE_START,
    MQ_PIECE_END
} mq_piece_kind;

typedef struct mq_piece {
    mq_piece_kind kind;
    uint32_t first, next; /* the first part; the one beside this */
    uint32_t least, most;
} mq_piece;

typedef struct mq_code_range {
    uint32_t low, high; /* characters */
} mq_code_range;

typedef struct mq_class {
    uint32_t first, count; /* of the ranges: sorted, apart from each other */
    uint32_t rule;         /* MQ_NEVER: none yet */
} mq_class;

typedef struct mq_pattern {
    const char *at, *end;
    mq_piece *piece; /* [count]; 0 is none */
    mq_class *class_;
    mq_code_range *range;
    size_t count, room, class_count, class_room, range_count, range_room;
    uint32_t top, depth;
    const char *fault; /* why it is left out; NULL: it is not */
    bool failed;       /* no memory */
} mq_pattern;

#define MQ_ENDLESS UINT32_MAX /* of mq_piece.most */

void mq__pattern_read(mq_pattern *p, const char *text, size_t bytes);
void mq__pattern_free(mq_pattern *p);
/* Whether all that it matches has so many characters; `most` may be MQ_ENDLESS. A pattern of one repeated class is changed so that it
 * does. Only of one without a fault. */
bool mq__pattern_limit(mq_pattern *p, uint32_t least, uint32_t most);
/* The code of a JSON string, its quotes among it, and the rule's end. False: `fault` says why not, and nothing was written. */
bool mq__pattern_emit(mq_pattern *p, mq_schemas *s);
/* The rules of its classes: behind the rule that has its code. */
void mq__pattern_emit_classes(mq_pattern *p, mq_schemas *s);

#endif
