/* Rotary frequencies after scaling: default, linear, llama3 (wavelength bands), YaRN (ramp between two dimensions)
 * and proportional (frequencies of the whole width, of which the first part turns). */
#include "format/model_config.h"

#include <math.h>

static double llama3(const mq_rope_config *r, double theta)
{
    const double wavelength = 2 * M_PI / theta, original = r->original_positions;
    if (wavelength < original / r->high_freq_factor) return theta;
    if (wavelength > original / r->low_freq_factor) return theta / r->factor;
    const double smooth = (original / wavelength - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
    return (1 - smooth) * theta / r->factor + smooth * theta;
}

/* The dimension whose frequency turns `rotations` times within the original context. */
static double yarn_dimension(const mq_rope_config *r, double rotations, double width)
{
    return width * log(r->original_positions / (rotations * 2 * M_PI)) / (2 * log(r->theta));
}

static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static double yarn_attention_factor(const mq_rope_config *r)
{
    if (r->attention_factor > 0) return r->attention_factor;
    if (r->mscale > 0 && r->mscale_all_dim > 0) {
        return yarn_scale(r->factor, r->mscale) / yarn_scale(r->factor, r->mscale_all_dim);
    }
    return yarn_scale(r->factor, 1);
}

void mq__rope_frequencies(const mq_rope_config *r, uint32_t rotary_dim, float *inv_freq, float *factor)
{
    const double width = rotary_dim;
    const uint32_t turned = (uint32_t)(r->partial * width / 2); /* proportional: the first so many */
    double low = 0, high = 0;
    if (r->type == MQ_ROPE_YARN) {
        low = yarn_dimension(r, r->beta_fast, width);
        high = yarn_dimension(r, r->beta_slow, width);
        if (r->truncate) {
            low = floor(low);
            high = ceil(high);
        }
        low = fmax(low, 0);
        high = fmin(high, width - 1);
        if (low == high) high += 0.001;
    }
    for (uint32_t i = 0; i < rotary_dim / 2; i++) {
        const double theta = pow(r->theta, -2.0 * i / width);
        double scaled = theta;
        if (r->type == MQ_ROPE_LINEAR) scaled = theta / r->factor;
        if (r->type == MQ_ROPE_PROPORTIONAL) scaled = i < turned ? theta / r->factor : 0;
        if (r->type == MQ_ROPE_LLAMA3) scaled = llama3(r, theta);
        if (r->type == MQ_ROPE_YARN) {
            const double ramp = fmin(fmax((i - low) / (high - low), 0), 1);
            scaled = theta / r->factor * ramp + theta * (1 - ramp);
        }
        inv_freq[i] = (float)scaled;
    }
    *factor = r->type == MQ_ROPE_YARN ? (float)yarn_attention_factor(r) : 1.0f;
}
