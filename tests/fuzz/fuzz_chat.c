/* A chat template, a request and a tokenizer_config.json. */
#include "base/mem.h"
#include "fuzz.h"
#include "text/chat_template.h"
#include "text/chat_template_request.h"

#include <string.h>

static bool render(const mq_chat_template *chat, const fuzz_part *request)
{
    static const struct tm day = {.tm_mday = 1, .tm_year = 125};
    const mq_jinja_options options = {.limits = {.steps = 50000, .output_bytes = 1 << 20, .memory_bytes = 8 << 20},
                                      .now = &day};
    mq_error error = {0};
    char *prompt = NULL;
    size_t bytes = 0;
    json_t *parsed;
    if (!fuzz_passed(mq__chat_request_parse(request->data ? request->data : "", request->bytes, &parsed, &error),
                     &error)) {
        return false;
    }
    const bool rendered =
        fuzz_passed(mq__chat_template_render_json(chat, parsed, &options, &prompt, &bytes, &error), &error);
    if (rendered) FUZZ_CHECK(prompt[bytes] == 0);
    mq__free(prompt);
    json_decref(parsed);
    return rendered;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    fuzz_part parts[3];
    mq_error error = {0};
    mq_chat_template *chat = NULL;
    fuzz_cut(data, bytes, parts, 3);
    char *const config = parts[2].data ? strndup(parts[2].data, parts[2].bytes) : NULL;
    fuzz_accepted = false;
    if (fuzz_passed(mq__chat_template_from_text(parts[0].data, parts[0].bytes, config, &chat, &error), &error)) {
        fuzz_accepted = render(chat, &parts[1]);
        mq__chat_template_free(chat);
    }
    free(config);
    fuzz_free(parts, 3);
    return 0;
}
