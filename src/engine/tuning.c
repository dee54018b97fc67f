#include "engine/tuning.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "engine/cache_dir.h"
#include "format/packfile.h"
#include "kernels/trial.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define BUDGET_SECONDS  0.35 /* after that nothing is measured again */
#define VARIANT_ROUNDS  9
#define FORMAT_ROUNDS   4
#define CLEARLY         1.03 /* a variant replaces the first one only if it is faster by so much: noise changes nothing */
#define CLEARLY_INEXACT 1.1 /* and one with other results, by so much */
#define FILE_MOST       ((size_t)1 << 16)

/* ---- which work decides */

/* An operation's variants are compared in one kind of work, or some that count alike. */
static const struct {
    mq_work work[3];
    size_t count;
} works[MQ_OPERATIONS] = {
    [MQ_DENSE_THIN] = {{MQ_WORK_THIN, MQ_WORK_THIN_LONG, MQ_WORK_THIN_LONG_ALONE}, 3},
    [MQ_DECODE_SPAN] = {{MQ_WORK_SPAN}, 1},
    [MQ_NVFP4_GEMM] = {{MQ_WORK_NVFP4_ROW, MQ_WORK_NVFP4_ROW_ALONE, MQ_WORK_NVFP4}, 3},
    [MQ_INT8_GEMM] = {{MQ_WORK_INT8_ROW, MQ_WORK_INT8}, 2},
    [MQ_INT8_ATTENTION] = {{MQ_WORK_NEAR_INT8}, 1},
};

/* Formats in the order of the enum; FP8 runs by BF16's kernels. */
static const mq_work linear_work[] = {[MQ_LINEAR_BF16] = MQ_WORK_BF16,
                                      [MQ_LINEAR_NVFP4] = MQ_WORK_NVFP4,
                                      [MQ_LINEAR_W4A16] = MQ_WORK_W4A16,
                                      [MQ_LINEAR_W16A16] = MQ_WORK_W16A16,
                                      [MQ_LINEAR_INT8] = MQ_WORK_INT8};

static const mq_work attention_work[MQ_ATTENTION_FORMATS][2] = {
    [MQ_ATTENTION_BF16] = {MQ_WORK_NEAR_BF16, MQ_WORK_FAR_BF16},
    [MQ_ATTENTION_INT8] = {MQ_WORK_NEAR_INT8, MQ_WORK_FAR_INT8},
    [MQ_ATTENTION_W16A16] = {MQ_WORK_NEAR_W16A16, MQ_WORK_FAR_W16A16},
};

/* ---- measuring */

static void race_variants(mq_trial *trial, const mq_kernels *level, double deadline, mq_tuning *tuning)
{
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        const size_t count = level->variants[o].count;
        mq_kernels table[MQ_VARIANTS_MOST];
        mq_contender contender[MQ_VARIANTS_MOST];
        for (size_t v = 0; v < count; v++) {
            table[v] = *level;
            mq__variant_use(&table[v], (mq_operation)o, v);
            tuning->variant[o][v] = 1;
        }
        for (size_t w = 0; count > 1 && w < works[o].count; w++) {
            for (size_t v = 0; v < count; v++)
                contender[v] = (mq_contender){.kernels = &table[v], .work = works[o].work[w]};
            mq__trial_race(trial, contender, count, VARIANT_ROUNDS, deadline);
            for (size_t v = 0; v < count; v++) /* the geometric mean */
                tuning->variant[o][v] *= pow(contender[v].seconds, 1.0 / (double)works[o].count);
        }
    }
}

static void same_attention(mq_tuning *tuning, mq_attention_format format)
{
    memcpy(tuning->attention[format], tuning->attention[MQ_ATTENTION_BF16], sizeof tuning->attention[format]);
}

static void race_formats(mq_trial *trial, const mq_kernels *tuned, double deadline, mq_tuning *tuning)
{
    enum { LINEAR = sizeof linear_work / sizeof linear_work[0], ATTENTION = 2 * MQ_ATTENTION_FORMATS };
    _Static_assert((int)LINEAR == (int)MQ_LINEAR_FP8 && (int)LINEAR + 1 == (int)MQ_LINEAR_FORMATS, "all but FP8");
    mq_contender linear[LINEAR], attention[ATTENTION];
    for (int f = 0; f < LINEAR; f++)
        linear[f] = (mq_contender){.kernels = tuned, .work = linear_work[f]};
    for (int f = 0; f < ATTENTION; f++)
        attention[f] = (mq_contender){.kernels = tuned, .work = attention_work[f / 2][f % 2]};
    mq__trial_race(trial, linear, LINEAR, FORMAT_ROUNDS, deadline);
    mq__trial_race(trial, attention, ATTENTION, FORMAT_ROUNDS, deadline);
    for (int f = 0; f < LINEAR; f++)
        tuning->linear[f] = linear[f].seconds;
    for (int f = 0; f < ATTENTION; f++)
        tuning->attention[f / 2][f % 2] = attention[f].seconds;
    /* Where a format runs by the kernel of a more precise one, it takes the same time, whatever was measured. */
    tuning->linear[MQ_LINEAR_FP8] = tuning->linear[MQ_LINEAR_BF16];
    if (tuned->bf16_gemm == tuned->dense_gemm) tuning->linear[MQ_LINEAR_W16A16] = tuning->linear[MQ_LINEAR_BF16];
    if (tuned->attention_prefill_int8 == tuned->attention_prefill) same_attention(tuning, MQ_ATTENTION_INT8);
    if (tuned->attention_prefill_bf16 == tuned->attention_prefill) same_attention(tuning, MQ_ATTENTION_W16A16);
    tuning->has_formats = true;
}

static bool has_variants(const mq_kernels *level)
{
    bool any = false;
    for (int o = 0; o < MQ_OPERATIONS; o++)
        any = any || level->variants[o].count > 1;
    return any;
}

/* Fills what `tuning` lacks. */
static mq_status measure_tuning(const mq_kernels *level, bool variants, bool formats, mq_tuning *tuning,
                                mq_error *error)
{
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    mq_trial *trial;
    mq_status status = mq__trial_new(level, cpu.threads, &trial, error);
    if (!trial) return status;
    const double deadline = mq__seconds() + BUDGET_SECONDS;
    if (variants) race_variants(trial, level, deadline, tuning);
    mq_winners winners;
    mq_kernels tuned = *level;
    if (formats) status = mq__winners_of(level, tuning, &winners, error);
    if (formats && status == MQ_OK) {
        for (int o = 0; o < MQ_OPERATIONS; o++) {
            if (level->variants[o].count) mq__variant_use(&tuned, (mq_operation)o, winners.variant[o]);
        }
        race_formats(trial, &tuned, deadline, tuning);
    }
    mq__trial_free(trial);
    return status;
}

/* ---- the file */

/* What a measurement belongs to. */
static void key_text(mq_isa isa, mq_buf *text)
{
    mq_cpu_info cpu;
    mq__cpu_info(&cpu);
    mq__buf_clear(text);
    mq__buf_printf(text, "%s; %d threads; %s; mixquant %s %s", cpu.name, cpu.threads, mq__isa_name(isa), mq_version(),
                   mq_commit());
    for (size_t i = 0; i < text->len; i++) { /* the processor's name is not ours: keep it out of JSON's way */
        const unsigned char c = (unsigned char)text->data[i];
        if (c == '"' || c == '\\' || c < ' ' || c > '~') text->data[i] = ' ';
    }
}

char *mq__tuning_path(mq_isa isa, const char *cache_dir)
{
    mq_buf text = {0};
    char *dir, *path = NULL;
    if (mq__cache_dir(cache_dir, &dir, NULL) != MQ_OK) return NULL;
    key_text(isa, &text);
    const mq_digest digest = mq__digest(text.data, text.failed ? 0 : text.len);
    mq__buf_clear(&text);
    mq__buf_printf(&text, "%s/machine/", dir);
    for (size_t i = 0; i < 8; i++)
        mq__buf_printf(&text, "%02x", digest.bytes[i]);
    mq__buf_puts(&text, ".json");
    if (!text.failed) path = mq__strdup(text.data);
    mq__buf_free(&text);
    mq__free(dir);
    return path;
}

/* Member `name` of a JSON object as seconds; 0: it is none. */
static double kept_seconds(const json_t *object, const char *name)
{
    const double value = json_number_value(json_object_get(object, name));
    return isfinite(value) && value > 0 && value < 1e6 ? value : 0;
}

static bool read_variants(const json_t *root, const mq_kernels *level, mq_tuning *tuning)
{
    const json_t *variants = json_object_get(root, "variants");
    bool ok = true;
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        const json_t *operation = json_object_get(variants, mq__operation_name((mq_operation)o));
        for (size_t v = 0; v < level->variants[o].count; v++) {
            tuning->variant[o][v] = kept_seconds(operation, level->variants[o].one[v].name);
            ok = ok && tuning->variant[o][v] > 0;
        }
    }
    return ok;
}

static void read_formats(const json_t *root, mq_tuning *tuning)
{
    const json_t *linear = json_object_get(root, "prefill"), *near = json_object_get(root, "attention"),
                 *far = json_object_get(root, "attention_far");
    bool ok = true;
    for (int f = 0; f < MQ_LINEAR_FORMATS; f++) {
        tuning->linear[f] = kept_seconds(linear, mq_linear_format_name((mq_linear_format)f));
        ok = ok && tuning->linear[f] > 0;
    }
    for (int f = 0; f < MQ_ATTENTION_FORMATS; f++) {
        const char *name = mq_attention_format_name((mq_attention_format)f);
        tuning->attention[f][0] = kept_seconds(near, name);
        tuning->attention[f][1] = kept_seconds(far, name);
        ok = ok && tuning->attention[f][0] > 0 && tuning->attention[f][1] > 0;
    }
    tuning->has_formats = ok;
}

/* True: the file has this key and all variants of the level. */
static bool read_file_tuning(const char *path, const char *key, const mq_kernels *level, mq_tuning *tuning)
{
    char *data;
    size_t bytes;
    json_t *root = NULL;
    if (!mq__file_exists(path) || mq__file_read(path, FILE_MOST, &data, &bytes, NULL) != MQ_OK) return false;
    const mq_status status = mq__json_parse(data, bytes, 256, "machine", path, &root, NULL);
    mq__free(data);
    if (status != MQ_OK) return false;
    const char *got = json_string_value(json_object_get(root, "machine"));
    const bool ok = got && strcmp(got, key) == 0 && read_variants(root, level, tuning);
    if (ok) read_formats(root, tuning);
    json_decref(root);
    return ok;
}

static void put_numbers(mq_buf *text, const char *name, const char *const *names, const double *seconds, size_t step,
                        size_t count)
{
    mq__buf_printf(text, ",\n \"%s\": {", name);
    for (size_t i = 0; i < count; i++)
        mq__buf_printf(text, "%s\"%s\": %.6e", i ? ", " : "", names[i], seconds[i * step]);
    mq__buf_puts(text, "}");
}

static void print_tuning(const mq_kernels *level, const char *key, const mq_tuning *tuning, mq_buf *text)
{
    const char *linear[MQ_LINEAR_FORMATS], *attention[MQ_ATTENTION_FORMATS];
    bool comma = false;
    mq__buf_printf(text, "{\"machine\": \"%s\",\n \"variants\": {", key);
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        const mq_variants *v = &level->variants[o];
        if (!v->count) continue;
        mq__buf_printf(text, "%s\n  \"%s\": {", comma ? "," : "", mq__operation_name((mq_operation)o));
        for (size_t i = 0; i < v->count; i++)
            mq__buf_printf(text, "%s\"%s\": %.6e", i ? ", " : "", v->one[i].name, tuning->variant[o][i]);
        mq__buf_puts(text, "}");
        comma = true;
    }
    mq__buf_puts(text, "}");
    for (int f = 0; f < MQ_LINEAR_FORMATS; f++)
        linear[f] = mq_linear_format_name((mq_linear_format)f);
    for (int f = 0; f < MQ_ATTENTION_FORMATS; f++)
        attention[f] = mq_attention_format_name((mq_attention_format)f);
    if (tuning->has_formats) {
        put_numbers(text, "prefill", linear, tuning->linear, 1, MQ_LINEAR_FORMATS);
        put_numbers(text, "attention", attention, &tuning->attention[0][0], 2, MQ_ATTENTION_FORMATS);
        put_numbers(text, "attention_far", attention, &tuning->attention[0][1], 2, MQ_ATTENTION_FORMATS);
    }
    mq__buf_puts(text, "}\n");
}

/* Best effort: without the file the next process measures again. */
static void write_file_tuning(const char *path, const char *key, const mq_kernels *level, const mq_tuning *tuning)
{
    mq_buf text = {0};
    mq_writer writer = {0};
    print_tuning(level, key, tuning, &text);
    char *dir = mq__strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (slash) *slash = '\0';
    if (!text.failed && slash && mq__make_dirs(dir, NULL) == MQ_OK && mq__writer_open(&writer, path, NULL) == MQ_OK) {
        if (mq__writer_put(&writer, text.data, text.len, NULL) == MQ_OK)
            (void)mq__writer_commit(&writer, NULL);
        else
            mq__writer_abort(&writer);
    }
    mq__free(dir);
    mq__buf_free(&text);
}

mq_status mq__tuning_read(mq_isa isa, const char *cache_dir, bool formats, mq_tuning *tuning, mq_error *error)
{
    const mq_kernels *level = mq__kernels_get(isa);
    mq_buf key = {0};
    *tuning = (mq_tuning){0};
    if (!formats && !has_variants(level)) return MQ_OK;
    key_text(isa, &key);
    char *path = key.failed ? NULL : mq__tuning_path(isa, cache_dir);
    const bool found = path && read_file_tuning(path, key.data, level, tuning);
    mq_status status = MQ_OK;
    if (!found) *tuning = (mq_tuning){0};
    if (!found || (formats && !tuning->has_formats)) {
        status = measure_tuning(level, !found, formats, tuning, error);
        if (status == MQ_OK && path) write_file_tuning(path, key.data, level, tuning);
    }
    mq__free(path);
    mq__buf_free(&key);
    return status;
}

/* ---- once a process */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* protects the two below */
static mq_tuning remembered[MQ_ISA_COUNT];
static bool remembers[MQ_ISA_COUNT];

mq_status mq__tuning_get(mq_isa isa, const char *cache_dir, bool formats, mq_tuning *tuning, mq_error *error)
{
    mq_status status = MQ_OK;
    pthread_mutex_lock(&lock);
    if (remembers[isa] && (!formats || remembered[isa].has_formats)) {
        *tuning = remembered[isa];
    } else {
        status = mq__tuning_read(isa, cache_dir, formats, tuning, error);
        if (status == MQ_OK) {
            remembered[isa] = *tuning;
            remembers[isa] = true;
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

void mq__tuning_forget(void)
{
    pthread_mutex_lock(&lock);
    memset(remembers, 0, sizeof remembers);
    pthread_mutex_unlock(&lock);
}

/* ---- winners */

/* One "operation=variant" of MQ_VARIANTS. Operations and variants of other levels are let pass, so that one setting serves all. */
static mq_status pin(const mq_kernels *level, const char *text, size_t length, mq_winners *winners, mq_error *error)
{
    const char *equals = memchr(text, '=', length);
    for (int o = 0; equals && o < MQ_OPERATIONS; o++) {
        const char *name = mq__operation_name((mq_operation)o);
        if (strlen(name) != (size_t)(equals - text) || memcmp(name, text, strlen(name)) != 0) continue;
        const size_t left = length - (size_t)(equals + 1 - text);
        for (size_t v = 0; v < level->variants[o].count; v++) {
            const char *variant = level->variants[o].one[v].name;
            if (strlen(variant) != left || memcmp(variant, equals + 1, left) != 0) continue;
            winners->variant[o] = v;
            winners->pinned[o] = true;
        }
        return MQ_OK;
    }
    return mq__fail(error, MQ_USAGE,
                    "cpu: MQ_VARIANTS: expected operation=variant,... as `mixquant cpu` prints them, got %.*s",
                    (int)(length < 80 ? length : 80), text);
}

mq_status mq__winners_of(const mq_kernels *level, const mq_tuning *tuning, mq_winners *winners, mq_error *error)
{
    *winners = (mq_winners){0};
    for (int o = 0; o < MQ_OPERATIONS; o++) {
        const double *seconds = tuning->variant[o],
                     clearly = mq__operation_exact((mq_operation)o) ? CLEARLY : CLEARLY_INEXACT;
        for (size_t v = 1; v < level->variants[o].count; v++) {
            const size_t best = winners->variant[o];
            if (seconds[v] * (best ? 1 : clearly) < seconds[best]) winners->variant[o] = v;
        }
    }
    const char *wish = getenv("MQ_VARIANTS");
    for (size_t length; wish && *wish; wish += length + (wish[length] == ',')) {
        length = strcspn(wish, ",");
        const mq_status status = pin(level, wish, length, winners, error);
        if (status != MQ_OK) return status;
    }
    return MQ_OK;
}

static bool all_pinned(const mq_kernels *level, const mq_winners *winners)
{
    bool all = true;
    for (int o = 0; o < MQ_OPERATIONS; o++)
        all = all && (level->variants[o].count < 2 || winners->pinned[o]);
    return all;
}

mq_status mq__tuned_kernels(mq_isa isa, const char *cache_dir, mq_kernels *table, mq_error *error)
{
    mq_tuning tuning = {0};
    mq_winners winners;
    *table = *mq__kernels_get(isa);
    mq_status status = mq__winners_of(table, &tuning, &winners, error);
    if (status != MQ_OK || all_pinned(table, &winners)) goto use;
    status = mq__tuning_get(isa, cache_dir, false, &tuning, error);
    if (status == MQ_OK) status = mq__winners_of(table, &tuning, &winners, error);
use:
    for (int o = 0; status == MQ_OK && o < MQ_OPERATIONS; o++) {
        if (table->variants[o].count) mq__variant_use(table, (mq_operation)o, winners.variant[o]);
    }
    return status;
}
