/* The files of a quantised checkpoint that hold no tensors. Internal to src/engine. */
#ifndef MQ_QUANTIZE_FILES_H
#define MQ_QUANTIZE_FILES_H

#include "format/checkpoint_write.h"
#include "mixquant_tools.h"

/* config.json of in_dir with a quantization_config (and hf_quant_config.json for ModelOpt). ignored: names of the modules
 * that stay dense, an array of strings. Refuses a model that is quantised already. */
mq_status mq__quantize_configs(mq_checkpoint_writer *writer, const char *in_dir, mq_checkpoint_layout layout,
                               const json_t *ignored, mq_error *error);

/* Copies what else is in in_dir: tokenizer, templates, licence; no weights in any form, no folders, no hidden files. */
mq_status mq__quantize_copy_files(mq_checkpoint_writer *writer, const char *in_dir, mq_error *error);

#endif
