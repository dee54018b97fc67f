/* Files: whole reads with a bound, read-only maps, and writes that either finish or leave nothing behind. */
#ifndef MQ_BASE_FILE_H
#define MQ_BASE_FILE_H

#include "base/temporary.h"

#include <stdio.h>
#include <sys/stat.h>

/* Opens a regular file to read it; another kind, such as a FIFO, is refused at once. *fd is -1 then. */
mq_status mq__file_open(const char *path, int *fd, struct stat *info, mq_error *error);

/* Reads a regular file of at most max_bytes into *data (owned, NUL-terminated, free with mq__free). */
mq_status mq__file_read(const char *path, size_t max_bytes, char **data, size_t *bytes, mq_error *error);

/* False only when nothing has this name. A link to nowhere, a directory, a file without permission are there: whoever goes
 * on to read one gets the error that says so, and nobody takes it for a file that was left out. */
bool mq__file_exists(const char *path);

/* A read-only map of a whole regular file. */
typedef struct mq_map {
    const uint8_t *data; /* NULL when bytes == 0 */
    size_t bytes;
    int64_t mtime_ns;
    uint64_t inode;
} mq_map;

mq_status mq__map_open(const char *path, mq_map *map, mq_error *error);
void mq__map_close(mq_map *map);

/* Atomic write: bytes go to a temporary file, commit flushes, fsyncs and renames; abort removes it. */
typedef struct mq_writer {
    FILE *file;
    char *path;
    mq_temporary temporary;
    uint64_t bytes;
} mq_writer;

mq_status mq__writer_open(mq_writer *writer, const char *path, mq_error *error);
mq_status mq__writer_put(mq_writer *writer, const void *bytes, size_t count, mq_error *error);
mq_status mq__writer_commit(mq_writer *writer, mq_error *error); /* closes the writer in any case */
void mq__writer_abort(mq_writer *writer);                        /* no-op after commit or on a zeroed writer */

mq_status mq__make_dirs(const char *path, mq_error *error); /* mkdir -p, mode 0755 */

/* "<a>/<b>", owned, NULL when memory is short. */
char *mq__path_join(const char *a, const char *b);

#endif
