/* A scenario of the agent command: tools over local tables, and the questions (tools/train/README.md has the format). */
#ifndef MQ_CLI_SCENE_H
#define MQ_CLI_SCENE_H

#include <jansson.h>
#include <stdbool.h>

/* Checks the shape of everything that is used later; on a failure reports and returns NULL. Returns owned. */
json_t *scene_read(const char *path);

/* The scene's tools as an OpenAI-style array; returns owned. */
json_t *scene_tools(const json_t *scene);

/* Runs a tool: the matching rows of its table as text, owned (free). An unknown tool or argument gives a text that says
 * so: the model's mistakes are answered, not failed on. */
char *scene_call(const json_t *scene, const char *name, const json_t *arguments);

/* The call in a model's answer "<tool_call>\n{...}\n</tool_call>" as {"name": ..., "arguments": {...}}, owned; NULL when
 * the answer is no well-formed call. */
json_t *scene_parse_call(const char *answer);

#endif
