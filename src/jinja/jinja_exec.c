/* Statements, scopes, macros and loops. */
#include "jinja/jinja_run.h"

#include <string.h>

typedef enum flow { NEXT, BREAK, CONTINUE } flow;

static flow exec_body(mq_jrun *run, mq_jframe *frame, const mq_jnodes *body);

/* ---------------------------------------------------------------- scopes */

mq_jvalue *mq__jframe_find(mq_jrun *run, mq_jframe *frame, uint32_t name)
{
    for (; frame; frame = frame->parent) {
        for (uint32_t i = 0; i < frame->count; i++) {
            if (frame->slots[i].name == name) return &frame->slots[i].value;
        }
    }
    mq_jvalue *const top = &run->top[name];
    return top->type == MQ_J_MISSING ? NULL : top;
}

static void bind(mq_jrun *run, mq_jframe *frame, uint32_t name, mq_jvalue value)
{
    if (!frame) {
        run->top[name] = value;
        return;
    }
    for (uint32_t i = 0; i < frame->count; i++) {
        if (frame->slots[i].name == name) {
            frame->slots[i].value = value;
            return;
        }
    }
    if (frame->count == frame->capacity) {
        const uint32_t capacity = frame->capacity ? frame->capacity * 2 : 4;
        mq_jslot *const slots = mq__jrun_alloc(run, capacity, sizeof *slots);
        if (frame->count) memcpy(slots, frame->slots, frame->count * sizeof *slots);
        frame->slots = slots;
        frame->capacity = capacity;
    }
    frame->slots[frame->count++] = (mq_jslot){name, value};
}

static mq_jframe *new_frame(mq_jrun *run, mq_jframe *parent)
{
    mq_jframe *const frame = mq__jrun_alloc(run, 1, sizeof *frame);
    frame->parent = parent;
    return frame;
}

/* A macro holds the scopes around it, so none of them may be reused for the next iteration of a loop. */
static void keep_jinja_exec(mq_jframe *frame)
{
    for (; frame && !frame->kept; frame = frame->parent) {
        frame->kept = true;
    }
}

static mq_jframe *next_frame(mq_jrun *run, mq_jframe *used)
{
    if (used->kept) return new_frame(run, used->parent);
    used->count = 0;
    return used;
}

static void assign(mq_jrun *run, mq_jframe *frame, const mq_jnode *target, mq_jvalue value)
{
    if (target->kind == MQ_JN_NAME) {
        bind(run, frame, target->name, value);
        return;
    }
    if (target->kind == MQ_JN_NSREF) {
        const mq_jvalue *const space = mq__jframe_find(run, frame, target->name);
        run->trap.line = target->line;
        if (!space || space->type != MQ_J_NAMESPACE) {
            mq__jrun_throw(run, MQ_TEMPLATE, "expected a namespace to assign an attribute to, got %s",
                           space ? mq__jvalue_type_name(*space) : "Undefined");
        }
        mq__jdict_put(run, space->as.dict, target->value, value);
        return;
    }
    mq_jiter iter;
    mq_jvalue item;
    run->trap.line = target->line;
    mq__jiter_need(run, &iter, value);
    for (uint32_t i = 0; i < target->items.count; i++) {
        run->trap.line = target->line;
        if (!mq__jiter_next(run, &iter, &item)) {
            mq__jrun_throw(run, MQ_TEMPLATE, "expected %u values to unpack, got %u", (unsigned)target->items.count,
                           (unsigned)i);
        }
        assign(run, frame, target->items.at[i], item);
    }
    if (mq__jiter_next(run, &iter, &item)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "expected %u values to unpack, got more", (unsigned)target->items.count);
    }
}

/* ---------------------------------------------------------------- output */

static void put_out(mq_jrun *run, const char *text, size_t bytes)
{
    if (bytes == 0) return;
    mq__jrun_charge_bytes(run, bytes / 4);
    if (mq__buf_append(&run->out, text, bytes)) return;
    if (bytes > run->limits.output_bytes || run->out.len > run->limits.output_bytes - bytes) {
        mq__jrun_throw(run, MQ_LIMIT, "expected an output of at most %zu bytes, got more", run->limits.output_bytes);
    }
    mq__jrun_throw(run, MQ_NO_MEMORY, "out of memory");
}

/* What was printed since `start` becomes a string instead. */
static mq_jvalue cut_out(mq_jrun *run, size_t start)
{
    const mq_jvalue text = mq__jvalue_copy(run, run->out.data + start, run->out.len - start);
    run->out.len = start;
    return text;
}

static void print(mq_jrun *run, mq_jvalue value)
{
    const mq_jvalue text = mq__jvalue_soft_str(run, value);
    put_out(run, text.as.text, text.bytes);
}

/* ---------------------------------------------------------------- macros */

static mq_jvalue new_macro(mq_jrun *run, mq_jframe *frame, const mq_jnode *node, bool caller)
{
    mq_jmacro *const macro = mq__jrun_alloc(run, 1, sizeof *macro);
    *macro = (mq_jmacro){node, frame, caller};
    keep_jinja_exec(frame);
    return (mq_jvalue){.type = MQ_J_MACRO, .as.macro = macro};
}

static mq_jvalue take_named(const mq_jargs *args, bool *taken, mq_jvalue name)
{
    for (size_t i = 0; i < args->named_count; i++) {
        const mq_jvalue known = args->names[i];
        if (taken[i] || known.bytes != name.bytes || memcmp(known.as.text, name.as.text, name.bytes) != 0) continue;
        taken[i] = true;
        return args->named[i];
    }
    return (mq_jvalue){0};
}

static uint32_t find_name_jinja_exec(const mq_jrun *run, const char *text)
{
    for (uint32_t i = 0; i < run->program->name_count; i++) {
        if (mq__jvalue_is_text(run->program->names[i], text)) return i;
    }
    return UINT32_MAX;
}

/* What is left after the declared parameters goes to kwargs and varargs, or is an error. */
static void bind_rest(mq_jrun *run, mq_jframe *frame, const mq_jnode *node, const mq_jargs *args, const bool *taken)
{
    mq_jdict *rest = (node->op & MQ_J_USES_KWARGS) ? mq__jdict_new(run, 0) : NULL;
    for (size_t i = 0; i < args->named_count; i++) {
        if (taken[i]) continue;
        if (!rest) {
            mq__jrun_throw(run, MQ_TEMPLATE, "expected a parameter of the macro, got '%.*s'",
                           args->names[i].bytes < 100 ? (int)args->names[i].bytes : 100, args->names[i].as.text);
        }
        mq__jdict_put(run, rest, args->names[i], args->named[i]);
    }
    if (rest) bind(run, frame, find_name_jinja_exec(run, "kwargs"), mq__jvalue_dict(rest));
    const size_t declared = node->items.count;
    if (node->op & MQ_J_USES_VARARGS) {
        mq_jlist *const more = mq__jlist_new(run, MQ_J_TUPLE, 0);
        for (size_t i = declared; i < args->count; i++) {
            mq__jlist_push(run, more, args->values[i]);
        }
        bind(run, frame, find_name_jinja_exec(run, "varargs"), mq__jvalue_list(more));
    } else if (args->count > declared) {
        mq__jrun_throw(run, MQ_TEMPLATE, "expected at most %zu arguments of the macro, got %zu", declared, args->count);
    }
}

static __attribute__((noinline)) mq_jframe *bind_parameters(mq_jrun *run, const mq_jmacro *macro, const mq_jargs *args)
{
    const mq_jnode *const node = macro->node;
    mq_jframe *const frame = new_frame(run, macro->frame);
    bool *const taken = mq__jrun_alloc(run, args->named_count, sizeof *taken);
    const uint32_t declared = node->items.count, defaults = node->others.count;
    bool has_caller = false;
    for (uint32_t i = 0; i < declared; i++) {
        const uint32_t name = node->items.at[i]->name;
        const mq_jvalue text = run->program->names[name];
        const mq_jvalue value = i < args->count ? args->values[i] : take_named(args, taken, text);
        has_caller = has_caller || mq__jvalue_is_text(text, "caller");
        bind(run, frame, name, value);
    }
    if ((node->op & MQ_J_USES_CALLER) && !has_caller) {
        mq_jvalue caller = take_named(args, taken, mq__jvalue_literal("caller"));
        if (caller.type == MQ_J_MISSING || caller.type == MQ_J_NONE)
            caller = mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "No caller defined", 17);
        bind(run, frame, find_name_jinja_exec(run, "caller"), caller);
    }
    bind_rest(run, frame, node, args, taken);
    /* Defaults are evaluated in the macro's own scope, so they see the parameters before them. */
    for (uint32_t i = 0; i < declared; i++) {
        mq_jvalue *const slot = mq__jframe_find(run, frame, node->items.at[i]->name);
        if (slot->type != MQ_J_MISSING) continue;
        const mq_jvalue text = run->program->names[node->items.at[i]->name];
        const bool given = i + defaults >= declared;
        const mq_jvalue value = given ? mq__jinja_eval(run, frame, node->others.at[i + defaults - declared])
                                      : mq__jvalue_undefined(MQ_J_HINT_NAME, text.as.text, text.bytes);
        bind(run, frame, node->items.at[i]->name, value);
    }
    return frame;
}

static void enter_call(mq_jrun *run)
{
    if (++run->calls > run->limits.calls) {
        mq__jrun_throw(run, MQ_LIMIT, "expected at most %u nested calls, got more", run->limits.calls);
    }
}

mq_jvalue mq__jinja_call_macro(mq_jrun *run, const mq_jmacro *macro, const mq_jargs *args)
{
    enter_call(run);
    mq_jframe *const frame = bind_parameters(run, macro, args);
    const size_t start = run->out.len;
    exec_body(run, frame, &macro->node->body);
    run->calls--;
    return cut_out(run, start);
}

/* ---------------------------------------------------------------- loops */

/* The next item that passes the loop's own `if`, which sees the targets and what is around the loop. */
bool mq__jloop_pull(mq_jrun *run, mq_jloop *loop, mq_jvalue *item)
{
    const mq_jnode *const node = loop->node;
    while (mq__jiter_next(run, &loop->iter, item)) {
        if (!node->c || loop->rest_is_filtered) return true;
        mq_jframe *const frame = new_frame(run, loop->frame);
        assign(run, frame, node->a, *item);
        if (mq__jvalue_truth(mq__jinja_eval(run, frame, node->c))) return true;
    }
    return false;
}

/* Moves to the next item; false at the end. */
bool mq__jloop_next(mq_jrun *run, mq_jloop *loop)
{
    mq_jvalue item = loop->after;
    if (item.type == MQ_J_MISSING && (loop->exhausted || !mq__jloop_pull(run, loop, &item))) return false;
    loop->after = (mq_jvalue){0};
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    return true;
}

static __attribute__((noinline)) flow exec_for(mq_jrun *run, mq_jframe *outer, const mq_jnode *node, mq_jvalue source,
                                               int64_t depth0)
{
    mq_jloop *const loop = mq__jrun_alloc(run, 1, sizeof *loop);
    *loop = (mq_jloop){.node = node, .frame = outer, .index0 = -1, .length = -1, .depth0 = depth0};
    mq__jiter_need(run, &loop->iter, source);
    const mq_jvalue value = {.type = MQ_J_LOOP, .as.loop = loop};
    mq_jframe *frame = new_frame(run, outer);
    bool finished_one = false;
    while (mq__jloop_next(run, loop)) {
        frame = next_frame(run, frame);
        assign(run, frame, node->a, loop->current);
        bind(run, frame, node->name, value);
        const flow how = exec_body(run, frame, &node->body);
        if (how == BREAK) break;
        /* `else` runs unless some body came to its end: one that all of them left by `continue` counts as none. */
        finished_one = finished_one || how == NEXT;
    }
    /* A jump inside `else` belongs to the loop around this one. */
    if (finished_one || node->otherwise.count == 0) return NEXT;
    return exec_body(run, new_frame(run, outer), &node->otherwise);
}

mq_jvalue mq__jinja_recurse_loop(mq_jrun *run, const mq_jloop *loop, mq_jvalue source)
{
    if (!loop->node->op) mq__jrun_throw(run, MQ_TEMPLATE, "expected a recursive loop to call");
    enter_call(run);
    const size_t start = run->out.len;
    exec_for(run, loop->frame, loop->node, source, loop->depth0 + 1);
    run->calls--;
    return cut_out(run, start);
}

/* ---------------------------------------------------------------- statements */

static __attribute__((noinline)) flow exec_if(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    for (;;) {
        if (mq__jvalue_truth(mq__jinja_eval(run, frame, node->a))) return exec_body(run, frame, &node->body);
        if (node->otherwise.count != 1 || node->otherwise.at[0]->kind != MQ_JN_IF) break;
        node = node->otherwise.at[0]; /* elif */
    }
    return exec_body(run, frame, &node->otherwise);
}

static __attribute__((noinline)) flow exec_set_block(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const size_t start = run->out.len;
    mq_jframe *const inner = new_frame(run, frame);
    const flow how = exec_body(run, inner, &node->body);
    mq_jvalue text = cut_out(run, start);
    if (how != NEXT) return how;
    if (node->b) {
        run->captured = text;
        text = mq__jinja_eval(run, inner, node->b);
    }
    assign(run, frame, node->a, text);
    return NEXT;
}

static __attribute__((noinline)) flow exec_filter_block(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    const size_t start = run->out.len;
    mq_jframe *const inner = new_frame(run, frame);
    const flow how = exec_body(run, inner, &node->body);
    run->captured = cut_out(run, start);
    if (how != NEXT) return how;
    print(run, mq__jinja_eval(run, inner, node->b));
    return NEXT;
}

static __attribute__((noinline)) flow exec_with(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq_jframe *const inner = new_frame(run, frame);
    for (uint32_t i = 0; i < node->items.count; i++) {
        assign(run, inner, node->items.at[i], mq__jinja_eval(run, frame, node->others.at[i]));
    }
    return exec_body(run, inner, &node->body);
}

static flow exec_node(mq_jrun *run, mq_jframe *frame, const mq_jnode *node)
{
    mq__jrun_charge(run, 1);
    switch (node->kind) {
    case MQ_JN_DATA:
        put_out(run, node->value.as.text, node->value.bytes);
        return NEXT;
    case MQ_JN_PRINT:
        print(run, mq__jinja_eval(run, frame, node->a));
        return NEXT;
    case MQ_JN_IF:
        return exec_if(run, frame, node);
    case MQ_JN_FOR: {
        const mq_jvalue source = mq__jinja_eval(run, frame, node->b);
        run->trap.line = node->line;
        return exec_for(run, frame, node, source, 0);
    }
    case MQ_JN_SET: {
        const mq_jvalue value = mq__jinja_eval(run, frame, node->b);
        assign(run, frame, node->a, value);
        return NEXT;
    }
    case MQ_JN_SET_BLOCK:
        return exec_set_block(run, frame, node);
    case MQ_JN_MACRO:
        bind(run, frame, node->name, new_macro(run, frame, node, false));
        return NEXT;
    case MQ_JN_CALL_BLOCK: {
        const mq_jvalue caller = new_macro(run, frame, node->b, true);
        print(run, mq__jinja_call_node(run, frame, node->a, &caller));
        return NEXT;
    }
    case MQ_JN_FILTER_BLOCK:
        return exec_filter_block(run, frame, node);
    case MQ_JN_WITH:
        return exec_with(run, frame, node);
    case MQ_JN_SCOPE:
        return exec_body(run, new_frame(run, frame), &node->body);
    default:
        return node->kind == MQ_JN_BREAK ? BREAK : CONTINUE;
    }
}

static flow exec_body(mq_jrun *run, mq_jframe *frame, const mq_jnodes *body)
{
    flow how = NEXT;
    mq__jinja_enter(run);
    for (uint32_t i = 0; i < body->count && how == NEXT; i++) {
        run->trap.line = body->at[i]->line;
        how = exec_node(run, frame, body->at[i]);
    }
    mq__jinja_leave(run);
    return how;
}

void mq__jinja_exec(mq_jrun *run, const mq_jnodes *body)
{
    exec_body(run, NULL, body);
}
