/* Rows of a dense matrix as FP32. Internal to src/engine. */
#ifndef MQ_DENSE_ROWS_H
#define MQ_DENSE_ROWS_H

#include "kernels/kernels.h"

/* Rows [first, first + count) into out [count, k_width], each column multiplied by its factor [k_width] (NULL: none). */
void mq__dense_rows(const mq_dense *dense, size_t first, size_t count, const float *factor, float *out);

#endif
