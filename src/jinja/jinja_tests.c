/* What can stand after `is`. */
#include "jinja/jinja_run.h"

#include <string.h>

static bool is_defined(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type != MQ_J_UNDEFINED;
}

static bool is_undefined(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return !is_defined(run, self, args);
}

static bool is_none(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_NONE;
}

static bool is_boolean(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_BOOL;
}

static bool is_true(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return is_boolean(run, self, args) && self.as.boolean;
}

static bool is_false(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return is_boolean(run, self, args) && !self.as.boolean;
}

static bool is_integer(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_INT || self.type == MQ_J_BIG;
}

static bool is_float(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_FLOAT;
}

static bool is_number(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return mq__jvalue_is_number(self);
}

static bool is_string_jinja_tests(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_STRING;
}

static bool is_mapping(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_DICT;
}

/* Python asks for a length and for __getitem__, which dicts and undefined values have as well. */
static bool is_sequence_jinja_tests(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    if (self.type == MQ_J_LIST) return self.as.list->kind <= MQ_J_RANGE;
    return self.type == MQ_J_STRING || self.type == MQ_J_DICT || self.type == MQ_J_UNDEFINED;
}

static bool is_iterable(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq_jiter iter;
    (void)run, (void)args;
    return mq__jiter_open(&iter, self) || self.type == MQ_J_LOOP;
}

static bool is_callable(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_FUNCTION || self.type == MQ_J_METHOD || self.type == MQ_J_MACRO ||
           self.type == MQ_J_JOINER || self.type == MQ_J_LOOP || self.type == MQ_J_UNDEFINED;
}

static bool is_sameas(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    const mq_jvalue other = args->values[0];
    if (self.type != other.type) return false;
    switch (self.type) {
    case MQ_J_NONE:
        return true;
    case MQ_J_BOOL:
    case MQ_J_INT:
    case MQ_J_BIG:
        return mq__jvalue_equal(run, self, other);
    case MQ_J_FLOAT:
        return false; /* two floats are two objects */
    case MQ_J_UNDEFINED:
        return false;
    default:
        return self.as.list == other.as.list && self.bytes == other.bytes;
    }
}

static bool is_escaped(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_STRING && (self.flags & MQ_J_MARKUP);
}

static bool is_in(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jvalue_contains(run, args->values[0], self);
}

static bool is_divisible(mq_jrun *run, mq_jvalue self, mq_jvalue by, int64_t rest)
{
    return mq__jvalue_equal(run, mq__jinja_binary(run, MQ_J_MOD, self, by), mq__jvalue_int(rest));
}

static bool is_odd(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)args;
    return is_divisible(run, self, mq__jvalue_int(2), 1);
}

static bool is_even(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)args;
    return is_divisible(run, self, mq__jvalue_int(2), 0);
}

static bool is_divisibleby(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return is_divisible(run, self, args->values[0], 0);
}

/* At least one letter with case, and all of them of this one. */
static bool has_case(mq_jrun *run, mq_jvalue self, bool upper)
{
    const mq_jvalue text = mq__jvalue_str(run, self);
    bool found = false;
    mq__jrun_charge_points(run, text.bytes);
    for (size_t i = 0; i < text.bytes;) {
        const uint32_t point = mq__utf8_next(text.as.text, text.bytes, &i);
        if (mq__point_is_title(point) || (upper ? mq__point_is_lower(point) : mq__point_is_upper(point))) return false;
        found = found || (upper ? mq__point_is_upper(point) : mq__point_is_lower(point));
    }
    return found;
}

static bool is_lower(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)args;
    return has_case(run, self, false);
}

static bool is_upper(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)args;
    return has_case(run, self, true);
}

static bool is_eq(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_EQ, self, args->values[0]);
}

static bool is_ne(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_NE, self, args->values[0]);
}

static bool is_lt(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_LT, self, args->values[0]);
}

static bool is_le(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_LE, self, args->values[0]);
}

static bool is_gt(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_GT, self, args->values[0]);
}

static bool is_ge(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return mq__jinja_relation(run, MQ_J_GE, self, args->values[0]);
}

static bool is_filter(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_STRING && mq__jfilter_find(self) != NULL;
}

static bool is_test(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    (void)run, (void)args;
    return self.type == MQ_J_STRING && mq__jtest_find(self) != NULL;
}

const mq_jtest *mq__jtest_find(mq_jvalue name)
{
    static const mq_jtest tests[] = {
        {"defined", is_defined, 0},
        {"undefined", is_undefined, 0},
        {"none", is_none, 0},
        {"boolean", is_boolean, 0},
        {"true", is_true, 0},
        {"false", is_false, 0},
        {"integer", is_integer, 0},
        {"float", is_float, 0},
        {"number", is_number, 0},
        {"string", is_string_jinja_tests, 0},
        {"mapping", is_mapping, 0},
        {"sequence", is_sequence_jinja_tests, 0},
        {"iterable", is_iterable, 0},
        {"callable", is_callable, 0},
        {"sameas", is_sameas, 1},
        {"escaped", is_escaped, 0},
        {"in", is_in, 1},
        {"odd", is_odd, 0},
        {"even", is_even, 0},
        {"divisibleby", is_divisibleby, 1},
        {"lower", is_lower, 0},
        {"upper", is_upper, 0},
        {"filter", is_filter, 0},
        {"test", is_test, 0},
        {"eq", is_eq, 1},
        {"equalto", is_eq, 1},
        {"==", is_eq, 1},
        {"ne", is_ne, 1},
        {"!=", is_ne, 1},
        {"lt", is_lt, 1},
        {"lessthan", is_lt, 1},
        {"<", is_lt, 1},
        {"le", is_le, 1},
        {"<=", is_le, 1},
        {"gt", is_gt, 1},
        {"greaterthan", is_gt, 1},
        {">", is_gt, 1},
        {"ge", is_ge, 1},
        {">=", is_ge, 1},
    };
    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        if (mq__jvalue_is_text(name, tests[i].name)) return &tests[i];
    }
    return NULL;
}
