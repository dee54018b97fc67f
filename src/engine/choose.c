/* --prefill auto: which format is the fastest that fits. Speeds relative to the FP32 FMA peak are those of docs/PERF.md. */
#include "base/error.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "format/checkpoint_locate.h"
#include "mixquant_tools.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the INT8 copy: 9 bits a weight of the linear layers. */
static uint64_t int8_bytes(const mq_model_config *c)
{
    const uint64_t q = (uint64_t)c->heads * c->head_dim, kv = (uint64_t)c->kv_heads * c->head_dim;
    const uint64_t layer = (uint64_t)c->width * (2 * q + 2 * kv + 3 * (uint64_t)c->ffn);
    return c->layers * layer / 8 * 9;
}

mq_status mq_choose_prefill(const char *model_dir, mq_linear_format *format, char *why, size_t size, mq_error *error)
{
    mq_isa isa;
    mq_model_config config;
    mq_status status = mq__cpu_choose_isa(&isa, error);
    char *dir = NULL;
    if (status == MQ_OK) status = mq__checkpoint_locate(model_dir, false, &dir, error);
    if (status == MQ_OK) status = mq__model_config_read(dir, &config, error);
    mq__free(dir);
    if (status != MQ_OK) return status;
    const double need = (double)int8_bytes(&config) * 0x1p-30, memory = (double)mq__memory_available() * 0x1p-30;
    if (isa == MQ_ISA_REF) {
        *format = MQ_LINEAR_BF16;
        snprintf(why, size, "bf16: no vector instructions that integer formats gain from");
    } else if (!mq__cpu_dot_products(isa)) {
        *format = MQ_LINEAR_NVFP4;
        snprintf(why, size, "nvfp4: %s has no 8-bit dot products, NVFP4 is the fastest format", mq__isa_name(isa));
    } else if (config.quant_method != MQ_QUANT_NONE) {
        *format = MQ_LINEAR_NVFP4;
        snprintf(why, size, "nvfp4: the checkpoint is quantised already");
    } else if (need > memory / 2) {
        *format = MQ_LINEAR_NVFP4;
        snprintf(why, size, "nvfp4: an INT8 copy of %.1f GiB is more than half of the %.1f GiB that are free", need,
                 memory);
    } else {
        *format = MQ_LINEAR_INT8;
        snprintf(why, size, "int8: %s multiplies bytes the fastest, and a copy of %.1f GiB fits in %.1f GiB",
                 mq__isa_name(isa), need, memory);
    }
    return MQ_OK;
}
