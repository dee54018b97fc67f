/* Scores of free texts: the last number, the chosen letter, words in common. */
#include "base/buf.h"
#include "base/mem.h"
#include "eval/question.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
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

/* A letter at p that stands alone, A to D: "B", "(b)", "B)". Bare small letters are words ("a"), but for the last of a line. */
static char letter_at(const char *p)
{
    const bool open = *p == '(' || *p == '[';
    p += open;
    const char letter = (char)toupper((unsigned char)*p), next = *p ? p[1] : '\0';
    if (letter < 'A' || letter > 'D' || isalnum((unsigned char)next) || (next & 0x80)) return 0;
    if (open) return next == ')' || next == ']' ? letter : 0;
    if (*p == letter) return next == '\'' || next == '-' ? 0 : letter;
    return next == ')' || p[1 + strspn(p + 1, ". \t")] == '\0' || p[1 + strspn(p + 1, ". \t")] == '\n' ? letter : 0;
}

/* Past "answer is" or "answer:" at p; NULL: it is another text. */
static const char *after_answer(const char *p)
{
    if (strncasecmp(p, "answer", 6) != 0) return NULL;
    p += 6 + strspn(p + 6, " ");
    const bool colon = *p == ':';
    if (!colon && (strncasecmp(p, "is", 2) != 0 || isalnum((unsigned char)p[2]))) return NULL;
    p += colon ? 1 : 2;
    p += strspn(p, " :\t\n");
    if (strncasecmp(p, "option ", 7) == 0 || strncasecmp(p, "choice ", 7) == 0) p += 7;
    return p;
}

/* The letter of a line that holds nothing else. */
static char only_letter(const char *line)
{
    line += strspn(line, " \t");
    const char *end = line + strcspn(line, "\n");
    const size_t length = (size_t)(end - line), rest = *line == '(' || *line == '[' ? 3 : 1;
    const char letter = letter_at(line);
    return letter && length >= rest && line + rest + strspn(line + rest, ".) \t") == end ? letter : 0;
}

char mq__final_choice(const char *answer)
{
    mq_buf plain = {0};
    for (const char *p = answer; *p; p++) {
        if (*p != '*') mq__buf_putc(&plain, *p);
    }
    mq__buf_putc(&plain, '\0');
    char stated = 0, last = 0;
    for (const char *p = plain.data; p && *p; p++) {
        const char *at = after_answer(p);
        const char letter = at ? letter_at(at) : 0;
        if (letter) stated = letter;
        if ((p == plain.data || p[-1] == '\n') && p[strspn(p, " \t\n")]) last = only_letter(p);
    }
    mq__buf_free(&plain);
    return stated ? stated : last;
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

/* Both as words_of writes them, " w1 w2 ": whole words, in a row. */
static bool has_words(const char *whole, const char *part)
{
    return strstr(whole, part) != NULL;
}

static bool has_any(const char *words, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (has_words(words, list[i])) return true;
    }
    return false;
}

/* A negation before the wanted words, in the same sentence: "It was not blue." "blue, not red" is none. */
static bool is_negated(const char *sentence, const char *wanted)
{
    static const char *const no[] = {" not ",     " no ",      " never ",   " cannot ", " neither ", " nor ",
                                     " without ", " isnt ",    " wasnt ",   " arent ",  " werent ",  " dont ",
                                     " doesnt ",  " didnt ",   " hasnt ",   " havent ", " hadnt ",   " wont ",
                                     " cant ",    " couldnt ", " wouldnt ", " unlike ", " except "};
    char before[512];
    const char *at = strstr(sentence, wanted);
    const size_t length = at ? (size_t)(at - sentence) + 1 : 0; /* with the blank, which ends the word before */
    snprintf(before, sizeof before, "%.*s", (int)(length < sizeof before ? length : sizeof before - 1),
             at && length >= sizeof before ? at + 1 - (sizeof before - 1) : sentence);
    return has_any(before, no, sizeof no / sizeof no[0]);
}

enum { PART_MAX = 4096 };

/* The words of text[0 .. bytes), " w1 w2 "; parts that are longer than PART_MAX are cut. */
static size_t words_of_part(const char *text, size_t bytes, mq_buf *line)
{
    char part[PART_MAX];
    size_t count;
    snprintf(part, sizeof part, "%.*s", (int)(bytes < sizeof part ? bytes : sizeof part - 1), text);
    mq__buf_clear(line);
    json_decref(words_of(part, line, &count));
    return count;
}

/* Bytes of the text up to the next mark that ends a sentence, or (inner) a part of one: a comma, / or |, "or", "and".
 * with_or: it was "or". */
static size_t length_of_part(const char *text, bool inner, bool *with_or)
{
    size_t i = 0;
    *with_or = false;
    for (; text[i]; i++) {
        const bool ends =
            strchr("\n!?;", text[i]) || (text[i] == '.' && (!text[i + 1] || isspace((unsigned char)text[i + 1])));
        if (ends && i > 0) break;
        if (!inner) continue;
        if (i > 0 && strchr(",/|", text[i]) && !isdigit((unsigned char)text[i + 1])) break;
        *with_or = strncasecmp(text + i, " or ", 4) == 0;
        if (i > 0 && (*with_or || strncasecmp(text + i, " and ", 5) == 0)) break;
    }
    return i;
}

/* Skips what parts a list's items. */
static const char *next_part(const char *p)
{
    if (strncasecmp(p, " or ", 4) == 0) return p + 4;
    if (strncasecmp(p, " and ", 5) == 0) return p + 5;
    return *p ? p + 1 : p;
}

static bool has_letters(const char *words)
{
    while (*words && (*words == ' ' || isdigit((unsigned char)*words))) {
        words++;
    }
    return *words != '\0';
}

/* A part that could be an item of a list as well as `wanted`: as short, or two words longer; a year or a "yes" is none. */
static bool is_item(const char *words, size_t count, const char *wanted, size_t asked)
{
    static const char *const fillers[] = {" yes ", " well ", " sure ", " ok ", " okay ", " so "};
    return count > 0 && count <= asked + 2 && !has_words(wanted, words) &&
           (has_letters(words) || !has_letters(wanted)) && !has_any(words, fillers, sizeof fillers / sizeof fillers[0]);
}

/* Whether the answer names the wanted words among others: "red, blue, green", "blue or red", a line for each. Two other items are
 * a list, one that "or" ties to what is wanted. Items ahead of a long part ("On Monday, you said, ...") belong to its sentence. */
static bool is_one_of_many(const char *answer, const char *wanted, size_t asked)
{
    mq_buf line = {0};
    size_t before = 0, after = 0;
    bool found = false, either = false, brief = false, with_or = false;
    for (const char *p = answer; *p;) {
        const bool or_before = with_or;
        const size_t length = length_of_part(p, true, &with_or), count = words_of_part(p, length, &line);
        if (line.data && has_words(line.data, wanted)) {
            either = either || or_before || with_or;
            brief = brief || count <= asked + 2;
            found = true;
        } else if (line.data && is_item(line.data, count, wanted, asked)) {
            *(found ? &after : &before) += 1;
        }
        p = next_part(p + length);
    }
    mq__buf_free(&line);
    return either || after + (brief ? before : 0) >= 2;
}

/* Whether `text` has an end of a sentence inside, as names do ("Dr. Smith"). */
static bool is_broken(const char *text)
{
    bool with_or;
    const size_t length = length_of_part(text, false, &with_or);
    return text[length] != '\0' && text[length + 1] != '\0';
}

/* Whether a sentence of the answer has the wanted words in a row and does not deny them. whole: the answer is one sentence. */
static bool states(const char *answer, const char *wanted, bool whole)
{
    mq_buf line = {0};
    bool found = false, with_or;
    for (const char *p = answer; *p && !found;) {
        const size_t length = whole ? strlen(p) : length_of_part(p, false, &with_or);
        (void)words_of_part(p, length, &line);
        found = line.data && has_words(line.data, wanted) && !is_negated(line.data, wanted);
        p += length ? length : 1;
    }
    mq__buf_free(&line);
    return found;
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
    const bool contains = asked > 0 && a.data && b.data && has_words(a.data, b.data);
    const mq_overlap overlap = {contains && states(answer, b.data, is_broken(wanted)) &&
                                    !is_one_of_many(answer, b.data, asked),
                                common ? 2 * precision * recall / (precision + recall) : 0};
    json_decref(given);
    json_decref(right);
    mq__buf_free(&a);
    mq__buf_free(&b);
    return overlap;
}
