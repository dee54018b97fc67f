/* Operators, subscripts and attributes, with Python's meaning. */
#include "jinja/jinja_run.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- arithmetic */

static const char *op_text(mq_jop op)
{
    static const char *const texts[] = {"+",  "-",  "*", "/",  "//", "%",  "**", "unary -", "unary +",
                                        "==", "!=", "<", "<=", ">",  ">=", "in", "not in"};
    return texts[op];
}

static _Noreturn void fail_operands(mq_jrun *run, mq_jop op, mq_jvalue a, mq_jvalue b)
{
    if (a.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, a);
    if (b.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, b);
    mq__jrun_throw(run, MQ_TEMPLATE, "expected operands that '%s' takes, got %s and %s", op_text(op),
                   mq__jvalue_type_name(a), mq__jvalue_type_name(b));
}

static _Noreturn void fail_overflow(mq_jrun *run)
{
    mq__jrun_throw(run, MQ_LIMIT, "expected an integer of 64 bits, got a larger one");
}

static int64_t multiplied(mq_jrun *run, int64_t a, int64_t b)
{
    int64_t result = 0;
    if (__builtin_mul_overflow(a, b, &result)) fail_overflow(run);
    return result;
}

static int64_t added(mq_jrun *run, int64_t a, int64_t b)
{
    int64_t result = 0;
    if (__builtin_add_overflow(a, b, &result)) fail_overflow(run);
    return result;
}

static double real_operand(mq_jrun *run, mq_jvalue value)
{
    const double real = mq__jvalue_number(value);
    if (value.type == MQ_J_BIG && isinf(real))
        mq__jrun_throw(run, MQ_TEMPLATE, "expected an integer that a float holds");
    return real;
}

static void check_divisor(mq_jrun *run, bool zero)
{
    if (zero) mq__jrun_throw(run, MQ_TEMPLATE, "expected a divisor other than zero");
}

static double floor_mod(double a, double b, double *quotient)
{
    double rest = fmod(a, b);
    double whole = (a - rest) / b;
    if (rest != 0) {
        if ((b < 0) != (rest < 0)) {
            rest += b;
            whole -= 1;
        }
    } else {
        rest = copysign(0, b);
    }
    double floored = whole != 0 ? floor(whole) : copysign(0, a / b);
    if (whole != 0 && whole - floored > 0.5) floored += 1;
    *quotient = floored;
    return rest;
}

static mq_jvalue power_real(mq_jrun *run, double a, double b)
{
    check_divisor(run, a == 0 && b < 0);
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b)) {
        mq__jrun_throw(run, MQ_UNSUPPORTED, "expected a real result of '**', got a complex one");
    }
    const double result = pow(a, b);
    if (isinf(result) && isfinite(a) && isfinite(b))
        mq__jrun_throw(run, MQ_TEMPLATE, "expected a smaller result of '**'");
    return mq__jvalue_real(result);
}

static mq_jvalue power_integer(mq_jrun *run, int64_t a, int64_t b)
{
    if (b < 0) return power_real(run, (double)a, (double)b);
    int64_t result = 1, square = a;
    for (uint64_t rest = (uint64_t)b; rest; rest >>= 1) {
        if ((rest & 1) && __builtin_mul_overflow(result, square, &result)) fail_overflow(run);
        if (rest > 1 && __builtin_mul_overflow(square, square, &square)) fail_overflow(run);
    }
    return mq__jvalue_int(result);
}

static mq_jvalue binary_integer(mq_jrun *run, mq_jop op, int64_t a, int64_t b)
{
    int64_t result = 0;
    switch (op) {
    case MQ_J_ADD:
        result = added(run, a, b);
        break;
    case MQ_J_SUB:
        if (__builtin_sub_overflow(a, b, &result)) fail_overflow(run);
        break;
    case MQ_J_MUL:
        result = multiplied(run, a, b);
        break;
    case MQ_J_DIV:
        check_divisor(run, b == 0);
        return mq__jvalue_real((double)((long double)a / (long double)b));
    case MQ_J_FLOORDIV:
    case MQ_J_MOD: {
        check_divisor(run, b == 0);
        if (a == INT64_MIN && b == -1) {
            if (op == MQ_J_FLOORDIV) fail_overflow(run);
            break;
        }
        const int64_t rest = a % b, down = rest != 0 && (rest < 0) != (b < 0);
        result = op == MQ_J_FLOORDIV ? a / b - down : rest + (down ? b : 0);
        break;
    }
    default:
        return power_integer(run, a, b);
    }
    return mq__jvalue_int(result);
}

static mq_jvalue binary_real(mq_jrun *run, mq_jop op, double a, double b)
{
    double quotient = 0;
    switch (op) {
    case MQ_J_ADD:
        return mq__jvalue_real(a + b);
    case MQ_J_SUB:
        return mq__jvalue_real(a - b);
    case MQ_J_MUL:
        return mq__jvalue_real(a * b);
    case MQ_J_DIV:
        check_divisor(run, b == 0);
        return mq__jvalue_real(a / b);
    case MQ_J_FLOORDIV:
    case MQ_J_MOD: {
        check_divisor(run, b == 0);
        const double rest = floor_mod(a, b, &quotient);
        return mq__jvalue_real(op == MQ_J_MOD ? rest : quotient);
    }
    default:
        return power_real(run, a, b);
    }
}

/* text * count and list * count */
static mq_jvalue repeat(mq_jrun *run, mq_jvalue what, mq_jvalue times)
{
    int64_t count = times.type == MQ_J_BOOL ? times.as.boolean : times.as.integer;
    if (count < 0) count = 0;
    if (what.type == MQ_J_STRING) {
        size_t bytes;
        if (__builtin_mul_overflow((size_t)what.bytes, (size_t)count, &bytes)) bytes = SIZE_MAX;
        mq__jrun_charge_bytes(run, bytes);
        char *const data = mq__jrun_text(run, bytes);
        for (size_t at = 0; what.bytes && at < bytes; at += what.bytes) {
            memcpy(data + at, what.as.text, what.bytes);
        }
        mq_jvalue result = mq__jvalue_text(data, bytes);
        result.flags = what.flags;
        return result;
    }
    const mq_jlist *const from = what.as.list;
    mq_jlist *const list = mq__jlist_new(run, from->kind, 0);
    for (int64_t i = 0; from->count && i < count; i++) {
        mq__jrun_charge(run, from->count);
        for (size_t k = 0; k < from->count; k++) {
            mq__jlist_push(run, list, from->items[k]);
        }
    }
    return mq__jvalue_list(list);
}

static bool is_sequence_jinja_ops(mq_jvalue value)
{
    return value.type == MQ_J_STRING || (value.type == MQ_J_LIST && value.as.list->kind <= MQ_J_TUPLE);
}

static mq_jvalue add_lists(mq_jrun *run, const mq_jlist *a, const mq_jlist *b)
{
    mq__jrun_charge(run, a->count + b->count);
    mq_jlist *const list = mq__jlist_new(run, a->kind, a->count + b->count);
    if (a->count) memcpy(list->items, a->items, a->count * sizeof *a->items);
    if (b->count) memcpy(list->items + a->count, b->items, b->count * sizeof *b->items);
    list->count = a->count + b->count;
    return mq__jvalue_list(list);
}

mq_jvalue mq__jinja_binary(mq_jrun *run, mq_jop op, mq_jvalue a, mq_jvalue b)
{
    if (mq__jvalue_is_number(a) && mq__jvalue_is_number(b)) {
        if (a.type == MQ_J_FLOAT || b.type == MQ_J_FLOAT)
            return binary_real(run, op, real_operand(run, a), real_operand(run, b));
        if (a.type == MQ_J_BIG || b.type == MQ_J_BIG) fail_overflow(run);
        const int64_t x = a.type == MQ_J_BOOL ? a.as.boolean : a.as.integer;
        const int64_t y = b.type == MQ_J_BOOL ? b.as.boolean : b.as.integer;
        return binary_integer(run, op, x, y);
    }
    if (op == MQ_J_ADD && a.type == MQ_J_STRING && b.type == MQ_J_STRING) return mq__jvalue_join(run, a, b);
    if (op == MQ_J_ADD && is_sequence_jinja_ops(a) && is_sequence_jinja_ops(b) && a.type == b.type &&
        a.as.list->kind == b.as.list->kind) {
        return add_lists(run, a.as.list, b.as.list);
    }
    if (op == MQ_J_MUL && is_sequence_jinja_ops(a) && (b.type == MQ_J_INT || b.type == MQ_J_BOOL))
        return repeat(run, a, b);
    if (op == MQ_J_MUL && is_sequence_jinja_ops(b) && (a.type == MQ_J_INT || a.type == MQ_J_BOOL))
        return repeat(run, b, a);
    if (op == MQ_J_MOD && a.type == MQ_J_STRING) return mq__jinja_format_percent(run, a, b);
    fail_operands(run, op, a, b);
}

mq_jvalue mq__jinja_unary(mq_jrun *run, mq_jop op, mq_jvalue a)
{
    if (!mq__jvalue_is_number(a)) {
        if (a.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, a);
        mq__jrun_throw(run, MQ_TEMPLATE, "expected a number after '%s', got %s", op_text(op), mq__jvalue_type_name(a));
    }
    if (a.type == MQ_J_FLOAT) return mq__jvalue_real(op == MQ_J_NEG ? -a.as.real : a.as.real);
    const int64_t value = a.type == MQ_J_BOOL ? a.as.boolean : a.as.integer;
    if (a.type == MQ_J_BIG) return op == MQ_J_NEG ? mq__jbig_negate(run, a) : a;
    if (op == MQ_J_NEG && value == INT64_MIN) return mq__jbig_negate(run, a);
    return mq__jvalue_int(op == MQ_J_NEG ? -value : value);
}

bool mq__jinja_relation(mq_jrun *run, mq_jop op, mq_jvalue a, mq_jvalue b)
{
    switch (op) {
    case MQ_J_EQ:
        return mq__jvalue_equal(run, a, b);
    case MQ_J_NE:
        return !mq__jvalue_equal(run, a, b);
    case MQ_J_IN:
        return mq__jvalue_contains(run, b, a);
    case MQ_J_NOT_IN:
        return !mq__jvalue_contains(run, b, a);
    default:
        break;
    }
    const int order = mq__jvalue_compare(run, a, b, op_text(op));
    if (order == 2) return false; /* NaN */
    switch (op) {
    case MQ_J_LT:
        return order < 0;
    case MQ_J_LE:
        return order <= 0;
    case MQ_J_GT:
        return order > 0;
    default:
        return order >= 0;
    }
}

/* ---------------------------------------------------------------- subscripts */

static mq_jvalue no_attribute(mq_jvalue object, mq_jvalue name)
{
    if (name.type != MQ_J_STRING) return mq__jvalue_undefined(MQ_J_HINT_MESSAGE, "no such item", 12);
    return mq__jvalue_undefined((uint8_t)(MQ_J_HINT_ATTRIBUTE + object.type), name.as.text, name.bytes);
}

/* object[key] without the fallback to attributes: false when Python would raise LookupError or TypeError. */
static bool subscript(mq_jrun *run, mq_jvalue object, mq_jvalue key, mq_jvalue *out)
{
    if (object.type == MQ_J_DICT) {
        const mq_jvalue *const found = mq__jdict_get(run, object.as.dict, key);
        if (found) *out = *found;
        return found != NULL;
    }
    if (key.type != MQ_J_INT && key.type != MQ_J_BOOL) return false;
    int64_t i = key.type == MQ_J_BOOL ? key.as.boolean : key.as.integer;
    if (object.type == MQ_J_STRING) {
        mq__jrun_charge(run, object.bytes / 16 + 1);
        const size_t count = mq__jtext_count(object.as.text, object.bytes);
        if (i < 0) i += (int64_t)count;
        if (i < 0 || (uint64_t)i >= count) return false;
        const size_t start = mq__jtext_offset(object.as.text, object.bytes, (size_t)i);
        size_t after = start;
        (void)mq__utf8_next(object.as.text, object.bytes, &after);
        *out = mq__jvalue_text(object.as.text + start, after - start);
        out->flags = object.flags;
        return true;
    }
    if (object.type != MQ_J_LIST || object.as.list->kind > MQ_J_RANGE) return false;
    if (i < 0) i += (int64_t)object.as.list->count;
    if (i < 0 || (uint64_t)i >= object.as.list->count) return false;
    *out = mq__jlist_at(object.as.list, (size_t)i);
    return true;
}

/* What getattr finds: attributes of the objects of a run, and methods. */
bool mq__jinja_own_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, const mq_jmethod *methods, mq_jvalue *out)
{
    if (object.type == MQ_J_NAMESPACE) {
        const mq_jvalue *const found = mq__jdict_get(run, object.as.dict, name);
        if (found) *out = *found;
        return found != NULL;
    }
    if (mq__jinja_builtin_attribute(run, object, name, out)) return true;
    const mq_jmethod *const method = mq__jmethod_of(methods, object);
    if (!method) return false;
    if (!method->call) { /* the sandbox hands out an undefined value that fails when it is called */
        *out = mq__jvalue_undefined(MQ_J_HINT_MESSAGE, name.as.text, name.bytes);
        return true;
    }
    mq_jmethod_bound *const bound = mq__jrun_alloc(run, 1, sizeof *bound);
    *bound = (mq_jmethod_bound){object, method};
    *out = (mq_jvalue){.type = MQ_J_METHOD, .as.method = bound};
    return true;
}

mq_jvalue mq__jinja_get_attribute(mq_jrun *run, mq_jvalue object, mq_jvalue name, const mq_jmethod *methods)
{
    mq_jvalue out;
    if (object.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, object);
    if (mq__jinja_own_attribute(run, object, name, methods, &out) || subscript(run, object, name, &out)) return out;
    return no_attribute(object, name);
}

mq_jvalue mq__jinja_get_item(mq_jrun *run, mq_jvalue object, mq_jvalue key)
{
    mq_jvalue out;
    if (object.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, object);
    if (subscript(run, object, key, &out)) return out;
    if (key.type == MQ_J_STRING && mq__jinja_own_attribute(run, object, key, mq__jmethod_find(key), &out)) return out;
    return no_attribute(object, key);
}

/* Python's slice.indices: start, stop and step within a length. */
static size_t slice_indices(mq_jrun *run, const mq_jvalue bounds[3], size_t length, int64_t *start, int64_t *end,
                            int64_t *step)
{
    const int64_t n = (int64_t)length;
    *step = bounds[2].type == MQ_J_NONE ? 1 : mq__jvalue_integer(run, bounds[2], "slice");
    if (*step == 0) mq__jrun_throw(run, MQ_TEMPLATE, "expected a slice step other than zero");
    if (*step == INT64_MIN) *step = -INT64_MAX;
    int64_t ends[2] = {*step > 0 ? 0 : n - 1, *step > 0 ? n : -1};
    for (int i = 0; i < 2; i++) {
        if (bounds[i].type == MQ_J_NONE) continue;
        int64_t at = mq__jvalue_integer(run, bounds[i], "slice");
        if (at < 0) at = at < -n ? -1 : at + n;
        if (at < 0) at = *step > 0 ? 0 : -1;
        if (at > n - (*step < 0)) at = n - (*step < 0);
        ends[i] = at;
    }
    *start = ends[0];
    *end = ends[1];
    const int64_t span = *step > 0 ? ends[1] - ends[0] : ends[0] - ends[1];
    const uint64_t stride = *step > 0 ? (uint64_t)*step : (uint64_t) - *step;
    return span <= 0 ? 0 : (size_t)(((uint64_t)span - 1) / stride + 1);
}

static mq_jvalue slice_text(mq_jrun *run, mq_jvalue text, const mq_jvalue bounds[3])
{
    int64_t start, end, step;
    mq__jrun_charge(run, text.bytes / 16 + 1);
    const size_t length = mq__jtext_count(text.as.text, text.bytes);
    const size_t count = slice_indices(run, bounds, length, &start, &end, &step);
    mq_jvalue result = mq__jvalue_text("", 0);
    if (count > 0 && step == 1) {
        const size_t from = mq__jtext_offset(text.as.text, text.bytes, (size_t)start);
        const size_t bytes = mq__jtext_offset(text.as.text + from, text.bytes - from, count);
        result = mq__jvalue_text(text.as.text + from, bytes);
    } else if (count > 0) {
        mq_jtext out = {0};
        size_t at = mq__jtext_offset(text.as.text, text.bytes, (size_t)start);
        mq__jrun_charge(run, (uint64_t)count);
        for (size_t i = 0; i < count; i++) {
            size_t after = at;
            (void)mq__utf8_next(text.as.text, text.bytes, &after);
            mq__jtext_put(run, &out, text.as.text + at, after - at);
            if (i + 1 == count) break;
            if (step > 0) {
                at += mq__jtext_offset(text.as.text + at, text.bytes - at, (size_t)step);
            } else {
                for (int64_t k = 0; k > step; k--) {
                    at = mq__utf8_before(text.as.text, at);
                }
            }
        }
        result = mq__jtext_take(&out);
    }
    result.flags = text.flags;
    return result;
}

mq_jvalue mq__jinja_get_slice(mq_jrun *run, mq_jvalue object, const mq_jvalue bounds[3])
{
    if (object.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, object);
    if (object.type == MQ_J_STRING) return slice_text(run, object, bounds);
    if (object.type != MQ_J_LIST || object.as.list->kind > MQ_J_RANGE) {
        mq__jrun_throw(run, MQ_TEMPLATE, "expected a sequence to slice, got %s", mq__jvalue_type_name(object));
    }
    const mq_jlist *const from = object.as.list;
    int64_t start, end, step;
    const size_t count = slice_indices(run, bounds, from->count, &start, &end, &step);
    if (from->kind == MQ_J_RANGE) {
        mq_jlist *const range = mq__jlist_new(run, MQ_J_RANGE, 0);
        range->step = multiplied(run, step, from->step);
        range->start = added(run, from->start, multiplied(run, start, from->step));
        range->stop = added(run, from->start, multiplied(run, end, from->step));
        range->count = count;
        return mq__jvalue_list(range);
    }
    mq__jrun_charge(run, (uint64_t)count / 8 + 1);
    mq_jlist *const list = mq__jlist_new(run, from->kind, count);
    for (size_t i = 0; i < count; i++) {
        list->items[i] = from->items[start + (int64_t)i * step];
    }
    list->count = count;
    return mq__jvalue_list(list);
}
