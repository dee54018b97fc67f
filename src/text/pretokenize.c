#include "text/pretokenize.h"

#include "base/unicode.h"

#include <string.h>

static const char gpt2_regex[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
#define MODERN_REGEX(numbers)                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                              \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char llama3_regex[] = MODERN_REGEX("\\p{N}{1,3}");
static const char qwen2_regex[] = MODERN_REGEX("\\p{N}");

const char *mq__split_regex(mq_split_pattern pattern)
{
    switch (pattern) {
    case MQ_SPLIT_GPT2:
        return gpt2_regex;
    case MQ_SPLIT_LLAMA3:
        return llama3_regex;
    case MQ_SPLIT_QWEN2:
        return qwen2_regex;
    default:
        return NULL;
    }
}

mq_split_pattern mq__split_known(const char *regex, size_t bytes)
{
    for (int p = MQ_SPLIT_GPT2; p <= MQ_SPLIT_QWEN2; p++) {
        const char *known = mq__split_regex((mq_split_pattern)p);
        if (bytes == strlen(known) && memcmp(regex, known, bytes) == 0) return (mq_split_pattern)p;
    }
    return MQ_SPLIT_NONE;
}

typedef struct cursor {
    const char *text;
    size_t bytes;
} cursor;

static unsigned class_at(cursor c, size_t *pos)
{
    const unsigned char byte = (unsigned char)c.text[*pos];
    if (byte < 128) {
        ++*pos;
        return mq__ascii_class[byte];
    }
    return mq__unicode_class(mq__utf8_next(c.text, c.bytes, pos));
}

/* End of the run of characters from pos whose class, masked, is zero (empty) or is not (!empty). */
static size_t run_end(cursor c, size_t pos, unsigned mask, int empty)
{
    while (pos < c.bytes) {
        size_t next = pos;
        if (((class_at(c, &next) & mask) == 0) != empty) break;
        pos = next;
    }
    return pos;
}

#define WORDLIKE (MQ_CLASS_LETTER | MQ_CLASS_NUMBER | MQ_CLASS_SPACE)

static size_t letters_end(cursor c, size_t pos)
{
    return run_end(c, pos, MQ_CLASS_LETTER, 0);
}

static size_t others_end(cursor c, size_t pos)
{
    return run_end(c, pos, WORDLIKE, 1);
}

/* End of 's|'t|'re|'ve|'m|'ll|'d at pos, or pos. Folding case also folds the long s, U+017F, to s. */
static size_t contraction_end(cursor c, size_t pos, int fold)
{
    const size_t left = c.bytes - pos;
    if (left < 2 || c.text[pos] != '\'') return pos;
    const char set = fold ? 0x20 : 0;
    const char a = (char)(c.text[pos + 1] | set);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return pos + 2;
    if (left < 3) return pos;
    if (fold && memcmp(c.text + pos + 1, "\xC5\xBF", 2) == 0) return pos + 3;
    const char b = (char)(c.text[pos + 2] | set);
    const int two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return two ? pos + 3 : pos;
}

/* \s+(?!\S)|\s+ : a run of white space keeps its last character for the word behind it */
static size_t spaces_end(cursor c, size_t pos)
{
    const size_t end = run_end(c, pos, MQ_CLASS_SPACE, 0);
    if (end == c.bytes) return end;
    const size_t last = mq__utf8_before(c.text, end);
    return last > pos ? last : end;
}

static size_t gpt2_next(cursor c, size_t from)
{
    const size_t contraction = contraction_end(c, from, 0);
    if (contraction > from) return contraction;
    size_t pos = from;
    unsigned class = class_at(c, &pos);
    if (c.text[from] == ' ' && pos < c.bytes) { /* " ?" of the three kinds of word */
        size_t next = pos;
        const unsigned after = class_at(c, &next);
        if (!(after & MQ_CLASS_SPACE)) {
            class = after;
            pos = next;
        }
    }
    if (class & MQ_CLASS_LETTER) return letters_end(c, pos);
    if (class & MQ_CLASS_NUMBER) return run_end(c, pos, MQ_CLASS_NUMBER, 0);
    if (class & MQ_CLASS_SPACE) return spaces_end(c, from);
    return others_end(c, pos);
}

/* \s*[\r\n]+ : up to the last line end of the run of white space at from; from when there is none */
static size_t lines_end(cursor c, size_t from)
{
    size_t last = from;
    for (size_t pos = from; pos < c.bytes;) {
        const unsigned class = class_at(c, &pos);
        if (!(class & MQ_CLASS_SPACE)) break;
        if (class & MQ_CLASS_NEWLINE) last = pos;
    }
    return last;
}

static size_t modern_next(cursor c, size_t from, unsigned digits)
{
    const size_t contraction = contraction_end(c, from, 1);
    if (contraction > from) return contraction;
    size_t pos = from;
    const unsigned class = class_at(c, &pos);
    if (class & MQ_CLASS_LETTER) return letters_end(c, pos);
    if (class & MQ_CLASS_NUMBER) {
        for (unsigned n = 1; n < digits && pos < c.bytes; n++) {
            size_t next = pos;
            if (!(class_at(c, &next) & MQ_CLASS_NUMBER)) break;
            pos = next;
        }
        return pos;
    }
    unsigned after = MQ_CLASS_SPACE; /* the end counts as neither a letter nor another character */
    size_t next = pos;
    if (pos < c.bytes) after = class_at(c, &next);
    if (!(class & MQ_CLASS_NEWLINE) && (after & MQ_CLASS_LETTER)) return letters_end(c, next);
    const int other = (class & WORDLIKE) == 0;
    if (other || (c.text[from] == ' ' && (after & WORDLIKE) == 0)) {
        return run_end(c, others_end(c, pos), MQ_CLASS_NEWLINE, 0);
    }
    const size_t lines = lines_end(c, from);
    return lines > from ? lines : spaces_end(c, from);
}

size_t mq__split_next(mq_split_pattern pattern, const char *text, size_t bytes, size_t from)
{
    const cursor c = {text, bytes};
    if (pattern == MQ_SPLIT_GPT2) return gpt2_next(c, from);
    return modern_next(c, from, pattern == MQ_SPLIT_LLAMA3 ? 3 : 1);
}
