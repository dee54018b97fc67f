/* Prefill attention on AVX-512: the tiles of kernels/attention_tiles.h.
 *
 * Both products use a 14x32 micro-kernel: zmm registers 28 sums, 2 panel vectors, 1 broadcast; per k step 28 FMA in 14
 * cycles beside 16 loads (of 28 possible) and 46 of 56 issue slots. The slots are why a busy hyper-thread neighbour hurts
 * this kernel (to 0.5 of the peak) more than a bare FMA loop.
 *
 * Throughput at width 128: per 14x16 block of scores 256*14 FMA for the two products and about 17*14 vector instructions
 * of softmax, so 0.94 of the peak at most; then the loads, rescaling and stores of 14x32 sums per 256 keys, the widening of
 * keys and values (4% with 448 query rows) and the corner of the diagonal tiles.
 * Measured, 2-core Cascade Lake class, 2.5 GHz, undisturbed runs: 0.77-0.82 of the FMA peak for 224 tokens x 2 heads of
 * width 128 ending at 2k, 0.80-0.84 at 8k and 32k, 0.74-0.76 for width 64 (checkasm --bench attention_prefill). */
#include "kernels/avx512/attention_tiles_avx512.h"

void mq__attention_prefill_avx512(const mq_attention *a)
{
    prefill_attention_tiles(a);
}

size_t mq__attention_prefill_scratch_avx512(uint32_t heads, uint32_t head_dim)
{
    return prefill_scratch_bytes(heads, head_dim);
}
