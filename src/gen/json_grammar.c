/* JSON as rules: strict (RFC 8259), with little white space and numbers that fit, so that a model cannot go on for ever in either. */
#include "gen/json_grammar.h"

#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "base/real_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define INDENT_MOST 40

void mq__schemas_call(mq_schemas *s, uint32_t rule)
{
    (void)mq__grammar_emit(s->g, MQ_OP_CALL, rule, 0);
}

/* Nothing, a blank, or a line end with blanks. */
static void emit_space(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq__grammar_begin(g, s->space);
    const uint32_t any = mq__grammar_choice(g), line = mq__grammar_choice(g);
    mq__grammar_byte(g, ' ', ' ');
    mq__grammar_end(g);
    mq__grammar_otherwise(g, line);
    mq__grammar_byte(g, '\n', '\n');
    for (int i = 0; i < INDENT_MOST; i++) {
        const uint32_t more = mq__grammar_choice(g);
        mq__grammar_byte(g, ' ', ' ');
        const uint32_t next = mq__grammar_emit(g, MQ_OP_JUMP, 0, 0);
        mq__grammar_otherwise(g, more);
        mq__grammar_end(g);
        mq__grammar_land(g, next);
    }
    mq__grammar_end(g);
    mq__grammar_otherwise(g, any);
    mq__grammar_end(g);
}

typedef struct byte_range {
    uint8_t low, high;
} byte_range;

/* One way of several: a byte of each range in turn, then the rule's end. `choice` of the way before is linked here. */
static void emit_way(mq_grammar *g, const byte_range *ranges, size_t count)
{
    const uint32_t choice = mq__grammar_choice(g);
    for (size_t i = 0; i < count; i++) {
        mq__grammar_byte(g, ranges[i].low, ranges[i].high);
    }
    mq__grammar_end(g);
    mq__grammar_otherwise(g, choice);
}

#define WAY(...)                                                                                                       \
    emit_way(g, (const byte_range[]){__VA_ARGS__}, sizeof((const byte_range[]){__VA_ARGS__}) / sizeof(byte_range))

static void add_hex(mq_byte_set *set)
{
    mq__set_add(set, '0', '9');
    mq__set_add(set, 'a', 'f');
    mq__set_add(set, 'A', 'F');
}

static void emit_hex(mq_grammar *g, int count)
{
    mq_byte_set hex = {{0}};
    add_hex(&hex);
    for (int i = 0; i < count; i++) {
        mq__grammar_set(g, &hex);
    }
}

/* What follows \u: a character below the surrogates or above them, or a pair of them. */
static void emit_escape(mq_grammar *g)
{
    mq_byte_set first = {{0}}, d = {{0}}, low = {{0}}, high = {{0}}, second = {{0}};
    add_hex(&first);
    first.bits['d' / 32] &= ~(1u << 'd' % 32);
    first.bits['D' / 32] &= ~(1u << 'D' % 32);
    mq__set_add(&d, 'd', 'd');
    mq__set_add(&d, 'D', 'D');
    mq__set_add(&low, '0', '7');
    mq__set_add(&high, '8', '9');
    mq__set_add(&high, 'a', 'b');
    mq__set_add(&high, 'A', 'B');
    mq__set_add(&second, 'c', 'f');
    mq__set_add(&second, 'C', 'F');
    const uint32_t plain = mq__grammar_choice(g);
    mq__grammar_set(g, &first);
    emit_hex(g, 3);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, plain);
    mq__grammar_set(g, &d);
    const uint32_t pair = mq__grammar_choice(g);
    mq__grammar_set(g, &low);
    emit_hex(g, 2);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, pair);
    mq__grammar_set(g, &high);
    emit_hex(g, 2);
    mq__grammar_text(g, "\\u", 2);
    mq__grammar_set(g, &d);
    mq__grammar_set(g, &second);
    emit_hex(g, 2);
    mq__grammar_end(g);
}

/* Well-formed UTF-8 of more than one byte (Unicode, table 3-7). */
static void emit_beyond(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq__grammar_begin(g, s->beyond);
    WAY({0xc2, 0xdf}, {0x80, 0xbf});
    WAY({0xe0, 0xe0}, {0xa0, 0xbf}, {0x80, 0xbf});
    WAY({0xe1, 0xec}, {0x80, 0xbf}, {0x80, 0xbf});
    WAY({0xed, 0xed}, {0x80, 0x9f}, {0x80, 0xbf});
    WAY({0xee, 0xef}, {0x80, 0xbf}, {0x80, 0xbf});
    WAY({0xf0, 0xf0}, {0x90, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf});
    WAY({0xf1, 0xf3}, {0x80, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf});
    WAY({0xf4, 0xf4}, {0x80, 0x8f}, {0x80, 0xbf}, {0x80, 0xbf});
    (void)mq__grammar_emit(g, MQ_OP_FAIL, 0, 0);
}

/* One character of a string, or an escape. */
static void emit_character(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq_byte_set plain = {{0}}, simple = {{0}};
    mq__grammar_begin(g, s->character);
    mq__set_add(&plain, 0x20, 0x21);
    mq__set_add(&plain, 0x23, 0x5b);
    mq__set_add(&plain, 0x5d, 0x7f);
    const uint32_t choice = mq__grammar_choice(g);
    mq__grammar_set(g, &plain);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, choice);
    const uint32_t beyond = mq__grammar_choice(g);
    mq__schemas_call(s, s->beyond);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, beyond);
    mq__grammar_byte(g, '\\', '\\');
    for (const char *c = "\"\\/bfnrt"; *c; c++) {
        mq__set_add(&simple, (uint8_t)*c, (uint8_t)*c);
    }
    const uint32_t escape = mq__grammar_choice(g);
    mq__grammar_set(g, &simple);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, escape);
    mq__grammar_byte(g, 'u', 'u');
    emit_escape(g);
}

void mq__schemas_characters(mq_schemas *s)
{
    const uint32_t again = mq__grammar_choice(s->g);
    mq__schemas_call(s, s->character);
    (void)mq__grammar_emit(s->g, MQ_OP_JUMP, again, 0);
    mq__grammar_otherwise(s->g, again);
}

static void emit_string(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq__grammar_begin(g, s->string);
    mq__grammar_byte(g, '"', '"');
    mq__schemas_characters(s);
    mq__grammar_byte(g, '"', '"');
    mq__grammar_end(g);
}

/* Up to `most` digits more; then the code goes on. */
static void emit_digits(mq_grammar *g, int most)
{
    uint32_t choices[MQ_DIGITS_MOST];
    for (int i = 0; i < most; i++) {
        choices[i] = mq__grammar_choice(g);
        mq__grammar_byte(g, '0', '9');
    }
    for (int i = 0; i < most; i++) {
        mq__grammar_otherwise(g, choices[i]);
    }
}

/* Each begins within the one before it. */
static void emit_digit_rules(mq_schemas *s)
{
    uint32_t choices[MQ_DIGITS_MOST];
    for (uint32_t n = 0; n < MQ_DIGITS_MOST; n++) {
        s->digits[n] = mq__grammar_rule(s->g);
    }
    for (uint32_t n = MQ_DIGITS_MOST - 1; n > 0; n--) {
        mq__grammar_begin(s->g, s->digits[n]);
        choices[n] = mq__grammar_choice(s->g);
        mq__grammar_byte(s->g, '0', '9');
    }
    for (uint32_t n = 1; n < MQ_DIGITS_MOST; n++) {
        mq__grammar_otherwise(s->g, choices[n]);
    }
    mq__grammar_begin(s->g, s->digits[0]);
    mq__grammar_end(s->g);
}

static void emit_sign(mq_grammar *g)
{
    const uint32_t sign = mq__grammar_choice(g);
    mq__grammar_byte(g, '-', '-');
    mq__grammar_otherwise(g, sign);
}

static void emit_whole_part(mq_grammar *g)
{
    const uint32_t zero = mq__grammar_choice(g);
    mq__grammar_byte(g, '0', '0');
    const uint32_t done = mq__grammar_emit(g, MQ_OP_JUMP, 0, 0);
    mq__grammar_otherwise(g, zero);
    mq__grammar_byte(g, '1', '9');
    emit_digits(g, MQ_DIGITS_MOST - 1);
    mq__grammar_land(g, done);
}

static void emit_numbers(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq_byte_set exponent = {{0}}, sign = {{0}};
    mq__grammar_begin(g, s->integer);
    emit_sign(g);
    emit_whole_part(g);
    mq__grammar_end(g);
    mq__grammar_begin(g, s->number);
    emit_sign(g);
    emit_whole_part(g);
    const uint32_t fraction = mq__grammar_choice(g);
    mq__grammar_byte(g, '.', '.');
    mq__grammar_byte(g, '0', '9');
    emit_digits(g, MQ_DIGITS_MOST - 1);
    mq__grammar_otherwise(g, fraction);
    const uint32_t power = mq__grammar_choice(g);
    mq__set_add(&exponent, 'e', 'e');
    mq__set_add(&exponent, 'E', 'E');
    mq__grammar_set(g, &exponent);
    const uint32_t signs = mq__grammar_choice(g);
    mq__set_add(&sign, '+', '+');
    mq__set_add(&sign, '-', '-');
    mq__grammar_set(g, &sign);
    mq__grammar_otherwise(g, signs);
    mq__grammar_byte(g, '0', '9');
    emit_digits(g, 1);
    mq__grammar_otherwise(g, power);
    mq__grammar_end(g);
}

static void emit_word(mq_schemas *s, const char *word)
{
    const uint32_t choice = mq__grammar_choice(s->g);
    mq__grammar_text(s->g, word, strlen(word));
    mq__grammar_end(s->g);
    mq__grammar_otherwise(s->g, choice);
}

/* `{` or `[`, members with commas, and the end; an object's members have keys. */
static void emit_list(mq_schemas *s, char open, char close, bool keys)
{
    mq_grammar *g = s->g;
    mq__grammar_byte(g, (uint8_t)open, (uint8_t)open);
    mq__schemas_call(s, s->space);
    const uint32_t any = mq__grammar_choice(g), again = mq__grammar_here(g);
    if (keys) {
        mq__schemas_call(s, s->string);
        mq__schemas_call(s, s->space);
        mq__grammar_byte(g, ':', ':');
        mq__schemas_call(s, s->space);
    }
    mq__schemas_call(s, s->value);
    mq__schemas_call(s, s->space);
    const uint32_t last = mq__grammar_choice(g);
    mq__grammar_byte(g, ',', ',');
    mq__schemas_call(s, s->space);
    (void)mq__grammar_emit(g, MQ_OP_JUMP, again, 0);
    mq__grammar_otherwise(g, last);
    mq__grammar_otherwise(g, any);
    mq__grammar_byte(g, (uint8_t)close, (uint8_t)close);
    mq__grammar_end(g);
}

static void emit_value(mq_schemas *s)
{
    mq_grammar *g = s->g;
    mq__grammar_begin(g, s->value);
    emit_word(s, "null");
    emit_word(s, "true");
    emit_word(s, "false");
    const uint32_t string = mq__grammar_choice(g);
    mq__schemas_call(s, s->string);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, string);
    const uint32_t number = mq__grammar_choice(g);
    mq__schemas_call(s, s->number);
    mq__grammar_end(g);
    mq__grammar_otherwise(g, number);
    const uint32_t object = mq__grammar_choice(g);
    emit_list(s, '{', '}', true);
    mq__grammar_otherwise(g, object);
    emit_list(s, '[', ']', false);
}

void mq__schemas_begin(mq_schemas *s, mq_grammar *g, bool strict, mq_error *error)
{
    *s = (mq_schemas){.g = g, .strict = strict, .error = error, .made = json_array()};
    s->dropped.max = 4096;
    if (!s->made) g->failed = true;
    s->space = mq__grammar_rule(g);
    s->character = mq__grammar_rule(g);
    s->string = mq__grammar_rule(g);
    s->number = mq__grammar_rule(g);
    s->integer = mq__grammar_rule(g);
    s->beyond = mq__grammar_rule(g);
    s->value = mq__grammar_rule(g);
    emit_space(s);
    emit_beyond(s);
    emit_character(s);
    emit_string(s);
    emit_numbers(s);
    emit_digit_rules(s);
    emit_value(s);
}

void mq__schemas_end(mq_schemas *s)
{
    mq__free(s->known);
    mq__buf_free(&s->dropped);
    json_decref(s->made);
}

/* ---- values as they are written */

static bool put_real(mq_buf *out, double value)
{
    char text[MQ_REAL_BYTES];
    return mq__buf_append(out, text, mq__real_print(value, text));
}

static bool print_value(mq_buf *out, const json_t *value)
{
    const char *big = mq__json_big_number(value), *key;
    json_t *item, *list = (json_t *)(uintptr_t)value;
    size_t i;
    if (big) return mq__buf_puts(out, big);
    if (json_is_real(value)) return put_real(out, json_real_value(value));
    if (json_is_array(value)) {
        mq__buf_putc(out, '[');
        json_array_foreach(value, i, item)
        {
            if ((i > 0 && !mq__buf_putc(out, ',')) || !print_value(out, item)) return false;
        }
        return mq__buf_putc(out, ']');
    }
    if (!json_is_object(value)) return mq__json_print(value, JSON_COMPACT | JSON_ENCODE_ANY, out);
    mq__buf_putc(out, '{');
    i = 0;
    json_object_foreach(list, key, item)
    {
        if (i++ > 0) mq__buf_putc(out, ',');
        json_t *name = json_string_nocheck(key);
        const bool put = name && print_value(out, name) && mq__buf_putc(out, ':') && print_value(out, item);
        json_decref(name);
        if (!put) return false;
    }
    return mq__buf_putc(out, '}');
}

void mq__grammar_json(mq_schemas *s, const json_t *value)
{
    mq_buf text = {0};
    if (print_value(&text, value))
        mq__grammar_text(s->g, text.data, text.len);
    else
        s->g->failed = true;
    mq__buf_free(&text);
}

bool mq__schema_is_object(const json_t *schema)
{
    return json_is_object(schema) && !mq__json_big_number(schema);
}

bool mq__schema_number_of(const json_t *value, double *number)
{
    const char *big = mq__json_big_number(value);
    *number = big ? strtod(big, NULL) : json_number_value(value);
    return big || json_is_number(value);
}

bool mq__schema_is_whole(const json_t *value)
{
    const char *big = mq__json_big_number(value);
    if (big) return !strpbrk(big, ".eE");
    const double real = json_is_real(value) ? json_real_value(value) : 0;
    return json_is_integer(value) || (json_is_real(value) && floor(real) >= real);
}
