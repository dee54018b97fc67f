#include "format/checkpoint_locate.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define WHOLE "config.json, tokenizer.json, model.safetensors"

static bool has_ending(const char *name, const char *ending)
{
    const size_t n = strlen(name), e = strlen(ending);
    return n >= e && strcmp(name + n - e, ending) == 0;
}

static bool is_directory(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* "<dir>/<name>" into path; an overlong one becomes empty, which no file is called. */
static void join(char path[PATH_MAX], const char *dir, const char *name)
{
    const size_t n = strlen(dir);
    if (snprintf(path, PATH_MAX, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name) >= PATH_MAX) path[0] = '\0';
}

/* The first bytes of a regular file, NUL-terminated; empty when it cannot be read. */
static void read_file_head(const char *path, char head[64])
{
    struct stat info;
    FILE *file = stat(path, &info) == 0 && S_ISREG(info.st_mode) ? fopen(path, "re") : NULL;
    const size_t count = file ? fread(head, 1, 63, file) : 0;
    head[count] = '\0';
    if (file) fclose(file);
}

static bool file_begins_with(const char *path, const char *bytes)
{
    char head[64];
    read_file_head(path, head);
    return strncmp(head, bytes, strlen(bytes)) == 0;
}

/* An entry of dir with this beginning and ending; false when there is none. */
static bool find_entry(const char *dir, const char *beginning, const char *ending, char name[NAME_MAX + 1])
{
    bool found = false;
    DIR *entries = opendir(dir);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e && !found; e = readdir(entries)) {
        found = strncmp(e->d_name, beginning, strlen(beginning)) == 0 && has_ending(e->d_name, ending);
        if (found) snprintf(name, NAME_MAX + 1, "%s", e->d_name);
    }
    if (entries) closedir(entries);
    return found;
}

/* Whether dir has an entry of this name, be it readable or not. */
static bool has_entry(const char *dir, const char *name)
{
    char path[PATH_MAX];
    join(path, dir, name);
    return mq__file_exists(path);
}

/* ---- the cache of downloads */

/* "<cache>/models--OWNER--NAME"; empty: nobody has a cache here. */
static void cache_folder(const char *owner_name, char folder[PATH_MAX])
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME");
    const char *base = getenv("HOME"), *below = "/.cache/huggingface/hub", *slash = strchr(owner_name, '/');
    if (xdg && xdg[0] == '/') {
        base = xdg;
        below = "/huggingface/hub";
    }
    if (home && home[0]) {
        base = home;
        below = "/hub";
    }
    if (hub && hub[0]) {
        base = hub;
        below = "";
    }
    folder[0] = '\0';
    if (!base || !base[0]) return;
    const int owner = (int)(slash - owner_name);
    if (snprintf(folder, PATH_MAX, "%s%s/models--%.*s--%s", base, below, owner, owner_name, slash + 1) >= PATH_MAX) {
        folder[0] = '\0';
    }
}

/* The snapshot that refs/main names. */
static bool main_snapshot(const char *folder, char snapshot[PATH_MAX])
{
    char path[PATH_MAX], commit[64];
    join(path, folder, "refs/main");
    read_file_head(path, commit);
    commit[strcspn(commit, " \r\n")] = '\0';
    if (!commit[0] || strchr(commit, '/') || commit[0] == '.') return false;
    join(path, folder, "snapshots");
    join(snapshot, path, commit);
    return is_directory(snapshot);
}

/* The snapshot of a download folder: the one that refs/main names, else the last that was written. */
static bool find_snapshot(const char *folder, char snapshot[PATH_MAX])
{
    char snapshots[PATH_MAX], path[PATH_MAX];
    struct timespec newest = {0};
    bool found = false;
    if (main_snapshot(folder, snapshot)) return true;
    join(snapshots, folder, "snapshots");
    DIR *entries = opendir(snapshots);
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct stat info;
        join(path, snapshots, e->d_name);
        if (e->d_name[0] == '.' || stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) continue;
        const bool later = info.st_mtim.tv_sec > newest.tv_sec ||
                           (info.st_mtim.tv_sec == newest.tv_sec && info.st_mtim.tv_nsec > newest.tv_nsec);
        if (found && !later) continue;
        strcpy(snapshot, path);
        newest = info.st_mtim;
        found = true;
    }
    if (entries) closedir(entries);
    return found;
}

/* OWNER/NAME in the letters that hubs allow; "./x", "../x" and "/x" are paths. */
static bool is_hub_name(const char *given)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    const size_t owner = strspn(given, allowed);
    if (owner == 0 || given[0] == '.' || given[owner] != '/') return false;
    const char *name = given + owner + 1;
    const size_t length = strspn(name, allowed);
    return length > 0 && name[0] != '.' && name[length] == '\0';
}

static mq_status locate_download(const char *given, char found[PATH_MAX], mq_error *error)
{
    char folder[PATH_MAX];
    cache_folder(given, folder);
    if (folder[0] && find_snapshot(folder, found)) return MQ_OK;
    return mq__fail(error, MQ_IO,
                    "model: %s: expected a directory, or a model that was downloaded, got nothing at this path and "
                    "nothing in %.160s: run `hf download %s` first, and give the same name",
                    given, folder[0] ? folder : "a cache (HOME is not set)", given);
}

/* ---- what else it may be */

static mq_status refuse_file(const char *path, mq_error *error)
{
    const char *slash = strrchr(path, '/');
    if (file_begins_with(path, "GGUF") || has_ending(path, ".gguf")) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "model: %s: expected a directory with " WHOLE
                        ", got a GGUF file: download the model that it was "
                        "made from (`hf download OWNER/NAME`) and give OWNER/NAME",
                        path);
    }
    if (has_ending(path, ".safetensors")) {
        return mq__fail(
            error, MQ_USAGE,
            "model: %s: expected the directory with config.json and the weights, got one of its files: give "
            "%.*s",
            path, slash ? (int)(slash - path) : 1, slash ? path : ".");
    }
    return mq__fail(error, MQ_USAGE, "model: %s: expected a directory with " WHOLE ", got a file", path);
}

/* Large files of a repository that was cloned without Git LFS hold three lines of text instead. */
static mq_status refuse_pointer(const char *dir, const char *name, mq_error *error)
{
    char path[PATH_MAX];
    join(path, dir, name);
    if (!file_begins_with(path, "version https://git-lfs")) return MQ_OK;
    return mq__fail(
        error, MQ_FORMAT,
        "model: %s: expected the file itself, got a pointer of Git LFS: run `git lfs pull` in its directory", path);
}

static mq_status refuse_pointers(const char *dir, mq_error *error)
{
    mq_status s = refuse_pointer(dir, "tokenizer.json", error);
    DIR *entries = s == MQ_OK ? opendir(dir) : NULL;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; s == MQ_OK && e; e = readdir(entries)) {
        if (has_ending(e->d_name, ".safetensors")) s = refuse_pointer(dir, e->d_name, error);
    }
    if (entries) closedir(entries);
    return s;
}

/* A directory without config.json. */
static mq_status refuse_directory(const char *dir, mq_error *error)
{
    char name[NAME_MAX + 1];
    if (find_entry(dir, "", ".gguf", name)) {
        return mq__fail(
            error, MQ_UNSUPPORTED,
            "model: %s: expected config.json and model.safetensors, got a GGUF file (%s): download the model "
            "that it was made from (`hf download OWNER/NAME`) and give OWNER/NAME",
            dir, name);
    }
    if (find_entry(dir, "adapter_config", ".json", name)) {
        return mq__fail(
            error, MQ_UNSUPPORTED,
            "model: %s: expected config.json and model.safetensors, got an adapter (LoRA): merge it into its "
            "base model and give the result",
            dir);
    }
    return mq__fail(error, MQ_IO,
                    "model: %s: expected a directory with " WHOLE ", got one without config.json: give the folder that "
                    "holds it, or run `hf download OWNER/NAME --local-dir %s`",
                    dir, dir);
}

/* A directory with config.json, but no weights in safetensors. */
static mq_status refuse_weights(const char *dir, mq_error *error)
{
    static const char *const others[] = {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".safetensors"};
    char other[NAME_MAX + 1];
    size_t i = 0;
    const size_t count = sizeof others / sizeof others[0];
    while (i < count && !find_entry(dir, "", others[i], other)) {
        i++;
    }
    if (i == count) {
        return mq__fail(error, MQ_IO,
                        "model: %s: expected model.safetensors or model.safetensors.index.json beside config.json, got "
                        "neither: download all files (`hf download OWNER/NAME --local-dir %s`)",
                        dir, dir);
    }
    if (has_ending(other, ".safetensors")) {
        return mq__fail(
            error, MQ_FORMAT,
            "model: %s: expected model.safetensors, or model.safetensors.index.json that lists the files, got "
            "only %s: rename the file, or download the index",
            dir, other);
    }
    return mq__fail(error, MQ_UNSUPPORTED,
                    "model: %s: expected weights in model.safetensors, got only %s: take a version of the model with "
                    "safetensors, or load it in transformers and save_pretrained(DIR, safe_serialization=True)",
                    dir, other);
}

static mq_status check_directory(const char *dir, bool needs_weights, mq_error *error)
{
    static const char *const texts[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    const mq_status s = needs_weights ? refuse_pointers(dir, error) : refuse_pointer(dir, "tokenizer.json", error);
    if (s != MQ_OK) return s;
    for (size_t i = 0; !needs_weights && i < sizeof texts / sizeof texts[0]; i++) {
        if (has_entry(dir, texts[i])) return MQ_OK;
    }
    if (!has_entry(dir, "config.json")) return refuse_directory(dir, error);
    if (has_entry(dir, "model.safetensors") || has_entry(dir, "model.safetensors.index.json")) return MQ_OK;
    return refuse_weights(dir, error);
}

static mq_status locate(const char *given, char found[PATH_MAX], mq_error *error)
{
    if (strlen(given) >= PATH_MAX) {
        return mq__fail(error, MQ_USAGE, "model: expected a path of at most %d bytes, got more", PATH_MAX - 1);
    }
    if (!mq__file_exists(given)) {
        if (is_hub_name(given)) return locate_download(given, found, error);
        return mq__fail(error, MQ_IO, "model: %s: expected a directory with " WHOLE ", got nothing at this path",
                        given);
    }
    if (!is_directory(given)) return refuse_file(given, error);
    /* The folder of a download itself: the checkpoint is in one of its snapshots. */
    const bool whole = has_entry(given, "config.json") || !has_entry(given, "snapshots");
    if (whole || !find_snapshot(given, found)) strcpy(found, given);
    return MQ_OK;
}

mq_status mq__checkpoint_locate(const char *given, bool needs_weights, char **dir, mq_error *error)
{
    char found[PATH_MAX];
    *dir = NULL;
    mq_status s = locate(given, found, error);
    if (s == MQ_OK) s = check_directory(found, needs_weights, error);
    if (s != MQ_OK) return s;
    *dir = mq__strdup(found);
    return *dir ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "model: %s: expected memory, got none", given);
}
