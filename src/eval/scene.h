/* A scenario of the agent command and the agent task: tools over local tables, and the questions (tools/train/README.md has
 * the format). */
#ifndef MQ_EVAL_SCENE_H
#define MQ_EVAL_SCENE_H

#include "mixquant.h"

#include <jansson.h>

/* Checks the shape of everything that is used later. `where` names the scene in the error. */
mq_status mq__scene_check(const json_t *scene, const char *where, mq_error *error);

/* A file with one scene; *scene is owned by the caller. */
mq_status mq__scene_read(const char *path, json_t **scene, mq_error *error);

/* The scene's tools as an OpenAI-style array; returns owned. */
json_t *mq__scene_tools(const json_t *scene);

/* Runs a tool: the matching rows of its table as text, owned (mq__free). An unknown tool or argument gives a text that says
 * so: the model's mistakes are answered, not failed on. */
char *mq__scene_call(const json_t *scene, const char *name, const json_t *arguments);

/* The call in a model's answer "<tool_call>\n{...}\n</tool_call>" as {"name": ..., "arguments": {...}}, owned; NULL when
 * the answer is no well-formed call. */
json_t *mq__scene_parse_call(const char *answer);

#endif
