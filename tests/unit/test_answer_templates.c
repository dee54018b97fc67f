/* The style of answers of published templates and of the bundled model, and the way back: what a template writes for calls is taken
 * apart into the same calls. Which special tokens an answer keeps. */
#include "base/json_read.h"
#include "base/mem.h"
#include "engine/synth_shapes.h"
#include "unit_answer.h"

#include <jansson.h>

typedef struct published {
    const char *file;
    mq_tool_format tools;
    const char *think;
    size_t calls; /* that its template writes in one message */
} published;

static const published templates[] = {
    {"GLM-4.6.jinja", MQ_TOOLS_NONE, "<think>", 0},
    {"HuggingFaceTB-SmolLM3-3B.jinja", MQ_TOOLS_NONE, "<think>", 0},
    {"Mistral-Small-3.2-24B-Instruct-2506.jinja", MQ_TOOLS_MISTRAL, "", 2},
    {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", MQ_TOOLS_HERMES, "", 2},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja", MQ_TOOLS_HERMES, "", 2},
    {"Qwen-Qwen2.5-7B-Instruct.jinja", MQ_TOOLS_HERMES, "", 2},
    {"Qwen3-Coder.jinja", MQ_TOOLS_QWEN3_CODER, "", 2},
    {"Qwen3.5-4B.jinja", MQ_TOOLS_QWEN3_CODER, "<think>", 2},
    {"Qwen3.jinja", MQ_TOOLS_HERMES, "<think>", 2},
    {"deepseek-ai-DeepSeek-V3.1.jinja", MQ_TOOLS_NONE, "<think>", 0},
    {"gemma-3.jinja", MQ_TOOLS_NONE, "", 0},
    {"google-gemma-2-2b-it.jinja", MQ_TOOLS_NONE, "", 0},
    {"google-gemma-4-31B-it.jinja", MQ_TOOLS_GEMMA4, "<|channel>thought", 2},
    {"ibm-granite-granite-3.3-2B-Instruct.jinja", MQ_TOOLS_NONE, "<think>", 0},
    {"meta-llama-Llama-3.1-8B-Instruct.jinja", MQ_TOOLS_LLAMA3, "", 1},
    {"meta-llama-Llama-3.2-3B-Instruct.jinja", MQ_TOOLS_LLAMA3, "", 1},
    {"meta-llama-Llama-3.3-70B-Instruct.jinja", MQ_TOOLS_LLAMA3, "", 1},
    {"microsoft-Phi-3.5-mini-instruct.jinja", MQ_TOOLS_NONE, "", 0},
    {"mistralai-Mistral-Nemo-Instruct-2407.jinja", MQ_TOOLS_MISTRAL, "", 2},
    {"openai-gpt-oss-120b.jinja", MQ_TOOLS_NONE, "", 0},
};

#define TEMPLATES (sizeof templates / sizeof templates[0])

static const char *shared_path(const char *folder, const char *name)
{
    static char path[512];
    const char *const shared = getenv("MQ_SHARED");
    if (!shared) skip();
    snprintf(path, sizeof path, "%s/data/%s/%s", shared ? shared : "", folder, name);
    return path;
}

static const char *bundled(void)
{
    static char path[512];
    const char *const source = getenv("MQ_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/models/mixquant-agent", source ? source : ".");
    return path;
}

static mq_text *open_answer_text(const char *dir, const char *template)
{
    mq_text *text = NULL;
    mq_error error = {0};
    if (mq_text_open(dir, template, &text, &error) != MQ_OK) fail_msg("%s: %s", template ? template : dir, error.text);
    return text;
}

static void expect_style(const mq_text *text, const published *p)
{
    mq_answer_style style;
    mq_text_answer_style(text, &style);
    if (style.tools != p->tools || strcmp(style.think, p->think) != 0) {
        fail_msg("%s: expected %s and \"%s\", got %s and \"%s\"", p->file, mq_tool_format_name(p->tools), p->think,
                 mq_tool_format_name(style.tools), style.think);
    }
    const char *const unthink = !p->think[0] ? "" : p->think[1] == '|' ? "<channel|>" : "</think>";
    assert_string_equal(style.unthink, unthink);
}

static void test_styles(void **state)
{
    (void)state;
    int files = 0;
    for (size_t i = 0; i < TEMPLATES; i++) {
        mq_text *const text = open_answer_text(bundled(), shared_path("chat_templates", templates[i].file));
        expect_style(text, &templates[i]);
        mq_text_close(text);
    }
    DIR *const dir = opendir(shared_path("chat_templates", ""));
    for (const struct dirent *e = dir ? readdir(dir) : NULL; e; e = readdir(dir)) {
        files += strstr(e->d_name, ".jinja") != NULL;
    }
    if (dir) closedir(dir);
    assert_int_equal(files, TEMPLATES); /* none without an expectation */
}

/* ---------------------------------------------------------------- there and back */

static const char *const arguments[] = {
    "{\"s\": \"line 1\\nline \\\"2\\\"\\t\\\\ </b> \\u00e4 \\ud83d\\ude00 {x}, 'y': </tool_call>\\n\", \"i\": -7, "
    "\"n\": 1.5,"
    "\"b\": true, \"z\": null, \"o\": {\"k\": [\"v\", {\"w\": false}], \"e\": \"\"}, \"l\": [1, \"two, 2\", null, []],"
    "\"sn\": \" text \"}",
    "{}",
};

static const char *const names[] = {"f", "g-2.x"};

static json_t *parse(const char *text)
{
    json_t *value;
    mq_error error;
    if (mq__json_read(text, strlen(text), JSON_DECODE_ANY, MQ_JSON_ROUND_NUMBERS, "test", &value, &error) != MQ_OK) {
        fail_msg("%s: %s", error.text, text);
    }
    return value;
}

static json_t *call_message(const char *content, size_t calls)
{
    json_t *const list = json_array(), *const message = json_pack("{s:s,s:s}", "role", "assistant", "content", content);
    for (size_t i = 0; i < calls; i++) {
        json_array_append_new(list, json_pack("{s:s,s:s,s:{s:s,s:s}}", "id", "abcdef123", "type", "function",
                                              "function", "name", names[i], "arguments", arguments[i]));
    }
    json_object_set_new(message, "tool_calls", list);
    return message;
}

/* Simpler than those that answers are taken apart with: some templates fail on arrays. */
static const char shown_tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"does "
    "it\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"s\":{\"type\":\"string\",\"description\":\"it\"}},\"required\":[]}}}]";

/* The prompt of a conversation; `answer` may be NULL, a reference that is taken. */
static char *render(const mq_text *text, json_t *answer)
{
    char *prompt;
    size_t bytes;
    mq_error error = {0};
    json_t *const tools = parse(shown_tools);
    json_t *const request =
        json_pack("{s:[{s:s,s:s}],s:o,s:b,s:{s:b}}", "messages", "role", "user", "content", "Do it.", "tools", tools,
                  "add_generation_prompt", !answer, "chat_template_kwargs", "enable_thinking", 1);
    if (answer) json_array_append_new(json_object_get(request, "messages"), answer);
    char *const body = json_dumps(request, 0);
    json_decref(request);
    if (mq_render(text, body, strlen(body), &prompt, &bytes, &error) != MQ_OK) fail_msg("%s", error.text);
    free(body);
    return prompt;
}

/* What an answer came to. */
typedef struct taken {
    mq_buf text, name[2], arguments[2];
    size_t calls, ends;
} taken;

static void take(void *context, const mq_part *part)
{
    taken *const t = context;
    mq_buf *to = &t->text;
    if (part->kind == MQ_PART_CALL) {
        assert_in_range(t->calls++, 0, 1);
        to = &t->name[part->call];
    }
    if (part->kind == MQ_PART_ARGUMENTS) to = &t->arguments[part->call];
    t->ends += part->kind == MQ_PART_CALL_END;
    if (part->kind != MQ_PART_REASONING) mq__buf_append(to, part->bytes, part->count);
}

static void clear_taken(taken *t)
{
    mq__buf_free(&t->text);
    for (size_t i = 0; i < 2; i++) {
        mq__buf_free(&t->name[i]);
        mq__buf_free(&t->arguments[i]);
    }
}

/* Where the answer begins in a conversation with one, and where its end token stands. */
static char *answer_in(const char *asked, const char *answered)
{
    static const char *const ends[] = {"<|im_end|>", "<|eot_id|>", "<|tool_response>", "<turn|>"};
    size_t same = 0;
    while (asked[same] && asked[same] == answered[same]) {
        same++;
    }
    char *const answer = mq__strdup(answered + same);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char *const end = strstr(answer, ends[i]);
        if (end) *end = '\0';
    }
    return answer;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);
    const size_t m = strlen(end);
    while (n && text[n - 1] == '\n') {
        n--;
    }
    return m && n >= m && memcmp(text + n - m, end, m) == 0;
}

static void expect_calls(const published *p, const taken *t, const char *content, const char *answer)
{
    if (t->calls != p->calls || t->ends != p->calls) {
        fail_msg("%s: expected %zu calls, got %zu (%zu ended) of %s", p->file, p->calls, t->calls, t->ends, answer);
    }
    for (size_t i = 0; i < p->calls; i++) {
        json_t *const expected = parse(arguments[i]), *const got = parse(t->arguments[i].data);
        assert_string_equal(t->name[i].data, names[i]);
        if (!json_equal(expected, got)) {
            fail_msg("%s: expected %s, got %s from %s", p->file, arguments[i], t->arguments[i].data, answer);
        }
        json_decref(expected);
        json_decref(got);
    }
    /* Some templates leave the text out, some put line breaks before the calls. */
    size_t n = t->text.len;
    while (n && t->text.data[n - 1] == '\n') {
        n--;
    }
    if (n == 0 && (!content[0] || !strstr(answer, content))) return;
    assert_int_equal(n, strlen(content));
    assert_memory_equal(t->text.data, content, n);
}

static void expect_way_back(const mq_text *text, const published *p, const char *content)
{
    char *const asked = render(text, NULL), *const answered = render(text, call_message(content, p->calls));
    char *const answer = answer_in(asked, answered);
    for (size_t step = 1; step <= 4096; step *= 8) {
        taken t = {.calls = 0};
        mq_answer_options options = {.split_reasoning = true,
                                     .tools = UNIT_TOOLS,
                                     .tools_bytes = strlen(UNIT_TOOLS),
                                     .part = take,
                                     .context = &t};
        mq_answer *taker;
        mq_error error;
        mq_text_answer_style(text, &options.style);
        options.in_reasoning = ends_with(asked, options.style.think);
        assert_int_equal(mq_answer_new(&options, &taker, &error), MQ_OK);
        for (size_t at = 0; at < strlen(answer); at += step) {
            const size_t left = strlen(answer) - at;
            assert_int_equal(mq_answer_push(taker, answer + at, left < step ? left : step, &error), MQ_OK);
        }
        assert_int_equal(mq_answer_end(taker, &error), MQ_OK);
        assert_int_equal(mq_answer_calls(taker), p->calls);
        mq_answer_free(taker);
        expect_calls(p, &t, content, answer);
        clear_taken(&t);
    }
    mq__free(answer);
    mq_free(asked);
    mq_free(answered);
}

static void test_way_back(void **state)
{
    (void)state;
    size_t tried = 0;
    for (size_t i = 0; i < TEMPLATES; i++) {
        if (!templates[i].calls) continue;
        mq_text *const text = open_answer_text(bundled(), shared_path("chat_templates", templates[i].file));
        expect_way_back(text, &templates[i], "");
        expect_way_back(text, &templates[i], "I look, first.");
        mq_text_close(text);
        tried++;
    }
    assert_int_equal(tried, 12);
}

static void test_bundled(void **state)
{
    (void)state;
    static const published agent = {"the bundled model", MQ_TOOLS_HERMES, "", 2};
    mq_text *const text = open_answer_text(bundled(), NULL);
    mq_answer_style style;
    mq_text_answer_style(text, &style);
    assert_false(style.keep_special);
    expect_style(text, &agent);
    expect_way_back(text, &agent, "");
    expect_way_back(text, &agent, "I look, first.");
    mq_text_close(text);
}

/* ---------------------------------------------------------------- special tokens */

static void expect_markers(const char *tokenizer, const char *template, const char *marker, const char *other)
{
    char dir[512];
    snprintf(dir, sizeof dir, "%s", shared_path("tokenizers", tokenizer));
    mq_text *const text = open_answer_text(dir, shared_path("chat_templates", template));
    mq_answer_style style;
    mq_text_answer_style(text, &style);
    assert_int_equal(style.keep_special, marker != NULL);
    const char *const texts[] = {marker, other};
    for (size_t i = 0; i < 2; i++) {
        int32_t *ids;
        size_t count;
        if (!texts[i]) continue;
        assert_int_equal(mq_tokenize(text, texts[i], strlen(texts[i]), MQ_TOKENIZE_PARSE_SPECIAL, &ids, &count, NULL),
                         MQ_OK);
        assert_int_equal(count, 1);
        assert_int_equal(mq_token_is_marker(text, ids[0]), i == 0);
        mq_free(ids);
    }
    assert_false(mq_token_is_marker(text, -1));
    mq_text_close(text);
}

static void test_markers(void **state)
{
    (void)state;
    expect_markers("llama3.1", "meta-llama-Llama-3.1-8B-Instruct.jinja", "<|python_tag|>", "<|eot_id|>");
    expect_markers("llama3.1", "Qwen3.jinja", NULL, "<|python_tag|>"); /* of another format */
    expect_markers("qwen3", "Qwen3.jinja", NULL, "<tool_call>");       /* a token, but not a special one */
}

/* A model of bytes whose marks are special tokens. */
static mq_text *open_special(void)
{
    static const char *const added[] = {"<|tool_call>", "<tool_call|>", "<|\"|>", "<|channel>", "<channel|>"};
    json_t *const tokenizer = mq__synth_tokenizer();
    for (size_t i = 0; i < sizeof added / sizeof added[0]; i++) {
        json_array_append_new(json_object_get(tokenizer, "added_tokens"),
                              json_pack("{s:i,s:s,s:b,s:b,s:b,s:b,s:b}", "id", MQ_SYNTH_TOKENS + (int)i, "content",
                                        added[i], "special", 1, "normalized", 0, "single_word", 0, "lstrip", 0,
                                        "rstrip", 0));
    }
    char *const json = json_dumps(tokenizer, 0);
    json_decref(tokenizer);
    unit_puts("tokenizer.json", json);
    free(json);
    unit_puts("tokenizer_config.json", "{}");
    unit_puts("chat_template.jinja", "{# <|tool_call> <|channel>thought <channel|> #}{{ messages[0].content }}");
    return open_answer_text(unit_dir, NULL);
}

static void expect_generated(const mq_text *text, const mq_generate_options *options, const int32_t *tokens,
                             size_t count, const char *expected)
{
    const int32_t prompt = 'a';
    const mq_generation_start start = {.vocab = 300, .tokens = &prompt, .prompt_count = 1, .token_count = 1};
    mq_generation *generation;
    mq_buf got = {0};
    mq_finish finish = MQ_FINISH_NONE;
    assert_int_equal(mq_generation_new(text, options, &start, &generation, NULL), MQ_OK);
    for (size_t i = 0; i < count && finish == MQ_FINISH_NONE; i++) {
        const char *bytes;
        size_t n;
        assert_int_equal(mq_generation_push(generation, tokens[i], &bytes, &n, &finish, NULL), MQ_OK);
        mq__buf_append(&got, bytes, n);
    }
    mq_generation_free(generation);
    assert_string_equal(got.data, expected);
    mq__buf_free(&got);
}

static void test_kept_markers(void **state)
{
    (void)state;
    enum { CALL = MQ_SYNTH_TOKENS, CALL_END, QUOTE, CHANNEL, CHANNEL_END };
    static const int32_t tokens[] = {
        MQ_SYNTH_IM_START,    CHANNEL, 'x', CHANNEL_END, CALL, QUOTE, MQ_SYNTH_IM_END, 'y', QUOTE, CALL_END,
        MQ_SYNTH_END_OF_TEXT, 'z'};
    mq_text *const text = open_special();
    const char *const stop = "<|im_end|>y";
    mq_generate_options options = {.sampling = MQ_SAMPLING_GREEDY, .max_tokens = 100};
    mq_answer_style style;
    mq_text_answer_style(text, &style);
    assert_true(style.keep_special);
    assert_int_equal(style.tools, MQ_TOOLS_GEMMA4);
    expect_generated(text, &options, tokens, 12, "xyz");
    options.keep_markers = true;
    expect_generated(text, &options, tokens, 12, "<|channel>x<channel|><|tool_call><|\"|>y<|\"|><tool_call|>z");
    options.stops = &stop;
    options.stop_count = 1;
    expect_generated(text, &options, tokens, 12, "<|channel>x<channel|><|tool_call><|\"|>");
    options.stop_count = 0;
    options.keep_special = true;
    expect_generated(text, &options, tokens, 4, "<|im_start|><|channel>x<channel|>");
    mq_text_close(text);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const known[] = {"none", "hermes", "qwen3-coder", "llama3", "mistral", "gemma4"};
    for (int i = 0; i < MQ_TOOL_FORMATS; i++) {
        assert_string_equal(mq_tool_format_name((mq_tool_format)i), known[i]);
    }
    assert_string_equal(mq_tool_format_name(MQ_TOOL_FORMATS), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles),
        cmocka_unit_test(test_way_back),
        cmocka_unit_test(test_bundled),
        cmocka_unit_test(test_markers),
        cmocka_unit_test_setup_teardown(test_kept_markers, unit_setup, unit_teardown),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
