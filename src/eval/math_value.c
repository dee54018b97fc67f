/* Values of expressions: +, -, *, /, ^, \frac, \sqrt, \pi, letters, products without a sign. A recursive descent. */
#include "eval/math_answer.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64 };

typedef struct reading {
    const char *p;
    int point, depth;
    bool ok;
} reading;

static double sum_at(reading *r);

static bool skips(reading *r, const char *text)
{
    const size_t length = strlen(text);
    if (strncmp(r->p, text, length) != 0) return false;
    if (text[0] == '\\' && isalpha((unsigned char)r->p[length])) return false; /* of a longer command */
    r->p += length;
    return true;
}

static double fail_at(reading *r)
{
    r->ok = false;
    return NAN;
}

static double closed(reading *r, char close)
{
    const double value = sum_at(r);
    if (*r->p != close) return fail_at(r);
    r->p++;
    return value;
}

/* A letter's number at a point: between 1 and 2, like no other's. */
static double letter_value(char letter, int point)
{
    return 1 + fmod((letter - 'A' + 1) * 0.6180339887498949 + point * 0.7548776662466927, 1);
}

static double number_here(reading *r)
{
    char digits[64];
    size_t count = 0;
    bool any = false;
    for (; (isdigit((unsigned char)*r->p) || *r->p == '.') && count + 1 < sizeof digits; r->p++) {
        any = any || *r->p != '.';
        digits[count++] = *r->p;
    }
    digits[count] = '\0';
    char *end;
    const double value = strtod(digits, &end);
    return any && *end == '\0' && !isdigit((unsigned char)*r->p) ? value : fail_at(r);
}

/* What follows \frac, \sqrt and ^: braces, or one digit, letter or command. */
static double argument_at(reading *r);

static double root_at(reading *r)
{
    double order = 2;
    if (*r->p == '[') {
        r->p++;
        order = closed(r, ']');
    }
    const double value = argument_at(r);
    return value < 0 && fmod(order, 2) == 1 ? -pow(-value, 1 / order) : pow(value, 1 / order);
}

static double atom_at(reading *r)
{
    if (isdigit((unsigned char)*r->p) || *r->p == '.') return number_here(r);
    if (isalpha((unsigned char)*r->p)) return letter_value(*r->p++, r->point);
    if (*r->p == '(' || *r->p == '{') return closed(r, *r->p++ == '(' ? ')' : '}');
    if (skips(r, "\\frac")) {
        const double above = argument_at(r);
        return above / argument_at(r);
    }
    if (skips(r, "\\sqrt")) return root_at(r);
    if (skips(r, "\\pi")) return 3.14159265358979323846;
    if (skips(r, "\\infty")) return 7.77e77 * (1 + r->point);
    return fail_at(r);
}

static double argument_at(reading *r)
{
    if (++r->depth > DEPTH_MAX) return fail_at(r);
    double value;
    if (isdigit((unsigned char)*r->p)) {
        value = *r->p++ - '0';
    } else {
        value = atom_at(r);
    }
    r->depth--;
    return value;
}

static double power_at(reading *r)
{
    const double base = atom_at(r);
    if (!r->ok || *r->p != '^') return base;
    r->p++;
    if (*r->p != '-') return pow(base, argument_at(r));
    r->p++;
    return pow(base, -argument_at(r));
}

static bool begins_factor(const reading *r)
{
    return isalnum((unsigned char)*r->p) || *r->p == '(' || *r->p == '{' || strncmp(r->p, "\\frac", 5) == 0 ||
           strncmp(r->p, "\\sqrt", 5) == 0 || strncmp(r->p, "\\pi", 3) == 0;
}

static double product_at(reading *r)
{
    double value = power_at(r);
    while (r->ok && (*r->p == '*' || *r->p == '/' || begins_factor(r))) {
        const bool divides = *r->p == '/';
        r->p += *r->p == '*' || *r->p == '/';
        const double sign = *r->p == '-' ? -1 : 1;
        r->p += *r->p == '-';
        const double factor = sign * power_at(r);
        value = divides ? value / factor : value * factor;
    }
    return value;
}

static double sum_at(reading *r)
{
    if (++r->depth > DEPTH_MAX) return fail_at(r);
    double value = 0, sign = *r->p == '-' ? -1 : 1;
    r->p += *r->p == '-' || *r->p == '+';
    for (;;) {
        value += sign * product_at(r);
        if (!r->ok || (*r->p != '+' && *r->p != '-')) break;
        sign = *r->p++ == '-' ? -1 : 1;
    }
    r->depth--;
    return value;
}

bool mq__math_value(const char *plain, int point, double *value)
{
    reading r = {.p = plain, .point = point, .ok = true};
    *value = sum_at(&r);
    return r.ok && *r.p == '\0' && isfinite(*value);
}
