/* Second thoughts: what the peer says of itself decides once more whether the hand-off pays. No network, no threads. */
#include "unit_handoff.h"

#define COUNT 400 /* tokens whose KV is wanted */

typedef struct scene {
    mq_engine *engine;
    worker w;
    mq_client *client;
    mq_kv_arrival *arrival;
    mq_frame_way peer; /* what it sends */
    int32_t ids[COUNT + 1];
} scene;

static mq_pays_facts usual(void)
{
    return (mq_pays_facts){.wanted = COUNT, .computes = COUNT, .rate = 1000, .peer_rate = 1000};
}

static void ask_again(scene *s, const mq_pays_facts *facts)
{
    mq_error error = {0};
    const mq_kv_wanted wanted = {.tokens = s->ids, .count = COUNT};
    assert_int_equal(mq__arriving_new(s->w.handoff, s->client, &wanted, facts, &s->arrival, &error), MQ_OK);
    assert_int_equal(mq__client_add(s->client, s->arrival, &error), MQ_OK);
    double due;
    assert_true(mq__client_step(s->client, &due)); /* PREFILL */
    assert_false(mq__client_step(s->client, &due));
}

static scene *open_scene(void)
{
    static const char *const peers[] = {"link://127.0.0.1:9"};
    scene *s = calloc(1, sizeof *s);
    mq_error error = {0};
    assert_non_null(s);
    s->engine = s->w.engine = open_model(model, 1, 64, MQ_LINEAR_NVFP4);
    pthread_mutex_init(&s->w.lock, NULL);
    assert_int_equal(open_handoff(&s->w, &(mq_handoff_options){.peers = peers, .peer_count = 1}, &error), MQ_OK);
    mq_peer *peer = s->w.handoff->peers->first;
    assert_int_equal(mq__client_new(s->w.handoff, peer, peer->name, &peer->answer.address, &s->client, &error), MQ_OK);
    s->client->is_open = true;
    for (int i = 0; i <= COUNT; i++) {
        s->ids[i] = i % 300;
    }
    return s;
}

static void close_scene(scene *s)
{
    mq__client_end(s->client);
    mq__client_release(s->client);
    mq_handoff_close(s->w.handoff);
    mq_engine_close(s->engine);
    free(s);
}

static bool hears(scene *s, mq_frame frame)
{
    uint8_t head[MQ_LINK_HEAD];
    frame.request = 1;
    frame.epoch = s->client->epoch;
    mq__frame_write(&s->peer, &frame, head);
    return mq__client_arrived(s->client, head, frame.body, frame.bytes);
}

static bool hears_accept(scene *s, uint32_t cached, uint64_t ahead, double rate)
{
    const mq_accept accept = {.cached = cached, .ahead = ahead, .rate = rate};
    return hears(s, mq__accept_frame(&accept));
}

static bool hears_begin(scene *s, uint32_t ready)
{
    mq_buf header = {0};
    const mq_fingerprint *print = &s->w.handoff->print;
    static const uint8_t precise[COUNT / 8];
    const mq_kvimage image = {.weights = print->weights,
                              .plan = print->plan,
                              .tokenizer = print->tokenizer,
                              .rope = print->rope,
                              .layout = print->layout,
                              .layers = s->engine->kv_layout.layers,
                              .count = COUNT};
    assert_int_equal(mq__kvimage_write(&image, s->ids, precise, &header, NULL), MQ_OK);
    const bool goes_on = hears(s, mq__begin_frame(ready, &header));
    mq__buf_free(&header);
    return goes_on;
}

static void expect(scene *s, mq_arrival_state state, bool declined, mq_frame_kind farewell)
{
    mq_arrival_facts facts;
    mq_frame_kind said;
    double due;
    assert_int_equal(mq__arriving_state(s->arrival, &facts), state);
    assert_true(facts.declined == declined);
    if (state != MQ_ARRIVING) {
        assert_true(mq__arriving_is_over(s->arrival, &said));
        assert_int_equal(said, farewell);
        while (mq__client_step(s->client, &due)) {}
        assert_int_equal(s->client->count, 0);
    }
    mq__arriving_end(s->arrival);
    while (mq__client_step(s->client, &due)) {}
    assert_int_equal(s->client->count, 0);
    assert_int_equal(handoff_stats(&s->w).receive_failures, 0);
    assert_int_equal(handoff_stats(&s->w).refused_frames, 0);
}

static void test_accept(void **state)
{
    (void)state;
    static const struct {
        uint64_t ahead;
        double rate;
        uint32_t answers, least;
        bool declines;
    } cases[] = {{0, 0, 0, 0, false},   {99, 0, 0, 0, false},     {101, 0, 0, 0, true},
                 {399, 0, 1, 0, false}, {401, 0, 1, 0, true},     {0, 801, 0, 0, false},
                 {0, 799, 0, 0, true},  {100000, 1, 0, 1, false}, {1000, 4000, 0, 0, false}};
    scene *s = open_scene();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_pays_facts facts = usual();
        facts.answers = cases[i].answers;
        facts.least = cases[i].least;
        ask_again(s, &facts);
        assert_true(hears_accept(s, 0, cases[i].ahead, cases[i].rate));
        expect(s, cases[i].declines ? MQ_ARRIVAL_FAILED : MQ_ARRIVING, cases[i].declines, MQ_FRAME_CANCEL);
    }
    close_scene(s);
}

/* It has less of the beginning than was thought, which it must compute, too. */
static void test_begin(void **state)
{
    (void)state;
    scene *s = open_scene();
    static const struct {
        uint32_t wanted, ready;
        bool declines;
    } cases[] = {{400, 0, false}, {200, 0, true}, {200, 192, false}, {200, 128, true}, {330, 0, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mq_pays_facts facts = usual();
        facts.wanted = facts.computes = cases[i].wanted; /* the rest it was thought to have */
        ask_again(s, &facts);
        assert_true(hears_accept(s, 0, 0, 0));
        assert_true(hears_begin(s, cases[i].ready));
        expect(s, cases[i].declines ? MQ_ARRIVAL_FAILED : MQ_ARRIVING, cases[i].declines, MQ_FRAME_CANCEL);
    }
    close_scene(s);
}

/* A lease that is there: nothing waits before it, nothing is computed. */
static void test_lease(void **state)
{
    (void)state;
    scene *s = open_scene();
    mq_pays_facts facts = usual();
    facts.computes = 0;
    facts.peer_rate = 1;
    ask_again(s, &facts);
    assert_true(hears_accept(s, COUNT, 1000000, 1));
    assert_true(hears_begin(s, COUNT));
    expect(s, MQ_ARRIVING, false, MQ_FRAME_CANCEL);
    close_scene(s);
}

static void test_deadlines(void **state)
{
    (void)state;
    scene *s = open_scene();
    const mq_pays_facts facts = usual(); /* 0.4 s are expected */
    mq_error error = {0};
    ask_again(s, &facts);
    const double now = mq__seconds();
    assert_true(fabs(s->arrival->deadline - now - (10 + 4 * 0.4)) < 0.5);
    assert_false(mq__arriving_watch(s->arrival, now + 4.9, 5, &error));
    assert_true(mq__arriving_watch(s->arrival, now + 5.1, 5, &error));
    assert_non_null(strstr(error.text, "expected a sign of life within 5 s"));
    expect(s, MQ_ARRIVAL_FAILED, false, MQ_FRAME_CANCEL);
    ask_again(s, &facts);
    error = (mq_error){0};
    assert_false(mq__arriving_watch(s->arrival, now + 11.5, 100, &error));
    assert_true(mq__arriving_watch(s->arrival, now + 12.5, 100, &error));
    assert_non_null(strstr(error.text, "expected 400 tokens within 12 s"));
    expect(s, MQ_ARRIVAL_FAILED, false, MQ_FRAME_CANCEL);
    close_scene(s);
}

/* P takes PREFILLs in the order of their epochs only: also when a place of the table was freed before others that wait. */
static void test_epochs_in_order(void **state)
{
    (void)state;
    scene *s = open_scene();
    const mq_pays_facts facts = usual();
    const mq_kv_wanted wanted = {.tokens = s->ids, .count = COUNT};
    mq_kv_arrival *two[2];
    double due;
    ask_again(s, &facts);
    mq__arriving_end(s->arrival);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(mq__arriving_new(s->w.handoff, s->client, &wanted, &facts, &two[i], NULL), MQ_OK);
        assert_int_equal(mq__client_add(s->client, two[i], NULL), MQ_OK);
        if (i == 0) assert_true(mq__client_step(s->client, &due)); /* the farewell of the one that has ended */
    }
    assert_ptr_equal(s->client->table[0], two[1]);
    assert_ptr_equal(s->client->table[1], two[0]);
    for (uint64_t epoch = 2; epoch <= 3; epoch++) {
        assert_true(!two[0]->is_asked || !two[1]->is_asked);
        const bool was_asked[2] = {two[0]->is_asked, two[1]->is_asked};
        assert_true(mq__client_step(s->client, &due));
        for (int i = 0; i < 2; i++) {
            if (two[i]->is_asked && !was_asked[i]) assert_int_equal(two[i]->epoch, epoch);
        }
    }
    assert_true(two[0]->is_asked && two[1]->is_asked);
    mq__arriving_end(two[0]);
    mq__arriving_end(two[1]);
    while (mq__client_step(s->client, &due)) {}
    close_scene(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept),    cmocka_unit_test(test_begin),           cmocka_unit_test(test_lease),
        cmocka_unit_test(test_deadlines), cmocka_unit_test(test_epochs_in_order),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
