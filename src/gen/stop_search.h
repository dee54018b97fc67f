/* Searches a stream of text for stop strings and holds back what may be the beginning of one. What is found does not depend
 * on how the stream is cut: the search ends at the first byte that completes a stop, and of several that end there the
 * longest counts.
 *
 * Some text is hidden: the text of special tokens that are not printed. A stop is found both in the text with hidden parts
 * and in the text without them; hidden parts are never handed out. */
#ifndef MQ_STOP_SEARCH_H
#define MQ_STOP_SEARCH_H

#include "base/buf.h"
#include "mixquant.h"

typedef struct mq_stop_search mq_stop_search;

/* Stops are copied: UTF-8 of 1 to 4096 bytes each (MQ_USAGE otherwise). */
mq_status mq__stop_search_new(const char *const *stops, size_t count, mq_stop_search **search, mq_error *error);
void mq__stop_search_free(mq_stop_search *search);

/* Takes text and appends to out what became certain. *found: a stop is complete; what precedes it is in out, and the rest is
 * dropped. False: out of memory. */
bool mq__stop_search_feed(mq_stop_search *search, const char *text, size_t count, bool hidden, mq_buf *out,
                          bool *found);

/* Which stop it was that was found. */
size_t mq__stop_search_found(const mq_stop_search *search);

/* The text ends: appends to out what was held back. */
bool mq__stop_search_end(mq_stop_search *search, mq_buf *out);

#endif
