#include "eval/ruler.h"

#include "base/distribution.h"
#include "base/mem.h"
#include "eval/names.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const mq__ruler_kind_names[MQ_RULER_KINDS] = {"single",   "multikey", "multivalue", "multiquery",
                                                          "tracking", "common",   "frequent",   "single-uuid",
                                                          "crowded",  "uuids",    "qa"};

#define FACT_BYTES (sizeof((mq_ruler_item *)NULL)->fact[0])

static uint32_t below(mq_eval_random *r, uint32_t bound)
{
    return mq__eval_random_below(r, bound);
}

/* ---- words */

/* count names that differ, also from those before them in the list. */
static void make_names(mq_eval_random *r, char (*names)[32], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        bool again = true;
        while (again) {
            mq__eval_held_name(r, names[i]);
            again = false;
            for (uint32_t k = 0; k < i; k++) {
                again = again || strcmp(names[k], names[i]) == 0;
            }
        }
    }
}

static void make_number(mq_eval_random *r, mq_ruler_wording wording, char number[32])
{
    static const uint32_t low[] = {100, 1000, 10000, 100000};
    do {
        const uint32_t digits = wording == MQ_RULER_ENGLISH ? 3 : below(r, 4); /* RULER: 7 digits; ours: 3 to 6 */
        const uint32_t from = wording == MQ_RULER_ENGLISH ? 1000000 : low[digits];
        snprintf(number, 32, "%u", from + below(r, 9 * from));
    } while (!mq__eval_is_held(number));
}

static void make_uuid(mq_eval_random *r, char text[48])
{
    const uint64_t a = mq__eval_random_u64(r), b = mq__eval_random_u64(r);
    snprintf(text, 48, "%08x-%04x-4%03x-%04x-%012llx", (unsigned)(a >> 32), (unsigned)(a >> 16) & 0xffff,
             (unsigned)a & 0xfff, 0x8000 | ((unsigned)(b >> 48) & 0x3fff), (unsigned long long)b & 0xffffffffffffULL);
}

/* ---- questions */

static void place(mq_ruler_item *item, mq_eval_random *r)
{
    for (uint32_t i = 0; i < item->facts; i++) {
        item->depth[i] = (double)(mq__eval_random_u64(r) >> 11) * 0x1p-53;
    }
    qsort(item->depth, item->facts, sizeof *item->depth, mq__compare_doubles);
}

static void want(mq_ruler_item *item, const char *text)
{
    snprintf(item->wanted[item->wanted_count++], sizeof item->wanted[0], "%.47s", text);
}

static void announce_needles(mq_ruler_item *item, const char *what)
{
    snprintf(item->before, sizeof item->before,
             "Some special magic %s are hidden within the following text. Make sure to memorize it. I will quiz you "
             "about the %s afterwards.\n",
             what, what);
}

static void make_needles(mq_ruler_item *item, mq_eval_random *r)
{
    static const uint32_t many[] = {2, 4, 8}, queried[] = {3, 4, 6};
    static const char *const fields[] = {"cost", "stage", "fee", "volume", "delay", "amount"};
    const bool english = item->wording == MQ_RULER_ENGLISH;
    const char *field = fields[below(r, 6)];
    const bool uuids = item->kind == MQ_RULER_SINGLE_UUID;
    const char *what = uuids ? "uuids" : "numbers";
    char names[8][32], numbers[3][48];
    const uint32_t keys = item->kind == MQ_RULER_MULTIKEY     ? many[below(r, 3)]
                          : item->kind == MQ_RULER_MULTIQUERY ? queried[below(r, 3)]
                                                              : 1;
    const uint32_t values = item->kind == MQ_RULER_MULTIVALUE ? 2 + below(r, 2) : 1;
    const uint32_t asked = item->kind == MQ_RULER_MULTIQUERY ? 2 : 1;
    const uint32_t first = below(r, keys - asked + 1); /* facts are in random order by their names already */
    make_names(r, names, keys);
    for (uint32_t k = 0; k < keys; k++) {
        for (uint32_t v = 0; v < values; v++) {
            if (uuids)
                make_uuid(r, numbers[v]);
            else
                make_number(r, item->wording, numbers[v]);
            char *fact = item->fact[item->facts++];
            if (english)
                snprintf(fact, FACT_BYTES, "One of the special magic %s for %.31s is: %.47s.", what, names[k],
                         numbers[v]);
            else
                snprintf(fact, FACT_BYTES, "The %s of %.31s is %.47s.", field, names[k], numbers[v]);
            if (k >= first && k < first + asked) want(item, numbers[v]);
        }
    }
    if (english) {
        announce_needles(item, what);
        snprintf(item->question, sizeof item->question,
                 "What are all the special magic %s for %s%s%s mentioned in the provided text?", what, names[first],
                 asked == 2 ? " and " : "", asked == 2 ? names[first + 1] : "");
    } else if (values > 1) {
        snprintf(item->question, sizeof item->question, "What are all the %ss of %s?", field, names[first]);
    } else {
        snprintf(item->question, sizeof item->question, "What is the %s of %s%s%s?", field, names[first],
                 asked == 2 ? " and of " : "", asked == 2 ? names[first + 1] : "");
    }
}

/* A needle of a crowd: key and value are names and numbers, or UUIDs. */
static void crowd_needle(const mq_ruler_item *item, mq_eval_random *r, char key[48], char value[48],
                         char fact[sizeof item->fact[0]])
{
    const bool uuids = item->kind == MQ_RULER_UUIDS;
    if (uuids) {
        make_uuid(r, key);
        make_uuid(r, value);
    } else {
        char names[2][32]; /* two: of one alone there are too few */
        make_names(r, names, 2);
        snprintf(key, 48, "%.20s-%.20s", names[0], names[1]);
        make_number(r, item->wording, value);
    }
    snprintf(fact, FACT_BYTES, "One of the special magic %s for %.47s is: %.47s.", uuids ? "uuids" : "numbers", key,
             value);
}

static void make_crowd(mq_ruler_item *item, mq_eval_random *r)
{
    const char *what = item->kind == MQ_RULER_UUIDS ? "uuid" : "number";
    char key[48], value[48];
    crowd_needle(item, r, key, value, item->fact[item->facts++]);
    want(item, value);
    announce_needles(item, item->kind == MQ_RULER_UUIDS ? "uuids" : "numbers");
    snprintf(item->question, sizeof item->question,
             "What is the special magic %s for %.47s mentioned in the provided text?", what, key);
}

/* Another needle of the crowd, of another key than the one that is asked for. */
static void add_crowd(const mq_ruler_item *item, uint32_t i, mq_buf *text)
{
    char name[32], key[48], value[48], fact[FACT_BYTES], asked[64];
    for (uint32_t again = 0;; again++) {
        snprintf(name, sizeof name, "crowd-%u-%u", i, again);
        mq_eval_random own = mq__eval_random(item->noise_seed, name);
        crowd_needle(item, &own, key, value, fact);
        snprintf(asked, sizeof asked, "for %s is: ", key);
        if (!strstr(item->fact[0], asked)) break;
    }
    mq__buf_puts(text, fact);
}

/* Chains of names; the sentences of a chain keep their order, the chains mix. */
static void make_chains(mq_ruler_item *item, mq_eval_random *r)
{
    const bool english = item->wording == MQ_RULER_ENGLISH;
    static const uint32_t chain_counts[] = {1, 2, 2, 3}, chain_lengths[] = {2, 3, 3, 4};
    const uint32_t chains = english ? 1 : chain_counts[below(r, 4)];
    char names[12][32], values[3][32];
    uint32_t length[3], done[3] = {0}, left = 0, start[3];
    for (uint32_t c = 0; c < chains; c++) {
        length[c] = english ? 5 : chain_lengths[below(r, 4)];
        start[c] = left;
        left += length[c];
        make_number(r, item->wording, values[c]);
    }
    make_names(r, names, left);
    const uint32_t asked = below(r, chains);
    while (left > 0) {
        const uint32_t c = below(r, chains), k = done[c];
        if (k == length[c]) continue;
        const char *name = names[start[c] + k], *from = k ? names[start[c] + k - 1] : values[c];
        const char *form = !english ? "%s is %s." : k ? "VAR %s = VAR %s." : "VAR %s = %s.";
        snprintf(item->fact[item->facts++], FACT_BYTES, form, name, from);
        if (c == asked) want(item, name);
        done[c]++;
        left--;
    }
    if (english) {
        snprintf(item->before, sizeof item->before,
                 "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n");
        snprintf(item->question, sizeof item->question,
                 "Find all variables that are assigned the value %s in the text above.", values[asked]);
    } else {
        snprintf(item->question, sizeof item->question, "Which names are %s?", values[asked]);
    }
}

static void want_names(mq_ruler_item *item, mq_eval_random *r, uint32_t count)
{
    char names[10][32];
    make_names(r, names, count);
    for (uint32_t i = 0; i < count; i++) {
        want(item, names[i]);
    }
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void make_common(mq_ruler_item *item, mq_eval_random *r)
{
    const bool english = item->wording == MQ_RULER_ENGLISH;
    want_names(item, r, english ? 10 : 3);
    qsort(item->wanted, item->wanted_count, sizeof item->wanted[0], by_text);
    snprintf(item->before, sizeof item->before, "%s",
             english
                 ? "Below is a list of words. In these words, some appear more often than others. Memorize the ones "
                   "that appear most often.\n"
                 : "");
    snprintf(item->question, sizeof item->question, "%s",
             english ? "What are the 10 most common words in the above list?" : "Which names are common?");
}

static void make_frequent(mq_ruler_item *item, mq_eval_random *r)
{
    const bool english = item->wording == MQ_RULER_ENGLISH;
    want_names(item, r, 3);
    if (english) {
        snprintf(
            item->before, sizeof item->before,
            "The text below is in code: nobody knows what its words mean. Some of them come more often than others.\n");
    }
    snprintf(item->question, sizeof item->question, "%s",
             english ? "Which three words come most often in the coded text above?" : "Which names are common?");
}

void mq__ruler_make(mq_ruler_item *item, mq_ruler_kind kind, mq_ruler_wording wording, mq_ruler_source source,
                    uint64_t seed, const char *name)
{
    mq_eval_random r = mq__eval_random(seed, name);
    *item = (mq_ruler_item){.kind = kind, .wording = wording, .source = source};
    if (kind == MQ_RULER_CROWDED || kind == MQ_RULER_UUIDS)
        make_crowd(item, &r);
    else if (kind == MQ_RULER_COMMON)
        make_common(item, &r);
    else if (kind == MQ_RULER_FREQUENT)
        make_frequent(item, &r);
    else if (kind == MQ_RULER_TRACKING)
        make_chains(item, &r);
    else if (kind != MQ_RULER_QA)
        make_needles(item, &r);
    place(item, &r);
    item->noise_seed = mq__eval_random_u64(&r);
}

/* ---- texts */

static void add_noise(const mq_ruler_item *item, mq_eval_random *r, uint32_t i, mq_buf *text)
{
    static const char *const filler[] = {"the",   "a",     "one",  "this", "that",  "old",   "new",  "small",
                                         "big",   "warm",  "cold", "wind", "rain",  "tree",  "bird", "stone",
                                         "field", "road",  "hill", "sea",  "moved", "stood", "fell", "ran",
                                         "near",  "under", "over", "by",   "with",  "and",   "then", "again"};
    static const char *const english[] = {"The grass is green.", "The sky is blue.", "The sun is yellow.",
                                          "Here we go.", "There and back again."};
    const mq_ruler_hay *hay = item->kind == MQ_RULER_TRACKING ? NULL : item->source.hay;
    if (item->kind == MQ_RULER_CROWDED || item->kind == MQ_RULER_UUIDS) {
        add_crowd(item, i, text);
        return;
    }
    if (item->wording == MQ_RULER_ENGLISH) {
        const uint64_t first = hay ? item->noise_seed % hay->count : 0;
        mq__buf_puts(text, hay ? hay->text + hay->begin[(first + i) % hay->count] : english[i % 5]);
        return;
    }
    const uint32_t words = 5 + below(r, 7);
    for (uint32_t k = 0; k < words; k++) {
        const char *word = filler[below(r, sizeof filler / sizeof *filler)];
        if (k) mq__buf_putc(text, ' ');
        mq__buf_putc(text, k ? word[0] : (char)toupper((unsigned char)word[0]));
        mq__buf_puts(text, word + 1);
    }
    mq__buf_putc(text, '.');
}

/* `noise` rounds: each wanted word once a round, and one word that comes only once; shuffled as a whole. */
static void common_text(const mq_ruler_item *item, uint32_t noise, mq_buf *text)
{
    mq_eval_random r = {item->noise_seed};
    const uint32_t rounds = noise < 3 ? 3 : noise, each = item->wanted_count;
    const uint32_t count = rounds * (each + 1);
    uint32_t *order = mq__alloc(count * sizeof *order);
    for (uint32_t i = 0; order && i < count; i++) {
        const uint32_t k = below(&r, i + 1);
        order[i] = order[k];
        order[k] = i;
    }
    for (uint32_t i = 0; order && i < count; i++) {
        const uint32_t word = order[i] % (each + 1);
        char once[32], name[48];
        snprintf(name, sizeof name, "once-%u", order[i]);
        mq_eval_random own = mq__eval_random(item->noise_seed, name);
        mq__eval_held_name(&own, once);
        mq__buf_puts(text, i ? " " : "");
        mq__buf_puts(text, word < each ? item->wanted[word] : once);
    }
    if (!order) text->failed = true;
    mq__free(order);
}

/* The word of a rank from 0: a wanted one, or one made up for it. */
static void word_of_rank(const mq_ruler_item *item, uint32_t rank, char word[32])
{
    char name[32];
    if (rank < item->wanted_count) {
        snprintf(word, 32, "%.31s", item->wanted[rank]);
        return;
    }
    for (uint32_t again = 0;; again++) {
        snprintf(name, sizeof name, "rank-%u-%u", rank, again);
        mq_eval_random own = mq__eval_random(item->noise_seed, name);
        mq__eval_held_name(&own, word);
        uint32_t i = 0;
        while (i < item->wanted_count && strcmp(item->wanted[i], word) != 0) {
            i++;
        }
        if (i == item->wanted_count) return;
    }
}

/* The word of rank k comes 1 / (k + 1)^2 as often as the first one (RULER's zeta distribution with alpha 2): `noise` times that one,
 * at least 18, so that the third and the fourth differ. Shuffled as a whole. */
static void frequent_text(const mq_ruler_item *item, uint32_t noise, mq_buf *text)
{
    mq_eval_random r = {item->noise_seed};
    const uint32_t first = noise < 18 ? 18 : noise;
    uint32_t count = 0, *order = mq__alloc(2 * (size_t)first * sizeof *order); /* the sum of 1 / k^2 is below 2 */
    for (uint32_t rank = 0; order && (uint64_t)(rank + 1) * (rank + 1) <= first; rank++) {
        const uint32_t times = (uint32_t)(first / ((uint64_t)(rank + 1) * (rank + 1)));
        for (uint32_t i = 0; i < times; i++, count++) {
            const uint32_t k = below(&r, count + 1);
            order[count] = order[k];
            order[k] = rank;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        char word[32];
        word_of_rank(item, order[i], word);
        mq__buf_puts(text, i ? " " : "");
        mq__buf_puts(text, word);
    }
    if (!order) text->failed = true;
    mq__free(order);
}

void mq__ruler_text(const mq_ruler_item *item, uint32_t noise, mq_buf *text)
{
    mq_eval_random r = {item->noise_seed};
    uint32_t fact = 0;
    bool first = true;
    if (item->kind == MQ_RULER_QA) {
        mq__ruler_qa_text(item->source.qa, item->source.index, item->noise_seed, noise, text);
        return;
    }
    mq__buf_puts(text, item->before);
    const bool counted = item->kind == MQ_RULER_COMMON || item->kind == MQ_RULER_FREQUENT;
    if (item->kind == MQ_RULER_COMMON) common_text(item, noise, text);
    if (item->kind == MQ_RULER_FREQUENT) frequent_text(item, noise, text);
    for (uint32_t i = 0; !counted && i <= noise; i++) {
        while (fact < item->facts && (uint32_t)(item->depth[fact] * (noise + 1)) <= i) {
            mq__buf_puts(text, first ? "" : " ");
            mq__buf_puts(text, item->fact[fact++]);
            first = false;
        }
        if (i == noise) break;
        mq__buf_puts(text, first ? "" : " ");
        add_noise(item, &r, i, text);
        first = false;
    }
    mq__buf_putc(text, '\n');
    mq__buf_puts(text, item->question);
}

/* ---- scores */

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool contains(const char *answer, const char *text)
{
    const size_t length = strlen(text);
    for (const char *p = answer; (p = strcasestr(p, text)); p++) {
        if ((p == answer || !is_word(p[-1])) && !is_word(p[length])) return true;
    }
    return false;
}

double mq__ruler_score(const mq_ruler_item *item, const char *answer)
{
    uint32_t found = 0;
    if (item->kind == MQ_RULER_QA) {
        const json_t *right;
        size_t k;
        json_array_foreach(mq__ruler_qa_answers(item->source.qa, item->source.index), k, right)
        {
            if (contains(answer, json_string_value(right))) return 1;
        }
        return 0;
    }
    for (uint32_t i = 0; i < item->wanted_count; i++) {
        found += contains(answer, item->wanted[i]);
    }
    return (double)found / item->wanted_count;
}
