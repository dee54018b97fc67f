/* Filters over sequences. What is a generator in Jinja is one here too: it has no length and is read once. */
#include "jinja/jinja_filters.h"

#include <string.h>

/* ---------------------------------------------------------------- attributes by path */

static mq_jvalue path_part(mq_jvalue part)
{
    int64_t number = 0;
    bool digits = part.bytes > 0, overflow;
    for (size_t i = 0; i < part.bytes; i++) {
        digits = digits && part.as.text[i] >= '0' && part.as.text[i] <= '9';
    }
    if (!digits || !mq__jint_parse(part.as.text, part.bytes, 10, &number, &overflow)) return part;
    return mq__jvalue_int(number);
}

/* item.a.b.0 for the path "a.b.0"; numbers are subscripts. */
static mq_jvalue get_path(mq_jrun *run, mq_jvalue item, mq_jvalue path, mq_jvalue fallback)
{
    if (path.type == MQ_J_MISSING || path.type == MQ_J_NONE) return item;
    const bool text = path.type == MQ_J_STRING;
    for (size_t at = 0; !text || at <= path.bytes;) {
        mq_jvalue key = path;
        if (text) {
            const char *const start = path.as.text + at;
            const char *const dot = memchr(start, '.', path.bytes - at);
            const size_t bytes = dot ? (size_t)(dot - start) : path.bytes - at;
            key = path_part(mq__jvalue_text(start, bytes));
            at += bytes + 1;
        }
        item = mq__jinja_get_item(run, item, key);
        if (item.type == MQ_J_UNDEFINED && fallback.type != MQ_J_MISSING && fallback.type != MQ_J_NONE) item = fallback;
        if (!text) break;
    }
    return item;
}

mq_jvalue mq__jvalue_fold(mq_jrun *run, mq_jvalue value)
{
    return value.type == MQ_J_STRING ? mq__jvalue_case(run, value, MQ_J_LOWER) : value;
}

/* The sort key of an item for the path "a,b.c": a list of one value a comma-separated part. */
static mq_jvalue sort_key(mq_jrun *run, mq_jvalue item, mq_jvalue path, bool fold)
{
    mq_jlist *const key = mq__jlist_new(run, MQ_J_PLAIN, 1);
    for (size_t at = 0;;) {
        mq_jvalue part = path;
        if (path.type == MQ_J_STRING) {
            const char *const start = path.as.text + at;
            const char *const comma = memchr(start, ',', path.bytes - at);
            part = mq__jvalue_text(start, comma ? (size_t)(comma - start) : path.bytes - at);
            at += (size_t)part.bytes + 1;
        }
        const mq_jvalue value = get_path(run, item, part, (mq_jvalue){0});
        mq__jlist_push(run, key, fold ? mq__jvalue_fold(run, value) : value);
        if (path.type != MQ_J_STRING || at > path.bytes) return mq__jvalue_list(key);
    }
}

/* ---------------------------------------------------------------- sorting */

/* Merges [low, middle) and [middle, high); equal keys keep their order, downwards as well. */
static void merge_jinja_filters_list(mq_jrun *run, mq_jvalue *const from[2], mq_jvalue *const to[2],
                                     const size_t bounds[3], bool reverse)
{
    size_t a = bounds[0], b = bounds[1];
    for (size_t i = bounds[0]; i < bounds[2]; i++) {
        bool right = a == bounds[1];
        if (!right && b < bounds[2]) {
            const int order = mq__jvalue_compare(run, from[1][b], from[1][a], "<");
            right = order != 2 && (reverse ? order > 0 : order < 0);
        }
        const size_t source = right ? b++ : a++;
        to[0][i] = from[0][source];
        to[1][i] = from[1][source];
    }
}

void mq__jlist_sort(mq_jrun *run, mq_jvalue *items, mq_jvalue *keys, size_t count, bool reverse)
{
    mq_jvalue *from[2] = {items, keys};
    mq_jvalue *to[2] = {mq__jrun_alloc(run, count, sizeof *items), mq__jrun_alloc(run, count, sizeof *keys)};
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t low = 0; low < count; low += 2 * width) {
            const size_t middle = count - low < width ? count : low + width;
            const size_t high = count - middle < width ? count : middle + width;
            merge_jinja_filters_list(run, from, to, (const size_t[3]){low, middle, high}, reverse);
        }
        for (int k = 0; k < 2; k++) {
            mq_jvalue *const swap = from[k];
            from[k] = to[k];
            to[k] = swap;
        }
    }
    if (from[0] == items) return;
    memcpy(items, from[0], count * sizeof *items);
    memcpy(keys, from[1], count * sizeof *keys);
}

mq_jvalue mq__jfilter_sort(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"reverse", "case_sensitive", "attribute"};
    mq_jvalue given[3];
    mq__jargs_bind(run, "sort", args, names, 3, given);
    mq_jlist *const list = mq__jvalue_to_list(run, self, MQ_J_PLAIN);
    mq_jvalue *const keys = mq__jrun_alloc(run, list->count, sizeof *keys);
    for (size_t i = 0; i < list->count; i++) {
        keys[i] = sort_key(run, list->items[i], given[2], !mq__jvalue_truth(given[1]));
    }
    mq__jlist_sort(run, list->items, keys, list->count, mq__jvalue_truth(given[0]));
    return mq__jvalue_list(list);
}

mq_jvalue mq__jfilter_dictsort(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"case_sensitive", "by", "reverse"};
    mq_jvalue given[3];
    mq__jargs_bind(run, "dictsort", args, names, 3, given);
    const bool by_value = given[1].type != MQ_J_MISSING && mq__jvalue_is_text(given[1], "value");
    if (given[1].type != MQ_J_MISSING && !by_value && !mq__jvalue_is_text(given[1], "key")) {
        mq__jrun_throw(run, MQ_TEMPLATE, "dictsort: expected by='key' or by='value'");
    }
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (self.type != MQ_J_DICT)
        mq__jrun_throw(run, MQ_TEMPLATE, "dictsort: expected a dict, got %s", mq__jvalue_type_name(self));
    const mq_jdict *const dict = self.as.dict;
    mq_jlist *const list = mq__jlist_new(run, MQ_J_PLAIN, dict->count);
    mq_jvalue *const keys = mq__jrun_alloc(run, dict->count, sizeof *keys);
    for (size_t i = 0; i < dict->count; i++) {
        const mq_jvalue key = by_value ? dict->entries[i].value : dict->entries[i].key;
        keys[i] = mq__jvalue_truth(given[0]) ? key : mq__jvalue_fold(run, key);
        mq__jlist_push(run, list, mq__jvalue_pair(run, dict->entries[i].key, dict->entries[i].value));
    }
    mq__jlist_sort(run, list->items, keys, list->count, mq__jvalue_truth(given[2]));
    return mq__jvalue_list(list);
}

static mq_jvalue extreme(mq_jrun *run, const char *what, mq_jvalue self, const mq_jargs *args, int sign)
{
    static const char *const names[] = {"case_sensitive", "attribute"};
    mq_jvalue given[2], item, best = {0}, best_key = {0};
    mq_jiter iter;
    mq__jargs_bind(run, what, args, names, 2, given);
    mq__jiter_need(run, &iter, self);
    while (mq__jiter_next(run, &iter, &item)) {
        mq_jvalue key = get_path(run, item, given[1], (mq_jvalue){0});
        if (!mq__jvalue_truth(given[0])) key = mq__jvalue_fold(run, key);
        if (best.type != MQ_J_MISSING) {
            const int order = mq__jvalue_compare(run, key, best_key, sign < 0 ? "<" : ">");
            if (order == 2 || order * sign <= 0) continue;
        }
        best = item;
        best_key = key;
    }
    if (best.type != MQ_J_MISSING) return best;
    return mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "No aggregated item, sequence was empty.", 39);
}

mq_jvalue mq__jfilter_min(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return extreme(run, "min", self, args, -1);
}

mq_jvalue mq__jfilter_max(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return extreme(run, "max", self, args, 1);
}

/* ---------------------------------------------------------------- groups */

mq_jvalue mq__jfilter_groupby(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"attribute", "default", "case_sensitive"};
    mq_jvalue given[3];
    mq__jargs_bind(run, "groupby", args, names, 3, given);
    if (given[0].type == MQ_J_MISSING) mq__jrun_throw(run, MQ_TEMPLATE, "groupby: expected an attribute");
    const bool fold = !mq__jvalue_truth(given[2]);
    mq_jlist *const list = mq__jvalue_to_list(run, self, MQ_J_PLAIN);
    mq_jvalue *const keys = mq__jrun_alloc(run, list->count, sizeof *keys);
    for (size_t i = 0; i < list->count; i++) {
        keys[i] = get_path(run, list->items[i], given[0], given[1]);
        if (fold) keys[i] = mq__jvalue_fold(run, keys[i]);
    }
    mq__jlist_sort(run, list->items, keys, list->count, false);
    mq_jlist *const groups = mq__jlist_new(run, MQ_J_PLAIN, 0);
    for (size_t i = 0; i < list->count;) {
        const size_t first = i;
        mq_jlist *const members = mq__jlist_new(run, MQ_J_PLAIN, 0);
        for (; i < list->count && mq__jvalue_equal(run, keys[i], keys[first]); i++) {
            mq__jlist_push(run, members, list->items[i]);
        }
        if (i == first) mq__jlist_push(run, members, list->items[i++]); /* a key that is not equal to itself */
        const mq_jvalue key = fold ? get_path(run, list->items[first], given[0], given[1]) : keys[first];
        const mq_jvalue group = mq__jvalue_pair(run, key, mq__jvalue_list(members));
        group.as.list->group = true;
        mq__jlist_push(run, groups, group);
    }
    return mq__jvalue_list(groups);
}

mq_jvalue mq__jfilter_unique(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"case_sensitive", "attribute"};
    mq_jvalue given[2], item;
    mq_jiter iter;
    mq__jargs_bind(run, "unique", args, names, 2, given);
    mq__jiter_need(run, &iter, self);
    mq_jdict *const seen = mq__jdict_new(run, 0);
    mq_jlist *const list = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    while (mq__jiter_next(run, &iter, &item)) {
        mq_jvalue key = get_path(run, item, given[1], (mq_jvalue){0});
        if (!mq__jvalue_truth(given[0])) key = mq__jvalue_fold(run, key);
        const size_t before = seen->count;
        mq__jdict_put(run, seen, key, mq__jvalue_none());
        if (seen->count > before) mq__jlist_push(run, list, item);
    }
    return mq__jvalue_list(list);
}

mq_jvalue mq__jfilter_batch(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"linecount", "fill_with"};
    mq_jvalue given[2], item;
    mq_jiter iter;
    mq__jargs_bind(run, "batch", args, names, 2, given);
    const int64_t width = mq__jvalue_integer(run, given[0], "batch");
    mq__jiter_need(run, &iter, self);
    mq_jlist *const lines = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    mq_jlist *line = NULL;
    while (mq__jiter_next(run, &iter, &item)) {
        if (line && (int64_t)line->count == width) line = NULL;
        if (!line) {
            if (width == 0 && lines->count == 0)
                mq__jlist_push(run, lines, mq__jvalue_list(mq__jlist_new(run, MQ_J_PLAIN, 0)));
            line = mq__jlist_new(run, MQ_J_PLAIN, 0);
            mq__jlist_push(run, lines, mq__jvalue_list(line));
        }
        mq__jlist_push(run, line, item);
    }
    const bool fill = given[1].type != MQ_J_MISSING && given[1].type != MQ_J_NONE;
    while (line && fill && (int64_t)line->count < width) {
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, line, given[1]);
    }
    return mq__jvalue_list(lines);
}

/* `slices` columns of nearly equal length; the short ones are filled up. */
mq_jvalue mq__jfilter_slice(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"slices", "fill_with"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "slice", args, names, 2, given);
    const int64_t slices = mq__jvalue_integer(run, given[0], "slice");
    const mq_jlist *const all = mq__jvalue_to_list(run, self, MQ_J_PLAIN);
    if (slices == 0) mq__jrun_throw(run, MQ_TEMPLATE, "slice: expected a number of slices other than zero");
    mq_jlist *const out = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    size_t at = 0;
    for (int64_t i = 0; i < slices; i++) {
        mq__jrun_charge(run, 1);
        const size_t each = all->count / (size_t)slices, longer = all->count % (size_t)slices;
        const size_t take = each + ((size_t)i < longer);
        mq_jlist *const part = mq__jlist_new(run, MQ_J_PLAIN, take + 1);
        for (size_t k = 0; k < take; k++) {
            mq__jlist_push(run, part, all->items[at++]);
        }
        const bool fill = given[1].type != MQ_J_MISSING && given[1].type != MQ_J_NONE;
        if (fill && (size_t)i >= longer) mq__jlist_push(run, part, given[1]);
        mq__jlist_push(run, out, mq__jvalue_list(part));
    }
    return mq__jvalue_list(out);
}

/* ---------------------------------------------------------------- map, select and their kin */

mq_jvalue mq__jfilter_map(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq_jlist *const out = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    mq_jvalue given[2] = {{0}, {0}}, item;
    mq_jargs rest = *args;
    const mq_jfilter *filter = NULL;
    if (!mq__jvalue_truth(self)) return mq__jvalue_list(out);
    if (args->count == 0) {
        static const char *const names[] = {"attribute", "default"};
        mq__jargs_bind(run, "map", args, names, 2, given);
        if (given[0].type == MQ_J_MISSING) mq__jrun_throw(run, MQ_TEMPLATE, "map: expected a filter or attribute=");
    } else {
        const mq_jvalue name = args->values[0];
        filter = name.type == MQ_J_STRING ? mq__jfilter_find(name) : NULL;
        if (!filter) mq__jrun_throw(run, MQ_TEMPLATE, "map: expected the name of a known filter");
        rest.values++;
        rest.count--;
    }
    mq_jiter iter;
    mq__jiter_need(run, &iter, self);
    mq__jinja_enter(run); /* a filter may be map again */
    while (mq__jiter_next(run, &iter, &item)) {
        mq__jlist_push(run, out, filter ? filter->call(run, item, &rest) : get_path(run, item, given[0], given[1]));
    }
    mq__jinja_leave(run);
    return mq__jvalue_list(out);
}

static mq_jvalue filter_items(mq_jrun *run, mq_jvalue self, const mq_jargs *args, bool by_attribute, bool keep)
{
    mq_jlist *const out = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    if (!mq__jvalue_truth(self)) return mq__jvalue_list(out);
    if (args->count < by_attribute) mq__jrun_throw(run, MQ_TEMPLATE, "expected the name of an attribute");
    mq_jargs rest = *args;
    const mq_jvalue path = by_attribute ? args->values[0] : (mq_jvalue){0};
    const mq_jtest *test = NULL;
    rest.values += by_attribute;
    rest.count -= by_attribute;
    if (rest.count > 0) {
        test = rest.values[0].type == MQ_J_STRING ? mq__jtest_find(rest.values[0]) : NULL;
        if (!test) mq__jrun_throw(run, MQ_TEMPLATE, "expected the name of a known test");
        rest.values++;
        rest.count--;
        mq__jargs_positional(run, test->name, &rest, test->arguments, test->arguments);
    }
    mq_jiter iter;
    mq_jvalue item;
    mq__jiter_need(run, &iter, self);
    while (mq__jiter_next(run, &iter, &item)) {
        const mq_jvalue subject = get_path(run, item, path, (mq_jvalue){0});
        const bool passed = test ? test->call(run, subject, &rest) : mq__jvalue_truth(subject);
        if (passed == keep) mq__jlist_push(run, out, item);
    }
    return mq__jvalue_list(out);
}

mq_jvalue mq__jfilter_select(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return filter_items(run, self, args, false, true);
}

mq_jvalue mq__jfilter_reject(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return filter_items(run, self, args, false, false);
}

mq_jvalue mq__jfilter_selectattr(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return filter_items(run, self, args, true, true);
}

mq_jvalue mq__jfilter_rejectattr(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return filter_items(run, self, args, true, false);
}

/* ---------------------------------------------------------------- ends, order, sums */

mq_jvalue mq__jfilter_first(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq_jiter iter;
    mq_jvalue item;
    mq__jargs_positional(run, "first", args, 0, 0);
    mq__jiter_need(run, &iter, self);
    if (mq__jiter_next(run, &iter, &item)) return item;
    return mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "No first item, sequence was empty.", 34);
}

static mq_jlist *reversed(mq_jrun *run, mq_jvalue self, mq_jlist_kind kind)
{
    mq_jlist *const list = mq__jvalue_to_list(run, self, kind);
    for (size_t i = 0, j = list->count; i + 1 < j; i++) {
        j--;
        const mq_jvalue swap = list->items[i];
        list->items[i] = list->items[j];
        list->items[j] = swap;
    }
    return list;
}

static bool is_generator(mq_jvalue value)
{
    return value.type == MQ_J_LIST && value.as.list->kind == MQ_J_GENERATOR;
}

mq_jvalue mq__jfilter_last(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "last", args, 0, 0);
    if (is_generator(self)) mq__jrun_throw(run, MQ_TEMPLATE, "last: expected a sequence, got a generator");
    if (self.type == MQ_J_LIST && self.as.list->count) return mq__jlist_at(self.as.list, self.as.list->count - 1);
    if (self.type == MQ_J_STRING && self.bytes) {
        const size_t start = mq__utf8_before(self.as.text, self.bytes);
        mq_jvalue point = mq__jvalue_text(self.as.text + start, self.bytes - start);
        point.flags = self.flags;
        return point;
    }
    const mq_jlist *const list = mq__jvalue_to_list(run, self, MQ_J_PLAIN);
    if (list->count) return list->items[list->count - 1];
    return mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "No last item, sequence was empty.", 33);
}

mq_jvalue mq__jfilter_reverse(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "reverse", args, 0, 0);
    const mq_jlist *const list = reversed(run, self, is_generator(self) ? MQ_J_PLAIN : MQ_J_GENERATOR);
    if (self.type != MQ_J_STRING) return mq__jvalue_list((mq_jlist *)(uintptr_t)list);
    mq_jtext text = {0};
    for (size_t i = 0; i < list->count; i++) {
        mq__jtext_put(run, &text, list->items[i].as.text, list->items[i].bytes);
    }
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = self.flags;
    return result;
}

mq_jvalue mq__jfilter_list(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "list", args, 0, 0);
    return mq__jvalue_list(mq__jvalue_to_list(run, self, MQ_J_PLAIN));
}

mq_jvalue mq__jfilter_length(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    size_t length = 0;
    mq__jargs_positional(run, "length", args, 0, 0);
    if (self.type == MQ_J_LOOP) return mq__jvalue_int(mq__jloop_length(run, self.as.loop));
    if (self.type == MQ_J_STRING) mq__jrun_charge_bytes(run, self.bytes);
    if (!mq__jvalue_length(self, &length)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "length: expected something with a length, got %s",
                       mq__jvalue_type_name(self));
    }
    return mq__jvalue_int((int64_t)length);
}

mq_jvalue mq__jfilter_items(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "items", args, 0, 0);
    mq_jlist *const list = mq__jlist_new(run, MQ_J_GENERATOR, 0);
    if (self.type == MQ_J_UNDEFINED) return mq__jvalue_list(list);
    if (self.type != MQ_J_DICT)
        mq__jrun_throw(run, MQ_TEMPLATE, "items: expected a dict, got %s", mq__jvalue_type_name(self));
    for (size_t i = 0; i < self.as.dict->count; i++) {
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, list, mq__jvalue_pair(run, self.as.dict->entries[i].key, self.as.dict->entries[i].value));
    }
    return mq__jvalue_list(list);
}

mq_jvalue mq__jfilter_join(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"d", "attribute"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "join", args, names, 2, given);
    const mq_jvalue separator = given[0].type == MQ_J_MISSING ? mq__jvalue_text("", 0) : mq__jvalue_str(run, given[0]);
    mq_jlist *const list = mq__jvalue_to_list(run, self, MQ_J_PLAIN);
    for (size_t i = 0; i < list->count; i++) {
        list->items[i] = mq__jvalue_str(run, get_path(run, list->items[i], given[1], (mq_jvalue){0}));
    }
    return mq__jvalue_join_items(run, separator, mq__jvalue_list(list), true);
}

mq_jvalue mq__jfilter_sum(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"attribute", "start"};
    mq_jvalue given[2], item;
    mq_jiter iter;
    mq__jargs_bind(run, "sum", args, names, 2, given);
    mq_jvalue sum = given[1].type == MQ_J_MISSING ? mq__jvalue_int(0) : given[1];
    if (sum.type == MQ_J_STRING) mq__jrun_throw(run, MQ_TEMPLATE, "sum: expected a start that is not a string");
    mq__jiter_need(run, &iter, self);
    while (mq__jiter_next(run, &iter, &item)) {
        sum = mq__jinja_binary(run, MQ_J_ADD, sum, get_path(run, item, given[0], (mq_jvalue){0}));
    }
    return sum;
}
