#include "kernels/table.h"

#include <pthread.h>
#include <string.h>

static mq_kernels tables[MQ_ISA_COUNT];
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* W16A16 without BF16 instructions: the rows hold BF16 values, so the FP32 product is what is asked for; attention in FP32 is
 * closer to the exact one. */
static void bf16_from_dense(mq_kernels *t)
{
    t->bf16_pack_rows = t->dense_pack_rows;
    t->bf16_gemm = t->dense_gemm;
    t->attention_prefill_bf16 = t->attention_prefill;
}

static const struct {
    const char *name;
    size_t slot; /* its offset */
    bool exact;
} operations[MQ_OPERATIONS] = {
    [MQ_DENSE_THIN] = {"dense_thin", offsetof(mq_kernels, dense_thin), true},
    [MQ_DECODE_SPAN] = {"attention_decode_span", offsetof(mq_kernels, attention_decode_span), true},
    [MQ_NVFP4_GEMM] = {"nvfp4_gemm", offsetof(mq_kernels, nvfp4_gemm), true},
    [MQ_INT8_GEMM] = {"int8_gemm", offsetof(mq_kernels, int8_gemm), true},
    [MQ_INT8_ATTENTION] = {"attention_prefill_int8", offsetof(mq_kernels, attention_prefill_int8), false},
};

const char *mq__operation_name(mq_operation operation)
{
    return operations[operation].name;
}

bool mq__operation_exact(mq_operation operation)
{
    return operations[operation].exact;
}

void mq__variants_set(mq_kernels *table, mq_operation operation, const mq_variant *variants, size_t count)
{
    table->variants[operation].count = count;
    memcpy(table->variants[operation].one, variants, count * sizeof *variants);
    mq__variant_use(table, operation, 0);
}

void mq__variant_use(mq_kernels *table, mq_operation operation, size_t variant)
{
    mq_any_fn *const function = table->variants[operation].one[variant].function;
    memcpy((char *)table + operations[operation].slot, &function, sizeof function);
}

/* A finished level. Where it has put a function of its own into a slot, the variants of the levels below are none of its. */
static void keep_table(mq_kernels *t)
{
    for (int i = 0; i < MQ_OPERATIONS; i++) {
        mq_variants *v = &t->variants[i];
        if (v->count && memcmp((char *)t + operations[i].slot, &v->one[0].function, sizeof v->one[0].function) != 0)
            v->count = 0;
    }
    tables[t->isa] = *t;
}

/* The levels that this processor has, each on top of the one before. The others are not even filled in: their files may use
 * instructions that it lacks, for a row of stores too. */
#ifdef MQ_X86
static void fill_levels(mq_kernels t, mq_isa best)
{
    if (best < MQ_ISA_AVX2) return;
    t.isa = MQ_ISA_AVX2;
    mq__fill_avx2_elementwise(&t);
    mq__fill_avx2_nvfp4(&t);
    mq__fill_avx2_int8(&t);
    mq__fill_avx2_dense(&t);
    mq__fill_avx2_delta(&t);
    mq__fill_avx2_attention(&t);
    bf16_from_dense(&t);
    keep_table(&t);
    if (best < MQ_ISA_AVX512VNNI) return;
    t.isa = MQ_ISA_AVX512VNNI;
    mq__fill_avx512_elementwise(&t);
    mq__fill_avx512_nvfp4(&t);
    mq__fill_avx512_int8(&t);
    mq__fill_avx512_dense(&t);
    mq__fill_avx512_delta(&t);
    mq__fill_avx512_attention(&t);
    bf16_from_dense(&t);
    keep_table(&t);
    if (best < MQ_ISA_AVX512BF16) return;
    t.isa = MQ_ISA_AVX512BF16;
    mq__fill_avx512bf16(&t);
    keep_table(&t);
    if (best < MQ_ISA_AMX) return;
    t.isa = MQ_ISA_AMX;
    mq__fill_amx_bf16(&t);
    mq__fill_amx_int8(&t);
    mq__fill_amx_attention(&t);
    keep_table(&t);
}
#elif defined MQ_ARM
static void fill_levels(mq_kernels t, mq_isa best)
{
    if (best < MQ_ISA_NEON) return;
    t.isa = MQ_ISA_NEON;
    mq__fill_neon_elementwise(&t);
    mq__fill_neon_nvfp4(&t);
    mq__fill_neon_int8(&t);
    mq__fill_neon_dense(&t);
    mq__fill_neon_attention(&t);
    bf16_from_dense(&t);
    keep_table(&t);
    if (best < MQ_ISA_NEONDOT) return;
    t.isa = MQ_ISA_NEONDOT;
    mq__fill_neondot_nvfp4(&t);
    mq__fill_neondot_int8(&t);
    mq__fill_neondot_attention(&t);
    keep_table(&t);
    if (best < MQ_ISA_NEONI8MM) return;
    t.isa = MQ_ISA_NEONI8MM;
    mq__fill_neoni8mm_nvfp4(&t);
    mq__fill_neoni8mm_int8(&t);
    mq__fill_neoni8mm_bf16(&t);
    mq__fill_neoni8mm_attention(&t);
    keep_table(&t);
}
#else
static void fill_levels(mq_kernels t, mq_isa best)
{
    (void)t;
    (void)best;
}
#endif

static void fill_table(void)
{
    mq_kernels t = {.isa = MQ_ISA_REF};
    mq__fill_ref_elementwise(&t);
    mq__fill_ref_nvfp4(&t);
    mq__fill_ref_int8(&t);
    mq__fill_ref_dense(&t);
    mq__fill_ref_delta(&t);
    mq__fill_ref_attention(&t);
    bf16_from_dense(&t);
    keep_table(&t);
    fill_levels(t, mq__cpu_best_isa());
}

const mq_kernels *mq__kernels_get(mq_isa isa)
{
    pthread_once(&once, fill_table);
    return &tables[isa];
}

/* Slots by name and offset; all function pointers have one size and representation on the systems we build for. */
#define SLOT(name)                                                                                                     \
    {                                                                                                                  \
#name, offsetof(mq_kernels, name)                                                                              \
    }
static const struct {
    const char *name;
    size_t offset;
} slots[] = {
    SLOT(rmsnorm),
    SLOT(norm_rope),
    SLOT(swiglu),
    SLOT(geglu),
    SLOT(sigmoid_gate),
    SLOT(conv_silu),
    SLOT(f32_to_bf16),
    SLOT(dense_to_f32),
    SLOT(nvfp4_quantize),
    SLOT(nvfp4_gemm),
    SLOT(int8_quantize),
    SLOT(int8_gemm),
    SLOT(dense_pack_rows),
    SLOT(dense_gemm),
    SLOT(w4a16_gemm),
    SLOT(bf16_pack_rows),
    SLOT(bf16_gemm),
    SLOT(dense_thin),
    SLOT(w4a16_thin),
    SLOT(attention_prefill),
    SLOT(attention_prefill_bf16),
    SLOT(attention_prefill_int8),
    SLOT(attention_decode_span),
    SLOT(attention_decode_merge),
    SLOT(delta_rule),
    SLOT(burn_fma),
    SLOT(read_stream),
};

size_t mq__kernels_slots(void)
{
    return sizeof slots / sizeof slots[0];
}

const char *mq__kernels_slot_name(size_t slot)
{
    return slots[slot].name;
}

static mq_any_fn *slot_value(mq_isa isa, size_t slot)
{
    mq_any_fn *value;
    memcpy(&value, (const char *)mq__kernels_get(isa) + slots[slot].offset, sizeof value);
    return value;
}

mq_isa mq__kernels_slot_isa(mq_isa isa, size_t slot)
{
    mq_isa provider = isa;
    while (provider > MQ_ISA_REF && slot_value((mq_isa)(provider - 1), slot) == slot_value(isa, slot)) {
        provider = (mq_isa)(provider - 1);
    }
    return provider;
}
