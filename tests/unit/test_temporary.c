/* Unfinished files: no two writers share one, and what a killed process leaves goes at the next start. */
#include "base/file.h"
#include "base/temporary.h"
#include "format/checkpoint_write.h"
#include "unit_files.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static void test_two_writers_of_one_file(void **state)
{
    (void)state;
    mq_writer a, b;
    mq_error error = {0};
    char *text;
    size_t bytes;
    assert_int_equal(mq__writer_open(&a, unit_path("f"), &error), MQ_OK);
    assert_int_equal(mq__writer_put(&a, "first", 5, &error), MQ_OK);
    assert_int_equal(mq__writer_open(&b, unit_path("f"), &error), MQ_OK);
    assert_string_not_equal(a.temporary.path, b.temporary.path);
    assert_int_equal(mq__writer_put(&b, "second", 6, &error), MQ_OK);
    assert_int_equal(mq__writer_commit(&a, &error), MQ_OK);
    assert_int_equal(mq__file_read(unit_path("f"), 100, &text, &bytes, &error), MQ_OK);
    assert_string_equal(text, "first");
    mq_free(text);
    assert_int_equal(mq__writer_commit(&b, &error), MQ_OK);
    assert_int_equal(mq__file_read(unit_path("f"), 100, &text, &bytes, &error), MQ_OK);
    assert_string_equal(text, "second");
    mq_free(text);
    assert_int_equal(unit_entries(unit_dir), 1);
}

static void *write_many(void *context)
{
    const char *path = context;
    for (int i = 0; i < 100; i++) {
        mq_writer w;
        mq_error error = {0};
        char *text;
        size_t bytes;
        if (mq__writer_open(&w, path, &error) != MQ_OK || mq__writer_put(&w, "whole", 5, &error) != MQ_OK ||
            mq__writer_commit(&w, &error) != MQ_OK || mq__file_read(path, 100, &text, &bytes, &error) != MQ_OK) {
            return strdup(error.text);
        }
        mq_free(text);
    }
    return NULL;
}

static void test_writers_at_once(void **state)
{
    (void)state;
    enum { WRITERS = 4 };
    pthread_t threads[WRITERS];
    char path[256];
    snprintf(path, sizeof path, "%s", unit_path("f"));
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, path), 0);
    }
    for (int i = 0; i < WRITERS; i++) {
        void *trouble;
        assert_int_equal(pthread_join(threads[i], &trouble), 0);
        if (trouble) fail_msg("%s", (char *)trouble);
    }
    assert_int_equal(unit_entries(unit_dir), 1);
}

/* A child makes a temporary and is killed; returns when it is gone. */
static void leave_behind(const char *path, bool is_directory)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        mq_temporary t;
        char name[512];
        if (mq__temporary_new(path, is_directory, &t, NULL) != MQ_OK) _exit(1);
        snprintf(name, sizeof name, "%s/part", t.path);
        FILE *part = is_directory ? fopen(name, "w") : NULL;
        if (part) fclose(part);
        if (write(ready[1], "x", 1) != 1) _exit(1);
        for (;;) {
            pause();
        }
    }
    char byte;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    /* Alive, its temporary is left alone. */
    const int entries = unit_entries(unit_dir);
    mq__temporary_sweep(unit_dir);
    assert_int_equal(unit_entries(unit_dir), entries);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(unit_entries(unit_dir), entries);
}

static void test_leftovers_of_the_killed(void **state)
{
    (void)state;
    mq_writer w;
    mq_error error = {0};
    char path[256];
    snprintf(path, sizeof path, "%s", unit_path("f"));
    unit_puts("f.tmp.notes", "the user's");
    unit_puts("g", "another file");
    leave_behind(path, false);
    assert_int_equal(unit_entries(unit_dir), 3);
    assert_int_equal(mq__writer_open(&w, path, &error), MQ_OK);
    assert_int_equal(unit_entries(unit_dir), 3); /* the old one gone, the new one there */
    mq__writer_abort(&w);
    assert_int_equal(unit_entries(unit_dir), 2);
    /* Another file's is not touched by writing this one, and goes with a sweep. */
    leave_behind(unit_path("other"), false);
    assert_int_equal(mq__writer_open(&w, path, &error), MQ_OK);
    mq__writer_abort(&w);
    assert_int_equal(unit_entries(unit_dir), 3);
    mq__temporary_sweep(unit_dir);
    assert_int_equal(unit_entries(unit_dir), 2);
}

static void test_leftover_directories(void **state)
{
    (void)state;
    mq_checkpoint_writer w;
    mq_error error = {0};
    char path[256];
    snprintf(path, sizeof path, "%s", unit_path("out"));
    leave_behind(path, true);
    assert_int_equal(unit_entries(unit_dir), 1);
    assert_int_equal(mq__checkpoint_create(path, &w, &error), MQ_OK);
    assert_int_equal(unit_entries(unit_dir), 1);
    assert_int_equal(mq__checkpoint_put_file(&w, "a", "1", 1, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_finish(&w, &error), MQ_OK);
    assert_int_equal(unit_entries(unit_dir), 1);
    assert_int_equal(unit_entries(path), 1);
}

/* Two makers of one directory: the second to finish finds it in use, and leaves nothing. */
static void test_two_makers_of_one_directory(void **state)
{
    (void)state;
    mq_checkpoint_writer a, b;
    mq_error error = {0};
    assert_int_equal(mq__checkpoint_create(unit_path("out"), &a, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_create(unit_path("out"), &b, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_put_file(&a, "a", "1", 1, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_put_file(&b, "a", "2", 1, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_finish(&b, &error), MQ_OK);
    unit_refused(mq__checkpoint_finish(&a, &error), MQ_WRITE, &error, "out");
    assert_int_equal(unit_entries(unit_dir), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_two_writers_of_one_file),     TEST(test_writers_at_once),
        TEST(test_leftovers_of_the_killed),     TEST(test_leftover_directories),
        TEST(test_two_makers_of_one_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
