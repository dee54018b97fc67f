/* What a template can reach without its variables: the loop object, and the functions of Jinja and of chat templates. */
#include "jinja/jinja_run.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define RANGE_ITEMS 100000 /* as Jinja's sandbox */

/* ---------------------------------------------------------------- loop */

static bool look_ahead(mq_jrun *run, mq_jloop *loop)
{
    if (loop->after.type != MQ_J_MISSING) return true;
    if (loop->exhausted) return false;
    mq_jvalue item;
    if (mq__jloop_pull(run, loop, &item)) {
        loop->after = item;
    } else {
        loop->exhausted = true;
    }
    return !loop->exhausted;
}

int64_t mq__jloop_length(mq_jrun *run, mq_jloop *loop)
{
    if (loop->length >= 0) return loop->length;
    size_t length = 0;
    if (!loop->node->c && mq__jvalue_length(loop->iter.source, &length)) {
        loop->length = (int64_t)length;
        return loop->length;
    }
    /* Nobody knows the length of a filtered loop or a generator: the rest of it is read ahead. */
    mq_jlist *const rest = mq__jlist_new(run, MQ_J_PLAIN, 0);
    mq_jvalue item;
    while (!loop->exhausted && mq__jloop_pull(run, loop, &item)) {
        mq__jlist_push(run, rest, item);
    }
    loop->length = loop->index0 + 1 + (loop->after.type != MQ_J_MISSING) + (int64_t)rest->count;
    (void)mq__jiter_open(&loop->iter, mq__jvalue_list(rest));
    loop->rest_is_filtered = true;
    return loop->length;
}

bool mq__jloop_attribute(mq_jrun *run, mq_jloop *loop, mq_jvalue name, mq_jvalue *out)
{
    static const char *const names[] = {"index",     "index0", "first",  "last",     "length",  "revindex",
                                        "revindex0", "depth",  "depth0", "previtem", "nextitem"};
    size_t which = 0;
    while (which < sizeof names / sizeof names[0] && !mq__jvalue_is_text(name, names[which])) {
        which++;
    }
    const int64_t i = loop->index0;
    switch (which) {
    case 0:
    case 1:
        *out = mq__jvalue_int(which == 0 ? i + 1 : i);
        return true;
    case 2:
        *out = mq__jvalue_bool(i == 0);
        return true;
    case 3:
        *out = mq__jvalue_bool(!look_ahead(run, loop));
        return true;
    case 4:
        *out = mq__jvalue_int(mq__jloop_length(run, loop));
        return true;
    case 5:
    case 6:
        *out = mq__jvalue_int(mq__jloop_length(run, loop) - i - (which == 6));
        return true;
    case 7:
    case 8:
        *out = mq__jvalue_int(loop->depth0 + (which == 7));
        return true;
    case 9:
        *out = i == 0 ? mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "there is no previous item", 25) : loop->before;
        return true;
    case 10:
        *out =
            look_ahead(run, loop) ? loop->after : mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "there is no next item", 21);
        return true;
    default:
        return false;
    }
}

/* Attributes that are not methods. */
bool mq__jinja_builtin_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, mq_jvalue *out)
{
    if (object.type == MQ_J_LOOP) return mq__jloop_attribute(run, object.as.loop, name, out);
    if (object.type == MQ_J_CYCLER && mq__jvalue_is_text(name, "current")) {
        *out = object.as.cycler->items[object.as.cycler->position];
        return true;
    }
    if (object.type == MQ_J_LIST && object.as.list->group) {
        const bool grouper = mq__jvalue_is_text(name, "grouper");
        *out = object.as.list->items[!grouper];
        return grouper || mq__jvalue_is_text(name, "list");
    }
    if (object.type == MQ_J_MACRO && mq__jvalue_is_text(name, "name") && !object.as.macro->caller) {
        *out = run->program->names[object.as.macro->node->name];
        return true;
    }
    return false;
}

/* ---------------------------------------------------------------- functions */

static mq_jvalue call_range(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)self;
    mq__jargs_positional(run, "range", args, 1, 3);
    int64_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < args->count; i++) {
        bounds[args->count == 1 ? 1 : i] = mq__jvalue_integer(run, args->values[i], "range");
    }
    const int64_t start = bounds[0], stop = bounds[1], step = bounds[2];
    if (step == 0) mq__jrun_throw(run, MQ_TEMPLATE, "range: expected a step other than zero");
    uint64_t count = 0;
    if (step > 0 ? start < stop : start > stop) {
        const uint64_t span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop;
        const uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
        count = (span - 1) / stride + 1;
    }
    if (count > RANGE_ITEMS) {
        mq__jrun_throw(run, MQ_LIMIT, "range: expected at most %d items, got %llu", RANGE_ITEMS,
                       (unsigned long long)count);
    }
    mq_jlist *const range = mq__jlist_new(run, MQ_J_RANGE, 0);
    range->start = start;
    range->stop = stop;
    range->step = step;
    range->count = (size_t)count;
    return mq__jvalue_list(range);
}

/* dict(mapping or pairs, name=value, ...) */
static mq_jdict *make_dict(mq_jrun *run, const char *what, const mq_jargs *args)
{
    if (args->count > 1)
        mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected at most 1 argument, got %zu", what, args->count);
    mq_jdict *const dict = mq__jdict_new(run, args->named_count);
    if (args->count == 1 && args->values[0].type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, args->values[0]);
    if (args->count == 1 && args->values[0].type == MQ_J_DICT) {
        const mq_jdict *const from = args->values[0].as.dict;
        for (size_t i = 0; i < from->count; i++) {
            mq__jrun_charge(run, 1);
            mq__jdict_put(run, dict, from->entries[i].key, from->entries[i].value);
        }
    } else if (args->count == 1) {
        mq_jiter iter, pair;
        mq_jvalue item, key, value, more;
        mq__jiter_need(run, &iter, args->values[0]);
        while (mq__jiter_next(run, &iter, &item)) {
            mq__jiter_need(run, &pair, item);
            if (!mq__jiter_next(run, &pair, &key) || !mq__jiter_next(run, &pair, &value) ||
                mq__jiter_next(run, &pair, &more)) {
                mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected pairs of a key and a value", what);
            }
            mq__jdict_put(run, dict, key, value);
        }
    }
    for (size_t i = 0; i < args->named_count; i++) {
        mq__jdict_put(run, dict, args->names[i], args->named[i]);
    }
    return dict;
}

static mq_jvalue call_dict(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)self;
    return mq__jvalue_dict(make_dict(run, "dict", args));
}

static mq_jvalue call_namespace(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)self;
    return (mq_jvalue){.type = MQ_J_NAMESPACE, .as.dict = make_dict(run, "namespace", args)};
}

static mq_jvalue make_cycler(mq_jrun *run, mq_jtype type, const mq_jvalue *items, size_t count)
{
    mq_jcycler *const cycler = mq__jrun_alloc(run, 1, sizeof *cycler);
    mq_jvalue *const copy = mq__jrun_alloc(run, count, sizeof *copy);
    memcpy(copy, items, count * sizeof *copy);
    *cycler = (mq_jcycler){copy, count, 0};
    return (mq_jvalue){.type = (uint8_t)type, .as.cycler = cycler};
}

static mq_jvalue call_cycler(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)self;
    mq__jargs_positional(run, "cycler", args, 1, SIZE_MAX);
    return make_cycler(run, MQ_J_CYCLER, args->values, args->count);
}

static mq_jvalue call_joiner(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"sep"};
    mq_jvalue separator;
    (void)self;
    mq__jargs_bind(run, "joiner", args, names, 1, &separator);
    if (separator.type == MQ_J_MISSING) separator = mq__jvalue_literal(", ");
    return make_cycler(run, MQ_J_JOINER, &separator, 1);
}

static mq_jvalue call_raise_exception(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"message"};
    mq_jvalue message;
    (void)self;
    mq__jargs_bind(run, "raise_exception", args, names, 1, &message);
    const mq_jvalue text = mq__jvalue_str(run, message);
    mq__jrun_throw(run, MQ_TEMPLATE, "%.*s", text.bytes < 350 ? (int)text.bytes : 350, text.as.text);
}

static mq_jvalue call_strftime_now(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"format"};
    mq_jvalue format;
    (void)self;
    mq__jargs_bind(run, "strftime_now", args, names, 1, &format);
    if (format.type != MQ_J_STRING || memchr(format.as.text, '\0', format.bytes)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "strftime_now: expected a string, got %s", mq__jvalue_type_name(format));
    }
    struct timespec clock = {0};
    struct tm local = {0};
    if (run->now) {
        local = *run->now;
    } else {
        (void)clock_gettime(CLOCK_REALTIME, &clock);
        (void)localtime_r(&clock.tv_sec, &local);
    }
    /* %f is Python's: microseconds. A time without a zone prints nothing for %z and %Z. */
    mq_jtext text = {0};
    char buffer[256], piece[3] = "%?";
    for (size_t i = 0; i < format.bytes; i++) {
        const char c = format.as.text[i];
        if (c != '%' || i + 1 == format.bytes) {
            mq__jtext_putc(run, &text, c);
            continue;
        }
        piece[1] = format.as.text[++i];
        if (piece[1] == 'f') {
            snprintf(buffer, sizeof buffer, "%06ld", clock.tv_nsec / 1000);
            mq__jtext_puts(run, &text, buffer);
        } else if (piece[1] == '-' && i + 1 < format.bytes) { /* glibc: no padding */
            const char unpadded[4] = {'%', '-', format.as.text[++i], '\0'};
            mq__jtext_put(run, &text, buffer, strftime(buffer, sizeof buffer, unpadded, &local));
        } else if (piece[1] != 'z' && piece[1] != 'Z') {
            mq__jtext_put(run, &text, buffer, strftime(buffer, sizeof buffer, piece, &local));
        }
    }
    return mq__jtext_take(&text);
}

const mq_jfunction *mq__jfunction_find(mq_jvalue name)
{
    static const mq_jfunction functions[] = {
        {"range", call_range},
        {"dict", call_dict},
        {"namespace", call_namespace},
        {"cycler", call_cycler},
        {"joiner", call_joiner},
        {"raise_exception", call_raise_exception},
        {"strftime_now", call_strftime_now},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (mq__jvalue_is_text(name, functions[i].name)) return &functions[i];
    }
    return NULL;
}
