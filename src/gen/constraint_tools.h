/* Tool calls as grammars, one syntax for each mq_tool_format. */
#ifndef MQ_CONSTRAINT_TOOLS_H
#define MQ_CONSTRAINT_TOOLS_H

#include "gen/json_grammar.h"
#include "mixquant_serve.h"

/* The text that begins a call; the grammar of the rest follows it. */
const char *mq__tool_marker(mq_tool_format format);
/* Puts rule `call` into the grammar: what follows the marker. */
mq_status mq__tools_emit(mq_schemas *schemas, uint32_t call, mq_tool_format format, const json_t *tools,
                         mq_error *error);
/* Puts rule 0 into the grammar: a text of the rule `schema`, or calls with their markers. */
mq_status mq__tools_emit_either(mq_schemas *schemas, uint32_t schema, mq_tool_format format, bool parallel,
                                const json_t *tools, mq_error *error);

#endif
