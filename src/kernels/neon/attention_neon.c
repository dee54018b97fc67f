/* The attention slots of this level. */
#include "kernels/neon/attention_neon.h"
#include "kernels/table.h"

static size_t scratch_bytes_neon(uint32_t heads, uint32_t head_dim)
{
    const size_t prefill = mq__attention_prefill_scratch_neon(heads, head_dim);
    const size_t decode = mq__attention_decode_scratch_neon(heads, head_dim);
    return prefill > decode ? prefill : decode;
}

void mq__fill_neon_attention(mq_kernels *table)
{
    table->attention_prefill = mq__attention_prefill_neon;
    table->attention_prefill_int8 = mq__attention_prefill_neon; /* no integer dot product beats FP32 here */
    table->attention_decode_span = mq__attention_decode_span_neon;
    table->attention_decode_merge = mq__attention_decode_merge_neon;
    table->attention_scratch_bytes = scratch_bytes_neon;
}
