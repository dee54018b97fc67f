#include "base/mem.h"

#include "base/container.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_ulong made;
static atomic_ulong fail_at;
static _Thread_local unsigned long guarded;

static int must_fail(void)
{
    guarded++;
    const unsigned long at = atomic_load_explicit(&fail_at, memory_order_relaxed);
    const unsigned long n = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    return at != 0 && n == at;
}

bool mq__alloc_refused(void)
{
    return must_fail() != 0;
}

void *mq__alloc(size_t bytes)
{
    return must_fail() ? NULL : malloc(bytes ? bytes : 1);
}

void *mq__alloc_zero(size_t count, size_t bytes_each)
{
    return must_fail() ? NULL : calloc(count ? count : 1, bytes_each ? bytes_each : 1);
}

void *mq__realloc(void *block, size_t bytes)
{
    return must_fail() ? NULL : realloc(block, bytes ? bytes : 1);
}

char *mq__strndup(const char *text, size_t bytes)
{
    if (bytes == SIZE_MAX) return NULL;
    char *copy = mq__alloc(bytes + 1);
    if (!copy) return NULL;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

char *mq__strdup(const char *text)
{
    return mq__strndup(text, strlen(text));
}

void mq__free(void *block)
{
    free(block);
}

#define HUGE_FROM ((size_t)4 << 20)
#define HUGE_PAGE ((size_t)2 << 20)

void *mq__alloc_aligned(size_t bytes)
{
    if (must_fail() || bytes > SIZE_MAX - HUGE_PAGE) return NULL;
    const size_t align = bytes >= HUGE_FROM ? HUGE_PAGE : 64;
    const size_t rounded = (bytes + 63) & ~(size_t)63;
    void *block = NULL;
    if (posix_memalign(&block, align, rounded ? rounded : 64) != 0) return NULL;
    /* Weights and KV are read in long streams: 2 MiB pages save the TLB misses. Advice only, never required. */
    if (bytes >= HUGE_FROM) (void)madvise(block, rounded, MADV_HUGEPAGE);
    return block;
}

void mq__free_aligned(void *block)
{
    free(block);
}

bool mq__large_pages(void)
{
    char modes[64] = "";
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "re");
    if (file && !fgets(modes, sizeof modes, file)) modes[0] = '\0';
    if (file) fclose(file);
    return modes[0] && !strstr(modes, "[never]");
}

static uint64_t pages(int name)
{
    return (uint64_t)sysconf(name) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t mq__memory_total(void)
{
    mq_container limits;
    const uint64_t machine = pages(_SC_PHYS_PAGES);
    mq__container_limits("", &limits);
    return limits.memory && limits.memory < machine ? limits.memory : machine;
}

static uint64_t machine_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;
    while (file && fgets(line, sizeof line, file)) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1) break;
    }
    if (file) fclose(file);
    return kib ? (uint64_t)kib * 1024 : pages(_SC_AVPHYS_PAGES);
}

uint64_t mq__memory_available(void)
{
    mq_container limits;
    const uint64_t machine = machine_available();
    mq__container_limits("", &limits);
    if (limits.memory == 0) return machine;
    const uint64_t left = limits.memory > limits.memory_used ? limits.memory - limits.memory_used : 0;
    return left < machine ? left : machine;
}

unsigned long mq__alloc_fail_at(unsigned long n)
{
    const unsigned long before = atomic_exchange(&made, 0);
    atomic_store(&fail_at, n);
    return before;
}

void mq__alloc_guard_begin(void)
{
    guarded = 0;
}

unsigned long mq__alloc_guard_end(void)
{
    return guarded;
}
