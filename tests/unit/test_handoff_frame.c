/* Messages of a hand-off: what is written is read, and nothing else is; tags with and without a key. */
#include "unit_files.h"

#include "base/buf.h"
#include "base/little_endian.h"
#include "handoff/frame.h"

enum { KIND_AT = 4, ZERO_AT = 6, SEQUENCE_AT = 24, BYTES_AT = 32, TAG_AT = 40, OWN_AT = 56, REST_AT = 104 };

static mq_frame_way way_of(const char *key)
{
    mq_frame_way way = {.next = 0};
    if (key) {
        way.key.there = true;
        snprintf((char *)way.key.bytes, sizeof way.key.bytes, "%s", key);
    }
    return way;
}

/* Tags a head again, after it was changed. */
static void tag_again(const mq_frame_way *way, uint8_t *head, const void *body, size_t bytes)
{
    mq__auth_tag(&way->key, head, body, bytes, head[KIND_AT] == MQ_FRAME_KV, head + TAG_AT);
}

static mq_frame sample(const void *body, size_t bytes)
{
    mq_frame frame = {.kind = MQ_FRAME_BEGIN, .request = 7, .epoch = 1ull << 40, .body = body, .bytes = bytes};
    frame.own[0] = 9;
    return frame;
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char body[] = "some bytes";
    const char *keys[] = {NULL, "a key"};
    for (int k = 0; k < 2; k++) {
        mq_frame_way out = way_of(keys[k]), in = way_of(keys[k]);
        for (int i = 0; i < 5; i++) {
            uint8_t head[MQ_LINK_HEAD];
            mq_frame frame = sample(i ? body : NULL, i ? sizeof body : 0), got;
            if (i == 3) frame.kind = MQ_FRAME_KV;
            mq_error error = {0};
            mq__frame_write(&out, &frame, head);
            assert_int_equal(mq__get_u64(head + SEQUENCE_AT), i);
            if (mq__frame_read(&in, head, frame.body, frame.bytes, &got, &error) != MQ_OK) fail_msg("%s", error.text);
            assert_int_equal(got.kind, frame.kind);
            assert_int_equal(got.request, frame.request);
            assert_int_equal(got.epoch, frame.epoch);
            assert_int_equal(got.bytes, frame.bytes);
            assert_ptr_equal(got.body, frame.body);
            assert_memory_equal(got.own, frame.own, sizeof frame.own);
        }
    }
}

/* Any flipped bit of head or body is noticed; of a KV message without a key the body's is the chunk's own matter. */
static void test_flipped_bits(void **state)
{
    (void)state;
    const char *keys[] = {NULL, "a key"};
    static const mq_frame_kind kinds[] = {MQ_FRAME_BEGIN, MQ_FRAME_KV};
    for (int i = 0; i < 4; i++) {
        uint8_t head[MQ_LINK_HEAD], body[40] = {1, 2, 3};
        mq_frame_way out = way_of(keys[i / 2]);
        mq_frame frame = sample(body, sizeof body), got;
        frame.kind = kinds[i % 2];
        mq__frame_write(&out, &frame, head);
        for (size_t bit = 0; bit < 8 * (sizeof head + sizeof body); bit++) {
            uint8_t *at = bit / 8 < sizeof head ? &head[bit / 8] : &body[bit / 8 - sizeof head];
            const bool is_free = at >= body && at < body + sizeof body && i == 1;
            mq_frame_way in = way_of(keys[i / 2]);
            *at ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(mq__frame_read(&in, head, body, sizeof body, &got, NULL), is_free ? MQ_OK : MQ_FORMAT);
            assert_int_equal(in.next, is_free);
            *at ^= (uint8_t)(1u << bit % 8);
        }
    }
}

typedef struct spoilt {
    size_t at;
    uint8_t value;
    const char *names;
} spoilt;

/* What is tagged but against the rules. */
static void test_rules(void **state)
{
    (void)state;
    static const spoilt all[] = {{0, 'X', "magic"},
                                 {KIND_AT, 0, "kind"},
                                 {KIND_AT, MQ_FRAME_KINDS, "kind"},
                                 {KIND_AT + 1, 1, "kind"},
                                 {ZERO_AT, 1, "reserved"},
                                 {ZERO_AT + 1, 1, "reserved"},
                                 {REST_AT, 1, "reserved"},
                                 {REST_AT + 7, 9, "reserved"},
                                 {SEQUENCE_AT, 1, "replayed"},
                                 {SEQUENCE_AT + 7, 1, "replayed"},
                                 {BYTES_AT, 3, "body"},
                                 {BYTES_AT + 6, 1, "body"}};
    const char *keys[] = {NULL, "a key"};
    for (size_t i = 0; i < 2 * sizeof all / sizeof all[0]; i++) {
        const spoilt *s = &all[i / 2];
        uint8_t head[MQ_LINK_HEAD], body[4] = {0};
        mq_frame_way out = way_of(keys[i % 2]), in = out;
        const mq_frame frame = sample(body, sizeof body);
        mq_frame got;
        mq_error error = {0};
        mq__frame_write(&out, &frame, head);
        head[s->at] = s->value;
        tag_again(&out, head, body, sizeof body);
        unit_refused(mq__frame_read(&in, head, body, sizeof body, &got, &error), MQ_FORMAT, &error, s->names);
    }
}

/* The same bytes a second time, or the next but one. */
static void test_replay_and_loss(void **state)
{
    (void)state;
    uint8_t head[3][MQ_LINK_HEAD];
    mq_frame_way out = way_of("key"), in = way_of("key");
    const mq_frame frame = {.kind = MQ_FRAME_DONE, .request = 1, .epoch = 1};
    mq_frame got;
    mq_error error = {0};
    for (int i = 0; i < 3; i++) {
        mq__frame_write(&out, &frame, head[i]);
    }
    assert_int_equal(mq__frame_read(&in, head[0], NULL, 0, &got, NULL), MQ_OK);
    unit_refused(mq__frame_read(&in, head[0], NULL, 0, &got, &error), MQ_FORMAT, &error, "expected 1, got 0");
    unit_refused(mq__frame_read(&in, head[2], NULL, 0, &got, &error), MQ_FORMAT, &error, "expected 1, got 2");
    assert_int_equal(mq__frame_read(&in, head[1], NULL, 0, &got, NULL), MQ_OK);
}

static void test_keys(void **state)
{
    (void)state;
    mq_auth_key shared = way_of("shared").key, a, b;
    uint8_t d[MQ_PROTOCOL_NONCE] = {1}, p[MQ_PROTOCOL_NONCE] = {2}, head[MQ_LINK_HEAD];
    mq_error error = {0};
    mq_frame got;
    const mq_frame frame = {.kind = MQ_FRAME_DONE, .request = 1, .epoch = 1};
    mq__auth_key_derive(&shared, 'D', d, p, &a);
    mq__auth_key_derive(&shared, 'D', d, p, &b);
    assert_memory_equal(a.bytes, b.bytes, sizeof a.bytes);
    mq__auth_key_derive(&shared, 'P', d, p, &b);
    assert_memory_not_equal(a.bytes, b.bytes, sizeof a.bytes);
    mq__auth_key_derive(&shared, 'D', p, d, &b);
    assert_memory_not_equal(a.bytes, b.bytes, sizeof a.bytes);
    assert_memory_not_equal(a.bytes, shared.bytes, sizeof a.bytes);
    /* of another direction, of another connection, of nobody who has the key */
    const mq_frame_way others[] = {{.key = b}, {.key = shared}, {.next = 0}};
    for (size_t i = 0; i < 3; i++) {
        mq_frame_way out = others[i], in = {.key = a};
        mq__frame_write(&out, &frame, head);
        unit_refused(mq__frame_read(&in, head, NULL, 0, &got, &error), MQ_FORMAT, &error, "the shared key's");
    }
    mq_frame_way keyed = {.key = a}, open = {.next = 0};
    mq__frame_write(&keyed, &frame, head);
    unit_refused(mq__frame_read(&open, head, NULL, 0, &got, &error), MQ_FORMAT, &error, "a peer with a key");
}

static void test_key_files(void **state)
{
    (void)state;
    mq_auth_key key, other;
    mq_error error = {0};
    unit_puts("key", "0123456789abcdef");
    unit_puts("other", "0123456789abcdeg");
    unit_puts("short", "0123456789abcde");
    assert_int_equal(mq__auth_key_read(NULL, &key, &error), MQ_OK);
    assert_false(key.there);
    assert_int_equal(mq__auth_key_read(unit_path("key"), &key, &error), MQ_OK);
    assert_int_equal(mq__auth_key_read(unit_path("other"), &other, &error), MQ_OK);
    assert_true(key.there);
    assert_memory_not_equal(key.bytes, other.bytes, sizeof key.bytes);
    unit_refused(mq__auth_key_read(unit_path("short"), &key, &error), MQ_USAGE, &error, "at least 16 bytes");
    unit_refused(mq__auth_key_read(unit_path("none"), &key, &error), MQ_IO, &error, "none");
}

/* ---- the kinds */

static mq_fingerprint print_of(uint8_t seed)
{
    mq_fingerprint print;
    memset(&print, seed, sizeof print);
    print.plan.bytes[0] = 1;
    print.layout.bytes[0] = 2;
    return print;
}

static void test_greetings(void **state)
{
    (void)state;
    uint8_t body[MQ_HELLO_BODY];
    mq_hello hello = {.version = MQ_PROTOCOL_VERSION, .role = 'D', .print = print_of(3)}, got;
    mq_error error = {0};
    memset(hello.nonce, 5, sizeof hello.nonce);
    memset(hello.instance, 6, sizeof hello.instance);
    memset(hello.answers, 7, sizeof hello.answers);
    const mq_frame good = mq__hello_frame(&hello, body);
    assert_int_equal(mq__hello_read(&good, &got, NULL), MQ_OK);
    assert_int_equal(got.role, 'D');
    assert_memory_equal(got.nonce, hello.nonce, sizeof got.nonce);
    assert_memory_equal(got.instance, hello.instance, sizeof got.instance);
    assert_memory_equal(got.answers, hello.answers, sizeof got.answers);
    assert_memory_equal(&got.print, &hello.print, sizeof got.print);
    for (int i = 0; i < 8; i++) {
        mq_frame bad = good;
        if (i == 0) bad.kind = MQ_FRAME_PREFILL;
        if (i == 1) bad.request = 1;
        if (i == 2) bad.epoch = 1;
        if (i == 3) bad.bytes--;
        if (i == 4) bad.own[2] = 'X';
        if (i == 5) bad.own[3] = 1;
        if (i == 6) bad.own[4] = 1;
        if (i == 7) bad.own[47] = 1;
        unit_refused(mq__hello_read(&bad, &got, &error), MQ_FORMAT, &error, "greeting");
    }
    mq_frame newer = good;
    newer.own[1] = 1;
    unit_refused(mq__hello_read(&newer, &got, &error), MQ_FORMAT, &error, "expected version 2, got 258");
}

static void test_prefill(void **state)
{
    (void)state;
    int32_t ids[201];
    mq_buf body = {0};
    mq_prefill got;
    mq_error error = {0};
    for (int i = 0; i <= 200; i++) {
        ids[i] = i * 3;
    }
    assert_true(mq__prefill_body(ids, 200, "a lease", &body));
    const mq_prefill prefill = {.first = 64, .count = 200, .owner = 1ull << 63, .timeout_ms = 60000, .lease_bytes = 7};
    const mq_frame good = mq__prefill_frame(&prefill, &body);
    if (mq__prefill_read(&good, &got, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(got.first, 64);
    assert_int_equal(got.count, 200);
    assert_true(got.owner == 1ull << 63);
    assert_int_equal(got.timeout_ms, 60000);
    assert_memory_equal(got.lease, "a lease", 7);
    for (uint32_t i = 0; i <= 200; i++) {
        assert_int_equal(mq__get_u32(got.tokens + 4 * (size_t)i), ids[i]);
    }
    static const uint32_t bad[][4] = {
        {200, 200, 7, 0}, {256, 200, 7, 0},       {63, 200, 7, 0},          {64, 199, 7, 0},         {64, 201, 7, 0},
        {64, 200, 6, 0},  {64, 0xffffffff, 7, 0}, {64, 200, 0xffffffff, 0}, {64, 198, 7 + 4 * 2, 0}, {64, 200, 7, 1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const mq_prefill other = {.first = bad[i][0], .count = bad[i][1], .lease_bytes = bad[i][2]};
        mq_frame frame = mq__prefill_frame(&other, &body);
        frame.own[47] = (uint8_t)bad[i][3];
        const mq_status expected = i == 8 ? MQ_OK : MQ_FORMAT; /* tokens or lease: bytes alone do not tell */
        assert_int_equal(mq__prefill_read(&frame, &got, &error), expected);
    }
    mq__buf_free(&body);
    assert_true(mq__prefill_body(ids, 65, "", &body));
    const mq_prefill plain = {.count = 65};
    const mq_frame without = mq__prefill_frame(&plain, &body);
    assert_int_equal(mq__prefill_read(&without, &got, &error), MQ_OK);
    mq__buf_free(&body);
    char lease[MQ_FRAME_LEASE + 2];
    memset(lease, 'x', sizeof lease);
    lease[MQ_FRAME_LEASE + 1] = '\0';
    assert_true(mq__prefill_body(ids, 65, lease, &body)); /* cut */
    assert_int_equal(body.len, 66 * 4 + MQ_FRAME_LEASE);
    mq__buf_free(&body);
}

static void test_numbers(void **state)
{
    (void)state;
    const mq_accept accept = {.cached = 5, .ahead = 1ull << 40, .rate = 123.5};
    mq_frame frame = mq__accept_frame(&accept);
    mq_accept accepted;
    assert_int_equal(mq__accept_read(&frame, &accepted, NULL), MQ_OK);
    assert_int_equal(accepted.cached, 5);
    assert_true(accepted.ahead == 1ull << 40);
    assert_true(fabs(accepted.rate - 123.5) < 1e-9);
    frame.own[4] = 1;
    assert_int_equal(mq__accept_read(&frame, &accepted, NULL), MQ_FORMAT);

    uint32_t computed;
    uint64_t ahead;
    frame = mq__state_frame(77, 99);
    assert_int_equal(mq__state_read(&frame, &computed, &ahead, NULL), MQ_OK);
    assert_int_equal(computed, 77);
    assert_int_equal(ahead, 99);
    frame.own[16] = 1;
    assert_int_equal(mq__state_read(&frame, &computed, &ahead, NULL), MQ_FORMAT);
    frame = mq__state_frame(77, 99);
    frame.bytes = 1;
    assert_int_equal(mq__state_read(&frame, &computed, &ahead, NULL), MQ_FORMAT);

    const int32_t ids[] = {1, 2, 3};
    mq_digest digest;
    uint64_t chunks;
    frame = mq__commit_frame(mq__tokens_digest(ids, 3), 42);
    assert_int_equal(mq__commit_read(&frame, &digest, &chunks, NULL), MQ_OK);
    assert_int_equal(chunks, 42);
    const mq_digest own = mq__tokens_digest(ids, 3), shorter = mq__tokens_digest(ids, 2);
    assert_memory_equal(&digest, &own, sizeof own);
    assert_memory_not_equal(&digest, &shorter, sizeof own);

    mq_buf header = {0};
    uint32_t ready;
    assert_true(mq__buf_puts(&header, "header"));
    frame = mq__begin_frame(12, &header);
    assert_int_equal(mq__begin_read(&frame, &ready, NULL), MQ_OK);
    assert_int_equal(ready, 12);
    frame.own[4] = 1;
    assert_int_equal(mq__begin_read(&frame, &ready, NULL), MQ_FORMAT);
    mq__buf_free(&header);

    frame = (mq_frame){.kind = MQ_FRAME_DONE};
    assert_int_equal(mq__empty_read(&frame, NULL), MQ_OK);
    frame.own[0] = 1;
    assert_int_equal(mq__empty_read(&frame, NULL), MQ_FORMAT);
}

/* Texts go into logs: nothing but printable bytes, and not too many. */
static void test_texts(void **state)
{
    (void)state;
    char text[MQ_FRAME_TEXT + 1], lengthy[MQ_FRAME_TEXT + 50];
    mq_handoff_fault fault;
    mq_frame frame = mq__fail_frame(MQ_FAULT_BUSY, "too\nmuch\x1b[2J\xff");
    assert_int_equal(mq__fail_read(&frame, &fault, text, NULL), MQ_OK);
    assert_int_equal(fault, MQ_FAULT_BUSY);
    assert_string_equal(text, "too?much?[2J?");
    for (uint32_t code = 0; code < 8; code++) {
        mq__put_u32(frame.own, code);
        assert_int_equal(mq__fail_read(&frame, &fault, text, NULL), code && code < MQ_FAULTS ? MQ_OK : MQ_FORMAT);
    }
    memset(lengthy, 'a', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = '\0';
    frame = mq__refuse_frame(lengthy);
    assert_int_equal(frame.bytes, MQ_FRAME_TEXT);
    assert_int_equal(mq__refuse_read(&frame, text, NULL), MQ_OK);
    assert_int_equal(strlen(text), MQ_FRAME_TEXT);
    frame.bytes++;
    assert_int_equal(mq__refuse_read(&frame, text, NULL), MQ_FORMAT);
    frame = mq__refuse_frame("no");
    frame.epoch = 1;
    assert_int_equal(mq__refuse_read(&frame, text, NULL), MQ_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_flipped_bits), cmocka_unit_test(test_rules),
        cmocka_unit_test(test_replay_and_loss), cmocka_unit_test(test_keys),         cmocka_unit_test(test_key_files),
        cmocka_unit_test(test_greetings),       cmocka_unit_test(test_prefill),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, unit_setup, unit_teardown);
}
