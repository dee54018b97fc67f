/* Methods of strings that search, cut and join. */
#include "jinja/jinja_methods.h"

#include <string.h>

static mq_jvalue need_text(mq_jrun *run, mq_jvalue value, const char *what)
{
    if (value.type == MQ_J_STRING) return value;
    if (value.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, value);
    mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected a string, got %s", what, mq__jvalue_type_name(value));
}

static mq_jvalue part(mq_jvalue text, size_t from, size_t to)
{
    mq_jvalue value = mq__jvalue_text(text.as.text + from, to - from);
    value.flags = text.flags;
    return value;
}

/* First or last place of `what` in text[from, to), as a byte offset; false when there is none. */
static bool search(mq_jrun *run, mq_jvalue text, mq_jvalue what, size_t from, size_t to, bool last, size_t *found)
{
    mq__jrun_charge_bytes(run, to - from);
    if (what.bytes > to - from) return false;
    if (!last) {
        if (what.bytes == 0) {
            *found = from;
            return true;
        }
        const char *const hit = memmem(text.as.text + from, to - from, what.as.text, what.bytes);
        *found = hit ? (size_t)(hit - text.as.text) : 0;
        return hit != NULL;
    }
    mq__jrun_charge_points(run, to - from);
    for (size_t at = to - what.bytes;; at--) {
        if (memcmp(text.as.text + at, what.as.text, what.bytes) == 0) {
            *found = at;
            return true;
        }
        if (at == from) return false;
    }
}

/* ---------------------------------------------------------------- stripping */

static bool in_set(mq_jvalue chars, const char *point, size_t bytes)
{
    for (size_t i = 0; i < chars.bytes;) {
        const size_t start = i;
        (void)mq__utf8_next(chars.as.text, chars.bytes, &i);
        if (i - start == bytes && memcmp(chars.as.text + start, point, bytes) == 0) return true;
    }
    return false;
}

mq_jvalue mq__jvalue_strip(mq_jrun *run, mq_jvalue text, mq_jvalue chars, bool left, bool right)
{
    const char *start = text.as.text;
    size_t bytes = text.bytes;
    if (chars.type == MQ_J_MISSING || chars.type == MQ_J_NONE) {
        mq__text_strip(&start, &bytes, left, right);
    } else {
        chars = need_text(run, chars, "strip");
        while (left && bytes > 0) {
            size_t next = 0;
            mq__jrun_charge_points(run, chars.bytes);
            (void)mq__utf8_next(start, bytes, &next);
            if (!in_set(chars, start, next)) break;
            start += next;
            bytes -= next;
        }
        while (right && bytes > 0) {
            const size_t last = mq__utf8_before(start, bytes);
            mq__jrun_charge_points(run, chars.bytes);
            if (!in_set(chars, start + last, bytes - last)) break;
            bytes = last;
        }
    }
    mq__jrun_charge_points(run, text.bytes - bytes);
    mq_jvalue result = mq__jvalue_text(start, bytes);
    result.flags = text.flags;
    return result;
}

mq_jvalue mq__jstring_strip(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "strip", args, 0, 1);
    return mq__jvalue_strip(run, self, mq__jargs_at(args, 0), true, true);
}

mq_jvalue mq__jstring_lstrip(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "lstrip", args, 0, 1);
    return mq__jvalue_strip(run, self, mq__jargs_at(args, 0), true, false);
}

mq_jvalue mq__jstring_rstrip(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "rstrip", args, 0, 1);
    return mq__jvalue_strip(run, self, mq__jargs_at(args, 0), false, true);
}

/* text[from, to) == what at one of its ends; `what` may be a tuple of choices. */
static bool has_end(mq_jrun *run, mq_jvalue text, size_t from, size_t to, mq_jvalue what, bool end, const char *name)
{
    if (what.type == MQ_J_LIST && what.as.list->kind == MQ_J_TUPLE) {
        for (size_t i = 0; i < what.as.list->count; i++) {
            const mq_jvalue choice = need_text(run, what.as.list->items[i], name);
            if (has_end(run, text, from, to, choice, end, name)) return true;
        }
        return false;
    }
    what = need_text(run, what, name);
    if (what.bytes > to - from) return false;
    return memcmp(text.as.text + (end ? to - what.bytes : from), what.as.text, what.bytes) == 0;
}

/* The optional start and end of find, count and startswith, in code points, as a byte range; false: start is past the end. */
static bool window(mq_jrun *run, mq_jvalue text, const mq_jargs *args, size_t first, size_t *from, size_t *to)
{
    *from = 0;
    *to = text.bytes;
    if (args->count <= first) return true;
    const int64_t length = (int64_t)mq__jtext_count(text.as.text, text.bytes);
    mq__jrun_charge(run, text.bytes / 16 + 1);
    int64_t bounds[2] = {0, length};
    for (size_t i = 0; i < 2; i++) {
        const mq_jvalue given = mq__jargs_at(args, first + i);
        if (given.type == MQ_J_MISSING || given.type == MQ_J_NONE) continue;
        const int64_t at = mq__jvalue_integer(run, given, "a position in a string");
        bounds[i] = at >= 0 ? at : at < -length ? 0 : at + length;
    }
    if (bounds[0] > length || bounds[0] > bounds[1]) return false;
    *from = mq__jtext_offset(text.as.text, text.bytes, (size_t)bounds[0]);
    *to = bounds[1] >= length ? text.bytes : mq__jtext_offset(text.as.text, text.bytes, (size_t)bounds[1]);
    return *from <= *to;
}

mq_jvalue mq__jstring_startswith(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    size_t from, to;
    mq__jargs_positional(run, "startswith", args, 1, 3);
    const bool inside = window(run, self, args, 1, &from, &to);
    return mq__jvalue_bool(has_end(run, self, from, to, args->values[0], false, "startswith") && inside);
}

mq_jvalue mq__jstring_endswith(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    size_t from, to;
    mq__jargs_positional(run, "endswith", args, 1, 3);
    const bool inside = window(run, self, args, 1, &from, &to);
    return mq__jvalue_bool(has_end(run, self, from, to, args->values[0], true, "endswith") && inside);
}

mq_jvalue mq__jstring_removeprefix(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "removeprefix", args, 1, 1);
    const mq_jvalue what = need_text(run, args->values[0], "removeprefix");
    return has_end(run, self, 0, self.bytes, what, false, "removeprefix") ? part(self, what.bytes, self.bytes) : self;
}

mq_jvalue mq__jstring_removesuffix(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "removesuffix", args, 1, 1);
    const mq_jvalue what = need_text(run, args->values[0], "removesuffix");
    return has_end(run, self, 0, self.bytes, what, true, "removesuffix") ? part(self, 0, self.bytes - what.bytes)
                                                                         : self;
}

/* ---------------------------------------------------------------- searching */

static mq_jvalue find_jinja_strings(mq_jrun *run, mq_jvalue self, const mq_jargs *args, const char *name, bool last,
                                    bool must)
{
    size_t from, to, at;
    mq__jargs_positional(run, name, args, 1, 3);
    const mq_jvalue what = need_text(run, args->values[0], name);
    if (window(run, self, args, 1, &from, &to) && search(run, self, what, from, to, last, &at)) {
        return mq__jvalue_int((int64_t)mq__jtext_count(self.as.text, at));
    }
    if (must) mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected a part of the string", name);
    return mq__jvalue_int(-1);
}

mq_jvalue mq__jstring_find(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return find_jinja_strings(run, self, args, "find", false, false);
}

mq_jvalue mq__jstring_rfind(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return find_jinja_strings(run, self, args, "rfind", true, false);
}

mq_jvalue mq__jstring_index(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return find_jinja_strings(run, self, args, "index", false, true);
}

mq_jvalue mq__jstring_rindex(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return find_jinja_strings(run, self, args, "rindex", true, true);
}

mq_jvalue mq__jstring_count(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    size_t from, to, at;
    mq__jargs_positional(run, "count", args, 1, 3);
    const mq_jvalue what = need_text(run, args->values[0], "count");
    if (!window(run, self, args, 1, &from, &to)) return mq__jvalue_int(0);
    if (what.bytes == 0) return mq__jvalue_int((int64_t)mq__jtext_count(self.as.text + from, to - from) + 1);
    int64_t count = 0;
    mq__jrun_charge_bytes(run, to - from);
    const char *hit;
    while ((hit = memmem(self.as.text + from, to - from, what.as.text, what.bytes)) != NULL) {
        at = (size_t)(hit - self.as.text);
        from = at + what.bytes;
        count++;
    }
    return mq__jvalue_int(count);
}

mq_jvalue mq__jvalue_replace(mq_jrun *run, mq_jvalue text, mq_jvalue from, mq_jvalue to, int64_t count)
{
    mq_jtext out = {0};
    size_t at = 0;
    mq__jrun_charge_bytes(run, text.bytes);
    for (int64_t done = 0; count < 0 || done < count; done++) {
        size_t hit = at;
        if (from.bytes == 0) { /* before each character and at the end */
            if (done > 0) {
                if (at >= text.bytes) break;
                (void)mq__utf8_next(text.as.text, text.bytes, &hit);
            }
        } else {
            const char *const found = memmem(text.as.text + at, text.bytes - at, from.as.text, from.bytes);
            if (!found) break;
            hit = (size_t)(found - text.as.text);
        }
        mq__jrun_charge(run, 2);
        mq__jtext_put(run, &out, text.as.text + at, hit - at);
        mq__jtext_put(run, &out, to.as.text, to.bytes);
        at = hit + from.bytes;
    }
    if (at == 0 && out.bytes == 0) return text;
    mq__jtext_put(run, &out, text.as.text + at, text.bytes - at);
    mq_jvalue result = mq__jtext_take(&out);
    result.flags = text.flags;
    return result;
}

mq_jvalue mq__jstring_replace(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "replace", args, 2, 3);
    const int64_t count = args->count == 3 ? mq__jvalue_integer(run, args->values[2], "replace") : -1;
    return mq__jvalue_replace(run, self, need_text(run, args->values[0], "replace"),
                              need_text(run, args->values[1], "replace"), count);
}

/* ---------------------------------------------------------------- splitting */

/* Words between white space; after `limit` cuts the rest is one part, with the space at its far end. */
static void split_space(mq_jrun *run, mq_jlist *out, mq_jvalue text, int64_t limit)
{
    size_t at = 0;
    while (at < text.bytes) {
        const char *start = text.as.text + at;
        size_t bytes = text.bytes - at;
        mq__text_strip(&start, &bytes, true, false);
        if (bytes == 0) return;
        at = (size_t)(start - text.as.text);
        size_t end = at;
        while (end < text.bytes) {
            size_t next = end;
            if (mq__point_is_space(mq__utf8_next(text.as.text, text.bytes, &next))) break;
            end = next;
        }
        if (limit >= 0 && (int64_t)out->count == limit) {
            mq__jlist_push(run, out, part(text, at, text.bytes));
            return;
        }
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, out, part(text, at, end));
        at = end;
    }
}

static void split_space_right(mq_jrun *run, mq_jlist *out, mq_jvalue text, int64_t limit)
{
    size_t end = text.bytes;
    for (;;) {
        const char *start = text.as.text;
        size_t bytes = end;
        mq__text_strip(&start, &bytes, false, true);
        if (bytes == 0) return;
        end = bytes;
        size_t from = end;
        while (from > 0) {
            const size_t before = mq__utf8_before(text.as.text, from);
            size_t next = before;
            if (mq__point_is_space(mq__utf8_next(text.as.text, text.bytes, &next))) break;
            from = before;
        }
        if (limit >= 0 && (int64_t)out->count == limit) {
            mq__jlist_push(run, out, part(text, 0, end));
            return;
        }
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, out, part(text, from, end));
        end = from;
    }
}

static void split_text(mq_jrun *run, mq_jlist *out, mq_jvalue text, mq_jvalue separator, int64_t limit)
{
    size_t at = 0;
    while (limit < 0 || (int64_t)out->count < limit) {
        const char *const hit = memmem(text.as.text + at, text.bytes - at, separator.as.text, separator.bytes);
        if (!hit) break;
        const size_t end = (size_t)(hit - text.as.text);
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, out, part(text, at, end));
        at = end + separator.bytes;
    }
    mq__jlist_push(run, out, part(text, at, text.bytes));
}

static void split_text_right(mq_jrun *run, mq_jlist *out, mq_jvalue text, mq_jvalue separator, int64_t limit)
{
    size_t end = text.bytes, at;
    while ((limit < 0 || (int64_t)out->count < limit) && search(run, text, separator, 0, end, true, &at)) {
        mq__jlist_push(run, out, part(text, at + separator.bytes, end));
        end = at;
    }
    mq__jlist_push(run, out, part(text, 0, end));
}

static mq_jvalue split_jinja_strings(mq_jrun *run, mq_jvalue self, const mq_jargs *args, bool right)
{
    static const char *const names[] = {"sep", "maxsplit"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "split", args, names, 2, given);
    const int64_t limit = given[1].type == MQ_J_MISSING ? -1 : mq__jvalue_integer(run, given[1], "split");
    mq_jlist *const out = mq__jlist_new(run, MQ_J_PLAIN, 0);
    mq__jrun_charge_bytes(run, self.bytes);
    if (given[0].type == MQ_J_MISSING || given[0].type == MQ_J_NONE) {
        mq__jrun_charge_points(run, self.bytes);
        (right ? split_space_right : split_space)(run, out, self, limit);
    } else {
        const mq_jvalue separator = need_text(run, given[0], "split");
        if (separator.bytes == 0) mq__jrun_throw(run, MQ_TEMPLATE, "split: expected a separator that is not empty");
        (right ? split_text_right : split_text)(run, out, self, separator, limit);
    }
    for (size_t i = 0, j = out->count; right && i + 1 < j; i++) {
        j--;
        const mq_jvalue swap = out->items[i];
        out->items[i] = out->items[j];
        out->items[j] = swap;
    }
    return mq__jvalue_list(out);
}

mq_jvalue mq__jstring_split(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return split_jinja_strings(run, self, args, false);
}

mq_jvalue mq__jstring_rsplit(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return split_jinja_strings(run, self, args, true);
}

static mq_jvalue partition(mq_jrun *run, mq_jvalue self, const mq_jargs *args, const char *name, bool last)
{
    mq__jargs_positional(run, name, args, 1, 1);
    const mq_jvalue separator = need_text(run, args->values[0], name), empty = part(self, 0, 0);
    size_t at;
    if (separator.bytes == 0) mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected a separator that is not empty", name);
    mq_jlist *const out = mq__jlist_new(run, MQ_J_TUPLE, 3);
    out->count = 3;
    if (search(run, self, separator, 0, self.bytes, last, &at)) {
        out->items[0] = part(self, 0, at);
        out->items[1] = separator;
        out->items[2] = part(self, at + separator.bytes, self.bytes);
    } else {
        out->items[0] = last ? empty : self;
        out->items[1] = empty;
        out->items[2] = last ? self : empty;
    }
    return mq__jvalue_list(out);
}

mq_jvalue mq__jstring_partition(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return partition(run, self, args, "partition", false);
}

mq_jvalue mq__jstring_rpartition(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return partition(run, self, args, "rpartition", true);
}

static bool is_line_end(uint32_t point)
{
    return (point >= 0x0a && point <= 0x0d) || (point >= 0x1c && point <= 0x1e) || point == 0x85 || point == 0x2028 ||
           point == 0x2029;
}

mq_jlist *mq__jvalue_split_lines(mq_jrun *run, mq_jvalue text, bool keep_ends)
{
    mq_jlist *const out = mq__jlist_new(run, MQ_J_PLAIN, 0);
    size_t start = 0;
    mq__jrun_charge_points(run, text.bytes);
    for (size_t at = 0; at < text.bytes;) {
        const size_t end = at;
        const uint32_t point = mq__utf8_next(text.as.text, text.bytes, &at);
        if (!is_line_end(point)) continue;
        if (point == '\r' && at < text.bytes && text.as.text[at] == '\n') at++;
        mq__jrun_charge(run, 1);
        mq__jlist_push(run, out, part(text, start, keep_ends ? at : end));
        start = at;
    }
    if (start < text.bytes) mq__jlist_push(run, out, part(text, start, text.bytes));
    return out;
}

mq_jvalue mq__jstring_splitlines(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"keepends"};
    mq_jvalue keep;
    mq__jargs_bind(run, "splitlines", args, names, 1, &keep);
    return mq__jvalue_list(mq__jvalue_split_lines(run, self, mq__jvalue_truth(keep)));
}

/* ---------------------------------------------------------------- joining */

mq_jvalue mq__jvalue_join_items(mq_jrun *run, mq_jvalue separator, mq_jvalue items, bool only_strings)
{
    mq_jtext text = {0};
    mq_jiter iter;
    mq_jvalue item;
    bool first = true;
    mq__jiter_need(run, &iter, items);
    while (mq__jiter_next(run, &iter, &item)) {
        if (!first) mq__jtext_put(run, &text, separator.as.text, separator.bytes);
        first = false;
        if (!only_strings) item = need_text(run, item, "join");
        if (separator.flags & MQ_J_MARKUP) item = mq__jvalue_escape(run, item);
        mq__jtext_put(run, &text, item.as.text, item.bytes);
    }
    mq__jrun_charge_bytes(run, text.bytes);
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = separator.flags;
    return result;
}

mq_jvalue mq__jstring_join(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "join", args, 1, 1);
    return mq__jvalue_join_items(run, self, args->values[0], false);
}
