/* Shared by the two halves of the parser: expressions and statements. */
#ifndef MQ_FORMAT_JINJA_PARSE_H
#define MQ_FORMAT_JINJA_PARSE_H

#include "jinja/jinja_ast.h"
#include "jinja/jinja_lex.h"

/* Nested brackets, blocks and operators: Python's own parser stack ends in the same region. */
#define MQ_J_PARSE_DEPTH 100

typedef struct mq_jparser {
    mq_jtrap trap;
    mq_arena scratch; /* tokens and lists under construction */
    mq_jinja *program;
    const mq_jtoken *token; /* the current one */
    unsigned depth;
    unsigned loops;       /* open for loops of this function, where break and continue may stand */
    unsigned all_loops;   /* the same, not reset by a macro: where `loop` may not be assigned */
    uint8_t uses;         /* MQ_J_USES_* seen since the start of the innermost macro */
    uint32_t *name_slots; /* hash table of identifiers: number + 1 */
    size_t name_slot_count;
    size_t name_capacity;
} mq_jparser;

/* A list of nodes while it grows. */
typedef struct mq_jnode_list {
    mq_jnode **at;
    size_t count, capacity;
} mq_jnode_list;

mq_jnode *mq__jparser_node(mq_jparser *parser, mq_jnode_kind kind);
void mq__jparser_push(mq_jparser *parser, mq_jnode_list *list, mq_jnode *node);
mq_jnodes mq__jparser_nodes(mq_jparser *parser, const mq_jnode_list *list); /* moved to the program */
uint32_t mq__jparser_name(mq_jparser *parser, mq_jvalue text);

bool mq__jparser_is_op(const mq_jparser *parser, uint16_t op);
bool mq__jparser_is_name(const mq_jparser *parser, const char *name);
bool mq__jparser_skip_op(mq_jparser *parser, uint16_t op);
bool mq__jparser_skip_name(mq_jparser *parser, const char *name);
void mq__jparser_expect_op(mq_jparser *parser, uint16_t op);
mq_jvalue mq__jparser_expect_name(mq_jparser *parser);
_Noreturn void mq__jparser_unexpected(mq_jparser *parser, const char *expected);
void mq__jparser_enter(mq_jparser *parser); /* counts one level of nesting */
void mq__jparser_leave(mq_jparser *parser);

mq_jnode *mq__jparser_expression(mq_jparser *parser, bool conditional);
/* One expression, or a tuple where commas follow. `end`: a name that ends it ("in", "recursive"), or NULL. */
mq_jnode *mq__jparser_tuple(mq_jparser *parser, bool conditional, const char *end, bool parenthesised);
mq_jnode *mq__jparser_target(mq_jparser *parser, const char *end, bool namespaces); /* of for, set, with */
mq_jnode *mq__jparser_filter(mq_jparser *parser, mq_jnode *value, bool first_without_bar);

#endif
