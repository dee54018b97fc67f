#include "format/packfile.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/little_endian.h"
#include "base/mem.h"

#include <string.h>
#include <xxhash.h>

#define MAGIC        "MQPACK01"
#define HEADER       ((size_t)64)
#define ENTRY        ((size_t)32)
#define ALIGN        ((size_t)4096)
#define SECTIONS_MAX ((uint64_t)1 << 20)

mq_digest mq__digest(const void *bytes, size_t count)
{
    mq_digest digest;
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, count));
    memcpy(digest.bytes, canonical.digest, sizeof digest.bytes);
    return digest;
}

static const uint8_t *entry_of(const mq_packfile *file, size_t section)
{
    return file->map.data + HEADER + section * ENTRY;
}

static bool same_packfile(const uint8_t *bytes, mq_digest digest)
{
    return memcmp(bytes, digest.bytes, sizeof digest.bytes) == 0;
}

static const char *what_is_wrong(const mq_packfile *file, mq_digest fingerprint)
{
    const mq_map *map = &file->map;
    if (map->bytes < HEADER || memcmp(map->data, MAGIC, 8) != 0) return "another kind or version of file";
    if (!same_packfile(map->data + 8, fingerprint)) return "weights of another model or recipe";
    const uint64_t sections = mq__get_u64(map->data + 24);
    if (sections > SECTIONS_MAX || HEADER + sections * ENTRY > map->bytes) return "a truncated table";
    if (mq__get_u64(map->data + 32) != map->bytes) return "a truncated file";
    if (!same_packfile(map->data + 40, mq__digest(map->data + HEADER, (size_t)sections * ENTRY)))
        return "a damaged table";
    for (size_t i = 0; i < sections; i++) {
        uint64_t end;
        const uint64_t offset = mq__get_u64(entry_of(file, i));
        if (!mq__add_u64(offset, mq__get_u64(entry_of(file, i) + 8), &end) || end > map->bytes || offset % ALIGN != 0) {
            return "a section outside the file";
        }
    }
    return NULL;
}

mq_status mq__packfile_open(const char *path, mq_digest fingerprint, mq_packfile *file, mq_error *error)
{
    *file = (mq_packfile){0};
    const mq_status status = mq__map_open(path, &file->map, error);
    if (status != MQ_OK) return status;
    const char *wrong = what_is_wrong(file, fingerprint);
    if (wrong) {
        mq__packfile_close(file);
        return mq__fail(error, MQ_FORMAT, "cache: %s: expected packed weights of this model, got %s", path, wrong);
    }
    file->sections = (size_t)mq__get_u64(file->map.data + 24);
    return MQ_OK;
}

void mq__packfile_close(mq_packfile *file)
{
    mq__map_close(&file->map);
    file->sections = 0;
}

const uint8_t *mq__packfile_section(const mq_packfile *file, size_t section, size_t *bytes)
{
    const uint8_t *entry = entry_of(file, section);
    *bytes = (size_t)mq__get_u64(entry + 8);
    return file->map.data + mq__get_u64(entry);
}

bool mq__packfile_section_is_intact(const mq_packfile *file, size_t section)
{
    size_t bytes;
    const uint8_t *data = mq__packfile_section(file, section, &bytes);
    return same_packfile(entry_of(file, section) + 16, mq__digest(data, bytes));
}

static mq_status write_sections(mq_writer *writer, const mq_pack_section *sections, size_t count, mq_error *error)
{
    static const uint8_t zeros[ALIGN];
    mq_status status = MQ_OK;
    for (size_t i = 0; status == MQ_OK && i < count; i++) {
        const size_t gap = (size_t)(mq__round_up((size_t)writer->bytes, ALIGN) - writer->bytes);
        status = mq__writer_put(writer, zeros, gap, error);
        if (status == MQ_OK) status = mq__writer_put(writer, sections[i].data, sections[i].bytes, error);
    }
    return status;
}

mq_status mq__packfile_write(const char *path, mq_digest fingerprint, const mq_pack_section *sections, size_t count,
                             mq_error *error)
{
    const size_t table_bytes = count * ENTRY;
    uint8_t *head = count <= SECTIONS_MAX ? mq__alloc_zero(1, HEADER + table_bytes) : NULL;
    if (!head) return mq__fail(error, MQ_NO_MEMORY, "cache: %s: expected memory for its table, got none", path);
    size_t at = HEADER + table_bytes;
    for (size_t i = 0; i < count; i++) {
        uint8_t *entry = head + HEADER + i * ENTRY;
        const mq_digest digest = mq__digest(sections[i].data, sections[i].bytes);
        at = mq__round_up(at, ALIGN);
        mq__put_u64(entry, at);
        mq__put_u64(entry + 8, sections[i].bytes);
        memcpy(entry + 16, digest.bytes, sizeof digest.bytes);
        at += sections[i].bytes;
    }
    const mq_digest table = mq__digest(head + HEADER, table_bytes);
    memcpy(head, MAGIC, 8);
    memcpy(head + 8, fingerprint.bytes, sizeof fingerprint.bytes);
    mq__put_u64(head + 24, count);
    mq__put_u64(head + 32, at);
    memcpy(head + 40, table.bytes, sizeof table.bytes);

    mq_writer writer;
    mq_status status = mq__writer_open(&writer, path, error);
    if (status == MQ_OK) {
        status = mq__writer_put(&writer, head, HEADER + table_bytes, error);
        if (status == MQ_OK) status = write_sections(&writer, sections, count, error);
        if (status == MQ_OK)
            status = mq__writer_commit(&writer, error);
        else
            mq__writer_abort(&writer);
    }
    mq__free(head);
    return status;
}
