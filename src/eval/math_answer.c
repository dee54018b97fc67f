#include "eval/math_answer.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PARTS_MAX = 64, POINTS = 4 };

/* The end of what `open` braces: behind p's matching '}'; NULL: it does not end. p is behind the '{'. */
static const char *end_of_braces(const char *p)
{
    int depth = 1;
    for (; *p; p++) {
        if (*p == '\\' && p[1]) {
            p++; /* \{ and \} are signs */
        } else if (*p == '{') {
            depth++;
        } else if (*p == '}' && --depth == 0) {
            return p + 1;
        }
    }
    return NULL;
}

char *mq__math_boxed(const char *text)
{
    static const char *const marks[] = {"\\boxed{", "\\fbox{"};
    const char *best = NULL, *best_end = NULL;
    for (size_t m = 0; m < 2; m++) {
        for (const char *p = strstr(text, marks[m]); p; p = strstr(p + 1, marks[m])) {
            const char *inner = p + strlen(marks[m]), *end = end_of_braces(inner);
            if (!end || (best && inner < best)) continue;
            best = inner;
            best_end = end;
        }
    }
    return best ? mq__strndup(best, (size_t)(best_end - 1 - best)) : NULL;
}

/* ---- without typesetting */

typedef struct plain {
    mq_buf text;
    bool words; /* it begins with a text: no expression */
} plain;

static const char *const replaced[][2] = {{"\\left", ""},        {"\\right", ""},       {"\\displaystyle", ""},
                                          {"\\quad", ""},        {"\\!", ""},           {"\\,", ""},
                                          {"\\;", ""},           {"\\:", ""},           {"\\ ", ""},
                                          {"\\$", ""},           {"\\%", ""},           {"{,}", ""},
                                          {"^{\\circ}", ""},     {"^\\circ", ""},       {"\\degree", ""},
                                          {"\\dfrac", "\\frac"}, {"\\tfrac", "\\frac"}, {"\\cfrac", "\\frac"},
                                          {"\\cdot", "*"},       {"\\times", "*"},      {"\\div", "/"},
                                          {"\\lbrace", "\\{"},   {"\\rbrace", "\\}"},   {"\xe2\x88\x92", "-"},
                                          {"\\leq", "\\le"},     {"\\geq", "\\ge"},     {"\\neq", "\\ne"}};

static const char *const texts[] = {"\\text{",   "\\textbf{", "\\textit{",      "\\mathrm{",
                                    "\\mathbf{", "\\mbox{",   "\\operatorname{"};

/* Longer commands than `text` begin with it: \leftarrow is not \left. */
static bool begins(const char *p, const char *text)
{
    const size_t length = strlen(text);
    if (strncmp(p, text, length) != 0) return false;
    return !(isalpha((unsigned char)text[length - 1]) && isalpha((unsigned char)p[length]));
}

/* Takes a \text{...} at *p: a unit behind something else is dropped, words at the beginning are kept, small. */
static bool takes_text(plain *out, const char **p)
{
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strncmp(*p, texts[i], strlen(texts[i])) != 0) continue;
        const char *inner = *p + strlen(texts[i]), *end = end_of_braces(inner);
        if (!end) return false;
        out->words = out->words || out->text.len == 0;
        for (const char *q = inner; out->words && q + 1 < end; q++) {
            if (!isspace((unsigned char)*q)) mq__buf_putc(&out->text, (char)tolower((unsigned char)*q));
        }
        *p = end;
        return true;
    }
    return false;
}

static bool takes_command(plain *out, const char **p)
{
    for (size_t i = 0; i < sizeof replaced / sizeof replaced[0]; i++) {
        if (!begins(*p, replaced[i][0])) continue;
        mq__buf_puts(&out->text, replaced[i][1]);
        *p += strlen(replaced[i][0]);
        return true;
    }
    return false;
}

/* "1,234,567.5": the commas of one number. */
static void drop_thousands(char *text)
{
    const char *p = text + (*text == '-');
    size_t first = strspn(p, "0123456789");
    if (first < 1 || first > 3 || p[first] != ',') return;
    for (p += first; *p == ',' && strspn(p + 1, "0123456789") == 3;) {
        p += 4;
    }
    if (*p == '.' && isdigit((unsigned char)p[1])) p += 1 + strspn(p + 1, "0123456789");
    if (*p != '\0') return;
    char *to = text;
    for (p = text; *p; p++) {
        if (*p != ',') *to++ = *p;
    }
    *to = '\0';
}

/* The answer without what is only typesetting; owned, NULL: out of memory. */
static char *plain_of(const char *latex, bool *words)
{
    plain out = {.words = false};
    for (const char *p = latex; *p;) {
        if (p[0] == '\\' && p[1] == '\\') { /* the end of a matrix's row: no command */
            mq__buf_puts(&out.text, "\\\\");
            p += 2;
            continue;
        }
        if (takes_text(&out, &p) || takes_command(&out, &p)) continue;
        if (!isspace((unsigned char)*p) && *p != '$' && *p != '%') mq__buf_putc(&out.text, *p);
        p++;
    }
    mq__buf_putc(&out.text, '\0');
    char *text = out.text.failed ? NULL : mq__buf_take(&out.text);
    mq__buf_free(&out.text);
    *words = out.words;
    if (!text) return NULL;
    size_t length = strlen(text);
    while (length && strchr(".;", text[length - 1])) {
        text[--length] = '\0';
    }
    const size_t name = isalpha((unsigned char)text[0]) && text[1] == '='             ? 2
                        : isalpha((unsigned char)text[0]) && begins(text + 1, "\\in") ? 4
                                                                                      : 0;
    if (!out.words) memmove(text, text + name, length + 1 - name);
    drop_thousands(text);
    return text;
}

/* ---- equality */

static bool same_value_math(const char *a, const char *b)
{
    for (int point = 0; point < POINTS; point++) {
        double x, y;
        if (!mq__math_value(a, point, &x) || !mq__math_value(b, point, &y)) return false;
        if (fabs(x - y) > 1e-9 * fmax(1, fmax(fabs(x), fabs(y)))) return false;
    }
    return true;
}

/* A list: its brackets and its parts, which commas (or \cup) part at no depth. Cuts the text in place. */
typedef struct list {
    char open, close; /* 0: none; '{': a set */
    char *part[PARTS_MAX];
    size_t count;
} list;

static size_t sign_length(const char *p)
{
    return *p == '\\' && (p[1] == '{' || p[1] == '}') ? 2 : 1;
}

/* Whether the sign that opens the text is closed by its last one. */
static bool is_enclosed(const char *text, size_t length)
{
    int depth = 0;
    for (size_t i = 0; i < length;) {
        const size_t sign = sign_length(text + i);
        const char c = text[i + sign - 1];
        depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
        i += sign;
        if (depth == 0 && i < length) return false;
    }
    return depth == 0;
}

static void cut_brackets(list *l, char **text)
{
    const size_t length = strlen(*text), open = sign_length(*text);
    if (length < 2 || !strchr("([{", (*text)[open - 1]) || !is_enclosed(*text, length)) return;
    const char last = (*text)[length - 1];
    const size_t close = length >= 4 && (*text)[length - 2] == '\\' && last == '}' ? 2 : 1;
    if (!strchr(")]}", last) || (open == 2) != (close == 2)) return;
    l->open = (*text)[open - 1];
    l->close = last;
    (*text)[length - close] = '\0';
    *text += open;
}

static list list_of(char *text)
{
    list l = {0};
    cut_brackets(&l, &text);
    int depth = 0;
    l.part[l.count++] = text;
    for (char *p = text; *p;) {
        const size_t sign = sign_length(p);
        const char c = p[sign - 1];
        depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
        char *next = p + sign;
        if (depth == 0 && c == ',' && l.count < PARTS_MAX) {
            *p = '\0';
            l.part[l.count++] = next;
        }
        p = next;
    }
    return l;
}

static bool same_plain(const char *a, const char *b, int depth);

static bool same_in_order(const list *a, const list *b, int depth)
{
    for (size_t i = 0; i < a->count; i++) {
        if (!same_plain(a->part[i], b->part[i], depth)) return false;
    }
    return true;
}

static bool same_in_any_order(const list *a, const list *b, int depth)
{
    bool used[PARTS_MAX] = {false};
    for (size_t i = 0; i < a->count; i++) {
        size_t k = 0;
        while (k < b->count && (used[k] || !same_plain(a->part[i], b->part[k], depth))) {
            k++;
        }
        if (k == b->count) return false;
        used[k] = true;
    }
    return true;
}

static bool same_lists(const list *a, const list *b, int depth)
{
    if (a->count != b->count) return false;
    const bool any_order = (!a->open || a->open == '{') && (!b->open || b->open == '{');
    if (any_order) return same_in_any_order(a, b, depth);
    if (a->count == 1 && (!a->open || a->open == '(') && (!b->open || b->open == '('))
        return same_plain(a->part[0], b->part[0], depth); /* "(5)" is 5 */
    return a->open == b->open && a->close == b->close && same_in_order(a, b, depth);
}

/* "A\cup B": both have two sides, in their order. */
static bool same_unions(char *a, char *b, int depth)
{
    char *x = strstr(a, "\\cup"), *y = strstr(b, "\\cup");
    if (!x || !y) return false;
    *x = *y = '\0';
    return same_plain(a, b, depth) && same_plain(x + 4, y + 4, depth);
}

static bool same_plain(const char *a, const char *b, int depth)
{
    if (strcmp(a, b) == 0 || same_value_math(a, b)) return true;
    char *x = depth < 4 ? mq__strdup(a) : NULL, *y = depth < 4 ? mq__strdup(b) : NULL;
    bool same = false;
    if (x && y && strstr(x, "\\cup")) {
        same = same_unions(x, y, depth + 1);
    } else if (x && y) {
        const list first = list_of(x), second = list_of(y);
        const bool lists = first.open || second.open || first.count > 1;
        same = lists && same_lists(&first, &second, depth + 1);
    }
    mq__free(x);
    mq__free(y);
    return same;
}

bool mq__math_equal(const char *a, const char *b)
{
    bool words[2];
    char *x = plain_of(a, &words[0]), *y = plain_of(b, &words[1]);
    bool same = false;
    if (x && y && *x && *y) same = words[0] || words[1] ? strcasecmp(x, y) == 0 : same_plain(x, y, 0);
    mq__free(x);
    mq__free(y);
    return same;
}
