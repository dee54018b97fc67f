/* Merging, normalisers, pre-tokenisers and added tokens on small tokenizers written here; expected tokens follow the definition of
 * each step in the tokenizers library, with which the same cases were compared. */
#include "test_tokenizer_fixture.h"

#define G          "\xC4\xA0" /* the byte alphabet's space */
#define C          "\xC4\x8A" /* and its line feed */
#define M          "\xE2\x96\x81"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define BYTES_ONLY "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define FALLBACK   "\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
#define LLAMA_NORM                                                                                                     \
    "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" M "\"},"                            \
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" M "\"}]}"
#define LLAMA_DECODER                                                                                                  \
    "{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"" M                          \
    "\"},\"content\":\" \"},"                                                                                          \
    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]}"
#define ROUND_TRIP(t, literal) expect_round_trip(t, literal, sizeof(literal) - 1)
#define BEFORE_BYTES(steps)    "{\"type\":\"Sequence\",\"pretokenizers\":[" steps "," BYTES_ONLY "]}"

/* ---------------------------------------------------------------- merging */

static void test_byte_level(void **state)
{
    (void)state;
    const fixture f = {.pre = BYTE_LEVEL, .decoder = BYTE_LEVEL};
    mq_tokenizer *t = fixture_load(&f);
    expect_tokens(t, "", 3, "");
    expect_tokens(t, "hello hello", 3, "hello|" G "hello");
    expect_tokens(t, "hello  world's 12", 3, "hello|" G "|" G "wor|l|d|'s|" G "|12");
    expect_tokens(t, "h\xC3\xA9\n", 3, "h|\xC3\x83|\xC2\xA9|" C);
    expect_tokens(t, "aaaaaaa", 3, "aaaa|aa|a");
    assert_int_equal(mq__tokenizer_vocab_size(t), 256 + 13);
    assert_int_equal(mq__tokenizer_id(t, "hello", 5), 259);
    assert_int_equal(mq__tokenizer_id(t, "nothing", 7), -1);
    assert_true(mq__tokenizer_is_valid(t, 0));
    assert_false(mq__tokenizer_is_valid(t, -1));
    assert_false(mq__tokenizer_is_valid(t, 256 + 13));
    ROUND_TRIP(t, "a\0b\xFF\xC3 \xE4\xBD\xA0\xF0\x9F");
    mq__tokenizer_free(t);
    const fixture pairs = {.pre = BYTE_LEVEL, .pairs = true};
    expect_fixture(&pairs, "hello hello", "hello|" G "hello");
    const fixture prefix = {.pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}"};
    expect_fixture(&prefix, "hello hello", G "hello|" G "hello");
    expect_fixture(&prefix, " hello", G "hello");
}

static void test_ignore_merges(void **state)
{
    (void)state;
    /* "ab" is a token that no merge makes: only ignore_merges finds it */
    static const char *const merges[] = {"a b", NULL};
    const fixture f = {.pre = BYTE_LEVEL, .merges = merges};
    size_t bytes;
    char *text = fixture_json(&f, &bytes);
    assert_non_null(text);
    char *list = strstr(text, "\"merges\":[");
    strcpy(list, "\"merges\":[]}}");
    mq_tokenizer *t;
    mq_tokenizer_files files = {.tokenizer = text, .tokenizer_bytes = strlen(text)};
    assert_int_equal(mq__tokenizer_load_memory(&files, &t, NULL), MQ_OK);
    expect_tokens(t, "ab", 3, "a|b");
    mq__tokenizer_free(t);
    char *changed = mq__alloc(strlen(text) + 64);
    char *model = strstr(text, "\"type\":\"BPE\",");
    sprintf(changed, "%.*s\"ignore_merges\":true,%s", (int)(model - text), text, model);
    files = (mq_tokenizer_files){.tokenizer = changed, .tokenizer_bytes = strlen(changed)};
    assert_int_equal(mq__tokenizer_load_memory(&files, &t, NULL), MQ_OK);
    expect_tokens(t, "ab", 3, "ab");
    expect_tokens(t, "abb", 3, "a|b|b");
    mq__tokenizer_free(t);
    mq__free(changed);
    mq__free(text);
}

static void test_byte_fallback(void **state)
{
    (void)state;
    const fixture f = {.marks = true, .model = FALLBACK, .normalizer = LLAMA_NORM, .decoder = LLAMA_DECODER};
    mq_tokenizer *t = fixture_load(&f);
    expect_tokens(t, "hello hello", 3, M "hello|" M "hello");
    expect_tokens(t, "  w\n\xC3\xA9", 3, M M "|" M "w|<0x0A>|<0xC3>|<0xA9>");
    expect_tokens(t, "\xFFx", 3, M "|<0xFF>|x");
    ROUND_TRIP(t, "a\0b\xFF\xC3 \xE4\xBD\xA0\xF0\x9F  ");
    ROUND_TRIP(t, " leading");
    mq__tokenizer_free(t);
}

static void test_unknown(void **state)
{
    (void)state;
    const fixture fused = {.marks = true, .model = "\"unk_token\":\"<unk>\",\"fuse_unk\":true,"};
    expect_fixture(&fused, "a\xC3\xA9\xC3\xA9\x62", "a|<unk>|b");
    const fixture each = {.marks = true, .model = "\"unk_token\":\"<unk>\",\"fuse_unk\":false,"};
    expect_fixture(&each, "a\xC3\xA9\xC3\xA9\x62", "a|<unk>|<unk>|b");
    const fixture none = {.marks = true};
    expect_fixture(&none, "a\xC3\xA9\x61", "aa");
}

/* continuing_subword_prefix and end_of_word_suffix take part in the look-up of single characters. */
static void test_affixes(void **state)
{
    (void)state;
    static const char suffix_text[] =
        "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"decoder\":{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"l\":0,\"o\":1,\"w\":2,\"w</w>\":3,\"lo\":4,\"low</w>\":5,\"o</"
        "w>\":6},"
        "\"merges\":[\"l o\",\"lo w</w>\"],\"end_of_word_suffix\":\"</w>\"}}";
    static const char prefix_text[] =
        "{\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"},\"model\":{\"type\":\"BPE\",\"merges\":[\"##b ##c\",\"a "
        "##bc\"],"
        "\"vocab\":{\"a\":0,\"##b\":1,\"##c\":2,\"##bc\":3,\"abc\":4,\"b\":5},\"continuing_subword_prefix\":\"##\"}}";
    mq_tokenizer *t;
    mq_error error = {0};
    mq_ids ids = {0};
    mq_tokenizer_files files = {.tokenizer = suffix_text, .tokenizer_bytes = sizeof suffix_text - 1};
    if (mq__tokenizer_load_memory(&files, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    expect_tokens(t, "low lo", 3, "low</w>|l|o</w>");
    assert_int_equal(mq__tokenizer_encode(t, "low lo low", 10, 3, &ids, NULL), MQ_OK);
    expect_text(t, &ids, 0, "low lo low");
    mq__ids_free(&ids);
    mq__tokenizer_free(t);
    files = (mq_tokenizer_files){.tokenizer = prefix_text, .tokenizer_bytes = sizeof prefix_text - 1};
    if (mq__tokenizer_load_memory(&files, &t, &error) != MQ_OK) fail_msg("%s", error.text);
    expect_tokens(t, "abc b", 3, "abc|b");
    mq__tokenizer_free(t);
}

/* Reference: search all pairs for the lowest rank after each merge. */
static size_t merge_slowly(const mq_merges *merges, int32_t *ids, size_t n)
{
    for (;;) {
        const mq_merge *best = NULL;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const mq_merge *found = mq__merges_find(merges, ids[i], ids[i + 1]);
            if (found && (!best || found->rank < best->rank)) {
                best = found;
                at = i;
            }
        }
        if (!best) return n;
        ids[at] = best->result;
        n--;
        memmove(ids + at + 1, ids + at + 2, (n - at - 1) * sizeof *ids);
    }
}

/* Short and long words, which are merged in two ways, against the definition. */
static void expect_merges(const char *const *merges, bool cut_spaces)
{
    const fixture f = {.marks = true, .model = FALLBACK, .merges = merges};
    mq_tokenizer *t = fixture_load(&f);
    assert_int_equal(t->bpe.cut_spaces, cut_spaces);
    uint64_t random = 42;
    for (int round = 0; round < 400; round++) {
        mq_buf text = {0};
        int32_t expected[400];
        size_t n = 0;
        const size_t length = (size_t)(next_random(&random) % 300) + 1;
        for (size_t i = 0; i < length; i++) {
            const uint64_t pick = next_random(&random) % 9;
            const char *c = pick < 4 ? "a" : pick < 8 ? "b" : M;
            mq__buf_puts(&text, c);
            expected[n++] = mq__tokenizer_id(t, c, strlen(c));
        }
        n = merge_slowly(&t->bpe.merges, expected, n);
        mq_ids ids = {0};
        assert_int_equal(mq__tokenizer_encode(t, text.data, text.len, 3, &ids, NULL), MQ_OK);
        assert_int_equal(ids.len, n);
        assert_memory_equal(ids.data, expected, n * sizeof *expected);
        mq__ids_free(&ids);
        mq__buf_free(&text);
    }
    mq__tokenizer_free(t);
}

/* Also across U+2581, where words are cut before merging unless a merge reaches over it. */
static void test_merge_equal(void **state)
{
    (void)state;
    static const char *const inside[] = {"a b",   "b a",   "ab a", "a a",   "ab ab", "ba b",  "b b",
                                         "aba b", "bb aa", M " a", M " " M, "aa b",  M "a b", NULL};
    static const char *const across[] = {"a b", "b a", "b " M, "ab a", "a a", M " a", M " " M, "b" M " a", NULL};
    expect_merges(inside, true);
    expect_merges(across, false);
}

/* ---------------------------------------------------------------- normalisers */

static void expect_normal(const char *normalizer, const char *text, const char *expected)
{
    fixture f = {.normalizer = normalizer, .pre = BYTES_ONLY, .decoder = BYTES_ONLY};
    mq_tokenizer *t = fixture_load(&f);
    mq_ids ids = {0};
    assert_int_equal(mq__tokenizer_encode(t, text, strlen(text), 3, &ids, NULL), MQ_OK);
    expect_text(t, &ids, 0, expected);
    mq__ids_free(&ids);
    mq__tokenizer_free(t);
}

static void test_normalizers(void **state)
{
    (void)state;
    expect_normal("{\"type\":\"NFC\"}", "e\xCC\x81 \xC3\xA9 \xEF\xAC\x81 \xFF", "\xC3\xA9 \xC3\xA9 \xEF\xAC\x81 \xFF");
    expect_normal("{\"type\":\"NFD\"}", "\xC3\xA9", "e\xCC\x81");
    expect_normal("{\"type\":\"NFKC\"}", "\xEF\xAC\x81", "fi");
    expect_normal("{\"type\":\"NFKD\"}", "\xEF\xAC\x81\xC3\xA9", "fie\xCC\x81");
    expect_normal("{\"type\":\"Lowercase\"}", "ABC \xC3\x89\xC4\xB0\xFF", "abc \xC3\xA9i\xCC\x87\xFF");
    expect_normal("{\"type\":\"StripAccents\"}", "e\xCC\x81x", "ex");
    expect_normal("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}", " \xE3\x80\x80x ", "x ");
    expect_normal("{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}", " x \xC2\xA0", " x");
    expect_normal("{\"type\":\"Prepend\",\"prepend\":\"<<\"}", "x", "<<x");
    expect_normal("{\"type\":\"Prepend\",\"prepend\":\"<<\"}", "", "");
    expect_normal("{\"type\":\"Replace\",\"pattern\":{\"String\":\"a.\"},\"content\":\"-\"}", "a.aba.", "-ab-");
    expect_normal("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a.\"},\"content\":\"\"}", "xa.abay\xFF", "x\xFF");
#define EMPTY(regex, content) "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"" regex "\"},\"content\":\"" content "\"}"
    expect_normal(EMPTY("(?=[A-Z])", " "), "aBc", "a Bc");
    expect_normal(EMPTY("$", "!"), "aBc", "aBc!");
    expect_normal(EMPTY("^", "_"), "a b", "_a b");
    expect_normal(EMPTY("^", "_"), "", "");
    expect_normal(EMPTY("x*", "-"), "xxa", "-a-");
    expect_normal(EMPTY("x*", "-"), "\xFFxa\xFF", "-\xFF-a-\xFF-");
    expect_normal("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"},{\"type\":\"StripAccents\"}]}",
                  "\xC3\xA9", "e");
}

/* ---------------------------------------------------------------- pre-tokenisers */

/* Words are visible as tokens when the model is bytes and every word of the test has a merge: so show words by what the
 * pre-tokeniser itself gives. */
static void expect_words(const char *pre, const char *text, const char *expected)
{
    fixture f = {.pre = pre};
    mq_tokenizer *t = fixture_load(&f);
    mq_encode_work work = {.regex.budget = MQ_REGEX_BUDGET};
    const mq_spans *words;
    mq_text now = {text, strlen(text)};
    mq_buf out = {0};
    assert_int_equal(mq__presplit(t, &now, true, &work, &words, NULL), MQ_OK);
    for (size_t i = 0; i < words->len; i++) {
        if (i) mq__buf_putc(&out, '|');
        mq__buf_append(&out, now.data + words->data[i].start, words->data[i].end - words->data[i].start);
    }
    if (strcmp(out.data, expected) != 0) fail_msg("%s: expected %s, got %s", pre, expected, out.data);
    mq__buf_free(&out);
    mq__encode_work_free(&work);
    mq__tokenizer_free(t);
}

#define SPLIT(pattern, behavior)                                                                                       \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":false}"
#define SPLIT_NOT(pattern, behavior)                                                                                   \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":true}"
#define DIGIT "{\"Regex\":\"[0-9]\"}"

static void test_split(void **state)
{
    (void)state;
    expect_words(SPLIT(DIGIT, "Isolated"), "a12b", "a|1|2|b");
    expect_words(SPLIT(DIGIT, "Removed"), "a12b", "a|b");
    expect_words(SPLIT(DIGIT, "MergedWithPrevious"), "a12b3", "a1|2|b3");
    expect_words(SPLIT(DIGIT, "MergedWithPrevious"), "12b", "1|2|b");
    expect_words(SPLIT(DIGIT, "MergedWithNext"), "a12b3", "a|1|2b|3");
    expect_words(SPLIT(DIGIT, "Contiguous"), "a12b3", "a|12|b|3");
    expect_words(SPLIT_NOT(DIGIT, "Removed"), "a12b", "1|2");
    expect_words(SPLIT_NOT(DIGIT, "Isolated"), "a12b", "a|1|2|b");
    expect_words(SPLIT_NOT(DIGIT, "MergedWithPrevious"), "1ab2", "1ab|2");
    expect_words(SPLIT("{\"String\":\".\"}", "MergedWithPrevious"), "a.b..c", "a.|b.|.|c");
    expect_words(SPLIT("{\"Regex\":\"x*\"}", "Isolated"), "axxb", "a|xx|b");
    expect_words("{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT(DIGIT, "Removed") "," SPLIT("{\"String\":\"-\"}",
                                                                                                "Isolated") "]}",
                 "a-1b-", "a|-|b|-");
#define BEFORE_B "{\"Regex\":\"(?=b)|c\"}"
    expect_words(SPLIT("{\"Regex\":\"(?=(\\\\d{3})+(?!\\\\d))\"}", "Isolated"), "1234567", "1|234|567");
    expect_words(SPLIT("{\"Regex\":\"(?<=[a-z])(?=[A-Z])\"}", "Isolated"), "camelCaseWord", "camel|Case|Word");
    expect_words(SPLIT("{\"Regex\":\"\\\\b\"}", "Removed"), "a1 b2  c", "a1| |b2|  |c");
    expect_words(SPLIT(BEFORE_B, "Isolated"), "abcab", "a|b|c|a|b");
    expect_words(SPLIT(BEFORE_B, "Removed"), "abcab", "a|b|a|b");
    expect_words(SPLIT(BEFORE_B, "MergedWithPrevious"), "abcab", "a|bc|a|b");
    expect_words(SPLIT(BEFORE_B, "MergedWithNext"), "abcab", "a|b|ca|b");
    expect_words(SPLIT(BEFORE_B, "Contiguous"), "abcab", "a|b|c|a|b");
    expect_words(SPLIT_NOT(BEFORE_B, "Removed"), "abcab", "c");
    const fixture bad = {.pre = SPLIT(DIGIT, "Sideways")};
    fixture_refused(&bad, MQ_UNSUPPORTED, "Sideways");
}

static void test_class_splits(void **state)
{
    (void)state;
    expect_words("{\"type\":\"Digits\",\"individual_digits\":true}", "a12\xC2\xBD\x62", "a|1|2|\xC2\xBD|b");
    expect_words("{\"type\":\"Digits\",\"individual_digits\":false}", "a12b", "a|12|b");
    expect_words("{\"type\":\"Punctuation\",\"behavior\":\"Isolated\"}", "a,.b$\xE3\x80\x82", "a|,|.|b|$|\xE3\x80\x82");
    expect_words("{\"type\":\"Punctuation\",\"behavior\":\"Removed\"}", "a,.b", "a|b");
    expect_words("{\"type\":\"Punctuation\"}", "a,b", "a|,|b");
    expect_words("{\"type\":\"Whitespace\"}", " ab_1  ++ c\xC3\xA9,", "ab_1|++|c\xC3\xA9|,");
    expect_words("{\"type\":\"WhitespaceSplit\"}", " a,b \t\xE3\x80\x80 c ", "a,b|c");
}

static void test_metaspace(void **state)
{
    (void)state;
#define META(scheme, split)                                                                                            \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme "\",\"split\":" split "}"
    expect_words(META("always", "true"), "a b  c", "_a|_b|_|_c");
    expect_words(META("always", "true"), " a", "_a");
    expect_words(META("always", "false"), "a b", "_a_b");
    expect_words(META("never", "true"), "a b", "a|_b");
    expect_words("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "a b", "a|_b");
    expect_words("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":true}", "a b", "_a|_b");
    const fixture first = {.marks = true,
                           .model = FALLBACK,
                           .pre = "{\"type\":\"Metaspace\",\"replacement\":\"" M
                                  "\",\"prepend_scheme\":\"first\",\"split\":false}",
                           .added = "[{\"id\":1,\"content\":\"<s>\",\"special\":true}]"};
    expect_fixture(&first, "hello<s>hello", M "hello|<s>|hello");
    expect_fixture(&first, "<s>hello", "<s>|hello");
    const fixture bad = {.pre = META("sometimes", "true")};
    fixture_refused(&bad, MQ_UNSUPPORTED, "sometimes");
}

static void test_byte_level_inside(void **state)
{
    (void)state;
    /* ByteLevel not last: later steps see its alphabet */
    expect_words("{\"type\":\"Sequence\",\"pretokenizers\":[" BYTES_ONLY
                 ",{\"type\":\"Digits\",\"individual_digits\":true}]}",
                 "a 12", "a" G "|1|2");
    const fixture f = {.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL
                              ",{\"type\":\"Digits\",\"individual_digits\":true}]}"};
    expect_fixture(&f, "hello 12\xFF", "hello|" G "|1|2|\xC3\xBF");
    const fixture digits = {.pre = BEFORE_BYTES("{\"type\":\"Digits\",\"individual_digits\":true}")};
    expect_fixture(&digits, "12", "1|2");
}

/* ---------------------------------------------------------------- added tokens */

static void test_added_tokens(void **state)
{
    (void)state;
    const fixture f = {.pre = BYTE_LEVEL,
                       .decoder = BYTE_LEVEL,
                       .added = "[{\"id\":300,\"content\":\"<a>\",\"special\":true},"
                                "{\"id\":301,\"content\":\"<a><b>\"},"
                                "{\"id\":302,\"content\":\"<l>\",\"lstrip\":true,\"special\":true},"
                                "{\"id\":303,\"content\":\"<r>\",\"rstrip\":true},"
                                "{\"id\":304,\"content\":\"<w>\",\"single_word\":true},"
                                "{\"id\":305,\"content\":\"a \xC3\xA9\"}]"};
    mq_tokenizer *t = fixture_load(&f);
    expect_tokens(t, "hello<a>hello", 3, "hello|<a>|hello");
    expect_tokens(t, "<a><b><a><", 3, "<a><b>|<a>|<");
    expect_tokens(t, "x  \xE3\x80\x80<l>  <r>\n y", 3, "x|<l>|" G G "|<r>|y");
    expect_tokens(t, "<w>x<w> <w>", 3, "<|w|>|x|<|w|>|" G "|<w>");
    expect_tokens(t, "hello<a>", MQ_ENCODE_ADD_SPECIAL, "hello|<|a|>");
    expect_tokens(t, "<a><b>", MQ_ENCODE_ADD_SPECIAL, "<a><b>");
    assert_true(mq__tokenizer_is_special(t, 300));
    assert_false(mq__tokenizer_is_special(t, 301));
    assert_false(mq__tokenizer_is_valid(t, 299)); /* a gap */
    assert_int_equal(mq__tokenizer_vocab_size(t), 306);
    assert_int_equal(mq__tokenizer_id(t, "<a>", 3), 300);
    int32_t list[] = {300, 259, 305};
    const mq_ids ids = {list, 3, 3};
    expect_text(t, &ids, 0, "<a>helloa \xC3\xA9");
    expect_text(t, &ids, MQ_DECODE_SKIP_SPECIAL, "helloa \xC3\xA9");
    mq_buf out = {0};
    mq_error error = {0};
    const int32_t gap = 299, negative = -1;
    assert_int_equal(mq__tokenizer_decode(t, &gap, 1, 0, &out, &error), MQ_OK);
    assert_int_equal(out.len, 0);
    assert_int_equal(mq__tokenizer_decode(t, &negative, 1, 0, &out, &error), MQ_USAGE);
    mq__buf_free(&out);
    mq__tokenizer_free(t);
}

/* normalized: looked for behind the normaliser, in normalised form; special ones also as they are written */
static void test_added_normalized(void **state)
{
    (void)state;
    const fixture f = {.marks = true,
                       .model = FALLBACK,
                       .normalizer = LLAMA_NORM,
                       .added = "[{\"id\":1,\"content\":\"<s>\",\"special\":true,\"normalized\":true},"
                                "{\"id\":400,\"content\":\"<n>\",\"normalized\":true}]"};
    mq_tokenizer *t = fixture_load(&f);
    expect_tokens(t, "<s>hello", 3, "<s>|hello");
    expect_tokens(t, "a</s><s>hello", 3, M "|a|<|/|s|>|<s>|hello");
    expect_tokens(t, "<n>a a<n>", 3, "<n>|a|" M "|a|<|n|>");
    mq__tokenizer_free(t);
    const fixture lower = {.pre = BYTES_ONLY,
                           .normalizer = "{\"type\":\"Lowercase\"}",
                           .added = "[{\"id\":400,\"content\":\"HeY\",\"normalized\":true}]"};
    expect_fixture(&lower, "xHEYx", "x|HeY|x");
}

/* Random ids and random bytes on both kinds. */
static void test_random_round_trip(void **state)
{
    (void)state;
    const fixture kinds[] = {{.pre = BYTE_LEVEL, .decoder = BYTE_LEVEL},
                             {.marks = true, .model = FALLBACK, .normalizer = LLAMA_NORM, .decoder = LLAMA_DECODER}};
    uint64_t random = 7;
    for (size_t k = 0; k < 2; k++) {
        mq_tokenizer *t = fixture_load(&kinds[k]);
        for (int round = 0; round < 300; round++) {
            char text[200];
            int32_t list[100];
            const size_t n = next_random(&random) % sizeof text;
            for (size_t i = 0; i < n; i++)
                text[i] = round % 3 ? (char)next_random(&random) : "helo w\n\xC3\xA9\x00"[next_random(&random) % 10];
            expect_round_trip(t, text, n);
            for (size_t i = 0; i < 100; i++)
                list[i] = (int32_t)(next_random(&random) % (uint64_t)mq__tokenizer_vocab_size(t));
            const mq_ids ids = {list, 100, 100};
            mq__free(decoded(t, &ids, (unsigned)round % 4, &(size_t){0}));
        }
        mq__tokenizer_free(t);
    }
}

/* A file's expression that runs away ends as a status, wherever it stands, and leaves no ids behind. */
static void test_runaway_regex(void **state)
{
    (void)state;
#define ADDED   "[{\"id\":400,\"content\":\"<x>\"}]"
#define RUNAWAY "{\"Regex\":\"(a|aa)+$\"}"
    const fixture kinds[] = {
        {.pre = SPLIT(RUNAWAY, "Isolated"), .added = ADDED},
        {.added = ADDED, .normalizer = "{\"type\":\"Replace\",\"pattern\":" RUNAWAY ",\"content\":\"\"}"}};
    char text[5001];
    memset(text, 'a', sizeof text);
    memcpy(text, "<x>", 3); /* an id before the failure */
    text[sizeof text - 1] = 'b';
    for (size_t i = 0; i < 2; i++) {
        mq_tokenizer *t = fixture_load(&kinds[i]);
        mq_ids ids = {0};
        mq_error error = {0};
        assert_true(mq__ids_push(&ids, 7));
        assert_int_equal(mq__tokenizer_encode(t, text, sizeof text, 3, &ids, &error), MQ_LIMIT);
        assert_int_equal(ids.len, 1);
        mq__ids_free(&ids);
        mq__tokenizer_free(t);
    }
}

/* A token that a decoder would blow up past every bound is refused by a status. */
static void test_decoder_bomb(void **state)
{
    (void)state;
    mq_buf decoder = {0};
    mq__buf_puts(&decoder, "{\"type\":\"Sequence\",\"decoders\":[");
    for (int i = 0; i < 30; i++)
        mq__buf_puts(&decoder, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"},");
    mq__buf_puts(&decoder, "{\"type\":\"Fuse\"}]}");
    const fixture f = {.decoder = decoder.data};
    mq_tokenizer *t = fixture_load(&f);
    mq_buf out = {0};
    const int32_t id = mq__tokenizer_id(t, "a", 1);
    assert_int_equal(mq__tokenizer_decode(t, &id, 1, 0, &out, NULL), MQ_NO_MEMORY);
    mq__buf_free(&out);
    mq__buf_free(&decoder);
    mq__tokenizer_free(t);
}

static void test_input_limit(void **state)
{
    (void)state;
    const fixture f = {.pre = BYTE_LEVEL};
    mq_tokenizer *t = fixture_load(&f);
    mq_ids ids = {0};
    mq_error error = {0};
    mq__ids_push(&ids, 1);
    assert_int_equal(mq__tokenizer_encode(t, "", MQ_TOKENIZER_MAX_INPUT + 1, 3, &ids, &error), MQ_LIMIT);
    assert_int_equal(ids.len, 1);
    mq__ids_free(&ids);
    mq__tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_byte_level),        cmocka_unit_test(test_ignore_merges),
        cmocka_unit_test(test_byte_fallback),     cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_affixes),           cmocka_unit_test(test_merge_equal),
        cmocka_unit_test(test_normalizers),       cmocka_unit_test(test_split),
        cmocka_unit_test(test_class_splits),      cmocka_unit_test(test_metaspace),
        cmocka_unit_test(test_byte_level_inside), cmocka_unit_test(test_added_tokens),
        cmocka_unit_test(test_added_normalized),  cmocka_unit_test(test_random_round_trip),
        cmocka_unit_test(test_runaway_regex),     cmocka_unit_test(test_decoder_bomb),
        cmocka_unit_test(test_input_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
