/* What users give as a model: names of downloads are found, and each common mistake gets a line that says what to do. */
#include "base/mem.h"
#include "format/checkpoint_locate.h"
#include "unit_files.h"

static void make_dir(const char *name)
{
    assert_int_equal(mkdir(unit_path(name), 0755), 0);
}

static void refused(const char *given, mq_status status, const char *names)
{
    char *dir;
    mq_error error = {0};
    unit_refused(mq__checkpoint_locate(given, true, &dir, &error), status, &error, names);
    assert_null(dir);
    assert_non_null(strstr(error.text, given));
    assert_true(strlen(error.text) < sizeof error.text - 1); /* not cut */
}

static void located(const char *given, bool needs_weights, const char *expected)
{
    char *dir;
    mq_error error = {0};
    if (mq__checkpoint_locate(given, needs_weights, &dir, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_string_equal(dir, expected);
    mq__free(dir);
}

static void test_directories(void **state)
{
    (void)state;
    make_dir("m");
    refused(unit_path("m"), MQ_IO, "without config.json");
    unit_puts("m/config.json", "{}");
    refused(unit_path("m"), MQ_IO, "got neither");
    located(unit_path("m"), false, unit_path("m"));
    unit_puts("m/pytorch_model.bin", "PK");
    refused(unit_path("m"), MQ_UNSUPPORTED, "got only pytorch_model.bin");
    unit_puts("m/pytorch_model.safetensors", "x");
    unit_remove(unit_path("m/pytorch_model.bin"));
    refused(unit_path("m"), MQ_FORMAT, "got only pytorch_model.safetensors");
    unit_puts("m/model.safetensors", "x");
    located(unit_path("m"), true, unit_path("m"));
    unit_remove(unit_path("m/model.safetensors"));
    unit_puts("m/model.safetensors.index.json", "{}");
    located(unit_path("m"), true, unit_path("m"));
}

static void test_other_formats(void **state)
{
    (void)state;
    unit_puts("a.gguf", "GGUF\3");
    refused(unit_path("a.gguf"), MQ_UNSUPPORTED, "a GGUF file");
    unit_puts("renamed", "GGUF\3");
    refused(unit_path("renamed"), MQ_UNSUPPORTED, "a GGUF file");
    unit_puts("model.safetensors", "x");
    char names[200];
    snprintf(names, sizeof names, "give %s", unit_dir);
    refused(unit_path("model.safetensors"), MQ_USAGE, names);
    unit_puts("notes.txt", "x");
    refused(unit_path("notes.txt"), MQ_USAGE, "got a file");
    refused(unit_dir, MQ_UNSUPPORTED, "a GGUF file (a.gguf)");
    make_dir("lora");
    unit_puts("lora/adapter_config.json", "{}");
    refused(unit_path("lora"), MQ_UNSUPPORTED, "an adapter (LoRA)");
}

static void test_pointers_of_lfs(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.example/spec/v1\noid sha256:0123\nsize 12345\n";
    make_dir("m");
    unit_puts("m/config.json", "{}");
    unit_puts("m/model.safetensors", pointer);
    refused(unit_path("m"), MQ_FORMAT, "m/model.safetensors: expected the file itself, got a pointer of Git LFS");
    unit_puts("m/model.safetensors", "x");
    unit_puts("m/model-00001-of-00002.safetensors", pointer);
    refused(unit_path("m"), MQ_FORMAT, "model-00001-of-00002.safetensors");
    unit_remove(unit_path("m/model-00001-of-00002.safetensors"));
    unit_puts("m/tokenizer.json", pointer);
    refused(unit_path("m"), MQ_FORMAT, "m/tokenizer.json");
    mq_text *text;
    mq_error error = {0};
    unit_refused(mq_text_open(unit_path("m"), NULL, &text, &error), MQ_FORMAT, &error, "git lfs pull");
}

static void put_snapshot(const char *commit)
{
    char name[200];
    snprintf(name, sizeof name, "hub/models--Some--Model-1.5B/snapshots/%s", commit);
    make_dir(name);
    snprintf(name, sizeof name, "hub/models--Some--Model-1.5B/snapshots/%s/config.json", commit);
    unit_puts(name, "{}");
    snprintf(name, sizeof name, "hub/models--Some--Model-1.5B/snapshots/%s/model.safetensors", commit);
    unit_puts(name, "x");
}

static void test_names_of_downloads(void **state)
{
    (void)state;
    char hub[300], first[400], second[400];
    snprintf(hub, sizeof hub, "%s", unit_path("hub"));
    assert_int_equal(unsetenv("HF_HUB_CACHE"), 0);
    assert_int_equal(setenv("HF_HOME", unit_dir, 1), 0);
    refused("Some/Model-1.5B", MQ_IO, "hf download Some/Model-1.5B");
    refused("Some/Model-1.5B", MQ_IO, hub);
    make_dir("hub");
    make_dir("hub/models--Some--Model-1.5B");
    make_dir("hub/models--Some--Model-1.5B/snapshots");
    refused("Some/Model-1.5B", MQ_IO, "hf download");
    put_snapshot("aaaa");
    snprintf(first, sizeof first, "%s/models--Some--Model-1.5B/snapshots/aaaa", hub);
    located("Some/Model-1.5B", true, first);
    put_snapshot("bbbb");
    make_dir("hub/models--Some--Model-1.5B/refs");
    unit_puts("hub/models--Some--Model-1.5B/refs/main", "aaaa\n");
    located("Some/Model-1.5B", true, first);
    unit_puts("hub/models--Some--Model-1.5B/refs/main", "bbbb");
    snprintf(second, sizeof second, "%s/models--Some--Model-1.5B/snapshots/bbbb", hub);
    located("Some/Model-1.5B", true, second);
    located(unit_path("hub/models--Some--Model-1.5B"), true, second); /* the folder itself */
    /* Half a download. */
    unit_remove(unit_path("hub/models--Some--Model-1.5B/snapshots/bbbb/model.safetensors"));
    char *dir;
    mq_error error = {0};
    unit_refused(mq__checkpoint_locate("Some/Model-1.5B", true, &dir, &error), MQ_IO, &error, "got neither");
    /* The other places of the cache. */
    assert_int_equal(setenv("HF_HUB_CACHE", hub, 1), 0);
    assert_int_equal(setenv("HF_HOME", "/nowhere", 1), 0);
    located("Some/Model-1.5B", false, second);
    assert_int_equal(unsetenv("HF_HUB_CACHE"), 0);
    assert_int_equal(unsetenv("HF_HOME"), 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", "/nowhere", 1), 0);
    refused("Some/Model-1.5B", MQ_IO, "/nowhere/huggingface/hub/models--Some--Model-1.5B");
    /* Paths are no names. */
    refused("./Some/Model-1.5B", MQ_IO, "got nothing at this path");
    refused("Some/Model/1.5B", MQ_IO, "got nothing at this path");
    refused("../Model-1.5B", MQ_IO, "got nothing at this path");
}

/* All entrances take names and give the hints. */
static void test_entrances(void **state)
{
    (void)state;
    char *text, why[256];
    mq_engine *engine;
    mq_text *texts;
    mq_plan_options plan = {0};
    mq_error error = {0};
    unit_puts("a.gguf", "GGUF\3");
    const mq_engine_options options = {.model_dir = unit_path("a.gguf"), .no_cache = true};
    const mq_quantize_options quantize = {.in_dir = unit_path("a.gguf"), .out_dir = unit_path("out")};
    unit_refused(mq_engine_open(&options, &engine, &error), MQ_UNSUPPORTED, &error, "GGUF");
    unit_refused(mq_inspect(unit_path("a.gguf"), true, &text, &error), MQ_UNSUPPORTED, &error, "GGUF");
    unit_refused(mq_quantize_checkpoint(&quantize, &error), MQ_UNSUPPORTED, &error, "GGUF");
    unit_refused(mq_text_open(unit_path("a.gguf"), NULL, &texts, &error), MQ_UNSUPPORTED, &error, "GGUF");
    const mq_engine_options of_file = {.model_dir = unit_path("a.gguf")};
    if (mq_choose_plan(&of_file, true, false, &plan, why, sizeof why, &error) == MQ_OK) fail();
    assert_non_null(strstr(error.text, "GGUF"));
    make_dir("hub");
    make_dir("hub/models--Some--Model");
    make_dir("hub/models--Some--Model/snapshots");
    const mq_synth_options synth = {
        .shape = "tiny-qwen3", .seed = 1, .out_dir = unit_path("hub/models--Some--Model/snapshots/aa")};
    assert_int_equal(mq_synth_checkpoint(&synth, &error), MQ_OK);
    assert_int_equal(setenv("HF_HUB_CACHE", unit_path("hub"), 1), 0);
    assert_int_equal(mq_inspect("Some/Model", true, &text, &error), MQ_OK);
    mq_free(text);
    const mq_engine_options named = {.model_dir = "Some/Model", .no_cache = true, .threads = 1, .context = 32};
    assert_int_equal(mq_engine_open(&named, &engine, &error), MQ_OK);
    mq_engine_close(engine);
    assert_int_equal(mq_text_open("Some/Model", NULL, &texts, &error), MQ_OK);
    mq_text_close(texts);
    const mq_quantize_options quantize_named = {.in_dir = "Some/Model", .out_dir = unit_path("out"), .threads = 1};
    assert_int_equal(mq_quantize_checkpoint(&quantize_named, &error), MQ_OK);
    assert_int_equal(unsetenv("HF_HUB_CACHE"), 0);
}

static void test_allocation_failure(void **state)
{
    (void)state;
    char *dir;
    mq_error error = {0};
    unit_puts("config.json", "{}");
    (void)mq__alloc_fail_at(1);
    unit_refused(mq__checkpoint_locate(unit_dir, false, &dir, &error), MQ_NO_MEMORY, &error, unit_dir);
    assert_null(dir);
    (void)mq__alloc_fail_at(0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, unit_setup, unit_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_directories),        TEST(test_other_formats), TEST(test_pointers_of_lfs),
        TEST(test_names_of_downloads), TEST(test_entrances),     TEST(test_allocation_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
