/* The hand-written splitters against the expressions they stand for, run by PCRE2; and PCRE2's bounds. */
#include "test_tokenizer_fixture.h"

#include <time.h>

#define SPLIT_COUNT 3

static mq_regex *regexes[SPLIT_COUNT];

static int compile_all(void **state)
{
    (void)state;
    for (int p = 0; p < SPLIT_COUNT; p++) {
        const char *regex = mq__split_regex((mq_split_pattern)(p + 1));
        if (mq__regex_compile(regex, strlen(regex), &regexes[p], NULL) != MQ_OK) return 1;
    }
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    for (int p = 0; p < SPLIT_COUNT; p++)
        mq__regex_free(regexes[p]);
    return 0;
}

/* Cuts text in both ways; every expression matches everywhere, so its matches are the pieces. */
static void expect_equal(const char *text, size_t bytes)
{
    for (int p = 0; p < SPLIT_COUNT; p++) {
        mq_encode_work work = {.regex.budget = MQ_REGEX_BUDGET};
        mq_error error = {0};
        const mq_text all = {text, bytes};
        if (mq__find_matches(regexes[p], (mq_text){NULL, 0}, all, &work, &error) != MQ_OK) fail_msg("%s", error.text);
        size_t from = 0;
        for (size_t i = 0; i < work.matches.len; i++) {
            const mq_span expected = work.matches.data[i];
            const size_t end = mq__split_next((mq_split_pattern)(p + 1), text, bytes, from);
            if (expected.start != from || expected.end != end) {
                mq_buf shown = {0};
                for (size_t k = 0; k < bytes && k < 100; k++)
                    mq__buf_printf(&shown, "\\x%02x", (unsigned)(unsigned char)text[k]);
                fail_msg("pattern %d, text %s: expected piece %u..%u, got %zu..%zu", p + 1, shown.data, expected.start,
                         expected.end, from, end);
            }
            from = end;
        }
        assert_int_equal(from, bytes);
        mq__encode_work_free(&work);
    }
}

static void test_known(void **state)
{
    (void)state;
    for (int p = 1; p <= SPLIT_COUNT; p++) {
        const char *regex = mq__split_regex((mq_split_pattern)p);
        assert_int_equal(mq__split_known(regex, strlen(regex)), p);
        assert_int_equal(mq__split_known(regex, strlen(regex) - 1), MQ_SPLIT_NONE);
    }
    assert_null(mq__split_regex(MQ_SPLIT_NONE));
}

static void test_fixed(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "Hello, world!",
        "'\xC5\xBF\x61 I've you'LL 'tis 'S's'\xC5\xBF 'x'",
        "  a\n\n b \t\n c  \r\n",
        "1234567 12a3 \xC2\xBD\xE2\x85\xA7",
        " ...\n\n!? \n",
        "\xE3\x80\x80\xE3\x80\x80 x\xC2\xA0y\xC2\x85z",
        "a\xCC\x81 \xE0\xB8\x81\xE0\xB8\xB3",
        "'",
        "' ",
        "'r",
        "'re",
        "\xF0\x9F\x98\x80 \xF0\x9F\x98\x80x",
        "\xE1\xA0\x8E\x61 \xE1\xA0\x8E",
        "\xFF\xFE \xC3 a\xE4\xBD ' \xED\xA0\x80x",
        "\n\xFF\n",
        " \xFF\r\n1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t from = 0; from <= strlen(texts[i]); from++)
            expect_equal(texts[i] + from, strlen(texts[i]) - from);
    }
}

/* PCRE2 and utf8proc may know different versions of Unicode: a character serves only when both class it alike. */
static bool agrees(uint32_t code, mq_regex *const *classes)
{
    mq_buf text = {0};
    mq__utf8_put(&text, code);
    bool same = true;
    static const unsigned bits[] = {MQ_CLASS_LETTER, MQ_CLASS_NUMBER, MQ_CLASS_SPACE};
    mq_regex_work work = {.budget = MQ_REGEX_BUDGET};
    for (int i = 0; i < 3; i++) {
        mq_regex_match match;
        assert_int_equal(mq__regex_find(classes[i], &work, text.data, text.len, 0, &match, NULL), MQ_OK);
        same = same && match.found == ((mq__unicode_class(code) & bits[i]) != 0);
    }
    mq__regex_work_free(&work);
    mq__buf_free(&text);
    return same;
}

static void test_random(void **state)
{
    (void)state;
    static const char *const class_regexes[] = {"\\p{L}", "\\p{N}", "\\s"};
    mq_regex *classes[3];
    for (int i = 0; i < 3; i++)
        assert_int_equal(mq__regex_compile(class_regexes[i], strlen(class_regexes[i]), &classes[i], NULL), MQ_OK);
    static const char *const picks[] = {" ",
                                        "  ",
                                        "\n",
                                        "\r\n",
                                        "\t",
                                        "'",
                                        "'s",
                                        "'LL",
                                        "a",
                                        "Zebra",
                                        "1",
                                        "99",
                                        ".",
                                        "!?",
                                        "\xC2\xA0",
                                        "\xE3\x80\x80",
                                        "\xC3\xA9",
                                        "\xE6\x88\x91",
                                        "\xCC\x81",
                                        "\xC2\xBD",
                                        "\xC5\xBF",
                                        "\xFF",
                                        "\x80",
                                        "\xE4\xBD",
                                        "\xF0\x9F\x98\x80"};
    uint64_t random = 2026;
    size_t disagreed = 0;
    for (int round = 0; round < 4000; round++) {
        mq_buf text = {0};
        const size_t parts = next_random(&random) % 12 + 1;
        for (size_t i = 0; i < parts; i++) {
            const uint64_t r = next_random(&random);
            const uint32_t code = (uint32_t)(r >> 32) % (r & 1 ? 0x3000 : 0x30000);
            if (r % 4 != 0) {
                mq__buf_puts(&text, picks[(r >> 8) % (sizeof picks / sizeof picks[0])]);
            } else if (code < 0xD800 || code >= 0xE000) {
                if (agrees(code, classes)) {
                    mq__utf8_put(&text, code);
                } else {
                    disagreed++;
                }
            }
        }
        expect_equal(text.data, text.len);
        mq__buf_free(&text);
    }
    assert_true(disagreed < 200); /* new scripts only, out of 6000 draws */
    for (int i = 0; i < 3; i++)
        mq__regex_free(classes[i]);
}

static void test_long_runs(void **state)
{
    (void)state;
    static const char *const units[] = {" ", "\n", "a", "1", ".", "\xE3\x80\x80", " \n", "\xE6\x88\x91", "'s", "\xFF"};
    static const char *const ends[] = {"", "x", " ", "\n", "."};
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
        for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++) {
            mq_buf text = {0};
            for (int i = 0; i < 20000; i++)
                mq__buf_puts(&text, units[u]);
            mq__buf_puts(&text, ends[e]);
            expect_equal(text.data, text.len);
            mq__buf_free(&text);
        }
    }
}

/* ---------------------------------------------------------------- bounds */

static mq_status match_all(const char *pattern, const char *text, size_t bytes)
{
    mq_regex *regex;
    mq_error error = {0};
    if (mq__regex_compile(pattern, strlen(pattern), &regex, &error) != MQ_OK) fail_msg("%s", error.text);
    mq_encode_work work = {.regex.budget = MQ_REGEX_BUDGET};
    const mq_status status = mq__find_matches(regex, (mq_text){NULL, 0}, (mq_text){text, bytes}, &work, &error);
    mq__encode_work_free(&work);
    mq__regex_free(regex);
    return status;
}

static void test_runaway_is_stopped(void **state)
{
    (void)state;
    char text[20001];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = 'b';
    const clock_t begin = clock();
    assert_int_equal(match_all("(a+)+$", text, sizeof text), MQ_LIMIT);
    assert_int_equal(match_all("(a|aa)+$", text, sizeof text), MQ_LIMIT);
    assert_int_equal(match_all("(a|b|ab|aa)*[^ab]", text, sizeof text), MQ_LIMIT);
    assert_int_equal(match_all("a+", text, sizeof text), MQ_OK);
    static char run[1000000]; /* a set that PCRE2 cannot say as one */
    memset(run, '-', sizeof run);
    assert_int_equal(match_all("[\\W_]+", run, sizeof run), MQ_OK);
    assert_true(clock() - begin < 20 * CLOCKS_PER_SEC);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const unsupported[] = {"[[:alpha",
                                              "(?s)a",
                                              "(?P<n>a)",
                                              "(?~a)",
                                              "(*FAIL)",
                                              "(?|a)",
                                              "(?(1)a)",
                                              "\\y",
                                              "\\C-a",
                                              "\\x",
                                              "\\xe9",
                                              "\\12",
                                              "[a-[b]]",
                                              "[a-&&b]",
                                              "(?i)[\\p{Lu}]",
                                              "(?i)[a[b]]",
                                              "a{1}{1}{1}{1}{1}",
                                              "\\k<n+0>",
                                              "\\x{61 62}",
                                              "(?<\xC3\xA9>a)"};
    static const char *const malformed[] = {
        "(",     "[",     "[a",     "a{2,1}", "\\p{Nonsense}", "*",     "{1}",     "a|+",        "(?=a)*",    "^*",
        "\\b+",  "(?i)*", "a)",     "\\",     "[\\w-x]",       "[c-a]", "[a-\\d]", "[[:blah:]]", "\\x{d800}", "\\p{}",
        "\\p{L", "(?#a",  "(a)\\2", "\xFF",   "[\xFF]",        "[a\\",  "[a&&",    "[a-",        "[",         "[^",
        "[a[",   "(?<n>a"};
    mq_regex *regex;
    mq_error error = {0};
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        assert_int_equal(mq__regex_compile(unsupported[i], strlen(unsupported[i]), &regex, &error), MQ_UNSUPPORTED);
        assert_null(regex);
    }
    for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; i++)
        assert_int_equal(mq__regex_compile(malformed[i], strlen(malformed[i]), &regex, &error), MQ_FORMAT);
    char *huge = mq__alloc((size_t)1 << 20);
    memset(huge, 'a', (size_t)1 << 20);
    assert_int_equal(mq__regex_compile(huge, (size_t)1 << 20, &regex, &error), MQ_LIMIT);
    mq__free(huge);
    assert_int_equal(mq__regex_compile("(?:(?:\\p{L}{1000}){1000}){1000}", 32, &regex, &error), MQ_FORMAT);
}

static void expect_first(const char *pattern, const char *text, size_t start, size_t end)
{
    mq_regex *regex;
    mq_regex_match match;
    mq_regex_work work = {.budget = MQ_REGEX_BUDGET};
    assert_int_equal(mq__regex_compile(pattern, strlen(pattern), &regex, NULL), MQ_OK);
    assert_int_equal(mq__regex_find(regex, &work, text, strlen(text), 0, &match, NULL), MQ_OK);
    assert_true(match.found);
    assert_int_equal(match.start, start);
    assert_int_equal(match.end, end);
    mq__regex_work_free(&work);
    mq__regex_free(regex);
}

/* All that a pattern matches in a text, each match in brackets: what the tokenizers library gives for the same. */
static void expect_matches(const char *pattern, const char *text, const char *expected)
{
    mq_regex *regex;
    mq_error error = {0};
    mq_encode_work work = {.regex.budget = MQ_REGEX_BUDGET};
    mq_buf out = {0};
    const mq_text all = {text, strlen(text)};
    if (mq__regex_compile(pattern, strlen(pattern), &regex, &error) != MQ_OK) fail_msg("%s: %s", pattern, error.text);
    if (mq__find_matches(regex, (mq_text){NULL, 0}, all, &work, &error) != MQ_OK)
        fail_msg("%s: %s", pattern, error.text);
    size_t from = 0;
    for (size_t i = 0; i < work.matches.len; i++) {
        const mq_span match = work.matches.data[i];
        mq__buf_append(&out, text + from, match.start - from);
        mq__buf_printf(&out, "<%.*s>", (int)(match.end - match.start), text + match.start);
        from = match.end;
    }
    mq__buf_puts(&out, text + from);
    if (strcmp(out.data, expected) != 0) fail_msg("%s: expected %s, got %s", pattern, expected, out.data);
    mq__buf_free(&out);
    mq__encode_work_free(&work);
    mq__regex_free(regex);
}

static void test_translation(void **state)
{
    (void)state;
    expect_first("\\s+", "a\xE1\xA0\x8E \xC2\x85 b", 4, 8); /* U+180E is no white space, NEL is */
    expect_first("[\\s,]+", "a, \xC2\xA0.", 1, 5);
    expect_first("\\S+", " \xE1\xA0\x8E\x61 ", 1, 5);
    expect_first("\\w+", "-e\xCC\x81_\xE2\x80\xBF-", 1, 8); /* marks and connectors are word characters */
    expect_first("[\\w]+", "-e\xCC\x81-", 1, 4);
    expect_first("\\W", "e\xCC\x81-", 3, 4);
    expect_first("^b$", "a\nb\nc", 2, 3);
    expect_first("[]a]+", "x]a", 1, 3);
    expect_first("[[:alpha:]]+", "1\xC3\xA9x", 1, 4);
    expect_first("\\\\s", "\\s", 0, 2);
}

static void test_empty_matches(void **state)
{
    (void)state;
    expect_matches("(?=(\\d{3})+(?!\\d))", "1234567", "1<>234<>567");
    expect_matches("x*", "axxb", "<>a<xx>b<>");
    expect_matches("b?", "a\nb\n", "<>a<>\n<b>\n<>");
    expect_matches("(?=b)|b", "ab", "a<>b");
    expect_matches("\\G", "ab", "<>a<>b<>");
    expect_matches("^", "a\nb\n", "<>a\n<>b\n");
    expect_matches("$", "a\nb\n", "a<>\nb<>\n<>");
    expect_matches("\\Z", "a\nb\n", "a\nb<>\n<>");
    expect_matches("\\z", "\xC3\xA9", "\xC3\xA9<>");
    expect_matches("x*", "\xC3\xA9", "<>\xC3\xA9<>");
    expect_matches("a*", "", "");
    expect_matches("(|a)+", "baa", "<>b<>a<>a<>");
}

#define HALF      "\xC2\xBD"     /* U+00BD */
#define CIRCLED_B "\xE2\x92\xB7" /* U+24B7, a symbol that is Alphabetic */

static void test_classes(void **state)
{
    (void)state;
    expect_matches("\\w+", "a" HALF "b-" CIRCLED_B, "<a" HALF "b>-<" CIRCLED_B ">");
    expect_matches("[\\w]+", "a" HALF "b-" CIRCLED_B, "<a>" HALF "<b>-<" CIRCLED_B ">");
    expect_matches("\\W", "a" HALF "-" CIRCLED_B, "a" HALF "<->" CIRCLED_B);
    expect_matches("[^\\w]", "a" HALF "-" CIRCLED_B, "a<" HALF "><->" CIRCLED_B);
    expect_matches("[\\W_]", "a_" HALF "-", "a<_><" HALF "><->");
    expect_matches("[^\\W\\d_]+", "ab1_c", "<ab>1_<c>");
    expect_matches("[^\\W]", "a-b", "<a>-<b>");
    expect_matches("\\p{Word}+", "a" HALF, "<a" HALF ">");
    expect_matches("\\b", "a" HALF " " CIRCLED_B, "<>a" HALF "<> <>" CIRCLED_B "<>");
    expect_matches("\\B", "ab " HALF "c", "a<>b " HALF "<>c");
    expect_matches("[^\\S\\n]+", "a \t\n\xE1\xA0\x8E ", "a< \t>\n\xE1\xA0\x8E< >");
    expect_matches("[\\S\\n]+", "a \n\xE1\xA0\x8E ", "<a> <\n\xE1\xA0\x8E> ");
    expect_matches("[[:alpha:]]+", "a1" CIRCLED_B "_\xCD\x85", "<a>1<" CIRCLED_B ">_<\xCD\x85>"); /* U+0345 */
    expect_matches("[[:alnum:]]+", "a1" CIRCLED_B HALF "_", "<a1" CIRCLED_B ">" HALF "_");
    expect_matches("[[:punct:]]", "$.\xC2\xA9 a", "<$><.><\xC2\xA9> a"); /* symbols, too */
    expect_matches("\\p{Punct}", "$.\xC2\xA9 a", "$<.>\xC2\xA9 a");
    expect_matches("[[:^punct:]b]", "$ab", "$<a><b>");
    expect_matches("[[:space:]]", "\xC2\x85\xE1\xA0\x8E ", "<\xC2\x85>\xE1\xA0\x8E< >");
    expect_matches("[[:upper:]]", "aA\xE2\x92\xB6", "a<A><\xE2\x92\xB6>"); /* U+24B6 */
    expect_matches("[[:word:]]+", "a" HALF "_", "<a>" HALF "<_>");
    expect_matches("\\h+", "xfF9g", "x<fF9>g");
    expect_matches("\\p{Han}", "\xE4\xB8\xAD\xE3\x80\x81",
                   "<\xE4\xB8\xAD>\xE3\x80\x81"); /* several scripts use U+3001 */
    expect_matches("\\p{^L}\\P{^L}", "1a", "<1a>");
    expect_matches("\\p{ uppercase_Letter }", "aB", "a<B>");
    expect_matches("\\p{^N}{1,2}\\P{L}{2}", "\r\n's'", "<\r\n'>s'");
    expect_matches("\\pL", "apL", "a<pL>");
    expect_matches("(?i)\\p{Lu}", "aB", "a<B>");
    expect_matches("[a-c[x-z]&&[^b]]", "abcxyz", "<a>b<c><x><y><z>");
    expect_matches("[^a-c&&b]", "abc", "<a>b<c>");
    expect_matches("[a&&]", "ab", "ab");
    expect_matches("[^[a]b]", "abc", "ab<c>");
    expect_matches("[a-c-e]", "a-ce", "<a><-><c><e>");
    expect_matches("[+--a]", "+,-.a", "<+><,><->.<a>");
    expect_matches("[\\]\\[^&-]+", "a[]&^-", "a<[]&^->");
    expect_matches("[\\101\\x62\\u0063\\x{64}]+", "Abcd", "<Abcd>");
    expect_matches("\\u0041\\x{1F600}\\v", "A\xF0\x9F\x98\x80\v", "<A\xF0\x9F\x98\x80\v>");
}

static void test_constructs(void **state)
{
    (void)state;
    expect_matches("(?m).+", "a\nb", "<a\nb>");
    expect_matches("(?m:a.)c.", "a\nc\n", "a\nc\n");
    expect_matches("(?-m).+", "a\nb", "<a>\n<b>");
    expect_matches("a{,2}", "aaab", "<aa><a>b<>");
    expect_matches("a{,}", "aa{,}", "a<a{,}>");
    expect_matches("a{ 1, 2 }", "aa{ 1, 2 }", "a<a{ 1, 2 }>");
    expect_matches("a{1,2}+a", "aaaa", "<aaaa>");
    expect_matches("\\p{N}{1,3}+", "1234567a", "<1234567>a");
    expect_matches("(ab|c){1,2}+d", "abcabd", "<abcabd>");
    expect_matches("a{2}?", "aaaab", "<aa><aa>b<>"); /* optional, not lazy */
    expect_matches("a{1,2}?", "aaa", "<a><a><a>");
    expect_matches("a{2}{2}", "aaaaaab", "<aaaa>aab");
    expect_matches("a++a|a*+ab|a?+ac", "aaab", "aaab"); /* possessive */
    expect_matches("a**", "aa", "<aa>");
    expect_matches("(a(?i)b|c)d", "aBd Cd aCd", "<aBd> Cd <aCd>"); /* an option holds for the alternatives behind it */
    expect_matches("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'S'Re'\xC5\xBF", "<'S><'Re><'\xC5\xBF>");
    expect_matches("(?i:a(?-i)b|c)", "AB Ab Ac C", "AB <Ab> <Ac> C");
    expect_matches("(?x)a [b ]c # d\n+", "a ccabcc", "<a cc><abcc>");
    expect_matches("(?x)a+ +b", "aab", "<aab>");
    expect_matches("(?#x\\)y)a", "ba", "b<a>");
    expect_matches("(?<n>a)\\k<n>", "aa", "<aa>");
    expect_matches("(a|b)\\1\\k<-1>", "abbb", "a<bbb>");
    expect_matches("(?<n>a|b)\\g<n>", "ab", "<ab>");
    expect_matches("a\\Kb", "aab", "aa<b>");
    expect_matches("\\Qa\\E", "QaE", "<QaE>");
    expect_matches("\\N\\O\\R", "a\n\r\n", "<a\n\r\n>");
    expect_matches("a]}{", "a]}{", "<a]}{>");
}

/* Neither sets in sets nor quantifiers of groups make a translation that grows without bound. */
static void test_translation_bounds(void **state)
{
    (void)state;
    static const char *const units[] = {"[a",     "(",    "(?i)", "\\b",     "a{2}+",
                                        "(a{2}+", "[\\W", "[a&&", "(?:(?x)", "[^\\W_]"};
    mq_regex *regex;
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        mq_buf pattern = {0};
        while (pattern.len + strlen(units[i]) <= (size_t)64 << 10)
            mq__buf_puts(&pattern, units[i]);
        const clock_t begin = clock();
        (void)mq__regex_compile(pattern.data, pattern.len, &regex, NULL);
        mq__regex_free(regex);
        assert_true(clock() - begin < 20 * CLOCKS_PER_SEC);
        mq__buf_free(&pattern);
    }
    uint64_t random = 5;
    static const char alphabet[] = "[]()^&|\\*+?{},-:<>=!#aiwWsbpPLkgxu019 \xC3\xA9";
    for (int round = 0; round < 50000; round++) {
        char pattern[24];
        const size_t n = next_random(&random) % sizeof pattern;
        for (size_t i = 0; i < n; i++)
            pattern[i] = alphabet[next_random(&random) % (sizeof alphabet - 1)];
        char *copy = mq__alloc(n ? n : 1); /* its own block: reading past the end is found */
        memcpy(copy, pattern, n);
        if (mq__regex_compile(copy, n, &regex, NULL) == MQ_OK) mq__regex_free(regex);
        mq__free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
        cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_runaway_is_stopped),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_translation),
        cmocka_unit_test(test_empty_matches),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_constructs),
        cmocka_unit_test(test_translation_bounds),
    };
    return cmocka_run_group_tests(tests, compile_all, free_all);
}
