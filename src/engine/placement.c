/* Where weights lie.
 *
 * On machines with several nodes: in the memory of the threads that read them. A map of a file lies wherever the page cache has
 * put it; a page of new memory lies on the node of the thread that touches it first. So each thread copies the panels that the
 * products will give it, by the same partition as there (model/share.h), into memory that nobody has touched. The threads are
 * bound to processors (base/pool.h), or they would not stay with their memory.
 *
 * Elsewhere: in large pages, in time. A file map has pages of 4 KiB, whose translations a core that streams weights has to look
 * up all the time (Zen 4: 0.93 of what it reads from pages of 2 MiB; decode 2 to 12% faster). Copying all of them at the start
 * would cost a second for every few GB, so a slice is copied after each decode step of a long sequence: what answers with a few
 * words does not pay for it. */
#include "base/checked.h"
#include "base/error.h"
#include "base/mem.h"
#include "engine/weights.h"
#include "mixquant_tools.h"
#include "model/share.h"

#include <string.h>

#define LINE  64
#define PANEL MQ_NVFP4_NR /* features per unit of the partition, as in model/linear.c */
_Static_assert((int)PANEL == (int)MQ_INT8_NR, "all faces have panels of so many features");

mq_status mq_placement_parse(const char *name, mq_placement *placement, mq_error *error)
{
    static const char *const names[] = {"auto", "off", "on"}; /* in the order of mq_placement */
    for (int i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *placement = (mq_placement)i;
        return MQ_OK;
    }
    return mq__fail(error, MQ_USAGE, "placement: expected auto, on or off, got %s", name);
}

typedef struct item {
    const uint8_t *from;
    uint8_t *to;
    size_t units, unit_bytes, bytes;
} item;

/* Linear layers that are multiplied together. */
typedef struct group {
    item item[3];
    int count;
} group;

static void copy_part(void *context, int thread, int threads)
{
    const group *g = context;
    size_t total = 0, base = 0, begin, end, u0, u1;
    for (int i = 0; i < g->count; i++) {
        total += g->item[i].units;
    }
    mq__partition(total, thread, threads, &begin, &end);
    for (int i = 0; i < g->count; base += g->item[i++].units) {
        const item *at = &g->item[i];
        if (!mq__group_part(base, at->units, begin, end, &u0, &u1)) continue;
        const size_t last = u1 * at->unit_bytes < at->bytes ? u1 * at->unit_bytes : at->bytes;
        memcpy(at->to + u0 * at->unit_bytes, at->from + u0 * at->unit_bytes, last - u0 * at->unit_bytes);
    }
}

static item item_of(mq_face face, const mq_linear *linear)
{
    item it = {.units = (linear->n + PANEL - 1) / PANEL};
    if (face == MQ_FACE_DENSE) {
        it.from = linear->dense.data;
        it.unit_bytes = (size_t)PANEL * linear->k_width * (linear->dense.type == MQ_DENSE_F32 ? 4 : 2);
        it.bytes = it.unit_bytes / PANEL * linear->n;
    } else if (face == MQ_FACE_FP8) {
        it.from = linear->fp8.data;
        it.unit_bytes = (size_t)PANEL * linear->k_width * sizeof(float);
        it.bytes = mq__face_bytes(face, linear);
    } else {
        it.from = face == MQ_FACE_INT8 ? linear->int8.panels : linear->nvfp4.panels;
        it.bytes = mq__face_bytes(face, linear);
        it.unit_bytes = it.bytes / it.units;
    }
    return it;
}

/* The head follows the layers' linear maps. */
static mq_linear *linear_at(mq_weights *w, size_t i)
{
    return i < w->module_count ? w->module[i].linear : &w->model.head;
}

static void use(mq_linear *linear, mq_face face, const uint8_t *data)
{
    if (face == MQ_FACE_DENSE) {
        linear->dense.data = data;
    } else {
        mq__face_set(linear, face, data, linear->nvfp4.multiplier);
    }
}

/* Linear layers [first, last), those of them that have the face. */
static mq_status place_group(mq_weights *w, mq_face face, mq_pool *pool, size_t first, size_t last, mq_error *error)
{
    group g = {.count = 0};
    for (size_t i = first; i < last; i++) {
        item it = item_of(face, linear_at(w, i));
        if (!it.from) return MQ_OK;
        it.to = w->face[face].placed[i] = mq__alloc_aligned(it.bytes);
        if (!it.to) {
            return mq__fail(error, MQ_NO_MEMORY, "model: placement: expected %zu bytes of memory, got none", it.bytes);
        }
        g.item[g.count++] = it;
    }
    mq__pool_run(pool, copy_part, &g);
    for (size_t i = first; i < last; i++) {
        use(linear_at(w, i), face, g.item[i - first].to);
        if (face == MQ_FACE_DENSE) continue;       /* borrowed from the map */
        mq__free_aligned(w->face[face].panels[i]); /* the copy is the only one from now on */
        w->face[face].panels[i] = NULL;
    }
    return MQ_OK;
}

mq_status mq__weights_place(mq_weights *w, mq_face face, mq_pool *pool, mq_error *error)
{
    const size_t linears = w->module_count, count = linears + (face == MQ_FACE_DENSE);
    if (w->face[face].placed) return MQ_OK;
    w->face[face].placed = mq__alloc_zero(count, sizeof *w->face[face].placed);
    if (!w->face[face].placed) return mq__fail(error, MQ_NO_MEMORY, "model: placement: expected memory, got none");
    mq_status status = MQ_OK;
    for (size_t first = 0, last; status == MQ_OK && first < count; first = last) {
        last = first < linears ? mq__fused_end(w, first) : count; /* the head is a group of its own */
        status = place_group(w, face, pool, first, last, error);
    }
    return status;
}

/* ---- little by little */

typedef struct slice {
    const uint8_t *from;
    uint8_t *to;
    size_t bytes;
} slice;

static void copy_slice(void *context, int thread, int threads)
{
    const slice *s = context;
    size_t begin, end;
    mq__partition(s->bytes, thread, threads, &begin, &end);
    memcpy(s->to + begin, s->from + begin, end - begin);
}

/* Plans with a packed head do not read the dense one. */
static size_t face_linears(const mq_weights *w, mq_face face)
{
    return w->module_count + (face == MQ_FACE_DENSE && !w->head_panels);
}

/* What there is to move of linear layer i: only maps of files, not memory (a packed face without a cache, FP8 that was multiplied out),
 * and no expert that stays. */
static item item_to_settle(mq_weights *w, mq_face face, size_t i, bool experts)
{
    const mq_module *m = i < w->module_count ? &w->module[i] : NULL; /* NULL: the head */
    const bool is_expert = m && mq__rule_scope(m->rule) == MQ_SCOPE_EXPERT;
    const bool mapped = face == MQ_FACE_DENSE ? !(m && m->is_fp8) : w->face[face].file.map.data != NULL;
    return mapped && (experts || !is_expert) ? item_of(face, linear_at(w, i)) : (item){.from = NULL};
}

uint64_t mq__weights_settle_bytes(mq_weights *w, mq_face face, bool experts)
{
    uint64_t total = 0;
    if (w->face[face].settling.block || w->face[face].placed) return 0;
    for (size_t i = 0; i < face_linears(w, face); i++) {
        const item it = item_to_settle(w, face, i, experts);
        total += it.from ? mq__round_up(it.bytes, LINE) : 0;
    }
    return total;
}

void mq__weights_settle_begin(mq_weights *w, mq_face face, bool experts)
{
    const uint64_t total = mq__weights_settle_bytes(w, face, experts);
    if (total == 0) return;
    /* no memory: everything stays where it is */
    w->face[face].settling = (mq_settling){.block = mq__alloc_aligned(total), .experts = experts};
}

bool mq__weights_settle(mq_weights *w, mq_face face, mq_pool *pool, size_t bytes)
{
    mq_settling *s = &w->face[face].settling;
    const size_t count = s->block ? face_linears(w, face) : 0;
    while (bytes > 0 && s->next < count) {
        mq_linear *linear = linear_at(w, s->next);
        const item it = item_to_settle(w, face, s->next, s->experts);
        const size_t left = it.from ? it.bytes - s->copied : 0, some = left < bytes ? left : bytes;
        if (some > 0) {
            slice piece = {it.from + s->copied, s->block + s->used + s->copied, some};
            mq__pool_run(pool, copy_slice, &piece);
            s->copied += some;
            bytes -= some;
        }
        if (some < left) break;
        if (it.from) use(linear, face, s->block + s->used);
        s->used += mq__round_up(s->copied, LINE);
        s->copied = 0;
        s->next++;
    }
    return s->next < count;
}
