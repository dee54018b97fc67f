/* A checkpoint directory: config.json, the header of model.safetensors as JSON, and its data. A header that does not begin with
 * '{' is written as it is; otherwise the target puts its length in front, which a search would not keep right. Data that
 * is '*' and a number is so many zeros, so that an input of a few hundred bytes can be a whole model. */
#include "format/model_config.h"
#include "format/safetensors.h"
#include "fuzz.h"
#include "mixquant_tools.h"

#include <string.h>
#include <unistd.h>

#define MODEL     "model.safetensors"
#define ZEROS_MAX (1L << 24)

enum { CONFIG, HEADER, DATA, PARTS };

static long zeros_asked(const fuzz_part *data)
{
    char number[16] = {0};
    if (data->bytes < 2 || data->bytes >= sizeof number || data->data[0] != '*') return -1;
    memcpy(number, data->data + 1, data->bytes - 1);
    const long count = strtol(number, NULL, 10);
    return count >= 0 && count <= ZEROS_MAX ? count : -1;
}

static void write_model(const fuzz_part *header, const fuzz_part *data)
{
    fuzz_remove(MODEL);
    FILE *const file = fopen(fuzz_path(MODEL), "wb");
    const uint64_t length = header->bytes;
    const long zeros = zeros_asked(data);
    FUZZ_CHECK(file);
    if (header->bytes && header->data[0] == '{') FUZZ_CHECK(fwrite(&length, sizeof length, 1, file) == 1);
    if (header->bytes) FUZZ_CHECK(fwrite(header->data, header->bytes, 1, file) == 1);
    if (data->bytes && zeros < 0) FUZZ_CHECK(fwrite(data->data, data->bytes, 1, file) == 1);
    FUZZ_CHECK(fflush(file) == 0);
    if (zeros > 0) FUZZ_CHECK(ftruncate(fileno(file), ftell(file) + zeros) == 0);
    FUZZ_CHECK(fclose(file) == 0);
}

/* Every byte of every tensor can be read, and lies in the map. */
static void read_tensors(void)
{
    mq_safetensors file;
    mq_error error = {0};
    if (!fuzz_passed(mq__safetensors_open(fuzz_path(MODEL), &file, &error), &error)) return;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < file.count; i++) {
        const mq_tensor *const t = &file.tensors[i];
        FUZZ_CHECK(t == mq__safetensors_find(&file, t->name));
        FUZZ_CHECK(t->bytes <= file.map.bytes);
        for (size_t b = 0; b < t->bytes; b += 1024)
            sum = (uint8_t)(sum + t->data[b]);
        if (t->bytes) sum = (uint8_t)(sum + t->data[t->bytes - 1]);
    }
    mq__safetensors_close(&file);
}

static void read_model_config(void)
{
    static float inv_freq[1 << 16];
    float factor;
    mq_model_config config;
    mq_error error = {0};
    if (!fuzz_passed(mq__model_config_read(fuzz_dir(), &config, &error), &error)) return;
    FUZZ_CHECK(config.eos_count <= MQ_EOS_MAX);
    if (config.head_dim / 2 <= sizeof inv_freq / sizeof *inv_freq)
        mq__rope_frequencies(&config.rope, config.rotary_dim, inv_freq, &factor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[PARTS];
    char *text = NULL;
    mq_error error = {0};
    fuzz_cut(data, bytes, parts, PARTS);
    fuzz_write("config.json", parts[CONFIG].data, parts[CONFIG].bytes);
    write_model(&parts[HEADER], &parts[DATA]);
    read_tensors();
    read_model_config();
    fuzz_accepted = fuzz_passed(mq_inspect(fuzz_dir(), true, &text, &error), &error);
    mq_free(text);
    fuzz_remove("config.json");
    fuzz_remove(MODEL);
    fuzz_free(parts, PARTS);
    return 0;
}
