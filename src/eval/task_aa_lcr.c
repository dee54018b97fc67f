/* `aa-lcr`: questions about sets of long documents (Artificial Analysis Long Context Reasoning, 2025): AA-LCR_Dataset.csv as
 * published, with the extracted texts as lcr/CATEGORY/SET/FILE beside it. The original asks a model whether an answer is right
 * (--judge-url); without one, its words are compared, which is stricter. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "eval/csv.h"
#include "eval/question.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

#define TABLE        "AA-LCR_Dataset.csv"
#define DOCUMENT_MAX ((size_t)64 << 20)

static const char *const published[] = {"document_category", "document_set_id", "question_id",
                                        "question",          "answer",          "data_source_filenames"};

static const char *text_of(const json_t *item, const char *key)
{
    return json_string_value(json_object_get(item, key));
}

/* ---- reading */

/* Whether two file names have the same ASCII characters: unpacking garbles the published archive's other ones. */
static bool same_ascii(const char *a, const char *b)
{
    for (;; a++, b++) {
        while ((unsigned char)*a >= 0x80)
            a++;
        while ((unsigned char)*b >= 0x80)
            b++;
        if (*a != *b) return false;
        if (!*a) return true;
    }
}

/* The path of a document, owned; NULL: there is no memory. A name that is not in the folder stays as it is. */
static char *find_document(const char *folder, const char *name)
{
    char *path = mq__path_join(folder, name);
    if (!path || mq__file_exists(path)) return path;
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!same_ascii(entry->d_name, name)) continue;
        mq__free(path);
        path = mq__path_join(folder, entry->d_name);
        break;
    }
    if (dir) closedir(dir);
    return path;
}

/* A text file's content; bytes that are not UTF-8 become question marks. */
static mq_status read_document(const char *path, json_t **text, mq_error *error)
{
    char *data = NULL;
    size_t bytes;
    const mq_status status = mq__file_read(path, DOCUMENT_MAX, &data, &bytes, error);
    if (status != MQ_OK) return status;
    mq__eval_make_text(data, bytes);
    *text = json_stringn(data, bytes);
    mq__free(data);
    return *text ? MQ_OK : mq__fail(error, MQ_NO_MEMORY, "eval: aa-lcr: expected memory, got none");
}

/* Puts a question's documents into the item, in the order of its file names, which are separated by semicolons. */
static mq_status read_documents(const char *folder, json_t *item, mq_error *error)
{
    char name[256];
    json_t *documents = json_array();
    mq_status status = MQ_OK;
    for (const char *p = text_of(item, "data_source_filenames"); status == MQ_OK && *p;) {
        p += strspn(p, " ;");
        size_t length = strcspn(p, ";");
        const char *next = p + length;
        while (length && p[length - 1] == ' ')
            length--;
        if (length == 0) break;
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name), p);
        if (length >= sizeof name || strchr(name, '/')) {
            status = mq__fail(error, MQ_FORMAT, "eval: aa-lcr: question %.20s: expected names of files, got %.60s",
                              text_of(item, "question_id"), name);
            break;
        }
        char *path = find_document(folder, name);
        json_t *text = NULL;
        status = path ? read_document(path, &text, error)
                      : mq__fail(error, MQ_NO_MEMORY, "eval: aa-lcr: expected memory, got none");
        if (text) json_array_append_new(documents, text);
        mq__free(path);
        p = next;
    }
    json_object_set_new(item, "documents", documents);
    return status;
}

static bool is_file_name(const char *text)
{
    return *text && *text != '.' && !strchr(text, '/');
}

/* The published category "Government Consultation" is the folder Government_Consultation. */
static mq_status read_set(const char *data, json_t *item, mq_error *error)
{
    char category[128], folder[4096];
    if (!mq__question_has_texts(item, published, sizeof published / sizeof published[0]) ||
        !is_file_name(text_of(item, "document_category")) || !is_file_name(text_of(item, "document_set_id"))) {
        return mq__fail(error, MQ_FORMAT, "eval: aa-lcr: %s/" TABLE ": expected the published columns, got others",
                        data);
    }
    snprintf(category, sizeof category, "%s", text_of(item, "document_category"));
    for (char *space; (space = strchr(category, ' '));)
        *space = '_';
    const int length =
        snprintf(folder, sizeof folder, "%s/lcr/%s/%s", data, category, text_of(item, "document_set_id"));
    if (length < 0 || (size_t)length >= sizeof folder) {
        return mq__fail(error, MQ_FORMAT, "eval: aa-lcr: %.60s: expected a shorter path, got one of %d bytes", data,
                        length);
    }
    return read_documents(folder, item, error);
}

static mq_status read_aa_lcr(const char *data, json_t **items, mq_error *error)
{
    char *table = mq__path_join(data, TABLE);
    json_t *item;
    size_t i;
    if (!table) return mq__fail(error, MQ_NO_MEMORY, "eval: aa-lcr: expected memory, got none");
    mq_status status = mq__csv_read(table, items, error);
    mq__free(table);
    if (status != MQ_OK) return status;
    json_array_foreach(*items, i, item)
    {
        status = read_set(data, item, error);
        if (status != MQ_OK) break;
    }
    if (status != MQ_OK) {
        json_decref(*items);
        *items = NULL;
    }
    return status;
}

static bool usable_aa_lcr(const json_t *item)
{
    return json_array_size(json_object_get(item, "documents")) > 0;
}

/* ---- asking and scoring */

/* The published frame: documents between marks, then the question. */
static void ask_aa_lcr(const json_t *item, mq_buf *text)
{
    const json_t *document;
    size_t i;
    mq__buf_puts(text, "BEGIN INPUT DOCUMENTS\n");
    json_array_foreach(json_object_get(item, "documents"), i, document)
    {
        mq__buf_printf(text, "\nBEGIN DOCUMENT %zu:\n", i + 1);
        mq__buf_puts(text, json_string_value(document));
        mq__buf_printf(text, "\nEND DOCUMENT %zu\n", i + 1);
    }
    mq__buf_puts(text, "\nEND INPUT DOCUMENTS\n\nAnswer this question from the documents above.\n\nSTART QUESTION\n\n");
    mq__buf_puts(text, text_of(item, "question"));
    mq__buf_puts(text, "\n\nEND QUESTION\n");
}

static void judge_aa_lcr(const json_t *item, const char *answer, mq_buf *text)
{
    mq__buf_puts(text, "A question about long documents was asked.\n\nQuestion: ");
    mq__buf_puts(text, text_of(item, "question"));
    mq__buf_puts(text, "\nRight answer: ");
    mq__buf_puts(text, text_of(item, "answer"));
    mq__buf_puts(text, "\nGiven answer: ");
    mq__buf_puts(text, answer);
    mq__buf_puts(text,
                 "\n\nIs the given answer consistent with the right one? Other wording and rounding do not matter, "
                 "another fact does. Reply with yes or no only.");
}

static json_t *score_aa_lcr(const json_t *item, const char *answer)
{
    const mq_overlap overlap = mq__word_overlap(answer, text_of(item, "answer"));
    return json_pack("{sfsfss}", "contains", overlap.contains ? 1.0 : 0.0, "f1", overlap.f1, "group",
                     text_of(item, "document_category"));
}

static const mq_benchmark aa_lcr = {.name = "aa-lcr",
                                    .max_tokens = 30720, /* the paper states none: LongBench v2's */
                                    .max_prompt = 120000,
                                    .quick = 6,
                                    .read = read_aa_lcr,
                                    .usable = usable_aa_lcr,
                                    .ask = ask_aa_lcr,
                                    .score = score_aa_lcr,
                                    .judge = judge_aa_lcr,
                                    .id_key = "question_id"};

static mq_status open_aa_lcr(const mq_eval_context *context, void **task, size_t *items, mq_error *error)
{
    return mq__question_open(&aa_lcr, context, task, items, error);
}

const mq_eval_task mq__eval_aa_lcr = {
    .name = "aa-lcr",
    .summary = "questions about sets of long documents (--data FOLDER with AA-LCR_Dataset.csv and lcr/); --judge-url",
    .metrics = {"contains", "f1", "judged"},
    .binary = 1u << 0 | 1u << 2,
    .open = open_aa_lcr,
    MQ_QUESTION_CALLBACKS,
};
