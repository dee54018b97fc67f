#include "format/safetensors.h"

#include "base/buf.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define HEADER_MAX  ((uint64_t)32 << 20)
#define TENSORS_MAX 100000
#define VALUES_MAX  ((size_t)10 * TENSORS_MAX) /* an entry of rank 2 has eight */

static const struct {
    const char *name;
    unsigned bits;
} dtypes[MQ_DTYPE_COUNT] = {
    [MQ_DTYPE_F4] = {"F4", 4},
    [MQ_DTYPE_F6_E2M3] = {"F6_E2M3", 6},
    [MQ_DTYPE_F6_E3M2] = {"F6_E3M2", 6},
    [MQ_DTYPE_BOOL] = {"BOOL", 8},
    [MQ_DTYPE_U8] = {"U8", 8},
    [MQ_DTYPE_I8] = {"I8", 8},
    [MQ_DTYPE_F8_E4M3] = {"F8_E4M3", 8},
    [MQ_DTYPE_F8_E5M2] = {"F8_E5M2", 8},
    [MQ_DTYPE_F8_E8M0] = {"F8_E8M0", 8},
    [MQ_DTYPE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [MQ_DTYPE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [MQ_DTYPE_I16] = {"I16", 16},
    [MQ_DTYPE_U16] = {"U16", 16},
    [MQ_DTYPE_F16] = {"F16", 16},
    [MQ_DTYPE_BF16] = {"BF16", 16},
    [MQ_DTYPE_I32] = {"I32", 32},
    [MQ_DTYPE_U32] = {"U32", 32},
    [MQ_DTYPE_F32] = {"F32", 32},
    [MQ_DTYPE_I64] = {"I64", 64},
    [MQ_DTYPE_U64] = {"U64", 64},
    [MQ_DTYPE_F64] = {"F64", 64},
    [MQ_DTYPE_C64] = {"C64", 64},
};

const char *mq__dtype_name(mq_dtype dtype)
{
    return (unsigned)dtype < MQ_DTYPE_COUNT ? dtypes[dtype].name : "unknown";
}

size_t mq__dtype_bytes(mq_dtype dtype)
{
    return (dtypes[dtype].bits + 7) / 8;
}

bool mq__dtype_shape_bytes(mq_dtype dtype, int rank, const uint64_t *shape, uint64_t *bytes)
{
    uint64_t bits = dtypes[dtype].bits;
    for (int i = 0; i < rank; i++) {
        if (!mq__mul_u64(bits, shape[i], &bits)) return false;
    }
    *bytes = bits / 8;
    return bits % 8 == 0;
}

static bool read_u64(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
    *out = (uint64_t)json_integer_value(value);
    return true;
}

static bool find_dtype(const char *name, mq_dtype *dtype)
{
    for (int i = 0; name && i < MQ_DTYPE_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            *dtype = (mq_dtype)i;
            return true;
        }
    }
    return false;
}

/* One header entry: exactly dtype, shape and data_offsets, consistent with each other and with the file. */
static mq_status read_entry_safetensors(const char *name, const json_t *entry, const uint8_t *data, uint64_t data_bytes,
                                        mq_tensor *t, mq_error *error)
{
    const json_t *shape = json_object_get(entry, "shape"), *offsets = json_object_get(entry, "data_offsets");
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    uint64_t begin, end, bytes;
    *t = (mq_tensor){.name = name};
    if (json_object_size(entry) != 3 || !dtype || !json_is_array(shape) || json_array_size(offsets) != 2) {
        return mq__fail(error, MQ_FORMAT, "safetensors: tensor %s: expected dtype, shape and data_offsets, got others",
                        name);
    }
    if (!find_dtype(dtype, &t->dtype)) {
        return mq__fail(error, MQ_UNSUPPORTED, "safetensors: tensor %s: expected a known dtype, got %.32s", name,
                        dtype);
    }
    if (json_array_size(shape) > MQ_TENSOR_RANK_MAX) {
        return mq__fail(error, MQ_FORMAT, "safetensors: tensor %s: expected at most %d dimensions, got %zu", name,
                        MQ_TENSOR_RANK_MAX, json_array_size(shape));
    }
    t->rank = (int)json_array_size(shape);
    for (int i = 0; i < t->rank; i++) {
        if (!read_u64(json_array_get(shape, (size_t)i), &t->shape[i])) {
            return mq__fail(error, MQ_FORMAT, "safetensors: tensor %s: expected dimensions >= 0, got others", name);
        }
    }
    if (!read_u64(json_array_get(offsets, 0), &begin) || !read_u64(json_array_get(offsets, 1), &end) || begin > end ||
        end > data_bytes) {
        return mq__fail(error, MQ_FORMAT, "safetensors: tensor %s: expected data within %llu bytes, got other offsets",
                        name, (unsigned long long)data_bytes);
    }
    if (!mq__dtype_shape_bytes(t->dtype, t->rank, t->shape, &bytes) || bytes != end - begin) {
        return mq__fail(error, MQ_FORMAT,
                        "safetensors: tensor %s: expected as many bytes as shape and dtype say, got %llu", name,
                        (unsigned long long)(end - begin));
    }
    t->data = data + begin;
    t->bytes = (size_t)bytes;
    return MQ_OK;
}

static int by_place(const void *a, const void *b)
{
    const mq_tensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty ones first: they may share an offset */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const mq_tensor *)a)->name, ((const mq_tensor *)b)->name);
}

static mq_status read_tensors(mq_safetensors *file, json_t *header, uint64_t header_bytes, mq_error *error)
{
    const uint8_t *data = file->map.data + 8 + header_bytes;
    const uint64_t data_bytes = file->map.bytes - 8 - header_bytes;
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0) {
            const char *key;
            json_t *value;
            json_object_foreach(entry, key, value)
            {
                if (!json_is_string(value)) {
                    return mq__fail(error, MQ_FORMAT, "safetensors: metadata %s: expected a string, got other", key);
                }
            }
            if (json_is_object(entry)) continue;
            return mq__fail(error, MQ_FORMAT, "safetensors: metadata: expected an object, got something else");
        }
        const mq_status status =
            read_entry_safetensors(name, entry, data, data_bytes, &file->tensors[file->count], error);
        if (status != MQ_OK) return status;
        file->count++;
    }
    if (file->count) qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    const uint8_t *at = data;
    for (size_t i = 0; i < file->count; i++) {
        if (file->tensors[i].data != at) {
            return mq__fail(error, MQ_FORMAT, "safetensors: tensor %s: expected data without overlap or hole, got %s",
                            file->tensors[i].name, file->tensors[i].data < at ? "an overlap" : "a hole");
        }
        at += file->tensors[i].bytes;
    }
    if (at != data + data_bytes) {
        return mq__fail(error, MQ_FORMAT, "safetensors: data: expected %llu bytes, got %llu",
                        (unsigned long long)(at - data), (unsigned long long)data_bytes);
    }
    if (file->count) qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    return MQ_OK;
}

static mq_status read_header(mq_safetensors *file, mq_error *error)
{
    uint64_t n = 0;
    if (file->map.bytes < 8) {
        return mq__fail(error, MQ_FORMAT, "safetensors: header: expected at least 8 bytes, got %zu", file->map.bytes);
    }
    for (int i = 0; i < 8; i++) {
        n |= (uint64_t)file->map.data[i] << (8 * i);
    }
    if (n > HEADER_MAX || n > file->map.bytes - 8 || n < 2) {
        return mq__fail(error, MQ_FORMAT, "safetensors: header: expected 2 to %llu bytes within the file, got %llu",
                        (unsigned long long)HEADER_MAX, (unsigned long long)n);
    }
    if (file->map.data[8] != '{') {
        return mq__fail(error, MQ_FORMAT, "safetensors: header: expected '{' first, got byte %u", file->map.data[8]);
    }
    json_t *header;
    const mq_status status = mq__json_parse((const char *)file->map.data + 8, (size_t)n, VALUES_MAX, "safetensors",
                                            "header", &header, error);
    file->header = header;
    if (status != MQ_OK) return status;
    if (json_object_size(header) > TENSORS_MAX) {
        return mq__fail(error, MQ_LIMIT, "safetensors: header: expected at most %d tensors, got %zu", TENSORS_MAX,
                        json_object_size(header));
    }
    file->header_bytes = (size_t)n;
    file->tensors = mq__alloc_zero(json_object_size(header), sizeof *file->tensors);
    if (!file->tensors) return mq__fail(error, MQ_NO_MEMORY, "safetensors: header: expected memory, got none");
    return read_tensors(file, header, n, error);
}

mq_status mq__safetensors_open(const char *path, mq_safetensors *file, mq_error *error)
{
    *file = (mq_safetensors){0};
    mq_status status = mq__map_open(path, &file->map, error);
    if (status == MQ_OK) {
        status = read_header(file, error);
        if (status != MQ_OK) status = mq__fail_within(error, status, path);
    }
    if (status != MQ_OK) mq__safetensors_close(file);
    return status;
}

void mq__safetensors_close(mq_safetensors *file)
{
    json_decref(file->header);
    mq__free(file->tensors);
    mq__map_close(&file->map);
    *file = (mq_safetensors){0};
}

const mq_tensor *mq__safetensors_find(const mq_safetensors *file, const char *name)
{
    const mq_tensor key = {.name = name};
    return file->count ? bsearch(&key, file->tensors, file->count, sizeof key, by_name) : NULL;
}

/* ---- writing */

static mq_status write_header(const mq_tensor_spec *specs, size_t count, mq_buf *text, uint64_t *data_bytes,
                              mq_error *error)
{
    const unsigned long before = mq__json_failures();
    json_t *header = json_pack("{s{ss}}", "__metadata__", "format", "pt");
    uint64_t at = 0;
    for (size_t i = 0; header && i < count; i++) {
        uint64_t bytes, end;
        if (!mq__dtype_shape_bytes(specs[i].dtype, specs[i].rank, specs[i].shape, &bytes) ||
            !mq__add_u64(at, bytes, &end)) {
            json_decref(header);
            return mq__fail(error, MQ_LIMIT, "safetensors: tensor %s: expected a size below 2^64, got more",
                            specs[i].name);
        }
        json_t *shape = json_array();
        for (int d = 0; d < specs[i].rank; d++) {
            json_array_append_new(shape, json_integer((json_int_t)specs[i].shape[d]));
        }
        json_object_set_new(header, specs[i].name,
                            json_pack("{ss so s[II]}", "dtype", dtypes[specs[i].dtype].name, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    const bool complete = mq__json_failures() == before && json_object_size(header) == count + 1 &&
                          mq__json_print(header, JSON_COMPACT, text);
    while (complete && text->len % 8 != 0) {
        if (!mq__buf_putc(text, ' ')) break;
    }
    json_decref(header);
    *data_bytes = at;
    if (complete && !text->failed) return MQ_OK;
    return mq__fail(error, MQ_NO_MEMORY, "safetensors: header: expected memory and distinct names, got neither");
}

mq_status mq__safetensors_begin(const char *path, const mq_tensor_spec *specs, size_t count,
                                mq_safetensors_writer *writer, mq_error *error)
{
    mq_buf text = {0};
    uint64_t data_bytes = 0;
    *writer = (mq_safetensors_writer){0};
    mq_status status = write_header(specs, count, &text, &data_bytes, error);
    if (status == MQ_OK) status = mq__writer_open(&writer->file, path, error);
    if (status == MQ_OK) {
        uint8_t length[8];
        for (int i = 0; i < 8; i++) {
            length[i] = (uint8_t)((uint64_t)text.len >> (8 * i));
        }
        writer->declared = 8 + text.len + data_bytes;
        status = mq__writer_put(&writer->file, length, sizeof length, error);
        if (status == MQ_OK) status = mq__writer_put(&writer->file, text.data, text.len, error);
        if (status != MQ_OK) mq__safetensors_abort(writer);
    }
    mq__buf_free(&text);
    return status;
}

mq_status mq__safetensors_put(mq_safetensors_writer *writer, const void *bytes, size_t count, mq_error *error)
{
    return mq__writer_put(&writer->file, bytes, count, error);
}

mq_status mq__safetensors_commit(mq_safetensors_writer *writer, mq_error *error)
{
    if (writer->file.bytes != writer->declared) {
        const mq_status status =
            mq__fail(error, MQ_USAGE, "safetensors: %s: expected %llu bytes as declared, got %llu", writer->file.path,
                     (unsigned long long)writer->declared, (unsigned long long)writer->file.bytes);
        mq__safetensors_abort(writer);
        return status;
    }
    return mq__writer_commit(&writer->file, error);
}

void mq__safetensors_abort(mq_safetensors_writer *writer)
{
    mq__writer_abort(&writer->file);
}
