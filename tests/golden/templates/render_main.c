/* Renders many templates in one process, for check_templates.py.
 *
 * stdin: one JSON document a line, {"template": text, "variables": {...}} for the interpreter alone, or {"template": text,
 * "config": text|null, "request": {...}} for a chat template. stdout: one JSON document a line, {"text": ...} or
 * {"status": name, "error": text}. Dates are those of 2026-03-07 14:05:09, a Saturday. */
#include "base/json_read.h"
#include "base/mem.h"
#include "text/chat_template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tm day = {.tm_sec = 9,
                              .tm_min = 5,
                              .tm_hour = 14,
                              .tm_mday = 7,
                              .tm_mon = 2,
                              .tm_year = 126,
                              .tm_wday = 6,
                              .tm_yday = 65,
                              .tm_isdst = 0};

static mq_status render(const json_t *job, char **text, size_t *bytes, mq_error *error)
{
    const mq_jinja_options options = {.now = &day};
    const json_t *const source = json_object_get(job, "template"), *const request = json_object_get(job, "request");
    if (request) {
        mq_chat_template *chat = NULL;
        mq_status status = mq__chat_template_from_text(json_string_value(source), json_string_length(source),
                                                       json_string_value(json_object_get(job, "config")), &chat, error);
        if (status == MQ_OK) status = mq__chat_template_render_json(chat, request, &options, text, bytes, error);
        mq__chat_template_free(chat);
        return status;
    }
    mq_jinja *program = NULL;
    mq_status status = mq__jinja_parse(json_string_value(source), json_string_length(source), &program, error);
    if (status == MQ_OK)
        status = mq__jinja_render(program, json_object_get(job, "variables"), &options, text, bytes, error);
    mq__jinja_free(program);
    return status;
}

int main(void)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    while ((n = getline(&line, &capacity, stdin)) > 0) {
        json_t *job;
        if (mq__json_read(line, (size_t)n, JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, "job", &job, NULL) != MQ_OK) return 1;
        char *text = NULL;
        size_t bytes = 0;
        mq_error error = {0};
        const mq_status status = render(job, &text, &bytes, &error);
        json_t *const answer = status == MQ_OK
                                   ? json_pack("{s:o}", "text", json_stringn(text, bytes))
                                   : json_pack("{s:s,s:s}", "status", mq_status_text(status), "error", error.text);
        char *const out = json_dumps(answer, JSON_COMPACT | JSON_ENSURE_ASCII);
        if (!out) return 1;
        puts(out);
        fflush(stdout);
        free(out);
        json_decref(answer);
        json_decref(job);
        mq__free(text);
    }
    free(line);
    return 0;
}
