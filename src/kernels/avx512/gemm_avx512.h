/* Products of the AVX-512 level that others fall back to. */
#ifndef MQ_KERNELS_GEMM_AVX512_H
#define MQ_KERNELS_GEMM_AVX512_H

#include "kernels/kernels.h"

void mq__int8_gemm_avx512(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                          const mq_epilogue *out, void *scratch);

#endif
