/* Where packed weights go: an empty setting is an error or the default, never the root directory; what killed processes
 * left there goes at the next start. */
#include "base/mem.h"
#include "base/temporary.h"
#include "engine/cache_dir.h"
#include "unit_files.h"

#include <pthread.h>

static void check_dir(const char *given, const char *xdg, const char *home, const char *expected)
{
    char *dir;
    mq_error error = {0};
    assert_int_equal(xdg ? setenv("XDG_CACHE_HOME", xdg, 1) : unsetenv("XDG_CACHE_HOME"), 0);
    assert_int_equal(home ? setenv("HOME", home, 1) : unsetenv("HOME"), 0);
    const mq_status status = mq__cache_dir(given, &dir, &error);
    if (expected) {
        if (status != MQ_OK) fail_msg("%s", error.text);
        assert_string_equal(dir, expected);
    } else {
        unit_refused(status, MQ_USAGE, &error, "directory");
        assert_null(dir);
    }
    mq__free(dir);
}

static void test_choice(void **state)
{
    (void)state;
    check_dir("given", "/x", "/h", "given");
    check_dir("", "/x", "/h", NULL);
    check_dir(NULL, "/x", "/h", "/x/mixquant");
    check_dir(NULL, "", "/h", "/h/.cache/mixquant");
    check_dir(NULL, "relative", "/h", "/h/.cache/mixquant");
    check_dir(NULL, NULL, "/h", "/h/.cache/mixquant");
    check_dir(NULL, NULL, "", NULL);
    check_dir(NULL, "", "relative", NULL);
    check_dir(NULL, NULL, NULL, NULL);
}

static void synth(void)
{
    mq_error error = {0};
    const mq_synth_options options = {.shape = "tiny-qwen3", .seed = 5, .out_dir = unit_path("m")};
    if (mq_synth_checkpoint(&options, &error) != MQ_OK) fail_msg("%s", error.text);
}

static void keep_line(void *context, const char *line)
{
    snprintf(context, 500, "%s", line);
}

typedef struct start {
    char model[300], cache[300], trouble[500];
} start;

static void *open_once(void *context)
{
    start *s = context;
    mq_engine *engine;
    mq_error error = {0};
    const mq_engine_options options = {.model_dir = s->model,
                                       .plan = {.prefill = MQ_LINEAR_NVFP4, .decode = MQ_LINEAR_BF16},
                                       .threads = 1,
                                       .context = 32,
                                       .cache_dir = s->cache,
                                       .log = keep_line,
                                       .log_context = s->trouble};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK)
        keep_line(s->trouble, error.text);
    else
        mq_engine_close(engine);
    return NULL;
}

static void prepare(start *s)
{
    *s = (start){0};
    snprintf(s->model, sizeof s->model, "%s", unit_path("m"));
    snprintf(s->cache, sizeof s->cache, "%s", unit_path("cache"));
}

static void test_empty_option(void **state)
{
    (void)state;
    start s;
    synth();
    prepare(&s);
    s.cache[0] = '\0';
    (void)open_once(&s);
    assert_non_null(strstr(s.trouble, "cache: directory: expected a path, got an empty one"));
}

/* Engines that start at once write one cache. */
static void test_engines_at_once(void **state)
{
    (void)state;
    enum { ENGINES = 4, ROUNDS = 5 };
    static start s[ENGINES];
    pthread_t threads[ENGINES];
    synth();
    for (int round = 0; round < ROUNDS; round++) {
        unit_remove(unit_path("cache"));
        for (int i = 0; i < ENGINES; i++) {
            prepare(&s[i]);
            assert_int_equal(pthread_create(&threads[i], NULL, open_once, &s[i]), 0);
        }
        for (int i = 0; i < ENGINES; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_string_equal(s[i].trouble, "");
        }
        assert_int_equal(unit_entries(unit_path("cache/packed")), 1);
    }
}

/* What a killed start left goes, also when the cache is complete and nothing is written. */
static void test_leftovers(void **state)
{
    (void)state;
    start s;
    synth();
    prepare(&s);
    (void)open_once(&s);
    assert_int_equal(unit_entries(unit_path("cache/packed")), 1);
    unit_puts("cache/packed/other.mqpack.tmp.0123456789abcdef", "half");
    mq_temporary alive;
    assert_int_equal(mq__temporary_new(unit_path("cache/packed/third.mqpack"), false, &alive, NULL), MQ_OK);
    assert_int_equal(unit_entries(unit_path("cache/packed")), 3);
    (void)open_once(&s);
    assert_string_equal(s.trouble, "");
    assert_int_equal(unit_entries(unit_path("cache/packed")), 2);
    mq__temporary_remove(&alive);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_choice),
        TEST(test_empty_option),
        TEST(test_engines_at_once),
        TEST(test_leftovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
