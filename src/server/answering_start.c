/* Everything of a request before its first event: body, ask, prompt, masks, submission. */
#include "base/json_read.h"
#include "base/mem.h"
#include "server/answering_call.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* ---- reading */

static bool ask_has_tools(mq_server *server, const mq_ask *ask)
{
    return ask->messages && ask->tools && ask->choice != MQ_CHOICE_NONE &&
           mq__server_model(server)->style.tools != MQ_TOOLS_NONE;
}

bool mq__call_has_tools(const mq_call *call)
{
    return ask_has_tools(call->server, &call->ask);
}

bool mq__ask_model(mq_server *server, const json_t *body, mq_ask *ask, mq_fault *fault)
{
    const char *given, *name = mq__server_model(server)->name;
    const bool read = mq__field_text(body, "model", 4096, &given, fault);
    snprintf(ask->model, sizeof ask->model, "%s", read && given ? given : "");
    if (!read) return false;
    if (!mq__server_options(server)->strict_model || !ask->model[0] || strcmp(ask->model, name) == 0) return true;
    (void)mq__fault(fault, "model", "the model `%s` does not exist: this server has `%s`", ask->model, name);
    fault->status = 404;
    fault->code = "model_not_found";
    return false;
}

static bool read_ask(mq_call *call, mq_fault *fault)
{
    mq__ask_defaults(call->server, &call->ask);
    json_t *body = mq__body_read(call->server, call->x, fault);
    if (!body) return false;
    const unsigned long before = mq__json_failures();
    bool read = mq__ask_model(call->server, body, &call->ask, fault);
    mq__ask_hints(call->x, body, &call->ask);
    read = read && call->api->read(call->server, call->x, body, &call->ask, fault) &&
           mq__ask_read_handoff(call->server, call->x, body, &call->ask, fault);
    if (mq__json_failures() != before)
        read = mq__fault_memory(fault); /* something may look wrong that was only left out */
    json_decref(body);
    return read;
}

/* ---- the length */

static bool check_length(const mq_call *call, mq_fault *fault)
{
    const uint32_t context = mq__server_model(call->server)->info.context, most = context - 1;
    if (call->prompt.count <= most) return true;
    (void)mq__fault(
        fault, call->ask.messages ? "messages" : "prompt",
        "prompt is too long: %zu tokens > %u maximum; this model's maximum context length is %u tokens, and an "
        "answer needs at least one",
        call->prompt.count, most, context);
    fault->code = "context_length_exceeded";
    return false;
}

static uint32_t tokens_at_most(const mq_call *call)
{
    const uint32_t room = mq__server_model(call->server)->info.context - (uint32_t)call->prompt.count;
    const uint32_t limit = mq__server_limits(call->server)->max_tokens;
    uint32_t most = call->ask.max_tokens < room ? call->ask.max_tokens : room;
    return limit && limit < most ? limit : most;
}

/* ---- masks */

typedef enum mask_kind { MASK_NONE, MASK_SCHEMA, MASK_CALLS, MASK_ONE_CALL, MASK_EITHER } mask_kind;

/* Beside a schema, what the model writes is calls (if it may) or satisfies the schema. */
static mask_kind mask_of(mq_server *server, const mq_ask *ask)
{
    if (!ask_has_tools(server, ask)) return ask->schema ? MASK_SCHEMA : MASK_NONE;
    if (ask->choice == MQ_CHOICE_REQUIRED) return MASK_ONE_CALL;
    return ask->schema ? MASK_EITHER : MASK_CALLS;
}

bool mq__ask_is_held(mq_server *server, const mq_ask *ask)
{
    const mask_kind kind = mask_of(server, ask);
    return kind == MASK_SCHEMA || kind == MASK_ONE_CALL || kind == MASK_EITHER;
}

/* A tool by name alone, for one whose schema is more than a mask can hold. */
static json_t *bare_tool(const json_t *tool)
{
    return json_pack("{sss{sOs{ss}}}", "type", "function", "function", "name",
                     json_object_get(json_object_get(tool, "function"), "name"), "parameters", "type", "object");
}

static json_t *bare_tools(const json_t *tools)
{
    json_t *bare = json_array();
    for (size_t i = 0; i < json_array_size(tools); i++) {
        (void)json_array_append_new(bare, bare_tool(json_array_get(tools, i)));
    }
    return bare;
}

/* What a mask is made of. */
typedef struct mask_plan {
    mask_kind kind;
    const json_t *schema, *tools; /* NULL: none */
    bool strict_tools;
} mask_plan;

static mq_status make_mask(const mq_call *call, const mask_plan *plan, mq_constraint **mask, char **dropped,
                           mq_error *error)
{
    const mq_served_model *model = mq__server_model(call->server);
    const mq_prompt *prompt = &call->prompt;
    mq_buf schema = {0}, tools = {0};
    mq_constraint_options options = {.strict = plan->schema ? call->ask.strict : plan->strict_tools,
                                     .strict_tools = plan->strict_tools,
                                     .parallel = call->ask.parallel,
                                     .required = plan->kind == MASK_ONE_CALL};
    if (prompt->in_reasoning || (prompt->opens_reasoning && plan->kind == MASK_CALLS)) {
        options.after = model->style.unthink;
    }
    mq_status status = MQ_NO_MEMORY;
    if ((!plan->schema || mq__json_print(plan->schema, JSON_COMPACT, &schema)) &&
        (!plan->tools || mq__json_print(plan->tools, JSON_COMPACT, &tools))) {
        options.schema = schema.data;
        options.schema_bytes = schema.len;
        options.tools = tools.data;
        options.tools_bytes = tools.len;
        if (plan->tools) options.format = model->style.tools;
        status = mq_constraint_new(model->vocabulary, &options, mask, dropped, error);
    } else {
        error->status = MQ_NO_MEMORY;
    }
    mq__buf_free(&schema);
    mq__buf_free(&tools);
    return status;
}

/* Whether a mask can hold a tool's schema by itself. */
static mq_status try_tool(const mq_call *call, const mask_plan *plan, json_t *tool, mq_error *error)
{
    mq_constraint *mask = NULL;
    char *dropped = NULL;
    json_t *alone = json_pack("[O]", tool);
    const mask_plan one = {plan->kind, NULL, alone, false};
    const mq_status status = alone ? make_mask(call, &one, &mask, &dropped, error) : MQ_NO_MEMORY;
    json_decref(alone);
    mq_constraint_free(mask);
    mq_free(dropped);
    return status;
}

/* All tools, those bare whose schemas are at fault; *lost of them, which a warning names. NULL: no memory. */
static json_t *spared_tools(mq_call *call, const mask_plan *plan, size_t *lost)
{
    json_t *spared = json_array();
    bool enough = spared != NULL;
    *lost = 0;
    for (size_t i = 0; enough && i < json_array_size(plan->tools); i++) {
        json_t *tool = json_array_get(plan->tools, i);
        mq_error error = {0};
        const mq_status status = try_tool(call, plan, tool, &error);
        const char *name = json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
        enough = status != MQ_NO_MEMORY &&
                 json_array_append_new(spared, status == MQ_OK ? json_incref(tool) : bare_tool(tool)) == 0;
        if (status == MQ_OK || !enough) continue;
        enough = mq__ask_warn(&call->ask, "schema of tool %.64s: %.110s", name, error.text);
        ++*lost;
    }
    if (enough) return spared;
    json_decref(spared);
    return NULL;
}

/* In the place of a mask for bare tools: one bad schema (of some MCP server) must not cost the others theirs. `why`: what is wrong. */
static mq_status spare_tools(mq_call *call, const mask_plan *plan, const char *why, mq_constraint **mask,
                             char **dropped)
{
    size_t lost;
    mq_error error = {0};
    mq_constraint *better = NULL;
    char *more = NULL;
    const mask_plan spared = {plan->kind, plan->schema, spared_tools(call, plan, &lost), false};
    mq_status status = spared.tools ? MQ_OK : MQ_NO_MEMORY;
    const size_t all = json_array_size(plan->tools);
    const bool some = status == MQ_OK && lost > 0 && lost < all;
    if (some) status = make_mask(call, &spared, &better, &more, &error);
    json_decref((json_t *)(uintptr_t)spared.tools);
    if (status == MQ_NO_MEMORY || (status == MQ_OK && lost == all)) return status;
    if (!some || status != MQ_OK) { /* each is right, and together they are too much */
        return mq__ask_warn(&call->ask, "schemas of tools: %.150s", why) ? MQ_OK : MQ_NO_MEMORY;
    }
    mq_constraint_free(*mask);
    mq_free(*dropped);
    *mask = better;
    *dropped = more;
    return MQ_OK;
}

/* What tools' schemas ask for too much is left out, unless they are strict. If it is not the tools' fault, *schema_is_wrong. */
static mq_status make_mask_somehow(mq_call *call, mask_plan *plan, mq_constraint **mask, char **dropped,
                                   bool *schema_is_wrong, mq_error *error)
{
    const mq_status status = make_mask(call, plan, mask, dropped, error);
    *schema_is_wrong = !plan->tools;
    if (!plan->tools || status == MQ_OK || status == MQ_NO_MEMORY) return status;
    if (plan->strict_tools && !plan->schema) return status;
    mq_error other = {0};
    mask_plan bare = {plan->kind, plan->schema, bare_tools(plan->tools), false};
    const mq_status without = make_mask(call, &bare, mask, dropped, &other);
    json_decref((json_t *)(uintptr_t)bare.tools);
    if (without != MQ_OK) {
        *schema_is_wrong = plan->schema != NULL;
        *error = other;
        return without;
    }
    if (!plan->strict_tools) return spare_tools(call, plan, error->text, mask, dropped);
    mq_free(*dropped);
    *dropped = NULL;
    mq_constraint_free(*mask);
    *mask = NULL;
    return status;
}

static bool make_masks(mq_call *call, mq_fault *fault)
{
    const mq_ask *ask = &call->ask;
    const json_t *tools = ask->callable ? ask->callable : ask->tools;
    mask_plan plan = {.kind = mask_of(call->server, ask), .strict_tools = ask->strict_tools};
    if (plan.kind == MASK_SCHEMA || plan.kind == MASK_EITHER) plan.schema = ask->schema;
    if (plan.kind != MASK_SCHEMA) plan.tools = tools;
    if (plan.kind == MASK_NONE || !mq__server_model(call->server)->vocabulary) return true;
    for (uint32_t i = 0; i < ask->n; i++) {
        mq_error error = {0};
        char *dropped = NULL;
        bool schema_is_wrong = false;
        const mq_status status =
            make_mask_somehow(call, &plan, &call->choices[i].constraint, &dropped, &schema_is_wrong, &error);
        const bool told = !dropped || mq__ask_warn(&call->ask, "schema keywords: %.150s", dropped);
        mq_free(dropped);
        if (status != MQ_OK) {
            (void)mq__fault_error(fault, status, &error);
            snprintf(fault->param, sizeof fault->param, "%s", schema_is_wrong ? "response_format" : "tools");
            return false;
        }
        if (!told) return mq__fault_memory(fault);
    }
    return true;
}

static bool check_tools(mq_call *call, mq_fault *fault)
{
    mq_ask *ask = &call->ask;
    const bool hidden = ask->tools && mq__server_model(call->server)->needs.hides_tools;
    if (hidden && !mq__ask_warn(ask, "tools: the chat template does not show them")) return mq__fault_memory(fault);
    if (ask->choice != MQ_CHOICE_REQUIRED || mq__call_has_tools(call)) return true;
    return mq__fault(fault, "tool_choice", "tool_choice: expected tools and a model whose template knows them, got %s",
                     ask->tools ? "another model" : "no tools");
}

/* ---- the whole */

bool mq__call_prepare(mq_call *call, mq_fault *fault)
{
    if (!read_ask(call, fault) || !check_tools(call, fault)) return false;
    if (!mq__prompt_make(call->server, &call->ask, &call->prompt, fault) || !check_length(call, fault)) return false;
    call->choices = mq__alloc_zero(call->ask.n, sizeof *call->choices);
    if (call->api->state_bytes) call->state = mq__alloc_zero(1, call->api->state_bytes);
    if (!call->choices || (call->api->state_bytes && !call->state)) return mq__fault_memory(fault);
    for (uint32_t i = 0; i < call->ask.n; i++) {
        call->choices[i].call = call;
        call->choices[i].number = i;
        call->choices[i].answered.report.miss_token = -1;
        if (!mq__choice_open(&call->choices[i], fault)) return false;
    }
    return make_masks(call, fault);
}

/* All answers of a request have one prompt: the first one's is fetched or kept, the others find it in the cache. */
static void set_handoff(const mq_choice *choice, mq_request *request)
{
    const mq_ask_handoff *handoff = &choice->call->ask.handoff;
    if (handoff->peer[0]) request->prefill_peer = handoff->peer;
    if (handoff->lease[0] && choice->number == 0) request->prefill_lease = handoff->lease;
    request->hold = handoff->lends && choice->number == 0;
}

static uint64_t seed_of(const mq_choice *choice)
{
    const mq_ask *ask = &choice->call->ask;
    uint64_t seed;
    if (ask->has_seed) return ask->sampling.seed + choice->number;
    while (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed) {}
    return seed;
}

static bool refused_by_backend(mq_fault *fault, mq_status status, const mq_error *error)
{
    (void)mq__fault_error(fault, status, error);
    if (status != MQ_LIMIT) return false;
    fault->status = 429; /* the queue: length was checked before */
    fault->type = "rate_limit_error";
    fault->code = "rate_limit_exceeded";
    fault->retry_after = 5;
    return false;
}

bool mq__choice_submit(mq_choice *choice, mq_fault *fault)
{
    mq_call *call = choice->call;
    const mq_ask *ask = &call->ask;
    const mq_backend *backend = mq__server_backend(call->server);
    mq_request request = {
        .tokens = call->prompt.tokens,
        .count = (uint32_t)call->prompt.count,
        .options = {.sampling = ask->sampling,
                    .max_tokens = tokens_at_most(call),
                    .stops = (const char *const *)ask->stops,
                    .stop_count = ask->stop_count,
                    .ignore_eos = ask->ignore_eos,
                    .keep_markers = ask->messages && mq__server_model(call->server)->style.keep_special,
                    .logprobs = ask->logprobs,
                    .top_logprobs = ask->top_logprobs},
        .constraint = choice->constraint,
        .owner = mq__exchange_owner(call->x),
        .background = ask->background,
        .event = mq__choice_event,
        .context = choice};
    request.options.sampling.seed = seed_of(choice);
    set_handoff(choice, &request);
    choice->constraint = NULL; /* it is taken in any case */
    mq_error error = {0};
    const mq_status status = backend->submit(backend->self, &request, &choice->job, &error);
    return status == MQ_OK || refused_by_backend(fault, status, &error);
}
