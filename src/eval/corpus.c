#include "eval/corpus.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/scene.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX ((size_t)64 << 20)

/* Takes the tokens; false when memory is short. */
static bool add_corpus(mq_eval_corpus *corpus, const char *id, const int32_t *tokens, size_t count)
{
    mq_eval_sequence *larger = mq__realloc(corpus->item, (corpus->count + 1) * sizeof *larger);
    if (!larger) return false;
    corpus->item = larger;
    mq_eval_sequence *s = &larger[corpus->count];
    snprintf(s->id, sizeof s->id, "%s", id);
    s->count = (uint32_t)count;
    s->tokens = mq__alloc(count * sizeof *s->tokens);
    if (!s->tokens) return false;
    memcpy(s->tokens, tokens, count * sizeof *tokens);
    corpus->count++;
    return true;
}

static mq_status no_memory_corpus(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: texts: expected memory, got none");
}

/* Windows that follow each other, each beginning as a text of its own does (with BOS, where the tokenizer adds it). */
static mq_status add_windows(const mq_eval_context *context, const mq_eval_corpus_options *o, mq_eval_corpus *corpus,
                             mq_error *error)
{
    char *text = NULL;
    size_t bytes, count = 0;
    int32_t *tokens = NULL;
    mq_status status = mq__file_read(corpus->path, TEXT_MAX, &text, &bytes, error);
    if (status == MQ_OK) {
        status = mq_tokenize(context->text, text, bytes, MQ_TOKENIZE_ADD_SPECIAL, &tokens, &count, error);
    }
    mq__free(text);
    const bool has_bos = count && tokens[0] == context->info.bos;
    int32_t *window = mq__alloc(o->length * sizeof *window);
    if (status == MQ_OK && !window) status = no_memory_corpus(error);
    for (size_t at = has_bos; status == MQ_OK && at < count && corpus->count < o->most;) {
        const size_t room = o->length - has_bos, some = count - at < room ? count - at : room;
        char id[32];
        if (some + has_bos < o->shortest) break;
        if (has_bos) window[0] = tokens[0];
        memcpy(window + has_bos, tokens + at, some * sizeof *tokens);
        snprintf(id, sizeof id, "window-%04zu", corpus->count);
        if (!add_corpus(corpus, id, window, some + has_bos)) status = no_memory_corpus(error);
        at += some;
    }
    mq__free(window);
    mq_free(tokens);
    return status;
}

static void add_message_corpus(json_t *messages, const char *role, const json_t *content)
{
    json_array_append_new(messages, json_pack("{sssO}", "role", role, "content", content));
}

/* The messages of a scene as a right dialogue, with the whole answer of each turn where the scene has it ("expect" alone is
 * its last line): {"messages", "tools", "add_generation_prompt"}. */
static json_t *dialogue(const json_t *scene, bool prompt_only)
{
    json_t *messages = json_array();
    const json_t *turn;
    size_t i;
    bool open = false;
    add_message_corpus(messages, "system", json_object_get(scene, "system"));
    json_array_foreach(json_object_get(scene, "turns"), i, turn)
    {
        const json_t *arguments = json_object_get(turn, "arguments"), *answer = json_object_get(turn, "answer");
        const char *name = json_string_value(json_object_get(turn, "call"));
        add_message_corpus(messages, "user", json_object_get(turn, "user"));
        open = true;
        if (name && json_is_object(arguments)) {
            char *result = mq__scene_call(scene, name, arguments);
            json_array_append_new(messages,
                                  json_pack("{sssss[{sss{sssO}}]}", "role", "assistant", "content", "", "tool_calls",
                                            "type", "function", "function", "name", name, "arguments", arguments));
            json_array_append_new(messages, json_pack("{ssss}", "role", "tool", "content", result ? result : ""));
            mq__free(result);
            if (prompt_only) break;
        }
        if (!json_is_string(answer)) answer = json_object_get(turn, "expect");
        if (!json_is_string(answer)) break;
        add_message_corpus(messages, "assistant", answer);
        open = false;
    }
    return json_pack("{sososb}", "messages", messages, "tools", mq__scene_tools(scene), "add_generation_prompt",
                     (int)(prompt_only && open));
}

static mq_status add_episode(const mq_eval_context *context, const mq_eval_corpus_options *o, const json_t *scene,
                             mq_eval_corpus *corpus, mq_error *error)
{
    char *rendered = NULL, id[64];
    size_t bytes, count = 0;
    int32_t *tokens = NULL;
    snprintf(id, sizeof id, "scene-%zu", corpus->count);
    const char *name = json_string_value(json_object_get(scene, "id"));
    mq_status status = mq__scene_check(scene, name ? name : id, error);
    if (status != MQ_OK) return status;
    json_t *body = dialogue(scene, o->prompts);
    char *request = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!request) return no_memory_corpus(error);
    status = mq_render(context->text, request, strlen(request), &rendered, &bytes, error);
    if (status == MQ_OK) {
        status = mq_tokenize(context->text, rendered, bytes, MQ_TOKENIZE_PARSE_SPECIAL, &tokens, &count, error);
    }
    if (status == MQ_OK && count >= o->shortest && count <= o->length &&
        !add_corpus(corpus, name ? name : id, tokens, count)) {
        status = no_memory_corpus(error);
    }
    free(request);
    mq_free(rendered);
    mq_free(tokens);
    return status;
}

mq_status mq__eval_corpus_open(const mq_eval_context *context, const mq_eval_corpus_options *options,
                               mq_eval_corpus *corpus, mq_error *error)
{
    const mq_eval_options *o = context->options;
    json_t *scenes = NULL;
    *corpus = (mq_eval_corpus){.path = o->text ? mq__strdup(o->text) : mq__path_join(o->model_dir, "episodes.jsonl")};
    if (!corpus->path) return no_memory_corpus(error);
    mq_map map = {0};
    mq_status status = mq__map_open(corpus->path, &map, error);
    if (status != MQ_OK) return status;
    snprintf(corpus->hash, sizeof corpus->hash, "%016llx", (unsigned long long)mq__eval_hash(0, map.data, map.bytes));
    mq__map_close(&map);
    if (o->text)
        status = add_windows(context, options, corpus, error);
    else
        status = mq__eval_read_lines(corpus->path, false, &scenes, error);
    for (size_t i = 0; status == MQ_OK && i < json_array_size(scenes) && corpus->count < options->most; i++) {
        status = add_episode(context, options, json_array_get(scenes, i), corpus, error);
    }
    json_decref(scenes);
    if (status == MQ_OK && corpus->count == 0) {
        status = mq__fail(error, MQ_USAGE, "eval: %s: expected texts of %u to %u tokens, got none", corpus->path,
                          options->shortest, options->length);
    }
    return status;
}

void mq__eval_corpus_close(mq_eval_corpus *corpus)
{
    for (size_t i = 0; i < corpus->count; i++) {
        mq__free(corpus->item[i].tokens);
    }
    mq__free(corpus->item);
    mq__free(corpus->path);
    *corpus = (mq_eval_corpus){0};
}
