/* The reader refuses every malformed file by name; the writer writes what the reader accepts, or nothing. */
#include "base/mem.h"
#include "format/safetensors.h"
#include "unit_files.h"

#include <signal.h>
#include <sys/resource.h>

static const char *const file_name = "t.safetensors";

/* A file of this header text and `data_bytes` bytes of data, with a length field that may lie. */
static void write_raw(uint64_t length, const char *header, size_t data_bytes)
{
    const size_t text = strlen(header);
    uint8_t *bytes = calloc(1, 8 + text + data_bytes + 1);
    assert_non_null(bytes);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(length >> (8 * i));
    }
    memcpy(bytes + 8, header, text);
    for (size_t i = 0; i < data_bytes; i++) {
        bytes[8 + text + i] = (uint8_t)i;
    }
    unit_write(file_name, bytes, 8 + text + data_bytes);
    free(bytes);
}

static void write_file(const char *header, size_t data_bytes)
{
    write_raw(strlen(header), header, data_bytes);
}

static void refused(mq_status expected, const char *names)
{
    mq_safetensors file;
    mq_error error = {0};
    const mq_status status = mq__safetensors_open(unit_path(file_name), &file, &error);
    unit_refused(status, expected, &error, names);
    assert_null(file.tensors);
    assert_null(file.map.data);
}

static void accepted(size_t count, mq_safetensors *file)
{
    mq_error error = {0};
    const mq_status status = mq__safetensors_open(unit_path(file_name), file, &error);
    if (status != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(file->count, count);
}

#define ENTRY(name, dtype, shape, offsets)                                                                             \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_reads_what_it_should(void **state)
{
    (void)state;
    mq_safetensors file;
    /* Out of order, with metadata, a scalar, an empty tensor that shares an offset, and padding after the header. */
    write_file("{\"__metadata__\":{\"format\":\"pt\"}," ENTRY("b", "BF16", "[2,3]", "[4,16]") "," ENTRY(
                   "a", "F32", "[]", "[0,4]") "," ENTRY("e", "F32", "[0,5]", "[4,4]") "}   ",
               16);
    accepted(3, &file);
    const mq_tensor *a = mq__safetensors_find(&file, "a"), *b = mq__safetensors_find(&file, "b"),
                    *e = mq__safetensors_find(&file, "e");
    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(e);
    assert_null(mq__safetensors_find(&file, "c"));
    assert_null(mq__safetensors_find(&file, "__metadata__"));
    assert_int_equal(a->rank, 0);
    assert_int_equal(a->bytes, 4);
    assert_int_equal(a->data[3], 3);
    assert_int_equal(b->dtype, MQ_DTYPE_BF16);
    assert_int_equal(b->rank, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_int_equal(b->bytes, 12);
    assert_int_equal(b->data[0], 4);
    assert_int_equal(e->bytes, 0);
    mq__safetensors_close(&file);
    write_file("{}", 0);
    accepted(0, &file);
    assert_null(mq__safetensors_find(&file, "a"));
    mq__safetensors_close(&file);
}

static void test_every_dtype(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t of_four; /* bytes of four values */
    } dtypes[] = {{"F4", 2},      {"F6_E2M3", 3}, {"F6_E3M2", 3}, {"BOOL", 4},        {"U8", 4},          {"I8", 4},
                  {"F8_E4M3", 4}, {"F8_E5M2", 4}, {"F8_E8M0", 4}, {"F8_E4M3FNUZ", 4}, {"F8_E5M2FNUZ", 4}, {"I16", 8},
                  {"U16", 8},     {"F16", 8},     {"BF16", 8},    {"I32", 16},        {"U32", 16},        {"F32", 16},
                  {"I64", 32},    {"U64", 32},    {"F64", 32},    {"C64", 32}};
    assert_int_equal(sizeof dtypes / sizeof dtypes[0], MQ_DTYPE_COUNT);
    for (size_t i = 0; i < MQ_DTYPE_COUNT; i++) {
        char header[128];
        mq_safetensors file;
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[2,2],\"data_offsets\":[0,%zu]}}",
                 dtypes[i].name, dtypes[i].of_four);
        write_file(header, dtypes[i].of_four);
        accepted(1, &file);
        assert_string_equal(mq__dtype_name(file.tensors[0].dtype), dtypes[i].name);
        assert_int_equal(mq__dtype_bytes(file.tensors[0].dtype), (dtypes[i].of_four + 3) / 4);
        mq__safetensors_close(&file);
    }
}

static void test_length_field(void **state)
{
    (void)state;
    static const char header[] = "{" ENTRY("x", "U8", "[4]", "[0,4]") "}";
    unit_write(file_name, "", 0);
    refused(MQ_FORMAT, "at least 8 bytes");
    unit_write(file_name, "\x10\0\0\0\0\0\0", 7);
    refused(MQ_FORMAT, "at least 8 bytes");
    write_raw(0, header, 4);
    refused(MQ_FORMAT, "header");
    write_raw(strlen(header) + 5, header, 4); /* past the end of the file */
    refused(MQ_FORMAT, "within the file");
    write_raw(UINT64_MAX, header, 4);
    refused(MQ_FORMAT, "within the file");
    write_raw(UINT64_MAX - 7, header, 4); /* 8 + n overflows */
    refused(MQ_FORMAT, "within the file");
    write_raw(strlen(header) - 1, header, 4); /* cuts the last brace off */
    refused(MQ_FORMAT, "JSON");
    write_raw(strlen(header) + 2, header, 4); /* takes data for JSON */
    refused(MQ_FORMAT, "JSON");
    mq_error error = {0};
    mq_safetensors file;
    unit_refused(mq__safetensors_open(unit_path("absent"), &file, &error), MQ_IO, &error, "absent");
    unit_refused(mq__safetensors_open(unit_dir, &file, &error), MQ_IO, &error, "regular file");
}

/* 33 MiB of header that is there: refused by its size, before it is parsed. */
static void test_oversized_header(void **state)
{
    (void)state;
    const size_t size = (size_t)33 << 20;
    char *header = malloc(size + 1);
    assert_non_null(header);
    memset(header, ' ', size);
    header[0] = '{';
    header[1] = '}';
    header[size] = '\0';
    write_file(header, 0);
    free(header);
    refused(MQ_FORMAT, "header");
}

/* A header within its size can still hold millions of values, each of which a parser would allocate. */
static void test_header_of_too_many_values(void **state)
{
    (void)state;
    const size_t values = 1100000;
    char *header = malloc(2 * values + 64);
    assert_non_null(header);
    size_t used = (size_t)sprintf(header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[");
    for (size_t i = 0; i < values; i++) {
        header[used++] = '0';
        header[used++] = ',';
    }
    strcpy(header + used, "0],\"data_offsets\":[0,0]}}");
    write_file(header, 0);
    refused(MQ_LIMIT, "values");
    /* Commas in a string are no values. */
    memset(header, ',', 2 * values);
    memcpy(header, "{\"__metadata__\":{\"a\":\"\\\"", 24);
    strcpy(header + 2 * values, "\"}}");
    write_file(header, 0);
    mq_safetensors file;
    accepted(0, &file);
    mq__safetensors_close(&file);
    free(header);
}

static void test_header_is_not_an_object_of_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *header, *names;
    } cases[] = {
        {"[]", "'{' first"},
        {" {}", "'{' first"},
        {"12", "'{' first"},
        {"{\"x\":", "JSON"},
        {"{\"x\":1}", "tensor x"},
        {"{\"x\":null}", "tensor x"},
        {"{\"x\":[]}", "tensor x"},
        {"{\"x\":{}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4]}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"more\":1}}", "tensor x"},
        {"{\"x\":{\"dtype\":7,\"shape\":[4],\"data_offsets\":[0,4]}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0]}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4,4]}}", "tensor x"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{\"a\":0}}}", "tensor x"},
        {"{\"__metadata__\":[]}", "metadata"},
        {"{\"__metadata__\":\"x\"}", "metadata"},
        {"{\"__metadata__\":null}", "metadata"},
        {"{\"__metadata__\":{\"a\":1}}", "metadata a"},
        {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", "metadata a"},
        {"{\"x\xff\":{}}", "JSON"}, /* not UTF-8 */
        {"{\"x\\u0000\":{}}", "JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_file(cases[i].header, 4);
        refused(MQ_FORMAT, cases[i].names);
    }
}

static void test_duplicate_keys(void **state)
{
    (void)state;
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("x", "U8", "[4]", "[4,8]") "}", 8);
    refused(MQ_FORMAT, "uplicate");
    write_file("{\"x\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    refused(MQ_FORMAT, "uplicate");
    write_file("{\"__metadata__\":{\"a\":\"b\",\"a\":\"c\"}}", 0);
    refused(MQ_FORMAT, "uplicate");
}

static void test_dtypes_and_shapes(void **state)
{
    (void)state;
    mq_safetensors file;
    write_file("{" ENTRY("x", "F4", "[2,4]", "[0,4]") "," ENTRY("y", "F6_E2M3", "[4]", "[4,7]") "," ENTRY(
                   "z", "F8_E8M0", "[1]", "[7,8]") "," ENTRY("c", "C64", "[1]", "[8,16]") "}",
               16); /* nobody reads them, and they are no reason to refuse the others */
    accepted(4, &file);
    assert_int_equal(mq__safetensors_find(&file, "y")->bytes, 3);
    mq__safetensors_close(&file);
    write_file("{" ENTRY("x", "F4", "[5]", "[0,2]") "}", 2); /* half a byte more */
    refused(MQ_FORMAT, "tensor x");
    write_file("{" ENTRY("x", "F5", "[4]", "[0,4]") "}", 4);
    refused(MQ_UNSUPPORTED, "F5");
    write_file("{" ENTRY("x", "bf16", "[2]", "[0,4]") "}", 4);
    refused(MQ_UNSUPPORTED, "bf16");
    write_file("{" ENTRY("x", "", "[4]", "[0,4]") "}", 4);
    refused(MQ_UNSUPPORTED, "tensor x");
    static const struct {
        const char *shape;
        const char *offsets;
    } cases[] = {
        {"[3]", "[0,4]"}, /* fewer bytes than given */
        {"[5]", "[0,4]"}, /* more */
        {"[]", "[0,4]"},  /* a scalar has one byte */
        {"[0]", "[0,4]"},
        {"[-4]", "[0,4]"},
        {"[2,-2]", "[0,4]"},
        {"[4.0]", "[0,4]"},
        {"[\"4\"]", "[0,4]"},
        {"[null]", "[0,4]"},
        {"[[4]]", "[0,4]"},
        {"[9223372036854775807]", "[0,4]"},
        {"[4294967296,4294967296]", "[0,4]"}, /* the product is 2^64: 0 in 64 bits */
        {"[4294967296,4294967296,4]", "[0,4]"},
        {"[2305843009213693952,8,4]", "[0,4]"}, /* 2^61 * 8 wraps to 0 */
        {"[9223372036854775808]", "[0,4]"},     /* beyond int64: not JSON for us */
        {"[1,1,1,1,1,1,1,1,4]", "[0,4]"},       /* rank 9 */
        {"[4]", "[4,0]"},                       /* backwards */
        {"[4]", "[-4,0]"},
        {"[4]", "[0,5]"}, /* past the end */
        {"[4]", "[1,5]"},
        {"[4]", "[9223372036854775807,9223372036854775807]"},
        {"[4]", "[0.0,4.0]"},
        {"[4]", "[\"0\",\"4\"]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[256];
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"U8\",\"shape\":%s,\"data_offsets\":%s}}", cases[i].shape,
                 cases[i].offsets);
        write_file(header, 4);
        refused(MQ_FORMAT, NULL);
    }
    /* Eight dimensions are fine, and so are those that overflow only before a zero is met. */
    write_file("{" ENTRY("x", "U8", "[1,1,1,1,1,1,2,2]", "[0,4]") "}", 4);
    accepted(1, &file);
    mq__safetensors_close(&file);
}

static void test_overlaps_holes_and_ends(void **state)
{
    (void)state;
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[2,6]") "}", 6);
    refused(MQ_FORMAT, "overlap");
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[0,4]") "}", 4);
    refused(MQ_FORMAT, "overlap");
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[2]", "[1,3]") "}", 4);
    refused(MQ_FORMAT, "overlap"); /* one inside the other */
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "U8", "[4]", "[5,9]") "}", 9);
    refused(MQ_FORMAT, "hole");
    write_file("{" ENTRY("x", "U8", "[4]", "[1,5]") "}", 5);
    refused(MQ_FORMAT, "hole"); /* at the start */
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "}", 5);
    refused(MQ_FORMAT, "data"); /* trailing byte */
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "}", 3);
    refused(MQ_FORMAT, "tensor x"); /* truncated data */
    write_file("{}", 1);
    refused(MQ_FORMAT, "data");
    write_file("{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("e", "U8", "[0]", "[2,2]") "}", 4);
    refused(MQ_FORMAT, "overlap"); /* an empty tensor in the middle of another */
}

static void test_deep_json(void **state)
{
    (void)state;
    const size_t depth = 200000;
    char *header = malloc(depth + 32);
    assert_non_null(header);
    strcpy(header, "{\"x\":");
    memset(header + 5, '[', depth);
    header[5 + depth] = '\0';
    write_file(header, 0);
    free(header);
    refused(MQ_FORMAT, "JSON");
}

/* Every prefix of a good file is refused, and none is read past its end. */
static void test_every_truncation(void **state)
{
    (void)state;
    static const char header[] = "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "BF16", "[2,2]", "[4,12]") "}";
    write_file(header, 12);
    const size_t size = 8 + strlen(header) + 12;
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(truncate(unit_path(file_name), (off_t)(size - 1 - cut)), 0);
        refused(MQ_FORMAT, NULL);
    }
}

/* Any single byte of the header changed: refused, or read as a consistent file. */
static void test_every_changed_byte(void **state)
{
    (void)state;
    static const char header[] = "{" ENTRY("x", "U8", "[4]", "[0,4]") "," ENTRY("y", "BF16", "[2,2]", "[4,12]") "}";
    char changed[sizeof header];
    static const char replacements[] = "0\x7f\"}]{,9- \xc3";
    for (size_t at = 0; at < sizeof header - 1; at++) {
        for (size_t r = 0; r < sizeof replacements - 1; r++) {
            mq_safetensors file;
            mq_error error = {0};
            memcpy(changed, header, sizeof header);
            changed[at] = replacements[r];
            write_file(changed, 12);
            if (mq__safetensors_open(unit_path(file_name), &file, &error) != MQ_OK) continue;
            size_t sum = 0;
            for (size_t i = 0; i < file.count; i++) {
                for (size_t b = 0; b < file.tensors[i].bytes; b++) {
                    sum += file.tensors[i].data[b];
                }
            }
            assert_int_equal(sum, 66); /* 0 + 1 + ... + 11: each byte in one tensor */
            mq__safetensors_close(&file);
        }
    }
}

static void test_allocation_failures_of_reading(void **state)
{
    (void)state;
    write_file("{\"__metadata__\":{\"a\":\"b\"}," ENTRY("x", "U8", "[4]", "[0,4]") "}", 4);
    for (unsigned long n = 1;; n++) {
        mq_safetensors file;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = mq__safetensors_open(unit_path(file_name), &file, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            mq__safetensors_close(&file);
            assert_true(made < n);
            assert_true(n > 1);
            return;
        }
        unit_refused(status, MQ_NO_MEMORY, &error, NULL);
    }
}

/* ---- writing */

static const mq_tensor_spec specs[] = {
    {.name = "first", .dtype = MQ_DTYPE_BF16, .rank = 2, .shape = {3, 5}},
    {.name = "empty", .dtype = MQ_DTYPE_F32, .rank = 1, .shape = {0}},
    {.name = "scalar \"quoted\" \xc3\xa9", .dtype = MQ_DTYPE_F32, .rank = 0},
};

static void test_writes_what_it_reads(void **state)
{
    (void)state;
    mq_safetensors_writer writer;
    mq_safetensors file;
    mq_error error = {0};
    uint8_t bytes[34];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 7);
    }
    assert_int_equal(mq__safetensors_begin(unit_path(file_name), specs, 3, &writer, &error), MQ_OK);
    assert_int_equal(mq__safetensors_put(&writer, bytes, 11, &error), MQ_OK);
    assert_int_equal(mq__safetensors_put(&writer, bytes + 11, 23, &error), MQ_OK);
    assert_int_equal(mq__safetensors_commit(&writer, &error), MQ_OK);
    accepted(3, &file);
    assert_int_equal(file.header_bytes % 8, 0); /* so that the data is aligned */
    for (int i = 0; i < 3; i++) {
        const mq_tensor *t = mq__safetensors_find(&file, specs[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, specs[i].dtype);
        assert_int_equal(t->rank, specs[i].rank);
        assert_memory_equal(t->shape, specs[i].shape, sizeof t->shape);
    }
    assert_memory_equal(mq__safetensors_find(&file, "first")->data, bytes, 30);
    assert_memory_equal(mq__safetensors_find(&file, specs[2].name)->data, bytes + 30, 4);
    mq__safetensors_close(&file);
    unit_remove(unit_path(file_name));
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_wrong_amounts_leave_nothing(void **state)
{
    (void)state;
    static const uint8_t bytes[64];
    for (size_t count = 33; count <= 35; count += 2) {
        mq_safetensors_writer writer;
        mq_error error = {0};
        assert_int_equal(mq__safetensors_begin(unit_path(file_name), specs, 3, &writer, &error), MQ_OK);
        assert_int_equal(mq__safetensors_put(&writer, bytes, count, &error), MQ_OK);
        unit_refused(mq__safetensors_commit(&writer, &error), MQ_USAGE, &error, file_name);
        assert_int_equal(unit_entries(unit_dir), 0);
    }
    mq_safetensors_writer writer;
    mq_error error = {0};
    assert_int_equal(mq__safetensors_begin(unit_path(file_name), specs, 3, &writer, &error), MQ_OK);
    mq__safetensors_abort(&writer);
    assert_int_equal(unit_entries(unit_dir), 0);
    /* The same name twice. */
    const mq_tensor_spec twice[] = {specs[0], specs[0]};
    assert_int_not_equal(mq__safetensors_begin(unit_path(file_name), twice, 2, &writer, &error), MQ_OK);
    /* A size that does not fit. */
    const mq_tensor_spec huge = {.name = "h", .dtype = MQ_DTYPE_F32, .rank = 2, .shape = {UINT64_MAX / 2, 4}};
    unit_refused(mq__safetensors_begin(unit_path(file_name), &huge, 1, &writer, &error), MQ_LIMIT, &error, "tensor h");
    assert_int_equal(unit_entries(unit_dir), 0);
    unit_refused(mq__safetensors_begin(unit_path("no/such"), specs, 3, &writer, &error), MQ_WRITE, &error, "no/such");
}

/* The file may not grow past 64 KiB, as on a full disk. */
static void test_full_disk_leaves_nothing(void **state)
{
    (void)state;
    const mq_tensor_spec big = {.name = "big", .dtype = MQ_DTYPE_U8, .rank = 1, .shape = {200000}};
    static const uint8_t bytes[200000];
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    low = before;
    low.rlim_cur = 65536;
    (void)signal(SIGXFSZ, SIG_IGN);
    mq_safetensors_writer writer;
    mq_error error = {0};
    assert_int_equal(mq__safetensors_begin(unit_path(file_name), &big, 1, &writer, &error), MQ_OK);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    mq_status status = mq__safetensors_put(&writer, bytes, sizeof bytes, &error);
    if (status == MQ_OK)
        status = mq__safetensors_commit(&writer, &error);
    else
        mq__safetensors_abort(&writer);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    unit_refused(status, MQ_WRITE, &error, file_name);
    assert_int_equal(unit_entries(unit_dir), 0);
}

static void test_allocation_failures_of_writing(void **state)
{
    (void)state;
    static const uint8_t bytes[34];
    for (unsigned long n = 1;; n++) {
        mq_safetensors_writer writer;
        mq_error error = {0};
        (void)mq__alloc_fail_at(n);
        mq_status status = mq__safetensors_begin(unit_path(file_name), specs, 3, &writer, &error);
        if (status == MQ_OK) {
            status = mq__safetensors_put(&writer, bytes, sizeof bytes, &error);
            if (status == MQ_OK) status = mq__safetensors_commit(&writer, &error);
        }
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_true(made < n && n > 1);
            unit_remove(unit_path(file_name));
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
        TEST(test_reads_what_it_should),
        TEST(test_every_dtype),
        TEST(test_length_field),
        TEST(test_oversized_header),
        TEST(test_header_of_too_many_values),
        TEST(test_header_is_not_an_object_of_tensors),
        TEST(test_duplicate_keys),
        TEST(test_dtypes_and_shapes),
        TEST(test_overlaps_holes_and_ends),
        TEST(test_deep_json),
        TEST(test_every_truncation),
        TEST(test_every_changed_byte),
        TEST(test_allocation_failures_of_reading),
        TEST(test_writes_what_it_reads),
        TEST(test_wrong_amounts_leave_nothing),
        TEST(test_full_disk_leaves_nothing),
        TEST(test_allocation_failures_of_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
