/* mixquant: runs a prompt through NVFP4 weights and activations, and the answer through the original BF16 weights.
 *
 * This is the only public header. It owns nothing at file scope: every object below has one constructor, one destructor
 * and one owner. The library never prints, exits or aborts on input; each fallible call returns a status and fills the
 * caller's mq_error with one line that names what failed, where, what was expected and what was found. */
#ifndef MIXQUANT_H
#define MIXQUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MQ_API __attribute__((visibility("default")))

/* ---------------------------------------------------------------- status */

/* X(name, text). World and resource errors are statuses; a bug in the library is an assert. */
#define MQ_STATUS_LIST(X)                                                                                              \
    X(OK, "ok")                                                                                                        \
    X(USAGE, "wrong usage")                /* an argument of the caller is out of its documented range */             \
    X(NO_MEMORY, "out of memory")          /* an allocation failed or would pass a configured bound */                 \
    X(IO, "input/output error")            /* the system refused to open, read, map, write or rename */                \
    X(FORMAT, "malformed file")            /* a file's bytes contradict its format */                                  \
    X(UNSUPPORTED, "not supported")        /* a well-formed file asks for something that this library refuses */       \
    X(LIMIT, "limit exceeded")             /* a budget was spent: steps, depth, output bytes, context length */        \
    X(CANCELLED, "cancelled")              /* the caller's callback asked to stop */                                   \
    X(TEMPLATE, "template error")          /* a chat template raised an exception or does not apply */

typedef enum mq_status {
#define MQ_STATUS_ENUM(name, text) MQ_##name,
    MQ_STATUS_LIST(MQ_STATUS_ENUM)
#undef MQ_STATUS_ENUM
} mq_status;

/* Filled by the call that failed first; untouched on success. May be NULL where the text is not wanted. */
typedef struct mq_error {
    mq_status status;
    char text[480]; /* one line, NUL-terminated: "<what>: <where>: expected <x>, got <y>" */
} mq_error;

/* The constant text of a status; never NULL. */
MQ_API const char *mq_status_text(mq_status status);

#ifdef __cplusplus
}
#endif
#endif
