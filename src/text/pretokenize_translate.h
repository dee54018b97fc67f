/* From Oniguruma's regular expressions to PCRE2's. Each construct is read and written anew, so nothing passes that is
 * not known here; what has no counterpart is refused. The rules are those of ONIG_SYNTAX_ONIGURUMA, which the
 * tokenizers library uses, and were compared with it. */
#ifndef MQ_FORMAT_PRETOKENIZE_TRANSLATE_H
#define MQ_FORMAT_PRETOKENIZE_TRANSLATE_H

#include "base/buf.h"
#include "mixquant.h"

#include <stdint.h>

/* Appends to *out an expression for PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE. */
mq_status mq__regex_translate(const char *pattern, size_t bytes, mq_buf *out, mq_error *error);

/* ---------------------------------------------------------------- what its parts share */

#define MQ_REGEX_TEXT_BYTES ((size_t)4 << 20) /* of the translation */
#define MQ_REGEX_GROUPS     200               /* open at once; PCRE2's own bound is 250 */

typedef struct mq_regex_group {
    size_t start;     /* in the output */
    unsigned options; /* groups that stand for isolated options: (?i) reaches to the end of the group around it */
    bool ignore_case, extended, assertion;
} mq_regex_group;

typedef struct mq_regex_text { /* borrows all */
    const char *pattern;
    size_t bytes, at;
    mq_buf *out;
    mq_error *error;
    mq_regex_group groups[MQ_REGEX_GROUPS + 1]; /* [0]: the whole */
    unsigned depth, open;
    size_t atom;      /* in the output: what a quantifier would repeat */
    unsigned repeats; /* quantifiers that it has already */
    bool repeatable;
} mq_regex_text;

static inline int mq__regex_peek(const mq_regex_text *t, size_t ahead) /* -1 at the end */
{
    return t->at + ahead < t->bytes ? (unsigned char)t->pattern[t->at + ahead] : -1;
}

static inline bool mq__regex_digit(int c)
{
    return c >= '0' && c <= '9';
}

static inline bool mq__regex_letter(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* ---------------------------------------------------------------- pretokenize_class.c */

typedef struct mq_regex_class {
    const char *items;   /* the inside of a set */
    const char *negated; /* the same for all other characters; NULL: only [^items] can say it */
    const char *alone;   /* items where the class stands outside of a set; NULL: the same */
    bool cased;          /* (?i) would make it larger inside of a set */
} mq_regex_class;

typedef struct mq_regex_property { /* a class and the memory that it may point to: not to be copied */
    mq_regex_class class;
    char text[2][80];
} mq_regex_property;

#define MQ_REGEX_NAME 64 /* bytes of a name that is looked up, with its end */

extern const char mq__regex_word[]; /* the inside of a set: what \b sees as a word */

/* Class of [:name:]; false: there is none. */
bool mq__regex_posix_class(const char *name, mq_regex_class *out);

/* Class of \p{name}; name in lower case without spaces, hyphens and underscores. PCRE2 judges whether it exists. */
void mq__regex_property(const char *name, mq_regex_property *out);

/* ---------------------------------------------------------------- pretokenize_escape.c, pretokenize_set.c */

typedef struct mq_regex_element { /* a character or a class */
    mq_regex_property property;
    uint32_t code;
    bool is_class, negate;
} mq_regex_element;

mq_status mq__regex_refuse(const mq_regex_text *t, const char *what);
mq_status mq__regex_malformed(const mq_regex_text *t, const char *expected);

void mq__regex_put_literal(mq_buf *out, uint32_t code); /* a character that means itself, also inside of a set */
mq_status mq__regex_literal(mq_regex_text *t, uint32_t *code);
mq_status mq__regex_octal(mq_regex_text *t, size_t most, uint32_t *code);

/* An escape that means the same inside and outside of a set; `at` stands behind the backslash. */
mq_status mq__regex_escape(mq_regex_text *t, mq_regex_element *e);

/* `at` stands behind the bracket; appends an expression for one character. */
mq_status mq__regex_set(mq_regex_text *t, mq_buf *out);

#endif
