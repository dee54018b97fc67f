/* Slots of the NEON level that the levels above use in corners of their own: dense_pack_rows, dense_gemm. */
#ifndef MQ_KERNELS_DENSE_NEON_H
#define MQ_KERNELS_DENSE_NEON_H

#include "kernels/kernels.h"

void mq__dense_pack_rows_neon(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                              float *panels);
void mq__dense_gemm_neon(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                         const mq_epilogue *out, void *scratch);

#endif
