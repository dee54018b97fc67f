/* What the AVX2 and the AVX-VNNI INT8 GEMM share. */
#ifndef MQ_KERNELS_INT8_AVX2_H
#define MQ_KERNELS_INT8_AVX2_H

#include "kernels/int8_driver.h"

/* The complete sums of one row [32] go to y through the epilogue. */
void mq__int8_finish_avx2(const int8_slice *s, float *y, const float *sum);

/* The slot int8_gemm and what it needs of scratch memory. */
void mq__int8_gemm_avx2(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                        const mq_epilogue *out, void *scratch);
size_t mq__int8_scratch_bytes_avx2(void);

#ifdef MQ_VNNI_EVEX /* for the tests */
#define mq__int8_gemm_avxvnni mq__int8_gemm_vnni256
#endif
/* The slot int8_gemm for processors with AVX-VNNI. */
void mq__int8_gemm_avxvnni(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch);

#endif
