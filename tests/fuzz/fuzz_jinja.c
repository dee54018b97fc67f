/* A template and the JSON of its variables. Rendering twice gives the same. */
#include "base/mem.h"
#include "fuzz.h"
#include "jinja/jinja.h"

#include <string.h>

static const struct tm day = {.tm_mday = 1, .tm_year = 125};
static const mq_jinja_options options = {
    .limits = {.steps = 50000, .output_bytes = 1 << 20, .memory_bytes = 8 << 20, .string_bytes = 1 << 20}, .now = &day};

static bool render(const mq_jinja *program, const json_t *variables)
{
    char *text[2];
    size_t bytes[2];
    mq_error error[2] = {0};
    mq_status status[2];
    for (int i = 0; i < 2; i++) {
        status[i] = mq__jinja_render(program, variables, &options, &text[i], &bytes[i], &error[i]);
    }
    FUZZ_CHECK(status[0] == status[1]);
    const bool rendered = fuzz_passed(status[0], &error[0]);
    if (rendered) {
        FUZZ_CHECK(bytes[0] == bytes[1] && bytes[0] <= options.limits.output_bytes);
        FUZZ_CHECK(memcmp(text[0], text[1], bytes[0] + 1) == 0);
        FUZZ_CHECK(text[0][bytes[0]] == 0);
        mq__free(text[0]);
        mq__free(text[1]);
    } else {
        FUZZ_CHECK(strcmp(error[0].text, error[1].text) == 0);
    }
    return rendered;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[2];
    mq_error error = {0};
    mq_jinja *program = NULL;
    fuzz_cut(data, bytes, parts, 2);
    json_t *variables = parts[1].data ? json_loadb(parts[1].data, parts[1].bytes, JSON_ALLOW_NUL, NULL) : NULL;
    if (!json_is_object(variables)) {
        json_decref(variables);
        variables = json_object();
    }
    fuzz_accepted = false;
    if (fuzz_passed(mq__jinja_parse(parts[0].data, parts[0].bytes, &program, &error), &error)) {
        fuzz_accepted = render(program, variables);
    }
    mq__jinja_free(program);
    json_decref(variables);
    fuzz_free(parts, 2);
    return 0;
}
