/* Strings: lengths, patterns, and the formats that are patterns. */
#include "gen/schema_pattern.h"

#include <stdio.h>
#include <string.h>

#define LENGTH_MOST 4096

#define LABEL  "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define DATE   "\\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\\d|3[01])"
#define OFFSET "(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)"
#define TIME   "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?" OFFSET
#define HOURS  "T(\\d{1,6}H(\\d{1,6}M(\\d{1,6}S)?)?|\\d{1,6}M(\\d{1,6}S)?|\\d{1,6}S)"
#define DAYS   "(\\d{1,6}Y(\\d{1,6}M(\\d{1,6}D)?)?|\\d{1,6}M(\\d{1,6}D)?|\\d{1,6}D)"
#define ATOM   "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define URI    "([A-Za-z0-9._~:@!$&'()*+,;=/?-]|%[0-9A-Fa-f]{2})"
#define BYTE   "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define H4     "[0-9A-Fa-f]{1,4}"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P(" DAYS "(" HOURS ")?|" HOURS "|\\d{1,6}W)$"},
    {"email", "^" ATOM "(\\." ATOM ")*@" LABEL "(\\." LABEL ")+$"},
    {"hostname", "^" LABEL "(\\." LABEL ")*$"},
    {"ipv4", "^" BYTE "(\\." BYTE "){3}$"},
    {"ipv6", "^((" H4 ":){7}" H4 "|(" H4 ":){1,7}:|(" H4 ":){1,6}:" H4 "|(" H4 ":){1,5}(:" H4 "){2}|(" H4 ":){1,4}(:" H4
             "){3}|(" H4 ":){1,3}(:" H4 "){4}|(" H4 ":){1,2}(:" H4 "){5}|" H4 ":(:" H4 "){6}|:(:" H4 "){1,7}|::)$"},
    {"uuid", "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"},
    {"uri", "^[A-Za-z][A-Za-z0-9+.-]*:" URI "+(#" URI "*)?$"},
};

static const char *format_pattern(const char *name)
{
    for (size_t i = 0; name && i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) return formats[i].pattern;
    }
    return NULL;
}

static void emit_lengths(mq_schemas *s, long least, long most)
{
    mq_grammar *g = s->g;
    uint32_t chain = MQ_NEVER;
    mq__grammar_byte(g, '"', '"');
    for (long n = 0; n < least; n++) {
        mq__schemas_call(s, s->character);
    }
    for (long n = least; n < most; n++) {
        chain = mq__grammar_chain(g, chain);
        mq__schemas_call(s, s->character);
    }
    mq__grammar_close_chain(g, chain);
    if (most < 0) mq__schemas_characters(s);
    mq__grammar_byte(g, '"', '"');
    mq__grammar_end(g);
}

typedef struct string_lengths {
    long least, most; /* -1: none */
} string_lengths;

/* A string of a pattern; false: the pattern cannot be kept, or, where `both` is asked for, not the lengths. */
static bool emit_pattern(mq_schemas *s, const char *text, size_t bytes, string_lengths lengths, bool both)
{
    mq_pattern pattern;
    mq__pattern_read(&pattern, text, bytes);
    const bool limited = !pattern.fault && mq__pattern_limit(&pattern, lengths.least > 0 ? (uint32_t)lengths.least : 0,
                                                             lengths.most >= 0 ? (uint32_t)lengths.most : MQ_ENDLESS);
    const bool emitted = (limited || !both || pattern.failed) && mq__pattern_emit(&pattern, s);
    if (emitted) {
        mq__pattern_emit_classes(&pattern, s);
        if (!limited && lengths.least > 0) (void)mq__schema_leave_out(s, "minLength");
        if (!limited && lengths.most >= 0) (void)mq__schema_leave_out(s, "maxLength");
    } else if (!both) {
        char name[64];
        snprintf(name, sizeof name, "pattern (%s)", pattern.fault);
        (void)mq__schema_leave_out(s, name);
    }
    mq__pattern_free(&pattern);
    return emitted;
}

void mq__schema_string(mq_schemas *s, const json_t *schema)
{
    const json_t *pattern = json_object_get(schema, "pattern");
    const char *format = format_pattern(json_string_value(json_object_get(schema, "format")));
    const string_lengths lengths = {mq__schema_bound(s, schema, "minLength", LENGTH_MOST),
                                    mq__schema_bound(s, schema, "maxLength", LENGTH_MOST)};
    if (pattern && !json_is_string(pattern)) (void)mq__schema_leave_out(s, "pattern");
    if (lengths.most >= 0 && lengths.most < lengths.least) {
        (void)mq__grammar_emit(s->g, MQ_OP_FAIL, 0, 0);
    } else if (json_is_string(pattern) &&
               emit_pattern(s, json_string_value(pattern), json_string_length(pattern), lengths, false)) {
        return;
    } else if (!format ||
               !emit_pattern(s, format, strlen(format), lengths, true)) { /* a format is a hint: lengths go first */
        emit_lengths(s, lengths.least > 0 ? lengths.least : 0, lengths.most);
    }
}
