/* What a decode worker decides by: whether a hand-off pays, who may be named, what a peer has read. */
#include "unit_files.h"

#include "handoff/network.h"
#include "handoff/pays.h"
#include "handoff/remember.h"

#include <arpa/inet.h>

/* ---- whether it pays */

static mq_pays_facts measured(uint32_t wanted)
{
    return (mq_pays_facts){.wanted = wanted, .computes = wanted, .rate = 1000, .peer_rate = 1000};
}

static void test_before_measuring(void **state)
{
    (void)state;
    mq_pays_facts f = {.wanted = 255, .computes = 255};
    assert_false(mq__pays(&f));
    f.wanted = f.computes = 256;
    assert_true(mq__pays(&f));
    f.rate = 1e6; /* one side alone says nothing */
    assert_true(mq__pays(&f));
    f.rate = 0;
    f.peer_rate = 1;
    assert_true(mq__pays(&f));
    f.peer_rate = 1000;
    f.bytes = 1000;
    f.link_rate = 1000; /* a second, where reading would take a quarter, if this engine is as fast as the peer */
    assert_false(mq__pays(&f));
    f.link_rate = 1e6;
    assert_true(mq__pays(&f));
    f = (mq_pays_facts){.wanted = 64, .computes = 0}; /* all is there */
    assert_true(mq__pays(&f));
}

static void test_least(void **state)
{
    (void)state;
    mq_pays_facts f = measured(99);
    f.least = 100;
    f.peer_rate = 1; /* does not matter */
    assert_false(mq__pays(&f));
    f.wanted = 100;
    assert_true(mq__pays(&f));
}

/* Of what is missing: twice as long as here, and a second. */
static void test_under_way(void **state)
{
    (void)state;
    mq_pays_facts f = measured(1000);
    f.bytes = 3000;
    f.link_rate = 1001;
    assert_true(mq__pays_still(&f));
    f.link_rate = 999;
    assert_false(mq__pays_still(&f));
    f.least = 1;
    assert_true(mq__pays_still(&f));
}

static void test_measured(void **state)
{
    (void)state;
    mq_pays_facts f = measured(19); /* 19 ms */
    assert_false(mq__pays(&f));
    f = measured(21);
    assert_true(mq__pays(&f));
    f.unread = 1000000;
    f.wanted = f.computes = 1;
    assert_true(mq__pays(&f));
    /* the peer's speed: 1.25 times, twice while answers run */
    f = measured(1000);
    f.peer_rate = 801;
    assert_true(mq__pays(&f));
    f.peer_rate = 799;
    assert_false(mq__pays(&f));
    f.answers = 1;
    assert_true(mq__pays(&f));
    f.peer_rate = 499;
    assert_false(mq__pays(&f));
    /* what waits there */
    f = measured(1000);
    f.peer_unread = 249;
    assert_true(mq__pays(&f));
    f.peer_unread = 251;
    assert_false(mq__pays(&f));
    f.unread = 300;
    assert_true(mq__pays(&f));
    /* what it must compute beside what is wanted, and what it need not */
    f = measured(1000);
    f.computes = 1251;
    assert_false(mq__pays(&f));
    f.computes = 0;
    f.peer_rate = 0;
    assert_true(mq__pays(&f));
}

static void test_link(void **state)
{
    (void)state;
    mq_pays_facts f = measured(1000);
    f.bytes = 1000000;
    f.link_rate = 0; /* not measured: no reason against it */
    assert_true(mq__pays(&f));
    f.link_rate = 700000; /* 1.43 s */
    assert_false(mq__pays(&f));
    f.link_rate = 900000; /* 1.11 s, beside computing */
    assert_true(mq__pays(&f));
    f.round_trip = 0.2;
    assert_false(mq__pays(&f));
    f.round_trip = 0.1;
    assert_true(mq__pays(&f));
    const mq_pays_times t = mq__pays_times(&f);
    assert_true(fabs(t.local - 1) < 1e-9 && fabs(t.remote - (1000000 / 900000.0 + 0.1)) < 1e-9);
}

static void test_rates(void **state)
{
    (void)state;
    mq_scheduler_stats stats = {.prompt_tokens = 511, .prompt_s = 1};
    assert_true(mq__prompt_rate(&stats) == 0);
    stats.prompt_tokens = 512;
    assert_true(mq__prompt_rate(&stats) == 512);
    stats.prompt_s = 0;
    assert_true(mq__prompt_rate(&stats) == 0);
}

/* ---- names and networks */

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
        bool is_link;
    } good[] = {{"prefill-1:8000", "prefill-1", 8000, false},       {"10.0.0.1:1", "10.0.0.1", 1, false},
                {"link://10.0.0.1:65535", "10.0.0.1", 65535, true}, {"[::1]:8000", "::1", 8000, false},
                {"link://[fd00::2]:8000", "fd00::2", 8000, true},   {"a_b.example:80", "a_b.example", 80, false}};
    static const char *const bad[] = {"",           "host",          "host:",        ":80",         "host:0",
                                      "host:65536", "host:8000x",    "host:-1",      "host:80:80",  "::1:8000",
                                      "[::1]",      "[::1]8000",     "[host]:80",    "http://h:80", "ho st:80",
                                      "host/x:80",  "user@host:80",  "host:80/path", "link://",     "link://host",
                                      "-x:80",      "[::1%25lo]:80", "h\n:80",       "host:+80"};
    mq_peer_name name;
    mq_error error = {0};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (mq__peer_name_read(good[i].text, &name, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_string_equal(name.host, good[i].host);
        assert_int_equal(name.port, good[i].port);
        assert_true(name.is_link == good[i].is_link);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        unit_refused(mq__peer_name_read(bad[i], &name, &error), MQ_USAGE, &error, "HOST:PORT");
    }
    char endless[600];
    memset(endless, 'a', sizeof endless);
    memcpy(endless + 590, ":80", 4);
    unit_refused(mq__peer_name_read(endless, &name, &error), MQ_USAGE, &error, "HOST:PORT");
}

static void test_networks(void **state)
{
    (void)state;
    static const struct {
        const char *network, *host;
        bool has;
    } cases[] = {{"10.0.0.0/8", "10.255.1.2", true},
                 {"10.0.0.0/8", "11.0.0.1", false},
                 {"10.0.0.0/8", "::ffff:10.1.2.3", true},
                 {"10.0.0.0/8", "::ffff:11.1.2.3", false},
                 {"192.168.3.128/25", "192.168.3.129", true},
                 {"192.168.3.128/25", "192.168.3.127", false},
                 {"192.168.3.7", "192.168.3.7", true},
                 {"192.168.3.7", "192.168.3.6", false},
                 {"0.0.0.0/0", "1.2.3.4", true},
                 {"0.0.0.0/0", "::1", false},
                 {"::/0", "::1", true},
                 {"::/0", "1.2.3.4", false},
                 {"fd00::/8", "fd12::1", true},
                 {"fd00::/8", "fe80::1", false},
                 {"fd00:0:0:2::/63", "fd00::1", false},
                 {"fd00::/63", "fd00:0:0:1::9", true},
                 {"10.0.0.0/8", "localhost", false},
                 {"10.0.0.0/8", "10.0.0.1.evil.example", false},
                 {"10.0.0.0/8", "0x0a000001", false},
                 {"10.0.0.0/8", "010.0.0.1", false},
                 {"10.0.0.0/8", "", false}};
    static const char *const bad[] = {"",       "10.0.0.0/33", "10.0.0.1/8",  "fd00::1/8",    "fd00::/129",
                                      "host/8", "10.0.0.0/",   "10.0.0.0/-1", "10.0.0.0/8/8", "10.0.0/8",
                                      "/8",     "10.0.0.0/8x"};
    mq_network network;
    mq_error error = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (mq__network_read(cases[i].network, &network, &error) != MQ_OK) fail_msg("%s", error.text);
        if (mq__network_has(&network, cases[i].host) != cases[i].has) {
            fail_msg("%s in %s", cases[i].host, cases[i].network);
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        unit_refused(mq__network_read(bad[i], &network, &error), MQ_USAGE, &error, "network");
    }
    assert_true(mq__is_loopback("127.9.9.9") && mq__is_loopback("::1") && mq__is_loopback("localhost"));
    assert_false(mq__is_loopback("0.0.0.0") || mq__is_loopback("::") || mq__is_loopback("10.0.0.1"));
}

/* ---- what a peer has read */

static void test_remembers(void **state)
{
    (void)state;
    static mq_remembered memory;
    static int32_t ids[64 * 40];
    uint64_t marks[40], other[40];
    for (int i = 0; i < 64 * 40; i++) {
        ids[i] = i * i % 1000;
    }
    mq__marks(5, ids, 64 * 40, marks);
    assert_int_equal(mq__remembers(&memory, marks, 40), 0);
    mq__remember(&memory, marks, 10);
    assert_int_equal(mq__remembers(&memory, marks, 40), 640);
    assert_int_equal(mq__remembers(&memory, marks, 7), 448);
    mq__marks(6, ids, 64 * 40, other); /* another owner's */
    assert_int_equal(mq__remembers(&memory, other, 40), 0);
    ids[64 * 5] ^= 1;
    mq__marks(5, ids, 64 * 40, other);
    assert_int_equal(mq__remembers(&memory, other, 40), 320);
    mq__marks(5, ids, 64 * 40 - 1, other); /* whole blocks only */
    assert_int_equal(mq__remembers(&memory, other, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_before_measuring),
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_measured),
        cmocka_unit_test(test_under_way),
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_rates),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_remembers),
    };
    return cmocka_run_group_tests(tests, unit_setup, unit_teardown);
}
