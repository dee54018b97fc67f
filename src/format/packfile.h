/* The file that keeps packed weights between runs: sections of bytes, each with a checksum, under a fingerprint of what
 * they were made from. A file that is damaged, truncated, of another version or of another fingerprint is refused; the
 * caller then makes the sections anew. Little-endian layout:
 *
 *     offset 0   "MQPACK01"                    the version is part of the magic
 *            8   u8[16]  fingerprint
 *           24   u64     sections
 *           32   u64     file size
 *           40   u8[16]  XXH3-128 of the section table
 *           56   u8[8]   zero
 *           64   table: per section u64 offset, u64 bytes, u8[16] XXH3-128 of its bytes
 *                sections, each at a multiple of 4096 */
#ifndef MQ_PACKFILE_H
#define MQ_PACKFILE_H

#include "base/file.h"

typedef struct mq_digest {
    uint8_t bytes[16];
} mq_digest;

mq_digest mq__digest(const void *bytes, size_t count); /* XXH3-128, canonical byte order */

typedef struct mq_packfile {
    mq_map map;
    size_t sections;
} mq_packfile;

/* Checks everything but the sections' bytes. */
mq_status mq__packfile_open(const char *path, mq_digest fingerprint, mq_packfile *file, mq_error *error);
void mq__packfile_close(mq_packfile *file);
const uint8_t *mq__packfile_section(const mq_packfile *file, size_t section, size_t *bytes);
bool mq__packfile_section_is_intact(const mq_packfile *file, size_t section); /* reads it; may run in parallel */

typedef struct mq_pack_section {
    const uint8_t *data;
    size_t bytes;
} mq_pack_section;

/* Writes a file atomically. */
mq_status mq__packfile_write(const char *path, mq_digest fingerprint, const mq_pack_section *sections, size_t count,
                             mq_error *error);

#endif
