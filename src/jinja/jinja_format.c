/* text % values and text.format(...). */
#include "jinja/jinja_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_PRECISION 300

/* Python's format specification, [[fill]align][sign][#][0][width][,][.precision][type]; % is turned into one. */
typedef struct spec {
    uint32_t fill;
    char align; /* < > ^ = or 0: by type */
    char sign;  /* + - or space; 0: - */
    bool alternate;
    char group;               /* , or _ between thousands */
    int64_t width, precision; /* -1: none */
    int64_t digits;           /* least number of digits of an integer, of a %.3d */
    char type;                /* 0: none given */
} spec;

static void put_padded(mq_jrun *run, mq_jtext *out, const spec *s, char align, const char *prefix, size_t prefix_bytes,
                       const char *body, size_t bytes)
{
    const int64_t length = (int64_t)(mq__jtext_count(prefix, prefix_bytes) + mq__jtext_count(body, bytes));
    const int64_t missing = s->width > length ? s->width - length : 0;
    if (s->align) align = s->align;
    const int64_t left = align == '<' ? 0 : align == '^' ? missing / 2 : missing;
    const size_t before = align == '=' ? 0 : (size_t)left, inside = align == '=' ? (size_t)missing : 0;
    mq__jtext_fill(run, out, s->fill, before);
    mq__jtext_put(run, out, prefix, prefix_bytes);
    mq__jtext_fill(run, out, s->fill, inside);
    mq__jtext_put(run, out, body, bytes);
    mq__jtext_fill(run, out, s->fill, (size_t)missing - before - inside);
}

static void put_text(mq_jrun *run, mq_jtext *out, const spec *s, mq_jvalue text)
{
    size_t bytes = text.bytes;
    if (s->precision >= 0) bytes = mq__jtext_offset(text.as.text, bytes, (size_t)s->precision);
    mq__jrun_charge_bytes(run, text.bytes);
    put_padded(run, out, s, '<', "", 0, text.as.text, bytes);
}

/* Puts a separator between each three digits of the whole part, at the front of `digits`. */
static size_t group_digits(char *out, const char *digits, size_t bytes, char separator, size_t each)
{
    size_t whole = strspn(digits, "0123456789abcdefABCDEF"), n = 0;
    if (whole > bytes || strchr(digits, '.') || each == 3) whole = strspn(digits, "0123456789");
    for (size_t i = 0; i < bytes; i++) {
        if (i > 0 && i < whole && (whole - i) % each == 0) out[n++] = separator;
        out[n++] = digits[i];
    }
    out[n] = '\0';
    return n;
}

static size_t put_sign(const spec *s, bool negative, char *prefix)
{
    if (negative) {
        prefix[0] = '-';
    } else if (s->sign == '+' || s->sign == ' ') {
        prefix[0] = s->sign;
    } else {
        return 0;
    }
    return 1;
}

static void put_integer(mq_jrun *run, mq_jtext *out, const spec *s, int64_t value)
{
    char digits[80 + MAX_PRECISION], grouped[2 * sizeof digits], prefix[4];
    size_t n = 0, prefix_bytes = put_sign(s, value < 0, prefix);
    const unsigned base = s->type == 'x' || s->type == 'X' ? 16 : s->type == 'o' ? 8 : s->type == 'b' ? 2 : 10;
    const char *const alphabet = s->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char reversed[64];
    do {
        reversed[n++] = alphabet[rest % base];
        rest /= base;
    } while (rest);
    size_t bytes = 0;
    for (int64_t i = (int64_t)n; i < s->digits && bytes < MAX_PRECISION; i++) {
        digits[bytes++] = '0';
    }
    while (n > 0) {
        digits[bytes++] = reversed[--n];
    }
    digits[bytes] = '\0';
    if (s->alternate && base != 10) {
        prefix[prefix_bytes++] = '0';
        prefix[prefix_bytes++] = s->type;
    }
    const char *body = digits;
    if (s->group) {
        bytes = group_digits(grouped, digits, bytes, s->group, base == 10 ? 3 : 4);
        body = grouped;
    }
    put_padded(run, out, s, '>', prefix, prefix_bytes, body, bytes);
}

static void put_real_jinja_format(mq_jrun *run, mq_jtext *out, const spec *s, double value)
{
    char body[700], grouped[1000], prefix[4];
    const size_t prefix_bytes = put_sign(s, signbit(value) && !isnan(value), prefix);
    const double size = fabs(value);
    const int precision = s->precision < 0 ? 6 : s->precision > MAX_PRECISION ? MAX_PRECISION : (int)s->precision;
    size_t bytes = 0;
    mq__jrun_charge(run, 40);
    switch (s->type) {
    case 'e':
        bytes = (size_t)snprintf(body, sizeof body, "%.*e", precision, size);
        break;
    case 'E':
        bytes = (size_t)snprintf(body, sizeof body, "%.*E", precision, size);
        break;
    case 'f':
        bytes = (size_t)snprintf(body, sizeof body, "%.*f", precision, size);
        break;
    case 'F':
        bytes = (size_t)snprintf(body, sizeof body, "%.*F", precision, size);
        break;
    case '%':
        bytes = (size_t)snprintf(body, sizeof body, "%.*f%s", precision, size * 100, "%");
        break;
    case 'G':
        bytes = (size_t)snprintf(body, sizeof body, "%.*G", precision, size);
        break;
    case 'g':
    case 'n':
        bytes = (size_t)snprintf(body, sizeof body, "%.*g", precision, size);
        break;
    default: /* like repr, or like g with a digit after the point */
        if (s->precision < 0) {
            bytes = mq__real_print(size, body);
        } else {
            bytes = (size_t)snprintf(body, sizeof body, "%.*g", precision ? precision : 1, size);
            if (!strpbrk(body, ".ein")) bytes += (size_t)snprintf(body + bytes, sizeof body - bytes, ".0");
        }
    }
    if (s->group && bytes < sizeof grouped / 2) {
        bytes = group_digits(grouped, body, bytes, s->group, 3);
        put_padded(run, out, s, '>', prefix, prefix_bytes, grouped, bytes);
        return;
    }
    put_padded(run, out, s, '>', prefix, prefix_bytes, body, bytes);
}

static int64_t read_number_jinja_format(mq_jrun *run, mq_jvalue text, size_t *at)
{
    int64_t value = -1;
    while (*at < text.bytes && text.as.text[*at] >= '0' && text.as.text[*at] <= '9') {
        value = (value < 0 ? 0 : value * 10) + (text.as.text[(*at)++] - '0');
        if (value > 1 << 30) mq__jrun_throw(run, MQ_LIMIT, "format: expected a smaller width");
    }
    return value;
}

/* ---------------------------------------------------------------- percent */

typedef struct percent {
    mq_jvalue format, values;
    size_t at, used;
    mq_jvalue named; /* what %(name)s has picked */
} percent;

static mq_jvalue next_value(mq_jrun *run, percent *p)
{
    if (p->named.type != MQ_J_MISSING) return p->named;
    const bool tuple = p->values.type == MQ_J_LIST && p->values.as.list->kind == MQ_J_TUPLE;
    const size_t count = tuple ? p->values.as.list->count : 1;
    if (p->used >= count) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected more values, got %zu", count);
    return tuple ? p->values.as.list->items[p->used++] : (p->used++, p->values);
}

static void read_name(mq_jrun *run, percent *p)
{
    p->named = (mq_jvalue){0};
    if (p->at >= p->format.bytes || p->format.as.text[p->at] != '(') return;
    const size_t start = ++p->at;
    for (int open = 1; open > 0; p->at++) {
        if (p->at >= p->format.bytes) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected ')' after %%(");
        open += (p->format.as.text[p->at] == '(') - (p->format.as.text[p->at] == ')');
    }
    if (p->values.type != MQ_J_DICT) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a mapping for %%(name)");
    const mq_jvalue key = mq__jvalue_text(p->format.as.text + start, p->at - 1 - start);
    const mq_jvalue *const found = mq__jdict_get(run, p->values.as.dict, key);
    if (!found)
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected the key '%.*s'", key.bytes < 100 ? (int)key.bytes : 100,
                       key.as.text);
    p->named = *found;
}

static int64_t read_width(mq_jrun *run, percent *p)
{
    if (p->at < p->format.bytes && p->format.as.text[p->at] == '*') {
        p->at++;
        return mq__jvalue_integer(run, next_value(run, p), "format width");
    }
    return read_number_jinja_format(run, p->format, &p->at);
}

static void read_percent_spec(mq_jrun *run, percent *p, spec *s)
{
    bool left = false, zero = false;
    for (; p->at < p->format.bytes; p->at++) {
        const char c = p->format.as.text[p->at];
        left = left || c == '-';
        zero = zero || c == '0';
        s->alternate = s->alternate || c == '#';
        if (c == '+' || (c == ' ' && !s->sign)) s->sign = c;
        if (c != '-' && c != '0' && c != '#' && c != '+' && c != ' ') break;
    }
    s->width = read_width(run, p);
    if (s->width < -1) {
        left = true;
        s->width = s->width == INT64_MIN ? INT64_MAX : -s->width;
    }
    if (p->at < p->format.bytes && p->format.as.text[p->at] == '.') {
        p->at++;
        s->precision = read_width(run, p);
        if (s->precision < 0) s->precision = 0;
    }
    if (p->at < p->format.bytes && strchr("hlL", p->format.as.text[p->at]) && p->format.as.text[p->at]) p->at++;
    s->align = left ? '<' : '>';
    if (zero && !left) {
        s->align = '=';
        s->fill = '0';
    }
}

static int64_t percent_integer(mq_jrun *run, mq_jvalue value, char type)
{
    if (value.type == MQ_J_FLOAT && (type == 'd' || type == 'i' || type == 'u')) {
        if (!(value.as.real < 0x1p63 && value.as.real >= -0x1p63))
            mq__jrun_throw(run, MQ_LIMIT, "format: expected an integer of 64 bits");
        return (int64_t)value.as.real;
    }
    return mq__jvalue_integer(run, value, "format");
}

static void put_percent(mq_jrun *run, mq_jtext *out, percent *p, spec *s)
{
    const char type = s->type;
    if (type == 's' || type == 'r' || type == 'a') {
        mq_jvalue value = next_value(run, p);
        if (type != 's') {
            mq_jtext text = {0};
            mq__jtext_put_repr(run, &text, value);
            value = mq__jtext_take(&text);
        }
        if (s->align == '=') s->align = '>';
        s->fill = ' ';
        value = (p->format.flags & MQ_J_MARKUP) ? mq__jvalue_escape(run, value) : mq__jvalue_str(run, value);
        put_text(run, out, s, value);
        return;
    }
    if (type == 'c') {
        const mq_jvalue value = next_value(run, p);
        char point[4];
        mq_jvalue text = value;
        if (value.type != MQ_J_STRING) {
            const int64_t code = mq__jvalue_integer(run, value, "format");
            if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
                mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a character");
            text = mq__jvalue_text(point, mq__jtext_encode((uint32_t)code, point));
        } else if (mq__jtext_count(value.as.text, value.bytes) != 1) {
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected one character");
        }
        s->fill = ' ';
        s->precision = -1;
        if (s->align == '=') s->align = '>';
        put_text(run, out, s, text);
        return;
    }
    if (strchr("diuoxX", type)) {
        s->digits = s->precision;
        put_integer(run, out, s, percent_integer(run, next_value(run, p), type));
        return;
    }
    const mq_jvalue value = next_value(run, p);
    if (value.type == MQ_J_UNDEFINED) mq__jvalue_fail_undefined(run, value);
    if (!mq__jvalue_is_number(value))
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a number, got %s", mq__jvalue_type_name(value));
    if (s->alternate) mq__jrun_throw(run, MQ_UNSUPPORTED, "format: expected no '#' with a float");
    put_real_jinja_format(run, out, s, mq__jvalue_number(value));
}

mq_jvalue mq__jinja_format_percent(mq_jrun *run, mq_jvalue format, mq_jvalue values)
{
    percent p = {.format = format, .values = values};
    mq_jtext out = {0};
    mq__jrun_charge_bytes(run, format.bytes);
    while (p.at < format.bytes) {
        const char *const start = format.as.text + p.at;
        const char *const mark = memchr(start, '%', format.bytes - p.at);
        const size_t plain = mark ? (size_t)(mark - start) : format.bytes - p.at;
        mq__jtext_put(run, &out, start, plain);
        p.at += plain + (mark != NULL);
        if (!mark) break;
        mq__jrun_charge(run, 1);
        spec s = {.fill = ' ', .width = -1, .precision = -1, .digits = -1};
        read_name(run, &p);
        read_percent_spec(run, &p, &s);
        s.type = p.at < format.bytes ? format.as.text[p.at++] : '\0';
        if (s.type == '%') {
            mq__jtext_putc(run, &out, '%');
        } else if (s.type && strchr("sracdiuoxXeEfFgG", s.type)) {
            put_percent(run, &out, &p, &s);
        } else {
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a conversion such as %%s");
        }
    }
    const bool tuple = values.type == MQ_J_LIST && values.as.list->kind == MQ_J_TUPLE;
    const bool mapping =
        values.type == MQ_J_DICT || values.type == MQ_J_UNDEFINED || (values.type == MQ_J_LIST && !tuple);
    if (tuple ? p.used < values.as.list->count : !mapping && p.used == 0) {
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected as many conversions as values, got fewer");
    }
    mq_jvalue result = mq__jtext_take(&out);
    result.flags = format.flags;
    return result;
}

/* ---------------------------------------------------------------- braces */

typedef struct braces {
    const mq_jargs *args;
    int64_t next; /* the number of the next {}; -1 once a {0} was seen */
} braces;

static void read_spec(mq_jrun *run, mq_jvalue text, spec *s)
{
    size_t at = 0, next = 0;
    if (text.bytes) {
        const uint32_t fill = mq__utf8_next(text.as.text, text.bytes, &next);
        const char align = next < text.bytes ? text.as.text[next] : '\0';
        if (align && strchr("<>^=", align)) {
            s->fill = fill;
            s->align = align;
            at = next + 1;
        } else if (strchr("<>^=", text.as.text[0]) && text.as.text[0]) {
            s->align = text.as.text[at++];
        }
    }
    const char *const t = text.as.text;
    if (at < text.bytes && (t[at] == '+' || t[at] == '-' || t[at] == ' ')) s->sign = t[at++];
    if (at < text.bytes && t[at] == '#') {
        s->alternate = true;
        at++;
    }
    if (at < text.bytes && t[at] == '0') {
        if (!s->align) {
            s->fill = '0';
            s->align = '=';
        }
        at++;
    }
    s->width = read_number_jinja_format(run, text, &at);
    if (at < text.bytes && (t[at] == ',' || t[at] == '_')) s->group = t[at++];
    if (at < text.bytes && t[at] == '.') {
        at++;
        s->precision = read_number_jinja_format(run, text, &at);
        if (s->precision < 0) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a precision after '.'");
    }
    if (at < text.bytes) s->type = t[at++];
    if (at != text.bytes)
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a format specification, got '%.*s'",
                       (int)(text.bytes < 60 ? text.bytes : 60), t);
}

static void put_formatted(mq_jrun *run, mq_jtext *out, mq_jvalue value, mq_jvalue text)
{
    spec s = {.fill = ' ', .width = -1, .precision = -1, .digits = -1};
    if (text.bytes == 0) {
        mq__jtext_put_value(run, out, value);
        return;
    }
    read_spec(run, text, &s);
    const bool number = mq__jvalue_is_number(value);
    if (value.type == MQ_J_STRING && (!s.type || s.type == 's') && s.align != '=' && !s.sign && !s.group &&
        !s.alternate) {
        put_text(run, out, &s, value);
    } else if (value.type == MQ_J_STRING && (!s.type || s.type == 's') && s.align == '=' && s.fill == '0' &&
               text.as.text[0] == '0') {
        s.align = '<'; /* 0 before a width pads text on the right */
        put_text(run, out, &s, value);
    } else if (number && value.type != MQ_J_FLOAT && s.precision < 0 && (!s.type || strchr("dboxXn", s.type))) {
        put_integer(run, out, &s, mq__jvalue_integer(run, value, "format"));
    } else if (number && (s.type ? strchr("eEfFgG%", s.type) != NULL : value.type == MQ_J_FLOAT)) {
        put_real_jinja_format(run, out, &s, mq__jvalue_number(value));
    } else {
        mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a specification that %s takes, got '%.*s'",
                       mq__jvalue_type_name(value), (int)(text.bytes < 60 ? text.bytes : 60), text.as.text);
    }
}

/* The value that a field name picks: {} {0} {name} {0.attribute[key]} */
static mq_jvalue pick(mq_jrun *run, braces *b, const char *name, size_t bytes)
{
    size_t at = 0;
    while (at < bytes && name[at] != '.' && name[at] != '[') {
        at++;
    }
    mq_jvalue value = {0};
    int64_t number = 0;
    bool overflow;
    if (at == 0 || mq__jint_parse(name, at, 10, &number, &overflow)) {
        if (at == 0 ? b->next < 0 : b->next > 0)
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected either {} or {0}, got both");
        number = at == 0 ? b->next++ : number;
        if (at > 0) b->next = -1;
        if (number < 0 || (uint64_t)number >= b->args->count)
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected more arguments, got %zu", b->args->count);
        value = b->args->values[number];
    } else {
        for (size_t i = 0; i < b->args->named_count; i++) {
            const mq_jvalue known = b->args->names[i];
            if (known.bytes == at && memcmp(known.as.text, name, at) == 0) value = b->args->named[i];
        }
        if (value.type == MQ_J_MISSING)
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected the argument '%.*s'", (int)(at < 100 ? at : 100), name);
    }
    while (at < bytes) {
        const bool attribute = name[at] == '.';
        const size_t start = ++at;
        while (at < bytes && (attribute ? name[at] != '.' && name[at] != '[' : name[at] != ']')) {
            at++;
        }
        const mq_jvalue key = mq__jvalue_copy(run, name + start, at - start);
        if (key.bytes == 0) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected a name in a field");
        if (attribute) {
            value = mq__jinja_get_attribute(run, value, key, mq__jmethod_find(key));
            continue;
        }
        at++; /* ] */
        const bool digits = mq__jint_parse(key.as.text, key.bytes, 10, &number, &overflow) && key.as.text[0] >= '0' &&
                            key.as.text[0] <= '9';
        value = mq__jinja_get_item(run, value, digits ? mq__jvalue_int(number) : key);
    }
    return value;
}

static void put_braces(mq_jrun *run, mq_jtext *out, braces *b, mq_jvalue format, unsigned depth);

/* One {field}; `at` is behind the opening brace. Returns the position behind the closing one. */
static size_t put_field(mq_jrun *run, mq_jtext *out, braces *b, mq_jvalue format, size_t at, unsigned depth)
{
    const char *const t = format.as.text;
    size_t end = at, name_end = 0;
    int open = 1;
    for (; end < format.bytes; end++) {
        if (!name_end && (t[end] == ':' || t[end] == '!')) name_end = end;
        open += (t[end] == '{') - (t[end] == '}');
        if (open == 0) break;
    }
    if (open) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected '}'");
    if (!name_end) name_end = end;
    mq_jvalue value = pick(run, b, t + at, name_end - at), text = mq__jvalue_text("", 0);
    at = name_end;
    if (at < end && t[at] == '!') {
        const char conversion = at + 1 < end ? t[at + 1] : '\0';
        if (conversion == 'r' || conversion == 'a') {
            mq_jtext repr = {0};
            mq__jtext_put_repr(run, &repr, value);
            value = mq__jtext_take(&repr);
        } else if (conversion == 's') {
            value = mq__jvalue_str(run, value);
        } else {
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected !r, !s or !a");
        }
        at += 2;
        if (at < end && t[at] != ':') mq__jrun_throw(run, MQ_TEMPLATE, "format: expected ':' after a conversion");
    }
    if (at < end && t[at] == ':') {
        mq_jtext inner = {0};
        put_braces(run, &inner, b, mq__jvalue_text(t + at + 1, end - at - 1), depth + 1);
        text = mq__jtext_take(&inner);
    }
    put_formatted(run, out, value, text);
    return end + 1;
}

static void put_braces(mq_jrun *run, mq_jtext *out, braces *b, mq_jvalue format, unsigned depth)
{
    if (depth > 1) mq__jrun_throw(run, MQ_TEMPLATE, "format: expected fields nested at most twice");
    for (size_t at = 0; at < format.bytes;) {
        const char c = format.as.text[at];
        const bool twice = at + 1 < format.bytes && format.as.text[at + 1] == c;
        if ((c == '{' || c == '}') && twice && depth == 0) {
            mq__jtext_putc(run, out, c);
            at += 2;
        } else if (c == '{') {
            mq__jrun_charge(run, 1);
            at = put_field(run, out, b, format, at + 1, depth);
        } else if (c == '}') {
            mq__jrun_throw(run, MQ_TEMPLATE, "format: expected '{' before '}'");
        } else {
            mq__jtext_putc(run, out, c);
            at++;
        }
    }
}

mq_jvalue mq__jinja_format_braces(mq_jrun *run, mq_jvalue format, const mq_jargs *args)
{
    braces b = {.args = args};
    mq_jtext out = {0};
    mq__jrun_charge_bytes(run, format.bytes * 8);
    put_braces(run, &out, &b, format, 0);
    mq_jvalue result = mq__jtext_take(&out);
    result.flags = format.flags;
    return result;
}
