/* Prefill attention on NEON: the tiles of kernels/attention_tiles.h. Speeds not measured; instructions: docs/perf/arm.md. */
#include "kernels/neon/attention_tiles_neon.h"

void mq__attention_prefill_neon(const mq_attention *a)
{
    prefill_attention_tiles(a);
}

size_t mq__attention_prefill_scratch_neon(uint32_t heads, uint32_t head_dim)
{
    return prefill_scratch_bytes(heads, head_dim);
}
