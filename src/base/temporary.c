#include "base/temporary.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
static bool is_still_there(int fd, const char *path)
{
    struct stat held, named;
    return fstat(fd, &held) == 0 && lstat(path, &named) == 0 && held.st_dev == named.st_dev &&
           held.st_ino == named.st_ino;
}

/* Removes a file, or a directory with its files. */
static void remove_flat(const char *path)
{
    if (unlink(path) == 0 || (errno != EISDIR && errno != EPERM)) return;
    DIR *dir = opendir(path);
    if (!dir) return;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) (void)unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
    (void)rmdir(path);
}

static void remove_abandoned(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0) return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still_there(fd, path)) remove_flat(path);
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
        char *path = mq__path_join(dir, e->d_name);
        if (path) remove_abandoned(path);
        mq__free(path);
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
    while (flock(t->lock, LOCK_EX) != 0 && errno == EINTR) {
    }
    if (is_still_there(t->lock, t->path)) return true;
    close(t->lock);
    errno = EEXIST;
    return false;
}

static void sweep_for(const char *path)
{
    const size_t at = name_offset(path);
    char *dir = at ? mq__strndup(path, at) : mq__strdup(".");
    if (dir) sweep(dir, path + at);
    mq__free(dir);
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
        remove_flat(t->path);
    }
    end_temporary(t);
    return status;
}

void mq__temporary_remove(mq_temporary *t)
{
    if (t->path) remove_flat(t->path);
    end_temporary(t);
}
