/* Masks that allow everything and remember what they were asked for. Defined here, they take the place of the library's. */
#ifndef MQ_SERVER_MASKS_H
#define MQ_SERVER_MASKS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/mem.h"
#include "mixquant_serve.h"

struct mq_constraint {
    char schema[2000], tools[4000];
};

static struct {
    unsigned made, freed;
    char schema[2000], tools[4000], after[32];
    mq_constraint_options options; /* of the latest */
    mq_status refuse;              /* what the next ones are refused with */
    unsigned refusals;             /* so many of them */
    const char *wrong;             /* tools that have this are refused, too */
    char used[4000];               /* tools of the latest that an answer was held to */
    const char *dropped;
} masks;

mq_status mq_vocabulary_new(const mq_text *text, uint32_t vocab, const int32_t *eos, size_t eos_count,
                            mq_vocabulary **vocabulary, mq_error *error)
{
    (void)text;
    (void)vocab;
    (void)eos;
    (void)eos_count;
    (void)error;
    *vocabulary = (mq_vocabulary *)&masks;
    return MQ_OK;
}

void mq_vocabulary_free(mq_vocabulary *vocabulary)
{
    (void)vocabulary;
}

mq_status mq_constraint_new(const mq_vocabulary *vocabulary, const mq_constraint_options *options,
                            mq_constraint **constraint, char **dropped, mq_error *error)
{
    (void)vocabulary;
    *constraint = NULL;
    masks.options = *options;
    snprintf(masks.schema, sizeof masks.schema, "%.*s", (int)options->schema_bytes,
             options->schema ? options->schema : "");
    snprintf(masks.tools, sizeof masks.tools, "%.*s", (int)options->tools_bytes, options->tools ? options->tools : "");
    snprintf(masks.after, sizeof masks.after, "%s", options->after ? options->after : "");
    if (masks.refusals) {
        masks.refusals--;
        return mq__fail(error, masks.refuse, "schema: expected less");
    }
    if (masks.wrong && strstr(masks.tools, masks.wrong)) return mq__fail(error, MQ_UNSUPPORTED, "schema: wrong");
    if (masks.dropped && dropped) *dropped = mq__strdup(masks.dropped);
    *constraint = mq__alloc_zero(1, sizeof **constraint);
    if (!*constraint) return mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none");
    memcpy((*constraint)->schema, masks.schema, sizeof masks.schema);
    memcpy((*constraint)->tools, masks.tools, sizeof masks.tools);
    masks.made++;
    return MQ_OK;
}

void mq_constraint_free(mq_constraint *constraint)
{
    if (constraint) masks.freed++;
    mq__free(constraint);
}

const uint32_t *mq_constraint_mask(mq_constraint *constraint)
{
    memcpy(masks.schema, constraint->schema, sizeof masks.schema);
    memcpy(masks.used, constraint->tools, sizeof masks.used);
    return NULL;
}

mq_status mq_constraint_accept(mq_constraint *constraint, int32_t token, mq_error *error)
{
    (void)constraint;
    (void)token;
    (void)error;
    return MQ_OK;
}

#endif
