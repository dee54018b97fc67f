/* Post-processors, decoders and decoding id by id on small tokenizers written here; expected text follows the definition of
 * each step in the tokenizers library, with which the same cases were compared. */
#include "test_tokenizer_fixture.h"

#define C          "\xC4\x8A" /* and its line feed */
#define M          "\xE2\x96\x81"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define FALLBACK   "\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
#define LLAMA_DECODER                                                                                                  \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" M                          \
    "\"},\"content\":\" \"},"                                                                                          \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"

/* ---------------------------------------------------------------- post-processors */

static void test_post_processors(void **state)
{
    (void)state;
#define TEMPLATE(first, last)                                                                                          \
    "{\"type\":\"TemplateProcessing\",\"single\":[" first "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}" last           \
    "],\"pair\":[],\"special_tokens\":{\"<x>\":{\"id\":\"<x>\",\"ids\":[65,66],\"tokens\":[\"a\",\"b\"]}}}"
#define SPECIAL "{\"SpecialToken\":{\"id\":\"<x>\",\"type_id\":0}}"
    const fixture f = {.pre = BYTE_LEVEL, .post = TEMPLATE(SPECIAL ",", "")};
    mq_tokenizer *t = fixture_load(&f);
    expect_tokens(t, "hello", 3, "A|B|hello");
    expect_tokens(t, "", 3, "A|B");
    expect_tokens(t, "hello", MQ_ENCODE_PARSE_SPECIAL, "hello");
    mq__tokenizer_free(t);
    const fixture both = {
        .pre = BYTE_LEVEL,
        .post = "{\"type\":\"Sequence\",\"processors\":[" BYTE_LEVEL "," TEMPLATE(
            "", "," SPECIAL) ",{\"type\":\"RobertaProcessing\",\"cls\":[\"C\",67],\"sep\":[\"D\",68]}]}"};
    expect_fixture(&both, "hello", "C|hello|A|B|D");
    const fixture unknown = {.post = "{\"type\":\"Fancy\"}"};
    fixture_refused(&unknown, MQ_UNSUPPORTED, "Fancy");
    const fixture missing = {.post = "{\"type\":\"RobertaProcessing\",\"cls\":[\"C\",6700],\"sep\":[\"D\",68]}"};
    fixture_refused(&missing, MQ_FORMAT, "post_processor");
    const fixture twice = {.post = TEMPLATE("{\"Sequence\":{\"id\":\"A\"}},", "")};
    fixture_refused(&twice, MQ_UNSUPPORTED, "2 times");
    const fixture pair = {.post = TEMPLATE("{\"Sequence\":{\"id\":\"B\"}},", "")};
    fixture_refused(&pair, MQ_UNSUPPORTED, "sequence A");
}

/* ---------------------------------------------------------------- decoders */

static void expect_decoded(const char *decoder, const char *const *tokens, unsigned flags, const char *expected)
{
    const fixture f = {.marks = true, .model = FALLBACK, .decoder = decoder};
    mq_tokenizer *t = fixture_load(&f);
    mq_ids ids = {0};
    for (size_t i = 0; tokens[i]; i++) {
        const int32_t id = mq__tokenizer_id(t, tokens[i], strlen(tokens[i]));
        assert_true(id >= 0);
        mq__ids_push(&ids, id);
    }
    expect_text(t, &ids, flags, expected);
    mq__ids_free(&ids);
    mq__tokenizer_free(t);
}

#define TOKENS(...)                                                                                                    \
    (const char *const[])                                                                                              \
    {                                                                                                                  \
        __VA_ARGS__, NULL                                                                                              \
    }
#define SEQUENCE(list)        "{\"type\":\"Sequence\",\"decoders\":[" list "]}"
#define STRIP(c, start, stop) "{\"type\":\"Strip\",\"content\":\"" c "\",\"start\":" #start ",\"stop\":" #stop "}"

static void test_decoders(void **state)
{
    (void)state;
    expect_decoded(NULL, TOKENS("a", "hello"), 0, "a hello");
    expect_decoded(LLAMA_DECODER, TOKENS(M "hello", M "w", "<0xC3>", "<0xA9>", "<0xFF>", "a"), 0,
                   "hello w\xC3\xA9\xFF\x61");
    expect_decoded(LLAMA_DECODER, TOKENS(M "hello"), MQ_DECODE_CONTINUE, " hello");
    expect_decoded(LLAMA_DECODER, TOKENS(M M, "a"), 0, " a");
    expect_decoded("{\"type\":\"Metaspace\",\"replacement\":\"" M "\",\"prepend_scheme\":\"always\"}",
                   TOKENS(M "hello", M "w"), 0, "hello w");
    expect_decoded("{\"type\":\"Metaspace\",\"replacement\":\"" M "\",\"prepend_scheme\":\"never\"}",
                   TOKENS(M "hello", M "w"), 0, " hello w");
    expect_decoded("{\"type\":\"BPEDecoder\",\"suffix\":\"a\"}", TOKENS("aa", "h", "aa"), 0, "  h");
    expect_decoded(STRIP("a", 1, 0), TOKENS("aa", "b", "aaaa"), 0, "abaaa");
    expect_decoded(STRIP("a", 1, 2), TOKENS("aaaa", "b"), 0, "ab");
    expect_decoded(SEQUENCE("{\"type\":\"Fuse\"}," STRIP("a", 3, 2)), TOKENS("aa", "aa", "b", "aa", "aa"), 0, "abaa");
    expect_decoded(SEQUENCE("{\"type\":\"Fuse\"}," STRIP("a", 2, 2)), TOKENS("aa", "a"), 0, "");
    expect_decoded(SEQUENCE("{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}," STRIP("\xC3\xA9", 1, 1)),
                   TOKENS("<0xC3>", "<0xA9>", "a", "<0xC3>", "<0xA9>"), 0, "a");
    expect_decoded(SEQUENCE("{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}," STRIP("\xC3\xA9", 1, 1)),
                   TOKENS("<0xC3>", "a"), 0, "\xC3\x61");
    expect_decoded(
        SEQUENCE("{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"aab\"},\"content\":\"X\"}"),
        TOKENS("aa", "a", "b", "aa", "aa", "a"), 0, "aXaaaaa");
    expect_decoded("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},\"content\":\"X\"}", TOKENS("aa", "h", "aaaa"),
                   0, "XhX");
}

static void test_decoders_refused(void **state)
{
    (void)state;
    const struct {
        const char *decoder;
        mq_status status;
        const char *where;
    } bad[] = {
        {"{\"type\":\"CTC\"}", MQ_UNSUPPORTED, "CTC"},
        {"{\"type\":\"WordPiece\",\"prefix\":\"##\"}", MQ_UNSUPPORTED, "WordPiece"},
        {SEQUENCE("{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"}"), MQ_UNSUPPORTED, "behind Fuse"},
        {SEQUENCE("{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}"),
         MQ_UNSUPPORTED, "behind Fuse"},
        {STRIP("ab", 1, 0), MQ_FORMAT, "one character"},
        {STRIP("a", -1, 0), MQ_FORMAT, "start and stop"},
        {STRIP("a", 1, 100000), MQ_FORMAT, "start and stop"},
        {"{\"type\":\"BPEDecoder\",\"suffix\":\"\"}", MQ_FORMAT, "BPEDecoder"},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"x\"}", MQ_FORMAT, "pattern"},
        {"{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"x\"}", MQ_FORMAT, "regex"},
        {"{\"type\":\"Replace\"}", MQ_FORMAT, "decoder"},
        {"{}", MQ_FORMAT, "type"},
        {"7", MQ_FORMAT, "type"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const fixture f = {.decoder = bad[i].decoder};
        fixture_refused(&f, bad[i].status, bad[i].where);
    }
}

/* An emoji in four tokens comes out at the fourth; bytes that cannot become a character at once. */
static void test_incremental(void **state)
{
    (void)state;
    const fixture f = {.pre = BYTE_LEVEL, .decoder = BYTE_LEVEL};
    mq_tokenizer *t = fixture_load(&f);
    mq_detokenizer *d;
    mq_buf out = {0};
    assert_int_equal(mq__detokenizer_new(t, 0, &d, NULL), MQ_OK);
    static const uint8_t bytes[] = {'a', 0xF0, 0x9F, 0x98, 0x80, 0xF0, 0x9F, 'b', 0x80, 0xE4, 0xBD, 0xE4};
    static const size_t lengths[] = {1, 1, 1, 1, 5, 5, 5, 8, 9, 9, 9, 11};
    for (size_t i = 0; i < sizeof bytes; i++) {
        assert_int_equal(mq__detokenizer_push(d, bytes[i], &out, NULL), MQ_OK);
        assert_int_equal(out.len, lengths[i]);
    }
    assert_int_equal(mq__detokenizer_push(d, 1000000, &out, NULL), MQ_OK); /* padding rows are empty */
    assert_int_equal(mq__detokenizer_push(d, 299, &out, NULL), MQ_OK);     /* so are gaps */
    assert_int_equal(mq__detokenizer_push(d, -5, &out, NULL), MQ_USAGE);
    assert_int_equal(out.len, 11);
    assert_int_equal(mq__detokenizer_flush(d, &out, NULL), MQ_OK);
    assert_int_equal(out.len, sizeof bytes);
    assert_memory_equal(out.data, bytes, sizeof bytes);
    mq__detokenizer_free(d);
    mq__buf_free(&out);
    mq__tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_post_processors),
        cmocka_unit_test(test_decoders),
        cmocka_unit_test(test_decoders_refused),
        cmocka_unit_test(test_incremental),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
