/* Files of a checkpoint directory: what is read from them, what is refused, and memory running out anywhere. */
#include "test_tokenizer_fixture.h"

#include <unistd.h>

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define M          "\xE2\x96\x81"

/* ---------------------------------------------------------------- the JSON reader */

static mq_status skip_all(const char *text, size_t bytes)
{
    mq_tokjson json;
    mq_error error = {0};
    mq__tokjson_init(&json, "test", (mq_text){text, bytes}, &error);
    mq__tokjson_skip(&json, NULL);
    mq__tokjson_end(&json);
    mq__tokjson_free(&json);
    if (json.status != MQ_OK) assert_int_equal(error.status, json.status);
    return json.status;
}

static void test_json_grammar(void **state)
{
    (void)state;
    static const char *const good[] = {"0",
                                       "-0",
                                       "10",
                                       "-1.5e+3",
                                       "1E2",
                                       "true",
                                       "false",
                                       "null",
                                       "\"\"",
                                       "\"\\u00e9\\ud83d\\ude00\\n\"",
                                       "[]",
                                       "{}",
                                       " [ 1 , [ ] , { \"a\" : { \"b\" : [ null ] } , \"c\" : 2 } ] \n",
                                       "\"\xC3\xA9\xF0\x9F\x98\x80\"",
                                       "{\"\":0}"};
    static const char *const bad[] = {"",
                                      " ",
                                      "01",
                                      "+1",
                                      "-",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "1e+",
                                      "0x1",
                                      "tru",
                                      "nul",
                                      "NaN",
                                      "Infinity",
                                      "[1,]",
                                      "[,1]",
                                      "[1 2]",
                                      "{\"a\"}",
                                      "{\"a\":}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "{1:1}",
                                      "[1",
                                      "{\"a\":1",
                                      "]",
                                      "1 2",
                                      "\"",
                                      "\"\\\"",
                                      "\"\\x\"",
                                      "\"\\u12\"",
                                      "\"\\ud800\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\\udc00\"",
                                      "\"a\nb\"",
                                      "\"\xFF\"",
                                      "\"\xC0\x80\"",
                                      "\"\xED\xA0\x80\"",
                                      "[}",
                                      "{]",
                                      "[1}",
                                      "'a'",
                                      "/**/1",
                                      "\"\\u00g0\"",
                                      "truefalse"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (skip_all(good[i], strlen(good[i])) != MQ_OK) fail_msg("refused: %s", good[i]);
        for (size_t n = 0; n < strlen(good[i]); n++)
            (void)skip_all(good[i], n); /* must return */
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (skip_all(bad[i], strlen(bad[i])) != MQ_FORMAT) fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(skip_all("1\0", 2), MQ_FORMAT);
    char deep[200];
    for (size_t depth = 60; depth <= 70; depth++) {
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        assert_int_equal(skip_all(deep, 2 * depth), depth <= MQ_TOKJSON_MAX_DEPTH ? MQ_OK : MQ_FORMAT);
    }
}

static void test_json_values(void **state)
{
    (void)state;
    static const char text[] =
        "{\"a\\u0000\\ud83d\\ude00\\/\":-9223372036854775808,\"b\":9223372036854775807,\"c\":true,\"d\":null}";
    mq_tokjson json;
    mq_text key;
    int64_t value;
    bool flag;
    mq__tokjson_init(&json, "test", (mq_text){text, sizeof text - 1}, NULL);
    assert_true(mq__tokjson_open(&json, '{') && mq__tokjson_more(&json, '}') && mq__tokjson_key(&json, &key));
    assert_int_equal(key.bytes, 7);
    assert_memory_equal(key.data, "a\0\xF0\x9F\x98\x80/", 7);
    assert_true(mq__tokjson_integer(&json, INT64_MIN, INT64_MAX, &value) && value == INT64_MIN);
    assert_true(mq__tokjson_more(&json, '}') && mq__tokjson_key(&json, &key) && mq__text_is(key, "b"));
    assert_true(mq__tokjson_integer(&json, INT64_MIN, INT64_MAX, &value) && value == INT64_MAX);
    assert_true(mq__tokjson_more(&json, '}') && mq__tokjson_key(&json, &key));
    assert_true(mq__tokjson_bool(&json, &flag) && flag);
    assert_true(mq__tokjson_more(&json, '}') && mq__tokjson_key(&json, &key));
    assert_true(mq__tokjson_null(&json) && !mq__tokjson_more(&json, '}') && mq__tokjson_end(&json));
    mq__tokjson_free(&json);
    static const char *const integers[] = {"1.0", "1e2", "9223372036854775808",    "-9223372036854775809", "\"1\"",
                                           "11",  "-1",  "99999999999999999999999"};
    for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        mq__tokjson_init(&json, "test", (mq_text){integers[i], strlen(integers[i])}, NULL);
        assert_false(mq__tokjson_integer(&json, 0, 10, &value));
        assert_int_equal(json.status, MQ_FORMAT);
    }
}

/* ---------------------------------------------------------------- refused files */

static mq_status load_text(const char *text, size_t bytes, mq_error *error)
{
    mq_tokenizer *tokenizer;
    const mq_tokenizer_files files = {.tokenizer = text, .tokenizer_bytes = bytes};
    *error = (mq_error){0};
    const mq_status status = mq__tokenizer_load_memory(&files, &tokenizer, error);
    assert_true((status == MQ_OK) == (tokenizer != NULL));
    if (status != MQ_OK) {
        assert_int_equal(error->status, status);
        assert_true(error->text[0] != '\0');
    }
    mq__tokenizer_free(tokenizer);
    return status;
}

#define MODEL(body) "{\"model\":{\"type\":\"BPE\"," body "}}"
#define AB          "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2}"

static void test_malformed(void **state)
{
    (void)state;
    const struct {
        const char *text;
        mq_status status;
        const char *where;
    } cases[] = {
        {MODEL(AB ",\"merges\":[\"a b\"]"), MQ_OK, ""},
        {MODEL("\"merges\":[[\"a\",\"b\"]]," AB), MQ_OK, ""}, /* merges first: read afterwards */
        {"{\"model\":{" AB ",\"merges\":[\"a b\"]}}", MQ_OK, ""},
        {"", MQ_FORMAT, "an object"},
        {"[]", MQ_FORMAT, "an object"},
        {"{}", MQ_FORMAT, "model"},
        {"{\"model\":null}", MQ_FORMAT, "an object"},
        {"{\"model\":[]}", MQ_FORMAT, "an object"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]]}}", MQ_UNSUPPORTED, "Unigram"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", MQ_UNSUPPORTED, "WordPiece"},
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", MQ_UNSUPPORTED, "WordLevel"},
        {"{\"model\":{\"vocab\":[]}}", MQ_UNSUPPORTED, "BPE"},
        {"{\"model\":{\"type\":7," AB ",\"merges\":[]}}", MQ_UNSUPPORTED, "type"},
        {MODEL(AB), MQ_FORMAT, "merges"},
        {MODEL("\"vocab\":[],\"merges\":[]"), MQ_FORMAT, "an object"},
        {MODEL(AB ",\"merges\":{}"), MQ_FORMAT, "an array"},
        {MODEL(AB ",\"merges\":[\"ab\"]"), MQ_FORMAT, "space"},
        {MODEL(AB ",\"merges\":[\"a b b\"]"), MQ_FORMAT, "space"},
        {MODEL(AB ",\"merges\":[\" b\"]"), MQ_FORMAT, "space"},
        {MODEL(AB ",\"merges\":[\"\"]"), MQ_FORMAT, "space"},
        {MODEL(AB ",\"merges\":[\"a c\"]"), MQ_FORMAT, "merges[0]"},
        {MODEL(AB ",\"merges\":[\"a b\",\"b a\"]"), MQ_FORMAT, "merges[1]"},
        {MODEL(AB ",\"merges\":[[\"a\"]]"), MQ_FORMAT, "two tokens"},
        {MODEL(AB ",\"merges\":[[\"a\",\"b\",\"a\"]]"), MQ_FORMAT, "two tokens"},
        {MODEL(AB ",\"merges\":[[\"a\",1]]"), MQ_FORMAT, "a string"},
        {MODEL(AB ",\"merges\":[1]"), MQ_FORMAT, "a string"},
        {MODEL("\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]"), MQ_FORMAT, "each token once"},
        {MODEL("\"vocab\":{\"a\":0,\"\\u0061\":1},\"merges\":[]"), MQ_FORMAT, "each token once"},
        {MODEL("\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]"), MQ_FORMAT, "each id once"},
        {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), MQ_FORMAT, "0..4194303"},
        {MODEL("\"vocab\":{\"a\":4194304},\"merges\":[]"), MQ_FORMAT, "0..4194303"},
        {MODEL("\"vocab\":{\"a\":4194303},\"merges\":[]"), MQ_OK, ""},
        {MODEL("\"vocab\":{\"a\":99999999999999999999},\"merges\":[]"), MQ_FORMAT, "0..4194303"},
        {MODEL("\"vocab\":{\"a\":1.5},\"merges\":[]"), MQ_FORMAT, "integer"},
        {MODEL("\"vocab\":{\"a\":\"1\"},\"merges\":[]"), MQ_FORMAT, "integer"},
        {MODEL("\"vocab\":{\"<0x-1>\":0,\"<0x100>\":1,\"<0xG0>\":2,\"<0x4\":3,\"\":4,\"\\u0000\":5},"
               "\"byte_fallback\":true,\"merges\":[]"),
         MQ_OK, ""}, /* no byte tokens: plain texts */
        {MODEL(AB "," AB ",\"merges\":[]"), MQ_FORMAT, "each key once"},
        {MODEL(AB ",\"merges\":[],\"dropout\":0.1"), MQ_UNSUPPORTED, "dropout"},
        {MODEL(AB ",\"merges\":[],\"unk_token\":\"zz\""), MQ_FORMAT, "unk_token"},
        {MODEL(AB ",\"merges\":[],\"unk_token\":5"), MQ_FORMAT, "unk_token"},
        {MODEL(AB ",\"merges\":[],\"fuse_unk\":\"yes\""), MQ_FORMAT, "true or false"},
        {MODEL(AB ",\"merges\":[\"a b\"],\"continuing_subword_prefix\":\"##\""), MQ_FORMAT,
         "continuing_subword_prefix"},
        {"{\"model\":{},\"model\":{}}", MQ_UNSUPPORTED, "BPE"},
        {"{\"added_tokens\":[],\"added_tokens\":[]}", MQ_FORMAT, "each key once"},
        {"{\"normalizer\":{\"type\":\"NFC\",\"type\":\"NFD\"},\"model\":{" AB ",\"merges\":[]}}", MQ_FORMAT,
         "normalizer"},
    };
    mq_error error;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const mq_status status = load_text(cases[i].text, strlen(cases[i].text), &error);
        if (status != cases[i].status || !strstr(error.text, cases[i].where)) {
            fail_msg("%s: expected status %d naming %s, got %d: %s", cases[i].text, (int)cases[i].status,
                     cases[i].where, (int)status, error.text);
        }
    }
}

static void test_malformed_steps(void **state)
{
    (void)state;
    const struct {
        fixture f;
        mq_status status;
        const char *where;
    } cases[] = {
        {{.normalizer = "{\"type\":\"Precompiled\"}"}, MQ_UNSUPPORTED, "Precompiled"},
        {{.normalizer = "{\"type\":\"BertNormalizer\"}"}, MQ_UNSUPPORTED, "BertNormalizer"},
        {{.normalizer = "{}"}, MQ_FORMAT, "normalizer"},
        {{.normalizer = "\"NFC\""}, MQ_FORMAT, "normalizer"},
        {{.normalizer = "{\"type\":\"Prepend\"}"}, MQ_FORMAT, "prepend"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Glob\":\"*\"},\"content\":\"\"}"},
         MQ_FORMAT,
         "normalizer"},
        {{.normalizer = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[\"},\"content\":\"\"}"}, MQ_FORMAT, "regex"},
        {{.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[7]}"}, MQ_FORMAT, "normalizer"},
        {{.pre = "{\"type\":\"BertPreTokenizer\"}"}, MQ_UNSUPPORTED, "BertPreTokenizer"},
        {{.pre = "{\"type\":\"Split\",\"behavior\":\"Isolated\"}"}, MQ_FORMAT, "pre_tokenizer"},
        {{.pre = "{\"type\":\"Metaspace\",\"replacement\":\"\"}"}, MQ_FORMAT, "replacement"},
        {{.pre = "[]"}, MQ_FORMAT, "type"},
        {{.added = "{}"}, MQ_FORMAT, "an array"},
        {{.added = "[7]"}, MQ_FORMAT, "an object"},
        {{.added = "[{\"id\":300}]"}, MQ_FORMAT, "one content"},
        {{.added = "[{\"content\":\"x\"}]"}, MQ_FORMAT, "one content"},
        {{.added = "[{\"id\":300,\"content\":\"xx\",\"content\":\"yy\"}]"}, MQ_FORMAT, "one content"},
        {{.added = "[{\"id\":-1,\"content\":\"xx\"}]"}, MQ_FORMAT, "0..4194303"},
        {{.added = "[{\"id\":2147483648,\"content\":\"xx\"}]"}, MQ_FORMAT, "0..4194303"},
        {{.added = "[{\"id\":300,\"content\":\"hello\"}]"}, MQ_FORMAT, "id 259"},
        {{.added = "[{\"id\":3,\"content\":\"xx\"}]"}, MQ_FORMAT, "another token"},
        {{.added = "[{\"id\":300,\"content\":\"xx\"},{\"id\":301,\"content\":\"xx\"}]"}, MQ_FORMAT, "id 300"},
        {{.added = "[{\"id\":300,\"content\":\"xx\",\"special\":1}]"}, MQ_FORMAT, "true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        fixture_refused(&cases[i].f, cases[i].status, cases[i].where);
    mq_buf many = {0};
    mq__buf_puts(&many, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}");
    for (int i = 0; i < MQ_MAX_STEPS; i++)
        mq__buf_puts(&many, ",{\"type\":\"NFC\"}");
    mq__buf_puts(&many, "]}");
    const fixture steps = {.normalizer = many.data};
    fixture_refused(&steps, MQ_LIMIT, "normalizer");
    mq__buf_free(&many);
    mq__buf_puts(&many, "[{\"id\":300,\"content\":\"");
    for (int i = 0; i <= MQ_ADDED_MAX_BYTES; i++)
        mq__buf_putc(&many, 'x');
    mq__buf_puts(&many, "\"}]");
    const fixture long_token = {.added = many.data};
    fixture_refused(&long_token, MQ_LIMIT, "512 bytes");
    mq__buf_free(&many);
}

#define RICH_ADDED                                                                                                     \
    "[{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":true},{\"id\":400,\"content\":\"<x>\"},"           \
    "{\"id\":401,\"content\":\"<y>\",\"lstrip\":true,\"normalized\":true}]"
static const fixture rich = {
    .marks = true,
    .model = "\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"fuse_unk\":true,",
    .added = RICH_ADDED,
    .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Prepend\",\"prepend\":\"" M
                  "\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"" M "\"}]}",
    .pre =
        "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[0-9]\"},\"behavior\":"
        "\"Isolated\"},{\"type\":\"Metaspace\",\"replacement\":\"" M "\",\"split\":true}]}",
    .post =
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":"
        "{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"ids\":[1]}}}",
    .decoder = "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"" M
               "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":"
               "\" \",\"start\":1,\"stop\":0}]}"};

/* Every prefix of a file, and every file with one byte changed, gives a status and no leak. */
static void test_damaged(void **state)
{
    (void)state;
    size_t bytes;
    mq_error error;
    char *text = fixture_json(&rich, &bytes);
    assert_int_equal(load_text(text, bytes, &error), MQ_OK);
    for (size_t n = 0; n < bytes; n++) {
        char *copy = mq__alloc(n); /* its own block: reading past the end is found */
        memcpy(copy, text, n);
        assert_int_not_equal(load_text(copy, n, &error), MQ_OK);
        mq__free(copy);
    }
    uint64_t random = 11;
    static const char bytes_to_try[] = {'"', '\\', '{', '}', '[', ']', ',', ':', '0', '-', 'x', '\0', '\xFF', ' '};
    for (size_t n = 0; n < bytes; n++) {
        const char old = text[n];
        text[n] = bytes_to_try[next_random(&random) % sizeof bytes_to_try];
        (void)load_text(text, bytes, &error);
        text[n] = old;
    }
    mq__free(text);
}

/* ---------------------------------------------------------------- memory running out */

/* Loads, encodes and decodes; the status of the first step that failed. */
static mq_status use_all(const mq_tokenizer_files *files, mq_error *error)
{
    static const char text[] = "<s>hello 12 w<x> e\xCC\x81\xFF <y>aaaaaaa";
    mq_tokenizer *tokenizer;
    mq_ids ids = {0};
    mq_buf out = {0};
    mq_detokenizer *d = NULL;
    mq_status status = mq__tokenizer_load_memory(files, &tokenizer, error);
    if (status == MQ_OK) status = mq__tokenizer_encode(tokenizer, text, sizeof text - 1, 3, &ids, error);
    if (status == MQ_OK) status = mq__tokenizer_decode(tokenizer, ids.data, ids.len, 0, &out, error);
    if (status == MQ_OK) status = mq__detokenizer_new(tokenizer, 0, &d, error);
    for (size_t i = 0; status == MQ_OK && i < ids.len; i++)
        status = mq__detokenizer_push(d, ids.data[i], &out, error);
    if (status == MQ_OK) status = mq__detokenizer_flush(d, &out, error);
    if (status != MQ_OK && !tokenizer) assert_int_equal(ids.len, 0);
    mq__detokenizer_free(d);
    mq__buf_free(&out);
    mq__ids_free(&ids);
    mq__tokenizer_free(tokenizer);
    return status;
}

/* `spared`: allocations that may fail unnoticed, those of PCRE2's just-in-time compiler. */
static void sweep(const mq_tokenizer_files *files, unsigned long spared)
{
    unsigned long unnoticed = 0;
    mq_error error = {0};
    (void)mq__alloc_fail_at(0);
    assert_int_equal(use_all(files, &error), MQ_OK);
    const unsigned long count = mq__alloc_fail_at(0);
    assert_true(count > 10 && count < 20000);
    for (unsigned long n = 1; n <= count; n++) {
        error = (mq_error){0};
        (void)mq__alloc_fail_at(n);
        const mq_status status = use_all(files, &error);
        (void)mq__alloc_fail_at(0);
        unnoticed += status == MQ_OK;
        if (status == MQ_OK) continue;
        if (status != MQ_NO_MEMORY)
            fail_msg("allocation %lu: expected no memory, got %d: %s", n, (int)status, error.text);
        assert_int_equal(error.status, MQ_NO_MEMORY);
    }
    if (unnoticed > spared) fail_msg("expected at most %lu unnoticed failures, got %lu", spared, unnoticed);
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    mq_tokenizer_files files = {.config = "{\"bos_token\":\"<s>\",\"chat_template\":\"x\",\"added_tokens_decoder\":"
                                          "{\"500\":{\"content\":\"<z>\",\"special\":true}}}",
                                .added = "{\"<q>\":501}"};
    files.config_bytes = strlen(files.config);
    files.added_bytes = strlen(files.added);
    char *text = fixture_json(&rich, &files.tokenizer_bytes);
    files.tokenizer = text;
    sweep(&files, 3 * 8); /* three expressions */
    mq__free(text);
    const fixture plain = {.pre = BYTE_LEVEL, .decoder = BYTE_LEVEL};
    files = (mq_tokenizer_files){0};
    text = fixture_json(&plain, &files.tokenizer_bytes);
    files.tokenizer = text;
    sweep(&files, 0);
    mq__free(text);
}

/* Pushing ids does not allocate once the output has room. */
static void test_push_does_not_allocate(void **state)
{
    (void)state;
    const fixture llama = {.marks = true,
                           .model = rich.model,
                           .decoder =
                               "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":"
                               "\"" M "\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},"
                               "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"};
    mq_tokenizer *t = fixture_load(&llama);
    mq_detokenizer *d;
    mq_buf out = {0};
    assert_int_equal(mq__detokenizer_new(t, 0, &d, NULL), MQ_OK);
    assert_true(mq__buf_reserve(&out, 100000));
    mq__alloc_guard_begin();
    for (int32_t i = 0; i < 5000; i++)
        assert_int_equal(mq__detokenizer_push(d, i % mq__tokenizer_vocab_size(t), &out, NULL), MQ_OK);
    assert_int_equal(mq__alloc_guard_end(), 0);
    mq__detokenizer_free(d);
    mq__buf_free(&out);
    mq__tokenizer_free(t);
}

/* ---------------------------------------------------------------- beside tokenizer.json */

static mq_status load_config(const char *config, const char *added, mq_tokenizer **t, mq_error *error)
{
    const fixture plain = {.pre = BYTE_LEVEL};
    mq_tokenizer_files files = {.config = config, .added = added};
    files.config_bytes = config ? strlen(config) : 0;
    files.added_bytes = added ? strlen(added) : 0;
    char *text = fixture_json(&plain, &files.tokenizer_bytes);
    files.tokenizer = text;
    *error = (mq_error){0};
    const mq_status status = mq__tokenizer_load_memory(&files, t, error);
    mq__free(text);
    return status;
}

static void test_config(void **state)
{
    (void)state;
    mq_tokenizer *t;
    mq_error error;
    if (load_config(
            "{\"bos_token\":\"hello\",\"eos_token\":{\"__type\":\"AddedToken\",\"content\":\"<e>\"},\"pad_token\":null,"
            "\"unk_token\":\"nowhere\",\"add_bos_token\":true,"
            "\"model_max_length\":1000000000000000019884624838656,\"chat_template\":\"{{ x }}\","
            "\"added_tokens_decoder\":{\"300\":{\"content\":\"<e>\",\"special\":true},\"259\":{\"content\":\"hello\"}}"
            "}",
            "{\"<e>\":300,\"<f>\":301}", &t, &error) != MQ_OK) {
        fail_msg("%s", error.text);
    }
    assert_string_equal(mq__tokenizer_special_text(t, MQ_SPECIAL_BOS), "hello");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_BOS), 259);
    assert_string_equal(mq__tokenizer_special_text(t, MQ_SPECIAL_EOS), "<e>");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_EOS), 300);
    assert_null(mq__tokenizer_special_text(t, MQ_SPECIAL_PAD));
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_PAD), -1);
    assert_string_equal(mq__tokenizer_special_text(t, MQ_SPECIAL_UNK), "nowhere");
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_UNK), -1);
    assert_int_equal(mq__tokenizer_add_bos(t), 1);
    assert_int_equal(mq__tokenizer_add_eos(t), -1);
    assert_string_equal(mq__tokenizer_chat_template(t, "default"), "{{ x }}");
    assert_null(mq__tokenizer_chat_template(t, "tool_use"));
    assert_true(mq__tokenizer_is_special(t, 300));
    expect_tokens(t, "hello<e><f>", 3, "hello|<e>|<|f|>"); /* the config lists the added tokens: the file is not read */
    mq__tokenizer_free(t);
    assert_int_equal(
        load_config("{\"add_bos_token\":false,\"chat_template\":[{\"name\":\"default\",\"template\":\"A\"},"
                    "{\"name\":\"tool_use\",\"template\":\"B\"}]}",
                    NULL, &t, &error),
        MQ_OK);
    assert_int_equal(mq__tokenizer_add_bos(t), 0);
    assert_string_equal(mq__tokenizer_chat_template(t, "tool_use"), "B");
    assert_null(mq__tokenizer_special_text(t, MQ_SPECIAL_BOS));
    mq__tokenizer_free(t);
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"bos_token\":7}",
                                      "{\"bos_token\":{\"content\":7}}",
                                      "{\"chat_template\":7}",
                                      "{\"chat_template\":[7]}",
                                      "{\"bos_token\":\"a\",\"bos_token\":\"b\"}",
                                      "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<e>\"}}}",
                                      "{\"added_tokens_decoder\":{\"-1\":{\"content\":\"<e>\"}}}",
                                      "{\"added_tokens_decoder\":{\"300\":{}}}",
                                      "{\"added_tokens_decoder\":{\"99999999999999999999\":{\"content\":\"<e>\"}}}",
                                      "{\"added_tokens_decoder\":{\"4194304\":{\"content\":\"<e>\"}}}",
                                      "{\"added_tokens_decoder\":{\"300\":{\"content\":\"hello\"}}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (load_config(bad[i], NULL, &t, &error) != MQ_FORMAT) fail_msg("accepted: %s", bad[i]);
        assert_non_null(strstr(error.text, "tokenizer_config.json"));
    }
    static const char *const bad_added[] = {
        "[]", "{\"<e>\":-1}", "{\"<e>\":1.5}", "{\"<e>\":\"1\"}", "{\"<e>\":4194304}", "{\"<e>\":1e300}"};
    for (size_t i = 0; i < sizeof bad_added / sizeof bad_added[0]; i++) {
        if (load_config(NULL, bad_added[i], &t, &error) != MQ_FORMAT) fail_msg("accepted: %s", bad_added[i]);
    }
}

/* An added_tokens.json that older versions wrote: what tokenizer.json says otherwise is passed over. */
static void test_stale_added(void **state)
{
    (void)state;
    static const char stale[] = "{\"<e>\":3,\"hello\":300,\"<f>\":301}";
    mq_tokenizer *t;
    mq_error error;
    if (load_config(NULL, stale, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq__tokenizer_id(t, "hello", 5), 259);
    assert_int_equal(mq__tokenizer_id(t, "<f>", 3), 301);
    assert_int_equal(mq__tokenizer_id(t, "<e>", 3), -1);
    expect_tokens(t, "hello<e><f>", 3, "hello|<|e|>|<f>");
    mq__tokenizer_free(t);
    if (load_config("{\"added_tokens_decoder\":{}}", stale, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(mq__tokenizer_id(t, "<f>", 3), 301);
    mq__tokenizer_free(t);
    if (load_config("{\"added_tokens_decoder\":{\"300\":{\"content\":\"<e>\"}}}", stale, &t, &error) != MQ_OK)
        fail_msg("%s", error.text);
    assert_int_equal(mq__tokenizer_id(t, "<e>", 3), 300);
    assert_int_equal(mq__tokenizer_id(t, "<f>", 3), -1);
    mq__tokenizer_free(t);
}

/* The flags in tokenizer_config.json win; a token that was special stays so. */
static void test_restated_added(void **state)
{
    (void)state;
    const fixture f = {.pre = BYTE_LEVEL,
                       .normalizer = "{\"type\":\"Lowercase\"}",
                       .added =
                           "[{\"id\":300,\"content\":\"<l>\"},{\"id\":301,\"content\":\"<R>\",\"normalized\":true},"
                           "{\"id\":302,\"content\":\"<w>\",\"single_word\":true,\"special\":true},"
                           "{\"id\":303,\"content\":\"<k>\",\"lstrip\":true}]"};
    mq_tokenizer_files files = {
        .config = "{\"added_tokens_decoder\":{\"300\":{\"content\":\"<l>\",\"lstrip\":true,\"special\":true},"
                  "\"301\":{\"content\":\"<R>\",\"rstrip\":true,\"normalized\":false},"
                  "\"302\":{\"content\":\"<w>\",\"special\":false,\"normalized\":false}}}"};
    files.config_bytes = strlen(files.config);
    char *text = fixture_json(&f, &files.tokenizer_bytes);
    files.tokenizer = text;
    mq_tokenizer *t;
    mq_error error = {0};
    if (mq__tokenizer_load_memory(&files, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    expect_tokens(t, "h <l>h", 3, "h|<l>|h");
    expect_tokens(t, "<l>", MQ_ENCODE_ADD_SPECIAL, "<|l|>");
    assert_true(mq__tokenizer_is_special(t, 300));
    expect_tokens(t, "<R> h<r>", 3, "<R>|h|<|r|>");
    expect_tokens(t, "h<w>h", 3, "h|<w>|h");
    assert_true(mq__tokenizer_is_special(t, 302));
    expect_tokens(t, "h <k>", 3, "h|<k>");
    mq__tokenizer_free(t);
    mq__free(text);
}

static void write_file(const char *dir, const char *name, const char *text, size_t bytes)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    fclose(file);
}

static void test_directory(void **state)
{
    (void)state;
    char dir[] = "/tmp/mq-tokenizer-XXXXXX", path[256];
    assert_non_null(mkdtemp(dir));
    mq_tokenizer *t;
    mq_error error = {0};
    assert_int_equal(mq__tokenizer_load(dir, &t, &error), MQ_IO);
    assert_null(t);
    assert_non_null(strstr(error.text, "tokenizer.json"));
    const fixture plain = {.pre = BYTE_LEVEL};
    size_t bytes;
    char *text = fixture_json(&plain, &bytes);
    write_file(dir, "tokenizer.json", text, bytes);
    assert_int_equal(mq__tokenizer_load(dir, &t, &error), MQ_OK);
    assert_null(mq__tokenizer_special_text(t, MQ_SPECIAL_BOS));
    mq__tokenizer_free(t);
    write_file(dir, "tokenizer_config.json", "{\"bos_token\":\"hello\"}", 21);
    write_file(dir, "added_tokens.json", "{\"<f>\":301}", 11);
    assert_int_equal(mq__tokenizer_load(dir, &t, &error), MQ_OK);
    assert_int_equal(mq__tokenizer_special_id(t, MQ_SPECIAL_BOS), 259);
    assert_int_equal(mq__tokenizer_id(t, "<f>", 3), 301);
    mq__tokenizer_free(t);
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "added_tokens.json"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
    mq__free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_grammar),
        cmocka_unit_test(test_json_values),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_malformed_steps),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_every_allocation_fails),
        cmocka_unit_test(test_push_does_not_allocate),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_stale_added),
        cmocka_unit_test(test_restated_added),
        cmocka_unit_test(test_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
