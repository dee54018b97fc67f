/* Scores of free texts: the last number, the chosen letter, words in common. */
#include "base/buf.h"
#include "base/mem.h"
#include "eval/question.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A number at p with its commas, as people write it: $1,234.50; *end is behind it. */
static bool number_at(const char *p, const char **end, double *number)
{
    char digits[64];
    size_t count = 0;
    const char *start = p;
    if (*p == '-' || *p == '+') digits[count++] = *p++;
    if (*p == '$') p++;
    if (!isdigit((unsigned char)*p) && !(*p == '.' && isdigit((unsigned char)p[1]))) return false;
    bool point = false;
    for (; count + 1 < sizeof digits; p++) {
        if (isdigit((unsigned char)*p)) {
            digits[count++] = *p;
        } else if (*p == '.' && !point && isdigit((unsigned char)p[1])) {
            point = true;
            digits[count++] = '.';
        } else if (!(*p == ',' && !point && p > start && isdigit((unsigned char)p[1]))) {
            break;
        }
    }
    digits[count] = '\0';
    *number = strtod(digits, NULL);
    *end = p;
    return isfinite(*number);
}

static bool last_number(const char *text, double *number)
{
    bool found = false;
    for (const char *p = text; *p;) {
        const char *end;
        const bool inside = p > text && (isalnum((unsigned char)p[-1]) || p[-1] == '.');
        double value;
        if (!(inside && (*p == '-' || *p == '+')) && number_at(p, &end, &value)) {
            *number = value;
            found = true;
            p = end;
        } else {
            p++;
        }
    }
    return found;
}

static bool first_number(const char *text, double *number)
{
    const char *end;
    while (*text && *text != '\n') {
        if (number_at(text, &end, number)) return true;
        text++;
    }
    return false;
}

static const char *last_of(const char *text, const char *mark)
{
    const char *last = NULL;
    for (const char *p = strstr(text, mark); p; p = strstr(p + 1, mark)) {
        last = p + strlen(mark);
    }
    return last;
}

bool mq__final_number(const char *answer, double *number)
{
    const char *mark = last_of(answer, "####");
    if (mark && first_number(mark, number)) return true;
    mark = last_of(answer, "\\boxed{");
    if (mark && first_number(mark, number)) return true;
    return last_number(answer, number);
}

char mq__final_choice(const char *answer)
{
    static const char phrase[] = "the correct answer is";
    mq_buf plain = {0};
    for (const char *p = answer; *p; p++) {
        if (*p != '*') mq__buf_putc(&plain, *p);
    }
    mq__buf_putc(&plain, '\0');
    char choice = 0;
    for (const char *p = plain.data; p && *p; p++) {
        if (strncasecmp(p, phrase, sizeof phrase - 1) != 0) continue;
        const char *q = p + sizeof phrase - 1;
        q += strspn(q, " :(");
        if (*q >= 'A' && *q <= 'D' && !isalnum((unsigned char)q[1])) choice = *q;
    }
    mq__buf_free(&plain);
    return choice;
}

/* The next word, lower case, without punctuation; false at the end. Articles are passed over. */
static bool next_word(const char **text, char word[128])
{
    for (;;) {
        size_t count = 0;
        const char *p = *text;
        while (*p && !isalnum((unsigned char)*p) && !((unsigned char)*p & 0x80)) {
            p++;
        }
        if (!*p) return false;
        for (; isalnum((unsigned char)*p) || ((unsigned char)*p & 0x80) || *p == '\''; p++) {
            if (*p != '\'' && count < 127) word[count++] = (char)tolower((unsigned char)*p);
        }
        word[count] = '\0';
        *text = p;
        if (strcmp(word, "a") != 0 && strcmp(word, "an") != 0 && strcmp(word, "the") != 0) return true;
    }
}

/* " w1 w2 ... ", and how often each word comes: {word: count}. */
static json_t *words_of(const char *text, mq_buf *line, size_t *count)
{
    char word[128];
    json_t *words = json_object();
    mq__buf_putc(line, ' ');
    for (*count = 0; next_word(&text, word); ++*count) {
        mq__buf_puts(line, word);
        mq__buf_putc(line, ' ');
        json_object_set_new_nocheck(words, word, json_integer(json_integer_value(json_object_get(words, word)) + 1));
    }
    mq__buf_putc(line, '\0');
    return words;
}

mq_overlap mq__word_overlap(const char *answer, const char *wanted)
{
    mq_buf a = {0}, b = {0};
    size_t answered, asked, common = 0;
    json_t *given = words_of(answer, &a, &answered), *right = words_of(wanted, &b, &asked), *times;
    const char *word;
    json_object_foreach(right, word, times)
    {
        const json_int_t got = json_integer_value(json_object_get(given, word)), want = json_integer_value(times);
        common += (size_t)(got < want ? got : want);
    }
    const double precision = answered ? (double)common / (double)answered : 0;
    const double recall = asked ? (double)common / (double)asked : 0;
    const mq_overlap overlap = {asked > 0 && a.data && b.data && strstr(a.data, b.data) != NULL,
                                common ? 2 * precision * recall / (precision + recall) : 0};
    json_decref(given);
    json_decref(right);
    mq__buf_free(&a);
    mq__buf_free(&b);
    return overlap;
}
