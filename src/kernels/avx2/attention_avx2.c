/* The attention slots of this level. */
#include "kernels/avx2/attention_avx2.h"
#include "kernels/table.h"

static size_t scratch_bytes_attention_avx2(uint32_t heads, uint32_t head_dim)
{
    const size_t prefill = mq__attention_prefill_scratch_avx2(heads, head_dim);
    const size_t decode = mq__attention_decode_scratch_avx2(heads, head_dim);
    const size_t int8 = mq__attention_int8_scratch_avx2(heads, head_dim), most = prefill > decode ? prefill : decode;
    return most > int8 ? most : int8;
}

void mq__fill_avx2_attention(mq_kernels *table)
{
    table->attention_prefill = mq__attention_prefill_avx2;
    table->attention_prefill_int8 = mq__attention_int8_avx2;
    table->attention_int8_most = MQ_INT8_MOST_AVX2;
    table->attention_decode_span = mq__attention_decode_span_avx2;
    table->attention_decode_merge = mq__attention_decode_merge_avx2;
    table->attention_scratch_bytes = scratch_bytes_attention_avx2;
}
