/* A hand-off on its way out: a prompt that is prefilled here while its KV leaves, chunk by chunk, straight from the blocks. */
#include "base/error.h"
#include "base/little_endian.h"
#include "base/mem.h"
#include "handoff/pays.h"
#include "handoff/serve.h"

#include <stdio.h>
#include <string.h>

/* ---- life */

static const mq_kv_layout *sent_layout(const mq_sender *s)
{
    return &s->served->h->engine->kv_layout;
}

static uint32_t layers_of(const mq_sender *s)
{
    return sent_layout(s)->layers;
}

/* Where a layer's chunks begin and end: one that keeps no KV has only its state to send. */
static uint32_t first_of(const mq_sender *s, uint32_t layer)
{
    const mq_kv_layer *l = &sent_layout(s)->layer[layer];
    if (!l->kv_heads) return s->count;
    return s->first + (l->window ? mq__kv_bare(sent_layout(s), s->first, s->count) : 0);
}

static uint32_t end_of(const mq_sender *s, uint32_t layer)
{
    return s->count + (sent_layout(s)->layer[layer].state_floats > 0);
}

static bool allocate_sender(mq_sender *s, const mq_kv_layout *layout)
{
    const uint32_t cut = s->count % MQ_PAGE_TOKENS;
    size_t tail = 0;
    for (uint32_t l = 0; l < layout->layers && cut; l++) {
        tail += mq__kv_chunk_bytes(layout, l, cut);
    }
    s->tokens = mq__alloc((size_t)(s->count + 1) * sizeof *s->tokens);
    s->precise = mq__alloc_zero((s->count - s->first + 7) / 8, 1);
    s->stored = mq__alloc_zero(layout->layers, sizeof *s->stored);
    s->sent = mq__alloc_zero(layout->layers, sizeof *s->sent);
    s->tail = mq__alloc(tail);
    return s->tokens && s->precise && s->stored && s->sent && s->tail;
}

mq_sender *mq__sender_new(mq_served *c, const mq_frame *frame, const mq_prefill *prefill)
{
    const mq_handoff *h = c->h;
    const double asked = prefill->timeout_ms * 1e-3, most = h->tuning.late_most;
    const double patience = asked < most ? asked : most;
    mq_sender *s = mq__alloc_zero(1, sizeof *s);
    if (!s) return NULL;
    *s = (mq_sender){.served = c,
                     .request = frame->request,
                     .epoch = frame->epoch,
                     .first = prefill->first,
                     .count = prefill->count,
                     .deadline = mq__seconds() + patience};
    if (!allocate_sender(s, &h->engine->kv_layout)) {
        mq__sender_free(s);
        return NULL;
    }
    for (uint32_t i = 0; i <= s->count; i++) {
        s->tokens[i] = (int32_t)mq__get_u32(prefill->tokens + (size_t)i * 4);
    }
    for (uint32_t l = 0; l < layers_of(s); l++) {
        s->sent[l] = first_of(s, l);
    }
    return s;
}

void mq__sender_free(mq_sender *s)
{
    if (!s) return;
    mq__free(s->tokens);
    mq__free(s->precise);
    mq__free(s->stored);
    mq__free(s->sent);
    mq__free(s->tail);
    mq__buf_free(&s->header);
    mq__free(s);
}

/* Under the connection's lock, or before others see it. */
static void fail_sender(mq_sender *s, mq_handoff_fault fault, const char *text)
{
    if (s->fault) return;
    s->fault = fault;
    snprintf(s->text, sizeof s->text, "%.*s", MQ_FRAME_TEXT, text);
}

/* ---- what the scheduler says, on its thread */

static void note_precise(mq_sender *s, const mq_sequence *sequence)
{
    for (uint32_t t = s->first; t < s->ready; t++) {
        if (mq_sequence_is_precise(sequence, t)) s->precise[(t - s->first) / 8] |= (uint8_t)(1u << (t - s->first) % 8);
    }
}

static void sink_begin(void *context, const mq_sequence *sequence, uint32_t ready)
{
    mq_sender *s = context;
    mq_served *c = s->served;
    pthread_mutex_lock(&c->lock);
    s->ready = ready < s->count ? ready : s->count;
    note_precise(s, sequence);
    for (uint32_t l = 0; l < layers_of(s); l++) {
        s->stored[l] = s->ready;
    }
    s->pages = sequence->pages;
    s->window_pages = sequence->window_pages;
    if (s->ready == s->count) s->state = sequence->state;
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
}

static void sink_stored(void *context, uint32_t layer, uint32_t count, const float *state)
{
    mq_sender *s = context;
    mq_served *c = s->served;
    pthread_mutex_lock(&c->lock);
    s->stored[layer] = count < s->count ? count : s->count;
    if (s->stored[layer] == s->count) s->state = state;
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
}

static void job_event(void *context, const mq_event *event)
{
    mq_sender *s = context;
    mq_served *c = s->served;
    if (event->kind != MQ_EVENT_END) return;
    pthread_mutex_lock(&c->lock);
    if (event->report->status != MQ_OK)
        fail_sender(s, MQ_FAULT_FAILED, event->report->error.text);
    else if (event->report->finish == MQ_FINISH_CANCELLED)
        fail_sender(s, MQ_FAULT_STOPPING, "prefill: expected an end, got a cancellation");
    mq__served_news(c);
    pthread_mutex_unlock(&c->lock);
}

/* ---- asking for it */

static void take_lease(mq_sender *s, mq_job *job, const mq_sequence *sequence)
{
    s->job = job;
    s->accept.cached = s->count;
    sink_begin(s, sequence, s->count);
}

static bool is_too_much(mq_sender *s, const mq_scheduler_stats *stats)
{
    const mq_handoff *h = s->served->h;
    if (stats->unread_tokens <= h->options.most_waiting) return false;
    char text[160];
    snprintf(text, sizeof text, "prefill: expected at most %llu tokens to wait, got %llu",
             (unsigned long long)h->options.most_waiting, (unsigned long long)stats->unread_tokens);
    fail_sender(s, MQ_FAULT_BUSY, text);
    return true;
}

static void submit_prompt(mq_sender *s, uint64_t owner)
{
    const mq_handoff *h = s->served->h;
    mq_error error = {0};
    s->sink = (struct mq_kv_sink){.begin = sink_begin, .stored = sink_stored, .context = s};
    const mq_request request = {.tokens = s->tokens,
                                .count = s->count + 1,
                                .options = {.sampling = MQ_SAMPLING_GREEDY},
                                .owner = owner,
                                .sink = &s->sink,
                                .prefill_only = true,
                                .hold = true,
                                .event = job_event,
                                .context = s};
    const mq_status status = h->submit(h->submit_context, &request, &s->job, &error);
    if (status == MQ_OK) return;
    s->job = NULL;
    fail_sender(s,
                status == MQ_LIMIT       ? MQ_FAULT_BUSY
                : status == MQ_CANCELLED ? MQ_FAULT_STOPPING
                                         : MQ_FAULT_REFUSED,
                error.text);
}

void mq__sender_submit(mq_sender *s, const mq_prefill *prefill)
{
    mq_handoff *h = s->served->h;
    mq_scheduler *scheduler = atomic_load(&h->scheduler);
    mq_scheduler_stats stats = {0};
    if (s->count + 1 >= h->engine->context) {
        fail_sender(s, MQ_FAULT_REFUSED, "prompt: expected one that fits into this worker's context, got a longer one");
        return;
    }
    if (atomic_load(&h->stopping)) {
        fail_sender(s, MQ_FAULT_STOPPING, "prefill: expected a worker that runs, got one that stops");
        return;
    }
    const mq_sequence *sequence;
    mq_job *leased = mq__lease_take(h, prefill->lease, prefill->lease_bytes, s->tokens, s->count + 1, &sequence);
    if (scheduler) mq_scheduler_describe(scheduler, &stats);
    s->accept.ahead = stats.unread_tokens;
    s->accept.rate = mq__prompt_rate(&stats);
    if (leased)
        take_lease(s, leased, sequence);
    else if (!is_too_much(s, &stats))
        submit_prompt(s, prefill->owner);
}

/* ---- what is to be sent, under the connection's lock */

static uint32_t computed_of(const mq_sender *s)
{
    uint32_t least = s->count;
    for (uint32_t l = 0; l < layers_of(s); l++) {
        if (s->stored[l] < least) least = s->stored[l];
    }
    return s->pages ? least : 0;
}

static bool is_sent(const mq_sender *s)
{
    for (uint32_t l = 0; l < layers_of(s); l++) {
        if (s->sent[l] < end_of(s, l)) return false;
    }
    return true;
}

bool mq__sender_is_over(const mq_sender *s, double now)
{
    return s->is_left || s->failed || (s->committed && now >= s->deadline);
}

static bool make_begin(mq_sender *s, mq_frame *frame)
{
    const mq_handoff *h = s->served->h;
    mq_error error = {0};
    const mq_kvimage image = {.weights = h->print.weights,
                              .plan = h->print.plan,
                              .tokenizer = h->print.tokenizer,
                              .rope = h->print.rope,
                              .layout = h->print.layout,
                              .layers = layers_of(s),
                              .first = s->first,
                              .count = s->count - s->first,
                              .bare = mq__kv_bare(&h->engine->kv_layout, s->first, s->count)};
    if (mq__kvimage_write(&image, s->tokens, s->precise, &s->header, &error) != MQ_OK) {
        fail_sender(s, MQ_FAULT_FAILED, error.text);
        return false;
    }
    *frame = mq__begin_frame(s->ready, &s->header);
    return true;
}

static mq_frame make_commit(mq_sender *s, double now)
{
    s->committed = true;
    s->deadline = now + s->served->h->tuning.done;
    return mq__commit_frame(mq__tokens_digest(s->tokens, s->count + 1), s->chunks);
}

/* Once, in their order. */
static bool speaks_next(mq_sender *s, double now, mq_frame *frame)
{
    if (s->fault) {
        s->failed = true;
        *frame = mq__fail_frame(s->fault, s->text);
    } else if (!s->accepted) {
        s->accepted = true;
        *frame = mq__accept_frame(&s->accept);
    } else if (s->pages && !s->begun) {
        s->begun = make_begin(s, frame);
        return s->begun || speaks_next(s, now, frame);
    } else if (s->begun && !s->computed && computed_of(s) == s->count) {
        s->computed = true;
        *frame = mq__state_frame(s->count, 0);
    } else if (s->computed && is_sent(s)) {
        *frame = make_commit(s, now);
    } else {
        return false;
    }
    return true;
}

bool mq__sender_speaks(mq_sender *s, double now, mq_frame *frame, double *due)
{
    if (!s->committed && now >= s->deadline) {
        fail_sender(s, MQ_FAULT_LATE, "prefill: expected an end in the time that was given, got none");
    }
    bool speaks = !s->committed && speaks_next(s, now, frame);
    if (!speaks && !s->committed && now >= s->state_due) {
        *frame = mq__state_frame(computed_of(s), s->pages ? 0 : s->accept.ahead);
        speaks = true;
    }
    if (speaks) s->state_due = now + s->served->h->tuning.state;
    const double next = s->committed || s->deadline < s->state_due ? s->deadline : s->state_due;
    if (next < *due) *due = next;
    if (!speaks) return false;
    frame->request = s->request;
    frame->epoch = s->epoch;
    return true;
}

/* The one with the smallest position first: what is whole is of use, should the rest never come. */
bool mq__sender_chunk(mq_sender *s, mq_kvchunk *chunk)
{
    const mq_kv_layout *layout = sent_layout(s);
    bool found = false;
    if (!s->begun || s->fault) return false;
    for (uint32_t l = 0; l < layout->layers; l++) {
        if (s->sent[l] >= end_of(s, l) || (found && s->sent[l] >= chunk->first)) continue;
        const mq_kvchunk next = s->sent[l] < s->count ? mq__kv_chunk_at(layout, l, s->sent[l], s->count)
                                                      : mq__kv_chunk_of_state(layout, l, s->count);
        if (next.first + next.count > s->stored[l]) continue;
        *chunk = next;
        found = true;
    }
    if (found) s->sent[chunk->layer] = chunk->first + (chunk->count ? chunk->count : 1);
    return found;
}

/* ---- chunks */

/* Where the payload of a cut chunk is put together. */
static uint8_t *tail_of(const mq_sender *s, const mq_kvchunk *chunk)
{
    size_t at = 0;
    for (uint32_t l = 0; l < chunk->layer; l++) {
        at += mq__kv_chunk_bytes(sent_layout(s), l, chunk->count);
    }
    return s->tail + at;
}

/* As it lies in a block or the state, but for a cut chunk. */
static const void *payload_of(const mq_sender *s, const mq_kvchunk *chunk)
{
    const mq_kv_layer *layer = &sent_layout(s)->layer[chunk->layer];
    if (chunk->count == 0) return s->state + layer->state_at;
    const uint16_t *block =
        mq__kv_pages(sent_layout(s), chunk->layer, s->pages, s->window_pages)[chunk->first / MQ_PAGE_TOKENS];
    if (chunk->count == MQ_PAGE_TOKENS) return block + layer->offset;
    uint8_t *tail = tail_of(s, chunk);
    mq__kv_chunk_gather(sent_layout(s), chunk, block, tail);
    return tail;
}

mq_frame mq__sender_chunk_frame(mq_sender *s, const mq_kvchunk *chunk)
{
    const void *payload = payload_of(s, chunk);
    mq_frame frame = {
        .kind = MQ_FRAME_KV, .request = s->request, .epoch = s->epoch, .body = payload, .bytes = chunk->bytes};
    mq__kvchunk_write(chunk, payload, frame.own);
    return frame;
}
