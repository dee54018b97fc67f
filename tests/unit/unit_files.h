/* What the tests of file formats share: cmocka, a scratch directory, and writing small files into it. */
#ifndef MQ_UNIT_FILES_H
#define MQ_UNIT_FILES_H

#include "mixquant_tools.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A scratch directory that teardown removes with all that is in it. */
static char unit_dir[128];

static inline void unit_remove(const char *path)
{
    char name[512];
    DIR *dir = opendir(path);
    if (!dir) {
        (void)unlink(path);
        return;
    }
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if ((size_t)snprintf(name, sizeof name, "%s/%s", path, e->d_name) < sizeof name) unit_remove(name);
    }
    closedir(dir);
    (void)rmdir(path);
}

static inline int unit_setup(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(unit_dir, sizeof unit_dir, "%s/mixquant-unit-XXXXXX", tmp && strlen(tmp) < 80 ? tmp : "/tmp");
    return mkdtemp(unit_dir) ? 0 : -1;
}

static inline int unit_teardown(void **state)
{
    (void)state;
    unit_remove(unit_dir);
    return 0;
}

/* "<scratch>/<name>"; one of eight buffers used in turn. */
static inline const char *unit_path(const char *name)
{
    static char paths[8][384];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", unit_dir, name);
    return path;
}

static inline void unit_write(const char *name, const void *bytes, size_t count)
{
    (void)unlink(unit_path(name)); /* some file systems flush a file that is rewritten in place */
    FILE *file = fopen(unit_path(name), "wb");
    assert_non_null(file);
    if (count) assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
}

static inline void unit_puts(const char *name, const char *text)
{
    unit_write(name, text, strlen(text));
}

/* Entries of a directory, without "." and ".."; -1 when it is not there. */
static inline int unit_entries(const char *path)
{
    int count = 0;
    DIR *dir = opendir(path);
    if (!dir) return -1;
    for (const struct dirent *e = readdir(dir); e; e = readdir(dir)) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    }
    closedir(dir);
    return count;
}

/* The call failed with this status, and its message names what the test expects. */
static inline void unit_refused(mq_status got, mq_status expected, const mq_error *error, const char *names)
{
    if (got != expected || (names && !strstr(error->text, names))) {
        fail_msg("expected %s naming \"%s\", got %s: %s", mq_status_text(expected), names ? names : "",
                 mq_status_text(got), error->text);
    }
    assert_int_equal(error->status, expected);
    assert_null(strchr(error->text, '\n'));
}

#endif
