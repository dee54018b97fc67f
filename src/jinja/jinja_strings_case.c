/* Methods of strings about case, classes of characters and width. */
#include "jinja/jinja_methods.h"

#include <string.h>

mq_jvalue mq__jstring_upper(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "upper", args, 0, 0);
    return mq__jvalue_case(run, self, MQ_J_UPPER);
}

mq_jvalue mq__jstring_lower(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "lower", args, 0, 0);
    return mq__jvalue_case(run, self, MQ_J_LOWER);
}

static bool is_cased_jinja_strings_case(uint32_t point)
{
    return mq__point_is_upper(point) || mq__point_is_lower(point) || mq__point_is_title(point);
}

typedef enum recasing { WORDS, FIRST, SWAP } recasing;

/* lower() of a whole string knows about final sigmas, so its result is walked alongside. */
static mq_jvalue recase(mq_jrun *run, mq_jvalue self, recasing how)
{
    const mq_jvalue lower = mq__jvalue_case(run, self, MQ_J_LOWER);
    mq_jtext text = {0};
    bool inside = false;
    for (size_t i = 0, k = 0; i < self.bytes;) {
        const size_t from = k;
        uint32_t forms[3];
        const uint32_t point = mq__utf8_next(self.as.text, self.bytes, &i);
        for (size_t n = mq__point_case(point, MQ_J_LOWER, forms); n > 0 && k < lower.bytes; n--) {
            (void)mq__utf8_next(lower.as.text, lower.bytes, &k);
        }
        if (how == SWAP) inside = mq__point_is_upper(point);
        if (how == SWAP && !inside && !mq__point_is_lower(point)) {
            mq__jtext_put_point(run, &text, point);
        } else if (inside) {
            mq__jtext_put(run, &text, lower.as.text + from, k - from);
        } else {
            const size_t n = mq__point_case(point, how == SWAP ? MQ_J_UPPER : MQ_J_TITLE, forms);
            for (size_t j = 0; j < n; j++) {
                mq__jtext_put_point(run, &text, forms[j]);
            }
        }
        inside = how == WORDS ? is_cased_jinja_strings_case(point) : true;
    }
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = self.flags;
    return result;
}

mq_jvalue mq__jstring_title(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "title", args, 0, 0);
    return recase(run, self, WORDS);
}

mq_jvalue mq__jstring_capitalize(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "capitalize", args, 0, 0);
    return recase(run, self, FIRST);
}

mq_jvalue mq__jstring_swapcase(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "swapcase", args, 0, 0);
    return recase(run, self, SWAP);
}

/* ---------------------------------------------------------------- classes */

/* All characters are of a class, and there is one unless `empty`. */
static mq_jvalue all(mq_jrun *run, mq_jvalue self, const mq_jargs *args, bool (*is)(uint32_t), bool empty)
{
    mq__jargs_positional(run, "a method of str", args, 0, 0);
    mq__jrun_charge_points(run, self.bytes);
    for (size_t i = 0; i < self.bytes;) {
        if (!is(mq__utf8_next(self.as.text, self.bytes, &i))) return mq__jvalue_bool(false);
    }
    return mq__jvalue_bool(self.bytes > 0 || empty);
}

static bool is_alnum(uint32_t point)
{
    return mq__point_is_alpha(point) || mq__point_is_digit(point) || mq__point_is_numeric(point);
}

static bool is_ascii(uint32_t point)
{
    return point < 0x80;
}

mq_jvalue mq__jstring_isalnum(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, is_alnum, false);
}

mq_jvalue mq__jstring_isalpha(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_alpha, false);
}

mq_jvalue mq__jstring_isascii(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, is_ascii, true);
}

mq_jvalue mq__jstring_isdecimal(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_decimal, false);
}

mq_jvalue mq__jstring_isdigit(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_digit, false);
}

mq_jvalue mq__jstring_isnumeric(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_numeric, false);
}

mq_jvalue mq__jstring_isprintable(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_printable, true);
}

mq_jvalue mq__jstring_isspace(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return all(run, self, args, mq__point_is_space, false);
}

static mq_jvalue one_case(mq_jrun *run, mq_jvalue self, const mq_jargs *args, const char *test)
{
    mq__jargs_positional(run, test, args, 0, 0);
    return mq__jvalue_bool(mq__jtest_find(mq__jvalue_literal(test))->call(run, self, args));
}

mq_jvalue mq__jstring_islower(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return one_case(run, self, args, "lower");
}

mq_jvalue mq__jstring_isupper(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return one_case(run, self, args, "upper");
}

/* ---------------------------------------------------------------- width */

static mq_jvalue pad(mq_jrun *run, mq_jvalue self, const mq_jargs *args, const char *name, int side)
{
    mq__jargs_positional(run, name, args, 1, 2);
    const int64_t width = mq__jvalue_integer(run, args->values[0], name);
    uint32_t fill = ' ';
    if (args->count == 2) {
        const mq_jvalue given = args->values[1];
        size_t at = 0;
        if (given.type == MQ_J_STRING && given.bytes) fill = mq__utf8_next(given.as.text, given.bytes, &at);
        if (given.type != MQ_J_STRING || at != given.bytes || at == 0) {
            mq__jrun_throw(run, MQ_TEMPLATE, "%s: expected one character to fill with", name);
        }
    }
    mq__jrun_charge_bytes(run, self.bytes);
    const int64_t length = (int64_t)mq__jtext_count(self.as.text, self.bytes);
    if (width <= length) return self;
    const int64_t missing = width - length;
    /* Python's center puts the odd one on the left when the width is odd. */
    const int64_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
    mq_jtext text = {0};
    mq__jtext_fill(run, &text, fill, (size_t)left);
    mq__jtext_put(run, &text, self.as.text, self.bytes);
    mq__jtext_fill(run, &text, fill, (size_t)(missing - left));
    mq_jvalue result = mq__jtext_take(&text);
    result.flags = self.flags;
    return result;
}

mq_jvalue mq__jstring_center(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return pad(run, self, args, "center", 0);
}

mq_jvalue mq__jstring_ljust(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return pad(run, self, args, "ljust", -1);
}

mq_jvalue mq__jstring_rjust(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return pad(run, self, args, "rjust", 1);
}

mq_jvalue mq__jstring_zfill(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "zfill", args, 1, 1);
    const int64_t width = mq__jvalue_integer(run, args->values[0], "zfill");
    const int64_t length = (int64_t)mq__jtext_count(self.as.text, self.bytes);
    if (width <= length) return self;
    const size_t sign = self.bytes && (self.as.text[0] == '-' || self.as.text[0] == '+');
    mq_jtext text = {0};
    mq__jtext_put(run, &text, self.as.text, sign);
    mq__jtext_fill(run, &text, '0', (size_t)(width - length));
    mq__jtext_put(run, &text, self.as.text + sign, self.bytes - sign);
    return mq__jtext_take(&text);
}
