/* GET /v1/models and /v1/models/ID: one model, in the forms of OpenAI, llama.cpp, vLLM, Anthropic and Codex at once. */
#include "base/json_read.h"
#include "server/answering.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* Codex takes these for a model that it does not know itself. */
#define AGENT_INSTRUCTIONS                                                                                             \
    "You are a coding agent. You work in the user's folder with the tools that you are given.\n"                       \
    "Look before you change: read the files that matter. Make the smallest change that does what was asked, and keep " \
    "to the style of the code around it. Run the project's own checks after a change if it has any.\n"                 \
    "Do not stop before the task is done. Say briefly at the end what you changed and what you could not do."

static json_t *model_meta(const mq_engine_info *info)
{
    return json_pack("{sI sI sI sI sI sI}", "n_vocab", (json_int_t)info->vocab, "n_ctx", (json_int_t)info->context,
                     "n_ctx_train", (json_int_t)info->max_positions, "n_embd", (json_int_t)info->width, "n_params",
                     (json_int_t)info->parameters, "size", (json_int_t)info->mapped_bytes);
}

/* An entry of `data`. */
static json_t *model_card(const mq_served_model *model, const char *role)
{
    char created[32];
    struct tm day;
    const time_t seconds = (time_t)model->created;
    if (!gmtime_r(&seconds, &day) || strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", &day) == 0)
        created[0] = '\0';
    return json_pack("{ss ss ss sI ss sI ss ss so s{ssss} ss}", "id", model->name, "object", "model", "type", "model",
                     "created", (json_int_t)model->created, "owned_by", "mixquant", "max_model_len",
                     (json_int_t)model->info.context, "display_name", model->name, "created_at", created, "meta",
                     model_meta(&model->info), "plan", "prefill", mq_linear_format_name(model->info.prefill), "decode",
                     mq_linear_format_name(model->info.decode), "role", role);
}

static json_t *effort_levels(bool reasons)
{
    json_t *levels = json_array();
    static const char *const efforts[][2] = {
        {"none", "no reasoning"}, {"low", "brief"}, {"medium", "usual"}, {"high", "long"}};
    for (size_t i = 0; reasons && i < sizeof efforts / sizeof efforts[0]; i++) {
        (void)json_array_append_new(levels, json_pack("{ssss}", "effort", efforts[i][0], "description", efforts[i][1]));
    }
    return levels;
}

/* An entry of `models`: every member that Codex insists on. */
static json_t *codex_card(const mq_served_model *model)
{
    const bool reasons = model->style.think[0] != '\0';
    const json_int_t context = model->info.context;
    json_t *card =
        json_pack("{ss ss ss so ss ss sb si sn ss sb sb sn sn s{sssI} sb sI sI s[] s[s] s[iii]}", "slug", model->name,
                  "display_name", model->name, "description", "served by mixquant", "supported_reasoning_levels",
                  effort_levels(reasons), "shell_type", "shell_command", "visibility", "list", "supported_in_api", 1,
                  "priority", 0, "upgrade", "base_instructions", AGENT_INSTRUCTIONS, "supports_reasoning_summaries",
                  reasons, "support_verbosity", 0, "default_verbosity", "apply_patch_tool_type", "truncation_policy",
                  "mode", "bytes", "limit", (json_int_t)10000, "supports_parallel_tool_calls", 1, "context_window",
                  context, "auto_compact_token_limit", context * 9 / 10, "experimental_supported_tools",
                  "input_modalities", "text", "minimal_client_version", 0, 1, 0);
    if (reasons) (void)json_object_set_new(card, "default_reasoning_level", json_string("medium"));
    return card;
}

static json_t *model_list(const mq_served_model *model, const char *role)
{
    return json_pack("{ss s[o] s[o] sb ss ss}", "object", "list", "data", model_card(model, role), "models",
                     codex_card(model), "has_more", 0, "first_id", model->name, "last_id", model->name);
}

static int hex_of_path(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether a path's end names the model, with or without %XX. */
static bool names_model(const char *id, const char *name)
{
    while (*id && *name) {
        char c = *id++;
        const int high = c == '%' ? hex_of_path(id[0]) : -1, low = high >= 0 ? hex_of_path(id[1]) : -1;
        if (low >= 0) {
            c = (char)(high * 16 + low);
            id += 2;
        }
        if (c != *name++) return false;
    }
    return *id == '\0' && *name == '\0';
}

void mq__api_models(mq_server *server, mq_exchange *x)
{
    static const char list[] = "/models";
    const mq_served_model *model = mq__server_model(server);
    const mq_handoff_backend *handoff = mq__server_handoff(server);
    const char *role = handoff ? handoff->role : "both";
    const char *path = mq__exchange_path(x), *at = strstr(path, list);
    const char *id = at ? at + sizeof list - 1 : "";
    if (*id == '/') id++;
    if (*id == '\0') {
        mq__reply_json(x, 200, model_list(model, role));
    } else if (names_model(id, model->name)) {
        mq__reply_json(x, 200, model_card(model, role));
    } else {
        mq_fault fault;
        (void)mq__fault(&fault, "model", "the model `%.200s` does not exist: this server has `%.200s`", id,
                        model->name);
        fault.status = 404;
        fault.code = "model_not_found";
        mq__reply_fault(x, NULL, &fault);
    }
}
