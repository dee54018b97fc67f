/* The packed form of INT8 weights and activations, shared by the levels.
 *
 * A weight cell is 64 k x 32 features in MQ_INT8_CELL = 2304 bytes: 2048 bytes of values as the dot-product instructions
 * read them (4 consecutive k of 16 features a vector), then two words per feature:
 *
 *     value  = byte 128*(k/4) + 64*(feature/16) + 4*(feature%16) + k%4
 *     scale  = f32 at byte 2048 + 4*feature, at most 22 significant bits
 *     start  = i32 at byte 2176 + 4*feature: 0x4b400000 - 128*sum(w)
 *
 * `start` is where a sum of (a + 128) * w begins so that it ends as the bits of the float 12582912 + dot. */
#ifndef MQ_KERNELS_INT8_PACK_H
#define MQ_KERNELS_INT8_PACK_H

#include "kernels/kernels.h"

#include <string.h>

#define MQ_INT8_CELL_SCALES (MQ_INT8_GROUP * MQ_INT8_NR)
#define MQ_INT8_CELL_STARTS (MQ_INT8_CELL_SCALES + 4 * MQ_INT8_NR)
#define MQ_INT8_ROW_SCALES  (MQ_INT8_MR * MQ_INT8_GROUP) /* offset of the f32 scales in an activation cell */
#define MQ_INT8_OFFSET      128                          /* activations are stored as q + 128: unsigned */
#define MQ_INT8_MAGIC       0x4b400000                   /* bits of 1.5*2^23 */

/* Groups whose largest magnitude is below this are quantised as zeros: keeps the scales in the normal range. */
#define MQ_INT8_TINY 0x1p-100f

static inline int mq__int8_cell_value(const uint8_t *cell, unsigned k, unsigned feature)
{
    return (int8_t)cell[128 * (k / 4) + 64 * (feature / 16) + 4 * (feature % 16) + k % 4];
}

static inline float mq__int8_cell_scale(const uint8_t *cell, unsigned feature)
{
    float scale;
    memcpy(&scale, cell + MQ_INT8_CELL_SCALES + 4 * feature, sizeof scale);
    return scale;
}

/* Panel p of packed weights: `groups` cells, k ascending. */
static inline const uint8_t *mq__int8_panel(const mq_int8 *w, size_t p)
{
    return w->panels + p * w->groups * MQ_INT8_CELL;
}

/* Fills rows [row1, end of its row group) of quantised activations with zeros (128) of scale 0. */
void mq__int8_pad_rows(uint8_t *panels, size_t row1, size_t groups);

#endif
