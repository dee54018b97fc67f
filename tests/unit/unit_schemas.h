/* What the tests of schemas share: answers that are let through, answers that are not, and what is named as left out. */
#ifndef MQ_UNIT_SCHEMAS_H
#define MQ_UNIT_SCHEMAS_H

#include "unit_masks.h"

typedef struct answer_case {
    const char *schema;
    const char *noted; /* in what was left out; NULL: nothing was, so it is the same with `strict` */
    const char *good[6], *bad[6];
} answer_case;

static inline mq_status make_schema(const char *schema, bool strict, mq_constraint **c, char **dropped, mq_error *error)
{
    const mq_constraint_options options = {.schema = schema, .schema_bytes = strlen(schema), .strict = strict};
    *error = (mq_error){0};
    return mq_constraint_new(vocabulary, &options, c, dropped, error);
}

static inline void check_notes(const answer_case *k)
{
    mq_constraint *c = NULL;
    char *dropped = NULL;
    mq_error error;
    if (make_schema(k->schema, false, &c, &dropped, &error) != MQ_OK) fail_msg("%s: %s", k->schema, error.text);
    if (!k->noted != !dropped || (dropped && !strstr(dropped, k->noted)))
        fail_msg("%s: expected %s, got %s", k->schema, k->noted ? k->noted : "nothing", dropped ? dropped : "nothing");
    mq_free(dropped);
    mq_constraint_free(c);
    const mq_status status = make_schema(k->schema, true, &c, NULL, &error);
    if (status != (k->noted ? MQ_UNSUPPORTED : MQ_OK)) fail_msg("%s: strict: %s", k->schema, error.text);
    mq_constraint_free(c);
}

static inline void check_answers(const answer_case *cases, size_t count)
{
    for (size_t n = 0; n < count; n++) {
        const answer_case *k = &cases[n];
        check_notes(k);
        for (int i = 0; i < 12; i++) {
            const bool good = i < 6;
            const char *answer = good ? k->good[i] : k->bad[i - 6];
            if (!answer) continue;
            mq_constraint *c = schema_constraint(k->schema);
            const long refused = try_text(c, answer);
            if ((refused < 0) != good) fail_msg("%s for %s: refused at %ld", answer, k->schema, refused);
            mq_constraint_free(c);
        }
    }
}

#define CHECK(cases) check_answers(cases, sizeof(cases) / sizeof *(cases))

#endif
