/* Tokenizer and template behind the public header: files that cannot be read, ids without a token, short memory. */
#include "base/mem.h"
#include "engine/synth_shapes.h"
#include "unit_files.h"

#include <errno.h>

static const char request[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", "
                              "\"content\": null, \"tool_calls\": "
                              "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": \"{\\\"a\\\": "
                              "18446744073709551615}\"}}]}]}";

static int setup(void **state)
{
    if (unit_setup(state) != 0) return -1;
    const mq_synth_options options = {.shape = "tiny-qwen3", .layers = 1, .seed = 7, .out_dir = unit_path("m")};
    return mq_synth_checkpoint(&options, NULL) == MQ_OK ? 0 : -1;
}

static mq_text *open_text(void)
{
    mq_text *text = NULL;
    mq_error error = {0};
    if (mq_text_open(unit_path("m"), NULL, &text, &error) != MQ_OK) fail_msg("%s", error.text);
    return text;
}

static void expect_unreadable(const char *name)
{
    mq_text *text = NULL;
    mq_error error = {0};
    unit_refused(mq_text_open(unit_path("m"), NULL, &text, &error), MQ_IO, &error, name);
    assert_null(text);
}

/* A file that is there and cannot be read is not one that is not there. */
static void test_unreadable_files(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "added_tokens.json",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256], aside[256];
        snprintf(path, sizeof path, "%s/%s", unit_path("m"), names[i]);
        snprintf(aside, sizeof aside, "%s", unit_path("aside"));
        const bool there = rename(path, aside) == 0;
        assert_int_equal(symlink("nowhere", path), 0);
        expect_unreadable(names[i]);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink(names[i], path), 0); /* to itself */
        expect_unreadable(names[i]);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0755), 0);
        expect_unreadable(names[i]);
        assert_int_equal(rmdir(path), 0);
        if (geteuid() != 0) {
            FILE *const file = fopen(path, "w");
            assert_non_null(file);
            assert_int_equal(fclose(file), 0);
            assert_int_equal(chmod(path, 0), 0);
            expect_unreadable(names[i]);
            assert_int_equal(unlink(path), 0);
        }
        if (there) assert_int_equal(rename(aside, path), 0);
        mq_text_close(open_text());
    }
}

/* A number of the tokenizer's files that nothing reads may have any size. */
static void test_unlimited_length(void **state)
{
    (void)state;
    static const char *const numbers[] = {"1000000000000000019884624838656", "1e400", "-9223372036854775809",
                                          "100000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char config[400], *prompt;
        size_t bytes;
        mq_error error = {0};
        snprintf(config, sizeof config,
                 "{\"eos_token\": \"<|im_end|>\", \"model_max_length\": %s, \"chat_template\": "
                 "\"{{ messages[0].content }}{{ eos_token }}\"}",
                 numbers[i]);
        unit_puts("m/tokenizer_config.json", config);
        mq_text *const text = open_text();
        if (mq_render(text, request, strlen(request), &prompt, &bytes, &error) != MQ_OK) fail_msg("%s", error.text);
        assert_string_equal(prompt, "hi<|im_end|>");
        mq_free(prompt);
        mq_text_close(text);
    }
}

/* A model has more rows than its tokenizer has tokens, and may draw one of them: it is no text, as in transformers. */
static void test_ids_without_a_token(void **state)
{
    (void)state;
    mq_text *const text = open_text();
    mq_error error = {0};
    static const int32_t ids[] = {'a', MQ_SYNTH_TOKENS, 'b', 151935, INT32_MAX}, negative[] = {'a', -1};
    char *bytes;
    const char *piece;
    size_t count;
    assert_int_equal(mq_detokenize(text, ids, 5, false, &bytes, &count, &error), MQ_OK);
    assert_string_equal(bytes, "ab");
    assert_int_equal(count, 2);
    mq_free(bytes);
    assert_int_equal(mq_detokenize(text, ids + 1, 1, true, &bytes, &count, &error), MQ_OK);
    assert_string_equal(bytes, "");
    mq_free(bytes);
    unit_refused(mq_detokenize(text, negative, 2, false, &bytes, &count, &error), MQ_USAGE, &error, "-1");
    assert_null(bytes);
    mq_stream *stream;
    assert_int_equal(mq_stream_new(text, 0, &stream, &error), MQ_OK);
    static const char *const pieces[] = {"a", "", "b", "", ""};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(mq_stream_push(stream, ids[i], &piece, &count, &error), MQ_OK);
        assert_int_equal(count, strlen(pieces[i]));
        if (count) assert_memory_equal(piece, pieces[i], count);
    }
    unit_refused(mq_stream_push(stream, -1, &piece, &count, &error), MQ_USAGE, &error, "-1");
    mq_stream_free(stream);
    mq_text_close(text);
}

/* Whichever allocation fails, jansson's among them: no memory, or the same prompt. PCRE2's compiler may do without. */
static void test_short_memory(void **state)
{
    (void)state;
    unit_puts("m/chat_template.jinja", "{% for m in messages %}{{ m.role }}{{ m|tojson }}{% endfor %}");
    char *whole = NULL;
    for (unsigned long n = 0;; n++) { /* 0: none fails */
        mq_text *text = NULL;
        mq_error error = {0};
        char *prompt = NULL;
        size_t bytes;
        (void)mq__alloc_fail_at(n);
        mq_status status = mq_text_open(unit_path("m"), NULL, &text, &error);
        if (status == MQ_OK) status = mq_render(text, request, strlen(request), &prompt, &bytes, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        mq_text_close(text);
        if (status != MQ_OK) unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        if (status == MQ_OK && whole) assert_string_equal(prompt, whole);
        if (whole || status != MQ_OK)
            mq_free(prompt);
        else
            whole = prompt;
        if (n == 0) continue;
        if (made >= n) continue;
        assert_in_range(n, 300, 100000);
        break;
    }
    assert_non_null(strstr(whole, "\"arguments\": {\"a\": 18446744073709551615}"));
    mq_free(whole);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unreadable_files),
        TEST(test_unlimited_length),
        TEST(test_ids_without_a_token),
        TEST(test_short_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
