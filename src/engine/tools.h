/* The tools are public: mixquant.h declares them. */
#ifndef MQ_TOOLS_H
#define MQ_TOOLS_H

#include "mixquant.h"

#endif
