/* The attention slots of this level. */
#include "kernels/avx512/attention_avx512.h"
#include "kernels/table.h"

static size_t scratch_bytes_attention_avx512(uint32_t heads, uint32_t head_dim)
{
    const size_t prefill = mq__attention_prefill_scratch_avx512(heads, head_dim);
    const size_t decode = mq__attention_decode_scratch_avx512(heads, head_dim);
    const size_t int8 = mq__attention_int8_scratch_avx512(heads, head_dim), most = prefill > decode ? prefill : decode;
    return most > int8 ? most : int8;
}

/* Each line of memory is sent for twice, the second time shortly before it is read: into L1, or into L2 once more. */
static const mq_variant decode_span[] = {MQ_VARIANT("to_l1", mq__attention_decode_span_l1_avx512),
                                         MQ_VARIANT("to_l2", mq__attention_decode_span_l2_avx512)};

void mq__fill_avx512_attention(mq_kernels *table)
{
    table->attention_prefill = mq__attention_prefill_avx512;
    table->attention_prefill_int8 = mq__attention_int8_avx512;
    table->attention_int8_most = 127;
    mq__variants_set(table, MQ_DECODE_SPAN, decode_span, 2);
    table->attention_decode_merge = mq__attention_decode_merge_avx512;
    table->attention_scratch_bytes = scratch_bytes_attention_avx512;
}
