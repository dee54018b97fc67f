#include "eval/ruler_qa.h"

#include "base/error.h"
#include "base/json_read.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading */

typedef struct qa_reader {
    mq_ruler_qa *qa;
    json_t *places;    /* {document: its place} */
    const char *wrong; /* what cannot be: NULL so far */
    bool failed;       /* no memory, besides jansson's own failures */
} qa_reader;

static const json_t *member(const json_t *object, const char *key)
{
    return json_object_get(object, key);
}

static bool is_own(const json_t *own, json_int_t place)
{
    const json_t *value;
    size_t i;
    json_array_foreach(own, i, value)
    {
        if (json_integer_value(value) == place) return true;
    }
    return false;
}

/* Adds a document's place to a question's own ones; a document that is new is kept. */
static void add_own(qa_reader *r, const char *document, json_t *own)
{
    json_t *place = json_incref(json_object_get(r->places, document));
    if (!place) {
        place = json_integer((json_int_t)json_array_size(r->qa->documents));
        json_array_append_new(r->qa->documents, json_string(document));
        json_object_set(r->places, document, place);
    }
    if (json_array_size(own) == MQ_RULER_OWN)
        r->wrong = "more documents of one question";
    else if (!is_own(own, json_integer_value(place)))
        json_array_append(own, place);
    json_decref(place);
}

static void add_question(qa_reader *r, const char *question, json_t *answers, json_t *own)
{
    if (question && json_array_size(answers) > 0 && json_array_size(own) > 0) {
        json_array_append_new(r->qa->questions,
                              json_pack("{sssOsO}", "question", question, "answers", answers, "own", own));
    }
    json_decref(answers);
    json_decref(own);
}

/* The texts of a list of answers, each once. */
static json_t *answers_of(qa_reader *r, const json_t *list)
{
    const json_t *answer, *other;
    size_t i, k;
    json_t *answers = json_array();
    json_array_foreach(list, i, answer)
    {
        const json_t *text = member(answer, "text");
        bool again = !json_is_string(text) || !*json_string_value(text);
        json_array_foreach(answers, k, other) again = again || json_equal(other, text);
        if (k == MQ_RULER_ANSWERS) {
            r->wrong = "more answers of one question";
            break;
        }
        if (!again) json_array_append(answers, (json_t *)(uintptr_t)text);
    }
    return answers;
}

static void read_squad(qa_reader *r, const json_t *articles)
{
    const json_t *article, *paragraph, *question;
    size_t a, p, q;
    json_array_foreach(articles, a, article)
    {
        json_array_foreach(member(article, "paragraphs"), p, paragraph)
        {
            const char *context = json_string_value(member(paragraph, "context"));
            json_t *own = json_array();
            if (context) add_own(r, context, own);
            json_array_foreach(member(paragraph, "qas"), q, question)
            {
                const bool none = json_is_true(member(question, "is_impossible"));
                add_question(r, json_string_value(member(question, "question")),
                             none ? NULL : answers_of(r, member(question, "answers")), json_incref(own));
            }
            json_decref(own);
        }
    }
}

/* A document of HotpotQA: [title, [sentence, ...]]. */
static void add_hotpot_document(qa_reader *r, const json_t *document, json_t *own)
{
    const json_t *sentence;
    size_t i;
    mq_buf text = {0};
    const char *title = json_string_value(json_array_get(document, 0));
    mq__buf_puts(&text, title ? title : "");
    mq__buf_putc(&text, '\n');
    json_array_foreach(json_array_get(document, 1), i, sentence)
    {
        if (json_is_string(sentence)) mq__buf_puts(&text, json_string_value(sentence));
    }
    mq__buf_putc(&text, '\0');
    r->failed = r->failed || text.failed;
    if (title && !text.failed) add_own(r, text.data, own);
    mq__buf_free(&text);
}

static void read_hotpot(qa_reader *r, const json_t *items)
{
    const json_t *item, *document;
    size_t i, k;
    json_array_foreach(items, i, item)
    {
        const char *answer = json_string_value(member(item, "answer"));
        json_t *own = json_array();
        json_array_foreach(member(item, "context"), k, document) add_hotpot_document(r, document, own);
        add_question(r, json_string_value(member(item, "question")),
                     answer && *answer ? json_pack("[s]", answer) : json_array(), own);
    }
}

/* A digest of all that was read. */
static bool digest_qa(mq_ruler_qa *qa)
{
    uint64_t hash = 0;
    const json_t *parts[] = {qa->documents, qa->questions};
    for (size_t i = 0; i < 2; i++) {
        char *text = json_dumps(parts[i], JSON_COMPACT);
        if (!text) return false;
        hash = mq__eval_hash(hash, text, strlen(text));
        free(text);
    }
    snprintf(qa->hash, sizeof qa->hash, "%016llx", (unsigned long long)hash);
    return true;
}

mq_status mq__ruler_qa_read(const char *path, mq_ruler_qa *qa, mq_error *error)
{
    json_t *values = NULL;
    *qa = (mq_ruler_qa){0};
    const mq_status status = mq__eval_read_values(path, &values, error);
    if (status != MQ_OK) return status;
    const unsigned long failures = mq__json_failures();
    *qa = (mq_ruler_qa){.documents = json_array(), .questions = json_array()};
    qa_reader r = {.qa = qa, .places = json_object()};
    const json_t *articles = member(json_array_get(values, 0), "data");
    if (json_is_array(articles))
        read_squad(&r, articles);
    else
        read_hotpot(&r, values);
    json_decref(r.places);
    json_decref(values);
    if (!digest_qa(qa) || r.failed || mq__json_failures() != failures) {
        return mq__fail(error, MQ_NO_MEMORY, "eval: ruler: expected memory, got none");
    }
    if (!r.wrong && json_array_size(qa->questions) > 0) return MQ_OK;
    return mq__fail(error, MQ_FORMAT, "eval: ruler: %s: expected questions of SQuAD or HotpotQA, got %s", path,
                    r.wrong ? r.wrong : "none");
}

void mq__ruler_qa_free(mq_ruler_qa *qa)
{
    json_decref(qa->documents);
    json_decref(qa->questions);
    *qa = (mq_ruler_qa){0};
}

/* ---- texts */

static size_t common_divisor(size_t a, size_t b)
{
    while (b) {
        const size_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Steps of about 0.62 of the list: neighbours in the file, which ask about one text, come far from each other. */
size_t mq__ruler_qa_draw(const mq_ruler_qa *qa, uint64_t seed, size_t sample)
{
    const size_t count = json_array_size(qa->questions);
    mq_eval_random r = mq__eval_random(seed, "questions");
    const size_t first = (size_t)(mq__eval_random_u64(&r) % count);
    size_t step = count * 5 / 8 + 1;
    while (common_divisor(count, step) != 1)
        step++;
    return (first + sample % count * step) % count;
}

static const json_t *question_at(const mq_ruler_qa *qa, size_t index)
{
    return json_array_get(qa->questions, index);
}

const json_t *mq__ruler_qa_answers(const mq_ruler_qa *qa, size_t index)
{
    return member(question_at(qa, index), "answers");
}

/* The documents that are shown, `others` foreign ones and the question's own at places among them that the seed chooses. NULL: no
 * memory. */
static uint32_t *choose_documents(const mq_ruler_qa *qa, const json_t *own, uint64_t seed, uint32_t others,
                                  uint32_t *count)
{
    const uint32_t all = (uint32_t)json_array_size(qa->documents);
    uint32_t *order = mq__alloc(((size_t)all + 1) * sizeof *order);
    mq_eval_random r = {seed};
    *count = 0;
    if (!order) return NULL;
    for (uint32_t i = 0; i < all; i++) {
        if (!is_own(own, i)) order[(*count)++] = i;
    }
    if (others > *count) others = *count;
    for (uint32_t i = 0; i < others; i++) {
        const uint32_t k = i + mq__eval_random_below(&r, *count - i), drawn = order[k];
        order[k] = order[i];
        order[i] = drawn;
    }
    *count = others;
    r = (mq_eval_random){~seed};
    const json_t *place;
    size_t i;
    json_array_foreach(own, i, place)
    {
        const uint32_t k = mq__eval_random_below(&r, *count + 1);
        memmove(order + k + 1, order + k, (*count - k) * sizeof *order);
        order[k] = (uint32_t)json_integer_value(place);
        ++*count;
    }
    return order;
}

void mq__ruler_qa_text(const mq_ruler_qa *qa, size_t index, uint64_t seed, uint32_t others, mq_buf *text)
{
    static const char task[] = "Answer the question from the documents. Give the answer only, without other words.";
    const json_t *question = question_at(qa, index);
    uint32_t count, *order = choose_documents(qa, member(question, "own"), seed, others, &count);
    mq__buf_printf(text, "%s\n\nThe documents:\n", task);
    for (uint32_t i = 0; order && i < count; i++) {
        mq__buf_printf(text, "\nDocument %u:\n", i + 1);
        mq__buf_puts(text, json_string_value(json_array_get(qa->documents, order[i])));
        mq__buf_putc(text, '\n');
    }
    mq__buf_printf(text, "\n%s\n\nQuestion: ", task);
    mq__buf_puts(text, json_string_value(member(question, "question")));
    if (!order) text->failed = true;
    mq__free(order);
}
