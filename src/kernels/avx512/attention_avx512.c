/* The attention slots of this level. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/table.h"

static size_t scratch_bytes(uint32_t heads, uint32_t head_width)
{
    return mq__attention_prefill_scratch_avx512(heads, head_width);
}

void mq__fill_avx512_attention(mq_kernels *table)
{
    table->attention_prefill = mq__attention_prefill_avx512;
    table->attention_scratch_bytes = scratch_bytes;
}
