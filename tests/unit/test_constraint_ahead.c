/* What is said of a constraint's future changes nothing of it, and what is said to be certain is. */
#include "unit_masks.h"

#include "gen/constraint_ahead.h"

#define FORCED 16

static const char *const schemas[] = {
    "{\"type\":\"object\",\"properties\":{\"destination\":{\"type\":\"string\"},\"passengers\":{\"type\":\"integer\"},"
    "\"class\":{\"enum\":[\"economy\",\"economy_plus\",\"business\"]}},\"required\":[\"destination\",\"passengers\","
    "\"class\"]}",
    "{\"type\":\"array\",\"items\":{\"const\":{\"status\":\"unavailable\"}},\"minItems\":2,\"maxItems\":3}",
    "{}",
    "{\"type\":\"string\",\"pattern\":\"^(alpha|beta)-[0-9]{2}-done$\"}",
    "{\"enum\":[true,false,null,\"a rather long value that has to be written out\"]}",
};

static uint32_t bits_of(const uint32_t *mask)
{
    uint32_t count = 0;
    for (size_t w = 0; w < (VOCAB + 31) / 32; w++) {
        count += (uint32_t)__builtin_popcount(mask[w]);
    }
    return count;
}

/* Two equal constraints, one of which is looked ahead of at every token: the masks stay equal, and what must come is taken. */
static uint32_t walk_two(mq_constraint *c, mq_constraint *twin, unsigned seed, uint32_t *only_ones)
{
    int32_t forced[FORCED];
    bool only[FORCED];
    uint32_t known = 0, at = 0, taken = 0;
    for (int count = 0; count < 400; count++) {
        const uint32_t *mask = mq_constraint_mask(c), *plain = mq_constraint_mask(twin);
        assert_true(mask && plain);
        assert_memory_equal(mask, plain, (VOCAB + 31) / 32 * sizeof *mask);
        if (at == known) {
            mq_constraint *ahead = mq__constraint_ahead(c);
            assert_non_null(ahead);
            known = mq__constraint_forced(ahead, forced, only, FORCED);
            at = 0;
            assert_memory_equal(mq_constraint_mask(c), plain, (VOCAB + 31) / 32 * sizeof *mask);
        }
        int32_t token;
        if (at < known) {
            token = forced[at];
            assert_true(is_allowed(plain, token));
            assert_int_equal(bits_of(plain) == 1, only[at]);
            *only_ones += only[at++];
            taken++;
        } else {
            token = draw_allowed(plain, &seed, count > 40);
            if (token < 0) break;
        }
        assert_int_equal(mq_constraint_accept(c, token, NULL), MQ_OK);
        assert_int_equal(mq_constraint_accept(twin, token, NULL), MQ_OK);
    }
    return taken;
}

static void test_certain_tokens_are_certain(void **state)
{
    (void)state;
    uint32_t only_ones = 0;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        uint32_t taken = 0;
        for (unsigned seed = 0; seed < 12; seed++) {
            mq_constraint *c = schema_constraint(schemas[i]), *twin = schema_constraint(schemas[i]);
            taken += walk_two(c, twin, seed, &only_ones);
            mq_constraint_free(c);
            mq_constraint_free(twin);
        }
        if (strlen(schemas[i]) > 2) assert_true(taken > 12); /* any JSON has hardly a certain token */
    }
    assert_true(only_ones > 0);
}

/* Before and after what is ruled nothing is certain; a call is, from its marker to its name. */
static void test_calls(void **state)
{
    (void)state;
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"find_parcel_by_warehouse\",\"parameters\":{\"type\":"
        "\"object\",\"properties\":{\"warehouse\":{\"type\":\"string\"}},\"required\":[\"warehouse\"]}}}]";
    mq_constraint *c = new_constraint(
        &(mq_constraint_options){.format = MQ_TOOLS_HERMES, .tools = tools, .tools_bytes = strlen(tools)});
    int32_t forced[FORCED], *tokens;
    bool only[FORCED];
    size_t count;
    assert_int_equal(mq__constraint_forced(mq__constraint_ahead(c), forced, only, FORCED), 0);
    assert_int_equal(mq_tokenize(text, "<tool_call>\n{\"na", 16, MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, NULL),
                     MQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(mq_constraint_accept(c, tokens[i], NULL), MQ_OK);
    }
    mq_free(tokens);
    const uint32_t some = mq__constraint_forced(mq__constraint_ahead(c), forced, only, FORCED);
    assert_true(some > 0);
    char *bytes;
    assert_int_equal(mq_detokenize(text, forced, some, false, &bytes, &count, NULL), MQ_OK);
    assert_memory_equal(bytes, "me\"", 2);
    mq_free(bytes);
    mq_constraint_free(c);
}

/* Drafts of reasoning are free but for its end, and those behind it are ruled. */
static void test_reasoning_ahead(void **state)
{
    (void)state;
    const mq_constraint_options options = {
        .schema = schemas[1], .schema_bytes = strlen(schemas[1]), .after = "</think>"};
    mq_constraint *c = new_constraint(&options);
    int32_t forced[FORCED], *tokens;
    bool only[FORCED];
    size_t count;
    mq_constraint *ahead = mq__constraint_ahead(c);
    assert_int_equal(mq__constraint_forced(ahead, forced, only, FORCED), 0);
    assert_int_equal(bits_of(mq_constraint_mask(ahead)), VOCAB - 1);
    assert_false(is_allowed(mq_constraint_mask(ahead), EOS));
    assert_int_equal(mq_tokenize(text, "so</think>", 10, MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, NULL), MQ_OK);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(mq_constraint_accept(ahead, tokens[i], NULL), MQ_OK);
    }
    mq_free(tokens);
    assert_true(bits_of(mq_constraint_mask(ahead)) < 8);
    assert_int_equal(bits_of(mq_constraint_mask(c)), VOCAB - 1);
    mq_constraint_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certain_tokens_are_certain),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_reasoning_ahead),
    };
    return cmocka_run_group_tests(tests, unit_open_vocabulary, unit_close_vocabulary);
}
