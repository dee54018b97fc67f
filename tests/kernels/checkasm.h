/* The kernel test and benchmark harness: every level of the table against the reference, in one process.
 *
 * A check_*.c file defines one suite with CHECKASM_SUITE; nothing else names it. Its `check` compares
 * checkasm.tested with checkasm.ref slot by slot:
 *
 *     if (checkasm_slot("rmsnorm")) {                     // false when filtered out
 *         for (size_t n = 1; n < 100; n++) {
 *             checkasm_case("n=%zu", n);                  // named in a failure; releases the buffers of the last case
 *             float *x = checkasm_floats(n);              // guard page right behind, canary before
 *             ...
 *             checkasm_same_f32(expected, got, 1, n, n);  // or checkasm_same_bytes, checkasm_within
 *         }
 *     }
 *
 * A slot in which nothing was compared has failed. The random numbers of a slot depend on --seed and its name only.
 * `bench` calls checkasm_bench for each shape of interest. */
#ifndef MQ_TESTS_CHECKASM_H
#define MQ_TESTS_CHECKASM_H

#include "kernels/kernels.h"

typedef struct checkasm_suite {
    const char *name;
    void (*check)(void);
    void (*bench)(void); /* or NULL */
    struct checkasm_suite *next;
} checkasm_suite;

void checkasm_register(checkasm_suite *suite);

#define CHECKASM_SUITE(suite_name, check_fn, bench_fn)                                                                 \
    static checkasm_suite suite_##suite_name = {#suite_name, check_fn, bench_fn, NULL};                                \
    __attribute__((constructor)) static void register_##suite_name(void)                                               \
    {                                                                                                                  \
        checkasm_register(&suite_##suite_name);                                                                        \
    }

/* What the current run compares. `tested` is a copy of the level's table, with one slot spoiled under --break. */
typedef struct checkasm_state {
    mq_isa isa;
    const mq_kernels *ref, *tested;
} checkasm_state;

extern checkasm_state checkasm;

bool checkasm_slot(const char *name);
void checkasm_case(const char *format, ...) __attribute__((format(printf, 1, 2)));
void checkasm_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Random numbers (xoshiro-style, the same on every machine). */
uint64_t checkasm_random(void);
size_t checkasm_below(size_t bound); /* uniform in [0, bound) */
float checkasm_uniform(float low, float high);
float checkasm_normal(void); /* mean 0, deviation 1, |x| < 6 */
void checkasm_fill_normal(float *x, size_t count, float deviation);
void checkasm_fill_bytes(void *x, size_t bytes);
uint16_t checkasm_bf16(float x); /* round to nearest even; x finite */

/* Buffers, owned by the harness until the next checkasm_case or slot. The start is aligned to `align` (a power of two
 * <= 4096) and the end lies less than `align` bytes before an unreadable page; what lies between, and 256 bytes before,
 * is a canary that is checked on release. New buffers are filled with a byte that makes every float a NaN. */
void *checkasm_buffer(size_t bytes, size_t align);
float *checkasm_floats(size_t count);    /* aligned to 4 only, so that kernels cannot assume more */
uint16_t *checkasm_halves(size_t count); /* aligned to 2 only */
uint8_t *checkasm_aligned(size_t bytes); /* aligned to 64: packed panels and scratch */
void *checkasm_copy(const void *from, size_t bytes, size_t align); /* a buffer holding the same bytes */

/* Comparisons; each counts, and each failure names the first difference. All return true when equal. */
bool checkasm_same_bytes(const void *expected, const void *got, size_t bytes);
/* Bit by bit; rows of `cols` floats, `ld` apart. What lies between the rows is compared too (it must be untouched). */
bool checkasm_same_f32(const float *expected, const float *got, size_t rows, size_t cols, size_t ld);
/* |got - expected|_2 <= bound * |expected|_2; the worst seen is part of the report. */
bool checkasm_within(const double *expected, const float *got, size_t count, double bound);
bool checkasm_true(bool condition, const char *what);

/* ------------------------------------------------------------------ benchmarks */

typedef enum checkasm_unit { CHECKASM_MACS, CHECKASM_BYTES, CHECKASM_ITEMS } checkasm_unit;

/* Times fn(context) by thread CPU time: median of repeats. `work` is what one call does; multiply-adds are compared with
 * the level's FMA peak, bytes with the read bandwidth of one thread, measured in turn with the repeats. */
void checkasm_bench(const char *slot, const char *label, void (*fn)(void *), void *context, double work,
                    checkasm_unit unit);

/* The same with `threads` threads by wall clock: fn(context, thread, threads). Shares refer to that many threads. */
void checkasm_bench_threads(const char *slot, const char *label, void (*fn)(void *, int, int), void *context,
                            double work, checkasm_unit unit, int threads);

/* True when benchmarks of that slot are wanted: to skip the set-up. */
bool checkasm_bench_wanted(const char *slot);

/* checkasm_broken.c: replaces one slot of the table by a version that spoils its output; false for an unknown name. */
bool checkasm_spoil(mq_kernels *table, const char *name);
/* The wrong kernels, such as bad_rmsnorm, and the slot that each spoils; NULL after the last. */
const char *checkasm_spoil_name(size_t index, const char **slot);

/* Between checkasm.c and checkasm_bench.c: one level's heading, and the end of all. */
void checkasm_bench_heading(void);
void checkasm_bench_end(void);
void checkasm_die(const char *what) __attribute__((noreturn));

#endif
