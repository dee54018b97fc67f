#include "link/link_ucx_library.h"

#include "base/error.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libucp.so.0"

mq_ucx_calls mq__ucx;

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER; /* of all below, and of filling mq__ucx */
static bool is_loaded;

/* It prints to the standard output, and what peers do is not worth that. */
static void quieten(void *library)
{
    ucs_status_t (*set)(const char *name, const char *value);
    void (*disable_signals)(void);
    *(void **)&set = dlsym(library, "ucs_global_opts_set_value");
    *(void **)&disable_signals = dlsym(library, "ucs_debug_disable_signals");
    if (set && !getenv("UCX_LOG_LEVEL")) (void)set("LOG_LEVEL", "fatal");
    if (disable_signals && !getenv("UCX_ERROR_SIGNALS") && !getenv("UCX_HANDLE_ERRORS")) disable_signals();
}

/* NULL: all were found; else the name of one that is missing. */
static const char *find_calls(void *library)
{
#define FIND(name)                                                                                                     \
    *(void **)&mq__ucx.name = dlsym(library, #name);                                                                   \
    if (!mq__ucx.name) return #name;
    MQ_UCX_CALLS(FIND)
#undef FIND
    return NULL;
}

/* Loading sets a stack for signals, for this thread only and for handlers that are not to stay. */
static void *open_library(void)
{
    stack_t before;
    const bool is_known = sigaltstack(NULL, &before) == 0;
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library) quieten(library);
    if (is_known) (void)sigaltstack(&before, NULL);
    return library;
}

static mq_status load_library(mq_error *error)
{
    void *library = open_library(); /* never closed: it has threads and handlers of its own */
    const char *missing = library ? find_calls(library) : NULL;
    is_loaded = library && !missing;
    if (is_loaded) return MQ_OK;
    return mq__fail(error, MQ_UNSUPPORTED, "link: ucx: expected %s, got %s", missing ? missing : LIBRARY,
                    missing ? "another version of " LIBRARY : dlerror());
}

mq_status mq__ucx_load(mq_error *error)
{
    pthread_mutex_lock(&load_lock);
    const mq_status status = is_loaded ? MQ_OK : load_library(error);
    pthread_mutex_unlock(&load_lock);
    return status;
}
