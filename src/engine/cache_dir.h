/* Where files that can be made again are kept between runs. */
#ifndef MQ_CACHE_DIR_H
#define MQ_CACHE_DIR_H

#include "mixquant.h"

/* given, or $XDG_CACHE_HOME/mixquant, or $HOME/.cache/mixquant. *dir is owned (mq__free); nothing is created. */
mq_status mq__cache_dir(const char *given, char **dir, mq_error *error);

#endif
