/* Boxed answers and their equality, in the forms that MATH's and AIME's published answers have; math500 and aime over small files
 * of our own in the published formats. */
#include "unit_files.h"

#include "base/mem.h"
#include "eval/math_answer.h"
#include "eval/question.h"

#include <math.h>

static void boxed(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"so \\boxed{42}.", "42"},
        {"\\boxed{1} or \\boxed{2}", "2"},
        {"\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"},
        {"\\boxed{\\left\\{ 1, 2 \\right\\}}", "\\left\\{ 1, 2 \\right\\}"},
        {"\\fbox{3} then \\boxed{4}", "4"},
        {"\\boxed{3} then \\fbox{4}", "4"},
        {"\\boxed{5} and \\boxed{cut", "5"},
        {"\\boxed{}", ""},
        {"none", NULL},
        {"\\boxed{cut", NULL},
        {"\\boxed 5", NULL},
        {"\\boxed{\\}", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = mq__math_boxed(cases[i][0]);
        const bool right = cases[i][1] ? got && strcmp(got, cases[i][1]) == 0 : !got;
        if (!right) fail_msg("%s: %s", cases[i][0], got ? got : "(none)");
        mq__free(got);
    }
}

static void values(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double value;
    } good[] = {{"1+2*3", 7},
                {"-4-5", -9},
                {"\\frac{1}{4}", 0.25},
                {"\\frac12", 0.5},
                {"\\frac1{10}", 0.1},
                {"3\\sqrt{16}", 12},
                {"\\sqrt[3]{-8}", -2},
                {"\\sqrt9", 3},
                {"2^{10}", 1024},
                {"2^-1", 0.5},
                {"2^31", 8},
                {"(1+2)(3+4)", 21},
                {"8/2/2", 2},
                {"2*-3", -6},
                {".5", 0.5},
                {"2\\pi", 6.283185307179586}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        double value;
        if (!mq__math_value(good[i].text, 0, &value) || fabs(value - good[i].value) > 1e-12)
            fail_msg("%s: %g", good[i].text, value);
    }
    static const char *const bad[] = {"",    "1+",  "(1",         "1)", "\\frac{1}", "\\sin1", "1..2", ".",
                                      "1,2", "1/0", "\\sqrt{-1}", "{",  "*",         "\\pie",  "2^{",  "9^{9^{9^9}}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double value;
        if (mq__math_value(bad[i], 0, &value)) fail_msg("%s: %g", bad[i], value);
    }
    char deep[3000];
    memset(deep, '(', sizeof deep);
    deep[sizeof deep - 1] = '\0';
    double value;
    assert_false(mq__math_value(deep, 0, &value));
    for (size_t i = 0; i + 6 < sizeof deep; i += 5) {
        memcpy(deep + i, "\\sqrt", 5);
    }
    assert_false(mq__math_value(deep, 0, &value));
}

static void equal(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"42", "42"},
        {"042", "42"},
        {"0.5", "\\frac{1}{2}"},
        {"\\dfrac12", "\\frac{1}{2}"},
        {"1/2", "\\tfrac{1}{2}"},
        {"-\\frac{1}{2}", "\\frac{-1}{2}"},
        {"\\$36", "36"},
        {"10\\%", "10"},
        {"90^\\circ", "90"},
        {"90^{\\circ}", "90"},
        {"5.4 \\text{ cents}", "5.4"},
        {"1,000", "1000"},
        {"11,\\! 111,\\! 111,\\! 100", "11111111100"},
        {"12{,}345.5", "12345.5"},
        {"x = 5", "5"},
        {"y=2x+3", "2x + 3"},
        {"42.", "42"},
        {"$42$", "42"},
        {"3\\sqrt{13}", "\\sqrt{117}"},
        {"\\frac{\\sqrt3}{2}", "\\frac{\\sqrt{3}}{2}"},
        {"1+\\sqrt{2}", "\\sqrt{2} + 1"},
        {"(x+1)^2", "x^2+2x+1"},
        {"p - q", "-q+p"},
        {"\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)"},
        {"(-\\infty, 2]", "\\left(-\\infty,2\\right]"},
        {"x \\in [-2,7]", "[-2,7]"},
        {"(-\\infty,1)\\cup(2,3)", "(-\\infty, 1) \\cup (2, 3)"},
        {"1, 2, 3", "3,1,2"},
        {"\\{1,2\\}", "\\left\\{2, 1\\right\\}"},
        {"\\{1,2\\}", "1,2"},
        {"\\frac12, 3", "3, 0.5"},
        {"\\text{Evelyn}", "\\text{ evelyn }"},
        {"\\text{(C)}", "\\text{(C)}"},
        {"(5)", "5"},
        {"2516_8", "2516_8"},
        {"6 - 5i", "6-5i"},
        {"\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"},
        {"\xe2\x88\x92"
         "3",
         "-3"}};
    static const char *const different[][2] = {{"42", "43"},
                                               {"0.33", "\\frac13"},
                                               {"(1,2)", "(2,1)"},
                                               {"(1,2)", "[1,2]"},
                                               {"(1,2]", "[1,2)"},
                                               {"(1,2)", "1,2"},
                                               {"1,2", "1,2,2"},
                                               {"1,1,2", "1,2,2"},
                                               {"(0,1)\\cup(2,3)", "(2,3)\\cup(0,1)"},
                                               {"(-\\infty,2)", "(\\infty,2)"},
                                               {"x+1", "y+1"},
                                               {"x^2", "2x"},
                                               {"\\text{Evelyn}", "\\text{Carla}"},
                                               {"\\text{ab}", "\\text{ba}"},
                                               {"2516_8", "2516_7"},
                                               {"1,000", "1"},
                                               {"", ""},
                                               {"", "42"},
                                               {"\\sqrt{2}", "2"},
                                               {"1{", "1"},
                                               {"{1", "1}"},
                                               {"42 or 43", "42"}};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (!mq__math_equal(same[i][0], same[i][1]) || !mq__math_equal(same[i][1], same[i][0]))
            fail_msg("expected the same: %s, %s", same[i][0], same[i][1]);
    }
    for (size_t i = 0; i < sizeof different / sizeof different[0]; i++) {
        if (mq__math_equal(different[i][0], different[i][1]) || mq__math_equal(different[i][1], different[i][0]))
            fail_msg("expected different ones: %s, %s", different[i][0], different[i][1]);
    }
}

extern const mq_eval_task mq__eval_math500, mq__eval_aime;

/* The score of an answer to a file's only problem. */
static double score_of_math(const mq_eval_task *task, const char *file, const char *answer)
{
    unit_puts("problem.jsonl", file);
    const mq_eval_options options = {.model_dir = "none", .data = unit_path("problem.jsonl")};
    const mq_eval_context context = {.options = &options, .info = {.context = 1000}};
    void *opened, *episode;
    size_t items;
    mq_error error = {0};
    mq_eval_prompt prompt = {0};
    if (task->open(&context, &opened, &items, &error) != MQ_OK) fail_msg("%s", error.text);
    assert_int_equal(items, 1);
    assert_int_equal(task->begin(opened, 0, &episode, &error), MQ_OK);
    assert_int_equal(task->next(episode, NULL, &prompt, &error), MQ_OK);
    assert_non_null(strstr(prompt.prompt, "What is 1/2?"));
    assert_non_null(strstr(prompt.prompt, "\\boxed{}"));
    assert_int_equal(prompt.max_tokens, 32768);
    mq__free(prompt.prompt);
    const mq_eval_answer said = {.text = answer, .bytes = strlen(answer)};
    prompt = (mq_eval_prompt){0};
    assert_int_equal(task->next(episode, &said, &prompt, &error), MQ_OK);
    json_t *record = task->end(episode, true);
    const double right = json_number_value(json_object_get(record, "right"));
    json_decref(record);
    task->close(opened);
    return right;
}

static void files(void **state)
{
    (void)state;
    static const char
        math[] = "{\"problem\": \"What is 1/2?\", \"solution\": \"s\", \"answer\": \"\\\\frac{1}{2}\", "
                 "\"subject\": \"Algebra\", \"level\": 2, \"unique_id\": \"test/algebra/1.json\"}\n",
        aime[] = "{\"ID\": \"2024-I-1\", \"Problem\": \"What is 1/2?\", \"Solution\": \"s\", \"Answer\": 73}\n",
        other[] = "{\"question\": \"What is 1/2?\", \"answer\": \"073\"}\n";
    assert_true(score_of_math(&mq__eval_math500, math, "It is \\boxed{0.5}.") == 1);
    assert_true(score_of_math(&mq__eval_math500, math, "It is 0.5.") == 0);
    assert_true(score_of_math(&mq__eval_math500, math, "<think>\\boxed{0.5}</think>\\boxed{2}") == 0);
    assert_true(score_of_math(&mq__eval_math500, math, "<think>\\boxed{0.5}") == 0);
    assert_true(score_of_math(&mq__eval_aime, aime, "<think>\\boxed{1}</think>\\boxed{073}") == 1);
    assert_true(score_of_math(&mq__eval_aime, other, "\\boxed{73}") == 1);
    assert_true(score_of_math(&mq__eval_aime, other, "\\boxed{74}") == 0);
    static const char *const bad[] = {"{}\n",
                                      "{\"problem\": \"p\"}\n",
                                      "{\"problem\": \"p\", \"answer\": \"\"}\n",
                                      "{\"problem\": 1, \"answer\": 1}\n",
                                      "[]\n",
                                      "{"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        unit_puts("problem.jsonl", bad[i]);
        const mq_eval_options options = {.model_dir = "none", .data = unit_path("problem.jsonl")};
        const mq_eval_context context = {.options = &options, .info = {.context = 1000}};
        void *opened = NULL;
        size_t items;
        assert_int_equal(mq__eval_aime.open(&context, &opened, &items, NULL), MQ_FORMAT);
        mq__eval_aime.close(opened);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boxed),
        cmocka_unit_test(values),
        cmocka_unit_test(equal),
        cmocka_unit_test_setup_teardown(files, unit_setup, unit_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
