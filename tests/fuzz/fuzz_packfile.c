/* The file of packed weights, under the fingerprint that it has itself. A search would never guess a checksum: for an input that
 * begins with 'F' in place of the magic's 'M', size and checksum of the table are filled in. */
#include "format/packfile.h"
#include "fuzz.h"

#include <string.h>

enum { FINGERPRINT = 8, COUNT = 24, SIZE = 32, TABLE_DIGEST = 40, HEADER = 64, ENTRY = 32 };

static void fill_in(uint8_t *file, size_t bytes)
{
    const uint64_t size = bytes, entries = (bytes - HEADER) / ENTRY;
    uint64_t count;
    file[0] = 'M';
    memcpy(&count, file + COUNT, sizeof count);
    if (count > entries) count = entries;
    memcpy(file + COUNT, &count, sizeof count);
    memcpy(file + SIZE, &size, sizeof size);
    const mq_digest digest = mq__digest(file + HEADER, (size_t)count * ENTRY);
    memcpy(file + TABLE_DIGEST, digest.bytes, sizeof digest.bytes);
}

/* Every byte of every section can be read. */
static bool sections_are_intact(const mq_packfile *file)
{
    bool intact = true;
    for (size_t i = 0; i < file->sections; i++) {
        size_t bytes;
        const uint8_t *const data = mq__packfile_section(file, i, &bytes);
        FUZZ_CHECK(data >= file->map.data && bytes <= file->map.bytes);
        FUZZ_CHECK((size_t)(data - file->map.data) <= file->map.bytes - bytes);
        intact = mq__packfile_section_is_intact(file, i) && intact;
    }
    return intact;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part whole;
    fuzz_cut(data, bytes, &whole, 1);
    uint8_t *const file = (uint8_t *)whole.data;
    mq_digest fingerprint = {{0}};
    if (bytes >= HEADER) {
        if (file[0] == 'F') fill_in(file, bytes);
        memcpy(fingerprint.bytes, file + FINGERPRINT, sizeof fingerprint.bytes);
    }
    fuzz_write("pack", file, bytes);
    mq_packfile pack;
    mq_error error = {0};
    fuzz_accepted = fuzz_passed(mq__packfile_open(fuzz_path("pack"), fingerprint, &pack, &error), &error);
    if (fuzz_accepted) {
        fuzz_accepted = sections_are_intact(&pack);
        mq__packfile_close(&pack);
    }
    fuzz_remove("pack");
    fuzz_free(&whole, 1);
    return 0;
}
