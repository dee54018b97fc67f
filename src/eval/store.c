#include "eval/store.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/run_header.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static mq_status keep_store(mq_eval_store *store, json_t *record, mq_error *error)
{
    const char *plan = json_string_value(json_object_get(record, "plan"));
    const char *id = json_string_value(json_object_get(record, "id"));
    if (!plan || !id) {
        return mq__fail(error, MQ_FORMAT, "eval: %s: expected records with \"plan\" and \"id\", got another line",
                        store->path ? store->path : "record");
    }
    json_t *of_plan = json_object_get(store->records, plan);
    if (!of_plan && json_object_set_new(store->records, plan, json_object()) == 0) {
        of_plan = json_object_get(store->records, plan);
    }
    if (!of_plan || json_object_set(of_plan, id, record) != 0) {
        return mq__fail(error, MQ_NO_MEMORY, "eval: records: expected memory, got none");
    }
    return MQ_OK;
}

/* Cuts a half line off, so that what is appended starts a line. */
static mq_status cut_half_line(const char *path, mq_error *error)
{
    mq_map map;
    mq_status status = mq__map_open(path, &map, error);
    if (status != MQ_OK) return status;
    size_t whole = map.bytes;
    while (whole > 0 && map.data[whole - 1] != '\n') {
        whole--;
    }
    const bool cut = whole < map.bytes;
    mq__map_close(&map);
    if (cut && truncate(path, (off_t)whole) != 0) {
        return mq__fail(error, MQ_WRITE, "eval: %s: expected to cut its half line, got %s", path, strerror(errno));
    }
    return MQ_OK;
}

/* The plans of earlier runs stay in the header: their records do as well. */
static mq_status join_plans(mq_eval_store *store, const json_t *was, mq_error *error)
{
    json_t *plans = json_object(), *old = json_object_get(was, "plans"), *header = json_copy(store->header);
    const bool made = plans && header && (!old || json_object_update(plans, old) == 0) &&
                      json_object_update(plans, json_object_get(store->header, "plans")) == 0 &&
                      json_object_set(header, "plans", plans) == 0;
    json_decref(plans);
    if (!made) {
        json_decref(header);
        return mq__fail(error, MQ_NO_MEMORY, "eval: header: expected memory, got none");
    }
    json_decref(store->header);
    store->header = header;
    store->renew = !json_equal(was, header);
    return MQ_OK;
}

static mq_status read_back(mq_eval_store *store, mq_error *error)
{
    json_t *lines = NULL, *line;
    size_t i;
    mq_status status = mq__eval_read_lines(store->path, true, &lines, error);
    const json_t *was = json_array_get(lines, 0);
    store->begun = was != NULL;
    if (was) status = mq__eval_header_check(was, store->header, store->path, error);
    if (status == MQ_OK && json_object_get(was, "plans")) status = join_plans(store, was, error);
    json_array_foreach(lines, i, line)
    {
        if (status == MQ_OK && i > 0) status = keep_store(store, line, error);
    }
    if (status == MQ_OK) status = cut_half_line(store->path, error);
    json_decref(lines);
    return status;
}

static mq_status write_line(mq_eval_store *store, const json_t *value, mq_error *error)
{
    if (!store->file) return MQ_OK;
    char *text = json_dumps(value, JSON_COMPACT);
    if (!text) return mq__fail(error, MQ_NO_MEMORY, "eval: record: expected memory, got none");
    const bool written = fprintf(store->file, "%s\n", text) >= 0 && fflush(store->file) == 0;
    free(text);
    if (written) return MQ_OK;
    return mq__fail(error, MQ_WRITE, "eval: %s: expected to write a record, got %s", store->path, strerror(errno));
}

static mq_status cannot_write(const char *path, mq_error *error)
{
    return mq__fail(error, MQ_WRITE, "eval: %s: expected to write it, got %s", path, strerror(errno));
}

/* Whether `path` can be made later: the nearest folder above it that exists takes new entries. */
static mq_status check_place(const char *path, mq_error *error)
{
    char *folder = mq__strdup(path);
    if (!folder) return mq__fail(error, MQ_NO_MEMORY, "eval: records: expected memory, got none");
    char *slash;
    do {
        slash = strrchr(folder, '/');
        if (slash) slash[slash == folder] = '\0';
    } while (slash && folder[1] && !mq__file_exists(folder));
    struct stat what;
    const char *at = slash ? folder : ".";
    if (stat(at, &what) == 0 && !S_ISDIR(what.st_mode))
        errno = ENOTDIR;
    else if (access(at, W_OK | X_OK) == 0)
        at = NULL;
    const mq_status status = at ? cannot_write(path, error) : MQ_OK;
    mq__free(folder);
    return status;
}

static mq_status make_folder(const char *path, mq_error *error)
{
    char *folder = mq__strdup(path);
    if (!folder) return mq__fail(error, MQ_NO_MEMORY, "eval: records: expected memory, got none");
    char *slash = strrchr(folder, '/');
    if (slash) *slash = '\0';
    const mq_status status = slash && folder[0] ? mq__make_dirs(folder, error) : MQ_OK;
    mq__free(folder);
    return status;
}

/* The same file with the header that it has now. A run that is killed here leaves the old one. */
static mq_status renew_header(const mq_eval_store *store, mq_error *error)
{
    mq_map map = {0};
    mq_writer writer = {0};
    mq_status status = mq__map_open(store->path, &map, error);
    if (status != MQ_OK) return status;
    const uint8_t *end = memchr(map.data, '\n', map.bytes);
    const size_t skip = end ? (size_t)(end - map.data) : map.bytes;
    char *text = json_dumps(store->header, JSON_COMPACT);
    if (!text) status = mq__fail(error, MQ_NO_MEMORY, "eval: header: expected memory, got none");
    if (status == MQ_OK) status = mq__writer_open(&writer, store->path, error);
    if (status == MQ_OK) status = mq__writer_put(&writer, text, strlen(text), error);
    if (status == MQ_OK) status = mq__writer_put(&writer, map.data + skip, map.bytes - skip, error);
    if (status == MQ_OK) status = mq__writer_commit(&writer, error);
    mq__writer_abort(&writer);
    free(text);
    mq__map_close(&map);
    return status;
}

/* Before the first record: the folder, the file, its header. */
static mq_status begin_file(mq_eval_store *store, mq_error *error)
{
    mq_status status = store->renew ? renew_header(store, error) : MQ_OK;
    if (status == MQ_OK && !store->begun) status = make_folder(store->path, error);
    if (status != MQ_OK) return status;
    store->file = fopen(store->path, "ae");
    if (!store->file) return cannot_write(store->path, error);
    return store->begun ? MQ_OK : write_line(store, store->header, error);
}

mq_status mq__eval_store_open(mq_eval_store *store, const char *path, json_t *header, mq_error *error)
{
    *store = (mq_eval_store){
        .records = json_object(), .header = json_incref(header), .path = path ? mq__strdup(path) : NULL};
    mq_status status = MQ_OK;
    if (!store->records || (path && !store->path)) {
        status = mq__fail(error, MQ_NO_MEMORY, "eval: records: expected memory, got none");
    }
    const bool there = path && mq__file_exists(path);
    if (status == MQ_OK && there) status = read_back(store, error);
    if (status == MQ_OK && there && access(path, W_OK) != 0) status = cannot_write(path, error);
    if (status == MQ_OK && path && !there) status = check_place(path, error);
    if (status != MQ_OK) mq__eval_store_close(store);
    return status;
}

void mq__eval_store_close(mq_eval_store *store)
{
    if (store->file) (void)fclose(store->file); /* every line was flushed and checked */
    mq__free(store->path);
    json_decref(store->header);
    json_decref(store->records);
    *store = (mq_eval_store){0};
}

const json_t *mq__eval_store_get(const mq_eval_store *store, const char *plan, const char *id)
{
    return json_object_get(json_object_get(store->records, plan), id);
}

mq_status mq__eval_store_add(mq_eval_store *store, json_t *record, mq_error *error)
{
    mq_status status = store->path && !store->file ? begin_file(store, error) : MQ_OK;
    if (status == MQ_OK) status = write_line(store, record, error);
    if (status == MQ_OK) status = keep_store(store, record, error);
    json_decref(record);
    return status;
}
