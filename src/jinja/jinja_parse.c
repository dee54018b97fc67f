#include "jinja/jinja_parse.h"

#include "base/c_locale.h"
#include "base/error.h"
#include "base/mem.h"
#include "jinja/jinja_text.h"

#include <string.h>
#include <xxhash.h>

#define PROGRAM_BYTES ((size_t)128 << 20)

/* ---------------------------------------------------------------- tools */

mq_jnode *mq__jparser_node(mq_jparser *p, mq_jnode_kind kind)
{
    mq_jnode *const node = mq__arena_alloc_zero(&p->program->arena, 1, sizeof *node);
    if (!node) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    node->kind = (uint8_t)kind;
    node->line = p->token->line;
    p->trap.line = node->line;
    return node;
}

void mq__jparser_push(mq_jparser *p, mq_jnode_list *list, mq_jnode *node)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? list->capacity * 2 : 8;
        mq_jnode **const at = mq__arena_alloc_zero(&p->scratch, capacity, sizeof *at);
        if (!at) mq__jtrap_throw_memory(&p->trap, &p->scratch);
        if (list->count) memcpy(at, list->at, list->count * sizeof *at);
        list->at = at;
        list->capacity = capacity;
    }
    list->at[list->count++] = node;
}

mq_jnodes mq__jparser_nodes(mq_jparser *p, const mq_jnode_list *list)
{
    mq_jnodes nodes = {.count = (uint32_t)list->count};
    nodes.at = mq__arena_alloc_zero(&p->program->arena, list->count, sizeof *nodes.at);
    if (!nodes.at) mq__jtrap_throw_memory(&p->trap, &p->program->arena);
    if (list->count) memcpy(nodes.at, list->at, list->count * sizeof *nodes.at);
    return nodes;
}

static void grow_names(mq_jparser *p)
{
    const size_t slots = p->name_slot_count ? p->name_slot_count * 2 : 64, capacity = slots / 2;
    uint32_t *const table = mq__arena_alloc_zero(&p->scratch, slots, sizeof *table);
    mq_jvalue *const names = mq__arena_alloc_zero(&p->program->arena, capacity, sizeof *names);
    if (!table || !names) mq__jtrap_throw_memory(&p->trap, table ? &p->program->arena : &p->scratch);
    for (size_t i = 0; i < p->program->name_count; i++) {
        names[i] = p->program->names[i];
        size_t slot = (size_t)XXH3_64bits(names[i].as.text, names[i].bytes) & (slots - 1);
        while (table[slot]) {
            slot = (slot + 1) & (slots - 1);
        }
        table[slot] = (uint32_t)i + 1;
    }
    p->program->names = names;
    p->name_slots = table;
    p->name_slot_count = slots;
    p->name_capacity = capacity;
}

uint32_t mq__jparser_name(mq_jparser *p, mq_jvalue text)
{
    if (p->program->name_count == p->name_capacity) grow_names(p);
    size_t slot = (size_t)XXH3_64bits(text.as.text, text.bytes) & (p->name_slot_count - 1);
    for (; p->name_slots[slot]; slot = (slot + 1) & (p->name_slot_count - 1)) {
        const mq_jvalue known = p->program->names[p->name_slots[slot] - 1];
        if (known.bytes == text.bytes && memcmp(known.as.text, text.as.text, text.bytes) == 0)
            return p->name_slots[slot] - 1;
    }
    const uint32_t number = (uint32_t)p->program->name_count++;
    p->program->names[number] = text;
    p->name_slots[slot] = number + 1;
    return number;
}

bool mq__jparser_is_op(const mq_jparser *p, uint16_t op)
{
    return p->token->kind == MQ_JT_OPERATOR && p->token->op == op;
}

bool mq__jparser_is_name(const mq_jparser *p, const char *name)
{
    return p->token->kind == MQ_JT_NAME && mq__jvalue_is_text(p->token->value, name);
}

bool mq__jparser_skip_op(mq_jparser *p, uint16_t op)
{
    const bool found = mq__jparser_is_op(p, op);
    p->token += found;
    return found;
}

bool mq__jparser_skip_name(mq_jparser *p, const char *name)
{
    const bool found = mq__jparser_is_name(p, name);
    p->token += found;
    return found;
}

void mq__jparser_unexpected(mq_jparser *p, const char *expected)
{
    const mq_jtoken *const t = p->token;
    p->trap.line = t->line;
    const int bytes = t->value.bytes < 60 ? (int)t->value.bytes : 60;
    switch (t->kind) {
    case MQ_JT_NAME:
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got '%.*s'", expected, bytes, t->value.as.text);
    case MQ_JT_OPERATOR:
        if (t->op > 0xff) {
            mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got '%c%c'", expected, t->op >> 8, t->op & 0xff);
        }
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got '%c'", expected, t->op);
    case MQ_JT_CONST:
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got a constant", expected);
    case MQ_JT_PRINT_END:
    case MQ_JT_BLOCK_END:
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got the end of the tag", expected);
    default:
        mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected %s, got the end of the template", expected);
    }
}

void mq__jparser_expect_op(mq_jparser *p, uint16_t op)
{
    char expected[8] = "'?'";
    expected[1] = (char)op;
    if (!mq__jparser_skip_op(p, op)) mq__jparser_unexpected(p, expected);
}

mq_jvalue mq__jparser_expect_name(mq_jparser *p)
{
    if (p->token->kind != MQ_JT_NAME) mq__jparser_unexpected(p, "a name");
    return (p->token++)->value;
}

static void expect_keyword(mq_jparser *p, const char *name)
{
    if (!mq__jparser_skip_name(p, name)) mq__jparser_unexpected(p, name);
}

void mq__jparser_enter(mq_jparser *p)
{
    if (++p->depth > MQ_J_PARSE_DEPTH) {
        mq__jtrap_throw(&p->trap, MQ_LIMIT, "expected at most %d levels of nesting", MQ_J_PARSE_DEPTH);
    }
}

void mq__jparser_leave(mq_jparser *p)
{
    p->depth--;
}

/* ---------------------------------------------------------------- statements */

static mq_jnodes parse_body(mq_jparser *p, const char *const *ends);
static mq_jnode *parse_statement(mq_jparser *p);

static void expect_block_end(mq_jparser *p)
{
    if (p->token->kind != MQ_JT_BLOCK_END) mq__jparser_unexpected(p, "%}");
    p->token++;
}

/* The body of a tag up to one of `ends`, which becomes the current token. */
static mq_jnodes parse_block(mq_jparser *p, const char *const *ends)
{
    (void)mq__jparser_skip_op(p, ':');
    expect_block_end(p);
    return parse_body(p, ends);
}

/* The same with one end, which is skipped. */
static mq_jnodes parse_block_to(mq_jparser *p, const char *end)
{
    const char *const ends[] = {end, NULL};
    const mq_jnodes body = parse_block(p, ends);
    p->token++;
    return body;
}

static mq_jnode *parse_if(mq_jparser *p)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    mq_jnode *const first = mq__jparser_node(p, MQ_JN_IF);
    for (mq_jnode *node = first;;) {
        p->token++; /* if or elif */
        node->a = mq__jparser_tuple(p, false, NULL, false);
        node->body = parse_block(p, ends);
        if (mq__jparser_is_name(p, "elif")) {
            /* An elif hangs below its if as the only node of `otherwise`. */
            mq_jnode_list chain = {0};
            mq_jnode *const next = mq__jparser_node(p, MQ_JN_IF);
            mq__jparser_push(p, &chain, next);
            node->otherwise = mq__jparser_nodes(p, &chain);
            node = next;
            continue;
        }
        if (mq__jparser_skip_name(p, "else")) {
            node->otherwise = parse_block_to(p, "endif");
        } else {
            p->token++; /* endif */
        }
        return first;
    }
}

static mq_jnode *parse_for(mq_jparser *p)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_FOR);
    node->name = mq__jparser_name(p, mq__jvalue_literal("loop"));
    p->token++;
    p->loops++;
    p->all_loops++;
    node->a = mq__jparser_target(p, "in", false);
    expect_keyword(p, "in");
    node->b = mq__jparser_tuple(p, false, "recursive", false);
    if (mq__jparser_skip_name(p, "if")) node->c = mq__jparser_expression(p, true);
    node->op = mq__jparser_skip_name(p, "recursive");
    node->body = parse_block(p, ends);
    p->loops--; /* the else branch is outside the loop */
    if (mq__jparser_skip_name(p, "else")) {
        node->otherwise = parse_block_to(p, "endfor");
    } else {
        p->token++; /* endfor */
    }
    p->all_loops--;
    return node;
}

static mq_jnode *parse_set(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_SET);
    p->token++;
    node->a = mq__jparser_target(p, NULL, true);
    if (mq__jparser_skip_op(p, '=')) {
        node->b = mq__jparser_tuple(p, true, NULL, false);
        return node;
    }
    node->kind = MQ_JN_SET_BLOCK;
    if (mq__jparser_is_op(p, '|')) node->b = mq__jparser_filter(p, mq__jparser_node(p, MQ_JN_CAPTURED), false);
    node->body = parse_block_to(p, "endset");
    return node;
}

static void parse_signature(mq_jparser *p, mq_jnode *macro)
{
    mq_jnode_list names = {0}, defaults = {0};
    mq__jparser_expect_op(p, '(');
    while (!mq__jparser_is_op(p, ')')) {
        if (names.count) mq__jparser_expect_op(p, ',');
        mq_jnode *const name = mq__jparser_node(p, MQ_JN_NAME);
        name->name = mq__jparser_name(p, mq__jparser_expect_name(p));
        mq__jparser_push(p, &names, name);
        if (mq__jparser_skip_op(p, '=')) {
            mq__jparser_push(p, &defaults, mq__jparser_expression(p, true));
        } else if (defaults.count) {
            mq__jparser_unexpected(p, "a default after a default");
        }
    }
    p->token++;
    macro->items = mq__jparser_nodes(p, &names);
    macro->others = mq__jparser_nodes(p, &defaults);
}

/* The body of a macro or of a call block is a function: break and continue do not reach out of it. */
static void parse_function_body(mq_jparser *p, mq_jnode *node, const char *end)
{
    const unsigned loops = p->loops;
    const uint8_t uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    node->body = parse_block_to(p, end);
    node->op = p->uses;
    p->loops = loops;
    p->uses |= uses; /* an outer macro uses what an inner one uses */
}

static mq_jnode *parse_macro(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_MACRO);
    p->token++;
    node->name = mq__jparser_name(p, mq__jparser_expect_name(p));
    parse_signature(p, node);
    parse_function_body(p, node, "endmacro");
    return node;
}

static mq_jnode *parse_call_block(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_CALL_BLOCK);
    mq_jnode *const body = mq__jparser_node(p, MQ_JN_MACRO);
    p->token++;
    if (mq__jparser_is_op(p, '(')) parse_signature(p, body);
    node->a = mq__jparser_expression(p, true);
    if (node->a->kind != MQ_JN_CALL) mq__jtrap_throw(&p->trap, MQ_TEMPLATE, "expected a call after `call`");
    parse_function_body(p, body, "endcall");
    node->b = body;
    return node;
}

static mq_jnode *parse_filter_block(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_FILTER_BLOCK);
    p->token++;
    node->b = mq__jparser_filter(p, mq__jparser_node(p, MQ_JN_CAPTURED), true);
    node->body = parse_block_to(p, "endfilter");
    return node;
}

static mq_jnode *parse_with(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_WITH);
    mq_jnode_list targets = {0}, values = {0};
    p->token++;
    while (p->token->kind != MQ_JT_BLOCK_END) {
        if (targets.count) mq__jparser_expect_op(p, ',');
        mq__jparser_push(p, &targets, mq__jparser_target(p, NULL, false));
        mq__jparser_expect_op(p, '=');
        mq__jparser_push(p, &values, mq__jparser_expression(p, true));
    }
    node->items = mq__jparser_nodes(p, &targets);
    node->others = mq__jparser_nodes(p, &values);
    node->body = parse_block_to(p, "endwith");
    return node;
}

static mq_jnode *parse_generation(mq_jparser *p)
{
    mq_jnode *const node = mq__jparser_node(p, MQ_JN_SCOPE);
    p->token++;
    parse_function_body(p, node, "endgeneration");
    return node;
}

static mq_jnode *parse_jump(mq_jparser *p, mq_jnode_kind kind)
{
    mq_jnode *const node = mq__jparser_node(p, kind);
    if (p->loops == 0) mq__jparser_unexpected(p, "a for loop around it");
    p->token++;
    return node;
}

static mq_jnode *parse_break(mq_jparser *p)
{
    return parse_jump(p, MQ_JN_BREAK);
}

static mq_jnode *parse_continue(mq_jparser *p)
{
    return parse_jump(p, MQ_JN_CONTINUE);
}

static mq_jnode *parse_statement(mq_jparser *p)
{
    static const struct {
        const char *name;
        mq_jnode *(*parse)(mq_jparser *);
    } statements[] = {
        {"if", parse_if},           {"for", parse_for},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},       {"generation", parse_generation},
        {"break", parse_break},     {"continue", parse_continue},
    };
    if (p->token->kind != MQ_JT_NAME) mq__jparser_unexpected(p, "a tag name");
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (!mq__jparser_is_name(p, statements[i].name)) continue;
        mq__jparser_enter(p);
        mq_jnode *const node = statements[i].parse(p);
        mq__jparser_leave(p);
        return node;
    }
    const mq_jvalue name = p->token->value;
    p->trap.line = p->token->line;
    mq__jtrap_throw(&p->trap, name.bytes >= 3 && memcmp(name.as.text, "end", 3) == 0 ? MQ_TEMPLATE : MQ_UNSUPPORTED,
                    "expected a known tag, got '%.*s'", name.bytes < 60 ? (int)name.bytes : 60, name.as.text);
}

/* {% print a, b %} prints what {{ a }}{{ b }} does. */
static void parse_print(mq_jparser *p, mq_jnode_list *body)
{
    p->token++;
    for (bool first = true; p->token->kind != MQ_JT_BLOCK_END; first = false) {
        if (!first) mq__jparser_expect_op(p, ',');
        mq_jnode *const node = mq__jparser_node(p, MQ_JN_PRINT);
        node->a = mq__jparser_expression(p, true);
        mq__jparser_push(p, body, node);
    }
}

static bool at_end_jinja_parse(const mq_jparser *p, const char *const *ends)
{
    for (size_t i = 0; ends && ends[i]; i++) {
        if (mq__jparser_is_name(p, ends[i])) return true;
    }
    return false;
}

static mq_jnodes parse_body(mq_jparser *p, const char *const *ends)
{
    mq_jnode_list body = {0};
    for (; p->token->kind != MQ_JT_END;) {
        if (p->token->kind == MQ_JT_DATA) {
            mq_jnode *const node = mq__jparser_node(p, MQ_JN_DATA);
            node->value = p->token->value;
            mq__jparser_push(p, &body, node);
            p->token++;
        } else if (p->token->kind == MQ_JT_PRINT_BEGIN) {
            p->token++;
            mq_jnode *const node = mq__jparser_node(p, MQ_JN_PRINT);
            node->a = mq__jparser_tuple(p, true, NULL, false);
            mq__jparser_push(p, &body, node);
            if (p->token->kind != MQ_JT_PRINT_END) mq__jparser_unexpected(p, "}}");
            p->token++;
        } else {
            p->token++; /* the lexer lets only a tag follow */
            if (at_end_jinja_parse(p, ends)) return mq__jparser_nodes(p, &body);
            if (mq__jparser_is_name(p, "print")) {
                parse_print(p, &body);
            } else {
                mq__jparser_push(p, &body, parse_statement(p));
            }
            expect_block_end(p);
        }
    }
    if (ends) {
        size_t last = 0;
        while (ends[last + 1]) {
            last++;
        }
        mq__jparser_unexpected(p, ends[last]);
    }
    return mq__jparser_nodes(p, &body);
}

/* ---------------------------------------------------------------- entry */

/* Line ends become \n, and one at the very end goes, as Jinja does. */
static bool copy_source(mq_jinja *program, const char *source, size_t bytes)
{
    char *const copy = mq__arena_text(&program->arena, bytes + 1);
    if (!copy) return false;
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        copy[n++] = source[i] == '\r' ? '\n' : source[i];
        if (source[i] == '\r' && i + 1 < bytes && source[i + 1] == '\n') i++;
    }
    if (n > 0 && copy[n - 1] == '\n') n--;
    program->source = copy;
    program->source_bytes = n;
    return true;
}

mq_status mq__jinja_parse(const char *source, size_t bytes, mq_jinja **out, mq_error *error)
{
    *out = NULL;
    if (bytes > MQ_JINJA_SOURCE_BYTES) {
        return mq__fail(error, MQ_LIMIT, "template: expected at most %zu bytes, got %zu", MQ_JINJA_SOURCE_BYTES, bytes);
    }
    if (!mq__utf8_valid(source, bytes)) return mq__fail(error, MQ_FORMAT, "template: expected UTF-8, got other bytes");
    mq_jinja *const program = mq__alloc_zero(1, sizeof *program);
    mq_jparser *const p = mq__alloc_zero(1, sizeof *p);
    mq_c_locale scope = {(locale_t)0, (locale_t)0};
    bool plain = false;
    mq_status status = MQ_OK;
    if (!program || !p) {
        status = mq__fail(error, MQ_NO_MEMORY, "template: out of memory");
        goto out;
    }
    plain = mq__c_locale_enter(&scope); /* numbers */
    p->trap.error = error;
    p->program = program;
    program->arena.max = p->scratch.max = PROGRAM_BYTES;
    if (setjmp(p->trap.target) != 0) {
        status = p->trap.status;
        goto out;
    }
    if (!plain) mq__jtrap_throw(&p->trap, MQ_NO_MEMORY, "out of memory");
    if (!copy_source(program, source, bytes)) mq__jtrap_throw_memory(&p->trap, &program->arena);
    p->token = mq__jinja_lex(&p->trap, &program->arena, &p->scratch, program->source, program->source_bytes);
    program->body = parse_body(p, NULL);
    *out = program;

out:
    mq__c_locale_leave(&scope);
    if (p) mq__arena_free(&p->scratch);
    mq__free(p);
    if (!*out) mq__jinja_free(program);
    return status;
}

void mq__jinja_free(mq_jinja *program)
{
    if (!program) return;
    mq__arena_free(&program->arena);
    mq__free(program);
}
