#include "eval/names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

static uint32_t crc32_of(const char *text)
{
    uint32_t crc = ~0u;
    for (const char *p = text; *p; p++) {
        crc ^= (uint8_t)tolower((unsigned char)*p);
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
    }
    return ~crc;
}

static uint32_t below_names(mq_eval_random *r, size_t bound)
{
    return mq__eval_random_below(r, (uint32_t)bound);
}

bool mq__eval_is_held(const char *text)
{
    return crc32_of(text) % 8 == 0;
}

void mq__eval_held_name(mq_eval_random *r, char name[32])
{
    static const char *const onsets[] = {"b",  "c",  "d",  "f",  "g",  "h",  "j",  "k",  "l",  "m",
                                         "n",  "p",  "r",  "s",  "t",  "v",  "w",  "z",  "br", "dr",
                                         "gr", "kr", "tr", "st", "sh", "th", "ch", "pl", "fl"};
    static const char *const codas[] = {"", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd"};
    static const uint32_t syllables[] = {1, 2, 2, 2, 3};
    do {
        name[0] = '\0';
        for (uint32_t n = syllables[below_names(r, 5)]; n > 0; n--) {
            const size_t used = strlen(name);
            const char *onset = onsets[below_names(r, sizeof onsets / sizeof *onsets)];
            const char vowel = "aeiou"[below_names(r, 5)];
            snprintf(name + used, 32 - used, "%s%c%s", onset, vowel,
                     codas[below_names(r, sizeof codas / sizeof *codas)]);
        }
        name[0] = (char)toupper((unsigned char)name[0]);
    } while (strlen(name) < 3 || !mq__eval_is_held(name));
}
