/* What the files of the NEON levels share about INT8. */
#ifndef MQ_KERNELS_INT8_NEON_H
#define MQ_KERNELS_INT8_NEON_H

#include "kernels/int8_pack.h"
#include "kernels/neon/vector_neon.h"

/* The slot int8_gemm of the NEONDOT level, which the next one uses for few rows. */
void mq__int8_gemm_neondot(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                           const mq_epilogue *out, void *scratch);

#endif
