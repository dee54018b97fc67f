/* Numbers within bounds, digit by digit. They have no exponent, and at most 15 digits in all, so that a reader's doubles keep their
 * order. */
#include "gen/json_grammar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BOUND_LIMIT    1e15
#define BOUND_FRACTION 9 /* digits behind the point of a bound */

/* A bound's size, and whether the bound itself is beyond it. */
typedef struct number_bound {
    double value;
    bool exclusive;
} number_bound;

/* What is made of a schema: lowest and highest value, digits behind the point, zeros at the end. */
typedef struct number_range {
    mq_grammar *g;
    const uint32_t *digits; /* the rules */
    number_bound low, high;
    int fraction, zeros;
} number_range;

/* A size of `whole` digits before the point, which is between `low` and `high` as long as it begins like them. Both have digits behind
 * the point as if they went on for ever with 0. */
typedef struct digit_path {
    const number_range *range;
    const char *low, *high; /* `whole` digits, then BOUND_FRACTION; NULL: it is within already */
    bool above, below;      /* low, high are no part of it */
    int whole, fraction, at;
} digit_path;

static int digit_at(const digit_path *p, const char *digits)
{
    return p->at < p->whole + BOUND_FRACTION ? digits[p->at] - '0' : 0;
}

static bool is_zero_from_here(const digit_path *p, const char *digits)
{
    return p->at >= p->whole + BOUND_FRACTION || strspn(digits + p->at, "0") == strlen(digits + p->at);
}

static void end_number(const digit_path *p)
{
    for (int i = 0; i < p->range->zeros; i++) {
        mq__grammar_byte(p->range->g, '0', '0');
    }
    mq__grammar_end(p->range->g);
}

/* Within the bounds for good: any digits. */
static void put_free_digits(const digit_path *p)
{
    mq_grammar *g = p->range->g;
    for (int at = p->at; at < p->whole; at++) {
        mq__grammar_byte(g, at == 0 && p->whole > 1 ? '1' : '0', '9');
    }
    if (p->at <= p->whole && p->fraction > 0) {
        const uint32_t point = mq__grammar_choice(g);
        mq__grammar_byte(g, '.', '.');
        mq__grammar_byte(g, '0', '9');
        (void)mq__grammar_emit(g, MQ_OP_CALL, p->range->digits[p->fraction - 1], 0);
        mq__grammar_end(g);
        mq__grammar_otherwise(g, point);
    } else if (p->at > p->whole) {
        (void)mq__grammar_emit(g, MQ_OP_CALL, p->range->digits[p->fraction - (p->at - p->whole)], 0);
    }
    end_number(p);
}

static void put_digits(digit_path p);

/* One way: the digits from `first` to `last`, then on along the bounds that are left. */
static void digits_way(const digit_path *p, int first, int last, const char *low, const char *high)
{
    if (first > last) return;
    const uint32_t way = mq__grammar_choice(p->range->g);
    digit_path next = *p;
    mq__grammar_byte(p->range->g, (uint8_t)('0' + first), (uint8_t)('0' + last));
    next.at++;
    next.low = low;
    next.high = high;
    put_digits(next);
    mq__grammar_otherwise(p->range->g, way);
}

static void put_digits(digit_path p)
{
    mq_grammar *g = p.range->g;
    if (p.low && !p.above && is_zero_from_here(&p, p.low)) p.low = NULL; /* all that begins so is at least `low` */
    if (!p.low && !p.high) {
        put_free_digits(&p);
        return;
    }
    const bool at_high = p.high && is_zero_from_here(&p, p.high);
    if (p.at >= p.whole && !p.low && !(at_high && p.below)) {
        const uint32_t more = mq__grammar_choice(g);
        end_number(&p);
        mq__grammar_otherwise(g, more);
    }
    if (p.at >= p.whole + p.fraction || (at_high && p.at >= p.whole && p.below)) {
        (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
        return;
    }
    if (p.at == p.whole) mq__grammar_byte(g, '.', '.');
    const int low = p.low ? digit_at(&p, p.low) : -1, high = p.high ? digit_at(&p, p.high) : 10;
    const int least = p.at == 0 && p.whole > 1 ? 1 : 0;
    if (low == high) {
        digits_way(&p, low, high, p.low, p.high);
    } else {
        if (p.low) digits_way(&p, low, low, p.low, NULL);
        digits_way(&p, low + 1 > least ? low + 1 : least, high - 1, NULL, NULL);
        if (p.high) digits_way(&p, high, high, NULL, p.high);
    }
    (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
}

/* The shortest digits that are read as the value, with BOUND_FRACTION of them behind the point; false: that is too few. */
static bool spell_value(double value, char text[32])
{
    for (int places = 0; places <= BOUND_FRACTION; places++) {
        const int length = snprintf(text, 32, "%#.*f", places, value);
        const double read = strtod(text, NULL);
        if (read < value || read > value) continue;
        memset(text + length, '0', (size_t)(BOUND_FRACTION - places));
        text[length + BOUND_FRACTION - places] = '\0';
        return true;
    }
    return false;
}

/* "12.5": 12 and 500000000; how many digits the first has. */
static int spell_bound(double value, char digits[32])
{
    (void)spell_value(value, digits); /* as it was read */
    const int whole = (int)strlen(digits) - BOUND_FRACTION - 1;
    memmove(digits + whole, digits + whole + 1, BOUND_FRACTION + 1);
    return whole;
}

/* Sizes from `low` to `high`, neither below 0, then the rule's end. */
static void put_sizes(const number_range *range, number_bound low, number_bound high)
{
    char least[32], most[32];
    mq_grammar *g = range->g;
    if (range->zeros > 0 && low.value <= 0) {
        const uint32_t nothing = mq__grammar_choice(g);
        mq__grammar_byte(g, '0', '0');
        mq__grammar_end(g);
        mq__grammar_otherwise(g, nothing);
        low.value = 1;
    }
    const int from = spell_bound(low.value, least), to = spell_bound(high.value, most);
    for (int whole = from; whole <= to && low.value <= high.value; whole++) {
        const uint32_t way = mq__grammar_choice(g);
        const int room = MQ_DIGITS_MOST - whole;
        put_digits((digit_path){.range = range,
                                .low = whole == from ? least : NULL,
                                .high = whole == to ? most : NULL,
                                .above = low.exclusive,
                                .below = high.exclusive,
                                .whole = whole,
                                .fraction = range->fraction < room ? range->fraction : room});
        mq__grammar_otherwise(g, way);
    }
    (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
}

static void put_range(const number_range *range)
{
    const number_bound low = range->low, high = range->high;
    if (low.value < 0) {
        const number_bound nearest = {high.value < 0 ? -high.value : 0, high.value <= 0 && high.exclusive};
        const uint32_t sign = mq__grammar_choice(range->g);
        mq__grammar_byte(range->g, '-', '-');
        put_sizes(range, nearest, (number_bound){-low.value, low.exclusive});
        mq__grammar_otherwise(range->g, sign);
    }
    if (high.value >= 0)
        put_sizes(range, (number_bound){low.value > 0 ? low.value : 0, low.value >= 0 && low.exclusive}, high);
    else
        (void)mq__grammar_emit(range->g, MQ_OP_FAIL, 0, 0);
}

/* ---- keywords */

/* Narrows a bound by a keyword's value. `side` is 1 for the lowest value, -1 for the highest. Bounds that every number keeps are none. */
static void narrow(mq_schemas *s, number_bound *bound, int side, const json_t *schema, const char *name, bool exclusive,
                   bool whole)
{
    char text[32];
    const json_t *keyword = json_object_get(schema, name);
    if (!keyword || (exclusive && json_is_boolean(keyword)))
        return; /* true: a word about the other keyword, see below */
    double value;
    value = mq__schema_number_of(keyword, &value) ? value + 0.0 : NAN; /* no -0 */
    if (value * side <= -BOUND_LIMIT) return;
    if (!(fabs(value) < BOUND_LIMIT) || (!whole && !spell_value(value, text))) {
        (void)mq__schema_leave_out(s, name);
        return;
    }
    const double further = (value - bound->value) * side;
    if (further > 0) *bound = (number_bound){value, exclusive};
    if (further >= 0 && exclusive) bound->exclusive = true;
}

static void read_bounds(mq_schemas *s, number_range *range, const json_t *schema, bool whole)
{
    const bool above = json_is_true(json_object_get(schema, "exclusiveMinimum")); /* as draft 4 has it */
    const bool below = json_is_true(json_object_get(schema, "exclusiveMaximum"));
    narrow(s, &range->low, 1, schema, "minimum", false, whole);
    range->low.exclusive = above && json_object_get(schema, "minimum");
    narrow(s, &range->low, 1, schema, "exclusiveMinimum", true, whole);
    narrow(s, &range->high, -1, schema, "maximum", false, whole);
    range->high.exclusive = below && json_object_get(schema, "maximum");
    narrow(s, &range->high, -1, schema, "exclusiveMaximum", true, whole);
}

/* A power of 10 that all values are multiples of; false: there is none. */
static bool read_step(mq_schemas *s, const json_t *schema, int *power)
{
    const json_t *step = json_object_get(schema, "multipleOf");
    for (int i = -BOUND_FRACTION; json_is_number(step) && i < MQ_DIGITS_MOST; i++) {
        char text[16];
        snprintf(text, sizeof text, "1e%d", i);
        const double exact = strtod(text, NULL), value = json_number_value(step);
        *power = i;
        if (value <= exact && value >= exact) return true;
    }
    if (step) (void)mq__schema_leave_out(s, "multipleOf");
    return false;
}

/* Bounds of whole numbers in units of 10^zeros, both within. */
static void make_whole(number_range *range)
{
    long long low = (long long)ceil(range->low.value), high = (long long)floor(range->high.value), unit = 1;
    if (range->low.exclusive && (double)low <= range->low.value) low++;
    if (range->high.exclusive && (double)high >= range->high.value) high--;
    for (int i = 0; i < range->zeros; i++) {
        unit *= 10;
    }
    range->low = (number_bound){(double)(low / unit + (low > 0 && low % unit != 0)), false};
    range->high = (number_bound){(double)(high / unit - (high < 0 && high % unit != 0)), false};
    range->fraction = 0;
}

void mq__schema_number(mq_schemas *s, const json_t *schema, bool whole)
{
    const double most = BOUND_LIMIT - 1;
    number_range range = {.g = s->g, .digits = s->digits, .low = {-most, false}, .high = {most, false}};
    int power = 0;
    const bool steps = read_step(s, schema, &power);
    whole = whole || (steps && power >= 0);
    range.fraction = steps ? -power : MQ_DIGITS_MOST;
    range.zeros = steps && power > 0 ? power : 0;
    read_bounds(s, &range, schema, whole);
    if (whole) make_whole(&range);
    if (range.low.value <= -most && range.high.value >= most && (!steps || power == 0)) {
        mq__schemas_call(s, whole ? s->integer : s->number);
        mq__grammar_end(s->g);
    } else {
        put_range(&range);
    }
}
