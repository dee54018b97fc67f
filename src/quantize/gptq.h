/* GPTQ for NVFP4 (arXiv 2210.17323): the columns of a weight matrix are rounded one after the other, and each takes up the
 * errors of those before it, so that X W^T changes least for inputs with given second moments. Internal to src/engine.
 *
 * In the form of QuIP's LDLQ (arXiv 2307.13304, theorem 6: the same rounding): with H = U D U^T, U unit upper triangular,
 *
 *     q_k = round(w_k + sum over j < k of (w_j - q_j) U_jk)
 *
 * which needs one triangular factor of H and neither its inverse nor an update of all later weights by a dense row. What GPTQ
 * holds in place of the weights not yet rounded is the same recursion without rounding. */
#ifndef MQ_GPTQ_H
#define MQ_GPTQ_H

#include "base/pool.h"
#include "format/nvfp4.h"
#include "mixquant_tools.h"

/* Weights that are rounded together, so that a row of the factor is read once for all. */
#define MQ_GPTQ_ROWS 16

/* H -> U. moments [k, k] is X^T X, its input channels divided by factor [k] (NULL: none), to which damping times the mean of
 * its diagonal is added. *factor_u [k, k] is owned by the caller: mq__free_aligned. Only its part above the diagonal is
 * meant. */
mq_status mq__gptq_factor(const float *moments, const float *factor, uint32_t k, double damping, mq_pool *pool,
                          float **factor_u, mq_error *error);

/* Bytes of `scratch` for the call below. */
size_t mq__gptq_scratch_bytes(uint32_t k);

/* Quantises up to MQ_GPTQ_ROWS rows of weights [rows, k], k a multiple of 16. A block's scale is chosen by the rule from what
 * GPTQ has made of the block when its first column is due. nibbles [rows, k/2], scales [rows, k/16]. */
void mq__gptq_quantize_rows(const float *u, mq_nvfp4_rule rule, mq_nvfp4_scale scale, const float *weights,
                            uint32_t rows, uint32_t k, uint8_t *nibbles, uint8_t *scales, void *scratch);

#endif
