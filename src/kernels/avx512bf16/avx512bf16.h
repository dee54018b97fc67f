/* Kernels of the AVX512_BF16 level that the AMX level falls back to where its tiles do not fit. */
#ifndef MQ_KERNELS_AVX512BF16_H
#define MQ_KERNELS_AVX512BF16_H

#include "kernels/kernels.h"

void mq__bf16_pack_rows_avx512bf16(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                                   float *panels);
void mq__bf16_gemm_avx512bf16(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch);

#endif
