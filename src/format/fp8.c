#include "format/fp8.h"

#include "base/halffloat.h"

#include <math.h>
#include <string.h>

#define MQ_FP8_MAX 448.0f /* E4M3's largest value */

void mq__fp8_round(float *y, const float *x, size_t width)
{
    float amax = 0;
    bool finite = true;
    for (size_t i = 0; i < width; i++) {
        amax = fmaxf(amax, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    const float scale = amax / MQ_FP8_MAX;
    const bool scaled = finite && scale > 0; /* 0: all values are 0, or too small for a scale */
    for (size_t i = 0; i < width; i++) {
        const float value = x[i]; /* y may be x */
        y[i] = scaled ? mq__e4m3_decode(mq__e4m3_encode(value / scale)) * scale : finite ? 0 : value;
    }
}

void mq__fp8_round_weights(float *y, const void *row, mq_weight_type type, size_t width)
{
    const uint16_t *half = row;
    for (size_t i = 0; i < width; i++) {
        if (type == MQ_WEIGHT_F32)
            memcpy(&y[i], (const uint8_t *)row + 4 * i, sizeof *y);
        else
            y[i] = type == MQ_WEIGHT_F16 ? mq__f16_to_f32(half[i]) : mq__bf16_to_f32(half[i]);
    }
    mq__fp8_round(y, y, width);
}
