/* From what a user gives as a model to the directory of its checkpoint, or to an error that says what to give instead. */
#ifndef MQ_CHECKPOINT_LOCATE_H
#define MQ_CHECKPOINT_LOCATE_H

#include "mixquant.h"

/* given: a directory, or OWNER/NAME of a model that `hf download` has put into its cache (HF_HUB_CACHE, HF_HOME,
 * XDG_CACHE_HOME or ~/.cache). needs_weights: look for config.json and weights as well, and recognise what people have in
 * their place: GGUF, PyTorch pickles, pointers of Git LFS, adapters. *dir is owned: mq__free. */
mq_status mq__checkpoint_locate(const char *given, bool needs_weights, char **dir, mq_error *error);

#endif
