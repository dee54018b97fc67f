/* Expressions. */
#include "jinja/jinja_run.h"

#include "jinja/jinja.h"

#include <string.h>

#define FAST_ITEMS 8 /* arguments that a call keeps on the stack */

/* The dispatcher is on the stack once for each level of nesting; what it calls must not add its frame to it. */
#define MQ_J_NOINLINE __attribute__((noinline))

static MQ_J_NOINLINE mq_jvalue eval_sequence(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq_jlist *const list = mq__jlist_new(run, node->kind == MQ_JN_TUPLE ? MQ_J_TUPLE : MQ_J_PLAIN, node->items.count);
    for (uint32_t i = 0; i < node->items.count; i++) {
        list->items[i] = mq__jinja_eval(run, frame, node->items.at[i]);
    }
    list->count = node->items.count;
    return mq__jvalue_list(list);
}

static MQ_J_NOINLINE mq_jvalue eval_dict(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq_jdict *const dict = mq__jdict_new(run, node->items.count / 2);
    for (uint32_t i = 0; i + 1 < node->items.count; i += 2) {
        const mq_jvalue key = mq__jinja_eval(run, frame, node->items.at[i]);
        const mq_jvalue value = mq__jinja_eval(run, frame, node->items.at[i + 1]);
        run->trap.line = node->line;
        mq__jdict_put(run, dict, key, value);
    }
    return mq__jvalue_dict(dict);
}

static MQ_J_NOINLINE mq_jvalue eval_concat(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq_jvalue parts[FAST_ITEMS], *all = parts;
    const uint32_t count = node->items.count;
    if (count > FAST_ITEMS) all = mq__jrun_alloc(run, count, sizeof *all);
    for (uint32_t i = 0; i < count; i++) {
        all[i] = mq__jinja_eval(run, frame, node->items.at[i]);
    }
    run->trap.line = node->line;
    mq_jvalue result = mq__jvalue_str(run, all[0]);
    for (uint32_t i = 1; i < count; i++) {
        result = mq__jvalue_join(run, result, mq__jvalue_str(run, all[i]));
    }
    return result;
}

static MQ_J_NOINLINE mq_jvalue eval_compare(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq_jvalue left = mq__jinja_eval(run, frame, node->a);
    for (uint32_t i = 0; i < node->items.count; i++) {
        const mq_jvalue right = mq__jinja_eval(run, frame, node->items.at[i]);
        run->trap.line = node->line;
        if (!mq__jinja_relation(run, (mq_jop)node->ops[i], left, right)) return mq__jvalue_bool(false);
        left = right;
    }
    return mq__jvalue_bool(true);
}

static MQ_J_NOINLINE mq_jvalue eval_item(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const mq_jvalue object = mq__jinja_eval(run, frame, node->a);
    if (node->b->kind != MQ_JN_SLICE) {
        const mq_jvalue key = mq__jinja_eval(run, frame, node->b);
        run->trap.line = node->line;
        return mq__jinja_get_item(run, object, key);
    }
    const mq_jnode *const parts[3] = {node->b->a, node->b->b, node->b->c};
    mq_jvalue bounds[3];
    for (int i = 0; i < 3; i++) {
        bounds[i] = parts[i] ? mq__jinja_eval(run, frame, parts[i]) : mq__jvalue_none();
    }
    run->trap.line = node->line;
    return mq__jinja_get_slice(run, object, bounds);
}

/* ---------------------------------------------------------------- calls */

/* The evaluated arguments of a call; small ones stay here. */
typedef struct arguments {
    mq_jvalue values[FAST_ITEMS], named[FAST_ITEMS];
    mq_jargs args;
} arguments;

static void spread_positional(mq_jrun *run, mq_jframe *frame, const mq_jcall *call, arguments *out)
{
    mq_jlist *const all = mq__jlist_new(run, MQ_J_PLAIN, out->args.count + 4);
    for (size_t i = 0; i < out->args.count; i++) {
        mq__jlist_push(run, all, out->args.values[i]);
    }
    mq_jiter iter;
    mq_jvalue item;
    mq__jiter_need(run, &iter, mq__jinja_eval(run, frame, call->star));
    while (mq__jiter_next(run, &iter, &item)) {
        mq__jlist_push(run, all, item);
    }
    out->args.values = all->items;
    out->args.count = all->count;
}

static void spread_named(mq_jrun *run, mq_jframe *frame, const mq_jcall *call, arguments *out)
{
    const mq_jvalue more = mq__jinja_eval(run, frame, call->star_star);
    if (more.type != MQ_J_DICT)
        mq__jrun_throw(run, MQ_TEMPLATE, "expected a dict after '**', got %s", mq__jvalue_type_name(more));
    const size_t count = out->args.named_count + more.as.dict->count;
    mq_jvalue *const names = mq__jrun_alloc(run, count, sizeof *names);
    mq_jvalue *const named = mq__jrun_alloc(run, count, sizeof *named);
    size_t n = 0;
    for (; n < out->args.named_count; n++) {
        names[n] = out->args.names[n];
        named[n] = out->args.named[n];
    }
    for (size_t i = 0; i < more.as.dict->count; i++, n++) {
        names[n] = more.as.dict->entries[i].key;
        named[n] = more.as.dict->entries[i].value;
        if (names[n].type != MQ_J_STRING) mq__jrun_throw(run, MQ_TEMPLATE, "expected string keys after '**'");
    }
    out->args.names = names;
    out->args.named = named;
    out->args.named_count = count;
}

static void eval_arguments(mq_jrun *run, mq_jframe *frame, const mq_jcall *call, arguments *out)
{
    out->args = (mq_jargs){.values = out->values, .named = out->named}; /* not NULL: callees count from them */
    if (!call) return;
    mq_jvalue *values = out->values, *named = out->named;
    if (call->positional.count > FAST_ITEMS) values = mq__jrun_alloc(run, call->positional.count, sizeof *values);
    if (call->named.count > FAST_ITEMS) named = mq__jrun_alloc(run, call->named.count, sizeof *named);
    for (uint32_t i = 0; i < call->positional.count; i++) {
        values[i] = mq__jinja_eval(run, frame, call->positional.at[i]);
    }
    for (uint32_t i = 0; i < call->named.count; i++) {
        named[i] = mq__jinja_eval(run, frame, call->named.at[i]);
    }
    out->args = (mq_jargs){values, call->positional.count, call->names, named, call->named.count};
    if (call->star) spread_positional(run, frame, call, out);
    if (call->star_star) spread_named(run, frame, call, out);
}

mq_jvalue mq__jinja_call(mq_jrun *run, mq_jvalue callee, const mq_jargs *args)
{
    switch (callee.type) {
    case MQ_J_MACRO:
        return mq__jinja_call_macro(run, callee.as.macro, args);
    case MQ_J_FUNCTION:
        return callee.as.function->call(run, callee, args);
    case MQ_J_METHOD:
        return callee.as.method->method->call(run, callee.as.method->self, args);
    case MQ_J_LOOP:
        mq__jargs_positional(run, "loop", args, 1, 1);
        return mq__jinja_recurse_loop(run, callee.as.loop, args->values[0]);
    case MQ_J_JOINER:
        mq__jargs_positional(run, "joiner", args, 0, 0);
        return callee.as.cycler->position++ ? callee.as.cycler->items[0] : mq__jvalue_text("", 0);
    case MQ_J_UNDEFINED:
        mq__jvalue_fail_undefined(run, callee);
    default:
        mq__jrun_throw(run, MQ_TEMPLATE, "expected something to call, got %s", mq__jvalue_type_name(callee));
    }
}

/* A method call finds its method without making a bound method first. */
static const mq_jmethod *direct_method(const mq_jnode *callee, mq_jvalue object)
{
    if (callee->kind != MQ_JN_ATTR || !callee->method || object.type == MQ_J_NAMESPACE) return NULL;
    const mq_jmethod *const method = mq__jmethod_of(callee->method, object);
    return method && method->call ? method : NULL;
}

static _Noreturn void fail_method(mq_jrun *run, const mq_jnode *callee, mq_jvalue object)
{
    const int bytes = callee->value.bytes < 100 ? (int)callee->value.bytes : 100;
    mq__jrun_throw(run, MQ_TEMPLATE, "expected a method of %s that does not change it, got '%.*s'",
                   mq__jvalue_type_name(object), bytes, callee->value.as.text);
}

mq_jvalue mq__jinja_call_node(mq_jrun *run, mq_jframe *frame, const mq_jnode *node, const mq_jvalue *caller)
{
    const mq_jnode *const callee = node->a;
    const mq_jvalue object = mq__jinja_eval(run, frame, callee->kind == MQ_JN_ATTR ? callee->a : callee);
    run->trap.line = node->line;
    const mq_jmethod *const method = direct_method(callee, object);
    mq_jvalue function = object;
    if (!method && callee->kind == MQ_JN_ATTR) {
        function = mq__jinja_get_attribute(run, object, callee->value, callee->method);
        if (function.type == MQ_J_UNDEFINED && function.flags == MQ_J_HINT_MESSAGE) fail_method(run, callee, object);
    }
    arguments given;
    eval_arguments(run, frame, node->call, &given);
    if (caller) { /* caller=... joins the named arguments */
        const size_t count = given.args.named_count;
        mq_jvalue *const names = mq__jrun_alloc(run, count + 1, sizeof *names);
        mq_jvalue *const named = mq__jrun_alloc(run, count + 1, sizeof *named);
        for (size_t i = 0; i < count; i++) {
            names[i] = given.args.names[i];
            named[i] = given.args.named[i];
        }
        names[count] = mq__jvalue_literal("caller");
        named[count] = *caller;
        given.args.names = names;
        given.args.named = named;
        given.args.named_count = count + 1;
    }
    run->trap.line = node->line;
    if (method) return method->call(run, object, &given.args);
    return mq__jinja_call(run, function, &given.args);
}

/* A filter or a test is missed when a render reaches it, not before: templates ask for some of one library only. */
static _Noreturn void fail_unknown(mq_jrun *run, const char *what, mq_jvalue name)
{
    mq__jrun_throw(run, MQ_UNSUPPORTED, "expected a known %s, got '%.*s'", what,
                   name.bytes < 100 ? (int)name.bytes : 100, name.as.text);
}

static MQ_J_NOINLINE mq_jvalue eval_filter(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const mq_jvalue self = mq__jinja_eval(run, frame, node->a);
    arguments given;
    eval_arguments(run, frame, node->call, &given);
    run->trap.line = node->line;
    if (!node->filter) fail_unknown(run, "filter", node->value);
    return node->filter->call(run, self, &given.args);
}

static MQ_J_NOINLINE mq_jvalue eval_test(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const mq_jvalue self = mq__jinja_eval(run, frame, node->a);
    arguments given;
    eval_arguments(run, frame, node->call, &given);
    run->trap.line = node->line;
    if (!node->test) fail_unknown(run, "test", node->value);
    mq__jargs_positional(run, node->test->name, &given.args, node->test->arguments, node->test->arguments);
    return mq__jvalue_bool(node->test->call(run, self, &given.args) != (bool)node->op);
}

static mq_jvalue eval_name(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const mq_jvalue *const found = mq__jframe_find(run, frame, node->name);
    if (found) return *found;
    const mq_jvalue name = run->program->names[node->name];
    return mq__jvalue_undefined(MQ_J_HINT_NAME, name.as.text, name.bytes);
}

static MQ_J_NOINLINE mq_jvalue eval_cond(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    static const char text[] = "the inline if-expression evaluated to false and no else section was defined";
    if (mq__jvalue_truth(mq__jinja_eval(run, frame, node->b))) return mq__jinja_eval(run, frame, node->a);
    if (node->c) return mq__jinja_eval(run, frame, node->c);
    return mq__jvalue_undefined(MQ_J_HINT_MESSAGE, text, sizeof text - 1);
}

static MQ_J_NOINLINE mq_jvalue eval_operators(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const mq_jvalue a = mq__jinja_eval(run, frame, node->a);
    switch (node->kind) {
    case MQ_JN_AND:
        return mq__jvalue_truth(a) ? mq__jinja_eval(run, frame, node->b) : a;
    case MQ_JN_OR:
        return mq__jvalue_truth(a) ? a : mq__jinja_eval(run, frame, node->b);
    case MQ_JN_NOT:
        return mq__jvalue_bool(!mq__jvalue_truth(a));
    case MQ_JN_UNARY:
        run->trap.line = node->line;
        return mq__jinja_unary(run, (mq_jop)node->op, a);
    case MQ_JN_ATTR:
        run->trap.line = node->line;
        return mq__jinja_get_attribute(run, a, node->value, node->method);
    default: {
        const mq_jvalue b = mq__jinja_eval(run, frame, node->b);
        run->trap.line = node->line;
        return mq__jinja_binary(run, (mq_jop)node->op, a, b);
    }
    }
}

mq_jvalue mq__jinja_eval(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq__jrun_charge(run, 1);
    switch (node->kind) {
    case MQ_JN_CONST:
        return node->value;
    case MQ_JN_NAME:
        run->trap.line = node->line;
        return eval_name(run, frame, node);
    case MQ_JN_CAPTURED:
        return run->captured;
    default:
        break;
    }
    mq_jvalue result;
    mq__jinja_enter(run);
    switch (node->kind) {
    case MQ_JN_TUPLE:
    case MQ_JN_LIST:
        result = eval_sequence(run, frame, node);
        break;
    case MQ_JN_DICT:
        result = eval_dict(run, frame, node);
        break;
    case MQ_JN_CONCAT:
        result = eval_concat(run, frame, node);
        break;
    case MQ_JN_COMPARE:
        result = eval_compare(run, frame, node);
        break;
    case MQ_JN_COND:
        result = eval_cond(run, frame, node);
        break;
    case MQ_JN_ITEM:
        result = eval_item(run, frame, node);
        break;
    case MQ_JN_CALL:
        result = mq__jinja_call_node(run, frame, node, NULL);
        break;
    case MQ_JN_FILTER:
        result = eval_filter(run, frame, node);
        break;
    case MQ_JN_TEST:
        result = eval_test(run, frame, node);
        break;
    default:
        result = eval_operators(run, frame, node);
        break;
    }
    mq__jinja_leave(run);
    return result;
}
