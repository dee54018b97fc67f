/* Filters over single values, and the table of all filters. */
#include "jinja/jinja_filters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int64_t integer_or(mq_jrun *run, mq_jvalue given, int64_t fallback, const char *what)
{
    return given.type == MQ_J_MISSING ? fallback : mq__jvalue_integer(run, given, what);
}

/* ---------------------------------------------------------------- text */

static mq_jvalue filter_upper(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "upper", args, 0, 0);
    return mq__jvalue_case(run, mq__jvalue_soft_str(run, self), MQ_J_UPPER);
}

static mq_jvalue filter_lower(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "lower", args, 0, 0);
    return mq__jvalue_case(run, mq__jvalue_soft_str(run, self), MQ_J_LOWER);
}

static bool ends_word(uint32_t point)
{
    return mq__point_is_space(point) || (point && point < 0x80 && strchr("-({[<", (int)point));
}

/* Unlike str.title, a word starts after white space, a hyphen or an opening bracket only. */
static mq_jvalue filter_title(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "title", args, 0, 0);
    const mq_jvalue value = mq__jvalue_soft_str(run, self);
    mq_jtext text = {0};
    for (size_t i = 0; i < value.bytes;) {
        uint32_t upper[3];
        const uint32_t first = mq__utf8_next(value.as.text, value.bytes, &i);
        const size_t n = mq__point_case(first, MQ_J_UPPER, upper), start = i;
        for (size_t k = 0; k < n; k++) {
            mq__jtext_put_point(run, &text, upper[k]);
        }
        if (ends_word(first)) continue;
        for (size_t next = i; next < value.bytes; i = next) {
            if (ends_word(mq__utf8_next(value.as.text, value.bytes, &next))) break;
        }
        const mq_jvalue rest = mq__jvalue_case(run, mq__jvalue_text(value.as.text + start, i - start), MQ_J_LOWER);
        mq__jtext_put(run, &text, rest.as.text, rest.bytes);
    }
    return mq__jtext_take(&text);
}

static mq_jvalue filter_capitalize(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    const mq_jvalue text = mq__jvalue_soft_str(run, self);
    const mq_jmethod *const method = mq__jmethod_of(mq__jmethod_find(mq__jvalue_literal("capitalize")), text);
    return method->call(run, text, args);
}

static mq_jvalue filter_center(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"width"};
    mq_jvalue width;
    mq__jargs_bind(run, "center", args, names, 1, &width);
    const mq_jvalue text = mq__jvalue_soft_str(run, self);
    if (width.type == MQ_J_MISSING) width = mq__jvalue_int(80);
    const mq_jargs inner = {.values = &width, .count = 1};
    return mq__jmethod_of(mq__jmethod_find(mq__jvalue_literal("center")), text)->call(run, text, &inner);
}

static mq_jvalue filter_trim(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"chars"};
    mq_jvalue chars;
    mq__jargs_bind(run, "trim", args, names, 1, &chars);
    return mq__jvalue_strip(run, mq__jvalue_soft_str(run, self), chars, true, true);
}

static mq_jvalue filter_replace(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"old", "new", "count"};
    mq_jvalue given[3];
    mq__jargs_bind(run, "replace", args, names, 3, given);
    if (given[0].type == MQ_J_MISSING || given[1].type == MQ_J_MISSING) {
        mq__jrun_throw(run, MQ_TEMPLATE, "replace: expected old and new text");
    }
    if (given[2].type == MQ_J_NONE) given[2].type = MQ_J_MISSING;
    return mq__jvalue_replace(run, mq__jvalue_str(run, self), mq__jvalue_str(run, given[0]),
                              mq__jvalue_str(run, given[1]), integer_or(run, given[2], -1, "replace"));
}

static mq_jvalue filter_string(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "string", args, 0, 0);
    return mq__jvalue_soft_str(run, self);
}

static mq_jvalue filter_safe(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "safe", args, 0, 0);
    mq_jvalue text = mq__jvalue_str(run, self);
    text.flags = MQ_J_MARKUP;
    return text;
}

static mq_jvalue filter_escape(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "escape", args, 0, 0);
    return mq__jvalue_escape(run, self);
}

static mq_jvalue filter_forceescape(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "forceescape", args, 0, 0);
    return mq__jvalue_escape(run, mq__jvalue_str(run, self));
}

static mq_jvalue filter_indent(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"width", "first", "blank"};
    mq_jvalue given[3];
    mq__jargs_bind(run, "indent", args, names, 3, given);
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (self.type != MQ_J_STRING)
        mq__jrun_throw(run, MQ_TEMPLATE, "indent: expected a string, got %s", mq__jvalue_type_name(self));
    mq_jvalue margin = given[0];
    if (margin.type != MQ_J_STRING) {
        const int64_t width = integer_or(run, given[0], 4, "indent");
        mq_jtext spaces = {0};
        mq__jtext_fill(run, &spaces, ' ', width > 0 ? (size_t)width : 0);
        margin = mq__jtext_take(&spaces);
    }
    const bool blank = mq__jvalue_truth(given[2]);
    const mq_jlist *const lines =
        mq__jvalue_split_lines(run, mq__jvalue_join(run, self, mq__jvalue_literal("\n")), false);
    mq_jtext text = {0};
    for (size_t i = 0; i < lines->count; i++) {
        const mq_jvalue line = lines->items[i];
        if (i) mq__jtext_putc(run, &text, '\n');
        if (i ? blank || line.bytes : mq__jvalue_truth(given[1]))
            mq__jtext_put(run, &text, margin.as.text, margin.bytes);
        mq__jtext_put(run, &text, line.as.text, line.bytes);
    }
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = self.flags;
    return result;
}

static mq_jvalue filter_truncate(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"length", "killwords", "end", "leeway"};
    mq_jvalue given[4];
    mq__jargs_bind(run, "truncate", args, names, 4, given);
    if (given[2].type != MQ_J_MISSING && given[2].type != MQ_J_STRING)
        mq__jrun_throw(run, MQ_TEMPLATE, "truncate: expected a string as end");
    const mq_jvalue end = given[2].type == MQ_J_STRING ? given[2] : mq__jvalue_literal("...");
    if (given[3].type == MQ_J_NONE) given[3].type = MQ_J_MISSING;
    const int64_t length = integer_or(run, given[0], 255, "truncate"),
                  leeway = integer_or(run, given[3], 5, "truncate");
    const int64_t end_length = (int64_t)mq__jtext_count(end.as.text, end.bytes);
    if (length < end_length || leeway < 0)
        mq__jrun_throw(run, MQ_TEMPLATE, "truncate: expected a length of at least that of the end");
    if (self.type == MQ_J_STRING) mq__jrun_charge_bytes(run, self.bytes);
    size_t points;
    if (mq__jvalue_length(self, &points) && (int64_t)points - leeway <= length) return self;
    if (self.type != MQ_J_STRING) {
        mq__jrun_throw(run, MQ_TEMPLATE, "truncate: expected a string, got %s", mq__jvalue_type_name(self));
    }
    size_t bytes = mq__jtext_offset(self.as.text, self.bytes, (size_t)(length - end_length));
    if (!mq__jvalue_truth(given[1])) {
        const char *const space = memrchr(self.as.text, ' ', bytes);
        if (space) bytes = (size_t)(space - self.as.text);
    }
    mq_jvalue head = mq__jvalue_text(self.as.text, bytes);
    head.flags = self.flags;
    return mq__jvalue_join(run, head, end);
}

static mq_jvalue filter_wordcount(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "wordcount", args, 0, 0);
    const mq_jvalue text = mq__jvalue_soft_str(run, self);
    mq__jrun_charge_points(run, text.bytes);
    int64_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < text.bytes;) {
        const bool word = mq__point_is_word(mq__utf8_next(text.as.text, text.bytes, &i));
        words += word && !inside;
        inside = word;
    }
    return mq__jvalue_int(words);
}

static mq_jvalue filter_format(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    if (args->count && args->named_count)
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected positional or named arguments, got both");
    mq_jvalue values;
    if (args->named_count) {
        mq_jdict *const dict = mq__jdict_new(run, args->named_count);
        for (size_t i = 0; i < args->named_count; i++) {
            mq__jdict_put(run, dict, args->names[i], args->named[i]);
        }
        values = mq__jvalue_dict(dict);
    } else {
        mq_jlist *const tuple = mq__jlist_new(run, MQ_J_TUPLE, args->count);
        for (size_t i = 0; i < args->count; i++) {
            mq__jlist_push(run, tuple, args->values[i]);
        }
        values = mq__jvalue_list(tuple);
    }
    return mq__jinja_format_percent(run, mq__jvalue_soft_str(run, self), values);
}

/* ---------------------------------------------------------------- numbers */

static mq_jvalue truncate_real(mq_jrun *run, double value)
{
    if (!isfinite(value)) mq__jrun_throw(run, MQ_TEMPLATE, "int: expected a finite number");
    if (value >= 0x1p63 || value < -0x1p63) return mq__jbig_from_real(run, value);
    return mq__jvalue_int((int64_t)value);
}

static mq_jvalue filter_int(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"default", "base"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "int", args, names, 2, given);
    const mq_jvalue fallback = given[0].type == MQ_J_MISSING ? mq__jvalue_int(0) : given[0];
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (self.type == MQ_J_BIG) return self;
    if (self.type == MQ_J_INT || self.type == MQ_J_BOOL) return mq__jvalue_int(mq__jvalue_integer(run, self, "int"));
    double real = 0;
    if (self.type == MQ_J_FLOAT) {
        if (isnan(self.as.real)) return fallback;
        return truncate_real(run, self.as.real);
    }
    if (self.type != MQ_J_STRING) return fallback;
    int64_t value = 0;
    bool overflow = false;
    const int64_t base = integer_or(run, given[1], 10, "int");
    if ((base == 0 || (base >= 2 && base <= 36)) &&
        mq__jint_parse(self.as.text, self.bytes, (int)base, &value, &overflow)) {
        return mq__jvalue_int(value);
    }
    if (overflow && base == 10 && mq__jbig_is_text(self.as.text, self.bytes))
        return mq__jvalue_big(self.as.text, self.bytes);
    if (overflow) mq__jrun_throw(run, MQ_LIMIT, "int: expected an integer of 64 bits, got a larger one");
    if (!mq__jreal_parse(self.as.text, self.bytes, &real) || isnan(real)) return fallback;
    return truncate_real(run, real);
}

static mq_jvalue filter_float(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"default"};
    mq_jvalue fallback;
    mq__jargs_bind(run, "float", args, names, 1, &fallback);
    if (fallback.type == MQ_J_MISSING) fallback = mq__jvalue_real(0);
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (mq__jvalue_is_number(self)) return mq__jinja_binary(run, MQ_J_MUL, mq__jvalue_real(1), self);
    double value = 0;
    if (self.type != MQ_J_STRING || !mq__jreal_parse(self.as.text, self.bytes, &value)) return fallback;
    return mq__jvalue_real(value);
}

static mq_jvalue filter_abs(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "abs", args, 0, 0);
    if (self.type == MQ_J_FLOAT) return mq__jvalue_real(fabs(self.as.real));
    if (self.type == MQ_J_BIG) return self.as.text[0] == '-' ? mq__jbig_negate(run, self) : self;
    const int64_t value = mq__jvalue_integer(run, self, "abs");
    return value < 0 ? mq__jinja_unary(run, MQ_J_NEG, mq__jvalue_int(value)) : mq__jvalue_int(value);
}

/* Python's round: to even, by the exact decimal value, which printf knows. */
static mq_jvalue round_half_even(mq_jrun *run, mq_jvalue value, int64_t precision)
{
    if (precision < 0) {
        if (precision < -18)
            return value.type == MQ_J_FLOAT ? mq__jvalue_real(copysign(0, value.as.real)) : mq__jvalue_int(0);
        int64_t unit = 1;
        for (int64_t i = 0; i > precision; i--) {
            unit *= 10;
        }
        if (value.type == MQ_J_FLOAT) return mq__jvalue_real(rint(value.as.real / (double)unit) * (double)unit);
        const int64_t whole = mq__jvalue_integer(run, value, "round");
        const int64_t rest = whole % unit, down = whole - rest;
        const int64_t twice = (rest < 0 ? -rest : rest) - (unit - (rest < 0 ? -rest : rest));
        const bool away = twice > 0 || (twice == 0 && (down / unit) % 2 != 0);
        if (!away) return mq__jvalue_int(down);
        return mq__jinja_binary(run, MQ_J_ADD, mq__jvalue_int(down), mq__jvalue_int(rest < 0 ? -unit : unit));
    }
    if (value.type != MQ_J_FLOAT) return mq__jvalue_int(mq__jvalue_integer(run, value, "round"));
    if (!isfinite(value.as.real) || precision > 320) return value;
    char text[700];
    snprintf(text, sizeof text, "%.*f", (int)precision, value.as.real);
    return mq__jvalue_real(strtod(text, NULL));
}

static mq_jvalue filter_round(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"precision", "method"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "round", args, names, 2, given);
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (!mq__jvalue_is_number(self))
        mq__jrun_throw(run, MQ_TEMPLATE, "round: expected a number, got %s", mq__jvalue_type_name(self));
    const int64_t precision = integer_or(run, given[0], 0, "round");
    if (given[1].type == MQ_J_MISSING || mq__jvalue_is_text(given[1], "common"))
        return round_half_even(run, self, precision);
    const bool up = mq__jvalue_is_text(given[1], "ceil");
    if (!up && !mq__jvalue_is_text(given[1], "floor"))
        mq__jrun_throw(run, MQ_TEMPLATE, "round: expected the method common, ceil or floor");
    const mq_jvalue unit = mq__jinja_binary(run, MQ_J_POW, mq__jvalue_int(10), mq__jvalue_int(precision));
    const double scaled = mq__jvalue_number(mq__jinja_binary(run, MQ_J_MUL, self, unit));
    if (!isfinite(scaled)) mq__jrun_throw(run, MQ_TEMPLATE, "round: expected a finite number");
    return mq__jvalue_real((up ? ceil(scaled) : floor(scaled)) / mq__jvalue_number(unit));
}

/* ---------------------------------------------------------------- any value */

static mq_jvalue filter_default(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    static const char *const names[] = {"default_value", "boolean"};
    mq_jvalue given[2];
    mq__jargs_bind(run, "default", args, names, 2, given);
    const bool replace = self.type == MQ_J_UNDEFINED || (mq__jvalue_truth(given[1]) && !mq__jvalue_truth(self));
    if (!replace) return self;
    return given[0].type == MQ_J_MISSING ? mq__jvalue_text("", 0) : given[0];
}

static mq_jvalue filter_attr(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq_jvalue out;
    mq__jargs_positional(run, "attr", args, 1, 1);
    const mq_jvalue name = args->values[0];
    if (name.type != MQ_J_STRING)
        mq__jrun_throw(run, MQ_TEMPLATE, "attr: expected a name, got %s", mq__jvalue_type_name(name));
    if (self.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, self);
    if (mq__jinja_own_attribute(run, self, name, mq__jmethod_find(name), &out)) return out;
    return mq__jvalue_undefined((uint8_t)(MQ_J_HINT_ATTRIBUTE + self.type), name.as.text, name.bytes);
}

const mq_jfilter *mq__jfilter_find(mq_jvalue name)
{
    static const mq_jfilter filters[] = {
        {"abs", filter_abs},
        {"attr", filter_attr},
        {"batch", mq__jfilter_batch},
        {"capitalize", filter_capitalize},
        {"center", filter_center},
        {"count", mq__jfilter_length},
        {"d", filter_default},
        {"default", filter_default},
        {"dictsort", mq__jfilter_dictsort},
        {"e", filter_escape},
        {"escape", filter_escape},
        {"first", mq__jfilter_first},
        {"float", filter_float},
        {"forceescape", filter_forceescape},
        {"format", filter_format},
        {"groupby", mq__jfilter_groupby},
        {"indent", filter_indent},
        {"int", filter_int},
        {"items", mq__jfilter_items},
        {"join", mq__jfilter_join},
        {"last", mq__jfilter_last},
        {"length", mq__jfilter_length},
        {"list", mq__jfilter_list},
        {"lower", filter_lower},
        {"map", mq__jfilter_map},
        {"max", mq__jfilter_max},
        {"min", mq__jfilter_min},
        {"reject", mq__jfilter_reject},
        {"rejectattr", mq__jfilter_rejectattr},
        {"replace", filter_replace},
        {"reverse", mq__jfilter_reverse},
        {"round", filter_round},
        {"safe", filter_safe},
        {"select", mq__jfilter_select},
        {"selectattr", mq__jfilter_selectattr},
        {"slice", mq__jfilter_slice},
        {"sort", mq__jfilter_sort},
        {"string", filter_string},
        {"sum", mq__jfilter_sum},
        {"title", filter_title},
        {"tojson", mq__jinja_tojson},
        {"trim", filter_trim},
        {"truncate", filter_truncate},
        {"unique", mq__jfilter_unique},
        {"upper", filter_upper},
        {"wordcount", filter_wordcount},
    };
    for (size_t i = 0; i < sizeof filters / sizeof filters[0]; i++) {
        if (mq__jvalue_is_text(name, filters[i].name)) return &filters[i];
    }
    return NULL;
}
