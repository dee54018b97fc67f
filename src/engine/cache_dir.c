#include "engine/cache_dir.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdlib.h>

mq_status mq__cache_dir(const char *given, char **dir, mq_error *error)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    *dir = NULL;
    if (given && !given[0]) return mq__fail(error, MQ_USAGE, "cache: directory: expected a path, got an empty one");
    if (given)
        *dir = mq__strdup(given);
    else if (xdg && xdg[0] == '/')
        *dir = mq__path_join(xdg, "mixquant"); /* relative values are to be ignored */
    else if (home && home[0] == '/')
        *dir = mq__path_join(home, ".cache/mixquant");
    else
        return mq__fail(error, MQ_USAGE, "cache: directory: expected --cache-dir, XDG_CACHE_HOME or HOME, got none");
    return *dir ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "cache: directory: expected memory, got none");
}
