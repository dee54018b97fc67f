/* What drafts are made of: matches in texts against a plain search, earlier texts by owner, odds, and how many rows pay. */
#include "unit_files.h"

#include "gen/drafter_impl.h"
#include "gen/history.h"
#include "gen/lookup.h"
#include "gen/step_cost.h"

#define ROOM 3000

static mq_odds odds;

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Mostly copies of what stands at some distance, broken off now and then. */
static void fill_copying(int32_t *tokens, uint32_t count, uint32_t seed)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t r = next_random(&seed);
        tokens[i] = i > 700 && r % 100 < 94 ? tokens[i - 500] : (int32_t)(r % 10007);
    }
}

/* The longest earlier occurrence of the end, up to what is compared. */
static uint32_t search(const int32_t *tokens, uint32_t count)
{
    uint32_t best = 0;
    for (uint32_t at = count - 1; at >= 1; at--) {
        uint32_t equal = 0;
        while (equal < MQ_LOOKUP_LONGEST && equal < at && tokens[at - 1 - equal] == tokens[count - 1 - equal]) {
            equal++;
        }
        if (equal > best) best = equal;
    }
    return best;
}

/* Few enough occurrences to look at all: wherever the end occurred before something is drafted, and it is what followed an occurrence. */
static void test_finds_what_a_plain_search_finds(void **state)
{
    (void)state;
    static int32_t tokens[ROOM];
    fill_copying(tokens, ROOM, 1);
    mq_lookup *lookup;
    mq_drafted draft[MQ_DRAFT_MOST];
    assert_int_equal(mq__lookup_new(ROOM, &lookup, NULL), MQ_OK);
    uint32_t drafts = 0, longs = 0, copied = 0;
    for (uint32_t i = 0; i + 1 < ROOM; i++) {
        mq__lookup_grow(lookup, tokens, i + 1);
        const uint32_t count = mq__lookup_draft(lookup, NULL, tokens, i + 1, &odds, draft),
                       best = search(tokens, i + 1);
        assert_int_equal(count > 0, best > 0);
        drafts += count > 0;
        for (uint32_t d = 0; d < count; d++) {
            assert_true(draft[d].chance > 0 && draft[d].chance <= 1);
            assert_true(d == 0 || draft[d].chance <= draft[d - 1].chance);
        }
        if (best >= 8 && i > 1300) { /* long occurrences are copies of what stands 500 before */
            copied += draft[0].token == tokens[i + 1 - 500];
            longs++;
        }
    }
    assert_true(drafts > 1000 && longs > 500 && copied > longs * 9 / 10);
    mq__lookup_free(lookup);
}

static void test_repetition_goes_on(void **state)
{
    (void)state;
    const int32_t tokens[] = {9, 8, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2};
    mq_drafted draft[MQ_DRAFT_MOST];
    mq_lookup *lookup;
    assert_int_equal(mq__lookup_new(64, &lookup, NULL), MQ_OK);
    mq__lookup_grow(lookup, tokens, 16);
    assert_int_equal(mq__lookup_draft(lookup, NULL, tokens, 16, &odds, draft), MQ_DRAFT_MOST);
    for (uint32_t i = 0; i < MQ_DRAFT_MOST; i++) {
        assert_int_equal(draft[i].token, 1 + (i + 2) % 4);
    }
    mq__lookup_free(lookup);
}

/* What most occurrences go on with, not what the latest does. */
static void test_the_majority_is_drafted(void **state)
{
    (void)state;
    const int32_t tokens[] = {5, 6, 7, 20, 1, 5, 6, 7, 20, 2, 5, 6, 7, 30, 3, 5, 6, 7};
    mq_drafted draft[MQ_DRAFT_MOST];
    mq_lookup *lookup;
    assert_int_equal(mq__lookup_new(64, &lookup, NULL), MQ_OK);
    mq__lookup_grow(lookup, tokens, 18);
    assert_true(mq__lookup_draft(lookup, NULL, tokens, 18, &odds, draft) > 0);
    assert_int_equal(draft[0].token, 20);
    assert_int_equal(draft[0].class, mq__odds_of_text(3, 2.0 / 3, true));
    mq__lookup_free(lookup);
}

/* ---- earlier texts */

static uint32_t draft_from(mq_history *history, uint64_t owner, const int32_t *end, uint32_t count, mq_drafted *draft)
{
    mq_lookup *own;
    assert_int_equal(mq__lookup_new(64, &own, NULL), MQ_OK);
    mq__lookup_grow(own, end, count);
    const uint32_t drafted = mq__lookup_draft(own, mq__history_of(history, owner), end, count, &odds, draft);
    mq__lookup_free(own);
    return drafted;
}

static void test_owners_do_not_share(void **state)
{
    (void)state;
    const int32_t wrote[] = {11, 12, 13, 14, 15, 16}, end[] = {3, 12, 13};
    mq_drafted draft[MQ_DRAFT_MOST];
    mq_history *history;
    assert_int_equal(mq__history_new(1 << 20, &history, NULL), MQ_OK);
    mq__history_add(history, 1, wrote, 6);
    assert_int_equal(draft_from(history, 1, end, 3, draft), 3); /* up to the end of what was written */
    assert_int_equal(draft[0].token, 14);
    assert_int_equal(draft[2].token, 16);
    assert_int_equal(draft_from(history, 2, end, 3, draft), 0);
    assert_null(mq__history_of(history, 2));
    mq__history_free(history);
}

static void test_the_longest_away_is_forgotten(void **state)
{
    (void)state;
    const int32_t wrote[] = {1, 2, 3, 4};
    mq_history *history;
    assert_int_equal(mq__history_new(2 << 20, &history, NULL), MQ_OK);
    uint64_t owner = 0;
    uint32_t owners;
    do {
        owners = mq__history_owners(history);
        mq__history_add(history, ++owner, wrote, 4);
        assert_non_null(mq__history_of(history, 1)); /* it is asked for each time */
    } while (mq__history_owners(history) > owners);
    assert_true(owners > 1 && owners < 100);
    assert_non_null(mq__history_of(history, owner));
    assert_null(mq__history_of(history, 2));
    mq__history_free(history);
}

/* A ring that has gone round many times drafts what it still has, and nothing that it has forgotten. */
static void test_a_ring_forgets(void **state)
{
    (void)state;
    enum { RING = 256, TEXT = 20 };
    mq_lookup *ring, *own;
    mq_drafted draft[MQ_DRAFT_MOST];
    assert_int_equal(mq__lookup_new_ring(RING, &ring, NULL), MQ_OK);
    for (int32_t round = 0; round < 500; round++) {
        int32_t written[TEXT];
        for (int32_t i = 0; i < TEXT; i++) {
            written[i] = round * TEXT + i;
        }
        mq__lookup_add(ring, written, TEXT);
        for (int32_t back = 0; back <= round && back < 40; back++) {
            const int32_t end[] = {(round - back) * TEXT + 3, (round - back) * TEXT + 4};
            assert_int_equal(mq__lookup_new(8, &own, NULL), MQ_OK);
            mq__lookup_grow(own, end, 2);
            const uint32_t count = mq__lookup_draft(own, ring, end, 2, &odds, draft);
            mq__lookup_free(own);
            if (back < RING / (TEXT + 1) - 1) assert_true(count > 0);
            if (back > RING / (TEXT + 1)) assert_int_equal(count, 0);
            if (count) assert_int_equal(draft[0].token, end[1] + 1);
        }
    }
    mq__lookup_free(ring);
}

/* ---- odds and costs */

static void test_odds_follow_what_is_right(void **state)
{
    (void)state;
    mq_odds o;
    mq__odds_init(&o);
    const uint32_t good = mq__odds_of_text(12, 1, true), bad = mq__odds_of_text(1, 0.2, true);
    assert_int_not_equal(good, bad);
    assert_true(o.right[good] > o.right[bad]);
    for (int i = 0; i < 300; i++) {
        mq__odds_learn(&o, good, i % 10 < 2);
        mq__odds_learn(&o, bad, true);
        mq__odds_learn(&o, MQ_ODDS_ONLY, false);
    }
    assert_true(o.right[good] < 0.35f && o.right[good] > 0.05f);
    assert_true(o.right[bad] > 0.95f);
    assert_true(o.right[MQ_ODDS_ONLY] >= 1);
    int chances = 0;
    for (; o.right[good] < 0.5f && chances < 10000; chances++) {
        mq__odds_age(&o, good);
    }
    assert_in_range(chances, 50, 500);
    uint32_t last = mq__odds_of_model(0, true);
    for (double p = 0; p <= 1; p += 0.01) {
        assert_in_range(mq__odds_of_model(p, true), last, MQ_ODDS_CLASSES - 1);
        assert_true(mq__odds_of_model(p, false) != mq__odds_of_model(p, true));
        last = mq__odds_of_model(p, true);
    }
}

static void teach_steps(mq_step_cost *cost, double fixed, double each, uint32_t most)
{
    for (uint32_t i = 0; i < 600; i++) {
        const uint32_t rows = 1 + i % most;
        mq__cost_learn(cost, MQ_COST_DECODE, rows, rows > 1, fixed + each * rows);
    }
}

static uint32_t worth(const mq_step_cost *cost, uint32_t rows, double right)
{
    double chance[MQ_DRAFT_MOST], all = 1, expected = rows;
    for (int i = 0; i < MQ_DRAFT_MOST; i++) {
        chance[i] = all *= right;
    }
    return mq__cost_worth(cost, rows, &expected, chance, MQ_DRAFT_MOST);
}

static void test_drafts_follow_costs(void **state)
{
    (void)state;
    mq_step_cost cost;
    mq__cost_init(&cost);
    assert_true(mq__cost_wants_plain(&cost)); /* nothing is known yet */
    teach_steps(&cost, 0.1, 0.002, 16);       /* rows are nearly free */
    const uint32_t many = worth(&cost, 1, 0.9);
    assert_in_range(many, 8, MQ_DRAFT_MOST);
    assert_true(worth(&cost, 1, 0.3) < many);
    assert_int_equal(worth(&cost, 1, 0), 0);
    mq__cost_init(&cost);
    teach_steps(&cost, 0, 0.01, 16); /* a row costs what a step of one row costs */
    assert_int_equal(worth(&cost, 1, 0.9), 0);
    mq__cost_init(&cost);
    teach_steps(&cost, 0.1, 0.02, 16);
    assert_true(worth(&cost, 1, 0.8) > worth(&cost, 16, 0.8)); /* a large batch shares its fixed part */
    mq__cost_init(&cost);
    for (uint32_t i = 0; i < 600;
         i++) { /* four rows for the price of one, then each its own: as far as arithmetic waits for memory */
        const uint32_t rows = 1 + i % 12;
        mq__cost_learn(&cost, MQ_COST_DECODE, rows, rows > 1, 0.025 * (rows < 4 ? 4 : rows));
    }
    assert_int_equal(worth(&cost, 1, 0.6), 3);
}

/* A machine that becomes slower, and steps that are disturbed, do not change how many rows pay. */
static void test_noise_is_no_cost(void **state)
{
    (void)state;
    mq_step_cost cost;
    uint32_t seed = 3;
    mq__cost_init(&cost);
    teach_steps(&cost, 0.1, 0.002, 16);
    const uint32_t before = worth(&cost, 1, 0.9);
    for (uint32_t i = 0; i < 2000; i++) {
        const uint32_t rows = next_random(&seed) % 16 + 1;
        const double speed = i < 1000 ? 1 : 2, disturbed = next_random(&seed) % 10 == 0 ? 3 : 1;
        mq__cost_learn(&cost, MQ_COST_DECODE, rows, rows > 1, (0.1 + 0.002 * rows) * speed * disturbed);
    }
    assert_in_range(worth(&cost, 1, 0.9), before - 3, MQ_DRAFT_MOST);
    for (int i = 0; i < 64; i++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, 4, true, 0.2);
    }
    assert_true(mq__cost_wants_plain(&cost)); /* what a step takes without drafts is looked at now and then */
}

/* The first steps with drafts ran while the machine was faster. A few steps without drafts correct what a row more is said to cost. */
static void test_plain_steps_set_the_level(void **state)
{
    (void)state;
    mq_step_cost cost;
    mq__cost_init(&cost);
    mq__cost_learn(&cost, MQ_COST_DECODE, 1, false, 0.050);
    for (int i = 0; i < 10; i++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, 4, true, 0.045);
    }
    assert_true(mq__cost_of(&cost, MQ_COST_DECODE, 4) < 1.2);
    for (int plain = 0; plain < 6; plain++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, 1, false, 0.050);
        for (int i = 0; i < 31; i++) {
            mq__cost_learn(&cost, MQ_COST_DRAFT, 1, true, 0.012);
            mq__cost_learn(&cost, MQ_COST_DECODE, 4, true, 0.070);
        }
    }
    assert_float_equal(mq__cost_of(&cost, MQ_COST_DECODE, 4), 1.4, 0.07);
    assert_float_equal(mq__cost_of(&cost, MQ_COST_DRAFT, 1), 0.24, 0.02);
}

/* Of the first steps without drafts one takes three times as long: what is said of other steps hardly moves. */
static void test_one_slow_step_splits_little(void **state)
{
    (void)state;
    mq_step_cost cost;
    mq__cost_init(&cost);
    for (int i = 0; i < 66; i++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, i % 33 ? 4 : 1, i % 33, i % 33 ? 0.060 : 0.050);
        mq__cost_learn(&cost, MQ_COST_DRAFT, 1, true, 0.0115);
    }
    const double draft = mq__cost_of(&cost, MQ_COST_DRAFT, 1), four = mq__cost_of(&cost, MQ_COST_DECODE, 4);
    mq__cost_learn(&cost, MQ_COST_DECODE, 1, false, 0.150);
    assert_float_equal(mq__cost_of(&cost, MQ_COST_DRAFT, 1), draft, 0.03);
    assert_float_equal(mq__cost_of(&cost, MQ_COST_DECODE, 4), four, 0.15);
}

/* What was learnt of a number of rows stays while the machine changes its speed and that number is not run. */
static void test_unused_shapes_stay(void **state)
{
    (void)state;
    mq_step_cost cost;
    mq__cost_init(&cost);
    for (int i = 0; i <= 300; i++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, i % 2 ? 8 : 1, i % 2, i % 2 ? 0.090 : 0.050);
    }
    const double before = mq__cost_of(&cost, MQ_COST_DECODE, 8);
    for (int i = 0; i < 300; i++) {
        mq__cost_learn(&cost, MQ_COST_DECODE, i % 32 ? 4 : 1, i % 32, i % 32 ? 0.120 : 0.100);
    }
    assert_float_equal(mq__cost_of(&cost, MQ_COST_DECODE, 8), before, 0.1);
}

/* Costs that were learnt from one bad stretch age: drafts come back. */
static void test_drafts_come_back(void **state)
{
    (void)state;
    mq_step_cost cost;
    mq__cost_init(&cost);
    teach_steps(&cost, 0, 0.01, 16);
    uint32_t steps = 0;
    while (worth(&cost, 1, 0.9) == 0 && steps < 10000) {
        mq__cost_learn(&cost, MQ_COST_DECODE, 1, false, 0.01);
        steps++;
    }
    assert_in_range(steps, 20, 2000);
}

/* The model's drafts that did not pay are tried again some 1,000 steps later. */
static void test_the_model_comes_back(void **state)
{
    (void)state;
    mq_drafter *d = test_calloc(1, sizeof *d);
    *d = (mq_drafter){.models = true, .agreement = 0.1};
    mq__cost_init(&d->cost);
    teach_steps(&d->cost, 0.1, 0.002, 16);
    uint32_t steps = 0;
    while (mq__rounds_rate(d, 1, 1, 1) == 0 && steps < 10000) {
        mq__cost_learn(&d->cost, MQ_COST_DECODE, 1, false, 0.102);
        mq__draft_propose(d, NULL, 0, 1);
        steps++;
    }
    assert_in_range(steps, 100, 3000);
    test_free(d);
}

static int init_odds(void **state)
{
    (void)state;
    mq__odds_init(&odds);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_what_a_plain_search_finds),
        cmocka_unit_test(test_repetition_goes_on),
        cmocka_unit_test(test_the_majority_is_drafted),
        cmocka_unit_test(test_owners_do_not_share),
        cmocka_unit_test(test_the_longest_away_is_forgotten),
        cmocka_unit_test(test_a_ring_forgets),
        cmocka_unit_test(test_odds_follow_what_is_right),
        cmocka_unit_test(test_drafts_follow_costs),
        cmocka_unit_test(test_noise_is_no_cost),
        cmocka_unit_test(test_plain_steps_set_the_level),
        cmocka_unit_test(test_one_slow_step_splits_little),
        cmocka_unit_test(test_unused_shapes_stay),
        cmocka_unit_test(test_drafts_come_back),
        cmocka_unit_test(test_the_model_comes_back),
    };
    return cmocka_run_group_tests(tests, init_odds, NULL);
}
