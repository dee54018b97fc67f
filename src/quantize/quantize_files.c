/* What the two producers of NVFP4 checkpoints, compressed-tensors and ModelOpt, write beside the tensors. */
#include "quantize/quantize_files.h"

#include "base/ascii.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_MAX ((size_t)4 << 20)
#define COPY_MAX   ((size_t)256 << 20)

static json_t *compressed_tensors_config(const json_t *ignored)
{
    return json_pack("{ss ss ss s{s{ss s[s] s{si ss ss si sb sb ss} sn sn}} sO sn sn}", "quant_method",
                     "compressed-tensors", "format", "nvfp4-pack-quantized", "quantization_status", "compressed",
                     "config_groups", "group_0", "format", "nvfp4-pack-quantized", "targets", "Linear", "weights",
                     "num_bits", 4, "type", "float", "strategy", "tensor_group", "group_size", 16, "symmetric", 1,
                     "dynamic", 0, "observer", "minmax", "input_activations", "output_activations", "ignore", ignored,
                     "kv_cache_scheme", "global_compression_ratio");
}

static json_t *modelopt_config(const json_t *ignored)
{
    return json_pack("{ss ss s{s{s{sb si ss si} s[s]}} sO s{ss ss}}", "quant_method", "modelopt", "quant_algo",
                     "W4A16_NVFP4", "config_groups", "group_0", "weights", "dynamic", 0, "num_bits", 4, "type", "float",
                     "group_size", 16, "targets", "Linear", "ignore", ignored, "producer", "name", "modelopt",
                     "version", "mixquant");
}

/* Readers recognise the file by this producer's name. */
static json_t *modelopt_file(const json_t *ignored)
{
    return json_pack("{s{ss ss} s{ss sn si sO}}", "producer", "name", "modelopt", "version", "mixquant", "quantization",
                     "quant_algo", "W4A16_NVFP4", "kv_cache_quant_algo", "group_size", 16, "exclude_modules", ignored);
}

static mq_status put(mq_checkpoint_writer *w, const char *name, json_t *value, mq_error *error)
{
    if (!value) return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", name);
    const mq_status s = mq__checkpoint_put_json(w, name, value, error);
    json_decref(value);
    return s;
}

mq_status mq__quantize_configs(mq_checkpoint_writer *w, const char *in_dir, mq_checkpoint_layout layout,
                               const json_t *ignored, mq_error *error)
{
    json_t *root = NULL;
    char *path = mq__path_join(in_dir, "config.json");
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", in_dir);
    mq_status s = mq__json_file(path, CONFIG_MAX, &root, error);
    if (s == MQ_OK && json_object_get(root, "quantization_config")) {
        s = mq__fail(error, MQ_UNSUPPORTED, "quantize: %s: expected a dense model, got a quantization_config", path);
    }
    if (s == MQ_OK) {
        json_t *own = layout == MQ_LAYOUT_MODELOPT ? modelopt_config(ignored) : compressed_tensors_config(ignored);
        if (!own || json_object_set_new(root, "quantization_config", own) != 0) {
            s = mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", path);
        }
    }
    if (s == MQ_OK) s = mq__checkpoint_put_json(w, "config.json", root, error);
    if (s == MQ_OK && layout == MQ_LAYOUT_MODELOPT) s = put(w, "hf_quant_config.json", modelopt_file(ignored), error);
    json_decref(root);
    mq__free(path);
    return s;
}

/* Weights in any form, and what is written anew. */
static bool is_left_out(const char *name)
{
    static const char *const endings[] = {".safetensors", ".safetensors.index.json",
                                          ".bin",         ".bin.index.json",
                                          ".pt",          ".pth",
                                          ".ckpt",        ".gguf",
                                          ".onnx",        ".onnx_data",
                                          ".h5",          ".msgpack"};
    static const char *const names[] = {"config.json", "hf_quant_config.json"};
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        if (mq__has_ending(name, endings[i])) return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) return true;
    }
    return name[0] == '.';
}

static mq_status copy_file(mq_checkpoint_writer *w, const char *in_dir, const char *name, mq_error *error)
{
    struct stat info;
    char *path = mq__path_join(in_dir, name), *data = NULL;
    size_t bytes;
    if (!path) return mq__fail(error, MQ_NO_MEMORY, "quantize: %s: expected memory, got none", name);
    mq_status s = MQ_OK;
    if (stat(path, &info) == 0 && S_ISREG(info.st_mode)) {
        s = mq__file_read(path, COPY_MAX, &data, &bytes, error);
        if (s == MQ_OK) s = mq__checkpoint_put_file(w, name, data, bytes, error);
    }
    mq__free(data);
    mq__free(path);
    return s;
}

mq_status mq__quantize_copy_files(mq_checkpoint_writer *w, const char *in_dir, mq_error *error)
{
    DIR *dir = opendir(in_dir);
    if (!dir) return mq__fail(error, MQ_IO, "quantize: %s: expected to list it, got %s", in_dir, strerror(errno));
    mq_status s = MQ_OK;
    for (const struct dirent *e = readdir(dir); s == MQ_OK && e; e = readdir(dir)) {
        if (!is_left_out(e->d_name)) s = copy_file(w, in_dir, e->d_name, error);
    }
    closedir(dir);
    return s;
}
