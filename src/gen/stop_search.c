#include "gen/stop_search.h"

#include "base/error.h"
#include "base/mem.h"
#include "base/unicode.h"

#include <string.h>

#define STOP_BYTES_MAX 4096

/* Which text is searched: with the hidden parts, or as it is printed. */
enum { VIEW_WHOLE, VIEW_PRINTED, VIEWS };

/* A stop string as the automaton of Knuth, Morris and Pratt. */
typedef struct stop_string {
    char *text;
    uint16_t length;
    uint16_t
        *shorter; /* [length] shorter[n - 1]: the longest beginning that also ends text[0, n), and is not all of it */
    uint16_t matched[VIEWS]; /* bytes of it that the text so far ends with */
} stop_string;

struct mq_stop_search {
    stop_string *stops;
    size_t count;
    size_t found;   /* the number of the stop that ended the search */
    mq_buf pending; /* text that is not handed out */
    mq_buf hidden;  /* a byte for each of pending: whether it is hidden */
};

static bool make_automaton(stop_string *stop, const char *text, size_t length)
{
    stop->text = mq__strndup(text, length);
    stop->shorter = mq__alloc_zero(length, sizeof *stop->shorter);
    stop->length = (uint16_t)length;
    if (!stop->text || !stop->shorter) return false;
    uint16_t n = 0;
    for (size_t i = 1; i < length; i++) {
        while (n > 0 && text[i] != text[n]) {
            n = stop->shorter[n - 1];
        }
        if (text[i] == text[n]) n++;
        stop->shorter[i] = n;
    }
    return true;
}

mq_status mq__stop_search_new(const char *const *stops, size_t count, mq_stop_search **out, mq_error *error)
{
    *out = NULL;
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(stops[i]);
        if (length == 0 || length > STOP_BYTES_MAX) {
            return mq__fail(error, MQ_USAGE, "generate: stop string %zu: expected 1 to %d bytes, got %zu", i,
                            STOP_BYTES_MAX, length);
        }
        if (!mq__utf8_valid(stops[i], length)) {
            return mq__fail(error, MQ_USAGE, "generate: stop string %zu: expected UTF-8, got other bytes", i);
        }
    }
    mq_stop_search *search = mq__alloc_zero(1, sizeof *search);
    bool ok = search != NULL && (search->stops = mq__alloc_zero(count, sizeof *search->stops)) != NULL;
    for (size_t i = 0; ok && i < count; i++, search->count++) {
        ok = make_automaton(&search->stops[i], stops[i], strlen(stops[i]));
    }
    /* Room for any usual token behind the longest stop, so that feeding does not allocate. */
    ok = ok && mq__buf_reserve(&search->pending, STOP_BYTES_MAX + 1024) &&
         mq__buf_reserve(&search->hidden, STOP_BYTES_MAX + 1024);
    if (!ok) {
        mq__stop_search_free(search);
        return mq__fail(error, MQ_NO_MEMORY, "generate: stop strings: expected memory, got none");
    }
    *out = search;
    return MQ_OK;
}

void mq__stop_search_free(mq_stop_search *search)
{
    if (!search) return;
    for (size_t i = 0; i < search->count; i++) {
        mq__free(search->stops[i].text);
        mq__free(search->stops[i].shorter);
    }
    mq__free(search->stops);
    mq__buf_free(&search->pending);
    mq__buf_free(&search->hidden);
    mq__free(search);
}

/* Advances every stop by a byte of one view. Returns the length of the longest that is complete, or 0; *which: its number. */
static size_t advance_stops(mq_stop_search *search, int view, char byte, size_t *which)
{
    size_t longest = 0;
    for (size_t i = 0; i < search->count; i++) {
        stop_string *stop = &search->stops[i];
        uint16_t n = stop->matched[view];
        while (n > 0 && stop->text[n] != byte) {
            n = stop->shorter[n - 1];
        }
        if (stop->text[n] == byte) n++;
        stop->matched[view] = n;
        if (n < stop->length || n <= longest) continue;
        longest = n;
        *which = i;
    }
    return longest;
}

/* Where in pending the last `count` bytes of a view begin. */
static size_t start_of(const mq_stop_search *search, int view, size_t count)
{
    size_t at = search->pending.len;
    while (count > 0) {
        at--;
        if (view == VIEW_WHOLE || !search->hidden.data[at]) count--;
    }
    return at;
}

/* How much of pending is no beginning of a stop that later text could complete. */
static size_t certain_bytes(const mq_stop_search *search)
{
    size_t certain = search->pending.len;
    for (int view = 0; view < VIEWS; view++) {
        size_t longest = 0;
        for (size_t i = 0; i < search->count; i++) {
            if (search->stops[i].matched[view] > longest) longest = search->stops[i].matched[view];
        }
        const size_t start = start_of(search, view, longest);
        if (start < certain) certain = start;
    }
    return certain;
}

static void drop_bytes(mq_buf *buf, size_t count)
{
    memmove(buf->data, buf->data + count, buf->len - count);
    buf->len -= count;
}

static bool hand_out(mq_stop_search *search, size_t count, mq_buf *out)
{
    for (size_t i = 0; i < count; i++) {
        if (!search->hidden.data[i] && !mq__buf_putc(out, search->pending.data[i])) return false;
    }
    drop_bytes(&search->pending, count);
    drop_bytes(&search->hidden, count);
    return true;
}

bool mq__stop_search_feed(mq_stop_search *search, const char *text, size_t count, bool hidden, mq_buf *out, bool *found)
{
    *found = false;
    if (search->count == 0) return hidden || mq__buf_append(out, text, count);
    for (size_t i = 0; i < count; i++) {
        if (!mq__buf_putc(&search->pending, text[i]) || !mq__buf_putc(&search->hidden, hidden)) return false;
        size_t which[VIEWS] = {0};
        const size_t whole = advance_stops(search, VIEW_WHOLE, text[i], &which[VIEW_WHOLE]);
        const size_t printed = hidden ? 0 : advance_stops(search, VIEW_PRINTED, text[i], &which[VIEW_PRINTED]);
        if (whole == 0 && printed == 0) continue;
        const size_t a = start_of(search, VIEW_WHOLE, whole), b = start_of(search, VIEW_PRINTED, printed);
        *found = true;
        search->found = which[a <= b ? VIEW_WHOLE : VIEW_PRINTED];
        const bool ok = hand_out(search, a < b ? a : b, out);
        search->pending.len = search->hidden.len = 0;
        return ok;
    }
    return search->pending.len == 0 || hand_out(search, certain_bytes(search), out);
}

size_t mq__stop_search_found(const mq_stop_search *search)
{
    return search->found;
}

bool mq__stop_search_end(mq_stop_search *search, mq_buf *out)
{
    return search->pending.len == 0 || hand_out(search, search->pending.len, out);
}
