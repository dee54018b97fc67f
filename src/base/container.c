#include "base/container.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096
#define GROUPS_DIR "/sys/fs/cgroup"

/* The beginning of a small file; false when it cannot be read. */
static bool read_text_container(const char *folder, const char *name, char *text, size_t size)
{
    char path[PATH_BYTES + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (!file) return false;
    const size_t count = fread(text, 1, size - 1, file);
    text[count] = '\0';
    fclose(file);
    return count > 0;
}

/* 0 for "max", for negative numbers (no limit) and for a file that is not there. */
static uint64_t read_number_container(const char *folder, const char *name)
{
    char text[64];
    if (!read_text_container(folder, name, text, sizeof text) || text[0] < '0' || text[0] > '9') return 0;
    return strtoull(text, NULL, 10);
}

static void bound_processors(mq_container *limits, double quota, double period)
{
    if (quota <= 0 || period <= 0) return;
    const double processors = quota / period;
    if (limits->processors == 0 || processors < limits->processors) limits->processors = processors;
}

/* Bytes of file pages: the kernel drops them before a limit hurts. */
static uint64_t reclaimable(const char *folder, const char *name)
{
    char text[8192];
    if (!read_text_container(folder, "memory.stat", text, sizeof text)) return 0;
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        const size_t length = strlen(name);
        if (strncmp(line, name, length) == 0 && line[length] == ' ') return strtoull(line + length, NULL, 10);
    }
    return 0;
}

static void bound_memory(mq_container *limits, const char *folder, bool second)
{
    const uint64_t most = read_number_container(folder, second ? "memory.max" : "memory.limit_in_bytes");
    /* Version 1 writes "no limit" as the largest multiple of a page. */
    if (most == 0 || most >= (uint64_t)1 << 60 || (limits->memory && most >= limits->memory)) return;
    const uint64_t used = read_number_container(folder, second ? "memory.current" : "memory.usage_in_bytes");
    const uint64_t cached = reclaimable(folder, second ? "inactive_file" : "total_inactive_file");
    limits->memory = most;
    limits->memory_used = used > cached ? used - cached : 0;
}

static void read_group(mq_container *limits, const char *folder, bool second)
{
    char text[64];
    double quota, period;
    if (read_text_container(folder, "cpu.max", text, sizeof text) && sscanf(text, "%lf %lf", &quota, &period) == 2) {
        bound_processors(limits, quota, period);
    }
    bound_processors(limits, (double)read_number_container(folder, "cpu.cfs_quota_us"),
                     (double)read_number_container(folder, "cpu.cfs_period_us"));
    bound_memory(limits, folder, second);
}

/* A group and the groups above it, up to the mount: inside a container the own group often is the mount itself, and its
 * path the host's, of which nothing is there. */
static void read_groups(mq_container *limits, const char *root, const char *mount, const char *group)
{
    char folder[PATH_BYTES];
    const int base = snprintf(folder, sizeof folder, "%s" GROUPS_DIR "%s%s", root, mount[0] ? "/" : "", mount);
    if (base < 0 || (size_t)base + strlen(group) >= sizeof folder) return;
    strcpy(folder + base, group);
    for (;;) {
        read_group(limits, folder, mount[0] == '\0');
        char *slash = strrchr(folder + base, '/');
        if (!slash) return;
        *slash = '\0';
    }
}

static bool has_controller(const char *list, const char *name)
{
    const size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0')) return true;
    }
    return false;
}

/* "4:memory:/docker/3f2a": a hierarchy's controllers and the own group in it; "0::/user.slice" is version 2. */
static void read_cgroup_line(mq_container *limits, const char *root, char *line)
{
    char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) return;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    controllers++;
    if (controllers[0] == '\0') {
        read_groups(limits, root, "", group);
        read_groups(limits, root, "unified", group);
        return;
    }
    static const char *const names[] = {"cpu", "memory"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!has_controller(controllers, names[i])) continue;
        read_groups(limits, root, names[i], group); /* usually a link to the mount of all controllers of the line */
        if (strcmp(controllers, names[i]) != 0) read_groups(limits, root, controllers, group);
    }
}

void mq__container_limits(const char *root, mq_container *limits)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    *limits = (mq_container){0};
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        read_cgroup_line(limits, root, line);
    }
    if (file) fclose(file);
}
