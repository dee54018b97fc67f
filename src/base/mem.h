/* Memory: every allocation of the library goes through here, so that tests can make any one of them fail. */
#ifndef MQ_BASE_MEM_H
#define MQ_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All return NULL when memory is short (or an injected failure is due); size 0 is treated as 1. Free with mq__free. */
void *mq__alloc(size_t bytes);
void *mq__alloc_zero(size_t count, size_t bytes_each); /* NULL as well when count * bytes_each overflows */
void *mq__realloc(void *block, size_t bytes);
char *mq__strdup(const char *text);
char *mq__strndup(const char *text, size_t bytes); /* copies exactly `bytes` bytes and appends a NUL */
void mq__free(void *block);

/* 64-byte aligned (a cache line, a ZMM register); huge-page advised from 4 MiB up. Free with mq__free_aligned. */
void *mq__alloc_aligned(size_t bytes);
void mq__free_aligned(void *block);

bool mq__large_pages(void);          /* whether the advice may be followed */
uint64_t mq__memory_total(void);     /* of the machine, or of the container that bounds it */
uint64_t mq__memory_available(void); /* MemAvailable (else the free pages), or what the container leaves of it */

/* Counts an allocation that another allocator makes for us; true: it must fail, as the test hook below asks. */
bool mq__alloc_refused(void);

/* Test hook: the n-th allocation from now (1 = the next) fails, and only that one; 0 switches the hook off.
 * Returns how many allocations were made since the last call. */
unsigned long mq__alloc_fail_at(unsigned long n);

/* Debug guard for the token loop: between begin and end each allocation of this thread is counted. */
void mq__alloc_guard_begin(void);
unsigned long mq__alloc_guard_end(void);

#endif
