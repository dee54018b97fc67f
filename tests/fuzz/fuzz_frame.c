/* Messages of a hand-off into a connection of either side, without a network: a decode worker's (hand-offs that it asked for), or a
 * prefill worker's (whose scheduler is played). A search would never guess tags, hashes and token ids: where the input asks for it a
 * message is repaired (magic, sequence, lengths, tag), and its content filled in.
 *
 *     byte 0        1: a prefill worker's connection, 2: with a key, 4: greeted already, 8: a model with recurrent state
 *     then steps, a byte each: low 3 bits what (enum step), high 5 bits an argument, and what the step reads */
#include "engine/engine.h"
#include "fuzz.h"
#include "handoff/peers.h"
#include "handoff/serve.h"

#include "base/little_endian.h"

#include <string.h>

#define CONTEXT  256
#define HANDOFFS 4 /* of a decode worker, and jobs of a prefill worker */

enum step { FRAME, FRAME_TOO, GROW, END, SEND, WATCH, SHORT, STATE };
enum { REPAIR = 1, FILL = 2, SPOIL = 4 }; /* arguments of FRAME and SHORT */

/* Of a model: without recurrent state, and with. */
typedef struct subject {
    mq_engine *engine;
    mq_handoff *handoff[2]; /* without and with a key */
    mq_sequence *sequence;  /* a prefill worker's KV, of any prompt */
} subject;

static subject subjects[2];
static int32_t ids[CONTEXT];

static void open_handoff(subject *of, int keyed)
{
    static const char *const peers[] = {"link://127.0.0.1:9"};
    mq_error error = {0};
    const mq_handoff_options options = {.engine = of->engine,
                                        .listens = true,
                                        .peers = peers,
                                        .peer_count = 1,
                                        .key_file = keyed ? fuzz_path("key") : NULL};
    FUZZ_CHECK(mq_handoff_open(&options, &of->handoff[keyed], &error) == MQ_OK);
}

static subject *open_subject(bool recurrent)
{
    subject *of = &subjects[recurrent];
    char *model;
    mq_error error = {0};
    if (of->engine) return of;
    FUZZ_CHECK(mq_synth_cached(recurrent ? "tiny-qwen3.5" : "tiny-qwen3", 0, NULL, &model, &error) == MQ_OK);
    const mq_engine_options options = {
        .model_dir = model, .threads = 1, .context = CONTEXT, .chunk = 64, .sequences = 2, .no_cache = true};
    FUZZ_CHECK(mq_engine_open(&options, &of->engine, &error) == MQ_OK);
    mq_free(model);
    for (int i = 0; i < CONTEXT; i++) {
        ids[i] = i * 7 % 300;
    }
    FUZZ_CHECK(mq_sequence_new(of->engine, &of->sequence, &error) == MQ_OK);
    FUZZ_CHECK(mq_sequence_sync(of->sequence, ids, CONTEXT - 1, NULL, NULL, &error) == MQ_OK);
    fuzz_write("key", "0123456789abcdef", 16);
    open_handoff(of, 0);
    open_handoff(of, 1);
    fuzz_remove("key");
    return of;
}

/* ---- the input */

typedef struct input {
    const uint8_t *data;
    size_t left;
} input;

static uint8_t next_byte(input *in)
{
    if (in->left == 0) return 0;
    in->left--;
    return *in->data++;
}

static void next_bytes(input *in, uint8_t *to, size_t count)
{
    const size_t some = count < in->left ? count : in->left;
    memset(to, 0, count);
    memcpy(to, in->data, some);
    in->data += some;
    in->left -= some;
}

/* ---- one of the two sides */

/* A hand-off of a decode worker: blocks that go when the scheduler has ended it. */
typedef struct wanted {
    mq_kv_arrival *arrival;
    uint16_t *pages[CONTEXT / MQ_PAGE_TOKENS];
    float *state;
} wanted;

/* A request of a prefill worker's scheduler; stands for an mq_job. */
typedef struct job {
    struct job *next;
    mq_request request;
    uint32_t layer, count; /* what is stored next */
    bool began, ended;
} job;

typedef struct side {
    const subject *of;
    mq_handoff *h;
    mq_client *client; /* NULL: a prefill worker's */
    mq_served *served;
    wanted wanted[HANDOFFS];
    job *jobs;
    uint32_t live, arrived, refused;
    bool is_over; /* the connection */
} side;

static side *played; /* by the functions that a scheduler would be */

static mq_status submit(void *context, const mq_request *request, mq_job **out, mq_error *error)
{
    (void)context;
    (void)error;
    job *j = calloc(1, sizeof *j);
    FUZZ_CHECK(j);
    FUZZ_CHECK(request->count >= 2 && request->count < CONTEXT + 1 && request->prefill_only && request->sink);
    j->request = *request;
    j->next = played->jobs;
    played->jobs = j;
    played->live++;
    *out = (mq_job *)(void *)j;
    return MQ_OK;
}

static void release(mq_job *opaque)
{
    job **at = &played->jobs;
    if (!opaque) return;
    while (*at != (job *)(void *)opaque) {
        FUZZ_CHECK(*at);
        at = &(*at)->next;
    }
    job *j = *at;
    *at = j->next;
    played->live--;
    free(j);
}

static job *job_at(const side *s, uint32_t at)
{
    job *j = s->jobs;
    for (; j && at; at--) {
        j = j->next;
    }
    return j;
}

static side open_side(uint8_t how)
{
    mq_error error = {0};
    const subject *of = open_subject((how & 8) != 0);
    side s = {.of = of, .h = of->handoff[how / 2 & 1]};
    s.h->submit = submit;
    s.h->release = release;
    if (how & 1) {
        FUZZ_CHECK(mq__served_new(s.h, "fuzz", &s.served, &error) == MQ_OK);
        s.served->is_greeted = s.served->is_open = (how & 4) != 0;
        return s;
    }
    mq_peer *peer = s.h->peers->first;
    FUZZ_CHECK(mq__client_new(s.h, peer, peer->name, &peer->answer.address, &s.client, &error) == MQ_OK);
    s.client->is_open = (how & 4) != 0;
    return s;
}

static mq_frame_way *way_of(const side *s)
{
    return s->client ? &s->client->wire.in : &s->served->wire.in;
}

/* ---- steps of a scheduler */

/* A decode worker wants another prompt's KV. */
static void want(side *s, uint32_t at, input *in)
{
    wanted *w = &s->wanted[at % HANDOFFS];
    mq_error error = {0};
    const uint32_t count = 1 + next_byte(in) % (CONTEXT - 2),
                   first = next_byte(in) % count / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
    if (w->arrival) return;
    const size_t state_bytes = s->of->engine->state_floats * sizeof(float);
    w->state = state_bytes ? malloc(state_bytes) : NULL;
    FUZZ_CHECK(w->state || !state_bytes);
    const mq_kv_wanted asked = {
        .tokens = ids, .first = first, .count = count, .pages = w->pages, .state = w->state, .owner = at};
    const mq_pays_facts pays = {.wanted = count, .computes = count, .rate = at < 16 ? 1000 : 0, .peer_rate = 1000};
    FUZZ_CHECK(mq__arriving_new(s->h, s->client, &asked, &pays, &w->arrival, &error) == MQ_OK);
    if (mq__client_add(s->client, w->arrival, &error) != MQ_OK) {
        mq__arriving_release(w->arrival);
        mq__arriving_release(w->arrival);
        w->arrival = NULL;
        free(w->state);
        return;
    }
    for (uint32_t i = first / MQ_PAGE_TOKENS; i <= (count - 1) / MQ_PAGE_TOKENS; i++) {
        w->pages[i] = malloc(s->of->engine->kv_layout.block_elements * sizeof(uint16_t));
        FUZZ_CHECK(w->pages[i]);
    }
}

static void look(side *s, wanted *w)
{
    mq_arrival_facts facts;
    if (!w->arrival) return;
    const mq_arrival_state state = mq__arriving_state(w->arrival, &facts);
    FUZZ_CHECK(facts.whole >= w->arrival->first && facts.whole <= w->arrival->count);
    FUZZ_CHECK(facts.whole % MQ_PAGE_TOKENS == 0 || facts.whole == w->arrival->count);
    FUZZ_CHECK(state != MQ_ARRIVED || facts.whole == w->arrival->count);
    FUZZ_CHECK(!facts.declined || state == MQ_ARRIVAL_FAILED);
    if (state == MQ_ARRIVED) s->arrived++;
}

static void unwant(side *s, uint32_t at)
{
    wanted *w = &s->wanted[at % HANDOFFS];
    if (!w->arrival) return;
    look(s, w);
    mq__arriving_end(w->arrival);
    w->arrival = NULL;
    for (size_t i = 0; i < CONTEXT / MQ_PAGE_TOKENS; i++) {
        free(w->pages[i]); /* nothing is written there any more */
        w->pages[i] = NULL;
    }
    free(w->state);
}

/* A prefill worker's job is admitted, or has more in a layer. */
static void grow(side *s, uint32_t at, input *in)
{
    job *j = job_at(s, at);
    const mq_sequence *sequence = s->of->sequence;
    const uint32_t step = 1 + next_byte(in);
    if (!j || j->ended) return;
    const struct mq_kv_sink *sink = j->request.sink;
    if (!j->began) {
        j->began = true;
        j->count = step < j->request.count - 1 ? step : j->request.count - 1;
        sink->begin(sink->context, sequence, j->count);
        return;
    }
    if (j->layer == 0) j->count = j->count + step < j->request.count - 1 ? j->count + step : j->request.count - 1;
    sink->stored(sink->context, j->layer, j->count, sequence->state);
    j->layer = (j->layer + 1) % s->of->engine->kv_layout.layers;
}

static void end_job(side *s, uint32_t at, input *in)
{
    job *j = job_at(s, at);
    const uint8_t how = next_byte(in);
    if (!j || j->ended) return;
    j->ended = true;
    mq_report report = {.finish = how == 1 ? MQ_FINISH_CANCELLED : MQ_FINISH_LENGTH};
    if (how == 2) {
        report.status = report.error.status = MQ_FORMAT;
        snprintf(report.error.text, sizeof report.error.text, "it broke");
    }
    const mq_event event = {.kind = MQ_EVENT_END, .report = &report};
    j->request.event(j->request.context, &event);
}

/* ---- messages */

static uint8_t payload[1 << 16];

static void fill_hello(const side *s, mq_frame *frame)
{
    mq_hello hello = {.version = MQ_PROTOCOL_VERSION, .role = s->client ? 'P' : 'D', .print = s->h->print};
    if (s->client) memcpy(hello.answers, s->client->own.nonce, sizeof hello.answers);
    memset(hello.nonce, frame->own[24], sizeof hello.nonce);
    *frame = mq__hello_frame(&hello, payload);
}

static void fill_begin(const side *s, const mq_kv_arrival *a, mq_frame *frame)
{
    mq_buf header = {0};
    static const uint8_t precise[CONTEXT];
    const mq_fingerprint *print = &s->h->print;
    const mq_kvimage image = {.weights = print->weights,
                              .plan = print->plan,
                              .tokenizer = print->tokenizer,
                              .rope = print->rope,
                              .layout = print->layout,
                              .layers = s->of->engine->kv_layout.layers,
                              .first = a->first,
                              .count = a->count - a->first};
    FUZZ_CHECK(mq__kvimage_write(&image, ids, precise, &header, NULL) == MQ_OK);
    memcpy(payload, header.data, header.len);
    frame->bytes = header.len;
    mq__buf_free(&header);
}

/* Of the layer's KV, or if it keeps none of its state. */
static void fill_chunk(const mq_kv_layout *layout, const mq_kv_arrival *a, mq_frame *frame)
{
    const uint32_t layer = mq__get_u32(frame->own + 4) % layout->layers;
    const uint32_t first =
        a->first + mq__get_u32(frame->own + 8) % (a->count - a->first) / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
    mq_kvchunk chunk = mq__kv_chunk_at(layout, layer, first, a->count);
    if (chunk.bytes == 0) chunk = mq__kv_chunk_of_state(layout, layer, a->count);
    memset(payload, (int)layer, chunk.bytes);
    mq__kvchunk_write(&chunk, payload, frame->own);
    frame->bytes = chunk.bytes;
}

static void fill_prefill(mq_frame *frame)
{
    mq_buf body = {0};
    const uint32_t count = 1 + mq__get_u32(frame->own + 4) % (CONTEXT - 2);
    const uint32_t first = mq__get_u32(frame->own) % count / MQ_PAGE_TOKENS * MQ_PAGE_TOKENS;
    FUZZ_CHECK(mq__prefill_body(ids, count, "", &body));
    memcpy(payload, body.data, body.len);
    mq__put_u32(frame->own, first);
    mq__put_u32(frame->own + 4, count);
    mq__put_u32(frame->own + 16, 60000);
    mq__put_u32(frame->own + 20, 0);
    memset(frame->own + 24, 0, MQ_FRAME_OWN - 24);
    frame->bytes = body.len;
    mq__buf_free(&body);
}

/* What a right message of its kind would say. */
static void fill_in(const side *s, mq_frame *frame)
{
    const mq_kv_layout *layout = &s->of->engine->kv_layout;
    const mq_kv_arrival *a = NULL;
    if (s->client && frame->request - 1 < MQ_FRAME_HANDOFFS) a = s->client->table[frame->request - 1];
    frame->body = payload;
    if (frame->kind == MQ_FRAME_HELLO) fill_hello(s, frame);
    if (frame->kind == MQ_FRAME_PREFILL) fill_prefill(frame);
    if (a) frame->epoch = a->epoch;
    if (a && frame->kind == MQ_FRAME_BEGIN) fill_begin(s, a, frame);
    if (a && frame->kind == MQ_FRAME_KV) fill_chunk(layout, a, frame);
    if (a && frame->kind == MQ_FRAME_COMMIT) {
        const uint64_t request = frame->request, epoch = frame->epoch;
        const mq_kvimage image = {.first = a->first, .count = a->count - a->first};
        *frame = mq__commit_frame(mq__tokens_digest(ids, a->count + 1), mq__kv_chunks(layout, &image));
        frame->request = request;
        frame->epoch = epoch;
    }
}

static void deliver(side *s, const uint8_t *head, const void *body, size_t bytes)
{
    uint8_t *exact = malloc(bytes); /* a read past its end is seen */
    FUZZ_CHECK(exact || bytes == 0);
    if (bytes) memcpy(exact, body, bytes);
    const bool goes_on = s->client ? mq__client_arrived(s->client, head, exact, bytes)
                                   : mq__served_arrived(s->served, head, exact, bytes);
    s->is_over = !goes_on || (s->served && s->served->is_refused);
    s->refused += s->is_over;
    free(exact);
}

static void repair_and_deliver(side *s, mq_frame *frame, uint32_t how, uint8_t spoiler)
{
    uint8_t head[MQ_LINK_HEAD];
    mq_frame_way way = *way_of(s); /* what the peer's side would be */
    if (how & FILL) fill_in(s, frame);
    if (how & SPOIL && frame->bytes) payload[spoiler % frame->bytes] ^= (uint8_t)(spoiler | 1);
    mq__frame_write(&way, frame, head);
    deliver(s, head, frame->body, frame->bytes);
}

static void take_frame(side *s, uint32_t how, input *in)
{
    uint8_t head[MQ_LINK_HEAD], length[2];
    next_bytes(in, head, sizeof head);
    next_bytes(in, length, sizeof length);
    const size_t bytes = length[0] | (size_t)length[1] << 8;
    next_bytes(in, payload, bytes);
    if (!(how & REPAIR)) {
        deliver(s, head, payload, bytes);
        return;
    }
    mq_frame frame = {.kind = (mq_frame_kind)head[4],
                      .request = mq__get_u64(head + 8),
                      .epoch = mq__get_u64(head + 16),
                      .body = payload,
                      .bytes = bytes};
    memcpy(frame.own, head + 56, sizeof frame.own);
    repair_and_deliver(s, &frame, how, head[0]);
}

static void take_short(side *s, uint32_t how, input *in)
{
    uint8_t few[3 + 16];
    next_bytes(in, few, sizeof few);
    mq_frame frame = {.kind = (mq_frame_kind)few[0], .request = few[1], .epoch = few[2], .body = payload};
    memcpy(frame.own, few + 3, 16);
    repair_and_deliver(s, &frame, how, few[3]);
}

/* ---- a run */

static void send_all(side *s)
{
    double due;
    if (s->client)
        while (mq__client_step(s->client, &due)) {}
    else
        while (mq__served_step(s->served, &due)) {}
}

static void take_step(side *s, uint8_t byte, input *in)
{
    const uint32_t argument = byte >> 3;
    switch ((enum step)(byte & 7)) {
    case FRAME:
    case FRAME_TOO:
        take_frame(s, argument, in);
        break;
    case GROW:
        s->client ? want(s, argument, in) : grow(s, argument, in);
        break;
    case END:
        s->client ? unwant(s, argument) : end_job(s, argument, in);
        break;
    case SEND:
        send_all(s);
        break;
    case WATCH:
        if (s->client) mq__client_watch(s->client, mq__seconds() + argument * 4);
        break;
    case SHORT:
        take_short(s, argument, in);
        break;
    case STATE:
        for (size_t i = 0; s->client && i < HANDOFFS; i++) {
            look(s, &s->wanted[i]);
        }
        break;
    }
}

static void close_side(side *s)
{
    for (uint32_t i = 0; i < HANDOFFS; i++) {
        unwant(s, i);
    }
    if (s->client) {
        mq__client_end(s->client);
        FUZZ_CHECK(s->client->count == 0);
        FUZZ_CHECK(atomic_load(&s->client->holders) == 1);
        mq__client_release(s->client);
        return;
    }
    send_all(s);
    mq__served_end(s->served);
    FUZZ_CHECK(s->live == 0 && s->jobs == NULL);
    mq__served_free(s->served);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    input in = {data, bytes};
    const uint8_t how = next_byte(&in);
    side s = open_side(how);
    played = &s;
    const uint64_t sent = s.h->stats.sent;
    while (in.left && !s.is_over) {
        take_step(&s, next_byte(&in), &in);
    }
    close_side(&s);
    FUZZ_CHECK(s.h->stats.sending == 0);
    fuzz_accepted = s.refused == 0 && (s.arrived > 0 || s.h->stats.sent > sent);
    return 0;
}
