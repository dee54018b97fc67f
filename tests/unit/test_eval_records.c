/* What a file of records begins with: which headers go on with which, what is refused and how it is named, plans that join; and the
 * digests of checkpoints that it holds. */
#define TOKENS 1
#include "unit_model.h"

#include "base/file.h"
#include "base/mem.h"
#include "eval/run_header.h"
#include "eval/store.h"

static json_t *header_of(const char *isa, const char *model_digest, const char *plans)
{
    json_t *read = json_loads(plans, 0, NULL);
    assert_non_null(read);
    return json_pack("{sssssssssosssss{si}}", "task", "t", "isa", isa, "model", model_digest, "prefill_model", "",
                     "plans", read, "seed", "42", "scales", "rtn", "settings", "max_tokens", 8);
}

static const char mix[] = "{\"mix\": {\"prefill\": \"nvfp4\", \"decode\": \"bf16\"}}";
static const char file_a[] = "{\"p.json\": {\"prefill\": \"nvfp4\", \"file\": \"a\"}}";
static const char file_b[] = "{\"p.json\": {\"prefill\": \"nvfp4\", \"file\": \"b\"}}";

/* What `is` says of records that begin with `was`; takes both. NULL in names: it goes on. */
static void expect_header(json_t *was, json_t *is, const char *names)
{
    mq_error error = {0};
    const mq_status status = mq__eval_header_check(was, is, "out/t.jsonl", &error);
    if (status != (names ? MQ_USAGE : MQ_OK)) fail_msg("%s: %s", names ? names : "the same", error.text);
    if (names && (!strstr(error.text, names) || !strstr(error.text, "out/t.jsonl") || !strstr(error.text, "anew")))
        fail_msg("%s: %s", names, error.text);
    json_decref(was);
    json_decref(is);
}

static void headers_are_compared(void **state)
{
    (void)state;
    expect_header(header_of("avx2", "1", mix), header_of("avx2", "1", mix), NULL);
    expect_header(header_of("avx2", "1", mix), header_of("avx2", "1", file_a),
                  NULL); /* another plan is no contradiction */
    expect_header(header_of("avx2", "1", file_a), header_of("avx2", "1", file_b), "plan p.json");
    expect_header(header_of("avx2", "1", mix), header_of("ref", "1", mix), "kernel level: expected records of \"ref\"");
    expect_header(header_of("avx2", "1", mix), header_of("avx2", "2", mix), ": checkpoint");
    static const char *const added_since[] = {"isa", "plans", "prefill_model", "model"};
    for (size_t i = 0; i < sizeof added_since / sizeof added_since[0]; i++) {
        json_t *old = header_of("avx2", "1", mix);
        json_object_del(old, added_since[i]);
        expect_header(old, header_of("avx2", "1", mix), "another version");
    }
    json_t *prefill = header_of("avx2", "1", mix), *more = header_of("avx2", "1", mix);
    json_object_set_new(prefill, "prefill_model", json_string("3"));
    expect_header(prefill, header_of("avx2", "1", mix), "prefill checkpoint");
    json_object_set_new(more, "later", json_true());
    expect_header(more, header_of("avx2", "1", mix), "later");
    expect_header(json_integer(5), header_of("avx2", "1", mix), "another version");
}

static void add_record(mq_eval_store *store, const char *plan)
{
    mq_error error = {0};
    if (mq__eval_store_add(store, json_pack("{ssssss}", "plan", plan, "id", "i", "answer", "\n"), &error) != MQ_OK)
        fail_msg("%s", error.text);
}

/* Opens the file with that header; adds a record of that plan (NULL: none). */
static void open_and_add(json_t *header, const char *plan, size_t plans_after)
{
    mq_eval_store store;
    mq_error error = {0};
    const char *path = unit_path("t.jsonl");
    json_t *lines;
    if (mq__eval_store_open(&store, path, header, &error) != MQ_OK) fail_msg("%s", error.text);
    if (plan) add_record(&store, plan);
    mq__eval_store_close(&store);
    json_decref(header);
    assert_int_equal(mq__eval_read_lines(path, false, &lines, &error), MQ_OK);
    assert_int_equal(json_object_size(json_object_get(json_array_get(lines, 0), "plans")), plans_after);
    json_decref(lines);
}

/* A later run with other plans appends its records, and the header tells of all plans whose records there are. */
static void plans_join(void **state)
{
    (void)state;
    mq_eval_store store;
    mq_error error = {0};
    open_and_add(header_of("avx2", "1", file_a), "p.json", 1);
    open_and_add(header_of("avx2", "1", mix), NULL, 1); /* no record yet: the file stays as it is */
    open_and_add(header_of("avx2", "1", mix), "mix", 2);
    open_and_add(header_of("avx2", "1", mix), NULL, 2);
    json_t *header = header_of("avx2", "1", file_b);
    assert_int_equal(mq__eval_store_open(&store, unit_path("t.jsonl"), header, &error), MQ_USAGE);
    json_decref(header);
    header = header_of("avx2", "1", file_a);
    assert_int_equal(mq__eval_store_open(&store, unit_path("t.jsonl"), header, &error), MQ_OK);
    assert_non_null(mq__eval_store_get(&store, "p.json", "i"));
    assert_non_null(mq__eval_store_get(&store, "mix", "i"));
    mq__eval_store_close(&store);
    json_decref(header);
}

/* ------------------------------------------------------------------ digests of checkpoints */

static void copy_file(const char *name)
{
    char from[512];
    char *bytes;
    size_t count;
    snprintf(from, sizeof from, "%s/%s", model, name);
    assert_int_equal(mq__file_read(from, (size_t)1 << 28, &bytes, &count, NULL), MQ_OK);
    unit_write(name, bytes, count);
    mq__free(bytes);
}

static mq_sources sources_of(const char *prefill_model)
{
    const mq_engine_options options = {
        .model_dir = unit_dir, .prefill_model_dir = prefill_model, .threads = 2, .context = 64, .no_cache = true};
    mq_engine *engine = NULL;
    mq_sources sources = {.model = ""};
    mq_error error = {0};
    if (mq_engine_open(&options, &engine, &error) != MQ_OK) fail_msg("%s", error.text);
    if (mq_engine_sources(engine, &sources, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_engine_close(engine);
    assert_int_equal(strlen(sources.model), MQ_SOURCE_SIZE - 1);
    return sources;
}

/* Adds a blank at the end of a JSON file: another text of the same meaning. */
static void change_file(const char *name)
{
    FILE *file = fopen(unit_path(name), "ab");
    assert_non_null(file);
    assert_int_equal(fputc(' ', file), ' ');
    assert_int_equal(fclose(file), 0);
}

static void change_weight(const char *path)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    const int last = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    assert_int_equal(fputc(last ^ 1, file), last ^ 1);
    assert_int_equal(fclose(file), 0);
}

static void sources_tell_changes(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "tokenizer_config.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        copy_file(files[i]);
    }
    const mq_sources first = sources_of(NULL), again = sources_of(NULL);
    assert_string_equal(first.model, again.model);
    assert_string_equal(first.prefill_model, "");
    mq_sources last = first;
    for (size_t i = 0; i + 1 < sizeof files / sizeof files[0]; i++) {
        change_file(files[i]);
        const mq_sources now = sources_of(NULL);
        if (strcmp(now.model, last.model) == 0) fail_msg("%s", files[i]);
        last = now;
    }
    unit_puts("chat_template.jinja", "{{ messages[0].content }}");
    const mq_sources templated = sources_of(NULL);
    assert_string_not_equal(templated.model, last.model);

    const mq_quantize_options quantize = {.in_dir = unit_dir, .out_dir = unit_path("prefill"), .threads = 2};
    mq_error error = {0};
    if (mq_quantize_checkpoint(&quantize, &error) != MQ_OK) fail_msg("%s", error.text);
    const mq_sources two = sources_of(unit_path("prefill"));
    assert_string_equal(two.model, templated.model);
    assert_string_not_equal(two.prefill_model, two.model);
    change_weight(unit_path("prefill/model.safetensors"));
    const mq_sources other = sources_of(unit_path("prefill"));
    assert_string_equal(other.model, two.model);
    assert_string_not_equal(other.prefill_model, two.prefill_model);
    change_weight(unit_path("model.safetensors"));
    const mq_sources both = sources_of(unit_path("prefill"));
    assert_string_not_equal(both.model, two.model);
    assert_string_equal(both.prefill_model, other.prefill_model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_compared),
        cmocka_unit_test_setup_teardown(plans_join, unit_setup, unit_teardown),
        cmocka_unit_test_setup_teardown(sources_tell_changes, unit_setup, unit_teardown),
    };
    return cmocka_run_group_tests(tests, make_model, forget_model);
}
