/* Methods of dicts, lists and the objects of a run, and the table of all methods. Those of strings are in
 * jinja_strings.c. */
#include "jinja/jinja_methods.h"

#include <string.h>

static mq_jvalue dict_get(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "get", args, 1, 2);
    uint64_t hash;
    if (!mq__jvalue_hash(args->values[0], 0, &hash)) {
        mq__jrun_throw(run, MQ_TEMPLATE, "get: expected a hashable key, got %s", mq__jvalue_type_name(args->values[0]));
    }
    const mq_jvalue *const found = mq__jdict_get(run, self.as.dict, args->values[0]);
    if (found) return *found;
    return args->count == 2 ? args->values[1] : mq__jvalue_none();
}

static mq_jvalue dict_view(mq_jrun *run, mq_jvalue self, const mq_jargs *args, mq_jlist_kind kind)
{
    mq__jargs_positional(run, "a method of dict", args, 0, 0);
    const mq_jdict *const dict = self.as.dict;
    mq_jlist *const list = mq__jlist_new(run, kind, dict->count);
    mq__jrun_charge(run, dict->count);
    for (size_t i = 0; i < dict->count; i++) {
        const mq_jentry entry = dict->entries[i];
        mq__jlist_push(run, list,
                       kind == MQ_J_KEYS     ? entry.key
                       : kind == MQ_J_VALUES ? entry.value
                                             : mq__jvalue_pair(run, entry.key, entry.value));
    }
    return mq__jvalue_list(list);
}

static mq_jvalue dict_items(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return dict_view(run, self, args, MQ_J_ITEMS);
}

static mq_jvalue dict_keys(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return dict_view(run, self, args, MQ_J_KEYS);
}

static mq_jvalue dict_values(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    return dict_view(run, self, args, MQ_J_VALUES);
}

static mq_jvalue dict_copy(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "copy", args, 0, 0);
    mq_jdict *const copy = mq__jdict_new(run, self.as.dict->count);
    for (size_t i = 0; i < self.as.dict->count; i++) {
        mq__jrun_charge(run, 1);
        mq__jdict_append(run, copy, self.as.dict->entries[i].key, self.as.dict->entries[i].value);
    }
    return mq__jvalue_dict(copy);
}

static bool is_sequence_jinja_methods(mq_jvalue self)
{
    return self.as.list->kind <= MQ_J_RANGE;
}

static mq_jvalue list_count(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "count", args, 1, 1);
    int64_t count = 0;
    for (size_t i = 0; i < self.as.list->count; i++) {
        count += mq__jvalue_equal(run, mq__jlist_at(self.as.list, i), args->values[0]);
    }
    return mq__jvalue_int(count);
}

static mq_jvalue list_index(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "index", args, 1, 3);
    const int64_t length = (int64_t)self.as.list->count;
    int64_t bounds[2] = {0, length};
    for (size_t i = 1; i < args->count; i++) {
        const int64_t at = mq__jvalue_integer(run, args->values[i], "index");
        bounds[i - 1] = at >= 0 ? at : at + length < 0 ? 0 : at + length;
    }
    for (int64_t i = bounds[0]; i < bounds[1] && i < length; i++) {
        if (mq__jvalue_equal(run, mq__jlist_at(self.as.list, (size_t)i), args->values[0])) return mq__jvalue_int(i);
    }
    mq__jrun_throw(run, MQ_TEMPLATE, "index: expected an item of the list");
}

static mq_jvalue list_copy(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "copy", args, 0, 0);
    return mq__jvalue_list(mq__jvalue_to_list(run, self, MQ_J_PLAIN));
}

/* The two changes that Jinja's sandbox lets through, and that templates therefore may rely on. */
static mq_jvalue list_pop(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "pop", args, 0, 1);
    mq_jlist *const list = self.as.list;
    int64_t at = args->count ? mq__jvalue_integer(run, args->values[0], "pop") : -1;
    if (at < 0) at += (int64_t)list->count;
    if (at < 0 || (uint64_t)at >= list->count) mq__jrun_throw(run, MQ_TEMPLATE, "pop: expected a position in the list");
    const mq_jvalue item = list->items[at];
    list->count--;
    mq__jrun_charge(run, (list->count - (size_t)at) / 16);
    memmove(list->items + at, list->items + at + 1, (list->count - (size_t)at) * sizeof *list->items);
    return item;
}

static mq_jvalue list_clear(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "clear", args, 0, 0);
    self.as.list->count = 0;
    return mq__jvalue_none();
}

static mq_jvalue loop_cycle(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "cycle", args, 1, SIZE_MAX);
    return args->values[(size_t)self.as.loop->index0 % args->count];
}

static mq_jvalue loop_changed(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "changed", args, 0, SIZE_MAX);
    mq_jlist *const values = mq__jlist_new(run, MQ_J_TUPLE, args->count);
    for (size_t i = 0; i < args->count; i++) {
        mq__jlist_push(run, values, args->values[i]);
    }
    const mq_jvalue now = mq__jvalue_list(values);
    const bool changed = !mq__jvalue_equal(run, self.as.loop->changed, now);
    self.as.loop->changed = now;
    return mq__jvalue_bool(changed);
}

static mq_jvalue cycler_next(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "next", args, 0, 0);
    mq_jcycler *const cycler = self.as.cycler;
    const mq_jvalue value = cycler->items[cycler->position];
    cycler->position = (cycler->position + 1) % cycler->count;
    return value;
}

static mq_jvalue cycler_reset(mq_jrun *run, mq_jvalue self, const mq_jargs *args)
{
    mq__jargs_positional(run, "reset", args, 0, 0);
    self.as.cycler->position = 0;
    return mq__jvalue_none();
}

/* Rows of one name are adjacent. A row without a function: Python has it and the sandbox, or this subset, refuses it. */
static const mq_jmethod methods[] = {
    {"append", MQ_J_LIST, NULL},
    {"capitalize", MQ_J_STRING, mq__jstring_capitalize},
    {"casefold", MQ_J_STRING, NULL},
    {"center", MQ_J_STRING, mq__jstring_center},
    {"changed", MQ_J_LOOP, loop_changed},
    {"clear", MQ_J_LIST, list_clear},
    {"clear", MQ_J_DICT, NULL},
    {"copy", MQ_J_DICT, dict_copy},
    {"copy", MQ_J_LIST, list_copy},
    {"count", MQ_J_STRING, mq__jstring_count},
    {"count", MQ_J_LIST, list_count},
    {"cycle", MQ_J_LOOP, loop_cycle},
    {"encode", MQ_J_STRING, NULL},
    {"endswith", MQ_J_STRING, mq__jstring_endswith},
    {"expandtabs", MQ_J_STRING, NULL},
    {"extend", MQ_J_LIST, NULL},
    {"find", MQ_J_STRING, mq__jstring_find},
    {"format", MQ_J_STRING, mq__jinja_format_braces},
    {"format_map", MQ_J_STRING, NULL},
    {"fromkeys", MQ_J_DICT, NULL},
    {"get", MQ_J_DICT, dict_get},
    {"index", MQ_J_STRING, mq__jstring_index},
    {"index", MQ_J_LIST, list_index},
    {"insert", MQ_J_LIST, NULL},
    {"isalnum", MQ_J_STRING, mq__jstring_isalnum},
    {"isalpha", MQ_J_STRING, mq__jstring_isalpha},
    {"isascii", MQ_J_STRING, mq__jstring_isascii},
    {"isdecimal", MQ_J_STRING, mq__jstring_isdecimal},
    {"isdigit", MQ_J_STRING, mq__jstring_isdigit},
    {"isidentifier", MQ_J_STRING, NULL},
    {"islower", MQ_J_STRING, mq__jstring_islower},
    {"isnumeric", MQ_J_STRING, mq__jstring_isnumeric},
    {"isprintable", MQ_J_STRING, mq__jstring_isprintable},
    {"isspace", MQ_J_STRING, mq__jstring_isspace},
    {"istitle", MQ_J_STRING, NULL},
    {"isupper", MQ_J_STRING, mq__jstring_isupper},
    {"items", MQ_J_DICT, dict_items},
    {"join", MQ_J_STRING, mq__jstring_join},
    {"keys", MQ_J_DICT, dict_keys},
    {"ljust", MQ_J_STRING, mq__jstring_ljust},
    {"lower", MQ_J_STRING, mq__jstring_lower},
    {"lstrip", MQ_J_STRING, mq__jstring_lstrip},
    {"maketrans", MQ_J_STRING, NULL},
    {"next", MQ_J_CYCLER, cycler_next},
    {"partition", MQ_J_STRING, mq__jstring_partition},
    {"pop", MQ_J_DICT, NULL},
    {"pop", MQ_J_LIST, list_pop},
    {"popitem", MQ_J_DICT, NULL},
    {"remove", MQ_J_LIST, NULL},
    {"removeprefix", MQ_J_STRING, mq__jstring_removeprefix},
    {"removesuffix", MQ_J_STRING, mq__jstring_removesuffix},
    {"replace", MQ_J_STRING, mq__jstring_replace},
    {"reset", MQ_J_CYCLER, cycler_reset},
    {"reverse", MQ_J_LIST, NULL},
    {"rfind", MQ_J_STRING, mq__jstring_rfind},
    {"rindex", MQ_J_STRING, mq__jstring_rindex},
    {"rjust", MQ_J_STRING, mq__jstring_rjust},
    {"rpartition", MQ_J_STRING, mq__jstring_rpartition},
    {"rsplit", MQ_J_STRING, mq__jstring_rsplit},
    {"rstrip", MQ_J_STRING, mq__jstring_rstrip},
    {"setdefault", MQ_J_DICT, NULL},
    {"sort", MQ_J_LIST, NULL},
    {"split", MQ_J_STRING, mq__jstring_split},
    {"splitlines", MQ_J_STRING, mq__jstring_splitlines},
    {"startswith", MQ_J_STRING, mq__jstring_startswith},
    {"strip", MQ_J_STRING, mq__jstring_strip},
    {"swapcase", MQ_J_STRING, mq__jstring_swapcase},
    {"title", MQ_J_STRING, mq__jstring_title},
    {"translate", MQ_J_STRING, NULL},
    {"update", MQ_J_DICT, NULL},
    {"upper", MQ_J_STRING, mq__jstring_upper},
    {"values", MQ_J_DICT, dict_values},
    {"zfill", MQ_J_STRING, mq__jstring_zfill},
    {NULL, 0, NULL},
};

const mq_jmethod *mq__jmethod_find(mq_jvalue name)
{
    for (const mq_jmethod *row = methods; row->name; row++) {
        if (mq__jvalue_is_text(name, row->name)) return row;
    }
    return NULL;
}

const mq_jmethod *mq__jmethod_of(const mq_jmethod *first, mq_jvalue object)
{
    if (!first) return NULL;
    for (const mq_jmethod *row = first; row->name && strcmp(row->name, first->name) == 0; row++) {
        if (row->type != object.type) continue;
        if (object.type != MQ_J_LIST) return row;
        /* Tuples and ranges have count and index only; generators and views of dicts nothing of this table. */
        const bool reads = row->call == list_count || row->call == list_index;
        return is_sequence_jinja_methods(object) && (reads || object.as.list->kind == MQ_J_PLAIN) ? row : NULL;
    }
    return NULL;
}
