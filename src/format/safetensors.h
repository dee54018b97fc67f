/* safetensors files: a checked view of a mapped file, and a streaming writer.
 *
 * Refused: a header over 32 MiB, duplicate keys, unknown dtypes, sizes that do not follow from shape and dtype, ranges
 * that overlap, leave holes or end elsewhere than the file. What passed can be read without further checks. A file that
 * another process truncates while it is mapped raises SIGBUS on access, as for every mapped file: checkpoints are taken
 * to be immutable while in use. */
#ifndef MQ_SAFETENSORS_H
#define MQ_SAFETENSORS_H

#include "base/file.h"

#define MQ_TENSOR_RANK_MAX 8

typedef enum mq_dtype {
    MQ_DTYPE_F4,
    MQ_DTYPE_F6_E2M3,
    MQ_DTYPE_F6_E3M2,
    MQ_DTYPE_BOOL,
    MQ_DTYPE_U8,
    MQ_DTYPE_I8,
    MQ_DTYPE_F8_E4M3,
    MQ_DTYPE_F8_E5M2,
    MQ_DTYPE_F8_E8M0,
    MQ_DTYPE_F8_E4M3FNUZ,
    MQ_DTYPE_F8_E5M2FNUZ,
    MQ_DTYPE_I16,
    MQ_DTYPE_U16,
    MQ_DTYPE_F16,
    MQ_DTYPE_BF16,
    MQ_DTYPE_I32,
    MQ_DTYPE_U32,
    MQ_DTYPE_F32,
    MQ_DTYPE_I64,
    MQ_DTYPE_U64,
    MQ_DTYPE_F64,
    MQ_DTYPE_C64,
    MQ_DTYPE_COUNT
} mq_dtype;

const char *mq__dtype_name(mq_dtype dtype); /* as in the file: "BF16" */
size_t mq__dtype_bytes(mq_dtype dtype);     /* of a value; of those shorter than a byte: 1 */
/* Bytes of a tensor. False: they overflow, or are not whole. */
bool mq__dtype_shape_bytes(mq_dtype dtype, int rank, const uint64_t *shape, uint64_t *bytes);

typedef struct mq_tensor {
    const char *name; /* owned by the file */
    mq_dtype dtype;
    int rank;
    uint64_t shape[MQ_TENSOR_RANK_MAX];
    const uint8_t *data; /* inside the map; aligned as the file has it */
    size_t bytes;
} mq_tensor;

typedef struct mq_safetensors {
    mq_map map;
    mq_tensor *tensors; /* sorted by name */
    size_t count, header_bytes;
    void *header; /* json_t that owns the names */
} mq_safetensors;

mq_status mq__safetensors_open(const char *path, mq_safetensors *file, mq_error *error);
void mq__safetensors_close(mq_safetensors *file);
const mq_tensor *mq__safetensors_find(const mq_safetensors *file, const char *name); /* NULL: not there */

/* ---- writing: declare all tensors, then put their bytes in the same order */

typedef struct mq_tensor_spec {
    const char *name; /* borrowed until begin returns */
    mq_dtype dtype;
    int rank;
    uint64_t shape[MQ_TENSOR_RANK_MAX];
} mq_tensor_spec;

typedef struct mq_safetensors_writer {
    mq_writer file;
    uint64_t declared; /* file size that the declaration amounts to */
} mq_safetensors_writer;

mq_status mq__safetensors_begin(const char *path, const mq_tensor_spec *specs, size_t count,
                                mq_safetensors_writer *writer, mq_error *error);
mq_status mq__safetensors_put(mq_safetensors_writer *writer, const void *bytes, size_t count, mq_error *error);
/* Fails (and leaves no file) when fewer or more bytes were put than declared. */
mq_status mq__safetensors_commit(mq_safetensors_writer *writer, mq_error *error);
void mq__safetensors_abort(mq_safetensors_writer *writer);

#endif
