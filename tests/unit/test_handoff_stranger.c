/* A prefill worker among strangers: who breaks a rule is sent away and told why where he may be told, what he asked for is let go, and
 * others are served as if he had never come. */
#include "unit_handoff.h"

#include "base/little_endian.h"

/* A decode worker by hand. */
typedef struct stranger {
    mq_link *link;
    mq_frame_way in, out;
    mq_auth_key key;
    mq_hello own;
    pthread_mutex_t lock; /* what follows */
    uint32_t heard[MQ_FRAME_KINDS];
    mq_handoff_fault fault;
    char text[MQ_FRAME_TEXT + 1];
    bool is_over, is_deaf; /* is_deaf: it takes nothing */
} stranger;

static bool hear_frame(void *context, const uint8_t *head, const void *body, size_t bytes)
{
    stranger *s = context;
    mq_frame frame;
    mq_hello theirs;
    for (bool deaf = true; deaf;) {
        pthread_mutex_lock(&s->lock);
        deaf = s->is_deaf;
        pthread_mutex_unlock(&s->lock);
        if (deaf) nap(0.01);
    }
    if (mq__frame_read(&s->in, head, body, bytes, &frame, NULL) != MQ_OK) return true; /* of another key */
    if (frame.kind == MQ_FRAME_HELLO) {
        assert_int_equal(mq__hello_read(&frame, &theirs, NULL), MQ_OK);
        assert_memory_equal(theirs.answers, s->own.nonce, sizeof theirs.answers);
        mq__auth_key_derive(&s->key, 'P', s->own.nonce, theirs.nonce, &s->in.key);
        mq__auth_key_derive(&s->key, 'D', s->own.nonce, theirs.nonce, &s->out.key);
    }
    pthread_mutex_lock(&s->lock);
    s->heard[frame.kind]++;
    if (frame.kind == MQ_FRAME_REFUSE) assert_int_equal(mq__refuse_read(&frame, s->text, NULL), MQ_OK);
    if (frame.kind == MQ_FRAME_FAIL) assert_int_equal(mq__fail_read(&frame, &s->fault, s->text, NULL), MQ_OK);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static void hear_end(void *context, const mq_error *error)
{
    stranger *s = context;
    (void)error;
    pthread_mutex_lock(&s->lock);
    s->is_over = true;
    pthread_mutex_unlock(&s->lock);
}

static stranger *come(const worker *p, const char *key_file, bool paired)
{
    stranger *s = calloc(1, sizeof *s);
    mq_error error = {0};
    mq_link *other;
    assert_non_null(s);
    pthread_mutex_init(&s->lock, NULL);
    assert_int_equal(mq__auth_key_read(key_file, &s->key, &error), MQ_OK);
    s->in.key = s->out.key = s->key;
    if (paired) {
        assert_int_equal(mq__link_pair(&s->link, &other, &error), MQ_OK);
        mq__server_side_accept(p->handoff, other, "pair");
    } else if (mq__link_connect("tcp", "127.0.0.1", mq_handoff_port(p->handoff), 5, &s->link, &error) != MQ_OK) {
        fail_msg("%s", error.text);
    }
    const mq_link_events events = {.arrived = hear_frame, .ended = hear_end, .context = s};
    assert_int_equal(mq__link_start(s->link, &events, 1 << 20, &error), MQ_OK);
    return s;
}

static void go(stranger *s)
{
    pthread_mutex_lock(&s->lock);
    s->is_deaf = false;
    pthread_mutex_unlock(&s->lock);
    mq__link_close(s->link);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static uint32_t heard(stranger *s, mq_frame_kind kind)
{
    pthread_mutex_lock(&s->lock);
    const uint32_t count = s->heard[kind];
    pthread_mutex_unlock(&s->lock);
    return count;
}

static bool is_over(stranger *s)
{
    pthread_mutex_lock(&s->lock);
    const bool over = s->is_over;
    pthread_mutex_unlock(&s->lock);
    return over;
}

static mq_status send_frame(stranger *s, const mq_frame *frame)
{
    uint8_t head[MQ_LINK_HEAD];
    mq_error error = {0};
    mq__frame_write(&s->out, frame, head);
    const mq_status status = mq__link_send(s->link, head, frame->body, frame->bytes, 2, &error);
    return status == MQ_OK ? mq__link_flush(s->link, 2, &error) : status;
}

/* Its greeting, of this worker's engine; `spoil` changes it. */
static void say_hello(stranger *s, const worker *p, void (*spoil)(mq_hello *hello))
{
    uint8_t body[MQ_HELLO_BODY];
    s->own = (mq_hello){.version = MQ_PROTOCOL_VERSION, .role = 'D', .print = p->handoff->print};
    mq__auth_random(s->own.nonce, sizeof s->own.nonce);
    if (spoil) spoil(&s->own);
    const mq_frame frame = mq__hello_frame(&s->own, body);
    assert_int_equal(send_frame(s, &frame), MQ_OK);
}

static stranger *come_and_greet(const worker *p, const char *key_file)
{
    stranger *s = come(p, key_file, false);
    say_hello(s, p, NULL);
    WAIT_FOR(heard(s, MQ_FRAME_HELLO) == 1);
    return s;
}

static mq_status ask_prefill(stranger *s, uint64_t epoch, uint32_t count, uint32_t timeout_ms, int32_t token)
{
    static int32_t ids[2000];
    mq_buf body = {0};
    for (uint32_t i = 0; i <= count; i++) {
        ids[i] = 20 + (int32_t)((i * (epoch + 3)) % 200);
    }
    ids[count / 2] = token;
    assert_true(mq__prefill_body(ids, count, "", &body));
    const mq_prefill prefill = {.count = count, .timeout_ms = timeout_ms};
    mq_frame frame = mq__prefill_frame(&prefill, &body);
    frame.request = epoch;
    frame.epoch = epoch;
    const mq_status status = send_frame(s, &frame);
    mq__buf_free(&body);
    return status;
}

static mq_status say_short(stranger *s, mq_frame_kind kind, uint64_t epoch)
{
    const mq_frame frame = {.kind = kind, .request = epoch, .epoch = epoch};
    return send_frame(s, &frame);
}

/* ---- a prefill worker, and that all is as before */

static worker *start_p(const mq_handoff_options *more)
{
    worker *p = start_prefill(open_model(model, 4, 64, MQ_LINEAR_NVFP4), more);
    p->handoff->tuning.greet = 1;
    p->handoff->tuning.send = 0.5;
    p->handoff->tuning.done = 0.2;
    return p;
}

static bool is_idle(const worker *p)
{
    mq_scheduler_stats stats;
    mq_scheduler_describe(p->scheduler, &stats);
    return handoff_stats(p).sending == 0 && stats.running + stats.waiting + stats.held == 0 &&
           (stats.requests == 0 || stats.kv_blocks_free + stats.kv_blocks_cached == stats.kv_blocks);
}

/* All that was asked for is let go, and the next one is served. */
static void check_served(worker *p)
{
    WAIT_FOR(is_idle(p));
    stranger *s = come_and_greet(p, NULL);
    assert_int_equal(ask_prefill(s, 1, 200, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 1);
    assert_int_equal(heard(s, MQ_FRAME_ACCEPT), 1);
    assert_int_equal(heard(s, MQ_FRAME_BEGIN), 1);
    assert_int_equal(heard(s, MQ_FRAME_KV), 12);
    assert_int_equal(say_short(s, MQ_FRAME_DONE, 1), MQ_OK);
    WAIT_FOR(is_idle(p));
    go(s);
}

/* ---- greetings */

static void other_weights(mq_hello *hello)
{
    hello->print.weights.bytes[0] ^= 1;
}
static void other_plan(mq_hello *hello)
{
    hello->print.plan.bytes[15] ^= 1;
}
static void other_tokenizer(mq_hello *hello)
{
    hello->print.tokenizer.bytes[0] ^= 1;
}
static void other_rope(mq_hello *hello)
{
    hello->print.rope.bytes[0] ^= 1;
}
static void other_layout(mq_hello *hello)
{
    hello->print.layout.bytes[0] ^= 1;
}
static void other_version(mq_hello *hello)
{
    hello->version = MQ_PROTOCOL_VERSION + 1;
}
static void other_role(mq_hello *hello)
{
    hello->role = 'P';
}

static void test_greetings(void **state)
{
    (void)state;
    static const struct {
        void (*spoil)(mq_hello *hello);
        const char *names;
        bool counts;
    } cases[] = {{other_weights, "weights: expected the same", false},
                 {other_plan, "plan: expected the same", false},
                 {other_tokenizer, "tokenizer: expected the same", false},
                 {other_rope, "rotary frequencies: expected the same", false},
                 {other_layout, "KV layout: expected the same", false},
                 {other_version, "protocol: expected version 2, got 3", true},
                 {other_role, "expected one of a decode worker", true}};
    worker *p = start_p(NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const uint64_t before = handoff_stats(p).refused_frames;
        stranger *s = come(p, NULL, false);
        say_hello(s, p, cases[i].spoil);
        WAIT_FOR(is_over(s));
        assert_int_equal(heard(s, MQ_FRAME_REFUSE), 1);
        assert_non_null(strstr(s->text, cases[i].names));
        assert_true(has_line(p, cases[i].names));
        assert_int_equal(handoff_stats(p).refused_frames - before, cases[i].counts);
        go(s);
    }
    stranger *silent = come(p, NULL, false); /* says nothing */
    WAIT_FOR(is_over(silent));
    assert_true(has_line(p, "expected a greeting within 1 s"));
    go(silent);
    stranger *hasty = come(p, NULL, false); /* asks at once */
    assert_int_equal(ask_prefill(hasty, 1, 100, 1000, 20), MQ_OK);
    WAIT_FOR(is_over(hasty));
    assert_int_equal(heard(hasty, MQ_FRAME_REFUSE), 1);
    go(hasty);
    check_served(p);
    stop_worker(p);
}

static void test_keys(void **state)
{
    (void)state;
    unit_puts("key", "0123456789abcdef");
    unit_puts("other", "0123456789abcdeg");
    static const char *const files[] = {NULL, "key", "other"};
    for (int mine = 0; mine < 2; mine++) {
        const mq_handoff_options options = {.key_file = files[mine] ? unit_path(files[mine]) : NULL};
        worker *p = start_p(&options);
        for (int theirs = 0; theirs < 3; theirs++) {
            stranger *s = come(p, files[theirs] ? unit_path(files[theirs]) : NULL, false);
            say_hello(s, p, NULL);
            if (mine == theirs)
                WAIT_FOR(heard(s, MQ_FRAME_HELLO) == 1);
            else
                WAIT_FOR(is_over(s));
            assert_int_equal(heard(s, MQ_FRAME_HELLO), mine == theirs);
            go(s);
        }
        assert_int_equal(handoff_stats(p).refused_frames, 2);
        assert_true(has_line(p, mine ? "the shared key's" : "a peer with a key"));
        /* with the right key, all that follows has keys of its own */
        stranger *s = come_and_greet(p, files[mine] ? unit_path(files[mine]) : NULL);
        s->out.key = s->key;
        assert_int_equal(ask_prefill(s, 1, 100, 1000, 20), MQ_OK);
        if (mine)
            WAIT_FOR(is_over(s));
        else
            WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 1);
        go(s);
        stop_worker(p);
    }
}

/* ---- messages against the rules */

enum { RULES = 16 };

static void break_rule(stranger *s, int rule)
{
    uint8_t head[MQ_LINK_HEAD];
    static uint8_t body[1 << 20];
    mq_frame frame = {.kind = MQ_FRAME_CANCEL, .request = 1, .epoch = 1};
    mq_error error = {0};
    if (rule == 0) frame.epoch = 2;              /* never given */
    if (rule == 1) frame.kind = MQ_FRAME_DONE;   /* before COMMIT */
    if (rule == 2) frame.kind = MQ_FRAME_HELLO;  /* again */
    if (rule == 3) frame.kind = MQ_FRAME_COMMIT; /* of the other side */
    if (rule == 4) frame.own[3] = 1;             /* numbers where none are */
    if (rule == 5) frame.request = 2;            /* another's epoch */
    if (rule == 6) frame.epoch = 0;
    if (rule == 7) frame.bytes = 5;           /* a body where none is */
    if (rule == 8) frame.bytes = sizeof body; /* too long */
    if (rule == 9) {
        (void)ask_prefill(s, 1, 100, 1000, 20); /* the same epoch again */
        return;
    }
    frame.body = body;
    mq__frame_write(&s->out, &frame, head);
    if (rule == 10) head[57] ^= 1; /* damaged */
    if (rule == 11) head[4] = 77;  /* no kind */
    if (rule == 12) head[7] = 1;   /* reserved */
    if (rule == 13) head[24] += 1; /* lost */
    if (rule == 14) head[0] = 'm';
    if (rule > 10) mq__auth_tag(&s->out.key, head, body, frame.bytes, false, head + 40);
    (void)mq__link_send(s->link, head, body, frame.bytes, 2, &error);
    if (rule == 15) (void)mq__link_send(s->link, head, body, frame.bytes, 2, &error); /* replayed */
}

static void test_broken_rules(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    for (int rule = 0; rule < RULES; rule++) {
        stranger *s = come_and_greet(p, NULL);
        const uint64_t before = handoff_stats(p).refused_frames;
        assert_int_equal(ask_prefill(s, 1, 900, 10000, 20), MQ_OK);
        WAIT_FOR(heard(s, MQ_FRAME_ACCEPT) == 1);
        break_rule(s, rule);
        WAIT_FOR(is_over(s));
        for (int i = 0; i < 200 && handoff_stats(p).refused_frames == before; i++) {
            usleep(5000); /* of a body that is too long the stranger hears before it is counted */
        }
        if (handoff_stats(p).refused_frames != before + 1) fail_msg("rule %d", rule);
        go(s);
    }
    check_served(p);
    stop_worker(p);
}

/* ---- what cannot be done */

static void test_refusals(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    stranger *s = come_and_greet(p, NULL);
    static const struct {
        uint32_t count, timeout_ms;
        int32_t token;
        mq_handoff_fault fault;
        const char *names;
    } cases[] = {{1023, 10000, 20, MQ_FAULT_REFUSED, "context"}, /* KV of 1023, and one token more */
                 {100, 10000, 333, MQ_FAULT_REFUSED, "id below 333"},
                 {100, 10000, -1, MQ_FAULT_REFUSED, "id below 333"},
                 {1000, 0, 20, MQ_FAULT_LATE, "time"}};
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(ask_prefill(s, i + 1, cases[i].count, cases[i].timeout_ms, cases[i].token), MQ_OK);
        WAIT_FOR(heard(s, MQ_FRAME_FAIL) == i + 1);
        assert_int_equal(s->fault, cases[i].fault);
        assert_non_null(strstr(s->text, cases[i].names));
        WAIT_FOR(is_idle(p));
    }
    assert_int_equal(say_short(s, MQ_FRAME_CANCEL, 2), MQ_OK); /* they have crossed */
    assert_int_equal(ask_prefill(s, 9, 100, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 1);
    assert_int_equal(handoff_stats(p).refused_frames, 0);
    assert_int_equal(handoff_stats(p).send_failures, 1);
    go(s);
    stop_worker(p);
}

/* A prompt beyond this worker's context, which the decode worker's own may well be: others on the connection go on. */
static void test_a_shorter_context(void **state)
{
    (void)state;
    worker *p = start_prefill(open_context(model, 256, 4, 64, MQ_LINEAR_NVFP4), NULL);
    stranger *s = come_and_greet(p, NULL);
    assert_int_equal(ask_prefill(s, 1, 1000, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_FAIL) == 1 || is_over(s));
    assert_false(is_over(s));
    assert_int_equal(s->fault, MQ_FAULT_REFUSED);
    assert_non_null(strstr(s->text, "context"));
    assert_int_equal(ask_prefill(s, 2, 200, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 1);
    assert_int_equal(handoff_stats(p).refused_frames, 0);
    go(s);
    stop_worker(p);
}

static void test_busy(void **state)
{
    (void)state;
    const mq_handoff_options options = {.most_waiting = 1};
    worker *p = start_p(&options);
    stranger *s = come_and_greet(p, NULL);
    for (uint64_t i = 0; i < 8; i++) {
        assert_int_equal(ask_prefill(s, i + 1, 900, 100000, 20), MQ_OK);
    }
    WAIT_FOR(heard(s, MQ_FRAME_FAIL) + heard(s, MQ_FRAME_COMMIT) == 8);
    assert_true(heard(s, MQ_FRAME_COMMIT) >= 1);
    assert_true(heard(s, MQ_FRAME_FAIL) >= 1);
    assert_int_equal(s->fault, MQ_FAULT_BUSY);
    go(s);
    check_served(p);
    stop_worker(p);
}

/* ---- strangers who vanish, hold on, or flood */

static void test_vanishing(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    for (uint32_t i = 0; i < 40; i++) {
        stranger *s = come_and_greet(p, NULL);
        for (uint64_t j = 1; j <= 3; j++) {
            assert_int_equal(ask_prefill(s, 100 * i + j, 850, 10000, 20 + (int32_t)i), MQ_OK);
        }
        nap(0.0005 * i);
        if (i % 2) {
            for (uint64_t j = 1; j <= 3; j++) {
                assert_int_equal(say_short(s, MQ_FRAME_CANCEL, 100 * i + j), MQ_OK);
            }
            WAIT_FOR(is_idle(p));
        }
        go(s);
        WAIT_FOR(is_idle(p));
    }
    check_served(p);
    stop_worker(p);
}

/* It takes nothing: after a while it is taken for gone, and holds nothing any more. */
static void test_deaf(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    stranger *s = come(p, NULL, true);
    say_hello(s, p, NULL);
    WAIT_FOR(heard(s, MQ_FRAME_HELLO) == 1);
    pthread_mutex_lock(&s->lock);
    s->is_deaf = true;
    pthread_mutex_unlock(&s->lock);
    for (uint64_t i = 1; i <= 60; i++) { /* 30 MB, if it took them */
        assert_int_equal(ask_prefill(s, i, 900, 20000, 20), MQ_OK);
    }
    WAIT_FOR(has_line(p, "pair: "));
    WAIT_FOR(is_idle(p));
    assert_true(handoff_stats(p).send_failures > 0);
    go(s);
    check_served(p);
    stop_worker(p);
}

/* It never says that it has all. */
static void test_no_thanks(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    stranger *s = come_and_greet(p, NULL);
    assert_int_equal(ask_prefill(s, 1, 200, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 1);
    WAIT_FOR(is_idle(p));
    assert_int_equal(say_short(s, MQ_FRAME_DONE, 1), MQ_OK); /* now it does */
    assert_int_equal(ask_prefill(s, 2, 200, 10000, 20), MQ_OK);
    WAIT_FOR(heard(s, MQ_FRAME_COMMIT) == 2);
    assert_int_equal(handoff_stats(p).refused_frames, 0);
    go(s);
    stop_worker(p);
}

static void test_flood(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    stranger *s = come_and_greet(p, NULL);
    mq_status status = MQ_OK;
    for (uint64_t i = 1; i <= 5000 && status == MQ_OK && !is_over(s); i++) {
        status = ask_prefill(s, i, 900, 20000, 20);
    }
    go(s); /* sent away, or each one refused: that depends on who is faster */
    check_served(p);
    stop_worker(p);
}

static void test_crowd(void **state)
{
    (void)state;
    worker *p = start_p(NULL);
    p->handoff->tuning.served = 3;
    p->handoff->tuning.greet = 5;
    stranger *many[5];
    for (int i = 0; i < 5; i++) {
        many[i] = come(p, NULL, false);
    }
    WAIT_FOR(is_over(many[3]) && is_over(many[4]));
    assert_true(has_line(p, "expected at most 3 connections"));
    for (int i = 0; i < 5; i++) {
        go(many[i]);
    }
    stop_worker(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greetings),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_broken_rules),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_a_shorter_context),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_vanishing),
        cmocka_unit_test(test_deaf),
        cmocka_unit_test(test_no_thanks),
        cmocka_unit_test(test_flood),
        cmocka_unit_test(test_crowd),
    };
    return cmocka_run_group_tests(tests, open_text, close_text);
}
