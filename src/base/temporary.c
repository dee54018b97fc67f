#include "base/temporary.h"

#include "base/error.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define MARK     ".tmp."
#define DIGITS   16
#define ATTEMPTS 100

/* Where the path's last name begins. */
static size_t name_offset(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

static bool is_temporary_name(const char *name)
{
    const size_t tail = strlen(MARK) + DIGITS, length = strlen(name);
    if (length <= tail) return false;
    const char *end = name + length - tail;
    return strncmp(end, MARK, strlen(MARK)) == 0 && strspn(end + strlen(MARK), "0123456789abcdef") == DIGITS;
}

/* The name still leads to what the descriptor holds. */
static bool is_still_there(int fd, int dir, const char *name)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && fstatat(dir, name, &named, AT_SYMLINK_NOFOLLOW) == 0 &&
           held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

/* Removes a file, or a directory with its files. */
static void remove_flat(int dir, const char *name)
{
    if (unlinkat(dir, name, 0) == 0 || (errno != EISDIR && errno != EPERM)) return;
    const int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
    if (!entries) {
        if (fd >= 0) close(fd);
        return;
    }
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) (void)unlinkat(fd, e->d_name, 0);
    }
    closedir(entries);
    (void)unlinkat(dir, name, AT_REMOVEDIR);
}

static void remove_abandoned(int dir, const char *name)
{
    const int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still_there(fd, dir, name)) remove_flat(dir, name);
    close(fd);
}

/* Removes the abandoned temporaries of `dir` that belong to `owner` (NULL: to anybody). */
static void sweep(const char *dir, const char *owner)
{
    const size_t length = owner ? strlen(owner) : 0;
    DIR *entries = opendir(dir);
    if (!entries) return;
    for (const struct dirent *e = readdir(entries); e; e = readdir(entries)) {
        if (!is_temporary_name(e->d_name)) continue;
        if (owner && (strlen(e->d_name) != length + strlen(MARK) + DIGITS || strncmp(e->d_name, owner, length) != 0)) {
            continue;
        }
        remove_abandoned(dirfd(entries), e->d_name);
    }
    closedir(entries);
}

void mq__temporary_sweep(const char *dir)
{
    sweep(dir, NULL);
}

static bool random_suffix(char suffix[64])
{
    uint64_t number;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number) return false;
    snprintf(suffix, 64, MARK "%016llx", (unsigned long long)number);
    return true;
}

/* Creates and locks what t->path names. Between the two, a sweep may take it for abandoned: then EEXIST asks for another
 * name. A file system without locks leaves it unlocked, for others as well: nobody can take it for abandoned there. */
static bool create_locked(mq_temporary *t, bool is_directory)
{
    if (is_directory && mkdir(t->path, 0755) != 0) return false;
    t->lock = is_directory ? open(t->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                           : open(t->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (t->lock < 0) {
        if (is_directory && errno == ENOENT) errno = EEXIST;
        return false;
    }
    while (flock(t->lock, LOCK_EX) != 0 && errno == EINTR) {}
    if (is_still_there(t->lock, AT_FDCWD, t->path)) return true;
    close(t->lock);
    errno = EEXIST;
    return false;
}

static void sweep_for(const char *path)
{
    char dir[PATH_MAX] = ".";
    const size_t at = name_offset(path);
    if (at >= sizeof dir) return;
    if (at) {
        memcpy(dir, path, at);
        dir[at] = '\0';
    }
    sweep(dir, path + at);
}

mq_status mq__temporary_new(const char *path, bool is_directory, mq_temporary *t, mq_error *error)
{
    char suffix[64];
    *t = (mq_temporary){.lock = -1};
    sweep_for(path);
    char *name = mq__alloc(strlen(path) + sizeof suffix);
    if (!name) return mq__fail(error, MQ_NO_MEMORY, "write: %s: expected memory for its name, got none", path);
    for (int i = 0; i < ATTEMPTS; i++) {
        if (!random_suffix(suffix)) break;
        strcpy(name, path);
        strcat(name, suffix);
        t->path = name;
        if (create_locked(t, is_directory)) return MQ_OK;
        if (errno != EEXIST) break;
    }
    const int why = errno;
    *t = (mq_temporary){.lock = -1};
    mq__free(name);
    return mq__fail(error, MQ_WRITE, "write: %s: expected to create it, got %s", path, strerror(why));
}

static void end_temporary(mq_temporary *t)
{
    if (t->path) close(t->lock);
    mq__free(t->path);
    *t = (mq_temporary){.lock = -1};
}

mq_status mq__temporary_rename(mq_temporary *t, const char *path, mq_error *error)
{
    mq_status status = MQ_OK;
    if (rename(t->path, path) != 0) {
        status =
            mq__fail(error, MQ_WRITE, "write: %s: expected to rename it into place, got %s", path, strerror(errno));
        remove_flat(AT_FDCWD, t->path);
    }
    end_temporary(t);
    return status;
}

void mq__temporary_remove(mq_temporary *t)
{
    if (t->path) remove_flat(AT_FDCWD, t->path);
    end_temporary(t);
}
