/* What the inputs of the linear layers look like on calibration texts. It owns an engine of its own that runs the texts in BF16
 * and watches them; memory stays bounded, because second moments are held for a few layers at a time and made anew by
 * further passes over the texts. Internal to src/engine. */
#ifndef MQ_CALIB_H
#define MQ_CALIB_H

#include "engine/engine.h"
#include "mixquant_tools.h"

typedef struct mq_calib mq_calib;

/* Opens the model and takes the largest magnitudes in a first pass over the texts, which are borrowed. Refuses activations
 * that are not finite. */
mq_status mq__calib_open(const char *model_dir, const mq_token_span *texts, size_t count, int threads, mq_calib **calib,
                         mq_error *error);
void mq__calib_close(mq_calib *calib);

/* Width of a group's input in a layer. */
uint32_t mq__calib_width(const mq_calib *calib, uint32_t layer, mq_linear_group group);

/* The largest magnitude of each input channel of a group: [width]. */
const float *mq__calib_amax(const mq_calib *calib, uint32_t layer, mq_linear_group group);

/* Of a layer without experts: the second moments X^T X [width, width] of a group's input, as FP32, valid until the next call. Passes over the texts again
 * unless the layer is among those held. */
mq_status mq__calib_moments(mq_calib *calib, uint32_t layer, mq_linear_group group, const float **moments,
                            mq_error *error);

#endif
