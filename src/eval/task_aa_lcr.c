/* `aa-lcr`: questions about sets of long documents (Artificial Analysis Long Context Reasoning, 2025): AA-LCR_Dataset.csv as
 * published, with the extracted texts as lcr/CATEGORY/SET/FILE beside it. The original asks a model whether an answer is right
 * (--judge-url); without one, its words are compared, which is stricter. */
#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/unicode.h"
#include "eval/csv.h"
#include "eval/question.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define TABLE        "AA-LCR_Dataset.csv"
#define DOCUMENT_MAX ((size_t)64 << 20)

static const char *const published[] = {"document_category", "document_set_id", "question_id",
                                        "question",          "answer",          "data_source_filenames"};

static const char *text_of(const json_t *item, const char *key)
{
    return json_string_value(json_object_get(item, key));
}

/* ---- reading */

static mq_status no_memory_aa_lcr(mq_error *error)
{
    return mq__fail(error, MQ_NO_MEMORY, "eval: aa-lcr: expected memory, got none");
}

/* The name's ASCII characters, `decomposed`: those of its letters without their marks as well. NULL: no memory. */
static char *ascii_of(const char *name, bool decomposed)
{
    mq_buf whole = {0}, ascii = {0};
    if (decomposed)
        (void)mq__unicode_normalize(name, strlen(name), MQ_NORMAL_NFD, &whole);
    else
        mq__buf_puts(&whole, name);
    for (size_t i = 0; i < whole.len; i++) {
        if ((unsigned char)whole.data[i] < 0x80) mq__buf_putc(&ascii, whole.data[i]);
    }
    mq__buf_putc(&ascii, '\0');
    ascii.failed = ascii.failed || whole.failed;
    mq__buf_free(&whole);
    char *text = ascii.failed ? NULL : mq__buf_take(&ascii);
    mq__buf_free(&ascii);
    return text;
}

/* The only file of the folder with these ASCII characters, owned; NULL: there is none, or several. */
static char *find_ascii(const char *folder, const char *plain, const char *bare)
{
    char *found = NULL;
    size_t count = 0;
    DIR *dir = opendir(folder);
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char *own = ascii_of(entry->d_name, false);
        const bool same = own && (strcmp(own, plain) == 0 || strcmp(own, bare) == 0);
        mq__free(own);
        if (!same || count++) continue;
        found = mq__path_join(folder, entry->d_name);
    }
    if (dir) closedir(dir);
    if (count > 1) {
        mq__free(found);
        found = NULL;
    }
    return found;
}

/* The path of a document, owned; NULL: no memory. Unpacking the published archive garbles or decomposes what is not ASCII in names: such
 * a file is found by the rest of its name. A name that is not in the folder stays as it is. */
static char *find_document(const char *folder, const char *name)
{
    char *path = mq__path_join(folder, name);
    if (!path || mq__file_exists(path)) return path;
    char *plain = ascii_of(name, false), *bare = ascii_of(name, true), *found = NULL;
    const bool telling = plain && bare && strcspn(plain, ".") > 0; /* more than an extension */
    if (telling) found = find_ascii(folder, plain, bare);
    mq__free(plain);
    mq__free(bare);
    if (!found) return path;
    mq__free(path);
    return found;
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
    return *text ? MQ_OK : no_memory_aa_lcr(error);
}

static mq_status add_text_of_set(const char *folder, const char *name, json_t *documents, mq_error *error)
{
    char *path = find_document(folder, name);
    json_t *text = NULL;
    mq_status status = path ? read_document(path, &text, error) : no_memory_aa_lcr(error);
    mq__free(path);
    if (status == MQ_OK && json_array_append_new(documents, text) != 0) status = no_memory_aa_lcr(error);
    return status;
}

static bool is_file_name(const char *text)
{
    return *text && *text != '.' && !strchr(text, '/');
}

/* Puts a question's documents into the item, in the order of its file names, which are separated by semicolons. */
static mq_status read_documents(const char *folder, json_t *item, mq_error *error)
{
    static const char blanks[] = " \t\r\n;";
    char name[256];
    json_t *documents = json_array();
    mq_status status =
        documents && json_object_set_new(item, "documents", documents) == 0 ? MQ_OK : no_memory_aa_lcr(error);
    for (const char *p = text_of(item, "data_source_filenames"); status == MQ_OK;) {
        p += strspn(p, blanks);
        if (!*p) break;
        size_t length = strcspn(p, ";");
        const char *next = p + length;
        while (strchr(blanks, p[length - 1]))
            length--;
        snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name), p);
        status = length < sizeof name && is_file_name(name)
                     ? add_text_of_set(folder, name, documents, error)
                     : mq__fail(error, MQ_FORMAT, "eval: aa-lcr: question %.20s: expected names of files, got %.60s",
                                text_of(item, "question_id"), name);
        p = next;
    }
    return status;
}

/* The folder of a set: the archive was unpacked beside the table, into a folder of its own or not, and its categories have underscores
 * for spaces or not. The last of these that is there, else the first. */
static void set_folder(const char *data, const json_t *item, char folder[4096])
{
    static const char *const roots[] = {"lcr", "lcr/lcr", "extracted_text/lcr"};
    char category[256];
    struct stat info;
    for (int i = 6; i-- > 0;) {
        snprintf(category, sizeof category, "%s", text_of(item, "document_category"));
        for (char *space; i % 2 && (space = strchr(category, ' '));)
            *space = '_';
        snprintf(folder, 4096, "%s/%s/%s/%s", data, roots[i / 2], category, text_of(item, "document_set_id"));
        if (stat(folder, &info) == 0 && S_ISDIR(info.st_mode)) return;
    }
}

static mq_status read_set(const char *data, json_t *item, mq_error *error)
{
    char folder[4096], id[256];
    if (!mq__question_has_texts(item, published, sizeof published / sizeof published[0]) ||
        !is_file_name(text_of(item, "document_category")) || !is_file_name(text_of(item, "document_set_id")) ||
        strlen(text_of(item, "document_category")) + strlen(text_of(item, "document_set_id")) > 200 ||
        strlen(data) > 3000) {
        return mq__fail(error, MQ_FORMAT, "eval: aa-lcr: %.200s/" TABLE ": expected the published columns, got others",
                        data);
    }
    snprintf(id, sizeof id, "%.200s-%.40s", text_of(item, "document_set_id"), text_of(item, "question_id"));
    if (json_object_set_new(item, "id", json_string(id)) != 0) return no_memory_aa_lcr(error);
    set_folder(data, item, folder);
    return read_documents(folder, item, error);
}

static mq_status read_aa_lcr(const char *data, json_t **items, mq_error *error)
{
    char *table = mq__path_join(data, TABLE);
    json_t *item;
    size_t i;
    if (!table) return no_memory_aa_lcr(error);
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
                                    .id_key = "id"};

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
