/* Drafts from the text itself, against a plain search; and how many of them pay. */
#include "unit_files.h"

#include "gen/lookup.h"
#include "sched/draft.h"

#define ROOM 3000

/* The longest earlier occurrence of the end, the latest of equal ones. */
static uint32_t search(const int32_t *tokens, uint32_t count, uint32_t *from)
{
    uint32_t best = 0;
    *from = 0;
    for (uint32_t at = count - 1; at >= MQ_LOOKUP_LEAST; at--) {
        uint32_t equal = 0;
        while (equal < MQ_LOOKUP_MOST && equal < at && tokens[at - 1 - equal] == tokens[count - 1 - equal]) {
            equal++;
        }
        if (equal > best) {
            best = equal;
            *from = at;
        }
    }
    return best;
}

static void test_finds_what_a_plain_search_finds(void **state)
{
    (void)state;
    static int32_t tokens[ROOM];
    unsigned seed = 1;
    mq_lookup *lookup;
    assert_int_equal(mq__lookup_new(ROOM, &lookup, NULL), MQ_OK);
    uint32_t drafts = 0;
    for (uint32_t i = 0; i < ROOM; i++) {
        seed = seed * 1664525u + 1013904223u;
        const uint32_t back = 1 + (seed >> 8) % 600;
        /* Mostly copies of what stands at some distance, broken off now and then; few enough occurrences to look at all. */
        tokens[i] = i > 700 && (seed >> 24) < 240 ? tokens[i - 500] : (int32_t)(back * 7919 % 10007);
        mq__lookup_grow(lookup, tokens, i + 1);
        if (i < MQ_LOOKUP_LEAST) continue;
        int32_t draft[8];
        uint32_t length, from;
        const uint32_t count = mq__lookup_draft(lookup, tokens, 8, draft, &length), best = search(tokens, i + 1, &from);
        if (best < MQ_LOOKUP_LEAST) {
            assert_int_equal(count, 0);
            continue;
        }
        assert_int_equal(length, best);
        assert_int_equal(count, 8);
        drafts++;
        for (uint32_t d = 0; d < count && from + d <= i; d++) {
            assert_int_equal(draft[d], tokens[from + d]);
        }
    }
    assert_true(drafts > 1000);
    mq__lookup_free(lookup);
}

static void test_repetition_goes_on(void **state)
{
    (void)state;
    const int32_t tokens[] = {9, 8, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2};
    int32_t draft[10];
    uint32_t length;
    mq_lookup *lookup;
    assert_int_equal(mq__lookup_new(64, &lookup, NULL), MQ_OK);
    mq__lookup_grow(lookup, tokens, 12);
    assert_int_equal(mq__lookup_draft(lookup, tokens, 10, draft, &length), 10);
    assert_int_equal(length, 6);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(draft[i], 1 + (i + 2) % 4);
    }
    assert_int_equal(mq__lookup_draft(lookup, tokens, 0, draft, &length), 0);
    mq__lookup_free(lookup);
}

static void teach_steps(mq_draft_model *model, double fixed, double slope)
{
    for (uint32_t i = 0; i < 200; i++) {
        mq__draft_stepped(model, 1 + i % 8, fixed + slope * (1 + i % 8));
    }
}

static void test_drafts_follow_cost_and_luck(void **state)
{
    (void)state;
    mq_draft_model model;
    mq__draft_init(&model);
    teach_steps(&model, 0.1, 0.002); /* rows are nearly free */
    const uint32_t many = mq__draft_tokens(&model, 30, 1, 100);
    assert_in_range(many, 8, MQ_DRAFT_MOST);
    assert_true(mq__draft_tokens(&model, 3, 1, 100) < many);   /* a short match is worth less */
    assert_true(mq__draft_tokens(&model, 30, 32, 100) < many); /* so is a draft in a large batch */
    assert_int_equal(mq__draft_tokens(&model, 30, 1, 2), 2);
    teach_steps(&model, 0, 0.01); /* a row costs what a step of one row costs */
    assert_int_equal(mq__draft_tokens(&model, 30, 1, 100), 0);
    teach_steps(&model, 0.1, 0.002);
    for (int i = 0; i < 300; i++) {
        mq__draft_verified(&model, 30, 4, 0);
    }
    assert_int_equal(mq__draft_tokens(&model, 30, 1, 100), 0); /* always wrong: no more */
    uint32_t chances = 1;
    while (mq__draft_tokens(&model, 30, 1, 100) == 0 && chances < 10000) {
        chances++;
    }
    assert_in_range(chances, 5, 1000); /* but it is tried again */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_what_a_plain_search_finds),
        cmocka_unit_test(test_repetition_goes_on),
        cmocka_unit_test(test_drafts_follow_cost_and_luck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
