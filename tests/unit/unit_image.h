/* KV images out of a sequence and into one. */
#ifndef MQ_UNIT_IMAGE_H
#define MQ_UNIT_IMAGE_H

#include "unit_files.h"

#include "base/buf.h"

static inline bool into_buffer(void *context, const void *bytes, size_t count)
{
    return mq__buf_append(context, bytes, count);
}

typedef struct source {
    const char *data;
    size_t left;
} source;

static inline bool from_source(void *context, void *bytes, size_t count)
{
    source *s = context;
    if (count > s->left) return false;
    memcpy(bytes, s->data, count);
    s->data += count;
    s->left -= count;
    return true;
}

static inline mq_buf export_range(mq_sequence *sequence, uint32_t first, uint32_t count)
{
    mq_buf image = {0};
    mq_error error = {0};
    if (mq_sequence_export(sequence, first, count, into_buffer, &image, &error) != MQ_OK) fail_msg("%s", error.text);
    return image;
}

static inline mq_status import_bytes(mq_sequence *sequence, const char *data, size_t bytes, mq_error *error)
{
    source s = {data, bytes};
    const mq_status status = mq_sequence_import(sequence, from_source, &s, error);
    if (status == MQ_OK) assert_int_equal(s.left, 0);
    return status;
}

static inline void must_import(mq_sequence *sequence, mq_buf *image)
{
    mq_error error = {0};
    if (import_bytes(sequence, image->data, image->len, &error) != MQ_OK) fail_msg("%s", error.text);
    mq__buf_free(image);
}

#endif
