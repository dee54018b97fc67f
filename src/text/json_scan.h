/* JSON byte by byte, as it streams: what came so far is valid, or the byte that spoils it is known at once. Strict: RFC 8259, UTF-8
 * in strings, no half of a surrogate pair. Nothing allocates; a zeroed object is at its start. */
#ifndef MQ_JSON_SCAN_H
#define MQ_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum mq_scan {
    MQ_SCAN_MORE,  /* the byte belongs to the value, which goes on */
    MQ_SCAN_END,   /* the byte ends the value */
    MQ_SCAN_AFTER, /* the value, a number, ended before the byte, which is not taken */
    MQ_SCAN_BAD    /* no JSON */
} mq_scan;

/* Whether bytes are UTF-8 so far. left is 0 between characters. */
typedef struct mq_utf8_check {
    uint8_t left, low, high; /* bytes to come; bounds of the next one */
} mq_utf8_check;

bool mq__utf8_check(mq_utf8_check *check, uint8_t byte);

/* A string, from behind its opening quote. */
typedef struct mq_json_string {
    uint8_t state, digits;
    uint16_t code, high; /* digits of \u so far; the first half of a surrogate pair */
    mq_utf8_check utf8;
} mq_json_string;

/* MORE, END (the closing quote) or BAD. out gets the *count bytes of text that the byte completes. */
mq_scan mq__json_string_byte(mq_json_string *string, uint8_t byte, char out[4], size_t *count);

#define MQ_SCAN_DEPTH 512 /* deeper nesting is BAD */

/* A value; white space before it is taken. */
typedef struct mq_json_scan {
    uint8_t state, matched; /* matched: bytes of the literal */
    bool key;               /* the string is a member's name */
    uint16_t depth;
    const char *literal;
    mq_json_string string;
    uint64_t objects[MQ_SCAN_DEPTH / 64]; /* a bit a level: it is an object, not an array */
} mq_json_scan;

mq_scan mq__json_scan_byte(mq_json_scan *scan, uint8_t byte);

/* What a value is, as bits. A whole number is both. */
enum {
    MQ_TYPE_STRING = 1,
    MQ_TYPE_INTEGER = 2,
    MQ_TYPE_NUMBER = 4,
    MQ_TYPE_BOOLEAN = 8,
    MQ_TYPE_OBJECT = 16,
    MQ_TYPE_ARRAY = 32,
    MQ_TYPE_NULL = 64,
    MQ_TYPE_ANY = 127
};

/* Of a text that is one value without white space around it; 0: it is none. */
unsigned mq__json_type(const char *text, size_t bytes);

static inline bool mq__json_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

#endif
