/* The file of packed weights: any damage is noticed, a stale one is refused, a failed write leaves nothing. */
#include "base/mem.h"
#include "format/packfile.h"
#include "unit_files.h"

#include <signal.h>
#include <sys/resource.h>

enum { SECTIONS = 3, SMALL = 5000, LARGE = 20000 };

static uint8_t small[SMALL], large[LARGE];
static const mq_pack_section sections[SECTIONS] = {{small, SMALL}, {NULL, 0}, {large, LARGE}};
static const mq_digest fingerprint = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static int setup(void **state)
{
    for (size_t i = 0; i < LARGE; i++) {
        large[i] = (uint8_t)(i * 31 + i / 256);
        if (i < SMALL) small[i] = (uint8_t)(i * 17);
    }
    return unit_setup(state);
}

static mq_status write_pack(mq_error *error)
{
    return mq__packfile_write(unit_path("p"), fingerprint, sections, SECTIONS, error);
}

/* Bytes of the file as written. */
static uint8_t *read_all(size_t *count)
{
    char *data;
    mq_error error = {0};
    assert_int_equal(mq__file_read(unit_path("p"), 1 << 20, &data, count, &error), MQ_OK);
    return (uint8_t *)data;
}

/* True when the file opens and all sections are intact and as written. */
static bool is_sound(const char *name)
{
    mq_packfile file;
    mq_error error = {0};
    if (mq__packfile_open(unit_path(name), fingerprint, &file, &error) != MQ_OK) {
        assert_int_equal(error.status, MQ_FORMAT);
        assert_non_null(strstr(error.text, name));
        assert_null(file.map.data);
        return false;
    }
    bool sound = true;
    assert_int_equal(file.sections, SECTIONS);
    for (size_t i = 0; i < SECTIONS; i++) {
        size_t bytes;
        const uint8_t *data = mq__packfile_section(&file, i, &bytes);
        const bool same = bytes == sections[i].bytes && (bytes == 0 || memcmp(data, sections[i].data, bytes) == 0);
        assert_int_equal(mq__packfile_section_is_intact(&file, i), same);
        sound = sound && same;
    }
    mq__packfile_close(&file);
    return sound;
}

static void test_round_trip(void **state)
{
    (void)state;
    mq_packfile file;
    mq_error error = {0};
    assert_int_equal(write_pack(&error), MQ_OK);
    assert_int_equal(mq__packfile_open(unit_path("p"), fingerprint, &file, &error), MQ_OK);
    assert_int_equal(file.sections, SECTIONS);
    for (size_t i = 0; i < SECTIONS; i++) {
        size_t bytes;
        const uint8_t *data = mq__packfile_section(&file, i, &bytes);
        assert_int_equal(bytes, sections[i].bytes);
        assert_int_equal((uintptr_t)data % 4096, 0); /* the kernels rely on 64 */
        if (bytes) assert_memory_equal(data, sections[i].data, bytes);
        assert_true(mq__packfile_section_is_intact(&file, i));
    }
    mq__packfile_close(&file);
    assert_true(is_sound("p"));
    /* Written over an older one. */
    assert_int_equal(mq__packfile_write(unit_path("p"), fingerprint, sections, 1, &error), MQ_OK);
    assert_int_equal(mq__packfile_open(unit_path("p"), fingerprint, &file, &error), MQ_OK);
    assert_int_equal(file.sections, 1);
    mq__packfile_close(&file);
    assert_int_equal(mq__packfile_write(unit_path("p"), fingerprint, NULL, 0, &error), MQ_OK);
    assert_int_equal(mq__packfile_open(unit_path("p"), fingerprint, &file, &error), MQ_OK);
    assert_int_equal(file.sections, 0);
    mq__packfile_close(&file);
    unit_remove(unit_path("p"));
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_other_models_are_refused(void **state)
{
    (void)state;
    mq_packfile file;
    mq_error error = {0};
    assert_int_equal(write_pack(&error), MQ_OK);
    for (size_t i = 0; i < sizeof fingerprint.bytes; i++) {
        mq_digest other = fingerprint;
        other.bytes[i] ^= 0x40;
        unit_refused(mq__packfile_open(unit_path("p"), other, &file, &error), MQ_FORMAT, &error, "another model");
    }
    unit_refused(mq__packfile_open(unit_path("absent"), fingerprint, &file, &error), MQ_IO, &error, "absent");
    unit_puts("empty", "");
    unit_refused(mq__packfile_open(unit_path("empty"), fingerprint, &file, &error), MQ_FORMAT, &error, "version");
}

/* Where byte `at` lies: in the header, the table, a section, or in padding that nobody reads. */
static bool is_padding(size_t at)
{
    const size_t table_end = 64 + 32 * SECTIONS;
    if (at < table_end) return at >= 56 && at < 64; /* reserved */
    if (at < 4096 + SMALL) return at < 4096;
    const size_t start = (4096 + SMALL + 4095) / 4096 * 4096; /* of the large section; the empty one shares it */
    return at < start;
}

static void test_damage_of_every_region_is_noticed(void **state)
{
    (void)state;
    mq_error error = {0};
    size_t count;
    assert_int_equal(write_pack(&error), MQ_OK);
    uint8_t *bytes = read_all(&count);
    for (size_t at = 0; at < count; at += at < 200 ? 1 : 113) {
        for (int bit = 0; bit < 8; bit += at < 200 ? 1 : 5) {
            bytes[at] ^= (uint8_t)(1 << bit);
            unit_write("damaged", bytes, count);
            if (is_sound("damaged") != is_padding(at)) fail_msg("bit %d of byte %zu of %zu", bit, at, count);
            bytes[at] ^= (uint8_t)(1 << bit);
        }
    }
    bytes[count - 1] ^= 1; /* the very last */
    unit_write("damaged", bytes, count);
    assert_false(is_sound("damaged"));
    mq__free(bytes);
}

static void test_truncated_and_longer_files(void **state)
{
    (void)state;
    mq_error error = {0};
    size_t count;
    assert_int_equal(write_pack(&error), MQ_OK);
    uint8_t *bytes = read_all(&count);
    for (size_t length = 0; length < count; length += length < 200 ? 1 : 509) {
        unit_write("cut", bytes, length);
        assert_false(is_sound("cut"));
    }
    unit_write("cut", bytes, count - 1);
    assert_false(is_sound("cut"));
    unit_write("cut", bytes, count);
    assert_true(is_sound("cut"));
    FILE *file = fopen(unit_path("cut"), "ab");
    assert_non_null(file);
    assert_int_equal(fputc(0, file), 0);
    assert_int_equal(fclose(file), 0);
    assert_false(is_sound("cut"));
    mq__free(bytes);
}

/* A table that is consistent with its own checksum but lies about the file. */
static void test_lying_tables(void **state)
{
    (void)state;
    static const struct {
        uint64_t offset, bytes;
    } lies[] = {{4096, UINT64_MAX}, {UINT64_MAX - 4095, 4096}, {4096, 1 << 30}, {1 << 30, 1}, {4097, 1}, {12, 1}};
    mq_packfile file;
    mq_error error = {0};
    size_t count;
    assert_int_equal(write_pack(&error), MQ_OK);
    uint8_t *bytes = read_all(&count);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        for (int b = 0; b < 8; b++) {
            bytes[64 + b] = (uint8_t)(lies[i].offset >> (8 * b));
            bytes[72 + b] = (uint8_t)(lies[i].bytes >> (8 * b));
        }
        const mq_digest table = mq__digest(bytes + 64, 32 * SECTIONS);
        memcpy(bytes + 40, table.bytes, sizeof table.bytes);
        unit_write("lying", bytes, count);
        unit_refused(mq__packfile_open(unit_path("lying"), fingerprint, &file, &error), MQ_FORMAT, &error,
                     "outside the file");
    }
    for (int b = 0; b < 8; b++) {
        bytes[24 + b] = 0xff; /* 2^64 - 1 sections */
    }
    unit_write("lying", bytes, count);
    assert_false(is_sound("lying"));
    mq__free(bytes);
}

static void test_failed_writes_leave_nothing(void **state)
{
    (void)state;
    struct rlimit before, low;
    mq_error error = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    (void)signal(SIGXFSZ, SIG_IGN);
    for (rlim_t size = 0; size < 32000; size += 4000) {
        low.rlim_cur = size;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        const mq_status status = write_pack(&error);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
        unit_refused(status, MQ_WRITE, &error, "/p");
        assert_int_equal(unit_entries(unit_dir), 0);
    }
    unit_refused(mq__packfile_write(unit_path("no/such"), fingerprint, sections, SECTIONS, &error), MQ_WRITE, &error,
                 "no/such");
    /* An older file survives a failed write. */
    assert_int_equal(write_pack(&error), MQ_OK);
    low.rlim_cur = 9000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    const mq_status status = write_pack(&error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    unit_refused(status, MQ_WRITE, &error, NULL);
    assert_true(is_sound("p"));
    assert_int_equal(unit_entries(unit_dir), 1);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    for (unsigned long n = 1;; n++) {
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = write_pack(&error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n && n > 2);
            assert_true(is_sound("p"));
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
        assert_int_equal(unit_entries(unit_dir), 0);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_other_models_are_refused),
        TEST(test_damage_of_every_region_is_noticed),
        TEST(test_truncated_and_longer_files),
        TEST(test_lying_tables),
        TEST(test_failed_writes_leave_nothing),
        TEST(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
