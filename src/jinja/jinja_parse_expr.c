#include "jinja/jinja_parse.h"

#include "jinja/jinja_run.h"
#include "jinja/jinja_text.h"

#include <string.h>

static mq_jnode *parse_or(mq_jparser *p);
static mq_jnode *parse_unary(mq_jparser *p, bool filters);

static mq_jnode *make_unary(mq_jparser *p, mq_jnode_kind kind, mq_jop op, mq_jnode *a, uint32_t line)
{
    mq_jnode *const node = mq__jparser_node(p, kind);
    node->line = line;
    node->op = (uint8_t)op;
    node->a = a;
    return node;
}

static mq_jnode *make_binary(mq_jparser *p, mq_jnode_kind kind, mq_jop op, mq_jnode *a, mq_jnode *b)
{
    mq_jnode *const node = make_unary(p, kind, op, a, a->line);
    node->b = b;
    return node;
}

static mq_jnode *make_const(mq_jparser *p, mq_jvalue value)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_CONST);
    node->value = value;
    return node;
}

/* ---------------------------------------------------------------- primaries */

static mq_jnode *parse_name(mq_jparser *p)
{
    const mq_jvalue text = p->token->value;
    mq_jnode *node = NULL;
    if (mq__jvalue_is_text(text, "true") || mq__jvalue_is_text(text, "True")) {
        node = make_const(p, mq__jvalue_bool(true));
    } else if (mq__jvalue_is_text(text, "false") || mq__jvalue_is_text(text, "False")) {
        node = make_const(p, mq__jvalue_bool(false));
    } else if (mq__jvalue_is_text(text, "none") || mq__jvalue_is_text(text, "None")) {
        node = make_const(p, mq__jvalue_none());
    } else {
        node = mq__jparser_node(p, MQ_JN_NAME);
        node->name = mq__jparser_name(p, text);
        if (mq__jvalue_is_text(text, "caller")) p->uses |= MQ_J_USES_CALLER;
        if (mq__jvalue_is_text(text, "varargs")) p->uses |= MQ_J_USES_VARARGS;
        if (mq__jvalue_is_text(text, "kwargs")) p->uses |= MQ_J_USES_KWARGS;
    }
    p->token++;
    return node;
}

static bool is_string_jinja_parse_expr(const mq_jtoken *token)
{
    return token->kind == MQ_JT_CONST && token->value.type == MQ_J_STRING;
}

/* Adjacent string literals are one string. */
static mq_jnode *parse_constant(mq_jparser *p)
{
    mq_jnode *const node = make_const(p, p->token->value);
    const mq_jtoken *const first = p->token++;
    if (!is_string_jinja_parse_expr(first) || !is_string_jinja_parse_expr(p->token)) return node;
    size_t bytes = 0, at = 0;
    for (const mq_jtoken *t = first; is_string_jinja_parse_expr(t); t++) {
        bytes += t->value.bytes;
    }
    char *const text = mq__arena_text(&p->program->arena, bytes);
    if (!text) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    for (p->token = first; is_string_jinja_parse_expr(p->token); p->token++) {
        memcpy(text + at, p->token->value.as.text, p->token->value.bytes);
        at += p->token->value.bytes;
    }
    node->value = mq__jvalue_text(text, bytes);
    return node;
}

/* [a, b] and {k: v}, a comma may end them. */
static mq_jnode *parse_display(mq_jparser *p, mq_jnode_kind kind, char close)
{
    mq_jnode *const node = mq__jparser_node(p, kind);
    mq_jnode_list items = {0};
    p->token++;
    while (!mq__jparser_is_op(p, (uint8_t)close)) {
        if (items.count) {
            mq__jparser_expect_op(p, ',');
            if (mq__jparser_is_op(p, (uint8_t)close)) break;
        }
        mq__jparser_push(p, &items, mq__jparser_expression(p, true));
        if (kind != MQ_JN_DICT) continue;
        mq__jparser_expect_op(p, ':');
        mq__jparser_push(p, &items, mq__jparser_expression(p, true));
    }
    p->token++;
    node->items = mq__jparser_nodes(p, &items);
    return node;
}

static mq_jnode *parse_primary(mq_jparser *p)
{
    if (p->token->kind == MQ_JT_NAME) return parse_name(p);
    if (p->token->kind == MQ_JT_CONST) return parse_constant(p);
    if (mq__jparser_is_op(p, '[')) return parse_display(p, MQ_JN_LIST, ']');
    if (mq__jparser_is_op(p, '{')) return parse_display(p, MQ_JN_DICT, '}');
    if (!mq__jparser_skip_op(p, '(')) mq__jparser_unexpected(p, "an expression");
    mq_jnode *const inner = mq__jparser_tuple(p, true, NULL, true);
    mq__jparser_expect_op(p, ')');
    return inner;
}

/* ---------------------------------------------------------------- what follows a primary */

static mq_jnode *parse_slice_part(mq_jparser *p)
{
    if (mq__jparser_is_op(p, ']') || mq__jparser_is_op(p, ',') || mq__jparser_is_op(p, ':')) return NULL;
    return mq__jparser_expression(p, true);
}

static mq_jnode *parse_subscribed(mq_jparser *p)
{
    mq_jnode *const first = mq__jparser_is_op(p, ':') ? NULL : mq__jparser_expression(p, true);
    if (!mq__jparser_skip_op(p, ':')) return first;
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_SLICE);
    node->a = first;
    node->b = parse_slice_part(p);
    if (mq__jparser_skip_op(p, ':')) node->c = parse_slice_part(p);
    return node;
}

static mq_jnode *parse_subscript(mq_jparser *p, mq_jnode *object)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_ITEM);
    node->a = object;
    if (mq__jparser_skip_op(p, '.')) {
        if (p->token->kind == MQ_JT_NAME) {
            node->kind = MQ_JN_ATTR;
            node->value = p->token->value;
            node->method = mq__jmethod_find(node->value);
            p->token++;
            return node;
        }
        if (p->token->kind != MQ_JT_CONST || p->token->value.type != MQ_J_INT) {
            mq__jparser_unexpected(p, "a name or a number after '.'");
        }
        node->b = make_const(p, p->token->value);
        p->token++;
        return node;
    }
    p->token++;
    mq_jnode_list parts = {0};
    while (!mq__jparser_is_op(p, ']')) {
        if (parts.count) mq__jparser_expect_op(p, ',');
        mq__jparser_push(p, &parts, parse_subscribed(p));
    }
    p->token++;
    if (parts.count == 1) {
        node->b = parts.at[0];
        return node;
    }
    for (size_t i = 0; i < parts.count; i++) {
        if (parts.at[i]->kind == MQ_JN_SLICE)
            mq__jtrap_throw(&p->trap, MQ_UNSUPPORTED, "expected one slice, got a tuple of them");
    }
    node->b = mq__jparser_node(p, MQ_JN_TUPLE);
    node->b->items = mq__jparser_nodes(p, &parts);
    return node;
}

static void parse_argument(mq_jparser *p, mq_jcall *call, mq_jnode_list *positional, mq_jnode_list *named,
                           mq_jnode_list *names)
{
    const bool keyword = p->token->kind == MQ_JT_NAME && p->token[1].kind == MQ_JT_OPERATOR && p->token[1].op == '=';
    if (mq__jparser_is_op(p, '*') && !call->star && !call->star_star) {
        p->token++;
        call->star = mq__jparser_expression(p, true);
    } else if (mq__jparser_is_op(p, MQ_J_OP2('*', '*')) && !call->star_star) {
        p->token++;
        call->star_star = mq__jparser_expression(p, true);
    } else if (keyword && !call->star_star) {
        mq__jparser_push(p, names, make_const(p, p->token->value));
        p->token += 2;
        mq__jparser_push(p, named, mq__jparser_expression(p, true));
    } else if (!keyword && !call->star && !call->star_star && named->count == 0) {
        mq__jparser_push(p, positional, mq__jparser_expression(p, true));
    } else {
        mq__jparser_unexpected(p, "arguments in the order a, b, *c, d=e, **f");
    }
}

static mq_jcall *parse_arguments_jinja_expr(mq_jparser *p)
{
    mq_jcall *const call = mq__arena_alloc_zero(&p->program->arena, 1, sizeof *call);
    if (!call) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    mq_jnode_list positional = {0}, named = {0}, names = {0};
    mq__jparser_expect_op(p, '(');
    for (bool first = true; !mq__jparser_is_op(p, ')'); first = false) {
        if (!first) {
            mq__jparser_expect_op(p, ',');
            if (mq__jparser_is_op(p, ')')) break;
        }
        parse_argument(p, call, &positional, &named, &names);
    }
    p->token++;
    call->positional = mq__jparser_nodes(p, &positional);
    call->named = mq__jparser_nodes(p, &named);
    call->names = mq__arena_alloc_zero(&p->program->arena, names.count, sizeof *call->names);
    if (!call->names) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    for (size_t i = 0; i < names.count; i++) {
        call->names[i] = names.at[i]->value;
    }
    return call;
}

static mq_jnode *parse_call(mq_jparser *p, mq_jnode *callee)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_CALL);
    node->a = callee;
    node->call = parse_arguments_jinja_expr(p);
    return node;
}

/* A chain of subscripts and calls builds a tree as deep as it is long, which evaluation walks: it is bounded too. */
static mq_jnode *parse_postfix(mq_jparser *p, mq_jnode *node)
{
    for (unsigned length = 0;; length++) {
        if (length > 2 * MQ_J_PARSE_DEPTH)
            mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of subscripts");
        if (mq__jparser_is_op(p, '.') || mq__jparser_is_op(p, '[')) {
            node = parse_subscript(p, node);
        } else if (mq__jparser_is_op(p, '(')) {
            node = parse_call(p, node);
        } else {
            return node;
        }
    }
}

/* The name of a filter or a test, a.b.c: from its first to its last letter in the source. */
static mq_jvalue parse_dotted_name(mq_jparser *p)
{
    const mq_jvalue first = mq__jparser_expect_name(p);
    mq_jvalue last = first;
    while (mq__jparser_skip_op(p, '.')) {
        last = mq__jparser_expect_name(p);
    }
    return mq__jvalue_text(first.as.text, (size_t)(last.as.text - first.as.text) + last.bytes);
}

mq_jnode *mq__jparser_filter(mq_jparser *p, mq_jnode *value, bool first_without_bar)
{
    for (unsigned length = 0; first_without_bar || mq__jparser_is_op(p, '|'); length++) {
        if (length > 2 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of filters");
        if (!first_without_bar) p->token++;
        first_without_bar = false;
        mq_jnode *const node = mq__jparser_node(p, MQ_JN_FILTER);
        node->value = parse_dotted_name(p);
        node->filter = mq__jfilter_find(node->value);
        node->a = value;
        if (mq__jparser_is_op(p, '(')) node->call = parse_arguments_jinja_expr(p);
        value = node;
    }
    return value;
}

static bool starts_test_argument(const mq_jparser *p)
{
    if (p->token->kind == MQ_JT_CONST || mq__jparser_is_op(p, '[') || mq__jparser_is_op(p, '{')) return true;
    return p->token->kind == MQ_JT_NAME && !mq__jparser_is_name(p, "else") && !mq__jparser_is_name(p, "or") &&
           !mq__jparser_is_name(p, "and");
}

static mq_jnode *parse_test(mq_jparser *p, mq_jnode *value)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_TEST);
    node->a = value;
    p->token++; /* is */
    node->op = mq__jparser_skip_name(p, "not");
    node->value = parse_dotted_name(p);
    node->test = mq__jtest_find(node->value);
    if (mq__jparser_is_op(p, '(')) {
        node->call = parse_arguments_jinja_expr(p);
    } else if (starts_test_argument(p)) {
        if (mq__jparser_is_name(p, "is")) mq__jparser_unexpected(p, "one test");
        mq_jcall *const call = mq__arena_alloc_zero(&p->program->arena, 1, sizeof *call);
        if (!call) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
        mq_jnode_list positional = {0};
        mq__jparser_push(p, &positional, parse_postfix(p, parse_primary(p)));
        call->positional = mq__jparser_nodes(p, &positional);
        node->call = call;
    }
    return node;
}

static mq_jnode *parse_filters_and_tests(mq_jparser *p, mq_jnode *node)
{
    for (unsigned length = 0;; length++) {
        if (length > 2 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of filters");
        if (mq__jparser_is_op(p, '|')) {
            node = mq__jparser_filter(p, node, false);
        } else if (mq__jparser_is_name(p, "is")) {
            node = parse_test(p, node);
        } else if (mq__jparser_is_op(p, '(')) {
            node = parse_call(p, node);
        } else {
            return node;
        }
    }
}

static mq_jnode *parse_unary(mq_jparser *p, bool filters)
{
    mq__jparser_enter(p);
    const uint32_t line = p->token->line;
    mq_jnode *node;
    if (mq__jparser_skip_op(p, '-')) {
        node = make_unary(p, MQ_JN_UNARY, MQ_J_NEG, parse_unary(p, false), line);
    } else if (mq__jparser_skip_op(p, '+')) {
        node = make_unary(p, MQ_JN_UNARY, MQ_J_POS, parse_unary(p, false), line);
    } else {
        node = parse_primary(p);
    }
    node = parse_postfix(p, node);
    if (filters) node = parse_filters_and_tests(p, node);
    mq__jparser_leave(p);
    return node;
}

/* ---------------------------------------------------------------- operators */

/* From loose to tight: + and -, then ~, then * / // %, then **. All of them group to the left, ** as well. */
static int precedence(const mq_jparser *p, mq_jop *op)
{
    static const struct {
        uint16_t token;
        uint8_t level, op;
    } table[] = {
        {'+', 1, MQ_J_ADD}, {'-', 1, MQ_J_SUB},
        {'~', 2, 0},        {'*', 3, MQ_J_MUL},
        {'/', 3, MQ_J_DIV}, {MQ_J_OP2('/', '/'), 3, MQ_J_FLOORDIV},
        {'%', 3, MQ_J_MOD}, {MQ_J_OP2('*', '*'), 4, MQ_J_POW},
    };
    if (p->token->kind != MQ_JT_OPERATOR) return 0;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (table[i].token != p->token->op) continue;
        *op = (mq_jop)table[i].op;
        return table[i].level;
    }
    return 0;
}

static mq_jnode *parse_math(mq_jparser *p, int lowest);

/* a ~ b ~ c is one node: the parts are turned into text once. */
static mq_jnode *parse_concat(mq_jparser *p, mq_jnode *first)
{
    mq_jnode_list parts = {0};
    mq__jparser_push(p, &parts, first);
    while (mq__jparser_skip_op(p, '~')) {
        mq__jparser_push(p, &parts, parse_math(p, 3));
    }
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_CONCAT);
    node->line = first->line;
    node->items = mq__jparser_nodes(p, &parts);
    return node;
}

static mq_jnode *parse_math(mq_jparser *p, int lowest)
{
    mq_jnode *left = parse_unary(p, true);
    mq_jop op = MQ_J_ADD;
    for (unsigned length = 0;; length++) {
        const int level = precedence(p, &op);
        if (level == 0 || level < lowest) return left;
        if (length > 5 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of operators");
        if (level == 2) {
            left = parse_concat(p, left);
            continue;
        }
        const mq_jop this_op = op;
        p->token++;
        left = make_binary(p, MQ_JN_BINARY, this_op, left, parse_math(p, level + 1));
    }
}

static bool comparison(mq_jparser *p, mq_jop *op)
{
    static const struct {
        uint16_t token;
        uint8_t op;
    } table[] = {
        {MQ_J_OP2('=', '='), MQ_J_EQ},
        {MQ_J_OP2('!', '='), MQ_J_NE},
        {'<', MQ_J_LT},
        {MQ_J_OP2('<', '='), MQ_J_LE},
        {'>', MQ_J_GT},
        {MQ_J_OP2('>', '='), MQ_J_GE},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (!mq__jparser_skip_op(p, table[i].token)) continue;
        *op = (mq_jop)table[i].op;
        return true;
    }
    if (mq__jparser_skip_name(p, "in")) {
        *op = MQ_J_IN;
        return true;
    }
    const mq_jtoken *const next = p->token + (p->token->kind != MQ_JT_END);
    if (mq__jparser_is_name(p, "not") && next->kind == MQ_JT_NAME && mq__jvalue_is_text(next->value, "in")) {
        p->token += 2;
        *op = MQ_J_NOT_IN;
        return true;
    }
    return false;
}

static mq_jnode *parse_compare(mq_jparser *p)
{
    mq_jnode *const first = parse_math(p, 1);
    uint8_t ops[32];
    mq_jop op = MQ_J_EQ;
    mq_jnode_list right = {0};
    while (comparison(p, &op)) {
        if (right.count == sizeof ops)
            mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected at most %zu comparisons in a chain", sizeof ops);
        ops[right.count] = (uint8_t)op;
        mq__jparser_push(p, &right, parse_math(p, 1));
    }
    if (right.count == 0) return first;
    mq_jnode *const node = make_unary(p, MQ_JN_COMPARE, MQ_J_EQ, first, first->line);
    node->items = mq__jparser_nodes(p, &right);
    node->ops = mq__arena_alloc(&p->program->arena, right.count);
    if (!node->ops) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    memcpy(node->ops, ops, right.count);
    return node;
}

static mq_jnode *parse_not(mq_jparser *p)
{
    const uint32_t line = p->token->line;
    if (!mq__jparser_skip_name(p, "not")) return parse_compare(p);
    mq__jparser_enter(p);
    mq_jnode *const node = make_unary(p, MQ_JN_NOT, MQ_J_EQ, parse_not(p), line);
    mq__jparser_leave(p);
    return node;
}

static mq_jnode *parse_and(mq_jparser *p)
{
    mq_jnode *left = parse_not(p);
    for (unsigned length = 0; mq__jparser_skip_name(p, "and"); length++) {
        if (length > 5 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of `and`");
        left = make_binary(p, MQ_JN_AND, MQ_J_EQ, left, parse_not(p));
    }
    return left;
}

static mq_jnode *parse_or(mq_jparser *p)
{
    mq_jnode *left = parse_and(p);
    for (unsigned length = 0; mq__jparser_skip_name(p, "or"); length++) {
        if (length > 5 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of `or`");
        left = make_binary(p, MQ_JN_OR, MQ_J_EQ, left, parse_and(p));
    }
    return left;
}

mq_jnode *mq__jparser_expression(mq_jparser *p, bool conditional)
{
    mq__jparser_enter(p);
    mq_jnode *node = parse_or(p);
    for (unsigned length = 0; conditional && mq__jparser_skip_name(p, "if"); length++) {
        if (length > 2 * MQ_J_PARSE_DEPTH) mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected a shorter chain of `if`");
        mq_jnode *const condition = parse_or(p);
        node = make_binary(p, MQ_JN_COND, MQ_J_EQ, node, condition);
        if (mq__jparser_skip_name(p, "else")) node->c = mq__jparser_expression(p, true);
    }
    mq__jparser_leave(p);
    return node;
}

/* ---------------------------------------------------------------- tuples and targets */

static bool ends_tuple(const mq_jparser *p, const char *end)
{
    const uint8_t kind = p->token->kind;
    if (kind == MQ_JT_PRINT_END || kind == MQ_JT_BLOCK_END || mq__jparser_is_op(p, ')')) return true;
    return end && mq__jparser_is_name(p, end);
}

static mq_jnode *parse_sequence(mq_jparser *p, bool target, bool conditional, const char *end, bool parenthesised)
{
    mq_jnode_list items = {0};
    bool comma = false;
    const uint32_t line = p->token->line;
    while (!ends_tuple(p, end)) {
        mq__jparser_push(p, &items, target ? parse_primary(p) : mq__jparser_expression(p, conditional));
        if (!mq__jparser_skip_op(p, ',')) break;
        comma = true;
    }
    if (!comma && items.count == 1) return items.at[0];
    if (!comma && !parenthesised) mq__jparser_unexpected(p, "an expression");
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_TUPLE);
    node->line = line;
    node->items = mq__jparser_nodes(p, &items);
    return node;
}

mq_jnode *mq__jparser_tuple(mq_jparser *p, bool conditional, const char *end, bool parenthesised)
{
    return parse_sequence(p, false, conditional, end, parenthesised);
}

static void check_target(mq_jparser *p, const mq_jnode *node)
{
    if (node->kind == MQ_JN_TUPLE) {
        for (uint32_t i = 0; i < node->items.count; i++) {
            check_target(p, node->items.at[i]);
        }
        return;
    }
    if (node->kind != MQ_JN_NAME) mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected a name to assign to");
    if (p->all_loops && mq__jvalue_is_text(p->program->names[node->name], "loop")) {
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected another name than 'loop' to assign to inside a for loop");
    }
}

mq_jnode *mq__jparser_target(mq_jparser *p, const char *end, bool namespaces)
{
    if (namespaces && p->token->kind == MQ_JT_NAME && p->token[1].kind == MQ_JT_OPERATOR && p->token[1].op == '.') {
        mq_jnode *const node = mq__jparser_node(p, MQ_JN_NSREF);
        node->name = mq__jparser_name(p, p->token->value);
        p->token += 2;
        node->value = mq__jparser_expect_name(p);
        return node;
    }
    const uint8_t uses = p->uses;
    mq_jnode *const node = parse_sequence(p, true, false, end, false);
    p->uses = uses; /* assigning to `caller` does not use it */
    check_target(p, node);
    return node;
}
