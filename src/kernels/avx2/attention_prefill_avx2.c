/* Prefill attention on AVX2: the tiles of kernels/attention_tiles.h.
 *
 * Both products use a 6x16 micro-kernel: ymm registers 12 sums, 2 panel vectors, 1 broadcast; per k step 12 FMA in 6 cycles
 * beside 8 loads (of 12 possible) and 20 of 24 issue slots.
 * Measured, 2-core Cascade Lake class, 2.5 GHz, undisturbed runs: 0.80-0.82 of the AVX2 FMA peak for 224 tokens x 2 heads
 * of width 128 ending at 2k, 0.83 for 112 x 4 at 8k, 0.76 for width 64 (checkasm --bench attention_prefill). */
enum { TILE = 128 };

#include "kernels/avx2/attention_tiles_avx2.h"

void mq__attention_prefill_avx2(const mq_attention *a)
{
    prefill_attention_tiles(a);
}

size_t mq__attention_prefill_scratch_avx2(uint32_t heads, uint32_t head_dim)
{
    return prefill_scratch_bytes(heads, head_dim);
}
