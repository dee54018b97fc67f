/* Checkpoint directories: one file or indexed shards, and what an index must not say; and the writing of them. */
#include "base/mem.h"
#include "format/checkpoint.h"
#include "format/checkpoint_write.h"
#include "unit_files.h"

#include <signal.h>
#include <sys/resource.h>

/* A safetensors file of U8 tensors of one byte each, with these one-letter names. */
static void write_shard(const char *name, const char *tensors)
{
    mq_tensor_spec specs[8];
    char names[8][2];
    mq_safetensors_writer writer;
    mq_error error = {0};
    const size_t count = strlen(tensors);
    assert_true(count <= 8);
    for (size_t i = 0; i < count; i++) {
        names[i][0] = tensors[i];
        names[i][1] = '\0';
        specs[i] = (mq_tensor_spec){.name = names[i], .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {1}};
    }
    assert_int_equal(mq__safetensors_begin(unit_path(name), specs, count, &writer, &error), MQ_OK);
    assert_int_equal(mq__safetensors_put(&writer, tensors, count, &error), MQ_OK);
    assert_int_equal(mq__safetensors_commit(&writer, &error), MQ_OK);
}

static void write_index(const char *weight_map)
{
    char text[2048];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":3},\"weight_map\":%s}", weight_map);
    unit_puts("model.safetensors.index.json", text);
}

static void refused(mq_status expected, const char *names)
{
    mq_checkpoint *checkpoint;
    mq_error error = {0};
    const mq_status status = mq__checkpoint_open(unit_dir, &checkpoint, &error);
    unit_refused(status, expected, &error, names);
    assert_null(checkpoint);
}

static mq_checkpoint *opened(const char *dir)
{
    mq_checkpoint *checkpoint;
    mq_error error = {0};
    if (mq__checkpoint_open(dir, &checkpoint, &error) != MQ_OK) fail_msg("%s", error.text);
    return checkpoint;
}

static void test_single_file(void **state)
{
    (void)state;
    write_shard("model.safetensors", "ab");
    mq_checkpoint *c = opened(unit_dir);
    assert_int_equal(mq__checkpoint_shards(c), 1);
    assert_int_equal(*mq__checkpoint_find(c, "b")->data, 'b');
    assert_null(mq__checkpoint_find(c, "c"));
    assert_string_equal(mq__checkpoint_dir(c), unit_dir);
    assert_int_equal(mq__checkpoint_bytes(c), mq__checkpoint_shard(c, 0)->map.bytes);
    mq__checkpoint_close(c);
    mq__checkpoint_close(NULL);
}

static void test_shards(void **state)
{
    (void)state;
    write_shard("one.safetensors", "ac");
    write_shard("two.safetensors", "b");
    write_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}");
    mq_checkpoint *c = opened(unit_dir);
    assert_int_equal(mq__checkpoint_shards(c), 2);
    for (const char *name = "abc"; *name; name++) {
        const char text[2] = {*name, '\0'};
        assert_int_equal(*mq__checkpoint_find(c, text)->data, *name);
    }
    assert_int_equal(mq__checkpoint_bytes(c),
                     mq__checkpoint_shard(c, 0)->map.bytes + mq__checkpoint_shard(c, 1)->map.bytes);
    mq__checkpoint_close(c);
    /* A hub's cache folder: the shards are links to files elsewhere. */
    char target[160];
    snprintf(target, sizeof target, "%s-blob", unit_dir);
    assert_int_equal(rename(unit_path("two.safetensors"), target), 0);
    assert_int_equal(symlink(target, unit_path("two.safetensors")), 0);
    mq__checkpoint_close(opened(unit_dir));
    unit_remove(target);
    refused(MQ_IO, "two.safetensors"); /* a dangling link */
}

static void test_missing_files(void **state)
{
    (void)state;
    refused(MQ_IO, "model.safetensors");
    write_index("{\"a\":\"gone.safetensors\"}");
    refused(MQ_IO, "gone.safetensors");
    mq_checkpoint *checkpoint;
    mq_error error = {0};
    /* An index that leads nowhere was not left out: the one file beside it is not the model. */
    unit_remove(unit_path("model.safetensors.index.json"));
    write_shard("model.safetensors", "a");
    assert_int_equal(symlink("nowhere", unit_path("model.safetensors.index.json")), 0);
    refused(MQ_IO, "model.safetensors.index.json");
    unit_remove(unit_path("model.safetensors.index.json"));
    mq__checkpoint_close(opened(unit_dir));
    unit_refused(mq__checkpoint_open("/nonexistent/dir", &checkpoint, &error), MQ_IO, &error, "/nonexistent/dir");
}

static void test_names_that_leave_the_directory(void **state)
{
    (void)state;
    static const char *const names[] = {"../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "",
                                        ".hidden",          "a\\\\b",      "./x.safetensors"};
    write_shard("x.safetensors", "a");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char map[128];
        snprintf(map, sizeof map, "{\"a\":\"%s\"}", names[i]);
        write_index(map);
        refused(MQ_FORMAT, "tensor a: expected a plain file name");
    }
    char map[600], name[301];
    memset(name, 'n', 300);
    name[300] = '\0';
    snprintf(map, sizeof map, "{\"a\":\"%s\"}", name);
    write_index(map);
    refused(MQ_FORMAT, "tensor a: expected a plain file name");
    write_index("{\"a\":7}");
    refused(MQ_FORMAT, "tensor a: expected a plain file name");
}

static void test_tensors_in_the_wrong_shard(void **state)
{
    (void)state;
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    write_index("{\"a\":\"one.safetensors\",\"b\":\"one.safetensors\"}");
    refused(MQ_FORMAT, "tensor b");
    write_index("{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}");
    refused(MQ_FORMAT, "tensor c");
    /* In two shards. */
    write_shard("two.safetensors", "ab");
    write_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}");
    refused(MQ_FORMAT, "index");
    /* In a shard but not in the index. */
    write_index("{\"a\":\"one.safetensors\"}");
    mq__checkpoint_close(opened(unit_dir)); /* two.safetensors is no shard then */
    write_index("{\"b\":\"two.safetensors\"}");
    refused(MQ_FORMAT, "index");
}

static void test_malformed_index(void **state)
{
    (void)state;
    write_shard("model.safetensors", "a"); /* must not be used instead */
    static const char *const texts[] = {"",
                                        "[]",
                                        "{",
                                        "{\"weight_map\":[]}",
                                        "{\"weight_map\":null}",
                                        "{}",
                                        "null",
                                        "{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        unit_puts("model.safetensors.index.json", texts[i]);
        refused(MQ_FORMAT, "model.safetensors.index.json");
    }
    write_index("{\"a\":\"model.safetensors\"}");
    mq__checkpoint_close(opened(unit_dir));
    unit_puts("bad.safetensors", "not a safetensors file");
    write_index("{\"a\":\"bad.safetensors\"}");
    refused(MQ_FORMAT, "bad.safetensors");
}

/* Shard i holds the empty tensor "t<i>". */
static void write_empty_shard(int i)
{
    char name[32];
    snprintf(name, sizeof name, "s%d", i);
    FILE *file = fopen(unit_path(name), "wb");
    assert_non_null(file);
    const int end = fprintf(file, "%8s{\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", "", i);
    const uint8_t length[8] = {(uint8_t)(end - 8)};
    rewind(file);
    assert_int_equal(fwrite(length, 1, 8, file), 8);
    assert_int_equal(fclose(file), 0);
}

static void test_too_many_shards(void **state)
{
    (void)state;
    enum { LIMIT = 4096 };
    char *map = malloc((LIMIT + 2) * 32);
    assert_non_null(map);
    for (int count = LIMIT; count <= LIMIT + 1; count++) {
        size_t used = (size_t)sprintf(map, "{\"weight_map\":{");
        for (int i = 0; i < count; i++) {
            if (count == LIMIT) write_empty_shard(i); /* the one beyond need not exist */
            used += (size_t)sprintf(map + used, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
        }
        strcpy(map + used, "}}");
        unit_puts("model.safetensors.index.json", map);
        if (count == LIMIT)
            mq__checkpoint_close(opened(unit_dir));
        else
            refused(MQ_LIMIT, "shards");
    }
    free(map);
}

static void test_allocation_failures_of_reading(void **state)
{
    (void)state;
    write_shard("one.safetensors", "ac");
    write_shard("two.safetensors", "b");
    write_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}");
    for (unsigned long n = 1;; n++) {
        mq_checkpoint *checkpoint;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq__checkpoint_open(unit_dir, &checkpoint, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            mq__checkpoint_close(checkpoint);
            assert_true(made < n && n > 5);
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        assert_null(checkpoint);
    }
}

/* ---- writing */

static const mq_tensor_spec specs[] = {
    {.name = "a", .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {60}},
    {.name = "e", .dtype = MQ_DTYPE_U8, .rank = 1},
    {.name = "b", .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {50}},
    {.name = "c", .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {150}},
    {.name = "d", .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {40}},
    {.name = "f", .dtype = MQ_DTYPE_U8, .rank = 1},
};
enum { SPECS = sizeof specs / sizeof specs[0], SPEC_BYTES = 300 };

/* Writes specs into <scratch>/out in pieces of `piece` bytes (never across a tensor's end). */
static mq_status write_checkpoint(uint64_t shard_bytes, size_t piece, mq_error *error)
{
    mq_checkpoint_writer writer;
    uint8_t bytes[SPEC_BYTES];
    mq_status status = mq__checkpoint_create(unit_path("out"), &writer, error);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)i;
    }
    if (status == MQ_OK) status = mq__checkpoint_put_file(&writer, "notes.txt", "n", 1, error);
    if (status == MQ_OK) status = mq__checkpoint_declare(&writer, specs, SPECS, shard_bytes, error);
    size_t done = 0;
    for (size_t i = 0; i < SPECS; i++) {
        for (size_t left = (size_t)specs[i].shape[0]; status == MQ_OK && left;) {
            const size_t count = left < piece ? left : piece;
            status = mq__checkpoint_put(&writer, bytes + done, count, error);
            done += count;
            left -= count;
        }
    }
    if (status == MQ_OK) status = mq__checkpoint_finish(&writer, error);
    mq__checkpoint_discard(&writer);
    return status;
}

static void check_written(size_t shards)
{
    mq_checkpoint *c = opened(unit_path("out"));
    uint8_t next = 0;
    assert_int_equal(mq__checkpoint_shards(c), shards);
    for (size_t i = 0; i < SPECS; i++) {
        const mq_tensor *t = mq__checkpoint_find(c, specs[i].name);
        assert_non_null(t);
        assert_int_equal(t->bytes, specs[i].shape[0]);
        for (size_t k = 0; k < t->bytes; k++) {
            assert_int_equal(t->data[k], next++);
        }
    }
    mq__checkpoint_close(c);
    unit_remove(unit_path("out"));
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_writes_shards(void **state)
{
    (void)state;
    static const struct {
        uint64_t shard_bytes;
        size_t shards;
    } cases[] = {{0, 1}, {300, 1}, {299, 2}, {120, 3}, {60, 4}, {1, 4}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t piece = 7; piece <= 1000; piece = piece * 12) {
            mq_error error = {0};
            if (write_checkpoint(cases[i].shard_bytes, piece, &error) != MQ_OK) fail_msg("%s", error.text);
            assert_int_equal(unit_entries(unit_path("out")), (int)cases[i].shards + (cases[i].shards > 1 ? 2 : 1));
            if (cases[i].shards == 3) {
                assert_int_equal(access(unit_path("out/model-00003-of-00003.safetensors"), R_OK), 0);
            }
            check_written(cases[i].shards);
        }
    }
}

static void test_writes_only_into_new_or_empty(void **state)
{
    (void)state;
    mq_error error = {0};
    assert_int_equal(mkdir(unit_path("out"), 0755), 0);
    assert_int_equal(write_checkpoint(0, 50, &error), MQ_OK);
    unit_refused(write_checkpoint(0, 50, &error), MQ_USAGE, &error, "out");
    check_written(1); /* as it was */
    unit_puts("out", "a file");
    assert_int_not_equal(write_checkpoint(0, 50, &error), MQ_OK);
    unit_remove(unit_path("out"));
    mq_checkpoint_writer writer;
    unit_refused(mq__checkpoint_create("", &writer, &error), MQ_USAGE, &error, NULL);
    unit_refused(mq__checkpoint_create("///", &writer, &error), MQ_USAGE, &error, NULL);
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_wrong_amounts_leave_nothing(void **state)
{
    (void)state;
    static const uint8_t bytes[SPEC_BYTES];
    mq_checkpoint_writer writer;
    mq_error error = {0};
    assert_int_equal(mq__checkpoint_create(unit_path("out"), &writer, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_declare(&writer, specs, SPECS, 100, &error), MQ_OK);
    unit_refused(mq__checkpoint_put(&writer, bytes, 61, &error), MQ_USAGE, &error, "out"); /* past the tensor's end */
    assert_int_equal(mq__checkpoint_put(&writer, bytes, 60, &error), MQ_OK);
    unit_refused(mq__checkpoint_finish(&writer, &error), MQ_USAGE, &error, "out"); /* too early */
    assert_int_equal(unit_entries(unit_dir), 0);
    mq__checkpoint_discard(&writer);
    assert_int_equal(mq__checkpoint_create(unit_path("out"), &writer, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_declare(&writer, specs, 1, 0, &error), MQ_OK);
    assert_int_equal(mq__checkpoint_put(&writer, bytes, 60, &error), MQ_OK);
    unit_refused(mq__checkpoint_put(&writer, bytes, 1, &error), MQ_USAGE, &error, "out"); /* past the last */
    mq__checkpoint_discard(&writer);
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_full_disk_leaves_nothing(void **state)
{
    (void)state;
    struct rlimit before, low;
    mq_error error = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    (void)signal(SIGXFSZ, SIG_IGN);
    for (rlim_t size = 0; size < 700; size += 60) {
        low.rlim_cur = size;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        const mq_status status = write_checkpoint(200, 1000, &error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        if (status == MQ_OK) {
            assert_true(size > 200);
            check_written(2);
            continue;
        }
        unit_refused(status, MQ_WRITE, &error, "out");
        assert_int_equal(unit_entries(unit_dir), 0);
    }
}

static void test_allocation_failures_of_writing(void **state)
{
    (void)state;
    for (unsigned long n = 1;; n++) {
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = write_checkpoint(120, 1000, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n && n > 10);
            check_written(3);
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        assert_int_equal(unit_entries(unit_dir), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_single_file),
        TEST(test_shards),
        TEST(test_missing_files),
        TEST(test_names_that_leave_the_directory),
        TEST(test_tensors_in_the_wrong_shard),
        TEST(test_malformed_index),
        TEST(test_too_many_shards),
        TEST(test_allocation_failures_of_reading),
        TEST(test_writes_shards),
        TEST(test_writes_only_into_new_or_empty),
        TEST(test_wrong_amounts_leave_nothing),
        TEST(test_full_disk_leaves_nothing),
        TEST(test_allocation_failures_of_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
