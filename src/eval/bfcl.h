/* The Berkeley function calling leaderboard, version 4 (Patil et al., gorilla.cs.berkeley.edu): its files as they are published,
 * and its scoring by comparison of calls, in our own code. docs/BENCHMARKS.md has the rules and where ours differ. */
#ifndef MQ_EVAL_BFCL_H
#define MQ_EVAL_BFCL_H

#include "eval/eval.h"

typedef enum mq_bfcl_language { MQ_BFCL_PYTHON, MQ_BFCL_JAVA, MQ_BFCL_JAVASCRIPT } mq_bfcl_language;

/* ---- bfcl_literal.c: values and calls as programs write them. All results are owned; NULL: the text is not one. */

/* The whole text as a literal of that language: a number, a string, true, a list, a map (Java: Arrays.asList, List.of, new T[]{...},
 * new ArrayList<>(...), new ArrayList<>() {{ add(...); }}, new HashMap<>() {{ put(...); }}; 5L, 0.5f, 2d. JavaScript: 5n, new
 * Array(...)). type: what its numbers are declared to be, as the files have it: a long is written 5L, a float 0.5f, a Bigint 5n,
 * an integer 5, and nothing else. NULL, or of another type: any number. */
json_t *mq__bfcl_literal(const char *text, mq_bfcl_language language, const char *type);

/* "[f(a=1), g('x')]" or "f(a=1)" as [{"name": "f", "arguments": {"a": 1}, "positional": []}, ...]. Names of variables become
 * their text. */
json_t *mq__bfcl_python_calls(const char *text);

/* ---- bfcl_match.c */

/* The calls in a model's answer, [{"name", "arguments"}, ...]: <tool_call> blocks, JSON, or Python calls; an empty array when
 * there are none. Positional arguments get their names from `functions`. */
json_t *mq__bfcl_answer_calls(const char *answer, const json_t *functions);

/* BFCL's comparison with `truth`, [{function: {parameter: [accepted, ...]}}, ...] in any order. functions: their descriptions
 * as published. */
bool mq__bfcl_match(const json_t *calls, const json_t *functions, const json_t *truth, mq_bfcl_language language);

/* The same calls in the same order, as texts: ["cd(folder='document')", ...]. */
bool mq__bfcl_same_calls(const json_t *calls, const json_t *functions, const json_t *texts);

/* ---- bfcl_data.c */

/* Reads categories (comma-separated; NULL: all that can be scored) of the published folder into an array of items, the categories
 * taking turns: {"id", "category", "question": [[message, ...] of a turn, ...], "function": [...], "ground_truth": [...] or absent,
 * "missed": {turn: [function, ...]}}. *items is owned. */
mq_status mq__bfcl_read(const char *folder, const char *categories, json_t **items, mq_error *error);

mq_bfcl_language mq__bfcl_language_of(const char *category);

/* The descriptions as tools of an OpenAI-style request; owned. */
json_t *mq__bfcl_tools(const json_t *functions, mq_bfcl_language language);

/* "a.b" as models get and write it: "a_b". Writes at most `size` bytes. */
void mq__bfcl_plain_name(const char *name, char *out, size_t size);

#endif
