#include "eval/bfcl.h"

#include "base/error.h"
#include "base/file.h"
#include "base/mem.h"

#include <stdio.h>
#include <string.h>

/* What can be scored from the published files: memory and web_search need their services and a judge. */
static const char *const known[] = {"simple_python",
                                    "simple_java",
                                    "simple_javascript",
                                    "multiple",
                                    "parallel",
                                    "parallel_multiple",
                                    "live_simple",
                                    "live_multiple",
                                    "live_parallel",
                                    "live_parallel_multiple",
                                    "irrelevance",
                                    "live_irrelevance",
                                    "live_relevance",
                                    "multi_turn_base",
                                    "multi_turn_miss_func",
                                    "multi_turn_miss_param",
                                    "multi_turn_long_context"};
enum { CATEGORIES = sizeof known / sizeof known[0] };

/* Classes of multi_turn and the files that describe their functions. */
static const char *const classes[][2] = {{"GorillaFileSystem", "gorilla_file_system"},
                                         {"MathAPI", "math_api"},
                                         {"MessageAPI", "message_api"},
                                         {"TwitterAPI", "posting_api"},
                                         {"TicketAPI", "ticket_api"},
                                         {"TradingBot", "trading_bot"},
                                         {"TravelAPI", "travel_booking"},
                                         {"VehicleControlAPI", "vehicle_control"}};

mq_bfcl_language mq__bfcl_language_of(const char *category)
{
    if (strstr(category, "javascript")) return MQ_BFCL_JAVASCRIPT;
    return strstr(category, "java") ? MQ_BFCL_JAVA : MQ_BFCL_PYTHON;
}

void mq__bfcl_plain_name(const char *name, char *out, size_t size)
{
    size_t i = 0;
    for (; name[i] && i + 1 < size; i++) {
        out[i] = name[i] == '.' ? '_' : name[i];
    }
    out[i] = '\0';
}

/* ------------------------------------------------------------------ tools */

static json_t *schema_of(const json_t *published, mq_bfcl_language language, int depth);

static const char *schema_type(const char *type)
{
    static const char *const types[][2] = {{"dict", "object"},   {"hashmap", "object"}, {"float", "number"},
                                           {"double", "number"}, {"tuple", "array"},    {"arraylist", "array"},
                                           {"array", "array"},   {"list", "array"},     {"integer", "integer"},
                                           {"long", "integer"},  {"bigint", "integer"}, {"boolean", "boolean"},
                                           {"number", "number"}, {"object", "object"}};
    for (size_t i = 0; type && i < sizeof types / sizeof types[0]; i++) {
        if (strcasecmp(type, types[i][0]) == 0) return types[i][1];
    }
    return "string";
}

/* Java and JavaScript values are asked for as source text. */
static json_t *source_schema(const json_t *published, mq_bfcl_language language)
{
    char text[2048];
    const char *description = json_string_value(json_object_get(published, "description"));
    snprintf(text, sizeof text, "%s A %s %s, written as source code.", description ? description : "",
             language == MQ_BFCL_JAVA ? "Java" : "JavaScript", json_string_value(json_object_get(published, "type")));
    return json_pack("{ssss}", "type", "string", "description", text);
}

static json_t *properties_schema(const json_t *properties, mq_bfcl_language language, int depth)
{
    json_t *out = json_object(), *property;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)properties, name, property)
    {
        json_object_set_new(out, name,
                            language == MQ_BFCL_PYTHON ? schema_of(property, language, depth + 1)
                                                       : source_schema(property, language));
    }
    return out;
}

static json_t *schema_of(const json_t *published, mq_bfcl_language language, int depth)
{
    json_t *schema =
        json_is_object(published) && depth < 16 ? json_copy((json_t *)(uintptr_t)published) : json_object();
    json_t *properties = json_object_get(schema, "properties"), *items = json_object_get(schema, "items");
    json_object_set_new(schema, "type", json_string(schema_type(json_string_value(json_object_get(schema, "type")))));
    if (properties) json_object_set_new(schema, "properties", properties_schema(properties, language, depth));
    if (items) json_object_set_new(schema, "items", schema_of(items, language, depth + 1));
    return schema;
}

json_t *mq__bfcl_tools(const json_t *functions, mq_bfcl_language language)
{
    json_t *tools = json_array();
    const json_t *function;
    size_t i;
    json_array_foreach(functions, i, function)
    {
        char name[256];
        const char *description = json_string_value(json_object_get(function, "description"));
        mq__bfcl_plain_name(json_string_value(json_object_get(function, "name")), name, sizeof name);
        json_array_append_new(tools, json_pack("{sss{ssssso}}", "type", "function", "function", "name", name,
                                               "description", description ? description : "", "parameters",
                                               schema_of(json_object_get(function, "parameters"), language, 0)));
    }
    return tools;
}

/* ------------------------------------------------------------------ files */

static mq_status read_named_bfcl_data(const char *folder, const char *format, const char *name, json_t **values,
                                      mq_error *error)
{
    char file[128];
    snprintf(file, sizeof file, format, name);
    char *path = mq__path_join(folder, file);
    const mq_status status = path ? mq__eval_read_values(path, values, error)
                                  : mq__fail(error, MQ_NO_MEMORY, "eval: bfcl: expected memory, got none");
    mq__free(path);
    return status;
}

static mq_status malformed(const char *category, size_t i, const char *what, mq_error *error)
{
    return mq__fail(error, MQ_FORMAT, "eval: bfcl: %s: item %zu: expected %s, got something else", category, i, what);
}

static bool functions_are_named(const json_t *functions)
{
    const json_t *function;
    size_t i;
    json_array_foreach(functions, i, function)
    {
        if (!json_is_string(json_object_get(function, "name"))) return false;
    }
    return json_is_array(functions);
}

/* Functions of the item's classes; those of "excluded_function" are left out, those of "missed_function" wait for their turn. */
static mq_status add_class_functions(json_t *item, const json_t *docs, const char *category, size_t at, mq_error *error)
{
    json_t *functions = json_array(), *missed = json_object(), *name, *names;
    const json_t *function;
    const char *turn;
    size_t i, k;
    json_array_foreach(json_object_get(item, "involved_classes"), i, name)
    {
        const json_t *doc = json_is_string(name) ? json_object_get(docs, json_string_value(name)) : NULL;
        if (!doc) {
            json_decref(functions);
            json_decref(missed);
            return malformed(category, at, "involved_classes that have a description", error);
        }
        json_array_extend(functions, (json_t *)(uintptr_t)doc);
    }
    json_object_foreach(json_object_get(item, "missed_function"), turn, names)
    {
        json_t *later = json_array();
        json_array_foreach(functions, i, function)
        {
            json_array_foreach(names, k, name)
            {
                if (json_equal(json_object_get(function, "name"), name))
                    json_array_append(later, (json_t *)(uintptr_t)function);
            }
        }
        json_object_set_new(missed, turn, later);
    }
    for (i = json_array_size(functions); i-- > 0;) {
        const json_t *own = json_object_get(json_array_get(functions, i), "name");
        bool drop = false;
        json_array_foreach(json_object_get(item, "excluded_function"), k, name) drop = drop || json_equal(own, name);
        json_object_foreach(json_object_get(item, "missed_function"), turn, names)
        {
            json_array_foreach(names, k, name) drop = drop || json_equal(own, name);
        }
        if (drop) json_array_remove(functions, i);
    }
    json_object_set_new(item, "function", functions);
    json_object_set_new(item, "missed", missed);
    return MQ_OK;
}

static mq_status read_docs(const char *folder, json_t **docs, mq_error *error)
{
    mq_status status = MQ_OK;
    *docs = json_object();
    for (size_t i = 0; status == MQ_OK && i < sizeof classes / sizeof classes[0]; i++) {
        json_t *functions = NULL;
        status = read_named_bfcl_data(folder, "multi_turn_func_doc/%s.json", classes[i][1], &functions, error);
        if (status == MQ_OK && !functions_are_named(functions)) {
            status = mq__fail(error, MQ_FORMAT,
                              "eval: bfcl: %s.json: expected functions with names, got something else", classes[i][1]);
        }
        if (status == MQ_OK) json_object_set(*docs, classes[i][0], functions);
        json_decref(functions);
    }
    return status;
}

/* Joins the answers to the items by id and checks what is used later. */
static mq_status complete(json_t *items, const char *category, const json_t *answers, const json_t *docs,
                          mq_error *error)
{
    const bool multi = strncmp(category, "multi_turn", 10) == 0;
    json_t *item, *truths = json_object();
    const json_t *answer;
    mq_status status = MQ_OK;
    size_t i;
    json_array_foreach(answers, i, answer)
    {
        const char *id = json_string_value(json_object_get(answer, "id"));
        if (id) json_object_set(truths, id, json_object_get(answer, "ground_truth"));
    }
    json_array_foreach(items, i, item)
    {
        const char *id = json_string_value(json_object_get(item, "id"));
        json_t *truth = id ? json_object_get(truths, id) : NULL, *question = json_object_get(item, "question");
        if (!id || !mq__eval_are_dialogues(question) || json_array_size(question) == 0) {
            status = malformed(category, i, "an id and a question of messages", error);
        } else if (answers &&
                   (!json_is_array(truth) || (multi && json_array_size(truth) != json_array_size(question)))) {
            status = malformed(category, i, "an answer with its id, a list for each turn", error);
        } else if (multi) {
            status = add_class_functions(item, docs, category, i, error);
        } else if (!functions_are_named(json_object_get(item, "function"))) {
            status = malformed(category, i, "functions with names", error);
        }
        if (status != MQ_OK) break;
        json_object_set_new(item, "category", json_string(category));
        if (truth) json_object_set(item, "ground_truth", truth);
    }
    json_decref(truths);
    return status;
}

static mq_status read_category(const char *folder, const char *category, json_t **items, mq_error *error)
{
    const bool answered = !strstr(category, "relevance"), multi = strncmp(category, "multi_turn", 10) == 0;
    json_t *answers = NULL, *docs = NULL;
    mq_status status = read_named_bfcl_data(folder, "BFCL_v4_%s.json", category, items, error);
    if (status == MQ_OK && answered) {
        status = read_named_bfcl_data(folder, "possible_answer/BFCL_v4_%s.json", category, &answers, error);
    }
    if (status == MQ_OK && multi) status = read_docs(folder, &docs, error);
    if (status == MQ_OK) status = complete(*items, category, answers, docs, error);
    json_decref(answers);
    json_decref(docs);
    return status;
}

/* Without a list, what the folder has; a category that was asked for must be there. */
static bool is_wanted(const char *folder, const char *categories, const char *category)
{
    char file[128];
    const size_t length = strlen(category);
    if (!categories) {
        snprintf(file, sizeof file, "BFCL_v4_%s.json", category);
        char *path = mq__path_join(folder, file);
        const bool there = path && mq__file_exists(path);
        mq__free(path);
        return there;
    }
    for (const char *p = categories; *p; p += *p == ',') {
        const size_t part = strcspn(p, ",");
        if (part == length && strncmp(p, category, length) == 0) return true;
        p += part;
    }
    return false;
}

static mq_status check_categories(const char *categories, mq_error *error)
{
    for (const char *p = categories; p && *p; p += *p == ',') {
        const size_t part = strcspn(p, ",");
        size_t k = 0;
        while (k < CATEGORIES && (strlen(known[k]) != part || strncmp(p, known[k], part) != 0)) {
            k++;
        }
        if (k == CATEGORIES) {
            return mq__fail(error, MQ_USAGE, "eval: bfcl: kinds: expected categories such as simple_python, got %.*s",
                            (int)part, p);
        }
        p += part;
    }
    return MQ_OK;
}

mq_status mq__bfcl_read(const char *folder, const char *categories, json_t **items, mq_error *error)
{
    json_t *each[CATEGORIES] = {NULL};
    size_t longest = 0;
    mq_status status = check_categories(categories, error);
    *items = json_array();
    for (size_t c = 0; status == MQ_OK && c < CATEGORIES; c++) {
        if (!is_wanted(folder, categories, known[c])) continue;
        status = read_category(folder, known[c], &each[c], error);
        if (json_array_size(each[c]) > longest) longest = json_array_size(each[c]);
    }
    for (size_t i = 0; status == MQ_OK && i < longest; i++) { /* in turn: any limit has all categories */
        for (size_t c = 0; c < CATEGORIES; c++) {
            if (i < json_array_size(each[c])) json_array_append(*items, json_array_get(each[c], i));
        }
    }
    for (size_t c = 0; c < CATEGORIES; c++) {
        json_decref(each[c]);
    }
    if (status == MQ_OK && json_array_size(*items) == 0) {
        status = mq__fail(error, MQ_FORMAT, "eval: bfcl: %s: expected the files of BFCL v4, got none", folder);
    }
    return status;
}
