#include "fuzz.h"

#include <string.h>
#include <unistd.h>

#define SEPARATOR "\n----\n"

bool fuzz_accepted;

void fuzz_cut(const uint8_t *data, size_t bytes, fuzz_part *parts, size_t count)
{
    const size_t gap = sizeof SEPARATOR - 1;
    memset(parts, 0, count * sizeof *parts);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *cut = i + 1 < count ? memmem(data, bytes, SEPARATOR, gap) : NULL;
        parts[i].bytes = cut ? (size_t)(cut - data) : bytes;
        parts[i].data = malloc(parts[i].bytes);
        FUZZ_CHECK(parts[i].data || parts[i].bytes == 0);
        if (parts[i].bytes) memcpy(parts[i].data, data, parts[i].bytes);
        if (!cut) return;
        bytes -= parts[i].bytes + gap;
        data = cut + gap;
    }
}

void fuzz_free(fuzz_part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(parts[i].data);
    }
}

bool fuzz_passed(mq_status status, const mq_error *error)
{
    if (status == MQ_OK) return true;
    FUZZ_CHECK(error->status == status);
    FUZZ_CHECK(memchr(error->text, 0, sizeof error->text));
    FUZZ_CHECK(error->text[0] != 0);
    FUZZ_CHECK(!strchr(error->text, '\n'));
    return false;
}

static char scratch[256];

static void remove_scratch(void)
{
    (void)rmdir(scratch);
}

/* Memory rather than a disk: a fuzzer writes thousands of files a second. */
const char *fuzz_dir(void)
{
    if (scratch[0]) return scratch;
    const char *chosen = getenv("TMPDIR");
    if (!chosen) chosen = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    FUZZ_CHECK((size_t)snprintf(scratch, sizeof scratch, "%s/mixquant-fuzz-XXXXXX", chosen) < sizeof scratch);
    FUZZ_CHECK(mkdtemp(scratch));
    FUZZ_CHECK(atexit(remove_scratch) == 0);
    return scratch;
}

const char *fuzz_path(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir(), name);
    return path;
}

void fuzz_write(const char *name, const void *data, size_t bytes)
{
    fuzz_remove(name);
    FILE *file = fopen(fuzz_path(name), "wb");
    FUZZ_CHECK(file);
    if (bytes) FUZZ_CHECK(fwrite(data, 1, bytes, file) == bytes);
    FUZZ_CHECK(fclose(file) == 0);
}

void fuzz_remove(const char *name)
{
    (void)unlink(fuzz_path(name));
}
