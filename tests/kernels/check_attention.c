/* Attention: against an FP64 softmax written here independently, over paged keys and values whose invisible part is NaN;
 * and the same rows cut into chunks in another way must give the same bits. */
#include "check_attention.h"
#include "checkasm.h"
#include "kernels/table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    KV_HEADS = 4,
    MAX_PAGES = 64
}; /* the second kv head is in use, for decode calls the third as well; the others are NaN */

/* One sequence: `tokens` filled, the rest of the last page NaN. */
typedef struct world {
    uint16_t *pages[MAX_PAGES];
    uint32_t width, tokens;
    mq_kv_view view;
} world;

static float widen(uint16_t x)
{
    const uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static const uint16_t *token_row(const world *w, size_t offset, size_t token)
{
    return w->pages[token / MQ_PAGE_TOKENS] + offset + token % MQ_PAGE_TOKENS * w->width;
}

/* key_growth scales keys linearly with the position: with a negative value early keys dominate, with a positive one the
 * running maximum moves in every tile. */
static void make_world(world *w, uint32_t width, uint32_t tokens, float key_deviation, float key_growth)
{
    const size_t side = (size_t)MQ_PAGE_TOKENS * width;
    *w = (world){.width = width, .tokens = tokens};
    w->view = (mq_kv_view){w->pages, side * 2, side * 3, width};
    for (size_t page = 0; page * MQ_PAGE_TOKENS < tokens; page++) {
        w->pages[page] = checkasm_halves(side * 2 * KV_HEADS);
        for (size_t i = 0; i < side * 2 * KV_HEADS; i++) {
            w->pages[page][i] = 0x7fc0;
        }
    }
    for (uint32_t t = 0; t < tokens; t++) {
        uint16_t *page = w->pages[t / MQ_PAGE_TOKENS] + t % MQ_PAGE_TOKENS * width;
        const float grow = 1 + key_growth * (float)t;
        for (size_t i = 0; i < 2 * width; i++) {
            const size_t at = i / width * 2 * side + i % width;
            page[w->view.k_offset + at] = checkasm_bf16(checkasm_normal() * key_deviation * (grow > 0 ? grow : 0));
            page[w->view.v_offset + at] = checkasm_bf16(checkasm_normal());
        }
    }
}

/* out [width] of one query head over keys [begin, keys). */
static void truth(const world *w, const float *q, uint32_t begin, uint32_t keys, float scale, double *out)
{
    static double score[MAX_PAGES * MQ_PAGE_TOKENS];
    double max = -INFINITY, sum = 0;
    for (uint32_t t = begin; t < keys; t++) {
        const uint16_t *key = token_row(w, w->view.k_offset, t);
        score[t] = 0;
        for (uint32_t i = 0; i < w->width; i++) {
            score[t] += (double)q[i] * (double)widen(key[i]);
        }
        score[t] *= (double)scale;
        max = score[t] > max ? score[t] : max;
    }
    memset(out, 0, w->width * sizeof *out);
    for (uint32_t t = begin; t < keys; t++) {
        const double p = exp(score[t] - max);
        const uint16_t *value = token_row(w, w->view.v_offset, t);
        sum += p;
        for (uint32_t i = 0; i < w->width; i++) {
            out[i] += p * (double)widen(value[i]);
        }
    }
    for (uint32_t i = 0; i < w->width; i++) {
        out[i] /= sum;
    }
}

static mq_attention make_call(const mq_kernels *table, const world *w, uint32_t heads, uint32_t first, uint32_t rows)
{
    mq_attention a = {.kv = w->view, .heads = heads, .first = first, .rows = rows};
    a.q_stride = (size_t)heads * w->width + 1 + checkasm_below(40);
    a.out_stride = (size_t)heads * w->width + 1 + checkasm_below(40);
    float *q = checkasm_floats((rows - 1) * a.q_stride + (size_t)heads * w->width);
    checkasm_fill_normal(q, (rows - 1) * a.q_stride + (size_t)heads * w->width, 1);
    a.q = q;
    a.out = checkasm_floats((rows - 1) * a.out_stride + (size_t)heads * w->width);
    a.scale = 1 / sqrtf((float)w->width);
    a.scratch = checkasm_aligned(table->attention_scratch_bytes(heads, w->width));
    return a;
}

typedef void prefill_fn(const mq_attention *a);

/* Rounding makes single rows of BF16 and INT8 attention differ by up to a few percent, at random; a wrong constant makes all of
 * them larger or smaller. So beside the bound of a row there is one for the slope of all rows, got = slope * expected. */
enum { SLOPES = 2 }; /* against the exact softmax, and against the definition */
static struct {
    double product, norm;
} slopes[SLOPES];

static void add_slope(int which, const double *expected, const float *got, size_t count)
{
    double product = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        product += (double)got[i] * expected[i];
        norm += expected[i] * expected[i];
    }
    if (norm > 0) { /* rows have the same say, whatever their size */
        slopes[which].product += product / norm;
        slopes[which].norm += 1;
    }
}

/* At the end of a slot. */
static void check_slope(int which, double bound)
{
    const double slope = slopes[which].product / slopes[which].norm;
    if (!(slopes[which].norm > 0)) return;
    if (!checkasm_true(fabs(slope - 1) <= bound, "all rows too large, or too small")) {
        checkasm_fail("slope %.6f of %.0f rows against %s, bound %.2g", slope, slopes[which].norm,
                      which == 0 ? "the exact softmax" : "the definition", bound);
    }
    memset(&slopes[which], 0, sizeof slopes[which]);
}

/* The first key that the token at `position` sees. */
static uint32_t window_begin(uint32_t window, uint32_t position)
{
    return window && position >= window ? position + 1 - window : 0;
}

static bool compare_rows(const world *w, const mq_attention *a, double bound)
{
    static double expected[1024];
    bool ok = true;
    for (uint32_t t = 0; t < a->rows && ok; t++) {
        const float *q = a->q + t * a->q_stride, *out = a->out + t * a->out_stride;
        for (uint32_t h = 0; h < a->heads && ok; h++) {
            truth(w, q + (size_t)h * w->width, window_begin(a->window, a->first + t), a->first + t + 1, a->scale,
                  expected);
            ok = checkasm_within(expected, out + (size_t)h * w->width, w->width, bound);
            add_slope(0, expected, out + (size_t)h * w->width, w->width);
        }
        for (size_t i = (size_t)a->heads * w->width; i < a->out_stride && t + 1 < a->rows && ok; i++) {
            ok = checkasm_true(isnan(out[i]), "written between the rows");
        }
    }
    return ok;
}

/* The same rows in pieces of random sizes, from other addresses: the same bits. */
static void compare_split(prefill_fn *fn, const mq_attention *whole, uint32_t width)
{
    const size_t count = (whole->rows - 1) * whole->out_stride + (size_t)whole->heads * width;
    mq_attention part = *whole;
    float *out = checkasm_floats(count);
    for (uint32_t t = 0; t < whole->rows; t += part.rows) {
        const size_t left = whole->rows - t;
        part.first = whole->first + t;
        part.rows = (uint32_t)(1 + checkasm_below(left < 40 ? left : 40));
        part.q = whole->q + t * whole->q_stride;
        part.out = out + t * whole->out_stride;
        fn(&part);
    }
    checkasm_same_f32(whole->out, out, 1, count, count);
}

/* An FP32 kernel, or one whose queries and weights are BF16. */
static void prefill_case(prefill_fn *fn, uint32_t width, uint32_t heads, uint32_t first, uint32_t rows, float deviation,
                         float growth)
{
    checkasm_case("width=%u heads=%u first=%u rows=%u deviation=%g growth=%g", width, heads, first, rows,
                  (double)deviation, (double)growth);
    world w;
    make_world(&w, width, first + rows, deviation, growth);
    mq_attention a = make_call(checkasm.tested, &w, heads, first, rows);
    fn(&a);
    /* few values do not average errors out; large scores turn theirs into large factors */
    const double hard = (width < 16 ? 4 : 1) * (growth != 0 ? 4 : 1) * (double)fmaxf(deviation, 1);
    const double bound = fn == checkasm.tested->attention_prefill ? 1e-5 : 1e-2 * hard;
    if (compare_rows(&w, &a, bound)) compare_split(fn, &a, width);
}

/* Pages before the first key that the call sees are not there. */
static void forget_pages(world *w, uint32_t begin)
{
    for (uint32_t page = 0; page < begin / MQ_PAGE_TOKENS; page++) {
        w->pages[page] = NULL;
    }
}

static void window_case(prefill_fn *fn, uint32_t width, uint32_t heads, uint32_t first, uint32_t rows, uint32_t window)
{
    checkasm_case("width=%u heads=%u first=%u rows=%u window=%u", width, heads, first, rows, window);
    world w;
    make_world(&w, width, first + rows, 1, 0);
    mq_attention a = make_call(checkasm.tested, &w, heads, first, rows);
    if (window >= first + rows) { /* all keys: the bits of no window */
        float *none = a.out;
        const size_t count = (rows - 1) * a.out_stride + (size_t)heads * width;
        fn(&a);
        a.out = checkasm_floats(count);
        a.window = window;
        fn(&a);
        checkasm_same_f32(none, a.out, 1, count, count);
        return;
    }
    a.window = window;
    forget_pages(&w, window_begin(window, first));
    fn(&a);
    const double bound = fn == checkasm.tested->attention_prefill ? 1e-5 : 1e-2 * (width < 16 ? 4 : 1);
    if (compare_rows(&w, &a, bound)) compare_split(fn, &a, width);
}

/* A window has the bits of full attention in which every key before it has no weight: keys that point away from the query. */
static void mask_case(prefill_fn *fn, uint32_t width, uint32_t heads, uint32_t first, uint32_t window)
{
    checkasm_case("width=%u heads=%u first=%u window=%u against a mask", width, heads, first, window);
    world w;
    make_world(&w, width, first + 1, 1, 0);
    mq_attention a = make_call(checkasm.tested, &w, heads, first, 1);
    const size_t count = (size_t)heads * width;
    float *q = checkasm_floats(count), *full = a.out;
    for (size_t i = 0; i < count; i++) { /* all heads alike */
        q[i] = i % 2 ? 1.0f : -1.0f;
    }
    a.q = q;
    for (uint32_t t = 0; t < window_begin(window, first); t++) {
        uint16_t *key = w.pages[t / MQ_PAGE_TOKENS] + w.view.k_offset + t % MQ_PAGE_TOKENS * width;
        for (uint32_t i = 0; i < width; i++) {
            key[i] = checkasm_bf16(i % 2 ? -400.0f : 400.0f);
        }
    }
    fn(&a);
    a.window = window;
    a.out = checkasm_floats(count);
    fn(&a);
    checkasm_same_f32(full, a.out, 1, count, count);
}

static void check_windows(prefill_fn *fn)
{
    static const uint32_t windows[] = {1, 2, 31, 64, 100, 256, 300, 1000};
    static const uint32_t starts[] = {0, 63, 64, 127, 300, 511, 1030};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        for (size_t j = 0; j < sizeof starts / sizeof starts[0]; j++) {
            const uint32_t width = 2 * (uint32_t)(2 + checkasm_below(40)), heads = (uint32_t)(1 + checkasm_below(9));
            window_case(fn, width, heads, starts[j], (uint32_t)(1 + checkasm_below(60)), windows[i]);
            mask_case(fn, 64, heads, starts[j], windows[i]);
        }
    }
    window_case(fn, 256, 2, 500, 300, 128); /* several tiles of rows */
    window_case(fn, 512, 8, 90, 40, 77);    /* the widths and ratios of Gemma 4 */
    window_case(fn, 256, 2, 1100, 40, 1024);
    window_case(fn, 8, 500, 70, 3, 5); /* more heads than a tile has rows */
}

static void check_prefill(prefill_fn *fn)
{
    static const uint32_t widths[] = {4, 8, 16, 30, 32, 34, 64, 80, 96, 128, 130, 256};
    static const uint32_t starts[] = {0, 1, 15, 63, 64, 100, 127, 128, 129, 300};
    for (size_t i = 0; i < 12; i++) {
        for (size_t j = 0; j < 10; j++) {
            const uint32_t heads = (uint32_t)(1 + checkasm_below(9)), rows = (uint32_t)(1 + checkasm_below(60));
            prefill_case(fn, widths[i], heads, starts[j], rows, checkasm_uniform(0.1f, 3), 0);
        }
    }
    for (uint32_t rows = 1; rows <= 17; rows++) {
        prefill_case(fn, 16, 3, rows * 5, rows, 1, 0);
    }
    prefill_case(fn, 128, 2, 0, 400, 1, 0);     /* more than one tile of rows */
    prefill_case(fn, 128, 40, 120, 20, 1, 0);   /* many heads */
    prefill_case(fn, 8, 500, 70, 3, 1, 0);      /* more heads than a tile has rows */
    prefill_case(fn, 1024, 3, 70, 5, 1, 0);     /* the widest */
    prefill_case(fn, 64, 2, 0, 600, 0, 0);      /* all scores equal */
    prefill_case(fn, 64, 2, 0, 600, 1, 0.01f);  /* the maximum moves on */
    prefill_case(fn, 64, 2, 0, 600, 5, -0.01f); /* late keys are worth nothing against the first */
    check_windows(fn);
    check_slope(0, fn == checkasm.tested->attention_prefill ? 1e-6 : 2e-4);
}

/* ------------------------------------------------------------------ INT8 */

/* NEON without dot products has the FP32 kernel in both slots. */
static bool has_int8(void)
{
    const mq_kernels *table = mq__kernels_get(checkasm.isa);
    return table->attention_prefill_int8 != table->attention_prefill;
}

/* The same rows in two pieces: the same bits. */
static void compare_int8_split(const mq_attention *whole, uint32_t width)
{
    const size_t count = (whole->rows - 1) * whole->out_stride + (size_t)whole->heads * width;
    float *out = checkasm_floats(count);
    mq_attention part = *whole;
    const uint32_t cut = (uint32_t)checkasm_below(whole->rows);
    part.out = out;
    part.rows = cut;
    if (cut) checkasm.tested->attention_prefill_int8(&part);
    part.first = whole->first + cut;
    part.rows = whole->rows - cut;
    part.q = whole->q + cut * whole->q_stride;
    part.out = out + cut * whole->out_stride;
    checkasm.tested->attention_prefill_int8(&part);
    checkasm_same_f32(whole->out, out, 1, count, count);
}

/* Against the definition, where the level has it, and against the exact softmax. shift: a constant in all keys of a
 * channel, as the biases of some models have it, which K smoothing takes out. */
static void int8_case(uint32_t width, uint32_t heads, uint32_t first, uint32_t rows, float deviation, float shift)
{
    checkasm_case("width=%u heads=%u first=%u rows=%u deviation=%g shift=%g", width, heads, first, rows,
                  (double)deviation, (double)shift);
    world w;
    make_world(&w, width, first + rows, deviation, 0);
    for (uint32_t t = 0; t < w.tokens; t++) {
        uint16_t *key = w.pages[t / MQ_PAGE_TOKENS] + w.view.k_offset + t % MQ_PAGE_TOKENS * width;
        for (uint32_t i = 0; i < width; i += 3)
            key[i] = checkasm_bf16(widen(key[i]) + shift);
    }
    mq_attention a = make_call(checkasm.tested, &w, heads, first, rows);
    checkasm.tested->attention_prefill_int8(&a);
    const size_t count = (size_t)heads * width;
    double *exact = checkasm_buffer(count * sizeof *exact, sizeof *exact);
    mq_attention one = a;
    one.scratch = checkasm_aligned(checkasm.ref->attention_scratch_bytes(heads, width));
    one.rows = 1;
    for (uint32_t i = 0; i < 4; i++) { /* of all rows the ends, and one in between */
        const uint32_t t = i == 0 ? 0 : i == 1 ? rows - 1 : (uint32_t)checkasm_below(rows);
        const float *q = a.q + t * a.q_stride, *out = a.out + t * a.out_stride;
        for (uint32_t h = 0; h < heads; h++)
            truth(&w, q + h * width, 0, first + t + 1, a.scale, exact + h * width);
        const double hard = (width < 16   ? 4
                             : width < 64 ? 2
                                          : 1) *
                            (deviation > 1 ? 4 : 1); /* few values, few weights */
        checkasm_within(exact, out, count, 4e-2 * hard);
        if (first + t >= MQ_ATTENTION_TILE) add_slope(0, exact, out, count);
        if (!has_int8()) continue;
        one.q = q;
        one.first = first + t;
        one.out = checkasm_floats(count);
        mq__attention_int8_define(&one, checkasm.tested->attention_int8_most);
        for (size_t j = 0; j < count; j++)
            exact[j] = (double)one.out[j];
        checkasm_within(exact, out, count, 1.5e-2 * hard);
        if (first + t >= MQ_ATTENTION_TILE) add_slope(1, exact, out, count);
    }
    compare_int8_split(&a, width);
}

/* Keys are plus or minus one pattern and the query has its signs: every code and every dot product is as large or as small as it
 * can be. Half of the keys weigh the more, by a factor that the query's size sets. */
static void int8_extreme_case(uint32_t width)
{
    checkasm_case("width=%u, largest dot products", width);
    world w;
    make_world(&w, width, 2 * MQ_ATTENTION_TILE + 9, 0, 0);
    float *q = checkasm_floats(width);
    for (uint32_t i = 0; i < width; i++) {
        const float sign = checkasm_below(2) ? 1.0f : -1.0f;
        q[i] = 0.5f * sign / sqrtf((float)width); /* scores of +-0.5 */
        for (uint32_t t = 0; t < w.tokens; t++) {
            uint16_t *page = w.pages[t / MQ_PAGE_TOKENS] + t % MQ_PAGE_TOKENS * width;
            page[w.view.k_offset + i] = checkasm_bf16(t % 2 ? -sign : sign);
            page[w.view.v_offset + i] = checkasm_bf16(t % 2 ? 1.0f : -1.0f);
        }
    }
    mq_attention a = make_call(checkasm.tested, &w, 1, w.tokens - 1, 1);
    a.q = q;
    checkasm.tested->attention_prefill_int8(&a);
    double *exact = checkasm_buffer(width * sizeof *exact, sizeof *exact);
    truth(&w, q, 0, w.tokens, a.scale, exact);
    checkasm_within(exact, a.out, width, 5e-3); /* the smaller weight is 93.8 of 255, rounded to 94 */
    if (!has_int8()) return;
    mq_attention definition = a;
    definition.scratch = checkasm_aligned(checkasm.ref->attention_scratch_bytes(1, width));
    definition.out = checkasm_floats(width);
    mq__attention_int8_define(&definition, checkasm.tested->attention_int8_most);
    for (uint32_t i = 0; i < width; i++)
        exact[i] = (double)definition.out[i];
    checkasm_within(exact, a.out, width, 1e-3);
}

/* All keys but the last weigh the same. A weight that rounding of huge scores makes too large must not wrap around. */
static void int8_equal_case(uint32_t width, float score, double bound)
{
    checkasm_case("width=%u, equal scores of %g", width, (double)score);
    world w;
    const uint32_t earlier = 2 * MQ_ATTENTION_TILE;
    float *q = checkasm_floats(width);
    double *exact = checkasm_buffer(width * sizeof *exact, sizeof *exact);
    make_world(&w, width, earlier + 1, 0, 0);
    for (uint32_t i = 0; i < width; i++) {
        q[i] = score / sqrtf((float)width);
        exact[i] = (i % 2 ? -3 : 3) * (earlier / (earlier + exp(-2 * (double)score)));
        for (uint32_t t = 0; t < w.tokens; t++) {
            uint16_t *page = w.pages[t / MQ_PAGE_TOKENS] + t % MQ_PAGE_TOKENS * width;
            page[w.view.k_offset + i] = checkasm_bf16(t == earlier ? -1 : 1);
            page[w.view.v_offset + i] = checkasm_bf16(t == earlier ? 0 : i % 2 ? -3.0f : 3.0f);
        }
    }
    mq_attention a = make_call(checkasm.tested, &w, 1, earlier, 1);
    a.q = q;
    checkasm.tested->attention_prefill_int8(&a);
    checkasm_within(exact, a.out, width, bound);
}

static void check_int8(void)
{
    static const uint32_t widths[] = {4, 16, 30, 64, 80, 128, 130, 256, 512, 1024};
    for (uint32_t width = 64; width <= 1024; width += 64)
        int8_extreme_case(width);
    for (uint32_t i = 0; i < 20; i++)
        int8_equal_case(64 + i % 2 * 64, i < 4 ? 1 : 65536 + (float)checkasm_below(131072), i < 4 ? 1e-5 : 1e-2);
    static const uint32_t starts[] = {0, 1, 255, 256, 300, 511, 700};
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        for (size_t j = 0; j < sizeof starts / sizeof starts[0]; j++) {
            int8_case(widths[i], (uint32_t)(1 + checkasm_below(6)), starts[j], (uint32_t)(1 + checkasm_below(90)), 1,
                      0);
        }
    }
    int8_case(128, 2, 0, 600, 1, 0);   /* several tiles of rows */
    int8_case(128, 40, 250, 20, 1, 0); /* many heads, a tile boundary */
    int8_case(64, 4, 1000, 30, 1, 8);  /* biased keys */
    int8_case(64, 4, 1000, 30, 0, 0);  /* all keys equal: scales of zero */
    int8_case(64, 1, 1500, 5, 3, 0);   /* few keys weigh */
    check_slope(0, has_int8() ? 1.5e-3 : 1e-6);
    check_slope(1, 4e-4);
}

/* Two kv heads in one call; then the second one alone: the same bits. */
static void decode_window_case(mq_decode_span_fn *tested, uint32_t width, uint32_t heads, uint32_t keys,
                               uint32_t window, float deviation, float growth)
{
    checkasm_case("width=%u heads=%u keys=%u window=%u deviation=%g growth=%g", width, heads, keys, window,
                  (double)deviation, (double)growth);
    world w;
    make_world(&w, width, keys, deviation, growth);
    const uint32_t begin = window_begin(window, keys - 1), first_span = begin / MQ_SPAN_TOKENS;
    forget_pages(&w, begin);
    mq_attention a = make_call(checkasm.tested, &w, 2 * heads, keys - 1, 1), second = a;
    a.scratch = checkasm_aligned(checkasm.tested->attention_scratch_bytes(heads, width));
    a.heads = second.heads = heads;
    second.q += (size_t)heads * width;
    second.out += (size_t)heads * width;
    second.kv.k_offset += 2 * (size_t)MQ_PAGE_TOKENS * width;
    second.kv.v_offset += 2 * (size_t)MQ_PAGE_TOKENS * width;
    a.window = second.window = window;
    const uint32_t spans = (keys + MQ_SPAN_TOKENS - 1) / MQ_SPAN_TOKENS - first_span;
    const size_t each = (size_t)heads * (width + 2), stride = spans * each + 5;
    float *partials = checkasm_floats(stride + spans * each), *alone = checkasm_floats(spans * each);
    for (uint32_t s = spans; s-- > 0;) {
        tested(&a, 2, first_span + s, partials + s * each, stride, 0);
        tested(&second, 1, first_span + s, alone + s * each, 0, 0);
    }
    checkasm_same_f32(alone, partials + stride, 1, spans * each, spans * each);
    for (uint32_t s = 0; s < spans; s++) { /* another variant of the level has the same bits */
        mq__kernels_get(checkasm.isa)->attention_decode_span(&second, 1, first_span + s, alone + s * each, 0, 0);
    }
    checkasm_same_f32(alone, partials + stride, 1, spans * each, spans * each);
    checkasm.tested->attention_decode_merge(&a, spans, partials);
    checkasm.tested->attention_decode_merge(&second, spans, partials + stride);
    if (!compare_rows(&w, &a, 1e-5)) return;
    w.view = second.kv;
    compare_rows(&w, &second, 1e-5);
}

static void decode_case(mq_decode_span_fn *tested, uint32_t width, uint32_t heads, uint32_t keys, float deviation,
                        float growth)
{
    decode_window_case(tested, width, heads, keys, 0, deviation, growth);
}

/* The rows of a call, and each alone: the same bits, and nothing is written for a row that sees nothing of a span. The newest
 * token's values are infinite, which no row before it may notice. */
static void decode_rows_case(mq_decode_span_fn *tested, uint32_t width, uint32_t heads, uint32_t first, uint32_t rows,
                             uint32_t window)
{
    checkasm_case("width=%u heads=%u first=%u rows=%u window=%u", width, heads, first, rows, window);
    const uint32_t kv_heads = 2 * rows <= MQ_DECODE_KV_HEADS ? 2 : 1, newest = first + rows - 1;
    world w;
    make_world(&w, width, first + rows, 1, 0);
    for (size_t i = 0; i < (size_t)kv_heads * width; i++) {
        const size_t at = i / width * 2 * MQ_PAGE_TOKENS * width + newest % MQ_PAGE_TOKENS * width + i % width;
        w.pages[newest / MQ_PAGE_TOKENS][w.view.v_offset + at] = 0x7f80;
    }
    forget_pages(&w, window_begin(window, first));
    mq_attention a = make_call(checkasm.tested, &w, kv_heads * heads, first, rows);
    a.scratch = checkasm_aligned(checkasm.tested->attention_scratch_bytes(heads, width));
    a.heads = heads;
    a.window = window;
    const size_t head_step = (size_t)heads * (width + 2) + 3, row_step = kv_heads * head_step + 5;
    const size_t count = rows * row_step;
    for (uint32_t span = window_begin(window, first) / MQ_SPAN_TOKENS; span <= newest / MQ_SPAN_TOKENS; span++) {
        float *together = checkasm_floats(count), *alone = checkasm_floats(count);
        tested(&a, kv_heads, span, together, head_step, row_step);
        for (uint32_t t = 0; t < rows; t++) {
            mq_attention one = a;
            one.q += t * a.q_stride;
            one.first += t;
            one.rows = 1;
            if (span * MQ_SPAN_TOKENS > one.first) continue;
            if ((span + 1) * MQ_SPAN_TOKENS <= window_begin(window, one.first)) continue;
            tested(&one, kv_heads, span, alone + t * row_step, head_step, 0);
        }
        checkasm_same_f32(alone, together, 1, count, count);
    }
}

static void check_decode_rows(mq_decode_span_fn *tested)
{
    static const uint32_t widths[] = {4, 34, 64, 80, 128, 256};
    static const uint32_t firsts[] = {0, 1, 57, 64, 127, 300, 505, 511, 512, 1020, 1500};
    for (uint32_t rows = 1; rows <= MQ_DECODE_KV_HEADS; rows++) {
        for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
            const uint32_t width = widths[checkasm_below(6)];
            decode_rows_case(tested, width, (uint32_t)(1 + checkasm_below(5)), firsts[i], rows, 0);
            decode_rows_case(tested, width, (uint32_t)(1 + checkasm_below(5)), firsts[i], rows,
                             (uint32_t)(1 + checkasm_below(700)));
        }
    }
    for (uint32_t heads = 1; heads <= 20; heads++) {
        decode_rows_case(tested, 64, heads, 190, 1 + heads % MQ_DECODE_KV_HEADS, 0);
    }
    for (uint32_t first = 1020; first < 1030; first++) { /* windows that begin in two spans */
        decode_rows_case(tested, 128, 2, first, 4, 512);
    }
}

static void check_decode(mq_decode_span_fn *tested)
{
    static const uint32_t widths[] = {4, 8, 16, 34, 64, 80, 128, 256};
    static const uint32_t lengths[] = {1, 2, 15, 16, 17, 63, 64, 65, 200, 1023, 1024, 1025, 2500};
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < 13; j++) {
            decode_case(tested, widths[i], (uint32_t)(1 + checkasm_below(9)), lengths[j], checkasm_uniform(0.1f, 3), 0);
        }
    }
    for (uint32_t heads = 1; heads <= 20; heads++) {
        decode_case(tested, 128, heads, 77 + heads, 1, 0);
    }
    decode_case(tested, 1024, 3, 100, 1, 0);
    decode_case(tested, 128, 2, 3000, 0, 0);
    decode_case(tested, 128, 2, 3000, 0.3f, 0.001f);
    decode_case(tested, 128, 2, 3000, 4, -0.001f);
    static const uint32_t windows[] = {1, 2, 63, 64, 65, 200, 511, 512, 700};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        for (size_t j = 0; j < 13; j++) {
            decode_window_case(tested, widths[j % 8], (uint32_t)(1 + checkasm_below(9)), lengths[j], windows[i], 1, 0);
        }
    }
    decode_window_case(tested, 256, 2, 2500, 1024, 1, 0); /* the widths and ratios of Gemma 4 */
    decode_case(tested, 512, 8, 700, 1, 0);
    check_decode_rows(tested);
}

static void check_merge(void)
{
    for (int i = 0; i < 200; i++) {
        const uint32_t width = 2 * (uint32_t)(1 + checkasm_below(70)), heads = (uint32_t)(1 + checkasm_below(9));
        const uint32_t spans = (uint32_t)(1 + checkasm_below(12));
        checkasm_case("width=%u heads=%u spans=%u", width, heads, spans);
        const size_t count = (size_t)heads * width, each = (size_t)heads * (width + 2);
        float *partials = checkasm_floats(spans * each), *expected = checkasm_floats(count);
        float *got = checkasm_floats(count);
        checkasm_fill_normal(partials, spans * each, 10);
        for (size_t h = 0; h < spans * (size_t)heads; h++) {
            partials[h * (width + 2) + width + 1] = checkasm_uniform(1, 1024);
            partials[h * (width + 2) + width] *= checkasm_below(8) ? 1 : 20; /* beyond the exponential's range, too */
        }
        mq_attention a = {.kv.head_dim = width, .heads = heads, .rows = 1, .out = expected};
        checkasm.ref->attention_decode_merge(&a, spans, partials);
        a.out = got;
        checkasm.tested->attention_decode_merge(&a, spans, partials);
        checkasm_same_f32(expected, got, 1, count, count);
    }
}

static void check(void)
{
    if (checkasm_slot("attention_prefill")) check_prefill(checkasm.tested->attention_prefill);
    if (checkasm_slot("attention_prefill_bf16")) check_prefill(checkasm.tested->attention_prefill_bf16);
    if (checkasm_slot("attention_prefill_int8")) check_int8();
    if (checkasm_slot("attention_decode_span")) check_decode(checkasm.tested->attention_decode_span);
    if (checkasm_slot("attention_decode_merge")) check_merge();
}

CHECKASM_SUITE(attention, check, checkasm_bench_attention)
