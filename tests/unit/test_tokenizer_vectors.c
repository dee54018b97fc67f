/* Published tokenizers against published vectors: strings (.inp, parted by a line __ggml_vocab_test__) and the ids
 * that the models' own tokenizers give them (.out, a line each, without BOS). Skips without the shared data folder. */
#include "test_tokenizer_fixture.h"

#include <pthread.h>
#include <time.h>

#include "base/file.h"

static const struct {
    const char *tokenizer, *vectors;
    bool normalizes; /* NFC: arbitrary bytes need not come back */
} models[] = {{"qwen3", "qwen2", true},
              {"llama3.1", "llama-bpe", false},
              {"llama2", "llama-spm", false},
              {"phi-3-mini", "phi-3", false}};
#define MODEL_COUNT (sizeof models / sizeof models[0])

static char *data_path(const char *format, const char *name) /* owned; skips the test without the shared folder */
{
    const char *shared = getenv("MQ_SHARED");
    if (!shared) skip();
    mq_buf path = {0};
    mq__buf_printf(&path, "%s/data/", shared);
    mq__buf_printf(&path, format, name);
    char *text = mq__buf_take(&path);
    FILE *probe = fopen(text, "rb");
    if (!probe) {
        mq__free(text);
        skip();
    }
    fclose(probe);
    return text;
}

static mq_tokenizer *load_model(const char *name)
{
    mq_tokenizer *t;
    mq_error error = {0};
    char *path = data_path("tokenizers/%s/tokenizer.json", name);
    *strrchr(path, '/') = '\0';
    if (mq__tokenizer_load(path, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    mq__free(path);
    return t;
}

static char *read_all(const char *format, const char *name, size_t *bytes)
{
    char *path = data_path(format, name), *text;
    assert_int_equal(mq__file_read(path, (size_t)16 << 20, &text, bytes, NULL), MQ_OK);
    mq__free(path);
    return text;
}

#define MARK "\n__ggml_vocab_test__\n"

/* Calls check for each pair of text and line of ids; returns how many there were. */
typedef void check_vector(const mq_tokenizer *t, mq_text text, mq_text line);

static size_t each_vector(const mq_tokenizer *t, const char *name, check_vector *check)
{
    size_t in_bytes, out_bytes, count = 0;
    char *in = read_all("tokenizer_vectors/ggml-vocab-%s.gguf.inp", name, &in_bytes);
    char *out = read_all("tokenizer_vectors/ggml-vocab-%s.gguf.out", name, &out_bytes);
    const char *line = out;
    for (const char *text = in; text <= in + in_bytes; count++) { /* what follows the last mark is the empty string */
        const char *mark = memmem(text, (size_t)(in + in_bytes - text), MARK, sizeof MARK - 1);
        const char *end = mark ? mark : in + in_bytes;
        const char *line_end = memchr(line, '\n', (size_t)(out + out_bytes - line));
        if (!line_end) line_end = out + out_bytes;
        check(t, (mq_text){text, (size_t)(end - text)}, (mq_text){line, (size_t)(line_end - line)});
        text = mark ? mark + sizeof MARK - 1 : in + in_bytes + 1;
        line = line_end < out + out_bytes ? line_end + 1 : line_end;
    }
    mq__free(in);
    mq__free(out);
    return count;
}

static void check_ids(const mq_tokenizer *t, mq_text text, mq_text line)
{
    mq_ids ids = {0};
    mq_buf got = {0};
    size_t bytes;
    assert_int_equal(mq__tokenizer_encode(t, text.data, text.bytes, MQ_ENCODE_PARSE_SPECIAL, &ids, NULL), MQ_OK);
    for (size_t i = 0; i < ids.len; i++)
        mq__buf_printf(&got, " %d", (int)ids.data[i]);
    if (got.len != line.bytes || (got.len && memcmp(got.data, line.data, got.len) != 0)) {
        fail_msg("text \"%.*s\": expected%.*s, got%s", (int)text.bytes, text.data, (int)line.bytes, line.data,
                 got.data);
    }
    char *back = decoded(t, &ids, 0, &bytes);
    assert_int_equal(bytes, text.bytes);
    assert_memory_equal(back, text.data, bytes);
    mq__free(back);
    mq__ids_free(&ids);
    mq__buf_free(&got);
}

static void test_vectors(void **state)
{
    (void)state;
    for (size_t m = 0; m < MODEL_COUNT; m++) {
        mq_tokenizer *t = load_model(models[m].tokenizer);
        assert_int_equal(each_vector(t, models[m].vectors, check_ids), 47);
        mq__tokenizer_free(t);
    }
}

static void check_splits(const mq_tokenizer *t, mq_text text, mq_text line)
{
    (void)t;
    (void)line;
    for (int p = MQ_SPLIT_GPT2; p <= MQ_SPLIT_QWEN2; p++) {
        mq_regex *regex;
        const char *pattern = mq__split_regex((mq_split_pattern)p);
        mq_encode_work work = {.regex.budget = MQ_REGEX_BUDGET};
        assert_int_equal(mq__regex_compile(pattern, strlen(pattern), &regex, NULL), MQ_OK);
        assert_int_equal(mq__find_matches(regex, (mq_text){NULL, 0}, text, &work, NULL), MQ_OK);
        size_t from = 0;
        for (size_t i = 0; i < work.matches.len; i++) {
            assert_int_equal(work.matches.data[i].start, from);
            from = mq__split_next((mq_split_pattern)p, text.data, text.bytes, from);
            assert_int_equal(work.matches.data[i].end, from);
        }
        assert_int_equal(from, text.bytes);
        mq__encode_work_free(&work);
        mq__regex_free(regex);
    }
}

static void test_splitters_on_vectors(void **state)
{
    (void)state;
    assert_int_equal(each_vector(NULL, "gpt-2", check_splits), 47);
}

/* GPT-2's vectors need its vocabulary, which is not there; Qwen's and Llama's were extended from it, so only the words
 * can be compared: done above. Here: bytes of all kinds come back. */
static void test_round_trip(void **state)
{
    (void)state;
    uint64_t random = 99;
    for (size_t m = 0; m < MODEL_COUNT; m++) {
        mq_tokenizer *t = load_model(models[m].tokenizer);
        for (int round = 0; round < 200; round++) {
            char text[500];
            const size_t n = next_random(&random) % sizeof text;
            for (size_t i = 0; i < n; i++) {
                text[i] = (char)next_random(&random);
                /* what NFC may change needs a well-formed sequence: continuation bytes are left out */
                if (models[m].normalizes && (text[i] & 0xC0) == 0x80) text[i] = (char)(text[i] | 0xC0);
            }
            expect_round_trip(t, text, n);
        }
        mq__tokenizer_free(t);
    }
}

static void test_special_tokens(void **state)
{
    (void)state;
    mq_tokenizer *t = load_model("qwen3");
    expect_tokens(t, "<|im_start|>user\nHi<|im_end|>", 3, "<|im_start|>|user|\xC4\x8A|Hi|<|im_end|>");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_EOS), 151645);
    assert_string_equal(mq__tokenizer_special_text(t, MQ_SPECIAL_EOS), "<|im_end|>");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_BOS), -1);
    assert_int_equal(mq__tokenizer_vocab_size(t), 151669);
    assert_int_equal(mq__tokenizer_add_bos(t), 0);
    assert_non_null(mq__tokenizer_chat_template(t, "default"));
    assert_true(mq__tokenizer_is_special(t, 151645));
    assert_false(mq__tokenizer_is_special(t, 151657)); /* <tool_call> */
    mq__tokenizer_free(t);
    t = load_model("llama3.1");
    expect_tokens(t, "Hi<|eot_id|>", 3, "<|begin_of_text|>|Hi|<|eot_id|>");
    mq__tokenizer_free(t);
    t = load_model("llama2");
    expect_tokens(t, "<s>Hi</s><s>Hi", MQ_ENCODE_PARSE_SPECIAL, "<s>|Hi|</s>|<s>|Hi");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_BOS), 1);
    mq__tokenizer_free(t);
    t = load_model("phi-3-mini");
    expect_tokens(t, "<|user|>\nHi<|end|>\n", 3, "<|user|>|\xE2\x96\x81Hi|<|end|>");
    mq__tokenizer_free(t);
}

/* A text that is one word, or one run of white space, or all beginnings of added tokens. The bound is far above
 * what is needed (0.2 s) and far below what anything quadratic takes. */
static void test_long_inputs(void **state)
{
    (void)state;
    static const char *const units[] = {"a",    " ",          "\n", " \n\t", "<|", "\xE6\x88\x91", "e\xCC\x81\xCC\x96",
                                        "\xFF", "<|reserved_"};
    const size_t bytes = 200000;
    for (size_t m = 0; m < 3; m++) {
        mq_tokenizer *t = load_model(models[m].tokenizer);
        for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
            mq_buf text = {0};
            mq_ids ids = {0};
            while (text.len < bytes)
                mq__buf_puts(&text, units[u]);
            const clock_t begin = clock();
            assert_int_equal(mq__tokenizer_encode(t, text.data, text.len, 3, &ids, NULL), MQ_OK);
            const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
            if (seconds > 15)
                fail_msg("%s, unit %zu: expected at most 15 s, got %.1f", models[m].tokenizer, u, seconds);
            mq__ids_free(&ids);
            mq__buf_free(&text);
        }
        mq__tokenizer_free(t);
    }
}

typedef struct job {
    const mq_tokenizer *t;
    bool same;
} job;

static void *encode_often(void *argument)
{
    job *j = argument;
    static const char text[] = "Threads share one tokenizer: \xE4\xBD\xA0\xE5\xA5\xBD 12345 <|im_start|> don't!";
    j->same = true;
    mq_ids first = {0};
    for (int i = 0; i < 200 && j->same; i++) {
        mq_ids ids = {0};
        mq_buf out = {0};
        j->same = mq__tokenizer_encode(j->t, text, sizeof text - 1, 3, &ids, NULL) == MQ_OK &&
                  mq__tokenizer_decode(j->t, ids.data, ids.len, 0, &out, NULL) == MQ_OK && out.len == sizeof text - 1 &&
                  memcmp(out.data, text, out.len) == 0;
        if (i == 0) {
            first = ids;
        } else {
            j->same = j->same && ids.len == first.len && memcmp(ids.data, first.data, ids.len * sizeof *ids.data) == 0;
            mq__ids_free(&ids);
        }
        mq__buf_free(&out);
    }
    mq__ids_free(&first);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    mq_tokenizer *t = load_model("qwen3");
    pthread_t threads[4];
    job jobs[4];
    for (unsigned i = 0; i < 4; i++) {
        jobs[i] = (job){.t = t};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].same);
    }
    mq__tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),     cmocka_unit_test(test_splitters_on_vectors),
        cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_long_inputs), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
