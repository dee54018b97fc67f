/* The contract of every compute kernel.
 *
 * A kernel is void and unconditional: loading has validated everything it relies on. It touches only what its arguments
 * name. The table of a level starts as the scalar reference, which is the definition, and each instruction set overrides
 * what it has (`mixquant cpu` lists the slots that fell back).
 *
 * Agreement between levels, checked by tests/kernels for every slot:
 *   EXACT  the same bits as the reference, on every level, for any partition of rows, columns or threads.
 *   BOUND  within the stated error of the reference; each row's result does not depend on its batch-mates.
 *
 * Shapes: T rows (tokens), k_width the dot-product length, n output features. Row-major unless said otherwise.
 * Rounding is to nearest even; multiply-adds are fused (fmaf) exactly where the text says FMA. No kernel relies on
 * flush-to-zero. Float pointers need no alignment beyond 4 bytes unless stated. */
#ifndef MQ_KERNELS_H
#define MQ_KERNELS_H

#include "base/cpu.h"

/* ------------------------------------------------------------------ dense weights */

typedef enum mq_dense_type { MQ_DENSE_BF16, MQ_DENSE_F16, MQ_DENSE_F32 } mq_dense_type;

/* A weight matrix in the checkpoint's own type, borrowed from its map: [n, k_width] row-major; 2-byte aligned for the
 * 16-bit types, 4-byte for F32. */
typedef struct mq_dense {
    const void *data;
    mq_dense_type type;
    uint32_t n, k_width;
} mq_dense;

/* FP32 activations as the GEMM reads them: groups of MQ_DENSE_MR rows, [group][k][MQ_DENSE_MR], the last group padded
 * with zero rows. */
#define MQ_DENSE_MR 14

size_t mq__dense_panel_floats(size_t rows, size_t k_width);

/* ------------------------------------------------------------------ NVFP4 weights */

#define MQ_NVFP4_BLOCK 16 /* values per E4M3 scale */
#define MQ_NVFP4_NR    32 /* output features per weight panel */
#define MQ_NVFP4_MR    7  /* rows per activation group */

/* Packed weights, one layout for all levels: [ceil(n/32)][blocks] cells of MQ_NVFP4_CELL bytes, 64-byte aligned, each
 * the nibbles of 16 k x 32 features and their 32 E4M3 scale bytes (order inside the cell: nvfp4_pack.h). Features past n
 * and k past k_width are zero. 4.5 bits per weight. */
#define MQ_NVFP4_CELL (MQ_NVFP4_NR * (MQ_NVFP4_BLOCK / 2 + 1))

typedef struct mq_nvfp4 {
    const uint8_t *panels;
    uint32_t n, k_width, blocks; /* blocks = ceil(k_width / 16) */
    float multiplier;            /* tensor scale: w = e2m1 * e4m3 * multiplier */
} mq_nvfp4;

size_t mq__nvfp4_panel_bytes(size_t n, size_t k_width);

/* Packs features [32*p0, 32*p1) from the canonical form: nibbles [n, 8*blocks] (low nibble first), scales [n, blocks]. */
void mq__nvfp4_pack(const uint8_t *nibbles, const uint8_t *scales, uint32_t n, uint32_t blocks, size_t p0, size_t p1,
                    uint8_t *panels);

/* Quantised activations (borrowed scratch). Groups of MQ_NVFP4_MR rows, [group][block]{ u8 [MR][16] = 2*e2m1 + 12,
 * f32 [MR] = block scale }, 64-byte aligned start; `multiplier` [rows] = per-row tensor scale. Rows past the end of the
 * last group hold 12 and scale 0. */
typedef struct mq_nvfp4_rows {
    uint8_t *panels;
    float *multiplier;
} mq_nvfp4_rows;

/* Panels of weights that share a slice of the activations: a part of a GEMM has a multiple of them. */
#define MQ_NVFP4_BATCH    4
#define MQ_NVFP4_ROW_CELL (MQ_NVFP4_MR * (MQ_NVFP4_BLOCK + 4))

size_t mq__nvfp4_row_bytes(size_t rows, size_t k_width); /* bytes of mq_nvfp4_rows.panels */

/* ------------------------------------------------------------------ INT8 weights */

#define MQ_INT8_GROUP 64 /* values per FP32 scale, of weights and of activations */
#define MQ_INT8_NR    32 /* output features per weight panel */
#define MQ_INT8_MR    7  /* rows per activation group */

/* Packed weights, one layout for all levels: [ceil(n/32)][groups] cells of MQ_INT8_CELL bytes, 64-byte aligned, each 64 k x
 * 32 features with their scales (order inside the cell: int8_pack.h). Features past n and k past k_width are zero.
 * Symmetric, w = q * scale, scale = amax/127 cut to 22 significant bits. 9 bits per weight. */
#define MQ_INT8_CELL (MQ_INT8_NR * (MQ_INT8_GROUP + 8))

typedef struct mq_int8 {
    const uint8_t *panels;
    uint32_t n, k_width, groups; /* groups = ceil(k_width / 64) */
} mq_int8;

size_t mq__int8_panel_bytes(size_t n, size_t k_width);

/* Quantises and packs features [32*p0, 32*p1) of finite weights. */
void mq__int8_pack(const mq_dense *w, size_t p0, size_t p1, uint8_t *panels);

/* Quantised activations (borrowed scratch). Groups of MQ_INT8_MR rows, [row group][group]{ u8 [MR][64] = q + 128,
 * f32 [MR] = scale }, 64-byte aligned start. Rows past the end of the last row group hold 128 and scale 0. */
typedef struct mq_int8_rows {
    uint8_t *panels;
} mq_int8_rows;

#define MQ_INT8_BATCH    10 /* as MQ_NVFP4_BATCH */
#define MQ_INT8_ROW_CELL (MQ_INT8_MR * (MQ_INT8_GROUP + 4))

size_t mq__int8_row_bytes(size_t rows, size_t k_width); /* bytes of mq_int8_rows.panels */

/* ------------------------------------------------------------------ linear layers */

/* How a linear layer's sum becomes its output: y = sum (+ bias[n]) (+ y when accumulate). */
typedef struct mq_epilogue {
    float *y;          /* [rows, ldy] */
    size_t ldy;        /* in floats */
    const float *bias; /* [n] or NULL */
    bool accumulate;   /* add to what y holds: the residual stream */
} mq_epilogue;

/* ------------------------------------------------------------------ attention */

#define MQ_PAGE_TOKENS 64 /* tokens per KV page */

/* One kv head of one sequence. Page j holds tokens [64 j, 64 j + 64): K at pages[j] + k_offset, V at
 * pages[j] + v_offset, each [64, head_dim] bf16; the offsets select layer and kv head. */
typedef struct mq_kv_view {
    uint16_t *const *pages;
    size_t k_offset, v_offset; /* in elements */
    uint32_t head_dim;         /* even, <= 1024 */
} mq_kv_view;

/* The query heads that share that kv head. Query row t (0 <= t < rows) is the token at position first + t and sees keys
 * 0 .. first + t, or with a window the last `window` of them: no page before the first of these is touched. Query head i of
 * the group is at q + t*q_stride + i*head_dim; outputs likewise. */
typedef struct mq_attention {
    mq_kv_view kv;
    const float *q; /* FP32, rotated, not yet scaled */
    float *out;
    size_t q_stride, out_stride; /* in floats, between tokens */
    uint32_t heads;              /* query heads per kv head */
    uint32_t first, rows;
    uint32_t window; /* 0: none */
    float scale;     /* 1/sqrt(head_dim) in most models */
    void *scratch;   /* attention_scratch_bytes() of the level, 64-byte aligned, private to the thread */
} mq_attention;

/* Query rows (tokens x heads) that share one widening of the keys and values: a prefill call takes any number of tokens,
 * MQ_ATTENTION_QUERIES / heads of them at head width 128 (twice that at 64, half at 256) make the best work item. */
#define MQ_ATTENTION_QUERIES 448

/* Keys that share a mean and value scales in attention_prefill_int8, and the best number of tokens of one call. */
#define MQ_ATTENTION_TILE 256

/* Decode splits the keys of a long context into spans, each an independent partial softmax, merged in span order: the
 * split depends on positions only, so the result does not depend on the number of threads. */
#define MQ_SPAN_TOKENS 512

/* The most kv heads of one decode call, of all its rows together. They lie one after the other in a page: together they make long
 * reads. */
#define MQ_DECODE_KV_HEADS 8

/* Keys [begin, end) of a sequence; none if end <= begin. */
typedef struct mq_keys {
    uint32_t begin, end;
} mq_keys;

/* What the token at a position sees. */
static inline mq_keys mq__keys_seen(uint32_t position, uint32_t window)
{
    const uint32_t end = position + 1;
    const mq_keys keys = {window && end > window ? end - window : 0, end};
    return keys;
}

static inline mq_keys mq__keys_within(mq_keys keys, uint32_t begin, uint32_t end)
{
    const mq_keys part = {keys.begin > begin ? keys.begin : begin, keys.end < end ? keys.end : end};
    return part;
}

static inline mq_keys mq__keys_of_span(mq_keys keys, uint32_t span)
{
    return mq__keys_within(keys, span * MQ_SPAN_TOKENS, (span + 1) * MQ_SPAN_TOKENS);
}

/* ------------------------------------------------------------------ Gated DeltaNet */

/* Columns of a state that lie together. Columns do not depend on each other: a panel of them, [key_dim][16] floats, stays in L1 while
 * all rows of a pass go through it. */
#define MQ_DELTA_COLUMNS 16

/* Rows (consecutive tokens) of one panel of one value head. */
typedef struct mq_delta {
    const float *from; /* [key_dim][MQ_DELTA_COLUMNS] the state before the rows, */
    float *to;         /* and behind them; may be `from` */
    const float *q, *k;
    const float *v; /* the panel's columns: MQ_DELTA_COLUMNS values a row */
    float *out;     /* the same */
    const float *decay, *beta;
    size_t qk_stride, v_stride, out_stride, scalar_stride; /* in floats, between rows */
    uint32_t key_dim;                                      /* a multiple of 16 */
    uint32_t rows;                                         /* at least 1 */
} mq_delta;

/* ------------------------------------------------------------------ the table */

/* Ways to read memory; which is faster depends on the processor, and the faster one is the limit. */
typedef enum mq_read_way {
    MQ_READ_AHEAD, /* four streams, prefetched */
    MQ_READ_PLAIN, /* two streams, left to the processor's own prefetchers */
    MQ_READ_WAYS
} mq_read_way;

typedef void mq_dense_thin_fn(const float *x, size_t ldx, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                              const mq_epilogue *out, void *scratch);
typedef void mq_decode_span_fn(const mq_attention *a, uint32_t kv_heads, uint32_t span, float *partial,
                               size_t head_step, size_t row_step);

/* Operations that a level may have in several ways, its variants. Which one is the fastest depends on the processor, and they have the
 * same bits (MQ_INT8_ATTENTION excepted, whose variants keep its BOUND). A level's first variant stands in the operation's slot until
 * another is put there: engine/tuning.h measures which. */
typedef enum mq_operation {
    MQ_DENSE_THIN,
    MQ_DECODE_SPAN,
    MQ_NVFP4_GEMM,
    MQ_INT8_GEMM,
    MQ_INT8_ATTENTION,
    MQ_OPERATIONS
} mq_operation;

typedef void mq_any_fn(void);

typedef struct mq_variant {
    const char *name;
    mq_any_fn *function; /* of the slot's type */
} mq_variant;

enum { MQ_VARIANTS_MOST = 3 };

typedef struct mq_variants {
    size_t count; /* 0: the level has one way */
    mq_variant one[MQ_VARIANTS_MOST];
} mq_variants;

/* Rows for which a thin product reads the weights once. */
#define MQ_THIN_MOST 64

typedef struct mq_kernels {
    mq_isa isa;
    mq_variants variants[MQ_OPERATIONS];

    /* -- elementwise */
    /* EXACT. y[i] = x[i] * r * w[i], r = 1/sqrt(mean(x^2) + eps): squares are summed by FMA in 16 lanes (lane = i mod 16),
     * lanes are added pairwise (8+8, 4+4, 2+2, 1+1); then (x*r)*w. y may be x. */
    void (*rmsnorm)(float *y, const float *x, const float *weight, size_t n, float eps);
    /* EXACT. Per head: optional rmsnorm over head_dim (weight NULL: none), then rotate_half of its first `rotary` values (even,
     * <= head_dim; the others stay) with cos/sin [rotary/2], in pairs (i, i + rotary/2): y1 = x1*cos - x2*sin,
     * y2 = x2*cos + x1*sin (products rounded, then FMA: fmaf(x1, cos, -(x2*sin))). In place. */
    void (*norm_rope)(float *x, size_t heads, size_t head_dim, size_t rotary, const float *weight, float eps,
                      const float *cos, const float *sin);
    /* EXACT. y = silu(gate) * up, with the polynomial exp of ref/math_ref.h. y may be gate or up. */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);
    /* EXACT. y = gelu(gate) * up, gelu(x) = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x / (1 + e^(-2 sqrt(2/pi) ...)),
     * with the same exp. y may be gate. */
    void (*geglu)(float *y, const float *gate, const float *up, size_t n);
    /* EXACT. y = y * sigmoid(gate): y / (1 + exp(-gate)), the same exp. */
    void (*sigmoid_gate)(float *y, const float *gate, size_t n);
    /* EXACT. y = silu(a), a = the sum over `taps` rows u, the oldest first, of w[t*n + i] * u[t][i]: an FMA chain from 0. */
    void (*conv_silu)(float *y, const float *const *u, const float *w, size_t taps, size_t n);
    /* EXACT. BF16 by round to nearest even; NaN stays NaN. */
    void (*f32_to_bf16)(uint16_t *y, const float *x, size_t n);
    /* EXACT. Widening. */
    void (*dense_to_f32)(float *y, const void *x, mq_dense_type type, size_t n);

    /* -- NVFP4 W4A4 */
    /* EXACT. Quantises rows [row0, row1) of x [.., ldx] (row0 a multiple of MQ_NVFP4_MR) with a dynamic per-row tensor
     * scale (docs/NVFP4.md): GS = 2688/amax (1 below 2^-100), SF = GS*(amax_b*(1/6)), SF8 = E4M3(SF),
     * os = SF8 ? 1/(SF8*(1/GS)) : 0, q = E2M1(x*os); multiplier = 1/GS. x must be finite. */
    void (*nvfp4_quantize)(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                           const mq_nvfp4_rows *out);
    /* EXACT. For rows [0, rows) and features of panels [p0, p1): acc = FMA over blocks in ascending order of
     * (dot * sw) * sa with dot the exact integer 4*sum(a*w) and dot*sw exact; y = acc * (0.25f*multiplier[m]*w.multiplier)
     * then the epilogue. A row's result does not depend on `rows`. scratch: gemm_scratch_bytes, 64-byte aligned, private to
     * the thread. */
    void (*nvfp4_gemm)(const mq_nvfp4_rows *a, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                       const mq_epilogue *out, void *scratch);

    /* -- INT8 W8A8 */
    /* EXACT. Quantises rows [row0, row1) of x [.., ldx] (row0 a multiple of MQ_INT8_MR), each group of 64 by its largest
     * magnitude: scale = amax*(1/127), q = rint(x*(127/amax)); zeros below 2^-100. x must be finite. */
    void (*int8_quantize)(const float *x, size_t ldx, size_t row0, size_t row1, size_t k_width,
                          const mq_int8_rows *out);
    /* EXACT. For rows [0, rows) and features of panels [p0, p1): acc = FMA over groups in ascending order of
     * round(dot * sw) * sa with dot the exact integer sum(a*w); then the epilogue. A row's result does not
     * depend on `rows`. scratch: gemm_scratch_bytes. */
    void (*int8_gemm)(const mq_int8_rows *a, size_t rows, const mq_int8 *w, size_t p0, size_t p1,
                      const mq_epilogue *out, void *scratch);

    /* -- dense GEMM: the BF16 baseline, and W4A16 */
    /* EXACT. Packs rows of x into panels for groups [g0, g1). */
    void (*dense_pack_rows)(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                            float *panels);
    /* EXACT. Features [n0, n1), n0 a multiple of 32: acc = FMA over k in ascending order from 0, one chain per output. */
    void (*dense_gemm)(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1,
                       const mq_epilogue *out, void *scratch);
    /* EXACT. The same with weights (e2m1*e4m3) exact in FP32 and the tensor multiplier applied to the sum. */
    void (*w4a16_gemm)(const float *panels, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                       const mq_epilogue *out, void *scratch);
    /* BOUND 1e-6 of sum |x*w| (EXACT below the AVX512_BF16 level, where these are dense_pack_rows and dense_gemm). From BF16
     * weights and rows of x that hold BF16 values already: W16A16. Row groups begin where dense_pack_rows has them, their order
     * inside is the level's own; a row's result does not depend on its batch-mates or on how rows and features are cut. */
    void (*bf16_pack_rows)(const float *x, size_t ldx, size_t rows, size_t k_width, size_t g0, size_t g1,
                           float *panels);
    void (*bf16_gemm)(const float *panels, size_t rows, const mq_dense *w, size_t n0, size_t n1, const mq_epilogue *out,
                      void *scratch);

    /* -- thin products: any number of rows, made for 1 to MQ_THIN_MOST: weights are read from memory once for so many. A row's
     * result does not depend on `rows`: row r of a pass with k + 1 rows (drafts) has the bits of a pass with that row alone.
     * scratch: gemm_scratch_bytes, 64-byte aligned, private to the thread. */
    /* EXACT. Features [n0, n1): 16 lanes (lane = k mod 16), each an FMA chain over ascending k, lanes added pairwise
     * (8+8, 4+4, 2+2, 1+1). */
    mq_dense_thin_fn *dense_thin;
    /* EXACT. Panels [p0, p1): per block s = FMA chain over its 16 k ascending (from 0) of x*e2m1, acc = FMA(s, e4m3, acc)
     * over ascending blocks, y = acc * multiplier. */
    void (*w4a16_thin)(const float *x, size_t ldx, size_t rows, const mq_nvfp4 *w, size_t p0, size_t p1,
                       const mq_epilogue *out, void *scratch);

    /* -- attention over BF16 KV, softmax in FP32 */
    /* BOUND 1e-5 relative L2 per output row against the FP64 softmax. Key tiles are aligned to positions, so a row does
     * not depend on chunk boundaries (EXACT in that sense). A window of all keys has the bits of none. */
    void (*attention_prefill)(const mq_attention *a);
    /* BOUND 1e-2. The same with queries and softmax weights rounded to BF16, as in GPUs' FlashAttention; where there are no BF16
     * products the slot above. EXACT for any chunks, too. */
    void (*attention_prefill_bf16)(const mq_attention *a);
    /* BOUND 4e-2 on well-behaved inputs (SageAttention's recipe; NEON without dot products attends as above).
     * A row sees the keys of its own tile of MQ_ATTENTION_TILE positions in FP32 (where BF16 products are faster: in BF16), those
     * of earlier tiles in INT8: per tile, the mean of the keys is taken out and its product with the query added back in FP32
     * (K smoothing), queries and keys have one scale each, values one per channel and tile, weights are 255ths of the running
     * maximum. The codes of queries go up to 127, those of keys and values up to attention_int8_most: 127, or 64 where products
     * are added in 16 bits. All of that depends on positions only, so rows are EXACT for any chunks. a->window is 0: of a window's
     * few tiles two would be FP32. */
    void (*attention_prefill_int8)(const mq_attention *a);
    int attention_int8_most; /* for the tests */
    /* BOUND 1e-5. The keys of one span for kv_heads kv heads, kv_heads * rows <= MQ_DECODE_KV_HEADS: a->kv and a->q are the first
     * one's, the others follow in the page and in q. Writes the unnormalised partials of each row that sees any of these keys,
     * [heads][head_dim + 2] = {sum of p*v, running max, sum of p}, head_step floats from kv head to kv head, row_step from row to
     * row. A head's result does not depend on which others the call has, and a row has the bits that it has alone. */
    mq_decode_span_fn *attention_decode_span;
    /* EXACT. Merges `spans` partials [spans][heads][head_dim + 2] in order into out (as in mq_attention). */
    void (*attention_decode_merge)(const mq_attention *a, uint32_t spans, const float *partials);

    /* -- Gated DeltaNet */
    /* EXACT, and for any split of the rows. For each row: s_j = sum_i k_i S_ij, d_j = beta * fmaf(-decay, s_j, v_j),
     * S_ij = fmaf(k_i, d_j, decay * S_ij), out_j = sum_i q_i S_ij. Sums over i are FMA chains from 0 in 2 lanes (i mod 2),
     * then lane 0 + lane 1. */
    void (*delta_rule)(const mq_delta *d);

    /* -- measuring the machine */
    /* Runs `rounds` of independent FP32 FMAs on all vector registers; returns the multiply-adds done (never 0). */
    uint64_t (*burn_fma)(uint64_t rounds);
    /* Reads all bytes (a multiple of 256, 64-byte aligned) and returns a checksum that depends on them. */
    uint64_t (*read_stream)(const void *data, size_t bytes, mq_read_way way);

    size_t gemm_scratch_bytes; /* for the GEMMs and the thin products */
    size_t (*attention_scratch_bytes)(uint32_t heads, uint32_t head_dim);
} mq_kernels;

/* The table of a level; the level must be supported by the processor. Constant for the life of the process. */
const mq_kernels *mq__kernels_get(mq_isa isa);

/* Of operations with variants: "dense_thin"; whether all have the same bits. */
const char *mq__operation_name(mq_operation operation);
bool mq__operation_exact(mq_operation operation);
/* Puts a variant into the operation's slot. */
void mq__variant_use(mq_kernels *table, mq_operation operation, size_t variant);

/* For `mixquant cpu` and the tests: the slots by name. slot_isa tells which level provides the slot in the table of isa. */
size_t mq__kernels_slots(void);
const char *mq__kernels_slot_name(size_t slot);
mq_isa mq__kernels_slot_isa(mq_isa isa, size_t slot);

#endif
