/* Rows of activations as the kernels of a format read them, and products of them with weights. Internal to src/model. */
#ifndef MQ_PRODUCT_H
#define MQ_PRODUCT_H

#include "model/model.h"

/* Tall BF16 and W4A16 products read FP32 panels, thin ones plain rows. */
typedef enum mq_row_layout {
    MQ_ROWS_PLAIN,
    MQ_ROWS_DENSE, /* panels of FP32 */
    MQ_ROWS_BF16,  /* panels of BF16 values */
    MQ_ROWS_NVFP4, /* quantised, in panels */
    MQ_ROWS_INT8
} mq_row_layout;

#define MQ_PANEL     MQ_NVFP4_NR /* output features per unit of work, for all formats */
#define MQ_ROW_GRAIN MQ_DENSE_MR /* rows are cut at multiples of it: where row groups of all layouts begin */
_Static_assert(MQ_ROW_GRAIN % MQ_NVFP4_MR == 0 && MQ_ROW_GRAIN % MQ_INT8_MR == 0, "row groups begin there");

typedef struct mq_packed_rows {
    mq_linear_format format;
    mq_row_layout layout;
    size_t width;
    const float *plain; /* [rows, width] */
    float *panels;      /* of FP32 or BF16 */
    mq_nvfp4_rows nvfp4;
    mq_int8_rows int8;
} mq_packed_rows;

mq_row_layout mq__row_layout(mq_linear_format format, mq_phase phase);

/* Rows that are packed together: a thread packs whole groups. */
size_t mq__row_group(mq_row_layout layout);

/* Whether a format's activations are rounded values stored as FP32 (W16A16, FP8), and rounds x [rows, width]. */
bool mq__rounds_rows(mq_linear_format format);
void mq__round_rows(const mq_kernels *kernels, mq_linear_format format, float *x, size_t rows, size_t width);

/* Packs x [rows, width] as the rows from `at` on, where a group begins. Nothing for plain rows. */
void mq__pack_rows(const mq_kernels *kernels, const mq_packed_rows *to, size_t at, const float *x, size_t rows);

/* Panels [p0, p1) of y = w x (+ bias) (+ y) for rows [row0, row1); out->y is row row0's. row0: a multiple of MQ_ROW_GRAIN, of
 * plain rows any. scratch: gemm_scratch_bytes of the thread. A row's result does not depend on the others. */
void mq__multiply(const mq_kernels *kernels, const mq_packed_rows *x, size_t row0, size_t row1, const mq_linear *w,
                  size_t p0, size_t p1, const mq_epilogue *out, void *scratch);

static inline size_t mq__panels_of(const mq_linear *linear)
{
    return (linear->n + MQ_PANEL - 1) / MQ_PANEL;
}

#endif
