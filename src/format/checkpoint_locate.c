#include "format/checkpoint_locate.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <dirent.h>
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

static bool begins_with(const char *path, const char *bytes)
{
    char head[64] = "";
    struct stat info;
    FILE *file = stat(path, &info) == 0 && S_ISREG(info.st_mode) ? fopen(path, "re") : NULL;
    if (!file) return false;
    const size_t count = fread(head, 1, sizeof head - 1, file);
    fclose(file);
    return count >= strlen(bytes) && memcmp(head, bytes, strlen(bytes)) == 0;
}

/* The first entry of dir (in no order) that ends so, or begins so when `ending` is NULL; owned, NULL: none. */
static char *find_entry(const char *dir, const char *beginning, const char *ending)
{
    char *found = NULL;
    DIR *entries = opendir(dir);
    if (!entries) return NULL;
    for (const struct dirent *e = readdir(entries); e && !found; e = readdir(entries)) {
        const bool fits = strncmp(e->d_name, beginning, strlen(beginning)) == 0 && has_ending(e->d_name, ending);
        if (fits) found = mq__strdup(e->d_name);
    }
    closedir(entries);
    return found;
}

/* Whether dir has an entry of this name, be it readable or not. */
static bool has_entry(const char *dir, const char *name)
{
    char *path = mq__path_join(dir, name);
    const bool there = path && mq__file_exists(path);
    mq__free(path);
    return there;
}

/* ---- the cache of downloads */

/* "<cache>/models--OWNER--NAME"; NULL: no cache, or no memory. */
static char *cache_folder(const char *owner_name)
{
    const char *hub = getenv("HF_HUB_CACHE"), *home = getenv("HF_HOME"), *xdg = getenv("XDG_CACHE_HOME");
    const char *user = getenv("HOME"), *slash = strchr(owner_name, '/');
    mq_buf path = {0};
    if (hub && hub[0])
        mq__buf_puts(&path, hub);
    else if (home && home[0])
        mq__buf_printf(&path, "%s/hub", home);
    else if (xdg && xdg[0] == '/')
        mq__buf_printf(&path, "%s/huggingface/hub", xdg);
    else if (user && user[0])
        mq__buf_printf(&path, "%s/.cache/huggingface/hub", user);
    else
        return NULL;
    mq__buf_printf(&path, "/models--%.*s--%s", (int)(slash - owner_name), owner_name, slash + 1);
    char *taken = path.failed ? NULL : mq__buf_take(&path);
    mq__buf_free(&path);
    return taken;
}

/* The snapshot that refs/main names; NULL: none that is there. */
static char *main_snapshot(const char *folder)
{
    char *ref = mq__path_join(folder, "refs/main"), *snapshots = mq__path_join(folder, "snapshots");
    char *text = NULL, *snapshot = NULL;
    size_t bytes;
    if (ref && snapshots && mq__file_read(ref, 256, &text, &bytes, NULL) == MQ_OK) {
        text[strcspn(text, " \r\n")] = '\0';
        if (text[0] && !strchr(text, '/') && text[0] != '.') snapshot = mq__path_join(snapshots, text);
    }
    if (snapshot && !is_directory(snapshot)) {
        mq__free(snapshot);
        snapshot = NULL;
    }
    mq__free(text);
    mq__free(snapshots);
    mq__free(ref);
    return snapshot;
}

/* The snapshot of a download folder: the one that refs/main names, else the last that was written. */
static char *find_snapshot(const char *folder)
{
    char *best = main_snapshot(folder), *snapshots = best ? NULL : mq__path_join(folder, "snapshots");
    DIR *entries = snapshots ? opendir(snapshots) : NULL;
    time_t newest = 0;
    for (const struct dirent *e = entries ? readdir(entries) : NULL; e; e = readdir(entries)) {
        struct stat info;
        char *path = e->d_name[0] == '.' ? NULL : mq__path_join(snapshots, e->d_name);
        if (path && stat(path, &info) == 0 && S_ISDIR(info.st_mode) && (!best || info.st_mtime > newest)) {
            mq__free(best);
            best = path;
            path = NULL;
            newest = info.st_mtime;
        }
        mq__free(path);
    }
    if (entries) closedir(entries);
    mq__free(snapshots);
    return best;
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

static mq_status locate_download(const char *given, char **dir, mq_error *error)
{
    char *folder = cache_folder(given);
    *dir = folder ? find_snapshot(folder) : NULL;
    mq_status s = MQ_OK;
    if (!*dir) {
        s = mq__fail(error, MQ_IO,
                     "model: %s: expected a directory, or a model that was downloaded, got nothing at this path and "
                     "nothing in %s: run `hf download %s` first, and give the same name",
                     given, folder ? folder : "a cache (HOME is not set)", given);
    }
    mq__free(folder);
    return s;
}

/* ---- what else it may be */

static mq_status refuse_file(const char *path, mq_error *error)
{
    const char *slash = strrchr(path, '/');
    if (begins_with(path, "GGUF") || has_ending(path, ".gguf")) {
        return mq__fail(error, MQ_UNSUPPORTED,
                        "model: %s: expected a directory with " WHOLE ", got a GGUF file: download the model that it was "
                        "made from (`hf download OWNER/NAME`) and give OWNER/NAME",
                        path);
    }
    if (has_ending(path, ".safetensors")) {
        return mq__fail(error, MQ_USAGE,
                        "model: %s: expected the directory with config.json and the weights, got one of its files: give "
                        "%.*s",
                        path, slash ? (int)(slash - path) : 1, slash ? path : ".");
    }
    return mq__fail(error, MQ_USAGE, "model: %s: expected a directory with " WHOLE ", got a file", path);
}

/* Large files of a repository that was cloned without Git LFS hold three lines of text instead. */
static mq_status refuse_pointer(const char *dir, const char *name, mq_error *error)
{
    char *path = mq__path_join(dir, name);
    mq_status s = MQ_OK;
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "model: %s: expected memory, got none", dir);
    if (begins_with(path, "version https://git-lfs")) {
        s = mq__fail(error, MQ_FORMAT,
                     "model: %s: expected the file itself, got a pointer of Git LFS: run `git lfs pull` in %s", path, dir);
    }
    mq__free(path);
    return s;
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
    char *gguf = find_entry(dir, "", ".gguf"), *adapter = find_entry(dir, "adapter_config", ".json");
    mq_status s;
    if (gguf) {
        s = mq__fail(error, MQ_UNSUPPORTED,
                     "model: %s: expected config.json and model.safetensors, got a GGUF file (%s): download the model "
                     "that it was made from (`hf download OWNER/NAME`) and give OWNER/NAME",
                     dir, gguf);
    } else if (adapter) {
        s = mq__fail(error, MQ_UNSUPPORTED,
                     "model: %s: expected config.json and model.safetensors, got an adapter (LoRA): merge it into its "
                     "base model and give the result",
                     dir);
    } else {
        s = mq__fail(error, MQ_IO,
                     "model: %s: expected a directory with " WHOLE ", got one without config.json: give the folder that "
                     "holds it, or run `hf download OWNER/NAME --local-dir %s`",
                     dir, dir);
    }
    mq__free(adapter);
    mq__free(gguf);
    return s;
}

/* A directory with config.json, but no weights in safetensors. */
static mq_status refuse_weights(const char *dir, mq_error *error)
{
    static const char *const others[] = {".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".safetensors"};
    char *other = NULL;
    for (size_t i = 0; !other && i < sizeof others / sizeof others[0]; i++) {
        other = find_entry(dir, "", others[i]);
    }
    mq_status s;
    if (!other) {
        s = mq__fail(error, MQ_IO,
                     "model: %s: expected model.safetensors or model.safetensors.index.json beside config.json, got "
                     "neither: download all files (`hf download OWNER/NAME --local-dir %s`)",
                     dir, dir);
    } else if (has_ending(other, ".safetensors")) {
        s = mq__fail(error, MQ_FORMAT,
                     "model: %s: expected model.safetensors, or model.safetensors.index.json that lists the files, got "
                     "only %s: rename the file, or download the index",
                     dir, other);
    } else {
        s = mq__fail(error, MQ_UNSUPPORTED,
                     "model: %s: expected weights in model.safetensors, got only %s: take a version of the model with "
                     "safetensors, or load it in transformers and save_pretrained(DIR, safe_serialization=True)",
                     dir, other);
    }
    mq__free(other);
    return s;
}

static mq_status check_directory(const char *dir, bool needs_weights, mq_error *error)
{
    static const char *const texts[] = {"config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    const mq_status s = needs_weights ? refuse_pointers(dir, error) : refuse_pointer(dir, "tokenizer.json", error);
    if (s != MQ_OK) return s;
    for (size_t i = 0; !needs_weights && i < sizeof texts / sizeof texts[0]; i++) {
        if (has_entry(dir, texts[i])) return MQ_OK;
    }
    if (!has_entry(dir, "config.json")) return refuse_directory(dir, error);
    if (has_entry(dir, "model.safetensors") || has_entry(dir, "model.safetensors.index.json")) return MQ_OK;
    return refuse_weights(dir, error);
}

mq_status mq__checkpoint_locate(const char *given, bool needs_weights, char **dir, mq_error *error)
{
    mq_status s = MQ_OK;
    *dir = NULL;
    if (!mq__file_exists(given)) {
        if (is_hub_name(given))
            s = locate_download(given, dir, error);
        else
            s = mq__fail(error, MQ_IO, "model: %s: expected a directory with " WHOLE ", got nothing at this path", given);
    } else if (!is_directory(given)) {
        s = refuse_file(given, error);
    } else {
        /* The folder of a download itself: the checkpoint is in one of its snapshots. */
        if (!has_entry(given, "config.json") && has_entry(given, "snapshots")) *dir = find_snapshot(given);
        if (!*dir) *dir = mq__strdup(given);
        if (!*dir) s = mq__fail(error, MQ_NO_MEMORY, "model: %s: expected memory, got none", given);
    }
    if (s == MQ_OK) s = check_directory(*dir, needs_weights, error);
    if (s == MQ_OK) return s;
    mq__free(*dir);
    *dir = NULL;
    return s;
}
