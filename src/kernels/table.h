/* How a level fills its part of the table: each file of kernels overrides the slots that it has. */
#ifndef MQ_KERNELS_TABLE_H
#define MQ_KERNELS_TABLE_H

#include "kernels/kernels.h"

/* A level's variants of an operation, the one to use unmeasured first. */
#define MQ_VARIANT(name, function)                                                                                     \
    {                                                                                                                  \
        name, (mq_any_fn *)(function)                                                                                  \
    }
void mq__variants_set(mq_kernels *table, mq_operation operation, const mq_variant *variants, size_t count);

/* ref: together these fill every slot. */
void mq__fill_ref_elementwise(mq_kernels *table);
void mq__fill_ref_nvfp4(mq_kernels *table);
void mq__fill_ref_int8(mq_kernels *table);
void mq__fill_ref_dense(mq_kernels *table);
void mq__fill_ref_delta(mq_kernels *table);
void mq__fill_ref_attention(mq_kernels *table);
void mq__attention_int8_ref(const mq_attention *a); /* a part of it */
size_t mq__attention_int8_scratch_ref(void);
/* The definition of attention_prefill_int8 with codes of keys and values up to `most`. */
void mq__attention_int8_define(const mq_attention *a, int most);

#ifdef MQ_X86
void mq__fill_avx2_elementwise(mq_kernels *table);
void mq__fill_avx2_nvfp4(mq_kernels *table);
void mq__fill_avx2_int8(mq_kernels *table);
void mq__fill_avx2_dense(mq_kernels *table);
void mq__fill_avx2_delta(mq_kernels *table);
void mq__fill_avx2_attention(mq_kernels *table);

void mq__fill_avx512_elementwise(mq_kernels *table);
void mq__fill_avx512_nvfp4(mq_kernels *table);
void mq__fill_avx512_int8(mq_kernels *table);
void mq__fill_avx512_dense(mq_kernels *table);
void mq__fill_avx512_delta(mq_kernels *table);
void mq__fill_avx512_attention(mq_kernels *table);

void mq__fill_avx512bf16(mq_kernels *table);

void mq__fill_amx_bf16(mq_kernels *table);
void mq__fill_amx_int8(mq_kernels *table);
void mq__fill_amx_attention(mq_kernels *table);
#endif

#ifdef MQ_ARM
void mq__fill_neon_elementwise(mq_kernels *table);
void mq__fill_neon_nvfp4(mq_kernels *table);
void mq__fill_neon_int8(mq_kernels *table);
void mq__fill_neon_dense(mq_kernels *table);
void mq__fill_neon_attention(mq_kernels *table);

void mq__fill_neondot_nvfp4(mq_kernels *table);
void mq__fill_neondot_int8(mq_kernels *table);
void mq__fill_neondot_attention(mq_kernels *table);

void mq__fill_neoni8mm_nvfp4(mq_kernels *table);
void mq__fill_neoni8mm_int8(mq_kernels *table);
void mq__fill_neoni8mm_bf16(mq_kernels *table);
void mq__fill_neoni8mm_attention(mq_kernels *table);
#endif

#endif
