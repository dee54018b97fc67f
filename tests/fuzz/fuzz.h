/* What the fuzz targets share. A target is one file fuzz_NAME.c with a LLVMFuzzerTestOneInput; its seeds are in corpus/NAME, and
 * NAME.dict is its dictionary if there is one. CMake makes two programs of it: replay_NAME runs the seeds as a unit test with any
 * compiler, fuzz_NAME searches on from them (MQ_FUZZ, clang).
 *
 * A seed named ok-* must be accepted and one named bad-* refused, or its replay fails: a seed that no longer gets past the
 * first check would go unnoticed otherwise. */
#ifndef MQ_FUZZ_H
#define MQ_FUZZ_H

#include "mixquant.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

extern bool fuzz_accepted; /* set by the target: the latest input went through every step */

/* Holds for every input whatever; the program stops where it does not. */
#define FUZZ_CHECK(condition)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: expected %s\n", __FILE__, __LINE__, #condition);                                   \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* A part of an input: a heap block of exactly `bytes` bytes, so that a read past its end is seen. */
typedef struct fuzz_part {
    char *data; /* NULL: the input has no such part */
    size_t bytes;
} fuzz_part;

/* Cuts an input at lines of "----" into at most `count` parts; the last one keeps the rest. Every byte may be in it. */
void fuzz_cut(const uint8_t *data, size_t bytes, fuzz_part *parts, size_t count);
void fuzz_free(fuzz_part *parts, size_t count);

/* Returns whether the call succeeded; checks that one that failed says so in one line. */
bool fuzz_passed(mq_status status, const mq_error *error);

/* This process's scratch directory, removed at exit, and "<directory>/<name>" (valid until the next call). */
const char *fuzz_dir(void);
const char *fuzz_path(const char *name);
void fuzz_write(const char *name, const void *data, size_t bytes); /* the file is made anew */
void fuzz_remove(const char *name);

#endif
