/* Character classes of Oniguruma as the inside of a PCRE2 set. Unicode versions differ between the two libraries, so a
 * class is put together from properties, not from ranges. */
#include "base/error.h"
#include "text/pretokenize_translate.h"

#include <stdio.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* Alphabetic, marks, decimal numbers, connectors. The ranges are the symbols that are Alphabetic: letters in circles
 * and squares. */
#define WORDS                                                                                                          \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"                   \
    "\\x{1f170}-\\x{1f189}"
#define WORDS_ALONE                                                                                                    \
    "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"  /* what Oniguruma adds to \w, \b, \p{Word} outside of a set */
#define SPACES "\\p{Z}\\x{9}-\\x{d}\\x{85}" /* White_Space; PCRE2's own \s adds U+180E */
#define GRAPHS "\\p{L}\\p{M}\\p{N}\\p{P}\\p{S}\\p{Cf}\\p{Co}"

#if PCRE2_MAJOR > 10 || PCRE2_MINOR >= 40
#define SCRIPT "sc:" /* a bare name would also match characters that several scripts use */
#else
#define SCRIPT ""
#endif

const char mq__regex_word[] = WORDS WORDS_ALONE;

static const struct {
    const char *name;
    mq_regex_class class;
} posix_classes[] = {
    {"alnum", {"\\p{Alphabetic}\\p{Nd}", NULL, NULL, false}},
    {"alpha", {"\\p{Alphabetic}", "\\P{Alphabetic}", NULL, false}},
    {"any", {"\\p{Any}", "\\P{Any}", NULL, false}},
    {"ascii", {"\\x{0}-\\x{7f}", "\\x{80}-\\x{10ffff}", NULL, false}},
    {"assigned", {"\\P{Cn}", "\\p{Cn}", NULL, false}},
    {"blank", {"\\x{9}\\p{Zs}", NULL, NULL, false}},
    {"cntrl", {"\\p{Cc}", "\\P{Cc}", NULL, false}},
    {"digit", {"\\p{Nd}", "\\P{Nd}", NULL, false}},
    {"graph", {GRAPHS, NULL, NULL, false}},
    {"lower", {"\\p{Lowercase}", "\\P{Lowercase}", NULL, true}},
    {"print", {GRAPHS "\\p{Zs}", NULL, NULL, false}},
    {"punct", {"\\p{P}\\p{S}", NULL, NULL, false}},
    {"space", {SPACES, "\\S\\x{180e}", NULL, false}},
    {"upper", {"\\p{Uppercase}", "\\P{Uppercase}", NULL, true}},
    {"word", {WORDS, NULL, mq__regex_word, false}},
    {"xdigit", {"0-9A-Fa-f", NULL, NULL, false}},
};

bool mq__regex_posix_class(const char *name, mq_regex_class *out)
{
    for (size_t i = 0; i < sizeof posix_classes / sizeof posix_classes[0]; i++) {
        if (strcmp(name, posix_classes[i].name) != 0) continue;
        *out = posix_classes[i].class;
        return true;
    }
    return false;
}

/* Long names of general categories; a name without spaces, hyphens and underscores, in lower case. */
static const char *const long_categories[][2] = {
    {"letter", "L"},
    {"casedletter", "L&"},
    {"lc", "L&"},
    {"uppercaseletter", "Lu"},
    {"lowercaseletter", "Ll"},
    {"titlecaseletter", "Lt"},
    {"modifierletter", "Lm"},
    {"otherletter", "Lo"},
    {"mark", "M"},
    {"combiningmark", "M"},
    {"nonspacingmark", "Mn"},
    {"spacingmark", "Mc"},
    {"enclosingmark", "Me"},
    {"number", "N"},
    {"decimalnumber", "Nd"},
    {"letternumber", "Nl"},
    {"othernumber", "No"},
    {"punctuation", "P"},
    {"punct", "P"}, /* the property; [:punct:] is another class */
    {"connectorpunctuation", "Pc"},
    {"dashpunctuation", "Pd"},
    {"openpunctuation", "Ps"},
    {"closepunctuation", "Pe"},
    {"initialpunctuation", "Pi"},
    {"finalpunctuation", "Pf"},
    {"otherpunctuation", "Po"},
    {"symbol", "S"},
    {"mathsymbol", "Sm"},
    {"currencysymbol", "Sc"},
    {"modifiersymbol", "Sk"},
    {"othersymbol", "So"},
    {"separator", "Z"},
    {"spaceseparator", "Zs"},
    {"lineseparator", "Zl"},
    {"paragraphseparator", "Zp"},
    {"other", "C"},
    {"control", "Cc"},
    {"format", "Cf"},
    {"surrogate", "Cs"},
    {"privateuse", "Co"},
    {"unassigned", "Cn"},
};

static const char *const binary_properties[] = {"alphabetic",
                                                "asciihexdigit",
                                                "dash",
                                                "defaultignorablecodepoint",
                                                "diacritic",
                                                "emoji",
                                                "emojicomponent",
                                                "emojimodifier",
                                                "emojimodifierbase",
                                                "emojipresentation",
                                                "extendedpictographic",
                                                "extender",
                                                "hexdigit",
                                                "idcontinue",
                                                "ideographic",
                                                "idstart",
                                                "joincontrol",
                                                "lowercase",
                                                "math",
                                                "patternsyntax",
                                                "patternwhitespace",
                                                "quotationmark",
                                                "radical",
                                                "regionalindicator",
                                                "sentenceterminal",
                                                "terminalpunctuation",
                                                "unifiedideograph",
                                                "uppercase",
                                                "variationselector",
                                                "whitespace",
                                                "xidcontinue",
                                                "xidstart"};

static bool known_binary(const char *name)
{
    for (size_t i = 0; i < sizeof binary_properties / sizeof binary_properties[0]; i++) {
        if (strcmp(name, binary_properties[i]) == 0) return true;
    }
    return false;
}

static bool short_category(const char *name, char short_name[4])
{
    for (size_t i = 0; i < sizeof long_categories / sizeof long_categories[0]; i++) {
        if (strcmp(name, long_categories[i][0]) != 0) continue;
        snprintf(short_name, 4, "%s", long_categories[i][1]);
        return true;
    }
    const size_t n = strlen(name);
    if (n > 2 || !strchr("clmnpsz", name[0])) return false;
    snprintf(short_name, 4, "%c%s", name[0] - 'a' + 'A', name + 1);
    return true;
}

void mq__regex_property(const char *name, mq_regex_property *out)
{
    char short_name[4];
    if (short_category(name, short_name)) {
        snprintf(out->text[0], sizeof out->text[0], "\\p{%s}", short_name);
    } else if (mq__regex_posix_class(name, &out->class)) {
        return;
    } else {
        snprintf(out->text[0], sizeof out->text[0], "\\p{%s%s}", known_binary(name) ? "" : SCRIPT, name);
        short_name[0] = '\0';
    }
    snprintf(out->text[1], sizeof out->text[1], "\\P%s", out->text[0] + 2);
    const bool letters = short_name[0] == 'L' && short_name[1] && !strchr("mo", short_name[1]);
    const bool script = strncmp(out->text[0], "\\p{sc:", 6) == 0;
    const bool cased = strcmp(name, "lowercase") == 0 || strcmp(name, "uppercase") == 0;
    out->class = (mq_regex_class){out->text[0], out->text[1], NULL, letters || script || cased};
}
