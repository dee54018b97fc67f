/* Whole numbers in files and frames: little-endian at any address. */
#ifndef MQ_BASE_LITTLE_ENDIAN_H
#define MQ_BASE_LITTLE_ENDIAN_H

#include <stdint.h>

static inline void mq__put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static inline void mq__put_u64(uint8_t *at, uint64_t value)
{
    mq__put_u32(at, (uint32_t)value);
    mq__put_u32(at + 4, (uint32_t)(value >> 32));
}

static inline uint32_t mq__get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t mq__get_u64(const uint8_t *at)
{
    return mq__get_u32(at) | (uint64_t)mq__get_u32(at + 4) << 32;
}

#endif
