#include "base/file.h"

#include "base/error.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

mq_status mq__file_open(const char *path, int *fd, struct stat *info, mq_error *error)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the open */
    if (*fd < 0) return mq__fail(error, MQ_IO, "file: %s: expected a readable file, got %s", path, strerror(errno));
    if (fstat(*fd, info) != 0 || !S_ISREG(info->st_mode)) {
        close(*fd);
        *fd = -1;
        return mq__fail(error, MQ_IO, "file: %s: expected a regular file, got something else", path);
    }
    return MQ_OK;
}

mq_status mq__file_read(const char *path, size_t max_bytes, char **data, size_t *bytes, mq_error *error)
{
    int fd;
    struct stat info;
    *data = NULL;
    *bytes = 0;
    mq_status status = mq__file_open(path, &fd, &info, error);
    if (status != MQ_OK) return status;
    const size_t size = (size_t)info.st_size;
    char *block = NULL;
    if ((uint64_t)info.st_size > max_bytes) {
        status = mq__fail(error, MQ_LIMIT, "file: %s: expected at most %zu bytes, got %zu", path, max_bytes, size);
        goto out;
    }
    block = mq__alloc(size + 1);
    if (!block) {
        status = mq__fail(error, MQ_NO_MEMORY, "file: %s: expected %zu bytes of memory, got none", path, size);
        goto out;
    }
    size_t done = 0;
    while (done < size) {
        const ssize_t n = read(fd, block + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            status = mq__fail(error, MQ_IO, "file: %s: expected %zu bytes, got %zu", path, size, done);
            goto out;
        }
        done += (size_t)n;
    }
    block[size] = '\0';
    *data = block;
    *bytes = size;
    block = NULL;
out:
    mq__free(block);
    close(fd);
    return status;
}

bool mq__file_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

mq_status mq__map_open(const char *path, mq_map *map, mq_error *error)
{
    int fd;
    struct stat info;
    *map = (mq_map){0};
    const mq_status status = mq__file_open(path, &fd, &info, error);
    if (status != MQ_OK) return status;
    map->bytes = (size_t)info.st_size;
    map->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    map->inode = (uint64_t)info.st_ino;
    if (map->bytes) {
        void *data = mmap(NULL, map->bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            const int why = errno;
            close(fd);
            *map = (mq_map){0};
            return mq__fail(error, MQ_IO, "file: %s: expected to map it, got %s", path, strerror(why));
        }
        map->data = data;
    }
    close(fd);
    return MQ_OK;
}

void mq__map_close(mq_map *map)
{
    if (map->data) munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (mq_map){0};
}

char *mq__path_join(const char *a, const char *b)
{
    const size_t m = strlen(a), n = strlen(b);
    char *path = mq__alloc(m + n + 2);
    if (!path) return NULL;
    memcpy(path, a, m);
    size_t used = m;
    if (m == 0 || a[m - 1] != '/') path[used++] = '/';
    memcpy(path + used, b, n + 1);
    return path;
}

mq_status mq__writer_open(mq_writer *writer, const char *path, mq_error *error)
{
    *writer = (mq_writer){.path = mq__strdup(path)};
    if (!writer->path) return mq__fail(error, MQ_NO_MEMORY, "write: %s: expected memory for its name, got none", path);
    mq_status status = mq__temporary_new(path, false, &writer->temporary, error);
    if (status == MQ_OK) {
        /* A descriptor of its own: the lock lasts until the file has its name. */
        const int fd = fcntl(writer->temporary.lock, F_DUPFD_CLOEXEC, 0);
        writer->file = fd >= 0 ? fdopen(fd, "wb") : NULL;
        if (!writer->file) {
            status = mq__fail(error, MQ_WRITE, "write: %s: expected to create it, got %s", path, strerror(errno));
            if (fd >= 0) close(fd);
        }
    }
    if (status != MQ_OK) mq__writer_abort(writer);
    return status;
}

mq_status mq__writer_put(mq_writer *writer, const void *bytes, size_t count, mq_error *error)
{
    errno = 0;
    if (count && fwrite(bytes, 1, count, writer->file) != count) {
        return mq__fail(error, MQ_WRITE, "write: %s: expected to write %zu bytes, got %s", writer->path, count,
                        strerror(errno));
    }
    writer->bytes += count;
    return MQ_OK;
}

mq_status mq__writer_commit(mq_writer *writer, mq_error *error)
{
    mq_status status = MQ_OK;
    errno = 0;
    const bool flushed = fflush(writer->file) == 0 && fsync(fileno(writer->file)) == 0;
    int why = errno;
    const bool closed = fclose(writer->file) == 0;
    if (flushed && !closed) why = errno;
    writer->file = NULL;
    if (!flushed || !closed) {
        status = mq__fail(error, MQ_WRITE, "write: %s: expected to finish it, got %s", writer->path, strerror(why));
    } else {
        status = mq__temporary_rename(&writer->temporary, writer->path, error);
    }
    mq__writer_abort(writer);
    return status;
}

void mq__writer_abort(mq_writer *writer)
{
    if (writer->file) fclose(writer->file);
    mq__temporary_remove(&writer->temporary);
    mq__free(writer->path);
    *writer = (mq_writer){0};
}

mq_status mq__make_dirs(const char *path, mq_error *error)
{
    char *copy = mq__strdup(path);
    if (!copy) return mq__fail(error, MQ_NO_MEMORY, "mkdir: %s: expected memory, got none", path);
    mq_status status = MQ_OK;
    for (char *p = copy + 1; status == MQ_OK; p++) {
        const char end = *p;
        if (end != '/' && end != '\0') continue;
        *p = '\0';
        if (mkdir(copy, 0755) != 0 && errno != EEXIST) {
            status = mq__fail(error, MQ_WRITE, "mkdir: %s: expected to create it, got %s", copy, strerror(errno));
        }
        *p = end;
        if (end == '\0') break;
    }
    struct stat info;
    if (status == MQ_OK && (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))) {
        status = mq__fail(error, MQ_WRITE, "mkdir: %s: expected a directory, got something else", path);
    }
    mq__free(copy);
    return status;
}
