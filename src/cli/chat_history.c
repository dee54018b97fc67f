#include "cli/chat_history.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX ((size_t)64 << 20)
#define TURN_MAX ((size_t)64 << 10) /* a longer one is a pasted document: not kept */

/* The state folder, made when missing; owned, NULL when there is no home. */
static char *state_folder(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    mq_buf path = {0};
    if (state && *state == '/') {
        mq__buf_printf(&path, "%s/mixquant", state);
    } else if (home && *home) {
        mq__buf_printf(&path, "%s/.local/state/mixquant", home);
    }
    if (path.failed || !path.data || mq__make_dirs(path.data, NULL) != MQ_OK) mq__buf_free(&path);
    return path.data ? mq__buf_take(&path) : NULL;
}

static char *history_path(void)
{
    char *folder = state_folder();
    char *path = folder ? mq__path_join(folder, "history") : NULL;
    mq__free(folder);
    return path;
}

/* Where the last `count` lines begin. */
static const char *last_lines(const char *text, size_t bytes, size_t count)
{
    const char *at = text + bytes;
    while (at > text && (at[-1] != '\n' || at == text + bytes || count-- > 1)) {
        at--;
    }
    return at;
}

static bool unescape_turn(const char *line, size_t bytes, mq_buf *turn)
{
    mq__buf_clear(turn);
    for (size_t i = 0; i < bytes; i++) {
        const bool escaped = line[i] == '\\' && i + 1 < bytes;
        if (escaped) i++;
        mq__buf_putc(turn, escaped && line[i] == 'n' ? '\n' : line[i]);
    }
    return turn->len > 0 && !turn->failed;
}

/* A file that only grows would be read whole for ever. */
static void shorten(const char *path, const char *kept)
{
    mq_writer writer = {0};
    const mode_t before = umask(077);
    mq_status status = mq__writer_open(&writer, path, NULL);
    if (status == MQ_OK) status = mq__writer_put(&writer, kept, strlen(kept), NULL);
    if (status == MQ_OK) status = mq__writer_commit(&writer, NULL);
    mq__writer_abort(&writer);
    umask(before);
}

void cli_history_load(void (*take)(void *context, const char *turn), void *context)
{
    char *path = history_path(), *text = NULL;
    size_t bytes = 0;
    mq_buf turn = {0};
    if (path && mq__file_read(path, FILE_MAX, &text, &bytes, NULL) == MQ_OK) {
        const char *first = last_lines(text, bytes, CLI_HISTORY_TURNS);
        for (const char *line = first; *line;) {
            const size_t length = strcspn(line, "\n");
            if (unescape_turn(line, length, &turn)) take(context, turn.data);
            line += length + (line[length] == '\n');
        }
        if ((size_t)(first - text) > bytes / 2) shorten(path, first);
    }
    mq__buf_free(&turn);
    mq__free(text);
    mq__free(path);
}

void cli_history_append(const char *turn)
{
    mq_buf line = {0};
    if (strlen(turn) > TURN_MAX) return;
    for (const char *p = turn; *p; p++) {
        if (*p == '\\' || *p == '\n') mq__buf_putc(&line, '\\');
        mq__buf_putc(&line, *p == '\n' ? 'n' : *p);
    }
    mq__buf_putc(&line, '\n');
    char *path = history_path();
    const int fd = path ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        if (!line.failed && write(fd, line.data, line.len) < 0) { /* a full disk: the history ends here */
        }
        close(fd);
    }
    mq__free(path);
    mq__buf_free(&line);
}
