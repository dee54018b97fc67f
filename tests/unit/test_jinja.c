/* The interpreter: values of built-in templates, errors with their lines, budgets, short memory, the C stack. */
#include "base/json_read.h"
#include "base/mem.h"
#include "jinja/jinja.h"

#include <locale.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif

static const char variables[] =
    "{\"n\": 3, \"s\": \"Hé\", \"list\": [1, 2, 3], \"rows\": [{\"k\": \"b\"}, {\"k\": \"a\"}],"
    "\"nothing\": null, \"big\": \"\\u0000x\"}";

typedef struct outcome {
    mq_status status;
    char *text;
    size_t bytes;
    mq_error error;
} outcome;

static outcome render_with(const char *source, size_t bytes, const char *json, const mq_jinja_options *options)
{
    outcome result = {0};
    mq_jinja *program = NULL;
    result.status = mq__jinja_parse(source, bytes, &program, &result.error);
    if (result.status != MQ_OK) {
        assert_null(program);
        return result;
    }
    json_t *values;
    result.status =
        mq__json_read(json, strlen(json), JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "variables", &values, &result.error);
    if (result.status == MQ_OK) {
        result.status = mq__jinja_render(program, values, options, &result.text, &result.bytes, &result.error);
    }
    assert_int_equal(result.status == MQ_OK, result.text != NULL);
    json_decref(values);
    mq__jinja_free(program);
    return result;
}

static outcome render(const char *source)
{
    return render_with(source, strlen(source), variables, NULL);
}

static void expect(const char *source, const char *text)
{
    outcome result = render(source);
    if (result.status != MQ_OK) fail_msg("%s: %s", source, result.error.text);
    assert_string_equal(result.text, text);
    assert_int_equal(result.bytes, strlen(text));
    mq__free(result.text);
}

/* The status, and a part of the report. */
static void expect_error(const char *source, mq_status status, const char *part)
{
    outcome result = render(source);
    if (result.status != status || !strstr(result.error.text, part)) {
        fail_msg("%s: expected %s with '%s', got %s: %s", source, mq_status_text(status), part,
                 mq_status_text(result.status), result.status == MQ_OK ? result.text : result.error.text);
    }
    assert_int_equal(result.error.status, status);
    mq__free(result.text);
}

static void test_text(void **state)
{
    (void)state;
    expect("", "");
    expect("plain\n", "plain");
    expect("{{ s }} {{ n + 1 }} {{ nothing }} [{{ missing }}]", "Hé 4 None []");
    expect("{% if n > 2 %}\n  yes\n{% endif %}\nend", "  yes\nend");
    expect("a  {%- if true -%}  b  {%- endif -%}  c", "abc");
    expect("  {% set x = 1 %}\n{{ x }}", "1");
    expect("{% raw %}{{ x }}{% endraw %}{# gone #}", "{{ x }}");
    expect("{% for i in list %}{{ loop.index }}:{{ i }}{{ ',' if not loop.last }}{% endfor %}", "1:1,2:2,3:3");
    expect("{% set ns = namespace(t=0) %}{% for i in list %}{% set ns.t = ns.t + i %}{% endfor %}{{ ns.t }}", "6");
    expect("{% macro m(a, b='x') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(2, b=3) }}", "<1x><23>");
    expect("{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i "
           "}}{% endfor %}",
           "013");
    expect("{{ rows|map(attribute='k')|sort|join('-') }} {{ list[::-1] }} {{ s|upper }}", "a-b [3, 2, 1] HÉ");
    expect("{{ {'a': [1, 2.0, none, true, 'é\"']}|tojson }}", "{\"a\": [1, 2.0, null, true, \"é\\\"\"]}");
    expect("{{ rows|tojson(indent=1) }}", "[\n {\n  \"k\": \"b\"\n },\n {\n  \"k\": \"a\"\n }\n]");
    expect("{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 2 ** 3 ** 2 }} {{ 1 < 2 < 3 }}",
           "0.30000000000000004 1e+16 -4 2 64 True");
    expect("{{ big|length }}{{ big[1] }}", "2x");
}

static void test_nul_bytes(void **state)
{
    (void)state;
    outcome result = render_with("{{ big }}\0{{ big|tojson }}", 26, variables, NULL);
    assert_int_equal(result.status, MQ_OK);
    assert_int_equal(result.bytes, 2 + 1 + 9);
    assert_memory_equal(result.text, "\0x\0\"\\u0000x\"", 12);
    mq__free(result.text);
}

static void test_dates(void **state)
{
    (void)state;
    const struct tm day = {.tm_mday = 7, .tm_mon = 2, .tm_year = 126, .tm_wday = 6, .tm_yday = 65};
    const mq_jinja_options options = {.now = &day};
    const char source[] = "{{ strftime_now('%d %b %Y %A') }}";
    outcome result = render_with(source, sizeof source - 1, "{}", &options);
    assert_int_equal(result.status, MQ_OK);
    assert_string_equal(result.text, "07 Mar 2026 Saturday");
    mq__free(result.text);
    expect("{{ strftime_now('%Y')|length }}", "4");
}

static void test_errors(void **state)
{
    (void)state;
    expect_error("a\nb\n{{ missing.x }}", MQ_TEMPLATE, "template: line 3: 'missing' is undefined");
    expect_error("{{ rows[0].zz.y }}", MQ_TEMPLATE, "'dict' object has no attribute 'zz'");
    expect_error("\n{{ raise_exception('roles must alternate') }}", MQ_TEMPLATE, "line 2: roles must alternate");
    expect_error("{{ 1 / 0 }}", MQ_TEMPLATE, "divisor");
    expect_error("{{ 'a' + 1 }}", MQ_TEMPLATE, "got str and int");
    expect_error("{{ list.append(1) }}", MQ_TEMPLATE, "'append'");
    expect_error("{{ 9223372036854775807 + 1 }}", MQ_LIMIT, "64 bits");
    expect_error("{{ 99999999999999999999 + 1 }}", MQ_LIMIT, "64 bits");
    expect_error("{{ range(100001) }}", MQ_LIMIT, "100000");
    expect_error("{% macro m(a) %}\n{{ a }}{% endmacro %}\n\n{{ m(1, 2) }}", MQ_TEMPLATE, "line 4");
}

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        mq_status status;
        const char *part;
    } cases[] = {
        {"\n{% if %}", MQ_TEMPLATE, "line 2: expected an expression"},
        {"{% if n %}", MQ_TEMPLATE, "expected endif, got the end of the template"},
        {"{% for x in list %}{% endif %}", MQ_TEMPLATE, "'endif'"},
        {"{{ n", MQ_TEMPLATE, "}}"},
        {"{{ (n }}", MQ_TEMPLATE, "expected ')', got '}'"},
        {"{{ 'open }}", MQ_TEMPLATE, "closing '"},
        {"{# open", MQ_TEMPLATE, "#}"},
        {"{% raw %}", MQ_TEMPLATE, "endraw"},
        {"{{ n n }}", MQ_TEMPLATE, "'n'"},
        {"{{ $ }}", MQ_TEMPLATE, "'$'"},
        {"{% break %}", MQ_TEMPLATE, "for loop"},
        {"{% set 1 = 2 %}", MQ_TEMPLATE, "name to assign"},
        {"{% for loop in list %}{% endfor %}", MQ_TEMPLATE, "'loop'"},
        {"{{ '\\ud800' }}", MQ_TEMPLATE, "U+D800"},
        {"{% include 'x' %}", MQ_UNSUPPORTED, "'include'"},
        {"{% import 'x' as y %}", MQ_UNSUPPORTED, "'import'"},
        {"{% extends 'x' %}", MQ_UNSUPPORTED, "'extends'"},
        {"{% block x %}{% endblock %}", MQ_UNSUPPORTED, "'block'"},
        {"{% do list.pop() %}", MQ_UNSUPPORTED, "'do'"},
        {"{{ n|urlize }}", MQ_UNSUPPORTED, "filter, got 'urlize'"},
        {"{{ n is prime }}", MQ_UNSUPPORTED, "test, got 'prime'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_error(cases[i].source, cases[i].status, cases[i].part);
    }
    outcome result = render_with("\xff{{ n }}", 8, variables, NULL);
    assert_int_equal(result.status, MQ_FORMAT);
    /* Every prefix and every single damaged byte of a template is parsed or refused, never worse. */
    const char source[] = "{%- macro m(a, b=[1, 'x\\n']) -%}{{ a|default('é', true) ~ b[::-1] }}{%- endmacro -%}"
                          "{% for k, v in rows if k is defined %}{{ m(k)[1:].strip() }}{% else %}{# c #}{% endfor %}{% "
                          "raw %}x{% endraw %}";
    for (size_t cut = 0; cut < sizeof source; cut++) {
        result = render_with(source, cut, variables, NULL);
        mq__free(result.text);
        for (int byte = 0; byte < 256; byte += 5) {
            char damaged[sizeof source];
            memcpy(damaged, source, sizeof source);
            damaged[cut] = (char)(byte + (int)cut % 5);
            result = render_with(damaged, sizeof source - 1, variables, NULL);
            mq__free(result.text);
        }
    }
}

/* ---------------------------------------------------------------- budgets */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now); /* not the clock on the wall: the machine may be busy */
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void test_budgets(void **state)
{
    (void)state;
    static const char *const endless[] = {
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{{ a }}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{{ m(n + 1) ~ m(n + 2) }}{% endmacro %}{{ m(0) }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{% call m() %}x{% endcall %}",
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100000) %}{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(999) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s == [n.s] }}",
        "{% set n = namespace(s=[1]) %}{% for i in range(999) %}{% set n.s = [n.s] %}{% endfor %}{{ n.s|tojson }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{{ 'x' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ ('x' * 30000000).replace('', 'yyyyyyyy') }}",
        "{{ '%1000000000d' % 5 }}",
        "{{ '{:1000000000}'.format(5) }}",
        "{{ 'x'.center(1000000000) }}",
        "{{ rows|tojson(indent=1000000000) }}",
        "{% for i in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% set s = 'ab' * 10000000 %}{% for i in range(100000) %}{% if 'c' in s %}{% endif %}{% endfor %}",
        "{% set s = 'é' * 10000000 %}{% for i in range(100000) %}{{ s[i] }}{% endfor %}",
        "{% set s = 'ab' * 10000000 %}{% for i in range(100000) %}{% set t = s|upper %}{% endfor %}",
        "{% set s = 'ab' * 10000000 %}{% for i in range(100000) %}{% set t = s ~ 'x' %}{% endfor %}",
        "{% set s = ' ' * 10000000 %}{% for i in range(100000) %}{% set t = s.strip() %}{% endfor %}",
        "{% set s = 'a ' * 10000000 %}{% for i in range(100000) %}{% set t = s.split() %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in range(100000) %}{% set t = l|sort(reverse=true) %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% if -1 in l %}{% endif %}{% endfor %}",
        "{% set l = range(100000)|list %}{% for i in l %}{% set t = l[::-1] %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100) %}{% set t = 1e300|string %}{% endfor %}{% endfor %}",
        "{{ 10 ** 10 ** 10 }}",
    };
    for (size_t i = 0; i < sizeof endless / sizeof endless[0]; i++) {
        const double start = seconds();
        expect_error(endless[i], MQ_LIMIT, "expected");
        const double spent = seconds() - start;
        if (spent > 20) fail_msg("%s took %.2f s", endless[i], spent); /* the aim is 1 s; sanitizers cost */
        if (getenv("MQ_TEST_VERBOSE")) print_message("%.3f s  %s\n", spent, endless[i]);
    }
}

static void test_given_limits(void **state)
{
    (void)state;
    const char source[] = "{% for i in range(100) %}0123456789{% endfor %}";
    mq_jinja_options options = {.limits = {.output_bytes = 999}};
    outcome result = render_with(source, sizeof source - 1, "{}", &options);
    assert_int_equal(result.status, MQ_LIMIT);
    assert_non_null(strstr(result.error.text, "output of at most 999 bytes"));
    options.limits.output_bytes = 1000;
    result = render_with(source, sizeof source - 1, "{}", &options);
    assert_int_equal(result.status, MQ_OK);
    assert_int_equal(result.bytes, 1000);
    mq__free(result.text);
    options.limits = (mq_jinja_limits){.steps = 50};
    assert_int_equal(render_with(source, sizeof source - 1, "{}", &options).status, MQ_LIMIT);
    options.limits = (mq_jinja_limits){.string_bytes = 10};
    const char text[] = "{{ 'abcdef' * 2 }}";
    assert_int_equal(render_with(text, sizeof text - 1, "{}", &options).status, MQ_LIMIT);
    options.limits = (mq_jinja_limits){.calls = 5};
    static const char *const calls[] = {"{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(4) }}",
                                        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}"};
    result = render_with(calls[0], strlen(calls[0]), "{}", &options);
    assert_int_equal(result.status, MQ_OK);
    mq__free(result.text);
    result = render_with(calls[1], strlen(calls[1]), "{}", &options);
    assert_int_equal(result.status, MQ_LIMIT);
    assert_non_null(strstr(result.error.text, "at most 5 nested calls"));
    options.limits = (mq_jinja_limits){.memory_bytes = 4096};
    const char list[] = "{{ range(1000)|list }}";
    assert_int_equal(render_with(list, sizeof list - 1, "{}", &options).status, MQ_LIMIT);
}

/* A string of `count` times `what` between two others. */
static char *nested(const char *before, const char *what, const char *middle, const char *after, size_t count)
{
    char *const text = malloc(strlen(before) + count * (strlen(what) + strlen(after)) + strlen(middle) + 64);
    assert_non_null(text);
    char *end = stpcpy(text, before);
    for (size_t i = 0; i < count; i++) {
        end = stpcpy(end, what);
    }
    end = stpcpy(end, middle);
    for (size_t i = 0; i < count; i++) {
        end = stpcpy(end, after);
    }
    return text;
}

static void deep_templates(void)
{
    static const char *const shapes[][4] = {
        {"{{ ", "(", "1", ")"},
        {"{{ ", "[", "1", "]"},
        {"{{ ", "{'a':", "1", "}"},
        {"{{ ", "-", "1", ""},
        {"{{ ", "not ", "1", ""},
        {"{{ 1", "+1", "", ""},
        {"{{ a", ".b", "", ""},
        {"{{ a", "|upper", "", ""},
        {"{{ a", "[0]", "", ""},
        {"{{ a", "()", "", ""},
        {"{{ 1", " and 1", "", ""},
        {"{{ 1", " or 1", "", ""},
        {"{{ 1", " if 1", "", ""},
        {"{{ ", "1 if 1 else ", "1", ""},
        {"{{ 1", " < 2", "", ""},
        {"{{ 1", " ~ 1", "", ""},
        {"{{ 1", " ** 1", "", ""},
        {"{{ a", " is defined", "", ""},
        {"{{ ", "a(", "1", ")"},
        {"{{ ", "a[", "1", "]"},
        {"{{ ", "a|default(", "1", ")"},
        {"", "{% if 1 %}", "x", "{% endif %}"},
        {"", "{% for i in [1] %}", "x", "{% endfor %}"},
        {"{% if 0 %}", "{% elif 0 %}", "x{% endif %}", ""},
        {"", "{% filter upper %}", "x", "{% endfilter %}"},
        {"", "{% set x %}", "x", "{% endset %}"},
        {"", "{% macro m() %}", "x", "{% endmacro %}"},
        {"{% set ", "(", "a", ",)"},
        {"{{ ((((((((((1", "+(1", "", ")"},
        {"{{ ", "(1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+", "1", ")"},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        static const size_t counts[] = {5, 49, 99, 500, 20000};
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            char *const text = nested(shapes[i][0], shapes[i][1], shapes[i][2], shapes[i][3], counts[k]);
            if (shapes[i][0][0]) strcat(text, shapes[i][0][1] == '{' ? " }}" : shapes[i][0][3] == 's' ? " = 1 %}" : "");
            outcome result = render(text);
            assert_true(result.status == MQ_OK || result.status == MQ_LIMIT || result.status == MQ_TEMPLATE);
            mq__free(result.text);
            free(text);
        }
    }
    /* The deepest evaluation: a macro that goes through all kinds of nodes before it calls itself. */
    outcome result = render("{% macro m(n) %}{% for i in [1] %}{% if 1 %}{% filter trim %}{% set x %}"
                            "{{ [[1 + (m(n + 1)|default([m(n)], true))|length ~ 'x' ~ (1, m(n))]] }}"
                            "{% endset %}{{ x }}{% endfilter %}{% endif %}{% endfor %}{% endmacro %}{{ m(0) }}");
    assert_int_equal(result.status, MQ_LIMIT);
    result = render("{% macro m(n) %}{{ [n]|map('default', m(n))|list }}{% endmacro %}{{ m(0) }}");
    assert_int_equal(result.status, MQ_LIMIT);
}

static void *on_small_stack(void *unused)
{
    deep_templates();
    return unused;
}

static void test_stack(void **state)
{
    (void)state;
    deep_templates();
#if !defined(SANITIZED) /* red zones make frames several times as large */
    pthread_attr_t attributes;
    pthread_t thread;
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstacksize(&attributes, (size_t)512 << 10), 0);
    assert_int_equal(pthread_create(&thread, &attributes, on_small_stack, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_attr_destroy(&attributes);
#else
    (void)on_small_stack;
#endif
}

/* ---------------------------------------------------------------- numbers */

/* Python's integers have any length. Values are those of jinja2 3.1 on Python 3.11. */
static void test_large_integers(void **state)
{
    (void)state;
    expect("{{ 9223372036854775808 }} {{ -9223372036854775808 }} {{ -(-9223372036854775808) }} {{ "
           "10000000000000000000000000 }}",
           "9223372036854775808 -9223372036854775808 9223372036854775808 10000000000000000000000000");
    expect("{{ {'a': [18446744073709551616]}|tojson }} {{ [-18446744073709551616] }}",
           "{\"a\": [18446744073709551616]} [-18446744073709551616]");
    expect("{{ 18446744073709551616 > 18446744073709551615 }} {{ -18446744073709551616 < -18446744073709551615 }} "
           "{{ 18446744073709551616 == 18446744073709551616.0 }} {{ 18446744073709551617 > 18446744073709551616.0 }} "
           "{{ 18446744073709551616 > 5 }} {{ 1e400 > 18446744073709551616 }} {{ 1.5 < 18446744073709551616 }}",
           "True True True True True True True");
    expect("{{ 18446744073709551616 is number }} {{ 18446744073709551616 is integer }} {{ 18446744073709551616 is "
           "float }} "
           "{{ 18446744073709551616 is sameas 3 }} {{ 'y' if 18446744073709551616 else 'n' }}",
           "True True False False y");
    expect("{{ '18446744073709551616'|int }} {{ 1e20|int }} {{ -18446744073709551616|abs }} {{ "
           "18446744073709551616|float }} "
           "{{ 18446744073709551616 / 2.0 }} {{ {18446744073709551616: 1}[18446744073709551616.0] }}",
           "18446744073709551616 100000000000000000000 18446744073709551616 1.8446744073709552e+19 "
           "9.223372036854776e+18 1");
    expect("{{ [18446744073709551617, 3, -18446744073709551617]|sort }}",
           "[-18446744073709551617, 3, 18446744073709551617]");
    expect_error("{{ 18446744073709551616 * 2 }}", MQ_LIMIT, "64 bits");
    expect_error("{{ list[18446744073709551616:] }}", MQ_LIMIT, "64 bits");
    expect_error("{{ 0xffffffffffffffffff }}", MQ_LIMIT, "64 bits");
    const char request[] =
        "{\"a\": 340282366920938463463374607431768211456, \"b\": -9223372036854775809, \"c\": 1e400, "
        "\"d\": -1e400, \"e\": \"1e400, 99999999999999999999\", \"f\": [0, 12345678901234567890, 1]}";
    const char source[] = "{{ [a, b, c, d, e, f]|tojson }} {{ c }}";
    outcome result = render_with(source, sizeof source - 1, request, NULL);
    assert_int_equal(result.status, MQ_OK);
    assert_string_equal(result.text,
                        "[340282366920938463463374607431768211456, -9223372036854775809, Infinity, -Infinity, "
                        "\"1e400, 99999999999999999999\", [0, 12345678901234567890, 1]] inf");
    mq__free(result.text);
}

/* What is undefined in C where Python has a value: the sanitized build sees what comes out right by chance. */
static void test_edges_of_integers(void **state)
{
    (void)state;
    expect("{{ [1]|select|list }} {{ [0, 2]|reject|list }} {{ [1]|map('string')|list }}", "[1] [0] ['1']");
    expect("{{ range(5)[::-9223372036854775808]|list }} {{ 'abc'[::-9223372036854775808] }} "
           "{{ [1, 2][::-9223372036854775808] }} {{ [1, 2][::9223372036854775807] }}",
           "[4] c [2] [1]");
    expect("{{ [1, 2][-9223372036854775808:9223372036854775807] }} {{ 'abc'[9223372036854775807:] }}", "[1, 2] ");
    expect("{{ range(-9000000000000000000, 9000000000000000000, 6000000000000000000)|list }}",
           "[-9000000000000000000, -3000000000000000000, 3000000000000000000]");
    expect_error("{{ range(0, 9000000000000000000, 4000000000000000000)[::4] }}", MQ_LIMIT, "64 bits");
    expect_error("{{ '%*d' % (-9223372036854775808, 1) }}", MQ_LIMIT, "string of at most");
    expect_error("{{ -9223372036854775808 // -1 }}", MQ_LIMIT, "64 bits");
    expect("{{ -9223372036854775808 % -1 }} {{ -9223372036854775808|abs }}", "0 9223372036854775808");
}

static void test_unknown_names(void **state)
{
    (void)state;
    expect("{% if false %}{{ n|from_json(1)|a.b }}{% endif %}ok", "ok");
    expect("{{ n|shout if false else 'ok' }}{{ 'ok' if n is not defined and n is prime(3) }}", "ok");
    expect("{% for x in [] %}{% filter shout %}{{ x }}{% endfilter %}{% endfor %}ok", "ok");
    expect_error("a\n{{ n|from_json }}", MQ_UNSUPPORTED, "line 2: expected a known filter, got 'from_json'");
    expect_error("{{ n is a.prime }}", MQ_UNSUPPORTED, "expected a known test, got 'a.prime'");
    expect_error("{{ missing.x|from_json }}", MQ_TEMPLATE, "'missing' is undefined");
}

/* A host program may have set a locale with a comma: numbers are read and printed as ever. */
static void test_comma_locale(void **state)
{
    (void)state;
    char command[512], folder[] = "/tmp/test_jinja_locale.XXXXXX";
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/comma.utf8 >/dev/null 2>&1", folder);
    const bool made = system(command) == 0;
    setenv("LOCPATH", folder, 1);
    const bool set = made && setlocale(LC_ALL, "comma.utf8") && strcmp(localeconv()->decimal_point, ",") == 0;
    if (set) {
        expect("{{ 1.5 + n }} {{ '2.25'|float }} {{ '%.2f' % 0.5 }} {{ 2.5|round(1) }} {{ [1.5e-7]|tojson }}",
               "4.5 2.25 0.50 2.5 [1.5e-07]");
        const char source[] = "{{ x }} {{ x|tojson }}";
        outcome result = render_with(source, sizeof source - 1, "{\"x\": 12.75}", NULL);
        assert_int_equal(result.status, MQ_OK);
        assert_string_equal(result.text, "12.75 12.75");
        mq__free(result.text);
        assert_string_equal(localeconv()->decimal_point, ",");
        setlocale(LC_ALL, "C");
    }
    unsetenv("LOCPATH");
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
    if (!set) {
        print_message("SKIPPED: localedef made no locale with a comma\n");
        skip();
    }
}

/* Each allocation fails in turn: a status, no crash, and the leak check of the sanitized build sees the rest. */
static void test_short_memory(void **state)
{
    (void)state;
    const char source[] =
        "{% macro m(a, b=2) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}"
        "{% for r in rows|sort(attribute='k') %}{{ loop.length }}{{ r|tojson(indent=2) }}{% endfor %}"
        "{% set s %}{{ 'x' * 20000 }}{% endset %}{{ (s ~ s)|length }}{{ (range(3000)|list)[::-1][0] }}"
        "{{ '%s-%d'|format(n, 5) }}{{ list|map('string')|join(',') }}{{ {'a': 1, 'b': [1]} }}";
    unsigned long failed = 0;
    for (unsigned long n = 1; n < 1000; n++) {
        mq__alloc_fail_at(n);
        outcome result = render(source);
        const unsigned long made = mq__alloc_fail_at(0);
        if (made < n) {
            assert_int_equal(result.status, MQ_OK);
            mq__free(result.text);
            break;
        }
        assert_int_equal(result.status, MQ_NO_MEMORY);
        assert_int_equal(result.error.status, MQ_NO_MEMORY);
        failed++;
    }
    assert_true(failed > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_budgets),
        cmocka_unit_test(test_given_limits),
        cmocka_unit_test(test_stack),
        cmocka_unit_test(test_short_memory),
        cmocka_unit_test(test_large_integers),
        cmocka_unit_test(test_edges_of_integers),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_comma_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
