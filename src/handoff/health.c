/* How peers are, as their HTTP servers say. */
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"
#include "handoff/peers.h"

#include <curl/curl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_BYTES  ((size_t)64 << 10)
#define ANSWER_VALUES 4096
#define POLL_MS       100

/* ---- the answer */

/* Which fingerprints differ; as mq_handoff_describe writes them. */
static mq_status check_prints(const mq_handoff *h, const json_t *prints, mq_error *error)
{
    const struct {
        const char *name;
        const mq_digest *own;
    } parts[] = {{"layout", &h->print.layout},
                 {"weights", &h->print.weights},
                 {"plan", &h->print.plan},
                 {"tokenizer", &h->print.tokenizer},
                 {"rope", &h->print.rope}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        char own[33];
        const char *text;
        mq__hex(parts[i].own->bytes, sizeof parts[i].own->bytes, own);
        const mq_status status = mq__json_string(prints, parts[i].name, &text, error);
        if (status != MQ_OK) return status;
        if (text && strcmp(text, own) == 0) continue;
        return mq__fail(error, MQ_UNSUPPORTED, "%s: expected the same on both sides, got others", parts[i].name);
    }
    return MQ_OK;
}

static mq_status read_link(const json_t *link, mq_peer_answer *answer, mq_error *error)
{
    int64_t port = 0;
    const char *transport;
    mq_status status = mq__json_integer(link, "port", 0, 65535, 0, &port, error);
    if (status == MQ_OK) status = mq__json_string(link, "transport", &transport, error);
    if (status != MQ_OK) return status;
    if (port == 0 || !transport || strlen(transport) >= MQ_CLIENT_TRANSPORT) {
        return mq__fail(error, MQ_UNSUPPORTED, "role: expected a worker that prefills, got one without a link");
    }
    if (!mq__link_has_kind(transport)) {
        return mq__fail(error, MQ_UNSUPPORTED, "link: expected one of %s, got %s", mq__link_kinds(), transport);
    }
    answer->address.port = (uint16_t)port;
    snprintf(answer->address.transport, sizeof answer->address.transport, "%s", transport);
    return MQ_OK;
}

static mq_status read_answer(const mq_handoff *h, const json_t *root, mq_peer_answer *answer, mq_error *error)
{
    const json_t *link = json_object_get(root, "link"), *prints = json_object_get(root, "fingerprints");
    const char *instance = NULL;
    int64_t unread = 0, context = 0;
    if (!json_is_object(link) || !json_is_object(prints)) {
        return mq__fail(error, MQ_UNSUPPORTED, "role: expected a worker that prefills, got another server");
    }
    mq_status status = check_prints(h, prints, error);
    if (status == MQ_OK) status = read_link(link, answer, error);
    if (status == MQ_OK) status = mq__json_string(root, "instance", &instance, error);
    if (status == MQ_OK) status = mq__json_integer(root, "unread_tokens", 0, INT64_MAX, 0, &unread, error);
    if (status == MQ_OK) status = mq__json_integer(root, "context", 0, UINT32_MAX, 0, &context, error);
    char own[33];
    mq__hex(h->instance, sizeof h->instance, own);
    if (status == MQ_OK && instance && strcmp(instance, own) == 0) {
        status = mq__fail(error, MQ_UNSUPPORTED, "instance: expected another worker, got this one itself");
    }
    if (status == MQ_OK) {
        status = mq__json_number(root, "prompt_tokens_per_second", 0, 1e12, 0, &answer->rate, error);
    }
    if (status != MQ_OK) return status;
    snprintf(answer->instance, sizeof answer->instance, "%s", instance ? instance : "");
    answer->unread = (uint64_t)unread;
    answer->context = (uint32_t)context;
    return MQ_OK;
}

mq_status mq__health_read(const mq_handoff *h, const char *text, size_t bytes, mq_peer_answer *answer, mq_error *error)
{
    json_t *root;
    *answer = (mq_peer_answer){.unread = 0};
    mq_status status = mq__json_parse(text, bytes, ANSWER_VALUES, "answer", "/internal/link", &root, error);
    if (status != MQ_OK) return status;
    status = read_answer(h, root, answer, error);
    json_decref(root);
    return status;
}

/* ---- asking */

typedef struct question {
    mq_peer *peer; /* NULL: of mq__health_ask */
    mq_peer_name at;
    CURL *easy;
    mq_buf text;
    CURLcode code;
    bool is_done;
} question;

static size_t take_text(char *bytes, size_t size, size_t count, void *context)
{
    question *q = context;
    return mq__buf_append(&q->text, bytes, size * count) ? size * count : 0;
}

static bool is_v6(const char *host)
{
    return strchr(host, ':') != NULL;
}

/* A plain GET of one place, of one server: no redirects, no proxy, no other protocol. */
static bool prepare_question(const mq_handoff *h, question *q)
{
    char url[MQ_HOST_MOST + 64];
    snprintf(url, sizeof url, is_v6(q->at.host) ? "http://[%s]:%u/internal/link" : "http://%s:%u/internal/link",
             q->at.host, q->at.port);
    q->text.max = ANSWER_BYTES;
    q->easy = curl_easy_init();
    return q->easy && curl_easy_setopt(q->easy, CURLOPT_URL, url) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_PROTOCOLS_STR, "http") == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_FAILONERROR, 1L) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_TIMEOUT_MS, (long)(h->tuning.health_wait * 1e3)) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_USERAGENT, "mixquant") == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_PRIVATE, q) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_WRITEDATA, q) == CURLE_OK &&
           curl_easy_setopt(q->easy, CURLOPT_WRITEFUNCTION, take_text) == CURLE_OK;
}

static void forget_question(question *q)
{
    curl_easy_cleanup(q->easy);
    mq__buf_free(&q->text);
}

static mq_status read_question(const mq_handoff *h, const question *q, mq_peer_answer *answer, mq_error *error)
{
    mq_status status = MQ_IO;
    if (!q->is_done)
        (void)mq__fail(error, MQ_IO, "expected an answer in time, got none");
    else if (q->code != CURLE_OK)
        (void)mq__fail(error, MQ_IO, "expected an answer, got: %s", curl_easy_strerror(q->code));
    else
        status = mq__health_read(h, q->text.len ? q->text.data : "", q->text.len, answer, error);
    return status;
}

mq_status mq__health_ask(const mq_handoff *h, const mq_peer_name *at, mq_peer_answer *answer, mq_error *error)
{
    question q = {.at = *at};
    mq_status status = MQ_NO_MEMORY;
    if (prepare_question(h, &q)) {
        q.code = curl_easy_perform(q.easy);
        q.is_done = true;
        status = read_question(h, &q, answer, error);
    } else {
        (void)mq__fail(error, MQ_NO_MEMORY, "expected memory, got none");
    }
    forget_question(&q);
    return status;
}

/* ---- asking all, again and again */

static bool is_stopping(mq_peers *p)
{
    pthread_mutex_lock(&p->lock);
    const bool stopping = p->is_stopping;
    pthread_mutex_unlock(&p->lock);
    return stopping;
}

/* Peers of the list stay where they are. *count: those with an HTTP server. */
static question *list_questions(mq_handoff *h, size_t *count)
{
    mq_peers *p = h->peers;
    pthread_mutex_lock(&p->lock);
    question *q = mq__alloc_zero(p->count, sizeof *q);
    *count = 0;
    for (mq_peer *peer = p->first; q && peer; peer = peer->next) {
        if (!peer->is_listed || peer->at.is_link) continue;
        q[*count] = (question){.peer = peer, .at = peer->at};
        (*count)++;
    }
    pthread_mutex_unlock(&p->lock);
    return q;
}

static void note_done(CURLM *multi, size_t *running)
{
    int left;
    for (CURLMsg *message = curl_multi_info_read(multi, &left); message; message = curl_multi_info_read(multi, &left)) {
        question *q = NULL;
        if (message->msg != CURLMSG_DONE) continue;
        if (curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&q) != CURLE_OK || !q) continue;
        q->code = message->data.result;
        q->is_done = true;
        (*running)--;
    }
}

static void ask_all(mq_handoff *h, CURLM *multi, question *q, size_t count)
{
    size_t running = 0;
    const double until = mq__seconds() + 2 * h->tuning.health_wait;
    for (size_t i = 0; i < count; i++) {
        mq__buf_clear(&q[i].text);
        q[i].is_done = false;
        if (q[i].easy && curl_multi_add_handle(multi, q[i].easy) == CURLM_OK) running++;
    }
    while (running > 0 && mq__seconds() < until && !is_stopping(h->peers)) {
        int active, ready;
        if (curl_multi_perform(multi, &active) != CURLM_OK) break;
        note_done(multi, &running);
        if (running > 0) (void)curl_multi_poll(multi, NULL, 0, POLL_MS, &ready);
    }
    for (size_t i = 0; i < count; i++) {
        if (q[i].easy) (void)curl_multi_remove_handle(multi, q[i].easy);
    }
}

static void hear_all(mq_handoff *h, question *q, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mq_peer_answer answer;
        mq_error error = {0};
        const mq_status status = read_question(h, &q[i], &answer, &error);
        char prefix[MQ_CLIENT_NAME + 16];
        snprintf(prefix, sizeof prefix, "hand-off: %s", q[i].peer->name);
        if (status != MQ_OK) (void)mq__fail_within(&error, status, prefix);
        mq__peer_answered(h, q[i].peer, status == MQ_OK ? &answer : NULL, &error);
    }
}

void *mq__health_run(void *context)
{
    mq_handoff *h = context;
    mq_peers *p = h->peers;
    size_t count;
    question *q = list_questions(h, &count);
    CURLM *multi = curl_multi_init();
    for (size_t i = 0; q && i < count; i++) {
        if (!prepare_question(h, &q[i])) mq__handoff_log(h, "hand-off: %s: expected memory, got none", q[i].at.host);
    }
    while (q && multi && !is_stopping(p)) {
        const double next = mq__seconds() + h->tuning.health;
        ask_all(h, multi, q, count);
        if (!is_stopping(p)) hear_all(h, q, count);
        pthread_mutex_lock(&p->lock);
        while (!p->is_stopping && mq__seconds() < next) {
            mq__cond_wait_until(&p->changed, &p->lock, next);
        }
        pthread_mutex_unlock(&p->lock);
    }
    for (size_t i = 0; q && i < count; i++) {
        forget_question(&q[i]);
    }
    curl_multi_cleanup(multi);
    mq__free(q);
    return NULL;
}
