/* INT8 prefill attention, the part that the levels share. Included once by a level's file after its FP32
 * tile functions (kernels/attention_tiles.h); it then provides attention_int8_passes() and attention_int8_bytes().
 *
 * Blocks of MR query rows take turns at a tile of MQ_ATTENTION_TILE keys with a running softmax, as in FP32. Here a tile of earlier
 * keys is quantised once for all rows of a pass, and a pass is as tall as one tile of tokens, so that this costs little:
 *     keys    int8, one scale a key, less the tile's mean       [TILE/NR][width/4][NR][4 of width]
 *     values  8 bits, one scale a channel                       [width/NR][TILE/4][NR][4 of TILE]
 *     queries 8 bits, one scale a row                           [MR][width]
 *     weights round(255 * 2^(s - max)), unsigned                [MR][TILE]
 * s = dot * key_scale * query_scale + query . mean, in the exponent's base 2. The sum of a row's weights is that of the rounded
 * ones. Which of the factors are signed is the level's own, and how large the codes of keys and values get
 * (mq_kernels.attention_int8_most).
 *
 * What the level defines:
 *     enum { QUERY_ZERO };               the byte of a query that stands for 0
 *     tile_quantize_query(q, width, codes)      one row as bytes; returns the scale
 *     tile_means(p, key0)                of the keys [key0, key0 + TILE)
 *     tile_load_keys(p, key0)            keys, their scales, and what a sum of their products begins with
 *     tile_load_values(p, key0)          values, and their scales over 255: the weights' unit
 *     tile_score_bytes(p, block, s)      s [MR][TILE]
 *     tile_soften_bytes(s, state, weights)      weights of all rows; the running maximum, the correction and the sum move on
 *     tile_weigh_bytes(p, state, weights, o)    o = o * state->correction + weights * values */
#ifndef MQ_KERNELS_ATTENTION_INT8_TILES_H
#define MQ_KERNELS_ATTENTION_INT8_TILES_H

_Static_assert(TILE == MQ_ATTENTION_TILE, "one tile size for all of a level");

enum { MOST_ROWS = 2048 };
_Static_assert(1024 * 127 * 127 <= 1 << 24, "the dot product of the widest head is exact as a float");

/* 2^r on [0, 1], relative error 7.5e-5. */
#define EXP2_C0     0x1.fff626p-1f
#define EXP2_C1     0x1.64449p-1f
#define EXP2_C2     0x1.cefbc6p-3f
#define EXP2_C3     0x1.3f951ep-4f
#define WEIGHT_LOG2 7.9943534368588576f /* log2(255): the largest weight becomes 255 */

/* Where the INT8 parts lie in the scratch, in bytes from its start, behind those of the FP32 kernel. */
typedef struct int8_layout {
    layout f32;
    size_t words; /* groups of 4 of a head's width */
    size_t keys, key_scales, key_starts, means, values, value_scales, queries, query_step, weights, row_bytes, total;
} int8_layout;

static size_t take_bytes(int8_layout *l, size_t bytes)
{
    const size_t at = l->total;
    l->total += (bytes + 63) / 64 * 64;
    return at;
}

static int8_layout make_int8_layout(size_t heads, size_t width)
{
    const size_t wanted = heads * TILE, rows = wanted < MOST_ROWS ? wanted : MOST_ROWS;
    int8_layout l = {.f32 = make_layout(heads, width, rows), .words = (width + 3) / 4};
    l.total = l.f32.total_floats * sizeof(float);
    l.row_bytes = (4 * l.words + 63) / 64 * 64;
    l.keys = take_bytes(&l, (size_t)TILE * 4 * l.words);
    l.key_scales = take_bytes(&l, TILE * sizeof(float));
    l.key_starts = take_bytes(&l, TILE * sizeof(int32_t));
    l.means = take_bytes(&l, (width + 15) / 16 * 16 * sizeof(float));
    l.values = take_bytes(&l, (size_t)TILE * NR * l.f32.panels);
    l.value_scales = take_bytes(&l, NR * l.f32.panels * sizeof(float));
    l.weights = take_bytes(&l, (size_t)MR * TILE + 16 * l.row_bytes); /* quantising keys borrows it */
    l.query_step = (size_t)MR * l.row_bytes + 16 * sizeof(float);
    l.queries = take_bytes(&l, l.f32.blocks * l.query_step);
    return l;
}

typedef struct int8_pass {
    pass f32;
    const int8_layout *l;
    uint8_t *scratch;
} int8_pass;

static float tile_quantize_query(const float *q, size_t width, uint8_t *codes);
static void tile_means(const int8_pass *p, size_t key0);
static void tile_load_keys(const int8_pass *p, size_t key0);
static void tile_load_values(const int8_pass *p, size_t key0);
static void tile_score_bytes(const int8_pass *p, size_t block, float *s);
static void tile_soften_bytes(const float *s, block_state *state, uint8_t *weights);
static void tile_weigh_bytes(const int8_pass *p, const block_state *state, const uint8_t *weights, float *o);

static uint8_t *query_block(const int8_pass *p, size_t block)
{
    return p->scratch + p->l->queries + block * p->l->query_step;
}

static float *query_scales(const int8_pass *p, size_t block) /* [MR] */
{
    return (float *)(void *)(query_block(p, block) + MR * p->l->row_bytes);
}

/* most/amax, and the scale amax/most. */
static inline float inverse_of(float amax, float most, float *scale)
{
    const bool zero = amax < 0x1p-100f;
    *scale = zero ? 0 : amax * (1.0f / most);
    return zero ? 0 : most / amax;
}

/* The rows of a block as bytes, with scales that turn dot products into the exponent's base 2. */
static void quantize_queries(const int8_pass *p, size_t block)
{
    const mq_attention *a = p->f32.a;
    const size_t width = p->l->f32.width;
    const float base = a->scale * 0x1.715476p+0f;
    uint8_t *rows = query_block(p, block);
    float *scales = query_scales(p, block);
    size_t row = block * MR, token = p->f32.token0 + row / a->heads, head = row % a->heads;
    memset(rows, QUERY_ZERO, MR * p->l->row_bytes);
    memset(scales, 0, 16 * sizeof *scales);
    for (size_t r = 0; r < MR && row < p->f32.rows; r++, row++) {
        const float *q = a->q + token * a->q_stride + head * width;
        scales[r] = tile_quantize_query(q, width, rows + r * p->l->row_bytes) * base;
        if (++head == a->heads) {
            head = 0;
            token++;
        }
    }
}

/* Row `key` of a tile: keys (offset k_offset) or values. */
static inline __attribute__((always_inline)) const uint16_t *tile_row(const mq_kv_view *kv, size_t offset, size_t key)
{
    return kv->pages[key / MQ_PAGE_TOKENS] + offset + key % MQ_PAGE_TOKENS * kv->head_dim;
}

static void run_int8_block(const int8_pass *p, size_t block)
{
    const layout *l = &p->l->f32;
    float *s = block_part(&p->f32, l->scores, 0, 0);
    uint8_t *weights = p->scratch + p->l->weights;
    tile_score_bytes(p, block, s);
    tile_soften_bytes(s, block_softmax(&p->f32, block), weights);
    tile_weigh_bytes(p, block_softmax(&p->f32, block), weights, block_part(&p->f32, l->outputs, l->output_step, block));
}

/* The tile of positions that a pass's rows are in themselves, which begins at key `own`. */
typedef void own_tile_fn(const pass *p, size_t own);

/* Tokens [token, token + tokens) of the call, all of one tile of positions that starts at key `own`. */
static void run_int8_pass(int8_pass *p, size_t tokens, size_t own, own_tile_fn *finish)
{
    const mq_attention *a = p->f32.a;
    p->f32.rows = tokens * a->heads;
    p->f32.blocks = (p->f32.rows + MR - 1) / MR;
    for (size_t b = 0; b < p->f32.blocks; b++) {
        load_block_attention_tiles(&p->f32, b);
        if (own > 0) quantize_queries(p, b); /* the first tile has none before it: as fast as FP32's */
    }
    for (size_t key = 0; key < own; key += TILE) {
        tile_means(p, key);
        tile_load_keys(p, key);
        tile_load_values(p, key);
        for (size_t b = 0; b < p->f32.blocks; b++)
            run_int8_block(p, b);
    }
    finish(&p->f32, own);
    for (size_t b = 0; b < p->f32.blocks; b++) {
        store_block(&p->f32, b);
    }
}

/* The slot, with an arithmetic for the rows' own tile. */
static void attention_int8_passes(const mq_attention *a, own_tile_fn *finish)
{
    const int8_layout l = make_int8_layout(a->heads, a->kv.head_dim);
    const size_t most = l.f32.blocks * MR / a->heads;
    int8_pass p = {.f32 = {.a = a, .l = &l.f32}, .l = &l, .scratch = a->scratch};
    for (size_t token = 0, tokens; token < a->rows; token += tokens) {
        const size_t at = a->first + token, own = at / TILE * TILE, room = own + TILE - at, left = a->rows - token;
        tokens = left < room ? left : room;
        tokens = tokens < most ? tokens : most;
        p.f32.token0 = token;
        run_int8_pass(&p, tokens, own, finish);
    }
}

static size_t attention_int8_bytes(uint32_t heads, uint32_t head_dim)
{
    return make_int8_layout(heads, head_dim).total;
}

#endif
