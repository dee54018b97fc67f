/* checkasm [--bench] [--list] [--isa LEVEL] [--seed N] [--break NAME] [--selftest] [PATTERN]
 *
 * Without options: all suites, for each level that the machine has, non-zero exit when a slot differs from the reference
 * or was never compared. PATTERN selects the slots whose name contains it. */
#include "checkasm.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

checkasm_state checkasm;

static struct {
    const char *pattern; /* slots whose name contains it; NULL: all */
    const char *only;    /* exactly this slot (self-test); NULL: no such limit */
    const char *spoiled; /* --break */
    uint64_t seed;
    bool quiet;
} options = {.seed = 1};

static checkasm_suite *suites;

void checkasm_register(checkasm_suite *suite)
{
    checkasm_suite **at = &suites;
    while (*at && strcmp((*at)->name, suite->name) < 0) {
        at = &(*at)->next;
    }
    suite->next = *at;
    *at = suite;
}

/* ------------------------------------------------------------------ slots and their outcome */

enum { MAX_SLOTS = 64, MAX_REPORTS = 3 };

static struct {
    char name[40], shown[64]; /* shown: with the variant's name */
    char what[160];
    unsigned long compared, failed;
    double worst; /* largest relative error of checkasm_within */
    bool bounded;
} slot;

static const char *variant; /* what stands in the slot that is checked; NULL: the level's first */

static char seen[MAX_SLOTS][40];
static size_t seen_count;
static unsigned long failed_slots;

static void release_buffers(void);

static bool wanted(const char *name)
{
    return (!options.only || !strcmp(options.only, name)) && (!options.pattern || strstr(name, options.pattern));
}

static const char *provider_of(const char *name)
{
    for (size_t i = 0; i < mq__kernels_slots(); i++) {
        if (!strcmp(mq__kernels_slot_name(i), name)) {
            return mq__isa_name(mq__kernels_slot_isa(checkasm.isa, i));
        }
    }
    return mq__isa_name(checkasm.isa);
}

static void finish_slot(void)
{
    if (!slot.name[0]) {
        return;
    }
    release_buffers();
    const bool ok = slot.compared && !slot.failed;
    failed_slots += !ok;
    if (!options.quiet) {
        printf("%-11s %-24s %-6s %8lu compared", mq__isa_name(checkasm.isa), slot.shown, ok ? "ok" : "FAILED",
               slot.compared);
        if (slot.failed) {
            printf(", %lu differ", slot.failed);
        }
        if (slot.bounded) {
            printf(", worst error %.2g", slot.worst);
        }
        const char *provider = provider_of(slot.name);
        if (strcmp(provider, mq__isa_name(checkasm.isa)) != 0) {
            printf("  (%s)", provider);
        }
        printf("\n");
    }
    slot.name[0] = 0;
}

static uint64_t hash_name(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (; *name; name++) {
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    }
    return h;
}

static uint64_t random_state;

bool checkasm_slot(const char *name)
{
    finish_slot();
    if (!wanted(name)) {
        return false;
    }
    memset(&slot, 0, sizeof slot);
    snprintf(slot.name, sizeof slot.name, "%s", name);
    snprintf(slot.shown, sizeof slot.shown, "%s%s%s", name, variant ? "/" : "", variant ? variant : "");
    random_state = options.seed * 0x9e3779b97f4a7c15u ^ hash_name(name);
    for (size_t i = 0; i < seen_count; i++) {
        if (!strcmp(seen[i], name)) {
            return true;
        }
    }
    if (seen_count < MAX_SLOTS) {
        snprintf(seen[seen_count++], sizeof seen[0], "%s", name);
    }
    return true;
}

void checkasm_case(const char *format, ...)
{
    release_buffers();
    va_list args;
    va_start(args, format);
    vsnprintf(slot.what, sizeof slot.what, format, args);
    va_end(args);
}

void checkasm_fail(const char *format, ...)
{
    if (slot.failed++ < MAX_REPORTS && !options.quiet) {
        printf("  %s %s [%s]: ", mq__isa_name(checkasm.isa), slot.name, slot.what);
        va_list args;
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
    }
}

/* ------------------------------------------------------------------ random numbers: splitmix64 */

uint64_t checkasm_random(void)
{
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

size_t checkasm_below(size_t bound)
{
    return (size_t)(checkasm_random() % bound);
}

float checkasm_uniform(float low, float high)
{
    return low + (high - low) * (float)(checkasm_random() >> 40) * 0x1p-24f;
}

float checkasm_normal(void)
{
    int64_t sum = 0; /* Irwin-Hall: twelve uniforms, from 24 half-words of six draws */
    for (int i = 0; i < 6; i++) {
        const uint64_t r = checkasm_random();
        sum += (int64_t)(r & 0xffffffff) + (int64_t)(r >> 32);
    }
    return (float)((double)sum * 0x1p-32 - 6.0);
}

void checkasm_fill_normal(float *x, size_t count, float deviation)
{
    for (size_t i = 0; i < count; i++) {
        x[i] = checkasm_normal() * deviation;
    }
}

void checkasm_fill_bytes(void *x, size_t bytes)
{
    uint8_t *p = x;
    for (size_t i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(checkasm_random() >> 56);
    }
}

uint16_t checkasm_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* ------------------------------------------------------------------ guarded buffers */

enum { CANARY_BYTES = 256, CANARY = 0x5a, POISON = 0xff, MAX_BUFFERS = 256 };

static struct {
    uint8_t *map, *start;
    size_t map_bytes, bytes, page_end; /* page_end: offset of the guard page from map */
} buffers[MAX_BUFFERS];
static size_t buffer_count;

void checkasm_die(const char *what)
{
    fprintf(stderr, "checkasm: %s\n", what);
    exit(2);
}

void *checkasm_buffer(size_t bytes, size_t align)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t room = (bytes + CANARY_BYTES + align + page - 1) / page * page;
    if (buffer_count == MAX_BUFFERS) {
        checkasm_die("too many buffers in one case");
    }
    uint8_t *map = mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + room, page, PROT_NONE)) {
        checkasm_die("no memory");
    }
    uint8_t *start = map + (room - bytes) / align * align;
    if (align < 64 && (uintptr_t)start % 64 == 0 && bytes >= align) {
        start -= align; /* never aligned by chance; the lost bytes are part of the canary */
    }
    memset(start - CANARY_BYTES, CANARY, CANARY_BYTES);
    memset(start, POISON, bytes);
    memset(start + bytes, CANARY, room - (size_t)(start - map) - bytes);
    buffers[buffer_count].map = map;
    buffers[buffer_count].start = start;
    buffers[buffer_count].map_bytes = room + page;
    buffers[buffer_count].bytes = bytes;
    buffers[buffer_count++].page_end = room;
    return start;
}

float *checkasm_floats(size_t count)
{
    return checkasm_buffer(count * sizeof(float), sizeof(float));
}

uint16_t *checkasm_halves(size_t count)
{
    return checkasm_buffer(count * sizeof(uint16_t), sizeof(uint16_t));
}

uint8_t *checkasm_aligned(size_t bytes)
{
    return checkasm_buffer(bytes, 64);
}

void *checkasm_copy(const void *from, size_t bytes, size_t align)
{
    return memcpy(checkasm_buffer(bytes, align), from, bytes);
}

static bool all_canary(const uint8_t *from, const uint8_t *to)
{
    for (; from < to; from++) {
        if (*from != CANARY) {
            return false;
        }
    }
    return true;
}

static void release_buffers(void)
{
    for (size_t i = 0; i < buffer_count; i++) {
        const uint8_t *start = buffers[i].start;
        if (!all_canary(start - CANARY_BYTES, start)) {
            checkasm_fail("a buffer of %zu bytes was written before its start", buffers[i].bytes);
        }
        if (!all_canary(start + buffers[i].bytes, buffers[i].map + buffers[i].page_end)) {
            checkasm_fail("a buffer of %zu bytes was written behind its end", buffers[i].bytes);
        }
        munmap(buffers[i].map, buffers[i].map_bytes);
    }
    buffer_count = 0;
}

/* ------------------------------------------------------------------ comparisons */

bool checkasm_same_bytes(const void *expected, const void *got, size_t bytes)
{
    slot.compared++;
    if (!memcmp(expected, got, bytes)) {
        return true;
    }
    const uint8_t *e = expected, *g = got;
    size_t i = 0;
    while (e[i] == g[i]) {
        i++;
    }
    checkasm_fail("byte %zu of %zu: expected %02x, got %02x", i, bytes, e[i], g[i]);
    return false;
}

bool checkasm_same_f32(const float *expected, const float *got, size_t rows, size_t cols, size_t ld)
{
    slot.compared++;
    const size_t count = rows ? (rows - 1) * ld + cols : 0;
    if (!memcmp(expected, got, count * sizeof(float))) {
        return true;
    }
    size_t i = 0;
    while (!memcmp(expected + i, got + i, sizeof(float))) {
        i++;
    }
    checkasm_fail("row %zu column %zu%s: expected %.9g (%a), got %.9g (%a)", i / ld, i % ld,
                  i % ld >= cols ? " (outside the output)" : "", (double)expected[i], (double)expected[i],
                  (double)got[i], (double)got[i]);
    return false;
}

bool checkasm_within(const double *expected, const float *got, size_t count, double bound)
{
    slot.compared++;
    slot.bounded = true;
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        const double d = (double)got[i] - expected[i];
        difference += d * d;
        norm += expected[i] * expected[i];
    }
    const double error = difference == 0 ? 0 : sqrt(difference / norm);
    if (error > slot.worst || isnan(error)) {
        slot.worst = error;
    }
    if (error <= bound) {
        return true;
    }
    checkasm_fail("relative error %.3g of %zu values, bound %.3g", error, count, bound);
    return false;
}

bool checkasm_true(bool condition, const char *what)
{
    slot.compared++;
    if (!condition) {
        checkasm_fail("%s", what);
    }
    return condition;
}

/* ------------------------------------------------------------------ runs */

bool checkasm_bench_wanted(const char *name)
{
    return wanted(name);
}

static mq_kernels tested;

static void choose_level(mq_isa isa, const char *spoiled)
{
    checkasm.isa = isa;
    checkasm.ref = mq__kernels_get(MQ_ISA_REF);
    tested = *mq__kernels_get(isa);
    if (spoiled && !checkasm_spoil(&tested, spoiled)) {
        checkasm_die("--break: unknown name, see --selftest");
    }
    checkasm.tested = &tested;
}

static void check_suites(void)
{
    for (const checkasm_suite *s = suites; s; s = s->next) {
        s->check();
        finish_slot();
    }
}

static bool was_seen(const char *name)
{
    for (size_t i = 0; i < seen_count; i++) {
        if (!strcmp(seen[i], name)) {
            return true;
        }
    }
    return false;
}

/* The level's other ways to do what it has several for, each in its slot. */
static void check_variants(void)
{
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        const mq_operation operation = (mq_operation)o;
        for (size_t v = 1; v < tested.variants[o].count; v++) {
            mq__variant_use(&tested, operation, v);
            options.only = mq__operation_name(operation);
            variant = tested.variants[o].one[v].name;
            check_suites();
            options.only = variant = NULL;
            mq__variant_use(&tested, operation, 0);
        }
    }
}

static int check_levels(mq_isa first, mq_isa last)
{
    for (mq_isa isa = first; isa <= last; isa = (mq_isa)(isa + 1)) {
        choose_level(isa, options.spoiled);
        check_suites();
        if (!options.spoiled) check_variants();
    }
    for (size_t i = 0; i < mq__kernels_slots(); i++) {
        const char *name = mq__kernels_slot_name(i);
        if (wanted(name) && !was_seen(name)) {
            printf("%-11s %-24s UNCHECKED\n", "-", name);
            failed_slots++;
        }
    }
    printf(failed_slots ? "%lu slots FAILED (seed %llu)\n" : "all ok (%lu failed, seed %llu)\n", failed_slots,
           (unsigned long long)options.seed);
    return failed_slots != 0;
}

/* Every slot spoiled in turn must be reported as failed. */
static int self_test(mq_isa first, mq_isa last)
{
    unsigned long missed = 0;
    for (mq_isa isa = first; isa <= last; isa = (mq_isa)(isa + 1)) {
        const char *name, *spoiled;
        for (size_t i = 0; (name = checkasm_spoil_name(i, &spoiled)); i++) {
            if (!wanted(spoiled)) {
                continue;
            }
            choose_level(isa, name);
            options.only = spoiled;
            options.quiet = true;
            failed_slots = 0;
            check_suites();
            options.only = NULL;
            printf("%-11s %-32s %s\n", mq__isa_name(isa), name, failed_slots ? "noticed" : "MISSED");
            missed += !failed_slots;
        }
    }
    printf("%lu spoiled kernels went unnoticed\n", missed);
    return missed != 0;
}

static int bench_levels(mq_isa first, mq_isa last)
{
    for (mq_isa isa = first; isa <= last; isa = (mq_isa)(isa + 1)) {
        choose_level(isa, NULL);
        checkasm_bench_heading();
        for (const checkasm_suite *s = suites; s; s = s->next) {
            if (s->bench) {
                s->bench();
            }
        }
    }
    checkasm_bench_end();
    return 0;
}

static int list(void)
{
    for (size_t i = 0; i < mq__kernels_slots(); i++) {
        printf("%-24s", mq__kernels_slot_name(i));
        for (mq_isa isa = MQ_ISA_REF; isa < MQ_ISA_COUNT; isa = (mq_isa)(isa + 1)) {
            printf(" %-11s", mq__isa_name(mq__kernels_slot_isa(isa, i)));
        }
        printf("\n");
    }
    for (const checkasm_suite *s = suites; s; s = s->next) {
        printf("suite %s\n", s->name);
    }
    return 0;
}

static mq_isa level_named(const char *name)
{
    for (mq_isa isa = MQ_ISA_REF; isa < MQ_ISA_COUNT; isa = (mq_isa)(isa + 1)) {
        if (!strcmp(mq__isa_name(isa), name)) {
            return isa;
        }
    }
    checkasm_die("--isa: unknown level");
    return MQ_ISA_REF;
}

int main(int argc, char **argv)
{
    mq_isa last = mq__cpu_best_isa();
    mq_isa first = last > MQ_ISA_REF ? (mq_isa)(MQ_ISA_REF + 1) : MQ_ISA_REF;
    int (*mode)(mq_isa, mq_isa) = check_levels;
    bool list_only = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(arg, "--bench")) {
            mode = bench_levels;
        } else if (!strcmp(arg, "--selftest")) {
            mode = self_test;
        } else if (!strcmp(arg, "--list")) {
            list_only = true;
        } else if (!strcmp(arg, "--isa") && value) {
            first = level_named(value);
            if (first > last) {
                printf("this machine has no %s\n", value);
                return 77;
            }
            last = first;
            i++;
        } else if (!strcmp(arg, "--seed") && value) {
            options.seed = strtoull(value, NULL, 0);
            i++;
        } else if (!strcmp(arg, "--break") && value) {
            options.spoiled = value;
            i++;
        } else if (arg[0] != '-') {
            options.pattern = arg;
        } else {
            checkasm_die(
                "usage: checkasm [--bench] [--list] [--isa LEVEL] [--seed N] [--break NAME] [--selftest] [PATTERN]");
        }
    }
    return list_only ? list() : mode(first, last);
}
