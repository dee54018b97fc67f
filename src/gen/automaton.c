#include "gen/automaton.h"

#include "base/error.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define DEPTH_MOST  256  /* rules that wait for each other */
#define STATES_TRIM 1024 /* more of them are forgotten between two tokens */
#define STATES_MOST 8192
#define PLACES_MOST (1u << 18) /* of all states; also waiting rules */
#define WORK_MOST   (1u << 18) /* places looked at between two tokens: what is beyond is not allowed */
#define MASKS_MOST  32
#define BUCKETS     4096u

/* A rule that waits: where it goes on, and who waits for it in turn (0: nobody). */
typedef struct waiting {
    uint32_t at, parent, depth, next; /* next: of the hash chain */
} waiting;

typedef struct place {
    uint32_t at, stack;
} place;

typedef struct state {
    uint32_t first, count; /* of places */
    uint32_t bucket_next;
    bool final;
    uint32_t *mask;
    mq_byte_set any;    /* the bytes that some place takes */
    uint32_t next[256]; /* UNKNOWN, or a state */
} state;

#define UNKNOWN UINT32_MAX

struct mq_automaton {
    const mq_grammar *g;
    waiting *stack; /* [stack_count]; 0 is nobody */
    size_t stack_count, stack_room;
    uint32_t stack_bucket[BUCKETS];
    place *places; /* [place_count] */
    size_t place_count, place_room;
    state **states; /* [state_count]; 0 is MQ_DEAD */
    size_t state_count, state_room;
    uint32_t state_bucket[BUCKETS];
    size_t masks;
    place *work; /* [work_count] places that are being followed, and what came of them */
    size_t work_count, work_room;
    uint32_t *chain; /* [work_count] the next one of the same hash + 1 */
    size_t chain_room;
    struct {
        uint32_t round, last;
    } work_bucket[BUCKETS]; /* of an earlier round: empty */
    uint32_t round;
    size_t budget;    /* of WORK_MOST */
    bool final, full; /* full: something was left out for want of room */
};

/* ---- memory */

static bool room_in(void **block, size_t count, size_t *room, size_t bytes)
{
    if (count < *room) return true;
    const size_t more = *room ? 2 * *room : 64;
    void *larger = mq__realloc(*block, more * bytes);
    if (!larger) return false;
    *block = larger;
    *room = more;
    return true;
}

#define ROOM(block, count, room) room_in((void **)&(block), count, &(room), sizeof *(block))

/* All but MQ_DEAD, and all that wait. */
static void forget_states(mq_automaton *a)
{
    for (size_t i = 1; i < a->state_count; i++) {
        mq__free(a->states[i]->mask);
        mq__free(a->states[i]);
    }
    a->state_count = a->stack_count = 1;
    a->place_count = a->masks = 0;
    a->full = false;
    memset(a->state_bucket, 0, sizeof a->state_bucket);
    memset(a->stack_bucket, 0, sizeof a->stack_bucket);
}

/* ---- stacks: equal ones are one */

static uint32_t push_waiting(mq_automaton *a, uint32_t at, uint32_t parent)
{
    const uint32_t key[2] = {at, parent}, bucket = (uint32_t)XXH3_64bits(key, sizeof key) % BUCKETS;
    for (uint32_t i = a->stack_bucket[bucket]; i; i = a->stack[i].next) {
        if (a->stack[i].at == at && a->stack[i].parent == parent) return i;
    }
    const uint32_t depth = a->stack[parent].depth + 1;
    if (depth > DEPTH_MOST) return 0;
    if (a->stack_count >= PLACES_MOST || !ROOM(a->stack, a->stack_count, a->stack_room)) {
        a->full = true;
        return 0;
    }
    a->stack[a->stack_count] = (waiting){at, parent, depth, a->stack_bucket[bucket]};
    a->stack_bucket[bucket] = (uint32_t)a->stack_count;
    return (uint32_t)a->stack_count++;
}

/* ---- following what needs no byte */

static void begin_work(mq_automaton *a)
{
    a->work_count = 0;
    if (++a->round == 0) { /* all rounds have been */
        memset(a->work_bucket, 0, sizeof a->work_bucket);
        a->round = 1;
    }
}

/* A place from which an end can be reached, once. A state never holds others, so there is always a way on. */
static void add_work(mq_automaton *a, uint32_t at, uint32_t stack)
{
    if (a->g->need[at] > DEPTH_MOST - a->stack[stack].depth) return;
    const uint32_t key[2] = {at, stack}, bucket = (uint32_t)XXH3_64bits(key, sizeof key) % BUCKETS;
    const uint32_t last = a->work_bucket[bucket].round == a->round ? a->work_bucket[bucket].last : 0;
    for (uint32_t i = last; i; i = a->chain[i - 1]) {
        if (a->work[i - 1].at == at && a->work[i - 1].stack == stack) return;
    }
    if (a->work_count >= PLACES_MOST || !ROOM(a->work, a->work_count, a->work_room) ||
        !ROOM(a->chain, a->work_count, a->chain_room)) {
        a->full = true;
        return;
    }
    if (a->budget) a->budget--;
    a->work[a->work_count] = (place){at, stack};
    a->chain[a->work_count++] = last;
    a->work_bucket[bucket].round = a->round;
    a->work_bucket[bucket].last = (uint32_t)a->work_count;
}

static void follow_call(mq_automaton *a, place p)
{
    const mq_instruction *in = &a->g->code[p.at];
    if (in[1].op == MQ_OP_RETURN) { /* nothing is left to do here: whoever waits for this rule waits for that one */
        add_work(a, a->g->rule[in->a], p.stack);
        return;
    }
    const uint32_t stack = push_waiting(a, p.at + 1, p.stack);
    if (stack) add_work(a, a->g->rule[in->a], stack);
}

/* From the places in work to those that want a byte; they stay in work. */
static void follow_work(mq_automaton *a)
{
    size_t kept = 0;
    a->final = false;
    for (size_t i = 0; i < a->work_count; i++) {
        const place p = a->work[i];
        const mq_instruction *in = &a->g->code[p.at];
        switch (in->op) {
        case MQ_OP_SPLIT:
            add_work(a, in->a, p.stack);
            add_work(a, in->b, p.stack);
            break;
        case MQ_OP_JUMP:
            add_work(a, in->a, p.stack);
            break;
        case MQ_OP_CALL:
            follow_call(a, p);
            break;
        case MQ_OP_RETURN:
            if (p.stack)
                add_work(a, a->stack[p.stack].at, a->stack[p.stack].parent);
            else
                a->final = true;
            break;
        case MQ_OP_SET:
        case MQ_OP_FAIL:
            break;
        }
    }
    for (size_t i = 0; i < a->work_count; i++) {
        if (a->g->code[a->work[i].at].op == MQ_OP_SET) a->work[kept++] = a->work[i];
    }
    a->work_count = kept;
}

/* ---- states */

static int compare_places(const void *a, const void *b)
{
    const place *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->stack < y->stack ? -1 : x->stack > y->stack;
}

/* A state of more places than a quarter of the room loses some: there is room for the one that follows, too. */
static size_t sort_work(mq_automaton *a)
{
    if (a->work_count > 1) qsort(a->work, a->work_count, sizeof *a->work, compare_places);
    if (a->work_count <= PLACES_MOST / 4) return a->work_count;
    a->full = true;
    return PLACES_MOST / 4;
}

static uint32_t no_state_room(mq_automaton *a)
{
    a->full = true;
    return MQ_DEAD;
}

/* The state that is the places in work, which were followed. */
static uint32_t state_of_work(mq_automaton *a)
{
    const size_t count = sort_work(a);
    if (count == 0 && !a->final) return MQ_DEAD;
    const uint32_t bucket = (uint32_t)XXH3_64bits(a->work, count * sizeof *a->work) % BUCKETS;
    for (uint32_t i = a->state_bucket[bucket]; i; i = a->states[i]->bucket_next) {
        const state *s = a->states[i];
        if (s->count == count && s->final == a->final &&
            (count == 0 || memcmp(a->places + s->first, a->work, count * sizeof *a->work) == 0)) {
            return i;
        }
    }
    if (a->state_count >= STATES_MOST || a->place_count + count > PLACES_MOST) return no_state_room(a);
    while (a->place_count + count > a->place_room) {
        if (!room_in((void **)&a->places, a->place_room, &a->place_room, sizeof *a->places)) return no_state_room(a);
    }
    state *s = ROOM(a->states, a->state_count, a->state_room) ? mq__alloc_zero(1, sizeof *s) : NULL;
    if (!s) return no_state_room(a);
    *s = (state){.first = (uint32_t)a->place_count,
                 .count = (uint32_t)count,
                 .bucket_next = a->state_bucket[bucket],
                 .final = a->final};
    memset(s->next, 0xff, sizeof s->next);
    if (count) memcpy(a->places + a->place_count, a->work, count * sizeof *a->work);
    a->place_count += count;
    for (size_t i = 0; i < count; i++) {
        const mq_byte_set *set = &a->g->set[a->g->code[a->work[i].at].a];
        for (size_t w = 0; w < 8; w++) {
            s->any.bits[w] |= set->bits[w];
        }
    }
    a->states[a->state_count] = s;
    a->state_bucket[bucket] = (uint32_t)a->state_count;
    return (uint32_t)a->state_count++;
}

/* MQ_DEAD and nobody. */
static bool begin_states(mq_automaton *a)
{
    if (!ROOM(a->states, 0, a->state_room) || !ROOM(a->stack, 0, a->stack_room)) return false;
    a->states[0] = mq__alloc_zero(1, sizeof(state));
    if (!a->states[0]) return false;
    a->state_count = a->stack_count = 1;
    a->stack[0] = (waiting){0};
    return true;
}

uint32_t mq__automaton_step(mq_automaton *a, uint32_t at, uint8_t byte)
{
    state *s = a->states[at];
    if (at == MQ_DEAD) return MQ_DEAD;
    if (s->next[byte] != UNKNOWN) return s->next[byte];
    if (!mq__set_has(&s->any, byte)) return MQ_DEAD;
    if (a->budget == 0) return no_state_room(a);
    a->budget -= s->count < a->budget ? s->count : a->budget;
    begin_work(a);
    for (uint32_t i = 0; i < s->count; i++) {
        const place p = a->places[s->first + i];
        if (mq__set_has(&a->g->set[a->g->code[p.at].a], byte)) add_work(a, p.at + 1, p.stack);
    }
    follow_work(a);
    const uint32_t next = state_of_work(a);
    s->next[byte] = next;
    return next;
}

bool mq__automaton_is_final(const mq_automaton *a, uint32_t at)
{
    return a->states[at]->final;
}

uint32_t mq__automaton_start(mq_automaton *a, uint32_t rule)
{
    a->budget = WORK_MOST;
    begin_work(a);
    add_work(a, a->g->rule[rule], 0);
    follow_work(a);
    return state_of_work(a);
}

uint32_t **mq__automaton_mask(mq_automaton *a, uint32_t at)
{
    if (!a->states[at]->mask && ++a->masks > MASKS_MOST) {
        for (size_t i = 0; i < a->state_count; i++) {
            mq__free(a->states[i]->mask);
            a->states[i]->mask = NULL;
        }
        a->masks = 1;
    }
    return &a->states[at]->mask;
}

/* Stacks are numbered anew, so the places to keep are spelt out with all that wait. Without room the place is lost. */
static void copy_place(mq_automaton *a, const waiting *old, place p)
{
    uint32_t chain[DEPTH_MOST], depth = 0, made = 0;
    for (uint32_t stack = p.stack; stack; stack = old[stack].parent) {
        chain[depth++] = old[stack].at;
    }
    while (depth > 0) {
        made = push_waiting(a, chain[--depth], made);
        if (!made) return;
    }
    add_work(a, p.at, made);
}

static bool is_roomy(const mq_automaton *a)
{
    return !a->full && a->state_count <= STATES_TRIM && a->place_count <= PLACES_MOST / 2 &&
           a->stack_count <= PLACES_MOST / 2;
}

uint32_t mq__automaton_trim(mq_automaton *a, uint32_t at)
{
    a->budget = WORK_MOST;
    if (at == MQ_DEAD || is_roomy(a)) return at;
    const size_t count = a->states[at]->count;
    const bool final = a->states[at]->final;
    place *keep = mq__alloc_zero(count, sizeof *keep);
    waiting *old = mq__alloc(a->stack_count * sizeof *old);
    if (!keep || !old) {
        mq__free(keep);
        mq__free(old);
        return at;
    }
    if (count) memcpy(keep, a->places + a->states[at]->first, count * sizeof *keep);
    memcpy(old, a->stack, a->stack_count * sizeof *old);
    forget_states(a);
    begin_work(a);
    for (size_t i = 0; i < count && a->stack_count <= PLACES_MOST / 2; i++) {
        copy_place(a, old, keep[i]);
    }
    a->final = final;
    const uint32_t now = state_of_work(a);
    mq__free(keep);
    mq__free(old);
    return now;
}

uint32_t mq__automaton_adopt(mq_automaton *a, const mq_automaton *from, uint32_t at)
{
    const state *s = from->states[at];
    if (at == MQ_DEAD) return MQ_DEAD;
    a->budget = WORK_MOST;
    if (!is_roomy(a)) forget_states(a);
    begin_work(a);
    for (uint32_t i = 0; i < s->count && a->stack_count <= PLACES_MOST / 2; i++) {
        copy_place(a, from->stack, from->places[s->first + i]);
    }
    a->final = s->final;
    return state_of_work(a);
}

int mq__automaton_forced(const mq_automaton *a, uint32_t at)
{
    const state *s = a->states[at];
    int byte = -1;
    if (at == MQ_DEAD || s->final) return -1;
    for (int w = 0; w < 8; w++) {
        const uint32_t bits = s->any.bits[w];
        if (bits == 0) continue;
        if (byte >= 0 || (bits & (bits - 1))) return -1;
        byte = 32 * w + __builtin_ctz(bits);
    }
    return byte;
}

mq_status mq__automaton_new(const mq_grammar *grammar, mq_automaton **out, mq_error *error)
{
    mq_automaton *a = mq__alloc_zero(1, sizeof *a);
    *out = NULL;
    if (a) a->g = grammar;
    if (a && begin_states(a)) {
        *out = a;
        return MQ_OK;
    }
    mq__automaton_free(a);
    return mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none");
}

void mq__automaton_free(mq_automaton *a)
{
    if (!a) return;
    if (a->state_count) forget_states(a);
    if (a->state_count) mq__free(a->states[MQ_DEAD]);
    mq__free(a->stack);
    mq__free(a->places);
    mq__free(a->states);
    mq__free(a->work);
    mq__free(a->chain);
    mq__free(a);
}
