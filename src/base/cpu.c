#include "base/cpu.h"

#include "base/container.h"
#include "base/error.h"
#include "base/pool.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#define NODES 64 /* memory nodes that are looked for */

#if defined(__aarch64__)
static const char *const isa_names[MQ_ISA_COUNT] = {"ref", "neon", "neondot", "neoni8mm"};
#else
static const char *const isa_names[MQ_ISA_COUNT] = {"ref", "avx2", "avx512vnni", "avx512bf16", "amx"};
#endif

const char *mq__isa_name(mq_isa isa)
{
    return (unsigned)isa < MQ_ISA_COUNT ? isa_names[isa] : "unknown";
}

#if defined(__x86_64__)
/* Whether there are tiles of BF16 and of bytes, and this process may use them. Linux saves a process's tiles only if it has asked for
 * that, once: threads before and after are served, too. A kernel before 5.16 knows no such request. */
static bool may_use_amx(void)
{
    enum { REQUEST_PERMISSION = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILE_DATA = 18 };
    const unsigned needed = 1u << 22 | 1u << 24 | 1u << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & needed) != needed) return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
#endif

static mq_isa find_best_isa(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init(); /* checks XCR0 as well: a level counts only when the system saves its registers */
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni");
    if (avx512 && __builtin_cpu_supports("avx512bf16")) return may_use_amx() ? MQ_ISA_AMX : MQ_ISA_AVX512BF16;
    return avx512 ? MQ_ISA_AVX512VNNI : avx2 ? MQ_ISA_AVX2 : MQ_ISA_REF;
#elif defined(__aarch64__)
    const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
    if (!(first & HWCAP_ASIMD)) return MQ_ISA_REF;
    if (!(first & HWCAP_ASIMDDP)) return MQ_ISA_NEON;
    return second & HWCAP2_I8MM && second & HWCAP2_BF16 ? MQ_ISA_NEONI8MM : MQ_ISA_NEONDOT;
#else
    return MQ_ISA_REF;
#endif
}

static mq_isa best_isa;
static pthread_once_t best_once = PTHREAD_ONCE_INIT;

static void keep_best_isa(void)
{
    best_isa = find_best_isa();
}

/* Asked once: permissions may come later, the table of kernels would not. */
mq_isa mq__cpu_best_isa(void)
{
    pthread_once(&best_once, keep_best_isa);
    return best_isa;
}

bool mq__cpu_avx_vnni(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
#else
    return false;
#endif
}

mq_status mq__cpu_choose_isa(mq_isa *isa, mq_error *error)
{
    const mq_isa best = mq__cpu_best_isa();
    const char *wish = getenv("MQ_ISA");
    *isa = best;
    if (!wish || !*wish) return MQ_OK;
    const size_t length = strlen(wish);
    const bool required = wish[length - 1] == '!';
    const size_t name_length = length - (required ? 1 : 0);
    for (int i = 0; i < MQ_ISA_COUNT; i++) {
        if (strlen(isa_names[i]) != name_length || strncmp(isa_names[i], wish, name_length) != 0) continue;
        if ((mq_isa)i <= best) {
            *isa = (mq_isa)i;
        } else if (required) {
            return mq__fail(error, MQ_UNSUPPORTED, "cpu: MQ_ISA: expected %s from the processor and the system, got %s",
                            isa_names[i], isa_names[best]);
        }
        return MQ_OK;
    }
    char names[MQ_ISA_COUNT * 16] = "";
    for (size_t i = 0, at = 0; i < MQ_ISA_COUNT; i++)
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", isa_names[i]);
    return mq__fail(error, MQ_USAGE, "cpu: MQ_ISA: expected one of %s (with ! to require it), got %s", names, wish);
}

/* A line of a file about a cache of the first processor. */
static bool cache_line(int index, const char *what, char line[32])
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/%s", index, what);
    FILE *file = fopen(path, "re");
    const bool there = file && fgets(line, 32, file);
    if (file) fclose(file);
    return there;
}

/* The data cache of a level: one of them, where a processor has several. The C library's `name` of it is asked second: in a guest
 * on AMD it counts what all of the host has (glibc 2.36: 320 MiB of L3 instead of 32). */
static size_t cache_bytes(char level, int name)
{
    char line[32], unit = 0;
    size_t size;
    for (int i = 0; cache_line(i, "level", line); i++) {
        if (line[0] != level || !cache_line(i, "type", line) || strncmp(line, "Instruction", 11) == 0) continue;
        if (cache_line(i, "size", line) && sscanf(line, "%zu%c", &size, &unit) == 2 && unit == 'K') return size << 10;
    }
    const long value = sysconf(name);
    return value > 0 ? (size_t)value : 0;
}

static int node_of(int processor)
{
    for (int node = 0; node < NODES; node++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/node%d", processor, node);
        if (access(path, F_OK) == 0) return node;
    }
    return 0;
}

#define SET_BITS_MAX ((size_t)1 << 20)

mq_cpu_set mq__cpu_set_get(mq_affinity_fn *get)
{
    for (size_t bits = CPU_SETSIZE; bits <= SET_BITS_MAX; bits *= 2) {
        mq_cpu_set s = {.set = CPU_ALLOC(bits), .bytes = CPU_ALLOC_SIZE(bits)};
        if (!s.set) break;
        CPU_ZERO_S(s.bytes, s.set);
        if (get(0, s.bytes, s.set) == 0) return s;
        const int why = errno;
        mq__cpu_set_free(&s);
        if (why != EINVAL) break;
    }
    return (mq_cpu_set){0};
}

void mq__cpu_set_free(mq_cpu_set *set)
{
    CPU_FREE(set->set);
    *set = (mq_cpu_set){0};
}

size_t mq__cpu_list(int *processors, size_t room)
{
    mq_cpu_set s = mq__cpu_set_get(sched_getaffinity);
    size_t count = 0;
    for (int node = 0; s.set && node < NODES; node++) {
        for (size_t p = 0; p < 8 * s.bytes && count < room; p++) {
            if (CPU_ISSET_S(p, s.bytes, s.set) && node_of((int)p) == node) processors[count++] = (int)p;
        }
    }
    mq__cpu_set_free(&s);
    return count;
}

static int count_nodes(const mq_cpu_set *s)
{
    bool seen[NODES] = {false};
    int count = 0;
    for (size_t p = 0; p < 8 * s->bytes; p++) {
        if (!CPU_ISSET_S(p, s->bytes, s->set)) continue;
        const int node = node_of((int)p);
        count += !seen[node];
        seen[node] = true;
    }
    return count > 0 ? count : 1;
}

/* A part of a processor gets a thread as well: with 1.5, two threads at three quarters are faster than one. */
int mq__cpu_threads(int online, double quota)
{
    int threads = online < MQ_THREADS_MAX ? online : MQ_THREADS_MAX;
    if (quota > 0 && ceil(quota) < threads) threads = (int)ceil(quota);
    return threads > 0 ? threads : 1;
}

/* ARM's kernel gives numbers in the place of a name; these are the designs that servers have. */
static void name_arm_part(unsigned implementer, unsigned part, char *name, size_t size)
{
    static const struct {
        unsigned part;
        const char *name;
    } designs[] = {{0xd08, "Cortex-A72"},  {0xd0b, "Cortex-A76"},  {0xd0c, "Neoverse N1"}, {0xd40, "Neoverse V1"},
                   {0xd49, "Neoverse N2"}, {0xd4f, "Neoverse V2"}, {0xd8e, "Neoverse N3"}, {0xd84, "Neoverse V3"}};
    for (size_t i = 0; implementer == 0x41 && i < sizeof designs / sizeof designs[0]; i++) {
        if (designs[i].part != part) continue;
        snprintf(name, size, "ARM %s", designs[i].name);
        return;
    }
    snprintf(name, size, "ARM, implementer 0x%02x, part 0x%03x", implementer, part);
}

static void read_processor_name(char *name, size_t size)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    unsigned implementer = 0;
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!colon || strlen(colon) < 2) continue;
        if (strncmp(line, "model name", 10) == 0) {
            snprintf(name, size, "%.90s", colon + 2);
            name[strcspn(name, "\n")] = '\0';
            break;
        }
        if (strncmp(line, "CPU implementer", 15) == 0) implementer = (unsigned)strtoul(colon + 2, NULL, 0);
        if (strncmp(line, "CPU part", 8) == 0) {
            name_arm_part(implementer, (unsigned)strtoul(colon + 2, NULL, 0), name, size);
            break;
        }
    }
    if (file) fclose(file);
}

void mq__cpu_info(mq_cpu_info *info)
{
    *info = (mq_cpu_info){.name = "unknown", .online = 1, .threads = 1, .nodes = 1};
    read_processor_name(info->name, sizeof info->name);
    info->l1d_bytes = cache_bytes('1', _SC_LEVEL1_DCACHE_SIZE);
    info->l2_bytes = cache_bytes('2', _SC_LEVEL2_CACHE_SIZE);
    info->l3_bytes = cache_bytes('3', _SC_LEVEL3_CACHE_SIZE);
    mq_container limits;
    mq__container_limits("", &limits);
    mq_cpu_set s = mq__cpu_set_get(sched_getaffinity);
    if (!s.set) return;
    info->online = CPU_COUNT_S(s.bytes, s.set);
    info->nodes = count_nodes(&s);
    info->threads = mq__cpu_threads(info->online, limits.processors);
    mq__cpu_set_free(&s);
}
