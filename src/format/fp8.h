/* FP8 as W8A8 baselines have it: E4M3 values that share the scale of their row (an output feature of the weights, a token of the
 * activations), amax / 448. Here the values are multiplied out again, in FP32: quality is compared, not speed. */
#ifndef MQ_FP8_H
#define MQ_FP8_H

#include "format/nvfp4.h"

#include <stddef.h>

/* Rounds a row to what FP8 keeps of it; y may be x. A row with an infinity or a NaN stays as it is: whoever reads the logits
 * finds it. */
void mq__fp8_round(float *y, const float *x, size_t width);

/* The same of a row of weights [width] in their own type. */
void mq__fp8_round_weights(float *y, const void *row, mq_weight_type type, size_t width);

#endif
