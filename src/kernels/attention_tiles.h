/* Prefill attention, the part that all vector levels share. Included once by a level's attention_prefill file after it
 * has defined its tile and the six functions below; it then provides prefill_attention_tiles() and prefill_scratch_bytes().
 *
 * Idea. The rows x query heads of one kv head form a tall matrix of `rows * heads` query rows, row t*heads + h, cut into
 * blocks of MR. For each tile of TILE keys (aligned to positions) keys and values are widened once into the scratch, keys
 * transposed, and then every block takes its turn:
 *     s [MR][TILE]  = q [width][MR] * keys [TILE/NR][width][NR]
 *     online softmax of s in base 2 (queries are scaled by log2(e)/sqrt(width) when packed)
 *     o [panels][MR][NR] = o * correction + s * values [panels][TILE][NR]
 * A block's q, s and o stay in L1, the tile in L2; both products run at the speed of a GEMM micro-kernel.
 *
 * A row sees the same operations in the same order whatever else is in its block: keys are summed in ascending order
 * within position-aligned tiles, and a key that it may not see has the weight 0, which changes no sum.
 *
 * With a window a pass begins at the tile of the first key that its first row sees, and a block at that row's panel of NR keys.
 *
 * What the level defines:
 *     enum { MR, NR, LANES, TILE };   query rows of a block, floats of a panel, of a vector; keys of a tile
 *     enum { PER_LANE };              values that a lane of 32 bits holds: 1 (FP32), or 2 (pairs of BF16)
 *     tile_widen_keys(rows, width, count, column, keys)   16 bf16 rows [count <= 16][width] become columns [column, column + 16)
 *                                                    of keys; columns past count are zero
 *     tile_widen_values(rows, width, count, key, values)  bf16 rows [count][width] become keys [key, key + count) of values
 *     tile_score(q, keys, width, count, s)                s for the first `count` keys, rounded up to a multiple of NR
 *     tile_pack(rows, width, scale, q)                    q [width][MR] = scale * rows; a row may be NULL: zero
 *     tile_soften(s, state, key0, count)                  row r keeps its keys before end[r], the rest of count gets 0
 *     tile_weigh(s, values, state, panels, count, o)      o = o * state->correction + s * values over `count` keys */
#ifndef MQ_KERNELS_ATTENTION_TILES_H
#define MQ_KERNELS_ATTENTION_TILES_H

#include <math.h>
#include <string.h>

/* Query rows of one pass: q and o beside the tile fill most of an L2 of 1 MiB. */
enum { TILE_ROWS = MQ_ATTENTION_QUERIES, TILE_WIDTH = 128, MAX_TILE_ROWS = 2 * MQ_ATTENTION_QUERIES };

enum { STATE_ROWS = (MR + 15) / 16 * 16 }; /* whole vectors */

/* The maximum of no scores: a number, so that a row that sees nothing of a tile passes through it without a NaN. */
#define LOWEST_SCORE (-0x1p100f)

/* The softmax of a block so far. */
typedef struct block_state {
    float max[STATE_ROWS], correction[STATE_ROWS]; /* [MR]: running maximum, and 2^(old maximum - new) */
    uint32_t begin[STATE_ROWS], end[STATE_ROWS];   /* [MR]: the keys that the row sees */
    float sum[MR * LANES];                         /* [MR][LANES]: sum of the weights, by lane */
} block_state;

static void tile_widen_keys(const uint16_t *rows, size_t width, size_t count, size_t column, float *keys);
static void tile_widen_values(const uint16_t *rows, size_t width, size_t count, size_t key, float *values);
static void tile_score(const float *q, const float *keys, size_t width, size_t count, float *s);
static void tile_pack(const float *const rows[MR], size_t width, float scale, float *q);
static void tile_soften(float *s, block_state *state, size_t key0, size_t count);
static void tile_weigh(const float *s, const float *values, const block_state *state, size_t panels, size_t count,
                       float *o);

/* Where everything lies in the scratch, in floats from its start; every part is a multiple of 16 floats. */
typedef struct layout {
    size_t width, panels, blocks;            /* blocks: the most that one pass over the keys serves */
    size_t keys, values, scores;             /* [TILE/NR][width][NR], [panels][TILE][NR], [MR][TILE] */
    size_t queries, query_step;              /* blocks x [width][MR] */
    size_t outputs, output_step;             /* blocks x [panels][MR][NR] */
    size_t states, state_step, total_floats; /* blocks x block_state */
} layout;

/* rows: query rows that one pass over the keys serves, at least those of one token. */
static layout make_layout(size_t heads, size_t width, size_t rows)
{
    layout l = {.width = width, .panels = (width + NR - 1) / NR};
    rows = rows < heads ? heads : rows;
    l.blocks = (rows + MR - 1) / MR;
    l.values = l.keys + (size_t)TILE * width;
    l.scores = l.values + (size_t)TILE * NR * l.panels;
    l.queries = l.scores + (size_t)MR * TILE;
    l.query_step = (width * MR + 15) / 16 * 16;
    l.outputs = l.queries + l.blocks * l.query_step;
    l.output_step = l.panels * MR * NR;
    l.states = l.outputs + l.blocks * l.output_step;
    l.state_step = (sizeof(block_state) / sizeof(float) + 15) / 16 * 16;
    l.total_floats = l.states + l.blocks * l.state_step;
    return l;
}

/* What fits into L2 beside the tile. */
static size_t pass_rows(size_t width)
{
    const size_t rows = (size_t)TILE_ROWS * TILE_WIDTH / width;
    return rows > MAX_TILE_ROWS ? MAX_TILE_ROWS : rows;
}

/* One pass over the keys for tokens [token0, token1) of the call: rows query rows in `blocks` blocks. */
typedef struct pass {
    const mq_attention *a;
    const layout *l;
    size_t token0, rows, blocks;
} pass;

static float *block_part(const pass *p, size_t start, size_t step, size_t block)
{
    return (float *)p->a->scratch + start + block * step;
}

static block_state *block_softmax(const pass *p, size_t block)
{
    return (block_state *)(void *)block_part(p, p->l->states, p->l->state_step, block);
}

/* Rows past the end are zero. */
static void load_queries(const pass *p, size_t block)
{
    const mq_attention *a = p->a;
    const float *rows[MR];
    for (size_t r = 0, row = block * MR; r < MR; r++, row++) {
        const size_t token = p->token0 + row / a->heads;
        rows[r] = row < p->rows ? a->q + token * a->q_stride + row % a->heads * p->l->width : NULL;
    }
    tile_pack(rows, p->l->width, a->scale * 0x1.715476p+0f, block_part(p, p->l->queries, p->l->query_step, block));
}

/* The first key that the token at `position` sees. */
static size_t first_key(const mq_attention *a, size_t position)
{
    return a->window && position >= a->window ? position + 1 - a->window : 0;
}

/* Rows past the end see what the last row sees; nothing of theirs is stored. */
static void load_block_attention_tiles(const pass *p, size_t block)
{
    const mq_attention *a = p->a;
    block_state *state = block_softmax(p, block);
    memset(state, 0, sizeof *state);
    for (size_t r = 0, row = block * MR; r < MR; r++, row++) {
        const size_t position = a->first + p->token0 + row / a->heads;
        state->max[r] = LOWEST_SCORE;
        state->end[r] = row < p->rows ? (uint32_t)position + 1 : state->end[r - 1];
        state->begin[r] = row < p->rows ? (uint32_t)first_key(a, position) : state->begin[r - 1];
    }
    load_queries(p, block);
    memset(block_part(p, p->l->outputs, p->l->output_step, block), 0, p->l->output_step * sizeof(float));
}

/* Keys and values [key0, key0 + count) of the sequence; count <= TILE. Nothing past them is read, and nothing of the panels
 * before the first key that the pass sees. */
static void load_tile_attention_tiles(const pass *p, size_t key0, size_t count)
{
    const size_t begin = first_key(p->a, p->a->first + p->token0);
    const mq_kv_view *kv = &p->a->kv;
    float *keys = block_part(p, p->l->keys, 0, 0), *values = block_part(p, p->l->values, 0, 0);
    for (size_t i = begin > key0 ? (begin - key0) / NR * NR : 0; i < TILE; i += 16) {
        const size_t left = count > i ? count - i : 0, here = left < 16 ? left : 16, at = key0 + i;
        if (here == 0) {
            if (i % NR == 0) {
                break; /* no panel of NR columns reaches here */
            }
            tile_widen_keys(NULL, p->l->width, 0, i, keys);
            continue;
        }
        const uint16_t *page = kv->pages[at / MQ_PAGE_TOKENS];
        const size_t offset = at % MQ_PAGE_TOKENS * p->l->width;
        tile_widen_keys(page + kv->k_offset + offset, p->l->width, here, i, keys);
        tile_widen_values(page + kv->v_offset + offset, p->l->width, here, i, values);
    }
}

/* Scores of keys [key0, key0 + count) that lie before a row's window. */
static void hide_keys(float *s, const block_state *state, size_t key0, size_t count)
{
    for (size_t r = 0; r < MR; r++) {
        const size_t hidden = state->begin[r] > key0 ? state->begin[r] - key0 : 0;
        for (size_t i = 0; i < hidden && i < count; i++) {
            s[r * TILE + i] = -INFINITY;
        }
    }
}

static void run_block(const pass *p, size_t block, size_t key0)
{
    block_state *state = block_softmax(p, block);
    const size_t end = state->end[MR - 1]; /* the last row's, so the largest */
    const size_t skip = state->begin[0] > key0 ? (state->begin[0] - key0) / NR * NR : 0;
    if (end <= key0 || skip >= TILE) {
        return;
    }
    const size_t first = key0 + skip, count = (end - key0 < TILE ? end - key0 : TILE) - skip;
    float *s = block_part(p, p->l->scores, 0, 0), *o = block_part(p, p->l->outputs, p->l->output_step, block);
    const float *keys = block_part(p, p->l->keys, 0, 0), *values = block_part(p, p->l->values, 0, 0);
    tile_score(block_part(p, p->l->queries, p->l->query_step, block), keys + skip * (p->l->width / PER_LANE),
               p->l->width, count, s);
    if (state->begin[MR - 1] > first) hide_keys(s, state, first, count);
    tile_soften(s, state, first, count);
    tile_weigh(s, values + skip / PER_LANE * NR, state, p->l->panels, count, o);
}

/* The tile of the rows themselves, which begins at key `own`: the end of a pass whose earlier tiles are done. */
static inline void own_tile(const pass *p, size_t own)
{
    load_tile_attention_tiles(p, own, p->a->first + p->token0 + p->rows / p->a->heads - own);
    for (size_t b = 0; b < p->blocks; b++) {
        run_block(p, b, own);
    }
}

static void store_block(const pass *p, size_t block)
{
    const mq_attention *a = p->a;
    const size_t width = p->l->width;
    const float *o = block_part(p, p->l->outputs, p->l->output_step, block);
    const block_state *state = block_softmax(p, block);
    size_t row = block * MR, token = p->token0 + row / a->heads, head = row % a->heads;
    for (size_t r = 0; r < MR && row < p->rows; r++, row++) {
        float *out = a->out + token * a->out_stride + head * width;
        float sum = 0;
        for (size_t i = 0; i < LANES; i++) {
            sum += state->sum[r * LANES + i];
        }
        const float inverse = 1.0f / sum;
        for (size_t c = 0; c < width; c += NR) {
            const float *from = o + (c * MR + r * NR);
            const size_t columns = width - c < NR ? width - c : NR;
            for (size_t i = 0; i < columns; i++) {
                out[c + i] = from[i] * inverse;
            }
        }
        if (++head == a->heads) {
            head = 0;
            token++;
        }
    }
}

/* The whole slot, and its scratch; a file that only wants the parts above leaves them out. */
static inline size_t prefill_scratch_bytes(uint32_t heads, uint32_t head_dim)
{
    return make_layout(heads, head_dim, pass_rows(head_dim)).total_floats * sizeof(float);
}

static inline void prefill_attention_tiles(const mq_attention *a)
{
    const layout l = make_layout(a->heads, a->kv.head_dim, pass_rows(a->kv.head_dim));
    const size_t step = l.blocks * MR / a->heads;
    for (size_t token = 0; token < a->rows; token += step) {
        const size_t tokens = a->rows - token < step ? a->rows - token : step;
        pass p = {.a = a, .l = &l, .token0 = token, .rows = tokens * a->heads};
        p.blocks = (p.rows + MR - 1) / MR;
        for (size_t b = 0; b < p.blocks; b++) {
            load_block_attention_tiles(&p, b);
        }
        const size_t keys = (size_t)a->first + token + tokens;
        for (size_t key = first_key(a, a->first + token) / TILE * TILE; key < keys; key += TILE) {
            load_tile_attention_tiles(&p, key, keys - key < TILE ? keys - key : TILE);
            for (size_t b = 0; b < p.blocks; b++) {
                run_block(&p, b, key);
            }
        }
        for (size_t b = 0; b < p.blocks; b++) {
            store_block(&p, b);
        }
    }
}

#endif
