/* The ring of a ucx link, and what it does with messages from outside: right ones keep their bytes, others end the link. */
#include "unit_link.h"

#include "base/little_endian.h"
#include "link/link_ucx_impl.h"

#define PARTS (64u << 10) /* most bytes of a part here */

static uint8_t source[4u << 20];

/* Gives a message to the inbox in parts. False: a part was refused. */
static bool receive(mq_ucx_inbox *inbox, uint64_t number, uint64_t position, size_t bytes, uint64_t freed)
{
    uint8_t head[MQ_LINK_HEAD];
    mq_error error;
    fill_bytes(head, sizeof head, number);
    fill_bytes(source, bytes, mix(number));
    for (size_t at = 0, step; at == 0 || at < bytes; at += step) {
        step = bytes - at < PARTS ? bytes - at : PARTS;
        const mq_ucx_part part = {
            .number = number, .body = bytes, .position = position, .offset = at, .head = head, .bytes = step};
        mq_ucx_record *record;
        uint8_t *to = mq__ucx_inbox_place(inbox, &part, freed, &record, &error);
        if (!to) return false;
        memcpy(to, source + at, step);
        mq__ucx_inbox_fill(inbox, record, step);
        if (step == 0) break;
    }
    return true;
}

/* Takes the message at *at. */
static void take(const mq_ucx_inbox *inbox, uint64_t number, uint64_t *at)
{
    assert_true(*at < inbox->ready);
    const mq_ucx_record *r = mq__ucx_inbox_at(inbox, at);
    assert_true(has_bytes(r->head, MQ_LINK_HEAD, number));
    assert_true(has_bytes((const uint8_t *)(r + 1), r->bytes, mix(number)));
    *at += mq__ucx_record_bytes(r->bytes);
}

/* A sender that goes on whenever it has room, and a receiver that says seldom what it has taken: nothing is lost or overwritten, and
 * they do not wait for each other. */
static void run_ring(size_t most, uint64_t seed)
{
    mq_ucx_inbox inbox;
    assert_true(mq__ucx_inbox_open(&inbox, most));
    mq_ucx_outbox outbox = {.size = inbox.size, .most = most};
    uint64_t sent = 0, taken = 0, at = 0, position, random = seed;
    while (taken < 1000) {
        random = mix(random + 1);
        const uint64_t kind = random % 16;
        const size_t bytes = kind == 0 ? most : kind < 8 ? random % 300 : (random >> 8) % (most + 1);
        const bool has_room = sent < 1000 && mq__ucx_outbox_place(&outbox, bytes, &position);
        if (has_room) {
            assert_true(receive(&inbox, sent, position, bytes, outbox.freed));
            sent++;
        }
        if (!has_room || random >> 60 == 0) { /* some are taken, or all */
            for (uint64_t some = has_room ? (random >> 20) % 8 : UINT64_MAX; some > 0 && taken < sent; some--) {
                take(&inbox, taken++, &at);
            }
        }
        if (at - outbox.freed >= MQ_UCX_FREED) outbox.freed = at;
    }
    assert_true(at == inbox.ready && inbox.ready == inbox.placed);
    mq__ucx_inbox_close(&inbox);
}

static void test_ring(void **state)
{
    (void)state;
    run_ring(0, 1);
    run_ring(1000, 2);
    run_ring(300000, 3);
    run_ring((1u << 20) - MQ_UCX_GRAIN, 4);
    run_ring(2500000, 5);
    mq_ucx_inbox inbox;
    assert_false(mq__ucx_inbox_open(&inbox, SIZE_MAX));
    assert_false(mq__ucx_inbox_open(&inbox, SIZE_MAX / 4));
}

/* What is taken soon leaves most of a ring untouched. */
static void test_warm(void **state)
{
    (void)state;
    mq_ucx_outbox outbox = {.size = 64u << 20, .most = 1u << 20};
    uint64_t position, highest = 0;
    for (int i = 0; i < 1000; i++) {
        assert_true(mq__ucx_outbox_place(&outbox, 200000, &position));
        if (position % outbox.size > highest) highest = position % outbox.size;
        if (outbox.placed - outbox.freed >= MQ_UCX_FREED) outbox.freed = outbox.placed;
    }
    assert_in_range(highest, MQ_UCX_WARM / 2, 2 * MQ_UCX_WARM);
}

/* ---- what a peer must not send */

static bool takes(mq_ucx_inbox *inbox, mq_ucx_part part)
{
    static const uint8_t head[MQ_LINK_HEAD];
    mq_ucx_record *record;
    mq_error error;
    part.head = head;
    return mq__ucx_inbox_place(inbox, &part, 0, &record, &error) != NULL;
}

static void test_impossible_parts(void **state)
{
    (void)state;
    mq_ucx_inbox inbox = {0};
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1})); /* before there is a ring */
    assert_true(mq__ucx_inbox_open(&inbox, 100000));
    const uint64_t size = inbox.size;
    assert_false(takes(&inbox, (mq_ucx_part){.number = 1, .body = 1, .bytes = 1}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1, .offset = 1}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 2}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 0}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1, .position = 64}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1, .position = size}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1, .position = size - 128}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1, .bytes = 1, .position = 0 - (uint64_t)128}));
    assert_true(takes(&inbox, (mq_ucx_part){.body = 1000, .bytes = 500, .position = size - 2048}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1000, .bytes = 501, .offset = 500}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1001, .bytes = 500, .offset = 500}));
    assert_false(takes(&inbox, (mq_ucx_part){.body = 1000, .bytes = 500, .offset = 499}));
    assert_false(takes(&inbox, (mq_ucx_part){.number = 1, .body = 1000, .bytes = 500, .offset = 500}));
    assert_true(
        takes(&inbox, (mq_ucx_part){.body = 1000, .bytes = 500, .offset = 500, .position = 77})); /* it is known */
    assert_false(takes(&inbox, (mq_ucx_part){.number = 1, .body = 1, .bytes = 1, .position = size - 2048}));
    assert_false(
        takes(&inbox, (mq_ucx_part){.number = 1, .body = 1, .bytes = 1, .position = size})); /* nothing is freed */
    mq__ucx_inbox_close(&inbox);
}

static mq_ucx_link *open_link(void)
{
    mq_ucx_link *u = calloc(1, sizeof *u);
    assert_non_null(u);
    u->work.token = 77;
    assert_true(mq__ucx_inbox_open(&u->work.inbox, 100000));
    return u;
}

static void put_message(uint8_t header[MQ_UCX_HEADER], uint64_t token, uint32_t kind, const uint64_t numbers[4])
{
    memset(header, 0, MQ_UCX_HEADER);
    mq__put_u64(header, token);
    mq__put_u32(header + 8, kind);
    for (int i = 0; i < 4; i++) {
        mq__put_u64(header + 16 + 8 * i, numbers[i]);
    }
}

/* A note, with a fresh link: whether it goes on. */
static bool takes_note(uint64_t token, uint32_t kind, const uint64_t numbers[4], size_t header_bytes, size_t bytes)
{
    uint8_t header[MQ_UCX_HEADER];
    mq_ucx_record *record;
    mq_ucx_link *u = open_link();
    put_message(header, token, kind, numbers);
    const uint8_t *to = mq__ucx_take(u, header, header_bytes, bytes, &record);
    const bool goes_on = u->work.failure.status == MQ_OK;
    assert_true(goes_on || !to);
    mq__ucx_inbox_close(&u->work.inbox);
    free(u);
    return goes_on;
}

static void test_impossible_notes(void **state)
{
    (void)state;
    const uint64_t none[4] = {0};
    const uint64_t size = 8u << 20;
    assert_true(takes_note(77, MQ_UCX_READY, none, MQ_UCX_BARE, 0));
    assert_false(takes_note(78, MQ_UCX_READY, none, MQ_UCX_BARE, 0)); /* a stranger's */
    assert_false(takes_note(77, MQ_UCX_READY, none, MQ_UCX_BARE, 1));
    assert_false(takes_note(77, MQ_UCX_READY, none, MQ_UCX_BARE - 1, 0));
    assert_false(takes_note(77, MQ_UCX_READY, none, 4, 0));
    assert_false(takes_note(77, MQ_UCX_READY, none, 0, 0));
    assert_false(takes_note(77, MQ_UCX_NOTES, none, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, 0xffffffff, none, MQ_UCX_BARE, 0));
    assert_true(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, size, 1000}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){1, size, 1000}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, 0, 0}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, 4096, 10}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, size + 1, 1000}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, size, size / 4}, MQ_UCX_BARE, 0));
    assert_false(takes_note(77, MQ_UCX_ROOM, (uint64_t[4]){0, 1ull << 60, 1000}, MQ_UCX_BARE, 0));
    assert_true(takes_note(77, MQ_UCX_A_PART, (uint64_t[4]){0, 100000, 0, 0}, MQ_UCX_HEADER, 100000));
    assert_false(takes_note(77, MQ_UCX_A_PART, (uint64_t[4]){0, 100001, 0, 0}, MQ_UCX_HEADER, 10));
    assert_false(takes_note(77, MQ_UCX_A_PART, (uint64_t[4]){0, UINT64_MAX, 0, 0}, MQ_UCX_HEADER, 10));
    assert_false(takes_note(77, MQ_UCX_A_PART, (uint64_t[4]){0, 10, 0, 0}, MQ_UCX_BARE, 10));
    assert_false(takes_note(77, MQ_UCX_A_PART, none, MQ_UCX_HEADER, MQ_UCX_PART + 1));
}

/* A part that is nearly the one that must come, or a note. */
static size_t make_message(const mq_ucx_inbox *inbox, uint8_t header[MQ_UCX_HEADER], uint64_t *random)
{
    static const uint64_t values[] = {0, 1, 2, 127, 128, 256, 1000, 4096, 100000, 100001, 4u << 20, UINT64_MAX};
    uint64_t numbers[4];
    for (int n = 0; n < 4; n++) {
        numbers[n] = values[(*random = mix(*random + 1)) % (sizeof values / sizeof values[0])];
    }
    const uint64_t dice = *random = mix(*random + 1);
    if (dice % 16 > 0) numbers[0] = inbox->number;
    if ((dice >> 4) % 16 > 0 && inbox->begun > 0) {
        numbers[1] = ((const mq_ucx_record *)(const void *)(inbox->ring + inbox->coming % inbox->size))->bytes;
    }
    if ((dice >> 8) % 16 > 0) numbers[2] = inbox->placed;
    if ((dice >> 12) % 16 > 0) numbers[3] = inbox->begun;
    put_message(header, 77, (dice >> 16) % 16 > 0 ? MQ_UCX_A_PART : MQ_UCX_ROOM, numbers);
    const uint64_t left = numbers[1] - numbers[3] < 200000 ? numbers[1] - numbers[3] : 1;
    return (size_t)((dice >> 24) % 4 > 1 ? left : (dice >> 32) % (left + 2));
}

/* Every byte that is taken is written. */
static void test_random_messages(void **state)
{
    (void)state;
    uint8_t header[MQ_UCX_HEADER];
    uint64_t random = 1, taken = 0, whole = 0, refused = 0;
    for (int run = 0; run < 5000; run++) {
        mq_ucx_link *u = open_link();
        for (int i = 0; i < 50 && u->work.failure.status == MQ_OK; i++) {
            mq_ucx_record *record;
            const size_t bytes = make_message(&u->work.inbox, header, &random);
            uint8_t *to = mq__ucx_take(u, header, mq__get_u32(header + 8) == MQ_UCX_ROOM ? MQ_UCX_BARE : MQ_UCX_HEADER,
                                       bytes, &record);
            if (!to) continue;
            memset(to, 1, bytes);
            mq__ucx_fill(u, record, bytes);
            taken++;
        }
        whole += u->work.inbox.number;
        refused += u->work.failure.status != MQ_OK;
        mq__ucx_inbox_close(&u->work.inbox);
        free(u);
    }
    assert_in_range(taken, 5000, 250000);
    assert_in_range(whole, 2500, taken);
    assert_in_range(refused, 2500, 5000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring),
        cmocka_unit_test(test_warm),
        cmocka_unit_test(test_impossible_parts),
        cmocka_unit_test(test_impossible_notes),
        cmocka_unit_test(test_random_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
