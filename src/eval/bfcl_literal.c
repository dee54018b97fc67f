/* A recursive descent over the literals of three languages, and over Python calls. Whatever it is given, it ends: depth is
 * bounded and every step consumes text. */
#include "eval/bfcl.h"

#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 32, WORD_MAX = 256 };

typedef struct reader {
    const char *p; /* ends with NUL */
    mq_bfcl_language language;
    const char *type; /* of numbers; NULL: any */
    int depth;
} reader;

static json_t *read_value(reader *r);

static void skip_space_bfcl_literal(reader *r)
{
    while (isspace((unsigned char)*r->p)) {
        r->p++;
    }
}

static bool take_bfcl_literal(reader *r, const char *text)
{
    skip_space_bfcl_literal(r);
    const size_t length = strlen(text);
    if (strncmp(r->p, text, length) != 0) return false;
    r->p += length;
    return true;
}

/* A name with dots; false when there is none. */
static bool read_word(reader *r, char word[WORD_MAX])
{
    size_t length = 0;
    skip_space_bfcl_literal(r);
    if (!isalpha((unsigned char)*r->p) && *r->p != '_' && *r->p != '$') return false;
    while (isalnum((unsigned char)r->p[length]) || (r->p[length] && strchr("_$.", r->p[length]))) {
        length++;
    }
    if (length >= WORD_MAX) return false;
    memcpy(word, r->p, length);
    word[length] = '\0';
    r->p += length;
    return true;
}

static size_t utf8(unsigned code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    out[0] = (char)(0xe0 | code >> 12);
    out[1] = (char)(0x80 | (code >> 6 & 63));
    out[2] = (char)(0x80 | (code & 63));
    return 3;
}

/* What follows a backslash; returns bytes written. */
static size_t read_escape_bfcl_literal(reader *r, char out[4])
{
    static const char names[] = "nrtbf0", codes[] = "\n\r\t\b\f\0";
    const char c = *r->p++;
    const char *at = c ? strchr(names, c) : NULL;
    if (c == 'u' || c == 'x') {
        char digits[5] = {0};
        for (int i = 0; i < (c == 'u' ? 4 : 2) && isxdigit((unsigned char)*r->p); i++) {
            digits[i] = *r->p++;
        }
        return utf8((unsigned)strtoul(digits, NULL, 16), out);
    }
    out[0] = at ? codes[at - names] : c;
    return 1;
}

/* One code point: what Java's single quotes hold. */
static bool is_char(const json_t *text)
{
    size_t count = 0;
    for (const char *p = json_string_value(text); *p; p++) {
        count += ((unsigned char)*p & 0xc0) != 0x80;
    }
    return count == 1 || json_string_length(text) == 1; /* the latter: '\0' */
}

static json_t *read_string(reader *r)
{
    const char quote = *r->p++;
    char *text = mq__alloc_zero(strlen(r->p) + 4, 1); /* escapes never grow */
    size_t length = 0;
    while (text && *r->p && *r->p != quote) {
        if (*r->p == '\\' && r->p[1]) {
            r->p++;
            length += read_escape_bfcl_literal(r, text + length);
        } else {
            text[length++] = *r->p++;
        }
    }
    json_t *value = text && *r->p == quote ? json_stringn(text, length) : NULL;
    mq__free(text);
    if (value && r->language == MQ_BFCL_JAVA && quote == '\'' && !is_char(value)) {
        json_decref(value);
        return NULL;
    }
    if (value) r->p++;
    return value;
}

static void skip_digits(const char **p)
{
    while (isdigit((unsigned char)**p)) {
        ++*p;
    }
}

/* How numbers of a declared type are written: the letters that may stand behind them ('-': none), and whether with a fraction. */
static const struct {
    mq_bfcl_language language;
    bool real;
    const char *type, *letters;
} number_forms[] = {
    {MQ_BFCL_JAVA, false, "byte", "-"},          {MQ_BFCL_JAVA, false, "short", "-"},
    {MQ_BFCL_JAVA, false, "integer", "-"},       {MQ_BFCL_JAVA, false, "long", "lL"},
    {MQ_BFCL_JAVA, true, "float", "fF"},         {MQ_BFCL_JAVA, true, "double", "-dD"},
    {MQ_BFCL_JAVASCRIPT, false, "integer", "-"}, {MQ_BFCL_JAVASCRIPT, true, "float", "-"},
    {MQ_BFCL_JAVASCRIPT, false, "bigint", "n"},
};

/* Whether a number of the declared type may be written so. suffix: '-' for none. */
static bool has_form(const reader *r, char suffix, bool real)
{
    for (size_t i = 0; r->type && i < sizeof number_forms / sizeof number_forms[0]; i++) {
        if (number_forms[i].language != r->language || strcasecmp(number_forms[i].type, r->type) != 0) continue;
        return strchr(number_forms[i].letters, suffix) && (number_forms[i].real || !real);
    }
    return true;
}

/* The letter behind a number: 5L, 0.5f, 2d in Java; 5n in JavaScript. False: it stands where it may not. */
static bool take_suffix(reader *r, bool *real)
{
    const char c = *r->p;
    if (c == '\0' || !isalpha((unsigned char)c)) return has_form(r, '-', *real);
    r->p++;
    if (!has_form(r, c, *real)) return false;
    if (r->language == MQ_BFCL_JAVASCRIPT) return c == 'n' && !*real;
    if (r->language == MQ_BFCL_JAVA && strchr("lL", c)) return !*real;
    if (r->language != MQ_BFCL_JAVA || !strchr("fFdD", c)) return false;
    *real = true;
    return true;
}

static json_t *read_number_bfcl_literal(reader *r)
{
    const char *start = r->p, *p = start + (*start == '-' || *start == '+'), *digits = p;
    skip_digits(&p);
    bool real = *p == '.', some = p > digits;
    if (real) {
        const char *fraction = ++p;
        skip_digits(&p);
        some = some || p > fraction;
    }
    if (!some) return NULL;
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '-' || p[1] == '+');
        if (!isdigit((unsigned char)*p)) return NULL;
        skip_digits(&p);
        real = true;
    }
    r->p = p;
    if (!take_suffix(r, &real)) return NULL;
    errno = 0;
    const long long whole = strtoll(start, NULL, 10);
    return real || errno == ERANGE ? json_real(strtod(start, NULL)) : json_integer(whole);
}

/* Values up to `close`, commas between them. */
static json_t *read_list(reader *r, const char *close)
{
    json_t *list = json_array();
    while (list && !take_bfcl_literal(r, close)) {
        json_t *value = read_value(r);
        if (!value || json_array_append_new(list, value) != 0 ||
            (!take_bfcl_literal(r, ",") && (skip_space_bfcl_literal(r), *r->p != *close))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* A key as text: a string, a number, or a bare name. */
static bool read_key(reader *r, char key[WORD_MAX])
{
    skip_space_bfcl_literal(r);
    if (*r->p && strchr("'\"", *r->p)) {
        json_t *text = read_string(r);
        const bool fits = text && json_string_length(text) < WORD_MAX;
        if (fits) strcpy(key, json_string_value(text));
        json_decref(text);
        return fits;
    }
    if (isdigit((unsigned char)*r->p)) {
        size_t length = 0;
        while (isdigit((unsigned char)*r->p) && length + 1 < WORD_MAX) {
            key[length++] = *r->p++;
        }
        key[length] = '\0';
        return true;
    }
    return read_word(r, key);
}

static json_t *read_map(reader *r)
{
    json_t *map = json_object();
    char key[WORD_MAX];
    while (map && !take_bfcl_literal(r, "}")) {
        json_t *value = read_key(r, key) && take_bfcl_literal(r, ":") ? read_value(r) : NULL;
        if (!value || json_object_set_new(map, key, value) != 0 ||
            (!take_bfcl_literal(r, ",") && (skip_space_bfcl_literal(r), *r->p != '}'))) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

/* Java: {{ put("k", v); ... }} after new HashMap<...>(). */
static json_t *read_puts(reader *r)
{
    json_t *map = json_object();
    char key[WORD_MAX];
    while (map && !take_bfcl_literal(r, "}}")) {
        json_t *value = NULL;
        if (take_bfcl_literal(r, "put(") && read_key(r, key) && take_bfcl_literal(r, ",")) value = read_value(r);
        if (!value || json_object_set_new(map, key, value) != 0 || !take_bfcl_literal(r, ")") ||
            !take_bfcl_literal(r, ";")) {
            json_decref(map);
            return NULL;
        }
    }
    return map;
}

/* Java: {{ add(v); ... }} after new ArrayList<...>(). */
static json_t *read_adds(reader *r)
{
    json_t *list = json_array();
    while (list && !take_bfcl_literal(r, "}}")) {
        json_t *value = take_bfcl_literal(r, "add(") ? read_value(r) : NULL;
        if (!value || json_array_append_new(list, value) != 0 || !take_bfcl_literal(r, ")") ||
            !take_bfcl_literal(r, ";")) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* A class of java.util that holds a list of values. */
static bool is_collection(const char *class)
{
    static const char *const names[] = {"List", "Set", "Vector", "Stack", "Queue", "Deque"};
    const size_t length = strlen(class);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const size_t part = strlen(names[i]);
        if (length >= part && strcmp(class + length - part, names[i]) == 0) return true;
    }
    return false;
}

/* Java: what follows `new`: an array, or a collection of another one. */
static json_t *read_new(reader *r)
{
    char word[WORD_MAX];
    if (!read_word(r, word)) return NULL;
    if (take_bfcl_literal(r, "<")) {
        for (int open = 1; open && *r->p; r->p++) {
            open += *r->p == '<' ? 1 : *r->p == '>' ? -1 : 0;
        }
    }
    if (take_bfcl_literal(r, "["))
        return take_bfcl_literal(r, "]") && take_bfcl_literal(r, "{") ? read_list(r, "}") : NULL;
    const bool map = strlen(word) >= 3 && strcmp(word + strlen(word) - 3, "Map") == 0;
    if ((!map && !is_collection(word)) || !take_bfcl_literal(r, "(")) return NULL;
    if (take_bfcl_literal(r, ")")) {
        if (take_bfcl_literal(r, "{{")) return map ? read_puts(r) : read_adds(r);
        return map ? json_object() : json_array();
    }
    json_t *inner = read_value(r);
    if ((map ? json_is_object(inner) : json_is_array(inner)) && take_bfcl_literal(r, ")")) return inner;
    json_decref(inner);
    return NULL;
}

static json_t *read_named_bfcl_literal(reader *r)
{
    char word[WORD_MAX];
    if (!read_word(r, word)) return NULL;
    const bool python = r->language == MQ_BFCL_PYTHON; /* there, JSON's words are read as well */
    if (strcmp(word, "true") == 0 || (python && strcmp(word, "True") == 0)) return json_true();
    if (strcmp(word, "false") == 0 || (python && strcmp(word, "False") == 0)) return json_false();
    if (strcmp(word, "null") == 0 || (python && strcmp(word, "None") == 0)) return json_null();
    if (r->language == MQ_BFCL_JAVA && strcmp(word, "new") == 0) return read_new(r);
    if (r->language == MQ_BFCL_JAVASCRIPT && strcmp(word, "new") == 0) {
        return read_word(r, word) && strcmp(word, "Array") == 0 && take_bfcl_literal(r, "(") ? read_list(r, ")") : NULL;
    }
    if (r->language == MQ_BFCL_JAVA && (strcmp(word, "Arrays.asList") == 0 || strcmp(word, "List.of") == 0)) {
        return take_bfcl_literal(r, "(") ? read_list(r, ")") : NULL;
    }
    return json_string(word); /* a variable */
}

static json_t *read_value(reader *r)
{
    json_t *value;
    skip_space_bfcl_literal(r);
    if (++r->depth > DEPTH_MAX) return NULL;
    if (*r->p == '\'' || *r->p == '"' || (*r->p == '`' && r->language == MQ_BFCL_JAVASCRIPT)) {
        value = read_string(r);
    } else if (r->language != MQ_BFCL_JAVA && take_bfcl_literal(r, "[")) {
        value = read_list(r, "]");
    } else if (r->language == MQ_BFCL_PYTHON && take_bfcl_literal(r, "(")) {
        value = read_list(r, ")");
    } else if (r->language != MQ_BFCL_JAVA && take_bfcl_literal(r, "{")) {
        value = read_map(r);
    } else if (*r->p == '-' || *r->p == '+' || *r->p == '.' || isdigit((unsigned char)*r->p)) {
        value = read_number_bfcl_literal(r);
    } else {
        value = read_named_bfcl_literal(r);
    }
    r->depth--;
    return value;
}

static bool at_end_bfcl_literal(reader *r)
{
    skip_space_bfcl_literal(r);
    return *r->p == '\0';
}

json_t *mq__bfcl_literal(const char *text, mq_bfcl_language language, const char *type)
{
    reader r = {.p = text, .language = language, .type = type};
    json_t *value = read_value(&r);
    if (value && at_end_bfcl_literal(&r)) return value;
    json_decref(value);
    return NULL;
}

/* name(value, key=value, ...) */
static json_t *read_call(reader *r)
{
    char name[WORD_MAX], key[WORD_MAX];
    if (!read_word(r, name) || !take_bfcl_literal(r, "(")) return NULL;
    json_t *arguments = json_object(), *positional = json_array();
    bool ok = arguments && positional;
    while (ok && !take_bfcl_literal(r, ")")) {
        const char *before = r->p;
        const bool named = read_word(r, key) && take_bfcl_literal(r, "=");
        if (!named) r->p = before;
        json_t *value = read_value(r);
        ok = value &&
             (named ? json_object_set_new(arguments, key, value) : json_array_append_new(positional, value)) == 0;
        ok = ok && (take_bfcl_literal(r, ",") || (skip_space_bfcl_literal(r), *r->p == ')'));
    }
    json_t *call = ok ? json_pack("{sssOsO}", "name", name, "arguments", arguments, "positional", positional) : NULL;
    json_decref(arguments);
    json_decref(positional);
    return call;
}

json_t *mq__bfcl_python_calls(const char *text)
{
    reader r = {.p = text, .language = MQ_BFCL_PYTHON};
    json_t *calls = json_array();
    const bool list = take_bfcl_literal(&r, "[");
    bool ok = calls != NULL;
    while (ok && !(list ? take_bfcl_literal(&r, "]") : at_end_bfcl_literal(&r))) {
        json_t *call = read_call(&r);
        ok = call && json_array_append_new(calls, call) == 0;
        if (ok && !take_bfcl_literal(&r, ",")) {
            skip_space_bfcl_literal(&r);
            ok = list ? *r.p == ']' : true; /* without brackets, one call a line */
        }
    }
    if (ok && at_end_bfcl_literal(&r)) return calls;
    json_decref(calls);
    return NULL;
}
