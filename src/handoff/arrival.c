#include "handoff/arrival.h"

#include "base/error.h"
#include "base/mem.h"
#include "handoff/client.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define LINK_BEHIND_S 2.0 /* seconds of the link's work that make it what an arrival waits for */

/* ---- life */

static const mq_kv_layout *layout_of(const mq_kv_arrival *a)
{
    return &a->h->engine->kv_layout;
}

static bool allocate_arrival(mq_kv_arrival *a, const mq_kv_layout *layout)
{
    a->blocks = (a->count - 1) / MQ_PAGE_TOKENS - a->first / MQ_PAGE_TOKENS + 1;
    a->tokens = mq__alloc((size_t)(a->count + 1) * sizeof *a->tokens);
    a->precise = mq__alloc_zero((a->count - a->first + 7) / 8, 1);
    a->seen = mq__alloc_zero(a->blocks + 1, layout->layers);
    a->block_chunks = mq__alloc_zero(a->blocks + 1, sizeof *a->block_chunks);
    return a->tokens && a->precise && a->seen && a->block_chunks;
}

static void free_arrival(mq_kv_arrival *a)
{
    pthread_mutex_destroy(&a->lock);
    mq__free(a->tokens);
    mq__free(a->precise);
    mq__free(a->seen);
    mq__free(a->block_chunks);
    mq__free(a);
}

mq_status mq__arriving_new(mq_handoff *h, mq_client *client, const mq_kv_wanted *wanted, const mq_pays_facts *pays,
                           mq_kv_arrival **out, mq_error *error)
{
    mq_kv_arrival *a = mq__alloc_zero(1, sizeof *a);
    *out = a;
    if (!a) return mq__fail(error, MQ_NO_MEMORY, "hand-off: expected memory, got none");
    *a = (mq_kv_arrival){.h = h,
                         .first = wanted->first,
                         .count = wanted->count,
                         .owner = wanted->owner,
                         .state = MQ_ARRIVING,
                         .pages = wanted->pages,
                         .window_pages = wanted->window_pages,
                         .kv_state = wanted->state,
                         .whole = wanted->first,
                         .pays = *pays};
    atomic_init(&a->holders, 2);
    pthread_mutex_init(&a->lock, NULL);
    if (!allocate_arrival(a, &h->engine->kv_layout)) {
        free_arrival(a);
        *out = NULL;
        return mq__fail(error, MQ_NO_MEMORY, "hand-off: expected memory, got none");
    }
    memcpy(a->tokens, wanted->tokens, (size_t)(a->count + 1) * sizeof *a->tokens);
    if (wanted->lease) snprintf(a->lease, sizeof a->lease, "%s", wanted->lease);
    a->heard = mq__seconds();
    a->expected = mq__pays_times(pays).remote;
    a->deadline = a->heard + mq__handoff_patience(h, a->expected);
    a->client = client;
    mq__client_hold(client);
    return MQ_OK;
}

void mq__arriving_hold(mq_kv_arrival *a)
{
    atomic_fetch_add_explicit(&a->holders, 1, memory_order_relaxed);
}

void mq__arriving_release(mq_kv_arrival *a)
{
    if (atomic_fetch_sub_explicit(&a->holders, 1, memory_order_acq_rel) != 1) return;
    mq__client_release(a->client);
    free_arrival(a);
}

/* ---- how it goes on, under its lock */

static void end_arrival(mq_kv_arrival *a, mq_arrival_state state, mq_frame_kind farewell)
{
    a->stage = MQ_STAGE_OVER;
    a->state = state;
    a->farewell = farewell;
    a->figures.ended = mq__seconds();
}

/* The peer has said more: whether it still pays. */
static void decide_again(mq_kv_arrival *a)
{
    if (mq__pays(&a->pays)) return;
    a->is_declined = true;
    end_arrival(a, MQ_ARRIVAL_FAILED, MQ_FRAME_CANCEL);
}

static mq_status breaks(const char *what, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "%s", what);
}

static mq_status take_accept(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    mq_accept accept;
    const mq_status status = mq__accept_read(frame, &accept, error);
    if (status != MQ_OK) return status;
    if (a->stage != MQ_STAGE_ASKED || accept.cached > a->count) {
        return breaks("ACCEPT: expected one, of the prompt, got another", error);
    }
    a->stage = MQ_STAGE_ACCEPTED;
    const bool whole = accept.cached == a->count;
    a->pays.peer_unread = whole ? 0 : accept.ahead;
    if (accept.rate > 0) a->pays.peer_rate = accept.rate;
    if (whole)
        a->pays.computes = 0;
    else if (a->lease[0])
        a->pays.computes = a->count - a->figures.guess; /* the lease has run out */
    decide_again(a);
    return MQ_OK;
}

/* The image is of this prompt, this range and an engine like this one. */
static mq_status check_image(const mq_kv_arrival *a, const mq_kvimage *image, mq_error *error)
{
    const mq_fingerprint print = {.weights = image->weights,
                                  .plan = image->plan,
                                  .tokenizer = image->tokenizer,
                                  .rope = image->rope,
                                  .layout = image->layout};
    if (mq__print_differs(&a->h->print, &print) || image->layers != layout_of(a)->layers) {
        return breaks("BEGIN: expected KV of this engine, got another's", error);
    }
    if (image->first != a->first || image->count != a->count - a->first ||
        image->bare != mq__kv_bare(layout_of(a), a->first, a->count)) {
        return breaks("BEGIN: expected the range that was asked for, got another", error);
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (mq__kvimage_token(image, i) != a->tokens[i]) {
            return breaks("BEGIN: expected the prompt's tokens, got others", error);
        }
    }
    return MQ_OK;
}

static mq_status read_header_of(const mq_kv_arrival *a, const mq_frame *frame, mq_kvimage *image, mq_error *error)
{
    size_t bytes = 0;
    if (frame->bytes < MQ_KVIMAGE_PREFIX) return breaks("BEGIN: expected a KV image's header, got less", error);
    mq_status status = mq__kvimage_head_bytes(frame->body, a->count, &bytes, error);
    if (status == MQ_OK && bytes != frame->bytes) {
        status = breaks("BEGIN: expected a KV image's header, got another length", error);
    }
    if (status == MQ_OK) status = mq__kvimage_read(frame->body, bytes, image, error);
    return status == MQ_OK ? check_image(a, image, error) : status;
}

static mq_status take_begin(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    uint32_t ready;
    mq_kvimage image;
    mq_status status = mq__begin_read(frame, &ready, error);
    if (status != MQ_OK) return status;
    if (a->stage != MQ_STAGE_ACCEPTED || ready > a->count) {
        return breaks("BEGIN: expected one after ACCEPT, of the prompt, got another", error);
    }
    status = read_header_of(a, frame, &image, error);
    if (status != MQ_OK) return status;
    memcpy(a->precise, image.precise, (image.count + 7) / 8);
    a->image = image;
    a->image.tokens = a->image.precise = NULL; /* the link's */
    a->stage = MQ_STAGE_BEGUN;
    a->figures.began = a->heard;
    a->figures.ready = ready;
    a->pays.computes = a->count - ready;
    a->pays.peer_unread = 0;
    decide_again(a);
    return MQ_OK;
}

/* KV that is computed and has not come waits for the link: whether it is worth waiting. */
static void watch_link(mq_kv_arrival *a, uint32_t computed)
{
    const double seconds = a->heard - a->figures.began, token = (double)a->pays.bytes / (a->count - a->first);
    const uint64_t bytes = a->figures.bytes;
    mq_pays_facts rest = a->pays;
    if (computed <= a->whole || seconds < LINK_BEHIND_S) return; /* too soon to know */
    rest.link_rate = fmax((double)bytes / seconds, 1);
    if ((computed - a->whole) * token < rest.link_rate * LINK_BEHIND_S) return;
    a->figures.link_rate = rest.link_rate;
    rest.wanted = a->count - (a->kv_state ? a->first : a->whole); /* with a state, a part is of no use */
    rest.computes = a->count - computed;
    rest.bytes = rest.bytes > bytes ? rest.bytes - bytes : 0;
    if (mq__pays_still(&rest)) return;
    a->is_declined = true;
    end_arrival(a, MQ_ARRIVAL_FAILED, MQ_FRAME_CANCEL);
}

static mq_status take_state(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    uint32_t computed;
    uint64_t ahead;
    const mq_status status = mq__state_read(frame, &computed, &ahead, error);
    if (status != MQ_OK) return status;
    if (a->stage == MQ_STAGE_ASKED || computed > a->count) {
        return breaks("STATE: expected one after ACCEPT, of the prompt, got another", error);
    }
    if (computed == a->count && a->figures.computed == 0) {
        a->figures.computed = a->heard;
        a->figures.bytes_before = a->figures.bytes;
    }
    if (a->stage == MQ_STAGE_BEGUN) watch_link(a, computed);
    return MQ_OK;
}

static mq_status take_commit(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    mq_digest digest;
    uint64_t chunks;
    const mq_status status = mq__commit_read(frame, &digest, &chunks, error);
    if (status != MQ_OK) return status;
    const mq_digest own = mq__tokens_digest(a->tokens, a->count + 1);
    const uint64_t all = mq__kv_chunks(layout_of(a), &a->image);
    const bool is_ours = memcmp(digest.bytes, own.bytes, sizeof own.bytes) == 0;
    if (!is_ours) a->whole = a->first; /* P has computed other tokens: nothing of it is of use */
    if (a->stage != MQ_STAGE_BEGUN || chunks != all || a->chunks != all || !is_ours) {
        return breaks("COMMIT: expected it after all chunks, of these tokens, got another", error);
    }
    end_arrival(a, MQ_ARRIVED, MQ_FRAME_DONE);
    if (a->figures.computed == 0) a->figures.computed = a->figures.ended;
    return MQ_OK;
}

static mq_status take_fail(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    static const mq_status statuses[MQ_FAULTS] = {[MQ_FAULT_BUSY] = MQ_LIMIT,
                                                  [MQ_FAULT_REFUSED] = MQ_UNSUPPORTED,
                                                  [MQ_FAULT_FAILED] = MQ_IO,
                                                  [MQ_FAULT_LATE] = MQ_IO,
                                                  [MQ_FAULT_STOPPING] = MQ_CANCELLED};
    mq_handoff_fault fault;
    char text[MQ_FRAME_TEXT + 1];
    const mq_status status = mq__fail_read(frame, &fault, text, error);
    if (status != MQ_OK) return status;
    (void)mq__fail(&a->error, statuses[fault], "hand-off: %s: %s", mq__client_name(a->client), text);
    end_arrival(a, MQ_ARRIVAL_FAILED, (mq_frame_kind)0);
    return MQ_OK;
}

/* ---- chunks */

/* The head of a chunk, and its bytes; without the lock: what it reads stays as BEGIN made it. */
static mq_status check_chunk(const mq_kv_arrival *a, const mq_frame *frame, mq_kvchunk *chunk, mq_error *error)
{
    const mq_kv_layout *layout = layout_of(a);
    const mq_status status = mq__kvchunk_read(frame->own, &a->image, mq__kv_chunk_most(layout), chunk, error);
    if (status != MQ_OK) return status;
    if (!mq__kv_chunk_exists(layout, &a->image, chunk->layer, chunk->first)) {
        return breaks("KV: expected a chunk that BEGIN announces, got another", error);
    }
    if (chunk->bytes != frame->bytes || chunk->bytes != mq__kv_chunk_bytes(layout, chunk->layer, chunk->count)) {
        return breaks("KV: expected a chunk's bytes, got more or fewer", error);
    }
    if (mq__kvchunk_is_intact(frame->own, frame->body, chunk)) return MQ_OK;
    return breaks("KV: expected a chunk with its checksum, got a damaged one", error);
}

/* A block's row of the bitmap, or that of states. */
static uint32_t row_of_chunk(const mq_kv_arrival *a, const mq_kvchunk *chunk)
{
    return chunk->count ? chunk->first / MQ_PAGE_TOKENS - a->first / MQ_PAGE_TOKENS : a->blocks;
}

/* Under the lock. */
static void store_chunk(mq_kv_arrival *a, const mq_kvchunk *chunk, const void *payload)
{
    const mq_kv_layout *layout = layout_of(a);
    const uint32_t row = row_of_chunk(a, chunk), block = chunk->first / MQ_PAGE_TOKENS,
                   begin = a->first / MQ_PAGE_TOKENS;
    if (chunk->count)
        mq__kv_chunk_scatter(layout, chunk, payload,
                             mq__kv_pages(layout, chunk->layer, a->pages, a->window_pages)[block]);
    else
        memcpy(a->kv_state + layout->layer[chunk->layer].state_at, payload, chunk->bytes);
    a->seen[(size_t)row * layout->layers + chunk->layer] = 1;
    a->block_chunks[row]++;
    a->chunks++;
    a->figures.bytes += chunk->bytes;
    while (a->whole < a->count &&
           a->block_chunks[a->whole / MQ_PAGE_TOKENS - begin] == mq__kv_block_chunks(layout, &a->image, a->whole)) {
        const uint32_t end = (a->whole / MQ_PAGE_TOKENS + 1) * MQ_PAGE_TOKENS;
        a->whole = end < a->count ? end : a->count;
    }
}

static mq_status take_chunk(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    mq_kvchunk chunk;
    pthread_mutex_lock(&a->lock);
    const mq_arriving_stage stage = a->stage;
    pthread_mutex_unlock(&a->lock);
    if (stage == MQ_STAGE_OVER) return MQ_OK;
    if (stage != MQ_STAGE_BEGUN) return breaks("KV: expected it after BEGIN, got it before", error);
    mq_status status = check_chunk(a, frame, &chunk, error);
    if (status != MQ_OK) return status;
    pthread_mutex_lock(&a->lock);
    a->heard = mq__seconds();
    if (a->seen[(size_t)row_of_chunk(a, &chunk) * layout_of(a)->layers + chunk.layer])
        status = breaks("KV: expected each chunk once, got one again", error);
    else if (a->stage == MQ_STAGE_BEGUN)
        store_chunk(a, &chunk, frame->body);
    pthread_mutex_unlock(&a->lock);
    return status;
}

/* ---- frames */

static mq_status take_number(mq_kv_arrival *a, const mq_frame *frame, mq_error *error)
{
    switch (frame->kind) {
    case MQ_FRAME_ACCEPT:
        return take_accept(a, frame, error);
    case MQ_FRAME_BEGIN:
        return take_begin(a, frame, error);
    case MQ_FRAME_STATE:
        return take_state(a, frame, error);
    case MQ_FRAME_COMMIT:
        return take_commit(a, frame, error);
    case MQ_FRAME_FAIL:
        return take_fail(a, frame, error);
    default:
        return breaks("expected what a prefill worker says, got another kind", error);
    }
}

mq_status mq__arriving_take(mq_kv_arrival *a, const mq_frame *frame, bool *ended, mq_error *error)
{
    *ended = false;
    if (frame->kind == MQ_FRAME_KV) return take_chunk(a, frame, error);
    mq_status status = MQ_OK;
    pthread_mutex_lock(&a->lock);
    const bool goes_on = a->stage != MQ_STAGE_OVER;
    a->heard = mq__seconds();
    if (goes_on) status = take_number(a, frame, error);
    *ended = goes_on && a->stage == MQ_STAGE_OVER;
    pthread_mutex_unlock(&a->lock);
    return status;
}

bool mq__arriving_fail(mq_kv_arrival *a, const mq_error *error)
{
    pthread_mutex_lock(&a->lock);
    const bool fails = a->stage != MQ_STAGE_OVER;
    if (fails) {
        a->error = *error;
        end_arrival(a, MQ_ARRIVAL_FAILED, MQ_FRAME_CANCEL);
    }
    pthread_mutex_unlock(&a->lock);
    return fails;
}

bool mq__arriving_watch(mq_kv_arrival *a, double now, double silence, mq_error *error)
{
    const char *name = mq__client_name(a->client);
    pthread_mutex_lock(&a->lock);
    const double quiet = now - a->heard;
    pthread_mutex_unlock(&a->lock);
    if (quiet > silence)
        (void)mq__fail(error, MQ_IO, "hand-off: %s: expected a sign of life within %g s, got none", name, silence);
    else if (now > a->deadline)
        (void)mq__fail(error, MQ_IO, "hand-off: %s: expected %u tokens within %.0f s, got none or not all", name,
                       a->count - a->first, mq__handoff_patience(a->h, a->expected));
    return error->status != MQ_OK && mq__arriving_fail(a, error);
}

bool mq__arriving_is_over(mq_kv_arrival *a, mq_frame_kind *farewell)
{
    pthread_mutex_lock(&a->lock);
    const bool over = a->stage == MQ_STAGE_OVER;
    *farewell = a->farewell;
    pthread_mutex_unlock(&a->lock);
    return over;
}

uint32_t mq__arriving_waits(mq_kv_arrival *a)
{
    pthread_mutex_lock(&a->lock);
    const uint32_t tokens = a->stage < MQ_STAGE_BEGUN ? a->pays.computes : 0;
    pthread_mutex_unlock(&a->lock);
    return tokens;
}

/* ---- the scheduler's side */

mq_arrival_state mq__arriving_state(mq_kv_arrival *a, mq_arrival_facts *facts)
{
    pthread_mutex_lock(&a->lock);
    const mq_arrival_state state = a->state;
    *facts =
        (mq_arrival_facts){.whole = a->whole, .precise = a->precise, .declined = a->is_declined, .error = a->error};
    pthread_mutex_unlock(&a->lock);
    return state;
}

void mq__arriving_end(mq_kv_arrival *a)
{
    pthread_mutex_lock(&a->lock);
    a->pages = a->window_pages = NULL;
    if (a->stage != MQ_STAGE_OVER) end_arrival(a, MQ_ARRIVAL_FAILED, MQ_FRAME_CANCEL);
    pthread_mutex_unlock(&a->lock);
    mq__client_news(a->client);
    mq__arriving_release(a);
}
