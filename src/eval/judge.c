#include "eval/judge.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef MQ_JUDGE
#include <curl/curl.h>
#include <pthread.h>
#include <unistd.h>
#endif

/* "yes" or "no" as a word of its own at p, after what models put around it. */
static mq_verdict word_of_verdict(const char *p)
{
    p += strspn(p, " \t\"'*(");
    if (strncasecmp(p, "yes", 3) == 0 && !isalpha((unsigned char)p[3])) return MQ_VERDICT_YES;
    if (strncasecmp(p, "no", 2) == 0 && !isalpha((unsigned char)p[2])) return MQ_VERDICT_NO;
    return MQ_VERDICT_NONE;
}

mq_verdict mq__judge_verdict(const char *reply)
{
    mq_verdict first = MQ_VERDICT_NONE, last = MQ_VERDICT_NONE;
    for (const char *p = mq__eval_after_thought(reply, false); *p;) {
        const char *end = p + strcspn(p, "\n");
        if (end > p) last = word_of_verdict(p);
        if (first == MQ_VERDICT_NONE) first = last;
        p = end + (*end == '\n');
    }
    return last != MQ_VERDICT_NONE ? last : first;
}

#ifdef MQ_JUDGE

enum { ATTEMPTS = 3, REPLY_MAX = 1 << 20, WAIT_S = 600, TOKENS = 2048 };

static pthread_once_t judge_once = PTHREAD_ONCE_INIT;

static void start_judge(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

static size_t take_reply(char *data, size_t size, size_t count, void *context)
{
    mq_buf *reply = context;
    return mq__buf_append(reply, data, size * count) ? size * count : 0;
}

static struct curl_slist *headers_of_judge(void)
{
    char line[1024];
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    const char *key = getenv("MQ_JUDGE_KEY");
    if (!headers || !key) return headers;
    snprintf(line, sizeof line, "Authorization: Bearer %s", key);
    struct curl_slist *both = curl_slist_append(headers, line);
    if (!both) curl_slist_free_all(headers);
    return both;
}

/* One request; what went wrong is in why. */
static bool post(const char *url, const char *body, mq_buf *reply, char why[128])
{
    CURL *easy = curl_easy_init();
    struct curl_slist *headers = headers_of_judge();
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    mq__buf_clear(reply);
    if (easy && headers && curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_TIMEOUT, (long)WAIT_S) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_reply) == CURLE_OK &&
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, reply) == CURLE_OK) {
        code = curl_easy_perform(easy);
    }
    if (code == CURLE_OK) code = curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK) snprintf(why, 128, "%s", curl_easy_strerror(code));
    if (code == CURLE_OK) snprintf(why, 128, "status %ld", status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(easy);
    return code == CURLE_OK && status == 200;
}

static bool read_verdict(const mq_buf *reply, mq_verdict *verdict)
{
    json_t *root = NULL;
    (void)mq__json_read(reply->data, reply->len, 0, MQ_JSON_ROUND_NUMBERS, "reply", &root, NULL);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const char *text = json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    if (text) *verdict = mq__judge_verdict(text);
    json_decref(root);
    return text != NULL;
}

mq_status mq__judge_ask(const mq_eval_options *options, const char *question, mq_verdict *verdict, mq_error *error)
{
    char url[2048], why[128] = "";
    const char *base = options->judge_url;
    const size_t length = strlen(base);
    snprintf(url, sizeof url, "%s%schat/completions", base, length && base[length - 1] == '/' ? "" : "/");
    json_t *request =
        json_pack("{sss[{ssss}]sisi}", "model", options->judge_model ? options->judge_model : "judge", "messages",
                  "role", "user", "content", question, "temperature", 0, "max_tokens", TOKENS);
    char *body = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (!body) return mq__fail(error, MQ_NO_MEMORY, "eval: judge: expected memory, got none");
    (void)pthread_once(&judge_once, start_judge);
    mq_buf reply = {.max = REPLY_MAX};
    bool answered = false;
    for (unsigned i = 0; i < ATTEMPTS && !answered; i++) {
        if (i) (void)sleep(i);
        answered = post(url, body, &reply, why);
        if (answered && !read_verdict(&reply, verdict)) {
            snprintf(why, sizeof why, "a reply without an answer");
            answered = false;
        }
    }
    free(body);
    mq__buf_free(&reply);
    if (answered) return MQ_OK;
    return mq__fail(error, MQ_IO, "eval: judge: %s: expected an answer, got %s", url, why);
}

#else

mq_status mq__judge_ask(const mq_eval_options *options, const char *question, mq_verdict *verdict, mq_error *error)
{
    (void)options;
    (void)question;
    (void)verdict;
    return mq__fail(error, MQ_UNSUPPORTED, "eval: judge: expected a build with libcurl, got one without");
}

#endif
