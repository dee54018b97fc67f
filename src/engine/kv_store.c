#include "engine/kv_store.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAITING_MAX ((size_t)64 << 20) /* bytes of images that wait to be written */
#define SUFFIX      ".mqkv"

typedef struct kv_image {
    struct kv_image *next;
    char *path;
    mq_buf bytes;
} kv_image;

struct mq_kv_store {
    mq_engine *engine;
    char *dir;
    uint64_t most; /* bytes */
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; /* what follows */
    pthread_cond_t some;
    kv_image *first, *last;
    size_t waiting; /* bytes */
    bool closing;

    uint64_t bytes; /* in the folder, as far as the writer knows: its own */
};

/* ---- names */

mq_status mq__kv_name_root(mq_engine *engine, const mq_plan *plan, uint64_t owner, mq_kv_name *name, mq_error *error)
{
    struct {
        mq_fingerprint print;
        uint64_t owner;
    } of = {.owner = owner};
    const mq_status status = mq__fingerprint_kept(engine, plan, &of.print, error);
    if (status == MQ_OK) name->digest = mq__digest(&of, sizeof of);
    return status;
}

void mq__kv_name_next(mq_kv_name *name, const int32_t *tokens)
{
    uint8_t text[sizeof name->digest + MQ_PAGE_TOKENS * sizeof *tokens];
    memcpy(text, &name->digest, sizeof name->digest);
    memcpy(text + sizeof name->digest, tokens, MQ_PAGE_TOKENS * sizeof *tokens);
    name->digest = mq__digest(text, sizeof text);
}

mq_kv_name mq__kv_span_name(const mq_kv_name *end, uint32_t blocks)
{
    uint8_t text[sizeof end->digest + sizeof blocks];
    memcpy(text, &end->digest, sizeof end->digest);
    memcpy(text + sizeof end->digest, &blocks, sizeof blocks);
    return (mq_kv_name){mq__digest(text, sizeof text)};
}

static char *image_path(const mq_kv_store *store, const mq_kv_name *name)
{
    mq_buf path = {0};
    mq__buf_printf(&path, "%s/", store->dir);
    for (size_t i = 0; i < sizeof name->digest.bytes; i++) {
        mq__buf_printf(&path, "%02x", name->digest.bytes[i]);
    }
    mq__buf_puts(&path, SUFFIX);
    return mq__buf_take(&path);
}

/* ---- keeping the folder within its bound, by the writer */

typedef struct image_file {
    char *name;
    int64_t used; /* nanoseconds since 1970: the file's mtime, which a read renews */
    uint64_t bytes;
} image_file;

static int compare_used(const void *a, const void *b)
{
    const image_file *x = a, *y = b;
    return (x->used > y->used) - (x->used < y->used);
}

static bool is_image(const char *name)
{
    const size_t length = strlen(name), suffix = strlen(SUFFIX);
    return length == 2 * sizeof(mq_digest) + suffix && strcmp(name + length - suffix, SUFFIX) == 0;
}

/* The folder's images; *files is owned, with its names. Returns their bytes. */
static uint64_t list_images(const char *dir, image_file **files, size_t *count)
{
    uint64_t bytes = 0;
    size_t room = 0;
    *files = NULL;
    *count = 0;
    DIR *folder = opendir(dir);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        struct stat facts;
        if (!is_image(entry->d_name) || fstatat(dirfd(folder), entry->d_name, &facts, AT_SYMLINK_NOFOLLOW) != 0)
            continue;
        bytes += (uint64_t)facts.st_size;
        if (*count == room) {
            room = room ? 2 * room : 256;
            image_file *more = mq__realloc(*files, room * sizeof **files);
            if (!more) break;
            *files = more;
        }
        char *name = mq__strdup(entry->d_name);
        if (!name) break;
        (*files)[(*count)++] = (image_file){name, (int64_t)facts.st_mtim.tv_sec * 1000000000 + facts.st_mtim.tv_nsec,
                                            (uint64_t)facts.st_size};
    }
    if (folder) closedir(folder);
    return bytes;
}

static void trim_folder(mq_kv_store *store)
{
    image_file *files;
    size_t count;
    store->bytes = list_images(store->dir, &files, &count);
    if (count) qsort(files, count, sizeof *files, compare_used);
    for (size_t i = 0; i < count; i++) {
        char *path = store->bytes > store->most - store->most / 8 ? mq__path_join(store->dir, files[i].name) : NULL;
        if (path && unlink(path) == 0) store->bytes -= files[i].bytes;
        mq__free(path);
        mq__free(files[i].name);
    }
    mq__free(files);
}

/* ---- writing */

/* A file that cannot be written (a full disk) is a prefix that will be computed again, no more. */
static void write_image(mq_kv_store *store, const kv_image *image)
{
    mq_writer writer = {0};
    mq_status status = mq__writer_open(&writer, image->path, NULL);
    if (status == MQ_OK) status = mq__writer_put(&writer, image->bytes.data, image->bytes.len, NULL);
    if (status == MQ_OK) status = mq__writer_commit(&writer, NULL);
    mq__writer_abort(&writer);
    if (status == MQ_OK) store->bytes += image->bytes.len;
    if (store->bytes > store->most) trim_folder(store);
}

static void free_image(kv_image *image)
{
    mq__free(image->path);
    mq__buf_free(&image->bytes);
    mq__free(image);
}

static void *write_images(void *context)
{
    mq_kv_store *store = context;
    trim_folder(store);
    pthread_mutex_lock(&store->lock);
    for (;;) {
        while (!store->first && !store->closing) {
            pthread_cond_wait(&store->some, &store->lock);
        }
        kv_image *image = store->first;
        if (!image) break;
        store->first = image->next;
        if (!store->first) store->last = NULL;
        pthread_mutex_unlock(&store->lock);
        write_image(store, image);
        pthread_mutex_lock(&store->lock);
        store->waiting -= image->bytes.len;
        free_image(image);
    }
    pthread_mutex_unlock(&store->lock);
    return NULL;
}

static void queue_image(mq_kv_store *store, kv_image *image)
{
    pthread_mutex_lock(&store->lock);
    if (store->last)
        store->last->next = image;
    else
        store->first = image;
    store->last = image;
    store->waiting += image->bytes.len;
    pthread_cond_signal(&store->some);
    pthread_mutex_unlock(&store->lock);
}

static bool append_image(void *context, const void *bytes, size_t count)
{
    return mq__buf_append(context, bytes, count);
}

bool mq__kv_store_has(mq_kv_store *store, const mq_kv_name *name)
{
    char *path = image_path(store, name);
    struct stat info;
    const bool there = path && stat(path, &info) == 0 && S_ISREG(info.st_mode);
    mq__free(path);
    return there;
}

mq_kv_put mq__kv_store_put(mq_kv_store *store, mq_sequence *sequence, uint32_t first, uint32_t end,
                           const mq_kv_name *name)
{
    pthread_mutex_lock(&store->lock);
    const bool full = store->waiting > WAITING_MAX;
    pthread_mutex_unlock(&store->lock);
    if (full) return MQ_KV_LATER;
    if (mq__kv_store_has(store, name)) return MQ_KV_TAKEN;
    kv_image *image = mq__alloc_zero(1, sizeof *image);
    if (!image) return MQ_KV_NEVER;
    image->path = image_path(store, name);
    const bool done =
        image->path && mq_sequence_export(sequence, first * MQ_PAGE_TOKENS, (end - first) * MQ_PAGE_TOKENS,
                                          append_image, &image->bytes, NULL) == MQ_OK;
    if (done)
        queue_image(store, image);
    else
        free_image(image);
    return done ? MQ_KV_TAKEN : MQ_KV_NEVER;
}

/* ---- reading */

static bool read_image(void *context, void *bytes, size_t count)
{
    return fread(bytes, 1, count, context) == count;
}

bool mq__kv_store_get(mq_kv_store *store, mq_sequence *sequence, uint32_t blocks, const mq_kv_name *name)
{
    char *path = image_path(store, name);
    struct stat info;
    int fd = -1;
    FILE *file = path && mq__file_open(path, &fd, &info, NULL) == MQ_OK ? fdopen(fd, "rb") : NULL;
    mq_status status = MQ_IO;
    const uint32_t before = sequence->count, after = before + blocks * MQ_PAGE_TOKENS;
    if (file) {
        status = mq_sequence_import(sequence, read_image, file, NULL);
        fclose(file);
        if (status == MQ_OK)
            (void)utimensat(AT_FDCWD, path, NULL, 0);
        else if (status != MQ_NO_MEMORY && status != MQ_LIMIT)
            (void)unlink(path);
    }
    if (!file && fd >= 0) close(fd);
    mq__free(path);
    if (status == MQ_OK && sequence->count != after) (void)mq_sequence_truncate(sequence, before);
    return sequence->count == after;
}

/* ---- life */

mq_status mq__kv_store_open(mq_engine *engine, const char *dir, uint64_t bytes, mq_kv_store **out, mq_error *error)
{
    *out = NULL;
    const mq_status status = mq__make_dirs(dir, error);
    if (status != MQ_OK) return status;
    (void)chmod(dir, 0700); /* KV says what was asked */
    mq_kv_store *store = mq__alloc_zero(1, sizeof *store);
    if (!store) return mq__fail(error, MQ_NO_MEMORY, "KV folder: %s: expected memory, got none", dir);
    pthread_mutex_init(&store->lock, NULL);
    pthread_cond_init(&store->some, NULL);
    store->engine = engine;
    store->most = bytes;
    store->dir = mq__strdup(dir);
    mq__temporary_sweep(dir);
    if (store->dir && pthread_create(&store->thread, NULL, write_images, store) == 0) {
        store->started = true;
        *out = store;
        return MQ_OK;
    }
    mq__kv_store_close(store);
    return mq__fail(error, MQ_NO_MEMORY, "KV folder: %s: expected memory and a thread, got none", dir);
}

void mq__kv_store_close(mq_kv_store *store)
{
    if (!store) return;
    pthread_mutex_lock(&store->lock);
    store->closing = true;
    pthread_cond_signal(&store->some);
    pthread_mutex_unlock(&store->lock);
    if (store->started) pthread_join(store->thread, NULL);
    pthread_mutex_destroy(&store->lock);
    pthread_cond_destroy(&store->some);
    mq__free(store->dir);
    mq__free(store);
}
