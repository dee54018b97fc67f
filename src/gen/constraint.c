/* One answer held to a schema, or its tool calls to their tools: where in the text it is, and which tokens may come next. */
#include "base/buf.h"
#include "base/c_locale.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "gen/automaton.h"
#include "gen/constraint_ahead.h"
#include "gen/constraint_tools.h"
#include "gen/vocabulary.h"

#include <string.h>

#define SCHEMA_BYTES ((size_t)4 << 20)

typedef enum mask_stage {
    MASK_BEFORE, /* free, until `after` has passed; where something has to follow, the end may not come */
    MASK_FREE,   /* free, until a call begins */
    MASK_RULED,  /* the automaton says what may come */
    MASK_OVER    /* the end may come, nothing else */
} mask_stage;

struct mq_constraint {
    const mq_vocabulary *vocabulary;
    mq_grammar grammar;
    mq_automaton *automaton;
    mask_stage stage;
    mq_tool_format format; /* NONE: a schema, or either that or calls: all of the text is ruled */
    bool required, parallel;
    bool begun; /* text other than blanks has come: a Llama call may not begin any more */
    char *after;
    mq_buf tail; /* the last bytes of free text: a marker may be cut by tokens */
    uint32_t state;
    uint32_t *ends;       /* [words] the mask of the end alone */
    uint32_t *others;     /* [words] all but the end; NULL: the answer may end before `after` */
    mq_constraint *ahead; /* NULL: it was not wanted */
};

static size_t mask_words(const mq_constraint *c)
{
    return (c->vocabulary->vocab + 31) / 32;
}

static void allow(uint32_t *mask, int32_t token)
{
    mask[token / 32] |= 1u << token % 32;
}

static void allow_ends(const mq_constraint *c, uint32_t *mask)
{
    for (size_t i = 0; i < c->vocabulary->eos_count; i++) {
        const int32_t eos = c->vocabulary->eos[i];
        if (eos >= 0 && (uint32_t)eos < c->vocabulary->vocab) allow(mask, eos);
    }
}

/* False: no memory. */
static bool make_fixed_masks(mq_constraint *c)
{
    const bool follows = c->format == MQ_TOOLS_NONE || c->required;
    c->ends = mq__alloc_zero(mask_words(c), sizeof *c->ends);
    if (!c->ends) return false;
    allow_ends(c, c->ends);
    if (!c->after || !follows || c->vocabulary->eos_count == 0) return true;
    c->others = mq__alloc_zero(mask_words(c), sizeof *c->others);
    for (size_t i = 0; c->others && i < mask_words(c); i++) {
        c->others[i] = ~c->ends[i];
    }
    return c->others != NULL;
}

/* ---- masks */

/* Tokens in the order of their bytes: what two have in common is walked once, and those that begin like one that failed fail. */
static void walk_tokens(mq_constraint *c, uint32_t state, uint32_t *mask)
{
    const mq_vocabulary *v = c->vocabulary;
    uint32_t states[MQ_TOKEN_BYTES + 1];
    unsigned valid = 0, common = 0; /* bytes of the latest walk that went well; of the next token that it shares */
    bool failed = false;
    states[0] = state;
    for (size_t i = 0; i < v->ordered; i++) {
        const mq_token_bytes *token = &v->token[v->order[i]];
        if (token->shared < common) common = token->shared;
        if (failed && common > valid) continue;
        const uint8_t *bytes = v->bytes + token->offset;
        unsigned at = common < valid ? common : valid;
        failed = false;
        for (; at < token->count && !failed; at++) {
            states[at + 1] = mq__automaton_step(c->automaton, states[at], bytes[at]);
            failed = states[at + 1] == MQ_DEAD;
        }
        valid = failed ? at - 1 : at;
        if (!failed) allow(mask, v->order[i]);
        common = MQ_TOKEN_BYTES;
    }
}

static const uint32_t *ruled_mask(mq_constraint *c)
{
    c->state = mq__automaton_trim(c->automaton, c->state);
    uint32_t **kept = mq__automaton_mask(c->automaton, c->state);
    if (!*kept) {
        uint32_t *mask = mq__alloc_zero(mask_words(c), sizeof *mask);
        if (!mask) return c->ends;
        walk_tokens(c, c->state, mask);
        if (mq__automaton_is_final(c->automaton, c->state)) allow_ends(c, mask);
        bool any = false;
        for (size_t i = 0; i < mask_words(c) && !any; i++) {
            any = mask[i] != 0;
        }
        if (!any) allow_ends(c, mask); /* a bound ended it: no token leads on */
        kept = mq__automaton_mask(c->automaton, c->state);
        *kept = mask;
    }
    return *kept;
}

const uint32_t *mq_constraint_mask(mq_constraint *c)
{
    if (c->stage == MASK_BEFORE) return c->others;
    if (c->stage == MASK_FREE) return NULL;
    if (c->vocabulary->eos_count == 0 && c->stage == MASK_OVER) return NULL;
    return c->stage == MASK_OVER ? c->ends : ruled_mask(c);
}

/* ---- text */

static bool feed_bytes(mq_constraint *c, const char *bytes, size_t count, size_t *used);

/* A call is complete, or the answer: what now? */
static void reach_end(mq_constraint *c)
{
    if (c->format == MQ_TOOLS_NONE) return; /* a number may go on; the automaton knows */
    c->stage = c->parallel ? MASK_FREE : MASK_OVER;
    mq__buf_clear(&c->tail);
}

/* Bytes of a ruled text; false: they do not belong there. */
static bool feed_ruled(mq_constraint *c, const char *bytes, size_t count, size_t *used)
{
    for (size_t i = 0; i < count; i++) {
        c->state = mq__automaton_step(c->automaton, c->state, (uint8_t)bytes[i]);
        if (c->state == MQ_DEAD) return false;
        if (c->format == MQ_TOOLS_NONE || !mq__automaton_is_final(c->automaton, c->state)) continue;
        reach_end(c);
        *used = i + 1;
        return true;
    }
    *used = count;
    return true;
}

/* Free text up to the end of `marker`; *used: bytes of it. True: the marker has come. */
static bool find_marker(mq_constraint *c, const char *marker, const char *bytes, size_t count, size_t *used)
{
    const size_t length = strlen(marker), before = c->tail.len;
    *used = count;
    if (length == 0 || !mq__buf_append(&c->tail, bytes, count)) return false;
    const char *found = memmem(c->tail.data, c->tail.len, marker, length);
    if (found) {
        *used = (size_t)(found - c->tail.data) + length - before;
        mq__buf_clear(&c->tail);
        return true;
    }
    if (c->tail.len >= length) {
        const size_t drop = c->tail.len - (length - 1);
        memmove(c->tail.data, c->tail.data + drop, length - 1);
        c->tail.len = length - 1;
    }
    return false;
}

static bool is_space_byte(char byte)
{
    return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t';
}

/* Llama 3 writes a call as the whole answer: it begins with a brace. */
static bool begins_bare(mq_constraint *c, const char *bytes, size_t count, size_t *used)
{
    if (c->format != MQ_TOOLS_LLAMA3 || c->begun) return false;
    size_t i = 0;
    while (i < count && is_space_byte(bytes[i])) {
        i++;
    }
    c->begun = i < count;
    *used = i;
    return i < count && bytes[i] == '{';
}

/* Free text; what begins a call is ruled from there on, unless it goes on as no call can: then it is text. */
static void feed_free(mq_constraint *c, const char *bytes, size_t count, size_t *used)
{
    const bool begins =
        begins_bare(c, bytes, count, used) || find_marker(c, mq__tool_marker(c->format), bytes, count, used);
    if (!begins) return;
    size_t more = 0;
    c->stage = MASK_RULED;
    c->state = mq__automaton_start(c->automaton, 0);
    if (feed_ruled(c, bytes + *used, count - *used, &more))
        *used += more;
    else
        c->stage = MASK_FREE;
}

static bool feed_bytes(mq_constraint *c, const char *bytes, size_t count, size_t *used)
{
    switch (c->stage) {
    case MASK_BEFORE:
        if (!find_marker(c, c->after, bytes, count, used)) return true;
        c->stage = c->format != MQ_TOOLS_NONE && !c->required ? MASK_FREE : MASK_RULED;
        return true;
    case MASK_FREE:
        feed_free(c, bytes, count, used);
        return true;
    case MASK_RULED:
        return feed_ruled(c, bytes, count, used);
    case MASK_OVER:
        break;
    }
    return false;
}

mq_status mq_constraint_accept(mq_constraint *c, int32_t token, mq_error *error)
{
    const mq_vocabulary *v = c->vocabulary;
    for (size_t i = 0; i < v->eos_count; i++) {
        if (v->eos[i] == token) return MQ_OK; /* the answer ends here */
    }
    if (token < 0 || (uint32_t)token >= v->vocab) {
        return mq__fail(error, MQ_USAGE, "constraint: token: expected one of %u, got %d", v->vocab, token);
    }
    const char *bytes = (const char *)v->bytes + v->token[token].offset;
    for (size_t at = 0, used = 0, count = v->token[token].count; at < count; at += used) {
        used = 0;
        const mask_stage before = c->stage;
        if (!feed_bytes(c, bytes + at, count - at, &used)) {
            return mq__fail(error, MQ_USAGE, "constraint: token: expected one that the mask allows, got %d", token);
        }
        if (used == 0 && c->stage == before) break; /* a call that was none: the rest is text */
    }
    return c->tail.failed ? mq__fail(error, MQ_NO_MEMORY, "constraint: expected memory, got none") : MQ_OK;
}

/* ---- ahead */

/* Shares everything but the automaton and the text. */
static mq_constraint *new_ahead(const mq_constraint *c)
{
    mq_constraint *ahead = mq__alloc_zero(1, sizeof *ahead);
    if (!ahead) return NULL;
    *ahead = *c;
    ahead->ahead = NULL;
    ahead->tail = (mq_buf){0};
    if (mq__automaton_new(&c->grammar, &ahead->automaton, NULL) == MQ_OK) return ahead;
    mq__free(ahead);
    return NULL;
}

static void free_ahead(mq_constraint *ahead)
{
    if (!ahead) return;
    mq__automaton_free(ahead->automaton);
    mq__buf_free(&ahead->tail);
    mq__free(ahead);
}

mq_constraint *mq__constraint_ahead(mq_constraint *c)
{
    if (!c->ahead) c->ahead = new_ahead(c);
    mq_constraint *ahead = c->ahead;
    if (!ahead) return NULL;
    ahead->stage = c->stage;
    ahead->begun = c->begun;
    mq__buf_clear(&ahead->tail);
    if (c->tail.len && !mq__buf_append(&ahead->tail, c->tail.data, c->tail.len)) return NULL;
    if (c->stage == MASK_RULED || c->stage == MASK_BEFORE) { /* a draft may go on behind `after` */
        ahead->state = mq__automaton_adopt(ahead->automaton, c->automaton, c->state);
    }
    return ahead;
}

/* The bytes that have to come; they end where a call does, or the answer. */
static size_t forced_bytes(const mq_constraint *c, uint8_t *bytes, size_t most)
{
    size_t count = 0;
    uint32_t at = c->state;
    while (count < most) {
        const int byte = mq__automaton_forced(c->automaton, at);
        if (byte < 0) break;
        at = mq__automaton_step(c->automaton, at, (uint8_t)byte);
        if (at == MQ_DEAD) break;
        bytes[count++] = (uint8_t)byte;
    }
    return count;
}

uint32_t mq__constraint_forced(mq_constraint *c, int32_t *tokens, bool *only, uint32_t most)
{
    uint8_t bytes[MQ_TOKEN_BYTES];
    uint32_t count = 0;
    if (c->stage != MASK_RULED) return 0;
    const size_t length = forced_bytes(c, bytes, sizeof bytes);
    for (size_t at = 0; at < length && count < most; count++) {
        size_t others;
        const int32_t token = mq__vocabulary_longest(c->vocabulary, bytes + at, length - at, &others);
        if (token < 0) break;
        at += c->vocabulary->token[token].count;
        if (at == length && others) break; /* what comes then may be the rest of a longer token */
        if (mq_constraint_accept(c, token, NULL) != MQ_OK) break;
        tokens[count] = token;
        only[count] = others == 0;
    }
    return count;
}

/* ---- making one */

/* Numbers beyond 64 bits stay what they are: an enumeration may have them. */
static json_t *parse_json(const char *text, size_t bytes, const char *what, mq_error *error)
{
    json_t *json;
    if (bytes > SCHEMA_BYTES) {
        (void)mq__fail(error, MQ_LIMIT, "%s: expected at most %zu bytes, got %zu", what, SCHEMA_BYTES, bytes);
        return NULL;
    }
    const mq_status status =
        mq__json_read(text, bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, MQ_JSON_KEEP_NUMBERS, what, &json, error);
    if (status != MQ_OK && status != MQ_NO_MEMORY) error->status = MQ_USAGE;
    return json;
}

/* Rule 0: the schema, or a call from its marker on. */
static mq_status emit_schema_text(mq_constraint *c, mq_schemas *s, const json_t *schema)
{
    s->root = schema;
    mq__grammar_begin(&c->grammar, 0);
    mq__schemas_call(s, mq__schemas_rule(s, schema));
    (void)mq__grammar_emit(&c->grammar, MQ_OP_RETURN, 0, 0);
    return mq__schemas_emit(s);
}

static mq_status emit_tools(mq_constraint *c, mq_schemas *s, const json_t *tools, mq_error *error)
{
    const uint32_t start = mq__grammar_rule(&c->grammar); /* rule 1 + those of JSON: with the marker */
    mq_status status = mq__tools_emit(s, 0, c->format, tools, error);
    mq__grammar_begin(&c->grammar, start);
    mq__schemas_call(s, s->space);
    const char *marker = mq__tool_marker(c->format);
    mq__grammar_text(&c->grammar, marker, strlen(marker));
    mq__schemas_call(s, 0);
    (void)mq__grammar_emit(&c->grammar, MQ_OP_RETURN, 0, 0);
    if (status == MQ_OK) status = mq__schemas_emit(s);
    return status;
}

/* Rule 0: the schema, or calls. The tools' keywords are left out unless they are strict by themselves. */
static mq_status emit_either(mq_schemas *s, const mq_constraint_options *o, const json_t *schema, const json_t *tools,
                             mq_error *error)
{
    s->root = schema;
    const uint32_t rule = mq__schemas_rule(s, schema);
    mq_status status = mq__schemas_emit(s);
    s->strict = o->strict_tools;
    if (status == MQ_OK) status = mq__tools_emit_either(s, rule, o->format, o->parallel, tools, error);
    return status == MQ_OK ? mq__schemas_emit(s) : status;
}

static mq_status build_grammar(mq_constraint *c, const mq_constraint_options *o, const json_t *schema,
                               const json_t *tools, uint32_t *start, char **dropped, mq_error *error)
{
    mq_schemas s;
    const unsigned long failures = mq__json_failures();
    (void)mq__grammar_rule(&c->grammar);
    mq__schemas_begin(&s, &c->grammar, o->strict, error);
    *start = 0;
    mq_status status;
    if (schema && tools) {
        status = emit_either(&s, o, schema, tools, error);
    } else if (schema) {
        status = emit_schema_text(c, &s, schema);
    } else {
        if (o->required && c->format != MQ_TOOLS_LLAMA3) *start = (uint32_t)c->grammar.rule_count;
        status = emit_tools(c, &s, tools, error);
    }
    if (mq__json_failures() != failures) { /* something may have been left out */
        status = mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none");
    }
    if (status == MQ_OK && !mq__grammar_finish(&c->grammar)) {
        status = c->grammar.failed ? mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none")
                                   : mq__fail(error, MQ_USAGE,
                                              "schema: expected one that some value satisfies, got one that none does");
    }
    if (status == MQ_OK && dropped && s.dropped.len) {
        *dropped = mq__buf_take(&s.dropped);
        if (!*dropped) status = mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none");
    }
    mq__schemas_end(&s);
    return status;
}

static mq_status fill_constraint(mq_constraint *c, const mq_constraint_options *o, char **dropped, mq_error *error)
{
    uint32_t start = 0;
    const bool calls = o->tools || !o->schema;
    json_t *schema = o->schema ? parse_json(o->schema, o->schema_bytes, "schema", error) : NULL, *tools = NULL;
    if (calls && (schema || !o->schema)) {
        tools = parse_json(o->tools ? o->tools : "", o->tools ? o->tools_bytes : 0, "tools", error);
    }
    mq_c_locale scope = {.numbers = (locale_t)0};
    mq_status status = error->status;
    if ((schema || !o->schema) && (tools || !calls)) {
        status = mq__c_locale_enter(&scope) ? build_grammar(c, o, schema, tools, &start, dropped, error)
                                            : mq__fail(error, MQ_NO_MEMORY, "schema: expected memory, got none");
        mq__c_locale_leave(&scope);
    }
    json_decref(schema);
    json_decref(tools);
    if (status == MQ_OK) status = mq__automaton_new(&c->grammar, &c->automaton, error);
    if (status == MQ_OK) c->state = mq__automaton_start(c->automaton, start);
    if (status == MQ_OK && c->state == MQ_DEAD) {
        status = mq__fail(error, MQ_LIMIT, "schema: expected one that bounds allow, got a larger one");
    }
    return status;
}

mq_status mq_constraint_new(const mq_vocabulary *vocabulary, const mq_constraint_options *o, mq_constraint **out,
                            char **dropped, mq_error *error)
{
    mq_error own = {0};
    *out = NULL;
    if (dropped) *dropped = NULL;
    mq_constraint *c = mq__alloc_zero(1, sizeof *c);
    if (!c) return mq__fail(error, MQ_NO_MEMORY, "constraint: expected memory, got none");
    c->vocabulary = vocabulary;
    c->format = o->schema ? MQ_TOOLS_NONE : o->format;
    c->required = o->required;
    c->parallel = o->parallel;
    c->after = o->after ? mq__strdup(o->after) : NULL;
    c->stage = o->after ? MASK_BEFORE : o->schema || o->required ? MASK_RULED : MASK_FREE;
    mq_status status = (c->after || !o->after) && make_fixed_masks(c)
                           ? fill_constraint(c, o, dropped, &own)
                           : mq__fail(&own, MQ_NO_MEMORY, "constraint: expected memory, got none");
    if (status == MQ_OK) {
        *out = c;
        return MQ_OK;
    }
    if (error) *error = own;
    mq_constraint_free(c);
    return status;
}

void mq_constraint_free(mq_constraint *c)
{
    if (!c) return;
    free_ahead(c->ahead);
    mq__automaton_free(c->automaton);
    mq__grammar_free(&c->grammar);
    mq__buf_free(&c->tail);
    mq__free(c->after);
    mq__free(c->ends);
    mq__free(c->others);
    mq__free(c);
}
