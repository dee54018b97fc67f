/* JSON as rules of a grammar, and schemas as rules over them. docs/SCHEMA.md says what of JSON schema is read. */
#ifndef MQ_JSON_GRAMMAR_H
#define MQ_JSON_GRAMMAR_H

#include "base/buf.h"
#include "gen/grammar.h"

#include <jansson.h>

typedef struct schema_rule {
    const json_t *schema, *root;
    uint32_t rule, next; /* next: of the same hash, + 1 */
} schema_rule;

enum { MQ_SCHEMA_BUCKETS = 1024, MQ_DIGITS_MOST = 15 }; /* whole numbers stay below 2^53, where doubles are exact */

/* Puts schemas into a grammar; each schema object becomes one rule, so that references may be cyclic. */
typedef struct mq_schemas {
    mq_grammar *g;
    const json_t *root; /* of the schema in hand: what "#/..." refers to */
    bool strict;
    mq_buf dropped;                           /* "pattern, minimum": keywords that were left out */
    uint32_t space, string, value, character; /* rules */
    uint32_t beyond;                          /* a character that is not of ASCII */
    uint32_t number, integer;
    uint32_t digits[MQ_DIGITS_MOST];         /* up to so many more */
    schema_rule *known;                      /* [known_count] */
    size_t known_count, known_room, emitted; /* the first `emitted` of them have their code */
    uint32_t bucket[MQ_SCHEMA_BUCKETS];      /* + 1, of `known` */
    size_t work;                             /* done so far */
    json_t *made;                            /* a list of schemas that were put together (allOf) */
    mq_error *error;
    mq_status status;
} mq_schemas;

/* The rules of JSON itself. Rule 0 must be there already. */
void mq__schemas_begin(mq_schemas *s, mq_grammar *g, bool strict, mq_error *error);
void mq__schemas_end(mq_schemas *s);
/* The rule of a schema; its code follows with mq__schemas_emit. */
uint32_t mq__schemas_rule(mq_schemas *s, const json_t *schema);
/* The code of all rules that were asked for, and of those that they ask for. Between rules only. */
mq_status mq__schemas_emit(mq_schemas *s);

/* Fails the schema in hand; false. */
bool mq__schema_fail(mq_schemas *s, mq_status status, const char *what);
/* A keyword that cannot be kept: left out, or an error: false. */
bool mq__schema_leave_out(mq_schemas *s, const char *keyword);

/* The type of values that a keyword is about; NULL: any, or none. */
const char *mq__schema_about(const char *keyword);

/* Notes work that grows faster than the schema's text; false: it was too much. */
bool mq__schema_work(mq_schemas *s, size_t amount);

/* ---- schema_object.c, schema_string.c, schema_number.c: the code of a type's values */

void mq__schema_object(mq_schemas *s, const json_t *schema);
void mq__schema_array(mq_schemas *s, const json_t *schema);
void mq__schema_string(mq_schemas *s, const json_t *schema);
void mq__schema_number(mq_schemas *s, const json_t *schema, bool whole);
/* Whether `required` has the name. */
bool mq__schema_requires(mq_schemas *s, const json_t *schema, const char *name);
/* A bound that is counted, or -1. */
long mq__schema_bound(mq_schemas *s, const json_t *schema, const char *name, long most);

/* ---- schema_join.c */

/* The schema that a $ref leads to, or the schema itself; NULL: it leads nowhere. */
const json_t *mq__schema_follow(mq_schemas *s, const json_t *schema);
/* One with the keywords of its allOf; NULL: nothing satisfies it. */
const json_t *mq__schema_merge(mq_schemas *s, const json_t *schema);
/* The keywords beside anyOf or oneOf that every alternative has to keep; NULL: there are none. */
const json_t *mq__schema_beside(mq_schemas *s, const json_t *schema, const char *alternatives);
/* An alternative of the list `keyword` and those keywords together; NULL: nothing satisfies both. */
const json_t *mq__schema_both(mq_schemas *s, const json_t *beside, const json_t *alternative, const char *keyword,
                              const json_t *list);

/* ---- json_grammar.c */

/* A value's text, compact: numbers as Python writes them, those beyond 64 bits as they were spelled. In the C locale only. */
void mq__grammar_json(mq_schemas *s, const json_t *value);
/* Objects that stand for numbers beyond 64 bits (base/json_read.h) are numbers. */
bool mq__schema_is_object(const json_t *schema);
bool mq__schema_number_of(const json_t *value, double *number); /* rounded; false: it is none */
bool mq__schema_is_whole(const json_t *value);
void mq__schemas_call(mq_schemas *s, uint32_t rule);
void mq__schemas_characters(mq_schemas *s); /* any number of a string's characters */

#endif
