/* Loading from a checkpoint directory, special tokens, and what is changed in a request on its way to the template. */
#include "base/mem.h"
#include "text/chat_template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test_chat_template.XXXXXX";

static char *in_folder(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text)
{
    FILE *const file = fopen(in_folder(name), "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void clear_folder(void)
{
    static const char *const names[] = {"tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                                        "additional_chat_templates/tool_use.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)unlink(in_folder(names[i]));
    }
    (void)rmdir(in_folder("additional_chat_templates"));
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    clear_folder();
    return rmdir(folder);
}

static mq_chat_template *load(void)
{
    mq_chat_template *chat = NULL;
    mq_error error;
    if (mq__chat_template_load(folder, &chat, &error) != MQ_OK) fail_msg("%s", error.text);
    return chat;
}

static void expect_refused(mq_status status, const char *part)
{
    mq_chat_template *chat = NULL;
    mq_error error;
    assert_int_equal(mq__chat_template_load(folder, &chat, &error), status);
    assert_null(chat);
    if (!strstr(error.text, part)) fail_msg("expected '%s' in: %s", part, error.text);
}

static void expect_prompt(const mq_chat_template *chat, const char *request, const char *prompt)
{
    char *text = NULL;
    size_t bytes = 0;
    mq_error error;
    if (mq__chat_template_render(chat, request, strlen(request), &text, &bytes, &error) != MQ_OK)
        fail_msg("%s", error.text);
    assert_string_equal(text, prompt);
    assert_int_equal(bytes, strlen(prompt));
    mq__free(text);
}

static void expect_error(const mq_chat_template *chat, const char *request, mq_status status, const char *part)
{
    char *text = NULL;
    size_t bytes = 0;
    mq_error error;
    assert_int_equal(mq__chat_template_render(chat, request, strlen(request), &text, &bytes, &error), status);
    assert_null(text);
    if (!strstr(error.text, part)) fail_msg("expected '%s' in: %s", part, error.text);
    assert_int_equal(mq__chat_template_render(chat, request, strlen(request), &text, &bytes, NULL), status);
}

static mq_chat_template *from_text(const char *source)
{
    mq_chat_template *chat = NULL;
    mq_error error;
    if (mq__chat_template_from_text(source, strlen(source), NULL, &chat, &error) != MQ_OK) fail_msg("%s", error.text);
    return chat;
}

static const char plain[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
static const char with_tools[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"tools\": []}";

/* ---------------------------------------------------------------- loading */

static void test_sources(void **state)
{
    (void)state;
    clear_folder();
    expect_refused(MQ_FORMAT, "got neither");
    put("chat_template.json", "{\"chat_template\": \"processor\"}");
    mq_chat_template *chat = load();
    expect_prompt(chat, plain, "processor");
    mq__chat_template_free(chat);
    put("tokenizer_config.json", "{\"chat_template\": \"config {{ messages[0].content }}\"}");
    chat = load();
    expect_prompt(chat, plain, "config hi");
    expect_prompt(chat, with_tools, "config hi");
    mq__chat_template_free(chat);
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"D\"},"
        "{\"name\": \"tool_use\", \"template\": \"T\"}, {\"name\": \"rag\", \"template\": \"{% bad\"}]}");
    chat = load();
    expect_prompt(chat, plain, "D");
    expect_prompt(chat, with_tools, "T");
    expect_prompt(chat, "{\"messages\": [], \"tools\": null}", "D");
    mq__chat_template_free(chat);
    put("chat_template.jinja", "file\n");
    chat = load();
    expect_prompt(chat, with_tools, "file");
    mq__chat_template_free(chat);
    assert_int_equal(mkdir(in_folder("additional_chat_templates"), 0755), 0);
    put("additional_chat_templates/tool_use.jinja", "file for tools");
    chat = load();
    expect_prompt(chat, plain, "file");
    expect_prompt(chat, with_tools, "file for tools");
    mq__chat_template_free(chat);
    put("given.jinja", "given {{ eos_token }}");
    put("tokenizer_config.json", "{\"eos_token\": \"E\"}");
    mq_error error;
    assert_int_equal(mq__chat_template_load_file(in_folder("given.jinja"), folder, &chat, &error), MQ_OK);
    expect_prompt(chat, plain, "given E");
    mq__chat_template_free(chat);
    assert_int_equal(mq__chat_template_load_file(in_folder("given.jinja"), NULL, &chat, &error), MQ_OK);
    expect_prompt(chat, plain, "given ");
    mq__chat_template_free(chat);
    unlink(in_folder("given.jinja"));
    assert_int_equal(mq__chat_template_load_file(in_folder("given.jinja"), NULL, &chat, &error), MQ_IO);
}

static void test_refused_files(void **state)
{
    (void)state;
    clear_folder();
    put("tokenizer_config.json", "{\"chat_template\": 5}");
    expect_refused(MQ_FORMAT, "chat_template: expected a string or a list");
    put("tokenizer_config.json", "{\"chat_template\": \"x\", \"chat_template\": \"y\"}");
    expect_refused(MQ_FORMAT, "tokenizer_config.json: line 1");
    put("tokenizer_config.json", "[1]");
    expect_refused(MQ_FORMAT, "expected a JSON object");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"default\"}]}");
    expect_refused(MQ_FORMAT, "a name and a template");
    put("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"T\"}]}");
    mq_chat_template *chat = load();
    expect_prompt(chat, with_tools, "T");
    expect_error(chat, plain, MQ_TEMPLATE, "named default");
    mq__chat_template_free(chat);
    put("tokenizer_config.json", "{\"chat_template\": \"x\", \"bos_token\": [1]}");
    expect_refused(MQ_FORMAT, "bos_token: expected a string");
    put("tokenizer_config.json", "{\"chat_template\": \"a\\n{% if %}\"}");
    expect_refused(MQ_TEMPLATE, "line 2: expected an expression");
    put("tokenizer_config.json", "{\"chat_template\": \"{% include 'x' %}\"}");
    expect_refused(MQ_UNSUPPORTED, "'include'");
    /* A template that never ends is loaded (its probes stop early) and then refused when it is used. */
    put("tokenizer_config.json",
        "{\"chat_template\": \"{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}\"}");
    chat = load();
    expect_error(chat, plain, MQ_LIMIT, "steps");
    mq__chat_template_free(chat);
}

static void test_tokens(void **state)
{
    (void)state;
    const char source[] = "{{ bos_token }}|{{ eos_token }}|{{ unk_token is defined }}|{{ pad_token is defined }}|{{ "
                          "cls_token is defined }}";
    const char config[] =
        "{\"bos_token\": \"<s>\", \"eos_token\": {\"content\": \"</s>\", \"special\": true}, \"unk_token\": null,"
        "\"pad_token\": \"\"}";
    mq_chat_template *chat = NULL;
    mq_error error;
    assert_int_equal(mq__chat_template_from_text(source, sizeof source - 1, config, &chat, &error), MQ_OK);
    expect_prompt(chat, plain, "<s>|</s>|False|False|False");
    assert_string_equal(mq__chat_template_token(chat, "bos_token"), "<s>");
    assert_string_equal(mq__chat_template_token(chat, "eos_token"), "</s>");
    assert_null(mq__chat_template_token(chat, "pad_token"));
    mq__chat_template_free(chat);
}

/* ---------------------------------------------------------------- requests */

static void test_variables(void **state)
{
    (void)state;
    mq_chat_template *chat =
        from_text("{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }} {{ enable_thinking }}"
                  " {{ reasoning_effort }} {{ other }}");
    expect_prompt(chat, plain, "TrueTrueTrue   ");
    expect_prompt(chat,
                  "{\"messages\": [], \"tools\": [1], \"documents\": [], \"add_generation_prompt\": false, "
                  "\"reasoning_effort\": \"low\","
                  "\"chat_template_kwargs\": {\"enable_thinking\": false, \"other\": {\"a\": [1, 2.50, \"x\"]}}, "
                  "\"model\": \"m\"}",
                  "FalseFalseFalse False low {'a': [1, 2.5, 'x']}");
    mq__chat_template_free(chat);
}

static void test_arguments(void **state)
{
    (void)state;
    mq_chat_template *chat =
        from_text("{% for c in messages[0].tool_calls %}{{ (c.function or c).arguments|tojson }};{% endfor %}");
    expect_prompt(chat,
                  "{\"messages\": [{\"role\": \"assistant\", \"content\": null, \"tool_calls\": ["
                  "{\"function\": {\"name\": \"f\", \"arguments\": \"{\\\"b\\\":1,\\\"a\\\":[1.0]}\"}},"
                  "{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": null}}},"
                  "{\"function\": {\"name\": \"f\", \"arguments\": \"[1]\"}},"
                  "{\"function\": {\"name\": \"f\", \"arguments\": \"{broken\"}},"
                  "{\"name\": \"f\", \"arguments\": \"{\\\"k\\\": 2}\"}]}]}",
                  "{\"b\": 1, \"a\": [1.0]};{\"x\": null};\"[1]\";\"{broken\";{\"k\": 2};");
    mq__chat_template_free(chat);
}

#define CALL(content, arguments)                                                                                       \
    "{\"messages\": [{\"role\": \"assistant\"" content ", \"tool_calls\": [{\"function\": {\"name\": \"f\"" arguments  \
    "}}]}]}"
#define STRING  ", \"arguments\": \"{\\\"k\\\":  [1,2]}\""
#define OBJECT  ", \"arguments\": {\"k\": [1, 2.50, \"\\u00e9\"]}"
#define EMPTY   ", \"arguments\": \"\""
#define NO_TEXT ", \"content\": null"

/* Where the template wants the arguments as text they are the request's, to the byte. */
static void test_string_arguments(void **state)
{
    (void)state;
    mq_chat_template *chat =
        from_text("{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
                  "{{ c.function.name + '<' + c.function.arguments + '>' }}{% endfor %}{% endfor %}");
    expect_prompt(chat, CALL(NO_TEXT, STRING), "f<{\"k\":  [1,2]}>");
    expect_prompt(chat, CALL(", \"content\": \"t\"", EMPTY), "tf<>");
    expect_prompt(chat, CALL("", ", \"arguments\": null"), "f<{}>");
    expect_prompt(chat, CALL("", ""), "f<{}>");
    expect_prompt(chat, CALL("", OBJECT), "f<{\"k\": [1, 2.5, \"é\"]}>");
    mq__chat_template_free(chat);
    /* A dict would be printed as Python spells it: no model was trained on that. */
    chat = from_text(
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments }}{% endfor %}{% endfor %}");
    expect_prompt(chat, CALL("", STRING), "{\"k\":  [1,2]}");
    mq__chat_template_free(chat);
    /* Both forms are taken: the object, which gets Python's spacing. */
    chat = from_text(
        "{% for m in messages %}{% for c in m.tool_calls %}{{ c.function.arguments if c.function.arguments is "
        "string else c.function.arguments|tojson }}{% endfor %}{% endfor %}");
    expect_prompt(chat, CALL("", STRING), "{\"k\": [1, 2]}");
    expect_prompt(chat, CALL("", EMPTY), "{}");
    expect_prompt(chat, CALL("", ", \"arguments\": \" \\n\""), "{}");
    expect_prompt(chat, CALL("", ", \"arguments\": null"), "{}");
    expect_prompt(chat, CALL("", ""), "{}");
    expect_prompt(chat, CALL("", ", \"arguments\": \"{\\\"k\\\": 18446744073709551616}\""),
                  "{\"k\": 18446744073709551616}");
    mq__chat_template_free(chat);
}

static void test_nulls(void **state)
{
    (void)state;
    /* Null content is empty text, and members that are null are not there. */
    mq_chat_template *chat = from_text("{% for m in messages %}[{{ m.content.strip() }}{{ m.tool_calls is defined }}"
                                       "{{ m.name is defined }}]{% endfor %}");
    expect_prompt(chat, "{\"messages\": [{\"role\": \"user\", \"content\": null, \"name\": null}]}", "[FalseFalse]");
    expect_prompt(chat, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": null}]}",
                  "[aFalseFalse]");
    expect_prompt(chat, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\", \"tool_calls\": []}]}",
                  "[aFalseFalse]");
    expect_prompt(chat, CALL(NO_TEXT, STRING), "[TrueFalse]");
    mq__chat_template_free(chat);
    /* A template that knows calls by their null content gets it, with arguments of either form. */
    static const char *const forms[] = {"c.function.arguments|tojson", "'' + c.function.arguments"};
    for (size_t i = 0; i < 2; i++) {
        char source[400];
        snprintf(
            source, sizeof source,
            "{%% for m in messages %%}{%% if m.content is none %%}{%% for c in m.tool_calls %%}<{{ %s }}>{%% endfor %%}"
            "{%% else %%}[{{ m.content }}]{%% endif %%}{%% endfor %%}",
            forms[i]);
        chat = from_text(source);
        const char *const calls = i ? "<{\"k\":  [1,2]}>" : "<{\"k\": [1, 2]}>";
        expect_prompt(chat, CALL(NO_TEXT, STRING), calls);
        expect_prompt(chat, CALL("", STRING), calls);
        expect_prompt(chat, CALL(", \"content\": \"t\"", STRING), "[t]");
        expect_prompt(chat, "{\"messages\": [{\"role\": \"assistant\", \"content\": null}]}", "[]");
        mq__chat_template_free(chat);
    }
    /* Where only lists work, no text is a list as well. */
    chat = from_text(
        "{% for m in messages %}<{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}>{% endfor %}");
    expect_prompt(chat, "{\"messages\": [{\"role\": \"user\", \"content\": null}]}", "<>");
    mq__chat_template_free(chat);
}

static void test_content_parts(void **state)
{
    (void)state;
    const char request[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"type\": \"text\","
        "\"text\": \"b\"}]}]}";
    const char image[] = "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}";
    /* Only strings work. */
    mq_chat_template *chat = from_text("{% for m in messages %}<{{ m.content }}>{% endfor %}");
    expect_prompt(chat, request, "<a\nb>");
    expect_error(chat, image, MQ_FORMAT, "messages[0].content[0]: expected a part of type text, got image_url");
    mq__chat_template_free(chat);
    /* Both work, so the list is passed. */
    chat = from_text(
        "{% for m in messages %}{% if m.content is string %}<{{ m.content }}>{% else %}<{% for p in m.content %}"
        "{{ p.text or '[image]' }}{% endfor %}>{% endif %}{% endfor %}");
    expect_prompt(chat, request, "<ab>");
    expect_prompt(chat, image, "<[image]>");
    expect_prompt(chat, plain, "<hi>");
    mq__chat_template_free(chat);
    /* Only lists work, so strings become lists. */
    chat = from_text(
        "{% for m in messages %}<{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}>{% endfor %}");
    expect_prompt(chat, request, "<ab>");
    expect_prompt(chat, plain, "<hi>");
    mq__chat_template_free(chat);
    /* The roles differ. */
    chat = from_text(
        "{% for m in messages %}{% if m.role == 'user' and m.content is not string %}{{ m.content[0].text }}{% else %}"
        "{{ m.content }}{% endif %};{% endfor %}");
    expect_prompt(chat,
                  "{\"messages\": [{\"role\": \"system\", \"content\": [{\"type\": \"text\", \"text\": \"s\"}]}, "
                  "{\"role\": \"user\","
                  "\"content\": [{\"type\": \"text\", \"text\": \"u\"}]}]}",
                  "s;u;");
    mq__chat_template_free(chat);
}

static void test_bad_requests(void **state)
{
    (void)state;
    mq_chat_template *chat =
        from_text("{{ messages[0].content }}{% if messages|length > 1 %}{{ raise_exception('one only') }}{% endif %}");
    expect_error(chat, "{", MQ_FORMAT, "request: line 1");
    expect_error(chat, "[]", MQ_FORMAT, "expected a JSON object");
    expect_error(chat, "{}", MQ_FORMAT, "messages: expected a list, got nothing");
    expect_error(chat, "{\"messages\": {}}", MQ_FORMAT, "messages: expected a list");
    expect_error(chat, "{\"messages\": [5]}", MQ_FORMAT, "messages[0]: expected an object with a role");
    expect_error(chat, "{\"messages\": [{\"content\": \"x\"}]}", MQ_FORMAT, "messages[0]");
    expect_error(chat, "{\"messages\": [], \"tools\": {}}", MQ_FORMAT, "tools: expected a list");
    expect_error(chat, "{\"messages\": [], \"messages\": []}", MQ_FORMAT, "duplicate");
    expect_error(chat, "{\"messages\": [], \"chat_template_kwargs\": 1}", MQ_FORMAT, "chat_template_kwargs");
    expect_error(chat, "{\"messages\": [], \"chat_template_kwargs\": {\"tools\": []}}", MQ_FORMAT, "other names");
    expect_error(chat, "{\"messages\": [{\"role\": \"user\", \"content\": 0199999999999999999999}]}", MQ_FORMAT,
                 "request: line 1");
    expect_error(chat, "{\"messages\": [{\"role\": \"a\"}, {\"role\": \"b\"}]}", MQ_TEMPLATE, "line 1: one only");
    char *const deep = calloc(1, 2000);
    assert_non_null(deep);
    strcat(deep, "{\"messages\": [{\"role\": \"user\", \"content\": ");
    for (int i = 0; i < 300; i++) {
        strcat(deep, "[");
    }
    for (int i = 0; i < 300; i++) {
        strcat(deep, "]");
    }
    strcat(deep, "}]}");
    mq_chat_template *const lists = from_text("{{ messages[0].content[0].text or messages[0].content }}");
    expect_error(lists, deep, MQ_LIMIT, "nested at most 150 deep");
    mq__chat_template_free(lists);
    free(deep);
    mq__chat_template_free(chat);
}

static void test_short_memory(void **state)
{
    (void)state;
    clear_folder();
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"default\", \"template\": \"{{ messages[0].content|trim }}\"},"
        "{\"name\": \"tool_use\", \"template\": \"T{{ tools|tojson }}\"}], \"bos_token\": \"b\"}");
    unsigned long failed = 0;
    for (unsigned long n = 1; n < 20000; n++) {
        mq_chat_template *chat = NULL;
        mq_error error = {0};
        char *text = NULL;
        size_t bytes = 0;
        mq__alloc_fail_at(n);
        mq_status status = mq__chat_template_load(folder, &chat, &error);
        if (status == MQ_OK)
            status = mq__chat_template_render(chat, with_tools, sizeof with_tools - 1, &text, &bytes, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        mq__chat_template_free(chat);
        mq__free(text);
        if (made < n) {
            assert_int_equal(status, MQ_OK);
            break;
        }
        assert_int_equal(status, MQ_NO_MEMORY);
        failed++;
    }
    assert_true(failed > 20);
}

/* Each allocation fails once, jansson's among them: the render is refused for that reason or its text is whole. */
static void test_short_memory_in_json(void **state)
{
    (void)state;
    const char request[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"a\"}, {\"text\": \"b\"}]},"
        "{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"arguments\": \"{\\\"a\\\": 1}\"}}, "
        "{\"arguments\": \"{}\"}]}],"
        "\"chat_template_kwargs\": {\"x\": 1}, \"reasoning_effort\": \"low\"}";
    const char source[] = "{{ messages|tojson }}{{ x }}";
    const char prompt[] = "[{\"role\": \"user\", \"content\": \"a\\nb\"}, {\"role\": \"assistant\", \"tool_calls\": "
                          "[{\"function\": {\"arguments\": {\"a\": 1}}}, {\"arguments\": {}}]}]1";
    unsigned long n = 1;
    for (; n < 20000; n++) {
        mq_chat_template *chat = NULL;
        mq_error error = {0};
        char *text = NULL;
        size_t bytes = 0;
        mq__alloc_fail_at(n);
        mq_status status =
            mq__chat_template_from_text(source, sizeof source - 1, "{\"bos_token\": \"b\"}", &chat, &error);
        if (status == MQ_OK)
            status = mq__chat_template_render(chat, request, sizeof request - 1, &text, &bytes, &error);
        const unsigned long made = mq__alloc_fail_at(0);
        if (status == MQ_OK) {
            assert_string_equal(text, prompt);
        } else {
            assert_int_equal(status, MQ_NO_MEMORY);
            assert_int_equal(error.status, status);
        }
        mq__chat_template_free(chat);
        mq__free(text);
        if (made < n) break;
    }
    assert_in_range(n, 100, 19999);
}

/* ---------------------------------------------------------------- a long conversation */

static void test_long_conversation(void **state)
{
    (void)state;
    mq_chat_template *const chat = from_text("{%- for m in messages %}{%- if m.role == 'user' or not m.tool_calls "
                                             "%}{{- '<|im_start|>' + m.role + '\\n' + m.content + "
                                             "'<|im_end|>' + '\\n' }}{%- else %}{%- for c in m.tool_calls %}{{- "
                                             "'<tool_call>' ~ (c.function.arguments|tojson) ~ '</tool_call>' "
                                             "}}{%- endfor %}{%- endif %}{%- endfor %}{%- if add_generation_prompt "
                                             "%}{{- '<|im_start|>assistant\\n' }}{%- endif %}");
    json_t *const messages = json_array();
    for (int i = 0; i < 200; i++) {
        char text[600];
        memset(text, 'a' + i % 26, 512);
        text[512] = '\0';
        json_array_append_new(messages, json_pack("{s:s,s:s}", "role", "user", "content", text));
        json_array_append_new(messages,
                              json_pack("{s:s,s:n,s:[{s:{s:s,s:s}}]}", "role", "assistant", "content", "tool_calls",
                                        "function", "name", "f", "arguments", "{\"city\": \"x\", \"n\": [1, 2, 3]}"));
    }
    json_t *const request = json_pack("{s:o}", "messages", messages);
    char *text = NULL;
    size_t bytes = 0;
    mq_error error;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    const mq_status status = mq__chat_template_render_json(chat, request, NULL, &text, &bytes, &error);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_int_equal(status, MQ_OK);
    assert_true(bytes > 100000);
    assert_string_equal(text + bytes - 22, "<|im_start|>assistant\n");
    if (getenv("MQ_TEST_VERBOSE")) {
        print_message("%zu bytes in %.2f ms\n", bytes,
                      (double)(end.tv_sec - start.tv_sec) * 1e3 + (double)(end.tv_nsec - start.tv_nsec) * 1e-6);
    }
    mq__free(text);
    json_decref(request);
    mq__chat_template_free(chat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_string_arguments),
        cmocka_unit_test(test_nulls),
        cmocka_unit_test(test_content_parts),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_long_conversation),
        cmocka_unit_test(test_short_memory_in_json),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
